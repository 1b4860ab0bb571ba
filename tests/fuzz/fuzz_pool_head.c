/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Heads of pools of any bytes, as they are and once more with their CRC made right: what is accepted is what the encoder writes.
 */
#include "fuzz.h"

#include <errno.h>

#include "format/bytes.h"
#include "format/format.h"

enum { AT_COMPAT = 16, AT_CRC = 4092 };

static void try_head(const uint8_t page[KVK_PAGE_BYTES])
{
	uint8_t again[KVK_PAGE_BYTES];
	struct kvk_pool_head head;
	int err;

	memset(&head, FUZZ_SPOILT, sizeof(head));
	err = kvk_pool_head_parse(&head, page);
	if (err) {
		FUZZ_ASSERT(err == -EBADMSG || err == -EPROTO || err == -ENODATA);
		FUZZ_ASSERT(fuzz_is_spoilt(&head, sizeof(head)));
		return;
	}
	FUZZ_ASSERT(head.slot_bytes > 0 && head.slot_bytes % KVK_PAGE_BYTES == 0);
	FUZZ_ASSERT(head.slot_bytes <= KVK_POOL_SLOT_BYTES_MAX);
	FUZZ_ASSERT(head.file_slots > 0 && head.file_slots <= KVK_POOL_SLOTS_MAX);
	kvk_pool_head_encode(&head, again);
	FUZZ_ASSERT(kvk_get32(page + AT_COMPAT) != 0 || memcmp(again, page, KVK_PAGE_BYTES) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static uint8_t page[KVK_PAGE_BYTES];

	/* Zeros follow what the input has. */
	memset(page, 0, sizeof(page));
	memcpy(page, data, bytes < sizeof(page) ? bytes : sizeof(page));
	try_head(page);
	kvk_put32(page + AT_CRC, kvk_crc32c(page, AT_CRC, 0));
	try_head(page);
	return 0;
}
