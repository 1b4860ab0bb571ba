/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests that attack a store from outside need besides its bed: numbers, files, and what is expected of an answer. */
#ifndef KVK_TESTS_STORE_KIT_H
#define KVK_TESTS_STORE_KIT_H

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include <kvkeep/kvkeep.h>

#include "support/proof.h"
#include "support/skip.h"

#include "store_bed.h"

#include "backend/fault/fault.h"
#include "format/format.h"

/* Whether this is a build in which everything takes several times as long, and memory has shadows. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define KIT_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define KIT_SANITIZED 1
#endif
#endif
#ifndef KIT_SANITIZED
#define KIT_SANITIZED 0
#endif

/* ---- numbers ------------------------------------------------------------------------------------ */

static inline uint64_t kit_mix(uint64_t x)
{
	x += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

static inline uint64_t kit_random(uint64_t *state)
{
	return kit_mix(*state += UINT64_C(0x2545f4914f6cdd1d));
}

static inline uint64_t kit_below(uint64_t *state, uint64_t limit)
{
	return kit_random(state) % limit;
}

/* An environment variable that is a number, or what it is without one. */
static inline uint64_t kit_number(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

/* KVK_SEED, or one from the clock; printed either way. */
static inline uint64_t kit_seed(void)
{
	struct timespec now;
	uint64_t seed;

	clock_gettime(CLOCK_REALTIME, &now);
	seed = kit_number("KVK_SEED", (uint64_t)now.tv_sec * 1000000007u + (uint64_t)now.tv_nsec);
	printf("# KVK_SEED=%" PRIu64 "\n", seed);
	fflush(stdout);
	return seed;
}

static inline uint64_t kit_now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* ---- one object, in the caller's own memory --------------------------------------------------------- */

static inline struct kvk_result kit_put(struct kvk_store *store, struct kvk_key key, const void *data, uint64_t bytes)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)data, .iov_len = bytes };
	struct kvk_put_item item = { .struct_bytes = sizeof(item), .key = key, .data = &iov, .data_count = 1 };
	struct kvk_result result = { .struct_bytes = sizeof(result) };

	assert_int_equal(kvk_store_put_wait(store, &item, 1, 0, &result), 0);
	return result;
}

static inline struct kvk_result kit_get(struct kvk_store *store, struct kvk_key key, void *data, uint64_t bytes,
					uint32_t flags)
{
	struct iovec iov = { .iov_base = data, .iov_len = bytes };
	struct kvk_get_item item = { .struct_bytes = sizeof(item), .flags = flags, .key = key, .data = &iov,
				     .data_count = 1 };
	struct kvk_result result = { .struct_bytes = sizeof(result) };

	assert_int_equal(kvk_store_get_wait(store, &item, 1, 0, &result), 0);
	return result;
}

/* bed_get() and its like with the reason. */
static inline struct kvk_result kit_load(struct kvk_store *store, const char *key, uint64_t bytes, uint32_t generation)
{
	struct kvk_result result = { .struct_bytes = sizeof(result) };

	bed_get(store, key, bytes, generation, &result);
	return result;
}

static inline struct kvk_result kit_store(struct kvk_store *store, const char *key, uint64_t bytes, uint32_t generation)
{
	struct kvk_result result = { .struct_bytes = sizeof(result) };

	bed_put(store, key, bytes, generation, &result);
	return result;
}

static inline struct kvk_result kit_lookup(struct kvk_store *store, const char *key, uint32_t flags)
{
	struct kvk_result result = { .struct_bytes = sizeof(result) };

	bed_lookup(store, key, flags, &result);
	return result;
}

static inline struct kvk_result kit_remove(struct kvk_store *store, const char *key)
{
	struct kvk_result result = { .struct_bytes = sizeof(result) };

	bed_remove(store, key, &result);
	return result;
}

/* Says on failure what was asked and what came. */
static inline void kit_expect_at(const struct kvk_result *result, int status, uint32_t reason, const char *what,
				 const char *file, int line)
{
	if (result->status == status && result->reason == reason)
		return;
	print_error("%s: status %d, reason \"%s\"; must be %d, \"%s\"\n", what, result->status,
		    kvk_reason_text(result->reason), status, kvk_reason_text(reason));
	_fail(file, line);
}

#define KIT_EXPECT(call, status, reason) do {                                              \
	struct kvk_result result_ = (call);                                                \
	kit_expect_at(&result_, (status), (reason), #call, __FILE__, __LINE__);            \
} while (0)

/* Removed objects are unlinked in the background: waits until used stays at what is expected. */
static inline uint64_t kit_used_settles(struct kvk_store *store, uint64_t expected)
{
	uint64_t until_us = kit_now_us() + 30000000;
	uint64_t used;

	do {
		used = bed_usage(store).used_bytes;
		if (used == expected)
			return used;
		usleep(200);
	} while (kit_now_us() < until_us);
	return used;
}

/* Says that the writer of temporary names lives, until the descriptor is closed. */
static inline int kit_writer_lives(const char *root, uint64_t writer_id)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1,
			      .l_start = (off_t)(UINT64_C(1) << 62 | writer_id >> 2) };
	char path[PATH_MAX];
	int fd;

	assert_in_range(snprintf(path, sizeof(path), "%s/.kvkeep/locks", root), 1, sizeof(path) - 1);
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
	return fd;
}

/* Puts into a directory that is adopted wait until what is there has been counted. */
static inline void kit_wait_counted(struct kvk_store *store)
{
	uint64_t until_us = kit_now_us() + 20000000;

	while (!(bed_usage(store).flags & KVK_USAGE_EXACT)) {
		assert_true(kit_now_us() < until_us);
		usleep(200);
	}
}

/* Where kvkeep's naming keeps this key of the empty namespace. */
static inline void kit_path(char path[PATH_MAX], const char *root, struct kvk_key key)
{
	static const uint8_t none[KVK_DIGEST_BYTES];
	struct kvk_layout layout = { .naming = KVK_NAMING_KVKEEP, .levels = 1 };
	uint8_t digest[KVK_DIGEST_BYTES];
	char name[KVK_NAME_BYTES_MAX];

	assert_int_equal(kvk_key_digest(digest, none, key.data, key.bytes), 0);
	assert_int_equal(kvk_name_make(name, &layout, digest, key.data, key.bytes), 0);
	assert_in_range(snprintf(path, PATH_MAX, "%s/%s", root, name), 1, PATH_MAX - 1);
}

static inline uint64_t kit_file_bytes(const char *path)
{
	struct stat stat;

	assert_int_equal(lstat(path, &stat), 0);
	return (uint64_t)stat.st_size;
}

static inline void *kit_file_read(const char *path, uint64_t *bytes_ret)
{
	int fd = open(path, O_RDONLY);
	uint64_t bytes = kit_file_bytes(path);
	void *data = malloc(bytes + 1);

	assert_true(fd >= 0 && data);
	assert_int_equal(read(fd, data, bytes), bytes);
	close(fd);
	*bytes_ret = bytes;
	return data;
}

/* Waits until a rule of the fault option struck for the nth time. */
static inline void kit_wait_struck(struct kvk_store *store, uint64_t nth)
{
	uint64_t until_us = kit_now_us() + 20000000;

	while (kvk_fault_struck(bed_backend(store)) < nth) {
		assert_true(kit_now_us() < until_us);
		usleep(200);
	}
}

/*
 * Beds of tests that are about what is read, not about a disk, lie in memory where there is a file system in memory. That of a
 * container may have 64 MiB, less than one pool.
 */
static inline void kit_in_memory(void)
{
	struct statvfs room;

	if (access("/dev/shm", W_OK) == 0 && statvfs("/dev/shm", &room) == 0 &&
	    room.f_bavail * room.f_frsize >= UINT64_C(1) << 30)
		setenv("KVK_TEST_DIR", "/dev/shm", 0);
}

/* Replaces the file's contents in place: the inode stays. */
static inline void kit_file_write(const char *path, const void *data, uint64_t bytes)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, bytes), bytes);
	close(fd);
}

#endif
