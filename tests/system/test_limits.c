/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk that has become read-only, and limits of the process on descriptors and on the length of files: what can be
 * served is served, the rest is refused soon and by name, nothing hangs or dies, and what is allowed again works again.
 *
 * Method: limits belong to a process, so each is tried in a child of its own; a disk becomes read-only as it does in
 * life, by an error that its file system has found.
 */
#include <signal.h>
#include <sys/resource.h>

#include "unit/store_kit.h"

#include "system/child.h"
#include "system/disk.h"
#include "system/load.h"
#include "system/truth.h"

#define BYTES 70000u
#define COUNT 20u
/* As in test_full.c. */
#define STUCK_US 25000000
#define REST_US 60000000

struct run {
	struct disk disk;
	struct bed bed;
};

static int setup(void **state)
{
	return (*state = calloc(1, sizeof(struct run))) ? 0 : -1;
}

static int teardown(void **state)
{
	struct run *run = *state;

	kvk_store_close(run->bed.store);
	disk_end(&run->disk);
	free(run);
	return 0;
}

static void begin(struct run *run, const struct disk_kind *kind)
{
	const char *why = disk_unable(kind);

	if (why)
		SKIP("%s", why);
	assert_int_equal(disk_make(&run->disk, "disk", kind, 0, ""), 0);
	snprintf(run->bed.path, sizeof(run->bed.path), "%.40s/store", run->disk.path);
	atomic_store(&bed_wrong_answers, 0);
}

static void put_some(struct run *run, unsigned from)
{
	char key[32];

	for (unsigned i = from; i < from + COUNT; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		assert_int_equal(bed_put(run->bed.store, key, BYTES, 1, NULL), 0);
	}
}

static void get_all(struct run *run, unsigned count)
{
	char key[32];

	for (unsigned i = 0; i < count; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		KIT_EXPECT(kit_load(run->bed.store, key, BYTES, 1), 0, KVK_REASON_NONE);
	}
}

/* ---- read-only ------------------------------------------------------------------------------------ */

static void find_an_error(const struct run *run)
{
	char device[128];
	FILE *pipe;

	snprintf(device, sizeof(device), "findmnt -n -o SOURCE %s", run->disk.path);
	pipe = popen(device, "r");
	assert_non_null(pipe);
	assert_int_equal(fscanf(pipe, "/dev/%31s", device), 1);
	pclose(pipe);
	assert_int_equal(disk_shell("echo found by a test > /sys/fs/ext4/%s/trigger_fs_error", device), 0);
}

static const struct disk_kind ext4_errors_read_only = {
	"ext4, errors=remount-ro", "ext4", "-q -F -b 4096 -J size=8", "errors=remount-ro", UINT64_C(160) << 20
};

static void becomes_read_only(struct run *run, enum bed_kind kind, const char *more)
{
	struct kvk_result result;
	const char *agrees;
	uint64_t began_us;

	begin(run, &ext4_errors_read_only);
	run->bed.kind = kind;
	bed_open(&run->bed, more);
	put_some(run, 0);
	assert_int_equal(disk_sync(&run->disk), 0);
	find_an_error(run);
	for (unsigned i = 0; i < 5; i++) {
		began_us = kit_now_us();
		result = kit_store(run->bed.store, "new", BYTES, 1);
		assert_in_range(kit_now_us() - began_us, 0, STUCK_US);
		assert_int_not_equal(result.status, 0);
		if (result.reason != KVK_REASON_MEDIUM && result.reason != KVK_REASON_NOT_DURABLE &&
		    result.reason != KVK_REASON_DEGRADED)
			fail_msg("a put on a read-only disk: status %d, reason \"%s\"", result.status,
				 kvk_reason_text(result.reason));
		assert_int_equal(bed_get(run->bed.store, "new", BYTES, 1, NULL), -ENOENT);
		get_all(run, COUNT);
		bed_remove(run->bed.store, "k0", NULL);
		get_all(run, COUNT);
	}
	assert_false(bed_is_healthy(run->bed.store));
	began_us = kit_now_us();
	assert_int_equal(bed_close(&run->bed), 0);
	assert_in_range(kit_now_us() - began_us, 0, STUCK_US);

	assert_int_equal(disk_unmount(&run->disk), 0);
	assert_int_equal(disk_mount(&run->disk), 0);
	bed_open(&run->bed, more);
	get_all(run, COUNT);
	put_some(run, COUNT);
	get_all(run, 2 * COUNT);
	agrees = truth_disagrees(run->bed.store, run->bed.path, REST_US);
	if (agrees)
		fail_msg("%s", agrees);
	assert_int_equal(bed_close(&run->bed), 0);
	assert_int_equal(atomic_load(&bed_wrong_answers), 0);
}

static void test_read_only_uring(void **state)
{
	becomes_read_only(*state, BED_URING, "");
}

static void test_read_only_threads(void **state)
{
	becomes_read_only(*state, BED_THREADS_DIRECT, "\"durability\": \"object\"");
}

/* Nothing can be locked or counted there: an open says so, and names the option. */
static void test_open_read_only(void **state)
{
	struct run *run = *state;
	struct kvk_error error = { .struct_bytes = sizeof(error) };
	int err;

	begin(run, &disk_ext4);
	run->bed.kind = BED_URING;
	bed_open(&run->bed, "");
	put_some(run, 0);
	assert_int_equal(bed_close(&run->bed), 0);
	assert_int_equal(disk_remount(&run->disk, true), 0);
	err = bed_try_open(&run->bed, "", &error);
	assert_int_equal(err, -EROFS);
	assert_string_equal(error.option, "backend_params.file_path");
	assert_non_null(strstr(error.text, strerror(EROFS)));
	assert_int_equal(disk_remount(&run->disk, false), 0);
	bed_open(&run->bed, "");
	get_all(run, COUNT);
	assert_int_equal(bed_close(&run->bed), 0);
}

/* ---- limits of a process -------------------------------------------------------------------------- */

/* cmocka's failures jump into the parent's test: a child's own say where, and end it. */
#define CHILD_MUST(condition) do { \
		if (!(condition)) { \
			fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
			_exit(1); \
		} \
	} while (0)

static void in_child(struct run *run, child_body *child)
{
	pid_t pid = child_start(child, run, 0, 0);

	/* What a child waits for at rest is told by itself. */
	child_wait(&pid, kit_now_us() + 2 * REST_US);
}

static void set_limit(int resource, uint64_t to)
{
	struct rlimit limit;

	CHILD_MUST(getrlimit((__rlimit_resource_t)resource, &limit) == 0);
	limit.rlim_cur = to;
	CHILD_MUST(setrlimit((__rlimit_resource_t)resource, &limit) == 0);
}

/* Whatever is answered must be right; returns how many of the calls worked. No room: what the account needs to lease some is
 * refused as well. */
static unsigned try_all(struct run *run)
{
	unsigned worked = 0;
	struct kvk_result result;
	uint64_t began_us;
	char key[32];

	for (unsigned i = 0; i < 3 * COUNT; i++) {
		snprintf(key, sizeof(key), "k%u", i / 3);
		began_us = kit_now_us();
		if (i % 3 == 0)
			result = kit_load(run->bed.store, key, BYTES, 1);
		else if (i % 3 == 1)
			result = kit_lookup(run->bed.store, key, 0);
		else
			result = kit_store(run->bed.store, "another", BYTES, 1);
		CHILD_MUST(kit_now_us() - began_us < STUCK_US);
		worked += result.status == 0;
		if (result.status && result.reason != KVK_REASON_NO_MEMORY && result.reason != KVK_REASON_ABSENT &&
		    (i % 3 != 2 || result.reason != KVK_REASON_NO_ROOM)) {
			fprintf(stderr, "%s: status %d, reason \"%s\"\n", key, result.status,
				kvk_reason_text(result.reason));
			_exit(1);
		}
	}
	return worked;
}

static bool works_again(struct run *run)
{
	uint64_t until_us = kit_now_us() + REST_US;

	while (try_all(run) < 3 * COUNT) {
		if (kit_now_us() > until_us)
			return false;
		usleep(20000);
	}
	return true;
}

/* Background work opens some for a moment: the lowest count is that of what stays open. */
static uint64_t lasting_descriptors(void)
{
	uint64_t count = UINT64_MAX;

	for (unsigned i = 0; i < 60; i++) {
		uint64_t now = truth_descriptors();

		count = now < count ? now : count;
		usleep(5000);
	}
	return count;
}

static bool has_descriptors(uint64_t count)
{
	uint64_t until_us = kit_now_us() + REST_US;

	while (truth_descriptors() != count) {
		if (kit_now_us() > until_us)
			return false;
		usleep(5000);
	}
	return true;
}

/* Opens with 16 descriptors, whatever comes of it; then with enough, which are then taken away, and given back. */
static void few_descriptors(void *user, uint32_t index, uint64_t random)
{
	struct run *run = user;
	struct kvk_error error = { .struct_bytes = sizeof(error) };
	uint64_t before = truth_descriptors(), open;
	int err;

	for (uint64_t limit = 3; limit <= 40; limit++) {
		set_limit(RLIMIT_NOFILE, limit);
		err = bed_try_open(&run->bed, "\"lanes\": 2", &error);
		if (err == 0) {
			try_all(run);
			CHILD_MUST(bed_close(&run->bed) == 0);
		} else if ((err != -EMFILE && err != -ENOMEM) || !error.text[0]) {
			fprintf(stderr, "%d with %u descriptors: %s: %s\n", err, (unsigned)limit, error.option,
				error.text);
			_exit(1);
		}
		set_limit(RLIMIT_NOFILE, 1024);
		CHILD_MUST(truth_descriptors() == before);
	}
	CHILD_MUST(bed_try_open(&run->bed, "\"lanes\": 2", &error) == 0);
	CHILD_MUST(truth_disagrees(run->bed.store, run->bed.path, REST_US) == NULL);
	open = lasting_descriptors();
	/* Lower than what is open: no new one is to be had. */
	set_limit(RLIMIT_NOFILE, 3);
	CHILD_MUST(try_all(run) < 3 * COUNT);
	set_limit(RLIMIT_NOFILE, 16);
	try_all(run);
	set_limit(RLIMIT_NOFILE, 1024);
	CHILD_MUST(works_again(run));
	CHILD_MUST(truth_disagrees(run->bed.store, run->bed.path, REST_US) == NULL);
	CHILD_MUST(has_descriptors(open));
	CHILD_MUST(bed_close(&run->bed) == 0);
	CHILD_MUST(atomic_load(&bed_wrong_answers) == 0);
}

static void descriptors(struct run *run, enum bed_kind kind)
{
	begin(run, &disk_ext4);
	run->bed.kind = kind;
	bed_open(&run->bed, "");
	put_some(run, 0);
	assert_int_equal(bed_close(&run->bed), 0);
	in_child(run, few_descriptors);
}

static void test_descriptors_uring(void **state)
{
	descriptors(*state, BED_URING);
}

static void test_descriptors_threads(void **state)
{
	descriptors(*state, BED_THREADS);
}

/* The signal that comes with it, SIGXFSZ, would end the process if a thread of the store could receive it. */
static void short_files(void *user, uint32_t index, uint64_t random)
{
	struct run *run = user;
	const uint64_t limits[] = { 0, 1, 4096, 65536, BYTES + 4095, 1 << 20 };
	struct kvk_result result;
	char key[32];
	uint64_t bytes;

	CHILD_MUST(bed_try_open(&run->bed, "\"lanes\": 2", NULL) == 0);
	for (unsigned i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
		set_limit(RLIMIT_FSIZE, limits[i]);
		for (unsigned j = 0; j < 3; j++) {
			snprintf(key, sizeof(key), "short%u.%u", i, j);
			bytes = j == 0 ? 1000 : j == 1 ? BYTES : 3 << 20;
			result = kit_store(run->bed.store, key, bytes, 1);
			/* Payload in whole pages, and the footer. */
			if (((bytes + 4095) & ~UINT64_C(4095)) + 4096 > limits[i]) {
				/* A direct write that the kernel cuts down to the limit is one of odd length: EINVAL.
				 * And the account may not be written to lease room. */
				if (result.status == 0 || (result.reason != KVK_REASON_MEDIUM &&
							   result.reason != KVK_REASON_ARGUMENT &&
							   result.reason != KVK_REASON_NO_ROOM)) {
					fprintf(stderr, "%s, limit %" PRIu64 ": status %d, reason \"%s\"\n", key,
						limits[i], result.status, kvk_reason_text(result.reason));
					_exit(1);
				}
				CHILD_MUST(bed_get(run->bed.store, key, bytes, 1, NULL) == -ENOENT);
			} else if (bytes == 1000) {
				CHILD_MUST(result.status == 0);
			}
		}
		get_all(run, COUNT);
	}
	set_limit(RLIMIT_FSIZE, RLIM_INFINITY);
	CHILD_MUST(works_again(run));
	CHILD_MUST(bed_put(run->bed.store, "short5.2", 3 << 20, 1, NULL) == 0);
	CHILD_MUST(bed_get(run->bed.store, "short5.2", 3 << 20, 1, NULL) == 0);
	CHILD_MUST(truth_disagrees(run->bed.store, run->bed.path, REST_US) == NULL);
	CHILD_MUST(bed_close(&run->bed) == 0);
	CHILD_MUST(truth_of(run->bed.path).others == 0);
	/* The file of locks and what else a store keeps may be longer than allowed, too. */
	set_limit(RLIMIT_FSIZE, 0);
	if (bed_try_open(&run->bed, "\"lanes\": 2", NULL) == 0) {
		get_all(run, COUNT);
		CHILD_MUST(bed_close(&run->bed) == 0);
	}
	CHILD_MUST(atomic_load(&bed_wrong_answers) == 0);
}

static void file_lengths(struct run *run, enum bed_kind kind)
{
	begin(run, &disk_ext4);
	run->bed.kind = kind;
	bed_open(&run->bed, "");
	put_some(run, 0);
	assert_int_equal(bed_close(&run->bed), 0);
	in_child(run, short_files);
}

static void test_file_lengths_uring(void **state)
{
	file_lengths(*state, BED_URING);
}

static void test_file_lengths_uring_direct(void **state)
{
	file_lengths(*state, BED_URING_DIRECT);
}

static void test_file_lengths_threads(void **state)
{
	file_lengths(*state, BED_THREADS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_read_only_uring, setup, teardown),
		cmocka_unit_test_setup_teardown(test_read_only_threads, setup, teardown),
		cmocka_unit_test_setup_teardown(test_open_read_only, setup, teardown),
		cmocka_unit_test_setup_teardown(test_descriptors_uring, setup, teardown),
		cmocka_unit_test_setup_teardown(test_descriptors_threads, setup, teardown),
		cmocka_unit_test_setup_teardown(test_file_lengths_uring, setup, teardown),
		cmocka_unit_test_setup_teardown(test_file_lengths_uring_direct, setup, teardown),
		cmocka_unit_test_setup_teardown(test_file_lengths_threads, setup, teardown),
	};

	cmocka_set_test_filter(getenv("KVK_ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
