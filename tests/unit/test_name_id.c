/* SPDX-License-Identifier: Apache-2.0 */
/* Identities that follow from names alone: a name and its key agree, and nothing else does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "format/format.h"

static const struct kvk_layout kvkeep1 = { KVK_NAMING_KVKEEP, 1 }, kvkeep2 = { KVK_NAMING_KVKEEP, 2 };
static const struct kvk_layout flat = { KVK_NAMING_LMCACHE, 0 }, sharded = { KVK_NAMING_LMCACHE, 2 };

/* The id of a name, or of a key, or zeros with the error told. */
static int id_of_name(uint8_t id[KVK_DIGEST_BYTES], const struct kvk_layout *layout, const char *name)
{
	memset(id, 0, KVK_DIGEST_BYTES);
	return kvk_name_id(id, layout, name);
}

static int id_of_key(uint8_t id[KVK_DIGEST_BYTES], const struct kvk_layout *layout, const char *key)
{
	static const uint8_t none[KVK_DIGEST_BYTES];
	uint8_t digest[KVK_DIGEST_BYTES];

	memset(id, 0, KVK_DIGEST_BYTES);
	assert_int_equal(kvk_key_digest(digest, none, key, (uint32_t)strlen(key)), 0);
	return kvk_key_id(id, layout, digest, key, (uint32_t)strlen(key));
}

static void test_names_and_keys_agree(void **state)
{
	static const char *const keys[] = {
		"m@00000000@0@83ae", "a/b@00000001@0@83aeff", "a_b_c@ffffffff@1f@0011223344", "m@00000000@0@83ae@salt",
		"x_00000001@00000002@0@abcdef", "x_00000001_0@00000002@0@abcdef", "m@00000000@ffffffff@83ae",
		"a@00000000@0@83ae@s_00000000_0_83ae",
	};
	const struct kvk_layout *const all[] = { &kvkeep1, &kvkeep2, &flat, &sharded };

	for (size_t l = 0; l < 4; l++) {
		for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
			static const uint8_t none[KVK_DIGEST_BYTES];
			uint8_t by_key[KVK_DIGEST_BYTES], by_name[KVK_DIGEST_BYTES], digest[KVK_DIGEST_BYTES];
			char name[KVK_NAME_BYTES_MAX];

			assert_int_equal(kvk_key_digest(digest, none, keys[i], (uint32_t)strlen(keys[i])), 0);
			assert_int_equal(id_of_key(by_key, all[l], keys[i]), 0);
			assert_int_equal(kvk_name_make(name, all[l], digest, keys[i], (uint32_t)strlen(keys[i])), 0);
			assert_int_equal(id_of_name(by_name, all[l], name), 0);
			assert_memory_equal(by_key, by_name, KVK_DIGEST_BYTES);
			if (all[l]->naming == KVK_NAMING_KVKEEP)
				assert_memory_equal(by_key, digest, KVK_DIGEST_BYTES);
			/* The older generation's file is the same object. */
			if (all[l]->naming == KVK_NAMING_LMCACHE &&
			    !kvk_name_make_old(name, all[l], keys[i], (uint32_t)strlen(keys[i]))) {
				assert_int_equal(id_of_name(by_name, all[l], name), 0);
				assert_memory_equal(by_key, by_name, KVK_DIGEST_BYTES);
			}
			/* Folders come first in every layout that has some. */
			if (all[l]->levels) {
				char first[3];

				kvk_hex(first, by_key, 1);
				assert_memory_equal(first, name, 2);
			}
		}
	}
}

static void test_whoever_shares_a_file_shares_an_id(void **state)
{
	uint8_t one[KVK_DIGEST_BYTES], other[KVK_DIGEST_BYTES];

	assert_int_equal(id_of_key(one, &flat, "a/b@00000000@0@83ae"), 0);
	assert_int_equal(id_of_key(other, &flat, "a--b@00000000@0@83ae"), 0);
	assert_memory_equal(one, other, KVK_DIGEST_BYTES);
	assert_int_equal(id_of_key(one, &kvkeep1, "a/b@00000000@0@83ae"), 0);
	assert_int_equal(id_of_key(other, &kvkeep1, "a--b@00000000@0@83ae"), 0);
	assert_memory_not_equal(one, other, KVK_DIGEST_BYTES);
}

/* Each differs from the first in one field. */
static void test_every_field_counts(void **state)
{
	static const char *const names[] = {
		"m_00000000_0_83ae.bin", "n_00000000_0_83ae.bin", "m_00000001_0_83ae.bin", "m_00000000_1_83ae.bin",
		"m_00000000_0_83af.bin", "m_00000000_0_83ae@s.bin", "m_00000000_0_83ae@t.bin", "m_00000000_83af@s.bin",
	};
	uint8_t ids[8][KVK_DIGEST_BYTES];

	for (size_t i = 0; i < 8; i++) {
		assert_int_equal(id_of_name(ids[i], &flat, names[i]), 0);
		for (size_t k = 0; k < i; k++)
			assert_memory_not_equal(ids[i], ids[k], 16);
	}
}

static void test_refuses_what_is_no_object(void **state)
{
	static const struct {
		const struct kvk_layout *layout;
		const char *name;
	} rows[] = {
		{ &flat, "" }, { &flat, ".bin" }, { &flat, "a.bin" }, { &flat, "83/ae/m_00000000_0_83ae.bin" },
		{ &sharded, "m_00000000_0_83ae.bin" }, { &sharded, "83/m_00000000_0_83ae.bin" },
		{ &sharded, "83/af/m_00000000_0_83ae.bin" }, { &sharded, "82/ae/m_00000000_83ae.bin" },
		{ &sharded, "83/aE/m_00000000_0_83ae.bin" }, { &sharded, "83/ae/00/m_00000000_0_83ae.bin" },
		{ &flat, "m_00000000_0_83ag.bin" }, { &flat, "m_00000000_0_83a:.bin" }, { &flat, "m_00000000_0_8/ae.bin" },
		{ &flat, "m_00000000_0_83-e.bin" }, { &flat, "m_0_83ae.bin" }, { &flat, "a_b_0_83ae.bin" }, { &flat, "m_00000000_0_.bin" }, { &flat, "m_00000000_0_83a.bin" }, { &flat, "m_00000000_0_83ae@.bin" },
		{ &flat, "m_0000000_83ae.bin" }, { &flat, "_00000000_0_83ae.bin" }, { &flat, "m_00000000_00_83ae.bin" },
		{ &flat, "m_00000000_123456789_83ae.bin" }, { &sharded, "8" }, { &sharded, "83-ae/m_00000000_0_83ae.bin" },
		{ &sharded, "8/ae/m_00000000_0_83ae.bin" }, { &sharded, "83//m_00000000_0_83ae.bin" }, { &sharded, "/m_00000000_0_83ae.bin" },
		{ &sharded, "83/ae/m_00000000_0_83.bin" }, { &flat, ".tmp-0123456789abcdef-1" }, { &kvkeep1, "ab/whatever.kv" }, { &kvkeep1, "" },
		{ &kvkeep1, "m_00000000_0_83ae.bin" },
		{ &kvkeep1, "00/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.kv" },
		{ &kvkeep1, "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.kv" },
		{ &kvkeep2, "01/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.kv" },
		{ &kvkeep2, "01/32/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.kv" },
	};
	uint8_t id[KVK_DIGEST_BYTES], zero[KVK_DIGEST_BYTES] = { 0 };

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (id_of_name(id, rows[i].layout, rows[i].name) != -EINVAL)
			fail_msg("'%s' has an id", rows[i].name);
		assert_memory_equal(id, zero, sizeof(id));
	}
	assert_int_equal(id_of_key(id, &flat, "no text form"), -EINVAL);
	assert_int_equal(id_of_key(id, &kvkeep1, "no text form"), 0);
}

/* What no file system could have named, so that the id of it is of no matter, but its room in memory is. */
static void test_refuses_what_is_too_long(void **state)
{
	uint8_t id[KVK_DIGEST_BYTES];
	char name[400];

	for (size_t bytes = 200; bytes < sizeof(name); bytes++) {
		int err, digits = (int)(bytes - strlen("m_00000000_0_.bin"));

		snprintf(name, sizeof(name), "m_00000000_0_%0*d.bin", digits, 0);
		err = id_of_name(id, &flat, name);
		if (err != (bytes <= 255 && digits % 2 == 0 ? 0 : -EINVAL))
			fail_msg("%zu bytes: %d", bytes, err);
	}
}

static void test_owners(void **state)
{
	static const struct {
		const char *name, *model, *salt;
	} rows[] = {
		{ "m_00000000_0_83ae.bin", "m", "" },
		{ "83/ae/meta--llama_8b_00000000_1f_83ae@tenant.bin", "meta--llama_8b", "tenant" },
		{ "m_00000000_83ae.bin", "m", "" },
		{ "m_00000000_0_83ae@a@b_c.bin", "m", "a@b_c" },
		{ "m_00000001_00000002_83ae.bin", "m_00000001", "" },
		{ "m_00000000_0_83a.bin", NULL, NULL }, { "m_00000000_0_.bin", NULL, NULL },
		{ "_00000000_0_83.bin", NULL, NULL }, { "m_0000000g_83.bin", NULL, NULL }, { "m_83.bin", NULL, NULL },
		{ "m_0_83ae.bin", NULL, NULL }, { "a_b_0_83ae.bin", NULL, NULL }, { "m_00000000_0_83-e.bin", NULL, NULL },
		{ "m_00000000_0_83@.bin", NULL, NULL }, { "m_00000000_0_83", NULL, NULL }, { "", NULL, NULL },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct kvk_key model, salt;

		if (kvk_name_owner(rows[i].name, &model, &salt) != (rows[i].model != NULL))
			fail_msg("'%s'", rows[i].name);
		if (!rows[i].model)
			continue;
		assert_int_equal(model.bytes, strlen(rows[i].model));
		assert_memory_equal(model.data, rows[i].model, model.bytes);
		assert_int_equal(salt.bytes, strlen(rows[i].salt));
		if (salt.bytes)
			assert_memory_equal(salt.data, rows[i].salt, salt.bytes);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names_and_keys_agree),
		cmocka_unit_test(test_whoever_shares_a_file_shares_an_id),
		cmocka_unit_test(test_every_field_counts),
		cmocka_unit_test(test_refuses_what_is_no_object),
		cmocka_unit_test(test_refuses_what_is_too_long),
		cmocka_unit_test(test_owners),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
