/* SPDX-License-Identifier: Apache-2.0 */
/*
 * S3-FIFO (Yang, Zhang, Qiu, Yue, Vigfusson: "FIFO queues are all you need for cache eviction", SOSP 2023).
 *
 * What is new enters a small queue of a tenth of the cap; what leaves that without having been used twice goes,
 * and is remembered as a ghost; the rest, and ghosts that come back, enter the main queue, where each use (up
 * to three) earns another turn. A hit only counts: it moves nothing.
 *
 * The queues are those of the paper over all shards, not one of each per shard: an entry keeps when it entered
 * its queue, counted over all shards. A store of 64 MiB objects under 10 GiB holds 160 of them; a tenth of a
 * 64th of that would be no queue. By bytes: shares are of bytes, ghosts as many as the main queue has objects.
 * What a scan finds has proven itself before: it is of the main queue, and older than what entered that since;
 * in what order, its access time says. Who is set aside counts in its queue, and comes back at the old end of
 * it.
 */
#include "catalog/ghost.h"
#include "catalog/place.h"
#include "catalog/policy.h"

#define SMALL_SHARE 10u
#define FREQ_MAX 3u

static void class_add(struct kvk_catalog *catalog, uint32_t class, int64_t bytes, int64_t objects)
{
	atomic_fetch_add_explicit(&catalog->class_bytes[class], (uint64_t)bytes, memory_order_relaxed);
	atomic_fetch_add_explicit(&catalog->class_objects[class], (uint64_t)objects, memory_order_relaxed);
}

static void s3fifo_stay(struct kvk_catalog *catalog, struct kvk_entry *entry)
{
	class_add(catalog, entry->warm, (int64_t)kvk_units_bytes(entry->charge_units), 1);
}

static void s3fifo_leave(struct kvk_catalog *catalog, struct kvk_entry *entry)
{
	class_add(catalog, entry->warm, -(int64_t)kvk_units_bytes(entry->charge_units), -1);
}

static bool was_here(struct kvk_catalog *catalog, struct kvk_shard *shard, const struct kvk_entry *entry)
{
	const uint64_t evicted[2] = { atomic_load(&catalog->evicted[0]), 0 };
	const uint64_t window[2] = { atomic_load(&catalog->class_objects[1]), 0 };
	uint32_t class;

	return kvk_ghost_take(shard, &entry->prefix, evicted, window, &class);
}

static void s3fifo_add(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index, bool newest)
{
	struct kvk_entry *entry = kvk_shard_entry(shard, index);

	entry->warm = !newest || was_here(catalog, shard, entry);
	s3fifo_stay(catalog, entry);
	if (newest)
		kvk_use_push(catalog, shard, index, entry->warm ? KVK_USE_SECOND : KVK_USE_FIRST);
	else
		kvk_use_push_heap(catalog, shard, index);
}

static void s3fifo_touch(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index)
{
	struct kvk_entry *entry = kvk_shard_entry(shard, index);

	/* The heap is ordered by used_at, which has changed. */
	if (entry->use == KVK_USE_HEAP) {
		kvk_use_drop(catalog, shard, index);
		kvk_use_push(catalog, shard, index, KVK_USE_SECOND);
	}
	if (entry->freq < FREQ_MAX)
		entry->freq++;
}

static void s3fifo_back(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index)
{
	kvk_use_push_old(catalog, shard, index, kvk_shard_entry(shard, index)->warm ? KVK_USE_SECOND : KVK_USE_FIRST);
}

static bool find_in(struct kvk_catalog *catalog, enum kvk_use use, struct kvk_coldest *ret)
{
	uint32_t shard = 0;
	uint64_t oldest = kvk_use_coldest(catalog, use, &shard);

	if (oldest == UINT64_MAX)
		return false;
	ret->shard = shard;
	ret->use = use;
	ret->used_at = oldest;
	return true;
}

/* From the main queue, unless the small one is above its share, and what was scanned before the rest of it; from the other
 * one if there is nothing. */
static bool s3fifo_next(struct kvk_catalog *catalog, struct kvk_coldest *ret)
{
	uint64_t small_bytes = atomic_load_explicit(&catalog->class_bytes[0], memory_order_relaxed);
	uint64_t cap_bytes = atomic_load_explicit(&catalog->cap_bytes, memory_order_relaxed);
	bool small_first;

	if (cap_bytes == 0)
		cap_bytes = small_bytes + atomic_load_explicit(&catalog->class_bytes[1], memory_order_relaxed);
	small_first = small_bytes > cap_bytes / SMALL_SHARE;
	return (small_first && find_in(catalog, KVK_USE_FIRST, ret)) || find_in(catalog, KVK_USE_HEAP, ret) ||
	       find_in(catalog, KVK_USE_SECOND, ret) || (!small_first && find_in(catalog, KVK_USE_FIRST, ret));
}

static bool s3fifo_judge(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index)
{
	struct kvk_entry *entry = kvk_shard_entry(shard, index);
	bool small = entry->use == KVK_USE_FIRST;

	if (entry->freq > (small ? 1 : 0)) {
		kvk_use_drop(catalog, shard, index);
		if (small) {
			s3fifo_leave(catalog, entry);
			entry->warm = true;
			entry->freq = 0;
			s3fifo_stay(catalog, entry);
		} else {
			entry->freq--;
		}
		kvk_use_push(catalog, shard, index, KVK_USE_SECOND);
		return false;
	}
	if (small) {
		uint64_t evicted[2] = { atomic_fetch_add(&catalog->evicted[0], 1) + 1, 0 };

		kvk_ghost_add(shard, &entry->prefix, 0, evicted);
	}
	return true;
}

const struct kvk_policy kvk_policy_s3fifo = {
	.by_order = true,
	.ghosts = true,
	.add = s3fifo_add,
	.touch = s3fifo_touch,
	.back = s3fifo_back,
	.leave = s3fifo_leave,
	.stay = s3fifo_stay,
	.next = s3fifo_next,
	.judge = s3fifo_judge,
};
