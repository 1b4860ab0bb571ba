/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KVK_CLI_DIFF_H
#define KVK_CLI_DIFF_H

#include <jansson.h>

/*
 * What differs between two values, as an array of {"path", "a", "b"} in the order of the paths' first appearance; a is
 * left out where only b has the member, and the other way round. Objects and arrays are compared member by
 * member: "model.name", "groups[2].rank". The value as a whole has the path ".". NULL when memory is short.
 */
json_t *kvk_json_diff(const json_t *a, const json_t *b);

#endif
