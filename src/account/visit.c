/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "account/account_private.h"

#define SET_CAP_WAIT_MS 5000

void kvk_account_sync_begin(struct kvk_account *account)
{
	pthread_mutex_lock(&account->lock);
	account->sync_frontier_ns = kvk_account_frontier(account);
	pthread_mutex_lock(&account->look_lock);
	for (uint32_t i = 0; i < KVK_ACCOUNT_BUCKETS; i++)
		account->syncing_bytes[i] += atomic_exchange(&account->unlinked_bytes[i], 0);
	pthread_mutex_unlock(&account->look_lock);
	pthread_mutex_unlock(&account->lock);
}

/* What of bytes may be leased now. */
static uint64_t allowed(const struct kvk_account_image *image, uint64_t bytes)
{
	uint64_t taken_bytes, room_bytes;

	if (image->needs_scan)
		return 0;
	taken_bytes = kvk_account_charged(image) + kvk_account_leased(image);
	room_bytes = kvk_account_less(image->cap_bytes ? image->cap_bytes : KVK_ACCOUNT_VALUE_MAX, taken_bytes);
	return bytes < room_bytes ? bytes : room_bytes;
}

int kvk_account_visit(struct kvk_account *account, struct kvk_account_visit *visit, uint32_t wait_ms)
{
	struct kvk_account_tx tx = { .synced = visit->synced };
	struct kvk_account_image *next = &account->next;
	struct kvk_account_line *line;
	uint64_t lacking_bytes, granted_bytes;
	int err;

	visit->granted_bytes = 0;
	pthread_mutex_lock(&account->lock);
	/* Even if the visit fails: the caller is not to wonder whose it is. */
	account->lease_bytes = kvk_account_less(account->lease_bytes, visit->give_bytes);
	err = kvk_account_tx_begin(account, &tx, wait_ms);
	if (err)
		goto out;
	line = &next->rows[account->row];
	lacking_bytes = kvk_account_less(visit->want_bytes, line->leased_bytes);
	granted_bytes = allowed(next, lacking_bytes);
	line->leased_bytes += granted_bytes;
	tx.changed |= granted_bytes > 0;
	err = kvk_account_tx_end(account, &tx);
	if (err)
		goto out;
	account->lease_bytes += granted_bytes;
	visit->granted_bytes = granted_bytes;
	visit->missing_bytes = lacking_bytes - granted_bytes;
	visit->charged_bytes = account->known_bytes;
	visit->loose_bytes = next->loose_bytes;
	visit->died = next->died;
	visit->leased_bytes = kvk_account_leased(next);
	visit->cap_bytes = next->cap_bytes;
	visit->epoch = next->epoch;
	visit->processes = tx.processes;
	visit->needs_scan = next->needs_scan;
out:
	pthread_mutex_unlock(&account->lock);
	return err;
}

uint64_t kvk_account_take_overdrawn(struct kvk_account *account)
{
	uint64_t bytes;

	pthread_mutex_lock(&account->lock);
	bytes = account->overdrawn_bytes;
	account->overdrawn_bytes = 0;
	pthread_mutex_unlock(&account->lock);
	return bytes;
}

int kvk_account_set_cap(struct kvk_account *account, uint64_t cap_bytes)
{
	struct kvk_account_tx tx = { 0 };
	int err;

	pthread_mutex_lock(&account->lock);
	err = kvk_account_tx_begin(account, &tx, SET_CAP_WAIT_MS);
	if (!err) {
		tx.changed |= account->next.cap_bytes != cap_bytes;
		account->next.cap_bytes = cap_bytes;
		err = kvk_account_tx_end(account, &tx);
	}
	pthread_mutex_unlock(&account->lock);
	return err;
}

uint32_t kvk_account_rows(struct kvk_account *account, struct kvk_account_row *rows, uint32_t count)
{
	uint32_t used = 0;

	pthread_mutex_lock(&account->look_lock);
	for (uint32_t i = 0; i < KVK_ACCOUNT_ROWS; i++) {
		const struct kvk_account_line *line = &account->image.rows[i];

		if (!kvk_account_in_use(line))
			continue;
		if (used++ >= count)
			continue;
		rows[used - 1] = (struct kvk_account_row){
			.leased_bytes = line->leased_bytes,
			.settled_ns = line->settled_ns,
			.index = i,
			.pid = line->pid,
			.self = line->token == account->token,
			.alive = !account->dead[i],
		};
		memcpy(rows[used - 1].host, line->host, sizeof(line->host));
	}
	pthread_mutex_unlock(&account->look_lock);
	return used;
}

uint64_t kvk_account_skew_ns(struct kvk_account *account)
{
	uint64_t skew_ns;

	pthread_mutex_lock(&account->look_lock);
	skew_ns = kvk_account_is_skewed(account, &account->image) ? account->image.skew_ns : 0;
	pthread_mutex_unlock(&account->look_lock);
	return skew_ns;
}
