/* SPDX-License-Identifier: Apache-2.0 */
/* A trace against the catalog alone: which policy keeps what, at which size of the store, in a second. */
#include "cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "belady.h"
#include "load_trace.h"
#include "model.h"
#include "text.h"

#define CAPACITIES_MAX 32
#define POLICIES_MAX 8
/* Llama-3.1-8B in bf16: nothing is stored, so blocks may have their real size. */
#define BYTES_PER_TOKEN 131072

struct simulate {
	const char *trace_argument;
	uint64_t limit, seed, bytes_per_token, block_bytes;
	const char *capacities[CAPACITIES_MAX];
	const char *policies[POLICIES_MAX];
	uint32_t capacity_count, policy_count;
	bool json;
	struct kvk_trace trace;
	uint64_t *blocks;              /* as the library takes them */
	uint64_t unlimited_hits;
	json_t *runs;
};

/* One line of the table; policy "Belady" is the bound. */
struct outcome {
	const char *policy;
	uint64_t cap_bytes;
	uint64_t hits, written_bytes, refused, memory_bytes;
	double accesses_per_s;
};

static int take_capacity(const struct kvk_cli_verb *verb, const struct kvk_cli_option *option, const char *text)
{
	struct simulate *simulate = option->value;
	uint64_t bytes;

	if (kvk_cli_parse_share(&bytes, text, 100) || bytes == 0)
		return kvk_cli_usage(verb, "--capacity: '%s' is neither a size such as 2TiB nor a part of all blocks such as 10%%", text);
	if (simulate->capacity_count == CAPACITIES_MAX)
		return kvk_cli_usage(verb, "--capacity: at most %d times", CAPACITIES_MAX);
	simulate->capacities[simulate->capacity_count++] = text;
	return 0;
}

static int take_policy(const struct kvk_cli_verb *verb, const struct kvk_cli_option *option, const char *text)
{
	struct kvk_simulation_options options = { .struct_bytes = sizeof(options), .policy = text, .cap_bytes = 1 };
	struct simulate *simulate = option->value;
	struct kvk_simulation *simulation;

	if (kvk_simulation_new(&simulation, &options))
		return kvk_cli_usage(verb, "--policy: '%s' is none of noop, LRU, S3FIFO, ARC and IsolatedLRU", text);
	kvk_simulation_free(simulation);
	if (simulate->policy_count == POLICIES_MAX)
		return kvk_cli_usage(verb, "--policy: at most %d times", POLICIES_MAX);
	simulate->policies[simulate->policy_count++] = text;
	return 0;
}

static int parse(struct simulate *simulate, const struct kvk_cli_verb *verb, int argc, char **argv)
{
	static const char *const shares[] = { "1%", "2%", "5%", "10%", "20%", "40%" };
	static const char *const words[] = { "LRU", "S3FIFO", "ARC" };
	const struct kvk_cli_option options[] = {
		{ "capacity", KVK_OPTION_TAKE, .value = simulate, .take = take_capacity },
		{ "policy", KVK_OPTION_TAKE, .value = simulate, .take = take_policy },
		{ "bytes-per-token", KVK_OPTION_BYTES, .value = &simulate->bytes_per_token, .least = 1 },
		{ "requests", KVK_OPTION_COUNT, .value = &simulate->limit, .least = 1 },
		{ "seed", KVK_OPTION_COUNT, .value = &simulate->seed },
		{ .name = NULL },
	};
	struct kvk_cli_line line;
	int status = kvk_cli_read_line(&line, verb, argc, argv, options, 1, 1, "wants TRACE");

	if (status)
		return status;
	simulate->json = line.json;
	simulate->trace_argument = line.words[0];
	if (!simulate->capacity_count) {
		memcpy(simulate->capacities, shares, sizeof(shares));
		simulate->capacity_count = sizeof(shares) / sizeof(shares[0]);
	}
	if (!simulate->policy_count) {
		memcpy(simulate->policies, words, sizeof(words));
		simulate->policy_count = sizeof(words) / sizeof(words[0]);
	}
	return 0;
}

/* ---- one run -------------------------------------------------------------------------------------- */

/* Of this thread's own time: others may use the machine. */
static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int run_policy(const struct simulate *simulate, struct outcome *outcome)
{
	struct kvk_simulation_options options = {
		.struct_bytes = sizeof(options), .policy = outcome->policy, .cap_bytes = outcome->cap_bytes,
	};
	struct kvk_simulation_counts counts = { .struct_bytes = sizeof(counts) };
	struct kvk_simulation *simulation;
	int err = kvk_simulation_new(&simulation, &options);
	uint64_t begin_ns = now_ns();

	if (err)
		return err;
	for (uint64_t i = 0; i < simulate->trace.request_count && !err; i++) {
		const struct kvk_trace_request *request = &simulate->trace.requests[i];

		err = kvk_simulation_request(simulation, &simulate->blocks[request->first], request->block_count,
					     simulate->block_bytes, NULL);
	}
	kvk_simulation_counts(simulation, &counts);
	kvk_simulation_free(simulation);
	outcome->hits = counts.hits;
	outcome->written_bytes = counts.written_bytes;
	outcome->refused = counts.refused;
	outcome->memory_bytes = counts.memory_bytes;
	outcome->accesses_per_s = (double)counts.accesses * 1e9 / (double)(now_ns() - begin_ns + 1);
	return err;
}

static int run_belady(const struct simulate *simulate, struct outcome *outcome)
{
	struct kvk_belady belady;
	uint64_t begin_ns = now_ns();
	int err = kvk_belady_run(&simulate->trace, outcome->cap_bytes / simulate->block_bytes, &belady);

	if (err)
		return err;
	outcome->hits = belady.hits;
	outcome->written_bytes = belady.written * simulate->block_bytes;
	outcome->accesses_per_s = (double)simulate->trace.block_count * 1e9 / (double)(now_ns() - begin_ns + 1);
	return 0;
}

/* ---- the table ------------------------------------------------------------------------------------ */

static void say_what(const struct simulate *simulate)
{
	const struct kvk_trace *trace = &simulate->trace;
	char size[KVK_CLI_TEXT_BYTES], all[KVK_CLI_TEXT_BYTES];

	printf("%s: %llu requests, %llu accesses to %llu different blocks of %s, %s in all; without a limit %.2f %% are hits\n\n",
	       simulate->trace_argument, (unsigned long long)trace->request_count, (unsigned long long)trace->block_count,
	       (unsigned long long)trace->distinct_count, kvk_cli_format_bytes(size, simulate->block_bytes),
	       kvk_cli_format_bytes(all, trace->distinct_count * simulate->block_bytes),
	       100 * (double)simulate->unlimited_hits / (double)trace->block_count);
	printf("  %-10s %10s  %-12s %10s %12s %12s\n", "capacity", "", "policy", "hits", "written", "accesses/s");
}

static int show(struct simulate *simulate, const char *capacity, const struct outcome *outcome)
{
	char cap[KVK_CLI_TEXT_BYTES], written[KVK_CLI_TEXT_BYTES];
	double ratio = (double)outcome->hits / (double)simulate->trace.block_count;
	json_t *run;

	if (!simulate->json) {
		printf("  %-10s %10s  %-12s %8.2f %% %12s %10.2f M%s\n", capacity, kvk_cli_format_bytes(cap, outcome->cap_bytes),
		       outcome->policy, 100 * ratio, kvk_cli_format_bytes(written, outcome->written_bytes),
		       outcome->accesses_per_s / 1e6, outcome->refused ? "  (blocks found no room)" : "");
		fflush(stdout);
		return 0;
	}
	run = json_pack("{s:I, s:s, s:I, s:f, s:I, s:I, s:f, s:I}", "capacity_bytes", (json_int_t)outcome->cap_bytes, "policy",
			outcome->policy, "hits", (json_int_t)outcome->hits, "hit_ratio", ratio, "written_bytes",
			(json_int_t)outcome->written_bytes, "refused", (json_int_t)outcome->refused, "accesses_per_s",
			outcome->accesses_per_s, "memory_bytes", (json_int_t)outcome->memory_bytes);
	return json_array_append_new(simulate->runs, run) ? -ENOMEM : 0;
}

static int run_capacity(struct simulate *simulate, const char *capacity)
{
	struct outcome outcome = { .policy = "Belady" };
	int err = 0;

	kvk_cli_parse_share(&outcome.cap_bytes, capacity, simulate->trace.distinct_count * simulate->block_bytes);
	for (uint32_t i = 0; i < simulate->policy_count && !err; i++) {
		struct outcome own = { .policy = simulate->policies[i], .cap_bytes = outcome.cap_bytes };

		err = run_policy(simulate, &own);
		if (!err)
			err = show(simulate, capacity, &own);
	}
	if (!err)
		err = run_belady(simulate, &outcome);
	if (!err)
		err = show(simulate, capacity, &outcome);
	return err;
}

static int report_json(struct simulate *simulate)
{
	const struct kvk_trace *trace = &simulate->trace;

	return kvk_cli_print_json(json_pack("{s:I, s:I, s:I, s:I, s:I, s:f, s:O}", "requests", (json_int_t)trace->request_count,
					    "accesses", (json_int_t)trace->block_count, "distinct_blocks",
					    (json_int_t)trace->distinct_count, "block_bytes", (json_int_t)simulate->block_bytes,
					    "unlimited_hits", (json_int_t)simulate->unlimited_hits, "unlimited_hit_ratio",
					    (double)simulate->unlimited_hits / (double)trace->block_count, "runs", simulate->runs));
}

static int prepare(struct simulate *simulate, const struct kvk_cli_verb *verb)
{
	struct kvk_trace *trace = &simulate->trace;

	if (trace->block_count == 0)
		return kvk_cli_fail("%s: no request names a block", simulate->trace_argument);
	if (simulate->bytes_per_token > KVK_OBJECT_BYTES_MAX / trace->block_tokens)
		return kvk_cli_usage(verb, "--bytes-per-token: a block of %u tokens must have from 1 byte to 4 GiB", trace->block_tokens);
	/* What a block counts: whole pages. */
	simulate->block_bytes = (simulate->bytes_per_token * trace->block_tokens + 4095) / 4096 * 4096;
	simulate->blocks = malloc((trace->block_count + 1) * sizeof(*simulate->blocks));
	simulate->runs = json_array();
	if (!simulate->blocks || !simulate->runs || kvk_model_unlimited_hits(trace, trace->request_count, &simulate->unlimited_hits))
		return kvk_cli_fail("%s", strerror(ENOMEM));
	for (uint64_t i = 0; i < trace->block_count; i++)
		simulate->blocks[i] = trace->blocks[i];
	return 0;
}

static int run(const struct kvk_cli_verb *verb, int argc, char **argv)
{
	struct simulate simulate = { .bytes_per_token = BYTES_PER_TOKEN, .seed = 1 };
	int err = 0, status = parse(&simulate, verb, argc, argv);

	if (!status)
		status = kvk_cli_load_trace(&simulate.trace, verb, simulate.trace_argument, simulate.limit, simulate.seed);
	if (!status)
		status = prepare(&simulate, verb);
	if (status)
		goto out;
	if (!simulate.json)
		say_what(&simulate);
	for (uint32_t i = 0; i < simulate.capacity_count && !err; i++)
		err = run_capacity(&simulate, simulate.capacities[i]);
	if (err)
		status = kvk_cli_fail("%s", strerror(-err));
	else if (simulate.json)
		status = report_json(&simulate);
out:
	json_decref(simulate.runs);
	free(simulate.blocks);
	kvk_trace_release(&simulate.trace);
	return status;
}

const struct kvk_cli_verb kvk_cli_simulate = {
	.name = "simulate",
	.arguments = "TRACE [options]",
	.summary = "tell what each eviction policy would keep of a trace, without a store",
	.help = KVK_CLI_TRACE_HELP
		"  --capacity SIZE|PART% how much may be kept, or a part of all different blocks; may be given several\n"
		"                        times (default 1, 2, 5, 10, 20 and 40%)\n"
		"  --policy WORD         noop, LRU, S3FIFO, ARC or IsolatedLRU; may be given several times (default LRU,\n"
		"                        S3FIFO and ARC)\n"
		"  --bytes-per-token N   size of a block: N x 512 bytes (default 131072, Llama-3.1-8B in bf16)\n"
		"  --requests N          only the first N\n"
		"  --seed N              other chats (default 1)\n"
		"  --json                an object with an array `runs` instead of the table\n\n"
		"Nothing is stored: the trace runs through the catalog of a store, the very code that evicts. Requests come\n"
		"one after the other; hits are their leading blocks that are there, the others are stored. The last line of\n"
		"each capacity is Belady's, which knows the future: no policy can hit more.\n",
	.run = run,
};
