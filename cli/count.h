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

/*
 * Adds to object: "default_quota_bytes", and "quotas" (an array of name, quota_bytes) of the tenants that this store knows of.
 * null stands for no quota. 0, or an enum kvk_exit after saying why.
 */
int kvk_count_quotas(json_t *object, struct kvk_store *store);

/*
 * Moves the quotas of an object with both into its tenants: each gets quota_bytes, and those that hold nothing are
 * added. 0, or an enum kvk_exit after saying why.
 */
int kvk_count_join(json_t *object);

#endif
