/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where an object lives and in which steps it gets there. An adapter knows names, footers and the steps of a put, get,
 * find and remove; it does not know who asked, batches or capacity.
 */
#ifndef KVK_ADAPTER_ADAPTER_H
#define KVK_ADAPTER_ADAPTER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent/agent.h"
#include "format/format.h"

/* What is known about an object that was found or written. */
struct kvk_facts {
	uint64_t logical_bytes;
	uint64_t stored_bytes;         /* the file's length: what it is charged */
	uint64_t created_ns;
	uint64_t inode;                /* of the file that was looked at; 0: none */
	uint32_t depth;
	uint32_t meta_bytes;
	bool durable;                  /* data and name are on the medium */
	bool unverified;               /* adopted, without a footer */
	uint8_t digest[KVK_DIGEST_BYTES];
	uint8_t namespace_digest[KVK_DIGEST_BYTES];
	uint8_t parent_digest[KVK_DIGEST_BYTES];
	uint8_t meta[KVK_META_BYTES_MAX];
};

enum kvk_outcome {
	KVK_OUTCOME_NONE = 0,          /* nothing of the key's is there, as far as was seen */
	KVK_OUTCOME_WRITTEN,           /* put: published by this request */
	KVK_OUTCOME_FOUND,             /* it is there; put: it was there before */
	KVK_OUTCOME_REMOVED,
	KVK_OUTCOME_NO_RUN,            /* put, with -ENOSPC: the lease has the bytes, but so many slots are not free side by side */
	KVK_OUTCOME_UNWRITTEN,         /* put with judge_first, with -EALREADY: nothing sound is there, and nothing was written */
};

/*
 * One request for one object. Whoever makes it owns it and everything it points to, until op.finished. What is
 * below `status` is the adapter's answer, valid in done() and after.
 */
struct kvk_request {
	struct kvk_op op;
	struct kvk_adapter *adapter;
	uint8_t digest[KVK_DIGEST_BYTES];
	uint8_t id[KVK_DIGEST_BYTES];  /* in the catalog, see kvk_name_id(); adapters do not look at it */
	const void *key;               /* NULL: only digest or name is known */
	uint32_t key_bytes;
	const char *name;              /* NULL: follows from key and digest */
	/* The caller's memory, for put and get. */
	const struct iovec *data;
	uint32_t data_count;
	uint64_t data_bytes;
	bool held;                     /* it may stay in the kernel's hands after the answer */
	bool deliver;                  /* get: bytes go to data; false: only check */
	bool keep;                     /* get, find: move nothing aside */
	bool renew;                    /* get, find: mark as recently used */
	bool judge_first;              /* put: it is there as far as is known, so no room is reserved: it must not be written */
	uint64_t offset_bytes;         /* get: the range */
	uint64_t range_bytes;          /* 0: to the end */
	const uint8_t *parent_digest;  /* put: NULL for none */
	const void *meta;              /* put */
	uint32_t meta_bytes;
	uint32_t depth;
	/* On the lane, exactly once for every request that was started, as soon as the answer is known. */
	void (*done)(struct kvk_request *request);
	/* find: on the lane, before done(), when it was found: returns true to have the medium asked once more, because what
	 * was found may be out of date. NULL: not wanted. */
	bool (*again)(struct kvk_request *request);
	/* remove: on the lane, after done(), when the blocks are free. NULL: not wanted. */
	void (*freed)(struct kvk_request *request);
	int status;                    /* 0 or -errno */
	uint32_t reason;               /* enum kvk_reason */
	enum kvk_outcome outcome;
	uint64_t moved_bytes;          /* logical bytes written or delivered */
	uint32_t bucket;               /* of the account: where its file lies */
	uint64_t published_bytes;      /* length of the file that was given a name, also if it was taken away again */
	/* Of files whose names were taken away, or slots that were erased; remove: valid in freed(). A get and a find of a file
	 * move it aside instead. */
	uint64_t unlinked_bytes;
	struct kvk_facts facts;
	bool dirty;                    /* bytes may have reached data; set while it is touched */
	void *state;                   /* the adapter's */
};

/* Of a pool. */
struct kvk_slots {
	uint64_t slot_bytes;
	uint64_t slots;
	uint64_t free_slots;
	uint64_t longest_free_slots;   /* side by side */
	uint64_t lost_slots;           /* could not be read or erased: not used before the next open */
	uint32_t files;
};

struct kvk_adapter_counts {
	atomic_uint_fast64_t rereads;
	atomic_uint_fast64_t quarantined;
	atomic_uint_fast64_t quarantined_bytes;
	atomic_uint_fast64_t collisions;
	atomic_uint_fast64_t links;
	atomic_uint_fast64_t unverified;
	atomic_uint_fast64_t walked;   /* folders and names that list() and remove_all() came by: they get on as long as it grows */
};

/*
 * Objects that were found and could not be synced, when they were to be durable. They stay: perhaps they were durable long
 * before. But a later sync of them is not believed, since the kernel tells of such an error once and may have dropped what it could
 * not write. What was not asked of the medium (kvk_sync_is_failure()) raises no doubt. stamp: which file, or which writing of its slots.
 */
#define KVK_DOUBTS_MAX 1024u

struct kvk_doubt {
	uint8_t prefix[16];
	uint64_t stamp;
};

struct kvk_doubts {
	pthread_mutex_t lock;
	struct kvk_log_sink log;
	_Atomic uint32_t count;        /* more than there is room for: everything is doubted */
	struct kvk_doubt doubt[KVK_DOUBTS_MAX];
};

/* One object of a list. */
struct kvk_listed {
	const char *name;
	enum kvk_object_state state;
	struct kvk_facts facts;
	uint32_t key_bytes;            /* 0: not known */
	uint8_t key[KVK_KEY_BYTES_MAX];
};

/* Called for each object of a page. Returns whether the page goes on. */
typedef bool kvk_list_visit(void *user, const struct kvk_listed *listed);

/* One file that counts against the cap, as a listing shows it: nothing of its contents is known. */
struct kvk_scanned {
	const char *name;              /* below the root, until visit() returns */
	enum kvk_name_kind kind;       /* KVK_NAME_OBJECT, _TEMP, _GONE; in quarantine KVK_NAME_OTHER */
	uint8_t id[KVK_DIGEST_BYTES];  /* of an object, see kvk_name_id(); else zeros */
	uint64_t bytes;
	uint64_t accessed_ns;
	uint64_t modified_ns;
	uint64_t inode;
	uint32_t links;                /* names that the file has, this one included; 0: not known */
};

/* False ends the scan. */
typedef bool kvk_scan_visit(void *user, const struct kvk_scanned *scanned);

/* The bucket of what was put in quarantine; those before it hold objects. */
#define KVK_SCAN_QUARANTINE 256u

/* One object that the catalog chose. */
struct kvk_evictee {
	uint8_t prefix[16];            /* of its id */
	uint64_t used_at_ns;           /* when it was used last, as far as this process knows */
	/* The answer: 0 removed; -EBUSY kept, others read it at accessed_ns; -ENOENT it was gone; -errno. */
	int status;
	uint64_t accessed_ns;
	uint64_t freed_bytes;          /* of the medium, in whole pages; 0: its name is gone, its blocks are not yet */
};

/* Access times are renewed if they are older than this, so one says no more than that. */
#define KVK_RENEW_NS UINT64_C(60000000000)

/*
 * What an adapter provides. put, get, find and remove are started on a lane, from request->op.start; they call
 * request->done() and, when everything is cleaned up, kvk_op_finish(&request->op).
 */
struct kvk_adapter_ops {
	const char *name;
	void (*put)(struct kvk_request *request);
	void (*get)(struct kvk_request *request);
	void (*find)(struct kvk_request *request);
	void (*remove)(struct kvk_request *request);
	/* What an object of this size costs, for the reservation. */
	uint64_t (*charge)(const struct kvk_request *request, uint64_t logical_bytes);
	/* Visits objects in the order of names, those after `after` (NULL: from the first), on the calling thread,
	 * reading footers. Returns 0, 1 if visit() stopped it, or -errno. */
	int (*list)(struct kvk_adapter *adapter, const char *after, kvk_list_visit *visit, void *user);
	/* Removes every object, and what puts and removes left, on the calling thread. */
	int (*remove_all)(struct kvk_adapter *adapter);
	/* How many parts the scan takes the objects in: 256, by the first byte of their ids, or 1. */
	uint32_t (*buckets)(struct kvk_adapter *adapter);
	/*
	 * Visits what is in a bucket (or KVK_SCAN_QUARANTINE) by name and size, in no order, on the calling thread; several
	 * may scan at a time. What is nobody's of ours is not visited: folders, links, other owners' files, other names.
	 * *modified_ns: the last change before the scan. -EAGAIN: something came or went meanwhile; everything else was visited.
	 */
	int (*scan)(struct kvk_adapter *adapter, uint32_t bucket, kvk_scan_visit *visit, void *user,
		    uint64_t *modified_ns);
	/* When something in a bucket last came or went, and a stamp that is another whenever that may have happened. NULL:
	 * nobody else changes this medium. */
	int (*bucket_time)(struct kvk_adapter *adapter, uint32_t bucket, uint64_t *modified_ns, uint64_t *stamp);
	/* Reads one object's footer, without making it look used. -ENOENT; -ENOMEM, -EMFILE, -ENFILE. */
	int (*inspect)(struct kvk_adapter *adapter, const char *name, struct kvk_listed *listed);
	/*
	 * Removes objects of one bucket that nobody has read since they were chosen, on the calling thread, with one listing of the
	 * bucket. -errno: it ended early; statuses say what was done, -ENOENT also where nothing was.
	 */
	int (*evict)(struct kvk_adapter *adapter, uint32_t bucket, struct kvk_evictee *evictees, uint32_t count);
	/* How full it is. NULL: it has no slots. */
	void (*slots)(struct kvk_adapter *adapter, struct kvk_slots *ret);
	/* With slots: whether so many bytes would lie side by side if all went of which may_go() says so. What is being written or
	 * removed stays where it is. may_go() is called on this thread, without a lock, once for each object. */
	bool (*could_fit)(struct kvk_adapter *adapter, uint64_t bytes,
			  bool (*may_go)(void *user, const uint8_t prefix[16]), void *user);
	void (*close)(struct kvk_adapter *adapter);
};

struct kvk_adapter {
	const struct kvk_adapter_ops *ops;
	const struct kvk_proof_rules *proof_rules;
	struct kvk_backend *backend;
	uint64_t charge_max_bytes;     /* what costs more never fits, however empty the store; 0: nothing is too large */
	struct kvk_adapter_counts counts;
	struct kvk_doubts doubts;
};

struct kvk_adapter_options {
	struct kvk_backend *backend;   /* not owned */
	struct kvk_layout layout;
	enum kvk_durability durability;
	const uint8_t *namespace_digest;
	uint64_t writer_id;
	uint64_t adopted_ns;           /* unverified files must be older */
	bool accept_unverified;
	uint64_t quarantine_bytes;     /* may hold so much */
	const struct kvk_log_sink *log;
	/* Around moving a file from a bucket to quarantine; the end tells how long it is, 0 if it stayed, and how long another's is that
	 * was moved by mistake and unlinked, since its name was given anew. */
	uint32_t (*aside_begin)(void *user);
	/* The key of what evict() removed, where its footer tells; NULL: nobody wants to know, and no footer is read. */
	void (*evicted)(void *user, const void *key, uint32_t key_bytes);
	void (*aside_end)(void *user, uint32_t begun, uint32_t bucket, uint64_t bytes, uint64_t stray_bytes);
	void *user;
	/* For a pool: */
	const struct kvk_pool_shape *pool;
	const char *device;            /* the path of a block device; NULL: files below the root */
};

/* pool/pool.c: slots of files, or of a device. Reads all footers. The lock KVK_LOCK_POOL is held. */
int kvk_pool_open(struct kvk_adapter **ret, const struct kvk_adapter_options *options, struct kvk_error *error);

/* dynamic/dynamic.c: a file per key. -ENOMEM. */
int kvk_dynamic_open(struct kvk_adapter **ret, const struct kvk_adapter_options *options);

/* ---- request.c ---------------------------------------------------------------------------------- */

/* Answers: sets status and reason and calls done(). */
void kvk_request_done(struct kvk_request *request, int status, uint32_t reason);

/* The reason that goes with an errno of the medium. */
uint32_t kvk_reason_of(int status);

/* The caller's memory comes in fragments: fills all of them. */
void kvk_memory_fill(const struct iovec *to, uint32_t count, uint8_t byte);

/* ---- doubts.c ----------------------------------------------------------------------------------- */

/* log may be NULL. */
void kvk_doubts_init(struct kvk_doubts *doubts, const struct kvk_log_sink *log);
void kvk_doubts_release(struct kvk_doubts *doubts);
void kvk_doubts_add(struct kvk_doubts *doubts, const uint8_t digest[KVK_DIGEST_BYTES], uint64_t stamp);
bool kvk_doubts_has(struct kvk_doubts *doubts, const uint8_t digest[KVK_DIGEST_BYTES], uint64_t stamp);

/* ---- walk.c ------------------------------------------------------------------------------------- */

/* READ or WRITE on the calling thread, to the end. -ENODATA: the place ends before. */
int kvk_adapter_move(struct kvk_adapter *adapter, enum kvk_xfer_op op, struct kvk_place *place, uint64_t offset_bytes,
		     void *data, uint64_t bytes);
/* What a whole footer tells of its object. What its file tells (stored_bytes, inode, durable) stays as it was. */
void kvk_facts_take(struct kvk_facts *facts, const struct kvk_footer *footer, const uint8_t digest[KVK_DIGEST_BYTES]);
/* The same for a list, with key and state. */
void kvk_listed_take(struct kvk_listed *listed, const struct kvk_footer *footer, const uint8_t digest[KVK_DIGEST_BYTES],
		     const uint8_t own_namespace_digest[KVK_DIGEST_BYTES]);

/* ---- beside the objects: superblock.c, namespaces.c --------------------------------------------- */

/* What the opener wants of the superblock; members that were not said are taken from what is there. */
struct kvk_superblock_wish {
	struct kvk_superblock values;
	bool says_naming, says_levels, says_cap, says_durability, says_persist, says_group;
	bool says_type;                /* whether it is a pool: values.pool.slot_bytes > 0 */
	bool says_slot_bytes, says_slots, says_file_slots;     /* of values.pool */
	bool create;
	bool visitor;                  /* of a store that is there: what may change stays, whatever values say of it */
};

/*
 * Reads the superblock, or makes it, and holds the store. Naming and layout must agree; cap, durability and persist are
 * changed if nobody else has the store open, and must agree otherwise; a visitor changes none of them. On success *ret holds what is in force, and
 * *made_ret tells whether there was none.
 * -ENOENT, -EPROTO, -EINVAL, -EBUSY with *error filled.
 */
int kvk_superblock_settle(struct kvk_superblock *ret, bool *made_ret, struct kvk_backend *backend,
			  const struct kvk_superblock_wish *wish, struct kvk_error *error);
/* While others may have the store open: they learn of it from the account. */
int kvk_superblock_set_cap(struct kvk_backend *backend, uint64_t cap_bytes);

/* Keeps the manifest, once; what is there already must be the same text. */
int kvk_namespace_keep(struct kvk_backend *backend, const uint8_t digest[KVK_DIGEST_BYTES],
		       const char *canonical, struct kvk_error *error);
/* *ret is freed with kvk_mem_free(). -ENOENT. -EBADMSG: what is there has another digest. */
int kvk_namespace_load(struct kvk_backend *backend, const uint8_t digest[KVK_DIGEST_BYTES], char **ret);
int kvk_namespace_list(struct kvk_backend *backend, uint8_t *digests, uint32_t count);

#endif
