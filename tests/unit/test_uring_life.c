/* SPDX-License-Identifier: Apache-2.0 */
/* How rings come to be, wait, are woken and end. What this machine forbids is skipped, and said. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "uring_bench.h"

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
