/* SPDX-License-Identifier: Apache-2.0 */
/* What stands in `.kvkeep/account`, byte for byte, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "format/format.h"

#include "../seal.h"

static struct kvk_account_image sample, parsed, scratch, untouched;
static uint8_t data[2 * KVK_ACCOUNT_BYTES], again[KVK_ACCOUNT_BYTES], forged[KVK_ACCOUNT_BYTES];

static void seal_account(uint8_t *at)
{
	uint32_t state = seal_crc_bits(at, 8188, 0xffffffffu);

	state = seal_crc_bits(at + 8192, KVK_ACCOUNT_BYTES - 8192, state);
	seal_put(at + 8188, 4, ~state);
}

/* Every field has a value of its own. */
static int fill(void **state)
{
	memset(&sample, 0, sizeof(sample));
	sample.sequence = UINT64_C(0x1122334455667788);
	sample.epoch = UINT64_C(0x99aabbccddeeff01);
	sample.cap_bytes = UINT64_MAX;
	sample.loose_bytes = 4096;
	sample.loosened_bytes = 8192;
	sample.died = UINT64_C(0x2233445566778899);
	sample.wanted_ns = UINT64_C(1700000000000000001);
	sample.remade = 0xdeadbeef;
	sample.needs_scan = true;
	for (uint32_t i = 0; i < KVK_ACCOUNT_BUCKETS; i++) {
		sample.charged_bytes[i] = KVK_ACCOUNT_VALUE_MAX - i;
		sample.posted[i] = UINT32_MAX - i;
		sample.published_bytes[i] = UINT64_C(1) + (i + 1) * UINT64_C(6);
	}
	for (uint32_t i = 0; i < KVK_ACCOUNT_ROWS; i += 3) {
		sample.rows[i] = (struct kvk_account_line){
			.token = i + 1, .leased_bytes = KVK_ACCOUNT_VALUE_MAX - i, .settled_ns = UINT64_MAX - i,
			.visits = i, .pid = 1000 + i, .lost = i & 1, .host = "a-host-of-23-characters",
		};
	}
	sample.rows[1] = (struct kvk_account_line){ .lost = true };
	kvk_account_encode(&sample, data);
	memset(data + KVK_ACCOUNT_BYTES, 0, KVK_ACCOUNT_BYTES);
	memset(&parsed, 0x5a, sizeof(parsed));
	memset(&untouched, 0x5a, sizeof(untouched));
	return 0;
}

static void fields_stand_where_the_table_says(void **state)
{
	static const struct {
		unsigned at, bytes;
		uint64_t value;
	} rows[] = {
		{ 8, 4, 1 }, { 12, 4, 0 }, { 16, 4, 0 }, { 20, 4, 1 }, { 24, 8, UINT64_C(0x1122334455667788) },
		{ 32, 8, UINT64_C(0x99aabbccddeeff01) }, { 40, 8, UINT64_MAX }, { 48, 8, 4096 }, { 56, 8, 8192 },
		{ 64, 8, UINT64_C(1700000000000000001) }, { 72, 4, 0xdeadbeef }, { 76, 4, 0 }, { 104, 8, UINT64_C(0x2233445566778899) }, { 112, 8, 0 },
		{ 128, 8, UINT64_C(1) << 54 }, { 128 + 8 * 256, 8, (UINT64_C(1) << 54) - 256 },
		{ 2184, 4, UINT32_MAX }, { 2184 + 4 * 256, 4, UINT32_MAX - 256 }, { 3212, 4, 0 },
		{ 3216, 8, 7 }, { 3216 + 8 * 256, 8, UINT64_C(1) + 257 * 6 }, { 5272, 8, 0 },
		{ 8192, 8, 1 }, { 8192 + 8, 8, UINT64_C(1) << 54 }, { 8192 + 16, 8, UINT64_MAX }, { 8192 + 24, 4, 0 },
		{ 8192 + 28, 4, 1000 }, { 8192 + 32, 4, 0 }, { 8192 + 36, 4, 0 }, { 8192 + 40, 1, 'a' },
		{ 8192 + 63, 1, 0 }, { 8192 + 64, 8, 0 }, { 8192 + 64 + 32, 4, 1 },
		{ 8192 + 255 * 64, 8, 256 }, { 8192 + 255 * 64 + 32, 4, 1 }, { 8192 + 255 * 64 + 28, 4, 1255 },
	};

	assert_memory_equal(data, "kvkacct\x1a", 8);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (seal_get(data + rows[i].at, rows[i].bytes) != rows[i].value)
			fail_msg("offset %u: %llx, not %llx", rows[i].at,
				 (unsigned long long)seal_get(data + rows[i].at, rows[i].bytes),
				 (unsigned long long)rows[i].value);
	}
	memcpy(forged, data, sizeof(forged));
	seal_account(forged);
	assert_memory_equal(data, forged, sizeof(forged));
}

static void every_value_comes_back(void **state)
{
	memset(&parsed, 0, sizeof(parsed));
	assert_int_equal(kvk_account_parse(&parsed, data, KVK_ACCOUNT_BYTES), 0);
	kvk_account_encode(&parsed, again);
	assert_memory_equal(again, data, sizeof(again));
	assert_true(parsed.sequence == sample.sequence && parsed.epoch == sample.epoch &&
		    parsed.cap_bytes == sample.cap_bytes && parsed.loose_bytes == sample.loose_bytes &&
		    parsed.loosened_bytes == sample.loosened_bytes && parsed.wanted_ns == sample.wanted_ns &&
		    parsed.remade == sample.remade && parsed.needs_scan && parsed.died == sample.died);
	assert_memory_equal(parsed.charged_bytes, sample.charged_bytes, sizeof(parsed.charged_bytes));
	assert_memory_equal(parsed.posted, sample.posted, sizeof(parsed.posted));
	assert_memory_equal(parsed.published_bytes, sample.published_bytes, sizeof(parsed.published_bytes));
	for (uint32_t i = 0; i < KVK_ACCOUNT_ROWS; i++) {
		const struct kvk_account_line *a = &parsed.rows[i], *b = &sample.rows[i];

		assert_true(a->token == b->token && a->leased_bytes == b->leased_bytes && a->visits == b->visits &&
			    a->settled_ns == b->settled_ns && a->pid == b->pid && a->lost == b->lost);
		assert_string_equal(a->host, b->host);
	}
}

static void every_flipped_bit_is_refused(void **state)
{
	for (unsigned bit = 0; bit < 8 * KVK_ACCOUNT_BYTES; bit++) {
		data[bit / 8] ^= (uint8_t)(1u << bit % 8);
		if (kvk_account_parse(&parsed, data, KVK_ACCOUNT_BYTES) != -EBADMSG)
			fail_msg("bit %u flipped: not -EBADMSG", bit);
		data[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	assert_memory_equal(&parsed, &untouched, sizeof(parsed));
	for (unsigned bytes = 0; bytes < KVK_ACCOUNT_BYTES; bytes += 511)
		assert_int_equal(kvk_account_parse(&parsed, data, bytes), -EBADMSG);
	assert_int_equal(kvk_account_parse(&parsed, data, KVK_ACCOUNT_BYTES + 1), -EBADMSG);
}

/* Under a right CRC as well, what is accepted is exactly what the encoder writes. */
static void every_sealed_bit_is_refused_or_written_so(void **state)
{
	/* The first pages but the charges in the middle, a row in use, a lost one, a free one, the last one. */
	static const struct { unsigned from, to; } parts[] = {
		{ 0, 144 }, { 2176, 2192 }, { 3200, 3232 }, { 5264, 5280 }, { 8180, 8188 }, { 8192, 8192 + 3 * 64 }, { 24512, 24576 },
	};
	unsigned accepted = 0, refused = 0;

	for (unsigned part = 0; part < sizeof(parts) / sizeof(parts[0]); part++) {
		for (unsigned bit = 8 * parts[part].from; bit < 8 * parts[part].to; bit++) {
			int err;

			memcpy(forged, data, sizeof(forged));
			forged[bit / 8] ^= (uint8_t)(1u << bit % 8);
			seal_account(forged);
			err = kvk_account_parse(&parsed, forged, sizeof(forged));
			if (err) {
				assert_true(err == -EBADMSG || err == -EPROTO);
				refused++;
				continue;
			}
			accepted++;
			if (bit / 8 >= 16 && bit / 8 < 20)
				continue;      /* a compat flag may be ignored */
			kvk_account_encode(&parsed, again);
			if (memcmp(again, forged, sizeof(again)))
				fail_msg("bit %u: accepted, but written otherwise", bit);
		}
	}
	assert_true(accepted > 1000 && refused > 1000);
}

static void what_is_newer_is_told_apart(void **state)
{
	static const struct { unsigned at; uint32_t value; int err; } rows[] = {
		{ 8, 2, -EPROTO }, { 8, 0, -EBADMSG }, { 12, 1, -EPROTO }, { 20, 2, -EBADMSG },
	};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		memcpy(forged, data, sizeof(forged));
		seal_put(forged + rows[i].at, 4, rows[i].value);
		seal_account(forged);
		assert_int_equal(kvk_account_parse(&parsed, forged, sizeof(forged)), rows[i].err);
	}
	assert_memory_equal(&parsed, &untouched, sizeof(parsed));
}

/* Figures whose sum could overflow, and names of machines that are no text, under a checksum that is right. */
static void values_that_cannot_be(void **state)
{
	enum { ROW = 8192 + 3 * 64 };
	static const struct { const char *what; unsigned at, bytes; uint64_t value; } rows[] = {
		{ "loose", 48, 8, KVK_ACCOUNT_VALUE_MAX + 1 },
		{ "the first bucket", 128, 8, KVK_ACCOUNT_VALUE_MAX + 1 },
		{ "the last bucket", 128 + 8 * (KVK_ACCOUNT_BUCKETS - 1), 8, KVK_ACCOUNT_VALUE_MAX + 1 },
		{ "a lease", ROW + 8, 8, KVK_ACCOUNT_VALUE_MAX + 1 },
		{ "a flag of a row", ROW + 32, 4, 2 },
		{ "a host that rings", ROW + 40, 1, 7 },
		{ "a host with a blank", ROW + 41, 1, ' ' },
		{ "text behind a host", ROW + 45, 1, 0 },
		{ "a host without end", ROW + 63, 1, 'x' },
		{ "a free row with something in it", 8192 + 2 * 64 + 28, 4, 1 },
	};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int err;

		memcpy(forged, data, sizeof(forged));
		seal_put(forged + rows[i].at, rows[i].bytes, rows[i].value);
		seal_account(forged);
		err = kvk_account_parse(&parsed, forged, sizeof(forged));
		if (err != -EBADMSG)
			fail_msg("%s: %d, not %d", rows[i].what, err, -EBADMSG);
	}
	assert_memory_equal(&parsed, &untouched, sizeof(parsed));
}

/* However far a write of the second copy came, the first is read; when it came to its end, the second. */
static void a_torn_copy_leaves_the_other(void **state)
{
	uint8_t *second = data + KVK_ACCOUNT_BYTES;

	for (unsigned copy = 0; copy < 2; copy++) {
		uint8_t *old = copy ? second : data, *new = copy ? data : second;

		kvk_account_encode(&sample, new);
		sample.sequence++;
		kvk_account_encode(&sample, old);
		sample.sequence++;
		sample.charged_bytes[255]--;
		sample.rows[255].leased_bytes--;
		kvk_account_encode(&sample, again);
		for (unsigned bytes = 0; bytes <= KVK_ACCOUNT_BYTES; bytes += 512) {
			memcpy(new, again, bytes);
			assert_int_equal(kvk_account_parse_file(&parsed, &scratch, data, sizeof(data)), 0);
			assert_true(parsed.sequence == (bytes == KVK_ACCOUNT_BYTES ? sample.sequence : sample.sequence - 1));
		}
	}
	memset(data, 0, sizeof(data));
	assert_int_equal(kvk_account_parse_file(&parsed, &scratch, data, sizeof(data)), -EBADMSG);
}

static void sequences_go_round(void **state)
{
	static const uint64_t before[] = { 0, 1, UINT64_MAX, UINT64_MAX - 1, INT64_MAX, UINT64_C(1) << 63 };

	for (unsigned i = 0; i < sizeof(before) / sizeof(before[0]); i++) {
		for (unsigned order = 0; order < 2; order++) {
			sample.sequence = before[i] + order;
			kvk_account_encode(&sample, data);
			sample.sequence = before[i] + !order;
			kvk_account_encode(&sample, data + KVK_ACCOUNT_BYTES);
			assert_int_equal(kvk_account_parse_file(&parsed, &scratch, data, 2 * KVK_ACCOUNT_BYTES), 0);
			assert_true(parsed.sequence == before[i] + 1);
		}
	}
}

static void a_file_of_any_length(void **state)
{
	memcpy(data + KVK_ACCOUNT_BYTES, data, KVK_ACCOUNT_BYTES);
	for (unsigned bytes = 0; bytes < 2 * KVK_ACCOUNT_BYTES; bytes += 1023)
		assert_int_equal(kvk_account_parse_file(&parsed, &scratch, data, bytes),
				 bytes < KVK_ACCOUNT_BYTES ? -EBADMSG : 0);
	memset(data, 0xff, KVK_ACCOUNT_BYTES);
	assert_int_equal(kvk_account_parse_file(&parsed, &scratch, data, sizeof(data)), 0);
	/* The newer copy may be another version's. */
	memcpy(again, data + KVK_ACCOUNT_BYTES, sizeof(again));
	for (unsigned copy = 0; copy < 2; copy++) {
		uint8_t *newer = data + copy * KVK_ACCOUNT_BYTES, *other = data + (1 - copy) * KVK_ACCOUNT_BYTES;

		memcpy(newer, again, sizeof(again));
		seal_put(newer + 8, 4, 2);
		seal_account(newer);
		memset(other, 0xff, KVK_ACCOUNT_BYTES);
		assert_int_equal(kvk_account_parse_file(&parsed, &scratch, data, sizeof(data)), -EPROTO);
		memcpy(other, again, sizeof(again));
		assert_int_equal(kvk_account_parse_file(&parsed, &scratch, data, sizeof(data)), -EPROTO);
	}
}

static void buckets_of_names(void **state)
{
	static const struct kvk_layout one = { KVK_NAMING_KVKEEP, 1 }, two = { KVK_NAMING_KVKEEP, 2 },
				       flat = { KVK_NAMING_LMCACHE, 0 }, shards = { KVK_NAMING_LMCACHE, 2 };
	static const struct {
		const struct kvk_layout *layout;
		const char *name;
		uint32_t bucket;
	} rows[] = {
		{ &one, "ab/abcd.kv", 0xab }, { &one, "00/x", 0 }, { &one, "ff/.tmp-1-2", 0xff },
		{ &two, "cd/ef/x.kv", 0xcd }, { &shards, "12/34/m_0_0_1234.bin", 0x12 },
		{ &flat, "ab_00000000_0_00.bin", 0 }, { &flat, "ab/x", 0 },
		{ &one, "AB/x", 0 }, { &one, "a", 0 }, { &one, "", 0 }, { &one, "abc/x", 0 }, { &one, "ab", 0 },
		{ &one, ".kvkeep/quarantine/ab-1", KVK_BUCKET_QUARANTINE },
		{ &flat, ".kvkeep/quarantine/x", KVK_BUCKET_QUARANTINE }, { &one, ".kvkeep/account", 0 },
	};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (kvk_name_bucket(rows[i].layout, rows[i].name) != rows[i].bucket)
			fail_msg("%s: bucket %u, not %u", rows[i].name, kvk_name_bucket(rows[i].layout, rows[i].name),
				 rows[i].bucket);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(fields_stand_where_the_table_says, fill),
		cmocka_unit_test_setup(every_value_comes_back, fill),
		cmocka_unit_test_setup(every_flipped_bit_is_refused, fill),
		cmocka_unit_test_setup(every_sealed_bit_is_refused_or_written_so, fill),
		cmocka_unit_test_setup(what_is_newer_is_told_apart, fill),
		cmocka_unit_test_setup(values_that_cannot_be, fill),
		cmocka_unit_test_setup(a_torn_copy_leaves_the_other, fill),
		cmocka_unit_test_setup(sequences_go_round, fill),
		cmocka_unit_test_setup(a_file_of_any_length, fill),
		cmocka_unit_test(buckets_of_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
