/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A put reserves room, writes, and is charged when it is published. A key that is present, or is being written, is
 * not written again.
 */
#include <errno.h>
#include <string.h>

#include "store/item.h"
#include "util/alloc.h"

/* ---- what came of it ---------------------------------------------------------------------------- */

static void count_put(struct kvk_item *item)
{
	struct kvk_core *core = item->core;
	const struct kvk_request *request = &item->request;

	if (request->outcome == KVK_OUTCOME_WRITTEN)
		atomic_fetch_add(&core->unsynced_bytes, request->facts.stored_bytes);
	/* What is there but not as durable as asked was not stored, for the caller. */
	if (request->outcome == KVK_OUTCOME_WRITTEN && request->status == 0) {
		kvk_count(&core->counts.put_stored);
		atomic_fetch_add(&core->counts.put_bytes, request->moved_bytes);
	} else if (request->outcome == KVK_OUTCOME_FOUND && request->status == 0) {
		kvk_count(&core->counts.put_present);
	} else if (request->reason == KVK_REASON_NO_ROOM) {
		kvk_count(&core->counts.put_no_room);
	} else {
		kvk_count(&core->counts.put_failed);
	}
	item->answer_bytes = request->outcome == KVK_OUTCOME_WRITTEN ? request->moved_bytes : 0;
}

static void settle_put(struct kvk_item *item)
{
	struct kvk_request *request = &item->request;
	struct kvk_object_info info;
	bool there = request->outcome == KVK_OUTCOME_WRITTEN || request->outcome == KVK_OUTCOME_FOUND;

	if (there)
		kvk_item_info(item, &info);
	info.published = request->outcome == KVK_OUTCOME_WRITTEN;
	kvk_catalog_put_end(item->core->catalog, request->digest, there ? &info : NULL);
	if (request->outcome == KVK_OUTCOME_FOUND)
		kvk_core_square_room(item->core);
	count_put(item);
	if (request->outcome == KVK_OUTCOME_WRITTEN)
		kvk_event(item->core, KVK_EVENT_STORED, request);
}

/* It is present but not known to be durable, and that is what was asked for. */
static void settle_durable(struct kvk_item *item)
{
	struct kvk_request *request = &item->request;

	if (request->outcome != KVK_OUTCOME_NONE && request->facts.durable)
		kvk_catalog_set_durable(item->core->catalog, request->digest, &item->ticket);
	else if (request->outcome == KVK_OUTCOME_NONE && request->reason == KVK_REASON_NOT_DURABLE)
		kvk_catalog_lost(item->core->catalog, request->digest, &item->ticket);
	kvk_core_square_room(item->core);
	count_put(item);
}

/* There was no room to write it, but it may be there already: then nothing has to be written. */
static void settle_roomless(struct kvk_item *item)
{
	struct kvk_request *request = &item->request;
	struct kvk_object_info info;

	if (request->outcome == KVK_OUTCOME_FOUND) {
		kvk_item_info(item, &info);
		kvk_catalog_found(item->core->catalog, request->digest, &item->ticket, &info, false);
		kvk_core_square_room(item->core);
		request->reason = KVK_REASON_PRESENT;
	} else if (item->started) {
		request->status = -ENOSPC;
		request->reason = KVK_REASON_NO_ROOM;
	}
	count_put(item);
}

/* ---- asking ------------------------------------------------------------------------------------- */

static void start_put(struct kvk_request *request)
{
	request->adapter->ops->put(request);
}

static void start_find(struct kvk_request *request)
{
	request->adapter->ops->find(request);
}

static int set_parent(struct kvk_item *item, const struct kvk_key *parent)
{
	int err = parent->bytes ? kvk_core_digest(item->core, item->parent_digest, parent) : 0;

	if (!err && parent->bytes)
		item->request.parent_digest = item->parent_digest;
	return err;
}

/* Returns the item if a lane has to do it, or NULL when its answer is set. */
static struct kvk_item *begin_put(struct kvk_core *core, struct kvk_task *task, uint32_t index,
				  const struct kvk_put_item *from, uint64_t deadline_us, struct kvk_arena *arena)
{
	struct kvk_answer *answer = &task->answers[index];
	struct kvk_request probe = { .meta_bytes = from->meta_bytes, .key_bytes = from->key.bytes };
	uint8_t digest[KVK_DIGEST_BYTES];
	uint64_t data_bytes = 0;
	struct kvk_item *item;
	struct kvk_request *request;
	void (*settle)(struct kvk_item *item) = settle_put;
	bool durable = false, roomless = false;
	int err;

	for (uint32_t i = 0; i < from->data_count; i++)
		data_bytes += from->data[i].iov_len;
	kvk_count(&core->counts.puts);
	answer->user = from->user;
	err = kvk_core_digest(core, digest, &from->key);
	if (err) {
		kvk_answer_set(answer, err, KVK_REASON_NO_MEMORY);
		return NULL;
	}
	err = kvk_catalog_put_begin(core->catalog, digest, core->adapter->ops->charge(&probe, data_bytes), &durable);
	switch (err) {
	case 0:
		break;
	case -EEXIST:
		if (durable || core->superblock.durability != KVK_DURABILITY_OBJECT) {
			kvk_count(&core->counts.put_present);
			answer->object_bytes = data_bytes;
			kvk_answer_set(answer, 0, KVK_REASON_PRESENT);
			return NULL;
		}
		settle = settle_durable;
		break;
	case -ENOSPC:
		settle = settle_roomless;
		roomless = true;
		break;
	case -EALREADY:
	case -EBUSY:
		kvk_count(&core->counts.put_failed);
		kvk_answer_set(answer, -EALREADY, KVK_REASON_BUSY);
		return NULL;
	default:
		kvk_count(&core->counts.put_failed);
		kvk_answer_set(answer, err, KVK_REASON_NO_MEMORY);
		return NULL;
	}

	item = kvk_item_begin(core, task, index, roomless ? KVK_OP_LIGHT : KVK_OP_WRITE, deadline_us,
			      roomless ? start_find : start_put, settle);
	request = &item->request;
	if (settle != settle_put)
		kvk_catalog_look(core->catalog, digest, false, false, &item->ticket, NULL);
	memcpy(request->digest, digest, KVK_DIGEST_BYTES);
	request->data = kvk_arena_copy(arena, from->data, from->data_count * sizeof(*from->data));
	request->data_count = from->data_count;
	request->data_bytes = data_bytes;
	request->key = kvk_arena_copy(arena, from->key.data, from->key.bytes);
	request->key_bytes = from->key.bytes;
	request->meta = kvk_arena_copy(arena, from->meta, from->meta_bytes);
	request->meta_bytes = from->meta_bytes;
	request->depth = from->depth;
	request->held = from->flags & KVK_MEM_HELD;
	request->judge_first = settle == settle_durable;
	request->keep = roomless;
	/* Out of memory in the hash: the object is stored without its parent, which is only a hint. */
	set_parent(item, &from->parent);
	return item;
}

int64_t kvk_core_put(struct kvk_core *core, const struct kvk_put_item *items, uint32_t count,
		     uint64_t deadline_us, struct kvk_waiter *waiter, struct kvk_task **ret)
{
	uint64_t until_us = kvk_deadline(core, deadline_us), arena_bytes = count;
	struct kvk_arena arena;
	struct kvk_task *task;
	struct kvk_link ops;
	bool *later;
	int err;

	for (uint32_t i = 0; i < count; i++) {
		const struct kvk_put_item *item = kvk_item_at(items, i);

		arena_bytes += (item->data_count * sizeof(*item->data) + item->key.bytes + item->meta_bytes + 7) &
			       ~UINT64_C(7);
	}
	err = kvk_task_begin(core, KVK_QUEUE_PUT, count, arena_bytes, true, waiter, &task, &arena);
	if (err)
		return err;
	later = (bool *)arena.end - count;
	kvk_list_init(&ops);
	for (uint32_t i = 0; i < count; i++) {
		struct kvk_item *item = begin_put(core, task, i, kvk_item_at(items, i), until_us, &arena);

		arena.next = (uint8_t *)(((uintptr_t)arena.next + 7) & ~(uintptr_t)7);
		later[i] = item != NULL;
		if (item)
			kvk_list_push(&ops, &item->request.op.link);
	}
	kvk_answers_now(core, task, later);
	return kvk_task_submit(core, task, &ops, ret);
}
