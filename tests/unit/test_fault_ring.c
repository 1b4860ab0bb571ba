/* SPDX-License-Identifier: Apache-2.0 */
/* What hangs, what is late, and what else a ring around a ring has to answer. */
#include "fault_bed.h"

/* ---- hanging ----------------------------------------------------------------------------------------- */

struct hanging {
	pthread_t thread;
	struct fixture *fixture;
	struct kvk_xfer xfer;
	atomic_bool over;
};

static void *run_one(void *arg)
{
	struct hanging *hanging = arg;

	hanging->fixture->fault->ops->run(hanging->fixture->fault, &hanging->xfer);
	atomic_store(&hanging->over, true);
	return NULL;
}

static void wait_until_struck(struct fixture *fixture, uint64_t count)
{
	while (kvk_fault_struck(fixture->fault) < count)
		usleep(100);
}

static void a_thread_hangs_until_release_or_close(void **state)
{
	for (int by_close = 0; by_close < 2; by_close++) {
		struct kvk_fault_rule rule = { .kind = KVK_FAULT_HANG, .ops = 1u << KVK_XFER_UNLINK, .nth = 1, .every = 1 };
		struct hanging two[2] = { 0 };
		struct fixture fixture;

		start(&fixture, false);
		make(&fixture);
		add(&fixture, &rule);
		for (int i = 0; i < 2; i++) {
			two[i].fixture = &fixture;
			kvk_xfer_init(&two[i].xfer, KVK_XFER_UNLINK, NULL, i ? "none" : "k");
			assert_int_equal(pthread_create(&two[i].thread, NULL, run_one, &two[i]), 0);
		}
		wait_until_struck(&fixture, 2);
		usleep(5000);
		kvk_fault_clear(fixture.fault);
		assert_false(atomic_load(&two[0].over) || atomic_load(&two[1].over));
		if (by_close)
			stop(&fixture);
		else
			kvk_fault_release(fixture.fault);
		for (int i = 0; i < 2; i++)
			assert_int_equal(pthread_join(two[i].thread, NULL), 0);
		assert_int_equal(two[0].xfer.result, 0);
		assert_int_equal(two[1].xfer.result, -ENOENT);
		if (!by_close)
			stop(&fixture);
	}
}

static void *release_later(void *arg)
{
	struct fixture *fixture = arg;

	usleep(20000);
	kvk_fault_release(fixture->fault);
	return NULL;
}

/*
 * A write that hangs, is cancelled, and reaches the medium after all when the disk wakes up.
 * Method: as an agent does; other transfers pass by meanwhile; the release comes while turn() waits.
 */
static void a_ring_hangs_and_wakes_up(void **state)
{
	struct kvk_fault_rule rule = { .kind = KVK_FAULT_HANG, .ops = 1u << KVK_XFER_WRITE, .nth = 1 };
	struct fixture fixture;
	struct kvk_place *place = NULL;
	struct kvk_xfer late;
	struct kvk_xfer stat;
	struct iovec iov[3];
	pthread_t thread;

	start(&fixture, true);
	assert_int_equal(step(&fixture, KVK_XFER_CREATE, &place, "k"), 0);
	add(&fixture, &rule);
	init_pieces(&late, iov, KVK_XFER_WRITE, place, fixture.data);
	assert_int_equal(fixture.fault->ops->ring->put(fixture.ring, &late), 0);
	assert_null(turn(&fixture, 5000));
	fixture.fault->ops->ring->cancel(fixture.ring, &late);
	assert_int_equal(atomic_load(&fixture.plain->cancels), 0);
	assert_null(turn(&fixture, 5000));
	kvk_xfer_init(&stat, KVK_XFER_STAT, place, NULL);
	assert_int_equal(carry(&fixture, &stat), 0);
	assert_int_equal(stat.stat.bytes, 0);

	assert_int_equal(pthread_create(&thread, NULL, release_later, &fixture), 0);
	assert_ptr_equal(turn(&fixture, 10000000), &late);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(late.result, BYTES);
	assert_int_equal(carry(&fixture, &stat), 0);
	assert_int_equal(stat.stat.bytes, BYTES);
	assert_int_equal(step(&fixture, KVK_XFER_CLOSE, &place, NULL), 0);
	stop(&fixture);
}

/* More hang than the inner ring takes at once, and one of them it does not take at all. */
static void many_hang_and_all_end(void **state)
{
	enum { COUNT = 11 };
	struct kvk_fault_rule rule = { .kind = KVK_FAULT_HANG, .nth = 1, .every = 1 };
	struct kvk_xfer xfers[COUNT];
	struct kvk_link finished;
	struct fixture fixture;
	unsigned ended = 0;

	start(&fixture, true);
	add(&fixture, &rule);
	for (unsigned i = 0; i < COUNT; i++) {
		kvk_xfer_init(&xfers[i], i == 5 ? KVK_XFER_SYNC_ALL : KVK_XFER_UNLINK, NULL, "none");
		xfers[i].result = 1;
		assert_int_equal(fixture.fault->ops->ring->put(fixture.ring, &xfers[i]), 0);
	}
	kvk_fault_clear(fixture.fault);
	kvk_fault_release(fixture.fault);
	kvk_list_init(&finished);
	for (int turns = 0; turns < 10; turns++) {
		fixture.fault->ops->ring->turn(fixture.ring, &finished, 1000);
		while (kvk_list_pop(&finished))
			ended++;
	}
	assert_int_equal(ended, COUNT);
	for (unsigned i = 0; i < COUNT; i++)
		assert_int_equal(xfers[i].result, i == 5 ? 0 : -ENOENT);
	stop(&fixture);
}

/* A ring that is given up while something hangs in it frees what is its own and touches nothing else. */
static void a_ring_may_close_over_what_hangs(void **state)
{
	struct kvk_fault_rule rule = { .kind = KVK_FAULT_HANG, .nth = 1 };
	struct fixture fixture;
	struct kvk_xfer late;

	start(&fixture, true);
	add(&fixture, &rule);
	kvk_xfer_init(&late, KVK_XFER_UNLINK, NULL, "none");
	late.result = 1;
	assert_int_equal(fixture.fault->ops->ring->put(fixture.ring, &late), 0);
	stop(&fixture);
	assert_int_equal(late.result, 1);
}

/* ---- the ring's other answers ------------------------------------------------------------------------ */

/* What the inner ring did not take is not counted, so the nth is the nth that was carried out. */
static void refused_puts_do_not_count(void **state)
{
	struct kvk_fault_rule rule = { .kind = KVK_FAULT_DELAY, .nth = 5, .delay_us = 1 };
	const struct kvk_ring_ops *ops;
	struct kvk_xfer xfers[5];
	struct kvk_xfer sync;
	struct kvk_link finished;
	struct fixture fixture;
	unsigned ended = 0;

	start(&fixture, true);
	ops = fixture.fault->ops->ring;
	add(&fixture, &rule);
	kvk_xfer_init(&sync, KVK_XFER_SYNC_ALL, NULL, NULL);
	assert_int_equal(ops->put(fixture.ring, &sync), -EOPNOTSUPP);
	for (int i = 0; i < 5; i++) {
		kvk_xfer_init(&xfers[i], KVK_XFER_UNLINK, NULL, "none");
		assert_int_equal(ops->put(fixture.ring, &xfers[i]), i < 4 ? 0 : -EAGAIN);
	}
	assert_int_equal(ops->put(fixture.ring, &xfers[4]), -EAGAIN);
	assert_int_equal(kvk_fault_seen(fixture.fault), 4);
	assert_int_equal(kvk_fault_struck(fixture.fault), 0);
	ops->cancel(fixture.ring, &xfers[0]);
	assert_int_equal(atomic_load(&fixture.plain->cancels), 1);
	kvk_list_init(&finished);
	ops->turn(fixture.ring, &finished, 0);
	while (kvk_list_pop(&finished))
		ended++;
	assert_int_equal(ended, 4);
	assert_int_equal(ops->put(fixture.ring, &xfers[4]), 0);
	assert_ptr_equal(turn(&fixture, 10000000), &xfers[4]);
	assert_int_equal(kvk_fault_struck(fixture.fault), 1);
	assert_int_equal(ops->set_memory(fixture.ring, 1, fixture.data, BYTES), 0);
	assert_int_equal(ops->set_memory(fixture.ring, 2, fixture.data, BYTES), -ENOBUFS);
	stop(&fixture);
}

static void wake_ends_a_turn(void **state)
{
	struct kvk_link finished;
	struct fixture fixture;
	uint64_t began_us = kvk_now_us();

	start(&fixture, true);
	kvk_list_init(&finished);
	fixture.fault->ops->ring->wake(fixture.ring);
	fixture.fault->ops->ring->turn(fixture.ring, &finished, 60000000);
	assert_true(kvk_now_us() - began_us < 30000000);
	assert_true(kvk_list_empty(&finished));
	stop(&fixture);
}

static void others_overtake_what_is_delayed(void **state)
{
	struct kvk_fault_rule rule = { .kind = KVK_FAULT_DELAY, .nth = 1, .delay_us = 20000 };
	struct kvk_xfer late;
	struct fixture fixture;
	uint64_t began_us;

	start(&fixture, true);
	add(&fixture, &rule);
	began_us = kvk_now_us();
	kvk_xfer_init(&late, KVK_XFER_UNLINK, NULL, "late");
	assert_int_equal(fixture.fault->ops->ring->put(fixture.ring, &late), 0);
	assert_null(turn(&fixture, 0));
	fixture.fault->ops->ring->cancel(fixture.ring, &late);
	assert_int_equal(atomic_load(&fixture.plain->cancels), 0);
	assert_int_equal(step(&fixture, KVK_XFER_UNLINK, NULL, "early"), -ENOENT);
	assert_ptr_equal(turn(&fixture, 10000000), &late);
	assert_in_range(kvk_now_us() - began_us, 20000, 5000000);
	assert_int_equal(late.result, -ENOENT);
	stop(&fixture);
}

/* ---- threads ----------------------------------------------------------------------------------------- */

struct worker {
	pthread_t thread;
	struct fixture *fixture;
	atomic_uint *busy;
	unsigned wrong;
};

static void *use_both(void *arg)
{
	struct worker *worker = arg;
	struct fixture own = { .fault = worker->fixture->fault, .plain = worker->fixture->plain };

	if (own.fault->ops->ring->open(&own.ring, own.fault, 4, 1))
		worker->wrong++;
	for (int i = 0; i < 500; i++) {
		struct kvk_fault_rule rule = { .kind = KVK_FAULT_DELAY, .nth = 1, .delay_us = 1 };
		struct kvk_xfer xfer;

		kvk_xfer_init(&xfer, KVK_XFER_STAT_NAME, NULL, "none");
		own.fault->ops->run(own.fault, &xfer);
		worker->wrong += xfer.result != -ENOENT && xfer.result != -EIO;
		kvk_xfer_init(&xfer, KVK_XFER_STAT_NAME, NULL, "none");
		worker->wrong += own.fault->ops->ring->put(own.ring, &xfer) != 0;
		worker->wrong += turn(&own, 10000000) != &xfer;
		worker->wrong += xfer.result != -ENOENT && xfer.result != -EIO;
		kvk_fault_add(own.fault, &rule);
	}
	own.fault->ops->ring->close(own.ring);
	atomic_fetch_sub(worker->busy, 1);
	return NULL;
}

/* Rings, threads, rules and releases at the same time; for the thread sanitizer above all. */
static void threads_share_a_fault(void **state)
{
	const struct kvk_fault_rule rules[] = {
		{ .kind = KVK_FAULT_HANG, .chance_ppm = 50000 },
		{ .kind = KVK_FAULT_FAIL, .error = EIO, .chance_ppm = 50000 },
		{ .kind = KVK_FAULT_DELAY, .delay_us = 50, .chance_ppm = 50000 },
	};
	struct worker workers[3];
	struct fixture fixture;
	atomic_uint busy = 3;

	start(&fixture, false);
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
		add(&fixture, &rules[i]);
	for (int i = 0; i < 3; i++) {
		workers[i] = (struct worker){ .fixture = &fixture, .busy = &busy };
		assert_int_equal(pthread_create(&workers[i].thread, NULL, use_both, &workers[i]), 0);
	}
	while (atomic_load(&busy) > 0) {
		kvk_fault_release(fixture.fault);
		usleep(50);
	}
	for (int i = 0; i < 3; i++) {
		assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
		assert_int_equal(workers[i].wrong, 0);
	}
	assert_int_equal(kvk_fault_seen(fixture.fault), 3000);
	assert_true(kvk_fault_struck(fixture.fault) > 200);
	stop(&fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_thread_hangs_until_release_or_close),
		cmocka_unit_test(a_ring_hangs_and_wakes_up),
		cmocka_unit_test(many_hang_and_all_end),
		cmocka_unit_test(a_ring_may_close_over_what_hangs),
		cmocka_unit_test(refused_puts_do_not_count),
		cmocka_unit_test(wake_ends_a_turn),
		cmocka_unit_test(others_overtake_what_is_delayed),
		cmocka_unit_test(threads_share_a_fault),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
