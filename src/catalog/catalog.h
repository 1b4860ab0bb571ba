/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What exists, what it costs, who holds it: the in-memory index of one store and its bytes.
 *
 * The catalog is a cache of the medium: it may know less than what lies there, and forgets what turns out to be
 * gone. It knows digests, sizes, states, pins, tenants and models, and what to evict first; no files, no
 * threads, and the time only as it is told.
 *
 * Threads: any thread may call anything. 64 shards, each under a mutex that is held for a few hundred
 * nanoseconds and never across a call out of here.
 *
 * One object's life:  absent --put_begin--> writing --put_end--> present --remove_begin--> leaving
 *                     --remove_renamed--> absent (its bytes stay charged until credit)
 *                     present --evict--> leaving --evicted--> absent, or present again
 *
 * Two accounts. What is used here (used_bytes) follows what this process knows of the medium. The lease (room)
 * is what this process may still publish: puts reserve from it and give back what they did not publish; what is
 * found, lost or removed changes nothing of it, since that is charged elsewhere, once for all processes.
 */
#ifndef KVK_CATALOG_CATALOG_H
#define KVK_CATALOG_CATALOG_H

#include <stdbool.h>
#include <stdint.h>

#include <kvkeep/store.h>

struct kvk_catalog;

/*
 * What the catalog keeps about an object. Of digests it compares 16 bytes: an object that shares them with
 * another (one chance in 2^69 among 10^9 objects) is taken for it here, and refused by the proof of the load.
 */
/* How it is known what an object is. Only the first answers from memory. */
enum kvk_source {
	KVK_SOURCE_FOOTER = 0,         /* it was written by this process, or its footer was read */
	KVK_SOURCE_NAME,               /* a listing showed name and length: whether it is whole, and whose, is not known */
	KVK_SOURCE_SNAPSHOT,           /* a former process said so: as the footer does, once a listing has shown its name */
	KVK_SOURCE_OPAQUE,             /* it has no footer that can be read: there is no more to know */
};

struct kvk_object_info {
	uint64_t logical_bytes;
	uint64_t charge_bytes;         /* rounded up to 4,096; counts as 8 GiB - 4,096 if it is more */
	bool durable;                  /* its data and name are known to be on the medium */
	bool published;                /* put_end: by this put, so it is charged out of the lease */
	uint8_t parent_digest[32];     /* zeros: none; only the first 16 bytes are looked at */
	uint64_t used_at;              /* ns since 1970; 0: now, the most recent */
	enum kvk_source source;
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

/* What goes first. */
enum kvk_policy_kind {
	KVK_POLICY_NOOP,               /* nothing ever */
	KVK_POLICY_LRU,
	KVK_POLICY_S3FIFO,
	KVK_POLICY_ARC,
	KVK_POLICY_ISOLATED_LRU,       /* first of tenants over their quota, then of tenants without one */
};

/* What configurations call them, in the order of the enumeration, and NULL. */
extern const char *const kvk_policy_words[];

struct kvk_policy_options {
	enum kvk_policy_kind kind;
	uint64_t cap_bytes;            /* for the shares of S3-FIFO and ARC; 0: what is used counts as the cap */
};

/* room_bytes: the lease to begin with; UINT64_MAX: no limit. options: NULL is LRU without a cap. -ENOMEM. */
int kvk_catalog_new(struct kvk_catalog **ret, uint64_t room_bytes, const struct kvk_policy_options *options);
void kvk_catalog_free(struct kvk_catalog *catalog);

/* ---- puts --------------------------------------------------------------------------------------- */

/*
 * absent -> writing, with charge_bytes reserved from the lease. -EEXIST: present (*durable_ret tells whether it is
 * known to be durable). -EALREADY: writing. -EBUSY: leaving. -ENOSPC: the lease is too short. -ENOMEM. Nothing is
 * reserved on failure. What was only listed is written anew.
 */
int kvk_catalog_put_begin(struct kvk_catalog *catalog, const uint8_t digest[32], uint64_t charge_bytes,
			  bool *durable_ret);

/*
 * Ends what put_begin() began. info: the object is present now, and counts info->charge_bytes as used, whatever was
 * reserved. With info->published that is taken out of the lease, and the rest of what was reserved goes back;
 * otherwise it was found there, and all that was reserved goes back. NULL: nothing is there, all goes back.
 * Memory for tenant or model names being short is no failure: they count under "".
 */
void kvk_catalog_put_end(struct kvk_catalog *catalog, const uint8_t digest[32],
			 const struct kvk_object_info *info);

/* ---- lookups and gets --------------------------------------------------------------------------- */

/*
 * What was only listed is unknown here: whoever looks asks the medium, and found() tells. So is it for puts.
 * Tells the state, fills *ticket and, if present, the bytes and durable of *info_ret (may be NULL) and, with pin,
 * adds a pin (at most 65,535: -EOVERFLOW instead of a state). renew: a hit makes the object the most recent.
 */
int kvk_catalog_look(struct kvk_catalog *catalog, const uint8_t digest[32], bool pin, bool renew,
		     struct kvk_catalog_ticket *ticket, struct kvk_object_info *info_ret);

/*
 * Starts to fetch into the processor's cache what look() will read of these digests; changes nothing. For
 * batches of some ten to a hundred keys: at a million objects each look waits for memory twice, and so they
 * wait together.
 */
void kvk_catalog_warm(struct kvk_catalog *catalog, const uint8_t *const *digests, uint32_t count);

/*
 * An object was found on the medium by somebody who held this ticket. unknown -> present, used once;
 * present: only the pin. Returns 0. -ESTALE: the ticket is out
 * of date, look again. -EALREADY / -EBUSY: it is being written / removed now: a miss. -ENOMEM; -EOVERFLOW.
 */
int kvk_catalog_found(struct kvk_catalog *catalog, const uint8_t digest[32],
		      const struct kvk_catalog_ticket *ticket, const struct kvk_object_info *info, bool pin);

/* The medium does not have it (any more): present, if only as listed, -> unknown and not used, if the ticket is still true. */
void kvk_catalog_lost(struct kvk_catalog *catalog, const uint8_t digest[32],
		      const struct kvk_catalog_ticket *ticket);

/* The same, told by who has just taken its name away: what was not known then and a listing has told of since goes, too. What was
 * put since, or is being put, is only listed from then on, as the put may have found what was moved. Tickets of before, of what is not
 * known, are out of date. */
void kvk_catalog_moved_aside(struct kvk_catalog *catalog, const uint8_t digest[32],
			     const struct kvk_catalog_ticket *ticket);

/* Others say that they removed it, some time ago: it may have been stored anew since. What is present is only listed from now on, so
 * that whoever looks asks the medium; and what was found by who asked before, or is being put, is not taken for more. */
void kvk_catalog_gone_elsewhere(struct kvk_catalog *catalog, const uint8_t prefix[16]);

/* Others removed nobody knows what: all that is present is only listed from now on. */
void kvk_catalog_doubt(struct kvk_catalog *catalog);

/* What others say that they removed is lost, but for its pins, unless it was put, found or listed since. */
void kvk_catalog_forget_doubted(struct kvk_catalog *catalog);

void kvk_catalog_set_durable(struct kvk_catalog *catalog, const uint8_t digest[32],
			     const struct kvk_catalog_ticket *ticket);

/* Takes one pin off. A pin stays on its key until then, whatever becomes of the object: it is on what is put or found there
 * later. Keys without pins: nothing happens. */
void kvk_catalog_unpin(struct kvk_catalog *catalog, const uint8_t digest[32]);

uint32_t kvk_catalog_pins(struct kvk_catalog *catalog, const uint8_t digest[32]);

/* ---- removing ----------------------------------------------------------------------------------- */

/* present or unknown -> leaving. -EBUSY: pinned (*pinned_ret true), known or not, or being written or removed. -ENOMEM. */
int kvk_catalog_remove_begin(struct kvk_catalog *catalog, const uint8_t digest[32], bool *pinned_ret);

/* leaving -> unknown. removed: its name is gone, its charge stays until credit(); *charge_ret tells
 * how much that will be (0 if it was unknown). !removed: leaving -> what it was before. */
void kvk_catalog_remove_renamed(struct kvk_catalog *catalog, const uint8_t digest[32], bool removed,
				uint64_t *charge_ret);

/* The blocks of removed objects are free: used falls; by no more than charge() and remove_renamed() left there. */
void kvk_catalog_credit(struct kvk_catalog *catalog, uint64_t charge_bytes);

/* Bytes that belong to no object of the catalog are used (what quarantine holds); see credit(). */
void kvk_catalog_charge(struct kvk_catalog *catalog, uint64_t charge_bytes);

/* ---- evicting ----------------------------------------------------------------------------------- */

/*
 * Tells the wall clock, from time to time (the watch does: every 100 ms); one thread at a time. Each use gets
 * the time last told plus a step of a microsecond for each use since then, so that uses stand in one order over
 * all shards as long as there are less than a million between two calls; beyond that, those of the same shard
 * still do. When it is told to have gone back, uses go on from where they were at its pace. Never told: uses are
 * counted.
 */
void kvk_catalog_clock(struct kvk_catalog *catalog, uint64_t now_ns);

void kvk_catalog_set_cap(struct kvk_catalog *catalog, uint64_t cap_bytes);

/*
 * What a tenant may use before IsolatedLRU evicts of it first; UINT64_MAX: no quota, so there is none to
 * exceed. tenant NULL: the quota of every tenant that none was set for, UINT64_MAX until it is set.
 * tenant_bytes 0 with a tenant: keys without a tenant. A name that a quota was set for is kept. -ENOMEM;
 * -EUSERS: there are 65,535 names.
 */
int kvk_catalog_set_quota(struct kvk_catalog *catalog, const void *tenant, uint32_t tenant_bytes,
			  uint64_t quota_bytes);

struct kvk_victim {
	uint8_t prefix[16];            /* of the digest */
	uint64_t charge_bytes;
	uint64_t used_at_ns;
};

/*
 * Chooses by the policy what is to go until that costs `bytes` or `count` were chosen, and returns how many.
 * Each is leaving until kvk_catalog_evicted(). Never chosen is what is pinned, being written, leaving, or the
 * parent of a known object that was not chosen: children go first, and their parents may follow in the same
 * call. Only if there is nothing else, an object whose links go round in a circle, or whose count of children
 * is too high to be true, goes without. A parent counts as used no earlier than the last of its children was
 * that went: a hit is one of the whole chain.
 */
uint32_t kvk_catalog_evict(struct kvk_catalog *catalog, uint64_t bytes, struct kvk_victim *victims, uint32_t count);

/* Whether evict() may come to choose it, now or when its children have gone: it is present and not pinned. */
bool kvk_catalog_may_leave(struct kvk_catalog *catalog, const uint8_t prefix[16]);

enum kvk_evict_end {
	KVK_EVICTED,                   /* its name is gone */
	KVK_EVICT_KEPT,                /* present again: somebody else used it, at used_at_ns */
	KVK_EVICT_ABSENT,              /* it was not there */
};

/* Ends what evict() began for one. *charge_ret as for kvk_catalog_remove_renamed(): 0 if it was kept. */
void kvk_catalog_evicted(struct kvk_catalog *catalog, const uint8_t prefix[16], enum kvk_evict_end end,
			 uint64_t used_at_ns, uint64_t *charge_ret);

/* ---- what a restart needs ------------------------------------------------------------------------ */

/*
 * The scan found an object. unknown -> present, used once, at its place in the order of use by info->used_at. present:
 * info->used_at counts as its last use if it is later than that (others used it), and info->parent_digest if no parent
 * is known; a footer completes what was only listed; a listing confirms what a snapshot said if the length is the same,
 * and what has another length now is only listed from then on, unless it is pinned.
 * Returns 0, or KVK_CATALOG_WANTS_FOOTER while only its name is known. -EALREADY: it is being written. -EBUSY: leaving.
 * -ENOMEM. In ascending order of used_at each costs the same, however many there are.
 */
#define KVK_CATALOG_WANTS_FOOTER 1
int kvk_catalog_scanned(struct kvk_catalog *catalog, const uint8_t digest[32], const struct kvk_object_info *info);

/* Whether only its name is known, and a ticket for who reads the footer then. */
bool kvk_catalog_wants_footer(struct kvk_catalog *catalog, const uint8_t digest[32], struct kvk_catalog_ticket *ticket);

/* As scanned(), for a footer that was read by somebody who held this ticket. -ESTALE: the object went or was put anew since,
 * and what was read is not taken: else a put would find present what was just removed. */
int kvk_catalog_inspected(struct kvk_catalog *catalog, const uint8_t digest[32],
			  const struct kvk_catalog_ticket *ticket, const struct kvk_object_info *info);

/*
 * Around a listing of everything whose digest begins with the byte `first` (-1: of everything there is). If nothing came or went
 * on the medium during it: what is known since before it and was not told by scanned() in its course is lost.
 * lose_unseen() returns how many.
 */
void kvk_catalog_forget_seen(struct kvk_catalog *catalog, int first);
uint64_t kvk_catalog_lose_unseen(struct kvk_catalog *catalog, int first);

/*
 * The parent became known later than the child; of both digests 16 bytes are read. 0: the link is there.
 * -ENOENT: one of them is not known. -EEXIST: it has another parent. -ELOOP: it would close a circle, or the
 * way up is longer than 65,536.
 */
int kvk_catalog_link(struct kvk_catalog *catalog, const uint8_t *digest, const uint8_t *parent_digest);

#define KVK_CATALOG_SHARDS 64u

/*
 * Calls visit for the known objects of a shard from the least to the most recently used, as they were at the
 * beginning of the call less those that went meanwhile; of parent_digest the first 16 bytes are told. visit is
 * called under the shard's lock: it must not call the catalog, and what it is given holds until it returns;
 * false ends the call. Returns 0 or -ENOMEM.
 */
int kvk_catalog_visit(struct kvk_catalog *catalog, uint32_t shard,
		      bool (*visit)(void *user, const uint8_t prefix[16], const struct kvk_object_info *info),
		      void *user);

/* ---- totals ------------------------------------------------------------------------------------- */

/* Adds to, or takes from, the lease. */
void kvk_catalog_add_room(struct kvk_catalog *catalog, int64_t bytes);

/* Takes up to bytes of what is free out of the lease, and returns how much. Nothing, if there is no limit. */
uint64_t kvk_catalog_take_room(struct kvk_catalog *catalog, uint64_t bytes);

/* What is free of the lease; UINT64_MAX if there is no limit. */
uint64_t kvk_catalog_room(struct kvk_catalog *catalog);

struct kvk_catalog_totals {
	uint64_t used_bytes;           /* present, leaving, removed and not credited, and charge() */
	uint64_t writing_bytes;        /* reserved */
	uint64_t objects;              /* present */
	uint64_t pinned_objects;       /* keys with pins, also of what is not known to be there */
	uint64_t memory_bytes;         /* what the catalog itself takes */
};

void kvk_catalog_totals(struct kvk_catalog *catalog, struct kvk_catalog_totals *ret);

/* As kvk_store_shares(). */
uint32_t kvk_catalog_shares(struct kvk_catalog *catalog, enum kvk_share_by by, struct kvk_share *shares,
			    uint32_t count);

#endif
