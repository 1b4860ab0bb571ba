/* SPDX-License-Identifier: Apache-2.0 */
/*
 * While a disk below the file system hangs every request is answered by its deadline, memory that was given back is left
 * alone, and afterwards the store goes on with all that was acknowledged. A slow disk costs time.
 *
 * Method: tests/system/bad_disk.h, on a disk that does not move before requests were answered without it.
 */
#include "system/bad_disk.h"

/* In each case; KVK_HANGS and KVK_ROUNDS say other numbers. */
#define HANGS 6
#define ROUNDS 1
/* Puts before a slow disk is well again. */
#define SOME 8
#define DEADLINE_US 50000
#define RETURNED 16
#define POISON 0xa5

/* Reads into memory that is the reader's again as soon as there is an answer. */
struct reader {
	struct bad_disk *run;
	uint64_t random;
	uint64_t late;                 /* answers that came before the disk's */
	uint8_t *memory[RETURNED];
	bool returned[RETURNED];
	atomic_bool stop;
	pthread_t thread;
};

static void check_returned(struct reader *reader, unsigned which)
{
	if (!reader->returned[which])
		return;
	for (unsigned i = 0; i < BAD_DISK_BYTES_MAX; i++) {
		if (reader->memory[which][i] == POISON)
			continue;
		bed_wrong("memory that was given back after a deadline was written to at byte %u", i);
		break;
	}
	reader->returned[which] = false;
}

static void *reader_main(void *argument)
{
	struct reader *reader = argument;
	struct kvk_store *store = reader->run->bed.store;

	for (unsigned which = 0; !reader->stop; which = (which + 1) % RETURNED) {
		struct iovec iov = { .iov_base = reader->memory[which], .iov_len = BAD_DISK_BYTES_MAX };
		struct kvk_get_item item = { .struct_bytes = sizeof(item), .data = &iov, .data_count = 1 };
		struct kvk_result result = { .struct_bytes = sizeof(result) };
		char key[32];

		check_returned(reader, which);
		load_key(key, (uint32_t)kit_below(&reader->random, BAD_DISK_KEYS));
		item.key = bed_key(key);
		if (kvk_store_get_wait(store, &item, 1, DEADLINE_US, &result) || result.status == 0)
			continue;
		memset(reader->memory[which], POISON, BAD_DISK_BYTES_MAX);
		reader->returned[which] = true;
		reader->late += result.reason == KVK_REASON_DEADLINE;
		usleep(5000);
	}
	return NULL;
}

static void begin_reading(struct bad_disk *run, struct reader *reader)
{
	reader->run = run;
	reader->random = kit_random(&run->random);
	reader->stop = false;
	assert_int_equal(pthread_create(&reader->thread, NULL, reader_main, reader), 0);
}

static uint64_t late_puts(const struct bad_disk *run)
{
	return run->ledger.put_reasons[KVK_REASON_DEADLINE] + run->ledger.put_reasons[KVK_REASON_DEGRADED];
}

static void hang(struct bad_disk *run, uint64_t hang_us)
{
	uint64_t began_us = kit_now_us(), late = late_puts(run), took_us;

	run->medium->stuck = true;
	/* However long that takes here: the disk does not move until they were answered. */
	bad_disk_wait(run, late_puts, late + BAD_DISK_WORKERS, "requests are not answered while the disk hangs");
	took_us = kit_now_us() - began_us;
	if (took_us < hang_us)
		usleep((useconds_t)(hang_us - took_us));
	medium_heal(run->medium);
	bad_disk_wait(run, bad_disk_good_puts, bad_disk_good_puts(run) + 1, "nothing is stored after the disk hung");
}

static void hangs(struct bad_disk *run, const struct bad_disk_scene *scene)
{
	uint64_t rounds = kit_number("KVK_HANGS", HANGS), late = 0;
	struct reader reader = { .random = 0 };

	bad_disk_begin(run, scene);
	run->load.deadline_us = DEADLINE_US;
	for (unsigned i = 0; i < RETURNED; i++)
		assert_non_null(reader.memory[i] = malloc(BAD_DISK_BYTES_MAX));
	for (uint64_t i = 0; i < rounds; i++) {
		/* Most are short, and one in sixteen is up to two seconds. */
		uint64_t hang_us = 60000 + kit_below(&run->random, kit_below(&run->random, 16) ? 100000 : 1940000);

		bad_disk_close_and_mount(run);
		bad_disk_open(run);
		bad_disk_start_load(run);
		begin_reading(run, &reader);
		bad_disk_run_load(run);
		hang(run, hang_us);
		bad_disk_stop_load(run);
		reader.stop = true;
		assert_int_equal(pthread_join(reader.thread, NULL), 0);
		bad_disk_verify(run);
		for (unsigned k = 0; k < RETURNED; k++)
			check_returned(&reader, k);
		assert_int_equal(atomic_load(&bed_wrong_answers), 0);
	}
	for (unsigned i = 0; i < RETURNED; i++)
		free(reader.memory[i]);
	late = reader.late;
	bad_disk_tell(run, 16, "a disk that hangs", "hangs");
	printf("# %" PRIu64 " loads were given up, and their memory was left alone\n", late);
}

static void hangs_ext4(void **state)
{
	hangs(*state, &bad_disk_ext4);
}

static void hangs_xfs(void **state)
{
	hangs(*state, &bad_disk_xfs);
}

static void hangs_pool(void **state)
{
	hangs(*state, &bad_disk_pool_pages);
}

/* 2 to 10 ms a request, and 8 to 40 MB/s. */
static void slow(void **state)
{
	struct bad_disk *run = *state;
	uint64_t rounds = kit_number("KVK_ROUNDS", ROUNDS);

	bad_disk_begin(run, &bad_disk_ext4);
	for (uint64_t i = 0; i < rounds; i++) {
		run->medium->delay_us = 2000 + (uint32_t)kit_below(&run->random, 8000);
		run->medium->bytes_per_ms = 8000 + (uint32_t)kit_below(&run->random, 32000);
		bad_disk_start_load(run);
		bad_disk_wait(run, bad_disk_good_puts, bad_disk_good_puts(run) + SOME, "nothing is stored on a slow disk");
		medium_heal(run->medium);
		bad_disk_stop_load(run);
		bad_disk_verify(run);
	}
	bad_disk_tell(run, 16, "a slow disk", "slow");
}

#define CASE(function) cmocka_unit_test_setup_teardown(function, bad_disk_setup, bad_disk_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(hangs_ext4),
		CASE(hangs_xfs),
		CASE(hangs_pool),
		CASE(slow),
	};

	cmocka_set_test_filter(getenv("KVK_ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
