/* SPDX-License-Identifier: Apache-2.0 */
/* Walks over a pool, in the order of its slots. All on the calling thread, with blocking calls. */
#include <errno.h>
#include <string.h>

#include "adapter/pool/pool.h"
#include "util/alloc.h"
#include "util/clock.h"

#define QUIET_US UINT64_C(500000)

/* Reads the last `bytes` of a run. */
static int read_tail(struct kvk_pool *pool, const struct kvk_run *run, void *data, uint32_t bytes)
{
	return kvk_adapter_move(&pool->base, KVK_XFER_READ, kvk_pool_place(pool, run),
				kvk_pool_end_bytes(pool, run) - bytes, data, bytes);
}

/* What the footer of a held run says. -ENOMEM; an error of the medium shows as damage. */
static int inspect(struct kvk_pool *pool, const struct kvk_run *run, struct kvk_listed *listed)
{
	uint8_t digest[KVK_DIGEST_BYTES], *data = kvk_mem_map(KVK_FOOTER_BYTES_MAX);
	struct kvk_footer footer;
	uint32_t bytes = KVK_PAGE_BYTES, footer_bytes;
	int err;

	if (!data)
		return -ENOMEM;
	listed->state = KVK_OBJECT_DAMAGED;
	listed->key_bytes = 0;
	memset(&listed->facts, 0, offsetof(struct kvk_facts, meta));
	listed->facts.stored_bytes = kvk_pool_run_bytes(pool, run);
	listed->facts.created_ns = run->created_ns;
	/* So that it can be removed by digest, whatever its footer has become. */
	memcpy(listed->facts.digest, run->prefix, sizeof(run->prefix));
	err = read_tail(pool, run, data, bytes);
	if (!err)
		err = kvk_trailer_parse(data + bytes - KVK_TRAILER_BYTES, &footer_bytes);
	if (!err && footer_bytes > bytes) {
		bytes = footer_bytes;
		err = bytes <= kvk_pool_run_bytes(pool, run) ? read_tail(pool, run, data, bytes) : -EBADMSG;
	}
	if (!err)
		err = kvk_footer_parse(&footer, digest, data, bytes);
	if (!err && kvk_pool_is_of_run(pool, &footer, run))
		kvk_listed_take(listed, &footer, digest, pool->namespace_digest);
	kvk_mem_unmap(data, KVK_FOOTER_BYTES_MAX);
	return err == -ENOMEM ? err : 0;
}

int kvk_pool_list(struct kvk_adapter *adapter, const char *after, kvk_list_visit *visit, void *user)
{
	struct kvk_pool *pool = kvk_pool_of(adapter);
	char name[KVK_POOL_NAME_BYTES];
	struct kvk_listed *listed;
	struct kvk_run run;
	uint32_t slot = 0;
	int err = 0;

	/* Whoever calls may say any name: behind the last one there is none, and not the first again. */
	if (after && kvk_pool_name_parse(after, &slot))
		slot += slot < pool->shape.slots;
	listed = kvk_mem_alloc(sizeof(*listed));
	if (!listed)
		return -ENOMEM;
	for (; !err && kvk_pool_map_hold_at(&pool->map, slot, false, &run); slot = run.first + 1) {
		bool present;

		kvk_pool_name(name, run.first);
		listed->name = name;
		err = inspect(pool, &run, listed);
		present = kvk_pool_map_drop(&pool->map, &run);
		/* One that left meanwhile may be half erased. */
		if (!err && present && !visit(user, listed))
			err = 1;
	}
	kvk_mem_free(listed);
	return err;
}

int kvk_pool_inspect(struct kvk_adapter *adapter, const char *name, struct kvk_listed *listed)
{
	struct kvk_pool *pool = kvk_pool_of(adapter);
	struct kvk_run run;
	uint32_t slot;
	int err;

	if (!kvk_pool_name_parse(name, &slot) || slot >= pool->shape.slots ||
	    !kvk_pool_map_hold_at(&pool->map, slot, true, &run))
		return -ENOENT;
	listed->name = name;
	err = inspect(pool, &run, listed);
	return kvk_pool_map_drop(&pool->map, &run) ? err : -ENOENT;
}

/* From memory. Nobody reads a pool's access times: how recently an object was used is what the catalog was told, and after a
 * restart without it, when it was written. */
int kvk_pool_scan(struct kvk_adapter *adapter, uint32_t bucket, kvk_scan_visit *visit, void *user, uint64_t *modified_ns)
{
	struct kvk_pool *pool = kvk_pool_of(adapter);
	uint64_t changes = atomic_load(&pool->changes), changed_us = atomic_load(&pool->changed_us);
	uint64_t age_ns = (kvk_now_us() - changed_us) * 1000, now_ns;
	struct kvk_backend *backend = pool->base.backend;
	struct kvk_scanned scanned = { .kind = KVK_NAME_OBJECT };
	char name[KVK_POOL_NAME_BYTES];
	struct kvk_run run;
	bool quiet, goes_on = bucket == 0;
	int err;

	/* By the medium's clock, as a folder would say it. */
	err = backend->ops->now(backend, &now_ns);
	if (err)
		return err;
	*modified_ns = age_ns < now_ns ? now_ns - age_ns : 0;
	for (uint32_t slot = 0; goes_on && kvk_pool_map_hold_at(&pool->map, slot, false, &run); slot = run.first + 1) {
		kvk_pool_name(name, run.first);
		scanned.name = name;
		memcpy(scanned.id, run.prefix, sizeof(run.prefix));
		scanned.bytes = kvk_pool_run_bytes(pool, &run);
		scanned.accessed_ns = run.created_ns;
		scanned.modified_ns = run.created_ns;
		kvk_pool_map_drop(&pool->map, &run);
		goes_on = visit(user, &scanned);
	}
	/* What left a moment ago is on its way into the account; a finding without it would have it taken off twice. */
	quiet = kvk_now_us() - changed_us > QUIET_US;
	return quiet && changes == atomic_load(&pool->changes) ? 0 : -EAGAIN;
}

int kvk_pool_bucket_time(struct kvk_adapter *adapter, uint32_t bucket, uint64_t *modified_ns, uint64_t *stamp)
{
	struct kvk_pool *pool = kvk_pool_of(adapter);

	*stamp = bucket == 0 ? atomic_load(&pool->changes) : 0;
	*modified_ns = bucket == 0 ? atomic_load(&pool->changed_ns) : 0;
	return 0;
}
