/* SPDX-License-Identifier: Apache-2.0 */
/* Whether what requests were answered can be explained by some order in which they happened one after the other. */
#ifndef KVK_TESTS_SCHEDULE_JUDGE_H
#define KVK_TESTS_SCHEDULE_JUDGE_H

#include <stdbool.h>
#include <stdint.h>

enum act_kind { ACT_PUT, ACT_GET, ACT_LOOKUP, ACT_PIN, ACT_UNPIN, ACT_REMOVE, ACT_EVICT, ACT_DAMAGE, ACT_KINDS };

#define ACTS_MAX 32

struct act {
	enum act_kind kind;
	uint32_t store, key;
	uint32_t generation;           /* of what a put stores, and of what a get delivered */
	uint64_t deadline_us;
	int status;
	uint32_t reason;
	uint64_t begin, end;           /* two acts overlap unless one ends before the other begins */
	bool never;                    /* its process was killed before it asked */
	bool at_rest;                  /* it began when all else was over, and news had come round */
};

struct history {
	struct act acts[ACTS_MAX];
	uint32_t count;
	bool damaged;                  /* what lay there at the beginning may be */
	bool vanish;                   /* objects may be evicted at any time */
};

/* What lay under a key at the beginning. */
struct beginning {
	uint32_t generation;           /* 0: nothing */
	bool damaged;
};

/*
 * Whether there is an order of the acts of this key in which none comes before one that had ended when it began, and in which each
 * answer is the one that a map from keys to objects gives. What else is allowed:
 *
 *   - "busy" while another request of the same process writes or removes the key; of any, where a damaged file is to be replaced.
 *   - An act without an answer (a deadline) happens later, or never.
 *   - Nothing is seen for a moment of what is stored while somebody who found damaged what was there before moves it aside, sees that
 *     it is another, and moves it back.
 *   - Of two processes one may say for a moment that something is there which the other has just removed, unless all is at rest.
 */
bool history_is_explained(const struct history *history, uint32_t key, struct beginning beginning);
void history_tell(const struct history *history);

#endif
