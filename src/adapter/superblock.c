/* SPDX-License-Identifier: Apache-2.0 */
/* `.kvkeep/superblock`: what is said once per store, and who may change it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "adapter/adapter.h"
#include "util/alloc.h"
#include "util/clock.h"
#include "util/error.h"

#define NAME "superblock"
/* Another process that opens, or is the last to close, holds the store alone for this long at most. */
#define HOLD_TRIES 200
#define HOLD_PAUSE_NS 10000000
/* The process that had the pool may just be ending. */
#define POOL_WAIT_MS 500

static const char *durability_text(enum kvk_durability durability)
{
	static const char *const texts[] = { "none", "batch", "object" };

	return texts[durability];
}

static const char *naming_text(enum kvk_naming naming)
{
	return naming == KVK_NAMING_LMCACHE ? "lmcache" : "kvkeep";
}

static int load(struct kvk_superblock *ret, struct kvk_backend *backend, struct kvk_error *error)
{
	uint64_t bytes;
	void *data;
	int err = backend->ops->load_file(backend, NAME, &data, &bytes, 2 * KVK_SUPERBLOCK_BYTES);

	if (err == -ENOENT)
		return err;
	if (err)
		return kvk_error_set(error, err, "backend_params.file_path", "cannot read .kvkeep/" NAME ": %s",
				     strerror(-err));
	err = kvk_superblock_parse(ret, data, bytes);
	kvk_mem_free(data);
	if (err == -EPROTO)
		kvk_error_set(error, err, "backend_params.file_path", "this store was written by a newer version of "
			      "kvkeep: use that version, or another directory");
	else if (err)
		kvk_error_set(error, err, "backend_params.file_path", ".kvkeep/" NAME " is damaged; the objects are not: move "
			      "it away and open again to make it anew");
	return err;
}

static int save(const struct kvk_superblock *superblock, struct kvk_backend *backend, struct kvk_error *error)
{
	uint8_t data[KVK_SUPERBLOCK_BYTES];
	int err;

	kvk_superblock_encode(superblock, data);
	err = backend->ops->save_file(backend, NAME, data, sizeof(data), false);
	if (err)
		return kvk_error_set(error, err, "backend_params.file_path", "cannot write .kvkeep/" NAME ": %s",
				     strerror(-err));
	return 0;
}

/* 1: alone. 0: together with others. */
static int hold(struct kvk_backend *backend, struct kvk_error *error)
{
	struct timespec pause = { .tv_nsec = HOLD_PAUSE_NS };
	int err;

	for (int i = 0; i < HOLD_TRIES; i++) {
		err = backend->ops->hold(backend, true);
		if (!err)
			return 1;
		if (err == -EBUSY)
			err = backend->ops->hold(backend, false);
		if (!err)
			return 0;
		if (err != -EBUSY)
			break;
		nanosleep(&pause, NULL);
	}
	return kvk_error_set(error, err, "backend_params.file_path", err == -EBUSY
			     ? "another process holds this store alone" : "cannot lock the store: %s",
			     strerror(-err));
}

/* A pool belongs to one process: its map is in that one's memory. */
static int own_pool(const struct kvk_superblock *superblock, struct kvk_backend *backend, struct kvk_error *error)
{
	int err = superblock->pool.slot_bytes ? backend->ops->lock(backend, KVK_LOCK_POOL, POOL_WAIT_MS) : 0;

	if (err)
		return kvk_error_set(error, err, "backend_params.file_path", err == -EBUSY
				     ? "another process has this pool open, and a pool belongs to one process"
				     : "cannot lock the pool: %s", strerror(-err));
	return 0;
}

static int check_pool(const struct kvk_pool_shape *is, const struct kvk_superblock_wish *wish, struct kvk_error *error)
{
	const struct kvk_pool_shape *want = &wish->values.pool;
	bool on_device = is->file_slots == KVK_POOL_SLOTS_MAX, wants_device = want->file_slots == KVK_POOL_SLOTS_MAX;

	if (wish->says_cap)
		return kvk_error_set(error, -EINVAL, "backend_params.max_capacity_gb", "the cap of a pool is its size: say "
				     "pool_size");
	if (wish->says_slot_bytes && want->slot_bytes != is->slot_bytes)
		return kvk_error_set(error, -EINVAL, "slot_size", "this pool was made with slots of %llu bytes, which is fixed; "
				     "asked for %llu", (unsigned long long)is->slot_bytes,
				     (unsigned long long)want->slot_bytes);
	if (wish->says_slots && !wish->visitor && want->slots < is->slots)
		return kvk_error_set(error, -EINVAL, "pool_size", "this pool has %llu slots and can only grow; asked for %llu: "
				     "for a smaller one remove this one", (unsigned long long)is->slots,
				     (unsigned long long)want->slots);
	if (on_device != wants_device)
		return kvk_error_set(error, -EINVAL, "backend_params.device_path", on_device
				     ? "this pool lies on a device: say which" : "this pool lies in files, not on a device");
	if (wish->says_file_slots && want->file_slots != is->file_slots)
		return kvk_error_set(error, -EINVAL, "file_size", "this pool was made with %llu slots a file, which is fixed; "
				     "asked for %llu", (unsigned long long)is->file_slots,
				     (unsigned long long)want->file_slots);
	return 0;
}

static int check_fixed(const struct kvk_superblock *is, const struct kvk_superblock_wish *wish,
		       struct kvk_error *error)
{
	const struct kvk_superblock *want = &wish->values;

	if (wish->says_type && !want->pool.slot_bytes != !is->pool.slot_bytes)
		return kvk_error_set(error, -EINVAL, "type", "this store was made as \"%s\", which is fixed",
				     is->pool.slot_bytes ? "nixl_store" : "nixl_store_dynamic");
	if (wish->says_naming && want->layout.naming != is->layout.naming)
		return kvk_error_set(error, -EINVAL, "naming", "this store was made with naming \"%s\", which is fixed; "
				     "asked for \"%s\"", naming_text(is->layout.naming),
				     naming_text(want->layout.naming));
	if (wish->says_levels && want->layout.levels != is->layout.levels)
		return kvk_error_set(error, -EINVAL, is->layout.naming == KVK_NAMING_LMCACHE
				     ? "backend_params.shard_dirs" : "max_objects",
				     "this store was made with %u folder levels, which is fixed; asked for %u",
				     is->layout.levels, want->layout.levels);
	if (wish->says_group && want->group != is->group)
		return kvk_error_set(error, -EINVAL, "group", "this store was made with \"group\": %s, which is fixed; "
				     "asked for %s", is->group ? "true" : "false", want->group ? "true" : "false");
	return is->pool.slot_bytes ? check_pool(&is->pool, wish, error) : 0;
}

/* Each opening of a pool is counted, so that what is put later has the higher generation. */
static bool count_pool(struct kvk_superblock *is, const struct kvk_superblock_wish *wish)
{
	if (!is->pool.slot_bytes)
		return false;
	if (wish->says_slots && !wish->visitor)
		is->pool.slots = wish->values.pool.slots;
	is->pool.opens++;
	is->cap_bytes = is->pool.slots * is->pool.slot_bytes;
	return true;
}

/* Takes what may change from the wish. Alone: it is taken over. Otherwise it must agree. */
static int settle_changes(struct kvk_superblock *is, const struct kvk_superblock_wish *wish, bool alone,
			  bool *changed, struct kvk_error *error)
{
	const struct kvk_superblock *want = &wish->values;
	bool cap = wish->says_cap && !wish->visitor && want->cap_bytes != is->cap_bytes;
	bool durability = wish->says_durability && !wish->visitor && want->durability != is->durability;
	bool persist = wish->says_persist && !wish->visitor && want->persist != is->persist;

	if (!alone && cap)
		return kvk_error_set(error, -EBUSY, "backend_params.max_capacity_gb", "another process has this store open "
				     "with a cap of %llu bytes; asked for %llu", (unsigned long long)is->cap_bytes,
				     (unsigned long long)want->cap_bytes);
	if (!alone && durability)
		return kvk_error_set(error, -EBUSY, "durability", "another process has this store open with \"%s\"; asked "
				     "for \"%s\"", durability_text(is->durability),
				     durability_text(want->durability));
	if (!alone && persist)
		return kvk_error_set(error, -EBUSY, "persist_enabled", "another process has this store open with %s; asked "
				     "for %s", is->persist ? "true" : "false", want->persist ? "true" : "false");
	if (cap)
		is->cap_bytes = want->cap_bytes;
	if (durability)
		is->durability = want->durability;
	if (persist)
		is->persist = want->persist;
	*changed = cap || durability || persist;
	return 0;
}

/*
 * What was written aside beside the objects by who died before it got its name: a snapshot may be as long as 1 GiB, and no account
 * has it. While this process has the store alone nobody is about to give it one; the trial of who waits for the store is locked.
 */
static void sweep_beside(struct kvk_backend *backend)
{
	static const char *const folders[] = { ".kvkeep", ".kvkeep/namespaces" };
	const struct kvk_layout layout = { .naming = KVK_NAMING_KVKEEP, .levels = 1 };

	for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
		struct kvk_names names = { 0 };
		char path[KVK_NAME_BYTES_MAX];   /* a name in a folder has 255 bytes at most */

		/* What cannot be removed now is in nobody's way. */
		backend->ops->list(backend, folders[i], &names);
		for (uint32_t n = 0; n < names.count; n++) {
			if (kvk_name_kind(names.names[n], &layout, NULL) != KVK_NAME_TEMP)
				continue;
			snprintf(path, sizeof(path), "%s/%s", folders[i], names.names[n]);
			backend->ops->sweep(backend, path);
		}
		kvk_names_release(&names);
	}
}

int kvk_superblock_settle(struct kvk_superblock *ret, bool *made_ret, struct kvk_backend *backend,
			  const struct kvk_superblock_wish *wish, struct kvk_error *error)
{
	struct kvk_superblock is;
	bool changed = false, made = false;
	int alone, err;

	err = load(&is, backend, error);
	if (err == -ENOENT && !wish->create)
		return kvk_error_set(error, err, "backend_params.file_path", "there is no store here, and \"create\" is "
				     "false");
	if (err && err != -ENOENT)
		return err;
	err = own_pool(err ? &wish->values : &is, backend, error);
	if (err)
		return err;
	alone = hold(backend, error);
	if (alone < 0)
		return alone;
	if (alone && !wish->visitor)
		sweep_beside(backend);
	/* Whoever held it alone until now may have made or changed it. */
	err = load(&is, backend, error);
	if (err == -ENOENT && alone) {
		if (wish->values.pool.slot_bytes && !wish->values.pool.slots)
			return kvk_error_set(error, -EINVAL, "pool_size", "is missing: how many slots the pool is to have");
		is = wish->values;
		count_pool(&is, wish);
		is.created_ns = kvk_wall_ns();
		if (getrandom(is.store_id, sizeof(is.store_id), 0) != sizeof(is.store_id))
			return kvk_error_set(error, -EIO, NULL, "no random numbers from the kernel");
		err = save(&is, backend, error);
		made = true;
	} else if (!err) {
		err = check_fixed(&is, wish, error);
		if (!err)
			err = own_pool(&is, backend, error);
		if (!err)
			err = settle_changes(&is, wish, alone, &changed, error);
		if (!err)
			changed |= count_pool(&is, wish);
		if (!err && changed)
			err = save(&is, backend, error);
	}
	if (!err && alone)
		err = backend->ops->hold(backend, false);
	if (err)
		return kvk_error_set(error, err, "backend_params.file_path", "cannot settle the store's settings: %s",
				     strerror(-err));
	*ret = is;
	*made_ret = made;
	return 0;
}

int kvk_superblock_set_cap(struct kvk_backend *backend, uint64_t cap_bytes)
{
	struct kvk_superblock is;
	int err = load(&is, backend, NULL);

	if (err)
		return err;
	is.cap_bytes = cap_bytes;
	return save(&is, backend, NULL);
}
