/* SPDX-License-Identifier: Apache-2.0 */
/* What is doubted is known by digest and stamp, and when there is no room for more everything is doubted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "adapter/adapter.h"

static void digest_of(uint8_t digest[KVK_DIGEST_BYTES], uint32_t number)
{
	memset(digest, 0, KVK_DIGEST_BYTES);
	memcpy(digest, &number, sizeof(number));
}

static void count_line(void *user, int level, const char *text)
{
	unsigned *lines = user;

	assert_int_equal(level, KVK_LOG_ERROR);
	assert_non_null(strstr(text, "1024 objects"));
	(*lines)++;
}

static void test_doubts(void **state)
{
	unsigned lines = 0;
	struct kvk_log_sink log = { &lines, count_line };
	struct kvk_doubts *doubts = test_calloc(1, sizeof(*doubts));
	uint8_t digest[KVK_DIGEST_BYTES], other[KVK_DIGEST_BYTES];

	kvk_doubts_init(doubts, &log);
	digest_of(digest, 0);
	digest_of(other, KVK_DOUBTS_MAX + 1);
	assert_false(kvk_doubts_has(doubts, digest, 7));
	for (uint32_t i = 0; i < KVK_DOUBTS_MAX; i++) {
		digest_of(digest, i);
		assert_false(kvk_doubts_has(doubts, digest, 7));
		kvk_doubts_add(doubts, digest, 7);
		assert_true(kvk_doubts_has(doubts, digest, 7));
		assert_false(kvk_doubts_has(doubts, digest, 8));
	}
	digest_of(digest, 0);
	assert_true(kvk_doubts_has(doubts, digest, 7));
	assert_false(kvk_doubts_has(doubts, other, 7));
	assert_int_equal(lines, 0);
	for (unsigned i = 0; i < 2; i++) {
		kvk_doubts_add(doubts, digest, 8);
		assert_true(kvk_doubts_has(doubts, other, 7));
		assert_int_equal(lines, 1);
	}
	kvk_doubts_release(doubts);
	test_free(doubts);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_doubts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
