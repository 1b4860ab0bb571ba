/* SPDX-License-Identifier: Apache-2.0 */
/* The tests of stores rest on one judge: here it is judged itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "store_bed.h"

#define BYTES 20000u

/* Each kind of wrong content is told apart, at any offset. */
static void test_judge(void **state)
{
	unsigned char *data = malloc(BYTES);

	assert_non_null(data);
	for (uint64_t offset = 0; offset <= 8192; offset += 1365) {
		bed_fill(data, BYTES, bed_key("a"), 1, offset);
		assert_int_equal(bed_judge(data, BYTES, bed_key("a"), 1, offset), BED_RIGHT);
		for (uint64_t at = 0; at < BYTES; at += 997) {
			data[at] ^= 4;
			assert_int_not_equal(bed_judge(data, BYTES, bed_key("a"), 1, offset), BED_RIGHT);
			data[at] ^= 4;
		}
	}
	bed_fill(data, BYTES, bed_key("a"), 1, 0);
	assert_int_equal(bed_judge(data, BYTES, bed_key("a"), 2, 0), BED_STALE);
	assert_int_equal(bed_judge(data, BYTES, bed_key("b"), 1, 0), BED_FOREIGN);
	assert_int_equal(bed_judge(data, BYTES, bed_key("a"), 1, 4096), BED_MOVED);
	data[5000] ^= 1;
	assert_int_equal(bed_judge(data, BYTES, bed_key("a"), 1, 0), BED_OTHER);
	memset(data + 4096, 0, 4096);
	assert_int_equal(bed_judge(data, BYTES, bed_key("a"), 1, 0), BED_ZERO);
	free(data);
}

/* The short forms go round, and the figures agree. */
static void test_round(void **state)
{
	struct bed *bed = *state;
	struct kvk_result result;
	char path[512];

	bed_open(bed, "\"lanes\": 2");
	assert_int_equal(bed_get(bed->store, "k", 10000, 1, &result), -2);
	assert_int_equal(bed_put(bed->store, "k", 10000, 1, &result), 0);
	assert_int_equal(result.bytes, 10000);
	assert_int_equal(bed_get(bed->store, "k", 10000, 1, &result), 0);
	assert_int_equal(bed_lookup(bed->store, "k", KVK_LOOKUP_PIN, &result), 0);
	assert_int_equal(bed_unpin(bed->store, "k"), 0);
	assert_null(bed_disagrees(bed->store));
	if (!bed_is_ram(bed))
		assert_int_equal(bed_path_of(bed, "k", path, sizeof(path)), 0);
	assert_int_equal(bed_remove(bed->store, "k", &result), 0);
	assert_null(bed_disagrees(bed->store));
}

/* A put of one generation is not a get of another: the beds must notice. */
static void test_notices_wrong_answers(void **state)
{
	struct bed *bed = *state;

	bed_open(bed, "");
	assert_int_equal(bed_put(bed->store, "k", 5000, 1, NULL), 0);
	assert_int_equal(bed_get(bed->store, "k", 5000, 1, NULL), 0);
	assert_int_equal(bed_wrong_answers, 0);
	assert_int_equal(bed_get(bed->store, "k", 5000, 2, NULL), 0);
	assert_int_equal(bed_wrong_answers, 1);
	assert_int_equal(bed_get(bed->store, "k", 5001, 1, NULL), 0);
	assert_int_equal(bed_wrong_answers, 2);
	atomic_store(&bed_wrong_answers, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_judge),
		BED_TESTS(test_round),
		BED_TEST(test_notices_wrong_answers, BED_RAM, "ram"),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
