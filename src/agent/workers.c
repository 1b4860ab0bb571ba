/* SPDX-License-Identifier: Apache-2.0 */
/* Threads that carry out what would make a lane wait: all transfers where there is no ring, unlinks and syncs. */
#include <errno.h>

#include "agent/agent_private.h"
#include "agent/thread.h"

static void *worker_main(void *argument)
{
	struct kvk_worker_pool *pool = argument;
	struct kvk_backend *backend = pool->agent->backend;

	pthread_mutex_lock(&pool->lock);
	for (;;) {
		struct kvk_link *link = kvk_list_pop(&pool->waiting);
		struct kvk_xfer *xfer;
		struct kvk_lane *lane;

		if (!link) {
			if (pool->stopping)
				break;
			pool->idle++;
			pthread_cond_wait(&pool->work, &pool->lock);
			pool->idle--;
			continue;
		}
		xfer = kvk_container_of(link, struct kvk_xfer, link);
		xfer->waiting = false;
		lane = xfer->lane;
		pthread_mutex_unlock(&pool->lock);
		backend->ops->run(backend, xfer);
		pthread_mutex_lock(&lane->returned_lock);
		kvk_list_push(&lane->returned, &xfer->link);
		pthread_mutex_unlock(&lane->returned_lock);
		kvk_lane_wake(lane);
		pthread_mutex_lock(&pool->lock);
	}
	pthread_mutex_unlock(&pool->lock);
	atomic_fetch_sub(&pool->alive, 1);
	return NULL;
}

int kvk_workers_init(struct kvk_worker_pool *pool, struct kvk_agent *agent)
{
	pool->agent = agent;
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->work, NULL);
	kvk_list_init(&pool->waiting);
	return 0;
}

/* Called with the lock held. Threads are made when work comes and nobody is idle. */
static void add_thread(struct kvk_worker_pool *pool)
{
	pthread_t thread;

	if (pool->threads == KVK_WORKERS_MAX)
		return;
	atomic_fetch_add(&pool->alive, 1);
	if (kvk_thread_start(&thread, "kvk-worker", worker_main, pool)) {
		atomic_fetch_sub(&pool->alive, 1);
		return;
	}
	/* Nobody joins it: a worker in a hung system call must not hold up a close. */
	pthread_detach(thread);
	pool->threads++;
}

void kvk_workers_submit(struct kvk_worker_pool *pool, struct kvk_xfer *xfer)
{
	bool alone;

	pthread_mutex_lock(&pool->lock);
	xfer->waiting = true;
	kvk_list_push(&pool->waiting, &xfer->link);
	if (pool->idle == 0)
		add_thread(pool);
	alone = pool->threads == 0;
	if (alone) {
		/* No thread can be had (RLIMIT_NPROC): slower, but it goes on. */
		kvk_list_remove(&xfer->link);
		xfer->waiting = false;
	}
	pthread_cond_signal(&pool->work);
	pthread_mutex_unlock(&pool->lock);
	if (alone) {
		kvk_lane_run_here(xfer->lane, xfer);
		kvk_list_push(&xfer->lane->finished, &xfer->link);
	}
}

bool kvk_workers_take_back(struct kvk_worker_pool *pool, struct kvk_xfer *xfer)
{
	bool waiting;

	pthread_mutex_lock(&pool->lock);
	waiting = xfer->waiting;
	if (waiting) {
		kvk_list_remove(&xfer->link);
		xfer->waiting = false;
	}
	pthread_mutex_unlock(&pool->lock);
	return waiting;
}

void kvk_workers_stop(struct kvk_worker_pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	pool->stopping = true;
	pthread_cond_broadcast(&pool->work);
	pthread_mutex_unlock(&pool->lock);
}

void kvk_workers_release(struct kvk_worker_pool *pool)
{
	pthread_cond_destroy(&pool->work);
	pthread_mutex_destroy(&pool->lock);
}
