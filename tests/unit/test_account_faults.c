/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The account on a medium that fails. Whatever a write did that did not succeed: nothing is granted by it, the books are
 * never below what is there, and once writing works again they are exact.
 *
 * What a write posted that seemed to fail is not posted twice: every_write_fails is who notices (tests/mutants/race.txt).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "account_bed.h"
#include "backend/posix/posix_private.h"

#define BUCKET 5
#define UPDATES (1u << KVK_FAULT_UPDATE_FILE)

/* One process on a faulty medium, another that sees the truth of it, and what is really there. */
struct scene {
	struct bed bed;
	struct process one, other;
	uint64_t real_bytes;
	uint64_t lease_bytes;
	unsigned refused;
};

static void check_books(struct scene *scene, const char *when)
{
	uint64_t books = charged_of(&scene->other) + leased_of(&scene->other);

	if (scene->real_bytes > books || books > CAP)
		fail_msg("%s: there are %llu bytes, and %llu in the books", when, (unsigned long long)scene->real_bytes,
			 (unsigned long long)books);
}

static void raise_curtain(struct scene *scene)
{
	struct kvk_backend *fault;

	*scene = (struct scene){ 0 };
	bed_start(&scene->bed, &kvk_backend_ram);
	start(&scene->other, &scene->bed);
	scene->one = (struct process){ .bed = &scene->bed };
	assert_int_equal(kvk_fault_new(&fault, bed_backend(&scene->bed), 1), 0);
	scene->one.backend = fault;
}

static void drop_curtain(struct scene *scene)
{
	if (scene->one.account)
		stop(&scene->one);
	stop(&scene->other);
	bed_end(&scene->bed);
}

static void try_visit(struct scene *scene, uint64_t want_bytes, uint64_t give_bytes, bool synced)
{
	struct kvk_account_visit seen = { .want_bytes = want_bytes, .give_bytes = give_bytes, .synced = synced };
	int err = kvk_account_visit(scene->one.account, &seen, 0);

	if (err) {
		assert_int_equal(seen.granted_bytes, 0);
		scene->refused++;
	}
	assert_true(scene->lease_bytes >= give_bytes);
	scene->lease_bytes += seen.granted_bytes - give_bytes;
	check_books(scene, "after a visit");
}

static void try_publish(struct scene *scene, uint64_t bytes)
{
	if (scene->lease_bytes < bytes)
		return;
	scene->lease_bytes -= bytes;
	scene->real_bytes += bytes;
	publish(&scene->one, BUCKET, bytes);
	check_books(scene, "after publishing");
}

static void try_unlink(struct scene *scene, uint64_t bytes)
{
	if (scene->real_bytes < bytes)
		return;
	scene->real_bytes -= bytes;
	unlinks(&scene->one, BUCKET, bytes);
}

/* Another process takes all that there is, so that what was given too early would show. */
static void grab(struct scene *scene)
{
	struct kvk_account_visit seen = { .want_bytes = CAP };

	assert_int_equal(kvk_account_visit(scene->other.account, &seen, 0), 0);
	check_books(scene, "after another's lease");
	visit(&scene->other, 0, CAP, false);
}

static void act(struct scene *scene)
{
	assert_int_equal(kvk_account_open(&scene->one.account, scene->one.backend, CAP, true, &scene->bed.log, NULL), 0);
	try_visit(scene, 40 * MIB, 0, false);
	grab(scene);
	try_publish(scene, 10 * MIB);
	try_visit(scene, 20 * MIB, 0, false);
	try_publish(scene, 5 * MIB);
	try_visit(scene, 40 * MIB, 0, false);
	try_unlink(scene, 3 * MIB);
	kvk_account_sync_begin(scene->one.account);
	try_unlink(scene, 2 * MIB);
	try_visit(scene, 0, scene->lease_bytes / 2, true);
	grab(scene);
	try_publish(scene, MIB);
	try_visit(scene, 0, 0, false);
	kvk_account_sync_begin(scene->one.account);
	try_visit(scene, 30 * MIB, 0, true);
	try_publish(scene, 8 * MIB);
	grab(scene);
	try_visit(scene, 0, scene->lease_bytes, false);
	try_visit(scene, 0, 0, true);
	grab(scene);
}

/* At rest and on a medium that works. */
static void check_exact(struct scene *scene, const char *when)
{
	uint64_t used, cap, charged;

	kvk_fault_clear(scene->one.backend);
	kvk_account_sync_begin(scene->one.account);
	try_visit(scene, 0, 0, true);
	charged = charged_of(&scene->other);
	if (charged != scene->real_bytes)
		fail_msg("%s: charged are %llu bytes, there are %llu", when, (unsigned long long)charged,
			 (unsigned long long)scene->real_bytes);
	assert_true(leased_of(&scene->other) == scene->lease_bytes);
	kvk_account_usage(scene->one.account, &used, &cap);
	assert_true(used == charged && cap == CAP);
	assert_false(kvk_account_has_credits(scene->one.account));
}

static const struct kvk_fault_rule kinds[] = {
	{ .kind = KVK_FAULT_FAIL, .error = ENOSPC },
	{ .kind = KVK_FAULT_FAIL_AFTER, .error = EIO },
	{ .kind = KVK_FAULT_SHORTEN, .part_bytes = KVK_ACCOUNT_BYTES - 512 },
	{ .kind = KVK_FAULT_SHORTEN, .part_bytes = 16384 },
	{ .kind = KVK_FAULT_SHORTEN, .part_bytes = 1 },
};

/* Method: the first write fails, in a new run the second, until a run gets through. */
static void every_write_fails(void **state)
{
	for (size_t kind = 0; kind < sizeof(kinds) / sizeof(kinds[0]); kind++) {
		bool failed = true;

		for (uint64_t nth = 1; failed; nth++) {
			struct kvk_fault_rule rule = kinds[kind];
			struct scene scene;
			char when[64];

			raise_curtain(&scene);
			rule.ops = UPDATES;
			rule.nth = nth;
			rule.times = 1;
			assert_int_equal(kvk_fault_add(scene.one.backend, &rule), 0);
			act(&scene);
			failed = kvk_fault_struck(scene.one.backend);
			/* The first two are open's, which goes on without. */
			if (nth > 2)
				assert_int_equal(scene.refused, failed);
			assert_int_equal(scene.bed.warnings, failed);
			snprintf(when, sizeof(when), "kind %zu, write %llu", kind, (unsigned long long)nth);
			check_exact(&scene, when);
			drop_curtain(&scene);
			assert_true(nth < 100);
		}
	}
}

/* What a first write that failed leaves behind is no account that was lost: an empty store stays one. */
static void the_first_write_of_all_fails(void **state)
{
	for (size_t kind = 0; kind < sizeof(kinds) / sizeof(kinds[0]); kind++) {
		for (unsigned empty = 0; empty < 2; empty++) {
			struct kvk_account_visit seen = { .want_bytes = MIB };
			struct kvk_fault_rule rule = kinds[kind];
			struct process one = { 0 };
			struct bed bed;

			bed_start(&bed, &kvk_backend_ram);
			assert_int_equal(kvk_fault_new(&one.backend, bed_backend(&bed), 1), 0);
			rule.ops = UPDATES;
			rule.nth = 1;
			rule.times = 1;
			assert_int_equal(kvk_fault_add(one.backend, &rule), 0);
			assert_int_equal(kvk_account_open(&one.account, one.backend, CAP, empty, &bed.log, NULL), 0);
			assert_int_equal(kvk_fault_struck(one.backend), 1);
			assert_int_equal(kvk_account_visit(one.account, &seen, 0), 0);
			assert_int_equal(seen.needs_scan, !empty);
			assert_true(seen.granted_bytes == (empty ? MIB : 0) && seen.cap_bytes == CAP);
			stop(&one);
			bed_end(&bed);
		}
	}
}

/* Several in a row, with every mix: the books may be too high then, never too low. */
static void many_writes_fail(void **state)
{
	for (unsigned seed = 0; seed < 600; seed++) {
		struct scene scene;

		raise_curtain(&scene);
		for (size_t kind = 0; kind < sizeof(kinds) / sizeof(kinds[0]); kind++) {
			struct kvk_fault_rule rule = kinds[kind];

			rule.ops = UPDATES;
			rule.nth = 1 + (seed >> kind) % 5;
			rule.every = 2 + (seed * 7 >> kind) % 7;
			assert_int_equal(kvk_fault_add(scene.one.backend, &rule), 0);
		}
		act(&scene);
		assert_true(kvk_fault_struck(scene.one.backend) > 0);
		kvk_fault_clear(scene.one.backend);
		kvk_account_sync_begin(scene.one.account);
		try_visit(&scene, 0, 0, true);
		assert_true(charged_of(&scene.other) >= scene.real_bytes);
		assert_true(leased_of(&scene.other) == scene.lease_bytes);
		drop_curtain(&scene);
	}
}

/* After a sync that failed the kernel may show what is not on the disk, and lose it later: a write that was seen is gone. */
static void a_failed_write_is_seen_and_lost_again(void **state)
{
	for (unsigned credits = 0; credits < 2; credits++) {
		struct kvk_fault_rule rule = {
			.kind = KVK_FAULT_FAIL_AFTER, .ops = UPDATES, .error = EIO, .nth = 1, .every = 1, .times = 2,
		};
		struct scene scene;
		uint64_t bytes;
		void *before;

		raise_curtain(&scene);
		assert_int_equal(kvk_account_open(&scene.one.account, scene.one.backend, CAP, true, &scene.bed.log, NULL), 0);
		try_visit(&scene, 40 * MIB, 0, false);
		try_publish(&scene, 20 * MIB);
		try_visit(&scene, 40 * MIB, 0, false);
		assert_int_equal(scene.other.backend->ops->load_file(scene.other.backend, "account", &before, &bytes,
								     2 * KVK_ACCOUNT_BYTES), 0);
		if (credits)
			try_unlink(&scene, 6 * MIB);
		else
			try_publish(&scene, 6 * MIB);
		assert_int_equal(kvk_fault_add(scene.one.backend, &rule), 0);
		kvk_account_sync_begin(scene.one.account);
		try_visit(&scene, 0, 0, true);
		try_visit(&scene, 50 * MIB, 0, true);
		assert_int_equal(scene.refused, 2);
		assert_int_equal(scene.other.backend->ops->save_file(scene.other.backend, "account", before, bytes, false), 0);
		kvk_mem_free(before);
		kvk_account_sync_begin(scene.one.account);
		try_visit(&scene, 0, 0, true);
		assert_true(charged_of(&scene.other) >= scene.real_bytes);
		assert_false(kvk_account_has_credits(scene.one.account));
		drop_curtain(&scene);
	}
}

/* A medium that says it wrote and did not: what was posted last is known to the process, and a scan counts the rest. */
static void a_write_that_lied_needs_a_scan(void **state)
{
	struct kvk_fault_rule rule = { .kind = KVK_FAULT_CORRUPT, .ops = UPDATES, .nth = 1, .times = 1 };
	struct kvk_account_visit seen = { .want_bytes = 50 * MIB };
	struct scene scene;

	raise_curtain(&scene);
	assert_int_equal(kvk_account_open(&scene.one.account, scene.one.backend, CAP, true, &scene.bed.log, NULL), 0);
	try_visit(&scene, 40 * MIB, 0, false);
	try_publish(&scene, 20 * MIB);
	assert_int_equal(kvk_fault_add(scene.one.backend, &rule), 0);
	assert_int_equal(kvk_account_visit(scene.one.account, &seen, 0), 0);
	scene.lease_bytes += seen.granted_bytes;
	assert_int_equal(kvk_account_visit(scene.one.account, &seen, 0), 0);
	assert_true(seen.needs_scan && seen.granted_bytes == 0);
	check_books(&scene, "after the next visit");
	drop_curtain(&scene);
}

static void allocations_fail(void **state)
{
	struct scene scene;
	struct kvk_bucket_finding finding;
	bool failed = true;

	for (uint64_t nth = 1; failed; nth++) {
		int err;

		raise_curtain(&scene);
		kvk_mem_fail_nth(nth, false);
		err = kvk_account_open(&scene.one.account, scene.one.backend, CAP, true, &scene.bed.log, NULL);
		failed = kvk_mem_has_failed();
		kvk_mem_fail_nth(0, false);
		/* What fails while it writes is tried again. */
		assert_true(err == -ENOMEM || err == 0);
		assert_true(failed || err == 0);
		assert_true((err == 0) == (scene.one.account != NULL));
		if (!err) {
			kvk_account_close(scene.one.account, 0);
			act(&scene);
			check_exact(&scene, "an allocation of open failed");
		} else {
			scene.one.backend->ops->close(scene.one.backend);
		}
		drop_curtain(&scene);
	}

	raise_curtain(&scene);
	assert_int_equal(kvk_account_open(&scene.one.account, scene.one.backend, CAP, true, &scene.bed.log, NULL), 0);
	failed = true;
	for (uint64_t nth = 1; failed; nth++) {
		struct kvk_account_visit seen = { .want_bytes = MIB * nth };
		int err;

		kvk_mem_fail_nth(nth, false);
		err = kvk_account_visit(scene.one.account, &seen, 0);
		failed = kvk_mem_has_failed();
		kvk_mem_fail_nth(0, false);
		assert_int_equal(err, failed ? -ENOMEM : 0);
		scene.lease_bytes += seen.granted_bytes;
		check_books(&scene, "an allocation failed");
	}
	kvk_account_finding(scene.one.account, &finding, 0);
	kvk_mem_fail_nth(1, true);
	assert_int_equal(kvk_account_reconcile(scene.one.account, &finding, 1, 0), -ENOMEM);
	assert_int_equal(finding.status, -ENOMEM);
	assert_int_equal(kvk_account_pass_end(scene.one.account), -ENOMEM);
	assert_int_equal(kvk_account_set_cap(scene.one.account, 1), -ENOMEM);
	kvk_mem_fail_nth(0, false);
	check_exact(&scene, "allocations of visits failed");
	drop_curtain(&scene);
}

/* ---- files: each system call fails in turn ------------------------------------------------------------- */

static uint64_t calls_left;            /* the call that makes it 0 fails */
static int call_error;

static bool fails_now(void)
{
	return calls_left > 0 && --calls_left == 0;
}

#define FAILING(type, name, params, args) \
	static type failing_##name params { return fails_now() ? call_error : kvk_posix_sys_real.name args; }

FAILING(int, openat2, (int d, const char *p, const struct open_how *h), (d, p, h))
FAILING(int, openat, (int d, const char *p, int f, mode_t m), (d, p, f, m))
FAILING(int, statx, (int d, const char *p, int f, unsigned m, struct statx *s), (d, p, f, m, s))
FAILING(int64_t, preadv2, (int d, const struct iovec *v, int c, off_t o, int f), (d, v, c, o, f))
FAILING(int64_t, pwritev2, (int d, const struct iovec *v, int c, off_t o, int f), (d, v, c, o, f))
FAILING(int, fdatasync, (int d), (d))
FAILING(int, fsync, (int d), (d))
FAILING(int, lock_bytes, (int d, const struct flock *l), (d, l))

static void every_system_call_fails(void **state)
{
	static const int errors[] = { -EIO, -ENOSPC, -EMFILE };
	struct kvk_posix_sys sys = kvk_posix_sys_real;

	sys.openat2 = failing_openat2;
	sys.openat = failing_openat;
	sys.statx = failing_statx;
	sys.preadv2 = failing_preadv2;
	sys.pwritev2 = failing_pwritev2;
	sys.fdatasync = failing_fdatasync;
	sys.fsync = failing_fsync;
	sys.lock_bytes = failing_lock_bytes;
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		bool failed = true;

		for (uint64_t nth = 1; failed; nth++) {
			struct scene scene = { 0 };
			char when[64];
			int err;

			bed_start(&scene.bed, &kvk_backend_posix);
			start(&scene.other, &scene.bed);
			kvk_posix_sys_use(&sys);
			scene.one = (struct process){ .bed = &scene.bed, .backend = bed_backend(&scene.bed) };
			call_error = errors[i];
			calls_left = nth;
			err = kvk_account_open(&scene.one.account, scene.one.backend, CAP, true, &scene.bed.log, NULL);
			if (!err) {
				try_visit(&scene, 40 * MIB, 0, false);
				try_publish(&scene, 20 * MIB);
				try_visit(&scene, 40 * MIB, 0, false);
				try_unlink(&scene, 5 * MIB);
				kvk_account_sync_begin(scene.one.account);
				try_visit(&scene, 30 * MIB, 0, true);
			}
			failed = calls_left == 0;
			calls_left = 0;
			snprintf(when, sizeof(when), "error %d, call %llu", errors[i], (unsigned long long)nth);
			if (err) {
				assert_int_equal(err, errors[i]);
				assert_null(scene.one.account);
				scene.one.backend->ops->close(scene.one.backend);
			} else {
				kvk_account_sync_begin(scene.one.account);
				try_visit(&scene, 0, 0, true);
				if (charged_of(&scene.other) != scene.real_bytes)
					fail_msg("%s: charged are %llu bytes, there are %llu", when,
						 (unsigned long long)charged_of(&scene.other),
						 (unsigned long long)scene.real_bytes);
				assert_true(leased_of(&scene.other) == scene.lease_bytes);
				stop(&scene.one);
			}
			kvk_posix_sys_use(NULL);
			stop(&scene.other);
			bed_end(&scene.bed);
			assert_true(nth < 500);
		}
	}
}

/* Whoever looks is told what visits found, also while what they found cannot be written down. */
static void a_look_tells_what_visits_found(void **state)
{
	struct kvk_fault_rule fails = { .kind = KVK_FAULT_FAIL, .ops = UPDATES, .nth = 1, .every = 1, .error = EIO };
	struct kvk_account_row rows[4];
	struct scene scene;
	struct process dead;

	raise_curtain(&scene);
	assert_int_equal(kvk_account_open(&scene.one.account, scene.one.backend, CAP, true, &scene.bed.log, NULL), 0);
	try_visit(&scene, 40 * MIB, 0, false);
	start(&dead, &scene.bed);
	visit(&dead, 10 * MIB, 0, false);
	try_visit(&scene, 40 * MIB, 0, false);
	die(&dead);
	assert_int_equal(kvk_fault_add(scene.one.backend, &fails), 0);
	for (unsigned round = 0; round < 3; round++) {
		try_publish(&scene, 4 * MIB);
		assert_true(kvk_account_bucket(scene.one.account, BUCKET) == scene.real_bytes);
		try_unlink(&scene, MIB);
		assert_true(kvk_account_bucket(scene.one.account, BUCKET) == scene.real_bytes);
		kvk_account_sync_begin(scene.one.account);
		assert_true(kvk_account_bucket(scene.one.account, BUCKET) == scene.real_bytes);
		try_visit(&scene, 40 * MIB, 0, round > 0);
		assert_int_equal(scene.refused, round + 1);
		assert_true(kvk_account_bucket(scene.one.account, BUCKET) >= scene.real_bytes);
		assert_int_equal(kvk_account_rows(scene.one.account, rows, 4), 3);
		assert_true(rows[0].alive && rows[1].self && rows[1].alive && !rows[2].alive);
	}
	kvk_fault_clear(scene.one.backend);
	try_visit(&scene, 40 * MIB, 0, false);
	assert_int_equal(kvk_account_rows(scene.one.account, rows, 4), 2);
	/* Its row is somebody else's now. */
	start(&dead, &scene.bed);
	try_visit(&scene, 40 * MIB, 0, false);
	assert_int_equal(kvk_account_rows(scene.one.account, rows, 4), 3);
	assert_true(rows[0].alive && rows[1].alive && rows[2].alive);
	stop(&dead);
	drop_curtain(&scene);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_write_fails),
		cmocka_unit_test(the_first_write_of_all_fails),
		cmocka_unit_test(many_writes_fail),
		cmocka_unit_test(a_failed_write_is_seen_and_lost_again),
		cmocka_unit_test(a_write_that_lied_needs_a_scan),
		cmocka_unit_test(a_look_tells_what_visits_found),
		cmocka_unit_test(allocations_fail),
		cmocka_unit_test(every_system_call_fails),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
