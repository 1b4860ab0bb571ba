/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KVK_CLI_BLOCKKEY_H
#define KVK_CLI_BLOCKKEY_H

#include <stdint.h>

/* Room for the key of a model with a name of up to 13 bytes. */
#define KVK_BLOCK_KEY_BYTES 64

/*
 * Writes the key in text form of a made-up block: this model, rank 0, group 0, and 16 bytes that follow from id and seed.
 * Different ids have different keys. Returns the key's length; *name is the name of its payload (payload.h).
 */
uint32_t kvk_block_key(char key[KVK_BLOCK_KEY_BYTES], const char *model, uint64_t id, uint64_t seed,
		       uint64_t *name);

#endif
