/* SPDX-License-Identifier: Apache-2.0 */
/* has and rm: the same batch of keys, asked for or removed. */
#include "cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

struct keys {
	const char *store_argument;
	char **arguments;
	uint32_t count;
	bool quiet;
	bool json;
	struct kvk_cli_key *keys;
	struct kvk_key_item *items;
	struct kvk_result *results;
};

static void release(struct keys *keys)
{
	for (uint32_t i = 0; keys->keys && i < keys->count; i++)
		free(keys->keys[i].data);
	free(keys->keys);
	free(keys->items);
	free(keys->results);
}

static int parse(struct keys *keys, const struct kvk_cli_verb *verb, int argc, char **argv)
{
	const struct kvk_cli_option options[] = {
		{ "quiet", KVK_OPTION_FLAG, .value = &keys->quiet, .letter = 'q' },
		{ .name = NULL },
	};
	struct kvk_cli_line line;
	int status = kvk_cli_read_line(&line, verb, argc, argv, options, 2, 1 + KVK_BATCH_ITEMS_MAX,
				       "wants STORE and from 1 to 65536 KEYs");

	if (status)
		return status;
	keys->json = line.json;
	keys->store_argument = line.words[0];
	keys->arguments = line.words + 1;
	keys->count = (uint32_t)(line.count - 1);
	keys->keys = calloc(keys->count, sizeof(*keys->keys));
	keys->items = calloc(keys->count, sizeof(*keys->items));
	keys->results = calloc(keys->count, sizeof(*keys->results));
	if (!keys->keys || !keys->items || !keys->results)
		return kvk_cli_fail("not enough memory");
	for (uint32_t i = 0; i < keys->count; i++) {
		if (kvk_cli_parse_key(&keys->keys[i], keys->arguments[i]))
			return kvk_cli_usage(verb, "KEY: '%s' is not a key of 1 to %d bytes",
					     keys->arguments[i], KVK_KEY_BYTES_MAX);
		keys->items[i].struct_bytes = sizeof(keys->items[i]);
		keys->items[i].key = (struct kvk_key){ keys->keys[i].data, keys->keys[i].bytes };
		keys->results[i].struct_bytes = sizeof(keys->results[i]);
	}
	return 0;
}

/* done and not_done are the two words for what became of a key. */
static int report(const struct keys *keys, const char *done, const char *not_done)
{
	json_t *list = json_array();
	int status = KVK_EXIT_DONE;

	for (uint32_t i = 0; i < keys->count; i++) {
		const struct kvk_result *result = &keys->results[i];
		char key[KVK_CLI_KEY_TEXT_BYTES], size[KVK_CLI_TEXT_BYTES];
		const char *word = result->status ? not_done : done;

		if (result->status)
			status = KVK_EXIT_FAILED;
		if (keys->json) {
			json_array_append_new(list, json_pack(
				"{s:o, s:b, s:s, s:I}", "key", kvk_cli_json_key(keys->keys[i].data, keys->keys[i].bytes),
				done, !result->status, "result", kvk_cli_result_text(result), "object_bytes",
				(json_int_t)result->object_bytes));
			continue;
		}
		if (keys->quiet)
			continue;
		kvk_cli_format_key(key, keys->keys[i].data, keys->keys[i].bytes);
		if (result->status && result->reason != KVK_REASON_ABSENT)
			printf("%s (%s)  %s\n", word, kvk_cli_result_text(result), key);
		else if (result->status || !result->object_bytes)
			printf("%s  %s\n", word, key);
		else
			printf("%s %s  %s\n", word, kvk_cli_format_bytes(size, result->object_bytes), key);
	}
	if (!keys->json)
		json_decref(list);
	else if (kvk_cli_print_json(list))
		return KVK_EXIT_FAILED;
	return status;
}

static int has_run(const struct kvk_cli_verb *verb, int argc, char **argv)
{
	struct keys keys = { .store_argument = NULL };
	struct kvk_store *store = NULL;
	int err, status = parse(&keys, verb, argc, argv);

	if (!status)
		status = kvk_cli_open(&store, keys.store_argument, &(struct kvk_cli_overlay){ .use = KVK_USE_LOOK });
	if (!status) {
		err = kvk_store_lookup_wait(store, keys.items, keys.count, 0, keys.results);
		status = err ? kvk_cli_fail("lookup: %s", strerror(-err)) : report(&keys, "present", "absent");
	}
	kvk_store_close(store);
	release(&keys);
	return status;
}

static int rm_run(const struct kvk_cli_verb *verb, int argc, char **argv)
{
	struct keys keys = { .store_argument = NULL };
	struct kvk_store *store = NULL;
	int err, status = parse(&keys, verb, argc, argv);

	if (!status)
		status = kvk_cli_open(&store, keys.store_argument, &(struct kvk_cli_overlay){ .use = KVK_USE_TEND });
	if (!status) {
		err = kvk_store_remove_wait(store, keys.items, keys.count, 0, keys.results);
		status = err ? kvk_cli_fail("remove: %s", strerror(-err)) : report(&keys, "removed", "not removed");
	}
	kvk_store_close(store);
	release(&keys);
	return status;
}

const struct kvk_cli_verb kvk_cli_has = {
	.name = "has",
	.arguments = "STORE KEY... [--quiet] [--json]",
	.summary = "tell which of the keys are present",
	.help = "  --quiet               only the exit status: 0 if all are present, else 1\n"
		"  --json                an array, one object a key\n\n"
		"Present means that an object with a valid footer lies there; `kvkeep get` proves its bytes.\n",
	.run = has_run,
};

const struct kvk_cli_verb kvk_cli_rm = {
	.name = "rm",
	.arguments = "STORE KEY... [--quiet] [--json]",
	.summary = "remove objects",
	.help = "  --quiet               only the exit status: 0 if all were removed, else 1\n"
		"  --json                an array, one object a key\n",
	.run = rm_run,
};
