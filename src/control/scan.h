/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Learns what lies on the medium, bucket by bucket: names and sizes first, which is what the account and the order of use
 * need, footers after that, which say whose an object is and what comes before it in its prefix.
 */
#ifndef KVK_CONTROL_SCAN_H
#define KVK_CONTROL_SCAN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "account/account.h"
#include "adapter/adapter.h"
#include "catalog/catalog.h"

/* Threads that list at a time in a first pass. */
#define KVK_SCAN_THREADS 4u
/* 256 of objects, and quarantine. */
#define KVK_SCAN_BUCKETS (KVK_SCAN_QUARANTINE + 1)

/* What is known of one bucket. Belongs to whoever lists it at the time. */
struct kvk_scan_bucket {
	struct kvk_bucket_finding finding;     /* of the last listing */
	uint64_t stamp;                /* of bucket_time() before it */
	uint64_t objects;
	bool listed;                   /* at least once */
	bool stands;                   /* nothing moved during the last listing, as far as can be known */
	bool posted;                   /* the finding is in the account, or the account has more */
	bool exact;                    /* and no more than it */
	bool passed;                   /* posted since the pass began that is under way in the account */
	uint8_t refused;               /* how often the account did not take the finding */
	bool wants_footers;            /* there are objects that only their names are known of */
};

struct kvk_scan {
	/* Set by the owner; they outlive it: */
	struct kvk_backend *backend;
	struct kvk_adapter *adapter;
	struct kvk_catalog *catalog;
	struct kvk_account *account;
	struct kvk_layout layout;
	const atomic_bool *stopping;
	/* Private, but for reading: */
	uint32_t bucket_count;         /* of objects; quarantine comes on top */
	atomic_uint_fast32_t next;     /* of a pass by several threads: which bucket comes next */
	atomic_uint_fast64_t objects, bytes;           /* by name, in this pass */
	atomic_uint_fast32_t buckets_done;             /* in this pass */
	atomic_uint_fast64_t footers, unreadable;      /* read since the beginning; of those, without a footer */
	atomic_uint_fast64_t swept;                    /* temporary files and removed ones, since the beginning */
	atomic_int trouble;                            /* the last error of the medium: -errno */
	struct kvk_scan_bucket buckets[KVK_SCAN_BUCKETS];
};

/* Tells the catalog of an object that was listed. 0; KVK_CATALOG_WANTS_FOOTER: nothing but its name is known; -ENOMEM. */
int kvk_scan_tell(struct kvk_catalog *catalog, const struct kvk_scanned *scanned);

/* The owner's members are set, the rest is zero. */
void kvk_scan_init(struct kvk_scan *scan);

/* The i-th bucket of a pass, i from 0 to bucket_count: objects, then quarantine. */
uint32_t kvk_scan_bucket_at(const struct kvk_scan *scan, uint32_t i);

/* Lists a bucket, removes what dead processes left there, and tells the catalog. 0, -EINTR: it is time to stop; -errno: the
 * medium failed, the bucket is as it was. */
int kvk_scan_names(struct kvk_scan *scan, uint32_t bucket);

/* Lists all buckets, on KVK_SCAN_THREADS threads. Returns the first error. */
int kvk_scan_pass(struct kvk_scan *scan);

/* Reads the footers of a bucket's objects that want it, resting as long as it works: rest_us() sleeps,
 * and returns false when it is time to stop. */
int kvk_scan_footers(struct kvk_scan *scan, uint32_t bucket, bool (*rest_us)(void *user, uint64_t us), void *user);

/* Whether a bucket must be listed again. */
bool kvk_scan_has_changed(struct kvk_scan *scan, uint32_t bucket);

#endif
