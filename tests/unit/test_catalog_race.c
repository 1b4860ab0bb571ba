/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads that put, look up, load, remove and evict the same few keys, over a medium that is one number per
 * key: what its file costs, or 0. Between asking the catalog and telling it, anything may run. Puts, removes
 * and secondary lookups follow the protocol of catalog.h. At the end, and for removes of ours at every moment,
 * the catalog must agree with the medium: no object without a file, each charged what its file costs, once.
 */
#include <sched.h>
#include <stdlib.h>

#include "catalog_kit.h"
#include "support/proof.h"

#define RACE_KEYS 12u
#define RACE_THREADS 6u
#define RACE_STEPS_DEFAULT 20000u
#define RACE_LEASE (INT64_C(1) << 50)  /* what is removed does not come back to it */

struct race {
	struct kvk_catalog *catalog;
	struct digest digests[RACE_KEYS];
	_Atomic uint64_t files[RACE_KEYS];     /* charge in bytes; 0: no such name */
	bool others_remove;                    /* files vanish behind the catalog's back */
	uint32_t steps;
	_Atomic uint64_t published_bytes;
	_Atomic uint64_t stale;
	_Atomic uint64_t adopted;
	_Atomic uint64_t lost;
	_Atomic uint64_t evicted;
};

struct racer {
	struct race *race;
	uint64_t random;
	pthread_t thread;
};

static uint32_t racer_pick(struct racer *racer, uint32_t below)
{
	racer->random ^= racer->random << 13;
	racer->random ^= racer->random >> 7;
	racer->random ^= racer->random << 17;
	return (uint32_t)(racer->random >> 33) % below;
}

/* Where real work would read or write the medium. */
static void medium_takes_time(struct racer *racer)
{
	if (racer_pick(racer, 4) == 0)
		sched_yield();
}

static void race_put(struct racer *racer, uint32_t key)
{
	struct race *race = racer->race;
	uint64_t reserved = (1 + racer_pick(racer, 8)) * PAGE;
	uint64_t file = (1 + racer_pick(racer, 8)) * PAGE;
	struct kvk_object_info info = { .logical_bytes = 1, .tenant = "tenant", .tenant_bytes = 1 + key % 4 };
	uint64_t existing = 0;
	bool durable;

	if (kvk_catalog_put_begin(race->catalog, race->digests[key].bytes, reserved, &durable))
		return;
	medium_takes_time(racer);
	if (racer_pick(racer, 8) == 0) {
		kvk_catalog_put_end(race->catalog, race->digests[key].bytes, NULL);
		return;
	}
	/* Published without replacing: what is there already counts as stored. */
	info.published = atomic_compare_exchange_strong(&race->files[key], &existing, file);
	if (info.published)
		atomic_fetch_add(&race->published_bytes, file);
	else
		file = existing;
	medium_takes_time(racer);
	info.charge_bytes = file;
	memcpy(info.parent_digest, race->digests[(key + 1) % RACE_KEYS].bytes, sizeof(info.parent_digest));
	kvk_catalog_put_end(race->catalog, race->digests[key].bytes, &info);
}

static void race_lookup(struct racer *racer, uint32_t key)
{
	struct race *race = racer->race;
	struct kvk_object_info info = { .logical_bytes = 1, .model = "model", .model_bytes = 1 + key % 5 };
	const uint8_t *warmed = race->digests[key].bytes;
	struct kvk_catalog_ticket ticket;
	uint64_t file;
	int state;

	kvk_catalog_warm(race->catalog, &warmed, 1);
	state = kvk_catalog_look(race->catalog, race->digests[key].bytes, true, true, &ticket, NULL);
	if (state == KVK_CATALOG_UNKNOWN) {
		int err;

		medium_takes_time(racer);
		file = atomic_load(&race->files[key]);
		medium_takes_time(racer);
		if (file == 0)
			return;
		info.charge_bytes = file;
		err = kvk_catalog_found(race->catalog, race->digests[key].bytes, &ticket, &info, true);
		if (err == -ESTALE)
			atomic_fetch_add(&race->stale, 1);
		if (err)
			return;
		atomic_fetch_add(&race->adopted, 1);
		state = KVK_CATALOG_PRESENT;
	}
	if (state != KVK_CATALOG_PRESENT)
		return;
	medium_takes_time(racer);
	if (!race->others_remove && atomic_load(&race->files[key]) == 0)
		fail_msg("key %u is pinned and has no file", key);
	kvk_catalog_unpin(race->catalog, race->digests[key].bytes);
}

static void race_remove(struct racer *racer, uint32_t key)
{
	struct race *race = racer->race;
	uint64_t charge;
	uint64_t file;
	bool pinned;

	if (kvk_catalog_remove_begin(race->catalog, race->digests[key].bytes, &pinned))
		return;
	medium_takes_time(racer);
	if (racer_pick(racer, 8) == 0) {
		kvk_catalog_remove_renamed(race->catalog, race->digests[key].bytes, false, &charge);
		return;
	}
	file = atomic_exchange(&race->files[key], 0);
	medium_takes_time(racer);
	kvk_catalog_remove_renamed(race->catalog, race->digests[key].bytes, true, &charge);
	if (!race->others_remove && charge != 0 && charge != file)
		fail_msg("key %u was charged %" PRIu64 ", its file cost %" PRIu64, key, charge, file);
	kvk_catalog_credit(race->catalog, charge);
}

/* A load that finds no file says so, under the ticket of its own look. */
static void race_load(struct racer *racer, uint32_t key)
{
	struct race *race = racer->race;
	struct kvk_catalog_ticket ticket;
	struct kvk_object_info info;

	if (kvk_catalog_look(race->catalog, race->digests[key].bytes, false, false, &ticket, &info) !=
	    KVK_CATALOG_PRESENT)
		return;
	medium_takes_time(racer);
	if (atomic_load(&race->files[key]) != 0) {
		kvk_catalog_set_durable(race->catalog, race->digests[key].bytes, &ticket);
		return;
	}
	medium_takes_time(racer);
	kvk_catalog_lost(race->catalog, race->digests[key].bytes, &ticket);
	atomic_fetch_add(&race->lost, 1);
}

/* What the policy chooses is removed as by a remove; some of it others used meanwhile. */
static void race_evict(struct racer *racer)
{
	struct race *race = racer->race;
	uint32_t asked = 1 + racer_pick(racer, 4);
	struct kvk_victim victims[4];
	uint32_t chosen = kvk_catalog_evict(race->catalog, (1 + racer_pick(racer, 20)) * PAGE, victims, asked);

	for (uint32_t i = 0; i < chosen; i++) {
		uint64_t charge, file;
		uint32_t key = 0;

		while (memcmp(race->digests[key].bytes, victims[i].prefix, sizeof(victims[i].prefix)) != 0)
			key++;
		medium_takes_time(racer);
		if (racer_pick(racer, 4) == 0) {
			kvk_catalog_evicted(race->catalog, victims[i].prefix, KVK_EVICT_KEPT,
					    victims[i].used_at_ns + 9000, &charge);
			continue;
		}
		file = atomic_exchange(&race->files[key], 0);
		medium_takes_time(racer);
		kvk_catalog_evicted(race->catalog, victims[i].prefix, file ? KVK_EVICTED : KVK_EVICT_ABSENT, 0,
				    &charge);
		if (!race->others_remove && charge != file)
			fail_msg("key %u was charged %" PRIu64 ", its file cost %" PRIu64, key, charge, file);
		kvk_catalog_credit(race->catalog, charge);
		atomic_fetch_add(&race->evicted, 1);
	}
}

static bool told(void *user, const uint8_t prefix[16], const struct kvk_object_info *info)
{
	uint64_t *bytes = user;

	*bytes += info->charge_bytes + info->tenant_bytes + info->model_bytes;
	return true;
}

/* The scan of a medium that changes under it, links that may be out of date, the snapshot, the watch. */
static void race_recover(struct racer *racer, uint32_t key)
{
	struct race *race = racer->race;
	uint32_t parent = racer_pick(racer, RACE_KEYS);
	uint64_t bytes = 0;

	kvk_catalog_link(race->catalog, race->digests[key].bytes, race->digests[parent].bytes);
	kvk_catalog_visit(race->catalog, 2, told, &bytes);
	kvk_catalog_set_quota(race->catalog, "te", 2, racer_pick(racer, 9) * PAGE);
	kvk_catalog_set_cap(race->catalog, (1 + racer_pick(racer, 40)) * PAGE);
}

/* Another process has the same directory. */
static void race_others(struct racer *racer, uint32_t key)
{
	struct race *race = racer->race;
	uint64_t none = 0;

	if (race->others_remove && racer_pick(racer, 2))
		atomic_store(&race->files[key], 0);
	else
		atomic_compare_exchange_strong(&race->files[key], &none, (1 + racer_pick(racer, 8)) * PAGE);
	totals_of(race->catalog);
}

static void *race_run(void *argument)
{
	struct racer *racer = argument;
	struct race *race = racer->race;

	for (uint32_t i = 0; i < race->steps; i++) {
		uint32_t key = racer_pick(racer, RACE_KEYS);
		uint32_t what = racer_pick(racer, 18);

		if (what < 3)
			race_put(racer, key);
		else if (what < 9)
			race_lookup(racer, key);
		else if (what < 12)
			race_remove(racer, key);
		else if (what < 15)
			race_load(racer, key);
		else if (what < 16)
			race_others(racer, key);
		else if (what < 17)
			race_evict(racer);
		else
			race_recover(racer, key);
	}
	return NULL;
}

/* How many known entries have a link that counts and names this one. */
static uint32_t children_of(struct kvk_catalog *catalog, const struct kvk_entry *parent, uint32_t id)
{
	uint32_t children = 0;

	for (uint32_t number = 0; number < KVK_SHARDS; number++) {
		const struct kvk_shard *shard = &catalog->shards[number];

		for (uint32_t index = 0; index < shard->fresh; index++) {
			const struct kvk_entry *entry = kvk_shard_entry(shard, index);

			children += entry->known && entry->counted && entry->parent == id &&
				    entry->parent_generation == parent->generation;
		}
	}
	return children;
}

static void check_children(struct kvk_catalog *catalog)
{
	for (uint32_t number = 0; number < KVK_SHARDS; number++) {
		const struct kvk_shard *shard = &catalog->shards[number];

		for (uint32_t index = 0; index < shard->fresh; index++) {
			const struct kvk_entry *entry = kvk_shard_entry(shard, index);

			if (entry->known)
				assert_int_equal(entry->children,
						 children_of(catalog, entry, index << KVK_SHARD_BITS | number));
		}
	}
}

/* Everybody is done: the books are closed. */
static void race_check(struct race *race)
{
	struct kvk_victim victims[RACE_KEYS];
	struct kvk_catalog_totals totals;
	uint64_t used_bytes = 0;
	uint64_t objects = 0;

	for (uint32_t key = 0; key < RACE_KEYS; key++) {
		struct kvk_object_info info;
		struct kvk_catalog_ticket ticket;
		int state = kvk_catalog_look(race->catalog, race->digests[key].bytes, false, false, &ticket, &info);
		uint64_t file = atomic_load(&race->files[key]);

		assert_int_equal(kvk_catalog_pins(race->catalog, race->digests[key].bytes), 0);
		if (state == KVK_CATALOG_UNKNOWN)
			continue;
		assert_int_equal(state, KVK_CATALOG_PRESENT);
		if (!race->others_remove && info.charge_bytes != file)
			fail_msg("key %u is charged %" PRIu64 ", its file costs %" PRIu64, key, info.charge_bytes, file);
		used_bytes += info.charge_bytes;
		objects++;
	}
	totals = totals_of(race->catalog);
	assert_int_equal(totals.used_bytes, used_bytes);
	assert_int_equal(totals.objects, objects);
	assert_int_equal(totals.writing_bytes, 0);
	assert_int_equal(totals.pinned_objects, 0);
	assert_int_equal(room_of(race->catalog), RACE_LEASE - atomic_load(&race->published_bytes));

	/* Nobody is left behind in no list, or with children that he does not have. */
	check_children(race->catalog);
	assert_int_equal(kvk_catalog_evict(race->catalog, UINT64_MAX, victims, RACE_KEYS), objects);
}

static void run_race(uint64_t seed, enum kvk_policy_kind kind, bool others_remove)
{
	struct kvk_policy_options options = { .kind = kind, .cap_bytes = 30 * PAGE };
	const char *steps = getenv("KVK_STEPS");
	struct racer racers[RACE_THREADS];
	struct race race = {
		.others_remove = others_remove,
		.steps = steps ? (uint32_t)strtoul(steps, NULL, 0) : RACE_STEPS_DEFAULT,
	};

	assert_int_equal(kvk_catalog_new(&race.catalog, RACE_LEASE, &options), 0);
	for (uint32_t key = 0; key < RACE_KEYS; key++)
		race.digests[key] = key % 2 ? digest_number(key) : digest_at(2, key, 5);
	for (uint32_t i = 0; i < RACE_THREADS; i++) {
		racers[i] = (struct racer){ .race = &race, .random = (seed + i) * 2654435761u + 1 };
		assert_int_equal(pthread_create(&racers[i].thread, NULL, race_run, &racers[i]), 0);
	}
	for (uint32_t i = 0; i < RACE_THREADS; i++)
		pthread_join(racers[i].thread, NULL);
	race_check(&race);
	assert_true(atomic_load(&race.adopted) > 0);
	assert_true(atomic_load(&race.stale) > 0);
	assert_true(atomic_load(&race.evicted) > 0);
	print_message("policy %d: adopted %" PRIu64 ", out of date %" PRIu64 ", lost %" PRIu64 ", evicted %" PRIu64 "\n",
		      (int)kind, atomic_load(&race.adopted), atomic_load(&race.stale), atomic_load(&race.lost),
		      atomic_load(&race.evicted));
	proof_tell(9, (uint64_t)race.steps * RACE_THREADS, "operations", 0);
	kvk_catalog_free(race.catalog);
}

static uint64_t race_seed(void)
{
	const char *text = getenv("KVK_SEED");
	uint64_t seed = text ? strtoull(text, NULL, 0) : 1;

	print_message("KVK_SEED=%" PRIu64 "\n", seed);
	return seed;
}

static void nothing_is_charged_twice_or_comes_back(void **state)
{
	(void)state;
	for (int kind = KVK_POLICY_LRU; kind <= KVK_POLICY_ISOLATED_LRU; kind++)
		run_race(race_seed(), (enum kvk_policy_kind)kind, false);
}

static void files_that_vanish_are_given_back_once(void **state)
{
	(void)state;
	for (int kind = KVK_POLICY_LRU; kind <= KVK_POLICY_ISOLATED_LRU; kind++)
		run_race(race_seed(), (enum kvk_policy_kind)kind, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_charged_twice_or_comes_back),
		cmocka_unit_test(files_that_vanish_are_given_back_once),
	};

	return cmocka_run_group_tests_name("catalog_race", tests, NULL, NULL);
}
