/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Footers, trailers and superblocks of any bytes. A change nearly never has a right CRC, so each input is tried as it
 * is and once more with its sums made right; what is accepted must be what the encoder writes.
 */
#include "fuzz.h"

#include <string.h>

#include "format/format.h"

#include "../seal.h"

static uint8_t scratch[KVK_FOOTER_BYTES_MAX], again[KVK_FOOTER_BYTES_MAX];

static void try_footer(const uint8_t *data, size_t bytes)
{
	struct kvk_footer footer;
	uint8_t digest[KVK_DIGEST_BYTES];
	const uint8_t *end = data + bytes;
	uint64_t sum = 0;

	if (kvk_footer_parse(&footer, digest, data, bytes) != 0)
		return;
	FUZZ_ASSERT(footer.key_bytes >= 1 && footer.key_bytes <= KVK_KEY_BYTES_MAX);
	FUZZ_ASSERT((const uint8_t *)footer.meta + footer.meta_bytes <= end);
	FUZZ_ASSERT((const uint8_t *)footer.key + footer.key_bytes <= end);
	for (uint32_t i = 0; i < footer.block_count; i++)
		sum ^= kvk_footer_sum(&footer, i);
	FUZZ_ASSERT(kvk_footer_bytes(&footer) == bytes);
	if (footer.ro_compat_flags || footer.compat_flags)
		return;
	FUZZ_ASSERT(kvk_footer_encode(&footer, digest, again, sizeof(again)) == 0);
	FUZZ_ASSERT(memcmp(again, data, bytes) == 0);
	FUZZ_ASSERT(footer.block_count > 0 || sum == 0);
}

static void try_superblock(const uint8_t *data, size_t bytes)
{
	struct kvk_superblock superblock;

	if (kvk_superblock_parse(&superblock, data, bytes) != 0)
		return;
	FUZZ_ASSERT(superblock.layout.levels <= 2);
	kvk_superblock_encode(&superblock, again);
	FUZZ_ASSERT(seal_get(data + 16, 4) != 0 || memcmp(again, data, bytes) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	uint32_t footer_bytes;

	try_footer(data, bytes);
	try_superblock(data, bytes);
	if (bytes >= KVK_TRAILER_BYTES && kvk_trailer_parse(data + bytes - KVK_TRAILER_BYTES, &footer_bytes) == 0)
		FUZZ_ASSERT(footer_bytes >= KVK_PAGE_BYTES && footer_bytes <= KVK_FOOTER_BYTES_MAX);
	if (bytes < 64)
		return 0;

	/* As much of it as makes whole pages, and the end where an end belongs. */
	footer_bytes = (uint32_t)kvk_page_ceil(bytes < sizeof(scratch) ? bytes : sizeof(scratch));
	memset(scratch, 0, footer_bytes);
	memcpy(scratch, data, bytes < footer_bytes ? bytes : footer_bytes);
	seal_put(scratch + footer_bytes - 16, 4, footer_bytes);
	memcpy(scratch + footer_bytes - 8, "\x89kvkend\n", 8);
	seal_footer(scratch, footer_bytes);
	try_footer(scratch, footer_bytes);
	seal_superblock(scratch);
	try_superblock(scratch, KVK_SUPERBLOCK_BYTES);
	return 0;
}

size_t kvk_fuzz_seed(unsigned nth, uint8_t *data, size_t room)
{
	static const uint64_t lengths[] = { 0, 5000, 1000000, UINT64_C(600) << 20 };
	static const uint8_t sums[8 * 1024] = { 1, 2, 3 };
	struct kvk_footer footer = { .checksum_id = KVK_CHECKSUM_XXH3, .created_ns = 1, .writer_id = 2, .depth = 3,
				     .meta = "meta", .meta_bytes = 4, .key = "m@00000000@0@00", .key_bytes = 15,
				     .block_sums = sums };
	uint8_t digest[KVK_DIGEST_BYTES];

	if (nth == 4) {
		struct kvk_superblock superblock = { .layout = { KVK_NAMING_LMCACHE, 2 }, .persist = true };

		kvk_superblock_encode(&superblock, data);
		return KVK_SUPERBLOCK_BYTES;
	}
	if (nth > 4)
		return 0;
	footer.logical_bytes = footer.stored_bytes = lengths[nth];
	footer.block_bytes = kvk_block_bytes_for(lengths[nth]);
	footer.block_count = kvk_block_count_for(lengths[nth], footer.block_bytes);
	FUZZ_ASSERT(kvk_key_digest(digest, footer.namespace_digest, footer.key, footer.key_bytes) == 0);
	FUZZ_ASSERT(kvk_footer_encode(&footer, digest, data, room) == 0);
	return kvk_footer_bytes(&footer);
}
