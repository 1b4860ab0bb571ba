/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests that attack a store from outside share: payloads that tell themselves apart, one-object calls, and sums
 * over what lies on the medium.
 */
#ifndef KVK_TESTS_STORE_KIT_H
#define KVK_TESTS_STORE_KIT_H

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <kvkeep/kvkeep.h>

#include "backend/fault/fault.h"
#include "format/format.h"
#include "store/core.h"
#include "support/skip.h"

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

/* ---- payloads: every 8 bytes follow from key, generation and place; none is zero ------------------- */

static inline uint64_t kit_tag(const void *key, uint32_t key_bytes, uint64_t generation)
{
	uint64_t tag = kit_mix(generation);

	for (uint32_t i = 0; i < key_bytes; i++)
		tag = (tag ^ ((const uint8_t *)key)[i]) * UINT64_C(0x100000001b3);
	return kit_mix(tag);
}

static inline void kit_fill(void *data, uint64_t bytes, uint64_t tag)
{
	uint8_t *to = data;

	for (uint64_t i = 0; i < bytes; i += 8) {
		uint64_t word = kit_mix(tag + i) | UINT64_C(0x0101010101010101);

		memcpy(to + i, &word, bytes - i < 8 ? bytes - i : 8);
	}
}

/* Whether data is what kit_fill() writes from offset (a multiple of 8) on. */
static inline bool kit_is(const void *data, uint64_t offset, uint64_t bytes, uint64_t tag)
{
	const uint8_t *from = data;

	for (uint64_t i = 0; i < bytes; i += 8) {
		uint64_t word = kit_mix(tag + offset + i) | UINT64_C(0x0101010101010101);

		if (memcmp(from + i, &word, bytes - i < 8 ? bytes - i : 8))
			return false;
	}
	return true;
}

/* ---- folders ------------------------------------------------------------------------------------ */

/* A new folder for a store: in memory where there is a file system in memory, since these tests are about what is read. */
static inline void kit_folder(char path[PATH_MAX])
{
	const char *base = getenv("KVK_TEST_DIR");

	if (!base)
		base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	snprintf(path, PATH_MAX, "%s/kvk-test-XXXXXX", base);
	assert_non_null(mkdtemp(path));
}

static inline int kit_remove_one(const char *path, const struct stat *stat, int kind, struct FTW *ftw)
{
	return remove(path);
}

static inline void kit_folder_remove(const char *path)
{
	assert_int_equal(nftw(path, kit_remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* ---- one store, one object ------------------------------------------------------------------------ */

/* more: further members, such as ", \"lanes\": 1", or "". */
static inline struct kvk_store *kit_open_with(const char *path, const char *params, const char *more,
					      const struct kvk_hooks *hooks)
{
	struct kvk_error error = { .struct_bytes = sizeof(error) };
	struct kvk_store *store = NULL;
	char spec[PATH_MAX + 2048];
	int err;

	snprintf(spec, sizeof(spec), "{\"backend_params\": {\"file_path\": \"%s\"%s}%s}", path, params, more);
	err = kvk_store_open(&store, spec, hooks, &error);
	if (err)
		fail_msg("open of %s: %d, option \"%s\": %s", spec, err, error.option, error.text);
	return store;
}

static inline struct kvk_store *kit_open(const char *path, const char *more)
{
	return kit_open_with(path, "", more, NULL);
}

static inline void kit_close(struct kvk_store *store)
{
	assert_int_equal(kvk_store_close(store), 0);
}

static inline struct kvk_key kit_key(const char *text)
{
	return (struct kvk_key){ .data = text, .bytes = (uint32_t)strlen(text) };
}

static inline struct kvk_result kit_put_iov(struct kvk_store *store, struct kvk_key key, const struct iovec *data,
					    uint32_t data_count)
{
	struct kvk_put_item item = { .struct_bytes = sizeof(item), .key = key, .data = data,
				     .data_count = data_count };
	struct kvk_result result = { .struct_bytes = sizeof(result) };

	assert_int_equal(kvk_store_put_wait(store, &item, 1, 0, &result), 0);
	return result;
}

static inline struct kvk_result kit_put(struct kvk_store *store, struct kvk_key key, const void *data, uint64_t bytes)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)data, .iov_len = bytes };

	return kit_put_iov(store, key, &iov, 1);
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

static inline struct kvk_result kit_lookup(struct kvk_store *store, struct kvk_key key, uint32_t flags)
{
	struct kvk_key_item item = { .struct_bytes = sizeof(item), .flags = flags, .key = key };
	struct kvk_result result = { .struct_bytes = sizeof(result) };

	assert_int_equal(kvk_store_lookup_wait(store, &item, 1, 0, &result), 0);
	return result;
}

static inline struct kvk_result kit_remove(struct kvk_store *store, struct kvk_key key)
{
	struct kvk_key_item item = { .struct_bytes = sizeof(item), .key = key };
	struct kvk_result result = { .struct_bytes = sizeof(result) };

	assert_int_equal(kvk_store_remove_wait(store, &item, 1, 0, &result), 0);
	return result;
}

static inline void kit_unpin(struct kvk_store *store, struct kvk_key key)
{
	struct kvk_key_item item = { .struct_bytes = sizeof(item), .key = key };
	struct kvk_result result = { .struct_bytes = sizeof(result) };

	assert_int_equal(kvk_store_unpin_wait(store, &item, 1, &result), 0);
	assert_int_equal(result.status, 0);
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

static inline struct kvk_usage kit_usage(struct kvk_store *store)
{
	struct kvk_usage usage = { .struct_bytes = sizeof(usage) };

	assert_int_equal(kvk_store_usage(store, &usage), 0);
	return usage;
}

static inline struct kvk_stats kit_stats(struct kvk_store *store)
{
	struct kvk_stats stats = { .struct_bytes = sizeof(stats) };

	assert_int_equal(kvk_store_stats(store, &stats), 0);
	return stats;
}

struct kit_listed {
	uint64_t count;
	uint64_t present;
	uint64_t stored_bytes;         /* of those present */
};

static inline struct kit_listed kit_list(struct kvk_store *store)
{
	static __thread struct kvk_list_entry entries[64];
	struct kvk_list_query query = { .struct_bytes = sizeof(query) };
	struct kit_listed listed = { 0 };
	char *cursor = NULL;

	do {
		char *next = NULL;
		int count;

		for (unsigned i = 0; i < 64; i++)
			entries[i].struct_bytes = sizeof(entries[i]);
		query.cursor = cursor;
		count = kvk_store_list(store, &query, entries, 64, &next);
		assert_in_range(count, 0, 64);
		for (int i = 0; i < count; i++) {
			listed.count++;
			if (entries[i].state != KVK_OBJECT_PRESENT)
				continue;
			listed.present++;
			listed.stored_bytes += entries[i].stored_bytes;
		}
		kvk_free(cursor);
		cursor = next;
	} while (cursor);
	return listed;
}

/* Removed objects are unlinked in the background: waits until used stays at what is expected. */
static inline uint64_t kit_used_settles(struct kvk_store *store, uint64_t expected)
{
	uint64_t until_us = kit_now_us() + 10000000;
	uint64_t used;

	do {
		used = kit_usage(store).used_bytes;
		if (used == expected)
			return used;
		usleep(200);
	} while (kit_now_us() < until_us);
	return used;
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

/* The backend of an open store, to release what a "hang" of its fault option holds: the core is what a store begins with. */
static inline struct kvk_backend *kit_backend(struct kvk_store *store)
{
	struct kvk_core *core;

	memcpy(&core, store, sizeof(core));
	return core->backend;
}

/* Waits until a rule of the fault option struck for the nth time. */
static inline void kit_wait_struck(struct kvk_store *store, uint64_t nth)
{
	uint64_t until_us = kit_now_us() + 20000000;

	while (kvk_fault_struck(kit_backend(store)) < nth) {
		assert_true(kit_now_us() < until_us);
		usleep(200);
	}
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
