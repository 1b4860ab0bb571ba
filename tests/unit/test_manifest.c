/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "support/skip.h"

#include <errno.h>
#include <locale.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "format/format.h"
#include "util/alloc.h"

static const struct {
	const char *json, *canonical;
} rows[] = {
	{ "{}", "{}" },
	{ " {\n} \t", "{}" },
	{ "{\"b\": 1, \"a\": 2}", "{\"a\":2,\"b\":1}" },
	{ "{\"a\": {\"d\": [3, {\"z\": 1, \"y\": 2}, []], \"c\": {}}}", "{\"a\":{\"c\":{},\"d\":[3,{\"y\":2,\"z\":1},[]]}}" },
	/* by bytes: upper case first, a shorter name before a longer one, UTF-8 last */
	{ "{\"\xc3\xa9\":1,\"b\":2,\"ab\":3,\"a\":4,\"B\":5,\"\":6}", "{\"\":6,\"B\":5,\"a\":4,\"ab\":3,\"b\":2,\"\xc3\xa9\":1}" },
	{ "{\"a\":[true,false,null]}", "{\"a\":[true,false,null]}" },
	{ "{\"a\":[0,-0,-1,9223372036854775807,-9223372036854775808]}",
	  "{\"a\":[0,0,-1,9223372036854775807,-9223372036854775808]}" },
	/* reals stay reals, in the fewest digits that come back */
	{ "{\"a\":[1.0,-0.0,0.1,0.5,100.0,1e2,1E+2,1e300,5e-324,0.30000000000000004,123456789.25]}",
	  "{\"a\":[1.0,-0.0,0.1,0.5,1e+02,1e+02,1e+02,1e+300,5e-324,0.30000000000000004,123456789.25]}" },
	{ "{\"a\":0.1000000000000000055511151231257827}", "{\"a\":0.1}" },
	{ "{\"a\":1e-400}", "{\"a\":0.0}" },
	/* one way to write a character */
	{ "{\"a\":\"\\u0041\\/\\u00e9\\ud83d\\ude00\"}", "{\"a\":\"A/\xc3\xa9\xf0\x9f\x98\x80\"}" },
	{ "{\"\\u0062\":\"\\\"\\\\\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\"}",
	  "{\"b\":\"\\\"\\\\\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\"}" },
};

static char *canonical(const char *json)
{
	char text[160] = "", *out = NULL;
	int err = kvk_manifest_canonical(&out, json, text);

	if (err)
		fail_msg("%s: %d, %s", json, err, text);
	return out;
}

/* Written so, and a text that is canonical already stays as it is. */
static void texts(void **state)
{
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char *once = canonical(rows[i].json), *twice = canonical(once);

		assert_string_equal(once, rows[i].canonical);
		assert_string_equal(twice, rows[i].canonical);
		kvk_mem_free(once);
		kvk_mem_free(twice);
	}
}

/* 20,000 doubles of any bits: each comes back as it was, and is canonical then. */
static void every_real_comes_back(void **state)
{
	uint64_t bits = 1;

	for (unsigned i = 0; i < 20000; i++) {
		char json[64], *text;
		double value, back;

		bits = bits * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		memcpy(&value, &bits, sizeof(value));
		if (value != value || value - value != 0)
			continue;
		snprintf(json, sizeof(json), "{\"a\":%.17e}", value);
		text = canonical(json);
		back = strtod(text + 5, NULL);
		if (memcmp(&value, &back, sizeof(value)) != 0)
			fail_msg("%s became %s", json, text);
		assert_non_null(strpbrk(text + 5, ".e"));
		kvk_mem_free(text);
	}
}

/* A host that prints in German must not have a namespace of its own. */
static void locale_changes_nothing(void **state)
{
	static const char *const names[] = { "de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "ps_AF.UTF-8" };
	bool found = false;

	for (unsigned i = 0; i < 4; i++) {
		char *text;

		if (!setlocale(LC_NUMERIC, names[i]))
			continue;
		found = true;
		text = canonical("{\"a\":[0.5,1.0,1.5e-7,2]}");
		setlocale(LC_NUMERIC, "C");
		assert_string_equal(text, "{\"a\":[0.5,1.0,1.5e-07,2]}");
		kvk_mem_free(text);
	}
	if (!found)
		SKIP("no locale with a decimal comma is installed");
}

static void refusals(void **state)
{
	static const char *const bad[] = {
		"", " ", "[]", "[{}]", "1", "\"a\"", "null", "{", "}", "{}{}", "{} x", "{a:1}", "{'a':1}", "{\"a\"}",
		"{\"a\":}", "{\"a\":1,}", "{\"a\":01}", "{\"a\":+1}", "{\"a\":.5}", "{\"a\":NaN}", "{\"a\":Infinity}",
		"{\"a\":1e999}", "{\"a\":9223372036854775808}", "{\"a\":1,\"a\":1}", "{\"a\":1,\"\\u0061\":2}",
		"{\"b\":{\"a\":1,\"a\":2}}", "{\"a\":\"\\u0000\"}", "{\"\\u0000\":1}", "{\"a\":\"\\ud800\"}",
		"{\"a\":\"\xff\"}", "{\"a\":\"\xc0\xaf\"}", "{\"a\":\"\n\"}",
	};

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char text[160] = "", *out = (char *)(uintptr_t)text;
		int err = kvk_manifest_canonical(&out, bad[i], text);

		if (err != -EINVAL)
			fail_msg("%s: %d, not %d", bad[i], err, -EINVAL);
		assert_ptr_equal(out, text);
		assert_int_not_equal(strlen(text), 0);
		assert_int_equal(kvk_manifest_canonical(&out, bad[i], NULL), -EINVAL);
	}
}

/* The limit is the canonical text's, whatever space or escapes the given one has; and nesting is no way around. */
static void as_long_as_may_be(void **state)
{
	static char json[2 * KVK_MANIFEST_BYTES_MAX];
	char text[160] = "", *out = NULL;

	for (size_t bytes = KVK_MANIFEST_BYTES_MAX - 1; bytes <= KVK_MANIFEST_BYTES_MAX + 1; bytes++) {
		int expected = bytes <= KVK_MANIFEST_BYTES_MAX ? 0 : -EINVAL;

		memset(json, 'x', bytes + 3);
		memcpy(json, " { \"a\": \"", 9);
		strcpy(json + bytes + 1, "\"}");
		out = NULL;
		assert_int_equal(kvk_manifest_canonical(&out, json, text), expected);
		if (!expected)
			assert_int_equal(strlen(out), bytes);
		else
			assert_string_equal(text, "longer than 65536 bytes");
		kvk_mem_free(out);
	}
	strcpy(json, "{\"a\":");
	memset(json + 5, '[', 30000);
	memset(json + 30005, ']', 30000);
	strcpy(json + 60005, "}");
	assert_int_equal(kvk_manifest_canonical(&out, json, text), -EINVAL);
}

static void out_of_memory(void **state)
{
	char *expected = canonical(rows[3].json);
	bool failed = true;

	for (uint64_t nth = 1; failed; nth++) {
		char *out = NULL;
		int err;

		kvk_mem_fail_nth(nth, false);
		err = kvk_manifest_canonical(&out, rows[3].json, NULL);
		failed = kvk_mem_has_failed();
		kvk_mem_fail_nth(0, false);
		assert_int_equal(err, failed ? -ENOMEM : 0);
		if (failed)
			assert_null(out);
		else
			assert_string_equal(out, expected);
		kvk_mem_free(out);
	}
	kvk_mem_free(expected);
}

static uint64_t json_left;             /* the allocation of the JSON library that makes it 0 fails, and all after it if so said */
static bool json_for_ever, json_failed;

static void *json_allocate(size_t bytes)
{
	if (json_left == 0 || --json_left > 0)
		return malloc(bytes);
	json_left = json_for_ever;
	json_failed = true;
	return NULL;
}

/* The library takes some of it for bad syntax, and tells no reason at all for the rest: that was no memory. */
static void out_of_memory_while_it_is_parsed(void **state)
{
	static const char json[] = "{\"a\": {\"d\": [3, {\"z\": 1.5, \"y\": \"text\"}, []], \"c\": {}}, \"e\": true}";
	json_malloc_t usual_malloc;
	json_free_t usual_free;
	unsigned told;

	json_get_alloc_funcs(&usual_malloc, &usual_free);
	json_set_alloc_funcs(json_allocate, free);
	for (unsigned for_ever = 0; for_ever < 2; for_ever++) {
		bool failed = true;

		json_for_ever = for_ever;
		told = 0;
		for (uint64_t nth = 1; failed; nth++) {
			char text[160] = "", *out = NULL;
			int err;

			json_left = nth;
			json_failed = false;
			err = kvk_manifest_canonical(&out, json, text);
			failed = json_failed;
			json_left = 0;
			if (failed ? err != (*text ? -EINVAL : -ENOMEM) || strstr(text, "-1") : err != 0)
				fail_msg("allocation %llu: %d, '%s'", (unsigned long long)nth, err, text);
			assert_true((out != NULL) == !failed);
			told += err == -ENOMEM;
			kvk_mem_free(out);
		}
		assert_true(told > 3);
	}
	json_set_alloc_funcs(usual_malloc, usual_free);
}

static void digests(void **state)
{
	static const uint8_t zeros[KVK_DIGEST_BYTES];
	uint8_t digest[KVK_DIGEST_BYTES], expected[KVK_DIGEST_BYTES];

	memset(digest, 0x5a, sizeof(digest));
	assert_int_equal(kvk_manifest_digest(digest, "{}"), 0);
	assert_memory_equal(digest, zeros, sizeof(digest));
	memset(digest, 0x5a, sizeof(digest));
	assert_int_equal(kvk_manifest_digest(digest, NULL), 0);
	assert_memory_equal(digest, zeros, sizeof(digest));
	/* FIPS 180-2's first vector */
	assert_int_equal(kvk_unhex(expected, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", 32), 0);
	assert_int_equal(kvk_manifest_digest(digest, "abc"), 0);
	assert_memory_equal(digest, expected, sizeof(digest));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(texts),
		cmocka_unit_test(every_real_comes_back),
		cmocka_unit_test(locale_changes_nothing),
		cmocka_unit_test(refusals),
		cmocka_unit_test(as_long_as_may_be),
		cmocka_unit_test(out_of_memory),
		cmocka_unit_test(out_of_memory_while_it_is_parsed),
		cmocka_unit_test(digests),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
