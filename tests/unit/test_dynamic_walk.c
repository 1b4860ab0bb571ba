/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walks over the folders of a medium that fails: what is listed, scanned, evicted and removed all the same, and what is told.
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

static void is_a_folder(struct bent *bent, struct kvk_xfer *xfer)
{
	xfer->stat.regular = false;
}

static void is_anothers(struct bent *bent, struct kvk_xfer *xfer)
{
	xfer->stat.owned = false;
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

		/* In two of the folders of one bucket, where there are such. */
		snprintf(key, sizeof(key), "m@00000000@0@01%02x%02x", i % 2, i);
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
		/* A listing that fails may have got some of them, and some are not what they should be. */
		bench.bent.extra = i % 2 ? "ab" : "nobody's";
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
	bench.bent.extra = NULL;
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

struct page {
	unsigned listed;
	char last[KVK_NAME_BYTES_MAX];
};

static bool take_two(void *user, const struct kvk_listed *listed)
{
	struct page *page = user;

	assert_true(strcmp(listed->name, page->last) > 0);
	snprintf(page->last, sizeof(page->last), "%s", listed->name);
	return ++page->listed % 2 != 0;
}

/* Page by page, in the order of names; what is no object is passed over. */
static void test_pages(void **state)
{
	char temp[KVK_NAME_BYTES_MAX];
	struct page page = { 0 };
	struct bench bench;

	open_with(&bench, KVK_NAMING_LMCACHE, 2);
	put_some(&bench);
	assert_int_equal(kvk_name_make_temp(temp, "01/02/m_00000000_0_0102.bin", 7, 1), 0);
	bent_file(&bench.bent, temp, "x", 1);
	for (unsigned pages = 1; pages <= KEYS / 2; pages++) {
		char after[KVK_NAME_BYTES_MAX];

		memcpy(after, page.last, sizeof(after));
		assert_int_equal(bench.adapter->ops->list(bench.adapter, pages > 1 ? after : NULL, take_two, &page), 1);
		assert_int_equal(page.listed, 2 * pages);
	}
	assert_int_equal(bench.adapter->ops->list(bench.adapter, page.last, take_two, &page), 0);
	assert_int_equal(page.listed, KEYS);
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

/* What is in a folder and nobody's of ours is not visited: another owner's, and what has a folder's name. And without memory for
 * the names of folders those that were found are not taken for all. */
static void test_scans_of_others(void **state)
{
	struct bench bench;
	uint64_t modified_ns = 5, stamp = 5;
	unsigned scanned = 0, failed = 0;

	open_with(&bench, KVK_NAMING_LMCACHE, 2);
	put_some(&bench);
	bench.bent.extra = "m_00000000_0_0100.bin";
	bench.bent.extra_is_anothers = true;
	assert_int_equal(bench.adapter->ops->scan(bench.adapter, 1, count_scanned, &scanned, &modified_ns), 0);
	assert_int_equal(scanned, KEYS);
	bench.bent.extra_is_anothers = false;
	bench.bent.extra = "ab";
	scanned = 0;
	assert_int_equal(bench.adapter->ops->scan(bench.adapter, 1, count_scanned, &scanned, &modified_ns), 0);
	assert_int_equal(scanned, KEYS);
	bench.bent.extra = NULL;
	for (uint64_t nth = 1; nth < 12; nth++) {
		int err;

		modified_ns = stamp = 5;
		kvk_mem_fail_nth(nth, false);
		err = nth % 2 ? bench.adapter->ops->bucket_time(bench.adapter, 1, &modified_ns, &stamp)
			      : bench.adapter->ops->scan(bench.adapter, 1, count_scanned, &scanned, &modified_ns);
		kvk_mem_fail_nth(0, false);
		assert_true(err == 0 || err == -ENOMEM);
		assert_int_equal(err != 0, modified_ns == 5);
		failed += err != 0;
	}
	assert_true(failed > 2);
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
		{ { 0 }, 0 }, { { .call = BENT_FOLDER_TIME, .nth = 1, .error = -EIO }, -EIO },
		{ { .call = BENT_LIST, .nth = 1, .error = -EIO }, -EIO },
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

#define USED_NS (UINT64_MAX / 2)

static void used_a_moment_later(struct bent *bent, struct kvk_xfer *xfer)
{
	xfer->stat.accessed_ns = USED_NS + 5;
}

static void used_later(struct bent *bent, struct kvk_xfer *xfer)
{
	xfer->stat.accessed_ns = USED_NS + KVK_RENEW_NS + 1;
}

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
		{ { .call = KVK_XFER_STAT_NAME, .nth = 1, .after = used_a_moment_later }, 0, FILE_BYTES, 1, 0 },
		{ { .call = KVK_XFER_STAT_NAME, .nth = 1, .after = used_later }, -EBUSY, 0, 0, 0 },
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
		bench.bent.extra = "nobody's";
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
	/* One that fails says nothing of what it found. */
	BEND(&bench.bent, .call = BENT_LIST, .nth = 1, .error = -EIO);
	bench.bent.extra = "nobody's";
	assert_int_equal(bench.adapter->ops->evict(bench.adapter, id[0], evictees, 2), -EIO);
	assert_int_equal(evictees[0].status, -ENOENT);
	STRAIGHT(&bench.bent);
	/* Under the name that one of them went by, too. */
	bench.bent.extra = strchr(name, '/') + 1;
	assert_int_equal(bench.adapter->ops->evict(bench.adapter, id[0], evictees, 2), 0);
	assert_int_equal((evictees[0].status == 0) + (evictees[1].status == 0), 1);
	assert_int_equal(bent_bytes(&bench.bent, name), -ENOENT);
	bench_close(&bench);
}

/* Folder by folder, until one cannot be listed. */
static void test_evictions_of_two_folders(void **state)
{
	struct kvk_evictee evictees[2] = { { .used_at_ns = UINT64_MAX / 2 }, { .used_at_ns = UINT64_MAX / 2 } };
	struct bench bench;

	open_with(&bench, KVK_NAMING_LMCACHE, 2);
	evictees[0].prefix[0] = evictees[1].prefix[0] = 1;
	evictees[1].prefix[1] = 1;
	BEND(&bench.bent, .call = BENT_LIST, .nth = 1, .error = -EIO);
	assert_int_equal(bench.adapter->ops->evict(bench.adapter, 1, evictees, 2), -EIO);
	assert_int_equal(bench.bent.calls[BENT_LIST], 1);
	STRAIGHT(&bench.bent);
	assert_int_equal(bench.adapter->ops->evict(bench.adapter, 1, evictees, 2), 0);
	assert_int_equal(bench.bent.calls[BENT_LIST], 2);
	bench_close(&bench);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_pages),
		cmocka_unit_test(test_names_too_long),
		cmocka_unit_test(test_removing_all),
		cmocka_unit_test(test_scans),
		cmocka_unit_test(test_scans_of_others),
		cmocka_unit_test(test_scan_that_has_enough),
		cmocka_unit_test(test_bucket_times),
		cmocka_unit_test(test_evictions),
		cmocka_unit_test(test_evictions_of_nothing),
		cmocka_unit_test(test_evictions_of_two_folders),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
