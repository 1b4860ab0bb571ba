/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a listing finds and what an eviction removes, in every layout. Files are made with plain system calls, as another
 * process would have left them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "adapter/adapter.h"
#include "util/clock.h"

#define KEYS 300

struct fixture {
	char path[64];
	struct kvk_layout layout;
	struct kvk_backend *backend;
	struct kvk_adapter *adapter;
};

static const struct kvk_layout layouts[] = {
	{ KVK_NAMING_KVKEEP, 1 }, { KVK_NAMING_KVKEEP, 2 }, { KVK_NAMING_LMCACHE, 0 }, { KVK_NAMING_LMCACHE, 2 },
};

static int setup(void **state)
{
	static const uint8_t none[KVK_DIGEST_BYTES];
	struct fixture *fixture = calloc(1, sizeof(*fixture));
	struct kvk_backend_options options = { .create = true, .writer_id = 7 };
	struct kvk_adapter_options how = { .namespace_digest = none };

	assert_non_null(fixture);
	fixture->layout = layouts[(uintptr_t)*state];
	snprintf(fixture->path, sizeof(fixture->path), "%s/kvk-scan-XXXXXX",
		 access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
	assert_non_null(mkdtemp(fixture->path));
	options.path = fixture->path;
	assert_int_equal(kvk_backend_posix.open(&fixture->backend, &options, NULL), 0);
	how.backend = fixture->backend;
	how.layout = fixture->layout;
	how.adopted_ns = kvk_wall_ns() + 1000000000;
	assert_int_equal(kvk_dynamic_open(&fixture->adapter, &how), 0);
	*state = fixture;
	return 0;
}

static int unlink_it(const char *path, const struct stat *stat, int flag, struct FTW *walk)
{
	return remove(path);
}

static int teardown(void **state)
{
	struct fixture *fixture = *state;

	fixture->adapter->ops->close(fixture->adapter);
	fixture->backend->ops->close(fixture->backend);
	nftw(fixture->path, unlink_it, 16, FTW_DEPTH | FTW_PHYS);
	free(fixture);
	return 0;
}

/* ---- files -------------------------------------------------------------------------------------- */

struct object {
	char name[KVK_NAME_BYTES_MAX];
	uint8_t id[KVK_DIGEST_BYTES];
	uint64_t bytes;
	uint32_t seen;
};

static void path_of(const struct fixture *fixture, char path[PATH_MAX], const char *name)
{
	snprintf(path, PATH_MAX, "%s/%s", fixture->path, name);
}

static void make_folders(const struct fixture *fixture, const char *name)
{
	char path[PATH_MAX];

	for (const char *at = strchr(name, '/'); at; at = strchr(at + 1, '/')) {
		snprintf(path, sizeof(path), "%s/%.*s", fixture->path, (int)(at - name), name);
		if (mkdir(path, 0700))
			assert_int_equal(errno, EEXIST);
	}
}

static void make_file(const struct fixture *fixture, const char *name, uint64_t bytes)
{
	char path[PATH_MAX];
	int fd;

	make_folders(fixture, name);
	path_of(fixture, path, name);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	close(fd);
}

static bool exists(const struct fixture *fixture, const char *name)
{
	char path[PATH_MAX];
	struct stat stat;

	path_of(fixture, path, name);
	return lstat(path, &stat) == 0;
}

static void set_times(const struct fixture *fixture, const char *name, uint64_t accessed_s, uint64_t modified_s)
{
	struct timespec times[2] = { { .tv_sec = (time_t)accessed_s }, { .tv_sec = (time_t)modified_s } };
	char path[PATH_MAX];

	path_of(fixture, path, name);
	assert_int_equal(utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW), 0);
}

/* Every fifth of LMCache's has the older generation's name. */
static void make_objects(const struct fixture *fixture, struct object *objects)
{
	static const uint8_t none[KVK_DIGEST_BYTES];

	for (uint32_t i = 0; i < KEYS; i++) {
		struct object *object = &objects[i];
		uint8_t digest[KVK_DIGEST_BYTES];
		char key[64];
		int bytes = snprintf(key, sizeof(key), "a/b@%08x@0@%08x", i % 3, i * 2654435761u);

		*object = (struct object){ .bytes = i * 1000 };
		assert_int_equal(kvk_key_digest(digest, none, key, (uint32_t)bytes), 0);
		assert_int_equal(kvk_key_id(object->id, &fixture->layout, digest, key, (uint32_t)bytes), 0);
		if (fixture->layout.naming == KVK_NAMING_LMCACHE && i % 5 == 0)
			assert_int_equal(kvk_name_make_old(object->name, &fixture->layout, key, (uint32_t)bytes), 0);
		else
			assert_int_equal(kvk_name_make(object->name, &fixture->layout, digest, key, (uint32_t)bytes), 0);
		make_file(fixture, object->name, object->bytes);
	}
}

/* ---- scans -------------------------------------------------------------------------------------- */

struct found {
	const struct fixture *fixture;
	struct object *objects;
	uint32_t bucket;
	uint32_t temps, gones, others, unknown;
	uint64_t bytes;
	const char *disturb;           /* this file is made during the first visit */
	uint32_t stop_after;
	uint32_t visits;
};

static bool find(void *user, const struct kvk_scanned *scanned)
{
	struct found *found = user;
	bool known = false;

	found->visits++;
	found->bytes += kvk_page_ceil(scanned->bytes);
	found->temps += scanned->kind == KVK_NAME_TEMP;
	found->gones += scanned->kind == KVK_NAME_GONE;
	found->others += scanned->kind == KVK_NAME_OTHER;
	for (uint32_t i = 0; found->objects && i < KEYS && !known; i++) {
		struct object *object = &found->objects[i];

		known = scanned->kind == KVK_NAME_OBJECT && !strcmp(object->name, scanned->name);
		if (!known)
			continue;
		object->seen++;
		assert_memory_equal(scanned->id, object->id, KVK_DIGEST_BYTES);
		assert_int_equal(scanned->bytes, object->bytes);
		if (found->fixture->layout.levels)
			assert_int_equal(scanned->id[0], found->bucket);
	}
	found->unknown += scanned->kind == KVK_NAME_OBJECT && !known;
	if (found->disturb) {
		make_file(found->fixture, found->disturb, 1);
		found->disturb = NULL;
	}
	return found->visits != found->stop_after;
}

static int scan(struct found *found, uint32_t bucket)
{
	struct kvk_adapter *adapter = found->fixture->adapter;
	uint64_t modified_ns = UINT64_MAX;
	int err;

	found->bucket = bucket;
	err = adapter->ops->scan(adapter, bucket, find, found, &modified_ns);
	assert_true(modified_ns < UINT64_MAX);
	return err;
}

static void scan_all(struct found *found)
{
	uint32_t count = found->fixture->adapter->ops->buckets(found->fixture->adapter);

	assert_int_equal(count, found->fixture->layout.levels ? 256 : 1);
	for (uint32_t bucket = 0; bucket < count; bucket++)
		assert_int_equal(scan(found, bucket), 0);
}

/* What is planted: nothing of it counts as an object, a temporary or a removed file. */
static void plant(const struct fixture *fixture, const struct object *objects)
{
	static const char hex[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
	bool kvkeep = fixture->layout.naming == KVK_NAMING_KVKEEP;
	const char *prefix = fixture->layout.levels == 0 ? "" : fixture->layout.levels == 1 ? "01/" : "01/23/";
	const char *wrong = fixture->layout.levels == 0 ? NULL : fixture->layout.levels == 1 ? "ff/" : "01/ff/";
	char component[128], name[256], path[PATH_MAX], target[PATH_MAX];
	int n = 0;

	path_of(fixture, target, objects[1].name);
	for (n = 0; n < 3; n++) {
		snprintf(component, sizeof(component), kvkeep ? "%.63s%d.kv" : "a_00000000_0_%.16s%02d.bin", hex, n);
		snprintf(name, sizeof(name), "%s%s", prefix, component);
		path_of(fixture, path, name);
		make_folders(fixture, name);
		assert_int_equal(n == 0 ? symlink(target, path) : n == 1 ? mkdir(path, 0700) : mkfifo(path, 0600), 0);
	}
	snprintf(name, sizeof(name), "%sREADME", prefix);
	make_file(fixture, name, 12345);
	snprintf(name, sizeof(name), "%spytorch_model.bin", prefix);
	make_file(fixture, name, 12345);
	if (!wrong)
		return;
	/* Two more where nobody looks for them: in another's folder, and above the folders. */
	snprintf(name, sizeof(name), "%s%s", wrong, strrchr(objects[1].name, '/') + 1);
	if (kvkeep)
		make_file(fixture, name, 12345);
	make_file(fixture, strrchr(objects[1].name, '/') + 1, 12345);
	path_of(fixture, path, "0z");
	assert_int_equal(mkdir(path, 0700), 0);
}

static void test_finds_what_counts(void **state)
{
	struct fixture *fixture = *state;
	struct object *objects = calloc(KEYS, sizeof(*objects));
	struct found found = { .fixture = fixture, .objects = objects };
	uint64_t expected = 0;
	char name[KVK_NAME_BYTES_MAX];

	make_objects(fixture, objects);
	plant(fixture, objects);
	for (uint32_t i = 0; i < KEYS; i++)
		expected += kvk_page_ceil(objects[i].bytes);
	assert_int_equal(kvk_name_make_gone(name, objects[0].name, objects[0].id, 3), 0);
	make_file(fixture, name, 5000);
	assert_int_equal(kvk_name_make_temp(name, objects[1].name, 9, 4), 0);
	make_file(fixture, name, 9000);

	scan_all(&found);
	for (uint32_t i = 0; i < KEYS; i++)
		assert_int_equal(objects[i].seen, 1);
	assert_int_equal(found.unknown, 0);
	assert_int_equal(found.temps, 1);
	assert_int_equal(found.gones, 1);
	assert_int_equal(found.others, 0);
	assert_int_equal(found.bytes, expected + 8192 + 12288);
	assert_int_equal(scan(&(struct found){ .fixture = fixture }, KVK_SCAN_QUARANTINE), 0);
	free(objects);
}

static void test_quarantine_is_a_bucket(void **state)
{
	struct fixture *fixture = *state;
	struct found found = { .fixture = fixture };

	make_file(fixture, ".kvkeep/quarantine/whatever.1", 5000);
	make_file(fixture, ".kvkeep/quarantine/more.2", 1);
	assert_int_equal(scan(&found, KVK_SCAN_QUARANTINE), 0);
	assert_int_equal(found.others, 2);
	assert_int_equal(found.bytes, 8192 + 4096);
	assert_int_equal(fixture->adapter->ops->scan(fixture->adapter, 257, find, &found, &found.bytes), -ERANGE);
}

static void test_a_visit_can_end_it(void **state)
{
	struct fixture *fixture = *state;
	struct object *objects = calloc(KEYS, sizeof(*objects));
	struct found found = { .fixture = fixture, .objects = objects, .stop_after = 1 };
	uint32_t bucket = fixture->layout.levels ? UINT32_MAX : 0;

	make_objects(fixture, objects);
	for (uint32_t i = 0; i < KEYS && bucket == UINT32_MAX; i++) {
		for (uint32_t k = 0; k < i; k++) {
			if (objects[i].id[0] == objects[k].id[0])
				bucket = objects[i].id[0];
		}
	}
	assert_int_not_equal(bucket, UINT32_MAX);
	assert_int_equal(scan(&found, bucket), 0);
	assert_int_equal(found.visits, 1);
	free(objects);
}

/* ---- changes ------------------------------------------------------------------------------------ */

static uint64_t stamp(const struct fixture *fixture, uint32_t bucket, uint64_t *modified_ns)
{
	uint64_t stamp;

	assert_int_equal(fixture->adapter->ops->bucket_time(fixture->adapter, bucket, modified_ns, &stamp), 0);
	return stamp;
}

static void test_changes_show(void **state)
{
	struct fixture *fixture = *state;
	struct object *objects = calloc(KEYS, sizeof(*objects));
	struct found found = { .fixture = fixture, .objects = objects };
	uint64_t before_ns, after_ns, before, after;
	char beside[KVK_NAME_BYTES_MAX], path[PATH_MAX];
	uint32_t bucket;

	make_objects(fixture, objects);
	bucket = fixture->layout.levels ? objects[7].id[0] : 0;
	usleep(20000);
	before = stamp(fixture, bucket, &before_ns);
	assert_true(before_ns > kvk_wall_ns() - UINT64_C(60000000000));
	assert_int_equal(stamp(fixture, bucket, &after_ns), before);
	assert_int_equal(after_ns, before_ns);

	path_of(fixture, path, objects[7].name);
	assert_int_equal(unlink(path), 0);
	after = stamp(fixture, bucket, &after_ns);
	assert_int_not_equal(after, before);
	assert_true(after_ns > before_ns);

	/* A folder whose time goes back, while others' stay later. */
	*strrchr(path, '/') = '\0';
	assert_int_equal(utimensat(AT_FDCWD, path, (struct timespec[2]){ { .tv_sec = 1 }, { .tv_sec = 1 } }, 0), 0);
	assert_int_not_equal(stamp(fixture, bucket, &after_ns), after);

	/* During the listing. */
	make_file(fixture, objects[7].name, objects[7].bytes);
	assert_int_equal(kvk_name_make_temp(beside, objects[7].name, 1, 1), 0);
	usleep(20000);
	found.disturb = beside;
	assert_int_equal(scan(&found, bucket), -EAGAIN);
	assert_int_equal(objects[7].seen, 1);
	assert_int_equal(scan(&found, bucket), 0);
	free(objects);
}

static void test_nothing_was_ever_stored(void **state)
{
	struct fixture *fixture = *state;
	struct found found = { .fixture = fixture };
	uint64_t modified_ns;

	scan_all(&found);
	assert_int_equal(found.visits, 0);
	if (fixture->layout.levels) {
		stamp(fixture, 5, &modified_ns);
		assert_int_equal(modified_ns, 0);
	}
}

static bool list_one(void *user, const struct kvk_listed *listed)
{
	++*(uint32_t *)user;
	return true;
}

/* In a folder's place lies a link, or a file: nothing of ours is in it, and all the rest is found, listed, evicted and removed. */
static void test_no_folders(void **state)
{
	struct fixture *fixture = *state;
	struct object *objects = calloc(KEYS, sizeof(*objects));
	struct found found = { .fixture = fixture, .objects = objects };
	uint32_t levels = fixture->layout.levels, listed = 0, expected = 0, buckets = fixture->adapter->ops->buckets(fixture->adapter);
	char path[PATH_MAX], other[PATH_MAX + 8], name[KVK_NAME_BYTES_MAX];

	make_objects(fixture, objects);
	/* Every depth of them. */
	for (uint32_t depth = 1; depth <= levels; depth++) {
		for (int link = 0; link < 2; link++) {
			snprintf(name, sizeof(name), "%.*s", (int)(3 * depth - 1), objects[20 * depth + (unsigned)link].name);
			path_of(fixture, path, name);
			snprintf(other, sizeof(other), "%s.aside", path);
			assert_int_equal(rename(path, other), 0);
			if (link)
				assert_int_equal(symlink(other, path), 0);
			else
				make_file(fixture, name, 1);
			for (uint32_t i = 0; i < KEYS; i++) {
				if (!strncmp(objects[i].name, name, strlen(name)))
					objects[i].seen = 1000;
			}
		}
	}
	scan_all(&found);
	for (uint32_t i = 0; i < KEYS; i++) {
		if (objects[i].seen != 1 && objects[i].seen != 1000)
			fail_msg("object %u was seen %u times", i, objects[i].seen);
		expected += objects[i].seen == 1;
	}
	assert_int_equal(fixture->adapter->ops->list(fixture->adapter, NULL, list_one, &listed), 0);
	assert_int_equal(listed, expected);
	for (uint32_t bucket = 0; bucket < buckets; bucket++) {
		struct kvk_evictee evictee = { .used_at_ns = UINT64_MAX / 2 };
		uint64_t modified_ns, stamp;

		assert_int_equal(fixture->adapter->ops->evict(fixture->adapter, bucket, &evictee, 1), 0);
		assert_int_equal(fixture->adapter->ops->bucket_time(fixture->adapter, bucket, &modified_ns, &stamp), 0);
	}
	assert_int_equal(fixture->adapter->ops->remove_all(fixture->adapter), 0);
	listed = 0;
	assert_int_equal(fixture->adapter->ops->list(fixture->adapter, NULL, list_one, &listed), 0);
	assert_int_equal(listed, 0);
	free(objects);
}

/* ---- evicting ----------------------------------------------------------------------------------- */

static void test_evicts_what_was_chosen(void **state)
{
	struct fixture *fixture = *state;
	struct object *objects = calloc(KEYS, sizeof(*objects));
	struct found found = { .fixture = fixture, .objects = objects };
	uint64_t now_s = kvk_wall_ns() / 1000000000;
	uint32_t buckets = fixture->adapter->ops->buckets(fixture->adapter);
	uint32_t removed = 0;

	make_objects(fixture, objects);
	plant(fixture, objects);
	for (uint32_t i = 0; i < KEYS; i++)
		set_times(fixture, objects[i].name, now_s - 1000, now_s - 2000);
	/* The first third, of which each seventh was read by others, and each eleventh is gone. */
	for (uint32_t i = 0; i < KEYS / 3; i++) {
		char path[PATH_MAX];

		path_of(fixture, path, objects[i].name);
		if (i % 7 == 3)
			set_times(fixture, objects[i].name, now_s - 100, now_s - 2000);
		else if (i % 11 == 5)
			assert_int_equal(unlink(path), 0);
	}
	for (uint32_t bucket = 0; bucket < buckets; bucket++) {
		struct kvk_evictee evictees[KEYS / 3];
		uint32_t which[KEYS / 3], count = 0;

		for (uint32_t i = 0; i < KEYS / 3; i++) {
			if (fixture->layout.levels && objects[i].id[0] != bucket)
				continue;
			which[count] = i;
			evictees[count] = (struct kvk_evictee){ .used_at_ns = (now_s - 1000) * 1000000000 };
			memcpy(evictees[count++].prefix, objects[i].id, 16);
		}
		assert_int_equal(fixture->adapter->ops->evict(fixture->adapter, bucket, evictees, count), 0);
		for (uint32_t k = 0; k < count; k++) {
			uint32_t i = which[k];
			bool kept = i % 7 == 3, gone = !kept && i % 11 == 5;

			assert_int_equal(evictees[k].status, kept ? -EBUSY : gone ? -ENOENT : 0);
			if (kept)
				assert_int_equal(evictees[k].accessed_ns, (now_s - 100) * 1000000000);
			assert_int_equal(evictees[k].freed_bytes, kept || gone ? 0 : kvk_page_ceil(objects[i].bytes));
			assert_int_equal(exists(fixture, objects[i].name), kept);
			removed += !kept;
		}
	}
	scan_all(&found);
	assert_int_equal(found.visits, KEYS - removed);
	assert_int_equal(found.gones, 0);
	assert_int_equal(found.unknown, 0);
	free(objects);
}

/* Under the chosen name lies something that is no object. */
static void test_evicts_nothing_else(void **state)
{
	struct fixture *fixture = *state;
	struct object *objects = calloc(KEYS, sizeof(*objects));
	struct kvk_evictee evictee = { .used_at_ns = UINT64_MAX / 2 };
	char path[PATH_MAX];

	make_objects(fixture, objects);
	path_of(fixture, path, objects[4].name);
	memcpy(evictee.prefix, objects[4].id, 16);
	for (int what = 0; what < 3; what++) {
		assert_int_equal(remove(path), 0);
		assert_int_equal(what == 0 ? symlink("/etc/passwd", path) : what == 1 ? mkdir(path, 0700) :
				 mkfifo(path, 0600), 0);
		assert_int_equal(fixture->adapter->ops->evict(fixture->adapter, fixture->layout.levels ?
							      objects[4].id[0] : 0, &evictee, 1), 0);
		assert_int_not_equal(evictee.status, 0);
		assert_int_equal(evictee.freed_bytes, 0);
		assert_true(exists(fixture, objects[4].name));
	}
	assert_int_equal(fixture->adapter->ops->evict(fixture->adapter, 256, &evictee, 1), -ERANGE);
	free(objects);
}

/* Reading a footer to learn whose an object is must not make it look used. */
static void test_inspecting_is_no_use(void **state)
{
	struct fixture *fixture = *state;
	struct object *objects = calloc(KEYS, sizeof(*objects));
	struct kvk_listed *listed = calloc(1, sizeof(*listed));
	char path[PATH_MAX];
	struct stat stat;

	make_objects(fixture, objects);
	/* Older than its contents, so that the kernel would set it at any read (relatime). */
	set_times(fixture, objects[50].name, 1000, 2000);
	set_times(fixture, objects[0].name, 1000, 2000);
	path_of(fixture, path, objects[50].name);
	assert_int_equal(truncate(path, 8192), 0);
	set_times(fixture, objects[50].name, 1000, 2000);
	assert_int_equal(fixture->adapter->ops->inspect(fixture->adapter, objects[50].name, listed), 0);
	assert_int_equal(listed->facts.stored_bytes, 8192);
	assert_int_equal(listed->key_bytes, 0);
	assert_int_equal(lstat(path, &stat), 0);
	assert_int_equal(stat.st_atim.tv_sec, 1000);
	assert_int_equal(fixture->adapter->ops->inspect(fixture->adapter, "ab/nothing", listed), -ENOENT);
	free(listed);
	free(objects);
}

#define IN_ALL(function) \
	{ #function " (kvkeep, 1 level)", function, setup, teardown, (void *)(uintptr_t)0 }, \
	{ #function " (kvkeep, 2 levels)", function, setup, teardown, (void *)(uintptr_t)1 }, \
	{ #function " (lmcache, flat)", function, setup, teardown, (void *)(uintptr_t)2 }, \
	{ #function " (lmcache, 2 levels)", function, setup, teardown, (void *)(uintptr_t)3 }

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_ALL(test_finds_what_counts),
		IN_ALL(test_quarantine_is_a_bucket),
		IN_ALL(test_a_visit_can_end_it),
		IN_ALL(test_changes_show),
		IN_ALL(test_nothing_was_ever_stored),
		IN_ALL(test_no_folders),
		IN_ALL(test_evicts_what_was_chosen),
		IN_ALL(test_evicts_nothing_else),
		IN_ALL(test_inspecting_is_no_use),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
