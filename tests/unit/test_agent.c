/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's queue and lanes: order, exactly one answer, deadlines, lanes that are stuck, stopping. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <time.h>

#include "agent/agent_private.h"
#include "util/clock.h"
#include "util/runnable.h"

#define FOR_EVER UINT64_MAX
#define OPS_MAX 64

/* ---- operations that tell what happens to them ---------------------------------------------------- */

struct gate {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool open;
	uint32_t waiting;              /* operations that stand before it */
};

struct probe {
	struct kvk_op op;
	struct gate *gate;             /* NULL: does not wait */
	bool touches;                  /* holds the caller's memory while it waits */
	bool touched;                  /* could it? */
	bool won;                      /* its lane was the first to answer */
	atomic_int started, answered, finished;
	_Atomic int status;
	uint32_t place;                /* in the order of starting */
};

static atomic_uint starts;

static void gate_init(struct gate *gate)
{
	*gate = (struct gate){ .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
}

static void gate_open(struct gate *gate)
{
	pthread_mutex_lock(&gate->lock);
	gate->open = true;
	pthread_cond_broadcast(&gate->changed);
	pthread_mutex_unlock(&gate->lock);
}

static void gate_pass(struct gate *gate)
{
	pthread_mutex_lock(&gate->lock);
	gate->waiting++;
	pthread_cond_broadcast(&gate->changed);
	while (!gate->open)
		pthread_cond_wait(&gate->changed, &gate->lock);
	pthread_mutex_unlock(&gate->lock);
}

static void gate_await(struct gate *gate, uint32_t waiting)
{
	pthread_mutex_lock(&gate->lock);
	while (gate->waiting < waiting)
		pthread_cond_wait(&gate->changed, &gate->lock);
	pthread_mutex_unlock(&gate->lock);
}

static void probe_start(struct kvk_op *op)
{
	struct probe *probe = kvk_container_of(op, struct probe, op);

	probe->place = atomic_fetch_add(&starts, 1);
	atomic_fetch_add(&probe->started, 1);
	if (probe->touches)
		probe->touched = kvk_op_touch(op);
	if (probe->gate)
		gate_pass(probe->gate);
	if (probe->touches)
		kvk_op_untouch(op);
	probe->won = kvk_op_answer(op, 7);
	kvk_op_finish(op);
}

static void probe_answer(struct kvk_op *op, int status)
{
	struct probe *probe = kvk_container_of(op, struct probe, op);

	atomic_store(&probe->status, status);
	atomic_fetch_add(&probe->answered, 1);
}

static void probe_finished(struct kvk_op *op)
{
	atomic_fetch_add(&kvk_container_of(op, struct probe, op)->finished, 1);
}

static void probe_init(struct probe *probe, enum kvk_op_class class, uint64_t deadline_us, const void *group)
{
	memset(probe, 0, sizeof(*probe));
	kvk_op_init(&probe->op, class, deadline_us, group);
	probe->op.start = probe_start;
	probe->op.answer = probe_answer;
	probe->op.finished = probe_finished;
}

static void submit(struct kvk_agent *agent, struct probe *probes, uint32_t count)
{
	struct kvk_link ops;

	kvk_list_init(&ops);
	for (uint32_t i = 0; i < count; i++)
		kvk_list_push(&ops, &probes[i].op.link);
	kvk_agent_submit(agent, &ops);
}

static void await_finished(struct probe *probe)
{
	uint64_t until_us = kvk_now_us() + 20000000;

	while (!atomic_load(&probe->finished) && kvk_now_us() < until_us)
		sched_yield();
	assert_int_equal(probe->finished, 1);
	assert_int_equal(probe->answered, 1);
}

/* ---- the bed -------------------------------------------------------------------------------------- */

struct bed {
	struct kvk_backend *backend;
	struct kvk_agent *agent;
	struct gate gate;
};

static void bed_begin(struct bed *bed, uint32_t lanes)
{
	const struct kvk_backend_options options = { .create = true, .writer_id = 1 };
	struct kvk_agent_options agent = { .lanes = lanes, .memory_bytes = 32 << 20, .depth_bytes = 32 << 20 };

	atomic_store(&starts, 0);
	gate_init(&bed->gate);
	assert_int_equal(kvk_backend_ram.open(&bed->backend, &options, NULL), 0);
	agent.backend = bed->backend;
	assert_int_equal(kvk_agent_new(&bed->agent, &agent, NULL), 0);
}

static void bed_end(struct bed *bed)
{
	gate_open(&bed->gate);
	assert_int_equal(kvk_agent_stop(bed->agent, 20000000), 0);
	kvk_agent_free(bed->agent);
	bed->backend->ops->close(bed->backend);
}

/* Has each of the lanes stand before the gate. */
static void block_lanes(struct bed *bed, struct probe *blockers, uint32_t lanes)
{
	for (uint32_t i = 0; i < lanes; i++) {
		probe_init(&blockers[i], KVK_OP_LIGHT, FOR_EVER, bed);
		blockers[i].gate = &bed->gate;
		submit(bed->agent, &blockers[i], 1);
		gate_await(&bed->gate, i + 1);
	}
}

/* ---- tests ---------------------------------------------------------------------------------------- */

/* In which place the nth (from 0) of ten of its class is taken up: after eight reads in a row it is a write's turn. */
static uint32_t expected_place(enum kvk_op_class class, uint32_t nth)
{
	if (class == KVK_OP_LIGHT)
		return nth;
	if (class == KVK_OP_READ)
		return 10 + nth + (nth >= 8);
	return nth == 0 ? 18 : 20 + nth;
}

/* Light ones first, reads before writes (but not for ever), and within a class the order of asking. */
static void test_order(void **state)
{
	static const enum kvk_op_class classes[] = { KVK_OP_WRITE, KVK_OP_READ, KVK_OP_LIGHT };
	struct probe blocker, probes[30];
	struct bed bed;

	bed_begin(&bed, 1);
	block_lanes(&bed, &blocker, 1);
	for (uint32_t i = 0; i < 30; i++)
		probe_init(&probes[i], classes[i % 3], FOR_EVER, NULL);
	submit(bed.agent, probes, 11);
	submit(bed.agent, probes + 11, 19);
	gate_open(&bed.gate);
	for (uint32_t i = 0; i < 30; i++) {
		await_finished(&probes[i]);
		assert_int_equal(probes[i].status, 7);
		/* The blocker was the first to start. */
		assert_int_equal(probes[i].place, 1 + expected_place(classes[i % 3], i / 3));
	}
	await_finished(&blocker);
	bed_end(&bed);
}

/* One queue for all: a lane that stands still takes nothing along with it. */
static void test_one_lane_blocked(void **state)
{
	struct probe blockers[2], probes[OPS_MAX];
	struct bed bed;

	bed_begin(&bed, 3);
	block_lanes(&bed, blockers, 2);
	for (uint32_t i = 0; i < OPS_MAX; i++)
		probe_init(&probes[i], (enum kvk_op_class)(i % 3), FOR_EVER, NULL);
	submit(bed.agent, probes, OPS_MAX);
	for (uint32_t i = 0; i < OPS_MAX; i++) {
		await_finished(&probes[i]);
		assert_int_equal(probes[i].status, 7);
	}
	assert_int_equal(blockers[0].finished + blockers[1].finished, 0);
	bed_end(&bed);
	await_finished(&blockers[0]);
	await_finished(&blockers[1]);
}

/* What waits in the queue is answered at its deadline without ever being started. */
static void test_deadline_in_the_queue(void **state)
{
	struct probe blocker, late, patient;
	struct bed bed;
	uint64_t until_us = kvk_now_us() + 30000000;

	bed_begin(&bed, 1);
	block_lanes(&bed, &blocker, 1);
	probe_init(&late, KVK_OP_READ, kvk_now_us() + 20000, NULL);
	probe_init(&patient, KVK_OP_READ, FOR_EVER, NULL);
	submit(bed.agent, &late, 1);
	submit(bed.agent, &patient, 1);
	kvk_agent_watch(bed.agent);
	while (!atomic_load(&late.finished) && kvk_now_us() < until_us)
		kvk_agent_watch(bed.agent);
	await_finished(&late);
	assert_int_equal(late.status, -ETIMEDOUT);
	assert_int_equal(late.started, 0);
	gate_open(&bed.gate);
	await_finished(&patient);
	bed_end(&bed);
}

/*
 * When the watch itself did not run either, the process stood still and no medium hung: lanes that were silent for all that
 * time are not stuck, and what waits goes on waiting.
 */
static void test_standing_still(void **state)
{
	struct probe blockers[2], waiting;
	struct kvk_agent_stats stats;
	struct bed bed;

	bed_begin(&bed, 2);
	block_lanes(&bed, blockers, 2);
	probe_init(&waiting, KVK_OP_READ, FOR_EVER, NULL);
	submit(bed.agent, &waiting, 1);
	kvk_agent_watch(bed.agent);
	/* Longer than any lane may be silent. */
	usleep(2500000);
	kvk_agent_watch(bed.agent);
	kvk_agent_stats(bed.agent, &stats);
	assert_int_equal(stats.stuck_lanes, 0);
	assert_int_equal(waiting.answered, 0);
	gate_open(&bed.gate);
	await_finished(&waiting);
	assert_int_equal(waiting.status, 7);
	bed_end(&bed);
}

/*
 * A lane that does not come round: the watch answers for it what is late, but not what is touching the caller's memory
 * at this moment; when every lane is stuck the queue fails at once; and when they move again, so does everything.
 */
static void test_stuck_lanes(void **state)
{
	struct probe blockers[2], touching, waiting[8], after;
	struct kvk_agent_stats stats;
	struct bed bed;
	uint64_t until_us = kvk_now_us() + 20000000;

	bed_begin(&bed, 2);
	block_lanes(&bed, blockers, 1);
	probe_init(&touching, KVK_OP_LIGHT, FOR_EVER, NULL);
	touching.gate = &bed.gate;
	touching.touches = true;
	submit(bed.agent, &touching, 1);
	gate_await(&bed.gate, 2);
	/* From here on both are late. Not before they were taken up: what is late then is never started. */
	atomic_store(&blockers[0].op.deadline_us, 1);
	atomic_store(&touching.op.deadline_us, 1);
	for (uint32_t i = 0; i < 8; i++)
		probe_init(&waiting[i], (enum kvk_op_class)(i % 3), FOR_EVER, NULL);
	submit(bed.agent, waiting, 8);
	do {
		kvk_agent_watch(bed.agent);
		kvk_agent_stats(bed.agent, &stats);
	} while ((stats.stuck_lanes < 2 || !atomic_load(&waiting[7].finished)) && kvk_now_us() < until_us);
	assert_int_equal(stats.stuck_lanes, 2);
	for (uint32_t i = 0; i < 8; i++) {
		await_finished(&waiting[i]);
		assert_int_equal(waiting[i].status, -EHOSTDOWN);
		assert_int_equal(waiting[i].started, 0);
	}
	assert_int_equal(blockers[0].answered, 1);
	assert_int_equal(blockers[0].status, -ETIMEDOUT);
	assert_int_equal(blockers[0].finished, 0);
	assert_int_equal(touching.answered, 0);

	gate_open(&bed.gate);
	await_finished(&blockers[0]);
	assert_false(blockers[0].won);
	await_finished(&touching);
	assert_true(touching.touched);
	probe_init(&after, KVK_OP_WRITE, FOR_EVER, NULL);
	do {
		kvk_agent_watch(bed.agent);
		kvk_agent_stats(bed.agent, &stats);
	} while (stats.stuck_lanes > 0 && kvk_now_us() < until_us);
	assert_int_equal(stats.stuck_lanes, 0);
	submit(bed.agent, &after, 1);
	await_finished(&after);
	assert_int_equal(after.status, 7);
	bed_end(&bed);
}

/* A lane that slept for more than a second and was woken a moment ago is not stuck, though it has not come round yet. Method: an
 * agent whose only lane has no thread, so that it never does. */
static void test_woken_is_not_stuck(void **state)
{
	static struct kvk_agent agent = { .lane_count = 1 };
	struct kvk_lane *lane = &agent.lanes[0];
	struct probe probe;

	lane->agent = &agent;
	lane->wake_fd = -1;
	pthread_mutex_init(&lane->active_lock, NULL);
	pthread_mutex_init(&lane->returned_lock, NULL);
	pthread_mutex_init(&agent.queue_lock, NULL);
	kvk_list_init(&lane->active);
	for (int i = 0; i < KVK_OP_CLASS_COUNT; i++)
		kvk_list_init(&agent.queue[i]);
	agent.queue_deadline_us = FOR_EVER;
	agent.watched_us = kvk_now_us() - 100000;
	lane->turn_us = lane->watched_turn_us = 1;
	lane->silent_us = 1200000;
	atomic_store(&lane->sleeping, true);

	probe_init(&probe, KVK_OP_LIGHT, FOR_EVER, NULL);
	submit(&agent, &probe, 1);
	assert_false(atomic_load(&lane->sleeping));
	kvk_agent_watch(&agent);
	assert_int_equal(probe.answered, 0);
	/* When it does not come round for a second after that, it is. */
	lane->silent_us = 1200000;
	kvk_agent_watch(&agent);
	assert_int_equal(probe.status, -EHOSTDOWN);
	assert_int_equal(probe.finished, 1);
}

static void *stand_before(void *argument)
{
	struct probe *probe = argument;

	atomic_store(&probe->started, gettid());
	gate_pass(probe->gate);
	return NULL;
}

/*
 * On a machine with too much to do a lane may get no processor for seconds. As long as it could run it is not stuck, but one
 * that waits is. Method: an agent whose only lane is said to be the thread that runs the test, which is runnable for certain, and
 * then one that waits before a gate.
 */
static void test_starved_is_not_stuck(void **state)
{
	static struct kvk_agent agent = { .lane_count = 1 };
	struct kvk_lane *lane = &agent.lanes[0];
	uint64_t until_us = kvk_now_us() + 20000000;
	struct probe probe, other = { .op = { .class = KVK_OP_LIGHT } };
	struct gate gate;
	pthread_t waiting;

	gate_init(&gate);
	other.gate = &gate;
	pthread_mutex_init(&lane->active_lock, NULL);
	pthread_mutex_init(&agent.queue_lock, NULL);
	lane->agent = &agent;
	lane->wake_fd = -1;
	kvk_list_init(&lane->active);
	for (int i = 0; i < KVK_OP_CLASS_COUNT; i++)
		kvk_list_init(&agent.queue[i]);
	agent.queue_deadline_us = FOR_EVER;
	lane->turn_us = lane->watched_turn_us = 1;
	probe_init(&probe, KVK_OP_LIGHT, FOR_EVER, NULL);
	submit(&agent, &probe, 1);

	lane->thread_id = gettid();
	for (int i = 0; i < 20; i++) {
		agent.watched_us = kvk_now_us() - 200000;
		kvk_agent_watch(&agent);
		assert_int_equal(probe.answered, 0);
		assert_in_range(lane->silent_us, 200000, 600000);
	}

	assert_int_equal(pthread_create(&waiting, NULL, stand_before, &other), 0);
	gate_await(&gate, 1);
	lane->thread_id = (pid_t)atomic_load(&other.started);
	while (kvk_is_runnable(lane->thread_id) && kvk_now_us() < until_us)
		usleep(1000);
	for (int i = 0; i < 6 && !probe.answered; i++) {
		agent.watched_us = kvk_now_us() - 200000;
		kvk_agent_watch(&agent);
	}
	assert_int_equal(probe.status, -EHOSTDOWN);
	gate_open(&gate);
	pthread_join(waiting, NULL);
	assert_false(kvk_is_runnable(0));
}

/* A cancel answers what is of its group, waiting or under way, and nothing else. */
static void test_cancel(void **state)
{
	struct probe blocker, probes[12];
	struct bed bed;
	int mine, others;

	bed_begin(&bed, 1);
	block_lanes(&bed, &blocker, 1);
	for (uint32_t i = 0; i < 12; i++)
		probe_init(&probes[i], (enum kvk_op_class)(i % 3), FOR_EVER, i % 2 ? &mine : &others);
	submit(bed.agent, probes, 12);
	kvk_agent_cancel(bed.agent, &mine);
	for (uint32_t i = 1; i < 12; i += 2) {
		assert_int_equal(probes[i].finished, 1);
		assert_int_equal(probes[i].status, -ECANCELED);
	}
	for (uint32_t i = 0; i < 12; i += 2)
		assert_int_equal(probes[i].answered, 0);
	gate_open(&bed.gate);
	for (uint32_t i = 0; i < 12; i++) {
		await_finished(&probes[i]);
		assert_int_equal(probes[i].status, i % 2 ? -ECANCELED : 7);
		assert_int_equal(probes[i].started, i % 2 ? 0 : 1);
	}
	bed_end(&bed);
}

/* Stopping gives up within its bound while a lane hangs, and answers the queue; nothing is taken any more. */
static void test_stop(void **state)
{
	struct probe blocker, waiting, after;
	uint64_t start_us;
	struct bed bed;

	bed_begin(&bed, 1);
	block_lanes(&bed, &blocker, 1);
	probe_init(&waiting, KVK_OP_WRITE, FOR_EVER, NULL);
	submit(bed.agent, &waiting, 1);
	start_us = kvk_now_us();
	assert_int_equal(kvk_agent_stop(bed.agent, 200000), -ETIMEDOUT);
	assert_in_range(kvk_now_us() - start_us, 200000, 10000000);
	await_finished(&waiting);
	assert_int_equal(waiting.status, -ECANCELED);
	assert_int_equal(blocker.finished, 0);
	probe_init(&after, KVK_OP_LIGHT, FOR_EVER, NULL);
	submit(bed.agent, &after, 1);
	await_finished(&after);
	assert_int_equal(after.status, -ECANCELED);
	bed_end(&bed);
	await_finished(&blocker);
}

/* Many operations from many threads: each is answered once and ends once. */
#define THREADS 4
#define ROUNDS 300

static void *submit_many(void *argument)
{
	struct bed *bed = argument;
	static pthread_mutex_t watching = PTHREAD_MUTEX_INITIALIZER;
	static _Thread_local struct probe probes[OPS_MAX];

	for (int round = 0; round < ROUNDS; round++) {
		uint32_t count = 1 + (uint32_t)round % OPS_MAX;
		bool cancel = round % 5 == 0;

		for (uint32_t i = 0; i < count; i++)
			probe_init(&probes[i], (enum kvk_op_class)((i + (uint32_t)round) % 3),
				   round % 7 ? FOR_EVER : kvk_now_us() + 50, probes);
		submit(bed->agent, probes, count);
		if (cancel)
			kvk_agent_cancel(bed->agent, probes);
		if (round % 7 == 0) {
			pthread_mutex_lock(&watching);
			kvk_agent_watch(bed->agent);
			pthread_mutex_unlock(&watching);
		}
		for (uint32_t i = 0; i < count; i++) {
			while (!atomic_load(&probes[i].finished))
				sched_yield();
			if (atomic_load(&probes[i].answered) != 1)
				return (void *)"answered more than once, or never";
		}
	}
	return NULL;
}

static void test_threads(void **state)
{
	pthread_t threads[THREADS];
	struct bed bed;

	bed_begin(&bed, 3);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, submit_many, &bed), 0);
	for (int i = 0; i < THREADS; i++) {
		void *wrong;

		assert_int_equal(pthread_join(threads[i], &wrong), 0);
		if (wrong)
			fail_msg("%s", (char *)wrong);
	}
	bed_end(&bed);
}

/* Regions of memory: as many as there is room for, not overlapping, and gone when they are taken back. */
static void test_regions(void **state)
{
	unsigned char *memory = mmap(NULL, 160 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct bed bed;
	int count = 0, err;

	assert_ptr_not_equal(memory, MAP_FAILED);
	bed_begin(&bed, 2);
	assert_int_equal(kvk_agent_remove_region(bed.agent, memory), -ENOENT);
	while (!(err = kvk_agent_add_region(bed.agent, memory + count * 8192, 4096)))
		count++;
	assert_int_equal(err, -ENOSPC);
	assert_int_equal(count, 64);
	assert_int_equal(kvk_agent_remove_region(bed.agent, memory + 4096), -ENOENT);
	assert_int_equal(kvk_agent_remove_region(bed.agent, memory + 8192), 0);
	assert_int_equal(kvk_agent_add_region(bed.agent, memory + 4096, 16384), -EINVAL);
	assert_int_equal(kvk_agent_add_region(bed.agent, memory, 4096), -EINVAL);
	assert_int_equal(kvk_agent_add_region(bed.agent, memory + 4096, 8192), 0);
	bed_end(&bed);
	munmap(memory, 160 * 4096);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_one_lane_blocked),
		cmocka_unit_test(test_deadline_in_the_queue),
		cmocka_unit_test(test_standing_still),
		cmocka_unit_test(test_stuck_lanes),
		cmocka_unit_test(test_woken_is_not_stuck),
		cmocka_unit_test(test_starved_is_not_stuck),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_stop),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_regions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
