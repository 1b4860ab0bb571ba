/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A put reserves room from the lease, writes, and is charged when it is published. A key that is present, or is being
 * written, is not written again. Where the lease is too short, or the room is in pieces, or what was present turns out not to be
 * there, the put waits for the room thread (waiting.h).
 */
#include <errno.h>
#include <string.h>

#include "store/item.h"
#include "util/alloc.h"

/* ---- what came of it ---------------------------------------------------------------------------- */

static void settle_put(struct kvk_item *item);

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
		/* It had room in the lease: the medium says otherwise. A pool that is in pieces is not full. */
		if (item->settle == settle_put && !core->adapter->ops->slots) {
			kvk_count(&core->counts.medium_full);
			kvk_room_ring(core);
		}
	} else {
		kvk_count(&core->counts.put_failed);
	}
	item->answer_bytes = request->outcome == KVK_OUTCOME_WRITTEN ? request->moved_bytes : 0;
}

/* The account's part: what has a name now came out of the lease, what lost its name is given back. */
static void account_put(struct kvk_item *item)
{
	struct kvk_account *account = item->core->account;
	const struct kvk_request *request = &item->request;

	if (request->published_bytes > 0)
		kvk_account_published(account, request->bucket, kvk_page_ceil(request->published_bytes));
	kvk_item_unlinked(item);
}

static void settle_put(struct kvk_item *item)
{
	struct kvk_request *request = &item->request;
	struct kvk_object_info info = { 0 };
	bool there = request->outcome == KVK_OUTCOME_WRITTEN || request->outcome == KVK_OUTCOME_FOUND;

	if (there)
		kvk_item_info(item, &info);
	info.published = request->outcome == KVK_OUTCOME_WRITTEN;
	/* Published and taken back again: that is charged until the medium has forgotten it. */
	if (request->published_bytes > 0 && !there)
		kvk_catalog_add_room(item->core->catalog, -(int64_t)kvk_page_ceil(request->published_bytes));
	kvk_catalog_put_end(item->core->catalog, request->id, there ? &info : NULL);
	account_put(item);
	count_put(item);
	if (request->outcome == KVK_OUTCOME_WRITTEN)
		kvk_event(item->core, KVK_EVENT_STORED, request);
}

/* It is present as far as is known, and the medium was asked to be sure. It had nothing reserved, and wrote nothing. */
static void settle_durable(struct kvk_item *item)
{
	struct kvk_request *request = &item->request;

	if (request->outcome == KVK_OUTCOME_FOUND && request->facts.durable)
		kvk_catalog_set_durable(item->core->catalog, request->id, &item->ticket);
	else if (request->outcome == KVK_OUTCOME_UNWRITTEN)
		kvk_catalog_lost(item->core->catalog, request->id, &item->ticket);
	kvk_item_unlinked(item);
	count_put(item);
}

/* There was no room to write it, but it may be there already: then nothing has to be written. */
static void settle_roomless(struct kvk_item *item)
{
	struct kvk_request *request = &item->request;
	struct kvk_object_info info;

	if (request->outcome == KVK_OUTCOME_FOUND) {
		kvk_item_info(item, &info);
		kvk_catalog_found(item->core->catalog, request->id, &item->ticket, &info, false);
		request->reason = KVK_REASON_PRESENT;
	} else if (item->started) {
		if (request->reason == KVK_REASON_ABSENT)
			kvk_catalog_lost(item->core->catalog, request->id, &item->ticket);
		request->status = -ENOSPC;
		request->reason = KVK_REASON_NO_ROOM;
	}
	kvk_item_unlinked(item);
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

/* What was said without asking the medium. */
static void settle_told(struct kvk_item *item)
{
	count_put(item);
}

static void tell(struct kvk_request *request)
{
	request->done(request);
	kvk_op_finish(&request->op);
}

static void route(struct kvk_item *item, enum kvk_op_class class, void (*start)(struct kvk_request *request),
		  void (*settle)(struct kvk_item *item))
{
	item->request.op.class = class;
	item->start = start;
	item->settle = settle;
}

static void route_told(struct kvk_item *item, int status, enum kvk_reason reason)
{
	item->request.status = status;
	item->request.reason = reason;
	if (reason == KVK_REASON_PRESENT)
		item->request.outcome = KVK_OUTCOME_FOUND;
	route(item, KVK_OP_LIGHT, tell, settle_told);
}

/* Asks the medium for it: present there, it needs no room. Where objects are durable it is proven whole, and synced. */
static void route_roomless(struct kvk_item *item)
{
	kvk_catalog_look(item->core->catalog, item->request.id, false, false, &item->ticket, NULL);
	if (item->core->superblock.durability == KVK_DURABILITY_OBJECT) {
		item->request.judge_first = true;
		route(item, KVK_OP_WRITE, start_put, settle_roomless);
	} else {
		item->request.keep = true;
		route(item, KVK_OP_LIGHT, start_find, settle_roomless);
	}
}

/* Whether what the catalog says of a present object answers a put. */
static bool is_enough(const struct kvk_core *core, bool durable)
{
	return kvk_ids_are_keys(core) && (durable || core->superblock.durability != KVK_DURABILITY_OBJECT);
}

/* It is present, but not known to be as durable as it shall be, or to be this key's: the medium is asked. */
static void route_durable(struct kvk_item *item)
{
	kvk_catalog_look(item->core->catalog, item->request.id, false, false, &item->ticket, NULL);
	item->request.judge_first = true;
	route(item, KVK_OP_WRITE, start_put, settle_durable);
}

bool kvk_put_retry(struct kvk_item *item, int refusal)
{
	struct kvk_core *core = item->core;
	bool durable = false;
	int err = kvk_catalog_put_begin(core->catalog, item->request.id, item->charge_bytes, &durable);

	switch (err) {
	case 0:
		item->request.judge_first = false;
		route(item, KVK_OP_WRITE, start_put, settle_put);
		return true;
	case -EEXIST:
		if (is_enough(core, durable)) {
			item->request.facts.logical_bytes = item->request.data_bytes;
			route_told(item, 0, KVK_REASON_PRESENT);
		} else {
			route_durable(item);
		}
		return true;
	case -EALREADY:
	case -EBUSY:
		route_told(item, -EALREADY, KVK_REASON_BUSY);
		return true;
	case -ENOSPC:
		if (!refusal)
			return false;
		if (refusal == -ENOSPC)
			route_roomless(item);
		else
			route_told(item, refusal, refusal == -EAGAIN ? KVK_REASON_SCANNING : kvk_reason_of(refusal));
		return true;
	default:
		route_told(item, err, KVK_REASON_NO_MEMORY);
		return true;
	}
}

/* ---- room after all ----------------------------------------------------------------------------- */

/* Others that were under way may take the run that was made for it; so often it is made again. */
#define RUN_TRIES_MAX 8
/* Others may put and remove it while it waits; so often it is looked for again. */
#define TRIES_MAX 3

void kvk_put_refuse(struct kvk_item *item, int status)
{
	route_told(item, status, status == -EAGAIN ? KVK_REASON_SCANNING : kvk_reason_of(status));
}

bool kvk_put_wants_room(const struct kvk_item *item)
{
	switch (item->request.outcome) {
	case KVK_OUTCOME_NO_RUN:
		return item->settle == settle_put && item->core->spec.policy != KVK_POLICY_NOOP &&
		       item->run_tries < RUN_TRIES_MAX;
	case KVK_OUTCOME_UNWRITTEN:
		return item->settle == settle_durable && item->tries < TRIES_MAX;
	default:
		return false;
	}
}

bool kvk_put_waits_again(struct kvk_item *item)
{
	struct kvk_core *core = item->core;
	struct kvk_request *request = &item->request;

	item->again = false;
	if (kvk_op_answered(&request->op))
		return false;
	/* What it reserved is free again, and what of its key's was damaged is gone; or it is not what was said to be present. */
	if (request->outcome == KVK_OUTCOME_NO_RUN) {
		kvk_catalog_put_end(core->catalog, request->id, NULL);
		item->run_tries++;
	} else {
		kvk_catalog_lost(core->catalog, request->id, &item->ticket);
		item->tries++;
	}
	kvk_item_unlinked(item);
	kvk_account_leave(core->account, item->entered);
	item->started = false;
	item->settle = settle_told;
	request->status = 0;
	request->reason = KVK_REASON_NONE;
	request->outcome = KVK_OUTCOME_NONE;
	request->unlinked_bytes = 0;
	request->facts = (struct kvk_facts){ 0 };
	if (!atomic_load(&request->op.canceled) && kvk_waiting_add_again(core, item))
		return true;
	kvk_op_answer(&request->op, -ECANCELED);
	return false;
}

/* ---- beginning ---------------------------------------------------------------------------------- */

/* Returns the item if a lane has to do it, or NULL when its answer is set, or when it waits (*waits_ret). */
static struct kvk_item *begin_put(struct kvk_core *core, struct kvk_task *task, uint32_t index,
				  const struct kvk_put_item *from, uint64_t deadline_us, struct kvk_arena *arena,
				  bool *waits_ret)
{
	struct kvk_answer *answer = &task->answers[index];
	struct kvk_request probe = {
		.adapter = core->adapter, .meta_bytes = from->meta_bytes, .key_bytes = from->key.bytes,
	};
	struct kvk_identity identity;
	uint64_t data_bytes = 0, charge_bytes;
	struct kvk_item *item;
	struct kvk_request *request;
	bool durable = false;
	int err;

	for (uint32_t i = 0; i < from->data_count; i++)
		data_bytes += from->data[i].iov_len;
	kvk_count(&core->counts.puts);
	answer->user = from->user;
	err = kvk_core_identify(core, &identity, &from->key);
	if (err) {
		kvk_answer_set(answer, err, KVK_REASON_NO_MEMORY);
		return NULL;
	}
	charge_bytes = core->adapter->ops->charge(&probe, data_bytes);
	/* Nothing is evicted for it. */
	if (core->adapter->charge_max_bytes && charge_bytes > core->adapter->charge_max_bytes) {
		kvk_count(&core->counts.put_failed);
		kvk_answer_set(answer, -EFBIG, KVK_REASON_ARGUMENT);
		return NULL;
	}
	err = kvk_catalog_put_begin(core->catalog, identity.id, charge_bytes, &durable);
	switch (err) {
	case 0:
		/* Others wait: what it took is theirs first, and nothing new begins before them (room.c counts on it). Looked at after
		 * it reserved, so that the room thread sees the one or we the other. */
		if (kvk_waiting_is_any(core)) {
			kvk_catalog_put_end(core->catalog, identity.id, NULL);
			err = -ENOSPC;
			break;
		}
		kvk_room_mind(core);
		break;
	case -ENOSPC:
		break;
	case -EEXIST:
		if (!is_enough(core, durable))
			break;
		kvk_count(&core->counts.put_present);
		answer->object_bytes = data_bytes;
		kvk_answer_set(answer, 0, KVK_REASON_PRESENT);
		return NULL;
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

	item = kvk_item_begin(core, task, index, KVK_OP_WRITE, deadline_us, start_put, settle_put);
	item->charge_bytes = charge_bytes;
	item->alters = true;
	request = &item->request;
	kvk_item_identify(item, &identity);
	request->data = kvk_arena_copy(arena, from->data, from->data_count * sizeof(*from->data));
	request->data_count = from->data_count;
	request->data_bytes = data_bytes;
	request->key = kvk_arena_copy(arena, from->key.data, from->key.bytes);
	request->key_bytes = from->key.bytes;
	request->meta = kvk_arena_copy(arena, from->meta, from->meta_bytes);
	request->meta_bytes = from->meta_bytes;
	request->depth = from->depth;
	request->held = from->flags & KVK_MEM_HELD;
	/* Out of memory in the hash: the object is stored without its parent, which is only a hint. */
	set_parent(item, &from->parent);
	if (err == -EEXIST) {
		route_durable(item);
	} else if (err == -ENOSPC) {
		item->settle = settle_told;
		*waits_ret = true;
		kvk_waiting_add(core, item);
		return NULL;
	}
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
		bool waits = false;
		struct kvk_item *item = begin_put(core, task, i, kvk_item_at(items, i), until_us, &arena, &waits);

		arena.next = (uint8_t *)(((uintptr_t)arena.next + 7) & ~(uintptr_t)7);
		later[i] = item != NULL || waits;
		if (item)
			kvk_list_push(&ops, &item->request.op.link);
	}
	kvk_answers_now(core, task, later);
	return kvk_task_submit(core, task, &ops, ret);
}
