/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of a pool. One is made as a whole or not at all: blocks for all of it, its head, a sync, and only then its name. Names
 * are fixed, so however often a pool is opened, its files are the same ones.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "adapter/pool/pool.h"
#include "util/alloc.h"
#include "util/clock.h"
#include "util/error.h"

#define OPTION_PATH "backend_params.file_path"
#define OPTION_DEVICE "backend_params.device_path"
#define NAME_BYTES 32
/* A device that begins with so many zeros holds no file system that anybody knows (btrfs begins at 64 KiB). */
#define EMPTY_BYTES (UINT64_C(1) << 20)

static int run(struct kvk_pool *pool, struct kvk_xfer *xfer)
{
	pool->base.backend->ops->run(pool->base.backend, xfer);
	return (int)xfer->result;
}

static int step(struct kvk_pool *pool, enum kvk_xfer_op op, struct kvk_place *place, const char *name, uint64_t offset_bytes)
{
	struct kvk_xfer xfer;

	kvk_xfer_init(&xfer, op, place, name);
	xfer.offset_bytes = offset_bytes;
	return run(pool, &xfer);
}

static uint64_t length_of(const struct kvk_pool *pool, uint32_t file)
{
	uint64_t left = pool->shape.slots - file * pool->shape.file_slots;

	return KVK_POOL_HEAD_BYTES + (left < pool->shape.file_slots ? left : pool->shape.file_slots) * pool->shape.slot_bytes;
}

/* Gives the file blocks up to its length, so that no put finds the disk full; the last page is written so that it has that length
 * also where blocks cannot be had in advance. */
static int extend(struct kvk_pool *pool, struct kvk_place *place, uint64_t bytes, struct kvk_error *error)
{
	int err = step(pool, KVK_XFER_RESERVE, place, NULL, bytes);

	if (err == -ENOSPC || err == -EDQUOT || err == -EFBIG)
		return kvk_error_set(error, err, "pool_size", "there is no room for a file of %llu bytes: %s",
				     (unsigned long long)bytes, strerror(-err));
	if (err)
		kvk_log(&pool->log, KVK_LOG_WARNING, "no blocks in advance for the pool (%s): puts may find the disk full",
			strerror(-err));
	err = kvk_adapter_move(&pool->base, KVK_XFER_WRITE, place, bytes - KVK_PAGE_BYTES, pool->zeros, KVK_PAGE_BYTES);
	if (err)
		return kvk_error_set(error, err, OPTION_PATH, "a file of the pool cannot be written: %s", strerror(-err));
	return 0;
}

static int write_head(struct kvk_pool *pool, struct kvk_place *place, uint32_t file, bool device, uint8_t *page)
{
	struct kvk_pool_head head = {
		.created_ns = kvk_wall_ns(), .slot_bytes = pool->shape.slot_bytes, .file_slots = pool->shape.file_slots,
		.file_index = file, .device = device,
	};
	int err;

	memcpy(head.pool_id, pool->pool_id, sizeof(head.pool_id));
	kvk_pool_head_encode(&head, page);
	err = kvk_adapter_move(&pool->base, KVK_XFER_WRITE, place, 0, page, KVK_PAGE_BYTES);
	return err ? err : step(pool, KVK_XFER_SYNC, place, NULL, 0);
}

/* Whether a head that was read is that of this pool's file. The first one of a pool says which pool it is. */
static int check_head(struct kvk_pool *pool, const struct kvk_pool_head *head, uint32_t file, bool *known, const char *what,
		      const char *option, struct kvk_error *error)
{
	const struct kvk_pool_shape *shape = &pool->shape;

	if (head->slot_bytes != shape->slot_bytes || head->file_slots != shape->file_slots)
		return kvk_error_set(error, -EINVAL, option, "%s was made with slot_size %llu and %llu slots a file, which is "
				     "fixed; asked for %llu and %llu", what, (unsigned long long)head->slot_bytes,
				     (unsigned long long)head->file_slots, (unsigned long long)shape->slot_bytes,
				     (unsigned long long)shape->file_slots);
	if (head->file_index != file || (*known && memcmp(head->pool_id, pool->pool_id, sizeof(pool->pool_id))))
		return kvk_error_set(error, -EINVAL, option, "%s belongs to another pool: move it away", what);
	memcpy(pool->pool_id, head->pool_id, sizeof(pool->pool_id));
	*known = true;
	return 0;
}

static int refuse_head(int err, const char *what, const char *option, struct kvk_error *error)
{
	if (err == -EPROTO)
		return kvk_error_set(error, err, option, "%s was written by a newer version of kvkeep: use that version", what);
	if (err == -EBADMSG || err == -ENODATA)
		return kvk_error_set(error, -EBADMSG, option, "%s does not begin as one of a pool does: if nothing in it is needed, "
				     "move it away and open again", what);
	return kvk_error_set(error, err, option, "%s cannot be read: %s", what, strerror(-err));
}

/* ---- files -------------------------------------------------------------------------------------- */

static void file_name(char name[NAME_BYTES], uint32_t file)
{
	snprintf(name, NAME_BYTES, "pool-%05u.slots", file);
}

/* Opens a file that is there. -ENOENT without an error text. */
static int open_file(struct kvk_pool *pool, uint32_t file, bool *known, uint8_t *page, struct kvk_error *error)
{
	struct kvk_pool_head head;
	char name[NAME_BYTES];
	struct kvk_xfer xfer;
	int err;

	file_name(name, file);
	kvk_xfer_init(&xfer, KVK_XFER_OPEN, NULL, name);
	xfer.flags = KVK_XFER_WRITABLE | KVK_XFER_QUIET;
	err = run(pool, &xfer);
	if (err == -ENOENT)
		return err;
	if (err)
		return kvk_error_set(error, err, OPTION_PATH, "%s cannot be opened: %s", name, strerror(-err));
	pool->places[file] = xfer.place;
	if (!xfer.stat.regular || !xfer.stat.owned)
		return kvk_error_set(error, -EPERM, OPTION_PATH, "%s is another owner's, or no file", name);
	err = kvk_adapter_move(&pool->base, KVK_XFER_READ, xfer.place, 0, page, KVK_PAGE_BYTES);
	if (!err)
		err = kvk_pool_head_parse(&head, page);
	if (err)
		return refuse_head(err, name, OPTION_PATH, error);
	err = check_head(pool, &head, file, known, name, OPTION_PATH, error);
	if (err || xfer.stat.bytes >= length_of(pool, file))
		return err;
	/* The pool was made larger, or somebody cut the file: what is missing is free slots. */
	err = extend(pool, xfer.place, length_of(pool, file), error);
	if (!err)
		err = step(pool, KVK_XFER_SYNC, xfer.place, NULL, 0);
	return err ? kvk_error_set(error, err, OPTION_PATH, "%s cannot be made longer: %s", name, strerror(-err)) : 0;
}

static int make_file(struct kvk_pool *pool, uint32_t file, uint8_t *page, struct kvk_error *error)
{
	char name[NAME_BYTES];
	struct kvk_xfer xfer;
	int err;

	file_name(name, file);
	kvk_xfer_init(&xfer, KVK_XFER_CREATE, NULL, name);
	err = run(pool, &xfer);
	if (err)
		return kvk_error_set(error, err, OPTION_PATH, "%s cannot be made: %s", name, strerror(-err));
	err = extend(pool, xfer.place, length_of(pool, file), error);
	if (!err)
		err = write_head(pool, xfer.place, file, false, page);
	if (!err)
		err = step(pool, KVK_XFER_PUBLISH, xfer.place, name, 0);
	if (!err)
		err = step(pool, KVK_XFER_SYNC_FOLDER, NULL, name, 0);
	step(pool, KVK_XFER_CLOSE, xfer.place, NULL, 0);
	return err ? kvk_error_set(error, err, OPTION_PATH, "%s cannot be made: %s", name, strerror(-err)) : 0;
}

static int new_id(struct kvk_pool *pool, struct kvk_error *error)
{
	if (getrandom(pool->pool_id, sizeof(pool->pool_id), 0) != sizeof(pool->pool_id))
		return kvk_error_set(error, -EIO, NULL, "no random numbers from the kernel");
	return 0;
}

/* A process that died while it made a file may have left a whole file's blocks under a temporary name. */
static void sweep(struct kvk_pool *pool)
{
	const struct kvk_layout layout = { .naming = KVK_NAMING_KVKEEP, .levels = 1 };
	struct kvk_backend *backend = pool->base.backend;
	struct kvk_names names = { 0 };

	/* What cannot be removed now is in nobody's way. */
	backend->ops->list(backend, "", &names);
	for (uint32_t i = 0; i < names.count; i++) {
		if (kvk_name_kind(names.names[i], &layout, NULL) == KVK_NAME_TEMP)
			backend->ops->sweep(backend, names.names[i]);
	}
	kvk_names_release(&names);
}

static int open_files(struct kvk_pool *pool, uint8_t *page, struct kvk_error *error)
{
	bool known = false;
	int err = 0;

	sweep(pool);
	/* Those that are there first: they know which pool this is. */
	for (uint32_t file = 0; file < pool->file_count && !err; file++) {
		err = open_file(pool, file, &known, page, error);
		err = err == -ENOENT ? 0 : err;
	}
	if (!err && !known)
		err = new_id(pool, error);
	known = true;
	for (uint32_t file = 0; file < pool->file_count && !err; file++) {
		if (pool->places[file])
			continue;
		err = make_file(pool, file, page, error);
		if (!err)
			err = open_file(pool, file, &known, page, error);
		if (err == -ENOENT)
			kvk_error_set(error, err, OPTION_PATH, "file %u of the pool is gone as soon as it is made", file);
	}
	return err;
}

/* ---- a device ----------------------------------------------------------------------------------- */

static bool all_zero(const uint8_t *data, uint64_t bytes)
{
	return data[0] == 0 && !memcmp(data, data + 1, bytes - 1);
}

/* A device that is no pool's yet is taken only if it is empty. */
static int take_device(struct kvk_pool *pool, uint64_t device_bytes, uint8_t *page, struct kvk_error *error)
{
	uint64_t bytes = device_bytes < EMPTY_BYTES ? kvk_page_floor(device_bytes) : EMPTY_BYTES;
	bool empty;
	int err;

	for (uint64_t at = 0; at < bytes; at += KVK_PAGE_BYTES) {
		err = kvk_adapter_move(&pool->base, KVK_XFER_READ, pool->places[0], at, page, KVK_PAGE_BYTES);
		if (err)
			return refuse_head(err, "the device", OPTION_DEVICE, error);
		empty = all_zero(page, KVK_PAGE_BYTES);
		if (!empty)
			return kvk_error_set(error, -EEXIST, OPTION_DEVICE, "there is something on the device: if it is not needed, "
					     "overwrite its first MiB with zeros and open again");
	}
	err = new_id(pool, error);
	if (!err && write_head(pool, pool->places[0], 0, true, page))
		err = kvk_error_set(error, -EIO, OPTION_DEVICE, "the device cannot be written");
	return err;
}

static int open_device(struct kvk_pool *pool, const char *path, uint8_t *page, struct kvk_error *error)
{
	uint64_t wanted = length_of(pool, 0);
	struct kvk_pool_head head;
	struct kvk_xfer xfer;
	bool known = false;
	int err;

	kvk_xfer_init(&xfer, KVK_XFER_OPEN, NULL, path);
	xfer.flags = KVK_XFER_DEVICE | KVK_XFER_WRITABLE;
	err = run(pool, &xfer);
	if (err)
		return kvk_error_set(error, err, OPTION_DEVICE, "%s cannot be used: %s", path,
				     err == -EBUSY ? "it is mounted, or another process has it" : strerror(-err));
	pool->places[0] = xfer.place;
	if (xfer.stat.bytes < wanted)
		return kvk_error_set(error, -EINVAL, "pool_size", "%s has room for %llu slots of %llu bytes, not for %llu", path,
				     (unsigned long long)(xfer.stat.bytes < KVK_POOL_HEAD_BYTES ? 0 :
							  (xfer.stat.bytes - KVK_POOL_HEAD_BYTES) / pool->shape.slot_bytes),
				     (unsigned long long)pool->shape.slot_bytes, (unsigned long long)pool->shape.slots);
	err = kvk_adapter_move(&pool->base, KVK_XFER_READ, xfer.place, 0, page, KVK_PAGE_BYTES);
	if (!err)
		err = kvk_pool_head_parse(&head, page);
	if (err == -ENODATA || err == -EBADMSG)
		return take_device(pool, xfer.stat.bytes, page, error);
	if (err)
		return refuse_head(err, path, OPTION_DEVICE, error);
	return check_head(pool, &head, 0, &known, path, OPTION_DEVICE, error);
}

/* ---- both --------------------------------------------------------------------------------------- */

int kvk_pool_files_open(struct kvk_pool *pool, const char *device, struct kvk_error *error)
{
	uint8_t *page = kvk_mem_map(KVK_PAGE_BYTES);
	uint64_t files = (pool->shape.slots + pool->shape.file_slots - 1) / pool->shape.file_slots;
	int err;

	if (device && files > 1) {
		err = kvk_error_set(error, -EINVAL, OPTION_DEVICE, "this pool was made of files");
		goto out;
	}
	pool->places = kvk_mem_zalloc(files, sizeof(struct kvk_place *));
	if (!page || !pool->places) {
		err = kvk_error_set(error, -ENOMEM, NULL, "out of memory");
		goto out;
	}
	pool->file_count = (uint32_t)files;
	err = device ? open_device(pool, device, page, error) : open_files(pool, page, error);
out:
	if (page)
		kvk_mem_unmap(page, KVK_PAGE_BYTES);
	return err;
}

void kvk_pool_files_close(struct kvk_pool *pool)
{
	for (uint32_t file = 0; pool->places && file < pool->file_count; file++) {
		if (pool->places[file])
			step(pool, KVK_XFER_CLOSE, pool->places[file], NULL, 0);
	}
	kvk_mem_free(pool->places);
	pool->places = NULL;
}
