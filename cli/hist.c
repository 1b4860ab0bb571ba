/* SPDX-License-Identifier: Apache-2.0 */
#include "hist.h"

static uint32_t bucket_of(uint64_t ns)
{
	uint32_t shift;

	if (ns >> KVK_HIST_VALUE_BITS)
		ns = (UINT64_C(1) << KVK_HIST_VALUE_BITS) - 1;
	if (ns < KVK_HIST_STEPS)
		return (uint32_t)ns;
	shift = 63 - (uint32_t)__builtin_clzll(ns) - KVK_HIST_STEP_BITS;
	return (shift + 1) * KVK_HIST_STEPS + (uint32_t)(ns >> shift) - KVK_HIST_STEPS;
}

/* The greatest value that falls into a bucket. */
static uint64_t bucket_end(uint32_t bucket)
{
	uint32_t shift;

	if (bucket < KVK_HIST_STEPS)
		return bucket;
	shift = bucket / KVK_HIST_STEPS - 1;
	return ((uint64_t)(bucket % KVK_HIST_STEPS + KVK_HIST_STEPS + 1) << shift) - 1;
}

void kvk_hist_add(struct kvk_hist *hist, uint64_t ns)
{
	hist->counts[bucket_of(ns)]++;
	if (ns > hist->max_ns)
		hist->max_ns = ns;
}

uint64_t kvk_hist_count(const struct kvk_hist *hist)
{
	uint64_t count = 0;

	for (uint32_t i = 0; i < KVK_HIST_BUCKETS; i++)
		count += hist->counts[i];
	return count;
}

uint64_t kvk_hist_quantile_ns(const struct kvk_hist *hist, double share)
{
	uint64_t count = kvk_hist_count(hist), seen = 0;
	double wanted = share * (double)count;

	for (uint32_t i = 0; i < KVK_HIST_BUCKETS; i++) {
		seen += hist->counts[i];
		if (hist->counts[i] && (double)seen >= wanted) {
			uint64_t ns = bucket_end(i);

			return ns < hist->max_ns ? ns : hist->max_ns;
		}
	}
	return 0;
}
