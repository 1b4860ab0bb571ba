/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes that die leave nothing behind that is wrong, uncounted or unbounded, and lose nothing that they were told is
 * stored, whichever of them dies: writers, readers, the one that is the keeper, and while the others go on.
 *
 * Method: children share one directory and a ledger that outlives them. One after the other is killed and replaced; then
 * all are, and the directory is judged from outside, and opened and judged from inside.
 */
#include <sched.h>
#include <sys/mman.h>

#include "unit/store_kit.h"

#include "system/child.h"
#include "system/disk.h"
#include "system/load.h"
#include "system/truth.h"

/* In all; KVK_KILLS says another number. */
#define KILLS (KIT_SANITIZED ? 200 : 1000)
#define WRITERS 2
#define CHILDREN 3
/* While the others go on. */
#define ROLLING 5
#define THOROUGH 40           /* one round of so many waits until everything is swept and compared */
#define KEYS 96
#define BYTES_MAX 200000u
#define REST_US 60000000

struct shared {
	struct load_ledger ledger;
	atomic_uint failed_opens;
	atomic_bool is_keeper[CHILDREN];
};

struct run {
	struct bed *bed;
	struct shared *shared;
	struct load load;
	uint64_t random, kills, keepers, opening, left, most_left;
	pid_t children[CHILDREN];
	struct load_found found;
};

static void child_main(void *user, uint32_t index, uint64_t random)
{
	struct run *run = user;
	struct load load = run->load;
	struct load_worker worker = { .load = &load, .index = index, .random = random };

	if (index >= WRITERS) {
		load.put_share = 0;
		load.get_share = 16;
	}
	if (bed_try_open(run->bed, "\"lanes\": 1", NULL)) {
		run->shared->failed_opens++;
		_exit(1);
	}
	load.store = run->bed->store;
	load.ledger->workers++;
	for (;;) {
		load_step(&worker);
		run->shared->is_keeper[index] = bed_usage(load.store).flags & KVK_USAGE_KEEPER;
	}
}

static void start_child(struct run *run, uint32_t index)
{
	run->children[index] = child_start(child_main, run, index, kit_random(&run->random));
}

static void kill_child(struct run *run, uint32_t index)
{
	child_kill(&run->children[index]);
	run->kills++;
	run->keepers += run->shared->is_keeper[index];
	run->shared->is_keeper[index] = false;
}

static void kills(struct run *run)
{
	bool wait_ready = kit_below(&run->random, 8) > 0;      /* else they may die while they open */
	uint32_t index;

	run->shared->ledger.workers = 0;
	for (uint32_t i = 0; i < CHILDREN; i++)
		start_child(run, i);
	while (wait_ready && run->shared->ledger.workers < CHILDREN && !run->shared->failed_opens)
		sched_yield();
	run->opening += !wait_ready;
	for (unsigned i = 0; i < ROLLING; i++) {
		usleep((useconds_t)kit_below(&run->random, 15000));
		index = (uint32_t)kit_below(&run->random, CHILDREN);
		kill_child(run, index);
		start_child(run, index);
	}
	usleep((useconds_t)kit_below(&run->random, 10000));
	for (uint32_t i = 0; i < CHILDREN; i++)
		kill_child(run, i);
}

static void check(struct run *run, bool thorough)
{
	struct truth truth = truth_of(run->bed->path);
	const char *what;

	run->left = truth.others;
	run->most_left = truth.others > run->most_left ? truth.others : run->most_left;
	bed_open(run->bed, "");
	what = truth_exceeds(run->bed->store, run->bed->path);
	if (what)
		fail_msg("%s", what);
	run->load.store = run->bed->store;
	load_verify(&run->load, NULL, true, &run->found);
	assert_int_equal(run->shared->ledger.wrong + run->found.wrong + atomic_load(&bed_wrong_answers), 0);
	assert_int_equal(run->found.lost, 0);
	assert_int_equal(run->found.failed, 0);
	assert_int_equal(run->found.rejected, 0);
	/* What was answered is so: nothing is kept back by who died. */
	assert_int_equal(run->found.undone, 0);
	what = thorough ? truth_disagrees(run->bed->store, run->bed->path, REST_US) : NULL;
	if (what)
		fail_msg("%s", what);
	assert_int_equal(bed_close(run->bed), 0);
}

static void test_kills(void **state)
{
	struct run run = { .bed = *state, .random = kit_seed() };
	uint64_t wanted = kit_number("KVK_KILLS", KILLS), since_sweep = 0;
	struct load_ledger *ledger;
	bool ring;

	run.shared = mmap(NULL, sizeof(*run.shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(run.shared != MAP_FAILED);
	ledger = &run.shared->ledger;
	run.load = (struct load){ .ledger = ledger, .keys = KEYS, .workers = WRITERS, .bytes_max = BYTES_MAX,
				  .promises = LOAD_KEEPS | LOAD_ORDERS_PUTS | LOAD_ORDERS_REMOVES,
				  .put_share = 9, .get_share = 3 };
	ring = bed_try_open(run.bed, "", NULL) == 0;
	assert_int_equal(bed_close(run.bed), 0);
	for (uint64_t round = 0; run.kills < wanted; round++) {
		bool thorough = round % THOROUGH == THOROUGH - 1;

		/* Each mechanism finds what the others left. */
		run.bed->kind = (enum bed_kind)((ring ? BED_URING : BED_THREADS) +
						kit_below(&run.random, ring ? 4 : 2));
		kills(&run);
		assert_int_equal(run.shared->failed_opens, 0);
		since_sweep += CHILDREN + ROLLING;
		check(&run, thorough || run.kills >= wanted);
		/* One that dies leaves at most what it had under way. */
		assert_in_range(run.left, 0, since_sweep * LOAD_BATCH);
		since_sweep = thorough ? 0 : since_sweep;
	}
	printf("# %" PRIu64 " kills (%" PRIu64 " of a keeper, %" PRIu64 " rounds while opening): %" PRIuFAST64 " puts, %" PRIuFAST64 " removes, %"
	       PRIuFAST64 " gets (%" PRIuFAST64 " hits); after them %" PRIu64 " loads, %" PRIu64 " lost, %" PRIu64
	       " wrong; at most %" PRIu64 " files left to sweep\n", run.kills, run.keepers, run.opening, ledger->puts, ledger->removes,
	       ledger->gets, ledger->hits, run.found.hits + run.found.absent, run.found.lost, run.found.wrong, run.most_left);
	proof_tell_more(7, run.kills, "kills", ledger->wrong + run.found.wrong, "lost=%" PRIu64 " keepers=%" PRIu64, run.found.lost,
			run.keepers);
	/* Nothing that a child met was out of the ordinary. */
	assert_int_equal(ledger->refused, 0);
	assert_true(run.keepers > 0);
	munmap(run.shared, sizeof(*run.shared));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BED_TEST(test_kills, BED_URING, "all mechanisms in turn"),
	};

	if (disk_world() == NULL)
		setenv("KVK_TEST_DIR", DISK_WORLD, 0);
	kit_in_memory();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
