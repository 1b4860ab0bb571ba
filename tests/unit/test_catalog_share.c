/* SPDX-License-Identifier: Apache-2.0 */
/* What tenants and models hold: totals by name, names that end, too many of them, no memory for them. */
#include "catalog_kit.h"

static void put_named(struct kvk_catalog *catalog, uint64_t number, const char *tenant, const char *model)
{
	struct kvk_object_info info = info_of(1);
	struct digest digest = digest_number(number);
	bool durable;

	info.tenant = tenant;
	info.tenant_bytes = tenant ? (uint32_t)strlen(tenant) : 0;
	info.model = model;
	info.model_bytes = model ? (uint32_t)strlen(model) : 0;
	assert_int_equal(kvk_catalog_put_begin(catalog, digest.bytes, PAGE, &durable), 0);
	kvk_catalog_put_end(catalog, digest.bytes, &info);
}

static void assert_share(const struct kvk_share *share, const char *name, uint64_t objects)
{
	assert_int_equal(share->name_bytes, strlen(name));
	assert_memory_equal(share->name, name, strlen(name));
	assert_int_equal(share->objects, objects);
	assert_int_equal(share->used_bytes, objects * PAGE);
}

static void shares_by_tenant_and_model(void **state)
{
	struct kvk_catalog *catalog = *state;
	struct kvk_share shares[4] = { { .struct_bytes = sizeof(shares[0]) } };
	struct {
		uint32_t struct_bytes, name_bytes;
		uint64_t used_bytes;
	} old[3] = { { .struct_bytes = sizeof(old[0]) } };
	char name[400];

	assert_int_equal(kvk_catalog_shares(catalog, KVK_BY_TENANT, shares, 4), 0);
	put_named(catalog, 1, "alice", "llama");
	put_named(catalog, 2, "bob", "llama");
	put_named(catalog, 3, "alice", NULL);
	put_named(catalog, 4, NULL, "llama");
	assert_int_equal(kvk_catalog_shares(catalog, KVK_BY_TENANT, shares, 4), 3);
	assert_share(&shares[0], "", 1);
	assert_share(&shares[1], "alice", 2);
	assert_share(&shares[2], "bob", 1);
	assert_int_equal(shares[2].struct_bytes, sizeof(shares[0]));
	assert_int_equal(kvk_catalog_shares(catalog, KVK_BY_MODEL, shares, 4), 2);
	assert_share(&shares[1], "llama", 3);
	assert_int_equal(kvk_catalog_shares(catalog, KVK_BY_TENANT, NULL, 0), 3);

	/* A caller that was built with a shorter struct. */
	old[2].used_bytes = 99;
	assert_int_equal(kvk_catalog_shares(catalog, KVK_BY_TENANT, (struct kvk_share *)(void *)old, 2), 3);
	assert_int_equal(old[0].used_bytes, PAGE);
	assert_int_equal(old[1].used_bytes, 2 * PAGE);
	assert_int_equal(old[2].used_bytes, 99);

	remove_number(catalog, 1);
	assert_int_equal(kvk_catalog_shares(catalog, KVK_BY_TENANT, shares, 4), 3);
	assert_share(&shares[1], "alice", 1);
	remove_number(catalog, 4);
	remove_number(catalog, 3);
	assert_int_equal(kvk_catalog_shares(catalog, KVK_BY_TENANT, shares, 4), 1);
	assert_share(&shares[0], "bob", 1);

	/* Long names are told apart, and cut. */
	memset(name, 'x', sizeof(name));
	name[sizeof(name) - 1] = 0;
	put_named(catalog, 5, name, NULL);
	name[300] = 'y';
	put_named(catalog, 6, name, NULL);
	assert_int_equal(kvk_catalog_shares(catalog, KVK_BY_TENANT, shares, 4), 3);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(shares[i].objects, 1);
		assert_int_equal(shares[i].name_bytes, memcmp(shares[i].name, "bob", 3) ? 256 : 3);
	}
}

static void names_that_come_and_go_leave_nothing(void **state)
{
	struct kvk_catalog *catalog = *state;
	uint64_t memory_bytes = 0;
	char salt[32];

	for (uint64_t i = 0; i < 200000; i++) {
		struct digest digest = digest_number(i % 16);

		snprintf(salt, sizeof(salt), "salt-%010" PRIu64, i);
		put_named(catalog, i % 16, salt, "m");
		remove_object(catalog, &digest, 1);
		if (i == 15)
			memory_bytes = totals_of(catalog).memory_bytes;
	}
	assert_int_equal(totals_of(catalog).memory_bytes, memory_bytes);
	assert_int_equal(kvk_catalog_shares(catalog, KVK_BY_TENANT, NULL, 0), 0);
}

static void too_many_names_count_under_none(void **state)
{
	struct kvk_share first = { .struct_bytes = sizeof(first) };
	struct kvk_catalog *catalog = NULL;
	char salt[32];

	(void)state;
	assert_int_equal(kvk_catalog_new(&catalog, UINT64_MAX, NULL), 0);
	for (uint64_t i = 0; i < KVK_SHARE_NAMES_MAX + 10; i++) {
		snprintf(salt, sizeof(salt), "salt-%" PRIu64, i);
		put_named(catalog, i, salt, NULL);
	}
	assert_int_equal(kvk_catalog_shares(catalog, KVK_BY_TENANT, &first, 1), KVK_SHARE_NAMES_MAX + 1);
	assert_share(&first, "", 10);
	for (uint64_t i = 0; i < KVK_SHARE_NAMES_MAX + 10; i++)
		remove_number(catalog, i);
	assert_int_equal(kvk_catalog_shares(catalog, KVK_BY_TENANT, NULL, 0), 0);
	assert_int_equal(totals_of(catalog).used_bytes, 0);
	kvk_catalog_free(catalog);
}

/* A name that finds no memory counts under "", and the object is as present as any. */
static void short_memory_for_names_is_no_failure(void **state)
{
	struct kvk_catalog *catalog = *state;
	bool failed = true;

	for (uint64_t nth = 1; failed; nth++) {
		struct digest digest = digest_number(nth);
		struct kvk_object_info info = info_of(1);
		struct kvk_share share = { .struct_bytes = sizeof(share) };
		bool durable;

		info.tenant = "t";
		info.tenant_bytes = 1;
		info.model = "m";
		info.model_bytes = 1;
		assert_int_equal(kvk_catalog_put_begin(catalog, digest.bytes, PAGE, &durable), 0);
		kvk_mem_fail_nth(nth, false);
		kvk_catalog_put_end(catalog, digest.bytes, &info);
		failed = kvk_mem_has_failed();
		kvk_mem_fail_nth(0, false);
		assert_int_equal(state_of(catalog, &digest), KVK_CATALOG_PRESENT);
		assert_int_equal(kvk_catalog_shares(catalog, KVK_BY_TENANT, &share, 1), 1);
		assert_int_equal(share.name_bytes, failed && nth <= 2 ? 0 : 1);
		remove_object(catalog, &digest, 1);
		assert_int_equal(kvk_catalog_shares(catalog, KVK_BY_TENANT, NULL, 0), 0);
		assert_int_equal(kvk_catalog_shares(catalog, KVK_BY_MODEL, NULL, 0), 0);
	}
}

/* An eviction asks for the tenant of a parent that it has let go, and another thread may have removed that meanwhile. */
static void a_name_that_is_gone_has_no_quota(void **state)
{
	struct kvk_share_table table;
	uint16_t id;

	(void)state;
	kvk_share_table_init(&table);
	id = kvk_share_add(&table, "alice", 5, PAGE);
	assert_int_not_equal(id, 0);
	assert_int_equal(kvk_share_standing(&table, id), KVK_SHARE_WITHOUT);
	kvk_share_sub(&table, id, PAGE, 0);
	assert_int_equal(kvk_share_standing(&table, id), KVK_SHARE_WITHIN);
	assert_int_equal(kvk_share_standing(&table, 0), KVK_SHARE_WITHOUT);
	kvk_share_table_release(&table);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_LEASE(shares_by_tenant_and_model),
		WITH_LEASE(names_that_come_and_go_leave_nothing),
		cmocka_unit_test(a_name_that_is_gone_has_no_quota),
		cmocka_unit_test(too_many_names_count_under_none),
		WITH_LEASE(short_memory_for_names_is_no_failure),
	};

	return cmocka_run_group_tests_name("catalog_share", tests, NULL, NULL);
}
