/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A put:
 *
 *   CREATE (if absent) --> [RESERVE] --> WRITE --> [SYNC] --> PUBLISH --> [SYNC FOLDER] --> done() --> CLOSE --> finished
 *                ^                                             |
 *                |                                          exists: JUDGE it --> sound: make it durable if asked; stored
 *                '---------- judge again ---- REPLACE <-------------'------> damaged
 *
 * With judge_first it begins, and ends, with JUDGE: nothing is written without room.
 *
 * An unpublished place vanishes on CLOSE, so every failure is: answer, close.
 */
#include <errno.h>
#include <string.h>

#include "adapter/dynamic/dynamic.h"
#include "adapter/dynamic/replace.h"
#include "adapter/write.h"
#include "util/alloc.h"

/* How often a put may meet something else under its name before it gives up. */
#define TRIES_MAX 3
/* From here on blocks are allocated ahead: direct writes that extend a file wait for each other, and the ring has to hand
 * them to threads (measured on one disk: 1.0 GB/s, with fallocate 1.8; below it one plain write costs less). */
#define RESERVE_FROM_BYTES (UINT64_C(512) << 10)

enum step {
	STEP_CREATE,
	STEP_RESERVE,
	STEP_SYNC,
	STEP_PUBLISH,
	STEP_SYNC_FOLDER,
	STEP_LOOK_OURS,        /* its folder could not be synced */
	STEP_SYNC_FOUND,       /* object durability: what was there before is made as durable as ours would be */
	STEP_FOLDER_FOUND,
	STEP_CLOSE_JUDGED,     /* what lies under the name is of no use: go on */
	STEP_CLOSE_FOUND,      /* the answer was given */
	STEP_CLOSE,
};

struct put {
	struct kvk_request *request;
	enum step step;
	uint32_t tries;
	bool replaced;                 /* something sound that is doubted */
	struct kvk_place *place;       /* ours; NULL before CREATE */
	struct kvk_xfer xfer;
	struct kvk_write write;
	struct kvk_replace replace;
	struct kvk_take take;
	char name[KVK_NAME_BYTES_MAX];
	char aside[KVK_NAME_BYTES_MAX];
	struct kvk_proof proof;
};

static void stepped(struct kvk_xfer *xfer);

/* Unlike other steps RESERVE needs a length. */
static void step(struct put *put, enum step next, enum kvk_xfer_op op, struct kvk_place *place, const char *name)
{
	put->step = next;
	kvk_xfer_init(&put->xfer, op, place, name);
	put->xfer.offset_bytes = op == KVK_XFER_RESERVE ? put->write.object_bytes : 0;
	put->xfer.done = stepped;
	kvk_op_submit(&put->request->op, &put->xfer);
}

static void create(struct put *put, bool if_absent)
{
	put->step = STEP_CREATE;
	kvk_xfer_init(&put->xfer, KVK_XFER_CREATE, NULL, put->name);
	put->xfer.flags = if_absent ? KVK_XFER_IF_ABSENT : 0;
	put->xfer.done = stepped;
	kvk_op_submit(&put->request->op, &put->xfer);
}

static void put_finish(struct put *put)
{
	struct kvk_request *request = put->request;

	kvk_proof_release(&put->proof);
	kvk_write_release(&put->write);
	kvk_mem_free(put);
	kvk_op_finish(&request->op);
}

static void put_close(struct put *put)
{
	if (put->proof.place)
		step(put, STEP_CLOSE_FOUND, KVK_XFER_CLOSE, put->proof.place, NULL);
	else if (put->place)
		step(put, STEP_CLOSE, KVK_XFER_CLOSE, put->place, NULL);
	else
		put_finish(put);
}

static void put_answer(struct put *put, int status, uint32_t reason)
{
	kvk_request_done(put->request, status, reason);
	put_close(put);
}

static void put_failed(struct put *put, int status)
{
	put_answer(put, status, kvk_reason_of(status));
}

/* It must not publish any more: canceled, or past its deadline. */
static void put_late(struct put *put)
{
	put_failed(put, atomic_load(&put->request->op.canceled) ? -ECANCELED : -ETIMEDOUT);
}

/* ---- writing ------------------------------------------------------------------------------------ */

static void written(struct kvk_write *write)
{
	struct put *put = kvk_container_of(write, struct put, write);

	if (write->status < 0)
		put_failed(put, write->status);
	else if (kvk_dynamic_of(put->request)->durability == KVK_DURABILITY_OBJECT)
		step(put, STEP_SYNC, KVK_XFER_SYNC, put->place, NULL);
	else if (kvk_op_late(&put->request->op))
		put_late(put);
	else
		step(put, STEP_PUBLISH, KVK_XFER_PUBLISH, put->place, put->name);
}

static void write_payload(struct put *put)
{
	put->write.place = put->place;
	put->write.done = written;
	kvk_write_start(&put->write);
}

/* A failed sync is never asked again: the kernel may have dropped what it could not write, and would say 0. */
static void not_durable(struct put *put)
{
	put_answer(put, -EIO, KVK_REASON_NOT_DURABLE);
}

/* ---- what is there already ---------------------------------------------------------------------- */

static void judged(struct kvk_proof *proof);

static void judge(struct put *put)
{
	bool whole = kvk_dynamic_of(put->request)->durability == KVK_DURABILITY_OBJECT;

	kvk_proof_release(&put->proof);
	kvk_proof_init(&put->proof, put->request, put->name, whole ? KVK_PROOF_WHOLE : KVK_PROOF_FOOTER, judged);
	put->proof.buffered = !whole;
	kvk_proof_start(&put->proof);
}

static void replaced(struct kvk_replace *replace);

/* Nothing sound is under the name. */
static void after_judging(struct put *put)
{
	if (put->request->judge_first) {
		/* Damaged, it stays until there is room for what replaces it. */
		put->request->outcome = KVK_OUTCOME_UNWRITTEN;
		put_answer(put, -EALREADY, KVK_REASON_BUSY);
	} else if (kvk_op_late(&put->request->op)) {
		put_late(put);
	} else if (!put->place) {
		/* What is there is damaged: it is replaced when ours is written. */
		create(put, put->proof.verdict == KVK_VERDICT_ABSENT);
	} else if (put->proof.verdict == KVK_VERDICT_ABSENT) {
		step(put, STEP_PUBLISH, KVK_XFER_PUBLISH, put->place, put->name);
	} else {
		put->replace = (struct kvk_replace){
			.request = put->request, .place = put->place, .name = put->name,
			.bad_inode = put->proof.stat.inode, .done = replaced,
		};
		kvk_replace_start(&put->replace);
	}
}

/* What lies there could not be synced. It may have been durable before, so it stays; the next put replaces it. Where the sync was
 * not asked for (canceled as it waited, no descriptor) the next one is as good. */
static void distrust(struct put *put, int result)
{
	if (kvk_sync_is_failure(result))
		kvk_doubts_add(&put->request->adapter->doubts, put->request->digest, put->proof.stat.inode);
	put_answer(put, -EIO, KVK_REASON_NOT_DURABLE);
}

static bool is_doubted(const struct put *put)
{
	return kvk_dynamic_of(put->request)->durability == KVK_DURABILITY_OBJECT &&
	       kvk_doubts_has(&put->request->adapter->doubts, put->request->digest, put->proof.stat.inode);
}

static void no_use(struct put *put)
{
	if (put->proof.place)
		step(put, STEP_CLOSE_JUDGED, KVK_XFER_CLOSE, put->proof.place, NULL);
	else
		after_judging(put);
}

static void judged(struct kvk_proof *proof)
{
	struct put *put = kvk_container_of(proof, struct put, proof);
	struct kvk_request *request = put->request;

	switch (proof->verdict) { /* LCOV_EXCL_BR_LINE: gcc has a way out for values that the enum has not */
	case KVK_VERDICT_PROVEN:
		if (is_doubted(put)) {
			put->replaced = true;
			no_use(put);
			return;
		}
		request->outcome = KVK_OUTCOME_FOUND;
		if (kvk_dynamic_of(request)->durability == KVK_DURABILITY_OBJECT)
			step(put, STEP_SYNC_FOUND, KVK_XFER_SYNC, proof->place, NULL);
		else
			put_answer(put, 0, KVK_REASON_PRESENT);
		return;
	case KVK_VERDICT_COLLISION:
	case KVK_VERDICT_FOREIGN:
		atomic_fetch_add(&request->adapter->counts.collisions, 1);
		put_answer(put, -EEXIST, KVK_REASON_COLLISION);
		return;
	case KVK_VERDICT_ARGUMENT:
	case KVK_VERDICT_NONE:
		put_failed(put, proof->status);
		return;
	case KVK_VERDICT_ABSENT:
	case KVK_VERDICT_DAMAGED:
	case KVK_VERDICT_UNVERIFIED:   /* what can be proven takes the place of what cannot */
		no_use(put);
		return;
	}
}

/* ---- publishing --------------------------------------------------------------------------------- */

static void stored(struct put *put, bool durable)
{
	put->request->facts.durable = durable;
	put->request->moved_bytes = put->write.footer.logical_bytes;
	put_answer(put, 0, KVK_REASON_NONE);
}

static void published(struct put *put)
{
	put->request->outcome = KVK_OUTCOME_WRITTEN;
	kvk_write_take_facts(&put->write, &put->request->facts);
	put->request->published_bytes = put->request->facts.stored_bytes;
	if (kvk_dynamic_of(put->request)->durability == KVK_DURABILITY_OBJECT)
		step(put, STEP_SYNC_FOLDER, KVK_XFER_SYNC_FOLDER, NULL, put->name);
	else
		stored(put, false);
}

static void replaced(struct kvk_replace *replace)
{
	struct put *put = kvk_container_of(replace, struct put, replace);

	if (replace->dropped)
		put->request->unlinked_bytes += kvk_page_ceil(put->proof.stat.bytes);
	put->request->unlinked_bytes += kvk_page_ceil(replace->stray_bytes);
	if (replace->taken)
		put->request->published_bytes = put->write.object_bytes;
	if (replace->status == 0)
		published(put);
	else if (replace->status == -EEXIST)
		/* Ours is gone, but what lies there now is somebody's fresh one: it is judged once more, by a
		 * caller who asks again. */
		put_answer(put, -EALREADY, KVK_REASON_BUSY);
	else
		put_failed(put, replace->status);
}

static void dropped_ours(struct kvk_take *take)
{
	struct put *put = kvk_container_of(take, struct put, take);

	if (take->status == 0)
		put->request->unlinked_bytes += put->request->published_bytes;
	put->request->unlinked_bytes += kvk_page_ceil(take->stray_bytes);
	not_durable(put);
}

/* Takes it back if the name still is ours: by now somebody may have stored it anew, and synced that. */
static void drop_ours(struct put *put, uint64_t inode)
{
	struct kvk_dynamic *dynamic = kvk_dynamic_of(put->request);

	kvk_name_make_aside(put->aside, put->name, dynamic->writer_id, atomic_fetch_add(&dynamic->sequence, 1));
	put->take = (struct kvk_take){
		.request = put->request, .name = put->name, .target = put->aside, .inode = inode, .unlink = true,
		.done = dropped_ours,
	};
	kvk_take_start(&put->take);
}

/* ---- the steps ---------------------------------------------------------------------------------- */

static void created(struct put *put)
{
	struct kvk_write *write = &put->write;

	put->place = put->xfer.place;
	write->in_pieces = write->object_bytes > (kvk_op_alone(&put->request->op) ? KVK_SLOT_BYTES : RESERVE_FROM_BYTES);
	if (write->direct && write->in_pieces) {
		step(put, STEP_RESERVE, KVK_XFER_RESERVE, put->place, NULL);
		return;
	}
	write_payload(put);
}

static void stepped(struct kvk_xfer *xfer)
{
	struct put *put = kvk_container_of(xfer, struct put, xfer);
	struct kvk_request *request = put->request;
	int result = (int)xfer->result;

	switch (put->step) { /* LCOV_EXCL_BR_LINE: gcc has a way out for values that the enum has not */
	case STEP_CREATE:
		if (result == -EEXIST && ++put->tries < TRIES_MAX)
			judge(put);
		else if (result < 0)
			put_failed(put, result == -EEXIST ? -EIO : result);
		else
			created(put);
		return;
	case STEP_RESERVE:
		write_payload(put);    /* safety never rests on it */
		return;
	case STEP_SYNC:
		if (result < 0)
			not_durable(put);
		else if (kvk_op_late(&request->op))
			put_late(put);
		else
			step(put, STEP_PUBLISH, KVK_XFER_PUBLISH, put->place, put->name);
		return;
	case STEP_PUBLISH:
		if (result == 0)
			published(put);
		else if (result == -EEXIST && ++put->tries < TRIES_MAX)
			judge(put);
		else
			put_failed(put, result == -EEXIST ? -EIO : result);
		return;
	case STEP_SYNC_FOLDER:
		if (result >= 0)
			stored(put, true);
		else if (put->replaced)
			not_durable(put);      /* what it took the place of may have been durable */
		else
			step(put, STEP_LOOK_OURS, KVK_XFER_STAT, put->place, NULL);
		return;
	case STEP_LOOK_OURS:
		request->outcome = KVK_OUTCOME_NONE;
		if (result < 0)
			not_durable(put);
		else
			drop_ours(put, xfer->stat.inode);
		return;
	case STEP_SYNC_FOUND:
		if (result < 0)
			distrust(put, result);
		else
			step(put, STEP_FOLDER_FOUND, KVK_XFER_SYNC_FOLDER, NULL, put->name);
		return;
	case STEP_FOLDER_FOUND:
		request->facts.durable = result == 0;
		if (result < 0)
			distrust(put, result);
		else
			put_answer(put, 0, KVK_REASON_PRESENT);
		return;
	case STEP_CLOSE_JUDGED:
		put->proof.place = NULL;
		after_judging(put);
		return;
	case STEP_CLOSE_FOUND:
		put->proof.place = NULL;
		put_close(put);
		return;
	case STEP_CLOSE:
		put_finish(put);
		return;
	}
}

void kvk_dynamic_put(struct kvk_request *request)
{
	struct kvk_dynamic *dynamic = kvk_dynamic_of(request);
	struct put *put = kvk_mem_zalloc(1, sizeof(*put));

	if (!put) {
		kvk_request_done(request, -ENOMEM, KVK_REASON_NO_MEMORY);
		kvk_op_finish(&request->op);
		return;
	}
	put->request = request;
	put->write.direct = request->adapter->backend->caps.direct;
	if (!kvk_dynamic_name(request, put->name))
		put_answer(put, request->status, request->reason);
	else if (kvk_write_prepare(&put->write, request, dynamic->namespace_digest, dynamic->writer_id))
		put_failed(put, -ENOMEM);
	else if (request->judge_first)
		judge(put);
	else
		create(put, true);
}
