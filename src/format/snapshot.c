/* SPDX-License-Identifier: Apache-2.0 */
#include "format/format.h"

#include <errno.h>
#include <string.h>

#include "format/bytes.h"

enum {
	AT_MAGIC = 0,
	AT_VERSION = 8,
	AT_INCOMPAT = 12,
	AT_ZERO_1 = 16,
	AT_STORE_ID = 24,
	AT_EPOCH = 40,
	AT_OBJECT_COUNT = 48,
	AT_MADE = 56,
	AT_NAMES_BYTES = 64,
	AT_ZERO_2 = 68,
	AT_HEAD_CRC = 92,

	OBJECT_PREFIX = 0,
	OBJECT_PARENT = 16,
	OBJECT_LOGICAL = 32,
	OBJECT_USED_AT = 40,
	OBJECT_CHARGE = 48,                /* in pages */
	OBJECT_TENANT = 52,
	OBJECT_MODEL = 56,
	OBJECT_FLAGS = 60,

	FLAG_DURABLE = 1,
	NAME_HEAD_BYTES = 2,
};

_Static_assert(AT_HEAD_CRC + 4 == KVK_SNAPSHOT_HEAD_BYTES, "the CRC ends the head");
_Static_assert(OBJECT_FLAGS + 4 == KVK_SNAPSHOT_OBJECT_BYTES, "an object is one cache line");

static const uint8_t magic[8] = { 'k', 'v', 'k', 's', 'n', 'a', 'p', 0x1a };

uint64_t kvk_snapshot_bytes(const struct kvk_snapshot_head *head)
{
	uint64_t rest = KVK_SNAPSHOT_HEAD_BYTES + (uint64_t)head->names_bytes + KVK_SNAPSHOT_END_BYTES;

	if (rest > KVK_SNAPSHOT_BYTES_MAX || head->names_bytes % 8 ||
	    head->object_count > (KVK_SNAPSHOT_BYTES_MAX - rest) / KVK_SNAPSHOT_OBJECT_BYTES)
		return 0;
	return rest + head->object_count * KVK_SNAPSHOT_OBJECT_BYTES;
}

/* Objects and names; the head has a sum of its own. */
static uint32_t body_crc(const uint8_t *data, uint64_t bytes)
{
	return kvk_crc32c(data + KVK_SNAPSHOT_HEAD_BYTES, bytes - KVK_SNAPSHOT_HEAD_BYTES - KVK_SNAPSHOT_END_BYTES, 0);
}

/* ---- writing ------------------------------------------------------------------------------------ */

void kvk_snapshot_put_object(uint8_t at[KVK_SNAPSHOT_OBJECT_BYTES], const struct kvk_snapshot_object *object)
{
	memcpy(at + OBJECT_PREFIX, object->prefix, sizeof(object->prefix));
	memcpy(at + OBJECT_PARENT, object->parent_prefix, sizeof(object->parent_prefix));
	kvk_put64(at + OBJECT_LOGICAL, object->logical_bytes);
	kvk_put64(at + OBJECT_USED_AT, object->used_at_ns);
	kvk_put32(at + OBJECT_CHARGE, (uint32_t)(object->charge_bytes / KVK_PAGE_BYTES));
	kvk_put32(at + OBJECT_TENANT, object->tenant);
	kvk_put32(at + OBJECT_MODEL, object->model);
	kvk_put32(at + OBJECT_FLAGS, object->durable ? FLAG_DURABLE : 0);
}

uint32_t kvk_snapshot_put_name(uint8_t *names, uint32_t names_bytes, uint32_t *used, const void *name, uint32_t bytes)
{
	uint32_t told = *used + 1;

	if (bytes > UINT16_MAX || names_bytes - *used < NAME_HEAD_BYTES + bytes)
		return 0;
	names[*used] = (uint8_t)bytes;
	names[*used + 1] = (uint8_t)(bytes >> 8);
	memcpy(names + *used + NAME_HEAD_BYTES, name, bytes);
	*used += NAME_HEAD_BYTES + bytes;
	return told;
}

void kvk_snapshot_seal(uint8_t *data, const struct kvk_snapshot_head *head)
{
	uint64_t bytes = kvk_snapshot_bytes(head);

	memset(data, 0, KVK_SNAPSHOT_HEAD_BYTES);
	memcpy(data + AT_MAGIC, magic, sizeof(magic));
	kvk_put32(data + AT_VERSION, KVK_FORMAT_VERSION);
	memcpy(data + AT_STORE_ID, head->store_id, sizeof(head->store_id));
	kvk_put64(data + AT_EPOCH, head->epoch);
	kvk_put64(data + AT_OBJECT_COUNT, head->object_count);
	kvk_put64(data + AT_MADE, head->made_ns);
	kvk_put32(data + AT_NAMES_BYTES, head->names_bytes);
	kvk_put32(data + AT_HEAD_CRC, kvk_crc32c(data, AT_HEAD_CRC, 0));
	kvk_put32(data + bytes - 8, body_crc(data, bytes));
	kvk_put32(data + bytes - 4, 0);
}

/* ---- reading ------------------------------------------------------------------------------------ */

/* Whether all their flags are. */
static bool objects_are_known(const uint8_t *data, uint64_t count)
{
	uint32_t flags = 0;

	for (uint64_t i = 0; i < count; i++)
		flags |= kvk_get32(data + kvk_snapshot_at(i) + OBJECT_FLAGS);
	return (flags & ~(uint32_t)FLAG_DURABLE) == 0;
}

int kvk_snapshot_parse(struct kvk_snapshot_head *ret, const void *data, uint64_t bytes)
{
	const uint8_t *at = data;
	struct kvk_snapshot_head head;

	if (bytes < KVK_SNAPSHOT_HEAD_BYTES + KVK_SNAPSHOT_END_BYTES || memcmp(at, magic, sizeof(magic)) != 0 ||
	    kvk_get32(at + AT_HEAD_CRC) != kvk_crc32c(at, AT_HEAD_CRC, 0))
		return -EBADMSG;
	if (kvk_get32(at + AT_VERSION) != KVK_FORMAT_VERSION || kvk_get32(at + AT_INCOMPAT) != 0)
		return -EPROTO;
	memcpy(head.store_id, at + AT_STORE_ID, sizeof(head.store_id));
	head.epoch = kvk_get64(at + AT_EPOCH);
	head.object_count = kvk_get64(at + AT_OBJECT_COUNT);
	head.made_ns = kvk_get64(at + AT_MADE);
	head.names_bytes = kvk_get32(at + AT_NAMES_BYTES);
	if (kvk_snapshot_bytes(&head) != bytes || kvk_get32(at + bytes - 8) != body_crc(at, bytes) ||
	    kvk_get32(at + bytes - 4) != 0)
		return -EBADMSG;
	if (!kvk_all_zero(at + AT_ZERO_1, AT_STORE_ID - AT_ZERO_1) ||
	    !kvk_all_zero(at + AT_ZERO_2, AT_HEAD_CRC - AT_ZERO_2) || !objects_are_known(at, head.object_count))
		return -EBADMSG;
	*ret = head;
	return 0;
}

void kvk_snapshot_get_object(struct kvk_snapshot_object *ret, const uint8_t at[KVK_SNAPSHOT_OBJECT_BYTES])
{
	memcpy(ret->prefix, at + OBJECT_PREFIX, sizeof(ret->prefix));
	memcpy(ret->parent_prefix, at + OBJECT_PARENT, sizeof(ret->parent_prefix));
	ret->logical_bytes = kvk_get64(at + OBJECT_LOGICAL);
	ret->used_at_ns = kvk_get64(at + OBJECT_USED_AT);
	ret->charge_bytes = (uint64_t)kvk_get32(at + OBJECT_CHARGE) * KVK_PAGE_BYTES;
	ret->tenant = kvk_get32(at + OBJECT_TENANT);
	ret->model = kvk_get32(at + OBJECT_MODEL);
	ret->durable = kvk_get32(at + OBJECT_FLAGS) & FLAG_DURABLE;
}

struct kvk_key kvk_snapshot_get_name(const uint8_t *names, uint32_t names_bytes, uint32_t told)
{
	const struct kvk_key none = { NULL, 0 };
	uint32_t at = told - 1, bytes;

	if (told == 0 || names_bytes < NAME_HEAD_BYTES || at > names_bytes - NAME_HEAD_BYTES)
		return none;
	bytes = names[at] | (uint32_t)names[at + 1] << 8;
	if (bytes > names_bytes - NAME_HEAD_BYTES - at)
		return none;
	return (struct kvk_key){ names + at + NAME_HEAD_BYTES, bytes };
}
