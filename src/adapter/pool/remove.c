/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A remove:  leave the index --> ERASE the footer --> done(), freed() --> finished
 *
 * Nobody finds it from the first step on; who reads it holds its slots and has what was read before the erasing, or a miss.
 */
#include <errno.h>

#include "adapter/pool/pool.h"
#include "util/alloc.h"

struct removal {
	struct kvk_request *request;
	struct kvk_erase erase;
};

static void removal_answer(struct removal *removal, int status, uint32_t reason)
{
	struct kvk_request *request = removal->request;

	kvk_mem_free(removal);
	kvk_request_done(request, status, reason);
	if (status == 0 && request->freed)
		request->freed(request);
	kvk_op_finish(&request->op);
}

static void erased(struct kvk_erase *erase)
{
	struct removal *removal = kvk_container_of(erase, struct removal, erase);

	if (erase->status < 0) {
		removal_answer(removal, erase->status, kvk_reason_of(erase->status));
		return;
	}
	removal->request->outcome = KVK_OUTCOME_REMOVED;
	removal->request->unlinked_bytes = kvk_pool_run_bytes(kvk_pool_of_request(removal->request), &erase->run);
	removal_answer(removal, 0, KVK_REASON_NONE);
}

void kvk_pool_remove(struct kvk_request *request)
{
	struct removal *removal = kvk_mem_zalloc(1, sizeof(*removal));

	if (!removal) {
		kvk_request_done(request, -ENOMEM, KVK_REASON_NO_MEMORY);
		kvk_op_finish(&request->op);
		return;
	}
	removal->request = request;
	removal->erase = (struct kvk_erase){ .request = request, .done = erased };
	if (kvk_pool_map_leave_key(&kvk_pool_of_request(request)->map, request->digest, &removal->erase.run))
		kvk_erase_start(&removal->erase);
	else
		removal_answer(removal, -ENOENT, KVK_REASON_ABSENT);
}

/* ---- on the calling thread ---------------------------------------------------------------------- */

/* Nobody else uses a pool, so nobody else can have read what the catalog chose. */
int kvk_pool_evict(struct kvk_adapter *adapter, uint32_t bucket, struct kvk_evictee *evictees, uint32_t count)
{
	struct kvk_pool *pool = kvk_pool_of(adapter);

	for (uint32_t i = 0; i < count; i++) {
		struct kvk_evictee *evictee = &evictees[i];
		struct kvk_run run;

		evictee->accessed_ns = 0;
		evictee->freed_bytes = 0;
		evictee->status = -ENOENT;
		if (!kvk_pool_map_leave_key(&pool->map, evictee->prefix, &run))
			continue;
		evictee->status = kvk_pool_erase(pool, &run);
		if (evictee->status == 0)
			evictee->freed_bytes = kvk_pool_run_bytes(pool, &run);
	}
	return 0;
}

int kvk_pool_remove_all(struct kvk_adapter *adapter)
{
	struct kvk_pool *pool = kvk_pool_of(adapter);
	int err, first_error = 0;
	struct kvk_run run;

	for (uint32_t slot = 0; kvk_pool_map_hold_at(&pool->map, slot, false, &run); slot = run.first + 1) {
		atomic_fetch_add(&adapter->counts.walked, 1);
		err = 0;
		if (kvk_pool_map_leave(&pool->map, &run)) /* LCOV_EXCL_BR_LINE: no, if another thread was faster since it was held */
			err = kvk_pool_erase(pool, &run);
		kvk_pool_map_drop(&pool->map, &run);
		if (err && !first_error)
			first_error = err;
	}
	return first_error;
}
