/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/fault/fault.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
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
	kvk_syncs_release(&fault->base.syncs);
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

/* Judged as a transfer is, but only by rules that name it. What is shortened is torn, and says so. */
static int fault_update_file(struct kvk_backend *backend, const char *name, uint64_t offset_bytes, const void *data,
			     uint64_t bytes)
{
	struct kvk_fault *fault = kvk_fault_of(backend);
	struct kvk_fault_verdict verdict;
	struct kvk_backend *inner = fault->inner;
	uint8_t *copy = NULL;
	bool hangs;
	int err;

	pthread_mutex_lock(&fault->lock);
	kvk_fault_rules_judge(&fault->rules, KVK_FAULT_UPDATE_FILE, &verdict);
	if (verdict.struck)
		atomic_fetch_add(&fault->struck, 1);
	hangs = verdict.struck && verdict.kind == KVK_FAULT_HANG;
	if (hangs) {
		fault->hanging++;
		hang(fault);
	}
	pthread_mutex_unlock(&fault->lock);

	if (!verdict.struck || verdict.kind == KVK_FAULT_DELAY || hangs) {
		err = inner->ops->update_file(inner, name, offset_bytes, data, bytes);
		if (verdict.struck && verdict.kind == KVK_FAULT_DELAY)
			sleep_us(verdict.delay_us);
	} else if (verdict.kind == KVK_FAULT_FAIL) {
		err = -verdict.error;
	} else if (verdict.kind == KVK_FAULT_FAIL_AFTER) {
		inner->ops->update_file(inner, name, offset_bytes, data, bytes);
		err = -verdict.error;
	} else if (verdict.kind == KVK_FAULT_SHORTEN) {
		if (bytes > verdict.part_bytes)
			inner->ops->update_file(inner, name, offset_bytes, data, bytes - verdict.part_bytes);
		err = -EIO;
	} else {
		copy = kvk_mem_alloc(bytes);
		err = copy ? 0 : -ENOMEM;
		if (copy) {
			memcpy(copy, data, bytes);
			copy[verdict.random / 8 % bytes] ^= (uint8_t)(1u << verdict.random % 8);
			err = inner->ops->update_file(inner, name, offset_bytes, copy, bytes);
		}
	}
	if (hangs) {
		pthread_mutex_lock(&fault->lock);
		fault->hanging--;
		pthread_cond_broadcast(&fault->changed);
		pthread_mutex_unlock(&fault->lock);
	}
	kvk_mem_free(copy);
	return err;
}

static int fault_list(struct kvk_backend *backend, const char *folder, struct kvk_names *names)
{
	struct kvk_backend *inner = kvk_fault_of(backend)->inner;

	return inner->ops->list(inner, folder, names);
}

static int fault_list_stat(struct kvk_backend *backend, const char *folder, const struct kvk_listing *listing,
			   uint64_t *modified_ns)
{
	struct kvk_backend *inner = kvk_fault_of(backend)->inner;

	return inner->ops->list_stat(inner, folder, listing, modified_ns);
}

static int fault_folder_time(struct kvk_backend *backend, const char *folder, uint64_t *modified_ns)
{
	struct kvk_backend *inner = kvk_fault_of(backend)->inner;

	return inner->ops->folder_time(inner, folder, modified_ns);
}

static int fault_now(struct kvk_backend *backend, uint64_t *now_ns)
{
	struct kvk_backend *inner = kvk_fault_of(backend)->inner;

	return inner->ops->now(inner, now_ns);
}

/* Judges a question like a transfer, but only by rules that name it. -errno: it fails, and is not asked. */
static int ask_begin(struct kvk_fault *fault)
{
	struct kvk_fault_verdict verdict;

	pthread_mutex_lock(&fault->lock);
	kvk_fault_rules_judge(&fault->rules, KVK_FAULT_ASK, &verdict);
	if (verdict.struck)
		atomic_fetch_add(&fault->struck, 1);
	fault->hanging++;
	if (verdict.struck && verdict.kind == KVK_FAULT_HANG)
		hang(fault);
	pthread_mutex_unlock(&fault->lock);
	if (verdict.struck && verdict.kind == KVK_FAULT_DELAY)
		sleep_us(verdict.delay_us);
	return verdict.struck && verdict.kind <= KVK_FAULT_FAIL_AFTER ? -verdict.error : 0;
}

static int ask_end(struct kvk_fault *fault, int result)
{
	pthread_mutex_lock(&fault->lock);
	fault->hanging--;
	pthread_cond_broadcast(&fault->changed);
	pthread_mutex_unlock(&fault->lock);
	return result;
}

static int fault_space(struct kvk_backend *backend, struct kvk_space *ret)
{
	struct kvk_fault *fault = kvk_fault_of(backend);
	int err = ask_begin(fault);

	return ask_end(fault, err ? err : fault->inner->ops->space(fault->inner, ret));
}

static int fault_hold(struct kvk_backend *backend, bool exclusive)
{
	struct kvk_backend *inner = kvk_fault_of(backend)->inner;

	return inner->ops->hold(inner, exclusive);
}

static int fault_lock(struct kvk_backend *backend, uint32_t byte, uint32_t wait_ms)
{
	struct kvk_backend *inner = kvk_fault_of(backend)->inner;

	return inner->ops->lock(inner, byte, wait_ms);
}

static void fault_unlock(struct kvk_backend *backend, uint32_t byte)
{
	struct kvk_backend *inner = kvk_fault_of(backend)->inner;

	inner->ops->unlock(inner, byte);
}

static int fault_is_locked(struct kvk_backend *backend, uint32_t byte)
{
	struct kvk_fault *fault = kvk_fault_of(backend);
	int err = ask_begin(fault);

	return ask_end(fault, err ? err : fault->inner->ops->is_locked(fault->inner, byte));
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
	.update_file = fault_update_file, \
	.list = fault_list, \
	.list_stat = fault_list_stat, \
	.folder_time = fault_folder_time, \
	.now = fault_now, \
	.space = fault_space, \
	.hold = fault_hold, \
	.lock = fault_lock, \
	.unlock = fault_unlock, \
	.is_locked = fault_is_locked, \
	.sweep = fault_sweep

static const struct kvk_backend_ops fault_ops = { FAULT_OPS };
static const struct kvk_backend_ops fault_ops_with_ring = { FAULT_OPS, .ring = &kvk_fault_ring_ops };

/* ---- what others call -------------------------------------------------------------------------------- */

int kvk_fault_new(struct kvk_backend **ret, struct kvk_backend *inner, uint64_t seed)
{
	struct kvk_fault *fault = kvk_mem_zalloc(1, sizeof(*fault));

	if (!fault)
		return -ENOMEM;
	kvk_syncs_init(&fault->base.syncs);
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
