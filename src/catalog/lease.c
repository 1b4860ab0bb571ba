/* SPDX-License-Identifier: Apache-2.0 */
/* The lease, what is used, and who uses it. */
#include "catalog/catalog_private.h"
#include "catalog/policy.h"

/* Puts never bring the lease below zero. */
bool kvk_room_reserve(struct kvk_catalog *catalog, uint64_t bytes)
{
	int64_t room = atomic_load_explicit(&catalog->room_bytes, memory_order_relaxed);

	if (catalog->unlimited)
		return true;
	do {
		if (room < 0 || (uint64_t)room < bytes)
			return false;
	} while (!atomic_compare_exchange_weak(&catalog->room_bytes, &room, room - (int64_t)bytes));
	return true;
}

void kvk_catalog_add_room(struct kvk_catalog *catalog, int64_t bytes)
{
	/* A put that used what it had reserved gives nothing back. */
	if (!catalog->unlimited && bytes != 0)
		atomic_fetch_add(&catalog->room_bytes, bytes);
}

uint64_t kvk_catalog_take_room(struct kvk_catalog *catalog, uint64_t bytes)
{
	int64_t room = atomic_load(&catalog->room_bytes);
	uint64_t taken;

	if (catalog->unlimited)
		return 0;
	do {
		taken = room < 0 ? 0 : (uint64_t)room < bytes ? (uint64_t)room : bytes;
	} while (!atomic_compare_exchange_weak(&catalog->room_bytes, &room, room - (int64_t)taken));
	return taken;
}

uint64_t kvk_catalog_room(struct kvk_catalog *catalog)
{
	int64_t room = atomic_load_explicit(&catalog->room_bytes, memory_order_relaxed);

	if (catalog->unlimited)
		return UINT64_MAX;
	return room < 0 ? 0 : (uint64_t)room;
}

void kvk_catalog_charge(struct kvk_catalog *catalog, uint64_t charge_bytes)
{
	atomic_fetch_add(&catalog->loose_bytes, charge_bytes);
}

void kvk_catalog_credit(struct kvk_catalog *catalog, uint64_t charge_bytes)
{
	uint64_t loose = atomic_load(&catalog->loose_bytes);
	uint64_t taken;

	/* Nobody gets back more than was charged. */
	do {
		taken = charge_bytes < loose ? charge_bytes : loose;
	} while (!atomic_compare_exchange_weak(&catalog->loose_bytes, &loose, loose - taken));
}

/* ---- totals ------------------------------------------------------------------------------------- */

void kvk_catalog_totals(struct kvk_catalog *catalog, struct kvk_catalog_totals *ret)
{
	struct kvk_catalog_totals totals = {
		.memory_bytes = sizeof(*catalog) + kvk_candidates_memory_bytes(catalog) +
				kvk_share_memory_bytes(&catalog->tenants) +
				kvk_share_memory_bytes(&catalog->models),
	};

	for (uint32_t i = 0; i < KVK_SHARDS; i++) {
		struct kvk_shard *shard = &catalog->shards[i];

		pthread_mutex_lock(&shard->lock);
		totals.used_bytes += shard->used_bytes;
		totals.writing_bytes += shard->writing_bytes;
		totals.objects += shard->objects;
		totals.pinned_objects += shard->pinned_objects;
		totals.memory_bytes += kvk_shard_memory_bytes(shard);
		pthread_mutex_unlock(&shard->lock);
	}
	/* Last: bytes on their way from a shard to here are rather counted twice than not at all. */
	totals.used_bytes += atomic_load(&catalog->loose_bytes);
	*ret = totals;
}

uint32_t kvk_catalog_shares(struct kvk_catalog *catalog, enum kvk_share_by by, struct kvk_share *shares,
			    uint32_t count)
{
	struct kvk_share_part parts = { 0 };

	for (uint32_t i = 0; i < KVK_SHARDS; i++) {
		struct kvk_shard *shard = &catalog->shards[i];

		pthread_mutex_lock(&shard->lock);
		parts.used_bytes += shard->unnamed[by].used_bytes;
		parts.objects += shard->unnamed[by].objects;
		pthread_mutex_unlock(&shard->lock);
	}
	return kvk_share_list(by == KVK_BY_TENANT ? &catalog->tenants : &catalog->models, &parts, shares, count);
}

int kvk_catalog_set_quota(struct kvk_catalog *catalog, const void *tenant, uint32_t tenant_bytes,
			  uint64_t quota_bytes)
{
	bool move = quota_bytes != UINT64_MAX && !kvk_share_judges(&catalog->tenants);

	for (uint32_t i = 0; i < KVK_SHARDS && move; i++) {
		struct kvk_shard *shard = &catalog->shards[i];

		pthread_mutex_lock(&shard->lock);
		kvk_share_move(&catalog->tenants, &shard->unnamed[KVK_BY_TENANT]);
		pthread_mutex_unlock(&shard->lock);
	}
	return kvk_share_set_quota(&catalog->tenants, tenant, tenant_bytes, quota_bytes);
}
