/* SPDX-License-Identifier: Apache-2.0 */
/* Files without a footer that LMCache left in a folder before a store took it: when they count, and what of them is delivered. */
#include "bent_bed.h"

#define BYTES 20000u
#define LMCACHE_KEY "m@00000000@0@01"
#define OTHERS 7

static struct ask get(struct bench *bench, const char *key, bool whole)
{
	struct ask ask;

	ask_init(&ask, bench, key, BYTES, 0);
	ask.request.deliver = whole;
	ask_run(&ask, bench, whole ? start_get : start_find);
	ask_end(&ask);
	return ask;
}

static void expect(const struct ask *ask, const char *what, int status, uint32_t reason)
{
	if (ask->request.status != status || ask->request.reason != reason)
		fail_msg("%s: %d, reason %u; wanted %d, %u", what, ask->request.status, ask->request.reason, status, reason);
	assert_int_equal(ask->request.outcome, status ? KVK_OUTCOME_NONE : KVK_OUTCOME_FOUND);
}

#define EXPECT(call, status, reason) do { \
		struct ask ask_ = (call); \
		expect(&ask_, #call, (status), (reason)); \
	} while (0)

static unsigned quarantined(struct bench *bench)
{
	return bent_count(&bench->bent, ".kvkeep/quarantine");
}

static void born_before(struct bent *bent, struct kvk_xfer *xfer)
{
	xfer->stat.born_ns = 1000;
}

static void born_after(struct bent *bent, struct kvk_xfer *xfer)
{
	xfer->stat.born_ns = 3000;
}

static void born_never(struct bent *bent, struct kvk_xfer *xfer)
{
	xfer->stat.born_ns = 0;
}

static void adopt(struct bench *bench, bool accept, bool direct, uint64_t bytes)
{
	char name[KVK_NAME_BYTES_MAX];
	uint8_t *data = malloc(bytes + 1);

	bench_open(bench, KVK_DURABILITY_NONE, KVK_NAMING_LMCACHE);
	bench->bent.base.caps.direct = direct;
	bench->options.accept_unverified = accept;
	assert_int_equal(kvk_dynamic_open(&bench->adapter, &bench->options), 0);
	assert_non_null(data);
	ask_fill(data, bytes, LMCACHE_KEY, OTHERS);
	bench_name(bench, name, LMCACHE_KEY);
	bent_file(&bench->bent, name, data, bytes);
	free(data);
}

/* Without a footer: what was there before the store took the folder is adopted if that was asked for; anything else is damaged. */
static void test_adopted(void **state)
{
	static const uint64_t lengths[] = { BYTES, 20480, 100, 4096 };

	for (unsigned way = 0; way < 16; way++) {
		bool accept = way & 1, direct = way & 2;
		uint64_t bytes = lengths[way / 4];
		struct bench bench;
		struct ask ask;

		adopt(&bench, accept, direct, bytes);
		for (int whole = 0; whole < 2; whole++) {
			ask_init(&ask, &bench, LMCACHE_KEY, bytes, 0);
			ask.request.deliver = whole;
			BEND(&bench.bent, .call = KVK_XFER_OPEN, .nth = 1, .every = true, .after = born_before);
			ask_run(&ask, &bench, whole ? start_get : start_find);
			if (!accept) {
				expect(&ask, "not accepted", -ENOENT, KVK_REASON_FOREIGN);
			} else {
				expect(&ask, "accepted", 0, KVK_REASON_NONE);
				assert_true(ask.request.facts.unverified);
				assert_int_equal(ask.request.facts.logical_bytes, bytes);
				assert_int_equal(ask.request.moved_bytes, whole ? bytes : 0);
			}
			ask_end(&ask);
		}
		assert_int_equal(atomic_load(&bench.adapter->counts.unverified), accept);
		/* To look at all of it nobody has to have room. */
		if (accept) {
			ask_init(&ask, &bench, LMCACHE_KEY, 0, 0);
			ask_run(&ask, &bench, start_get);
			expect(&ask, "looked at", 0, KVK_REASON_NONE);
			ask_end(&ask);
		}
		/* Another length is another object's, as far as can be known. */
		if (accept) {
			BEND(&bench.bent, .call = KVK_XFER_OPEN, .nth = 1, .every = true, .after = born_before);
			ask_init(&ask, &bench, LMCACHE_KEY, bytes + 1, 0);
			ask.request.deliver = true;
			ask_run(&ask, &bench, start_get);
			expect(&ask, "another length", -ENOENT, KVK_REASON_COLLISION);
			ask_end(&ask);
		}
		bench_close(&bench);
	}
}

/* A part of an adopted file, and nothing beyond its end. */
static void test_part_of_adopted(void **state)
{
	static const struct { uint64_t offset, range; int status; } rows[] = {
		{ 5000, 3000, 0 }, { 0, BYTES, 0 }, { BYTES, 0, -ENOENT }, { BYTES - 1, 2, -EINVAL }, { BYTES + 1, 1, -EINVAL },
	};
	struct bench bench;

	adopt(&bench, true, false, BYTES);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint8_t expected[BYTES];
		struct ask ask;

		BEND(&bench.bent, .call = KVK_XFER_OPEN, .nth = 1, .every = true, .after = born_before);
		ask_fill(expected, BYTES, LMCACHE_KEY, OTHERS);
		ask_init(&ask, &bench, LMCACHE_KEY, BYTES + 1, 0);
		ask.request.deliver = true;
		ask.request.offset_bytes = rows[i].offset;
		ask.request.range_bytes = rows[i].range;
		ask_run(&ask, &bench, start_get);
		assert_int_equal(ask.request.status, rows[i].status);
		if (!rows[i].status)
			assert_memory_equal(ask.data, expected + rows[i].offset, rows[i].range);
		ask_end(&ask);
	}
	bench_close(&bench);
}

/* Nothing without bytes was adopted, nothing whose age nobody knows, and nothing that is younger than the store. */
static void test_not_adopted(void **state)
{
	static void (*const ages[])(struct bent *bent, struct kvk_xfer *xfer) = { born_after, born_never, born_before };

	for (size_t i = 0; i < 3; i++) {
		struct bench bench;

		adopt(&bench, true, false, i == 2 ? 0 : BYTES);
		BEND(&bench.bent, .call = KVK_XFER_OPEN, .nth = 1, .every = true, .after = ages[i]);
		EXPECT(get(&bench, LMCACHE_KEY, true), -EBADMSG, KVK_REASON_DAMAGED);
		assert_int_equal(quarantined(&bench), 1);
		bench_close(&bench);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_adopted),
		cmocka_unit_test(test_part_of_adopted),
		cmocka_unit_test(test_not_adopted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
