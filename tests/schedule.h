/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A world in which a seed decides who runs: threads, locks, sleep and time of whatever is linked with it, in one thread of the
 * system.
 *
 * The linker puts the functions of schedule_wrap.c in the place of those of pthread, poll, nanosleep and clock_gettime
 * (`sched_wraps` in tests/unit/meson.build). A thread is a stack of its own, and leaves the processor only where it waits, or at a
 * point: before and after each call to the medium (schedule_medium.h), and, where the seed says so, before a lock is taken.
 * There the scheduler draws who goes on. Time stands still as long as somebody can: it goes on by a microsecond with
 * each look at the clock, and when all wait, to where the first of them waits no longer; so a second of sleep costs nothing, and nobody
 * has to wait until the others are quiet: all but one are. Where the seed says so, a timer goes off now and then although others
 * could run, so that room threads, keepers and watches come in between.
 *
 * Hence a seed is a schedule: which one is told by the trace, a hash of who was at which point in which order. What is not tried
 * is what happens between two points, as another thread between two atomic accesses, and what processors reorder. That is for
 * the tests with real threads, and ThreadSanitizer.
 */
#ifndef KVK_TESTS_SCHEDULE_H
#define KVK_TESTS_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

struct sched_options {
	uint64_t seed;
	/* Who goes on: drawn anew at each point, with one chance in `stay` (1: always) to leave the one that runs; or 0: the one
	 * with the highest priority, which is drawn when a thread begins and becomes the lowest at one point in `demote`. */
	uint32_t stay, demote;
	uint32_t locks;                /* one lock in so many is a point; 0: none */
	uint32_t timers;               /* at one point in so many a timer goes off early; 0: never */
	uint32_t jumps;                /* at one point in so many the wall clock is set forward or back; 0: never */
};

struct sched_outcome {
	uint64_t trace;
	uint64_t points, switches, early_timers, jumps;
	bool stuck;                    /* all waited, for nothing that could come; or they ran for ever */
};

/* Runs body as the first thread, calmly until it says otherwise, and returns when all have ended. With stuck their stacks are
 * given up, and what they had is lost. */
void sched_run(const struct sched_options *options, void (*body)(void *), void *argument, struct sched_outcome *ret);

/* ---- for those that run in it ------------------------------------------------------------------------ */

/* From here on, in this thread, points are none (calls nest): it goes on until it waits. */
void sched_quiet_begin(void);
void sched_quiet_end(void);
/* The same for all, until it is called with false: while stores are opened, and when all is over. */
void sched_calm(bool calm);
bool sched_is_calm(void);
/* Whether anybody is scheduled here, quietly or not. */
bool sched_runs(void);
void sched_point(const char *what, const char *detail);
/* A number of this schedule, below limit. */
uint64_t sched_below(uint64_t limit);
uint64_t sched_now_us(void);
/* Until then, or until sched_wake(on). */
void sched_sleep(const void *on, uint64_t until_us);
/* Those that wait for it, or one of them, drawn. */
void sched_wake(const void *on, bool all);
/* Points there were so far: what is before what. */
uint64_t sched_step(void);
/* Sets the wall clock, by milliseconds or by days; others are not touched. */
void sched_jump(void);
/* Threads belong to the process of who made them, unless told otherwise. */
void sched_join_process(uint32_t process);
uint32_t sched_process(void);
/* The threads of that process stop where they are, with all they hold, and nobody waits for them any more; then is called once they
 * have. At that point of those that are still to come, or (0) now; not while all is calm. Once a schedule. */
void sched_kill_at(uint64_t point, uint32_t process, void (*then)(void *user), void *user);
/* They go on, so that what they have can be given back. */
void sched_revive(uint32_t process);
/* Ends the schedule as stuck: it went wrong, and what follows makes no sense. */
void sched_give_up(void) __attribute__((noreturn));

/* ---- for schedule_wrap.c --------------------------------------------------------------------------------- */

#define SCHED_NEVER UINT64_MAX

unsigned long sched_spawn(void *(*run)(void *), void *argument);
/* NULL also when it was killed. */
void *sched_await(unsigned long thread);
void sched_name(unsigned long thread, const char *name);
/* Waits for sched_wake(on), until that time at most; false: it came. */
bool sched_block(const void *on, uint64_t until_ns);
uint64_t sched_clock_ns(void);
/* How far the wall clock was set, in all. */
int64_t sched_wall_ns(void);
void sched_lock_point(void);
/* What a mutex's owner is; never NULL. */
const void *sched_self(void);

#endif
