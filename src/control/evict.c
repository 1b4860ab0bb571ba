/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which to evict is the catalog's policy; where they lie and whether somebody else read them is the adapter's to say. Of
 * an object the catalog keeps 16 bytes of its digest, so a name is found by listing its folder: victims go folder by
 * folder, and one listing serves all of a folder (at a million objects 1 ms for a folder of 4,000 names).
 */
#include "control/evict.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/scan.h"
#include "util/clock.h"

#define VICTIMS 512
/* Rounds in which everything chosen had been read by others, or could not be unlinked. */
#define ROUNDS_IN_VAIN 8
/* Where others have removed all that was chosen, so long at a time: who evicts has visits to make. */
#define SEARCH_US 100000

static int by_prefix(const void *a, const void *b)
{
	return memcmp(((const struct kvk_victim *)a)->prefix, ((const struct kvk_victim *)b)->prefix,
		      sizeof(((const struct kvk_victim *)a)->prefix));
}

static uint32_t bucket_of(const struct kvk_core *core, const struct kvk_victim *victim)
{
	return core->adapter->ops->buckets(core->adapter) > 1 ? victim->prefix[0] : 0;
}

/* What became of those that were chosen. */
struct outcome {
	uint64_t freed_bytes;
	uint32_t gone;                 /* others had removed them */
};

/* Tells catalog and account what became of one. */
static void settle(struct kvk_core *core, uint32_t bucket, const struct kvk_evictee *evictee, struct outcome *outcome)
{
	uint64_t charge = 0;

	switch (evictee->status) {
	case 0:
		kvk_catalog_evicted(core->catalog, evictee->prefix, KVK_EVICTED, 0, &charge);
		kvk_account_unlinked(core->account, bucket, kvk_page_ceil(evictee->freed_bytes));
		kvk_news_tell(core, evictee->prefix);
		atomic_fetch_add(&core->counts.evicted, 1);
		atomic_fetch_add(&core->counts.evicted_bytes, evictee->freed_bytes);
		outcome->freed_bytes += kvk_page_ceil(evictee->freed_bytes);
		break;
	case -ENOENT:
		/* Somebody else removed it, and credits it. */
		kvk_catalog_evicted(core->catalog, evictee->prefix, KVK_EVICT_ABSENT, 0, &charge);
		outcome->gone++;
		break;
	default:
		kvk_catalog_evicted(core->catalog, evictee->prefix, KVK_EVICT_KEPT, evictee->accessed_ns, &charge);
		if (evictee->status == -EBUSY)
			atomic_fetch_add(&core->counts.evict_kept, 1);
		else
			kvk_core_trouble(core, evictee->status);
		break;
	}
	kvk_catalog_credit(core->catalog, charge);
}

/* All of one bucket. */
static void evict_run(struct kvk_core *core, uint32_t bucket, const struct kvk_victim *victims, uint32_t count,
		      struct outcome *outcome)
{
	struct kvk_evictee evictees[VICTIMS];
	uint32_t entered = kvk_account_enter(core->account);
	int err;

	for (uint32_t i = 0; i < count; i++) {
		/* Nothing was done until the adapter says so: where it ends early it looked at none. */
		evictees[i] = (struct kvk_evictee){ .status = -ENOENT, .used_at_ns = victims[i].used_at_ns };
		memcpy(evictees[i].prefix, victims[i].prefix, sizeof(evictees[i].prefix));
	}
	err = core->adapter->ops->evict(core->adapter, bucket, evictees, count);
	for (uint32_t i = 0; i < count; i++) {
		if (err && evictees[i].status == -ENOENT)
			evictees[i].status = err;      /* it may be there: nobody looked */
		settle(core, bucket, &evictees[i], outcome);
	}
	kvk_account_leave(core->account, entered);
}

/* ---- who is not the keeper ---------------------------------------------------------------------- */

/* So many objects are enough to choose from. */
#define LESSON_OBJECTS 64

struct lesson {
	struct kvk_catalog *catalog;
	uint32_t learnt;
};

static bool take_in(void *user, const struct kvk_scanned *scanned)
{
	struct lesson *lesson = user;

	if (scanned->kind == KVK_NAME_OBJECT && kvk_scan_tell(lesson->catalog, scanned) >= 0)
		lesson->learnt++;
	return true;
}

/*
 * The keeper has seen all that is there; another process knows only what it met, and that may be nothing. When it finds
 * nothing to evict it looks at some folders, so that no process starves because others filled the store.
 */
static bool learn(struct kvk_core *core)
{
	struct lesson lesson = { .catalog = core->catalog };
	uint32_t buckets = core->adapter->ops->buckets(core->adapter);
	uint64_t modified_ns;

	if (atomic_load(&core->keeper))
		return false;
	for (uint32_t i = 0; i < buckets && lesson.learnt < LESSON_OBJECTS; i++) {
		uint32_t bucket = atomic_fetch_add(&core->lessons, 1) % buckets;

		core->adapter->ops->scan(core->adapter, bucket, take_in, &lesson, &modified_ns);
	}
	return lesson.learnt > 0;
}

uint64_t kvk_evict(struct kvk_core *core, uint64_t bytes, bool *more_ret)
{
	uint64_t until_us = more_ret ? kvk_now_us() + SEARCH_US : UINT64_MAX;
	struct kvk_victim victims[VICTIMS];
	struct outcome all = { 0 };
	bool learnt = false, more = false;
	int in_vain = 0;

	while (all.freed_bytes < bytes && in_vain < ROUNDS_IN_VAIN && !atomic_load(&core->closing)) {
		uint32_t count = kvk_catalog_evict(core->catalog, bytes - all.freed_bytes, victims, VICTIMS), first = 0;
		struct outcome outcome = { 0 };

		if (count == 0 && !learnt) {
			learnt = learn(core);
			if (learnt)
				continue;
		}
		if (count == 0)
			break;
		learnt = false;
		qsort(victims, count, sizeof(victims[0]), by_prefix);
		for (uint32_t i = 1; i <= count; i++) {
			if (i < count && bucket_of(core, &victims[i]) == bucket_of(core, &victims[first]))
				continue;
			evict_run(core, bucket_of(core, &victims[first]), victims + first, i - first, &outcome);
			first = i;
		}
		all.freed_bytes += outcome.freed_bytes;
		/* What is gone is forgotten by now, and not chosen again. */
		if (outcome.freed_bytes > 0 || outcome.gone > 0)
			in_vain = 0;
		else
			in_vain++;
		more = outcome.gone > 0 && all.freed_bytes == 0;
		if (outcome.gone > 0 && kvk_now_us() > until_us)
			break;
	}
	if (more_ret)
		*more_ret = more;
	return all.freed_bytes;
}
