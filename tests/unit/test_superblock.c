/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "format/format.h"

#include "../seal.h"

static const struct kvk_superblock sample = {
	.store_id = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 },
	.created_ns = UINT64_C(0x1122334455667788),
	.layout = { KVK_NAMING_LMCACHE, 2 },
	.cap_bytes = UINT64_C(0x99aabbccddeeff01),
	.durability = KVK_DURABILITY_BATCH,
	.persist = true,
	.group = true,
};

static void assert_same(const struct kvk_superblock *a, const struct kvk_superblock *b)
{
	assert_memory_equal(a->store_id, b->store_id, sizeof(a->store_id));
	assert_true(a->created_ns == b->created_ns);
	assert_int_equal(a->layout.naming, b->layout.naming);
	assert_int_equal(a->layout.levels, b->layout.levels);
	assert_true(a->cap_bytes == b->cap_bytes);
	assert_int_equal(a->durability, b->durability);
	assert_int_equal(a->persist, b->persist);
	assert_int_equal(a->group, b->group);
}

/* The table of docs/format.md. */
static void fields_stand_where_the_table_says(void **state)
{
	static const struct {
		unsigned at, bytes;
		uint64_t value;
	} rows[] = {
		{ 8, 4, 1 }, { 12, 4, 0 }, { 16, 4, 0 }, { 20, 4, 0 },
		{ 24, 8, UINT64_C(0x0706050403020100) }, { 32, 8, UINT64_C(0x0f0e0d0c0b0a0908) },
		{ 40, 8, UINT64_C(0x1122334455667788) },
		{ 48, 4, 1 }, { 52, 4, 2 }, { 56, 8, UINT64_C(0x99aabbccddeeff01) }, { 64, 4, 1 }, { 68, 4, 3 },
	};
	uint8_t data[KVK_SUPERBLOCK_BYTES], sealed[KVK_SUPERBLOCK_BYTES];

	kvk_superblock_encode(&sample, data);
	assert_memory_equal(data, "kvksupr\x1a", 8);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (seal_get(data + rows[i].at, rows[i].bytes) != rows[i].value)
			fail_msg("offset %u: %llx, not %llx", rows[i].at,
				 (unsigned long long)seal_get(data + rows[i].at, rows[i].bytes),
				 (unsigned long long)rows[i].value);
	}
	for (unsigned i = 72; i < 4092; i++)
		assert_int_equal(data[i], 0);
	memcpy(sealed, data, sizeof(data));
	seal_superblock(sealed);
	assert_memory_equal(data, sealed, sizeof(data));
}

static void every_value_comes_back(void **state)
{
	static const struct kvk_layout layouts[] = {
		{ KVK_NAMING_KVKEEP, 1 }, { KVK_NAMING_KVKEEP, 2 }, { KVK_NAMING_LMCACHE, 0 }, { KVK_NAMING_LMCACHE, 2 },
	};
	uint8_t data[KVK_SUPERBLOCK_BYTES];

	for (unsigned i = 0; i < 4 * 3 * 4; i++) {
		struct kvk_superblock in = sample, out;

		in.layout = layouts[i % 4];
		in.durability = (enum kvk_durability)(i / 4 % 3);
		in.persist = i / 12 & 1;
		in.group = i / 24 & 1;
		in.cap_bytes = i % 5 ? UINT64_MAX - i : 0;
		kvk_superblock_encode(&in, data);
		assert_int_equal(kvk_superblock_parse(&out, data, sizeof(data)), 0);
		assert_same(&in, &out);
	}
}

static void every_flipped_bit_is_refused(void **state)
{
	uint8_t data[KVK_SUPERBLOCK_BYTES];
	struct kvk_superblock out, untouched;

	memset(&out, 0x5a, sizeof(out));
	untouched = out;
	kvk_superblock_encode(&sample, data);
	for (unsigned bit = 0; bit < 8 * sizeof(data); bit++) {
		data[bit / 8] ^= (uint8_t)(1u << bit % 8);
		if (kvk_superblock_parse(&out, data, sizeof(data)) != -EBADMSG)
			fail_msg("bit %u flipped: not -EBADMSG", bit);
		data[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	assert_memory_equal(&out, &untouched, sizeof(out));
	assert_int_equal(kvk_superblock_parse(&out, data, sizeof(data)), 0);
}

/* Under a right CRC as well, what is accepted is exactly what the encoder writes. */
static void every_sealed_bit_is_refused_or_written_so(void **state)
{
	uint8_t data[KVK_SUPERBLOCK_BYTES], again[KVK_SUPERBLOCK_BYTES], forged[KVK_SUPERBLOCK_BYTES];
	unsigned accepted = 0;

	kvk_superblock_encode(&sample, data);
	for (unsigned bit = 0; bit < 8 * 96; bit++) {
		struct kvk_superblock out;

		memcpy(forged, data, sizeof(data));
		forged[bit / 8] ^= (uint8_t)(1u << bit % 8);
		seal_superblock(forged);
		if (kvk_superblock_parse(&out, forged, sizeof(forged)) != 0)
			continue;
		accepted++;
		if (bit / 8 >= 16 && bit / 8 < 20)
			continue;                  /* a flag that may be ignored */
		kvk_superblock_encode(&out, again);
		if (memcmp(forged, again, sizeof(forged)) != 0)
			fail_msg("bit %u flipped: accepted, but never written", bit);
	}
	/* id, created and cap: 32 bytes; 32 compat flags; naming 0, levels 0 and durability 0; two settings. */
	assert_int_equal(accepted, 8 * 32 + 32 + 3 + 2);
}

static void refusals(void **state)
{
	static const struct {
		const char *what;
		unsigned at, bytes;
		uint64_t value;
		int expected;
	} rows[] = {
		{ "version 0", 8, 4, 0, -EBADMSG },
		{ "version 2", 8, 4, 2, -EPROTO },
		{ "incompat flag", 12, 4, 1u << 31, -EPROTO },
		{ "compat flag", 16, 4, 1, 0 },
		{ "gap", 20, 4, 1, -EBADMSG },
		{ "naming", 48, 4, 2, -EBADMSG },
		{ "levels 1 of lmcache", 52, 4, 1, -EBADMSG },
		{ "levels 3", 52, 4, 3, -EBADMSG },
		{ "durability", 64, 4, 3, -EBADMSG },
		{ "setting", 68, 4, 4, -EBADMSG },
		{ "reserved, first", 72, 1, 1, -EBADMSG },
		{ "reserved, last", 4091, 1, 1, -EBADMSG },
	};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint8_t data[KVK_SUPERBLOCK_BYTES];
		struct kvk_superblock out;
		int err;

		kvk_superblock_encode(&sample, data);
		seal_put(data + rows[i].at, rows[i].bytes, rows[i].value);
		seal_superblock(data);
		err = kvk_superblock_parse(&out, data, sizeof(data));
		if (err != rows[i].expected)
			fail_msg("%s: %d, not %d", rows[i].what, err, rows[i].expected);
	}
}

/* Folders as each naming has them, and no others. */
static void layouts_that_cannot_be(void **state)
{
	for (uint32_t naming = 0; naming < 4; naming++) {
		for (uint32_t levels = 0; levels < 5; levels++) {
			bool can_be = naming == KVK_NAMING_KVKEEP ? levels == 1 || levels == 2 :
				      naming == KVK_NAMING_LMCACHE && (levels == 0 || levels == 2);
			uint8_t data[KVK_SUPERBLOCK_BYTES];
			struct kvk_superblock out;
			int err;

			kvk_superblock_encode(&sample, data);
			seal_put(data + 48, 4, naming);
			seal_put(data + 52, 4, levels);
			seal_superblock(data);
			err = kvk_superblock_parse(&out, data, sizeof(data));
			if (err != (can_be ? 0 : -EBADMSG))
				fail_msg("naming %u with %u levels: %d", naming, levels, err);
		}
	}
}

/* A pool whose shape cannot be, or that has another naming than it can have, is damage, whatever its checksum says. */
static void pools_that_cannot_be(void **state)
{
	static const struct {
		const char *what;
		unsigned at, bytes;
		uint64_t value;
	} rows[] = {
		{ "no slot", 72, 8, 0 },
		{ "a slot of odd bytes", 72, 8, 4097 },
		{ "a slot too large", 72, 8, KVK_POOL_SLOT_BYTES_MAX + KVK_PAGE_BYTES },
		{ "no slots", 80, 8, 0 },
		{ "too many slots", 80, 8, KVK_POOL_SLOTS_MAX + 1 },
		{ "files without slots", 88, 8, 0 },
		{ "too many slots a file", 88, 8, KVK_POOL_SLOTS_MAX + 1 },
		{ "LMCache's names", 48, 4, KVK_NAMING_LMCACHE },
	};
	struct kvk_superblock pool = sample, out;
	uint8_t data[KVK_SUPERBLOCK_BYTES];

	pool.layout = (struct kvk_layout){ KVK_NAMING_KVKEEP, 2 };
	pool.pool = (struct kvk_pool_shape){ .slot_bytes = 8192, .slots = 100, .file_slots = 50, .opens = 3 };
	kvk_superblock_encode(&pool, data);
	assert_int_equal(kvk_superblock_parse(&out, data, sizeof(data)), 0);
	assert_memory_equal(&out.pool, &pool.pool, sizeof(out.pool));
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int err;

		kvk_superblock_encode(&pool, data);
		seal_put(data + rows[i].at, rows[i].bytes, rows[i].value);
		seal_superblock(data);
		err = kvk_superblock_parse(&out, data, sizeof(data));
		if (err != -EBADMSG)
			fail_msg("%s: %d, not %d", rows[i].what, err, -EBADMSG);
	}
}

/* Something written by a later version into the reserved bytes is read over if its flag says so. */
static void later_fields_behind_a_compat_flag(void **state)
{
	uint8_t data[KVK_SUPERBLOCK_BYTES];
	struct kvk_superblock out;

	kvk_superblock_encode(&sample, data);
	seal_put(data + 16, 4, 1);
	seal_put(data + 80, 8, 77);
	seal_superblock(data);
	assert_int_equal(kvk_superblock_parse(&out, data, sizeof(data)), 0);
	assert_same(&sample, &out);
}

static void every_other_length_is_refused(void **state)
{
	uint8_t data[2 * KVK_SUPERBLOCK_BYTES];
	struct kvk_superblock out;

	memset(data, 0, sizeof(data));
	kvk_superblock_encode(&sample, data);
	for (size_t bytes = 0; bytes <= sizeof(data); bytes++)
		assert_int_equal(kvk_superblock_parse(&out, data, bytes), bytes == KVK_SUPERBLOCK_BYTES ? 0 : -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fields_stand_where_the_table_says),
		cmocka_unit_test(every_value_comes_back),
		cmocka_unit_test(every_flipped_bit_is_refused),
		cmocka_unit_test(every_sealed_bit_is_refused_or_written_so),
		cmocka_unit_test(refusals),
		cmocka_unit_test(layouts_that_cannot_be),
		cmocka_unit_test(pools_that_cannot_be),
		cmocka_unit_test(later_fields_behind_a_compat_flag),
		cmocka_unit_test(every_other_length_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
