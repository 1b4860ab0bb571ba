/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Superblocks of any bytes, as they are and once more with their CRC made right: what is accepted is what the encoder writes,
 * and describes a store that can be.
 */
#include "fuzz.h"

#include <errno.h>

#include "format/bytes.h"
#include "format/format.h"

enum { AT_COMPAT = 16, AT_CRC = 4092 };

static void try_superblock(const uint8_t *data, size_t bytes)
{
	uint8_t again[KVK_SUPERBLOCK_BYTES];
	struct kvk_superblock superblock;
	const struct kvk_pool_shape *pool = &superblock.pool;
	int err;

	memset(&superblock, FUZZ_SPOILT, sizeof(superblock));
	err = kvk_superblock_parse(&superblock, data, bytes);
	if (err) {
		FUZZ_ASSERT(err == -EBADMSG || err == -EPROTO);
		FUZZ_ASSERT(fuzz_is_spoilt(&superblock, sizeof(superblock)));
		return;
	}
	FUZZ_ASSERT(superblock.layout.naming == KVK_NAMING_KVKEEP || superblock.layout.naming == KVK_NAMING_LMCACHE);
	FUZZ_ASSERT(superblock.layout.levels <= 2);
	FUZZ_ASSERT(superblock.durability <= KVK_DURABILITY_OBJECT);
	if (pool->slot_bytes) {
		FUZZ_ASSERT(pool->slot_bytes % KVK_PAGE_BYTES == 0 && pool->slot_bytes <= KVK_POOL_SLOT_BYTES_MAX);
		FUZZ_ASSERT(pool->slots >= 1 && pool->slots <= KVK_POOL_SLOTS_MAX);
		FUZZ_ASSERT(pool->file_slots >= 1 && pool->file_slots <= KVK_POOL_SLOTS_MAX);
		FUZZ_ASSERT(superblock.layout.naming == KVK_NAMING_KVKEEP);
	}
	kvk_superblock_encode(&superblock, again);
	FUZZ_ASSERT(kvk_get32(data + AT_COMPAT) != 0 || memcmp(again, data, bytes) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static uint8_t page[KVK_SUPERBLOCK_BYTES];

	try_superblock(data, bytes);
	/* Zeros follow what the input has. */
	memset(page, 0, sizeof(page));
	memcpy(page, data, bytes < sizeof(page) ? bytes : sizeof(page));
	kvk_put32(page + AT_CRC, kvk_crc32c(page, AT_CRC, 0));
	try_superblock(page, sizeof(page));
	return 0;
}
