/* SPDX-License-Identifier: Apache-2.0 */
/* What the command measures and judges with: histograms, payloads, comparisons of JSON. */
#include <stdlib.h>
#include <string.h>

#include "cli/diff.h"
#include "cli/hist.h"
#include "cli/payload.h"
#include "support/skip.h"

/* ---- histogram ---- */

/* A value is never shown smaller than it was, and at most 1/64 larger. */
static void quantiles_are_close(void **state)
{
	(void)state;
	for (unsigned bit = 0; bit < KVK_HIST_VALUE_BITS; bit++) {
		for (uint64_t step = 0; step < 200; step++) {
			uint64_t ns = (UINT64_C(1) << bit) + (((UINT64_C(1) << bit) * step) / 200);
			struct kvk_hist *hist = calloc(1, sizeof(*hist));
			uint64_t shown;

			kvk_hist_add(hist, ns);
			kvk_hist_add(hist, (UINT64_C(1) << KVK_HIST_VALUE_BITS) - 1);
			shown = kvk_hist_quantile_ns(hist, 0.5);
			if (shown < ns || shown > ns + ns / 64)
				fail_msg("%llu is shown as %llu", (unsigned long long)ns, (unsigned long long)shown);
			free(hist);
		}
	}
}

static void quantiles_are_ranks(void **state)
{
	struct kvk_hist *hist = calloc(1, sizeof(*hist));

	(void)state;
	assert_int_equal(kvk_hist_quantile_ns(hist, 0.5), 0);
	assert_int_equal(kvk_hist_count(hist), 0);
	for (uint64_t ns = 1; ns <= 50; ns++)
		kvk_hist_add(hist, ns);
	assert_int_equal(kvk_hist_count(hist), 50);
	assert_int_equal(kvk_hist_quantile_ns(hist, 0.5), 25);
	assert_int_equal(kvk_hist_quantile_ns(hist, 0.98), 49);
	assert_int_equal(kvk_hist_quantile_ns(hist, 0.99), 50);
	assert_int_equal(kvk_hist_quantile_ns(hist, 1), 50);
	kvk_hist_add(hist, UINT64_MAX);
	assert_int_equal(kvk_hist_count(hist), 51);
	assert_true(kvk_hist_quantile_ns(hist, 1) >= (UINT64_C(1) << KVK_HIST_VALUE_BITS) - 1);
	free(hist);
}

/* ---- payload ---- */

#define BLOCKS 8
#define BYTES (BLOCKS * KVK_PAYLOAD_BLOCK_BYTES)

/* A payload may be made and compared in parts of any length that begin at a block. */
static void payloads_do_not_hang_on_parts(void **state)
{
	static unsigned char whole[BYTES + 64], part[BYTES + 64];
	uint64_t first;

	(void)state;
	kvk_payload_fill(whole, BYTES, 42, 0);
	for (uint64_t bytes = 0; bytes < BYTES; bytes += bytes < 200 ? 1 : 977) {
		memset(part, 0xee, sizeof(part));
		kvk_payload_fill(part + 1, bytes, 42, 0);
		assert_memory_equal(part + 1, whole, bytes);
		assert_int_equal(part[bytes + 1], 0xee);
		assert_int_equal(kvk_payload_wrong(part + 1, bytes, 42, 0, &first), 0);
	}
	for (uint64_t block = 0; block < BLOCKS; block++) {
		kvk_payload_fill(part, KVK_PAYLOAD_BLOCK_BYTES, 42, block * KVK_PAYLOAD_BLOCK_BYTES);
		assert_memory_equal(part, whole + block * KVK_PAYLOAD_BLOCK_BYTES, KVK_PAYLOAD_BLOCK_BYTES);
	}
}

/* Every single byte that differs is found and counted, whichever it is. */
static void every_wrong_byte_is_found(void **state)
{
	static unsigned char data[2 * KVK_PAYLOAD_BLOCK_BYTES + 37];
	uint64_t first;

	(void)state;
	kvk_payload_fill(data, sizeof(data), 7, 0);
	for (uint64_t at = 0; at < sizeof(data); at++) {
		uint64_t wrong;

		data[at] ^= (unsigned char)(1u << at % 8);
		first = UINT64_MAX;
		wrong = kvk_payload_wrong(data, sizeof(data), 7, 0, &first);
		if (wrong != 1 || first != at)
			fail_msg("byte %llu: %llu wrong, first %llu", (unsigned long long)at, (unsigned long long)wrong,
				 (unsigned long long)first);
		data[at] ^= (unsigned char)(1u << at % 8);
	}
	data[100] ^= 1;
	data[5000] ^= 1;
	data[sizeof(data) - 1] ^= 1;
	assert_int_equal(kvk_payload_wrong(data, sizeof(data), 7, 0, &first), 3);
	assert_int_equal(first, 100);
}

static int compare_words(const void *left, const void *right)
{
	uint64_t a, b;

	memcpy(&a, left, sizeof(a));
	memcpy(&b, right, sizeof(b));
	return a < b ? -1 : a > b;
}

/* No word twice in many blocks of many names: so no block is zero, repeats, or is like another's. */
static void blocks_are_all_different(void **state)
{
	enum { NAMES = 64, WORDS = NAMES * BYTES / 8 };
	uint64_t *words = malloc(WORDS * sizeof(*words));

	(void)state;
	for (uint64_t name = 0; name < NAMES; name++)
		kvk_payload_fill(words + name * BYTES / 8, BYTES, name, 0);
	qsort(words, WORDS, sizeof(*words), compare_words);
	for (size_t i = 0; i < WORDS; i++) {
		assert_true(words[i] != 0);
		if (i)
			assert_true(words[i] != words[i - 1]);
	}
	free(words);
}

/* ---- JSON ---- */

static void differences_are_named_by_path(void **state)
{
	static const struct {
		const char *a, *b, *wanted;
	} table[] = {
		{ "{}", "{}", "[]" },
		{ "{\"x\":1,\"y\":[1,{\"z\":2}]}", "{\"y\":[1,{\"z\":2}],\"x\":1}", "[]" },
		{ "{\"x\":1}", "{\"x\":2}", "[{\"path\":\"x\",\"a\":1,\"b\":2}]" },
		{ "{\"x\":1}", "{}", "[{\"path\":\"x\",\"a\":1}]" },
		{ "{}", "{\"x\":null}", "[{\"path\":\"x\",\"b\":null}]" },
		{ "{\"m\":{\"n\":\"a\",\"o\":1}}", "{\"m\":{\"n\":\"b\",\"o\":1}}",
		  "[{\"path\":\"m.n\",\"a\":\"a\",\"b\":\"b\"}]" },
		{ "{\"l\":[1,2]}", "{\"l\":[1,3,4]}",
		  "[{\"path\":\"l[1]\",\"a\":2,\"b\":3},{\"path\":\"l[2]\",\"b\":4}]" },
		{ "{\"l\":[{\"x\":1}]}", "{\"l\":[{\"x\":2}]}", "[{\"path\":\"l[0].x\",\"a\":1,\"b\":2}]" },
		{ "{\"x\":1}", "{\"x\":1.0}", "[{\"path\":\"x\",\"a\":1,\"b\":1.0}]" },
		{ "{\"x\":{}}", "{\"x\":[]}", "[{\"path\":\"x\",\"a\":{},\"b\":[]}]" },
		{ "[1]", "{}", "[{\"path\":\".\",\"a\":[1],\"b\":{}}]" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		json_t *a = json_loads(table[i].a, 0, NULL), *b = json_loads(table[i].b, 0, NULL);
		json_t *is = kvk_json_diff(a, b);
		char *text = json_dumps(is, JSON_COMPACT);

		assert_string_equal(text, table[i].wanted);
		free(text);
		json_decref(is);
		json_decref(a);
		json_decref(b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(quantiles_are_close), cmocka_unit_test(quantiles_are_ranks),
		cmocka_unit_test(payloads_do_not_hang_on_parts), cmocka_unit_test(every_wrong_byte_is_found),
		cmocka_unit_test(blocks_are_all_different), cmocka_unit_test(differences_are_named_by_path),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
