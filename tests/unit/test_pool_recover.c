/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an open finds in a pool: on a medium that fails, among footers of others and of newer versions, and with many objects. What was
 * stored stays, and nothing else is taken for an object.
 */
#include "no_digest.h"
#include "pool_bench.h"
#include "seal.h"

#include <time.h>

#define BYTES 20000u

/* Slots that are read as wholes, and slots of which a page is read. */
static const uint64_t slot_sizes[] = { 4096, BENCH_SLOT_BYTES, 65536 };

static void test_what_cannot_be_read(void **state)
{
	for (size_t s = 0; s < 3; s++) {
		uint64_t slot_bytes = slot_sizes[s], bytes = 2 * slot_bytes;
		unsigned first = slot_bytes > 16384 ? 2 : 3;     /* read of the first slot on its own: the head before, the batch before that */
		struct bench bench;

		begin(&bench, slot_bytes, 8);
		try_open(&bench, 0, NULL, NULL, true);
		assert_int_equal(bench_put(&bench, "key", bytes, 1), 0);
		bench_close_adapter(&bench);

		/* Reading goes on slot by slot. */
		if (first == 3) {
			BEND(&bench.bent, .call = KVK_XFER_READ, .nth = 2, .error = -EIO);
			try_open(&bench, 0, NULL, NULL, true);
			assert_int_equal(slots_of(&bench).lost_slots, 0);
			assert_int_equal(bench_get(&bench, "key", bytes), 1);
			bench_close_adapter(&bench);
		}
		/* A slot in the middle of the object: it is known all the same, and its loads say what of it can be read. */
		bent_set(&bench.bent, (struct bend[2]){ { .call = KVK_XFER_READ, .nth = first + 1, .error = -EIO },
			 { .call = KVK_XFER_READ, .nth = 2, .error = first == 3 ? -EIO : 0 } }, 2);
		try_open(&bench, 0, NULL, NULL, true);
		assert_int_equal(slots_of(&bench).lost_slots, 0);
		assert_int_equal(slots_of(&bench).free_slots, 8 - 3);
		assert_int_equal(bench_get(&bench, "key", bytes), 1);
		bench_close_adapter(&bench);
		/* A free one, and one whose end nobody saw. */
		bent_set(&bench.bent, (struct bend[2]){ { .call = KVK_XFER_READ, .nth = first + 6, .after = ends_early },
			 { .call = KVK_XFER_READ, .nth = 2, .after = first == 3 ? ends_early : NULL } }, 2);
		try_open(&bench, 0, NULL, NULL, true);
		assert_int_equal(slots_of(&bench).lost_slots, 1);
		assert_int_equal(slots_of(&bench).free_slots, 8 - 3 - 1);
		assert_int_equal(bench_get(&bench, "key", bytes), 1);
		bench_close_adapter(&bench);
		/* What is no error of the medium's ends it. */
		bench.shape.slots = 15;
		try_open(&bench, 0, NULL, NULL, false);
		BEND(&bench.bent, .call = KVK_XFER_READ, .nth = 3, .every = true, .error = -ENOMEM);
		try_open(&bench, -ENOMEM, PATH, "cannot be read", false);
		STRAIGHT(&bench.bent);
		try_open(&bench, 0, NULL, NULL, true);
		assert_int_equal(bench_get(&bench, "key", bytes), 1);
		bench_close(&bench);
	}
}

#define AT_VERSION 8

/* Of a newer version: somebody else's payload may say so as well, and then it is nobody's object. */
static void test_newer(void **state)
{
	for (size_t s = 0; s < 3; s++) {
		uint64_t end_bytes = KVK_POOL_HEAD_BYTES + 3 * slot_sizes[s], length;
		uint8_t *file, *footer;
		struct bench bench;

		begin(&bench, slot_sizes[s], 8);
		try_open(&bench, 0, NULL, NULL, true);
		assert_int_equal(bench_put(&bench, "key", 2 * slot_sizes[s], 1), 0);
		bench_close_adapter(&bench);
		file = bent_read(&bench.bent, FIRST, &length);
		footer = file + end_bytes - KVK_PAGE_BYTES;
		footer[AT_VERSION] ^= 0x40;
		seal_footer(footer, KVK_PAGE_BYTES);
		bent_file(&bench.bent, FIRST, file, length);
		try_open(&bench, -EPROTO, PATH, "newer version", false);
		free(file);
		bench_close(&bench);
	}
}

/* An object of many blocks has a footer of two pages, which recovery reads on its own. */
#define LONG_KEY_BYTES 1000u
#define LONG_BYTES (UINT64_C(400) * 65536)

static void test_long_footer(void **state)
{
	static char key[LONG_KEY_BYTES + 1];
	uint64_t end_bytes, length;
	struct kvk_footer footer;
	uint8_t digest[KVK_DIGEST_BYTES], *file;
	uint64_t sums[400], seed;
	struct kvk_pool *pool;
	struct bench bench;

	memset(key, 'k', LONG_KEY_BYTES);
	begin(&bench, 8 << 20, 6);
	try_open(&bench, 0, NULL, NULL, true);
	assert_int_equal(bench_put(&bench, "first", 100, 1), 0);
	pool = kvk_pool_of(bench.adapter);
	end_bytes = KVK_POOL_HEAD_BYTES + 5 * bench.shape.slot_bytes;
	footer = (struct kvk_footer){
		.checksum_id = KVK_CHECKSUM_XXH3, .logical_bytes = LONG_BYTES, .stored_bytes = LONG_BYTES, .block_bytes = 65536,
		.block_count = 400, .created_ns = 1, .generation = 77, .writer_id = kvk_pool_writer(pool->pool_id, 1),
		.key = key, .key_bytes = LONG_KEY_BYTES, .block_sums = sums,
	};
	bench_close_adapter(&bench);
	file = bent_read(&bench.bent, FIRST, &length);
	assert_int_equal(kvk_footer_bytes(&footer), 2 * KVK_PAGE_BYTES);
	assert_int_equal(kvk_key_digest(digest, bench.namespace_digest, key, LONG_KEY_BYTES), 0);
	seed = kvk_digest_seed(digest);
	ask_fill(file + end_bytes - 8192 - LONG_BYTES, LONG_BYTES, key, 5);
	for (unsigned i = 0; i < 400; i++)
		sums[i] = kvk_block_sum(file + end_bytes - 8192 - LONG_BYTES + i * 65536, 65536, seed);
	assert_int_equal(kvk_footer_encode(&footer, digest, file + end_bytes - 8192, 8192), 0);
	bent_file(&bench.bent, FIRST, file, length);

	try_open(&bench, 0, NULL, NULL, true);
	assert_int_equal(slots_of(&bench).free_slots, 1);
	assert_int_equal(bench_get(&bench, key, LONG_BYTES), 5);
	{
		struct kvk_listed listed;

		assert_int_equal(bench.adapter->ops->inspect(bench.adapter, "slot-00000001", &listed), 0);
		assert_int_equal(listed.state, KVK_OBJECT_PRESENT);
		assert_int_equal(listed.key_bytes, LONG_KEY_BYTES);
		BEND(&bench.bent, .call = KVK_XFER_READ, .nth = 2, .error = -EIO);
		assert_int_equal(bench.adapter->ops->inspect(bench.adapter, "slot-00000001", &listed), 0);
		assert_int_equal(listed.state, KVK_OBJECT_DAMAGED);
	}
	bench_close_adapter(&bench);
	/* Its second reading fails: the slot is not known, and not free. */
	BEND(&bench.bent, .call = KVK_XFER_READ, .nth = 7, .error = -EIO);
	try_open(&bench, 0, NULL, NULL, true);
	assert_int_equal(slots_of(&bench).lost_slots, 1);
	bench_close_adapter(&bench);
	/* Memory for it. */
	for (uint64_t nth = 1; nth < 30; nth++) {
		struct kvk_error error = { .struct_bytes = sizeof(error) };
		int err;

		STRAIGHT(&bench.bent);
		kvk_mem_fail_nth(nth, false);
		err = bench_try_pool(&bench, &error);
		kvk_mem_fail_nth(0, false);
		if (!err)
			bench_close_adapter(&bench);
		else
			assert_int_equal(err, -ENOMEM);
	}
	free(file);
	bench_close(&bench);
}

/* Of two that claim a slot the later has it, and what was beaten is zeroed, if the medium lets it be. */
static void test_beaten(void **state)
{
	uint8_t *before, *after, *mix;
	uint64_t length;
	struct bench bench;

	begin(&bench, BENCH_SLOT_BYTES, 8);
	try_open(&bench, 0, NULL, NULL, true);
	assert_int_equal(bench_put(&bench, "a", BYTES, 1), 0);
	before = bent_read(&bench.bent, FIRST, &length);
	{
		struct ask ask;

		ask_init(&ask, &bench, "a", 0, 0);
		ask_run(&ask, &bench, start_remove);
		ask_end(&ask);
	}
	assert_int_equal(bench_put(&bench, "b", 5 * BENCH_SLOT_BYTES, 2), 0);
	bench_close_adapter(&bench);
	after = bent_read(&bench.bent, FIRST, &length);
	/* The older footer is back. */
	mix = after;
	memcpy(mix + KVK_POOL_HEAD_BYTES + 3 * BENCH_SLOT_BYTES - KVK_PAGE_BYTES,
	       before + KVK_POOL_HEAD_BYTES + 3 * BENCH_SLOT_BYTES - KVK_PAGE_BYTES, KVK_PAGE_BYTES);
	for (int zeroed = 0; zeroed < 2; zeroed++) {
		uint8_t *now;

		bent_file(&bench.bent, FIRST, mix, length);
		BEND(&bench.bent, .call = KVK_XFER_WRITE, .nth = 1, .error = zeroed ? 0 : -EIO);
		try_open(&bench, 0, NULL, NULL, true);
		assert_int_equal(bench_get(&bench, "a", BYTES), -ENOENT);
		assert_int_equal(slots_of(&bench).free_slots, 2);
		bench_close_adapter(&bench);
		now = bent_read(&bench.bent, FIRST, &length);
		assert_int_equal(now[KVK_POOL_HEAD_BYTES + 3 * BENCH_SLOT_BYTES - KVK_PAGE_BYTES] == 0, zeroed);
		free(now);
	}
	free(before);
	free(after);
	bench_close(&bench);
}

/* ---- strangers ---------------------------------------------------------------------------------- */

#define AT_WRITER 64
#define SLOT_END(slot) (KVK_POOL_HEAD_BYTES + ((slot) + 1) * (uint64_t)BENCH_SLOT_BYTES)

/* A page at the end of a slot that says what no object that ends there does: it is somebody's payload, and its slot is free. */
static void test_strangers(void **state)
{
	for (unsigned way = 0; way < 6; way++) {
		uint64_t length, long_bytes = 100000;
		uint8_t *file, *from, *to, page[KVK_PAGE_BYTES];
		uint64_t writer;
		struct bench bench;

		begin(&bench, BENCH_SLOT_BYTES, 20);
		try_open(&bench, 0, NULL, NULL, true);
		/* Ten slots are taken, so that what comes is in the second file. */
		assert_int_equal(bench_put(&bench, "a", 9 * BENCH_SLOT_BYTES, 1), 0);
		assert_int_equal(bench_put(&bench, "b", 100, 2), 0);
		writer = kvk_pool_writer(kvk_pool_of(bench.adapter)->pool_id, 0);
		bench_close_adapter(&bench);
		file = bent_read(&bench.bent, SECOND, &length);
		from = file + SLOT_END(0) - KVK_PAGE_BYTES;
		to = file + SLOT_END(4) - KVK_PAGE_BYTES;
		memcpy(page, from, sizeof(page));
		if (way == 1) {
			/* It would begin before the file. */
			seal_put(page + 32, 8, long_bytes);
			seal_put(page + 40, 8, long_bytes);
			seal_put(page + 52, 4, 2);
			seal_footer(page, sizeof(page));
		} else if (way >= 2 && way < 4) {
			/* Of a newer version, in another file or behind where it ends. */
			page[AT_VERSION] ^= 0x40;
			seal_put(page + AT_WRITER, 8, writer + (way == 2 ? 9 : 15));
			seal_footer(page, sizeof(page));
		} else if (way == 4) {
			/* A footer longer than all that lies before it: in the first slot, where a page is all there is. */
			seal_put(page + KVK_PAGE_BYTES - 16, 4, 3 * KVK_PAGE_BYTES);
			to = file + SLOT_END(0) - KVK_PAGE_BYTES;
		} else if (way == 5) {
			/* Damaged. */
			page[100] ^= 1;
		}
		memcpy(to, page, sizeof(page));
		bent_file(&bench.bent, SECOND, file, length);
		try_open(&bench, 0, NULL, NULL, true);
		assert_int_equal(slots_of(&bench).free_slots, way == 4 ? 10 : 9);
		assert_int_equal(bench_get(&bench, "a", 9 * BENCH_SLOT_BYTES), 1);
		assert_int_equal(bench_get(&bench, "b", 100), way == 4 ? -ENOENT : 2);
		free(file);
		bench_close(&bench);
	}
}

/* Who lost count of the openings goes on behind the last put all the same. */
static void test_lost_count(void **state)
{
	struct bench bench;

	begin(&bench, BENCH_SLOT_BYTES, 8);
	bench.shape.opens = 5;
	try_open(&bench, 0, NULL, NULL, true);
	assert_int_equal(bench_put(&bench, "a", 100, 1), 0);
	bench_close_adapter(&bench);
	bench.shape.opens = 1;
	try_open(&bench, 0, NULL, NULL, true);
	assert_true(kvk_pool_of(bench.adapter)->map.generation > UINT64_C(5) << KVK_POOL_PUTS_BITS);
	bench_close(&bench);
}

/* ---- many --------------------------------------------------------------------------------------- */

#define MANY 1300u
#define OBJECTS 600u

static void open_many(struct bench *bench, int expected)
{
	try_open(bench, expected, expected ? PATH : NULL, NULL, expected == 0);
	if (expected)
		return;
	assert_int_equal(slots_of(bench).free_slots, MANY - OBJECTS);
	bench_close_adapter(bench);
}

static void waits(struct bent *bent, struct kvk_xfer *xfer)
{
	struct timespec pause = { .tv_nsec = 200000000 };

	nanosleep(&pause, NULL);
}

/* Several threads look, or one if no other is to be had; where one fails the others stop. */
static void test_threads(void **state)
{
	const struct bend fails[2] = { { .call = KVK_XFER_READ, .nth = 5, .error = -EACCES },
				       { .call = KVK_XFER_READ, .nth = 6, .every = true, .before = waits } };
	pthread_attr_t attr, usual;
	struct bench bench;

	begin(&bench, KVK_PAGE_BYTES, MANY);
	bench.shape.file_slots = 400;
	try_open(&bench, 0, NULL, NULL, true);
	for (unsigned i = 0; i < OBJECTS; i++) {
		char key[16];

		snprintf(key, sizeof(key), "key %u", i);
		assert_int_equal(bench_put(&bench, key, 0, 1), 0);
	}
	bench_close_adapter(&bench);
	open_many(&bench, 0);
	/* The heads of four files were read before. */
	bent_set(&bench.bent, fails, 2);
	open_many(&bench, -EACCES);
	STRAIGHT(&bench.bent);

	/* No stack is so large. */
	assert_int_equal(pthread_getattr_default_np(&usual), 0);
	assert_int_equal(pthread_getattr_default_np(&attr), 0);
	assert_int_equal(pthread_attr_setstacksize(&attr, (size_t)1 << 46), 0);
	assert_int_equal(pthread_setattr_default_np(&attr), 0);
	open_many(&bench, 0);
	assert_int_equal(pthread_setattr_default_np(&usual), 0);
	pthread_attr_destroy(&attr);
	pthread_attr_destroy(&usual);
	open_many(&bench, 0);
	bench_close(&bench);
}

static void *open_it(void *argument)
{
	struct bench *bench = argument;

	/* Its first digest. */
	atomic_store(&no_digest, true);
	assert_int_equal(bench_try_pool(bench, NULL), -ENOMEM);
	atomic_store(&no_digest, false);
	return NULL;
}

/* Where it cannot be told whose the objects are nothing is opened, and nothing forgotten. */
static void test_no_memory_for_a_digest(void **state)
{
	struct bench bench;
	pthread_t thread;

	begin(&bench, BENCH_SLOT_BYTES, 8);
	try_open(&bench, 0, NULL, NULL, true);
	assert_int_equal(bench_put(&bench, "a", 100, 1), 0);
	bench_close_adapter(&bench);
	assert_int_equal(pthread_create(&thread, NULL, open_it, &bench), 0);
	pthread_join(thread, NULL);
	try_open(&bench, 0, NULL, NULL, true);
	assert_int_equal(bench_get(&bench, "a", 100), 1);
	bench_close(&bench);
}

/* More slots than so many threads are for: there are no more of them all the same. */
static void test_many_threads(void **state)
{
	struct bench bench;

	begin(&bench, KVK_PAGE_BYTES, 6000);
	bench.shape.file_slots = 6000;
	try_open(&bench, 0, NULL, NULL, true);
	assert_int_equal(bench_put(&bench, "a", 100, 1), 0);
	bench_close_adapter(&bench);
	try_open(&bench, 0, NULL, NULL, true);
	assert_int_equal(slots_of(&bench).free_slots, 6000 - 2);
	assert_int_equal(bench_get(&bench, "a", 100), 1);
	bench_close(&bench);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_cannot_be_read),
		cmocka_unit_test(test_newer),
		cmocka_unit_test(test_long_footer),
		cmocka_unit_test(test_beaten),
		cmocka_unit_test(test_strangers),
		cmocka_unit_test(test_lost_count),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_no_memory_for_a_digest),
		cmocka_unit_test(test_many_threads),
	};

	no_digest_prepare();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
