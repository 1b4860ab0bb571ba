/* SPDX-License-Identifier: Apache-2.0 */
#include "control/room.h"

#include <errno.h>
#include <string.h>

#include "control/evict.h"
#include "control/runs.h"
#include "util/alloc.h"
#include "util/clock.h"

#define MIB (UINT64_C(1) << 20)
/* Leased ahead at most; and at most so much of the cap, shared out among the processes. */
#define CHUNK_BYTES (256 * MIB)
#define CHUNK_OF_CAP 8
/* Without anybody asking: for what others publish and need, and so that the account learns what we published. */
#define TICK_US 250000
/* A process that stored nothing for so long keeps only a part of its lease. */
#define IDLE_US 1000000
#define IDLE_PART 8
/* What was unlinked is synced, and credited, at the latest after this; at once if somebody waits for room. */
#define CREDIT_US 1000000
/* Where others hold leases or evict, a put waits so long for what they give back; and for what is under way here and hangs. */
#define PATIENCE_US 1500000
#define LOCK_MS 1000
/* So much is evicted between two visits: puts that wait are served meanwhile, and what was unlinked is credited. */
#define SLICE_BYTES CHUNK_BYTES
/* While others load and nobody is short of room: so much, and a pause as long as it took, up to a tick. On a file system mounted with
 * discard an unlink of 32 MiB takes 26 ms of the same disk. */
#define STEP_BYTES (32 * MIB)
/* Visits that gave what was asked for, and served nobody. */
#define TURNS_IN_VAIN 3
/* After ENOSPC from the medium in spite of all, so long the limit is what was used then. */
#define SQUEEZE_US 60000000

/*
 * Of a lease where machines share the medium, since the last visit. A server that hears nothing gives a machine's locks to others
 * (NFS 4: after 90 s), who then settle its rows; by then nothing may be published out of its lease any more.
 */
#define LEASE_US 45000000

struct kvk_room {
	struct kvk_core *core;
	bool many_hosts;
	atomic_bool ending;
	atomic_uint_fast64_t visited_us;       /* the last visit that succeeded began then */
	atomic_uint_fast64_t recalled_bytes;   /* taken out of circulation meanwhile, for the next visit to give back */
	atomic_bool recalling;
	struct kvk_account_visit last;         /* what the last visit told */
	bool visited;
	bool is_short;                         /* it gave less than was asked for */
	bool failing;                          /* the last visit failed, and this was said */
	uint64_t puts_seen, put_us;            /* how many there were, and when that changed */
	uint64_t synced_us;
	bool sync_failed;                      /* the last one: what was unlinked stays charged */
	uint64_t altered_seen, altered_us;     /* core->altered, and when that changed */
	uint64_t full_seen;                    /* medium_full, as last seen */
	uint64_t squeeze_until_us, squeeze_bytes;
	uint64_t limit_bytes;                  /* what all may use now */
	uint64_t evict_bytes;                  /* above the watermark, still to leave */
	uint64_t pause_us;                     /* before the next of them */
	uint64_t gets_seen, get_us;            /* how many there were, and when that changed */
	uint64_t news_us;                      /* when news were exchanged */
};

int kvk_room_new(struct kvk_room **ret, struct kvk_core *core, bool many_hosts)
{
	struct kvk_room *room = kvk_mem_zalloc(1, sizeof(*room));

	if (!room)
		return -ENOMEM;
	room->core = core;
	room->many_hosts = many_hosts;
	room->limit_bytes = UINT64_MAX;
	atomic_store(&room->visited_us, kvk_now_us());
	*ret = room;
	return 0;
}

void kvk_room_free(struct kvk_room *room)
{
	kvk_mem_free(room);
}

void kvk_room_end(struct kvk_room *room)
{
	atomic_store(&room->ending, true);
	kvk_room_ring(room->core);
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* ---- the limit ---------------------------------------------------------------------------------- */

/* A store that was told nothing leaves 1 GiB free, of a small medium 2 %. */
static uint64_t floor_of(const struct kvk_spec *spec, uint64_t total_bytes)
{
	uint64_t floor = spec->says_min_free ? spec->min_free_bytes : min_u64(1024 * MIB, total_bytes / 50);
	uint64_t above = (uint64_t)((double)total_bytes * (1 - spec->disk_watermark));

	return above > floor ? above : floor;
}

/* The cap, or less where the medium has less to give than the cap promises. */
static void settle_limit(struct kvk_room *room, uint64_t now_us)
{
	struct kvk_core *core = room->core;
	uint64_t full = atomic_load(&core->counts.medium_full), floor = 0, used, cap, limit;
	struct kvk_space space = { 0 };

	kvk_account_usage(core->account, &used, &cap);
	limit = cap ? cap : UINT64_MAX;

	/* A pool has taken its room when it was made: what else is on the medium is nothing to it. */
	if (!core->backend->ops->space(core->backend, &space) && space.total_bytes > 0 && !core->adapter->ops->slots) {
		floor = floor_of(&core->spec, space.total_bytes);
		/* What is charged is on the medium already; what is leased is still to come out of the rest. */
		limit = min_u64(limit, used + (space.free_bytes > floor ? space.free_bytes - floor : 0));
		if (space.total_inodes > 0 && space.free_inodes < space.total_inodes / 1000)
			limit = min_u64(limit, used);
	}
	if (full != room->full_seen) {
		room->full_seen = full;
		room->squeeze_until_us = now_us + SQUEEZE_US;
		room->squeeze_bytes = used;
		kvk_log(&core->log, KVK_LOG_WARNING, "the medium is full in spite of the cap: for a minute nothing beyond "
			"what is used now is stored");
	}
	if (now_us < room->squeeze_until_us)
		limit = min_u64(limit, room->squeeze_bytes);
	room->limit_bytes = limit;
	atomic_store(&core->view.limit_bytes, limit == UINT64_MAX ? 0 : limit);
	atomic_store(&core->view.free_bytes, space.free_bytes);
	atomic_store(&core->view.total_bytes, space.total_bytes);
	atomic_store(&core->view.floor_bytes, floor);
}

/* ---- a lease that is not renewed ------------------------------------------------------------------ */

/* The thread of visits may be what hangs, so this one's caller does no I/O. */
void kvk_room_watch(struct kvk_room *room, uint64_t now_us)
{
	struct kvk_core *core = room->core;

	if (!room->many_hosts || now_us < atomic_load(&room->visited_us) + LEASE_US)
		return;
	atomic_fetch_add(&room->recalled_bytes, kvk_catalog_take_room(core->catalog, UINT64_MAX / 2));
	if (!atomic_exchange(&room->recalling, true))
		kvk_log(&core->log, KVK_LOG_ERROR, "the account could not be visited for %d s, and others may take over what this process "
			"leased: nothing new is stored until it can be", LEASE_US / 1000000);
}

/* ---- visits ------------------------------------------------------------------------------------- */

static uint64_t chunk_of(const struct kvk_room *room)
{
	uint64_t processes = room->last.processes ? room->last.processes : 1, used, cap;

	/* Before the first visit too: it is not to take all there is. */
	kvk_account_usage(room->core->account, &used, &cap);
	return cap ? min_u64(CHUNK_BYTES, cap / (CHUNK_OF_CAP * processes)) : CHUNK_BYTES;
}

static bool sync_all(struct kvk_core *core)
{
	struct kvk_xfer xfer;

	kvk_account_sync_begin(core->account);
	kvk_xfer_init(&xfer, KVK_XFER_SYNC_ALL, NULL, NULL);
	core->backend->ops->run(core->backend, &xfer);
	kvk_sync_tell(&core->backend->syncs, (int)xfer.result);
	if (xfer.result < 0) {
		kvk_core_trouble(core, (int)xfer.result);
		kvk_log(&core->log, KVK_LOG_ERROR, "what was removed stays charged, since the sync failed: %s",
			strerror((int)-xfer.result));
	}
	return xfer.result >= 0;
}

/* How much free lease this process should have. */
static uint64_t target_of(struct kvk_room *room, uint64_t now_us)
{
	uint64_t puts = atomic_load(&room->core->counts.puts);

	if (puts != room->puts_seen || !room->visited) {
		room->puts_seen = puts;
		room->put_us = now_us;
	}
	return now_us - room->put_us > IDLE_US ? chunk_of(room) / IDLE_PART : chunk_of(room);
}

/* What is used and leased by all, as of the last visit, is over the limit. */
static bool is_over(const struct kvk_room *room)
{
	return room->last.charged_bytes + room->last.leased_bytes > room->limit_bytes;
}

/* The account keeps the cap; where the medium allows less than that, how much more may be leased. */
static uint64_t medium_left(const struct kvk_room *room)
{
	uint64_t used, cap;

	kvk_account_usage(room->core->account, &used, &cap);
	if (room->limit_bytes == (cap ? cap : UINT64_MAX))
		return UINT64_MAX / 2;
	used += room->last.leased_bytes;
	return room->limit_bytes > used ? room->limit_bytes - used : 0;
}

/* One visit: what is needed, asked for; what is too much, given back. hurry: what was unlinked is credited now. */
static int visit(struct kvk_room *room, uint64_t need_bytes, bool hurry)
{
	struct kvk_core *core = room->core;
	uint64_t now_us = kvk_now_us(), target, free_bytes = kvk_catalog_room(core->catalog), keep, want_bytes;
	struct kvk_account_visit visit = { 0 };
	struct kvk_catalog_totals totals;
	int err;

	if (kvk_account_has_credits(core->account) &&
	    (hurry || need_bytes > 0 || is_over(room) || now_us - room->synced_us > CREDIT_US)) {
		visit.synced = sync_all(core);
		room->sync_failed = !visit.synced;
		room->synced_us = kvk_now_us();
	}
	settle_limit(room, now_us);
	kvk_catalog_totals(core->catalog, &totals);
	target = target_of(room, now_us);
	keep = need_bytes + (is_over(room) ? 0 : target);
	if (free_bytes > keep + target)
		visit.give_bytes = kvk_catalog_take_room(core->catalog, free_bytes - keep);
	free_bytes -= min_u64(free_bytes, visit.give_bytes);
	visit.give_bytes += atomic_exchange(&room->recalled_bytes, 0);
	visit.want_bytes = totals.writing_bytes + (keep > free_bytes ? keep : free_bytes);
	want_bytes = visit.want_bytes;
	visit.want_bytes = min_u64(want_bytes, totals.writing_bytes + free_bytes + medium_left(room));
	err = kvk_account_visit(core->account, &visit, LOCK_MS);
	if (err) {
		if (!room->failing && err != -EBUSY)
			kvk_log(&core->log, KVK_LOG_ERROR, "the account cannot be written, nothing new is stored when the "
				"lease is used up: %s", strerror(-err));
		room->failing = true;
		if (err != -EBUSY)
			kvk_core_trouble(core, err);
		return err;
	}
	room->failing = false;
	atomic_store(&room->visited_us, now_us);
	atomic_store(&room->recalling, false);
	/* A process has died, and its last news were not posted. What was met before the first visit may be among them. */
	if (visit.died != room->last.died)
		kvk_news_doubt(core);
	room->last = visit;
	room->visited = true;
	room->is_short = visit.missing_bytes > 0 || visit.want_bytes < want_bytes;
	kvk_catalog_add_room(core->catalog, (int64_t)(visit.granted_bytes + kvk_account_take_overdrawn(core->account)));
	kvk_catalog_set_cap(core->catalog, visit.cap_bytes);
	/* While the cap gives nothing more, puts that find no room ring anyway. */
	atomic_store(&core->waiting.low_bytes, visit.missing_bytes > 0 || is_over(room) ? 0 : target / 2);
	atomic_store(&core->view.leased_bytes, visit.leased_bytes);
	atomic_store(&core->view.processes, visit.processes);
	atomic_store(&core->view.exact, !visit.needs_scan && visit.loose_bytes == 0);
	return 0;
}

/* ---- making room -------------------------------------------------------------------------------- */

/* Loads were asked of this process within the last second. Each round asks it: who asks once a week takes those of a week for new. */
static bool is_loading(struct kvk_room *room, uint64_t now_us)
{
	uint64_t gets = atomic_load(&room->core->counts.gets);

	if (gets != room->gets_seen) {
		room->gets_seen = gets;
		room->get_us = now_us;
	}
	return room->get_us && now_us - room->get_us < IDLE_US;
}

/*
 * Above the watermark a part of all bytes leaves, coldest first; one process does it for all. A slice at a time, since a
 * fifth of a TiB takes tens of seconds, and nobody else leases, posts and serves for this process. Returns what was unlinked.
 */
static uint64_t mind_watermark(struct kvk_room *room)
{
	struct kvk_core *core = room->core;
	uint64_t used, cap, limit = room->limit_bytes, mark, part, freed, began_us = kvk_now_us();
	bool more, gentle, loading = is_loading(room, began_us);

	room->pause_us = 0;
	if (core->spec.policy == KVK_POLICY_NOOP || core->spec.wish.visitor || !atomic_load(&core->keeper) ||
	    limit == UINT64_MAX) {
		room->evict_bytes = 0;
		return 0;
	}
	kvk_account_usage(core->account, &used, &cap);
	mark = (uint64_t)((double)limit * core->spec.trigger_watermark);
	if (room->evict_bytes == 0 && used > mark) {
		/* At least down to the mark: the cap may just have been lowered. */
		part = (uint64_t)((double)used * core->spec.eviction_ratio);
		room->evict_bytes = part > used - mark ? part : used - mark;
	}
	if (room->evict_bytes == 0)
		return 0;
	/* Between the watermark and the limit there is room for what is put meanwhile; when half of it is gone, puts come first. */
	gentle = loading && used < mark + (limit - mark) / 2 && atomic_load(&core->waiting.bytes) == 0;
	freed = kvk_evict(core, min_u64(room->evict_bytes, gentle ? STEP_BYTES : SLICE_BYTES), &more);
	if (gentle)
		room->pause_us = min_u64(kvk_now_us() - began_us, TICK_US);
	room->evict_bytes -= freed || more ? min_u64(freed, room->evict_bytes) : room->evict_bytes;
	return freed;
}

/* Puts that may find theirs present or take a damaged one's place, removes whose blocks are not free yet, what is being moved to
 * quarantine. A put reserves before it enters, and leaves when all is told: in this order none is overlooked. */
static bool is_under_way(struct kvk_core *core)
{
	struct kvk_catalog_totals totals;

	kvk_catalog_totals(core->catalog, &totals);
	return totals.writing_bytes > 0 || atomic_load(&core->removing) > 0 || kvk_account_is_entered(core->account);
}

/* Since when nothing of what is under way has ended. */
static uint64_t still_since_us(struct kvk_room *room, uint64_t now_us)
{
	uint64_t altered = atomic_load(&room->core->altered);

	if (altered != room->altered_seen)
		room->altered_us = now_us;
	room->altered_seen = altered;
	return room->altered_us;
}

/*
 * The first put that waits does not fit into the lease, the account has no more to lease, and nothing can be evicted. No other
 * put begins while it waits (kvk_waiting_is_any()), so what is under way comes to an end, and what it unlinked is credited by one
 * more visit. Only when nothing is left of either it is refused, and then at once: what is charged leaves no room for it.
 * Returns whether to visit again now.
 */
static bool refuse(struct kvk_room *room, uint64_t visited_us)
{
	struct kvk_core *core = room->core;
	uint64_t still_us = still_since_us(room, visited_us);

	if (is_under_way(core)) {
		/* It rings when it ends. What hangs is not waited for. */
		if (visited_us - still_us > PATIENCE_US)
			kvk_waiting_serve(core, -ENOSPC, visited_us - PATIENCE_US);
		return false;
	}
	if (kvk_account_has_credits(core->account) && !room->sync_failed)
		return true;
	/* What others leased and do not use comes back within a second, and the keeper evicts for all and finds out what the dead
	 * did not use. */
	if (room->last.processes > 1 || room->last.loose_bytes > 0)
		kvk_waiting_serve(core, -ENOSPC, visited_us - PATIENCE_US);
	else
		kvk_waiting_serve(core, -ENOSPC, visited_us + 1);
	return false;
}

/*
 * The first put that waits has the bytes, but not side by side: what the policy names leaves until they are. Refused only when
 * that makes no run. Returns whether to look at who waits again now; else what is under way rings when it ends.
 */
static bool make_run(struct kvk_room *room)
{
	struct kvk_core *core = room->core;
	uint64_t now_us = kvk_now_us();
	uint64_t still_us = still_since_us(room, now_us);
	bool under_way = is_under_way(core);

	if (atomic_load(&core->waiting.placing_bytes) > 0)
		return false;
	if (kvk_runs_make(core, core->waiting.run_bytes))
		return true;
	if (!under_way) {
		kvk_waiting_serve(core, -ENOSR, now_us + 1);
		return true;
	}
	/* What was under way then may leave slots, or go itself. What hangs is not waited for. */
	if (now_us - still_us > PATIENCE_US)
		kvk_waiting_serve(core, -ENOSR, now_us - PATIENCE_US);
	kvk_waiting_pass(core);
	return false;
}

/* Returns whether it is worth another visit. */
static bool evict_for_waiting(struct kvk_room *room)
{
	uint64_t bytes = min_u64(atomic_load(&room->core->waiting.bytes), SLICE_BYTES) + chunk_of(room) / IDLE_PART;
	bool more;

	return kvk_evict(room->core, bytes, &more) > 0 || more;
}

/* The account may be visited as often as it takes; each time round something was evicted or credited, or it ends. */
static void make_room(struct kvk_room *room)
{
	struct kvk_core *core = room->core;
	uint64_t need_bytes = kvk_waiting_serve(core, 0, 0), asked_us = 0;
	uint32_t in_vain = 0;
	int err = 0;

	while (need_bytes > 0 && !atomic_load(&room->ending)) {
		uint64_t all_bytes = atomic_load(&core->waiting.bytes);

		if (core->waiting.run_bytes > 0) {
			if (!make_run(room))
				return;
			need_bytes = kvk_waiting_serve(core, 0, 0);
			continue;
		}

		/* Who comes later is not in what was asked for, and is asked for next time. */
		asked_us = kvk_now_us();
		err = visit(room, all_bytes > need_bytes ? all_bytes : need_bytes, true);
		if (err)
			break;
		if (room->last.needs_scan) {
			kvk_waiting_serve(core, -EAGAIN, UINT64_MAX);
			return;
		}
		need_bytes = kvk_waiting_serve(core, 0, 0);
		if (need_bytes == 0)
			return;
		/* More was waited for than was asked for, or something was taken out of the lease meanwhile: there is more. */
		if (!room->is_short) {
			/* It goes on at the next tick: nothing is refused while the account has room. */
			if (++in_vain == TURNS_IN_VAIN)
				return;
			continue;
		}
		in_vain = 0;
		/* For what still waits: some was served since it was asked for. What is larger than all that may be used would not fit
		 * into an empty store: nothing leaves for it. */
		if (core->spec.policy != KVK_POLICY_NOOP && need_bytes <= room->limit_bytes && evict_for_waiting(room))
			continue;
		if (!refuse(room, asked_us))
			return;
	}
	/* Somebody holds the account's lock for long: that may end. Anything else is said at once. */
	if (err == -EBUSY)
		kvk_waiting_serve(core, -ENOSPC, asked_us - PATIENCE_US);
	else if (err)
		kvk_waiting_serve(core, err, asked_us + 1);
}

/* What was told before a visit that found nobody else concerns nobody: who opens after that has not met it. */
static void exchange_news(struct kvk_room *room, struct kvk_news_extent told, int visited)
{
	bool alone = !visited && room->last.processes <= 1;
	uint64_t now_us = kvk_now_us();

	/* A post syncs two files, and puts that rang for room wait for this thread. */
	if (now_us - room->news_us < TICK_US && told.told_count < KVK_NEWS_TOLD_MAX / 2)
		return;
	room->news_us = now_us;
	kvk_news_post(room->core, told, alone);
	if (!alone)
		kvk_news_follow(room->core);
}

void kvk_room_run(struct kvk_room *room)
{
	struct kvk_core *core = room->core;

	while (!atomic_load(&room->ending)) {
		struct kvk_news_extent told = kvk_news_extent(core);

		kvk_quotas_follow(core);
		exchange_news(room, told, visit(room, atomic_load(&core->waiting.bytes), false));
		make_room(room);
		if (mind_watermark(room) > 0)
			visit(room, atomic_load(&core->waiting.bytes), false);
		if (room->evict_bytes == 0 || room->pause_us > 0)
			kvk_room_listen(core, kvk_now_us() + (room->evict_bytes == 0 ? TICK_US : room->pause_us));
	}
	/* Who was alone may not be any more: that is found out when nothing can be removed any more (kvk_core_settle()). */
	if (room->last.processes > 1)
		kvk_news_post(core, kvk_news_extent(core), false);
	/* What was unlinked would else stay charged until the next keeper has looked at every folder. */
	if (kvk_account_has_credits(core->account) && !atomic_load(&core->closing))
		visit(room, 0, true);
}
