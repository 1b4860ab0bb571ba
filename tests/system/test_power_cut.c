/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A power cut costs hits at most: no load answers with other bytes, and at durability `object` nothing that was
 * acknowledged is gone.
 *
 * Method: a store under load on a file system of its own, which is shut down at a random moment without writing its
 * journal; mounted again, every key is loaded and judged by the ledger. A sync of something else just before the cut is what
 * brings names and lengths to the medium without the bytes that belong to them: then files must be found that a store
 * without footers would have served.
 */
#include "unit/store_kit.h"

#include "store/core.h"
#include "system/disk.h"
#include "system/load.h"

/* In all; KVK_CUTS says another number. */
#define CUTS (KIT_SANITIZED ? 200 : 1000)
#define KEYS 96
#define WORKERS 2
#define BYTES_MAX 400000u
#define RUN_US_MAX 12000
#define CLOSE_US_MAX 5000000

struct level {
	const char *name, *more;
	uint32_t promises;
};

static const struct level levels[] = {
	{ "none", "\"durability\": \"none\", \"lanes\": 2", 0 },
	{ "batch", "\"durability\": \"batch\", \"batch_seconds\": 0.1, \"lanes\": 2", 0 },
	{ "object", "\"durability\": \"object\", \"lanes\": 2", LOAD_KEEPS | LOAD_ORDERS_PUTS },
};
#define LEVELS (sizeof(levels) / sizeof(levels[0]))

struct tally {
	uint64_t cuts, opening, acknowledged;
	struct load_found found;
};

struct run {
	struct disk disk;
	struct bed bed;
	struct load_ledger ledger;
	struct load load;
	uint64_t random;
	uint32_t stores;               /* made on this disk */
	bool ring;
	struct tally tallies[LEVELS];
};

static void choose_mechanism(struct run *run)
{
	uint64_t which = kit_below(&run->random, run->ring ? 4 : 2);

	run->bed.kind = (enum bed_kind)((run->ring ? BED_URING : BED_THREADS) + which);
}

static void open_store(struct run *run, const struct level *level)
{
	choose_mechanism(run);
	bed_open(&run->bed, level->more);
	run->load.store = run->bed.store;
	run->load.promises = level->promises;
	run->ledger.over = false;
}

/* Everything is on the medium: from here on it is promised. */
static void wait_for_batch(struct run *run)
{
	struct kvk_core *core = bed_core(run->bed.store);
	uint64_t until_us = kit_now_us() + 10000000;

	while (atomic_load(&core->unsynced_bytes) || atomic_load(&core->syncing)) {
		if (kit_now_us() > until_us)
			fail_msg("a batch was not written out within 10 s");
		usleep(1000);
	}
	for (unsigned i = 0; i < KEYS; i++) {
		struct load_line *line = &run->ledger.lines[i];

		if (line->phase != LOAD_PRESENT)
			continue;
		line->sure = line->generation;
		line->oldest = line->generation;
	}
}

/*
 * What is answered from here on was answered by a machine without power. It matters: an fsync that is under way while XFS
 * shuts down finds its inode unpinned by the aborted log and returns 0.
 */
static void cut(struct run *run)
{
	run->ledger.over = true;
	assert_int_equal(disk_cut(&run->disk), 0);
}

static void close_dead(struct run *run)
{
	uint64_t began_us = kit_now_us();

	assert_int_equal(bed_close(&run->bed), 0);
	assert_in_range(kit_now_us() - began_us, 0, CLOSE_US_MAX);
	assert_int_equal(disk_unmount(&run->disk), 0);
	assert_int_equal(disk_mount(&run->disk), 0);
}

static void cut_under_load(struct run *run, const struct level *level, struct tally *tally)
{
	struct load_worker workers[WORKERS];
	bool written_out = level == &levels[1] && kit_below(&run->random, 8) == 0;
	atomic_bool stop;

	load_start(&run->load, workers, &run->random, &stop);
	usleep((useconds_t)kit_below(&run->random, RUN_US_MAX));
	if (written_out) {
		load_stop(workers, WORKERS);
		wait_for_batch(run);
	}
	if (kit_below(&run->random, 2))
		assert_int_equal(disk_sync_other(&run->disk), 0);
	cut(run);
	if (!written_out)
		load_stop(workers, WORKERS);
	for (unsigned i = 0; i < KEYS; i++)
		tally->acknowledged += run->ledger.lines[i].phase == LOAD_PRESENT;
	close_dead(run);
}

struct opening {
	struct run *run;
	const struct level *level;
	int err;
};

static void *open_main(void *argument)
{
	struct opening *opening = argument;

	opening->err = bed_try_open(&opening->run->bed, opening->level->more, NULL);
	return NULL;
}

/* A store that is just being made: the next open finds all of it or makes it anew. */
static void cut_while_opening(struct run *run, const struct level *level)
{
	struct opening opening = { .run = run, .level = level };
	pthread_t thread;

	assert_int_equal(disk_shell("rm -rf %s", run->bed.path), 0);
	snprintf(run->bed.path, sizeof(run->bed.path), "%.40s/store%u", run->disk.path, ++run->stores);
	memset(&run->ledger, 0, sizeof(run->ledger));
	assert_int_equal(pthread_create(&thread, NULL, open_main, &opening), 0);
	usleep((useconds_t)kit_below(&run->random, 4000));
	if (kit_below(&run->random, 2))
		assert_int_equal(disk_sync_other(&run->disk), 0);
	cut(run);
	assert_int_equal(pthread_join(thread, NULL), 0);
	close_dead(run);
}

static void verify(struct run *run, struct tally *tally)
{
	const char *what;

	load_verify(&run->load, NULL, true, &tally->found);
	assert_int_equal(run->ledger.wrong + tally->found.wrong + atomic_load(&bed_wrong_answers), 0);
	assert_int_equal(tally->found.lost, 0);
	assert_int_equal(tally->found.failed, 0);
	/* Damaged ones beyond what may be moved aside in a minute stay, and are no objects. */
	what = bed_list(run->bed.store).damaged ? NULL : bed_disagrees(run->bed.store);
	if (what)
		fail_msg("%s", what);
}

static uint64_t tell(const struct run *run)
{
	uint64_t rejected = 0;

	for (unsigned i = 0; i < LEVELS; i++) {
		const struct tally *tally = &run->tallies[i];

		printf("# %s, %s: %" PRIu64 " cuts (%" PRIu64 " while opening), %" PRIu64 " keys acknowledged before them, %"
		       PRIu64 " loads after them: %" PRIu64 " hits, %" PRIu64 " other than acknowledged, %" PRIu64
		       " rejected, %" PRIu64 " wrong, %" PRIu64 " lost\n", run->disk.kind->name, levels[i].name, tally->cuts,
		       tally->opening, tally->acknowledged,
		       tally->found.hits + tally->found.absent + tally->found.rejected +
			       tally->found.rejected_again, tally->found.hits,
		       tally->found.undone, tally->found.rejected, tally->found.wrong, tally->found.lost);
		rejected += tally->found.rejected;
	}
	fflush(stdout);
	return rejected;
}

static int setup(void **state)
{
	return (*state = calloc(1, sizeof(struct run))) ? 0 : -1;
}

static int teardown(void **state)
{
	struct run *run = *state;

	kvk_store_close(run->bed.store);
	if (run->disk.kind)
		disk_end(&run->disk);
	free(run);
	return 0;
}

static void power_cuts(struct run *run, const struct disk_kind *kind)
{
	const char *why = disk_unable(kind);
	uint64_t cuts = (kit_number("KVK_CUTS", CUTS) + 4) / 5, rejected;
	const struct level *level, *before = NULL;

	if (why)
		SKIP("%s", why);
	run->random = kit_seed();
	run->load = (struct load){ .ledger = &run->ledger, .keys = KEYS, .workers = WORKERS, .bytes_max = BYTES_MAX,
				   .put_share = 11, .get_share = 2 };
	assert_int_equal(disk_make(&run->disk, "disk", kind, 0, ""), 0);
	snprintf(run->bed.path, sizeof(run->bed.path), "%.40s/store", run->disk.path);
	run->bed.kind = BED_URING;
	run->ring = bed_try_open(&run->bed, "", NULL) == 0;
	assert_int_equal(bed_close(&run->bed), 0);
	atomic_store(&bed_wrong_answers, 0);

	for (uint64_t i = 0; i <= cuts; i++) {
		level = &levels[kit_below(&run->random, LEVELS)];
		open_store(run, level);
		if (before)
			verify(run, &run->tallies[before - levels]);
		before = level;
		if (i == cuts)
			break;
		run->tallies[level - levels].cuts++;
		if (kit_below(&run->random, 16) == 0) {
			run->tallies[level - levels].opening++;
			assert_int_equal(bed_close(&run->bed), 0);
			cut_while_opening(run, level);
		} else {
			cut_under_load(run, level, &run->tallies[level - levels]);
		}
	}
	assert_int_equal(bed_close(&run->bed), 0);
	rejected = tell(run);
	/* The data of an object is on the medium before its name is. */
	assert_int_equal(run->tallies[2].found.rejected, 0);
	/* Otherwise the cuts were none. */
	if (kind == &disk_ext4 && cuts >= 40)
		assert_true(rejected > 0);
}

static void test_ext4(void **state)
{
	power_cuts(*state, &disk_ext4);
}

static void test_ext4_no_auto(void **state)
{
	power_cuts(*state, &disk_ext4_no_auto);
}

static void test_ext4_writeback(void **state)
{
	power_cuts(*state, &disk_ext4_writeback);
}

static void test_ext4_journal(void **state)
{
	power_cuts(*state, &disk_ext4_journal);
}

static void test_xfs(void **state)
{
	power_cuts(*state, &disk_xfs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_ext4, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ext4_no_auto, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ext4_writeback, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ext4_journal, setup, teardown),
		cmocka_unit_test_setup_teardown(test_xfs, setup, teardown),
	};

	cmocka_set_test_filter(getenv("KVK_ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
