/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The proof of an object: footers that no put of this version writes, reads that end early or fail half way, and every part of a
 * payload that may be asked for, in every way in which it may travel.
 */
#include "adapter/proof.h"
#include "bent_bed.h"
#include "no_digest.h"
#include "seal.h"

#define KEY "key"
#define THEIRS 7

/* A file with this payload and footer, under the key's name. */
static uint8_t *forge(struct bench *bench, const char *key, uint64_t logical_bytes, uint32_t block_bytes, uint64_t *bytes_ret)
{
	struct kvk_footer footer = {
		.checksum_id = KVK_CHECKSUM_XXH3, .logical_bytes = logical_bytes, .stored_bytes = logical_bytes,
		.block_bytes = block_bytes, .block_count = kvk_block_count_for(logical_bytes, block_bytes), .created_ns = 1,
		.key = key, .key_bytes = (uint32_t)strlen(key),
	};
	uint64_t padded = kvk_page_ceil(logical_bytes), *sums = calloc(footer.block_count + 1, sizeof(*sums));
	uint32_t footer_bytes = kvk_footer_bytes(&footer);
	uint8_t digest[KVK_DIGEST_BYTES], *file = calloc(1, padded + footer_bytes);

	assert_true(file && sums);
	assert_int_equal(kvk_key_digest(digest, bench->namespace_digest, key, footer.key_bytes), 0);
	ask_fill(file, logical_bytes, key, THEIRS);
	for (uint32_t i = 0; i < footer.block_count; i++) {
		uint64_t from = (uint64_t)i * block_bytes;

		sums[i] = kvk_block_sum(file + from, logical_bytes - from < block_bytes ? logical_bytes - from : block_bytes,
					kvk_digest_seed(digest));
	}
	footer.block_sums = sums;
	assert_int_equal(kvk_footer_encode(&footer, digest, file + padded, footer_bytes), 0);
	free(sums);
	*bytes_ret = padded + footer_bytes;
	return file;
}

static void put_file(struct bench *bench, const char *key, const uint8_t *file, uint64_t bytes)
{
	char name[KVK_NAME_BYTES_MAX];

	bench_name(bench, name, key);
	bent_file(&bench->bent, name, file, bytes);
}

static void expect_get(struct bench *bench, const char *what, uint64_t room, int status, uint32_t reason)
{
	for (int whole = 0; whole < 2; whole++) {
		struct ask ask;

		ask_init(&ask, bench, KEY, room, 0);
		ask.request.deliver = whole;
		ask.request.keep = true;
		ask_run(&ask, bench, whole ? start_get : start_find);
		if (ask.request.status != status || ask.request.reason != reason)
			fail_msg("%s, %s: %d, reason %u; wanted %d, %u", what, whole ? "get" : "find", ask.request.status,
				 ask.request.reason, status, reason);
		ask_end(&ask);
	}
}

/* ---- footers ------------------------------------------------------------------------------------ */

#define AT_VERSION 8

static void test_footers(void **state)
{
	char name[KVK_NAME_BYTES_MAX];
	struct kvk_listed listed;
	struct bench bench;
	uint64_t bytes, other_bytes;
	uint8_t *file, *footer, *other;

	bench_open_dynamic(&bench, KVK_DURABILITY_NONE, KVK_NAMING_KVKEEP);
	file = forge(&bench, KEY, 20000, 65536, &bytes);
	footer = file + bytes - KVK_PAGE_BYTES;
	put_file(&bench, KEY, file, bytes);
	expect_get(&bench, "as a put writes it", 20000, 0, KVK_REASON_NONE);
	/* The same from another one's blocks: a hit all the same. */
	other = forge(&bench, KEY, 100000, 131072, &other_bytes);
	put_file(&bench, KEY, other, other_bytes);
	expect_get(&bench, "other blocks", 100000, 0, KVK_REASON_NONE);
	assert_int_equal(bench_get(&bench, KEY, 100000), THEIRS);
	/* Longer by a page than its footer says, and shorter. */
	put_file(&bench, KEY, file + 4096, bytes - 4096);
	expect_get(&bench, "shorter", 20000, -EBADMSG, KVK_REASON_DAMAGED);
	memmove(other + 4096, file, bytes);
	memset(other, 0, 4096);
	put_file(&bench, KEY, other, bytes + 4096);
	expect_get(&bench, "longer", 20000, -EBADMSG, KVK_REASON_DAMAGED);
	/* A footer that would begin before the file. */
	put_file(&bench, KEY, footer, 4096);
	expect_get(&bench, "a footer alone", 20000, -EBADMSG, KVK_REASON_DAMAGED);
	seal_put(footer + KVK_PAGE_BYTES - 16, 4, 2 * KVK_PAGE_BYTES);
	seal_footer(footer, KVK_PAGE_BYTES);
	put_file(&bench, KEY, footer, 4096);
	expect_get(&bench, "a footer longer than the file", 20000, -EBADMSG, KVK_REASON_DAMAGED);
	bench_name(&bench, name, KEY);
	assert_int_equal(bench.adapter->ops->inspect(bench.adapter, name, &listed), 0);
	assert_int_equal(listed.state, KVK_OBJECT_DAMAGED);
	free(file);

	file = forge(&bench, KEY, 20000, 65536, &bytes);
	footer = file + bytes - KVK_PAGE_BYTES;
	footer[AT_VERSION] ^= 0x40;
	seal_footer(footer, KVK_PAGE_BYTES);
	put_file(&bench, KEY, file, bytes);
	expect_get(&bench, "of a newer version", 20000, -ENOENT, KVK_REASON_FOREIGN);
	footer[AT_VERSION + 10] ^= 1;
	put_file(&bench, KEY, file, bytes);
	expect_get(&bench, "damaged", 20000, -EBADMSG, KVK_REASON_DAMAGED);
	free(file);
	free(other);
	bench_close(&bench);
}

/* More sums than a page of footer holds. */
#define LONG_KEY_BYTES 1000u
#define LONG_BYTES (UINT64_C(400) * 65536)

static bool not_yet(struct kvk_request *request)
{
	request->again = NULL;
	return true;
}

static void test_long_footer(void **state)
{
	static char key[LONG_KEY_BYTES + 1];
	char name[KVK_NAME_BYTES_MAX];
	struct kvk_listed listed;
	struct bench bench;
	struct ask ask;
	uint64_t bytes;
	uint8_t *file;

	memset(key, 'k', LONG_KEY_BYTES);
	bench_open_dynamic(&bench, KVK_DURABILITY_NONE, KVK_NAMING_KVKEEP);
	file = forge(&bench, key, LONG_BYTES, 65536, &bytes);
	assert_int_equal(bytes, LONG_BYTES + 2 * KVK_PAGE_BYTES);
	put_file(&bench, key, file, bytes);
	free(file);
	bench_name(&bench, name, key);
	assert_int_equal(bench_get(&bench, key, LONG_BYTES), THEIRS);
	/* Asked once more, the first one's footer is let go of. */
	ask_init(&ask, &bench, key, 0, 0);
	ask.request.again = not_yet;
	ask_run(&ask, &bench, start_find);
	assert_int_equal(ask.request.status, 0);
	ask_end(&ask);
	/* The second reading fails, or there is no memory for it. */
	ask_init(&ask, &bench, key, 0, 0);
	BEND(&bench.bent, .call = KVK_XFER_READ, .nth = 2, .every = true, .error = -EIO);
	ask_run(&ask, &bench, start_find);
	assert_int_equal(ask.request.status, -EIO);
	ask_end(&ask);
	STRAIGHT(&bench.bent);
	for (uint64_t nth = 1; nth < 8; nth++) {
		ask_init(&ask, &bench, key, LONG_BYTES, 0);
		ask.request.deliver = true;
		kvk_mem_fail_nth(nth, false);
		ask_run(&ask, &bench, start_get);
		kvk_mem_fail_nth(0, false);
		if (ask.request.status)
			assert_int_equal(ask.request.status, -ENOMEM);
		ask_end(&ask);
	}
	assert_int_equal(bench.adapter->ops->inspect(bench.adapter, name, &listed), 0);
	assert_int_equal(listed.state, KVK_OBJECT_PRESENT);
	BEND(&bench.bent, .call = KVK_XFER_READ, .nth = 2, .error = -EIO);
	assert_int_equal(bench.adapter->ops->inspect(bench.adapter, name, &listed), 0);
	assert_int_equal(listed.state, KVK_OBJECT_DAMAGED);
	for (uint64_t nth = 1; nth < 4; nth++) {
		int err;

		kvk_mem_fail_nth(nth, false);
		err = bench.adapter->ops->inspect(bench.adapter, name, &listed);
		kvk_mem_fail_nth(0, false);
		assert_true(err == 0 || err == -ENOMEM);
	}
	bench_close(&bench);
}

/* ---- reads -------------------------------------------------------------------------------------- */

static void ends_early(struct bent *bent, struct kvk_xfer *xfer)
{
	xfer->result = 0;
}

/* What ends before it should is torn, when it did so twice; what cannot be read says nothing. */
static void test_reads_that_fail(void **state)
{
	struct bench bench;
	uint64_t bytes;
	uint8_t *file;

	bench_open_dynamic(&bench, KVK_DURABILITY_NONE, KVK_NAMING_KVKEEP);
	file = forge(&bench, KEY, 20000, 65536, &bytes);
	put_file(&bench, KEY, file, bytes);
	BEND(&bench.bent, .call = KVK_XFER_READ, .nth = 1, .every = true, .after = ends_early);
	expect_get(&bench, "it ends early", 20000, -EBADMSG, KVK_REASON_DAMAGED);
	BEND(&bench.bent, .call = KVK_XFER_READ, .nth = 1, .every = true, .error = -EIO);
	expect_get(&bench, "it cannot be read", 20000, -EIO, KVK_REASON_MEDIUM);
	STRAIGHT(&bench.bent);
	expect_get(&bench, "and then it can", 20000, 0, KVK_REASON_NONE);
	free(file);
	bench_close(&bench);
}

/* ---- parts of a payload ------------------------------------------------------------------------- */

static void test_parts(void **state)
{
	static const uint64_t lengths[] = { 0, 1, 4096, 20000, 65536, 200000, 3 << 20 };

	for (unsigned way = 0; way < 16; way++) {
		bool direct = way & 1, held = way & 2, nowait = way & 4, odd = way & 8;

		for (size_t l = 0; l < sizeof(lengths) / sizeof(lengths[0]); l++) {
			uint64_t bytes = lengths[l];
			const struct { uint64_t offset, range, room; int status; } rows[] = {
				{ 0, 0, bytes, 0 }, { 0, 0, bytes + 5000, 0 }, { 0, 0, bytes / 2, bytes > 0 ? -EMSGSIZE : 0 },
				{ 0, bytes, bytes, 0 }, { bytes / 3, bytes / 3, bytes, 0 }, { bytes / 3, 0, bytes, 0 },
				{ bytes > 65536 ? 65536 : 0, bytes / 2, bytes, 0 }, { bytes, 0, bytes, 0 }, { bytes + 1, 0, bytes, -EINVAL },
				{ 1, bytes, bytes, -EINVAL }, { bytes / 2, 1, 0, bytes > 0 ? -EMSGSIZE : -EINVAL },
			};
			uint8_t *expected = malloc(bytes + 1);
			struct bench bench;

			bench_open_dynamic(&bench, KVK_DURABILITY_NONE, KVK_NAMING_KVKEEP);
			bench.bent.base.caps.direct = direct;
			bench.bent.base.caps.nowait = nowait;
			bench.bent.base.caps.align_memory_bytes = direct ? 512 : 1;
			bench.bent.base.caps.align_offset_bytes = direct ? 512 : 1;
			assert_int_equal(bench_put(&bench, KEY, bytes, THEIRS), 0);
			ask_fill(expected, bytes, KEY, THEIRS);
			for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
				uint64_t wanted = rows[i].range ? rows[i].range : bytes > rows[i].offset ? bytes - rows[i].offset : 0;
				void *memory = NULL;
				struct iovec parts[3];
				struct ask ask;

				ask_init(&ask, &bench, KEY, rows[i].room, 0);
				assert_int_equal(posix_memalign(&memory, 4096, rows[i].room + 8192), 0);
				parts[0] = (struct iovec){ (uint8_t *)memory + odd, rows[i].room / 8192 * 4096 };
				parts[1] = (struct iovec){ (uint8_t *)parts[0].iov_base + parts[0].iov_len, odd ? rows[i].room % 4096 : 0 };
				parts[2] = (struct iovec){ (uint8_t *)parts[1].iov_base + parts[1].iov_len,
							   rows[i].room - parts[0].iov_len - parts[1].iov_len };
				ask.request.data = parts;
				ask.request.data_count = 3;
				ask.request.deliver = true;
				ask.request.held = held;
				ask.request.offset_bytes = rows[i].offset;
				ask.request.range_bytes = rows[i].range;
				ask_run(&ask, &bench, start_get);
				if (ask.request.status != rows[i].status)
					fail_msg("way %u, %llu bytes, row %zu: %d, wanted %d", way, (unsigned long long)bytes, i,
						 ask.request.status, rows[i].status);
				if (!ask.request.status) {
					assert_int_equal(ask.request.moved_bytes, wanted);
					assert_memory_equal(parts[0].iov_base, expected + rows[i].offset, wanted);
				}
				free(memory);
				ask_end(&ask);
			}
			free(expected);
			bench_close(&bench);
		}
	}
}

/* ---- the caller's memory ------------------------------------------------------------------------ */

static void test_memory(void **state)
{
	struct kvk_backend_caps caps = { .align_memory_bytes = 16, .align_offset_bytes = 8 };
	_Alignas(16) uint8_t memory[64] = { 0 }, plain[64];
	struct iovec parts[] = { { memory, 16 }, { memory + 16, 0 }, { memory + 16, 24 }, { memory + 48, 5 } };

	assert_true(kvk_memory_aligned(parts, 4, &caps));
	parts[2].iov_len = 23;
	assert_false(kvk_memory_aligned(parts, 4, &caps));
	parts[2] = (struct iovec){ memory + 17, 24 };
	assert_false(kvk_memory_aligned(parts, 4, &caps));
	assert_true(kvk_memory_aligned(NULL, 0, &caps));

	/* Bytes 10 to 39 of 45; what lies between and behind is left alone. */
	for (unsigned i = 0; i < 64; i++)
		plain[i] = (uint8_t)(i + 1);
	parts[2] = (struct iovec){ memory + 20, 24 };
	kvk_memory_scatter(parts, 4, 10, plain, 30);
	for (unsigned i = 0; i < 64; i++) {
		unsigned expected = i >= 10 && i < 16 ? i - 9 : i >= 20 && i < 44 ? i - 20 + 7 : 0;

		assert_int_equal(memory[i], expected);
	}
	memset(plain, 0, sizeof(plain));
	kvk_memory_gather(plain, parts, 4, 10, 30);
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(plain[i], i < 30 ? i + 1 : 0);
	kvk_memory_gather(plain, parts, 4, 45, 10);
	assert_int_equal(plain[0], 1);
	kvk_memory_fill(parts, 4, 0xdb);
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(memory[i], i < 16 || (i >= 20 && i < 44) || (i >= 48 && i < 53) ? 0xdb : 0);
}

/* ---- without memory for a digest ------------------------------------------------------------------ */

/* That it cannot be told whose object it is says nothing about the object. */
static void test_no_memory_for_a_digest(void **state)
{
	struct bench bench;
	struct ask ask;
	uint64_t bytes;
	uint8_t *file, digest[KVK_DIGEST_BYTES];
	char *text = NULL;

	bench_open_dynamic(&bench, KVK_DURABILITY_NONE, KVK_NAMING_KVKEEP);
	file = forge(&bench, KEY, 20000, 65536, &bytes);
	put_file(&bench, KEY, file, bytes);
	/* The lane's first. */
	ask_init(&ask, &bench, KEY, 20000, 0);
	atomic_store(&no_digest, true);
	ask_run(&ask, &bench, start_find);
	atomic_store(&no_digest, false);
	assert_int_equal(ask.request.status, -ENOMEM);
	assert_int_equal(ask.request.reason, KVK_REASON_NO_MEMORY);
	ask_end(&ask);
	expect_get(&bench, "with memory", 20000, 0, KVK_REASON_NONE);
	/* Nor does it about a manifest. */
	assert_int_equal(kvk_manifest_digest(digest, "{\"a\":1}"), 0);
	assert_int_equal(kvk_namespace_keep(&bench.bent.base, digest, "{\"a\":1}", NULL), 0);
	atomic_store(&no_digest, true);
	assert_int_equal(kvk_namespace_load(&bench.bent.base, digest, &text), -ENOMEM);
	atomic_store(&no_digest, false);
	assert_null(text);
	free(file);
	bench_close(&bench);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_footers),
		cmocka_unit_test(test_long_footer),
		cmocka_unit_test(test_reads_that_fail),
		cmocka_unit_test(test_parts),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_no_memory_for_a_digest),
	};

	no_digest_prepare();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
