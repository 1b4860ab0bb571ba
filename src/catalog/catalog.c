/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The states of objects.
 *
 * Findings and versions. Between asking here and looking at the medium anything may happen, for instance:
 *     1. A lookup asks: unknown. It opens the file.
 *     2. A remove begins, renames the file away, ends.
 *     3. The lookup reports what it found: the dying object would be back, and charged, with no file behind it.
 * So each group of keys has a version, which moves whenever we may have changed what lies under a name: at the
 * end of each put, of each remove, and at a loss. A finding about an object that is unknown holds only under
 * the version under which it was asked for. One about an object that is known holds as long as this is the same
 * life of the object: the entry carries the version under which it became known. Lives of one key are always
 * divided by an end that moves the version, so two of them never carry the same one. found() does not move it:
 * two lookups that find the same file agree.
 */
#include "catalog/catalog.h"

#include <errno.h>

#include "catalog/ghost.h"
#include "catalog/place.h"
#include "catalog/policy.h"
#include "util/alloc.h"

int kvk_catalog_new(struct kvk_catalog **ret, uint64_t room_bytes, const struct kvk_policy_options *options)
{
	/* Mapped: shards keep to their own cache lines, and malloc promises 16 bytes only. */
	struct kvk_catalog *catalog = kvk_mem_map(sizeof(*catalog));
	int err;

	if (!catalog)
		return -ENOMEM;
	for (uint32_t i = 0; i < KVK_SHARDS; i++)
		kvk_shard_init(&catalog->shards[i]);
	kvk_share_table_init(&catalog->tenants);
	kvk_share_table_init(&catalog->models);
	pthread_mutex_init(&catalog->evict_lock, NULL);
	catalog->unlimited = room_bytes == UINT64_MAX;
	if (room_bytes > INT64_MAX)
		room_bytes = INT64_MAX;
	atomic_init(&catalog->room_bytes, (int64_t)room_bytes);
	atomic_init(&catalog->cap_bytes, options ? options->cap_bytes : 0);
	for (uint32_t i = 0; i < KVK_USE_COUNT * KVK_SHARDS; i++)
		atomic_init(&catalog->oldest[i / KVK_SHARDS][i % KVK_SHARDS], UINT64_MAX);
	catalog->barren_changes = UINT64_MAX;
	catalog->policy = kvk_policy_find(options ? options->kind : KVK_POLICY_LRU);
	err = catalog->policy->init ? catalog->policy->init(catalog) : 0;
	if (err)
		goto fail;
	*ret = catalog;
	return 0;

fail:
	kvk_catalog_free(catalog);
	return err;
}

/* Mutexes are left as they are: in a child after fork another thread's copy may seem to hold one. */
void kvk_catalog_free(struct kvk_catalog *catalog)
{
	if (!catalog)
		return;
	for (uint32_t i = 0; i < KVK_SHARDS; i++)
		kvk_shard_release(&catalog->shards[i]);
	kvk_share_table_release(&catalog->tenants);
	kvk_share_table_release(&catalog->models);
	kvk_mem_free(catalog->candidates);
	kvk_mem_unmap(catalog, sizeof(*catalog));
}

static int pin_add(struct kvk_place *place)
{
	if (place->entry->pins == UINT16_MAX)
		return -EOVERFLOW;
	if (place->entry->pins++ == 0)
		place->shard->pinned_objects++;
	return 0;
}

/* ---- puts --------------------------------------------------------------------------------------- */

int kvk_catalog_put_begin(struct kvk_catalog *catalog, const uint8_t digest[32], uint64_t charge_bytes,
			  bool *durable_ret)
{
	uint32_t units = kvk_charge_units(charge_bytes);
	struct kvk_chain_link link = { .id = KVK_NO_ID };
	struct kvk_place place;
	int err;

	kvk_place_lock(&place, catalog, digest);
	switch (kvk_place_state(&place)) {
	case KVK_CATALOG_UNKNOWN:
		break;
	case KVK_CATALOG_WRITING:
		err = -EALREADY;
		goto out;
	case KVK_CATALOG_PRESENT:
		/* Of what was only listed nobody knows whether it is whole: the put goes and sees. */
		if (!kvk_is_whole(place.entry))
			break;
		*durable_ret = place.entry->durable;
		err = -EEXIST;
		goto out;
	case KVK_CATALOG_LEAVING:
		err = -EBUSY;
		goto out;
	}
	err = kvk_shard_reserve(place.shard);
	if (err)
		goto out;
	if (!kvk_room_reserve(catalog, kvk_units_bytes(units))) {
		err = -ENOSPC;
		goto out;
	}
	if (kvk_place_state(&place) == KVK_CATALOG_PRESENT)
		kvk_place_forget(catalog, &place, &link);
	kvk_place_insert(&place, KVK_CATALOG_WRITING);
	place.entry->charge_units = units & KVK_CHARGE_UNITS_MAX;
	place.shard->writing_bytes += kvk_units_bytes(units);
out:
	kvk_place_unlock(&place);
	kvk_chain_release(catalog, &link);
	return err;
}

void kvk_catalog_put_end(struct kvk_catalog *catalog, const uint8_t digest[32],
			 const struct kvk_object_info *info)
{
	struct kvk_chain_link link = { .id = KVK_NO_ID };
	struct kvk_place place;
	int64_t back_bytes = 0;
	bool doubted;

	if (info)
		link = kvk_chain_count(catalog, digest, info->parent_digest);
	kvk_place_lock(&place, catalog, digest);
	if (kvk_place_state(&place) != KVK_CATALOG_WRITING) {
		kvk_place_unlock(&place);
		kvk_chain_release(catalog, &link);
		return;
	}
	kvk_version_move(&place);
	doubted = place.entry->doubted;
	back_bytes = (int64_t)kvk_units_bytes(place.entry->charge_units);
	place.shard->writing_bytes -= (uint64_t)back_bytes;
	if (info) {
		kvk_place_make_known(catalog, &place, info);
		if (doubted)
			kvk_entry_doubt(place.entry, *place.version);
		kvk_chain_take(&place, &link);
		if (info->published)
			back_bytes -= (int64_t)kvk_units_bytes(place.entry->charge_units);
	} else {
		kvk_place_erase(&place);
	}
	kvk_place_unlock(&place);
	kvk_catalog_add_room(catalog, back_bytes);
}

/* ---- lookups and gets --------------------------------------------------------------------------- */

int kvk_catalog_look(struct kvk_catalog *catalog, const uint8_t digest[32], bool pin, bool renew,
		     struct kvk_catalog_ticket *ticket, struct kvk_object_info *info_ret)
{
	struct kvk_place place;
	int state;

	kvk_place_lock(&place, catalog, digest);
	state = (int)kvk_place_state(&place);
	if (state == KVK_CATALOG_PRESENT && !kvk_is_whole(place.entry))
		state = KVK_CATALOG_UNKNOWN;
	if (state == KVK_CATALOG_PRESENT) {
		if (pin && pin_add(&place)) {
			state = -EOVERFLOW;
			goto out;
		}
		if (info_ret) {
			info_ret->logical_bytes = place.entry->logical_bytes;
			info_ret->charge_bytes = kvk_units_bytes(place.entry->charge_units);
			info_ret->durable = place.entry->durable;
		}
	}
	ticket->shard_version = *place.version;
	ticket->entry_version = kvk_place_state(&place) == KVK_CATALOG_PRESENT ? place.entry->version : 0;
	/* Last: who reads a field beside a bit that was just written waits until that is in the cache, and with it all
	 * that was written before, neighbours in the list among it. */
	if (state == KVK_CATALOG_PRESENT && renew)
		kvk_place_renew(catalog, &place);
out:
	kvk_place_unlock(&place);
	return state;
}

void kvk_catalog_warm(struct kvk_catalog *catalog, const uint8_t *const *digests, uint32_t count)
{
	for (int pass = 0; pass < 2; pass++) {
		for (uint32_t i = 0; i < count; i++) {
			struct kvk_prefix prefix = kvk_prefix_of(digests[i]);
			struct kvk_shard *shard = &catalog->shards[kvk_prefix_shard(&prefix)];

			/* The lock, because slots may be on their way to a larger place. */
			pthread_mutex_lock(&shard->lock);
			if (pass == 0)
				kvk_shard_warm_slot(shard, &prefix);
			else if (!kvk_shard_warm_entry(shard, &prefix) && catalog->policy->ghosts)
				kvk_ghost_warm(shard, &prefix);
			pthread_mutex_unlock(&shard->lock);
		}
	}
}

int kvk_catalog_found(struct kvk_catalog *catalog, const uint8_t digest[32],
		      const struct kvk_catalog_ticket *ticket, const struct kvk_object_info *info, bool pin)
{
	bool learnt = false, completed = false;
	struct kvk_place place;
	int err = 0;

	kvk_place_lock(&place, catalog, digest);
	switch (kvk_place_state(&place)) {
	case KVK_CATALOG_WRITING:
		err = -EALREADY;
		goto out;
	case KVK_CATALOG_LEAVING:
		err = -EBUSY;
		goto out;
	case KVK_CATALOG_PRESENT:
		if (!kvk_place_is_life(&place, ticket) &&
		    (ticket->entry_version != 0 || ticket->shard_version != *place.version)) {
			err = -ESTALE;
			goto out;
		}
		if (!kvk_is_whole(place.entry)) {
			kvk_place_complete(catalog, &place, info);
			kvk_place_renew(catalog, &place);
			completed = true;
		}
		break;
	case KVK_CATALOG_UNKNOWN:
		if (ticket->shard_version != *place.version) {
			err = -ESTALE;
			goto out;
		}
		err = kvk_shard_reserve(place.shard);
		if (err)
			goto out;
		kvk_place_insert(&place, KVK_CATALOG_PRESENT);
		kvk_place_make_known(catalog, &place, info);
		learnt = true;
		break;
	}
	if (pin)
		err = pin_add(&place);
out:
	kvk_place_unlock(&place);
	if (learnt)
		kvk_chain_join(catalog, digest, info->parent_digest);
	else if (completed && !kvk_chain_is_none(info->parent_digest))
		kvk_catalog_link(catalog, digest, info->parent_digest);
	return err;
}

/* learnt: what was unknown by the ticket and has become known since, without anything coming or going, is meant as well. */
static void lose(struct kvk_catalog *catalog, const uint8_t digest[32], const struct kvk_catalog_ticket *ticket, bool learnt)
{
	struct kvk_chain_link link = { .id = KVK_NO_ID };
	struct kvk_place place;
	bool is_life;

	kvk_place_lock(&place, catalog, digest);
	is_life = kvk_place_is_life(&place, ticket) ||
		  (learnt && kvk_place_state(&place) == KVK_CATALOG_PRESENT && ticket->entry_version == 0 &&
		   ticket->shard_version == *place.version);
	/* Who had it open when it was moved aside, and comes with what he found after this, would make it known again. */
	if (is_life || learnt)
		kvk_version_move(&place);
	if (is_life)
		kvk_place_forget(catalog, &place, &link);
	/* A put since, or one that has not ended, may have found it present by its footer before. */
	else if (learnt && place.entry)
		kvk_entry_doubt(place.entry, *place.version);
	kvk_place_unlock(&place);
	kvk_chain_release(catalog, &link);
}

void kvk_catalog_lost(struct kvk_catalog *catalog, const uint8_t digest[32],
		      const struct kvk_catalog_ticket *ticket)
{
	lose(catalog, digest, ticket, false);
}

void kvk_catalog_moved_aside(struct kvk_catalog *catalog, const uint8_t digest[32],
			     const struct kvk_catalog_ticket *ticket)
{
	lose(catalog, digest, ticket, true);
}

void kvk_catalog_gone_elsewhere(struct kvk_catalog *catalog, const uint8_t prefix[16])
{
	struct kvk_place place;

	kvk_place_lock(&place, catalog, prefix);
	kvk_version_move(&place);
	if (place.entry)
		kvk_entry_doubt(place.entry, *place.version);
	kvk_place_unlock(&place);
}

void kvk_catalog_set_durable(struct kvk_catalog *catalog, const uint8_t digest[32],
			     const struct kvk_catalog_ticket *ticket)
{
	struct kvk_place place;

	kvk_place_lock(&place, catalog, digest);
	if (kvk_place_is_life(&place, ticket))
		place.entry->durable = true;
	kvk_place_unlock(&place);
}

void kvk_catalog_unpin(struct kvk_catalog *catalog, const uint8_t digest[32])
{
	struct kvk_place place;

	kvk_place_lock(&place, catalog, digest);
	if (place.entry && place.entry->pins > 0 && --place.entry->pins == 0) {
		place.shard->pinned_objects--;
		if (kvk_place_state(&place) == KVK_CATALOG_UNKNOWN)
			kvk_place_erase(&place);
		else
			kvk_place_return(catalog, place.shard, place.index);
	}
	kvk_place_unlock(&place);
}

uint32_t kvk_catalog_pins(struct kvk_catalog *catalog, const uint8_t digest[32])
{
	struct kvk_place place;
	uint32_t pins;

	kvk_place_lock(&place, catalog, digest);
	pins = place.entry ? place.entry->pins : 0;
	kvk_place_unlock(&place);
	return pins;
}

/* ---- removing ----------------------------------------------------------------------------------- */

int kvk_catalog_remove_begin(struct kvk_catalog *catalog, const uint8_t digest[32], bool *pinned_ret)
{
	enum kvk_catalog_state state;
	struct kvk_place place;
	int err = 0;

	kvk_place_lock(&place, catalog, digest);
	state = kvk_place_state(&place);
	if (state == KVK_CATALOG_WRITING || state == KVK_CATALOG_LEAVING) {
		*pinned_ret = false;
		err = -EBUSY;
	} else if (place.entry && place.entry->pins > 0) {
		/* What memory does not know may be there all the same. */
		*pinned_ret = true;
		err = -EBUSY;
	} else if (state == KVK_CATALOG_PRESENT) {
		place.entry->state = KVK_CATALOG_LEAVING;
		place.shard->objects--;
	} else {
		err = kvk_shard_reserve(place.shard);
		if (!err)
			kvk_place_insert(&place, KVK_CATALOG_LEAVING);
	}
	kvk_place_unlock(&place);
	return err;
}

void kvk_catalog_remove_renamed(struct kvk_catalog *catalog, const uint8_t digest[32], bool removed,
				uint64_t *charge_ret)
{
	struct kvk_chain_link link = { .id = KVK_NO_ID };
	uint64_t charge_bytes = 0;
	struct kvk_place place;

	kvk_place_lock(&place, catalog, digest);
	if (kvk_place_state(&place) != KVK_CATALOG_LEAVING || place.entry->chosen)
		goto out;
	kvk_version_move(&place);
	if (!place.entry->known) {
		kvk_place_erase(&place);
	} else if (removed) {
		charge_bytes = kvk_place_forget(catalog, &place, &link);
		/* Under the lock: totals() must not find these bytes in neither place. */
		atomic_fetch_add(&catalog->loose_bytes, charge_bytes);
	} else {
		place.entry->state = KVK_CATALOG_PRESENT;
		place.entry->version = *place.version;
		place.shard->objects++;
		kvk_place_return(catalog, place.shard, place.index);
	}
out:
	kvk_place_unlock(&place);
	kvk_chain_release(catalog, &link);
	*charge_ret = charge_bytes;
}
