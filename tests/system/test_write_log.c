/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A power cut at any flush of the disk: no load answers with other bytes, and at durability `object` nothing that was
 * acknowledged by then is gone.
 *
 * Method: a store under load on a file system on a disk of tests/system/medium.h, which writes down every write and every flush,
 * and with each flush what the ledger of the load said then. Afterwards the disk is built anew as it was at each flush, and again with
 * a part of what was in its cache then and not flushed before the next one, whole writes and halves of them in any order: mounted, opened, and
 * everything loaded and judged. Nothing has to be shut down for it: what is not in the log was never written.
 */
#include <sys/mman.h>

#include "unit/store_kit.h"

#include "system/disk.h"
#include "system/load.h"
#include "system/medium.h"

/* Of all cases together; KVK_POINTS says another number. */
#define POINTS (KIT_SANITIZED ? 20 : 45)
/* From so many of a case on there are some that a store without footers would have served. */
#define POINTS_TO_REJECT 100
/* One run of a load goes on for so many flushes and acknowledged puts. */
#define RUN_FLUSHES 50
#define RUN_PUTS 16
#define RUN_POINTS 40
#define RUN_US_MAX 60000000
#define KEYS 96
#define WORKERS 2
#define BYTES_MAX 200000u
#define LOG_BYTES (UINT64_C(512) << 20)
#define MORE_BYTES 120

struct level {
	const char *name, *more;
	uint32_t promises;
};

static const struct level levels[] = {
	{ "object", "\"durability\": \"object\", \"lanes\": 2", LOAD_KEEPS | LOAD_ORDERS_PUTS },
	{ "none", "\"durability\": \"none\", \"lanes\": 2", 0 },
	{ "batch", "\"durability\": \"batch\", \"batch_seconds\": 0.1, \"lanes\": 2", 0 },
};
#define LEVELS (sizeof(levels) / sizeof(levels[0]))
#define OBJECT 0

/* Where, how, and how many of a hundred points. */
struct scene {
	const struct disk_kind *disk;
	bool pool;
	unsigned share;
	unsigned mechanism_count;
	enum bed_kind mechanisms[4];
};

#define FILES 4, { BED_THREADS, BED_THREADS_DIRECT, BED_URING, BED_URING_DIRECT }
#define POOL 2, { BED_POOL_THREADS, BED_POOL }

struct tally {
	uint64_t points, torn, sure;
	struct load_found found;
};

struct run {
	const struct scene *scene;
	struct disk disk;
	struct medium *medium;
	struct bed bed;
	struct load_ledger *ledger;    /* shared with the disk's server */
	struct load_ledger copy;       /* as it was at the point that is looked at */
	struct load load;
	struct load_worker workers[WORKERS];
	atomic_bool stop;
	bool busy;
	uint8_t *base;                 /* the disk after the last flush that was replayed */
	uint64_t random, runs, flushes, writes;
	struct tally tallies[LEVELS];
};

static int setup(void **state)
{
	struct run *run = *state = calloc(1, sizeof(*run));

	if (!run)
		return -1;
	run->ledger = mmap(NULL, sizeof(*run->ledger), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return run->ledger == MAP_FAILED ? -1 : 0;
}

static void end_disk(struct run *run)
{
	disk_end(&run->disk);
	medium_end(run->medium);
	run->medium = NULL;
	free(run->base);
	run->base = NULL;
}

static int teardown(void **state)
{
	struct run *run = *state;

	if (run->busy)
		load_stop(run->workers, WORKERS);
	kvk_store_close(run->bed.store);
	end_disk(run);
	munmap(run->ledger, sizeof(*run->ledger));
	free(run);
	return 0;
}

/* ---- what is written down -------------------------------------------------------------------------- */

/* Most of an image is holes. */
static void copy_image(struct run *run)
{
	uint64_t bytes = run->medium->image_bytes;
	int fd = open(run->disk.image, O_RDONLY | O_CLOEXEC);
	off_t from = 0, to;

	assert_true(fd >= 0);
	run->base = calloc(1, bytes);
	assert_non_null(run->base);
	while ((from = lseek(fd, from, SEEK_DATA)) >= 0) {
		to = lseek(fd, from, SEEK_HOLE);
		assert_int_equal(pread(fd, run->base + from, (size_t)(to - from), from), to - from);
		from = to;
	}
	close(fd);
}

static void make_disk(struct run *run)
{
	assert_int_equal(disk_make_image(&run->disk, DISK_WORLD, "log", run->scene->disk, 0, ""), 0);
	run->medium = medium_start(run->disk.image, LOG_BYTES, run->ledger->lines, KEYS * sizeof(struct load_line));
	assert_non_null(run->medium);
	snprintf(run->disk.file, sizeof(run->disk.file), "%s", run->medium->path);
	snprintf(run->bed.path, sizeof(run->bed.path), "%.40s/store", run->disk.path);
	copy_image(run);
	memset(run->ledger, 0, sizeof(*run->ledger));
}

static void write_log(struct run *run, const struct level *level)
{
	uint64_t until_us = kit_now_us() + RUN_US_MAX;
	struct medium *medium = run->medium;

	medium_log(medium);
	assert_int_equal(disk_mount(&run->disk), 0);
	/* The first goes through the page cache: that is where names are on the disk before what they stand for. */
	run->bed.kind = run->scene->mechanisms[run->runs++ / LEVELS % run->scene->mechanism_count];
	bed_open(&run->bed, level->more);
	run->load = (struct load){ .ledger = run->ledger, .store = run->bed.store, .keys = KEYS, .workers = WORKERS,
				   .bytes_max = BYTES_MAX, .put_share = 11, .get_share = 2, .promises = level->promises };
	load_start(&run->load, run->workers, &run->random, &run->stop);
	run->busy = true;
	while ((medium->flushes < RUN_FLUSHES || run->ledger->put_reasons[KVK_REASON_NONE] < RUN_PUTS) && !medium->full &&
	       kit_now_us() < until_us) {
		usleep((useconds_t)kit_below(&run->random, 10000));
		/* A commit for somebody else's sake brings names and lengths to the disk without the bytes that belong to them. */
		assert_int_equal(disk_sync_other(&run->disk), 0);
	}
	assert_int_equal(disk_sync_other(&run->disk), 0);
	/* The power goes here: what an end of its own would write is no part of it. */
	medium->logs = false;
	run->busy = false;
	load_stop(run->workers, WORKERS);
	assert_int_equal(run->ledger->wrong, 0);
	assert_int_equal(bed_close(&run->bed), 0);
	assert_int_equal(disk_unmount(&run->disk), 0);
	run->flushes += medium->flushes;
	run->writes += medium->writes;
}

/* ---- what is made of it --------------------------------------------------------------------------- */

/* The disk as it is in base. */
static void restore(struct run *run)
{
	struct medium *medium = run->medium;

	for (uint64_t i = 0; i < medium->image_bytes / MEDIUM_BLOCK; i++) {
		if (!medium->touched[i])
			continue;
		memcpy(medium->image + i * MEDIUM_BLOCK, run->base + i * MEDIUM_BLOCK, MEDIUM_BLOCK);
		medium->touched[i] = 0;
	}
}

static void put_bytes(struct medium *medium, uint8_t *disk, uint64_t offset, uint64_t bytes, uint64_t at)
{
	memcpy(disk + offset, medium->log + at, bytes);
	memset(medium->touched + offset / MEDIUM_BLOCK, 1, (offset % MEDIUM_BLOCK + bytes + MEDIUM_BLOCK - 1) / MEDIUM_BLOCK);
}

/* The flush after these writes, or the end of the log. */
static uint64_t next_flush(const struct medium *medium, uint64_t from)
{
	while (from < medium->entries && medium->entry[from].bytes)
		from++;
	return from;
}

/*
 * Each of these writes is there, or is not, or a part of its blocks is. A block of the disk is whole or not there, as on a drive with
 * sectors of 4 KiB: of a superblock torn in its middle ext4 refuses the mount (EBADMSG), and that would be no fault of the store.
 */
static void tear(struct run *run, uint64_t from, uint64_t to)
{
	struct medium *medium = run->medium;

	for (uint64_t i = from; i < to; i++) {
		const struct medium_entry *entry = &medium->entry[i];
		uint64_t which = kit_below(&run->random, 4), from_bytes = entry->offset, to_bytes = from_bytes + entry->bytes;
		uint64_t first = from_bytes / MEDIUM_BLOCK, blocks = (to_bytes - 1) / MEDIUM_BLOCK - first + 1;

		if (which == 0)
			continue;
		if (which == 1 && blocks > 1) {
			uint64_t skip = kit_below(&run->random, blocks), count = 1 + kit_below(&run->random, blocks - skip);

			if (skip > 0)
				from_bytes = (first + skip) * MEDIUM_BLOCK;
			if (skip + count < blocks)
				to_bytes = (first + skip + count) * MEDIUM_BLOCK;
		}
		put_bytes(medium, medium->image, from_bytes, to_bytes - from_bytes, entry->at + from_bytes - entry->offset);
	}
}

/* The first copy of the ledger at one flush, and the second at the same or a later one. */
static void look(struct run *run, const struct level *level, uint64_t from, uint64_t to)
{
	struct medium *medium = run->medium;
	const struct load_line *first = (const void *)(medium->log + medium->entry[from].at);
	struct tally *tally = &run->tallies[level - levels];
	struct load load = run->load;

	memcpy(run->copy.lines, medium->log + medium->entry[to].at + medium->witness_bytes, medium->witness_bytes);
	assert_int_equal(disk_mount(&run->disk), 0);
	run->bed.kind = run->scene->mechanisms[kit_below(&run->random, run->scene->mechanism_count)];
	bed_open(&run->bed, level->more);
	load.ledger = &run->copy;
	load.store = run->bed.store;
	load_verify(&load, first, false, &tally->found);
	assert_int_equal(bed_close(&run->bed), 0);
	assert_int_equal(disk_unmount(&run->disk), 0);
	restore(run);
	for (unsigned i = 0; i < KEYS; i++)
		tally->sure += first[i].sure && first[i].sure == run->copy.lines[i].sure;
	tally->points++;
	tally->torn += from != to;
	assert_int_equal(tally->found.wrong + atomic_load(&bed_wrong_answers), 0);
	assert_int_equal(tally->found.lost, 0);
	assert_int_equal(tally->found.failed, 0);
}

static uint64_t replay(struct run *run, const struct level *level, uint64_t most)
{
	struct medium *medium = run->medium;
	uint64_t looked = 0, flushes = 0, next;

	for (uint64_t i = 0; i < medium->entries; i++)
		flushes += medium->entry[i].bytes == 0;
	if (most > flushes)
		most = flushes;
	restore(run);
	for (uint64_t i = 0; i < medium->entries && looked < most; i++) {
		const struct medium_entry *entry = &medium->entry[i];

		if (entry->bytes) {
			put_bytes(medium, run->base, entry->offset, entry->bytes, entry->at);
			continue;
		}
		/* The last, when most was acknowledged, and so many of the others, each as likely. */
		if (--flushes > 0 && kit_below(&run->random, flushes) >= most - looked - 1)
			continue;
		restore(run);
		next = next_flush(medium, i + 1);
		if (next == medium->entries || kit_below(&run->random, 2))
			next = i;
		else
			tear(run, i + 1, next);
		look(run, level, i, next);
		looked++;
	}
	return looked;
}

/* ---- cases --------------------------------------------------------------------------------------- */

/* Returns how many files were rejected. */
static uint64_t tell(const struct run *run)
{
	uint64_t sure = 0, rejected = 0;

	for (unsigned i = 0; i < LEVELS; i++) {
		const struct tally *tally = &run->tallies[i];
		const struct load_found *found = &tally->found;
		uint64_t loads = found->hits + found->absent + found->rejected + found->rejected_again;

		printf("# %s%s, %s: %" PRIu64 " points, %" PRIu64 " of them with a part of what came next; %" PRIu64 " loads: %" PRIu64
		       " hits, %" PRIu64 " had to be, %" PRIu64 " rejected, %" PRIu64 " wrong, %" PRIu64 " lost\n",
		       run->scene->pool ? "pool on " : "", run->disk.kind->name, levels[i].name, tally->points, tally->torn, loads,
		       found->hits, tally->sure, found->rejected, found->wrong, found->lost);
		proof_tell_more(5, tally->points, "points", found->wrong, "lost=%" PRIu64 " rejected=%" PRIu64 " torn=%" PRIu64
				" loads=%" PRIu64, found->lost, found->rejected, tally->torn, loads);
		sure += tally->sure;
		rejected += found->rejected;
	}
	printf("# %" PRIu64 " writes, %" PRIu64 " flushes of the disk\n", run->writes, run->flushes);
	fflush(stdout);
	assert_true(sure > 0);
	return rejected;
}

static void write_logs(struct run *run, const struct scene *scene)
{
	const char *why = disk_unable(scene->disk) ? disk_unable(scene->disk) : medium_unable();
	uint64_t wanted = (kit_number("KVK_POINTS", POINTS) * scene->share + 99) / 100, points = wanted, rejected;

	if (why)
		SKIP("%s", why);
	run->random = kit_seed();
	run->scene = scene;
	atomic_store(&bed_wrong_answers, 0);
	for (uint64_t i = 0; points > 0; i++) {
		const struct level *level = &levels[i % LEVELS];
		/* A third of what is left each, so that all of them have some. */
		uint64_t most = i < LEVELS ? 1 + (points - 1) / (LEVELS - i) : points;

		if (most > RUN_POINTS)
			most = RUN_POINTS;
		make_disk(run);
		write_log(run, level);
		most = replay(run, level, most);
		assert_true(most > 0);
		points -= most;
		end_disk(run);
	}
	rejected = tell(run);
	if (scene->pool)
		return;
	/* The data of an object is on the disk before its name is. */
	assert_int_equal(run->tallies[OBJECT].found.rejected, 0);
	assert_true(rejected > 0 || wanted < POINTS_TO_REJECT);
}

static void test_ext4(void **state)
{
	write_logs(*state, &(struct scene){ &disk_ext4, false, 25, FILES });
}

static void test_ext4_writeback(void **state)
{
	write_logs(*state, &(struct scene){ &disk_ext4_writeback, false, 20, FILES });
}

static void test_xfs(void **state)
{
	write_logs(*state, &(struct scene){ &disk_xfs, false, 25, FILES });
}

static void test_pool_ext4(void **state)
{
	write_logs(*state, &(struct scene){ &disk_ext4, true, 15, POOL });
}

static void test_pool_xfs(void **state)
{
	write_logs(*state, &(struct scene){ &disk_xfs, true, 15, POOL });
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_ext4, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ext4_writeback, setup, teardown),
		cmocka_unit_test_setup_teardown(test_xfs, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pool_ext4, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pool_xfs, setup, teardown),
	};

	cmocka_set_test_filter(getenv("KVK_ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
