/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What released versions left on media, byte for byte, in tests/golden. Each file is made again from the parameters here
 * and compared, and is parsed: a change of the encoder that old stores would not survive fails, and so does one of the
 * parser. Files of a released format are never changed; `test_golden --write FOLDER` makes those of a new one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/format.h"
#include "util/alloc.h"

/* An object whose payload and sums follow from its length alone. */
struct golden_object {
	const char *file;
	bool whole;                        /* with payload and padding; else the footer alone */
	bool sums_of_payload;              /* else sums are numbers, as for payloads too long for a test */
	uint64_t bytes;
	uint32_t block_bytes;
	const char *key, *meta, *manifest, *parent;
	uint32_t depth;
	uint64_t generation;
};

static const struct golden_object objects[] = {
	{ "v1-empty.kv", true, true, 0, 65536, "m@00000000@0@00", "", NULL, NULL, 0, 0 },
	{ "v1-small.kv", true, true, 5000, 65536, "meta-llama/Llama-3-8B@01000200@0@83aeffd0@tenant", "meta \x01\xff",
	  "{\"dtype\":\"bf16\",\"weights\":\"r1\"}", "meta-llama/Llama-3-8B@01000200@0@00000001@tenant", 7, 0 },
	{ "v1-blocks.footer", false, true, 200001, 65536, "any bytes \x01\xfe are a key", "", NULL, NULL, 0, 3 },
	{ "v1-pages.footer", false, false, UINT64_C(600) << 20, 1048576, "m@00000000@1f@ffff", "",
	  "{\"dtype\":\"fp8\"}", NULL, 0, 0 },
};

static const struct kvk_superblock superblocks[] = {
	{ .store_id = "0123456789abcde", .created_ns = UINT64_C(1700000000000000001), .layout = { KVK_NAMING_KVKEEP, 1 },
	  .cap_bytes = UINT64_C(50) << 30, .durability = KVK_DURABILITY_NONE, .persist = true },
	{ .store_id = "fedcba987654321", .created_ns = UINT64_C(1700000000000000002), .layout = { KVK_NAMING_LMCACHE, 2 },
	  .cap_bytes = 0, .durability = KVK_DURABILITY_OBJECT, .persist = true, .group = true },
	{ .store_id = "02468ace13579bd", .created_ns = UINT64_C(1700000000000000003), .layout = { KVK_NAMING_KVKEEP, 1 },
	  .cap_bytes = UINT64_C(64) << 20, .durability = KVK_DURABILITY_BATCH, .persist = true,
	  .pool = { .slot_bytes = 1 << 20, .slots = 64, .file_slots = 8192, .opens = 3 } },
};
static const char *const superblock_files[] = { "v1-kvkeep.superblock", "v1-lmcache.superblock", "v1-pool.superblock" };

static const struct kvk_pool_head pool_head = {
	.pool_id = "a pool of slots", .created_ns = UINT64_C(1700000000000000004), .slot_bytes = 1 << 20, .file_slots = 8192,
	.file_index = 1,
};
static const char pool_head_file[] = "v1-pool.head";

static const char account_file[] = "v1.account";
static const char snapshot_file[] = "v1.snapshot";
#define SNAPSHOT_OBJECTS 5
#define SNAPSHOT_NAMES 48

static const char manifest_json[] = "{ \"tokens_a_chunk\": 256, \"model\": {\"weights\": \"r\\u00e91\", \"dtype\": \"bf16\"},"
				    " \"rope\": [10000.0, 0.1], \"empty\": {} }";
static const char manifest_file[] = "v1-manifest.json";

#define OBJECT_BYTES_MAX (262144 + KVK_FOOTER_BYTES_MAX)

static uint8_t built[OBJECT_BYTES_MAX], stored[OBJECT_BYTES_MAX];

/* Sets *first_ret to where what the file holds begins in `built`, and returns its length. */
static size_t build(const struct golden_object *object, size_t *first_ret)
{
	static uint8_t sums[8 * KVK_BLOCK_COUNT_MAX];
	struct kvk_footer footer = {
		.checksum_id = KVK_CHECKSUM_XXH3,
		.logical_bytes = object->bytes,
		.stored_bytes = object->bytes,
		.block_bytes = object->block_bytes,
		.block_count = kvk_block_count_for(object->bytes, object->block_bytes),
		.created_ns = UINT64_C(1700000000123456789),
		.writer_id = UINT64_C(0x0123456789abcdef),
		.generation = object->generation,
		.depth = object->depth,
		.meta = object->meta,
		.meta_bytes = (uint32_t)strlen(object->meta),
		.key = object->key,
		.key_bytes = (uint32_t)strlen(object->key),
		.block_sums = sums,
	};
	size_t payload_bytes = object->sums_of_payload ? (size_t)object->bytes : 0;
	size_t footer_at = (size_t)kvk_page_ceil(payload_bytes);
	uint8_t digest[KVK_DIGEST_BYTES];

	memset(built, 0, sizeof(built));
	for (size_t i = 0; i < payload_bytes; i++)
		built[i] = (uint8_t)(1 + i % 251);
	if (object->manifest)
		assert_int_equal(kvk_manifest_digest(footer.namespace_digest, object->manifest), 0);
	if (object->parent)
		assert_int_equal(kvk_key_digest(footer.parent_digest, footer.namespace_digest, object->parent,
						(uint32_t)strlen(object->parent)), 0);
	assert_int_equal(kvk_key_digest(digest, footer.namespace_digest, footer.key, footer.key_bytes), 0);
	for (uint32_t i = 0; i < footer.block_count; i++) {
		size_t at = (size_t)i * object->block_bytes;
		uint64_t sum = i * UINT64_C(0x9e3779b97f4a7c15);

		if (object->sums_of_payload)
			sum = kvk_block_sum(built + at, payload_bytes - at < object->block_bytes ? payload_bytes - at :
					    object->block_bytes, kvk_digest_seed(digest));
		memcpy(sums + 8 * (size_t)i, &sum, 8);
	}
	assert_int_equal(kvk_footer_encode(&footer, digest, built + footer_at, sizeof(built) - footer_at), 0);
	*first_ret = object->whole ? 0 : footer_at;
	return footer_at + kvk_footer_bytes(&footer) - *first_ret;
}

/* Beside this source, or where the environment says. */
static void path_of(char *path, size_t room, const char *file)
{
	const char *folder = getenv("KVK_GOLDEN_DIR");
	const char *slash = strrchr(__FILE__, '/');

	if (folder)
		snprintf(path, room, "%s/%s", folder, file);
	else
		snprintf(path, room, "%.*s/../golden/%s", (int)(slash - __FILE__), __FILE__, file);
}

static size_t load(const char *file)
{
	char path[1024];
	FILE *stream;
	size_t bytes;

	path_of(path, sizeof(path), file);
	stream = fopen(path, "rb");
	if (!stream)
		fail_msg("%s: cannot be opened (set KVK_GOLDEN_DIR)", path);
	bytes = fread(stored, 1, sizeof(stored), stream);
	fclose(stream);
	return bytes;
}

static void objects_are_written_and_read_as_ever(void **state)
{
	for (unsigned i = 0; i < sizeof(objects) / sizeof(objects[0]); i++) {
		const struct golden_object *object = &objects[i];
		struct kvk_footer footer;
		uint8_t digest[KVK_DIGEST_BYTES];
		uint32_t footer_bytes;
		size_t first, bytes = build(object, &first);

		assert_int_equal(load(object->file), bytes);
		assert_memory_equal(stored, built + first, bytes);
		assert_int_equal(kvk_trailer_parse(stored + bytes - KVK_TRAILER_BYTES, &footer_bytes), 0);
		assert_int_equal(kvk_footer_parse(&footer, digest, stored + bytes - footer_bytes, footer_bytes), 0);
		assert_true(footer.logical_bytes == object->bytes);
		assert_int_equal(footer.key_bytes, strlen(object->key));
		assert_memory_equal(footer.key, object->key, footer.key_bytes);
		assert_int_equal(footer.depth, object->depth);
		for (uint32_t j = 0; object->whole && j < footer.block_count; j++)
			assert_true(kvk_footer_sum(&footer, j) ==
				    kvk_block_sum(stored, (size_t)object->bytes, kvk_digest_seed(digest)));
	}
}

static void superblocks_are_written_and_read_as_ever(void **state)
{
	for (unsigned i = 0; i < 3; i++) {
		struct kvk_superblock parsed;

		kvk_superblock_encode(&superblocks[i], built);
		assert_int_equal(load(superblock_files[i]), KVK_SUPERBLOCK_BYTES);
		assert_memory_equal(stored, built, KVK_SUPERBLOCK_BYTES);
		assert_int_equal(kvk_superblock_parse(&parsed, stored, KVK_SUPERBLOCK_BYTES), 0);
		assert_memory_equal(parsed.store_id, superblocks[i].store_id, 16);
		assert_int_equal(parsed.layout.naming, superblocks[i].layout.naming);
		assert_memory_equal(&parsed.pool, &superblocks[i].pool, sizeof(parsed.pool));
	}
}

static void heads_of_pools_are_written_and_read_as_ever(void **state)
{
	struct kvk_pool_head parsed;

	kvk_pool_head_encode(&pool_head, built);
	assert_int_equal(load(pool_head_file), KVK_PAGE_BYTES);
	assert_memory_equal(stored, built, KVK_PAGE_BYTES);
	assert_int_equal(kvk_pool_head_parse(&parsed, stored), 0);
	assert_memory_equal(parsed.pool_id, pool_head.pool_id, sizeof(parsed.pool_id));
	assert_true(parsed.slot_bytes == pool_head.slot_bytes && parsed.file_slots == pool_head.file_slots);
	assert_true(kvk_pool_writer(parsed.pool_id, 77) == UINT64_C(0x6f53180003030007) + 77);
}

/* Rows and buckets follow from their numbers; three rows of four are free. */
static void build_account(void)
{
	static struct kvk_account_image image;

	image = (struct kvk_account_image){
		.sequence = UINT64_C(0x0123456789), .epoch = 77, .cap_bytes = UINT64_C(50) << 30, .loose_bytes = 123 << 12,
		.loosened_bytes = 456 << 12, .wanted_ns = UINT64_C(1700000000000000003), .remade = 0x89abcdef,
		.needs_scan = true,
	};
	for (uint32_t i = 0; i < KVK_ACCOUNT_BUCKETS; i++) {
		image.charged_bytes[i] = (uint64_t)i * i << 12;
		image.posted[i] = 3 * i;
		image.published_bytes[i] = ((uint64_t)i << 12) * 99;
	}
	for (uint32_t i = 0; i < KVK_ACCOUNT_ROWS; i += 4)
		image.rows[i] = (struct kvk_account_line){
			.token = UINT64_C(0x9e3779b97f4a7c15) * (i + 1), .leased_bytes = (uint64_t)i << 20,
			.settled_ns = UINT64_C(1700000000000000000) + i, .visits = 5 * i, .pid = 7 * i, .lost = i % 8 == 4,
			.host = "host.of-some-name",
		};
	kvk_account_encode(&image, built);
}

static void accounts_are_written_and_read_as_ever(void **state)
{
	static struct kvk_account_image parsed;

	build_account();
	assert_int_equal(load(account_file), KVK_ACCOUNT_BYTES);
	assert_memory_equal(stored, built, KVK_ACCOUNT_BYTES);
	assert_int_equal(kvk_account_parse(&parsed, stored, KVK_ACCOUNT_BYTES), 0);
	assert_true(parsed.epoch == 77 && parsed.charged_bytes[256] == UINT64_C(65536) << 12);
	assert_true(parsed.rows[4].lost && parsed.rows[252].leased_bytes == UINT64_C(252) << 20);
}

/* The third object has neither tenant nor parent, and the last one shares the first one's tenant. Returns its length. */
static size_t build_snapshot(void)
{
	struct kvk_snapshot_head head = {
		.store_id = "0123456789abcde", .epoch = 78, .made_ns = UINT64_C(1700000000000000005),
		.object_count = SNAPSHOT_OBJECTS, .names_bytes = SNAPSHOT_NAMES,
	};
	uint8_t *names = built + kvk_snapshot_at(SNAPSHOT_OBJECTS);
	uint32_t used = 0, tenants[2], model;

	memset(built, 0, (size_t)kvk_snapshot_bytes(&head));
	tenants[0] = kvk_snapshot_put_name(names, SNAPSHOT_NAMES, &used, "tenant", 6);
	tenants[1] = kvk_snapshot_put_name(names, SNAPSHOT_NAMES, &used, "\x01\xff", 2);
	model = kvk_snapshot_put_name(names, SNAPSHOT_NAMES, &used, "meta-llama/Llama-3-8B", 21);
	for (uint32_t i = 0; i < SNAPSHOT_OBJECTS; i++) {
		struct kvk_snapshot_object object = {
			.logical_bytes = i * UINT64_C(1000000007), .charge_bytes = ((uint64_t)i * 99 + 2) << 12,
			.used_at_ns = UINT64_C(1700000000000000000) + i, .tenant = i == 2 ? 0 : tenants[i % 4 / 3],
			.model = model, .durable = i % 2 == 0,
		};

		for (uint32_t j = 0; j < 16; j++) {
			object.prefix[j] = (uint8_t)(i * 16 + j);
			object.parent_prefix[j] = (uint8_t)(i == 0 || i == 2 ? 0 : (i - 1) * 16 + j);
		}
		kvk_snapshot_put_object(built + kvk_snapshot_at(i), &object);
	}
	kvk_snapshot_seal(built, &head);
	return (size_t)kvk_snapshot_bytes(&head);
}

static void snapshots_are_written_and_read_as_ever(void **state)
{
	const uint8_t *names = stored + kvk_snapshot_at(SNAPSHOT_OBJECTS);
	struct kvk_snapshot_object object;
	struct kvk_snapshot_head parsed;
	struct kvk_key name;
	size_t bytes = build_snapshot();

	assert_int_equal(load(snapshot_file), bytes);
	assert_memory_equal(stored, built, bytes);
	assert_int_equal(kvk_snapshot_parse(&parsed, stored, bytes), 0);
	assert_true(parsed.epoch == 78 && parsed.object_count == SNAPSHOT_OBJECTS);
	kvk_snapshot_get_object(&object, stored + kvk_snapshot_at(3));
	assert_true(object.logical_bytes == UINT64_C(3000000021) && object.charge_bytes == 299 << 12 && !object.durable);
	assert_int_equal(object.parent_prefix[1], 33);
	name = kvk_snapshot_get_name(names, parsed.names_bytes, object.tenant);
	assert_int_equal(name.bytes, 2);
	assert_memory_equal(name.data, "\x01\xff", 2);
}

static void manifests_are_written_as_ever(void **state)
{
	char *text = NULL;
	size_t bytes = load(manifest_file);

	assert_int_equal(kvk_manifest_canonical(&text, manifest_json, NULL), 0);
	assert_int_equal(bytes, strlen(text));
	assert_memory_equal(stored, text, bytes);
	kvk_mem_free(text);
}

/* Digests and names of two keys: they must never move, or every object would be lost. */
static void names_are_as_ever(void **state)
{
	static const struct {
		const char *key, *manifest, *name;
	} rows[] = {
		{ "m@00000000@0@00", NULL,
		  "b6/b67038f59b258ac4a8dcca1cfbacdf25f8844eca1afc78b68e4eec3dd564fbdf.kv" },
		{ "m@00000000@0@00", "{\"dtype\":\"fp8\"}",
		  "4a/4ad6aeabc00bfd28dec5f62b1bb9607a3cfd53267c3def6cde0025fdba36a43f.kv" },
	};

	for (unsigned i = 0; i < 2; i++) {
		uint8_t space[KVK_DIGEST_BYTES], digest[KVK_DIGEST_BYTES];
		char name[KVK_NAME_BYTES_MAX];
		uint32_t key_bytes = (uint32_t)strlen(rows[i].key);

		assert_int_equal(kvk_manifest_digest(space, rows[i].manifest), 0);
		assert_int_equal(kvk_key_digest(digest, space, rows[i].key, key_bytes), 0);
		assert_int_equal(kvk_name_make(name, &(struct kvk_layout){ KVK_NAMING_KVKEEP, 1 }, digest, rows[i].key,
					       key_bytes), 0);
		assert_string_equal(name, rows[i].name);
	}
}

static bool write_file(const char *folder, const char *file, const void *data, size_t bytes)
{
	char path[1024];
	FILE *stream;
	bool written;

	snprintf(path, sizeof(path), "%s/%s", folder, file);
	stream = fopen(path, "wbx");
	if (!stream)
		return false;
	written = fwrite(data, 1, bytes, stream) == bytes;
	return fclose(stream) == 0 && written;
}

/* Never over a file that is there. */
static int write_all(const char *folder)
{
	bool written = true;
	char *text = NULL;
	size_t bytes;

	for (unsigned i = 0; i < sizeof(objects) / sizeof(objects[0]); i++) {
		size_t first;

		bytes = build(&objects[i], &first);
		written = write_file(folder, objects[i].file, built + first, bytes) && written;
	}
	for (unsigned i = 0; i < 3; i++) {
		kvk_superblock_encode(&superblocks[i], built);
		written = write_file(folder, superblock_files[i], built, KVK_SUPERBLOCK_BYTES) && written;
	}
	kvk_pool_head_encode(&pool_head, built);
	written = write_file(folder, pool_head_file, built, KVK_PAGE_BYTES) && written;
	build_account();
	written = write_file(folder, account_file, built, KVK_ACCOUNT_BYTES) && written;
	bytes = build_snapshot();
	written = write_file(folder, snapshot_file, built, bytes) && written;
	if (kvk_manifest_canonical(&text, manifest_json, NULL) == 0)
		written = write_file(folder, manifest_file, text, strlen(text)) && written;
	kvk_mem_free(text);
	return written ? 0 : 1;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(objects_are_written_and_read_as_ever),
		cmocka_unit_test(superblocks_are_written_and_read_as_ever),
		cmocka_unit_test(heads_of_pools_are_written_and_read_as_ever),
		cmocka_unit_test(accounts_are_written_and_read_as_ever),
		cmocka_unit_test(snapshots_are_written_and_read_as_ever),
		cmocka_unit_test(manifests_are_written_as_ever),
		cmocka_unit_test(names_are_as_ever),
	};

	if (argc == 3 && strcmp(argv[1], "--write") == 0)
		return write_all(argv[2]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
