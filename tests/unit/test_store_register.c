/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that is registered once: transfers go straight, where locked memory allows, and the plain way elsewhere. */
#include "support/skip.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store_bed.h"

#define MIB 1048576u
#define POOL (16 * MIB)

static unsigned char *pool_new(void)
{
	unsigned char *pool = mmap(NULL, POOL, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return pool == MAP_FAILED ? NULL : pool;
}

/* Puts from the pool and gets into it, at offsets that are aligned and at some that are not. 0, or a line number. */
static int go_round(struct kvk_store *store, unsigned char *pool, const char *prefix)
{
	for (uint32_t i = 0; i < 6; i++) {
		uint64_t bytes = i % 2 ? 2 * MIB + 100 * i : 2 * MIB;
		struct iovec iov = { .iov_base = pool + (i < 3 ? 0 : 4097), .iov_len = bytes };
		struct kvk_put_item put = { .struct_bytes = sizeof(put), .flags = KVK_MEM_HELD, .data = &iov, .data_count = 1 };
		struct kvk_get_item get = { .struct_bytes = sizeof(get), .flags = KVK_MEM_HELD, .data = &iov, .data_count = 1 };
		struct kvk_result result = { .struct_bytes = sizeof(result) };
		char name[32];

		snprintf(name, sizeof(name), "%s%u", prefix, i);
		put.key = get.key = bed_key(name);
		bed_fill(iov.iov_base, bytes, put.key, i, 0);
		if (kvk_store_put_wait(store, &put, 1, 0, &result) || result.status)
			return __LINE__;
		iov.iov_base = pool + 8 * MIB + (i % 3 ? 0 : 13);
		memset(iov.iov_base, 0, bytes);
		if (kvk_store_get_wait(store, &get, 1, 0, &result) || result.status)
			return __LINE__;
		if (bed_judge(iov.iov_base, bytes, get.key, i, 0) != BED_RIGHT)
			return __LINE__;
	}
	return 0;
}

static void test_register(void **state)
{
	struct bed *bed = *state;
	unsigned char *pool = pool_new();

	assert_non_null(pool);
	bed_open(bed, "\"lanes\": 2");
	assert_int_equal(kvk_store_register(bed->store, NULL, 4096), -EINVAL);
	assert_int_equal(kvk_store_register(bed->store, pool, 0), -EINVAL);
	assert_int_equal(kvk_store_register(bed->store, pool, 4095), -EINVAL);
	assert_int_equal(kvk_store_register(bed->store, pool + 1, 4096), -EINVAL);
	assert_int_equal(kvk_store_unregister(bed->store, pool), -ENOENT);
	assert_int_equal(kvk_store_register(bed->store, pool, POOL), 0);
	assert_int_equal(kvk_store_register(bed->store, pool, POOL), -EINVAL);
	assert_int_equal(kvk_store_register(bed->store, pool + 4096, 4096), -EINVAL);
	assert_int_equal(go_round(bed->store, pool, "in"), 0);
	assert_true(bed_stats(bed->store).straight_bytes > 0);
	assert_int_equal(kvk_store_unregister(bed->store, pool + 4096), -ENOENT);
	assert_int_equal(kvk_store_unregister(bed->store, pool), 0);
	assert_int_equal(kvk_store_unregister(bed->store, pool), -ENOENT);
	assert_int_equal(go_round(bed->store, pool, "out"), 0);
	/* Other memory at the same address later is not taken for it; and a close takes back what is left. */
	assert_int_equal(kvk_store_register(bed->store, pool, 2 * MIB), 0);
	assert_int_equal(kvk_store_unregister(bed->store, pool), 0);
	assert_int_equal(munmap(pool, POOL), 0);
	pool = pool_new();
	assert_non_null(pool);
	assert_int_equal(kvk_store_register(bed->store, pool, POOL), 0);
	assert_int_equal(go_round(bed->store, pool, "again"), 0);
	BED_AGREES(bed->store);
	assert_int_equal(bed_close(bed), 0);
	assert_int_equal(munmap(pool, POOL), 0);
}

/* What a user may lock is little: everything works all the same. */
static int live_with_little(struct bed *bed, rlim_t limit)
{
	const struct rlimit little = { .rlim_cur = limit, .rlim_max = limit };
	unsigned char *pool = pool_new();
	char by_itself[200];
	int wrong;

	if (!pool || setrlimit(RLIMIT_MEMLOCK, &little))
		return 250;
	/* The limit does not bind root. */
	if (getuid() == 0 && (chown(bed->path, 65534, 65534) || setgid(65534) || setuid(65534)))
		return 251;
	/* With next to nothing to lock there may be no ring either: then the store finds another way by itself. */
	snprintf(by_itself, sizeof(by_itself), "{\"lanes\": 2, \"backend_params\": {\"file_path\": \"%s\"}}", bed->path);
	if (limit < MIB ? kvk_store_open(&bed->store, by_itself, NULL, NULL)
		       : bed_try_open(bed, "\"lanes\": 2, \"memory_mb\": 64", NULL))
		return 252;
	if (kvk_store_register(bed->store, pool, POOL))
		return 253;
	wrong = go_round(bed->store, pool, "k");
	if (wrong)
		return wrong % 250;
	if (kvk_store_unregister(bed->store, pool) || kvk_store_close(bed->store))
		return 254;
	return 0;
}

static void test_little_to_lock(void **state)
{
	static const rlim_t limits[] = { 0, 65536, 4 * MIB };
	struct bed *bed = *state;
	int status;

	bed_open(bed, "");     /* skipped where the mechanism is not to be had */
	assert_int_equal(bed_end(bed), 0);
	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
		pid_t child;

		bed_begin(bed, bed->kind);
		child = fork();
		assert_true(child >= 0);
		if (child == 0)
			_exit(live_with_little(bed, limits[i]));
		assert_int_equal(waitpid(child, &status, 0), child);
		if (!WIFEXITED(status) || WEXITSTATUS(status))
			fail_msg("with %llu bytes to lock: status %x", (unsigned long long)limits[i], status);
		assert_int_equal(bed_end(bed), 0);
	}
	bed_begin(bed, bed->kind);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BED_TESTS_ALL(test_register),
		BED_TESTS_ALL_POSIX(test_little_to_lock),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
