/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What fuzz targets and what drives them have in common. A target is one file with LLVMFuzzerTestOneInput(). Linked with
 * driver.c it is a program of every test run: it replays its corpus (tests/fuzz/corpus/<target>/) and tries random changes of
 * that for a moment. Built with -Dfuzz=true, libFuzzer drives it; `make fuzz` does that for all of them.
 */
#ifndef KVK_TESTS_FUZZ_H
#define KVK_TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* Says what was wrong and ends the program, so that the driver and libFuzzer both keep the input. */
#define FUZZ_ASSERT(condition) ((condition) ? (void)0 : fuzz_failed(__FILE__, __LINE__, #condition))

_Noreturn static inline void fuzz_failed(const char *file, int line, const char *condition)
{
	fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, condition);
	fflush(stderr);
	__builtin_trap();
}

/*
 * memory.c: from now on the target may ask for `bytes` of memory in all, what it frees again included; who asks for more
 * ends the program. SIZE_MAX: any number. Counts what the code under test, and jansson for it, asks for.
 */
void fuzz_memory_limit(size_t bytes);

/* A parser that is linear in its input, with room for trees of small values. */
static inline void fuzz_memory_for(size_t input_bytes)
{
	fuzz_memory_limit((1u << 20) + 512 * input_bytes);
}

/* Out-parameters stay as they are on failure: they are spoilt before the call, and looked at after it. */
#define FUZZ_SPOILT 0xa5

static inline bool fuzz_is_spoilt(const void *data, size_t bytes)
{
	const uint8_t *at = data;

	return bytes == 0 || (at[0] == FUZZ_SPOILT && memcmp(at, at + 1, bytes - 1) == 0);
}

/* The input as a text: a copy with a NUL behind it, to be freed with free(). What is after a NUL in it is not seen. */
static inline char *fuzz_text(const uint8_t *data, size_t bytes)
{
	char *text = malloc(bytes + 1);

	if (!text)
		abort();
	if (bytes)
		memcpy(text, data, bytes);
	text[bytes] = '\0';
	return text;
}

/* Whether a text is UTF-8: what is said of an input is shown to people, and is read by languages that insist on it. */
static inline bool fuzz_is_utf8(const char *text)
{
	const uint8_t *at = (const uint8_t *)text;

	while (*at) {
		static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
		unsigned length = *at < 0x80 ? 1 : *at >= 0xf8 || *at < 0xc0 ? 0 : *at >= 0xf0 ? 4 : *at >= 0xe0 ? 3 : 2;
		uint32_t code = length == 1 ? *at : *at & (0xffu >> (length + 1));

		if (length == 0)
			return false;
		for (unsigned i = 1; i < length; i++) {
			if ((at[i] & 0xc0) != 0x80)
				return false;
			code = code << 6 | (at[i] & 0x3f);
		}
		if (code < least[length] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
			return false;
		at += length;
	}
	return true;
}

/* Takes what a run is about off the front of an input: numbers that choose, before the bytes that are parsed. */
struct fuzz_rest {
	const uint8_t *at;
	size_t bytes;
};

static inline uint64_t fuzz_take(struct fuzz_rest *rest, unsigned bytes)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < bytes && rest->bytes > 0; i++, rest->bytes--)
		value |= (uint64_t)*rest->at++ << (8 * i);
	return value;
}

#endif
