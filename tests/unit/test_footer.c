/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "format/format.h"

#include "../seal.h"

/* A footer with its own bytes, all made from a number. */
struct sample {
	struct kvk_footer footer;
	uint8_t digest[KVK_DIGEST_BYTES];
	uint8_t meta[KVK_META_BYTES_MAX];
	uint8_t key[KVK_KEY_BYTES_MAX];
	uint8_t sums[8 * KVK_BLOCK_COUNT_MAX];
	uint8_t encoded[KVK_FOOTER_BYTES_MAX];
	uint32_t bytes;
};

/* No byte is 0, so that a lost one shows. */
static void fill(uint8_t *data, size_t bytes, uint32_t seed)
{
	for (size_t i = 0; i < bytes; i++) {
		seed = seed * 1664525 + 1013904223;
		data[i] = (uint8_t)(1 + (seed >> 16) % 255);
	}
}

static void sample_make(struct sample *sample, uint64_t stored_bytes, uint32_t block_bytes, uint32_t meta_bytes,
			uint32_t key_bytes)
{
	struct kvk_footer *footer = &sample->footer;

	memset(sample, 0, sizeof(*sample));
	fill(sample->meta, sizeof(sample->meta), 1);
	fill(sample->key, sizeof(sample->key), 2);
	fill(sample->sums, sizeof(sample->sums), 3);
	*footer = (struct kvk_footer){
		.checksum_id = KVK_CHECKSUM_XXH3,
		.logical_bytes = stored_bytes,
		.stored_bytes = stored_bytes,
		.block_bytes = block_bytes,
		.block_count = kvk_block_count_for(stored_bytes, block_bytes),
		.created_ns = UINT64_C(0x0102030405060708),
		.writer_id = UINT64_C(0x1112131415161718),
		.generation = UINT64_C(0x2122232425262728),
		.depth = 0x31323334,
		.meta_bytes = meta_bytes,
		.key_bytes = key_bytes,
		.meta = sample->meta,
		.key = sample->key,
		.block_sums = sample->sums,
	};
	fill(footer->namespace_digest, KVK_DIGEST_BYTES, 4);
	fill(footer->parent_digest, KVK_DIGEST_BYTES, 5);
	assert_int_equal(kvk_key_digest(sample->digest, footer->namespace_digest, sample->key, key_bytes), 0);
	sample->bytes = kvk_footer_bytes(footer);
	assert_int_equal(kvk_footer_encode(footer, sample->digest, sample->encoded, sample->bytes), 0);
}

/* Everything but the pointers, which are compared by what they point to. */
static void assert_same(const struct kvk_footer *a, const struct kvk_footer *b)
{
	assert_int_equal(a->incompat_flags, b->incompat_flags);
	assert_int_equal(a->checksum_id, b->checksum_id);
	assert_int_equal(a->codec_id, b->codec_id);
	assert_int_equal(a->cipher_id, b->cipher_id);
	assert_int_equal(a->key_id, b->key_id);
	assert_true(a->logical_bytes == b->logical_bytes);
	assert_true(a->stored_bytes == b->stored_bytes);
	assert_int_equal(a->block_bytes, b->block_bytes);
	assert_int_equal(a->block_count, b->block_count);
	assert_true(a->created_ns == b->created_ns);
	assert_true(a->writer_id == b->writer_id);
	assert_true(a->generation == b->generation);
	assert_memory_equal(a->namespace_digest, b->namespace_digest, KVK_DIGEST_BYTES);
	assert_memory_equal(a->parent_digest, b->parent_digest, KVK_DIGEST_BYTES);
	assert_int_equal(a->depth, b->depth);
	assert_int_equal(a->meta_bytes, b->meta_bytes);
	assert_int_equal(a->key_bytes, b->key_bytes);
	assert_memory_equal(a->meta, b->meta, a->meta_bytes);
	assert_memory_equal(a->key, b->key, a->key_bytes);
	for (uint32_t i = 0; i < a->block_count; i++)
		assert_true(kvk_footer_sum(a, i) == kvk_footer_sum(b, i));
}

static struct sample sample, other;

/* ---- sizes -------------------------------------------------------------------------------------- */

static void block_sizes(void **state)
{
	static const struct {
		uint64_t stored_bytes;
		uint32_t block_bytes, block_count;
	} rows[] = {
		{ 0, 65536, 0 }, { 1, 65536, 1 }, { 65536, 65536, 1 }, { 65537, 65536, 2 },
		{ UINT64_C(16) << 20, 65536, 256 }, { (UINT64_C(16) << 20) + 1, 131072, 129 },
		{ UINT64_C(32) << 20, 131072, 256 }, { (UINT64_C(32) << 20) + 1, 262144, 129 },
		{ UINT64_C(64) << 20, 262144, 256 }, { (UINT64_C(64) << 20) + 1, 524288, 129 },
		{ UINT64_C(128) << 20, 524288, 256 }, { (UINT64_C(128) << 20) + 1, 1048576, 129 },
		{ UINT64_C(256) << 20, 1048576, 256 }, { (UINT64_C(256) << 20) + 1, 1048576, 257 },
		{ UINT64_C(4) << 30, 1048576, 4096 },
	};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_int_equal(kvk_block_bytes_for(rows[i].stored_bytes), rows[i].block_bytes);
		assert_int_equal(kvk_block_count_for(rows[i].stored_bytes, rows[i].block_bytes), rows[i].block_count);
	}
}

/* 320 bytes of head, root sum and trailer, and what varies: the page is full to its last byte, then there is one more. */
static void footer_sizes(void **state)
{
	static const struct {
		uint32_t block_count, meta_bytes, key_bytes, expected;
	} rows[] = {
		{ 0, 0, 1, 4096 }, { 256, 256, 1024, 4096 }, { 471, 0, 8, 4096 }, { 471, 0, 9, 8192 },
		{ 472, 0, 1, 8192 }, { 4096, 256, 1024, 36864 },
		{ 4097, 0, 1, 0 }, { UINT32_MAX, 0, 1, 0 }, { 1, 257, 1, 0 }, { 1, UINT32_MAX, 1, 0 },
		{ 1, 0, 0, 0 }, { 1, 0, 1025, 0 }, { 1, 0, UINT32_MAX, 0 },
	};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct kvk_footer footer = { .block_count = rows[i].block_count, .meta_bytes = rows[i].meta_bytes,
					     .key_bytes = rows[i].key_bytes };

		assert_int_equal(kvk_footer_bytes(&footer), rows[i].expected);
	}
}

static void block_sum_is_seeded_xxh3(void **state)
{
	static uint8_t block[70000];

	fill(block, sizeof(block), 6);
	for (size_t bytes = 0; bytes <= sizeof(block); bytes += 1 + bytes / 2) {
		uint64_t seed = UINT64_C(0x9e3779b97f4a7c15) * (bytes + 1);

		assert_true(kvk_block_sum(block, bytes, seed) == XXH3_64bits_withSeed(block, bytes, seed));
		assert_true(kvk_block_sum(block, bytes, seed) != kvk_block_sum(block, bytes, seed + 1));
	}
}

/* ---- what is written ---------------------------------------------------------------------------- */

/* The table of docs/format.md. */
static void fields_stand_where_the_table_says(void **state)
{
	static const struct {
		unsigned at, bytes;
		uint64_t value;
	} rows[] = {
		{ 8, 4, 1 }, { 12, 4, 0 }, { 16, 4, 0 }, { 20, 4, 0 },
		{ 24, 1, 1 }, { 25, 1, 0 }, { 26, 1, 0 }, { 27, 1, 0 }, { 28, 4, 0 },
		{ 32, 8, 200001 }, { 40, 8, 200001 }, { 48, 4, 65536 }, { 52, 4, 4 },
		{ 56, 8, UINT64_C(0x0102030405060708) }, { 64, 8, UINT64_C(0x1112131415161718) },
		{ 72, 8, UINT64_C(0x2122232425262728) }, { 144, 4, 0x31323334 }, { 148, 4, 5 }, { 152, 4, 9 },
		{ 156, 4, 0 }, { 4080, 4, 4096 },
	};
	uint8_t *encoded = sample.encoded;

	sample_make(&sample, 200001, 65536, 5, 9);
	assert_int_equal(sample.bytes, 4096);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (seal_get(encoded + rows[i].at, rows[i].bytes) != rows[i].value)
			fail_msg("offset %u: %llx, not %llx", rows[i].at,
				 (unsigned long long)seal_get(encoded + rows[i].at, rows[i].bytes),
				 (unsigned long long)rows[i].value);
	}
	assert_memory_equal(encoded, "kvkfoot\x1a", 8);
	assert_memory_equal(encoded + 80, sample.footer.namespace_digest, 32);
	assert_memory_equal(encoded + 112, sample.footer.parent_digest, 32);
	for (unsigned i = 160; i < 288; i++)
		assert_int_equal(encoded[i], 0);
	assert_memory_equal(encoded + 288, sample.meta, 5);
	assert_memory_equal(encoded + 293, sample.key, 9);
	assert_memory_equal(encoded + 302, sample.sums, 32);
	for (unsigned i = 334; i < 4064; i++)
		assert_int_equal(encoded[i], 0);
	assert_memory_equal(encoded + 4088, "\x89kvkend\n", 8);

	/* The sums, once more in another way. */
	memcpy(other.encoded, encoded, 4096);
	memset(other.encoded + 4064, 0, 16);
	seal_footer(other.encoded, 4096);
	assert_memory_equal(encoded, other.encoded, 4096);
}

static void every_shape_comes_back(void **state)
{
	static const uint64_t lengths[] = { 0, 1, 4096, 65535, 65536, 65537, 1000000, UINT64_C(268435456),
					    UINT64_C(268435457), UINT64_C(4) << 30 };
	static const uint32_t meta[] = { 0, 1, 255, 256 }, keys[] = { 1, 60, 1023, 1024 };

	for (unsigned i = 0; i < 10 * 4 * 4; i++) {
		uint64_t length = lengths[i / 16];
		struct kvk_footer parsed;
		uint8_t digest[KVK_DIGEST_BYTES];
		uint32_t told = 0;

		sample_make(&sample, length, kvk_block_bytes_for(length), meta[i / 4 % 4], keys[i % 4]);
		assert_int_equal(kvk_trailer_parse(sample.encoded + sample.bytes - 16, &told), 0);
		assert_int_equal(told, sample.bytes);
		assert_int_equal(kvk_footer_parse(&parsed, digest, sample.encoded, sample.bytes), 0);
		assert_same(&parsed, &sample.footer);
		assert_memory_equal(digest, sample.digest, sizeof(digest));
		assert_ptr_equal(parsed.meta, sample.encoded + 288);
	}
}

/* Not a byte is left between the sums and the root sum. */
static void a_page_is_full_to_its_last_byte(void **state)
{
	struct kvk_footer parsed;
	uint8_t digest[KVK_DIGEST_BYTES];

	sample_make(&sample, UINT64_C(471) * 65536, 65536, 0, 8);
	assert_int_equal(sample.bytes, 4096);
	assert_memory_equal(sample.encoded + 4064 - 8 * 471, sample.sums, 8 * 471);
	assert_int_equal(kvk_footer_parse(&parsed, digest, sample.encoded, sample.bytes), 0);
	assert_same(&parsed, &sample.footer);
}

static void encoder_refuses(void **state)
{
	static const struct {
		const char *what;
		size_t at, bytes;
		uint64_t value;
	} rows[] = {
#define FIELD(name) offsetof(struct kvk_footer, name), sizeof(((struct kvk_footer *)NULL)->name)
		{ "incompat flag", FIELD(incompat_flags), 1 },
		{ "ro-compat flag", FIELD(ro_compat_flags), 1 },
		{ "compat flag", FIELD(compat_flags), 1 },
		{ "no checksum", FIELD(checksum_id), 0 },
		{ "checksum", FIELD(checksum_id), 2 },
		{ "codec", FIELD(codec_id), 1 },
		{ "cipher", FIELD(cipher_id), 1 },
		{ "key id without cipher", FIELD(key_id), 1 },
		{ "logical longer than stored", FIELD(logical_bytes), 200002 },
		{ "logical shorter", FIELD(logical_bytes), 200000 },
		{ "over 4 GiB", FIELD(stored_bytes), (UINT64_C(4) << 30) + 1 },
		{ "block too small", FIELD(block_bytes), 32768 },
		{ "no block size", FIELD(block_bytes), 0 },
		{ "block too large", FIELD(block_bytes), 2097152 },
		{ "block no power of two", FIELD(block_bytes), 65537 },
		{ "a block too many", FIELD(block_count), 5 },
		{ "a block too few", FIELD(block_count), 3 },
		{ "metadata", FIELD(meta_bytes), 257 },
		{ "no key", FIELD(key_bytes), 0 },
		{ "key", FIELD(key_bytes), 1025 },
#undef FIELD
	};

	sample_make(&sample, 200001, 65536, 5, 9);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct kvk_footer footer = sample.footer;
		int err;

		seal_put((uint8_t *)&footer + rows[i].at, (unsigned)rows[i].bytes, rows[i].value);
		memset(other.encoded, 0x5a, sizeof(other.encoded));
		err = kvk_footer_encode(&footer, sample.digest, other.encoded, sizeof(other.encoded));
		if (err != -EINVAL)
			fail_msg("%s: %d, not %d", rows[i].what, err, -EINVAL);
		for (unsigned at = 0; at < sizeof(other.encoded); at++)
			assert_int_equal(other.encoded[at], 0x5a);
	}
	/* 4 GiB and a byte: all agrees, but for the limit. */
	sample.footer.stored_bytes = sample.footer.logical_bytes = (UINT64_C(4) << 30) + 1;
	sample.footer.block_bytes = 1048576;
	sample.footer.block_count = 4097;
	assert_int_equal(kvk_footer_encode(&sample.footer, sample.digest, other.encoded, 40960), -EINVAL);
	/* The same with the size of a block, and with a length that one such block has room for. */
	sample.footer.stored_bytes = sample.footer.logical_bytes = 200001;
	sample.footer.block_bytes = 2097152;
	sample.footer.block_count = 1;
	assert_int_equal(kvk_footer_encode(&sample.footer, sample.digest, other.encoded, 4096), -EINVAL);

	sample_make(&sample, 200001, 65536, 5, 9);
	memset(other.encoded, 0x5a, sizeof(other.encoded));
	assert_int_equal(kvk_footer_encode(&sample.footer, sample.digest, other.encoded, 4095), -ENOSPC);
	for (unsigned at = 0; at < 4096; at++)
		assert_int_equal(other.encoded[at], 0x5a);
}

/* ---- what is refused ---------------------------------------------------------------------------- */

enum seal { SEAL_NOTHING, SEAL_CRC, SEAL_ALL };

/*
 * Flips bits of the sample one by one, every `stride` of them, and makes sums right again as told. Nothing may be
 * accepted that the encoder would not write, and without a right root sum nothing at all.
 */
static unsigned flip_bits(enum seal seal, unsigned stride)
{
	struct kvk_footer parsed, untouched;
	uint8_t digest[KVK_DIGEST_BYTES], untouched_digest[KVK_DIGEST_BYTES];
	unsigned accepted = 0;

	memset(&untouched, 0x5a, sizeof(untouched));
	memset(untouched_digest, 0x5a, sizeof(untouched_digest));
	for (unsigned bit = 0; bit < 8 * sample.bytes; bit += stride) {
		memcpy(other.encoded, sample.encoded, sample.bytes);
		other.encoded[bit / 8] ^= (uint8_t)(1u << bit % 8);
		if (seal == SEAL_CRC)
			seal_footer_crc(other.encoded, sample.bytes);
		if (seal == SEAL_ALL)
			seal_footer(other.encoded, sample.bytes);
		if (memcmp(other.encoded, sample.encoded, sample.bytes) == 0)
			continue;                  /* the flip was in a sum, and is mended */
		parsed = untouched;
		memcpy(digest, untouched_digest, sizeof(digest));
		if (kvk_footer_parse(&parsed, digest, other.encoded, sample.bytes) != 0) {
			assert_memory_equal(&parsed, &untouched, sizeof(parsed));
			assert_memory_equal(digest, untouched_digest, sizeof(digest));
			continue;
		}
		accepted++;
		if (seal != SEAL_ALL)
			fail_msg("bit %u flipped: accepted", bit);
		if (bit / 8 >= 16 && bit / 8 < 24)
			continue;                  /* flags that a reader may meet, and the encoder never writes */
		assert_int_equal(kvk_footer_encode(&parsed, digest, other.sums, sizeof(other.sums)), 0);
		if (memcmp(other.sums, other.encoded, sample.bytes) != 0)
			fail_msg("bit %u flipped and sealed: accepted, but never written", bit);
	}
	return accepted;
}

static void every_flipped_bit_is_refused(void **state)
{
	sample_make(&sample, 200001, 65536, 5, 60);
	assert_int_equal(flip_bits(SEAL_NOTHING, 1), 0);
	sample_make(&sample, UINT64_C(600) << 20, 1048576, 256, 1024);
	assert_int_equal(sample.bytes, 8192);
	assert_int_equal(flip_bits(SEAL_NOTHING, 1), 0);
	sample_make(&sample, UINT64_C(4) << 30, 1048576, 256, 1024);
	assert_int_equal(flip_bits(SEAL_NOTHING, 17), 0);
}

/* The CRC taken for granted, the root sum alone refuses. */
static void every_flipped_bit_is_refused_by_the_root_sum(void **state)
{
	sample_make(&sample, 200001, 65536, 5, 60);
	assert_int_equal(flip_bits(SEAL_CRC, 1), 0);
}

/*
 * With all sums made right, only what may hold any value may change: created, writer, generation, two digests, depth,
 * 8 bytes of flags, metadata, key and sums. And where one part ends and the next begins, as long as nothing but zeros
 * is taken from the padding: metadata of 5 may become 7, 13, 21, 37, 69 or 133, a key of 60 may become 61, 62, 124,
 * 188, 316 or 572. Those are other footers, each of which the encoder writes.
 */
static void every_sealed_flip_is_refused_or_written_so(void **state)
{
	sample_make(&sample, 200001, 65536, 5, 60);
	assert_int_equal(flip_bits(SEAL_ALL, 1), 8 * (3 * 8 + 2 * 32 + 4 + 8 + 5 + 60 + 4 * 8) + 6 + 6);
}

static void sealed_refusals(void **state)
{
	static const struct {
		const char *what;
		unsigned at, bytes;
		uint64_t value;
		int expected;
	} rows[] = {
		{ "as it is", 8, 4, 1, 0 },
		{ "magic", 0, 1, 'K', -EBADMSG },
		{ "version 0", 8, 4, 0, -EBADMSG },
		{ "version 2", 8, 4, 2, -EPROTO },
		{ "version 2^32 - 1", 8, 4, UINT32_MAX, -EPROTO },
		{ "incompat flag", 12, 4, 1, -EPROTO },
		{ "incompat flag 31", 12, 4, 1u << 31, -EPROTO },
		{ "ro-compat flag", 16, 4, 1, 0 },
		{ "compat flag", 20, 4, 1u << 31, 0 },
		{ "checksum 0", 24, 1, 0, -EPROTO },
		{ "checksum 2", 24, 1, 2, -EPROTO },
		{ "codec 1", 25, 1, 1, -EPROTO },
		{ "cipher 255", 26, 1, 255, -EPROTO },
		{ "gap at 27", 27, 1, 1, -EBADMSG },
		{ "key id", 28, 4, 1, -EBADMSG },
		{ "logical", 32, 8, 200000, -EBADMSG },
		{ "stored", 40, 8, 200000, -EBADMSG },
		{ "block of 0", 48, 4, 0, -EBADMSG },
		{ "block of 1", 48, 4, 1, -EBADMSG },
		{ "block of 32 KiB", 48, 4, 32768, -EBADMSG },
		{ "block of 2 MiB", 48, 4, 2097152, -EBADMSG },
		{ "block of 96 KiB", 48, 4, 98304, -EBADMSG },
		{ "block of 128 KiB", 48, 4, 131072, -EBADMSG },
		{ "5 blocks", 52, 4, 5, -EBADMSG },
		{ "2^32 - 1 blocks", 52, 4, UINT32_MAX, -EBADMSG },
		{ "2^29 blocks: their sums are 0 bytes in 32 bits", 52, 4, 1u << 29, -EBADMSG },
		{ "metadata of 257", 148, 4, 257, -EBADMSG },
		{ "metadata of 2^32 - 1", 148, 4, UINT32_MAX, -EBADMSG },
		{ "no key", 152, 4, 0, -EBADMSG },
		{ "key of 1,025", 152, 4, 1025, -EBADMSG },
		{ "key of 2^32 - 60", 152, 4, UINT32_MAX - 59, -EBADMSG },
		{ "gap at 156", 156, 4, 1, -EBADMSG },
		{ "reserved, first", 160, 1, 1, -EBADMSG },
		{ "reserved, last", 287, 1, 1, -EBADMSG },
		{ "padding, first", 288 + 5 + 60 + 32, 1, 1, -EBADMSG },
		{ "padding, last", 4063, 1, 1, -EBADMSG },
	};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct kvk_footer parsed;
		uint8_t digest[KVK_DIGEST_BYTES];
		int err;

		sample_make(&sample, 200001, 65536, 5, 60);
		seal_put(sample.encoded + rows[i].at, rows[i].bytes, rows[i].value);
		seal_footer(sample.encoded, sample.bytes);
		err = kvk_footer_parse(&parsed, digest, sample.encoded, sample.bytes);
		if (err != rows[i].expected)
			fail_msg("%s: %d, not %d", rows[i].what, err, rows[i].expected);
	}
}

/* Both lengths, or length and blocks, agree with each other and still are none of ours. */
static void sealed_refusals_of_several_fields(void **state)
{
	struct kvk_footer parsed;
	uint8_t digest[KVK_DIGEST_BYTES];

	sample_make(&sample, UINT64_C(4) << 30, 1048576, 0, 9);
	seal_put(sample.encoded + 32, 8, UINT64_MAX);
	seal_put(sample.encoded + 40, 8, UINT64_MAX);
	seal_footer(sample.encoded, sample.bytes);
	assert_int_equal(kvk_footer_parse(&parsed, digest, sample.encoded, sample.bytes), -EBADMSG);

	/* 2^64 - 1 bytes in blocks of 1 MiB: the count's low 32 bits are 0. */
	sample_make(&sample, 0, 1048576, 0, 9);
	seal_put(sample.encoded + 32, 8, UINT64_MAX);
	seal_put(sample.encoded + 40, 8, UINT64_MAX);
	seal_footer(sample.encoded, sample.bytes);
	assert_int_equal(kvk_footer_parse(&parsed, digest, sample.encoded, sample.bytes), -EBADMSG);

	/* A page more than it needs. */
	sample_make(&sample, 200001, 65536, 5, 9);
	memmove(sample.encoded + 4096 + 4064, sample.encoded + 4064, 32);
	memset(sample.encoded + 4064, 0, 32);
	seal_put(sample.encoded + 8192 - 16, 4, 8192);
	seal_footer(sample.encoded, 8192);
	assert_int_equal(kvk_footer_parse(&parsed, digest, sample.encoded, 8192), -EBADMSG);
}

/* A later writer may use the reserved bytes, if a flag says that they may be ignored. */
static void later_fields_behind_a_flag(void **state)
{
	for (unsigned flag_at = 16; flag_at <= 20; flag_at += 4) {
		struct kvk_footer parsed;
		uint8_t digest[KVK_DIGEST_BYTES];

		sample_make(&sample, 200001, 65536, 5, 9);
		seal_put(sample.encoded + flag_at, 4, 4);
		memset(sample.encoded + 160, 0xee, 128);
		seal_footer(sample.encoded, sample.bytes);
		assert_int_equal(kvk_footer_parse(&parsed, digest, sample.encoded, sample.bytes), 0);
		assert_same(&parsed, &sample.footer);
		assert_int_equal(parsed.ro_compat_flags, flag_at == 16 ? 4 : 0);
		assert_int_equal(parsed.compat_flags, flag_at == 20 ? 4 : 0);
	}
}

/* The seed ties the root sum to the key: sealed for another one, a footer is not whole. */
static void seed_of_another_key_is_refused(void **state)
{
	struct kvk_footer parsed;
	uint8_t digest[KVK_DIGEST_BYTES];

	sample_make(&sample, 200001, 65536, 5, 9);
	sample.digest[7] ^= 1;
	assert_int_equal(kvk_footer_encode(&sample.footer, sample.digest, sample.encoded, sample.bytes), 0);
	assert_int_equal(kvk_footer_parse(&parsed, digest, sample.encoded, sample.bytes), -EBADMSG);
}

/* Too short, too long, cut at either end: by the last byte that may be touched, since no page follows or precedes. */
static void every_other_length_is_refused(void **state)
{
	size_t room = 8192;
	uint8_t *map = mmap(NULL, 3 * room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t *page = map + room;
	struct kvk_footer parsed;
	uint8_t digest[KVK_DIGEST_BYTES];

	assert_true(map != MAP_FAILED);
	assert_int_equal(mprotect(page, room, PROT_READ | PROT_WRITE), 0);
	sample_make(&sample, UINT64_C(600) << 20, 1048576, 256, 1024);
	memcpy(page, sample.encoded, room);
	assert_int_equal(kvk_footer_parse(&parsed, digest, page, room), 0);
	for (size_t bytes = 0; bytes < room; bytes++) {
		assert_int_equal(kvk_footer_parse(&parsed, digest, page, bytes), -EBADMSG);
		assert_int_equal(kvk_footer_parse(&parsed, digest, page + room - bytes, bytes), -EBADMSG);
	}
	assert_int_equal(kvk_footer_parse(&parsed, digest, sample.encoded, KVK_FOOTER_BYTES_MAX), -EBADMSG);
	assert_int_equal(kvk_footer_parse(&parsed, digest, sample.encoded, SIZE_MAX), -EBADMSG);
	munmap(map, 3 * room);
}

static void footers_need_no_alignment(void **state)
{
	struct kvk_footer parsed;
	uint8_t digest[KVK_DIGEST_BYTES];

	sample_make(&sample, 200001, 65536, 5, 9);
	for (unsigned shift = 1; shift < 16; shift++) {
		assert_int_equal(kvk_footer_encode(&sample.footer, sample.digest, other.encoded + shift, 4096), 0);
		assert_memory_equal(other.encoded + shift, sample.encoded, 4096);
		assert_int_equal(kvk_footer_parse(&parsed, digest, other.encoded + shift, 4096), 0);
		assert_same(&parsed, &sample.footer);
	}
}

static void trailers(void **state)
{
	static const uint32_t bad[] = { 0, 1, 4095, 4097, 40961, 45056, 1u << 31, UINT32_MAX, UINT32_MAX - 4095 };
	uint8_t trailer[16];
	uint32_t told = 77;

	sample_make(&sample, 200001, 65536, 5, 9);
	memcpy(trailer, sample.encoded + sample.bytes - 16, 16);
	for (uint32_t bytes = 4096; bytes <= 40960; bytes += 4096) {
		seal_put(trailer, 4, bytes);
		assert_int_equal(kvk_trailer_parse(trailer, &told), 0);
		assert_int_equal(told, bytes);
	}
	told = 77;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		seal_put(trailer, 4, bad[i]);
		assert_int_equal(kvk_trailer_parse(trailer, &told), -EBADMSG);
	}
	seal_put(trailer, 4, 4096);
	for (unsigned bit = 64; bit < 128; bit++) {
		trailer[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(kvk_trailer_parse(trailer, &told), -EBADMSG);
		trailer[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	memset(trailer, 0, sizeof(trailer));
	assert_int_equal(kvk_trailer_parse(trailer, &told), -EBADMSG);
	assert_int_equal(told, 77);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(block_sizes),
		cmocka_unit_test(footer_sizes),
		cmocka_unit_test(block_sum_is_seeded_xxh3),
		cmocka_unit_test(fields_stand_where_the_table_says),
		cmocka_unit_test(every_shape_comes_back),
		cmocka_unit_test(a_page_is_full_to_its_last_byte),
		cmocka_unit_test(encoder_refuses),
		cmocka_unit_test(every_flipped_bit_is_refused),
		cmocka_unit_test(every_flipped_bit_is_refused_by_the_root_sum),
		cmocka_unit_test(every_sealed_flip_is_refused_or_written_so),
		cmocka_unit_test(sealed_refusals),
		cmocka_unit_test(sealed_refusals_of_several_fields),
		cmocka_unit_test(later_fields_behind_a_flag),
		cmocka_unit_test(seed_of_another_key_is_refused),
		cmocka_unit_test(every_other_length_is_refused),
		cmocka_unit_test(footers_need_no_alignment),
		cmocka_unit_test(trailers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
