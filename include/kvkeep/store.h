/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A store keeps immutable objects under keys on one medium below memory.
 *
 * Errors:  0 or a positive count is success, a negative value is -errno.
 * Threads: any thread may call these functions at any time before kvk_store_close() is called.
 * Fork:    a store belongs to the process that opened it. In a child every call returns -ECHILD;
 *          kvk_store_close() there frees memory and descriptors and touches nothing else.
 * Structs: the first member of a struct is its size where the caller was built, so that later versions can
 *          append members. In an array every element carries it, and it is the distance between elements.
 * Times:   microseconds. A deadline counts from the call; 0 means the store's own (`deadline_ms`, 30 s).
 */
#ifndef KVKEEP_STORE_H
#define KVKEEP_STORE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include <kvkeep/export.h>
#include <kvkeep/key.h>

#ifdef __cplusplus
extern "C" {
#endif

struct kvk_store;

/** An object is at most this long (4 GiB). */
#define KVK_OBJECT_BYTES_MAX (UINT64_C(4) << 30)
/** The caller's metadata of an object is at most this long. */
#define KVK_META_BYTES_MAX 256
/** A batch has at most this many items. */
#define KVK_BATCH_ITEMS_MAX 65536

/* ---- opening and closing ------------------------------------------------------------------------ */

/** Where opening went wrong, in words for the person who wrote the configuration. */
struct kvk_error {
	uint32_t struct_bytes;     /* sizeof(struct kvk_error) where the caller was built */
	int code;                  /* -errno */
	char option[64];           /* "backend_params.file_path"; empty if no option is to blame */
	char text[448];
};

enum kvk_log_level {
	KVK_LOG_ERROR = 0,
	KVK_LOG_WARNING = 1,
	KVK_LOG_INFO = 2,
	KVK_LOG_DEBUG = 3,
};

enum kvk_event_kind {
	KVK_EVENT_STORED = 1,      /* published by this process */
	KVK_EVENT_ACCESSED = 2,    /* a get or a lookup with KVK_LOOKUP_PIN found it */
	KVK_EVENT_DELETED = 3,     /* removed, evicted, or found damaged and moved aside */
};

/** Keys to which the same thing happened. Valid only during the callback. */
struct kvk_event {
	uint32_t struct_bytes;
	uint32_t kind;             /* enum kvk_event_kind */
	uint32_t count;
	const struct kvk_key *keys;
};

/**
 * What the store calls. Both are called on one thread of the store's own, without any lock held, one
 * after the other, and may call anything but kvk_store_close(). A slow callback delays only the next one:
 * past 65,536 waiting keys or 4,096 waiting lines new ones are dropped and counted (`notices_dropped`).
 * Texts never contain keys, salts or contents; an object is named by the first 8 digits of its digest.
 */
struct kvk_hooks {
	uint32_t struct_bytes;
	void *user;
	void (*log)(void *user, int level, const char *text);             /* NULL: no log */
	void (*event)(void *user, const struct kvk_event *event);         /* NULL: no listener */
};

/**
 * Opens the store that spec describes (JSON, see kvkeep(7)) and adopts what earlier runs published.
 *
 * hooks may be NULL and is copied. On success the caller owns *ret and ends it with kvk_store_close(); on
 * failure *ret is untouched and *error, if given, says why.
 * -EINVAL: bad option. -ENOENT: no store there, and "create" is false. -EPROTO: written by a newer format.
 * -EPERM: the directory is not safe to use (owner or mode). -EBUSY: open elsewhere with other settings.
 */
KVK_API int kvk_store_open(struct kvk_store **ret, const char *spec, const struct kvk_hooks *hooks,
			   struct kvk_error *error);

/**
 * Ends a store: cancels what is under way, answers it nowhere, removes all objects if its specification says
 * `persist_enabled` false and no other process has the store open. NULL is fine. No other call may run or follow.
 * It waits at most half a minute for a medium that hangs; what was left to do is done when the medium goes on.
 *
 * After it returned 0, nothing touches any caller's memory. -ETIMEDOUT: the medium hangs and still holds
 * memory that was given with KVK_MEM_HELD or kvk_store_register(); that memory must not be freed or reused.
 */
KVK_API int kvk_store_close(struct kvk_store *store);

/**
 * Prepares memory for direct transfers: it is locked and known to the kernel until it is unregistered, where
 * the limit on locked memory allows; otherwise transfers go the plain way and 0 is returned all the same.
 * base and bytes are multiples of 4,096. -EINVAL: they are not, or overlap a registered range. The memory
 * stays the caller's and must stay mapped until kvk_store_unregister() or kvk_store_close().
 */
KVK_API int kvk_store_register(struct kvk_store *store, void *base, uint64_t bytes);

/** Ends a registration made with exactly this base. -ENOENT: none. -EBUSY: it is ended, but a
 *  lane hangs in the medium and may still use it. Transfers under way keep what they need. */
KVK_API int kvk_store_unregister(struct kvk_store *store, void *base);

/* ---- results ------------------------------------------------------------------------------------ */

/** Results come in three queues, each with an event descriptor of its own. */
enum kvk_queue {
	KVK_QUEUE_PUT = 0,         /* put, remove */
	KVK_QUEUE_LOOKUP = 1,      /* lookup, unpin */
	KVK_QUEUE_GET = 2,         /* get */
};
#define KVK_QUEUE_COUNT 3

enum kvk_reason {
	KVK_REASON_NONE = 0,
	KVK_REASON_ABSENT = 1,     /* -ENOENT: no such object */
	KVK_REASON_DAMAGED = 2,    /* -EBADMSG: what lies there fails its own proof; it was moved aside */
	KVK_REASON_BUSY = 3,       /* put -EALREADY, others -ENOENT: another request is writing or removing it */
	KVK_REASON_DEADLINE = 4,   /* -ETIMEDOUT */
	KVK_REASON_NO_ROOM = 5,    /* -ENOSPC: the cap, or the medium, is full */
	KVK_REASON_COLLISION = 6,  /* put -EEXIST, others -ENOENT: another key or namespace owns the name */
	KVK_REASON_NOT_DURABLE = 7,/* -EIO: it could not be made as durable as asked, and is not acknowledged */
	KVK_REASON_PRESENT = 8,    /* put, status 0: it was there already, nothing was written */
	KVK_REASON_CANCELED = 9,   /* -ECANCELED */
	KVK_REASON_ARGUMENT = 10,  /* -EINVAL, -EMSGSIZE (buffer shorter than the object), -ENAMETOOLONG */
	KVK_REASON_MEDIUM = 11,    /* -EIO and other errors of the medium */
	KVK_REASON_PINNED = 12,    /* remove -EBUSY */
	KVK_REASON_DEGRADED = 13,  /* -EIO at once: the medium hangs or fails, nothing is tried for now */
	KVK_REASON_NO_MEMORY = 14, /* -ENOMEM, -EMFILE, -ENFILE: this process or machine is out of something */
	KVK_REASON_FOREIGN = 15,   /* -ENOENT: present, but of another owner or not verifiable */
	KVK_REASON_SCANNING = 16,  /* put -EAGAIN: the account was lost and is being counted anew; later */
};

/** Returns a word for a reason, such as "no room"; "unknown" for others. The text is static. */
KVK_API const char *kvk_reason_text(uint32_t reason);

enum kvk_result_flags {
	KVK_RESULT_LAST = 1u << 0,     /* the task's last item: no item of it follows */
	KVK_RESULT_HELD = 1u << 1,     /* the item's memory is still in the kernel's hands: a release follows */
	KVK_RESULT_RELEASE = 1u << 2,  /* no answer but the release itself: the memory is the caller's again */
};

/** The answer to one item. */
struct kvk_result {
	uint32_t struct_bytes;
	uint32_t item;             /* its index in the batch */
	int64_t task;
	uint64_t user;             /* what the item said */
	int32_t status;            /* 0 or -errno */
	uint32_t reason;           /* enum kvk_reason */
	uint32_t flags;            /* enum kvk_result_flags */
	uint32_t meta_bytes;       /* get, lookup: the metadata's full length */
	uint64_t bytes;            /* put: logical bytes written; get: bytes delivered; lookup: as object_bytes */
	uint64_t object_bytes;     /* the object's logical length, where it is known */
};

/**
 * Returns the descriptor that is readable (level-triggered) while the queue has results. It belongs to
 * the store: poll it, never read or close it.
 */
KVK_API int kvk_store_event_fd(struct kvk_store *store, enum kvk_queue queue);

/**
 * Takes up to count finished results off a queue, oldest first, and returns their number; 0 if there are
 * none. Never waits. Set results[i].struct_bytes of each first. Each result is handed out once.
 */
KVK_API int kvk_store_drain(struct kvk_store *store, enum kvk_queue queue, struct kvk_result *results,
			    uint32_t count);

/** Waits up to wait_us for a result in the queue. 1: there is one. 0: none came. */
KVK_API int kvk_store_wait(struct kvk_store *store, enum kvk_queue queue, uint64_t wait_us);

/**
 * Cancels a task: items that are not done yet are answered with -ECANCELED, soon and exactly once. What
 * was done stays done. -ENOENT: no such task under way.
 */
KVK_API int kvk_store_cancel(struct kvk_store *store, int64_t task);

/* ---- requests ----------------------------------------------------------------------------------- */

enum kvk_item_flags {
	/**
	 * put, get: the pieces of data may stay in the kernel's hands after the item was answered (after a
	 * deadline or a cancel on a hung medium), until a result with KVK_RESULT_RELEASE comes. In return transfers
	 * go straight between the medium and data, without a copy, where its alignment allows.
	 */
	KVK_MEM_HELD = 1u << 0,
	/** lookup: pin what is found. A pin keeps this process from removing the object. It is on the key until unpin, whatever
	 * becomes of the object: of one that others removed, too, and on what is put or found under the key then. */
	KVK_LOOKUP_PIN = 1u << 1,
	/** get: only look. Does not renew the object, moves nothing aside, reports what is damaged. */
	KVK_GET_PEEK = 1u << 2,
	/** get: read and check everything, deliver nothing; data is ignored. */
	KVK_GET_VERIFY = 1u << 3,
	/** get, lookup, remove: the key bytes are the object's 32-byte digest (from kvk_list_entry), not its key. Only
	 *  in stores with kvkeep's own naming, where the name follows from the digest. */
	KVK_KEY_IS_DIGEST = 1u << 4,
	/** get with KVK_GET_PEEK, remove: the key bytes are the object's name (kvk_list_entry.name). get: the object is
	 *  proven against the key that it names itself. remove: it goes whatever it holds, of any namespace; listeners
	 *  do not hear of it, for its key was not read. */
	KVK_KEY_IS_NAME = 1u << 5,
};

/** One object of a put. Keys and metadata are copied; data stays the caller's, unchanged, until the item was
 *  answered (with KVK_RESULT_HELD: until its release). */
struct kvk_put_item {
	uint32_t struct_bytes;
	uint32_t flags;                /* KVK_MEM_HELD */
	struct kvk_key key;
	struct kvk_key parent;         /* the key before it in its prefix; bytes == 0: not known */
	const struct iovec *data;      /* pieces, in order; the array is copied */
	uint32_t data_count;
	uint32_t depth;                /* position in its prefix, 0 for the first or if not known */
	const void *meta;              /* up to KVK_META_BYTES_MAX bytes, returned by get and lookup */
	uint32_t meta_bytes;
	uint32_t reserved;             /* 0 */
	uint64_t user;                 /* returned with the result */
};

/** One object of a get. The key is copied; data and meta stay the caller's until the item was answered. */
struct kvk_get_item {
	uint32_t struct_bytes;
	uint32_t flags;                /* KVK_MEM_HELD, KVK_GET_PEEK, KVK_GET_VERIFY, KVK_KEY_IS_DIGEST */
	struct kvk_key key;
	const struct iovec *data;      /* where to, in order; the array is copied. May be longer than the object */
	uint32_t data_count;
	uint32_t meta_bytes;           /* room at meta */
	void *meta;                    /* where the metadata goes, or NULL */
	uint64_t offset_bytes;         /* the part of the object that is wanted ... */
	uint64_t range_bytes;          /* ... 0: from offset_bytes to its end */
	uint64_t user;
};

/** One key of a lookup, unpin or remove. The key is copied; meta stays the caller's until the answer. */
struct kvk_key_item {
	uint32_t struct_bytes;
	uint32_t flags;                /* lookup: KVK_LOOKUP_PIN, KVK_KEY_IS_DIGEST; remove: KVK_KEY_IS_DIGEST or _NAME */
	struct kvk_key key;
	void *meta;                    /* lookup: where the metadata goes, or NULL; asks the medium */
	uint32_t meta_bytes;
	uint32_t reserved;             /* 0 */
	uint64_t user;
};

/**
 * Submits a batch and returns a task id (positive, never used twice) at once. Each item is answered exactly
 * once, as it is done, in the queue named at enum kvk_queue; batches and items are taken up in order.
 *
 * -EINVAL: an item is malformed (nothing was done). -EAGAIN: too much is under way (`max_items`), nothing was
 * taken; try again after draining. -ENOMEM: likewise. -ESHUTDOWN: the store is being closed.
 *
 * put: a key that is present is answered with 0 and KVK_REASON_PRESENT. An item is stored wholly or not at
 * all; others of its batch are not affected.
 * get: on a failure after bytes had arrived, data is filled with 0xdb; it never holds unproven bytes.
 * lookup: what memory knows is answered before the call returns; the rest asks the medium.
 * unpin: takes one pin off each key; unknown keys and keys without a pin are answered with 0 as well.
 * remove: what is pinned stays (-EBUSY); unknown ones are answered with -ENOENT.
 */
KVK_API int64_t kvk_store_put(struct kvk_store *store, const struct kvk_put_item *items, uint32_t count,
			      uint64_t deadline_us);
KVK_API int64_t kvk_store_get(struct kvk_store *store, const struct kvk_get_item *items, uint32_t count,
			      uint64_t deadline_us);
KVK_API int64_t kvk_store_lookup(struct kvk_store *store, const struct kvk_key_item *items, uint32_t count,
				 uint64_t deadline_us);
KVK_API int64_t kvk_store_unpin(struct kvk_store *store, const struct kvk_key_item *items, uint32_t count);
KVK_API int64_t kvk_store_remove(struct kvk_store *store, const struct kvk_key_item *items, uint32_t count,
				 uint64_t deadline_us);

/**
 * The same, waiting for the answers: results[i] belongs to items[i] (set struct_bytes of each first). Returns 0
 * when every item was answered, whatever the answers, or an error of the submission. Nothing comes into the
 * queues, except a release after a result with KVK_RESULT_HELD.
 */
KVK_API int kvk_store_put_wait(struct kvk_store *store, const struct kvk_put_item *items, uint32_t count,
			       uint64_t deadline_us, struct kvk_result *results);
KVK_API int kvk_store_get_wait(struct kvk_store *store, const struct kvk_get_item *items, uint32_t count,
			       uint64_t deadline_us, struct kvk_result *results);
KVK_API int kvk_store_lookup_wait(struct kvk_store *store, const struct kvk_key_item *items, uint32_t count,
				  uint64_t deadline_us, struct kvk_result *results);
KVK_API int kvk_store_unpin_wait(struct kvk_store *store, const struct kvk_key_item *items, uint32_t count,
				 struct kvk_result *results);
KVK_API int kvk_store_remove_wait(struct kvk_store *store, const struct kvk_key_item *items, uint32_t count,
				  uint64_t deadline_us, struct kvk_result *results);

/* ---- looking at a store ------------------------------------------------------------------------- */

enum kvk_object_state {
	KVK_OBJECT_PRESENT = 1,    /* a valid footer; the payload was not read */
	KVK_OBJECT_DAMAGED = 2,    /* no valid footer, or one that does not belong to this name */
	KVK_OBJECT_UNVERIFIED = 3, /* adopted, without a footer */
	KVK_OBJECT_FOREIGN = 4,    /* of another namespace */
};

/** One object in a list. */
struct kvk_list_entry {
	uint32_t struct_bytes;
	uint32_t state;            /* enum kvk_object_state */
	uint64_t object_bytes;     /* logical length; 0 if not known */
	uint64_t stored_bytes;     /* on the medium, footer and padding included */
	uint64_t created_ns;       /* since 1970; the file's own time if there is no footer; 0: the medium cannot tell */
	uint32_t depth;
	uint32_t pins;             /* in this process */
	uint32_t key_bytes;        /* 0 if not known */
	uint32_t meta_bytes;
	uint8_t digest[32];        /* names the object on the medium. Damaged: zeros; in a pool what it was, in its first 16
				    * bytes, by which it is removed */
	uint8_t parent_digest[32]; /* zeros: none */
	uint8_t namespace_digest[32];
	uint8_t key[KVK_KEY_BYTES_MAX];
	uint8_t meta[KVK_META_BYTES_MAX];
	char name[256];            /* the file's name below its root, for people */
};

/** Which objects to list. Zeros and NULL mean all. */
struct kvk_list_query {
	uint32_t struct_bytes;
	uint32_t reserved;             /* 0 */
	struct kvk_key prefix;         /* key begins with these bytes */
	struct kvk_key model;          /* text-form keys with exactly this model */
	struct kvk_key salt;           /* text-form keys with exactly this salt (tenant) */
	uint64_t created_before_ns;    /* older than this; what has no known age is not */
	const char *cursor;            /* where the page before ended; NULL: from the start */
};

/**
 * Reads one page of at most count entries from the medium, in the stable order of names, and returns their
 * number. *cursor_ret receives the cursor of the next page, to be freed with kvk_free(), or NULL at the end;
 * a page may be shorter than count, even empty, before the end. What is published or removed meanwhile may be in it or not; everything
 * else is in exactly one page. Set entries[i].struct_bytes of each first. Waits for the medium.
 */
KVK_API int kvk_store_list(struct kvk_store *store, const struct kvk_list_query *query,
			   struct kvk_list_entry *entries, uint32_t count, char **cursor_ret);

enum kvk_usage_flags {
	/** used_bytes is what is there. Without it, it may be more: what a process that died had leased counts as used until
	 *  all folders were compared with the account; or less, while a directory that the account did not know is counted. */
	KVK_USAGE_EXACT = 1u << 0,
	KVK_USAGE_KEEPER = 1u << 1,    /* this process is the keeper: it scans, sweeps and evicts for all */
};

/** What the store holds: bytes of all processes together, objects as far as this process knows. */
struct kvk_usage {
	uint32_t struct_bytes;
	uint32_t flags;            /* enum kvk_usage_flags */
	uint64_t used_bytes;       /* charged: payload padded to 4,096, and footer; being removed included */
	uint64_t writing_bytes;    /* reserved by puts under way in this process */
	uint64_t cap_bytes;        /* 0: none */
	uint64_t objects;
	uint64_t pinned_objects;   /* keys with pins of this process */
	uint64_t quarantined_bytes;    /* of used_bytes: moved aside, by whichever process */
	double used_fraction;      /* used_bytes / cap_bytes; -1 without a cap */
	uint64_t leased_bytes;     /* room that processes took ahead and did not use yet: none that would bring it and used_bytes above the cap */
	uint64_t limit_bytes;      /* what puts may use now: the cap, or less where the medium is short; 0: no limit */
	uint64_t medium_free_bytes;    /* free on the medium */
	uint64_t floor_bytes;      /* of which so much is to stay free */
	uint32_t processes;        /* that have the store open */
	uint32_t reserved;
};

KVK_API int kvk_store_usage(struct kvk_store *store, struct kvk_usage *usage);

/**
 * Changes the cap for all processes that have the store open, and for later ones. 0: none. Less than is used: with an
 * eviction policy objects leave in the background until it holds; without one nothing is stored until there is room.
 * -EINVAL: less than 64 KiB. -EBUSY: the account could not be locked within a second.
 */
KVK_API int kvk_store_set_cap(struct kvk_store *store, uint64_t cap_bytes);

/**
 * Evicts the coldest objects by the store's policy until at least `bytes` are given back, waiting for it. Pinned objects
 * stay. *evicted_ret: the bytes given back, less than asked if nothing else may go. -ENOTSUP: the policy is noop.
 */
KVK_API int kvk_store_evict(struct kvk_store *store, uint64_t bytes, uint64_t *evicted_ret);

/**
 * Has everything that is in the store looked at now, also what does not seem to have changed: names, sizes, and footers
 * that were not read yet; brings the account to what is there, and removes what dead processes left. Waits for it, wait_us at
 * most. 0: used_bytes is what was found, but for what others are changing. -EBUSY: another process is the store's keeper and
 * does this for all, or this one was opened not to be it. -ETIMEDOUT: it goes on, and the next call waits for the rest of
 * it; a process that was stopped, and a medium that fails, hold it up.
 */
KVK_API int kvk_store_scan(struct kvk_store *store, uint64_t wait_us);

/**
 * Sets what a tenant (salt) may hold before its objects are evicted first, with the policy IsolatedLRU: for all processes that
 * have the store open, which learn of it within seconds, and for later ones, whatever specifications say. tenant NULL: the
 * default for tenants without one of their own. UINT64_MAX: no quota.
 * -EINVAL: the tenant is not UTF-8. -EBUSY: another process was changing quotas for a second. -EUSERS: too many have one.
 */
KVK_API int kvk_store_set_quota(struct kvk_store *store, const void *tenant, uint32_t tenant_bytes,
				uint64_t quota_bytes);

/** What one tenant (salt) or model holds. */
struct kvk_share {
	uint32_t struct_bytes;
	uint32_t name_bytes;
	uint64_t used_bytes;
	uint64_t objects;
	uint8_t name[256];         /* longer names are cut; keys not in text form count under "" */
	uint64_t quota_bytes;      /* tenants: UINT64_MAX for none */
};

enum kvk_share_by {
	KVK_BY_TENANT = 0,
	KVK_BY_MODEL = 1,
};

/** Writes up to count shares and returns how many there are in all. Set shares[i].struct_bytes first. */
KVK_API int kvk_store_shares(struct kvk_store *store, enum kvk_share_by by, struct kvk_share *shares,
			     uint32_t count);

/** Counters since open. They only grow. */
struct kvk_stats {
	uint32_t struct_bytes;
	uint32_t reserved;
	uint64_t puts, put_stored, put_present, put_no_room, put_failed, put_bytes;
	uint64_t gets, get_hits, get_absent, get_damaged, get_failed, get_bytes, get_unverified;
	uint64_t lookups, lookup_memory_hits, lookup_medium_hits, lookup_absent;
	uint64_t removes, removed;
	uint64_t deadlines;            /* items answered with -ETIMEDOUT */
	uint64_t canceled;
	uint64_t medium_errors;        /* -EIO and the like from the medium, also those made good */
	uint64_t short_transfers;      /* joined */
	uint64_t rereads;              /* loads that were read once more before they were judged */
	uint64_t quarantined;          /* objects moved aside */
	uint64_t collisions;
	uint64_t links;                /* served objects with more than one name */
	uint64_t copied_bytes;         /* through the store's own memory */
	uint64_t straight_bytes;       /* straight between the medium and the caller's memory */
	uint64_t notices_dropped;
	uint64_t evicted, evicted_bytes;
	uint64_t evict_kept;           /* chosen, and kept because another process had read them */
	uint64_t medium_full;          /* ENOSPC or EDQUOT of the medium, in spite of all */
};

KVK_API int kvk_store_stats(struct kvk_store *store, struct kvk_stats *stats);

/**
 * Tells how the store is as a JSON object: "healthy" (bool), "degraded" (why, or null), its settings, what
 * the medium can do and which mechanism is in use, lanes, memory. *ret is freed with kvk_free().
 */
KVK_API int kvk_store_status(struct kvk_store *store, char **ret);

/** Frees what a function of this library allocated for the caller. NULL is fine. */
KVK_API void kvk_free(void *memory);

/* ---- namespaces --------------------------------------------------------------------------------- */

/**
 * Writes the namespace manifest with this digest as canonical JSON to *ret (to be freed with kvk_free()).
 * digest NULL: the one this store was opened with. -ENOENT: no such manifest here.
 */
KVK_API int kvk_store_namespace(struct kvk_store *store, const uint8_t *digest, char **ret);

/**
 * Lists the digests of the manifests kept on the medium: up to count of them at digests (32 bytes each); returns how
 * many there are.
 */
KVK_API int kvk_store_namespaces(struct kvk_store *store, uint8_t *digests, uint32_t count);

#ifdef __cplusplus
}
#endif

#endif
