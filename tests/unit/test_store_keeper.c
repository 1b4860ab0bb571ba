/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One process keeps the store for all: it learns what the others do, is followed when it ends or dies, and what disturbs its
 * scan does not make it wrong.
 *
 * That there is one keeper at a time is what the first case falls over when the lock is taken out (tests/mutants/race.txt).
 */
#include <pthread.h>
#include <sys/file.h>

#include "unit/scan_kit.h"

/* ---- several processes -------------------------------------------------------------------------- */

static void open_second(struct bed *bed, struct kvk_store **ret)
{
	struct kvk_store *first = bed->store;

	bed->store = NULL;
	bed_open(bed, "");
	*ret = bed->store;
	bed->store = first;
}

static void objects_become(struct kvk_store *store, uint64_t objects)
{
	uint64_t until_us = kit_now_us() + 20000000;

	while (bed_usage(store).objects != objects) {
		if (kit_now_us() > until_us)
			fail_msg("%" PRIu64 " objects are known, not %" PRIu64, bed_usage(store).objects, objects);
		usleep(2000);
	}
}

static void test_the_keeper_learns_what_others_do(void **state)
{
	struct bed *bed = *state;
	struct kvk_store *other;
	char key[64];

	bed_open(bed, "");
	scan_wait_phase(bed->store, KVK_SCAN_IDLE);
	open_second(bed, &other);
	put_all(other, OBJECTS);
	objects_become(bed->store, OBJECTS);
	scan_settles(bed->store, bed->path);
	for (unsigned i = 0; i < OBJECTS; i += 2) {
		key_of(key, i);
		assert_int_equal(bed_remove(other, key, NULL), 0);
	}
	objects_become(bed->store, OBJECTS / 2);
	scan_settles(bed->store, bed->path);
	assert_int_equal(scan_state(other).phase, KVK_SCAN_WAITING);
	assert_int_equal(kvk_store_close(other), 0);
}

/* The keeper closes, and another one has the store open: how long until that is the keeper. */
static uint64_t keeper_follows_us(struct bed *bed)
{
	struct kvk_store *other;
	uint64_t begin_us, took_us;

	bed_open(bed, "");
	scan_wait_phase(bed->store, KVK_SCAN_IDLE);
	open_second(bed, &other);
	put_all(bed->store, OBJECTS);
	usleep(600000);
	assert_int_equal(scan_state(other).phase, KVK_SCAN_WAITING);
	assert_int_equal(bed_close(bed), 0);
	begin_us = kit_now_us();
	do
		took_us = kit_now_us() - begin_us;
	while (scan_state(other).phase == KVK_SCAN_WAITING && usleep(1000) == 0);
	bed->store = other;
	scan_settles(bed->store, bed->path);
	assert_int_equal(bed_usage(bed->store).objects, OBJECTS);
	/* What the first one wrote at its end is too old by now. */
	assert_int_equal(scan_state(bed->store).from_snapshot, 0);
	assert_int_equal(bed_close(bed), 0);
	return took_us;
}

/* In a second, unless the machine is busy with something else each time. */
static void test_another_becomes_keeper(void **state)
{
	int tries = 0;

	while (keeper_follows_us(*state) > 1000000)
		assert_true(++tries < 8);
}

static void keep_and_wait(struct bed *bed)
{
	char path[512];

	bed_open(bed, "");
	scan_wait_phase(bed->store, KVK_SCAN_IDLE);
	close(make(bed, "child-keeps", 0));
	snprintf(path, sizeof(path), "%s/parent-opened", bed->path);
	while (access(path, F_OK))
		usleep(1000);
	put_all(bed->store, OBJECTS);
}

static void test_another_follows_a_keeper_that_was_killed(void **state)
{
	struct bed *bed = *state;
	char path[512];
	pid_t child = fork();
	int status;

	assert_true(child >= 0);
	if (child == 0) {
		keep_and_wait(bed);
		raise(SIGKILL);
	}
	snprintf(path, sizeof(path), "%s/child-keeps", bed->path);
	while (access(path, F_OK))
		usleep(1000);
	bed_open(bed, "");
	usleep(300000);
	assert_int_equal(scan_state(bed->store).phase, KVK_SCAN_WAITING);
	close(make(bed, "parent-opened", 0));
	assert_int_equal(waitpid(child, &status, 0), child);
	scan_settles(bed->store, bed->path);
	assert_int_equal(bed_usage(bed->store).objects, OBJECTS);
	get_all(bed->store, OBJECTS);
}

/* ---- scans that are disturbed ------------------------------------------------------------------- */

struct busy {
	struct kvk_store *store;
	pthread_t thread;
	unsigned first;
	atomic_bool *stop;
};

static void *keep_busy(void *argument)
{
	struct busy *busy = argument;
	char key[64];

	for (unsigned n = 0; !atomic_load(busy->stop); n++) {
		unsigned i = 100000 + busy->first + n % 100;

		key_of(key, i);
		if (n / 100 % 2)
			bed_remove(busy->store, key, NULL);
		else
			bed_put(busy->store, key, bytes_of(i), 1, NULL);
	}
	return NULL;
}

static void test_exact_after_a_busy_scan(void **state)
{
	struct bed *bed = *state;
	atomic_bool stop = false;
	struct busy busy[2];

	in_a_child(bed, store_and_die);
	bed_open(bed, "");
	for (unsigned i = 0; i < 2; i++) {
		busy[i] = (struct busy){ .store = bed->store, .first = i * 100, .stop = &stop };
		assert_int_equal(pthread_create(&busy[i].thread, NULL, keep_busy, &busy[i]), 0);
	}
	usleep(1500000);
	atomic_store(&stop, true);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(busy[i].thread, NULL);
	scan_settles(bed->store, bed->path);
	BED_AGREES(bed->store);
	get_all(bed->store, OBJECTS);
}

static void scan_until_killed(struct bed *bed)
{
	bed_open(bed, "");
	usleep((useconds_t)kit_number("KVK_SCAN_US", 0));
}

static void test_killed_while_it_scans(void **state)
{
	struct bed *bed = *state;
	uint64_t random = kit_seed();

	in_a_child(bed, store_and_die);
	for (int round = 0; round < 10; round++) {
		char text[32];

		snprintf(text, sizeof(text), "%u", (unsigned)kit_below(&random, 60000));
		setenv("KVK_SCAN_US", text, 1);
		in_a_child(bed, scan_until_killed);
	}
	bed_open(bed, "");
	scan_settles(bed->store, bed->path);
	assert_int_equal(bed_usage(bed->store).objects, OBJECTS);
	get_all(bed->store, OBJECTS);
}

static uint64_t closes_after_us(struct bed *bed, useconds_t open_us)
{
	uint64_t begin_us;

	bed_open(bed, "");
	usleep(open_us);
	begin_us = kit_now_us();
	assert_int_equal(bed_close(bed), 0);
	return kit_now_us() - begin_us;
}

/* Closing does not wait for the scan. */
static void test_closing_ends_the_scan(void **state)
{
	struct bed *bed = *state;

	in_a_child(bed, store_and_die);
	for (int round = 0; round < 20; round++) {
		int tries = 0;

		/* A busy machine may take its time, but not each time. */
		while (closes_after_us(bed, (useconds_t)round * 1000) > (KIT_SANITIZED ? 5000000 : 1000000))
			assert_true(++tries < 8);
	}
	bed_open(bed, "");
	scan_settles(bed->store, bed->path);
}

/* ---- what was written aside, and never got its name ------------------------------------------------ */

static const struct { const char *name; bool goes; } asides[] = {
	{ ".kvkeep/.tmp-0123456789abcdef-1", true },           /* a superblock, or a snapshot of 1 GiB */
	{ ".kvkeep/namespaces/.tmp-0123456789abcdef-2", true },
	{ ".kvkeep/.tmp-fedcba9876543210-3", false },          /* its writer lives */
	{ ".kvkeep/.tmp-0123456789abcdef", false },            /* no name that a store gives */
	{ ".kvkeep/tmp-0123456789abcdef-1", false },
};

static void expect_asides(const struct bed *bed, bool all)
{
	char path[200];

	for (size_t i = 0; i < sizeof(asides) / sizeof(asides[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", bed->path, asides[i].name);
		if ((access(path, F_OK) == 0) != (all || !asides[i].goes))
			fail_msg("%s is %s", asides[i].name, all || !asides[i].goes ? "gone" : "there");
	}
}

/* Whoever has the store alone removes what the dead left beside the objects; no account has it. */
static void test_what_was_written_aside_goes(void **state)
{
	struct bed *bed = *state;
	struct kvk_store *other;
	char path[200];
	int fd, writer_fd;

	bed_open(bed, "");
	for (size_t i = 0; i < sizeof(asides) / sizeof(asides[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", bed->path, asides[i].name);
		kit_file_write(path, "left", 4);
	}
	snprintf(path, sizeof(path), "%s/%s", bed->path, asides[2].name);
	fd = open(path, O_RDWR);
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
	writer_fd = kit_writer_lives(bed->path, UINT64_C(0xfedcba9876543210));
	open_second(bed, &other);
	expect_asides(bed, true);
	assert_int_equal(kvk_store_close(other), 0);
	bed_reopen(bed, "\"visitor\": true");
	expect_asides(bed, true);
	bed_reopen(bed, "");
	expect_asides(bed, false);
	assert_false(close(fd) || close(writer_fd));
}

/* ---- above the watermark ------------------------------------------------------------------------ */

#define LARGE (32u << 20)

/* One is there, of that charge. How long four of five take to leave, a second and a half after the last load. Their unlinks take 250 ms
 * each. */
static uint64_t four_leave_us(struct kvk_store *store, uint32_t first, uint64_t charge)
{
	uint64_t evicted = bed_stats(store).evicted, begin_us;
	char key[32];

	assert_int_equal(kvk_store_set_cap(store, UINT64_C(1) << 40), 0);
	for (uint32_t i = 0; i < 4; i++) {
		snprintf(key, sizeof(key), "m@0@0@%u", first + i);
		KIT_EXPECT(kit_store(store, key, LARGE, 1), 0, KVK_REASON_NONE);
	}
	KIT_EXPECT(kit_load(store, key, LARGE, 1), 0, KVK_REASON_NONE);
	usleep(1500000);
	assert_int_equal(kit_used_settles(store, 5 * charge), 5 * charge);
	begin_us = kit_now_us();
	assert_int_equal(kvk_store_set_cap(store, 8 * charge), 0);
	while (bed_stats(store).evicted < evicted + 4 && kit_now_us() < begin_us + 30000000)
		usleep(1000);
	assert_int_equal(bed_stats(store).evicted, evicted + 4);
	return kit_now_us() - begin_us;
}

/* The keeper rests between evictions for loads, but not for those of long ago: two pauses of 250 ms. A busy machine may take its time, but
 * not each time. */
static void test_no_rest_for_loads_of_long_ago(void **state)
{
	struct bed *bed = *state;
	uint64_t least_us = UINT64_MAX, charge;

	bed_open(bed, "\"fault\": [{\"do\": \"delay\", \"ops\": [\"unlink\"], \"delay_ms\": 250, \"chance\": 1}], "
		      "\"eviction\": {\"eviction_policy\": \"LRU\", \"trigger_watermark\": 0.5, \"eviction_ratio\": 0.65}");
	KIT_EXPECT(kit_store(bed->store, "m@0@0@first", LARGE, 1), 0, KVK_REASON_NONE);
	charge = bed_usage(bed->store).used_bytes;
	for (uint32_t i = 0; i < 6 && least_us >= 1400000; i++) {
		uint64_t took_us = four_leave_us(bed->store, 4 * i, charge);

		least_us = took_us < least_us ? took_us : least_us;
	}
	if (least_us >= 1400000)
		fail_msg("%" PRIu64 " ms", least_us / 1000);
}

int main(void)
{
	kit_in_memory();
	const struct CMUnitTest tests[] = {
		BED_TEST(test_the_keeper_learns_what_others_do, BED_THREADS, "threads"),
		BED_TEST(test_another_becomes_keeper, BED_THREADS, "threads"),
		BED_TEST(test_another_follows_a_keeper_that_was_killed, BED_THREADS, "threads"),
		BED_TEST(test_exact_after_a_busy_scan, BED_URING, "io_uring"),
		BED_TEST(test_killed_while_it_scans, BED_THREADS, "threads"),
		BED_TEST(test_closing_ends_the_scan, BED_URING, "io_uring"),
		BED_TEST(test_what_was_written_aside_goes, BED_THREADS, "threads"),
		BED_TEST(test_no_rest_for_loads_of_long_ago, BED_RAM, "ram"),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
