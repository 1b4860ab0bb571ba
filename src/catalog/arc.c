/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ARC (Megiddo, Modha: "ARC: a self-tuning, low overhead replacement cache", FAST 2003).
 *
 * T1 holds what was used once, T2 what was used again; what is evicted of either is remembered in B1 and B2,
 * and what comes back from there moves the share that T1 is to have (the paper's p, aim_bytes here) up or down.
 *
 * The lists are those of the paper over all shards, compared by used_at, for the reason that s3fifo.c gives.
 * What differs: sizes are bytes, so a ghost moves the aim by its own charge times the ratio of the paper. B1 is
 * the last evictions of T1, as many as T2 has objects, and B2 the last of T2, as many as there are objects less
 * |B1|: the bounds of the paper, with ghosts that came back still counted in them (a ghost then takes 8 bytes
 * and no list). An eviction comes before the put that needs it, and does not know it, so a tie between T1 and
 * the aim goes against T2. What a scan finds is of T1, which its access time orders it into. Who is set aside
 * counts in its list, and comes back at the old end of it.
 */
#include "catalog/ghost.h"
#include "catalog/place.h"
#include "catalog/policy.h"

static void class_add(struct kvk_catalog *catalog, uint32_t class, int64_t bytes, int64_t objects)
{
	atomic_fetch_add_explicit(&catalog->class_bytes[class], (uint64_t)bytes, memory_order_relaxed);
	atomic_fetch_add_explicit(&catalog->class_objects[class], (uint64_t)objects, memory_order_relaxed);
}

static void arc_stay(struct kvk_catalog *catalog, struct kvk_entry *entry)
{
	class_add(catalog, entry->warm, (int64_t)kvk_units_bytes(entry->charge_units), 1);
}

static void arc_leave(struct kvk_catalog *catalog, struct kvk_entry *entry)
{
	class_add(catalog, entry->warm, -(int64_t)kvk_units_bytes(entry->charge_units), -1);
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static void move_aim(struct kvk_catalog *catalog, uint32_t class, const uint64_t ghosts[2], uint64_t bytes)
{
	uint64_t cap_bytes = atomic_load(&catalog->cap_bytes);
	uint64_t own = ghosts[class] ? ghosts[class] : 1;
	uint64_t ratio = ghosts[1 - class] > own ? ghosts[1 - class] / own : 1;
	uint64_t aim = atomic_load(&catalog->aim_bytes);
	uint64_t moved;

	if (cap_bytes == 0)
		cap_bytes = atomic_load(&catalog->class_bytes[0]) + atomic_load(&catalog->class_bytes[1]);
	do {
		if (class == 0)
			moved = least(aim + ratio * bytes, cap_bytes);
		else
			moved = aim - least(ratio * bytes, aim);
	} while (!atomic_compare_exchange_weak(&catalog->aim_bytes, &aim, moved));
}

/* Whether it was here not long ago. */
static bool was_here(struct kvk_catalog *catalog, struct kvk_shard *shard, const struct kvk_entry *entry)
{
	const uint64_t evicted[2] = { atomic_load(&catalog->evicted[0]), atomic_load(&catalog->evicted[1]) };
	uint64_t warm = atomic_load(&catalog->class_objects[1]);
	uint64_t ghosts[2];
	uint32_t class;

	ghosts[0] = least(warm, evicted[0]);
	ghosts[1] = least(atomic_load(&catalog->class_objects[0]) + warm - ghosts[0], evicted[1]);
	if (!kvk_ghost_take(shard, &entry->prefix, evicted, ghosts, &class))
		return false;
	move_aim(catalog, class, ghosts, kvk_units_bytes(entry->charge_units));
	return true;
}

static void arc_add(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index, bool newest)
{
	struct kvk_entry *entry = kvk_shard_entry(shard, index);

	entry->warm = newest && was_here(catalog, shard, entry);
	arc_stay(catalog, entry);
	if (newest)
		kvk_use_push(catalog, shard, index, entry->warm ? KVK_USE_SECOND : KVK_USE_FIRST);
	else
		kvk_use_push_heap(catalog, shard, index);
}

static void arc_touch(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index)
{
	struct kvk_entry *entry = kvk_shard_entry(shard, index);

	if (!entry->warm) {
		arc_leave(catalog, entry);
		entry->warm = true;
		arc_stay(catalog, entry);
	}
	if (shard->lists[KVK_USE_SECOND - KVK_USE_FIRST].newest == index) {
		kvk_use_renewed(catalog, shard, index);
		return;
	}
	kvk_use_drop(catalog, shard, index);
	kvk_use_push(catalog, shard, index, KVK_USE_SECOND);
}

static void arc_back(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index)
{
	kvk_use_push_old(catalog, shard, index, kvk_shard_entry(shard, index)->warm ? KVK_USE_SECOND : KVK_USE_FIRST);
}

/* T1: its list and what was scanned. T2 comes first unless T1 has more than it is to have. */
static bool arc_next(struct kvk_catalog *catalog, struct kvk_coldest *ret)
{
	uint64_t first_bytes = atomic_load_explicit(&catalog->class_bytes[0], memory_order_relaxed);
	bool first = first_bytes > atomic_load_explicit(&catalog->aim_bytes, memory_order_relaxed);

	if (first && kvk_lru_next(catalog, ret))
		return true;
	ret->use = KVK_USE_SECOND;
	ret->used_at = kvk_use_coldest(catalog, KVK_USE_SECOND, &ret->shard);
	return ret->used_at != UINT64_MAX || (!first && kvk_lru_next(catalog, ret));
}

static bool arc_judge(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index)
{
	const struct kvk_entry *entry = kvk_shard_entry(shard, index);
	uint64_t evicted[2];

	atomic_fetch_add(&catalog->evicted[entry->warm], 1);
	evicted[0] = atomic_load(&catalog->evicted[0]);
	evicted[1] = atomic_load(&catalog->evicted[1]);
	kvk_ghost_add(shard, &entry->prefix, entry->warm, evicted);
	return true;
}

const struct kvk_policy kvk_policy_arc = {
	.ghosts = true,
	.add = arc_add,
	.touch = arc_touch,
	.back = arc_back,
	.leave = arc_leave,
	.stay = arc_stay,
	.next = arc_next,
	.judge = arc_judge,
};
