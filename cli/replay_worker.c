/* SPDX-License-Identifier: Apache-2.0 */
#include "replay_worker.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "blockkey.h"
#include "cli.h"

#define RESULTS 256
#define PAGE 4096u

/* Resident from the start, as an engine's pool is: a page fault in the middle of a run is not the store's doing. */
static void *resident_pages(struct kvk_worker *worker, uint64_t bytes)
{
	uint64_t begin_ns = kvk_thread_cpu_ns();
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (memory == MAP_FAILED)
		return NULL;
	madvise(memory, bytes, MADV_DONTDUMP);
	worker->shared->check_cpu_ns += kvk_thread_cpu_ns() - begin_ns;
	return memory;
}

static int init_slots(struct kvk_worker *worker)
{
	uint32_t most = worker->replay->trace.blocks_most + 1;

	worker->slot_count = (uint32_t)worker->replay->concurrency;
	worker->slots = calloc(worker->slot_count, sizeof(*worker->slots));
	if (!worker->slots)
		return -ENOMEM;
	for (uint32_t i = 0; i < worker->slot_count; i++) {
		struct kvk_slot *slot = &worker->slots[i];

		slot->index = i;
		slot->keys = calloc(most, sizeof(*slot->keys));
		slot->names = calloc(most, sizeof(*slot->names));
		slot->found = calloc(most, sizeof(*slot->found));
		slot->reasons = calloc(most, sizeof(*slot->reasons));
		slot->pinned = calloc(most, sizeof(*slot->pinned));
		slot->claimed = calloc(most, sizeof(*slot->claimed));
		if (!slot->keys || !slot->names || !slot->found || !slot->reasons || !slot->pinned ||
		    !slot->claimed)
			return -ENOMEM;
	}
	worker->key_items = calloc(most, sizeof(*worker->key_items));
	worker->get_items = calloc(most, sizeof(*worker->get_items));
	worker->put_items = calloc(most, sizeof(*worker->put_items));
	worker->pieces = calloc(most, sizeof(*worker->pieces));
	worker->claims = calloc(worker->replay->trace.distinct_count + 1, 1);
	return worker->key_items && worker->get_items && worker->put_items && worker->pieces && worker->claims ?
		0 : -ENOMEM;
}

static int init_buffers(struct kvk_worker *worker)
{
	uint64_t bytes = (worker->replay->object_bytes + PAGE - 1) / PAGE * PAGE;
	uint64_t count = worker->replay->memory_bytes / bytes;
	uint64_t most = (uint64_t)worker->slot_count * (worker->replay->trace.blocks_most + 1u);

	if (count > most)
		count = most;
	worker->buffer_count = count ? (uint32_t)count : 1;
	worker->memory_bytes = worker->buffer_count * bytes;
	worker->memory = resident_pages(worker, worker->memory_bytes);
	worker->buffers = calloc(worker->buffer_count, sizeof(*worker->buffers));
	if (!worker->memory || !worker->buffers)
		return -ENOMEM;
	for (uint32_t i = worker->buffer_count; i-- > 0;) {
		worker->buffers[i].memory = (char *)worker->memory + i * bytes;
		worker->buffers[i].next = worker->free_buffers;
		worker->free_buffers = &worker->buffers[i];
	}
	worker->work_end = &worker->work;
	return 0;
}

static void release(struct kvk_worker *worker)
{
	for (uint32_t i = 0; worker->slots && i < worker->slot_count; i++) {
		struct kvk_slot *slot = &worker->slots[i];

		free(slot->keys);
		free(slot->names);
		free(slot->found);
		free(slot->reasons);
		free(slot->pinned);
		free(slot->claimed);
	}
	free(worker->slots);
	free(worker->key_items);
	free(worker->get_items);
	free(worker->put_items);
	free(worker->pieces);
	free(worker->claims);
	free(worker->buffers);
	if (worker->memory)
		munmap(worker->memory, worker->memory_bytes);
}

static void mark_done(struct kvk_worker *worker, uint64_t request, uint32_t hits, uint32_t model_hits)
{
	struct kvk_replay_request *result = &worker->replay->requests[request];

	result->hits = hits;
	result->model_hits = model_hits;
	atomic_store(&result->done, 1);
	atomic_fetch_add(&worker->shared->done, 1);
	if (write(worker->notify_fd, "", 1) != 1)
		worker->error = -errno;
}

void kvk_worker_finish(struct kvk_worker *worker, struct kvk_slot *slot)
{
	struct kvk_slot **link = &worker->active;

	for (uint32_t i = 0; i < slot->count; i++) {
		if (slot->claimed[i])
			worker->claims[slot->blocks[i]] = 0;
	}
	while (*link != slot)
		link = &(*link)->later;
	*link = slot->later;
	slot->state = KVK_SLOT_FREE;
	mark_done(worker, slot->request, slot->hits, slot->model_hits);
}

/* ---- beginning ---- */

static struct kvk_slot *free_slot(struct kvk_worker *worker)
{
	for (uint32_t i = 0; i < worker->slot_count; i++) {
		if (worker->slots[i].state == KVK_SLOT_FREE)
			return &worker->slots[i];
	}
	return NULL;
}

/*
 * What the model does not know to be stored, this request is going to store: requests after it that have such a
 * block wait, so that the order of the trace decides what is a hit, at any concurrency.
 */
static void begin_request(struct kvk_worker *worker, struct kvk_slot *slot, uint64_t number)
{
	const struct kvk_trace *trace = &worker->replay->trace;
	const struct kvk_trace_request *request = &trace->requests[number];
	struct kvk_slot **link = &worker->active;

	slot->request = number;
	slot->blocks = trace->blocks + request->first;
	slot->count = request->block_count;
	slot->hits = slot->model_hits = slot->next = slot->outstanding = slot->filling = 0;
	slot->filled = NULL;
	slot->filled_end = &slot->filled;
	for (uint32_t i = 0; i < slot->count; i++) {
		uint32_t block = slot->blocks[i];

		slot->key_bytes = kvk_block_key(slot->keys[i], "replay", trace->ids[block], worker->replay->seed,
						&slot->names[i]);
		slot->found[i] = slot->pinned[i] = false;
		slot->claimed[i] = worker->replay->model.states[block] != KVK_MODEL_STORED;
		if (slot->claimed[i])
			worker->claims[block] = 1;
	}
	while (*link)
		link = &(*link)->later;
	*link = slot;
	slot->later = NULL;
	slot->state = KVK_SLOT_ASK;
}

static bool must_wait(const struct kvk_worker *worker, const struct kvk_trace_request *request)
{
	const uint32_t *blocks = worker->replay->trace.blocks + request->first;

	for (uint32_t i = 0; i < request->block_count; i++) {
		if (worker->claims[blocks[i]])
			return true;
	}
	return false;
}

static bool begin_requests(struct kvk_worker *worker)
{
	const struct kvk_trace *trace = &worker->replay->trace;
	bool moved = false;

	for (; worker->next_request < trace->request_count; worker->next_request++) {
		const struct kvk_trace_request *request = &trace->requests[worker->next_request];
		struct kvk_slot *slot;

		if (atomic_load(&worker->replay->requests[worker->next_request].done))
			continue;
		if (request->block_count == 0) {
			mark_done(worker, worker->next_request, 0, 0);
			continue;
		}
		slot = free_slot(worker);
		if (!slot || must_wait(worker, request))
			break;
		begin_request(worker, slot, worker->next_request);
		moved = true;
	}
	return moved;
}

/* ---- the loop ---- */

static bool drain(struct kvk_worker *worker)
{
	static const enum kvk_queue queues[] = { KVK_QUEUE_LOOKUP, KVK_QUEUE_GET, KVK_QUEUE_PUT };
	struct kvk_result results[RESULTS];
	bool any = false;

	for (uint32_t i = 0; i < RESULTS; i++)
		results[i].struct_bytes = sizeof(results[i]);
	for (uint32_t q = 0; q < KVK_QUEUE_COUNT; q++) {
		int count;

		while ((count = kvk_store_drain(worker->store, queues[q], results, RESULTS)) > 0) {
			uint64_t now_ns = kvk_cli_now_ns();

			for (int i = 0; i < count; i++)
				kvk_worker_answer(worker, queues[q], &results[i], now_ns);
			any = true;
		}
		if (count < 0)
			worker->error = count;
	}
	return any;
}

static bool step_all(struct kvk_worker *worker)
{
	bool moved = false;

	worker->again = false;
	for (struct kvk_slot *slot = worker->active, *later; slot; slot = later) {
		later = slot->later;
		moved |= kvk_slot_step(worker, slot);
	}
	return moved;
}

static void wait_for_answers(struct kvk_worker *worker)
{
	struct pollfd poll_fds[KVK_QUEUE_COUNT];

	for (int q = 0; q < KVK_QUEUE_COUNT; q++)
		poll_fds[q] = (struct pollfd){
			.fd = kvk_store_event_fd(worker->store, (enum kvk_queue)q), .events = POLLIN };
	poll(poll_fds, KVK_QUEUE_COUNT, worker->again ? 1 : 1000);
}

static int play(struct kvk_worker *worker)
{
	while (!worker->error) {
		bool moved = drain(worker);

		moved |= begin_requests(worker);
		moved |= step_all(worker);
		if (!worker->active && worker->next_request == worker->replay->trace.request_count)
			break;
		if (worker->work)
			kvk_worker_do_work(worker);
		else if (!moved)
			wait_for_answers(worker);
	}
	return worker->error;
}

static int open_store(struct kvk_worker *worker)
{
	uint64_t took_ns;
	int status;

	worker->open_ns = kvk_cli_now_ns();
	status = kvk_cli_open_spec(&worker->store, worker->replay->spec, false, NULL);
	if (status)
		return status;
	took_ns = kvk_cli_now_ns() - worker->open_ns;
	worker->shared->opened++;
	if (took_ns > worker->shared->open_ns_most)
		worker->shared->open_ns_most = took_ns;
	/* Where memory may not be locked this only means plain transfers. */
	if (worker->replay->held)
		kvk_store_register(worker->store, worker->memory, worker->memory_bytes);
	return 0;
}

int kvk_replay_work(struct kvk_replay *replay, int notify_fd, bool stay)
{
	struct kvk_worker worker = { .replay = replay, .shared = replay->shared, .notify_fd = notify_fd };
	uint64_t done = 0;
	int err, status;

	/* A worker that was killed may have set a request's mark and not counted it yet. */
	for (uint64_t i = 0; i < replay->trace.request_count; i++)
		done += atomic_load(&replay->requests[i].done);
	atomic_store(&replay->shared->done, done);
	if (init_slots(&worker) || init_buffers(&worker)) {
		status = kvk_cli_fail("not enough memory");
		goto out;
	}
	status = open_store(&worker);
	if (status)
		goto out;
	err = play(&worker);
	if (err)
		status = kvk_cli_fail("the replay broke off: %s", strerror(-err));
	while (stay && !err)
		pause();
	replay->shared->stats.struct_bytes = sizeof(replay->shared->stats);
	kvk_store_stats(worker.store, &replay->shared->stats);
	err = kvk_store_close(worker.store);
	if (err) {
		/* The medium hangs and holds the buffers: the process ends without giving them back. */
		worker.memory = NULL;
		status = kvk_cli_fail("closing the store: %s", strerror(-err));
	}
out:
	release(&worker);
	return status;
}
