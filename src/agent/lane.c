/* SPDX-License-Identifier: Apache-2.0 */
/* A lane: one thread, one loop. Completions are collected first and acted on after, so that no callback runs
 * inside a submit and none runs inside another. */
#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "agent/agent_private.h"
#include "util/clock.h"

#define RING_ENTRIES 256

/* ---- transfers ---------------------------------------------------------------------------------- */

static bool moves_bytes(const struct kvk_xfer *xfer)
{
	return xfer->op == KVK_XFER_READ || xfer->op == KVK_XFER_WRITE;
}

/* Eats `bytes` off the front of the transfer's memory. */
static void advance(struct kvk_xfer *xfer, uint64_t bytes)
{
	xfer->offset_bytes += bytes;
	while (bytes > 0) {
		if (bytes < xfer->iov->iov_len) {
			xfer->iov->iov_base = (uint8_t *)xfer->iov->iov_base + bytes;
			xfer->iov->iov_len -= bytes;
			return;
		}
		bytes -= xfer->iov->iov_len;
		xfer->iov++;
		xfer->iov_count--;
	}
	while (xfer->iov_count > 0 && xfer->iov->iov_len == 0) {
		xfer->iov++;
		xfer->iov_count--;
	}
}

/* Above the agent a transfer is whole or it failed; below it may come in pieces. */
static bool settled(struct kvk_lane *lane, struct kvk_xfer *xfer)
{
	if (!moves_bytes(xfer))
		return true;
	if (xfer->result < 0)
		return true;
	if (xfer->result == 0 && xfer->iov_count > 0) {
		/* No progress: asking again could go on for ever. A read met the end of the file. */
		xfer->result = xfer->op == KVK_XFER_READ ? -ENODATA : -EIO;
		return true;
	}
	xfer->moved_bytes += (uint64_t)xfer->result;
	advance(xfer, (uint64_t)xfer->result);
	if (xfer->iov_count == 0) {
		xfer->result = (int64_t)xfer->moved_bytes;
		return true;
	}
	if (xfer->flags & KVK_XFER_NOWAIT)
		return true;
	if (xfer->canceled) {
		xfer->result = -ECANCELED;
		return true;
	}
	atomic_fetch_add_explicit(&lane->agent->short_transfers, 1, memory_order_relaxed);
	return false;
}

void kvk_lane_run_here(struct kvk_lane *lane, struct kvk_xfer *xfer)
{
	struct kvk_backend *backend = lane->agent->backend;

	do {
		backend->ops->run(backend, xfer);
	} while (!settled(lane, xfer));
	xfer->settled = true;
}

/* Steps that never wait long for a medium, or not longer than the ring would take to hand them on: measured, 20 us of
 * CPU for opening and linking as plain calls against 29 us through the ring. */
static bool runs_here(const struct kvk_lane *lane, const struct kvk_xfer *xfer)
{
	switch (xfer->op) {
	case KVK_XFER_READ:
	case KVK_XFER_WRITE:
	case KVK_XFER_SYNC:
	case KVK_XFER_OPEN:
	case KVK_XFER_UNLINK:
	case KVK_XFER_SYNC_FOLDER:
	case KVK_XFER_SYNC_ALL:
	case KVK_XFER_TOUCH:           /* may wait for the journal */
		return lane->agent->inline_bytes;
	default:
		return true;
	}
}

/*
 * A write into a new file is handed by the ring to a thread of the kernel's, since it has to allocate (ext4 and XFS refuse
 * it without waiting): two switches of context for what a plain call does at once. So small ones are plain calls, and all
 * that only go as far as the page cache, as long as they are quick; where they are not, the ring keeps the lane free. Without
 * a ring the same is true of workers and the page cache; but direct writes they have more of in flight than there are lanes.
 */
#define WRITE_HERE_BYTES (UINT64_C(256) << 10)
/* One that has the lane to itself, a payload of one piece with its footer, holds nobody up. */
#define WRITE_ALONE_BYTES KVK_SLOT_BYTES
/* Quick is this, and so much more for each MiB. */
#define WRITE_HERE_US 1000
#define WRITE_HERE_US_PER_MIB 3000
/* So many of the last eight were slower: the ring takes over, and each so-many-th is tried here again. */
#define WRITE_HERE_SLOW 4
#define WRITE_HERE_RETRY 16

static uint64_t length_of(const struct kvk_xfer *xfer)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < xfer->iov_count; i++)
		bytes += xfer->iov[i].iov_len;
	return bytes;
}

static bool writes_here(struct kvk_lane *lane, const struct kvk_xfer *xfer)
{
	if (xfer->op != KVK_XFER_WRITE || lane->agent->inline_bytes)
		return false;
	if (lane->agent->backend->caps.direct &&
	    (!lane->ring || length_of(xfer) > (lane->active_count == 1 ? WRITE_ALONE_BYTES : WRITE_HERE_BYTES)))
		return false;
	return __builtin_popcount(lane->slow_writes) < WRITE_HERE_SLOW ||
	       ++lane->writes_elsewhere % WRITE_HERE_RETRY == 0;
}

static void write_here(struct kvk_lane *lane, struct kvk_xfer *xfer)
{
	uint64_t quick_us = WRITE_HERE_US + (length_of(xfer) * WRITE_HERE_US_PER_MIB >> 20);
	uint64_t start_us = kvk_now_us();

	kvk_lane_run_here(lane, xfer);
	lane->slow_writes = (uint8_t)(lane->slow_writes << 1 | (kvk_now_us() - start_us > quick_us));
	kvk_list_push(&lane->finished, &xfer->link);
}

void kvk_lane_route(struct kvk_lane *lane, struct kvk_xfer *xfer)
{
	const struct kvk_backend_ops *ops = lane->agent->backend->ops;

	if (writes_here(lane, xfer)) {
		write_here(lane, xfer);
		return;
	}

	if (runs_here(lane, xfer)) {
		kvk_lane_run_here(lane, xfer);
		kvk_list_push(&lane->finished, &xfer->link);
		return;
	}
	if (xfer->op == KVK_XFER_OPEN && !(xfer->flags & KVK_XFER_IF_CACHED)) {
		/* What the kernel has at hand is opened faster than it is handed on. */
		xfer->flags |= KVK_XFER_IF_CACHED;
		ops->run(lane->agent->backend, xfer);
		if (xfer->result != -EAGAIN) {
			kvk_list_push(&lane->finished, &xfer->link);
			return;
		}
		xfer->flags &= ~(uint32_t)KVK_XFER_IF_CACHED;
	}
	if (lane->ring) {
		int err = ops->ring->put(lane->ring, xfer);

		if (err == -EAGAIN) {
			/* Full: hand over what is in it, then there is room. */
			struct kvk_link ended;

			kvk_list_init(&ended);
			ops->ring->turn(lane->ring, &ended, 0);
			for (struct kvk_link *link = ended.next; link != &ended; link = link->next)
				lane->ring_in_flight--;
			kvk_list_splice(&lane->finished, &ended);
			err = ops->ring->put(lane->ring, xfer);
		}
		if (!err) {
			lane->ring_in_flight++;
			return;
		}
	}
	kvk_workers_submit(&lane->agent->pool, xfer);
}

/* ---- syncs -------------------------------------------------------------------------------------- */

static bool is_sync(const struct kvk_xfer *xfer)
{
	return xfer->op == KVK_XFER_SYNC || xfer->op == KVK_XFER_SYNC_FOLDER || xfer->op == KVK_XFER_SYNC_ALL;
}

/* Others with which it was under way are over: it comes back as if a worker had done it. */
static void sync_over(struct kvk_sync *sync)
{
	struct kvk_xfer *xfer = kvk_container_of(sync, struct kvk_xfer, sync);
	struct kvk_lane *lane = xfer->lane;

	pthread_mutex_lock(&lane->returned_lock);
	kvk_list_push(&lane->returned, &xfer->link);
	pthread_mutex_unlock(&lane->returned_lock);
	kvk_lane_wake(lane);
}

/* Whether its result is final. */
static bool believe(struct kvk_lane *lane, struct kvk_xfer *xfer)
{
	struct kvk_syncs *syncs = &lane->agent->backend->syncs;

	if (!xfer->believed) {
		xfer->believed = true;
		if (!kvk_sync_end(syncs, &xfer->sync, (int)xfer->result))
			return false;
	}
	/* One that was never asked for as well: what another could not write may have been its bytes. */
	if (!kvk_sync_is_failure((int)xfer->result) && kvk_syncs_failed(syncs) != xfer->owner->syncs_failed)
		xfer->result = -EIO;
	return true;
}

void kvk_op_submit(struct kvk_op *op, struct kvk_xfer *xfer)
{
	xfer->owner = op;
	xfer->lane = op->lane;
	xfer->moved_bytes = 0;
	xfer->result = 0;
	xfer->settled = false;
	kvk_list_push(&op->xfers, &xfer->owner_link);
	if (is_sync(xfer)) {
		xfer->believed = false;
		xfer->sync.over = sync_over;
		kvk_sync_begin(&op->lane->agent->backend->syncs, &xfer->sync);
	}
	kvk_lane_route(op->lane, xfer);
}

static void act_on_finished(struct kvk_lane *lane)
{
	struct kvk_link *link;

	while ((link = kvk_list_pop(&lane->finished))) {
		struct kvk_xfer *xfer = kvk_container_of(link, struct kvk_xfer, link);

		/* What ran here is settled already; asking again would count its bytes twice. */
		if (!xfer->settled && !settled(lane, xfer)) {
			kvk_lane_route(lane, xfer);
			continue;
		}
		if (is_sync(xfer) && !believe(lane, xfer))
			continue;
		if (xfer->result < 0 && xfer->result != -ENOENT && xfer->result != -EEXIST &&
		    xfer->result != -EAGAIN && xfer->result != -ECANCELED)
			atomic_fetch_add_explicit(&lane->agent->medium_errors, 1, memory_order_relaxed);
		kvk_list_remove(&xfer->owner_link);
		xfer->done(xfer);
	}
}

/* ---- operations --------------------------------------------------------------------------------- */

/* Its transfers are asked to end early; those that a hung medium keeps go on holding their memory. An unlink cleans up what there is
 * to clean up, late or not. */
static void end_transfers(struct kvk_lane *lane, struct kvk_op *op)
{
	struct kvk_link *link, *next;

	for (link = op->xfers.next; link != &op->xfers; link = next) {
		struct kvk_xfer *xfer = kvk_container_of(link, struct kvk_xfer, owner_link);

		next = link->next;
		if (xfer->canceled || xfer->op == KVK_XFER_UNLINK)
			continue;
		xfer->canceled = true;
		if (!runs_here(lane, xfer) && kvk_workers_take_back(&lane->agent->pool, xfer)) {
			xfer->result = -ECANCELED;
			kvk_list_push(&lane->finished, &xfer->link);
		} else if (lane->ring) {
			lane->agent->backend->ops->ring->cancel(lane->ring, xfer);
		}
	}
}

/* Answers what is late among the active ones and finds the next deadline. Returns whether any was. */
static bool mind_deadlines(struct kvk_lane *lane, uint64_t now_us)
{
	struct kvk_link *link;
	uint64_t next_us = UINT64_MAX;
	bool any = false;

	atomic_store(&lane->look_at_deadlines, false);
	/* Only this thread changes the list, so it may read it without the lock. */
	for (link = lane->active.next; link != &lane->active; link = link->next) {
		struct kvk_op *op = kvk_container_of(link, struct kvk_op, link);
		uint64_t deadline_us = atomic_load(&op->deadline_us);
		bool canceled = atomic_load(&op->canceled);

		if (!canceled && now_us < deadline_us) {
			if (deadline_us < next_us && !kvk_op_answered(op))
				next_us = deadline_us;
			continue;
		}
		any |= kvk_op_answer(op, canceled ? -ECANCELED : -ETIMEDOUT);
		end_transfers(lane, op);
	}
	lane->next_deadline_us = next_us;
	return any;
}

/* Takes up the next operation, if there is room for one. */
static bool take_up(struct kvk_lane *lane)
{
	struct kvk_op *op;

	if (lane->active_count >= KVK_LANE_ACTIVE_MAX ||
	    atomic_load(&lane->agent->queued) == 0)
		return false;
	op = kvk_agent_take(lane->agent, lane);
	if (!op)
		return false;
	if (atomic_load(&op->deadline_us) < lane->next_deadline_us)
		lane->next_deadline_us = atomic_load(&op->deadline_us);
	if (kvk_op_late(op)) {
		kvk_op_answer(op, atomic_load(&op->canceled) ? -ECANCELED : -ETIMEDOUT);
		kvk_op_finish(op);
	} else if (atomic_load(&lane->choked) && op->class != KVK_OP_LIGHT) {
		kvk_op_answer(op, -EHOSTDOWN);
		kvk_op_finish(op);
	} else {
		op->syncs_failed = kvk_syncs_failed(&lane->agent->backend->syncs);
		op->start(op);
	}
	return true;
}

/* ---- memory ------------------------------------------------------------------------------------- */

/* The caller's registered memory, as this lane's ring shall know it. */
static void follow_regions(struct kvk_lane *lane)
{
	struct kvk_agent *agent = lane->agent;
	uint64_t version = atomic_load(&agent->regions_version);

	if (version == lane->regions_version)
		return;
	pthread_mutex_lock(&agent->regions_lock);
	version = atomic_load(&agent->regions_version);
	for (uint32_t i = 0; i < KVK_REGIONS_MAX; i++) {
		struct kvk_region *mine = &lane->regions[i], *wanted = &agent->regions[i];
		uint32_t slot = KVK_MEMORY_CHUNKS_MAX + i;

		if (mine->base == wanted->base && mine->bytes == wanted->bytes)
			continue;
		if (lane->ring && mine->base)
			agent->backend->ops->ring->set_memory(lane->ring, slot, NULL, 0);
		*mine = (struct kvk_region){ 0 };
		/* Where locked memory does not allow it, transfers go the plain way. */
		if (lane->ring && wanted->base &&
		    !agent->backend->ops->ring->set_memory(lane->ring, slot, wanted->base, wanted->bytes))
			*mine = *wanted;
	}
	pthread_mutex_unlock(&agent->regions_lock);
	lane->regions_version = version;
	atomic_store(&lane->regions_seen, version);
}

/* A hung medium may keep half of a lane's memory; beyond that the lane takes no more and says so at once. */
static void mind_memory(struct kvk_lane *lane)
{
	uint32_t held = 0;
	struct kvk_link *link, *inner;

	for (link = lane->active.next; link != &lane->active; link = link->next) {
		struct kvk_op *op = kvk_container_of(link, struct kvk_op, link);

		if (!kvk_op_answered(op))
			continue;
		for (inner = op->xfers.next; inner != &op->xfers; inner = inner->next)
			held++;
	}
	lane->held_slots = held;
	atomic_store(&lane->choked, held > 0 && (held > kvk_memory_slots_max(&lane->memory) / 2 ||
						 lane->active_count >= KVK_LANE_ACTIVE_MAX / 2));
}

/* ---- the loop ----------------------------------------------------------------------------------- */

void kvk_lane_wake(struct kvk_lane *lane)
{
	uint64_t one = 1;

	if (!atomic_load(&lane->sleeping))
		return;
	/* Its silence counts from now on: as long as it slept nothing was expected of it, and on a busy machine it may take a
	 * while to come round. Before it is said to be awake, since the watch looks at these two the other way round. */
	atomic_store(&lane->turn_us, kvk_now_us());
	if (!atomic_exchange(&lane->sleeping, false))
		return;
	/* The lane may be on its way out: it takes its ring away under this lock before it closes it. */
	pthread_mutex_lock(&lane->returned_lock);
	if (lane->ring)
		lane->agent->backend->ops->ring->wake(lane->ring);
	pthread_mutex_unlock(&lane->returned_lock);
	if (lane->wake_fd >= 0 && write(lane->wake_fd, &one, sizeof(one)) < 0)
		return;        /* the counter is full: it is readable already */
}

static void collect_returned(struct kvk_lane *lane)
{
	pthread_mutex_lock(&lane->returned_lock);
	kvk_list_splice(&lane->finished, &lane->returned);
	pthread_mutex_unlock(&lane->returned_lock);
}

static bool has_returned(struct kvk_lane *lane)
{
	bool any;

	pthread_mutex_lock(&lane->returned_lock);
	any = !kvk_list_empty(&lane->returned);
	pthread_mutex_unlock(&lane->returned_lock);
	return any;
}

static void turn(struct kvk_lane *lane, uint64_t wait_us)
{
	struct pollfd pollfd = { .fd = lane->wake_fd, .events = POLLIN };
	struct kvk_link ended;
	uint64_t count;

	if (!lane->ring) {
		if (wait_us == 0)
			return;
		if (poll(&pollfd, 1, (int)((wait_us + 999) / 1000)) > 0 &&
		    read(lane->wake_fd, &count, sizeof(count)) < 0)
			return;        /* somebody else's wake-up was consumed with ours */
		return;
	}
	kvk_list_init(&ended);
	lane->agent->backend->ops->ring->turn(lane->ring, &ended, wait_us);
	for (struct kvk_link *link = ended.next; link != &ended; link = link->next)
		lane->ring_in_flight--;
	kvk_list_splice(&lane->finished, &ended);
}

static bool stopping(struct kvk_agent *agent)
{
	bool stopping;

	pthread_mutex_lock(&agent->queue_lock);
	stopping = agent->stopping;
	pthread_mutex_unlock(&agent->queue_lock);
	return stopping;
}

/*
 * A caller that waits for each object asks for the next one a few microseconds after the last one was answered. Waking a
 * lane costs more than the whole load of a small object, so a lane that has nothing at all under way looks at the queue
 * for a moment before it sleeps.
 */
#define LINGER_US 20

static bool linger(struct kvk_lane *lane)
{
	uint64_t end_us = kvk_now_us() + LINGER_US;

	if (lane->active_count > 0 || !lane->lingers)
		return false;
	lane->lingers = false;
	do {
		for (int i = 0; i < 16; i++)
			kvk_relax();
		if (atomic_load_explicit(&lane->agent->queued, memory_order_relaxed) > 0)
			return true;
	} while (kvk_now_us() < end_us);
	return false;
}

/* Sleeps until there is something to do. Whoever brings work sets it up first and then looks whether the lane sleeps;
 * the lane says that it sleeps first and then looks whether there is work: one of them sees the other. */
static bool rest(struct kvk_lane *lane)
{
	uint64_t now_us = kvk_now_us(), wait_us = KVK_LANE_SLEEP_US_MAX;
	bool stop = false;

	if (lane->next_deadline_us <= now_us || linger(lane))
		return true;
	if (lane->next_deadline_us - now_us < wait_us)
		wait_us = lane->next_deadline_us - now_us;
	atomic_store(&lane->sleeping, true);
	if (has_returned(lane) || atomic_load(&lane->look_at_deadlines) ||
	    atomic_load(&lane->agent->regions_version) != lane->regions_version ||
	    /* Budget that another lane gave back after this one was refused and before it said that it sleeps. */
	    kvk_streams_issue(lane) || take_up(lane)) {
		atomic_store(&lane->sleeping, false);
		return true;
	}
	if (kvk_list_empty(&lane->active) && (stop = stopping(lane->agent))) {
		atomic_store(&lane->sleeping, false);
		return false;
	}
	turn(lane, wait_us);
	atomic_store(&lane->turn_us, kvk_now_us());
	atomic_store(&lane->sleeping, false);
	return true;
}

/* The ring belongs to the thread that opens it. Tells the opener what came of it. */
static bool start(struct kvk_lane *lane)
{
	struct kvk_agent *agent = lane->agent;
	const struct kvk_ring_ops *ring_ops = agent->backend->ops->ring;
	int err = -EOPNOTSUPP;

	lane->next_deadline_us = UINT64_MAX;
	lane->thread_id = gettid();
	atomic_store(&lane->turn_us, kvk_now_us());
	if (agent->engine != KVK_ENGINE_THREADS && ring_ops)
		err = ring_ops->open(&lane->ring, agent->backend, RING_ENTRIES,
				     KVK_MEMORY_CHUNKS_MAX + KVK_REGIONS_MAX);
	if (err && agent->engine == KVK_ENGINE_RING) {
		lane->start_result = err;
	} else if (err) {
		lane->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		lane->start_result = lane->wake_fd < 0 ? -errno : 0;
	}
	if (!lane->start_result)
		kvk_memory_init(&lane->memory, agent->backend, lane->ring,
				agent->budget_bytes / agent->lane_count);
	pthread_mutex_lock(&agent->queue_lock);
	agent->lanes_started++;
	pthread_cond_broadcast(&agent->started);
	pthread_mutex_unlock(&agent->queue_lock);
	return lane->start_result == 0;
}

void *kvk_lane_main(void *argument)
{
	struct kvk_lane *lane = argument;
	struct kvk_agent *agent = lane->agent;
	const struct kvk_ring_ops *ring_ops = agent->backend->ops->ring;
	struct kvk_ring *ring;
	uint64_t now_us;

	if (!start(lane))
		return NULL;
	for (;;) {
		bool busy;

		now_us = kvk_now_us();
		atomic_store_explicit(&lane->turn_us, now_us, memory_order_relaxed);
		follow_regions(lane);
		collect_returned(lane);
		busy = !kvk_list_empty(&lane->finished) || !kvk_list_empty(&lane->ended_streams);
		act_on_finished(lane);
		kvk_streams_end(lane);
		busy |= kvk_streams_issue(lane);
		if (now_us >= lane->next_deadline_us || atomic_load(&lane->look_at_deadlines)) {
			busy |= mind_deadlines(lane, now_us);
			mind_memory(lane);
		} else if (lane->held_slots > 0) {
			mind_memory(lane);
		}
		busy |= take_up(lane);
		if (busy || !kvk_list_empty(&lane->finished) || !kvk_list_empty(&lane->ended_streams)) {
			if (lane->ring_in_flight > 0)
				turn(lane, 0);
		} else if (!rest(lane)) {
			break;
		}
	}
	kvk_pieces_free(lane);
	kvk_memory_release(&lane->memory);
	pthread_mutex_lock(&lane->returned_lock);
	ring = lane->ring;
	lane->ring = NULL;
	pthread_mutex_unlock(&lane->returned_lock);
	if (ring)
		ring_ops->close(ring);
	/* Who let the last sync go may still be about to wake this lane. */
	kvk_syncs_settle(&agent->backend->syncs);
	atomic_store(&lane->gone, true);
	return NULL;
}
