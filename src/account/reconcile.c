/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How what is written down is brought to what is really there, while others publish and unlink.
 *
 * A finding says: the folders of a bucket, last changed at m, held so many bytes when they were listed. What must not happen is
 * that the listing shows an unlink already whose credit is still to come, for then it would be taken off twice; and that what was
 * posted as published is neither in the listing nor added. So there are two ways:
 *
 * Quiet. Every live process has settled up to a time after m: what it did before, which is all that the listing can show, is
 * posted. And nobody posted to the bucket since the mark, which is before the listing: what is posted, the listing has
 * seen. Then the bucket is what was found, exactly. What was published later is not posted, so a lease stands for it.
 *
 * Busy. Every live process has settled up to a time after the listing: each unlink that it can show is credited. (If clocks
 * differ, every live process has settled what it did before it read something that was written after the listing.) What was posted as
 * published since the mark is added, whether the listing has seen it or not. That is too much by what came and went in that
 * time, and never too little. Without it, a store that is never quiet would never get back what dead processes left behind. The
 * finding is kept for that, since whoever sees that the folder changed lists it again.
 */
#include <errno.h>
#include <string.h>

#include "account/account_private.h"

#define PASS_WAIT_MS 5000
#define FUTURE_NS UINT64_C(1000000000)
/* Older findings bound badly. */
#define KEEP_NS UINT64_C(60000000000)

void kvk_account_finding(struct kvk_account *account, struct kvk_bucket_finding *finding, uint32_t bucket)
{
	pthread_mutex_lock(&account->lock);
	*finding = (struct kvk_bucket_finding){
		.bucket = bucket,
		.remade = account->image.remade,
		.sequence = account->image.sequence,
		.published_bytes = bucket < KVK_ACCOUNT_BUCKETS ? account->image.published_bytes[bucket] : 0,
		.begin_ns = kvk_account_lately_ns(account),
	};
	pthread_mutex_unlock(&account->lock);
}

/*
 * Two changes within a tick leave one time, so that a folder that changed just before its listing may have changed during it. A
 * time in the future is of no operation of ours since it was set, or it would be the present.
 */
bool kvk_account_is_still(const struct kvk_account *account, const struct kvk_bucket_finding *finding)
{
	return finding->begin_ns && (finding->modified_ns + account->margin_ns <= finding->begin_ns ||
				     finding->modified_ns > finding->begin_ns + FUTURE_NS);
}

static uint64_t changed_ns(const struct kvk_bucket_finding *finding)
{
	return finding->modified_ns < finding->begin_ns ? finding->modified_ns : finding->begin_ns;
}

static bool all_settled(const struct kvk_account_image *image, uint64_t ns)
{
	for (uint32_t i = 0; i < KVK_ACCOUNT_ROWS; i++) {
		if (kvk_account_in_use(&image->rows[i]) && (image->rows[i].lost || image->rows[i].settled_ns <= ns))
			return false;
	}
	return true;
}

/* The same without clocks: each has settled what it did before it read that sequence. */
static bool all_saw(const struct kvk_account_image *image, uint32_t sequence)
{
	for (uint32_t i = 0; i < KVK_ACCOUNT_ROWS; i++) {
		if (kvk_account_in_use(&image->rows[i]) &&
		    (image->rows[i].lost || (int32_t)(image->rows[i].seen - sequence) < 0))
			return false;
	}
	return true;
}

/*
 * Times that are compared have to come from a clock that went on evenly in between: 1. somebody wrote down: settled up to 100; 2. the
 * clock is set to 50; 3. he unlinks at 60; 4. he does not visit before it is 110, since the clock was set once more; 5. the keeper
 * sees a folder of 60 < 100, and takes the unlink for posted. So when anybody sees that the clock was set, all have to see first what
 * he writes after that: then what they settled is of a later time.
 */
static bool is_even(const struct kvk_account *account)
{
	const struct kvk_account_image *next = &account->next;

	/* Low halves are compared, and nobody who lives has seen less than what is so long ago. */
	if (account->even_since == 0 || next->sequence + 1 - account->even_since > KVK_ACCOUNT_LONG_AGO + KVK_ACCOUNT_LONG_AGO / 2)
		return true;
	return all_saw(next, (uint32_t)account->even_since);
}

/*
 * Times of machines whose clocks differ prove nothing either: 1. somebody 10 s ahead unlinks, at 110 by his clock; 2. he settles all
 * that he did before 109; 3. somebody else changes the same folder, at 101 by hers; 4. the keeper sees 101 < 109, and takes the unlink
 * for posted.
 */
static bool is_doubtful(const struct kvk_account *account, const struct kvk_bucket_finding *finding)
{
	const struct kvk_account_image *next = &account->next;
	bool skewed = kvk_account_is_skewed(account, next) || finding->modified_ns > finding->begin_ns + FUTURE_NS;

	if (!is_even(account))
		return true;
	for (uint32_t i = 0; skewed && account->many_hosts && i < KVK_ACCOUNT_ROWS; i++) {
		if (kvk_account_in_use(&next->rows[i]) && next->rows[i].token != account->token)
			return true;
	}
	return false;
}

static bool posted_since(const struct kvk_account_image *image, const struct kvk_bucket_finding *finding)
{
	return (int32_t)((uint32_t)finding->sequence - image->posted[finding->bucket]) < 0;
}

static void set_exactly(struct kvk_account_image *next, struct kvk_account_tx *tx,
			const struct kvk_bucket_finding *finding)
{
	uint64_t real_bytes = kvk_account_more(0, finding->real_bytes);
	uint64_t *charged_bytes = &next->charged_bytes[finding->bucket];

	if (real_bytes == *charged_bytes || (real_bytes < *charged_bytes && !finding->may_lower))
		return;
	/* What rises is what a dead process published and could not post. While much else is not known, nobody can say. */
	if (real_bytes > *charged_bytes && !next->needs_scan)
		next->loose_bytes = kvk_account_less(next->loose_bytes, real_bytes - *charged_bytes);
	*charged_bytes = real_bytes;
	tx->changed = true;
}

static void set_bound(struct kvk_account *account, struct kvk_account_tx *tx,
		      const struct kvk_bucket_finding *finding)
{
	struct kvk_account_image *next = &account->next;
	uint64_t since_bytes = next->published_bytes[finding->bucket] - finding->published_bytes;
	uint64_t bound_bytes = kvk_account_more(kvk_account_more(0, finding->real_bytes), since_bytes);
	uint64_t *charged_bytes = &next->charged_bytes[finding->bucket];
	/*
	 * More than is charged can only be there if somebody died, and for that stands what is loose. So a bound never raises
	 * a bucket: it may be too high by all that came and went, in each of the buckets, and evictions would run after
	 * it (seen: 40 MB charged, and nothing left on the disk). At the end of the pass so much of what is loose stays.
	 */
	if (bound_bytes > *charged_bytes && !next->needs_scan) {
		account->pass_above_bytes = kvk_account_more(account->pass_above_bytes, bound_bytes - *charged_bytes);
		return;
	}
	if (bound_bytes == *charged_bytes || (bound_bytes < *charged_bytes && !finding->may_lower))
		return;
	*charged_bytes = bound_bytes;
	tx->changed = true;
}

/* Idle processes visit without writing, unless they are asked. */
static void want_settled(struct kvk_account_image *next, struct kvk_account_tx *tx, uint64_t ns)
{
	if (next->wanted_ns > ns)
		return;
	next->wanted_ns = ns + 1;
	tx->changed = true;
}

static void want_seen(struct kvk_account_image *next, struct kvk_account_tx *tx, uint32_t sequence)
{
	/* What was asked long ago is over. */
	if ((uint32_t)next->sequence + 1 - next->asked < KVK_ACCOUNT_LONG_AGO && (int32_t)(sequence - next->asked) <= 0)
		return;
	next->asked = sequence;
	tx->changed = true;
}

/* Whether the finding that is kept for this one's bucket says something now. */
static bool judge_kept(struct kvk_account *account, struct kvk_account_tx *tx, const struct kvk_bucket_finding *finding)
{
	struct kvk_bucket_finding *kept = &account->kept[finding->bucket];
	struct kvk_account_image *next = &account->next;

	if (kept->begin_ns && (kept->remade != next->remade || kept->begin_ns + KEEP_NS < finding->begin_ns))
		kept->begin_ns = 0;
	if (!kept->begin_ns)
		return false;
	/* The sync after a later listing is one after this, too. */
	kept->may_lower |= finding->may_lower;
	if (is_doubtful(account, finding) ? !all_saw(next, kept->end_sequence) : !all_settled(next, kept->end_ns))
		return false;
	set_bound(account, tx, kept);
	if (kept->may_lower)
		kept->begin_ns = 0;
	return true;
}

static int judge(struct kvk_account *account, struct kvk_account_tx *tx, const struct kvk_bucket_finding *finding)
{
	struct kvk_account_image *next = &account->next;
	struct kvk_bucket_finding *kept;
	bool quiet, doubtful;

	if (finding->bucket >= KVK_ACCOUNT_BUCKETS || finding->begin_ns == 0)
		return -EINVAL;
	kept = &account->kept[finding->bucket];
	if (finding->remade != next->remade || !kvk_account_is_still(account, finding))
		return judge_kept(account, tx, finding) ? 1 : -ESTALE;
	doubtful = is_doubtful(account, finding);
	quiet = !doubtful && !posted_since(next, finding);
	if (quiet && all_settled(next, changed_ns(finding))) {
		set_exactly(next, tx, finding);
		kept->begin_ns = 0;
		return 0;
	}
	if (judge_kept(account, tx, finding))
		return 1;
	if (!kept->begin_ns && account->clock_known) {
		/* This transaction comes after the listing, and whoever reads what it writes does so later still. */
		*kept = *finding;
		kept->end_ns = account->wall_ns;
		kept->end_sequence = (uint32_t)next->sequence + 1;
	}
	if (!kept->begin_ns)
		return -EAGAIN;
	if (!is_even(account))
		want_seen(next, tx, (uint32_t)account->even_since);
	if (doubtful)
		want_seen(next, tx, kept->end_sequence);
	else
		want_settled(next, tx, quiet ? changed_ns(finding) : kept->end_ns);
	return -EAGAIN;
}

/* What the transaction that has just ended changed. */
static void correct(struct kvk_account *account, uint64_t before_bytes)
{
	account->corrected_bytes += (int64_t)(before_bytes - account->known_bytes);
}

int64_t kvk_account_corrected(const struct kvk_account *account)
{
	return account->corrected_bytes;
}

int kvk_account_reconcile(struct kvk_account *account, struct kvk_bucket_finding *findings, uint32_t count,
			  uint32_t wait_ms)
{
	struct kvk_account_tx tx = { 0 };
	uint64_t before_bytes;
	int err;

	pthread_mutex_lock(&account->lock);
	err = kvk_account_tx_begin(account, &tx, wait_ms);
	if (!err) {
		before_bytes = kvk_account_charged(&account->next);
		for (uint32_t i = 0; i < count; i++)
			findings[i].status = judge(account, &tx, &findings[i]);
		err = kvk_account_tx_end(account, &tx);
		if (!err)
			correct(account, before_bytes);
	}
	for (uint32_t i = 0; err && i < count; i++)
		findings[i].status = err;
	pthread_mutex_unlock(&account->lock);
	return err;
}

int kvk_account_pass_begin(struct kvk_account *account)
{
	bool sound = true;

	pthread_mutex_lock(&account->lock);
	account->pass_remade = account->image.remade;
	account->pass_loosened_bytes = account->image.loosened_bytes;
	account->pass_above_bytes = 0;
	/* What was listed before says nothing about those who died since. */
	memset(account->kept, 0, sizeof(account->kept));
	for (uint32_t i = 0; i < KVK_ACCOUNT_ROWS; i++)
		sound &= !account->image.rows[i].lost;
	account->pass_sound = sound;
	pthread_mutex_unlock(&account->lock);
	return sound ? 0 : -EAGAIN;
}

int kvk_account_pass_end(struct kvk_account *account)
{
	struct kvk_account_image *next = &account->next;
	struct kvk_account_tx tx = { 0 };
	uint64_t before_bytes;
	uint64_t since_bytes;          /* loose since the pass began, or not known to be gone */
	int err;

	pthread_mutex_lock(&account->lock);
	err = kvk_account_tx_begin(account, &tx, PASS_WAIT_MS);
	if (err)
		goto out;
	if (!account->pass_sound || account->pass_remade != next->remade) {
		kvk_account_tx_end(account, &tx);
		err = -EAGAIN;
		goto out;
	}
	before_bytes = kvk_account_charged(next);
	since_bytes = kvk_account_more(next->loosened_bytes - account->pass_loosened_bytes, account->pass_above_bytes);
	if (next->loose_bytes > since_bytes) {
		next->loose_bytes = since_bytes;
		tx.changed = true;
	}
	tx.changed |= next->needs_scan;
	next->needs_scan = false;
	err = kvk_account_tx_end(account, &tx);
	if (!err)
		correct(account, before_bytes);
out:
	pthread_mutex_unlock(&account->lock);
	return err;
}
