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

	kvk_catalog_remove_renamed(core->catalog, request->id, gone, &charge);
	if (removed) {
		item->credit_bytes = charge;
		kvk_news_tell(core, request->id);
		kvk_count(&core->counts.removed);
		kvk_event(core, KVK_EVENT_DELETED, request);
	} else if (gone) {
		/* Somebody else took the file away: there is nothing to wait for. */
		kvk_catalog_credit(core->catalog, charge);
	}
}

static void freed(struct kvk_request *request)
{
	struct kvk_item *item = kvk_item_of(request);

	kvk_catalog_credit(item->core->catalog, item->credit_bytes);
	kvk_item_unlinked(item);
}

static void start_remove(struct kvk_request *request)
{
	request->adapter->ops->remove(request);
}

/* By its file's name, whoever's it is: a list of the medium may show what no key is known of. */
static int identify_name(const struct kvk_core *core, struct kvk_identity *ret, const struct kvk_key *from)
{
	const struct kvk_layout *layout = &core->superblock.layout;
	char name[KVK_NAME_BYTES_MAX] = { 0 }, proper[KVK_NAME_BYTES_MAX];
	struct kvk_identity identity;
	int err;

	memcpy(name, from->data, from->bytes);
	if (strlen(name) != from->bytes)
		return -EINVAL;
	err = kvk_name_id(identity.id, layout, name);
	if (err)
		return err;
	memcpy(identity.digest, identity.id, KVK_DIGEST_BYTES);
	if (layout->naming == KVK_NAMING_KVKEEP) {
		err = kvk_name_make(proper, layout, identity.digest, NULL, 0);
		if (!err && strcmp(name, proper) != 0)
			err = -EINVAL;
	}
	if (!err)
		*ret = identity;
	return err;
}

static void refuse(struct kvk_answer *answer, int err, bool pinned)
{
	if (err == -EINVAL)
		kvk_answer_set(answer, err, KVK_REASON_ARGUMENT);
	else if (err != -EBUSY)
		kvk_answer_set(answer, err, KVK_REASON_NO_MEMORY);
	else if (pinned)
		kvk_answer_set(answer, err, KVK_REASON_PINNED);
	else
		kvk_answer_set(answer, -ENOENT, KVK_REASON_BUSY);
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
		arena_bytes += ((const struct kvk_key_item *)kvk_item_at(items, i))->key.bytes + 1;
	err = kvk_task_begin(core, KVK_QUEUE_PUT, count, arena_bytes, true, waiter, &task, &arena);
	if (err)
		return err;
	later = (bool *)arena.end - count;
	kvk_list_init(&ops);
	for (uint32_t i = 0; i < count; i++) {
		const struct kvk_key_item *from = kvk_item_at(items, i);
		struct kvk_answer *answer = &task->answers[i];
		struct kvk_identity identity;
		bool pinned = false;
		bool by_name = from->flags & KVK_KEY_IS_NAME, by_digest = from->flags & KVK_KEY_IS_DIGEST;
		struct kvk_item *item;

		kvk_count(&core->counts.removes);
		answer->user = from->user;
		later[i] = false;
		err = 0;
		if (by_digest)
			kvk_identity_of_digest(&identity, from->key.data);
		else
			err = by_name ? identify_name(core, &identity, &from->key) :
					kvk_core_identify(core, &identity, &from->key);
		if (!err)
			err = kvk_catalog_remove_begin(core->catalog, identity.id, &pinned);
		if (err) {
			refuse(answer, err, pinned);
			continue;
		}
		later[i] = true;
		item = kvk_item_begin(core, task, i, KVK_OP_LIGHT, until_us, start_remove, settle_remove);
		item->request.freed = freed;
		item->alters = true;
		item->removes = true;
		atomic_fetch_add(&core->removing, 1);
		kvk_item_identify(item, &identity);
		if (by_name) {
			item->request.name = kvk_arena_copy(&arena, from->key.data, from->key.bytes);
			*arena.next++ = 0;
		} else if (!by_digest) {
			item->request.key = kvk_arena_copy(&arena, from->key.data, from->key.bytes);
			item->request.key_bytes = from->key.bytes;
		}
		kvk_list_push(&ops, &item->request.op.link);
	}
	kvk_answers_now(core, task, later);
	return kvk_task_submit(core, task, &ops, ret);
}
