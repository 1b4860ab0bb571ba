/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and closing. */
#include "store/core.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "backend/fault/fault.h"
#include "util/alloc.h"
#include "util/clock.h"
#include "util/error.h"

/* Damaged objects that are kept for a person to look at: 1 % of the cap, or this. */
#define QUARANTINE_BYTES (UINT64_C(1) << 30)
/* For the account's lock at close; without it others settle what this process had leased. */
#define ACCOUNT_WAIT_MS 2000
/* At close, 0.1 s each: nobody else tells what this process removed last. */
#define TELL_TRIES 20

static uint32_t aside_begin(void *user)
{
	struct kvk_core *core = user;

	return kvk_account_enter(core->account);
}

/* From one bucket to quarantine: charged there at once, out of the lease, and given back here after a sync, as the file
 * may be found under either name after a power cut. */
static void aside_end(void *user, uint32_t begun, uint32_t bucket, uint64_t bytes, uint64_t stray_bytes)
{
	struct kvk_core *core = user;
	uint64_t charge = kvk_page_ceil(bytes);

	if (charge > 0) {
		kvk_catalog_add_room(core->catalog, -(int64_t)charge);
		kvk_account_published(core->account, KVK_BUCKET_QUARANTINE, charge);
		kvk_account_unlinked(core->account, bucket, charge);
	}
	if (stray_bytes > 0)
		kvk_account_unlinked(core->account, bucket, kvk_page_ceil(stray_bytes));
	kvk_account_leave(core->account, begun);
	kvk_waiting_altered(core);
}

static int open_backend(struct kvk_core *core, uint64_t writer_id, struct kvk_error *error)
{
	const struct kvk_spec *spec = &core->spec;
	const struct kvk_backend_ops *ops = kvk_backend_find(spec->ram ? "ram" : "posix");
	struct kvk_backend_options options = {
		.path = spec->path, .direct = spec->direct, .create = spec->wish.create,
		.group = spec->wish.values.group, .shared = spec->shared,
		.many_hosts = spec->shared,
		.ring = spec->engine != KVK_ENGINE_THREADS, .writer_id = writer_id, .log = &core->log,
	};
	struct kvk_backend *wrapped;
	int err;

	err = ops->open(&core->backend, &options, error);
	if (err)
		return err;
	if (!spec->fault)
		return 0;
	err = kvk_fault_new(&wrapped, core->backend, spec->fault_seed);
	if (err)
		return kvk_error_set(error, err, "fault", "%s", strerror(-err));
	core->backend = wrapped;
	return kvk_fault_parse(wrapped, spec->fault, error);
}

/* For whoever looks before the room thread did. */
static void look_at_medium(struct kvk_core *core)
{
	struct kvk_space space;

	if (core->backend->ops->space(core->backend, &space))
		return;
	atomic_store(&core->view.free_bytes, space.free_bytes);
	atomic_store(&core->view.total_bytes, space.total_bytes);
}

static void tell_evicted(void *user, const void *key, uint32_t key_bytes)
{
	struct kvk_core *core = user;

	kvk_notices_event(&core->notices, KVK_EVENT_DELETED, key, key_bytes);
}

static int open_adapter(struct kvk_core *core, uint64_t writer_id, struct kvk_error *error)
{
	uint64_t cap = core->superblock.cap_bytes;
	struct kvk_adapter_options options = {
		.backend = core->backend, .layout = core->superblock.layout,
		.durability = core->superblock.durability,
		.namespace_digest = core->spec.namespace_digest, .writer_id = writer_id,
		.adopted_ns = core->superblock.created_ns,
		.accept_unverified = core->spec.accept_unverified,
		.quarantine_bytes = cap ? cap / 100 : QUARANTINE_BYTES,
		.log = &core->log, .evicted = core->notices.hooks.event ? tell_evicted : NULL,
		.aside_begin = aside_begin, .aside_end = aside_end, .user = core,
		.pool = &core->superblock.pool, .device = core->spec.device,
	};

	if (options.pool->slot_bytes)
		return kvk_pool_open(&core->adapter, &options, error);

	return kvk_dynamic_open(&core->adapter, &options);
}

/* A superblock that was made anew says nothing about objects: it may have been lost, or a directory is adopted. */
static int has_objects(struct kvk_core *core, bool *ret)
{
	struct kvk_names names = { 0 };
	int err = core->backend->ops->list(core->backend, "", &names);

	*ret = false;
	for (uint32_t i = 0; i < names.count && !*ret; i++)
		*ret = kvk_name_kind(names.names[i], &core->superblock.layout, NULL) != KVK_NAME_OTHER;
	kvk_names_release(&names);
	return err;
}

/*
 * Whether the store may have objects that no account tells of. Where there is an account nobody asks. Of two processes
 * that open a new store together the second may come to the account first; what is in a pool no listing shows.
 */
static int may_have_objects(struct kvk_core *core, bool made, bool *ret)
{
	uint64_t bytes;
	void *data;
	int err = core->backend->ops->load_file(core->backend, "account", &data, &bytes, 2 * KVK_ACCOUNT_BYTES);

	*ret = true;
	if (!err)
		kvk_mem_free(data);
	if (!made && (err != -ENOENT || core->superblock.pool.slot_bytes))
		return 0;
	return has_objects(core, ret);
}

/* What the superblock says of the cap counts if nobody else has the store open. */
static int open_account(struct kvk_core *core, bool made, struct kvk_error *error)
{
	bool objects, alone;
	uint64_t used, cap;
	int err = may_have_objects(core, made, &objects);

	if (err)
		return kvk_error_set(error, err, "backend_params.file_path", "cannot be listed: %s", strerror(-err));
	err = kvk_account_open(&core->account, core->backend, core->superblock.cap_bytes, !objects, &core->log, error);
	if (err)
		return err;
	kvk_account_usage(core->account, &used, &cap);
	kvk_account_epoch(core->account, &alone);
	/* Somebody else may have changed it since the superblock was read: the account is what all lease from. */
	if (!alone)
		core->superblock.cap_bytes = cap;
	else if (cap != core->superblock.cap_bytes)
		err = kvk_account_set_cap(core->account, core->superblock.cap_bytes);
	return err ? kvk_error_set(error, err, "backend_params.max_capacity_gb", "the cap cannot be written to the account: %s",
				   strerror(-err)) : 0;
}

static int open_catalog(struct kvk_core *core)
{
	const struct kvk_spec *spec = &core->spec;
	struct kvk_policy_options options = { .kind = spec->policy, .cap_bytes = core->superblock.cap_bytes };
	int err = kvk_catalog_new(&core->catalog, 0, &options);

	if (!err)
		kvk_catalog_clock(core->catalog, kvk_wall_ns());
	if (!err)
		err = kvk_quotas_open(core);
	return err;
}

static int open_agent(struct kvk_core *core, struct kvk_error *error)
{
	struct kvk_agent_options options = {
		.backend = core->backend, .engine = core->spec.engine, .lanes = core->spec.lanes,
		.memory_bytes = core->spec.memory_bytes, .depth_bytes = core->spec.depth_bytes,
		.log = &core->log,
	};

	return kvk_agent_new(&core->agent, &options, error);
}

/* What was unlinked is credited only after a sync, and once this process is gone only a scan would find out. */
static void credit_removed(struct kvk_core *core)
{
	struct kvk_account_visit visit = { 0 };
	struct kvk_xfer sync;

	if (!kvk_account_has_credits(core->account))
		return;
	kvk_account_sync_begin(core->account);
	kvk_xfer_init(&sync, KVK_XFER_SYNC_ALL, NULL, NULL);
	core->backend->ops->run(core->backend, &sync);
	visit.synced = sync.result >= 0;
	atomic_fetch_add(&core->settle_steps, 1);
	kvk_account_visit(core->account, &visit, ACCOUNT_WAIT_MS);
	atomic_fetch_add(&core->settle_steps, 1);
}

/* What was removed after the room thread had told of it for the last time: lanes and hooks end later. Nobody who comes after a visit that
 * finds this process alone has met it. */
static void tell_last(struct kvk_core *core)
{
	struct kvk_news_extent told = kvk_news_extent(core);
	struct kvk_account_visit visit = { 0 };
	int err;

	if (told.told_count == 0 && told.untold_count == 0)
		return;
	err = kvk_account_visit(core->account, &visit, ACCOUNT_WAIT_MS);
	/* Others that post keep it from the lock, each for two syncs. */
	for (uint32_t tries = 0; tries < TELL_TRIES && (told.told_count > 0 || told.untold_count > 0); tries++) {
		kvk_news_post(core, told, !err && visit.processes <= 1);
		told = kvk_news_extent(core);
	}
}

static void leave_account(struct kvk_core *core)
{
	const struct timespec while_short = { .tv_nsec = 1000000 };

	if (!core->account)
		return;
	/* The lanes have ended, but a hook may be evicting. What it unlinks is to be credited as well. */
	while (kvk_account_is_entered(core->account))
		nanosleep(&while_short, NULL);
	credit_removed(core);
	tell_last(core);
	kvk_account_retire(core->account, ACCOUNT_WAIT_MS);
}

/* What is still there when opening fails, or when nothing is under way any more: no hook either, which may have been in a
 * call when the account was left. */
void kvk_core_free(struct kvk_core *core)
{
	kvk_agent_free(core->agent);
	kvk_account_close(core->account, ACCOUNT_WAIT_MS);
	if (core->adapter)
		core->adapter->ops->close(core->adapter);
	kvk_catalog_free(core->catalog);
	if (core->backend)
		core->backend->ops->close(core->backend);
	for (int i = 0; i < KVK_QUEUE_COUNT; i++)
		kvk_result_queue_release(&core->queues[i]);
	pthread_mutex_destroy(&core->tasks_lock);
	kvk_waiting_release(&core->waiting);
	kvk_quotas_release(&core->quotas);
	kvk_news_release(&core->news);
	kvk_notices_release(&core->notices);
	kvk_spec_release(&core->spec);
	kvk_mem_free(core);
}

int kvk_core_open(struct kvk_core **ret, const char *json, const struct kvk_hooks *hooks,
		  struct kvk_error *error)
{
	struct kvk_core *core;
	uint64_t writer_id;
	bool made;
	int err;

	core = kvk_mem_zalloc(1, sizeof(*core));
	if (!core)
		return kvk_error_set(error, -ENOMEM, NULL, "out of memory");
	core->pid = getpid();
	for (int i = 0; i < KVK_QUEUE_COUNT; i++)
		core->queues[i].event_fd = -1;     /* from here on kvk_core_free() undoes whatever was done */
	kvk_list_init(&core->tasks);
	pthread_mutex_init(&core->tasks_lock, NULL);
	kvk_waiting_init(&core->waiting);
	kvk_quotas_init(&core->quotas);
	kvk_news_init(&core->news);
	kvk_notices_init(&core->notices, hooks);
	core->log = (struct kvk_log_sink){ .user = &core->notices, .line = kvk_notices_line };

	err = kvk_spec_parse(&core->spec, json, error);
	if (err)
		goto fail;
	if (getrandom(&writer_id, sizeof(writer_id), 0) != sizeof(writer_id)) {
		err = kvk_error_set(error, -EIO, NULL, "no random numbers from the kernel");
		goto fail;
	}
	for (int i = 0; i < KVK_QUEUE_COUNT && !err; i++)
		err = kvk_result_queue_init(&core->queues[i]);
	if (err) {
		kvk_error_set(error, err, NULL, "cannot make event descriptors: %s", strerror(-err));
		goto fail;
	}
	err = open_backend(core, writer_id, error);
	if (err)
		goto fail;
	look_at_medium(core);
	err = kvk_superblock_settle(&core->superblock, &made, core->backend, &core->spec.wish, error);
	if (err)
		goto fail;
	if (core->spec.manifest && strcmp(core->spec.manifest, "{}") && !core->spec.wish.visitor)
		err = kvk_namespace_keep(core->backend, core->spec.namespace_digest, core->spec.manifest, error);
	if (err)
		goto fail;
	err = open_account(core, made, error);
	if (err)
		goto fail;
	err = open_catalog(core);
	if (!err)
		err = open_adapter(core, writer_id, error);
	if (err) {
		kvk_error_set(error, err, NULL, "%s", strerror(-err));
		goto fail;
	}
	err = open_agent(core, error);
	if (err)
		goto fail;
	*ret = core;
	return 0;

fail:
	leave_account(core);
	kvk_core_free(core);
	return err;
}

int kvk_core_check(const struct kvk_core *core)
{
	if (core->pid != getpid())
		return -ECHILD;
	return atomic_load(&core->closing) ? -ESHUTDOWN : 0;
}

/* Nothing is left in any bucket. */
static int forget_account(struct kvk_core *core)
{
	struct kvk_bucket_finding findings[KVK_BUCKETS] = { 0 };
	struct kvk_xfer sync;
	int err;

	kvk_xfer_init(&sync, KVK_XFER_SYNC_ALL, NULL, NULL);
	core->backend->ops->run(core->backend, &sync);
	atomic_fetch_add(&core->settle_steps, 1);
	/* What others and this process posted last: a finding that is older than it says nothing of their buckets. */
	err = kvk_account_reconcile(core->account, findings, 0, ACCOUNT_WAIT_MS);
	if (err)
		return err;
	kvk_account_pass_begin(core->account);
	for (uint32_t i = 0; i < KVK_BUCKETS; i++) {
		kvk_account_finding(core->account, &findings[i], i);
		findings[i].may_lower = sync.result >= 0;
	}
	err = kvk_account_reconcile(core->account, findings, KVK_BUCKETS, ACCOUNT_WAIT_MS);
	atomic_fetch_add(&core->settle_steps, 1);
	return err ? err : kvk_account_pass_end(core->account);
}

/*
 * The last one out removes everything, if it said itself that the store is not to persist. What the superblock says is what
 * another process wished: it may have been killed, and whoever comes later to look would remove what it was to look at.
 */
static void forget(struct kvk_core *core)
{
	int err;

	if (core->spec.wish.values.persist || core->spec.wish.visitor)
		return;
	err = core->backend->ops->hold(core->backend, true);
	if (!err)
		err = core->adapter->ops->remove_all(core->adapter);
	if (!err)
		err = forget_account(core);
	if (err && err != -EBUSY)
		kvk_log(&core->log, KVK_LOG_ERROR, "persist_enabled is false, but objects could not be removed: %s",
			strerror(-err));
}

int kvk_core_stop(struct kvk_core *core, uint64_t wait_us)
{
	atomic_store(&core->closing, true);
	kvk_waiting_end(core, NULL, 0);
	return kvk_agent_stop(core->agent, wait_us);
}

void kvk_core_settle(struct kvk_core *core)
{
	forget(core);
	atomic_fetch_add(&core->settle_steps, 1);
	leave_account(core);
}

uint64_t kvk_core_settle_steps(struct kvk_core *core)
{
	return atomic_load(&core->settle_steps) + atomic_load(&core->adapter->counts.walked);
}

void kvk_core_abandon(struct kvk_core *core)
{
	/* The threads are not in this process, and locks may have been held by them: only what needs neither. */
	for (int i = 0; i < KVK_QUEUE_COUNT; i++)
		close(core->queues[i].event_fd);
	kvk_account_abandon(core->account);
	kvk_spec_release(&core->spec);
}

void kvk_core_trouble(struct kvk_core *core, int status)
{
	atomic_store(&core->trouble, status);
	atomic_store(&core->trouble_us, kvk_now_us());
}

int kvk_core_set_cap(struct kvk_core *core, uint64_t cap_bytes)
{
	int err = kvk_account_set_cap(core->account, cap_bytes);

	if (!err)
		err = kvk_superblock_set_cap(core->backend, cap_bytes);
	kvk_room_ring(core);
	return err;
}
