/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walks over the folders of a medium that fails: what is listed, scanned, evicted and removed all the same, and what is told. And
 * footers that only a faulty writer would leave.
 */
#include "bent_bed.h"

#define BYTES 20000u
#define FILE_BYTES (20480u + 4096u)
#define KEY "m@00000000@0@01"

static void open_with(struct bench *bench, enum kvk_naming naming, uint32_t levels)
{
	bench_open(bench, KVK_DURABILITY_NONE, naming);
	bench->options.layout.levels = levels;
	assert_int_equal(kvk_dynamic_open(&bench->adapter, &bench->options), 0);
}

/* ---- one object --------------------------------------------------------------------------------- */

static struct kvk_listed inspect(struct bench *bench, const char *name, int expected)
{
	struct kvk_listed listed = { .key_bytes = 77 };
	int err = bench->adapter->ops->inspect(bench->adapter, name, &listed);

	if (err != expected)
		fail_msg("inspect: %d, wanted %d", err, expected);
	return listed;
}

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

static void test_inspecting(void **state)
{
	static const struct { int error, expected; } opens[] = {
		{ ENOENT, -ENOENT }, { ELOOP, -ENOENT }, { EACCES, -ENOENT }, { EMFILE, -EMFILE }, { ENFILE, -ENFILE }, { ENOMEM, -ENOMEM },
	};
	char name[KVK_NAME_BYTES_MAX];
	struct kvk_listed listed;
	struct bench bench;

	open_with(&bench, KVK_NAMING_KVKEEP, 1);
	assert_int_equal(bench_put(&bench, KEY, BYTES, 1), 0);
	bench_name(&bench, name, KEY);
	listed = inspect(&bench, name, 0);
	assert_int_equal(listed.state, KVK_OBJECT_PRESENT);
	assert_int_equal(listed.facts.logical_bytes, BYTES);
	for (size_t i = 0; i < sizeof(opens) / sizeof(opens[0]); i++) {
		BEND(&bench.bent, .call = KVK_XFER_OPEN, .nth = 1, .error = -opens[i].error);
		inspect(&bench, name, opens[i].expected);
	}
	/* One that the medium cannot open is there all the same, if its name is. */
	BEND(&bench.bent, .call = KVK_XFER_OPEN, .nth = 1, .error = -EIO);
	listed = inspect(&bench, name, 0);
	assert_int_equal(listed.state, KVK_OBJECT_DAMAGED);
	assert_int_equal(listed.facts.stored_bytes, FILE_BYTES);
	assert_true(listed.facts.inode > 0 && listed.facts.created_ns > 0);
	for (int gone = 0; gone < 2; gone++) {
		bent_set(&bench.bent, (struct bend[2]){ { .call = KVK_XFER_OPEN, .nth = 1, .error = -EIO },
			 { .call = KVK_XFER_STAT_NAME, .nth = 1, .error = gone ? -ENOENT : -EIO } }, 2);
		listed = inspect(&bench, name, gone ? -ENOENT : 0);
		assert_int_equal(listed.facts.stored_bytes, 0);
	}
	/* What cannot be read, or is no file, is one of the list, in its state; only what concerns all of them ends it. */
	BEND(&bench.bent, .call = KVK_XFER_OPEN, .nth = 1, .after = is_a_folder);
	assert_int_equal(inspect(&bench, name, 0).state, KVK_OBJECT_DAMAGED);
	BEND(&bench.bent, .call = KVK_XFER_READ, .nth = 1, .error = -EIO);
	assert_int_equal(inspect(&bench, name, 0).state, KVK_OBJECT_DAMAGED);
	BEND(&bench.bent, .call = KVK_XFER_READ, .nth = 1, .after = ends_early);
	assert_int_equal(inspect(&bench, name, 0).state, KVK_OBJECT_DAMAGED);
	BEND(&bench.bent, .call = KVK_XFER_READ, .nth = 1, .after = comes_in_two);
	assert_int_equal(inspect(&bench, name, 0).state, KVK_OBJECT_PRESENT);
	BEND(&bench.bent, .call = KVK_XFER_READ, .nth = 1, .error = -ENOMEM);
	inspect(&bench, name, -ENOMEM);
	assert_int_equal(bench.bent.places, 0);
	STRAIGHT(&bench.bent);
	bent_flip(&bench.bent, name, FILE_BYTES - 1);
	assert_int_equal(inspect(&bench, name, 0).state, KVK_OBJECT_DAMAGED);
	bent_flip(&bench.bent, name, FILE_BYTES - 1);
	bent_flip(&bench.bent, name, FILE_BYTES - 200);
	assert_int_equal(inspect(&bench, name, 0).state, KVK_OBJECT_DAMAGED);
	bench_close(&bench);
}

/* A whole object that is not where it belongs, or not as long as it says. */
static void test_inspecting_strangers(void **state)
{
	static const char elsewhere[] = "00/0000000000000000000000000000000000000000000000000000000000000000.kv";
	char name[KVK_NAME_BYTES_MAX];
	struct kvk_listed listed;
	struct bench bench;
	uint64_t bytes;
	uint8_t *file;

	open_with(&bench, KVK_NAMING_KVKEEP, 1);
	assert_int_equal(bench_put(&bench, KEY, BYTES, 1), 0);
	bench_name(&bench, name, KEY);
	file = bent_read(&bench.bent, name, &bytes);
	bent_file(&bench.bent, elsewhere, file, bytes);
	listed = inspect(&bench, elsewhere, 0);
	assert_int_equal(listed.state, KVK_OBJECT_DAMAGED);
	assert_int_equal(listed.key_bytes, 0);
	bent_file(&bench.bent, name, file + 4096, bytes - 4096);
	assert_int_equal(inspect(&bench, name, 0).state, KVK_OBJECT_DAMAGED);
	bent_file(&bench.bent, name, file, 100);
	assert_int_equal(inspect(&bench, name, 0).state, KVK_OBJECT_DAMAGED);
	bent_file(&bench.bent, name, file, bytes - 1);
	assert_int_equal(inspect(&bench, name, 0).state, KVK_OBJECT_DAMAGED);
	free(file);
	bench_close(&bench);
}

static void born_before(struct bent *bent, struct kvk_xfer *xfer)
{
	xfer->stat.born_ns = 1000;
}

static void born_never(struct bent *bent, struct kvk_xfer *xfer)
{
	xfer->stat.born_ns = 0;
}

static void test_inspecting_adopted(void **state)
{
	char name[KVK_NAME_BYTES_MAX];
	struct kvk_listed listed;
	struct bench bench;

	open_with(&bench, KVK_NAMING_LMCACHE, 0);
	bench_name(&bench, name, KEY);
	bent_file(&bench.bent, name, "no footer", 9);
	BEND(&bench.bent, .call = KVK_XFER_OPEN, .nth = 1, .after = born_before);
	listed = inspect(&bench, name, 0);
	assert_int_equal(listed.state, KVK_OBJECT_UNVERIFIED);
	assert_int_equal(listed.facts.logical_bytes, 9);
	BEND(&bench.bent, .call = KVK_XFER_OPEN, .nth = 1, .after = born_never);
	assert_int_equal(inspect(&bench, name, 0).state, KVK_OBJECT_DAMAGED);
	bench_close(&bench);
}

/* ---- lists -------------------------------------------------------------------------------------- */

static bool count_listed(void *user, const struct kvk_listed *listed)
{
	++*(unsigned *)user;
	return true;
}

static bool count_scanned(void *user, const struct kvk_scanned *scanned)
{
	++*(unsigned *)user;
	return true;
}

static bool one_is_enough(void *user, const struct kvk_scanned *scanned)
{
	++*(unsigned *)user;
	return false;
}

#define KEYS 6

static void put_some(struct bench *bench)
{
	for (unsigned i = 0; i < KEYS; i++) {
		char key[32];

		snprintf(key, sizeof(key), "m@00000000@0@0102%02x", i);
		assert_int_equal(bench_put(bench, key, BYTES, 1), 0);
	}
}

/* An error of the medium is told, but not that a folder went, or is none: there is nothing of ours in it then. */
static void test_lists(void **state)
{
	static const struct { int error; bool told_first, told_then; } rows[] = {
		{ ENOENT, false, false }, { ENOTDIR, false, false }, { ELOOP, false, false }, { EXDEV, false, false }, { EIO, true, true },
	};
	struct bench bench;
	unsigned listed;

	open_with(&bench, KVK_NAMING_KVKEEP, 1);
	put_some(&bench);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		BEND(&bench.bent, .call = BENT_LIST, .nth = 1, .error = -rows[i].error);
		listed = 0;
		assert_int_equal(bench.adapter->ops->list(bench.adapter, NULL, count_listed, &listed),
				 rows[i].told_first ? -rows[i].error : 0);
		assert_int_equal(listed, 0);
		BEND(&bench.bent, .call = BENT_LIST, .nth = 2, .error = -rows[i].error);
		assert_int_equal(bench.adapter->ops->list(bench.adapter, NULL, count_listed, &listed),
				 rows[i].told_then ? -rows[i].error : 0);
		assert_int_equal(listed, rows[i].told_then ? 0 : KEYS - 1);
	}
	/* What went since its name was read is passed over; what nobody can look at now ends it. */
	BEND(&bench.bent, .call = KVK_XFER_OPEN, .nth = 2, .error = -ENOENT);
	listed = 0;
	assert_int_equal(bench.adapter->ops->list(bench.adapter, NULL, count_listed, &listed), 0);
	assert_int_equal(listed, KEYS - 1);
	BEND(&bench.bent, .call = KVK_XFER_OPEN, .nth = 2, .error = -EMFILE);
	listed = 0;
	assert_int_equal(bench.adapter->ops->list(bench.adapter, NULL, count_listed, &listed), -EMFILE);
	assert_int_equal(listed, 1);
	bench_close(&bench);
}

/* A medium that tells of a longer name than any can be: it is passed over everywhere. */
static void test_names_too_long(void **state)
{
	static const char start[] = "m_00000000_0_01@";
	char longest[2 * KVK_NAME_BYTES_MAX], name[KVK_NAME_BYTES_MAX];
	struct kvk_evictee evictee = { .used_at_ns = UINT64_MAX / 2 };
	struct bench bench;
	unsigned listed = 0;
	uint64_t modified_ns;

	memset(longest, 'a', sizeof(longest));
	memcpy(longest, start, sizeof(start) - 1);
	memcpy(longest + sizeof(longest) - 5, ".bin", 5);
	open_with(&bench, KVK_NAMING_LMCACHE, 0);
	assert_int_equal(bench_put(&bench, KEY, BYTES, 1), 0);
	bench.bent.extra = longest;
	assert_int_equal(bench.adapter->ops->list(bench.adapter, NULL, count_listed, &listed), 0);
	assert_int_equal(listed, 1);
	assert_int_equal(bench.adapter->ops->evict(bench.adapter, 0, &evictee, 1), 0);
	assert_int_equal(evictee.status, -ENOENT);
	listed = 0;
	assert_int_equal(bench.adapter->ops->scan(bench.adapter, 0, count_scanned, &listed, &modified_ns), 0);
	assert_int_equal(listed, 1);
	assert_int_equal(bench.adapter->ops->remove_all(bench.adapter), 0);
	bench_name(&bench, name, KEY);
	assert_int_equal(bent_bytes(&bench.bent, name), -ENOENT);
	bench_close(&bench);
}

/* ---- removing everything ------------------------------------------------------------------------ */

/* All that can go goes, and the first error is told. */
static void test_removing_all(void **state)
{
	static const struct { struct bend bends[2]; int expected; unsigned left; } rows[] = {
		{ { { 0 } }, 0, 0 },
		{ { { .call = KVK_XFER_UNLINK, .nth = 2, .error = -ENOENT } }, 0, 1 },
		{ { { .call = KVK_XFER_UNLINK, .nth = 2, .error = -EIO }, { .call = KVK_XFER_UNLINK, .nth = 4, .error = -EROFS } }, -EIO, 2 },
		{ { { .call = BENT_LIST, .nth = 1, .error = -EIO } }, -EIO, KEYS },
		{ { { .call = KVK_XFER_UNLINK, .nth = 1, .error = -EPERM }, { .call = BENT_LIST, .nth = 3, .error = -EIO } }, -EIO, KEYS },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct bench bench;
		unsigned listed = 0;

		open_with(&bench, KVK_NAMING_KVKEEP, 1);
		put_some(&bench);
		bent_set(&bench.bent, rows[i].bends, 2);
		assert_int_equal(bench.adapter->ops->remove_all(bench.adapter), rows[i].expected);
		STRAIGHT(&bench.bent);
		assert_int_equal(bench.adapter->ops->list(bench.adapter, NULL, count_listed, &listed), 0);
		assert_int_equal(listed, rows[i].left);
		bench_close(&bench);
	}
}

/* ---- scans -------------------------------------------------------------------------------------- */

/* An error of the medium is told, and then nothing is said of when something changed. */
static void test_scans(void **state)
{
	static const struct { struct bend bend; int expected; } rows[] = {
		{ { .call = BENT_FOLDER_TIME, .nth = 1, .error = -EIO }, -EIO }, { { .call = BENT_LIST, .nth = 1, .error = -EIO }, -EIO },
		{ { .call = BENT_LIST_STAT, .nth = 1, .error = -EIO }, -EIO }, { { .call = BENT_FOLDER_TIME, .nth = 2, .error = -EIO }, -EIO },
		{ { .call = BENT_FOLDER_TIME, .nth = 1, .error = -ENOENT }, -EAGAIN },
		{ { .call = BENT_LIST_STAT, .nth = 1, .error = -EAGAIN }, -EAGAIN },
		{ { .call = BENT_LIST_STAT, .nth = 1, .error = -ENOTDIR }, 0 }, { { .call = BENT_LIST_STAT, .nth = 1, .error = -ELOOP }, 0 },
		{ { .call = BENT_LIST_STAT, .nth = 1, .error = -EXDEV }, 0 }, { { .call = BENT_LIST, .nth = 1, .error = -ENOENT }, 0 },
	};
	struct bench bench;

	open_with(&bench, KVK_NAMING_LMCACHE, 2);
	put_some(&bench);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint64_t modified_ns = 5;
		unsigned scanned = 0;

		bent_set(&bench.bent, &rows[i].bend, 1);
		assert_int_equal(bench.adapter->ops->scan(bench.adapter, 1, count_scanned, &scanned, &modified_ns), rows[i].expected);
		assert_int_equal(modified_ns == 5, rows[i].expected == -EIO);
		assert_int_equal(bench.bent.struck, 1);
	}
	bench_close(&bench);
}

/* A visit that has enough ends it, in the middle of the folders as well. */
static void test_scan_that_has_enough(void **state)
{
	struct bench bench;
	uint64_t modified_ns;
	unsigned scanned = 0;

	open_with(&bench, KVK_NAMING_LMCACHE, 2);
	assert_int_equal(bench_put(&bench, "m@00000000@0@0102", BYTES, 1), 0);
	assert_int_equal(bench_put(&bench, "m@00000000@0@0103", BYTES, 1), 0);
	assert_int_equal(bench.adapter->ops->scan(bench.adapter, 1, one_is_enough, &scanned, &modified_ns), 0);
	assert_int_equal(scanned, 1);
	bench_close(&bench);
}

static void test_bucket_times(void **state)
{
	static const struct { struct bend bend; int expected; } rows[] = {
		{ { 0 }, 0 }, { { .call = BENT_FOLDER_TIME, .nth = 1, .error = -EIO }, -EIO }, { { .call = BENT_LIST, .nth = 1, .error = -EIO }, -EIO },
		{ { .call = BENT_FOLDER_TIME, .nth = 2, .error = -EIO }, -EIO }, { { .call = BENT_FOLDER_TIME, .nth = 2, .error = -ENOENT }, 0 },
	};
	struct bench bench;

	open_with(&bench, KVK_NAMING_LMCACHE, 2);
	put_some(&bench);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint64_t modified_ns = 5, stamp = 5;

		bent_set(&bench.bent, &rows[i].bend, 1);
		assert_int_equal(bench.adapter->ops->bucket_time(bench.adapter, 1, &modified_ns, &stamp), rows[i].expected);
		assert_int_equal(modified_ns == 5 && stamp == 5, rows[i].expected != 0);
		assert_int_equal(bench.adapter->ops->bucket_time(bench.adapter, 300, &modified_ns, &stamp), -ERANGE);
	}
	bench_close(&bench);
}

/* ---- evictions ---------------------------------------------------------------------------------- */

static void evicted(void *user, const void *key, uint32_t key_bytes)
{
	++*(unsigned *)user;
	assert_int_equal(key_bytes, strlen(KEY));
	assert_memory_equal(key, KEY, key_bytes);
}

static void test_evictions(void **state)
{
	static const struct {
		struct bend bend;
		int status;
		uint64_t freed_bytes;
		unsigned told;             /* of its key */
		int expected;              /* of the whole */
	} rows[] = {
		{ { 0 }, 0, FILE_BYTES, 1, 0 },
		{ { .call = BENT_LIST, .nth = 1, .error = -ENOENT }, -ENOENT, 0, 0, 0 },
		{ { .call = BENT_LIST, .nth = 1, .error = -ENOTDIR }, -ENOENT, 0, 0, 0 },
		{ { .call = BENT_LIST, .nth = 1, .error = -ELOOP }, -ENOENT, 0, 0, 0 },
		{ { .call = BENT_LIST, .nth = 1, .error = -EXDEV }, -ENOENT, 0, 0, 0 },
		{ { .call = BENT_LIST, .nth = 1, .error = -EIO }, -ENOENT, 0, 0, -EIO },
		{ { .call = KVK_XFER_STAT_NAME, .nth = 1, .error = -EIO }, -EIO, 0, 0, 0 },
		{ { .call = KVK_XFER_STAT_NAME, .nth = 1, .after = is_a_folder }, -ENOENT, 0, 0, 0 },
		{ { .call = KVK_XFER_STAT_NAME, .nth = 1, .after = is_anothers }, -ENOENT, 0, 0, 0 },
		{ { .call = KVK_XFER_OPEN, .nth = 1, .error = -EMFILE }, 0, FILE_BYTES, 0, 0 },
		{ { .call = KVK_XFER_READ, .nth = 1, .error = -EIO }, 0, FILE_BYTES, 0, 0 },
		{ { .call = KVK_XFER_MOVE, .nth = 1, .error = -EIO }, -EIO, 0, 0, 0 },
		{ { .call = KVK_XFER_MOVE, .nth = 1, .error = -EEXIST }, 0, FILE_BYTES, 1, 0 },
		{ { .call = KVK_XFER_MOVE, .nth = 1, .every = true, .error = -EEXIST }, -EIO, 0, 0, 0 },
		{ { .call = KVK_XFER_STAT_NAME, .nth = 2, .error = -EIO }, 0, FILE_BYTES, 1, 0 },
		{ { .call = KVK_XFER_UNLINK, .nth = 1, .error = -ENOENT }, 0, FILE_BYTES, 1, 0 },
		{ { .call = KVK_XFER_UNLINK, .nth = 1, .error = -EIO }, 0, 0, 1, 0 },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct kvk_evictee evictee = { .used_at_ns = UINT64_MAX / 2 };
		char name[KVK_NAME_BYTES_MAX];
		uint8_t id[KVK_DIGEST_BYTES];
		struct bench bench;
		unsigned told = 0;

		bench_open(&bench, KVK_DURABILITY_NONE, KVK_NAMING_KVKEEP);
		bench.options.evicted = evicted;
		bench.options.user = &told;
		assert_int_equal(kvk_dynamic_open(&bench.adapter, &bench.options), 0);
		assert_int_equal(bench_put(&bench, KEY, BYTES, 1), 0);
		bench_name(&bench, name, KEY);
		assert_int_equal(kvk_name_id(id, &bench.options.layout, name), 0);
		memcpy(evictee.prefix, id, sizeof(evictee.prefix));
		bent_set(&bench.bent, &rows[i].bend, 1);
		if (bench.adapter->ops->evict(bench.adapter, id[0], &evictee, 1) != rows[i].expected ||
		    evictee.status != rows[i].status || evictee.freed_bytes != rows[i].freed_bytes || told != rows[i].told)
			fail_msg("row %zu: status %d, %llu freed, told %u", i, evictee.status, (unsigned long long)evictee.freed_bytes, told);
		assert_int_equal(bent_bytes(&bench.bent, name) >= 0, rows[i].status != 0);
		bench_close(&bench);
	}
}

/* None, too many buckets, no memory; and two that were chosen twice. */
static void test_evictions_of_nothing(void **state)
{
	struct kvk_evictee evictees[2] = { { .used_at_ns = UINT64_MAX / 2 }, { .used_at_ns = UINT64_MAX / 2 } };
	char name[KVK_NAME_BYTES_MAX];
	uint8_t id[KVK_DIGEST_BYTES];
	struct bench bench;

	open_with(&bench, KVK_NAMING_KVKEEP, 1);
	assert_int_equal(bench_put(&bench, KEY, BYTES, 1), 0);
	bench_name(&bench, name, KEY);
	assert_int_equal(kvk_name_id(id, &bench.options.layout, name), 0);
	assert_int_equal(bench.adapter->ops->evict(bench.adapter, 256, evictees, 1), -ERANGE);
	assert_int_equal(bench.adapter->ops->evict(bench.adapter, id[0], evictees, 0), 0);
	kvk_mem_fail_nth(1, false);
	assert_int_equal(bench.adapter->ops->evict(bench.adapter, id[0], evictees, 1), -ENOMEM);
	kvk_mem_fail_nth(0, false);
	memcpy(evictees[0].prefix, id, 16);
	memcpy(evictees[1].prefix, id, 16);
	/* Under the name that one of them went by, too. */
	bench.bent.extra = strchr(name, '/') + 1;
	assert_int_equal(bench.adapter->ops->evict(bench.adapter, id[0], evictees, 2), 0);
	assert_int_equal((evictees[0].status == 0) + (evictees[1].status == 0), 1);
	assert_int_equal(bent_bytes(&bench.bent, name), -ENOENT);
	bench_close(&bench);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_inspecting),
		cmocka_unit_test(test_inspecting_strangers),
		cmocka_unit_test(test_inspecting_adopted),
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_names_too_long),
		cmocka_unit_test(test_removing_all),
		cmocka_unit_test(test_scans),
		cmocka_unit_test(test_scan_that_has_enough),
		cmocka_unit_test(test_bucket_times),
		cmocka_unit_test(test_evictions),
		cmocka_unit_test(test_evictions_of_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
