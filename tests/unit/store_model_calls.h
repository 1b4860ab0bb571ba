/* SPDX-License-Identifier: Apache-2.0 */
/* Batches of requests that a model draws, what each of them must answer, and what it leaves behind. */
#ifndef KVK_TESTS_STORE_MODEL_CALLS_H
#define KVK_TESTS_STORE_MODEL_CALLS_H

#include "unit/store_model.h"

/* ---- requests ------------------------------------------------------------------------------------- */

/*
 * What was stored is there. What was refused had no room for certain: when it was refused nothing else was under way, and nothing
 * is given back after that but by those of the batch that take a damaged object's place, each what that one was charged.
 */
static inline void settle_puts(struct model *model, struct object **written, const struct facts *facts, uint32_t count)
{
	int64_t replaced = 0;

	for (uint32_t i = 0; i < count; i++) {
		struct object *object = written[i];

		if (!object || model->refused[i])
			continue;
		replaced += object->there ? (int64_t)kvk_page_ceil(object->file_bytes) : 0;
		model->charged -= object->there ? kvk_page_ceil(object->file_bytes) : 0;
		object->facts = facts[i];
		object->there = true;
		object->damage = WHOLE;
		object->file_bytes = model_charge(object, &facts[i]);
		model->charged += object->file_bytes;
		model_learn(model, object);
	}
	for (uint32_t i = 0; i < count; i++) {
		int64_t room = model_room(model), charge = written[i] ? (int64_t)model_charge(written[i], &facts[i]) : 0;

		if (written[i] && model->refused[i] && room >= charge + replaced)
			fail_msg("refused %" PRId64 " bytes with room for %" PRId64 ", %" PRId64 " of it replaced; %" PRIu64
				 " leased, %" PRIu64 " used", charge, room, replaced, bed_usage(model->bed.store).leased_bytes,
				 bed_usage(model->bed.store).used_bytes);
	}
}

static inline void run_puts(struct model *model, uint32_t count)
{
	static struct iovec pieces[MODEL_BATCH][4];
	struct kvk_put_item items[MODEL_BATCH];
	struct expected expected[MODEL_BATCH] = { { .status = 0 } };
	struct object *written[MODEL_BATCH] = { NULL };
	struct facts facts[MODEL_BATCH];
	int64_t room = model_room(model), wanted = 0;

	memset(items, 0, sizeof(items));
	for (uint32_t i = 0; i < count; i++) {
		struct object *object = model_pick(model, i);
		struct facts new = model_new_facts(model, object);
		struct kvk_put_item *item = &items[i];
		uint64_t charge = model_charge(object, &new);

		item->struct_bytes = sizeof(*item);
		item->flags = model_draw(model, 4) == 0 ? KVK_MEM_HELD : 0;
		item->key = object->key;
		item->depth = new.depth;
		item->user = i;
		if (new.parent >= 0)
			item->parent = model->objects[new.parent].key;
		item->meta_bytes = new.meta_bytes;
		bed_fill(model->metas[i], new.meta_bytes, object->key, new.generation, 0);
		item->meta = model->metas[i];
		bed_fill(model->memory[i], new.bytes, object->key, new.generation, 0);
		item->data = pieces[i];
		item->data_count = model_pieces(model, pieces[i], 4, model->memory[i], new.bytes);
		expected[i] = (struct expected){ .object_bytes = UINT64_MAX };

		if (object->known) {
			expected[i].reason = KVK_REASON_PRESENT;
			continue;
		}
		wanted += (int64_t)charge;
		if (object->there && object->damage != FOOTER_DAMAGED) {
			/* Found there; what was reserved for it goes back. */
			expected[i].reason = KVK_REASON_PRESENT;
			model_learn(model, object);
			continue;
		}
		expected[i].bytes = new.bytes;
		facts[i] = new;
		written[i] = object;
	}
	/* Which of them get the room that is left, is not said. */
	for (uint32_t i = 0; i < count; i++)
		expected[i].or_no_room = written[i] && wanted > room;
	model_submit(model, kvk_store_put(model->bed.store, items, count, 0), KVK_QUEUE_PUT, count, expected);
	settle_puts(model, written, facts, count);
}

static inline void expect_get(struct model *model, struct object *object, const struct kvk_get_item *item, uint64_t room,
			      struct expected *expected)
{
	const struct facts *facts = &object->facts;
	uint64_t end = item->range_bytes ? item->offset_bytes + item->range_bytes : facts->bytes;
	bool peek = item->flags & KVK_GET_PEEK;

	*expected = (struct expected){ .object_bytes = UINT64_MAX };
	if (!object->there) {
		*expected = (struct expected){ .status = -ENOENT, .reason = KVK_REASON_ABSENT, .object_bytes = UINT64_MAX };
		model_lost(model, object);
		return;
	}
	if (object->damage == FOOTER_DAMAGED)
		goto damaged;
	if (item->offset_bytes > facts->bytes || end > facts->bytes) {
		expected->status = -EINVAL;
		expected->reason = KVK_REASON_ARGUMENT;
		return;
	}
	if (!(item->flags & KVK_GET_VERIFY) && end - item->offset_bytes > room) {
		expected->status = -EMSGSIZE;
		expected->reason = KVK_REASON_ARGUMENT;
		return;
	}
	if (object->damage == PAYLOAD_DAMAGED && end > item->offset_bytes &&
	    object->damage_at / KVK_BLOCK_BYTES_MIN >= item->offset_bytes / KVK_BLOCK_BYTES_MIN &&
	    object->damage_at / KVK_BLOCK_BYTES_MIN <= (end - 1) / KVK_BLOCK_BYTES_MIN)
		goto damaged;
	expected->bytes = item->flags & KVK_GET_VERIFY ? 0 : end - item->offset_bytes;
	expected->object_bytes = facts->bytes;
	expected->object = object;
	expected->offset = item->offset_bytes;
	expected->meta = true;
	if (!peek)
		model_learn(model, object);
	return;

damaged:
	expected->status = -EBADMSG;
	expected->reason = KVK_REASON_DAMAGED;
	expected->aside = peek ? NULL : object;
}

static inline void run_gets(struct model *model, uint32_t count)
{
	static struct iovec pieces[MODEL_BATCH][4];
	struct kvk_get_item items[MODEL_BATCH];
	struct expected expected[MODEL_BATCH];

	memset(items, 0, sizeof(items));
	for (uint32_t i = 0; i < count; i++) {
		struct object *object = model_pick(model, i);
		struct kvk_get_item *item = &items[i];
		uint64_t bytes = object->facts.bytes, room;

		item->struct_bytes = sizeof(*item);
		item->key = object->key;
		item->user = i;
		item->meta = model->metas[i];
		item->meta_bytes = KVK_META_BYTES_MAX;
		if (model_draw(model, 4) == 0)
			item->flags |= KVK_MEM_HELD;
		if (model_draw(model, 6) == 0)
			item->flags |= KVK_GET_PEEK;
		if (model_draw(model, 8) == 0)
			item->flags = (item->flags & ~(uint32_t)KVK_MEM_HELD) | KVK_GET_VERIFY;
		if (model_draw(model, 3) == 0) {
			item->offset_bytes = model_draw(model, bytes + 2);
			item->range_bytes = model_draw(model, bytes + 2);
		}
		room = item->range_bytes ? item->range_bytes : bytes;
		if (model_draw(model, 16) == 0)
			room = model_draw(model, bytes + 2);
		else if (model_draw(model, 4) == 0)
			room += model_draw(model, 5000);
		if (room > MODEL_OBJECT_BYTES)
			room = MODEL_OBJECT_BYTES;
		memset(model->memory[i], UNTOUCHED, MODEL_OBJECT_BYTES);
		memset(model->metas[i], UNTOUCHED, KVK_META_BYTES_MAX);
		item->data = pieces[i];
		item->data_count = model_pieces(model, pieces[i], 4, model->memory[i], room);
		expect_get(model, object, item, room, &expected[i]);
		expected[i].room = room;
	}
	model_submit(model, kvk_store_get(model->bed.store, items, count, 0), KVK_QUEUE_GET, count, expected);
}

static inline void expect_lookup(struct model *model, struct object *object, bool pin, bool meta, struct expected *expected)
{
	*expected = (struct expected){ .object_bytes = UINT64_MAX };
	if (object->known && !meta) {
		expected->bytes = expected->object_bytes = object->known_bytes;
		object->pins += pin;
	} else if (!object->there) {
		expected->status = -ENOENT;
		expected->reason = KVK_REASON_ABSENT;
		model_lost(model, object);
	} else if (object->damage == FOOTER_DAMAGED) {
		expected->status = -EBADMSG;
		expected->reason = KVK_REASON_DAMAGED;
		expected->aside = object;
	} else {
		expected->bytes = expected->object_bytes = object->facts.bytes;
		expected->object = meta ? object : NULL;
		expected->meta = meta;
		model_learn(model, object);
		object->pins += pin;
	}
}

static inline void run_lookups(struct model *model, uint32_t count, bool pin, bool meta)
{
	struct kvk_key_item items[MODEL_BATCH];
	struct expected expected[MODEL_BATCH];

	memset(items, 0, sizeof(items));
	for (uint32_t i = 0; i < count; i++) {
		struct object *object = model_pick(model, i);

		items[i] = (struct kvk_key_item){ .struct_bytes = sizeof(items[0]), .key = object->key, .user = i,
						  .flags = pin ? KVK_LOOKUP_PIN : 0 };
		memset(model->metas[i], UNTOUCHED, KVK_META_BYTES_MAX);
		if (meta) {
			items[i].meta = model->metas[i];
			items[i].meta_bytes = KVK_META_BYTES_MAX;
		}
		expect_lookup(model, object, pin, meta, &expected[i]);
	}
	model_submit(model, kvk_store_lookup(model->bed.store, items, count, 0), KVK_QUEUE_LOOKUP, count, expected);
}

static inline void run_unpins_or_removes(struct model *model, uint32_t count, bool remove)
{
	struct kvk_key_item items[MODEL_BATCH];
	struct expected expected[MODEL_BATCH];

	memset(items, 0, sizeof(items));
	for (uint32_t i = 0; i < count; i++) {
		struct object *object = model_pick(model, i);

		items[i] = (struct kvk_key_item){ .struct_bytes = sizeof(items[0]), .key = object->key, .user = i };
		expected[i] = (struct expected){ .object_bytes = UINT64_MAX };
		if (!remove) {
			object->pins -= object->pins > 0;
		} else if (object->pins > 0) {
			expected[i].status = -EBUSY;
			expected[i].reason = KVK_REASON_PINNED;
		} else {
			if (!object->there) {
				expected[i].status = -ENOENT;
				expected[i].reason = KVK_REASON_ABSENT;
			} else {
				model->charged -= kvk_page_ceil(object->file_bytes);
			}
			object->there = false;
			model_lost(model, object);
		}
	}
	if (remove)
		model_submit(model, kvk_store_remove(model->bed.store, items, count, 0), KVK_QUEUE_PUT, count, expected);
	else
		model_submit(model, kvk_store_unpin(model->bed.store, items, count), KVK_QUEUE_LOOKUP, count, expected);
}

/* Canceled while it runs: each of its items is stored wholly or not at all, and the medium says which. */
static inline void run_canceled_puts(struct model *model, uint32_t count)
{
	struct kvk_put_item items[MODEL_BATCH];
	struct object *objects[MODEL_BATCH];
	struct iovec pieces[MODEL_BATCH];
	struct facts facts[MODEL_BATCH];
	uint32_t chosen = 0;
	int64_t task;

	memset(items, 0, sizeof(items));
	for (uint32_t i = 0; i < count; i++) {
		struct object *object = model_pick(model, i);

		if (object->there || object->known)
			continue;
		facts[chosen] = model_new_facts(model, object);
		facts[chosen].parent = -1;
		facts[chosen].depth = 0;
		facts[chosen].meta_bytes = 0;
		bed_fill(model->memory[chosen], facts[chosen].bytes, object->key, facts[chosen].generation, 0);
		pieces[chosen] = (struct iovec){ model->memory[chosen], facts[chosen].bytes };
		items[chosen] = (struct kvk_put_item){ .struct_bytes = sizeof(items[0]), .key = object->key,
						       .data = &pieces[chosen], .data_count = 1, .user = chosen };
		objects[chosen++] = object;
	}
	if (chosen == 0)
		return;
	task = kvk_store_put(model->bed.store, items, chosen, 0);
	assert_true(task > 0);
	kvk_store_cancel(model->bed.store, task);
	for (uint32_t i = 0; i < chosen; i++) {
		struct kvk_result result = { .struct_bytes = sizeof(result) };

		assert_true(bed_next(model->bed.store, KVK_QUEUE_PUT, &result));
		assert_true(result.status == 0 || result.status == -ECANCELED || result.status == -ENOSPC);
	}
	model_wait_for_writes(model);
	for (uint32_t i = 0; i < chosen; i++) {
		if (!model_on_medium(model, objects[i], NULL))
			continue;
		objects[i]->facts = facts[i];
		objects[i]->there = true;
		objects[i]->damage = WHOLE;
		objects[i]->file_bytes = model_charge(objects[i], &facts[i]);
		model->charged += objects[i]->file_bytes;
		model_learn(model, objects[i]);
	}
}

#endif
