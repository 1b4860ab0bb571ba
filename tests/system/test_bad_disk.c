/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk below the file system that fails costs hits, never more: no load answers with other bytes, and nothing that was
 * acknowledged at durability `object` is gone when the disk is well again.
 *
 * Method: tests/system/bad_disk.h. What the kernel makes of an error is its own affair: it tells of it once and then never again,
 * drops what it could not write, gives up its journal, or goes on. An fsync that succeeds after one that failed is not to be
 * believed, and this is where it shows.
 */
#include "system/bad_disk.h"

/* In each case; KVK_ROUNDS says another number. */
#define ROUNDS 2
#define PUTS 9
#define GETS 5
/* Puts before something is done to the disk. */
#define SOME 8
/* Of those blocks that may not be read or written, of a thousand. */
#define BAD_SHARE 20

static uint64_t failed_reads(const struct bad_disk *run)
{
	return run->ledger.get_reasons[KVK_REASON_MEDIUM];
}

static uint64_t failed_writes(const struct bad_disk *run)
{
	return run->medium->failed_writes;
}

static uint64_t failed_flushes(const struct bad_disk *run)
{
	return run->medium->failed_flushes;
}

static void store_some(struct bad_disk *run)
{
	bad_disk_start_load(run);
	bad_disk_run_load(run);
	bad_disk_wait(run, bad_disk_good_puts, bad_disk_good_puts(run) + SOME, "nothing is stored");
}

/* More and more of the disk cannot be read, until a load met it. */
static void load_from_bad_disk(struct bad_disk *run, struct load_worker *reader)
{
	uint64_t failed = failed_reads(run);

	run->load.get_share = 16;
	run->load.put_share = 0;
	for (uint32_t share = 1 + (uint32_t)kit_below(&run->random, 2 * BAD_SHARE); failed_reads(run) == failed; share *= 4) {
		assert_in_range(share, 0, 10000);
		bad_disk_close_and_mount(run);
		bad_disk_open(run);
		run->medium->salt = kit_random(&run->random);
		run->medium->bad_reads = share;
		for (unsigned i = 0; i < 2 * BAD_DISK_KEYS; i++)
			load_step(reader);
		medium_heal(run->medium);
	}
	run->load.get_share = GETS;
	run->load.put_share = PUTS;
}

/* Blocks that cannot be read, data and the file system's own. What is asked for is a miss, and all of it is there afterwards. */
static void read_errors(struct bad_disk *run, const struct bad_disk_scene *scene)
{
	uint64_t rounds = kit_number("KVK_ROUNDS", ROUNDS);
	struct load_worker reader = { .load = &run->load };

	bad_disk_begin(run, scene);
	reader.random = kit_random(&run->random);
	for (uint64_t i = 0; i < rounds; i++) {
		store_some(run);
		bad_disk_stop_load(run);
		load_from_bad_disk(run, &reader);
		bad_disk_verify(run);
	}
	load_release(&reader);
	bad_disk_tell(run, 2, "blocks that cannot be read", "rounds");
	assert_int_equal(run->found.rejected, 0);
}

/* What is written meanwhile does not get to the disk: nothing of it may be acknowledged. */
static void fail_writes(struct bad_disk *run)
{
	struct medium *medium = run->medium;

	medium->salt = kit_random(&run->random);
	/* Where only payloads fail, the file system goes on as if nothing had been. */
	if (kit_below(&run->random, 4))
		medium->bad_payloads = 1 + (uint32_t)kit_below(&run->random, 2 * BAD_SHARE);
	else
		medium->bad_writes = 1 + (uint32_t)kit_below(&run->random, BAD_SHARE);
	bad_disk_run_load(run);
	/* Where there is little to write, more of it. */
	for (unsigned tries = 0; failed_writes(run) <= run->rounds && tries < 10; tries++) {
		medium->bad_writes = 20u << tries;
		bad_disk_run_load(run);
	}
	medium_heal(medium);
}

/* Once or twice, with or without what was in the disk's cache: the next one says that all is well. */
static void fail_flushes(struct bad_disk *run)
{
	struct medium *medium = run->medium;
	uint64_t failed = failed_flushes(run), until_us;

	medium->forgets = kit_below(&run->random, 4) != 0;
	usleep((useconds_t)kit_below(&run->random, 5000));
	medium->bad_flushes = 1 + (uint32_t)kit_below(&run->random, 2);
	bad_disk_wait(run, failed_flushes, failed + 1, "nothing is flushed");
	/* If the file system has given up there is no other. */
	until_us = kit_now_us() + 50000;
	while (medium->bad_flushes && kit_now_us() < until_us)
		usleep(200);
	medium_heal(medium);
}

/* Where nothing is removed everything is there some day, and nothing is written any more. */
static void make_anew(struct bad_disk *run)
{
	assert_int_equal(bed_close(&run->bed), 0);
	assert_int_equal(disk_shell("rm -rf %s", run->bed.path), 0);
	memset(run->ledger.lines, 0, sizeof(run->ledger.lines));
	bad_disk_open(run);
}

static void write_errors(struct bad_disk *run, const struct bad_disk_scene *scene, void (*harm)(struct bad_disk *), const char *what)
{
	uint64_t rounds = kit_number("KVK_ROUNDS", ROUNDS);

	bad_disk_begin(run, scene);
	if (harm == fail_flushes)
		run->load.put_share = 11;      /* and nothing is removed */
	for (uint64_t i = 0; i < rounds; i++) {
		if (harm == fail_flushes)
			make_anew(run);
		store_some(run);
		harm(run);
		bad_disk_run_load(run);
		bad_disk_stop_load(run);
		bad_disk_verify(run);
	}
	bad_disk_tell(run, 2, what, "rounds");
	/* Otherwise there was nothing to be noticed. */
	assert_true(failed_writes(run) + failed_flushes(run) > 0);
	assert_true(run->ledger.put_reasons[KVK_REASON_NOT_DURABLE] + run->ledger.put_reasons[KVK_REASON_MEDIUM] > 0);
}

static void errors_of_reads_ext4(void **state)
{
	read_errors(*state, &bad_disk_ext4);
}

static void errors_of_reads_xfs(void **state)
{
	read_errors(*state, &bad_disk_xfs);
}

static void errors_of_reads_pool(void **state)
{
	read_errors(*state, &bad_disk_pool_slots);
}

static void errors_of_writes_ext4(void **state)
{
	write_errors(*state, &bad_disk_ext4, fail_writes, "writes that fail");
}

static void errors_of_writes_xfs(void **state)
{
	write_errors(*state, &bad_disk_xfs, fail_writes, "writes that fail");
}

static void errors_of_writes_pool_pages(void **state)
{
	write_errors(*state, &bad_disk_pool_pages, fail_writes, "writes that fail");
}

static void errors_of_writes_pool_slots(void **state)
{
	write_errors(*state, &bad_disk_pool_slots, fail_writes, "writes that fail");
}

static void errors_of_flushes_ext4(void **state)
{
	write_errors(*state, &bad_disk_ext4, fail_flushes, "flushes that fail and then do not");
}

static void errors_of_flushes_xfs(void **state)
{
	write_errors(*state, &bad_disk_xfs, fail_flushes, "flushes that fail and then do not");
}

static void errors_of_flushes_pool_pages(void **state)
{
	write_errors(*state, &bad_disk_pool_pages, fail_flushes, "flushes that fail and then do not");
}

static void errors_of_flushes_pool_slots(void **state)
{
	write_errors(*state, &bad_disk_pool_slots, fail_flushes, "flushes that fail and then do not");
}

#define CASE(function) cmocka_unit_test_setup_teardown(function, bad_disk_setup, bad_disk_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(errors_of_reads_ext4),
		CASE(errors_of_reads_xfs),
		CASE(errors_of_reads_pool),
		CASE(errors_of_writes_ext4),
		CASE(errors_of_writes_xfs),
		CASE(errors_of_writes_pool_pages),
		CASE(errors_of_writes_pool_slots),
		CASE(errors_of_flushes_ext4),
		CASE(errors_of_flushes_xfs),
		CASE(errors_of_flushes_pool_pages),
		CASE(errors_of_flushes_pool_slots),
	};

	cmocka_set_test_filter(getenv("KVK_ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
