/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Since when something may be on the medium that is not posted.
 *
 * The keeper compares the answer with folders' modification times, which the kernel takes from the time of its last
 * tick (up to 10 ms ago). So we read that clock too, and leave a margin for another processor that is about to see the
 * next tick. An operation that enters after the clock was read here changes folders later than what was read.
 *
 * Where machines share the medium, it is the medium that is asked: NFS stamps folders with the server's clock. CephFS,
 * GlusterFS and Lustre take that of the client, so there the margin covers what clocks may differ, and a greater difference is
 * found out: transactions come one after the other, and one that reads an earlier time than the last one wrote is proof.
 */
#include <inttypes.h>
#include <time.h>

#include "account/account_private.h"
#include "util/clock.h"

#define NS_PER_S UINT64_C(1000000000)
/* The kernel slews both of its clocks alike, so that they part only where one is set: half of the margin, less does no harm. */
#define SET_NS UINT64_C(10000000)
/* Two clocks cannot be read at once. Where the processor was taken away in between, they are read again, so many times. */
#define READINGS 3
/* Less than what makes a time one of the future. */
#define LATELY_NS UINT64_C(500000000)

/* Of this machine. A server that is asked answers sooner or later: what its clock is set back by within half of the margin does
 * no harm. */
static uint64_t monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

uint64_t kvk_account_now_ns(struct kvk_account *account)
{
	uint64_t now_ns;

	return account->backend->ops->now(account->backend, &now_ns) ? 0 : now_ns;
}

uint64_t kvk_account_lately_ns(struct kvk_account *account)
{
	if (account->many_hosts && account->clock_known && monotonic_ns() - account->monotonic_ns < LATELY_NS)
		return account->wall_ns;
	return kvk_account_now_ns(account);
}

/*
 * 1. we wrote down: settled up to 100; 2. our machine's clock is set to 50; 3. we unlink at 60; 4. a keeper on another machine lists
 * at 90, sees a folder of 60 < 100, and takes it for settled; 5. our credit comes on top. So credits of such a time are given up: the
 * bucket stays too high until the folder is listed next, which harms nobody. A keeper on our machine sees that the clock was set.
 */
static void forget_credits(struct kvk_account *account)
{
	for (uint32_t i = 0; i < KVK_ACCOUNT_BUCKETS; i++) {
		uint64_t bytes = atomic_exchange(&account->unlinked_bytes[i], 0);

		atomic_fetch_sub(&account->credits_bytes, bytes);
		atomic_fetch_add(&account->used_bytes, bytes);
	}
}

/* What is under way and what waits is older than any time that is read from now on, whatever was read when it began. */
static void begin_anew(struct kvk_account *account)
{
	for (uint32_t i = 0; i < KVK_ACCOUNT_TURNS; i++)
		account->turns[i].since_ns = 0;
	if (account->credits_since_ns)
		account->credits_since_ns = 1;
	if (account->early_since_ns)
		account->early_since_ns = 1;
	account->frontier_ns = 1;
	account->sync_frontier_ns = 1;
	account->mark_ns = 0;
	account->clock_was_set = true;
}

/*
 * The time of now, or the last one that was told: what is older says less. The two clocks are compared with what they were when one
 * was set for the last time, as far as known, so that little things add up; a server's clock, which drifts, with the last look.
 */
static uint64_t look(struct kvk_account *account)
{
	uint64_t apart_ns = account->many_hosts ? account->margin_ns / 2 : SET_NS;
	uint64_t before_ns, now_ns, after_ns;
	int64_t least_ns, most_ns;     /* by which the medium's clock is ahead of this machine's */
	bool was_known = account->wall_ns != 0, set, set_back;
	uint32_t readings = 0;

	do {
		before_ns = monotonic_ns();
		now_ns = kvk_account_now_ns(account);
		after_ns = monotonic_ns();
	} while (!account->many_hosts && after_ns - before_ns > apart_ns && ++readings < READINGS);
	account->clock_known = now_ns != 0;
	if (!account->clock_known)
		return account->wall_ns;
	least_ns = (int64_t)(now_ns - after_ns);
	most_ns = (int64_t)(now_ns - before_ns);
	set_back = was_known && most_ns + (int64_t)apart_ns < account->least_ahead_ns;
	set = set_back || (was_known && least_ns > account->most_ahead_ns + (int64_t)apart_ns) || readings == READINGS;
	if (set_back && account->many_hosts)
		forget_credits(account);
	if (set)
		begin_anew(account);
	if (set || !was_known || account->many_hosts) {
		account->least_ahead_ns = least_ns;
		account->most_ahead_ns = most_ns;
	}
	account->wall_ns = now_ns;
	account->monotonic_ns = after_ns;
	return now_ns;
}

uint64_t kvk_account_frontier(struct kvk_account *account)
{
	uint64_t now_ns = look(account), oldest_ns = now_ns;
	uint32_t next = (atomic_load(&account->turn) + 1) % KVK_ACCOUNT_TURNS;

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
	oldest_ns = kvk_account_less(oldest_ns, account->margin_ns);
	/* As long as no clock could be asked, something may be under way since ever; 0 would say that nothing is. */
	if (!oldest_ns)
		oldest_ns = 1;

	/* At the last look no unlink waited: those that do now were under way then, or came later. */
	account->waiting_bytes = atomic_load(&account->credits_bytes);
	if (account->credits_since_ns == 0 && account->waiting_bytes)
		account->credits_since_ns = account->frontier_ns;
	account->frontier_ns = oldest_ns;
	return oldest_ns;
}

/* Who comes first has not looked before. What was settled is of the past, by a margin, unless the clock was set back. */
static bool was_set_before_open(const struct kvk_account *account)
{
	for (uint32_t i = 0; i < KVK_ACCOUNT_ROWS; i++) {
		const struct kvk_account_line *line = &account->next.rows[i];

		if (kvk_account_in_use(line) && line->token != account->token && line->settled_ns + account->margin_ns > account->wall_ns)
			return true;
	}
	return false;
}

/* Whoever reads what this transaction writes, or a later one, does so after our look at the clock. */
void kvk_account_mind_set_clock(struct kvk_account *account, struct kvk_account_tx *tx)
{
	struct kvk_account_image *next = &account->next;

	if (account->visits == 0 && account->clock_known && !account->many_hosts && was_set_before_open(account))
		account->clock_was_set = true;
	/* Machines have clocks of their own, and that field for what they differ by. */
	if (!account->many_hosts && account->even_since < next->skewed_sequence)
		account->even_since = next->skewed_sequence;
	/* In a file that was made anew sequences may come again. */
	if (account->clock_was_set || account->even_since > next->sequence + 1)
		account->even_since = next->sequence + 1;
	account->clock_was_set = false;
	if (account->many_hosts || next->skewed_sequence == account->even_since)
		return;
	next->skewed_sequence = account->even_since;
	tx->changed = true;
}

/* ---- clocks that differ -------------------------------------------------------------------------------- */

bool kvk_account_is_skewed(const struct kvk_account *account, const struct kvk_account_image *image)
{
	/* Seen in the transaction under way, it bears the next sequence. */
	return account->many_hosts && image->skewed_sequence &&
	       image->sequence + 1 - image->skewed_sequence <= KVK_ACCOUNT_SKEWED_FOR;
}

void kvk_account_mind_skew(struct kvk_account *account, struct kvk_account_tx *tx)
{
	struct kvk_account_image *next = &account->next;
	uint64_t latest_ns = next->written_ns;

	if (!account->many_hosts || !account->clock_known)
		return;
	for (uint32_t i = 0; i < KVK_ACCOUNT_ROWS; i++) {
		const struct kvk_account_line *line = &next->rows[i];

		if (kvk_account_in_use(line) && line->token != account->token && line->settled_ns > latest_ns)
			latest_ns = line->settled_ns;
	}
	if (latest_ns > account->wall_ns + KVK_ACCOUNT_SKEW_NS) {
		next->skew_ns = latest_ns - account->wall_ns;
		next->skewed_sequence = next->sequence + 1;
		tx->changed = true;
	}
	if (!kvk_account_is_skewed(account, next)) {
		account->skew_told = false;
	} else if (!account->skew_told) {
		account->skew_told = true;
		kvk_log(account->log, KVK_LOG_WARNING, "the clocks of the machines that share this store differ by %" PRIu64
			".%03" PRIu64 " s, or one was set back: until they agree, what is charged may be more than what is there",
			next->skew_ns / NS_PER_S, next->skew_ns % NS_PER_S / 1000000);
	}
}
