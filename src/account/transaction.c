/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A transaction: lock, read, change, write, sync, unlock. Nothing that was read earlier is believed, for others change the file
 * too; what was in memory is only what to fall back on when the file is lost.
 */
#include "account/account_private.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "util/alloc.h"
#include "util/clock.h"

#define SETTLE_ROWS 16u
/* Who lives visits four times a second; one that is stopped, or hangs between publishing and telling it, may post later than this. */
#define EARLY_NS UINT64_C(2000000000)

uint64_t kvk_account_charged(const struct kvk_account_image *image)
{
	uint64_t bytes = image->loose_bytes;

	for (uint32_t i = 0; i < KVK_ACCOUNT_BUCKETS; i++)
		bytes += image->charged_bytes[i];
	return bytes;
}

uint64_t kvk_account_leased(const struct kvk_account_image *image)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < KVK_ACCOUNT_ROWS; i++)
		bytes += image->rows[i].leased_bytes;
	return bytes;
}

/* ---- reading ----------------------------------------------------------------------------------------- */

/* Into next. -ENOENT: there is no file. -EBADMSG: none that can be believed. -EFBIG: one that is too long to be ours. */
static int load(struct kvk_account *account)
{
	struct kvk_backend *backend = account->backend;
	uint64_t bytes;
	void *data;
	int err = backend->ops->load_file(backend, KVK_FILE_ACCOUNT, &data, &bytes, 2 * KVK_ACCOUNT_BYTES);

	if (err)
		return err;
	err = kvk_account_parse_file(&account->next, &account->scratch, data, bytes);
	kvk_mem_free(data);
	/* Somebody put an old one back. */
	if (!err && kvk_account_is_later(account->image.sequence, account->next.sequence))
		err = -EBADMSG;
	return err;
}

/*
 * The file is lost. What this process saw last is the best there is; what the others leased since is not known, and what they
 * posted is not either.
 */
static void make_anew(struct kvk_account *account, bool missing)
{
	struct kvk_account_image *next = &account->next;
	/* What lies there after our own first write failed is what that left. */
	bool empty = account->first_empty && account->image.sequence == 0 && (missing || account->doubt.stands);

	/* Who lives has leased, whatever else is there. */
	for (uint32_t i = 0; empty && i < KVK_ACCOUNT_ROWS; i++)
		empty = account->backend->ops->is_locked(account->backend, i) != 1;
	*next = account->image;
	if (next->sequence == 0)
		next->cap_bytes = account->first_cap_bytes;
	next->needs_scan = !empty;
	/* Another number also when it is lost twice within a tick. */
	next->remade = (uint32_t)((kvk_tick_ns() + next->sequence) ^ account->token);
	for (uint32_t i = 0; i < KVK_ACCOUNT_BUCKETS; i++)
		next->posted[i] = (uint32_t)next->sequence + 1;
	for (uint32_t i = 0; i < KVK_ACCOUNT_ROWS; i++) {
		struct kvk_account_line *line = &next->rows[i];

		line->lost = kvk_account_in_use(line) ||
			     (!empty && account->backend->ops->is_locked(account->backend, i) == 1);
	}
	if (!empty)
		kvk_log(account->log, KVK_LOG_WARNING, "the account of what is stored is lost or damaged: nothing can be put until a "
			"scan has counted what is there");
}

/*
 * The lock of a dead process is free. What it had leased may be on the medium, so it counts on. Locking in passing asks and
 * makes sure in one call; nobody takes a row without the lock of the account, which we hold. A visit looks at a few rows, each time at
 * the next ones: with 200 processes, looking at all took 1.4 of the 1.5 ms that it held the lock of all.
 */
static void settle_dead(struct kvk_account *account, struct kvk_account_tx *tx, uint32_t own, uint32_t most)
{
	struct kvk_account_image *next = &account->next;
	struct kvk_backend *backend = account->backend;
	uint32_t first = account->cursor, looked = 0;
	bool dead;

	for (uint32_t n = 0; n < KVK_ACCOUNT_ROWS; n++) {
		uint32_t i = (first + n) % KVK_ACCOUNT_ROWS;
		struct kvk_account_line *line = &next->rows[i];

		if (i == own || !kvk_account_in_use(line))
			continue;
		tx->processes++;
		if (looked == most)
			continue;
		looked++;
		account->cursor = i + 1;
		dead = !backend->ops->lock(backend, i, 0);
		pthread_mutex_lock(&account->look_lock);
		account->dead[i] = dead;
		pthread_mutex_unlock(&account->look_lock);
		if (!dead)
			continue;
		tx->processes--;
		next->loose_bytes = kvk_account_more(next->loose_bytes, line->leased_bytes);
		next->loosened_bytes += line->leased_bytes;
		next->died++;
		*line = (struct kvk_account_line){ 0 };
		backend->ops->unlock(backend, i);
		tx->changed = true;
	}
}

int kvk_account_tx_take_row(struct kvk_account *account, struct kvk_account_tx *tx)
{
	struct kvk_account_line *line = &account->next.rows[account->row];

	if (line->token != 0 && line->token != account->token)
		return -ESTALE;
	if (line->token == account->token && !line->lost)
		return 0;
	/* New, or the file was lost, or others found our lock free because somebody removed the file of locks. */
	*line = (struct kvk_account_line){
		.token = account->token,
		.seen = (uint32_t)account->seen,
		.visits = line->token ? line->visits : 0,
		.pid = (uint32_t)getpid(),
	};
	memcpy(line->host, account->host, sizeof(line->host));
	if (!account->counted)
		account->next.epoch++;
	tx->changed = true;
	return 0;
}

/* ---- posting ----------------------------------------------------------------------------------------- */

/* Whether others may still post what they have published, so that what is early is worth keeping. */
static bool is_patient(const struct kvk_account *account, const struct kvk_account_tx *tx)
{
	return tx->processes > 1 && (!account->early_until_ns || account->monotonic_ns < account->early_until_ns);
}

/*
 * 1. One process publishes; 2. another one removes that, syncs and visits; 3. the first one visits. What the second one credits is
 * not charged yet then: so much of it waits for the third step, in which it would else be charged for good.
 */
static void post_bucket(struct kvk_account *account, struct kvk_account_tx *tx, uint32_t bucket, bool patient)
{
	struct kvk_account_image *next = &account->next;
	const struct kvk_account_doubt *doubt = &account->doubt;
	uint64_t published_bytes = atomic_exchange(&account->published_bytes[bucket], 0);
	uint64_t credited_bytes = tx->synced ? account->syncing_bytes[bucket] : 0;
	uint64_t early_bytes = account->early_bytes[bucket], left_bytes;

	account->posting_bytes[bucket] = published_bytes;
	tx->posted_bytes += published_bytes;
	if (tx->applied) {
		published_bytes = kvk_account_less(published_bytes, doubt->published_bytes[bucket]);
		credited_bytes = kvk_account_less(credited_bytes, doubt->credited_bytes[bucket]);
	}
	left_bytes = kvk_account_less(early_bytes + credited_bytes,
				      kvk_account_more(next->charged_bytes[bucket], published_bytes));
	account->staying_bytes[bucket] = patient ? left_bytes : 0;
	tx->stays |= account->staying_bytes[bucket] > 0;
	if (!published_bytes && !credited_bytes && account->staying_bytes[bucket] == early_bytes)
		return;
	next->charged_bytes[bucket] = kvk_account_more(next->charged_bytes[bucket], published_bytes);
	next->published_bytes[bucket] += published_bytes;
	next->charged_bytes[bucket] = kvk_account_less(next->charged_bytes[bucket], early_bytes + credited_bytes);
	next->posted[bucket] = (uint32_t)next->sequence + 1;
	tx->changed = true;
}

/* No unlink of what is early is older: what began to stay in this transaction had waited for its sync before. */
static uint64_t early_since_ns(const struct kvk_account *account)
{
	return account->early_since_ns ? account->early_since_ns : account->credits_since_ns;
}

/* Up to when everything is posted, once this transaction is written. */
static uint64_t settled_ns(struct kvk_account *account, const struct kvk_account_tx *tx, uint64_t frontier_ns)
{
	uint64_t since_ns = tx->synced ? account->sync_frontier_ns : account->credits_since_ns;
	uint64_t waiting_bytes = account->waiting_bytes;

	/* What stays is older than all that waits for a sync. */
	if (tx->stays) {
		since_ns = early_since_ns(account);
		return since_ns < frontier_ns ? since_ns : frontier_ns;
	}
	for (uint32_t i = 0; tx->synced && i < KVK_ACCOUNT_BUCKETS; i++)
		waiting_bytes -= account->syncing_bytes[i];
	return waiting_bytes && since_ns < frontier_ns ? since_ns : frontier_ns;
}

/*
 * Which sequence was read before all that is not posted. A mark is set at one, and reached when everything older than the
 * moment of its reading is posted: only this process's own looks at the clock are compared.
 */
static void follow_mark(struct kvk_account *account, struct kvk_account_tx *tx)
{
	const struct kvk_account_image *next = &account->next;

	tx->seen = account->seen;
	/* In a file that was made anew sequences may come again. */
	if (next->remade != account->image.remade) {
		tx->seen = next->sequence - KVK_ACCOUNT_LONG_AGO;
		account->mark_ns = 0;
	}
	if (account->mark_ns && tx->settled_ns >= account->mark_ns) {
		tx->seen = account->mark;
		account->mark_ns = 0;
	}
	if (!account->mark_ns) {
		account->mark = next->sequence;
		account->mark_ns = account->wall_ns;
	}
}

static bool is_asked(const struct kvk_account_image *image, uint32_t seen)
{
	return (uint32_t)image->sequence - image->asked < KVK_ACCOUNT_LONG_AGO && (int32_t)(seen - image->asked) < 0;
}

static void post(struct kvk_account *account, struct kvk_account_tx *tx)
{
	struct kvk_account_line *line = &account->next.rows[account->row];
	uint64_t frontier_ns = kvk_account_frontier(account);
	bool patient = is_patient(account, tx);

	kvk_account_mind_set_clock(account, tx);
	tx->applied = account->doubt.stands && line->visits == account->doubt.visits;
	tx->changed |= account->doubt.stands;
	pthread_mutex_lock(&account->look_lock);
	for (uint32_t i = 0; i < KVK_ACCOUNT_BUCKETS; i++)
		post_bucket(account, tx, i, patient);
	pthread_mutex_unlock(&account->look_lock);
	tx->settled_ns = settled_ns(account, tx, frontier_ns);
	follow_mark(account, tx);
	kvk_account_mind_skew(account, tx);
	tx->changed |= is_asked(&account->next, line->seen) && line->seen != (uint32_t)tx->seen;
	/* Nor is half of a sequence compared with what is half a round away. */
	tx->changed |= (uint32_t)tx->seen - line->seen >= KVK_ACCOUNT_LONG_AGO;
	line->seen = (uint32_t)tx->seen;
	/* An idle process writes only when it is asked to, or if it has to take back what it said: the clock was set back. */
	if (line->settled_ns < account->next.wanted_ns && tx->settled_ns > line->settled_ns)
		tx->changed = true;
	if (tx->settled_ns < line->settled_ns)
		tx->changed = true;
	line->settled_ns = tx->settled_ns;
	if (line->leased_bytes != kvk_account_less(account->lease_bytes, tx->posted_bytes))
		tx->changed = true;
	/* More than the lease is charged all the same: it is there. */
	line->leased_bytes = kvk_account_less(account->lease_bytes, tx->posted_bytes);
}

static void put_back(struct kvk_account *account)
{
	for (uint32_t i = 0; i < KVK_ACCOUNT_BUCKETS; i++) {
		atomic_fetch_add(&account->published_bytes[i], account->posting_bytes[i]);
		account->posting_bytes[i] = 0;
	}
}

/* ---- begin and end ----------------------------------------------------------------------------------- */

static int begin(struct kvk_account *account, struct kvk_account_tx *tx, uint32_t wait_ms)
{
	struct kvk_backend *backend = account->backend;
	int err = backend->ops->lock(backend, KVK_LOCK_ACCOUNT, wait_ms);

	if (err)
		return err;
	err = load(account);
	/* What we write lies before the end of such a file: it would be too long for ever, and nothing leased again. Locked anew
	 * when it was replaced, since with many hosts the lock is the old file's. */
	if (err == -EFBIG && !backend->ops->save_file(backend, KVK_FILE_ACCOUNT, "", 0, false)) {
		kvk_account_tx_give_up(account);
		err = backend->ops->lock(backend, KVK_LOCK_ACCOUNT, wait_ms);
		if (err)
			return err;
		err = load(account);
	}
	if (err == -ENOENT || err == -EBADMSG || err == -EFBIG) {
		make_anew(account, err == -ENOENT);
		tx->changed = true;
		err = 0;
	}
	if (err)
		kvk_account_tx_give_up(account);
	return err;
}

void kvk_account_tx_give_up(struct kvk_account *account)
{
	account->backend->ops->unlock(account->backend, KVK_LOCK_ACCOUNT);
}

int kvk_account_tx_begin_open(struct kvk_account *account, struct kvk_account_tx *tx, uint32_t wait_ms)
{
	int err;

	*tx = (struct kvk_account_tx){ 0 };
	err = begin(account, tx, wait_ms);
	if (err)
		return err;
	settle_dead(account, tx, KVK_ACCOUNT_ROWS, KVK_ACCOUNT_ROWS);
	return 0;
}

int kvk_account_tx_begin(struct kvk_account *account, struct kvk_account_tx *tx, uint32_t wait_ms)
{
	int err;

	/* It would take a row again, which nobody gives back. */
	if (account->retired)
		return -ESHUTDOWN;
	*tx = (struct kvk_account_tx){ .synced = tx->synced, .processes = 1 };
	err = begin(account, tx, wait_ms);
	if (err)
		return err;
	settle_dead(account, tx, account->row, SETTLE_ROWS);
	err = kvk_account_tx_take_row(account, tx);
	if (err) {
		kvk_account_tx_give_up(account);
		return err;
	}
	post(account, tx);
	return 0;
}

static void follow_early(struct kvk_account *account, const struct kvk_account_tx *tx)
{
	if (!tx->stays) {
		account->early_since_ns = 0;
		account->early_until_ns = 0;
	} else if (!account->early_until_ns) {
		account->early_since_ns = early_since_ns(account);
		account->early_until_ns = account->monotonic_ns + EARLY_NS;
	}
}

/* What was posted and credited stays so. Returns by how much what this process knows besides the file has changed. */
static uint64_t succeed(struct kvk_account *account, const struct kvk_account_tx *tx)
{
	uint64_t credited_bytes = 0, early_bytes = 0;  /* what is early no more; modulo 2^64 */

	account->overdrawn_bytes += kvk_account_less(tx->posted_bytes, account->lease_bytes);
	account->lease_bytes = kvk_account_less(account->lease_bytes, tx->posted_bytes);
	for (uint32_t i = 0; i < KVK_ACCOUNT_BUCKETS; i++) {
		uint64_t bytes = tx->synced ? account->syncing_bytes[i] :
				 tx->applied ? account->doubt.credited_bytes[i] : 0;

		account->syncing_bytes[i] -= bytes;
		credited_bytes += bytes;
		early_bytes += account->early_bytes[i] - account->staying_bytes[i];
		account->early_bytes[i] = account->staying_bytes[i];
	}
	follow_early(account, tx);
	if (atomic_fetch_sub(&account->credits_bytes, credited_bytes) == credited_bytes)
		account->credits_since_ns = 0;
	else if (tx->synced)
		account->credits_since_ns = account->sync_frontier_ns;
	account->doubt.stands = false;
	account->counted = true;
	account->complained = false;
	return credited_bytes + early_bytes - tx->posted_bytes;
}

/*
 * The write failed, and the file may hold it all the same. When it is read again, the row's number of visits tells whether
 * it does, and what it had posted is not posted twice. If a second one fails before that is certain, the credits of the
 * first are given up: better too high than too low. So is what was early.
 */
static void doubt(struct kvk_account *account, const struct kvk_account_tx *tx)
{
	struct kvk_account_doubt *doubt = &account->doubt;

	for (uint32_t i = 0; i < KVK_ACCOUNT_BUCKETS; i++) {
		if (doubt->stands) {
			account->syncing_bytes[i] -= doubt->credited_bytes[i];
			atomic_fetch_sub(&account->credits_bytes, doubt->credited_bytes[i]);
			atomic_fetch_add(&account->used_bytes, doubt->credited_bytes[i]);
		}
		atomic_fetch_add(&account->used_bytes, account->early_bytes[i]);
		account->early_bytes[i] = 0;
		doubt->published_bytes[i] = account->posting_bytes[i];
		doubt->credited_bytes[i] = tx->synced ? account->syncing_bytes[i] : 0;
	}
	account->early_since_ns = 0;
	account->early_until_ns = 0;
	doubt->visits = account->visits;
	doubt->stands = true;
}

/* What is in the file now is what whoever looks is told. */
static void take_next(struct kvk_account *account)
{
	for (uint32_t i = 0; i < KVK_ACCOUNT_ROWS; i++) {
		if (account->next.rows[i].token != account->image.rows[i].token)
			account->dead[i] = false;
	}
	memset(account->posting_bytes, 0, sizeof(account->posting_bytes));
	account->image = account->next;
}

int kvk_account_tx_end(struct kvk_account *account, struct kvk_account_tx *tx)
{
	struct kvk_account_image *next = &account->next;
	struct kvk_backend *backend = account->backend;
	struct kvk_sync sync = { .over = NULL };
	uint64_t known_bytes, change_bytes = 0;
	int err = 0;

	if (tx->changed) {
		next->sequence++;
		if (account->many_hosts && account->clock_known)
			next->written_ns = account->wall_ns;
		account->visits++;
		if (!tx->leaves)
			next->rows[account->row].visits = account->visits;
		kvk_account_encode(next, account->encoded);
		kvk_sync_begin(&backend->syncs, &sync);
		err = backend->ops->update_file(backend, KVK_FILE_ACCOUNT, (next->sequence & 1) * KVK_ACCOUNT_BYTES, account->encoded,
						KVK_ACCOUNT_BYTES);
		kvk_sync_end(&backend->syncs, &sync, err);
	}
	kvk_account_tx_give_up(account);
	if (err) {
		pthread_mutex_lock(&account->look_lock);
		doubt(account, tx);
		put_back(account);
		pthread_mutex_unlock(&account->look_lock);
		if (!account->complained)
			kvk_log(account->log, KVK_LOG_WARNING, "the account of what is stored cannot be written: %s",
				strerror(-err));
		account->complained = true;
		return err;
	}
	pthread_mutex_lock(&account->look_lock);
	if (tx->changed)
		change_bytes = succeed(account, tx);
	take_next(account);
	pthread_mutex_unlock(&account->look_lock);
	account->seen = tx->seen;
	known_bytes = kvk_account_charged(next);
	/* At once: who asks in between would see what was just posted neither here nor there. */
	atomic_fetch_add(&account->used_bytes, change_bytes + known_bytes - account->known_bytes);
	account->known_bytes = known_bytes;
	atomic_store(&account->cap_bytes, next->cap_bytes);
	return 0;
}
