/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Races of two processes on one medium, in schedules drawn from a seed (schedule_run.h).
 *
 * Found again in what a test run tries when the fix is taken out (tests/mutants): a lease taken from a process that lives, and a
 * replacement that was removed while it had the name. Found too, but only in hundreds to thousands of schedules of a case, so by the
 * long run: two keepers, and a replaced damaged file credited twice.
 */
#include "schedule_run.h"

static const struct scenario scenarios[] = {
	{ "two_processes", { [ACT_REMOVE] = 2, [ACT_PUT] = 3, [ACT_GET] = 2, [ACT_LOOKUP] = 1, [ACT_PIN] = 1 }, .stores = 2,
	  .keys = 1, .present = 50 },
	{ "two_processes_and_two_keys", { [ACT_REMOVE] = 2, [ACT_PUT] = 3, [ACT_GET] = 2, [ACT_LOOKUP] = 1, [ACT_PIN] = 1 },
	  .stores = 2, .keys = 2, .present = 50 },
	{ "two_processes_and_damaged", { [ACT_REMOVE] = 1, [ACT_PUT] = 4, [ACT_GET] = 4, [ACT_LOOKUP] = 1 }, .stores = 2, .keys = 1,
	  .present = 100, .damaged = 90 },
	{ "two_processes_and_damaged_meanwhile", { [ACT_REMOVE] = 1, [ACT_PUT] = 5, [ACT_GET] = 2, [ACT_DAMAGE] = 3 }, .stores = 2,
	  .keys = 1, .present = 30 },
	{ "two_processes_and_evictions", { [ACT_REMOVE] = 1, [ACT_PUT] = 3, [ACT_GET] = 2, [ACT_LOOKUP] = 1, [ACT_EVICT] = 2 },
	  .stores = 2, .keys = 2, .present = 60, .evicts = true },
};

#define COUNT (sizeof(scenarios) / sizeof(scenarios[0]))

int main(void)
{
	return schedules_main(scenarios, COUNT, 600);
}
