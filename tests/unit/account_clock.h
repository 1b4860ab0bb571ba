/* SPDX-License-Identifier: Apache-2.0 */
/* Time that is the test's own: the clocks of the account go where they are set. Included after account_bed.h, in one file. */
#ifndef KVK_TESTS_UNIT_ACCOUNT_CLOCK_H
#define KVK_TESTS_UNIT_ACCOUNT_CLOCK_H

#include <sys/syscall.h>

#define MS UINT64_C(1000000)
#define SECOND (1000 * MS)

static uint64_t wall = UINT64_C(1700000000) * SECOND, since_boot = 5000 * SECOND;

/* In place of the C library's, for the account in this program. */
int clock_gettime(clockid_t clock, struct timespec *now)
{
	uint64_t ns = clock == CLOCK_REALTIME_COARSE ? wall : clock == CLOCK_MONOTONIC_COARSE ? since_boot : 0;

	if (!ns)
		return (int)syscall(SYS_clock_gettime, clock, now);
	*now = (struct timespec){ .tv_sec = (time_t)(ns / SECOND), .tv_nsec = (long)(ns % SECOND) };
	return 0;
}

static inline void go_on(uint64_t ns)
{
	wall += ns;
	since_boot += ns;
}

/* A listing that found so much, in a folder that was changed at that time. */
static inline int find(struct process *process, uint32_t bucket, uint64_t modified_ns, uint64_t real_bytes, bool may_lower)
{
	struct kvk_bucket_finding finding;

	kvk_account_finding(process->account, &finding, bucket);
	finding.modified_ns = modified_ns;
	finding.real_bytes = real_bytes;
	finding.may_lower = may_lower;
	assert_int_equal(kvk_account_reconcile(process->account, &finding, 1, 100), 0);
	return finding.status;
}

static inline uint64_t bucket_of(struct process *process, uint32_t bucket)
{
	return image_of(process)->charged_bytes[bucket];
}

#endif
