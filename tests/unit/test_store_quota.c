/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Quotas that are set while a store is in use: kept for later opens, learnt by others that have the store open, before what
 * the specification says; and what happens when their file is damaged or cannot be written.
 */
#include <pthread.h>

#include "unit/store_kit.h"

#define NONE UINT64_MAX

/* What the store says of a tenant; 12345 if it does not know it. */
static uint64_t quota_of(struct kvk_store *store, const char *tenant)
{
	struct kvk_share shares[16];
	int count;

	for (size_t i = 0; i < 16; i++)
		shares[i].struct_bytes = sizeof(shares[i]);
	count = kvk_store_shares(store, KVK_BY_TENANT, shares, 16);
	assert_in_range(count, 0, 16);
	for (int i = 0; i < count; i++) {
		if (shares[i].name_bytes == strlen(tenant) && !memcmp(shares[i].name, tenant, strlen(tenant)))
			return shares[i].quota_bytes;
	}
	return 12345;
}

static bool default_is(struct kvk_store *store, const char *text)
{
	char wanted[64], *status;
	bool is;

	snprintf(wanted, sizeof(wanted), "\"default_quota_bytes\":%s", text);
	assert_int_equal(kvk_store_status(store, &status), 0);
	is = strstr(status, wanted) != NULL;
	kvk_free(status);
	return is;
}

static void set(struct kvk_store *store, const char *tenant, uint64_t bytes)
{
	assert_int_equal(kvk_store_set_quota(store, tenant, tenant ? (uint32_t)strlen(tenant) : 0, bytes), 0);
}

static void quotas_stay(void **state)
{
	static const char spec[] = "\"eviction\": {\"eviction_policy\": \"IsolatedLRU\", \"default_quota_gb\": 1, "
				   "\"quotas_gb\": {\"said\": 1, \"both\": 1}}";
	struct bed *bed = *state;

	bed_open(bed, spec);
	assert_true(default_is(bed->store, "1073741824"));
	assert_int_equal(quota_of(bed->store, "said"), 1 << 30);
	set(bed->store, "both", 5);
	set(bed->store, "", 6);
	set(bed->store, "t\xc3\xa4t \"\\", 7);
	set(bed->store, "free", NONE);
	set(bed->store, NULL, 8);
	set(bed->store, "both", 4);
	for (int round = 0; round < 3; round++) {
		assert_int_equal(quota_of(bed->store, "said"), 1 << 30);
		assert_int_equal(quota_of(bed->store, "both"), 4);
		assert_int_equal(quota_of(bed->store, ""), 6);
		assert_int_equal(quota_of(bed->store, "t\xc3\xa4t \"\\"), 7);
		assert_true(quota_of(bed->store, "free") == NONE);
		assert_true(default_is(bed->store, "8"));
		bed_reopen(bed, spec);
	}
	bed_reopen(bed, "");
	assert_int_equal(quota_of(bed->store, "said"), 12345);
	assert_int_equal(quota_of(bed->store, "both"), 4);
	set(bed->store, NULL, NONE);
	bed_reopen(bed, spec);
	assert_true(default_is(bed->store, "null"));
}

/* Two opens of one directory, each with threads and an account row of its own, as two processes are. */
static void others_learn_of_them(void **state)
{
	uint64_t until_us = kit_now_us() + 20000000;
	struct bed *bed = *state;
	struct kvk_store *other;
	char spec[1024];

	bed_open(bed, "");
	bed_spec(bed, spec, sizeof(spec), "");
	assert_int_equal(kvk_store_open(&other, spec, NULL, NULL), 0);
	/* Several within one tick of the file system's clock: the last counts. */
	for (uint32_t round = 1; round <= 5; round++) {
		for (uint32_t i = 0; i < 50; i++)
			set(bed->store, "a", round * 1000 + i);
		while (quota_of(other, "a") != round * 1000 + 49) {
			assert_true(kit_now_us() < until_us);
			usleep(1000);
		}
	}
	set(other, "b", 7);
	set(bed->store, "c", 8);
	while (quota_of(bed->store, "b") != 7 || quota_of(other, "c") != 8) {
		assert_true(kit_now_us() < until_us);
		usleep(1000);
	}
	assert_int_equal(quota_of(bed->store, "a"), 5049);
	assert_int_equal(kvk_store_close(other), 0);
}

struct setter {
	struct kvk_store *store;
	char first;
};

static void *set_many(void *argument)
{
	struct setter *setter = argument;
	char name[3] = { setter->first, 'x', 0 };

	for (int i = 0; i < 40; i++) {
		name[1] = (char)('a' + i % 4);
		set(setter->store, name, (uint64_t)i + 1);
	}
	return NULL;
}

/* Four threads, two to a store: nobody's change is lost in another's. */
static void none_is_lost_in_a_race(void **state)
{
	struct bed *bed = *state;
	struct setter setters[4];
	struct kvk_store *other;
	pthread_t threads[4];
	char spec[1024];

	bed_open(bed, "");
	bed_spec(bed, spec, sizeof(spec), "");
	assert_int_equal(kvk_store_open(&other, spec, NULL, NULL), 0);
	for (int i = 0; i < 4; i++) {
		setters[i] = (struct setter){ i % 2 ? other : bed->store, (char)('a' + i) };
		assert_int_equal(pthread_create(&threads[i], NULL, set_many, &setters[i]), 0);
	}
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(kvk_store_close(other), 0);
	bed_reopen(bed, "");
	for (int i = 0; i < 16; i++) {
		char name[3] = { (char)('a' + i / 4), (char)('a' + i % 4), 0 };

		assert_int_equal(quota_of(bed->store, name), 37 + i % 4);
	}
}

static void write_file(const struct bed *bed, const char *text)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/.kvkeep/quotas", bed->path);
	kit_file_write(path, text, strlen(text));
}

/* The store opens, the specification holds, and what is set replaces what nobody can read. */
static void damage_is_survived(void **state)
{
	static const char *const texts[] = { "", "{", "[]", "7", "{\"tenants\":7,\"default\":\"x\"}",
					     "{\"tenants\":{\"said\":-1,\"a\":1.5,\"b\":{}}}" };
	static const char spec[] = "\"eviction\": {\"eviction_policy\": \"IsolatedLRU\", \"quotas_gb\": {\"also\": 1}}";
	struct bed *bed = *state;

	bed_open(bed, spec);
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		assert_int_equal(bed_close(bed), 0);
		write_file(bed, texts[i]);
		bed_open(bed, spec);
		assert_int_equal(quota_of(bed->store, "also"), 1 << 30);
		set(bed->store, "a", 100 + i);
		bed_reopen(bed, spec);
		assert_int_equal(quota_of(bed->store, "a"), 100 + i);
	}
}

static void bad_ones_are_refused(void **state)
{
	static const char huge[2000] = "x";
	struct bed *bed = *state;

	bed_open(bed, "");
	assert_int_equal(kvk_store_set_quota(bed->store, "a\0b", 3, 1), -EINVAL);
	assert_int_equal(kvk_store_set_quota(bed->store, "\xff", 1, 1), -EINVAL);
	assert_int_equal(kvk_store_set_quota(bed->store, NULL, 3, 1), -EINVAL);
	assert_int_equal(kvk_store_set_quota(bed->store, huge, sizeof(huge), 1), -EINVAL);
	assert_int_equal(kvk_store_shares(bed->store, KVK_BY_TENANT, NULL, 0), 0);
	bed_reopen(bed, "");
	assert_int_equal(kvk_store_shares(bed->store, KVK_BY_TENANT, NULL, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BED_TEST(quotas_stay, BED_THREADS, "threads"), BED_TEST(others_learn_of_them, BED_THREADS, "threads"),
		BED_TEST(none_is_lost_in_a_race, BED_THREADS, "threads"),
		BED_TEST(damage_is_survived, BED_THREADS, "threads"), BED_TESTS(bad_ones_are_refused),
	};

	kit_in_memory();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
