/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A replay: a worker process plays requests against the store, its parent kills and restarts it and prints the report.
 * What must outlive a killed worker lies in memory that both share; it has no pointers that change.
 */
#ifndef KVK_CLI_REPLAY_H
#define KVK_CLI_REPLAY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>
#include <kvkeep/kvkeep.h>

#include "hist.h"
#include "model.h"
#include "trace.h"

#define KVK_REPLAY_CONCURRENCY_MAX 1024
#define KVK_REPLAY_KILLS_MAX 64
#define KVK_REPLAY_FAULTS_MAX 8
#define KVK_REPLAY_REASONS 32

enum kvk_replay_op {
	KVK_REPLAY_LOOKUP = 0,
	KVK_REPLAY_LOAD = 1,
	KVK_REPLAY_STORE = 2,
};
#define KVK_REPLAY_OPS 3

/* One of lookup, load and store. A lookup's latency is that of a request's whole batch, the others' that of an object. */
struct kvk_replay_op_stats {
	struct kvk_hist latency;
	uint64_t items;
	uint64_t bytes;
	uint64_t busy_ns;          /* while at least one was under way */
	uint64_t failed[KVK_REPLAY_REASONS];   /* by enum kvk_reason; absences and no room are not failures */
};

/* What became of a request; written before `done` is set, so a killed worker leaves no half of it. */
struct kvk_replay_request {
	uint32_t hits;
	uint32_t model_hits;
	_Atomic uint32_t done;
};

struct kvk_replay_shared {
	_Atomic uint64_t done;         /* requests */
	struct kvk_replay_op_stats ops[KVK_REPLAY_OPS];
	uint64_t wrong_bytes;
	uint64_t disagreements;        /* a lookup's answer for a block that the model contradicts */
	uint64_t unacknowledged_found; /* stored by a killed worker that could not say so any more */
	uint64_t found_before;         /* blocks that earlier runs had left */
	uint64_t no_room;
	uint64_t present;              /* puts of what was there although a lookup had not found it */
	uint64_t submit_again;         /* -EAGAIN */
	uint64_t check_cpu_ns;         /* of making and comparing payloads */
	uint64_t opened;               /* how often the store was opened ... */
	uint64_t open_ns_most;         /* ... and how long that took at most ... */
	uint64_t first_load_ns_most;   /* ... and from the call to open to the first object that was loaded */
	char faults[KVK_REPLAY_FAULTS_MAX][160];   /* the first things that went wrong, in words */
	uint64_t fault_count;
	struct kvk_stats stats;        /* of workers that ended in peace */
};

struct kvk_replay {
	/* From the command line. */
	json_t *spec;
	const char *trace_argument;
	uint64_t limit;
	uint64_t concurrency;
	uint64_t bytes_per_token;
	uint64_t memory_bytes;
	uint64_t seed;
	uint64_t cap_bytes;
	uint64_t kills[KVK_REPLAY_KILLS_MAX];
	uint32_t kill_count;
	bool held;
	bool json;
	/* Derived. */
	struct kvk_trace trace;
	uint64_t object_bytes;
	bool not_empty;                /* the store may hold blocks already */
	/* In shared memory. */
	struct kvk_replay_shared *shared;
	struct kvk_replay_request *requests;
	struct kvk_model model;
	/* The report's. */
	uint64_t restarts;
	uint64_t unacknowledged;       /* puts under way when a worker was killed */
	uint64_t wall_ns;
	uint64_t cpu_ns;
};

/*
 * The worker process, from open to close: plays what is not done yet, and writes a byte to notify_fd for each request that
 * is. Returns an enum kvk_exit for the process. stay: when all is done, wait to be killed.
 */
int kvk_replay_work(struct kvk_replay *replay, int notify_fd, bool stay);

/* Notes in words what went wrong; the first few are kept. Worker and parent. */
void kvk_replay_fault(struct kvk_replay *replay, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Runs workers until all requests are done. 0, or an enum kvk_exit after saying what is wrong. */
int kvk_replay_control(struct kvk_replay *replay);

/* Prints what came of it and returns the exit status: 1 if a byte was wrong, the model disagreed, or something failed. */
int kvk_replay_report(const struct kvk_replay *replay);

#endif
