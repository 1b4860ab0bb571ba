/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A remove:  LOOK --> MOVE to ....gone --> done() --> LOOK again --> UNLINK on a worker --> freed() --> finished
 *
 * It looks first, because a rename takes whatever lies there: a folder or a link that somebody planted, and where names do
 * not follow from digests (`a/b` and `a--b`) another key's object. What is not this key's own stays. And it looks at what it
 * got: where others removed and stored it anew in between, another length is free.
 *
 * A rename inside the folder takes no lock of the whole file system, and two removals of one key cannot meet. The
 * unlink may be slow (26 ms for 32 MiB on a file system mounted with discard), so nobody waits for it.
 */
#include <errno.h>

#include "adapter/dynamic/dynamic.h"
#include "util/alloc.h"

struct removal {
	struct kvk_request *request;
	bool old_name;
	uint32_t tries;                /* of names for what leaves */
	struct kvk_xfer xfer;
	char name[KVK_NAME_BYTES_MAX];
	char gone[KVK_NAME_BYTES_MAX];
	struct kvk_proof proof;        /* naming lmcache: whose object it is */
};

static void removal_finish(struct removal *removal)
{
	struct kvk_request *request = removal->request;

	kvk_proof_release(&removal->proof);
	kvk_mem_free(removal);
	kvk_op_finish(&request->op);
}

static void removal_answer(struct removal *removal, int status, uint32_t reason)
{
	kvk_request_done(removal->request, status, reason);
	removal_finish(removal);
}

static void unlinked(struct kvk_xfer *xfer)
{
	struct removal *removal = kvk_container_of(xfer, struct removal, xfer);

	/* -ENOENT: a sweep was faster. Else, if it failed, the sweep of a later run removes it, and until then its bytes
	 * stay charged. */
	if (removal->request->freed && (xfer->result == 0 || xfer->result == -ENOENT))
		removal->request->freed(removal->request);
	removal_finish(removal);
}

static void looked_again(struct kvk_xfer *xfer)
{
	struct removal *removal = kvk_container_of(xfer, struct removal, xfer);

	if (xfer->result == 0)
		removal->request->unlinked_bytes = xfer->stat.bytes;
	kvk_xfer_init(xfer, KVK_XFER_UNLINK, NULL, removal->gone);
	xfer->done = unlinked;
	kvk_op_submit(&removal->request->op, xfer);
}

static void move(struct removal *removal);
static void look(struct removal *removal);

/* The older generation of LMCache's names, if that was not it already. */
static void absent(struct removal *removal)
{
	struct kvk_request *request = removal->request;
	struct kvk_dynamic *dynamic = kvk_dynamic_of(request);

	if (!removal->old_name && dynamic->layout.naming == KVK_NAMING_LMCACHE && request->key &&
	    !kvk_name_make_old(removal->name, &dynamic->layout, request->key, request->key_bytes)) {
		removal->old_name = true;
		look(removal);
		return;
	}
	removal_answer(removal, -ENOENT, KVK_REASON_ABSENT);
}

static void moved(struct kvk_xfer *xfer)
{
	struct removal *removal = kvk_container_of(xfer, struct removal, xfer);
	struct kvk_request *request = removal->request;

	if (xfer->result == -EEXIST && ++removal->tries < KVK_DYNAMIC_GONE_TRIES) {
		move(removal);         /* a former run left that name; the next sequence is free */
		return;
	}
	if (xfer->result == -ENOENT || xfer->result == -ENOTDIR) {
		absent(removal);
		return;
	}
	if (xfer->result < 0) {
		int err = xfer->result == -EEXIST ? -EIO : (int)xfer->result;

		removal_answer(removal, err, kvk_reason_of(err));
		return;
	}
	request->outcome = KVK_OUTCOME_REMOVED;
	kvk_request_done(request, 0, KVK_REASON_NONE);
	kvk_op_detach(&request->op);
	kvk_xfer_init(xfer, KVK_XFER_STAT_NAME, NULL, removal->gone);
	xfer->done = looked_again;
	kvk_op_submit(&request->op, xfer);
}

static void move(struct removal *removal)
{
	struct kvk_request *request = removal->request;
	struct kvk_dynamic *dynamic = kvk_dynamic_of(request);
	int err = kvk_name_make_gone(removal->gone, removal->name, request->digest, atomic_fetch_add(&dynamic->sequence, 1));

	if (err) {
		removal_answer(removal, err, kvk_reason_of(err));
		return;
	}
	kvk_xfer_init(&removal->xfer, KVK_XFER_MOVE, NULL, removal->name);
	removal->xfer.name2 = removal->gone;
	removal->xfer.done = moved;
	kvk_op_submit(&request->op, &removal->xfer);
}

/* ---- looking ------------------------------------------------------------------------------------ */

static void looked(struct kvk_xfer *xfer)
{
	struct removal *removal = kvk_container_of(xfer, struct removal, xfer);

	switch (xfer->result) {
	case 0:
		removal->request->unlinked_bytes = xfer->stat.bytes;
		if (xfer->stat.regular && xfer->stat.owned)
			move(removal);
		else
			removal_answer(removal, -ENOENT, KVK_REASON_FOREIGN);
		return;
	case -ENOENT:
		absent(removal);
		return;
	case -ELOOP:
	case -EXDEV:
	case -EINVAL:
	case -ENOTDIR:
	case -EISDIR:
		removal_answer(removal, -ENOENT, KVK_REASON_FOREIGN);
		return;
	default:
		removal_answer(removal, (int)xfer->result, kvk_reason_of((int)xfer->result));
	}
}

static void judged_closed(struct kvk_xfer *xfer)
{
	struct removal *removal = kvk_container_of(xfer, struct removal, xfer);
	const struct kvk_proof *proof = &removal->proof;

	switch (proof->verdict) { /* LCOV_EXCL_BR_LINE: gcc has a way out for values that the enum has not */
	case KVK_VERDICT_PROVEN:
	case KVK_VERDICT_DAMAGED:
	case KVK_VERDICT_UNVERIFIED:
		removal->request->unlinked_bytes = proof->stat.bytes;
		move(removal);
		return;
	case KVK_VERDICT_ABSENT:
		absent(removal);
		return;
	case KVK_VERDICT_COLLISION:
		atomic_fetch_add(&removal->request->adapter->counts.collisions, 1);
		removal_answer(removal, -ENOENT, KVK_REASON_COLLISION);
		return;
	case KVK_VERDICT_FOREIGN:
		removal_answer(removal, -ENOENT, KVK_REASON_FOREIGN);
		return;
	case KVK_VERDICT_ARGUMENT:
	case KVK_VERDICT_NONE:
		removal_answer(removal, proof->status, kvk_reason_of(proof->status));
		return;
	}
}

static void judged(struct kvk_proof *proof)
{
	struct removal *removal = kvk_container_of(proof, struct removal, proof);

	if (!proof->place) {
		judged_closed(&removal->xfer);
		return;
	}
	kvk_xfer_init(&removal->xfer, KVK_XFER_CLOSE, proof->place, NULL);
	removal->xfer.done = judged_closed;
	proof->place = NULL;
	kvk_op_submit(&removal->request->op, &removal->xfer);
}

static void look(struct removal *removal)
{
	struct kvk_request *request = removal->request;

	/* Who names the file means it, whatever its key. */
	if (kvk_dynamic_of(request)->layout.naming == KVK_NAMING_LMCACHE && !request->name) {
		kvk_proof_release(&removal->proof);
		kvk_proof_init(&removal->proof, request, removal->name, KVK_PROOF_FOOTER, judged);
		removal->proof.buffered = true;
		kvk_proof_start(&removal->proof);
		return;
	}
	kvk_xfer_init(&removal->xfer, KVK_XFER_STAT_NAME, NULL, removal->name);
	removal->xfer.done = looked;
	kvk_op_submit(&request->op, &removal->xfer);
}

void kvk_dynamic_remove(struct kvk_request *request)
{
	struct removal *removal = kvk_mem_alloc(sizeof(*removal));

	if (!removal) {
		kvk_request_done(request, -ENOMEM, KVK_REASON_NO_MEMORY);
		kvk_op_finish(&request->op);
		return;
	}
	removal->request = request;
	removal->old_name = false;
	removal->tries = 0;
	kvk_proof_init(&removal->proof, request, removal->name, KVK_PROOF_FOOTER, judged);
	if (kvk_dynamic_name(request, removal->name))
		look(removal);
	else
		removal_answer(removal, request->status, request->reason);
}
