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

/* Of this process: open descriptors, and resident bytes. */
uint64_t truth_descriptors(void);
uint64_t truth_memory(void);

#endif
