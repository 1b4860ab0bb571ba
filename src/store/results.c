/* SPDX-License-Identifier: Apache-2.0 */
#include "store/results.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "util/alloc.h"
#include "util/clock.h"

int kvk_result_queue_init(struct kvk_result_queue *queue)
{
	kvk_list_init(&queue->answers);
	kvk_list_init(&queue->releases);
	queue->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (queue->event_fd < 0)
		return -errno;
	pthread_mutex_init(&queue->lock, NULL);
	return 0;
}

void kvk_result_queue_release(struct kvk_result_queue *queue)
{
	struct kvk_link *link;

	if (queue->event_fd < 0)
		return;
	while ((link = kvk_list_pop(&queue->answers)))
		kvk_task_drop(kvk_container_of(link, struct kvk_answer, link)->task);
	while ((link = kvk_list_pop(&queue->releases)))
		kvk_task_drop(kvk_container_of(link, struct kvk_answer, release_link)->task);
	pthread_mutex_destroy(&queue->lock);
	close(queue->event_fd);
	queue->event_fd = -1;
}

/* ---- tasks -------------------------------------------------------------------------------------- */

struct kvk_task *kvk_task_new(struct kvk_result_queue *queue, uint32_t count)
{
	struct kvk_task *task = kvk_mem_alloc(sizeof(*task) + count * sizeof(task->answers[0]));

	if (!task)
		return NULL;
	task->id = 0;
	task->queue = queue;
	task->waiter = NULL;
	atomic_init(&task->references, 1);
	task->count = count;
	task->unanswered = count;
	task->items = NULL;
	atomic_init(&task->canceled, false);
	kvk_list_init(&task->link);
	for (uint32_t i = 0; i < count; i++)
		task->answers[i] = (struct kvk_answer){ .task = task, .index = i };
	return task;
}

void kvk_task_hold(struct kvk_task *task)
{
	atomic_fetch_add_explicit(&task->references, 1, memory_order_relaxed);
}

void kvk_task_drop(struct kvk_task *task)
{
	if (atomic_fetch_sub(&task->references, 1) > 1)
		return;
	kvk_mem_free(task->items);
	kvk_mem_free(task);
}

/* ---- answers ------------------------------------------------------------------------------------ */

/* Called with the queue's lock held, before the first member is linked. */
static bool was_empty(const struct kvk_result_queue *queue)
{
	return kvk_list_empty(&queue->answers) && kvk_list_empty(&queue->releases);
}

/* Called with the lock held: the descriptor is readable exactly while there is something. */
static void make_readable(struct kvk_result_queue *queue)
{
	uint64_t one = 1;

	/* It cannot fail: the counter is 0 before and 1 after. */
	while (write(queue->event_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

bool kvk_answers_give(struct kvk_task *task, uint32_t first, uint32_t last)
{
	struct kvk_result_queue *queue = task->queue;
	struct kvk_waiter *waiter = task->waiter;
	bool empty, end;

	if (first == last)
		return false;
	/* What is in the queue holds the task; whoever waits for it holds it himself. */
	if (!waiter)
		atomic_fetch_add_explicit(&task->references, last - first, memory_order_relaxed);
	pthread_mutex_lock(&queue->lock);
	task->unanswered -= last - first;
	end = task->unanswered == 0;
	if (end)
		task->answers[last - 1].flags |= KVK_RESULT_LAST;
	if (!waiter) {
		empty = was_empty(queue);
		for (uint32_t i = first; i < last; i++)
			kvk_list_push(&queue->answers, &task->answers[i].link);
		if (empty)
			make_readable(queue);
	}
	pthread_mutex_unlock(&queue->lock);
	if (waiter && end) {
		pthread_mutex_lock(&waiter->lock);
		atomic_store(&waiter->finished, true);
		pthread_cond_signal(&waiter->done);
		pthread_mutex_unlock(&waiter->lock);
	}
	return end;
}

void kvk_answer_release_memory(struct kvk_answer *answer)
{
	struct kvk_result_queue *queue = answer->task->queue;

	kvk_task_hold(answer->task);
	pthread_mutex_lock(&queue->lock);
	if (was_empty(queue))
		make_readable(queue);
	kvk_list_push(&queue->releases, &answer->release_link);
	pthread_mutex_unlock(&queue->lock);
}

void kvk_answer_copy(const struct kvk_answer *answer, struct kvk_result *result, uint32_t flags)
{
	struct kvk_result full = {
		.struct_bytes = result->struct_bytes,
		.item = answer->index,
		.task = answer->task->id,
		.user = answer->user,
		.status = answer->status,
		.reason = answer->reason,
		.flags = flags,
		.meta_bytes = answer->meta_bytes,
		.bytes = answer->bytes,
		.object_bytes = answer->object_bytes,
	};

	memcpy(result, &full, sizeof(full));
}

uint32_t kvk_results_drain(struct kvk_result_queue *queue, struct kvk_result *results, uint32_t count)
{
	uint32_t stride = count ? results->struct_bytes : 0, taken = 0;
	uint64_t counter;

	pthread_mutex_lock(&queue->lock);
	for (; taken < count && !was_empty(queue); taken++) {
		struct kvk_result *result = (void *)((char *)results + (size_t)taken * stride);
		struct kvk_link *link = kvk_list_pop(&queue->answers);
		struct kvk_answer *answer;

		if (link) {
			answer = kvk_container_of(link, struct kvk_answer, link);
			kvk_answer_copy(answer, result, answer->flags);
		} else {
			link = kvk_list_pop(&queue->releases);
			answer = kvk_container_of(link, struct kvk_answer, release_link);
			kvk_answer_copy(answer, result, KVK_RESULT_RELEASE);
		}
		kvk_task_drop(answer->task);
	}
	if (taken > 0 && was_empty(queue)) {
		while (read(queue->event_fd, &counter, sizeof(counter)) < 0 && errno == EINTR)
			;
	}
	pthread_mutex_unlock(&queue->lock);
	return taken;
}

int kvk_results_wait(struct kvk_result_queue *queue, uint64_t wait_us)
{
	struct pollfd pollfd = { .fd = queue->event_fd, .events = POLLIN };
	uint64_t end_us = kvk_now_us() + wait_us;

	for (;;) {
		uint64_t now_us = kvk_now_us();
		uint64_t left_us = now_us < end_us ? end_us - now_us : 0;
		struct timespec timeout = {
			.tv_sec = (time_t)(left_us / 1000000), .tv_nsec = (long)(left_us % 1000000) * 1000,
		};
		int ready = ppoll(&pollfd, 1, &timeout, NULL);

		if (ready >= 0)
			return ready;
		if (errno != EINTR)
			return -errno;
	}
}

/* ---- waiting for a whole batch ------------------------------------------------------------------ */

void kvk_waiter_init(struct kvk_waiter *waiter)
{
	pthread_mutex_init(&waiter->lock, NULL);
	pthread_cond_init(&waiter->done, NULL);
	atomic_init(&waiter->finished, false);
}

/*
 * A thread that sleeps is awake again some 50 us after it was woken, on a virtual machine more; what the page cache has
 * is there in as much time. So where batches have been that quick lately, the caller waits awake; where they were not,
 * it would only burn its processor.
 */
#define AWAKE_IF_US 300

static void wait_awake(struct kvk_waiter *waiter, uint64_t until_us)
{
	while (!atomic_load_explicit(&waiter->finished, memory_order_acquire) && kvk_now_us() < until_us)
		kvk_relax();
}

void kvk_waiter_wait(struct kvk_waiter *waiter, struct kvk_result_queue *queue)
{
	uint64_t start_us = kvk_now_us(), took_us;
	uint32_t usual_us = (uint32_t)atomic_load_explicit(&queue->wait_us, memory_order_relaxed);

	if (usual_us < AWAKE_IF_US)
		wait_awake(waiter, start_us + 2 * usual_us + 20);
	pthread_mutex_lock(&waiter->lock);
	while (!waiter->finished)
		pthread_cond_wait(&waiter->done, &waiter->lock);
	pthread_mutex_unlock(&waiter->lock);
	took_us = kvk_now_us() - start_us;
	if (took_us > 8 * AWAKE_IF_US)
		took_us = 8 * AWAKE_IF_US;
	atomic_store_explicit(&queue->wait_us, (3 * usual_us + took_us) / 4, memory_order_relaxed);
}

void kvk_waiter_release(struct kvk_waiter *waiter)
{
	pthread_cond_destroy(&waiter->done);
	pthread_mutex_destroy(&waiter->lock);
}
