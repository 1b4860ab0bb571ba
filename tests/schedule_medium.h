/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A medium in memory for stores that run in a world of schedule.h: before each call to it, and after, another thread may run. What
 * is between is one step. Stores come to it by "backend": "RAM"; those with the same file_path share it, as two processes
 * share a directory: each has its own backend, whose locks keep the others out.
 */
#ifndef KVK_TESTS_SCHEDULE_MEDIUM_H
#define KVK_TESTS_SCHEDULE_MEDIUM_H

#include <stdbool.h>
#include <stdint.h>

/* For the stores that are opened from now on. */
struct sched_medium_options {
	bool ring;                     /* it has rings, which end what they took in any order */
	bool waits;                    /* it cannot say beforehand whether a read would wait */
	uint32_t shorten;              /* one transfer of bytes in so many is cut short; 0: none */
	uint32_t hold;                 /* one in so many lasts hold_us; 0: none */
	uint64_t hold_us;
};

void sched_medium_set(const struct sched_medium_options *options);
/* What that process has open there was killed with it (sched_kill_at): nothing holds its locks, and what it asks from now on fails and
 * changes nothing. */
void sched_medium_kill(uint32_t process);
/* The medium of that name is made or forgotten, outside of the stores. */
void sched_medium_forget(const char *name);

/* What lies there, of those that nobody sees too; each rounded up to 4,096. */
struct sched_truth {
	uint64_t objects, aside, others, bytes;
	uint64_t counted_bytes;        /* what the account says: charged, loose and leased together */
	uint64_t leased_bytes;
	int64_t places;                /* that are open in the stores */
};

int sched_medium_truth(const char *name, struct sched_truth *ret);
/* Changes a byte of the first object that is found there, of its payload or of its footer. -ENOENT. */
int sched_medium_damage(const char *name, bool footer);

#endif
