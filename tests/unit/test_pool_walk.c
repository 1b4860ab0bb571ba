/* SPDX-License-Identifier: Apache-2.0 */
/* Walks over a pool: lists, scans, and what would fit; on a medium that fails, and while objects leave. */
#include "adapter/pool/pool.h"
#include "bent_bed.h"
#include "seal.h"

#define BYTES 20000u

static bool count_listed(void *user, const struct kvk_listed *listed)
{
	++*(unsigned *)user;
	return *(unsigned *)user != 100;
}

static bool count_scanned(void *user, const struct kvk_scanned *scanned)
{
	++*(unsigned *)user;
	return *(unsigned *)user != 100;
}

static void leaves(struct bent *bent, struct kvk_xfer *xfer)
{
	struct kvk_evictee evictee;
	struct bench *bench = kvk_container_of(bent, struct bench, bent);

	memset(&evictee, 0, sizeof(evictee));
	memcpy(evictee.prefix, bent->data, sizeof(evictee.prefix));
	bench->adapter->ops->evict(bench->adapter, 0, &evictee, 1);
}

#define AT_GENERATION 72

/* The footer in the first slot says the neighbouring generation, or, the second time, its own again. */
static void other_generation(struct bench *bench)
{
	uint64_t at = KVK_POOL_HEAD_BYTES + BENCH_SLOT_BYTES - KVK_PAGE_BYTES, bytes;
	uint8_t *file = bent_read(&bench->bent, "pool-00000.slots", &bytes), footer[KVK_PAGE_BYTES];

	memcpy(footer, file + at, sizeof(footer));
	footer[AT_GENERATION] ^= 1;
	seal_footer(footer, sizeof(footer));
	for (unsigned i = 0; i < sizeof(footer); i++) {
		if (footer[i] != file[at + i])
			bent_xor(&bench->bent, "pool-00000.slots", at + i, footer[i] ^ file[at + i]);
	}
	free(file);
}

/* Objects come and go while a scan goes on: it says so. */
static bool leaves_at_once(void *user, const struct kvk_scanned *scanned)
{
	struct bench *bench = user;
	struct kvk_evictee evictee;

	memcpy(evictee.prefix, scanned->id, sizeof(evictee.prefix));
	assert_int_equal(bench->adapter->ops->evict(bench->adapter, 0, &evictee, 1), 0);
	return true;
}

/* A scan of what changed a moment ago, or changes, is not final; the time of day does not matter. */
static void test_quiet(void **state)
{
	uint64_t modified_ns, now_ns = UINT64_C(1000000000000);
	struct kvk_pool *pool;
	struct bench bench;
	unsigned count = 0;

	bench_open_pool(&bench, KVK_DURABILITY_NONE, 8);
	pool = kvk_pool_of(bench.adapter);
	assert_int_equal(bench_put(&bench, "a", 100, 1), 0);
	/* It was set back by an hour since. */
	atomic_store(&pool->changed_ns, kvk_wall_ns() + UINT64_C(3600000000000));
	assert_int_equal(bench.adapter->ops->scan(bench.adapter, 0, count_scanned, &count, &modified_ns), -EAGAIN);
	atomic_store(&pool->changed_us, kvk_now_us() - 10000000);
	bench.bent.now_ns = now_ns;
	assert_int_equal(bench.adapter->ops->scan(bench.adapter, 0, count_scanned, &count, &modified_ns), 0);
	assert_in_range(modified_ns, now_ns - UINT64_C(100000000000), now_ns - UINT64_C(9999999999));
	/* A medium whose clock has only begun. */
	bench.bent.now_ns = 5;
	assert_int_equal(bench.adapter->ops->scan(bench.adapter, 0, count_scanned, &count, &modified_ns), 0);
	assert_int_equal(modified_ns, 0);
	assert_int_equal(bench.adapter->ops->scan(bench.adapter, 0, leaves_at_once, &bench, &modified_ns), -EAGAIN);
	bench_close(&bench);
}

static void test_walks(void **state)
{
	uint8_t digest[KVK_DIGEST_BYTES];
	struct kvk_listed listed;
	struct bench bench;
	uint64_t modified_ns, stamp;
	unsigned count;

	bench_open_pool(&bench, KVK_DURABILITY_NONE, 8);
	assert_int_equal(bench_put(&bench, "a", 100, 1), 0);
	assert_int_equal(bench_put(&bench, "b", 100, 1), 0);
	assert_int_equal(kvk_key_digest(digest, bench.namespace_digest, "a", 1), 0);

	count = 0;
	assert_int_equal(bench.adapter->ops->list(bench.adapter, NULL, count_listed, &count), 0);
	assert_int_equal(count, 2);
	count = 0;
	assert_int_equal(bench.adapter->ops->list(bench.adapter, "slot-00000000", count_listed, &count), 0);
	assert_int_equal(count, 1);
	count = 0;
	assert_int_equal(bench.adapter->ops->list(bench.adapter, "slot-ffffffff", count_listed, &count), 0);
	assert_int_equal(count, 0);
	count = 0;
	assert_int_equal(bench.adapter->ops->list(bench.adapter, "no name", count_listed, &count), 0);
	assert_int_equal(count, 2);
	count = 99;
	assert_int_equal(bench.adapter->ops->list(bench.adapter, NULL, count_listed, &count), 1);
	for (uint64_t nth = 1; nth < 3; nth++) {
		count = 0;
		kvk_mem_fail_nth(nth, false);
		assert_int_equal(bench.adapter->ops->list(bench.adapter, NULL, count_listed, &count), -ENOMEM);
		kvk_mem_fail_nth(0, false);
		assert_int_equal(count, 0);
	}
	/* An error of the medium shows as damage; a footer that is none, too. */
	BEND(&bench.bent, .call = KVK_XFER_READ, .nth = 1, .error = -EIO);
	assert_int_equal(bench.adapter->ops->inspect(bench.adapter, "slot-00000000", &listed), 0);
	assert_int_equal(listed.state, KVK_OBJECT_DAMAGED);
	BEND(&bench.bent, .call = KVK_XFER_READ, .nth = 1, .error = -ENOMEM);
	assert_int_equal(bench.adapter->ops->inspect(bench.adapter, "slot-00000000", &listed), -ENOMEM);

	/* A footer that says that it is longer than its run, and one that is not what was put there last. */
	bent_xor(&bench.bent, "pool-00000.slots", KVK_POOL_HEAD_BYTES + BENCH_SLOT_BYTES - 15, 0x20);
	assert_int_equal(bench.adapter->ops->inspect(bench.adapter, "slot-00000000", &listed), 0);
	assert_int_equal(listed.state, KVK_OBJECT_DAMAGED);
	bent_xor(&bench.bent, "pool-00000.slots", KVK_POOL_HEAD_BYTES + BENCH_SLOT_BYTES - 15, 0x20);
	other_generation(&bench);
	assert_int_equal(bench.adapter->ops->inspect(bench.adapter, "slot-00000000", &listed), 0);
	assert_int_equal(listed.state, KVK_OBJECT_DAMAGED);
	other_generation(&bench);
	assert_int_equal(bench.adapter->ops->inspect(bench.adapter, "slot-00000000", &listed), 0);
	assert_int_equal(listed.state, KVK_OBJECT_PRESENT);

	/* Scans: all of them in bucket 0, and nothing in the others. */
	count = 0;
	bench.adapter->ops->scan(bench.adapter, 0, count_scanned, &count, &modified_ns);
	assert_int_equal(count, 2);
	count = 0;
	bench.adapter->ops->scan(bench.adapter, 1, count_scanned, &count, &modified_ns);
	assert_int_equal(count, 0);
	count = 99;
	bench.adapter->ops->scan(bench.adapter, 0, count_scanned, &count, &modified_ns);
	assert_int_equal(count, 100);
	BEND(&bench.bent, .call = BENT_NOW, .nth = 1, .error = -EIO);
	assert_int_equal(bench.adapter->ops->scan(bench.adapter, 0, count_scanned, &count, &modified_ns), -EIO);
	for (uint32_t bucket = 0; bucket < 2; bucket++) {
		assert_int_equal(bench.adapter->ops->bucket_time(bench.adapter, bucket, &modified_ns, &stamp), 0);
		assert_int_equal(stamp == 0, bucket);
		assert_int_equal(modified_ns == 0, bucket);
	}
	/* One that leaves while it is looked at. */
	bench.bent.data = digest;
	BEND(&bench.bent, .call = KVK_XFER_READ, .nth = 1, .before = leaves);
	count = 0;
	assert_int_equal(bench.adapter->ops->list(bench.adapter, NULL, count_listed, &count), 0);
	assert_int_equal(count, 1);
	assert_int_equal(kvk_key_digest(digest, bench.namespace_digest, "b", 1), 0);
	BEND(&bench.bent, .call = KVK_XFER_READ, .nth = 1, .before = leaves);
	assert_int_equal(bench.adapter->ops->inspect(bench.adapter, "slot-00000001", &listed), -ENOENT);
	bench_close(&bench);
}

/* What would fit if all went that may. */
static bool may_all(void *user, const uint8_t prefix[16])
{
	return !user || memcmp(user, prefix, 16);
}

static void test_could_fit(void **state)
{
	uint8_t digest[KVK_DIGEST_BYTES];
	struct kvk_run run;
	struct bench bench;

	bench_open_pool(&bench, KVK_DURABILITY_NONE, 15);
	assert_int_equal(bench_put(&bench, "a", BYTES, 1), 0);
	assert_int_equal(bench_put(&bench, "b", BYTES, 1), 0);
	assert_int_equal(kvk_key_digest(digest, bench.namespace_digest, "b", 1), 0);
	assert_true(bench.adapter->ops->could_fit(bench.adapter, 10 * BENCH_SLOT_BYTES, may_all, NULL));
	assert_false(bench.adapter->ops->could_fit(bench.adapter, 11 * BENCH_SLOT_BYTES, may_all, NULL));
	assert_true(bench.adapter->ops->could_fit(bench.adapter, 5 * BENCH_SLOT_BYTES, may_all, digest));
	assert_false(bench.adapter->ops->could_fit(bench.adapter, 6 * BENCH_SLOT_BYTES, may_all, digest));
	/* What is being written stays where it is. */
	assert_int_equal(kvk_pool_map_take(&kvk_pool_of(bench.adapter)->map, (const uint8_t[16]){ 1 }, 1, &run), 0);
	assert_true(bench.adapter->ops->could_fit(bench.adapter, 6 * BENCH_SLOT_BYTES, may_all, NULL));
	assert_false(bench.adapter->ops->could_fit(bench.adapter, 7 * BENCH_SLOT_BYTES, may_all, NULL));
	bench_close(&bench);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_quiet),
		cmocka_unit_test(test_walks),
		cmocka_unit_test(test_could_fit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
