/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and closing an account, and what any thread may call. */
#include "account/account.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "account/account_private.h"
#include "util/alloc.h"
#include "util/error.h"

/* A visit holds the lock for a read, a write and a sync. */
#define OPEN_WAIT_MS 5000

#define OPTION_PATH "backend_params.file_path"

/* What is printable of the machine's name: it is shown to people, and written to a file that is checked. */
static void name_host(struct kvk_account *account)
{
	char name[256];
	size_t used = 0;

	if (gethostname(name, sizeof(name)))
		return;
	name[sizeof(name) - 1] = '\0';
	while (used < sizeof(account->host) - 1 && name[used] > 0x20 && name[used] < 0x7f)
		used++;
	memcpy(account->host, name, used);
}

static int choose_token(struct kvk_account *account)
{
	while (account->token == 0) {
		if (getrandom(&account->token, sizeof(account->token), 0) != sizeof(account->token))
			return -EIO;
	}
	return 0;
}

/* Called within a transaction. The lock of the row stays. */
static int choose_row(struct kvk_account *account)
{
	struct kvk_backend *backend = account->backend;

	for (uint32_t i = 0; i < KVK_ACCOUNT_ROWS; i++) {
		if (!kvk_account_in_use(&account->next.rows[i]) && !backend->ops->lock(backend, i, 0)) {
			account->row = i;
			return 0;
		}
	}
	return -EUSERS;
}

/* Both copies take their room on the medium while there is some. */
static void write_again(struct kvk_account *account)
{
	struct kvk_account_tx tx = { 0 };

	if (kvk_account_tx_begin(account, &tx, OPEN_WAIT_MS))
		return;
	tx.changed = true;
	kvk_account_tx_end(account, &tx);
}

static int enter_row(struct kvk_account *account, struct kvk_error *error)
{
	struct kvk_account_tx tx;
	bool is_new;
	int err = kvk_account_tx_begin_open(account, &tx, OPEN_WAIT_MS);

	if (err == -EBUSY)
		return kvk_error_set(error, err, OPTION_PATH, "another process has held the account of this store for %d s",
				     OPEN_WAIT_MS / 1000);
	if (err == -EPROTO)
		return kvk_error_set(error, err, OPTION_PATH, "the account of this store was written by a newer version of "
				     "kvkeep: use that version, or another directory");
	if (err)
		return kvk_error_set(error, err, OPTION_PATH, "cannot read .kvkeep/account: %s", strerror(-err));
	is_new = account->next.sequence == 0;
	account->alone_at_open = tx.processes == 0;
	err = choose_row(account);
	if (err) {
		kvk_account_tx_give_up(account);
		return kvk_error_set(error, err, OPTION_PATH, "%u processes have this store open, which is as many as can",
				     KVK_ACCOUNT_ROWS);
	}
	/* Before it did anything. */
	account->seen = account->next.sequence;
	tx.seen = account->seen;
	kvk_account_tx_take_row(account, &tx);
	account->epoch = account->next.epoch;
	account->next.rows[account->row].settled_ns = kvk_account_frontier(account);
	kvk_account_mind_set_clock(account, &tx);
	kvk_account_mind_skew(account, &tx);
	account->sync_frontier_ns = account->frontier_ns;
	/* Where it cannot be written, visits try again: what is stored can be loaded all the same. */
	if (!kvk_account_tx_end(account, &tx) && is_new)
		write_again(account);
	return 0;
}

int kvk_account_open(struct kvk_account **ret, struct kvk_backend *backend, uint64_t cap_bytes, bool empty,
		     const struct kvk_log_sink *log, struct kvk_error *error)
{
	struct kvk_account *account = kvk_mem_zalloc(1, sizeof(*account));
	int err;

	if (!account)
		return kvk_error_set(error, -ENOMEM, NULL, "out of memory");
	account->backend = backend;
	account->log = log;
	account->first_cap_bytes = cap_bytes;
	account->first_empty = empty;
	account->many_hosts = backend->caps.many_hosts;
	account->margin_ns = account->many_hosts ? KVK_ACCOUNT_SHARED_MARGIN_NS : KVK_ACCOUNT_MARGIN_NS;
	pthread_mutex_init(&account->lock, NULL);
	pthread_mutex_init(&account->look_lock, NULL);
	name_host(account);
	err = choose_token(account);
	if (err) {
		kvk_error_set(error, err, NULL, "no random numbers from the kernel");
		goto fail;
	}
	pthread_mutex_lock(&account->lock);
	err = enter_row(account, error);
	pthread_mutex_unlock(&account->lock);
	if (err)
		goto fail;
	*ret = account;
	return 0;

fail:
	pthread_mutex_destroy(&account->look_lock);
	pthread_mutex_destroy(&account->lock);
	kvk_mem_free(account);
	return err;
}

void kvk_account_retire(struct kvk_account *account, uint32_t wait_ms)
{
	struct kvk_account_tx tx = { 0 };

	if (!account)
		return;
	pthread_mutex_lock(&account->lock);
	if (account->retired)
		goto out;
	if (!kvk_account_tx_begin(account, &tx, wait_ms)) {
		account->next.rows[account->row] = (struct kvk_account_line){ 0 };
		tx.leaves = true;
		tx.changed = true;
		kvk_account_tx_end(account, &tx);
	}
	account->backend->ops->unlock(account->backend, account->row);
	account->retired = true;
out:
	pthread_mutex_unlock(&account->lock);
}

void kvk_account_close(struct kvk_account *account, uint32_t wait_ms)
{
	if (!account)
		return;
	kvk_account_retire(account, wait_ms);
	pthread_mutex_destroy(&account->look_lock);
	pthread_mutex_destroy(&account->lock);
	kvk_mem_free(account);
}

void kvk_account_abandon(struct kvk_account *account)
{
	kvk_mem_free(account);
}

/* ---- any thread -------------------------------------------------------------------------------------- */

uint32_t kvk_account_enter(struct kvk_account *account)
{
	uint32_t turn = atomic_load(&account->turn);

	atomic_fetch_add(&account->turns[turn].count, 1);
	return turn;
}

void kvk_account_leave(struct kvk_account *account, uint32_t entered)
{
	atomic_fetch_sub(&account->turns[entered].count, 1);
}

bool kvk_account_is_entered(const struct kvk_account *account)
{
	for (uint32_t i = 0; i < KVK_ACCOUNT_TURNS; i++) {
		if (atomic_load(&account->turns[i].count) > 0)
			return true;
	}
	return false;
}

void kvk_account_published(struct kvk_account *account, uint32_t bucket, uint64_t bytes)
{
	atomic_fetch_add(&account->used_bytes, bytes);
	atomic_fetch_add(&account->published_bytes[bucket], bytes);
}

/* The sum first: it is never less than its parts. */
void kvk_account_unlinked(struct kvk_account *account, uint32_t bucket, uint64_t bytes)
{
	atomic_fetch_sub(&account->used_bytes, bytes);
	atomic_fetch_add(&account->credits_bytes, bytes);
	atomic_fetch_add(&account->unlinked_bytes[bucket], bytes);
}

bool kvk_account_has_credits(const struct kvk_account *account)
{
	return atomic_load(&account->credits_bytes) != 0;
}

void kvk_account_usage(const struct kvk_account *account, uint64_t *used_bytes, uint64_t *cap_bytes)
{
	int64_t used = (int64_t)atomic_load(&account->used_bytes);

	/* What is unlinked may not have been charged. */
	*used_bytes = used > 0 ? (uint64_t)used : 0;
	*cap_bytes = atomic_load(&account->cap_bytes);
}

uint64_t kvk_account_bucket(struct kvk_account *account, uint32_t bucket)
{
	uint64_t bytes;

	pthread_mutex_lock(&account->look_lock);
	bytes = kvk_account_more(account->image.charged_bytes[bucket], account->posting_bytes[bucket]);
	bytes = kvk_account_more(bytes, atomic_load(&account->published_bytes[bucket]));
	bytes = kvk_account_less(bytes, account->early_bytes[bucket]);
	bytes = kvk_account_less(bytes, account->syncing_bytes[bucket]);
	bytes = kvk_account_less(bytes, atomic_load(&account->unlinked_bytes[bucket]));
	pthread_mutex_unlock(&account->look_lock);
	return bytes;
}

uint64_t kvk_account_epoch(const struct kvk_account *account, bool *alone_at_open)
{
	*alone_at_open = account->alone_at_open;
	return account->epoch;
}
