/* SPDX-License-Identifier: Apache-2.0 */
#include "replay.h"

#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "text.h"

static const char *const op_names[KVK_REPLAY_OPS] = { "lookup", "load", "store" };

/* Sums over requests, and what follows from them. */
struct totals {
	uint64_t hits;
	uint64_t model_hits;
	uint64_t disagreeing;      /* requests whose hits the model counts otherwise */
	uint64_t unlimited_hits;
	uint64_t failed;
	uint64_t bytes;
	double hit_ratio;
	double cpu_s_per_gb;
	bool good;
};

static struct totals sum(const struct kvk_replay *replay)
{
	const struct kvk_replay_shared *shared = replay->shared;
	struct totals totals = { .hits = 0 };
	uint64_t cpu_ns = replay->cpu_ns;

	for (uint64_t i = 0; i < replay->trace.request_count; i++) {
		totals.hits += replay->requests[i].hits;
		totals.model_hits += replay->requests[i].model_hits;
		totals.disagreeing += replay->requests[i].hits != replay->requests[i].model_hits;
	}
	for (uint32_t op = 0; op < KVK_REPLAY_OPS; op++) {
		totals.bytes += shared->ops[op].bytes;
		for (uint32_t reason = 0; reason < KVK_REPLAY_REASONS; reason++)
			totals.failed += shared->ops[op].failed[reason];
	}
	kvk_model_unlimited_hits(&replay->trace, 0, &totals.unlimited_hits);
	if (replay->trace.block_count)
		totals.hit_ratio = (double)totals.hits / (double)replay->trace.block_count;
	cpu_ns -= shared->check_cpu_ns < cpu_ns ? shared->check_cpu_ns : cpu_ns;
	if (totals.bytes)
		totals.cpu_s_per_gb = (double)cpu_ns / (double)totals.bytes;
	totals.good = !shared->wrong_bytes && !shared->disagreements && !totals.disagreeing && !totals.failed;
	return totals;
}

static double gb_per_s(const struct kvk_replay_op_stats *stats)
{
	return stats->busy_ns ? (double)stats->bytes / (double)stats->busy_ns : 0;
}

static double us(const struct kvk_replay_op_stats *stats, double share)
{
	return (double)kvk_hist_quantile_ns(&stats->latency, share) / 1e3;
}

static json_t *op_json(const struct kvk_replay_op_stats *stats)
{
	json_t *failed = json_object();

	for (uint32_t reason = 0; reason < KVK_REPLAY_REASONS; reason++) {
		if (stats->failed[reason])
			json_object_set_new(failed, kvk_reason_text(reason),
					    json_integer((json_int_t)stats->failed[reason]));
	}
	return json_pack("{s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:o}", "items", (json_int_t)stats->items, "bytes",
			 (json_int_t)stats->bytes, "p50_us", us(stats, 0.5), "p99_us", us(stats, 0.99), "p999_us",
			 us(stats, 0.999), "max_us", (double)stats->latency.max_ns / 1e3, "gb_per_s",
			 gb_per_s(stats), "items_per_s",
			 stats->busy_ns ? (double)stats->items * 1e9 / (double)stats->busy_ns : 0.0, "failed", failed);
}

static int report_json(const struct kvk_replay *replay, const struct totals *totals)
{
	const struct kvk_replay_shared *shared = replay->shared;
	json_t *faults = json_array(), *object;

	for (uint32_t i = 0; i < KVK_REPLAY_FAULTS_MAX && i < shared->fault_count; i++)
		json_array_append_new(faults, json_string(shared->faults[i]));
	object = json_pack("{s:b, s:I, s:I, s:I, s:I, s:I, s:f, s:I, s:I, s:I, s:I, s:I, s:I}",
			   "ok", totals->good, "requests", (json_int_t)replay->trace.request_count,
			   "blocks", (json_int_t)replay->trace.block_count,
			   "distinct_blocks", (json_int_t)replay->trace.distinct_count,
			   "block_bytes", (json_int_t)replay->object_bytes,
			   "hits", (json_int_t)totals->hits, "hit_ratio", totals->hit_ratio,
			   "model_hits", (json_int_t)totals->model_hits,
			   "unlimited_hits", (json_int_t)totals->unlimited_hits,
			   "wrong_bytes", (json_int_t)shared->wrong_bytes,
			   "bytes_read", (json_int_t)shared->ops[KVK_REPLAY_LOAD].bytes,
			   "bytes_written", (json_int_t)shared->ops[KVK_REPLAY_STORE].bytes,
			   "restarts", (json_int_t)replay->restarts);
	if (!object)
		return kvk_cli_fail("not enough memory");
	for (uint32_t op = 0; op < KVK_REPLAY_OPS; op++)
		json_object_set_new(object, op_names[op], op_json(&shared->ops[op]));
	json_object_update_new(object, json_pack(
		"{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:o}",
		"concurrency", (json_int_t)replay->concurrency, "seed", (json_int_t)replay->seed,
		"disagreements", (json_int_t)(shared->disagreements + totals->disagreeing),
		"unacknowledged", (json_int_t)replay->unacknowledged,
		"unacknowledged_found", (json_int_t)shared->unacknowledged_found,
		"found_before", (json_int_t)shared->found_before, "no_room", (json_int_t)shared->no_room,
		"present", (json_int_t)shared->present, "submit_again", (json_int_t)shared->submit_again,
		"seconds", (double)replay->wall_ns / 1e9, "gb_per_s", (double)totals->bytes / (double)replay->wall_ns,
		"cpu_s_per_gb", totals->cpu_s_per_gb, "check_cpu_s", (double)shared->check_cpu_ns / 1e9,
		"open_us", (double)shared->open_ns_most / 1e3, "first_load_us",
		(double)shared->first_load_ns_most / 1e3, "faults", faults));
	return kvk_cli_print_json(object);
}

static void print_op(const char *name, const struct kvk_replay_op_stats *stats)
{
	char p50[KVK_CLI_TEXT_BYTES], p99[KVK_CLI_TEXT_BYTES], p999[KVK_CLI_TEXT_BYTES];
	char bytes[KVK_CLI_TEXT_BYTES];

	printf("  %-8s %10llu %12s %9s %9s %9s", name, (unsigned long long)stats->items,
	       stats->bytes ? kvk_cli_format_bytes(bytes, stats->bytes) : "-",
	       kvk_cli_format_ns(p50, kvk_hist_quantile_ns(&stats->latency, 0.5)),
	       kvk_cli_format_ns(p99, kvk_hist_quantile_ns(&stats->latency, 0.99)),
	       kvk_cli_format_ns(p999, kvk_hist_quantile_ns(&stats->latency, 0.999)));
	if (stats->bytes)
		printf(" %9.2f\n", gb_per_s(stats));
	else
		printf(" %9s\n", "-");
}

static void report_faults(const struct kvk_replay *replay)
{
	const struct kvk_replay_shared *shared = replay->shared;

	for (uint32_t i = 0; i < KVK_REPLAY_FAULTS_MAX && i < shared->fault_count; i++)
		printf("  ! %s\n", shared->faults[i]);
	if (shared->fault_count > KVK_REPLAY_FAULTS_MAX)
		printf("  ! and %llu more\n", (unsigned long long)(shared->fault_count - KVK_REPLAY_FAULTS_MAX));
}

static void report_text(const struct kvk_replay *replay, const struct totals *totals)
{
	const struct kvk_replay_shared *shared = replay->shared;
	char size[KVK_CLI_TEXT_BYTES], time[KVK_CLI_TEXT_BYTES], first[KVK_CLI_TEXT_BYTES];

	printf("requests     %llu, of %llu blocks of %s, %llu in flight, seed %llu\n",
	       (unsigned long long)replay->trace.request_count, (unsigned long long)replay->trace.block_count,
	       kvk_cli_format_bytes(size, replay->object_bytes), (unsigned long long)replay->concurrency,
	       (unsigned long long)replay->seed);
	printf("hits         %llu (%.2f %%); the model says %llu, a cache without limit has %llu\n",
	       (unsigned long long)totals->hits, 100 * totals->hit_ratio, (unsigned long long)totals->model_hits,
	       (unsigned long long)totals->unlimited_hits);
	printf("wrong bytes  %llu\n", (unsigned long long)shared->wrong_bytes);
	printf("restarts     %llu by SIGKILL; of %llu puts under way %llu were found stored\n",
	       (unsigned long long)replay->restarts, (unsigned long long)replay->unacknowledged,
	       (unsigned long long)shared->unacknowledged_found);
	printf("open         at most %s; first object loaded at most %s after\n",
	       kvk_cli_format_ns(time, shared->open_ns_most),
	       shared->first_load_ns_most ? kvk_cli_format_ns(first, shared->first_load_ns_most) : "(none)");
	if (shared->found_before)
		printf("found        %llu blocks that were there before\n", (unsigned long long)shared->found_before);
	if (shared->no_room)
		printf("no room      %llu puts\n", (unsigned long long)shared->no_room);
	printf("\n  %-8s %10s %12s %9s %9s %9s %9s\n", "", "items", "bytes", "p50", "p99", "p99.9", "GB/s");
	for (uint32_t op = 0; op < KVK_REPLAY_OPS; op++)
		print_op(op_names[op], &shared->ops[op]);
	printf("\n%s, %.2f GB/s, %.3f CPU s/GB",
	       kvk_cli_format_ns(time, replay->wall_ns), (double)totals->bytes / (double)replay->wall_ns,
	       totals->cpu_s_per_gb);
	printf(" (without the %.2f s of making and comparing payloads)\n", (double)shared->check_cpu_ns / 1e9);
	report_faults(replay);
	if (totals->good)
		printf("every loaded byte was right, and the model agrees\n");
	else
		printf("FAILED: %llu wrong bytes, %llu disagreements with the model, %llu failures\n",
		       (unsigned long long)shared->wrong_bytes,
		       (unsigned long long)(shared->disagreements + totals->disagreeing),
		       (unsigned long long)totals->failed);
}

int kvk_replay_report(const struct kvk_replay *replay)
{
	struct totals totals = sum(replay);

	if (!replay->json)
		report_text(replay, &totals);
	else if (report_json(replay, &totals))
		return KVK_EXIT_FAILED;
	return totals.good ? KVK_EXIT_DONE : KVK_EXIT_FAILED;
}
