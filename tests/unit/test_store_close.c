/* SPDX-License-Identifier: Apache-2.0 */
/* Closing a store while something of it is under way, slow, or hangs. */
#include <dirent.h>
#include <pthread.h>
#include <sys/wait.h>
#include <time.h>

#include "unit/store_kit.h"

#include "store/core.h"

#define MIB (UINT64_C(1) << 20)

static void sleep_ms(long ms)
{
	struct timespec left = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

	nanosleep(&left, NULL);
}

/* The sync of a batch is in a worker's hands when the store is closed: what it points to must outlive it. A sanitizer
 * tells if not. */
static void closing_during_a_batch_sync(void **state)
{
	struct bed *bed = *state;

	bed_open(bed, "\"durability\": \"batch\", \"batch_seconds\": 0.1, \"fault\": [{\"do\": \"delay\", "
		 "\"ops\": [\"sync_all\"], \"nth\": 1, \"delay_ms\": 1000}]");
	assert_int_equal(bed_put(bed->store, "a", 4096, 1, NULL), 0);
	kit_wait_struck(bed->store, 1);
	assert_int_equal(bed_close(bed), 0);
}

static int close_stuck(struct bed *bed)
{
	struct kvk_fault_rule late = { .kind = KVK_FAULT_DELAY, .ops = 1u << KVK_XFER_READ, .nth = 1, .every = 1,
				       .delay_us = 3600000000u };
	struct kvk_fault_rule stuck = { .kind = KVK_FAULT_HANG, .ops = 1u << KVK_XFER_PUBLISH, .nth = 1 };
	static _Alignas(4096) uint8_t in[MIB], out[4096];
	struct iovec in_iov = { .iov_base = in, .iov_len = sizeof(in) };
	struct iovec out_iov = { .iov_base = out, .iov_len = sizeof(out) };
	struct kvk_get_item get = { .struct_bytes = sizeof(get), .flags = KVK_MEM_HELD, .key = bed_key("a"),
				    .data = &in_iov, .data_count = 1 };
	struct kvk_put_item put = { .struct_bytes = sizeof(put), .key = bed_key("b"), .data = &out_iov,
				    .data_count = 1 };

	bed_open(bed, "\"lanes\": 1, \"fault\": []");
	assert_int_equal(bed_put(bed->store, "a", MIB, 1, NULL), 0);
	assert_int_equal(kvk_fault_add(bed_backend(bed->store), &late), 0);
	assert_int_equal(kvk_fault_add(bed_backend(bed->store), &stuck), 0);
	assert_true(kvk_store_get(bed->store, &get, 1, 0) > 0);
	kit_wait_struck(bed->store, 1);
	assert_true(kvk_store_put(bed->store, &put, 1, 0) > 0);
	kit_wait_struck(bed->store, 2);
	assert_int_equal(kvk_fault_struck(bed_backend(bed->store)), 2);
	return bed_close(bed);
}

/*
 * The only lane is stuck in a system call, and its ring has a read into memory that was given with KVK_MEM_HELD: close must
 * not call that memory free. Method: a read that is late, then a publish that hangs; neither ends while the test runs.
 */
static void closing_with_a_stuck_lane_and_held_memory(void **state)
{
	struct bed *bed = *state;
	int status;
	pid_t child = fork();

	/* In a process of its own: a store whose medium hangs is given up with all that it holds. */
	if (child == 0)
		_exit(close_stuck(bed) == -ETIMEDOUT ? 0 : 1);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

/* What was removed just before a close is not charged after the next open, and what is there is. */
static void closing_credits_what_was_removed(void **state)
{
	struct bed *bed = *state;

	for (int round = 0; round < 3; round++) {
		bed_open(bed, "");
		assert_int_equal(bed_usage(bed->store).used_bytes, round ? 8192 : 0);
		assert_int_equal(bed_put(bed->store, "a", 4096, 1, NULL), 0);
		assert_int_equal(bed_put(bed->store, "b", 4096, 1, NULL), 0);
		assert_int_equal(bed_put(bed->store, "c", 1000000, 1, NULL), 0);
		assert_int_equal(bed_remove(bed->store, "c", NULL), 0);
		assert_int_equal(bed_remove(bed->store, "b", NULL), 0);
		assert_int_equal(bed_close(bed), 0);
	}
}

/* ---- the last things ------------------------------------------------------------------------------- */

/* Closing may wait this long for a medium that hangs, on a machine that is busy. */
#define CLOSED_US UINT64_C(60000000)

struct closing {
	struct bed *bed;
	int result;
	atomic_bool over;
};

static void *close_main(void *argument)
{
	struct closing *closing = argument;

	closing->result = bed_close(closing->bed);
	atomic_store(&closing->over, true);
	return NULL;
}

/* Which of the last things hangs. */
struct last {
	uint32_t op;
	const char *spec;
	bool alone;                    /* nobody else can open it meanwhile: it is locked */
	bool goes;                     /* what is there is removed */
};

static void go_on(struct kvk_backend *backend)
{
	kvk_fault_clear(backend);
	kvk_fault_release(backend);
}

/* In a process of its own, so that all of them hang at a time. Returns a number for what went wrong. */
static int close_while_the_last_hangs(struct bed *bed, const struct last *last)
{
	struct kvk_fault_rule rule = { .kind = KVK_FAULT_HANG, .ops = 1u << last->op, .nth = 1, .every = 1 };
	uint64_t until_us = kit_now_us() + CLOSED_US, used_bytes = last->goes ? 8192 : 16384, begin_us;
	struct closing closing = { .bed = bed };
	struct kvk_account_row rows[4];
	struct kvk_backend *backend;
	pthread_t thread;

	if (bed_try_open(bed, last->spec, NULL))
		return 1;
	if (bed_put(bed->store, "a", 4096, 1, NULL) || bed_put(bed->store, "b", 4096, 1, NULL) ||
	    bed_put(bed->store, "d", 4096, 1, NULL) || bed_remove(bed->store, "b", NULL))
		return 2;
	/* For a second from then on nothing is synced that nobody waits for: it is left to the close. */
	while (kvk_account_has_credits(bed_core(bed->store)->account) && kit_now_us() < until_us)
		sleep_ms(1);
	backend = bed_backend(bed->store);
	if (last->op != KVK_XFER_UNLINK && kvk_fault_add(backend, &rule))
		return 3;
	if (bed_remove(bed->store, "d", NULL))
		return 3;
	/* The answer comes before the file is unlinked. */
	while (atomic_load(&bed_core(bed->store)->removing) > 0 && kit_now_us() < until_us)
		sleep_ms(1);
	if (last->op == KVK_XFER_UNLINK && kvk_fault_add(backend, &rule))
		return 3;
	if (pthread_create(&thread, NULL, close_main, &closing))
		return 3;
	begin_us = kit_now_us();
	while (!atomic_load(&closing.over) && kit_now_us() < until_us)
		sleep_ms(10);
	if (!atomic_load(&closing.over) || closing.result)
		return 4;
	pthread_join(thread, NULL);
	/* It met what hangs, so the backend is still there. */
	if (kit_now_us() - begin_us < 4000000)
		return 5;

	/* Another one may use the store meanwhile; it sees too much rather than too little. */
	if (last->alone)
		go_on(backend);
	while (bed_try_open(bed, "", NULL)) {
		if (!last->alone || kit_now_us() > until_us)
			return 6;
		sleep_ms(10);
	}
	if (!last->alone && bed_usage(bed->store).used_bytes < 8192)
		return 7;
	if (bed_put(bed->store, "c", 4096, 1, NULL) || bed_get(bed->store, "c", 4096, 1, NULL))
		return 8;
	/* The medium goes on, and so does what was left to it. */
	if (!last->alone)
		go_on(backend);
	until_us = kit_now_us() + CLOSED_US;
	while (bed_usage(bed->store).used_bytes != used_bytes && kit_now_us() < until_us)
		sleep_ms(10);
	if (bed_usage(bed->store).used_bytes != used_bytes)
		return 9;
	while (kvk_account_rows(bed_core(bed->store)->account, rows, 4) != 1 && kit_now_us() < until_us)
		sleep_ms(10);
	if (kvk_account_rows(bed_core(bed->store)->account, rows, 4) != 1)
		return 10;
	if (bed_get(bed->store, "a", 4096, 1, NULL) != (last->goes ? -ENOENT : 0) || bed_get(bed->store, "c", 4096, 1, NULL))
		return 11;
	return bed_close(bed) ? 12 : 0;
}

/*
 * What was removed is synced, the account posted, and what shall not persist removed, when nothing else is left to do. If the
 * medium hangs in one of these, close does not wait for it for ever; it comes about when the medium goes on, and ends all.
 */
static void closing_while_the_last_things_hang(void **state)
{
	enum { LASTS = 3 };
	static const struct last lasts[LASTS] = {
		{ KVK_XFER_SYNC_ALL, "\"fault\": []", false, false },
		{ KVK_FAULT_UPDATE_FILE, "\"fault\": []", true, false },
		{ KVK_XFER_UNLINK, "\"fault\": [], \"persist_enabled\": false", true, true },
	};
	enum bed_kind kind = ((struct bed *)*state)->kind;
	pid_t children[LASTS];
	struct bed beds[LASTS];
	int status;

	for (int i = 0; i < LASTS; i++) {
		bed_begin(&beds[i], kind);
		children[i] = fork();
		assert_true(children[i] >= 0);
		if (children[i] == 0)
			_exit(close_while_the_last_hangs(&beds[i], &lasts[i]));
	}
	for (int i = 0; i < LASTS; i++) {
		assert_int_equal(waitpid(children[i], &status, 0), children[i]);
		assert_int_equal(bed_end(&beds[i]), 0);
		if (!WIFEXITED(status) || WEXITSTATUS(status))
			fail_msg("%d: status %x", i, (unsigned)status);
	}
}

/* In a process of its own. What room or keeper are at hangs until they have been given up for the first time, and goes on then. */
static int close_while_busy(struct bed *bed, uint32_t op)
{
	struct kvk_fault_rule rule = { .kind = KVK_FAULT_HANG, .ops = 1u << op, .nth = 1, .every = 1 };
	uint64_t until_us = kit_now_us() + CLOSED_US;
	struct closing closing = { .bed = bed };
	struct kvk_account_row rows[4];
	struct kvk_backend *backend;
	pthread_t thread;

	if (bed_try_open(bed, "\"fault\": []", NULL))
		return 1;
	while (!(bed_usage(bed->store).flags & KVK_USAGE_KEEPER) && kit_now_us() < until_us)
		sleep_ms(1);
	if (bed_put(bed->store, "a", 4096, 1, NULL) || bed_put(bed->store, "b", 4096, 1, NULL))
		return 2;
	backend = bed_backend(bed->store);
	if (kvk_fault_add(backend, &rule) || bed_remove(bed->store, "b", NULL))
		return 3;
	while (kvk_fault_struck(backend) == 0 && kit_now_us() < until_us)
		sleep_ms(1);
	/* Time for the other of the two, if it does the same. */
	sleep_ms(500);
	if (pthread_create(&thread, NULL, close_main, &closing))
		return 4;
	sleep_ms(6000);
	if (atomic_load(&closing.over))
		return 5;
	go_on(backend);
	pthread_join(thread, NULL);
	if (closing.result)
		return 6;
	/* Close waited for it: nothing is left to do. */
	if (bed_try_open(bed, "", NULL))
		return 7;
	if (kvk_account_rows(bed_core(bed->store)->account, rows, 4) != 1)
		return 8;
	if (bed_usage(bed->store).used_bytes != 8192)
		return 9;
	return bed_close(bed) ? 10 : 0;
}

/* What room or keeper are at takes longer than it gets before the lanes are stopped, and not for ever: close waits for it, and for
 * what is left to do after it. */
static void closing_while_room_or_keeper_is_busy(void **state)
{
	enum { OPS = 2 };
	static const uint32_t ops[OPS] = { KVK_XFER_SYNC_ALL, KVK_FAULT_ASK };
	enum bed_kind kind = ((struct bed *)*state)->kind;
	pid_t children[OPS];
	struct bed beds[OPS];
	int status;

	for (int i = 0; i < OPS; i++) {
		bed_begin(&beds[i], kind);
		children[i] = fork();
		assert_true(children[i] >= 0);
		if (children[i] == 0)
			_exit(close_while_busy(&beds[i], ops[i]));
	}
	for (int i = 0; i < OPS; i++) {
		assert_int_equal(waitpid(children[i], &status, 0), children[i]);
		assert_int_equal(bed_end(&beds[i]), 0);
		if (!WIFEXITED(status) || WEXITSTATUS(status))
			fail_msg("%d: status %x", i, (unsigned)status);
	}
}

/* ---- lanes that hang ------------------------------------------------------------------------------- */

static uint32_t entries_of(const char *path)
{
	DIR *folder = opendir(path);
	uint32_t count = 0;

	while (folder && readdir(folder))
		count++;
	if (folder)
		closedir(folder);
	return count;
}

/* What a store takes of its process. */
struct taken {
	uint32_t fds, threads;
};

static struct taken taken_now(void)
{
	return (struct taken){ .fds = entries_of("/proc/self/fd"), .threads = entries_of("/proc/self/task") };
}

/* In a process of its own. A put that hangs in a lane itself, or a load in its ring or a worker, is left alone by a close, and goes on
 * later. */
static int close_while_a_lane_hangs(struct bed *bed, uint32_t op)
{
	struct kvk_fault_rule rule = { .kind = KVK_FAULT_HANG, .ops = 1u << op, .nth = 1 };
	static uint8_t in[65536], out[4096];
	struct iovec in_iov = { .iov_base = in, .iov_len = sizeof(in) };
	struct iovec out_iov = { .iov_base = out, .iov_len = sizeof(out) };
	struct kvk_get_item get = { .struct_bytes = sizeof(get), .key = bed_key("a"), .data = &in_iov, .data_count = 1 };
	struct kvk_put_item put = { .struct_bytes = sizeof(put), .key = bed_key("b"), .data = &out_iov, .data_count = 1 };
	uint64_t until_us = kit_now_us() + CLOSED_US;
	struct kvk_account_row rows[4];
	struct taken before, after;
	struct kvk_backend *backend;

	/* What is made once stays. */
	if (bed_try_open(bed, "\"fault\": []", NULL) || bed_put(bed->store, "a", sizeof(in), 1, NULL) || bed_close(bed))
		return 1;
	before = taken_now();
	if (bed_try_open(bed, "\"fault\": []", NULL))
		return 2;
	backend = bed_backend(bed->store);
	if (kvk_fault_add(backend, &rule))
		return 3;
	if (op == KVK_XFER_READ ? kvk_store_get(bed->store, &get, 1, 0) <= 0 : kvk_store_put(bed->store, &put, 1, 0) <= 0)
		return 3;
	while (kvk_fault_struck(backend) == 0 && kit_now_us() < until_us)
		sleep_ms(1);
	if (bed_close(bed) || kit_now_us() > until_us)
		return 4;
	memset(in, 0x11, sizeof(in));

	/* Its row stands for it as long as it may still publish. */
	if (bed_try_open(bed, "", NULL))
		return 5;
	if (kvk_account_rows(bed_core(bed->store)->account, rows, 4) != 2)
		return 6;
	if (bed_put(bed->store, "c", 4096, 1, NULL) || bed_get(bed->store, "c", 4096, 1, NULL))
		return 7;
	go_on(backend);
	until_us = kit_now_us() + CLOSED_US;
	while (kvk_account_rows(bed_core(bed->store)->account, rows, 4) != 1 && kit_now_us() < until_us)
		sleep_ms(10);
	if (kvk_account_rows(bed_core(bed->store)->account, rows, 4) != 1)
		return 8;
	for (size_t i = 0; i < sizeof(in); i++) {
		if (in[i] != 0x11)
			return 9;
	}
	if (bed_close(bed))
		return 10;
	do {
		after = taken_now();
		if (after.fds <= before.fds && after.threads <= before.threads)
			return 0;
		sleep_ms(10);
	} while (kit_now_us() < until_us);
	return after.fds > before.fds ? 11 : 12;
}

/* What hangs in a lane keeps its store, which nobody can use any more. When it goes on, all that the store had is given back: its
 * row, its descriptors, its threads. */
static void what_hung_in_a_lane_goes_on_after_close(void **state)
{
	enum { OPS = 2 };
	static const uint32_t ops[OPS] = { KVK_XFER_PUBLISH, KVK_XFER_READ };
	enum bed_kind kind = ((struct bed *)*state)->kind;
	pid_t children[OPS];
	struct bed beds[OPS];
	int status;

	for (int i = 0; i < OPS; i++) {
		bed_begin(&beds[i], kind);
		children[i] = fork();
		assert_true(children[i] >= 0);
		if (children[i] == 0)
			_exit(close_while_a_lane_hangs(&beds[i], ops[i]));
	}
	for (int i = 0; i < OPS; i++) {
		assert_int_equal(waitpid(children[i], &status, 0), children[i]);
		assert_int_equal(bed_end(&beds[i]), 0);
		if (!WIFEXITED(status) || WEXITSTATUS(status))
			fail_msg("%d: status %x", i, (unsigned)status);
	}
}

/* ---- hooks ------------------------------------------------------------------------------------------ */

struct hooked {
	struct bed *bed;
	atomic_bool inside, over;
	bool evicts;
	int status;
	uint64_t evicted_bytes, used_bytes;
};

static void call_in(void *user, const struct kvk_event *event)
{
	struct hooked *hooked = user;
	struct kvk_store *store = hooked->bed->store;
	uint64_t until_us = kit_now_us() + CLOSED_US;

	if (event->kind != KVK_EVENT_STORED)
		return;
	if (hooked->evicts) {
		/* It is told before it can be chosen. */
		do
			hooked->status = kvk_store_evict(store, 1, &hooked->evicted_bytes);
		while (!hooked->status && hooked->evicted_bytes == 0 && kit_now_us() < until_us);
	} else {
		struct kvk_core *core = bed_core(store);
		struct kvk_usage usage = { .struct_bytes = sizeof(usage) };
		struct kvk_account_row row;

		atomic_store(&hooked->inside, true);
		/* The insides of calls that were let in before the store was closed, and go on when its row is given back. */
		while (kvk_account_rows(core->account, &row, 1) > 0 && kit_now_us() < until_us)
			sleep_ms(1);
		hooked->status = kvk_core_set_cap(core, 3 * MIB);
		kvk_core_usage(core, &usage);
		hooked->used_bytes = usage.used_bytes;
	}
	atomic_store(&hooked->over, true);
}

/* A hook is in a call while the store is closed: close waits for it, and nothing is freed under it. A sanitizer tells if it is. */
static void closing_while_a_hook_is_in_a_call(void **state)
{
	struct kvk_fault_rule late = { .kind = KVK_FAULT_DELAY, .ops = 1u << KVK_XFER_UNLINK, .nth = 1, .delay_us = 1500000 };
	struct bed *bed = *state;

	for (int round = 0; round < 2; round++) {
		struct hooked hooked = { .bed = bed, .evicts = round == 0 };
		struct kvk_hooks hooks = { .struct_bytes = sizeof(hooks), .user = &hooked, .event = call_in };

		bed->hooks = &hooks;
		bed_open(bed, "\"eviction\": {\"eviction_policy\": \"LRU\"}, \"fault\": []");
		if (hooked.evicts)
			assert_int_equal(kvk_fault_add(bed_backend(bed->store), &late), 0);
		assert_int_equal(bed_put(bed->store, "a", 4096, 1, NULL), 0);
		while (!hooked.evicts && !atomic_load(&hooked.inside))
			sleep_ms(1);
		if (hooked.evicts)
			kit_wait_struck(bed->store, 1);
		assert_int_equal(bed_close(bed), 0);
		assert_true(atomic_load(&hooked.over));
		assert_int_equal(hooked.status, hooked.evicts ? 0 : -ESHUTDOWN);
		assert_int_equal(hooked.evicted_bytes, hooked.evicts ? 8192 : 0);
		assert_int_equal(hooked.used_bytes, hooked.evicts ? 0 : 8192);
		/* What it evicted is credited, and a cap that was refused is not found. */
		bed->hooks = NULL;
		bed_open(bed, "");
		assert_int_equal(bed_usage(bed->store).used_bytes, hooked.evicts ? 0 : 8192);
		assert_int_not_equal(bed_usage(bed->store).cap_bytes, 3 * MIB);
		assert_int_equal(bed_close(bed), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BED_TESTS_POSIX(closing_while_a_hook_is_in_a_call),
		BED_TESTS_POSIX(closing_during_a_batch_sync), BED_TESTS_POSIX(closing_credits_what_was_removed),
		BED_TEST(closing_while_the_last_things_hang, BED_URING, "io_uring, buffered"),
		BED_TEST(closing_while_room_or_keeper_is_busy, BED_URING, "io_uring, buffered"),
		BED_TEST(what_hung_in_a_lane_goes_on_after_close, BED_URING_DIRECT, "io_uring, direct"),
		BED_TEST(what_hung_in_a_lane_goes_on_after_close, BED_THREADS, "threads, buffered"),
		BED_TEST(closing_with_a_stuck_lane_and_held_memory, BED_URING_DIRECT, "io_uring, direct"),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
