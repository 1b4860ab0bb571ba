/* SPDX-License-Identifier: Apache-2.0 */
#include "bench.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "cli.h"
#include "payload.h"

#define PAGE 4096u
#define NS_PER_S UINT64_C(1000000000)
/* What an engine asks for at once. */
#define LOOKUP_BATCH 64
#define REMOVE_BATCH 1024

/* One object on its way, with its memory. */
struct kvk_bench_slot {
	void *memory;
	uint64_t number;
	uint64_t name;
	uint64_t submit_ns;
	bool busy;
	bool ready;                /* filled, and refused for now */
};

volatile int kvk_bench_interrupted;

static uint64_t cpu_ns(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000u +
	       (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000u;
}

int kvk_bench_init(struct kvk_bench *bench)
{
	uint64_t bytes = (bench->object_bytes + PAGE - 1) / PAGE * PAGE;
	void *memory;

	bench->slots = calloc(bench->inflight, sizeof(*bench->slots));
	if (!bench->slots)
		return -ENOMEM;
	memory = mmap(NULL, bytes * bench->inflight, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE,
		      -1, 0);
	if (memory == MAP_FAILED)
		return -ENOMEM;
	bench->memory = memory;
	bench->memory_bytes = bytes * bench->inflight;
	for (uint64_t i = 0; i < bench->inflight; i++)
		bench->slots[i].memory = (char *)memory + i * bytes;
	return 0;
}

void kvk_bench_release(struct kvk_bench *bench)
{
	free(bench->slots);
	if (bench->memory)
		munmap(bench->memory, bench->memory_bytes);
}

/* What is done is counted in time: how many objects there will be nobody knows. */
static void show_progress(struct kvk_bench *bench, enum kvk_bench_phase_kind kind, uint64_t begin_ns)
{
	uint64_t bytes = bench->phases[KVK_BENCH_PUT].bytes + bench->phases[KVK_BENCH_GET].bytes;
	uint64_t done_ns = (uint64_t)kind * bench->phase_ns + kvk_cli_now_ns() - begin_ns;

	kvk_progress_show(&bench->progress, done_ns / NS_PER_S, KVK_BENCH_PHASES * bench->phase_ns / NS_PER_S, "seconds", bytes);
}

/* ---- put and get ----------------------------------------------------------------------------------- */

/* The next object's number, or UINT64_MAX when the phase is over. Gets go through what was put in an order of chance. */
static uint64_t next_number(const struct kvk_bench *bench, enum kvk_bench_phase_kind kind, uint64_t begun,
			    uint64_t begin_ns)
{
	if (kvk_bench_interrupted || kvk_cli_now_ns() - begin_ns >= bench->phase_ns)
		return UINT64_MAX;
	if (kind == KVK_BENCH_PUT)
		return (begun + 1) * bench->object_bytes <= bench->total_bytes ? begun : UINT64_MAX;
	return bench->stored ? kvk_payload_mix(begun + bench->seed) % bench->stored : UINT64_MAX;
}

static int64_t submit(struct kvk_bench *bench, enum kvk_bench_phase_kind kind, struct kvk_bench_slot *slot)
{
	struct iovec data = { slot->memory, bench->object_bytes };
	uint32_t flags = bench->held ? KVK_MEM_HELD : 0;
	char text[KVK_BLOCK_KEY_BYTES];
	struct kvk_key key = { text, kvk_block_key(text, "bench", slot->number, bench->seed, &slot->name) };
	uint64_t user = (uint64_t)(slot - bench->slots);

	slot->submit_ns = kvk_cli_now_ns();
	if (kind == KVK_BENCH_PUT)
		return kvk_store_put(bench->store, &(struct kvk_put_item){
			.struct_bytes = sizeof(struct kvk_put_item), .flags = flags, .key = key, .data = &data,
			.data_count = 1, .user = user }, 1, 0);
	return kvk_store_get(bench->store, &(struct kvk_get_item){
		.struct_bytes = sizeof(struct kvk_get_item), .flags = flags, .key = key, .data = &data,
		.data_count = 1, .user = user }, 1, 0);
}

/* Fills what is going to be put. What is going to be loaded is spoilt, so that an answer without bytes shows. */
static void prepare(struct kvk_bench *bench, enum kvk_bench_phase_kind kind, struct kvk_bench_slot *slot)
{
	char text[KVK_BLOCK_KEY_BYTES];
	uint64_t begin_ns = kvk_thread_cpu_ns();

	kvk_block_key(text, "bench", slot->number, bench->seed, &slot->name);
	if (kind == KVK_BENCH_PUT)
		kvk_payload_fill(slot->memory, bench->object_bytes, slot->name, 0);
	for (uint64_t at = 0; kind == KVK_BENCH_GET && at + sizeof(uint64_t) <= bench->object_bytes; at += PAGE)
		memset((char *)slot->memory + at, 0, sizeof(uint64_t));
	bench->check_cpu_ns += kvk_thread_cpu_ns() - begin_ns;
}

static void note_failure(struct kvk_bench_phase *phase, const char *text)
{
	if (phase->failed++ == 0)
		snprintf(phase->failure, sizeof(phase->failure), "%s", text);
}

static void answer(struct kvk_bench *bench, enum kvk_bench_phase_kind kind, const struct kvk_result *result,
		   uint64_t now_ns)
{
	struct kvk_bench_phase *phase = &bench->phases[kind];
	struct kvk_bench_slot *slot = &bench->slots[result->user];
	uint64_t begin_ns, first;

	/* Memory that a hung medium holds comes back with the release; its slot rests until then. */
	slot->busy = (result->flags & KVK_RESULT_HELD) != 0;
	if (result->flags & KVK_RESULT_RELEASE)
		return;
	if (result->status || result->bytes != bench->object_bytes) {
		note_failure(phase, kvk_cli_result_text(result));
		return;
	}
	kvk_hist_add(&phase->latency, now_ns - slot->submit_ns);
	phase->items++;
	phase->bytes += result->bytes;
	if (kind != KVK_BENCH_GET)
		return;
	begin_ns = kvk_thread_cpu_ns();
	bench->wrong_bytes += kvk_payload_wrong(slot->memory, bench->object_bytes, slot->name, 0, &first);
	bench->check_cpu_ns += kvk_thread_cpu_ns() - begin_ns;
}

/* Takes all answers that are there; returns their number or -errno. */
static int drain(struct kvk_bench *bench, enum kvk_bench_phase_kind kind, enum kvk_queue queue)
{
	struct kvk_result results[64];
	uint64_t now_ns;
	int count;

	for (int i = 0; i < 64; i++)
		results[i].struct_bytes = sizeof(results[i]);
	count = kvk_store_drain(bench->store, queue, results, 64);
	now_ns = kvk_cli_now_ns();
	for (int i = 0; i < count; i++)
		answer(bench, kind, &results[i], now_ns);
	return count;
}

static int run_objects(struct kvk_bench *bench, enum kvk_bench_phase_kind kind)
{
	enum kvk_queue queue = kind == KVK_BENCH_PUT ? KVK_QUEUE_PUT : KVK_QUEUE_GET;
	uint64_t begin_ns = kvk_cli_now_ns(), begun = 0;
	struct pollfd poll_fd = { .fd = kvk_store_event_fd(bench->store, queue), .events = POLLIN };

	for (;;) {
		bool again = false, busy = false;
		int count;

		for (uint64_t i = 0; i < bench->inflight && !again; i++) {
			struct kvk_bench_slot *slot = &bench->slots[i];
			int64_t task;

			if (!slot->busy && !slot->ready) {
				slot->number = next_number(bench, kind, begun, begin_ns);
				if (slot->number == UINT64_MAX)
					break;
				prepare(bench, kind, slot);
				slot->ready = true;
				begun++;
			}
			if (slot->busy)
				continue;
			task = submit(bench, kind, slot);
			if (task < 0 && task != -EAGAIN)
				return (int)task;
			again = task < 0;
			slot->ready = again;
			slot->busy = !again;
		}
		count = drain(bench, kind, queue);
		if (count < 0)
			return count;
		show_progress(bench, kind, begin_ns);
		for (uint64_t i = 0; i < bench->inflight; i++)
			busy |= bench->slots[i].busy || bench->slots[i].ready;
		if (!busy && next_number(bench, kind, begun, begin_ns) == UINT64_MAX)
			break;
		if (count == 0 && busy)
			poll(&poll_fd, 1, again ? 1 : 1000);
	}
	if (kind == KVK_BENCH_PUT)
		bench->stored = begun;
	return 0;
}

/* ---- lookup ---------------------------------------------------------------------------------------- */

static int run_lookups(struct kvk_bench *bench)
{
	struct kvk_bench_phase *phase = &bench->phases[KVK_BENCH_LOOKUP];
	uint64_t begin_ns = kvk_cli_now_ns(), begun = 0, name;
	char texts[LOOKUP_BATCH][KVK_BLOCK_KEY_BYTES];
	struct kvk_key_item items[LOOKUP_BATCH];
	struct kvk_result results[LOOKUP_BATCH];

	while (!kvk_bench_interrupted && bench->stored && kvk_cli_now_ns() - begin_ns < bench->phase_ns) {
		uint64_t key_begin_ns = kvk_thread_cpu_ns(), submit_ns;
		int err;

		for (uint32_t i = 0; i < LOOKUP_BATCH; i++) {
			uint64_t number = begun++ % bench->stored;
			uint32_t bytes = kvk_block_key(texts[i], "bench", number, bench->seed, &name);

			items[i] = (struct kvk_key_item){ .struct_bytes = sizeof(items[i]), .key = { texts[i], bytes } };
			results[i].struct_bytes = sizeof(results[i]);
		}
		bench->check_cpu_ns += kvk_thread_cpu_ns() - key_begin_ns;
		submit_ns = kvk_cli_now_ns();
		err = kvk_store_lookup_wait(bench->store, items, LOOKUP_BATCH, 0, results);
		if (err)
			return err;
		kvk_hist_add(&phase->latency, kvk_cli_now_ns() - submit_ns);
		phase->spent_ns += kvk_cli_now_ns() - submit_ns;
		for (uint32_t i = 0; i < LOOKUP_BATCH; i++) {
			if (results[i].status)
				note_failure(phase, kvk_cli_result_text(&results[i]));
			else
				phase->items++;
		}
		show_progress(bench, KVK_BENCH_LOOKUP, begin_ns);
	}
	return 0;
}

int kvk_bench_run(struct kvk_bench *bench, enum kvk_bench_phase_kind kind)
{
	struct kvk_bench_phase *phase = &bench->phases[kind];
	uint64_t begin_ns = kvk_cli_now_ns(), begin_cpu_ns = cpu_ns(), check_ns = bench->check_cpu_ns;
	int err = kind == KVK_BENCH_LOOKUP ? run_lookups(bench) : run_objects(bench, kind);

	check_ns = bench->check_cpu_ns - check_ns;
	phase->cpu_ns = cpu_ns() - begin_cpu_ns;
	phase->cpu_ns -= check_ns < phase->cpu_ns ? check_ns : phase->cpu_ns;
	/* Lookups are timed one by one, since most of the loop is the making of keys. */
	if (kind != KVK_BENCH_LOOKUP)
		phase->spent_ns = kvk_cli_now_ns() - begin_ns;
	return err;
}

int kvk_bench_remove(struct kvk_bench *bench)
{
	char (*texts)[KVK_BLOCK_KEY_BYTES] = calloc(REMOVE_BATCH, sizeof(*texts));
	struct kvk_key_item *items = calloc(REMOVE_BATCH, sizeof(*items));
	struct kvk_result *results = calloc(REMOVE_BATCH, sizeof(*results));
	int err = texts && items && results ? 0 : -ENOMEM;
	uint64_t name;

	for (uint64_t number = 0; number < bench->stored && !err;) {
		uint32_t count = 0;

		for (; count < REMOVE_BATCH && number < bench->stored; count++, number++) {
			uint32_t bytes = kvk_block_key(texts[count], "bench", number, bench->seed, &name);

			items[count] = (struct kvk_key_item){
				.struct_bytes = sizeof(*items), .key = { texts[count], bytes } };
			results[count].struct_bytes = sizeof(*results);
		}
		err = kvk_store_remove_wait(bench->store, items, count, 0, results);
	}
	free(texts);
	free(items);
	free(results);
	return err;
}
