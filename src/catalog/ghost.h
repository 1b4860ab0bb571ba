/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was evicted not long ago, of one shard: 8 bytes for each. For src/catalog.
 *
 * A ghost is 32 bits of the digest and its number among what was evicted. It is remembered as long as fewer
 * than so many of its kind were evicted after it, which whoever asks says. So nothing has to be taken out: what
 * is too old does not count, and is overwritten. Two digests of a shard with 16,384 ghosts are taken for each
 * other once in 260,000 times: then a newcomer is taken for one that comes back.
 */
#ifndef KVK_CATALOG_GHOST_H
#define KVK_CATALOG_GHOST_H

#include "catalog/catalog_private.h"

/* evicted: how many of each class were evicted so far over all shards, this one included. Short memory forgets
 * it. */
void kvk_ghost_add(struct kvk_shard *shard, const struct kvk_prefix *prefix, uint32_t class,
		   const uint64_t evicted[2]);

/* Whether it is remembered, and of which class; it is not any more. window: of how many of each class one is
 * remembered. */
bool kvk_ghost_take(struct kvk_shard *shard, const struct kvk_prefix *prefix, const uint64_t evicted[2],
		    const uint64_t window[2], uint32_t *class_ret);

/* Starts to fetch what add() and take() will read of it. */
void kvk_ghost_warm(const struct kvk_shard *shard, const struct kvk_prefix *prefix);

uint64_t kvk_ghosts_memory_bytes(const struct kvk_ghosts *ghosts);

#endif
