/* SPDX-License-Identifier: Apache-2.0 */
#include "adapter/pool/map.h"

#include <errno.h>
#include <string.h>

#include "util/alloc.h"

#define CHUNK_ENTRIES 4096u
/* Whose a lost slot is. */
#define NOBODY UINT32_MAX

enum state { UNUSED = 0, WRITING, PRESENT, LEAVING, LEFT };

struct kvk_pool_entry {
	uint8_t prefix[KVK_PREFIX_BYTES];
	uint64_t generation;
	uint64_t created_ns;
	uint32_t first;
	uint32_t slots;
	uint32_t next;                 /* in its bucket, or among the unused: index + 1 */
	uint32_t state : 3;
	uint32_t holds : 29;
};

_Static_assert(sizeof(struct kvk_pool_entry) == 48, "what an object costs in memory is written down");

/* ---- entries: called with the lock held --------------------------------------------------------- */

static struct kvk_pool_entry *entry_at(const struct kvk_pool_map *map, uint32_t index)
{
	return &map->chunks[index / CHUNK_ENTRIES][index % CHUNK_ENTRIES];
}

static int entry_new(struct kvk_pool_map *map, uint32_t *index_ret)
{
	uint32_t index = map->entries;

	if (map->free_entry) {
		index = map->free_entry - 1;
		map->free_entry = entry_at(map, index)->next;
	} else {
		uint32_t chunk = index / CHUNK_ENTRIES;

		if (!map->chunks[chunk])
			map->chunks[chunk] = kvk_mem_zalloc(CHUNK_ENTRIES, sizeof(struct kvk_pool_entry));
		if (!map->chunks[chunk])
			return -ENOMEM;
		map->entries++;
	}
	*index_ret = index;
	return 0;
}

static void entry_free(struct kvk_pool_map *map, uint32_t index)
{
	struct kvk_pool_entry *entry = entry_at(map, index);

	entry->state = UNUSED;
	entry->next = map->free_entry;
	map->free_entry = index + 1;
}

static uint32_t *bucket_of(const struct kvk_pool_map *map, const uint8_t prefix[KVK_PREFIX_BYTES])
{
	uint64_t hash;

	/* A digest's bytes are as good as random. */
	memcpy(&hash, prefix, sizeof(hash));
	return &map->buckets[hash & (map->bucket_count - 1)];
}

static struct kvk_pool_entry *find(const struct kvk_pool_map *map, const uint8_t prefix[KVK_PREFIX_BYTES],
				   uint32_t *index_ret)
{
	for (uint32_t next = *bucket_of(map, prefix); next;) {
		struct kvk_pool_entry *entry = entry_at(map, next - 1);

		if (!memcmp(entry->prefix, prefix, KVK_PREFIX_BYTES)) {
			*index_ret = next - 1;
			return entry;
		}
		next = entry->next;
	}
	return NULL;
}

static void link_in(struct kvk_pool_map *map, uint32_t index)
{
	struct kvk_pool_entry *entry = entry_at(map, index);
	uint32_t *bucket = bucket_of(map, entry->prefix);

	entry->next = *bucket;
	*bucket = index + 1;
}

static void unlink_from(struct kvk_pool_map *map, uint32_t index)
{
	struct kvk_pool_entry *entry = entry_at(map, index);
	uint32_t *from = bucket_of(map, entry->prefix);

	while (*from != index + 1)
		from = &entry_at(map, *from - 1)->next;
	*from = entry->next;
}

static void run_of(const struct kvk_pool_map *map, uint32_t index, struct kvk_run *ret)
{
	const struct kvk_pool_entry *entry = entry_at(map, index);

	*ret = (struct kvk_run){
		.index = index, .first = entry->first, .slots = entry->slots, .generation = entry->generation,
		.created_ns = entry->created_ns,
	};
	memcpy(ret->prefix, entry->prefix, KVK_PREFIX_BYTES);
}

/* ---- slots: called with the lock held ----------------------------------------------------------- */

/* No run reaches beyond this. */
static uint32_t file_end_of(const struct kvk_pool_map *map, uint32_t slot)
{
	uint32_t file_end = (slot / map->file_slots + 1) * map->file_slots;

	return file_end < map->slots ? file_end : map->slots;
}

static void slots_take(struct kvk_pool_map *map, uint32_t first, uint32_t count, uint32_t owner)
{
	for (uint32_t slot = first; slot < first + count; slot++) {
		map->used[slot / 64] |= UINT64_C(1) << slot % 64;
		map->owner[slot] = owner;
	}
	map->free_slots -= count;
	if (first == map->first_free)
		map->first_free = first + count;
}

static void slots_give(struct kvk_pool_map *map, uint32_t first, uint32_t count)
{
	for (uint32_t slot = first; slot < first + count; slot++) {
		map->used[slot / 64] &= ~(UINT64_C(1) << slot % 64);
		map->owner[slot] = 0;
	}
	map->free_slots += count;
	map->too_long = UINT32_MAX;
	if (first < map->first_free)
		map->first_free = first;
}

/* The first slot from `slot` on, before end, that is free (or used); end: none. Word by word. */
static uint32_t next_slot(const struct kvk_pool_map *map, uint32_t slot, uint32_t end, bool used)
{
	uint64_t flip = used ? 0 : UINT64_MAX;

	while (slot < end) {
		uint64_t word = (map->used[slot / 64] ^ flip) >> slot % 64;

		if (word) {
			slot += (uint32_t)__builtin_ctzll(word);
			return slot < end ? slot : end;
		}
		slot = (slot / 64 + 1) * 64;
	}
	return end;
}

/* First fit: long runs stay at the end. Returns map->slots if there is none. */
static uint32_t find_free(struct kvk_pool_map *map, uint32_t count)
{
	uint32_t slot = map->first_free, first = UINT32_MAX;

	while (slot < map->slots) {
		uint32_t file_end = file_end_of(map, slot), end;

		slot = next_slot(map, slot, file_end, false);
		if (slot == file_end)
			continue;
		if (first == UINT32_MAX)
			first = slot;
		end = next_slot(map, slot, slot + count < file_end ? slot + count : file_end, true);
		if (end - slot == count) {
			map->first_free = first;
			return slot;
		}
		slot = end;
	}
	return map->slots;
}

/* ---- making and ending -------------------------------------------------------------------------- */

int kvk_pool_map_init(struct kvk_pool_map *map, uint32_t slots, uint32_t file_slots, uint64_t generation)
{
	*map = (struct kvk_pool_map){
		.slots = slots, .file_slots = file_slots, .bucket_count = 64, .too_long = UINT32_MAX,
		.free_slots = slots, .generation = generation,
	};
	pthread_mutex_init(&map->lock, NULL);
	while (map->bucket_count < slots / 2)
		map->bucket_count *= 2;
	map->chunk_count = slots / CHUNK_ENTRIES + 2;
	map->used = kvk_mem_zalloc(slots / 64 + 1, sizeof(*map->used));
	map->owner = kvk_mem_zalloc(slots, sizeof(*map->owner));
	map->buckets = kvk_mem_zalloc(map->bucket_count, sizeof(*map->buckets));
	map->chunks = kvk_mem_zalloc(map->chunk_count, sizeof(struct kvk_pool_entry *));
	return map->used && map->owner && map->buckets && map->chunks ? 0 : -ENOMEM;
}

void kvk_pool_map_release(struct kvk_pool_map *map)
{
	for (uint32_t i = 0; map->chunks && i < map->chunk_count; i++)
		kvk_mem_free(map->chunks[i]);
	kvk_mem_free(map->chunks);
	kvk_mem_free(map->buckets);
	kvk_mem_free(map->owner);
	kvk_mem_free(map->used);
	pthread_mutex_destroy(&map->lock);
	*map = (struct kvk_pool_map){ 0 };
}

/* Called with the lock held; the slots are free and the prefix unknown. */
static int settle_in(struct kvk_pool_map *map, const struct kvk_run *run, enum state state, uint32_t *index_ret)
{
	struct kvk_pool_entry *entry;
	int err = entry_new(map, index_ret);

	if (err)
		return err;
	entry = entry_at(map, *index_ret);
	*entry = (struct kvk_pool_entry){
		.generation = run->generation, .created_ns = run->created_ns, .first = run->first, .slots = run->slots,
		.state = state & 7, .holds = state == WRITING,
	};
	memcpy(entry->prefix, run->prefix, KVK_PREFIX_BYTES);
	link_in(map, *index_ret);
	slots_take(map, run->first, run->slots, *index_ret + 1);
	return 0;
}

int kvk_pool_map_take(struct kvk_pool_map *map, const uint8_t prefix[KVK_PREFIX_BYTES], uint32_t slots,
		      struct kvk_run *ret)
{
	struct kvk_run run = { .slots = slots };
	uint32_t index;
	int err = 0;

	memcpy(run.prefix, prefix, KVK_PREFIX_BYTES);
	pthread_mutex_lock(&map->lock);
	if (find(map, prefix, &index)) {
		err = -EEXIST;
	} else if (slots > map->free_slots) {
		err = -ENOSPC;
	} else {
		run.first = slots < map->too_long ? find_free(map, slots) : map->slots;
		if (run.first == map->slots) {
			map->too_long = slots < map->too_long ? slots : map->too_long;
			err = -ENOSR;
		}
	}
	run.generation = map->generation;
	if (!err)
		err = settle_in(map, &run, WRITING, &run.index);
	if (!err)
		map->generation++;
	pthread_mutex_unlock(&map->lock);
	if (!err)
		*ret = run;
	return err;
}

void kvk_pool_map_publish(struct kvk_pool_map *map, const struct kvk_run *run, uint64_t created_ns)
{
	struct kvk_pool_entry *entry;

	pthread_mutex_lock(&map->lock);
	entry = entry_at(map, run->index);
	entry->created_ns = created_ns;
	entry->state = PRESENT;
	entry->holds--;
	map->objects++;
	pthread_mutex_unlock(&map->lock);
}

/* Called with the lock held. Whether nobody has a slot of it; those that were lost are free then. */
static bool claim_slots(struct kvk_pool_map *map, const struct kvk_run *run)
{
	uint32_t end = run->first + run->slots;

	for (uint32_t slot = run->first; slot < end; slot++) {
		if (map->owner[slot] && map->owner[slot] != NOBODY)
			return false;
	}
	for (uint32_t slot = next_slot(map, run->first, end, true); slot < end; slot = next_slot(map, slot, end, true)) {
		slots_give(map, slot, 1);
		map->lost_slots--;
	}
	return true;
}

int kvk_pool_map_add(struct kvk_pool_map *map, const struct kvk_run *run, bool *added_ret)
{
	uint32_t index;
	int err = 0;

	pthread_mutex_lock(&map->lock);
	*added_ret = !find(map, run->prefix, &index) && claim_slots(map, run);
	if (*added_ret)
		err = settle_in(map, run, PRESENT, &index);
	if (*added_ret && !err)
		map->objects++;
	pthread_mutex_unlock(&map->lock);
	return err;
}

void kvk_pool_map_lose(struct kvk_pool_map *map, uint32_t slot)
{
	pthread_mutex_lock(&map->lock);
	if (!map->owner[slot]) {
		slots_take(map, slot, 1, NOBODY);
		map->lost_slots++;
	}
	pthread_mutex_unlock(&map->lock);
}

/* ---- holding ------------------------------------------------------------------------------------ */

bool kvk_pool_map_hold(struct kvk_pool_map *map, const uint8_t prefix[KVK_PREFIX_BYTES], struct kvk_run *ret)
{
	struct kvk_pool_entry *entry;
	uint32_t index;
	bool found;

	pthread_mutex_lock(&map->lock);
	entry = find(map, prefix, &index);
	found = entry && entry->state == PRESENT;
	if (found) {
		entry->holds++;
		run_of(map, index, ret);
	}
	pthread_mutex_unlock(&map->lock);
	return found;
}

/* Called with the lock held. The index of the present run that begins at slot; UINT32_MAX: none does. */
static uint32_t beginning_at(const struct kvk_pool_map *map, uint32_t slot)
{
	uint32_t owner = map->owner[slot];

	if (!owner || owner == NOBODY)
		return UINT32_MAX;
	return entry_at(map, owner - 1)->first == slot && entry_at(map, owner - 1)->state == PRESENT ? owner - 1
												      : UINT32_MAX;
}

bool kvk_pool_map_hold_at(struct kvk_pool_map *map, uint32_t slot, bool exact, struct kvk_run *ret)
{
	uint32_t index = UINT32_MAX;

	pthread_mutex_lock(&map->lock);
	while (slot < map->slots) {
		uint32_t owner = map->owner[slot];

		index = beginning_at(map, slot);
		if (index != UINT32_MAX || exact)
			break;
		if (owner && owner != NOBODY)
			slot = entry_at(map, owner - 1)->first + entry_at(map, owner - 1)->slots;
		else
			slot = next_slot(map, slot + 1, map->slots, true);
	}
	if (index != UINT32_MAX) {
		entry_at(map, index)->holds++;
		run_of(map, index, ret);
	}
	pthread_mutex_unlock(&map->lock);
	return index != UINT32_MAX;
}

/* Called with the lock held. */
static void end_hold(struct kvk_pool_map *map, uint32_t index)
{
	struct kvk_pool_entry *entry = entry_at(map, index);

	entry->holds--;
	if (entry->holds > 0 || entry->state != LEFT)
		return;
	slots_give(map, entry->first, entry->slots);
	entry_free(map, index);
}

bool kvk_pool_map_is_present(struct kvk_pool_map *map, const struct kvk_run *run)
{
	bool present;

	pthread_mutex_lock(&map->lock);
	present = entry_at(map, run->index)->state == PRESENT;
	pthread_mutex_unlock(&map->lock);
	return present;
}

bool kvk_pool_map_drop(struct kvk_pool_map *map, const struct kvk_run *run)
{
	bool present;

	pthread_mutex_lock(&map->lock);
	present = entry_at(map, run->index)->state == PRESENT;
	end_hold(map, run->index);
	pthread_mutex_unlock(&map->lock);
	return present;
}

/* Called with the lock held, of a present run. */
static void leave(struct kvk_pool_map *map, uint32_t index)
{
	struct kvk_pool_entry *entry = entry_at(map, index);

	unlink_from(map, index);
	entry->state = LEAVING;
	entry->holds++;
	map->objects--;
}

bool kvk_pool_map_leave(struct kvk_pool_map *map, const struct kvk_run *run)
{
	struct kvk_pool_entry *entry;
	bool first;

	pthread_mutex_lock(&map->lock);
	entry = entry_at(map, run->index);
	first = entry->state == PRESENT && entry->generation == run->generation;
	if (first)
		leave(map, run->index);
	pthread_mutex_unlock(&map->lock);
	return first;
}

bool kvk_pool_map_leave_key(struct kvk_pool_map *map, const uint8_t prefix[KVK_PREFIX_BYTES], struct kvk_run *ret)
{
	struct kvk_pool_entry *entry;
	uint32_t index;
	bool present;

	pthread_mutex_lock(&map->lock);
	entry = find(map, prefix, &index);
	present = entry && entry->state == PRESENT;
	if (present) {
		run_of(map, index, ret);
		leave(map, index);
	}
	pthread_mutex_unlock(&map->lock);
	return present;
}

void kvk_pool_map_free(struct kvk_pool_map *map, const struct kvk_run *run, bool zeroed)
{
	struct kvk_pool_entry *entry;
	uint32_t other;

	pthread_mutex_lock(&map->lock);
	entry = entry_at(map, run->index);
	if (entry->state == WRITING)
		unlink_from(map, run->index);
	if (zeroed) {
		entry->state = LEFT;
	} else if (entry->state == LEAVING && !find(map, entry->prefix, &other)) {
		entry->state = PRESENT;
		link_in(map, run->index);
		map->objects++;
	} else {
		/* A footer that may still be there keeps the slots from being used again before the next open looks. */
		entry->state = LEAVING;
		map->lost_slots += entry->slots;
	}
	end_hold(map, run->index);
	pthread_mutex_unlock(&map->lock);
}

uint32_t kvk_pool_map_look(struct kvk_pool_map *map, uint32_t slot, enum kvk_pool_use *use_ret,
			   uint8_t prefix_ret[KVK_PREFIX_BYTES])
{
	uint32_t owner, end;

	pthread_mutex_lock(&map->lock);
	owner = map->owner[slot];
	if (!owner) {
		end = next_slot(map, slot, file_end_of(map, slot), true);
		*use_ret = KVK_POOL_FREE;
	} else if (owner == NOBODY) {
		end = slot + 1;
		*use_ret = KVK_POOL_TAKEN;
	} else {
		const struct kvk_pool_entry *entry = entry_at(map, owner - 1);

		end = entry->first + entry->slots;
		*use_ret = entry->state == PRESENT ? KVK_POOL_PRESENT : entry->state == LEFT ? KVK_POOL_FREE : KVK_POOL_TAKEN;
		memcpy(prefix_ret, entry->prefix, KVK_PREFIX_BYTES);
	}
	pthread_mutex_unlock(&map->lock);
	return end;
}

void kvk_pool_map_totals(struct kvk_pool_map *map, struct kvk_pool_totals *ret)
{
	uint32_t longest = 0, slot = 0;

	pthread_mutex_lock(&map->lock);
	while (slot < map->slots) {
		uint32_t file_end = file_end_of(map, slot), end;

		slot = next_slot(map, slot, file_end, false);
		end = next_slot(map, slot, file_end, true);
		longest = end - slot > longest ? end - slot : longest;
		slot = end;
	}
	*ret = (struct kvk_pool_totals){
		.free_slots = map->free_slots, .lost_slots = map->lost_slots, .longest_free = longest, .objects = map->objects,
	};
	pthread_mutex_unlock(&map->lock);
}
