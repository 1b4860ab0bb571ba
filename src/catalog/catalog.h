/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What exists, what it costs, who holds it: the in-memory index of one store and its bytes.
 *
 * The catalog is a cache of the medium: it may know less than what lies there, and forgets what turns out to
 * be gone. It knows digests, sizes, states, pins, tenants and models; no files, no threads, no clock.
 *
 * Threads: any thread may call anything. 64 shards, each under a mutex that is held for a few hundred
 * nanoseconds and never across a call out of here.
 *
 * One object's life:  absent --put_begin--> writing --put_end--> present --remove_begin--> leaving
 *                     --remove_renamed--> absent (its bytes stay charged until remove_credit)
 */
#ifndef KVK_CATALOG_CATALOG_H
#define KVK_CATALOG_CATALOG_H

#include <stdbool.h>
#include <stdint.h>

#include <kvkeep/store.h>

struct kvk_catalog;

/*
 * What the catalog keeps about an object. Of digests it compares 16 bytes: an object that shares them with another (one
 * chance in 2^69 among 10^9 objects) is taken for it here, and refused by the proof of the load.
 */
struct kvk_object_info {
	uint64_t logical_bytes;
	uint64_t charge_bytes;         /* rounded up to 4,096; counts as 16 TiB - 4,096 if it is more */
	bool durable;                  /* its data and name are known to be on the medium */
	uint8_t parent_digest[32];     /* zeros: none */
	const void *tenant;            /* salt; NULL/0 if the key is not in text form */
	const void *model;
	uint32_t tenant_bytes;
	uint32_t model_bytes;
};

enum kvk_catalog_state {
	KVK_CATALOG_UNKNOWN = 0,       /* memory does not know: ask the medium */
	KVK_CATALOG_WRITING,
	KVK_CATALOG_PRESENT,
	KVK_CATALOG_LEAVING,
};

/*
 * What a caller learnt when it asked, to be given back with what it found on the medium meanwhile. If a put or a
 * remove of the object ended in between, or it was lost, the finding is out of date and is not taken.
 */
struct kvk_catalog_ticket {
	uint32_t shard_version;        /* shared by one in 16,384 keys: one of those may make it out of date too */
	uint32_t entry_version;        /* the object's own; 0 if it was not present */
};

/* room_bytes: the lease to begin with; UINT64_MAX: no limit. -ENOMEM. */
int kvk_catalog_new(struct kvk_catalog **ret, uint64_t room_bytes);
void kvk_catalog_free(struct kvk_catalog *catalog);

/* ---- puts --------------------------------------------------------------------------------------- */

/*
 * absent -> writing, with charge_bytes reserved from the lease. -EEXIST: present (*durable_ret tells whether it is
 * known to be durable). -EALREADY: writing. -EBUSY: leaving. -ENOSPC: the lease is too short. -ENOMEM. Nothing is
 * reserved on failure.
 */
int kvk_catalog_put_begin(struct kvk_catalog *catalog, const uint8_t digest[32], uint64_t charge_bytes,
			  bool *durable_ret);

/*
 * Ends what put_begin() began. info: the object is present now, and is charged info->charge_bytes, whatever was
 * reserved (published by this put, or found there by it). NULL: nothing was published, all is given back.
 * Memory for tenant or model names being short is no failure: they count under "".
 */
void kvk_catalog_put_end(struct kvk_catalog *catalog, const uint8_t digest[32],
			 const struct kvk_object_info *info);

/* ---- lookups and gets --------------------------------------------------------------------------- */

/*
 * Tells the state, fills *ticket and, if present, the bytes and durable of *info_ret (may be NULL) and, with pin,
 * adds a pin (at most 65,535: -EOVERFLOW instead of a state). renew: a hit makes the object the most recent.
 */
int kvk_catalog_look(struct kvk_catalog *catalog, const uint8_t digest[32], bool pin, bool renew,
		     struct kvk_catalog_ticket *ticket, struct kvk_object_info *info_ret);

/*
 * Starts to fetch into the processor's cache what look() will read of these digests; changes nothing. For batches of some
 * ten to a hundred keys: at a million objects each look waits for memory twice, and so they wait together.
 */
void kvk_catalog_warm(struct kvk_catalog *catalog, const uint8_t *const *digests, uint32_t count);

/*
 * An object was found on the medium by somebody who held this ticket. unknown -> present, charged once (the
 * lease may go below zero: then puts find no room); present: only the pin. Returns 0. -ESTALE: the ticket is out
 * of date, look again. -EALREADY / -EBUSY: it is being written / removed now: a miss. -ENOMEM; -EOVERFLOW.
 */
int kvk_catalog_found(struct kvk_catalog *catalog, const uint8_t digest[32],
		      const struct kvk_catalog_ticket *ticket, const struct kvk_object_info *info, bool pin);

/* The medium does not have it (any more): present -> unknown and credited, if the ticket is still true; pins go. */
void kvk_catalog_lost(struct kvk_catalog *catalog, const uint8_t digest[32],
		      const struct kvk_catalog_ticket *ticket);

void kvk_catalog_set_durable(struct kvk_catalog *catalog, const uint8_t digest[32],
			     const struct kvk_catalog_ticket *ticket);

/* Takes one pin off. Unknown objects and objects without pins: nothing happens. */
void kvk_catalog_unpin(struct kvk_catalog *catalog, const uint8_t digest[32]);

uint32_t kvk_catalog_pins(struct kvk_catalog *catalog, const uint8_t digest[32]);

/* ---- removing ----------------------------------------------------------------------------------- */

/* present or unknown -> leaving. -EBUSY: pinned (*pinned_ret true), or being written or removed. -ENOMEM. */
int kvk_catalog_remove_begin(struct kvk_catalog *catalog, const uint8_t digest[32], bool *pinned_ret);

/* leaving -> unknown. removed: its name is gone, its charge stays until remove_credit(); *charge_ret tells
 * how much that will be (0 if it was unknown). !removed: leaving -> what it was before. */
void kvk_catalog_remove_renamed(struct kvk_catalog *catalog, const uint8_t digest[32], bool removed,
				uint64_t *charge_ret);

/* The blocks of removed objects are free: used falls, the lease grows; by no more than charge() and
 * remove_renamed() left there. */
void kvk_catalog_credit(struct kvk_catalog *catalog, uint64_t charge_bytes);

/* Charges bytes that belong to no object of the catalog (what quarantine holds); see credit(). */
void kvk_catalog_charge(struct kvk_catalog *catalog, uint64_t charge_bytes);

/* ---- totals ------------------------------------------------------------------------------------- */

/* Adds to, or takes from, the lease. */
void kvk_catalog_add_room(struct kvk_catalog *catalog, int64_t bytes);

struct kvk_catalog_totals {
	uint64_t used_bytes;           /* charged: present, leaving, and charge() */
	uint64_t writing_bytes;        /* reserved */
	uint64_t objects;              /* present */
	uint64_t pinned_objects;
	uint64_t memory_bytes;         /* what the catalog itself takes */
};

void kvk_catalog_totals(struct kvk_catalog *catalog, struct kvk_catalog_totals *ret);

/* As kvk_store_shares(). */
uint32_t kvk_catalog_shares(struct kvk_catalog *catalog, enum kvk_share_by by, struct kvk_share *shares,
			    uint32_t count);

#endif
