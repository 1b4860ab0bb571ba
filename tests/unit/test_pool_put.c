/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every way through a put in a pool, one call of the medium bent at a time, or two: what it answers, what it says that was charged and
 * given back, and what becomes of the slots. None is used twice, and none is lost without being told.
 */
#include "adapter/pool/pool.h"
#include "bent_bed.h"

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

/* ---- puts --------------------------------------------------------------------------------------- */

enum prior { NOTHING = 0, SOUND, DAMAGED };

struct row {
	const char *name;
	enum kvk_durability durability;
	enum prior prior;
	bool judge_first;
	struct bend bends[3];
	int status;
	uint32_t reason;
	enum kvk_outcome outcome;
	int after;                     /* the generation that is found then, or -errno */
	unsigned free, lost;           /* slots, of ten */
	bool published, unlinked, durable;
};

#define FAILS(op, at, number) { .call = (op), .nth = (at), .error = -(number) }
#define OBJECT .durability = KVK_DURABILITY_OBJECT
#define STORED .outcome = KVK_OUTCOME_WRITTEN, .after = OURS, .free = 7, .published = true
#define FOUND .reason = KVK_REASON_PRESENT, .outcome = KVK_OUTCOME_FOUND, .after = OTHERS, .free = 7
#define MEDIUM .status = -EIO, .reason = KVK_REASON_MEDIUM
#define NOT_DURABLE .status = -EIO, .reason = KVK_REASON_NOT_DURABLE
#define BUSY .status = -EALREADY, .reason = KVK_REASON_BUSY
#define LATE .status = -ETIMEDOUT, .reason = KVK_REASON_DEADLINE
#define CANCELED .status = -ECANCELED, .reason = KVK_REASON_CANCELED
#define NONE_LEFT .after = -ENOENT, .free = 10
#define THREE_LOST .after = -ENOENT, .free = 7, .lost = 3
#define NEVER(op) { .call = (op), .nth = 2, .every = true, .error = -EIO }

static void another_fails(struct bent *bent, struct kvk_xfer *xfer)
{
	kvk_sync_tell(&bent->base.syncs, -EIO);
}

static const struct row rows[] = {
	{ "stored", STORED },
	{ "stored, durable", OBJECT, STORED, .durable = true },
	{ "it cannot be written", .bends = { FAILS(KVK_XFER_WRITE, 1, EIO) }, MEDIUM, NONE_LEFT },
	{ "it cannot be written, and its footer not zeroed", .bends = { FAILS(KVK_XFER_WRITE, 1, EIO), NEVER(KVK_XFER_WRITE) }, MEDIUM,
	  THREE_LOST },
	{ "its footer is zeroed at the second try", .bends = { FAILS(KVK_XFER_WRITE, 1, EIO), FAILS(KVK_XFER_WRITE, 2, EIO) }, MEDIUM,
	  NONE_LEFT },
	{ "it cannot be synced", OBJECT, .bends = { FAILS(KVK_XFER_SYNC, 1, EIO) }, NOT_DURABLE, THREE_LOST },
	{ "its sync is not asked for", OBJECT, .bends = { FAILS(KVK_XFER_SYNC, 1, ECANCELED) }, NOT_DURABLE, NONE_LEFT },
	{ "its sync is not asked for, and another fails", OBJECT, .bends = { { .call = KVK_XFER_SYNC, .nth = 1, .error = -ECANCELED,
	  .before = another_fails } }, NOT_DURABLE, THREE_LOST },
	{ "late", .bends = { { .call = KVK_XFER_WRITE, .nth = 1, .after = bent_is_late } }, LATE, NONE_LEFT },
	{ "canceled", .bends = { { .call = KVK_XFER_WRITE, .nth = 1, .after = bent_cancels } }, CANCELED, NONE_LEFT },
	{ "canceled, and the zeroing with it", .bends = { { .call = KVK_XFER_WRITE, .nth = 1, .after = bent_cancels },
	  FAILS(KVK_XFER_WRITE, 2, ECANCELED) }, CANCELED, NONE_LEFT },
	{ "canceled, and never zeroed", .bends = { { .call = KVK_XFER_WRITE, .nth = 1, .after = bent_cancels },
	  FAILS(KVK_XFER_WRITE, 2, EIO), { .call = KVK_XFER_WRITE, .nth = 3, .every = true, .error = -ECANCELED } }, CANCELED, THREE_LOST },

	{ "found", .prior = SOUND, FOUND },
	{ "found, first", .prior = SOUND, .judge_first = true, FOUND },
	{ "found, durable", OBJECT, .prior = SOUND, FOUND, .durable = true },
	{ "nothing is there, first", .judge_first = true, BUSY, .outcome = KVK_OUTCOME_UNWRITTEN, NONE_LEFT },
	{ "it cannot be read", .prior = SOUND, .bends = { { .call = KVK_XFER_READ, .nth = 1, .every = true, .error = -EIO } }, MEDIUM,
	  .after = OTHERS, .free = 7 },
	{ "damaged, and written anew", .prior = DAMAGED, STORED, .unlinked = true },
	{ "damaged, first", .prior = DAMAGED, .judge_first = true, BUSY, .outcome = KVK_OUTCOME_UNWRITTEN, NONE_LEFT, .unlinked = true },
	{ "damaged, and it cannot be zeroed", .prior = DAMAGED,
	  .bends = { { .call = KVK_XFER_WRITE, .nth = 1, .every = true, .error = -EIO } },
	  MEDIUM, .after = -EBADMSG, .free = 7 },
	{ "found and not synced", OBJECT, .prior = SOUND, .bends = { FAILS(KVK_XFER_SYNC, 1, EIO) }, NOT_DURABLE,
	  .outcome = KVK_OUTCOME_FOUND, .after = OTHERS, .free = 7 },
	{ "found and not synced, first", OBJECT, .prior = SOUND, .judge_first = true, .bends = { FAILS(KVK_XFER_SYNC, 1, EIO) }, NOT_DURABLE,
	  .outcome = KVK_OUTCOME_FOUND, .after = OTHERS, .free = 7 },
};

static void run_row(const struct row *row)
{
	struct kvk_request *request;
	struct bench bench;
	unsigned bends = 0;
	struct ask ask;
	int after;

	bench_open_pool(&bench, row->durability, 10);
	if (row->prior != NOTHING)
		assert_int_equal(bench_put(&bench, KEY, BYTES, OTHERS), 0);
	if (row->prior == DAMAGED)
		flip(&bench, END_BYTES - 100);
	while (bends < 3 && row->bends[bends].nth)
		bends++;
	bent_set(&bench.bent, row->bends, bends);
	ask_init(&ask, &bench, KEY, BYTES, OURS);
	ask.request.judge_first = row->judge_first;
	ask_run(&ask, &bench, start_put);
	request = &ask.request;
	if (ask.answered != row->status || (row->status != -ETIMEDOUT && request->reason != row->reason) ||
	    request->outcome != row->outcome)
		fail_msg("%s: %d, %u, outcome %d; wanted %d, %u, %d", row->name, ask.answered, request->reason, request->outcome,
			 row->status, row->reason, row->outcome);
	if (bench.bent.struck < bends)
		fail_msg("%s: %u of %u were struck", row->name, bench.bent.struck, bends);
	if (request->published_bytes != (row->published ? RUN_BYTES : 0) ||
	    request->unlinked_bytes != (row->unlinked ? RUN_BYTES : 0) || (row->status == 0 && request->facts.durable != row->durable))
		fail_msg("%s: %llu published, %llu unlinked, durable %d", row->name, (unsigned long long)request->published_bytes,
			 (unsigned long long)request->unlinked_bytes, request->facts.durable);
	ask_end(&ask);
	STRAIGHT(&bench.bent);
	expect_slots(&bench, row->name, row->free, row->lost);
	after = bench_get(&bench, KEY, BYTES);
	if (after != row->after)
		fail_msg("%s: afterwards %d; wanted %d", row->name, after, row->after);
	bench_close(&bench);
}

static void test_every_way(void **state)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		run_row(&rows[i]);
}

/* What is there is as good as before if the sync of it was canceled as it waited, and the next put of it is believed. */
static void test_not_asked(void **state)
{
	struct bench bench;
	struct ask ask;

	bench_open_pool(&bench, KVK_DURABILITY_OBJECT, 10);
	assert_int_equal(bench_put(&bench, KEY, BYTES, OTHERS), 0);
	BEND(&bench.bent, .call = KVK_XFER_SYNC, .nth = 1, .error = -ECANCELED);
	assert_int_equal(bench_put(&bench, KEY, BYTES, OURS), -EIO);
	ask_init(&ask, &bench, KEY, BYTES, OURS);
	ask_run(&ask, &bench, start_put);
	assert_int_equal(ask.request.status, 0);
	assert_int_equal(ask.request.outcome, KVK_OUTCOME_FOUND);
	assert_true(ask.request.facts.durable);
	ask_end(&ask);
	bench_close(&bench);
}

/* Longer than a file, than what is free, and than any run of what is free. */
static void test_no_room(void **state)
{
	struct bench bench;
	struct ask ask;

	bench_open_pool(&bench, KVK_DURABILITY_NONE, 15);
	assert_int_equal(bench_put(&bench, KEY, 10 * BENCH_SLOT_BYTES, OURS), -EFBIG);
	assert_int_equal(bench_put(&bench, KEY, 20 * BENCH_SLOT_BYTES, OURS), -EFBIG);
	assert_int_equal(bench_put(&bench, "a", 7 * BENCH_SLOT_BYTES, OURS), 0);
	for (int side_by_side = 0; side_by_side < 2; side_by_side++) {
		ask_init(&ask, &bench, KEY, (side_by_side ? 5 : 7) * BENCH_SLOT_BYTES, OURS);
		ask_run(&ask, &bench, start_put);
		assert_int_equal(ask.request.status, -ENOSPC);
		assert_int_equal(ask.request.reason, KVK_REASON_NO_ROOM);
		assert_int_equal(ask.request.outcome, KVK_OUTCOME_NO_RUN);
		ask_end(&ask);
	}
	expect_slots(&bench, "no room", 7, 0);
	bench_close(&bench);
}

static void test_no_memory(void **state)
{
	struct bench bench;
	uint64_t nth = 0;
	struct ask ask;
	int status;

	bench_open_pool(&bench, KVK_DURABILITY_NONE, 10);
	do {
		ask_init(&ask, &bench, KEY, BYTES, OURS);
		kvk_mem_fail_nth(++nth, false);
		ask_run(&ask, &bench, start_put);
		kvk_mem_fail_nth(0, false);
		status = ask.request.status;
		ask_end(&ask);
		expect_slots(&bench, "no memory", status ? 10 : 7, 0);
		assert_int_equal(bench_get(&bench, KEY, BYTES), status ? -ENOENT : OURS);
		if (status)
			assert_int_equal(status, -ENOMEM);
	} while (status);
	assert_true(nth > 2);
	for (int how = 0; how < 2; how++) {
		ask_init(&ask, &bench, KEY, BYTES, 0);
		kvk_mem_fail_nth(1, false);
		ask_run(&ask, &bench, how ? start_get : start_remove);
		kvk_mem_fail_nth(0, false);
		assert_int_equal(ask.request.status, -ENOMEM);
		assert_int_equal(ask.request.reason, KVK_REASON_NO_MEMORY);
		ask_end(&ask);
	}
	bench_close(&bench);
}

/* Longer than a transfer: the footer goes out when all before it has been written, and not if that failed. */
static void test_in_pieces(void **state)
{
	uint64_t bytes = 5 << 20;

	for (unsigned nth = 0; nth < 8; nth++) {
		struct bench bench;
		int status;

		bench_open(&bench, KVK_DURABILITY_NONE, KVK_NAMING_KVKEEP);
		bench.shape = (struct kvk_pool_shape){ .slot_bytes = 8 << 20, .slots = 2, .file_slots = 2, .opens = 1 };
		bench.options.pool = &bench.shape;
		bench.options.log = &(struct kvk_log_sink){ 0 };
		assert_int_equal(bench_try_pool(&bench, NULL), 0);
		BEND(&bench.bent, .call = KVK_XFER_WRITE, .nth = nth, .error = -EIO);
		status = bench_put(&bench, KEY, bytes, OURS);
		assert_int_equal(status, bench.bent.struck ? -EIO : 0);
		STRAIGHT(&bench.bent);
		assert_int_equal(bench_get(&bench, KEY, bytes), status ? -ENOENT : OURS);
		expect_slots(&bench, "in pieces", status ? 2 : 1, 0);
		bench_close(&bench);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_way),
		cmocka_unit_test(test_not_asked),
		cmocka_unit_test(test_no_room),
		cmocka_unit_test(test_no_memory),
		cmocka_unit_test(test_in_pieces),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
