/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cap holds: whatever eight processes on one directory do, and whoever of them is killed or stands still, the file
 * system never holds more than the cap and what it needs itself; at rest what is counted is what is there.
 *
 * Method: a file system of its own, and a cap of 60 % of what the processes want to keep. One of the eight lives through it
 * all, for its descriptors and memory; the others are stopped and killed at random and replaced. Used blocks are sampled all the
 * time.
 *
 * What the file system needs itself is measured: before anything is stored, with all folders made, and as many empty files
 * as there will be objects (XFS makes room for inodes when there are some, folders grow).
 */
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/statvfs.h>

#include "unit/store_kit.h"

#include "system/child.h"
#include "system/disk.h"
#include "system/load.h"
#include "system/truth.h"

/* Per file system; KVK_CAP_SECONDS says another number. */
#define SECONDS (KIT_SANITIZED ? 20 : 30)
#define CHILDREN 8
#define KEYS LOAD_KEYS_MAX
#define BYTES_MAX 400000u
#define DISK_BYTES (UINT64_C(768) << 20)
#define CAP_SHARE 0.6
/* Of a call of the children's; one that takes longer counts as "deadline". */
#define DEADLINE_US 10000000
#define REST_US 60000000
/* What the one that lives through it all may have more at the end than after a third of the time. */
#define MORE_DESCRIPTORS 3
#define MORE_MEMORY (UINT64_C(8) << 20)

struct shared {
	struct load_ledger ledger;
	atomic_uint failed_opens, failed_closes;
	atomic_bool stop;
	/* Of child 0: the fewest descriptors seen between its steps, and its memory, in each third of the time. */
	atomic_uint third;
	atomic_uint_fast64_t descriptors[3], memory[3];
	atomic_uint_fast64_t samples, most_bytes;      /* used on the disk */
	atomic_uint_fast64_t most_counted_bytes;       /* charged and leased, by the account on the disk */
};

struct run {
	struct disk disk;
	struct bed bed;
	char more[256];
	struct shared *shared;
	struct load load;
	pid_t sampler;
	uint64_t random, cap_bytes, own_bytes, kills, stops;
	pid_t children[CHILDREN];
};

static int setup(void **state)
{
	return (*state = calloc(1, sizeof(struct run))) ? 0 : -1;
}

static int teardown(void **state)
{
	struct run *run = *state;

	for (unsigned i = 0; i < CHILDREN; i++)
		child_end(&run->children[i]);
	child_end(&run->sampler);
	kvk_store_close(run->bed.store);
	disk_end(&run->disk);
	if (run->shared)
		munmap(run->shared, sizeof(*run->shared));
	free(run);
	return 0;
}

/* ---- the disk ------------------------------------------------------------------------------------- */

static uint64_t used_bytes(const char *path)
{
	struct statvfs space;

	return statvfs(path, &space) ? 0 : (uint64_t)(space.f_blocks - space.f_bfree) * space.f_frsize;
}

static void sample(void *user, uint32_t index, uint64_t random)
{
	const struct run *run = user;
	struct shared *shared = run->shared;

	for (;; usleep(1000)) {
		uint64_t used = used_bytes(run->disk.path), counted, cap;

		/* Read while it is written, both copies may be torn. */
		if (!truth_account(run->bed.path, &counted, &cap) && counted > shared->most_counted_bytes)
			shared->most_counted_bytes = counted;
		if (used > shared->most_bytes)
			shared->most_bytes = used;
		shared->samples++;
	}
}

/* An empty store, all folders, and as many empty files as there may be objects at a time. */
static void measure_own(struct run *run)
{
	bed_open(&run->bed, "");
	assert_int_equal(bed_close(&run->bed), 0);
	assert_int_equal(disk_shell("cd %s && for i in $(seq 0 255); do mkdir -p -m 0700 $(printf %%02x $i); done && "
				    "for i in $(seq 1 %u); do : > $(printf %%02x/%%064x.kv $((i %% 256)) $i); done",
				    run->bed.path, KEYS), 0);
	assert_int_equal(disk_sync(&run->disk), 0);
	run->own_bytes = used_bytes(run->disk.path);
	assert_int_equal(disk_shell("cd %s && rm -f */*.kv", run->bed.path), 0);
	assert_int_equal(disk_sync(&run->disk), 0);
}

/* ---- the children --------------------------------------------------------------------------------- */

static void measure_child(struct shared *shared)
{
	unsigned third = shared->third;
	uint64_t descriptors = truth_descriptors(), memory = truth_memory();

	if (!shared->descriptors[third] || descriptors < shared->descriptors[third])
		shared->descriptors[third] = descriptors;
	if (memory > shared->memory[third])
		shared->memory[third] = memory;
}

static void child_main(void *user, uint32_t index, uint64_t random)
{
	struct run *run = user;
	struct load load = run->load;
	struct load_worker worker = { .load = &load, .index = index, .random = random };
	struct kvk_error error = { .struct_bytes = sizeof(error) };

	if (bed_try_open(&run->bed, run->more, &error)) {
		fprintf(stderr, "child %u cannot open: %s: %s\n", index, error.option, error.text);
		run->shared->failed_opens++;
		_exit(1);
	}
	load.store = run->bed.store;
	load.ledger->workers++;
	for (unsigned i = 0; !run->shared->stop; i++) {
		load_step(&worker);
		if (index == 0 && i % 16 == 0)
			measure_child(run->shared);
	}
	if (bed_close(&run->bed))
		run->shared->failed_closes++;
}

static void start_child(struct run *run, uint32_t index)
{
	run->children[index] = child_start(child_main, run, index, kit_random(&run->random));
}

static void disturb(struct run *run)
{
	uint32_t index = (uint32_t)kit_below(&run->random, CHILDREN);

	if (index > 0 && kit_below(&run->random, 3) == 0) {
		child_kill(&run->children[index]);
		start_child(run, index);
		run->kills++;
	} else {
		assert_int_equal(kill(run->children[index], SIGSTOP), 0);
		usleep((useconds_t)kit_below(&run->random, kit_below(&run->random, 16) ? 30000 : 300000));
		assert_int_equal(kill(run->children[index], SIGCONT), 0);
		run->stops++;
	}
}

static void let_children_end(struct run *run)
{
	uint64_t until_us = kit_now_us() + 60000000;

	run->shared->stop = true;
	for (unsigned i = 0; i < CHILDREN; i++)
		child_wait(&run->children[i], until_us);
}

/* ---- at rest -------------------------------------------------------------------------------------- */

static void expect_no_drift(struct run *run, const char *when)
{
	const char *what = truth_disagrees(run->bed.store, run->bed.path, REST_US);

	if (what)
		fail_msg("%s: %s", when, what);
}

static void check_at_rest(struct run *run)
{
	struct load_found found = { 0 };

	bed_open(&run->bed, run->more);
	expect_no_drift(run, "after the last child");
	assert_in_range(truth_of(run->bed.path).bytes, 1, run->cap_bytes);
	run->load.store = run->bed.store;
	load_verify(&run->load, NULL, true, &found);
	assert_int_equal(run->shared->ledger.wrong + found.wrong + atomic_load(&bed_wrong_answers), 0);
	assert_int_equal(found.lost + found.failed + found.rejected, 0);
	assert_true(found.hits > 0);
	expect_no_drift(run, "after loading everything");
	assert_int_equal(bed_close(&run->bed), 0);
	bed_open(&run->bed, run->more);
	expect_no_drift(run, "after a restart");
	assert_int_equal(bed_close(&run->bed), 0);
}

/* ---- the test ------------------------------------------------------------------------------------- */

static void tell(const struct run *run, uint64_t seconds)
{
	const struct load_ledger *ledger = &run->shared->ledger;
	const struct shared *shared = run->shared;
	double mib = 1 << 20;

	printf("# %s, %" PRIu64 " s: %" PRIu64 " kills, %" PRIu64 " stops; %" PRIuFAST64 " puts (%" PRIuFAST64 " stored, %"
	       PRIuFAST64 " no room, %" PRIuFAST64 " late), %" PRIuFAST64 " gets, %" PRIuFAST64 " hits; slowest call %.1f s\n",
	       run->disk.kind->name, seconds, run->kills, run->stops, ledger->puts, ledger->put_reasons[KVK_REASON_NONE],
	       ledger->put_reasons[KVK_REASON_NO_ROOM], ledger->put_reasons[KVK_REASON_DEADLINE], ledger->gets,
	       ledger->hits, (double)ledger->slowest_us / 1e6);
	printf("# cap %.1f MiB; the file system's own %.1f MiB; at most %.1f MiB used in %" PRIuFAST64 " samples, %.1f MiB below; "
	       "descriptors %" PRIuFAST64 ", then %" PRIuFAST64 "; memory %.1f MiB, then %.1f MiB\n",
	       (double)run->cap_bytes / mib, (double)run->own_bytes / mib, (double)run->shared->most_bytes / mib,
	       run->shared->samples,
	       ((double)run->cap_bytes + (double)run->own_bytes - (double)run->shared->most_bytes) / mib,
	       shared->descriptors[1], shared->descriptors[2], (double)shared->memory[1] / mib,
	       (double)shared->memory[2] / mib);
	proof_tell_more(14, seconds, "seconds", ledger->wrong + atomic_load(&bed_wrong_answers), "kills=%" PRIu64 " stops=%" PRIu64
			" samples=%" PRIuFAST64, run->kills, run->stops, run->shared->samples);
}

static void cap_holds(struct run *run, const struct disk_kind *kind)
{
	const char *why = disk_unable(kind);
	uint64_t seconds = kit_number("KVK_CAP_SECONDS", SECONDS), began_us, now_us, want_bytes = 0;
	struct load_ledger *ledger;

	if (why)
		SKIP("%s", why);
	run->random = kit_seed();
	assert_int_equal(disk_make(&run->disk, "disk", kind, DISK_BYTES, ""), 0);
	snprintf(run->bed.path, sizeof(run->bed.path), "%.40s/store", run->disk.path);
	run->bed.kind = (enum bed_kind)(BED_URING + kit_below(&run->random, 4));
	atomic_store(&bed_wrong_answers, 0);
	run->shared = mmap(NULL, sizeof(*run->shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(run->shared != MAP_FAILED);
	ledger = &run->shared->ledger;
	run->load = (struct load){ .ledger = ledger, .keys = KEYS, .workers = CHILDREN, .bytes_max = BYTES_MAX,
				   .promises = LOAD_ORDERS_PUTS | LOAD_ORDERS_REMOVES, .put_share = 8, .get_share = 7,
				   .chains = true, .deadline_us = DEADLINE_US };
	for (uint32_t i = 0; i < KEYS; i++)
		want_bytes += ((load_bytes(&run->load, i, 1) + 4095) & ~UINT64_C(4095)) + 4096;
	run->cap_bytes = (uint64_t)((double)want_bytes * CAP_SHARE) & ~UINT64_C(4095);
	measure_own(run);
	snprintf(run->more, sizeof(run->more), "params:\"max_capacity_gb\": %.12f; \"lanes\": 1, \"eviction\": "
		 "{\"eviction_policy\": \"LRU\", \"trigger_watermark\": 0.9, \"eviction_ratio\": 0.1}",
		 (double)run->cap_bytes / (double)(UINT64_C(1) << 30));
	bed_open(&run->bed, run->more);
	/* As it understood the fraction. */
	assert_in_range(bed_usage(run->bed.store).cap_bytes, run->cap_bytes - 1, run->cap_bytes + 1);
	run->cap_bytes = bed_usage(run->bed.store).cap_bytes;
	assert_int_equal(bed_close(&run->bed), 0);

	run->sampler = child_start(sample, run, 0, 0);
	for (uint32_t i = 0; i < CHILDREN; i++)
		start_child(run, i);
	began_us = kit_now_us();
	while ((now_us = kit_now_us()) < began_us + seconds * 1000000 && !run->shared->failed_opens) {
		run->shared->third = (unsigned)((now_us - began_us) * 3 / (seconds * 1000000));
		usleep((useconds_t)kit_below(&run->random, 60000));
		disturb(run);
	}
	assert_int_equal(run->shared->failed_opens, 0);
	let_children_end(run);
	child_end(&run->sampler);
	tell(run, seconds);

	assert_int_equal(run->shared->failed_closes, 0);
	assert_in_range(run->shared->most_bytes, 1, run->cap_bytes + run->own_bytes);
	assert_in_range(run->shared->most_counted_bytes, 1, run->cap_bytes);
	/* It was worth nothing unless the cap was reached, and the store went on working. */
	assert_true(run->shared->most_bytes > run->own_bytes + run->cap_bytes / 2);
	assert_true(ledger->put_reasons[KVK_REASON_NONE] > KEYS);
	assert_true(ledger->hits > 0);
	assert_in_range(run->shared->descriptors[2], 1, run->shared->descriptors[1] + MORE_DESCRIPTORS);
	assert_in_range(run->shared->memory[2], 1, run->shared->memory[1] + MORE_MEMORY);
	check_at_rest(run);
}

static void test_ext4(void **state)
{
	cap_holds(*state, &disk_ext4);
}

static void test_xfs(void **state)
{
	cap_holds(*state, &disk_xfs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_ext4, setup, teardown),
		cmocka_unit_test_setup_teardown(test_xfs, setup, teardown),
	};

	cmocka_set_test_filter(getenv("KVK_ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
