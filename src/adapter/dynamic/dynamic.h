/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the dynamic adapter (a file per key) share. */
#ifndef KVK_ADAPTER_DYNAMIC_DYNAMIC_H
#define KVK_ADAPTER_DYNAMIC_DYNAMIC_H

#include <errno.h>
#include <pthread.h>

#include "adapter/adapter.h"
#include "adapter/proof.h"
#include "util/log.h"

struct kvk_dynamic {
	struct kvk_adapter base;
	struct kvk_layout layout;
	enum kvk_durability durability;
	uint8_t namespace_digest[KVK_DIGEST_BYTES];
	uint64_t writer_id;
	uint64_t adopted_ns;
	bool accept_unverified;
	struct kvk_log_sink log;
	uint32_t (*aside_begin)(void *user);
	void (*aside_end)(void *user, uint32_t begun, uint32_t bucket, uint64_t bytes, uint64_t stray_bytes);
	void (*evicted)(void *user, const void *key, uint32_t key_bytes);
	void *user;                            /* of the three above */
	atomic_uint_fast64_t sequence;         /* of .gone and temporary names */
	pthread_mutex_t quarantine_lock;       /* guards what follows */
	uint64_t quarantine_limit_bytes;
	uint64_t quarantine_bytes;
	uint64_t quarantine_minute;            /* of the monotonic clock */
	uint32_t quarantine_count;             /* in that minute */
};

static inline struct kvk_dynamic *kvk_dynamic_of(struct kvk_request *request)
{
	return kvk_container_of(request->adapter, struct kvk_dynamic, base);
}

/* The path of the request's object; false and request->status, reason set if it can have none. */
bool kvk_dynamic_name(struct kvk_request *request, char name[KVK_NAME_BYTES_MAX]);
/* Whether the object that the footer is of would itself have this path. */
bool kvk_dynamic_is_named(const struct kvk_dynamic *dynamic, const char *name, const struct kvk_footer *footer,
			  const uint8_t digest[KVK_DIGEST_BYTES]);

extern const struct kvk_proof_rules kvk_dynamic_proof_rules;      /* open.c */

void kvk_dynamic_put(struct kvk_request *request);
void kvk_dynamic_get(struct kvk_request *request);
void kvk_dynamic_find(struct kvk_request *request);
void kvk_dynamic_remove(struct kvk_request *request);
int kvk_dynamic_list(struct kvk_adapter *adapter, const char *after, kvk_list_visit *visit, void *user);
int kvk_dynamic_remove_all(struct kvk_adapter *adapter);

/* The names of the folders that objects lie in, sorted, below the folder prefix, with levels of them to go. */
int kvk_dynamic_folders(struct kvk_dynamic *dynamic, const char *prefix, uint32_t levels, struct kvk_names *folders);
int kvk_dynamic_inspect(struct kvk_adapter *adapter, const char *name, struct kvk_listed *listed);

/* Nothing was ever stored there, or somebody put something else in the folder's place. */
static inline bool kvk_dynamic_is_no_folder(int err)
{
	return err == -ENOENT || err == -ENOTDIR || err == -ELOOP || err == -EXDEV;
}

/* How often a name for what leaves is looked for: former runs left some, and all that they left is swept. */
#define KVK_DYNAMIC_GONE_TRIES 1000

/* ---- scan.c, evict.c ---------------------------------------------------------------------------- */

uint32_t kvk_dynamic_buckets(struct kvk_adapter *adapter);
int kvk_dynamic_scan(struct kvk_adapter *adapter, uint32_t bucket, kvk_scan_visit *visit, void *user,
		     uint64_t *modified_ns);
int kvk_dynamic_bucket_time(struct kvk_adapter *adapter, uint32_t bucket, uint64_t *modified_ns, uint64_t *stamp);
int kvk_dynamic_evict(struct kvk_adapter *adapter, uint32_t bucket, struct kvk_evictee *evictees, uint32_t count);

/* ---- take.c ------------------------------------------------------------------------------------- */

/*
 * Takes name away from the file that has the inode, which somebody holds open, and moves it to target. done is called on the
 * lane when that is over. One request at a time may use one of these.
 */
struct kvk_take {
	struct kvk_request *request;
	const char *name;
	const char *target;            /* a name that nobody else gives, in a folder of the store's own or in the same one */
	uint64_t inode;
	bool unlink;                   /* and unlinks it */
	void (*done)(struct kvk_take *take);
	/* 0: it is taken, and unlinked if that was asked for. -ENOENT: nothing had the name. -EEXIST: another file has it and
	 * keeps it, or something is in the way of the target. Else what failed. */
	int status;
	uint64_t stray_bytes;          /* length of another file that was unlinked, since the name was given anew when it went back */
	/* Private: */
	struct kvk_xfer xfer;
	enum kvk_take_step { TAKE_MOVE, TAKE_LOOK, TAKE_UNLINK, TAKE_BACK, TAKE_DROP } step;
	uint64_t out_bytes;            /* length of what was moved */
};

void kvk_take_start(struct kvk_take *take);

/* ---- quarantine.c ------------------------------------------------------------------------------- */

/*
 * Moves what failed its own proof aside: name, if it is still the inode that was judged. done is called on the lane
 * when that is over; request->keep is set if it was not moved. One request at a time may use one of these.
 */
struct kvk_aside {
	struct kvk_request *request;
	const char *name;
	uint64_t inode;
	uint64_t bytes;
	void (*done)(struct kvk_aside *aside);
	/* Private: */
	struct kvk_take take;
	char target[KVK_NAME_BYTES_MAX];
	uint32_t begun;                /* of aside_begin() */
};

void kvk_aside_start(struct kvk_aside *aside);

#endif
