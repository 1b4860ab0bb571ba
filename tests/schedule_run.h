/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole stores in schedules drawn from a seed.
 *
 * A few requests for one or two keys meet in one store, or in two that share a medium, in a world where a seed says at each step
 * who goes on (schedule.h): lanes, room threads, keepers and those that ask. After each schedule every answer has to be explained by
 * some order (schedule_judge.h); what was delivered is judged from the key; no memory of a caller's was touched after his answer;
 * nothing is pinned, open, or left under a temporary name; and what the stores say to be used, and the account when they are
 * closed, are the bytes that lie there. A store that is killed stops between two steps, with all that it had begun; the others have
 * to come to the same end without it.
 *
 * KVK_SEED is the seed of the first schedule, KVK_STEPS their number in each case: with KVK_STEPS=1 it is one schedule, and with
 * KVK_TRACE=1 each of its steps is told on stderr. KVK_ONLY is a case.
 */
#ifndef KVK_TESTS_SCHEDULE_RUN_H
#define KVK_TESTS_SCHEDULE_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "schedule_judge.h"

struct scenario {
	const char *name;
	uint32_t odds[ACT_KINDS];      /* what a client does */
	uint32_t stores, keys;
	uint32_t present, damaged;     /* in 100, of each key at the beginning */
	uint32_t shorten;              /* one transfer in so many */
	uint32_t hold;                 /* one step in so many lasts longer than requests may */
	bool evicts;
	bool pool;                     /* objects lie in slots, of one store at a time */
	bool dies;                     /* one of the stores is killed; another may be opened meanwhile, and is where there was one */
	uint32_t jumps;                /* at one point in so many the wall clock is set */
	uint64_t found[4];             /* seeds that something was found with, up to the first 0: they come on top, without KVK_STEPS */
};

/* Each scenario is a case, of so many schedules unless KVK_STEPS says otherwise. What main() returns. */
int schedules_main(const struct scenario *scenarios, uint32_t count, uint64_t schedules);

#endif
