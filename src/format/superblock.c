/* SPDX-License-Identifier: Apache-2.0 */
#include "format/format.h"

#include <errno.h>

#include "format/bytes.h"

enum {
	AT_MAGIC = 0,
	AT_VERSION = 8,
	AT_INCOMPAT = 12,
	AT_COMPAT = 16,
	AT_ZERO_1 = 20,
	AT_STORE_ID = 24,
	AT_CREATED = 40,
	AT_NAMING = 48,
	AT_LEVELS = 52,
	AT_CAP = 56,
	AT_DURABILITY = 64,
	AT_SETTINGS = 68,
	AT_SLOT_BYTES = 72,
	AT_SLOTS = 80,
	AT_FILE_SLOTS = 88,
	AT_OPENS = 96,
	AT_RESERVED = 104,
	AT_CRC = KVK_SUPERBLOCK_BYTES - 4,

	SETTING_PERSIST = 1,
	SETTING_GROUP = 2,

	INCOMPAT_POOL = 1,
};

static const uint8_t magic[8] = { 'k', 'v', 'k', 's', 'u', 'p', 'r', 0x1a };

void kvk_superblock_encode(const struct kvk_superblock *superblock, uint8_t data[KVK_SUPERBLOCK_BYTES])
{
	uint32_t settings = (superblock->persist ? SETTING_PERSIST : 0) | (superblock->group ? SETTING_GROUP : 0);

	memset(data, 0, KVK_SUPERBLOCK_BYTES);
	memcpy(data + AT_MAGIC, magic, sizeof(magic));
	kvk_put32(data + AT_VERSION, KVK_FORMAT_VERSION);
	memcpy(data + AT_STORE_ID, superblock->store_id, sizeof(superblock->store_id));
	kvk_put64(data + AT_CREATED, superblock->created_ns);
	kvk_put32(data + AT_NAMING, superblock->layout.naming);
	kvk_put32(data + AT_LEVELS, superblock->layout.levels);
	kvk_put64(data + AT_CAP, superblock->cap_bytes);
	kvk_put32(data + AT_DURABILITY, superblock->durability);
	kvk_put32(data + AT_SETTINGS, settings);
	if (superblock->pool.slot_bytes) {
		/* Who knows no pools would put files beside it. */
		kvk_put32(data + AT_INCOMPAT, INCOMPAT_POOL);
		kvk_put64(data + AT_SLOT_BYTES, superblock->pool.slot_bytes);
		kvk_put64(data + AT_SLOTS, superblock->pool.slots);
		kvk_put64(data + AT_FILE_SLOTS, superblock->pool.file_slots);
		kvk_put64(data + AT_OPENS, superblock->pool.opens);
	}
	kvk_put32(data + AT_CRC, kvk_crc32c(data, AT_CRC, 0));
}

static bool layout_exists(uint32_t naming, uint32_t levels)
{
	if (naming == KVK_NAMING_KVKEEP)
		return levels == 1 || levels == 2;
	return naming == KVK_NAMING_LMCACHE && (levels == 0 || levels == 2);
}

static bool shape_exists(const struct kvk_pool_shape *pool)
{
	return pool->slot_bytes > 0 && pool->slot_bytes % KVK_PAGE_BYTES == 0 &&
	       pool->slot_bytes <= KVK_POOL_SLOT_BYTES_MAX && pool->slots > 0 && pool->slots <= KVK_POOL_SLOTS_MAX &&
	       pool->file_slots > 0 && pool->file_slots <= KVK_POOL_SLOTS_MAX;
}

int kvk_superblock_parse(struct kvk_superblock *ret, const void *data, size_t bytes)
{
	const uint8_t *from = data;
	uint32_t version, naming, levels, durability, settings, reserved;
	struct kvk_pool_shape pool = { 0 };
	bool is_pool;

	if (bytes != KVK_SUPERBLOCK_BYTES || memcmp(from + AT_MAGIC, magic, sizeof(magic)) != 0 ||
	    kvk_get32(from + AT_CRC) != kvk_crc32c(from, AT_CRC, 0))
		return -EBADMSG;
	version = kvk_get32(from + AT_VERSION);
	if (version == 0)
		return -EBADMSG;
	if (version > KVK_FORMAT_VERSION || (kvk_get32(from + AT_INCOMPAT) & ~(uint32_t)INCOMPAT_POOL) != 0)
		return -EPROTO;

	naming = kvk_get32(from + AT_NAMING);
	levels = kvk_get32(from + AT_LEVELS);
	durability = kvk_get32(from + AT_DURABILITY);
	settings = kvk_get32(from + AT_SETTINGS);
	if (!layout_exists(naming, levels) || durability > KVK_DURABILITY_OBJECT ||
	    (settings & ~(uint32_t)(SETTING_PERSIST | SETTING_GROUP)) != 0 || kvk_get32(from + AT_ZERO_1) != 0)
		return -EBADMSG;
	is_pool = kvk_get32(from + AT_INCOMPAT) & INCOMPAT_POOL;
	if (is_pool) {
		pool = (struct kvk_pool_shape){
			.slot_bytes = kvk_get64(from + AT_SLOT_BYTES), .slots = kvk_get64(from + AT_SLOTS),
			.file_slots = kvk_get64(from + AT_FILE_SLOTS), .opens = kvk_get64(from + AT_OPENS),
		};
		if (!shape_exists(&pool) || naming != KVK_NAMING_KVKEEP)
			return -EBADMSG;
	}
	/* A later writer may use the reserved bytes, and says so with a flag that may be ignored. */
	reserved = is_pool ? AT_RESERVED : AT_SLOT_BYTES;
	if (kvk_get32(from + AT_COMPAT) == 0 && !kvk_all_zero(from + reserved, AT_CRC - reserved))
		return -EBADMSG;

	*ret = (struct kvk_superblock){
		.created_ns = kvk_get64(from + AT_CREATED),
		.layout = { .naming = (enum kvk_naming)naming, .levels = levels },
		.cap_bytes = kvk_get64(from + AT_CAP),
		.durability = (enum kvk_durability)durability,
		.persist = settings & SETTING_PERSIST,
		.group = settings & SETTING_GROUP,
		.pool = pool,
	};
	memcpy(ret->store_id, from + AT_STORE_ID, sizeof(ret->store_id));
	return 0;
}
