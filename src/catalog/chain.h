/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which object stands before which in a prefix, and how many stand behind each. For src/catalog.
 *
 * A child knows its parent's place and generation; a parent only counts. A parent with children does not go, so
 * where it stands in the order of use does not matter before its last child goes. Hence a hit needs not touch
 * its chain when it happens: the time of a child's last use is handed up when the child goes, and then the
 * parent stands where touching would have put it. A hit costs the same however long its chain is; handing up
 * costs one step per object that goes.
 *
 * No two shards' locks are held at once. A parent is counted before the link to it is written, and counted off
 * after the child is gone: for a moment it has one child too many, never one too few.
 */
#ifndef KVK_CATALOG_CHAIN_H
#define KVK_CATALOG_CHAIN_H

#include "catalog/catalog_private.h"

struct kvk_chain_link {
	uint32_t id;                   /* KVK_NO_ID: none */
	uint16_t generation;
	uint64_t used_at;              /* of the child */
};

struct kvk_place;

/* The way up is never followed further. */
#define KVK_CHAIN_STEPS_MAX 65536u

static inline struct kvk_shard *kvk_id_shard(struct kvk_catalog *catalog, uint32_t id)
{
	return &catalog->shards[id & (KVK_SHARDS - 1)];
}

static inline uint32_t kvk_id_index(uint32_t id)
{
	return id >> KVK_SHARD_BITS;
}

static inline bool kvk_chain_is_none(const uint8_t *parent_digest)
{
	struct kvk_prefix prefix = kvk_prefix_of(parent_digest);

	return prefix.word[0] == 0 && prefix.word[1] == 0;
}

/* Of one that became known just now, in that same hold of its shard's lock: link is what kvk_chain_count() gave. */
void kvk_chain_take(struct kvk_place *place, const struct kvk_chain_link *link);

/* All that follow are called without a shard's lock. */

/* Before an object becomes known: counts it at its parent, if that is known. What is not taken is released. */
struct kvk_chain_link kvk_chain_count(struct kvk_catalog *catalog, const uint8_t *digest, const uint8_t *parent_digest);

/* After an object became known: links it to its parent, if that is known too. */
void kvk_chain_join(struct kvk_catalog *catalog, const uint8_t *digest, const uint8_t *parent_digest);

/* A child is gone, or was chosen to go: its parent has one less, and was used no earlier than that. */
void kvk_chain_release(struct kvk_catalog *catalog, const struct kvk_chain_link *link);

/* The same; true if the parent may go now: *freed_ret is which. */
bool kvk_chain_release_to(struct kvk_catalog *catalog, const struct kvk_chain_link *link,
			  struct kvk_coldest *freed_ret);

/* A child that was chosen stays after all. */
void kvk_chain_rejoin(struct kvk_catalog *catalog, const uint8_t *digest);

/*
 * For when nothing is found that may go. Looks for the coldest object that is kept by nothing but a circle of
 * links or a count of children that is too high, and lets it go. False: there is none: what there is is pinned,
 * leaving, or has such below it. Looks at every object, some at a time under a shard's lock; evict_lock is held.
 */
bool kvk_chain_break(struct kvk_catalog *catalog);

#endif
