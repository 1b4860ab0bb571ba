/* SPDX-License-Identifier: Apache-2.0 */
/* What a name alone tells of its object. */
#include "format/format.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum {
	COMPONENT_BYTES_MAX = 255,
	RANK_DIGITS = 8,
	GROUP_DIGITS_MAX = 8,
};

static const char end[] = ".bin";

/* `{model}_{rank:08x}_[{group:x}_]{hash}[@{salt}].bin`, cut from its end: a model may contain anything but '@'. */
struct parts {
	struct kvk_key model, rank, group, hash, salt;     /* group, salt: 0 bytes if there is none */
};

static const char *last_component(const char *name)
{
	const char *slash = strrchr(name, '/');

	return slash ? slash + 1 : name;
}

static bool is_hex(const struct kvk_key *part)
{
	const char *text = part->data;

	for (uint32_t i = 0; i < part->bytes; i++) {
		if (!((text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f')))
			return false;
	}
	return part->bytes > 0;
}

/* Cuts the part behind the last '_' off. */
static bool cut_last(struct kvk_key *rest, struct kvk_key *part)
{
	const char *text = rest->data;
	const char *at = memrchr(text, '_', rest->bytes);

	if (!at)
		return false;
	*part = (struct kvk_key){ at + 1, rest->bytes - (uint32_t)(at + 1 - text) };
	rest->bytes = (uint32_t)(at - text);
	return true;
}

static bool is_group(const struct kvk_key *part)
{
	return is_hex(part) && part->bytes <= GROUP_DIGITS_MAX &&
	       (part->bytes == 1 || *(const char *)part->data != '0');
}

static bool is_rank(const struct kvk_key *part)
{
	return is_hex(part) && part->bytes == RANK_DIGITS;
}

static bool split(struct parts *parts, const char *component)
{
	size_t bytes = strlen(component);
	struct kvk_key rest, before, third;
	const char *at;

	if (bytes <= strlen(end) || strcmp(component + bytes - strlen(end), end) != 0)
		return false;
	bytes -= strlen(end);
	*parts = (struct parts){ .salt = { NULL, 0 } };
	at = memchr(component, '@', bytes);
	if (at)
		parts->salt = (struct kvk_key){ at + 1, (uint32_t)(component + bytes - at - 1) };
	rest = (struct kvk_key){ component, (uint32_t)(at ? (size_t)(at - component) : bytes) };
	if ((at && parts->salt.bytes == 0) || !cut_last(&rest, &parts->hash) || !is_hex(&parts->hash) ||
	    parts->hash.bytes % 2 || !cut_last(&rest, &third))
		return false;
	before = rest;
	if (is_group(&third) && cut_last(&before, &parts->rank) && is_rank(&parts->rank)) {
		parts->group = third;
		parts->model = before;
	} else {
		parts->rank = third;
		parts->model = rest;
	}
	return is_rank(&parts->rank) && parts->model.bytes > 0;
}

bool kvk_name_owner(const char *name, struct kvk_key *model, struct kvk_key *salt)
{
	struct parts parts;

	if (!split(&parts, last_component(name)))
		return false;
	*model = parts.model;
	*salt = parts.salt;
	return true;
}

/* The bytes of the folders, two hex digits each, that begin a path. */
static int folders_of(uint8_t *bytes, const char *name, uint32_t levels)
{
	for (uint32_t i = 0; i < levels; i++) {
		if (kvk_unhex(&bytes[i], name, 1) || name[2] != '/')
			return -EINVAL;
		name += 3;
	}
	return strchr(name, '/') ? -EINVAL : 0;
}

static int lmcache_id(uint8_t id[KVK_DIGEST_BYTES], uint32_t levels, const char *name)
{
	const char *component = last_component(name);
	char newer[COMPONENT_BYTES_MAX + 3];
	uint8_t folders[2], digest[KVK_DIGEST_BYTES];
	struct parts parts;
	int err = folders_of(folders, name, levels);

	if (err)
		return err;
	if (strlen(component) > COMPONENT_BYTES_MAX)
		return -EINVAL;
	if (!split(&parts, component) ||       /* LCOV_EXCL_BR_LINE: the callers looked, or made the name; parts must be set */
	    parts.hash.bytes / 2 < levels)
		return -EINVAL;
	for (uint32_t i = 0; i < levels; i++) {
		if (memcmp(name + 3 * i, (const char *)parts.hash.data + 2 * i, 2) != 0)
			return -EINVAL;
	}
	if (parts.group.bytes == 0 && parts.salt.bytes == 0) {
		int before = (int)((const char *)parts.hash.data - component);

		snprintf(newer, sizeof(newer), "%.*s0_%s", before, component, component + before);
		component = newer;
	}
	err = kvk_name_digest(digest, component);
	if (err)
		return err;
	memcpy(digest, folders, levels);
	memcpy(id, digest, KVK_DIGEST_BYTES);
	return 0;
}

int kvk_name_id(uint8_t id[KVK_DIGEST_BYTES], const struct kvk_layout *layout, const char *name)
{
	uint8_t digest[KVK_DIGEST_BYTES], folders[2];

	if (kvk_name_kind(last_component(name), layout, digest) != KVK_NAME_OBJECT)
		return -EINVAL;
	if (layout->naming == KVK_NAMING_LMCACHE)
		return lmcache_id(id, layout->levels, name);
	if (folders_of(folders, name, layout->levels) || memcmp(folders, digest, layout->levels) != 0)
		return -EINVAL;
	memcpy(id, digest, KVK_DIGEST_BYTES);
	return 0;
}

int kvk_key_id(uint8_t id[KVK_DIGEST_BYTES], const struct kvk_layout *layout, const uint8_t digest[KVK_DIGEST_BYTES],
	       const void *key, uint32_t key_bytes)
{
	char name[KVK_NAME_BYTES_MAX];
	int err;

	if (layout->naming != KVK_NAMING_LMCACHE) {
		memcpy(id, digest, KVK_DIGEST_BYTES);
		return 0;
	}
	err = kvk_name_make(name, layout, digest, key, key_bytes);
	return err ? err : lmcache_id(id, layout->levels, name);
}
