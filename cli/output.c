/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "text.h"

int kvk_cli_fail(const char *format, ...)
{
	va_list args;

	fputs("kvkeep: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	return KVK_EXIT_FAILED;
}

int kvk_cli_print_json(json_t *value)
{
	int err = value ? json_dumpf(value, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : -1;

	json_decref(value);
	if (err)
		return kvk_cli_fail("cannot write the JSON to standard output");
	putchar('\n');
	return 0;
}

json_t *kvk_cli_json_text(const void *data, size_t bytes)
{
	char text[4 * KVK_KEY_BYTES_MAX + 1];

	return json_string(kvk_cli_escape(text, sizeof(text), data, bytes));
}

json_t *kvk_cli_json_key(const void *key, uint32_t bytes)
{
	char text[KVK_CLI_KEY_TEXT_BYTES];

	return json_string(kvk_cli_format_key(text, key, bytes));
}

json_t *kvk_cli_json_hex(const void *data, size_t bytes)
{
	char text[4 * KVK_KEY_BYTES_MAX + 1];

	return json_string(kvk_cli_hex(text, data, bytes));
}

int kvk_cli_finish(int status)
{
	if (fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "kvkeep: cannot write to standard output: %s\n", strerror(errno));
		return status ? status : KVK_EXIT_FAILED;
	}
	return status;
}

uint64_t kvk_cli_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t kvk_cli_wall_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t kvk_thread_cpu_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void kvk_progress_begin(struct kvk_progress *progress, const char *verb)
{
	*progress = (struct kvk_progress){
		.verb = verb,
		.begin_us = kvk_cli_now_ns() / 1000,
		.terminal = isatty(STDERR_FILENO),
	};
}

void kvk_progress_show(struct kvk_progress *progress, uint64_t done, uint64_t total, const char *unit,
		       uint64_t bytes)
{
	uint64_t now_us = kvk_cli_now_ns() / 1000, spent_us = now_us - progress->begin_us;
	char moved[KVK_CLI_TEXT_BYTES], left[KVK_CLI_TEXT_BYTES];
	double seconds = (double)spent_us / 1e6;

	/* Short work stays silent: a line that flashes by tells nobody anything. */
	if (!progress->terminal || spent_us < 500000 || now_us - progress->shown_us < 100000)
		return;
	progress->shown_us = now_us;
	progress->drawn = true;
	fprintf(stderr, "\r\033[K%s: %llu", progress->verb, (unsigned long long)done);
	if (total)
		fprintf(stderr, " of %llu", (unsigned long long)total);
	fprintf(stderr, " %s", unit);
	if (bytes)
		fprintf(stderr, ", %s, %.2f GB/s", kvk_cli_format_bytes(moved, bytes), (double)bytes / 1e9 / seconds);
	else
		fprintf(stderr, ", %.0f/s", (double)done / seconds);
	if (total && done && done < total)
		fprintf(stderr, ", %s left",
			kvk_cli_format_ns(left, (uint64_t)(seconds * 1e9 * (double)(total - done) / (double)done)));
	fflush(stderr);
}

void kvk_progress_end(struct kvk_progress *progress)
{
	if (progress->drawn)
		fputs("\r\033[K", stderr);
	progress->drawn = false;
}
