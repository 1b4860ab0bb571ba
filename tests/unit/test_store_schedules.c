/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Races of requests in one store, in schedules drawn from a seed: a few requests for one or two keys meet in a world where a seed says
 * at each step who goes on (schedule_run.h).
 *
 * Known races that are found again in what a test run tries when their fix is taken out (tests/mutants/race.txt, which names this
 * test there): the double charge of a store and a lookup, two puts of a key, delete against lookup (both its versions, and the dying
 * file), delete against store (the state, and the unlink by name), a transfer cut short that is counted twice, a transfer
 * that ends after its deadline, one straight into memory that was not lent, and a request answered twice.
 * Found too, but only in hundreds to thousands of schedules of a case, so by the long run: a lookup that makes known what is being
 * written, quarantine of a fresh object, and what was found, or put, before it was moved aside.
 * Not seen here: EEXIST on a damaged file treated as success (store_between), and durability acknowledged by a footer alone (nothing
 * is lost: store_durability, store_crash_states).
 */
#include "schedule_run.h"

static const struct scenario scenarios[] = {
	{ "store_and_lookup", { [ACT_PUT] = 2, [ACT_LOOKUP] = 2, [ACT_GET] = 1, [ACT_PIN] = 1 }, .stores = 1, .keys = 1,
	  .present = 30 },
	{ "remove_and_lookup", { [ACT_REMOVE] = 3, [ACT_LOOKUP] = 3, [ACT_GET] = 1, [ACT_PIN] = 1, [ACT_PUT] = 1 }, .stores = 1,
	  .keys = 1, .present = 80 },
	{ "remove_and_store", { [ACT_REMOVE] = 1, [ACT_PUT] = 1 }, .stores = 1, .keys = 1, .present = 50 },
	{ "all", { [ACT_REMOVE] = 2, [ACT_PUT] = 3, [ACT_GET] = 2, [ACT_LOOKUP] = 1, [ACT_PIN] = 1 }, .stores = 1, .keys = 2,
	  .present = 50 },
	{ "damaged", { [ACT_REMOVE] = 1, [ACT_PUT] = 4, [ACT_GET] = 4, [ACT_LOOKUP] = 1 }, .stores = 1, .keys = 1,
	  .present = 100, .damaged = 90 },
	{ "damaged_meanwhile", { [ACT_REMOVE] = 1, [ACT_PUT] = 5, [ACT_GET] = 2, [ACT_LOOKUP] = 1, [ACT_DAMAGE] = 3 }, .stores = 1,
	  .keys = 1, .present = 50 },
	{ "short_transfers", { [ACT_REMOVE] = 1, [ACT_PUT] = 4, [ACT_GET] = 4 }, .stores = 1, .keys = 1, .present = 50,
	  .damaged = 10, .shorten = 3 },
	{ "held_steps", { [ACT_REMOVE] = 1, [ACT_PUT] = 3, [ACT_GET] = 3, [ACT_LOOKUP] = 1 }, .stores = 1, .keys = 1, .present = 50,
	  .hold = 25 },
	{ "evictions", { [ACT_REMOVE] = 1, [ACT_PUT] = 3, [ACT_GET] = 2, [ACT_LOOKUP] = 1, [ACT_PIN] = 1, [ACT_EVICT] = 2 }, .stores = 1,
	  .keys = 2, .present = 60, .evicts = true },
};

#define COUNT (sizeof(scenarios) / sizeof(scenarios[0]))

int main(void)
{
	return schedules_main(scenarios, COUNT, 600);
}
