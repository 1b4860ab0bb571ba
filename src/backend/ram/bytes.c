/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/ram/bytes.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "util/alloc.h"

#define SLAB_CHUNKS 64u
#define SLAB_BYTES ((size_t)SLAB_CHUNKS * KVK_RAM_CHUNK_BYTES)

/* Mapped memory, not the heap: it is kept out of core dumps, and only pages that were written cost memory. */
struct kvk_ram_slab {
	struct kvk_ram_slab *next;
	uint8_t *base;
	uint32_t handed_out;           /* chunks from the start that were in use at some time */
};

/* Lies in the first bytes of a chunk that was given back. */
struct kvk_ram_free {
	struct kvk_ram_free *next;
};

void kvk_ram_space_init(struct kvk_ram_space *space, uint64_t limit_bytes)
{
	*space = (struct kvk_ram_space){ .limit_bytes = limit_bytes };
	pthread_mutex_init(&space->lock, NULL);
}

void kvk_ram_space_release(struct kvk_ram_space *space)
{
	struct kvk_ram_slab *slab;

	while ((slab = space->slabs)) {
		space->slabs = slab->next;
		kvk_mem_unmap(slab->base, SLAB_BYTES);
		kvk_mem_free(slab);
	}
	pthread_mutex_destroy(&space->lock);
}

void kvk_ram_space_usage(struct kvk_ram_space *space, uint64_t *free_bytes, uint64_t *total_bytes)
{
	uint64_t total = space->limit_bytes;

	if (total == UINT64_MAX)
		total = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	pthread_mutex_lock(&space->lock);
	*free_bytes = total > space->used_bytes ? total - space->used_bytes : 0;
	*total_bytes = total;
	pthread_mutex_unlock(&space->lock);
}

/* Called with space->lock held. NULL when memory is short. */
static uint8_t *take_chunk(struct kvk_ram_space *space)
{
	struct kvk_ram_slab *slab = space->slabs;

	if (space->free) {
		struct kvk_ram_free *chunk = space->free;

		space->free = chunk->next;
		return (uint8_t *)chunk;
	}
	if (!slab || slab->handed_out == SLAB_CHUNKS) {
		slab = kvk_mem_zalloc(1, sizeof(*slab));
		if (!slab)
			return NULL;
		slab->base = kvk_mem_map(SLAB_BYTES);
		if (!slab->base) {
			kvk_mem_free(slab);
			return NULL;
		}
		slab->next = space->slabs;
		space->slabs = slab;
	}
	return slab->base + (size_t)slab->handed_out++ * KVK_RAM_CHUNK_BYTES;
}

static uint64_t pages_bytes(uint64_t bytes)
{
	return (bytes + KVK_RAM_PAGE_BYTES - 1) / KVK_RAM_PAGE_BYTES * KVK_RAM_PAGE_BYTES;
}

/* Charges chunk for being filled up to *end, which is lowered to what there is room for. */
static int charge_chunk(struct kvk_ram_space *space, struct kvk_ram_chunk *chunk, uint32_t at, uint32_t *end)
{
	uint64_t had_bytes = pages_bytes(chunk->filled_bytes);
	uint64_t free_bytes;
	int err = 0;

	if (chunk->data && *end <= had_bytes)
		return 0;
	pthread_mutex_lock(&space->lock);
	free_bytes = (space->limit_bytes - space->used_bytes) / KVK_RAM_PAGE_BYTES * KVK_RAM_PAGE_BYTES;
	if (free_bytes < KVK_RAM_CHUNK_BYTES && had_bytes + free_bytes < *end)
		*end = (uint32_t)(had_bytes + free_bytes);
	if (*end <= at) {
		err = -ENOSPC;
	} else if (!chunk->data) {
		chunk->data = take_chunk(space);
		if (!chunk->data)
			err = -ENOMEM;
	}
	if (!err && *end > had_bytes)
		space->used_bytes += pages_bytes(*end) - had_bytes;
	pthread_mutex_unlock(&space->lock);
	return err;
}

uint64_t kvk_ram_bytes_read(const struct kvk_ram_bytes *file, void *data, uint64_t bytes, uint64_t offset)
{
	uint8_t *to = data;
	uint64_t moved_bytes = 0;

	if (offset >= file->length_bytes)
		return 0;
	if (bytes > file->length_bytes - offset)
		bytes = file->length_bytes - offset;
	while (moved_bytes < bytes) {
		const struct kvk_ram_chunk *chunk = &file->chunks[(offset + moved_bytes) / KVK_RAM_CHUNK_BYTES];
		size_t at = (offset + moved_bytes) % KVK_RAM_CHUNK_BYTES;
		size_t part = KVK_RAM_CHUNK_BYTES - at;
		size_t filled = chunk->filled_bytes > at ? chunk->filled_bytes - at : 0;

		if (part > bytes - moved_bytes)
			part = bytes - moved_bytes;
		if (filled > part)
			filled = part;
		if (filled > 0)
			memcpy(to + moved_bytes, chunk->data + at, filled);
		memset(to + moved_bytes + filled, 0, part - filled);
		moved_bytes += part;
	}
	return bytes;
}

static int grow_table(struct kvk_ram_bytes *file, uint64_t count)
{
	uint64_t room = file->room ? file->room : 4;
	struct kvk_ram_chunk *grown;

	if (count <= file->room)
		return 0;
	while (room < count)
		room *= 2;
	grown = kvk_mem_realloc(file->chunks, room * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	memset(grown + file->room, 0, (room - file->room) * sizeof(*grown));
	file->chunks = grown;
	file->room = room;
	return 0;
}

int64_t kvk_ram_bytes_write(struct kvk_ram_bytes *file, struct kvk_ram_space *space, const void *data,
			    uint64_t bytes, uint64_t offset)
{
	const uint8_t *from = data;
	uint64_t moved_bytes = 0;
	int err;

	if (bytes == 0)
		return 0;
	if (offset > KVK_RAM_FILE_BYTES_MAX || bytes > KVK_RAM_FILE_BYTES_MAX - offset)
		return -EFBIG;
	err = grow_table(file, (offset + bytes - 1) / KVK_RAM_CHUNK_BYTES + 1);
	if (err)
		return err;
	while (moved_bytes < bytes) {
		struct kvk_ram_chunk *chunk = &file->chunks[(offset + moved_bytes) / KVK_RAM_CHUNK_BYTES];
		uint32_t at = (uint32_t)((offset + moved_bytes) % KVK_RAM_CHUNK_BYTES);
		uint32_t end = KVK_RAM_CHUNK_BYTES;
		uint32_t wanted;

		if (end - at > bytes - moved_bytes)
			end = at + (uint32_t)(bytes - moved_bytes);
		wanted = end;
		err = charge_chunk(space, chunk, at, &end);
		if (err)
			break;
		if (at > chunk->filled_bytes)
			memset(chunk->data + chunk->filled_bytes, 0, at - chunk->filled_bytes);
		memcpy(chunk->data + at, from + moved_bytes, end - at);
		if (end > chunk->filled_bytes)
			chunk->filled_bytes = end;
		moved_bytes += end - at;
		if (offset + moved_bytes > file->length_bytes)
			file->length_bytes = offset + moved_bytes;
		if (end < wanted)
			break;
	}
	return moved_bytes > 0 ? (int64_t)moved_bytes : err;
}

void kvk_ram_bytes_release(struct kvk_ram_bytes *file, struct kvk_ram_space *space)
{
	pthread_mutex_lock(&space->lock);
	for (uint64_t i = 0; i < file->room; i++) {
		struct kvk_ram_chunk *chunk = &file->chunks[i];
		struct kvk_ram_free *freed = (struct kvk_ram_free *)(void *)chunk->data;

		if (!freed)
			continue;
		space->used_bytes -= pages_bytes(chunk->filled_bytes);
		freed->next = space->free;
		space->free = freed;
	}
	pthread_mutex_unlock(&space->lock);
	kvk_mem_free(file->chunks);
	*file = (struct kvk_ram_bytes){ 0 };
}
