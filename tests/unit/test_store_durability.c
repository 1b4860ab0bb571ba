/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is synced, when, and in which order, seen at the system calls; and what is answered when a sync fails.
 *
 * With `object` a footer alone acknowledges nothing: test_object_that_is_damaged fails when the proof of all bytes is taken out
 * (put-found-whole in tests/mutants/publish.txt).
 */
#include "support/skip.h"

#include <errno.h>
#include <pthread.h>
#include <regex.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/fault/fault.h"
#include "backend/posix/sys.h"
#include "store/core.h"
#include "unit/scan_kit.h"
#include "util/clock.h"

#define BYTES 300000u

/* ---- a record of system calls ------------------------------------------------------------------- */

/*
 * One letter each: r, w bytes; S fdatasync of a file; F fsync of a folder; Y syncfs; P something got its name; D
 * something lost its name.
 */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char record[1000];
static size_t recorded;
static atomic_bool is_open;

/* What the account and the scan do is not part of a request. */
static bool is_background(void)
{
	char name[16] = "";

	pthread_getname_np(pthread_self(), name, sizeof(name));
	return !strcmp(name, "kvk-room") || !strcmp(name, "kvk-keeper");
}

static void note(char letter)
{
	/* A thread has its name when open returns. Before that it may ask for it, and come with its letter later. */
	if (!atomic_load(&is_open) || is_background())
		return;
	pthread_mutex_lock(&lock);
	/* A run of reads or writes is one. */
	if (recorded + 1 < sizeof(record) && !(recorded && (letter == 'r' || letter == 'w') && record[recorded - 1] == letter))
		record[recorded++] = letter;
	record[recorded] = 0;
	pthread_mutex_unlock(&lock);
}

static void start_over(void)
{
	pthread_mutex_lock(&lock);
	recorded = 0;
	record[0] = 0;
	pthread_mutex_unlock(&lock);
}

/* Everything that was noted since start_over(), as one regular expression. */
#define RECORD_IS(pattern) do { \
		regex_t regex_; \
		char copy_[sizeof(record)]; \
		pthread_mutex_lock(&lock); \
		memcpy(copy_, record, sizeof(record)); \
		pthread_mutex_unlock(&lock); \
		assert_int_equal(regcomp(&regex_, "^" pattern "$", REG_EXTENDED | REG_NOSUB), 0); \
		int other_ = regexec(&regex_, copy_, 0, NULL, 0); \
		regfree(&regex_); \
		if (other_) \
			fail_msg("system calls were %s, not %s", copy_, pattern); \
	} while (0)

static int64_t noted_preadv2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	note('r');
	return kvk_posix_sys_real.preadv2(fd, iov, count, offset, flags);
}

static int64_t noted_pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	note('w');
	return kvk_posix_sys_real.pwritev2(fd, iov, count, offset, flags);
}

static int noted_fdatasync(int fd)
{
	note('S');
	return kvk_posix_sys_real.fdatasync(fd);
}

static int noted_fsync(int fd)
{
	note('F');
	return kvk_posix_sys_real.fsync(fd);
}

static int noted_syncfs(int fd)
{
	note('Y');
	return kvk_posix_sys_real.syncfs(fd);
}

static int noted_linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
	note('P');
	return kvk_posix_sys_real.linkat(from_fd, from, to_fd, to, flags);
}

static int noted_renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
	note(flags & RENAME_EXCHANGE ? 'X' : 'P');
	return kvk_posix_sys_real.renameat2(from_fd, from, to_fd, to, flags);
}

static struct kvk_posix_sys noted_sys;

/* Opens with the calls noted; the bed is one with threads, whose transfers are system calls as well. */
static void open_noted(struct bed *bed, const char *more)
{
	noted_sys = kvk_posix_sys_real;
	noted_sys.preadv2 = noted_preadv2;
	noted_sys.pwritev2 = noted_pwritev2;
	noted_sys.fdatasync = noted_fdatasync;
	noted_sys.fsync = noted_fsync;
	noted_sys.syncfs = noted_syncfs;
	noted_sys.linkat = noted_linkat;
	noted_sys.renameat2 = noted_renameat2;
	kvk_posix_sys_use(&noted_sys);
	atomic_store(&is_open, false);
	bed_open(bed, more);
	kvk_posix_sys_use(NULL);
	start_over();
	atomic_store(&is_open, true);
}

/* ---- what is synced ----------------------------------------------------------------------------- */

/* none: nothing, ever. */
static void test_none(void **state)
{
	struct bed *bed = *state;

	open_noted(bed, "\"durability\": \"none\", \"lanes\": 1");
	assert_int_equal(bed_put(bed->store, "k", BYTES, 1, NULL), 0);
	RECORD_IS("wP");
	assert_int_equal(bed_put(bed->store, "k2", BYTES, 1, NULL), 0);
	RECORD_IS("wPwP");
	/* At the end the account alone. */
	start_over();
	assert_int_equal(bed_close(bed), 0);
	RECORD_IS("r?(wS)?");
}

/* object: the data before it has its name, the folders after that, and all of it before the answer. */
static void test_object(void **state)
{
	struct bed *bed = *state;
	struct kvk_result result;

	open_noted(bed, "\"durability\": \"object\", \"lanes\": 1");
	assert_int_equal(bed_put(bed->store, "k", BYTES, 1, NULL), 0);
	RECORD_IS("wSPF+");
	/* The folder above is known to be there: only the object's own is synced. */
	assert_int_equal(bed_remove(bed->store, "k", NULL), 0);
	BED_AGREES(bed->store);
	start_over();
	assert_int_equal(bed_put(bed->store, "k", BYTES, 2, NULL), 0);
	RECORD_IS("wSPF");
	/* What is known to be durable is not touched again. */
	start_over();
	assert_int_equal(bed_put(bed->store, "k", BYTES, 2, &result), 0);
	assert_int_equal(result.reason, KVK_REASON_PRESENT);
	RECORD_IS("");
}

/* object: what an earlier run left is read whole and proven, then synced, before it counts as stored. */
static void test_object_that_exists(void **state)
{
	struct bed *bed = *state;
	struct kvk_result result;

	bed_open(bed, "\"durability\": \"none\"");
	assert_int_equal(bed_put(bed->store, "k", BYTES, 1, NULL), 0);
	bed_close_forgetting(bed);
	open_noted(bed, "\"durability\": \"object\", \"lanes\": 1");
	assert_int_equal(bed_put(bed->store, "k", BYTES, 1, &result), 0);
	assert_int_equal(result.reason, KVK_REASON_PRESENT);
	RECORD_IS("rSF+");
	start_over();
	assert_int_equal(bed_put(bed->store, "k", BYTES, 1, NULL), 0);
	RECORD_IS("");

	/* Met by a load first, it is known, but not known to be durable. */
	bed_close_forgetting(bed);
	open_noted(bed, "\"durability\": \"object\", \"lanes\": 1");
	assert_int_equal(bed_get(bed->store, "k", BYTES, 1, NULL), 0);
	start_over();
	assert_int_equal(bed_put(bed->store, "k", BYTES, 1, &result), 0);
	assert_int_equal(result.reason, KVK_REASON_PRESENT);
	RECORD_IS("rSF+");
	BED_AGREES(bed->store);
}

/* What was known at the close is known at the next open: of what was synced then, that it is durable; of nothing else. */
static void test_object_that_was_known(void **state)
{
	struct bed *bed = *state;
	struct kvk_result result;

	open_noted(bed, "\"durability\": \"none\", \"lanes\": 1");
	assert_int_equal(bed_put(bed->store, "k", BYTES, 1, NULL), 0);
	for (int run = 0; run < 2; run++) {
		scan_wait_phase(bed->store, KVK_SCAN_IDLE);
		assert_int_equal(bed_close(bed), 0);
		open_noted(bed, "\"durability\": \"object\", \"lanes\": 1");
		scan_wait_phase(bed->store, KVK_SCAN_IDLE);
		assert_int_equal(scan_state(bed->store).from_snapshot, 1);
		start_over();
		assert_int_equal(bed_put(bed->store, "k", BYTES, 1, &result), 0);
		assert_int_equal(result.reason, KVK_REASON_PRESENT);
		if (run == 0)
			RECORD_IS("rSF+");
		else
			RECORD_IS("");
	}
	BED_AGREES(bed->store);
}

/* ... and one whose bytes do not verify is replaced by the new one. */
static void test_object_that_is_damaged(void **state)
{
	struct bed *bed = *state;
	struct kvk_result result;
	char path[512];
	FILE *file;

	bed_open(bed, "\"durability\": \"none\"");
	assert_int_equal(bed_put(bed->store, "k", BYTES, 1, NULL), 0);
	assert_int_equal(bed_path_of(bed, "k", path, sizeof(path)), 0);
	bed_close(bed);
	file = fopen(path, "r+b");
	assert_non_null(file);
	assert_int_equal(fseek(file, BYTES / 2, SEEK_SET), 0);
	assert_int_not_equal(fputc(0, file), EOF);
	assert_int_not_equal(fputc(0, file), EOF);
	assert_int_not_equal(fputc(0, file), EOF);
	assert_int_equal(fclose(file), 0);
	bed_open(bed, "\"durability\": \"object\"");
	assert_int_equal(bed_put(bed->store, "k", BYTES, 2, &result), 0);
	assert_int_equal(result.reason, KVK_REASON_NONE);
	assert_int_equal(bed_get(bed->store, "k", BYTES, 2, NULL), 0);
	BED_AGREES(bed->store);
}

static uint64_t count_of(char letter)
{
	uint64_t count = 0;

	pthread_mutex_lock(&lock);
	for (const char *at = record; *at; at++)
		count += *at == letter;
	pthread_mutex_unlock(&lock);
	return count;
}

/* A sync may take longer than any pause, and what was stored during one has to wait for the next. */
static bool has_unsynced(struct kvk_store *store)
{
	struct kvk_core *core = bed_core(store);

	return atomic_load(&core->unsynced_bytes) > 0 || atomic_load(&core->syncing);
}

/* batch: one sync of everything, some time after what was stored, and none when nothing was. */
static void test_batch(void **state)
{
	struct bed *bed = *state;
	uint64_t until_us = kvk_now_us() + 30000000, syncs;
	const struct timespec pause = { .tv_nsec = 500000000 };

	open_noted(bed, "\"durability\": \"batch\", \"batch_seconds\": 0.1, \"lanes\": 1");
	nanosleep(&pause, NULL);
	RECORD_IS("");
	for (int i = 0; i < 20; i++) {
		char name[8];

		snprintf(name, sizeof(name), "k%d", i);
		assert_int_equal(bed_put(bed->store, name, 5000, 1, NULL), 0);
	}
	while ((count_of('Y') == 0 || has_unsynced(bed->store)) && kvk_now_us() < until_us)
		sched_yield();
	assert_true(count_of('Y') > 0);
	assert_int_equal(count_of('S') + count_of('F'), 0);
	/* The last objects may have needed one more; then there is nothing to sync. */
	assert_false(has_unsynced(bed->store));
	syncs = count_of('Y');
	nanosleep(&pause, NULL);
	assert_int_equal(count_of('Y'), syncs);
}

/* ---- when a sync fails -------------------------------------------------------------------------- */

static void fail_once(struct kvk_store *store, enum kvk_fault_kind kind, enum kvk_xfer_op op)
{
	struct kvk_fault_rule rule = { .kind = kind, .ops = 1u << op, .nth = 1, .times = 1, .error = EIO };

	assert_int_equal(kvk_fault_add(bed_backend(store), &rule), 0);
}

/* It is told, nothing is acknowledged, and a later sync that says 0 is not taken for the one that failed. */
static void test_failed_sync(void **state)
{
	static const enum kvk_xfer_op ops[] = { KVK_XFER_SYNC, KVK_XFER_SYNC_FOLDER };
	struct bed *bed = *state;
	struct kvk_result result;

	bed_open(bed, "\"durability\": \"object\", \"fault\": []");
	for (uint32_t i = 0; i < 4; i++) {
		struct kvk_backend *fault = bed_backend(bed->store);
		uint64_t seen;
		char name[8];

		snprintf(name, sizeof(name), "k%u", i);
		fail_once(bed->store, i / 2 ? KVK_FAULT_FAIL_AFTER : KVK_FAULT_FAIL, ops[i % 2]);
		assert_int_equal(bed_put(bed->store, name, BYTES, 1, &result), -EIO);
		assert_int_equal(result.reason, KVK_REASON_NOT_DURABLE);
		assert_int_equal(result.bytes, 0);
		assert_int_equal(kvk_fault_struck(fault), 1);
		kvk_fault_clear(fault);
		/* Data or name could not be synced: the file is gone, so that no later sync can be taken for this one. */
		assert_int_equal(bed_get(bed->store, name, BYTES, 1, NULL), -ENOENT);
		BED_AGREES(bed->store);
		/* Asked again, it is made durable by steps of its own. */
		kvk_fault_clear(fault);
		seen = kvk_fault_seen(fault);
		assert_int_equal(bed_put(bed->store, name, BYTES, 1, &result), 0);
		assert_int_equal(result.reason, KVK_REASON_NONE);
		assert_true(kvk_fault_seen(fault) > seen + 3);
		assert_int_equal(bed_get(bed->store, name, BYTES, 1, NULL), 0);
	}
	assert_int_equal(bed_stats(bed->store).put_failed, 4);
	BED_AGREES(bed->store);
}

/*
 * What exists and cannot be synced is not acknowledged either, now or by a later sync that says 0: the next put writes it anew.
 * It may have been acknowledged long before, so it stays until what replaces it is on the medium.
 */
static void test_failed_sync_of_what_exists(void **state)
{
	static const enum kvk_xfer_op ops[] = { KVK_XFER_SYNC, KVK_XFER_SYNC_FOLDER };
	struct bed *bed = *state;
	struct kvk_result result;

	bed_open(bed, "\"durability\": \"none\"");
	for (uint32_t i = 0; i < 4; i++) {
		struct kvk_fault_rule always = {
			.kind = KVK_FAULT_FAIL, .ops = 1u << ops[i % 2], .nth = 1, .every = 1, .error = EIO,
		};
		bool once = i < 2;
		char name[8];

		/* One that is not known to be durable from the run before. */
		snprintf(name, sizeof(name), "k%u", i);
		assert_int_equal(bed_put(bed->store, name, BYTES, 1, NULL), 0);
		bed_reopen(bed, "\"durability\": \"object\", \"fault\": []");
		if (once)
			fail_once(bed->store, KVK_FAULT_FAIL, ops[i % 2]);
		else
			assert_int_equal(kvk_fault_add(bed_backend(bed->store), &always), 0);
		assert_int_equal(bed_put(bed->store, name, BYTES, 1, &result), -EIO);
		assert_int_equal(result.reason, KVK_REASON_NOT_DURABLE);
		assert_int_equal(bed_get(bed->store, name, BYTES, 1, NULL), 0);
		assert_int_equal(bed_put(bed->store, name, BYTES, 1, &result), once ? 0 : -EIO);
		assert_int_equal(result.reason, once ? KVK_REASON_NONE : KVK_REASON_NOT_DURABLE);
		kvk_fault_clear(bed_backend(bed->store));
		assert_int_equal(bed_get(bed->store, name, BYTES, 1, NULL), 0);
		BED_AGREES(bed->store);
		bed_reopen(bed, "\"durability\": \"none\"");
	}
}

/* In a pool nothing takes its place: it is refused until it was removed. */
static void test_failed_sync_of_what_exists_in_a_pool(void **state)
{
	struct bed *bed = *state;
	struct kvk_result result;

	bed_open(bed, "\"durability\": \"none\"");
	assert_int_equal(bed_put(bed->store, "k", BYTES, 1, NULL), 0);
	bed_reopen(bed, "\"durability\": \"object\", \"fault\": []");
	fail_once(bed->store, KVK_FAULT_FAIL, KVK_XFER_SYNC);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(bed_put(bed->store, "k", BYTES, 1, &result), -EIO);
		assert_int_equal(result.reason, KVK_REASON_NOT_DURABLE);
		assert_int_equal(bed_get(bed->store, "k", BYTES, 1, NULL), 0);
	}
	assert_int_equal(bed_remove(bed->store, "k", NULL), 0);
	assert_int_equal(bed_put(bed->store, "k", BYTES, 1, NULL), 0);
	BED_AGREES(bed->store);
}

/* A sync that is canceled, because its put is late, says nothing of what is there: the next put has it synced, and slots are used again. */
static void test_canceled_sync(void **state)
{
	struct kvk_fault_rule rule = { .kind = KVK_FAULT_FAIL, .ops = 1u << KVK_XFER_SYNC, .nth = 1, .times = 1, .error = ECANCELED };
	struct bed *bed = *state;
	struct kvk_result result;

	bed_open(bed, "\"durability\": \"none\"");
	assert_int_equal(bed_put(bed->store, "k", BYTES, 1, NULL), 0);
	bed_reopen(bed, "\"durability\": \"object\", \"fault\": []");
	assert_int_equal(kvk_fault_add(bed_backend(bed->store), &rule), 0);
	assert_int_not_equal(bed_put(bed->store, "k", BYTES, 1, NULL), 0);
	assert_int_equal(bed_put(bed->store, "k", BYTES, 1, &result), 0);
	assert_int_equal(result.reason, KVK_REASON_PRESENT);
	kvk_fault_clear(bed_backend(bed->store));
	assert_int_equal(kvk_fault_add(bed_backend(bed->store), &rule), 0);
	assert_int_not_equal(bed_put(bed->store, "new", BYTES, 1, NULL), 0);
	BED_AGREES(bed->store);
	if (bed_is_pool(bed)) {
		struct kvk_slots slots;
		struct kvk_core *core = bed_core(bed->store);

		core->adapter->ops->slots(core->adapter, &slots);
		assert_int_equal(slots.lost_slots, 0);
	}
}

/* ---- a sync that fails beside one that does not ----------------------------------------------------- */

static atomic_uint syncs_begun, syncs_ended;
static atomic_bool syncs_meet;

/* The first one ends well while the second is under way, and that fails a moment later. */
static int meeting_fdatasync(int fd)
{
	unsigned mine;

	if (is_background() || !syncs_meet)
		return kvk_posix_sys_real.fdatasync(fd);
	mine = ++syncs_begun;
	while (mine == 1 && syncs_begun < 2)
		usleep(100);
	while (mine == 2 && syncs_ended < 1)
		usleep(100);
	if (mine == 2)
		usleep(50000);
	syncs_ended++;
	return mine == 2 ? -EIO : 0;
}

struct putting {
	struct bed *bed;
	const char *key;
	pthread_t thread;
	struct kvk_result result;
};

static void *putting_main(void *argument)
{
	struct putting *putting = argument;

	bed_put(putting->bed->store, putting->key, BYTES, 1, &putting->result);
	return NULL;
}

/*
 * The kernel tells of what it could not write once, to whichever sync of the file comes first, and a disk that could not flush its
 * cache may have lost what others had in it. So neither is acknowledged; what is put later is.
 */
static void test_failed_sync_beside(void **state)
{
	struct bed *bed = *state;
	struct putting puttings[] = { { .bed = bed, .key = "one" }, { .bed = bed, .key = "other" } };

	noted_sys = kvk_posix_sys_real;
	noted_sys.fdatasync = meeting_fdatasync;
	kvk_posix_sys_use(&noted_sys);
	bed_open(bed, "\"durability\": \"object\"");
	kvk_posix_sys_use(NULL);
	syncs_begun = syncs_ended = 0;
	syncs_meet = true;
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&puttings[i].thread, NULL, putting_main, &puttings[i]), 0);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pthread_join(puttings[i].thread, NULL), 0);
	syncs_meet = false;
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(puttings[i].result.status, -EIO);
		assert_int_equal(puttings[i].result.reason, KVK_REASON_NOT_DURABLE);
		assert_int_equal(bed_put(bed->store, puttings[i].key, BYTES, 1, NULL), 0);
	}
	BED_AGREES(bed->store);
}

/* A put whose sync takes longer than its deadline never gets a name. */
static void test_late_sync(void **state)
{
	struct bed *bed = *state;
	struct kvk_fault_rule rule = { .kind = KVK_FAULT_HANG, .ops = 1u << KVK_XFER_SYNC, .nth = 1, .times = 1 };
	const struct bed_how how = { .deadline_us = 150000 };
	struct kvk_backend *fault;
	uint64_t objects, others, until_us = kvk_now_us() + 30000000;

	bed_open(bed, "\"durability\": \"object\", \"fault\": [], \"lanes\": 2");
	fault = bed_backend(bed->store);
	assert_int_equal(kvk_fault_add(fault, &rule), 0);
	/* On a busy disk the time may be over before the sync begins: then nothing hangs, and it is tried anew. */
	do {
		assert_int_equal(bed_put_how(bed->store, bed_key("k"), BYTES, 1, &how, NULL), -ETIMEDOUT);
		while (kvk_fault_struck(fault) == 0 && bed_usage(bed->store).writing_bytes > 0 && kvk_now_us() < until_us)
			sched_yield();
	} while (kvk_fault_struck(fault) == 0 && kvk_now_us() < until_us);
	assert_int_equal(kvk_fault_struck(fault), 1);
	kvk_fault_release(fault);
	while (kvk_fault_places(fault) > 0 && kvk_now_us() < until_us)
		sched_yield();
	BED_AGREES(bed->store);
	bed_files(bed, &objects, &others);
	assert_int_equal(objects, 0);
	assert_int_equal(bed_get(bed->store, "k", BYTES, 1, NULL), -ENOENT);
	assert_int_equal(bed_put(bed->store, "k", BYTES, 2, NULL), 0);
	assert_int_equal(bed_get(bed->store, "k", BYTES, 2, NULL), 0);
	BED_AGREES(bed->store);
}

static void becomes_sick(struct kvk_store *store)
{
	uint64_t until_us = kvk_now_us() + 30000000;

	while (bed_is_healthy(store) && kvk_now_us() < until_us)
		sched_yield();
	assert_false(bed_is_healthy(store));
}

/* A sync of everything that fails makes the store look as sick as it is. */
static void test_failed_batch(void **state)
{
	struct bed *bed = *state;

	bed_open(bed, "\"durability\": \"batch\", \"batch_seconds\": 0.1, "
		      "\"fault\": [{\"do\": \"fail\", \"ops\": [\"sync_all\"], \"nth\": 1}]");
	assert_int_equal(bed_put(bed->store, "k", BYTES, 1, NULL), 0);
	becomes_sick(bed->store);
}

/* Whoever asked for it: here nobody but the keeper does. The kernel tells of a failure once. */
static void test_failed_sync_of_the_keeper(void **state)
{
	struct bed *bed = *state;

	bed_open(bed, "\"durability\": \"none\", \"fault\": [{\"do\": \"fail\", \"ops\": [\"sync_all\"], \"nth\": 1}]");
	becomes_sick(bed->store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BED_TEST(test_failed_sync_of_what_exists_in_a_pool, BED_POOL_THREADS, "threads"),
		BED_TEST(test_canceled_sync, BED_THREADS, "threads"),
		BED_TEST(test_canceled_sync, BED_POOL_THREADS, "pool, threads"),
		BED_TEST(test_failed_sync_beside, BED_THREADS, "threads, buffered"),
		BED_TEST(test_failed_sync_beside, BED_POOL_THREADS, "pool, threads"),
		BED_TEST(test_none, BED_THREADS, "threads, buffered"),
		BED_TEST(test_none, BED_THREADS_DIRECT, "threads, direct"),
		BED_TEST(test_object, BED_THREADS, "threads, buffered"),
		BED_TEST(test_object, BED_THREADS_DIRECT, "threads, direct"),
		BED_TEST(test_object_that_exists, BED_THREADS, "threads, buffered"),
		BED_TEST(test_object_that_exists, BED_THREADS_DIRECT, "threads, direct"),
		BED_TEST(test_object_that_was_known, BED_THREADS, "threads, buffered"),
		BED_TEST(test_object_that_was_known, BED_THREADS_DIRECT, "threads, direct"),
		BED_TESTS_POSIX(test_object_that_is_damaged),
		BED_TEST(test_batch, BED_THREADS, "threads, buffered"),
		BED_TESTS_POSIX(test_failed_sync),
		BED_TESTS_POSIX(test_failed_sync_of_what_exists),
		BED_TESTS_POSIX(test_late_sync),
		BED_TEST(test_failed_batch, BED_URING, "io_uring, buffered"),
		BED_TEST(test_failed_batch, BED_THREADS, "threads, buffered"),
		BED_TEST(test_failed_sync_of_the_keeper, BED_THREADS, "threads, buffered"),
		BED_TEST(test_failed_sync_of_the_keeper, BED_POOL, "pool, io_uring"),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
