/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulation beside a cache that is written down as plainly as possible: one list, the most recently used blocks, where a
 * request uses its blocks last to first, so that no parent is older than its child. Every request's hits must be the same.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <kvkeep/kvkeep.h>

#include "util/alloc.h"

#define BLOCK UINT64_C(65536)
#define CAP_BLOCKS 300u
#define CHAINS 64u
#define DEPTH_MAX 24u
#define REQUESTS 20000u

static struct kvk_simulation *make(const char *policy, uint64_t cap_bytes)
{
	struct kvk_simulation_options options = { .struct_bytes = sizeof(options), .policy = policy, .cap_bytes = cap_bytes };
	struct kvk_simulation *simulation = NULL;

	assert_int_equal(kvk_simulation_new(&simulation, &options), 0);
	return simulation;
}

static struct kvk_simulation_counts counts_of(struct kvk_simulation *simulation)
{
	struct kvk_simulation_counts counts = { .struct_bytes = sizeof(counts) };

	assert_int_equal(kvk_simulation_counts(simulation, &counts), 0);
	return counts;
}

/* Marsaglia's xorshift64; never 0. */
static uint64_t below(uint64_t *random, uint64_t limit)
{
	*random ^= *random << 13;
	*random ^= *random >> 7;
	*random ^= *random << 17;
	return *random % limit;
}

/* Chains share a beginning with others: half of the depth is that of the group. */
static uint32_t request_of(uint64_t *random, uint64_t blocks[DEPTH_MAX])
{
	uint64_t chain = below(random, CHAINS), group = chain % 8;
	uint32_t count = 1 + (uint32_t)below(random, DEPTH_MAX);

	if (below(random, 3) == 0)
		chain = CHAINS + below(random, 100000);
	for (uint32_t i = 0; i < count; i++)
		blocks[i] = i < DEPTH_MAX / 2 && chain < CHAINS ? group << 8 | i : (chain + 1) << 16 | i;
	return count;
}

/* The most recent last. */
struct plain {
	uint64_t blocks[CAP_BLOCKS];
	uint32_t count;
};

static bool plain_find(const struct plain *plain, uint64_t block, uint32_t *at_ret)
{
	for (*at_ret = 0; *at_ret < plain->count; ++*at_ret) {
		if (plain->blocks[*at_ret] == block)
			return true;
	}
	return false;
}

static void plain_use(struct plain *plain, uint64_t block)
{
	uint32_t at;

	if (!plain_find(plain, block, &at)) {
		at = 0;
		if (plain->count < CAP_BLOCKS) {
			plain->blocks[plain->count++] = block;
			return;
		}
	}
	memmove(&plain->blocks[at], &plain->blocks[at + 1], (plain->count - at - 1) * sizeof(plain->blocks[0]));
	plain->blocks[plain->count - 1] = block;
}

static uint32_t plain_request(struct plain *plain, const uint64_t *blocks, uint32_t count)
{
	uint32_t hits = 0, at;

	while (hits < count && plain_find(plain, blocks[hits], &at))
		hits++;
	for (uint32_t i = count; i-- > 0;)
		plain_use(plain, blocks[i]);
	return hits;
}

static void follow_lru(uint64_t random)
{
	struct kvk_simulation *simulation = make("LRU", CAP_BLOCKS * BLOCK);
	uint64_t blocks[DEPTH_MAX], accesses = 0, all_hits = 0;
	struct plain *plain = calloc(1, sizeof(*plain));
	struct kvk_simulation_counts counts;

	for (uint32_t i = 0; i < REQUESTS; i++) {
		uint32_t count = request_of(&random, blocks), hits, wanted = plain_request(plain, blocks, count);

		assert_int_equal(kvk_simulation_request(simulation, blocks, count, BLOCK, &hits), 0);
		if (hits != wanted)
			fail_msg("request %u: %u hits, there are %u", i, hits, wanted);
		accesses += count;
		all_hits += hits;
	}
	counts = counts_of(simulation);
	assert_int_equal(counts.accesses, accesses);
	assert_int_equal(counts.hits, all_hits);
	assert_int_equal(counts.hit_bytes, all_hits * BLOCK);
	assert_int_equal(counts.objects, CAP_BLOCKS);
	assert_int_equal(counts.used_bytes, CAP_BLOCKS * BLOCK);
	assert_int_equal(counts.written - counts.evicted, CAP_BLOCKS);
	assert_int_equal(counts.written_bytes, counts.written * BLOCK);
	assert_int_equal(counts.refused, 0);
	assert_in_range(all_hits, accesses / 10, accesses - accesses / 10);
	kvk_simulation_free(simulation);
	free(plain);
}

static void test_lru(void **state)
{
	for (uint64_t seed = 1; seed <= 3; seed++)
		follow_lru(seed);
}

static void test_every_policy_keeps_to_the_cap(void **state)
{
	static const char *const policies[] = { "LRU", "S3FIFO", "ARC", "IsolatedLRU" };

	for (unsigned p = 0; p < sizeof(policies) / sizeof(policies[0]); p++) {
		struct kvk_simulation *simulation = make(policies[p], CAP_BLOCKS * BLOCK);
		uint64_t blocks[DEPTH_MAX], random = 7;

		for (uint32_t i = 0; i < REQUESTS / 10; i++) {
			uint32_t count = request_of(&random, blocks), hits;

			assert_int_equal(kvk_simulation_request(simulation, blocks, count, BLOCK - 1, &hits), 0);
			assert_in_range(counts_of(simulation).used_bytes, 0, CAP_BLOCKS * BLOCK);
			/* What was just asked for is there, unless it has to prove itself first. */
			assert_int_equal(kvk_simulation_request(simulation, blocks, 1, BLOCK, &hits), 0);
			if (p == 0 || p == 3)
				assert_int_equal(hits, 1);
		}
		assert_true(counts_of(simulation).evicted > 0);
		kvk_simulation_free(simulation);
	}
}

static void test_noop_and_no_cap(void **state)
{
	struct kvk_simulation *small = make("noop", 10 * BLOCK), *all = make("noop", 0), *tiny = make("LRU", BLOCK);
	uint64_t blocks[12] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 };
	uint32_t hits;

	for (uint32_t i = 0; i < 2; i++) {
		assert_int_equal(kvk_simulation_request(small, blocks, 12, BLOCK, &hits), 0);
		assert_int_equal(hits, i ? 10 : 0);
		assert_int_equal(kvk_simulation_request(all, blocks, 12, BLOCK, &hits), 0);
		assert_int_equal(hits, i ? 12 : 0);
	}
	assert_int_equal(counts_of(small).refused, 4);
	assert_int_equal(counts_of(small).evicted, 0);
	assert_int_equal(counts_of(all).refused, 0);
	assert_int_equal(counts_of(all).objects, 12);
	/* A block that can never fit: nothing leaves for it. */
	assert_int_equal(kvk_simulation_request(tiny, &blocks[1], 1, BLOCK, &hits), 0);
	assert_int_equal(kvk_simulation_request(tiny, blocks, 1, 2 * BLOCK, &hits), 0);
	assert_int_equal(counts_of(tiny).refused, 1);
	assert_int_equal(counts_of(tiny).objects, 1);
	/* What is there behind one that is not is not stored again, and finds no room to need. */
	assert_int_equal(kvk_simulation_request(small, (uint64_t[]){ 100, 5 }, 2, BLOCK, &hits), 0);
	assert_int_equal(hits, 0);
	assert_int_equal(counts_of(small).refused, 5);
	assert_int_equal(counts_of(small).written, 10);
	assert_int_equal(kvk_simulation_request(tiny, NULL, 0, BLOCK, &hits), 0);
	assert_int_equal(hits, 0);
	kvk_simulation_free(small);
	kvk_simulation_free(all);
	kvk_simulation_free(tiny);
	kvk_simulation_free(NULL);
}

static void test_bad_input(void **state)
{
	struct kvk_simulation_options options = { .struct_bytes = sizeof(options), .policy = "lru" };
	struct kvk_simulation *simulation = NULL;
	struct kvk_simulation_counts counts = { 0 };
	uint64_t block = 1;

	assert_int_equal(kvk_simulation_new(&simulation, &options), -EINVAL);
	assert_int_equal(kvk_simulation_new(&simulation, NULL), -EINVAL);
	assert_int_equal(kvk_simulation_new(NULL, &options), -EINVAL);
	options.policy = NULL;
	assert_int_equal(kvk_simulation_new(&simulation, &options), -EINVAL);
	options.policy = "LRU";
	options.struct_bytes = 4;
	assert_int_equal(kvk_simulation_new(&simulation, &options), -EINVAL);
	assert_null(simulation);
	simulation = make("LRU", 0);
	assert_int_equal(kvk_simulation_request(simulation, &block, 1, 0, NULL), -EINVAL);
	assert_int_equal(kvk_simulation_request(simulation, &block, 1, KVK_OBJECT_BYTES_MAX + 1, NULL), -EINVAL);
	assert_int_equal(kvk_simulation_counts(simulation, &counts), -EINVAL);
	assert_int_equal(kvk_simulation_counts(simulation, NULL), -EINVAL);
	assert_int_equal(kvk_simulation_request(simulation, &block, 1, KVK_OBJECT_BYTES_MAX, NULL), 0);
	kvk_simulation_free(simulation);
}

/* Whatever allocation fails is said, and what went before stays true. */
static void test_short_memory(void **state)
{
	struct kvk_simulation_options options = { .struct_bytes = sizeof(options), .policy = "ARC", .cap_bytes = 100 * BLOCK };
	uint64_t nth = 0;
	bool failed;

	do {
		struct kvk_simulation *simulation = NULL;
		uint64_t blocks[DEPTH_MAX], random = 1;
		int err;

		kvk_mem_fail_nth(++nth, false);
		err = kvk_simulation_new(&simulation, &options);
		for (uint32_t i = 0; i < 200 && !err; i++) {
			uint32_t count = request_of(&random, blocks);

			err = kvk_simulation_request(simulation, blocks, count, BLOCK, NULL);
		}
		failed = kvk_mem_has_failed();
		kvk_mem_fail_nth(0, false);
		assert_true(err == 0 || (err == -ENOMEM && failed));
		if (simulation)
			assert_in_range(counts_of(simulation).used_bytes, 0, 100 * BLOCK);
		kvk_simulation_free(simulation);
	} while (failed);
	assert_true(nth > 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lru),
		cmocka_unit_test(test_every_policy_keeps_to_the_cap),
		cmocka_unit_test(test_noop_and_no_cap),
		cmocka_unit_test(test_bad_input),
		cmocka_unit_test(test_short_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
