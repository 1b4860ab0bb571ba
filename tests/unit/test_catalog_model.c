/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random operations on the catalog beside a naive model of it: arrays, no shards, no hashing. After each step the
 * answer, all states, pins, totals and shares are compared, and from time to time the order of use.
 *
 * KVK_SEED chooses the run, KVK_STEPS its length; the seed is printed.
 */
#include <stdlib.h>

#include "catalog_kit.h"

#define KEYS 72u
#define NAMES 5u                       /* of tenants and of models; 0 is "" */
#define TICKETS 24u
#define STEPS_DEFAULT 200000u
#define MODEL_LEASE (300 * PAGE)

static const char *const names[NAMES] = { "", "a", "bb", "a-long-name-of-a-tenant", "\xff\x01" };

struct model_key {
	struct digest digest;
	uint32_t group;                /* the first key whose version it shares */
	enum kvk_catalog_state state;
	bool known;
	bool durable;
	uint32_t pins;
	uint32_t tenant;
	uint32_t model;
	uint64_t life;                 /* a number of its own each time it becomes present */
	uint64_t events;               /* ends of puts and removes, losses; counted at the group's first key */
	uint64_t used_at;
	uint64_t birth;                /* when it became known */
	struct model_key *parent;      /* NULL: none was known then */
	uint64_t parent_birth;
	uint64_t charge_bytes;         /* charged, or reserved while writing */
	uint64_t logical_bytes;
};

struct model_ticket {
	struct kvk_catalog_ticket ticket;
	uint32_t key;
	uint64_t life;                 /* 0: it was not present */
	uint64_t events;
};

struct model {
	struct kvk_catalog *catalog;
	struct model_key keys[KEYS];
	struct model_ticket tickets[TICKETS];
	int64_t room_bytes;
	uint64_t loose_bytes;
	uint64_t clock;
	uint64_t random;
	uint64_t answers[8];           /* how often which, to see that the run was worth something */
};

static uint32_t pick(struct model *model, uint32_t below)
{
	model->random ^= model->random << 13;
	model->random ^= model->random >> 7;
	model->random ^= model->random << 17;
	return (uint32_t)(model->random >> 33) % below;
}

/* A third of the keys anywhere, a third in one shard with few homes, a third in one group. */
static void model_init(struct model *model, uint64_t seed)
{
	memset(model, 0, sizeof(*model));
	model->random = seed * 2 + 1;
	model->room_bytes = MODEL_LEASE;
	for (uint32_t i = 0; i < KEYS; i++) {
		struct model_key *key = &model->keys[i];

		if (i % 3 == 0)
			key->digest = digest_number(seed + i);
		else if (i % 3 == 1)
			key->digest = digest_at(9, i, i % 5 | (uint64_t)i << 40);
		else
			key->digest = digest_at(9, 200, 63 | (uint64_t)i << 40);
		key->group = i;
		for (uint32_t j = 0; j < i; j++) {
			struct kvk_prefix mine = kvk_prefix_of(key->digest.bytes);
			struct kvk_prefix other = kvk_prefix_of(model->keys[j].digest.bytes);

			if (kvk_prefix_shard(&mine) == kvk_prefix_shard(&other) &&
			    kvk_prefix_group(&mine) == kvk_prefix_group(&other)) {
				key->group = j;
				break;
			}
		}
	}
	assert_int_equal(kvk_catalog_new(&model->catalog, MODEL_LEASE, NULL), 0);
}

static uint64_t *events_of(struct model *model, const struct model_key *key)
{
	return &model->keys[key->group].events;
}

static struct kvk_object_info random_info(struct model *model, uint32_t *tenant_ret, uint32_t *model_ret)
{
	struct kvk_object_info info = {
		.logical_bytes = pick(model, 100000),
		.charge_bytes = pick(model, 12) * PAGE,
		.durable = pick(model, 2),
	};

	*tenant_ret = pick(model, NAMES);
	*model_ret = pick(model, NAMES);
	info.tenant = names[*tenant_ret];
	info.tenant_bytes = (uint32_t)strlen(names[*tenant_ret]);
	info.model = names[*model_ret];
	info.model_bytes = (uint32_t)strlen(names[*model_ret]);
	if (pick(model, 2))
		memcpy(info.parent_digest, model->keys[pick(model, KEYS)].digest.bytes, sizeof(info.parent_digest));
	return info;
}

static struct model_key *key_of(struct model *model, const uint8_t digest[32])
{
	for (uint32_t i = 0; i < KEYS; i++) {
		if (memcmp(model->keys[i].digest.bytes, digest, 32) == 0)
			return &model->keys[i];
	}
	return NULL;
}

static void model_make_known(struct model *model, struct model_key *key, const struct kvk_object_info *info,
			     uint32_t tenant, uint32_t model_name)
{
	key->state = KVK_CATALOG_PRESENT;
	key->known = true;
	key->durable = info->durable;
	key->charge_bytes = info->charge_bytes;
	key->logical_bytes = info->logical_bytes;
	key->tenant = tenant;
	key->model = model_name;
	key->life = ++model->clock;
	key->used_at = ++model->clock;
	key->birth = ++model->clock;
	key->parent = key_of(model, info->parent_digest);
	if (key->parent == key || (key->parent && !key->parent->known))
		key->parent = NULL;
	key->parent_birth = key->parent ? key->parent->birth : 0;
}

static void model_forget(struct model_key *key)
{
	struct model_key *parent = key->known ? key->parent : NULL;

	/* What was used last below a parent counts as its use, at the latest from now on. */
	if (parent && parent->known && parent->birth == key->parent_birth && parent->used_at < key->used_at)
		parent->used_at = key->used_at;
	key->parent = NULL;
	key->state = KVK_CATALOG_UNKNOWN;
	key->known = false;
	key->durable = false;
	key->pins = 0;
	key->life = 0;
	key->charge_bytes = 0;
}

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
		key->used_at = ++model->clock;
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
		assert_int_equal(pinned, key->pins > 0);
		return;
	}
	model->answers[5]++;
	key->state = KVK_CATALOG_LEAVING;
}

static void step_remove_end(struct model *model, struct model_key *key)
{
	bool removed = pick(model, 3) > 0;
	bool was_leaving = key->state == KVK_CATALOG_LEAVING;
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

	if (pick(model, 2)) {
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

	switch (pick(model, 17)) {
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

	if (now <= use->before)
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
	print_message("no room %" PRIu64 ", found %" PRIu64 ", out of date %" PRIu64 ", busy %" PRIu64
		      ", lost %" PRIu64 ", removed %" PRIu64 "\n", model.answers[0], model.answers[1], model.answers[2],
		      model.answers[3], model.answers[4], model.answers[5]);
	for (uint32_t i = 0; i < 6 && steps >= STEPS_DEFAULT; i++)
		assert_in_range(model.answers[i], steps / 2000, steps);
	kvk_catalog_free(model.catalog);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(catalog_agrees_with_the_model),
	};

	return cmocka_run_group_tests_name("catalog_model", tests, NULL, NULL);
}
