/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A histogram of latencies: 64 steps for each power of two, so a quantile is at most 1.6 % too high. It has
 * a fixed size and no pointers: it may lie in memory that processes share, and a count that is
 * half-done when its process is killed costs one sample at most.
 */
#ifndef KVK_CLI_HIST_H
#define KVK_CLI_HIST_H

#include <stdint.h>

#define KVK_HIST_STEP_BITS 6
#define KVK_HIST_STEPS (1u << KVK_HIST_STEP_BITS)
/* Values from 2^42 ns (73 minutes) on count as that. */
#define KVK_HIST_VALUE_BITS 42
#define KVK_HIST_BUCKETS ((KVK_HIST_VALUE_BITS - KVK_HIST_STEP_BITS + 1) * KVK_HIST_STEPS)

struct kvk_hist {
	uint64_t counts[KVK_HIST_BUCKETS];
	uint64_t max_ns;
};

void kvk_hist_add(struct kvk_hist *hist, uint64_t ns);
uint64_t kvk_hist_count(const struct kvk_hist *hist);
/* The least value that at least this share (0 to 1) of the samples does not exceed; 0 if there are none. */
uint64_t kvk_hist_quantile_ns(const struct kvk_hist *hist, double share);

#endif
