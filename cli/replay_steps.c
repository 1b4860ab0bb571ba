/* SPDX-License-Identifier: Apache-2.0 */
#include "replay_worker.h"

#include <errno.h>
#include <string.h>

#include "cli.h"
#include "payload.h"

/* Answers that come while a piece is being worked on are seen, and timed, only after it: 0.1 ms at 10 GB/s. */
#define WORK_BYTES (UINT64_C(1) << 20)

/* How a lookup's and an unpin's answers find their request. */
#define USER_UNPIN UINT64_C(1)

static void op_begin(struct kvk_worker *worker, enum kvk_replay_op op, uint64_t count, uint64_t now_ns)
{
	if (worker->under_way[op] == 0)
		worker->busy_since_ns[op] = now_ns;
	worker->under_way[op] += count;
}

static void op_end(struct kvk_worker *worker, enum kvk_replay_op op, uint64_t now_ns)
{
	if (--worker->under_way[op] == 0)
		worker->shared->ops[op].busy_ns += now_ns - worker->busy_since_ns[op];
}

static void op_failed(struct kvk_worker *worker, enum kvk_replay_op op, const struct kvk_slot *slot,
		      uint32_t position, const struct kvk_result *result)
{
	static const char *const names[KVK_REPLAY_OPS] = { "lookup", "load", "store" };
	uint32_t reason = result->reason < KVK_REPLAY_REASONS ? result->reason : 0;

	worker->shared->ops[op].failed[reason]++;
	kvk_replay_fault(worker->replay, "request %llu, block %u: %s: %s (%s)", (unsigned long long)slot->request,
			 position, names[op], kvk_cli_result_text(result), strerror(-result->status));
}

/* What came of a submission: true if it was taken. */
static bool submitted(struct kvk_worker *worker, int64_t task)
{
	if (task > 0)
		return true;
	if (task == -EAGAIN || task == -ENOMEM) {
		worker->again = true;
		worker->shared->submit_again++;
	} else {
		worker->error = (int)task;
	}
	return false;
}

static struct kvk_buffer *take_buffer(struct kvk_worker *worker, struct kvk_slot *slot, uint32_t position)
{
	struct kvk_buffer *buffer = worker->free_buffers;

	if (!buffer)
		return NULL;
	worker->free_buffers = buffer->next;
	buffer->slot = slot;
	buffer->position = position;
	buffer->offset = 0;
	buffer->next = NULL;
	return buffer;
}

static void give_buffer(struct kvk_worker *worker, struct kvk_buffer *buffer)
{
	buffer->slot = NULL;
	buffer->next = worker->free_buffers;
	worker->free_buffers = buffer;
}

static void queue_work(struct kvk_worker *worker, struct kvk_buffer *buffer, bool check)
{
	buffer->check = check;
	buffer->offset = 0;
	buffer->next = NULL;
	*worker->work_end = buffer;
	worker->work_end = &buffer->next;
}

/* ---- steps ---- */

static void key_item(struct kvk_key_item *item, const struct kvk_slot *slot, uint32_t position, uint32_t flags,
		     uint64_t user)
{
	*item = (struct kvk_key_item){
		.struct_bytes = sizeof(*item),
		.flags = flags,
		.key = { slot->keys[position], slot->key_bytes },
		.user = user,
	};
}

static bool step_ask(struct kvk_worker *worker, struct kvk_slot *slot)
{
	for (uint32_t i = 0; i < slot->count; i++)
		key_item(&worker->key_items[i], slot, i, KVK_LOOKUP_PIN, (uint64_t)slot->index << 1);
	slot->submit_ns = kvk_cli_now_ns();
	if (!submitted(worker, kvk_store_lookup(worker->store, worker->key_items, slot->count, 0)))
		return false;
	slot->outstanding = slot->count;
	op_begin(worker, KVK_REPLAY_LOOKUP, 1, slot->submit_ns);
	slot->state = KVK_SLOT_ASKING;
	return true;
}

/* A buffer may hold the very block that is to be loaded, from a request before: a load that does nothing must show. */
static void spoil(struct kvk_worker *worker, struct kvk_buffer *buffer)
{
	uint64_t begin_ns = kvk_thread_cpu_ns();

	/* Payloads have no word of zeros. */
	for (uint64_t at = 0; at + sizeof(uint64_t) <= worker->replay->object_bytes; at += KVK_PAYLOAD_BLOCK_BYTES)
		memset((char *)buffer->memory + at, 0, sizeof(uint64_t));
	worker->shared->check_cpu_ns += kvk_thread_cpu_ns() - begin_ns;
}

static bool step_load(struct kvk_worker *worker, struct kvk_slot *slot)
{
	uint32_t count = 0, flags = worker->replay->held ? KVK_MEM_HELD : 0;
	struct kvk_buffer *buffer;
	uint64_t now_ns;

	while (slot->next + count < slot->hits && (buffer = take_buffer(worker, slot, slot->next + count))) {
		spoil(worker, buffer);
		worker->pieces[count] = (struct iovec){ buffer->memory, worker->replay->object_bytes };
		worker->get_items[count] = (struct kvk_get_item){
			.struct_bytes = sizeof(worker->get_items[0]),
			.flags = flags,
			.key = { slot->keys[buffer->position], slot->key_bytes },
			.data = &worker->pieces[count],
			.data_count = 1,
			.user = (uint64_t)(buffer - worker->buffers),
		};
		count++;
	}
	now_ns = kvk_cli_now_ns();
	if (count && !submitted(worker, kvk_store_get(worker->store, worker->get_items, count, 0))) {
		while (count)
			give_buffer(worker, &worker->buffers[worker->get_items[--count].user]);
		return false;
	}
	for (uint32_t i = 0; i < count; i++)
		worker->buffers[worker->get_items[i].user].submit_ns = now_ns;
	op_begin(worker, KVK_REPLAY_LOAD, count, now_ns);
	slot->next += count;
	slot->outstanding += count;
	if (slot->next < slot->hits || slot->outstanding)
		return count > 0;
	for (slot->next = 0; slot->next < slot->hits && slot->found[slot->next]; slot->next++)
		;
	slot->hits = slot->next;
	slot->next = 0;
	slot->state = KVK_SLOT_STORE;
	return true;
}

/* One batch of what was filled. The model hears of it first: from here on a kill leaves the outcome open. */
static bool submit_put(struct kvk_worker *worker, struct kvk_slot *slot)
{
	uint32_t count = 0, flags = worker->replay->held ? KVK_MEM_HELD : 0;
	uint64_t now_ns;

	for (struct kvk_buffer *buffer = slot->filled; buffer; buffer = buffer->next, count++) {
		uint32_t position = buffer->position;

		worker->replay->model.states[slot->blocks[position]] = KVK_MODEL_WRITING;
		worker->pieces[count] = (struct iovec){ buffer->memory, worker->replay->object_bytes };
		worker->put_items[count] = (struct kvk_put_item){
			.struct_bytes = sizeof(worker->put_items[0]),
			.flags = flags,
			.key = { slot->keys[position], slot->key_bytes },
			.data = &worker->pieces[count],
			.data_count = 1,
			.depth = position,
			.user = (uint64_t)(buffer - worker->buffers),
		};
		if (position > 0)
			worker->put_items[count].parent =
				(struct kvk_key){ slot->keys[position - 1], slot->key_bytes };
	}
	now_ns = kvk_cli_now_ns();
	if (!submitted(worker, kvk_store_put(worker->store, worker->put_items, count, 0)))
		return false;
	for (struct kvk_buffer *buffer = slot->filled; buffer; buffer = buffer->next)
		buffer->submit_ns = now_ns;
	slot->filled = NULL;
	slot->filled_end = &slot->filled;
	slot->outstanding += count;
	op_begin(worker, KVK_REPLAY_STORE, count, now_ns);
	return true;
}

static bool step_store(struct kvk_worker *worker, struct kvk_slot *slot)
{
	uint32_t taken = 0;

	if (slot->filling)
		return false;
	if (slot->filled)
		return submit_put(worker, slot);
	for (; slot->next < slot->count; slot->next++) {
		struct kvk_buffer *buffer;

		if (slot->found[slot->next])
			continue;
		buffer = take_buffer(worker, slot, slot->next);
		if (!buffer)
			break;
		queue_work(worker, buffer, false);
		taken++;
	}
	slot->filling += taken;
	if (taken || slot->outstanding || slot->next < slot->count)
		return taken > 0;
	slot->state = KVK_SLOT_UNPIN;
	return true;
}

static bool step_unpin(struct kvk_worker *worker, struct kvk_slot *slot)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < slot->count; i++) {
		if (slot->pinned[i])
			key_item(&worker->key_items[count++], slot, i, 0,
				 (uint64_t)slot->index << 1 | USER_UNPIN);
	}
	if (count == 0) {
		kvk_worker_finish(worker, slot);
		return true;
	}
	if (!submitted(worker, kvk_store_unpin(worker->store, worker->key_items, count)))
		return false;
	slot->outstanding = count;
	slot->state = KVK_SLOT_UNPINNING;
	return true;
}

bool kvk_slot_step(struct kvk_worker *worker, struct kvk_slot *slot)
{
	switch (slot->state) {
	case KVK_SLOT_ASK:
		return step_ask(worker, slot);
	case KVK_SLOT_LOAD:
		return step_load(worker, slot);
	case KVK_SLOT_STORE:
		return step_store(worker, slot);
	case KVK_SLOT_UNPIN:
		return step_unpin(worker, slot);
	case KVK_SLOT_FREE:
	case KVK_SLOT_ASKING:
	case KVK_SLOT_UNPINNING:
		return false;
	}
	return false;
}

/* ---- answers ---- */

/* All answers of a lookup are there: the model learns what it could not know, then it is asked, then compared. */
static void asked(struct kvk_worker *worker, struct kvk_slot *slot)
{
	struct kvk_model *model = &worker->replay->model;

	for (uint32_t i = 0; i < slot->count; i++) {
		uint8_t state = model->states[slot->blocks[i]];

		if (state != KVK_MODEL_UNKNOWN && state != KVK_MODEL_UNASKED)
			continue;
		if (slot->found[i])
			(*(state == KVK_MODEL_UNKNOWN ? &worker->shared->unacknowledged_found :
							&worker->shared->found_before))++;
		kvk_model_learn(model, slot->blocks[i], slot->found[i]);
	}
	slot->model_hits = kvk_model_hits(model, slot->blocks, slot->count);
	for (uint32_t i = 0; i < slot->count; i++) {
		if (kvk_model_learn(model, slot->blocks[i], slot->found[i]))
			continue;
		worker->shared->disagreements++;
		kvk_replay_fault(worker->replay, "request %llu, block %u: the store says %s, the model says %s",
				 (unsigned long long)slot->request, i,
				 slot->found[i] ? "present" : kvk_reason_text(slot->reasons[i]),
				 slot->found[i] ? "absent" : "stored");
	}
	while (slot->hits < slot->count && slot->found[slot->hits])
		slot->hits++;
	slot->state = KVK_SLOT_LOAD;
}

static void answer_lookup(struct kvk_worker *worker, const struct kvk_result *result, uint64_t now_ns)
{
	struct kvk_slot *slot = &worker->slots[result->user >> 1];

	if (result->user & USER_UNPIN) {
		if (--slot->outstanding == 0)
			kvk_worker_finish(worker, slot);
		return;
	}
	slot->reasons[result->item] = (uint8_t)result->reason;
	if (!result->status)
		slot->found[result->item] = slot->pinned[result->item] = true;
	else if (result->status != -ENOENT)
		op_failed(worker, KVK_REPLAY_LOOKUP, slot, result->item, result);
	if (--slot->outstanding)
		return;
	kvk_hist_add(&worker->shared->ops[KVK_REPLAY_LOOKUP].latency, now_ns - slot->submit_ns);
	worker->shared->ops[KVK_REPLAY_LOOKUP].items += slot->count;
	op_end(worker, KVK_REPLAY_LOOKUP, now_ns);
	asked(worker, slot);
}

/* A hung medium may keep the memory: then it comes back with the release, and nobody may use it until then. */
static void end_with_buffer(struct kvk_worker *worker, struct kvk_buffer *buffer, const struct kvk_result *result)
{
	buffer->slot->outstanding--;
	if (result->flags & KVK_RESULT_HELD)
		buffer->slot = NULL;
	else
		give_buffer(worker, buffer);
}

static void answer_load(struct kvk_worker *worker, const struct kvk_result *result, uint64_t now_ns)
{
	struct kvk_replay_op_stats *stats = &worker->shared->ops[KVK_REPLAY_LOAD];
	struct kvk_buffer *buffer = &worker->buffers[result->user];
	struct kvk_slot *slot = buffer->slot;

	op_end(worker, KVK_REPLAY_LOAD, now_ns);
	if (result->status || result->bytes != worker->replay->object_bytes) {
		op_failed(worker, KVK_REPLAY_LOAD, slot, buffer->position, result);
		slot->found[buffer->position] = false;
		worker->replay->model.states[slot->blocks[buffer->position]] = KVK_MODEL_UNKNOWN;
		end_with_buffer(worker, buffer, result);
		return;
	}
	if (!worker->loaded && now_ns - worker->open_ns > worker->shared->first_load_ns_most)
		worker->shared->first_load_ns_most = now_ns - worker->open_ns;
	worker->loaded = true;
	kvk_hist_add(&stats->latency, now_ns - buffer->submit_ns);
	stats->items++;
	stats->bytes += result->bytes;
	queue_work(worker, buffer, true);
}

static void answer_store(struct kvk_worker *worker, const struct kvk_result *result, uint64_t now_ns)
{
	struct kvk_replay_op_stats *stats = &worker->shared->ops[KVK_REPLAY_STORE];
	struct kvk_buffer *buffer = &worker->buffers[result->user];
	uint8_t *state = &worker->replay->model.states[buffer->slot->blocks[buffer->position]];

	op_end(worker, KVK_REPLAY_STORE, now_ns);
	if (!result->status) {
		*state = KVK_MODEL_STORED;
		kvk_hist_add(&stats->latency, now_ns - buffer->submit_ns);
		stats->items++;
		if (result->reason == KVK_REASON_PRESENT)
			worker->shared->present++;
		else
			stats->bytes += result->bytes;
	} else if (result->reason == KVK_REASON_NO_ROOM) {
		*state = KVK_MODEL_ABSENT;
		worker->shared->no_room++;
	} else {
		/* It may have been published and only then have failed to become durable. */
		*state = result->reason == KVK_REASON_NOT_DURABLE ? KVK_MODEL_UNKNOWN : KVK_MODEL_ABSENT;
		op_failed(worker, KVK_REPLAY_STORE, buffer->slot, buffer->position, result);
	}
	end_with_buffer(worker, buffer, result);
}

void kvk_worker_answer(struct kvk_worker *worker, enum kvk_queue queue, const struct kvk_result *result,
		       uint64_t now_ns)
{
	if (result->flags & KVK_RESULT_RELEASE)
		give_buffer(worker, &worker->buffers[result->user]);
	else if (queue == KVK_QUEUE_LOOKUP)
		answer_lookup(worker, result, now_ns);
	else if (queue == KVK_QUEUE_GET)
		answer_load(worker, result, now_ns);
	else
		answer_store(worker, result, now_ns);
}

/* ---- payloads ---- */

static void work_done(struct kvk_worker *worker, struct kvk_buffer *buffer)
{
	struct kvk_slot *slot = buffer->slot;

	worker->work = buffer->next;
	if (!worker->work)
		worker->work_end = &worker->work;
	if (buffer->check) {
		slot->outstanding--;
		give_buffer(worker, buffer);
		return;
	}
	slot->filling--;
	buffer->next = NULL;
	*slot->filled_end = buffer;
	slot->filled_end = &buffer->next;
}

void kvk_worker_do_work(struct kvk_worker *worker)
{
	struct kvk_buffer *buffer = worker->work;
	uint64_t begin_ns = kvk_thread_cpu_ns(), left = worker->replay->object_bytes - buffer->offset;
	uint64_t bytes = left < WORK_BYTES ? left : WORK_BYTES, name = buffer->slot->names[buffer->position];
	char *at = (char *)buffer->memory + buffer->offset;

	if (buffer->check) {
		uint64_t first = 0, wrong = kvk_payload_wrong(at, bytes, name, buffer->offset, &first);

		if (wrong) {
			worker->shared->wrong_bytes += wrong;
			kvk_replay_fault(worker->replay, "request %llu, block %u: %llu WRONG BYTES from %llu on",
					 (unsigned long long)buffer->slot->request, buffer->position,
					 (unsigned long long)wrong, (unsigned long long)first);
		}
	} else {
		kvk_payload_fill(at, bytes, name, buffer->offset);
	}
	worker->shared->check_cpu_ns += kvk_thread_cpu_ns() - begin_ns;
	buffer->offset += bytes;
	if (buffer->offset == worker->replay->object_bytes)
		work_done(worker, buffer);
}
