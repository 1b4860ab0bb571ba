/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process that dies leaves nothing behind that is wrong, and loses nothing that it was told is stored.
 *
 * Method: two processes at a time (one, where it is a pool) put, load and remove on one directory and are killed at a random moment. In a ledger
 * of shared memory each says what it is about to do with a key and, once the store has answered, that it was done; the
 * ledger outlives them. Then the directory is opened again: what was acknowledged is a hit with its bytes, what was
 * under way is a hit or a clean miss.
 */
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "unit/store_kit.h"

#define ROUNDS 200
#define PROCESSES 2
#define KEYS 64
#define BATCH 8
#define OBJECT_BYTES_MAX 200000u
/* A dead process leaves at most what it had under way. */
#define LEFT_MAX (PROCESSES * BATCH)

enum phase { ABSENT = 0, PUTTING, PRESENT, REMOVING };

/* Of one key; written by the process that owns it. */
struct line {
	_Atomic uint32_t phase;
	_Atomic uint32_t generation;
};

struct ledger {
	struct line lines[KEYS];
	atomic_uint wrong;             /* found by a child */
	atomic_uint strange;           /* an answer that no child may get */
	atomic_uint ready;
	atomic_uint_fast64_t puts, gets, hits, removes;
};

static void key_text(char text[32], unsigned number)
{
	snprintf(text, 32, "model@%08x@0@%04x", number % PROCESSES, number);
}

static uint64_t object_bytes(unsigned number, uint32_t generation)
{
	return kit_mix(number * 1000003u + generation) % OBJECT_BYTES_MAX;
}

/* ---- the children --------------------------------------------------------------------------------- */

struct child {
	struct bed *bed;
	struct ledger *ledger;
	unsigned index;
	uint64_t random;
	uint8_t *memory;
};

static unsigned own_key(struct child *child)
{
	return (unsigned)kit_below(&child->random, KEYS / PROCESSES) * PROCESSES + child->index;
}

static void child_put(struct child *child)
{
	struct kvk_put_item items[BATCH];
	struct kvk_result results[BATCH];
	struct iovec data[BATCH];
	unsigned numbers[BATCH];
	char keys[BATCH][32];
	uint32_t count = 0, wanted = 1 + (uint32_t)kit_below(&child->random, BATCH);

	memset(items, 0, sizeof(items));
	for (uint32_t i = 0; i < wanted; i++) {
		unsigned number = own_key(child);
		struct line *line = &child->ledger->lines[number];
		uint32_t generation = line->generation + 1;

		if (line->phase != ABSENT)
			continue;
		key_text(keys[count], number);
		data[count].iov_base = child->memory + (uint64_t)count * OBJECT_BYTES_MAX;
		data[count].iov_len = object_bytes(number, generation);
		bed_fill(data[count].iov_base, data[count].iov_len, bed_key(keys[count]), generation, 0);
		items[count] = (struct kvk_put_item){ .struct_bytes = sizeof(items[0]), .key = bed_key(keys[count]),
						      .data = &data[count], .data_count = 1 };
		results[count].struct_bytes = sizeof(results[0]);
		numbers[count++] = number;
		line->generation = generation;
		line->phase = PUTTING;
	}
	if (count == 0)
		return;
	if (kvk_store_put_wait(child->bed->store, items, count, 0, results)) {
		child->ledger->strange++;
		return;
	}
	for (uint32_t i = 0; i < count; i++) {
		if (results[i].status || results[i].reason != KVK_REASON_NONE)
			child->ledger->strange++;
		child->ledger->lines[numbers[i]].phase = results[i].status ? ABSENT : PRESENT;
	}
	child->ledger->puts += count;
}

static void child_remove(struct child *child)
{
	unsigned number = own_key(child);
	struct line *line = &child->ledger->lines[number];
	char key[32];

	if (line->phase != PRESENT)
		return;
	key_text(key, number);
	line->phase = REMOVING;
	if (bed_remove(child->bed->store, key, NULL))
		child->ledger->strange++;
	line->phase = ABSENT;
	child->ledger->removes++;
}

/* Anybody's key: its owner may change it meanwhile, so any of the generations between is right. */
static void child_get(struct child *child)
{
	unsigned number = (unsigned)kit_below(&child->random, KEYS);
	struct line *line = &child->ledger->lines[number];
	uint32_t from = line->generation, to;
	struct kvk_result result;
	bool right = false;
	char key[32];

	key_text(key, number);
	result = kit_get(child->bed->store, bed_key(key), child->memory, OBJECT_BYTES_MAX, 0);
	to = line->generation;
	child->ledger->gets++;
	if (result.status && result.status != -ENOENT)
		child->ledger->strange++;
	if (result.status)
		return;
	for (uint32_t generation = from; generation <= to && !right; generation++)
		right = result.object_bytes == object_bytes(number, generation) &&
			bed_judge(child->memory, result.object_bytes, bed_key(key), generation, 0) == BED_RIGHT;
	if (!right)
		child->ledger->wrong++;
	child->ledger->hits++;
}

static void child_main(struct child *child)
{
	child->memory = malloc((uint64_t)BATCH * OBJECT_BYTES_MAX);
	if (!child->memory || bed_try_open(child->bed, "", NULL)) {
		child->ledger->strange++;
		child->ledger->ready++;
		pause();
	}
	child->ledger->ready++;
	for (;;) {
		switch (kit_below(&child->random, 4)) {
		case 0:
			child_remove(child);
			break;
		case 1:
			child_get(child);
			break;
		default:
			child_put(child);
			break;
		}
	}
}

/* ---- the rounds ----------------------------------------------------------------------------------- */

static void run_and_kill(struct bed *bed, struct ledger *ledger, uint64_t *random)
{
	bool wait_ready = kit_below(random, 8) > 0;    /* else they may die while they open */
	unsigned processes = bed_is_pool(bed) ? 1 : PROCESSES;
	pid_t children[PROCESSES];
	int status;

	ledger->ready = 0;
	for (unsigned i = 0; i < processes; i++) {
		struct child child = { .bed = bed, .ledger = ledger, .index = i, .random = kit_random(random) };

		children[i] = fork();
		assert_true(children[i] >= 0);
		if (children[i] == 0)
			child_main(&child);
	}
	while (wait_ready && ledger->ready < processes)
		sched_yield();
	for (unsigned i = 0; i < processes; i++) {
		usleep((useconds_t)kit_below(random, 20000));
		assert_int_equal(kill(children[i], SIGKILL), 0);
	}
	for (unsigned i = 0; i < processes; i++) {
		assert_int_equal(waitpid(children[i], &status, 0), children[i]);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	}
}

struct tally {
	uint64_t kills, acknowledged, under_way, came_through, left;
};

static void check_key(struct bed *bed, struct ledger *ledger, unsigned number, struct tally *tally)
{
	struct line *line = &ledger->lines[number];
	uint32_t generation = line->generation, phase = line->phase;
	struct kvk_result result;
	char key[32];

	key_text(key, number);
	result = kit_load(bed->store, key, object_bytes(number, generation), generation);
	if (result.status != 0 && (result.status != -ENOENT || result.reason != KVK_REASON_ABSENT))
		fail_msg("%s, generation %u, phase %u: status %d, reason \"%s\"", key, generation, phase, result.status,
			 kvk_reason_text(result.reason));
	if ((phase == PRESENT && result.status) || (phase == ABSENT && !result.status))
		fail_msg("%s, generation %u: %s was acknowledged, but it is %s", key, generation,
			 phase == PRESENT ? "its put" : "its remove", result.status ? "absent" : "there");
	if (phase == PUTTING || phase == REMOVING) {
		tally->under_way++;
		tally->came_through += (phase == PUTTING) == (result.status == 0);
	} else {
		tally->acknowledged++;
	}
	line->phase = result.status ? ABSENT : PRESENT;
}

/* Everything that dead processes left is swept while the store is open. */
static void expect_swept(struct bed *bed)
{
	uint64_t files = bed_is_pool(bed) ? bed_pool_files(bed->store) : 0;
	uint64_t until_us = kit_now_us() + 30000000, objects, others;

	do {
		usleep(20000);
		bed_files(bed, &objects, &others);
	} while (others > files && kit_now_us() < until_us);
	assert_int_equal(others, files);
}

/*
 * At every moment at least what is there counts as used. What the dead had leased counts, too, until the keeper has looked at
 * every folder: that takes seconds, so it is waited for only now and then.
 */
static void check_usage(struct bed *bed, bool thorough)
{
	struct bed_listed listed = bed_list(bed->store);
	struct kvk_usage usage = bed_usage(bed->store);

	assert_int_equal(usage.objects, listed.objects);
	assert_int_equal(usage.writing_bytes, 0);
	assert_true(usage.used_bytes >= listed.charged_bytes);
	if (thorough)
		BED_AGREES(bed->store);
}

static void check_round(struct bed *bed, struct ledger *ledger, bool thorough, struct tally *tally)
{
	uint64_t objects, others;

	bed_files(bed, &objects, &others);
	tally->left = others > tally->left ? others : tally->left;
	bed_open(bed, "");
	for (unsigned i = 0; i < KEYS; i++)
		check_key(bed, ledger, i, tally);
	assert_int_equal(atomic_load(&bed_wrong_answers), 0);
	assert_int_equal(bed_stats(bed->store).quarantined, 0);
	check_usage(bed, thorough);
	if (thorough)
		expect_swept(bed);
	assert_int_equal(bed_close(bed), 0);
	assert_int_equal(ledger->wrong, 0);
	assert_int_equal(ledger->strange, 0);
}

static void killed_processes(void **state)
{
	struct bed *bed = *state;
	uint64_t random = kit_seed(), rounds = kit_number("KVK_STEPS", bed_is_pool(bed) ? ROUNDS / 2 : ROUNDS);
	struct ledger *ledger = mmap(NULL, sizeof(*ledger), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct tally tally = { 0 };
	unsigned since_sweep = 0;
	enum bed_kind kind = bed->kind;
	bool ring = bed_try_open(bed, "", NULL) == 0;

	assert_true(ledger != MAP_FAILED);
	assert_int_equal(bed_close(bed), 0);
	for (uint64_t round = 0; round < rounds; round++) {
		bool thorough = round % 20 == 19 || round + 1 == rounds;

		/* Each mechanism finds what the others left. */
		if (kind == BED_POOL)
			bed->kind = ring && round % 2 ? BED_POOL : BED_POOL_THREADS;
		else if (kind == BED_URING)
			bed->kind = ring ? (enum bed_kind)(BED_URING + round % 4) : (enum bed_kind)(BED_THREADS + round % 2);
		run_and_kill(bed, ledger, &random);
		tally.kills += bed_is_pool(bed) ? 1 : PROCESSES;
		check_round(bed, ledger, thorough, &tally);
		since_sweep = thorough ? 0 : since_sweep + 1;
		assert_in_range(tally.left, 0, LEFT_MAX * (since_sweep + 20));
	}
	printf("# %" PRIu64 " rounds: %" PRIuFAST64 " puts, %" PRIuFAST64 " removes, %" PRIuFAST64 " gets (%" PRIuFAST64
	       " hits); after the kills %" PRIu64 " keys as acknowledged, %" PRIu64 " under way (%" PRIu64
	       " came through), at most %" PRIu64 " files left to sweep; 0 wrong\n", rounds, ledger->puts,
	       ledger->removes, ledger->gets, ledger->hits, tally.acknowledged, tally.under_way, tally.came_through,
	       tally.left);
	proof_tell_more(7, tally.kills, "kills", atomic_load(&bed_wrong_answers), "acknowledged=%" PRIu64, tally.acknowledged);
	munmap(ledger, sizeof(*ledger));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BED_TEST(killed_processes, BED_URING, "all mechanisms in turn"),
		BED_TEST(killed_processes, BED_POOL, "pool, both mechanisms in turn"),
		BED_TEST(killed_processes, BED_POOL_DIRECT, "pool, io_uring, direct"),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
