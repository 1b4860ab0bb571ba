/* SPDX-License-Identifier: Apache-2.0 */
/* The ring of the posix backend. What this machine forbids is skipped, and said. */
#include <errno.h>
#include <liburing.h>
#include <pthread.h>
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

static int refusing_init(unsigned entries, struct io_uring *ring, struct io_uring_params *params)
{
	if (refuse_count) {
		refuse_count--;
		return refuse_error;
	}
	return io_uring_queue_init_params(entries, ring, params);
}

static void open_backend(struct bench *bench, bool direct)
{
	struct kvk_backend_options options = {
		.path = bench->root, .create = true, .ring = true, .direct = direct, .writer_id = 0x77,
	};
	struct kvk_error error = { 0 };

	if (kvk_backend_posix.open(&bench->backend, &options, &error))
		fail_msg("%s: %s", error.option, error.text);
}

static struct bench *bench_new(const char *where, bool direct)
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

static int setup(void **state)
{
	*state = bench_new("/tmp", false);
	return 0;
}

static int setup_direct(void **state)
{
	*state = bench_new("/tmp", true);
	return 0;
}

/* A file system whose files cannot say whether they would wait: io_uring ends their O_NONBLOCK reads with -EAGAIN. */
static int setup_tmpfs(void **state)
{
	*state = access("/dev/shm", W_OK) ? NULL : bench_new("/dev/shm", false);
	return 0;
}

static int teardown(void **state)
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

static struct bench *need_ring(void **state)
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

static void fill(unsigned char *data, uint64_t bytes, uint64_t seed)
{
	for (uint64_t i = 0; i < bytes; i += 8) {
		uint64_t word = (seed + i + 1) * 0x9e3779b97f4a7c15u;

		memcpy(data + i, &word, 8);
	}
}

/* Lets transfers end until wanted of them are done; a ring that hangs fails here. */
static void turn_until(struct bench *bench, uint32_t wanted)
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

static int64_t through_ring(struct bench *bench, struct kvk_xfer *xfer)
{
	assert_int_equal(kvk_posix_ring.put(bench->ring, xfer), 0);
	turn_until(bench, 1);
	return xfer->result;
}

static int64_t plain(struct bench *bench, enum kvk_xfer_op op, struct kvk_place **place, const char *name)
{
	struct kvk_xfer xfer;

	kvk_xfer_init(&xfer, op, *place, name);
	kvk_posix_run(bench->backend, &xfer);
	*place = xfer.place;
	return xfer.result;
}

static int64_t move_piece(struct bench *bench, enum kvk_xfer_op op, struct kvk_place *place, void *data, uint64_t bytes,
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
static void put_object(struct bench *bench)
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

static struct kvk_place *open_object(struct bench *bench)
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

/* Every set of flags that an older kernel would leave us with. */
static void test_older_kernels(void **state)
{
	struct bench *bench = need_ring(state);
	bool ran = false;

	kvk_posix_ring.close(bench->ring);
	bench->ring = NULL;
	for (unsigned refused = 0; refused < 16; refused++) {
		struct kvk_place *place;
		int err;

		refuse_count = refused;
		refuse_error = -EINVAL;
		err = kvk_posix_ring.open(&bench->ring, bench->backend, DEPTH, 0);
		if (err) {
			assert_int_equal(err, -EINVAL);
			assert_int_equal(refused, 6);
			ran = true;
			break;
		}
		if (refused == 0)
			put_object(bench);
		memset(bench->memory, 0, PIECE_BYTES);
		place = open_object(bench);
		assert_int_equal(move_piece(bench, KVK_XFER_READ, place, bench->memory, PIECE_BYTES, PIECE_BYTES, -1),
				 PIECE_BYTES);
		assert_memory_equal(bench->memory, bench->memory + PIECE_BYTES, PIECE_BYTES);
		assert_int_equal(plain(bench, KVK_XFER_CLOSE, &place, NULL), 0);
		kvk_posix_ring.close(bench->ring);
		bench->ring = NULL;
	}
	assert_true(ran);
}

/* Where rings are forbidden the backend opens all the same and says why there are none. */
static void test_forbidden(void **state)
{
	struct bench *bench = *state;
	static const int errors[] = { -EPERM, -ENOSYS, -ENOMEM, -EMFILE };

	kvk_posix_ring.close(bench->ring);
	bench->ring = NULL;
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		struct kvk_place *place = NULL;

		kvk_backend_posix.close(bench->backend);
		refuse_count = 1;
		refuse_error = errors[i];
		open_backend(bench, false);
		assert_int_equal(refuse_count, 0);
		assert_true(bench->backend->caps.ring_note[0]);
		assert_int_equal(plain(bench, KVK_XFER_CREATE, &place, NAME), 0);
		assert_int_equal(plain(bench, KVK_XFER_CLOSE, &place, NULL), 0);
		refuse_count = 1;
		assert_int_equal(kvk_posix_ring.open(&bench->ring, bench->backend, DEPTH, 0), errors[i]);
	}
}

static void test_wait_and_wake(void **state)
{
	struct bench *bench = need_ring(state);
	struct kvk_link finished;
	uint64_t start_us;

	kvk_list_init(&finished);
	start_us = kvk_now_us();
	kvk_posix_ring.turn(bench->ring, &finished, 20000);
	assert_true(kvk_now_us() - start_us >= 19000);
	start_us = kvk_now_us();
	kvk_posix_ring.wake(bench->ring);
	kvk_posix_ring.turn(bench->ring, &finished, WAIT_US);
	assert_true(kvk_now_us() - start_us < WAIT_US / 2);
	/* The wake-up is used up. */
	start_us = kvk_now_us();
	kvk_posix_ring.turn(bench->ring, &finished, 20000);
	assert_true(kvk_now_us() - start_us >= 19000);
	assert_true(kvk_list_empty(&finished));
}

#define PINGS 20000u
#define WAKERS 2u

struct pinger {
	struct kvk_ring *ring;
	_Atomic uint32_t asked;
	_Atomic uint32_t answered;
};

static void *ping(void *user)
{
	struct pinger *pinger = user;

	for (uint32_t i = 1; i <= PINGS; i++) {
		uint64_t limit_us = kvk_now_us() + 2 * WAIT_US;

		atomic_store(&pinger->asked, i);
		kvk_posix_ring.wake(pinger->ring);
		while (atomic_load(&pinger->answered) != i && kvk_now_us() < limit_us)
			sched_yield();
	}
	return NULL;
}

static void ping_from(struct bench *bench, uint32_t wakers)
{
	struct pinger pingers[WAKERS];
	pthread_t threads[WAKERS];
	struct kvk_link finished;
	uint32_t done = 0;

	kvk_list_init(&finished);
	for (uint32_t i = 0; i < wakers; i++) {
		pingers[i].ring = bench->ring;
		atomic_init(&pingers[i].asked, 0);
		atomic_init(&pingers[i].answered, 0);
		assert_int_equal(pthread_create(&threads[i], NULL, ping, &pingers[i]), 0);
	}
	while (done < wakers * PINGS) {
		uint64_t start_us = kvk_now_us();

		kvk_posix_ring.turn(bench->ring, &finished, WAIT_US);
		if (kvk_now_us() - start_us >= WAIT_US)
			fail_msg("nobody woke the ring after %u of %u", done, wakers * PINGS);
		for (uint32_t i = 0; i < wakers; i++) {
			uint32_t asked = atomic_load(&pingers[i].asked);

			if (asked != atomic_load(&pingers[i].answered)) {
				atomic_store(&pingers[i].answered, asked);
				done++;
			}
		}
	}
	for (uint32_t i = 0; i < wakers; i++)
		pthread_join(threads[i], NULL);
}

/*
 * No wake-up is lost. Method: threads ask and wait for the answer before they ask again; the lane looks for what is
 * asked, and then waits so long that a lost wake-up shows. Alone, because a second thread's wake-up would
 * cover for a lost one; and two, because they meet in wake().
 */
static void test_wake_never_lost(void **state)
{
	struct bench *bench = need_ring(state);

	for (uint32_t wakers = 1; wakers <= WAKERS; wakers++)
		ping_from(bench, wakers);
}

/* A read that would never end: of a pipe into which nobody writes. */
static void test_cancel(void **state)
{
	struct bench *bench = need_ring(state);
	struct kvk_place place = { .folder_fd = -1 };
	struct iovec iov = { bench->memory, 4096 };
	struct kvk_link finished;
	struct kvk_xfer xfer;
	int fds[2];

	assert_int_equal(pipe(fds), 0);
	place.fd = fds[0];
	kvk_list_init(&finished);
	for (unsigned before = 0; before < 2; before++) {
		kvk_xfer_init(&xfer, KVK_XFER_READ, &place, NULL);
		xfer.iov = &iov;
		xfer.iov_count = 1;
		assert_int_equal(kvk_posix_ring.put(bench->ring, &xfer), 0);
		if (before)
			kvk_posix_ring.turn(bench->ring, &finished, 1000);
		assert_true(kvk_list_empty(&finished));
		kvk_posix_ring.cancel(bench->ring, &xfer);
		kvk_posix_ring.cancel(bench->ring, &xfer);
		turn_until(bench, 1);
		assert_int_equal(xfer.result, -ECANCELED);
	}
	close(fds[0]);
	close(fds[1]);
}

static void test_allocation_fails(void **state)
{
	struct bench *bench = need_ring(state);
	uint32_t before;
	bool failed = true;

	put_object(bench);
	before = open_descriptors();
	for (uint64_t nth = 1; failed; nth++) {
		struct kvk_ring *ring = NULL;
		struct kvk_xfer xfer;
		int err;

		kvk_mem_fail_nth(nth, false);
		err = kvk_posix_ring.open(&ring, bench->backend, 2, 0);
		if (!err) {
			kvk_xfer_init(&xfer, KVK_XFER_OPEN, NULL, NAME);
			err = (int)through_ring(bench, &xfer);
			if (!err)
				assert_int_equal(plain(bench, KVK_XFER_CLOSE, &xfer.place, NULL), 0);
			else
				assert_null(xfer.place);
		}
		failed = kvk_mem_has_failed();
		kvk_mem_fail_nth(0, false);
		assert_int_equal(err, failed ? -ENOMEM : 0);
		kvk_posix_ring.close(ring);
	}
	assert_int_equal(open_descriptors(), before);
}

/* A child lets go of its copy; the parent's ring, with a read under way, does not notice. */
static void test_fork(void **state)
{
	struct bench *bench = need_ring(state);
	struct kvk_place place = { .folder_fd = -1 };
	struct iovec iov = { bench->memory, 4096 };
	struct kvk_link finished;
	struct kvk_xfer xfer;
	int fds[2], status;
	pid_t child;

	assert_int_equal(pipe(fds), 0);
	place.fd = fds[0];
	kvk_xfer_init(&xfer, KVK_XFER_READ, &place, NULL);
	xfer.iov = &iov;
	xfer.iov_count = 1;
	assert_int_equal(kvk_posix_ring.put(bench->ring, &xfer), 0);
	kvk_list_init(&finished);
	kvk_posix_ring.turn(bench->ring, &finished, 1000);
	child = fork();
	if (child == 0) {
		kvk_posix_ring.close(bench->ring);
		kvk_backend_posix.close(bench->backend);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	kvk_posix_ring.turn(bench->ring, &finished, 1000);
	assert_true(kvk_list_empty(&finished));
	assert_int_equal(write(fds[1], "x", 1), 1);
	turn_until(bench, 1);
	assert_int_equal(xfer.result, 1);
	close(fds[0]);
	close(fds[1]);
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
	cmocka_unit_test_setup_teardown(test_older_kernels, setup, teardown),
	cmocka_unit_test_setup_teardown(test_forbidden, setup, teardown),
	cmocka_unit_test_setup_teardown(test_wait_and_wake, setup, teardown),
	cmocka_unit_test_setup_teardown(test_wake_never_lost, setup, teardown),
	cmocka_unit_test_setup_teardown(test_cancel, setup, teardown),
	cmocka_unit_test_setup_teardown(test_allocation_fails, setup, teardown),
	cmocka_unit_test_setup_teardown(test_fork, setup, teardown),
};

int main(void)
{
	return cmocka_run_group_tests(tests, NULL, NULL);
}
