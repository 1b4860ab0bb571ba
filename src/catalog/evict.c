/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Choosing what goes. The policy says where to look next; here is what holds under any policy: nothing that is
 * pinned or leaving, children before their parents, no recursion and no two locks of shards at once.
 */
#include <errno.h>

#include "catalog/place.h"
#include "catalog/policy.h"

void kvk_catalog_clock(struct kvk_catalog *catalog, uint64_t now_ns)
{
	uint64_t clock_us = atomic_load_explicit(&catalog->clock_us, memory_order_relaxed);
	uint64_t latest = atomic_load_explicit(&catalog->used_at, memory_order_relaxed);
	uint64_t wall_us = now_ns / 1000 < KVK_USED_AT_MAX ? now_ns / 1000 : KVK_USED_AT_MAX;

	/* When it was set back, uses go on from where they were at the pace of the clock, until that has caught
	 * up. */
	if (wall_us < clock_us && wall_us > catalog->wall_us)
		clock_us += wall_us - catalog->wall_us;
	else if (wall_us > clock_us)
		clock_us = wall_us;
	catalog->wall_us = wall_us;
	if (clock_us > KVK_USED_AT_MAX)
		clock_us = KVK_USED_AT_MAX;
	atomic_store_explicit(&catalog->clock_us, clock_us, memory_order_relaxed);
	while (latest < clock_us && !atomic_compare_exchange_weak(&catalog->used_at, &latest, clock_us))
		;
}

void kvk_catalog_set_cap(struct kvk_catalog *catalog, uint64_t cap_bytes)
{
	atomic_store(&catalog->cap_bytes, cap_bytes);
}

/* What evict() does with one that it looks at; the shard's lock is held. */
static void choose(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index, struct kvk_victim *victim,
		   struct kvk_chain_link *link_ret)
{
	struct kvk_entry *entry = kvk_shard_entry(shard, index);

	kvk_use_drop(catalog, shard, index);
	entry->state = KVK_CATALOG_LEAVING;
	entry->chosen = true;
	shard->objects--;
	memcpy(victim->prefix, &entry->prefix, sizeof(victim->prefix));
	victim->charge_bytes = kvk_units_bytes(entry->charge_units);
	victim->used_at_ns = kvk_used_at_ns(entry);
	*link_ret = (struct kvk_chain_link){
		.id = entry->counted ? entry->parent : KVK_NO_ID,
		.generation = entry->parent_generation, .used_at = entry->used_at,
	};
	entry->counted = false;
	if (catalog->policy->quotas)
		kvk_share_leaving(&catalog->tenants, &shard->unnamed[KVK_BY_TENANT], entry->tenant,
				  (int64_t)victim->charge_bytes);
	if (catalog->policy->leave)
		catalog->policy->leave(catalog, entry);
}

/* Looks at what the policy named. True: it was chosen. */
static bool look_at(struct kvk_catalog *catalog, const struct kvk_coldest *at, struct kvk_victim *victim,
		    struct kvk_chain_link *link_ret)
{
	struct kvk_shard *shard = &catalog->shards[at->shard];
	bool named = at->use == KVK_USE_ASIDE;
	bool chosen = false;
	uint32_t index;

	pthread_mutex_lock(&shard->lock);
	/* It may have been used meanwhile: then another shard has the oldest. */
	if (!named && kvk_use_oldest_at(catalog, at->use, at->shard) > at->used_at)
		goto out;
	index = named ? at->index : kvk_use_oldest(shard, at->use);
	if (index != KVK_NO_ENTRY) {
		const struct kvk_entry *entry = kvk_shard_entry(shard, index);

		if (named && (entry->generation != at->generation || entry->used_at != at->used_at))
			goto out;
		if (!kvk_may_go(entry)) {
			if (!named)
				kvk_use_drop(catalog, shard, index);
		} else if (!catalog->policy->judge || catalog->policy->judge(catalog, shard, index)) {
			choose(catalog, shard, index, victim, link_ret);
			chosen = true;
		}
	}
out:
	pthread_mutex_unlock(&shard->lock);
	return chosen;
}

/* What has happened of all that may let something go. Each shard's only rises: the same sum again says that nothing happened. */
static uint64_t changes_of(struct kvk_catalog *catalog)
{
	uint64_t changes = 0;

	for (uint32_t i = 0; i < KVK_SHARDS; i++) {
		pthread_mutex_lock(&catalog->shards[i].lock);
		changes += catalog->shards[i].changes;
		pthread_mutex_unlock(&catalog->shards[i].lock);
	}
	return changes;
}

uint32_t kvk_catalog_evict(struct kvk_catalog *catalog, uint64_t bytes, struct kvk_victim *victims, uint32_t count)
{
	uint64_t chosen_bytes = 0, changes = UINT64_MAX;
	uint32_t chosen = 0;

	if (catalog->policy == &kvk_policy_noop)
		return 0;
	pthread_mutex_lock(&catalog->evict_lock);
	catalog->evict_calls++;
	if (catalog->barren_changes != UINT64_MAX) {
		changes = changes_of(catalog);
		if (changes == catalog->barren_changes)
			count = 0;
		else
			catalog->barren_changes = UINT64_MAX;
	}
	while (chosen < count && chosen_bytes < bytes) {
		struct kvk_chain_link link;
		struct kvk_coldest at, freed;

		if (!catalog->policy->next(catalog, &at)) {
			/* Before the look that is remembered: what happens during it leads to another. Sixty-four locks, so only
			 * where it may come to that: they made three quarters of the time of choosing one. */
			if (changes == UINT64_MAX) {
				changes = changes_of(catalog);
				continue;
			}
			if (kvk_chain_break(catalog))
				continue;
			if (chosen == 0)
				catalog->barren_changes = changes;
			break;
		}
		if (!look_at(catalog, &at, &victims[chosen], &link))
			continue;
		chosen_bytes += victims[chosen++].charge_bytes;
		if (kvk_chain_release_to(catalog, &link, &freed) && catalog->policy->freed)
			catalog->policy->freed(catalog, &freed);
	}
	pthread_mutex_unlock(&catalog->evict_lock);
	return chosen;
}

bool kvk_catalog_may_leave(struct kvk_catalog *catalog, const uint8_t prefix[16])
{
	struct kvk_place place;
	bool may;

	kvk_place_lock(&place, catalog, prefix);
	may = kvk_place_state(&place) == KVK_CATALOG_PRESENT && place.entry->pins == 0;
	kvk_place_unlock(&place);
	return may;
}

void kvk_catalog_evicted(struct kvk_catalog *catalog, const uint8_t prefix[16], enum kvk_evict_end end,
			 uint64_t used_at_ns, uint64_t *charge_ret)
{
	struct kvk_chain_link link = { .id = KVK_NO_ID };
	uint64_t charge_bytes = 0;
	struct kvk_place place;
	struct kvk_entry *entry;
	bool kept = false;

	kvk_place_lock(&place, catalog, prefix);
	entry = place.entry;
	if (!entry || !entry->chosen)
		goto out;
	kvk_version_move(&place);
	if (end == KVK_EVICT_KEPT) {
		uint64_t used_at = kvk_use_at(catalog, used_at_ns);

		kept = true;
		entry->chosen = false;
		entry->state = KVK_CATALOG_PRESENT;
		entry->version = *place.version;
		if (used_at > entry->used_at)
			entry->used_at = used_at & KVK_USED_AT_MAX;
		place.shard->objects++;
		if (catalog->policy->quotas)
			kvk_share_leaving(&catalog->tenants, &place.shard->unnamed[KVK_BY_TENANT], entry->tenant,
					  -(int64_t)kvk_units_bytes(entry->charge_units));
		if (catalog->policy->stay)
			catalog->policy->stay(catalog, entry);
		kvk_place_return(catalog, place.shard, place.index);
	} else {
		charge_bytes = kvk_place_forget(catalog, &place, &link);
		/* Under the lock: totals() must not find these bytes in neither place. */
		atomic_fetch_add(&catalog->loose_bytes, charge_bytes);
	}
out:
	kvk_place_unlock(&place);
	kvk_chain_release(catalog, &link);
	if (kept)
		kvk_chain_rejoin(catalog, prefix);
	*charge_ret = charge_bytes;
}
