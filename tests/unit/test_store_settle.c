/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper gets to the end of its scan whatever others do, or do not: a process that was stopped, an account that got lost
 * while one was, folders with times that cannot be.
 */
#include <sys/prctl.h>

#include "unit/scan_kit.h"

#define LRU "\"eviction\": {\"eviction_policy\": \"LRU\", \"trigger_watermark\": 1.0, \"eviction_ratio\": 0.1}"

/* ---- another process that has the store open, and is no keeper ---------------------------------- */

static void wait_for(const struct bed *bed, const char *name)
{
	uint64_t until_us = kit_now_us() + 20000000;
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", bed->path, name);
	while (access(path, F_OK)) {
		assert_true(kit_now_us() < until_us);
		usleep(1000);
	}
	assert_int_equal(unlink(path), 0);
}

/* Forks, opens the bed's store here, and then there. */
static pid_t open_both(struct bed *bed)
{
	pid_t child;

	if (UNDER_TSAN)
		SKIP("TSan lets no child of a process with threads start threads");
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		wait_for(bed, "parent-keeps");
		bed_open(bed, LRU);
		close(make(bed, "child-opened", 0));
		for (;;)
			pause();
	}
	bed_open(bed, LRU);
	scan_wait_phase(bed->store, KVK_SCAN_IDLE);
	close(make(bed, "parent-keeps", 0));
	wait_for(bed, "child-opened");
	return child;
}

/* Not while it holds the lock of all. */
static void stop(struct bed *bed, pid_t child)
{
	struct kvk_backend *backend = bed_core(bed->store)->backend;
	int status, locked;

	do {
		assert_int_equal(kill(child, SIGCONT), 0);
		assert_int_equal(kill(child, SIGSTOP), 0);
		assert_int_equal(waitpid(child, &status, WUNTRACED), child);
		assert_true(WIFSTOPPED(status));
		usleep(20000);
		locked = backend->ops->is_locked(backend, KVK_LOCK_ACCOUNT);
	} while (locked == 1);
	assert_int_equal(locked, 0);
}

static void end(pid_t child)
{
	int status;

	assert_int_equal(kill(child, SIGKILL), 0);
	assert_int_equal(waitpid(child, &status, 0), child);
}

/*
 * What a process that was stopped did last is not posted, so a folder that changed since cannot be compared with the account.
 * All that is there is known nevertheless, said to be, evicted and remembered; and the account is settled when it can be.
 */
static void test_a_stopped_process_holds_up_the_account_alone(void **state)
{
	struct bed *bed = *state;
	pid_t child = open_both(bed);
	uint64_t evicted;

	stop(bed, child);
	put_all(bed->store, 20);
	for (int round = 0; round < 2; round++) {
		bed_reopen(bed, LRU);
		scan_wait_phase(bed->store, KVK_SCAN_SETTLING);
		assert_int_equal(bed_usage(bed->store).objects, 20);
		usleep(1000000);
		assert_int_equal(scan_state(bed->store).phase, KVK_SCAN_SETTLING);
		assert_in_range(scan_state(bed->store).unsettled, 1, 21);
	}
	assert_int_equal(kvk_store_evict(bed->store, 4096, &evicted), 0);
	assert_true(evicted >= 4096);
	end(child);
	scan_settles(bed->store, bed->path);
	assert_int_equal(bed_usage(bed->store).objects, 19);
}

/* What a process that died had leased counts as used, and is said to be no exact figure, until everything was compared. */
static void test_not_exact_with_what_the_dead_had_leased(void **state)
{
	struct bed *bed = *state;
	pid_t child = open_both(bed);
	uint64_t until_us = kit_now_us() + 20000000;

	/* So that nothing can be compared for now. */
	stop(bed, child);
	put_all(bed->store, 20);
	assert_true(bed_usage(bed->store).flags & KVK_USAGE_EXACT);
	in_a_child(bed, store_and_die);
	while (bed_usage(bed->store).flags & KVK_USAGE_EXACT) {
		assert_true(kit_now_us() < until_us);
		usleep(1000);
	}
	usleep(1500000);
	assert_false(bed_usage(bed->store).flags & KVK_USAGE_EXACT);
	assert_true(bed_usage(bed->store).used_bytes > scan_disk_bytes(bed->path));
	end(child);
	kit_wait_counted(bed->store);
	scan_settles(bed->store, bed->path);
}

/* The account got lost: what the stopped one had leased is not known, so nothing is leased before it has said so. */
static void test_a_lost_account_is_counted_when_all_have_spoken(void **state)
{
	struct bed *bed = *state;
	pid_t child = open_both(bed);
	uint64_t until_us;
	char path[512];

	put_all(bed->store, 20);
	stop(bed, child);
	snprintf(path, sizeof(path), "%s/.kvkeep/account", bed->path);
	assert_int_equal(unlink(path), 0);
	until_us = kit_now_us() + 20000000;
	while (bed_usage(bed->store).flags & KVK_USAGE_EXACT) {
		assert_true(kit_now_us() < until_us);
		usleep(1000);
	}
	/* The keeper has begun to look by then. */
	usleep(1500000);
	assert_false(bed_usage(bed->store).flags & KVK_USAGE_EXACT);
	assert_int_equal(kill(child, SIGCONT), 0);
	kit_wait_counted(bed->store);
	scan_settles(bed->store, bed->path);
	KIT_EXPECT(kit_store(bed->store, "more", 1000, 1), 0, KVK_REASON_NONE);
	end(child);
	scan_settles(bed->store, bed->path);
}

/* ---- a scan that is asked for ------------------------------------------------------------------- */

static void test_a_scan_when_it_is_asked_for(void **state)
{
	struct bed *bed = *state;
	char path[PATH_MAX], folder[PATH_MAX];
	struct stat stat, before;
	char text[64], *status;

	bed_open(bed, "");
	put_all(bed->store, 20);
	assert_int_equal(kvk_store_scan(bed->store, 20000000), 0);
	assert_int_equal(bed_usage(bed->store).used_bytes, scan_disk_bytes(bed->path));
	/* An object goes, and its folder's time says that nothing happened. If the keeper looks in between, it goes once more. */
	kit_path(path, bed->path, bed_key("model-0@00000000@0@00000000@tenant-0"));
	snprintf(folder, sizeof(folder), "%s", path);
	*strrchr(folder, '/') = '\0';
	for (int tries = 0;; tries++) {
		assert_int_equal(lstat(folder, &stat), 0);
		assert_int_equal(lstat(path, &before), 0);
		assert_int_equal(unlink(path), 0);
		assert_int_equal(utimensat(AT_FDCWD, folder, (struct timespec[2]){ stat.st_atim, stat.st_mtim }, 0), 0);
		usleep(1500000);
		if (bed_usage(bed->store).used_bytes > scan_disk_bytes(bed->path))
			break;
		assert_true(tries < 4);
		put_all(bed->store, 1);
		assert_int_equal(kvk_store_scan(bed->store, 20000000), 0);
	}
	assert_int_equal(scan_state(bed->store).drift_bytes, 0);
	assert_int_equal(kvk_store_scan(bed->store, 20000000), 0);
	assert_int_equal(scan_state(bed->store).drift_bytes, kvk_page_ceil((uint64_t)before.st_size));
	assert_int_equal(kvk_store_status(bed->store, &status), 0);
	snprintf(text, sizeof(text), "\"drift_bytes\":%" PRIu64, (uint64_t)kvk_page_ceil((uint64_t)before.st_size));
	assert_non_null(strstr(status, text));
	kvk_free(status);
	assert_int_equal(bed_usage(bed->store).used_bytes, scan_disk_bytes(bed->path));
	assert_int_equal(bed_usage(bed->store).objects, 19);
	assert_int_equal(kvk_store_scan(bed->store, 0), -ETIMEDOUT);
	assert_int_equal(kvk_store_scan(bed->store, 20000000), 0);
}

/* A process that only looks keeps nothing and corrects nothing. */
static void test_who_only_looks_is_no_keeper(void **state)
{
	struct bed *bed = *state;
	char path[PATH_MAX];

	bed_open(bed, "");
	put_all(bed->store, 20);
	scan_settles(bed->store, bed->path);
	assert_int_equal(bed_close(bed), 0);
	kit_path(path, bed->path, bed_key("model-0@00000000@0@00000000@tenant-0"));
	assert_int_equal(unlink(path), 0);
	bed_open(bed, "\"keeper\": false");
	assert_int_equal(kvk_store_scan(bed->store, 20000000), -EBUSY);
	usleep(1500000);
	assert_int_equal(scan_state(bed->store).phase, KVK_SCAN_WAITING);
	assert_true(bed_usage(bed->store).used_bytes > scan_disk_bytes(bed->path));
	bed_reopen(bed, "");
	scan_settles(bed->store, bed->path);
}

/* ---- folders ------------------------------------------------------------------------------------ */

/* Somebody's clock was wrong, or was set back since. */
static void test_a_folder_from_the_future(void **state)
{
	struct timespec times[2] = { { .tv_sec = 0 } };
	struct bed *bed = *state;
	char path[PATH_MAX];

	clock_gettime(CLOCK_REALTIME, &times[0]);
	times[0].tv_sec += 3600;
	times[1] = times[0];
	in_a_child(bed, store_and_die);
	kit_path(path, bed->path, bed_key("model-0@00000000@0@00000000@tenant-0"));
	*strrchr(path, '/') = '\0';
	assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
	bed_open(bed, "");
	scan_settles(bed->store, bed->path);
	assert_int_equal(bed_usage(bed->store).objects, OBJECTS);
	/* What comes into it is seen all the same. */
	assert_int_equal(bed_remove(bed->store, "model-0@00000000@0@00000000@tenant-0", NULL), 0);
	scan_settles(bed->store, bed->path);
	assert_int_equal(bed_usage(bed->store).objects, OBJECTS - 1);
}

/*
 * Two processes open a new store: the first has made it, and the second comes first to the account. There is nothing that
 * would have to be counted, so neither is told to wait for that.
 */
static void test_who_did_not_make_it_begins_its_account(void **state)
{
	struct bed *bed = *state;
	struct kvk_result result = { .struct_bytes = sizeof(result) };
	char path[512];

	bed_open(bed, "");
	assert_int_equal(bed_close(bed), 0);
	snprintf(path, sizeof(path), "%s/.kvkeep/account", bed->path);
	assert_int_equal(unlink(path), 0);
	bed_open(bed, "");
	assert_int_equal(bed_put(bed->store, "key", 20000, 1, &result), 0);
	assert_int_equal(result.reason, KVK_REASON_NONE);
	scan_settles(bed->store, bed->path);
	assert_int_equal(bed_usage(bed->store).objects, 1);
}

int main(void)
{
	kit_in_memory();
	const struct CMUnitTest tests[] = {
		BED_TEST(test_a_stopped_process_holds_up_the_account_alone, BED_THREADS, "threads"),
		BED_TEST(test_not_exact_with_what_the_dead_had_leased, BED_THREADS, "threads"),
		BED_TEST(test_a_lost_account_is_counted_when_all_have_spoken, BED_THREADS, "threads"),
		BED_TEST(test_a_scan_when_it_is_asked_for, BED_THREADS, "threads"),
		BED_TEST(test_who_only_looks_is_no_keeper, BED_THREADS, "threads"),
		BED_TEST(test_a_folder_from_the_future, BED_THREADS, "threads"),
		BED_TEST(test_who_did_not_make_it_begins_its_account, BED_THREADS, "threads"),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
