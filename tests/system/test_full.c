/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A medium without room refuses what has none, at whichever write it runs out, and nothing else: what is there is
 * served, nobody waits for ever, nothing half-written is left, and when there is room again puts work again.
 *
 * Method: small file systems of their own, which a file beside the store fills up to a chosen number of free blocks.
 */
#include "unit/store_kit.h"

#include <sys/statvfs.h>

#include "system/disk.h"
#include "system/load.h"
#include "system/truth.h"

#define BLOCK 4096u
/* Of an object: 18 blocks and one of footer; folders and what a file system keeps for itself come on top. */
#define BYTES 70000u
#define KEYS 256
#define WORKERS 3
#define BYTES_MAX 400000u
/* A call that hung was answered by its deadline, after 30 s; until then the machine was busy. */
#define STUCK_US 25000000
/* After room came back. */
#define RECOVER_US 20000000
#define REST_US 60000000

struct run {
	struct disk disk;
	struct bed bed;
	struct load load;
	struct load_ledger ledger;
	struct load_worker workers[WORKERS];
	atomic_bool stop;
	bool busy;
	int filler;
	uint64_t random;
};

static int setup(void **state)
{
	struct run *run = calloc(1, sizeof(*run));

	*state = run;
	if (run)
		run->filler = -1;
	return run ? 0 : -1;
}

static int teardown(void **state)
{
	struct run *run = *state;

	if (run->busy)
		load_stop(run->workers, WORKERS);
	kvk_store_close(run->bed.store);
	if (run->filler >= 0)
		close(run->filler);
	disk_end(&run->disk);
	free(run);
	return 0;
}

static void begin(struct run *run, const struct disk_kind *kind, uint64_t bytes, const char *more)
{
	const char *why = disk_unable(kind);
	char path[96];

	if (why)
		SKIP("%s", why);
	run->random = kit_seed();
	assert_int_equal(disk_make(&run->disk, "disk", kind, bytes, more), 0);
	snprintf(run->bed.path, sizeof(run->bed.path), "%.40s/store", run->disk.path);
	snprintf(path, sizeof(path), "%.40s/filler", run->disk.path);
	run->filler = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(run->filler >= 0);
	atomic_store(&bed_wrong_answers, 0);
}

static void make_room(struct run *run)
{
	assert_int_equal(ftruncate(run->filler, 0), 0);
	/* A journal gives blocks back when it commits. */
	assert_int_equal(disk_sync(&run->disk), 0);
}

/* Takes all blocks, in ever smaller pieces, and then gives back so many. */
static void leave_room(struct run *run, uint64_t blocks)
{
	uint64_t bytes = 0;

	make_room(run);
	for (uint64_t part = UINT64_C(1) << 28; part >= BLOCK; ) {
		if (fallocate(run->filler, 0, (off_t)bytes, (off_t)part))
			part /= 2;
		else
			bytes += part;
	}
	assert_true(bytes > blocks * BLOCK);
	assert_int_equal(ftruncate(run->filler, (off_t)(bytes - blocks * BLOCK)), 0);
	assert_int_equal(disk_sync(&run->disk), 0);
}

static void open_with(struct run *run, enum bed_kind kind, const char *more)
{
	run->bed.kind = kind;
	bed_open(&run->bed, more);
}

/* There was no room a moment ago, and a store may be careful for a minute; one that is opened anew knows nothing of it. */
static void put_at_last(struct run *run, const char *key, uint64_t bytes)
{
	uint64_t until_us = kit_now_us() + RECOVER_US;
	struct kvk_result result;

	while ((result = kit_store(run->bed.store, key, bytes, 1)).status && kit_now_us() < until_us)
		usleep(20000);
	KIT_EXPECT(result, 0, result.status ? KVK_REASON_NONE : result.reason);
	assert_int_equal(bed_get(run->bed.store, key, bytes, 1, NULL), 0);
}

/* ---- the nth write finds no room ------------------------------------------------------------------ */

static void each_write(struct run *run, const struct disk_kind *kind, uint64_t disk_bytes, const char *make,
		       unsigned free_max)
{
	static const char *const more[] = { "\"lanes\": 1", "\"lanes\": 1, \"durability\": \"object\"" };
	unsigned refused = 0, stored = 0, count = 0;
	struct kvk_result result;
	struct truth truth;
	uint64_t began_us;
	char key[32];

	begin(run, kind, disk_bytes, make);
	for (unsigned blocks = 0; blocks <= free_max; blocks++) {
		/* Not each with each: what a put meets depends on the blocks that are left, not on the way there. */
		open_with(run, (enum bed_kind)(BED_URING + blocks % 4), more[blocks / 4 % 2]);
		snprintf(key, sizeof(key), "k%u", count++);
		leave_room(run, blocks);
		began_us = kit_now_us();
		result = kit_store(run->bed.store, key, BYTES, 1);
		assert_in_range(kit_now_us() - began_us, 0, STUCK_US);
		if (result.status == 0)
			stored++;
		else
			refused++;
		if (result.status)
			KIT_EXPECT(result, -ENOSPC, KVK_REASON_NO_ROOM);
		KIT_EXPECT(kit_load(run->bed.store, key, BYTES, 1), result.status ? -ENOENT : 0,
			   result.status ? KVK_REASON_ABSENT : KVK_REASON_NONE);
		for (unsigned i = 0; i + 1 < count; i++) {
			snprintf(key, sizeof(key), "k%u", i);
			KIT_EXPECT(kit_load(run->bed.store, key, BYTES, 1), 0, KVK_REASON_NONE);
		}
		make_room(run);
		snprintf(key, sizeof(key), "k%u", count - 1);
		put_at_last(run, key, BYTES);
		truth = truth_of(run->bed.path);
		assert_int_equal(truth.objects, count);
		assert_int_equal(truth.others, 0);
		assert_int_equal(bed_close(&run->bed), 0);
	}
	printf("# %s: %u puts refused, %u stored, at 0 to %u free blocks\n", kind->name, refused, stored, free_max);
	proof_tell_more(15, refused, "puts", atomic_load(&bed_wrong_answers), "stored=%u", stored);
	assert_true(refused > 0 && stored > 0);
	assert_int_equal(atomic_load(&bed_wrong_answers), 0);
}

static void test_each_write_ext4(void **state)
{
	each_write(*state, &disk_ext4, UINT64_C(48) << 20, "-m 0", 29);
}

static void test_each_write_xfs(void **state)
{
	each_write(*state, &disk_xfs, 0, "", 89);
}

/* ---- no inodes ------------------------------------------------------------------------------------ */

static void test_no_inodes(void **state)
{
	struct run *run = *state;
	struct kvk_result result = { 0 };
	unsigned count = 0;
	char key[32];

	begin(run, &disk_ext4, 0, "-N 400");
	open_with(run, BED_URING, "\"lanes\": 2");
	for (count = 0; count < 500; count++) {
		snprintf(key, sizeof(key), "k%u", count);
		result = kit_store(run->bed.store, key, 1000, 1);
		if (result.status)
			break;
	}
	KIT_EXPECT(result, -ENOSPC, KVK_REASON_NO_ROOM);
	assert_in_range(count, 20, 400);
	for (unsigned i = 0; i < count; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		KIT_EXPECT(kit_load(run->bed.store, key, 1000, 1), 0, KVK_REASON_NONE);
	}
	/* The same after a restart, which may find no inode for anything of its own. */
	bed_reopen(&run->bed, "\"lanes\": 2");
	KIT_EXPECT(kit_load(run->bed.store, "k0", 1000, 1), 0, KVK_REASON_NONE);
	KIT_EXPECT(kit_store(run->bed.store, "new", 1000, 1), -ENOSPC, KVK_REASON_NO_ROOM);
	for (unsigned i = 0; i < 8; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		assert_int_equal(bed_remove(run->bed.store, key, NULL), 0);
	}
	put_at_last(run, "k0", 1000);
	assert_int_equal(bed_close(&run->bed), 0);
	assert_int_equal(atomic_load(&bed_wrong_answers), 0);
}

/* ---- somebody else fills the disk, and clears it --------------------------------------------------- */

static void refusals_only(const atomic_uint_fast64_t reasons[16], uint32_t more)
{
	for (uint32_t i = 0; i < 16; i++) {
		if (reasons[i] && !((1u << i) & (1u << KVK_REASON_NONE | 1u << KVK_REASON_ABSENT | 1u << KVK_REASON_BUSY |
						1u << KVK_REASON_NO_ROOM | 1u << KVK_REASON_PRESENT | more)))
			fail_msg("%" PRIuFAST64 " answers are \"%s\"", reasons[i], kvk_reason_text(i));
	}
}

static void under_load(struct run *run, const char *more, void (*disturb)(struct run *), uint32_t reasons)
{
	struct load_found found = { 0 };
	struct load_ledger *ledger = &run->ledger;
	const char *what;

	run->load = (struct load){ .ledger = ledger, .keys = KEYS, .workers = WORKERS, .bytes_max = BYTES_MAX,
				   .promises = LOAD_KEEPS | LOAD_ORDERS_PUTS | LOAD_ORDERS_REMOVES,
				   .put_share = 11, .get_share = 3 };
	memset(ledger->put_reasons, 0, sizeof(ledger->put_reasons));
	memset(ledger->get_reasons, 0, sizeof(ledger->get_reasons));
	open_with(run, (enum bed_kind)(BED_URING + kit_below(&run->random, 4)), more);
	run->load.store = run->bed.store;
	load_start(&run->load, run->workers, &run->random, &run->stop);
	run->busy = true;
	disturb(run);
	run->busy = false;
	load_stop(run->workers, WORKERS);
	printf("# %s, %s: %" PRIuFAST64 " puts, %" PRIuFAST64 " without room; %" PRIuFAST64 " gets; slowest call %"
	       PRIuFAST64 " us\n", run->disk.kind ? run->disk.kind->name : "faults", bed_kind_name(run->bed.kind),
	       ledger->puts, ledger->put_reasons[KVK_REASON_NO_ROOM], ledger->gets, ledger->slowest_us);
	fflush(stdout);
	assert_in_range(ledger->slowest_us, 0, STUCK_US);
	assert_true(ledger->put_reasons[KVK_REASON_NO_ROOM] > 0);
	assert_true(ledger->put_reasons[KVK_REASON_NONE] > 0);
	refusals_only(ledger->put_reasons, reasons);
	refusals_only(ledger->get_reasons, reasons);
	assert_int_equal(bed_close(&run->bed), 0);
	/* And after a restart, with a healthy medium. */
	open_with(run, run->bed.kind, "");
	put_at_last(run, "afterwards", BYTES);
	run->load.store = run->bed.store;
	load_verify(&run->load, NULL, true, &found);
	assert_int_equal(ledger->wrong + found.wrong + atomic_load(&bed_wrong_answers), 0);
	assert_int_equal(found.lost + found.failed + found.rejected, 0);
	assert_int_equal(bed_remove(run->bed.store, "afterwards", NULL), 0);
	what = truth_disagrees(run->bed.store, run->bed.path, REST_US);
	if (what)
		fail_msg("%s", what);
	assert_int_equal(bed_close(&run->bed), 0);
}

static void fill_and_clear(struct run *run)
{
	for (unsigned i = 0; i < 12; i++) {
		leave_room(run, kit_below(&run->random, 200));
		usleep((useconds_t)kit_below(&run->random, 100000));
		make_room(run);
		usleep((useconds_t)kit_below(&run->random, 50000));
	}
}

static void test_others_fill_ext4(void **state)
{
	struct run *run = *state;

	begin(run, &disk_ext4, 0, "-m 0");
	for (unsigned i = 0; i < 3; i++)
		under_load(run, i % 2 ? "\"durability\": \"object\"" : "", fill_and_clear, 0);
}

static void test_others_fill_xfs(void **state)
{
	struct run *run = *state;

	begin(run, &disk_xfs, 0, "");
	for (unsigned i = 0; i < 2; i++)
		under_load(run, i % 2 ? "\"durability\": \"object\"" : "", fill_and_clear, 0);
}

/* A quota is like a full disk; there are none on this kernel, so the fault backend says it. */
static void wait_a_second(struct run *run)
{
	usleep(1000000);
}

static void test_quota(void **state)
{
	struct run *run = *state;

	begin(run, &disk_ext4, 0, "-m 0");
	under_load(run, "\"fault\": [{\"do\": \"fail\", \"ops\": [\"create\", \"write\", \"reserve\", \"publish\"], "
		   "\"error\": \"EDQUOT\", \"chance\": 0.2}]", wait_a_second, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_each_write_ext4, setup, teardown),
		cmocka_unit_test_setup_teardown(test_each_write_xfs, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_inodes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_others_fill_ext4, setup, teardown),
		cmocka_unit_test_setup_teardown(test_others_fill_xfs, setup, teardown),
		cmocka_unit_test_setup_teardown(test_quota, setup, teardown),
	};

	cmocka_set_test_filter(getenv("KVK_ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
