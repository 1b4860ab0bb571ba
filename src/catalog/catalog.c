/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The states of objects and the account of their bytes.
 *
 * Findings and versions. Between asking here and looking at the medium anything may happen, for instance:
 *     1. A lookup asks: unknown. It opens the file.
 *     2. A remove begins, renames the file away, ends.
 *     3. The lookup reports what it found: the dying object would be back, and charged, with no file behind it.
 * So each group of keys has a version, which moves whenever we may have changed what lies under a name: at the end
 * of each put, of each remove, and at a loss. A finding about an object that is unknown holds only under the version
 * under which it was asked for. One about an object that is known holds as long as this is the same life of
 * the object: the entry carries the version under which it became known. Lives of one key are always divided by an
 * end that moves the version, so two of them never carry the same one. found() does not move it: two lookups
 * that find the same file agree.
 */
#include "catalog/catalog.h"

#include <errno.h>

#include "catalog/catalog_private.h"
#include "util/alloc.h"

int kvk_catalog_new(struct kvk_catalog **ret, uint64_t room_bytes)
{
	/* Mapped: shards keep to their own cache lines, and malloc promises 16 bytes only. */
	struct kvk_catalog *catalog = kvk_mem_map(sizeof(*catalog));

	if (!catalog)
		return -ENOMEM;
	for (uint32_t i = 0; i < KVK_SHARDS; i++)
		kvk_shard_init(&catalog->shards[i]);
	kvk_share_table_init(&catalog->tenants);
	kvk_share_table_init(&catalog->models);
	catalog->unlimited = room_bytes == UINT64_MAX;
	if (room_bytes > INT64_MAX)
		room_bytes = INT64_MAX;
	atomic_init(&catalog->room_bytes, (int64_t)room_bytes);
	atomic_init(&catalog->loose_bytes, 0);
	*ret = catalog;
	return 0;
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
	kvk_mem_unmap(catalog, sizeof(*catalog));
}

/* ---- the lease ---------------------------------------------------------------------------------- */

static uint32_t charge_units(uint64_t charge_bytes)
{
	uint64_t units = charge_bytes / KVK_CHARGE_UNIT_BYTES + (charge_bytes % KVK_CHARGE_UNIT_BYTES != 0);

	return units < UINT32_MAX ? (uint32_t)units : UINT32_MAX;
}

static uint64_t units_bytes(uint32_t units)
{
	return (uint64_t)units * KVK_CHARGE_UNIT_BYTES;
}

/* Puts never bring the lease below zero. */
static bool room_reserve(struct kvk_catalog *catalog, uint64_t bytes)
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

/* What is found to exist is taken, and what is given back is added, without asking. */
static void room_add(struct kvk_catalog *catalog, int64_t bytes)
{
	if (!catalog->unlimited)
		atomic_fetch_add(&catalog->room_bytes, bytes);
}

void kvk_catalog_add_room(struct kvk_catalog *catalog, int64_t bytes)
{
	room_add(catalog, bytes);
}

void kvk_catalog_charge(struct kvk_catalog *catalog, uint64_t charge_bytes)
{
	atomic_fetch_add(&catalog->loose_bytes, charge_bytes);
	room_add(catalog, -(int64_t)charge_bytes);
}

void kvk_catalog_credit(struct kvk_catalog *catalog, uint64_t charge_bytes)
{
	uint64_t loose = atomic_load(&catalog->loose_bytes);
	uint64_t taken;

	/* Nobody gets back more than was charged: the lease is a promise about the medium. */
	do {
		taken = charge_bytes < loose ? charge_bytes : loose;
	} while (!atomic_compare_exchange_weak(&catalog->loose_bytes, &loose, loose - taken));
	room_add(catalog, (int64_t)taken);
}

/* ---- entries ------------------------------------------------------------------------------------ */

/* A key, its shard with the lock held, and the entry if there is one. */
struct place {
	struct kvk_prefix prefix;
	struct kvk_shard *shard;
	uint32_t *version;
	struct kvk_entry *entry;       /* NULL: memory does not know it */
	uint32_t index;
};

static void place_lock(struct place *place, struct kvk_catalog *catalog, const uint8_t digest[32])
{
	place->prefix = kvk_prefix_of(digest);
	place->shard = &catalog->shards[kvk_prefix_shard(&place->prefix)];
	place->version = &place->shard->versions[kvk_prefix_group(&place->prefix)];
	pthread_mutex_lock(&place->shard->lock);
	place->index = kvk_shard_find(place->shard, &place->prefix);
	place->entry = place->index == KVK_NO_ENTRY ? NULL : kvk_shard_entry(place->shard, place->index);
}

static void place_unlock(struct place *place)
{
	pthread_mutex_unlock(&place->shard->lock);
}

static enum kvk_catalog_state place_state(const struct place *place)
{
	return place->entry ? (enum kvk_catalog_state)place->entry->state : KVK_CATALOG_UNKNOWN;
}

/* After kvk_shard_reserve(). */
static void place_insert(struct place *place, enum kvk_catalog_state state)
{
	place->index = kvk_shard_insert(place->shard, &place->prefix);
	place->entry = kvk_shard_entry(place->shard, place->index);
	place->entry->state = (uint8_t)state;
}

static void place_erase(struct place *place)
{
	kvk_shard_erase(place->shard, place->index);
	place->entry = NULL;
	place->index = KVK_NO_ENTRY;
}

/* 0 is the version of "was not known". */
static void version_move(struct place *place)
{
	if (++*place->version == 0)
		*place->version = 1;
}

static bool is_this_life(const struct place *place, const struct kvk_catalog_ticket *ticket)
{
	return place->entry && place->entry->state == KVK_CATALOG_PRESENT &&
	       place->entry->version == ticket->entry_version;
}

static int pin_add(struct place *place)
{
	if (place->entry->pins == UINT16_MAX)
		return -EOVERFLOW;
	if (place->entry->pins++ == 0)
		place->shard->pinned_objects++;
	return 0;
}

/* A link to another entry, taken under that entry's lock and kept under this one's. */
struct parent_link {
	uint32_t id;
	uint32_t generation;
};

static struct parent_link find_parent(struct kvk_catalog *catalog, const uint8_t digest[32],
				      const uint8_t parent_digest[32])
{
	static const uint8_t none[32];
	struct parent_link link = { .id = KVK_NO_ID };
	struct place parent;

	if (memcmp(parent_digest, none, sizeof(none)) == 0 || memcmp(parent_digest, digest, sizeof(none)) == 0)
		return link;
	place_lock(&parent, catalog, parent_digest);
	if (parent.entry) {
		link.id = parent.index << KVK_SHARD_BITS | kvk_prefix_shard(&parent.prefix);
		link.generation = parent.entry->generation;
	}
	place_unlock(&parent);
	return link;
}

bool kvk_catalog_parent(struct kvk_catalog *catalog, const uint8_t digest[32], struct kvk_prefix *parent_ret)
{
	struct parent_link link = { .id = KVK_NO_ID };
	struct kvk_shard *shard;
	struct kvk_entry *parent;
	struct place place;
	bool holds;

	place_lock(&place, catalog, digest);
	if (place.entry)
		link = (struct parent_link){ place.entry->parent, place.entry->parent_generation };
	place_unlock(&place);
	if (link.id == KVK_NO_ID)
		return false;

	shard = &catalog->shards[link.id & (KVK_SHARDS - 1)];
	pthread_mutex_lock(&shard->lock);
	parent = kvk_shard_entry(shard, link.id >> KVK_SHARD_BITS);
	holds = parent->generation == link.generation;
	if (holds)
		*parent_ret = parent->prefix;
	pthread_mutex_unlock(&shard->lock);
	return holds;
}

/* The entry is present from now on, charged, and the most recent. What it cost before is the caller's business. */
static void make_known(struct kvk_catalog *catalog, struct place *place, const struct kvk_object_info *info,
		       struct parent_link parent)
{
	struct kvk_entry *entry = place->entry;
	uint64_t charge_bytes;

	entry->state = KVK_CATALOG_PRESENT;
	entry->known = true;
	entry->durable = info->durable;
	entry->logical_bytes = info->logical_bytes;
	entry->charge_units = charge_units(info->charge_bytes);
	entry->version = *place->version;
	entry->parent = parent.id;
	entry->parent_generation = parent.generation;
	charge_bytes = units_bytes(entry->charge_units);
	entry->tenant = kvk_share_add(&catalog->tenants, info->tenant, info->tenant_bytes, charge_bytes);
	entry->model = kvk_share_add(&catalog->models, info->model, info->model_bytes, charge_bytes);
	place->shard->used_bytes += charge_bytes;
	place->shard->objects++;
	kvk_shard_use_push(place->shard, place->index);
}

/* Takes a known entry out with its pins and returns what it was charged, which is now on nobody's account. */
static uint64_t forget(struct kvk_catalog *catalog, struct place *place)
{
	struct kvk_entry *entry = place->entry;
	uint64_t charge_bytes = units_bytes(entry->charge_units);

	kvk_share_sub(&catalog->tenants, entry->tenant, charge_bytes);
	kvk_share_sub(&catalog->models, entry->model, charge_bytes);
	place->shard->used_bytes -= charge_bytes;
	if (entry->state == KVK_CATALOG_PRESENT)
		place->shard->objects--;
	if (entry->pins > 0)
		place->shard->pinned_objects--;
	kvk_shard_use_drop(place->shard, place->index);
	place_erase(place);
	return charge_bytes;
}

/* ---- puts --------------------------------------------------------------------------------------- */

int kvk_catalog_put_begin(struct kvk_catalog *catalog, const uint8_t digest[32], uint64_t charge_bytes,
			  bool *durable_ret)
{
	uint32_t units = charge_units(charge_bytes);
	struct place place;
	int err;

	place_lock(&place, catalog, digest);
	switch (place_state(&place)) {
	case KVK_CATALOG_UNKNOWN:
		break;
	case KVK_CATALOG_WRITING:
		err = -EALREADY;
		goto out;
	case KVK_CATALOG_PRESENT:
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
	if (!room_reserve(catalog, units_bytes(units))) {
		err = -ENOSPC;
		goto out;
	}
	place_insert(&place, KVK_CATALOG_WRITING);
	place.entry->charge_units = units;
	place.shard->writing_bytes += units_bytes(units);
out:
	place_unlock(&place);
	return err;
}

void kvk_catalog_put_end(struct kvk_catalog *catalog, const uint8_t digest[32],
			 const struct kvk_object_info *info)
{
	struct parent_link parent = { .id = KVK_NO_ID };
	uint64_t reserved_bytes;
	struct place place;

	if (info)
		parent = find_parent(catalog, digest, info->parent_digest);
	place_lock(&place, catalog, digest);
	if (place_state(&place) != KVK_CATALOG_WRITING)
		goto out;
	version_move(&place);
	reserved_bytes = units_bytes(place.entry->charge_units);
	place.shard->writing_bytes -= reserved_bytes;
	if (info) {
		make_known(catalog, &place, info, parent);
		room_add(catalog, (int64_t)reserved_bytes - (int64_t)units_bytes(place.entry->charge_units));
	} else {
		place_erase(&place);
		room_add(catalog, (int64_t)reserved_bytes);
	}
out:
	place_unlock(&place);
}

/* ---- lookups and gets --------------------------------------------------------------------------- */

static void renew_use(struct place *place)
{
	if (place->shard->newest == place->index)
		return;
	kvk_shard_use_drop(place->shard, place->index);
	kvk_shard_use_push(place->shard, place->index);
}

int kvk_catalog_look(struct kvk_catalog *catalog, const uint8_t digest[32], bool pin, bool renew,
		     struct kvk_catalog_ticket *ticket, struct kvk_object_info *info_ret)
{
	struct place place;
	int state;

	place_lock(&place, catalog, digest);
	state = (int)place_state(&place);
	if (state == KVK_CATALOG_PRESENT) {
		if (pin && pin_add(&place)) {
			state = -EOVERFLOW;
			goto out;
		}
		if (renew)
			renew_use(&place);
		if (info_ret) {
			info_ret->logical_bytes = place.entry->logical_bytes;
			info_ret->charge_bytes = units_bytes(place.entry->charge_units);
			info_ret->durable = place.entry->durable;
		}
	}
	ticket->shard_version = *place.version;
	ticket->entry_version = state == KVK_CATALOG_PRESENT ? place.entry->version : 0;
out:
	place_unlock(&place);
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
			else
				kvk_shard_warm_entry(shard, &prefix);
			pthread_mutex_unlock(&shard->lock);
		}
	}
}

int kvk_catalog_found(struct kvk_catalog *catalog, const uint8_t digest[32],
		      const struct kvk_catalog_ticket *ticket, const struct kvk_object_info *info, bool pin)
{
	struct parent_link parent = find_parent(catalog, digest, info->parent_digest);
	struct place place;
	int err = 0;

	place_lock(&place, catalog, digest);
	switch (place_state(&place)) {
	case KVK_CATALOG_WRITING:
		err = -EALREADY;
		goto out;
	case KVK_CATALOG_LEAVING:
		err = -EBUSY;
		goto out;
	case KVK_CATALOG_PRESENT:
		if (!is_this_life(&place, ticket) &&
		    (ticket->entry_version != 0 || ticket->shard_version != *place.version)) {
			err = -ESTALE;
			goto out;
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
		place_insert(&place, KVK_CATALOG_PRESENT);
		make_known(catalog, &place, info, parent);
		room_add(catalog, -(int64_t)units_bytes(place.entry->charge_units));
		break;
	}
	if (pin)
		err = pin_add(&place);
out:
	place_unlock(&place);
	return err;
}

void kvk_catalog_lost(struct kvk_catalog *catalog, const uint8_t digest[32],
		      const struct kvk_catalog_ticket *ticket)
{
	struct place place;

	place_lock(&place, catalog, digest);
	if (is_this_life(&place, ticket)) {
		version_move(&place);
		room_add(catalog, (int64_t)forget(catalog, &place));
	}
	place_unlock(&place);
}

void kvk_catalog_set_durable(struct kvk_catalog *catalog, const uint8_t digest[32],
			     const struct kvk_catalog_ticket *ticket)
{
	struct place place;

	place_lock(&place, catalog, digest);
	if (is_this_life(&place, ticket))
		place.entry->durable = true;
	place_unlock(&place);
}

void kvk_catalog_unpin(struct kvk_catalog *catalog, const uint8_t digest[32])
{
	struct place place;

	place_lock(&place, catalog, digest);
	if (place.entry && place.entry->pins > 0 && --place.entry->pins == 0)
		place.shard->pinned_objects--;
	place_unlock(&place);
}

uint32_t kvk_catalog_pins(struct kvk_catalog *catalog, const uint8_t digest[32])
{
	struct place place;
	uint32_t pins;

	place_lock(&place, catalog, digest);
	pins = place.entry ? place.entry->pins : 0;
	place_unlock(&place);
	return pins;
}

/* ---- removing ----------------------------------------------------------------------------------- */

int kvk_catalog_remove_begin(struct kvk_catalog *catalog, const uint8_t digest[32], bool *pinned_ret)
{
	struct place place;
	int err = 0;

	place_lock(&place, catalog, digest);
	switch (place_state(&place)) {
	case KVK_CATALOG_WRITING:
	case KVK_CATALOG_LEAVING:
		*pinned_ret = false;
		err = -EBUSY;
		break;
	case KVK_CATALOG_PRESENT:
		if (place.entry->pins > 0) {
			*pinned_ret = true;
			err = -EBUSY;
			break;
		}
		place.entry->state = KVK_CATALOG_LEAVING;
		place.shard->objects--;
		break;
	case KVK_CATALOG_UNKNOWN:
		err = kvk_shard_reserve(place.shard);
		if (!err)
			place_insert(&place, KVK_CATALOG_LEAVING);
		break;
	}
	place_unlock(&place);
	return err;
}

void kvk_catalog_remove_renamed(struct kvk_catalog *catalog, const uint8_t digest[32], bool removed,
				uint64_t *charge_ret)
{
	uint64_t charge_bytes = 0;
	struct place place;

	place_lock(&place, catalog, digest);
	if (place_state(&place) != KVK_CATALOG_LEAVING)
		goto out;
	version_move(&place);
	if (!place.entry->known) {
		place_erase(&place);
	} else if (removed) {
		charge_bytes = forget(catalog, &place);
		/* Under the lock: totals() must not find these bytes in neither place. */
		atomic_fetch_add(&catalog->loose_bytes, charge_bytes);
	} else {
		place.entry->state = KVK_CATALOG_PRESENT;
		place.entry->version = *place.version;
		place.shard->objects++;
	}
out:
	place_unlock(&place);
	*charge_ret = charge_bytes;
}

/* ---- totals ------------------------------------------------------------------------------------- */

void kvk_catalog_totals(struct kvk_catalog *catalog, struct kvk_catalog_totals *ret)
{
	struct kvk_catalog_totals totals = {
		.memory_bytes = sizeof(*catalog) + kvk_share_memory_bytes(&catalog->tenants) +
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
	return kvk_share_list(by == KVK_BY_TENANT ? &catalog->tenants : &catalog->models, shares, count);
}
