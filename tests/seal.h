/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sums of footers and superblocks, made a second time and in another way than the library makes them: the CRC bit by
 * bit, XXH3 without run-time dispatch. Tests forge with them what only a faulty or a later writer would leave.
 */
#ifndef KVK_TESTS_SEAL_H
#define KVK_TESTS_SEAL_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <openssl/evp.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

static inline void seal_put(uint8_t *at, unsigned bytes, uint64_t value)
{
	for (unsigned i = 0; i < bytes; i++, value >>= 8)
		at[i] = (uint8_t)value;
}

static inline uint64_t seal_get(const uint8_t *at, unsigned bytes)
{
	uint64_t value = 0;

	for (unsigned i = bytes; i-- > 0;)
		value = value << 8 | at[i];
	return value;
}

static inline uint32_t seal_crc_bits(const uint8_t *data, size_t bytes, uint32_t state)
{
	for (size_t i = 0; i < bytes; i++) {
		state ^= data[i];
		for (unsigned bit = 0; bit < 8; bit++)
			state = state >> 1 ^ (state & 1 ? 0x82f63b78u : 0);
	}
	return state;
}

/* Makes the CRC of a footer right again. */
static inline void seal_footer_crc(uint8_t *footer, size_t bytes)
{
	uint32_t state = seal_crc_bits(footer, bytes - 12, 0xffffffffu);

	state = seal_crc_bits(footer + bytes - 8, 8, state);
	seal_put(footer + bytes - 12, 4, ~state);
}

/*
 * Makes root sum and CRC right for whatever namespace and key the footer has now. A key that would lie outside of the
 * footer leaves the root sum as it is.
 */
static inline void seal_footer(uint8_t *footer, size_t bytes)
{
	uint64_t meta_bytes = seal_get(footer + 148, 4);
	uint64_t key_bytes = seal_get(footer + 152, 4);
	uint8_t text[32 + 1024], digest[32];

	if (key_bytes <= 1024 && 288 + meta_bytes + key_bytes <= bytes) {
		XXH128_hash_t sum;

		memcpy(text, footer + 80, 32);
		memcpy(text + 32, footer + 288 + meta_bytes, key_bytes);
		EVP_Digest(text, 32 + key_bytes, digest, NULL, EVP_sha256(), NULL);
		sum = XXH3_128bits_withSeed(footer, bytes - 32, seal_get(digest, 8));
		seal_put(footer + bytes - 32, 8, sum.low64);
		seal_put(footer + bytes - 24, 8, sum.high64);
	}
	seal_footer_crc(footer, bytes);
}

static inline void seal_superblock(uint8_t *superblock)
{
	seal_put(superblock + 4092, 4, ~seal_crc_bits(superblock, 4092, 0xffffffffu));
}

#endif
