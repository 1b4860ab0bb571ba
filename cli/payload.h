/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Payloads that follow from a 64-bit name, so that a load can be judged without a second copy. Each 4 KiB block
 * starts from a number of its own that is mixed from name and position; its 512 words are all different, so
 * no block is zero, none repeats within an object, and a block of another object tells itself apart.
 */
#ifndef KVK_CLI_PAYLOAD_H
#define KVK_CLI_PAYLOAD_H

#include <stdint.h>

#define KVK_PAYLOAD_BLOCK_BYTES 4096

/* A bijection of 64 bits in which each bit of the answer hangs on each bit of value. */
uint64_t kvk_payload_mix(uint64_t value);

/* Writes bytes [offset, offset + bytes) of the payload; offset is a multiple of KVK_PAYLOAD_BLOCK_BYTES. */
void kvk_payload_fill(void *to, uint64_t bytes, uint64_t name, uint64_t offset);

/*
 * Compares that part of the payload with data and returns the number of bytes that differ; *first receives the
 * place of the first one in the object, if there is one.
 */
uint64_t kvk_payload_wrong(const void *data, uint64_t bytes, uint64_t name, uint64_t offset,
			   uint64_t *first);

#endif
