/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "diff.h"
#include "text.h"

#define DIGEST_BYTES 32
/* Fewer digits name a manifest by accident too easily. */
#define PREFIX_DIGITS_MIN 4

struct digests {
	uint8_t *data;
	uint32_t count;
};

static int load_digests(struct digests *ret, struct kvk_store *store)
{
	int count = kvk_store_namespaces(store, NULL, 0), written;
	uint8_t *data;

	if (count < 0)
		return kvk_cli_fail("namespaces: %s", strerror(-count));
	data = calloc((size_t)count + 1, DIGEST_BYTES);
	if (!data)
		return kvk_cli_fail("not enough memory");
	written = kvk_store_namespaces(store, data, (uint32_t)count);
	if (written < 0) {
		free(data);
		return kvk_cli_fail("namespaces: %s", strerror(-written));
	}
	*ret = (struct digests){ .data = data, .count = (uint32_t)(written < count ? written : count) };
	return 0;
}

/* A digest by all its digits, or by the first ones if that leaves no doubt. */
static int find_digest(const uint8_t **ret, const struct digests *digests, const char *argument)
{
	size_t digits = strlen(argument);
	const uint8_t *found = NULL;
	char hex[2 * DIGEST_BYTES + 1];

	if (digits < PREFIX_DIGITS_MIN || digits > 2 * DIGEST_BYTES ||
	    strspn(argument, "0123456789abcdef") != digits) {
		fprintf(stderr, "kvkeep: '%s' is not %d or more digits of a digest\n", argument, PREFIX_DIGITS_MIN);
		return KVK_EXIT_USAGE;
	}
	for (uint32_t i = 0; i < digests->count; i++) {
		const uint8_t *digest = digests->data + (size_t)i * DIGEST_BYTES;

		if (strncmp(kvk_cli_hex(hex, digest, DIGEST_BYTES), argument, digits))
			continue;
		if (found)
			return kvk_cli_fail("more than one namespace begins with %s", argument);
		found = digest;
	}
	if (!found)
		return kvk_cli_fail("there is no namespace %s here", argument);
	*ret = found;
	return 0;
}

/* A manifest by its digest, or from a file with @. */
static int load_manifest(json_t **ret, struct kvk_store *store, const struct digests *digests,
			 const char *argument)
{
	const uint8_t *digest = NULL;
	json_error_t error;
	char *text = NULL;
	int err, status;

	if (argument && *argument == '@') {
		*ret = json_load_file(argument + 1, JSON_REJECT_DUPLICATES, &error);
		return *ret ? 0 : kvk_cli_fail("%s: %s", argument + 1, error.text);
	}
	if (argument) {
		status = find_digest(&digest, digests, argument);
		if (status)
			return status;
	}
	err = kvk_store_namespace(store, digest, &text);
	if (err == -ENOENT && !argument)
		return kvk_cli_fail("this store was opened without a namespace; give a DIGEST");
	if (err)
		return kvk_cli_fail("the manifest cannot be read: %s", strerror(-err));
	*ret = json_loads(text, 0, &error);
	kvk_free(text);
	return *ret ? 0 : kvk_cli_fail("the manifest is not JSON: %s", error.text);
}

static int list(struct kvk_store *store, const struct digests *digests, bool json)
{
	json_t *all = json_array();
	char hex[2 * DIGEST_BYTES + 1];

	for (uint32_t i = 0; i < digests->count; i++) {
		json_t *manifest = NULL;
		char *text;
		int status;

		kvk_cli_hex(hex, digests->data + (size_t)i * DIGEST_BYTES, DIGEST_BYTES);
		status = load_manifest(&manifest, store, digests, hex);
		if (status) {
			json_decref(all);
			return status;
		}
		if (json) {
			json_array_append_new(all, json_pack("{s:s, s:o}", "digest", hex, "manifest", manifest));
			continue;
		}
		text = json_dumps(manifest, JSON_COMPACT);
		printf("%s  %s\n", hex, text ? text : "");
		free(text);
		json_decref(manifest);
	}
	if (json)
		return kvk_cli_print_json(all);
	json_decref(all);
	if (digests->count == 0)
		puts("no namespaces");
	return KVK_EXIT_DONE;
}

static int diff(struct kvk_store *store, const struct digests *digests, char **arguments, bool json)
{
	json_t *a = NULL, *b = NULL, *differences = NULL, *one;
	int status = load_manifest(&a, store, digests, arguments[0]);
	size_t i;

	if (!status)
		status = load_manifest(&b, store, digests, arguments[1]);
	if (status)
		goto out;
	differences = kvk_json_diff(a, b);
	if (!differences) {
		status = kvk_cli_fail("not enough memory");
		goto out;
	}
	if (json) {
		status = kvk_cli_print_json(json_incref(differences));
		goto out;
	}
	json_array_foreach(differences, i, one) {
		const json_t *from = json_object_get(one, "a"), *to = json_object_get(one, "b");
		char *from_text = from ? json_dumps(from, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
		char *to_text = to ? json_dumps(to, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;

		printf("%s: %s -> %s\n", json_string_value(json_object_get(one, "path")),
		       from_text ? from_text : "(absent)", to_text ? to_text : "(absent)");
		free(from_text);
		free(to_text);
	}
	if (json_array_size(differences) == 0)
		puts("the same");
out:
	json_decref(differences);
	json_decref(a);
	json_decref(b);
	return status;
}

static int dispatch(const struct kvk_cli_verb *verb, struct kvk_store *store, int count, char **words, bool json)
{
	struct digests digests = { .data = NULL };
	json_t *manifest = NULL;
	int status = load_digests(&digests, store);

	if (status)
		return status;
	if (count == 0) {
		status = list(store, &digests, json);
	} else if (!strcmp(words[0], "show") && count <= 2) {
		status = load_manifest(&manifest, store, &digests, words[1]);
		if (!status)
			status = kvk_cli_print_json(manifest);
	} else if (!strcmp(words[0], "diff") && count == 3) {
		status = diff(store, &digests, words + 1, json);
	} else {
		status = kvk_cli_usage(verb, "after STORE comes nothing, show [DIGEST], or diff A B");
	}
	free(digests.data);
	return status;
}

static int run(const struct kvk_cli_verb *verb, int argc, char **argv)
{
	static const struct kvk_cli_option options[] = { { .name = NULL } };
	struct kvk_store *store = NULL;
	struct kvk_cli_line line;
	int status = kvk_cli_read_line(&line, verb, argc, argv, options, 1, 4, "wants STORE, and after it nothing, "
				       "show [DIGEST], or diff A B");

	if (!status)
		status = kvk_cli_open(&store, line.words[0], &(struct kvk_cli_overlay){ .use = KVK_USE_LOOK });
	if (!status)
		status = dispatch(verb, store, line.count - 1, line.words + 1, line.json);
	kvk_store_close(store);
	return status;
}

const struct kvk_cli_verb kvk_cli_namespace = {
	.name = "namespace",
	.arguments = "STORE [show [DIGEST] | diff A B] [--json]",
	.summary = "list the namespace manifests of a store, show one, or compare two",
	.help = "  show [DIGEST]         the manifest with this digest, or the one that STORE itself names\n"
		"  diff A B              what differs between two, member by member\n"
		"  --json                arrays of objects: digest, manifest; or path, a, b\n\n"
		"A DIGEST may be cut to its first digits, 4 or more; A and B may also be @FILE with a manifest,\n"
		"so that what a host is about to use can be held against what a store has.\n",
	.run = run,
};
