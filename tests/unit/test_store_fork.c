/* SPDX-License-Identifier: Apache-2.0 */
/* A store belongs to the process that opened it: what a child may call, and what it cannot break. */
#include "support/skip.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/core.h"
#include "store_bed.h"
#include "util/clock.h"

#define BYTES 70000u

/* A child has none of the threads whose stacks hold things, so there the leak checker would see leaks that are none. */
static bool in_child;
int __lsan_is_turned_off(void) __attribute__((visibility("default")));
int __lsan_is_turned_off(void)
{
	return in_child;
}

/* Every call in the child; returns the number of the first that does not say -ECHILD, or 0. */
static int call_everything(struct kvk_store *store)
{
	static unsigned char page[4096] __attribute__((aligned(4096)));
	struct kvk_put_item put = { .struct_bytes = sizeof(put), .key = { "k", 1 } };
	struct kvk_get_item get = { .struct_bytes = sizeof(get), .key = { "k", 1 } };
	struct kvk_key_item key = { .struct_bytes = sizeof(key), .key = { "k", 1 } };
	struct kvk_result result = { .struct_bytes = sizeof(result) };
	struct kvk_usage usage = { .struct_bytes = sizeof(usage) };
	struct kvk_stats stats = { .struct_bytes = sizeof(stats) };
	static struct kvk_list_entry entry = { .struct_bytes = sizeof(entry) };
	char *text;
	int64_t answers[] = {
		kvk_store_put(store, &put, 1, 0), kvk_store_get(store, &get, 1, 0), kvk_store_lookup(store, &key, 1, 0),
		kvk_store_unpin(store, &key, 1), kvk_store_remove(store, &key, 1, 0),
		kvk_store_put_wait(store, &put, 1, 0, &result), kvk_store_get_wait(store, &get, 1, 0, &result),
		kvk_store_lookup_wait(store, &key, 1, 0, &result), kvk_store_unpin_wait(store, &key, 1, &result),
		kvk_store_remove_wait(store, &key, 1, 0, &result), kvk_store_drain(store, KVK_QUEUE_PUT, &result, 1),
		kvk_store_wait(store, KVK_QUEUE_PUT, 0), kvk_store_cancel(store, 1),
		kvk_store_event_fd(store, KVK_QUEUE_PUT), kvk_store_register(store, page, sizeof(page)),
		kvk_store_unregister(store, page), kvk_store_usage(store, &usage), kvk_store_stats(store, &stats),
		kvk_store_shares(store, KVK_BY_TENANT, NULL, 0), kvk_store_status(store, &text),
		kvk_store_list(store, NULL, &entry, 1, &text), kvk_store_namespace(store, NULL, &text),
		kvk_store_namespaces(store, NULL, 0),
	};

	for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
		if (answers[i] != -ECHILD)
			return (int)i + 1;
	}
	return 0;
}

static int await_child(pid_t child)
{
	int status;

	assert_int_equal(waitpid(child, &status, 0), child);
	if (!WIFEXITED(status))
		fail_msg("the child was killed by signal %d", WTERMSIG(status));
	return WEXITSTATUS(status);
}

/* In the child every call is refused; closing there harms nothing, and the parent goes on. */
static void test_child_calls(void **state)
{
	struct bed *bed = *state;
	struct kvk_put_item put = { .struct_bytes = sizeof(put), .key = { "queued", 6 } };
	struct kvk_result result;

	bed_open(bed, "\"persist_enabled\": false");
	assert_int_equal(bed_put(bed->store, "k", BYTES, 1, NULL), 0);
	for (int round = 0; round < 6; round++) {
		pid_t child;

		/* Something is always under way when the fork comes. */
		assert_true(kvk_store_put(bed->store, &put, 1, 0) > 0);
		child = fork();
		assert_true(child >= 0);
		if (child == 0) {
			int wrong = round % 3 == 0 ? 0 : call_everything(bed->store);

			if (!wrong && round % 3 != 1 && kvk_store_close(bed->store))
				wrong = 100;
			_exit(wrong);
		}
		assert_int_equal(await_child(child), 0);
		assert_true(bed_next(bed->store, KVK_QUEUE_PUT, &result));
		assert_int_equal(result.status, 0);
		assert_int_equal(bed_get(bed->store, "k", BYTES, 1, NULL), 0);
		assert_int_equal(bed_remove(bed->store, "queued", NULL), 0);
		assert_int_equal(bed_put(bed->store, "more", BYTES, 1, NULL), 0);
		assert_int_equal(bed_remove(bed->store, "more", NULL), 0);
		BED_AGREES(bed->store);
	}
}

/* A child that ends in the ordinary way, with its destructors and exit handlers, takes nothing along. */
static void test_child_exits(void **state)
{
	struct bed *bed = *state;
	pid_t child;

	bed_open(bed, "\"persist_enabled\": false");
	assert_int_equal(bed_put(bed->store, "k", BYTES, 1, NULL), 0);
	fflush(NULL);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		in_child = true;
		exit(0);
	}
	assert_int_equal(await_child(child), 0);
	assert_int_equal(bed_get(bed->store, "k", BYTES, 1, NULL), 0);
	assert_int_equal(bed_put(bed->store, "k2", BYTES, 1, NULL), 0);
}

/* A child may open the same directory as a store of its own. */
static void test_child_opens_its_own(void **state)
{
	struct bed *bed = *state;
	pid_t child;

	if (UNDER_TSAN)
		SKIP("TSan lets no child of a process with threads start threads");
	bed_open(bed, "");
	assert_int_equal(bed_put(bed->store, "k", BYTES, 1, NULL), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		struct bed own = *bed;

		if (bed_try_open(&own, "", NULL))
			_exit(1);
		if (bed_get(own.store, "k", BYTES, 1, NULL) || bed_put(own.store, "from the child", BYTES, 1, NULL))
			_exit(2);
		_exit(kvk_store_close(own.store) ? 3 : atomic_load(&bed_wrong_answers) ? 4 : 0);
	}
	assert_int_equal(await_child(child), 0);
	assert_int_equal(bed_get(bed->store, "from the child", BYTES, 1, NULL), 0);
	BED_AGREES(bed->store);
}

/*
 * The parent is killed while a child of it lives: the child, which has the parent's descriptors, keeps nobody from
 * opening the store, also with other settings and alone.
 */
static void test_parent_is_killed(void **state)
{
	struct bed *bed = *state;
	int alive[2], end[2];
	pid_t parent;
	char byte;

	bed_open(bed, "");
	assert_int_equal(bed_put(bed->store, "k", BYTES, 1, NULL), 0);
	bed_close(bed);
	assert_int_equal(pipe(alive), 0);
	assert_int_equal(pipe(end), 0);
	parent = fork();
	assert_true(parent >= 0);
	if (parent == 0) {
		struct bed own = *bed;

		if (bed_try_open(&own, "", NULL) || bed_put(own.store, "k2", BYTES, 1, NULL))
			_exit(1);
		if (fork() == 0) {
			/* Lives on until it is told. */
			close(end[1]);
			if (write(alive[1], "+", 1) != 1 || read(end[0], &byte, 1) < 0)
				_exit(1);
			_exit(call_everything(own.store));
		}
		pause();
		_exit(1);
	}
	close(alive[1]);
	close(end[0]);
	assert_int_equal(read(alive[0], &byte, 1), 1);
	assert_int_equal(kill(parent, SIGKILL), 0);
	assert_int_equal(waitpid(parent, NULL, 0), parent);
	bed_open(bed, "\"durability\": \"batch\", \"persist_enabled\": false");
	assert_int_equal(bed_get(bed->store, "k", BYTES, 1, NULL), 0);
	assert_int_equal(bed_get(bed->store, "k2", BYTES, 1, NULL), 0);
	assert_int_equal(bed_put(bed->store, "k3", BYTES, 1, NULL), 0);
	close(end[1]);
	close(alive[0]);
}

/* ---- while the child of a killed one lives on -------------------------------------------------------- */

struct orphan {
	pid_t parent, child;
	int end;                       /* closed, it lets the child go on */
	int result;                    /* a byte comes when it is through */
};

/* A process that opens a store by this specification, forks a child, and is killed. The child opens it anew when it may. */
static void orphan_begin(struct orphan *orphan, const char *spec)
{
	int alive[2], end[2], result[2];
	struct kvk_store *store;

	assert_int_equal(pipe(alive), 0);
	assert_int_equal(pipe(end), 0);
	assert_int_equal(pipe(result), 0);
	orphan->parent = fork();
	assert_true(orphan->parent >= 0);
	if (orphan->parent == 0) {
		pid_t child;
		char byte;

		close(end[1]);
		if (kvk_store_open(&store, spec, NULL, NULL) || bed_put(store, "from the parent", BYTES, 1, NULL))
			_exit(1);
		child = fork();
		if (child == 0) {
			child = getpid();
			if (write(alive[1], &child, sizeof(child)) != sizeof(child) || read(end[0], &byte, 1) != 0)
				_exit(1);
			byte = (char)(kvk_store_open(&store, spec, NULL, NULL) ? 1 :
				      bed_put(store, "from the child", BYTES, 1, NULL) ? 2 : kvk_store_close(store) ? 3 : 0);
			_exit(write(result[1], &byte, 1) != 1);
		}
		pause();
		_exit(1);
	}
	close(alive[1]);
	close(end[0]);
	close(result[1]);
	assert_int_equal(read(alive[0], &orphan->child, sizeof(orphan->child)), sizeof(orphan->child));
	close(alive[0]);
	orphan->end = end[1];
	orphan->result = result[0];
}

static void orphan_kill_parent(struct orphan *orphan)
{
	assert_int_equal(kill(orphan->parent, SIGKILL), 0);
	assert_int_equal(waitpid(orphan->parent, NULL, 0), orphan->parent);
	assert_int_equal(kill(orphan->child, 0), 0);
}

static void orphan_end(struct orphan *orphan)
{
	char byte = 100;

	close(orphan->end);
	assert_int_equal(read(orphan->result, &byte, 1), 1);
	assert_int_equal(byte, 0);
	close(orphan->result);
}

static uint32_t rows_of(struct bed *bed, uint64_t *leased_bytes)
{
	struct kvk_account_row rows[4] = { 0 };
	uint32_t count = kvk_account_rows(bed_core(bed->store)->account, rows, 4);

	*leased_bytes = 0;
	for (uint32_t i = 0; i < count; i++)
		*leased_bytes += rows[i].self ? 0 : rows[i].leased_bytes;
	return count;
}

/* Others settle the row of a killed process, and have what it leased, while a child of it lives. */
static void test_the_lease_of_a_killed_parent(void **state)
{
	uint64_t until_us = kvk_now_us() + 20000000, leased_bytes;
	struct bed *bed = *state;
	struct orphan orphan;
	char spec[1000];

	if (UNDER_TSAN)
		SKIP("TSan lets no child of a process with threads start threads");
	bed_spec(bed, spec, sizeof(spec), "");
	orphan_begin(&orphan, spec);
	bed_open(bed, "");
	assert_int_equal(rows_of(bed, &leased_bytes), 2);
	assert_true(leased_bytes > 0);
	orphan_kill_parent(&orphan);
	while (rows_of(bed, &leased_bytes) != 1 && kvk_now_us() < until_us)
		usleep(1000);
	assert_int_equal(rows_of(bed, &leased_bytes), 1);
	BED_AGREES(bed->store);
	orphan_end(&orphan);
	assert_int_equal(bed_get(bed->store, "from the parent", BYTES, 1, NULL), 0);
	assert_int_equal(bed_get(bed->store, "from the child", BYTES, 1, NULL), 0);
}

/* A device that a killed process had for itself can be opened while a child of it lives. */
static void test_the_device_of_a_killed_parent(void **state)
{
	char command[300], spec[600], loop[64] = "";
	struct bed *bed = *state;
	uint64_t until_us = kvk_now_us() + 30000000;
	struct orphan orphan;
	FILE *pipe;
	int err;

	if (geteuid())
		SKIP("a loop device needs root");
	if (UNDER_TSAN)
		SKIP("TSan lets no child of a process with threads start threads");
	snprintf(command, sizeof(command), "truncate -s 8M '%s.img' && losetup -f --show '%s.img' 2>/dev/null", bed->path, bed->path);
	pipe = popen(command, "r");
	if (!pipe || !fgets(loop, sizeof(loop), pipe) || pclose(pipe) || strncmp(loop, "/dev/loop", 9)) {
		snprintf(command, sizeof(command), "%s.img", bed->path);
		unlink(command);
		SKIP("no loop device is to be had");
	}
	loop[strcspn(loop, "\n")] = 0;
	snprintf(spec, sizeof(spec), "{\"type\": \"nixl_store\", \"pool_size\": 100, \"slot_size\": 65536, \"backend_params\": "
		 "{\"file_path\": \"%s\", \"device_path\": \"%s\"}}", bed->path, loop);
	orphan_begin(&orphan, spec);
	orphan_kill_parent(&orphan);
	/* What a killed process had in its ring may take a moment to end. */
	while ((err = kvk_store_open(&bed->store, spec, NULL, NULL)) == -EBUSY && kvk_now_us() < until_us)
		usleep(10000);
	if (!err) {
		assert_int_equal(bed_get(bed->store, "from the parent", BYTES, 1, NULL), 0);
		assert_int_equal(bed_close(bed), 0);
	}
	orphan_end(&orphan);
	snprintf(command, sizeof(command), "losetup -d %s; rm '%s.img'", loop, bed->path);
	assert_int_equal(system(command), 0);
	assert_int_equal(err, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BED_TESTS(test_child_calls),
		BED_TESTS(test_child_exits),
		BED_TESTS_POSIX(test_child_opens_its_own),
		BED_TESTS_POSIX(test_parent_is_killed),
		BED_TEST(test_the_lease_of_a_killed_parent, BED_URING, "io_uring, buffered"),
		BED_TEST(test_the_lease_of_a_killed_parent, BED_THREADS_DIRECT, "threads, direct"),
		BED_TEST(test_the_device_of_a_killed_parent, BED_POOL, "loop device"),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
