/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pool is opened on a medium that fails, on files that are not its own, and on a device that is none: what it refuses and in which
 * words, what it makes, and what it finds.
 */
#include "adapter/pool/pool.h"
#include "bent_bed.h"
#include "seal.h"

#define BYTES 20000u
#define RUN_SLOTS 3
#define FILE "pool-00000.slots"
#define SECOND "pool-00001.slots"
#define PATH "backend_params.file_path"
#define DEVICE "backend_params.device_path"

/* Opens or does not, with the right words; is closed again unless it stays. */
static void try_open(struct bench *bench, int expected, const char *option, const char *word, bool stays)
{
	struct kvk_error error = { .struct_bytes = sizeof(error) };
	int err = bench_try_pool(bench, &error);

	if (err != expected || strcmp(error.option, option ? option : "") || (word && !strstr(error.text, word)))
		fail_msg("%d, option \"%s\": %s; wanted %d, \"%s\"", err, error.option, error.text, expected, option ? option : "");
	assert_int_equal(error.text[0] != '\0', err != 0);
	if (err)
		assert_null(bench->adapter);
	else if (!stays)
		bench_close_adapter(bench);
	if (err || !stays)
		assert_int_equal(bench->bent.places, 0);
}

static void begin(struct bench *bench, uint64_t slot_bytes, uint64_t slots)
{
	bench_open(bench, KVK_DURABILITY_NONE, KVK_NAMING_KVKEEP);
	bench->shape = (struct kvk_pool_shape){
		.slot_bytes = slot_bytes, .slots = slots, .file_slots = BENCH_FILE_SLOTS, .opens = 1,
	};
	bench->options.pool = &bench->shape;
}

static struct kvk_slots slots_of(struct bench *bench)
{
	struct kvk_slots slots;

	bench->adapter->ops->slots(bench->adapter, &slots);
	return slots;
}

/* ---- files -------------------------------------------------------------------------------------- */

static void is_a_folder(struct bent *bent, struct kvk_xfer *xfer)
{
	xfer->stat.regular = false;
}

static void is_anothers(struct bent *bent, struct kvk_xfer *xfer)
{
	xfer->stat.owned = false;
}

static void ends_early(struct bent *bent, struct kvk_xfer *xfer)
{
	xfer->result = 0;
}

static void comes_in_two(struct bent *bent, struct kvk_xfer *xfer)
{
	xfer->result = 100;
}

#define FAILS(op, at, number) { .call = (op), .nth = (at), .error = -(number) }

static void test_making(void **state)
{
	static const struct { struct bend bend; int expected; const char *option, *word; } rows[] = {
		{ { 0 }, 0, NULL, NULL },
		{ FAILS(KVK_XFER_OPEN, 1, EACCES), -EACCES, PATH, "cannot be opened" },
		{ FAILS(KVK_XFER_CREATE, 1, EROFS), -EROFS, PATH, "cannot be made" },
		{ FAILS(KVK_XFER_RESERVE, 1, ENOSPC), -ENOSPC, "pool_size", "no room" },
		{ FAILS(KVK_XFER_RESERVE, 1, EDQUOT), -EDQUOT, "pool_size", "no room" },
		{ FAILS(KVK_XFER_RESERVE, 1, EFBIG), -EFBIG, "pool_size", "no room" },
		{ FAILS(KVK_XFER_RESERVE, 1, EOPNOTSUPP), 0, NULL, NULL },
		{ FAILS(KVK_XFER_WRITE, 1, EIO), -EIO, PATH, "cannot be written" },
		{ { .call = KVK_XFER_WRITE, .nth = 1, .after = ends_early }, -EIO, PATH, "cannot be written" },
		{ FAILS(KVK_XFER_WRITE, 2, EIO), -EIO, PATH, "cannot be made" },
		{ FAILS(KVK_XFER_SYNC, 1, EIO), -EIO, PATH, "cannot be made" },
		{ FAILS(KVK_XFER_PUBLISH, 1, EIO), -EIO, PATH, "cannot be made" },
		{ FAILS(KVK_XFER_SYNC_FOLDER, 1, EIO), -EIO, PATH, "cannot be made" },
		{ FAILS(KVK_XFER_OPEN, 2, EMFILE), -EMFILE, PATH, "cannot be opened" },
		{ FAILS(KVK_XFER_OPEN, 2, ENOENT), -ENOENT, PATH, "is gone" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct bench bench;

		begin(&bench, BENCH_SLOT_BYTES, 8);
		bent_set(&bench.bent, &rows[i].bend, 1);
		try_open(&bench, rows[i].expected, rows[i].option, rows[i].word, false);
		assert_true(bench.bent.struck > 0 || !rows[i].bend.nth);
		/* The next one goes on where that one ended. */
		STRAIGHT(&bench.bent);
		try_open(&bench, 0, NULL, NULL, true);
		assert_int_equal(slots_of(&bench).free_slots, 8);
		assert_int_equal(bench_put(&bench, "key", BYTES, 1), 0);
		bench_close(&bench);
	}
}

static void test_opening(void **state)
{
	static const struct { struct bend bend; int expected; const char *option, *word; } rows[] = {
		{ FAILS(KVK_XFER_OPEN, 1, ELOOP), -ELOOP, PATH, "cannot be opened" },
		{ { .call = KVK_XFER_OPEN, .nth = 1, .after = is_a_folder }, -EPERM, PATH, "another owner's" },
		{ { .call = KVK_XFER_OPEN, .nth = 1, .after = is_anothers }, -EPERM, PATH, "another owner's" },
		{ FAILS(KVK_XFER_READ, 1, EIO), -EIO, PATH, "cannot be read" },
		{ { .call = KVK_XFER_READ, .nth = 1, .after = ends_early }, -EBADMSG, PATH, "does not begin" },
		{ { .call = KVK_XFER_READ, .nth = 1, .after = comes_in_two }, 0, NULL, NULL },
		{ FAILS(KVK_XFER_READ, 2, EACCES), -EACCES, PATH, "cannot be read" },
	};
	struct bench bench;

	begin(&bench, BENCH_SLOT_BYTES, 8);
	try_open(&bench, 0, NULL, NULL, false);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		bent_set(&bench.bent, &rows[i].bend, 1);
		try_open(&bench, rows[i].expected, rows[i].option, rows[i].word, false);
	}
	bench_close(&bench);
}

/* Makes it longer: the file that is there, and a second one. */
static void test_growing(void **state)
{
	static const struct { struct bend bend; int expected; const char *option, *word; } rows[] = {
		{ FAILS(KVK_XFER_RESERVE, 1, ENOSPC), -ENOSPC, "pool_size", "no room" },
		{ FAILS(KVK_XFER_SYNC, 1, EIO), -EIO, PATH, "cannot be made longer" },
		{ FAILS(KVK_XFER_CREATE, 1, EIO), -EIO, PATH, "cannot be made" },
		{ { 0 }, 0, NULL, NULL },
	};
	struct bench bench;

	begin(&bench, BENCH_SLOT_BYTES, 8);
	try_open(&bench, 0, NULL, NULL, true);
	assert_int_equal(bench_put(&bench, "key", BYTES, 1), 0);
	bench_close_adapter(&bench);
	bench.shape.slots = 15;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		/* Each as if it was the first. */
		if (i == 1) {
			uint64_t bytes;
			uint8_t *file = bent_read(&bench.bent, FILE, &bytes);

			bent_file(&bench.bent, FILE, file, KVK_POOL_HEAD_BYTES + 8 * BENCH_SLOT_BYTES);
			free(file);
		}
		bent_set(&bench.bent, &rows[i].bend, 1);
		try_open(&bench, rows[i].expected, rows[i].option, rows[i].word, rows[i].expected == 0);
	}
	assert_int_equal(slots_of(&bench).free_slots, 15 - RUN_SLOTS);
	assert_int_equal(slots_of(&bench).files, 2);
	assert_int_equal(bench_get(&bench, "key", BYTES), 1);
	bench_close(&bench);
}

/* Heads that say something else. */
static void test_heads(void **state)
{
	struct bench bench, other;
	uint8_t *file, *second, page[KVK_PAGE_BYTES];
	uint64_t bytes;

	begin(&bench, BENCH_SLOT_BYTES, 15);
	try_open(&bench, 0, NULL, NULL, false);
	file = bent_read(&bench.bent, FILE, &bytes);
	bench.shape.slot_bytes *= 2;
	try_open(&bench, -EINVAL, PATH, "slot_size", false);
	bench.shape.slot_bytes /= 2;
	bench.shape.file_slots = 5;
	try_open(&bench, -EINVAL, PATH, "slots a file", false);
	bench.shape.file_slots = BENCH_FILE_SLOTS;

	/* One file in the other's place, and one of another pool. */
	bent_step(&bench.bent, KVK_XFER_UNLINK, SECOND, NULL);
	assert_int_equal(bent_step(&bench.bent, KVK_XFER_MOVE, FILE, SECOND), 0);
	try_open(&bench, -EINVAL, PATH, "another pool", false);
	bent_file(&bench.bent, FILE, file, bytes);
	bent_step(&bench.bent, KVK_XFER_UNLINK, SECOND, NULL);
	begin(&other, BENCH_SLOT_BYTES, 15);
	try_open(&other, 0, NULL, NULL, false);
	second = bent_read(&other.bent, SECOND, &bytes);
	bench_close(&other);
	bent_file(&bench.bent, SECOND, second, bytes);
	try_open(&bench, -EINVAL, PATH, "another pool", false);
	bent_step(&bench.bent, KVK_XFER_UNLINK, SECOND, NULL);
	try_open(&bench, 0, NULL, NULL, false);

	/* Of a newer version, and damaged. */
	memcpy(page, file, sizeof(page));
	page[12] ^= 1;
	seal_superblock(page);
	bent_file(&bench.bent, FILE, page, sizeof(page));
	try_open(&bench, -EPROTO, PATH, "newer version", false);
	page[12] ^= 3;
	bent_file(&bench.bent, FILE, page, sizeof(page));
	try_open(&bench, -EBADMSG, PATH, "does not begin", false);
	free(file);
	free(second);
	bench_close(&bench);
}

static void test_no_memory(void **state)
{
	struct bench bench;
	uint64_t nth = 0;
	int err;

	do {
		struct kvk_error error = { .struct_bytes = sizeof(error) };

		begin(&bench, BENCH_SLOT_BYTES, 15);
		kvk_mem_fail_nth(++nth, false);
		err = bench_try_pool(&bench, &error);
		kvk_mem_fail_nth(0, false);
		if (err) {
			assert_int_equal(err, -ENOMEM);
			assert_null(bench.adapter);
		} else if (!kvk_mem_has_failed()) {
			assert_int_equal(slots_of(&bench).free_slots, 15);
		}
		bench_close(&bench);
	} while (nth < 60);
	assert_int_equal(err, 0);
}

/* ---- a device ----------------------------------------------------------------------------------- */

/* A file stands for it. */
static void is_a_device(struct bent *bent, struct kvk_xfer *xfer)
{
	xfer->flags &= ~(uint32_t)KVK_XFER_DEVICE;
}

#define DEVICE_OPENS { .call = KVK_XFER_OPEN, .nth = 1, .every = true, .before = is_a_device }

static void try_device(struct bench *bench, struct bend bend, int expected, const char *option, const char *word)
{
	bent_set(&bench->bent, (struct bend[2]){ bend, DEVICE_OPENS }, 2);
	try_open(bench, expected, option, word, false);
}

static void test_device(void **state)
{
	static const struct bend none = { 0 };
	uint64_t bytes = KVK_POOL_HEAD_BYTES + 8 * BENCH_SLOT_BYTES, length;
	uint8_t *zeros = calloc(1, 2 << 20), *made;
	struct bench bench;

	assert_non_null(zeros);
	begin(&bench, BENCH_SLOT_BYTES, 8);
	bench.shape.file_slots = KVK_POOL_SLOTS_MAX;
	bench.options.device = "device";
	try_device(&bench, (struct bend)FAILS(KVK_XFER_OPEN, 1, EBUSY), -EBUSY, DEVICE, "mounted");
	try_device(&bench, (struct bend)FAILS(KVK_XFER_OPEN, 1, ENOTBLK), -ENOTBLK, DEVICE, "cannot be used");
	bent_file(&bench.bent, "device", zeros, 1000);
	try_device(&bench, none, -EINVAL, "pool_size", "0 slots");
	bent_file(&bench.bent, "device", zeros, bytes - 1);
	try_device(&bench, none, -EINVAL, "pool_size", "7 slots");
	bent_file(&bench.bent, "device", zeros, bytes);
	try_device(&bench, (struct bend)FAILS(KVK_XFER_READ, 1, EIO), -EIO, DEVICE, "cannot be read");
	/* Nothing may be on it, and it has to be read to know that. */
	try_device(&bench, (struct bend)FAILS(KVK_XFER_READ, 3, EIO), -EIO, DEVICE, "cannot be read");
	zeros[bytes - 5] = 1;
	bent_file(&bench.bent, "device", zeros, bytes);
	try_device(&bench, none, -EEXIST, DEVICE, "something on the device");
	zeros[bytes - 5] = 0;
	zeros[0] = 1;
	bent_file(&bench.bent, "device", zeros, bytes);
	try_device(&bench, none, -EEXIST, DEVICE, "something on the device");
	zeros[0] = 0;
	bent_file(&bench.bent, "device", zeros, bytes);
	try_device(&bench, (struct bend)FAILS(KVK_XFER_WRITE, 1, EIO), -EIO, DEVICE, "cannot be written");
	/* A MiB of zeros is enough. */
	zeros[(1 << 20) + 5] = 1;
	bent_file(&bench.bent, "device", zeros, 2 << 20);
	try_device(&bench, none, 0, NULL, NULL);
	try_device(&bench, none, 0, NULL, NULL);
	made = bent_read(&bench.bent, "device", &length);
	bench.shape.slot_bytes *= 2;
	try_device(&bench, none, -EINVAL, DEVICE, "slot_size");
	bench.shape.slot_bytes /= 2;
	made[12] ^= 1;
	seal_superblock(made);
	bent_file(&bench.bent, "device", made, length);
	try_device(&bench, none, -EPROTO, DEVICE, "newer version");
	/* A pool of several files is none of a device. */
	bench.shape.file_slots = 5;
	try_device(&bench, none, -EINVAL, DEVICE, "made of files");
	free(made);
	free(zeros);
	bench_close(&bench);
}

/* ---- recovering --------------------------------------------------------------------------------- */

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
		BEND(&bench.bent, .call = KVK_XFER_READ, .nth = 2, .every = true, .error = -ENOMEM);
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
		file = bent_read(&bench.bent, FILE, &length);
		footer = file + end_bytes - KVK_PAGE_BYTES;
		footer[AT_VERSION] ^= 0x40;
		seal_footer(footer, KVK_PAGE_BYTES);
		bent_file(&bench.bent, FILE, file, length);
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
	file = bent_read(&bench.bent, FILE, &length);
	assert_int_equal(kvk_footer_bytes(&footer), 2 * KVK_PAGE_BYTES);
	assert_int_equal(kvk_key_digest(digest, bench.namespace_digest, key, LONG_KEY_BYTES), 0);
	seed = kvk_digest_seed(digest);
	ask_fill(file + end_bytes - 8192 - LONG_BYTES, LONG_BYTES, key, 5);
	for (unsigned i = 0; i < 400; i++)
		sums[i] = kvk_block_sum(file + end_bytes - 8192 - LONG_BYTES + i * 65536, 65536, seed);
	assert_int_equal(kvk_footer_encode(&footer, digest, file + end_bytes - 8192, 8192), 0);
	bent_file(&bench.bent, FILE, file, length);

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
	before = bent_read(&bench.bent, FILE, &length);
	{
		struct ask ask;

		ask_init(&ask, &bench, "a", 0, 0);
		ask_run(&ask, &bench, start_remove);
		ask_end(&ask);
	}
	assert_int_equal(bench_put(&bench, "b", 5 * BENCH_SLOT_BYTES, 2), 0);
	bench_close_adapter(&bench);
	after = bent_read(&bench.bent, FILE, &length);
	/* The older footer is back. */
	mix = after;
	memcpy(mix + KVK_POOL_HEAD_BYTES + 3 * BENCH_SLOT_BYTES - KVK_PAGE_BYTES,
	       before + KVK_POOL_HEAD_BYTES + 3 * BENCH_SLOT_BYTES - KVK_PAGE_BYTES, KVK_PAGE_BYTES);
	for (int zeroed = 0; zeroed < 2; zeroed++) {
		uint8_t *now;

		bent_file(&bench.bent, FILE, mix, length);
		BEND(&bench.bent, .call = KVK_XFER_WRITE, .nth = 1, .error = zeroed ? 0 : -EIO);
		try_open(&bench, 0, NULL, NULL, true);
		assert_int_equal(bench_get(&bench, "a", BYTES), -ENOENT);
		assert_int_equal(slots_of(&bench).free_slots, 2);
		bench_close_adapter(&bench);
		now = bent_read(&bench.bent, FILE, &length);
		assert_int_equal(now[KVK_POOL_HEAD_BYTES + 3 * BENCH_SLOT_BYTES - KVK_PAGE_BYTES] == 0, zeroed);
		free(now);
	}
	free(before);
	free(after);
	bench_close(&bench);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_making),
		cmocka_unit_test(test_opening),
		cmocka_unit_test(test_growing),
		cmocka_unit_test(test_heads),
		cmocka_unit_test(test_no_memory),
		cmocka_unit_test(test_device),
		cmocka_unit_test(test_what_cannot_be_read),
		cmocka_unit_test(test_newer),
		cmocka_unit_test(test_long_footer),
		cmocka_unit_test(test_beaten),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
