/* SPDX-License-Identifier: Apache-2.0 */
#include "payload.h"

#include <string.h>

#define GOLDEN UINT64_C(0x9e3779b97f4a7c15)

/* Two words at a time, what SSE2 and NEON do in one operation. */
#define LANES 2
typedef uint64_t lanes __attribute__((vector_size(LANES * sizeof(uint64_t))));

#define BLOCK_STEPS (KVK_PAYLOAD_BLOCK_BYTES / sizeof(lanes))

uint64_t kvk_payload_mix(uint64_t value)
{
	value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
	return value ^ (value >> 31);
}

/*
 * Word i of a block is x ^ (x >> 29) with x = start + i * GOLDEN: GOLDEN is odd and the shift a bijection, so the
 * words of a block are all different.
 */
static lanes block_start(uint64_t name, uint64_t block)
{
	uint64_t start = kvk_payload_mix(name + (block + 1) * GOLDEN);

	return (lanes){ start, start + GOLDEN };
}

void kvk_payload_fill(void *to, uint64_t bytes, uint64_t name, uint64_t offset)
{
	const lanes step = { LANES * GOLDEN, LANES * GOLDEN };
	uint64_t block = offset / KVK_PAYLOAD_BLOCK_BYTES;
	char *at = to;
	lanes x, words;

	for (; bytes >= KVK_PAYLOAD_BLOCK_BYTES; bytes -= KVK_PAYLOAD_BLOCK_BYTES) {
		x = block_start(name, block++);
		for (size_t i = 0; i < BLOCK_STEPS; i++, x += step) {
			words = x ^ (x >> 29);
			memcpy(at, &words, sizeof(words));
			at += sizeof(words);
		}
	}
	x = block_start(name, block);
	for (; bytes; x += step) {
		size_t part = bytes < sizeof(words) ? (size_t)bytes : sizeof(words);

		words = x ^ (x >> 29);
		memcpy(at, &words, part);
		at += part;
		bytes -= part;
	}
}

static uint64_t wrong_in_block(const unsigned char *data, uint64_t bytes, uint64_t name, uint64_t block,
			       uint64_t *first)
{
	unsigned char right[KVK_PAYLOAD_BLOCK_BYTES];
	uint64_t wrong = 0;

	kvk_payload_fill(right, bytes, name, block * KVK_PAYLOAD_BLOCK_BYTES);
	for (uint64_t i = 0; i < bytes; i++) {
		if (data[i] == right[i])
			continue;
		if (wrong++ == 0)
			*first = block * KVK_PAYLOAD_BLOCK_BYTES + i;
	}
	return wrong;
}

uint64_t kvk_payload_wrong(const void *data, uint64_t bytes, uint64_t name, uint64_t offset,
			   uint64_t *first)
{
	const lanes step = { LANES * GOLDEN, LANES * GOLDEN };
	const unsigned char *at = data;
	uint64_t block = offset / KVK_PAYLOAD_BLOCK_BYTES, wrong = 0, unused;

	for (; bytes >= KVK_PAYLOAD_BLOCK_BYTES; block++) {
		lanes x = block_start(name, block), differs = { 0 };

		for (size_t i = 0; i < BLOCK_STEPS; i++, x += step) {
			lanes words;

			memcpy(&words, at + i * sizeof(words), sizeof(words));
			differs |= words ^ x ^ (x >> 29);
		}
		if (differs[0] | differs[1])
			wrong += wrong_in_block(at, KVK_PAYLOAD_BLOCK_BYTES, name, block,
						wrong ? &unused : first);
		at += KVK_PAYLOAD_BLOCK_BYTES;
		bytes -= KVK_PAYLOAD_BLOCK_BYTES;
	}
	if (bytes)
		wrong += wrong_in_block(at, bytes, name, block, wrong ? &unused : first);
	return wrong;
}
