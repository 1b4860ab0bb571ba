/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What does kvkeep cost and deliver? One mode a question:
 *
 *   put        objects under keys that never repeat, in_flight kept going; removed again after the round,
 *              outside of the timed part, unless --keep
 *   get        objects of keys 0 to keys - 1, in_flight kept going
 *   batch      one get of in_flight objects: how early does each arrive?
 *   lookup     keys that memory knows, in batches
 *   secondary  keys that only the medium knows, in batches: a fresh open each round
 *   first      from the call to open to the first object in memory
 *
 * Method: memory is touched, and data made but for its stamps, before the clock runs. After each round of
 * gets the last object of every slot is compared byte for byte; after puts a few are read back. Each round
 * prints one JSON line. With --go a round starts with each line on stdin, so that a runner can alternate
 * with another program on the same medium.
 */
#include "store_bench.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *name;
	void (*run)(struct store_bench *bench, uint32_t number);
	bool transfers;            /* wants slots and a store that stays open */
	bool stays_open;
} modes[] = {
	{ "put", store_bench_put, true, true },
	{ "get", store_bench_get, true, true },
	{ "batch", store_bench_batch, true, true },
	{ "lookup", store_bench_lookup, false, true },
	{ "secondary", store_bench_secondary, false, false },
	{ "first", store_bench_first, true, false },
};

void store_bench_open(struct store_bench *bench)
{
	struct kvk_error error = { .struct_bytes = sizeof(error) };
	int err = kvk_store_open(&bench->store, bench->spec, NULL, &error);

	if (err)
		bench_fail(err, "open: %s %s", error.option, error.text);
}

void store_bench_close(struct store_bench *bench)
{
	int err = kvk_store_close(bench->store);

	bench->store = NULL;
	if (err)
		bench_fail(err, "close");
}

uint64_t store_bench_pick(struct store_bench *bench, uint64_t number)
{
	if (!bench->random)
		return number % bench->keys;
	/* xorshift64: the order only has to be the same in every run and without pattern. */
	bench->random_state ^= bench->random_state << 13;
	bench->random_state ^= bench->random_state >> 7;
	bench->random_state ^= bench->random_state << 17;
	return bench->random_state % bench->keys;
}

static void print_ready(struct store_bench *bench)
{
	char *status = NULL;
	int err = kvk_store_status(bench->store, &status);

	if (err)
		bench_fail(err, "status");
	/* One line; within JSON's strings a line's end is never bare. */
	for (char *end = status; (end = strchr(end, '\n'));)
		*end = ' ';
	printf("{\"program\":\"store_bench\",\"ready\":true,\"version\":\"%s\",\"status\":%s}\n",
	       kvk_version(), status);
	fflush(stdout);
	kvk_free(status);
}

static const char usage[] =
	"usage: store_bench --spec JSON --mode put|get|batch|lookup|secondary|first [options]\n"
	"  --object-bytes N   length of an object (K, M, G are powers of 1,024)\n"
	"  --in-flight N      objects under way at a time (16)\n"
	"  --batch N          lookup, secondary: keys a call (64)\n"
	"  --keys N           keys 0 to N - 1 are there, made by a put with --count N --keep\n"
	"  --first N          put: number of the first key (0)\n"
	"  --seconds S        length of a round ...\n"
	"  --count N          ... or its objects\n"
	"  --rounds N         rounds (1), or\n"
	"  --go               a round for each line on stdin, until it ends\n"
	"  --held             memory is registered, and may be held: no copy\n"
	"  --blocking         one object at a time through the blocking calls\n"
	"  --random           get: keys in random order\n"
	"  --keep             put: leave what was put\n";

static void parse(struct store_bench *bench, int argc, char **argv)
{
	static const struct option options[] = {
		{ "spec", required_argument, NULL, 's' },
		{ "mode", required_argument, NULL, 'm' },
		{ "object-bytes", required_argument, NULL, 'b' },
		{ "in-flight", required_argument, NULL, 'i' },
		{ "batch", required_argument, NULL, 'B' },
		{ "keys", required_argument, NULL, 'k' },
		{ "first", required_argument, NULL, 'f' },
		{ "seconds", required_argument, NULL, 't' },
		{ "count", required_argument, NULL, 'c' },
		{ "rounds", required_argument, NULL, 'r' },
		{ "go", no_argument, NULL, 'g' },
		{ "held", no_argument, NULL, 'h' },
		{ "blocking", no_argument, NULL, 'w' },
		{ "random", no_argument, NULL, 'R' },
		{ "keep", no_argument, NULL, 'K' },
		{ NULL, 0, NULL, 0 },
	};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 's': bench->spec = optarg; break;
		case 'm': bench->mode = optarg; break;
		case 'b': bench->object_bytes = bench_parse_count("object-bytes", optarg); break;
		case 'i': bench->in_flight = (uint32_t)bench_parse_count("in-flight", optarg); break;
		case 'B': bench->batch = (uint32_t)bench_parse_count("batch", optarg); break;
		case 'k': bench->keys = bench_parse_count("keys", optarg); break;
		case 'f': bench->next_key = bench_parse_count("first", optarg); break;
		case 't': bench->seconds = bench_parse_seconds("seconds", optarg); break;
		case 'c': bench->count = bench_parse_count("count", optarg); break;
		case 'r': bench->rounds = (uint32_t)bench_parse_count("rounds", optarg); break;
		case 'g': bench->on_line = true; break;
		case 'h': bench->held = true; break;
		case 'w': bench->blocking = true; break;
		case 'R': bench->random = true; break;
		case 'K': bench->keep = true; break;
		default:
			fputs(usage, stderr);
			exit(2);
		}
	}
	if (bench->blocking)
		bench->in_flight = 1;
}

static size_t find_mode(const struct store_bench *bench)
{
	for (size_t i = 0; bench->mode && i < sizeof(modes) / sizeof(modes[0]); i++) {
		bool put = modes[i].run == store_bench_put;

		if (strcmp(modes[i].name, bench->mode) != 0)
			continue;
		if (!bench->spec || !bench->rounds || !bench->in_flight ||
		    bench->in_flight > BENCH_IN_FLIGHT_MAX || !bench->batch ||
		    bench->batch > KVK_BATCH_ITEMS_MAX)
			break;
		if ((modes[i].transfers && !bench->object_bytes) || (!put && !bench->keys))
			break;
		if (!(bench->seconds > 0) && bench->count == UINT64_MAX && modes[i].stays_open &&
		    modes[i].run != store_bench_batch)
			break;
		return i;
	}
	fputs(usage, stderr);
	exit(2);
}

int main(int argc, char **argv)
{
	struct store_bench bench = {
		.count = UINT64_MAX, .in_flight = 16, .batch = 64, .rounds = 1,
		.random_state = UINT64_C(0x243f6a8885a308d3),
	};
	size_t mode;

	parse(&bench, argc, argv);
	mode = find_mode(&bench);
	store_bench_open(&bench);
	print_ready(&bench);
	if (modes[mode].transfers)
		store_bench_transfer_new(&bench);
	if (!modes[mode].stays_open)
		store_bench_close(&bench);
	for (uint32_t round = 0; bench_round_next(bench.on_line, round, bench.rounds); round++)
		modes[mode].run(&bench, round);
	if (bench.store)
		store_bench_close(&bench);
	store_bench_transfer_free(&bench);
	return 0;
}
