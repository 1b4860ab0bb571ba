/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many bytes may be in flight: one budget for reads and one for writes, shared by all lanes.
 *
 * A prefix is read in order and is useful from its head. Deep queues of large objects finish all together and
 * late (measured on one disk: 16 objects of 32 MiB at once took 350 ms each at 1.05 GB/s, one at a time 21 ms at
 * 1.6 GB/s), so the budget starts small, is doubled only where bandwidth rises by 3 % with it, halved where it does
 * not fall, and shrinks when latency doubles.
 */
#ifndef KVK_AGENT_DEPTH_H
#define KVK_AGENT_DEPTH_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define KVK_DEPTH_START_BYTES (UINT64_C(8) << 20)
#define KVK_DEPTH_FLOOR_BYTES (UINT64_C(2) << 20)

/* What was measured of one of two limits that take turns. */
struct kvk_depth_side {
	double moved_bytes;
	double us;
	double latency_us;             /* of a piece, summed over windows */
};

/* Finds the budget of one direction from what is measured. Pure: no clock, no threads. */
struct kvk_depth_tuner {
	uint64_t limit_bytes;          /* in force: the level, or what is tried */
	uint64_t level_bytes;
	uint64_t other_bytes;          /* what the level is held against; 0: nothing */
	uint64_t ceiling_bytes;
	struct kvk_depth_side side[2]; /* the level's, the other's */
	double level_rate;             /* bytes a microsecond, in the last trial */
	double base_latency_us;        /* of a piece, in the last trial */
	uint32_t window;               /* of the trial */
	uint32_t rest_windows;         /* until the next trial */
	bool turned_down;              /* the last trial was of more, and that did not pay */
};

void kvk_depth_tuner_init(struct kvk_depth_tuner *tuner, uint64_t ceiling_bytes);

/* One window is over in which the budget was always in demand. Returns the new limit. */
uint64_t kvk_depth_tuner_step(struct kvk_depth_tuner *tuner, uint64_t moved_bytes, uint64_t window_us,
			      double mean_latency_us);

enum kvk_depth_direction {
	KVK_DEPTH_READ = 0,
	KVK_DEPTH_WRITE = 1,
};

struct kvk_depth {
	struct {
		atomic_uint_fast64_t in_flight_bytes;
		atomic_uint_fast64_t limit_bytes;
		atomic_bool wanted;            /* somebody was refused since the window began */
		pthread_mutex_t lock;          /* guards what follows */
		struct kvk_depth_tuner tuner;
		uint64_t window_start_us;
		uint64_t window_bytes;
		uint64_t window_pieces;
		uint64_t window_latency_us;    /* summed over pieces */
	} direction[2];
	atomic_uint reads_waiting;             /* read requests that no lane has taken up yet */
};

int kvk_depth_init(struct kvk_depth *depth, uint64_t ceiling_bytes);
void kvk_depth_release(struct kvk_depth *depth);

/* Takes bytes from the budget. One transfer is always let through, whatever its size. While reads wait, writes
 * get a quarter of theirs. */
bool kvk_depth_take(struct kvk_depth *depth, enum kvk_depth_direction direction, uint64_t bytes);

/*
 * Whether a lane should take up nothing new now. others_wait: another lane has pieces that wait for budget. What came
 * earlier is to be complete first, so as long as that lane keeps the budget in use nobody begins what comes after.
 */
bool kvk_depth_full(struct kvk_depth *depth, enum kvk_depth_direction direction, bool others_wait);

/* Gives bytes back, which took latency_us; 0: nothing was transferred. Returns whether somebody was refused
 * since the last time this returned true: lanes that sleep may go on. */
bool kvk_depth_give(struct kvk_depth *depth, enum kvk_depth_direction direction, uint64_t bytes,
		    uint64_t now_us, uint64_t latency_us);

#endif
