/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the benchmark programs share: data that can be judged from its key, memory that was touched before
 * the clock runs, times, and their percentiles.
 *
 * A benchmark that cannot go on says why on stderr and exits with 1: a figure from a run with an error in
 * it would be worth nothing.
 */
#ifndef KVK_BENCH_BENCH_H
#define KVK_BENCH_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BENCH_KEY_BYTES 96
#define BENCH_PAGE_BYTES 4096u

/* Prints the message and exits with 1. error: 0, or -errno to be put into words. */
__attribute__((format(printf, 2, 3), noreturn))
void bench_fail(int error, const char *format, ...);

/* ---- time --------------------------------------------------------------------------------------- */

uint64_t bench_now_ns(void);

/* User and system time of this process, all its threads (those of its io_uring too). */
double bench_cpu_s(void);

/* ---- samples ------------------------------------------------------------------------------------ */

/* Times, one an object. Room is taken before the clock runs where the number is known. */
struct bench_samples {
	uint64_t *ns;
	size_t count;
	size_t room;
};

void bench_samples_reserve(struct bench_samples *samples, size_t room);
void bench_samples_add(struct bench_samples *samples, uint64_t ns);
void bench_samples_sort(struct bench_samples *samples);
void bench_samples_release(struct bench_samples *samples);

/* The value that per_mille of 1,000 samples do not exceed, in microseconds. Sorted samples only; 0 if none. */
double bench_samples_us(const struct bench_samples *samples, unsigned per_mille);

/* ---- memory and data ---------------------------------------------------------------------------- */

/* Page-aligned, of 4 KiB pages, every page touched. */
void *bench_memory_new(uint64_t bytes);
void bench_memory_free(void *memory, uint64_t bytes);

/*
 * An object's data: each block of 4 KiB is noise that follows from its place in the object, and begins with
 * 16 bytes that follow from key, generation and place. So no block is zero, none repeats, and a block of
 * another key, another generation or another place tells itself apart. fill() writes the noise once; stamp()
 * turns it into the data of one key for the price of a cache line per block, so that making the data
 * weighs nothing beside storing it.
 */
void bench_data_fill(void *data, uint64_t bytes);
void bench_data_stamp(void *data, uint64_t bytes, uint64_t key, uint64_t generation);

/* Compares every byte. *where receives the first offset that differs. */
bool bench_data_check(const void *data, uint64_t bytes, uint64_t key, uint64_t generation,
		      uint64_t *where);

/* Writes the text of key number `key`, as an engine would name it, and returns its length. */
uint32_t bench_key_text(char text[BENCH_KEY_BYTES], uint64_t key);

/* ---- options ------------------------------------------------------------------------------------ */

/* A whole number, with K, M or G (powers of 1,024) behind it or not. Fails for anything else. */
uint64_t bench_parse_count(const char *option, const char *text);
double bench_parse_seconds(const char *option, const char *text);

/* ---- rounds ------------------------------------------------------------------------------------- */

/* One round's result, and its JSON line on stdout. */
struct bench_round {
	const char *program;
	const char *mode;
	uint32_t round;
	uint64_t objects;
	uint64_t object_bytes;
	double wall_s;
	double cpu_s;
	uint64_t verified;         /* objects that were compared byte for byte, outside of the timed part */
	struct bench_samples samples;
};

/* Sorts the samples and prints the line. extra: further members, each with a comma before it, or "". */
void bench_round_print(struct bench_round *round, const char *extra);

/* With `on_line`: waits for a line on stdin, so that a runner can take turns between two programs; false at
 * the end of stdin. Without: true until `rounds` were made. */
bool bench_round_next(bool on_line, uint32_t round, uint32_t rounds);

#endif
