/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON specification of a store, parsed and checked. kvkeep(7) explains every option. */
#ifndef KVK_STORE_SPEC_H
#define KVK_STORE_SPEC_H

#include "adapter/adapter.h"
#include "catalog/catalog.h"

struct kvk_quota {
	char *tenant;
	uint64_t bytes;
};

struct kvk_spec {
	bool ram;                              /* "backend": "RAM" */
	char *path;                            /* NULL only with ram */
	char *device;                          /* of a pool: the path of a block device; NULL: files */
	bool direct;
	struct kvk_superblock_wish wish;
	bool shared;
	bool accept_unverified;
	bool keeper;                           /* it may become the keeper */
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
	enum kvk_policy_kind policy;
	double trigger_watermark;              /* of the cap: above it ... */
	double eviction_ratio;                 /* ... this part of the bytes leaves */
	struct kvk_quota *quotas;              /* IsolatedLRU */
	uint32_t quota_count;
	uint64_t default_quota_bytes;          /* UINT64_MAX: none */
	bool says_min_free;
	uint64_t min_free_bytes;               /* stay free on the medium */
	double disk_watermark;                 /* of the medium may be in use at most */
	char *fault;                           /* JSON array of rules; NULL: none */
	uint64_t fault_seed;
};

/* *spec is for kvk_spec_release() in any case. -EINVAL or -ENOMEM with *error filled. */
int kvk_spec_parse(struct kvk_spec *spec, const char *json, struct kvk_error *error);
void kvk_spec_release(struct kvk_spec *spec);

#endif
