/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The medium hangs. Every request is answered by its deadline; no late read or write reaches memory that was given
 * back; what comes to an end late is not published; and when the medium goes on, so does the store.
 *
 * Memory that was given back cannot be touched here, so that a late completion, or a transfer straight into memory that was
 * not lent, ends in a crash when what keeps it away is taken out (tests/mutants/race.txt).
 */
#include "support/skip.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend/fault/fault.h"
#include "store_bed.h"
#include "util/clock.h"

#define BYTES 3000000u
#define DEADLINE_US 150000u
/* Where it matters that the transfer has begun when the deadline passes, however busy the machine. */
#define BEGUN_US 2000000u
/* A deadline is kept to the tenth of a second; the test's bound leaves room for a busy machine. */
#define SOON_US 6000000u

static void hang(const struct bed *bed, enum kvk_xfer_op op, uint64_t nth, uint64_t times)
{
	struct kvk_fault_rule rule = {
		.kind = KVK_FAULT_HANG, .ops = bed_ops(bed, 1u << op), .nth = nth, .every = 1, .times = times,
	};

	assert_int_equal(kvk_fault_add(bed_backend(bed->store), &rule), 0);
}

static void go_on(struct kvk_store *store)
{
	uint64_t until_us = kvk_now_us() + 30000000;

	kvk_fault_clear(bed_backend(store));
	kvk_fault_release(bed_backend(store));
	while (bed_places(store) > 0 && kvk_now_us() < until_us)
		sched_yield();
	assert_int_equal(bed_places(store), 0);
}

static bool is_late(int status)
{
	return status == -ETIMEDOUT || status == -EIO;         /* -EIO: known to hang, nothing was tried */
}

/* Whichever step hangs, the answer comes in time; afterwards what is charged is what is there. */
static void test_deadlines(void **state)
{
	static const struct { bool get; enum kvk_xfer_op op; } cases[] = {
		{ false, KVK_XFER_CREATE }, { false, KVK_XFER_WRITE },
		{ false, KVK_XFER_PUBLISH }, { true, KVK_XFER_OPEN }, { true, KVK_XFER_READ },
	};
	struct bed *bed = *state;
	const struct bed_how how = { .deadline_us = DEADLINE_US };

	bed_open(bed, "\"lanes\": 2, \"fault\": []");
	assert_int_equal(bed_put(bed->store, "k", BYTES, 1, NULL), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t start_us = kvk_now_us();
		struct kvk_result result;
		char name[8];
		int status;

		snprintf(name, sizeof(name), "n%zu", i);
		hang(bed, cases[i].op, 1, 1);
		if (cases[i].get)
			status = bed_get_how(bed->store, bed_key("k"), BYTES, 1, &how, &result);
		else
			status = bed_put_how(bed->store, bed_key(name), BYTES, 1, &how, &result);
		if (status != -ETIMEDOUT || result.reason != KVK_REASON_DEADLINE ||
		    kvk_now_us() - start_us > SOON_US)
			fail_msg("%s hangs: status %d (%s) after %llu ms", kvk_xfer_op_name(cases[i].op), status,
				 kvk_reason_text(result.reason), (unsigned long long)(kvk_now_us() - start_us) / 1000);
		go_on(bed->store);
		BED_AGREES(bed->store);
		/* Only a publish that hung itself may have come about. */
		status = bed_get(bed->store, name, BYTES, 1, NULL);
		if (!cases[i].get && cases[i].op != KVK_XFER_PUBLISH)
			assert_int_equal(status, -ENOENT);
		assert_int_equal(bed_get(bed->store, "k", BYTES, 1, NULL), 0);
		assert_int_equal(bed_put(bed->store, name, BYTES, 1, NULL), 0);
	}
	assert_int_equal(bed_stats(bed->store).deadlines, sizeof(cases) / sizeof(cases[0]));
	BED_AGREES(bed->store);
}

/* A lookup and a remove keep their deadline as well; a hit that comes too late leaves no pin. */
static void test_deadlines_of_others(void **state)
{
	struct bed *bed = *state;
	char meta[4];
	struct kvk_key_item item = { .struct_bytes = sizeof(item), .key = bed_key("k"), .flags = KVK_LOOKUP_PIN,
		.meta = meta, .meta_bytes = sizeof(meta) };
	struct kvk_result result = { .struct_bytes = sizeof(result) };

	bed_open(bed, "\"lanes\": 2, \"fault\": []");
	assert_int_equal(bed_put(bed->store, "k", 5000, 1, NULL), 0);
	hang(bed, KVK_XFER_OPEN, 1, 1);
	assert_int_equal(kvk_store_lookup_wait(bed->store, &item, 1, DEADLINE_US, &result), 0);
	assert_int_equal(result.status, -ETIMEDOUT);
	go_on(bed->store);
	while (bed_usage(bed->store).pinned_objects > 0)
		sched_yield();
	item = (struct kvk_key_item){ .struct_bytes = sizeof(item), .key = bed_key("k") };
	hang(bed, KVK_XFER_MOVE, 1, 1);
	assert_int_equal(kvk_store_remove_wait(bed->store, &item, 1, DEADLINE_US, &result), 0);
	assert_int_equal(result.status, -ETIMEDOUT);
	go_on(bed->store);
	BED_AGREES(bed->store);
}

/* Memory that was not to be held is never touched after the answer. */
static void test_memory_is_given_back(void **state)
{
	struct bed *bed = *state;
	unsigned char *data = aligned_alloc(4096, 4 << 20);
	struct iovec iov = { .iov_base = data, .iov_len = BYTES };
	struct kvk_get_item get = { .struct_bytes = sizeof(get), .key = bed_key("k"), .data = &iov, .data_count = 1 };
	struct kvk_put_item put = { .struct_bytes = sizeof(put), .key = bed_key("n"), .data = &iov, .data_count = 1 };
	struct kvk_result result = { .struct_bytes = sizeof(result) };

	assert_non_null(data);
	bed_open(bed, "\"lanes\": 2, \"fault\": []");
	assert_int_equal(bed_put(bed->store, "k", BYTES, 1, NULL), 0);
	for (uint64_t nth = 1; nth <= 3; nth += 2) {
		hang(bed, KVK_XFER_READ, nth, 1);
		assert_int_equal(kvk_store_get_wait(bed->store, &get, 1, DEADLINE_US, &result), 0);
		assert_int_equal(result.status, -ETIMEDOUT);
		assert_int_equal(result.flags & KVK_RESULT_HELD, 0);
		memset(data, 0x77, 4 << 20);
		go_on(bed->store);
		for (size_t i = 0; i < 4 << 20; i++)
			assert_int_equal(data[i], 0x77);

		/* What a late write still reads is not what the caller has there now. */
		bed_fill(data, BYTES, bed_key("n"), 1, 0);
		hang(bed, KVK_XFER_WRITE, nth, 1);
		assert_int_equal(kvk_store_put_wait(bed->store, &put, 1, DEADLINE_US, &result), 0);
		assert_int_equal(result.status, -ETIMEDOUT);
		assert_int_equal(result.flags & KVK_RESULT_HELD, 0);
		memset(data, 0, BYTES);
		go_on(bed->store);
		assert_int_equal(bed_get(bed->store, "n", BYTES, 1, NULL), -ENOENT);
	}
	BED_AGREES(bed->store);
	free(data);
}

/*
 * Asks for the item of a round until its second piece hangs when the deadline passes. On a busy machine the deadline may pass before that
 * piece has begun: what is under way then comes to its end, and the next try gets twice the time.
 */
static int64_t held_by_a_hang(struct bed *bed, int round, struct kvk_put_item *put, struct kvk_get_item *get,
			      struct kvk_result *result)
{
	enum kvk_queue queue = round ? KVK_QUEUE_PUT : KVK_QUEUE_GET;

	for (uint64_t deadline_us = DEADLINE_US;; deadline_us *= 2) {
		struct kvk_result release;
		int64_t task;

		hang(bed, round ? KVK_XFER_WRITE : KVK_XFER_READ, 2, 1);
		task = round ? kvk_store_put(bed->store, put, 1, deadline_us) : kvk_store_get(bed->store, get, 1, deadline_us);
		assert_true(task > 0);
		assert_true(bed_next(bed->store, queue, result));
		assert_int_equal(result->status, -ETIMEDOUT);
		if (kvk_fault_struck(bed_backend(bed->store)) > 0)
			return task;
		assert_true(deadline_us < SOON_US);
		go_on(bed->store);
		if (result->flags & KVK_RESULT_HELD)
			assert_true(bed_next(bed->store, queue, &release));
		BED_AGREES(bed->store);
	}
}

/* With KVK_MEM_HELD the answer says that the memory is held, and a release follows when it is not any more. */
static void test_held_memory(void **state)
{
	struct bed *bed = *state;
	unsigned char *data = aligned_alloc(4096, 4 << 20);
	struct iovec iov = { .iov_base = data, .iov_len = BYTES };
	struct kvk_get_item get = { .struct_bytes = sizeof(get), .key = bed_key("k"), .data = &iov, .data_count = 1,
		.flags = KVK_MEM_HELD, .user = 77 };
	struct kvk_put_item put = { .struct_bytes = sizeof(put), .key = bed_key("n"), .data = &iov, .data_count = 1,
		.flags = KVK_MEM_HELD, .user = 78 };
	struct kvk_result result;
	int64_t task;

	assert_non_null(data);
	bed_open(bed, "\"lanes\": 2, \"fault\": []");
	assert_int_equal(bed_put(bed->store, "k", BYTES, 1, NULL), 0);
	for (int round = 0; round < 2; round++) {
		enum kvk_queue queue = round ? KVK_QUEUE_PUT : KVK_QUEUE_GET;

		task = held_by_a_hang(bed, round, &put, &get, &result);
		assert_int_equal(result.flags, KVK_RESULT_HELD | KVK_RESULT_LAST);
		assert_int_equal(kvk_store_wait(bed->store, queue, 50000), 0);
		go_on(bed->store);
		assert_true(bed_next(bed->store, queue, &result));
		assert_int_equal(result.flags, KVK_RESULT_RELEASE);
		assert_int_equal(result.task, task);
		assert_int_equal(result.user, 77 + round);
		assert_int_equal(kvk_store_wait(bed->store, queue, 0), 0);
		/* Nothing unproven is left in it. */
		for (size_t i = 0; i < BYTES && !round; i++)
			assert_int_equal(data[i], 0xdb);
	}
	assert_int_equal(bed_get(bed->store, "n", BYTES, 1, NULL), -ENOENT);
	BED_AGREES(bed->store);
	free(data);
}

/* A sick medium looks sick: what failed is counted, and the status says why. */
static void test_sickness_shows(void **state)
{
	struct bed *bed = *state;
	struct kvk_stats stats;
	char *text = NULL;

	bed_open(bed, "\"lanes\": 1, \"fault\": [{\"do\": \"fail\", \"ops\": [\"write\"], \"nth\": 1, \"every\": 1}]");
	assert_int_equal(kvk_store_status(bed->store, &text), 0);
	assert_non_null(strstr(text, "\"healthy\":true"));
	kvk_free(text);
	for (int i = 0; i < 3; i++)
		assert_int_equal(bed_put(bed->store, "k", 5000, 1, NULL), -EIO);
	stats = bed_stats(bed->store);
	assert_int_equal(stats.puts, 3);
	assert_int_equal(stats.put_failed, 3);
	assert_int_equal(stats.put_stored, 0);
	assert_true(stats.medium_errors >= 3);
	assert_int_equal(kvk_store_status(bed->store, &text), 0);
	assert_non_null(strstr(text, "\"healthy\":false"));
	assert_non_null(strstr(text, "Input/output error"));
	kvk_free(text);
}

/* While every lane hangs, requests fail at once instead of piling up; when it is over, they do not. */
static void test_all_lanes_hang(void **state)
{
	struct bed *bed = *state;
	const struct bed_how how = { .deadline_us = DEADLINE_US };
	char key[] = "`";
	uint64_t start_us;
	int status;

	bed_open(bed, "\"lanes\": 1, \"fault\": []");
	assert_int_equal(bed_put(bed->store, "k", 5000, 1, NULL), 0);
	hang(bed, KVK_XFER_CREATE, 1, 1);
	/* On a busy machine the time may be over before it has begun: then nothing hangs, and another key is tried. */
	do {
		assert_true(*key < 'k');
		*key += 1;
		assert_true(is_late(bed_put_how(bed->store, bed_key(key), 5000, 1, &how, NULL)));
	} while (kvk_fault_struck(bed_backend(bed->store)) == 0);
	start_us = kvk_now_us();
	for (int i = 0; i < 5; i++)
		assert_true(is_late(bed_get_how(bed->store, bed_key("k"), 5000, 1, &how, NULL)));
	/* What memory knows is known all the same. */
	assert_int_equal(bed_lookup(bed->store, "k", 0, NULL), 0);
	assert_true(kvk_now_us() - start_us < 2 * SOON_US);
	go_on(bed->store);
	start_us = kvk_now_us();
	do {
		status = bed_get_how(bed->store, bed_key("k"), 5000, 1, &how, NULL);
	} while (status && kvk_now_us() - start_us < SOON_US);
	assert_int_equal(status, 0);
	assert_int_equal(bed_get(bed->store, key, 5000, 1, NULL), -ENOENT);
	assert_int_equal(bed_put(bed->store, key, 5000, 1, NULL), 0);
	BED_AGREES(bed->store);
}

struct look {
	struct kvk_store *store;
	struct kvk_usage usage;
	int err;
	char *text;
	atomic_bool over;
};

static void *look_main(void *argument)
{
	struct look *look = argument;

	look->usage.struct_bytes = sizeof(look->usage);
	look->err = kvk_store_usage(look->store, &look->usage);
	if (!look->err)
		look->err = kvk_store_status(look->store, &look->text);
	atomic_store(&look->over, true);
	return NULL;
}

/* Looks while op hangs in the room thread. The second object is not posted, for its visit hangs. */
static void look_while_hangs(struct bed *bed, uint32_t op)
{
	struct kvk_fault_rule rule = { .kind = KVK_FAULT_HANG, .ops = 1u << op, .nth = 1, .every = 1 };
	struct look look = { 0 };
	uint64_t until_us = kvk_now_us() + 30000000;
	uint64_t free_bytes;
	pthread_t thread;
	bool over;

	bed_open(bed, "\"lanes\": 1, \"fault\": []");
	look.store = bed->store;
	assert_int_equal(bed_put(bed->store, "k", 4096, 1, NULL), 0);
	free_bytes = bed_usage(bed->store).medium_free_bytes;
	assert_int_equal(kvk_fault_add(bed_backend(bed->store), &rule), 0);
	assert_int_equal(bed_put(bed->store, "n", 4096, 1, NULL), 0);
	while (kvk_fault_struck(bed_backend(bed->store)) == 0 && kvk_now_us() < until_us)
		sched_yield();
	/* The keeper may ask for the same, and hangs then as well. */
	assert_true(kvk_fault_struck(bed_backend(bed->store)) > 0);
	assert_int_equal(pthread_create(&thread, NULL, look_main, &look), 0);
	until_us = kvk_now_us() + SOON_US;
	while (!atomic_load(&look.over) && kvk_now_us() < until_us)
		usleep(1000);
	over = atomic_load(&look.over);
	go_on(bed->store);
	pthread_join(thread, NULL);
	assert_int_equal(look.err, 0);
	assert_true(over);
	assert_int_equal(look.usage.used_bytes, 4 * 4096);
	assert_true((look.usage.medium_free_bytes > 0) == (free_bytes > 0));
	assert_non_null(strstr(look.text, "\"rows\":[{\"index\":0"));
	kvk_free(look.text);
	BED_AGREES(bed->store);
	bed_close(bed);
}

/* Whoever looks at figures never waits for the medium, whatever of it hangs. */
static void test_looks_never_wait(void **state)
{
	look_while_hangs(*state, KVK_FAULT_UPDATE_FILE);
}

static void test_looks_ask_nothing(void **state)
{
	look_while_hangs(*state, KVK_FAULT_ASK);
}

/* Gets all the time, for as long as it takes to be stopped three times. Returns how many found no answer. */
static int get_while_it_is_stopped(struct bed *bed)
{
	uint64_t until_us = kvk_now_us() + 7000000;
	int wrong = 0;

	if (bed_try_open(bed, "\"lanes\": 2", NULL) || bed_put(bed->store, "k", 5000, 1, NULL))
		return 100;
	do {
		wrong += bed_get(bed->store, "k", 5000, 1, NULL) != 0;
	} while (kvk_now_us() < until_us && wrong < 99);
	return wrong;
}

/* A process that stood still, or its whole machine, does not take its medium for hung when it goes on. */
static void test_a_stop_is_no_hang(void **state)
{
	struct bed *bed = *state;
	pid_t child = fork();
	int status;

	assert_true(child >= 0);
	if (child == 0)
		_exit(get_while_it_is_stopped(bed));
	for (int i = 0; i < 3; i++) {
		usleep(300000);
		kill(child, SIGSTOP);
		usleep(1600000);
		kill(child, SIGCONT);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* In a process of its own, since what a hung medium holds is given up and never freed. Returns a number for what went wrong. */
static int close_while_it_hangs(struct bed *bed, bool held)
{
	static unsigned char data[65536] __attribute__((aligned(4096)));
	struct iovec iov = { .iov_base = data, .iov_len = sizeof(data) };
	struct kvk_put_item put = { .struct_bytes = sizeof(put), .key = { "n", 1 }, .data = &iov, .data_count = 1,
		.flags = held ? KVK_MEM_HELD : 0 };
	struct kvk_result result;
	uint64_t start_us;
	int closed;

	if (bed_try_open(bed, "\"lanes\": 1, \"fault\": [{\"do\": \"hang\", \"ops\": [\"write\"], \"nth\": 1}]", NULL))
		return 1;
	for (uint64_t deadline_us = BEGUN_US; kvk_fault_struck(bed_backend(bed->store)) == 0; deadline_us *= 2) {
		if (kvk_store_put(bed->store, &put, 1, deadline_us) <= 0)
			return 2;
		if (!bed_next(bed->store, KVK_QUEUE_PUT, &result) || result.status != -ETIMEDOUT)
			return 3;
	}
	start_us = kvk_now_us();
	closed = kvk_store_close(bed->store);
	if (kvk_now_us() - start_us > 30000000)
		return 4;
	return closed == (held ? -ETIMEDOUT : 0) ? 0 : 5;
}

static void test_closing_while_it_hangs(void **state)
{
	struct bed *bed = *state;
	pid_t children[2];
	int status;

	for (int i = 0; i < 2; i++) {
		children[i] = fork();
		assert_true(children[i] >= 0);
		if (children[i] == 0)
			_exit(close_while_it_hangs(bed, i));
	}
	for (int i = 0; i < 2; i++) {
		assert_int_equal(waitpid(children[i], &status, 0), children[i]);
		if (!WIFEXITED(status) || WEXITSTATUS(status))
			fail_msg("%s: status %x", i ? "held" : "not held", status);
	}
	/* The next one finds nothing that was not stored, and room to go on. */
	bed_open(bed, "");
	assert_int_equal(bed_get(bed->store, "n", 65536, 1, NULL), -ENOENT);
	assert_int_equal(bed_put(bed->store, "n", 65536, 1, NULL), 0);
}

/* Waiting takes its time: one bed for each way in which a hang shows. */
#define THREE_BEDS(function) \
	BED_TEST(function, BED_RAM, "ram"), \
	BED_TEST(function, BED_URING, "io_uring, buffered"), \
	BED_TEST(function, BED_THREADS_DIRECT, "threads, direct"), \
	BED_TEST(function, BED_POOL_RAM, "pool, ram"), \
	BED_TEST(function, BED_POOL_DIRECT, "pool, io_uring, direct")

int main(void)
{
	const struct CMUnitTest tests[] = {
		THREE_BEDS(test_deadlines),
		THREE_BEDS(test_deadlines_of_others),
		THREE_BEDS(test_memory_is_given_back),
		BED_TESTS_ALL(test_held_memory),
		BED_TESTS(test_sickness_shows),
		BED_TEST(test_all_lanes_hang, BED_RAM, "ram"),
		BED_TEST(test_all_lanes_hang, BED_URING, "io_uring, buffered"),
		BED_TEST(test_looks_never_wait, BED_RAM, "ram"),
		BED_TEST(test_looks_never_wait, BED_URING, "io_uring, buffered"),
		BED_TEST(test_looks_ask_nothing, BED_RAM, "ram"),
		BED_TEST(test_looks_ask_nothing, BED_URING, "io_uring, buffered"),
		BED_TEST(test_a_stop_is_no_hang, BED_URING, "io_uring, buffered"),
		BED_TEST(test_closing_while_it_hangs, BED_URING, "io_uring, buffered"),
		BED_TEST(test_closing_while_it_hangs, BED_THREADS_DIRECT, "threads, direct"),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
