/* SPDX-License-Identifier: Apache-2.0 */
/* A pool in pieces: where a policy is set objects leave until a put finds its slots side by side, and no more than that. */
#include <pthread.h>

#include "unit/store_kit.h"

#include "store/core.h"

#define PAGE 4096u
#define LRU ", \"eviction\": {\"eviction_policy\": \"LRU\", \"trigger_watermark\": 1.0, \"eviction_ratio\": 0.1}"
#define TWENTY "\"pool_size\": 20, \"slot_size\": 4096"

static void open_shape(struct bed *bed, const char *shape, const char *more)
{
	struct kvk_error error = { .struct_bytes = sizeof(error) };
	char spec[1000];

	snprintf(spec, sizeof(spec), "{\"type\": \"nixl_store\", %s, \"io_engine\": \"threads\", \"backend_params\": "
		 "{\"file_path\": \"%s\"}%s}", shape, bed->path, more);
	if (kvk_store_open(&bed->store, spec, NULL, &error))
		fail_msg("%s: %s", error.option, error.text);
}

static const char *name_of(uint32_t i)
{
	static _Thread_local char name[16];

	snprintf(name, sizeof(name), "k%u", i);
	return name;
}

/* An object of n slots of a page has n - 1 pages of payload. */
static struct kvk_result put_slots(struct kvk_store *store, const char *key, uint32_t slots)
{
	return kit_store(store, key, (uint64_t)(slots - 1) * PAGE, 1);
}

static struct kvk_result get_slots(struct kvk_store *store, const char *key, uint32_t slots)
{
	return kit_load(store, key, (uint64_t)(slots - 1) * PAGE, 1);
}

static bool has(struct kvk_store *store, uint32_t i)
{
	return bed_lookup(store, name_of(i), 0, NULL) == 0;
}

static void pin(struct kvk_store *store, uint32_t i)
{
	assert_int_equal(bed_lookup(store, name_of(i), KVK_LOOKUP_PIN, NULL), 0);
}

/* Of ten objects of two slots the odd ones go: k0 .. k1 .. k2 ..., ten slots free, two side by side. */
static void make_holes(struct kvk_store *store)
{
	for (uint32_t i = 0; i < 10; i++)
		KIT_EXPECT(put_slots(store, name_of(i), 2), 0, KVK_REASON_NONE);
	for (uint32_t i = 1; i < 10; i += 2)
		assert_int_equal(bed_remove(store, name_of(i), NULL), 0);
	assert_int_equal(kit_used_settles(store, 10 * PAGE), 10 * PAGE);
}

/* The coldest one next to a hole is enough, and nothing else goes; what was read lately stays, what is pinned is gone round. */
static void makes_a_run(void **state)
{
	struct bed *bed = *state;

	open_shape(bed, TWENTY, LRU);
	make_holes(bed->store);
	KIT_EXPECT(put_slots(bed->store, "n", 4), 0, KVK_REASON_NONE);
	assert_int_equal(bed_stats(bed->store).evicted, 1);
	assert_false(has(bed->store, 0));
	KIT_EXPECT(get_slots(bed->store, "n", 4), 0, KVK_REASON_NONE);
	KIT_EXPECT(get_slots(bed->store, name_of(2), 2), 0, KVK_REASON_NONE);
	pin(bed->store, 4);
	/* k2 is the newest now and k4 cannot go: k6 leaves six slots between k4 and k8. */
	KIT_EXPECT(put_slots(bed->store, "m", 6), 0, KVK_REASON_NONE);
	assert_int_equal(bed_stats(bed->store).evicted, 2);
	assert_false(has(bed->store, 6));
	assert_true(has(bed->store, 2) && has(bed->store, 4) && has(bed->store, 8));
	assert_int_equal(bed_stats(bed->store).put_no_room, 0);
	assert_int_equal(bed_usage(bed->store).writing_bytes, 0);
	BED_AGREES(bed->store);
}

/* Nothing to evict with: it is refused, and told from a full pool by what is free. */
static void no_policy(void **state)
{
	struct bed *bed = *state;

	open_shape(bed, TWENTY, "");
	make_holes(bed->store);
	KIT_EXPECT(put_slots(bed->store, "n", 3), -ENOSPC, KVK_REASON_NO_ROOM);
	assert_int_equal(bed_stats(bed->store).evicted, 0);
	assert_int_equal(bed_stats(bed->store).put_no_room, 1);
	assert_int_equal(bed_stats(bed->store).medium_full, 0);
	KIT_EXPECT(put_slots(bed->store, "n", 2), 0, KVK_REASON_NONE);
	BED_AGREES(bed->store);
}

/*
 * What is pinned is damaged, and a put stores it anew, longer: it finds no run, since the pool is in pieces, and asks again when one
 * was made. The pins are on it then.
 */
static void pins_while_a_run_is_made(void **state)
{
	struct bed *bed = *state;
	uint8_t noise[PAGE];
	char path[512];
	int fd;

	open_shape(bed, TWENTY, LRU ", \"durability\": \"object\"");
	make_holes(bed->store);
	assert_int_equal(bed_close(bed), 0);
	/* Without a snapshot nobody knows how durable it is: a put asks the medium. */
	snprintf(path, sizeof(path), "%s/.kvkeep/snapshot", bed->path);
	assert_int_equal(unlink(path), 0);
	open_shape(bed, TWENTY, LRU ", \"durability\": \"object\"");
	pin(bed->store, 0);
	pin(bed->store, 0);
	memset(noise, 0x5a, sizeof(noise));
	snprintf(path, sizeof(path), "%s/pool-00000.slots", bed->path);
	fd = open(path, O_WRONLY);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, noise, PAGE, KVK_POOL_HEAD_BYTES), PAGE);
	close(fd);
	/* Itself and the hole behind it are four slots: k2 has to go for six. */
	KIT_EXPECT(put_slots(bed->store, name_of(0), 6), 0, KVK_REASON_NONE);
	assert_true(bed_stats(bed->store).evicted >= 1);
	assert_int_equal(bed_usage(bed->store).pinned_objects, 1);
	KIT_EXPECT(get_slots(bed->store, name_of(0), 6), 0, KVK_REASON_NONE);
	for (int pins = 0; pins < 2; pins++) {
		KIT_EXPECT(kit_remove(bed->store, name_of(0)), -EBUSY, KVK_REASON_PINNED);
		assert_int_equal(bed_unpin(bed->store, name_of(0)), 0);
	}
	assert_int_equal(bed_usage(bed->store).pinned_objects, 0);
	KIT_EXPECT(kit_remove(bed->store, name_of(0)), 0, KVK_REASON_NONE);
}

/* Not after the 1.5 s for which one waits for what is not certain. A busy machine may take that for itself, but not each time. */
static void is_refused_at_once(struct kvk_store *store, const char *key, uint32_t slots)
{
	for (int tries = 0; tries < 8; tries++) {
		uint64_t began_us = kit_now_us();

		KIT_EXPECT(put_slots(store, key, slots), -ENOSPC, KVK_REASON_NO_ROOM);
		if (kit_now_us() - began_us < 1000000)
			return;
	}
	fail_msg("%s is waited for each time", key);
}

/* Where what is pinned stands in the way nothing is evicted in vain, and the answer comes at once. */
static void pins_in_the_way(void **state)
{
	struct bed *bed = *state;

	open_shape(bed, TWENTY, LRU);
	make_holes(bed->store);
	pin(bed->store, 0);
	pin(bed->store, 4);
	pin(bed->store, 8);
	is_refused_at_once(bed->store, "n", 7);
	assert_int_equal(bed_stats(bed->store).evicted, 0);
	for (uint32_t i = 0; i < 10; i += 2)
		assert_true(has(bed->store, i));
	/* Not even an empty pool would hold it. */
	KIT_EXPECT(put_slots(bed->store, "long", 21), -ENOSPC, KVK_REASON_NO_ROOM);
	assert_int_equal(bed_stats(bed->store).evicted, 0);
	assert_int_equal(bed_unpin(bed->store, name_of(4)), 0);
	KIT_EXPECT(put_slots(bed->store, "n", 7), 0, KVK_REASON_NONE);
	assert_true(has(bed->store, 0) && has(bed->store, 8));
	BED_AGREES(bed->store);
}

/* Runs do not reach from one file into the next, however much leaves at their seam. */
static void seams(void **state)
{
	struct bed *bed = *state;

	open_shape(bed, TWENTY ", \"file_size\": 40960", LRU);
	make_holes(bed->store);
	pin(bed->store, 2);
	pin(bed->store, 6);
	/* Six slots to the left of the seam, six to the right of k6; twelve together. */
	KIT_EXPECT(put_slots(bed->store, "n", 7), -ENOSPC, KVK_REASON_NO_ROOM);
	assert_int_equal(bed_stats(bed->store).evicted, 0);
	/* No file is as long: said at once, also where the lease is too short for it. */
	KIT_EXPECT(put_slots(bed->store, "n", 11), -EFBIG, KVK_REASON_ARGUMENT);
	assert_int_equal(bed_stats(bed->store).evicted, 0);
	KIT_EXPECT(put_slots(bed->store, "n", 4), 0, KVK_REASON_NONE);
	KIT_EXPECT(put_slots(bed->store, "m", 6), 0, KVK_REASON_NONE);
	assert_true(has(bed->store, 2) && has(bed->store, 6));
	BED_AGREES(bed->store);
}

/* ---- while it waits ------------------------------------------------------------------------------- */

static uint8_t payload[32 * PAGE];

static int64_t begin_put(struct kvk_store *store, const char *key, uint32_t slots)
{
	struct iovec iov = { .iov_base = payload, .iov_len = (slots - 1) * PAGE };
	struct kvk_put_item item = { .struct_bytes = sizeof(item), .key = bed_key(key), .data = &iov, .data_count = 1 };
	int64_t task = kvk_store_put(store, &item, 1, 0);

	assert_true(task > 0);
	return task;
}

/* Pins leave no run, but a put is being written that may yet make one: so the next one waits. */
static void begin_slow(struct bed *bed, enum kvk_fault_kind kind)
{
	const struct kvk_fault_rule rule = { .kind = kind, .ops = 1u << KVK_XFER_WRITE, .nth = 1, .delay_us = 500000 };

	open_shape(bed, TWENTY, LRU ", \"lanes\": 2, \"fault\": []");
	make_holes(bed->store);
	assert_int_equal(kvk_fault_add(bed_backend(bed->store), &rule), 0);
	for (uint32_t i = 0; i < 10; i += 2)
		pin(bed->store, i);
	begin_put(bed->store, "slow", 2);
	kit_wait_struck(bed->store, 1);
}

static void until_it_waits(struct bed *bed)
{
	uint64_t until_us = kit_now_us() + 20000000;

	while (!kvk_waiting_is_any(bed_core(bed->store))) {
		assert_true(kit_now_us() < until_us);
		usleep(100);
	}
}

static struct kvk_result next_put(struct kvk_store *store)
{
	struct kvk_result result = { .struct_bytes = sizeof(result) };

	assert_true(bed_next(store, KVK_QUEUE_PUT, &result));
	return result;
}

static void ends_while_it_waits(void **state)
{
	struct bed *bed = *state;
	const struct bed_how how = { .deadline_us = 200000 };
	int64_t task;

	begin_slow(bed, KVK_FAULT_HANG);
	task = begin_put(bed->store, "n", 3);
	until_it_waits(bed);
	assert_int_equal(kvk_store_cancel(bed->store, task), 0);
	KIT_EXPECT(next_put(bed->store), -ECANCELED, KVK_REASON_CANCELED);
	assert_int_equal(bed_put_how(bed->store, bed_key("n"), 2 * PAGE, 1, &how, NULL), -ETIMEDOUT);
	begin_put(bed->store, "n", 3);
	until_it_waits(bed);
	/* Room comes meanwhile. */
	for (uint32_t i = 0; i < 4; i += 2)
		assert_int_equal(bed_unpin(bed->store, name_of(i)), 0);
	KIT_EXPECT(next_put(bed->store), 0, KVK_REASON_NONE);
	assert_true(has(bed->store, 4));
	/* What hangs is not waited for: it is refused, and nothing of it remains. */
	KIT_EXPECT(put_slots(bed->store, "long", 12), -ENOSPC, KVK_REASON_NO_ROOM);
	kvk_fault_release(bed_backend(bed->store));
	KIT_EXPECT(next_put(bed->store), 0, KVK_REASON_NONE);
	BED_AGREES(bed->store);
}

/* Puts one at a time, removing each, until the one that was begun before is refused; returns how many went before it. */
static uint32_t puts_before(struct bed *bed)
{
	for (uint32_t count = 0;; count++) {
		struct kvk_result result;

		begin_put(bed->store, "small", 2);
		result = next_put(bed->store);
		if (result.status) {
			assert_int_equal(result.status, -ENOSPC);
			KIT_EXPECT(next_put(bed->store), 0, KVK_REASON_NONE);
		}
		assert_int_equal(bed_remove(bed->store, "small", NULL), 0);
		if (result.status)
			return count;
	}
}

/*
 * What fits goes before one for which there is no run yet, 16 times at most. How often in the 1.5 s that one waits is the machine's; and one
 * may come before it was found that there is none.
 */
static void smaller_ones_pass(void **state)
{
	struct bed *bed = *state;
	uint32_t most = 0;

	begin_slow(bed, KVK_FAULT_HANG);
	for (uint32_t i = 0; i < 10 && most < 3; i++) {
		uint32_t count;

		begin_put(bed->store, "n", 3);
		until_it_waits(bed);
		count = puts_before(bed);
		assert_true(count <= 17);
		most = count > most ? count : most;
	}
	assert_true(most >= 3);
	kvk_fault_release(bed_backend(bed->store));
	KIT_EXPECT(next_put(bed->store), 0, KVK_REASON_NONE);
	BED_AGREES(bed->store);
}

static void close_while_it_waits(void **state)
{
	struct bed *bed = *state;

	begin_slow(bed, KVK_FAULT_DELAY);
	begin_put(bed->store, "n", 3);
	until_it_waits(bed);
	assert_int_equal(bed_close(bed), 0);
	open_shape(bed, TWENTY, LRU);
	assert_int_equal(bed_lookup(bed->store, "n", 0, NULL), -ENOENT);
	assert_true(has(bed->store, 0));
	BED_AGREES(bed->store);
}

/* ---- many ----------------------------------------------------------------------------------------- */

#define WRITERS 4

struct writer {
	struct kvk_store *store;
	uint32_t first, stored, refused;
	uint64_t random;
	pthread_t thread;
};

static void *write_on(void *argument)
{
	struct writer *writer = argument;

	for (uint32_t i = 0; i < 400; i++) {
		uint32_t slots = 1 + (uint32_t)kit_below(&writer->random, 16);
		struct kvk_result result = put_slots(writer->store, name_of(writer->first + i), slots);

		writer->stored += result.status == 0;
		writer->refused += result.status != 0;
		if (result.status == 0)
			get_slots(writer->store, name_of(writer->first + i), slots);
	}
	return NULL;
}

/* Objects of all sizes through a pool that holds some thirty of them: none is refused, and the pool stays well filled. */
static void many(void **state)
{
	struct bed *bed = *state;
	struct writer writers[WRITERS];
	uint64_t random = kit_seed(), used;
	uint32_t stored = 0, refused = 0;

	open_shape(bed, "\"pool_size\": 256, \"slot_size\": 4096", LRU);
	for (uint32_t i = 0; i < WRITERS; i++) {
		writers[i] = (struct writer){ .store = bed->store, .first = i * 10000, .random = random + i };
		assert_int_equal(pthread_create(&writers[i].thread, NULL, write_on, &writers[i]), 0);
	}
	for (uint32_t i = 0; i < WRITERS; i++) {
		pthread_join(writers[i].thread, NULL);
		stored += writers[i].stored;
		refused += writers[i].refused;
	}
	used = bed_usage(bed->store).used_bytes / PAGE;
	printf("# %u stored, %u refused, %" PRIu64 " evicted, %" PRIu64 " of 256 slots used in the end\n", stored, refused,
	       bed_stats(bed->store).evicted, used);
	assert_int_equal(refused, 0);
	assert_true(used > 64);
	BED_AGREES(bed->store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BED_TEST(makes_a_run, BED_POOL_THREADS, "pool, threads"),
		BED_TEST(no_policy, BED_POOL_THREADS, "pool, threads"),
		BED_TEST(pins_while_a_run_is_made, BED_POOL_THREADS, "pool, threads"),
		BED_TEST(pins_in_the_way, BED_POOL_THREADS, "pool, threads"),
		BED_TEST(seams, BED_POOL_THREADS, "pool, threads"),
		BED_TEST(ends_while_it_waits, BED_POOL_THREADS, "pool, threads"),
		BED_TEST(smaller_ones_pass, BED_POOL_THREADS, "pool, threads"),
		BED_TEST(close_while_it_waits, BED_POOL_THREADS, "pool, threads"),
		BED_TEST(many, BED_POOL_THREADS, "pool, threads"),
	};

	kit_in_memory();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
