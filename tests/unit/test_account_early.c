/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one process has published and not posted, and another one removes and credits: in the end nothing of it is charged. Time
 * is the test's own.
 */
#include "support/skip.h"

#include <sys/syscall.h>

#include "account_bed.h"

#define MS UINT64_C(1000000)

static uint64_t wall = UINT64_C(1700000000) * 1000 * MS, since_boot = UINT64_C(5000) * 1000 * MS;

/* In place of the C library's, for the account in this program. */
int clock_gettime(clockid_t clock, struct timespec *now)
{
	uint64_t ns = clock == CLOCK_REALTIME_COARSE ? wall : clock == CLOCK_MONOTONIC_COARSE ? since_boot : 0;

	if (!ns)
		return (int)syscall(SYS_clock_gettime, clock, now);
	*now = (struct timespec){ .tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000) };
	return 0;
}

static void pass_ms(uint64_t ms)
{
	wall += ms * MS;
	since_boot += ms * MS;
}

static int setup(void **state)
{
	static struct bed beds[2];
	static unsigned count;
	struct bed *bed = &beds[count++ % 2];

	bed_start(bed, &kvk_backend_ram);
	*state = bed;
	return 0;
}

static int teardown(void **state)
{
	bed_end(*state);
	return 0;
}

static uint64_t used_of(struct process *process)
{
	uint64_t used, cap;

	kvk_account_usage(process->account, &used, &cap);
	return used;
}

static uint64_t settled_of(struct process *process)
{
	struct kvk_account_row rows[4];
	uint32_t count = kvk_account_rows(process->account, rows, 4);

	for (uint32_t i = 0; i < count; i++) {
		if (rows[i].self)
			return rows[i].settled_ns;
	}
	return 0;
}

/* Others lie in the same folder, or none. */
static void a_credit_comes_before_the_charge(void **state)
{
	struct process one, two;

	start(&one, *state);
	start(&two, *state);
	visit(&one, 20 * MIB, 0, false);
	visit(&two, 20 * MIB, 0, false);
	for (uint64_t others = 0; others < 2; others++) {
		uint64_t charged = others * MIB, unlinked_ns;

		publish(&one, 3, 3 * MIB);
		pass_ms(100);
		unlinked_ns = wall;
		unlinks(&two, 3, 3 * MIB);
		pass_ms(100);
		sync_and_visit(&two);
		assert_true(charged_of(&two) == 0);
		/* Nothing of it waits for a sync. */
		assert_false(kvk_account_has_credits(two.account));
		/* A listing shows it unlinked: it is not to be compared while some of it is still to be taken off. */
		assert_true(settled_of(&two) < unlinked_ns);
		for (int turns = 0; turns < 6; turns++) {
			pass_ms(250);
			visit(&two, 0, 0, false);
			assert_true(settled_of(&two) < unlinked_ns);
		}
		visit(&one, 0, 0, false);
		assert_true(charged_of(&one) == 3 * MIB);
		visit(&two, 0, 0, false);
		assert_true(charged_of(&two) == charged);
		assert_true(used_of(&two) == charged);
		assert_true(settled_of(&two) > unlinked_ns);
		visit(&one, 0, 0, false);
		assert_true(used_of(&one) == charged);
		/* The second time something lies there already, less than is removed. */
		publish(&two, 3, MIB);
		visit(&two, 0, 0, false);
	}
	assert_true(charged_of(&one) == 2 * MIB);
	stop(&two);
	stop(&one);
}

/* What nobody ever posts (it was put there past the account) takes nothing off what is published later. */
static void what_nobody_posts_is_given_up(void **state)
{
	struct process one, two;
	uint64_t unlinked_ns;

	start(&one, *state);
	start(&two, *state);
	visit(&one, 20 * MIB, 0, false);
	visit(&two, 20 * MIB, 0, false);
	pass_ms(100);
	unlinked_ns = wall;
	unlinks(&two, 3, 5 * MIB);
	sync_and_visit(&two);
	pass_ms(2100);
	visit(&two, 0, 0, false);
	assert_true(settled_of(&two) > unlinked_ns);
	assert_true(used_of(&two) == 0);
	publish(&one, 3, 4 * MIB);
	visit(&one, 0, 0, false);
	visit(&two, 0, 0, false);
	assert_true(charged_of(&two) == 4 * MIB);
	assert_true(used_of(&two) == 4 * MIB);
	/* Who is alone knows at once that nobody will. */
	stop(&one);
	unlinks(&two, 7, 5 * MIB);
	sync_and_visit(&two);
	publish(&two, 7, 4 * MIB);
	visit(&two, 0, 0, false);
	assert_true(charged_of(&two) == 8 * MIB);
	stop(&two);
}

/* Where the write fails it is not certain whether it was taken off: it is charged rather than not. */
static void what_is_early_when_a_write_fails(void **state)
{
	struct kvk_fault_rule rules[] = {
		{ .kind = KVK_FAULT_FAIL, .ops = 1u << KVK_FAULT_UPDATE_FILE, .nth = 1, .error = EIO },
		{ .kind = KVK_FAULT_FAIL_AFTER, .ops = 1u << KVK_FAULT_UPDATE_FILE, .nth = 1, .error = EIO },
	};

	for (int applied = 0; applied < 2; applied++) {
		struct process one, two = { .bed = *state };
		struct kvk_account_visit failing = { 0 };

		start(&one, *state);
		assert_int_equal(kvk_fault_new(&two.backend, bed_backend(*state), 1), 0);
		assert_int_equal(kvk_account_open(&two.account, two.backend, CAP, true, &two.bed->log, NULL), 0);
		visit(&one, 20 * MIB, 0, false);
		visit(&two, 20 * MIB, 0, false);
		publish(&one, 3, 3 * MIB);
		unlinks(&two, 3, 3 * MIB);
		sync_and_visit(&two);
		visit(&one, 0, 0, false);
		assert_int_equal(kvk_fault_add(two.backend, &rules[applied]), 0);
		assert_int_equal(kvk_account_visit(two.account, &failing, 1000), -EIO);
		visit(&two, 0, 0, false);
		assert_true(charged_of(&one) == (applied ? 0 : 3 * MIB));
		assert_true(used_of(&two) == charged_of(&one));
		/* Taken off by hand: the next round begins with nothing. */
		unlinks(&two, 3, charged_of(&one));
		sync_and_visit(&two);
		assert_true(charged_of(&one) == 0);
		stop(&two);
		stop(&one);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_credit_comes_before_the_charge, setup, teardown),
		cmocka_unit_test_setup_teardown(what_nobody_posts_is_given_up, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_early_when_a_write_fails, setup, teardown),
	};

	return cmocka_run_group_tests_name("account_early", tests, NULL, NULL);
}
