/* SPDX-License-Identifier: Apache-2.0 */
#include "util/alloc.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static _Atomic uint64_t fail_countdown;        /* 0: off */
static atomic_bool fail_for_ever;
static atomic_bool failed;

void kvk_mem_fail_nth(uint64_t nth, bool for_ever)
{
	atomic_store(&failed, false);
	atomic_store(&fail_for_ever, for_ever);
	atomic_store(&fail_countdown, nth);
}

bool kvk_mem_has_failed(void)
{
	return atomic_load(&failed);
}

static bool fails_now(void)
{
	uint64_t left = atomic_load_explicit(&fail_countdown, memory_order_relaxed);

	do {
		if (left == 0)
			return false;
		if (left == 1 && atomic_load(&fail_for_ever))
			break;
	} while (!atomic_compare_exchange_weak(&fail_countdown, &left, left - 1));
	if (left > 1)
		return false;
	atomic_store(&failed, true);
	return true;
}

void *kvk_mem_alloc(size_t bytes)
{
	return fails_now() ? NULL : malloc(bytes);
}

void *kvk_mem_zalloc(size_t count, size_t bytes)
{
	return fails_now() ? NULL : calloc(count, bytes);
}

void *kvk_mem_realloc(void *memory, size_t bytes)
{
	return fails_now() ? NULL : realloc(memory, bytes);
}

char *kvk_mem_strdup(const char *text)
{
	size_t bytes = strlen(text) + 1;
	char *copy = kvk_mem_alloc(bytes);

	if (copy)
		memcpy(copy, text, bytes);
	return copy;
}

void kvk_mem_free(void *memory)
{
	free(memory);
}

void *kvk_mem_map(size_t bytes)
{
	void *memory;

	if (fails_now())
		return NULL;
	memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return NULL;
	/* Contents of the cache can be turned back into prompts: they have no place in a core dump. */
	madvise(memory, bytes, MADV_DONTDUMP);
	return memory;
}

void kvk_mem_unmap(void *memory, size_t bytes)
{
	if (memory)
		munmap(memory, bytes);
}
