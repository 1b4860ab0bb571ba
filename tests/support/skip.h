/* SPDX-License-Identifier: Apache-2.0 */
/* A skipped test says why: cmocka's skip() alone would not, and the totals name every skip with its reason. */
#ifndef KVK_TESTS_SUPPORT_SKIP_H
#define KVK_TESTS_SUPPORT_SKIP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

/* Ends the test under way. The format is printf's. scripts/check joins the line with the result that follows it. */
#define SKIP(...) \
	do { \
		printf("SKIP: "); \
		printf(__VA_ARGS__); \
		printf("\n"); \
		fflush(stdout); \
		skip(); \
	} while (0)

/* A child of a process with threads may not start any under TSan. */
#if defined(__SANITIZE_THREAD__)
#define UNDER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UNDER_TSAN 1
#endif
#endif
#ifndef UNDER_TSAN
#define UNDER_TSAN 0
#endif

#endif
