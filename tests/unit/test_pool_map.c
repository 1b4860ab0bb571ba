/* SPDX-License-Identifier: Apache-2.0 */
/* The map of a pool against one that is so simple that it is right: an array of owners, one for each slot. */
#include "support/skip.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapter/pool/map.h"

#define SLOTS 300
#define FILE_SLOTS 128
#define RUNS 64

struct owned {
	struct kvk_run run;
	enum { NONE = 0, WRITING, PRESENT, LEAVING } state;
	unsigned holds;                /* by readers */
	bool left;                     /* erased; slots are free when holds end */
};

struct model {
	struct kvk_pool_map map;
	struct owned runs[RUNS];
	uint64_t random;
};

static uint64_t below(struct model *model, uint64_t limit)
{
	model->random = model->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (model->random >> 33) % limit;
}

static void prefix_of(uint8_t prefix[KVK_PREFIX_BYTES], unsigned number)
{
	memset(prefix, 0, KVK_PREFIX_BYTES);
	prefix[0] = (uint8_t)(number % 3);      /* long chains in the table */
	prefix[15] = (uint8_t)number;
}

/* Who has each slot, from what the model knows; fails if two have one. */
static void owners(const struct model *model, int owner[SLOTS])
{
	for (unsigned i = 0; i < SLOTS; i++)
		owner[i] = -1;
	for (int i = 0; i < RUNS; i++) {
		const struct owned *owned = &model->runs[i];

		if (owned->state == NONE)
			continue;
		assert_int_equal(owned->run.first / FILE_SLOTS, (owned->run.first + owned->run.slots - 1) / FILE_SLOTS);
		for (uint32_t slot = owned->run.first; slot < owned->run.first + owned->run.slots; slot++) {
			assert_in_range(slot, 0, SLOTS - 1);
			assert_int_equal(owner[slot], -1);
			owner[slot] = i;
		}
	}
}

static void check(struct model *model)
{
	struct kvk_pool_totals totals;
	uint32_t free_slots = 0, longest = 0, length = 0, objects = 0, slot = 0;
	int owner[SLOTS];
	struct kvk_run run;

	owners(model, owner);
	for (unsigned i = 0; i < SLOTS; i++) {
		length = i % FILE_SLOTS == 0 ? 0 : length;
		length = owner[i] < 0 ? length + 1 : 0;
		free_slots += owner[i] < 0;
		longest = length > longest ? length : longest;
	}
	kvk_pool_map_totals(&model->map, &totals);
	assert_int_equal(totals.free_slots, free_slots);
	assert_int_equal(totals.longest_free, longest);
	/* A walk meets each present run once, in order. */
	for (; kvk_pool_map_hold_at(&model->map, slot, false, &run); slot = run.first + 1) {
		assert_true(run.first >= slot);
		assert_int_equal(model->runs[owner[run.first]].state, PRESENT);
		assert_true(kvk_pool_map_drop(&model->map, &run));
		objects++;
	}
	for (int i = 0; i < RUNS; i++)
		objects -= model->runs[i].state == PRESENT;
	assert_int_equal(objects, 0);
}

static void gone(struct owned *owned)
{
	if (owned->left && owned->holds == 0)
		*owned = (struct owned){ 0 };
}

static void take(struct model *model, unsigned number)
{
	uint32_t slots = 1 + (uint32_t)below(model, 12), length = 0, free_slots = 0;
	struct owned *owned = &model->runs[number];
	uint8_t prefix[KVK_PREFIX_BYTES];
	int owner[SLOTS], err;
	bool fits = false;

	owners(model, owner);
	for (unsigned i = 0; i < SLOTS; i++) {
		length = i % FILE_SLOTS == 0 ? 0 : length;
		length = owner[i] < 0 ? length + 1 : 0;
		free_slots += owner[i] < 0;
		fits |= length >= slots;
	}
	prefix_of(prefix, number);
	if (owned->state == LEAVING)
		return;                /* the model keeps one run of a name */
	err = kvk_pool_map_take(&model->map, prefix, slots, &owned->run);
	if (owned->state != NONE)
		assert_int_equal(err, -EEXIST);
	else
		assert_int_equal(err, fits ? 0 : free_slots >= slots ? -ENOSR : -ENOSPC);
	if (!err)
		owned->state = WRITING;
}

static void step(struct model *model)
{
	unsigned number = (unsigned)below(model, RUNS);
	struct owned *owned = &model->runs[number];
	uint8_t prefix[KVK_PREFIX_BYTES];
	struct kvk_run run;

	prefix_of(prefix, number);
	switch (below(model, 6)) {
	case 0:
	case 1:
		take(model, number);
		break;
	case 2:
		if (owned->state == WRITING && below(model, 4)) {
			kvk_pool_map_publish(&model->map, &owned->run, 7);
			owned->state = PRESENT;
		} else if (owned->state == WRITING) {
			kvk_pool_map_free(&model->map, &owned->run, true);
			*owned = (struct owned){ 0 };
		}
		break;
	case 3:
		assert_int_equal(kvk_pool_map_hold(&model->map, prefix, &run), owned->state == PRESENT);
		if (owned->state == PRESENT)
			owned->holds++;
		break;
	case 4:
		if (owned->state == PRESENT) {
			assert_true(kvk_pool_map_hold(&model->map, prefix, &run));
			assert_true(kvk_pool_map_leave(&model->map, &run));
			assert_false(kvk_pool_map_leave(&model->map, &run));
			owned->state = LEAVING;
			if (below(model, 5) == 0) {
				kvk_pool_map_free(&model->map, &run, false);
				owned->state = PRESENT;
			} else {
				kvk_pool_map_free(&model->map, &run, true);
				owned->left = true;
			}
			assert_int_equal(kvk_pool_map_drop(&model->map, &run), owned->state == PRESENT);
			gone(owned);
		}
		break;
	default:
		if (owned->holds > 0) {
			owned->holds--;
			assert_int_equal(kvk_pool_map_drop(&model->map, &owned->run), owned->state == PRESENT);
			gone(owned);
		}
		break;
	}
}

static void random_steps(void **state)
{
	struct model *model = calloc(1, sizeof(*model));

	assert_non_null(model);
	model->random = 20261122;
	assert_int_equal(kvk_pool_map_init(&model->map, SLOTS, FILE_SLOTS, 1), 0);
	for (unsigned i = 0; i < 20000; i++) {
		step(model);
		if (i % 16 == 0)
			check(model);
	}
	kvk_pool_map_release(&model->map);
	free(model);
}

/* Later puts have higher generations, and what is lost is neither free nor anybody's. */
static void generations_and_losses(void **state)
{
	uint8_t prefix[KVK_PREFIX_BYTES];
	struct kvk_pool_totals totals;
	struct kvk_pool_map map;
	uint64_t last = 0;
	struct kvk_run run;

	assert_int_equal(kvk_pool_map_init(&map, 10, 10, 40), 0);
	kvk_pool_map_lose(&map, 5);
	kvk_pool_map_lose(&map, 5);
	for (unsigned i = 0; i < 9; i++) {
		prefix_of(prefix, i);
		assert_int_equal(kvk_pool_map_take(&map, prefix, 1, &run), 0);
		assert_true(run.generation >= 40 && run.generation > last);
		assert_int_not_equal(run.first, 5);
		last = run.generation;
	}
	prefix_of(prefix, 20);
	assert_int_equal(kvk_pool_map_take(&map, prefix, 1, &run), -ENOSPC);
	/* A put whose footer could not be erased. */
	prefix_of(prefix, 8);
	kvk_pool_map_free(&map, &(struct kvk_run){ .index = 8, .first = 9, .slots = 1 }, false);
	assert_false(kvk_pool_map_hold(&map, prefix, &run));
	kvk_pool_map_totals(&map, &totals);
	assert_int_equal(totals.lost_slots, 2);
	assert_int_equal(totals.free_slots, 0);
	kvk_pool_map_release(&map);
}

/* What footers claim after an open: no slot has two objects, and no key two runs. */
static void claims_that_meet(void **state)
{
	static const struct {
		uint64_t key;
		uint32_t first, slots;
		bool added;
	} rows[] = { { 1, 2, 3, true }, { 2, 4, 2, false }, { 2, 1, 2, false }, { 1, 7, 1, false }, { 2, 5, 2, true } };
	struct kvk_pool_totals totals;
	struct kvk_pool_map map;

	assert_int_equal(kvk_pool_map_init(&map, 10, 10, 1), 0);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct kvk_run run = { .first = rows[i].first, .slots = rows[i].slots, .generation = 9 - i };
		bool added = !rows[i].added;

		prefix_of(run.prefix, (unsigned)rows[i].key);
		assert_int_equal(kvk_pool_map_add(&map, &run, &added), 0);
		if (added != rows[i].added)
			fail_msg("row %u: added %d", i, added);
	}
	kvk_pool_map_totals(&map, &totals);
	assert_int_equal(totals.objects, 2);
	assert_int_equal(totals.free_slots, 5);
	kvk_pool_map_release(&map);
}

/* What a walk sees of slots that are nobody's, that are leaving or have left; and that nobody leaves twice, or by an old run. */
static void what_is_seen(void **state)
{
	uint8_t prefix[KVK_PREFIX_BYTES], seen[KVK_PREFIX_BYTES];
	struct kvk_run run, held, stale;
	struct kvk_pool_map map;
	enum kvk_pool_use use;

	assert_int_equal(kvk_pool_map_init(&map, 10, 10, 1), 0);
	kvk_pool_map_lose(&map, 0);
	kvk_pool_map_lose(&map, 3);
	assert_int_equal(kvk_pool_map_look(&map, 0, &use, seen), 1);
	assert_int_equal(use, KVK_POOL_TAKEN);
	assert_int_equal(kvk_pool_map_look(&map, 1, &use, seen), 3);
	assert_int_equal(use, KVK_POOL_FREE);
	prefix_of(prefix, 1);
	assert_int_equal(kvk_pool_map_take(&map, prefix, 2, &run), 0);
	assert_int_equal(run.first, 1);
	assert_int_equal(kvk_pool_map_look(&map, 1, &use, seen), 3);
	assert_int_equal(use, KVK_POOL_TAKEN);
	assert_false(kvk_pool_map_leave_key(&map, prefix, &held));
	kvk_pool_map_publish(&map, &run, 1);
	assert_int_equal(kvk_pool_map_look(&map, 1, &use, seen), 3);
	assert_int_equal(use, KVK_POOL_PRESENT);
	assert_memory_equal(seen, prefix, sizeof(seen));
	assert_false(kvk_pool_map_hold_at(&map, 3, true, &held));
	assert_false(kvk_pool_map_hold_at(&map, 3, false, &held));
	assert_true(kvk_pool_map_hold_at(&map, 0, false, &held));
	stale = held;
	stale.generation++;
	assert_false(kvk_pool_map_leave(&map, &stale));
	assert_true(kvk_pool_map_leave_key(&map, prefix, &run));
	assert_int_equal(run.first, 1);
	assert_int_equal(run.slots, 2);
	assert_false(kvk_pool_map_leave_key(&map, prefix, &run));
	assert_false(kvk_pool_map_leave(&map, &held));
	assert_int_equal(kvk_pool_map_look(&map, 2, &use, seen), 3);
	assert_int_equal(use, KVK_POOL_TAKEN);
	/* Erased while it is held: free as soon as it is not. */
	kvk_pool_map_free(&map, &run, true);
	assert_int_equal(kvk_pool_map_look(&map, 2, &use, seen), 3);
	assert_int_equal(use, KVK_POOL_FREE);
	assert_false(kvk_pool_map_drop(&map, &held));
	assert_int_equal(kvk_pool_map_look(&map, 2, &use, seen), 3);
	assert_int_equal(use, KVK_POOL_FREE);
	kvk_pool_map_release(&map);
}

/* A run that was found keeps the slots of it that were lost, and one that is beaten gives none of them back. */
static void lost_slots_of_a_run(void **state)
{
	struct kvk_run later = { .first = 4, .slots = 2, .generation = 9 }, sound = { .first = 1, .slots = 3, .generation = 8 };
	struct kvk_run beaten = { .first = 5, .slots = 3, .generation = 7 };
	struct kvk_pool_totals totals;
	struct kvk_pool_map map;
	bool added;

	assert_int_equal(kvk_pool_map_init(&map, 10, 10, 1), 0);
	prefix_of(later.prefix, 1);
	prefix_of(sound.prefix, 2);
	prefix_of(beaten.prefix, 3);
	kvk_pool_map_lose(&map, 2);
	kvk_pool_map_lose(&map, 6);
	assert_int_equal(kvk_pool_map_add(&map, &later, &added), 0);
	assert_true(added);
	assert_int_equal(kvk_pool_map_add(&map, &sound, &added), 0);
	assert_true(added);
	assert_int_equal(kvk_pool_map_add(&map, &beaten, &added), 0);
	assert_false(added);
	kvk_pool_map_totals(&map, &totals);
	assert_int_equal(totals.objects, 2);
	assert_int_equal(totals.lost_slots, 1);
	assert_int_equal(totals.free_slots, 10 - 3 - 2 - 1);
	kvk_pool_map_release(&map);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_steps),
		cmocka_unit_test(generations_and_losses),
		cmocka_unit_test(claims_that_meet),
		cmocka_unit_test(what_is_seen),
		cmocka_unit_test(lost_slots_of_a_run),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
