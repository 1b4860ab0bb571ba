/* SPDX-License-Identifier: Apache-2.0 */
/* `.kvkeep/namespaces/<digest>.json`: each manifest once, so that a digest in a footer can be read by people. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "adapter/adapter.h"
#include "util/alloc.h"
#include "util/error.h"

#define FOLDER "namespaces"
#define NAME_BYTES (sizeof(FOLDER) + 1 + 2 * KVK_DIGEST_BYTES + sizeof(".json"))

static void manifest_name(char name[NAME_BYTES], const uint8_t digest[KVK_DIGEST_BYTES])
{
	char hex[2 * KVK_DIGEST_BYTES + 1];

	kvk_hex(hex, digest, KVK_DIGEST_BYTES);
	snprintf(name, NAME_BYTES, FOLDER "/%s.json", hex);
}

int kvk_namespace_load(struct kvk_backend *backend, const uint8_t digest[KVK_DIGEST_BYTES], char **ret)
{
	uint8_t actual[KVK_DIGEST_BYTES];
	char name[NAME_BYTES];
	uint64_t bytes;
	void *data;
	char *text;
	int err;

	manifest_name(name, digest);
	err = backend->ops->load_file(backend, name, &data, &bytes, KVK_MANIFEST_BYTES_MAX);
	if (err)
		return err;
	text = kvk_mem_realloc(data, bytes + 1);
	if (!text) {
		kvk_mem_free(data);
		return -ENOMEM;
	}
	text[bytes] = 0;
	err = kvk_manifest_digest(actual, text);
	if (!err && memcmp(actual, digest, KVK_DIGEST_BYTES))
		err = -EBADMSG;
	if (err) {
		kvk_mem_free(text);
		return err;
	}
	*ret = text;
	return 0;
}

int kvk_namespace_keep(struct kvk_backend *backend, const uint8_t digest[KVK_DIGEST_BYTES],
		       const char *canonical, struct kvk_error *error)
{
	char name[NAME_BYTES], *text;
	int err;

	err = kvk_namespace_load(backend, digest, &text);
	if (!err) {
		bool same = !strcmp(text, canonical);

		kvk_mem_free(text);
		return same ? 0 : kvk_error_set(error, -EINVAL, "namespace", "another manifest with the same "
						"digest is kept here");
	}
	/* A damaged one is written anew: its text follows from what the opener gave. */
	manifest_name(name, digest);
	err = backend->ops->save_file(backend, name, canonical, strlen(canonical), err == -ENOENT);
	if (err == -EEXIST)
		err = 0;       /* another process kept the same text in the same moment */
	if (err)
		return kvk_error_set(error, err, "namespace", "cannot keep the manifest: %s", strerror(-err));
	return 0;
}

int kvk_namespace_list(struct kvk_backend *backend, uint8_t *digests, uint32_t count)
{
	struct kvk_names names = { 0 };
	int found = 0;
	int err = backend->ops->list(backend, ".kvkeep/" FOLDER, &names);

	for (uint32_t i = 0; i < names.count && !err; i++) {
		uint8_t digest[KVK_DIGEST_BYTES];

		if (strlen(names.names[i]) != 2 * KVK_DIGEST_BYTES + strlen(".json") ||
		    strcmp(names.names[i] + 2 * KVK_DIGEST_BYTES, ".json") ||
		    kvk_unhex(digest, names.names[i], KVK_DIGEST_BYTES))
			continue;
		if ((uint32_t)found < count)
			memcpy(digests + (uint32_t)found * KVK_DIGEST_BYTES, digest, KVK_DIGEST_BYTES);
		found++;
	}
	kvk_names_release(&names);
	return err == -ENOENT ? 0 : err ? err : found;
}
