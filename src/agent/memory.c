/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/memory.h"

#include <sys/mman.h>

#include "agent/stream.h"
#include "util/alloc.h"

#define CHUNK_BYTES ((uint64_t)KVK_MEMORY_CHUNK_SLOTS * KVK_SLOT_BYTES)

void kvk_memory_init(struct kvk_memory *memory, struct kvk_backend *backend, struct kvk_ring *ring,
		     uint64_t budget_bytes)
{
	uint64_t chunks = budget_bytes / CHUNK_BYTES;

	*memory = (struct kvk_memory){ .backend = backend, .ring = ring };
	memory->chunks_max = chunks < 1 ? 1
			   : chunks > KVK_MEMORY_CHUNKS_MAX ? KVK_MEMORY_CHUNKS_MAX : (uint32_t)chunks;
}

void kvk_memory_release(struct kvk_memory *memory)
{
	for (uint32_t i = 0; i < memory->chunk_count; i++) {
		if (memory->known[i])
			memory->backend->ops->ring->set_memory(memory->ring, i, NULL, 0);
		kvk_mem_unmap(memory->chunks[i], CHUNK_BYTES);
	}
	memory->chunk_count = 0;
	memory->free_count = 0;
}

static bool add_chunk(struct kvk_memory *memory)
{
	uint32_t index = memory->chunk_count;
	uint8_t *chunk;

	if (index == memory->chunks_max)
		return false;
	chunk = kvk_mem_map(CHUNK_BYTES);
	if (!chunk)
		return false;
	/* First touches of 4 KiB pages cost five times those of huge ones where memory is handed out lazily
	 * (measured on a virtual machine: 1 GiB in 0.6 to 1 s against 0.12 s). */
	madvise(chunk, CHUNK_BYTES, MADV_HUGEPAGE);
	memory->chunks[index] = chunk;
	memory->known[index] = memory->ring && !memory->backend->ops->ring->set_memory(
		memory->ring, index, chunk, CHUNK_BYTES);
	memory->chunk_count++;
	for (uint32_t i = KVK_MEMORY_CHUNK_SLOTS; i-- > 0;)
		memory->free_slots[memory->free_count++] = chunk + (uint64_t)i * KVK_SLOT_BYTES;
	return true;
}

uint8_t *kvk_memory_take(struct kvk_memory *memory)
{
	if (memory->free_count == 0 && !add_chunk(memory))
		return NULL;
	memory->slots_out++;
	return memory->free_slots[--memory->free_count];
}

void kvk_memory_give(struct kvk_memory *memory, uint8_t *slot)
{
	memory->slots_out--;
	memory->free_slots[memory->free_count++] = slot;
}

int32_t kvk_memory_index(const struct kvk_memory *memory, const void *address)
{
	const uint8_t *byte = address;

	for (uint32_t i = 0; i < memory->chunk_count; i++) {
		if (byte >= memory->chunks[i] && byte < memory->chunks[i] + CHUNK_BYTES)
			return memory->known[i] ? (int32_t)i : -1;
	}
	return -1;
}

uint32_t kvk_memory_slots_max(const struct kvk_memory *memory)
{
	return memory->chunks_max * KVK_MEMORY_CHUNK_SLOTS;
}

uint64_t kvk_memory_mapped_bytes(const struct kvk_memory *memory)
{
	return memory->chunk_count * CHUNK_BYTES;
}
