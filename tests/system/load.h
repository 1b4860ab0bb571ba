/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A load on a store whose every answer can be judged, also after the process or the medium died in the middle of it.
 *
 * Each key belongs to one worker. Before a worker asks for anything it writes into a ledger what may be the case from
 * then on, and after the answer what is: so at any instant the ledger says of each key which generations may be found
 * under it, and which one must be. It is atomic words only, and may lie in memory that outlives the workers.
 */
#ifndef KVK_TESTS_LOAD_H
#define KVK_TESTS_LOAD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <kvkeep/kvkeep.h>

#define LOAD_KEYS_MAX 1024
#define LOAD_BATCH 8

enum load_phase { LOAD_ABSENT = 0, LOAD_UNKNOWN, LOAD_PRESENT };

struct load_line {
	_Atomic uint32_t generation;   /* the newest that was ever tried: nothing newer can be found ... */
	_Atomic uint32_t oldest;       /* ... and nothing older than this */
	_Atomic uint32_t sure;         /* this one must be found; 0: a miss is fine as well */
	_Atomic uint32_t phase;        /* enum load_phase: what the last answer said */
	_Atomic uint32_t damaged;      /* what was found last was damaged, and may still lie there */
};

struct load_ledger {
	struct load_line lines[LOAD_KEYS_MAX];
	atomic_uint wrong;             /* hits with wrong bytes */
	atomic_uint workers;           /* that are at work */
	atomic_uint_fast64_t puts, gets, hits, removes;
	atomic_uint_fast64_t put_reasons[16], get_reasons[16], remove_reasons[16];      /* enum kvk_reason */
	atomic_uint_fast64_t refused;  /* whole batches, with an error of the call itself */
	atomic_uint_fast64_t slowest_us;       /* of all calls */
	atomic_bool over;              /* no answer counts any more: in truth nobody would be there to see it */
};

enum load_promise {
	LOAD_KEEPS = 1u << 0,          /* what was acknowledged must be found */
	LOAD_ORDERS_PUTS = 1u << 1,    /* after an acknowledged put nothing older is found */
	LOAD_ORDERS_REMOVES = 1u << 2, /* after an acknowledged remove nothing older is found */
};

struct load {
	struct load_ledger *ledger;
	struct kvk_store *store;
	uint32_t keys;
	uint32_t workers;
	uint32_t promises;             /* enum load_promise */
	uint32_t bytes_max;            /* of an object; three of four are at most an eighth of it */
	uint32_t put_share, get_share; /* of 16 steps; the others remove */
	bool chains;                   /* puts name their parent: the key before, of the same worker */
	uint64_t deadline_us;          /* of each call; 0: the store's */
	uint32_t pause_us;             /* at most, after each step of a thread */
};

struct load_worker {
	const struct load *load;
	uint32_t index;
	uint64_t random;
	uint8_t *memory;
	pthread_t thread;
	atomic_bool *stop;
};

void load_key(char text[32], uint32_t number);
uint64_t load_bytes(const struct load *load, uint32_t number, uint32_t generation);

/* One batch of the worker's own; its memory is made at the first. */
void load_step(struct load_worker *worker);
void load_release(struct load_worker *worker);

/* Threads that step until load_stop(). workers has room for load->workers. */
void load_start(const struct load *load, struct load_worker *workers, uint64_t *random, atomic_bool *stop);
void load_stop(struct load_worker *workers, uint32_t count);

/* What a store holds beside what a ledger says. */
struct load_found {
	uint64_t hits, absent;
	uint64_t rejected;             /* found damaged */
	uint64_t rejected_again;       /* the same as before */
	uint64_t undone;               /* not what was answered last, and not promised either */
	uint64_t lost;                 /* must be there and is not */
	uint64_t wrong;                /* other bytes than any that may be there */
	uint64_t failed;               /* neither hit nor miss */
};

/* Loads every key and judges it. learn: the ledger then says what was found, as the start of what follows. first: what
 * the ledger said before; only what it says in both is sure. */
void load_verify(const struct load *load, const struct load_line *first, bool learn, struct load_found *found);

#endif
