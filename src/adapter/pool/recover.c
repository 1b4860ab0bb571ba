/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a pool holds, from its footers: the last page of every slot is read, by several threads at a time, and what is a whole
 * footer of this pool that says that its object ends there claims its run. Of two that claim a slot (which takes a power cut that
 * kept an old footer and lost what had overwritten it) the later put has it, and the other's footer is zeroed, so that from then
 * on each footer on the medium is that of one object that is known. Payload is not looked at: the loads do that.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "adapter/pool/pool.h"
#include "agent/thread.h"
#include "util/alloc.h"
#include "util/clock.h"
#include "util/error.h"

#define THREADS_MAX 16
/* A thread pays for itself from here on. */
#define SLOTS_PER_THREAD 256
/* What a thread takes at a time. */
#define BATCH_BYTES (UINT64_C(1) << 20)
#define BATCH_SLOTS 64
/* Slots up to here are read as a whole, neighbours in one go: that is faster than a page of each. */
#define WHOLE_BYTES (UINT64_C(16) << 10)

struct recovery {
	struct kvk_pool *pool;
	uint32_t batch_slots;
	atomic_uint_fast64_t next_slot;
	atomic_uint_fast64_t unreadable;
	atomic_int err;
	pthread_mutex_t lock;                  /* guards what follows */
	uint64_t latest;                       /* the highest generation that was seen */
	struct kvk_run *claims;
	uint32_t count;
	uint32_t room;
};

bool kvk_pool_is_of_run(const struct kvk_pool *pool, const struct kvk_footer *footer, const struct kvk_run *run)
{
	return footer->generation == run->generation && footer->writer_id == kvk_pool_writer(pool->pool_id, run->first);
}

static int claim(struct recovery *recovery, const struct kvk_run *run)
{
	int err = 0;

	pthread_mutex_lock(&recovery->lock);
	if (run->generation > recovery->latest)
		recovery->latest = run->generation;
	if (recovery->count == recovery->room) {
		uint32_t room = recovery->room ? recovery->room * 2 : 256;
		struct kvk_run *grown = kvk_mem_realloc(recovery->claims, room * sizeof(*grown));

		if (grown) {
			recovery->claims = grown;
			recovery->room = room;
		} else {
			err = -ENOMEM;
		}
	}
	if (!err)
		recovery->claims[recovery->count++] = *run;
	pthread_mutex_unlock(&recovery->lock);
	return err;
}

/* Whether a footer that is too new to be taken apart says that its object is this pool's and begins in this slot's file, no
 * later than here: whatever else says a newer version is somebody's payload. */
static bool is_newer_object(const struct kvk_pool *pool, const void *data, uint32_t slot)
{
	uint64_t first = kvk_footer_writer(data) - kvk_pool_writer(pool->pool_id, 0);

	return first <= slot && first >= slot - slot % pool->shape.file_slots;
}

/* A whole footer that ends where this slot ends. */
static int look_at_footer(struct recovery *recovery, uint32_t slot, const void *data, uint32_t bytes)
{
	struct kvk_pool *pool = recovery->pool;
	uint64_t slot_bytes = pool->shape.slot_bytes, object_bytes;
	uint32_t in_file = slot % (uint32_t)pool->shape.file_slots;
	uint8_t digest[KVK_DIGEST_BYTES];
	struct kvk_footer footer;
	struct kvk_run run;
	int err = kvk_footer_parse(&footer, digest, data, bytes);

	if (err == -EBADMSG || (err == -EPROTO && !is_newer_object(pool, data, slot)))
		return 0;
	if (err)
		return err;
	object_bytes = kvk_page_ceil(footer.stored_bytes) + bytes;
	if ((object_bytes + slot_bytes - 1) / slot_bytes > in_file + 1)
		return 0;
	run = (struct kvk_run){
		.slots = (uint32_t)((object_bytes + slot_bytes - 1) / slot_bytes), .generation = footer.generation,
		.created_ns = footer.created_ns,
	};
	run.first = slot + 1 - run.slots;
	if (!kvk_pool_is_of_run(pool, &footer, &run))
		return 0;
	memcpy(run.prefix, digest, KVK_PREFIX_BYTES);
	return claim(recovery, &run);
}

static struct kvk_run slot_as_run(uint32_t slot)
{
	return (struct kvk_run){ .first = slot, .slots = 1 };
}

static int look_at_slot(struct recovery *recovery, uint32_t slot, const uint8_t *page)
{
	struct kvk_pool *pool = recovery->pool;
	struct kvk_run run = slot_as_run(slot);
	uint64_t end_bytes = kvk_pool_end_bytes(pool, &run);
	uint32_t footer_bytes;
	uint8_t *data;
	int err;

	if (kvk_trailer_parse(page + KVK_PAGE_BYTES - KVK_TRAILER_BYTES, &footer_bytes) ||
	    footer_bytes > end_bytes - KVK_POOL_HEAD_BYTES)
		return 0;
	if (footer_bytes == KVK_PAGE_BYTES)
		return look_at_footer(recovery, slot, page, KVK_PAGE_BYTES);
	data = kvk_mem_map(footer_bytes);
	if (!data)
		return -ENOMEM;
	err = kvk_adapter_move(&pool->base, KVK_XFER_READ, kvk_pool_place(pool, &run), end_bytes - footer_bytes, data,
			       footer_bytes);
	if (!err)
		err = look_at_footer(recovery, slot, data, footer_bytes);
	kvk_mem_unmap(data, footer_bytes);
	return err;
}

/* What cannot be read is neither known nor free. */
static int not_readable(struct recovery *recovery, uint32_t slot, int err)
{
	if (err != -EIO && err != -ENODATA)
		return err;
	atomic_fetch_add(&recovery->unreadable, 1);
	kvk_pool_map_lose(&recovery->pool->map, slot);
	return 0;
}

static int look_one_by_one(struct recovery *recovery, uint32_t first, uint32_t end, uint8_t *page)
{
	struct kvk_pool *pool = recovery->pool;
	int err = 0;

	for (uint32_t slot = first; slot < end && !err; slot++) {
		struct kvk_run run = slot_as_run(slot);

		err = kvk_adapter_move(&pool->base, KVK_XFER_READ, kvk_pool_place(pool, &run),
				       kvk_pool_end_bytes(pool, &run) - KVK_PAGE_BYTES, page, KVK_PAGE_BYTES);
		if (!err)
			err = look_at_slot(recovery, slot, page);
		if (err)
			err = not_readable(recovery, slot, err);
	}
	return err;
}

/* Slots of one file, up to BATCH_BYTES. */
static int look_at_batch(struct recovery *recovery, uint32_t first, uint32_t end, uint8_t *buffer)
{
	struct kvk_pool *pool = recovery->pool;
	uint64_t slot_bytes = pool->shape.slot_bytes;
	struct kvk_run run = { .first = first, .slots = end - first };
	int err;

	if (slot_bytes > WHOLE_BYTES)
		return look_one_by_one(recovery, first, end, buffer);
	err = kvk_adapter_move(&pool->base, KVK_XFER_READ, kvk_pool_place(pool, &run),
			       kvk_pool_end_bytes(pool, &run) - kvk_pool_run_bytes(pool, &run), buffer,
			       kvk_pool_run_bytes(pool, &run));
	if (err == -EIO || err == -ENODATA)
		return look_one_by_one(recovery, first, end, buffer);
	for (uint32_t slot = first; slot < end && !err; slot++) {
		err = look_at_slot(recovery, slot, buffer + (slot - first + 1) * slot_bytes - KVK_PAGE_BYTES);
		if (err)
			err = not_readable(recovery, slot, err);
	}
	return err;
}

static void *look(void *argument)
{
	struct recovery *recovery = argument;
	struct kvk_pool *pool = recovery->pool;
	uint8_t *buffer = kvk_mem_map(BATCH_BYTES);
	int err = buffer ? 0 : -ENOMEM;

	while (!err && !atomic_load(&recovery->err)) {
		uint64_t first = atomic_fetch_add(&recovery->next_slot, recovery->batch_slots), end, file_end;

		if (first >= pool->shape.slots)
			break;
		end = first + recovery->batch_slots;
		end = end < pool->shape.slots ? end : pool->shape.slots;
		for (; first < end && !err; first = file_end) {
			file_end = (first / pool->shape.file_slots + 1) * pool->shape.file_slots;
			file_end = file_end < end ? file_end : end;
			err = look_at_batch(recovery, (uint32_t)first, (uint32_t)file_end, buffer);
		}
	}
	if (err)
		atomic_store(&recovery->err, err);
	if (buffer)
		kvk_mem_unmap(buffer, BATCH_BYTES);
	return NULL;
}

static void look_at_all(struct recovery *recovery)
{
	uint64_t wanted = recovery->pool->shape.slots / SLOTS_PER_THREAD;
	pthread_t threads[THREADS_MAX];
	uint32_t count = 0;

	/* Fewer threads are slower, not wrong. */
	while (count < THREADS_MAX - 1 && count < wanted &&
	       !kvk_thread_start(&threads[count], "kvk-recover", look, recovery))
		count++;
	look(recovery);
	for (uint32_t i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
}

static int latest_first(const void *a, const void *b)
{
	const struct kvk_run *x = a, *y = b;

	return (x->generation < y->generation) - (x->generation > y->generation);
}

/* Gives each slot to the latest who claims it. */
static int settle(struct recovery *recovery, uint32_t *beaten_ret)
{
	struct kvk_pool *pool = recovery->pool;
	uint32_t beaten = 0;
	bool added;
	int err = 0;

	if (recovery->count > 0)
		qsort(recovery->claims, recovery->count, sizeof(*recovery->claims), latest_first);
	for (uint32_t i = 0; i < recovery->count && !err; i++) {
		const struct kvk_run *run = &recovery->claims[i];

		err = kvk_pool_map_add(&pool->map, run, &added);
		if (err || added)
			continue;
		beaten++;
		/* If it cannot be zeroed, the next open meets it again. */
		kvk_adapter_move(&pool->base, KVK_XFER_WRITE, kvk_pool_place(pool, run),
				 kvk_pool_end_bytes(pool, run) - KVK_PAGE_BYTES, pool->zeros, KVK_PAGE_BYTES);
	}
	*beaten_ret = beaten;
	return err;
}

int kvk_pool_recover(struct kvk_pool *pool, struct kvk_error *error)
{
	struct recovery recovery = { .pool = pool };
	uint64_t start_us = kvk_now_us(), batch = BATCH_BYTES / pool->shape.slot_bytes;
	uint32_t beaten = 0;
	int err;

	recovery.batch_slots = pool->shape.slot_bytes > WHOLE_BYTES ? BATCH_SLOTS : (uint32_t)batch;
	pthread_mutex_init(&recovery.lock, NULL);
	look_at_all(&recovery);
	err = atomic_load(&recovery.err);
	if (!err)
		err = settle(&recovery, &beaten);
	if (err == -EPROTO)
		kvk_error_set(error, err, "backend_params.file_path", "the pool holds an object of a newer version of kvkeep: use "
			      "that version");
	else if (err)
		kvk_error_set(error, err, "backend_params.file_path", "the pool cannot be read: %s", strerror(-err));
	if (pool->map.generation <= recovery.latest)
		pool->map.generation = recovery.latest + 1;
	if (!err)
		kvk_log(&pool->log, recovery.unreadable ? KVK_LOG_WARNING : KVK_LOG_INFO, "pool: %u objects in %u of %llu slots, "
			"%u beaten by later ones, %llu slots unreadable; found in %llu ms", pool->map.objects,
			pool->map.slots - pool->map.free_slots, (unsigned long long)pool->shape.slots, beaten,
			(unsigned long long)recovery.unreadable, (unsigned long long)(kvk_now_us() - start_us) / 1000);
	pthread_mutex_destroy(&recovery.lock);
	kvk_mem_free(recovery.claims);
	return err;
}
