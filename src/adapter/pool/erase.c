/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "adapter/pool/pool.h"

/* An operation that is canceled has its transfers ended early; then the page is written once more, for nobody who waits. */
#define TRIES_MAX 3

static void post(struct kvk_erase *erase);

static void posted(struct kvk_xfer *xfer)
{
	struct kvk_erase *erase = kvk_container_of(xfer, struct kvk_erase, xfer);
	struct kvk_pool *pool = kvk_pool_of_request(erase->request);

	if (xfer->result >= 0)
		erase->status = 0;
	else if (xfer->result != -ECANCELED || erase->status == 0)
		erase->status = (int)xfer->result;
	if (xfer->result < 0 && ++erase->tries < TRIES_MAX) {
		post(erase);
		return;
	}
	kvk_pool_map_free(&pool->map, &erase->run, erase->status == 0 && !erase->spoiled);
	kvk_pool_changed(pool);
	if (erase->status)
		kvk_log(&pool->log, KVK_LOG_ERROR, "a footer in the pool could not be zeroed (%d)", erase->status);
	erase->done(erase);
}

static void post(struct kvk_erase *erase)
{
	struct kvk_pool *pool = kvk_pool_of_request(erase->request);

	erase->iov = (struct iovec){ .iov_base = pool->zeros, .iov_len = KVK_PAGE_BYTES };
	kvk_xfer_init(&erase->xfer, KVK_XFER_WRITE, kvk_pool_place(pool, &erase->run), NULL);
	erase->xfer.iov = &erase->iov;
	erase->xfer.iov_count = 1;
	erase->xfer.offset_bytes = kvk_pool_end_bytes(pool, &erase->run) - KVK_PAGE_BYTES;
	erase->xfer.done = posted;
	erase->xfer.canceled = erase->tries > 0;
	kvk_op_submit(&erase->request->op, &erase->xfer);
}

void kvk_erase_start(struct kvk_erase *erase)
{
	erase->tries = 0;
	erase->status = 0;
	post(erase);
}

int kvk_pool_erase(struct kvk_pool *pool, const struct kvk_run *run)
{
	int err = kvk_adapter_move(&pool->base, KVK_XFER_WRITE, kvk_pool_place(pool, run),
				   kvk_pool_end_bytes(pool, run) - KVK_PAGE_BYTES, pool->zeros, KVK_PAGE_BYTES);

	kvk_pool_map_free(&pool->map, run, err == 0);
	kvk_pool_changed(pool);
	return err;
}
