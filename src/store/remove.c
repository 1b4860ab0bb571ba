/* SPDX-License-Identifier: Apache-2.0 */
/* A remove is answered when the name is gone; the bytes are given back when the blocks are. */
#include <errno.h>
#include <string.h>

#include "store/item.h"

static void settle_remove(struct kvk_item *item)
{
	struct kvk_request *request = &item->request;
	struct kvk_core *core = item->core;
	bool removed = request->outcome == KVK_OUTCOME_REMOVED;
	bool gone = removed || request->reason == KVK_REASON_ABSENT;
	uint64_t charge;

	kvk_catalog_remove_renamed(core->catalog, request->digest, gone, &charge);
	if (removed) {
		item->credit_bytes = charge;
		kvk_count(&core->counts.removed);
		kvk_event(core, KVK_EVENT_DELETED, request);
	} else if (gone) {
		/* Somebody else took the file away: there is nothing to wait for. */
		kvk_catalog_credit(core->catalog, charge);
		kvk_core_square_room(core);
	}
}

static void freed(struct kvk_request *request)
{
	struct kvk_item *item = kvk_item_of(request);

	kvk_catalog_credit(item->core->catalog, item->credit_bytes);
	kvk_core_square_room(item->core);
}

static void start_remove(struct kvk_request *request)
{
	request->adapter->ops->remove(request);
}

int64_t kvk_core_remove(struct kvk_core *core, const struct kvk_key_item *items, uint32_t count,
			uint64_t deadline_us, struct kvk_waiter *waiter, struct kvk_task **ret)
{
	uint64_t until_us = kvk_deadline(core, deadline_us), arena_bytes = count;
	struct kvk_arena arena;
	struct kvk_task *task;
	struct kvk_link ops;
	bool *later;
	int err;

	for (uint32_t i = 0; i < count; i++)
		arena_bytes += ((const struct kvk_key_item *)kvk_item_at(items, i))->key.bytes;
	err = kvk_task_begin(core, KVK_QUEUE_PUT, count, arena_bytes, true, waiter, &task, &arena);
	if (err)
		return err;
	later = (bool *)arena.end - count;
	kvk_list_init(&ops);
	for (uint32_t i = 0; i < count; i++) {
		const struct kvk_key_item *from = kvk_item_at(items, i);
		struct kvk_answer *answer = &task->answers[i];
		uint8_t digest[KVK_DIGEST_BYTES];
		bool pinned = false;
		struct kvk_item *item;

		kvk_count(&core->counts.removes);
		answer->user = from->user;
		later[i] = false;
		err = kvk_core_digest(core, digest, &from->key);
		if (!err)
			err = kvk_catalog_remove_begin(core->catalog, digest, &pinned);
		if (err) {
			kvk_answer_set(answer, err == -EBUSY && !pinned ? -ENOENT : err,
				       err != -EBUSY ? KVK_REASON_NO_MEMORY
				       : pinned ? KVK_REASON_PINNED : KVK_REASON_BUSY);
			continue;
		}
		later[i] = true;
		item = kvk_item_begin(core, task, i, KVK_OP_LIGHT, until_us, start_remove, settle_remove);
		item->request.freed = freed;
		memcpy(item->request.digest, digest, KVK_DIGEST_BYTES);
		item->request.key = kvk_arena_copy(&arena, from->key.data, from->key.bytes);
		item->request.key_bytes = from->key.bytes;
		kvk_list_push(&ops, &item->request.op.link);
	}
	kvk_answers_now(core, task, later);
	return kvk_task_submit(core, task, &ops, ret);
}
