/* SPDX-License-Identifier: Apache-2.0 */
/* Lookups in memory and on the medium, and the way from open to the first object. */
#include "store_bench.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Key texts are made before the clock runs: an engine has them at hand. */
struct key_texts {
	char (*texts)[BENCH_KEY_BYTES];
	uint32_t *bytes;
};

static struct key_texts key_texts_new(uint64_t keys)
{
	struct key_texts ret;

	ret.texts = malloc(keys * sizeof(*ret.texts));
	ret.bytes = malloc(keys * sizeof(*ret.bytes));
	if (!ret.texts || !ret.bytes)
		bench_fail(-ENOMEM, "%llu keys", (unsigned long long)keys);
	for (uint64_t key = 0; key < keys; key++)
		ret.bytes[key] = bench_key_text(ret.texts[key], key);
	return ret;
}

static void key_texts_release(struct key_texts *texts)
{
	free(texts->texts);
	free(texts->bytes);
}

/* Calls of bench->batch keys each, and their memory. */
struct lookups {
	struct store_bench *bench;
	struct key_texts texts;
	struct kvk_key_item *items;
	struct kvk_result *results;
};

static void lookups_init(struct lookups *lookups, struct store_bench *bench)
{
	lookups->bench = bench;
	lookups->texts = key_texts_new(bench->keys);
	lookups->items = calloc(bench->batch, sizeof(*lookups->items));
	lookups->results = calloc(bench->batch, sizeof(*lookups->results));
	if (!lookups->items || !lookups->results)
		bench_fail(-ENOMEM, "a batch of %u", bench->batch);
	for (uint32_t i = 0; i < bench->batch; i++) {
		lookups->items[i].struct_bytes = sizeof(lookups->items[i]);
		lookups->results[i].struct_bytes = sizeof(lookups->results[i]);
	}
}

static void lookups_release(struct lookups *lookups)
{
	key_texts_release(&lookups->texts);
	free(lookups->items);
	free(lookups->results);
}

static void lookups_set(struct lookups *lookups, uint32_t item, uint64_t key)
{
	lookups->items[item].key.data = lookups->texts.texts[key];
	lookups->items[item].key.bytes = lookups->texts.bytes[key];
}

static void lookups_call(struct lookups *lookups, uint32_t count)
{
	int err = kvk_store_lookup_wait(lookups->bench->store, lookups->items, count, 0,
					lookups->results);

	if (err)
		bench_fail(err, "lookup");
	for (uint32_t i = 0; i < count; i++) {
		if (lookups->results[i].status)
			bench_fail(lookups->results[i].status, "lookup (%s)",
				   kvk_reason_text(lookups->results[i].reason));
	}
}

/* Every key once, in order. */
static void lookups_all(struct lookups *lookups, struct bench_samples *samples)
{
	struct store_bench *bench = lookups->bench;

	for (uint64_t key = 0; key < bench->keys;) {
		uint64_t began_ns = bench_now_ns();
		uint32_t count = 0;

		while (count < bench->batch && key < bench->keys)
			lookups_set(lookups, count++, key++);
		lookups_call(lookups, count);
		if (samples)
			bench_samples_add(samples, bench_now_ns() - began_ns);
	}
}

static struct kvk_stats stats_now(struct store_bench *bench)
{
	struct kvk_stats stats = { .struct_bytes = sizeof(stats) };
	int err = kvk_store_stats(bench->store, &stats);

	if (err)
		bench_fail(err, "stats");
	return stats;
}

static void print_lookups(struct bench_round *round, const struct kvk_stats *before,
			  const struct kvk_stats *after)
{
	char extra[160];

	snprintf(extra, sizeof(extra), ",\"keys_per_cpu_s\":%.0f,\"memory_hits\":%llu,\"medium_hits\":%llu",
		 (double)round->objects / round->cpu_s,
		 (unsigned long long)(after->lookup_memory_hits - before->lookup_memory_hits),
		 (unsigned long long)(after->lookup_medium_hits - before->lookup_medium_hits));
	bench_round_print(round, extra);
}

void store_bench_lookup(struct store_bench *bench, uint32_t number)
{
	struct bench_round round = {
		.program = "store_bench", .mode = "lookup", .round = number,
	};
	struct lookups lookups;
	struct kvk_stats before, after;
	uint64_t began_ns, ended_ns, stop_ns;
	double cpu_s;

	lookups_init(&lookups, bench);
	lookups_all(&lookups, NULL);       /* now memory knows them */
	bench->random = true;
	before = stats_now(bench);
	cpu_s = bench_cpu_s();
	began_ns = ended_ns = bench_now_ns();
	stop_ns = bench->seconds > 0 ? began_ns + (uint64_t)(bench->seconds * 1e9) : UINT64_MAX;
	while (round.objects < bench->count && ended_ns < stop_ns) {
		uint64_t call_ns = ended_ns;

		for (uint32_t i = 0; i < bench->batch; i++)
			lookups_set(&lookups, i, store_bench_pick(bench, 0));
		lookups_call(&lookups, bench->batch);
		ended_ns = bench_now_ns();
		bench_samples_add(&round.samples, ended_ns - call_ns);
		round.objects += bench->batch;
	}
	round.wall_s = (double)(ended_ns - began_ns) / 1e9;
	round.cpu_s = bench_cpu_s() - cpu_s;
	after = stats_now(bench);
	print_lookups(&round, &before, &after);
	bench_samples_release(&round.samples);
	lookups_release(&lookups);
}

void store_bench_secondary(struct store_bench *bench, uint32_t number)
{
	struct bench_round round = {
		.program = "store_bench", .mode = "secondary", .round = number,
		.objects = bench->keys,
	};
	struct lookups lookups;
	struct kvk_stats before, after;
	uint64_t began_ns;
	double cpu_s;

	lookups_init(&lookups, bench);
	if (number == 0) {                 /* now the kernel has inodes and footers at hand */
		store_bench_open(bench);
		lookups_all(&lookups, NULL);
		store_bench_close(bench);
	}
	store_bench_open(bench);
	before = stats_now(bench);
	cpu_s = bench_cpu_s();
	began_ns = bench_now_ns();
	lookups_all(&lookups, &round.samples);
	round.wall_s = (double)(bench_now_ns() - began_ns) / 1e9;
	round.cpu_s = bench_cpu_s() - cpu_s;
	after = stats_now(bench);
	store_bench_close(bench);
	print_lookups(&round, &before, &after);
	bench_samples_release(&round.samples);
	lookups_release(&lookups);
}

void store_bench_first(struct store_bench *bench, uint32_t number)
{
	struct bench_round round = {
		.program = "store_bench", .mode = "first", .round = number, .objects = 1,
		.object_bytes = bench->object_bytes,
	};
	struct bench_slot *slot = &bench->slots[0];
	struct kvk_result result = { .struct_bytes = sizeof(result) };
	struct kvk_get_item item = { .struct_bytes = sizeof(item), .data = &slot->iov, .data_count = 1 };
	uint64_t began_ns, opened_ns, where;
	char extra[64];
	double cpu_s;
	int err;

	slot->key = store_bench_pick(bench, number);
	slot->text_bytes = bench_key_text(slot->text, slot->key);
	item.key = (struct kvk_key){ slot->text, slot->text_bytes };
	memset(slot->data, 0xa5, bench->object_bytes);
	cpu_s = bench_cpu_s();
	began_ns = bench_now_ns();
	store_bench_open(bench);
	opened_ns = bench_now_ns();
	err = kvk_store_get_wait(bench->store, &item, 1, 0, &result);
	bench_samples_add(&round.samples, bench_now_ns() - began_ns);
	round.wall_s = (double)(bench_now_ns() - began_ns) / 1e9;
	round.cpu_s = bench_cpu_s() - cpu_s;
	if (err || result.status)
		bench_fail(err ? err : result.status, "get of key %llu", (unsigned long long)slot->key);
	if (!bench_data_check(slot->data, bench->object_bytes, slot->key, 0, &where))
		bench_fail(0, "key %llu differs at byte %llu", (unsigned long long)slot->key,
			   (unsigned long long)where);
	round.verified = 1;
	store_bench_close(bench);
	snprintf(extra, sizeof(extra), ",\"open_us\":%.1f", (double)(opened_ns - began_ns) / 1e3);
	bench_round_print(&round, extra);
	bench_samples_release(&round.samples);
}
