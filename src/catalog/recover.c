/* SPDX-License-Identifier: Apache-2.0 */
/* What a restart needs: objects at their place in the order of use, and all of them told in that order. */
#include <errno.h>
#include <stdlib.h>

#include "catalog/place.h"
#include "catalog/policy.h"
#include "util/alloc.h"

/* An access time is set after the use that it tells of. Only what is later by more than this was somebody
 * else's. */
#define OTHERS_AFTER_US 60000000u

/* Others used an object that we know. */
static void used_elsewhere(struct kvk_catalog *catalog, struct kvk_place *place, uint64_t used_at)
{
	struct kvk_entry *entry = place->entry;
	/* What was only listed was used when its access time says so. */
	uint64_t before = entry->used_at + (entry->source == KVK_SOURCE_NAME ? 0 : OTHERS_AFTER_US);

	if (used_at <= before)
		return;
	if (catalog->policy->by_use) {
		kvk_use_drop(catalog, place->shard, place->index);
		entry->used_at = used_at & KVK_USED_AT_MAX;
		kvk_place_return(catalog, place->shard, place->index);
		return;
	}
	entry->used_at = used_at & KVK_USED_AT_MAX;
	kvk_use_renewed(catalog, place->shard, place->index);
	if (catalog->policy->touch)
		catalog->policy->touch(catalog, place->shard, place->index);
}

/* What a listing, a footer or a snapshot says of an object that is known already. */
static void learn(struct kvk_catalog *catalog, struct kvk_place *place, const struct kvk_object_info *info)
{
	struct kvk_entry *entry = place->entry;

	switch (info->source) {
	case KVK_SOURCE_NAME:
		if (kvk_charge_units(info->charge_bytes) != entry->charge_units) {
			if (entry->pins == 0)
				kvk_place_complete(catalog, place, info);
		} else if (entry->source == KVK_SOURCE_SNAPSHOT) {
			entry->source = KVK_SOURCE_FOOTER;
		}
		return;
	case KVK_SOURCE_FOOTER:
	case KVK_SOURCE_OPAQUE:
		if (entry->source != KVK_SOURCE_FOOTER)
			kvk_place_complete(catalog, place, info);
		return;
	case KVK_SOURCE_SNAPSHOT:
		return;
	}
}

/* ticket: NULL, or what is told holds for that life of the object alone. */
static int learn_of(struct kvk_catalog *catalog, const uint8_t digest[32], const struct kvk_catalog_ticket *ticket,
		    const struct kvk_object_info *info)
{
	struct kvk_place place;
	bool learnt = false;
	int err = 0;

	kvk_place_lock(&place, catalog, digest);
	if (ticket && !kvk_place_is_life(&place, ticket)) {
		kvk_place_unlock(&place);
		return -ESTALE;
	}
	switch (kvk_place_state(&place)) {
	case KVK_CATALOG_WRITING:
		err = -EALREADY;
		break;
	case KVK_CATALOG_LEAVING:
		err = -EBUSY;
		break;
	case KVK_CATALOG_PRESENT:
		place.entry->seen = info->source != KVK_SOURCE_SNAPSHOT || place.entry->seen;
		place.entry->doubted = info->source == KVK_SOURCE_SNAPSHOT && place.entry->doubted;
		learn(catalog, &place, info);
		used_elsewhere(catalog, &place, kvk_use_at(catalog, info->used_at));
		break;
	case KVK_CATALOG_UNKNOWN:
		err = kvk_shard_reserve(place.shard);
		if (err)
			break;
		kvk_place_insert(&place, KVK_CATALOG_PRESENT);
		kvk_place_make_known(catalog, &place, info);
		learnt = true;
		break;
	}
	if (!err && place.entry->source == KVK_SOURCE_NAME)
		err = KVK_CATALOG_WANTS_FOOTER;
	kvk_place_unlock(&place);
	/* Who was known before may be before others, so the way up has to be looked at. */
	if (learnt)
		kvk_chain_join(catalog, digest, info->parent_digest);
	else if (err >= 0 && !kvk_chain_is_none(info->parent_digest))
		kvk_catalog_link(catalog, digest, info->parent_digest);
	return err;
}

int kvk_catalog_scanned(struct kvk_catalog *catalog, const uint8_t digest[32], const struct kvk_object_info *info)
{
	return learn_of(catalog, digest, NULL, info);
}

int kvk_catalog_inspected(struct kvk_catalog *catalog, const uint8_t digest[32],
			  const struct kvk_catalog_ticket *ticket, const struct kvk_object_info *info)
{
	return learn_of(catalog, digest, ticket, info);
}

bool kvk_catalog_wants_footer(struct kvk_catalog *catalog, const uint8_t digest[32], struct kvk_catalog_ticket *ticket)
{
	struct kvk_place place;
	bool wants;

	kvk_place_lock(&place, catalog, digest);
	wants = kvk_place_state(&place) == KVK_CATALOG_PRESENT && place.entry->source == KVK_SOURCE_NAME;
	ticket->shard_version = *place.version;
	ticket->entry_version = wants ? place.entry->version : 0;
	kvk_place_unlock(&place);
	return wants;
}

/* ---- what is not there any more ----------------------------------------------------------------- */

#define UNSEEN_AT_ONCE 256u            /* under one lock: some ten microseconds */

enum sweep {
	SWEEP_UNSEE,                   /* nothing is seen any more */
	SWEEP_UNSEEN,                  /* what was not seen since is lost */
	SWEEP_DOUBTED,                 /* what is doubted is lost */
};

/* Of the entries from index on, at most UNSEEN_AT_ONCE. Returns how many were lost. */
static uint32_t lose_some(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t from, int first, enum sweep sweep)
{
	struct kvk_chain_link links[UNSEEN_AT_ONCE];
	uint32_t count = 0;

	pthread_mutex_lock(&shard->lock);
	for (uint32_t index = from; index < shard->fresh && index < from + UNSEEN_AT_ONCE; index++) {
		struct kvk_entry *entry = kvk_shard_entry(shard, index);
		struct kvk_place place = { .shard = shard, .entry = entry, .index = index };

		if (entry->state != KVK_CATALOG_PRESENT || (first >= 0 && (int)(entry->prefix.word[0] & 255) != first))
			continue;
		if (sweep == SWEEP_UNSEE)
			entry->seen = false;
		if (sweep == SWEEP_UNSEE || (sweep == SWEEP_UNSEEN ? entry->seen : !entry->doubted))
			continue;
		place.prefix = entry->prefix;
		place.version = &shard->versions[kvk_prefix_group(&place.prefix)];
		kvk_version_move(&place);
		kvk_place_forget(catalog, &place, &links[count++]);
	}
	pthread_mutex_unlock(&shard->lock);
	for (uint32_t i = 0; i < count; i++)
		kvk_chain_release(catalog, &links[i]);
	return count;
}

static uint32_t fresh_of(struct kvk_shard *shard)
{
	uint32_t fresh;

	pthread_mutex_lock(&shard->lock);
	fresh = shard->fresh;
	pthread_mutex_unlock(&shard->lock);
	return fresh;
}

static uint64_t lose_all(struct kvk_catalog *catalog, int first, enum sweep sweep)
{
	uint64_t count = 0;

	for (uint32_t i = 0; i < KVK_SHARDS; i++) {
		struct kvk_shard *shard = &catalog->shards[i];

		/* The shard is in the lowest bits of the first byte. */
		if (first >= 0 && ((uint32_t)first & (KVK_SHARDS - 1)) != i)
			continue;
		for (uint32_t from = 0; from < fresh_of(shard); from += UNSEEN_AT_ONCE)
			count += lose_some(catalog, shard, from, first, sweep);
	}
	return count;
}

void kvk_catalog_forget_seen(struct kvk_catalog *catalog, int first)
{
	lose_all(catalog, first, SWEEP_UNSEE);
}

uint64_t kvk_catalog_lose_unseen(struct kvk_catalog *catalog, int first)
{
	return lose_all(catalog, first, SWEEP_UNSEEN);
}

void kvk_catalog_forget_doubted(struct kvk_catalog *catalog)
{
	lose_all(catalog, -1, SWEEP_DOUBTED);
}

void kvk_catalog_doubt(struct kvk_catalog *catalog)
{
	for (uint32_t i = 0; i < KVK_SHARDS; i++) {
		struct kvk_shard *shard = &catalog->shards[i];

		pthread_mutex_lock(&shard->lock);
		for (uint32_t group = 0; group < KVK_GROUPS; group++)
			shard->versions[group] += shard->versions[group] == UINT32_MAX ? 2 : 1;
		pthread_mutex_unlock(&shard->lock);
		for (uint32_t from = 0; from < fresh_of(shard); from += UNSEEN_AT_ONCE) {
			pthread_mutex_lock(&shard->lock);
			for (uint32_t index = from; index < shard->fresh && index < from + UNSEEN_AT_ONCE; index++) {
				struct kvk_entry *entry = kvk_shard_entry(shard, index);

				kvk_entry_doubt(entry, shard->versions[kvk_prefix_group(&entry->prefix)]);
			}
			pthread_mutex_unlock(&shard->lock);
		}
	}
}

/* ---- all of a shard, in order ------------------------------------------------------------------- */

#define VISIT_AT_ONCE 256u             /* under one lock: some ten microseconds */

struct visited {
	uint64_t used_at;
	uint32_t index;
	uint16_t generation;
	bool has_parent;
	struct kvk_prefix parent;
	uint32_t parent_id;
	uint16_t parent_generation;
};

static int by_used_at(const void *a, const void *b)
{
	const struct visited *left = a;
	const struct visited *right = b;

	return (left->used_at > right->used_at) - (left->used_at < right->used_at);
}

/* Returns how many, or -ENOMEM. */
static int64_t collect(struct kvk_shard *shard, struct visited **ret)
{
	struct visited *all;
	int64_t count = 0;

	pthread_mutex_lock(&shard->lock);
	all = kvk_mem_alloc((shard->entry_count + 1) * sizeof(*all));
	for (uint32_t index = 0; all && index < shard->fresh; index++) {
		const struct kvk_entry *entry = kvk_shard_entry(shard, index);

		if (entry->state == KVK_CATALOG_UNKNOWN || !entry->known)
			continue;
		all[count++] = (struct visited){
			.used_at = entry->used_at, .index = index, .generation = entry->generation,
			.has_parent = entry->counted, .parent_id = entry->parent,
			.parent_generation = entry->parent_generation,
		};
	}
	pthread_mutex_unlock(&shard->lock);
	if (!all)
		return -ENOMEM;
	*ret = all;
	return count;
}

/* Parents lie in other shards, whose locks are not taken under this one's. */
static void name_parent(struct kvk_catalog *catalog, struct visited *visited)
{
	struct kvk_shard *shard = kvk_id_shard(catalog, visited->parent_id);
	const struct kvk_entry *entry;

	pthread_mutex_lock(&shard->lock);
	entry = kvk_shard_entry(shard, kvk_id_index(visited->parent_id));
	visited->has_parent = entry->generation == visited->parent_generation;
	if (visited->has_parent)
		visited->parent = entry->prefix;
	pthread_mutex_unlock(&shard->lock);
}

static bool tell(struct kvk_catalog *catalog, const struct kvk_shard *shard, const struct visited *visited,
		 bool (*visit)(void *user, const uint8_t prefix[16], const struct kvk_object_info *info), void *user)
{
	const struct kvk_entry *entry = kvk_shard_entry(shard, visited->index);
	struct kvk_object_info info = {
		.logical_bytes = entry->logical_bytes, .charge_bytes = kvk_units_bytes(entry->charge_units),
		.durable = entry->durable, .used_at = kvk_used_at_ns(entry),
		.source = (enum kvk_source)entry->source,
	};

	/* Its place may be another's by now. */
	if (entry->generation != visited->generation)
		return true;
	if (visited->has_parent)
		memcpy(info.parent_digest, &visited->parent, sizeof(visited->parent));
	info.tenant = kvk_share_name(&catalog->tenants, entry->tenant, &info.tenant_bytes);
	info.model = kvk_share_name(&catalog->models, entry->model, &info.model_bytes);
	return visit(user, (const uint8_t *)&entry->prefix, &info);
}

int kvk_catalog_visit(struct kvk_catalog *catalog, uint32_t shard_number,
		      bool (*visit)(void *user, const uint8_t prefix[16], const struct kvk_object_info *info),
		      void *user)
{
	struct kvk_shard *shard = &catalog->shards[shard_number];
	struct visited *all = NULL;
	int64_t count = collect(shard, &all);
	bool more = true;

	if (count < 0)
		return (int)count;
	qsort(all, (size_t)count, sizeof(*all), by_used_at);
	for (int64_t i = 0; i < count; i++) {
		if (all[i].has_parent)
			name_parent(catalog, &all[i]);
	}
	for (int64_t from = 0; from < count && more; from += VISIT_AT_ONCE) {
		pthread_mutex_lock(&shard->lock);
		for (int64_t i = from; i < count && i < from + VISIT_AT_ONCE && more; i++)
			more = tell(catalog, shard, &all[i], visit, user);
		pthread_mutex_unlock(&shard->lock);
	}
	kvk_mem_free(all);
	return 0;
}
