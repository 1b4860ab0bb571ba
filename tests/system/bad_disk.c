/* SPDX-License-Identifier: Apache-2.0 */
#include "system/bad_disk.h"

/* Only a wait that has no end takes as long, on whatever machine. */
#define CALL_US_MAX 30000000
#define WAIT_US 60000000

#define FILES 4, { BED_URING, BED_URING_DIRECT, BED_THREADS, BED_THREADS_DIRECT }
/* A journal that is never full within a round: what a flush that failed took with it is not the file system's own past. */
#define EXT4 &disk_ext4, UINT64_C(320) << 20, "-J size=64"

const struct bad_disk_scene bad_disk_ext4 = { EXT4, FILES };
const struct bad_disk_scene bad_disk_xfs = { &disk_xfs, 0, "", FILES };
/* A pool is opened in the shape in which it was made. */
const struct bad_disk_scene bad_disk_pool_pages = { EXT4, 2, { BED_POOL, BED_POOL_THREADS } };
const struct bad_disk_scene bad_disk_pool_slots = { EXT4, 1, { BED_POOL_DIRECT } };

void bad_disk_open(struct bad_disk *run)
{
	run->bed.kind = run->scene->mechanisms[kit_below(&run->random, run->scene->mechanism_count)];
	bed_open(&run->bed, "\"durability\": \"object\", \"lanes\": 2");
	run->load.store = run->bed.store;
}

void bad_disk_start_load(struct bad_disk *run)
{
	load_start(&run->load, run->workers, &run->random, &run->stop);
	run->busy = true;
}

void bad_disk_stop_load(struct bad_disk *run)
{
	run->busy = false;
	load_stop(run->workers, BAD_DISK_WORKERS);
}

void bad_disk_close_and_mount(struct bad_disk *run)
{
	assert_int_equal(bed_close(&run->bed), 0);
	assert_int_equal(disk_unmount(&run->disk), 0);
	assert_int_equal(disk_mount(&run->disk), 0);
}

void bad_disk_run_load(struct bad_disk *run)
{
	usleep((useconds_t)kit_below(&run->random, BAD_DISK_RUN_US_MAX));
}

uint64_t bad_disk_good_puts(const struct bad_disk *run)
{
	return run->ledger.put_reasons[KVK_REASON_NONE] + run->ledger.put_reasons[KVK_REASON_PRESENT];
}

void bad_disk_wait(const struct bad_disk *run, uint64_t (*count)(const struct bad_disk *run), uint64_t least, const char *what)
{
	uint64_t until_us = kit_now_us() + WAIT_US;

	while (count(run) < least) {
		if (kit_now_us() > until_us)
			fail_msg("%s", what);
		usleep(500);
	}
}

void bad_disk_verify(struct bad_disk *run)
{
	for (unsigned i = 0; i < BAD_DISK_KEYS; i++)
		run->acknowledged += run->ledger.lines[i].sure != 0;
	bad_disk_close_and_mount(run);
	bad_disk_open(run);
	load_verify(&run->load, NULL, true, &run->found);
	assert_int_equal(run->ledger.wrong + run->found.wrong + atomic_load(&bed_wrong_answers), 0);
	assert_int_equal(run->found.lost, 0);
	assert_int_equal(run->found.failed, 0);
	assert_in_range(run->ledger.slowest_us, 0, CALL_US_MAX);
	run->rounds++;
}

void bad_disk_begin(struct bad_disk *run, const struct bad_disk_scene *scene)
{
	const char *why = disk_unable(scene->disk) ? disk_unable(scene->disk) : medium_unable();

	if (why)
		SKIP("%s", why);
	run->scene = scene;
	run->random = kit_seed();
	run->load = (struct load){ .ledger = &run->ledger, .keys = BAD_DISK_KEYS, .workers = BAD_DISK_WORKERS, .bytes_max = BAD_DISK_BYTES_MAX,
				   .promises = LOAD_KEEPS | LOAD_ORDERS_PUTS, .put_share = 9, .get_share = 5 };
	atomic_store(&bed_wrong_answers, 0);
	assert_int_equal(disk_make_image(&run->disk, DISK_WORLD, "bad", scene->disk, scene->disk_bytes, scene->make), 0);
	run->medium = medium_start(run->disk.image, 0, NULL, 0);
	assert_non_null(run->medium);
	snprintf(run->disk.file, sizeof(run->disk.file), "%s", run->medium->path);
	assert_int_equal(disk_mount(&run->disk), 0);
	snprintf(run->bed.path, sizeof(run->bed.path), "%.40s/store", run->disk.path);
	bad_disk_open(run);
}

int bad_disk_setup(void **state)
{
	return (*state = calloc(1, sizeof(struct bad_disk))) ? 0 : -1;
}

int bad_disk_teardown(void **state)
{
	struct bad_disk *run = *state;

	if (run->medium)
		medium_heal(run->medium);
	if (run->busy)
		bad_disk_stop_load(run);
	kvk_store_close(run->bed.store);
	disk_end(&run->disk);
	medium_end(run->medium);
	free(run);
	return 0;
}

void bad_disk_tell(const struct bad_disk *run, unsigned row, const char *what, const char *unit)
{
	const struct load_ledger *ledger = &run->ledger;
	const struct medium *medium = run->medium;
	uint64_t errors = medium->failed_reads + medium->failed_writes + medium->failed_flushes;

	printf("# %s, %s, %s: %" PRIu64 " %s; of %" PRIuFAST64 " reads, %" PRIuFAST64 " writes, %" PRIuFAST64 " flushes of the disk %"
	       PRIuFAST64 ", %" PRIuFAST64 ", %" PRIuFAST64 " failed\n", what, run->disk.kind->name, bed_kind_name(run->bed.kind),
	       run->rounds, unit, medium->reads, medium->writes, medium->flushes, medium->failed_reads, medium->failed_writes,
	       medium->failed_flushes);
	printf("# %" PRIuFAST64 " puts, %" PRIuFAST64 " not durable, %" PRIuFAST64 " gets, %" PRIuFAST64 " hits; errors of the medium: %"
	       PRIuFAST64 " puts, %" PRIuFAST64 " gets; late or refused at once: %" PRIuFAST64 ", %" PRIuFAST64 "; slowest call %.2f s\n",
	       ledger->puts, ledger->put_reasons[KVK_REASON_NOT_DURABLE], ledger->gets, ledger->hits,
	       ledger->put_reasons[KVK_REASON_MEDIUM], ledger->get_reasons[KVK_REASON_MEDIUM],
	       ledger->put_reasons[KVK_REASON_DEADLINE] + ledger->put_reasons[KVK_REASON_DEGRADED],
	       ledger->get_reasons[KVK_REASON_DEADLINE] + ledger->get_reasons[KVK_REASON_DEGRADED],
	       (double)ledger->slowest_us / 1e6);
	printf("# when it was well again: %" PRIu64 " keys had to be found; %" PRIu64 " hits, %" PRIu64 " rejected, %" PRIu64 " wrong, %"
	       PRIu64 " lost\n", run->acknowledged, run->found.hits, run->found.rejected, run->found.wrong, run->found.lost);
	proof_tell_more(row, run->rounds, unit, run->ledger.wrong + run->found.wrong, "lost=%" PRIu64 " errors=%" PRIu64
			" loads=%" PRIu64, run->found.lost, errors, run->found.hits + run->found.absent + run->found.rejected);
	assert_true(run->acknowledged > 0);
}
