/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every way through a get, a find and a remove in a pool, and what others do between the steps of a put: what is answered, and what
 * becomes of the slots.
 */
#include "adapter/pool/pool.h"
#include "bent_bed.h"
#include "seal.h"

#define BYTES 20000u
#define RUN_BYTES (3 * BENCH_SLOT_BYTES)
#define KEY "key"
/* The generations of what was there once, and of what is put. */
#define OTHERS 7
#define OURS 8

static struct kvk_slots slots_of(struct bench *bench)
{
	struct kvk_slots slots;

	bench->adapter->ops->slots(bench->adapter, &slots);
	return slots;
}

static void expect_slots(struct bench *bench, const char *what, uint64_t free_slots, uint64_t lost_slots)
{
	struct kvk_slots slots = slots_of(bench);

	if (slots.free_slots != free_slots || slots.lost_slots != lost_slots)
		fail_msg("%s: %llu slots are free, %llu lost; wanted %llu, %llu", what, (unsigned long long)slots.free_slots,
			 (unsigned long long)slots.lost_slots, (unsigned long long)free_slots, (unsigned long long)lost_slots);
}

/* The byte of the first file behind the first run. */
#define END_BYTES (KVK_POOL_HEAD_BYTES + RUN_BYTES)

static void flip(struct bench *bench, uint64_t offset_bytes)
{
	bent_flip(&bench->bent, "pool-00000.slots", offset_bytes);
}

#define FAILS(op, at, number) { .call = (op), .nth = (at), .error = -(number) }

/* ---- whose it is -------------------------------------------------------------------------------- */

static struct ask ask_for(struct bench *bench, void (*start)(struct kvk_op *op), bool keep)
{
	struct ask ask;

	ask_init(&ask, bench, KEY, BYTES, start == start_put ? OURS : 0);
	ask.request.deliver = start == start_get;
	ask.request.keep = keep;
	ask_run(&ask, bench, start);
	ask_end(&ask);
	return ask;
}

static void expect(const struct ask *ask, const char *what, int status, uint32_t reason)
{
	if (ask->request.status != status || ask->request.reason != reason)
		fail_msg("%s: %d, reason %u; wanted %d, %u", what, ask->request.status, ask->request.reason, status, reason);
}

#define EXPECT(call, status, reason) do { \
		struct ask ask_ = (call); \
		expect(&ask_, #call, (status), (reason)); \
	} while (0)

/* Two keys whose digests begin alike, and one that is longer: the second is told so, and the first stays. */
static void test_collision(void **state)
{
	static void (*const starts[])(struct kvk_op *op) = { start_put, start_get, start_find };
	struct bench bench;

	bench_open_pool(&bench, KVK_DURABILITY_NONE, 10);
	assert_int_equal(bench_put(&bench, KEY, BYTES, OTHERS), 0);
	for (unsigned way = 0; way < 9; way++) {
		struct ask ask;

		ask_init(&ask, &bench, KEY, BYTES, OURS);
		ask.request.deliver = starts[way % 3] == start_get;
		if (way / 3 == 0)
			ask.request.digest[20] ^= 1;
		else if (way / 3 == 1)
			ask.request.key_bytes--;
		else
			ask.request.key = "kez";
		ask_run(&ask, &bench, starts[way % 3]);
		expect(&ask, "collision", way % 3 ? -ENOENT : -EEXIST, KVK_REASON_COLLISION);
		ask_end(&ask);
	}
	assert_int_equal(atomic_load(&bench.adapter->counts.collisions), 9);
	assert_int_equal(bench_get(&bench, KEY, BYTES), OTHERS);
	bench_close(&bench);
}

/* By its digest alone it is found as well. */
static void test_by_digest(void **state)
{
	struct bench bench;
	struct ask ask;

	bench_open_pool(&bench, KVK_DURABILITY_NONE, 10);
	assert_int_equal(bench_put(&bench, KEY, BYTES, OTHERS), 0);
	ask_init(&ask, &bench, KEY, BYTES, 0);
	assert_int_equal(bench.adapter->ops->charge(&ask.request, BYTES), RUN_BYTES);
	assert_int_equal(bench.adapter->ops->buckets(bench.adapter), 1);
	ask.request.key = NULL;
	ask_run(&ask, &bench, start_find);
	assert_int_equal(ask.request.status, 0);
	ask_end(&ask);
	bench_close(&bench);
}

/* Changes the footer of the first run and seals it anew. */
static void forge(struct bench *bench, unsigned at, uint8_t flip)
{
	uint8_t *file;
	uint64_t bytes;
	uint8_t *footer;
	struct iovec iov;
	struct kvk_pool *pool = kvk_pool_of(bench->adapter);
	struct kvk_xfer xfer;

	file = bent_read(&bench->bent, "pool-00000.slots", &bytes);
	footer = file + END_BYTES - KVK_PAGE_BYTES;
	footer[at] ^= flip;
	seal_footer(footer, KVK_PAGE_BYTES);
	iov = (struct iovec){ footer, KVK_PAGE_BYTES };
	kvk_xfer_init(&xfer, KVK_XFER_WRITE, pool->places[0], NULL);
	xfer.iov = &iov;
	xfer.iov_count = 1;
	xfer.offset_bytes = END_BYTES - KVK_PAGE_BYTES;
	bench->bent.inner->ops->run(bench->bent.inner, &xfer);
	assert_int_equal(xfer.result, KVK_PAGE_BYTES);
	free(file);
}

#define AT_VERSION 8
#define AT_GENERATION 72

/* Of a newer version: it is left alone. Not what was put there last: it is forgotten, unless somebody only looks. */
static void test_forged(void **state)
{
	struct bench bench;

	bench_open_pool(&bench, KVK_DURABILITY_NONE, 10);
	assert_int_equal(bench_put(&bench, KEY, BYTES, OTHERS), 0);
	forge(&bench, AT_VERSION, 0x40);
	EXPECT(ask_for(&bench, start_put, false), -EEXIST, KVK_REASON_COLLISION);
	EXPECT(ask_for(&bench, start_get, false), -ENOENT, KVK_REASON_FOREIGN);
	forge(&bench, AT_VERSION, 0x40);
	assert_int_equal(bench_get(&bench, KEY, BYTES), OTHERS);

	forge(&bench, AT_GENERATION, 1);
	EXPECT(ask_for(&bench, start_get, true), -ENOENT, KVK_REASON_ABSENT);
	expect_slots(&bench, "kept", 7, 0);
	EXPECT(ask_for(&bench, start_get, false), -ENOENT, KVK_REASON_ABSENT);
	expect_slots(&bench, "forgotten", 10, 0);
	assert_int_equal(bench_put(&bench, KEY, BYTES, OTHERS), 0);
	forge(&bench, AT_GENERATION, 1);
	EXPECT(ask_for(&bench, start_put, false), 0, KVK_REASON_NONE);
	assert_int_equal(bench_get(&bench, KEY, BYTES), OURS);
	bench_close(&bench);
}

/* ---- others between the steps ------------------------------------------------------------------- */

static struct kvk_pool_map *map_of(struct bent *bent)
{
	return &kvk_pool_of(bent->request->adapter)->map;
}

/* Somebody removes it, while it is read. */
static void leaves(struct bent *bent, struct kvk_xfer *xfer)
{
	struct kvk_evictee evictee;

	memcpy(evictee.prefix, bent->request->digest, sizeof(evictee.prefix));
	bent->request->adapter->ops->evict(bent->request->adapter, 0, &evictee, 1);
}

/* Somebody puts it anew, in the slots behind. */
static void comes(struct bent *bent, struct kvk_xfer *xfer)
{
	struct kvk_run run;

	assert_int_equal(kvk_pool_map_take(map_of(bent), bent->request->digest, 1, &run), 0);
	kvk_pool_map_publish(map_of(bent), &run, 1);
}

/* ... and is not ready. */
static void begins(struct bent *bent, struct kvk_xfer *xfer)
{
	struct kvk_run run;

	assert_int_equal(kvk_pool_map_take(map_of(bent), bent->request->digest, 1, &run), 0);
}

static void test_left_while_it_is_judged(void **state)
{
	struct bench bench;

	bench_open_pool(&bench, KVK_DURABILITY_NONE, 10);
	assert_int_equal(bench_put(&bench, KEY, BYTES, OTHERS), 0);
	BEND(&bench.bent, .call = KVK_XFER_READ, .nth = 1, .before = leaves);
	EXPECT(ask_for(&bench, start_put, false), 0, KVK_REASON_NONE);
	assert_int_equal(bench_get(&bench, KEY, BYTES), OURS);
	expect_slots(&bench, "put", 7, 0);
	BEND(&bench.bent, .call = KVK_XFER_READ, .nth = 1, .before = leaves);
	EXPECT(ask_for(&bench, start_get, false), -ENOENT, KVK_REASON_ABSENT);
	expect_slots(&bench, "get", 10, 0);
	/* Forgotten by the second who reads it. */
	assert_int_equal(bench_put(&bench, KEY, BYTES, OTHERS), 0);
	forge(&bench, AT_GENERATION, 1);
	BEND(&bench.bent, .call = KVK_XFER_READ, .nth = 1, .after = leaves);
	EXPECT(ask_for(&bench, start_get, false), -ENOENT, KVK_REASON_ABSENT);
	expect_slots(&bench, "forgotten", 10, 0);
	bench_close(&bench);
}

/* Over and over there is something damaged under the key: it gives up, and says so. */
static void test_never_ending(void **state)
{
	struct bench bench;
	struct ask ask;

	bench_open_pool(&bench, KVK_DURABILITY_NONE, 10);
	assert_int_equal(bench_put(&bench, KEY, BYTES, OTHERS), 0);
	flip(&bench, END_BYTES - 100);
	BEND(&bench.bent, .call = KVK_XFER_WRITE, .nth = 1, .every = true, .after = comes);
	ask = ask_for(&bench, start_put, false);
	expect(&ask, "never ending", -EALREADY, KVK_REASON_BUSY);
	assert_int_equal(ask.request.outcome, KVK_OUTCOME_NONE);
	bench_close(&bench);

	/* Another puts it at the same time. */
	bench_open_pool(&bench, KVK_DURABILITY_NONE, 10);
	assert_int_equal(bench_put(&bench, KEY, BYTES, OTHERS), 0);
	flip(&bench, END_BYTES - 100);
	BEND(&bench.bent, .call = KVK_XFER_WRITE, .nth = 1, .after = begins);
	EXPECT(ask_for(&bench, start_put, false), -EALREADY, KVK_REASON_BUSY);
	bench_close(&bench);
}

/* ---- gets --------------------------------------------------------------------------------------- */

static void test_damaged(void **state)
{
	struct bench bench;
	struct ask ask;

	bench_open_pool(&bench, KVK_DURABILITY_NONE, 10);
	assert_int_equal(bench_put(&bench, KEY, BYTES, OTHERS), 0);
	BEND(&bench.bent, .call = KVK_XFER_READ, .nth = 1, .every = true, .error = -EIO);
	EXPECT(ask_for(&bench, start_get, false), -EIO, KVK_REASON_MEDIUM);
	STRAIGHT(&bench.bent);
	flip(&bench, END_BYTES - 100);
	EXPECT(ask_for(&bench, start_get, true), -EBADMSG, KVK_REASON_DAMAGED);
	assert_int_equal(atomic_load(&bench.adapter->counts.rereads), 1);
	/* Its slots are of use again when its footer is zeroed, and not before. */
	BEND(&bench.bent, .call = KVK_XFER_WRITE, .nth = 1, .every = true, .error = -EIO);
	ask = ask_for(&bench, start_get, false);
	expect(&ask, "not zeroed", -EBADMSG, KVK_REASON_DAMAGED);
	assert_true(ask.request.keep);
	assert_int_equal(ask.request.unlinked_bytes, 0);
	expect_slots(&bench, "not zeroed", 7, 0);
	STRAIGHT(&bench.bent);
	ask = ask_for(&bench, start_get, false);
	expect(&ask, "zeroed", -EBADMSG, KVK_REASON_DAMAGED);
	assert_false(ask.request.keep);
	assert_int_equal(ask.request.unlinked_bytes, RUN_BYTES);
	expect_slots(&bench, "zeroed", 10, 0);
	bench_close(&bench);
}

static unsigned agains;

static bool again_once(struct kvk_request *request)
{
	return agains++ == 0;
}

static bool again_and_gone(struct kvk_request *request)
{
	leaves(kvk_container_of(request->adapter->backend, struct bent, base), NULL);
	return true;
}

static void test_again(void **state)
{
	struct bench bench;

	bench_open_pool(&bench, KVK_DURABILITY_NONE, 10);
	assert_int_equal(bench_put(&bench, KEY, BYTES, OTHERS), 0);
	for (int gone = 0; gone < 2; gone++) {
		struct ask ask;

		agains = 0;
		ask_init(&ask, &bench, KEY, BYTES, 0);
		ask.request.again = gone ? again_and_gone : again_once;
		ask_run(&ask, &bench, start_find);
		expect(&ask, "again", gone ? -ENOENT : 0, gone ? KVK_REASON_ABSENT : KVK_REASON_NONE);
		assert_int_equal(ask.request.outcome, gone ? KVK_OUTCOME_NONE : KVK_OUTCOME_FOUND);
		ask_end(&ask);
	}
	expect_slots(&bench, "again", 10, 0);
	bench_close(&bench);
}

/* By name: what begins at that slot, whatever its key. */
static void test_by_name(void **state)
{
	static const struct { const char *name; int status; } names[] = {
		{ "slot-00000000", 0 }, { "slot-00000001", -ENOENT }, { "slot-00000005", -ENOENT }, { "slot-0000000a", -ENOENT },
		{ "slot-ffffffff", -ENOENT }, { "slot-0000000", -ENOENT }, { "slot-0000000g", -ENOENT }, { "plot-00000000", -ENOENT },
		{ "slot-000000000", -ENOENT },
	};
	struct bench bench;

	bench_open_pool(&bench, KVK_DURABILITY_NONE, 10);
	assert_int_equal(bench_put(&bench, KEY, BYTES, OTHERS), 0);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct kvk_listed listed;
		struct ask ask;

		ask_init(&ask, &bench, "another", BYTES, 0);
		ask.request.key = NULL;
		ask.request.name = names[i].name;
		ask_run(&ask, &bench, start_find);
		assert_int_equal(ask.request.status, names[i].status);
		ask_end(&ask);
		assert_int_equal(bench.adapter->ops->inspect(bench.adapter, names[i].name, &listed), names[i].status);
	}
	bench_close(&bench);
}

/* ---- removes ------------------------------------------------------------------------------------ */

static void test_removes(void **state)
{
	struct bench bench;
	struct ask ask;

	bench_open_pool(&bench, KVK_DURABILITY_NONE, 10);
	ask = ask_for(&bench, start_remove, false);
	expect(&ask, "nothing", -ENOENT, KVK_REASON_ABSENT);
	assert_int_equal(bench_put(&bench, KEY, BYTES, OTHERS), 0);
	BEND(&bench.bent, .call = KVK_XFER_WRITE, .nth = 1, .every = true, .error = -EIO);
	ask = ask_for(&bench, start_remove, false);
	expect(&ask, "not zeroed", -EIO, KVK_REASON_MEDIUM);
	assert_int_equal(ask.freed, 0);
	assert_int_equal(bench.adapter->ops->remove_all(bench.adapter), -EIO);
	STRAIGHT(&bench.bent);
	/* The first error is told, and all else goes. */
	assert_int_equal(bench_put(&bench, "third", 100, OTHERS), 0);
	assert_int_equal(bench_put(&bench, "fourth", 100, OTHERS), 0);
	bent_set(&bench.bent, (struct bend[2]){ FAILS(KVK_XFER_WRITE, 1, EIO), FAILS(KVK_XFER_WRITE, 2, EROFS) }, 2);
	assert_int_equal(bench.adapter->ops->remove_all(bench.adapter), -EIO);
	STRAIGHT(&bench.bent);
	assert_int_equal(bench_get(&bench, "third", 100), OTHERS);
	assert_int_equal(bench_get(&bench, "fourth", 100), -ENOENT);
	ask_init(&ask, &bench, "third", 0, 0);
	ask_run(&ask, &bench, start_remove);
	ask_end(&ask);
	assert_int_equal(bench_get(&bench, KEY, BYTES), OTHERS);
	/* Put anew while its footer could not be zeroed: the slots of the old one are lost. */
	bent_set(&bench.bent, (struct bend[2]){ { .call = KVK_XFER_WRITE, .nth = 1, .error = -EIO, .before = begins },
		 { .call = KVK_XFER_WRITE, .nth = 2, .every = true, .error = -EIO } }, 2);
	ask_init(&ask, &bench, KEY, 0, 0);
	ask_run(&ask, &bench, start_remove);
	ask_end(&ask);
	expect(&ask, "put anew", -EIO, KVK_REASON_MEDIUM);
	expect_slots(&bench, "put anew", 6, 3);
	/* What is being put is not removed. */
	ask = ask_for(&bench, start_remove, false);
	expect(&ask, "being put", -ENOENT, KVK_REASON_ABSENT);
	bench_close(&bench);

	bench_open_pool(&bench, KVK_DURABILITY_NONE, 10);
	for (int wanted = 0; wanted < 2; wanted++) {
		assert_int_equal(bench_put(&bench, KEY, BYTES, OTHERS), 0);
		ask_init(&ask, &bench, KEY, 0, 0);
		if (!wanted)
			ask.request.freed = NULL;
		ask_run(&ask, &bench, start_remove);
		ask_end(&ask);
		expect(&ask, "removed", 0, KVK_REASON_NONE);
		assert_int_equal(ask.freed, wanted);
		assert_int_equal(ask.request.unlinked_bytes, RUN_BYTES);
		expect_slots(&bench, "removed", 10, 0);
	}
	bench_close(&bench);
}

/* The coldest that were chosen: one that is gone, and one that cannot be zeroed. */
static void test_evictions(void **state)
{
	struct kvk_evictee evictees[2] = { { .status = 5 }, { .status = 5 } };
	uint8_t digest[KVK_DIGEST_BYTES];
	struct bench bench;

	bench_open_pool(&bench, KVK_DURABILITY_NONE, 10);
	assert_int_equal(bench_put(&bench, KEY, BYTES, OTHERS), 0);
	assert_int_equal(kvk_key_digest(digest, bench.namespace_digest, KEY, strlen(KEY)), 0);
	memcpy(evictees[1].prefix, digest, sizeof(evictees[1].prefix));
	for (int zeroed = 0; zeroed < 2; zeroed++) {
		BEND(&bench.bent, .call = KVK_XFER_WRITE, .nth = 1, .error = zeroed ? 0 : -EIO);
		assert_int_equal(bench.adapter->ops->evict(bench.adapter, 0, evictees, 2), 0);
		assert_int_equal(evictees[0].status, -ENOENT);
		assert_int_equal(evictees[1].status, zeroed ? 0 : -EIO);
		assert_int_equal(evictees[1].freed_bytes, zeroed ? RUN_BYTES : 0);
	}
	bench_close(&bench);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_collision),
		cmocka_unit_test(test_by_digest),
		cmocka_unit_test(test_forged),
		cmocka_unit_test(test_left_while_it_is_judged),
		cmocka_unit_test(test_never_ending),
		cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_again),
		cmocka_unit_test(test_by_name),
		cmocka_unit_test(test_removes),
		cmocka_unit_test(test_evictions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
