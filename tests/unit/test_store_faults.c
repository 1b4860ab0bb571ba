/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every step of every request fails, in every way a medium can fail: once, or from then on. Nothing crashes, no place
 * stays open, no wrong byte is delivered, a put that fails leaves nothing visible, what is charged is what is there,
 * and when the fault is over everything works.
 *
 * A short transfer that ends on the lane is counted once: without that the first case of test_every_step ends in a crash
 * (tests/mutants/race.txt).
 */
#include "support/proof.h"
#include "support/skip.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "backend/fault/fault.h"
#include "store/core.h"
#include "unit/store_kit.h"
#include "util/clock.h"

#define BYTES 70000u
#define SITES_MAX 8u

enum call { CALL_PUT, CALL_GET, CALL_GET_HELD, CALL_LOOKUP, CALL_REMOVE, CALL_REPLACE, CALL_COUNT };
static const char *const call_names[] = { "put", "get", "get, held", "lookup", "remove", "replace" };

static const int errors[] = { EIO, ENOSPC, EDQUOT, EROFS, EMFILE, ENFILE, ENOMEM, EINTR, EAGAIN, ESTALE };
static const uint64_t shorts[] = { 1, 4096, BYTES / 2, UINT64_MAX };
#define ERRORS (sizeof(errors) / sizeof(errors[0]))
#define SHORTS (sizeof(shorts) / sizeof(shorts[0]))

struct scene {
	struct bed *bed;
	const char *more;
	uint64_t bytes;
	char x_path[512];
	uint32_t generation;
	/* What is tried: */
	enum call call;
	enum kvk_xfer_op op;
	struct kvk_fault_rule rule;
	enum kvk_xfer_op other_op;
	struct kvk_fault_rule other;   /* none without ops */
	/* What came of it: */
	int status;
	struct kvk_result result;
};

static void told_rule(char text[160], const struct kvk_fault_rule *rule, enum kvk_xfer_op op)
{
	snprintf(text, 160, "%s %llu of %s (%s)", rule->kind == KVK_FAULT_FAIL ? strerror(rule->error) : "shortened",
		 (unsigned long long)rule->nth, kvk_xfer_op_name(op), rule->every ? "and all after it" : "once");
}

static bool is_shortened(const struct scene *scene)
{
	return scene->rule.kind == KVK_FAULT_SHORTEN || (scene->other.ops && scene->other.kind == KVK_FAULT_SHORTEN);
}

static bool strikes(const struct scene *scene, enum kvk_xfer_op op)
{
	return (scene->rule.ops | scene->other.ops) & 1u << op;
}

static const char *told(const struct scene *scene)
{
	static char text[400];
	char first[160], other[160] = "nothing";

	told_rule(first, &scene->rule, scene->op);
	if (scene->other.ops)
		told_rule(other, &scene->other, scene->other_op);
	snprintf(text, sizeof(text), "%s: %s; and %s: status %d, %s", call_names[scene->call], first, other, scene->status,
		 kvk_reason_text(scene->result.reason));
	return text;
}

#define MUST(scene, condition) do { \
		if (!(condition)) \
			fail_msg("%s\n     does not hold: %s", told(scene), #condition); \
	} while (0)

/* Garbage under the name of X, which the store does not know of. */
static void spoil_x(const struct scene *scene)
{
	FILE *file = fopen(scene->x_path, "wb");
	char zeros[8192] = { 0 };

	assert_non_null(file);
	assert_int_equal(fwrite(zeros, 1, sizeof(zeros), file), sizeof(zeros));
	assert_int_equal(fclose(file), 0);
}

static void scene_open(struct scene *scene)
{
	bed_open(scene->bed, scene->more);
	if (bed_is_ram(scene->bed) || bed_is_pool(scene->bed))
		return;
	assert_int_equal(bed_put(scene->bed->store, "X", 100, 1, NULL), 0);
	assert_int_equal(bed_path_of(scene->bed, "X", scene->x_path, sizeof(scene->x_path)), 0);
	assert_int_equal(bed_remove(scene->bed->store, "X", NULL), 0);
}

static void prepare(struct scene *scene)
{
	struct kvk_store *store = scene->bed->store;

	scene->generation++;
	MUST(scene, bed_put(store, "P", scene->bytes, 1, NULL) == 0);
	if (scene->call == CALL_REMOVE)
		MUST(scene, bed_put(store, "D", scene->bytes, scene->generation, NULL) == 0);
	if (scene->call == CALL_REPLACE)
		spoil_x(scene);
}

static void try(struct scene *scene)
{
	static const struct bed_how held = { .flags = KVK_MEM_HELD, .aligned = true, .pieces = 2 };
	struct kvk_store *store = scene->bed->store;
	char meta[8];
	struct kvk_key_item item = { .struct_bytes = sizeof(item), .key = bed_key("P"), .meta = meta,
		.meta_bytes = sizeof(meta), .flags = KVK_LOOKUP_PIN };

	scene->result = (struct kvk_result){ .struct_bytes = sizeof(scene->result) };
	switch (scene->call) {
	case CALL_PUT:
		scene->status = bed_put(store, "N", scene->bytes, scene->generation, &scene->result);
		break;
	case CALL_GET:
		scene->status = bed_get(store, "P", scene->bytes, 1, &scene->result);
		break;
	case CALL_GET_HELD:
		scene->status = bed_get_how(store, bed_key("P"), scene->bytes, 1, &held, &scene->result);
		break;
	case CALL_LOOKUP:
		scene->status = kvk_store_lookup_wait(store, &item, 1, 0, &scene->result);
		if (!scene->status)
			scene->status = scene->result.status;
		break;
	case CALL_REMOVE:
		scene->status = bed_remove(store, "D", &scene->result);
		break;
	case CALL_REPLACE:
		scene->status = bed_put(store, "X", scene->bytes, scene->generation, &scene->result);
		break;
	case CALL_COUNT:
		break;
	}
}

static bool is_at_rest(struct kvk_store *store)
{
	return bed_places(store) == 0 && atomic_load(&bed_core(store)->items) == 0;
}

/* After the answer places are closed, and what was removed is unlinked. */
static bool all_at_rest(struct kvk_store *store)
{
	uint64_t until_us = kvk_now_us() + 30000000;

	while (!is_at_rest(store) && kvk_now_us() < until_us)
		sched_yield();
	return is_at_rest(store);
}

/* What must hold once the fault is over. */
static void judge(struct scene *scene)
{
	struct kvk_store *store = scene->bed->store;
	int status = scene->status, now;

	MUST(scene, status != -ETIMEDOUT);
	MUST(scene, (status == 0) == (scene->result.reason == KVK_REASON_NONE));
	switch (scene->call) {
	case CALL_PUT:
		now = bed_get(store, "N", scene->bytes, scene->generation, NULL);
		if (status == 0)
			MUST(scene, now == 0);
		else if (scene->result.reason != KVK_REASON_NOT_DURABLE)
			MUST(scene, now == -ENOENT);
		break;
	case CALL_LOOKUP:
		if (status == 0)
			MUST(scene, bed_unpin(store, "P") == 0);
		/* fall through */
	case CALL_GET:
	case CALL_GET_HELD:
		MUST(scene, bed_usage(store).pinned_objects == 0);
		now = bed_get(store, "P", scene->bytes, 1, NULL);
		/* Only what ended early, twice, counts as torn, and so much of it a minute is moved aside. */
		if (scene->result.reason == KVK_REASON_DAMAGED)
			MUST(scene, (now == -ENOENT || now == 0) && is_shortened(scene));
		else
			MUST(scene, now == 0);
		break;
	case CALL_REMOVE:
		now = bed_get(store, "D", scene->bytes, scene->generation, NULL);
		/* Half of the erasing of a pool is enough to spoil a footer. */
		if (bed_is_pool(scene->bed) && is_shortened(scene) && now == -EBADMSG)
			now = 0;
		MUST(scene, now == (status ? 0 : -ENOENT));
		break;
	case CALL_REPLACE:
		now = bed_get(store, "X", scene->bytes, scene->generation, NULL);
		if (status == 0)
			MUST(scene, now == 0);
		else if (scene->result.reason != KVK_REASON_NOT_DURABLE)
			MUST(scene, now != 0);
		break;
	case CALL_COUNT:
		break;
	}
}

/* Everything works again, and leaves nothing behind. */
static void restore(struct scene *scene)
{
	static const char *const names[] = { "N", "D", "X" };
	struct kvk_store *store = scene->bed->store;

	for (size_t i = 0; i < 3; i++) {
		struct kvk_result result = { .struct_bytes = sizeof(result) };
		int status = bed_put(store, names[i], scene->bytes, scene->generation, &result);

		if (status)
			fail_msg("%s\n     then %s cannot be put: status %d, %s", told(scene), names[i], status,
				 kvk_reason_text(result.reason));
		MUST(scene, bed_get(store, names[i], scene->bytes, scene->generation, NULL) == 0);
		MUST(scene, bed_remove(store, names[i], NULL) == 0);
	}
}

static void agree(struct scene *scene, const char *when)
{
	const char *disagrees = bed_disagrees(scene->bed->store);

	if (disagrees)
		fail_msg("%s\n     %s: %s", told(scene), when, disagrees);
}

/*
 * What others wrote into the folders, and what could not be unlinked: the account follows when the keeper has listed, swept and
 * synced, which takes it seconds. That is waited for once for all ways in which a step can fail.
 */
static bool is_for_the_keeper(const struct scene *scene)
{
	return scene->call == CALL_REPLACE || strikes(scene, KVK_XFER_UNLINK);
}

static bool one_case(struct scene *scene)
{
	struct kvk_backend *fault = bed_backend(scene->bed->store);
	bool struck;

	prepare(scene);
	assert_int_equal(kvk_fault_add(fault, &scene->rule), 0);
	if (scene->other.ops)
		assert_int_equal(kvk_fault_add(fault, &scene->other), 0);
	try(scene);
	MUST(scene, all_at_rest(scene->bed->store));
	struck = kvk_fault_struck(fault) > 0;
	kvk_fault_clear(fault);
	if (!struck)
		MUST(scene, scene->status == 0);
	if (!is_for_the_keeper(scene))
		agree(scene, "after it");
	judge(scene);
	restore(scene);
	MUST(scene, all_at_rest(scene->bed->store));
	if (strikes(scene, KVK_XFER_UNLINK) && struck) {
		/* What could not be unlinked is swept by a later run as well. */
		assert_int_equal(bed_close(scene->bed), 0);
		scene_open(scene);
		return true;
	}
	if (!is_for_the_keeper(scene))
		agree(scene, "in the end");
	return struck;
}

/* All ways in which this step of this call can fail. Returns how many cases struck. */
static uint32_t all_ways(struct scene *scene)
{
	bool moves = scene->op == KVK_XFER_READ || scene->op == KVK_XFER_WRITE;
	uint32_t cases = 0;

	for (size_t way = 0; way < ERRORS + (moves ? SHORTS : 0); way++) {
		/* Direct I/O is slow, and does not know of errors: its two beds share the work. */
		if ((scene->bed->kind == BED_URING_DIRECT && way % 2 == 1) ||
		    (scene->bed->kind == BED_THREADS_DIRECT && way % 2 == 0))
			continue;
		for (uint64_t nth = 1; nth <= SITES_MAX; nth++) {
			scene->rule = (struct kvk_fault_rule){
				.kind = way < ERRORS ? KVK_FAULT_FAIL : KVK_FAULT_SHORTEN,
				.ops = 1u << scene->op, .nth = nth, .times = 1,
				.error = way < ERRORS ? errors[way] : EIO,
				.part_bytes = way < ERRORS ? 0 : shorts[way - ERRORS],
			};
			if (!one_case(scene))
				break;
			cases++;
		}
		if (cases == 0)
			return 0;      /* this call does not take this step */
		scene->rule.nth = 1;
		scene->rule.every = 1;
		scene->rule.times = 0;
		cases += one_case(scene);
	}
	return cases;
}

static void run_scene(struct bed *bed, const char *more, uint64_t bytes, uint32_t ops)
{
	struct scene scene = { .bed = bed, .more = more, .bytes = bytes };
	uint32_t cases = 0;

	scene_open(&scene);
	for (uint32_t op = 0; op < KVK_XFER_OP_COUNT; op++) {
		if (!(ops & 1u << op))
			continue;
		for (uint32_t call = 0; call < CALL_COUNT; call++) {
			if (call == CALL_REPLACE && (bed_is_ram(bed) || bed_is_pool(bed)))
				continue;
			scene.op = (enum kvk_xfer_op)op;
			scene.call = (enum call)call;
			cases += all_ways(&scene);
		}
		agree(&scene, "after all calls");
	}
	proof_tell(2, cases, "faults", atomic_load(&bed_wrong_answers));
	assert_true(cases > 0);
}

/* ---- two at a time ------------------------------------------------------------------------------ */

static struct kvk_fault_rule draw_rule(uint64_t *random, enum kvk_xfer_op *op_ret)
{
	bool moves, every = kit_below(random, 3) == 0;
	enum kvk_xfer_op op;
	size_t way;

	/* What the background asks for is no request's. */
	do
		op = (enum kvk_xfer_op)kit_below(random, KVK_XFER_OP_COUNT);
	while (op == KVK_XFER_SYNC_ALL);
	moves = op == KVK_XFER_READ || op == KVK_XFER_WRITE;
	way = kit_below(random, ERRORS + (moves ? SHORTS : 0));
	*op_ret = op;
	return (struct kvk_fault_rule){
		.kind = way < ERRORS ? KVK_FAULT_FAIL : KVK_FAULT_SHORTEN, .ops = 1u << op, .nth = 1 + kit_below(random, 3),
		.every = every, .times = every ? 0 : 1, .error = way < ERRORS ? errors[way] : EIO,
		.part_bytes = way < ERRORS ? 0 : shorts[way - ERRORS],
	};
}

/* What a request does about one failure fails, too: drawn, since there are some million pairs. */
static void two_faults(struct bed *bed, const char *more)
{
	uint32_t pairs = 0, wanted = (uint32_t)kit_number("KVK_PAIRS", 12);
	struct scene scene = { .bed = bed, .more = more, .bytes = BYTES };
	uint64_t random = kit_mix(kit_seed());

	scene_open(&scene);
	while (pairs < wanted) {
		scene.call = (enum call)kit_below(&random, CALL_COUNT);
		if (scene.call == CALL_REPLACE && (bed_is_ram(bed) || bed_is_pool(bed)))
			continue;
		scene.rule = draw_rule(&random, &scene.op);
		scene.other = draw_rule(&random, &scene.other_op);
		/* Last what only the keeper settles: until then the account agrees after each. */
		if (is_for_the_keeper(&scene) != (pairs >= wanted / 3 * 2))
			continue;
		pairs += one_case(&scene);
	}
	/* What could neither be looked at nor put back lies aside, charged, until its process ends. */
	assert_int_equal(bed_close(bed), 0);
	scene_open(&scene);
	agree(&scene, "after all pairs");
	proof_tell(2, pairs, "pairs", atomic_load(&bed_wrong_answers));
}

#define SPEC "\"lanes\": 1, \"deadline_ms\": 10000, \"fault\": []"

static void test_every_step(void **state)
{
	run_scene(*state, SPEC, BYTES, (1u << KVK_XFER_OP_COUNT) - 1);
}

static void test_two_faults(void **state)
{
	two_faults(*state, SPEC);
}

static void test_two_faults_of_durable_puts(void **state)
{
	two_faults(*state, SPEC ", \"durability\": \"object\"");
}

static void test_every_step_of_durable_puts(void **state)
{
	run_scene(*state, SPEC ", \"durability\": \"object\"", BYTES, 1u << KVK_XFER_SYNC | 1u << KVK_XFER_SYNC_FOLDER);
}

/* Blocks that cannot be had ahead are had as they are written. */
static void test_reserving(void **state)
{
	struct bed *bed = *state;
	struct kvk_fault_rule rule = { .kind = KVK_FAULT_FAIL, .ops = 1u << KVK_XFER_RESERVE, .nth = 1, .every = 1 };

	bed_open(bed, SPEC);
	for (size_t i = 0; i < ERRORS; i++) {
		char name[8];

		snprintf(name, sizeof(name), "r%zu", i);
		rule.error = errors[i];
		assert_int_equal(kvk_fault_add(bed_backend(bed->store), &rule), 0);
		assert_int_equal(bed_put(bed->store, name, 2200000, 1, NULL), 0);
		assert_int_equal(bed_get(bed->store, name, 2200000, 1, NULL), 0);
		assert_true(kvk_fault_struck(bed_backend(bed->store)) > 0);
		kvk_fault_clear(bed_backend(bed->store));
	}
	BED_AGREES(bed->store);
}

/* Bytes arrive, and then the medium fails: the caller's memory holds none of them. */
static void test_failing_half_way(void **state)
{
	struct bed *bed = *state;
	static const struct bed_how hows[] = {
		{ .pieces = 1 }, { .pieces = 3 }, { .flags = KVK_MEM_HELD, .aligned = true },
		{ .flags = KVK_MEM_HELD, .aligned = true, .pieces = 4 }, { .flags = KVK_MEM_HELD, .pieces = 2 },
	};
	struct kvk_backend *fault;
	uint64_t bytes = 2500000;

	bed_open(bed, SPEC);
	fault = bed_backend(bed->store);
	assert_int_equal(bed_put(bed->store, "k", bytes, 1, NULL), 0);
	for (uint64_t nth = 1; nth < 14; nth++) {
		for (size_t h = 0; h < sizeof(hows) / sizeof(hows[0]); h++) {
			struct kvk_fault_rule half = { .kind = KVK_FAULT_SHORTEN, .ops = 1u << KVK_XFER_READ, .nth = nth,
				.part_bytes = 100000 };
			struct kvk_fault_rule end = { .kind = KVK_FAULT_FAIL, .ops = 1u << KVK_XFER_READ, .nth = nth + 1,
				.every = 1, .error = EIO };
			int status;

			assert_int_equal(kvk_fault_add(fault, &half), 0);
			assert_int_equal(kvk_fault_add(fault, &end), 0);
			status = bed_get_how(bed->store, bed_key("k"), bytes, 1, &hows[h], NULL);
			if (status != 0 && status != -EIO)
				fail_msg("read %llu shortened, the next failed: %d", (unsigned long long)nth, status);
			kvk_fault_clear(fault);
		}
	}
	assert_int_equal(bed_get(bed->store, "k", bytes, 1, NULL), 0);
	assert_true(all_at_rest(bed->store));
	BED_AGREES(bed->store);
}

/* Short transfers are joined, whichever is short and by how much; and counted. */
static void test_short_transfers(void **state)
{
	struct bed *bed = *state;
	struct kvk_backend *fault;

	bed_open(bed, SPEC);
	fault = bed_backend(bed->store);
	for (uint32_t i = 0; i < 24; i++) {
		struct kvk_fault_rule rule = { .kind = KVK_FAULT_SHORTEN, .nth = i / 3 + 1, .times = 1,
			.part_bytes = i % 3 == 0 ? 4096 : i % 3 == 1 ? 500000 : 1,
			.ops = 1u << KVK_XFER_READ | 1u << KVK_XFER_WRITE };
		char name[16];

		snprintf(name, sizeof(name), "s%u", i);
		assert_int_equal(kvk_fault_add(fault, &rule), 0);
		assert_int_equal(bed_put(bed->store, name, 3000000, 1, NULL), 0);
		assert_int_equal(bed_get(bed->store, name, 3000000, 1, NULL), 0);
		kvk_fault_clear(fault);
		assert_int_equal(bed_get(bed->store, name, 3000000, 1, NULL), 0);
		assert_int_equal(bed_remove(bed->store, name, NULL), 0);
	}
	assert_true(bed_stats(bed->store).short_transfers > 0);
	BED_AGREES(bed->store);
}

/* A bit flipped on the way from the medium is read once more; one flipped on the way to it is a miss. */
static void test_flipped_bits(void **state)
{
	struct bed *bed = *state;
	struct kvk_fault_rule rule = { .kind = KVK_FAULT_CORRUPT, .nth = 1, .times = 1 };
	struct kvk_backend *fault;

	bed_open(bed, SPEC);
	fault = bed_backend(bed->store);
	assert_int_equal(bed_put(bed->store, "k", BYTES, 1, NULL), 0);
	rule.ops = 1u << KVK_XFER_READ;
	assert_int_equal(kvk_fault_add(fault, &rule), 0);
	assert_int_equal(bed_get(bed->store, "k", BYTES, 1, NULL), 0);
	assert_int_equal(bed_stats(bed->store).rereads, 1);
	kvk_fault_clear(fault);

	rule.ops = 1u << KVK_XFER_WRITE;
	for (uint32_t i = 0; i < 10; i++) {
		char name[8];

		snprintf(name, sizeof(name), "w%u", i);
		assert_int_equal(kvk_fault_add(fault, &rule), 0);
		assert_int_equal(bed_put(bed->store, name, BYTES, 1, NULL), 0);
		assert_int_equal(kvk_fault_struck(fault), 1);
		kvk_fault_clear(fault);
		/* A bit of the padding proves nothing and matters to nobody: then it is a hit, and right. */
		assert_true(bed_get(bed->store, name, BYTES, 1, NULL) <= 0);
	}
	assert_true(bed_stats(bed->store).get_damaged > 0);
	BED_AGREES(bed->store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BED_TESTS_ALL(test_every_step),
		BED_TEST(test_every_step_of_durable_puts, BED_URING, "io_uring, buffered"),
		BED_TEST(test_every_step_of_durable_puts, BED_THREADS_DIRECT, "threads, direct"),
		BED_TEST(test_every_step_of_durable_puts, BED_POOL, "pool, io_uring"),
		BED_TEST(test_every_step_of_durable_puts, BED_POOL_DIRECT, "pool, io_uring, direct"),
		BED_TESTS_ALL(test_two_faults),
		BED_TEST(test_two_faults_of_durable_puts, BED_URING, "io_uring, buffered"),
		BED_TEST(test_two_faults_of_durable_puts, BED_THREADS_DIRECT, "threads, direct"),
		BED_TEST(test_two_faults_of_durable_puts, BED_POOL, "pool, io_uring"),
		BED_TEST(test_reserving, BED_URING_DIRECT, "io_uring, direct"),
		BED_TEST(test_reserving, BED_THREADS_DIRECT, "threads, direct"),
		BED_TESTS_ALL(test_failing_half_way),
		BED_TESTS_ALL(test_short_transfers),
		BED_TESTS_ALL(test_flipped_bits),
	};

	cmocka_set_test_filter(getenv("KVK_ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
