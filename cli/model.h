/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simple model that stands beside the store in a replay: for each block whether it must be there. It knows
 * only what was acknowledged, and says how many leading blocks of a request are hits.
 */
#ifndef KVK_CLI_MODEL_H
#define KVK_CLI_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "trace.h"

enum kvk_model_state {
	KVK_MODEL_ABSENT = 0,
	KVK_MODEL_WRITING = 1,     /* a put is under way */
	KVK_MODEL_STORED = 2,      /* a put was acknowledged */
	KVK_MODEL_UNKNOWN = 3,     /* the process was killed while a put was under way: the next lookup tells */
	KVK_MODEL_UNASKED = 4,     /* an earlier run may have left it: likewise */
};

/* The states lie in memory that outlives a killed process; a state is one byte, so it is never half written. */
struct kvk_model {
	uint8_t *states;
	uint64_t count;
};

/*
 * What a lookup said about a block. Returns whether that agrees with the model; an unknown block becomes what was
 * said, and after a disagreement the model takes what was said, so that one fault is counted once.
 */
bool kvk_model_learn(struct kvk_model *model, uint32_t block, bool found);

/* The number of leading blocks that must be hits. Unknown ones are learnt before, else they end the run. */
uint32_t kvk_model_hits(const struct kvk_model *model, const uint32_t *blocks, uint32_t count);

/* The process was killed: puts under way may have ended either way. Returns their number. */
uint64_t kvk_model_killed(struct kvk_model *model);

/* Hits of the first `limit` requests in a cache without limit, one after the other: what a trace can give at most. */
int kvk_model_unlimited_hits(const struct kvk_trace *trace, uint64_t limit, uint64_t *hits);

#endif
