/* SPDX-License-Identifier: Apache-2.0 */
/* A quick measurement for whoever runs a store: put, get, lookup, one after the other, with so many in flight. */
#ifndef KVK_CLI_BENCH_H
#define KVK_CLI_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#include <kvkeep/kvkeep.h>

#include "blockkey.h"
#include "cli.h"
#include "hist.h"

enum kvk_bench_phase_kind {
	KVK_BENCH_PUT = 0,
	KVK_BENCH_GET = 1,
	KVK_BENCH_LOOKUP = 2,
};
#define KVK_BENCH_PHASES 3

struct kvk_bench_phase {
	struct kvk_hist latency;
	uint64_t items;
	uint64_t bytes;
	uint64_t spent_ns;
	uint64_t cpu_ns;           /* of the process, without making and comparing payloads */
	uint64_t failed;
	char failure[96];          /* the first one, in words */
};

struct kvk_bench_slot;

struct kvk_bench {
	/* From the command line. */
	uint64_t object_bytes;
	uint64_t inflight;
	uint64_t phase_ns;
	uint64_t total_bytes;      /* at most so much is put */
	bool held;
	bool json;
	/* Running. */
	struct kvk_store *store;
	struct kvk_bench_slot *slots;
	void *memory;
	uint64_t memory_bytes;
	uint64_t seed;
	uint64_t stored;           /* objects 0 to stored - 1 were put */
	uint64_t wrong_bytes;
	uint64_t check_cpu_ns;
	struct kvk_progress progress;
	struct kvk_bench_phase phases[KVK_BENCH_PHASES];
};

/* Set by a signal: phases end early, and what was put is removed as always. */
extern volatile int kvk_bench_interrupted;

/* Each returns 0 or -errno; what single items met is in the phase. */
int kvk_bench_init(struct kvk_bench *bench);
void kvk_bench_release(struct kvk_bench *bench);
int kvk_bench_run(struct kvk_bench *bench, enum kvk_bench_phase_kind kind);
int kvk_bench_remove(struct kvk_bench *bench);

#endif
