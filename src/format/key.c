/* SPDX-License-Identifier: Apache-2.0 */
#include <kvkeep/key.h>

#include <errno.h>
#include <string.h>

#include "format/format.h"

enum { RANK_DIGITS = 8, GROUP_DIGITS_MAX = 8 };

/* How many hex digits a group takes: at least one. */
static uint32_t group_digits(uint32_t group)
{
	uint32_t digits = 1;

	while (group >>= 4)
		digits++;
	return digits;
}

static char *put_digits(char *at, uint32_t value, uint32_t digits)
{
	for (uint32_t i = digits; i-- > 0; value >>= 4)
		at[i] = "0123456789abcdef"[value & 15];
	return at + digits;
}

static char *put_bytes(char *at, const void *data, uint32_t bytes)
{
	memcpy(at, data, bytes);
	return at + bytes;
}

int kvk_key_encode(const struct kvk_key_fields *fields, void *text, uint32_t text_bytes)
{
	uint32_t digits;
	uint64_t bytes;
	char *at = text;

	if (fields->struct_bytes != sizeof(*fields) || fields->model.bytes == 0 || fields->hash.bytes == 0 ||
	    memchr(fields->model.data, '@', fields->model.bytes))
		return -EINVAL;
	digits = group_digits(fields->group);
	bytes = (uint64_t)fields->model.bytes + 1 + RANK_DIGITS + 1 + digits + 1 + 2 * (uint64_t)fields->hash.bytes;
	if (fields->salt.bytes)
		bytes += 1 + (uint64_t)fields->salt.bytes;
	if (bytes > KVK_KEY_BYTES_MAX)
		return -EMSGSIZE;
	if (bytes > text_bytes)
		return -ENOSPC;

	at = put_bytes(at, fields->model.data, fields->model.bytes);
	*at++ = '@';
	at = put_digits(at, fields->rank, RANK_DIGITS);
	*at++ = '@';
	at = put_digits(at, fields->group, digits);
	*at++ = '@';
	for (uint32_t i = 0; i < fields->hash.bytes; i++)
		at = put_digits(at, ((const uint8_t *)fields->hash.data)[i], 2);
	if (fields->salt.bytes) {
		*at++ = '@';
		put_bytes(at, fields->salt.data, fields->salt.bytes);
	}
	return (int)bytes;
}

/* What is left of a text, cut from its front. */
struct rest {
	const char *at;
	uint32_t bytes;
};

/* Cuts the part before the first '@' off, and the '@'; the whole rest if there is none. */
static struct kvk_key cut(struct rest *rest, bool *found_ret)
{
	const char *end = memchr(rest->at, '@', rest->bytes);
	struct kvk_key part = { rest->at, end ? (uint32_t)(end - rest->at) : rest->bytes };

	*found_ret = end;
	rest->at += part.bytes + (end ? 1 : 0);
	rest->bytes -= part.bytes + (end ? 1 : 0);
	return part;
}

/* -1: no lower-case hex digit. */
static int digit_value(char digit)
{
	if (digit >= '0' && digit <= '9')
		return digit - '0';
	if (digit >= 'a' && digit <= 'f')
		return digit - 'a' + 10;
	return -1;
}

/* 1 to 8 digits. */
static bool get_digits(const struct kvk_key *part, uint32_t *value)
{
	uint32_t sum = 0;

	for (uint32_t i = 0; i < part->bytes; i++) {
		int digit = digit_value(((const char *)part->data)[i]);

		if (digit < 0)
			return false;
		sum = sum << 4 | (uint32_t)digit;
	}
	*value = sum;
	return true;
}

int kvk_key_decode(struct kvk_key_fields *fields, const struct kvk_key *key, void *hash_buffer,
		   uint32_t hash_buffer_bytes)
{
	struct rest rest = { key->data, key->bytes };
	struct kvk_key model, rank, group, hash;
	uint32_t rank_value, group_value;
	bool found, salted;

	if (fields->struct_bytes != sizeof(*fields) || key->bytes == 0 || key->bytes > KVK_KEY_BYTES_MAX)
		return -EINVAL;
	model = cut(&rest, &found);
	if (!found || model.bytes == 0)
		return -EINVAL;
	rank = cut(&rest, &found);
	if (!found || rank.bytes != RANK_DIGITS || !get_digits(&rank, &rank_value))
		return -EINVAL;
	group = cut(&rest, &found);
	if (!found || group.bytes == 0 || group.bytes > GROUP_DIGITS_MAX || !get_digits(&group, &group_value) ||
	    group.bytes != group_digits(group_value))
		return -EINVAL;
	hash = cut(&rest, &salted);
	if (hash.bytes == 0 || hash.bytes % 2 != 0 || (salted && rest.bytes == 0))
		return -EINVAL;
	for (uint32_t i = 0; i < hash.bytes; i++) {
		if (digit_value(((const char *)hash.data)[i]) < 0)
			return -EINVAL;
	}
	if (hash.bytes / 2 > hash_buffer_bytes)
		return -ENOSPC;

	kvk_unhex(hash_buffer, hash.data, hash.bytes / 2);
	fields->rank = rank_value;
	fields->group = group_value;
	fields->model = model;
	fields->hash = (struct kvk_key){ hash_buffer, hash.bytes / 2 };
	fields->salt = salted ? (struct kvk_key){ rest.at, rest.bytes } : (struct kvk_key){ NULL, 0 };
	return 0;
}
