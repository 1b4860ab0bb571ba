/* SPDX-License-Identifier: Apache-2.0 */
/* The specification of a store: what each option takes, and how a wrong one is told. */
#include "support/skip.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/spec.h"
#include "unit/store_kit.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- the parser --------------------------------------------------------------------------------- */

/* A whole specification with these members added; "P" before it puts them into backend_params. */
static int parse(const char *members, struct kvk_spec *spec, struct kvk_error *error)
{
	char json[1024];

	*error = (struct kvk_error){ .struct_bytes = sizeof(*error) };
	if (members[0] == 'P')
		snprintf(json, sizeof(json), "{\"backend_params\": {\"file_path\": \"/x\", %s}}", members + 1);
	else
		snprintf(json, sizeof(json), "{\"backend_params\": {\"file_path\": \"/x\"}, %s}", members);
	return kvk_spec_parse(spec, json, error);
}

static const char *const good[] = {
	"\"type\": \"nixl_store_dynamic\"",
	"P\"pool_size\": \"8\", \"slot_size\": 8192}, \"type\": \"nixl_store\", \"pool_size\": 8, \"slot_size\": 8192, \"namespace\": {",
	"\"backend\": \"POSIX\"", "\"backend\": \"RAM\"",
	"P\"use_direct_io\": true", "P\"use_direct_io\": false", "P\"use_direct_io\": \"true\"",
	"P\"use_direct_io\": \"false\"", "P\"max_capacity_gb\": 50", "P\"max_capacity_gb\": \"50\"",
	"P\"max_capacity_gb\": 0.5", "P\"max_capacity_gb\": \"0.5\"", "P\"max_capacity_gb\": 0",
	"P\"shard_dirs\": true", "P\"shard_dirs\": \"true\"",
	"\"persist_enabled\": true", "\"persist_enabled\": false", "\"visitor\": true", "\"visitor\": false",
	"\"eviction\": {}", "\"eviction\": {\"eviction_policy\": \"noop\"}",
	"\"eviction\": {\"eviction_policy\": \"noop\", \"trigger_watermark\": 0.9, \"eviction_ratio\": 0.1}",
	"\"eviction\": {\"eviction_policy\": \"LRU\"}", "\"eviction\": {\"eviction_policy\": \"S3FIFO\"}",
	"\"eviction\": {\"eviction_policy\": \"ARC\"}",
	"\"eviction\": {\"eviction_policy\": \"IsolatedLRU\", \"quotas_gb\": {\"a\": 1, \"b\": \"0.5\"}, \"default_quota_gb\": 2}",
	"\"min_free_gb\": 0", "\"min_free_gb\": \"0.5\"", "\"disk_high_watermark\": 0.95",
	"\"durability\": \"none\"", "\"durability\": \"batch\"", "\"durability\": \"object\"",
	"\"batch_seconds\": 0.1", "\"batch_seconds\": 3600", "\"batch_mb\": 1", "\"batch_mb\": 1000000",
	"\"naming\": \"kvkeep\"", "\"naming\": \"lmcache\"",
	"\"max_objects\": 1", "\"max_objects\": 5000000", "\"max_objects\": 5000001", "\"max_objects\": 1e12",
	"\"namespace\": {}", "\"namespace\": {\"model\": \"m\", \"n\": [1, 2, {\"x\": null}]}",
	"\"group\": true", "\"group\": false", "\"shared\": true", "\"create\": false",
	"\"naming\": \"lmcache\", \"unverified\": \"accept\"", "\"unverified\": \"refuse\"",
	"\"io_engine\": \"auto\"", "\"io_engine\": \"io_uring\"", "\"io_engine\": \"threads\"",
	"\"lanes\": 0", "\"lanes\": 32", "\"memory_mb\": 16", "\"memory_mb\": 65536", "\"depth_mb\": 2", "\"depth_mb\": 4096",
	"\"deadline_ms\": 1", "\"deadline_ms\": 86400000", "\"max_items\": 1", "\"max_items\": 16777216",
	"\"fault\": []", "\"fault\": [{\"do\": \"fail\", \"nth\": 1}]", "\"fault_seed\": 0", "\"fault_seed\": 7",
};

static void test_good_values(void **state)
{
	struct kvk_error error;
	struct kvk_spec spec;

	for (size_t i = 0; i < COUNT(good); i++) {
		int err = parse(good[i], &spec, &error);

		if (err)
			fail_msg("%s: %d, %s: %s", good[i], err, error.option, error.text);
		kvk_spec_release(&spec);
	}
}

/* What is quoted is cut at a length and comes from others: the text is UTF-8 all the same, and moves no cursor. */
static void test_errors_are_text(void **state)
{
	static const struct {
		const char *members;
		const char *option, *told;
	} rows[] = {
		/* 39 letters and a character of two bytes, of which the first would be the 40th. */
		{ "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\u00e9\": 1", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa?", NULL },
		{ "\"naming\": \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\u20ac\"", "naming",
		  "is \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa?\"," },
		{ "\"naming\": \"\\u001b[2J\u00e9\\u009b\"", "naming", "is \"?[2J\u00e9??\"," },
		{ "P\"max_capacity_gb\": \"\\u0007\"", "backend_params.max_capacity_gb", "is \"?\"," },
	};
	struct kvk_error error;
	struct kvk_spec spec;

	for (size_t i = 0; i < COUNT(rows); i++) {
		assert_int_equal(parse(rows[i].members, &spec, &error), -EINVAL);
		assert_string_equal(error.option, rows[i].option);
		if (rows[i].told && strncmp(error.text, rows[i].told, strlen(rows[i].told)))
			fail_msg("'%s', must begin '%s'", error.text, rows[i].told);
		kvk_spec_release(&spec);
	}
}

/* What a value turns into, for those where that is not plain. */
static void test_values(void **state)
{
	struct kvk_error error;
	struct kvk_spec spec;

	assert_int_equal(parse("\"lanes\": 3", &spec, &error), 0);
	assert_string_equal(spec.path, "/x");
	assert_int_equal(spec.lanes, 3);
	assert_true(spec.wish.values.persist && spec.wish.create && !spec.direct && !spec.ram && !spec.shared);
	assert_int_equal(spec.memory_bytes, 256 << 20);
	assert_int_equal(spec.depth_bytes, 32 << 20);
	assert_int_equal(spec.deadline_us, 30000000);
	assert_int_equal(spec.max_items, 65536);
	assert_int_equal(spec.policy, KVK_POLICY_NOOP);
	kvk_spec_release(&spec);
	/* Who says how to evict wants it; a policy that is named counts, wherever it stands among the others. */
	assert_int_equal(parse("\"eviction\": {\"trigger_watermark\": 0.9}", &spec, &error), 0);
	assert_int_equal(spec.policy, KVK_POLICY_LRU);
	kvk_spec_release(&spec);
	assert_int_equal(parse("\"eviction\": {\"eviction_policy\": \"noop\", \"eviction_ratio\": 0.5}", &spec, &error), 0);
	assert_int_equal(spec.policy, KVK_POLICY_NOOP);
	kvk_spec_release(&spec);
	assert_int_equal(parse("P\"max_capacity_gb\": \"1.5\", \"use_direct_io\": \"true\"", &spec, &error), 0);
	assert_int_equal(spec.wish.values.cap_bytes, UINT64_C(3) << 29);
	assert_true(spec.direct);
	kvk_spec_release(&spec);
	assert_int_equal(parse("\"max_objects\": 5000001", &spec, &error), 0);
	assert_int_equal(spec.wish.values.layout.levels, 2);
	kvk_spec_release(&spec);
	assert_int_equal(parse("\"deadline_ms\": 250, \"batch_seconds\": 0.5, \"batch_mb\": 3", &spec, &error), 0);
	assert_int_equal(spec.deadline_us, 250000);
	assert_int_equal(spec.batch_us, 500000);
	assert_int_equal(spec.batch_bytes, 3 << 20);
	kvk_spec_release(&spec);
}

static const struct {
	const char *members;
	const char *option;
	const char *says;              /* part of the text */
} bad[] = {
	{ "\"pool_size\": 8", "pool_size", "nixl_store" },
	{ "\"slot_size\": 8192", "slot_size", "nixl_store" }, { "\"file_size\": 8192", "file_size", "nixl_store" },
	{ "P\"device_path\": \"/dev/x\"", "backend_params.device_path", "nixl_store" },
	{ "P\"device_path\": \"x\"", "backend_params.device_path", "path of a block device" },
	{ "\"type\": \"nixl_store\", \"pool_size\": 0", "pool_size", "from 1" },
	/* In backend_params first, and then at the top. */
	{ "P\"pool_size\": \"9\"}, \"type\": \"nixl_store\", \"pool_size\": 8, \"namespace\": {", "pool_size", "twice" },
	{ "P\"slot_size\": 8192}, \"type\": \"nixl_store\", \"slot_size\": 4096, \"namespace\": {", "slot_size", "twice" },
	{ "P\"file_size\": 1e9}, \"type\": \"nixl_store\", \"file_size\": 2e9, \"namespace\": {", "file_size", "twice" },
	{ "\"type\": \"nixl_store\", \"pool_size\": \"many\"", "pool_size", "number" },
	{ "\"type\": \"nixl_store\", \"pool_size\": 8, \"slot_size\": 5000", "slot_size", "multiple of 4096" },
	{ "\"type\": \"nixl_store\", \"pool_size\": 8, \"file_size\": 8192", "file_size", "less than slot_size" },
	{ "\"type\": \"nixl_store\", \"pool_size\": 8, \"naming\": \"lmcache\"", "naming", "nixl_store_dynamic" },
	{ "\"type\": \"fs\"", "type", "nixl_store_dynamic" }, { "\"type\": 1", "type", "nixl_store_dynamic" },
	{ "\"backend\": \"GDS\"", "backend", "POSIX" }, { "\"backend\": \"GDS_MT\"", "backend", "POSIX" },
	{ "\"backend\": \"HF3FS\"", "backend", "POSIX" }, { "\"backend\": \"OBJ\"", "backend", "POSIX" },
	{ "\"backend\": \"AZURE_BLOB\"", "backend", "POSIX" }, { "\"backend\": \"posix\"", "backend", "POSIX" },
	{ "\"backend\": null", "backend", "POSIX" },
	{ "\"backend_params\": 1", "", "" },
	{ "P\"use_direct_io\": \"yes\"", "backend_params.use_direct_io", "true or false" },
	{ "P\"use_direct_io\": 1", "backend_params.use_direct_io", "true or false" },
	{ "P\"max_capacity_gb\": -1", "backend_params.max_capacity_gb", "0" },
	{ "P\"max_capacity_gb\": \"-1\"", "backend_params.max_capacity_gb", "number" },
	{ "P\"max_capacity_gb\": \"50GB\"", "backend_params.max_capacity_gb", "50GB" },
	{ "P\"max_capacity_gb\": \"\"", "backend_params.max_capacity_gb", "number" },
	{ "P\"max_capacity_gb\": \"nan\"", "backend_params.max_capacity_gb", "number" },
	{ "P\"max_capacity_gb\": \"inf\"", "backend_params.max_capacity_gb", "number" },
	{ "P\"max_capacity_gb\": 1e300", "backend_params.max_capacity_gb", "1e+300" },
	{ "P\"max_capacity_gb\": 0.00001", "backend_params.max_capacity_gb", "64 KiB" },
	{ "P\"max_capacity_gb\": true", "backend_params.max_capacity_gb", "number" },
	{ "P\"shard_dirs\": 2", "backend_params.shard_dirs", "true or false" },
	{ "P\"path\": \"/y\"", "backend_params.path", "not an option" },
	{ "\"persist_enabled\": \"false\"", "persist_enabled", "not a string" },
	{ "\"persist_enabled\": 0", "persist_enabled", "true or false" },
	{ "\"visitor\": 1", "visitor", "true or false" },
	{ "\"eviction\": \"LRU\"", "eviction", "object" },
	{ "\"eviction\": {\"eviction_policy\": \"FIFO\"}", "eviction.eviction_policy", "FIFO" },
	{ "\"eviction\": {\"trigger_watermark\": 1.5}", "eviction.trigger_watermark", "1.5" },
	{ "\"eviction\": {\"eviction_ratio\": -0.1}", "eviction.eviction_ratio", "-0.1" },
	{ "\"eviction\": {\"quotas_gb\": 3}", "eviction.quotas_gb", "object of tenants" },
	{ "\"eviction\": {\"quotas_gb\": {\"a\": true}}", "eviction.quotas_gb", "number" },
	{ "\"eviction\": {\"default_quota_gb\": -1}", "eviction.default_quota_gb", "-1" },
	{ "\"min_free_gb\": \"much\"", "min_free_gb", "much" },
	{ "\"disk_high_watermark\": 0", "disk_high_watermark", "is 0" },
	{ "\"eviction\": {\"ratio\": 0.1}", "eviction.ratio", "not an option" },
	{ "\"durability\": \"fsync\"", "durability", "\"none\"" }, { "\"durability\": 1", "durability", "\"none\"" },
	{ "\"batch_seconds\": 0", "batch_seconds", "0.1" }, { "\"batch_seconds\": \"5\"", "batch_seconds", "number" },
	{ "\"batch_mb\": 0", "batch_mb", "1" },
	{ "\"naming\": \"sha\"", "naming", "lmcache" },
	{ "\"max_objects\": 0", "max_objects", "1" }, { "\"max_objects\": \"many\"", "max_objects", "number" },
	{ "\"namespace\": \"llama\"", "namespace", "object" }, { "\"namespace\": []", "namespace", "object" },
	{ "\"group\": \"kv\"", "group", "true or false" }, { "\"shared\": 1", "shared", "true or false" },
	{ "\"create\": \"yes\"", "create", "true or false" },
	{ "\"unverified\": true", "unverified", "accept" },
	{ "\"naming\": \"kvkeep\", \"unverified\": \"accept\"", "unverified", "lmcache" },
	{ "\"io_engine\": \"aio\"", "io_engine", "io_uring" },
	{ "\"lanes\": 33", "lanes", "33" }, { "\"lanes\": -1", "lanes", "-1" },
	{ "\"memory_mb\": 15", "memory_mb", "16" }, { "\"depth_mb\": 1", "depth_mb", "2" },
	{ "\"deadline_ms\": 0", "deadline_ms", "0" }, { "\"deadline_ms\": 1e9", "deadline_ms", "1e+09" },
	{ "\"max_items\": 0", "max_items", "0" },
	{ "\"fault\": {}", "fault", "array" }, { "\"fault_seed\": -1", "fault_seed", "-1" },
	{ "\"durabilty\": \"none\"", "durabilty", "not an option" },
	{ "\"\": 1", "", "not an option" },
};

/* Every wrong value is refused with the path of its option and a text that says what it may be. */
static void test_bad_values(void **state)
{
	for (size_t i = 0; i < COUNT(bad); i++) {
		struct kvk_error error;
		struct kvk_spec spec;
		int err = parse(bad[i].members, &spec, &error);

		kvk_spec_release(&spec);
		if (err != -EINVAL || error.code != -EINVAL || strcmp(error.option, bad[i].option) ||
		    !strstr(error.text, bad[i].says) || !error.text[0])
			fail_msg("%s: %d, \"%s\": \"%s\"; expected \"%s\": \"...%s...\"", bad[i].members, err, error.option,
				 error.text, bad[i].option, bad[i].says);
	}
}

/* ---- whole specifications ----------------------------------------------------------------------- */

static int try_open(const char *json, struct kvk_error *error)
{
	struct kvk_store *store = NULL;
	int err;

	*error = (struct kvk_error){ .struct_bytes = sizeof(*error) };
	err = kvk_store_open(&store, json, NULL, error);
	if (!err)
		kvk_store_close(store);
	else
		assert_null(store);
	return err;
}

static void test_not_a_specification(void **state)
{
	static const char *const texts[] = { "", "{", "[]", "null", "{\"type\": }", "{\"lanes\": 1, \"lanes\": 2}", "{} {}" };
	struct kvk_error error;

	for (size_t i = 0; i < COUNT(texts); i++) {
		if (try_open(texts[i], &error) != -EINVAL || !error.text[0])
			fail_msg("\"%s\" gave \"%s\"", texts[i], error.text);
	}
	assert_int_equal(try_open(NULL, &error), -EINVAL);
	assert_int_equal(try_open("{}", &error), -EINVAL);
	assert_string_equal(error.option, "backend_params.file_path");
	assert_non_null(strstr(error.text, "missing"));
	assert_int_equal(try_open("{\"backend_params\": {\"file_path\": \"\"}}", &error), -EINVAL);
	assert_string_equal(error.option, "backend_params.file_path");
	assert_int_equal(try_open("{\"backend_params\": {\"file_path\": 7}}", &error), -EINVAL);
	assert_string_equal(error.option, "backend_params.file_path");
	/* Nobody has to take the error. */
	assert_int_equal(kvk_store_open(NULL, "{}", NULL, NULL), -EINVAL);
	error.struct_bytes = sizeof(error) - 4;
	assert_int_equal(kvk_store_open(NULL, "{}", NULL, &error), -EINVAL);
}

static void round_trip(const char *json)
{
	struct kvk_error error = { .struct_bytes = sizeof(error) };
	struct kvk_store *store = NULL;
	int err = kvk_store_open(&store, json, NULL, &error);

	if (err)
		fail_msg("%s: %d, %s: %s", json, err, error.option, error.text);
	assert_int_equal(bed_put(store, "k", 100000, 1, NULL), 0);
	assert_int_equal(bed_get(store, "k", 100000, 1, NULL), 0);
	assert_int_equal(kvk_store_close(store), 0);
	store = NULL;
	assert_int_equal(kvk_store_open(&store, json, NULL, &error), 0);
	assert_int_equal(bed_get(store, "k", 100000, 1, NULL), 0);
	assert_int_equal(bed_remove(store, "k", NULL), 0);
	assert_int_equal(kvk_store_close(store), 0);
}

/* The examples of LMCache's documentation, as users have them. */
static void test_words_of_lmcache(void **state)
{
	struct bed *bed = *state;
	char json[600];

	snprintf(json, sizeof(json),
		 "{\"type\":\"nixl_store_dynamic\",\"backend\":\"POSIX\",\"backend_params\":{\"file_path\":\"%s\","
		 "\"use_direct_io\":\"true\",\"max_capacity_gb\":\"50\",\"shard_dirs\":\"true\"},\"persist_enabled\":true}",
		 bed->path);
	round_trip(json);

	snprintf(json, sizeof(json),
		 "{\"type\":\"nixl_store_dynamic\",\"backend\":\"POSIX\",\"backend_params\":{\"file_path\":\"%s\","
		 "\"use_direct_io\":\"true\",\"max_capacity_gb\":\"50\",\"shard_dirs\":\"true\"},\"persist_enabled\":true,"
		 "\"eviction\":{\"eviction_policy\":\"LRU\",\"trigger_watermark\":0.9,\"eviction_ratio\":0.1}}", bed->path);
	round_trip(json);

	snprintf(json, sizeof(json),
		 "{\"type\":\"nixl_store\",\"backend\":\"POSIX\",\"backend_params\":{\"file_path\":\"%s/pool\","
		 "\"use_direct_io\":\"false\"},\"pool_size\":64}", bed->path);
	round_trip(json);
}

/* A path without a slash counts from the working directory. */
static void test_relative_path(void **state)
{
	struct bed *bed = *state;
	char before[512], below[600];
	struct stat stat_of;

	assert_non_null(getcwd(before, sizeof(before)));
	assert_int_equal(chdir(bed->path), 0);
	round_trip("{\"backend_params\": {\"file_path\": \"kv\"}}");
	assert_int_equal(chdir(before), 0);
	snprintf(below, sizeof(below), "%s/kv/.kvkeep/superblock", bed->path);
	assert_int_equal(stat(below, &stat_of), 0);
	/* KV can be turned back into the prompt: nobody else may read it. */
	assert_int_equal(stat_of.st_mode & 077, 0);
	snprintf(below, sizeof(below), "%s/kv", bed->path);
	assert_int_equal(stat(below, &stat_of), 0);
	assert_int_equal(stat_of.st_mode & 0777, 0700);
}

/* Options that belong to the store, not to the opener, are kept and must agree. */
static void test_what_is_fixed(void **state)
{
	struct bed *bed = *state;
	struct kvk_error error = { .struct_bytes = sizeof(error) };
	struct kvk_store *second = NULL;
	char spec[1024];

	bed_spec(bed, spec, sizeof(spec), "\"create\": false");
	assert_int_equal(try_open(spec, &error), -ENOENT);
	assert_string_equal(error.option, "backend_params.file_path");
	bed_open(bed, "\"durability\": \"batch\"");
	assert_int_equal(bed_put(bed->store, "k", 100, 1, NULL), 0);

	/* While it is open, another opener must agree or say nothing. */
	bed_spec(bed, spec, sizeof(spec), "\"durability\": \"object\"");
	assert_int_equal(try_open(spec, &error), -EBUSY);
	assert_string_equal(error.option, "durability");
	bed_spec(bed, spec, sizeof(spec), "params:\"max_capacity_gb\": 1");
	assert_int_equal(try_open(spec, &error), -EBUSY);
	assert_string_equal(error.option, "backend_params.max_capacity_gb");
	bed_spec(bed, spec, sizeof(spec), "\"persist_enabled\": false");
	assert_int_equal(try_open(spec, &error), -EBUSY);
	assert_string_equal(error.option, "persist_enabled");
	bed_spec(bed, spec, sizeof(spec), "");
	assert_int_equal(kvk_store_open(&second, spec, NULL, &error), 0);
	assert_int_equal(bed_get(second, "k", 100, 1, NULL), 0);
	assert_int_equal(kvk_store_close(second), 0);

	bed_close(bed);
	bed_spec(bed, spec, sizeof(spec), "\"naming\": \"lmcache\"");
	assert_int_equal(try_open(spec, &error), -EINVAL);
	assert_string_equal(error.option, "naming");
	bed_spec(bed, spec, sizeof(spec), "\"max_objects\": 1e9");
	assert_int_equal(try_open(spec, &error), -EINVAL);
	assert_string_equal(error.option, "max_objects");
	bed_spec(bed, spec, sizeof(spec), "\"group\": true");
	assert_int_equal(try_open(spec, &error), -EINVAL);
	assert_string_equal(error.option, "group");
	bed_open(bed, "\"durability\": \"object\"");
	assert_int_equal(bed_get(bed->store, "k", 100, 1, NULL), 0);
}

/* persist_enabled false removes everything at close, also what this process never looked at. */
static void test_not_persistent(void **state)
{
	struct bed *bed = *state;
	uint64_t objects, others;
	char name[16];

	bed_open(bed, "");
	for (int i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "k%d", i);
		assert_int_equal(bed_put(bed->store, name, 5000, 1, NULL), 0);
	}
	bed_reopen(bed, "\"persist_enabled\": false");
	assert_int_equal(bed_get(bed->store, "k3", 5000, 1, NULL), 0);
	bed_files(bed, &objects, &others);
	assert_int_equal(objects, 20);
	assert_int_equal(bed_close(bed), 0);
	bed_files(bed, &objects, &others);
	assert_int_equal(objects + others, 0);
}

/* What a stranger left there, by its path below the root. */
static void leave(const struct bed *bed, const char *folder, const char *name)
{
	char path[200];

	snprintf(path, sizeof(path), "%s/%s", bed->path, folder);
	assert_true(!mkdir(path, 0700) || errno == EEXIST);
	snprintf(path, sizeof(path), "%s/%s%s", bed->path, folder, name);
	kit_file_write(path, "not ours", 8);
}

static bool is_left(const struct bed *bed, const char *name)
{
	char path[200];

	snprintf(path, sizeof(path), "%s/%s", bed->path, name);
	return !access(path, F_OK);
}

/* The last close of several is the one that removes: what it never met, too, and nothing that is not the store's. */
static void test_the_last_close_removes(void **state)
{
	static const char spec[] = "\"persist_enabled\": false";
	struct bed *bed = *state, second = *bed;

	bed_open(bed, spec);
	second.store = NULL;
	bed_open(&second, spec);
	leave(bed, "", "stranger.txt");
	leave(bed, "notes/", "ab.kv");
	leave(bed, "ab/", "readme");
	for (int i = 0; i < 10; i++) {
		char name[16];

		snprintf(name, sizeof(name), "k%d", i);
		assert_int_equal(bed_put(second.store, name, 5000, 1, NULL), 0);
	}
	assert_int_equal(bed_put(bed->store, "own", 5000, 1, NULL), 0);
	assert_int_equal(bed_close(&second), 0);
	for (int i = 0; i < 10; i++) {
		char name[16];

		snprintf(name, sizeof(name), "k%d", i);
		assert_int_equal(bed_get(bed->store, name, 5000, 1, NULL), 0);
	}
	bed_open(&second, spec);
	assert_int_equal(bed_close(bed), 0);
	/* Of ten it looks for one alone. */
	assert_int_equal(bed_get(second.store, "own", 5000, 1, NULL), 0);
	assert_int_equal(bed_close(&second), 0);
	assert_true(is_left(bed, "stranger.txt") && is_left(bed, "notes/ab.kv") && is_left(bed, "ab/readme"));
	bed_open(bed, "");
	assert_int_equal(bed_get(bed->store, "own", 5000, 1, NULL), -ENOENT);
	assert_int_equal(bed_get(bed->store, "k3", 5000, 1, NULL), -ENOENT);
	/* At once, without a scan: what the other one stored last was posted after the last visit of this one. */
	assert_int_equal(bed_usage(bed->store).used_bytes, 0);
}

/* What a visitor says of the settings is passed over, beside others as well, and nothing goes because it closes. */
static void test_visitor(void **state)
{
	static const char visitor[] = "{\"backend_params\": {\"file_path\": \"%s\", \"max_capacity_gb\": 2}, \"durability\": \"batch\", "
				      "\"persist_enabled\": false, \"visitor\": true}";
	struct kvk_error error = { .struct_bytes = sizeof(error) };
	struct bed *bed = *state;
	uint64_t objects, others;
	struct kvk_store *store;
	char spec[512], *status;

	bed_open(bed, "\"durability\": \"object\"");
	assert_int_equal(bed_put(bed->store, "k", 5000, 1, NULL), 0);
	snprintf(spec, sizeof(spec), visitor, bed->path);
	assert_int_equal(kvk_store_open(&store, spec, NULL, &error), 0);
	assert_int_equal(bed_get(store, "k", 5000, 1, NULL), 0);
	assert_int_equal(bed_close(bed), 0);
	assert_int_equal(kvk_store_close(store), 0);
	bed_files(bed, &objects, &others);
	assert_int_equal(objects, 1);
	bed_open(bed, "");
	assert_int_equal(kvk_store_status(bed->store, &status), 0);
	assert_non_null(strstr(status, "\"cap_bytes\":0,\"durability\":\"object\",\"persist\":true"));
	kvk_free(status);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good_values),
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_bad_values),
		cmocka_unit_test(test_errors_are_text),
		cmocka_unit_test(test_not_a_specification),
		BED_TEST(test_words_of_lmcache, BED_URING, "a folder"),
		BED_TEST(test_relative_path, BED_URING, "a folder"),
		BED_TEST(test_what_is_fixed, BED_THREADS, "a folder"),
		BED_TEST(test_not_persistent, BED_THREADS, "a folder"),
		BED_TEST(test_the_last_close_removes, BED_THREADS, "a folder"),
		BED_TEST(test_visitor, BED_THREADS, "a folder"),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
