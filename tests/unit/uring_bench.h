/* SPDX-License-Identifier: Apache-2.0 */
/* A posix backend with a ring. Included after cmocka.h. */
#ifndef KVK_TESTS_URING_BENCH_H
#define KVK_TESTS_URING_BENCH_H

#include <errno.h>
#include <liburing.h>
#include <string.h>
#include <unistd.h>

#include "backend/posix/posix_private.h"
#include "posix_help.h"
#include "util/alloc.h"
#include "util/clock.h"

#define DEPTH 8u
#define PIECE_BYTES 65536u
#define PIECES 64u
#define NAME "ab/object.kv"
#define WAIT_US 5000000u

struct bench {
	char root[64];
	struct kvk_backend *backend;
	struct kvk_ring *ring;
	struct kvk_posix_sys sys;
	unsigned char *memory;
	uint64_t memory_bytes;
};

/* For ring_init, which has no argument of its own: the flag sets to refuse, and how. */
static unsigned refuse_count;
static int refuse_error;

static inline int refusing_init(unsigned entries, struct io_uring *ring, struct io_uring_params *params)
{
	if (refuse_count) {
		refuse_count--;
		return refuse_error;
	}
	return io_uring_queue_init_params(entries, ring, params);
}

static inline void open_backend(struct bench *bench, bool direct)
{
	struct kvk_backend_options options = {
		.path = bench->root, .create = true, .ring = true, .direct = direct, .writer_id = 0x77,
	};
	struct kvk_error error = { 0 };

	if (kvk_backend_posix.open(&bench->backend, &options, &error))
		fail_msg("%s: %s", error.option, error.text);
}

static inline struct bench *bench_new(const char *where, bool direct)
{
	struct bench *bench = test_calloc(1, sizeof(*bench));

	snprintf(bench->root, sizeof(bench->root), "%s/kvk-uring-XXXXXX", where);
	assert_non_null(mkdtemp(bench->root));
	refuse_count = 0;
	bench->sys = kvk_posix_sys_real;
	bench->sys.ring_init = refusing_init;
	kvk_posix_sys_use(&bench->sys);
	open_backend(bench, direct);
	bench->memory_bytes = PIECES * PIECE_BYTES;
	bench->memory = kvk_mem_map(bench->memory_bytes);
	assert_non_null(bench->memory);
	if (!bench->backend->caps.ring_note[0])
		assert_int_equal(kvk_posix_ring.open(&bench->ring, bench->backend, DEPTH, 4), 0);
	return bench;
}

static inline int setup(void **state)
{
	*state = bench_new("/tmp", false);
	return 0;
}

static inline int setup_direct(void **state)
{
	*state = bench_new("/tmp", true);
	return 0;
}

/* A file system whose files cannot say whether they would wait: io_uring ends their O_NONBLOCK reads with -EAGAIN. */
static inline int setup_tmpfs(void **state)
{
	*state = access("/dev/shm", W_OK) ? NULL : bench_new("/dev/shm", false);
	return 0;
}

static inline int teardown(void **state)
{
	struct bench *bench = *state;

	if (!bench)
		return 0;
	kvk_posix_ring.close(bench->ring);
	kvk_backend_posix.close(bench->backend);
	kvk_posix_sys_use(NULL);
	kvk_mem_unmap(bench->memory, bench->memory_bytes);
	remove_tree(bench->root);
	test_free(bench);
	return 0;
}

static inline struct bench *need_ring(void **state)
{
	struct bench *bench = *state;

	if (!bench) {
		print_message("SKIP: no tmpfs at /dev/shm\n");
		skip();
	} else if (!bench->ring) {
		print_message("SKIP: %s\n", bench->backend->caps.ring_note);
		skip();
	}
	return bench;
}

static inline void fill(unsigned char *data, uint64_t bytes, uint64_t seed)
{
	for (uint64_t i = 0; i < bytes; i += 8) {
		uint64_t word = (seed + i + 1) * 0x9e3779b97f4a7c15u;

		memcpy(data + i, &word, 8);
	}
}

/* Lets transfers end until wanted of them are done; a ring that hangs fails here. */
static inline void turn_until(struct bench *bench, uint32_t wanted)
{
	struct kvk_link finished, *link;
	uint64_t limit_us = kvk_now_us() + WAIT_US;
	uint32_t count = 0;

	kvk_list_init(&finished);
	while (count < wanted) {
		if (kvk_now_us() > limit_us)
			fail_msg("%u of %u transfers ended", count, wanted);
		kvk_posix_ring.turn(bench->ring, &finished, 100000);
		while ((link = kvk_list_pop(&finished)))
			count++;
	}
	assert_int_equal(count, wanted);
}

static inline int64_t through_ring(struct bench *bench, struct kvk_xfer *xfer)
{
	assert_int_equal(kvk_posix_ring.put(bench->ring, xfer), 0);
	turn_until(bench, 1);
	return xfer->result;
}

static inline int64_t plain(struct bench *bench, enum kvk_xfer_op op, struct kvk_place **place, const char *name)
{
	struct kvk_xfer xfer;

	kvk_xfer_init(&xfer, op, *place, name);
	kvk_posix_run(bench->backend, &xfer);
	*place = xfer.place;
	return xfer.result;
}

static inline int64_t move_piece(struct bench *bench, enum kvk_xfer_op op, struct kvk_place *place, void *data, uint64_t bytes,
			  uint64_t offset, int32_t memory_index)
{
	struct iovec iov = { data, bytes };
	struct kvk_xfer xfer;

	kvk_xfer_init(&xfer, op, place, NULL);
	xfer.iov = &iov;
	xfer.iov_count = 1;
	xfer.offset_bytes = offset;
	xfer.memory_index = memory_index;
	return through_ring(bench, &xfer);
}

/* An object of PIECES pieces, written through the ring with a full queue. */
static inline void put_object(struct bench *bench)
{
	struct kvk_place *place = NULL;
	struct kvk_xfer xfers[PIECES];
	struct iovec iovs[PIECES];
	uint32_t put = 0, done = 0, refused = 0;

	fill(bench->memory, bench->memory_bytes, 1);
	assert_int_equal(plain(bench, KVK_XFER_CREATE, &place, NAME), 0);
	while (done < PIECES) {
		struct kvk_link finished, *link;

		for (; put < PIECES; put++) {
			uint64_t at = (uint64_t)put * PIECE_BYTES;
			int err;

			iovs[put] = (struct iovec){ bench->memory + at, PIECE_BYTES };
			kvk_xfer_init(&xfers[put], KVK_XFER_WRITE, place, NULL);
			xfers[put].iov = &iovs[put];
			xfers[put].iov_count = 1;
			xfers[put].offset_bytes = at;
			err = kvk_posix_ring.put(bench->ring, &xfers[put]);
			if (err) {
				assert_int_equal(err, -EAGAIN);
				assert_true(put - done == DEPTH);
				refused++;
				break;
			}
		}
		kvk_list_init(&finished);
		kvk_posix_ring.turn(bench->ring, &finished, WAIT_US);
		while ((link = kvk_list_pop(&finished))) {
			assert_int_equal(kvk_container_of(link, struct kvk_xfer, link)->result, PIECE_BYTES);
			done++;
		}
	}
	assert_true(refused > 0);
	{
		struct kvk_xfer sync;

		kvk_xfer_init(&sync, KVK_XFER_SYNC, place, NULL);
		assert_int_equal(through_ring(bench, &sync), 0);
	}
	assert_int_equal(plain(bench, KVK_XFER_PUBLISH, &place, NAME), 0);
	assert_int_equal(plain(bench, KVK_XFER_CLOSE, &place, NULL), 0);
}

static inline struct kvk_place *open_object(struct bench *bench)
{
	struct kvk_xfer xfer;

	kvk_xfer_init(&xfer, KVK_XFER_OPEN, NULL, NAME);
	assert_int_equal(through_ring(bench, &xfer), 0);
	assert_int_equal(xfer.stat.bytes, PIECES * PIECE_BYTES);
	assert_true(xfer.stat.regular);
	assert_true(xfer.stat.owned);
	assert_int_equal(xfer.stat.links, 1);
	return xfer.place;
}

#endif
