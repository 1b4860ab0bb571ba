/* SPDX-License-Identifier: Apache-2.0 */
#include "bench.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

void bench_fail(int error, const char *format, ...)
{
	va_list args;

	fflush(stdout);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	if (error)
		fprintf(stderr, ": %s", strerror(-error));
	fputc('\n', stderr);
	exit(1);
}

uint64_t bench_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static double seconds_of(const struct timeval *time)
{
	return (double)time->tv_sec + (double)time->tv_usec / 1e6;
}

double bench_cpu_s(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return seconds_of(&usage.ru_utime) + seconds_of(&usage.ru_stime);
}

void bench_samples_reserve(struct bench_samples *samples, size_t room)
{
	uint64_t *ns;

	if (room <= samples->room)
		return;
	ns = realloc(samples->ns, room * sizeof(*ns));
	if (!ns)
		bench_fail(-ENOMEM, "%zu samples", room);
	samples->ns = ns;
	samples->room = room;
}

void bench_samples_add(struct bench_samples *samples, uint64_t ns)
{
	if (samples->count == samples->room)
		bench_samples_reserve(samples, samples->room ? 2 * samples->room : 65536);
	samples->ns[samples->count++] = ns;
}

static int compare_ns(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left;
	uint64_t b = *(const uint64_t *)right;

	return (a > b) - (a < b);
}

void bench_samples_sort(struct bench_samples *samples)
{
	if (samples->count)
		qsort(samples->ns, samples->count, sizeof(*samples->ns), compare_ns);
}

void bench_samples_release(struct bench_samples *samples)
{
	free(samples->ns);
	*samples = (struct bench_samples){ 0 };
}

double bench_samples_us(const struct bench_samples *samples, unsigned per_mille)
{
	size_t rank;

	if (!samples->count)
		return 0;
	rank = (samples->count * per_mille + 999) / 1000;
	return (double)samples->ns[rank ? rank - 1 : 0] / 1e3;
}

void *bench_memory_new(uint64_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (memory == MAP_FAILED)
		bench_fail(-errno, "%llu bytes of memory", (unsigned long long)bytes);
	return memory;
}

void bench_memory_free(void *memory, uint64_t bytes)
{
	if (memory)
		munmap(memory, bytes);
}

/* splitmix64: one multiplication chain a word, and no state to carry from block to block. */
static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static uint64_t noise(uint64_t block, uint64_t word)
{
	return mix(block * (BENCH_PAGE_BYTES / 8) + word) | 1;
}

static uint64_t stamp(uint64_t block, uint64_t word, uint64_t key, uint64_t generation)
{
	return mix(mix(mix(key + 1) ^ generation) ^ (2 * block + word)) | 1;
}

static void copy_part(uint8_t *data, uint64_t bytes, uint64_t offset, uint64_t word)
{
	uint64_t part = bytes - offset < sizeof(word) ? bytes - offset : sizeof(word);

	memcpy(data + offset, &word, part);
}

void bench_data_fill(void *data, uint64_t bytes)
{
	for (uint64_t offset = 0; offset < bytes; offset += 8)
		copy_part(data, bytes, offset,
			  noise(offset / BENCH_PAGE_BYTES, offset % BENCH_PAGE_BYTES / 8));
}

void bench_data_stamp(void *data, uint64_t bytes, uint64_t key, uint64_t generation)
{
	for (uint64_t offset = 0; offset < bytes; offset += BENCH_PAGE_BYTES) {
		uint64_t block = offset / BENCH_PAGE_BYTES;

		copy_part(data, bytes, offset, stamp(block, 0, key, generation));
		if (offset + 8 < bytes)
			copy_part(data, bytes, offset + 8, stamp(block, 1, key, generation));
	}
}

bool bench_data_check(const void *data, uint64_t bytes, uint64_t key, uint64_t generation,
		      uint64_t *where)
{
	const uint8_t *bytes_there = data;

	for (uint64_t offset = 0; offset < bytes; offset += 8) {
		uint64_t block = offset / BENCH_PAGE_BYTES;
		uint64_t word = offset % BENCH_PAGE_BYTES / 8;
		uint64_t part = bytes - offset < 8 ? bytes - offset : 8;
		uint64_t expected = word < 2 ? stamp(block, word, key, generation)
					     : noise(block, word);

		if (memcmp(bytes_there + offset, &expected, part) != 0) {
			*where = offset;
			return false;
		}
	}
	return true;
}

uint32_t bench_key_text(char text[BENCH_KEY_BYTES], uint64_t key)
{
	/* 32 bytes of hash in hex, the length of a SHA-256 as engines chain it over a prefix. */
	int bytes = snprintf(text, BENCH_KEY_BYTES, "bench@00000000@0@%016llx%016llx%016llx%016llx",
			     (unsigned long long)mix(key), (unsigned long long)mix(key ^ 0x5555),
			     (unsigned long long)mix(key ^ 0xaaaa), (unsigned long long)key);

	return (uint32_t)bytes;
}

uint64_t bench_parse_count(const char *option, const char *text)
{
	char *end;
	unsigned long long value;
	unsigned shift = 0;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (end != text && *end) {
		const char *unit = strchr("KMG", *end);

		if (unit) {
			shift = 10 * (unsigned)(1 + (*unit == 'M') + 2 * (*unit == 'G'));
			end++;
		}
	}
	if (errno || end == text || *end || *text == '-' || value > UINT64_MAX >> shift)
		bench_fail(0, "--%s: '%s' is not a whole number such as 64, 64K or 32M", option, text);
	return (uint64_t)value << shift;
}

double bench_parse_seconds(const char *option, const char *text)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end || !(value > 0) || value > 3600)
		bench_fail(0, "--%s: '%s' is not a number of seconds such as 1.5", option, text);
	return value;
}

void bench_round_print(struct bench_round *round, const char *extra)
{
	double bytes = (double)round->objects * (double)round->object_bytes;

	bench_samples_sort(&round->samples);
	printf("{\"program\":\"%s\",\"mode\":\"%s\",\"round\":%u,\"objects\":%llu,\"object_bytes\":%llu,"
	       "\"wall_s\":%.6f,\"cpu_s\":%.6f,\"bytes_per_s\":%.0f,\"ops_per_s\":%.1f,"
	       "\"p50_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,\"verified\":%llu%s}\n",
	       round->program, round->mode, round->round, (unsigned long long)round->objects,
	       (unsigned long long)round->object_bytes, round->wall_s, round->cpu_s,
	       bytes / round->wall_s, (double)round->objects / round->wall_s,
	       bench_samples_us(&round->samples, 500), bench_samples_us(&round->samples, 990),
	       bench_samples_us(&round->samples, 999), (unsigned long long)round->verified, extra);
	fflush(stdout);
}

bool bench_round_next(bool on_line, uint32_t round, uint32_t rounds)
{
	char line[64];

	if (!on_line)
		return round < rounds;
	return fgets(line, sizeof(line), stdin) != NULL;
}
