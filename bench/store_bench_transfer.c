/* SPDX-License-Identifier: Apache-2.0 */
/* Puts and gets through the asynchronous calls, and one at a time through the blocking ones. */
#include "store_bench.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define READ_BACK_MAX 4u
#define REMOVE_BATCH 64u
#define WAIT_US 1000000u
#define SETTLE_NS (UINT64_C(120) * 1000000000u)

/* What one round does: puts from first_key on, or gets by store_bench_pick(). */
struct transfer {
	struct store_bench *bench;
	bool put;
	uint64_t asked;
	uint64_t limit;
	uint64_t stop_ns;
	uint32_t busy;
	struct bench_round round;
};

static void *zeroed(size_t count, size_t bytes)
{
	void *memory = calloc(count, bytes);

	if (!memory)
		bench_fail(-ENOMEM, "%zu items", count);
	return memory;
}

void store_bench_transfer_new(struct store_bench *bench)
{
	uint32_t count = bench->in_flight;
	int err;

	bench->slot_bytes = (bench->object_bytes + BENCH_PAGE_BYTES - 1) & ~(uint64_t)(BENCH_PAGE_BYTES - 1);
	bench->memory_bytes = bench->slot_bytes * count;
	bench->memory = bench_memory_new(bench->memory_bytes);
	bench->slots = zeroed(count, sizeof(*bench->slots));
	bench->put_items = zeroed(count, sizeof(*bench->put_items));
	bench->get_items = zeroed(count, sizeof(*bench->get_items));
	bench->results = zeroed(count, sizeof(*bench->results));
	for (uint32_t i = 0; i < count; i++) {
		struct bench_slot *slot = &bench->slots[i];

		slot->data = bench->memory + i * bench->slot_bytes;
		slot->iov = (struct iovec){ slot->data, bench->object_bytes };
		bench_data_fill(slot->data, bench->object_bytes);
	}
	if (bench->held) {
		err = kvk_store_register(bench->store, bench->memory, bench->memory_bytes);
		if (err)
			bench_fail(err, "register");
	}
}

void store_bench_transfer_free(struct store_bench *bench)
{
	free(bench->slots);
	free(bench->put_items);
	free(bench->get_items);
	free(bench->results);
	bench_memory_free(bench->memory, bench->memory_bytes);
}

static void slot_take_key(struct bench_slot *slot, uint64_t key)
{
	slot->key = key;
	slot->text_bytes = bench_key_text(slot->text, key);
}

static void put_item_make(struct store_bench *bench, struct kvk_put_item *item, uint32_t slot)
{
	struct bench_slot *from = &bench->slots[slot];

	*item = (struct kvk_put_item){
		.struct_bytes = sizeof(*item),
		.flags = bench->held ? KVK_MEM_HELD : 0,
		.key = { from->text, from->text_bytes },
		.data = &from->iov,
		.data_count = 1,
		.user = slot,
	};
}

static void get_item_make(struct store_bench *bench, struct kvk_get_item *item, uint32_t slot)
{
	struct bench_slot *to = &bench->slots[slot];

	*item = (struct kvk_get_item){
		.struct_bytes = sizeof(*item),
		.flags = bench->held ? KVK_MEM_HELD : 0,
		.key = { to->text, to->text_bytes },
		.data = &to->iov,
		.data_count = 1,
		.user = slot,
	};
}

static void check_result(const struct store_bench *bench, const struct kvk_result *result,
			 const struct bench_slot *slot, bool put)
{
	if (result->status)
		bench_fail(result->status, "%s of key %llu (%s)", put ? "put" : "get",
			   (unsigned long long)slot->key, kvk_reason_text(result->reason));
	if (put && result->reason == KVK_REASON_PRESENT)
		bench_fail(0, "key %llu was there already: the store is not a fresh one",
			   (unsigned long long)slot->key);
	if (result->bytes != bench->object_bytes)
		bench_fail(0, "key %llu: %llu bytes, not %llu", (unsigned long long)slot->key,
			   (unsigned long long)result->bytes, (unsigned long long)bench->object_bytes);
}

static void check_slot(const struct store_bench *bench, const struct bench_slot *slot)
{
	uint64_t where;

	if (!bench_data_check(slot->data, bench->object_bytes, slot->key, 0, &where))
		bench_fail(0, "key %llu differs at byte %llu", (unsigned long long)slot->key,
			   (unsigned long long)where);
}

static bool round_goes_on(const struct transfer *transfer)
{
	return transfer->asked < transfer->limit && bench_now_ns() < transfer->stop_ns;
}

/* Gives every free slot a key and submits them together. */
static void refill(struct transfer *transfer)
{
	struct store_bench *bench = transfer->bench;
	uint32_t taken[BENCH_IN_FLIGHT_MAX];
	uint32_t count = 0;
	uint64_t now_ns;
	int64_t task;

	for (uint32_t i = 0; i < bench->in_flight && round_goes_on(transfer); i++) {
		struct bench_slot *slot = &bench->slots[i];

		if (slot->busy)
			continue;
		if (transfer->put) {
			slot_take_key(slot, bench->next_key + transfer->asked);
			bench_data_stamp(slot->data, bench->object_bytes, slot->key, 0);
			put_item_make(bench, &bench->put_items[count], i);
		} else {
			slot_take_key(slot, store_bench_pick(bench, transfer->asked));
			get_item_make(bench, &bench->get_items[count], i);
		}
		slot->busy = true;
		slot->filled = false;
		taken[count++] = i;
		transfer->asked++;
	}
	if (!count)
		return;
	now_ns = bench_now_ns();
	for (uint32_t i = 0; i < count; i++)
		bench->slots[taken[i]].began_ns = now_ns;
	do {
		task = transfer->put ? kvk_store_put(bench->store, bench->put_items, count, 0)
				     : kvk_store_get(bench->store, bench->get_items, count, 0);
	} while (task == -EAGAIN &&
		 kvk_store_wait(bench->store, transfer->put ? KVK_QUEUE_PUT : KVK_QUEUE_GET, 1000) >= 0);
	if (task < 0)
		bench_fail((int)task, "submit %u items", count);
	transfer->busy += count;
}

static void take_results(struct transfer *transfer)
{
	struct store_bench *bench = transfer->bench;
	enum kvk_queue queue = transfer->put ? KVK_QUEUE_PUT : KVK_QUEUE_GET;
	uint64_t now_ns;
	int count;

	for (uint32_t i = 0; i < bench->in_flight; i++)
		bench->results[i].struct_bytes = sizeof(bench->results[i]);
	count = kvk_store_drain(bench->store, queue, bench->results, bench->in_flight);
	if (count < 0)
		bench_fail(count, "drain");
	if (count == 0) {
		int err = kvk_store_wait(bench->store, queue, WAIT_US);

		if (err < 0)
			bench_fail(err, "wait");
		return;
	}
	now_ns = bench_now_ns();
	for (int i = 0; i < count; i++) {
		struct kvk_result *result = &bench->results[i];
		struct bench_slot *slot = &bench->slots[result->user];

		if (result->flags & KVK_RESULT_RELEASE) {
			slot->busy = false;
			transfer->busy--;
			continue;
		}
		check_result(bench, result, slot, transfer->put);
		bench_samples_add(&transfer->round.samples, now_ns - slot->began_ns);
		transfer->round.objects++;
		slot->filled = true;
		if (!(result->flags & KVK_RESULT_HELD)) {
			slot->busy = false;
			transfer->busy--;
		}
	}
}

static void one_blocking(struct transfer *transfer)
{
	struct store_bench *bench = transfer->bench;
	struct bench_slot *slot = &bench->slots[0];
	struct kvk_result result = { .struct_bytes = sizeof(result) };
	uint64_t began_ns;
	int err;

	if (transfer->put) {
		slot_take_key(slot, bench->next_key + transfer->asked);
		/* A plain loop's times hold its stamps, too. */
		began_ns = bench_now_ns();
		bench_data_stamp(slot->data, bench->object_bytes, slot->key, 0);
		put_item_make(bench, bench->put_items, 0);
		err = kvk_store_put_wait(bench->store, bench->put_items, 1, 0, &result);
	} else {
		slot_take_key(slot, store_bench_pick(bench, transfer->asked));
		began_ns = bench_now_ns();
		get_item_make(bench, bench->get_items, 0);
		err = kvk_store_get_wait(bench->store, bench->get_items, 1, 0, &result);
	}
	if (err)
		bench_fail(err, "submit");
	check_result(bench, &result, slot, transfer->put);
	bench_samples_add(&transfer->round.samples, bench_now_ns() - began_ns);
	slot->filled = true;
	transfer->asked++;
	transfer->round.objects++;
}

static void transfer_run(struct transfer *transfer)
{
	struct store_bench *bench = transfer->bench;
	uint64_t began_ns;
	double cpu_s;

	bench_samples_reserve(&transfer->round.samples,
			      bench->count < 1 << 20 ? (size_t)bench->count : 1 << 20);
	for (uint32_t i = 0; i < bench->in_flight; i++)
		bench->slots[i].filled = false;
	if (!transfer->put)
		memset(bench->memory, 0xa5, bench->memory_bytes);
	transfer->limit = bench->count;
	cpu_s = bench_cpu_s();
	began_ns = bench_now_ns();
	transfer->stop_ns = bench->seconds > 0 ? began_ns + (uint64_t)(bench->seconds * 1e9) : UINT64_MAX;
	if (bench->blocking) {
		while (round_goes_on(transfer))
			one_blocking(transfer);
	} else {
		refill(transfer);
		while (transfer->busy) {
			take_results(transfer);
			refill(transfer);
		}
	}
	transfer->round.wall_s = (double)(bench_now_ns() - began_ns) / 1e9;
	transfer->round.cpu_s = bench_cpu_s() - cpu_s;
}

/* Reads a few of the objects that were just put, spread over them, and compares. */
static void read_back(struct transfer *transfer)
{
	struct store_bench *bench = transfer->bench;
	uint64_t objects = transfer->round.objects;
	uint64_t count = objects < READ_BACK_MAX ? objects : READ_BACK_MAX;

	for (uint64_t i = 0; i < count; i++) {
		struct kvk_result result = { .struct_bytes = sizeof(result) };
		struct bench_slot *slot = &bench->slots[0];
		int err;

		slot_take_key(slot, bench->next_key + i * objects / count);
		memset(slot->data, 0xa5, bench->object_bytes);
		get_item_make(bench, bench->get_items, 0);
		err = kvk_store_get_wait(bench->store, bench->get_items, 1, 0, &result);
		if (err)
			bench_fail(err, "get");
		check_result(bench, &result, slot, false);
		check_slot(bench, slot);
		transfer->round.verified++;
	}
}

static uint64_t used_bytes(struct store_bench *bench)
{
	struct kvk_usage usage = { .struct_bytes = sizeof(usage) };
	int err = kvk_store_usage(bench->store, &usage);

	if (err)
		bench_fail(err, "usage");
	return usage.used_bytes;
}

/* Removes the round's objects and waits until their blocks are free, so that no unlinking in the background
 * falls into the next program's time. */
static void remove_round(struct transfer *transfer, uint64_t used_before)
{
	struct store_bench *bench = transfer->bench;
	uint64_t began_ns = bench_now_ns();

	for (uint64_t done = 0; done < transfer->round.objects;) {
		static char texts[REMOVE_BATCH][BENCH_KEY_BYTES];
		struct kvk_key_item items[REMOVE_BATCH] = { 0 };
		struct kvk_result results[REMOVE_BATCH] = { 0 };
		uint32_t count = 0;
		int err;

		while (count < REMOVE_BATCH && done < transfer->round.objects) {
			items[count].struct_bytes = sizeof(items[count]);
			items[count].key.data = texts[count];
			items[count].key.bytes = bench_key_text(texts[count], bench->next_key + done);
			results[count].struct_bytes = sizeof(results[count]);
			count++;
			done++;
		}
		err = kvk_store_remove_wait(bench->store, items, count, 0, results);
		if (err)
			bench_fail(err, "remove");
		for (uint32_t i = 0; i < count; i++) {
			if (results[i].status)
				bench_fail(results[i].status, "remove (%s)",
					   kvk_reason_text(results[i].reason));
		}
	}
	while (used_bytes(bench) > used_before) {
		struct timespec pause = { 0, 2000000 };

		if (bench_now_ns() - began_ns > SETTLE_NS)
			bench_fail(-ETIMEDOUT, "removed objects are still charged");
		nanosleep(&pause, NULL);
	}
}

void store_bench_put(struct store_bench *bench, uint32_t number)
{
	uint64_t used_before = used_bytes(bench);
	struct transfer transfer = {
		.bench = bench, .put = true,
		.round = { .program = "store_bench", .mode = "put", .round = number,
			   .object_bytes = bench->object_bytes },
	};

	transfer_run(&transfer);
	if (!bench->keep) {
		read_back(&transfer);
		/* What was read lies in slot 0 now; its noise is the same. */
		remove_round(&transfer, used_before);
	}
	bench->next_key += transfer.round.objects;
	bench_round_print(&transfer.round, "");
	bench_samples_release(&transfer.round.samples);
}

void store_bench_get(struct store_bench *bench, uint32_t number)
{
	struct transfer transfer = {
		.bench = bench,
		.round = { .program = "store_bench", .mode = "get", .round = number,
			   .object_bytes = bench->object_bytes },
	};

	transfer_run(&transfer);
	for (uint32_t i = 0; i < bench->in_flight; i++) {
		if (!bench->slots[i].filled)
			continue;
		check_slot(bench, &bench->slots[i]);
		transfer.round.verified++;
	}
	bench_round_print(&transfer.round, "");
	bench_samples_release(&transfer.round.samples);
}

void store_bench_batch(struct store_bench *bench, uint32_t number)
{
	struct transfer transfer = {
		.bench = bench, .limit = bench->in_flight, .stop_ns = UINT64_MAX,
		.round = { .program = "store_bench", .mode = "batch", .round = number,
			   .object_bytes = bench->object_bytes },
	};
	char extra[160 + 16 * BENCH_IN_FLIGHT_MAX];
	uint64_t began_ns;
	double cpu_s, sum_ns = 0;
	int used;

	memset(bench->memory, 0xa5, bench->memory_bytes);
	cpu_s = bench_cpu_s();
	began_ns = bench_now_ns();
	refill(&transfer);
	while (transfer.busy)
		take_results(&transfer);
	transfer.round.wall_s = (double)(bench_now_ns() - began_ns) / 1e9;
	transfer.round.cpu_s = bench_cpu_s() - cpu_s;
	for (uint32_t i = 0; i < bench->in_flight; i++) {
		check_slot(bench, &bench->slots[i]);
		transfer.round.verified++;
	}
	bench_samples_sort(&transfer.round.samples);
	for (size_t i = 0; i < transfer.round.samples.count; i++)
		sum_ns += (double)transfer.round.samples.ns[i];
	used = snprintf(extra, sizeof(extra), ",\"mean_part\":%.4f,\"first_part\":%.4f,\"parts\":[",
			sum_ns / 1e9 / (double)transfer.round.objects / transfer.round.wall_s,
			(double)transfer.round.samples.ns[0] / 1e9 / transfer.round.wall_s);
	for (size_t i = 0; i < transfer.round.samples.count; i++)
		used += snprintf(extra + used, sizeof(extra) - (size_t)used, "%s%.3f", i ? "," : "",
				 (double)transfer.round.samples.ns[i] / 1e9 / transfer.round.wall_s);
	snprintf(extra + used, sizeof(extra) - (size_t)used, "]");
	bench_round_print(&transfer.round, extra);
	bench_samples_release(&transfer.round.samples);
}
