/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directories of LMCache's nixl_store_dynamic, read in place: their names, both generations, flat and sharded; files
 * without a footer; and keys that share a name.
 *
 * Method: files are written as LMCache writes them, the payload and nothing else, before or after a store is opened there.
 */
#include "unit/store_kit.h"

#define BYTES 10000u
#define ADOPT "\"naming\": \"lmcache\""
#define ACCEPT ADOPT ", \"unverified\": \"accept\""
#define SHARDED "params:\"shard_dirs\": true; "

static const char key_new[] = "org/model@0000000a@2@abcdef12";
static const char file_new[] = "org--model_0000000a_2_abcdef12.bin";
static const char key_salted[] = "org/model@0000000a@2@abcdef12@tenant";
static const char file_salted[] = "org--model_0000000a_2_abcdef12@tenant.bin";
static const char key_old[] = "org/model@0000000b@0@abcdef34";
static const char file_old[] = "org--model_0000000b_abcdef34.bin";

static void plant_path(char path[PATH_MAX], struct bed *bed, const char *file)
{
	snprintf(path, PATH_MAX, "%s/%.3900s", bed->path, file);
}

/* What LMCache would have left: the payload of this key. */
static void plant(struct bed *bed, const char *file, const char *key, uint64_t bytes)
{
	uint8_t *data = malloc(bytes + 1);
	char path[PATH_MAX];

	plant_path(path, bed, file);
	bed_fill(data, bytes, bed_key(key), 1, 0);
	kit_file_write(path, data, bytes);
	free(data);
}

static bool is_there(struct bed *bed, const char *file)
{
	char path[PATH_MAX];

	plant_path(path, bed, file);
	return access(path, F_OK) == 0;
}

/* Time stamps of files come from the tick of the kernel's clock. */
static void next_tick(void)
{
	usleep(30000);
}

static void open_adopted(struct bed *bed, const char *more)
{
	next_tick();
	bed_open(bed, more);
	kit_wait_counted(bed->store);
	next_tick();
	if (!bed_backend(bed->store)->caps.birth_time)
		SKIP("this file system does not tell when files were born");
}

/* ---- adoption ------------------------------------------------------------------------------------- */

static void expect_served(struct bed *bed, const char *key, uint64_t bytes)
{
	uint64_t before = bed_stats(bed->store).get_unverified;

	KIT_EXPECT(kit_lookup(bed->store, key, KVK_LOOKUP_PIN), 0, KVK_REASON_NONE);
	assert_int_equal(bed_unpin(bed->store, key), 0);
	KIT_EXPECT(kit_load(bed->store, key, bytes, 1), 0, KVK_REASON_NONE);
	assert_int_equal(bed_stats(bed->store).get_unverified, before + 1);
}

static void flat_and_accepted(void **state)
{
	struct bed *bed = *state;
	const char *disagrees;

	plant(bed, file_new, key_new, BYTES);
	plant(bed, file_salted, key_salted, 2 * BYTES);
	plant(bed, file_old, key_old, 4096);
	open_adopted(bed, ACCEPT);
	expect_served(bed, key_new, BYTES);
	expect_served(bed, key_salted, 2 * BYTES);
	expect_served(bed, key_old, 4096);
	assert_int_equal(bed_usage(bed->store).used_bytes, 12288 + 20480 + 4096);
	disagrees = bed_disagrees(bed->store);
	if (disagrees)
		fail_msg("%s", disagrees);
	/* It is there: not written again, and not replaced. */
	KIT_EXPECT(kit_store(bed->store, key_new, BYTES, 2), 0, KVK_REASON_PRESENT);
	bed_reopen(bed, ACCEPT);
	kit_wait_counted(bed->store);
	expect_served(bed, key_new, BYTES);
	/* The exact size is all that is known of them. */
	KIT_EXPECT(kit_load(bed->store, key_new, BYTES - 1, 1), -ENOENT, KVK_REASON_COLLISION);
	KIT_EXPECT(kit_load(bed->store, key_new, BYTES + 1, 1), -ENOENT, KVK_REASON_COLLISION);
	KIT_EXPECT(kit_remove(bed->store, key_old), 0, KVK_REASON_NONE);
	KIT_EXPECT(kit_remove(bed->store, key_new), 0, KVK_REASON_NONE);
	assert_false(is_there(bed, file_old) || is_there(bed, file_new));
	assert_true(is_there(bed, file_salted));
	assert_int_equal(bed_stats(bed->store).quarantined, 0);
}

static void sharded_and_accepted(void **state)
{
	struct bed *bed = *state;
	char path[PATH_MAX];

	for (int i = 0; i < 2; i++) {
		plant_path(path, bed, i ? "ab/cd" : "ab");
		assert_int_equal(mkdir(path, 0700), 0);
	}
	plant_path(path, bed, "ab/cd/");
	snprintf(path, sizeof(path), "ab/cd/%s", file_new);
	plant(bed, path, key_new, BYTES);
	snprintf(path, sizeof(path), "ab/cd/%s", file_old);
	plant(bed, path, key_old, BYTES);
	plant(bed, file_salted, key_salted, BYTES);      /* not where a sharded store looks */
	open_adopted(bed, SHARDED ACCEPT);
	expect_served(bed, key_new, BYTES);
	expect_served(bed, key_old, BYTES);
	KIT_EXPECT(kit_load(bed->store, key_salted, BYTES, 1), -ENOENT, KVK_REASON_ABSENT);
	KIT_EXPECT(kit_store(bed->store, key_salted, BYTES, 3), 0, KVK_REASON_NONE);
	snprintf(path, sizeof(path), "ab/cd/%s", file_salted);
	assert_true(is_there(bed, path) && is_there(bed, file_salted));
	KIT_EXPECT(kit_load(bed->store, key_salted, BYTES, 3), 0, KVK_REASON_NONE);
}

/* Others remove what is pinned here; a put that finds it gone stores it anew, and it is pinned as before. */
static void a_pin_outlives_what_it_was_put_on(void **state)
{
	struct kvk_fault_rule full = { .kind = KVK_FAULT_FAIL, .ops = 1u << KVK_XFER_WRITE, .nth = 1, .every = 1, .error = EIO };
	struct bed *bed = *state;
	uint64_t until_us;
	char path[PATH_MAX];

	plant(bed, file_new, key_new, BYTES);
	open_adopted(bed, ACCEPT);
	/* First the put finds out that it is gone, then a load, then the keeper. */
	for (int round = 0; round < 3; round++) {
		bed_reopen(bed, round == 2 ? ACCEPT ", \"fault\": []" : ACCEPT ", \"keeper\": false, \"fault\": []");
		for (int pin = 0; pin < 2; pin++)
			KIT_EXPECT(kit_lookup(bed->store, key_new, KVK_LOOKUP_PIN), 0, KVK_REASON_NONE);
		plant_path(path, bed, file_new);
		assert_int_equal(unlink(path), 0);
		if (round == 1)
			KIT_EXPECT(kit_load(bed->store, key_new, BYTES, 1), -ENOENT, KVK_REASON_ABSENT);
		until_us = kit_now_us() + 20000000;
		while (round == 2 && bed_usage(bed->store).objects > 0) {
			assert_true(kit_now_us() < until_us);
			usleep(1000);
		}
		assert_int_equal(bed_usage(bed->store).pinned_objects, 1);
		/* A put that fails leaves them as they were. */
		assert_int_equal(kvk_fault_add(bed_backend(bed->store), &full), 0);
		assert_int_not_equal(kit_store(bed->store, key_new, BYTES, 2).status, 0);
		kvk_fault_clear(bed_backend(bed->store));
		assert_int_equal(bed_usage(bed->store).pinned_objects, 1);
		KIT_EXPECT(kit_remove(bed->store, key_new), -EBUSY, KVK_REASON_PINNED);
		KIT_EXPECT(kit_store(bed->store, key_new, BYTES, 2), 0, KVK_REASON_NONE);
		assert_int_equal(bed_usage(bed->store).pinned_objects, 1);
		for (int pin = 0; pin < 2; pin++) {
			KIT_EXPECT(kit_remove(bed->store, key_new), -EBUSY, KVK_REASON_PINNED);
			assert_int_equal(bed_unpin(bed->store, key_new), 0);
		}
		assert_int_equal(bed_usage(bed->store).pinned_objects, 0);
	}
	KIT_EXPECT(kit_remove(bed->store, key_new), 0, KVK_REASON_NONE);
}

/* The default: what cannot be proven is a miss, and stays, until something that can takes its place. */
static void refused_files_stay(void **state)
{
	struct bed *bed = *state;

	plant(bed, file_new, key_new, BYTES);
	plant(bed, file_old, key_old, 4096 + 4096);
	plant(bed, file_salted, key_salted, 100);
	open_adopted(bed, ADOPT);
	for (int i = 0; i < 2; i++) {
		KIT_EXPECT(kit_load(bed->store, key_new, BYTES, 1), -ENOENT, KVK_REASON_FOREIGN);
		KIT_EXPECT(kit_lookup(bed->store, key_new, KVK_LOOKUP_PIN), -ENOENT, KVK_REASON_FOREIGN);
		KIT_EXPECT(kit_load(bed->store, key_old, 8192, 1), -ENOENT, KVK_REASON_FOREIGN);
		KIT_EXPECT(kit_load(bed->store, key_salted, 100, 1), -ENOENT, KVK_REASON_FOREIGN);
	}
	assert_true(is_there(bed, file_new) && is_there(bed, file_old) && is_there(bed, file_salted));
	assert_int_equal(bed_stats(bed->store).quarantined, 0);
	assert_int_equal(bed_stats(bed->store).get_unverified, 0);
	/* What is there is charged, whether or not it is served. */
	assert_int_equal(bed_usage(bed->store).used_bytes, 2 * 12288);
	KIT_EXPECT(kit_store(bed->store, key_new, BYTES, 2), 0, KVK_REASON_NONE);
	KIT_EXPECT(kit_load(bed->store, key_new, BYTES, 2), 0, KVK_REASON_NONE);
	KIT_EXPECT(kit_remove(bed->store, key_salted), 0, KVK_REASON_NONE);
	assert_false(is_there(bed, file_salted));
	/* Somebody changes their mind: what was left alone is still there. */
	bed_reopen(bed, ACCEPT);
	kit_wait_counted(bed->store);
	expect_served(bed, key_old, 8192);
	KIT_EXPECT(kit_load(bed->store, key_new, BYTES, 2), 0, KVK_REASON_NONE);
	assert_int_equal(bed_stats(bed->store).get_unverified, 1);
}

/* Born after the adoption it can only be a put of ours that a power cut tore, or worse. */
static void born_too_late(void **state)
{
	struct bed *bed = *state;

	open_adopted(bed, ACCEPT);
	plant(bed, file_new, key_new, BYTES);
	plant(bed, file_old, key_old, BYTES);
	KIT_EXPECT(kit_load(bed->store, key_new, BYTES, 1), -EBADMSG, KVK_REASON_DAMAGED);
	KIT_EXPECT(kit_load(bed->store, key_old, BYTES, 1), -EBADMSG, KVK_REASON_DAMAGED);
	assert_false(is_there(bed, file_new) || is_there(bed, file_old));
	assert_int_equal(bed_stats(bed->store).quarantined, 2);
	assert_int_equal(bed_stats(bed->store).get_unverified, 0);
}

/* An empty file was never an object of LMCache's. */
static void empty_files(void **state)
{
	struct bed *bed = *state;

	plant(bed, file_new, key_new, 0);
	open_adopted(bed, ACCEPT);
	KIT_EXPECT(kit_load(bed->store, key_new, BYTES, 1), -EBADMSG, KVK_REASON_DAMAGED);
	KIT_EXPECT(kit_load(bed->store, key_new, BYTES, 1), -ENOENT, KVK_REASON_ABSENT);
}

/* ---- names ------------------------------------------------------------------------------------------ */

/* The older names had no group and no salt: only a key without either may answer from one. */
static void older_names_are_nobody_elses(void **state)
{
	static const char *const others[] = {
		"org/model@0000000b@1@abcdef34", "org/model@0000000b@0@abcdef34@tenant", "org/model@0000000c@0@abcdef34",
		"org/model@0000000b@0@abcdef35", "org/mode@0000000b@0@abcdef34",
	};
	struct bed *bed = *state;

	plant(bed, file_old, key_old, BYTES);
	open_adopted(bed, ACCEPT);
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		KIT_EXPECT(kit_load(bed->store, others[i], BYTES, 1), -ENOENT, KVK_REASON_ABSENT);
		KIT_EXPECT(kit_lookup(bed->store, others[i], 0), -ENOENT, KVK_REASON_ABSENT);
		KIT_EXPECT(kit_remove(bed->store, others[i]), -ENOENT, KVK_REASON_ABSENT);
	}
	assert_true(is_there(bed, file_old));
	expect_served(bed, key_old, BYTES);
}

/* LMCache's own adapters read the first bytes of the file. */
static void puts_are_readable_for_lmcache(void **state)
{
	struct bed *bed = *state;
	char path[PATH_MAX];
	uint64_t bytes;
	uint8_t *data;

	bed_open(bed, ADOPT);
	kit_wait_counted(bed->store);
	KIT_EXPECT(kit_store(bed->store, key_salted, BYTES, 1), 0, KVK_REASON_NONE);
	plant_path(path, bed, file_salted);
	data = kit_file_read(path, &bytes);
	assert_in_range(bytes, BYTES, BYTES + 8192);
	assert_int_equal(bed_judge(data, BYTES, bed_key(key_salted), 1, 0), BED_RIGHT);
	free(data);
	KIT_EXPECT(kit_load(bed->store, key_salted, BYTES, 1), 0, KVK_REASON_NONE);
	assert_int_equal(bed_stats(bed->store).get_unverified, 0);
	bed_reopen(bed, "");
	kit_wait_counted(bed->store);
	KIT_EXPECT(kit_load(bed->store, key_salted, BYTES, 1), 0, KVK_REASON_NONE);
	/* The tenant without its salt is another tenant. */
	KIT_EXPECT(kit_load(bed->store, key_new, BYTES, 1), -ENOENT, KVK_REASON_ABSENT);
}

/* `a/b` and `a--b` share a file: it belongs to the first, and the second is told so. */
static void two_keys_and_one_name(void **state)
{
	static const char first[] = "a/b@00000000@0@0011", second[] = "a--b@00000000@0@0011", file[] = "a--b_00000000_0_0011.bin";
	struct bed *bed = *state;
	struct stat before, after;
	char path[PATH_MAX];

	bed_open(bed, ADOPT);
	kit_wait_counted(bed->store);
	plant_path(path, bed, file);
	KIT_EXPECT(kit_store(bed->store, first, BYTES, 1), 0, KVK_REASON_NONE);
	assert_int_equal(stat(path, &before), 0);
	for (int round = 0; round < 2; round++) {
		KIT_EXPECT(kit_load(bed->store, second, BYTES, 1), -ENOENT, KVK_REASON_COLLISION);
		KIT_EXPECT(kit_lookup(bed->store, second, KVK_LOOKUP_PIN), -ENOENT, KVK_REASON_COLLISION);
		KIT_EXPECT(kit_store(bed->store, second, BYTES, 1), -EEXIST, KVK_REASON_COLLISION);
		KIT_EXPECT(kit_remove(bed->store, second), -ENOENT, KVK_REASON_COLLISION);
		KIT_EXPECT(kit_load(bed->store, first, BYTES, 1), 0, KVK_REASON_NONE);
		assert_int_equal(stat(path, &after), 0);
		assert_int_equal(after.st_ino, before.st_ino);
		assert_int_equal(bed_usage(bed->store).used_bytes, 12288 + 4096);
		assert_int_equal(bed_stats(bed->store).quarantined, 0);
		assert_in_range(bed_stats(bed->store).collisions, 4, 100);
		bed_reopen(bed, "");
		kit_wait_counted(bed->store);
	}
	KIT_EXPECT(kit_remove(bed->store, first), 0, KVK_REASON_NONE);
	KIT_EXPECT(kit_store(bed->store, second, BYTES, 1), 0, KVK_REASON_NONE);
	KIT_EXPECT(kit_load(bed->store, first, BYTES, 1), -ENOENT, KVK_REASON_COLLISION);
}

/* LMCache's names do not tell namespaces apart: the footer does. */
static void two_namespaces_and_one_name(void **state)
{
	struct bed *bed = *state;

	bed_open(bed, ADOPT ", \"namespace\": {\"dtype\": \"bf16\"}");
	kit_wait_counted(bed->store);
	KIT_EXPECT(kit_store(bed->store, key_new, BYTES, 1), 0, KVK_REASON_NONE);
	bed_reopen(bed, "\"namespace\": {\"dtype\": \"fp8\"}");
	kit_wait_counted(bed->store);
	KIT_EXPECT(kit_load(bed->store, key_new, BYTES, 1), -ENOENT, KVK_REASON_COLLISION);
	KIT_EXPECT(kit_lookup(bed->store, key_new, 0), -ENOENT, KVK_REASON_COLLISION);
	KIT_EXPECT(kit_store(bed->store, key_new, BYTES, 2), -EEXIST, KVK_REASON_COLLISION);
	KIT_EXPECT(kit_remove(bed->store, key_new), -ENOENT, KVK_REASON_COLLISION);
	bed_reopen(bed, "\"namespace\": {\"dtype\": \"bf16\"}");
	kit_wait_counted(bed->store);
	KIT_EXPECT(kit_load(bed->store, key_new, BYTES, 1), 0, KVK_REASON_NONE);
}

/* A key without a file name fails alone; its batch goes on. */
static void keys_without_a_name(void **state)
{
	static const struct { const char *key; int status; } keys[] = {
		{ "any bytes", -EINVAL }, { ".hidden@00000000@0@0011", -EINVAL }, { "../up@00000000@0@0011", -EINVAL },
		{ "m@00000000@0@0011@a/../b", -EINVAL }, { "m@0@0@0011", -EINVAL }, { "m@00000000@0@00AA", -EINVAL },
		{ NULL, -ENAMETOOLONG },
	};
	struct bed *bed = *state;
	uint64_t objects, others;
	char longest[400];

	memset(longest, 'm', 256);
	strcpy(longest + 256, "@00000000@0@0011");
	bed_open(bed, ADOPT);
	kit_wait_counted(bed->store);
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		const char *key = keys[i].key ? keys[i].key : longest;

		KIT_EXPECT(kit_store(bed->store, key, BYTES, 1), keys[i].status, KVK_REASON_ARGUMENT);
		KIT_EXPECT(kit_load(bed->store, key, BYTES, 1), keys[i].status, KVK_REASON_ARGUMENT);
		KIT_EXPECT(kit_lookup(bed->store, key, KVK_LOOKUP_PIN), keys[i].status, KVK_REASON_ARGUMENT);
		KIT_EXPECT(kit_remove(bed->store, key), keys[i].status, KVK_REASON_ARGUMENT);
	}
	bed_files(bed, &objects, &others);
	assert_int_equal(objects + others, 0);
	assert_int_equal(bed_usage(bed->store).used_bytes, 0);
	assert_int_equal(bed_usage(bed->store).writing_bytes, 0);
	/* The longest that fits. */
	strcpy(longest + 234, "@00000000@0@0011");
	KIT_EXPECT(kit_store(bed->store, longest, BYTES, 1), 0, KVK_REASON_NONE);
	KIT_EXPECT(kit_load(bed->store, longest, BYTES, 1), 0, KVK_REASON_NONE);
	KIT_EXPECT(kit_remove(bed->store, longest), 0, KVK_REASON_NONE);
	assert_int_equal(kit_used_settles(bed->store, 0), 0);
	bed_files(bed, &objects, &others);
	assert_int_equal(objects + others, 0);
}

/* ---- what is fixed ------------------------------------------------------------------------------------ */

static void expect_refused(struct bed *bed, const char *more, const char *option)
{
	struct kvk_error error = { .struct_bytes = sizeof(error) };

	assert_int_equal(bed_try_open(bed, more, &error), -EINVAL);
	assert_string_equal(error.option, option);
	assert_true(error.text[0]);
}

static void naming_is_fixed(void **state)
{
	struct bed *bed = *state, own;

	bed_open(bed, ADOPT);
	kit_wait_counted(bed->store);
	KIT_EXPECT(kit_store(bed->store, key_new, BYTES, 1), 0, KVK_REASON_NONE);
	assert_int_equal(bed_close(bed), 0);
	expect_refused(bed, "\"naming\": \"kvkeep\"", "naming");
	expect_refused(bed, SHARDED ADOPT, "backend_params.shard_dirs");
	bed_open(bed, "");
	kit_wait_counted(bed->store);
	KIT_EXPECT(kit_load(bed->store, key_new, BYTES, 1), 0, KVK_REASON_NONE);

	bed_begin(&own, bed->kind);
	bed_open(&own, "");
	assert_int_equal(bed_close(&own), 0);
	expect_refused(&own, ADOPT, "naming");
	assert_int_equal(bed_end(&own), 0);
}

static void lists_tell_what_is_what(void **state)
{
	static const char *const more[] = { ADOPT, ACCEPT };
	struct bed *bed = *state;
	struct kvk_list_entry entries[8];
	char *cursor;

	plant(bed, file_old, key_old, BYTES);
	plant(bed, "notes.txt", key_old, 10);
	open_adopted(bed, ADOPT);
	KIT_EXPECT(kit_store(bed->store, key_new, BYTES, 1), 0, KVK_REASON_NONE);
	plant(bed, file_salted, key_salted, BYTES);
	for (int round = 0; round < 2; round++) {
		bed_reopen(bed, more[round]);
		kit_wait_counted(bed->store);
		for (unsigned i = 0; i < 8; i++)
			entries[i].struct_bytes = sizeof(entries[i]);
		assert_int_equal(kvk_store_list(bed->store, NULL, entries, 8, &cursor), 3);
		assert_null(cursor);
		assert_string_equal(entries[0].name, file_new);
		assert_int_equal(entries[0].state, KVK_OBJECT_PRESENT);
		assert_int_equal(entries[0].object_bytes, BYTES);
		assert_string_equal(entries[1].name, file_salted);
		assert_int_equal(entries[1].state, KVK_OBJECT_DAMAGED);
		assert_string_equal(entries[2].name, file_old);
		assert_int_equal(entries[2].state, KVK_OBJECT_UNVERIFIED);
		assert_int_equal(entries[2].object_bytes, BYTES);
	}
}

#define BOTH(function) BED_TEST(function, BED_URING, "io_uring, buffered"), \
		       BED_TEST(function, BED_THREADS_DIRECT, "threads, direct")

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(flat_and_accepted),
		BOTH(a_pin_outlives_what_it_was_put_on),
		BOTH(sharded_and_accepted),
		BOTH(refused_files_stay),
		BOTH(born_too_late),
		BOTH(empty_files),
		BOTH(older_names_are_nobody_elses),
		BOTH(puts_are_readable_for_lmcache),
		BOTH(two_keys_and_one_name),
		BOTH(two_namespaces_and_one_name),
		BOTH(keys_without_a_name),
		BOTH(naming_is_fixed),
		BOTH(lists_tell_what_is_what),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
