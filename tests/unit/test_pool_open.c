/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pool is opened on a medium that fails, on files that are not its own, and on a device that is none: what it refuses and in which
 * words, and what it makes.
 */
#include "no_random.h"
#include "pool_bench.h"
#include "seal.h"

#define BYTES 20000u
#define RUN_SLOTS 3
#define DEVICE "backend_params.device_path"

/* ---- files -------------------------------------------------------------------------------------- */

static void is_a_folder(struct bent *bent, struct kvk_xfer *xfer)
{
	xfer->stat.regular = false;
}

static void is_anothers(struct bent *bent, struct kvk_xfer *xfer)
{
	xfer->stat.owned = false;
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
		if (i > 0) {
			uint64_t bytes;
			uint8_t *file = bent_read(&bench.bent, FIRST, &bytes);

			bent_file(&bench.bent, FIRST, file, KVK_POOL_HEAD_BYTES + 8 * BENCH_SLOT_BYTES);
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

static void test_no_random_numbers(void **state)
{
	struct bench bench;

	begin(&bench, BENCH_SLOT_BYTES, 8);
	no_random = true;
	try_open(&bench, -EIO, NULL, "random", false);
	no_random = false;
	/* What a maker that died left is looked at before, and is no file of the pool. */
	bench.bent.extra = ".tmp-0123456789abcdef-1";
	try_open(&bench, 0, NULL, NULL, false);
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
	file = bent_read(&bench.bent, FIRST, &bytes);
	bench.shape.slot_bytes *= 2;
	try_open(&bench, -EINVAL, PATH, "slot_size", false);
	bench.shape.slot_bytes /= 2;
	bench.shape.file_slots = 5;
	try_open(&bench, -EINVAL, PATH, "slots a file", false);
	bench.shape.file_slots = BENCH_FILE_SLOTS;

	/* One file in the other's place, and one of another pool. */
	bent_step(&bench.bent, KVK_XFER_UNLINK, SECOND, NULL);
	assert_int_equal(bent_step(&bench.bent, KVK_XFER_MOVE, FIRST, SECOND), 0);
	try_open(&bench, -EINVAL, PATH, "another pool", false);
	bent_file(&bench.bent, FIRST, file, bytes);
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
	bent_file(&bench.bent, FIRST, page, sizeof(page));
	try_open(&bench, -EPROTO, PATH, "newer version", false);
	page[12] ^= 3;
	bent_file(&bench.bent, FIRST, page, sizeof(page));
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
	no_random = true;
	try_device(&bench, none, -EIO, NULL, "random");
	no_random = false;
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_making),
		cmocka_unit_test(test_opening),
		cmocka_unit_test(test_growing),
		cmocka_unit_test(test_no_random_numbers),
		cmocka_unit_test(test_heads),
		cmocka_unit_test(test_no_memory),
		cmocka_unit_test(test_device),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
