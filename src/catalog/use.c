/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order of use: two lists, and a heap for what does not come in as the newest.
 *
 * The heap is there for objects that a scan finds (each has an access time, and folders come in any order:
 * walking a list to its place would cost 10^6 objects 10^11 steps) and for parents whose last child went.
 * Entries know their place in it, so that they can be taken out wherever they are.
 */
#include "catalog/policy.h"

/* With more than so many all are looked at. */
#define FEW_SHARDS 4u

static struct kvk_use_list *list_of(struct kvk_shard *shard, enum kvk_use use)
{
	return &shard->lists[use - KVK_USE_FIRST];
}

uint32_t kvk_use_oldest(const struct kvk_shard *shard, enum kvk_use use)
{
	if (use == KVK_USE_HEAP)
		return shard->heap_count ? shard->heap[0] : KVK_NO_ENTRY;
	return shard->lists[use - KVK_USE_FIRST].oldest;
}

/* An entry keeps the low 32 bits of when it entered its queue: enough as long as the oldest entered less than
 * 2^32 before the newest. */
static uint64_t order_of(struct kvk_catalog *catalog, const struct kvk_entry *entry)
{
	uint64_t now = atomic_load_explicit(&catalog->order, memory_order_relaxed);

	return now - ((uint32_t)now - entry->order);
}

static void publish(struct kvk_catalog *catalog, struct kvk_shard *shard, enum kvk_use use)
{
	uint32_t index = kvk_use_oldest(shard, use), number = (uint32_t)(shard - catalog->shards);
	_Atomic uint64_t *oldest = &catalog->oldest[use][number];
	uint64_t key = UINT64_MAX, bit = UINT64_C(1) << number, before;

	if (index != KVK_NO_ENTRY) {
		const struct kvk_entry *entry = kvk_shard_entry(shard, index);

		key = catalog->policy->by_order && use != KVK_USE_HEAP ? order_of(catalog, entry) : entry->used_at;
		key = key << KVK_SHARD_BITS | number;
	}
	before = atomic_load_explicit(oldest, memory_order_relaxed);
	atomic_store_explicit(oldest, key, memory_order_relaxed);
	if (before == UINT64_MAX && key != UINT64_MAX)
		atomic_fetch_or_explicit(&catalog->used[use], bit, memory_order_relaxed);
	else if (before != UINT64_MAX && key == UINT64_MAX)
		atomic_fetch_and_explicit(&catalog->used[use], ~bit, memory_order_relaxed);
}

uint64_t kvk_use_oldest_at(struct kvk_catalog *catalog, enum kvk_use use, uint32_t shard)
{
	uint64_t key = atomic_load_explicit(&catalog->oldest[use][shard], memory_order_relaxed);

	return key == UINT64_MAX ? UINT64_MAX : key >> KVK_SHARD_BITS;
}

static uint64_t lesser(struct kvk_catalog *catalog, enum kvk_use use, uint32_t shard, uint64_t than)
{
	uint64_t key = atomic_load_explicit(&catalog->oldest[use][shard], memory_order_relaxed);

	return key < than ? key : than;
}

/* Without a branch or a store in it, since which one it is cannot be foretold, and four at a time, since each step waits
 * for the one before it. */
static uint64_t least_of_all(struct kvk_catalog *catalog, enum kvk_use use)
{
	uint64_t least[4] = { UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX };

	for (uint32_t i = 0; i < KVK_SHARDS; i += 4) {
		least[0] = lesser(catalog, use, i, least[0]);
		least[1] = lesser(catalog, use, i + 1, least[1]);
		least[2] = lesser(catalog, use, i + 2, least[2]);
		least[3] = lesser(catalog, use, i + 3, least[3]);
	}
	least[0] = least[0] < least[1] ? least[0] : least[1];
	least[2] = least[2] < least[3] ? least[2] : least[3];
	return least[0] < least[2] ? least[0] : least[2];
}

uint64_t kvk_use_coldest(struct kvk_catalog *catalog, enum kvk_use use, uint32_t *shard_ret)
{
	uint64_t shards = atomic_load_explicit(&catalog->used[use], memory_order_relaxed);
	uint64_t least = UINT64_MAX;

	/* The heap has nothing but a parent or two whose children went, unless a scan has filled it. */
	for (uint32_t i = 0; i < FEW_SHARDS && shards; i++, shards &= shards - 1)
		least = lesser(catalog, use, (uint32_t)__builtin_ctzll(shards), least);
	if (shards)
		least = least_of_all(catalog, use);
	if (least == UINT64_MAX)
		return least;
	*shard_ret = (uint32_t)least & (KVK_SHARDS - 1);
	return least >> KVK_SHARD_BITS;
}

/* ---- lists -------------------------------------------------------------------------------------- */

static void list_append(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index, enum kvk_use use)
{
	struct kvk_entry *entry = kvk_shard_entry(shard, index);
	struct kvk_use_list *list = list_of(shard, use);

	entry->older = list->newest;
	entry->newer = KVK_NO_ENTRY;
	if (list->newest == KVK_NO_ENTRY)
		list->oldest = index;
	else
		kvk_shard_entry(shard, list->newest)->newer = index;
	list->newest = index;
	if (list->oldest == index)
		publish(catalog, shard, use);
}

void kvk_use_push(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index, enum kvk_use use)
{
	struct kvk_entry *entry = kvk_shard_entry(shard, index);

	if (catalog->policy->by_order)
		entry->order = (uint32_t)atomic_fetch_add_explicit(&catalog->order, 1, memory_order_relaxed) + 1;
	entry->use = use & 3;
	list_append(catalog, shard, index, use);
}

void kvk_use_push_old(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index, enum kvk_use use)
{
	struct kvk_entry *entry = kvk_shard_entry(shard, index);
	struct kvk_use_list *list = list_of(shard, use);

	if (list->oldest == KVK_NO_ENTRY) {
		kvk_use_push(catalog, shard, index, use);
		return;
	}
	entry->order = kvk_shard_entry(shard, list->oldest)->order;
	entry->use = use & 3;
	entry->older = KVK_NO_ENTRY;
	entry->newer = list->oldest;
	kvk_shard_entry(shard, list->oldest)->older = index;
	list->oldest = index;
	publish(catalog, shard, use);
}

static void list_drop(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index, enum kvk_use use)
{
	const struct kvk_entry *entry = kvk_shard_entry(shard, index);
	struct kvk_use_list *list = list_of(shard, use);
	bool was_oldest = entry->older == KVK_NO_ENTRY;

	if (was_oldest)
		list->oldest = entry->newer;
	else
		kvk_shard_entry(shard, entry->older)->newer = entry->newer;
	if (entry->newer == KVK_NO_ENTRY)
		list->newest = entry->older;
	else
		kvk_shard_entry(shard, entry->newer)->older = entry->older;
	if (was_oldest)
		publish(catalog, shard, use);
}

void kvk_use_to_newest(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index, enum kvk_use use)
{
	list_drop(catalog, shard, index, use);
	list_append(catalog, shard, index, use);
}

/* ---- the heap ----------------------------------------------------------------------------------- */

static void heap_set(struct kvk_shard *shard, uint32_t at, uint32_t index)
{
	shard->heap[at] = index;
	kvk_shard_entry(shard, index)->older = at;
}

static void heap_up(struct kvk_shard *shard, uint32_t at, uint32_t index)
{
	uint64_t used_at = kvk_shard_entry(shard, index)->used_at;

	while (at > 0) {
		uint32_t above = shard->heap[(at - 1) / 2];

		if (kvk_shard_entry(shard, above)->used_at <= used_at)
			break;
		heap_set(shard, at, above);
		at = (at - 1) / 2;
	}
	heap_set(shard, at, index);
}

static void heap_down(struct kvk_shard *shard, uint32_t at, uint32_t index)
{
	uint64_t used_at = kvk_shard_entry(shard, index)->used_at;

	for (;;) {
		uint32_t below = 2 * at + 1;

		if (below >= shard->heap_count)
			break;
		if (below + 1 < shard->heap_count && kvk_shard_entry(shard, shard->heap[below + 1])->used_at <
						     kvk_shard_entry(shard, shard->heap[below])->used_at)
			below++;
		if (used_at <= kvk_shard_entry(shard, shard->heap[below])->used_at)
			break;
		heap_set(shard, at, shard->heap[below]);
		at = below;
	}
	heap_set(shard, at, index);
}

void kvk_use_push_heap(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index)
{
	kvk_shard_entry(shard, index)->use = KVK_USE_HEAP;
	heap_up(shard, shard->heap_count++, index);
	if (shard->heap[0] == index)
		publish(catalog, shard, KVK_USE_HEAP);
}

static void heap_drop(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index)
{
	uint32_t at = kvk_shard_entry(shard, index)->older;
	uint32_t last = shard->heap[--shard->heap_count];
	bool was_oldest = at == 0;

	if (last != index) {
		heap_down(shard, at, last);
		/* It came from another branch: it may belong above as well. */
		if (shard->heap[at] == last)
			heap_up(shard, at, last);
	}
	if (was_oldest)
		publish(catalog, shard, KVK_USE_HEAP);
}

void kvk_use_drop(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index)
{
	struct kvk_entry *entry = kvk_shard_entry(shard, index);

	if (entry->use == KVK_USE_HEAP)
		heap_drop(catalog, shard, index);
	else if (entry->use != KVK_USE_ASIDE)
		list_drop(catalog, shard, index, (enum kvk_use)entry->use);
	entry->use = KVK_USE_ASIDE;
}

void kvk_use_renewed(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index)
{
	const struct kvk_entry *entry = kvk_shard_entry(shard, index);
	enum kvk_use use = (enum kvk_use)entry->use;

	if (use == KVK_USE_HEAP)
		heap_down(shard, entry->older, index);
	if (use == KVK_USE_HEAP || (use != KVK_USE_ASIDE && list_of(shard, use)->oldest == index))
		publish(catalog, shard, use);
}
