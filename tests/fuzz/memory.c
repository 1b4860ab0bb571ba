/* SPDX-License-Identifier: Apache-2.0 */
/* Counts what a target asks for. The linker sends the calls of all that is linked statically here (--wrap). */
#include "fuzz.h"

#include <jansson.h>

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *memory, size_t bytes);
void *__real_reallocarray(void *memory, size_t count, size_t bytes);
char *__real_strdup(const char *text);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);
void *__wrap_reallocarray(void *memory, size_t count, size_t bytes);
char *__wrap_strdup(const char *text);

static size_t left = SIZE_MAX;

void fuzz_memory_limit(size_t bytes)
{
	/* A library of its own: it calls here when it is told to. */
	json_set_alloc_funcs(malloc, free);
	left = bytes;
}

static void charge(size_t count, size_t bytes)
{
	size_t asked;

	if (left == SIZE_MAX)
		return;
	FUZZ_ASSERT(!__builtin_mul_overflow(count, bytes, &asked));
	FUZZ_ASSERT(asked <= left);
	left -= asked;
}

void *__wrap_malloc(size_t bytes)
{
	charge(1, bytes);
	return __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
	charge(count, bytes);
	return __real_calloc(count, bytes);
}

void *__wrap_realloc(void *memory, size_t bytes)
{
	charge(1, bytes);
	return __real_realloc(memory, bytes);
}

void *__wrap_reallocarray(void *memory, size_t count, size_t bytes)
{
	charge(count, bytes);
	return __real_reallocarray(memory, count, bytes);
}

char *__wrap_strdup(const char *text)
{
	charge(1, strlen(text) + 1);
	return __real_strdup(text);
}
