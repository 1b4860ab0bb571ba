/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is settled at open, and what lies beside the objects, on a medium that fails: nothing is made or changed that was not
 * agreed on, every refusal names its option, and no error is taken for another.
 */
#include "bent_medium.h"
#include "no_random.h"
#include "seal.h"

#define SLOT 65536u

static struct kvk_superblock_wish files(void)
{
	return (struct kvk_superblock_wish){
		.values = { .layout = { KVK_NAMING_KVKEEP, 1 }, .cap_bytes = 1 << 20, .durability = KVK_DURABILITY_BATCH, .persist = true },
		.create = true,
	};
}

static struct kvk_superblock_wish pool(void)
{
	struct kvk_superblock_wish wish = files();

	wish.values.pool = (struct kvk_pool_shape){ .slot_bytes = SLOT, .slots = 10, .file_slots = 10 };
	return wish;
}

static struct kvk_superblock settle(struct bent *bent, const struct kvk_superblock_wish *wish, int expected, const char *option)
{
	struct kvk_error error = { .struct_bytes = sizeof(error) };
	struct kvk_superblock is = { .created_ns = 77 };
	bool made = true;
	int err = kvk_superblock_settle(&is, &made, &bent->base, wish, &error);

	if (err != expected || strcmp(error.option, option ? option : ""))
		fail_msg("%d, option \"%s\" (%s); wanted %d, \"%s\"", err, error.option, error.text, expected, option ? option : "");
	assert_int_equal(error.text[0] != '\0', err != 0);
	if (err)
		assert_int_equal(is.created_ns, 77);
	return is;
}

static bool is_there(struct bent *bent)
{
	return bent_bytes(bent, ".kvkeep/superblock") >= 0;
}

#define PATH "backend_params.file_path"

/* ---- making one --------------------------------------------------------------------------------- */

static void test_making(void **state)
{
	static const struct { struct bend bends[3]; int expected; bool there; } rows[] = {
		{ { { 0 } }, 0, true },
		{ { { .call = BENT_LOAD, .nth = 1, .error = -EIO } }, -EIO, false },
		{ { { .call = BENT_LOAD, .nth = 2, .error = -EACCES } }, -EACCES, false },
		{ { { .call = BENT_SAVE, .nth = 1, .error = -ENOSPC } }, -ENOSPC, false },
		{ { { .call = BENT_HOLD_ALONE, .nth = 1, .error = -ENOLCK } }, -ENOLCK, false },
		{ { { .call = BENT_HOLD_ALONE, .nth = 1, .error = -EBUSY }, { .call = BENT_HOLD_SHARED, .nth = 1, .error = -ENOLCK } },
		  -ENOLCK, false },
		/* Another has the store open, and somebody moved its superblock away. */
		{ { { .call = BENT_HOLD_ALONE, .nth = 1, .error = -EBUSY } }, -ENOENT, false },
		/* Another held it alone for a moment. */
		{ { { .call = BENT_HOLD_ALONE, .nth = 1, .error = -EBUSY }, { .call = BENT_HOLD_SHARED, .nth = 1, .error = -EBUSY } }, 0,
		  true },
		/* It was made and cannot be shared: nobody else can open it while this goes on, so this does not. */
		{ { { .call = BENT_HOLD_SHARED, .nth = 1, .error = -EIO } }, -EIO, true },
	};
	const struct kvk_superblock_wish wish = files();

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct bent bent;

		bent_open(&bent);
		bent_set(&bent, rows[i].bends, 3);
		settle(&bent, &wish, rows[i].expected, rows[i].expected ? PATH : NULL);
		assert_int_equal(is_there(&bent), rows[i].there);
		bent_close(&bent);
	}
}

static void test_not_making(void **state)
{
	struct kvk_superblock_wish wish = files();
	struct bent bent;

	bent_open(&bent);
	wish.create = false;
	settle(&bent, &wish, -ENOENT, PATH);
	assert_false(is_there(&bent));
	wish = pool();
	wish.values.pool.slots = 0;
	settle(&bent, &wish, -EINVAL, "pool_size");
	assert_false(is_there(&bent));
	bent_close(&bent);
}

/* Without random numbers no store gets a name. */
static void test_no_random_numbers(void **state)
{
	const struct kvk_superblock_wish wish = files();
	struct bent bent;

	bent_open(&bent);
	no_random = true;
	settle(&bent, &wish, -EIO, NULL);
	no_random = false;
	assert_false(is_there(&bent));
	bent_close(&bent);
}

/* Somebody who opens holds it alone for a moment; who does so for two seconds has it. */
static void test_held_alone(void **state)
{
	const struct kvk_superblock_wish wish = files();
	struct bent bent;

	bent_open(&bent);
	bent_set(&bent, (struct bend[2]){ { .call = BENT_HOLD_ALONE, .nth = 1, .every = true, .error = -EBUSY },
		 { .call = BENT_HOLD_SHARED, .nth = 1, .every = true, .error = -EBUSY } }, 2);
	settle(&bent, &wish, -EBUSY, PATH);
	assert_in_range(bent.calls[BENT_HOLD_ALONE], 2, 1000);
	bent_close(&bent);
}

/* A pool is locked before it is looked at, and once more when it turns out to be one. */
static void test_owning_a_pool(void **state)
{
	static const int errors[] = { -EBUSY, -EIO };
	struct kvk_superblock_wish wish = pool();
	struct bent bent;

	bent_open(&bent);
	for (size_t i = 0; i < 2; i++) {
		BEND(&bent, .call = BENT_LOCK, .nth = 1, .error = errors[i]);
		settle(&bent, &wish, errors[i], PATH);
		assert_false(is_there(&bent));
	}
	settle(&bent, &wish, 0, NULL);
	assert_int_equal(settle(&bent, &wish, 0, NULL).pool.opens, 2);
	BEND(&bent, .call = BENT_LOCK, .nth = 2, .error = -EBUSY);
	settle(&bent, &wish, -EBUSY, PATH);
	bent_close(&bent);
}

/* ---- what is there ------------------------------------------------------------------------------ */

static void test_damaged(void **state)
{
	const struct kvk_superblock_wish wish = files();
	uint8_t *data;
	uint64_t bytes;
	struct bent bent;

	bent_open(&bent);
	settle(&bent, &wish, 0, NULL);
	data = bent_read(&bent, ".kvkeep/superblock", &bytes);
	bent_flip(&bent, ".kvkeep/superblock", 100);
	settle(&bent, &wish, -EBADMSG, PATH);
	assert_int_equal(kvk_superblock_set_cap(&bent.base, 5), -EBADMSG);
	bent_file(&bent, ".kvkeep/superblock", data, bytes);
	settle(&bent, &wish, 0, NULL);
	/* Of a newer version. */
	data[12] ^= 0x40;
	seal_superblock(data);
	bent_file(&bent, ".kvkeep/superblock", data, bytes);
	settle(&bent, &wish, -EPROTO, PATH);
	free(data);
	bent_close(&bent);
}

static void test_new_cap(void **state)
{
	const struct kvk_superblock_wish wish = files();
	struct bent bent;

	bent_open(&bent);
	assert_int_equal(kvk_superblock_set_cap(&bent.base, 5), -ENOENT);
	settle(&bent, &wish, 0, NULL);
	BEND(&bent, .call = BENT_SAVE, .nth = 1, .error = -EROFS);
	assert_int_equal(kvk_superblock_set_cap(&bent.base, 5), -EROFS);
	assert_int_equal(settle(&bent, &wish, 0, NULL).cap_bytes, 1 << 20);
	assert_int_equal(kvk_superblock_set_cap(&bent.base, 5), 0);
	assert_int_equal(settle(&bent, &wish, 0, NULL).cap_bytes, 5);
	bent_close(&bent);
}

/* Each wish alone: what is fixed is refused, whoever asks; what may change changes for who is alone. */
static void test_wishes(void **state)
{
	enum { NAMING, LEVELS, TYPE, GROUP, CAP, DURABILITY, PERSIST, WISHES };
	static const char *const options[WISHES] = {
		"naming", "max_objects", "type", "group", "backend_params.max_capacity_gb", "durability", "persist_enabled",
	};

	for (int i = 0; i < WISHES; i++) {
		for (unsigned way = 0; way < 8; way++) {
			bool differs = way & 1, others = way & 2, visitor = way & 4, fixed = i <= GROUP;
			struct kvk_superblock_wish wish = files();
			struct kvk_superblock is;
			int expected = !differs ? 0 : fixed ? -EINVAL : others && !visitor ? -EBUSY : 0;
			struct bent bent;

			bent_open(&bent);
			settle(&bent, &wish, 0, NULL);
			wish.visitor = visitor;
			wish.says_naming = i == NAMING;
			wish.says_levels = i == LEVELS;
			wish.says_type = i == TYPE;
			wish.says_group = i == GROUP;
			wish.says_cap = i == CAP;
			wish.says_durability = i == DURABILITY;
			wish.says_persist = i == PERSIST;
			if (differs) {
				wish.values.layout = (struct kvk_layout){ KVK_NAMING_LMCACHE, 2 };
				wish.values.group = true;
				wish.values.cap_bytes = 2 << 20;
				wish.values.durability = KVK_DURABILITY_OBJECT;
				wish.values.persist = false;
				if (i == TYPE)
					wish.values.pool = pool().values.pool;
			}
			if (others)
				BEND(&bent, .call = BENT_HOLD_ALONE, .nth = 1, .error = -EBUSY);
			is = settle(&bent, &wish, expected, expected ? options[i] : NULL);
			if (!expected && differs && !visitor) {
				assert_int_equal(is.cap_bytes, i == CAP ? 2 << 20 : 1 << 20);
				assert_int_equal(is.durability, i == DURABILITY ? KVK_DURABILITY_OBJECT : KVK_DURABILITY_BATCH);
				assert_int_equal(is.persist, i != PERSIST);
			}
			bent_close(&bent);
		}
	}
}

/* The texts of the other way round, and a change that cannot be written. */
static void test_the_other_way_round(void **state)
{
	struct kvk_superblock_wish wish = files();
	struct bent bent;

	bent_open(&bent);
	wish.values.layout = (struct kvk_layout){ KVK_NAMING_LMCACHE, 2 };
	wish.values.group = true;
	wish.values.persist = false;
	settle(&bent, &wish, 0, NULL);
	wish = files();
	wish.says_naming = true;
	settle(&bent, &wish, -EINVAL, "naming");
	wish.says_naming = false;
	wish.says_levels = true;
	settle(&bent, &wish, -EINVAL, "backend_params.shard_dirs");
	wish.says_levels = false;
	wish.says_group = true;
	settle(&bent, &wish, -EINVAL, "group");
	wish.says_group = false;
	wish.says_persist = true;
	BEND(&bent, .call = BENT_HOLD_ALONE, .nth = 1, .error = -EBUSY);
	settle(&bent, &wish, -EBUSY, "persist_enabled");
	BEND(&bent, .call = BENT_SAVE, .nth = 1, .error = -EIO);
	settle(&bent, &wish, -EIO, PATH);
	STRAIGHT(&bent);
	assert_true(settle(&bent, &wish, 0, NULL).persist);
	bent_close(&bent);
}

static void test_wishes_of_a_pool(void **state)
{
	struct kvk_superblock_wish wish = pool();
	struct kvk_superblock is;
	struct bent bent;

	bent_open(&bent);
	is = settle(&bent, &wish, 0, NULL);
	assert_int_equal(is.cap_bytes, 10 * SLOT);
	wish.says_type = wish.says_slot_bytes = wish.says_slots = wish.says_file_slots = true;
	settle(&bent, &wish, 0, NULL);
	wish.says_cap = true;
	settle(&bent, &wish, -EINVAL, "backend_params.max_capacity_gb");
	wish.says_cap = false;
	wish.values.pool.slot_bytes = 2 * SLOT;
	settle(&bent, &wish, -EINVAL, "slot_size");
	wish.values.pool.slot_bytes = SLOT;
	wish.values.pool.file_slots = 5;
	settle(&bent, &wish, -EINVAL, "file_size");
	wish.values.pool.file_slots = KVK_POOL_SLOTS_MAX;
	settle(&bent, &wish, -EINVAL, "backend_params.device_path");
	wish.values.pool.file_slots = 10;
	wish.values.pool.slots = 9;
	settle(&bent, &wish, -EINVAL, "pool_size");
	wish.visitor = true;
	assert_int_equal(settle(&bent, &wish, 0, NULL).pool.slots, 10);
	wish.visitor = false;
	wish.values.pool.slots = 11;
	is = settle(&bent, &wish, 0, NULL);
	assert_int_equal(is.pool.slots, 11);
	assert_int_equal(is.cap_bytes, 11 * SLOT);
	wish = files();
	wish.says_type = true;
	settle(&bent, &wish, -EINVAL, "type");
	bent_close(&bent);

	/* One on a device. */
	wish = pool();
	wish.values.pool.file_slots = KVK_POOL_SLOTS_MAX;
	bent_open(&bent);
	settle(&bent, &wish, 0, NULL);
	settle(&bent, &wish, 0, NULL);
	wish = pool();
	settle(&bent, &wish, -EINVAL, "backend_params.device_path");
	bent_close(&bent);
}

/* ---- namespaces --------------------------------------------------------------------------------- */

#define MANIFEST "{\"model\":\"m\"}"

static void test_namespaces(void **state)
{
	struct kvk_error error = { .struct_bytes = sizeof(error) };
	uint8_t digest[KVK_DIGEST_BYTES], other[KVK_DIGEST_BYTES], found[3 * KVK_DIGEST_BYTES];
	char name[128], hex[2 * KVK_DIGEST_BYTES + 1], *text = NULL;
	struct bent bent;

	bent_open(&bent);
	assert_int_equal(kvk_manifest_digest(digest, MANIFEST), 0);
	assert_int_equal(kvk_manifest_digest(other, "{\"model\":\"n\"}"), 0);
	kvk_hex(hex, digest, sizeof(digest));
	snprintf(name, sizeof(name), ".kvkeep/namespaces/%s.json", hex);

	assert_int_equal(kvk_namespace_list(&bent.base, found, 3), 0);
	BEND(&bent, .call = BENT_LIST, .nth = 1, .error = -ENOENT);
	assert_int_equal(kvk_namespace_list(&bent.base, found, 3), 0);
	assert_int_equal(kvk_namespace_load(&bent.base, digest, &text), -ENOENT);
	BEND(&bent, .call = BENT_SAVE, .nth = 1, .error = -EROFS);
	assert_int_equal(kvk_namespace_keep(&bent.base, digest, MANIFEST, &error), -EROFS);
	assert_string_equal(error.option, "namespace");
	/* Another process was faster. */
	BEND(&bent, .call = BENT_SAVE, .nth = 1, .error = -EEXIST);
	assert_int_equal(kvk_namespace_keep(&bent.base, digest, MANIFEST, NULL), 0);
	STRAIGHT(&bent);
	assert_int_equal(kvk_namespace_keep(&bent.base, digest, MANIFEST, NULL), 0);
	assert_int_equal(kvk_namespace_keep(&bent.base, digest, MANIFEST, NULL), 0);
	assert_int_equal(kvk_namespace_keep(&bent.base, digest, "{\"model\":\"n\"}", NULL), -EINVAL);

	assert_int_equal(kvk_namespace_load(&bent.base, digest, &text), 0);
	assert_string_equal(text, MANIFEST);
	kvk_mem_free(text);
	text = NULL;
	for (unsigned nth = 1; nth < 5; nth++) {
		kvk_mem_fail_nth(nth, false);
		if (kvk_namespace_load(&bent.base, digest, &text))
			assert_null(text);
		kvk_mem_fail_nth(0, false);
		kvk_mem_free(text);
		text = NULL;
	}

	/* A damaged one is told, and written anew by who knows what it was. */
	bent_flip(&bent, name, 5);
	assert_int_equal(kvk_namespace_load(&bent.base, digest, &text), -EBADMSG);
	assert_null(text);
	assert_int_equal(kvk_namespace_keep(&bent.base, digest, MANIFEST, NULL), 0);
	assert_int_equal(kvk_namespace_load(&bent.base, digest, &text), 0);
	kvk_mem_free(text);

	/* What is nobody's of ours is not listed; of more than there is room for the number is told. */
	assert_int_equal(kvk_namespace_keep(&bent.base, other, "{\"model\":\"n\"}", NULL), 0);
	bent_file(&bent, ".kvkeep/namespaces/README", "x", 1);
	kvk_hex(hex, digest, sizeof(digest));
	hex[0] = 'z';
	snprintf(name, sizeof(name), ".kvkeep/namespaces/%s.json", hex);
	bent_file(&bent, name, "x", 1);
	snprintf(name, sizeof(name), ".kvkeep/namespaces/%s.text", hex);
	bent_file(&bent, name, "x", 1);
	memset(found, 0, sizeof(found));
	assert_int_equal(kvk_namespace_list(&bent.base, found, 1), 2);
	assert_true(!memcmp(found, digest, sizeof(digest)) || !memcmp(found, other, sizeof(other)));
	for (size_t i = KVK_DIGEST_BYTES; i < sizeof(found); i++)
		assert_int_equal(found[i], 0);
	bent.extra = "more";
	BEND(&bent, .call = BENT_LIST, .nth = 1, .error = -EIO);
	assert_int_equal(kvk_namespace_list(&bent.base, found, 3), -EIO);
	bent_close(&bent);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_making),
		cmocka_unit_test(test_not_making),
		cmocka_unit_test(test_no_random_numbers),
		cmocka_unit_test(test_held_alone),
		cmocka_unit_test(test_owning_a_pool),
		cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_new_cap),
		cmocka_unit_test(test_wishes),
		cmocka_unit_test(test_the_other_way_round),
		cmocka_unit_test(test_wishes_of_a_pool),
		cmocka_unit_test(test_namespaces),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
