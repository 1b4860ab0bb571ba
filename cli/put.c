/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

struct put {
	const char *store_argument;
	const char *key_argument;
	const char *path;
	const char *meta;
	uint64_t depth;
	const char *durability;
	bool direct;
	bool json;
	struct kvk_cli_key key;
	struct kvk_cli_key parent;
	struct kvk_cli_blob blob;
};

static int parse(struct put *put, const struct kvk_cli_verb *verb, int argc, char **argv)
{
	const struct kvk_cli_option options[] = {
		{ "parent", KVK_OPTION_TAKE, .value = &put->parent, .take = kvk_cli_take_key },
		{ "meta", KVK_OPTION_TEXT, .value = &put->meta },
		{ "depth", KVK_OPTION_COUNT, .value = &put->depth, .most = UINT32_MAX },
		{ "durability", KVK_OPTION_TEXT, .value = &put->durability },
		{ "direct", KVK_OPTION_FLAG, .value = &put->direct },
		{ .name = NULL },
	};
	struct kvk_cli_line line;
	int status = kvk_cli_read_line(&line, verb, argc, argv, options, 2, 3, "wants STORE, KEY and perhaps FILE");

	if (status)
		return status;
	put->json = line.json;
	put->store_argument = line.words[0];
	put->key_argument = line.words[1];
	put->path = line.words[2];
	if (kvk_cli_parse_key(&put->key, put->key_argument))
		return kvk_cli_usage(verb, "KEY: '%s' is not a key of 1 to %d bytes", put->key_argument,
				     KVK_KEY_BYTES_MAX);
	if (put->meta && strlen(put->meta) > KVK_META_BYTES_MAX)
		return kvk_cli_usage(verb, "--meta: longer than %d bytes", KVK_META_BYTES_MAX);
	return 0;
}

static int report(const struct put *put, const struct kvk_result *result, uint64_t spent_ns)
{
	bool present = !result->status && result->reason == KVK_REASON_PRESENT;
	char size[KVK_CLI_TEXT_BYTES], time[KVK_CLI_TEXT_BYTES];

	if (put->json) {
		json_t *object = json_pack("{s:o, s:s, s:b, s:I, s:I}", "key",
					   kvk_cli_json_key(put->key.data, put->key.bytes), "result",
					   kvk_cli_result_text(result), "stored", !result->status && !present, "bytes",
					   (json_int_t)put->blob.bytes, "time_us", (json_int_t)(spent_ns / 1000));

		if (kvk_cli_print_json(object))
			return KVK_EXIT_FAILED;
	}
	if (result->status)
		return kvk_cli_fail("%s: not stored: %s", put->key_argument, kvk_cli_result_text(result));
	if (put->json)
		return KVK_EXIT_DONE;
	if (present)
		printf("present already, nothing was written\n");
	else
		printf("stored %s in %s\n", kvk_cli_format_bytes(size, put->blob.bytes),
		       kvk_cli_format_ns(time, spent_ns));
	return KVK_EXIT_DONE;
}

static int run(const struct kvk_cli_verb *verb, int argc, char **argv)
{
	struct put put = { .store_argument = NULL };
	struct kvk_result result = { .struct_bytes = sizeof(result) };
	struct kvk_store *store = NULL;
	uint64_t begin_ns;
	int err, status = parse(&put, verb, argc, argv);

	if (status)
		goto out;
	status = kvk_cli_read_file(&put.blob, put.path, KVK_OBJECT_BYTES_MAX);
	if (status)
		goto out;
	status = kvk_cli_open(&store, put.store_argument, &(struct kvk_cli_overlay){
		.use = KVK_USE_STORE, .create = true, .direct = put.direct, .durability = put.durability });
	if (status)
		goto out;

	struct iovec data = { .iov_base = put.blob.data, .iov_len = put.blob.bytes };
	struct kvk_put_item item = {
		.struct_bytes = sizeof(item),
		.key = { put.key.data, put.key.bytes },
		.parent = { put.parent.data, put.parent.bytes },
		.data = &data,
		.data_count = put.blob.bytes ? 1 : 0,
		.depth = (uint32_t)put.depth,
		.meta = put.meta,
		.meta_bytes = put.meta ? (uint32_t)strlen(put.meta) : 0,
	};
	begin_ns = kvk_cli_now_ns();
	err = kvk_store_put_wait(store, &item, 1, 0, &result);
	if (err)
		status = kvk_cli_fail("%s: not stored: %s", put.key_argument, strerror(-err));
	else
		status = report(&put, &result, kvk_cli_now_ns() - begin_ns);
out:
	kvk_store_close(store);
	free(put.key.data);
	free(put.parent.data);
	free(put.blob.data);
	return status;
}

const struct kvk_cli_verb kvk_cli_put = {
	.name = "put",
	.arguments = "STORE KEY [FILE|-] [options]",
	.summary = "store FILE or standard input under KEY",
	.help = "  --parent KEY          the key before this one in its prefix\n"
		"  --depth N             its position in the prefix, 0 for the first\n"
		"  --meta TEXT           up to 256 bytes that come back with the object\n"
		"  --durability WORD     none, batch or object, when the store is made or nobody else has it open\n"
		"  --direct              use direct I/O\n"
		"  --json                a JSON object instead of a line\n\n"
		"A key that is present keeps its object: nothing is written and the exit status is 0.\n",
	.run = run,
};
