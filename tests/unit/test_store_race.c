/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Races of store, lookup and delete: each byte is charged once and given back once, and nothing that was stored vanishes.
 *
 * Method: the fault backend makes one step of one request hang, between the two halves of what could go wrong; the other
 * request runs meanwhile; then the step is let go. So each interleaving happens every time. At the end the bytes in use
 * are what a list of the medium shows. After these come many threads without any order.
 *
 * Each race is found again when its fix is taken out (tests/mutants/race.txt; `make mutants MUTANTS_ARGS='--only race'`): put and
 * lookup charge one object both, the race of LMCache's tier, by lookup_while_a_put_is_published and lookups_of_a_former_run;
 * remove against lookup by remove_while_a_lookup_has_it_open and everything_while_a_name_goes; remove against put by that one and
 * everything_while_bytes_are_freed; two puts by the first.
 */
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "catalog/catalog_private.h"
#include "unit/store_kit.h"

#define BYTES 20000u
#define CHARGE (20480u + 4096u)

/* ---- a step that hangs ---------------------------------------------------------------------------- */

/* From now on the first transfer of one of these kinds hangs, once. ops: bits as in struct kvk_fault_rule. */
static void hang_next(struct bed *bed, uint32_t ops)
{
	struct kvk_fault_rule rule = { .kind = KVK_FAULT_HANG, .ops = bed_ops(bed, ops), .nth = 1, .times = 1 };

	kvk_fault_clear(bed_backend(bed->store));
	assert_int_equal(kvk_fault_add(bed_backend(bed->store), &rule), 0);
}

static void let_go(struct bed *bed)
{
	kvk_fault_release(bed_backend(bed->store));
}

/* A submitted request of one item, with memory of its own. */
struct asked {
	struct bed *bed;
	enum kvk_queue queue;
	uint8_t *memory;
};

static struct asked ask_put(struct bed *bed, const char *key, uint32_t generation)
{
	struct asked asked = { .bed = bed, .queue = KVK_QUEUE_PUT, .memory = malloc(BYTES) };
	struct iovec iov = { .iov_base = asked.memory, .iov_len = BYTES };
	struct kvk_put_item item = { .struct_bytes = sizeof(item), .key = bed_key(key), .data = &iov, .data_count = 1 };

	bed_fill(asked.memory, BYTES, item.key, generation, 0);
	assert_true(kvk_store_put(bed->store, &item, 1, 0) > 0);
	return asked;
}

static struct asked ask_lookup(struct bed *bed, const char *key, uint32_t flags)
{
	struct kvk_key_item item = { .struct_bytes = sizeof(item), .flags = flags, .key = bed_key(key) };

	assert_true(kvk_store_lookup(bed->store, &item, 1, 0) > 0);
	return (struct asked){ .bed = bed, .queue = KVK_QUEUE_LOOKUP };
}

static struct asked ask_remove(struct bed *bed, const char *key)
{
	struct kvk_key_item item = { .struct_bytes = sizeof(item), .key = bed_key(key) };

	assert_true(kvk_store_remove(bed->store, &item, 1, 0) > 0);
	return (struct asked){ .bed = bed, .queue = KVK_QUEUE_PUT };
}

static struct asked ask_get(struct bed *bed, const char *key)
{
	struct asked asked = { .bed = bed, .queue = KVK_QUEUE_GET, .memory = malloc(BYTES) };
	struct iovec iov = { .iov_base = asked.memory, .iov_len = BYTES };
	struct kvk_get_item item = { .struct_bytes = sizeof(item), .key = bed_key(key), .data = &iov, .data_count = 1 };

	assert_true(kvk_store_get(bed->store, &item, 1, 0) > 0);
	return asked;
}

static struct kvk_result answer(struct asked *asked)
{
	struct kvk_result result = { .struct_bytes = sizeof(result) };

	assert_true(bed_next(asked->bed->store, asked->queue, &result));
	return result;
}

static void process_key(char text[32], unsigned number)
{
	snprintf(text, 32, "key %u", number);
}

/* ---- store and lookup: charged once --------------------------------------------------------------- */

static void expect_at_rest(struct bed *bed, uint64_t used, uint64_t objects)
{
	const char *what;

	assert_int_equal(kit_used_settles(bed->store, used), used);
	what = bed_disagrees(bed->store);
	if (what)
		fail_msg("%s", what);
	assert_int_equal(bed_usage(bed->store).objects, objects);
	assert_int_equal(bed_usage(bed->store).writing_bytes, 0);
}

/* The file is there under its name, and its put does not know yet: the race of the reference. */
static void lookup_while_a_put_is_published(void **state)
{
	struct bed *bed = *state;
	struct asked put;
	struct kvk_result result;

	bed_open(bed, "\"durability\": \"object\", \"fault\": []");
	for (unsigned pin = 0; pin < 2; pin++) {
		const char *key = pin ? "with a pin" : "without a pin";

		hang_next(bed, 1u << KVK_XFER_SYNC_FOLDER);
		put = ask_put(bed, key, 1);
		kit_wait_struck(bed->store, 1);
		KIT_EXPECT(kit_lookup(bed->store, key, pin ? KVK_LOOKUP_PIN : 0), -ENOENT, KVK_REASON_BUSY);
		KIT_EXPECT(kit_load(bed->store, key, BYTES, 1), -ENOENT, KVK_REASON_BUSY);
		KIT_EXPECT(kit_store(bed->store, key, BYTES, 1), -EALREADY, KVK_REASON_BUSY);
		KIT_EXPECT(kit_remove(bed->store, key), -ENOENT, KVK_REASON_BUSY);
		let_go(bed);
		result = answer(&put);
		free(put.memory);
		assert_int_equal(result.status, 0);
		expect_at_rest(bed, (pin + 1) * CHARGE, pin + 1);
		KIT_EXPECT(kit_load(bed->store, key, BYTES, 1), 0, KVK_REASON_NONE);
	}
	KIT_EXPECT(kit_remove(bed->store, "with a pin"), 0, KVK_REASON_NONE);
	expect_at_rest(bed, CHARGE, 1);
	KIT_EXPECT(kit_remove(bed->store, "without a pin"), 0, KVK_REASON_NONE);
	expect_at_rest(bed, 0, 0);
}

/* A lookup went to the medium before the put, and comes back with what the put published meanwhile. */
static void put_while_a_lookup_is_on_the_medium(void **state)
{
	struct bed *bed = *state;
	struct asked lookup;
	struct kvk_result result;

	bed_open(bed, "\"fault\": []");
	hang_next(bed, 1u << KVK_XFER_OPEN);
	lookup = ask_lookup(bed, "key", KVK_LOOKUP_PIN);
	kit_wait_struck(bed->store, 1);
	KIT_EXPECT(kit_store(bed->store, "key", BYTES, 1), 0, KVK_REASON_NONE);
	let_go(bed);
	result = answer(&lookup);
	if (result.status == 0)
		assert_int_equal(bed_unpin(bed->store, "key"), 0);
	else
		assert_int_equal(result.status, -ENOENT);
	expect_at_rest(bed, CHARGE, 1);
	assert_int_equal(bed_usage(bed->store).pinned_objects, 0);
	KIT_EXPECT(kit_remove(bed->store, "key"), 0, KVK_REASON_NONE);
	expect_at_rest(bed, 0, 0);
}

/* Two lookups and a get bring the same object of a former run back at the same time. */
static void lookups_of_a_former_run(void **state)
{
	struct bed *bed = *state;
	struct asked asked[4];

	bed_keep_keeper_out(bed);
	bed_open(bed, "\"lanes\": 1");
	KIT_EXPECT(kit_store(bed->store, "key", BYTES, 1), 0, KVK_REASON_NONE);
	bed_reopen(bed, "\"fault\": []");
	hang_next(bed, 1u << KVK_XFER_OPEN);
	asked[0] = ask_lookup(bed, "key", KVK_LOOKUP_PIN);
	kit_wait_struck(bed->store, 1);
	asked[1] = ask_lookup(bed, "key", 0);
	assert_int_equal(answer(&asked[1]).status, 0);
	KIT_EXPECT(kit_load(bed->store, "key", BYTES, 1), 0, KVK_REASON_NONE);
	let_go(bed);
	assert_int_equal(answer(&asked[0]).status, 0);
	expect_at_rest(bed, CHARGE, 1);
	KIT_EXPECT(kit_remove(bed->store, "key"), -EBUSY, KVK_REASON_PINNED);
	assert_int_equal(bed_unpin(bed->store, "key"), 0);
	KIT_EXPECT(kit_remove(bed->store, "key"), 0, KVK_REASON_NONE);
	expect_at_rest(bed, 0, 0);
}

/* A key of the same group as this one: the catalog keeps one version for both. */
static void neighbour_of(char text[32], const char *key)
{
	uint8_t digest[KVK_DIGEST_BYTES], none[KVK_DIGEST_BYTES] = { 0 };
	struct kvk_prefix prefix, wanted;

	assert_int_equal(kvk_key_digest(digest, none, key, (uint32_t)strlen(key)), 0);
	wanted = kvk_prefix_of(digest);
	for (unsigned i = 0;; i++) {
		process_key(text, i);
		assert_int_equal(kvk_key_digest(digest, none, text, (uint32_t)strlen(text)), 0);
		prefix = kvk_prefix_of(digest);
		if (kvk_prefix_shard(&prefix) == kvk_prefix_shard(&wanted) &&
		    kvk_prefix_group(&prefix) == kvk_prefix_group(&wanted))
			return;
	}
}

/* What happens to other keys makes no key a miss. */
static void lookup_while_a_neighbour_changes(void **state)
{
	struct bed *bed = *state;
	struct asked lookup;
	char neighbour[32];

	bed_keep_keeper_out(bed);
	neighbour_of(neighbour, "key");
	bed_open(bed, "");
	KIT_EXPECT(kit_store(bed->store, "key", BYTES, 1), 0, KVK_REASON_NONE);
	for (uint32_t flags = 0; flags <= KVK_LOOKUP_PIN; flags += KVK_LOOKUP_PIN) {
		bed_reopen(bed, "\"fault\": []");
		hang_next(bed, 1u << KVK_XFER_OPEN);
		lookup = ask_lookup(bed, "key", flags);
		kit_wait_struck(bed->store, 1);
		KIT_EXPECT(kit_store(bed->store, neighbour, BYTES, 1), 0, KVK_REASON_NONE);
		KIT_EXPECT(kit_remove(bed->store, neighbour), 0, KVK_REASON_NONE);
		let_go(bed);
		assert_int_equal(answer(&lookup).status, 0);
		expect_at_rest(bed, CHARGE, 1);
		assert_int_equal(bed_usage(bed->store).pinned_objects, flags ? 1 : 0);
	}
}

/* ---- delete and lookup, delete and store ------------------------------------------------------------ */

/* The name is gone, the bytes are not: nothing brings the dying file back, and a new one lives. */
static void everything_while_bytes_are_freed(void **state)
{
	struct bed *bed = *state;

	bed_keep_keeper_out(bed);
	bed_open(bed, "\"fault\": []");
	KIT_EXPECT(kit_store(bed->store, "key", BYTES, 1), 0, KVK_REASON_NONE);
	hang_next(bed, 1u << KVK_XFER_UNLINK);
	KIT_EXPECT(kit_remove(bed->store, "key"), 0, KVK_REASON_NONE);
	kit_wait_struck(bed->store, 1);
	assert_int_equal(bed_usage(bed->store).used_bytes, CHARGE);
	KIT_EXPECT(kit_lookup(bed->store, "key", KVK_LOOKUP_PIN), -ENOENT, KVK_REASON_ABSENT);
	KIT_EXPECT(kit_load(bed->store, "key", BYTES, 1), -ENOENT, KVK_REASON_ABSENT);
	KIT_EXPECT(kit_remove(bed->store, "key"), -ENOENT, KVK_REASON_ABSENT);
	KIT_EXPECT(kit_store(bed->store, "key", BYTES, 2), 0, KVK_REASON_NONE);
	assert_int_equal(bed_usage(bed->store).used_bytes, 2 * CHARGE);
	let_go(bed);
	expect_at_rest(bed, CHARGE, 1);
	KIT_EXPECT(kit_load(bed->store, "key", BYTES, 2), 0, KVK_REASON_NONE);
}

static void everything_while_a_name_goes(void **state)
{
	struct bed *bed = *state;
	struct asked removal;

	bed_keep_keeper_out(bed);
	bed_open(bed, "\"fault\": []");
	KIT_EXPECT(kit_store(bed->store, "key", BYTES, 1), 0, KVK_REASON_NONE);
	hang_next(bed, 1u << KVK_XFER_MOVE);
	removal = ask_remove(bed, "key");
	kit_wait_struck(bed->store, 1);
	KIT_EXPECT(kit_lookup(bed->store, "key", KVK_LOOKUP_PIN), -ENOENT, KVK_REASON_BUSY);
	KIT_EXPECT(kit_load(bed->store, "key", BYTES, 1), -ENOENT, KVK_REASON_BUSY);
	KIT_EXPECT(kit_store(bed->store, "key", BYTES, 2), -EALREADY, KVK_REASON_BUSY);
	KIT_EXPECT(kit_remove(bed->store, "key"), -ENOENT, KVK_REASON_BUSY);
	let_go(bed);
	assert_int_equal(answer(&removal).status, 0);
	expect_at_rest(bed, 0, 0);
}

/* A lookup holds the file open while it is removed: it must not come back into the catalog. */
static void remove_while_a_lookup_has_it_open(void **state)
{
	static const uint32_t steps[] = { 1u << KVK_XFER_OPEN, 1u << KVK_XFER_READ };
	struct bed *bed = *state;

	bed_keep_keeper_out(bed);
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		struct kvk_result result;
		struct asked lookup;

		bed_open(bed, "");
		KIT_EXPECT(kit_store(bed->store, "key", BYTES, 1), 0, KVK_REASON_NONE);
		bed_reopen(bed, "\"fault\": []");
		hang_next(bed, steps[i]);
		lookup = ask_lookup(bed, "key", KVK_LOOKUP_PIN);
		kit_wait_struck(bed->store, 1);
		KIT_EXPECT(kit_remove(bed->store, "key"), 0, KVK_REASON_NONE);
		let_go(bed);
		result = answer(&lookup);
		assert_int_equal(result.status, -ENOENT);
		expect_at_rest(bed, 0, 0);
		assert_int_equal(bed_usage(bed->store).pinned_objects, 0);
		assert_int_equal(bed_close(bed), 0);
	}
}

/* The same, and stored anew before the lookup comes back: what it found is not what is there now. */
static void replaced_while_a_lookup_has_it_open(void **state)
{
	struct bed *bed = *state;
	struct asked lookup;

	bed_keep_keeper_out(bed);
	bed_open(bed, "");
	KIT_EXPECT(kit_store(bed->store, "key", BYTES, 1), 0, KVK_REASON_NONE);
	bed_reopen(bed, "\"fault\": []");
	hang_next(bed, 1u << KVK_XFER_READ);
	lookup = ask_lookup(bed, "key", KVK_LOOKUP_PIN);
	kit_wait_struck(bed->store, 1);
	KIT_EXPECT(kit_remove(bed->store, "key"), 0, KVK_REASON_NONE);
	KIT_EXPECT(kit_store(bed->store, "key", 3 * BYTES, 2), 0, KVK_REASON_NONE);
	let_go(bed);
	if (answer(&lookup).status == 0)
		assert_int_equal(bed_unpin(bed->store, "key"), 0);
	expect_at_rest(bed, 61440 + 4096, 1);
	KIT_EXPECT(kit_load(bed->store, "key", 3 * BYTES, 2), 0, KVK_REASON_NONE);
	KIT_EXPECT(kit_remove(bed->store, "key"), 0, KVK_REASON_NONE);
	expect_at_rest(bed, 0, 0);
}

/* A get under way harms no remove and is harmed by none: the right bytes, or a miss. */
static void remove_while_a_get_reads(void **state)
{
	struct bed *bed = *state;
	struct kvk_result result;
	struct asked get;

	bed_keep_keeper_out(bed);
	bed_open(bed, "\"fault\": []");
	KIT_EXPECT(kit_store(bed->store, "key", BYTES, 1), 0, KVK_REASON_NONE);
	hang_next(bed, 1u << KVK_XFER_READ);
	get = ask_get(bed, "key");
	kit_wait_struck(bed->store, 1);
	KIT_EXPECT(kit_remove(bed->store, "key"), 0, KVK_REASON_NONE);
	let_go(bed);
	result = answer(&get);
	assert_true(result.status == 0 || result.status == -ENOENT);
	if (result.status == 0)
		assert_int_equal(bed_judge(get.memory, BYTES, bed_key("key"), 1, 0), BED_RIGHT);
	free(get.memory);
	expect_at_rest(bed, 0, 0);
}

/* ---- two stores, two processes ---------------------------------------------------------------------- */

/* Both have written the object and are about to give it its name. */
static void two_stores_put_one_key(void **state)
{
	struct bed *bed = *state, other = *bed;
	uint64_t objects, others;
	struct kvk_result result;
	struct asked put;

	bed_open(bed, "\"fault\": []");
	bed_open(&other, "");
	hang_next(bed, 1u << KVK_XFER_PUBLISH);
	put = ask_put(bed, "key", 1);
	kit_wait_struck(bed->store, 1);
	KIT_EXPECT(kit_store(other.store, "key", BYTES, 1), 0, KVK_REASON_NONE);
	let_go(bed);
	result = answer(&put);
	free(put.memory);
	assert_int_equal(result.status, 0);
	assert_int_equal(result.reason, KVK_REASON_PRESENT);
	expect_at_rest(bed, CHARGE, 1);
	expect_at_rest(&other, CHARGE, 1);
	KIT_EXPECT(kit_load(bed->store, "key", BYTES, 1), 0, KVK_REASON_NONE);
	KIT_EXPECT(kit_load(other.store, "key", BYTES, 1), 0, KVK_REASON_NONE);
	bed_files(bed, &objects, &others);
	assert_int_equal(objects, 1);
	assert_int_equal(others, 0);

	/* What one removes the other finds gone, once it asks the medium. */
	KIT_EXPECT(kit_remove(bed->store, "key"), 0, KVK_REASON_NONE);
	expect_at_rest(bed, 0, 0);
	KIT_EXPECT(kit_load(other.store, "key", BYTES, 1), -ENOENT, KVK_REASON_ABSENT);
	expect_at_rest(&other, 0, 0);
	assert_int_equal(bed_close(&other), 0);
}

#define PROCESS_KEYS 300
#define PROCESSES 2

/* Tells for each key whether it was stored (1), was there (2), or something else (0). */
static void put_all_in_child(struct bed *bed, int start_fd, int tell_fd)
{
	uint8_t told[PROCESS_KEYS] = { 0 };
	char byte;

	if (bed_try_open(bed, "", NULL) || read(start_fd, &byte, 1) != 1)
		_exit(1);
	for (unsigned i = 0; i < PROCESS_KEYS; i++) {
		struct kvk_result result = { .struct_bytes = sizeof(result) };
		char key[32];

		process_key(key, i);
		bed_put(bed->store, key, BYTES, 1, &result);
		told[i] = result.status ? 0 : result.reason == KVK_REASON_PRESENT ? 2 : 1;
	}
	if (write(tell_fd, told, sizeof(told)) != sizeof(told) || kvk_store_close(bed->store))
		_exit(1);
	_exit(0);
}

static void two_processes_put_the_same_keys(void **state)
{
	struct bed *bed = *state;
	int start[2], tell[PROCESSES][2], status;
	uint8_t told[PROCESSES][PROCESS_KEYS];
	uint64_t objects, others;
	pid_t children[PROCESSES];

	assert_int_equal(pipe(start), 0);
	for (int i = 0; i < PROCESSES; i++) {
		assert_int_equal(pipe(tell[i]), 0);
		children[i] = fork();
		if (children[i] == 0)
			put_all_in_child(bed, start[0], tell[i][1]);
	}
	usleep(50000);
	assert_int_equal(write(start[1], "gg", PROCESSES), PROCESSES);
	for (int i = 0; i < PROCESSES; i++) {
		assert_int_equal(read(tell[i][0], told[i], PROCESS_KEYS), PROCESS_KEYS);
		assert_int_equal(waitpid(children[i], &status, 0), children[i]);
		assert_int_equal(status, 0);
		close(tell[i][0]);
		close(tell[i][1]);
	}
	close(start[0]);
	close(start[1]);
	bed_open(bed, "");
	for (unsigned i = 0; i < PROCESS_KEYS; i++) {
		char key[32];

		process_key(key, i);
		/* One stored it, and the other was told that it is there. */
		if (told[0][i] + told[1][i] != 3)
			fail_msg("\"%s\": told %u and %u", key, told[0][i], told[1][i]);
		KIT_EXPECT(kit_load(bed->store, key, BYTES, 1), 0, KVK_REASON_NONE);
	}
	expect_at_rest(bed, (uint64_t)PROCESS_KEYS * CHARGE, PROCESS_KEYS);
	bed_files(bed, &objects, &others);
	assert_int_equal(objects, PROCESS_KEYS);
	assert_int_equal(others, 0);
}

/* ---- many threads ------------------------------------------------------------------------------------- */

#define THREADS 4
#define HOT_KEYS 6

struct crowd {
	struct kvk_store *stores[2];
	uint64_t seed;
	uint64_t steps;
	unsigned index;
	pthread_t thread;
	atomic_uint *strange;
};

static bool is_one_of(int status, const int *known)
{
	while (*known != 1 && *known != status)
		known++;
	return *known != 1;
}

static void *crowd_main(void *argument)
{
	static const int of_put[] = { 0, -EALREADY, 1 }, of_get[] = { 0, -ENOENT, 1 }, of_remove[] = { 0, -ENOENT, -EBUSY, 1 };
	struct crowd *crowd = argument;
	uint64_t random = kit_mix(crowd->seed + crowd->index);

	for (uint64_t i = 0; i < crowd->steps; i++) {
		struct kvk_store *store = crowd->stores[kit_below(&random, 2)];
		bool fine = true;
		char key[32];

		process_key(key, (unsigned)kit_below(&random, HOT_KEYS));
		switch (kit_below(&random, 5)) {
		case 0:
			fine = is_one_of(bed_put(store, key, BYTES, 1, NULL), of_put);
			break;
		case 1:
			fine = is_one_of(bed_get(store, key, BYTES, 1, NULL), of_get);
			break;
		case 2:
			fine = is_one_of(bed_remove(store, key, NULL), of_remove);
			break;
		case 3:
			fine = is_one_of(bed_lookup(store, key, 0, NULL), of_get);
			break;
		default:
			if (bed_lookup(store, key, KVK_LOOKUP_PIN, NULL) == 0)
				bed_unpin(store, key);
			break;
		}
		if (!fine)
			atomic_fetch_add(crowd->strange, 1);
	}
	return NULL;
}

static void run_crowd(struct kvk_store *a, struct kvk_store *b, uint64_t steps)
{
	struct crowd crowd[THREADS];
	atomic_uint strange = 0;
	uint64_t seed = kit_seed();

	for (unsigned i = 0; i < THREADS; i++) {
		crowd[i] = (struct crowd){ .stores = { a, b }, .seed = seed, .steps = steps, .index = i, .strange = &strange };
		assert_int_equal(pthread_create(&crowd[i].thread, NULL, crowd_main, &crowd[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(crowd[i].thread, NULL);
	assert_int_equal(strange, 0);
	proof_tell(9, THREADS * steps, "requests", atomic_load(&bed_wrong_answers));
}

static uint64_t steps_of(struct bed *bed)
{
	return kit_number("KVK_STEPS", bed_is_ram(bed) ? 5000 : 1500);
}

static void expect_agreement(struct bed *bed)
{
	const char *what = bed_disagrees(bed->store);

	if (what)
		fail_msg("%s", what);
	assert_int_equal(bed_usage(bed->store).pinned_objects, 0);
}

static void many_threads(void **state)
{
	struct bed *bed = *state;

	bed_open(bed, "\"lanes\": 2");
	run_crowd(bed->store, bed->store, steps_of(bed));
	expect_agreement(bed);
	for (unsigned i = 0; i < HOT_KEYS; i++) {
		char key[32];

		process_key(key, i);
		bed_remove(bed->store, key, NULL);
	}
	expect_at_rest(bed, 0, 0);
}

static void many_threads_and_two_stores(void **state)
{
	struct bed *bed = *state, other = *bed;

	bed_open(bed, "\"lanes\": 2");
	bed_open(&other, "\"lanes\": 1");
	run_crowd(bed->store, other.store, steps_of(bed));
	/* Each knows what it had to do with; once it has asked for every key, it knows what there is. */
	for (unsigned i = 0; i < HOT_KEYS; i++) {
		char key[32];

		process_key(key, i);
		bed_get(bed->store, key, BYTES, 1, NULL);
		bed_get(other.store, key, BYTES, 1, NULL);
	}
	expect_agreement(bed);
	expect_agreement(&other);
	assert_int_equal(bed_close(&other), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BED_TESTS_ALL_PAGES(lookup_while_a_put_is_published),
		BED_TESTS(put_while_a_lookup_is_on_the_medium),
		BED_TESTS_ALL_PAGES_POSIX(lookups_of_a_former_run),
		BED_TESTS_ALL_PAGES_POSIX(lookup_while_a_neighbour_changes),
		BED_TESTS(everything_while_bytes_are_freed),
		BED_TESTS_ALL_PAGES(everything_while_a_name_goes),
		BED_TESTS_ALL_PAGES_POSIX(remove_while_a_lookup_has_it_open),
		BED_TESTS_ALL_PAGES_POSIX(replaced_while_a_lookup_has_it_open),
		BED_TESTS_ALL_PAGES(remove_while_a_get_reads),
		BED_TESTS_POSIX(two_stores_put_one_key),
		BED_TEST(two_processes_put_the_same_keys, BED_URING, "io_uring, buffered"),
		BED_TEST(two_processes_put_the_same_keys, BED_THREADS, "threads, buffered"),
		BED_TESTS_ALL_PAGES(many_threads),
		BED_TESTS_POSIX(many_threads_and_two_stores),
	};

	cmocka_set_test_filter(getenv("KVK_ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
