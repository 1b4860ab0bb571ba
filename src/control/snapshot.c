/* SPDX-License-Identifier: Apache-2.0 */
#include "control/snapshot.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "format/format.h"
#include "util/alloc.h"
#include "util/clock.h"

#define FILE_NAME "snapshot"
#define FIRST_OBJECTS 1024u
#define FIRST_NAMES 4096u
/* 65,535 tenants and as many models, of common lengths. What does not fit is told without a name until its footer is read. */
#define NAMES_BYTES_MAX (16u << 20)
#define SLOTS_MIN 256u

/* ---- saving ------------------------------------------------------------------------------------- */

/* Names by their bytes: open addressing, how objects tell each. */
struct name_table {
	uint8_t *names;
	uint32_t names_bytes;
	uint32_t used;
	uint32_t *slots;
	uint32_t slot_count;           /* a power of two */
	uint32_t count;
};

struct saving {
	uint8_t *data;
	uint64_t room;                 /* objects that fit in data */
	uint64_t count;
	struct name_table table;
	int err;
};

static uint32_t hash_of(const void *name, uint32_t bytes)
{
	return kvk_crc32c(name, bytes, 0);
}

static uint32_t *slot_of(const struct name_table *table, const void *name, uint32_t bytes)
{
	uint32_t at = hash_of(name, bytes) & (table->slot_count - 1);

	while (table->slots[at]) {
		struct kvk_key is = kvk_snapshot_get_name(table->names, table->used, table->slots[at]);

		if (is.bytes == bytes && !memcmp(is.data, name, bytes))
			break;
		at = (at + 1) & (table->slot_count - 1);
	}
	return &table->slots[at];
}

static int grow_slots(struct name_table *table)
{
	uint32_t *before = table->slots, before_count = table->slot_count;
	uint32_t count = before_count ? before_count * 2 : SLOTS_MIN;
	uint32_t *slots = kvk_mem_zalloc(count, sizeof(*slots));

	if (!slots)
		return -ENOMEM;
	table->slots = slots;
	table->slot_count = count;
	for (uint32_t i = 0; i < before_count; i++) {
		struct kvk_key is = kvk_snapshot_get_name(table->names, table->used, before[i]);

		if (before[i])
			*slot_of(table, is.data, is.bytes) = before[i];
	}
	kvk_mem_free(before);
	return 0;
}

static int grow_names(struct name_table *table, uint32_t bytes)
{
	uint64_t room = table->names_bytes ? table->names_bytes : FIRST_NAMES;
	uint8_t *names;

	while (room - table->used < bytes)
		room *= 2;
	if (room > NAMES_BYTES_MAX)
		return 0;              /* it stays without a name */
	names = kvk_mem_realloc(table->names, room);
	if (!names)
		return -ENOMEM;
	table->names = names;
	table->names_bytes = (uint32_t)room;
	return 0;
}

static int tell_name(struct name_table *table, const void *name, uint32_t bytes, uint32_t *told)
{
	uint32_t *slot;
	int err = 0;

	*told = 0;
	if (bytes == 0)
		return 0;
	if (table->count >= table->slot_count / 2)
		err = grow_slots(table);
	if (!err && table->names_bytes - table->used < bytes + 2)
		err = grow_names(table, bytes + 2);
	if (err)
		return err;
	slot = slot_of(table, name, bytes);
	if (!*slot) {
		*slot = kvk_snapshot_put_name(table->names, table->names_bytes, &table->used, name, bytes);
		table->count += *slot != 0;
	}
	*told = *slot;
	return 0;
}

static int grow_objects(struct saving *saving)
{
	uint64_t room = saving->room ? saving->room * 2 : FIRST_OBJECTS;
	uint8_t *data;

	if (kvk_snapshot_at(saving->count + 1) > KVK_SNAPSHOT_BYTES_MAX)
		return -EFBIG;
	data = kvk_mem_realloc(saving->data, kvk_snapshot_at(room));
	if (!data)
		return -ENOMEM;
	saving->data = data;
	saving->room = room;
	return 0;
}

static bool save_one(void *user, const uint8_t prefix[16], const struct kvk_object_info *info)
{
	struct saving *saving = user;
	struct kvk_snapshot_object object = {
		.logical_bytes = info->logical_bytes, .charge_bytes = info->charge_bytes,
		.used_at_ns = info->used_at, .durable = info->durable,
	};

	/* What only its name is known of will be found by that again. */
	if (info->source != KVK_SOURCE_FOOTER)
		return true;
	memcpy(object.prefix, prefix, sizeof(object.prefix));
	memcpy(object.parent_prefix, info->parent_digest, sizeof(object.parent_prefix));
	saving->err = tell_name(&saving->table, info->tenant, info->tenant_bytes, &object.tenant);
	if (!saving->err)
		saving->err = tell_name(&saving->table, info->model, info->model_bytes, &object.model);
	if (!saving->err && saving->count == saving->room)
		saving->err = grow_objects(saving);
	if (!saving->err)
		kvk_snapshot_put_object(saving->data + kvk_snapshot_at(saving->count++), &object);
	return saving->err == 0;
}

static int write_it(struct saving *saving, const struct kvk_snapshot_what *what)
{
	struct kvk_snapshot_head head = {
		.epoch = what->epoch, .made_ns = kvk_wall_ns(), .object_count = saving->count,
		.names_bytes = (saving->table.used + 7) & ~7u,
	};
	uint64_t bytes, names_at = kvk_snapshot_at(saving->count);
	uint8_t *data;

	memcpy(head.store_id, what->store_id, sizeof(head.store_id));
	bytes = kvk_snapshot_bytes(&head);
	if (!bytes)
		return -EFBIG;
	data = kvk_mem_realloc(saving->data, bytes);
	if (!data)
		return -ENOMEM;
	saving->data = data;
	memset(data + names_at, 0, head.names_bytes);
	if (saving->table.used)
		memcpy(data + names_at, saving->table.names, saving->table.used);
	kvk_snapshot_seal(data, &head);
	return what->backend->ops->save_file(what->backend, FILE_NAME, data, bytes, false);
}

int kvk_snapshot_save(const struct kvk_snapshot_what *what)
{
	struct saving saving = { .data = NULL };
	int err = 0;

	for (uint32_t shard = 0; shard < KVK_CATALOG_SHARDS && !err; shard++) {
		err = kvk_catalog_visit(what->catalog, shard, save_one, &saving);
		if (saving.err)
			err = saving.err;
	}
	if (!err)
		err = write_it(&saving, what);
	kvk_mem_free(saving.data);
	kvk_mem_free(saving.table.names);
	kvk_mem_free(saving.table.slots);
	return err;
}

/* ---- loading ------------------------------------------------------------------------------------ */

static int tell_catalog(const struct kvk_snapshot_what *what, const uint8_t *data, const struct kvk_snapshot_head *head)
{
	const uint8_t *names = data + kvk_snapshot_at(head->object_count);
	int err = 0;

	for (uint64_t i = 0; i < head->object_count && !err; i++) {
		struct kvk_object_info info = { .source = KVK_SOURCE_SNAPSHOT };
		struct kvk_snapshot_object object;
		uint8_t id[KVK_DIGEST_BYTES] = { 0 };
		struct kvk_key tenant, model;

		kvk_snapshot_get_object(&object, data + kvk_snapshot_at(i));
		memcpy(id, object.prefix, sizeof(object.prefix));
		tenant = kvk_snapshot_get_name(names, head->names_bytes, object.tenant);
		model = kvk_snapshot_get_name(names, head->names_bytes, object.model);
		info.logical_bytes = object.logical_bytes;
		info.charge_bytes = object.charge_bytes;
		info.used_at = object.used_at_ns;
		info.durable = object.durable;
		info.tenant = tenant.data;
		info.tenant_bytes = tenant.bytes;
		info.model = model.data;
		info.model_bytes = model.bytes;
		err = kvk_catalog_scanned(what->catalog, id, &info);
		if (err != -ENOMEM)
			err = 0;
	}
	return err;
}

/* Parents were used no earlier than their children, so most come after them: links are made when all are there. */
static void link_all(const struct kvk_snapshot_what *what, const uint8_t *data, const struct kvk_snapshot_head *head)
{
	static const uint8_t none[16];

	for (uint64_t i = 0; i < head->object_count; i++) {
		uint8_t id[KVK_DIGEST_BYTES] = { 0 }, parent[KVK_DIGEST_BYTES] = { 0 };
		struct kvk_snapshot_object object;

		kvk_snapshot_get_object(&object, data + kvk_snapshot_at(i));
		if (!memcmp(object.parent_prefix, none, sizeof(none)))
			continue;
		memcpy(id, object.prefix, sizeof(object.prefix));
		memcpy(parent, object.parent_prefix, sizeof(object.parent_prefix));
		kvk_catalog_link(what->catalog, id, parent);
	}
}

int kvk_snapshot_load(const struct kvk_snapshot_what *what, uint64_t *count_ret)
{
	struct kvk_snapshot_head head;
	uint64_t bytes;
	void *data;
	int err;

	err = what->backend->ops->load_file(what->backend, FILE_NAME, &data, &bytes, KVK_SNAPSHOT_BYTES_MAX);
	if (err)
		return err;
	err = kvk_snapshot_parse(&head, data, bytes);
	if (!err && (head.epoch != what->epoch || memcmp(head.store_id, what->store_id, sizeof(head.store_id))))
		err = -ESTALE;
	if (!err)
		err = tell_catalog(what, data, &head);
	if (!err) {
		link_all(what, data, &head);
		*count_ret = head.object_count;
	}
	kvk_mem_free(data);
	return err;
}
