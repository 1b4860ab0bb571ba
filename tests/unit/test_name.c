/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "format/format.h"

static const struct kvk_layout kvkeep_1 = { KVK_NAMING_KVKEEP, 1 }, kvkeep_2 = { KVK_NAMING_KVKEEP, 2 };
static const struct kvk_layout flat = { KVK_NAMING_LMCACHE, 0 }, sharded = { KVK_NAMING_LMCACHE, 2 };

#define HEX64 "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef"

static void make_digest(uint8_t digest[KVK_DIGEST_BYTES])
{
	assert_int_equal(kvk_unhex(digest, HEX64, KVK_DIGEST_BYTES), 0);
}

static const char *last_component(const char *name)
{
	const char *slash = strrchr(name, '/');

	return slash ? slash + 1 : name;
}

static void hex_both_ways(void **state)
{
	uint8_t all[256], back[256];
	char text[513];

	for (unsigned i = 0; i < 256; i++)
		all[i] = (uint8_t)i;
	kvk_hex(text, all, sizeof(all));
	assert_int_equal(strlen(text), 512);
	assert_memory_equal(text, "000102030405060708090a0b0c0d0e0f10", 34);
	assert_int_equal(kvk_unhex(back, text, sizeof(back)), 0);
	assert_memory_equal(all, back, sizeof(all));
	kvk_hex(text, all, 0);
	assert_string_equal(text, "");
	for (unsigned c = 0; c < 256; c++) {
		bool good = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');

		for (unsigned at = 0; at < 2; at++) {
			char pair[2] = { '0', '0' };

			pair[at] = (char)c;
			back[0] = 0x5a;
			assert_int_equal(kvk_unhex(back, pair, 1), good ? 0 : -EINVAL);
			if (!good)
				assert_int_equal(back[0], 0x5a);
		}
	}
	/* A text that ends early is not read past its end. */
	assert_int_equal(kvk_unhex(back, "0", 8), -EINVAL);
}

static void names_of_our_own(void **state)
{
	char name[KVK_NAME_BYTES_MAX];
	uint8_t digest[KVK_DIGEST_BYTES];

	make_digest(digest);
	assert_int_equal(kvk_name_make(name, &kvkeep_1, digest, "\0/..", 4), 0);
	assert_string_equal(name, "00/" HEX64 ".kv");
	assert_int_equal(kvk_name_make(name, &kvkeep_2, digest, "\0/..", 4), 0);
	assert_string_equal(name, "00/11/" HEX64 ".kv");
}

#define KEY(literal) literal, sizeof(literal) - 1

static void names_of_lmcache(void **state)
{
	static const struct {
		const char *key;
		uint32_t key_bytes;
		const struct kvk_layout *layout;
		int expected, expected_old;
		const char *name, *old;
	} rows[] = {
		{ KEY("meta-llama/Llama-3-8B@01000200@0@83aeff"), &flat, 0, 0,
		  "meta-llama--Llama-3-8B_01000200_0_83aeff.bin", "meta-llama--Llama-3-8B_01000200_83aeff.bin" },
		{ KEY("meta-llama/Llama-3-8B@01000200@0@83aeff"), &sharded, 0, 0,
		  "83/ae/meta-llama--Llama-3-8B_01000200_0_83aeff.bin",
		  "83/ae/meta-llama--Llama-3-8B_01000200_83aeff.bin" },
		{ KEY("m@00000000@1f@83ae"), &sharded, 0, -EINVAL, "83/ae/m_00000000_1f_83ae.bin", NULL },
		{ KEY("m@00000000@0@83ae@salt"), &flat, 0, -EINVAL, "m_00000000_0_83ae@salt.bin", NULL },
		{ KEY("m@00000000@0@83ae@.."), &flat, 0, -EINVAL, "m_00000000_0_83ae@...bin", NULL },
		{ KEY("//@ffffffff@0@83"), &flat, 0, 0, "----_ffffffff_0_83.bin", "----_ffffffff_83.bin" },
		{ KEY("a/../b@00000000@0@83"), &flat, 0, 0, "a--..--b_00000000_0_83.bin", "a--..--b_00000000_83.bin" },
		{ KEY("a--..--b@00000000@0@83"), &flat, 0, 0, "a--..--b_00000000_0_83.bin",
		  "a--..--b_00000000_83.bin" },
		{ KEY("m@00000000@0@83"), &sharded, -EINVAL, -EINVAL, NULL, NULL },
		{ KEY("no text form"), &flat, -EINVAL, -EINVAL, NULL, NULL },
		{ KEY(".m@00000000@0@83ae"), &flat, -EINVAL, -EINVAL, NULL, NULL },
		{ KEY("../m@00000000@0@83ae"), &flat, -EINVAL, -EINVAL, NULL, NULL },
		{ KEY("m\0n@00000000@0@83ae"), &flat, -EINVAL, -EINVAL, NULL, NULL },
		{ KEY("m@00000000@0@83ae@a/b"), &flat, -EINVAL, -EINVAL, NULL, NULL },
		{ KEY("m@00000000@0@83ae@a\0b"), &flat, -EINVAL, -EINVAL, NULL, NULL },
	};
	uint8_t digest[KVK_DIGEST_BYTES] = { 0 };

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char name[KVK_NAME_BYTES_MAX] = "untouched", old[KVK_NAME_BYTES_MAX] = "untouched";

		assert_int_equal(kvk_name_make(name, rows[i].layout, digest, rows[i].key, rows[i].key_bytes),
				 rows[i].expected);
		assert_string_equal(name, rows[i].name ? rows[i].name : "untouched");
		assert_int_equal(kvk_name_make_old(old, rows[i].layout, rows[i].key, rows[i].key_bytes),
				 rows[i].expected_old);
		assert_string_equal(old, rows[i].old ? rows[i].old : "untouched");
		assert_int_equal(kvk_name_make_old(old, &kvkeep_1, rows[i].key, rows[i].key_bytes), -EINVAL);
	}
}

/* 255 bytes are a name, 256 are none; a slash in the model counts for two. */
static void names_of_lmcache_end_at_255_bytes(void **state)
{
	uint8_t digest[KVK_DIGEST_BYTES] = { 0 };

	for (unsigned model_bytes = 1; model_bytes <= 1000; model_bytes++) {
		for (unsigned slashes = 0; slashes < 2 && slashes < model_bytes; slashes++) {
			char key[KVK_KEY_BYTES_MAX], name[KVK_NAME_BYTES_MAX];
			size_t component = model_bytes + slashes + strlen("_00000000_0_83ae.bin");
			int err;

			memset(key, 'm', model_bytes);
			if (slashes)
				key[model_bytes - 1] = '/';
			memcpy(key + model_bytes, "@00000000@0@83ae", 16);
			err = kvk_name_make(name, &sharded, digest, key, model_bytes + 16);
			assert_int_equal(err, component <= 255 ? 0 : -ENAMETOOLONG);
			if (!err)
				assert_int_equal(strlen(last_component(name)), component);
			err = kvk_name_make_old(name, &flat, key, model_bytes + 16);
			assert_int_equal(err, component - 2 <= 255 ? 0 : -ENAMETOOLONG);
		}
	}
}

/* Whatever a key holds: one component below the folders, not hidden, no NUL, and one that is known again. */
static void no_key_leaves_its_folder(void **state)
{
	static const char bytes[] = "./\0@-ab\n\\~_";
	uint8_t digest[KVK_DIGEST_BYTES] = { 0 };
	uint32_t random = 1;
	unsigned made = 0;

	for (unsigned i = 0; i < 200000; i++) {
		struct kvk_key_fields fields = { .struct_bytes = sizeof(fields) };
		char model[8], salt[8], key[KVK_KEY_BYTES_MAX], name[KVK_NAME_BYTES_MAX];
		const char *component;
		int key_bytes;

		for (unsigned j = 0; j < 8; j++) {
			random = random * 1664525 + 1013904223;
			model[j] = bytes[(random >> 16) % (sizeof(bytes) - 1)];
			salt[j] = bytes[(random >> 24) % (sizeof(bytes) - 1)];
		}
		fields.model = (struct kvk_key){ model, 1 + (random >> 8) % 8 };
		fields.salt = (struct kvk_key){ salt, (random >> 11) % 9 };
		fields.hash = (struct kvk_key){ &random, 4 };
		fields.rank = random;
		fields.group = random >> (random >> 27);
		key_bytes = kvk_key_encode(&fields, key, sizeof(key));
		if (key_bytes < 0)
			continue;
		if (kvk_name_make(name, i % 2 ? &sharded : &flat, digest, key, (uint32_t)key_bytes) != 0)
			continue;
		made++;
		component = i % 2 ? name + 6 : name;
		assert_null(strchr(component, '/'));
		assert_int_not_equal(component[0], '.');
		assert_int_not_equal(component[0], '\0');
		assert_true(strlen(component) <= 255);
		assert_int_equal(kvk_name_kind(component, i % 2 ? &sharded : &flat, NULL), KVK_NAME_OBJECT);
		if (i % 2)
			assert_true(name[2] == '/' && name[5] == '/');
	}
	assert_true(made > 10000);
}

static void kinds(void **state)
{
	static const struct {
		const char *component;
		enum kvk_name_kind in_kvkeep_1, in_flat, in_sharded;
	} rows[] = {
#define SAME(kind) KVK_NAME_##kind, KVK_NAME_##kind, KVK_NAME_##kind
		{ "", SAME(OTHER) }, { ".", SAME(OTHER) }, { "..", SAME(OTHER) }, { ".kvkeep", SAME(OTHER) },
		{ "lost+found", SAME(OTHER) },
		{ HEX64 ".kv", KVK_NAME_OBJECT, KVK_NAME_OTHER, KVK_NAME_OTHER },
		{ HEX64, SAME(OTHER) }, { HEX64 ".k", SAME(OTHER) }, { HEX64 ".kv ", SAME(OTHER) },
		{ HEX64 ".kv.kv", SAME(OTHER) }, { HEX64 "0.kv", SAME(OTHER) }, { "0" HEX64 ".kv", SAME(OTHER) },
		{ "A0112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef.kv", SAME(OTHER) },
		{ HEX64 ".0.gone", SAME(GONE) }, { HEX64 ".18446744073709551615.gone", SAME(GONE) },
		{ HEX64 ".184467440737095516150.gone", SAME(OTHER) }, { HEX64 "..gone", SAME(OTHER) },
		{ HEX64 ".gone", SAME(OTHER) }, { HEX64 ".1.gone2", SAME(OTHER) }, { HEX64 ".-1.gone", SAME(OTHER) },
		{ HEX64 ".1a.gone", SAME(OTHER) }, { ".gone", SAME(OTHER) },
		{ ".tmp-0123456789abcdef-0", SAME(TEMP) }, { ".tmp-0123456789abcdef-18446744073709551615", SAME(TEMP) },
		{ ".tmp-0123456789abcdef-", SAME(OTHER) }, { ".tmp-0123456789abcdef", SAME(OTHER) },
		{ ".tmp-0123456789abcde-00", SAME(OTHER) }, { ".tmp-0123456789ABCDEF-0", SAME(OTHER) },
		{ ".tmp-0123456789abcdef-0x", SAME(OTHER) }, { ".tmp-0123456789abcdef-184467440737095516150", SAME(OTHER) },
		{ ".tmp-0123456789abcdef-0.aside", SAME(TEMP) }, { ".tmp-0123456789abcdef-0.asid", SAME(OTHER) },
		{ ".tmp-0123456789abcdef-0.aside2", SAME(OTHER) }, { ".tmp-0123456789abcdef-.aside", SAME(OTHER) },
		{ ".tmp-", SAME(OTHER) }, { "tmp-0123456789abcdef-0", SAME(OTHER) },
		{ "ab", KVK_NAME_FOLDER, KVK_NAME_OTHER, KVK_NAME_FOLDER },
		{ "00", KVK_NAME_FOLDER, KVK_NAME_OTHER, KVK_NAME_FOLDER },
		{ "AB", SAME(OTHER) }, { "a", SAME(OTHER) }, { "abc", SAME(OTHER) }, { "g0", SAME(OTHER) },
		{ "0g", SAME(OTHER) },
		{ "m_00000000_0_83.bin", KVK_NAME_OTHER, KVK_NAME_OBJECT, KVK_NAME_OBJECT },
		{ "a_00000000_83.bin", KVK_NAME_OTHER, KVK_NAME_OBJECT, KVK_NAME_OBJECT },
		{ "a_00000000_0_83@s.bin", KVK_NAME_OTHER, KVK_NAME_OBJECT, KVK_NAME_OBJECT },
		/* Somebody's own files, not a cache's: never to be charged, let alone evicted. */
		{ "a.bin", SAME(OTHER) }, { "pytorch_model.bin", SAME(OTHER) }, { "a_00000000_8.bin", SAME(OTHER) },
		{ "a_0000000_83.bin", SAME(OTHER) }, { "_00000000_83.bin", SAME(OTHER) },
		{ "a_00000000_0_83@.bin", SAME(OTHER) }, { "a_00000000_0_83", SAME(OTHER) },
		{ ".bin", SAME(OTHER) }, { ".a.bin", SAME(OTHER) }, { "a.BIN", SAME(OTHER) },
		{ "a.bin.tmp.5f0e", SAME(OTHER) },
#undef SAME
	};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const char *component = rows[i].component;

		if (kvk_name_kind(component, &kvkeep_1, NULL) != rows[i].in_kvkeep_1 ||
		    kvk_name_kind(component, &kvkeep_2, NULL) != rows[i].in_kvkeep_1 ||
		    kvk_name_kind(component, &flat, NULL) != rows[i].in_flat ||
		    kvk_name_kind(component, &sharded, NULL) != rows[i].in_sharded)
			fail_msg("'%s': %d %d %d, not %d %d %d", component, kvk_name_kind(component, &kvkeep_1, NULL),
				 kvk_name_kind(component, &flat, NULL), kvk_name_kind(component, &sharded, NULL),
				 rows[i].in_kvkeep_1, rows[i].in_flat, rows[i].in_sharded);
	}
}

static void names_say_the_digest(void **state)
{
	uint8_t digest[KVK_DIGEST_BYTES], found[KVK_DIGEST_BYTES] = { 0 };
	char name[KVK_NAME_BYTES_MAX];

	make_digest(digest);
	assert_int_equal(kvk_name_make(name, &kvkeep_2, digest, "k", 1), 0);
	assert_int_equal(kvk_name_kind(last_component(name), &kvkeep_2, found), KVK_NAME_OBJECT);
	assert_memory_equal(found, digest, sizeof(digest));
	memset(found, 0x5a, sizeof(found));
	assert_int_equal(kvk_name_kind("m_00000000_0_83.bin", &flat, found), KVK_NAME_OBJECT);
	assert_int_equal(kvk_name_kind(HEX64 ".1.gone", &kvkeep_1, found), KVK_NAME_GONE);
	for (unsigned i = 0; i < sizeof(found); i++)
		assert_int_equal(found[i], 0x5a);
}

static void names_next_to_an_object(void **state)
{
	static const uint64_t numbers[] = { 0, 1, 1000000, UINT64_MAX };
	char name[KVK_NAME_BYTES_MAX], beside[KVK_NAME_BYTES_MAX], longest[KVK_NAME_BYTES_MAX];
	uint8_t digest[KVK_DIGEST_BYTES];
	uint64_t writer_id;

	make_digest(digest);
	assert_int_equal(kvk_name_make_gone(beside, "ab/cd/x.kv", digest, 7), 0);
	assert_string_equal(beside, "ab/cd/" HEX64 ".7.gone");
	assert_int_equal(kvk_name_make_gone(beside, "x.bin", digest, UINT64_MAX), 0);
	assert_string_equal(beside, HEX64 ".18446744073709551615.gone");
	assert_int_equal(kvk_name_make_temp(beside, "ab/x.kv", 0xab, 7), 0);
	assert_string_equal(beside, "ab/.tmp-00000000000000ab-7");
	assert_int_equal(kvk_name_make_temp(beside, "", UINT64_MAX, UINT64_MAX), 0);
	assert_string_equal(beside, ".tmp-ffffffffffffffff-18446744073709551615");
	assert_false(kvk_name_is_aside(beside));
	assert_int_equal(kvk_name_make_aside(beside, "ab/x.kv", 0xab, 7), 0);
	assert_string_equal(beside, "ab/.tmp-00000000000000ab-7.aside");
	assert_true(kvk_name_is_aside(last_component(beside)));
	assert_true(kvk_name_temp_writer(last_component(beside), &writer_id));
	assert_int_equal(writer_id, 0xab);
	assert_false(kvk_name_is_aside(HEX64 ".1.aside"));
	assert_false(kvk_name_is_aside("aside"));

	/* Beside the longest name of all, and in its own place. */
	memset(longest, 'm', sizeof(longest));
	memcpy(longest, "ab/cd/", 6);
	memcpy(longest + 6 + 251, ".bin", 5);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(kvk_name_make_gone(beside, longest, digest, numbers[i]), 0);
		assert_true(strlen(last_component(beside)) <= 255);
		assert_int_equal(kvk_name_kind(last_component(beside), &flat, NULL), KVK_NAME_GONE);
		assert_int_equal(kvk_name_make_temp(beside, longest, numbers[i], numbers[3 - i]), 0);
		assert_true(strlen(last_component(beside)) <= 255);
		assert_int_equal(kvk_name_kind(last_component(beside), &flat, NULL), KVK_NAME_TEMP);
	}
	strcpy(name, "ab/cd/x.kv");
	assert_int_equal(kvk_name_make_gone(name, name, digest, 1), 0);
	assert_string_equal(name, "ab/cd/" HEX64 ".1.gone");

	/* A folder so deep that nothing fits beside it. */
	memset(longest, 'd', sizeof(longest));
	longest[480] = '/';
	longest[sizeof(longest) - 1] = '\0';
	strcpy(beside, "untouched");
	assert_int_equal(kvk_name_make_gone(beside, longest, digest, 1), -ENAMETOOLONG);
	assert_int_equal(kvk_name_make_temp(beside, longest, UINT64_MAX, UINT64_MAX), -ENAMETOOLONG);
	assert_string_equal(beside, "untouched");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hex_both_ways),
		cmocka_unit_test(names_of_our_own),
		cmocka_unit_test(names_of_lmcache),
		cmocka_unit_test(names_of_lmcache_end_at_255_bytes),
		cmocka_unit_test(no_key_leaves_its_folder),
		cmocka_unit_test(kinds),
		cmocka_unit_test(names_say_the_digest),
		cmocka_unit_test(names_next_to_an_object),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
