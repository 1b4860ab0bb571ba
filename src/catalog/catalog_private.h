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
static_assert(KVK_SHARDS == KVK_CATALOG_SHARDS, "who visits knows how many there are");
#define KVK_GROUPS 256u                /* of keys in a shard that share a version */

/* An entry's index within its shard has 26 bits, so that with 6 bits of shard it is a 32-bit id. */
#define KVK_INDEX_BITS (32u - KVK_SHARD_BITS)
#define KVK_NO_ENTRY ((1u << KVK_INDEX_BITS) - 1)
#define KVK_NO_ID UINT32_MAX

#define KVK_CHUNK_ENTRIES 128u
/* Who looks at all entries of a shard looks at so many under one lock: some ten microseconds. */
#define KVK_WALK_AT_ONCE 256u
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

/* Where an entry stands in its shard's order of use. */
enum kvk_use {
	KVK_USE_ASIDE,                 /* nowhere: it was met at the old end and may not go, or is not known */
	KVK_USE_FIRST,                 /* LRU: the only list; S3-FIFO: the small queue; ARC: T1 */
	KVK_USE_SECOND,                /* S3-FIFO: the main queue; ARC: T2 */
	KVK_USE_HEAP,                  /* what came in at its place by used_at, not as the newest */
	KVK_USE_COUNT,
};

#define KVK_USED_AT_BITS 52u
#define KVK_USED_AT_MAX ((UINT64_C(1) << KVK_USED_AT_BITS) - 1)        /* us since 1970: the year 2112 */
#define KVK_CHARGE_UNITS_MAX ((1u << 21) - 1)
#define KVK_LOGICAL_BYTES_MAX ((UINT64_C(1) << 33) - 1)
#define KVK_CHILDREN_MAX UINT16_MAX

/* One key, one cache line: an object, or pins on one that is not known to be there. */
struct kvk_entry {
	_Alignas(64) struct kvk_prefix prefix;
	uint64_t logical_bytes : 33;
	uint64_t charge_units : 21;    /* of 4 KiB: reserved while writing, else charged */
	uint64_t use : 2;              /* enum kvk_use */
	uint64_t freq : 2;             /* S3-FIFO: hits since it entered its queue, at most 3 */
	uint64_t warm : 1;             /* S3-FIFO: of the main queue; ARC: seen more than once; also while aside */
	uint64_t counted : 1;          /* its parent counts it among its children */
	uint64_t chosen : 1;           /* leaving because of kvk_catalog_evict() */
	uint64_t mark : 1;             /* something below it may go by itself; while circles are looked for */
	uint64_t used_at : 52;         /* us since 1970 */
	uint64_t state : 2;            /* enum kvk_catalog_state */
	uint64_t known : 1;            /* present, or leaving and present before: charged */
	uint64_t durable : 1;
	uint64_t source : 2;           /* enum kvk_source */
	uint64_t seen : 1;             /* known since after the last listing began, or told by it */
	uint64_t doubted : 1;          /* others say that they removed it, and nobody has met it since */
	uint64_t taken : 1;            /* in the index; else it is free */
	uint32_t version;              /* the group's when it became what it is now; 0 unless known */
	uint32_t older;                /* neighbours in its list; in the heap: its place there */
	uint32_t newer;                /* free: the next free one */
	uint32_t parent;               /* id of the entry before it in its prefix; KVK_NO_ID */
	uint32_t order;                /* S3-FIFO: when it entered its queue, counted in entries of all shards */
	/*
	 * How often this place was given back, and of the parent's place when the link was made: the link holds
	 * while they agree. After 65,536 lives in one place a link of an object that outlived them all would be
	 * taken for true: what hangs on links is a hint about what to evict first, so 16 bits are enough.
	 */
	uint16_t generation;
	uint16_t parent_generation;
	uint16_t tenant;
	uint16_t model;
	uint16_t pins;
	uint16_t children;             /* whose links to this one count; KVK_CHILDREN_MAX: or more */
};
static_assert(sizeof(struct kvk_entry) == 64, "an entry is one cache line");

struct kvk_ghosts;

struct kvk_use_list {
	uint32_t oldest;
	uint32_t newest;
};

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
	struct kvk_use_list lists[2];  /* KVK_USE_FIRST and KVK_USE_SECOND */
	uint32_t *heap;                /* KVK_USE_HEAP, least used_at first; has room for every entry */
	uint32_t heap_count;
	uint64_t used_bytes;
	uint64_t writing_bytes;
	uint64_t objects;
	uint64_t pinned_objects;
	struct kvk_share_part unnamed[2];      /* of KVK_BY_TENANT and KVK_BY_MODEL */
	uint64_t changes;              /* after which something may go that could not before; only rises */
	struct kvk_ghosts *ghosts;     /* of what was evicted; NULL until something was */
	uint32_t versions[KVK_GROUPS]; /* never 0 */
};

/* What may be next to go. */
struct kvk_coldest {
	uint32_t shard;
	enum kvk_use use;              /* the oldest there; KVK_USE_ASIDE: the entry below, wherever it stands */
	uint32_t index;
	uint16_t generation;
	uint16_t tenant;
	uint64_t used_at;              /* what the oldest was seen at; or the entry's */
};

struct kvk_policy;
struct kvk_candidates;

struct kvk_catalog {
	struct kvk_shard shards[KVK_SHARDS];
	struct kvk_share_table tenants;
	struct kvk_share_table models;
	const struct kvk_policy *policy;
	bool unlimited;

	_Alignas(64) _Atomic int64_t room_bytes;       /* what is left of the lease */
	_Atomic uint64_t loose_bytes;  /* charged, but to no object: removed and not credited, quarantine */
	_Atomic uint64_t cap_bytes;    /* 0: none; for the policies' shares */

	/* The clock. Read at every hit: not beside what puts write. */
	_Alignas(64) _Atomic uint64_t used_at;         /* the latest one given out */
	_Atomic uint64_t clock_us;     /* as last told; never goes back */
	uint64_t wall_us;              /* what was told: kvk_catalog_clock() only */

	/* What is oldest in each shard's lists and heap: when it was used, or entered its queue, which compares over all
	 * shards, and in the lowest 6 bits the shard, so that the least says whose it is; UINT64_MAX if empty. Written
	 * under the shard's lock, read without: who reads one looks again under that lock. */
	_Alignas(64) _Atomic uint64_t oldest[KVK_USE_COUNT][KVK_SHARDS];
	_Atomic uint64_t used[KVK_USE_COUNT];          /* a bit for each shard that has an oldest */

	_Alignas(64) pthread_mutex_t evict_lock;       /* one at a time chooses; taken before a shard's lock */
	struct kvk_candidates *candidates;             /* IsolatedLRU's; guarded by evict_lock */
	uint64_t evict_calls;
	uint64_t barren_changes;       /* with so many in all shards nothing may go; UINT64_MAX: that is not known */
	uint64_t walks;                /* over all objects, for want of any that may go */

	/* S3-FIFO and ARC: of cold [0] and warm [1] entries, in lists or aside; what was chosen does not count. */
	_Alignas(64) _Atomic uint64_t class_bytes[2];
	_Atomic uint64_t class_objects[2];
	_Atomic uint64_t evicted[2];   /* how many of each class were chosen so far: a ghost's age counts in these */
	_Atomic uint64_t aim_bytes;    /* ARC's p: how much of the cap T1 should have */
	_Atomic uint64_t order;        /* S3-FIFO: how many entered a queue so far */
};

/* Of the digest 16 bytes are read. */
static inline struct kvk_prefix kvk_prefix_of(const uint8_t *digest)
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

/* Start to fetch the first slot that find() will read; then, that being there, the entry it will most likely
 * read. False: it will find none. */
void kvk_shard_warm_slot(const struct kvk_shard *shard, const struct kvk_prefix *prefix);
bool kvk_shard_warm_entry(const struct kvk_shard *shard, const struct kvk_prefix *prefix);

/* Makes sure that the next insert has its memory. -ENOMEM: nothing changed. */
int kvk_shard_reserve(struct kvk_shard *shard);

/* Adds an entry that is zero but for prefix, generation and no parent, and returns its index. After reserve(),
 * and only if find() found none. The caller sets its state. */
uint32_t kvk_shard_insert(struct kvk_shard *shard, const struct kvk_prefix *prefix);

/* Takes the entry out; links to it as a parent end. It must not be in the order of use. */
void kvk_shard_erase(struct kvk_shard *shard, uint32_t index);

/* The same, but what stays is an entry as insert() adds one, with the pins that it had. */
void kvk_shard_vacate(struct kvk_shard *shard, uint32_t index);

uint64_t kvk_shard_memory_bytes(const struct kvk_shard *shard);

/* ---- lease.c ------------------------------------------------------------------------------------ */

/* False: the lease is too short, nothing was reserved. */
bool kvk_room_reserve(struct kvk_catalog *catalog, uint64_t bytes);

/* ---- chain.c ------------------------------------------------------------------------------------ */

/* Tells the object before this one in its prefix, if both are in the catalog and the link held. */
bool kvk_catalog_parent(struct kvk_catalog *catalog, const uint8_t digest[32], struct kvk_prefix *parent_ret);

#endif
