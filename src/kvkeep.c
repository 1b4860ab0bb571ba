/* SPDX-License-Identifier: Apache-2.0 */
/* The face: checks what callers give, then makes one call inward. */
#include <kvkeep/kvkeep.h>

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "agent/thread.h"
#include "control/control.h"
#include "control/evict.h"
#include "store/core.h"
#include "util/alloc.h"
#include "util/error.h"

/* At close, what was canceled gets so long to end before a medium counts as hung. */
#define CLOSE_US UINT64_C(5000000)
/* And what is left to do then, without getting on: one step of it is a sync, which writes what everybody has dirty. Given up too early
 * it leaves behind what only a scan takes off again. */
#define SETTLE_US UINT64_C(15000000)

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)

struct kvk_store {
	struct kvk_core *core;
	struct kvk_control *control;
};

const char *kvk_version(void)
{
	return TEXT(KVK_VERSION_MAJOR) "." TEXT(KVK_VERSION_MINOR) "." TEXT(KVK_VERSION_PATCH);
}

void kvk_free(void *memory)
{
	kvk_mem_free(memory);
}

const char *kvk_reason_text(uint32_t reason)
{
	static const char *const texts[] = {
		[KVK_REASON_NONE] = "none",
		[KVK_REASON_ABSENT] = "absent",
		[KVK_REASON_DAMAGED] = "damaged",
		[KVK_REASON_BUSY] = "busy",
		[KVK_REASON_DEADLINE] = "deadline",
		[KVK_REASON_NO_ROOM] = "no room",
		[KVK_REASON_COLLISION] = "collision",
		[KVK_REASON_NOT_DURABLE] = "not durable",
		[KVK_REASON_PRESENT] = "present",
		[KVK_REASON_CANCELED] = "canceled",
		[KVK_REASON_ARGUMENT] = "argument",
		[KVK_REASON_MEDIUM] = "medium",
		[KVK_REASON_PINNED] = "pinned",
		[KVK_REASON_DEGRADED] = "degraded",
		[KVK_REASON_NO_MEMORY] = "no memory",
		[KVK_REASON_FOREIGN] = "foreign",
		[KVK_REASON_SCANNING] = "scanning",
	};

	return reason < sizeof(texts) / sizeof(texts[0]) ? texts[reason] : "unknown";
}

/* ---- opening and closing ------------------------------------------------------------------------ */

static int check_hooks(const struct kvk_hooks *hooks, struct kvk_error *error)
{
	if (hooks && hooks->struct_bytes < sizeof(*hooks))
		return kvk_error_set(error, -EINVAL, NULL, "hooks.struct_bytes is %u, must be sizeof(struct kvk_hooks)",
				     hooks->struct_bytes);
	return 0;
}

int kvk_store_open(struct kvk_store **ret, const char *spec, const struct kvk_hooks *hooks,
		   struct kvk_error *error)
{
	struct kvk_thread_quiet quiet;
	struct kvk_store *store;
	int err;

	if (error) {
		if (error->struct_bytes < sizeof(*error))
			return -EINVAL;
		error->code = 0;
		error->option[0] = 0;
		error->text[0] = 0;
	}
	err = check_hooks(hooks, error);
	if (err)
		return err;
	store = kvk_mem_zalloc(1, sizeof(*store));
	if (!store)
		return kvk_error_set(error, -ENOMEM, NULL, "out of memory");
	kvk_thread_quiet_begin(&quiet);
	err = kvk_core_open(&store->core, spec, hooks, error);
	if (err)
		goto fail;
	err = kvk_control_start(&store->control, store->core);
	if (err) {
		kvk_error_set(error, err, NULL, "cannot start threads: %s", strerror(-err));
		if (!kvk_core_stop(store->core, CLOSE_US)) {
			kvk_core_settle(store->core);
			kvk_core_free(store->core);
		}
		goto fail;
	}
	kvk_thread_quiet_end(&quiet);
	*ret = store;
	return 0;

fail:
	kvk_thread_quiet_end(&quiet);
	kvk_mem_free(store);
	return err;
}

int kvk_store_close(struct kvk_store *store)
{
	struct kvk_thread_quiet quiet;
	bool holds, ended;
	int err;

	if (!store)
		return 0;
	if (store->core->pid != getpid()) {
		kvk_core_abandon(store->core);
		kvk_mem_free(store);
		return 0;
	}
	atomic_store(&store->core->closing, true);
	kvk_thread_quiet_begin(&quiet);
	kvk_control_stop(store->control, CLOSE_US);
	err = kvk_core_stop(store->core, CLOSE_US);
	holds = err && atomic_load(&store->core->held_items) > 0;
	/* What threads and the kernel still use is left to the room thread, never freed under them. */
	ended = kvk_control_end(store->control, err ? KVK_CONTROL_AWAIT : KVK_CONTROL_SETTLE, SETTLE_US);
	if (ended)
		kvk_core_free(store->core);
	kvk_thread_quiet_end(&quiet);
	kvk_mem_free(store);
	return holds ? -ETIMEDOUT : 0;
}

static bool page_aligned(const void *base, uint64_t bytes)
{
	return base && bytes > 0 && (uintptr_t)base % KVK_PAGE_BYTES == 0 && bytes % KVK_PAGE_BYTES == 0;
}

int kvk_store_register(struct kvk_store *store, void *base, uint64_t bytes)
{
	int err = kvk_core_check(store->core);

	if (err)
		return err;
	return page_aligned(base, bytes) ? kvk_agent_add_region(store->core->agent, base, bytes) : -EINVAL;
}

int kvk_store_unregister(struct kvk_store *store, void *base)
{
	int err = kvk_core_check(store->core);

	return err ? err : kvk_agent_remove_region(store->core->agent, base);
}

/* ---- results ------------------------------------------------------------------------------------ */

static struct kvk_result_queue *queue_of(struct kvk_store *store, enum kvk_queue queue)
{
	return (unsigned)queue < KVK_QUEUE_COUNT ? &store->core->queues[queue] : NULL;
}

int kvk_store_event_fd(struct kvk_store *store, enum kvk_queue queue)
{
	struct kvk_result_queue *results = queue_of(store, queue);

	if (store->core->pid != getpid())
		return -ECHILD;
	return results ? results->event_fd : -EINVAL;
}

int kvk_store_drain(struct kvk_store *store, enum kvk_queue queue, struct kvk_result *results, uint32_t count)
{
	struct kvk_result_queue *from = queue_of(store, queue);

	if (store->core->pid != getpid())
		return -ECHILD;
	if (!from || (count > 0 && results->struct_bytes < sizeof(*results)))
		return -EINVAL;
	return (int)kvk_results_drain(from, results, count < INT32_MAX ? count : INT32_MAX);
}

int kvk_store_wait(struct kvk_store *store, enum kvk_queue queue, uint64_t wait_us)
{
	struct kvk_result_queue *from = queue_of(store, queue);

	if (store->core->pid != getpid())
		return -ECHILD;
	return from ? kvk_results_wait(from, wait_us < UINT32_MAX * UINT64_C(1000000) ? wait_us
			: UINT32_MAX * UINT64_C(1000000)) : -EINVAL;
}

int kvk_store_cancel(struct kvk_store *store, int64_t task)
{
	int err = kvk_core_check(store->core);

	return err ? err : kvk_core_cancel(store->core, task);
}

/* ---- checks of items ---------------------------------------------------------------------------- */

static bool key_fits(const struct kvk_key *key)
{
	return key->data && key->bytes >= 1 && key->bytes <= KVK_KEY_BYTES_MAX;
}

static bool memory_fits(const struct iovec *data, uint32_t count)
{
	uint64_t bytes = 0;

	if (count > 0 && !data)
		return false;
	for (uint32_t i = 0; i < count; i++) {
		if (data[i].iov_len > KVK_OBJECT_BYTES_MAX || (!data[i].iov_base && data[i].iov_len > 0))
			return false;
		bytes += data[i].iov_len;
		if (bytes > KVK_OBJECT_BYTES_MAX)
			return false;
	}
	return true;
}

static bool put_fits(const struct kvk_put_item *item)
{
	return !(item->flags & ~(uint32_t)KVK_MEM_HELD) && key_fits(&item->key) &&
	       (item->parent.bytes == 0 || key_fits(&item->parent)) &&
	       memory_fits(item->data, item->data_count) && item->meta_bytes <= KVK_META_BYTES_MAX &&
	       (item->meta_bytes == 0 || item->meta) && item->reserved == 0;
}

static bool get_fits(const struct kvk_get_item *item)
{
	const uint32_t known = KVK_MEM_HELD | KVK_GET_PEEK | KVK_GET_VERIFY | KVK_KEY_IS_DIGEST | KVK_KEY_IS_NAME;

	if ((item->flags & ~known) || !key_fits(&item->key) ||
	    ((item->flags & KVK_KEY_IS_DIGEST) && item->key.bytes != KVK_DIGEST_BYTES) ||
	    ((item->flags & KVK_KEY_IS_NAME) &&
	     (!(item->flags & KVK_GET_PEEK) || (item->flags & KVK_KEY_IS_DIGEST) ||
	      item->key.bytes >= KVK_NAME_BYTES_MAX || memchr(item->key.data, 0, item->key.bytes))))
		return false;
	return (item->flags & KVK_GET_VERIFY) || memory_fits(item->data, item->data_count);
}

static bool lookup_fits(const struct kvk_key_item *item)
{
	if ((item->flags & ~(uint32_t)(KVK_LOOKUP_PIN | KVK_KEY_IS_DIGEST)) || !key_fits(&item->key) ||
	    item->reserved)
		return false;
	/* A pin is taken off by key, so it is put on by key. */
	return !(item->flags & KVK_KEY_IS_DIGEST) ||
	       (item->key.bytes == KVK_DIGEST_BYTES && !(item->flags & KVK_LOOKUP_PIN));
}

static bool key_item_fits(const struct kvk_key_item *item)
{
	return item->flags == 0 && key_fits(&item->key) && item->reserved == 0;
}

static bool remove_fits(const struct kvk_key_item *item)
{
	if (item->flags == KVK_KEY_IS_DIGEST)
		return item->key.data && item->key.bytes == KVK_DIGEST_BYTES && item->reserved == 0;
	if (item->flags != KVK_KEY_IS_NAME)
		return key_item_fits(item);
	return item->key.data && item->key.bytes > 0 && item->key.bytes < KVK_NAME_BYTES_MAX && item->reserved == 0;
}

/* Whether the array is one, and each of its elements is fit. */
#define ITEMS_FIT(items, count, item_fits) ({                                                       \
	bool fit_ = (items) && (count) > 0 && (count) <= KVK_BATCH_ITEMS_MAX &&                      \
		    (items)->struct_bytes >= sizeof(*(items)) && (items)->struct_bytes % 8 == 0;    \
	for (uint32_t i_ = 0; fit_ && i_ < (count); i_++) {                                          \
		__typeof__(items) item_ = (const void *)((const char *)(items) +                     \
							 (size_t)i_ * (items)->struct_bytes);        \
		fit_ = item_->struct_bytes == (items)->struct_bytes && item_fits(item_);             \
	}                                                                                            \
	fit_;                                                                                        \
})

/* ---- requests ----------------------------------------------------------------------------------- */

int64_t kvk_store_put(struct kvk_store *store, const struct kvk_put_item *items, uint32_t count,
		      uint64_t deadline_us)
{
	if (!ITEMS_FIT(items, count, put_fits))
		return -EINVAL;
	return kvk_core_put(store->core, items, count, deadline_us, NULL, NULL);
}

int64_t kvk_store_get(struct kvk_store *store, const struct kvk_get_item *items, uint32_t count,
		      uint64_t deadline_us)
{
	if (!ITEMS_FIT(items, count, get_fits))
		return -EINVAL;
	return kvk_core_get(store->core, items, count, deadline_us, NULL, NULL);
}

int64_t kvk_store_lookup(struct kvk_store *store, const struct kvk_key_item *items, uint32_t count,
			 uint64_t deadline_us)
{
	if (!ITEMS_FIT(items, count, lookup_fits))
		return -EINVAL;
	return kvk_core_lookup(store->core, items, count, deadline_us, NULL, NULL);
}

int64_t kvk_store_unpin(struct kvk_store *store, const struct kvk_key_item *items, uint32_t count)
{
	if (!ITEMS_FIT(items, count, key_item_fits))
		return -EINVAL;
	return kvk_core_unpin(store->core, items, count, NULL, NULL);
}

int64_t kvk_store_remove(struct kvk_store *store, const struct kvk_key_item *items, uint32_t count,
			 uint64_t deadline_us)
{
	if (!ITEMS_FIT(items, count, remove_fits))
		return -EINVAL;
	return kvk_core_remove(store->core, items, count, deadline_us, NULL, NULL);
}

/* Waits for a submitted batch and hands out its answers. id: what the submission returned. */
static int finish_wait(struct kvk_waiter *waiter, struct kvk_task *task, int64_t id, struct kvk_result *results)
{
	if (id > 0) {
		kvk_waiter_wait(waiter, task->queue);
		for (uint32_t i = 0; i < task->count; i++)
			kvk_answer_copy(&task->answers[i],
					(void *)((char *)results + (size_t)i * results->struct_bytes),
					task->answers[i].flags);
		kvk_task_drop(task);
	}
	kvk_waiter_release(waiter);
	return id > 0 ? 0 : (int)id;
}

static bool results_fit(const struct kvk_result *results)
{
	return results && results->struct_bytes >= sizeof(*results) && results->struct_bytes % 8 == 0;
}

int kvk_store_put_wait(struct kvk_store *store, const struct kvk_put_item *items, uint32_t count,
		       uint64_t deadline_us, struct kvk_result *results)
{
	struct kvk_task *task = NULL;
	struct kvk_waiter waiter;
	int64_t id;

	if (!ITEMS_FIT(items, count, put_fits) || !results_fit(results))
		return -EINVAL;
	kvk_waiter_init(&waiter);
	id = kvk_core_put(store->core, items, count, deadline_us, &waiter, &task);
	return finish_wait(&waiter, task, id, results);
}

int kvk_store_get_wait(struct kvk_store *store, const struct kvk_get_item *items, uint32_t count,
		       uint64_t deadline_us, struct kvk_result *results)
{
	struct kvk_task *task = NULL;
	struct kvk_waiter waiter;
	int64_t id;

	if (!ITEMS_FIT(items, count, get_fits) || !results_fit(results))
		return -EINVAL;
	kvk_waiter_init(&waiter);
	id = kvk_core_get(store->core, items, count, deadline_us, &waiter, &task);
	return finish_wait(&waiter, task, id, results);
}

int kvk_store_lookup_wait(struct kvk_store *store, const struct kvk_key_item *items, uint32_t count,
			  uint64_t deadline_us, struct kvk_result *results)
{
	struct kvk_task *task = NULL;
	struct kvk_waiter waiter;
	int64_t id;

	if (!ITEMS_FIT(items, count, lookup_fits) || !results_fit(results))
		return -EINVAL;
	kvk_waiter_init(&waiter);
	id = kvk_core_lookup(store->core, items, count, deadline_us, &waiter, &task);
	return finish_wait(&waiter, task, id, results);
}

int kvk_store_unpin_wait(struct kvk_store *store, const struct kvk_key_item *items, uint32_t count,
			 struct kvk_result *results)
{
	struct kvk_task *task = NULL;
	struct kvk_waiter waiter;
	int64_t id;

	if (!ITEMS_FIT(items, count, key_item_fits) || !results_fit(results))
		return -EINVAL;
	kvk_waiter_init(&waiter);
	id = kvk_core_unpin(store->core, items, count, &waiter, &task);
	return finish_wait(&waiter, task, id, results);
}

int kvk_store_remove_wait(struct kvk_store *store, const struct kvk_key_item *items, uint32_t count,
			  uint64_t deadline_us, struct kvk_result *results)
{
	struct kvk_task *task = NULL;
	struct kvk_waiter waiter;
	int64_t id;

	if (!ITEMS_FIT(items, count, remove_fits) || !results_fit(results))
		return -EINVAL;
	kvk_waiter_init(&waiter);
	id = kvk_core_remove(store->core, items, count, deadline_us, &waiter, &task);
	return finish_wait(&waiter, task, id, results);
}

/* ---- looking at a store ------------------------------------------------------------------------- */

int kvk_store_list(struct kvk_store *store, const struct kvk_list_query *query, struct kvk_list_entry *entries,
		   uint32_t count, char **cursor_ret)
{
	int err = kvk_core_check(store->core);

	if (err)
		return err;
	if (!entries || count == 0 || count > INT32_MAX || entries->struct_bytes < sizeof(*entries) ||
	    entries->struct_bytes % 8 || !cursor_ret ||
	    (query && (query->struct_bytes < sizeof(*query) || query->reserved)))
		return -EINVAL;
	return kvk_core_list(store->core, query, entries, count, cursor_ret);
}

int kvk_store_usage(struct kvk_store *store, struct kvk_usage *usage)
{
	int err = kvk_core_check(store->core);

	if (err)
		return err;
	if (!usage || usage->struct_bytes < sizeof(*usage))
		return -EINVAL;
	kvk_core_usage(store->core, usage);
	return 0;
}

int kvk_store_set_cap(struct kvk_store *store, uint64_t cap_bytes)
{
	int err = kvk_core_check(store->core);

	if (err)
		return err;
	if (cap_bytes > 0 && cap_bytes < KVK_CAP_BYTES_MIN)
		return -EINVAL;
	return kvk_core_set_cap(store->core, cap_bytes);
}

int kvk_store_evict(struct kvk_store *store, uint64_t bytes, uint64_t *evicted_ret)
{
	int err = kvk_core_check(store->core);

	if (err)
		return err;
	if (!evicted_ret)
		return -EINVAL;
	if (store->core->spec.policy == KVK_POLICY_NOOP)
		return -ENOTSUP;
	*evicted_ret = kvk_evict(store->core, bytes, NULL);
	kvk_room_ring(store->core);
	return 0;
}

int kvk_store_scan(struct kvk_store *store, uint64_t wait_us)
{
	int err = kvk_core_check(store->core);

	return err ? err : kvk_control_scan(store->control, wait_us);
}

int kvk_store_set_quota(struct kvk_store *store, const void *tenant, uint32_t tenant_bytes, uint64_t quota_bytes)
{
	int err = kvk_core_check(store->core);

	if (err)
		return err;
	if ((tenant_bytes > 0 && !tenant) || tenant_bytes > KVK_KEY_BYTES_MAX)
		return -EINVAL;
	return kvk_quotas_set(store->core, tenant, tenant_bytes, quota_bytes);
}

int kvk_store_shares(struct kvk_store *store, enum kvk_share_by by, struct kvk_share *shares, uint32_t count)
{
	int err = kvk_core_check(store->core);

	if (err)
		return err;
	if ((by != KVK_BY_TENANT && by != KVK_BY_MODEL) ||
	    (count > 0 && (!shares || shares->struct_bytes < sizeof(*shares) || shares->struct_bytes % 8)))
		return -EINVAL;
	return (int)kvk_catalog_shares(store->core->catalog, by, shares, count);
}

int kvk_store_stats(struct kvk_store *store, struct kvk_stats *stats)
{
	int err = kvk_core_check(store->core);

	if (err)
		return err;
	if (!stats || stats->struct_bytes < sizeof(*stats))
		return -EINVAL;
	kvk_core_stats(store->core, stats);
	return 0;
}

int kvk_store_status(struct kvk_store *store, char **ret)
{
	int err = kvk_core_check(store->core);

	if (err)
		return err;
	return ret ? kvk_core_status(store->core, ret) : -EINVAL;
}

/* ---- namespaces --------------------------------------------------------------------------------- */

int kvk_store_namespace(struct kvk_store *store, const uint8_t *digest, char **ret)
{
	static const uint8_t none[KVK_DIGEST_BYTES];
	int err = kvk_core_check(store->core);

	if (err)
		return err;
	if (!digest)
		digest = store->core->spec.namespace_digest;
	if (memcmp(digest, none, KVK_DIGEST_BYTES))
		return kvk_namespace_load(store->core->backend, digest, ret);
	*ret = kvk_mem_strdup("{}");
	return *ret ? 0 : -ENOMEM;
}

int kvk_store_namespaces(struct kvk_store *store, uint8_t *digests, uint32_t count)
{
	int err = kvk_core_check(store->core);

	return err ? err : kvk_namespace_list(store->core->backend, digests, count);
}
