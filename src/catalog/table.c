/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The entries of one shard: a slab that grows by chunks and never moves, and an index over it.
 *
 * The index is linear probing over 32-bit slots. Six bits of the digest stand in each slot, so that of 64
 * neighbours that are not meant only one costs a look at its entry. Deleting shifts back what follows, so no
 * tombstones collect.
 */
#include "catalog/catalog_private.h"

#include <errno.h>

#include "catalog/ghost.h"
#include "util/alloc.h"

#define SLOT_EMPTY UINT32_MAX          /* no entry has the index KVK_NO_ENTRY, so no slot in use looks like it */
#define FIRST_SLOTS 64u
#define FIRST_CHUNKS 8u
#define ENTRIES_OF(slots) ((slots) / 4 * 3)
#define CHUNK_BYTES (KVK_CHUNK_ENTRIES * sizeof(struct kvk_entry) + 64)

void kvk_shard_init(struct kvk_shard *shard)
{
	*shard = (struct kvk_shard){
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.free_index = KVK_NO_ENTRY,
		.lists = { { KVK_NO_ENTRY, KVK_NO_ENTRY }, { KVK_NO_ENTRY, KVK_NO_ENTRY } },
	};
	for (uint32_t group = 0; group < KVK_GROUPS; group++)
		shard->versions[group] = 1;
}

void kvk_shard_release(struct kvk_shard *shard)
{
	for (uint32_t i = 0; i < shard->chunk_count; i++)
		kvk_mem_free(shard->chunks[i]);
	kvk_mem_free(shard->chunks);
	kvk_mem_free(shard->slots);
	kvk_mem_free(shard->heap);
	kvk_mem_free(shard->ghosts);
}

static uint32_t slot_index(uint32_t slot)
{
	return slot & KVK_NO_ENTRY;
}

static uint32_t prefix_tag(const struct kvk_prefix *prefix)
{
	return (uint32_t)(prefix->word[1] >> 58);
}

static uint32_t home_of(const struct kvk_prefix *prefix, uint32_t mask)
{
	return (uint32_t)prefix->word[1] & mask;
}

uint32_t kvk_shard_find(const struct kvk_shard *shard, const struct kvk_prefix *prefix)
{
	uint32_t mask = shard->slot_count - 1;
	uint32_t tag = prefix_tag(prefix);

	if (shard->slot_count == 0)
		return KVK_NO_ENTRY;
	for (uint32_t at = home_of(prefix, mask); shard->slots[at] != SLOT_EMPTY; at = (at + 1) & mask) {
		const struct kvk_entry *entry;

		if (shard->slots[at] >> KVK_INDEX_BITS != tag)
			continue;
		entry = kvk_shard_entry(shard, slot_index(shard->slots[at]));
		if (entry->prefix.word[0] == prefix->word[0] && entry->prefix.word[1] == prefix->word[1])
			return slot_index(shard->slots[at]);
	}
	return KVK_NO_ENTRY;
}

void kvk_shard_warm_slot(const struct kvk_shard *shard, const struct kvk_prefix *prefix)
{
	if (shard->slot_count > 0)
		__builtin_prefetch(&shard->slots[home_of(prefix, shard->slot_count - 1)]);
}

bool kvk_shard_warm_entry(const struct kvk_shard *shard, const struct kvk_prefix *prefix)
{
	uint32_t mask = shard->slot_count - 1;
	uint32_t tag = prefix_tag(prefix);

	if (shard->slot_count == 0)
		return false;
	for (uint32_t at = home_of(prefix, mask); shard->slots[at] != SLOT_EMPTY; at = (at + 1) & mask) {
		if (shard->slots[at] >> KVK_INDEX_BITS == tag) {
			__builtin_prefetch(kvk_shard_entry(shard, slot_index(shard->slots[at])));
			return true;
		}
	}
	return false;
}

static void slot_put(uint32_t *slots, uint32_t mask, const struct kvk_prefix *prefix, uint32_t index)
{
	uint32_t at = home_of(prefix, mask);

	while (slots[at] != SLOT_EMPTY)
		at = (at + 1) & mask;
	slots[at] = prefix_tag(prefix) << KVK_INDEX_BITS | index;
}

/* The heap grows along, so that whoever may be chosen again always finds its place there.
 * Walks the slab, not the old slots: its lines come in order, so the processor fetches them ahead. */
static int grow_slots(struct kvk_shard *shard)
{
	uint32_t slot_count = shard->slot_count ? shard->slot_count * 2 : FIRST_SLOTS;
	uint32_t *slots = kvk_mem_alloc(slot_count * sizeof(*slots));
	uint32_t *heap;

	if (!slots)
		return -ENOMEM;
	heap = kvk_mem_realloc(shard->heap, ENTRIES_OF(slot_count) * sizeof(*heap));
	if (!heap) {
		kvk_mem_free(slots);
		return -ENOMEM;
	}
	shard->heap = heap;
	memset(slots, 0xff, slot_count * sizeof(*slots));
	for (uint32_t index = 0; index < shard->fresh; index++) {
		const struct kvk_entry *entry = kvk_shard_entry(shard, index);

		if (entry->taken)
			slot_put(slots, slot_count - 1, &entry->prefix, index);
	}
	kvk_mem_free(shard->slots);
	shard->slots = slots;
	shard->slot_count = slot_count;
	return 0;
}

static int add_chunk(struct kvk_shard *shard)
{
	void *chunk;

	if (shard->chunk_count == shard->chunk_room) {
		uint32_t room = shard->chunk_room ? shard->chunk_room * 2 : FIRST_CHUNKS;
		void **chunks = kvk_mem_realloc(shard->chunks, room * sizeof(*chunks));

		if (!chunks)
			return -ENOMEM;
		shard->chunks = chunks;
		shard->chunk_room = room;
	}
	chunk = kvk_mem_zalloc(1, CHUNK_BYTES);
	if (!chunk)
		return -ENOMEM;
	shard->chunks[shard->chunk_count++] = chunk;
	return 0;
}

int kvk_shard_reserve(struct kvk_shard *shard)
{
	int err;

	if (shard->free_index == KVK_NO_ENTRY) {
		if (shard->fresh == KVK_NO_ENTRY)
			return -ENOMEM;
		if (shard->fresh == shard->chunk_count * KVK_CHUNK_ENTRIES) {
			err = add_chunk(shard);
			if (err)
				return err;
		}
	}
	if (shard->entry_count >= ENTRIES_OF(shard->slot_count))
		return grow_slots(shard);
	return 0;
}

uint32_t kvk_shard_insert(struct kvk_shard *shard, const struct kvk_prefix *prefix)
{
	uint32_t index = shard->free_index;
	struct kvk_entry *entry;

	if (index == KVK_NO_ENTRY) {
		index = shard->fresh++;
		entry = kvk_shard_entry(shard, index);
	} else {
		entry = kvk_shard_entry(shard, index);
		shard->free_index = entry->newer;
	}
	*entry = (struct kvk_entry){
		.prefix = *prefix,
		.taken = true,
		.parent = KVK_NO_ID,
		.generation = entry->generation,
		.older = KVK_NO_ENTRY,
		.newer = KVK_NO_ENTRY,
	};
	slot_put(shard->slots, shard->slot_count - 1, prefix, index);
	shard->entry_count++;
	return index;
}

void kvk_shard_erase(struct kvk_shard *shard, uint32_t index)
{
	struct kvk_entry *entry = kvk_shard_entry(shard, index);
	uint32_t mask = shard->slot_count - 1;
	uint32_t hole = home_of(&entry->prefix, mask);

	while (slot_index(shard->slots[hole]) != index)
		hole = (hole + 1) & mask;
	for (uint32_t at = (hole + 1) & mask; shard->slots[at] != SLOT_EMPTY; at = (at + 1) & mask) {
		const struct kvk_entry *next = kvk_shard_entry(shard, slot_index(shard->slots[at]));
		uint32_t home = home_of(&next->prefix, mask);

		/* It may move into the hole only if that is not before its home. */
		if (((at - home) & mask) < ((at - hole) & mask))
			continue;
		shard->slots[hole] = shard->slots[at];
		hole = at;
	}
	shard->slots[hole] = SLOT_EMPTY;
	shard->entry_count--;

	entry->state = KVK_CATALOG_UNKNOWN;
	entry->known = false;
	entry->taken = false;
	entry->generation++;
	entry->newer = shard->free_index;
	shard->free_index = index;
}

void kvk_shard_vacate(struct kvk_shard *shard, uint32_t index)
{
	struct kvk_entry *entry = kvk_shard_entry(shard, index);

	*entry = (struct kvk_entry){
		.prefix = entry->prefix,
		.taken = true,
		.parent = KVK_NO_ID,
		.generation = (uint16_t)(entry->generation + 1),
		.older = KVK_NO_ENTRY,
		.newer = KVK_NO_ENTRY,
		.pins = entry->pins,
	};
}

uint64_t kvk_shard_memory_bytes(const struct kvk_shard *shard)
{
	uint64_t bytes = shard->chunk_count * (CHUNK_BYTES + KVK_ALLOC_OVERHEAD_BYTES);

	if (shard->chunks)
		bytes += shard->chunk_room * sizeof(*shard->chunks) + KVK_ALLOC_OVERHEAD_BYTES;
	if (shard->slots)
		bytes += shard->slot_count * sizeof(*shard->slots) + KVK_ALLOC_OVERHEAD_BYTES;
	if (shard->heap)
		bytes += ENTRIES_OF(shard->slot_count) * sizeof(*shard->heap) + KVK_ALLOC_OVERHEAD_BYTES;
	if (shard->ghosts)
		bytes += kvk_ghosts_memory_bytes(shard->ghosts) + KVK_ALLOC_OVERHEAD_BYTES;
	return bytes;
}
