/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a policy decides, and the lists it decides with. For src/catalog.
 *
 * A policy orders the objects of each shard in up to two lists and a heap, and says which of these to take from
 * next; what is oldest is compared over all shards, so that a policy behaves as if there were one shard, at any
 * size. What may not go (pinned, leaving, with children) is nobody's business here: it is set aside where it is
 * met, and comes back through back().
 */
#ifndef KVK_CATALOG_POLICY_H
#define KVK_CATALOG_POLICY_H

#include "catalog/catalog_private.h"

/* All but init, next and freed are called with the shard's lock held. NULL: nothing is to be done. */
struct kvk_policy {
	/* Lists are ordered by `order`, as entries came in, not by used_at. */
	bool by_order;
	/* used_at alone says where an entry stands: whose used_at rises is moved. */
	bool by_use;
	/* It asks for tenants' quotas, so what of each is leaving is counted. */
	bool quotas;
	/* It remembers what was evicted. */
	bool ghosts;
	/* An object became known. newest: just used; else it has a used_at of its own. */
	void (*add)(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index, bool newest);
	/* It was used; its used_at is set. */
	void (*touch)(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index);
	/* It was aside and may go now. */
	void (*back)(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index);
	/* Called before a known one is forgotten or after it was chosen, and after one that was chosen stays. */
	void (*leave)(struct kvk_catalog *catalog, struct kvk_entry *entry);
	void (*stay)(struct kvk_catalog *catalog, struct kvk_entry *entry);
	/* Where to look next; evict_lock is held. False: nowhere. */
	bool (*next)(struct kvk_catalog *catalog, struct kvk_coldest *ret);
	/* Whether this one, the oldest of where next() said, goes. False: it was moved on, or is no longer
	 * meant. */
	bool (*judge)(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index);
	/* A parent may go since its last child was chosen; evict_lock is held, no shard's. */
	void (*freed)(struct kvk_catalog *catalog, const struct kvk_coldest *freed);
	/* NULL: nothing is kept beside the lists. */
	int (*init)(struct kvk_catalog *catalog);
};

extern const struct kvk_policy kvk_policy_noop, kvk_policy_lru, kvk_policy_s3fifo, kvk_policy_arc;
extern const struct kvk_policy kvk_policy_isolated;

const struct kvk_policy *kvk_policy_find(enum kvk_policy_kind kind);

/* What LRU does, for IsolatedLRU, which differs only in whom it chooses. */
void kvk_lru_add(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index, bool newest);
void kvk_lru_touch(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index);
void kvk_lru_back(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index);
bool kvk_lru_next(struct kvk_catalog *catalog, struct kvk_coldest *ret);

/* What IsolatedLRU keeps beside the lists. */
uint64_t kvk_candidates_memory_bytes(const struct kvk_catalog *catalog);

/* ---- use.c: with the shard's lock held, but for kvk_use_coldest() and kvk_use_oldest_at() ---------- */

/* At the new end of a list; at the old end; at its place by used_at. The entry is aside. */
void kvk_use_push(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index, enum kvk_use use);
void kvk_use_push_old(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index, enum kvk_use use);
void kvk_use_push_heap(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index);

/* From where it stands in a list to the new end of the same: what a hit does most. */
void kvk_use_to_newest(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index, enum kvk_use use);

/* Sets it aside from wherever it is. */
void kvk_use_drop(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index);

/* Its used_at has risen, and it stays in its list. */
void kvk_use_renewed(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index);

/* KVK_NO_ENTRY: there is none. */
uint32_t kvk_use_oldest(const struct kvk_shard *shard, enum kvk_use use);

/* How old the oldest of a shard is; UINT64_MAX: there is none. */
uint64_t kvk_use_oldest_at(struct kvk_catalog *catalog, enum kvk_use use, uint32_t shard);

/* The shard with the oldest there is in these lists, and how old: UINT64_MAX if they are empty. */
uint64_t kvk_use_coldest(struct kvk_catalog *catalog, enum kvk_use use, uint32_t *shard_ret);

#endif
