/* SPDX-License-Identifier: Apache-2.0 */
/* Which transfers are struck, and what each kind of fault does, through run() and through a ring. */
#include "fault_bed.h"

/* ---- which are struck -------------------------------------------------------------------------------- */

/* 'x' where a SYNC_ALL failed, '.' where not. */
static void strikes(struct fixture *fixture, char *text, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		struct kvk_xfer xfer;

		kvk_xfer_init(&xfer, KVK_XFER_SYNC_ALL, NULL, NULL);
		fixture->fault->ops->run(fixture->fault, &xfer);
		assert_true(xfer.result == 0 || xfer.result == -EIO);
		text[i] = xfer.result ? 'x' : '.';
	}
	text[count] = '\0';
}

static void rules_count(void **state)
{
	const struct {
		uint64_t nth, every, times;
		uint32_t chance_ppm;
		const char *wanted;
	} rows[] = {
		{ 1, 0, 0, 0, "x........." },       { 3, 0, 0, 0, "..x......." }, { 10, 0, 0, 0, ".........x" },
		{ 1, 1, 0, 0, "xxxxxxxxxx" },       { 3, 1, 0, 0, "..xxxxxxxx" }, { 2, 3, 0, 0, ".x..x..x.." },
		{ 2, 3, 2, 0, ".x..x....." },       { 1, 1, 4, 0, "xxxx......" }, { 11, 1, 0, 0, ".........." },
		{ 0, 0, 0, 1000000, "xxxxxxxxxx" }, { 0, 0, 3, 1000000, "xxx......." },
	};
	struct fixture fixture;
	char got[16];

	start(&fixture, false);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct kvk_fault_rule rule = {
			.kind = KVK_FAULT_FAIL, .error = EIO, .ops = 1u << KVK_XFER_SYNC_ALL, .nth = rows[i].nth,
			.every = rows[i].every, .times = rows[i].times, .chance_ppm = rows[i].chance_ppm,
		};
		uint64_t wanted = 0;

		kvk_fault_clear(fixture.fault);
		add(&fixture, &rule);
		step(&fixture, KVK_XFER_UNLINK, NULL, "none");
		strikes(&fixture, got, 10);
		if (strcmp(got, rows[i].wanted))
			fail_msg("row %zu: %s, wanted %s", i, got, rows[i].wanted);
		for (const char *c = rows[i].wanted; *c; c++)
			wanted += *c == 'x';
		assert_int_equal(kvk_fault_struck(fixture.fault), wanted);
		assert_int_equal(kvk_fault_seen(fixture.fault), 11);
	}
	kvk_fault_clear(fixture.fault);
	strikes(&fixture, got, 10);
	assert_string_equal(got, "..........");
	stop(&fixture);
}

static void the_first_rule_strikes_and_all_count(void **state)
{
	struct kvk_fault_rule slow = { .kind = KVK_FAULT_DELAY, .nth = 2 };
	struct kvk_fault_rule fails = { .kind = KVK_FAULT_FAIL, .error = EIO, .nth = 2, .every = 1 };
	struct fixture fixture;
	char got[16];

	start(&fixture, false);
	add(&fixture, &slow);
	add(&fixture, &fails);
	strikes(&fixture, got, 4);
	assert_string_equal(got, "..xx");
	assert_int_equal(kvk_fault_struck(fixture.fault), 3);
	stop(&fixture);
}

static void chance_follows_the_seed(void **state)
{
	struct kvk_fault_rule rule = { .kind = KVK_FAULT_FAIL, .error = EIO, .chance_ppm = 100000 };
	char got[3][10001];
	unsigned hits = 0;

	for (unsigned i = 0; i < 3; i++) {
		struct kvk_backend_options options = { .create = true };
		struct fixture fixture = { 0 };
		struct kvk_backend *ram = NULL;

		assert_int_equal(kvk_backend_ram.open(&ram, &options, NULL), 0);
		assert_int_equal(kvk_fault_new(&fixture.fault, ram, i / 2), 0);
		add(&fixture, &rule);
		strikes(&fixture, got[i], 10000);
		fixture.fault->ops->close(fixture.fault);
	}
	assert_string_equal(got[0], got[1]);
	assert_string_not_equal(got[0], got[2]);
	for (unsigned i = 0; i < 10000; i++)
		hits += got[0][i] == 'x';
	if (hits < 880 || hits > 1120)
		fail_msg("%u of 10000 were struck, wanted 1000 give or take four deviations", hits);
}

static void rules_without_sense_are_refused(void **state)
{
	const struct kvk_fault_rule rows[] = {
		{ .kind = (enum kvk_fault_kind)6, .nth = 1 },
		{ .kind = KVK_FAULT_HANG, .nth = 1, .ops = 1u << KVK_FAULT_OP_COUNT },
		{ .kind = KVK_FAULT_HANG },
		{ .kind = KVK_FAULT_HANG, .every = 1 },
		{ .kind = KVK_FAULT_HANG, .chance_ppm = 1000001 },
		{ .kind = KVK_FAULT_FAIL, .nth = 1 },
		{ .kind = KVK_FAULT_FAIL_AFTER, .nth = 1, .error = -EIO },
		{ .kind = KVK_FAULT_SHORTEN, .nth = 1, .ops = 1u << KVK_XFER_OPEN },
		{ .kind = KVK_FAULT_CORRUPT, .nth = 1, .ops = 1u << KVK_XFER_SYNC },
	};
	struct kvk_fault_rule good = { .kind = KVK_FAULT_HANG, .nth = 1000 };
	struct fixture fixture;

	start(&fixture, false);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (kvk_fault_add(fixture.fault, &rows[i]) != -EINVAL)
			fail_msg("rule %zu was taken", i);
	}
	for (unsigned i = 0; i < KVK_FAULT_RULES_MAX; i++)
		add(&fixture, &good);
	assert_int_equal(kvk_fault_add(fixture.fault, &good), -E2BIG);
	stop(&fixture);
}

/* ---- each kind --------------------------------------------------------------------------------------- */

/* Every step of an object's life, struck by FAIL and FAIL_AFTER, and what is there afterwards. */
static void failing(struct fixture *fixture)
{
	const struct {
		enum kvk_fault_kind kind;
		enum kvk_xfer_op op;
		bool exists;
	} rows[] = {
		{ KVK_FAULT_FAIL, KVK_XFER_CREATE, false },       { KVK_FAULT_FAIL_AFTER, KVK_XFER_CREATE, false },
		{ KVK_FAULT_FAIL, KVK_XFER_WRITE, false },        { KVK_FAULT_FAIL_AFTER, KVK_XFER_WRITE, false },
		{ KVK_FAULT_FAIL, KVK_XFER_PUBLISH, false },      { KVK_FAULT_FAIL_AFTER, KVK_XFER_PUBLISH, true },
		{ KVK_FAULT_FAIL, KVK_XFER_CLOSE, true },         { KVK_FAULT_FAIL_AFTER, KVK_XFER_CLOSE, true },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct kvk_fault_rule rule = { .kind = rows[i].kind, .ops = 1u << rows[i].op, .nth = 1, .error = ENOSPC };
		struct kvk_place *place = NULL;
		struct kvk_xfer xfer;
		struct iovec iov[3];
		int64_t err;
		int64_t close_err = 0;

		kvk_fault_clear(fixture->fault);
		add(fixture, &rule);
		err = step(fixture, KVK_XFER_CREATE, &place, "k");
		if (!err) {
			assert_int_equal(kvk_fault_places(fixture->fault), 1);
			init_pieces(&xfer, iov, KVK_XFER_WRITE, place, fixture->data);
			err = carry(fixture, &xfer);
			err = err == BYTES ? step(fixture, KVK_XFER_PUBLISH, &place, "k") : err;
			close_err = step(fixture, KVK_XFER_CLOSE, &place, NULL);
		}
		err = err ? err : close_err;
		if (err != -ENOSPC)
			fail_msg("row %zu: %d, wanted %d", i, (int)err, -ENOSPC);
		assert_int_equal(kvk_fault_struck(fixture->fault), 1);
		assert_int_equal(kvk_fault_places(fixture->fault), 0);
		assert_int_equal(kvk_fault_places(fixture->plain->medium), 0);
		err = step(fixture, KVK_XFER_UNLINK, NULL, "k");
		if (err != (rows[i].exists ? 0 : -ENOENT))
			fail_msg("row %zu: the file %s", i, rows[i].exists ? "is missing" : "exists");
	}
	make(fixture);
	for (int kind = KVK_FAULT_FAIL; kind <= KVK_FAULT_FAIL_AFTER; kind++) {
		struct kvk_fault_rule rule = { .kind = (enum kvk_fault_kind)kind, .nth = 1, .error = EMFILE };
		struct kvk_place *place = NULL;

		kvk_fault_clear(fixture->fault);
		add(fixture, &rule);
		assert_int_equal(step(fixture, KVK_XFER_OPEN, &place, "k"), -EMFILE);
		assert_null(place);
		assert_int_equal(kvk_fault_places(fixture->plain->medium), 0);
	}
}

static void fail_and_fail_after(void **state)
{
	both_ways(failing);
}

static void shortening(struct fixture *fixture)
{
	const struct {
		uint64_t part_bytes;
		uint32_t align_bytes;
		int64_t wanted;
	} rows[] = {
		{ 0, 1, BYTES },           { 1, 1, BYTES - 1 },       { 4096, 1, BYTES - 4096 }, { BYTES - 4196, 1, 4196 },
		{ BYTES - 4097, 1, 4097 }, { BYTES - 4096, 1, 4096 }, { BYTES - 1, 1, 1 },       { BYTES, 1, 0 },
		{ UINT64_MAX, 1, 0 },      { 1, 4096, 8192 },         { 4097, 4096, 4096 },      { 8193, 4096, 0 },
		{ 1, 512, BYTES - 512 },   { 0, 4096, BYTES },
	};
	struct kvk_place *written = NULL;
	struct kvk_place *place = NULL;

	make(fixture);
	assert_int_equal(step(fixture, KVK_XFER_OPEN, &place, "k"), 0);
	for (size_t i = 0; i < 2 * sizeof(rows) / sizeof(rows[0]); i++) {
		bool writes = i % 2;
		uint64_t part_bytes = rows[i / 2].part_bytes;
		struct kvk_fault_rule rule = { .kind = KVK_FAULT_SHORTEN, .nth = 1, .part_bytes = part_bytes };
		unsigned puts = atomic_load(&fixture->plain->puts);
		uint8_t got[BYTES] = { 0 };
		struct iovec before[3];
		struct iovec iov[3];
		struct kvk_xfer xfer;
		struct kvk_xfer stat;

		assert_int_equal(step(fixture, KVK_XFER_CREATE, &written, "w"), 0);
		kvk_fault_clear(fixture->fault);
		fixture->fault->caps.align_offset_bytes = rows[i / 2].align_bytes;
		add(fixture, &rule);
		if (writes)
			init_pieces(&xfer, iov, KVK_XFER_WRITE, written, fixture->data);
		else
			init_pieces(&xfer, iov, KVK_XFER_READ, place, got);
		memcpy(before, iov, sizeof(iov));
		if (carry(fixture, &xfer) != rows[i / 2].wanted)
			fail_msg("row %zu: %d, wanted %d", i / 2, (int)xfer.result, (int)rows[i / 2].wanted);
		assert_memory_equal(before, iov, sizeof(iov));
		assert_ptr_equal(xfer.iov, iov);
		assert_int_equal(xfer.iov_count, 3);
		kvk_xfer_init(&stat, KVK_XFER_STAT, written, NULL);
		assert_int_equal(carry(fixture, &stat), 0);
		assert_int_equal(stat.stat.bytes, writes ? rows[i / 2].wanted : 0);
		if (!writes) {
			assert_memory_equal(got, fixture->data, (size_t)rows[i / 2].wanted);
			for (size_t k = (size_t)rows[i / 2].wanted; k < BYTES; k++)
				assert_int_equal(got[k], 0);
		}
		if (fixture->ring && rows[i / 2].wanted == 0)
			assert_int_equal(atomic_load(&fixture->plain->puts) - puts, 2);
		assert_int_equal(step(fixture, KVK_XFER_CLOSE, &written, NULL), 0);
	}
	assert_int_equal(step(fixture, KVK_XFER_CLOSE, &place, NULL), 0);
}

static void shorten(void **state)
{
	both_ways(shortening);
}

static unsigned bits_different(const uint8_t *a, const uint8_t *b, size_t bytes)
{
	unsigned bits = 0;

	for (size_t i = 0; i < bytes; i++)
		bits += (unsigned)__builtin_popcount((unsigned)(a[i] ^ b[i]));
	return bits;
}

static void corrupting(struct fixture *fixture)
{
	struct kvk_fault_rule rule = { .kind = KVK_FAULT_CORRUPT, .nth = 1, .every = 1 };
	uint8_t copy[BYTES];
	uint8_t got[BYTES];
	uint8_t first[BYTES] = { 0 };
	unsigned places = 0;

	memcpy(copy, fixture->data, BYTES);
	for (int i = 0; i < 50; i++) {
		bool writes = i % 2;
		struct kvk_place *place = NULL;
		struct kvk_xfer xfer;
		struct iovec iov[3];

		kvk_fault_clear(fixture->fault);
		rule.ops = 1u << (writes ? KVK_XFER_WRITE : KVK_XFER_READ);
		add(fixture, &rule);
		make(fixture);
		assert_memory_equal(fixture->data, copy, BYTES);
		assert_int_equal(step(fixture, KVK_XFER_OPEN, &place, "k"), 0);
		init_pieces(&xfer, iov, KVK_XFER_READ, place, got);
		assert_int_equal(carry(fixture, &xfer), BYTES);
		assert_int_equal(bits_different(got, fixture->data, BYTES), 1);
		places += memcmp(got, first, BYTES) != 0;
		memcpy(first, got, BYTES);
		/* Nothing arrives behind the end: nothing to flip. */
		xfer.offset_bytes = BYTES;
		assert_int_equal(carry(fixture, &xfer), 0);
		assert_memory_equal(got, first, BYTES);
		assert_int_equal(step(fixture, KVK_XFER_CLOSE, &place, NULL), 0);
		assert_int_equal(step(fixture, KVK_XFER_UNLINK, NULL, "k"), 0);
	}
	assert_true(places > 40);
}

static void corrupt(void **state)
{
	both_ways(corrupting);
}

/* A piece of memory that the ring knows stays known, unless other memory takes its place. */
static void known_memory(struct fixture *fixture)
{
	struct kvk_fault_rule rule = { .kind = KVK_FAULT_CORRUPT, .ops = 1u << KVK_XFER_WRITE, .nth = 2 };
	struct iovec iov = { fixture->data, BYTES };
	struct kvk_place *place = NULL;

	add(fixture, &rule);
	assert_int_equal(step(fixture, KVK_XFER_CREATE, &place, "k"), 0);
	for (int i = 0; i < 2; i++) {
		struct kvk_xfer xfer;

		kvk_xfer_init(&xfer, KVK_XFER_WRITE, place, NULL);
		xfer.iov = &iov;
		xfer.iov_count = 1;
		xfer.memory_index = 1;
		assert_int_equal(carry(fixture, &xfer), BYTES);
		assert_int_equal(xfer.memory_index, 1);
		assert_int_equal(atomic_load(&fixture->plain->memory_index), i ? -1 : 1);
	}
	assert_int_equal(step(fixture, KVK_XFER_CLOSE, &place, NULL), 0);
}

static void corrupt_leaves_known_memory(void **state)
{
	both_ways(known_memory);
}

static void delaying(struct fixture *fixture)
{
	struct kvk_fault_rule rule = { .kind = KVK_FAULT_DELAY, .nth = 1, .delay_us = 30000 };
	uint64_t began_us;
	uint64_t took_us;

	add(fixture, &rule);
	began_us = kvk_now_us();
	assert_int_equal(step(fixture, KVK_XFER_UNLINK, NULL, "none"), -ENOENT);
	took_us = kvk_now_us() - began_us;
	if (took_us < 30000 || took_us > 5000000)
		fail_msg("took %u us, wanted 30000", (unsigned)took_us);
}

static void delay(void **state)
{
	both_ways(delaying);
}

static void every_allocation_may_fail(void **state)
{
	for (int with_ring = 0; with_ring < 2; with_ring++) {
		bool failed = true;

		for (uint64_t nth = 1; failed; nth++) {
			struct kvk_fault_rule rule = { .kind = KVK_FAULT_CORRUPT, .ops = 1u << KVK_XFER_WRITE, .nth = 1 };
			struct kvk_place *place = NULL;
			struct kvk_xfer xfer;
			struct iovec iov[3];
			struct fixture fixture;
			int64_t err = 0;

			start(&fixture, false);
			add(&fixture, &rule);
			kvk_mem_fail_nth(nth, false);
			if (with_ring)
				err = fixture.fault->ops->ring->open(&fixture.ring, fixture.fault, 4, 1);
			if (!err)
				err = step(&fixture, KVK_XFER_CREATE, &place, "k");
			if (!err) {
				init_pieces(&xfer, iov, KVK_XFER_WRITE, place, fixture.data);
				err = carry(&fixture, &xfer);
				err = err == BYTES ? 0 : err;
			}
			failed = kvk_mem_has_failed();
			kvk_mem_fail_nth(0, false);
			if (err != (failed ? -ENOMEM : 0))
				fail_msg("allocation %u: %d, wanted %d", (unsigned)nth, (int)err, failed ? -ENOMEM : 0);
			if (place)
				assert_int_equal(step(&fixture, KVK_XFER_CLOSE, &place, NULL), 0);
			stop(&fixture);
		}
	}
	kvk_mem_fail_nth(1, false);
	assert_int_equal(kvk_fault_new(&(struct kvk_backend *){ NULL }, &(struct kvk_backend){ 0 }, 0), -ENOMEM);
	kvk_mem_fail_nth(0, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rules_count),
		cmocka_unit_test(the_first_rule_strikes_and_all_count),
		cmocka_unit_test(chance_follows_the_seed),
		cmocka_unit_test(rules_without_sense_are_refused),
		cmocka_unit_test(fail_and_fail_after),
		cmocka_unit_test(shorten),
		cmocka_unit_test(corrupt),
		cmocka_unit_test(corrupt_leaves_known_memory),
		cmocka_unit_test(delay),
		cmocka_unit_test(every_allocation_may_fail),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
