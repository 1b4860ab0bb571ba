/* SPDX-License-Identifier: Apache-2.0 */
/* Little-endian integers at any address. Every integer on a medium passes through these, never through a cast. */
#ifndef KVK_FORMAT_BYTES_H
#define KVK_FORMAT_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline void kvk_put32(uint8_t *at, uint32_t value)
{
	for (unsigned i = 0; i < 4; i++)
		at[i] = (uint8_t)(value >> (8 * i));
}

static inline void kvk_put64(uint8_t *at, uint64_t value)
{
	for (unsigned i = 0; i < 8; i++)
		at[i] = (uint8_t)(value >> (8 * i));
}

static inline uint32_t kvk_get32(const uint8_t *at)
{
	return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static inline uint64_t kvk_get64(const uint8_t *at)
{
	return (uint64_t)kvk_get32(at) | (uint64_t)kvk_get32(at + 4) << 32;
}

static inline bool kvk_all_zero(const uint8_t *at, size_t bytes)
{
	return bytes == 0 || (at[0] == 0 && memcmp(at, at + 1, bytes - 1) == 0);
}

#endif
