/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The footer of an object. Where a field stands, from the footer's first byte (docs/format.md explains them):
 *
 *     0   HEAD (288 bytes), fixed fields
 *   288   metadata, then key, then block sums, without gaps
 *         zeros
 *   -32   root sum, XXH3-128 of everything before it
 *   -16   trailer: footer length, CRC-32C of the whole footer but itself, magic
 *
 * So each byte is under the CRC (which finds any 3 flipped bits and any burst of 32 at this length), and each but the
 * trailer's under the root sum as well, whose seed ties it to the key.
 */
#include "format/format.h"

#include <errno.h>

/* A state on the stack, for blocks in fragments. */
#define XXH_STATIC_LINKING_ONLY
/* The header is installed where the library chooses its vectors at run time: 34 GB/s on blocks in the cache with
 * AVX2, against 11 to 19 with the SSE2 that a plain build is compiled for. */
#if defined(__x86_64__) && __has_include(<xxh_x86dispatch.h>)
#include <xxh_x86dispatch.h>
#else
#define XXH_INLINE_ALL
#include <xxhash.h>
#endif

#include "format/bytes.h"

enum {
	AT_MAGIC = 0,
	AT_VERSION = 8,
	AT_INCOMPAT = 12,
	AT_RO_COMPAT = 16,
	AT_COMPAT = 20,
	AT_CHECKSUM_ID = 24,
	AT_CODEC_ID = 25,
	AT_CIPHER_ID = 26,
	AT_ZERO_1 = 27,
	AT_KEY_ID = 28,
	AT_LOGICAL = 32,
	AT_STORED = 40,
	AT_BLOCK_BYTES = 48,
	AT_BLOCK_COUNT = 52,
	AT_CREATED = 56,
	AT_WRITER = 64,
	AT_GENERATION = 72,
	AT_NAMESPACE = 80,
	AT_PARENT = 112,
	AT_DEPTH = 144,
	AT_META_BYTES = 148,
	AT_KEY_BYTES = 152,
	AT_ZERO_2 = 156,
	AT_RESERVED = 160,
	RESERVED_BYTES = 128,
	HEAD_BYTES = 288,

	ROOT_SUM_BYTES = 16,
	TAIL_BYTES = ROOT_SUM_BYTES + KVK_TRAILER_BYTES,

	/* within the trailer */
	TRAILER_AT_LENGTH = 0,
	TRAILER_AT_CRC = 4,
	TRAILER_AT_MAGIC = 8,
};

static const uint8_t head_magic[8] = { 'k', 'v', 'k', 'f', 'o', 'o', 't', 0x1a };
static const uint8_t trailer_magic[8] = { 0x89, 'k', 'v', 'k', 'e', 'n', 'd', '\n' };

#define LONGEST (HEAD_BYTES + KVK_META_BYTES_MAX + KVK_KEY_BYTES_MAX + 8 * KVK_BLOCK_COUNT_MAX + TAIL_BYTES)
_Static_assert(AT_RESERVED + RESERVED_BYTES == HEAD_BYTES, "no byte between head and metadata");
_Static_assert(LONGEST <= KVK_FOOTER_BYTES_MAX, "the longest footer is one that a trailer may tell");
_Static_assert((uint64_t)KVK_BLOCK_COUNT_MAX * KVK_BLOCK_BYTES_MAX == KVK_OBJECT_BYTES_MAX,
	       "the longest object fits the largest blocks");
_Static_assert(HEAD_BYTES + KVK_META_BYTES_MAX + KVK_KEY_BYTES_MAX + 8 * 256 + TAIL_BYTES <= KVK_PAGE_BYTES,
	       "256 blocks need one page");

uint32_t kvk_block_bytes_for(uint64_t stored_bytes)
{
	uint32_t block_bytes = KVK_BLOCK_BYTES_MIN;

	while (block_bytes < KVK_BLOCK_BYTES_MAX && stored_bytes > UINT64_C(256) * block_bytes)
		block_bytes *= 2;
	return block_bytes;
}

uint32_t kvk_block_count_for(uint64_t stored_bytes, uint32_t block_bytes)
{
	return (uint32_t)(stored_bytes / block_bytes + (stored_bytes % block_bytes != 0));
}

uint32_t kvk_footer_bytes(const struct kvk_footer *footer)
{
	if (footer->meta_bytes > KVK_META_BYTES_MAX || footer->key_bytes == 0 ||
	    footer->key_bytes > KVK_KEY_BYTES_MAX || footer->block_count > KVK_BLOCK_COUNT_MAX)
		return 0;
	return (uint32_t)kvk_page_ceil(HEAD_BYTES + footer->meta_bytes + footer->key_bytes +
				       (uint64_t)footer->block_count * 8 + TAIL_BYTES);
}

uint64_t kvk_block_sum(const void *data, size_t bytes, uint64_t seed)
{
	return XXH3_64bits_withSeed(data, bytes, seed);
}

uint64_t kvk_block_sum_iov(const struct iovec *iov, uint32_t count, uint64_t offset_bytes, uint64_t bytes,
			   uint64_t seed)
{
	XXH3_state_t state;

	while (count > 0 && offset_bytes >= iov->iov_len) {
		offset_bytes -= iov->iov_len;
		iov++;
		count--;
	}
	if (count > 0 && iov->iov_len - offset_bytes >= bytes)
		return kvk_block_sum((const uint8_t *)iov->iov_base + offset_bytes, bytes, seed);
	/* Reset keeps the secret of a state that has this seed already, and a state on the stack may look like one: what the
	 * block before left there, with part of its secret overwritten since. */
	XXH3_INITSTATE(&state);
	XXH3_64bits_reset_withSeed(&state, seed);
	for (; count > 0 && bytes > 0; iov++, count--) {
		uint64_t part = iov->iov_len - offset_bytes < bytes ? iov->iov_len - offset_bytes : bytes;

		XXH3_64bits_update(&state, (const uint8_t *)iov->iov_base + offset_bytes, part);
		bytes -= part;
		offset_bytes = 0;
	}
	return XXH3_64bits_digest(&state);
}

static void root_sum(uint8_t sum[ROOT_SUM_BYTES], const uint8_t *footer, uint32_t bytes,
		     const uint8_t digest[KVK_DIGEST_BYTES])
{
	XXH128_hash_t hash = XXH3_128bits_withSeed(footer, bytes - TAIL_BYTES, kvk_digest_seed(digest));

	kvk_put64(sum, hash.low64);
	kvk_put64(sum + 8, hash.high64);
}

/* Of every byte but the four that hold it. */
static uint32_t footer_crc(const uint8_t *footer, uint32_t bytes)
{
	const uint8_t *trailer = footer + bytes - KVK_TRAILER_BYTES;
	uint32_t crc = kvk_crc32c(footer, bytes - KVK_TRAILER_BYTES + TRAILER_AT_CRC, 0);

	return kvk_crc32c(trailer + TRAILER_AT_MAGIC, sizeof(trailer_magic), crc);
}

/* What encoder and parser both insist on, once flags and ids are known ones. */
static bool fields_agree(const struct kvk_footer *footer)
{
	uint32_t block_bytes = footer->block_bytes;

	if (footer->key_id != 0)
		return false;              /* there is no cipher that could have a key */
	if (footer->stored_bytes > KVK_OBJECT_BYTES_MAX || footer->logical_bytes != footer->stored_bytes)
		return false;
	if (block_bytes < KVK_BLOCK_BYTES_MIN || block_bytes > KVK_BLOCK_BYTES_MAX ||
	    (block_bytes & (block_bytes - 1)) != 0)
		return false;
	return footer->block_count == kvk_block_count_for(footer->stored_bytes, block_bytes) &&
	       kvk_footer_bytes(footer) != 0;
}

int kvk_footer_encode(const struct kvk_footer *footer, const uint8_t digest[KVK_DIGEST_BYTES], void *buffer,
		      size_t buffer_bytes)
{
	uint32_t bytes = kvk_footer_bytes(footer);
	uint8_t *to = buffer;
	uint8_t *at, *trailer;

	if (footer->incompat_flags || footer->ro_compat_flags || footer->compat_flags ||
	    footer->checksum_id != KVK_CHECKSUM_XXH3 || footer->codec_id != KVK_CODEC_NONE ||
	    footer->cipher_id != KVK_CIPHER_NONE || !fields_agree(footer))
		return -EINVAL;
	if (buffer_bytes < bytes)
		return -ENOSPC;

	trailer = to + bytes - KVK_TRAILER_BYTES;
	memset(to, 0, bytes);
	memcpy(to + AT_MAGIC, head_magic, sizeof(head_magic));
	kvk_put32(to + AT_VERSION, KVK_FORMAT_VERSION);
	to[AT_CHECKSUM_ID] = footer->checksum_id;
	to[AT_CODEC_ID] = footer->codec_id;
	to[AT_CIPHER_ID] = footer->cipher_id;
	kvk_put64(to + AT_LOGICAL, footer->logical_bytes);
	kvk_put64(to + AT_STORED, footer->stored_bytes);
	kvk_put32(to + AT_BLOCK_BYTES, footer->block_bytes);
	kvk_put32(to + AT_BLOCK_COUNT, footer->block_count);
	kvk_put64(to + AT_CREATED, footer->created_ns);
	kvk_put64(to + AT_WRITER, footer->writer_id);
	kvk_put64(to + AT_GENERATION, footer->generation);
	memcpy(to + AT_NAMESPACE, footer->namespace_digest, KVK_DIGEST_BYTES);
	memcpy(to + AT_PARENT, footer->parent_digest, KVK_DIGEST_BYTES);
	kvk_put32(to + AT_DEPTH, footer->depth);
	kvk_put32(to + AT_META_BYTES, footer->meta_bytes);
	kvk_put32(to + AT_KEY_BYTES, footer->key_bytes);

	at = to + HEAD_BYTES;
	if (footer->meta_bytes)
		memcpy(at, footer->meta, footer->meta_bytes);
	at += footer->meta_bytes;
	memcpy(at, footer->key, footer->key_bytes);
	at += footer->key_bytes;
	if (footer->block_count)
		memcpy(at, footer->block_sums, (size_t)footer->block_count * 8);

	root_sum(trailer - ROOT_SUM_BYTES, to, bytes, digest);
	kvk_put32(trailer + TRAILER_AT_LENGTH, bytes);
	memcpy(trailer + TRAILER_AT_MAGIC, trailer_magic, sizeof(trailer_magic));
	kvk_put32(trailer + TRAILER_AT_CRC, footer_crc(to, bytes));
	return 0;
}

int kvk_trailer_parse(const uint8_t trailer[KVK_TRAILER_BYTES], uint32_t *footer_bytes)
{
	uint32_t bytes = kvk_get32(trailer + TRAILER_AT_LENGTH);

	if (memcmp(trailer + TRAILER_AT_MAGIC, trailer_magic, sizeof(trailer_magic)) != 0)
		return -EBADMSG;
	if (bytes == 0 || bytes % KVK_PAGE_BYTES != 0 || bytes > KVK_FOOTER_BYTES_MAX)
		return -EBADMSG;
	*footer_bytes = bytes;
	return 0;
}

/* Magic, version, flags and ids: whether this is something that this version may take apart. */
static int check_known(const uint8_t *head)
{
	uint32_t version = kvk_get32(head + AT_VERSION);

	if (memcmp(head + AT_MAGIC, head_magic, sizeof(head_magic)) != 0 || version == 0)
		return -EBADMSG;
	if (version > KVK_FORMAT_VERSION || kvk_get32(head + AT_INCOMPAT) != 0)
		return -EPROTO;
	if (head[AT_CHECKSUM_ID] != KVK_CHECKSUM_XXH3 || head[AT_CODEC_ID] != KVK_CODEC_NONE ||
	    head[AT_CIPHER_ID] != KVK_CIPHER_NONE)
		return -EPROTO;
	return 0;
}

static void read_head(struct kvk_footer *footer, const uint8_t *head)
{
	footer->incompat_flags = kvk_get32(head + AT_INCOMPAT);
	footer->ro_compat_flags = kvk_get32(head + AT_RO_COMPAT);
	footer->compat_flags = kvk_get32(head + AT_COMPAT);
	footer->checksum_id = head[AT_CHECKSUM_ID];
	footer->codec_id = head[AT_CODEC_ID];
	footer->cipher_id = head[AT_CIPHER_ID];
	footer->key_id = kvk_get32(head + AT_KEY_ID);
	footer->logical_bytes = kvk_get64(head + AT_LOGICAL);
	footer->stored_bytes = kvk_get64(head + AT_STORED);
	footer->block_bytes = kvk_get32(head + AT_BLOCK_BYTES);
	footer->block_count = kvk_get32(head + AT_BLOCK_COUNT);
	footer->created_ns = kvk_get64(head + AT_CREATED);
	footer->writer_id = kvk_get64(head + AT_WRITER);
	footer->generation = kvk_get64(head + AT_GENERATION);
	memcpy(footer->namespace_digest, head + AT_NAMESPACE, KVK_DIGEST_BYTES);
	memcpy(footer->parent_digest, head + AT_PARENT, KVK_DIGEST_BYTES);
	footer->depth = kvk_get32(head + AT_DEPTH);
	footer->meta_bytes = kvk_get32(head + AT_META_BYTES);
	footer->key_bytes = kvk_get32(head + AT_KEY_BYTES);
}

/* Zeros where format 1 writes zeros. A later writer may use the reserved bytes, and says so with a flag that may
 * be ignored; the few bytes between fields are no room for anybody. */
static bool gaps_are_zero(const struct kvk_footer *footer, const uint8_t *data, const uint8_t *end_of_sums,
			  const uint8_t *tail)
{
	if (data[AT_ZERO_1] != 0 || !kvk_all_zero(data + AT_ZERO_2, AT_RESERVED - AT_ZERO_2))
		return false;
	if (footer->ro_compat_flags == 0 && footer->compat_flags == 0 &&
	    !kvk_all_zero(data + AT_RESERVED, RESERVED_BYTES))
		return false;
	return kvk_all_zero(end_of_sums, (size_t)(tail - end_of_sums));
}

int kvk_footer_parse(struct kvk_footer *ret, uint8_t digest[KVK_DIGEST_BYTES], const void *data, size_t bytes)
{
	const uint8_t *from = data;
	const uint8_t *trailer, *end_of_sums;
	struct kvk_footer footer;
	uint8_t own_digest[KVK_DIGEST_BYTES];
	uint8_t sum[ROOT_SUM_BYTES];
	uint32_t footer_bytes;
	int err;

	if (bytes < KVK_PAGE_BYTES || bytes > KVK_FOOTER_BYTES_MAX)
		return -EBADMSG;
	trailer = from + bytes - KVK_TRAILER_BYTES;
	err = kvk_trailer_parse(trailer, &footer_bytes);
	if (err)
		return err;
	if (footer_bytes != bytes || kvk_get32(trailer + TRAILER_AT_CRC) != footer_crc(from, footer_bytes))
		return -EBADMSG;
	err = check_known(from);
	if (err)
		return err;

	read_head(&footer, from);
	/* Of the length that these fields need, not more: else two footers would say the same. */
	if (!fields_agree(&footer) || kvk_footer_bytes(&footer) != footer_bytes)
		return -EBADMSG;
	footer.meta = from + HEAD_BYTES;
	footer.key = from + HEAD_BYTES + footer.meta_bytes;
	footer.block_sums = from + HEAD_BYTES + footer.meta_bytes + footer.key_bytes;
	end_of_sums = (const uint8_t *)footer.block_sums + (size_t)footer.block_count * 8;
	if (!gaps_are_zero(&footer, from, end_of_sums, trailer - ROOT_SUM_BYTES))
		return -EBADMSG;

	err = kvk_key_digest(own_digest, footer.namespace_digest, footer.key, footer.key_bytes);
	if (err)
		return err;
	root_sum(sum, from, footer_bytes, own_digest);
	if (memcmp(sum, trailer - ROOT_SUM_BYTES, ROOT_SUM_BYTES) != 0)
		return -EBADMSG;
	*ret = footer;
	memcpy(digest, own_digest, KVK_DIGEST_BYTES);
	return 0;
}

uint64_t kvk_footer_writer(const void *data)
{
	return kvk_get64((const uint8_t *)data + AT_WRITER);
}

uint64_t kvk_footer_sum(const struct kvk_footer *footer, uint32_t block)
{
	return kvk_get64((const uint8_t *)footer->block_sums + (size_t)block * 8);
}
