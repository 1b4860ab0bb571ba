/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lane's own memory: page-aligned slots of KVK_SLOT_BYTES, mapped eight at a time when they are first needed
 * and made known to the lane's ring where locked memory allows. Last given back, first taken, so that what is in
 * the CPU's cache is used again. One thread.
 */
#ifndef KVK_AGENT_MEMORY_H
#define KVK_AGENT_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/backend.h"

#define KVK_MEMORY_CHUNK_SLOTS 8
#define KVK_MEMORY_CHUNKS_MAX 64

struct kvk_memory {
	struct kvk_backend *backend;
	struct kvk_ring *ring;                 /* NULL: nobody to make it known to */
	uint32_t chunks_max;
	uint32_t chunk_count;
	uint8_t *chunks[KVK_MEMORY_CHUNKS_MAX];
	bool known[KVK_MEMORY_CHUNKS_MAX];     /* to the ring, under the chunk's index */
	uint32_t slots_out;
	uint32_t free_count;
	uint8_t *free_slots[KVK_MEMORY_CHUNKS_MAX * KVK_MEMORY_CHUNK_SLOTS];
};

/* budget_bytes: how much may be mapped; at least one chunk is. */
void kvk_memory_init(struct kvk_memory *memory, struct kvk_backend *backend, struct kvk_ring *ring,
		     uint64_t budget_bytes);
void kvk_memory_release(struct kvk_memory *memory);

/* NULL: all are out, or the machine has no memory. */
uint8_t *kvk_memory_take(struct kvk_memory *memory);
void kvk_memory_give(struct kvk_memory *memory, uint8_t *slot);

/* The index under which the ring knows the memory that holds this address, or -1. */
int32_t kvk_memory_index(const struct kvk_memory *memory, const void *address);

uint32_t kvk_memory_slots_max(const struct kvk_memory *memory);
uint64_t kvk_memory_mapped_bytes(const struct kvk_memory *memory);

#endif
