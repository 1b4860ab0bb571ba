/* SPDX-License-Identifier: Apache-2.0 */
#include "control/control.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "agent/thread.h"
#include "control/keeper.h"
#include "control/room.h"
#include "util/alloc.h"
#include "util/clock.h"

#define TICK_MS 100

/* How far the room thread is, and what it is to do when it rests. */
enum room_state { ROOM_RUNS, ROOM_RESTS, ROOM_OVER };
enum room_order { ROOM_WAIT, ROOM_LEAVE, ROOM_SETTLE, ROOM_AWAIT };

struct kvk_control {
	struct kvk_core *core;
	pthread_mutex_t lock;          /* guards what follows, up to abandoned */
	pthread_cond_t stop;           /* stopping, room_state, room_order, keeper_over */
	bool stopping;
	enum room_state room_state;
	enum room_order room_order;
	bool abandoned;                /* nobody waits for the room thread: it frees all */
	bool keeper_over;              /* it touches nothing any more */
	bool keeper_hangs;             /* set before room_order, and not changed after */
	bool has_watch, has_notify, has_keeper, has_room;
	pthread_t watch, notify, keeper_thread, room_thread;
	struct kvk_room *room;
	struct kvk_keeper *keeper;
	uint64_t next_sync_us;
};

/* The sync of a batch, one at a time. It may outlive control: the agent is stopped after it. */
struct sync {
	struct kvk_op op;
	struct kvk_xfer xfer;
	struct kvk_core *core;
	uint64_t bytes;                /* what it covers */
};

/* Returns false when it is time to end. */
static bool pause_ms(struct kvk_control *control, long ms)
{
	struct timespec until;
	bool stopping;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += ms * 1000000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&control->lock);
	while (!control->stopping && pthread_cond_timedwait(&control->stop, &control->lock, &until) != ETIMEDOUT)
		;
	stopping = control->stopping;
	pthread_mutex_unlock(&control->lock);
	return !stopping;
}

/* ---- the sync of a batch ------------------------------------------------------------------------ */

static void synced(struct kvk_xfer *xfer)
{
	struct sync *sync = kvk_container_of(xfer, struct sync, xfer);
	struct kvk_core *core = sync->core;

	if (xfer->result < 0) {
		/* What it covered is not on the medium and the kernel may have dropped it: the loads will tell. */
		kvk_core_trouble(core, (int)xfer->result);
		kvk_log(&core->log, KVK_LOG_ERROR, "the sync of a batch failed: %s", strerror((int)-xfer->result));
	}
	atomic_fetch_sub(&core->unsynced_bytes, sync->bytes);
	kvk_op_answer(&sync->op, (int)xfer->result);
	kvk_op_finish(&sync->op);
}

static void sync_start(struct kvk_op *op)
{
	struct sync *sync = kvk_container_of(op, struct sync, op);

	kvk_xfer_init(&sync->xfer, KVK_XFER_SYNC_ALL, NULL, NULL);
	sync->xfer.done = synced;
	kvk_op_submit(op, &sync->xfer);
}

static void sync_answer(struct kvk_op *op, int status)
{
}

static void sync_finished(struct kvk_op *op)
{
	struct sync *sync = kvk_container_of(op, struct sync, op);
	struct kvk_core *core = sync->core;

	kvk_mem_free(sync);
	atomic_store(&core->syncing, false);
}

static void mind_batch(struct kvk_control *control)
{
	struct kvk_core *core = control->core;
	uint64_t now_us = kvk_now_us(), bytes = atomic_load(&core->unsynced_bytes);
	struct kvk_link ops;
	struct sync *sync;

	if (core->superblock.durability != KVK_DURABILITY_BATCH || bytes == 0 || atomic_load(&core->syncing) ||
	    (now_us < control->next_sync_us && bytes < core->spec.batch_bytes))
		return;
	sync = kvk_mem_zalloc(1, sizeof(*sync));
	if (!sync)
		return;                /* the next tick tries again */
	control->next_sync_us = now_us + core->spec.batch_us;
	sync->core = core;
	sync->bytes = bytes;
	atomic_store(&core->syncing, true);
	kvk_op_init(&sync->op, KVK_OP_LIGHT, UINT64_MAX, sync);
	sync->op.start = sync_start;
	sync->op.answer = sync_answer;
	sync->op.finished = sync_finished;
	kvk_list_init(&ops);
	kvk_list_push(&ops, &sync->op.link);
	kvk_agent_submit(core->agent, &ops);
}

/* ---- the threads -------------------------------------------------------------------------------- */

static void *watch_main(void *argument)
{
	struct kvk_control *control = argument;

	while (pause_ms(control, TICK_MS)) {
		kvk_agent_watch(control->core->agent);
		kvk_catalog_clock(control->core->catalog, kvk_wall_ns());
		kvk_waiting_end(control->core, NULL, kvk_now_us());
		kvk_room_watch(control->room, kvk_now_us());
		mind_batch(control);
	}
	return NULL;
}

static void *notify_main(void *argument)
{
	struct kvk_control *control = argument;

	kvk_notices_deliver(&control->core->notices);
	return NULL;
}

static void *keeper_main(void *argument)
{
	struct kvk_control *control = argument;

	kvk_keeper_run(control->keeper);
	pthread_mutex_lock(&control->lock);
	control->keeper_over = true;
	pthread_cond_broadcast(&control->stop);
	pthread_mutex_unlock(&control->lock);
	return NULL;
}

static void scan_state(void *user, struct kvk_scan_state *ret)
{
	kvk_keeper_state(user, ret);
}

static void keeper_trouble(void *user, int status)
{
	kvk_core_trouble(user, status);
}

static int new_keeper(struct kvk_control *control)
{
	struct kvk_core *core = control->core;
	struct kvk_keeper_options options = {
		.backend = core->backend, .adapter = core->adapter, .catalog = core->catalog,
		.account = core->account, .log = &core->log, .layout = core->superblock.layout,
		.persist = core->superblock.persist, .is_keeper = &core->keeper,
		.trouble = keeper_trouble, .user = core,
	};
	int err;

	memcpy(options.store_id, core->superblock.store_id, sizeof(options.store_id));
	err = kvk_keeper_new(&control->keeper, &options);
	if (err)
		return err;
	core->scan_user = control->keeper;
	core->scan_state = scan_state;
	return 0;
}

static void free_control(struct kvk_control *control)
{
	kvk_keeper_free(control->keeper);
	kvk_room_free(control->room);
	pthread_cond_destroy(&control->stop);
	pthread_mutex_destroy(&control->lock);
	kvk_mem_free(control);
}

/* Returns what it is to do then. */
static enum room_order room_rest(struct kvk_control *control)
{
	enum room_order order;

	pthread_mutex_lock(&control->lock);
	control->room_state = ROOM_RESTS;
	pthread_cond_broadcast(&control->stop);
	while (control->room_order == ROOM_WAIT)
		pthread_cond_wait(&control->stop, &control->lock);
	order = control->room_order;
	pthread_mutex_unlock(&control->lock);
	return order;
}

/* The last things are its own as well: who closes the store is not to wait for a medium that hangs. */
static void *room_main(void *argument)
{
	struct kvk_control *control = argument;
	struct kvk_core *core = control->core;
	enum room_order order;
	bool abandoned;

	kvk_room_run(control->room);
	order = room_rest(control);
	if (order == ROOM_LEAVE)
		return NULL;
	/* What hangs in a lane may go on after hours, and then lets go of what it has. */
	if (order == ROOM_AWAIT)
		kvk_core_stop(core, UINT64_MAX / 2);
	if (control->keeper_hangs)
		pthread_join(control->keeper_thread, NULL);
	kvk_core_settle(core);
	pthread_mutex_lock(&control->lock);
	control->room_state = ROOM_OVER;
	pthread_cond_broadcast(&control->stop);
	abandoned = control->abandoned;
	pthread_mutex_unlock(&control->lock);
	if (abandoned) {
		free_control(control);
		kvk_core_free(core);
	}
	return NULL;
}

/* ---- starting and stopping ---------------------------------------------------------------------- */

int kvk_control_start(struct kvk_control **ret, struct kvk_core *core)
{
	struct kvk_control *control = kvk_mem_zalloc(1, sizeof(*control));
	pthread_condattr_t attributes;
	int err;

	if (!control)
		return -ENOMEM;
	control->core = core;
	pthread_mutex_init(&control->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&control->stop, &attributes);
	pthread_condattr_destroy(&attributes);
	control->next_sync_us = kvk_now_us() + core->spec.batch_us;

	err = kvk_room_new(&control->room, core, core->backend->caps.many_hosts);
	if (!err) {
		err = kvk_thread_start(&control->watch, "kvk-watch", watch_main, control);
		control->has_watch = !err;
	}
	if (!err && kvk_notices_wanted(&core->notices)) {
		err = kvk_thread_start(&control->notify, "kvk-notify", notify_main, control);
		control->has_notify = !err;
	}
	if (!err) {
		err = kvk_thread_start(&control->room_thread, "kvk-room", room_main, control);
		control->has_room = !err;
	}
	if (!err)
		err = new_keeper(control);
	if (!err && core->spec.keeper) {
		err = kvk_thread_start(&control->keeper_thread, "kvk-keeper", keeper_main, control);
		control->has_keeper = !err;
	}
	if (err) {
		kvk_control_stop(control, UINT64_MAX / 2);
		kvk_control_end(control, KVK_CONTROL_NOTHING, 0);
		return err;
	}
	*ret = control;
	return 0;
}

int kvk_control_scan(struct kvk_control *control, uint64_t wait_us)
{
	return control->has_keeper ? kvk_keeper_scan(control->keeper, wait_us) : -EBUSY;
}

static struct timespec after_us(uint64_t us)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += (long)(us % 1000000 * 1000);
	until.tv_sec += (time_t)(us / 1000000) + until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	return until;
}

void kvk_control_stop(struct kvk_control *control, uint64_t wait_us)
{
	struct timespec until;

	pthread_mutex_lock(&control->lock);
	control->stopping = true;
	pthread_cond_broadcast(&control->stop);
	pthread_mutex_unlock(&control->lock);
	if (control->has_watch)
		pthread_join(control->watch, NULL);
	if (control->keeper)
		kvk_keeper_stop(control->keeper);
	if (control->room)
		kvk_room_end(control->room);
	until = after_us(wait_us);
	pthread_mutex_lock(&control->lock);
	while (((control->has_room && control->room_state == ROOM_RUNS) || (control->has_keeper && !control->keeper_over)) &&
	       pthread_cond_timedwait(&control->stop, &control->lock, &until) != ETIMEDOUT)
		;
	control->keeper_hangs = control->has_keeper && !control->keeper_over;
	pthread_mutex_unlock(&control->lock);
	if (control->has_keeper && !control->keeper_hangs)
		pthread_join(control->keeper_thread, NULL);
}

/* Until the core is settled, or does not get on for wait_us, room and keeper included. Called with the lock held. */
static void await_settled(struct kvk_control *control, uint64_t wait_us)
{
	uint64_t steps = kvk_core_settle_steps(control->core), since_us = kvk_now_us();

	while (control->room_state != ROOM_OVER && kvk_now_us() - since_us < wait_us) {
		struct timespec until = after_us(TICK_MS * 1000);
		uint64_t now_steps;

		pthread_cond_timedwait(&control->stop, &control->lock, &until);
		now_steps = kvk_core_settle_steps(control->core);
		if (now_steps != steps)
			since_us = kvk_now_us();
		steps = now_steps;
	}
}

/* Joins the room thread, or leaves it to itself. Returns whether it ended. */
static bool end_room(struct kvk_control *control, enum room_state over)
{
	pthread_t thread = control->room_thread;
	bool ended;

	pthread_mutex_lock(&control->lock);
	ended = control->room_state >= over;
	control->abandoned = !ended;
	pthread_mutex_unlock(&control->lock);
	/* From here on an abandoned one may have freed control. */
	if (ended)
		pthread_join(thread, NULL);
	else
		pthread_detach(thread);
	return ended;
}

bool kvk_control_end(struct kvk_control *control, enum kvk_control_rest rest, uint64_t wait_us)
{
	bool settles = rest != KVK_CONTROL_NOTHING && control->has_room, keeper_hangs = control->keeper_hangs;

	pthread_mutex_lock(&control->lock);
	control->room_order = !settles ? ROOM_LEAVE : rest == KVK_CONTROL_AWAIT ? ROOM_AWAIT : ROOM_SETTLE;
	pthread_cond_broadcast(&control->stop);
	if (settles && rest == KVK_CONTROL_SETTLE)
		await_settled(control, wait_us);
	pthread_mutex_unlock(&control->lock);
	kvk_notices_stop(&control->core->notices);
	if (control->has_notify)
		pthread_join(control->notify, NULL);
	if (!settles && keeper_hangs)
		pthread_detach(control->keeper_thread);
	if (control->has_room && !end_room(control, settles ? ROOM_OVER : ROOM_RESTS))
		return false;
	/* Settled, it has joined the keeper. */
	if (!settles && keeper_hangs)
		return false;
	free_control(control);
	return settles;
}
