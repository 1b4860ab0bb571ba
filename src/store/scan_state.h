/* SPDX-License-Identifier: Apache-2.0 */
/* How far the scan of a store is, for those who ask. */
#ifndef KVK_STORE_SCAN_STATE_H
#define KVK_STORE_SCAN_STATE_H

#include <stdint.h>

enum kvk_scan_phase {
	KVK_SCAN_WAITING = 0,          /* another process is the keeper, or nobody yet */
	KVK_SCAN_NAMES,                /* names and sizes, and the account with them */
	KVK_SCAN_FOOTERS,              /* whose they are */
	KVK_SCAN_SETTLING,             /* all is known; the account waits for a process, or the medium, to tell the rest */
	KVK_SCAN_IDLE,                 /* all is known and stands in the account; what changes is listed again */
};

struct kvk_scan_state {
	enum kvk_scan_phase phase;
	uint32_t buckets, buckets_done;        /* of this phase */
	uint64_t objects, bytes;               /* found by name so far */
	uint64_t footers, unreadable;          /* read so far; of those, without a footer */
	uint64_t swept;                        /* temporary and removed files of dead processes that were unlinked */
	uint64_t from_snapshot;                /* objects that a snapshot told of */
	uint64_t per_second;                   /* objects, in this phase */
	uint64_t elapsed_us, left_us;          /* of this phase; left_us UINT64_MAX: not known yet */
	int64_t drift_bytes;                   /* what the account had too much (below 0: too little) since the last pass began */
	uint32_t unsettled;                    /* buckets whose finding does not stand in the account yet */
	int trouble;                           /* the last error of the medium: -errno; 0: none */
};

#endif
