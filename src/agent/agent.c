/* SPDX-License-Identifier: Apache-2.0 */
/* The queue that all lanes share, and the life of the agent as a whole. */
#include "agent/agent.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "agent/agent_private.h"
#include "agent/thread.h"
#include "util/alloc.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/runnable.h"

/* A lane that has not come round for this long, and does not sleep, is stuck in a system call. */
#define STUCK_US 1000000
/* Of the time between two looks of the watch no more is held against a lane: when the watch itself did not run for longer,
 * the whole process stood still (a stopped or frozen virtual machine, SIGSTOP, a debugger), and no medium hung. */
#define WATCH_US_MAX 200000
/*
 * And of the time in which it had something to compute only a part: on a machine with more to do than processors a lane gets
 * none for seconds (seen: 4.4 s, ten processes on two cores with other work, the lane runnable whenever it was looked at, and
 * requests failed as if the medium hung). It is a part, and not nothing, so that a system call that never stops computing ends in
 * answers as well: after half a minute.
 */
#define RUNNABLE_PART 32
/* It is asked for only when a lane would be stuck after so much more: few are ever, and asking opens a file of /proc. */
#define RUNNABLE_US (STUCK_US - 250000)
#define NO_DEADLINE UINT64_MAX
/* Between two looks of whoever stops: a part of what was waited for, within these bounds. */
#define STOP_PAUSE_PART 16
#define STOP_PAUSE_US_MIN 200
#define STOP_PAUSE_US_MAX 50000

/* ---- opening and closing ------------------------------------------------------------------------ */

/* More than four lanes bring nothing before arrays of disks do; fewer than two let one slow open hold up all. */
static uint32_t lanes_by_machine(void)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	return cpus <= 2 ? 2 : cpus >= 8 ? 4 : (uint32_t)(cpus + 1) / 2;
}

static void lane_init(struct kvk_lane *lane, struct kvk_agent *agent)
{
	lane->agent = agent;
	lane->wake_fd = -1;
	pthread_mutex_init(&lane->active_lock, NULL);
	pthread_mutex_init(&lane->returned_lock, NULL);
	kvk_list_init(&lane->active);
	kvk_list_init(&lane->streams);
	kvk_list_init(&lane->ended_streams);
	kvk_list_init(&lane->finished);
	kvk_list_init(&lane->returned);
}

/* Waits for the lanes that were started and tells the first error among them. */
static int lanes_await(struct kvk_agent *agent, uint32_t count)
{
	int err = 0;

	pthread_mutex_lock(&agent->queue_lock);
	while (agent->lanes_started < count)
		pthread_cond_wait(&agent->started, &agent->queue_lock);
	pthread_mutex_unlock(&agent->queue_lock);
	for (uint32_t i = 0; i < count && !err; i++)
		err = agent->lanes[i].start_result;
	return err;
}

int kvk_agent_new(struct kvk_agent **ret, const struct kvk_agent_options *options, struct kvk_error *error)
{
	struct kvk_agent *agent;
	uint32_t started = 0;
	int err = 0;

	agent = kvk_mem_zalloc(1, sizeof(*agent));
	if (!agent)
		return kvk_error_set(error, -ENOMEM, NULL, "out of memory");
	agent->backend = options->backend;
	if (options->log)
		agent->log = *options->log;
	agent->engine = options->engine;
	agent->budget_bytes = options->memory_bytes;
	agent->lingers = sysconf(_SC_NPROCESSORS_ONLN) > 1;
	/* A medium without rings says that none of its calls waits for long. */
	agent->inline_bytes = !options->backend->ops->ring && options->engine == KVK_ENGINE_AUTO;
	agent->lane_count = options->lanes ? options->lanes : lanes_by_machine();
	if (agent->lane_count > KVK_LANES_MAX)
		agent->lane_count = KVK_LANES_MAX;
	pthread_mutex_init(&agent->queue_lock, NULL);
	pthread_mutex_init(&agent->regions_lock, NULL);
	pthread_cond_init(&agent->started, NULL);
	for (int i = 0; i < KVK_OP_CLASS_COUNT; i++)
		kvk_list_init(&agent->queue[i]);
	agent->queue_deadline_us = NO_DEADLINE;
	kvk_depth_init(&agent->depth, options->depth_bytes);
	kvk_workers_init(&agent->pool, agent);
	for (uint32_t i = 0; i < agent->lane_count; i++)
		lane_init(&agent->lanes[i], agent);

	for (uint32_t i = 0; i < agent->lane_count && !err; i++) {
		err = kvk_thread_start(&agent->lanes[i].thread, "kvk-lane", kvk_lane_main, &agent->lanes[i]);
		started += !err;
	}
	if (!err)
		err = lanes_await(agent, started);
	else
		lanes_await(agent, started);
	if (err) {
		kvk_error_set(error, err, options->engine == KVK_ENGINE_RING ? "io_engine" : "lanes",
			      "cannot start %u lanes: %s%s%s", agent->lane_count, strerror(-err),
			      options->backend->caps.ring_note[0] ? "; " : "", options->backend->caps.ring_note);
		agent->lane_count = started;
		kvk_agent_stop(agent, UINT64_MAX / 2);
		kvk_agent_free(agent);
		return err;
	}
	*ret = agent;
	return 0;
}

/* Whether every thread has gone; joins the lanes that have. */
static bool all_gone(struct kvk_agent *agent)
{
	for (uint32_t i = 0; i < agent->lane_count; i++) {
		struct kvk_lane *lane = &agent->lanes[i];

		if (lane->start_result == 0 && !atomic_load(&lane->gone))
			return false;
	}
	return atomic_load(&agent->pool.alive) == 0;
}

static void empty_queue(struct kvk_link *from, int status)
{
	struct kvk_link *link;

	while ((link = kvk_list_pop(from))) {
		struct kvk_op *op = kvk_container_of(link, struct kvk_op, link);

		kvk_op_answer(op, status);
		op->finished(op);
	}
}

/* Cancels what is active in a lane and is of this group (NULL: everything that is not answered). */
static void cancel_active(struct kvk_lane *lane, const void *group)
{
	struct kvk_link *link;
	bool any = false;

	pthread_mutex_lock(&lane->active_lock);
	for (link = lane->active.next; link != &lane->active; link = link->next) {
		struct kvk_op *op = kvk_container_of(link, struct kvk_op, link);

		if ((!group || op->group == group) && !kvk_op_answered(op)) {
			atomic_store(&op->canceled, true);
			any = true;
		}
	}
	pthread_mutex_unlock(&lane->active_lock);
	if (any)
		atomic_store(&lane->look_at_deadlines, true);
	kvk_lane_wake(lane);
}

/* Answers what is late in a lane whose thread cannot do it. What it is touching right now is left to it. */
static void answer_for(struct kvk_lane *lane, uint64_t now_us)
{
	struct kvk_link *link;

	pthread_mutex_lock(&lane->active_lock);
	for (link = lane->active.next; link != &lane->active; link = link->next) {
		struct kvk_op *op = kvk_container_of(link, struct kvk_op, link);

		if (atomic_load(&op->canceled))
			kvk_op_answer(op, -ECANCELED);
		else if (now_us >= atomic_load(&op->deadline_us))
			kvk_op_answer(op, -ETIMEDOUT);
	}
	pthread_mutex_unlock(&lane->active_lock);
}

/*
 * Lanes that are stuck in a system call will come round some day: what they have is answered now, so that they find that
 * its memory is no longer theirs, and so that whoever closes learns whether a transfer of held memory is under way.
 */
static void give_up(struct kvk_agent *agent)
{
	for (uint32_t i = 0; i < agent->lane_count; i++)
		answer_for(&agent->lanes[i], kvk_now_us());
}

/* It is noticed a little later for as much as was waited for: what hangs may do so for hours. */
static void pause_in_stop(uint64_t waited_us)
{
	uint64_t pause_us = waited_us / STOP_PAUSE_PART;
	struct timespec pause;

	pause_us = pause_us < STOP_PAUSE_US_MIN ? STOP_PAUSE_US_MIN : pause_us > STOP_PAUSE_US_MAX ? STOP_PAUSE_US_MAX : pause_us;
	pause = (struct timespec){ .tv_nsec = (long)pause_us * 1000 };
	nanosleep(&pause, NULL);
}

int kvk_agent_stop(struct kvk_agent *agent, uint64_t wait_us)
{
	uint64_t start_us = kvk_now_us();
	struct kvk_link queued;

	kvk_list_init(&queued);
	pthread_mutex_lock(&agent->queue_lock);
	agent->stopping = true;
	for (int i = 0; i < KVK_OP_CLASS_COUNT; i++)
		kvk_list_splice(&queued, &agent->queue[i]);
	atomic_store(&agent->queued, 0);
	pthread_mutex_unlock(&agent->queue_lock);
	empty_queue(&queued, -ECANCELED);
	for (;;) {
		/* Again and again: an operation may have been on its way from the queue to the lane. */
		for (uint32_t i = 0; i < agent->lane_count; i++)
			cancel_active(&agent->lanes[i], NULL);
		bool lanes_gone = true;

		for (uint32_t i = 0; i < agent->lane_count; i++)
			lanes_gone &= agent->lanes[i].start_result || atomic_load(&agent->lanes[i].gone);
		if (lanes_gone)
			kvk_workers_stop(&agent->pool);
		if (all_gone(agent))
			break;
		if (kvk_now_us() - start_us > wait_us) {
			give_up(agent);
			return -ETIMEDOUT;
		}
		pause_in_stop(kvk_now_us() - start_us);
	}
	for (uint32_t i = 0; i < agent->lane_count; i++)
		pthread_join(agent->lanes[i].thread, NULL);
	return 0;
}

void kvk_agent_free(struct kvk_agent *agent)
{
	if (!agent)
		return;
	for (uint32_t i = 0; i < agent->lane_count; i++) {
		struct kvk_lane *lane = &agent->lanes[i];

		if (lane->wake_fd >= 0)
			close(lane->wake_fd);
		pthread_mutex_destroy(&lane->active_lock);
		pthread_mutex_destroy(&lane->returned_lock);
	}
	kvk_workers_release(&agent->pool);
	kvk_depth_release(&agent->depth);
	pthread_cond_destroy(&agent->started);
	pthread_mutex_destroy(&agent->regions_lock);
	pthread_mutex_destroy(&agent->queue_lock);
	kvk_mem_free(agent);
}

/* ---- the queue ---------------------------------------------------------------------------------- */

void kvk_agent_submit(struct kvk_agent *agent, struct kvk_link *ops)
{
	struct kvk_link *link;
	uint32_t count = 0;
	bool stopping;

	pthread_mutex_lock(&agent->queue_lock);
	stopping = agent->stopping;
	while (!stopping && (link = kvk_list_pop(ops))) {
		struct kvk_op *op = kvk_container_of(link, struct kvk_op, link);

		kvk_list_push(&agent->queue[op->class], link);
		if (op->class == KVK_OP_READ)
			atomic_fetch_add(&agent->depth.reads_waiting, 1);
		if (atomic_load(&op->deadline_us) < agent->queue_deadline_us)
			agent->queue_deadline_us = atomic_load(&op->deadline_us);
		count++;
	}
	atomic_fetch_add(&agent->queued, count);
	pthread_mutex_unlock(&agent->queue_lock);
	if (stopping)
		empty_queue(ops, -ECANCELED);
	for (uint32_t i = 0; i < agent->lane_count && count > 0; i++) {
		if (atomic_load(&agent->lanes[i].sleeping)) {
			kvk_lane_wake(&agent->lanes[i]);
			count--;
		}
	}
}

/* A stream of this lane that has pieces left says that its budget or memory is used up: what comes after waits. */
static bool has_stream(const struct kvk_lane *lane, bool write)
{
	return atomic_load_explicit(&lane->has_stream[write], memory_order_relaxed);
}

static bool others_wait(const struct kvk_agent *agent, const struct kvk_lane *self, bool write)
{
	for (uint32_t i = 0; i < agent->lane_count; i++) {
		if (&agent->lanes[i] != self && has_stream(&agent->lanes[i], write))
			return true;
	}
	return false;
}

/*
 * This lane was woken for work that it cannot take up now: one that sleeps and can shall have it. Not while the budget is in
 * use: it would only find that out. Called with the queue's lock held; returns the lane to wake, or NULL.
 */
static struct kvk_lane *pass_on(struct kvk_agent *agent, const struct kvk_lane *refusing)
{
	for (int write = 0; write < 2; write++) {
		if (kvk_list_empty(&agent->queue[write ? KVK_OP_WRITE : KVK_OP_READ]) || !has_stream(refusing, write) ||
		    kvk_depth_full(&agent->depth, write ? KVK_DEPTH_WRITE : KVK_DEPTH_READ, true))
			continue;
		for (uint32_t i = 0; i < agent->lane_count; i++) {
			struct kvk_lane *lane = &agent->lanes[i];

			if (lane != refusing && atomic_load(&lane->sleeping) && !has_stream(lane, write))
				return lane;
		}
	}
	return NULL;
}

/* Reads that come out of the page cache take nothing from the budget, so a queue that never runs empty of them would keep
 * writes waiting until their deadlines: after so many reads it is a write's turn. */
#define READS_IN_A_ROW 8

/* Called with the queue's lock held. NULL: none is there, or this lane can take none now. */
static struct kvk_link *take_read(struct kvk_agent *agent, struct kvk_lane *lane)
{
	if (kvk_list_empty(&agent->queue[KVK_OP_READ]) || has_stream(lane, false) ||
	    kvk_depth_full(&agent->depth, KVK_DEPTH_READ, others_wait(agent, lane, false)))
		return NULL;
	atomic_fetch_sub(&agent->depth.reads_waiting, 1);
	agent->reads_in_a_row++;
	return kvk_list_pop(&agent->queue[KVK_OP_READ]);
}

static struct kvk_link *take_write(struct kvk_agent *agent, struct kvk_lane *lane)
{
	if (kvk_list_empty(&agent->queue[KVK_OP_WRITE]) || has_stream(lane, true) ||
	    kvk_depth_full(&agent->depth, KVK_DEPTH_WRITE, others_wait(agent, lane, true)))
		return NULL;
	agent->reads_in_a_row = 0;
	return kvk_list_pop(&agent->queue[KVK_OP_WRITE]);
}

struct kvk_op *kvk_agent_take(struct kvk_agent *agent, struct kvk_lane *lane)
{
	struct kvk_link *link;
	struct kvk_op *op = NULL;
	struct kvk_lane *other = NULL;

	pthread_mutex_lock(&agent->queue_lock);
	link = kvk_list_pop(&agent->queue[KVK_OP_LIGHT]);
	if (!link && agent->reads_in_a_row >= READS_IN_A_ROW)
		link = take_write(agent, lane);
	if (!link)
		link = take_read(agent, lane);
	if (!link)
		link = take_write(agent, lane);
	if (link) {
		op = kvk_container_of(link, struct kvk_op, link);
		op->sequence = ++agent->sequence;
		/* Under this lock, so that a cancel finds it either in the queue or in the lane. */
		op->lane = lane;
		pthread_mutex_lock(&lane->active_lock);
		kvk_list_push(&lane->active, &op->link);
		lane->active_count++;
		pthread_mutex_unlock(&lane->active_lock);
		atomic_fetch_sub(&agent->queued, 1);
	} else {
		other = pass_on(agent, lane);
	}
	pthread_mutex_unlock(&agent->queue_lock);
	if (other)
		kvk_lane_wake(other);
	return op;
}

/* Moves what is to be answered from the queue to *out: of a group, or past its deadline, or (both 0) all. */
static void queue_extract(struct kvk_agent *agent, const void *group, uint64_t now_us, struct kvk_link *out)
{
	uint64_t next_us = NO_DEADLINE;

	pthread_mutex_lock(&agent->queue_lock);
	if (!group && now_us && now_us < agent->queue_deadline_us) {
		pthread_mutex_unlock(&agent->queue_lock);
		return;
	}
	for (int i = 0; i < KVK_OP_CLASS_COUNT; i++) {
		struct kvk_link *link, *next;

		for (link = agent->queue[i].next; link != &agent->queue[i]; link = next) {
			struct kvk_op *op = kvk_container_of(link, struct kvk_op, link);
			uint64_t deadline_us = atomic_load(&op->deadline_us);

			next = link->next;
			if (group ? op->group != group : now_us && now_us < deadline_us) {
				if (deadline_us < next_us)
					next_us = deadline_us;
				continue;
			}
			kvk_list_remove(link);
			kvk_list_push(out, link);
			atomic_fetch_sub(&agent->queued, 1);
			if (i == KVK_OP_READ)
				atomic_fetch_sub(&agent->depth.reads_waiting, 1);
		}
	}
	agent->queue_deadline_us = next_us;
	pthread_mutex_unlock(&agent->queue_lock);
}

void kvk_agent_cancel(struct kvk_agent *agent, const void *group)
{
	struct kvk_link out;

	kvk_list_init(&out);
	queue_extract(agent, group, 0, &out);
	for (uint32_t i = 0; i < agent->lane_count; i++)
		cancel_active(&agent->lanes[i], group);
	empty_queue(&out, -ECANCELED);
}

/*
 * A lane that sleeps comes round by itself too, unless something in its sleep hangs. Whoever wakes one sets turn_us before it
 * counts as awake, so this looks at the two the other way round: else a lane that had slept for a second was stuck until it came round.
 */
static bool watch_lane(struct kvk_lane *lane, uint64_t passed_us)
{
	uint64_t allowed_us = STUCK_US + (atomic_load(&lane->sleeping) ? KVK_LANE_SLEEP_US_MAX : 0);
	uint64_t turn_us = atomic_load(&lane->turn_us);

	if (turn_us != lane->watched_turn_us) {
		lane->watched_turn_us = turn_us;
		lane->silent_us = 0;
	} else {
		bool near = lane->silent_us + RUNNABLE_US >= allowed_us;

		lane->silent_us += near && kvk_is_runnable(lane->thread_id) ? passed_us / RUNNABLE_PART : passed_us;
	}
	atomic_store(&lane->stuck, lane->silent_us > allowed_us);
	return lane->silent_us > allowed_us;
}

void kvk_agent_watch(struct kvk_agent *agent)
{
	uint64_t now_us = kvk_now_us(), passed_us = agent->watched_us ? now_us - agent->watched_us : 0;
	uint32_t stuck = 0;
	struct kvk_link out;

	agent->watched_us = now_us;
	for (uint32_t i = 0; i < agent->lane_count; i++) {
		if (!watch_lane(&agent->lanes[i], passed_us < WATCH_US_MAX ? passed_us : WATCH_US_MAX))
			continue;
		stuck++;
		answer_for(&agent->lanes[i], now_us);
	}
	if ((stuck == agent->lane_count) != atomic_load(&agent->stuck)) {
		atomic_store(&agent->stuck, stuck == agent->lane_count);
		kvk_log(&agent->log, KVK_LOG_ERROR, stuck == agent->lane_count ? "the medium hangs: no lane comes "
			"round, requests fail at once" : "the medium answers again");
	}
	kvk_list_init(&out);
	queue_extract(agent, NULL, now_us, &out);
	empty_queue(&out, -ETIMEDOUT);
	if (stuck == agent->lane_count) {
		queue_extract(agent, NULL, 0, &out);
		empty_queue(&out, -EHOSTDOWN);
	}
}

/* ---- registered memory -------------------------------------------------------------------------- */

/* Until every lane has seen the table of regions; a lane that is stuck is not waited for longer than a second. */
static int regions_settle(struct kvk_agent *agent, uint64_t version)
{
	struct timespec pause = { .tv_nsec = 100000 };
	uint64_t start_us = kvk_now_us();

	for (uint32_t i = 0; i < agent->lane_count; i++) {
		while (atomic_load(&agent->lanes[i].regions_seen) < version) {
			kvk_lane_wake(&agent->lanes[i]);
			if (kvk_now_us() - start_us > STUCK_US)
				return -EBUSY;
			nanosleep(&pause, NULL);
		}
	}
	return 0;
}

/* Called with the table's lock held. -EINVAL: bytes from base overlap what is there. -ENOSPC: not enough free parts. */
static int regions_check(const struct kvk_agent *agent, const uint8_t *base, uint64_t bytes)
{
	uint64_t parts_free = 0;

	for (uint32_t i = 0; i < KVK_REGIONS_MAX; i++) {
		const struct kvk_region *region = &agent->regions[i];

		if (!region->base)
			parts_free++;
		else if (base < region->base + region->bytes && region->base < base + bytes)
			return -EINVAL;
	}
	return parts_free * KVK_REGION_BYTES < bytes ? -ENOSPC : 0;
}

int kvk_agent_add_region(struct kvk_agent *agent, void *base, uint64_t bytes)
{
	uint8_t *next = base, *end = next + bytes;
	uint64_t version;
	int err;

	pthread_mutex_lock(&agent->regions_lock);
	err = regions_check(agent, base, bytes);
	if (err) {
		pthread_mutex_unlock(&agent->regions_lock);
		return err;
	}
	for (uint32_t i = 0; i < KVK_REGIONS_MAX && next < end; i++) {
		uint64_t part = (uint64_t)(end - next) < KVK_REGION_BYTES ? (uint64_t)(end - next) : KVK_REGION_BYTES;

		if (agent->regions[i].base)
			continue;
		agent->regions[i] = (struct kvk_region){ .base = next, .bytes = part, .whole = base };
		next += part;
	}
	version = atomic_fetch_add(&agent->regions_version, 1) + 1;
	pthread_mutex_unlock(&agent->regions_lock);
	/* A lane that is stuck learns of it later; until then it goes the plain way. */
	regions_settle(agent, version);
	return 0;
}

int kvk_agent_remove_region(struct kvk_agent *agent, void *base)
{
	uint64_t version;
	bool any = false;

	pthread_mutex_lock(&agent->regions_lock);
	for (uint32_t i = 0; i < KVK_REGIONS_MAX; i++) {
		if (!agent->regions[i].base || agent->regions[i].whole != base)
			continue;
		agent->regions[i] = (struct kvk_region){ 0 };
		any = true;
	}
	version = atomic_fetch_add(&agent->regions_version, any) + any;
	pthread_mutex_unlock(&agent->regions_lock);
	return any ? regions_settle(agent, version) : -ENOENT;
}

/* ---- figures ------------------------------------------------------------------------------------ */

void kvk_agent_stats(struct kvk_agent *agent, struct kvk_agent_stats *ret)
{
	*ret = (struct kvk_agent_stats){
		.short_transfers = atomic_load(&agent->short_transfers),
		.medium_errors = atomic_load(&agent->medium_errors),
		.copied_bytes = atomic_load(&agent->copied_bytes),
		.straight_bytes = atomic_load(&agent->straight_bytes),
		.memory_bytes = atomic_load(&agent->memory_bytes),
		.read_depth_bytes = atomic_load(&agent->depth.direction[KVK_DEPTH_READ].limit_bytes),
		.write_depth_bytes = atomic_load(&agent->depth.direction[KVK_DEPTH_WRITE].limit_bytes),
		.lanes = agent->lane_count,
		.ring = agent->lanes[0].wake_fd < 0,
		.workers = !agent->inline_bytes,
	};
	for (uint32_t i = 0; i < agent->lane_count; i++) {
		struct kvk_lane *lane = &agent->lanes[i];

		ret->stuck_lanes += atomic_load(&lane->stuck);
		ret->held_slots += atomic_load(&lane->held_slots);
	}
}
