/* SPDX-License-Identifier: Apache-2.0 */
#include "control/keeper.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "control/scan.h"
#include "control/snapshot.h"
#include "util/alloc.h"
#include "util/clock.h"

#define TURN_MS 250
/* Of a turn, what listing changed folders may take: the rest is for those who store and load. */
#define LISTING_US 25000
/* All buckets are asked for their times in so many turns: with one level of folders 256 calls a second. With two a bucket has 256
 * folders more, and a change in one of them does not show in the one above: so in 16 s, with 4,096 calls a second. */
#define POLL_TURNS 4
#define POLL_TURNS_DEEP 64
/* What fell in a bucket is written down only after a sync of everything, which is made this often at most. */
#define SYNC_US UINT64_C(5000000)
/* How often the account is asked whether a dead process left a lease. */
#define LOOSE_US UINT64_C(1000000)
/* A finding that the account put off so often is listed again. Before that, somebody may only have to visit the account,
 * which he was asked to. */
#define REFUSED_MAX 2
/* Whoever is free to be the keeper becomes it within a few turns. */
#define BECOME_US UINT64_C(1000000)
#define WAIT_US UINT64_C(10000)
/* The account's lock is held for a few milliseconds at a time; the next turn tries again. */
#define LOCK_WAIT_MS 100

struct kvk_keeper {
	struct kvk_scan scan;
	const struct kvk_log_sink *log;
	pthread_mutex_t lock;          /* for wake, and guards what was asked for */
	pthread_cond_t wake;
	uint64_t asked, served;        /* scans that somebody wants and waits for */
	bool left;                     /* who asked last gave up waiting */
	uint8_t store_id[16];
	bool persist;
	atomic_bool *told;             /* is_keeper, for the owner; or NULL */
	void (*trouble)(void *user, int status);
	void *user;
	atomic_bool stopping;
	atomic_bool is_keeper;
	_Atomic uint64_t from_snapshot;
	_Atomic uint32_t phase;        /* enum kvk_scan_phase */
	_Atomic uint64_t phase_us;     /* when it began */
	_Atomic uint64_t phase_footers;        /* read before it began */
	_Atomic uint32_t footers_done;         /* buckets, in this phase */
	_Atomic uint32_t unsettled;
	_Atomic int64_t drift_bytes;
	/* The thread's own: */
	bool kept_before;
	bool wants_pass;               /* the account is to learn from a pass what it cannot know */
	bool passing;                  /* the pass has begun in the account, and not ended */
	int64_t corrected_bytes;       /* in the account, when the last pass began */
	uint64_t heeded;               /* of those asked for */
	uint32_t poll_next, list_next;
	uint64_t next_sync_us, next_loose_us;
};

int kvk_keeper_new(struct kvk_keeper **ret, const struct kvk_keeper_options *options)
{
	struct kvk_keeper *keeper = kvk_mem_zalloc(1, sizeof(*keeper));
	pthread_condattr_t attributes;

	if (!keeper)
		return -ENOMEM;
	keeper->scan.backend = options->backend;
	keeper->scan.adapter = options->adapter;
	keeper->scan.catalog = options->catalog;
	keeper->scan.account = options->account;
	keeper->scan.layout = options->layout;
	keeper->scan.stopping = &keeper->stopping;
	keeper->log = options->log;
	memcpy(keeper->store_id, options->store_id, sizeof(keeper->store_id));
	keeper->persist = options->persist;
	keeper->told = options->is_keeper;
	keeper->trouble = options->trouble;
	keeper->user = options->user;
	kvk_scan_init(&keeper->scan);
	pthread_mutex_init(&keeper->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&keeper->wake, &attributes);
	pthread_condattr_destroy(&attributes);
	atomic_store(&keeper->phase_us, kvk_now_us());
	*ret = keeper;
	return 0;
}

void kvk_keeper_free(struct kvk_keeper *keeper)
{
	if (!keeper)
		return;
	pthread_cond_destroy(&keeper->wake);
	pthread_mutex_destroy(&keeper->lock);
	kvk_mem_free(keeper);
}

void kvk_keeper_stop(struct kvk_keeper *keeper)
{
	pthread_mutex_lock(&keeper->lock);
	atomic_store(&keeper->stopping, true);
	pthread_cond_broadcast(&keeper->wake);
	pthread_mutex_unlock(&keeper->lock);
}

bool kvk_keeper_is_keeper(struct kvk_keeper *keeper)
{
	return atomic_load(&keeper->is_keeper);
}

/* clock_gettime() and so much. */
static struct timespec after_us(uint64_t us)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += (long)(us % 1000000 * 1000);
	until.tv_sec += (time_t)(us / 1000000) + until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	return until;
}

/* False: it is time to stop. */
static bool rest_us(void *user, uint64_t us)
{
	struct timespec until = after_us(us);
	struct kvk_keeper *keeper = user;
	bool stopping;

	pthread_mutex_lock(&keeper->lock);
	while (!atomic_load(&keeper->stopping) &&
	       pthread_cond_timedwait(&keeper->wake, &keeper->lock, &until) != ETIMEDOUT)
		;
	stopping = atomic_load(&keeper->stopping);
	pthread_mutex_unlock(&keeper->lock);
	return !stopping;
}

static void enter(struct kvk_keeper *keeper, enum kvk_scan_phase phase)
{
	atomic_store(&keeper->footers_done, 0);
	atomic_store(&keeper->phase_footers, atomic_load(&keeper->scan.footers));
	atomic_store(&keeper->phase_us, kvk_now_us());
	atomic_store(&keeper->phase, (uint32_t)phase);
}

/* ---- what stands in the account ----------------------------------------------------------------- */

/* Hands in what is not in the account yet; lower: a sync of everything began after these listings. */
static void post(struct kvk_keeper *keeper, bool lower)
{
	struct kvk_bucket_finding findings[KVK_SCAN_BUCKETS];
	struct kvk_scan *scan = &keeper->scan;
	uint32_t count = 0;

	for (uint32_t i = 0; i <= scan->bucket_count; i++) {
		struct kvk_scan_bucket *bucket = &scan->buckets[kvk_scan_bucket_at(scan, i)];

		if (!bucket->stands || (lower ? bucket->exact : bucket->posted))
			continue;
		findings[count] = bucket->finding;
		findings[count++].may_lower = lower;
	}
	if (count == 0)
		return;
	kvk_account_reconcile(scan->account, findings, count, LOCK_WAIT_MS);
	for (uint32_t i = 0; i < count; i++) {
		struct kvk_scan_bucket *bucket = &scan->buckets[findings[i].bucket];

		switch (findings[i].status) {
		case 0:
			bucket->posted = true;
			bucket->passed = true;
			bucket->exact = bucket->exact || lower;
			break;
		case 1:
			/* The account has more than is there: listed again, it will be exact. */
			bucket->passed = true;
			bucket->stands = false;
			break;
		case -EAGAIN:
			bucket->stands = ++bucket->refused < REFUSED_MAX;
			break;
		case -ESTALE:
			bucket->stands = false;
			break;
		}
	}
}

/* Whether all buckets were posted since the pass began. In a store that never rests they are not all at one time. */
static bool count_unsettled(struct kvk_keeper *keeper)
{
	struct kvk_scan *scan = &keeper->scan;
	uint32_t unsettled = 0, left = 0;

	for (uint32_t i = 0; i <= scan->bucket_count; i++) {
		const struct kvk_scan_bucket *bucket = &scan->buckets[kvk_scan_bucket_at(scan, i)];

		unsettled += !bucket->posted;
		left += !bucket->passed;
	}
	atomic_store(&keeper->unsettled, unsettled);
	return left == 0;
}

/* Not while it would prove nothing: then a later turn begins it. */
static void begin_pass(struct kvk_keeper *keeper)
{
	struct kvk_scan *scan = &keeper->scan;

	keeper->wants_pass = true;
	keeper->passing = !kvk_account_pass_begin(scan->account);
	if (!keeper->passing)
		return;
	keeper->corrected_bytes = kvk_account_corrected(scan->account);
	for (uint32_t i = 0; i <= scan->bucket_count; i++) {
		struct kvk_scan_bucket *bucket = &scan->buckets[kvk_scan_bucket_at(scan, i)];

		bucket->stands = false;
		bucket->passed = false;
	}
}

static void end_pass(struct kvk_keeper *keeper)
{
	int err = kvk_account_pass_end(keeper->scan.account);

	/* -EAGAIN: the account got lost under it, and another pass must begin. Else the end is tried again. */
	if (!err || err == -EAGAIN)
		keeper->passing = false;
	keeper->wants_pass = err != 0;
}

/* What a process that died had leased counts as used until everything was listed once more. */
static void mind_loose(struct kvk_keeper *keeper)
{
	struct kvk_account_visit visit = { .want_bytes = 0 };

	if (keeper->passing || kvk_now_us() < keeper->next_loose_us)
		return;
	keeper->next_loose_us = kvk_now_us() + LOOSE_US;
	if (!kvk_account_visit(keeper->scan.account, &visit, LOCK_WAIT_MS) &&
	    (visit.loose_bytes || visit.needs_scan || keeper->wants_pass))
		begin_pass(keeper);
}

static bool has_inexact(const struct kvk_scan *scan)
{
	for (uint32_t i = 0; i <= scan->bucket_count; i++) {
		const struct kvk_scan_bucket *bucket = &scan->buckets[kvk_scan_bucket_at(scan, i)];

		if (bucket->stands && bucket->posted && !bucket->exact)
			return true;
	}
	return false;
}

/*
 * A failed writeback is told to one sync of a file system for each open file, and all syncs of a store go through one. So
 * the batch that this one took the error from will see a 0.
 */
static bool sync_all(struct kvk_keeper *keeper)
{
	struct kvk_scan *scan = &keeper->scan;
	struct kvk_xfer sync;

	kvk_xfer_init(&sync, KVK_XFER_SYNC_ALL, NULL, NULL);
	scan->backend->ops->run(scan->backend, &sync);
	kvk_sync_tell(&scan->backend->syncs, (int)sync.result);
	if (sync.result >= 0)
		return true;
	atomic_store(&scan->trouble, (int)sync.result);
	if (keeper->trouble)
		keeper->trouble(keeper->user, (int)sync.result);
	kvk_log(keeper->log, KVK_LOG_ERROR, "what is charged and not there stays charged, since the sync failed: %s",
		strerror((int)-sync.result));
	return false;
}

static void settle(struct kvk_keeper *keeper)
{
	struct kvk_scan *scan = &keeper->scan;

	post(keeper, false);
	if (count_unsettled(keeper) && keeper->passing)
		end_pass(keeper);
	mind_loose(keeper);
	/* In a store that never rests nothing stands for long enough to be seen here, and a pass lowers what the dead left. */
	if (kvk_now_us() < keeper->next_sync_us || (!keeper->passing && !has_inexact(scan)))
		return;
	keeper->next_sync_us = kvk_now_us() + SYNC_US;
	if (sync_all(keeper))
		post(keeper, true);
}

/* ---- listing what changed ----------------------------------------------------------------------- */

static void poll(struct kvk_keeper *keeper)
{
	struct kvk_scan *scan = &keeper->scan;
	uint32_t all = scan->bucket_count + 1, turns = scan->layout.levels == 2 ? POLL_TURNS_DEEP : POLL_TURNS;

	for (uint32_t n = (all + turns - 1) / turns; n > 0; n--) {
		uint32_t bucket = kvk_scan_bucket_at(scan, keeper->poll_next);

		keeper->poll_next = (keeper->poll_next + 1) % all;
		if (kvk_scan_has_changed(scan, bucket))
			scan->buckets[bucket].stands = false;
	}
}

/* Round robin, so that a folder that never rests does not keep the others waiting. */
static void list_changed(struct kvk_keeper *keeper)
{
	struct kvk_scan *scan = &keeper->scan;
	uint64_t begin_us = kvk_now_us();
	uint32_t all = scan->bucket_count + 1;

	for (uint32_t n = 0; n < all && kvk_now_us() - begin_us < LISTING_US; n++) {
		uint32_t bucket = kvk_scan_bucket_at(scan, keeper->list_next);

		keeper->list_next = (keeper->list_next + 1) % all;
		if (!scan->buckets[bucket].stands && kvk_scan_names(scan, bucket) == -EINTR)
			return;
	}
}

static bool all_listed(const struct kvk_scan *scan)
{
	for (uint32_t i = 0; i <= scan->bucket_count; i++) {
		if (!scan->buckets[kvk_scan_bucket_at(scan, i)].listed)
			return false;
	}
	return true;
}

static bool wants_footers(const struct kvk_scan *scan)
{
	for (uint32_t bucket = 0; bucket < scan->bucket_count; bucket++) {
		if (scan->buckets[bucket].wants_footers)
			return true;
	}
	return false;
}

/* The next bucket with objects that only their names are known of. False: there was none, or it could not be read. */
static bool read_footers(struct kvk_keeper *keeper)
{
	struct kvk_scan *scan = &keeper->scan;

	for (uint32_t bucket = 0; bucket < scan->bucket_count; bucket++) {
		if (!scan->buckets[bucket].wants_footers)
			continue;
		if (kvk_scan_footers(scan, bucket, rest_us, keeper))
			return false;
		atomic_fetch_add(&keeper->footers_done, 1);
		return true;
	}
	return false;
}

/* ---- scans that were asked for ------------------------------------------------------------------ */

static uint64_t asked_for(struct kvk_keeper *keeper)
{
	uint64_t asked;

	pthread_mutex_lock(&keeper->lock);
	asked = keeper->asked;
	pthread_mutex_unlock(&keeper->lock);
	return asked;
}

/* Lists at once, not turn by turn: somebody waits. */
static void heed(struct kvk_keeper *keeper)
{
	uint64_t asked = asked_for(keeper);

	if (asked == keeper->heeded)
		return;
	keeper->heeded = asked;
	enter(keeper, KVK_SCAN_NAMES);
	begin_pass(keeper);
	kvk_scan_pass(&keeper->scan);
	keeper->next_sync_us = 0;
}

static void serve(struct kvk_keeper *keeper)
{
	if (keeper->wants_pass || wants_footers(&keeper->scan) || has_inexact(&keeper->scan))
		return;
	pthread_mutex_lock(&keeper->lock);
	keeper->served = keeper->heeded;
	pthread_cond_broadcast(&keeper->wake);
	pthread_mutex_unlock(&keeper->lock);
}

int kvk_keeper_scan(struct kvk_keeper *keeper, uint64_t wait_us)
{
	uint64_t begin_us = kvk_now_us(), mine;
	int err = 0;

	pthread_mutex_lock(&keeper->lock);
	if (!keeper->left || keeper->served == keeper->asked)
		keeper->asked++;
	keeper->left = false;
	mine = keeper->asked;
	while (!err && keeper->served < mine) {
		uint64_t waited_us = kvk_now_us() - begin_us;
		struct timespec until = after_us(WAIT_US);

		if (atomic_load(&keeper->stopping))
			err = -ESHUTDOWN;
		else if (!atomic_load(&keeper->is_keeper) && waited_us >= (wait_us < BECOME_US ? wait_us : BECOME_US))
			err = -EBUSY;
		else if (waited_us >= wait_us)
			err = -ETIMEDOUT;
		else
			pthread_cond_timedwait(&keeper->wake, &keeper->lock, &until);
	}
	keeper->left = err != 0;
	pthread_mutex_unlock(&keeper->lock);
	return err;
}

/* ---- a keeper's life ---------------------------------------------------------------------------- */

static void become(struct kvk_keeper *keeper, bool is_keeper)
{
	atomic_store(&keeper->is_keeper, is_keeper);
	if (keeper->told)
		atomic_store(keeper->told, is_keeper);
}

/* Only the first one to keep the store after an open that met nobody: for anybody else the snapshot is too old. */
static void load_snapshot(struct kvk_keeper *keeper)
{
	struct kvk_scan *scan = &keeper->scan;
	struct kvk_snapshot_what what = { .backend = scan->backend, .catalog = scan->catalog };
	uint64_t count = 0;
	bool alone;
	int err;

	what.epoch = kvk_account_epoch(scan->account, &alone) - 1;
	if (!alone || keeper->kept_before)
		return;
	memcpy(what.store_id, keeper->store_id, sizeof(what.store_id));
	err = kvk_snapshot_load(&what, &count);
	atomic_store(&keeper->from_snapshot, count);
	if (err && err != -ENOENT && err != -ESTALE)
		kvk_log(keeper->log, KVK_LOG_WARNING, "the snapshot of the catalog is not used: %s", strerror(-err));
}

static void save_snapshot(struct kvk_keeper *keeper)
{
	struct kvk_scan *scan = &keeper->scan;
	struct kvk_snapshot_what what = { .backend = scan->backend, .catalog = scan->catalog };
	struct kvk_account_visit visit = { .want_bytes = 0 };
	int err;

	/* The epoch of now: whoever opened the store since we did, his objects are known here. */
	if (!keeper->persist || atomic_load(&keeper->phase) < KVK_SCAN_SETTLING ||
	    kvk_account_visit(scan->account, &visit, LOCK_WAIT_MS))
		return;
	what.epoch = visit.epoch;
	memcpy(what.store_id, keeper->store_id, sizeof(what.store_id));
	err = kvk_snapshot_save(&what);
	if (err)
		kvk_log(keeper->log, KVK_LOG_WARNING, "the snapshot of the catalog could not be written: %s", strerror(-err));
}

static void begin(struct kvk_keeper *keeper)
{
	struct kvk_scan *scan = &keeper->scan;

	memset(scan->buckets, 0, sizeof(scan->buckets));
	keeper->next_sync_us = 0;
	become(keeper, true);
	enter(keeper, KVK_SCAN_NAMES);
	kvk_log(keeper->log, KVK_LOG_INFO, "this process is the store's keeper");
	load_snapshot(keeper);
	keeper->kept_before = true;
	keeper->heeded = asked_for(keeper);
	begin_pass(keeper);
}

/* Told one after the other, each at least for a moment. */
static void tell_phase(struct kvk_keeper *keeper)
{
	const struct kvk_scan *scan = &keeper->scan;
	uint32_t phase = atomic_load(&keeper->phase);

	if (phase == KVK_SCAN_NAMES && all_listed(scan))
		enter(keeper, KVK_SCAN_FOOTERS);
	else if (phase == KVK_SCAN_FOOTERS && !wants_footers(scan))
		enter(keeper, keeper->wants_pass ? KVK_SCAN_SETTLING : KVK_SCAN_IDLE);
	else if (phase == KVK_SCAN_SETTLING && !keeper->wants_pass)
		enter(keeper, KVK_SCAN_IDLE);
}

static void keep(struct kvk_keeper *keeper)
{
	struct kvk_scan *scan = &keeper->scan;
	bool more;

	begin(keeper);
	/* What fails here is tried again with what changed, and holds up nothing but its own bucket. */
	kvk_scan_pass(scan);
	tell_phase(keeper);
	do {
		heed(keeper);
		poll(keeper);
		list_changed(keeper);
		settle(keeper);
		atomic_store(&keeper->drift_bytes, kvk_account_corrected(scan->account) - keeper->corrected_bytes);
		more = read_footers(keeper);
		tell_phase(keeper);
		serve(keeper);
	} while (rest_us(keeper, more ? 0 : TURN_MS * 1000));
	save_snapshot(keeper);
	scan->backend->ops->unlock(scan->backend, KVK_LOCK_KEEPER);
	become(keeper, false);
	enter(keeper, KVK_SCAN_WAITING);
}

void kvk_keeper_run(struct kvk_keeper *keeper)
{
	struct kvk_backend *backend = keeper->scan.backend;

	do {
		if (backend->ops->lock(backend, KVK_LOCK_KEEPER, 0) == 0)
			keep(keeper);
	} while (rest_us(keeper, TURN_MS * 1000));
}

/* ---- how far it is ------------------------------------------------------------------------------ */

void kvk_keeper_state(struct kvk_keeper *keeper, struct kvk_scan_state *ret)
{
	struct kvk_scan *scan = &keeper->scan;
	enum kvk_scan_phase phase = (enum kvk_scan_phase)atomic_load(&keeper->phase);
	uint64_t elapsed_us = kvk_now_us() - atomic_load(&keeper->phase_us);
	uint64_t done = phase == KVK_SCAN_FOOTERS
			? atomic_load(&scan->footers) - atomic_load(&keeper->phase_footers)
			: phase == KVK_SCAN_NAMES ? atomic_load(&scan->objects) : 0;
	uint32_t buckets_done = phase == KVK_SCAN_FOOTERS ? atomic_load(&keeper->footers_done)
				: phase == KVK_SCAN_NAMES ? (uint32_t)atomic_load(&scan->buckets_done) : 0;
	uint32_t buckets = scan->bucket_count + (phase == KVK_SCAN_NAMES);

	*ret = (struct kvk_scan_state){
		.phase = phase,
		.buckets = buckets,
		.buckets_done = phase >= KVK_SCAN_SETTLING ? buckets : buckets_done < buckets ? buckets_done : buckets,
		.objects = atomic_load(&scan->objects),
		.bytes = atomic_load(&scan->bytes),
		.footers = atomic_load(&scan->footers),
		.unreadable = atomic_load(&scan->unreadable),
		.swept = atomic_load(&scan->swept),
		.per_second = elapsed_us ? done * 1000000 / elapsed_us : 0,
		.elapsed_us = elapsed_us,
		.from_snapshot = atomic_load(&keeper->from_snapshot),
		.left_us = phase == KVK_SCAN_IDLE ? 0 : UINT64_MAX,
		.drift_bytes = atomic_load(&keeper->drift_bytes),
		.unsettled = atomic_load(&keeper->unsettled),
		.trouble = atomic_load(&scan->trouble),
	};
	if (phase < KVK_SCAN_SETTLING && ret->buckets_done > 0)
		ret->left_us = elapsed_us * (buckets - ret->buckets_done) / ret->buckets_done;
}
