/* SPDX-License-Identifier: Apache-2.0 */
/* Command lines: each verb has a table of its options, and everything that is said about a bad one is said here. */
#include "cli.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "text.h"

#define OPTIONS_MAX 24
/* What getopt_long() returns for entry i of the table, beyond every letter. */
#define OPTION_VALUE 256

int kvk_cli_usage(const struct kvk_cli_verb *verb, const char *format, ...)
{
	va_list args;

	fprintf(stderr, "kvkeep %s: ", verb->name);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\nusage: kvkeep %s %s\n`kvkeep help %s` says more.\n", verb->name, verb->arguments,
		verb->name);
	return KVK_EXIT_USAGE;
}

int kvk_cli_help(const struct kvk_cli_verb *verb)
{
	printf("usage: kvkeep %s %s\n\n%s\n\n%s", verb->name, verb->arguments, verb->summary, verb->help);
	return KVK_EXIT_DONE;
}

static const char *format_number(char text[KVK_CLI_TEXT_BYTES], enum kvk_option_kind kind, uint64_t number)
{
	if (kind == KVK_OPTION_BYTES)
		return kvk_cli_format_bytes(text, number);
	if (kind == KVK_OPTION_NS)
		return kvk_cli_format_ns(text, number);
	snprintf(text, KVK_CLI_TEXT_BYTES, "%" PRIu64, number);
	return text;
}

static int take_number(const struct kvk_cli_verb *verb, const struct kvk_cli_option *option, const char *text)
{
	char least[KVK_CLI_TEXT_BYTES], most[KVK_CLI_TEXT_BYTES];
	const char *wanted = "a whole number";
	uint64_t number = 0;
	int err;

	switch (option->kind) {
	case KVK_OPTION_BYTES:
		wanted = "a size such as 64MiB";
		err = kvk_cli_parse_bytes(&number, text);
		break;
	case KVK_OPTION_NS:
		wanted = "a duration such as 90s or 7d";
		err = kvk_cli_parse_ns(&number, text);
		break;
	default:
		err = kvk_cli_parse_count(&number, text, 0, INT64_MAX);
		break;
	}
	if (err == -EINVAL)
		return kvk_cli_usage(verb, "--%s: '%s' is not %s", option->name, text, wanted);
	if (err || number < option->least || (option->most && number > option->most)) {
		format_number(least, option->kind, option->least);
		format_number(most, option->kind, option->most ? option->most : INT64_MAX);
		return kvk_cli_usage(verb, "--%s: '%s' is out of range: from %s to %s", option->name, text, least, most);
	}
	*(uint64_t *)option->value = number;
	return 0;
}

static int take(const struct kvk_cli_verb *verb, const struct kvk_cli_option *option, const char *text)
{
	switch (option->kind) {
	case KVK_OPTION_FLAG:
		*(bool *)option->value = true;
		return 0;
	case KVK_OPTION_TEXT:
		*(const char **)option->value = text;
		return 0;
	case KVK_OPTION_BYTES:
	case KVK_OPTION_NS:
	case KVK_OPTION_COUNT:
		return take_number(verb, option, text);
	case KVK_OPTION_TAKE:
		return option->take(verb, option, text);
	}
	return KVK_EXIT_USAGE;
}

/* The tables that getopt_long() wants. letters has room for every option's letter and "jh". */
static void tell_getopt(struct option *known, char *letters, const struct kvk_cli_option *options)
{
	int count = 0;

	for (; options[count].name && count < OPTIONS_MAX; count++) {
		const struct kvk_cli_option *option = &options[count];

		known[count] = (struct option){ option->name, option->kind == KVK_OPTION_FLAG ? no_argument :
						required_argument, NULL, OPTION_VALUE + count };
		if (option->letter)
			*letters++ = option->letter;
	}
	known[count] = (struct option){ "json", no_argument, NULL, 'j' };
	known[count + 1] = (struct option){ "help", no_argument, NULL, 'h' };
	known[count + 2] = (struct option){ NULL, 0, NULL, 0 };
	snprintf(letters, 3, "jh");
}

/* getopt_long() returns a letter, or the value of a long option. */
static const struct kvk_cli_option *option_of(const struct kvk_cli_option *options, int got)
{
	if (got >= OPTION_VALUE)
		return &options[got - OPTION_VALUE];
	for (; options->name; options++) {
		if (options->letter && options->letter == got)
			return options;
	}
	return NULL;
}

int kvk_cli_read_line(struct kvk_cli_line *line, const struct kvk_cli_verb *verb, int argc, char **argv,
		      const struct kvk_cli_option *options, int least, int most, const char *wants)
{
	struct option known[OPTIONS_MAX + 3];
	char letters[OPTIONS_MAX + 3];
	int got, status;

	tell_getopt(known, letters, options);
	*line = (struct kvk_cli_line){ .words = NULL };
	optind = 0;
	while ((got = getopt_long(argc, argv, letters, known, NULL)) != -1) {
		const struct kvk_cli_option *option = option_of(options, got);

		if (option) {
			status = take(verb, option, optarg);
			if (status)
				return status;
		} else if (got == 'j') {
			line->json = true;
		} else if (got == 'h') {
			exit(kvk_cli_finish(kvk_cli_help(verb)));
		} else {
			return kvk_cli_usage(verb, "an option is wrong");
		}
	}
	line->words = argv + optind;
	line->count = argc - optind;
	if (line->count < least || line->count > most)
		return kvk_cli_usage(verb, "%s", wants);
	return 0;
}

int kvk_cli_take_key(const struct kvk_cli_verb *verb, const struct kvk_cli_option *option, const char *text)
{
	struct kvk_cli_key *key = option->value;

	free(key->data);
	*key = (struct kvk_cli_key){ NULL, 0 };
	if (kvk_cli_parse_key(key, text))
		return kvk_cli_usage(verb, "--%s: '%s' is not a key of 1 to %d bytes", option->name, text,
				     KVK_KEY_BYTES_MAX);
	return 0;
}
