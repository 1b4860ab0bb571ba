/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How what is written down is brought to what is really there, while others publish and unlink.
 *
 * A finding says: the folders of a bucket, last changed at m, held so many bytes. It may be written down only if nothing that
 * it shows is still to be posted, or else an unlink that it shows already would be taken off once more. So:
 *
 * - every live process has settled up to a time after m: what it did before, which is all that the listing can show, is
 *   posted;
 * - nobody posted to the bucket since the mark, which is before the listing: what is posted, the listing has seen.
 *
 * What is published after the listing is not posted either (or the second rule fails), so a lease stands for it.
 */
#include <errno.h>

#include "account/account_private.h"

#define PASS_WAIT_MS 5000

void kvk_account_finding(struct kvk_account *account, struct kvk_bucket_finding *finding, uint32_t bucket)
{
	pthread_mutex_lock(&account->lock);
	*finding = (struct kvk_bucket_finding){
		.bucket = bucket,
		.mark = account->image.sequence,
		.begin_ns = kvk_account_tick_ns(),
	};
	pthread_mutex_unlock(&account->lock);
}

/* A modification time in the future is of no operation of ours since, or it would be the present. */
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

static bool posted_since(const struct kvk_account_image *image, const struct kvk_bucket_finding *finding)
{
	return (int32_t)((uint32_t)finding->mark - image->posted[finding->bucket]) < 0;
}

static void set_bucket(struct kvk_account_image *next, struct kvk_account_tx *tx,
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

static int judge(struct kvk_account_image *next, struct kvk_account_tx *tx, const struct kvk_bucket_finding *finding)
{
	if (finding->bucket >= KVK_ACCOUNT_BUCKETS || finding->begin_ns == 0)
		return -EINVAL;
	if (posted_since(next, finding))
		return -EAGAIN;
	if (!all_settled(next, changed_ns(finding))) {
		/* Idle processes visit without writing, unless they are asked. */
		if (next->wanted_ns <= changed_ns(finding)) {
			next->wanted_ns = changed_ns(finding) + 1;
			tx->changed = true;
		}
		return -EAGAIN;
	}
	set_bucket(next, tx, finding);
	return 0;
}

int kvk_account_reconcile(struct kvk_account *account, struct kvk_bucket_finding *findings, uint32_t count,
			  uint32_t wait_ms)
{
	struct kvk_account_tx tx = { 0 };
	int err;

	pthread_mutex_lock(&account->lock);
	err = kvk_account_tx_begin(account, &tx, wait_ms);
	if (!err) {
		for (uint32_t i = 0; i < count; i++)
			findings[i].status = judge(&account->next, &tx, &findings[i]);
		err = kvk_account_tx_end(account, &tx);
	}
	for (uint32_t i = 0; err && i < count; i++)
		findings[i].status = err;
	pthread_mutex_unlock(&account->lock);
	return err;
}

void kvk_account_pass_begin(struct kvk_account *account)
{
	pthread_mutex_lock(&account->lock);
	account->pass_remade = account->image.remade;
	account->pass_loosened_bytes = account->image.loosened_bytes;
	account->pass_sound = true;
	for (uint32_t i = 0; i < KVK_ACCOUNT_ROWS; i++)
		account->pass_sound &= !account->image.rows[i].lost;
	pthread_mutex_unlock(&account->lock);
}

int kvk_account_pass_end(struct kvk_account *account)
{
	struct kvk_account_image *next = &account->next;
	struct kvk_account_tx tx = { 0 };
	uint64_t since_bytes;
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
	since_bytes = next->loosened_bytes - account->pass_loosened_bytes;
	if (next->loose_bytes > since_bytes) {
		next->loose_bytes = since_bytes;
		tx.changed = true;
	}
	tx.changed |= next->needs_scan;
	next->needs_scan = false;
	err = kvk_account_tx_end(account, &tx);
out:
	pthread_mutex_unlock(&account->lock);
	return err;
}
