/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KVK_CLI_COUNT_H
#define KVK_CLI_COUNT_H

#include <jansson.h>
#include <kvkeep/kvkeep.h>

/*
 * Counts what lies on the medium by reading the list to its end, for a process that has just opened a store knows
 * nothing of what is in it. Adds to object: "medium" (objects, bytes, stored_bytes, damaged, unverified, foreign),
 * "tenants" and "models" (arrays of name, objects, stored_bytes, largest first). 0, or an enum kvk_exit after saying why.
 */
int kvk_count_medium(json_t *object, struct kvk_store *store);

#endif
