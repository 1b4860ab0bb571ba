/* SPDX-License-Identifier: Apache-2.0 */
#include "catalog/share.h"

#include <string.h>
#include <xxhash.h>

#include "catalog/catalog_private.h"
#include "util/alloc.h"

#define FIRST_ROWS 16u

struct share_name {
	uint64_t used_bytes;
	uint64_t objects;
	uint64_t hash;
	uint32_t name_bytes;
	uint16_t next_id;              /* in the same bucket; 0: the last */
	uint8_t name[];
};

/* One allocation serves three arrays of equal length, so that growing either succeeds or changes nothing. */
struct kvk_share_row {
	struct share_name *name;       /* of the id that is this row's index; NULL: free */
	uint16_t bucket_id;            /* first id of the names whose hash selects this row; 0: none */
	uint16_t free_id;              /* rows[0 .. free_count): the free ids */
};

void kvk_share_table_init(struct kvk_share_table *table)
{
	*table = (struct kvk_share_table){ .lock = PTHREAD_MUTEX_INITIALIZER };
}

void kvk_share_table_release(struct kvk_share_table *table)
{
	for (uint32_t id = 0; id < table->row_count; id++)
		kvk_mem_free(table->rows[id].name);
	kvk_mem_free(table->rows);
	table->rows = NULL;
	table->row_count = 0;
}

/* Salts may be chosen by strangers: the seed keeps them from choosing the bucket as well. */
static uint64_t hash_name(const struct kvk_share_table *table, const void *name, uint32_t name_bytes)
{
	return XXH3_64bits_withSeed(name, name_bytes, (uintptr_t)table);
}

static uint16_t *bucket_of(struct kvk_share_table *table, uint64_t hash)
{
	return &table->rows[hash & (table->row_count - 1)].bucket_id;
}

static uint16_t find_name(struct kvk_share_table *table, uint64_t hash, const void *name, uint32_t name_bytes)
{
	uint16_t id;

	if (table->row_count == 0)
		return 0;
	for (id = *bucket_of(table, hash); id != 0; id = table->rows[id].name->next_id) {
		const struct share_name *held = table->rows[id].name;

		if (held->hash == hash && held->name_bytes == name_bytes &&
		    memcmp(held->name, name, name_bytes) == 0)
			break;
	}
	return id;
}

static bool grow(struct kvk_share_table *table)
{
	uint32_t old_count = table->row_count;
	uint32_t row_count = old_count ? old_count * 2 : FIRST_ROWS;
	struct kvk_share_row *rows;

	if (row_count > KVK_SHARE_NAMES_MAX + 1)
		return false;
	rows = kvk_mem_realloc(table->rows, row_count * sizeof(*rows));
	if (!rows)
		return false;
	memset(rows + old_count, 0, (row_count - old_count) * sizeof(*rows));
	table->rows = rows;
	table->row_count = row_count;

	for (uint32_t row = 0; row < row_count; row++)
		rows[row].bucket_id = 0;
	for (uint32_t id = 1; id < old_count; id++) {
		struct share_name *held = rows[id].name;
		uint16_t *bucket = bucket_of(table, held->hash);

		held->next_id = *bucket;
		*bucket = (uint16_t)id;
	}
	/* Grown only when no id is free; 0 is never one. The lowest ends on top and goes first. */
	for (uint32_t id = row_count - 1; id >= old_count && id > 0; id--)
		rows[table->free_count++].free_id = (uint16_t)id;
	return true;
}

static uint16_t add_name(struct kvk_share_table *table, uint64_t hash, const void *name, uint32_t name_bytes)
{
	struct share_name *held;
	uint16_t *bucket;
	uint16_t id;

	if (table->free_count == 0 && !grow(table))
		return 0;
	held = kvk_mem_alloc(sizeof(*held) + name_bytes);
	if (!held)
		return 0;
	id = table->rows[--table->free_count].free_id;
	bucket = bucket_of(table, hash);
	*held = (struct share_name){ .hash = hash, .name_bytes = name_bytes, .next_id = *bucket };
	memcpy(held->name, name, name_bytes);
	*bucket = id;
	table->rows[id].name = held;
	table->name_count++;
	table->name_memory_bytes += sizeof(*held) + name_bytes + KVK_ALLOC_OVERHEAD_BYTES;
	return id;
}

uint16_t kvk_share_add(struct kvk_share_table *table, const void *name, uint32_t name_bytes, uint64_t used_bytes)
{
	uint16_t id = 0;

	pthread_mutex_lock(&table->lock);
	if (name_bytes > 0) {
		uint64_t hash = hash_name(table, name, name_bytes);

		id = find_name(table, hash, name, name_bytes);
		if (id == 0)
			id = add_name(table, hash, name, name_bytes);
	}
	if (id != 0) {
		table->rows[id].name->used_bytes += used_bytes;
		table->rows[id].name->objects++;
	} else {
		table->unnamed_bytes += used_bytes;
		table->unnamed_objects++;
	}
	pthread_mutex_unlock(&table->lock);
	return id;
}

static void remove_name(struct kvk_share_table *table, uint16_t id)
{
	struct share_name *held = table->rows[id].name;
	uint16_t *link = bucket_of(table, held->hash);

	while (*link != id)
		link = &table->rows[*link].name->next_id;
	*link = held->next_id;
	table->rows[id].name = NULL;
	table->rows[table->free_count++].free_id = id;
	table->name_count--;
	table->name_memory_bytes -= sizeof(*held) + held->name_bytes + KVK_ALLOC_OVERHEAD_BYTES;
	kvk_mem_free(held);
}

void kvk_share_sub(struct kvk_share_table *table, uint16_t id, uint64_t used_bytes)
{
	pthread_mutex_lock(&table->lock);
	if (id != 0) {
		struct share_name *held = table->rows[id].name;

		held->used_bytes -= used_bytes;
		if (--held->objects == 0)
			remove_name(table, id);
	} else {
		table->unnamed_bytes -= used_bytes;
		table->unnamed_objects--;
	}
	pthread_mutex_unlock(&table->lock);
}

/* The caller may have been built with a shorter or longer struct: struct_bytes is the distance of its elements. */
static void write_share(struct kvk_share *shares, uint32_t index, struct kvk_share *share)
{
	uint32_t stride = shares->struct_bytes;

	share->struct_bytes = stride;
	memcpy((uint8_t *)shares + (size_t)index * stride, share, stride < sizeof(*share) ? stride : sizeof(*share));
}

uint32_t kvk_share_list(struct kvk_share_table *table, struct kvk_share *shares, uint32_t count)
{
	uint32_t found = 0;

	pthread_mutex_lock(&table->lock);
	if (table->unnamed_objects > 0) {
		struct kvk_share share = {
			.used_bytes = table->unnamed_bytes,
			.objects = table->unnamed_objects,
		};

		if (found < count)
			write_share(shares, found, &share);
		found++;
	}
	for (uint32_t id = 1; id < table->row_count && found < count; id++) {
		const struct share_name *held = table->rows[id].name;
		struct kvk_share share = { 0 };

		if (!held)
			continue;
		share.used_bytes = held->used_bytes;
		share.objects = held->objects;
		share.name_bytes = held->name_bytes;
		if (share.name_bytes > sizeof(share.name))
			share.name_bytes = sizeof(share.name);
		memcpy(share.name, held->name, share.name_bytes);
		write_share(shares, found++, &share);
	}
	found = table->name_count + (table->unnamed_objects > 0);
	pthread_mutex_unlock(&table->lock);
	return found;
}

uint64_t kvk_share_memory_bytes(struct kvk_share_table *table)
{
	uint64_t bytes;

	pthread_mutex_lock(&table->lock);
	bytes = table->row_count * sizeof(*table->rows) + table->name_memory_bytes;
	if (table->rows)
		bytes += KVK_ALLOC_OVERHEAD_BYTES;
	pthread_mutex_unlock(&table->lock);
	return bytes;
}
