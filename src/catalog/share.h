/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each tenant, or each model, holds. A name is kept as long as an object counts under it, so that a store
 * that sees a new salt with every request does not grow by that.
 */
#ifndef KVK_CATALOG_SHARE_H
#define KVK_CATALOG_SHARE_H

#include <pthread.h>
#include <stdint.h>

#include <kvkeep/store.h>

/* Ids have 16 bits and 0 is "": at most this many other names at a time. Names beyond count under "". */
#define KVK_SHARE_NAMES_MAX 65535u

struct kvk_share_row;

struct kvk_share_table {
	pthread_mutex_t lock;          /* guards the rest; taken inside a shard's lock, never around one */
	struct kvk_share_row *rows;
	uint32_t row_count;            /* a power of two, or 0 */
	uint32_t free_count;           /* ids below row_count that nobody has */
	uint32_t name_count;
	uint64_t name_memory_bytes;
	uint64_t unnamed_bytes;        /* under "" */
	uint64_t unnamed_objects;
};

void kvk_share_table_init(struct kvk_share_table *table);
/* Takes no lock: in a child after fork another thread's copy may seem to hold it. */
void kvk_share_table_release(struct kvk_share_table *table);

/* Counts one object of used_bytes under name and returns the name's id; 0, "", also when memory is short. */
uint16_t kvk_share_add(struct kvk_share_table *table, const void *name, uint32_t name_bytes, uint64_t used_bytes);
/* Takes it off again. With the last object the id is free and may come to mean another name. */
void kvk_share_sub(struct kvk_share_table *table, uint16_t id, uint64_t used_bytes);

/* As kvk_store_shares(). */
uint32_t kvk_share_list(struct kvk_share_table *table, struct kvk_share *shares, uint32_t count);

uint64_t kvk_share_memory_bytes(struct kvk_share_table *table);

#endif
