/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the pool adapter share. Objects lie in preallocated files (or on a device) of equal slots, each in a run of
 * neighbours. The object ends where its run ends, so the footer is the run's last pages, and a run describes itself.
 *
 * Nothing is published: a footer that verifies is the object. So a footer is written after everything before it, and zeroed
 * before its slots are free. Should a power cut reorder that, then an old footer stands over new payload, or a new one over old: block
 * sums seeded by the key make every such mix a miss, and at the next open the newer of two that claim a slot has it.
 */
#ifndef KVK_ADAPTER_POOL_POOL_H
#define KVK_ADAPTER_POOL_POOL_H

#include "adapter/adapter.h"
#include "adapter/pool/map.h"
#include "adapter/proof.h"
#include "util/log.h"

struct kvk_pool {
	struct kvk_adapter base;
	struct kvk_pool_shape shape;
	enum kvk_durability durability;
	uint8_t namespace_digest[KVK_DIGEST_BYTES];
	struct kvk_log_sink log;
	uint8_t pool_id[16];
	uint32_t file_count;
	struct kvk_place **places;             /* open as long as the pool; NULL: not yet */
	uint8_t *zeros;                        /* a page, aligned for direct transfers */
	struct kvk_pool_map map;
	/* When an object last came or went, by the clock that tells the time and by the one that only goes on. */
	atomic_uint_fast64_t changed_ns;
	atomic_uint_fast64_t changed_us;
	atomic_uint_fast64_t changes;
};

static inline struct kvk_pool *kvk_pool_of(struct kvk_adapter *adapter)
{
	return kvk_container_of(adapter, struct kvk_pool, base);
}

static inline struct kvk_pool *kvk_pool_of_request(const struct kvk_request *request)
{
	return kvk_pool_of(request->adapter);
}

/* Where a run lies: its file, and the byte of it behind the run. */
struct kvk_place *kvk_pool_place(const struct kvk_pool *pool, const struct kvk_run *run);
uint64_t kvk_pool_end_bytes(const struct kvk_pool *pool, const struct kvk_run *run);
static inline uint64_t kvk_pool_run_bytes(const struct kvk_pool *pool, const struct kvk_run *run)
{
	return run->slots * pool->shape.slot_bytes;
}

/* An object came or went. */
void kvk_pool_changed(struct kvk_pool *pool);

/* "slot-<8 hex>": the first slot of the run. */
#define KVK_POOL_NAME_BYTES 16
void kvk_pool_name(char name[KVK_POOL_NAME_BYTES], uint32_t slot);
bool kvk_pool_name_parse(const char *name, uint32_t *slot_ret);

/* ---- files.c ------------------------------------------------------------------------------------ */

/* Opens the files or the device, and makes those that are missing. */
int kvk_pool_files_open(struct kvk_pool *pool, const char *device, struct kvk_error *error);
void kvk_pool_files_close(struct kvk_pool *pool);

/* ---- recover.c ---------------------------------------------------------------------------------- */

/* Fills the map from the footers. */
int kvk_pool_recover(struct kvk_pool *pool, struct kvk_error *error);
/* Whether a whole footer says that its object is this run. */
bool kvk_pool_is_of_run(const struct kvk_pool *pool, const struct kvk_footer *footer, const struct kvk_run *run);

/* ---- erase.c ------------------------------------------------------------------------------------ */

/*
 * Zeroes the footer of a run that was taken or is leaving, and frees it; see kvk_pool_map_free(). Goes on when the operation is
 * canceled. done is called on the lane; status 0: it is erased.
 */
struct kvk_erase {
	struct kvk_request *request;
	struct kvk_run run;
	void (*done)(struct kvk_erase *erase);
	int status;
	uint32_t tries;
	bool spoiled;                  /* its slots are not used again before the next open */
	struct kvk_xfer xfer;
	struct iovec iov;
};

void kvk_erase_start(struct kvk_erase *erase);
/* The same on the calling thread, for a run that is leaving. */
int kvk_pool_erase(struct kvk_pool *pool, const struct kvk_run *run);

/* ---- look.c ------------------------------------------------------------------------------------- */

/* The proof of what is in a held run. */
struct kvk_look {
	struct kvk_run run;
	struct kvk_proof proof;
};

extern const struct kvk_proof_rules kvk_pool_proof_rules;

void kvk_pool_get(struct kvk_request *request);
void kvk_pool_find(struct kvk_request *request);

/* ---- put.c, remove.c, list.c -------------------------------------------------------------------- */

void kvk_pool_put(struct kvk_request *request);
void kvk_pool_remove(struct kvk_request *request);
int kvk_pool_evict(struct kvk_adapter *adapter, uint32_t bucket, struct kvk_evictee *evictees, uint32_t count);
int kvk_pool_remove_all(struct kvk_adapter *adapter);
int kvk_pool_list(struct kvk_adapter *adapter, const char *after, kvk_list_visit *visit, void *user);
int kvk_pool_inspect(struct kvk_adapter *adapter, const char *name, struct kvk_listed *listed);
int kvk_pool_scan(struct kvk_adapter *adapter, uint32_t bucket, kvk_scan_visit *visit, void *user, uint64_t *modified_ns);
int kvk_pool_bucket_time(struct kvk_adapter *adapter, uint32_t bucket, uint64_t *modified_ns, uint64_t *stamp);

#endif
