/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is in flight: lanes (one thread and one loop each), their order, depth, deadlines and memory.
 *
 * The agent knows operations, transfers and memory; it knows no keys and no objects. An operation (struct kvk_op)
 * waits in one queue shared by all lanes; a lane that has room takes the oldest, reads before writes, and runs it
 * from start to end. So the order of asking is kept, the work spreads by itself, and a lane that is stuck in a
 * system call takes no more.
 *
 * The life of an operation:
 *
 *     submit --> queued --start()--> active --kvk_op_finish()--> finished()
 *                   |                   |
 *                   '---- answer() ----'    exactly once, by whoever is first: its lane, its deadline, a cancel
 *
 * answer() and finished() are two things: when a deadline passes while the kernel still has a transfer, the
 * caller is answered at once and the operation lives on until the kernel lets go.
 */
#ifndef KVK_AGENT_AGENT_H
#define KVK_AGENT_AGENT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "backend/backend.h"
#include "util/list.h"

struct kvk_agent;
struct kvk_lane;

enum kvk_op_class {
	KVK_OP_LIGHT = 0,              /* a few steps, next to no bytes: goes before all others */
	KVK_OP_READ = 1,
	KVK_OP_WRITE = 2,
};
#define KVK_OP_CLASS_COUNT 3

struct kvk_op {
	/* Set by whoever makes it: */
	enum kvk_op_class class;
	atomic_uint_fast64_t deadline_us;      /* of kvk_now_us() */
	const void *group;                     /* what kvk_agent_cancel() goes by */
	/* On the lane. May submit transfers and streams, answer, finish. */
	void (*start)(struct kvk_op *op);
	/*
	 * Exactly once, on a lane or on the watching thread, without waiting. -ETIMEDOUT, -ECANCELED, -EHOSTDOWN
	 * (nothing was tried: the medium hangs), or what its own steps found.
	 */
	void (*answer)(struct kvk_op *op, int status);
	/* Last: the agent has forgotten it. Also called if it was never started. */
	void (*finished)(struct kvk_op *op);
	/* The agent's: */
	struct kvk_link link;
	struct kvk_link xfers;                 /* in flight */
	struct kvk_lane *lane;
	uint64_t sequence;                     /* in the order of being taken up */
	uint64_t syncs_failed;                 /* when it was taken up */
	bool detached;
	atomic_uint claim;
	atomic_bool canceled;
};

void kvk_op_init(struct kvk_op *op, enum kvk_op_class class, uint64_t deadline_us, const void *group);

/* On the lane: calls op->answer(op, status) unless somebody was faster. Returns whether it did. */
bool kvk_op_answer(struct kvk_op *op, int status);

/* Whether it was answered already: what is left to do is cleaning up. */
bool kvk_op_answered(struct kvk_op *op);

/*
 * Around every access to the caller's memory. False: the operation was answered, the memory is the caller's again.
 * Between the two nobody else answers, so what lies between must not wait for a medium.
 */
bool kvk_op_touch(struct kvk_op *op);
void kvk_op_untouch(struct kvk_op *op);

/* On the lane, with no transfer or stream of it under way, and answered. */
void kvk_op_finish(struct kvk_op *op);

/* On the lane, after the answer: what is left (an unlink in the background) has no deadline any more, and takes none of
 * the places of a lane. */
void kvk_op_detach(struct kvk_op *op);

/* On the lane: whether nothing else is under way on it. Then a plain call may take a while. */
bool kvk_op_alone(const struct kvk_op *op);

/* Whether its deadline has passed (or it was canceled): it must not publish any more. */
bool kvk_op_late(struct kvk_op *op);

/*
 * On the lane: has xfer carried out for op; xfer->done is called from the lane's loop, never from in here. A sync ends well only if
 * no other has failed since op was taken up, see backend/syncs.h: else with -EIO.
 */
void kvk_op_submit(struct kvk_op *op, struct kvk_xfer *xfer);

/* ---- the agent ---------------------------------------------------------------------------------- */

enum kvk_engine {
	KVK_ENGINE_AUTO = 0,           /* the ring, else on the lane itself or workers */
	KVK_ENGINE_RING = 1,           /* opening fails if there is none */
	KVK_ENGINE_THREADS = 2,        /* workers with blocking calls */
};

struct kvk_agent_options {
	struct kvk_backend *backend;   /* not owned; outlives the agent */
	enum kvk_engine engine;
	uint32_t lanes;                /* 0: by the machine */
	uint64_t memory_bytes;         /* the store's own, shared out among the lanes */
	uint64_t depth_bytes;          /* ceiling of the budget in flight */
	const struct kvk_log_sink *log;
};

int kvk_agent_new(struct kvk_agent **ret, const struct kvk_agent_options *options, struct kvk_error *error);

/*
 * Answers what is queued with -ECANCELED, cancels what is active, and waits up to wait_us for it to end. 0: all
 * threads are gone, free() may follow. -ETIMEDOUT: a medium hangs; agent, backend and everything that active
 * operations point to must be left alone until another call says 0. One thread at a time.
 */
int kvk_agent_stop(struct kvk_agent *agent, uint64_t wait_us);
void kvk_agent_free(struct kvk_agent *agent);

/* Appends the operations linked in ops (in this order) to the queue and wakes each lane at most once. Any thread. */
void kvk_agent_submit(struct kvk_agent *agent, struct kvk_link *ops);

/* Operations of this group that are not answered are answered with -ECANCELED, soon. Any thread. */
void kvk_agent_cancel(struct kvk_agent *agent, const void *group);

/*
 * To be called every 100 ms or so by a thread that never does I/O, one at a time: answers operations whose deadline passed in
 * the queue or in a lane that is stuck, and fails the queue fast while every lane is stuck.
 */
void kvk_agent_watch(struct kvk_agent *agent);

/* Registered memory, see kvk_store_register(). -EINVAL, -ENOENT, -ENOSPC (more than 64 GiB, or more than 64), -EBUSY. */
int kvk_agent_add_region(struct kvk_agent *agent, void *base, uint64_t bytes);
int kvk_agent_remove_region(struct kvk_agent *agent, void *base);

struct kvk_agent_stats {
	uint64_t short_transfers;
	uint64_t medium_errors;
	uint64_t copied_bytes;
	uint64_t straight_bytes;
	uint64_t memory_bytes;         /* mapped for lanes */
	uint64_t held_slots;           /* by operations that were answered while the kernel had them */
	uint64_t read_depth_bytes;     /* the budgets now */
	uint64_t write_depth_bytes;
	uint32_t lanes;
	uint32_t stuck_lanes;
	bool ring;
	bool workers;
};

void kvk_agent_stats(struct kvk_agent *agent, struct kvk_agent_stats *ret);

#endif
