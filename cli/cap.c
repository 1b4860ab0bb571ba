/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "status.h"
#include "text.h"

#define CAP_BYTES_MIN UINT64_C(65536)

static int parse_cap(const struct kvk_cli_verb *verb, const char *text, uint64_t *ret)
{
	int err = 0;

	if (!strcmp(text, "none"))
		*ret = 0;
	else
		err = kvk_cli_parse_bytes(ret, text);
	if (err)
		return kvk_cli_usage(verb, "SIZE: '%s' is %s", text,
				     err == -ERANGE ? "out of range" : "neither a size such as 50GiB nor none");
	if (*ret > 0 && *ret < CAP_BYTES_MIN)
		return kvk_cli_usage(verb, "SIZE: '%s' is less than 64 KiB: that holds no object (none means no cap)", text);
	return 0;
}

static int report(const struct kvk_usage *usage, bool json, bool changed)
{
	char cap[KVK_CLI_TEXT_BYTES], used[KVK_CLI_TEXT_BYTES], over[KVK_CLI_TEXT_BYTES];

	if (json)
		return kvk_cli_print_json(json_pack("{s:I, s:I, s:I, s:I, s:b}", "cap_bytes", (json_int_t)usage->cap_bytes,
						    "used_bytes", (json_int_t)usage->used_bytes, "leased_bytes",
						    (json_int_t)usage->leased_bytes, "limit_bytes",
						    (json_int_t)usage->limit_bytes, "changed", changed));
	kvk_cli_format_bytes(used, usage->used_bytes);
	if (!usage->cap_bytes) {
		printf("no cap, %s used\n", used);
		return KVK_EXIT_DONE;
	}
	printf("cap %s (%llu bytes), %s used, %.1f %%\n", kvk_cli_format_bytes(cap, usage->cap_bytes),
	       (unsigned long long)usage->cap_bytes, used, 100 * usage->used_fraction);
	if (usage->used_bytes > usage->cap_bytes)
		printf("%s more than the cap is there: it leaves as processes with an eviction policy evict it; until then nothing "
		       "is stored\n", kvk_cli_format_bytes(over, usage->used_bytes - usage->cap_bytes));
	return KVK_EXIT_DONE;
}

static int change(struct kvk_store *store, struct kvk_usage *usage, uint64_t cap_bytes)
{
	int err = kvk_store_set_cap(store, cap_bytes);

	if (err)
		return kvk_cli_fail("the cap is as it was: %s", err == -EBUSY ?
				    "another process holds the account, and has been for a second; try again" :
				    strerror(-err));
	usage->cap_bytes = cap_bytes;
	usage->used_fraction = cap_bytes ? (double)usage->used_bytes / (double)cap_bytes : -1;
	return 0;
}

static int run(const struct kvk_cli_verb *verb, int argc, char **argv)
{
	static const struct kvk_cli_option options[] = { { .name = NULL } };
	struct kvk_store *store = NULL;
	struct kvk_cli_line line;
	struct kvk_usage usage;
	uint64_t cap_bytes = 0;
	int status = kvk_cli_read_line(&line, verb, argc, argv, options, 1, 2, "wants STORE and perhaps SIZE or none");

	if (!status && line.count == 2)
		status = parse_cap(verb, line.words[1], &cap_bytes);
	if (!status)
		status = kvk_cli_open(&store, line.words[0], &(struct kvk_cli_overlay){
			.use = line.count == 2 ? KVK_USE_TEND : KVK_USE_LOOK });
	if (!status)
		status = kvk_cli_usage_of(store, &usage);
	if (!status && line.count == 2)
		status = change(store, &usage, cap_bytes);
	if (!status)
		status = report(&usage, line.json, line.count == 2);
	kvk_store_close(store);
	return status;
}

const struct kvk_cli_verb kvk_cli_cap = {
	.name = "cap",
	.arguments = "STORE [SIZE|none] [--json]",
	.summary = "show how much a store may hold, or change it while it is in use",
	.help = "  --json                an object: cap_bytes, used_bytes, leased_bytes, limit_bytes, changed\n\n"
		"All processes that have the store open learn of a new cap within a second, and it stays for later\n"
		"ones, unless a configuration with another max_capacity_gb opens the store when nobody else has it\n"
		"open. If more is used than a new cap allows, processes with an eviction policy evict it in the\n"
		"background; where there is none, nothing is stored until there is room.\n",
	.run = run,
};
