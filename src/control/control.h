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

/*
 * After the core was stopped: room settles it (stopped: nothing is under way any more, so it may), what is left to tell is
 * told, and all ends; frees control. Waits as long as it gets on, and wait_us while it does not. True: the caller frees the core.
 * False: what hangs keeps what it uses; where the core was stopped, room settles and frees all of it when the medium goes on.
 */
bool kvk_control_end(struct kvk_control *control, bool stopped, uint64_t wait_us);

#endif
