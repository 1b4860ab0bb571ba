/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KVK_BACKEND_POSIX_PRIVATE_H
#define KVK_BACKEND_POSIX_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "backend/backend.h"
#include "backend/posix/sys.h"

/* Ways of making a file visible under a name that nobody has. AT_EMPTY_PATH costs 8 us of CPU less than the walk
 * through /proc (77 of 85 for a put of 64 KiB on ext4 over memory), but is not for every process. */
enum kvk_posix_publish {
	KVK_PUBLISH_PROCFD = 0,        /* O_TMPFILE, linkat of /proc/self/fd/N */
	KVK_PUBLISH_EMPTY_PATH,        /* O_TMPFILE, linkat with AT_EMPTY_PATH */
	KVK_PUBLISH_RENAME,            /* a named temporary, renameat2(RENAME_NOREPLACE) */
	KVK_PUBLISH_LINK,              /* a named temporary, link and unlink */
	KVK_PUBLISH_COUNT
};

/* Folders known to be on the medium with every folder above them: hashes of their names, 0 for none. */
#define KVK_POSIX_SYNCED_FOLDERS 1024

/* Folders of the first level. */
#define KVK_POSIX_FOLDERS 256

/* A descriptor that no child of fork has a copy of for long: forks.c. */
struct kvk_kept {
	struct kvk_link link;          /* while it is open */
	const struct kvk_posix_sys *sys;
	_Atomic int fd;                /* -1: it is not open */
};

struct kvk_posix {
	struct kvk_backend base;
	const struct kvk_posix_sys *sys;
	int root_fd;
	int own_fd;                    /* `.kvkeep` */
	struct kvk_kept locks;         /* `.kvkeep/locks`, open from its first use on; lock guards the opening */
	struct kvk_kept account;       /* the account, locked itself, while KVK_LOCK_ACCOUNT is held */
	uid_t owner;
	mode_t file_mode;
	mode_t folder_mode;
	bool group;
	bool has_openat2;              /* else names are walked component by component */
	bool has_cached;               /* RESOLVE_CACHED */
	bool has_procfd;               /* linkat of /proc/self/fd/N works */
	bool has_noreplace;            /* RENAME_NOREPLACE */
	bool must_chmod;               /* a new file does not have file_mode by itself */
	bool wants_ring;
	atomic_bool has_device;
	struct kvk_kept device;        /* a block device that is open as a place, opened when KVK_LOCK_POOL is held */
	enum kvk_posix_publish publish;
	uint64_t writer_id;
	atomic_bool has_writer;        /* the writer's byte of `locks` is held */
	_Atomic uint64_t sequence;     /* of temporary names */
	pthread_mutex_t lock;
	uint64_t synced_folders[KVK_POSIX_SYNCED_FOLDERS];   /* lock guards it */
	atomic_bool hold_folders;
	_Atomic int folders[KVK_POSIX_FOLDERS];              /* held open; -1: not yet */
	uint32_t stale_count;                                /* lock guards these two */
	int stale_folders[KVK_POSIX_FOLDERS];
};

/* A place is its descriptor and, until it is published, where it is going to. */
struct kvk_place {
	int fd;
	int folder_fd;                 /* CREATE: the folder of the name; -1 for OPEN */
	bool own_folder;               /* folder_fd is not the root's */
	bool published;
	bool device;
	char temp[64];                 /* last component of the temporary name; empty: there is none */
};

static inline struct kvk_posix *kvk_posix_of(struct kvk_backend *backend)
{
	return kvk_container_of(backend, struct kvk_posix, base);
}

/* ---- root.c: names are looked up below the root and through no symbolic link ---------------------- */

/*
 * Opens name below the root. flags as for open(2); O_CLOEXEC and O_NOFOLLOW are added. cached: -EAGAIN if it would
 * wait, where the kernel can tell. A name that is empty, absolute, too long or contains ".." is refused.
 */
int kvk_posix_open_below(struct kvk_posix *posix, const char *name, int flags, mode_t mode, bool cached);

/* The folder that name lies in, for calls that take no RESOLVE flags, and the last component. */
struct kvk_posix_folder {
	int fd;
	bool own;                      /* fd is closed by release */
	const char *base;
};

/* 0, and *ret must be released; or -errno, and it need not. make: missing folders are made. */
int kvk_posix_folder_open(struct kvk_posix *posix, struct kvk_posix_folder *ret, const char *name, bool make);
void kvk_posix_folder_release(struct kvk_posix *posix, struct kvk_posix_folder *folder);

/* folders.c: the same with make, but the folder is held open for the next time. Release it as well. */
int kvk_posix_folder_hold(struct kvk_posix *posix, struct kvk_posix_folder *ret, const char *name);
/* The held folder fd of name turned out to be removed. Returns whether a new one is worth a try. */
bool kvk_posix_folder_forget(struct kvk_posix *posix, const char *name, int fd);
void kvk_posix_folders_init(struct kvk_posix *posix);
void kvk_posix_folders_release(struct kvk_posix *posix);

/* Opens the root and `.kvkeep`, made if missing and create is set, and checks that they are safe to use. */
int kvk_posix_root_open(struct kvk_posix *posix, const struct kvk_backend_options *options, struct kvk_error *error);

/* fsync of name's folder and of those above it that are not known to be on the medium. */
int kvk_posix_sync_folder(struct kvk_posix *posix, const char *name);

/* ---- trial.c: what this medium can do ------------------------------------------------------------- */

/* Fills base.caps, publish and has_noreplace. Leaves nothing behind. */
int kvk_posix_trial(struct kvk_posix *posix, const struct kvk_backend_options *options, struct kvk_error *error);

/* The whole of a small file, NUL at its end, to be freed with kvk_mem_free(); it may say nothing of its length. NULL: not to be had. */
char *kvk_posix_read_text(const struct kvk_posix_sys *sys, const char *path);
/* gluster.c: 0, or -EOPNOTSUPP if a client mounted at point, as mountinfo writes it, may not see what others do. point is changed. */
int kvk_posix_check_gluster(struct kvk_posix *posix, const char *path, char *point, struct kvk_error *error);

/* For tests: places are made and published in this way from now on. No place may be open. */
void kvk_posix_force_publish(struct kvk_backend *backend, enum kvk_posix_publish publish);

/* ---- run.c ---------------------------------------------------------------------------------------- */

void kvk_posix_run(struct kvk_backend *backend, struct kvk_xfer *xfer);
/* For OPEN by whatever means: makes a place of fd, which it owns from now on, and sets xfer->place, stat, result. */
void kvk_posix_opened(struct kvk_posix *posix, struct kvk_xfer *xfer, int fd);
int kvk_posix_open_flags(const struct kvk_posix *posix, const struct kvk_xfer *xfer);
int kvk_posix_stat(struct kvk_posix *posix, int fd, struct kvk_stat *stat);
/* Of a name in the folder fd, itself if it is a link; "": of fd. When it was born is not asked for. */
int kvk_posix_stat_at(struct kvk_posix *posix, int fd, const char *name, struct kvk_stat *stat);
/* The same of fd as other machines left it: a client of a file system may answer from a cache of 3 to 60 s. */
int kvk_posix_stat_fresh(struct kvk_posix *posix, int fd, struct kvk_stat *stat);

/* ---- temps.c -------------------------------------------------------------------------------------- */

/* The last component of a temporary name for name, used once in all time. */
int kvk_posix_temp_base(struct kvk_posix *posix, const char *name, char *base, size_t bytes);
/* Makes a file under such a name in the folder, and locks it. Returns its descriptor. -EBUSY: sweeps took each in turn. */
int kvk_posix_make_temp(struct kvk_posix *posix, int folder_fd, const char *name, int flags, char *temp, size_t temp_bytes);

/* ---- listing.c ------------------------------------------------------------------------------------ */

int kvk_posix_list_stat(struct kvk_backend *backend, const char *folder, const struct kvk_listing *listing,
			uint64_t *modified_ns);

/* ---- files.c: files beside the objects ------------------------------------------------------------ */

int kvk_posix_load_file(struct kvk_backend *backend, const char *name, void **data_ret, uint64_t *bytes_ret,
			uint64_t max_bytes);
int kvk_posix_save_file(struct kvk_backend *backend, const char *name, const void *data, uint64_t bytes, bool keep);
int kvk_posix_update_file(struct kvk_backend *backend, const char *name, uint64_t offset_bytes, const void *data,
			  uint64_t bytes);
int kvk_posix_list(struct kvk_backend *backend, const char *folder, struct kvk_names *names);
int kvk_posix_folder_time(struct kvk_backend *backend, const char *folder, uint64_t *modified_ns);

/* ---- locks.c -------------------------------------------------------------------------------------- */

int kvk_posix_hold(struct kvk_backend *backend, bool exclusive);
int kvk_posix_lock(struct kvk_backend *backend, uint32_t byte, uint32_t wait_ms);
void kvk_posix_unlock(struct kvk_backend *backend, uint32_t byte);
int kvk_posix_is_locked(struct kvk_backend *backend, uint32_t byte);
/* Locks the file that was opened or made under KVK_LOCK_ACCOUNT, when there had been so many forks; from then on fd is the lock's.
 * -EBUSY. -EAGAIN: there was a fork since. */
int kvk_posix_own_account(struct kvk_posix *posix, int fd, uint64_t forks);
/* Locks the whole file against others, without waiting. -EWOULDBLOCK. */
int kvk_posix_claim(struct kvk_posix *posix, int fd);
/* Before a temporary name is made beside an object: as long as it is held, the writer lives. */
int kvk_posix_hold_writer(struct kvk_posix *posix);
/* Whether the writer of a temporary name is gone for certain. */
bool kvk_posix_writer_is_gone(struct kvk_posix *posix, const char *name);
int kvk_posix_now(struct kvk_backend *backend, uint64_t *now_ns);

void kvk_posix_locks_close(struct kvk_posix *posix);
int kvk_posix_sweep(struct kvk_backend *backend, const char *name);

/* ---- forks.c: what a child of fork must not keep open; no fork waits for a medium on that account ---- */

/* How many forks there were: to be asked before something is opened that shall be kept. */
uint64_t kvk_posix_forks(void);
/* From now on children close fd at once. -EAGAIN: there was a fork since, whose child may have a copy for as long as it lives: fd is
 * not kept, must have no lock yet, and is to be closed and opened anew. */
int kvk_posix_keep(struct kvk_posix *posix, struct kvk_kept *kept, int fd, uint64_t forks_before);
/* fd is the caller's again. */
void kvk_posix_let_go(struct kvk_kept *kept);
/* Closes it, so that no child of a fork meanwhile has a copy after it. Nothing if it is not open. */
void kvk_posix_close_kept(struct kvk_posix *posix, struct kvk_kept *kept);
/* Opens a block device with O_EXCL, and keeps it whatever forks come. The descriptor or -errno. device: what lies under the path. */
int kvk_posix_open_claimed(struct kvk_posix *posix, struct kvk_kept *kept, const char *path, int flags,
			   const struct statx *device);

/* ---- uring.c -------------------------------------------------------------------------------------- */

extern const struct kvk_ring_ops kvk_posix_ring;

/* Sets up a ring and sends one empty request through it. 0, or -errno with the reason in note. */
int kvk_posix_ring_probe(struct kvk_posix *posix, char *note, size_t note_bytes);

#endif
