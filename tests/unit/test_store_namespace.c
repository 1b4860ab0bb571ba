/* SPDX-License-Identifier: Apache-2.0 */
/* One field of a key, or one member of a namespace, changed alone is a miss. */
#include "support/skip.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store_bed.h"

#define BYTES 9000u
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static struct kvk_key key_of(char text[1024], const struct kvk_key_fields *fields)
{
	int length = kvk_key_encode(fields, text, 1024);

	assert_true(length > 0);
	return (struct kvk_key){ .data = text, .bytes = (uint32_t)length };
}

static int get(struct bed *bed, struct kvk_key key, uint32_t generation, struct kvk_result *result)
{
	return bed_get_how(bed->store, key, BYTES, generation, &(struct bed_how){ 0 }, result);
}

static int put(struct bed *bed, struct kvk_key key, uint32_t generation, struct kvk_result *result)
{
	return bed_put_how(bed->store, key, BYTES, generation, &(struct bed_how){ 0 }, result);
}

/* ---- keys --------------------------------------------------------------------------------------- */

static void each_field(struct bed *bed)
{
	const struct kvk_key_fields base = { .struct_bytes = sizeof(base), .rank = 0x01020304, .group = 5,
		.model = bed_key("org/model"), .hash = { "\x12\x34\x56\x78", 4 }, .salt = bed_key("tenant") };
	struct kvk_key_fields others[14];
	char text[1024], other[1024];
	uint32_t count = 0;

	for (size_t i = 0; i < COUNT(others); i++)
		others[i] = base;
	others[count++].model = bed_key("org/model2");
	others[count++].model = bed_key("org/mode");
	others[count++].model = bed_key("Org/model");
	others[count++].rank = 0x01020305;
	others[count++].rank = 0x02020304;
	others[count++].rank = 0;
	others[count++].group = 6;
	others[count++].group = 0x55;
	others[count++].hash = (struct kvk_key){ "\x12\x34\x56\x79", 4 };
	others[count++].hash = (struct kvk_key){ "\x12\x34\x56", 3 };
	others[count++].hash = (struct kvk_key){ "\x12\x34\x56\x78\x00", 5 };
	others[count++].salt = (struct kvk_key){ 0 };
	others[count++].salt = bed_key("tenant2");
	others[count++].salt = bed_key("Tenant");
	assert_int_equal(count, COUNT(others));
	assert_int_equal(put(bed, key_of(text, &base), 1, NULL), 0);
	for (uint32_t i = 0; i < count; i++) {
		struct kvk_key key = key_of(other, &others[i]);

		if (get(bed, key, 1, NULL) != -ENOENT)
			fail_msg("%.*s answers for %s", (int)key.bytes, other, "org/model@01020304@5@12345678@tenant");
		assert_int_equal(put(bed, key, 2 + i, NULL), 0);
	}
	for (uint32_t i = 0; i < count; i++)
		assert_int_equal(get(bed, key_of(other, &others[i]), 2 + i, NULL), 0);
	assert_int_equal(get(bed, key_of(text, &base), 1, NULL), 0);
}

static void test_fields(void **state)
{
	struct bed *bed = *state;

	bed_open(bed, "");
	each_field(bed);
	BED_AGREES(bed->store);
}

/* In the names of LMCache too, whose reference left out groups and salts. */
static void test_fields_in_lmcache_names(void **state)
{
	struct bed *bed = *state;

	bed_open(bed, "params:\"shard_dirs\": true; \"naming\": \"lmcache\"");
	each_field(bed);
	BED_AGREES(bed->store);
}

/* Keys are bytes: of any value, and not ended by a zero. */
static void test_bytes(void **state)
{
	static const struct kvk_key keys[] = {
		{ "k", 1 }, { "k\0", 2 }, { "k\0\0", 3 }, { "K", 1 }, { "\0", 1 }, { "\0\0", 2 }, { "\xff", 1 }, { "k@", 2 },
		{ "a/b", 3 }, { "a--b", 4 }, { "..", 2 }, { "/", 1 }, { "../../x", 7 },
	};
	struct bed *bed = *state;
	char longest[1024];
	struct kvk_key key = { longest, sizeof(longest) };

	bed_open(bed, "");
	memset(longest, 'x', sizeof(longest));
	for (uint32_t i = 0; i < COUNT(keys); i++) {
		assert_int_equal(get(bed, keys[i], 1, NULL), -ENOENT);
		assert_int_equal(put(bed, keys[i], i, NULL), 0);
	}
	assert_int_equal(put(bed, key, 1, NULL), 0);
	longest[1023] = 'y';
	assert_int_equal(get(bed, key, 1, NULL), -ENOENT);
	for (uint32_t i = 0; i < COUNT(keys); i++)
		assert_int_equal(get(bed, keys[i], i, NULL), 0);
	BED_AGREES(bed->store);
}

/* Two keys with one name, as LMCache's names have them: the first keeps it, the other is told, and nobody is misled. */
static void test_collision(void **state)
{
	struct bed *bed = *state;
	struct kvk_key first = bed_key("a/b@00000000@0@1234"), second = bed_key("a--b@00000000@0@1234");
	struct kvk_result result;
	char longest[600];

	bed_open(bed, "\"naming\": \"lmcache\"");
	assert_int_equal(put(bed, first, 1, NULL), 0);
	assert_int_equal(put(bed, second, 2, &result), -EEXIST);
	assert_int_equal(result.reason, KVK_REASON_COLLISION);
	assert_int_equal(get(bed, second, 2, &result), -ENOENT);
	assert_int_equal(result.reason, KVK_REASON_COLLISION);
	assert_int_equal(get(bed, first, 1, NULL), 0);
	assert_true(bed_stats(bed->store).collisions >= 2);

	/* A name that no file can have is an error of that key alone; one that is not in text form as well. */
	snprintf(longest, sizeof(longest), "m@00000000@0@%0300d", 7);
	assert_int_equal(put(bed, bed_key(longest), 1, &result), -ENAMETOOLONG);
	assert_int_equal(result.reason, KVK_REASON_ARGUMENT);
	assert_int_equal(put(bed, bed_key("plain"), 1, &result), -EINVAL);
	assert_int_equal(result.reason, KVK_REASON_ARGUMENT);
	BED_AGREES(bed->store);
}

/*
 * An object under a name that follows from another key was not put there by a store. After a power cut on ext4 with
 * data=writeback a new file may have the blocks of an older one of the same length, footer and all: were it left there, nothing
 * could be stored under that key again.
 */
static void test_renamed(void **state)
{
	struct bed *bed = *state;
	char one[512], two[512];
	struct kvk_result result;

	bed_open(bed, "");
	for (uint32_t way = 0; way < 3; way++) {
		assert_int_equal(put(bed, bed_key("one"), 1, NULL), 0);
		assert_int_equal(put(bed, bed_key("two"), 1, NULL), 0);
		assert_int_equal(bed_path_of(bed, "one", one, sizeof(one)), 0);
		assert_int_equal(bed_path_of(bed, "two", two, sizeof(two)), 0);
		assert_int_equal(rename(one, two), 0);
		switch (way) {
		case 0:
			assert_int_equal(get(bed, bed_key("two"), 1, &result), -EBADMSG);
			assert_int_equal(result.reason, KVK_REASON_DAMAGED);
			break;
		case 1:
			/* A put of a process that does not know the key. */
			bed_close_forgetting(bed);
			bed_open(bed, "");
			break;
		default:
			assert_int_equal(bed_remove(bed->store, "two", &result), 0);
			assert_int_equal(access(two, F_OK), -1);
		}
		assert_int_equal(put(bed, bed_key("two"), 2, &result), 0);
		assert_int_equal(get(bed, bed_key("two"), 2, NULL), 0);
		assert_int_equal(get(bed, bed_key("one"), 1, NULL), -ENOENT);
		assert_int_equal(bed_remove(bed->store, "two", NULL), 0);
	}
	assert_int_equal(bed_stats(bed->store).collisions, 0);
	BED_AGREES(bed->store);
}

/* ---- namespaces --------------------------------------------------------------------------------- */

#define BASE "\"namespace\": {\"model\": \"m\", \"rev\": \"abc\", \"layers\": 32, \"kv\": {\"dtype\": \"bf16\", \"heads\": [8, 128]}}"

static void test_members(void **state)
{
	static const char *const others[] = {
		"\"namespace\": {\"model\": \"n\", \"rev\": \"abc\", \"layers\": 32, \"kv\": {\"dtype\": \"bf16\", \"heads\": [8, 128]}}",
		"\"namespace\": {\"model\": \"m\", \"rev\": \"abd\", \"layers\": 32, \"kv\": {\"dtype\": \"bf16\", \"heads\": [8, 128]}}",
		"\"namespace\": {\"model\": \"m\", \"rev\": \"abc\", \"layers\": 33, \"kv\": {\"dtype\": \"bf16\", \"heads\": [8, 128]}}",
		"\"namespace\": {\"model\": \"m\", \"rev\": \"abc\", \"layers\": \"32\", \"kv\": {\"dtype\": \"bf16\", \"heads\": [8, 128]}}",
		"\"namespace\": {\"model\": \"m\", \"rev\": \"abc\", \"layers\": 32, \"kv\": {\"dtype\": \"fp8\", \"heads\": [8, 128]}}",
		"\"namespace\": {\"model\": \"m\", \"rev\": \"abc\", \"layers\": 32, \"kv\": {\"dtype\": \"bf16\", \"heads\": [128, 8]}}",
		"\"namespace\": {\"model\": \"m\", \"rev\": \"abc\", \"layers\": 32, \"kv\": {\"dtype\": \"bf16\"}}",
		"\"namespace\": {\"model\": \"m\", \"rev\": \"abc\", \"layers\": 32}",
		"\"namespace\": {\"model\": \"m\", \"rev\": \"abc\", \"layers\": 32, \"kv\": {\"dtype\": \"bf16\", \"heads\": [8, 128]}, \"x\": null}",
		"\"namespace\": {}",
		"",
	};
	struct bed *bed = *state;
	uint8_t digests[16 * 32];
	uint32_t kept;

	bed_open(bed, BASE);
	assert_int_equal(put(bed, bed_key("k"), 1, NULL), 0);
	for (uint32_t i = 0; i < COUNT(others); i++) {
		bed_reopen(bed, others[i]);
		if (get(bed, bed_key("k"), 1, NULL) != -ENOENT || bed_lookup(bed->store, "k", 0, NULL) != -ENOENT)
			fail_msg("an object of " BASE " answers in %s", others[i]);
		/* An empty manifest is none. */
		assert_int_equal(put(bed, bed_key("k"), 2 + i, NULL), 0);
		assert_int_equal(get(bed, bed_key("k"), 2 + i, NULL), 0);
		if (i + 2 == COUNT(others))
			assert_int_equal(bed_remove(bed->store, "k", NULL), 0);
	}
	/* The same in other words is the same, and is kept once. */
	bed_reopen(bed, "\"namespace\": { \"kv\":{\"heads\":[8,128],\"dtype\":\"bf16\"},\"layers\":32,\"rev\":\"abc\",\"model\":\"\\u006d\"}");
	assert_int_equal(get(bed, bed_key("k"), 1, NULL), 0);
	kept = (uint32_t)kvk_store_namespaces(bed->store, digests, 16);
	assert_int_equal(kept, COUNT(others) - 2 + 1);
	bed_reopen(bed, BASE);
	assert_int_equal(kvk_store_namespaces(bed->store, digests, 16), kept);
	assert_int_equal(kvk_store_namespaces(bed->store, NULL, 0), kept);
	for (uint32_t i = 0; i < kept; i++) {
		char *text = NULL;

		assert_int_equal(kvk_store_namespace(bed->store, digests + i * 32, &text), 0);
		assert_non_null(strstr(text, "\"model\":"));
		kvk_free(text);
	}
	digests[0] ^= 1;
	assert_int_equal(kvk_store_namespace(bed->store, digests, &(char *){ NULL }), -ENOENT);
}

/* Objects of other namespaces are listed as such, may be peeked at by name, and removed by nobody else's key. */
static void test_foreign(void **state)
{
	struct bed *bed = *state;
	struct kvk_list_entry *entry = calloc(2, sizeof(*entry));
	unsigned char data[BYTES];
	struct iovec iov = { data, sizeof(data) };
	struct kvk_get_item item = { .struct_bytes = sizeof(item), .flags = KVK_GET_PEEK | KVK_KEY_IS_NAME, .data = &iov,
		.data_count = 1 };
	struct kvk_result result = { .struct_bytes = sizeof(result) };
	char *cursor = NULL;

	assert_non_null(entry);
	entry[0].struct_bytes = entry[1].struct_bytes = sizeof(*entry);
	bed_open(bed, BASE);
	assert_int_equal(put(bed, bed_key("k"), 1, NULL), 0);
	bed_reopen(bed, "");
	assert_int_equal(kvk_store_list(bed->store, NULL, entry, 2, &cursor), 1);
	assert_null(cursor);
	assert_int_equal(entry->state, KVK_OBJECT_FOREIGN);
	assert_int_equal(entry->key_bytes, 1);
	assert_int_equal(bed_remove(bed->store, "k", NULL), -ENOENT);
	item.key = bed_key(entry->name);
	assert_int_equal(kvk_store_get_wait(bed->store, &item, 1, 0, &result), 0);
	assert_int_equal(result.status, 0);
	assert_int_equal(bed_judge(data, BYTES, bed_key("k"), 1, 0), BED_RIGHT);
	free(entry);
}

/* One directory in LMCache's names, two namespaces: the file belongs to the first. */
static void test_foreign_under_the_same_name(void **state)
{
	struct bed *bed = *state;
	struct kvk_key key = bed_key("m@00000000@0@1234");
	struct kvk_result result;

	bed_open(bed, "\"naming\": \"lmcache\", " BASE);
	assert_int_equal(put(bed, key, 1, NULL), 0);
	bed_reopen(bed, "\"naming\": \"lmcache\"");
	assert_int_equal(get(bed, key, 1, &result), -ENOENT);
	assert_int_equal(result.reason, KVK_REASON_COLLISION);
	assert_int_equal(put(bed, key, 2, &result), -EEXIST);
	assert_int_equal(result.reason, KVK_REASON_COLLISION);
	bed_reopen(bed, BASE);
	assert_int_equal(get(bed, key, 1, NULL), 0);
}

/* A manifest that was damaged proves nothing; the next opener that has it writes it anew. */
static void test_damaged_manifest(void **state)
{
	struct bed *bed = *state;
	uint8_t digest[32];
	char path[300], *text = NULL;
	FILE *file;

	bed_open(bed, BASE);
	assert_int_equal(put(bed, bed_key("k"), 1, NULL), 0);
	assert_int_equal(kvk_store_namespaces(bed->store, digest, 1), 1);
	snprintf(path, sizeof(path), "%s/.kvkeep/namespaces/", bed->path);
	for (int i = 0; i < 32; i++)
		snprintf(path + strlen(path), 3, "%02x", digest[i]);
	strcat(path, ".json");
	for (int round = 0; round < 3; round++) {
		file = fopen(path, "w");
		assert_non_null(file);
		fputs(round == 0 ? "" : round == 1 ? "{\"model\":\"other\"}" : "{\"model", file);
		assert_int_equal(fclose(file), 0);
		assert_int_equal(kvk_store_namespace(bed->store, digest, &text), -EBADMSG);
		assert_null(text);
		assert_int_equal(get(bed, bed_key("k"), 1, NULL), 0);
		bed_reopen(bed, BASE);
		assert_int_equal(kvk_store_namespace(bed->store, digest, &text), 0);
		assert_non_null(strstr(text, "\"rev\":\"abc\""));
		kvk_free(text);
		text = NULL;
	}
	bed_reopen(bed, "");
	assert_int_equal(kvk_store_namespace(bed->store, NULL, &text), 0);
	assert_string_equal(text, "{}");
	kvk_free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BED_TESTS_ALL(test_fields),
		BED_TESTS(test_fields_in_lmcache_names),
		BED_TESTS_ALL(test_bytes),
		BED_TESTS(test_collision),
		BED_TESTS_POSIX(test_renamed),
		BED_TEST(test_members, BED_URING, "io_uring, buffered"),
		BED_TEST(test_members, BED_THREADS_DIRECT, "threads, direct"),
		BED_TESTS_ALL_POSIX(test_foreign),
		BED_TESTS_POSIX(test_foreign_under_the_same_name),
		BED_TEST(test_damaged_manifest, BED_URING, "io_uring, buffered"),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
