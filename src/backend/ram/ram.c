/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/ram/ram.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "backend/backend.h"
#include "backend/ram/media.h"
#include "format/format.h"
#include "util/alloc.h"
#include "util/clock.h"
#include "util/error.h"

struct ram {
	struct kvk_backend base;
	struct kvk_ram_medium *medium;
};

struct ram_place {
	struct kvk_ram_node *node;
	bool writable;
};

static struct kvk_ram_tree *tree_of(struct kvk_backend *backend)
{
	return &kvk_container_of(backend, struct ram, base)->medium->tree;
}

static struct ram_place *place_of(const struct kvk_xfer *xfer)
{
	return (struct ram_place *)(void *)xfer->place;
}

/* 1: text is a decimal number. 0: it is something else. -ERANGE: it does not fit. */
static int parse_bytes(const char *text, uint64_t *ret)
{
	uint64_t bytes = 0;

	if (!text[0] || text[strspn(text, "0123456789")])
		return 0;
	for (; *text; text++) {
		if (__builtin_mul_overflow(bytes, (uint64_t)10, &bytes) ||
		    __builtin_add_overflow(bytes, (uint64_t)(*text - '0'), &bytes))
			return -ERANGE;
	}
	*ret = bytes;
	return 1;
}

/* ---- open and close ---------------------------------------------------------------------------------- */

static int ram_open(struct kvk_backend **ret, const struct kvk_backend_options *options, struct kvk_error *error)
{
	uint64_t limit_bytes = UINT64_MAX;
	int number = options->path ? parse_bytes(options->path, &limit_bytes) : 1;
	struct ram *ram;

	if (number < 0)
		return kvk_error_set(error, number, NULL, "a medium in memory of %s bytes is more than can be counted",
				     options->path);
	ram = kvk_mem_zalloc(1, sizeof(*ram));
	if (!ram)
		goto no_memory;
	ram->medium = number ? kvk_ram_medium_new("", limit_bytes) : kvk_ram_medium_share(options->path);
	if (!ram->medium) {
		kvk_mem_free(ram);
		goto no_memory;
	}
	ram->base.ops = &kvk_backend_ram;
	kvk_syncs_init(&ram->base.syncs);
	ram->base.caps = (struct kvk_backend_caps){
		.medium = "ram",
		.align_memory_bytes = 1,
		.align_offset_bytes = 1,
		.nowait = true,
		.exchange = true,
		.birth_time = true,
		.local = true,
		.publish = "in memory",
	};
	if (options->direct)
		snprintf(ram->base.caps.direct_note, sizeof(ram->base.caps.direct_note),
			 "a medium in memory has no page cache to bypass");
	snprintf(ram->base.caps.ring_note, sizeof(ram->base.caps.ring_note),
		 "a medium in memory carries everything out at once");
	*ret = &ram->base;
	return 0;

no_memory:
	return kvk_error_set(error, -ENOMEM, NULL, "not enough memory to open a medium in memory");
}

static void ram_close(struct kvk_backend *backend)
{
	struct ram *ram;

	if (!backend)
		return;
	ram = kvk_container_of(backend, struct ram, base);
	kvk_ram_locks_give_all(&ram->medium->locks, backend);
	kvk_ram_medium_drop(ram->medium);
	kvk_syncs_release(&ram->base.syncs);
	kvk_mem_free(ram);
}

/* ---- transfers --------------------------------------------------------------------------------------- */

static int run_open(struct kvk_ram_tree *tree, struct kvk_xfer *xfer)
{
	bool create = xfer->op == KVK_XFER_CREATE;
	struct ram_place *place;
	struct kvk_stat found;
	int err;

	if (xfer->flags & KVK_XFER_DEVICE)
		return -EOPNOTSUPP;
	place = kvk_mem_zalloc(1, sizeof(*place));
	if (!place)
		return -ENOMEM;
	if (create && (xfer->flags & KVK_XFER_IF_ABSENT) && !kvk_ram_tree_stat_name(tree, xfer->name, &found)) {
		kvk_mem_free(place);
		return -EEXIST;
	}
	place->writable = create || (xfer->flags & KVK_XFER_WRITABLE);
	err = create ? kvk_ram_tree_create(tree, xfer->name, &place->node)
		     : kvk_ram_tree_open(tree, xfer->name, &place->node);
	if (err) {
		kvk_mem_free(place);
		return err;
	}
	if (!create)
		kvk_ram_tree_stat(tree, place->node, &xfer->stat);
	xfer->place = (struct kvk_place *)(void *)place;
	return 0;
}

static int64_t run_read(struct kvk_xfer *xfer)
{
	struct kvk_ram_node *node = place_of(xfer)->node;
	uint64_t offset = xfer->offset_bytes;
	uint64_t moved_bytes = 0;

	pthread_rwlock_rdlock(&node->lock);
	for (uint32_t i = 0; i < xfer->iov_count; i++) {
		struct iovec *iov = &xfer->iov[i];
		uint64_t part = kvk_ram_bytes_read(&node->bytes, iov->iov_base, iov->iov_len, offset);

		moved_bytes += part;
		offset += part;
		if (part < iov->iov_len)
			break;
	}
	pthread_rwlock_unlock(&node->lock);
	atomic_store(&node->accessed_ns, kvk_wall_ns());
	return (int64_t)moved_bytes;
}

static int64_t run_write(struct kvk_ram_tree *tree, struct kvk_xfer *xfer)
{
	struct ram_place *place = place_of(xfer);
	struct kvk_ram_node *node = place->node;
	uint64_t offset = xfer->offset_bytes;
	uint64_t moved_bytes = 0;
	int64_t part = 0;

	if (!place->writable)
		return -EBADF;
	pthread_rwlock_wrlock(&node->lock);
	for (uint32_t i = 0; i < xfer->iov_count; i++) {
		struct iovec *iov = &xfer->iov[i];

		part = kvk_ram_bytes_write(&node->bytes, &tree->space, iov->iov_base, iov->iov_len, offset);
		if (part < 0)
			break;
		moved_bytes += (uint64_t)part;
		offset += (uint64_t)part;
		if ((uint64_t)part < iov->iov_len)
			break;
	}
	pthread_rwlock_unlock(&node->lock);
	atomic_store(&node->modified_ns, kvk_wall_ns());
	return part < 0 && moved_bytes == 0 ? part : (int64_t)moved_bytes;
}

/* Holds nothing back: it only tells early what a write would tell late. */
static int run_reserve(struct kvk_ram_tree *tree, struct kvk_xfer *xfer)
{
	struct ram_place *place = place_of(xfer);
	uint64_t free_bytes;
	uint64_t total_bytes;
	struct kvk_stat stat;

	if (!place->writable)
		return -EBADF;
	kvk_ram_tree_stat(tree, place->node, &stat);
	kvk_ram_space_usage(&tree->space, &free_bytes, &total_bytes);
	return xfer->offset_bytes > stat.bytes && xfer->offset_bytes - stat.bytes > free_bytes ? -ENOSPC : 0;
}

static void run_close(struct kvk_ram_tree *tree, struct kvk_xfer *xfer)
{
	struct ram_place *place = place_of(xfer);

	kvk_ram_tree_put(tree, place->node);
	kvk_mem_free(place);
	xfer->place = NULL;
}

static void ram_run(struct kvk_backend *backend, struct kvk_xfer *xfer)
{
	struct kvk_ram_tree *tree = tree_of(backend);

	xfer->result = 0;
	switch (xfer->op) {
	case KVK_XFER_OPEN:
	case KVK_XFER_CREATE:
		xfer->result = run_open(tree, xfer);
		return;
	case KVK_XFER_READ:
		xfer->result = run_read(xfer);
		return;
	case KVK_XFER_WRITE:
		xfer->result = run_write(tree, xfer);
		return;
	case KVK_XFER_RESERVE:
		xfer->result = run_reserve(tree, xfer);
		return;
	case KVK_XFER_SYNC:
	case KVK_XFER_SYNC_ALL:
		return;
	case KVK_XFER_SYNC_FOLDER:
		xfer->result = kvk_ram_tree_folder(tree, xfer->name, false);
		return;
	case KVK_XFER_STAT:
		kvk_ram_tree_stat(tree, place_of(xfer)->node, &xfer->stat);
		return;
	case KVK_XFER_PUBLISH:
		xfer->result = kvk_ram_tree_link(tree, xfer->name, place_of(xfer)->node, false);
		return;
	case KVK_XFER_MOVE:
		xfer->result = kvk_ram_tree_move(tree, xfer->name, xfer->name2);
		return;
	case KVK_XFER_EXCHANGE:
		xfer->result = kvk_ram_tree_exchange(tree, xfer->name, xfer->name2);
		return;
	case KVK_XFER_UNLINK:
		xfer->result = kvk_ram_tree_unlink(tree, xfer->name);
		return;
	case KVK_XFER_CLOSE:
		run_close(tree, xfer);
		return;
	case KVK_XFER_STAT_NAME:
		xfer->result = kvk_ram_tree_stat_name(tree, xfer->name, &xfer->stat);
		return;
	case KVK_XFER_TOUCH:
		atomic_store(&place_of(xfer)->node->accessed_ns, kvk_wall_ns());
		return;
	case KVK_XFER_OP_COUNT:
		break;
	}
	xfer->result = -EINVAL;
}

/* ---- small files ------------------------------------------------------------------------------------- */

/* The path of a small file, to be freed; NULL when memory is short. */
static char *side_path(const char *name)
{
	size_t bytes = sizeof(SIDE_FOLDER) + strlen(name);
	char *path = kvk_mem_alloc(bytes);

	if (path)
		snprintf(path, bytes, "%s%s", SIDE_FOLDER, name);
	return path;
}

static int load_node(struct kvk_ram_node *node, void **data_ret, uint64_t *bytes_ret, uint64_t max_bytes)
{
	uint64_t bytes;
	void *data = NULL;
	int err = 0;

	pthread_rwlock_rdlock(&node->lock);
	bytes = node->bytes.length_bytes;
	if (bytes > max_bytes) {
		err = -EFBIG;
		goto out;
	}
	data = kvk_mem_alloc(bytes ? bytes : 1);
	if (!data) {
		err = -ENOMEM;
		goto out;
	}
	kvk_ram_bytes_read(&node->bytes, data, bytes, 0);
	*data_ret = data;
	*bytes_ret = bytes;
out:
	pthread_rwlock_unlock(&node->lock);
	return err;
}

static int ram_load_file(struct kvk_backend *backend, const char *name, void **data_ret, uint64_t *bytes_ret,
			 uint64_t max_bytes)
{
	struct kvk_ram_tree *tree = tree_of(backend);
	struct kvk_ram_node *node;
	char *path = side_path(name);
	int err;

	if (!path)
		return -ENOMEM;
	err = kvk_ram_tree_open(tree, path, &node);
	if (!err) {
		err = load_node(node, data_ret, bytes_ret, max_bytes);
		kvk_ram_tree_put(tree, node);
	}
	kvk_mem_free(path);
	return err;
}

static int ram_save_file(struct kvk_backend *backend, const char *name, const void *data, uint64_t bytes, bool keep)
{
	struct kvk_ram_tree *tree = tree_of(backend);
	struct kvk_ram_node *node;
	char *path = side_path(name);
	int64_t written;
	int err;

	if (!path)
		return -ENOMEM;
	err = kvk_ram_tree_create(tree, path, &node);
	if (err)
		goto out;
	/* Nobody else knows the node yet, so its lock is not needed. */
	written = kvk_ram_bytes_write(&node->bytes, &tree->space, data, bytes, 0);
	if (written < 0)
		err = (int)written;
	else if ((uint64_t)written < bytes)
		err = -ENOSPC;
	else
		err = kvk_ram_tree_link(tree, path, node, !keep);
	kvk_ram_tree_put(tree, node);
out:
	kvk_mem_free(path);
	return err;
}

static int update_node(struct kvk_ram_tree *tree, struct kvk_ram_node *node, uint64_t offset_bytes, const void *data,
		       uint64_t bytes)
{
	int64_t written;

	pthread_rwlock_wrlock(&node->lock);
	written = kvk_ram_bytes_write(&node->bytes, &tree->space, data, bytes, offset_bytes);
	pthread_rwlock_unlock(&node->lock);
	if (written < 0)
		return (int)written;
	return (uint64_t)written < bytes ? -ENOSPC : 0;
}

static int ram_update_file(struct kvk_backend *backend, const char *name, uint64_t offset_bytes, const void *data,
			   uint64_t bytes)
{
	struct kvk_ram_tree *tree = tree_of(backend);
	struct kvk_ram_node *node;
	char *path = side_path(name);
	int err;

	if (!path)
		return -ENOMEM;
	err = kvk_ram_tree_open(tree, path, &node);
	if (err == -ENOENT) {
		err = kvk_ram_tree_create(tree, path, &node);
		if (err)
			goto out;
		err = kvk_ram_tree_link(tree, path, node, false);
		/* Another backend of this medium was faster. */
		if (err == -EEXIST) {
			kvk_ram_tree_put(tree, node);
			err = kvk_ram_tree_open(tree, path, &node);
			if (err)
				goto out;
		}
	} else if (err) {
		goto out;
	}
	if (!err)
		err = update_node(tree, node, offset_bytes, data, bytes);
	kvk_ram_tree_put(tree, node);
out:
	kvk_mem_free(path);
	return err;
}

/* ---- locks ------------------------------------------------------------------------------------------- */

static struct kvk_ram_locks *locks_of(struct kvk_backend *backend)
{
	return &kvk_container_of(backend, struct ram, base)->medium->locks;
}

static int ram_lock(struct kvk_backend *backend, uint32_t byte, uint32_t wait_ms)
{
	return kvk_ram_locks_take(locks_of(backend), backend, byte, wait_ms);
}

static void ram_unlock(struct kvk_backend *backend, uint32_t byte)
{
	kvk_ram_locks_give(locks_of(backend), backend, byte);
}

static int ram_is_locked(struct kvk_backend *backend, uint32_t byte)
{
	return kvk_ram_locks_taken(locks_of(backend), backend, byte);
}

/* ---- the rest ---------------------------------------------------------------------------------------- */

static int ram_list(struct kvk_backend *backend, const char *folder, struct kvk_names *names)
{
	return kvk_ram_tree_list(tree_of(backend), folder, names);
}

static int ram_folder_time(struct kvk_backend *backend, const char *folder, uint64_t *modified_ns)
{
	struct kvk_ram_tree *tree = tree_of(backend);
	struct kvk_stat stat;
	int err = 0;

	if (*folder)
		err = kvk_ram_tree_stat_name(tree, folder, &stat);
	else
		kvk_ram_tree_stat(tree, &tree->root, &stat);
	if (!err && stat.regular)
		err = -ENOTDIR;
	if (!err)
		*modified_ns = stat.modified_ns;
	return err;
}

static int ram_list_stat(struct kvk_backend *backend, const char *folder, const struct kvk_listing *listing,
			 uint64_t *modified_ns)
{
	uint64_t before_ns, after_ns;
	struct kvk_names names = { 0 };
	bool going_on = true;
	int err = backend->ops->folder_time(backend, folder, &before_ns);

	if (!err)
		err = ram_list(backend, folder, &names);
	for (uint32_t i = 0; i < names.count && going_on && !err; i++) {
		char path[KVK_NAME_BYTES_MAX];
		struct kvk_stat stat;

		if (!listing->wanted(listing->user, names.names[i]) ||
		    snprintf(path, sizeof(path), "%s%s%s", folder, *folder ? "/" : "", names.names[i]) >=
		    (int)sizeof(path) ||
		    kvk_ram_tree_stat_name(tree_of(backend), path, &stat))
			continue;
		going_on = listing->visit(listing->user, names.names[i], &stat);
	}
	if (!err)
		err = backend->ops->folder_time(backend, folder, &after_ns);
	kvk_names_release(&names);
	if (err)
		return err;
	*modified_ns = before_ns;
	return after_ns == before_ns ? 0 : -EAGAIN;
}

/* Coarser than what changes are stamped with, so never later. */
static int ram_now(struct kvk_backend *backend, uint64_t *now_ns)
{
	*now_ns = kvk_tick_ns();
	return 0;
}

static int ram_space(struct kvk_backend *backend, struct kvk_space *ret)
{
	struct kvk_space space = { 0 };

	kvk_ram_space_usage(&tree_of(backend)->space, &space.free_bytes, &space.total_bytes);
	*ret = space;
	return 0;
}

/* Memory is seen by one process, which is never in its own way. */
static int ram_hold(struct kvk_backend *backend, bool exclusive)
{
	return 0;
}

/* An unpublished place has no name here, and who put something aside lives as long as the medium: nothing is ever left to sweep. */
static int ram_sweep(struct kvk_backend *backend, const char *name)
{
	const char *slash = strrchr(name, '/');
	struct kvk_stat stat;

	if (!kvk_name_is_aside(slash ? slash + 1 : name) || kvk_ram_tree_stat_name(tree_of(backend), name, &stat))
		return -ENOENT;
	return -EBUSY;
}

const struct kvk_backend_ops kvk_backend_ram = {
	.name = "ram",
	.open = ram_open,
	.close = ram_close,
	.run = ram_run,
	.load_file = ram_load_file,
	.save_file = ram_save_file,
	.update_file = ram_update_file,
	.list = ram_list,
	.list_stat = ram_list_stat,
	.folder_time = ram_folder_time,
	.now = ram_now,
	.space = ram_space,
	.hold = ram_hold,
	.lock = ram_lock,
	.unlock = ram_unlock,
	.is_locked = ram_is_locked,
	.sweep = ram_sweep,
};
