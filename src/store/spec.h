/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON specification of a store, parsed and checked. kvkeep(7) explains every option. */
#ifndef KVK_STORE_SPEC_H
#define KVK_STORE_SPEC_H

#include "adapter/adapter.h"

struct kvk_spec {
	bool ram;                              /* "backend": "RAM" */
	char *path;                            /* NULL only with ram */
	char *device;                          /* of a pool: the path of a block device; NULL: files */
	bool direct;
	struct kvk_superblock_wish wish;
	bool shared;
	bool accept_unverified;
	char *manifest;                        /* canonical; NULL: none */
	uint8_t namespace_digest[KVK_DIGEST_BYTES];
	enum kvk_engine engine;
	uint32_t lanes;
	uint64_t memory_bytes;
	uint64_t depth_bytes;
	uint64_t deadline_us;
	uint32_t max_items;
	uint64_t batch_us;
	uint64_t batch_bytes;
	char *fault;                           /* JSON array of rules; NULL: none */
	uint64_t fault_seed;
};

/* *spec is for kvk_spec_release() in any case. -EINVAL or -ENOMEM with *error filled. */
int kvk_spec_parse(struct kvk_spec *spec, const char *json, struct kvk_error *error);
void kvk_spec_release(struct kvk_spec *spec);

#endif
