/* SPDX-License-Identifier: Apache-2.0 */
#include "schedule_run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <malloc.h>
#include <pthread.h>
#include <sys/prctl.h>

#include "unit/store_kit.h"

#include "schedule.h"
#include "schedule_judge.h"
#include "schedule_medium.h"

#define MEDIUM "schedules"
#define BYTES 4500u
#define STORED_BYTES 12288u
#define CLIENTS_MAX 4
#define KEYS_MAX 2
#define STORES_MAX 3
#define SCENARIOS_MAX 32
#define UNTOUCHED 0xa5
#define LEFT 0x5c
/* What was unlinked is credited at the next visit of the account but one, and news come round as often, four times a second; the
 * keeper, who hears none, looks at all folders once a second. */
#define REST_US 1500000
/* A credit may wait for the charge of another process for 2 s, and after that, like what could not be moved back, for the keeper, who
 * lists what rests and syncs now and then. */
#define RESTS 12
/* A step that is held ends after the deadline, and after the watch has found the lane stuck. */
#define HOLD_US 2500000
#define DEADLINE_US 300000
#define REST_OF_HELD_US 9000000
/* About as many points as a schedule has, so that a few stores are killed when they have nothing to do. */
#define KILL_POINTS 250

struct client {
	struct run *run;
	uint32_t store;
	bool opens, waits;             /* it opens the store, before anything else; and before that it waits for a death */
	bool over, joined;
	uint32_t first, count;         /* its acts in the history */
	uint8_t *memory[ACTS_MAX];
};

struct run {
	const struct scenario *scenario;
	uint64_t random;
	uint64_t seed;
	struct kvk_store *stores[STORES_MAX];
	uint32_t store_count;          /* of those that were ever opened, or are to be */
	bool killed;                   /* the store that is the victim */
	uint32_t victim;
	struct client clients[CLIENTS_MAX + 1];
	uint32_t client_count;
	struct history history;
	struct beginning beginnings[KEYS_MAX];
	char wrong[300];               /* what was wrong first; empty: nothing */
};

static const char *const keys[KEYS_MAX] = { "m@0@0@a", "m@0@0@b" };

__attribute__((format(printf, 2, 3)))
static void is_wrong(struct run *run, const char *format, ...)
{
	va_list arguments;

	if (run->wrong[0])
		return;
	va_start(arguments, format);
	vsnprintf(run->wrong, sizeof(run->wrong), format, arguments);
	va_end(arguments);
}

/* ---- acts ------------------------------------------------------------------------------------------- */

static void answered(struct act *act, int err, const struct kvk_result *result)
{
	act->status = err ? err : result->status;
	act->reason = err ? 0 : result->reason;
}

static void act_put(struct kvk_store *store, struct act *act, uint8_t *memory)
{
	struct iovec iov = { .iov_base = memory, .iov_len = BYTES };
	struct kvk_put_item item = {
		.struct_bytes = sizeof(item), .key = bed_key(keys[act->key]), .data = &iov, .data_count = 1,
	};
	struct kvk_result result = { .struct_bytes = sizeof(result) };

	bed_fill(memory, BYTES, item.key, act->generation, 0);
	answered(act, kvk_store_put_wait(store, &item, 1, act->deadline_us, &result), &result);
	/* What is read from it from here on shows. */
	memset(memory, LEFT, BYTES);
}

static void act_get(struct run *run, struct act *act, uint8_t *memory)
{
	struct iovec iov = { .iov_base = memory, .iov_len = BYTES };
	struct kvk_get_item item = {
		.struct_bytes = sizeof(item), .key = bed_key(keys[act->key]), .data = &iov, .data_count = 1,
	};
	struct kvk_result result = { .struct_bytes = sizeof(result) };
	enum bed_verdict verdict;

	memset(memory, UNTOUCHED, BYTES);
	answered(act, kvk_store_get_wait(run->stores[act->store], &item, 1, act->deadline_us, &result), &result);
	if (act->status == 0) {
		act->generation = bed_generation(memory);
		verdict = bed_judge(memory, BYTES, item.key, act->generation, 0);
		if (verdict != BED_RIGHT || result.object_bytes != BYTES) {
			atomic_fetch_add(&bed_wrong_answers, 1);
			is_wrong(run, "a get delivered %s", bed_verdict_name(verdict));
		}
	}
	memset(memory, LEFT, BYTES);
}

static void act_on_key(struct run *run, struct act *act)
{
	struct kvk_key_item item = {
		.struct_bytes = sizeof(item), .key = bed_key(keys[act->key]),
		.flags = act->kind == ACT_PIN ? KVK_LOOKUP_PIN : 0,
	};
	struct kvk_result result = { .struct_bytes = sizeof(result) };
	struct kvk_store *store = run->stores[act->store];
	int err;

	if (act->kind == ACT_REMOVE)
		err = kvk_store_remove_wait(store, &item, 1, act->deadline_us, &result);
	else if (act->kind == ACT_UNPIN)
		err = kvk_store_unpin_wait(store, &item, 1, &result);
	else
		err = kvk_store_lookup_wait(store, &item, 1, act->deadline_us, &result);
	answered(act, err, &result);
}

static bool is_killed(const struct run *run, uint32_t store)
{
	return run->killed && store == run->victim;
}

static void carry_out(struct run *run, struct act *act, uint8_t *memory)
{
	uint64_t evicted;

	act->begin = sched_step();
	sched_point("asks", "");
	act->never = is_killed(run, act->store);
	if (act->never)
		return;
	if (act->kind == ACT_PUT)
		act_put(run->stores[act->store], act, memory);
	else if (act->kind == ACT_GET)
		act_get(run, act, memory);
	else if (act->kind == ACT_DAMAGE)
		act->status = sched_medium_damage(MEDIUM, act->generation % 2);
	else if (act->kind == ACT_EVICT)
		act->status = kvk_store_evict(run->stores[act->store], STORED_BYTES, &evicted);
	else
		act_on_key(run, act);
	sched_point("is answered", "");
	act->end = sched_step();
	/* Nobody was there to hear it. */
	if (is_killed(run, act->store))
		act->status = -EIO;
}

/* keeper: else drawn. */
static bool open_store(struct run *run, struct kvk_store **ret, bool keeper)
{
	struct kvk_error error = { .struct_bytes = sizeof(error) };
	char spec[400];

	snprintf(spec, sizeof(spec), "{\"backend\": \"RAM\", \"backend_params\": {\"file_path\": \"" MEDIUM "\"}, "
		 "\"memory_mb\": 16, \"lanes\": %u, \"keeper\": %s, \"io_engine\": \"%s\"%s}",
		 1 + (unsigned)kit_below(&run->random, 2), kit_below(&run->random, 3) && !keeper ? "false" : "true",
		 kit_below(&run->random, 2) ? "threads" : "auto",
		 run->scenario->evicts ? ", \"eviction\": {\"eviction_policy\": \"LRU\"}" :
		 run->scenario->pool ? ", \"pool_size\": 12, \"slot_size\": 4096" : "");
	if (!kvk_store_open(ret, spec, NULL, &error))
		return true;
	is_wrong(run, "a store does not open: %s: %s", error.option, error.text);
	return false;
}

static void *client_main(void *argument)
{
	struct client *client = argument;
	struct run *run = client->run;

	sched_join_process(client->store + 1);
	if (client->opens) {
		while (client->waits && !run->killed)
			sched_sleep(&run->killed, UINT32_MAX);
		if (!open_store(run, &run->stores[client->store], true))
			return NULL;
	}
	for (uint32_t i = 0; i < client->count; i++)
		carry_out(run, &run->history.acts[client->first + i], client->memory[i]);
	client->over = true;
	return NULL;
}

/* ---- a schedule ------------------------------------------------------------------------------------- */

static enum act_kind draw_kind(struct run *run)
{
	uint64_t sum = 0, at;

	for (uint32_t i = 0; i < ACT_KINDS; i++)
		sum += run->scenario->odds[i];
	at = kit_below(&run->random, sum);
	for (uint32_t i = 0;; i++) {
		if (at < run->scenario->odds[i])
			return (enum act_kind)i;
		at -= run->scenario->odds[i];
	}
}

static struct act *add_act(struct run *run, enum act_kind kind, uint32_t store, uint32_t key)
{
	struct act *act = &run->history.acts[run->history.count++];

	*act = (struct act){ .kind = kind, .store = store, .key = key, .generation = 1 + run->history.count };
	act->deadline_us = run->scenario->hold ? DEADLINE_US : 0;
	return act;
}

static void draw_client(struct run *run, uint32_t store)
{
	struct client *client = &run->clients[run->client_count++];

	client->run = run;
	client->store = store;
	client->first = run->history.count;
	client->count = 1 + (uint32_t)kit_below(&run->random, 2);
	for (uint32_t k = 0; k < client->count; k++) {
		struct act *act = add_act(run, draw_kind(run), store, (uint32_t)kit_below(&run->random, run->scenario->keys));

		client->memory[k] = NULL;
		if (act->kind == ACT_PUT || act->kind == ACT_GET)
			client->memory[k] = memset(malloc(BYTES), LEFT, BYTES);
		if (act->kind != ACT_PIN)
			continue;
		client->memory[++k] = NULL;
		client->count++;
		add_act(run, ACT_UNPIN, store, act->key);
	}
}

static void draw_clients(struct run *run)
{
	const struct scenario *scenario = run->scenario;
	uint32_t count = 2 + (uint32_t)kit_below(&run->random, CLIENTS_MAX - 1);

	for (uint32_t i = 0; i < count; i++)
		draw_client(run, (uint32_t)kit_below(&run->random, scenario->stores));
	run->store_count = scenario->stores;
	if (!scenario->dies)
		return;
	run->victim = (uint32_t)kit_below(&run->random, scenario->stores);
	if (scenario->stores > 1 && kit_below(&run->random, 2))
		return;
	draw_client(run, run->store_count++);
	run->clients[count].opens = true;
	run->clients[count].waits = scenario->stores == 1 || kit_below(&run->random, 2);
}

static void store_before(struct run *run, struct kvk_store *former)
{
	uint8_t memory[BYTES];

	for (uint32_t i = 0; i < run->scenario->keys; i++) {
		struct act act = { .kind = ACT_PUT, .key = i, .generation = 1 };
		uint32_t store = (uint32_t)kit_below(&run->random, run->scenario->stores);

		if (kit_below(&run->random, 100) >= run->scenario->present)
			continue;
		act_put(former ? former : run->stores[store], &act, memory);
		if (act.status)
			is_wrong(run, "a put before all others is answered %d", act.status);
		run->beginnings[i].generation = 1;
		/* Which file is whose is not known: only where there is one key one is damaged. */
		if (run->scenario->keys == 1 && kit_below(&run->random, 100) < run->scenario->damaged) {
			run->beginnings[i].damaged = true;
			if (sched_medium_damage(MEDIUM, kit_below(&run->random, 2)))
				is_wrong(run, "what was stored is not there");
		}
	}
}

/* Opens the stores; what is there when it begins was stored by one of them, which knows it, or by one that was closed before.
 * False: it cannot begin. */
static bool prepare(struct run *run)
{
	bool former = kit_below(&run->random, 4) < (run->scenario->stores == 1 ? 3 : 1), opened;
	struct kvk_store *store;

	if (former) {
		if (!open_store(run, &store, false))
			return false;
		store_before(run, store);
		kvk_store_close(store);
		if (run->scenario->jumps)
			sched_jump();
	}
	for (uint32_t i = 0; i < run->scenario->stores; i++) {
		sched_join_process(i + 1);
		opened = open_store(run, &run->stores[i], i == 1 || run->scenario->dies);
		sched_join_process(0);
		if (!opened)
			return false;
	}
	if (!former)
		store_before(run, NULL);
	return true;
}

static bool is_counted(struct run *run)
{
	struct sched_truth truth;

	if (sched_medium_truth(MEDIUM, &truth))
		return false;
	for (uint32_t i = 0; i < run->store_count; i++) {
		if (is_killed(run, i))
			continue;
		if (bed_usage(run->stores[i]).used_bytes < truth.bytes)
			is_wrong(run, "store %u: fewer bytes are used than the %" PRIu64 " that are there", i, truth.bytes);
		if (bed_usage(run->stores[i]).used_bytes != truth.bytes)
			return false;
	}
	return true;
}

static void look_at_rest(struct run *run)
{
	struct sched_truth truth;

	if (sched_medium_truth(MEDIUM, &truth))
		is_wrong(run, "the account cannot be read");
	for (uint32_t i = 0; i < run->store_count; i++) {
		struct kvk_usage usage;

		if (is_killed(run, i))
			continue;
		usage = bed_usage(run->stores[i]);
		if (usage.used_bytes != truth.bytes)
			is_wrong(run, "store %u: %" PRIu64 " bytes are used, %" PRIu64 " are there", i, usage.used_bytes, truth.bytes);
		if (usage.writing_bytes || usage.pinned_objects)
			is_wrong(run, "store %u: %" PRIu64 " bytes are being written, %" PRIu64 " objects pinned", i,
				 usage.writing_bytes, usage.pinned_objects);
	}
	if (truth.others || truth.places)
		is_wrong(run, "%" PRIu64 " temporary files and %" PRId64 " open ones are left", truth.others, truth.places);
}

/* What all ask when nobody else does has one answer. */
static void ask_at_rest(struct run *run)
{
	static const enum act_kind kinds[] = { ACT_LOOKUP, ACT_GET };
	uint8_t memory[BYTES];

	for (uint32_t k = 0; k < 2; k++) {
		for (uint32_t i = 0; i < run->store_count * run->scenario->keys; i++) {
			struct act *act;

			if (is_killed(run, i % run->store_count))
				continue;
			act = add_act(run, kinds[k], i % run->store_count, i / run->store_count);
			act->at_rest = true;
			act->begin = 1000000 + run->history.count;
			(act->kind == ACT_GET ? act_get(run, act, memory) : act_on_key(run, act));
			act->end = act->begin;
		}
	}
}

static void look_closed(struct run *run)
{
	struct sched_truth truth;

	if (sched_medium_truth(MEDIUM, &truth) || truth.counted_bytes != truth.bytes || truth.leased_bytes || truth.places)
		is_wrong(run, "after closing the account counts %" PRIu64 " bytes, %" PRIu64 " of them leased; there are %" PRIu64
			 ", and %" PRId64 " open files", truth.counted_bytes, truth.leased_bytes, truth.bytes, truth.places);
}

static void kill_victim(void *user)
{
	struct run *run = user;

	run->killed = true;
	sched_medium_kill(run->victim + 1);
	sched_wake(&run->killed, true);
}

static void meet(struct run *run, pthread_t threads[CLIENTS_MAX + 1])
{
	uint32_t early = 0;

	sched_calm(false);
	if (run->scenario->dies)
		sched_kill_at(1 + sched_below(KILL_POINTS), run->victim + 1, kill_victim, run);
	while (early < run->client_count && !run->clients[early].opens)
		early++;
	for (uint32_t i = 0; i < run->client_count; i++)
		pthread_create(&threads[i], NULL, client_main, &run->clients[i]);
	for (uint32_t i = 0; i < early; i++) {
		pthread_join(threads[i], NULL);
		run->clients[i].joined = run->clients[i].over;
	}
	if (run->scenario->dies && !run->killed)
		sched_kill_at(0, run->victim + 1, kill_victim, run);
	for (uint32_t i = early; i < run->client_count; i++)
		pthread_join(threads[i], NULL);
	sched_calm(true);
}

/* What a process that was killed had is given back in its name, which changes nothing any more. */
static void bury(struct run *run, const pthread_t threads[CLIENTS_MAX + 1])
{
	sched_revive(run->victim + 1);
	for (uint32_t i = 0; i < run->client_count; i++) {
		if (!run->clients[i].joined && run->clients[i].store == run->victim)
			pthread_join(threads[i], NULL);
	}
	kvk_store_close(run->stores[run->victim]);
}

static void body(void *argument)
{
	struct run *run = argument;
	uint64_t rest_us = run->scenario->hold ? REST_OF_HELD_US : REST_US;
	const struct timespec rest = { .tv_sec = (time_t)(rest_us / 1000000), .tv_nsec = (long)(rest_us % 1000000) * 1000 };
	pthread_t threads[CLIENTS_MAX + 1];

	if (prepare(run)) {
		meet(run, threads);
		if (run->scenario->jumps)
			sched_jump();
		nanosleep(&rest, NULL);
		for (uint32_t i = 1; i < RESTS && !is_counted(run); i++)
			nanosleep(&rest, NULL);
		look_at_rest(run);
		ask_at_rest(run);
	}
	for (uint32_t i = 0; i < run->store_count; i++) {
		if (!is_killed(run, i))
			kvk_store_close(run->stores[i]);
	}
	look_closed(run);
	if (run->killed)
		bury(run, threads);
}

static void judge(struct run *run, const struct sched_outcome *outcome)
{
	if (outcome->stuck)
		is_wrong(run, "it comes to no end");
	for (uint32_t i = 0; i < run->scenario->keys && !run->wrong[0]; i++) {
		if (!history_is_explained(&run->history, i, run->beginnings[i]))
			is_wrong(run, "no order explains what was answered of key %u", i);
	}
	for (uint32_t i = 0; i < run->client_count; i++) {
		for (uint32_t k = 0; k < run->clients[i].count; k++) {
			const uint8_t *memory = run->clients[i].memory[k];

			if (memory && (memory[0] != LEFT || memcmp(memory, memory + 1, BYTES - 1)))
				is_wrong(run, "memory was touched after its answer");
		}
	}
}

static void draw_options(struct run *run, struct sched_options *options)
{
	static const uint32_t stays[] = { 1, 2, 4, 0 }, demotes[] = { 10, 40, 160 }, locks[] = { 0, 1, 4 };
	static const uint32_t timers[] = { 0, 0, 100, 400 };

	*options = (struct sched_options){
		.seed = run->seed,
		.stay = stays[kit_below(&run->random, 4)],
		.demote = demotes[kit_below(&run->random, 3)],
		.locks = locks[kit_below(&run->random, 3)],
		.timers = timers[kit_below(&run->random, 4)],
		.jumps = run->scenario->jumps,
	};
}

/* What is wrong with it, or NULL; *outcome is told either way. */
static const char *run_schedule(const struct scenario *scenario, uint64_t seed, struct sched_outcome *outcome)
{
	static struct run run;
	struct sched_medium_options medium = {
		.ring = kit_mix(seed + 1) % 3 == 0, .waits = kit_mix(seed + 2) % 2, .shorten = scenario->shorten, .hold = scenario->hold, .hold_us = HOLD_US,
	};
	struct sched_options options;

	run = (struct run){ .scenario = scenario, .seed = seed, .random = kit_mix(seed) };
	draw_options(&run, &options);
	draw_clients(&run);
	run.history.vanish = scenario->evicts;
	run.history.damaged = scenario->damaged > 0 || scenario->odds[ACT_DAMAGE] > 0;
	sched_medium_set(&medium);
	sched_run(&options, body, &run, outcome);
	judge(&run, outcome);
	for (uint32_t i = 0; i < run.client_count; i++) {
		for (uint32_t k = 0; k < run.clients[i].count; k++)
			free(run.clients[i].memory[k]);
	}
	sched_medium_forget(MEDIUM);
	if (run.wrong[0])
		history_tell(&run.history);
	return run.wrong[0] ? run.wrong : NULL;
}

/* ---- cases ------------------------------------------------------------------------------------------ */

/* One in so many is run again, and has to be the same schedule. */
#define AGAIN 16
#define FOUND_MAX (sizeof(((struct scenario *)NULL)->found) / sizeof(uint64_t))
static uint64_t steps, seed;

static void schedules(void **state)
{
	const struct scenario *scenario = *state;
	struct sched_outcome outcome, again;
	uint64_t points = 0, repeated = 0, count = steps;

#if defined(__SANITIZE_THREAD__)
	SKIP("one thread of the system carries all: there is nothing for ThreadSanitizer to see");
#endif
	atomic_store(&bed_wrong_answers, 0);
	for (uint32_t i = 0; !getenv("KVK_STEPS") && i < FOUND_MAX && scenario->found[i]; i++)
		count++;
	for (uint64_t i = 0; i < count; i++) {
		uint64_t which = i < steps ? seed + i : scenario->found[i - steps];
		const char *wrong = run_schedule(scenario, which, &outcome);

		if (!wrong && i % AGAIN == 0) {
			wrong = run_schedule(scenario, which, &again);
			if (!wrong && (again.trace != outcome.trace || again.points != outcome.points))
				wrong = "the same seed made another schedule";
			repeated++;
		}
		points += outcome.points;
		if (wrong)
			fail_msg("%s (KVK_ONLY=%s KVK_STEPS=1 KVK_SEED=%" PRIu64 ")", wrong, scenario->name, which);
	}
	proof_tell_more(9, count, "schedules", atomic_load(&bed_wrong_answers), "steps=%" PRIu64 " repeated=%" PRIu64, points, repeated);
}

int schedules_main(const struct scenario *scenarios, uint32_t count, uint64_t schedules_of_each)
{
	struct CMUnitTest tests[SCENARIOS_MAX] = { 0 };

	assert_true(count <= SCENARIOS_MAX);
	/* A huge page is cleared for each store that is opened, and memory given back is asked for again: a seventh of the time. */
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	mallopt(M_MMAP_THRESHOLD, 64 << 20);
	mallopt(M_TRIM_THRESHOLD, 512 << 20);
	steps = kit_number("KVK_STEPS", KIT_SANITIZED ? schedules_of_each / 4 : schedules_of_each);
	seed = kit_number("KVK_SEED", 1);
	for (uint32_t i = 0; i < count; i++)
		tests[i] = (struct CMUnitTest){ scenarios[i].name, schedules, NULL, NULL, (void *)(uintptr_t)&scenarios[i] };
	cmocka_set_test_filter(getenv("KVK_ONLY"));
	return _cmocka_run_group_tests("schedules", tests, count, NULL, NULL);
}
