/* SPDX-License-Identifier: Apache-2.0 */
#include "bench.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "text.h"

static const char *const phase_names[KVK_BENCH_PHASES] = { "put", "get", "lookup" };

static void on_signal(int signal)
{
	(void)signal;
	kvk_bench_interrupted = 1;
}

static int parse(struct kvk_cli_line *line, struct kvk_bench *bench, struct kvk_cli_overlay *overlay,
		 const struct kvk_cli_verb *verb, int argc, char **argv)
{
	const struct kvk_cli_option options[] = {
		{ "bytes", KVK_OPTION_BYTES, .value = &bench->object_bytes, .least = 1, .most = KVK_OBJECT_BYTES_MAX },
		{ "inflight", KVK_OPTION_COUNT, .value = &bench->inflight, .least = 1, .most = 4096 },
		{ "seconds", KVK_OPTION_NS, .value = &bench->phase_ns },
		{ "total", KVK_OPTION_BYTES, .value = &bench->total_bytes },
		{ "direct", KVK_OPTION_FLAG, .value = &overlay->direct },
		{ "held", KVK_OPTION_FLAG, .value = &bench->held },
		{ "durability", KVK_OPTION_TEXT, .value = &overlay->durability },
		{ .name = NULL },
	};
	int status = kvk_cli_read_line(line, verb, argc, argv, options, 1, 1, "wants one STORE");

	if (status)
		return status;
	bench->json = line->json;
	if (bench->total_bytes < bench->object_bytes)
		return kvk_cli_usage(verb, "--total: less than one object");
	return 0;
}

static double per_s(uint64_t count, const struct kvk_bench_phase *phase)
{
	return phase->spent_ns ? (double)count * 1e9 / (double)phase->spent_ns : 0;
}

static int report_json(const struct kvk_bench *bench)
{
	json_t *object = json_pack("{s:I, s:I, s:I, s:b}", "object_bytes", (json_int_t)bench->object_bytes, "inflight",
				   (json_int_t)bench->inflight, "wrong_bytes", (json_int_t)bench->wrong_bytes, "held",
				   bench->held);

	for (int kind = 0; object && kind < KVK_BENCH_PHASES; kind++) {
		const struct kvk_bench_phase *phase = &bench->phases[kind];
		const struct kvk_hist *hist = &phase->latency;

		json_object_set_new(object, phase_names[kind], json_pack(
			"{s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:I}", "items", (json_int_t)phase->items, "bytes",
			(json_int_t)phase->bytes, "gb_per_s", per_s(phase->bytes, phase) / 1e9, "items_per_s",
			per_s(phase->items, phase), "p50_us", (double)kvk_hist_quantile_ns(hist, 0.5) / 1e3, "p99_us",
			(double)kvk_hist_quantile_ns(hist, 0.99) / 1e3, "p999_us",
			(double)kvk_hist_quantile_ns(hist, 0.999) / 1e3, "cpu_s_per_gb",
			phase->bytes ? (double)phase->cpu_ns / (double)phase->bytes : 0.0, "failed",
			(json_int_t)phase->failed));
	}
	return kvk_cli_print_json(object);
}

static void report_text(const struct kvk_bench *bench)
{
	char p50[KVK_CLI_TEXT_BYTES], p99[KVK_CLI_TEXT_BYTES], p999[KVK_CLI_TEXT_BYTES], size[KVK_CLI_TEXT_BYTES];

	printf("objects of %s, %llu in flight\n\n", kvk_cli_format_bytes(size, bench->object_bytes),
	       (unsigned long long)bench->inflight);
	printf("  %-7s %10s %9s %12s %9s %9s %9s %9s\n", "", "items", "GB/s", "items/s", "p50", "p99", "p99.9",
	       "CPU s/GB");
	for (int kind = 0; kind < KVK_BENCH_PHASES; kind++) {
		const struct kvk_bench_phase *phase = &bench->phases[kind];
		const struct kvk_hist *hist = &phase->latency;

		printf("  %-7s %10llu", phase_names[kind], (unsigned long long)phase->items);
		if (phase->bytes)
			printf(" %9.2f", per_s(phase->bytes, phase) / 1e9);
		else
			printf(" %9s", "-");
		printf(" %12.0f %9s %9s %9s", per_s(phase->items, phase),
		       kvk_cli_format_ns(p50, kvk_hist_quantile_ns(hist, 0.5)),
		       kvk_cli_format_ns(p99, kvk_hist_quantile_ns(hist, 0.99)),
		       kvk_cli_format_ns(p999, kvk_hist_quantile_ns(hist, 0.999)));
		if (phase->bytes)
			printf(" %9.3f\n", (double)phase->cpu_ns / (double)phase->bytes);
		else
			printf(" %9s\n", "-");
	}
	printf("\nLookups are in batches of 64, and their latencies those of a batch. %llu wrong bytes.\n",
	       (unsigned long long)bench->wrong_bytes);
	for (int kind = 0; kind < KVK_BENCH_PHASES; kind++) {
		if (bench->phases[kind].failed)
			printf("%llu of %s failed: %s\n", (unsigned long long)bench->phases[kind].failed,
			       phase_names[kind], bench->phases[kind].failure);
	}
}

static int measure(struct kvk_bench *bench)
{
	int err = 0, remove_err, status = KVK_EXIT_DONE;

	kvk_progress_begin(&bench->progress, "bench");
	for (int kind = 0; kind < KVK_BENCH_PHASES && !err; kind++)
		err = kvk_bench_run(bench, (enum kvk_bench_phase_kind)kind);
	kvk_progress_end(&bench->progress);
	if (err)
		status = kvk_cli_fail("bench: %s", strerror(-err));
	remove_err = kvk_bench_remove(bench);
	if (remove_err)
		status = kvk_cli_fail("what was put could not all be removed: %s", strerror(-remove_err));
	if (status)
		return status;
	if (!bench->json)
		report_text(bench);
	else if (report_json(bench))
		return KVK_EXIT_FAILED;
	for (int kind = 0; kind < KVK_BENCH_PHASES; kind++) {
		if (bench->phases[kind].failed || bench->wrong_bytes)
			status = KVK_EXIT_FAILED;
	}
	return status;
}

static int run(const struct kvk_cli_verb *verb, int argc, char **argv)
{
	struct kvk_bench *bench = calloc(1, sizeof(*bench));
	struct kvk_cli_overlay overlay = { .create = true };
	struct sigaction action = { .sa_handler = on_signal };
	struct kvk_store *store = NULL;
	struct kvk_cli_line line;
	int status;

	if (!bench)
		return kvk_cli_fail("not enough memory");
	bench->object_bytes = UINT64_C(4) << 20;
	bench->inflight = 16;
	bench->phase_ns = UINT64_C(3000000000);
	bench->total_bytes = UINT64_C(4) << 30;
	bench->seed = kvk_cli_wall_ns();
	status = parse(&line, bench, &overlay, verb, argc, argv);
	if (!status)
		status = kvk_cli_open(&store, line.words[0], &overlay);
	if (status)
		goto out;
	bench->store = store;
	if (kvk_bench_init(bench)) {
		status = kvk_cli_fail("not enough memory for %llu objects in flight",
				      (unsigned long long)bench->inflight);
		goto out;
	}
	if (bench->held)
		kvk_store_register(store, bench->memory, bench->memory_bytes);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	status = measure(bench);
out:
	/* A hung medium may still hold the buffers: then they are left to the end of the process. */
	if (kvk_store_close(store))
		bench->memory = NULL;
	kvk_bench_release(bench);
	free(bench);
	return status;
}

const struct kvk_cli_verb kvk_cli_bench = {
	.name = "bench",
	.arguments = "STORE [options]",
	.summary = "measure put, get and lookup on this store",
	.help = "  --bytes SIZE          of an object (default 4MiB)\n"
		"  --inflight N          objects at once (default 16)\n"
		"  --seconds DURATION    for each of put, get and lookup (default 3)\n"
		"  --total SIZE          put no more than this (default 4GiB); less than memory measures the page cache\n"
		"                        unless --direct is given\n"
		"  --direct              use direct I/O\n"
		"  --held                transfers go straight to and from this program's memory\n"
		"  --durability WORD     none, batch or object\n"
		"  --json                a JSON object instead of the table\n\n"
		"Every loaded byte is compared. What was put is removed at the end, also after an interruption.\n",
	.run = run,
};
