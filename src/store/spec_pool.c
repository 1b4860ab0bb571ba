/* SPDX-License-Identifier: Apache-2.0 */
/* The options of a pool: "type": "nixl_store". */
#include <errno.h>
#include <string.h>

#include "store/spec_private.h"
#include "util/alloc.h"
#include "util/error.h"

#define SLOT_BYTES_DEFAULT MIB
#define FILE_BYTES_DEFAULT (8 * GIB)

int kvk_spec_take_type(struct parsing *parsing, const char *path, const json_t *value)
{
	static const char *const words[] = { "nixl_store_dynamic", "nixl_store", NULL };
	int index, err = kvk_spec_take_word(parsing, path, value, words, &index);

	if (err)
		return err;
	parsing->spec->wish.says_type = true;
	parsing->is_pool = index == 1;
	return 0;
}

/* These three may stand in two places: which of two values counted would hang on the order in which they are written. */
static int take_once(struct parsing *parsing, const char *path, bool said, uint64_t before, uint64_t now)
{
	if (said && before != now)
		return kvk_spec_refuse(parsing, path, "is said twice, at the top and in backend_params, with different values");
	return 0;
}

int kvk_spec_take_pool_size(struct parsing *parsing, const char *path, const json_t *value)
{
	struct kvk_superblock_wish *wish = &parsing->spec->wish;
	double slots;
	int err = kvk_spec_take_number_text(parsing, path, value, 1, (double)(KVK_POOL_SLOTS_MAX - 1), &slots);

	if (!err)
		err = take_once(parsing, path, wish->says_slots, wish->values.pool.slots, (uint64_t)slots);
	if (err)
		return err;
	wish->says_slots = true;
	wish->values.pool.slots = (uint64_t)slots;
	return 0;
}

int kvk_spec_take_slot_size(struct parsing *parsing, const char *path, const json_t *value)
{
	struct kvk_superblock_wish *wish = &parsing->spec->wish;
	double bytes;
	int err = kvk_spec_take_number_text(parsing, path, value, KVK_PAGE_BYTES, (double)KVK_POOL_SLOT_BYTES_MAX, &bytes);

	if (err)
		return err;
	if ((uint64_t)bytes % KVK_PAGE_BYTES)
		return kvk_spec_refuse(parsing, path, "must be a multiple of 4096 (bytes)");
	err = take_once(parsing, path, wish->says_slot_bytes, wish->values.pool.slot_bytes, (uint64_t)bytes);
	if (err)
		return err;
	wish->says_slot_bytes = true;
	wish->values.pool.slot_bytes = (uint64_t)bytes;
	return 0;
}

int kvk_spec_take_file_size(struct parsing *parsing, const char *path, const json_t *value)
{
	double bytes;
	int err = kvk_spec_take_number_text(parsing, path, value, KVK_PAGE_BYTES, (double)(UINT64_C(1) << 50), &bytes);

	if (!err)
		err = take_once(parsing, path, parsing->says_file_size, (uint64_t)parsing->file_bytes, (uint64_t)bytes);
	if (err)
		return err;
	parsing->says_file_size = true;
	parsing->file_bytes = bytes;
	return 0;
}

int kvk_spec_take_device_path(struct parsing *parsing, const char *path, const json_t *value)
{
	const char *text = json_string_value(value);

	if (!text || *text != '/')
		return kvk_spec_refuse(parsing, path, "must be the path of a block device, from the root on");
	kvk_mem_free(parsing->spec->device);
	parsing->spec->device = kvk_mem_strdup(text);
	return parsing->spec->device ? 0 : kvk_error_set(parsing->error, -ENOMEM, path, "out of memory");
}

/* What was said that belongs to pools alone. */
static const char *said_of_pools(const struct parsing *parsing)
{
	const struct kvk_superblock_wish *wish = &parsing->spec->wish;

	return wish->says_slots ? "pool_size" : wish->says_slot_bytes ? "slot_size" :
	       parsing->says_file_size ? "file_size" : parsing->spec->device ? "backend_params.device_path" : NULL;
}

int kvk_spec_settle_pool(struct parsing *parsing)
{
	struct kvk_superblock_wish *wish = &parsing->spec->wish;
	struct kvk_pool_shape *shape = &wish->values.pool;
	const char *said = said_of_pools(parsing);

	if (!parsing->is_pool)
		return said ? kvk_spec_refuse(parsing, said, "belongs to \"type\": \"nixl_store\"") : 0;
	if (wish->says_cap)
		return kvk_spec_refuse(parsing, "backend_params.max_capacity_gb", "the cap of a pool is its size: say pool_size");
	if (wish->values.layout.naming != KVK_NAMING_KVKEEP)
		return kvk_spec_refuse(parsing, "naming", "\"lmcache\" belongs to \"type\": \"nixl_store_dynamic\"");
	if (parsing->spec->device && parsing->spec->ram)
		return kvk_spec_refuse(parsing, "backend_params.device_path", "belongs to \"backend\": \"POSIX\"");
	if (!wish->says_slot_bytes)
		shape->slot_bytes = SLOT_BYTES_DEFAULT;
	if (parsing->spec->device && parsing->says_file_size)
		return kvk_spec_refuse(parsing, "file_size", "belongs to a pool of files, not to one on a device");
	if (parsing->spec->device) {
		shape->file_slots = KVK_POOL_SLOTS_MAX;
		return 0;
	}
	shape->file_slots = (parsing->says_file_size ? (uint64_t)parsing->file_bytes : FILE_BYTES_DEFAULT) / shape->slot_bytes;
	if (shape->file_slots == 0)
		return kvk_spec_refuse(parsing, "file_size", "is less than slot_size");
	if (shape->file_slots >= KVK_POOL_SLOTS_MAX)
		shape->file_slots = KVK_POOL_SLOTS_MAX - 1;
	wish->says_file_slots = parsing->says_file_size;
	return 0;
}
