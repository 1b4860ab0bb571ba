/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What lies in which slots of a pool: the index and the map of free slots, in memory alone. Both come from the footers, and
 * neither is trusted for content: every load proves what it reads.
 *
 * A run's life:  free --take--> writing --publish--> present --leave--> leaving --free--> free
 *                                  '-----------------free or lose----------------'
 *
 * A reader holds its run: it may leave meanwhile, but its slots are not used again before the last hold ends.
 *
 * Any thread; one mutex, never held across a call out of here. Costs 4.2 to 8.2 bytes a slot (whose it is, whether it is free,
 * the table) and 48 bytes an object.
 */
#ifndef KVK_ADAPTER_POOL_MAP_H
#define KVK_ADAPTER_POOL_MAP_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define KVK_PREFIX_BYTES 16

struct kvk_pool_entry;

struct kvk_pool_map {
	pthread_mutex_t lock;          /* guards all below but the sizes */
	uint32_t slots;
	uint32_t file_slots;           /* runs do not reach from one file into the next */
	uint64_t *used;                /* a bit a slot */
	uint32_t *owner;               /* of each slot: index of its entry + 1, or 0 */
	uint32_t *buckets;             /* of the table by prefix: index + 1 */
	uint32_t bucket_count;         /* a power of two */
	struct kvk_pool_entry **chunks;
	uint32_t chunk_count;
	uint32_t entries;              /* that were ever used */
	uint32_t free_entry;           /* index + 1 of the first on the list of unused ones */
	uint32_t first_free;           /* no slot before this is free */
	uint32_t too_long;             /* no run of so many slots is free, as far as is known; UINT32_MAX: not known */
	uint32_t free_slots;
	uint32_t lost_slots;
	uint32_t objects;
	uint64_t generation;           /* the next put's */
};

/* A run of slots, as its owner or holder knows it. */
struct kvk_run {
	uint32_t index;                /* of its entry */
	uint32_t first;
	uint32_t slots;
	uint64_t generation;
	uint64_t created_ns;
	uint8_t prefix[KVK_PREFIX_BYTES];
};

/* generation: of the first put. -ENOMEM. */
int kvk_pool_map_init(struct kvk_pool_map *map, uint32_t slots, uint32_t file_slots, uint64_t generation);
void kvk_pool_map_release(struct kvk_pool_map *map);

/*
 * A free run of so many slots, which is its taker's. -EEXIST: there is one of this prefix, present or being written.
 * -ENOSPC: so many are not free. -ENOSR: they are, but nowhere together. -ENOMEM.
 */
int kvk_pool_map_take(struct kvk_pool_map *map, const uint8_t prefix[KVK_PREFIX_BYTES], uint32_t slots,
		      struct kvk_run *ret);
/* Makes a run that was taken present; others find it from now on. */
void kvk_pool_map_publish(struct kvk_pool_map *map, const struct kvk_run *run, uint64_t created_ns);

/* At open: a run that was found on the medium. False: a slot of it, or its prefix, is another's already. -ENOMEM. A slot of it that
 * was lost is its own from then on: what cannot be read of it says nothing about the rest. */
int kvk_pool_map_add(struct kvk_pool_map *map, const struct kvk_run *run, bool *added_ret);
/* At open, or when its footer could not be zeroed: a free slot that must not be used in this run of the program. */
void kvk_pool_map_lose(struct kvk_pool_map *map, uint32_t slot);

/* The present run of this prefix, held. */
bool kvk_pool_map_hold(struct kvk_pool_map *map, const uint8_t prefix[KVK_PREFIX_BYTES], struct kvk_run *ret);
/* The first present run that begins at slot or after it (with exact: there), held. */
bool kvk_pool_map_hold_at(struct kvk_pool_map *map, uint32_t slot, bool exact, struct kvk_run *ret);
/* Of a held run. */
bool kvk_pool_map_is_present(struct kvk_pool_map *map, const struct kvk_run *run);
/* Ends a hold. Returns whether the run is still present. */
bool kvk_pool_map_drop(struct kvk_pool_map *map, const struct kvk_run *run);

/* present -> leaving: nobody finds it any more. Only the first caller gets true; it holds the run, apart from holds of before. */
bool kvk_pool_map_leave(struct kvk_pool_map *map, const struct kvk_run *run);
/* The same of the run of this prefix, which nobody has to hold. False: none is present. */
bool kvk_pool_map_leave_key(struct kvk_pool_map *map, const uint8_t prefix[KVK_PREFIX_BYTES], struct kvk_run *ret);
/*
 * Ends what take() or leave() began, with the hold. zeroed: no footer of it is on the medium, its slots are free when the last
 * hold has ended. Otherwise, from leaving: it is present again; from writing: its slots are lost.
 */
void kvk_pool_map_free(struct kvk_pool_map *map, const struct kvk_run *run, bool zeroed);

enum kvk_pool_use {
	KVK_POOL_FREE = 0,             /* or it will be, with the last hold */
	KVK_POOL_PRESENT,
	KVK_POOL_TAKEN,                /* being written or erased, or lost */
};

/* For a walk: what lies at slot, whose it is if it is present, and at which slot it ends, no later than its file. */
uint32_t kvk_pool_map_look(struct kvk_pool_map *map, uint32_t slot, enum kvk_pool_use *use_ret,
			   uint8_t prefix_ret[KVK_PREFIX_BYTES]);

struct kvk_pool_totals {
	uint32_t free_slots;
	uint32_t lost_slots;
	uint32_t longest_free;         /* run */
	uint32_t objects;
};

/* Walks over the whole map. */
void kvk_pool_map_totals(struct kvk_pool_map *map, struct kvk_pool_totals *ret);

#endif
