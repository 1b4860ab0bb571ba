/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "status.h"
#include "text.h"

/* Evicted between two looks at the terminal and at the user's patience. */
#define STEP_BYTES (UINT64_C(256) << 20)

struct evict {
	const char *amount;
	bool json;
	uint64_t wanted_bytes;
	uint64_t evicted_bytes;
	uint64_t objects;
};

static int check_amount(const struct kvk_cli_verb *verb, const char *text)
{
	uint64_t bytes;
	int err = kvk_cli_parse_share(&bytes, text, 100);

	if (err)
		return kvk_cli_usage(verb, "'%s' is %s", text,
				     err == -ERANGE ? "out of range" : "neither a size such as 64MiB nor a part such as 10%");
	return 0;
}

/* What is cold is known once all names and access times were read; what hangs on what, once the footers were. */
static int know_all(struct kvk_store *store)
{
	switch (kvk_scan_wait(store, "evict: looking")) {
	case 0:
		return 0;
	case -EBUSY:
		return kvk_cli_fail("another process keeps this store, and only it knows what is cold: lower the cap (`kvkeep "
				    "cap`), and it evicts down to that");
	case -EINTR:
		return kvk_cli_fail("interrupted; nothing was evicted");
	default:
		return kvk_cli_fail("the store does not tell how far it knows what it holds; nothing was evicted");
	}
}

static int evict_all(struct evict *evict, struct kvk_store *store)
{
	struct kvk_progress progress;
	int status = 0;

	kvk_progress_begin(&progress, "evict");
	while (!status && evict->evicted_bytes < evict->wanted_bytes && !kvk_cli_interrupted) {
		uint64_t left = evict->wanted_bytes - evict->evicted_bytes, evicted = 0;
		int err = kvk_store_evict(store, left < STEP_BYTES ? left : STEP_BYTES, &evicted);

		evict->evicted_bytes += evicted;
		kvk_progress_show(&progress, evict->evicted_bytes >> 20, evict->wanted_bytes >> 20, "MiB",
				  evict->evicted_bytes);
		if (err)
			status = kvk_cli_fail("not evicted: %s", err == -ENOTSUP ?
					      "STORE says noop, the policy that evicts nothing; give --policy LRU" :
					      strerror(-err));
		else if (evicted == 0)
			break;
	}
	kvk_progress_end(&progress);
	return status;
}

static int report(const struct evict *evict)
{
	char evicted[KVK_CLI_TEXT_BYTES], wanted[KVK_CLI_TEXT_BYTES];

	kvk_cli_format_bytes(evicted, evict->evicted_bytes);
	kvk_cli_format_bytes(wanted, evict->wanted_bytes);
	if (evict->json) {
		if (kvk_cli_print_json(json_pack("{s:I, s:I, s:I}", "wanted_bytes", (json_int_t)evict->wanted_bytes,
						 "evicted_bytes", (json_int_t)evict->evicted_bytes, "objects",
						 (json_int_t)evict->objects)))
			return KVK_EXIT_FAILED;
	} else {
		printf("%llu objects, %s evicted\n", (unsigned long long)evict->objects, evicted);
	}
	if (evict->evicted_bytes >= evict->wanted_bytes)
		return KVK_EXIT_DONE;
	return kvk_cli_fail("%s of %s: %s", evicted, wanted, kvk_cli_interrupted ? "interrupted" :
			    "nothing else may go (it is gone already, or other processes have just read it)");
}

static int run(const struct kvk_cli_verb *verb, int argc, char **argv)
{
	struct evict evict = { .amount = NULL };
	struct kvk_cli_overlay overlay = { .use = KVK_USE_TEND, .policy = "LRU", .policy_by_default = true };
	const char *policy = NULL;
	const struct kvk_cli_option options[] = {
		{ "policy", KVK_OPTION_TEXT, .value = &policy },
		{ .name = NULL },
	};
	struct kvk_stats stats = { .struct_bytes = sizeof(stats) };
	struct kvk_store *store = NULL;
	struct kvk_cli_line line;
	struct kvk_usage usage;
	int status = kvk_cli_read_line(&line, verb, argc, argv, options, 2, 2, "wants STORE and SIZE, or a part such as 10%");

	if (!status)
		status = check_amount(verb, line.words[1]);
	if (status)
		return status;
	evict.json = line.json;
	if (policy) {
		overlay.policy = policy;
		overlay.policy_by_default = false;
	}
	kvk_cli_catch_signals();
	status = kvk_cli_open(&store, line.words[0], &overlay);
	if (!status)
		status = know_all(store);
	if (!status)
		status = kvk_cli_usage_of(store, &usage);
	if (status)
		goto out;
	kvk_cli_parse_share(&evict.wanted_bytes, line.words[1], usage.used_bytes);
	status = evict_all(&evict, store);
	if (!status && !kvk_store_stats(store, &stats))
		evict.objects = stats.evicted;
	if (!status)
		status = report(&evict);
out:
	kvk_store_close(store);
	return status;
}

const struct kvk_cli_verb kvk_cli_evict = {
	.name = "evict",
	.arguments = "STORE SIZE|PART% [options]",
	.summary = "evict the coldest objects until so much is given back",
	.help = "  --policy WORD         LRU, S3FIFO, ARC or IsolatedLRU: what is cold (default: what STORE says, or LRU)\n"
		"  --json                an object: wanted_bytes, evicted_bytes, objects\n\n"
		"PART% is a part of what is used now. Before it begins it reads what the store holds, which on a store that\n"
		"was closed cleanly takes a second. The exit status is 1 if less was evicted than was asked for. While other\n"
		"processes have the store open, one of them does this for all: then lower the cap instead.\n",
	.run = run,
};
