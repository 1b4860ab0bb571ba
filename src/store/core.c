/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and closing. */
#include "store/core.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "backend/fault/fault.h"
#include "util/alloc.h"
#include "util/clock.h"
#include "util/error.h"

/* Damaged objects that are kept for a person to look at: 1 % of the cap, or this. */
#define QUARANTINE_BYTES (UINT64_C(1) << 30)

/* One process has the whole cap: what is used and was not leased takes from the room. */
void kvk_core_square_room(struct kvk_core *core)
{
	static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
	uint64_t cap_bytes = core->superblock.cap_bytes;
	struct kvk_catalog_totals totals;
	uint64_t room_bytes, taken_bytes;

	if (cap_bytes == 0)
		return;
	pthread_mutex_lock(&one_at_a_time);
	/* Until no put reserved or gave back while it was added up. */
	do {
		room_bytes = kvk_catalog_room(core->catalog);
		kvk_catalog_totals(core->catalog, &totals);
	} while (room_bytes != kvk_catalog_room(core->catalog));
	taken_bytes = totals.used_bytes + totals.writing_bytes;
	kvk_catalog_add_room(core->catalog,
			     (int64_t)(taken_bytes < cap_bytes ? cap_bytes - taken_bytes : 0) - (int64_t)room_bytes);
	pthread_mutex_unlock(&one_at_a_time);
}

static void charge_quarantine(void *user, int64_t bytes)
{
	struct kvk_core *core = user;

	if (bytes >= 0)
		kvk_catalog_charge(core->catalog, (uint64_t)bytes);
	else
		kvk_catalog_credit(core->catalog, (uint64_t)-bytes);
	kvk_core_square_room(core);
}

static int open_backend(struct kvk_core *core, uint64_t writer_id, struct kvk_error *error)
{
	const struct kvk_spec *spec = &core->spec;
	const struct kvk_backend_ops *ops = kvk_backend_find(spec->ram ? "ram" : "posix");
	struct kvk_backend_options options = {
		.path = spec->path, .direct = spec->direct, .create = spec->wish.create,
		.group = spec->wish.values.group, .shared = spec->shared,
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

static int open_adapter(struct kvk_core *core, uint64_t writer_id)
{
	uint64_t cap = core->superblock.cap_bytes;
	struct kvk_adapter_options options = {
		.backend = core->backend, .layout = core->superblock.layout,
		.durability = core->superblock.durability,
		.namespace_digest = core->spec.namespace_digest, .writer_id = writer_id,
		.adopted_ns = core->superblock.created_ns,
		.accept_unverified = core->spec.accept_unverified,
		.quarantine_bytes = cap ? cap / 100 : QUARANTINE_BYTES,
		.log = &core->log, .charge = charge_quarantine, .user = core,
	};

	return kvk_dynamic_open(&core->adapter, &options);
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

/* What is still there when opening fails, or when nothing is under way any more. */
void kvk_core_free(struct kvk_core *core)
{
	kvk_agent_free(core->agent);
	if (core->adapter)
		core->adapter->ops->close(core->adapter);
	kvk_catalog_free(core->catalog);
	if (core->backend)
		core->backend->ops->close(core->backend);
	for (int i = 0; i < KVK_QUEUE_COUNT; i++)
		kvk_result_queue_release(&core->queues[i]);
	pthread_mutex_destroy(&core->tasks_lock);
	kvk_notices_release(&core->notices);
	kvk_spec_release(&core->spec);
	kvk_mem_free(core);
}

int kvk_core_open(struct kvk_core **ret, const char *json, const struct kvk_hooks *hooks,
		  struct kvk_error *error)
{
	struct kvk_policy_options policy = { .kind = KVK_POLICY_NOOP };
	struct kvk_core *core;
	uint64_t writer_id;
	int err;

	core = kvk_mem_zalloc(1, sizeof(*core));
	if (!core)
		return kvk_error_set(error, -ENOMEM, NULL, "out of memory");
	core->pid = getpid();
	for (int i = 0; i < KVK_QUEUE_COUNT; i++)
		core->queues[i].event_fd = -1;     /* from here on kvk_core_free() undoes whatever was done */
	kvk_list_init(&core->tasks);
	pthread_mutex_init(&core->tasks_lock, NULL);
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
	err = kvk_superblock_settle(&core->superblock, core->backend, &core->spec.wish, error);
	if (err)
		goto fail;
	if (core->spec.manifest && strcmp(core->spec.manifest, "{}"))
		err = kvk_namespace_keep(core->backend, core->spec.namespace_digest, core->spec.manifest, error);
	if (err)
		goto fail;
	err = kvk_catalog_new(&core->catalog, core->superblock.cap_bytes ? core->superblock.cap_bytes
									 : UINT64_MAX, &policy);
	if (!err)
		err = open_adapter(core, writer_id);
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
	kvk_core_free(core);
	return err;
}

int kvk_core_check(const struct kvk_core *core)
{
	if (core->pid != getpid())
		return -ECHILD;
	return atomic_load(&core->closing) ? -ESHUTDOWN : 0;
}

/* The last one out removes everything, if the store was not to persist. */
static void forget(struct kvk_core *core)
{
	int err;

	if (core->superblock.persist)
		return;
	err = core->backend->ops->hold(core->backend, true);
	if (!err)
		err = core->adapter->ops->remove_all(core->adapter);
	if (err && err != -EBUSY)
		kvk_log(&core->log, KVK_LOG_ERROR, "persist_enabled is false, but objects could not be removed: %s",
			strerror(-err));
}

int kvk_core_stop(struct kvk_core *core, uint64_t wait_us)
{
	int err;

	atomic_store(&core->closing, true);
	err = kvk_agent_stop(core->agent, wait_us);
	if (!err)
		forget(core);
	return err;
}

void kvk_core_abandon(struct kvk_core *core)
{
	/* The threads are not in this process, and locks may have been held by them: only what needs neither. */
	for (int i = 0; i < KVK_QUEUE_COUNT; i++)
		close(core->queues[i].event_fd);
	kvk_spec_release(&core->spec);
}

void kvk_core_trouble(struct kvk_core *core, int status)
{
	atomic_store(&core->trouble, status);
	atomic_store(&core->trouble_us, kvk_now_us());
}
