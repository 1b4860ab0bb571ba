/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots of any bytes, as they are and once more with lengths and sums made right: what is accepted is what the writer
 * writes, and every name that is told lies within the names.
 */
#include "fuzz.h"

#include <errno.h>

#include "format/bytes.h"
#include "format/format.h"

enum { AT_OBJECT_COUNT = 48, AT_NAMES_BYTES = 64, AT_HEAD_CRC = 92, TOLD_MAX = 70000 };

static void try_name(const uint8_t *names, uint32_t names_bytes, uint32_t told)
{
	struct kvk_key name = kvk_snapshot_get_name(names, names_bytes, told);
	const uint8_t *at = name.data;

	if (!at) {
		FUZZ_ASSERT(name.bytes == 0);
		return;
	}
	FUZZ_ASSERT(told > 0 && at == names + told + 1);
	FUZZ_ASSERT(at + name.bytes <= names + names_bytes);
}

static void try_snapshot(const uint8_t *data, size_t bytes)
{
	struct kvk_snapshot_head head;
	const uint8_t *names;
	uint8_t *again;
	int err;

	memset(&head, FUZZ_SPOILT, sizeof(head));
	err = kvk_snapshot_parse(&head, data, bytes);
	if (err) {
		FUZZ_ASSERT(err == -EBADMSG || err == -EPROTO);
		FUZZ_ASSERT(fuzz_is_spoilt(&head, sizeof(head)));
		return;
	}
	FUZZ_ASSERT(kvk_snapshot_bytes(&head) == bytes);
	names = data + kvk_snapshot_at(head.object_count);
	FUZZ_ASSERT(names + head.names_bytes + KVK_SNAPSHOT_END_BYTES == data + bytes);
	again = malloc(bytes);
	if (!again)
		abort();
	memcpy(again, data, bytes);
	for (uint64_t i = 0; i < head.object_count; i++) {
		struct kvk_snapshot_object object;

		kvk_snapshot_get_object(&object, data + kvk_snapshot_at(i));
		FUZZ_ASSERT(object.charge_bytes % KVK_PAGE_BYTES == 0);
		try_name(names, head.names_bytes, object.tenant);
		try_name(names, head.names_bytes, object.model);
		kvk_snapshot_put_object(again + kvk_snapshot_at(i), &object);
	}
	kvk_snapshot_seal(again, &head);
	FUZZ_ASSERT(memcmp(again, data, bytes) == 0);
	for (uint32_t told = 0; told < head.names_bytes + 4; told++)
		try_name(names, head.names_bytes, told);
	try_name(names, head.names_bytes, UINT32_MAX);
	free(again);
}

/* Names that are put are got again. */
static void try_names(const uint8_t *data, size_t bytes)
{
	static uint8_t names[TOLD_MAX];
	struct fuzz_rest rest = { data, bytes };
	uint32_t room = (uint32_t)fuzz_take(&rest, 2) % TOLD_MAX, used = 0;

	while (rest.bytes > 0) {
		uint32_t count = (uint32_t)fuzz_take(&rest, 1), before = used, told;
		struct kvk_key is;

		count = count < rest.bytes ? count : (uint32_t)rest.bytes;
		told = kvk_snapshot_put_name(names, room, &used, rest.at, count);
		FUZZ_ASSERT(used <= room);
		if (told) {
			is = kvk_snapshot_get_name(names, used, told);
			FUZZ_ASSERT(is.bytes == count && memcmp(is.data, rest.at, count) == 0);
		} else {
			FUZZ_ASSERT(used == before && room - used < count + 2);
		}
		rest.at += count;
		rest.bytes -= count;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	const uint64_t least = KVK_SNAPSHOT_HEAD_BYTES + KVK_SNAPSHOT_END_BYTES;
	uint64_t rest, objects;
	uint8_t *sealed;

	try_snapshot(data, bytes);
	try_names(data, bytes);
	if (bytes < least)
		return 0;
	/* As many objects as it says, if there is room for them, and names for the rest. */
	sealed = (uint8_t *)fuzz_text(data, bytes);
	rest = (bytes - least) & ~UINT64_C(7);
	objects = kvk_get64(sealed + AT_OBJECT_COUNT) % (rest / KVK_SNAPSHOT_OBJECT_BYTES + 1);
	kvk_put64(sealed + AT_OBJECT_COUNT, objects);
	kvk_put32(sealed + AT_NAMES_BYTES, (uint32_t)(rest - objects * KVK_SNAPSHOT_OBJECT_BYTES));
	kvk_put32(sealed + AT_HEAD_CRC, kvk_crc32c(sealed, AT_HEAD_CRC, 0));
	kvk_put32(sealed + least + rest - 8, kvk_crc32c(sealed + KVK_SNAPSHOT_HEAD_BYTES, rest, 0));
	kvk_put32(sealed + least + rest - 4, 0);
	try_snapshot(sealed, least + rest);
	free(sealed);
	return 0;
}
