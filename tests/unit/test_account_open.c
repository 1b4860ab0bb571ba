/* SPDX-License-Identifier: Apache-2.0 */
/* What an account needs of its surroundings when it is opened, and what it finds: names, numbers, locks, a file of any kind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/random.h>
#include <sys/syscall.h>

#include "account_bed.h"

#define OPTION "backend_params.file_path"

/* ---- what the C library answers ------------------------------------------------------------------------ */

static const char *host_name;          /* NULL: there is none to be had */
static ssize_t random_bytes = -2;      /* what the kernel gives instead; -2: what it has */
static unsigned zeros;                 /* so many numbers are 0 before that */

int gethostname(char *name, size_t bytes)
{
	if (!host_name)
		return -1;
	/* Does not end it where it does not fit. */
	strncpy(name, host_name, bytes);
	return 0;
}

ssize_t getrandom(void *buffer, size_t bytes, unsigned flags)
{
	if (random_bytes != -2)
		return random_bytes;
	if (zeros > 0) {
		zeros--;
		memset(buffer, 0, bytes);
		return (ssize_t)bytes;
	}
	return syscall(SYS_getrandom, buffer, bytes, flags);
}

/* ---- what the medium answers --------------------------------------------------------------------------- */

static struct kvk_backend_ops ops;     /* the bed's, but for these: */
static unsigned locks_left;            /* of the account; then it is another's */
static uint32_t waited_ms;
static int load_error, save_error;

static int lock_as_told(struct kvk_backend *backend, uint32_t byte, uint32_t wait_ms)
{
	if (byte == KVK_LOCK_ACCOUNT) {
		waited_ms = wait_ms;
		if (locks_left == 0)
			return -EBUSY;
		locks_left--;
	}
	return kvk_backend_ram.lock(backend, byte, wait_ms);
}

static int load_as_told(struct kvk_backend *backend, const char *name, void **data, uint64_t *bytes, uint64_t max_bytes)
{
	return load_error ? load_error : kvk_backend_ram.load_file(backend, name, data, bytes, max_bytes);
}

static int save_as_told(struct kvk_backend *backend, const char *name, const void *data, uint64_t bytes, bool keep)
{
	return save_error ? save_error : kvk_backend_ram.save_file(backend, name, data, bytes, keep);
}

static struct kvk_backend *backend_as_told(struct bed *bed)
{
	struct kvk_backend *backend = bed_backend(bed);

	backend->ops = &ops;
	return backend;
}

static int setup(void **state)
{
	static struct bed bed;

	bed_start(&bed, &kvk_backend_ram);
	*state = &bed;
	host_name = "a-host";
	random_bytes = -2;
	zeros = 0;
	ops = kvk_backend_ram;
	ops.lock = lock_as_told;
	ops.load_file = load_as_told;
	ops.save_file = save_as_told;
	locks_left = UINT32_MAX;
	load_error = save_error = 0;
	return 0;
}

static int setup_posix(void **state)
{
	static struct bed bed;

	setup(state);
	bed_end(*state);
	bed_start(&bed, &kvk_backend_posix);
	*state = &bed;
	return 0;
}

static int teardown(void **state)
{
	bed_end(*state);
	return 0;
}

/* ---- opening ------------------------------------------------------------------------------------------- */

/* An open that must fail so, and leaves nothing locked. */
static void expect_refused(struct bed *bed, int expected, const char *option, const char *said)
{
	struct kvk_backend *backend = backend_as_told(bed), *other = bed_backend(bed);
	struct kvk_error error = { .struct_bytes = sizeof(error) };
	struct kvk_account *account = NULL;
	int err = kvk_account_open(&account, backend, CAP, true, &bed->log, &error);

	if (err != expected || !strstr(error.text, said))
		fail_msg("%d, '%s': not %d, '%s'", err, error.text, expected, said);
	assert_null(account);
	assert_string_equal(error.option, option);
	assert_int_equal(other->ops->is_locked(other, KVK_LOCK_ACCOUNT), 0);
	for (uint32_t i = 0; i < KVK_ACCOUNT_ROWS; i++)
		assert_int_equal(other->ops->is_locked(other, i), 0);
	other->ops->close(other);
	backend->ops->close(backend);
}

/* What is shown to people is text, and short, whatever the machine is called. */
static void hosts_are_told_as_far_as_they_are_text(void **state)
{
	static const struct { const char *name, *told; } rows[] = {
		{ "node-1.example", "node-1.example" }, { "node 1", "node" }, { "node\n", "node" }, { "n\x7f", "n" }, { "\xc3\xa9", "" },
		{ "", "" }, { NULL, "" }, { "a-host-of-23-characters", "a-host-of-23-characters" },
		{ "a-host-of-24-characters-", "a-host-of-24-characters" },
	};
	char endless[300];

	memset(endless, 'x', sizeof(endless) - 1);
	endless[sizeof(endless) - 1] = '\0';
	for (unsigned i = 0; i <= sizeof(rows) / sizeof(rows[0]); i++) {
		bool last = i == sizeof(rows) / sizeof(rows[0]);
		struct kvk_account_row row;
		struct process one;

		host_name = last ? endless : rows[i].name;
		start(&one, *state);
		assert_int_equal(kvk_account_rows(one.account, &row, 1), 1);
		assert_string_equal(row.host, last ? "xxxxxxxxxxxxxxxxxxxxxxx" : rows[i].told);
		/* And in the file, which refuses what is no text. */
		assert_string_equal(image_of(&one)->rows[0].host, row.host);
		stop(&one);
	}
}

/* Two processes with one token would take each other's rows for their own; 0 is a free row. */
static void a_token_is_a_random_number(void **state)
{
	static const ssize_t refusals[] = { -1, 0, 7 };
	struct process one, two;

	for (unsigned i = 0; i < 3; i++) {
		random_bytes = refusals[i];
		expect_refused(*state, -EIO, "", "random");
	}
	random_bytes = -2;
	zeros = 3;
	start(&one, *state);
	assert_int_equal(zeros, 0);
	start(&two, *state);
	assert_true(image_of(&one)->rows[0].token != 0);
	assert_true(image_of(&one)->rows[0].token != image_of(&one)->rows[1].token);
	stop(&two);
	stop(&one);
}

static void an_open_waits_for_the_lock_and_no_longer(void **state)
{
	locks_left = 0;
	expect_refused(*state, -EBUSY, OPTION, "for 5 s");
	assert_int_equal(waited_ms, 5000);
}

static void an_account_that_cannot_be_read_is_told(void **state)
{
	static const struct { int err; const char *said; } rows[] = {
		{ -EIO, "cannot read .kvkeep/account: Input/output error" }, { -ENOMEM, "cannot read .kvkeep/account: Cannot allocate" },
		{ -EPROTO, "a newer version of kvkeep" },
	};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		load_error = rows[i].err;
		expect_refused(*state, rows[i].err, OPTION, rows[i].said);
	}
}

/* The row is there and counts; that its second copy takes its room on the medium now is a precaution. */
static void the_second_copy_is_not_waited_for(void **state)
{
	struct kvk_backend *backend = backend_as_told(*state);
	struct process one = { .bed = *state, .backend = backend };

	locks_left = 1;
	assert_int_equal(kvk_account_open(&one.account, backend, CAP, true, NULL, NULL), 0);
	assert_int_equal(locks_left, 0);
	assert_true(image_of(&one)->sequence == 1);
	locks_left = UINT32_MAX;
	assert_true(visit(&one, MIB, 0, false) == MIB);
	stop(&one);
}

/* Whoever settles the dead has a row's lock for a moment. */
static void a_row_that_is_locked_is_passed_over(void **state)
{
	struct kvk_backend *other = bed_backend(*state);
	struct kvk_account_row row;
	struct process one;

	start(&one, *state);
	stop(&one);
	assert_int_equal(other->ops->lock(other, 0, 0), 0);
	assert_int_equal(other->ops->lock(other, 1, 0), 0);
	start(&one, *state);
	assert_int_equal(kvk_account_rows(one.account, &row, 1), 1);
	assert_int_equal(row.index, 2);
	stop(&one);
	other->ops->close(other);
}

static void nothing_is_closed_twice(void **state)
{
	struct kvk_backend *other = bed_backend(*state);
	struct process one;

	kvk_account_retire(NULL, 0);
	kvk_account_close(NULL, 0);
	kvk_account_abandon(NULL);
	start(&one, *state);
	kvk_account_retire(one.account, 0);
	assert_int_equal(one.backend->ops->lock(one.backend, 0, 0), 0);
	kvk_account_retire(one.account, 0);
	assert_int_equal(other->ops->is_locked(other, 0), 1);
	other->ops->close(other);
	stop(&one);
}

/* ---- a file that is too long --------------------------------------------------------------------------- */

static void make_longer(struct process *process)
{
	assert_int_equal(process->backend->ops->update_file(process->backend, "account", 2 * KVK_ACCOUNT_BYTES, "more", 4), 0);
}

static bool needs_scan(struct process *process)
{
	struct kvk_account_visit seen = { .want_bytes = MIB };

	assert_int_equal(kvk_account_visit(process->account, &seen, 0), 0);
	assert_true(seen.granted_bytes == 0 || !seen.needs_scan);
	return seen.needs_scan;
}

/* What is written never reaches the end of such a file. If that stayed, no scan would ever be enough. */
static void a_file_that_is_too_long_is_counted_once(void **state)
{
	for (unsigned hosts = 0; hosts < 2; hosts++) {
		struct process one, two;
		uint64_t before_bytes;

		start(&one, *state);
		start(&two, *state);
		before_bytes = charged_of(&one);
		one.backend->caps.many_hosts = two.backend->caps.many_hosts = hosts;
		visit(&one, 10 * MIB, 0, false);
		visit(&two, 20 * MIB, 0, false);
		publish(&one, 1, 4 * MIB);
		make_longer(&one);
		assert_true(needs_scan(&one));
		assert_true(image_of(&two)->rows[1].lost);
		assert_true(needs_scan(&two));
		assert_int_equal(kvk_account_pass_begin(one.account), -EAGAIN);
		assert_true(needs_scan(&one));
		assert_int_equal(kvk_account_pass_begin(one.account), 0);
		assert_int_equal(kvk_account_pass_end(one.account), 0);
		assert_false(needs_scan(&one));
		visit(&two, 20 * MIB, 0, false);
		assert_true(charged_of(&one) == before_bytes + 4 * MIB && leased_of(&one) == 26 * MIB);
		stop(&two);
		stop(&one);
	}
}

/* Where it cannot be replaced now, loading goes on, and the next transaction tries again. */
static void a_file_that_is_too_long_and_stays(void **state)
{
	struct kvk_account_visit seen = { .want_bytes = MIB };
	struct process one = { .bed = *state, .backend = backend_as_told(*state) };

	assert_int_equal(kvk_account_open(&one.account, one.backend, CAP, true, NULL, NULL), 0);
	make_longer(&one);
	save_error = -ENOSPC;
	for (unsigned i = 0; i < 3; i++)
		assert_true(needs_scan(&one));
	save_error = 0;
	/* Somebody else takes the lock while it is given up. */
	locks_left = 1;
	assert_int_equal(kvk_account_visit(one.account, &seen, 7), -EBUSY);
	assert_int_equal(waited_ms, 7);
	locks_left = UINT32_MAX;
	assert_true(needs_scan(&one));
	assert_int_equal(kvk_account_pass_begin(one.account), 0);
	assert_int_equal(kvk_account_pass_end(one.account), 0);
	assert_false(needs_scan(&one));
	assert_true(leased_of(&one) == MIB);
	stop(&one);
}

#define ONE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ONE(hosts_are_told_as_far_as_they_are_text),
		ONE(a_token_is_a_random_number),
		ONE(an_open_waits_for_the_lock_and_no_longer),
		ONE(an_account_that_cannot_be_read_is_told),
		ONE(the_second_copy_is_not_waited_for),
		ONE(a_row_that_is_locked_is_passed_over),
		ONE(nothing_is_closed_twice),
		ONE(a_file_that_is_too_long_is_counted_once),
		cmocka_unit_test_setup_teardown(a_file_that_is_too_long_is_counted_once, setup_posix, teardown),
		ONE(a_file_that_is_too_long_and_stays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
