/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A put:
 *
 *   take a run --> WRITE payload --> WRITE footer --> [SYNC] --> present, done(), finished
 *        |                |_________________________________|
 *        |                          failed, or late: ERASE, free, done()
 *     exists: PROOF --> sound: [SYNC]; stored, or it stays and is doubted
 *        ^           '-> not:  ERASE --> take a run
 *
 * With judge_first it begins with PROOF, and takes no run: nothing is written without room.
 */
#include <errno.h>

#include "adapter/pool/pool.h"
#include "adapter/write.h"
#include "util/alloc.h"

/* How often a put may meet something else under its key before it gives up. */
#define TRIES_MAX 3

struct put {
	struct kvk_request *request;
	struct kvk_run run;                    /* ours, once it was taken */
	uint32_t tries;
	int status;                            /* the answer, after erasing */
	uint32_t reason;
	bool found;                            /* look.run is held */
	struct kvk_xfer sync;
	struct kvk_write write;
	struct kvk_erase erase;
	struct kvk_look look;
};

static void put_anew(struct put *put);

static void let_go(struct put *put)
{
	if (put->found)
		kvk_pool_map_drop(&kvk_pool_of_request(put->request)->map, &put->look.run);
	put->found = false;
}

static void put_answer(struct put *put, int status, uint32_t reason)
{
	struct kvk_request *request = put->request;

	let_go(put);
	kvk_proof_release(&put->look.proof);
	kvk_write_release(&put->write);
	kvk_mem_free(put);
	kvk_request_done(request, status, reason);
	kvk_op_finish(&request->op);
}

/* ---- giving up ---------------------------------------------------------------------------------- */

static void given_up(struct kvk_erase *erase)
{
	struct put *put = kvk_container_of(erase, struct put, erase);

	put_answer(put, put->status, put->reason);
}

/* The footer may be there already, so the run is erased before it is free. */
static void give_up(struct put *put, int status, uint32_t reason)
{
	put->status = status;
	put->reason = reason;
	put->erase.request = put->request;
	put->erase.run = put->run;
	put->erase.done = given_up;
	kvk_erase_start(&put->erase);
}

/* ---- writing ------------------------------------------------------------------------------------ */

static void publish(struct put *put, bool durable)
{
	struct kvk_request *request = put->request;
	struct kvk_pool *pool = kvk_pool_of_request(request);

	if (kvk_op_late(&request->op)) {
		int err = atomic_load(&request->op.canceled) ? -ECANCELED : -ETIMEDOUT;

		give_up(put, err, kvk_reason_of(err));
		return;
	}
	kvk_pool_map_publish(&pool->map, &put->run, put->write.footer.created_ns);
	kvk_pool_changed(pool);
	kvk_write_take_facts(&put->write, &request->facts);
	request->facts.stored_bytes = kvk_pool_run_bytes(pool, &put->run);
	request->facts.durable = durable;
	request->published_bytes = request->facts.stored_bytes;
	request->outcome = KVK_OUTCOME_WRITTEN;
	request->moved_bytes = put->write.footer.logical_bytes;
	put_answer(put, 0, KVK_REASON_NONE);
}

static void synced(struct kvk_xfer *xfer)
{
	struct put *put = kvk_container_of(xfer, struct put, sync);

	/*
	 * A failed sync is never asked again: the kernel may have dropped what it could not write, and would say 0. Nor are the slots
	 * used again: where ext4 could not write a block for the first time, it goes on as if it had been written, and what the page
	 * cache writes there later is on the medium but reads as zeros once the cache has forgotten it. Where it was not asked for
	 * (canceled as it waited) they are as good as before.
	 */
	if (xfer->result < 0) {
		put->erase.spoiled = kvk_sync_is_failure((int)xfer->result);
		give_up(put, -EIO, KVK_REASON_NOT_DURABLE);
	} else {
		publish(put, true);
	}
}

static void sync_run(struct put *put, const struct kvk_run *run, void (*done)(struct kvk_xfer *xfer))
{
	kvk_xfer_init(&put->sync, KVK_XFER_SYNC, kvk_pool_place(kvk_pool_of_request(put->request), run), NULL);
	put->sync.done = done;
	kvk_op_submit(&put->request->op, &put->sync);
}

static void written(struct kvk_write *write)
{
	struct put *put = kvk_container_of(write, struct put, write);

	if (write->status < 0)
		give_up(put, write->status, kvk_reason_of(write->status));
	else if (kvk_pool_of_request(put->request)->durability == KVK_DURABILITY_OBJECT)
		sync_run(put, &put->run, synced);
	else
		publish(put, false);
}

static void write_run(struct put *put)
{
	struct kvk_pool *pool = kvk_pool_of_request(put->request);
	struct kvk_write *write = &put->write;

	write->footer.generation = put->run.generation;
	write->footer.writer_id = kvk_pool_writer(pool->pool_id, put->run.first);
	write->place = kvk_pool_place(pool, &put->run);
	write->base_bytes = kvk_pool_end_bytes(pool, &put->run) - write->object_bytes;
	write->direct = pool->base.backend->caps.direct;
	write->in_pieces = write->object_bytes > KVK_SLOT_BYTES;
	write->footer_last = true;
	write->done = written;
	kvk_write_start(write);
}

/* ---- what is there already ---------------------------------------------------------------------- */

static void old_erased(struct kvk_erase *erase)
{
	struct put *put = kvk_container_of(erase, struct put, erase);

	let_go(put);
	if (erase->status == 0)
		put->request->unlinked_bytes += kvk_pool_run_bytes(kvk_pool_of_request(put->request), &erase->run);
	if (erase->status < 0)
		put_answer(put, erase->status, kvk_reason_of(erase->status));
	else
		put_anew(put);
}

/* What is there is no use. */
static void erase_old(struct put *put)
{
	struct kvk_pool *pool = kvk_pool_of_request(put->request);

	put->request->outcome = KVK_OUTCOME_NONE;
	if (!kvk_pool_map_leave(&pool->map, &put->look.run)) {
		let_go(put);
		put_anew(put);
		return;
	}
	put->erase.request = put->request;
	put->erase.run = put->look.run;
	put->erase.done = old_erased;
	kvk_erase_start(&put->erase);
}

static void found_synced(struct kvk_xfer *xfer)
{
	struct put *put = kvk_container_of(xfer, struct put, sync);

	/* A later sync would say 0, and is not believed, unless this one was not asked for. But it may have been durable before, so it
	 * stays. */
	if (xfer->result < 0) {
		if (kvk_sync_is_failure((int)xfer->result))
			kvk_doubts_add(&put->request->adapter->doubts, put->request->digest, put->look.run.generation);
		put_answer(put, -EIO, KVK_REASON_NOT_DURABLE);
		return;
	}
	put->request->facts.durable = true;
	put_answer(put, 0, KVK_REASON_PRESENT);
}

static void judged(struct kvk_proof *proof)
{
	struct put *put = kvk_container_of(proof, struct put, look.proof);
	struct kvk_request *request = put->request;

	switch (proof->verdict) { /* LCOV_EXCL_BR_LINE: gcc has a way out for values that the enum has not */
	case KVK_VERDICT_PROVEN:
		request->outcome = KVK_OUTCOME_FOUND;
		if (kvk_pool_of_request(request)->durability != KVK_DURABILITY_OBJECT)
			put_answer(put, 0, KVK_REASON_PRESENT);
		else if (kvk_doubts_has(&request->adapter->doubts, request->digest, put->look.run.generation))
			put_answer(put, -EIO, KVK_REASON_NOT_DURABLE);
		else
			sync_run(put, &put->look.run, found_synced);
		return;
	case KVK_VERDICT_COLLISION:
	case KVK_VERDICT_FOREIGN:
		atomic_fetch_add(&request->adapter->counts.collisions, 1);
		put_answer(put, -EEXIST, KVK_REASON_COLLISION);
		return;
	case KVK_VERDICT_ARGUMENT:
	case KVK_VERDICT_NONE:
		put_answer(put, proof->status, kvk_reason_of(proof->status));
		return;
	case KVK_VERDICT_ABSENT:
	case KVK_VERDICT_DAMAGED:
	case KVK_VERDICT_UNVERIFIED:
		erase_old(put);
		return;
	}
}

static void judge(struct put *put)
{
	struct kvk_pool *pool = kvk_pool_of_request(put->request);
	bool whole = pool->durability == KVK_DURABILITY_OBJECT;

	put->found = ++put->tries < TRIES_MAX &&
		     kvk_pool_map_hold(&pool->map, put->request->digest, &put->look.run);
	if (!put->found) {
		put->request->outcome = put->request->judge_first ? KVK_OUTCOME_UNWRITTEN : KVK_OUTCOME_NONE;
		put_answer(put, -EALREADY, KVK_REASON_BUSY);
		return;
	}
	kvk_proof_release(&put->look.proof);
	kvk_proof_init(&put->look.proof, put->request, NULL, whole ? KVK_PROOF_WHOLE : KVK_PROOF_FOOTER, judged);
	kvk_proof_start(&put->look.proof);
}

/* ---- the beginning ------------------------------------------------------------------------------ */

static void put_take(struct put *put)
{
	struct kvk_request *request = put->request;
	struct kvk_pool *pool = kvk_pool_of_request(request);
	uint64_t slots = (put->write.object_bytes + pool->shape.slot_bytes - 1) / pool->shape.slot_bytes;
	int err;

	if (slots > pool->shape.slots || slots > pool->shape.file_slots) {
		put_answer(put, -EFBIG, KVK_REASON_ARGUMENT);
		return;
	}
	err = kvk_pool_map_take(&pool->map, request->digest, (uint32_t)slots, &put->run);
	switch (err) {
	case 0:
		write_run(put);
		return;
	case -EEXIST:
		judge(put);
		return;
	case -ENOSPC:
	case -ENOSR:
		request->outcome = KVK_OUTCOME_NO_RUN;
		put_answer(put, -ENOSPC, KVK_REASON_NO_ROOM);
		return;
	default:
		put_answer(put, err, kvk_reason_of(err));
	}
}

/* Nothing is there any more. */
static void put_anew(struct put *put)
{
	if (!put->request->judge_first) {
		put_take(put);
		return;
	}
	put->request->outcome = KVK_OUTCOME_UNWRITTEN;
	put_answer(put, -EALREADY, KVK_REASON_BUSY);
}

void kvk_pool_put(struct kvk_request *request)
{
	struct put *put = kvk_mem_zalloc(1, sizeof(*put));

	if (!put) {
		kvk_request_done(request, -ENOMEM, KVK_REASON_NO_MEMORY);
		kvk_op_finish(&request->op);
		return;
	}
	put->request = request;
	/* Generation and writer are filled in when it is known where it goes. */
	if (kvk_write_prepare(&put->write, request, kvk_pool_of_request(request)->namespace_digest, 0))
		put_answer(put, -ENOMEM, KVK_REASON_NO_MEMORY);
	else if (request->judge_first)
		judge(put);
	else
		put_take(put);
}
