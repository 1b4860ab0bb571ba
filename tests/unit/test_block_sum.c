/* SPDX-License-Identifier: Apache-2.0 */
/* The sum of a block is the same however its bytes lie in memory, and whatever was on the stack before. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "format/format.h"

#define BYTES 5000u

static uint8_t data[BYTES];

/*
 * Leaves on the stack what an earlier hash with this seed may have left there, half overwritten: a state of the streaming
 * hash that lies on the stack is taken for one that is set up if its old seed is the new one.
 */
static void __attribute__((noinline)) spoil_stack(uint64_t seed, unsigned phase)
{
	uint64_t words[1024];

	for (unsigned i = 0; i < 1024; i++)
		words[i] = (i + phase) % 4 == 0 ? seed : (i + phase) % 4 == 2 ? 0 : UINT64_C(0x5a5a5a5a5a5a5a5a) * i;
	__asm__ volatile("" : : "r"(words), "m"(words) : "memory");
}

static uint64_t sum_in_pieces(uint32_t pieces, uint64_t offset, uint64_t bytes, uint64_t seed, unsigned phase)
{
	struct iovec iov[16];
	uint64_t from = 0;

	for (uint32_t i = 0; i < pieces; i++) {
		uint64_t to = (uint64_t)BYTES * (i + 1) / pieces;

		iov[i] = (struct iovec){ .iov_base = data + from, .iov_len = to - from };
		from = to;
	}
	spoil_stack(seed, phase);
	return kvk_block_sum_iov(iov, pieces, offset, bytes, seed);
}

static void test_pieces(void **state)
{
	for (uint32_t i = 0; i < BYTES; i++)
		data[i] = (uint8_t)(i * 31 + i / 256);
	for (uint32_t pieces = 1; pieces <= 16; pieces++) {
		for (uint32_t round = 0; round < 64; round++) {
			uint64_t seed = (round + 1) * UINT64_C(0x9e3779b97f4a7c15) * (round % 8 != 0);
			uint64_t offset = round * 67 % BYTES, bytes = (round * 911 + 1) % (BYTES - offset);
			uint64_t whole = kvk_block_sum(data + offset, bytes, seed);
			uint64_t parts = sum_in_pieces(pieces, offset, bytes, seed, round % 4);

			if (whole != parts)
				fail_msg("bytes %llu + %llu in %u pieces, seed %llx: %llx, whole %llx",
					 (unsigned long long)offset, (unsigned long long)bytes, pieces,
					 (unsigned long long)seed, (unsigned long long)parts, (unsigned long long)whole);
		}
	}
}

/* Behind the last byte there is nothing, in however many pieces. */
static void test_nothing(void **state)
{
	for (uint32_t pieces = 0; pieces <= 16; pieces++)
		assert_true(sum_in_pieces(pieces, BYTES, 0, 7, 0) == kvk_block_sum(data, 0, 7));
	assert_true(sum_in_pieces(4, BYTES - 3, 8, 7, 0) == kvk_block_sum(data + BYTES - 3, 3, 7));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
