/* SPDX-License-Identifier: Apache-2.0 */
#include "blockkey.h"

#include <string.h>

#include <kvkeep/kvkeep.h>

#include "payload.h"

uint32_t kvk_block_key(char key[KVK_BLOCK_KEY_BYTES], const char *model, uint64_t id, uint64_t seed,
		       uint64_t *name)
{
	uint64_t hash[2];
	struct kvk_key_fields fields = {
		.struct_bytes = sizeof(fields),
		.model = { model, (uint32_t)strlen(model) },
		.hash = { hash, sizeof(hash) },
	};
	int bytes;

	/* The first half alone is a bijection of the id. */
	hash[0] = kvk_payload_mix(id ^ kvk_payload_mix(seed));
	hash[1] = kvk_payload_mix(hash[0] + 1);
	*name = hash[0];
	bytes = kvk_key_encode(&fields, key, KVK_BLOCK_KEY_BYTES);
	return bytes > 0 ? (uint32_t)bytes : 0;
}
