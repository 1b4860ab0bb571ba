/* SPDX-License-Identifier: Apache-2.0 */
/* What a cache could reach at most that knew the whole trace before. */
#ifndef KVK_CLI_BELADY_H
#define KVK_CLI_BELADY_H

#include <stdint.h>

#include "trace.h"

struct kvk_belady {
	uint64_t hits;             /* leading blocks of requests */
	uint64_t written;          /* blocks that were stored */
};

/*
 * Keeps up to cap_blocks blocks and evicts the one whose next use is farthest (Belady, IBM Systems Journal 5, 1966), of blocks
 * that one request uses next the one deepest in it, since only leading blocks are hits. What never comes again is not
 * stored at all. -ENOMEM.
 */
int kvk_belady_run(const struct kvk_trace *trace, uint64_t cap_blocks, struct kvk_belady *ret);

#endif
