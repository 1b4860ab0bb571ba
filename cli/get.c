/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "text.h"

struct get {
	const char *store_argument;
	const char *key_argument;
	const char *path;
	uint64_t offset_bytes;
	uint64_t range_bytes;
	bool direct;
	bool json;
	struct kvk_cli_key key;
	/* Whole pages, so that direct I/O can go straight; not yet touched ones cost nothing. */
	void *memory;
	uint64_t memory_bytes;
};

static int parse(struct get *get, const struct kvk_cli_verb *verb, int argc, char **argv)
{
	const struct kvk_cli_option options[] = {
		{ "offset", KVK_OPTION_BYTES, .value = &get->offset_bytes },
		{ "length", KVK_OPTION_BYTES, .value = &get->range_bytes, .least = 1 },
		{ "direct", KVK_OPTION_FLAG, .value = &get->direct },
		{ .name = NULL },
	};
	struct kvk_cli_line line;
	int status = kvk_cli_read_line(&line, verb, argc, argv, options, 2, 3, "wants STORE, KEY and perhaps FILE");

	if (status)
		return status;
	get->json = line.json;
	get->store_argument = line.words[0];
	get->key_argument = line.words[1];
	get->path = line.words[2];
	if (kvk_cli_parse_key(&get->key, get->key_argument))
		return kvk_cli_usage(verb, "KEY: '%s' is not a key of 1 to %d bytes", get->key_argument,
				     KVK_KEY_BYTES_MAX);
	return 0;
}

/* Loads the object into get->memory. The answer is the load's own; -errno if it could not be asked for. */
static int load(struct get *get, struct kvk_store *store, struct kvk_result *result)
{
	const struct kvk_key key = { get->key.data, get->key.bytes };
	struct kvk_key_item ask = { .struct_bytes = sizeof(ask), .key = key };
	uint64_t bytes;
	void *memory;
	int err = kvk_store_lookup_wait(store, &ask, 1, 0, result);

	if (err || result->status)
		return err;
	bytes = result->object_bytes;
	if (get->range_bytes && get->range_bytes < bytes)
		bytes = get->range_bytes;
	if (bytes) {
		memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (memory == MAP_FAILED)
			return -ENOMEM;
		madvise(memory, bytes, MADV_DONTDUMP);
		get->memory = memory;
		get->memory_bytes = bytes;
	}

	struct iovec data = { .iov_base = get->memory, .iov_len = bytes };
	struct kvk_get_item item = {
		.struct_bytes = sizeof(item),
		.key = key,
		.data = &data,
		.data_count = bytes ? 1 : 0,
		.offset_bytes = get->offset_bytes,
		.range_bytes = get->range_bytes,
	};
	*result = (struct kvk_result){ .struct_bytes = sizeof(*result) };
	return kvk_store_get_wait(store, &item, 1, 0, result);
}

/* The report keeps out of the data's way: where standard output carries them, it goes to standard error. */
static int report(const struct get *get, const struct kvk_result *result, uint64_t spent_ns)
{
	bool data_on_stdout = !get->path || !strcmp(get->path, "-");
	FILE *out = data_on_stdout ? stderr : stdout;
	char size[KVK_CLI_TEXT_BYTES], time[KVK_CLI_TEXT_BYTES];
	json_t *object;
	int err;

	if (!get->json) {
		if (!data_on_stdout)
			printf("%s in %s, proven\n", kvk_cli_format_bytes(size, result->bytes),
			       kvk_cli_format_ns(time, spent_ns));
		return 0;
	}
	object = json_pack("{s:o, s:s, s:b, s:I, s:I, s:I}", "key",
			   kvk_cli_json_key(get->key.data, get->key.bytes), "result", kvk_cli_result_text(result),
			   "found", !result->status, "bytes", (json_int_t)(result->status ? 0 : result->bytes),
			   "object_bytes", (json_int_t)result->object_bytes, "time_us",
			   (json_int_t)(spent_ns / 1000));
	err = object ? json_dumpf(object, out, JSON_INDENT(2)) : -1;
	json_decref(object);
	fputc('\n', out);
	return err ? kvk_cli_fail("cannot write the JSON") : 0;
}

static int run(const struct kvk_cli_verb *verb, int argc, char **argv)
{
	struct get get = { .store_argument = NULL };
	struct kvk_result result = { .struct_bytes = sizeof(result) };
	struct kvk_store *store = NULL;
	uint64_t begin_ns, spent_ns;
	int err, status = parse(&get, verb, argc, argv);

	if (status)
		goto out;
	status = kvk_cli_open(&store, get.store_argument, &(struct kvk_cli_overlay){
		.use = KVK_USE_LOOK, .direct = get.direct, .quiet = true });
	if (status)
		goto out;
	begin_ns = kvk_cli_now_ns();
	err = load(&get, store, &result);
	spent_ns = kvk_cli_now_ns() - begin_ns;
	if (err) {
		status = kvk_cli_fail("%s: not loaded: %s", get.key_argument, strerror(-err));
		goto out;
	}
	if (!result.status)
		status = kvk_cli_write_file(get.path, get.memory, result.bytes);
	else
		status = kvk_cli_fail("%s: %s", get.key_argument,
				      result.reason == KVK_REASON_ABSENT ? "not found" :
									   kvk_cli_result_text(&result));
	/* What went wrong is said already, in one line; a program wants the object all the same. */
	err = !status || get.json ? report(&get, &result, spent_ns) : 0;
	if (!status)
		status = err;
out:
	if (get.memory)
		munmap(get.memory, get.memory_bytes);
	kvk_store_close(store);
	free(get.key.data);
	return status;
}

const struct kvk_cli_verb kvk_cli_get = {
	.name = "get",
	.arguments = "STORE KEY [FILE|-] [options]",
	.summary = "load KEY, prove it, and write it to FILE or standard output",
	.help = "  --offset SIZE         begin here in the object\n"
		"  --length SIZE         load so much (default: to its end)\n"
		"  --direct              use direct I/O\n"
		"  --json                a JSON object about it; on standard error where the data go to\n"
		"                        standard output\n\n"
		"FILE takes its content at once, after every byte was proven; if the object is absent or damaged\n"
		"nothing is written and the exit status is 1. A new FILE is readable by its owner only.\n",
	.run = run,
};
