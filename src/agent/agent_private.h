/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the agent share. */
#ifndef KVK_AGENT_AGENT_PRIVATE_H
#define KVK_AGENT_AGENT_PRIVATE_H

#include <pthread.h>

#include "agent/agent.h"
#include "agent/depth.h"
#include "agent/memory.h"
#include "agent/stream.h"

#define KVK_LANES_MAX 32
#define KVK_WORKERS_MAX 16
/* The kernel takes at most 1 GiB of memory under one index (2 GiB: EFAULT), so a registration is kept in parts. */
#define KVK_REGION_BYTES (UINT64_C(1) << 30)
#define KVK_REGIONS_MAX 64
/* Operations that a lane runs at a time; more wait in the queue. Bounds descriptors: one or two each. */
#define KVK_LANE_ACTIVE_MAX 64
/* With nothing to do and nothing due, a lane looks round this often all the same. */
#define KVK_LANE_SLEEP_US_MAX 1000000

enum claim {
	CLAIM_OPEN = 0,
	CLAIM_TOUCHING,        /* its lane uses the caller's memory */
	CLAIM_ANSWERED,
};

struct kvk_region {
	uint8_t *base;         /* NULL: free */
	uint64_t bytes;
	void *whole;           /* where the registration begins that this is a part of */
};

struct kvk_lane {
	struct kvk_agent *agent;
	pthread_t thread;
	int start_result;
	struct kvk_ring *ring;                 /* NULL: none */
	int wake_fd;                           /* eventfd; -1 with a ring, which has its own */
	pthread_mutex_t active_lock;           /* guards the links of active, for the watching thread */
	struct kvk_link active;                /* operations, in the order they were taken up */
	uint32_t active_count;                 /* of those that are not detached */
	atomic_bool has_stream[2];             /* a read, a write has pieces to cut */
	struct kvk_link streams;               /* that have pieces to cut, in that order too */
	struct kvk_link ended_streams;         /* whose done() is due */
	struct kvk_link finished;              /* transfers whose result came in this turn */
	pthread_mutex_t returned_lock;         /* guards returned, and the ring's end against those who wake */
	struct kvk_link returned;              /* transfers that workers are through with */
	uint32_t ring_in_flight;
	bool lingers;                          /* something ended since it last lingered */
	uint8_t slow_writes;                   /* a bit for each of the last eight writes on this thread */
	uint32_t writes_elsewhere;
	struct kvk_memory memory;
	struct kvk_piece *free_pieces;
	uint64_t next_deadline_us;
	atomic_uint held_slots;                /* in transfers of answered operations */
	struct kvk_region regions[KVK_REGIONS_MAX];    /* as this ring knows them */
	uint64_t regions_version;
	atomic_bool sleeping;
	atomic_bool look_at_deadlines;
	atomic_bool choked;                    /* too much of its memory is in a hung medium */
	atomic_bool gone;                      /* its thread has ended */
	pid_t thread_id;                       /* the kernel's, of its thread */
	atomic_uint_fast64_t turn_us;          /* when it last came round, or was woken to */
	uint64_t watched_turn_us;              /* turn_us as the watch last saw it */
	uint64_t silent_us;                    /* of the watch's own time since turn_us moved */
	atomic_bool stuck;                     /* as the watch last found */
	atomic_uint_fast64_t regions_seen;     /* the version it has applied */
};

struct kvk_worker_pool {
	struct kvk_agent *agent;
	pthread_mutex_t lock;                  /* guards what follows */
	pthread_cond_t work;
	struct kvk_link waiting;
	uint32_t threads;
	uint32_t idle;
	bool stopping;
	atomic_uint alive;
};

struct kvk_agent {
	struct kvk_backend *backend;
	struct kvk_log_sink log;
	enum kvk_engine engine;
	uint64_t budget_bytes;
	bool lingers;                          /* there are processors to spare for it */
	bool inline_bytes;                     /* reads and writes are carried out on the lane itself */
	struct kvk_depth depth;
	pthread_mutex_t queue_lock;            /* guards the queue */
	struct kvk_link queue[KVK_OP_CLASS_COUNT];
	uint64_t queue_deadline_us;            /* none in the queue is earlier */
	uint64_t sequence;
	uint32_t reads_in_a_row;               /* taken up since the last write was */
	bool stopping;
	uint32_t lanes_started;
	pthread_cond_t started;
	atomic_uint queued;
	pthread_mutex_t regions_lock;          /* guards the table of regions */
	struct kvk_region regions[KVK_REGIONS_MAX];
	atomic_uint_fast64_t regions_version;
	struct kvk_worker_pool pool;
	atomic_uint_fast64_t short_transfers;
	atomic_uint_fast64_t medium_errors;
	atomic_uint_fast64_t copied_bytes;
	atomic_uint_fast64_t straight_bytes;
	atomic_uint_fast64_t memory_bytes;
	atomic_bool stuck;                     /* every lane is */
	uint64_t watched_us;                   /* when the watch last looked */
	uint32_t lane_count;
	struct kvk_lane lanes[KVK_LANES_MAX];
};

/* lane.c */
void *kvk_lane_main(void *lane);
void kvk_lane_wake(struct kvk_lane *lane);
/* Where transfers end, from the ring, a worker, or the lane itself. */
void kvk_lane_route(struct kvk_lane *lane, struct kvk_xfer *xfer);
/* Carries xfer out on this thread, joining short results. */
void kvk_lane_run_here(struct kvk_lane *lane, struct kvk_xfer *xfer);

/* agent.c: takes the next operation for this lane off the queue, or NULL. */
struct kvk_op *kvk_agent_take(struct kvk_agent *agent, struct kvk_lane *lane);

/* stream.c */
/* Cuts and posts as much as budget and memory allow. Returns whether anything was done. */
bool kvk_streams_issue(struct kvk_lane *lane);
void kvk_streams_end(struct kvk_lane *lane);
void kvk_pieces_free(struct kvk_lane *lane);

/* workers.c */
int kvk_workers_init(struct kvk_worker_pool *pool, struct kvk_agent *agent);
void kvk_workers_submit(struct kvk_worker_pool *pool, struct kvk_xfer *xfer);
/* Whether it was still waiting; then it is the caller's again. */
bool kvk_workers_take_back(struct kvk_worker_pool *pool, struct kvk_xfer *xfer);
void kvk_workers_stop(struct kvk_worker_pool *pool);
void kvk_workers_release(struct kvk_worker_pool *pool);

#endif
