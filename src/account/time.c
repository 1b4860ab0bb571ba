/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Since when something may be on the medium that is not posted.
 *
 * The keeper compares the answer with folders' modification times, which the kernel takes from the time of its last
 * tick (up to 10 ms ago). So we read that clock too, and leave a margin for another processor that is about to see the
 * next tick. An operation that enters after the clock was read here changes folders later than what was read.
 */
#include <time.h>

#include "account/account_private.h"

#define NS_PER_S UINT64_C(1000000000)
/* The wall clock is slewed by half a millisecond a second at most; what is set back by more shows. */
#define BACK_NS UINT64_C(10000000)

static uint64_t read_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

uint64_t kvk_account_tick_ns(void)
{
	return read_ns(CLOCK_REALTIME_COARSE);
}

/*
 * 1. we wrote down: settled up to 100; 2. somebody sets the clock to 50; 3. we unlink at 60; 4. the keeper lists at 90, sees a
 * folder of 60 < 100, and takes it for settled; 5. our credit comes on top. So credits of such a time are given up: the bucket stays too
 * high until the keeper comes by, which harms nobody.
 */
static void forget_credits(struct kvk_account *account)
{
	for (uint32_t i = 0; i < KVK_ACCOUNT_BUCKETS; i++) {
		uint64_t bytes = atomic_exchange(&account->unlinked_bytes[i], 0);

		atomic_fetch_sub(&account->credits_bytes, bytes);
		atomic_fetch_add(&account->used_bytes, bytes);
	}
	for (uint32_t i = 0; i < KVK_ACCOUNT_TURNS; i++) {
		if (atomic_load(&account->turns[i].count))
			account->turns[i].since_ns = 0;
	}
}

uint64_t kvk_account_frontier(struct kvk_account *account)
{
	uint64_t now_ns = kvk_account_tick_ns();
	uint64_t monotonic_ns = read_ns(CLOCK_MONOTONIC_COARSE);
	uint64_t oldest_ns = now_ns;
	uint32_t next = (atomic_load(&account->turn) + 1) % KVK_ACCOUNT_TURNS;

	if (now_ns + BACK_NS < account->wall_ns + (monotonic_ns - account->monotonic_ns))
		forget_credits(account);
	account->wall_ns = now_ns;
	account->monotonic_ns = monotonic_ns;

	/* A turn that still has somebody under way is not begun anew: all go on being counted in the one before. Who read
	 * the old turn and adds itself only now is later than now_ns, too. */
	if (atomic_load(&account->turns[next].count) == 0) {
		account->turns[next].since_ns = now_ns;
		atomic_store(&account->turn, next);
	}
	for (uint32_t i = 0; i < KVK_ACCOUNT_TURNS; i++) {
		if (atomic_load(&account->turns[i].count) && account->turns[i].since_ns < oldest_ns)
			oldest_ns = account->turns[i].since_ns;
	}
	oldest_ns = kvk_account_less(oldest_ns, KVK_ACCOUNT_MARGIN_NS);

	/* At the last look no unlink waited: those that do now were under way then, or came later. */
	if (account->credits_since_ns == 0 && atomic_load(&account->credits_bytes))
		account->credits_since_ns = account->frontier_ns;
	account->frontier_ns = oldest_ns;
	return oldest_ns;
}
