/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/fault/fault.h"

#include <assert.h>
#include <errno.h>
#include <time.h>

#include "backend/fault/inside.h"
#include "util/alloc.h"

static const struct kvk_backend_ops fault_ops;
static const struct kvk_backend_ops fault_ops_with_ring;

struct kvk_fault *kvk_fault_of(struct kvk_backend *backend)
{
	assert(backend->ops == &fault_ops || backend->ops == &fault_ops_with_ring);
	return kvk_container_of(backend, struct kvk_fault, base);
}

/* ---- the backend ------------------------------------------------------------------------------------- */

static void fault_close(struct kvk_backend *backend)
{
	struct kvk_fault *fault;

	if (!backend)
		return;
	fault = kvk_fault_of(backend);
	pthread_mutex_lock(&fault->lock);
	fault->closing = true;
	pthread_cond_broadcast(&fault->changed);
	while (fault->hanging > 0)
		pthread_cond_wait(&fault->changed, &fault->lock);
	pthread_mutex_unlock(&fault->lock);
	fault->inner->ops->close(fault->inner);
	pthread_cond_destroy(&fault->changed);
	pthread_mutex_destroy(&fault->lock);
	kvk_mem_free(fault);
}

/* Called with the lock held. */
static void hang(struct kvk_fault *fault)
{
	uint64_t releases = fault->releases;

	while (fault->releases == releases && !fault->closing)
		pthread_cond_wait(&fault->changed, &fault->lock);
}

static void sleep_us(uint64_t us)
{
	struct timespec left = { .tv_sec = (time_t)(us / 1000000), .tv_nsec = (long)(us % 1000000 * 1000) };

	while (clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) == EINTR)
		;
}

static void fault_run(struct kvk_backend *backend, struct kvk_xfer *xfer)
{
	struct kvk_fault *fault = kvk_fault_of(backend);
	struct kvk_fault_verdict verdict;
	struct kvk_fault_held held;
	bool hangs;

	pthread_mutex_lock(&fault->lock);
	/* What must not wait is not held up either: it says that it would have to, and is judged when it comes back. */
	if ((xfer->flags & (KVK_XFER_NOWAIT | KVK_XFER_IF_CACHED)) &&
	    kvk_fault_rules_hold_up(&fault->rules, xfer->op)) {
		xfer->result = -EAGAIN;
		pthread_mutex_unlock(&fault->lock);
		return;
	}
	atomic_fetch_add(&fault->seen, 1);
	kvk_fault_rules_judge(&fault->rules, xfer->op, &verdict);
	if (verdict.struck)
		atomic_fetch_add(&fault->struck, 1);
	hangs = verdict.struck && verdict.kind == KVK_FAULT_HANG;
	if (hangs) {
		fault->hanging++;
		hang(fault);
	}
	pthread_mutex_unlock(&fault->lock);

	if (kvk_fault_held_begin(fault, &held, xfer, &verdict))
		fault->inner->ops->run(fault->inner, &held.xfer);
	if (verdict.struck && verdict.kind == KVK_FAULT_DELAY)
		sleep_us(verdict.delay_us);
	kvk_fault_held_end(fault, &held);

	if (hangs) {
		pthread_mutex_lock(&fault->lock);
		fault->hanging--;
		pthread_cond_broadcast(&fault->changed);
		pthread_mutex_unlock(&fault->lock);
	}
}

static int fault_load_file(struct kvk_backend *backend, const char *name, void **data_ret, uint64_t *bytes_ret,
			   uint64_t max_bytes)
{
	struct kvk_backend *inner = kvk_fault_of(backend)->inner;

	return inner->ops->load_file(inner, name, data_ret, bytes_ret, max_bytes);
}

static int fault_save_file(struct kvk_backend *backend, const char *name, const void *data, uint64_t bytes,
			   bool keep)
{
	struct kvk_backend *inner = kvk_fault_of(backend)->inner;

	return inner->ops->save_file(inner, name, data, bytes, keep);
}

static int fault_list(struct kvk_backend *backend, const char *folder, struct kvk_names *names)
{
	struct kvk_backend *inner = kvk_fault_of(backend)->inner;

	return inner->ops->list(inner, folder, names);
}

static int fault_space(struct kvk_backend *backend, uint64_t *free_bytes, uint64_t *total_bytes)
{
	struct kvk_backend *inner = kvk_fault_of(backend)->inner;

	return inner->ops->space(inner, free_bytes, total_bytes);
}

static int fault_hold(struct kvk_backend *backend, bool exclusive)
{
	struct kvk_backend *inner = kvk_fault_of(backend)->inner;

	return inner->ops->hold(inner, exclusive);
}

static int fault_sweep(struct kvk_backend *backend, const char *name)
{
	struct kvk_backend *inner = kvk_fault_of(backend)->inner;

	return inner->ops->sweep(inner, name);
}

/* No open(): kvk_fault_new() needs the backend to wrap. */
#define FAULT_OPS \
	.name = "fault", \
	.close = fault_close, \
	.run = fault_run, \
	.load_file = fault_load_file, \
	.save_file = fault_save_file, \
	.list = fault_list, \
	.space = fault_space, \
	.hold = fault_hold, \
	.sweep = fault_sweep

static const struct kvk_backend_ops fault_ops = { FAULT_OPS };
static const struct kvk_backend_ops fault_ops_with_ring = { FAULT_OPS, .ring = &kvk_fault_ring_ops };

/* ---- what others call -------------------------------------------------------------------------------- */

int kvk_fault_new(struct kvk_backend **ret, struct kvk_backend *inner, uint64_t seed)
{
	struct kvk_fault *fault = kvk_mem_zalloc(1, sizeof(*fault));

	if (!fault)
		return -ENOMEM;
	fault->base.ops = inner->ops->ring ? &fault_ops_with_ring : &fault_ops;
	fault->base.caps = inner->caps;
	fault->inner = inner;
	pthread_mutex_init(&fault->lock, NULL);
	pthread_cond_init(&fault->changed, NULL);
	kvk_fault_rules_init(&fault->rules, seed);
	kvk_list_init(&fault->rings);
	*ret = &fault->base;
	return 0;
}

int kvk_fault_add(struct kvk_backend *backend, const struct kvk_fault_rule *rule)
{
	struct kvk_fault *fault = kvk_fault_of(backend);
	int err;

	if (kvk_fault_rule_check(rule))
		return -EINVAL;
	pthread_mutex_lock(&fault->lock);
	err = kvk_fault_rules_add(&fault->rules, rule);
	pthread_mutex_unlock(&fault->lock);
	return err;
}

void kvk_fault_clear(struct kvk_backend *backend)
{
	struct kvk_fault *fault = kvk_fault_of(backend);

	pthread_mutex_lock(&fault->lock);
	fault->rules.count = 0;
	atomic_store(&fault->seen, 0);
	atomic_store(&fault->struck, 0);
	pthread_mutex_unlock(&fault->lock);
}

void kvk_fault_release(struct kvk_backend *backend)
{
	struct kvk_fault *fault = kvk_fault_of(backend);

	pthread_mutex_lock(&fault->lock);
	fault->releases++;
	pthread_cond_broadcast(&fault->changed);
	kvk_fault_rings_wake(fault);
	pthread_mutex_unlock(&fault->lock);
}

uint64_t kvk_fault_struck(struct kvk_backend *backend)
{
	return atomic_load(&kvk_fault_of(backend)->struck);
}

uint64_t kvk_fault_seen(struct kvk_backend *backend)
{
	return atomic_load(&kvk_fault_of(backend)->seen);
}

uint64_t kvk_fault_places(struct kvk_backend *backend)
{
	return atomic_load(&kvk_fault_of(backend)->places);
}
