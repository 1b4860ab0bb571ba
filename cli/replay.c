/* SPDX-License-Identifier: Apache-2.0 */
#include "replay.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "cli.h"
#include "load_trace.h"
#include "text.h"

/* Llama-3.1-8B in bf16 keeps 131,072 bytes a token: 64 MiB a block. Small machines replay at a 64th of that. */
#define REAL_BYTES_PER_TOKEN 131072
#define DEFAULT_BYTES_PER_TOKEN 2048

static int take_kill(const struct kvk_cli_verb *verb, const struct kvk_cli_option *option, const char *text)
{
	struct kvk_replay *replay = option->value;
	uint64_t least = replay->kill_count ? replay->kills[replay->kill_count - 1] + 1 : 1;

	if (replay->kill_count == KVK_REPLAY_KILLS_MAX)
		return kvk_cli_usage(verb, "--kill-at: at most %d times", KVK_REPLAY_KILLS_MAX);
	if (kvk_cli_parse_count(&replay->kills[replay->kill_count], text, least, INT64_MAX))
		return kvk_cli_usage(verb, "--kill-at: '%s' is not a number of requests greater than the one before",
				     text);
	replay->kill_count++;
	return 0;
}

static int parse(struct kvk_replay *replay, struct kvk_cli_overlay *overlay, const struct kvk_cli_verb *verb,
		 int argc, char **argv)
{
	const struct kvk_cli_option options[] = {
		{ "bytes-per-token", KVK_OPTION_BYTES, .value = &replay->bytes_per_token },
		{ "capacity", KVK_OPTION_BYTES, .value = &overlay->cap_bytes, .least = 1 },
		{ "concurrency", KVK_OPTION_COUNT, .value = &replay->concurrency, .least = 1, .most = KVK_REPLAY_CONCURRENCY_MAX },
		{ "requests", KVK_OPTION_COUNT, .value = &replay->limit, .least = 1 },
		{ "kill-at", KVK_OPTION_TAKE, .value = replay, .take = take_kill },
		{ "seed", KVK_OPTION_COUNT, .value = &replay->seed },
		{ "memory", KVK_OPTION_BYTES, .value = &replay->memory_bytes },
		{ "durability", KVK_OPTION_TEXT, .value = &overlay->durability },
		{ "direct", KVK_OPTION_FLAG, .value = &overlay->direct },
		{ "held", KVK_OPTION_FLAG, .value = &replay->held },
		{ .name = NULL },
	};
	struct kvk_cli_line line;
	int status = kvk_cli_read_line(&line, verb, argc, argv, options, 2, 2, "wants STORE and TRACE");

	if (status)
		return status;
	replay->json = line.json;
	replay->trace_argument = line.words[1];
	return kvk_cli_spec(&replay->spec, line.words[0], overlay);
}

static int check_sizes(struct kvk_replay *replay, const struct kvk_cli_verb *verb)
{
	const struct kvk_trace *trace = &replay->trace;

	if (replay->bytes_per_token == 0 ||
	    replay->bytes_per_token > KVK_OBJECT_BYTES_MAX / trace->block_tokens)
		return kvk_cli_usage(verb, "--bytes-per-token: a block of %u tokens must have from 1 byte to 4 GiB",
				     trace->block_tokens);
	replay->object_bytes = replay->bytes_per_token * trace->block_tokens;
	if (replay->kill_count && !kvk_cli_spec_directory(replay->spec))
		return kvk_cli_usage(verb, "--kill-at: this store lies in memory and would go with the process");
	if (replay->kill_count && replay->kills[replay->kill_count - 1] >= trace->request_count)
		return kvk_cli_usage(verb, "--kill-at: %llu is not less than the %llu requests there are",
				     (unsigned long long)replay->kills[replay->kill_count - 1],
				     (unsigned long long)trace->request_count);
	return 0;
}

/*
 * A disk that fills up on the way spoils the run for everybody on it: said before, with what helps. What an earlier run
 * left need not be written again, so then only more than the whole file system is refused.
 */
static int check_space(struct kvk_replay *replay, const char *directory, uint64_t cap_bytes)
{
	uint64_t wanted = replay->trace.distinct_count * (replay->object_bytes + 8192), room;
	char wanted_text[KVK_CLI_TEXT_BYTES], room_text[KVK_CLI_TEXT_BYTES], path[PATH_MAX];
	struct statvfs stat;

	if (cap_bytes && cap_bytes < wanted)
		wanted = cap_bytes;
	if (statvfs(kvk_cli_existing_folder(path, directory), &stat))
		return 0;
	room = (uint64_t)(replay->not_empty ? stat.f_blocks : stat.f_bavail) * stat.f_frsize;
	if (wanted <= room)
		return 0;
	return kvk_cli_fail("up to %s would be stored, and %s has %s %s: take fewer --requests, less "
			    "--bytes-per-token, or a --capacity", kvk_cli_format_bytes(wanted_text, wanted), path,
			    kvk_cli_format_bytes(room_text, room), replay->not_empty ? "in all" : "free");
}

/* A store that is not there yet holds nothing; of any other each block's first lookup tells. */
static bool may_hold_blocks(const char *directory)
{
	char path[PATH_MAX];

	if (!directory)
		return true;
	if (snprintf(path, sizeof(path), "%s/.kvkeep", directory) >= (int)sizeof(path))
		return true;
	return !access(path, F_OK);
}

static void say_what(const struct kvk_replay *replay)
{
	char size[KVK_CLI_TEXT_BYTES], all[KVK_CLI_TEXT_BYTES];

	printf("%s: %llu requests, %llu different blocks of %s (%llu bytes a token x %u tokens",
	       replay->trace_argument, (unsigned long long)replay->trace.request_count,
	       (unsigned long long)replay->trace.distinct_count, kvk_cli_format_bytes(size, replay->object_bytes),
	       (unsigned long long)replay->bytes_per_token, replay->trace.block_tokens);
	if (replay->bytes_per_token < REAL_BYTES_PER_TOKEN)
		printf("; scaled down, Llama-3.1-8B in bf16 keeps %d bytes a token", REAL_BYTES_PER_TOKEN);
	printf("), %s at most\n",
	       kvk_cli_format_bytes(all, replay->trace.distinct_count * replay->object_bytes));
	fflush(stdout);
}

static int run(const struct kvk_cli_verb *verb, int argc, char **argv)
{
	struct kvk_replay replay = {
		.concurrency = 8, .bytes_per_token = DEFAULT_BYTES_PER_TOKEN, .memory_bytes = UINT64_C(512) << 20,
		.seed = 1,
	};
	struct kvk_cli_overlay overlay = { .create = true };
	const char *directory;
	int status = parse(&replay, &overlay, verb, argc, argv);

	if (!status)
		status = kvk_cli_load_trace(&replay.trace, verb, replay.trace_argument, replay.limit, replay.seed);
	if (!status)
		status = check_sizes(&replay, verb);
	if (status)
		goto out;
	directory = kvk_cli_spec_directory(replay.spec);
	replay.not_empty = may_hold_blocks(directory);
	if (directory)
		status = check_space(&replay, directory, overlay.cap_bytes);
	if (status)
		goto out;
	if (!replay.json)
		say_what(&replay);
	status = kvk_replay_control(&replay);
	if (!status)
		status = kvk_replay_report(&replay);
out:
	kvk_trace_release(&replay.trace);
	json_decref(replay.spec);
	return status;
}

const struct kvk_cli_verb kvk_cli_replay = {
	.name = "replay",
	.arguments = "STORE TRACE [options]",
	.summary = "play a trace against a store as an engine would, and check every byte",
	.help = KVK_CLI_TRACE_HELP
		"  --bytes-per-token N   size of a block: N x 512 bytes (default 2048; Llama-3.1-8B has 131072)\n"
		"  --capacity SIZE       cap of the store\n"
		"  --concurrency N       requests in flight (default 8)\n"
		"  --requests N          only the first N\n"
		"  --kill-at N           when N requests are done, kill the working process with SIGKILL and go on\n"
		"                        with a new one; may be given several times, in rising order\n"
		"  --seed N              other keys and payloads (default 1), and other chats\n"
		"  --memory SIZE         for blocks on their way (default 512 MiB)\n"
		"  --held                transfers go straight to and from that memory where alignment allows\n"
		"  --direct              use direct I/O\n"
		"  --durability WORD     none, batch or object\n"
		"  --json                a JSON object instead of the table\n\n"
		"Each request looks up all its blocks and pins what is found, loads the leading blocks that are there,\n"
		"stores the ones that are not, and unpins. A request that shares a block which is not stored yet with\n"
		"one before it waits for that one, so that hits do not hang on the concurrency. A model beside\n"
		"the store counts which blocks must be hits. The exit status is 1 if a loaded byte was wrong, if the\n"
		"model and the store disagree, or if an operation failed other than for want of room.\n\n"
		"Latencies are those of a request's whole lookup, and of each object from the submission of its batch\n"
		"to its answer. CPU time is that of the working process without making and comparing payloads.\n",
	.run = run,
};
