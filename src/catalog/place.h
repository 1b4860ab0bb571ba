/* SPDX-License-Identifier: Apache-2.0 */
/* A key in its shard under the lock, and how it becomes known and is forgotten there. For src/catalog. */
#ifndef KVK_CATALOG_PLACE_H
#define KVK_CATALOG_PLACE_H

#include "catalog/catalog_private.h"
#include "catalog/chain.h"

/* A key, its shard with the lock held, and the entry if there is one. */
struct kvk_place {
	struct kvk_prefix prefix;
	struct kvk_shard *shard;
	uint32_t *version;
	struct kvk_entry *entry;       /* NULL: memory does not know it, and it has no pins */
	uint32_t index;
};

/* Of the digest 16 bytes are read. */
static inline void kvk_place_lock(struct kvk_place *place, struct kvk_catalog *catalog, const uint8_t *digest)
{
	place->prefix = kvk_prefix_of(digest);
	place->shard = &catalog->shards[kvk_prefix_shard(&place->prefix)];
	place->version = &place->shard->versions[kvk_prefix_group(&place->prefix)];
	pthread_mutex_lock(&place->shard->lock);
	place->index = kvk_shard_find(place->shard, &place->prefix);
	place->entry = place->index == KVK_NO_ENTRY ? NULL : kvk_shard_entry(place->shard, place->index);
}

static inline void kvk_place_unlock(struct kvk_place *place)
{
	pthread_mutex_unlock(&place->shard->lock);
}

static inline enum kvk_catalog_state kvk_place_state(const struct kvk_place *place)
{
	return place->entry ? (enum kvk_catalog_state)place->entry->state : KVK_CATALOG_UNKNOWN;
}

/* Whether it is present, and has been ever since that ticket was given. */
static inline bool kvk_place_is_life(const struct kvk_place *place, const struct kvk_catalog_ticket *ticket)
{
	return place->entry && place->entry->state == KVK_CATALOG_PRESENT &&
	       place->entry->version == ticket->entry_version;
}

/* What is unknown comes into a state, and has the pins that are on its key. After kvk_shard_reserve(). */
static inline void kvk_place_insert(struct kvk_place *place, enum kvk_catalog_state state)
{
	if (!place->entry) {
		place->index = kvk_shard_insert(place->shard, &place->prefix);
		place->entry = kvk_shard_entry(place->shard, place->index);
	}
	place->entry->state = state & 3;
}

/* It is unknown from now on. Its pins stay on the key: whoever put them there takes them off. */
static inline void kvk_place_erase(struct kvk_place *place)
{
	if (place->entry->pins > 0) {
		kvk_shard_vacate(place->shard, place->index);
		return;
	}
	kvk_shard_erase(place->shard, place->index);
	place->entry = NULL;
	place->index = KVK_NO_ENTRY;
}

/* 0 is the version of "was not known". */
static inline void kvk_version_move(struct kvk_place *place)
{
	if (++*place->version == 0)
		*place->version = 1;
}

/*
 * Others say that they removed it, or may have. What is present is only listed from now on; what is being written or removed is so
 * when it becomes present, since that may have been found before. So may what a ticket was given for: version is that of its group,
 * just moved.
 */
static inline void kvk_entry_doubt(struct kvk_entry *entry, uint32_t version)
{
	if (entry->state == KVK_CATALOG_UNKNOWN)
		return;
	entry->source = KVK_SOURCE_NAME;
	entry->doubted = true;
	if (entry->state == KVK_CATALOG_PRESENT)
		entry->version = version;
}

static inline uint32_t kvk_charge_units(uint64_t charge_bytes)
{
	uint64_t units = charge_bytes / KVK_CHARGE_UNIT_BYTES + (charge_bytes % KVK_CHARGE_UNIT_BYTES != 0);

	return units < KVK_CHARGE_UNITS_MAX ? (uint32_t)units : KVK_CHARGE_UNITS_MAX;
}

static inline uint64_t kvk_units_bytes(uint32_t units)
{
	return (uint64_t)units * KVK_CHARGE_UNIT_BYTES;
}

/* The time of a use that happens now. */
static inline uint64_t kvk_use_now(struct kvk_catalog *catalog)
{
	uint64_t latest = atomic_load_explicit(&catalog->used_at, memory_order_relaxed);
	uint64_t clock_us = atomic_load_explicit(&catalog->clock_us, memory_order_relaxed);

	if (latest >= KVK_USED_AT_MAX || (clock_us && latest >= clock_us + 1000000))
		return latest;
	return atomic_fetch_add_explicit(&catalog->used_at, 1, memory_order_relaxed) + 1;
}

/* The time of a use that somebody else tells of. */
static inline uint64_t kvk_use_at(struct kvk_catalog *catalog, uint64_t used_at_ns)
{
	uint64_t used_at = used_at_ns / 1000 < KVK_USED_AT_MAX ? used_at_ns / 1000 : KVK_USED_AT_MAX;
	uint64_t latest = atomic_load_explicit(&catalog->used_at, memory_order_relaxed);

	while (used_at > latest) {
		/* The clock of who wrote an access time may be wrong: what it says of the future would keep an
		 * object for ever. */
		if (atomic_load_explicit(&catalog->clock_us, memory_order_relaxed))
			return latest;
		/* Without a clock: what is used from now on is used later. */
		if (atomic_compare_exchange_weak(&catalog->used_at, &latest, used_at))
			break;
	}
	return used_at;
}

/* Present, and known for what it is. */
static inline bool kvk_is_whole(const struct kvk_entry *entry)
{
	return entry->state == KVK_CATALOG_PRESENT && entry->source == KVK_SOURCE_FOOTER;
}

/* Through a variable of 64 bits: gcc computes with a field of 52 bits in 52 bits. */
static inline uint64_t kvk_used_at_ns(const struct kvk_entry *entry)
{
	uint64_t used_at = entry->used_at;

	return used_at * 1000;
}

static inline bool kvk_may_go(const struct kvk_entry *entry)
{
	return entry->state == KVK_CATALOG_PRESENT && entry->pins == 0 && entry->children == 0;
}

/* ---- life.c: with the shard's lock held ----------------------------------------------------------- */

/* The entry is present and used from now on. What was reserved for it, and its link to its parent, are the caller's
 * business. */
void kvk_place_make_known(struct kvk_catalog *catalog, struct kvk_place *place, const struct kvk_object_info *info);

/* What was known of a present entry is replaced by what is known now; its place in the order of use, its pins and its links
 * stay. */
void kvk_place_complete(struct kvk_catalog *catalog, struct kvk_place *place, const struct kvk_object_info *info);

/* A known entry becomes unknown; returns what it was charged. *link_ret: for kvk_chain_release(), after the lock. */
uint64_t kvk_place_forget(struct kvk_catalog *catalog, struct kvk_place *place, struct kvk_chain_link *link_ret);

/* It may go again, if nothing else is in the way: it stands in the order of use again. */
void kvk_place_return(struct kvk_catalog *catalog, struct kvk_shard *shard, uint32_t index);

/* A hit. */
void kvk_place_renew(struct kvk_catalog *catalog, struct kvk_place *place);

#endif
