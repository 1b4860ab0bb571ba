/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each tenant, or each model, holds, and may hold. A name is kept as long as an object counts under it or
 * a quota was set for it, so that a store that sees a new salt with every request does not grow by that.
 */
#ifndef KVK_CATALOG_SHARE_H
#define KVK_CATALOG_SHARE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <kvkeep/store.h>

/* Ids have 16 bits and 0 is "": at most this many other names at a time. Names beyond count under "". */
#define KVK_SHARE_NAMES_MAX 65535u

struct kvk_share_row;

struct kvk_share_use {
	uint64_t used_bytes;
	uint64_t objects;
	uint64_t leaving_bytes;        /* of used_bytes: chosen by an eviction */
	uint64_t quota_bytes;          /* if has_quota */
	bool has_quota;                /* one of its own */
	bool over;
};

enum kvk_share_standing {
	KVK_SHARE_OVER,                /* over its quota */
	KVK_SHARE_WITHOUT,             /* has no quota */
	KVK_SHARE_WITHIN,
};

/*
 * What counts under "" in one shard, and is guarded by that shard's lock: most objects of most stores have no tenant, and
 * one lock for all shards was taken four times for each object that came and went. With the first quota it moves to the
 * table, for good, since who is over a quota shows in the sum alone.
 */
struct kvk_share_part {
	uint64_t used_bytes;
	uint64_t objects;
	uint64_t leaving_bytes;
	bool moved;                    /* all of this is in the table, and what comes goes there */
};

struct kvk_share_table {
	atomic_bool judges;            /* a quota was set; never false again */
	pthread_mutex_t lock;          /* guards the rest; taken inside a shard's lock, never around one */
	struct kvk_share_row *rows;
	uint32_t row_count;            /* a power of two, or 0 */
	uint32_t free_count;           /* ids below row_count that nobody has */
	uint32_t name_count;
	uint64_t name_memory_bytes;
	struct kvk_share_use unnamed;  /* under "", less what the parts have */
	uint64_t quota_bytes;          /* of who has none of its own; UINT64_MAX: none */
	uint32_t quota_count;          /* who has one of its own that is not UINT64_MAX */
	uint32_t over_count;
	uint64_t over_changes;         /* how often a name came over its quota, or a quota was set */
};

void kvk_share_table_init(struct kvk_share_table *table);
/* Takes no lock: in a child after fork another thread's copy may seem to hold it. */
void kvk_share_table_release(struct kvk_share_table *table);

/* The first three are called with the lock of the part's shard held, which is the object's. */

/* Counts one object of used_bytes under name and returns the name's id; 0, "", also when memory is short. */
uint16_t kvk_share_add(struct kvk_share_table *table, struct kvk_share_part *part, const void *name, uint32_t name_bytes,
		       uint64_t used_bytes);
/* Takes it off again, leaving_bytes of it as leaving. With the last object the id is free and may come to mean
 * another name. */
void kvk_share_sub(struct kvk_share_table *table, struct kvk_share_part *part, uint16_t id, uint64_t used_bytes,
		   uint64_t leaving_bytes);
/* Of the used bytes of a name so many more, or less, are on their way out. */
void kvk_share_leaving(struct kvk_share_table *table, struct kvk_share_part *part, uint16_t id, int64_t bytes);

/* Whether a quota was ever set. False: everybody is without. */
static inline bool kvk_share_judges(const struct kvk_share_table *table)
{
	return atomic_load_explicit(&table->judges, memory_order_relaxed);
}

/* As kvk_catalog_set_quota(). Before one that is not UINT64_MAX all parts are moved. */
int kvk_share_set_quota(struct kvk_share_table *table, const void *name, uint32_t name_bytes, uint64_t quota_bytes);

/* With the lock of the part's shard held. */
void kvk_share_move(struct kvk_share_table *table, struct kvk_share_part *part);

/* Of an id that a name had: its last object may have gone since it was read. Ids that nobody has stand within. */
enum kvk_share_standing kvk_share_standing(struct kvk_share_table *table, uint16_t id);

/* The standing of every id: KVK_SHARE_NAMES_MAX + 1 of them. Ids that nobody has stand within. */
void kvk_share_standings(struct kvk_share_table *table, uint8_t *standings);

/* How many names are over their quota, and whether there are quotas; *changes_ret grows when another comes over
 * its own, and when quotas are set. */
uint32_t kvk_share_over(struct kvk_share_table *table, bool *quotas_ret, uint64_t *changes_ret);

/* The name of an id that an object counts under: it stays as long as the object does. NULL: "". */
const void *kvk_share_name(struct kvk_share_table *table, uint16_t id, uint32_t *bytes_ret);

/* As kvk_store_shares(). A name with a quota is told also when nothing counts under it. parts: the sum of all shards'. */
uint32_t kvk_share_list(struct kvk_share_table *table, const struct kvk_share_part *parts, struct kvk_share *shares,
			uint32_t count);

uint64_t kvk_share_memory_bytes(struct kvk_share_table *table);

#endif
