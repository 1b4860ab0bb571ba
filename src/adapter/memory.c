/* SPDX-License-Identifier: Apache-2.0 */
/* The caller's memory comes in fragments. */
#include <string.h>

#include "adapter/proof.h"

enum walk { WALK_SCATTER, WALK_GATHER };

static void walk(enum walk how, const struct iovec *iov, uint32_t count, uint64_t offset_bytes, uint8_t *plain,
		 uint64_t bytes)
{
	for (uint32_t i = 0; i < count && bytes > 0; i++) {
		uint64_t part;

		if (offset_bytes >= iov[i].iov_len) {
			offset_bytes -= iov[i].iov_len;
			continue;
		}
		part = iov[i].iov_len - offset_bytes;
		if (part > bytes)
			part = bytes;
		if (how == WALK_SCATTER)
			memcpy((uint8_t *)iov[i].iov_base + offset_bytes, plain, part);
		else
			memcpy(plain, (uint8_t *)iov[i].iov_base + offset_bytes, part);
		plain += part;
		bytes -= part;
		offset_bytes = 0;
	}
}

void kvk_memory_scatter(const struct iovec *to, uint32_t count, uint64_t offset_bytes, const void *from,
			uint64_t bytes)
{
	walk(WALK_SCATTER, to, count, offset_bytes, (uint8_t *)(uintptr_t)from, bytes);
}

void kvk_memory_gather(void *to, const struct iovec *from, uint32_t count, uint64_t offset_bytes,
		       uint64_t bytes)
{
	walk(WALK_GATHER, from, count, offset_bytes, to, bytes);
}

void kvk_memory_fill(const struct iovec *to, uint32_t count, uint8_t byte)
{
	for (uint32_t i = 0; i < count; i++)
		memset(to[i].iov_base, byte, to[i].iov_len);
}

bool kvk_memory_aligned(const struct iovec *iov, uint32_t count, const struct kvk_backend_caps *caps)
{
	for (uint32_t i = 0; i < count; i++) {
		if ((uintptr_t)iov[i].iov_base % caps->align_memory_bytes)
			return false;
		/* The last fragment may end anywhere: its tail goes through the store's own memory. */
		if (i + 1 < count && iov[i].iov_len % caps->align_offset_bytes)
			return false;
	}
	return true;
}
