/* SPDX-License-Identifier: Apache-2.0 */
#include "store/item.h"

#include <errno.h>
#include <string.h>

#include "util/alloc.h"
#include "util/clock.h"

/* ---- tasks -------------------------------------------------------------------------------------- */

static void tasks_link(struct kvk_core *core, struct kvk_task *task)
{
	pthread_mutex_lock(&core->tasks_lock);
	kvk_list_push(&core->tasks, &task->link);
	pthread_mutex_unlock(&core->tasks_lock);
}

static void tasks_unlink(struct kvk_core *core, struct kvk_task *task)
{
	pthread_mutex_lock(&core->tasks_lock);
	kvk_list_remove(&task->link);
	pthread_mutex_unlock(&core->tasks_lock);
}

int kvk_task_begin(struct kvk_core *core, enum kvk_queue queue, uint32_t count, uint64_t arena_bytes,
		   bool with_items, struct kvk_waiter *waiter, struct kvk_task **ret, struct kvk_arena *arena)
{
	struct kvk_task *task;
	uint64_t under_way;
	int err = kvk_core_check(core);

	if (err)
		return err;
	under_way = atomic_load_explicit(&core->items, memory_order_relaxed);
	/* One batch is always let through, whatever its size. */
	if (with_items && under_way > 0 && under_way + count > core->spec.max_items)
		return -EAGAIN;
	task = kvk_task_new(&core->queues[queue], count);
	if (!task)
		return -ENOMEM;
	if (with_items && (err = kvk_task_add_items(task, arena_bytes, arena))) {
		kvk_task_drop(task);
		return err;
	}
	task->id = atomic_fetch_add_explicit(&core->next_task, 1, memory_order_relaxed) + 1;
	task->waiter = waiter;
	*ret = task;
	return 0;
}

int kvk_task_add_items(struct kvk_task *task, uint64_t arena_bytes, struct kvk_arena *arena)
{
	uint64_t items_bytes = task->count * sizeof(struct kvk_item);

	task->items = kvk_mem_alloc(items_bytes + arena_bytes);
	if (!task->items)
		return -ENOMEM;
	arena->next = (uint8_t *)task->items + items_bytes;
	arena->end = arena->next + arena_bytes;
	return 0;
}

int64_t kvk_task_submit(struct kvk_core *core, struct kvk_task *task, struct kvk_link *ops,
			struct kvk_task **ret)
{
	int64_t id = task->id;

	if (!kvk_list_empty(ops))
		kvk_agent_submit(core->agent, ops);
	if (ret)
		*ret = task;
	else
		kvk_task_drop(task);
	return id;
}

int kvk_core_cancel(struct kvk_core *core, int64_t id)
{
	struct kvk_task *task = NULL;
	struct kvk_link *link;

	pthread_mutex_lock(&core->tasks_lock);
	for (link = core->tasks.next; link != &core->tasks && !task; link = link->next) {
		if (kvk_container_of(link, struct kvk_task, link)->id == id) {
			task = kvk_container_of(link, struct kvk_task, link);
			kvk_task_hold(task);
		}
	}
	pthread_mutex_unlock(&core->tasks_lock);
	if (!task)
		return -ENOENT;
	atomic_store(&task->canceled, true);
	kvk_waiting_end(core, task, 0);
	kvk_agent_cancel(core->agent, task);
	kvk_task_drop(task);
	return 0;
}

void *kvk_arena_copy(struct kvk_arena *arena, const void *data, uint64_t bytes)
{
	void *copy = arena->next;

	if (bytes)
		memcpy(copy, data, bytes);
	arena->next += bytes;
	return copy;
}

/* ---- answers ------------------------------------------------------------------------------------ */

void kvk_answer_set(struct kvk_answer *answer, int status, enum kvk_reason reason)
{
	answer->status = status;
	answer->reason = reason;
}

void kvk_answers_hand_over(struct kvk_core *core, struct kvk_task *task, uint32_t first, uint32_t last)
{
	if (kvk_answers_give(task, first, last))
		tasks_unlink(core, task);
}

void kvk_answers_now(struct kvk_core *core, struct kvk_task *task, const bool *later)
{
	uint32_t first = 0, at;

	if (later) {
		for (at = 0; at < task->count; at++) {
			if (!later[at])
				continue;
			kvk_answers_hand_over(core, task, first, at);
			first = at + 1;
		}
	}
	kvk_answers_hand_over(core, task, first, task->count);
}

void kvk_event(struct kvk_core *core, enum kvk_event_kind kind, const struct kvk_request *request)
{
	kvk_notices_event(&core->notices, kind, request->key, request->key_bytes);
}

/* ---- items -------------------------------------------------------------------------------------- */

static void item_start(struct kvk_op *op)
{
	struct kvk_item *item = kvk_container_of(op, struct kvk_item, request.op);
	void (*start)(struct kvk_request *request) = item->start;

	item->started = true;
	if (item->alters)
		item->entered = kvk_account_enter(item->core->account);
	start(&item->request);
}

static uint32_t late_reason(int status)
{
	return status == -ETIMEDOUT ? KVK_REASON_DEADLINE
	     : status == -EHOSTDOWN ? KVK_REASON_DEGRADED : KVK_REASON_CANCELED;
}

/*
 * Runs once, on whichever thread was first. What comes from the adapter is in the request; what comes from the agent
 * (a deadline, a cancel, a medium that hangs) is only the status, and the request may still change.
 */
static void item_answer(struct kvk_op *op, int status)
{
	struct kvk_item *item = kvk_container_of(op, struct kvk_item, request.op);
	struct kvk_answer *answer = item->answer;
	struct kvk_core *core = item->core;
	struct kvk_request *request = &item->request;
	bool late = status == -ETIMEDOUT || status == -ECANCELED || status == -EHOSTDOWN;
	struct kvk_task *task = answer->task;

	answer->status = status == -EHOSTDOWN ? -EIO : status;
	answer->reason = late ? late_reason(status) : request->reason;
	if (!late) {
		answer->bytes = item->answer_bytes;
		answer->object_bytes = request->facts.logical_bytes;
		answer->meta_bytes = request->facts.meta_bytes;
		if (item->meta_to && status == 0) {
			uint32_t bytes = request->facts.meta_bytes < item->meta_room ? request->facts.meta_bytes
										      : item->meta_room;

			memcpy(item->meta_to, request->facts.meta, bytes);
		}
	} else {
		if (status != -EHOSTDOWN)
			kvk_count(status == -ECANCELED ? &core->counts.canceled : &core->counts.deadlines);
		if (request->held && item->started) {
			answer->flags |= KVK_RESULT_HELD;
			item->hangs = true;
			atomic_fetch_add(&core->held_items, 1);
		}
		if (status == -ETIMEDOUT || status == -EHOSTDOWN)
			kvk_core_trouble(core, status);
	}
	/* It must be loud if somebody uses what was not proven. */
	if (status < 0 && request->dirty)
		kvk_memory_fill(request->data, request->data_count, 0xdb);
	kvk_task_hold(task);
	kvk_answers_hand_over(core, task, answer->index, answer->index + 1);
	kvk_task_drop(task);
}

static void item_finished(struct kvk_op *op)
{
	struct kvk_item *item = kvk_container_of(op, struct kvk_item, request.op);
	struct kvk_core *core = item->core;
	struct kvk_task *task = item->answer->task;

	if (item->placing)
		kvk_waiting_placed(core, item);
	if (item->again && kvk_put_waits_again(item))
		return;
	if (!item->settled)
		item->settle(item);
	if (item->alters && item->started)
		kvk_account_leave(core->account, item->entered);
	if (item->removes)
		atomic_fetch_sub(&core->removing, 1);
	if (item->alters)
		kvk_waiting_altered(core);
	if (item->hangs) {
		if (item->request.deliver)
			kvk_memory_fill(item->request.data, item->request.data_count, 0xdb);
		kvk_answer_release_memory(item->answer);
		atomic_fetch_sub(&core->held_items, 1);
	}
	atomic_fetch_sub_explicit(&core->items, 1, memory_order_relaxed);
	kvk_task_drop(task);
}

/* The adapter knows the answer. */
static void item_done(struct kvk_request *request)
{
	struct kvk_item *item = kvk_item_of(request);

	item->again = kvk_put_wants_room(item);
	if (item->again)
		return;
	if (request->reason == KVK_REASON_MEDIUM || request->reason == KVK_REASON_NOT_DURABLE)
		kvk_core_trouble(item->core, request->status);
	item->settled = true;
	item->settle(item);
	if (!kvk_op_answer(&request->op, request->status) && item->undo)
		item->undo(item);
}

struct kvk_item *kvk_item_begin(struct kvk_core *core, struct kvk_task *task, uint32_t index,
				enum kvk_op_class class, uint64_t deadline_us,
				void (*start)(struct kvk_request *request), void (*settle)(struct kvk_item *item))
{
	struct kvk_item *item = (struct kvk_item *)task->items + index;

	memset(item, 0, sizeof(*item));
	item->core = core;
	item->answer = &task->answers[index];
	item->start = start;
	item->settle = settle;
	item->request.adapter = core->adapter;
	item->request.done = item_done;
	kvk_op_init(&item->request.op, class, deadline_us, task);
	item->request.op.start = item_start;
	item->request.op.answer = item_answer;
	item->request.op.finished = item_finished;
	kvk_task_hold(task);
	if (kvk_list_empty(&task->link) && task->unanswered > 0)
		tasks_link(core, task);
	atomic_fetch_add_explicit(&core->items, 1, memory_order_relaxed);
	return item;
}

uint64_t kvk_deadline(const struct kvk_core *core, uint64_t deadline_us)
{
	uint64_t now_us = kvk_now_us(), wait_us = deadline_us ? deadline_us : core->spec.deadline_us;

	return wait_us > UINT64_MAX / 2 ? UINT64_MAX / 2 : now_us + wait_us;
}

int kvk_core_digest(const struct kvk_core *core, uint8_t digest[KVK_DIGEST_BYTES], const struct kvk_key *key)
{
	return kvk_key_digest(digest, core->spec.namespace_digest, key->data, key->bytes);
}

int kvk_core_identify(const struct kvk_core *core, struct kvk_identity *ret, const struct kvk_key *key)
{
	const struct kvk_layout *layout = &core->superblock.layout;
	int err = kvk_core_digest(core, ret->digest, key);

	if (err)
		return err;
	if (layout->naming != KVK_NAMING_KVKEEP)
		err = kvk_key_id(ret->id, layout, ret->digest, key->data, key->bytes);
	/* A key that has no name here has no file either: the adapter says so. */
	if (layout->naming == KVK_NAMING_KVKEEP || (err && err != -ENOMEM)) {
		memcpy(ret->id, ret->digest, KVK_DIGEST_BYTES);
		err = 0;
	}
	return err;
}

void kvk_item_identify(struct kvk_item *item, const struct kvk_identity *identity)
{
	memcpy(item->request.digest, identity->digest, KVK_DIGEST_BYTES);
	memcpy(item->request.id, identity->id, KVK_DIGEST_BYTES);
}

void kvk_item_info(const struct kvk_item *item, struct kvk_object_info *info)
{
	const struct kvk_request *request = &item->request;
	struct kvk_key_fields fields = { .struct_bytes = sizeof(fields) };
	struct kvk_key key = { .data = request->key, .bytes = request->key_bytes };
	uint8_t hash[KVK_KEY_BYTES_MAX / 2];

	*info = (struct kvk_object_info){
		.logical_bytes = request->facts.logical_bytes,
		.charge_bytes = kvk_page_ceil(request->facts.stored_bytes),
		.durable = request->facts.durable,
	};
	memcpy(info->parent_digest, request->facts.parent_digest, KVK_DIGEST_BYTES);
	if (!key.data || kvk_key_decode(&fields, &key, hash, sizeof(hash)))
		return;
	info->tenant = fields.salt.data;
	info->tenant_bytes = fields.salt.bytes;
	info->model = fields.model.data;
	info->model_bytes = fields.model.bytes;
}
