/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lookups of what memory knows are answered on the caller's own thread, since an engine's scheduler cannot wait; only
 * what memory does not know goes to a lane, which asks the medium.
 */
#include <errno.h>
#include <string.h>

#include "store/item.h"

/* Looks this far ahead in a batch, so that the catalog's memory is on its way when it is needed. */
#define AHEAD 64
/* And so far ahead for the texts of keys, which may lie anywhere. */
#define TEXTS_AHEAD 4
#define CACHE_LINE_BYTES 64u
/* A lookup asks the medium so often again before it calls a key that others keep changing a miss. */
#define AGAIN_MAX 16

struct lookups {
	struct kvk_core *core;
	struct kvk_task *task;
	uint64_t until_us;
	struct kvk_arena arena;
	struct kvk_link ops;
	uint32_t first_open;           /* answers from here on are not handed over yet */
	uint32_t memory_hits;          /* not counted in the statistics yet */
};

/* ---- what came of asking the medium ------------------------------------------------------------- */

static void miss(struct kvk_item *item, enum kvk_reason reason)
{
	item->request.outcome = KVK_OUTCOME_NONE;
	item->request.status = -ENOENT;
	item->request.reason = reason;
}

/*
 * Takes over what was found; if the catalog learnt something newer meanwhile, that counts. If it learnt nothing of this
 * key, it was another of its group (one in 16,384 keys) that was stored or removed, or this one was: the medium is
 * asked again. Without that, a replay of 2,000 requests, 8 at a time and killed twice, had 4 to 11 false misses.
 */
static bool take_found(struct kvk_request *request)
{
	struct kvk_item *item = kvk_item_of(request);
	struct kvk_catalog *catalog = item->core->catalog;
	bool pin = item->pin && !item->pinned;
	struct kvk_object_info info;
	int state;

	kvk_item_info(item, &info);
	item->found = kvk_catalog_found(catalog, request->id, &item->ticket, &info, pin);
	if (item->found != -ESTALE)
		return false;
	state = kvk_catalog_look(catalog, request->id, pin, false, &item->ticket, NULL);
	if (state == KVK_CATALOG_UNKNOWN && item->tries++ < AGAIN_MAX)
		return true;
	item->found = state == KVK_CATALOG_PRESENT ? 0 : state < 0 ? state : -EBUSY;
	return false;
}

/* The catalog did not take what was found. */
static void not_taken(struct kvk_item *item)
{
	struct kvk_request *request = &item->request;

	if (item->found == -EALREADY || item->found == -EBUSY) {
		miss(item, KVK_REASON_BUSY);
		return;
	}
	request->outcome = KVK_OUTCOME_NONE;
	request->status = item->found;
	request->reason = KVK_REASON_NO_MEMORY;
}

static void settle_lookup(struct kvk_item *item)
{
	struct kvk_request *request = &item->request;
	struct kvk_core *core = item->core;

	kvk_item_unlinked(item);
	if (request->outcome == KVK_OUTCOME_FOUND && item->found)
		not_taken(item);
	if (request->outcome == KVK_OUTCOME_FOUND) {
		item->answer_bytes = request->facts.logical_bytes;
		kvk_count(&core->counts.lookup_medium_hits);
		if (item->pin)
			kvk_event(core, KVK_EVENT_ACCESSED, request);
		return;
	}
	kvk_count(&core->counts.lookup_absent);
	if (request->reason == KVK_REASON_DAMAGED && !request->keep)
		kvk_news_tell(core, request->id);
	if (request->reason == KVK_REASON_DAMAGED && !request->keep)
		kvk_catalog_moved_aside(core->catalog, request->id, &item->ticket);
	else if (request->reason == KVK_REASON_ABSENT)
		kvk_catalog_lost(core->catalog, request->id, &item->ticket);
	if (item->pinned)
		kvk_catalog_unpin(core->catalog, request->id);
}

/* Nobody was told of the pin, so nobody will take it off. */
static void undo_pin(struct kvk_item *item)
{
	if (item->pin && item->request.outcome == KVK_OUTCOME_FOUND)
		kvk_catalog_unpin(item->core->catalog, item->request.id);
}

static void start_find(struct kvk_request *request)
{
	request->adapter->ops->find(request);
}

/* ---- asking ------------------------------------------------------------------------------------- */

/* Enough for the rest of the batch, counted when the first key is not known. */
static int add_items(struct lookups *lookups, const struct kvk_key_item *items)
{
	uint64_t arena_bytes = 0;

	for (uint32_t i = 0; i < lookups->task->count; i++)
		arena_bytes += ((const struct kvk_key_item *)kvk_item_at(items, i))->key.bytes;
	return kvk_task_add_items(lookups->task, arena_bytes, &lookups->arena);
}

static void ask_medium(struct lookups *lookups, uint32_t index, const struct kvk_key_item *from,
		       const struct kvk_identity *identity, const struct kvk_catalog_ticket *ticket,
		       bool present)
{
	bool pin = from->flags & KVK_LOOKUP_PIN;
	struct kvk_item *item = kvk_item_begin(lookups->core, lookups->task, index, KVK_OP_LIGHT, lookups->until_us,
					       start_find, settle_lookup);
	struct kvk_request *request = &item->request;

	item->alters = kvk_loads_alter(lookups->core);
	item->ticket = *ticket;
	item->pin = pin;
	item->pinned = pin && present;
	item->undo = undo_pin;
	item->meta_to = from->meta;
	item->meta_room = from->meta_bytes;
	request->again = take_found;
	kvk_item_identify(item, identity);
	if (!(from->flags & KVK_KEY_IS_DIGEST)) {
		request->key = kvk_arena_copy(&lookups->arena, from->key.data, from->key.bytes);
		request->key_bytes = from->key.bytes;
	}
	kvk_list_push(&lookups->ops, &request->op.link);
	/* This answer comes from a lane: hand over those before it. */
	kvk_answers_hand_over(lookups->core, lookups->task, lookups->first_open, index);
	lookups->first_open = index + 1;
}

static void lookup_one(struct lookups *lookups, uint32_t index, const struct kvk_key_item *items,
		       const struct kvk_identity *identity)
{
	const struct kvk_key_item *from = kvk_item_at(items, index);
	struct kvk_answer *answer = &lookups->task->answers[index];
	struct kvk_core *core = lookups->core;
	bool pin = from->flags & KVK_LOOKUP_PIN;
	struct kvk_catalog_ticket ticket;
	struct kvk_object_info info;
	int state = kvk_catalog_look(core->catalog, identity->id, pin, pin, &ticket, &info);

	answer->user = from->user;
	if (state == KVK_CATALOG_PRESENT && !from->meta && kvk_ids_are_keys(core)) {
		lookups->memory_hits++;
		answer->bytes = info.logical_bytes;
		answer->object_bytes = info.logical_bytes;
		if (pin)
			kvk_notices_event(&core->notices, KVK_EVENT_ACCESSED, from->key.data, from->key.bytes);
		return;
	}
	if (state == KVK_CATALOG_WRITING || state == KVK_CATALOG_LEAVING) {
		kvk_count(&core->counts.lookup_absent);
		kvk_answer_set(answer, -ENOENT, KVK_REASON_BUSY);
		return;
	}
	if (state < 0) {
		kvk_answer_set(answer, state, KVK_REASON_ARGUMENT);
		return;
	}
	if (!lookups->task->items && add_items(lookups, items)) {
		if (pin && state == KVK_CATALOG_PRESENT)
			kvk_catalog_unpin(core->catalog, identity->id);
		kvk_answer_set(answer, -ENOMEM, KVK_REASON_NO_MEMORY);
		return;
	}
	ask_medium(lookups, index, from, identity, &ticket, state == KVK_CATALOG_PRESENT);
}

static void warm_text(const struct kvk_key_item *item)
{
	for (uint32_t at = 0; at < item->key.bytes && at < 2 * CACHE_LINE_BYTES; at += CACHE_LINE_BYTES)
		__builtin_prefetch((const char *)item->key.data + at);
}

int64_t kvk_core_lookup(struct kvk_core *core, const struct kvk_key_item *items, uint32_t count,
			uint64_t deadline_us, struct kvk_waiter *waiter, struct kvk_task **ret)
{
	struct lookups lookups = { .core = core, .until_us = kvk_deadline(core, deadline_us) };
	struct kvk_identity identities[AHEAD];
	const uint8_t *warm[AHEAD];
	int errs[AHEAD];
	int err;

	if (atomic_load_explicit(&core->items, memory_order_relaxed) > core->spec.max_items)
		return -EAGAIN;
	err = kvk_task_begin(core, KVK_QUEUE_LOOKUP, count, 0, false, waiter, &lookups.task, NULL);
	if (err)
		return err;
	kvk_list_init(&lookups.ops);
	atomic_fetch_add_explicit(&core->counts.lookups, count, memory_order_relaxed);
	for (uint32_t start = 0; start < count; start += AHEAD) {
		uint32_t part = count - start < AHEAD ? count - start : AHEAD;

		for (uint32_t i = 0; i < part; i++) {
			const struct kvk_key_item *item = kvk_item_at(items, start + i);

			if (start + i + TEXTS_AHEAD < count)
				warm_text(kvk_item_at(items, start + i + TEXTS_AHEAD));
			errs[i] = 0;
			if (item->flags & KVK_KEY_IS_DIGEST)
				kvk_identity_of_digest(&identities[i], item->key.data);
			else
				errs[i] = kvk_core_identify(core, &identities[i], &item->key);
			warm[i] = identities[i].id;
		}
		kvk_catalog_warm(core->catalog, warm, part);
		for (uint32_t i = 0; i < part; i++) {
			if (errs[i])
				kvk_answer_set(&lookups.task->answers[start + i], errs[i],
					       KVK_REASON_NO_MEMORY);
			else
				lookup_one(&lookups, start + i, items, &identities[i]);
		}
	}
	atomic_fetch_add_explicit(&core->counts.lookup_memory_hits, lookups.memory_hits, memory_order_relaxed);
	kvk_answers_hand_over(core, lookups.task, lookups.first_open, count);
	return kvk_task_submit(core, lookups.task, &lookups.ops, ret);
}

int64_t kvk_core_unpin(struct kvk_core *core, const struct kvk_key_item *items, uint32_t count,
		       struct kvk_waiter *waiter, struct kvk_task **ret)
{
	struct kvk_task *task;
	struct kvk_link ops;
	int err = kvk_task_begin(core, KVK_QUEUE_LOOKUP, count, 0, false, waiter, &task, NULL);

	if (err)
		return err;
	kvk_list_init(&ops);
	for (uint32_t i = 0; i < count; i++) {
		const struct kvk_key_item *item = kvk_item_at(items, i);
		struct kvk_identity identity;

		task->answers[i].user = item->user;
		err = kvk_core_identify(core, &identity, &item->key);
		if (err)
			kvk_answer_set(&task->answers[i], err, KVK_REASON_NO_MEMORY);
		else
			kvk_catalog_unpin(core->catalog, identity.id);
	}
	kvk_answers_now(core, task, NULL);
	return kvk_task_submit(core, task, &ops, ret);
}
