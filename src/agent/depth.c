/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/depth.h"

/* A step up that does not raise bandwidth by 3 % is taken back; growing is tried again after this many windows,
 * since other users of the disk come and go. */
#define REST_WINDOWS 32
#define WINDOW_US_MIN 20000

void kvk_depth_tuner_init(struct kvk_depth_tuner *tuner, uint64_t ceiling_bytes)
{
	*tuner = (struct kvk_depth_tuner){
		.limit_bytes = ceiling_bytes < KVK_DEPTH_START_BYTES ? ceiling_bytes
								     : KVK_DEPTH_START_BYTES,
		.ceiling_bytes = ceiling_bytes,
	};
}

static void grow(struct kvk_depth_tuner *tuner)
{
	uint64_t grown = tuner->limit_bytes + tuner->limit_bytes / 4;

	if (grown > tuner->ceiling_bytes)
		grown = tuner->ceiling_bytes;
	tuner->before_bytes = tuner->limit_bytes;
	tuner->growing = grown > tuner->limit_bytes;
	tuner->limit_bytes = grown;
}

uint64_t kvk_depth_tuner_step(struct kvk_depth_tuner *tuner, uint64_t moved_bytes, uint64_t window_us,
			      double mean_latency_us)
{
	double rate = (double)moved_bytes / (double)(window_us ? window_us : 1);
	bool paid = rate >= tuner->best_rate * 1.03;

	if (tuner->growing && !paid) {
		tuner->growing = false;
		tuner->limit_bytes = tuner->before_bytes;
		tuner->rest_windows = REST_WINDOWS;
	} else if (tuner->base_latency_us > 0 && mean_latency_us > 2 * tuner->base_latency_us && !paid) {
		/* The disk got slower under the same load: a shorter queue keeps the first object early. */
		tuner->growing = false;
		tuner->limit_bytes -= tuner->limit_bytes / 4;
		if (tuner->limit_bytes < KVK_DEPTH_FLOOR_BYTES)
			tuner->limit_bytes = KVK_DEPTH_FLOOR_BYTES;
		tuner->base_latency_us = mean_latency_us / 2;
		tuner->best_rate = rate;
		tuner->rest_windows = REST_WINDOWS;
	} else if (tuner->rest_windows > 0) {
		tuner->growing = false;
		if (--tuner->rest_windows == 0) {
			tuner->best_rate = rate;
			tuner->base_latency_us = mean_latency_us;
			grow(tuner);
		}
	} else {
		tuner->best_rate = rate;
		tuner->base_latency_us = mean_latency_us;
		grow(tuner);
	}
	return tuner->limit_bytes;
}

int kvk_depth_init(struct kvk_depth *depth, uint64_t ceiling_bytes)
{
	*depth = (struct kvk_depth){ 0 };
	for (int i = 0; i < 2; i++) {
		pthread_mutex_init(&depth->direction[i].lock, NULL);
		kvk_depth_tuner_init(&depth->direction[i].tuner, ceiling_bytes);
		atomic_store(&depth->direction[i].limit_bytes, depth->direction[i].tuner.limit_bytes);
	}
	return 0;
}

void kvk_depth_release(struct kvk_depth *depth)
{
	for (int i = 0; i < 2; i++)
		pthread_mutex_destroy(&depth->direction[i].lock);
}

static uint64_t limit_now(struct kvk_depth *depth, enum kvk_depth_direction direction)
{
	uint64_t limit = atomic_load_explicit(&depth->direction[direction].limit_bytes,
					      memory_order_relaxed);

	if (direction == KVK_DEPTH_WRITE &&
	    (atomic_load_explicit(&depth->reads_waiting, memory_order_relaxed) > 0 ||
	     atomic_load_explicit(&depth->direction[KVK_DEPTH_READ].in_flight_bytes,
				  memory_order_relaxed) > 0))
		limit /= 4;
	return limit;
}

bool kvk_depth_take(struct kvk_depth *depth, enum kvk_depth_direction direction, uint64_t bytes)
{
	uint64_t limit = limit_now(depth, direction);
	uint_fast64_t in_flight = atomic_load(&depth->direction[direction].in_flight_bytes);

	do {
		if (in_flight > 0 && in_flight + bytes > limit) {
			atomic_store(&depth->direction[direction].wanted, true);
			/* What was given back between the two lines above saw no want: look once more. */
			if (atomic_load(&depth->direction[direction].in_flight_bytes) >= in_flight)
				return false;
			in_flight = atomic_load(&depth->direction[direction].in_flight_bytes);
			continue;
		}
	} while (!atomic_compare_exchange_weak(&depth->direction[direction].in_flight_bytes, &in_flight,
					       in_flight + bytes));
	return true;
}

bool kvk_depth_full(struct kvk_depth *depth, enum kvk_depth_direction direction, bool others_wait)
{
	uint64_t limit = limit_now(depth, direction);
	uint64_t in_flight = atomic_load(&depth->direction[direction].in_flight_bytes);

	if (in_flight == 0 || in_flight < (others_wait ? limit / 4 * 3 : limit))
		return false;
	atomic_store(&depth->direction[direction].wanted, true);
	return atomic_load(&depth->direction[direction].in_flight_bytes) >= in_flight;
}

/*
 * Whether lanes that were refused should be woken. Not for each piece that ends: the lane it ended on uses its room at
 * once, and waking another one costs as much as a small load. A quarter of the budget being free says that this lane
 * does not keep up.
 */
static bool room_for_others(struct kvk_depth *depth, enum kvk_depth_direction direction)
{
	uint64_t in_flight;

	if (!atomic_load(&depth->direction[direction].wanted))
		return false;
	in_flight = atomic_load(&depth->direction[direction].in_flight_bytes);
	if (in_flight > 0 && in_flight > limit_now(depth, direction) / 4 * 3)
		return false;
	return atomic_exchange(&depth->direction[direction].wanted, false);
}

bool kvk_depth_give(struct kvk_depth *depth, enum kvk_depth_direction which, uint64_t bytes,
		    uint64_t now_us, uint64_t latency_us)
{
	__typeof__(&depth->direction[0]) direction = &depth->direction[which];
	bool wanted = atomic_load_explicit(&direction->wanted, memory_order_relaxed), wake;

	atomic_fetch_sub(&direction->in_flight_bytes, bytes);
	/* Writes get more when no read is in flight, so a read that ends may concern them as well. */
	wake = room_for_others(depth, which);
	wake |= room_for_others(depth, !which);
	if (latency_us == 0)
		return wake;

	pthread_mutex_lock(&direction->lock);
	if (direction->window_start_us == 0 || (!wanted && direction->window_pieces == 0)) {
		direction->window_start_us = now_us;
		direction->window_bytes = 0;
	} else if (now_us - direction->window_start_us > 50 * WINDOW_US_MIN) {
		/* Demand paused: what was measured so far says nothing. */
		direction->window_start_us = now_us;
		direction->window_bytes = 0;
		direction->window_pieces = 0;
		direction->window_latency_us = 0;
	}
	if (wanted || direction->window_pieces > 0) {
		direction->window_bytes += bytes;
		direction->window_pieces++;
		direction->window_latency_us += latency_us;
	}
	if (direction->window_pieces > 0 && now_us - direction->window_start_us >= WINDOW_US_MIN &&
	    direction->window_bytes >= 2 * direction->tuner.limit_bytes) {
		uint64_t limit = kvk_depth_tuner_step(
			&direction->tuner, direction->window_bytes, now_us - direction->window_start_us,
			(double)direction->window_latency_us / (double)direction->window_pieces);

		atomic_store(&direction->limit_bytes, limit);
		direction->window_start_us = now_us;
		direction->window_bytes = 0;
		direction->window_pieces = 0;
		direction->window_latency_us = 0;
	}
	pthread_mutex_unlock(&direction->lock);
	return wake;
}
