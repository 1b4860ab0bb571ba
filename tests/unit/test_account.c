/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leases, charges, credits and rows, over a medium in memory and over files.
 *
 * What a dead process had leased is settled once, and only what the dead had: the_dead_leave_their_lease_until_a_pass and
 * the_sum_never_exceeds_the_cap fail when either is taken out (tests/mutants/race.txt).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>

#include "account_bed.h"

static int setup_ram(void **state)
{
	static struct bed bed;

	bed_start(&bed, &kvk_backend_ram);
	*state = &bed;
	return 0;
}

static int setup_posix(void **state)
{
	static struct bed bed;

	bed_start(&bed, &kvk_backend_posix);
	*state = &bed;
	return 0;
}

static int teardown(void **state)
{
	bed_end(*state);
	return 0;
}

static void a_lease_is_taken_used_and_given_back(void **state)
{
	struct kvk_account_visit seen = { .want_bytes = 40 * MIB };
	struct process one;
	uint64_t used, cap;
	bool alone = false;

	start(&one, *state);
	assert_true(kvk_account_epoch(one.account, &alone) == 1);
	assert_true(alone);
	assert_int_equal(kvk_account_visit(one.account, &seen, 0), 0);
	assert_true(seen.granted_bytes == 40 * MIB && seen.missing_bytes == 0 && seen.leased_bytes == 40 * MIB);
	assert_true(seen.charged_bytes == 0 && seen.cap_bytes == CAP && seen.epoch == 1 && seen.processes == 1);
	assert_false(seen.needs_scan);
	assert_true(leased_of(&one) == 40 * MIB);

	publish(&one, 7, 10 * MIB);
	publish(&one, KVK_BUCKET_QUARANTINE, MIB);
	kvk_account_usage(one.account, &used, &cap);
	assert_true(used == 11 * MIB && cap == CAP);
	assert_true(charged_of(&one) == 0);
	/* 29 of the 40 are left. */
	assert_true(visit(&one, 35 * MIB, 0, false) == 6 * MIB);
	assert_true(image_of(&one)->charged_bytes[7] == 10 * MIB);
	assert_true(image_of(&one)->charged_bytes[KVK_BUCKET_QUARANTINE] == MIB);
	assert_true(leased_of(&one) == 35 * MIB);
	kvk_account_usage(one.account, &used, &cap);
	assert_true(used == 11 * MIB);
	assert_true(visit(&one, 0, 30 * MIB, false) == 0);
	assert_true(leased_of(&one) == 5 * MIB);
	publish(&one, 8, 2 * MIB);
	stop(&one);

	/* The cap that was written down counts, and so do the charges. */
	assert_int_equal(try_start(&one, *state, 1, false), 0);
	assert_true(kvk_account_epoch(one.account, &alone) == 2);
	assert_true(charged_of(&one) == 13 * MIB && leased_of(&one) == 0);
	kvk_account_usage(one.account, &used, &cap);
	assert_true(used == 13 * MIB && cap == CAP);
	stop(&one);
}

/* Whoever asks, in whatever order: the sum stays below the cap, and the cap is used up. */
static void the_sum_never_exceeds_the_cap(void **state)
{
	struct process processes[5];
	uint64_t held[5] = { 0 }, charged = 0;
	unsigned random = 12345;

	for (unsigned i = 0; i < 5; i++)
		start(&processes[i], *state);
	for (unsigned step = 0; step < 400; step++) {
		unsigned i = (random = random * 1103515245 + 12345) >> 16 & 0x7fff;
		struct kvk_account_visit seen = { .want_bytes = (i >> 3) % 50 * MIB };

		i %= 5;
		if (step % 3 == 0 && held[i] > 0) {
			uint64_t bytes = held[i] / 4 & ~UINT64_C(4095);

			publish(&processes[i], step % 257, bytes);
			held[i] -= bytes;
			charged += bytes;
		} else if (step % 7 == 0) {
			seen.give_bytes = held[i] / 2;
			held[i] -= seen.give_bytes;
		}
		assert_int_equal(kvk_account_visit(processes[i].account, &seen, 0), 0);
		held[i] += seen.granted_bytes;
		assert_true(held[i] >= seen.want_bytes || held[i] + seen.missing_bytes == seen.want_bytes);
		assert_true(seen.charged_bytes + seen.leased_bytes <= CAP);
		if (seen.missing_bytes)
			assert_true(seen.charged_bytes + seen.leased_bytes == CAP);
		assert_true(seen.processes == 5);
	}
	for (unsigned i = 0; i < 5; i++)
		visit(&processes[i], 0, 0, false);
	assert_true(charged_of(&processes[0]) == charged);
	for (unsigned i = 0; i < 5; i++)
		assert_true(image_of(&processes[0])->rows[i].leased_bytes == held[i]);
	for (unsigned i = 0; i < 5; i++)
		stop(&processes[i]);
}

static void credits_wait_for_a_sync_that_began_later(void **state)
{
	struct process one;
	uint64_t used, cap;

	start(&one, *state);
	visit(&one, 50 * MIB, 0, false);
	publish(&one, 3, 20 * MIB);
	visit(&one, 0, 0, false);
	assert_false(kvk_account_has_credits(one.account));
	unlinks(&one, 3, 5 * MIB);
	assert_true(kvk_account_has_credits(one.account));
	kvk_account_usage(one.account, &used, &cap);
	assert_true(used == 15 * MIB);
	visit(&one, 0, 0, false);
	assert_true(charged_of(&one) == 20 * MIB);
	/* A sync nobody announced, or one that failed. */
	visit(&one, 0, 0, true);
	assert_true(charged_of(&one) == 20 * MIB);
	kvk_account_sync_begin(one.account);
	unlinks(&one, 3, 2 * MIB);
	visit(&one, 0, 0, false);
	assert_true(charged_of(&one) == 20 * MIB);
	visit(&one, 0, 0, true);
	assert_true(charged_of(&one) == 15 * MIB);
	assert_true(kvk_account_has_credits(one.account));
	kvk_account_usage(one.account, &used, &cap);
	assert_true(used == 13 * MIB);
	sync_and_visit(&one);
	assert_true(charged_of(&one) == 13 * MIB);
	assert_false(kvk_account_has_credits(one.account));
	/* What was never charged takes nothing off the others. */
	unlinks(&one, 4, MIB);
	sync_and_visit(&one);
	assert_true(charged_of(&one) == 13 * MIB);
	kvk_account_usage(one.account, &used, &cap);
	assert_true(used == 13 * MIB);
	stop(&one);
}

/* What had to be published all the same is charged, told once, and is no lease for ever after. */
static void what_is_published_beyond_the_lease_is_told(void **state)
{
	struct kvk_account_visit seen = { .want_bytes = CAP };
	struct process one;

	start(&one, *state);
	visit(&one, 10 * MIB, 0, false);
	publish(&one, 3, 14 * MIB);
	/* A transaction that is not a visit posts as well. */
	assert_int_equal(kvk_account_set_cap(one.account, CAP - MIB), 0);
	assert_true(charged_of(&one) == 14 * MIB && leased_of(&one) == 0);
	publish(&one, 4, MIB);
	assert_int_equal(kvk_account_visit(one.account, &seen, 0), 0);
	assert_true(kvk_account_take_overdrawn(one.account) == 5 * MIB && seen.charged_bytes == 15 * MIB);
	assert_true(seen.granted_bytes == CAP - 16 * MIB && leased_of(&one) == seen.granted_bytes);
	publish(&one, 4, seen.granted_bytes);
	seen.want_bytes = 0;
	assert_int_equal(kvk_account_visit(one.account, &seen, 0), 0);
	assert_true(kvk_account_take_overdrawn(one.account) == 0 && charged_of(&one) == CAP - MIB && leased_of(&one) == 0);
	stop(&one);
}

/* What a dead process had leased counts until a pass over all folders is over, and only what was loose before it. */
static void the_dead_leave_their_lease_until_a_pass(void **state)
{
	struct process one, two, three;
	struct kvk_account_visit seen = { .want_bytes = CAP };

	start(&one, *state);
	start(&two, *state);
	start(&three, *state);
	visit(&two, 30 * MIB, 0, false);
	visit(&three, 20 * MIB, 0, false);
	publish(&two, 9, 4 * MIB);
	die(&two);
	assert_int_equal(kvk_account_visit(one.account, &seen, 0), 0);
	assert_true(seen.granted_bytes == 50 * MIB && seen.missing_bytes == 50 * MIB && seen.charged_bytes == 30 * MIB);
	assert_true(seen.processes == 2);
	assert_true(image_of(&one)->loose_bytes == 30 * MIB);

	kvk_account_pass_begin(one.account);
	die(&three);
	visit(&one, 0, 0, false);
	assert_true(image_of(&one)->loose_bytes == 50 * MIB);
	assert_int_equal(kvk_account_pass_end(one.account), 0);
	assert_true(image_of(&one)->loose_bytes == 20 * MIB);
	kvk_account_pass_begin(one.account);
	assert_int_equal(kvk_account_pass_end(one.account), 0);
	assert_true(image_of(&one)->loose_bytes == 0);
	stop(&one);
}

static void an_open_settles_the_dead_and_counts(void **state)
{
	struct process one, two;
	bool alone = true;

	start(&one, *state);
	visit(&one, 30 * MIB, 0, false);
	start(&two, *state);
	assert_true(kvk_account_epoch(two.account, &alone) == 2);
	assert_false(alone);
	die(&one);
	die(&two);
	start(&one, *state);
	assert_true(kvk_account_epoch(one.account, &alone) == 3);
	assert_true(alone);
	assert_true(image_of(&one)->loose_bytes == 30 * MIB && leased_of(&one) == 0);
	stop(&one);
}

static void rows_tell_who_is_there(void **state)
{
	struct kvk_account_row rows[4];
	struct process one, two;
	char host[256] = "";

	gethostname(host, sizeof(host) - 1);
	start(&one, *state);
	start(&two, *state);
	visit(&two, 30 * MIB, 0, false);
	visit(&one, 10 * MIB, 0, false);
	assert_int_equal(kvk_account_rows(one.account, rows, 4), 2);
	assert_true(rows[0].self && rows[0].alive && rows[0].leased_bytes == 10 * MIB && rows[0].index == 0);
	assert_true(!rows[1].self && rows[1].alive && rows[1].leased_bytes == 30 * MIB && rows[1].index == 1);
	assert_int_equal(rows[0].pid, getpid());
	assert_memory_equal(rows[0].host, host, strnlen(host, 23));
	assert_true(rows[0].settled_ns <= wall_ns() && rows[0].settled_ns + 10000000000u > wall_ns());
	die(&two);
	/* As of the last visit: nobody is asked. */
	assert_int_equal(kvk_account_rows(one.account, rows, 4), 2);
	assert_true(rows[1].alive);
	assert_int_equal(kvk_account_rows(one.account, rows, 0), 2);
	visit(&one, 0, 0, false);
	assert_int_equal(kvk_account_rows(one.account, rows, 4), 1);
	stop(&one);
}

static void a_cap_changes_for_all(void **state)
{
	struct process one, two;
	struct kvk_account_visit seen = { .want_bytes = 90 * MIB };

	start(&one, *state);
	start(&two, *state);
	visit(&one, 50 * MIB, 0, false);
	assert_int_equal(kvk_account_set_cap(one.account, 60 * MIB), 0);
	assert_int_equal(kvk_account_visit(two.account, &seen, 0), 0);
	assert_true(seen.granted_bytes == 10 * MIB && seen.cap_bytes == 60 * MIB);
	/* Below what is leased already: nobody loses it, nobody gets more. */
	assert_int_equal(kvk_account_set_cap(two.account, 20 * MIB), 0);
	assert_true(visit(&one, 90 * MIB, 0, false) == 0);
	assert_int_equal(kvk_account_set_cap(two.account, 0), 0);
	assert_true(visit(&one, 900 * MIB, 0, false) == 850 * MIB);
	stop(&one);
	stop(&two);
	start(&one, *state);
	assert_true(image_of(&one)->cap_bytes == 0);
	stop(&one);
}

/* What does not change anything reads only. */
static void an_idle_visit_writes_nothing(void **state)
{
	struct process one, two;
	uint64_t sequence;

	start(&one, *state);
	start(&two, *state);
	visit(&one, 10 * MIB, 0, false);
	sequence = image_of(&one)->sequence;
	for (unsigned i = 0; i < 5; i++) {
		let_time_pass();
		visit(&one, 10 * MIB, 0, false);
		visit(&two, 0, 0, false);
	}
	assert_true(image_of(&one)->sequence == sequence);
	stop(&one);
	stop(&two);
}

static void the_lock_is_waited_for_and_no_longer(void **state)
{
	struct kvk_account_visit seen = { .want_bytes = MIB, .granted_bytes = 1 };
	struct process one;
	struct kvk_backend *other;

	start(&one, *state);
	other = bed_backend(*state);
	publish(&one, 1, MIB);
	assert_int_equal(other->ops->lock(other, KVK_LOCK_ACCOUNT, 0), 0);
	assert_int_equal(kvk_account_visit(one.account, &seen, 3), -EBUSY);
	assert_true(seen.granted_bytes == 0);
	other->ops->unlock(other, KVK_LOCK_ACCOUNT);
	assert_true(visit(&one, MIB, 0, false) == MIB);
	assert_true(charged_of(&one) == MIB);
	other->ops->close(other);
	stop(&one);
}

/* A row that could not be given back is settled by the next who comes, and who was in a call then does not take it again. */
static void a_close_that_cannot_visit_leaves_its_row(void **state)
{
	struct kvk_backend *other;
	struct process one, two;

	start(&one, *state);
	start(&two, *state);
	visit(&one, 10 * MIB, 0, false);
	publish(&one, 1, MIB);
	other = bed_backend(*state);
	assert_int_equal(other->ops->lock(other, KVK_LOCK_ACCOUNT, 0), 0);
	kvk_account_retire(one.account, 2);
	other->ops->close(other);
	assert_int_equal(kvk_account_set_cap(one.account, 2 * CAP), -ESHUTDOWN);
	visit(&two, 0, 0, false);
	assert_true(image_of(&two)->loose_bytes == 10 * MIB);
	stop(&one);
	stop(&two);
}

static void the_257th_is_told(void **state)
{
	struct process *processes = test_calloc(257, sizeof(*processes));
	struct bed *bed = *state;
	struct kvk_error error = { .struct_bytes = sizeof(error) };
	struct kvk_backend *backend;
	struct kvk_account *account = NULL;

	for (unsigned i = 0; i < 256; i++)
		start(&processes[i], bed);
	backend = bed_backend(bed);
	assert_int_equal(kvk_account_open(&account, backend, CAP, false, NULL, &error), -EUSERS);
	assert_null(account);
	assert_non_null(strstr(error.text, "256 processes"));
	assert_string_equal(error.option, "backend_params.file_path");
	visit(&processes[255], MIB, 0, false);
	/* One that died makes room. */
	die(&processes[100]);
	assert_int_equal(kvk_account_open(&account, backend, CAP, false, NULL, &error), 0);
	assert_int_equal(image_of(&processes[0])->rows[100].token != 0, 1);
	kvk_account_close(account, 100);
	backend->ops->close(backend);
	for (unsigned i = 0; i < 256; i++) {
		if (i != 100)
			stop(&processes[i]);
	}
	test_free(processes);
}

/* ---- threads ------------------------------------------------------------------------------------------- */

#define THREADS 4
#define ROUNDS 20000u

struct worker {
	pthread_t thread;
	struct process *process;
	uint32_t number;
};

static void *work(void *argument)
{
	struct worker *worker = argument;

	for (uint32_t i = 0; i < ROUNDS; i++) {
		uint32_t entered = kvk_account_enter(worker->process->account);

		kvk_account_published(worker->process->account, (i * 7 + worker->number) % KVK_ACCOUNT_BUCKETS, 4096);
		if (i % 2)
			kvk_account_unlinked(worker->process->account, (i * 7 + worker->number) % KVK_ACCOUNT_BUCKETS, 4096);
		kvk_account_leave(worker->process->account, entered);
	}
	return NULL;
}

/* Nothing is lost or counted twice while visits go on. */
static void threads_publish_while_it_visits(void **state)
{
	struct worker workers[THREADS];
	struct process one;
	uint64_t used, cap;

	assert_int_equal(try_start(&one, *state, 0, true), 0);
	assert_true(visit(&one, THREADS * ROUNDS * 4096ul, 0, false) == THREADS * ROUNDS * 4096ul);
	for (uint32_t i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){ .process = &one, .number = i };
		assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
	}
	for (unsigned i = 0; i < 200; i++) {
		sync_and_visit(&one);
		assert_true(image_of(&one)->rows[0].settled_ns <= wall_ns());
		kvk_account_usage(one.account, &used, &cap);
		assert_true(used <= THREADS * ROUNDS * 4096ul);
	}
	for (uint32_t i = 0; i < THREADS; i++)
		pthread_join(workers[i].thread, NULL);
	sync_and_visit(&one);
	kvk_account_usage(one.account, &used, &cap);
	assert_true(charged_of(&one) == THREADS * ROUNDS / 2 * 4096ul);
	assert_true(used == THREADS * ROUNDS / 2 * 4096ul);
	assert_true(leased_of(&one) == 0);
	assert_false(kvk_account_has_credits(one.account));
	stop(&one);
}

/* ---- a file that is lost ------------------------------------------------------------------------------- */

static void damage(struct process *process, unsigned how)
{
	struct kvk_backend *backend = process->backend;
	static uint8_t data[2 * KVK_ACCOUNT_BYTES];
	uint64_t bytes;
	void *old;

	assert_int_equal(backend->ops->load_file(backend, "account", &old, &bytes, sizeof(data)), 0);
	memcpy(data, old, bytes);
	kvk_mem_free(old);
	data[4000] ^= 1;
	data[KVK_ACCOUNT_BYTES + 20000] ^= 1;
	assert_int_equal(backend->ops->save_file(backend, "account", data, how == 0 ? bytes : how == 1 ? 0 : 3 * how, false),
			 0);
}

/* Who comes then and made the store himself cannot know that: it is an empty one only if nobody lives who has leased. */
static void a_lost_account_of_the_living_is_no_empty_one(void **state)
{
	struct process one, two;
	struct kvk_xfer unlink;

	start(&one, *state);
	visit(&one, 30 * MIB, 0, false);
	kvk_xfer_init(&unlink, KVK_XFER_UNLINK, NULL, ".kvkeep/account");
	one.backend->ops->run(one.backend, &unlink);
	assert_int_equal(unlink.result, 0);
	assert_int_equal(try_start(&two, *state, CAP, true), 0);
	assert_true(image_of(&two)->needs_scan);
	assert_true(visit(&two, CAP, 0, false) == 0);
	stop(&two);
	stop(&one);
}

/* Nothing is leased until a pass has counted, and what is loose or found then counts. */
static void a_lost_account_waits_for_a_scan(void **state)
{
	struct bed *bed = *state;

	for (unsigned how = 0; how < 3; how++) {
		struct kvk_account_visit seen = { .want_bytes = 10 * MIB };
		struct kvk_bucket_finding finding;
		struct process one;

		start(&one, bed);
		visit(&one, 30 * MIB, 0, false);
		publish(&one, 5, 20 * MIB);
		visit(&one, 0, 0, false);
		damage(&one, how);
		die(&one);
		bed->warnings = 0;
		assert_int_equal(try_start(&one, bed, CAP, false), 0);
		assert_int_equal(bed->warnings, 1);
		assert_int_equal(kvk_account_visit(one.account, &seen, 0), 0);
		assert_true(seen.needs_scan && seen.granted_bytes == 0 && seen.missing_bytes == 10 * MIB);
		kvk_account_pass_begin(one.account);
		kvk_account_finding(one.account, &finding, 5);
		finding.modified_ns = finding.begin_ns - 1000000000u;
		finding.real_bytes = 20 * MIB;
		assert_int_equal(kvk_account_reconcile(one.account, &finding, 1, 0), 0);
		assert_int_equal(finding.status, 0);
		assert_int_equal(kvk_account_pass_end(one.account), 0);
		assert_true(visit(&one, 10 * MIB, 0, false) == 10 * MIB);
		assert_true(charged_of(&one) == 20 * MIB);
		kvk_account_finding(one.account, &finding, 5);
		finding.modified_ns = finding.begin_ns - 1000000000u;
		finding.may_lower = true;
		assert_int_equal(kvk_account_reconcile(one.account, &finding, 1, 0), 0);
		assert_true(charged_of(&one) == 0);
		stop(&one);
	}
}

/* While processes live: their leases come back at their visits, and no pass ends before all did. */
static void a_lost_account_finds_its_processes_again(void **state)
{
	struct bed *bed = *state;

	for (unsigned how = 0; how < 3; how++) {
		struct process one, two, three;

		start(&one, bed);
		start(&two, bed);
		visit(&one, 10 * MIB, 0, false);
		visit(&two, 20 * MIB, 0, false);
		publish(&one, 1, MIB);
		publish(&two, 2, 2 * MIB);
		damage(&one, how);
		assert_int_equal(try_start(&three, bed, CAP, false), 0);
		assert_true(image_of(&three)->needs_scan && image_of(&three)->rows[0].lost && image_of(&three)->rows[1].lost);
		assert_int_equal(kvk_account_rows(three.account, NULL, 0), 3);
		kvk_account_pass_begin(three.account);
		assert_true(visit(&one, 50 * MIB, 0, false) == 0);
		assert_true(image_of(&three)->rows[0].leased_bytes == 9 * MIB && !image_of(&three)->rows[0].lost);
		assert_int_equal(kvk_account_pass_end(three.account), -EAGAIN);
		visit(&two, 0, 0, false);
		assert_true(image_of(&three)->rows[1].leased_bytes == 18 * MIB);
		assert_int_equal(kvk_account_pass_end(three.account), -EAGAIN);
		visit(&three, 0, 0, false);
		kvk_account_pass_begin(three.account);
		assert_int_equal(kvk_account_pass_end(three.account), 0);
		assert_true(visit(&one, 50 * MIB, 0, false) == 41 * MIB);
		stop(&one);
		stop(&two);
		stop(&three);
		/* For the next round. */
		start(&one, bed);
		kvk_account_pass_begin(one.account);
		unlinks(&one, 1, MIB);
		unlinks(&one, 2, 2 * MIB);
		sync_and_visit(&one);
		assert_true(charged_of(&one) == 0);
		stop(&one);
	}
}

/* One that saw the file last knows more than one that comes anew. */
static void an_account_that_is_put_back_is_not_believed(void **state)
{
	struct process one;
	uint64_t bytes;
	void *old;

	start(&one, *state);
	visit(&one, 30 * MIB, 0, false);
	assert_int_equal(one.backend->ops->load_file(one.backend, "account", &old, &bytes, 2 * KVK_ACCOUNT_BYTES), 0);
	publish(&one, 1, 5 * MIB);
	visit(&one, 0, 0, false);
	publish(&one, 1, 5 * MIB);
	visit(&one, 0, 0, false);
	assert_int_equal(one.backend->ops->save_file(one.backend, "account", old, bytes, false), 0);
	kvk_mem_free(old);
	visit(&one, 30 * MIB, 0, false);
	assert_true(image_of(&one)->needs_scan && charged_of(&one) == 10 * MIB && leased_of(&one) == 20 * MIB);
	stop(&one);
}

#define OVER_BOTH(test) \
	cmocka_unit_test_setup_teardown(test, setup_ram, teardown), \
	cmocka_unit_test_setup_teardown(test, setup_posix, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		OVER_BOTH(a_lease_is_taken_used_and_given_back),
		OVER_BOTH(the_sum_never_exceeds_the_cap),
		OVER_BOTH(credits_wait_for_a_sync_that_began_later),
		OVER_BOTH(what_is_published_beyond_the_lease_is_told),
		OVER_BOTH(the_dead_leave_their_lease_until_a_pass),
		OVER_BOTH(an_open_settles_the_dead_and_counts),
		OVER_BOTH(rows_tell_who_is_there),
		OVER_BOTH(a_cap_changes_for_all),
		OVER_BOTH(an_idle_visit_writes_nothing),
		OVER_BOTH(the_lock_is_waited_for_and_no_longer),
		OVER_BOTH(a_close_that_cannot_visit_leaves_its_row),
		OVER_BOTH(the_257th_is_told),
		OVER_BOTH(threads_publish_while_it_visits),
		OVER_BOTH(a_lost_account_waits_for_a_scan),
		OVER_BOTH(a_lost_account_of_the_living_is_no_empty_one),
		OVER_BOTH(a_lost_account_finds_its_processes_again),
		OVER_BOTH(an_account_that_is_put_back_is_not_believed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
