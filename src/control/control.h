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

/*
 * Before the core is stopped: ends watch, room and keeper; waits at most wait_us for one that hangs in the medium.
 * -ETIMEDOUT: one still hangs, the core must not be freed.
 */
int kvk_control_stop(struct kvk_control *control, uint64_t wait_us);

/* After the core was stopped and before it is freed: what it left to tell is told, then notify ends. hangs: room or
 * keeper still hangs, and keeps what it uses. */
void kvk_control_end(struct kvk_control *control, bool hangs);

#endif
