/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random operations on the catalog beside a naive model of it: arrays, no shards, no hashing. After each step the
 * answer, all states, pins, totals and shares are compared, and from time to time the order of use.
 *
 * KVK_SEED chooses the run, KVK_STEPS its length; the seed is printed.
 */
#include "catalog_model.h"

#include "support/proof.h"

static void step_put_begin(struct model *model, struct model_key *key)
{
	static const int by_state[] = {
		[KVK_CATALOG_WRITING] = -EALREADY, [KVK_CATALOG_PRESENT] = -EEXIST, [KVK_CATALOG_LEAVING] = -EBUSY,
	};
	uint64_t charge_bytes = pick(model, 12) * PAGE;
	bool durable = !key->durable;
	int expected = by_state[key->state];

	if (expected == 0 && model->room_bytes < (int64_t)charge_bytes)
		expected = -ENOSPC;
	if (expected == 0 && model->room_bytes < 0)
		expected = -ENOSPC;
	assert_int_equal(kvk_catalog_put_begin(model->catalog, key->digest.bytes, charge_bytes, &durable), expected);
	if (expected == -EEXIST)
		assert_int_equal(durable, key->durable);
	if (expected == -ENOSPC)
		model->answers[0]++;
	if (expected)
		return;
	key->state = KVK_CATALOG_WRITING;
	key->charge_bytes = charge_bytes;
	model->room_bytes -= (int64_t)charge_bytes;
}

static void step_put_end(struct model *model, struct model_key *key)
{
	uint32_t tenant, model_name;
	struct kvk_object_info info = random_info(model, &tenant, &model_name);
	bool there = pick(model, 4) > 0;

	info.published = pick(model, 2);
	kvk_catalog_put_end(model->catalog, key->digest.bytes, there ? &info : NULL);
	if (key->state != KVK_CATALOG_WRITING)
		return;
	model->room_bytes += (int64_t)key->charge_bytes;
	(*events_of(model, key))++;
	if (there && info.published)
		model->room_bytes -= (int64_t)info.charge_bytes;
	if (there)
		model_make_known(model, key, &info, tenant, model_name);
	else
		model_forget(key);
}

static void step_look(struct model *model, struct model_key *key)
{
	struct model_ticket *saved = &model->tickets[pick(model, TICKETS)];
	struct kvk_object_info info = { 0 };
	bool pin = pick(model, 3) == 0;
	bool renew = pick(model, 2);

	saved->key = (uint32_t)(key - model->keys);
	saved->life = key->state == KVK_CATALOG_PRESENT ? key->life : 0;
	saved->events = *events_of(model, key);
	assert_int_equal(kvk_catalog_look(model->catalog, key->digest.bytes, pin, renew, &saved->ticket, &info),
			 key->state);
	if (key->state != KVK_CATALOG_PRESENT)
		return;
	assert_int_equal(info.charge_bytes, key->charge_bytes);
	assert_int_equal(info.logical_bytes, key->logical_bytes);
	assert_int_equal(info.durable, key->durable);
	key->pins += pin;
	if (renew)
		key->used_at = ++model->use;
}

static void step_found(struct model *model, const struct model_ticket *saved)
{
	struct model_key *key = &model->keys[saved->key];
	uint32_t tenant, model_name;
	struct kvk_object_info info = random_info(model, &tenant, &model_name);
	bool moved = saved->events != *events_of(model, key);
	bool pin = pick(model, 2);
	int expected = 0;

	if (key->state == KVK_CATALOG_WRITING)
		expected = -EALREADY;
	else if (key->state == KVK_CATALOG_LEAVING)
		expected = -EBUSY;
	else if (key->state == KVK_CATALOG_PRESENT && saved->life != 0)
		expected = saved->life == key->life ? 0 : -ESTALE;
	else if (moved)
		expected = -ESTALE;
	assert_int_equal(kvk_catalog_found(model->catalog, key->digest.bytes, &saved->ticket, &info, pin), expected);
	model->answers[expected == 0 ? 1 : expected == -ESTALE ? 2 : 3]++;
	if (expected)
		return;
	if (key->state == KVK_CATALOG_UNKNOWN)
		model_make_known(model, key, &info, tenant, model_name);
	key->pins += pin;
}

static void step_lost(struct model *model, const struct model_ticket *saved)
{
	struct model_key *key = &model->keys[saved->key];

	kvk_catalog_lost(model->catalog, key->digest.bytes, &saved->ticket);
	if (key->state != KVK_CATALOG_PRESENT || saved->life != key->life)
		return;
	model->answers[4]++;
	(*events_of(model, key))++;
	model_forget(key);
}

static void step_durable(struct model *model, const struct model_ticket *saved)
{
	struct model_key *key = &model->keys[saved->key];

	kvk_catalog_set_durable(model->catalog, key->digest.bytes, &saved->ticket);
	if (key->state == KVK_CATALOG_PRESENT && saved->life == key->life)
		key->durable = true;
}

static void step_remove_begin(struct model *model, struct model_key *key)
{
	bool busy = key->state == KVK_CATALOG_WRITING || key->state == KVK_CATALOG_LEAVING;
	bool pinned = !key->pins;

	assert_int_equal(kvk_catalog_remove_begin(model->catalog, key->digest.bytes, &pinned),
			 busy || key->pins ? -EBUSY : 0);
	if (busy || key->pins) {
		assert_int_equal(pinned, !busy);
		return;
	}
	model->answers[5]++;
	key->state = KVK_CATALOG_LEAVING;
}

static void step_remove_end(struct model *model, struct model_key *key)
{
	bool removed = pick(model, 3) > 0;
	bool was_leaving = key->state == KVK_CATALOG_LEAVING && !key->chosen;
	uint64_t charge_bytes = 1;

	kvk_catalog_remove_renamed(model->catalog, key->digest.bytes, removed, &charge_bytes);
	assert_int_equal(charge_bytes, was_leaving && removed ? key->charge_bytes : 0);
	if (!was_leaving)
		return;
	(*events_of(model, key))++;
	if (key->known && !removed) {
		key->state = KVK_CATALOG_PRESENT;
		key->life = ++model->clock;
		return;
	}
	model->loose_bytes += charge_bytes;
	model_forget(key);
}

/* ---- evictions and what is scanned ---------------------------------------------------------------- */

static void step_evict(struct model *model)
{
	uint64_t bytes = pick(model, 24) * PAGE;
	uint32_t count = 1 + pick(model, 6);
	struct kvk_victim victims[6];
	uint32_t chosen = kvk_catalog_evict(model->catalog, bytes, victims, count);
	uint32_t expected = 0;

	for (uint64_t expected_bytes = 0; expected_bytes < bytes && expected < count; expected++) {
		struct model_key *coldest = NULL;

		for (uint32_t i = 0; i < KEYS; i++) {
			struct model_key *key = &model->keys[i];

			if (key->state == KVK_CATALOG_PRESENT && !key->pins && !children_of(model, key) &&
			    (!coldest || key->used_at < coldest->used_at))
				coldest = key;
		}
		if (!coldest)
			break;
		if (expected == chosen)
			fail_msg("%u were chosen, one more could have been", chosen);
		assert_memory_equal(victims[expected].prefix, coldest->digest.bytes, 16);
		assert_int_equal(victims[expected].charge_bytes, coldest->charge_bytes);
		assert_int_equal(victims[expected].used_at_ns, coldest->used_at * 1000);
		expected_bytes += coldest->charge_bytes;
		coldest->state = KVK_CATALOG_LEAVING;
		coldest->chosen = true;
		model_leave_parent(coldest);
		model->answers[6]++;
	}
	assert_int_equal(chosen, expected);
}

static void step_evicted(struct model *model, struct model_key *key)
{
	enum kvk_evict_end end = (enum kvk_evict_end)pick(model, 3);
	uint64_t charge_bytes = 1;

	/* Somebody else used it, now. */
	kvk_catalog_evicted(model->catalog, key->digest.bytes, end, (model->use + 1) * 1000, &charge_bytes);
	assert_int_equal(charge_bytes, key->chosen && end != KVK_EVICT_KEPT ? key->charge_bytes : 0);
	if (!key->chosen)
		return;
	(*events_of(model, key))++;
	if (end != KVK_EVICT_KEPT) {
		model->loose_bytes += charge_bytes;
		model_forget(key);
		return;
	}
	key->state = KVK_CATALOG_PRESENT;
	key->chosen = false;
	key->life = ++model->clock;
	key->used_at = ++model->use;
	key->counted = has_live_parent(key);
}

static bool is_above(const struct model_key *key, const struct model_key *below)
{
	for (; below && below != key; below = below->counted && has_live_parent(below) ? below->parent : NULL)
		;
	return below == key;
}

static int model_link(struct model *model, struct model_key *key, struct model_key *parent)
{
	if (parent == key)
		return -ELOOP;
	if (!key->known || !parent->known)
		return -ENOENT;
	if (key->counted && has_live_parent(key))
		return key->parent == parent ? 0 : -EEXIST;
	key->counted = false;
	if (children_of(model, key) && is_above(key, parent))
		return -ELOOP;
	if (key->chosen)
		return -ENOENT;
	key->parent = parent;
	key->parent_birth = parent->birth;
	key->counted = true;
	return 0;
}

static void step_link(struct model *model, struct model_key *key)
{
	struct model_key *parent = &model->keys[pick(model, KEYS)];
	int expected = model_link(model, key, parent);

	assert_int_equal(kvk_catalog_link(model->catalog, key->digest.bytes, parent->digest.bytes), expected);
	model->answers[7] += expected == -ELOOP;
}

/* At a time at which nothing else was used, so that the order is one. */
static void step_scanned(struct model *model, struct model_key *key)
{
	static const int by_state[] = { [KVK_CATALOG_WRITING] = -EALREADY, [KVK_CATALOG_LEAVING] = -EBUSY };
	uint32_t tenant, model_name;
	struct kvk_object_info info = random_info(model, &tenant, &model_name);
	/* Uses of others count if they are a minute later: before that, an access time may tell of our own. */
	const uint64_t minute = 60000000;
	uint64_t wide = (uint64_t)pick(model, UINT32_MAX) << 32 | pick(model, UINT32_MAX);
	uint64_t used_at = pick(model, 4) ? 1 + wide % (model->use + 20) : model->use + minute - 5 + wide % 10;
	int expected = by_state[key->state];
	struct model_key *parent = key_of(model, info.parent_digest);

	for (uint32_t i = 0; i < KEYS; i++) {
		if (model->keys[i].known && model->keys[i].used_at == used_at)
			return;
	}
	info.used_at = used_at * 1000;
	assert_int_equal(kvk_catalog_scanned(model->catalog, key->digest.bytes, &info), expected);
	if (expected)
		return;
	model->answers[8]++;
	if (key->state == KVK_CATALOG_UNKNOWN) {
		model_make_known(model, key, &info, tenant, model_name);
		return;
	}
	if (used_at > key->used_at + minute)
		key->used_at = used_at;
	if (used_at > model->use)
		model->use = used_at;
	if (parent)
		model_link(model, key, parent);
}

/* ---- the rest ------------------------------------------------------------------------------------ */

static void step_loose(struct model *model)
{
	uint64_t bytes = pick(model, 30) * PAGE;

	if (pick(model, 5) == 0) {
		kvk_catalog_charge(model->catalog, bytes);
		model->loose_bytes += bytes;
		return;
	}
	kvk_catalog_credit(model->catalog, bytes);
	model->loose_bytes -= bytes < model->loose_bytes ? bytes : model->loose_bytes;
}

/* As the account does: room is given and taken away, without regard to what is here. */
static void step_room(struct model *model)
{
	uint64_t bytes = pick(model, 60) * PAGE;
	uint64_t expected = model->room_bytes < 0 ? 0 : (uint64_t)model->room_bytes;

	if (pick(model, 3) == 0) {
		kvk_catalog_add_room(model->catalog, (int64_t)bytes);
		model->room_bytes += (int64_t)bytes;
		return;
	}
	expected = expected < bytes ? expected : bytes;
	assert_int_equal(kvk_catalog_take_room(model->catalog, bytes), expected);
	model->room_bytes -= (int64_t)expected;
}

static void step(struct model *model)
{
	struct model_key *key = &model->keys[pick(model, KEYS)];
	const struct model_ticket *saved = &model->tickets[pick(model, TICKETS)];

	switch (pick(model, 22)) {
	case 0: case 1:
		step_put_begin(model, key);
		break;
	case 2: case 3:
		step_put_end(model, key);
		break;
	case 4: case 5: case 6:
		step_look(model, key);
		break;
	case 7: case 8: case 9:
		step_found(model, saved);
		break;
	case 10:
		step_lost(model, saved);
		break;
	case 11:
		step_durable(model, saved);
		break;
	case 12:
		step_remove_begin(model, key);
		break;
	case 13:
		step_remove_end(model, key);
		break;
	case 14:
		kvk_catalog_unpin(model->catalog, key->digest.bytes);
		key->pins -= key->pins > 0;
		break;
	case 15:
		step_loose(model);
		break;
	case 16:
		step_evict(model);
		break;
	case 17: case 18:
		step_evicted(model, key);
		break;
	case 19:
		step_link(model, key);
		break;
	case 20:
		step_scanned(model, key);
		break;
	default:
		step_room(model);
		break;
	}
}

static void compare_shares(struct model *model, enum kvk_share_by by)
{
	struct kvk_share shares[NAMES] = { { .struct_bytes = sizeof(shares[0]) } };
	uint32_t count = kvk_catalog_shares(model->catalog, by, shares, NAMES);
	uint32_t expected_count = 0;

	for (uint32_t name = 0; name < NAMES; name++) {
		uint64_t bytes = 0;
		uint64_t objects = 0;

		for (uint32_t i = 0; i < KEYS; i++) {
			const struct model_key *key = &model->keys[i];

			if (!key->known || (by == KVK_BY_TENANT ? key->tenant : key->model) != name)
				continue;
			bytes += key->charge_bytes;
			objects++;
		}
		expected_count += objects > 0;
		for (uint32_t i = 0; i < count && objects > 0; i++) {
			if (shares[i].name_bytes != strlen(names[name]) ||
			    memcmp(shares[i].name, names[name], shares[i].name_bytes) != 0)
				continue;
			assert_int_equal(shares[i].objects, objects);
			assert_int_equal(shares[i].used_bytes, bytes);
			objects = 0;
		}
		assert_int_equal(objects, 0);
	}
	assert_int_equal(count, expected_count);
}

static void compare(struct model *model)
{
	struct kvk_catalog_totals totals = totals_of(model->catalog);
	struct kvk_catalog_totals expected = { .used_bytes = model->loose_bytes };

	for (uint32_t i = 0; i < KEYS; i++) {
		const struct model_key *key = &model->keys[i];

		assert_int_equal(state_of(model->catalog, &key->digest), key->state);
		assert_int_equal(kvk_catalog_pins(model->catalog, key->digest.bytes), key->pins);
		expected.used_bytes += key->known ? key->charge_bytes : 0;
		expected.writing_bytes += key->state == KVK_CATALOG_WRITING ? key->charge_bytes : 0;
		expected.objects += key->state == KVK_CATALOG_PRESENT;
		expected.pinned_objects += key->pins > 0;
	}
	assert_int_equal(totals.used_bytes, expected.used_bytes);
	assert_int_equal(totals.writing_bytes, expected.writing_bytes);
	assert_int_equal(totals.objects, expected.objects);
	assert_int_equal(totals.pinned_objects, expected.pinned_objects);
	assert_int_equal(room_of(model->catalog), model->room_bytes);
	compare_shares(model, KVK_BY_TENANT);
	compare_shares(model, KVK_BY_MODEL);
}

static uint64_t used_at(const struct model *model, const struct kvk_prefix *prefix)
{
	for (uint32_t i = 0; i < KEYS; i++) {
		if (memcmp(model->keys[i].digest.bytes, prefix, sizeof(*prefix)) == 0)
			return model->keys[i].known ? model->keys[i].used_at : 0;
	}
	return 0;
}

struct use {
	const struct model *model;
	uint64_t before;
	uint32_t listed;
};

static bool compare_one_use(void *user, const uint8_t prefix[16], const struct kvk_object_info *info)
{
	struct kvk_prefix read = kvk_prefix_of(prefix);
	struct use *use = user;
	uint64_t now = used_at(use->model, &read);

	assert_int_equal(info->used_at, now * 1000);
	/* The same time twice: a child that was chosen, and its parent. */
	if (now < use->before)
		fail_msg("used at %" PRIu64 " is told after %" PRIu64, now, use->before);
	use->before = now;
	use->listed++;
	return true;
}

/* Each shard's known objects are told in the order of use, all of them, coldest first. */
static void compare_use(const struct model *model)
{
	struct use use = { .model = model };
	uint32_t known = 0;

	for (uint32_t i = 0; i < KEYS; i++)
		known += model->keys[i].known;
	for (uint32_t number = 0; number < KVK_SHARDS; number++) {
		use.before = 0;
		assert_int_equal(kvk_catalog_visit(model->catalog, number, compare_one_use, &use), 0);
	}
	assert_int_equal(use.listed, known);
}

static uint64_t from_environment(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 0) : otherwise;
}

static void catalog_agrees_with_the_model(void **state)
{
	uint64_t seed = from_environment("KVK_SEED", 20260717);
	uint64_t steps = from_environment("KVK_STEPS", STEPS_DEFAULT);
	static struct model model;

	(void)state;
	print_message("KVK_SEED=%" PRIu64 " KVK_STEPS=%" PRIu64 "\n", seed, steps);
	model_init(&model, seed);
	for (uint32_t i = 0; i < TICKETS; i++) {
		model.tickets[i].key = i;
		kvk_catalog_look(model.catalog, model.keys[i].digest.bytes, false, false, &model.tickets[i].ticket, NULL);
	}
	for (uint64_t i = 0; i < steps; i++) {
		step(&model);
		compare(&model);
		if (i % 64 == 0)
			compare_use(&model);
	}
	print_message("chosen %" PRIu64 ", circles refused %" PRIu64 ", scanned %" PRIu64 "\n", model.answers[6],
		      model.answers[7], model.answers[8]);
	print_message("no room %" PRIu64 ", found %" PRIu64 ", out of date %" PRIu64 ", busy %" PRIu64
		      ", lost %" PRIu64 ", removed %" PRIu64 "\n", model.answers[0], model.answers[1], model.answers[2],
		      model.answers[3], model.answers[4], model.answers[5]);
	/* Each kind of answer has come; what is rare when all is known does not come more often in a longer run. */
	for (uint32_t i = 0; i < 9 && steps >= STEPS_DEFAULT; i++)
		assert_in_range(model.answers[i], STEPS_DEFAULT / 2000, steps);
	proof_tell(8, steps, "operations", 0);
	kvk_catalog_free(model.catalog);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(catalog_agrees_with_the_model),
	};

	return cmocka_run_group_tests_name("catalog_model", tests, NULL, NULL);
}
