/* SPDX-License-Identifier: Apache-2.0 */
/* A pool of slots: what its files have in common, its opening, and the table of its operations. */
#include "adapter/pool/pool.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "adapter/write.h"
#include "util/alloc.h"
#include "util/clock.h"
#include "util/error.h"

struct kvk_place *kvk_pool_place(const struct kvk_pool *pool, const struct kvk_run *run)
{
	return pool->places[run->first / pool->shape.file_slots];
}

uint64_t kvk_pool_end_bytes(const struct kvk_pool *pool, const struct kvk_run *run)
{
	return KVK_POOL_HEAD_BYTES + (run->first % pool->shape.file_slots + run->slots) * pool->shape.slot_bytes;
}

void kvk_pool_changed(struct kvk_pool *pool)
{
	atomic_store(&pool->changed_ns, kvk_wall_ns());
	atomic_store(&pool->changed_us, kvk_now_us());
	atomic_fetch_add(&pool->changes, 1);
}

void kvk_pool_name(char name[KVK_POOL_NAME_BYTES], uint32_t slot)
{
	snprintf(name, KVK_POOL_NAME_BYTES, "slot-%08x", slot);
}

bool kvk_pool_name_parse(const char *name, uint32_t *slot_ret)
{
	uint8_t bytes[4];

	if (strncmp(name, "slot-", 5) || strlen(name) != 13 || kvk_unhex(bytes, name + 5, sizeof(bytes)))
		return false;
	*slot_ret = (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
	return true;
}

static uint64_t pool_charge(const struct kvk_request *request, uint64_t logical_bytes)
{
	uint64_t slot_bytes = kvk_pool_of_request(request)->shape.slot_bytes;
	uint64_t bytes = kvk_object_bytes(logical_bytes, request->key_bytes, request->meta_bytes);

	return (bytes + slot_bytes - 1) / slot_bytes * slot_bytes;
}

static uint32_t pool_buckets(struct kvk_adapter *adapter)
{
	return 1;
}

static void pool_slots(struct kvk_adapter *adapter, struct kvk_slots *ret)
{
	struct kvk_pool *pool = kvk_pool_of(adapter);
	struct kvk_pool_totals totals;

	kvk_pool_map_totals(&pool->map, &totals);
	*ret = (struct kvk_slots){
		.slot_bytes = pool->shape.slot_bytes, .slots = pool->shape.slots, .free_slots = totals.free_slots,
		.longest_free_slots = totals.longest_free, .lost_slots = totals.lost_slots, .files = pool->file_count,
	};
}

static bool pool_could_fit(struct kvk_adapter *adapter, uint64_t bytes,
			   bool (*may_go)(void *user, const uint8_t prefix[16]), void *user)
{
	struct kvk_pool *pool = kvk_pool_of(adapter);
	uint64_t slots = (bytes + pool->shape.slot_bytes - 1) / pool->shape.slot_bytes;
	uint32_t side_by_side = 0, slot = 0;

	while (slot < pool->shape.slots && side_by_side < slots) {
		uint8_t prefix[KVK_PREFIX_BYTES];
		enum kvk_pool_use use;
		uint32_t end = kvk_pool_map_look(&pool->map, slot, &use, prefix);

		if (slot % pool->shape.file_slots == 0)
			side_by_side = 0;
		if (use == KVK_POOL_FREE || (use == KVK_POOL_PRESENT && may_go(user, prefix)))
			side_by_side += end - slot;
		else
			side_by_side = 0;
		slot = end;
	}
	return side_by_side >= slots;
}

static void pool_close(struct kvk_adapter *adapter)
{
	struct kvk_pool *pool = kvk_pool_of(adapter);

	kvk_pool_files_close(pool);
	kvk_pool_map_release(&pool->map);
	if (pool->zeros)
		kvk_mem_unmap(pool->zeros, KVK_PAGE_BYTES);
	kvk_doubts_release(&pool->base.doubts);
	kvk_mem_free(pool);
}

static const struct kvk_adapter_ops pool_ops = {
	.name = "nixl_store",
	.put = kvk_pool_put,
	.get = kvk_pool_get,
	.find = kvk_pool_find,
	.remove = kvk_pool_remove,
	.charge = pool_charge,
	.list = kvk_pool_list,
	.remove_all = kvk_pool_remove_all,
	.buckets = pool_buckets,
	.scan = kvk_pool_scan,
	.bucket_time = kvk_pool_bucket_time,
	.inspect = kvk_pool_inspect,
	.evict = kvk_pool_evict,
	.slots = pool_slots,
	.could_fit = pool_could_fit,
	.close = pool_close,
};

int kvk_pool_open(struct kvk_adapter **ret, const struct kvk_adapter_options *options, struct kvk_error *error)
{
	const struct kvk_pool_shape *shape = options->pool;
	struct kvk_pool *pool = kvk_mem_zalloc(1, sizeof(*pool));
	int err;

	if (!pool)
		return kvk_error_set(error, -ENOMEM, NULL, "out of memory");
	pool->base.ops = &pool_ops;
	pool->base.proof_rules = &kvk_pool_proof_rules;
	pool->base.backend = options->backend;
	kvk_doubts_init(&pool->base.doubts, options->log);
	pool->base.charge_max_bytes = shape->file_slots * shape->slot_bytes;
	pool->shape = *shape;
	pool->durability = options->durability;
	memcpy(pool->namespace_digest, options->namespace_digest, KVK_DIGEST_BYTES);
	if (options->log)
		pool->log = *options->log;
	/* Of this process nothing is on its way into the account yet. */
	atomic_init(&pool->changed_ns, kvk_wall_ns() - UINT64_C(1000000000));
	atomic_init(&pool->changed_us, kvk_now_us() - UINT64_C(1000000));
	pool->zeros = kvk_mem_map(KVK_PAGE_BYTES);
	err = kvk_pool_map_init(&pool->map, (uint32_t)shape->slots, (uint32_t)shape->file_slots,
				shape->opens << KVK_POOL_PUTS_BITS);
	if (err || !pool->zeros)
		err = kvk_error_set(error, -ENOMEM, "pool_size", "no memory for the map of %llu slots",
				    (unsigned long long)shape->slots);
	if (!err)
		err = kvk_pool_files_open(pool, options->device, error);
	if (!err)
		err = kvk_pool_recover(pool, error);
	if (err) {
		pool_close(&pool->base);
		return err;
	}
	*ret = &pool->base;
	return 0;
}
