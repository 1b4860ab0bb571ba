/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KVK_UTIL_CLOCK_H
#define KVK_UTIL_CLOCK_H

#include <stdint.h>
#include <time.h>

/* Microseconds of CLOCK_MONOTONIC: for deadlines; jumps of the wall clock do not touch it. */
static inline uint64_t kvk_now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

/* Nanoseconds since 1970: for what is written down. */
static inline uint64_t kvk_wall_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* The same, of the kernel's last tick: what it stamps files and folders with. */
static inline uint64_t kvk_tick_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME_COARSE, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* In a loop that waits for another thread: lets the other hardware thread of the core work. */
static inline void kvk_relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

#endif
