/* SPDX-License-Identifier: Apache-2.0 */
/* The catalog's inside: entries, the table of one shard, the catalog itself. For src/catalog and its tests. */
#ifndef KVK_CATALOG_PRIVATE_H
#define KVK_CATALOG_PRIVATE_H

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include "catalog/catalog.h"
#include "catalog/share.h"

#define KVK_SHARD_BITS 6u
#define KVK_SHARDS (1u << KVK_SHARD_BITS)
#define KVK_GROUPS 256u                /* of keys in a shard that share a version */

/* An entry's index within its shard has 26 bits, so that with 6 bits of shard it is a 32-bit id. */
#define KVK_INDEX_BITS (32u - KVK_SHARD_BITS)
#define KVK_NO_ENTRY ((1u << KVK_INDEX_BITS) - 1)
#define KVK_NO_ID UINT32_MAX

#define KVK_CHUNK_ENTRIES 128u
#define KVK_CHARGE_UNIT_BYTES 4096u

/* What malloc itself takes for an allocation, header and rounding; memory_bytes counts it. */
#define KVK_ALLOC_OVERHEAD_BYTES 16u

/*
 * The first 16 bytes of a digest stand for all 32: among 10^9 objects two share them with a probability of 2^-69,
 * and then a load of one is proven against the other's key and is a miss.
 */
struct kvk_prefix {
	uint64_t word[2];
};

/* One object, one cache line. Free ones have the state KVK_CATALOG_UNKNOWN. */
struct kvk_entry {
	_Alignas(64) struct kvk_prefix prefix;
	uint64_t logical_bytes;
	uint32_t charge_units;         /* of 4 KiB: reserved while writing, else charged */
	uint32_t version;              /* the group's when it became what it is now; 0 unless known */
	uint32_t older;                /* neighbours in the order of use, while known */
	uint32_t newer;                /* free: the next free one */
	uint32_t parent;               /* id of the entry before it in its prefix; KVK_NO_ID */
	uint32_t parent_generation;    /* the link holds while the parent's generation is this */
	uint32_t generation;           /* how often this place was given back */
	uint16_t tenant;
	uint16_t model;
	uint16_t pins;
	uint8_t state;                 /* enum kvk_catalog_state */
	bool known : 1;                /* present, or leaving and present before: charged and in the order of use */
	bool durable : 1;
};
static_assert(sizeof(struct kvk_entry) == 64, "an entry is one cache line");

struct kvk_shard {
	_Alignas(64) pthread_mutex_t lock;     /* guards the rest */
	uint32_t *slots;               /* open addressing: index, and 6 bits of the digest above it */
	uint32_t slot_count;           /* a power of two, or 0 */
	uint32_t entry_count;          /* in use */
	void **chunks;                 /* of KVK_CHUNK_ENTRIES entries; they never move */
	uint32_t chunk_count;
	uint32_t chunk_room;
	uint32_t fresh;                /* the first index that was never used */
	uint32_t free_index;           /* the first one given back */
	uint32_t oldest;               /* the order of use */
	uint32_t newest;
	uint64_t used_bytes;
	uint64_t writing_bytes;
	uint64_t objects;
	uint64_t pinned_objects;
	uint32_t versions[KVK_GROUPS]; /* never 0 */
};

struct kvk_catalog {
	struct kvk_shard shards[KVK_SHARDS];
	struct kvk_share_table tenants;
	struct kvk_share_table models;
	bool unlimited;
	_Alignas(64) _Atomic int64_t room_bytes;       /* what is left of the lease */
	_Atomic uint64_t loose_bytes;  /* charged, but to no object: removed and not credited, quarantine */
};

static inline struct kvk_prefix kvk_prefix_of(const uint8_t digest[32])
{
	struct kvk_prefix prefix;

	memcpy(&prefix, digest, sizeof(prefix));
	return prefix;
}

/* Shard, group, home and tag are different bits of the digest. */
static inline uint32_t kvk_prefix_shard(const struct kvk_prefix *prefix)
{
	return (uint32_t)prefix->word[0] & (KVK_SHARDS - 1);
}

static inline uint32_t kvk_prefix_group(const struct kvk_prefix *prefix)
{
	return (uint32_t)(prefix->word[0] >> KVK_SHARD_BITS) & (KVK_GROUPS - 1);
}

/* malloc aligns to 16 bytes; a chunk is 64 bytes longer than its entries. */
static inline struct kvk_entry *kvk_shard_entry(const struct kvk_shard *shard, uint32_t index)
{
	uintptr_t chunk = (uintptr_t)shard->chunks[index / KVK_CHUNK_ENTRIES];

	return (struct kvk_entry *)((chunk + 63) & ~(uintptr_t)63) + index % KVK_CHUNK_ENTRIES;
}

/* ---- table.c: all called with the shard's lock held --------------------------------------------- */

void kvk_shard_init(struct kvk_shard *shard);
/* Takes no lock, see kvk_share_table_release(). */
void kvk_shard_release(struct kvk_shard *shard);

/* KVK_NO_ENTRY: there is none. */
uint32_t kvk_shard_find(const struct kvk_shard *shard, const struct kvk_prefix *prefix);

/* Start to fetch the first slot that find() will read; then, that being there, the entry it will most likely read. */
void kvk_shard_warm_slot(const struct kvk_shard *shard, const struct kvk_prefix *prefix);
void kvk_shard_warm_entry(const struct kvk_shard *shard, const struct kvk_prefix *prefix);

/* Makes sure that the next insert has its memory. -ENOMEM: nothing changed. */
int kvk_shard_reserve(struct kvk_shard *shard);

/* Adds an entry that is zero but for prefix, generation and no parent, and returns its index. After reserve(), and only
 * if find() found none. The caller sets its state. */
uint32_t kvk_shard_insert(struct kvk_shard *shard, const struct kvk_prefix *prefix);

/* Takes the entry out; links to it as a parent end. It must not be in the order of use. */
void kvk_shard_erase(struct kvk_shard *shard, uint32_t index);

/* The order of use: push makes it the newest, drop takes it out. */
void kvk_shard_use_push(struct kvk_shard *shard, uint32_t index);
void kvk_shard_use_drop(struct kvk_shard *shard, uint32_t index);

uint64_t kvk_shard_memory_bytes(const struct kvk_shard *shard);

/* ---- catalog.c ---------------------------------------------------------------------------------- */

/* Tells the object before this one in its prefix, if both are in the catalog and the link held. Parents come from
 * callers: they may form a circle. */
bool kvk_catalog_parent(struct kvk_catalog *catalog, const uint8_t digest[32], struct kvk_prefix *parent_ret);

#endif
