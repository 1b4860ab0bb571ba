/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When things happen that nobody asked for: deadlines of what hangs, the sync of a batch, room, the scan, and telling the
 * embedder. Four threads that never hold up a request:
 *
 *   watch   every 100 ms, no I/O: answers what is late in the queue or in a lane that is stuck
 *   room    leases room ahead, evicts, gives room to puts that wait for it (room.h)
 *   notify  calls the embedder's hooks (only if there are any)
 *   keeper  in one of the processes: learns what is there, and removes what dead processes left (keeper.h)
 */
#ifndef KVK_CONTROL_CONTROL_H
#define KVK_CONTROL_CONTROL_H

#include "store/core.h"

struct kvk_control;

/* -ENOMEM, -EAGAIN (no threads). core outlives it. */
int kvk_control_start(struct kvk_control **ret, struct kvk_core *core);

/* As kvk_keeper_scan(); -EBUSY also if this process was opened not to keep the store. */
int kvk_control_scan(struct kvk_control *control, uint64_t wait_us);

/* Before the core is stopped: ends watch and keeper, and what room does for others; waits at most wait_us for what hangs in
 * the medium. */
void kvk_control_stop(struct kvk_control *control, uint64_t wait_us);

enum kvk_control_rest {
	KVK_CONTROL_NOTHING,           /* the core was not stopped, and stays the caller's */
	KVK_CONTROL_SETTLE,            /* it was, and nothing is under way any more: room settles it */
	KVK_CONTROL_AWAIT,             /* it was to be, but something hangs in a lane: room waits for that, and settles then */
};

/*
 * After kvk_control_stop(): room does the rest, what is left to tell is told, and all ends; frees control. SETTLE waits as long as
 * it gets on, and wait_us while it does not. True: settled, the caller frees the core. False: after NOTHING the core is the caller's
 * as before; else room goes on when the medium does, and frees all of it then.
 */
bool kvk_control_end(struct kvk_control *control, enum kvk_control_rest rest, uint64_t wait_us);

#endif
