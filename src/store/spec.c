/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every option stands once, in a table: its name, its JSON type, and what takes it. Unknown ones are refused, since a
 * misspelt option that is silently ignored is found out about in production.
 */
#include "store/spec_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/alloc.h"
#include "util/error.h"

#define OBJECTS_ONE_LEVEL 5000000.0

/* ---- the options -------------------------------------------------------------------------------- */

static int take_backend(struct parsing *parsing, const char *path, const json_t *value)
{
	static const char *const words[] = { "POSIX", "RAM", NULL };
	static const char *const later[] = { "GDS", "GDS_MT", "HF3FS", "OBJ", "AZURE_BLOB" };
	const char *text = json_string_value(value);
	int index, err;

	for (size_t i = 0; text && i < sizeof(later) / sizeof(later[0]); i++) {
		if (!strcmp(text, later[i]))
			return kvk_error_set(parsing->error, -EINVAL, path, "\"%s\" is not in this version; use "
					     "\"POSIX\"", text);
	}
	err = kvk_spec_take_word(parsing, path, value, words, &index);
	if (!err)
		parsing->spec->ram = index == 1;
	return err;
}

static int take_file_path(struct parsing *parsing, const char *path, const json_t *value)
{
	const char *text = json_string_value(value);

	if (!text || !*text)
		return kvk_spec_refuse(parsing, path, "must be the path of a directory");
	kvk_mem_free(parsing->spec->path);
	parsing->spec->path = kvk_mem_strdup(text);
	return parsing->spec->path ? 0 : kvk_error_set(parsing->error, -ENOMEM, path, "out of memory");
}

static int take_use_direct_io(struct parsing *parsing, const char *path, const json_t *value)
{
	return kvk_spec_take_bool_text(parsing, path, value, &parsing->spec->direct);
}

static int take_max_capacity(struct parsing *parsing, const char *path, const json_t *value)
{
	double gib;
	int err = kvk_spec_take_number_text(parsing, path, value, 0, 1e9, &gib);

	if (err)
		return err;
	parsing->spec->wish.says_cap = true;
	parsing->spec->wish.values.cap_bytes = (uint64_t)(gib * (double)GIB);
	if (gib > 0 && parsing->spec->wish.values.cap_bytes < 64 * 1024)
		return kvk_spec_refuse(parsing, path, "is less than 64 KiB: that holds no object (0 means no cap)");
	return 0;
}

static int take_shard_dirs(struct parsing *parsing, const char *path, const json_t *value)
{
	parsing->says_shard_dirs = true;
	return kvk_spec_take_bool_text(parsing, path, value, &parsing->shard_dirs);
}

static int take_persist(struct parsing *parsing, const char *path, const json_t *value)
{
	parsing->spec->wish.says_persist = true;
	return kvk_spec_take_bool(parsing, path, value, &parsing->spec->wish.values.persist);
}

static int take_durability(struct parsing *parsing, const char *path, const json_t *value)
{
	static const char *const words[] = { "none", "batch", "object", NULL };
	int index, err = kvk_spec_take_word(parsing, path, value, words, &index);

	if (err)
		return err;
	parsing->spec->wish.says_durability = true;
	parsing->spec->wish.values.durability = (enum kvk_durability)index;
	return 0;
}

static int take_batch_seconds(struct parsing *parsing, const char *path, const json_t *value)
{
	double seconds;
	int err = kvk_spec_take_number(parsing, path, value, 0.1, 3600, &seconds);

	if (!err)
		parsing->spec->batch_us = (uint64_t)(seconds * 1e6);
	return err;
}

static int take_batch_mb(struct parsing *parsing, const char *path, const json_t *value)
{
	double mib;
	int err = kvk_spec_take_number(parsing, path, value, 1, 1e6, &mib);

	if (!err)
		parsing->spec->batch_bytes = (uint64_t)mib * MIB;
	return err;
}

static int take_naming(struct parsing *parsing, const char *path, const json_t *value)
{
	static const char *const words[] = { "kvkeep", "lmcache", NULL };
	int index, err = kvk_spec_take_word(parsing, path, value, words, &index);

	if (err)
		return err;
	parsing->spec->wish.says_naming = true;
	parsing->spec->wish.values.layout.naming = (enum kvk_naming)index;
	return 0;
}

static int take_max_objects(struct parsing *parsing, const char *path, const json_t *value)
{
	parsing->says_max_objects = true;
	return kvk_spec_take_number(parsing, path, value, 1, 1e12, &parsing->max_objects);
}

static int take_namespace(struct parsing *parsing, const char *path, const json_t *value)
{
	struct kvk_spec *spec = parsing->spec;
	char *text, why[160];
	int err;

	if (!json_is_object(value))
		return kvk_spec_refuse(parsing, path, "must be a JSON object");
	text = json_dumps(value, JSON_COMPACT);
	if (!text)
		return kvk_error_set(parsing->error, -ENOMEM, path, "out of memory");
	kvk_mem_free(spec->manifest);
	spec->manifest = NULL;
	err = kvk_manifest_canonical(&spec->manifest, text, why);
	free(text);
	if (!err)
		err = kvk_manifest_digest(spec->namespace_digest, spec->manifest);
	else
		kvk_error_set(parsing->error, err, path, "%s", err == -EINVAL ? why : "out of memory");
	return err;
}

static int take_group(struct parsing *parsing, const char *path, const json_t *value)
{
	parsing->spec->wish.says_group = true;
	return kvk_spec_take_bool(parsing, path, value, &parsing->spec->wish.values.group);
}

static int take_shared(struct parsing *parsing, const char *path, const json_t *value)
{
	return kvk_spec_take_bool(parsing, path, value, &parsing->spec->shared);
}

static int take_keeper(struct parsing *parsing, const char *path, const json_t *value)
{
	return kvk_spec_take_bool(parsing, path, value, &parsing->spec->keeper);
}

static int take_visitor(struct parsing *parsing, const char *path, const json_t *value)
{
	return kvk_spec_take_bool(parsing, path, value, &parsing->spec->wish.visitor);
}

static int take_create(struct parsing *parsing, const char *path, const json_t *value)
{
	return kvk_spec_take_bool(parsing, path, value, &parsing->spec->wish.create);
}

static int take_unverified(struct parsing *parsing, const char *path, const json_t *value)
{
	static const char *const words[] = { "refuse", "accept", NULL };
	int index, err = kvk_spec_take_word(parsing, path, value, words, &index);

	if (!err)
		parsing->spec->accept_unverified = index == 1;
	return err;
}

static int take_io_engine(struct parsing *parsing, const char *path, const json_t *value)
{
	static const char *const words[] = { "auto", "io_uring", "threads", NULL };
	int index, err = kvk_spec_take_word(parsing, path, value, words, &index);

	if (!err)
		parsing->spec->engine = (enum kvk_engine)index;
	return err;
}

static int take_lanes(struct parsing *parsing, const char *path, const json_t *value)
{
	double number;
	int err = kvk_spec_take_number(parsing, path, value, 0, 32, &number);

	if (!err)
		parsing->spec->lanes = (uint32_t)number;
	return err;
}

static int take_memory_mb(struct parsing *parsing, const char *path, const json_t *value)
{
	double mib;
	int err = kvk_spec_take_number(parsing, path, value, 16, 65536, &mib);

	if (!err)
		parsing->spec->memory_bytes = (uint64_t)mib * MIB;
	return err;
}

static int take_depth_mb(struct parsing *parsing, const char *path, const json_t *value)
{
	double mib;
	int err = kvk_spec_take_number(parsing, path, value, 2, 4096, &mib);

	if (!err)
		parsing->spec->depth_bytes = (uint64_t)mib * MIB;
	return err;
}

static int take_deadline_ms(struct parsing *parsing, const char *path, const json_t *value)
{
	double ms;
	int err = kvk_spec_take_number(parsing, path, value, 1, 86400000, &ms);

	if (!err)
		parsing->spec->deadline_us = (uint64_t)(ms * 1000);
	return err;
}

static int take_max_items(struct parsing *parsing, const char *path, const json_t *value)
{
	double number;
	int err = kvk_spec_take_number(parsing, path, value, 1, 16777216, &number);

	if (!err)
		parsing->spec->max_items = (uint32_t)number;
	return err;
}

static int take_fault(struct parsing *parsing, const char *path, const json_t *value)
{
	char *text;

	if (!json_is_array(value))
		return kvk_spec_refuse(parsing, path, "must be an array of rules");
	text = json_dumps(value, JSON_COMPACT);
	if (!text)
		return kvk_error_set(parsing->error, -ENOMEM, path, "out of memory");
	kvk_mem_free(parsing->spec->fault);
	parsing->spec->fault = kvk_mem_strdup(text);
	free(text);
	return parsing->spec->fault ? 0 : kvk_error_set(parsing->error, -ENOMEM, path, "out of memory");
}

static int take_fault_seed(struct parsing *parsing, const char *path, const json_t *value)
{
	double number;
	int err = kvk_spec_take_number(parsing, path, value, 0, 9007199254740992.0, &number);

	if (!err)
		parsing->spec->fault_seed = (uint64_t)number;
	return err;
}

static int take_backend_params(struct parsing *parsing, const char *path, const json_t *value);

static const struct option options[] = {
	{ "type", "type", kvk_spec_take_type },
	{ "pool_size", "pool_size", kvk_spec_take_pool_size },
	{ "slot_size", "slot_size", kvk_spec_take_slot_size },
	{ "file_size", "file_size", kvk_spec_take_file_size },
	{ "backend", "backend", take_backend },
	{ "backend_params", "backend_params", take_backend_params },
	{ "persist_enabled", "persist_enabled", take_persist },
	{ "eviction", "eviction", kvk_spec_take_eviction },
	{ "min_free_gb", "min_free_gb", kvk_spec_take_min_free },
	{ "disk_high_watermark", "disk_high_watermark", kvk_spec_take_disk_watermark },
	{ "durability", "durability", take_durability },
	{ "batch_seconds", "batch_seconds", take_batch_seconds },
	{ "batch_mb", "batch_mb", take_batch_mb },
	{ "naming", "naming", take_naming },
	{ "max_objects", "max_objects", take_max_objects },
	{ "namespace", "namespace", take_namespace },
	{ "group", "group", take_group },
	{ "shared", "shared", take_shared },
	{ "create", "create", take_create },
	{ "keeper", "keeper", take_keeper },
	{ "visitor", "visitor", take_visitor },
	{ "unverified", "unverified", take_unverified },
	{ "io_engine", "io_engine", take_io_engine },
	{ "lanes", "lanes", take_lanes },
	{ "memory_mb", "memory_mb", take_memory_mb },
	{ "depth_mb", "depth_mb", take_depth_mb },
	{ "deadline_ms", "deadline_ms", take_deadline_ms },
	{ "max_items", "max_items", take_max_items },
	{ "fault", "fault", take_fault },
	{ "fault_seed", "fault_seed", take_fault_seed },
	{ NULL, NULL, NULL },
};

static const struct option backend_options[] = {
	{ "backend_params.file_path", "file_path", take_file_path },
	{ "backend_params.use_direct_io", "use_direct_io", take_use_direct_io },
	{ "backend_params.max_capacity_gb", "max_capacity_gb", take_max_capacity },
	{ "backend_params.shard_dirs", "shard_dirs", take_shard_dirs },
	{ "backend_params.device_path", "device_path", kvk_spec_take_device_path },
	{ "backend_params.pool_size", "pool_size", kvk_spec_take_pool_size },
	{ "backend_params.slot_size", "slot_size", kvk_spec_take_slot_size },
	{ "backend_params.file_size", "file_size", kvk_spec_take_file_size },
	{ NULL, NULL, NULL },
};

int kvk_spec_take_object(struct parsing *parsing, const char *path, const json_t *value,
			 const struct option *known)
{
	const struct option *option;
	const char *name;
	json_t *member;
	int err;

	if (!json_is_object(value))
		return kvk_spec_refuse(parsing, path, "must be a JSON object");
	json_object_foreach((json_t *)(uintptr_t)value, name, member) {
		for (option = known; option->name && strcmp(option->name, name); option++)
			;
		if (!option->name) {
			char full[64];

			snprintf(full, sizeof(full), "%s%s%.40s", path, *path ? "." : "", name);
			return kvk_error_set(parsing->error, -EINVAL, full, "is not an option; kvkeep(7) lists them");
		}
		err = option->take(parsing, option->path, member);
		if (err)
			return err;
	}
	return 0;
}

static int take_backend_params(struct parsing *parsing, const char *path, const json_t *value)
{
	return kvk_spec_take_object(parsing, path, value, backend_options);
}

/* ---- the whole ---------------------------------------------------------------------------------- */

static int settle_layout(struct parsing *parsing)
{
	struct kvk_superblock_wish *wish = &parsing->spec->wish;
	bool lmcache = wish->values.layout.naming == KVK_NAMING_LMCACHE;

	if (parsing->says_shard_dirs && parsing->shard_dirs && wish->says_naming && !lmcache)
		return kvk_spec_refuse(parsing, "backend_params.shard_dirs", "belongs to \"naming\": \"lmcache\"; "
				       "kvkeep's own naming always has folders");
	if (lmcache) {
		wish->says_levels = parsing->says_shard_dirs;
		wish->values.layout.levels = parsing->shard_dirs ? 2 : 0;
	} else {
		wish->says_levels = parsing->says_max_objects;
		wish->values.layout.levels = parsing->max_objects > OBJECTS_ONE_LEVEL ? 2 : 1;
	}
	return 0;
}

int kvk_spec_parse(struct kvk_spec *spec, const char *json, struct kvk_error *error)
{
	struct parsing parsing = { .spec = spec, .error = error };
	json_error_t where;
	json_t *root;
	int err;

	*spec = (struct kvk_spec){
		.memory_bytes = 256 * MIB, .depth_bytes = 32 * MIB, .deadline_us = 30000000, .max_items = 65536,
		.trigger_watermark = 0.8, .eviction_ratio = 0.2, .default_quota_bytes = UINT64_MAX, .disk_watermark = 1,
		.batch_us = 5000000, .batch_bytes = 1024 * MIB, .fault_seed = 1,
		.keeper = true,
		.wish = { .create = true, .values = { .persist = true } },
	};
	if (!json)
		return kvk_error_set(error, -EINVAL, NULL, "no specification was given");
	root = json_loads(json, JSON_REJECT_DUPLICATES, &where);
	if (!root)
		return kvk_error_set(error, -EINVAL, NULL, "not valid JSON: %s at line %d, column %d", where.text,
				     where.line, where.column);
	err = kvk_spec_take_object(&parsing, "", root, options);
	json_decref(root);
	if (!err)
		err = settle_layout(&parsing);
	if (!err)
		err = kvk_spec_settle_pool(&parsing);
	if (!err && !spec->ram && !spec->path)
		err = kvk_error_set(error, -EINVAL, "backend_params.file_path", "is missing: the directory to keep "
				    "objects in");
	if (!err && spec->accept_unverified && spec->wish.values.layout.naming != KVK_NAMING_LMCACHE &&
	    spec->wish.says_naming)
		err = kvk_error_set(error, -EINVAL, "unverified", "\"accept\" belongs to \"naming\": \"lmcache\"");
	return err;
}

void kvk_spec_release(struct kvk_spec *spec)
{
	kvk_spec_release_quotas(spec);
	kvk_mem_free(spec->path);
	kvk_mem_free(spec->device);
	kvk_mem_free(spec->manifest);
	kvk_mem_free(spec->fault);
	*spec = (struct kvk_spec){ 0 };
}
