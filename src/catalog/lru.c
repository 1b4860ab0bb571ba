/* SPDX-License-Identifier: Apache-2.0 */
/* Least recently used first. What was used in this process' life stands in a list, what was found by its access
 * time in the heap. */
#include "catalog/policy.h"

void kvk_lru_add(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index, bool newest)
{
	if (newest)
		kvk_use_push(catalog, shard, index, KVK_USE_FIRST);
	else
		kvk_use_push_heap(catalog, shard, index);
}

void kvk_lru_touch(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index)
{
	if (shard->lists[0].newest == index) {
		kvk_use_renewed(catalog, shard, index);
		return;
	}
	if (kvk_shard_entry(shard, index)->use == KVK_USE_FIRST) {
		kvk_use_to_newest(catalog, shard, index, KVK_USE_FIRST);
		return;
	}
	kvk_use_drop(catalog, shard, index);
	kvk_use_push(catalog, shard, index, KVK_USE_FIRST);
}

void kvk_lru_back(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index)
{
	kvk_use_push_heap(catalog, shard, index);
}

bool kvk_lru_next(struct kvk_catalog *catalog, struct kvk_coldest *ret)
{
	uint32_t heap_shard = 0;
	uint64_t listed = kvk_use_coldest(catalog, KVK_USE_FIRST, &ret->shard);
	uint64_t heaped = kvk_use_coldest(catalog, KVK_USE_HEAP, &heap_shard);

	ret->use = KVK_USE_FIRST;
	ret->used_at = listed;
	if (heaped < listed) {
		ret->shard = heap_shard;
		ret->use = KVK_USE_HEAP;
		ret->used_at = heaped;
	}
	return listed != UINT64_MAX || heaped != UINT64_MAX;
}

const struct kvk_policy kvk_policy_lru = {
	.by_use = true,
	.add = kvk_lru_add,
	.touch = kvk_lru_touch,
	.back = kvk_lru_back,
	.next = kvk_lru_next,
};
