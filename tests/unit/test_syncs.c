/* SPDX-License-Identifier: Apache-2.0 */
/* A sync that ended well is told so when those that were under way with it have ended, and not before. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include "backend/syncs.h"

#define COUNT 4

struct fixture {
	struct kvk_syncs syncs;
	struct kvk_sync sync[COUNT];
};

static unsigned over;              /* a bit for each */
static struct kvk_sync *first;

static void is_over(struct kvk_sync *sync)
{
	over |= 1u << (sync - first);
}

static void begin(struct fixture *fixture, unsigned which)
{
	fixture->sync[which].over = is_over;
	kvk_sync_begin(&fixture->syncs, &fixture->sync[which]);
}

static bool end(struct fixture *fixture, unsigned which, int result)
{
	return kvk_sync_end(&fixture->syncs, &fixture->sync[which], result);
}

static int setup(void **state)
{
	struct fixture *fixture = test_calloc(1, sizeof(*fixture));

	kvk_syncs_init(&fixture->syncs);
	over = 0;
	first = fixture->sync;
	*state = fixture;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fixture = *state;

	kvk_syncs_settle(&fixture->syncs);
	kvk_syncs_release(&fixture->syncs);
	test_free(fixture);
	return 0;
}

static void test_alone(void **state)
{
	struct fixture *fixture = *state;

	begin(fixture, 0);
	assert_true(end(fixture, 0, 0));
	assert_int_equal(kvk_syncs_failed(&fixture->syncs), 0);
	begin(fixture, 0);
	assert_true(end(fixture, 0, -EIO));
	assert_int_equal(kvk_syncs_failed(&fixture->syncs), 1);
	assert_int_equal(over, 0);
}

/* Whichever began first; what begins afterwards is not waited for. */
static void test_together(void **state)
{
	struct fixture *fixture = *state;

	begin(fixture, 0);
	begin(fixture, 1);
	begin(fixture, 2);
	assert_false(end(fixture, 1, 0));
	begin(fixture, 3);
	assert_false(end(fixture, 0, 0));
	assert_int_equal(over, 0);
	/* The last that the second waited for; the first waits for the fourth as well. */
	assert_true(end(fixture, 2, -EIO));
	assert_int_equal(over, 1u << 1);
	assert_int_equal(kvk_syncs_failed(&fixture->syncs), 1);
	assert_true(end(fixture, 3, 0));
	assert_int_equal(over, 1u << 1 | 1u << 0);
}

/* Who wants no call is done at once, and waited for all the same. */
static void test_without_call(void **state)
{
	struct fixture *fixture = *state;

	begin(fixture, 0);
	begin(fixture, 1);
	fixture->sync[1].over = NULL;
	assert_false(end(fixture, 0, 0));
	assert_true(end(fixture, 1, 0));
	assert_int_equal(over, 1u << 0);
	begin(fixture, 0);
	begin(fixture, 1);
	fixture->sync[1].over = NULL;
	assert_true(end(fixture, 1, 0));
	assert_true(end(fixture, 0, 0));
}

/* What was not asked of the medium says nothing of it. */
static void test_failures(void **state)
{
	static const int none[] = { 0, -ECANCELED, -EAGAIN, -ENOENT, -EEXIST, -EMFILE, -ENFILE };
	static const int some[] = { -EIO, -ENOSPC, -EDQUOT, -EROFS, -ESTALE, -ENOMEM };
	struct fixture *fixture = *state;

	for (unsigned i = 0; i < sizeof(none) / sizeof(none[0]); i++)
		kvk_sync_tell(&fixture->syncs, none[i]);
	assert_int_equal(kvk_syncs_failed(&fixture->syncs), 0);
	for (unsigned i = 0; i < sizeof(some) / sizeof(some[0]); i++)
		kvk_sync_tell(&fixture->syncs, some[i]);
	assert_int_equal(kvk_syncs_failed(&fixture->syncs), sizeof(some) / sizeof(some[0]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(test_together, setup, teardown),
		cmocka_unit_test_setup_teardown(test_without_call, setup, teardown),
		cmocka_unit_test_setup_teardown(test_failures, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
