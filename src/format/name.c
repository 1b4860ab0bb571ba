/* SPDX-License-Identifier: Apache-2.0 */
#include "format/format.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
	DIGEST_DIGITS = 2 * KVK_DIGEST_BYTES,
	COMPONENT_BYTES_MAX = 255,         /* NAME_MAX of every file system we know */
	WRITER_DIGITS = 16,
	SEQUENCE_DIGITS_MAX = 20,          /* of a uint64_t, decimal */
};

static const char object_end[] = ".kv";
static const char lmcache_end[] = ".bin";
static const char gone_end[] = ".gone";
static const char temp_start[] = ".tmp-";
static const char aside_end[] = ".aside";

_Static_assert(KVK_NAME_BYTES_MAX > sizeof("ab/cd/") + COMPONENT_BYTES_MAX, "folders and the longest component");
_Static_assert(DIGEST_DIGITS + 1 + SEQUENCE_DIGITS_MAX + sizeof(gone_end) <= COMPONENT_BYTES_MAX, "a component");

void kvk_hex(char *text, const void *data, size_t bytes)
{
	const uint8_t *from = data;

	for (size_t i = 0; i < bytes; i++) {
		text[2 * i] = "0123456789abcdef"[from[i] >> 4];
		text[2 * i + 1] = "0123456789abcdef"[from[i] & 15];
	}
	text[2 * bytes] = '\0';
}

/* What a digit is worth, and one; 0: it is none. A table, since whether a digit is a letter cannot be foretold: a wrong guess at
 * every third of 64 digits was most of what a scan had to do with a name. */
static const uint8_t values[256] = {
	['0'] = 1, ['1'] = 2, ['2'] = 3, ['3'] = 4, ['4'] = 5, ['5'] = 6, ['6'] = 7, ['7'] = 8,
	['8'] = 9, ['9'] = 10, ['a'] = 11, ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16,
};

static bool is_hex(char c)
{
	return values[(uint8_t)c] != 0;
}

static uint8_t nibble(char c)
{
	return (uint8_t)(values[(uint8_t)c] - 1);
}

int kvk_unhex(void *data, const char *text, size_t bytes)
{
	uint8_t *to = data;

	for (size_t i = 0; i < 2 * bytes; i++) {
		if (!is_hex(text[i]))
			return -EINVAL;
	}
	for (size_t i = 0; i < bytes; i++)
		to[i] = (uint8_t)(nibble(text[2 * i]) << 4 | nibble(text[2 * i + 1]));
	return 0;
}

/* ---- kvkeep's own names ------------------------------------------------------------------------- */

static void name_of_digest(char name[KVK_NAME_BYTES_MAX], uint32_t levels, const uint8_t digest[KVK_DIGEST_BYTES])
{
	char hex[DIGEST_DIGITS + 1];

	kvk_hex(hex, digest, KVK_DIGEST_BYTES);
	if (levels == 2)
		snprintf(name, KVK_NAME_BYTES_MAX, "%.2s/%.2s/%s%s", hex, hex + 2, hex, object_end);
	else
		snprintf(name, KVK_NAME_BYTES_MAX, "%.2s/%s%s", hex, hex, object_end);
}

/* ---- LMCache's names ---------------------------------------------------------------------------- */

/* A component under way. It is cut at the end of its room, and the true length tells. */
struct component {
	char text[COMPONENT_BYTES_MAX + 1];
	size_t bytes;
};

static void add(struct component *component, const void *data, size_t bytes)
{
	if (component->bytes < COMPONENT_BYTES_MAX) {
		size_t left = COMPONENT_BYTES_MAX - component->bytes;

		memcpy(component->text + component->bytes, data, bytes < left ? bytes : left);
	}
	component->bytes += bytes;
}

static void add_hex(struct component *component, const uint8_t *data, size_t bytes)
{
	char hex[3];

	for (size_t i = 0; i < bytes; i++) {
		kvk_hex(hex, data + i, 1);
		add(component, hex, 2);
	}
}

/* A key's text could climb out of its folder, hide a file, or name another one than the kernel sees. */
static bool fit_for_a_name(const struct kvk_key_fields *fields)
{
	const char *model = fields->model.data;

	if (model[0] == '.' || memchr(model, '\0', fields->model.bytes))
		return false;
	return fields->salt.bytes == 0 || (!memchr(fields->salt.data, '/', fields->salt.bytes) &&
					   !memchr(fields->salt.data, '\0', fields->salt.bytes));
}

static int name_of_fields(char name[KVK_NAME_BYTES_MAX], uint32_t levels, const struct kvk_key_fields *fields,
			  bool with_group)
{
	struct component component = { .bytes = 0 };
	const char *model = fields->model.data;
	const uint8_t *hash = fields->hash.data;
	char number[16];
	char *at = name;

	if (!fit_for_a_name(fields) || (levels == 2 && fields->hash.bytes < 2))
		return -EINVAL;
	for (uint32_t i = 0; i < fields->model.bytes; i++)
		add(&component, model[i] == '/' ? "--" : &model[i], model[i] == '/' ? 2 : 1);
	add(&component, number, (size_t)snprintf(number, sizeof(number), "_%08" PRIx32 "_", fields->rank));
	if (with_group)
		add(&component, number, (size_t)snprintf(number, sizeof(number), "%" PRIx32 "_", fields->group));
	add_hex(&component, hash, fields->hash.bytes);
	if (fields->salt.bytes) {
		add(&component, "@", 1);
		add(&component, fields->salt.data, fields->salt.bytes);
	}
	add(&component, lmcache_end, strlen(lmcache_end));
	if (component.bytes > COMPONENT_BYTES_MAX)
		return -ENAMETOOLONG;

	for (uint32_t i = 0; i < levels; i++) {
		kvk_hex(at, hash + i, 1);
		at[2] = '/';
		at += 3;
	}
	memcpy(at, component.text, component.bytes);
	at[component.bytes] = '\0';
	return 0;
}

int kvk_name_make(char name[KVK_NAME_BYTES_MAX], const struct kvk_layout *layout,
		  const uint8_t digest[KVK_DIGEST_BYTES], const void *key, uint32_t key_bytes)
{
	struct kvk_key_fields fields = { .struct_bytes = sizeof(fields) };
	uint8_t hash[KVK_KEY_BYTES_MAX / 2];
	int err;

	if (layout->naming == KVK_NAMING_KVKEEP) {
		name_of_digest(name, layout->levels, digest);
		return 0;
	}
	err = kvk_key_decode(&fields, &(struct kvk_key){ key, key_bytes }, hash, sizeof(hash));
	return err ? err : name_of_fields(name, layout->levels, &fields, true);
}

int kvk_name_make_old(char name[KVK_NAME_BYTES_MAX], const struct kvk_layout *layout, const void *key,
		      uint32_t key_bytes)
{
	struct kvk_key_fields fields = { .struct_bytes = sizeof(fields) };
	uint8_t hash[KVK_KEY_BYTES_MAX / 2];
	int err;

	if (layout->naming != KVK_NAMING_LMCACHE)
		return -EINVAL;
	err = kvk_key_decode(&fields, &(struct kvk_key){ key, key_bytes }, hash, sizeof(hash));
	if (err)
		return err;
	if (fields.group != 0 || fields.salt.bytes != 0)
		return -EINVAL;
	return name_of_fields(name, layout->levels, &fields, false);
}

/* ---- what a component is ------------------------------------------------------------------------ */

/* The end of a run of 1 to 20 digits at text, or NULL. */
static const char *after_sequence(const char *text)
{
	size_t digits = strspn(text, "0123456789");

	return digits >= 1 && digits <= SEQUENCE_DIGITS_MAX ? text + digits : NULL;
}

bool kvk_name_temp_writer(const char *component, uint64_t *writer_id_ret)
{
	const char *at = component + strlen(temp_start);
	uint8_t writer[WRITER_DIGITS / 2];
	uint64_t id = 0;

	if (strncmp(component, temp_start, strlen(temp_start)) != 0 || kvk_unhex(writer, at, sizeof(writer)) != 0 ||
	    at[WRITER_DIGITS] != '-')
		return false;
	at = after_sequence(at + WRITER_DIGITS + 1);
	if (!at || (*at != '\0' && strcmp(at, aside_end) != 0))
		return false;
	for (size_t i = 0; i < sizeof(writer); i++)
		id = id << 8 | writer[i];
	*writer_id_ret = id;
	return true;
}

bool kvk_name_is_aside(const char *component)
{
	const char *last = strrchr(component, '.');
	uint64_t writer_id;

	return kvk_name_temp_writer(component, &writer_id) && strcmp(last, aside_end) == 0;
}

enum kvk_name_kind kvk_name_kind(const char *component, const struct kvk_layout *layout,
				 uint8_t digest[KVK_DIGEST_BYTES])
{
	uint8_t found[KVK_DIGEST_BYTES];
	struct kvk_key model, salt;
	size_t bytes = strlen(component);
	uint64_t writer_id;

	if (kvk_name_temp_writer(component, &writer_id))
		return KVK_NAME_TEMP;
	if (kvk_unhex(found, component, sizeof(found)) == 0) {
		const char *end = component + DIGEST_DIGITS, *after;

		/* First, since most names of a store are of this kind. */
		if (layout->naming == KVK_NAMING_KVKEEP && strcmp(end, object_end) == 0) {
			if (digest)
				memcpy(digest, found, sizeof(found));
			return KVK_NAME_OBJECT;
		}
		after = *end == '.' ? after_sequence(end + 1) : NULL;
		if (after && strcmp(after, gone_end) == 0)
			return KVK_NAME_GONE;
	}
	if (layout->levels > 0 && bytes == 2 && is_hex(component[0]) && is_hex(component[1]))
		return KVK_NAME_FOLDER;
	if (layout->naming == KVK_NAMING_LMCACHE && component[0] != '.' && kvk_name_owner(component, &model, &salt))
		return KVK_NAME_OBJECT;
	return KVK_NAME_OTHER;
}

uint32_t kvk_name_bucket(const struct kvk_layout *layout, const char *name)
{
	static const char quarantine[] = ".kvkeep/quarantine/";
	uint8_t bucket;

	if (strncmp(name, quarantine, strlen(quarantine)) == 0)
		return KVK_BUCKET_QUARANTINE;
	if (layout->levels == 0 || kvk_unhex(&bucket, name, 1) != 0 || name[2] != '/')
		return 0;
	return bucket;
}

/* ---- names next to an object -------------------------------------------------------------------- */

/* Bytes of name up to and with its last slash. */
static size_t folder_bytes(const char *name)
{
	const char *slash = strrchr(name, '/');

	return slash ? (size_t)(slash - name) + 1 : 0;
}

static int join(char path[KVK_NAME_BYTES_MAX], const char *name, const char *component)
{
	size_t folder = folder_bytes(name);
	size_t bytes = strlen(component) + 1;

	if (folder + bytes > KVK_NAME_BYTES_MAX)
		return -ENAMETOOLONG;
	memmove(path, name, folder);
	memcpy(path + folder, component, bytes);
	return 0;
}

int kvk_name_make_gone(char gone[KVK_NAME_BYTES_MAX], const char *name, const uint8_t digest[KVK_DIGEST_BYTES],
		       uint64_t sequence)
{
	char component[COMPONENT_BYTES_MAX + 1];

	kvk_hex(component, digest, KVK_DIGEST_BYTES);
	snprintf(component + DIGEST_DIGITS, sizeof(component) - DIGEST_DIGITS, ".%" PRIu64 "%s", sequence, gone_end);
	return join(gone, name, component);
}

static int make_temp(char temp[KVK_NAME_BYTES_MAX], const char *name, uint64_t writer_id, uint64_t sequence, const char *end)
{
	char component[COMPONENT_BYTES_MAX + 1];

	snprintf(component, sizeof(component), "%s%016" PRIx64 "-%" PRIu64 "%s", temp_start, writer_id, sequence, end);
	return join(temp, name, component);
}

int kvk_name_make_temp(char temp[KVK_NAME_BYTES_MAX], const char *name, uint64_t writer_id, uint64_t sequence)
{
	return make_temp(temp, name, writer_id, sequence, "");
}

int kvk_name_make_aside(char aside[KVK_NAME_BYTES_MAX], const char *name, uint64_t writer_id, uint64_t sequence)
{
	return make_temp(aside, name, writer_id, sequence, aside_end);
}
