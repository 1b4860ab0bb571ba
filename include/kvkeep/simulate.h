/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What a store of a given size would keep of given traffic, without a store: the catalog of a store, its order of eviction
 * and its chains, with nothing stored. For choosing a policy and a cap before there is a disk.
 *
 * Threads: a simulation is used by one thread at a time. No thread is started, no file is touched.
 */
#ifndef KVKEEP_SIMULATE_H
#define KVKEEP_SIMULATE_H

#include <stdint.h>

#include <kvkeep/export.h>

#ifdef __cplusplus
extern "C" {
#endif

struct kvk_simulation;

struct kvk_simulation_options {
	uint32_t struct_bytes;     /* sizeof(struct kvk_simulation_options) where the caller was built */
	const char *policy;        /* as eviction.eviction_policy: "noop", "LRU", "S3FIFO", "ARC", "IsolatedLRU" */
	uint64_t cap_bytes;        /* 0: none, everything is kept */
};

/** Since the simulation was made. An access is one block of one request. */
struct kvk_simulation_counts {
	uint32_t struct_bytes;
	uint64_t accesses;
	uint64_t hits;             /* leading blocks of requests that were there */
	uint64_t hit_bytes;
	uint64_t written;          /* blocks that were stored */
	uint64_t written_bytes;
	uint64_t evicted;
	uint64_t refused;          /* blocks that found no room: with "noop", or larger than the cap */
	uint64_t objects;          /* that are there now */
	uint64_t used_bytes;
	uint64_t memory_bytes;     /* of the catalog */
};

/**
 * Makes a simulation; end it with kvk_simulation_free().
 * -EINVAL: no such policy, a NULL, or a struct_bytes that is not known. -ENOMEM. *ret is untouched on failure.
 */
KVK_API int kvk_simulation_new(struct kvk_simulation **ret, const struct kvk_simulation_options *options);

/** NULL is ignored. */
KVK_API void kvk_simulation_free(struct kvk_simulation *simulation);

/**
 * One request of an engine: blocks[0 .. count) name its prompt in prefix order, each the child of the one before it, and the
 * same number means the same block after the same prefix. The leading blocks that are there are hits, are pinned and used;
 * those behind the first that is not are stored where they are not there, and evict what the policy says. A block counts
 * block_bytes, rounded up to 4,096, and no footer. *hits_ret (may be NULL) gets the number of hits.
 * -EINVAL: block_bytes is 0 or above 4 GiB, or count is 2^32 - 1. -ENOMEM: what was done of the request stays done.
 */
KVK_API int kvk_simulation_request(struct kvk_simulation *simulation, const uint64_t *blocks, uint32_t count,
				   uint64_t block_bytes, uint32_t *hits_ret);

/** Fills *ret, whose struct_bytes must be set. -EINVAL: it is not known, or ret is NULL. */
KVK_API int kvk_simulation_counts(struct kvk_simulation *simulation, struct kvk_simulation_counts *ret);

#ifdef __cplusplus
}
#endif

#endif
