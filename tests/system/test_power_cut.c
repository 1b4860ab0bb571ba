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
#include "system/truth.h"

/* In all; KVK_CUTS says another number. */
#define CUTS (KIT_SANITIZED ? 200 : 1000)
#define KEYS 96
#define WORKERS 2
#define BYTES_MAX 400000u
#define RUN_US_MAX 16000
/* A close that waits for a request which hangs waits for its deadline, 30 s; a busy machine takes a few. */
#define CLOSE_US_MAX 25000000
#define REST_US 60000000
/* More than the load ever stores, 48 MiB: it refuses nothing, but leases are made by it. */
#define MORE_BYTES 200
#define CAP_GB "0.046875"

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

/* Where, how, and how many of a hundred cuts. */
struct scene {
	const struct disk_kind *disk;
	bool capped, pool;
	unsigned share;
	unsigned mechanism_count;
	enum bed_kind mechanisms[4];
};

#define FILES 4, { BED_THREADS, BED_THREADS_DIRECT, BED_URING, BED_URING_DIRECT }
/* A pool is opened in the shape in which it was made. */
#define POOL_PAGES 2, { BED_POOL_THREADS, BED_POOL }
#define POOL_SLOTS 1, { BED_POOL_DIRECT }

struct tally {
	uint64_t cuts, opening, acknowledged;
	struct load_found found;
};

struct run {
	const struct scene *scene;
	struct disk disk;
	struct bed bed;
	struct load_ledger ledger;
	struct load load;
	uint64_t random;
	uint32_t stores;               /* made on this disk */
	struct tally tallies[LEVELS];
};

static void expect(const char *what)
{
	if (what)
		fail_msg("%s", what);
}

/* What is written down is never less than what is there, and with it no lease goes beyond the cap. */
static void check_account(const struct run *run)
{
	uint64_t counted_bytes, cap_bytes;
	struct truth truth = truth_of(run->bed.path);
	int err;

	if (run->scene->pool)
		return;                /* its files are all there from the start */
	err = truth_account(run->bed.path, &counted_bytes, &cap_bytes);
	if ((err == -ENOENT || err == -EBADMSG) && truth.bytes == 0)
		return;                /* it was just being made */
	assert_int_equal(err, 0);
	if (counted_bytes < truth.bytes || (cap_bytes && counted_bytes > cap_bytes))
		fail_msg("the account says %" PRIu64 " bytes of %" PRIu64 "; on the disk are %" PRIu64, counted_bytes,
			 cap_bytes, truth.bytes);
}

static void spec_of(const struct run *run, const struct level *level, char more[MORE_BYTES])
{
	snprintf(more, MORE_BYTES, "%s%s", run->scene->capped ? "params:\"max_capacity_gb\": " CAP_GB "; " : "", level->more);
}

static void open_store(struct run *run, const struct level *level)
{
	char more[MORE_BYTES];

	run->bed.kind = run->scene->mechanisms[kit_below(&run->random, run->scene->mechanism_count)];
	spec_of(run, level, more);
	bed_open(&run->bed, more);
	if (!run->scene->pool)
		expect(truth_exceeds(run->bed.store, run->bed.path));
	run->load.store = run->bed.store;
	run->load.promises = level->promises;
	run->ledger.over = false;
}

/* Everything is on the medium: from here on it is promised. */
static void wait_for_batch(struct run *run)
{
	struct kvk_core *core = bed_core(run->bed.store);
	uint64_t until_us = kit_now_us() + 30000000;

	while (atomic_load(&core->unsynced_bytes) || atomic_load(&core->syncing)) {
		if (kit_now_us() > until_us)
			fail_msg("a batch was not written out within 30 s");
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
	check_account(run);
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
	char more[MORE_BYTES];
	int err;
};

static void *open_main(void *argument)
{
	struct opening *opening = argument;

	opening->err = bed_try_open(&opening->run->bed, opening->more, NULL);
	return NULL;
}

/* A store that is just being made: the next open finds all of it or makes it anew. */
static void cut_while_opening(struct run *run, const struct level *level)
{
	struct opening opening = { .run = run };
	pthread_t thread;

	assert_int_equal(disk_shell("rm -rf %s", run->bed.path), 0);
	/* Else the cut brings it back, and two pools have no room. */
	assert_int_equal(disk_sync(&run->disk), 0);
	snprintf(run->bed.path, sizeof(run->bed.path), "%.40s/store%u", run->disk.path, ++run->stores);
	memset(&run->ledger, 0, sizeof(run->ledger));
	spec_of(run, level, opening.more);
	assert_int_equal(pthread_create(&thread, NULL, open_main, &opening), 0);
	usleep((useconds_t)kit_below(&run->random, 4000));
	if (kit_below(&run->random, 2))
		assert_int_equal(disk_sync_other(&run->disk), 0);
	cut(run);
	assert_int_equal(pthread_join(thread, NULL), 0);
	close_dead(run);
}

static void check_at_rest(struct run *run)
{
	if (!run->scene->pool)
		expect(truth_disagrees(run->bed.store, run->bed.path, REST_US));
	else if (!bed_list(run->bed.store).damaged)
		expect(bed_disagrees(run->bed.store));
}

static void verify(struct run *run, struct tally *tally)
{
	load_verify(&run->load, NULL, true, &tally->found);
	assert_int_equal(run->ledger.wrong + tally->found.wrong + atomic_load(&bed_wrong_answers), 0);
	assert_int_equal(tally->found.lost, 0);
	assert_int_equal(tally->found.failed, 0);
	if (kit_below(&run->random, 32) == 0)
		check_at_rest(run);
}

/* Returns how many files were rejected. */
static uint64_t tell(const struct run *run)
{
	uint64_t rejected = 0, acknowledged = 0;

	for (unsigned i = 0; i < LEVELS; i++) {
		const struct tally *tally = &run->tallies[i];

		printf("# %s%s, %s: %" PRIu64 " cuts (%" PRIu64 " while opening), %" PRIu64 " keys acknowledged before them, %"
		       PRIu64 " loads after them: %" PRIu64 " hits, %" PRIu64 " other than acknowledged, %" PRIu64
		       " rejected, %" PRIu64 " wrong, %" PRIu64 " lost\n", run->scene->pool ? "pool on " : "", run->disk.kind->name, levels[i].name, tally->cuts,
		       tally->opening, tally->acknowledged,
		       tally->found.hits + tally->found.absent + tally->found.rejected +
			       tally->found.rejected_again, tally->found.hits,
		       tally->found.undone, tally->found.rejected, tally->found.wrong, tally->found.lost);
		proof_tell_more(5, tally->cuts, "cuts", tally->found.wrong, "lost=%" PRIu64 " rejected=%" PRIu64 " opening=%" PRIu64
				" loads=%" PRIu64, tally->found.lost, tally->found.rejected, tally->opening,
				tally->found.hits + tally->found.absent + tally->found.rejected + tally->found.rejected_again);
		rejected += tally->found.rejected;
		acknowledged += tally->acknowledged;
	}
	fflush(stdout);
	assert_true(acknowledged > 0);
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
	disk_end(&run->disk);
	free(run);
	return 0;
}

static void power_cuts(struct run *run, const struct scene *scene)
{
	const char *why = disk_unable(scene->disk);
	uint64_t cuts = (kit_number("KVK_CUTS", CUTS) * scene->share + 99) / 100, rejected;
	const struct level *level, *before = NULL;

	if (why)
		SKIP("%s", why);
	run->random = kit_seed();
	run->scene = scene;
	run->load = (struct load){ .ledger = &run->ledger, .keys = KEYS, .workers = WORKERS, .bytes_max = BYTES_MAX,
				   .put_share = 11, .get_share = 2 };
	assert_int_equal(disk_make(&run->disk, "disk", scene->disk, 0, ""), 0);
	snprintf(run->bed.path, sizeof(run->bed.path), "%.40s/store", run->disk.path);
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
	check_at_rest(run);
	assert_int_equal(bed_close(&run->bed), 0);
	rejected = tell(run);
	/* The data of an object is on the medium before its name is. */
	if (!scene->pool)
		assert_int_equal(run->tallies[2].found.rejected, 0);
	/* Otherwise the cuts were none. */
	if (!scene->pool && scene->disk == &disk_ext4 && cuts >= 40)
		assert_true(rejected > 0);
}

static void test_ext4(void **state)
{
	power_cuts(*state, &(struct scene){ &disk_ext4, false, false, 18, FILES });
}

static void test_ext4_no_auto(void **state)
{
	power_cuts(*state, &(struct scene){ &disk_ext4_no_auto, true, false, 13, FILES });
}

static void test_ext4_writeback(void **state)
{
	power_cuts(*state, &(struct scene){ &disk_ext4_writeback, false, false, 13, FILES });
}

static void test_ext4_journal(void **state)
{
	power_cuts(*state, &(struct scene){ &disk_ext4_journal, false, false, 13, FILES });
}

static void test_xfs(void **state)
{
	power_cuts(*state, &(struct scene){ &disk_xfs, true, false, 13, FILES });
}

static void test_pool_ext4(void **state)
{
	/* It leaves next to nothing of the disk. */
	power_cuts(*state, &(struct scene){ &disk_ext4, false, true, 10, POOL_PAGES });
}

static void test_pool_ext4_writeback(void **state)
{
	power_cuts(*state, &(struct scene){ &disk_ext4_writeback, true, true, 10, POOL_SLOTS });
}

static void test_pool_xfs(void **state)
{
	power_cuts(*state, &(struct scene){ &disk_xfs, true, true, 10, POOL_PAGES });
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_ext4, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ext4_no_auto, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ext4_writeback, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ext4_journal, setup, teardown),
		cmocka_unit_test_setup_teardown(test_xfs, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pool_ext4, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pool_ext4_writeback, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pool_xfs, setup, teardown),
	};

	cmocka_set_test_filter(getenv("KVK_ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
