/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys of any bytes: what decodes is the one text of its fields, and no key makes a name that leaves its folder, is
 * hidden, or is too long; what the name alone tells of its object is what the key says. And components and paths of any
 * bytes, as readdir may return them.
 */
#include "fuzz.h"

#include <errno.h>

#include "format/format.h"

static const struct kvk_layout layouts[] = {
	{ KVK_NAMING_KVKEEP, 1 }, { KVK_NAMING_KVKEEP, 2 }, { KVK_NAMING_LMCACHE, 0 }, { KVK_NAMING_LMCACHE, 2 },
};

static void try_beside(const char *name, size_t folder_bytes, const struct kvk_layout *layout,
		       const uint8_t digest[KVK_DIGEST_BYTES])
{
	static const uint64_t sequences[] = { 0, 1, 10, UINT64_MAX };
	char beside[KVK_NAME_BYTES_MAX];

	for (unsigned i = 0; i < 4; i++) {
		FUZZ_ASSERT(kvk_name_make_gone(beside, name, digest, sequences[i]) == 0);
		FUZZ_ASSERT(memcmp(beside, name, folder_bytes) == 0 && strlen(beside + folder_bytes) <= 255);
		FUZZ_ASSERT(kvk_name_kind(beside + folder_bytes, layout, NULL) == KVK_NAME_GONE);
		FUZZ_ASSERT(kvk_name_make_temp(beside, name, UINT64_MAX - sequences[i], sequences[i]) == 0);
		FUZZ_ASSERT(memcmp(beside, name, folder_bytes) == 0 && strlen(beside + folder_bytes) <= 255);
		FUZZ_ASSERT(kvk_name_kind(beside + folder_bytes, layout, NULL) == KVK_NAME_TEMP);
		FUZZ_ASSERT(!kvk_name_is_aside(beside + folder_bytes));
		FUZZ_ASSERT(kvk_name_make_aside(beside, name, UINT64_MAX - sequences[i], sequences[i]) == 0);
		FUZZ_ASSERT(memcmp(beside, name, folder_bytes) == 0 && strlen(beside + folder_bytes) <= 255);
		FUZZ_ASSERT(kvk_name_kind(beside + folder_bytes, layout, NULL) == KVK_NAME_TEMP);
		FUZZ_ASSERT(kvk_name_is_aside(beside + folder_bytes));
	}
}

static void try_name(const char *name, const struct kvk_layout *layout, const uint8_t digest[KVK_DIGEST_BYTES])
{
	const char *slash = strrchr(name, '/');
	const char *component = slash ? slash + 1 : name;
	size_t folder_bytes = (size_t)(component - name);
	uint8_t first = 0;

	FUZZ_ASSERT(component[0] != '.' && component[0] != '\0' && strlen(component) <= 255);
	FUZZ_ASSERT(folder_bytes == (size_t)layout->levels * 3);
	for (size_t i = 0; i < folder_bytes; i++)
		FUZZ_ASSERT(i % 3 == 2 ? name[i] == '/' : name[i] != '.' && name[i] != '/');
	FUZZ_ASSERT(kvk_name_kind(component, layout, NULL) == KVK_NAME_OBJECT);
	FUZZ_ASSERT(layout->levels == 0 || kvk_unhex(&first, name, 1) == 0);
	FUZZ_ASSERT(kvk_name_bucket(layout, name) == first);
	try_beside(name, folder_bytes, layout, digest);
}

/* What the name of a key in text form says of its model and its salt. */
static void try_owner(const char *name, const struct kvk_key_fields *fields)
{
	const char *model = fields->model.data;
	struct kvk_key owner, salt;
	const char *at;

	FUZZ_ASSERT(kvk_name_owner(name, &owner, &salt));
	at = owner.data;
	for (uint32_t i = 0; i < fields->model.bytes; i++) {
		if (model[i] == '/')
			FUZZ_ASSERT(*at++ == '-');
		FUZZ_ASSERT(*at++ == (model[i] == '/' ? '-' : model[i]));
	}
	FUZZ_ASSERT(at == (const char *)owner.data + owner.bytes);
	FUZZ_ASSERT(salt.bytes == fields->salt.bytes);
	FUZZ_ASSERT(salt.bytes == 0 || memcmp(salt.data, fields->salt.data, salt.bytes) == 0);
}

static void try_lmcache(const char *name, const struct kvk_layout *layout, const struct kvk_key *key,
			const struct kvk_key_fields *fields)
{
	uint8_t id[KVK_DIGEST_BYTES], of_key[KVK_DIGEST_BYTES], digest[KVK_DIGEST_BYTES] = { 0 };
	struct kvk_key model, salt;
	char old[KVK_NAME_BYTES_MAX];

	FUZZ_ASSERT(kvk_name_id(id, layout, name) == 0);
	FUZZ_ASSERT(kvk_key_id(of_key, layout, digest, key->data, key->bytes) == 0);
	FUZZ_ASSERT(memcmp(id, of_key, sizeof(id)) == 0);
	FUZZ_ASSERT(layout->levels == 0 || memcmp(id, fields->hash.data, layout->levels) == 0);
	try_owner(name, fields);
	if (kvk_name_make_old(old, layout, key->data, key->bytes))
		return;
	FUZZ_ASSERT(fields->group == 0 && fields->salt.bytes == 0);
	try_name(old, layout, digest);
	FUZZ_ASSERT(kvk_name_owner(old, &model, &salt) && salt.bytes == 0);
	/* A model that ends as names go on, `m_00000000`, makes an older name that reads as another key's newer one. */
	if (model.bytes != strlen(model.data) - strlen("_00000000_.bin") - 2 * fields->hash.bytes)
		return;
	FUZZ_ASSERT(kvk_name_id(id, layout, old) == 0);
	FUZZ_ASSERT(memcmp(id, of_key, sizeof(id)) == 0);
}

static void try_key(const struct kvk_key *key)
{
	struct kvk_key_fields fields = { .struct_bytes = sizeof(fields) }, before;
	uint8_t hash[KVK_KEY_BYTES_MAX / 2], digest[KVK_DIGEST_BYTES];
	char text[KVK_KEY_BYTES_MAX], name[KVK_NAME_BYTES_MAX];
	int err;

	memset((char *)&fields + sizeof(fields.struct_bytes), FUZZ_SPOILT, sizeof(fields) - sizeof(fields.struct_bytes));
	before = fields;
	err = kvk_key_decode(&fields, key, hash, sizeof(hash));
	if (err) {
		FUZZ_ASSERT(err == -EINVAL && memcmp(&fields, &before, sizeof(before)) == 0);
	} else {
		FUZZ_ASSERT(kvk_key_encode(&fields, text, sizeof(text)) == (int)key->bytes);
		FUZZ_ASSERT(memcmp(text, key->data, key->bytes) == 0);
	}
	for (uint32_t i = 0; i < sizeof(digest); i++)
		digest[i] = (uint8_t)(key->bytes * 31 + i * 7);
	for (unsigned i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++) {
		int made;

		memset(name, FUZZ_SPOILT, sizeof(name));
		made = kvk_name_make(name, &layouts[i], digest, key->data, key->bytes);
		FUZZ_ASSERT(made == 0 || fuzz_is_spoilt(name, sizeof(name)));
		FUZZ_ASSERT(made == 0 || made == -EINVAL || made == -ENAMETOOLONG);
		FUZZ_ASSERT(made == 0 || layouts[i].naming == KVK_NAMING_LMCACHE);
		if (made)
			continue;
		try_name(name, &layouts[i], digest);
		if (layouts[i].naming == KVK_NAMING_LMCACHE) {
			FUZZ_ASSERT(!err);
			try_lmcache(name, &layouts[i], key, &fields);
		}
	}
}

/* Whatever lies in a folder: an id and an owner only for what is an object there. */
static void try_path(const char *path, const struct kvk_layout *layout)
{
	const char *slash = strrchr(path, '/');
	const char *component = slash ? slash + 1 : path;
	uint8_t digest[KVK_DIGEST_BYTES], id[KVK_DIGEST_BYTES];
	enum kvk_name_kind kind;
	int err;

	memset(digest, FUZZ_SPOILT, sizeof(digest));
	memset(id, FUZZ_SPOILT, sizeof(id));
	kind = kvk_name_kind(component, layout, digest);
	FUZZ_ASSERT(fuzz_is_spoilt(digest, sizeof(digest)) ||
		    (kind == KVK_NAME_OBJECT && layout->naming == KVK_NAMING_KVKEEP));
	FUZZ_ASSERT(kind != KVK_NAME_FOLDER || layout->levels > 0);
	FUZZ_ASSERT(kvk_name_bucket(layout, path) <= KVK_BUCKET_QUARANTINE);
	err = kvk_name_id(id, layout, path);
	FUZZ_ASSERT(err ? err == -EINVAL && fuzz_is_spoilt(id, sizeof(id)) : kind == KVK_NAME_OBJECT);
	if (!err && layout->levels > 0)
		FUZZ_ASSERT(kvk_name_bucket(layout, path) == id[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct kvk_key key = { data, (uint32_t)bytes };
	char *text;

	if (bytes > 2 * KVK_KEY_BYTES_MAX)
		return 0;
	try_key(&key);
	text = fuzz_text(data, bytes);
	for (unsigned i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++)
		try_path(text, &layouts[i]);
	free(text);
	return 0;
}
