/* SPDX-License-Identifier: Apache-2.0 */
/* The budget of bytes in flight: how it is found, and how it is shared out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>

#include "agent/depth.h"

#define MIB (UINT64_C(1) << 20)
#define WINDOW_US 20000u

/* ---- the tuner against media ---------------------------------------------------------------------- */

/*
 * A medium by two figures: it takes latency_us for a byte, and moves at most peak bytes a microsecond. With limit bytes in
 * flight its rate is limit / latency up to the peak; beyond it latency grows with the queue.
 */
struct medium {
	double peak;
	double latency_us;
};

static double rate_at(const struct medium *medium, uint64_t limit)
{
	double rate = (double)limit / medium->latency_us;

	return rate < medium->peak ? rate : medium->peak;
}

static uint64_t run_windows(struct kvk_depth_tuner *tuner, const struct medium *medium, int windows)
{
	for (int i = 0; i < windows; i++) {
		double rate = rate_at(medium, tuner->limit_bytes);

		kvk_depth_tuner_step(tuner, (uint64_t)(rate * WINDOW_US), WINDOW_US, (double)tuner->limit_bytes / rate);
		assert_true(tuner->limit_bytes <= tuner->ceiling_bytes);
		assert_true(tuner->limit_bytes >= KVK_DEPTH_FLOOR_BYTES || tuner->limit_bytes == tuner->ceiling_bytes);
	}
	return tuner->limit_bytes;
}

/* Where it begins; a ceiling below that is kept. */
static void test_start(void **state)
{
	struct kvk_depth_tuner tuner;

	kvk_depth_tuner_init(&tuner, 32 * MIB);
	assert_int_equal(tuner.limit_bytes, KVK_DEPTH_START_BYTES);
	kvk_depth_tuner_init(&tuner, 3 * MIB);
	assert_int_equal(tuner.limit_bytes, 3 * MIB);
	run_windows(&tuner, &(struct medium){ .peak = 1e6, .latency_us = 1000 }, 50);
	assert_int_equal(tuner.limit_bytes, 3 * MIB);
}

/* A medium that gets faster with every byte in flight is given all there is; and not more. */
static void test_grows_while_it_pays(void **state)
{
	struct medium network = { .peak = 1e9, .latency_us = 5000 };
	struct kvk_depth_tuner tuner;

	kvk_depth_tuner_init(&tuner, 256 * MIB);
	run_windows(&tuner, &network, 60);
	assert_int_equal(tuner.level_bytes, 256 * MIB);
	run_windows(&tuner, &network, 300);
	assert_int_equal(tuner.level_bytes, 256 * MIB);
}

/* A disk that is saturated at the start: each try to grow is taken back, and latency stays. */
static void test_stays_where_it_does_not(void **state)
{
	struct medium disk = { .peak = 1600, .latency_us = 100 };
	struct kvk_depth_tuner tuner;
	uint32_t grown = 0;

	kvk_depth_tuner_init(&tuner, 256 * MIB);
	for (int i = 0; i < 1000; i++)
		grown += run_windows(&tuner, &disk, 1) > KVK_DEPTH_START_BYTES;
	assert_int_equal(tuner.level_bytes, KVK_DEPTH_START_BYTES);
	/* It is tried now and then, since other users of the disk come and go. */
	assert_in_range(grown, 1, 1000 / 16);
}

/* The knee of a medium is found from below: at most one step beyond it. */
static void test_finds_the_knee(void **state)
{
	for (uint64_t knee = 10 * MIB; knee <= 160 * MIB; knee *= 2) {
		struct medium medium = { .peak = (double)knee / 8000, .latency_us = 8000 };
		struct kvk_depth_tuner tuner;
		uint64_t limit;

		kvk_depth_tuner_init(&tuner, 256 * MIB);
		run_windows(&tuner, &medium, 200);
		limit = tuner.level_bytes;
		if (limit < knee * 3 / 4 || limit > knee * 8 / 5)
			fail_msg("a medium with its knee at %llu MiB is given %llu MiB", (unsigned long long)(knee / MIB),
				 (unsigned long long)(limit / MIB));
	}
}

/* A medium that gets slow is asked for less, down to the floor; when it is fast again, for more. */
static void test_shrinks_and_recovers(void **state)
{
	struct medium fast = { .peak = 1e9, .latency_us = 5000 };
	struct kvk_depth_tuner tuner;
	uint64_t before, slow;

	kvk_depth_tuner_init(&tuner, 64 * MIB);
	before = run_windows(&tuner, &fast, 60);
	/* Half the speed at any depth, and each piece takes ever longer. */
	for (int i = 0; i < 200; i++)
		kvk_depth_tuner_step(&tuner, 1000000, WINDOW_US, 50000.0 * (double)(1u << (i < 20 ? i : 20)));
	slow = tuner.limit_bytes;
	assert_true(slow < before / 2);
	assert_true(slow >= KVK_DEPTH_FLOOR_BYTES);
	run_windows(&tuner, &fast, 400);
	assert_int_equal(tuner.level_bytes, 64 * MIB);
}

/* As noisy as a disk that others use too: a factor between 0.75 and 1.25 a window, the sum of four, always the same ones. */
static void run_noisy(struct kvk_depth_tuner *tuner, double (*rate_of)(uint64_t limit), int windows, uint64_t *random,
		      double *limit_sum)
{
	for (int i = 0; i < windows; i++) {
		double factor = 0.75, rate;

		for (int j = 0; j < 4; j++) {
			*random = *random * UINT64_C(6364136223846793005) + 1442695040888963407u;
			factor += (double)(*random >> 40) / (double)(1 << 24) / 8;
		}
		rate = rate_of(tuner->limit_bytes) * factor;
		*limit_sum += (double)tuner->limit_bytes;
		kvk_depth_tuner_step(tuner, (uint64_t)(rate * WINDOW_US), WINDOW_US, (double)tuner->limit_bytes / rate);
	}
}

/* As it was measured: 0.84 GB/s with 8 MiB in flight, and 13 % more with twice as much. */
static double shared_disk(uint64_t limit)
{
	double rate = 840;

	for (uint64_t at = 8 * MIB; at < limit; at *= 2)
		rate *= 1.13;
	return rate;
}

static double saturated_disk(uint64_t limit)
{
	(void)limit;
	return 840;
}

static double mean_limit(double (*rate_of)(uint64_t limit), int windows)
{
	double sum = 0;

	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct kvk_depth_tuner tuner;
		uint64_t random = seed;

		kvk_depth_tuner_init(&tuner, 32 * MIB);
		run_noisy(&tuner, rate_of, windows, &random, &sum);
	}
	return sum / 20 / windows;
}

/* Noise neither keeps a queue short that ought to be deep, nor makes one deep that gains nothing by it. */
static void test_noise(void **state)
{
	double deep = mean_limit(shared_disk, 1000) / MIB, shallow = mean_limit(saturated_disk, 1000) / MIB;

	print_message("32 MiB are best: %.1f MiB in the mean; 8 MiB are enough: %.1f MiB\n", deep, shallow);
	assert_true(deep > 26);
	assert_true(shallow < 14);
}

/* Whatever is measured, also nonsense, the limit stays between floor and ceiling. */
static void test_any_measurement(void **state)
{
	struct kvk_depth_tuner tuner;
	uint64_t random = 12345;

	kvk_depth_tuner_init(&tuner, 64 * MIB);
	for (int i = 0; i < 100000; i++) {
		uint64_t limit;

		random = random * UINT64_C(6364136223846793005) + 1442695040888963407u;
		limit = kvk_depth_tuner_step(&tuner, random >> (random >> 58), (random >> 20) % 50000,
					     (double)((random >> 8) % 1000000));
		assert_int_equal(limit, tuner.limit_bytes);
		assert_in_range(limit, KVK_DEPTH_FLOOR_BYTES, 64 * MIB);
	}
}

/* ---- sharing it out ------------------------------------------------------------------------------- */

static void test_take_and_give(void **state)
{
	struct kvk_depth depth;

	assert_int_equal(kvk_depth_init(&depth, 8 * MIB), 0);
	/* One is let through whatever its size, and then nothing until it is back. */
	assert_true(kvk_depth_take(&depth, KVK_DEPTH_READ, 100 * MIB));
	assert_false(kvk_depth_take(&depth, KVK_DEPTH_READ, 1));
	assert_true(kvk_depth_full(&depth, KVK_DEPTH_READ, false));
	assert_true(kvk_depth_give(&depth, KVK_DEPTH_READ, 100 * MIB, 1000, 0));
	/* Nobody was refused since: nobody has to be woken. */
	assert_true(kvk_depth_take(&depth, KVK_DEPTH_READ, MIB));
	assert_false(kvk_depth_give(&depth, KVK_DEPTH_READ, MIB, 1000, 0));
	for (int i = 0; i < 8; i++)
		assert_true(kvk_depth_take(&depth, KVK_DEPTH_READ, MIB));
	assert_true(kvk_depth_full(&depth, KVK_DEPTH_READ, false));
	assert_false(kvk_depth_take(&depth, KVK_DEPTH_READ, MIB));
	/* Writes have their own budget; while reads are under way, a quarter of it. */
	assert_true(kvk_depth_take(&depth, KVK_DEPTH_WRITE, MIB));
	assert_true(kvk_depth_take(&depth, KVK_DEPTH_WRITE, MIB));
	assert_false(kvk_depth_take(&depth, KVK_DEPTH_WRITE, MIB));
	for (int i = 0; i < 8; i++)
		kvk_depth_give(&depth, KVK_DEPTH_READ, MIB, 1000, 0);
	for (int i = 2; i < 8; i++)
		assert_true(kvk_depth_take(&depth, KVK_DEPTH_WRITE, MIB));
	assert_false(kvk_depth_take(&depth, KVK_DEPTH_WRITE, MIB));
	/* And while reads wait that no lane has taken up. */
	for (int i = 0; i < 7; i++)
		kvk_depth_give(&depth, KVK_DEPTH_WRITE, MIB, 1000, 0);
	atomic_store(&depth.reads_waiting, 1);
	assert_true(kvk_depth_take(&depth, KVK_DEPTH_WRITE, MIB));
	assert_false(kvk_depth_take(&depth, KVK_DEPTH_WRITE, MIB));
	kvk_depth_release(&depth);
}

/* A read that ends concerns writes that were refused because of it. */
static void test_writes_hear_of_reads(void **state)
{
	struct kvk_depth depth;

	kvk_depth_init(&depth, 8 * MIB);
	assert_true(kvk_depth_take(&depth, KVK_DEPTH_READ, MIB));
	assert_true(kvk_depth_take(&depth, KVK_DEPTH_WRITE, 2 * MIB));
	assert_false(kvk_depth_take(&depth, KVK_DEPTH_WRITE, MIB));
	assert_true(kvk_depth_give(&depth, KVK_DEPTH_READ, MIB, 1000, 10));
	assert_true(kvk_depth_take(&depth, KVK_DEPTH_WRITE, MIB));
	kvk_depth_release(&depth);
}

/* As many pieces as there is budget for are always under way, on a disk that does so much. Returns the limit after that. */
static uint64_t keep_busy(struct kvk_depth *depth, uint64_t *now_us, double bytes_per_us, unsigned pieces)
{
	static uint64_t began_us[512];
	uint32_t first = 0, last = 0;

	for (unsigned i = 0; i < pieces; i++) {
		while (kvk_depth_take(depth, KVK_DEPTH_READ, MIB))
			began_us[last++ % 512] = *now_us;
		*now_us += (uint64_t)((double)MIB / bytes_per_us);
		kvk_depth_give(depth, KVK_DEPTH_READ, MIB, *now_us, *now_us - began_us[first++ % 512]);
	}
	for (; first != last; first++)
		kvk_depth_give(depth, KVK_DEPTH_READ, MIB, *now_us, 0);
	return atomic_load(&depth->direction[KVK_DEPTH_READ].limit_bytes);
}

/*
 * A disk that was fast and is throttled, as one of a cloud that has used up its credit: two budgets take it seconds, and that must not
 * be taken for demand that paused, or a full queue stays as long as it was, and each object waits for it.
 */
static void test_a_disk_that_gets_slow(void **state)
{
	struct kvk_depth depth;
	uint64_t now_us = 1, limit = 0;

	kvk_depth_init(&depth, 256 * MIB);
	/* Twice as much in flight brings twice as much. */
	for (unsigned i = 0; i < 4000 && limit < 256 * MIB; i++)
		limit = keep_busy(&depth, &now_us, (double)atomic_load(&depth.direction[KVK_DEPTH_READ].limit_bytes) / 10000, 64);
	assert_int_equal(limit, 256 * MIB);
	limit = keep_busy(&depth, &now_us, 50, 8000);
	assert_in_range(limit, KVK_DEPTH_FLOOR_BYTES, 128 * MIB);
	kvk_depth_release(&depth);
}

#define ROUNDS 20000

static void *take_and_give(void *argument)
{
	struct kvk_depth *depth = argument;

	for (int i = 0; i < ROUNDS; i++) {
		enum kvk_depth_direction direction = i % 3 ? KVK_DEPTH_READ : KVK_DEPTH_WRITE;
		uint64_t bytes = MIB + (uint64_t)i % 7 * 1000;

		if (kvk_depth_take(depth, direction, bytes))
			kvk_depth_give(depth, direction, bytes, (uint64_t)i * 10 + 1, 100);
	}
	return NULL;
}

/* From several threads: nothing is lost, nothing is counted twice. */
static void test_threads(void **state)
{
	struct kvk_depth depth;
	pthread_t threads[4];

	kvk_depth_init(&depth, 16 * MIB);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, take_and_give, &depth), 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(atomic_load(&depth.direction[i].in_flight_bytes), 0);
		assert_in_range(atomic_load(&depth.direction[i].limit_bytes), KVK_DEPTH_FLOOR_BYTES, 16 * MIB);
	}
	kvk_depth_release(&depth);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_start),
		cmocka_unit_test(test_grows_while_it_pays),
		cmocka_unit_test(test_stays_where_it_does_not),
		cmocka_unit_test(test_finds_the_knee),
		cmocka_unit_test(test_noise),
		cmocka_unit_test(test_shrinks_and_recovers),
		cmocka_unit_test(test_any_measurement),
		cmocka_unit_test(test_take_and_give),
		cmocka_unit_test(test_writes_hear_of_reads),
		cmocka_unit_test(test_a_disk_that_gets_slow),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
