/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How bytes reach one medium. A backend knows names below a root, places (open files) and bytes; it knows no
 * keys, no objects, no capacity.
 *
 * The same operations can be carried out in two ways: run() does one on the calling thread and returns when it
 * is over; a ring takes many and reports them as they end. Who calls which is the agent's business, and no
 * behaviour depends on it.
 */
#ifndef KVK_BACKEND_BACKEND_H
#define KVK_BACKEND_BACKEND_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include <kvkeep/store.h>

#include "backend/syncs.h"
#include "util/list.h"
#include "util/log.h"

struct kvk_backend;
struct kvk_place;              /* an open file; belongs to the backend that made it */
struct kvk_ring;

enum kvk_xfer_op {
	/* name -> place, stat. A regular file below the root, through no symbolic link. -ENOENT; -ELOOP, -EXDEV,
	 * -EISDIR, -EINVAL: something that is no object of ours lies there. KVK_XFER_IF_CACHED: -EAGAIN if it would wait. */
	KVK_XFER_OPEN = 0,
	/* name -> place: a new file that nobody sees yet and that can be published under name. Makes missing folders.
	 * KVK_XFER_IF_ABSENT: -EEXIST if something has that name already. */
	KVK_XFER_CREATE,
	/* place, offset, iov -> bytes moved; may be fewer than asked. KVK_XFER_NOWAIT: -EAGAIN, or fewer, if it would wait. */
	KVK_XFER_READ,
	KVK_XFER_WRITE,
	/* place, offset = length in bytes: allocates blocks ahead of writing. An error is harmless. */
	KVK_XFER_RESERVE,
	/* place: data and length are on the medium. */
	KVK_XFER_SYNC,
	/* place -> stat */
	KVK_XFER_STAT,
	/* place, name: it has that name now. -EEXIST: something else has it. name is the one given to CREATE, or in
	 * the same folder. After it the place is only good for STAT and CLOSE. */
	KVK_XFER_PUBLISH,
	/* name -> name2, without replacing: -EEXIST. To a temporary name only of this backend's own writer. */
	KVK_XFER_MOVE,
	/* The two names change places. -EINVAL, -ENOSYS, -EOPNOTSUPP: this medium cannot. */
	KVK_XFER_EXCHANGE,
	KVK_XFER_UNLINK,               /* name */
	KVK_XFER_SYNC_FOLDER,          /* name: its folder, and those above that this process made, are on the medium */
	KVK_XFER_SYNC_ALL,             /* everything written so far is on the medium */
	KVK_XFER_CLOSE,                /* place. One that was not published vanishes. Never fails for the caller. */
	KVK_XFER_STAT_NAME,            /* name -> stat, without opening */
	/* place: its access time is now; its modification time stays. -EPERM: it is another owner's. */
	KVK_XFER_TOUCH,
	KVK_XFER_OP_COUNT
};

enum kvk_xfer_flags {
	KVK_XFER_IF_CACHED = 1u << 0,  /* OPEN */
	KVK_XFER_NOWAIT = 1u << 1,     /* READ through run() only */
	KVK_XFER_BUFFERED = 1u << 2,   /* OPEN: through the page cache, also where direct I/O is in use */
	KVK_XFER_IF_ABSENT = 1u << 4,  /* CREATE */
	KVK_XFER_QUIET = 1u << 5,      /* OPEN through run() only: reading leaves the access time as it is */
	KVK_XFER_WRITABLE = 1u << 6,   /* OPEN through run() only: for WRITE, RESERVE and SYNC as well */
	/* OPEN through run() only: name is the path of a block device, which nobody else may have open like this (-EBUSY),
	 * nor mounted; at most one a backend. -ENOTBLK: it is none. -EOPNOTSUPP: this medium has no devices. */
	KVK_XFER_DEVICE = 1u << 7,
};

struct kvk_stat {
	uint64_t bytes;
	uint64_t inode;
	uint64_t device;
	uint64_t born_ns;              /* 0: not known */
	uint64_t modified_ns;
	uint64_t accessed_ns;
	uint32_t links;
	uint32_t owner;                /* uid */
	bool regular;
	bool owned;                    /* by the store's uid */
};

/*
 * One transfer or step. Whoever made it owns it and keeps it, its names and its iov until done; nobody else touches
 * it meanwhile. result: bytes moved, 0, or -errno.
 */
struct kvk_xfer {
	struct kvk_link link;          /* of whoever holds it at the time */
	enum kvk_xfer_op op;
	uint32_t flags;
	struct kvk_place *place;       /* in, or out of OPEN and CREATE */
	const char *name;
	const char *name2;
	struct iovec *iov;
	uint32_t iov_count;            /* at most KVK_XFER_IOVS */
	int32_t memory_index;          /* READ, WRITE: the ring memory that the single iov lies in, or -1 */
	uint64_t offset_bytes;
	int64_t result;
	struct kvk_stat stat;
	void (*done)(struct kvk_xfer *xfer);   /* the agent calls it, on the lane, when result is final */
	/* The agent's: */
	struct kvk_lane *lane;
	struct kvk_op *owner;
	struct kvk_link owner_link;    /* among its owner's transfers in flight */
	uint64_t moved_bytes;
	bool waiting;                  /* in the workers' queue, not taken up yet */
	bool settled;                  /* result is final: short transfers are joined */
	bool canceled;                 /* nobody waits for the result. Apart from flags, which a worker may be reading */
	bool believed;                 /* a sync: those that were under way with it are over, too */
	struct kvk_sync sync;          /* of a sync */
	uint64_t ring_data;            /* the ring's own */
};

#define KVK_XFER_IOVS 16

/* What the bytes of `.kvkeep/locks` mean. 0 to 255 are the rows of the account, those from 2^62 on writers of temporary files. */
enum {
	KVK_LOCK_HOLD = 4096,          /* hold() */
	KVK_LOCK_ACCOUNT = 4097,       /* while the file KVK_FILE_ACCOUNT is loaded or updated */
	KVK_LOCK_KEEPER = 4098,
	KVK_LOCK_POOL = 4099,          /* the one process that a pool belongs to */
	KVK_LOCK_QUOTAS = 4100,        /* while the file of quotas is changed */
	KVK_LOCK_NEWS = 4101,          /* while news are posted */
	KVK_LOCK_END                   /* behind the last of those that have names */
};

/* With many hosts this file is locked with its byte: what a process that died was about to write into it is never seen after
 * the lock was given to another. */
#define KVK_FILE_ACCOUNT "account"

/* What a medium has; 0 inodes in all: it does not count them. Free is what this user may have. */
struct kvk_space {
	uint64_t free_bytes;
	uint64_t total_bytes;
	uint64_t free_inodes;
	uint64_t total_inodes;
};

/* What a real trial at open found. */
struct kvk_backend_caps {
	char medium[32];               /* "ext4", "xfs", "tmpfs", "ram", ... */
	uint32_t align_memory_bytes;   /* of addresses, for direct transfers; 1: any */
	uint32_t align_offset_bytes;   /* of offsets and lengths; 1: any */
	bool direct;                   /* places from OPEN and CREATE bypass the page cache */
	bool nowait;                   /* KVK_XFER_NOWAIT works */
	bool exchange;
	bool birth_time;
	bool local;                    /* known to be a file system of this machine alone */
	bool many_hosts;               /* as asked for */
	bool discard;                  /* unlinking may be slow: blocks are discarded at once */
	char publish[40];              /* which way of publishing: "linkat procfd", ... */
	char direct_note[160];         /* why not direct although asked for; empty if nothing to say */
	char ring_note[160];           /* why there is no ring; empty if there is one */
};

/* Names in a folder. */
struct kvk_names {
	char **names;
	uint32_t count;
	uint32_t room;
};

/* How a folder is listed with what the medium says of its files. Both are called on the calling thread. */
struct kvk_listing {
	bool (*wanted)(void *user, const char *name);          /* false: it is passed over, and costs nothing more */
	bool (*visit)(void *user, const char *name, const struct kvk_stat *stat);   /* false ends the listing */
	void *user;
};

struct kvk_backend_options {
	const char *path;              /* the root; NULL where the medium has none */
	bool direct;                   /* asked for; caps tell what came of it */
	bool create;
	bool group;                    /* 0770/0660 instead of 0700/0600 */
	bool shared;                   /* a file system that is not known to be local is fine */
	bool many_hosts;               /* processes of other machines use the same root: see now() and folder_time() */
	bool ring;                     /* a ring is wanted; if it cannot be had, caps.ring_note says why */
	uint64_t writer_id;            /* random, for temporary names */
	const struct kvk_log_sink *log;
};

/*
 * How a lane has transfers carried out without waiting for each. All but wake() are called by the ring's own
 * thread (which also opened it).
 */
struct kvk_ring_ops {
	/* memory_slots: how many memories may be known at a time. -errno: not to be had. */
	int (*open)(struct kvk_ring **ret, struct kvk_backend *backend, uint32_t depth, uint32_t memory_slots);
	/* Called with nothing in flight. */
	void (*close)(struct kvk_ring *ring);
	/* 0: taken. -EAGAIN: full, xfer untouched, turn() first. -EOPNOTSUPP: this op goes through run(). */
	int (*put)(struct kvk_ring *ring, struct kvk_xfer *xfer);
	/* Hands what was put to the medium in one go, waits up to wait_us (0: not at all) for something to end or a
	 * wake(), and appends what ended to *finished, in any order. */
	void (*turn)(struct kvk_ring *ring, struct kvk_link *finished, uint64_t wait_us);
	/* Ends a turn() that waits. Any thread. */
	void (*wake)(struct kvk_ring *ring);
	/* Asks for xfer to end early; it still ends through turn(), or never. */
	void (*cancel)(struct kvk_ring *ring, struct kvk_xfer *xfer);
	/* Makes memory known under slot, or (base NULL) forgets it. -errno: use it the plain way. */
	int (*set_memory)(struct kvk_ring *ring, uint32_t slot, void *base, uint64_t bytes);
};

/* What a backend provides. All but open() and close() may be called by several threads at a time. */
struct kvk_backend_ops {
	const char *name;              /* "posix", "ram", "fault" */
	/* error may be NULL. On failure *ret is untouched. */
	int (*open)(struct kvk_backend **ret, const struct kvk_backend_options *options, struct kvk_error *error);
	/* Called with no place open and nothing under way. */
	void (*close)(struct kvk_backend *backend);
	/* Carries xfer out on this thread and sets xfer->result. */
	void (*run)(struct kvk_backend *backend, struct kvk_xfer *xfer);
	/* NULL: no rings; every op goes through run(), which never waits for long. */
	const struct kvk_ring_ops *ring;
	/*
	 * Small files beside the objects; names are relative to `.kvkeep/`. load: the whole file, *data_ret freed with kvk_mem_free();
	 * -ENOENT, -EFBIG (over max_bytes). save: written aside, synced, then renamed over; with keep an
	 * existing one stays (-EEXIST).
	 */
	int (*load_file)(struct kvk_backend *backend, const char *name, void **data_ret, uint64_t *bytes_ret,
			 uint64_t max_bytes);
	int (*save_file)(struct kvk_backend *backend, const char *name, const void *data, uint64_t bytes, bool keep);
	/*
	 * Overwrites a part of such a file in place, and makes the file if it is missing. 0: it is on the medium. Otherwise
	 * the part may be old, new or torn, and now one and after a power cut another.
	 */
	int (*update_file)(struct kvk_backend *backend, const char *name, uint64_t offset_bytes, const void *data,
			   uint64_t bytes);
	/* Appends the names in a folder ("" is the root) in no order, "." and ".." excepted. -ENOENT. */
	int (*list)(struct kvk_backend *backend, const char *folder, struct kvk_names *names);
	/*
	 * The same with the stat of each name that is wanted, without opening it and of a link itself; born_ns may be 0, since
	 * a file system keeps it apart from the rest. What goes away meanwhile is passed over. *modified_ns: when a name in
	 * the folder last came or went, before it was read. -EAGAIN: names came or went meanwhile, and may have been
	 * visited or not. -ENOENT.
	 */
	int (*list_stat)(struct kvk_backend *backend, const char *folder, const struct kvk_listing *listing,
			 uint64_t *modified_ns);
	/* When a name in that folder ("" is the root) last came or went, as the medium says now, not a cache of this machine.
	 * -ENOENT. */
	int (*folder_time)(struct kvk_backend *backend, const char *folder, uint64_t *modified_ns);
	/*
	 * The clock that the medium stamps folders with: what changes a name after this call leaves no earlier time. With
	 * many_hosts the medium itself is asked, which takes as long as a small change of it. -errno: it cannot be asked now.
	 */
	int (*now)(struct kvk_backend *backend, uint64_t *now_ns);
	int (*space)(struct kvk_backend *backend, struct kvk_space *ret);
	/*
	 * Holds the store against others, until close: exclusive for the only one, or together with other holders.
	 * Changes of one's own hold are fine. -EBUSY: another process holds it in a way that excludes this one.
	 */
	int (*hold)(struct kvk_backend *backend, bool exclusive);
	/*
	 * An exclusive lock on one byte of `.kvkeep/locks`, until unlock(), close() or the end of the process. It is the
	 * backend's, whose threads share it; another backend is kept out, in this process too. Tries for wait_ms, every
	 * millisecond. -EBUSY: somebody else has it.
	 */
	int (*lock)(struct kvk_backend *backend, uint32_t byte, uint32_t wait_ms);
	void (*unlock)(struct kvk_backend *backend, uint32_t byte);
	/* 1: somebody else has it. 0: nobody, or this backend. -errno. */
	int (*is_locked)(struct kvk_backend *backend, uint32_t byte);
	/*
	 * Removes name if it is a temporary file that nobody is at work with: its writer has closed it, or is gone. What was put aside
	 * (kvk_name_is_aside()) may be another's, who has it closed: it stays as long as he lives who put it there. 0: removed.
	 * -EBUSY: it stays.
	 */
	int (*sweep)(struct kvk_backend *backend, const char *name);
};

struct kvk_backend {
	const struct kvk_backend_ops *ops;
	struct kvk_backend_caps caps;
	struct kvk_syncs syncs;        /* whoever has it synced tells it here; save_file() and update_file() of the posix one do */
};

extern const struct kvk_backend_ops kvk_backend_posix;
extern const struct kvk_backend_ops kvk_backend_ram;

/* backend.c */
const struct kvk_backend_ops *kvk_backend_find(const char *name);
void kvk_names_release(struct kvk_names *names);
int kvk_names_add(struct kvk_names *names, const char *name);   /* -ENOMEM */
/* A xfer with everything zero but what is given. */
void kvk_xfer_init(struct kvk_xfer *xfer, enum kvk_xfer_op op, struct kvk_place *place, const char *name);
const char *kvk_xfer_op_name(enum kvk_xfer_op op);

#endif
