/* SPDX-License-Identifier: Apache-2.0 */
/* cli/text.c: sizes, durations, keys. Tables of what people write, what must be refused, and what must come back. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/text.h"
#include "support/skip.h"

struct quantity {
	const char *text;
	int err;
	uint64_t value;
};

static const struct quantity sizes[] = {
	{ "0", 0, 0 }, { "1", 0, 1 }, { "4096", 0, 4096 }, { "7B", 0, 7 }, { "1K", 0, 1024 }, { "1k", 0, 1024 },
	{ "1KiB", 0, 1024 }, { "1KB", 0, 1000 }, { "2MiB", 0, 2097152 }, { "2M", 0, 2097152 }, { "2mb", 0, 2000000 },
	{ "3G", 0, UINT64_C(3) << 30 }, { "1.5G", 0, UINT64_C(1536) << 20 }, { "0.5K", 0, 512 },
	{ "1.0000000001T", 0, (UINT64_C(1) << 40) + 109 }, { "8T", 0, UINT64_C(8) << 40 }, { "1TB", 0, 1000000000000 },
	{ "9007199254740993", 0, 9007199254740993 }, { "9223372036854775807", 0, INT64_MAX },
	{ "9223372036854775808", -ERANGE, 0 }, { "9999999999999999999999999999999999999999", -ERANGE, 0 },
	{ "8388608T", -ERANGE, 0 }, { "8388607T", 0, UINT64_C(8388607) << 40 },
	{ "", -EINVAL, 0 }, { "-1", -EINVAL, 0 }, { "+1", -EINVAL, 0 }, { " 1", -EINVAL, 0 }, { "1 ", -EINVAL, 0 },
	{ "K", -EINVAL, 0 }, { ".5K", -EINVAL, 0 }, { "1.", -EINVAL, 0 }, { "1.K", -EINVAL, 0 }, { "1X", -EINVAL, 0 },
	{ "1KK", -EINVAL, 0 }, { "1K1", -EINVAL, 0 }, { "0x10", -EINVAL, 0 }, { "1e3", -EINVAL, 0 }, { "1KiBs", -EINVAL, 0 },
};

#define S UINT64_C(1000000000)

static const struct quantity durations[] = {
	{ "0", 0, 0 }, { "90", 0, 90 * S }, { "90s", 0, 90 * S }, { "1.5s", 0, 1500000000 }, { "500ms", 0, 500000000 },
	{ "7us", 0, 7000 }, { "7ns", 0, 7 }, { "2m", 0, 120 * S }, { "1h30m", 0, 5400 * S }, { "1d", 0, 86400 * S },
	{ "2w", 0, 1209600 * S }, { "1d12h5m3s", 0, 129903 * S },
	{ "", -EINVAL, 0 }, { "h", -EINVAL, 0 }, { "1y", -EINVAL, 0 }, { "-1s", -EINVAL, 0 }, { "1h ", -EINVAL, 0 },
	{ "1 h", -EINVAL, 0 }, { "106751d", 0, 106751 * (86400 * S) }, { "106752d", -ERANGE, 0 }, { "106751d24h", -ERANGE, 0 },
};

static void check_table(const struct quantity *table, size_t count, int (*parse)(uint64_t *, const char *))
{
	for (size_t i = 0; i < count; i++) {
		uint64_t value = 12345;
		int err = parse(&value, table[i].text);

		if (err != table[i].err || value != (err ? 12345 : table[i].value))
			fail_msg("'%s': %d and %llu, wanted %d and %llu", table[i].text, err, (unsigned long long)value,
				 table[i].err, (unsigned long long)table[i].value);
	}
}

static void sizes_are_read(void **state)
{
	(void)state;
	check_table(sizes, sizeof(sizes) / sizeof(sizes[0]), kvk_cli_parse_bytes);
}

static void durations_are_read(void **state)
{
	(void)state;
	check_table(durations, sizeof(durations) / sizeof(durations[0]), kvk_cli_parse_ns);
}

static void shares_are_parts_or_sizes(void **state)
{
	static const struct {
		const char *text;
		uint64_t whole;
		int err;
		uint64_t value;
	} shares[] = {
		{ "64K", 10, 0, 65536 }, { "0", 10, 0, 0 }, { "100%", 12345, 0, 12345 }, { "0%", 12345, 0, 0 },
		{ "10%", 1000, 0, 100 }, { "10%", 1001, 0, 101 }, { "0.5%", 1000, 0, 5 }, { "33.3%", 1000, 0, 333 },
		{ "0.00000001%", UINT64_C(1) << 40, 0, 110 }, { "100%", INT64_MAX, 0, INT64_MAX }, { "50%", 0, 0, 0 },
		{ "100.1%", 10, -ERANGE, 0 }, { "99999999999999999999%", 10, -ERANGE, 0 }, { "%", 10, -EINVAL, 0 },
		{ "-1%", 10, -EINVAL, 0 }, { "5K%", 10, -EINVAL, 0 }, { "5%%", 10, -EINVAL, 0 }, { "5% ", 10, -EINVAL, 0 },
		{ "5 %", 10, -EINVAL, 0 }, { "", 10, -EINVAL, 0 }, { "half", 10, -EINVAL, 0 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(shares) / sizeof(shares[0]); i++) {
		uint64_t value = 12345;
		int err = kvk_cli_parse_share(&value, shares[i].text, shares[i].whole);

		if (err != shares[i].err || value != (err ? 12345 : shares[i].value))
			fail_msg("'%s' of %llu: %d and %llu, wanted %d and %llu", shares[i].text,
				 (unsigned long long)shares[i].whole, err, (unsigned long long)value, shares[i].err,
				 (unsigned long long)shares[i].value);
	}
}

static void counts_stay_in_their_bounds(void **state)
{
	uint64_t count = 5;

	(void)state;
	assert_int_equal(kvk_cli_parse_count(&count, "3", 3, 9), 0);
	assert_int_equal(count, 3);
	assert_int_equal(kvk_cli_parse_count(&count, "9", 3, 9), 0);
	assert_int_equal(kvk_cli_parse_count(&count, "2", 3, 9), -ERANGE);
	assert_int_equal(kvk_cli_parse_count(&count, "10", 3, 9), -ERANGE);
	assert_int_equal(kvk_cli_parse_count(&count, "18446744073709551615", 0, UINT64_MAX), 0);
	assert_int_equal(kvk_cli_parse_count(&count, "18446744073709551616", 0, UINT64_MAX), -ERANGE);
	assert_int_equal(kvk_cli_parse_count(&count, "4K", 0, 9000), -EINVAL);
	assert_int_equal(kvk_cli_parse_count(&count, "-4", 0, 9), -EINVAL);
	assert_int_equal(kvk_cli_parse_count(&count, "", 0, 9), -EINVAL);
	assert_true(count == UINT64_MAX);
}

static void quantities_are_shown(void **state)
{
	static const struct quantity bytes[] = {
		{ "0 B", 0, 0 }, { "1023 B", 0, 1023 }, { "1.0 KiB", 0, 1024 }, { "1.5 KiB", 0, 1536 },
		{ "1.0 MiB", 0, 1048575 }, { "1.0 MiB", 0, 1048576 }, { "64.0 MiB", 0, 64 << 20 },
		{ "16.0 EiB", 0, UINT64_MAX },
	};
	static const struct quantity times[] = {
		{ "0 ns", 0, 0 }, { "999 ns", 0, 999 }, { "1.0 us", 0, 1000 }, { "12 ms", 0, 12300000 },
		{ "9.9 s", 0, 9900000000 }, { "59 s", 0, 59 * S }, { "1.0 m", 0, 60 * S }, { "3.0 d", 0, 3 * 86400 * S },
	};
	char text[KVK_CLI_TEXT_BYTES];

	(void)state;
	for (size_t i = 0; i < sizeof(bytes) / sizeof(bytes[0]); i++)
		assert_string_equal(kvk_cli_format_bytes(text, bytes[i].value), bytes[i].text);
	for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++)
		assert_string_equal(kvk_cli_format_ns(text, times[i].value), times[i].text);
}

/* Every key comes back from its own text, whatever its bytes; and the text never harms a terminal. */
static void keys_come_back(void **state)
{
	static const char *const texts[] = {
		"m@00000000@0@ab", "hex:00", "hex:", "-x", "a b", "a\\b", "\xc3\xa4", "\xc3", "\xe2\x80\xae", "\xed\xa0\x80",
		"\xf4\x90\x80\x80", "\xc0\x80", "\x1b[31m", "a\nb", "\x7f", "\xc2\x85", "\xff\xfe",
	};
	char text[KVK_CLI_KEY_TEXT_BYTES];
	uint8_t bytes[KVK_KEY_BYTES_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]) + 256; i++) {
		size_t tables = sizeof(texts) / sizeof(texts[0]), length = i < tables ? strlen(texts[i]) : 1;
		struct kvk_cli_key key;

		memset(bytes, (int)(i - tables), 1);
		if (i < tables)
			memcpy(bytes, texts[i], length);
		kvk_cli_format_key(text, bytes, (uint32_t)length);
		assert_true(kvk_cli_printable(text, strlen(text)));
		assert_int_equal(kvk_cli_parse_key(&key, text), 0);
		assert_int_equal(key.bytes, length);
		assert_memory_equal(key.data, bytes, length);
		free(key.data);
	}
	memset(bytes, 0xa5, sizeof(bytes));
	assert_int_equal(strlen(kvk_cli_format_key(text, bytes, sizeof(bytes))), 4 + 2 * sizeof(bytes));
}

static void bad_keys_are_refused(void **state)
{
	static const struct {
		const char *text;
		int err;
	} table[] = {
		{ "", -EINVAL }, { "hex:", -EINVAL }, { "hex:0", -EINVAL }, { "hex:0g", -EINVAL }, { "hex: 00", -EINVAL },
	};
	char longest[2 * KVK_KEY_BYTES_MAX + 8];
	struct kvk_cli_key key;

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		assert_int_equal(kvk_cli_parse_key(&key, table[i].text), table[i].err);
	memset(longest, 'a', KVK_KEY_BYTES_MAX + 1);
	longest[KVK_KEY_BYTES_MAX + 1] = '\0';
	assert_int_equal(kvk_cli_parse_key(&key, longest), -ENAMETOOLONG);
	longest[KVK_KEY_BYTES_MAX] = '\0';
	assert_int_equal(kvk_cli_parse_key(&key, longest), 0);
	free(key.data);
	memset(longest, 'a', sizeof(longest));
	memcpy(longest, "hex:", 4);
	longest[4 + 2 * KVK_KEY_BYTES_MAX] = '\0';
	assert_int_equal(kvk_cli_parse_key(&key, longest), 0);
	assert_int_equal(key.bytes, KVK_KEY_BYTES_MAX);
	free(key.data);
	memcpy(longest + 4 + 2 * KVK_KEY_BYTES_MAX, "00", 3);
	assert_int_equal(kvk_cli_parse_key(&key, longest), -ENAMETOOLONG);
}

static void bytes_are_escaped_and_cut(void **state)
{
	char text[64];

	(void)state;
	assert_string_equal(kvk_cli_escape(text, sizeof(text), "a\n\\\xc3\xa4\xff", 6), "a\\x0a\\x5c\xc3\xa4\\xff");
	for (size_t room = 1; room < 20; room++) {
		memset(text, 'X', sizeof(text));
		kvk_cli_escape(text, room, "a\n\xc3\xa4z", 5);
		assert_true(strlen(text) < room);
		assert_true(kvk_cli_printable(text, strlen(text)));
		assert_int_equal(text[room], 'X');
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_are_read), cmocka_unit_test(durations_are_read),
		cmocka_unit_test(shares_are_parts_or_sizes),
		cmocka_unit_test(counts_stay_in_their_bounds), cmocka_unit_test(quantities_are_shown),
		cmocka_unit_test(keys_come_back), cmocka_unit_test(bad_keys_are_refused),
		cmocka_unit_test(bytes_are_escaped_and_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
