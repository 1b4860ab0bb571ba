/* SPDX-License-Identifier: Apache-2.0 */
/* How an entry becomes known and is forgotten: its bytes, its tenant and model, its place in the order of use. */
#include "catalog/place.h"
#include "catalog/policy.h"

static uint64_t bounded_bytes(uint64_t bytes)
{
	return bytes < KVK_LOGICAL_BYTES_MAX ? bytes : KVK_LOGICAL_BYTES_MAX;
}

static void count_shares(struct kvk_catalog *catalog, struct kvk_place *place, const struct kvk_object_info *info,
			 uint64_t charge_bytes)
{
	struct kvk_share_part *unnamed = place->shard->unnamed;

	place->entry->tenant = kvk_share_add(&catalog->tenants, &unnamed[KVK_BY_TENANT], info->tenant, info->tenant_bytes,
					     charge_bytes);
	place->entry->model = kvk_share_add(&catalog->models, &unnamed[KVK_BY_MODEL], info->model, info->model_bytes,
					    charge_bytes);
}

static void uncount_shares(struct kvk_catalog *catalog, struct kvk_place *place, uint64_t charge_bytes, uint64_t leaving_bytes)
{
	struct kvk_share_part *unnamed = place->shard->unnamed;

	kvk_share_sub(&catalog->tenants, &unnamed[KVK_BY_TENANT], place->entry->tenant, charge_bytes, leaving_bytes);
	kvk_share_sub(&catalog->models, &unnamed[KVK_BY_MODEL], place->entry->model, charge_bytes, 0);
}

void kvk_place_make_known(struct kvk_catalog *catalog, struct kvk_place *place, const struct kvk_object_info *info)
{
	struct kvk_entry *entry = place->entry;
	uint64_t charge_bytes, used_at;

	place->shard->changes++;
	entry->state = KVK_CATALOG_PRESENT;
	entry->known = true;
	entry->durable = info->durable;
	entry->source = info->source & 3;
	entry->seen = info->source != KVK_SOURCE_SNAPSHOT;
	entry->doubted = false;
	entry->logical_bytes = bounded_bytes(info->logical_bytes) & KVK_LOGICAL_BYTES_MAX;
	entry->charge_units = kvk_charge_units(info->charge_bytes) & KVK_CHARGE_UNITS_MAX;
	entry->version = *place->version;
	used_at = info->used_at ? kvk_use_at(catalog, info->used_at) : kvk_use_now(catalog);
	entry->used_at = used_at & KVK_USED_AT_MAX;
	charge_bytes = kvk_units_bytes(entry->charge_units);
	count_shares(catalog, place, info, charge_bytes);
	place->shard->used_bytes += charge_bytes;
	place->shard->objects++;
	if (catalog->policy->add)
		catalog->policy->add(catalog, place->shard, place->index, info->used_at == 0);
}

uint64_t kvk_place_forget(struct kvk_catalog *catalog, struct kvk_place *place, struct kvk_chain_link *link_ret)
{
	struct kvk_entry *entry = place->entry;
	uint64_t charge_bytes = kvk_units_bytes(entry->charge_units);

	place->shard->changes++;
	*link_ret = (struct kvk_chain_link){
		.id = entry->counted ? entry->parent : KVK_NO_ID,
		.generation = entry->parent_generation, .used_at = entry->used_at,
	};
	if (!entry->chosen && catalog->policy->leave)
		catalog->policy->leave(catalog, entry);
	uncount_shares(catalog, place, charge_bytes, entry->chosen && catalog->policy->quotas ? charge_bytes : 0);
	place->shard->used_bytes -= charge_bytes;
	if (entry->state == KVK_CATALOG_PRESENT)
		place->shard->objects--;
	kvk_use_drop(catalog, place->shard, place->index);
	kvk_place_erase(place);
	return charge_bytes;
}

void kvk_place_complete(struct kvk_catalog *catalog, struct kvk_place *place, const struct kvk_object_info *info)
{
	struct kvk_entry *entry = place->entry;
	uint64_t before_bytes = kvk_units_bytes(entry->charge_units), charge_bytes;
	uint32_t units = kvk_charge_units(info->charge_bytes) & KVK_CHARGE_UNITS_MAX;
	bool changes = units != entry->charge_units;

	uncount_shares(catalog, place, before_bytes, 0);
	if (changes) {
		if (catalog->policy->leave)
			catalog->policy->leave(catalog, entry);
		kvk_use_drop(catalog, place->shard, place->index);
		entry->charge_units = units & KVK_CHARGE_UNITS_MAX;
	}
	charge_bytes = kvk_units_bytes(units);
	place->shard->used_bytes += charge_bytes - before_bytes;
	entry->logical_bytes = bounded_bytes(info->logical_bytes) & KVK_LOGICAL_BYTES_MAX;
	entry->durable = info->durable;
	entry->source = info->source & 3;
	entry->doubted = false;
	count_shares(catalog, place, info, charge_bytes);
	if (changes && catalog->policy->add)
		catalog->policy->add(catalog, place->shard, place->index, false);
}

void kvk_place_return(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index)
{
	struct kvk_entry *entry = kvk_shard_entry(shard, index);

	/* Whether it may go itself or not: what is above it may have waited for it alone. */
	shard->changes++;
	if (entry->use == KVK_USE_ASIDE && kvk_may_go(entry) && catalog->policy->back)
		catalog->policy->back(catalog, shard, index);
}

void kvk_place_renew(struct kvk_catalog *catalog, struct kvk_place *place)
{
	uint64_t now = kvk_use_now(catalog);

	if (now > place->entry->used_at)
		place->entry->used_at = now & KVK_USED_AT_MAX;
	if (catalog->policy->touch)
		catalog->policy->touch(catalog, place->shard, place->index);
	/* On its way from one list to another it may have been in none that a search looked at. */
	if (kvk_may_go(place->entry))
		place->shard->changes++;
}
