/* SPDX-License-Identifier: Apache-2.0 */
#include "catalog/share.h"

#include <errno.h>
#include <string.h>
#include <xxhash.h>

#include "catalog/catalog_private.h"
#include "util/alloc.h"

#define FIRST_ROWS 16u

struct share_name {
	struct kvk_share_use use;
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
	*table = (struct kvk_share_table){ .lock = PTHREAD_MUTEX_INITIALIZER, .quota_bytes = UINT64_MAX };
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

static struct kvk_share_use *use_of(struct kvk_share_table *table, uint16_t id)
{
	return id ? &table->rows[id].name->use : &table->unnamed;
}

static uint64_t quota_of(const struct kvk_share_table *table, const struct kvk_share_use *use)
{
	return use->has_quota ? use->quota_bytes : table->quota_bytes;
}

static void judge(struct kvk_share_table *table, struct kvk_share_use *use)
{
	bool over = use->used_bytes - use->leaving_bytes > quota_of(table, use);

	if (over && !use->over) {
		table->over_count++;
		table->over_changes++;
	} else if (!over && use->over) {
		table->over_count--;
	}
	use->over = over;
}

static void add_to_part(struct kvk_share_part *part, uint64_t used_bytes)
{
	part->used_bytes += used_bytes;
	part->objects++;
}

uint16_t kvk_share_add(struct kvk_share_table *table, struct kvk_share_part *part, const void *name, uint32_t name_bytes,
		       uint64_t used_bytes)
{
	struct kvk_share_use *use;
	uint16_t id = 0;

	if (name_bytes == 0 && !part->moved) {
		add_to_part(part, used_bytes);
		return 0;
	}
	pthread_mutex_lock(&table->lock);
	if (name_bytes > 0) {
		uint64_t hash = hash_name(table, name, name_bytes);

		id = find_name(table, hash, name, name_bytes);
		if (id == 0)
			id = add_name(table, hash, name, name_bytes);
	}
	if (id == 0 && !part->moved) {
		add_to_part(part, used_bytes);
	} else {
		use = use_of(table, id);
		use->used_bytes += used_bytes;
		use->objects++;
		judge(table, use);
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

void kvk_share_sub(struct kvk_share_table *table, struct kvk_share_part *part, uint16_t id, uint64_t used_bytes,
		   uint64_t leaving_bytes)
{
	struct kvk_share_use *use;

	if (id == 0 && !part->moved) {
		part->used_bytes -= used_bytes;
		part->leaving_bytes -= leaving_bytes;
		part->objects--;
		return;
	}
	pthread_mutex_lock(&table->lock);
	use = use_of(table, id);
	use->used_bytes -= used_bytes;
	use->leaving_bytes -= leaving_bytes;
	use->objects--;
	judge(table, use);
	if (id != 0 && use->objects == 0 && !use->has_quota)
		remove_name(table, id);
	pthread_mutex_unlock(&table->lock);
}

/* ---- quotas ------------------------------------------------------------------------------------- */

void kvk_share_leaving(struct kvk_share_table *table, struct kvk_share_part *part, uint16_t id, int64_t bytes)
{
	struct kvk_share_use *use;

	if (id == 0 && !part->moved) {
		part->leaving_bytes += (uint64_t)bytes;
		return;
	}
	pthread_mutex_lock(&table->lock);
	use = use_of(table, id);
	use->leaving_bytes += (uint64_t)bytes;
	judge(table, use);
	pthread_mutex_unlock(&table->lock);
}

void kvk_share_move(struct kvk_share_table *table, struct kvk_share_part *part)
{
	if (part->moved)
		return;
	pthread_mutex_lock(&table->lock);
	table->unnamed.used_bytes += part->used_bytes;
	table->unnamed.leaving_bytes += part->leaving_bytes;
	table->unnamed.objects += part->objects;
	judge(table, &table->unnamed);
	pthread_mutex_unlock(&table->lock);
	*part = (struct kvk_share_part){ .moved = true };
}

static void judge_all(struct kvk_share_table *table)
{
	judge(table, &table->unnamed);
	for (uint32_t id = 1; id < table->row_count; id++) {
		if (table->rows[id].name)
			judge(table, &table->rows[id].name->use);
	}
}

int kvk_share_set_quota(struct kvk_share_table *table, const void *name, uint32_t name_bytes, uint64_t quota_bytes)
{
	struct kvk_share_use *use;
	uint16_t id = 0;
	int err = 0;

	pthread_mutex_lock(&table->lock);
	if (quota_bytes != UINT64_MAX)
		atomic_store(&table->judges, true);
	table->over_changes++;
	if (!name) {
		table->quota_bytes = quota_bytes;
		judge_all(table);
		goto out;
	}
	if (name_bytes > 0) {
		uint64_t hash = hash_name(table, name, name_bytes);

		id = find_name(table, hash, name, name_bytes);
		if (id == 0)
			id = add_name(table, hash, name, name_bytes);
		if (id == 0) {
			err = table->name_count == KVK_SHARE_NAMES_MAX ? -EUSERS : -ENOMEM;
			goto out;
		}
	}
	use = use_of(table, id);
	table->quota_count -= use->has_quota && use->quota_bytes != UINT64_MAX;
	table->quota_count += quota_bytes != UINT64_MAX;
	use->has_quota = true;
	use->quota_bytes = quota_bytes;
	judge(table, use);
out:
	pthread_mutex_unlock(&table->lock);
	return err;
}

static enum kvk_share_standing standing_of(const struct kvk_share_table *table, const struct kvk_share_use *use)
{
	if (use->over)
		return KVK_SHARE_OVER;
	return quota_of(table, use) == UINT64_MAX ? KVK_SHARE_WITHOUT : KVK_SHARE_WITHIN;
}

enum kvk_share_standing kvk_share_standing(struct kvk_share_table *table, uint16_t id)
{
	enum kvk_share_standing standing;

	pthread_mutex_lock(&table->lock);
	standing = id && !table->rows[id].name ? KVK_SHARE_WITHIN : standing_of(table, use_of(table, id));
	pthread_mutex_unlock(&table->lock);
	return standing;
}

void kvk_share_standings(struct kvk_share_table *table, uint8_t *standings)
{
	memset(standings, KVK_SHARE_WITHIN, KVK_SHARE_NAMES_MAX + 1);
	pthread_mutex_lock(&table->lock);
	standings[0] = (uint8_t)standing_of(table, &table->unnamed);
	for (uint32_t id = 1; id < table->row_count; id++) {
		if (table->rows[id].name)
			standings[id] = (uint8_t)standing_of(table, &table->rows[id].name->use);
	}
	pthread_mutex_unlock(&table->lock);
}

uint32_t kvk_share_over(struct kvk_share_table *table, bool *quotas_ret, uint64_t *changes_ret)
{
	uint32_t count;

	pthread_mutex_lock(&table->lock);
	count = table->over_count;
	*quotas_ret = table->quota_count > 0 || table->quota_bytes != UINT64_MAX;
	*changes_ret = table->over_changes;
	pthread_mutex_unlock(&table->lock);
	return count;
}

/* ---- telling ------------------------------------------------------------------------------------ */

const void *kvk_share_name(struct kvk_share_table *table, uint16_t id, uint32_t *bytes_ret)
{
	const struct share_name *held = NULL;

	if (id) {
		pthread_mutex_lock(&table->lock);
		held = table->rows[id].name;
		pthread_mutex_unlock(&table->lock);
	}
	*bytes_ret = held ? held->name_bytes : 0;
	return held ? held->name : NULL;
}

/* The caller may have been built with a shorter or longer struct: struct_bytes is the distance of its elements. */
static void write_share(struct kvk_share *shares, uint32_t index, struct kvk_share *share)
{
	uint32_t stride = shares->struct_bytes;

	share->struct_bytes = stride;
	memcpy((uint8_t *)shares + (size_t)index * stride, share, stride < sizeof(*share) ? stride : sizeof(*share));
}

static bool is_told(const struct kvk_share_use *use)
{
	return use->objects > 0 || use->has_quota;
}

uint32_t kvk_share_list(struct kvk_share_table *table, const struct kvk_share_part *parts, struct kvk_share *shares,
			uint32_t count)
{
	uint32_t found = 0;

	pthread_mutex_lock(&table->lock);
	for (uint32_t id = 0; id < table->row_count || id == 0; id++) {
		const struct share_name *held = id ? table->rows[id].name : NULL;
		struct kvk_share_use use = held ? held->use : table->unnamed;
		struct kvk_share share = { 0 };

		if (id == 0) {
			use.used_bytes += parts->used_bytes;
			use.objects += parts->objects;
		}
		if ((id && !held) || !is_told(&use))
			continue;
		share.used_bytes = use.used_bytes;
		share.objects = use.objects;
		share.quota_bytes = quota_of(table, &use);
		if (held) {
			share.name_bytes = held->name_bytes < sizeof(share.name) ? held->name_bytes
									      : (uint32_t)sizeof(share.name);
			memcpy(share.name, held->name, share.name_bytes);
		}
		if (found < count)
			write_share(shares, found, &share);
		found++;
	}
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
