/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes that are killed, and a wall clock that is set, in schedules drawn from a seed (schedule_run.h).
 *
 * Who is killed is one of the processes, at a point that is drawn, or when all were answered. Others go on, and one may be opened
 * before or after. What is left of it has to be settled, counted and listed, so that all is as if it had been closed; what it had begun
 * has happened or not. The clock is set by a millisecond, or by up to two days, forward and back, and what is counted comes to what is
 * there all the same.
 */
#include "schedule_run.h"

static const struct scenario scenarios[] = {
	{ "one_of_two_is_killed", { [ACT_REMOVE] = 2, [ACT_PUT] = 3, [ACT_GET] = 2, [ACT_LOOKUP] = 1, [ACT_PIN] = 1 }, .stores = 2,
	  .keys = 1, .present = 50, .dies = true },
	{ "another_after_a_kill", { [ACT_REMOVE] = 2, [ACT_PUT] = 3, [ACT_GET] = 2, [ACT_LOOKUP] = 1 }, .stores = 1, .keys = 2,
	  .present = 50, .dies = true },
	{ "clock_is_set", { [ACT_REMOVE] = 2, [ACT_PUT] = 3, [ACT_GET] = 2, [ACT_LOOKUP] = 1 }, .stores = 1, .keys = 2,
	  .present = 50, .jumps = 20 },
	{ "clock_of_two_is_set", { [ACT_REMOVE] = 2, [ACT_PUT] = 3, [ACT_GET] = 2, [ACT_LOOKUP] = 1 }, .stores = 2, .keys = 1,
	  .present = 50, .jumps = 40, .found = { 80 } },
	{ "clock_is_set_and_evictions", { [ACT_REMOVE] = 1, [ACT_PUT] = 3, [ACT_GET] = 2, [ACT_LOOKUP] = 1, [ACT_EVICT] = 2 },
	  .stores = 2, .keys = 2, .present = 60, .evicts = true, .jumps = 40, .found = { 1090 } },
};

#define COUNT (sizeof(scenarios) / sizeof(scenarios[0]))

int main(void)
{
	return schedules_main(scenarios, COUNT, 600);
}
