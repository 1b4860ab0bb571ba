/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which syncs may be believed.
 *
 * An error of writing back is told once for each open file, by whichever sync comes first, and what could not be written is
 * dropped: then the sync of another one who had written into the same file says 0. A disk that failed to flush its cache
 * may have lost all that was in it, whoever had written that, and says 0 to the next flush. So what a sync says of one's own
 * bytes holds only if since they were written no other sync has failed, nor one that is still under way does.
 */
#ifndef KVK_BACKEND_SYNCS_H
#define KVK_BACKEND_SYNCS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "util/list.h"

/* One that is under way, or is over and waits for those that were under way with it. */
struct kvk_sync {
	struct kvk_link link;
	uint64_t number;               /* in the order in which they began */
	uint64_t until;                /* it waits for all before this one */
	/* All that it waited for are over. On the thread of the last of them, which must not wait; under the lock, so that whoever takes
	 * it afterwards knows that this is over. */
	void (*over)(struct kvk_sync *sync);
};

/* Of one backend. */
struct kvk_syncs {
	pthread_mutex_t lock;
	uint64_t begun;
	atomic_uint_fast64_t failed;
	struct kvk_link under_way;     /* in the order in which they began */
	struct kvk_link waiting;       /* in the order in which they ended, and so by until */
};

void kvk_syncs_init(struct kvk_syncs *syncs);
/* With none under way. */
void kvk_syncs_release(struct kvk_syncs *syncs);

/* How many have failed: to be asked before the first byte is written, and again when the sync of it is over. */
uint64_t kvk_syncs_failed(struct kvk_syncs *syncs);

/* Whether a sync that ended so says anything of the medium: it was asked, and could not. */
bool kvk_sync_is_failure(int result);

void kvk_sync_begin(struct kvk_syncs *syncs, struct kvk_sync *sync);
/*
 * It ended with this result. True: nothing is to be waited for. False: sync->over() is called some time, perhaps before this
 * returns. Who has no over() never waits.
 */
bool kvk_sync_end(struct kvk_syncs *syncs, struct kvk_sync *sync, int result);

/* One that began and ended without others having to wait for it. */
void kvk_sync_tell(struct kvk_syncs *syncs, int result);

/* Until no over() is being called. */
void kvk_syncs_settle(struct kvk_syncs *syncs);

#endif
