/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of files in memory: chunks that all files of a medium share. */
#ifndef KVK_BACKEND_RAM_BYTES_H
#define KVK_BACKEND_RAM_BYTES_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

/* As small as a page of waste in a 64 KiB object plus footer wants, and large enough that a copy is one memcpy. */
#define KVK_RAM_CHUNK_BYTES (64u << 10)
#define KVK_RAM_PAGE_BYTES 4096u
/* The table of chunks of one file is contiguous: this keeps it below 256 MiB. */
#define KVK_RAM_FILE_BYTES_MAX (UINT64_C(1) << 40)

struct kvk_ram_slab;
struct kvk_ram_free;

/* Where chunks come from. Several threads at a time. */
struct kvk_ram_space {
	pthread_mutex_t lock;          /* guards all below */
	struct kvk_ram_slab *slabs;
	struct kvk_ram_free *free;
	uint64_t used_bytes;           /* whole pages that hold data */
	uint64_t limit_bytes;          /* UINT64_MAX: none. Never changes */
};

struct kvk_ram_chunk {
	uint8_t *data;                 /* NULL: a hole */
	uint32_t filled_bytes;         /* what follows reads as zeros */
};

/* One file's bytes. Its user locks it, but for looking at the length. */
struct kvk_ram_bytes {
	struct kvk_ram_chunk *chunks;
	uint64_t room;
	_Atomic uint64_t length_bytes;
};

void kvk_ram_space_init(struct kvk_ram_space *space, uint64_t limit_bytes);
/* All files were released. */
void kvk_ram_space_release(struct kvk_ram_space *space);
/* A medium without a limit is as large as the machine's memory. */
void kvk_ram_space_usage(struct kvk_ram_space *space, uint64_t *free_bytes, uint64_t *total_bytes);

/* Copies up to bytes from offset on and returns how many: fewer at the end, 0 behind it. */
uint64_t kvk_ram_bytes_read(const struct kvk_ram_bytes *file, void *data, uint64_t bytes, uint64_t offset);
/* Returns how many bytes were written: fewer than asked when room ended on the way, -ENOSPC, -ENOMEM or
 * -EFBIG when none was. Between the end and offset there are zeros. */
int64_t kvk_ram_bytes_write(struct kvk_ram_bytes *file, struct kvk_ram_space *space, const void *data,
			    uint64_t bytes, uint64_t offset);
/* Gives all bytes back to space. */
void kvk_ram_bytes_release(struct kvk_ram_bytes *file, struct kvk_ram_space *space);

#endif
