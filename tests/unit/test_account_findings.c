/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Findings about a store whose account was lost, is not told the time, cannot be written, or lies elsewhere than thought: none of
 * them is written down before it is true, and all are once they are. Time is the test's own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "account_bed.h"
#include "account_clock.h"

/* The bed's, but for these: */
static struct kvk_backend_ops ops;
static bool mute;                      /* the medium does not tell its time */
static int write_error;

static int now_as_told(struct kvk_backend *backend, uint64_t *now_ns)
{
	return mute ? -EIO : kvk_backend_ram.now(backend, now_ns);
}

static int update_as_told(struct kvk_backend *backend, const char *name, uint64_t offset_bytes, const void *data, uint64_t bytes)
{
	return write_error ? write_error : kvk_backend_ram.update_file(backend, name, offset_bytes, data, bytes);
}

static void start_as_told(struct process *process, struct bed *bed)
{
	start(process, bed);
	process->backend->ops = &ops;
}

static int setup(void **state)
{
	static struct bed bed;

	bed_start(&bed, &kvk_backend_ram);
	*state = &bed;
	ops = kvk_backend_ram;
	ops.now = now_as_told;
	ops.update_file = update_as_told;
	mute = false;
	write_error = 0;
	go_on(100 * SECOND);
	return 0;
}

static int teardown(void **state)
{
	bed_end(*state);
	return 0;
}

static void lose(struct process *process)
{
	assert_int_equal(process->backend->ops->save_file(process->backend, "account", "", 0, false), 0);
}

/* Each has visited, and the keeper has seen it. */
static void settle(struct process *keeper, struct process *other)
{
	go_on(SECOND);
	visit(other, 0, 0, false);
	visit(keeper, 0, 0, false);
}

/* A listing of bucket 1 that is to be kept: the other posts to it meanwhile. */
static void find_and_keep(struct process *keeper, struct process *other, uint64_t real_bytes)
{
	struct kvk_bucket_finding finding;

	go_on(SECOND);
	kvk_account_finding(keeper->account, &finding, 1);
	finding.modified_ns = wall - 100 * MS;
	finding.real_bytes = real_bytes;
	finding.may_lower = true;
	publish(other, 1, MIB);
	visit(other, 0, 0, false);
	assert_int_equal(kvk_account_reconcile(keeper->account, &finding, 1, 0), 0);
	assert_int_equal(finding.status, -EAGAIN);
}

/* The folder changed just now, so that only what was kept can say something. */
static int find_too_early(struct process *keeper)
{
	return find(keeper, 1, wall - 10 * MS, 77 * MIB, true);
}

static void what_is_no_bucket(void **state)
{
	struct process one;

	start(&one, *state);
	go_on(SECOND);
	assert_int_equal(find(&one, KVK_ACCOUNT_BUCKETS - 1, wall - SECOND, MIB, true), 0);
	assert_int_equal(find(&one, KVK_ACCOUNT_BUCKETS, wall - SECOND, MIB, true), -EINVAL);
	assert_int_equal(find(&one, UINT32_MAX, wall - SECOND, MIB, true), -EINVAL);
	assert_true(charged_of(&one) == MIB);
	stop(&one);
}

/* What a row had posted before the account was lost nobody knows, whatever time stands in it. */
static void the_lost_have_not_settled(void **state)
{
	struct process keeper, other;
	uint64_t modified;

	start(&keeper, *state);
	start(&other, *state);
	visit(&other, 50 * MIB, 0, false);
	modified = wall;
	publish(&other, 1, 4 * MIB);
	go_on(SECOND);
	assert_int_equal(find(&keeper, 2, modified, 0, true), -EAGAIN);
	settle(&keeper, &other);
	lose(&keeper);
	visit(&keeper, 0, 0, false);
	assert_true(image_of(&keeper)->rows[1].lost && image_of(&keeper)->rows[1].settled_ns > modified);
	assert_int_equal(find(&keeper, 2, modified, MIB, true), -EAGAIN);
	assert_true(bucket_of(&keeper, 2) == 0);
	settle(&keeper, &other);
	assert_int_equal(find(&keeper, 2, modified, MIB, true), 0);
	assert_true(bucket_of(&keeper, 2) == MIB);
	stop(&other);
	stop(&keeper);
}

/* As long as not all has been counted, more may be there than is charged, and a bound is the best there is. */
static void a_bound_raises_while_the_account_is_lost(void **state)
{
	struct process keeper, other;

	start(&keeper, *state);
	start(&other, *state);
	visit(&other, 50 * MIB, 0, false);
	visit(&keeper, 0, 0, false);
	lose(&keeper);
	settle(&keeper, &other);
	settle(&keeper, &other);
	assert_true(image_of(&keeper)->needs_scan && charged_of(&keeper) == 0);
	find_and_keep(&keeper, &other, 8 * MIB);
	assert_true(charged_of(&keeper) == MIB);
	settle(&keeper, &other);
	assert_int_equal(find_too_early(&keeper), 1);
	assert_true(charged_of(&keeper) == 9 * MIB);
	/* The same again, and then less. */
	find_and_keep(&keeper, &other, 9 * MIB);
	settle(&keeper, &other);
	assert_int_equal(find_too_early(&keeper), 1);
	assert_true(charged_of(&keeper) == 10 * MIB);
	find_and_keep(&keeper, &other, 3 * MIB);
	settle(&keeper, &other);
	assert_int_equal(find_too_early(&keeper), 1);
	assert_true(charged_of(&keeper) == 4 * MIB && image_of(&keeper)->loose_bytes == 0);
	stop(&other);
	stop(&keeper);
}

/* What was kept for long bounds badly, and what was found in another account does not bound at all. */
static void what_was_kept_goes_out_of_date(void **state)
{
	for (unsigned how = 0; how < 3; how++) {
		struct process keeper, other;

		start(&keeper, *state);
		start(&other, *state);
		visit(&other, 50 * MIB, 0, false);
		visit(&keeper, 0, 0, false);
		find_and_keep(&keeper, &other, 2 * MIB);
		go_on(how == 1 ? 60 * SECOND : 50 * SECOND);
		if (how == 2)
			lose(&keeper);
		settle(&keeper, &other);
		settle(&keeper, &other);
		assert_int_equal(find_too_early(&keeper), how ? -ESTALE : 1);
		/* And it is forgotten. */
		assert_int_equal(find_too_early(&keeper), -ESTALE);
		stop(&other);
		stop(&keeper);
		bed_end(*state);
		setup(state);
	}
}

/* When the listing was judged is not known, so nobody can settle after it. */
static void nothing_is_kept_without_a_clock(void **state)
{
	struct kvk_bucket_finding finding;
	struct process keeper, other;

	start_as_told(&keeper, *state);
	start(&other, *state);
	visit(&other, 50 * MIB, 0, false);
	go_on(SECOND);
	kvk_account_finding(keeper.account, &finding, 1);
	finding.modified_ns = wall - 100 * MS;
	mute = true;
	assert_int_equal(kvk_account_reconcile(keeper.account, &finding, 1, 0), 0);
	assert_int_equal(finding.status, -EAGAIN);
	mute = false;
	settle(&keeper, &other);
	settle(&keeper, &other);
	assert_int_equal(find_too_early(&keeper), -ESTALE);
	stop(&other);
	stop(&keeper);
}

static void what_cannot_be_written_was_not_found(void **state)
{
	struct kvk_bucket_finding finding;
	struct process keeper, dead;

	start_as_told(&keeper, *state);
	start(&dead, *state);
	visit(&dead, 9 * MIB, 0, false);
	die(&dead);
	visit(&keeper, 0, 0, false);
	go_on(SECOND);
	kvk_account_finding(keeper.account, &finding, 1);
	finding.modified_ns = wall - 500 * MS;
	finding.real_bytes = 5 * MIB;
	finding.status = 1;
	write_error = -EIO;
	assert_int_equal(kvk_account_reconcile(keeper.account, &finding, 1, 0), -EIO);
	assert_int_equal(finding.status, -EIO);
	assert_int_equal(kvk_account_pass_begin(keeper.account), 0);
	assert_int_equal(kvk_account_pass_end(keeper.account), -EIO);
	assert_true(kvk_account_corrected(keeper.account) == 0);
	write_error = 0;
	assert_true(bucket_of(&keeper, 1) == 0 && image_of(&keeper)->loose_bytes == 9 * MIB);
	assert_int_equal(kvk_account_reconcile(keeper.account, &finding, 1, 0), 0);
	assert_int_equal(finding.status, 0);
	assert_true(bucket_of(&keeper, 1) == 5 * MIB && image_of(&keeper)->loose_bytes == 4 * MIB);
	assert_true(kvk_account_corrected(keeper.account) == 0);
	assert_int_equal(kvk_account_pass_begin(keeper.account), 0);
	assert_int_equal(kvk_account_pass_end(keeper.account), 0);
	assert_true(image_of(&keeper)->loose_bytes == 0 && kvk_account_corrected(keeper.account) == 4 * (int64_t)MIB);
	stop(&keeper);
}

/* It counted some of one account, and some of another, which was made in the same tick of the clock. */
static void a_pass_over_two_accounts_is_none(void **state)
{
	struct process one;

	start(&one, *state);
	assert_int_equal(kvk_account_pass_begin(one.account), 0);
	lose(&one);
	visit(&one, 0, 0, false);
	assert_int_equal(kvk_account_pass_end(one.account), -EAGAIN);
	assert_true(image_of(&one)->needs_scan);
	assert_int_equal(kvk_account_pass_begin(one.account), 0);
	assert_int_equal(kvk_account_pass_end(one.account), 0);
	assert_false(image_of(&one)->needs_scan);
	stop(&one);
}

/* Clocks tick seldom: what entered in the same tick as a look is not settled by it. */
static void what_entered_in_this_tick_is_under_way(void **state)
{
	struct process one;
	uint32_t entered;
	uint64_t at_ns;

	start(&one, *state);
	visit(&one, 0, 0, false);
	at_ns = wall;
	entered = kvk_account_enter(one.account);
	assert_true(kvk_account_is_entered(one.account));
	for (uint64_t i = 1; i < 40; i++) {
		visit(&one, i * MIB, 0, false);
		assert_true(image_of(&one)->rows[0].settled_ns + 20 * MS <= at_ns);
		go_on(i / 20 * SECOND);
	}
	kvk_account_leave(one.account, entered);
	assert_false(kvk_account_is_entered(one.account));
	visit(&one, 50 * MIB, 0, false);
	assert_true(image_of(&one)->rows[0].settled_ns > at_ns);
	stop(&one);
}

static void write_image(struct process *process, const struct kvk_account_image *image)
{
	static uint8_t data[2 * KVK_ACCOUNT_BYTES];

	kvk_account_encode(image, data);
	memcpy(data + KVK_ACCOUNT_BYTES, data, KVK_ACCOUNT_BYTES);
	assert_int_equal(process->backend->ops->save_file(process->backend, "account", data, sizeof(data), false), 0);
}

/* Somebody removed the file of locks, and another process has the row now: its lease is not ours to change. */
static void a_row_that_is_anothers_is_left_alone(void **state)
{
	static struct kvk_account_image before, others;
	struct kvk_account_visit seen = { .want_bytes = 20 * MIB };
	struct process one;

	start(&one, *state);
	visit(&one, 10 * MIB, 0, false);
	publish(&one, 1, 4 * MIB);
	before = others = *image_of(&one);
	others.rows[0].token ^= 1;
	others.rows[0].leased_bytes = 30 * MIB;
	write_image(&one, &others);
	assert_int_equal(kvk_account_visit(one.account, &seen, 0), -ESTALE);
	assert_true(seen.granted_bytes == 0);
	assert_int_equal(kvk_account_set_cap(one.account, 1), -ESTALE);
	assert_memory_equal(image_of(&one), &others, sizeof(others));
	/* Nothing of what was published in between is lost. */
	write_image(&one, &before);
	visit(&one, 10 * MIB, 0, false);
	assert_true(bucket_of(&one, 1) == 4 * MIB && leased_of(&one) == 10 * MIB);
	stop(&one);
}

/* Who made the store a moment ago, and finds an account that is none, cannot know what was stored meanwhile. */
static void what_is_damaged_is_no_empty_store(void **state)
{
	struct kvk_backend *backend = bed_backend(*state);
	struct process one;

	assert_int_equal(backend->ops->save_file(backend, "account", "no account", 10, false), 0);
	start(&one, *state);
	assert_true(image_of(&one)->needs_scan);
	assert_true(visit(&one, MIB, 0, false) == 0);
	stop(&one);
	backend->ops->close(backend);
}

/* More than any medium has: it stays the most there can be, so that the file can be read and sums do not overflow. */
static void no_bucket_has_more_than_there_can_be(void **state)
{
	struct process one;

	assert_int_equal(try_start(&one, *state, 0, true), 0);
	for (unsigned i = 0; i < 3; i++) {
		publish(&one, 1, KVK_ACCOUNT_VALUE_MAX - i * MIB);
		visit(&one, 0, 0, false);
		assert_true(bucket_of(&one, 1) == KVK_ACCOUNT_VALUE_MAX);
	}
	go_on(SECOND);
	assert_int_equal(find(&one, 2, wall - SECOND, UINT64_MAX, true), 0);
	assert_true(bucket_of(&one, 2) == KVK_ACCOUNT_VALUE_MAX);
	assert_int_equal(find(&one, 1, wall - SECOND, MIB, true), 0);
	assert_true(charged_of(&one) == KVK_ACCOUNT_VALUE_MAX + MIB);
	stop(&one);
}

#define ONE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ONE(what_is_no_bucket),
		ONE(the_lost_have_not_settled),
		ONE(a_bound_raises_while_the_account_is_lost),
		ONE(what_was_kept_goes_out_of_date),
		ONE(nothing_is_kept_without_a_clock),
		ONE(what_cannot_be_written_was_not_found),
		ONE(a_pass_over_two_accounts_is_none),
		ONE(what_entered_in_this_tick_is_under_way),
		ONE(a_row_that_is_anothers_is_left_alone),
		ONE(what_is_damaged_is_no_empty_store),
		ONE(no_bucket_has_more_than_there_can_be),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
