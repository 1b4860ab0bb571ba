/* SPDX-License-Identifier: Apache-2.0 */
/* Closing a store while something of it is under way, slow, or hangs. */
#include <sys/wait.h>
#include <time.h>

#include "unit/store_kit.h"

#define MIB (UINT64_C(1) << 20)

static void sleep_ms(long ms)
{
	struct timespec left = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

	nanosleep(&left, NULL);
}

/* The sync of a batch is in a worker's hands when the store is closed: what it points to must outlive it. A sanitizer
 * tells if not. */
static void closing_during_a_batch_sync(void **state)
{
	struct bed *bed = *state;

	bed_open(bed, "\"durability\": \"batch\", \"batch_seconds\": 0.1, \"fault\": [{\"do\": \"delay\", "
		 "\"ops\": [\"sync_all\"], \"nth\": 1, \"delay_ms\": 1000}]");
	assert_int_equal(bed_put(bed->store, "a", 4096, 1, NULL), 0);
	for (int tries = 0; kvk_fault_struck(bed_backend(bed->store)) == 0 && tries < 100; tries++)
		sleep_ms(20);
	assert_int_equal(kvk_fault_struck(bed_backend(bed->store)), 1);
	assert_int_equal(bed_close(bed), 0);
}

static int close_stuck(struct bed *bed)
{
	struct kvk_fault_rule late = { .kind = KVK_FAULT_DELAY, .ops = 1u << KVK_XFER_READ, .nth = 1, .every = 1,
				       .delay_us = 3600000000u };
	struct kvk_fault_rule stuck = { .kind = KVK_FAULT_HANG, .ops = 1u << KVK_XFER_PUBLISH, .nth = 1 };
	static _Alignas(4096) uint8_t in[MIB], out[4096];
	struct iovec in_iov = { .iov_base = in, .iov_len = sizeof(in) };
	struct iovec out_iov = { .iov_base = out, .iov_len = sizeof(out) };
	struct kvk_get_item get = { .struct_bytes = sizeof(get), .flags = KVK_MEM_HELD, .key = bed_key("a"),
				    .data = &in_iov, .data_count = 1 };
	struct kvk_put_item put = { .struct_bytes = sizeof(put), .key = bed_key("b"), .data = &out_iov,
				    .data_count = 1 };

	bed_open(bed, "\"lanes\": 1, \"fault\": []");
	assert_int_equal(bed_put(bed->store, "a", MIB, 1, NULL), 0);
	assert_int_equal(kvk_fault_add(bed_backend(bed->store), &late), 0);
	assert_int_equal(kvk_fault_add(bed_backend(bed->store), &stuck), 0);
	assert_true(kvk_store_get(bed->store, &get, 1, 0) > 0);
	for (int tries = 0; kvk_fault_struck(bed_backend(bed->store)) == 0 && tries < 100; tries++)
		sleep_ms(20);
	assert_true(kvk_store_put(bed->store, &put, 1, 0) > 0);
	for (int tries = 0; kvk_fault_struck(bed_backend(bed->store)) < 2 && tries < 100; tries++)
		sleep_ms(20);
	assert_int_equal(kvk_fault_struck(bed_backend(bed->store)), 2);
	return bed_close(bed);
}

/*
 * The only lane is stuck in a system call, and its ring has a read into memory that was given with KVK_MEM_HELD: close must
 * not call that memory free. Method: a read that is late, then a publish that hangs; neither ends while the test runs.
 */
static void closing_with_a_stuck_lane_and_held_memory(void **state)
{
	struct bed *bed = *state;
	int status;
	pid_t child = fork();

	/* In a process of its own: a store whose medium hangs is given up with all that it holds. */
	if (child == 0)
		_exit(close_stuck(bed) == -ETIMEDOUT ? 0 : 1);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

/* What was removed just before a close is not charged after the next open, and what is there is. */
static void closing_credits_what_was_removed(void **state)
{
	struct bed *bed = *state;

	for (int round = 0; round < 3; round++) {
		bed_open(bed, "");
		assert_int_equal(bed_usage(bed->store).used_bytes, round ? 8192 : 0);
		assert_int_equal(bed_put(bed->store, "a", 4096, 1, NULL), 0);
		assert_int_equal(bed_put(bed->store, "b", 4096, 1, NULL), 0);
		assert_int_equal(bed_put(bed->store, "c", 1000000, 1, NULL), 0);
		assert_int_equal(bed_remove(bed->store, "c", NULL), 0);
		assert_int_equal(bed_remove(bed->store, "b", NULL), 0);
		assert_int_equal(bed_close(bed), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BED_TESTS_POSIX(closing_during_a_batch_sync), BED_TESTS_POSIX(closing_credits_what_was_removed),
		BED_TEST(closing_with_a_stuck_lane_and_held_memory, BED_URING_DIRECT, "io_uring, direct"),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
