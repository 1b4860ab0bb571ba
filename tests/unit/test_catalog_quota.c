/* SPDX-License-Identifier: Apache-2.0 */
/* Quotas of tenants, and who goes first under IsolatedLRU, beside a model that looks at everything. */
#include <stdlib.h>

#include "catalog_kit.h"

#define KEYS 400u
#define TENANTS 6u

static const char *const names[TENANTS] = { "", "alice", "bob", "carol", "dave", "eve" };

struct object {
	bool here;
	bool leaving;
	uint32_t tenant;
	uint64_t pages;
	uint64_t used_at;
	int32_t parent;                /* -1: none */
	uint64_t parent_birth;
	uint64_t birth;
};

struct model {
	struct kvk_catalog *catalog;
	struct object objects[KEYS];
	uint64_t quotas[TENANTS];
	uint64_t clock;
	uint64_t use;
	uint64_t random;
	uint64_t chosen[3];            /* by standing */
};

static uint32_t pick(struct model *model, uint32_t below)
{
	model->random ^= model->random << 13;
	model->random ^= model->random >> 7;
	model->random ^= model->random << 17;
	return (uint32_t)(model->random >> 33) % below;
}

static uint64_t staying_pages(const struct model *model, uint32_t tenant)
{
	uint64_t pages = 0;

	for (uint32_t i = 0; i < KEYS; i++) {
		const struct object *object = &model->objects[i];

		pages += object->here && !object->leaving && object->tenant == tenant ? object->pages : 0;
	}
	return pages;
}

static bool is_parent_of(const struct model *model, uint32_t parent, uint32_t child)
{
	const struct object *object = &model->objects[child];

	return object->here && !object->leaving && object->parent == (int32_t)parent && model->objects[parent].here &&
	       model->objects[parent].birth == object->parent_birth;
}

static bool has_children(const struct model *model, uint32_t key)
{
	for (uint32_t i = 0; i < KEYS; i++) {
		if (is_parent_of(model, key, i))
			return true;
	}
	return false;
}

static uint32_t standing_of(const struct model *model, uint32_t tenant)
{
	uint64_t quota = model->quotas[tenant];

	if (quota == UINT64_MAX)
		return 1;
	return staying_pages(model, tenant) * PAGE > quota ? 0 : 2;
}

/* The coldest of the best standing there is. */
static int32_t expected_next(struct model *model)
{
	uint32_t standings[TENANTS];
	uint32_t best_standing = UINT32_MAX;
	int32_t best = -1;

	for (uint32_t tenant = 0; tenant < TENANTS; tenant++)
		standings[tenant] = standing_of(model, tenant);
	for (uint32_t i = 0; i < KEYS; i++) {
		const struct object *object = &model->objects[i];
		uint32_t standing = standings[object->tenant];

		if (!object->here || object->leaving || has_children(model, i) || standing > best_standing)
			continue;
		if (standing < best_standing || object->used_at < model->objects[best].used_at)
			best = (int32_t)i;
		best_standing = standing;
	}
	if (best >= 0)
		model->chosen[best_standing]++;
	return best;
}

static void leave_parent(struct model *model, uint32_t key)
{
	struct object *object = &model->objects[key];

	if (object->parent >= 0 && is_parent_of(model, (uint32_t)object->parent, key) &&
	    model->objects[object->parent].used_at < object->used_at)
		model->objects[object->parent].used_at = object->used_at;
}

static void put_key(struct model *model, uint32_t key)
{
	struct object *object = &model->objects[key];
	struct digest digest = digest_number(key);
	struct kvk_object_info info = { 0 };
	bool durable;

	*object = (struct object){
		.here = true, .tenant = pick(model, TENANTS), .pages = 1 + pick(model, 4), .used_at = ++model->use,
		.parent = -1, .birth = ++model->clock,
	};
	if (pick(model, 2)) {
		uint32_t parent = pick(model, KEYS);
		struct digest above = digest_number(parent);

		memcpy(info.parent_digest, above.bytes, sizeof(above.bytes));
		if (model->objects[parent].here && parent != key) {
			object->parent = (int32_t)parent;
			object->parent_birth = model->objects[parent].birth;
		}
	}
	info.charge_bytes = object->pages * PAGE;
	info.tenant = names[object->tenant];
	info.tenant_bytes = (uint32_t)strlen(names[object->tenant]);
	assert_int_equal(kvk_catalog_put_begin(model->catalog, digest.bytes, PAGE, &durable), 0);
	kvk_catalog_put_end(model->catalog, digest.bytes, &info);
}

static void evict_some(struct model *model)
{
	struct kvk_victim victims[40];
	uint64_t bytes = pick(model, 30) * PAGE;
	uint32_t keys[40];
	uint32_t count = 1 + pick(model, 40);
	uint32_t chosen = kvk_catalog_evict(model->catalog, bytes, victims, count);
	uint64_t chosen_bytes = 0;
	uint64_t charge;

	for (uint32_t i = 0; i < chosen; i++) {
		int32_t key = expected_next(model);
		struct digest digest;

		assert_true(key >= 0 && chosen_bytes < bytes);
		digest = digest_number((uint64_t)key);
		if (memcmp(victims[i].prefix, digest.bytes, sizeof(victims[i].prefix)) != 0)
			fail_msg("victim %u of %u is not %d", i, chosen, key);
		leave_parent(model, (uint32_t)key);
		model->objects[key].leaving = true;
		keys[i] = (uint32_t)key;
		chosen_bytes += victims[i].charge_bytes;
	}
	assert_true(chosen == count || chosen_bytes >= bytes || expected_next(model) < 0);
	for (uint32_t i = 0; i < chosen; i++) {
		kvk_catalog_evicted(model->catalog, victims[i].prefix, KVK_EVICTED, 0, &charge);
		model->objects[keys[i]].here = false;
	}
}

static void who_is_over_goes_first(void **state)
{
	static struct model model;
	struct kvk_policy_options options = { .kind = KVK_POLICY_ISOLATED_LRU };

	(void)state;
	model.random = 20261122;
	assert_int_equal(kvk_catalog_new(&model.catalog, UINT64_MAX, &options), 0);
	for (uint32_t tenant = 0; tenant < TENANTS; tenant++)
		model.quotas[tenant] = UINT64_MAX;
	for (uint32_t step = 0; step < 20000; step++) {
		uint32_t key = pick(&model, KEYS);
		struct digest digest = digest_number(key);
		struct kvk_catalog_ticket ticket;

		/* Not at once: what is there already counts, too. */
		if (step % 500 == 499) {
			uint32_t tenant = pick(&model, TENANTS);

			model.quotas[tenant] = pick(&model, 4) ? pick(&model, 100) * PAGE : UINT64_MAX;
			assert_int_equal(kvk_catalog_set_quota(model.catalog, names[tenant],
							       (uint32_t)strlen(names[tenant]), model.quotas[tenant]), 0);
		}
		if (pick(&model, 25) == 0) {
			evict_some(&model);
		} else if (!model.objects[key].here) {
			put_key(&model, key);
		} else {
			kvk_catalog_look(model.catalog, digest.bytes, false, true, &ticket, NULL);
			model.objects[key].used_at = ++model.use;
		}
	}
	print_message("over %" PRIu64 ", without %" PRIu64 ", within %" PRIu64 "\n", model.chosen[0], model.chosen[1],
		      model.chosen[2]);
	assert_true(model.chosen[0] > 500 && model.chosen[1] > 500);
	kvk_catalog_free(model.catalog);
}

/* More of one tenant than is kept ready at a time; then nobody is over, nobody is without, and all are in one
 * order. */
static void many_go_in_order(void **state)
{
	enum { OBJECTS = 6000 };
	struct kvk_policy_options options = { .kind = KVK_POLICY_ISOLATED_LRU };
	struct kvk_victim *victims = calloc(OBJECTS, sizeof(*victims));
	struct kvk_catalog *catalog = NULL;
	uint64_t before = 0;

	(void)state;
	assert_non_null(victims);
	assert_int_equal(kvk_catalog_new(&catalog, UINT64_MAX, &options), 0);
	assert_int_equal(kvk_catalog_set_quota(catalog, "b", 1, 10 * PAGE), 0);
	assert_int_equal(kvk_catalog_set_quota(catalog, NULL, 0, 1000000 * PAGE), 0);
	for (uint64_t i = 0; i < OBJECTS; i++) {
		struct digest digest = digest_number(i);
		struct kvk_object_info info = info_of(1);

		info.tenant = i % 2 ? "b" : "a";
		info.tenant_bytes = 1;
		info.used_at = (1 + i) * 1000;
		assert_int_equal(kvk_catalog_scanned(catalog, digest.bytes, &info), 0);
	}
	assert_int_equal(kvk_catalog_evict(catalog, UINT64_MAX, victims, OBJECTS), OBJECTS);
	for (uint64_t i = 0; i < OBJECTS; i++) {
		uint64_t number = victims[i].used_at_ns / 1000 - 1;

		if (i < OBJECTS / 2 - 10)
			assert_int_equal(number, 2 * i + 1);
		else
			assert_true(victims[i].used_at_ns > before || i == OBJECTS / 2 - 10);
		before = victims[i].used_at_ns;
	}
	kvk_catalog_free(catalog);
	free(victims);
}

static uint64_t quota_told(struct kvk_catalog *catalog, const char *name)
{
	struct kvk_share shares[8] = { { .struct_bytes = sizeof(shares[0]) } };
	uint32_t count = kvk_catalog_shares(catalog, KVK_BY_TENANT, shares, 8);

	for (uint32_t i = 0; i < count; i++) {
		if (shares[i].name_bytes == strlen(name) && memcmp(shares[i].name, name, strlen(name)) == 0)
			return shares[i].quota_bytes;
	}
	return 1;
}

static void quotas_are_told_and_outlive_objects(void **state)
{
	struct kvk_catalog *catalog = *state;
	struct kvk_object_info info = info_of(1);
	struct digest digest = digest_number(1);
	struct kvk_share model = { .struct_bytes = sizeof(model) };
	struct kvk_catalog_ticket ticket;
	bool failed = true;
	int err;

	info.tenant = "alice";
	info.model = "m";
	info.tenant_bytes = 5;
	info.model_bytes = 1;
	assert_int_equal(quota_told(catalog, "alice"), 1);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(kvk_catalog_scanned(catalog, digest.bytes, &info), 0);
		assert_int_equal(quota_told(catalog, "alice"), i ? 5 * PAGE : UINT64_MAX);
		kvk_catalog_set_quota(catalog, NULL, 0, 9 * PAGE);
		assert_int_equal(quota_told(catalog, "alice"), i ? 5 * PAGE : 9 * PAGE);
		assert_int_equal(kvk_catalog_set_quota(catalog, "alice", 5, 5 * PAGE), 0);
		look(catalog, &digest, &ticket);
		kvk_catalog_lost(catalog, digest.bytes, &ticket);
	}
	assert_int_equal(quota_told(catalog, "alice"), 5 * PAGE);
	assert_int_equal(quota_told(catalog, ""), 1);
	assert_int_equal(kvk_catalog_set_quota(catalog, "", 0, 3 * PAGE), 0);
	assert_int_equal(quota_told(catalog, ""), 3 * PAGE);
	assert_int_equal(kvk_catalog_set_quota(catalog, "alice", 5, UINT64_MAX), 0);
	assert_int_equal(quota_told(catalog, "alice"), UINT64_MAX);
	assert_int_equal(kvk_catalog_scanned(catalog, digest.bytes, &info), 0);
	assert_int_equal(kvk_catalog_shares(catalog, KVK_BY_MODEL, &model, 1), 1);
	assert_int_equal(model.quota_bytes, UINT64_MAX);

	for (uint64_t nth = 1; failed; nth++) {
		char name[] = "new-0";

		name[4] = (char)('0' + nth);
		kvk_mem_fail_nth(nth, false);
		err = kvk_catalog_set_quota(catalog, name, 5, PAGE);
		failed = kvk_mem_has_failed();
		assert_int_equal(err, failed ? -ENOMEM : 0);
		kvk_mem_fail_nth(0, false);
		assert_int_equal(quota_told(catalog, name), failed ? 1 : PAGE);
	}
}

static void names_with_quotas_are_bounded(void **state)
{
	struct kvk_catalog *catalog = *state;
	char name[16];

	for (uint32_t i = 0; i < KVK_SHARE_NAMES_MAX; i++) {
		int bytes = snprintf(name, sizeof(name), "t%u", i);

		assert_int_equal(kvk_catalog_set_quota(catalog, name, (uint32_t)bytes, PAGE), 0);
	}
	assert_int_equal(kvk_catalog_set_quota(catalog, "one more", 8, PAGE), -EUSERS);
	assert_int_equal(kvk_catalog_set_quota(catalog, "t7", 2, 2 * PAGE), 0);
	assert_int_equal(kvk_catalog_shares(catalog, KVK_BY_TENANT, NULL, 0), KVK_SHARE_NAMES_MAX);
}

/* A parent whose last child was chosen may be gone with its tenant's name before anybody asks how that stands. */
static void a_name_that_ended_stands_within(void **state)
{
	struct kvk_share_part part = { .moved = true };
	struct kvk_share_table table;
	uint16_t id;

	(void)state;
	kvk_share_table_init(&table);
	id = kvk_share_add(&table, &part, "alice", 5, PAGE);
	assert_int_not_equal(id, 0);
	assert_int_equal(kvk_share_standing(&table, id), KVK_SHARE_WITHOUT);
	kvk_share_sub(&table, &part, id, PAGE, 0);
	assert_int_equal(kvk_share_standing(&table, id), KVK_SHARE_WITHIN);
	kvk_share_table_release(&table);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_is_over_goes_first),
		cmocka_unit_test(many_go_in_order),
		WITH_LEASE(quotas_are_told_and_outlive_objects),
		WITH_LEASE(names_with_quotas_are_bounded),
		cmocka_unit_test(a_name_that_ended_stands_within),
	};

	return cmocka_run_group_tests_name("catalog_quota", tests, NULL, NULL);
}
