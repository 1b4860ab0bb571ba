/* SPDX-License-Identifier: Apache-2.0 */
/* One run of store_bench: its options, its store, and the modes, which share them. */
#ifndef KVK_BENCH_STORE_BENCH_H
#define KVK_BENCH_STORE_BENCH_H

#include <kvkeep/kvkeep.h>

#include "bench.h"

#define BENCH_IN_FLIGHT_MAX 1024u

/* One object under way: its memory, its key's text, and which key that is. */
struct bench_slot {
	uint8_t *data;
	struct iovec iov;
	char text[BENCH_KEY_BYTES];
	uint32_t text_bytes;
	bool busy;                 /* asked for, or its memory not released yet */
	bool filled;               /* holds what a get of this round delivered */
	uint64_t key;
	uint64_t began_ns;
};

struct store_bench {
	/* options */
	const char *spec;
	const char *mode;
	uint64_t object_bytes;
	uint64_t keys;             /* how many there are: 0 to keys - 1 */
	uint64_t next_key;         /* put: the next one that was never used */
	uint64_t count;            /* objects a round; UINT64_MAX: until the time is over */
	double seconds;
	uint32_t in_flight;
	uint32_t batch;            /* keys a lookup */
	uint32_t rounds;
	bool held;
	bool blocking;
	bool random;
	bool keep;
	bool on_line;

	struct kvk_store *store;
	uint8_t *memory;
	uint64_t memory_bytes;
	uint64_t slot_bytes;
	struct bench_slot *slots;
	struct kvk_put_item *put_items;
	struct kvk_get_item *get_items;
	struct kvk_result *results;
	uint64_t random_state;
};

/* ---- store_bench.c ------------------------------------------------------------------------------ */

void store_bench_open(struct store_bench *bench);
void store_bench_close(struct store_bench *bench);

/* The key of the number-th get of a round. */
uint64_t store_bench_pick(struct store_bench *bench, uint64_t number);

/* ---- store_bench_transfer.c --------------------------------------------------------------------- */

void store_bench_transfer_new(struct store_bench *bench);
void store_bench_transfer_free(struct store_bench *bench);

void store_bench_put(struct store_bench *bench, uint32_t number);
void store_bench_get(struct store_bench *bench, uint32_t number);

/* One get of in_flight objects; when does each arrive, as a part of the time of the whole? */
void store_bench_batch(struct store_bench *bench, uint32_t number);

/* ---- store_bench_lookup.c ----------------------------------------------------------------------- */

void store_bench_lookup(struct store_bench *bench, uint32_t number);
void store_bench_secondary(struct store_bench *bench, uint32_t number);
void store_bench_first(struct store_bench *bench, uint32_t number);

#endif
