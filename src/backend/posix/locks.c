/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locks on bytes of `.kvkeep/locks`. They are the open file's: threads share them, and a child's copy does not end them. NFS
 * 4, CephFS, GlusterFS and Lustre (mounted with flock) keep such locks for all machines.
 */
#include "backend/posix/posix_private.h"

#include <errno.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>

#include "format/format.h"
#include "util/clock.h"

#define PAUSE_NS 1000000
/* So often a file is opened anew for a fork that came in between: more are none that end. */
#define FORKS_MAX 100

/* Beyond what the enumeration names: a byte for each writer there may be. */
#define WRITERS (UINT64_C(1) << 62)

static struct flock lock_of(uint64_t byte, short type)
{
	return (struct flock){ .l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = 1 };
}

/*
 * None of them waits, and yet a signal ends one that is on its way to a server (GlusterFS): a stop and a continuation are enough. What
 * was asked for may have been done or not, and is asked for again; an unlock that was left undone would shut all others out.
 */
static int lock_bytes(struct kvk_posix *posix, int fd, const struct flock *lock)
{
	int err;

	do {
		err = posix->sys->lock_bytes(fd, lock);
	} while (err == -EINTR);
	return err;
}

int kvk_posix_claim(struct kvk_posix *posix, int fd)
{
	int err;

	do {
		err = posix->sys->flock(fd, LOCK_EX | LOCK_NB);
	} while (err == -EINTR);
	return err;
}

static int open_locks(struct kvk_posix *posix)
{
	const int flags = O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
	struct kvk_stat stat;
	int err = -EAGAIN;

	for (int tries = 0; err == -EAGAIN && tries < FORKS_MAX; tries++) {
		uint64_t forks = kvk_posix_forks();
		int fd = posix->sys->openat(posix->own_fd, "locks", flags, posix->file_mode);

		if (fd < 0)
			return fd;
		err = kvk_posix_keep(posix, &posix->locks, fd, forks);
		if (err)
			posix->sys->close(fd);
	}
	/* The kernel locks bytes of whatever has a name; what somebody planted is not asked to be a file. */
	if (!err)
		err = kvk_posix_stat(posix, posix->locks.fd, &stat);
	if (!err && !stat.regular)
		err = -EINVAL;
	if (!err && posix->must_chmod)
		err = posix->sys->fchmod(posix->locks.fd, posix->file_mode);
	if (err)
		kvk_posix_locks_close(posix);
	return err;
}

void kvk_posix_locks_close(struct kvk_posix *posix)
{
	kvk_posix_close_kept(posix, &posix->account);
	kvk_posix_close_kept(posix, &posix->locks);
}

/* Opens the file when it is needed first. */
static int locks_ready(struct kvk_posix *posix)
{
	int err = 0;

	pthread_mutex_lock(&posix->lock);
	if (posix->locks.fd < 0)
		err = open_locks(posix);
	pthread_mutex_unlock(&posix->lock);
	return err;
}

static int take(struct kvk_posix *posix, uint64_t byte, short type)
{
	struct flock lock = lock_of(byte, type);
	int err = locks_ready(posix);

	if (!err)
		err = lock_bytes(posix, posix->locks.fd, &lock);
	return err == -EAGAIN || err == -EACCES ? -EBUSY : err;
}

int kvk_posix_hold(struct kvk_backend *backend, bool exclusive)
{
	return take(kvk_posix_of(backend), KVK_LOCK_HOLD, exclusive ? F_WRLCK : F_RDLCK);
}

/* ---- the account's own lock -------------------------------------------------------------------------------- */

/*
 * NFS ties what is written to the locks of that very file. With a byte of `locks` alone it could be: 1. a process that has it
 * writes the account into its machine's cache; 2. it is killed, and the lock given to another machine, who writes the account
 * twice; 3. what was in the cache gets to the server, and lies over the newer of the two copies. A lock of the account itself is
 * given up only when all that was written under it has arrived, and who takes it forgets what his cache has of the file.
 */
int kvk_posix_own_account(struct kvk_posix *posix, int fd, uint64_t forks)
{
	struct flock lock = lock_of(0, F_WRLCK);
	int err = kvk_posix_keep(posix, &posix->account, fd, forks);

	if (err)
		return err;
	err = lock_bytes(posix, fd, &lock);
	if (err)
		kvk_posix_let_go(&posix->account);
	return err == -EAGAIN || err == -EACCES ? -EBUSY : err;
}

static int take_account(struct kvk_posix *posix)
{
	int err = -EAGAIN;

	for (int tries = 0; err == -EAGAIN && tries < FORKS_MAX; tries++) {
		uint64_t forks = kvk_posix_forks();
		int fd = kvk_posix_open_below(posix, ".kvkeep/" KVK_FILE_ACCOUNT, O_RDWR | O_NONBLOCK | O_NOCTTY, 0, false);

		/* Whoever makes it locks it then. */
		if (fd < 0)
			return fd == -ENOENT ? 0 : fd;
		err = kvk_posix_own_account(posix, fd, forks);
		if (err)
			posix->sys->close(fd);
	}
	return err;
}

static void give_account(struct kvk_posix *posix)
{
	struct flock lock = lock_of(0, F_UNLCK);
	int fd = atomic_load(&posix->account.fd);

	if (fd < 0)
		return;
	/* A child that is forked in this moment has a copy until it has come to itself. */
	lock_bytes(posix, fd, &lock);
	kvk_posix_close_kept(posix, &posix->account);
}

/* ---- bytes of `locks` ------------------------------------------------------------------------------------- */

static int take_one(struct kvk_posix *posix, uint32_t byte)
{
	int err = take(posix, byte, F_WRLCK);

	if (err || byte != KVK_LOCK_ACCOUNT || !posix->base.caps.many_hosts)
		return err;
	err = take_account(posix);
	if (err)
		kvk_posix_unlock(&posix->base, byte);
	return err;
}

/* The kernel can wait for a lock, but not for a time, and a signal to end the wait is not ours to send. */
int kvk_posix_lock(struct kvk_backend *backend, uint32_t byte, uint32_t wait_ms)
{
	struct timespec pause = { .tv_nsec = PAUSE_NS };
	int err;

	while ((err = take_one(kvk_posix_of(backend), byte)) == -EBUSY && wait_ms-- > 0)
		nanosleep(&pause, NULL);
	return err;
}

void kvk_posix_unlock(struct kvk_backend *backend, uint32_t byte)
{
	struct kvk_posix *posix = kvk_posix_of(backend);
	struct flock lock = lock_of(byte, F_UNLCK);

	if (byte == KVK_LOCK_ACCOUNT)
		give_account(posix);
	if (posix->locks.fd >= 0)
		lock_bytes(posix, posix->locks.fd, &lock);
}

static int is_locked(struct kvk_posix *posix, uint64_t byte)
{
	struct flock lock = lock_of(byte, F_WRLCK);
	int err = locks_ready(posix);

	while (!err && (err = posix->sys->find_lock(posix->locks.fd, &lock)) == -EINTR)
		err = 0;
	return err ? err : lock.l_type != F_UNLCK;
}

int kvk_posix_is_locked(struct kvk_backend *backend, uint32_t byte)
{
	return is_locked(kvk_posix_of(backend), byte);
}

/* ---- writers ---------------------------------------------------------------------------------------------- */

/*
 * A temporary file is locked, and so is the writer's byte. The first belongs to the open file, of which a child of fork has a copy
 * that it cannot close (it may have to be flushed, which waits for the medium): it outlives a writer that was killed for as long as the
 * child lives. The second does not.
 */
static uint64_t byte_of(uint64_t writer_id)
{
	return WRITERS | writer_id >> 2;
}

int kvk_posix_hold_writer(struct kvk_posix *posix)
{
	int err;

	if (atomic_load(&posix->has_writer))
		return 0;
	err = take(posix, byte_of(posix->writer_id), F_WRLCK);
	/* Somebody else's, by chance: he stands for both. */
	if (err == -EBUSY)
		return 0;
	if (!err)
		atomic_store(&posix->has_writer, true);
	return err;
}

bool kvk_posix_writer_is_gone(struct kvk_posix *posix, const char *name)
{
	const char *slash = strrchr(name, '/');
	uint64_t writer_id;

	/* What is tried at open and what is saved beside the objects is locked alone: nobody has the file of locks open then. */
	if (!strncmp(name, ".kvkeep/", 8))
		return false;
	/* What this process has locked itself it would be told to be free. */
	return kvk_name_temp_writer(slash ? slash + 1 : name, &writer_id) && writer_id != posix->writer_id &&
	       is_locked(posix, byte_of(writer_id)) == 0;
}

/*
 * Where machines share a file system, folders are stamped by the server's clock, or by that of whoever changes them, and
 * this machine's own may differ from both. So a file is stamped as a folder would be: NFS sends "now" and not a time.
 */
int kvk_posix_now(struct kvk_backend *backend, uint64_t *now_ns)
{
	const struct timespec now[2] = { { .tv_nsec = UTIME_NOW }, { .tv_nsec = UTIME_NOW } };
	struct kvk_posix *posix = kvk_posix_of(backend);
	struct kvk_stat stat;
	int err;

	if (!posix->base.caps.many_hosts) {
		*now_ns = kvk_tick_ns();
		return 0;
	}
	err = locks_ready(posix);
	if (!err)
		err = posix->sys->futimens(posix->locks.fd, now);
	if (!err)
		err = kvk_posix_stat_fresh(posix, posix->locks.fd, &stat);
	if (!err)
		*now_ns = stat.modified_ns;
	return err;
}
