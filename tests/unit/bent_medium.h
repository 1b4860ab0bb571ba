/* SPDX-License-Identifier: Apache-2.0 */
/* A medium in memory that a test bends: what a call answers, and what happens just before it or just after it. */
#ifndef KVK_TESTS_UNIT_BENT_MEDIUM_H
#define KVK_TESTS_UNIT_BENT_MEDIUM_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapter/adapter.h"
#include "util/alloc.h"
#include "util/clock.h"

/* ---- the medium --------------------------------------------------------------------------------- */

/* Calls: enum kvk_xfer_op, and behind them the others. */
enum {
	BENT_LOAD = KVK_XFER_OP_COUNT, BENT_SAVE, BENT_LIST, BENT_LIST_STAT, BENT_FOLDER_TIME, BENT_NOW, BENT_HOLD_ALONE,
	BENT_HOLD_SHARED, BENT_LOCK, BENT_CALLS
};

struct bent;

struct bend {
	unsigned call;
	unsigned nth;                  /* of them, from 1, since bent_set() */
	bool every;                    /* and all after it */
	int error;                     /* negative: that is the answer, and nothing is done; but CLOSE closes. 0: it is done */
	/* Of transfers: */
	void (*before)(struct bent *bent, struct kvk_xfer *xfer);
	void (*after)(struct bent *bent, struct kvk_xfer *xfer);
	unsigned seen;
};

#define BENDS_MAX 4

struct bent {
	struct kvk_backend base;
	struct kvk_backend *inner;
	pthread_mutex_t lock;          /* guards what follows */
	struct bend bends[BENDS_MAX];
	unsigned calls[BENT_CALLS];    /* made since bent_set() */
	unsigned struck;
	int places;                    /* open */
	const char *extra;             /* a name that every list() and list_stat() finds besides, also one that fails */
	bool extra_is_anothers;
	uint64_t now_ns;               /* what the medium's clock says; 0: the time */
	/* For before() and after(): */
	struct kvk_request *request;   /* under way */
	const char *name;
	const void *data;
	uint64_t bytes;
};

static inline struct bent *bent_of(struct kvk_backend *backend)
{
	return kvk_container_of(backend, struct bent, base);
}

static inline struct bend bent_call(struct bent *bent, unsigned call)
{
	struct bend struck = { .call = BENT_CALLS };

	pthread_mutex_lock(&bent->lock);
	bent->calls[call]++;
	for (unsigned i = 0; i < BENDS_MAX; i++) {
		struct bend *bend = &bent->bends[i];

		if (!bend->nth || bend->call != call)
			continue;
		bend->seen++;
		if (struck.call == BENT_CALLS && (bend->seen == bend->nth || (bend->every && bend->seen > bend->nth)))
			struck = *bend;
	}
	bent->struck += struck.call != BENT_CALLS;
	pthread_mutex_unlock(&bent->lock);
	return struck;
}

static inline void bent_run(struct kvk_backend *backend, struct kvk_xfer *xfer)
{
	struct bent *bent = bent_of(backend);
	struct bend bend = bent_call(bent, xfer->op);

	if (bend.before)
		bend.before(bent, xfer);
	if (bend.error && xfer->op != KVK_XFER_CLOSE)
		xfer->result = bend.error;
	else
		bent->inner->ops->run(bent->inner, xfer);
	if (bend.after)
		bend.after(bent, xfer);
	pthread_mutex_lock(&bent->lock);
	if ((xfer->op == KVK_XFER_OPEN || xfer->op == KVK_XFER_CREATE) && xfer->result == 0)
		bent->places++;
	bent->places -= xfer->op == KVK_XFER_CLOSE;
	pthread_mutex_unlock(&bent->lock);
}

static inline int bent_load_file(struct kvk_backend *backend, const char *name, void **data_ret, uint64_t *bytes_ret,
				 uint64_t max_bytes)
{
	struct bent *bent = bent_of(backend);
	int err = bent_call(bent, BENT_LOAD).error;

	return err ? err : bent->inner->ops->load_file(bent->inner, name, data_ret, bytes_ret, max_bytes);
}

static inline int bent_save_file(struct kvk_backend *backend, const char *name, const void *data, uint64_t bytes, bool keep)
{
	struct bent *bent = bent_of(backend);
	int err = bent_call(bent, BENT_SAVE).error;

	return err ? err : bent->inner->ops->save_file(bent->inner, name, data, bytes, keep);
}

static inline int bent_list(struct kvk_backend *backend, const char *folder, struct kvk_names *names)
{
	struct bent *bent = bent_of(backend);
	int err = bent_call(bent, BENT_LIST).error;

	if (!err)
		err = bent->inner->ops->list(bent->inner, folder, names);
	if (bent->extra)
		assert_int_equal(kvk_names_add(names, bent->extra), 0);
	return err;
}

static inline int bent_list_stat(struct kvk_backend *backend, const char *folder, const struct kvk_listing *listing,
				 uint64_t *modified_ns)
{
	struct bent *bent = bent_of(backend);
	const struct kvk_stat stat = { .bytes = 1, .links = 1, .regular = true, .owned = !bent->extra_is_anothers };
	int err = bent_call(bent, BENT_LIST_STAT).error;

	if (!err)
		err = bent->inner->ops->list_stat(bent->inner, folder, listing, modified_ns);
	if (bent->extra && listing->wanted(listing->user, bent->extra))
		listing->visit(listing->user, bent->extra, &stat);
	return err;
}

static inline int bent_folder_time(struct kvk_backend *backend, const char *folder, uint64_t *modified_ns)
{
	struct bent *bent = bent_of(backend);
	int err = bent_call(bent, BENT_FOLDER_TIME).error;

	return err ? err : bent->inner->ops->folder_time(bent->inner, folder, modified_ns);
}

static inline int bent_now(struct kvk_backend *backend, uint64_t *now_ns)
{
	struct bent *bent = bent_of(backend);
	int err = bent_call(bent, BENT_NOW).error;

	if (!err)
		err = bent->inner->ops->now(bent->inner, now_ns);
	if (!err && bent->now_ns)
		*now_ns = bent->now_ns;
	return err;
}

static inline int bent_hold(struct kvk_backend *backend, bool exclusive)
{
	struct bent *bent = bent_of(backend);
	int err = bent_call(bent, exclusive ? BENT_HOLD_ALONE : BENT_HOLD_SHARED).error;

	return err ? err : bent->inner->ops->hold(bent->inner, exclusive);
}

static inline int bent_lock(struct kvk_backend *backend, uint32_t byte, uint32_t wait_ms)
{
	struct bent *bent = bent_of(backend);
	int err = bent_call(bent, BENT_LOCK).error;

	return err ? err : bent->inner->ops->lock(bent->inner, byte, wait_ms);
}

static inline int bent_sweep(struct kvk_backend *backend, const char *name)
{
	struct kvk_backend *inner = bent_of(backend)->inner;

	return inner->ops->sweep(inner, name);
}

static const struct kvk_backend_ops bent_ops = {
	.name = "bent",
	.run = bent_run,
	.load_file = bent_load_file,
	.save_file = bent_save_file,
	.list = bent_list,
	.list_stat = bent_list_stat,
	.folder_time = bent_folder_time,
	.now = bent_now,
	.hold = bent_hold,
	.lock = bent_lock,
	.sweep = bent_sweep,
};

static inline void bent_open(struct bent *bent)
{
	const struct kvk_backend_options options = { .create = true };

	memset(bent, 0, sizeof(*bent));
	assert_int_equal(kvk_backend_ram.open(&bent->inner, &options, NULL), 0);
	bent->base.ops = &bent_ops;
	kvk_syncs_init(&bent->base.syncs);
	bent->base.caps = bent->inner->caps;
	pthread_mutex_init(&bent->lock, NULL);
}

static inline void bent_close(struct bent *bent)
{
	assert_int_equal(bent->places, 0);
	bent->inner->ops->close(bent->inner);
	pthread_mutex_destroy(&bent->lock);
}

/* These, and no others, from now on. NULL: none. */
static inline void bent_set(struct bent *bent, const struct bend *bends, unsigned count)
{
	pthread_mutex_lock(&bent->lock);
	memset(bent->bends, 0, sizeof(bent->bends));
	if (count)
		memcpy(bent->bends, bends, count * sizeof(*bends));
	memset(bent->calls, 0, sizeof(bent->calls));
	bent->struck = 0;
	pthread_mutex_unlock(&bent->lock);
}

#define BEND(bent, ...) bent_set((bent), &(struct bend){ __VA_ARGS__ }, 1)
#define STRAIGHT(bent) bent_set((bent), NULL, 0)

/* ---- straight to the medium --------------------------------------------------------------------- */

static inline int64_t bent_step(struct bent *bent, enum kvk_xfer_op op, const char *name, const char *name2)
{
	struct kvk_xfer xfer;

	kvk_xfer_init(&xfer, op, NULL, name);
	xfer.name2 = name2;
	bent->inner->ops->run(bent->inner, &xfer);
	return xfer.result;
}

/* The file's length, or -errno. */
static inline int64_t bent_bytes(struct bent *bent, const char *name)
{
	struct kvk_xfer xfer;

	kvk_xfer_init(&xfer, KVK_XFER_STAT_NAME, NULL, name);
	bent->inner->ops->run(bent->inner, &xfer);
	return xfer.result < 0 ? xfer.result : (int64_t)xfer.stat.bytes;
}

/* A file of its own inode with these bytes, in the place of what is there. */
static inline void bent_file(struct bent *bent, const char *name, const void *data, uint64_t bytes)
{
	struct iovec iov = { (void *)(uintptr_t)data, bytes };
	struct kvk_xfer xfer, close;

	kvk_xfer_init(&xfer, KVK_XFER_CREATE, NULL, name);
	bent->inner->ops->run(bent->inner, &xfer);
	assert_int_equal(xfer.result, 0);
	kvk_xfer_init(&close, KVK_XFER_CLOSE, xfer.place, NULL);
	xfer.op = KVK_XFER_WRITE;
	xfer.iov = &iov;
	xfer.iov_count = bytes > 0;
	bent->inner->ops->run(bent->inner, &xfer);
	assert_int_equal(xfer.result, bytes);
	bent_step(bent, KVK_XFER_UNLINK, name, NULL);
	xfer.op = KVK_XFER_PUBLISH;
	bent->inner->ops->run(bent->inner, &xfer);
	assert_int_equal(xfer.result, 0);
	bent->inner->ops->run(bent->inner, &close);
}

/* What the file holds, to be freed. */
static inline uint8_t *bent_read(struct bent *bent, const char *name, uint64_t *bytes_ret)
{
	struct kvk_xfer xfer, close;
	struct iovec iov;

	kvk_xfer_init(&xfer, KVK_XFER_OPEN, NULL, name);
	bent->inner->ops->run(bent->inner, &xfer);
	assert_int_equal(xfer.result, 0);
	kvk_xfer_init(&close, KVK_XFER_CLOSE, xfer.place, NULL);
	iov = (struct iovec){ malloc(xfer.stat.bytes + 1), xfer.stat.bytes };
	assert_non_null(iov.iov_base);
	xfer.op = KVK_XFER_READ;
	xfer.iov = &iov;
	xfer.iov_count = 1;
	bent->inner->ops->run(bent->inner, &xfer);
	assert_int_equal(xfer.result, xfer.stat.bytes);
	*bytes_ret = xfer.stat.bytes;
	bent->inner->ops->run(bent->inner, &close);
	return iov.iov_base;
}

/* What somebody else does, or what befalls the request, at a call. */
static inline void bent_removes(struct bent *bent, struct kvk_xfer *xfer)
{
	bent_step(bent, KVK_XFER_UNLINK, bent->name, NULL);
}

static inline void bent_publishes(struct bent *bent, struct kvk_xfer *xfer)
{
	bent_file(bent, bent->name, bent->data, bent->bytes);
}

static inline void bent_is_late(struct bent *bent, struct kvk_xfer *xfer)
{
	atomic_store(&bent->request->op.deadline_us, 1);
}

static inline void bent_cancels(struct bent *bent, struct kvk_xfer *xfer)
{
	atomic_store(&bent->request->op.canceled, true);
}

static inline void bent_answers(struct bent *bent, struct kvk_xfer *xfer)
{
	kvk_op_answer(&bent->request->op, -ETIMEDOUT);
}

/* Flips bits of a byte of the file where it is; the inode stays. */
static inline void bent_xor(struct bent *bent, const char *name, uint64_t offset_bytes, uint8_t bits)
{
	struct kvk_xfer xfer, close;
	struct iovec iov;
	uint8_t byte;

	kvk_xfer_init(&xfer, KVK_XFER_OPEN, NULL, name);
	xfer.flags = KVK_XFER_WRITABLE;
	bent->inner->ops->run(bent->inner, &xfer);
	assert_int_equal(xfer.result, 0);
	kvk_xfer_init(&close, KVK_XFER_CLOSE, xfer.place, NULL);
	xfer.iov = &iov;
	xfer.iov_count = 1;
	xfer.offset_bytes = offset_bytes;
	for (int write = 0; write < 2; write++) {
		iov = (struct iovec){ &byte, 1 };
		if (write)
			byte ^= bits;
		xfer.op = write ? KVK_XFER_WRITE : KVK_XFER_READ;
		bent->inner->ops->run(bent->inner, &xfer);
		assert_int_equal(xfer.result, 1);
	}
	bent->inner->ops->run(bent->inner, &close);
}

static inline void bent_flip(struct bent *bent, const char *name, uint64_t offset_bytes)
{
	bent_xor(bent, name, offset_bytes, 1);
}

/* How many files lie in this folder. */
static inline unsigned bent_count(struct bent *bent, const char *folder)
{
	struct kvk_names names = { 0 };
	unsigned count;

	bent->inner->ops->list(bent->inner, folder, &names);
	count = names.count;
	kvk_names_release(&names);
	return count;
}

#endif
