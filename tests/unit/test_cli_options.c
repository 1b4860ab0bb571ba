/* SPDX-License-Identifier: Apache-2.0 */
/* cli/options.c: a table of command lines, what must come of each, and what must be said about the bad ones. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/text.h"
#include "support/skip.h"

#define WORDS_MAX 8

static const struct kvk_cli_verb verb = { .name = "try", .arguments = "STORE [FILE]" };

struct values {
	bool direct;
	const char *text;
	uint64_t bytes, ns, count;
	struct kvk_cli_key key;
};

/* Runs a command line of words; what was said on standard error goes to said. */
static int read_line(struct values *values, struct kvk_cli_line *line, const char *const *words, char said[1024])
{
	const struct kvk_cli_option options[] = {
		{ "direct", KVK_OPTION_FLAG, .value = &values->direct, .letter = 'd' },
		{ "text", KVK_OPTION_TEXT, .value = &values->text },
		{ "bytes", KVK_OPTION_BYTES, .value = &values->bytes, .least = 1, .most = 1 << 20 },
		{ "ns", KVK_OPTION_NS, .value = &values->ns, .most = UINT64_C(3600000000000) },
		{ "count", KVK_OPTION_COUNT, .value = &values->count, .least = 2 },
		{ "key", KVK_OPTION_TAKE, .value = &values->key, .take = kvk_cli_take_key },
		{ .name = NULL },
	};
	static char *argv[WORDS_MAX + 2];      /* line->words points into it */
	FILE *file = tmpfile();
	int argc = 1, status, saved = dup(STDERR_FILENO);
	size_t bytes;

	assert_true(file && saved >= 0);
	argv[0] = (char *)(uintptr_t)"kvkeep try";
	for (; words[argc - 1]; argc++)
		argv[argc] = (char *)(uintptr_t)words[argc - 1];
	argv[argc] = NULL;
	*values = (struct values){ .bytes = 7, .ns = 7, .count = 7 };
	dup2(fileno(file), STDERR_FILENO);
	status = kvk_cli_read_line(line, &verb, argc, argv, options, 1, 2, "wants STORE and perhaps FILE");
	fflush(stderr);
	dup2(saved, STDERR_FILENO);
	close(saved);
	rewind(file);
	bytes = fread(said, 1, 1023, file);
	said[bytes] = '\0';
	fclose(file);
	return status;
}

static void good_lines_are_read(void **state)
{
	static const char *const nothing[] = { "store", NULL };
	static const char *const all[] = { "--bytes=64K", "store", "-dj", "--ns", "90s", "--count", "2", "file", NULL };
	static const char *const dashes[] = { "--direct", "--json", "--", "--text", NULL };
	static const char *const twice[] = { "store", "--key", "hex:00ff", "--key", "abc", "--text", "", NULL };
	struct kvk_cli_line line;
	struct values values;
	char said[1024];

	(void)state;
	assert_int_equal(read_line(&values, &line, nothing, said), 0);
	assert_int_equal(line.count, 1);
	assert_string_equal(line.words[0], "store");
	assert_null(line.words[1]);
	assert_false(line.json || values.direct);
	assert_true(values.bytes == 7 && values.ns == 7 && values.count == 7 && !values.text && !values.key.data);

	assert_int_equal(read_line(&values, &line, all, said), 0);
	assert_int_equal(line.count, 2);
	assert_string_equal(line.words[1], "file");
	assert_true(line.json && values.direct);
	assert_int_equal(values.bytes, 65536);
	assert_int_equal(values.ns, UINT64_C(90000000000));
	assert_int_equal(values.count, 2);

	assert_int_equal(read_line(&values, &line, dashes, said), 0);
	assert_int_equal(line.count, 1);
	assert_string_equal(line.words[0], "--text");

	assert_int_equal(read_line(&values, &line, twice, said), 0);
	assert_int_equal(values.key.bytes, 3);
	assert_memory_equal(values.key.data, "abc", 3);
	assert_string_equal(values.text, "");
	free(values.key.data);
	assert_string_equal(said, "");
}

static void bad_lines_are_refused_in_words(void **state)
{
	static const struct {
		const char *words[WORDS_MAX];
		const char *says;
	} bad[] = {
		{ { NULL }, "kvkeep try: wants STORE and perhaps FILE" },
		{ { "a", "b", "c", NULL }, "wants STORE and perhaps FILE" },
		{ { "a", "--frob", NULL }, "--frob" },
		{ { "a", "-x", NULL }, "'x'" },
		{ { "a", "--bytes", NULL }, "--bytes" },
		{ { "a", "--direct=1", NULL }, "--direct" },
		{ { "a", "--bytes", "lots", NULL }, "--bytes: 'lots' is not a size such as 64MiB" },
		{ { "a", "--bytes", "0", NULL }, "--bytes: '0' is out of range: from 1 B to 1.0 MiB" },
		{ { "a", "--bytes", "1048577", NULL }, "is out of range: from 1 B to 1.0 MiB" },
		{ { "a", "--ns", "yesterday", NULL }, "--ns: 'yesterday' is not a duration such as 90s or 7d" },
		{ { "a", "--ns", "61m", NULL }, "--ns: '61m' is out of range: from 0 ns to 1.0 h" },
		{ { "a", "--count", "1", NULL }, "--count: '1' is out of range: from 2 to 9223372036854775807" },
		{ { "a", "--count", "9223372036854775808", NULL }, "is out of range" },
		{ { "a", "--count", "2.5", NULL }, "--count: '2.5' is not a whole number" },
		{ { "a", "--key", "", NULL }, "--key: '' is not a key of 1 to 1024 bytes" },
		{ { "a", "--key", "hex:0", NULL }, "--key: 'hex:0' is not a key" },
	};
	struct kvk_cli_line line;
	struct values values;
	char said[1024];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		int status = read_line(&values, &line, bad[i].words, said);

		if (status != KVK_EXIT_USAGE || !strstr(said, bad[i].says) || !strstr(said, "usage: kvkeep try STORE"))
			fail_msg("line %zu ended with %d and said\n%s\nwanted '%s'", i, status, said, bad[i].says);
		if (values.bytes != 7 || values.ns != 7 || values.count != 7)
			fail_msg("line %zu changed a value", i);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_lines_are_read),
		cmocka_unit_test(bad_lines_are_refused_in_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
