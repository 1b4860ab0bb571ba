/* SPDX-License-Identifier: Apache-2.0 */
#include "format/format.h"

#include <errno.h>

#include "format/bytes.h"

enum {
	AT_MAGIC = 0,
	AT_VERSION = 8,
	AT_INCOMPAT = 12,
	AT_COMPAT = 16,
	AT_FILE_INDEX = 20,
	AT_POOL_ID = 24,
	AT_CREATED = 40,
	AT_SLOT_BYTES = 48,
	AT_FILE_SLOTS = 56,
	AT_SETTINGS = 64,
	AT_ZERO = 68,
	AT_CRC = KVK_PAGE_BYTES - 4,

	SETTING_DEVICE = 1,
};

static const uint8_t magic[8] = { 'k', 'v', 'k', 'p', 'o', 'o', 'l', 0x1a };

void kvk_pool_head_encode(const struct kvk_pool_head *head, uint8_t page[KVK_PAGE_BYTES])
{
	memset(page, 0, KVK_PAGE_BYTES);
	memcpy(page + AT_MAGIC, magic, sizeof(magic));
	kvk_put32(page + AT_VERSION, KVK_FORMAT_VERSION);
	kvk_put32(page + AT_FILE_INDEX, head->file_index);
	memcpy(page + AT_POOL_ID, head->pool_id, sizeof(head->pool_id));
	kvk_put64(page + AT_CREATED, head->created_ns);
	kvk_put64(page + AT_SLOT_BYTES, head->slot_bytes);
	kvk_put64(page + AT_FILE_SLOTS, head->file_slots);
	kvk_put32(page + AT_SETTINGS, head->device ? SETTING_DEVICE : 0);
	kvk_put32(page + AT_CRC, kvk_crc32c(page, AT_CRC, 0));
}

int kvk_pool_head_parse(struct kvk_pool_head *ret, const uint8_t page[KVK_PAGE_BYTES])
{
	uint32_t version, settings;
	struct kvk_pool_head head;

	if (kvk_all_zero(page, KVK_PAGE_BYTES))
		return -ENODATA;
	if (memcmp(page + AT_MAGIC, magic, sizeof(magic)) || kvk_get32(page + AT_CRC) != kvk_crc32c(page, AT_CRC, 0))
		return -EBADMSG;
	version = kvk_get32(page + AT_VERSION);
	if (version == 0)
		return -EBADMSG;
	if (version > KVK_FORMAT_VERSION || kvk_get32(page + AT_INCOMPAT) != 0)
		return -EPROTO;
	settings = kvk_get32(page + AT_SETTINGS);
	head = (struct kvk_pool_head){
		.created_ns = kvk_get64(page + AT_CREATED),
		.slot_bytes = kvk_get64(page + AT_SLOT_BYTES),
		.file_slots = kvk_get64(page + AT_FILE_SLOTS),
		.file_index = kvk_get32(page + AT_FILE_INDEX),
		.device = settings & SETTING_DEVICE,
	};
	if (head.slot_bytes == 0 || head.slot_bytes % KVK_PAGE_BYTES || head.slot_bytes > KVK_POOL_SLOT_BYTES_MAX ||
	    head.file_slots == 0 || head.file_slots > KVK_POOL_SLOTS_MAX || (settings & ~(uint32_t)SETTING_DEVICE) ||
	    (kvk_get32(page + AT_COMPAT) == 0 && !kvk_all_zero(page + AT_ZERO, AT_CRC - AT_ZERO)))
		return -EBADMSG;
	memcpy(head.pool_id, page + AT_POOL_ID, sizeof(head.pool_id));
	*ret = head;
	return 0;
}

uint64_t kvk_pool_writer(const uint8_t pool_id[16], uint64_t first_slot)
{
	return (kvk_get64(pool_id) ^ kvk_get64(pool_id + 8)) + first_slot;
}
