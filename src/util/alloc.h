/* SPDX-License-Identifier: Apache-2.0 */
/* Every allocation of the library goes through here, so that a test can fail the nth one. */
#ifndef KVK_UTIL_ALLOC_H
#define KVK_UTIL_ALLOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* NULL when memory is short. Freed with kvk_mem_free(). */
void *kvk_mem_alloc(size_t bytes);
void *kvk_mem_zalloc(size_t count, size_t bytes);
void *kvk_mem_realloc(void *memory, size_t bytes);
char *kvk_mem_strdup(const char *text);
void kvk_mem_free(void *memory);

/* Anonymous pages, aligned to 4,096 and kept out of core dumps; NULL when memory is short. */
void *kvk_mem_map(size_t bytes);
void kvk_mem_unmap(void *memory, size_t bytes);

/*
 * For tests: the nth allocation from now on fails (1 is the next), and with for_ever all after it as well.
 * 0 switches failing off. Process-wide; not while other threads allocate, unless that is what is tested.
 */
void kvk_mem_fail_nth(uint64_t nth, bool for_ever);
/* Whether an allocation failed since the last kvk_mem_fail_nth(). */
bool kvk_mem_has_failed(void);

#endif
