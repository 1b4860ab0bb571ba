/* SPDX-License-Identifier: Apache-2.0 */
/* The ring of the posix backend. What this machine forbids is skipped, and said. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "uring_bench.h"

/* Plain, in several pieces of memory and into registered memory; at the end of the file it is short, then 0. */
static void test_round_trip(void **state)
{
	struct bench *bench = need_ring(state);
	unsigned char *wanted = kvk_mem_map(PIECE_BYTES);
	struct kvk_place *place;
	struct iovec iovs[2];
	struct kvk_xfer xfer;
	uint64_t end = PIECES * PIECE_BYTES;

	assert_non_null(wanted);
	put_object(bench);
	memcpy(wanted, bench->memory + 3 * PIECE_BYTES, PIECE_BYTES);
	memset(bench->memory, 0, bench->memory_bytes);
	place = open_object(bench);

	assert_int_equal(move_piece(bench, KVK_XFER_READ, place, bench->memory, PIECE_BYTES, 3 * PIECE_BYTES, -1),
			 PIECE_BYTES);
	assert_memory_equal(bench->memory, wanted, PIECE_BYTES);

	memset(bench->memory, 0, bench->memory_bytes);
	iovs[0] = (struct iovec){ bench->memory + 4096, 4096 };
	iovs[1] = (struct iovec){ bench->memory + 65536, PIECE_BYTES - 4096 };
	kvk_xfer_init(&xfer, KVK_XFER_READ, place, NULL);
	xfer.iov = iovs;
	xfer.iov_count = 2;
	xfer.offset_bytes = 3 * PIECE_BYTES;
	assert_int_equal(through_ring(bench, &xfer), PIECE_BYTES);
	assert_memory_equal(bench->memory + 4096, wanted, 4096);
	assert_memory_equal(bench->memory + 65536, wanted + 4096, PIECE_BYTES - 4096);

	assert_int_equal(move_piece(bench, KVK_XFER_READ, place, bench->memory, PIECE_BYTES, end - 4096, -1), 4096);
	assert_int_equal(move_piece(bench, KVK_XFER_READ, place, bench->memory, PIECE_BYTES, end, -1), 0);
	assert_int_equal(plain(bench, KVK_XFER_CLOSE, &place, NULL), 0);
	kvk_mem_unmap(wanted, PIECE_BYTES);
}

static void test_memory(void **state)
{
	struct bench *bench = need_ring(state);
	unsigned char *other;
	struct kvk_place *place;
	int err;

	put_object(bench);
	place = open_object(bench);
	err = kvk_posix_ring.set_memory(bench->ring, 2, bench->memory, bench->memory_bytes);
	if (err) {
		print_message("SKIP: memory cannot be registered: %s\n", strerror(-err));
		assert_int_equal(plain(bench, KVK_XFER_CLOSE, &place, NULL), 0);
		skip();
	}
	other = kvk_mem_map(PIECE_BYTES);
	assert_non_null(other);
	memset(bench->memory, 0, PIECE_BYTES);
	assert_int_equal(move_piece(bench, KVK_XFER_READ, place, bench->memory, PIECE_BYTES, PIECE_BYTES, 2),
			 PIECE_BYTES);
	assert_memory_equal(bench->memory, bench->memory + PIECE_BYTES, PIECE_BYTES);
	/* Not in that memory, or in none: refused, nothing is written. */
	assert_int_equal(move_piece(bench, KVK_XFER_READ, place, other, PIECE_BYTES, 0, 2), -EFAULT);
	assert_int_equal(move_piece(bench, KVK_XFER_READ, place, other, PIECE_BYTES, 0, 1), -EFAULT);
	assert_int_equal(other[0], 0);
	assert_int_equal(kvk_posix_ring.set_memory(bench->ring, 2, other, PIECE_BYTES), 0);
	assert_int_equal(move_piece(bench, KVK_XFER_READ, place, other, PIECE_BYTES, PIECE_BYTES, 2), PIECE_BYTES);
	assert_memory_equal(other, bench->memory, PIECE_BYTES);
	assert_int_equal(kvk_posix_ring.set_memory(bench->ring, 2, NULL, 0), 0);
	assert_int_equal(move_piece(bench, KVK_XFER_READ, place, other, PIECE_BYTES, 0, 2), -EFAULT);
	assert_int_equal(kvk_posix_ring.set_memory(bench->ring, 4, other, PIECE_BYTES), -EINVAL);
	assert_int_equal(plain(bench, KVK_XFER_CLOSE, &place, NULL), 0);
	kvk_mem_unmap(other, PIECE_BYTES);
}

/* An ordinary user may lock little memory: the ring says so, and plain transfers go on. */
static void test_memory_limit(void **state)
{
	struct bench *bench = need_ring(state);
	int status;
	pid_t child;

	if (geteuid()) {
		print_message("SKIP: only root can become an ordinary user\n");
		skip();
	}
	assert_int_equal(chown(bench->root, 65534, 65534), 0);
	child = fork();
	if (child == 0) {
		struct rlimit limit = { 65536, 65536 };
		struct kvk_backend_options options = { .create = true, .ring = true };
		struct kvk_backend *backend;
		struct kvk_ring *ring;
		char path[96];
		int err;

		snprintf(path, sizeof(path), "%s/own", bench->root);
		options.path = path;
		if (setrlimit(RLIMIT_MEMLOCK, &limit) || setgid(65534) || setuid(65534))
			_exit(10);
		if (kvk_backend_posix.open(&backend, &options, NULL))
			_exit(11);
		if (backend->caps.ring_note[0])
			_exit(12);
		if (kvk_posix_ring.open(&ring, backend, DEPTH, 4))
			_exit(13);
		err = kvk_posix_ring.set_memory(ring, 0, bench->memory, bench->memory_bytes);
		kvk_posix_ring.close(ring);
		backend->ops->close(backend);
		_exit(err == -ENOMEM ? 0 : 14);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(chown(bench->root, 0, 0), 0);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_open_refuses(void **state)
{
	struct bench *bench = need_ring(state);
	char command[512];
	static const struct {
		const char *name;
		int result;
	} cases[] = {
		{ "ab/missing", -ENOENT }, { "ab/link", -ELOOP }, { "linked/object.kv", -ELOOP },
		{ "ab/folder", -EISDIR }, { "ab/fifo", -EINVAL }, { "../x", -EXDEV }, { "/etc/passwd", -EXDEV },
		{ "ab/object.kv/x", -EINVAL },
	};

	put_object(bench);
	snprintf(command, sizeof(command), "cd '%s' && ln -s object.kv ab/link && ln -s ab linked && mkdir ab/folder "
		 "&& mkfifo ab/fifo", bench->root);
	assert_int_equal(system(command), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct kvk_xfer xfer;

		kvk_xfer_init(&xfer, KVK_XFER_OPEN, NULL, cases[i].name);
		if (through_ring(bench, &xfer) != cases[i].result)
			fail_msg("%s: %d, not %d", cases[i].name, (int)xfer.result, cases[i].result);
		assert_null(xfer.place);
	}
}

static void test_other_ops(void **state)
{
	struct bench *bench = need_ring(state);

	for (unsigned op = 0; op < KVK_XFER_OP_COUNT; op++) {
		struct kvk_xfer xfer;

		if (op == KVK_XFER_READ || op == KVK_XFER_WRITE || op == KVK_XFER_SYNC)
			continue;
		kvk_xfer_init(&xfer, op, NULL, NAME);
		xfer.flags = op == KVK_XFER_OPEN ? KVK_XFER_IF_CACHED : 0;
		assert_int_equal(kvk_posix_ring.put(bench->ring, &xfer), -EOPNOTSUPP);
	}
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
	{ "test_round_trip_direct", test_round_trip, setup_direct, teardown, NULL },
	{ "test_round_trip_tmpfs", test_round_trip, setup_tmpfs, teardown, NULL },
	cmocka_unit_test_setup_teardown(test_memory, setup, teardown),
	{ "test_memory_direct", test_memory, setup_direct, teardown, NULL },
	cmocka_unit_test_setup_teardown(test_memory_limit, setup, teardown),
	cmocka_unit_test_setup_teardown(test_open_refuses, setup, teardown),
	cmocka_unit_test_setup_teardown(test_other_ops, setup, teardown),
};

int main(void)
{
	return cmocka_run_group_tests(tests, NULL, NULL);
}
