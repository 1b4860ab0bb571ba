/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tasks and their results. A task is one batch; it carries a place for every result from the start, so that giving an
 * answer never needs memory. Results wait in one of three queues, or go to the caller who waits for the batch.
 */
#ifndef KVK_STORE_RESULTS_H
#define KVK_STORE_RESULTS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <kvkeep/store.h>

#include "util/list.h"

struct kvk_task;

/* The place of one answer. */
struct kvk_answer {
	struct kvk_link link;          /* in a queue */
	struct kvk_task *task;
	uint32_t index;
	uint32_t flags;                /* enum kvk_result_flags */
	uint64_t user;
	int32_t status;
	uint32_t reason;
	uint32_t meta_bytes;
	uint64_t bytes;
	uint64_t object_bytes;
	/* The release of held memory, reported apart from the answer. */
	struct kvk_link release_link;
};

struct kvk_result_queue {
	pthread_mutex_t lock;          /* guards what follows */
	struct kvk_link answers;       /* kvk_answer.link */
	struct kvk_link releases;      /* kvk_answer.release_link */
	atomic_uint_fast32_t wait_us;  /* how long waiting for a whole batch takes, smoothed; not under the lock */
	int event_fd;                  /* readable while there is anything */
};

/* Where a caller waits for a whole batch. */
struct kvk_waiter {
	pthread_mutex_t lock;
	pthread_cond_t done;
	atomic_bool finished;
};

struct kvk_task {
	int64_t id;
	struct kvk_result_queue *queue;
	struct kvk_waiter *waiter;     /* NULL: results go to the queue */
	atomic_uint references;        /* its submitter, operations not finished, answers not handed out */
	uint32_t count;
	uint32_t unanswered;           /* guarded by queue->lock */
	atomic_bool canceled;          /* what of it comes to wait for room now is answered so */
	struct kvk_link link;          /* among the tasks under way */
	void *items;                   /* what the requests need; freed with the task */
	struct kvk_answer answers[];
};

int kvk_result_queue_init(struct kvk_result_queue *queue);
void kvk_result_queue_release(struct kvk_result_queue *queue);

/* With one reference, the submitter's. NULL: out of memory. */
struct kvk_task *kvk_task_new(struct kvk_result_queue *queue, uint32_t count);
void kvk_task_hold(struct kvk_task *task);
void kvk_task_drop(struct kvk_task *task);

/*
 * Answers first to last - 1 are filled in: hands them over, with one lock and one wake-up. Returns whether they were the
 * task's last ones (after which the task may be gone unless the caller holds it).
 */
bool kvk_answers_give(struct kvk_task *task, uint32_t first, uint32_t last);

/* Held memory is the caller's again. Always goes to the queue. The caller holds the task. */
void kvk_answer_release_memory(struct kvk_answer *answer);

uint32_t kvk_results_drain(struct kvk_result_queue *queue, struct kvk_result *results, uint32_t count);
int kvk_results_wait(struct kvk_result_queue *queue, uint64_t wait_us);

/* For whoever waits for the whole batch. */
void kvk_waiter_init(struct kvk_waiter *waiter);
void kvk_waiter_wait(struct kvk_waiter *waiter, struct kvk_result_queue *queue);
void kvk_waiter_release(struct kvk_waiter *waiter);

/* Copies an answer out, as far as the caller's struct is long. */
void kvk_answer_copy(const struct kvk_answer *answer, struct kvk_result *result, uint32_t flags);

#endif
