/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LRU that keeps tenants from each other: first goes the coldest of tenants that are over their quota; if none
 * is, of tenants that have no quota, who hold what nobody else claims; and then of all.
 *
 * The order is LRU's. Who is chosen first would need a list for each tenant in each shard; instead all objects
 * are looked at in the order in which they lie in memory (at 10^6 objects some ten milliseconds, a shard's lock held
 * for 256 objects at a time), and the coldest 1,024 are kept for the calls that follow, as long as nobody else comes over
 * his quota. What may go again since they were collected (a pin taken off, an old object that was
 * scanned) is looked at the next time.
 */
#include <errno.h>

#include "catalog/place.h"
#include "catalog/policy.h"
#include "util/alloc.h"

#define CANDIDATES 1024u

/* A heap: while they are collected the warmest is on top, then the coldest. */
struct kvk_candidates {
	struct kvk_coldest heap[CANDIDATES];
	uint32_t count;
	bool coldest_on_top;
	bool named;                    /* what next() returned last was one of these */
	enum kvk_share_standing sought;
	uint64_t warmest;              /* nobody who was used last at this time or before was left out */
	uint64_t over_changes;
	uint64_t none_in_call[KVK_SHARE_WITHOUT + 1];   /* the call in which none of that standing were found */
	uint8_t standings[KVK_SHARE_NAMES_MAX + 1];
};

uint64_t kvk_candidates_memory_bytes(const struct kvk_catalog *catalog)
{
	return catalog->candidates ? sizeof(*catalog->candidates) + KVK_ALLOC_OVERHEAD_BYTES : 0;
}

static int isolated_init(struct kvk_catalog *catalog)
{
	catalog->candidates = kvk_mem_zalloc(1, sizeof(*catalog->candidates));
	return catalog->candidates ? 0 : -ENOMEM;
}

/* ---- the heap of candidates --------------------------------------------------------------------- */

static bool is_above(const struct kvk_candidates *candidates, const struct kvk_coldest *a,
		     const struct kvk_coldest *b)
{
	return candidates->coldest_on_top ? a->used_at < b->used_at : a->used_at > b->used_at;
}

static void sift_down(struct kvk_candidates *candidates, uint32_t at)
{
	for (;;) {
		uint32_t below = 2 * at + 1;
		struct kvk_coldest kept = candidates->heap[at];

		if (below >= candidates->count)
			return;
		if (below + 1 < candidates->count &&
		    is_above(candidates, &candidates->heap[below + 1], &candidates->heap[below]))
			below++;
		if (!is_above(candidates, &candidates->heap[below], &kept))
			return;
		candidates->heap[at] = candidates->heap[below];
		candidates->heap[below] = kept;
		at = below;
	}
}

static void push(struct kvk_candidates *candidates, const struct kvk_coldest *candidate)
{
	uint32_t at = candidates->count++;

	candidates->heap[at] = *candidate;
	while (at > 0 && is_above(candidates, &candidates->heap[at], &candidates->heap[(at - 1) / 2])) {
		struct kvk_coldest above = candidates->heap[(at - 1) / 2];

		candidates->heap[(at - 1) / 2] = candidates->heap[at];
		candidates->heap[at] = above;
		at = (at - 1) / 2;
	}
}

static void pop(struct kvk_candidates *candidates)
{
	candidates->heap[0] = candidates->heap[--candidates->count];
	sift_down(candidates, 0);
}

static void offer(struct kvk_candidates *candidates, const struct kvk_coldest *candidate)
{
	if (candidates->count < CANDIDATES) {
		push(candidates, candidate);
		return;
	}
	if (candidate->used_at < candidates->heap[0].used_at) {
		candidates->heap[0] = *candidate;
		sift_down(candidates, 0);
	}
}

/* ---- choosing ----------------------------------------------------------------------------------- */

static void collect(struct kvk_catalog *catalog, enum kvk_share_standing sought)
{
	struct kvk_candidates *candidates = catalog->candidates;

	candidates->count = 0;
	candidates->coldest_on_top = false;
	candidates->warmest = atomic_load(&catalog->used_at);
	candidates->sought = sought;
	kvk_share_standings(&catalog->tenants, candidates->standings);
	for (uint32_t number = 0; number < KVK_SHARDS; number++) {
		struct kvk_shard *shard = &catalog->shards[number];
		bool more = true;

		for (uint32_t index = 0; more;) {
			pthread_mutex_lock(&shard->lock);
			for (uint32_t i = 0; i < KVK_WALK_AT_ONCE && index < shard->fresh; i++, index++) {
				const struct kvk_entry *entry = kvk_shard_entry(shard, index);
				struct kvk_coldest candidate = {
					.shard = number, .use = KVK_USE_ASIDE, .index = index,
					.generation = entry->generation, .used_at = entry->used_at,
				};

				if (kvk_may_go(entry) && candidates->standings[entry->tenant] == sought)
					offer(candidates, &candidate);
			}
			more = index < shard->fresh;
			pthread_mutex_unlock(&shard->lock);
		}
	}
	if (candidates->count == CANDIDATES)
		candidates->warmest = candidates->heap[0].used_at;
	candidates->coldest_on_top = true;
	for (uint32_t at = candidates->count / 2; at-- > 0;)
		sift_down(candidates, at);
}

static bool isolated_next(struct kvk_catalog *catalog, struct kvk_coldest *ret)
{
	struct kvk_candidates *candidates = catalog->candidates;
	enum kvk_share_standing sought;
	uint64_t over_changes;
	bool quotas;

	candidates->named = false;
	if (!kvk_share_judges(&catalog->tenants))
		return kvk_lru_next(catalog, ret);
	sought = kvk_share_over(&catalog->tenants, &quotas, &over_changes) ? KVK_SHARE_OVER : KVK_SHARE_WITHOUT;
	if (!quotas)
		return kvk_lru_next(catalog, ret);
	for (; sought <= KVK_SHARE_WITHOUT; sought++) {
		if (candidates->none_in_call[sought] == catalog->evict_calls)
			continue;
		if (candidates->count == 0 || candidates->sought != sought ||
		    candidates->over_changes != over_changes) {
			collect(catalog, sought);
			candidates->over_changes = over_changes;
		}
		if (candidates->count == 0) {
			candidates->none_in_call[sought] = catalog->evict_calls;
			continue;
		}
		*ret = candidates->heap[0];
		pop(candidates);
		candidates->named = true;
		return true;
	}
	return kvk_lru_next(catalog, ret);
}

/* A candidate may be no longer meant: enough of its tenant has gone. */
static bool isolated_judge(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index)
{
	const struct kvk_candidates *candidates = catalog->candidates;

	return !candidates->named ||
	       kvk_share_standing(&catalog->tenants, kvk_shard_entry(shard, index)->tenant) ==
		       candidates->sought;
}

/* A parent that may go follows its child, if nobody colder may have been left out. */
static void isolated_freed(struct kvk_catalog *catalog, const struct kvk_coldest *freed)
{
	struct kvk_candidates *candidates = catalog->candidates;
	enum kvk_share_standing standing;

	if (!kvk_share_judges(&catalog->tenants))
		return;
	standing = kvk_share_standing(&catalog->tenants, freed->tenant);
	if (standing == KVK_SHARE_WITHIN)
		return;
	if (standing != candidates->sought || !candidates->named)
		candidates->none_in_call[standing] = 0;        /* there is one now */
	else if (candidates->count < CANDIDATES && freed->used_at <= candidates->warmest)
		push(candidates, freed);
}

const struct kvk_policy kvk_policy_isolated = {
	.by_use = true,
	.quotas = true,
	.init = isolated_init,
	.add = kvk_lru_add,
	.touch = kvk_lru_touch,
	.back = kvk_lru_back,
	.next = isolated_next,
	.judge = isolated_judge,
	.freed = isolated_freed,
};
