/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Removes by name: what a list shows can be removed, whatever its namespace or key, also where nobody can read a key;
 * and nothing else goes, however the name is written.
 */
#include "unit/store_kit.h"

#define LMCACHE "\"naming\": \"lmcache\""

static int remove_name(struct kvk_store *store, const char *name, uint32_t *reason)
{
	struct kvk_key_item item = { .struct_bytes = sizeof(item), .flags = KVK_KEY_IS_NAME,
				     .key = { name, (uint32_t)strlen(name) } };
	struct kvk_result result = { .struct_bytes = sizeof(result) };
	int err = kvk_store_remove_wait(store, &item, 1, 0, &result);

	if (reason)
		*reason = result.reason;
	return err ? err : result.status;
}

/* The names of all objects there are. */
static uint32_t list(struct kvk_store *store, char names[16][256])
{
	static struct kvk_list_entry entries[16];
	char *cursor = NULL;
	int count;

	for (size_t i = 0; i < 16; i++)
		entries[i].struct_bytes = sizeof(entries[i]);
	count = kvk_store_list(store, NULL, entries, 16, &cursor);
	assert_in_range(count, 0, 16);
	assert_null(cursor);
	for (int i = 0; i < count; i++)
		memcpy(names[i], entries[i].name, 256);
	return (uint32_t)count;
}

static void listed_ones_go(struct bed *bed, const char *naming)
{
	char names[16][256], more[256];
	uint32_t reason;

	bed_open(bed, naming);
	assert_int_equal(bed_put(bed->store, "m@00000000@0@01@t", 5000, 1, NULL), 0);
	assert_int_equal(bed_put(bed->store, "m@00000000@0@02", 5000, 1, NULL), 0);
	snprintf(more, sizeof(more), "%s%s\"namespace\": {\"model\": \"other\"}", naming, *naming ? ", " : "");
	bed_reopen(bed, more);
	assert_int_equal(bed_put(bed->store, "m@00000000@0@03", 5000, 1, NULL), 0);
	bed_reopen(bed, naming);
	assert_int_equal(list(bed->store, names), 3);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(remove_name(bed->store, names[i], NULL), 0);
		assert_int_equal(remove_name(bed->store, names[i], &reason), -ENOENT);
		assert_int_equal(reason, KVK_REASON_ABSENT);
	}
	assert_int_equal(list(bed->store, names), 0);
	assert_int_equal(kit_used_settles(bed->store, 0), 0);
	assert_int_equal(bed_lookup(bed->store, "m@00000000@0@02", 0, NULL), -ENOENT);
}

static void listed_ones_go_kvkeep(void **state)
{
	listed_ones_go(*state, "");
}

static void listed_ones_go_lmcache(void **state)
{
	listed_ones_go(*state, LMCACHE);
}

/* A pin and a put hold it as they do against a remove by key. */
static void pins_hold(void **state)
{
	struct bed *bed = *state;
	char names[16][256];

	bed_open(bed, "");
	assert_int_equal(bed_put(bed->store, "k", 5000, 1, NULL), 0);
	assert_int_equal(bed_lookup(bed->store, "k", KVK_LOOKUP_PIN, NULL), 0);
	assert_int_equal(list(bed->store, names), 1);
	assert_int_equal(remove_name(bed->store, names[0], NULL), -EBUSY);
	assert_int_equal(bed_unpin(bed->store, "k"), 0);
	assert_int_equal(remove_name(bed->store, names[0], NULL), 0);
}

#define D16 "0123456789abcdef"
#define DIGEST D16 D16 D16 D16

static void other_names_are_refused(void **state)
{
	static const char *const names[] = {
		"x", "/", ".", "..", "01", "01/", DIGEST ".kv", "02/" DIGEST ".kv", "01/23/" DIGEST ".kv", "01//" DIGEST ".kv",
		"./01/" DIGEST ".kv", "../01/" DIGEST ".kv", "01/../01/" DIGEST ".kv", "/01/" DIGEST ".kv", "01/" DIGEST ".1.gone",
		"01/.tmp-0123456789abcdef-1", ".kvkeep/account", ".kvkeep/quarantine/" DIGEST ".kv", "01/" DIGEST ".kv/",
		"01/" DIGEST, "01/" DIGEST ".bin",
	};
	struct kvk_key_item item = { .struct_bytes = sizeof(item), .flags = KVK_KEY_IS_NAME, .key = { "01/" DIGEST ".kv\0", 71 } };
	struct kvk_result result = { .struct_bytes = sizeof(result) };
	struct bed *bed = *state;

	bed_open(bed, "");
	assert_int_equal(remove_name(bed->store, "01/" DIGEST ".kv", NULL), -ENOENT);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		int status = remove_name(bed->store, names[i], NULL);

		if (status != -EINVAL)
			fail_msg("'%s': %d, wanted %d", names[i], status, -EINVAL);
	}
	assert_int_equal(kvk_store_remove_wait(bed->store, &item, 1, 0, &result), 0);
	assert_int_equal(result.status, -EINVAL);
	item.flags |= KVK_KEY_IS_DIGEST;
	assert_int_equal(kvk_store_remove_wait(bed->store, &item, 1, 0, &result), -EINVAL);
}

static void other_names_are_refused_lmcache(void **state)
{
	static const char *const names[] = { "../m_00000000_0_ab.bin", "a/m_00000000_0_ab.bin", ".kvkeep/m_00000000_0_ab.bin",
					     "./m_00000000_0_ab.bin", "m_00000000_0_ab", ".bin", "..bin/" };
	struct bed *bed = *state;

	bed_open(bed, LMCACHE);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		int status = remove_name(bed->store, names[i], NULL);

		if (status != -EINVAL)
			fail_msg("'%s': %d, wanted %d", names[i], status, -EINVAL);
	}
	assert_int_equal(remove_name(bed->store, "m_00000000_0_ab.bin", NULL), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BED_TESTS_POSIX(listed_ones_go_kvkeep), BED_TESTS_POSIX(listed_ones_go_lmcache), BED_TESTS(pins_hold),
		BED_TESTS(other_names_are_refused), BED_TESTS(other_names_are_refused_lmcache),
	};

	kit_in_memory();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
