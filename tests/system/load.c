/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/store_kit.h"

#include "system/load.h"

/* One of 4,096 steps and less is the smallest there is: nothing but a footer. */
uint64_t load_bytes(const struct load *load, uint32_t number, uint32_t generation)
{
	uint64_t random = kit_mix(number * UINT64_C(1000003) + generation);
	uint64_t limit = random % 4 == 0 ? load->bytes_max : load->bytes_max / 8;

	return (random >> 8) % limit;
}

void load_key(char text[32], uint32_t number)
{
	snprintf(text, 32, "model@%08x@0@%04x", number % 7, number);
}

static struct load_line *own_line(struct load_worker *worker, uint32_t *number)
{
	const struct load *load = worker->load;

	*number = (uint32_t)kit_below(&worker->random, load->keys / load->workers) * load->workers + worker->index;
	return &load->ledger->lines[*number];
}

static void count_answer(struct load_ledger *ledger, atomic_uint_fast64_t reasons[16], uint32_t reason, uint64_t began_us)
{
	uint64_t took_us = kit_now_us() - began_us, slowest_us = ledger->slowest_us;

	reasons[reason & 15]++;
	while (took_us > slowest_us && !atomic_compare_exchange_weak(&ledger->slowest_us, &slowest_us, took_us))
		;
}

/* ---- the steps ------------------------------------------------------------------------------------ */

static void put_answered(const struct load *load, struct load_line *line, const struct kvk_result *result)
{
	if (result->status || load->ledger->over)
		return;
	if (load->promises & LOAD_ORDERS_PUTS)
		line->oldest = line->generation;
	if (load->promises & LOAD_KEEPS) {
		line->sure = line->generation;
		line->damaged = 0;
	}
	line->phase = LOAD_PRESENT;
}

/*
 * A new generation only where nothing may be there: what is there, or may be, is put again as it is, as engines do.
 */
static void step_put(struct load_worker *worker)
{
	const struct load *load = worker->load;
	struct load_ledger *ledger = load->ledger;
	struct kvk_put_item items[LOAD_BATCH];
	struct kvk_result results[LOAD_BATCH];
	struct load_line *lines[LOAD_BATCH];
	struct iovec data[LOAD_BATCH];
	char keys[LOAD_BATCH][32], parents[LOAD_BATCH][32];
	uint32_t numbers[LOAD_BATCH], count = 0, wanted = 1 + (uint32_t)kit_below(&worker->random, LOAD_BATCH);
	uint64_t began_us;

	memset(items, 0, sizeof(items));
	for (uint32_t i = 0; i < wanted; i++) {
		struct load_line *line = own_line(worker, &numbers[count]);
		bool twice = false;

		for (uint32_t j = 0; j < count; j++)
			twice = twice || lines[j] == line;
		if (twice || (line->phase == LOAD_PRESENT && kit_below(&worker->random, 8)))
			continue;
		/* Generation 0 is none: a remove of what never was may be all that is known of a key. One older than what may
		 * be found is left where a process died between the two words of an answer. */
		if (line->phase == LOAD_ABSENT || line->generation < line->oldest || line->generation == 0) {
			line->phase = LOAD_UNKNOWN;
			line->generation++;
		}
		load_key(keys[count], numbers[count]);
		data[count].iov_len = load_bytes(load, numbers[count], line->generation);
		data[count].iov_base = worker->memory + (uint64_t)count * load->bytes_max;
		bed_fill(data[count].iov_base, data[count].iov_len, bed_key(keys[count]), line->generation, 0);
		items[count] = (struct kvk_put_item){ .struct_bytes = sizeof(items[0]), .key = bed_key(keys[count]),
						      .data = &data[count], .data_count = 1 };
		if (load->chains && numbers[count] >= load->workers) {
			load_key(parents[count], numbers[count] - load->workers);
			items[count].parent = bed_key(parents[count]);
		}
		results[count].struct_bytes = sizeof(results[0]);
		lines[count++] = line;
	}
	if (count == 0)
		return;
	began_us = kit_now_us();
	if (kvk_store_put_wait(load->store, items, count, load->deadline_us, results)) {
		ledger->refused++;
		return;
	}
	for (uint32_t i = 0; i < count; i++) {
		put_answered(load, lines[i], &results[i]);
		count_answer(ledger, ledger->put_reasons, results[i].reason, began_us);
	}
	ledger->puts += count;
}

static void step_remove(struct load_worker *worker)
{
	const struct load *load = worker->load;
	uint32_t number;
	struct load_line *line = own_line(worker, &number);
	struct kvk_result result = { .struct_bytes = sizeof(result) };
	uint64_t began_us = kit_now_us();
	struct kvk_key_item item = { .struct_bytes = sizeof(item) };
	char key[32];

	load_key(key, number);
	item.key = bed_key(key);
	line->sure = 0;
	line->phase = LOAD_UNKNOWN;
	if (kvk_store_remove_wait(load->store, &item, 1, load->deadline_us, &result)) {
		load->ledger->refused++;
		return;
	}
	count_answer(load->ledger, load->ledger->remove_reasons, result.reason, began_us);
	load->ledger->removes++;
	if ((result.status && (result.status != -ENOENT || result.reason != KVK_REASON_ABSENT)) || load->ledger->over)
		return;
	if (load->promises & LOAD_ORDERS_REMOVES)
		line->oldest = line->generation + 1;
	line->phase = LOAD_ABSENT;
}

/* The generation that was delivered, 0: none that may be. The newest first; there are seldom more than two. */
static uint32_t judge(const struct load *load, const uint8_t *memory, uint64_t bytes, uint32_t number, uint32_t oldest,
		      uint32_t newest)
{
	char key[32];

	load_key(key, number);
	for (uint32_t generation = newest; generation >= oldest && generation > 0; generation--) {
		if (bytes == load_bytes(load, number, generation) &&
		    bed_judge(memory, bytes, bed_key(key), generation, 0) == BED_RIGHT)
			return generation;
	}
	return 0;
}

static void tell_wrong(const struct load *load, const uint8_t *memory, uint64_t bytes, uint32_t number, uint32_t oldest,
		       uint32_t newest)
{
	char key[32];

	load_key(key, number);
	for (uint32_t generation = newest + 2; generation > 0; generation--) {
		if (bytes == load_bytes(load, number, generation) &&
		    bed_judge(memory, bytes, bed_key(key), generation, 0) == BED_RIGHT) {
			bed_wrong("%s was answered with generation %u; %u to %u may be there", key, generation, oldest,
				  newest);
			return;
		}
	}
	bed_wrong("%s was answered with %llu bytes that are %s; generations %u to %u may be there", key,
		  (unsigned long long)bytes, bed_verdict_name(bed_judge(memory, bytes, bed_key(key), newest, 0)),
		  oldest, newest);
}

/* Anybody's key: its owner may change it meanwhile. */
static void step_get(struct load_worker *worker)
{
	const struct load *load = worker->load;
	uint32_t number = (uint32_t)kit_below(&worker->random, load->keys);
	struct load_line *line = &load->ledger->lines[number];
	uint32_t oldest = load->promises & LOAD_ORDERS_REMOVES ? line->oldest : 1;
	struct iovec iov = { .iov_base = worker->memory, .iov_len = load->bytes_max };
	struct kvk_result result = { .struct_bytes = sizeof(result) };
	uint64_t began_us = kit_now_us();
	struct kvk_get_item item = { .struct_bytes = sizeof(item), .data = &iov, .data_count = 1 };
	char key[32];

	load_key(key, number);
	item.key = bed_key(key);
	if (kvk_store_get_wait(load->store, &item, 1, load->deadline_us, &result)) {
		load->ledger->refused++;
		return;
	}
	count_answer(load->ledger, load->ledger->get_reasons, result.reason, began_us);
	load->ledger->gets++;
	if (result.status)
		return;
	load->ledger->hits++;
	if (judge(load, worker->memory, result.object_bytes, number, oldest, line->generation))
		return;
	tell_wrong(load, worker->memory, result.object_bytes, number, oldest, line->generation);
	load->ledger->wrong++;
}

void load_step(struct load_worker *worker)
{
	uint64_t which = kit_below(&worker->random, 16);

	if (!worker->memory)
		worker->memory = malloc((uint64_t)LOAD_BATCH * worker->load->bytes_max);
	if (!worker->memory)
		abort();
	if (which < worker->load->put_share)
		step_put(worker);
	else if (which < worker->load->put_share + worker->load->get_share)
		step_get(worker);
	else
		step_remove(worker);
}

void load_release(struct load_worker *worker)
{
	free(worker->memory);
	worker->memory = NULL;
}

/* ---- threads -------------------------------------------------------------------------------------- */

static void *worker_main(void *argument)
{
	struct load_worker *worker = argument;

	worker->load->ledger->workers++;
	while (!*worker->stop) {
		load_step(worker);
		if (worker->load->pause_us)
			usleep((useconds_t)kit_below(&worker->random, worker->load->pause_us));
	}
	load_release(worker);
	worker->load->ledger->workers--;
	return NULL;
}

void load_start(const struct load *load, struct load_worker *workers, uint64_t *random, atomic_bool *stop)
{
	*stop = false;
	for (uint32_t i = 0; i < load->workers; i++) {
		workers[i] = (struct load_worker){ .load = load, .index = i, .random = kit_random(random), .stop = stop };
		assert_int_equal(pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]), 0);
	}
}

void load_stop(struct load_worker *workers, uint32_t count)
{
	*workers[0].stop = true;
	for (uint32_t i = 0; i < count; i++)
		assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
}

/* ---- judging -------------------------------------------------------------------------------------- */

static void learn_of(struct load_line *line, uint32_t generation, bool damaged)
{
	line->damaged = damaged;
	if (generation) {
		line->generation = generation;
		line->oldest = generation;
		line->sure = generation;
		line->phase = LOAD_PRESENT;
	} else {
		line->oldest = line->generation + 1;
		line->sure = 0;
		line->phase = LOAD_ABSENT;
	}
}

/* Several at a time: one after the other would wait for the machine most of the time. */
#define VERIFY_BATCH 32u

struct verify {
	const struct load *load;
	bool learn;
	uint8_t *memory;
	struct load_found *found;
};

static void verify_key(const struct verify *verify, uint32_t number, const struct load_line *first,
		       const uint8_t *memory, const struct kvk_result *result)
{
	const struct load *load = verify->load;
	struct load_found *found = verify->found;
	struct load_line *line = &load->ledger->lines[number];
	uint32_t sure = first->sure == line->sure ? line->sure : 0, generation = 0;
	char key[32];

	load_key(key, number);
	if (result->status == 0) {
		found->hits++;
		generation = judge(load, memory, result->object_bytes, number, first->oldest, line->generation);
		if (!generation) {
			tell_wrong(load, memory, result->object_bytes, number, first->oldest, line->generation);
			found->wrong++;
		}
	} else if (result->reason == KVK_REASON_DAMAGED) {
		found->rejected += line->damaged == 0;
		found->rejected_again += line->damaged;
	} else if (result->status == -ENOENT && result->reason == KVK_REASON_ABSENT) {
		found->absent++;
	} else {
		fprintf(stderr, "%s: status %d, reason \"%s\"\n", key, result->status, kvk_reason_text(result->reason));
		found->failed++;
	}
	if (sure && generation != sure) {
		fprintf(stderr, "%s: generation %u was acknowledged and is lost: status %d, reason \"%s\"\n", key, sure,
			result->status, kvk_reason_text(result->reason));
		found->lost++;
	}
	if (line->phase == (generation ? LOAD_ABSENT : LOAD_PRESENT))
		found->undone++;
	if (verify->learn)
		learn_of(line, generation, result->reason == KVK_REASON_DAMAGED);
}

static void verify_batch(const struct verify *verify, uint32_t from, uint32_t count, const struct load_line *first)
{
	struct kvk_get_item items[VERIFY_BATCH];
	struct kvk_result results[VERIFY_BATCH];
	struct iovec data[VERIFY_BATCH];
	char keys[VERIFY_BATCH][32];

	for (uint32_t i = 0; i < count; i++) {
		load_key(keys[i], from + i);
		data[i].iov_base = verify->memory + (uint64_t)i * verify->load->bytes_max;
		data[i].iov_len = verify->load->bytes_max;
		items[i] = (struct kvk_get_item){ .struct_bytes = sizeof(items[0]), .key = bed_key(keys[i]),
						  .data = &data[i], .data_count = 1 };
		results[i].struct_bytes = sizeof(results[0]);
	}
	assert_int_equal(kvk_store_get_wait(verify->load->store, items, count, 0, results), 0);
	for (uint32_t i = 0; i < count; i++)
		verify_key(verify, from + i, &first[from + i], data[i].iov_base, &results[i]);
}

void load_verify(const struct load *load, const struct load_line *first, bool learn, struct load_found *found)
{
	struct verify verify = { .load = load, .learn = learn, .found = found };

	verify.memory = malloc((uint64_t)VERIFY_BATCH * load->bytes_max);
	assert_non_null(verify.memory);
	for (uint32_t from = 0; from < load->keys; from += VERIFY_BATCH)
		verify_batch(&verify, from, from + VERIFY_BATCH < load->keys ? VERIFY_BATCH : load->keys - from,
			     first ? first : load->ledger->lines);
	free(verify.memory);
}
