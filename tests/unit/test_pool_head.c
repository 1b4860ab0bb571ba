/* SPDX-License-Identifier: Apache-2.0 */
/* The head of a pool's file, and the shape of a pool in the superblock, byte by byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "format/format.h"

#include "../seal.h"

static const struct kvk_pool_head sample = {
	.pool_id = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 },
	.created_ns = UINT64_C(0x1122334455667788), .slot_bytes = 65536, .file_slots = 1000, .file_index = 3, .device = true,
};

static const struct kvk_superblock store = {
	.store_id = "0123456789abcde", .created_ns = 5, .layout = { KVK_NAMING_KVKEEP, 1 }, .cap_bytes = 640 << 10,
	.pool = { .slot_bytes = 65536, .slots = 10, .file_slots = 4, .opens = 7 },
};

struct row {
	unsigned at, bytes;
	uint64_t value;
};

static void expect_rows(const uint8_t *data, const struct row *rows, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (seal_get(data + rows[i].at, rows[i].bytes) != rows[i].value)
			fail_msg("offset %u: %llx, not %llx", rows[i].at,
				 (unsigned long long)seal_get(data + rows[i].at, rows[i].bytes), (unsigned long long)rows[i].value);
	}
}

static void seal_page(uint8_t *page)
{
	seal_superblock(page);         /* its CRC stands in the same place */
}

static void head_stands_as_the_table_says(void **state)
{
	static const struct row rows[] = {
		{ 8, 4, 1 }, { 12, 4, 0 }, { 16, 4, 0 }, { 20, 4, 3 }, { 24, 8, UINT64_C(0x0807060504030201) },
		{ 32, 8, UINT64_C(0x100f0e0d0c0b0a09) }, { 40, 8, UINT64_C(0x1122334455667788) }, { 48, 8, 65536 }, { 56, 8, 1000 },
		{ 64, 4, 1 },
	};
	uint8_t page[KVK_PAGE_BYTES], sealed[KVK_PAGE_BYTES];
	struct kvk_pool_head out;

	kvk_pool_head_encode(&sample, page);
	assert_memory_equal(page, "kvkpool\x1a", 8);
	expect_rows(page, rows, sizeof(rows) / sizeof(rows[0]));
	for (unsigned i = 68; i < 4092; i++)
		assert_int_equal(page[i], 0);
	memcpy(sealed, page, sizeof(page));
	seal_page(sealed);
	assert_memory_equal(page, sealed, sizeof(page));
	assert_int_equal(kvk_pool_head_parse(&out, page), 0);
	assert_memory_equal(out.pool_id, sample.pool_id, sizeof(out.pool_id));
	assert_true(out.created_ns == sample.created_ns && out.slot_bytes == 65536 && out.file_slots == 1000);
	assert_true(out.file_index == 3 && out.device);
}

static void heads_that_are_refused(void **state)
{
	static const struct {
		const char *what;
		unsigned at, bytes;
		uint64_t value;
		int expected;
	} rows[] = {
		{ "magic", 0, 1, 'x', -EBADMSG }, { "version 0", 8, 4, 0, -EBADMSG }, { "version 2", 8, 4, 2, -EPROTO }, { "incompat flag", 12, 4, 1, -EPROTO },
		{ "compat flag", 16, 4, 1, 0 }, { "slots of nothing", 48, 8, 0, -EBADMSG }, { "odd slots", 48, 8, 5000, -EBADMSG },
		{ "long slots", 48, 8, KVK_POOL_SLOT_BYTES_MAX + 4096, -EBADMSG }, { "no slots", 56, 8, 0, -EBADMSG },
		{ "many slots", 56, 8, KVK_POOL_SLOTS_MAX + 1, -EBADMSG }, { "setting", 64, 4, 2, -EBADMSG },
		{ "reserved, first", 68, 1, 1, -EBADMSG }, { "reserved, last", 4091, 1, 1, -EBADMSG },
	};
	uint8_t page[KVK_PAGE_BYTES];
	struct kvk_pool_head out;

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int err;

		kvk_pool_head_encode(&sample, page);
		seal_put(page + rows[i].at, rows[i].bytes, rows[i].value);
		seal_page(page);
		err = kvk_pool_head_parse(&out, page);
		if (err != rows[i].expected)
			fail_msg("%s: %d, not %d", rows[i].what, err, rows[i].expected);
	}
	kvk_pool_head_encode(&sample, page);
	for (unsigned bit = 0; bit < 8 * sizeof(page); bit++) {
		page[bit / 8] ^= (uint8_t)(1u << bit % 8);
		if (kvk_pool_head_parse(&out, page) != -EBADMSG)
			fail_msg("bit %u flipped: not -EBADMSG", bit);
		page[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	memset(page, 0, sizeof(page));
	assert_int_equal(kvk_pool_head_parse(&out, page), -ENODATA);
}

static void shape_in_the_superblock(void **state)
{
	static const struct row rows[] = { { 12, 4, 1 }, { 72, 8, 65536 }, { 80, 8, 10 }, { 88, 8, 4 }, { 96, 8, 7 } };
	static const struct row bad[] = {
		{ 72, 8, 0 }, { 72, 8, 4097 }, { 72, 8, KVK_POOL_SLOT_BYTES_MAX * 2 }, { 80, 8, 0 }, { 80, 8, KVK_POOL_SLOTS_MAX + 1 },
		{ 88, 8, 0 }, { 88, 8, KVK_POOL_SLOTS_MAX + 1 }, { 104, 1, 1 }, { 12, 4, 0 },
	};
	uint8_t data[KVK_SUPERBLOCK_BYTES];
	struct kvk_superblock out;

	kvk_superblock_encode(&store, data);
	expect_rows(data, rows, sizeof(rows) / sizeof(rows[0]));
	assert_int_equal(kvk_superblock_parse(&out, data, sizeof(data)), 0);
	assert_memory_equal(&out.pool, &store.pool, sizeof(out.pool));
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		kvk_superblock_encode(&store, data);
		seal_put(data + bad[i].at, bad[i].bytes, bad[i].value);
		seal_superblock(data);
		if (kvk_superblock_parse(&out, data, sizeof(data)) != -EBADMSG)
			fail_msg("row %u was taken", i);
	}
	kvk_superblock_encode(&store, data);
	seal_put(data + 12, 4, 3);
	seal_superblock(data);
	assert_int_equal(kvk_superblock_parse(&out, data, sizeof(data)), -EPROTO);
}

/* Says pool and slot. */
static void writers(void **state)
{
	uint8_t other[16];

	memcpy(other, sample.pool_id, sizeof(other));
	other[9] ^= 1;
	assert_true(kvk_pool_writer(sample.pool_id, 5) == (UINT64_C(0x0807060504030201) ^ UINT64_C(0x100f0e0d0c0b0a09)) + 5);
	assert_true(kvk_pool_writer(sample.pool_id, 5) != kvk_pool_writer(sample.pool_id, 6));
	assert_true(kvk_pool_writer(sample.pool_id, 5) != kvk_pool_writer(other, 5));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(head_stands_as_the_table_says),
		cmocka_unit_test(heads_that_are_refused),
		cmocka_unit_test(shape_in_the_superblock),
		cmocka_unit_test(writers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
