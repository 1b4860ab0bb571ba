/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A remove:  MOVE to ....gone --> done() --> UNLINK on a worker --> freed() --> finished
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
	struct kvk_xfer xfer;
	char name[KVK_NAME_BYTES_MAX];
	char gone[KVK_NAME_BYTES_MAX];
};

static void removal_finish(struct removal *removal)
{
	struct kvk_request *request = removal->request;

	kvk_mem_free(removal);
	kvk_op_finish(&request->op);
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

static void move(struct removal *removal);

static void moved(struct kvk_xfer *xfer)
{
	struct removal *removal = kvk_container_of(xfer, struct removal, xfer);
	struct kvk_request *request = removal->request;
	struct kvk_dynamic *dynamic = kvk_dynamic_of(request);

	if (xfer->result == -EEXIST) {
		move(removal);         /* a former run left that name; the next sequence is free */
		return;
	}
	if (xfer->result == -ENOENT && !removal->old_name && dynamic->layout.naming == KVK_NAMING_LMCACHE &&
	    request->key &&
	    !kvk_name_make_old(removal->name, &dynamic->layout, request->key, request->key_bytes)) {
		removal->old_name = true;
		move(removal);
		return;
	}
	if (xfer->result < 0) {
		bool absent = xfer->result == -ENOENT || xfer->result == -ENOTDIR;

		kvk_dynamic_done(request, absent ? -ENOENT : (int)xfer->result,
				 absent ? KVK_REASON_ABSENT : kvk_dynamic_reason((int)xfer->result));
		removal_finish(removal);
		return;
	}
	request->outcome = KVK_OUTCOME_REMOVED;
	kvk_dynamic_done(request, 0, KVK_REASON_NONE);
	kvk_op_detach(&request->op);
	kvk_xfer_init(xfer, KVK_XFER_UNLINK, NULL, removal->gone);
	xfer->done = unlinked;
	kvk_op_submit(&request->op, xfer);
}

static void move(struct removal *removal)
{
	struct kvk_request *request = removal->request;
	struct kvk_dynamic *dynamic = kvk_dynamic_of(request);

	kvk_name_make_gone(removal->gone, removal->name, request->digest,
			   atomic_fetch_add(&dynamic->sequence, 1));
	kvk_xfer_init(&removal->xfer, KVK_XFER_MOVE, NULL, removal->name);
	removal->xfer.name2 = removal->gone;
	removal->xfer.done = moved;
	kvk_op_submit(&request->op, &removal->xfer);
}

void kvk_dynamic_remove(struct kvk_request *request)
{
	struct removal *removal = kvk_mem_alloc(sizeof(*removal));

	if (!removal) {
		kvk_dynamic_done(request, -ENOMEM, KVK_REASON_NO_MEMORY);
		kvk_op_finish(&request->op);
		return;
	}
	removal->request = request;
	removal->old_name = false;
	if (!kvk_dynamic_name(request, removal->name)) {
		kvk_dynamic_done(request, request->status, request->reason);
		removal_finish(removal);
		return;
	}
	move(removal);
}
