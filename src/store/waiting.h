/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Puts that found no room in the lease, or in a pool none side by side, and those that reserved none because their objects were
 * to be there, and were not. They wait here, in the order in which they were asked, until the room thread (src/control/room.c) has leased or made room, or says that there is none.
 */
#ifndef KVK_STORE_WAITING_H
#define KVK_STORE_WAITING_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "util/list.h"

struct kvk_core;
struct kvk_item;

struct kvk_waiting {
	pthread_mutex_t lock;          /* guards items; held while they are given to the agent, whose locks come after it */
	struct kvk_link items;         /* kvk_item.request.op.link */
	atomic_uint_fast64_t bytes;    /* that they need together */
	uint64_t run_bytes;            /* the room thread's: what the first one lacks side by side; 0: that is not what it lacks */
	atomic_uint_fast64_t placing_bytes;    /* of those that were let go for a run, which they may not have taken yet */
	pthread_mutex_t bell_lock;     /* guards the condition; nothing is locked under it */
	pthread_cond_t bell;
	atomic_bool rung;
	atomic_uint_fast64_t low_bytes;    /* less free lease than this: the room thread should know */
};

void kvk_waiting_init(struct kvk_waiting *waiting);
void kvk_waiting_release(struct kvk_waiting *waiting);

/* Tells the room thread that there is something to do. Any thread, also with the agent's locks held. */
void kvk_room_ring(struct kvk_core *core);
/* The room thread's: until somebody rings, or until_us. */
void kvk_room_listen(struct kvk_core *core, uint64_t until_us);
/* Rings when the lease runs low: what every put that reserved does, so an atomic or two is all it costs. */
void kvk_room_mind(struct kvk_core *core);

/* A put that finds somebody waiting waits behind him. */
bool kvk_waiting_is_any(struct kvk_core *core);
/* Something that may have given room back is over, with all that it told catalog and account. */
void kvk_waiting_altered(struct kvk_core *core);

/* An item set up as a put that needs item->charge_bytes. */
void kvk_waiting_add(struct kvk_core *core, struct kvk_item *item);
/* One that was under way: having found no run before all that do not lack one, else behind all others. False: it was canceled, or the store is closing. */
bool kvk_waiting_add_again(struct kvk_core *core, struct kvk_item *item);
/* One that was given to the agent for the run it had waited for has finished, whatever came of it. */
void kvk_waiting_placed(struct kvk_core *core, struct kvk_item *item);

/*
 * Gives what waits to the agent as far as there is room: in order, until one does not fit (refusal 0), or with an answer
 * for each that does not fit and waits since before asked_before_us: -ENOSPC: there is no room; -EAGAIN: the account is being
 * counted; -ENOSR: no run can be made for the first one that lacks one; else why the account could not be asked. -ENOSPC is
 * said only until one fits, since that one may give its room back, and not to one that lacks a run. Returns what the first one
 * still needs, 0 if none waits, and sets run_bytes.
 */
uint64_t kvk_waiting_serve(struct kvk_core *core, int refusal, uint64_t asked_before_us);

/*
 * The first one lacks a run that cannot be made yet: gives those behind it to the agent that need none and fit what is free, in order.
 * So many go before one at most that it is not kept waiting by them.
 */
void kvk_waiting_pass(struct kvk_core *core);

/* Answers what is late (now_us), of a group, or (both 0) everything. */
void kvk_waiting_end(struct kvk_core *core, const void *group, uint64_t now_us);

#endif
