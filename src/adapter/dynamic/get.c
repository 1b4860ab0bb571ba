/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A get, and a find, which is a get of the footer alone:
 *
 *   PROOF --> [ once more ] --> [ MOVE ASIDE ] --> done() --> [ TOUCH ] --> CLOSE --> finished
 *
 * Once more: it seemed damaged, or it was found and may have been removed since.
 */
#include <errno.h>
#include <string.h>

#include "adapter/dynamic/dynamic.h"
#include "util/alloc.h"
#include "util/clock.h"

struct get {
	struct kvk_request *request;
	bool again;                    /* damaged once, being read once more */
	bool old_name;                 /* LMCache's older generation of names is tried */
	struct kvk_xfer close;
	struct kvk_aside aside;
	char name[KVK_NAME_BYTES_MAX];
	struct kvk_proof proof;
};

static void get_closed(struct kvk_xfer *xfer)
{
	struct get *get = kvk_container_of(xfer, struct get, close);
	struct kvk_request *request = get->request;

	kvk_proof_release(&get->proof);
	kvk_mem_free(get);
	kvk_op_finish(&request->op);
}

static void get_close(struct get *get, void (*then)(struct kvk_xfer *xfer))
{
	if (!get->proof.place) {
		then(&get->close);
		return;
	}
	kvk_xfer_init(&get->close, KVK_XFER_CLOSE, get->proof.place, NULL);
	get->close.done = then;
	get->proof.place = NULL;
	kvk_op_submit(&get->request->op, &get->close);
}

static void get_touched(struct kvk_xfer *xfer)
{
	get_close(kvk_container_of(xfer, struct get, close), get_closed);
}

/* Other processes learn from the access time alone that this object is in use. What the medium writes there by itself depends
 * on how it was mounted, and once a minute is enough for them. */
static bool wants_touch(const struct get *get, int status)
{
	const struct kvk_stat *stat = &get->proof.stat;

	return status == 0 && get->request->renew && stat->accessed_ns + KVK_RENEW_NS < kvk_wall_ns();
}

static void get_answer(struct get *get, int status, uint32_t reason)
{
	kvk_request_done(get->request, status, reason);
	if (!wants_touch(get, status)) {
		get_close(get, get_closed);
		return;
	}
	kvk_xfer_init(&get->close, KVK_XFER_TOUCH, get->proof.place, NULL);
	get->close.done = get_touched;
	kvk_op_submit(&get->request->op, &get->close);
}

static void get_moved_aside(struct kvk_aside *aside)
{
	get_answer(kvk_container_of(aside, struct get, aside), -EBADMSG, KVK_REASON_DAMAGED);
}

static void get_restart(struct kvk_xfer *xfer)
{
	struct get *get = kvk_container_of(xfer, struct get, close);

	kvk_proof_start(&get->proof);
}

static void get_damaged(struct get *get)
{
	struct kvk_request *request = get->request;

	if (!get->again) {
		/* A transfer may have gone wrong where the medium is right. */
		get->again = true;
		atomic_fetch_add(&request->adapter->counts.rereads, 1);
		get_close(get, get_restart);
	} else if (request->keep) {
		get_answer(get, -EBADMSG, KVK_REASON_DAMAGED);
	} else {
		get->aside = (struct kvk_aside){
			.request = request, .name = get->name, .inode = get->proof.stat.inode,
			.bytes = get->proof.stat.bytes, .done = get_moved_aside,
		};
		kvk_aside_start(&get->aside);
	}
}

static void get_judged(struct kvk_proof *proof)
{
	struct get *get = kvk_container_of(proof, struct get, proof);
	struct kvk_request *request = get->request;
	struct kvk_dynamic *dynamic = kvk_dynamic_of(request);
	uint32_t reason;
	int status;

	switch (proof->verdict) {
	case KVK_VERDICT_PROVEN:
		request->outcome = KVK_OUTCOME_FOUND;
		request->moved_bytes = proof->delivered_bytes;
		if (request->again && request->again(request)) {
			request->outcome = KVK_OUTCOME_NONE;
			get_close(get, get_restart);
			return;
		}
		if (request->facts.unverified && proof->depth == KVK_PROOF_WHOLE)
			atomic_fetch_add(&request->adapter->counts.unverified, 1);
		get_answer(get, 0, KVK_REASON_NONE);
		return;
	case KVK_VERDICT_ABSENT:
		if (!get->old_name && dynamic->layout.naming == KVK_NAMING_LMCACHE && request->key &&
		    !kvk_name_make_old(get->name, &dynamic->layout, request->key, request->key_bytes)) {
			get->old_name = true;
			get_close(get, get_restart);
			return;
		}
		get_answer(get, -ENOENT, KVK_REASON_ABSENT);
		return;
	case KVK_VERDICT_DAMAGED:
		get_damaged(get);
		return;
	default:
		status = kvk_proof_miss(proof, &reason);
		get_answer(get, status, reason);
		return;
	}
}

static void get_start(struct kvk_request *request, enum kvk_proof_depth depth)
{
	struct get *get = kvk_mem_alloc(sizeof(*get));

	if (!get) {
		kvk_request_done(request, -ENOMEM, KVK_REASON_NO_MEMORY);
		kvk_op_finish(&request->op);
		return;
	}
	get->request = request;
	get->again = false;
	get->old_name = false;
	kvk_proof_init(&get->proof, request, get->name, depth, get_judged);
	get->proof.deliver = request->deliver;
	/* Footers go through the page cache: many lookups and one disk access, instead of one each. */
	get->proof.buffered = depth == KVK_PROOF_FOOTER;
	if (!kvk_dynamic_name(request, get->name)) {
		kvk_request_done(request, request->status, request->reason);
		get_closed(&get->close);
		return;
	}
	kvk_proof_start(&get->proof);
}

void kvk_dynamic_get(struct kvk_request *request)
{
	get_start(request, KVK_PROOF_WHOLE);
}

void kvk_dynamic_find(struct kvk_request *request)
{
	get_start(request, KVK_PROOF_FOOTER);
}
