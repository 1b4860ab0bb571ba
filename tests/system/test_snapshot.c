/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any instant is safe: a store may be mounted and opened as its disk was at any moment of a load.
 *
 * Method: the disk is an image on XFS, which copies it at one instant by reflink while a store on it is busy and stays
 * so. The copy is mounted beside the original, and every key is loaded and judged by what the ledger said just before and
 * just after that instant.
 */
#include "unit/store_kit.h"

#include "system/disk.h"
#include "system/load.h"
#include "system/truth.h"

/* In all; KVK_SNAPSHOTS says another number. */
#define SNAPSHOTS (KIT_SANITIZED ? 45 : 201)
/* With one mechanism and durability. */
#define PER_OPEN 8
#define KEYS 96
#define WORKERS 2
#define BYTES_MAX 400000u
#define RUN_US_MAX 20000
/* Busy, but not to the full: the copies are looked at meanwhile. */
#define PAUSE_US 2000

static const char *const more[] = {
	"\"durability\": \"none\", \"lanes\": 2",
	"\"durability\": \"batch\", \"batch_seconds\": 0.1, \"lanes\": 2",
	"\"durability\": \"object\", \"lanes\": 2",
};
#define OBJECT 2

struct run {
	struct disk outer, disk;
	struct bed bed;
	struct load load;
	struct load_ledger ledger, copy;
	struct load_line first[LOAD_KEYS_MAX];
	struct load_worker workers[WORKERS];
	atomic_bool stop;
	bool busy;
	uint64_t random, sure;
	struct load_found found[3];
};

static int setup(void **state)
{
	return (*state = calloc(1, sizeof(struct run))) ? 0 : -1;
}

static int teardown(void **state)
{
	struct run *run = *state;

	if (run->busy)
		load_stop(run->workers, WORKERS);
	kvk_store_close(run->bed.store);
	disk_end(&run->disk);
	disk_end(&run->outer);
	free(run);
	return 0;
}

/* The disk as it was, at this other place. */
static void check_copy(struct run *run, struct disk *disk, unsigned level)
{
	struct bed bed = { .kind = (enum bed_kind)(BED_THREADS + kit_below(&run->random, 2)) };
	struct load load = run->load;
	struct load_found *found = &run->found[level];
	const char *what;

	assert_int_equal(disk_mount(disk), 0);
	snprintf(bed.path, sizeof(bed.path), "%.40s/store", disk->path);
	bed_open(&bed, "\"create\": false, \"lanes\": 1");
	what = truth_exceeds(bed.store, bed.path);
	load.ledger = &run->copy;
	load.store = bed.store;
	load_verify(&load, run->first, false, found);
	assert_int_equal(bed_close(&bed), 0);
	assert_int_equal(disk_unmount(disk), 0);
	assert_int_equal(unlink(disk->image), 0);
	if (what)
		fail_msg("%s", what);
	assert_int_equal(run->ledger.wrong + found->wrong + atomic_load(&bed_wrong_answers), 0);
	assert_int_equal(found->lost, 0);
	assert_int_equal(found->failed, 0);
	for (unsigned i = 0; i < KEYS; i++)
		run->sure += run->first[i].sure && run->first[i].sure == run->copy.lines[i].sure;
}

static void snapshot(struct run *run, unsigned level)
{
	struct disk copy = { .kind = run->disk.kind };

	snprintf(copy.path, sizeof(copy.path), DISK_WORLD "/copy");
	snprintf(copy.image, sizeof(copy.image), "%.40s/copy.image", run->outer.path);
	assert_true(mkdir(copy.path, 0700) == 0 || errno == EEXIST);
	usleep((useconds_t)kit_below(&run->random, RUN_US_MAX));
	if (kit_below(&run->random, 2))
		assert_int_equal(disk_sync_other(&run->disk), 0);
	memcpy(run->first, run->ledger.lines, sizeof(run->first));
	assert_int_equal(disk_snapshot(&run->disk, copy.image), 0);
	memcpy(&run->copy, &run->ledger, sizeof(run->copy));
	check_copy(run, &copy, level);
}

static void snapshots(struct run *run, const struct disk_kind *kind)
{
	const char *why = disk_unable(&disk_xfs) ? disk_unable(&disk_xfs) : disk_unable(kind);
	uint64_t wanted = (kit_number("KVK_SNAPSHOTS", SNAPSHOTS) + 2) / 3;
	struct load_found all = { 0 };
	unsigned level = 0;
	bool ring;

	if (why)
		SKIP("%s", why);
	run->random = kit_seed();
	run->load = (struct load){ .ledger = &run->ledger, .keys = KEYS, .workers = WORKERS, .bytes_max = BYTES_MAX,
				   .put_share = 11, .get_share = 2, .pause_us = PAUSE_US };
	assert_int_equal(disk_make(&run->outer, "outer", &disk_xfs, UINT64_C(2) << 30, ""), 0);
	assert_int_equal(disk_make_in(&run->disk, run->outer.path, "disk", kind, 0, ""), 0);
	snprintf(run->bed.path, sizeof(run->bed.path), "%.40s/store", run->disk.path);
	atomic_store(&bed_wrong_answers, 0);
	run->bed.kind = BED_URING;
	ring = bed_try_open(&run->bed, "", NULL) == 0;
	assert_int_equal(bed_close(&run->bed), 0);

	for (uint64_t i = 0; i < wanted; i++) {
		if (i % PER_OPEN == 0) {
			level = (unsigned)(i / PER_OPEN % 3);
			run->bed.kind = (enum bed_kind)((ring ? BED_URING : BED_THREADS) +
							kit_below(&run->random, ring ? 4 : 2));
			bed_open(&run->bed, more[level]);
			run->load.store = run->bed.store;
			run->load.promises = level == OBJECT ? LOAD_KEEPS | LOAD_ORDERS_PUTS : 0;
			load_start(&run->load, run->workers, &run->random, &run->stop);
			run->busy = true;
		}
		snapshot(run, level);
		if (i % PER_OPEN == PER_OPEN - 1 || i + 1 == wanted) {
			run->busy = false;
			load_stop(run->workers, WORKERS);
			/* One level's objects are no matter of the next: the ledger starts from what is on the medium. */
			load_verify(&run->load, NULL, true, &(struct load_found){ 0 });
			assert_int_equal(bed_close(&run->bed), 0);
			assert_int_equal(disk_sync(&run->disk), 0);
		}
	}
	for (unsigned i = 0; i < 3; i++) {
		const struct load_found *found = &run->found[i];

		printf("# %s, %s: %" PRIu64 " loads from snapshots: %" PRIu64 " hits, %" PRIu64 " other than acknowledged, %"
		       PRIu64 " rejected, %" PRIu64 " wrong, %" PRIu64 " lost\n", kind->name,
		       i == OBJECT ? "object" : i ? "batch" : "none",
		       found->hits + found->absent + found->rejected + found->rejected_again, found->hits, found->undone,
		       found->rejected, found->wrong, found->lost);
		all.hits += found->hits;
		all.rejected += found->rejected;
		all.wrong += found->wrong;
		all.lost += found->lost;
	}
	printf("# %" PRIu64 " snapshots; %" PRIu64 " of the loads had to hit\n", wanted, run->sure);
	proof_tell_more(6, wanted, "snapshots", run->ledger.wrong + all.wrong, "lost=%" PRIu64 " rejected=%" PRIu64
			" hits=%" PRIu64, all.lost, all.rejected, all.hits);
	assert_int_equal(run->found[OBJECT].rejected, 0);
	assert_true(wanted < 3 * PER_OPEN || run->sure > 0);
}

static void test_ext4(void **state)
{
	snapshots(*state, &disk_ext4);
}

static void test_xfs(void **state)
{
	snapshots(*state, &disk_xfs);
}

static void test_btrfs(void **state)
{
	snapshots(*state, &disk_btrfs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_ext4, setup, teardown),
		cmocka_unit_test_setup_teardown(test_xfs, setup, teardown),
		cmocka_unit_test_setup_teardown(test_btrfs, setup, teardown),
	};

	cmocka_set_test_filter(getenv("KVK_ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
