/* SPDX-License-Identifier: Apache-2.0 */
/* What lies in a store's directory, seen from outside. */
#ifndef KVK_TESTS_TRUTH_H
#define KVK_TESTS_TRUTH_H

#include <stdint.h>

struct truth {
	uint64_t objects;              /* files under their names */
	uint64_t others;               /* temporary and `.gone` files */
	uint64_t aside;                /* in quarantine */
	uint64_t bytes;                /* of all of them, each rounded up to 4,096 */
};

/* Counts. What comes and goes meanwhile is counted or not. */
struct truth truth_of(const char *root);

struct kvk_store;

/*
 * At rest: waits until usage was compared with the medium and is what is there, with no file but objects and what was moved
 * aside. NULL, or what disagrees (static text).
 */
const char *truth_disagrees(struct kvk_store *store, const char *root, uint64_t wait_us);
/* While nothing is stored: usage may be more than what is there, never less. NULL, or what disagrees. */
const char *truth_exceeds(struct kvk_store *store, const char *root);
/* What the account on the medium says: charged, loose and leased together, and the cap. -errno. */
int truth_account(const char *root, uint64_t *counted_bytes, uint64_t *cap_bytes);

/* Of this process: open descriptors, and resident bytes. */
uint64_t truth_descriptors(void);
uint64_t truth_memory(void);

#endif
