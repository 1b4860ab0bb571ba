/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/depth.h"

/*
 * How a limit is held against another one, in windows. On a disk that others use too, windows of 20 to 70 ms differ by
 * 10 % and more, and twice as much in flight may bring 13 % (measured: 0.84 GB/s with 8 MiB, 0.95 with 16, 1.08 with 32,
 * where single windows spread over 0.7 to 1.2). Steps of a quarter that had to show 3 % in one window were mostly taken back.
 * So the two take turns, first - other - first, which also cancels a steady drift, and what is judged are sums. A window
 * after a change still ends what the other limit began, and is not counted.
 */
#define TRIAL_WINDOWS 10
#define FIRST_CHANGE 2
#define SECOND_CHANGE 7
#define PAYS 1.03

/* Between trials, since other users of the disk come and go; the other limit is in force in 1 of 18 windows. */
#define REST_WINDOWS 80
#define WINDOW_US_MIN 20000
/* A window that takes longer was not in demand all the time, */
#define WINDOW_US_MAX 1000000
/* unless a piece takes that long: with the budget in use two budgets take two latencies, for writes beside reads eight. */
#define WINDOW_LATENCIES_MAX 16

void kvk_depth_tuner_init(struct kvk_depth_tuner *tuner, uint64_t ceiling_bytes)
{
	uint64_t start = ceiling_bytes < KVK_DEPTH_START_BYTES ? ceiling_bytes : KVK_DEPTH_START_BYTES;

	*tuner = (struct kvk_depth_tuner){
		.limit_bytes = start,
		.level_bytes = start,
		.ceiling_bytes = ceiling_bytes,
	};
}

/* Up where that may pay; every other time, whether half would not do as well, but not below the start. */
static uint64_t next_trial(const struct kvk_depth_tuner *tuner)
{
	uint64_t level = tuner->level_bytes, ceiling = tuner->ceiling_bytes;
	uint64_t up = level < ceiling / 2 ? 2 * level : ceiling;
	uint64_t down = level / 2 > KVK_DEPTH_START_BYTES ? level / 2 : KVK_DEPTH_START_BYTES;
	bool may_fall = down < level;

	if (up > level && !(tuner->turned_down && may_fall))
		return up;
	return may_fall ? down : 0;
}

static double side_rate(const struct kvk_depth_side *side)
{
	return side->moved_bytes / (side->us > 0 ? side->us : 1);
}

static void rest(struct kvk_depth_tuner *tuner)
{
	tuner->other_bytes = 0;
	tuner->limit_bytes = tuner->level_bytes;
	tuner->rest_windows = REST_WINDOWS;
}

static void judge(struct kvk_depth_tuner *tuner)
{
	const struct kvk_depth_side *level = &tuner->side[0], *other = &tuner->side[1];
	bool up = tuner->other_bytes > tuner->level_bytes;
	bool higher_pays = up ? side_rate(other) >= side_rate(level) * PAYS : side_rate(level) >= side_rate(other) * PAYS;
	const struct kvk_depth_side *better = up == higher_pays ? other : level;

	if (better == other)
		tuner->level_bytes = tuner->other_bytes;
	tuner->level_rate = side_rate(better);
	tuner->base_latency_us = better->latency_us / (TRIAL_WINDOWS - 2) * 2;
	tuner->turned_down = up && !higher_pays;
	rest(tuner);
	/* What paid once may pay again. */
	if (up && higher_pays)
		tuner->rest_windows = 0;
}

static void try_window(struct kvk_depth_tuner *tuner, double moved_bytes, double us, double mean_latency_us)
{
	bool other = tuner->window >= FIRST_CHANGE && tuner->window < SECOND_CHANGE;

	if (tuner->window != FIRST_CHANGE && tuner->window != SECOND_CHANGE) {
		tuner->side[other].moved_bytes += moved_bytes;
		tuner->side[other].us += us;
		tuner->side[other].latency_us += mean_latency_us;
	}
	tuner->window++;
	if (tuner->window == FIRST_CHANGE)
		tuner->limit_bytes = tuner->other_bytes;
	else if (tuner->window == SECOND_CHANGE)
		tuner->limit_bytes = tuner->level_bytes;
	else if (tuner->window == TRIAL_WINDOWS)
		judge(tuner);
}

/* The disk got slower under the same load: a shorter queue keeps the first object early. */
static void shrink(struct kvk_depth_tuner *tuner, double rate, double mean_latency_us)
{
	uint64_t floor = tuner->ceiling_bytes < KVK_DEPTH_FLOOR_BYTES ? tuner->ceiling_bytes : KVK_DEPTH_FLOOR_BYTES;

	tuner->level_bytes -= tuner->level_bytes / 4;
	if (tuner->level_bytes < floor)
		tuner->level_bytes = floor;
	tuner->base_latency_us = mean_latency_us / 2;
	tuner->level_rate = rate;
	rest(tuner);
}

uint64_t kvk_depth_tuner_step(struct kvk_depth_tuner *tuner, uint64_t moved_bytes, uint64_t window_us,
			      double mean_latency_us)
{
	double us = (double)(window_us ? window_us : 1);
	double rate = (double)moved_bytes / us;

	if (tuner->other_bytes == 0 && tuner->rest_windows > 0) {
		tuner->rest_windows--;
		if (mean_latency_us > 2 * tuner->base_latency_us && tuner->base_latency_us > 0 &&
		    rate < tuner->level_rate * PAYS)
			shrink(tuner, rate, mean_latency_us);
		return tuner->limit_bytes;
	}
	if (tuner->other_bytes == 0) {
		tuner->other_bytes = next_trial(tuner);
		if (tuner->other_bytes == 0) {
			/* The ceiling is not above the start: there is nothing to try. */
			tuner->level_rate = rate;
			tuner->base_latency_us = mean_latency_us;
			rest(tuner);
			return tuner->limit_bytes;
		}
		tuner->window = 0;
		tuner->side[0] = tuner->side[1] = (struct kvk_depth_side){ 0 };
	}
	try_window(tuner, (double)moved_bytes, us, mean_latency_us);
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

static uint64_t window_us_max(uint64_t mean_latency_us)
{
	uint64_t slow_us = WINDOW_LATENCIES_MAX * mean_latency_us;

	return slow_us > WINDOW_US_MAX ? slow_us : WINDOW_US_MAX;
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
	} else if (now_us - direction->window_start_us >
		   window_us_max((direction->window_latency_us + latency_us) / (direction->window_pieces + 1))) {
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
