/* SPDX-License-Identifier: Apache-2.0 */
/* A get asks the medium whatever memory knows, except while the key is being written or removed: that is a miss. */
#include <errno.h>
#include <string.h>

#include "store/item.h"

static void count_get(struct kvk_item *item)
{
	struct kvk_core *core = item->core;
	const struct kvk_request *request = &item->request;

	if (request->outcome == KVK_OUTCOME_FOUND) {
		kvk_count(&core->counts.get_hits);
		atomic_fetch_add(&core->counts.get_bytes, request->moved_bytes);
	} else if (request->status == -ENOENT) {
		kvk_count(&core->counts.get_absent);
	} else if (request->reason == KVK_REASON_DAMAGED) {
		kvk_count(&core->counts.get_damaged);
	} else {
		kvk_count(&core->counts.get_failed);
	}
	item->answer_bytes = request->moved_bytes;
}

static void settle_get(struct kvk_item *item)
{
	struct kvk_request *request = &item->request;
	struct kvk_catalog *catalog = item->core->catalog;
	struct kvk_object_info info;

	count_get(item);
	kvk_item_unlinked(item);
	if (request->name)
		return;                /* only looked at: the catalog goes by digests of this namespace */
	if (request->outcome == KVK_OUTCOME_FOUND) {
		if (!item->present && request->key && !request->keep) {
			kvk_item_info(item, &info);
			/* If it is out of date, or being removed: the bytes are proven all the same. */
			kvk_catalog_found(catalog, request->id, &item->ticket, &info, false);
		}
		if (request->renew)
			kvk_event(item->core, KVK_EVENT_ACCESSED, request);
	} else if (request->reason == KVK_REASON_DAMAGED && !request->keep) {
		/* 1. it is not known; 2. the keeper lists it; 3. it is moved aside: a put would find it present. */
		kvk_catalog_moved_aside(catalog, request->id, &item->ticket);
		kvk_news_tell(item->core, request->id);
		kvk_event(item->core, KVK_EVENT_DELETED, request);
	} else if (request->reason == KVK_REASON_ABSENT) {
		kvk_catalog_lost(catalog, request->id, &item->ticket);
	}
}

static void start_get(struct kvk_request *request)
{
	request->adapter->ops->get(request);
}

static struct kvk_item *begin_get(struct kvk_core *core, struct kvk_task *task, uint32_t index,
				  const struct kvk_get_item *from, uint64_t deadline_us, struct kvk_arena *arena)
{
	struct kvk_answer *answer = &task->answers[index];
	bool peek = from->flags & KVK_GET_PEEK, by_name = from->flags & KVK_KEY_IS_NAME;
	struct kvk_catalog_ticket ticket = { 0 };
	struct kvk_identity identity = { 0 };
	int state = KVK_CATALOG_UNKNOWN, err = 0;
	struct kvk_request *request;
	struct kvk_item *item;

	kvk_count(&core->counts.gets);
	answer->user = from->user;
	if (from->flags & KVK_KEY_IS_DIGEST)
		kvk_identity_of_digest(&identity, from->key.data);
	else if (!by_name)
		err = kvk_core_identify(core, &identity, &from->key);
	if (err) {
		kvk_count(&core->counts.get_failed);
		kvk_answer_set(answer, err, KVK_REASON_NO_MEMORY);
		return NULL;
	}
	if (!by_name)
		state = kvk_catalog_look(core->catalog, identity.id, false, !peek, &ticket, NULL);
	if (state == KVK_CATALOG_WRITING || state == KVK_CATALOG_LEAVING) {
		kvk_count(&core->counts.get_absent);
		kvk_answer_set(answer, -ENOENT, KVK_REASON_BUSY);
		return NULL;
	}

	item = kvk_item_begin(core, task, index, KVK_OP_READ, deadline_us, start_get, settle_get);
	item->alters = kvk_loads_alter(core);
	item->ticket = ticket;
	item->present = state == KVK_CATALOG_PRESENT;
	item->meta_to = from->meta;
	item->meta_room = from->meta_bytes;
	request = &item->request;
	kvk_item_identify(item, &identity);
	request->deliver = !(from->flags & KVK_GET_VERIFY);
	request->held = request->deliver && (from->flags & KVK_MEM_HELD);
	request->keep = peek;
	request->renew = !peek;
	request->offset_bytes = from->offset_bytes;
	request->range_bytes = from->range_bytes;
	if (request->deliver) {
		request->data = kvk_arena_copy(arena, from->data, from->data_count * sizeof(*from->data));
		request->data_count = from->data_count;
		for (uint32_t i = 0; i < from->data_count; i++)
			request->data_bytes += from->data[i].iov_len;
	}
	if (by_name) {
		char *name = kvk_arena_copy(arena, from->key.data, from->key.bytes);

		*arena->next++ = 0;
		request->name = name;
	} else if (!(from->flags & KVK_KEY_IS_DIGEST)) {
		request->key = kvk_arena_copy(arena, from->key.data, from->key.bytes);
		request->key_bytes = from->key.bytes;
	}
	return item;
}

int64_t kvk_core_get(struct kvk_core *core, const struct kvk_get_item *items, uint32_t count,
		     uint64_t deadline_us, struct kvk_waiter *waiter, struct kvk_task **ret)
{
	uint64_t until_us = kvk_deadline(core, deadline_us), arena_bytes = count;
	struct kvk_arena arena;
	struct kvk_task *task;
	struct kvk_link ops;
	bool *later;
	int err;

	for (uint32_t i = 0; i < count; i++) {
		const struct kvk_get_item *item = kvk_item_at(items, i);

		arena_bytes += (item->data_count * sizeof(*item->data) + item->key.bytes + 1 + 7) & ~UINT64_C(7);
	}
	err = kvk_task_begin(core, KVK_QUEUE_GET, count, arena_bytes, true, waiter, &task, &arena);
	if (err)
		return err;
	later = (bool *)arena.end - count;
	kvk_list_init(&ops);
	for (uint32_t i = 0; i < count; i++) {
		struct kvk_item *item = begin_get(core, task, i, kvk_item_at(items, i), until_us, &arena);

		arena.next = (uint8_t *)(((uintptr_t)arena.next + 7) & ~(uintptr_t)7);
		later[i] = item != NULL;
		if (item)
			kvk_list_push(&ops, &item->request.op.link);
	}
	kvk_answers_now(core, task, later);
	return kvk_task_submit(core, task, &ops, ret);
}
