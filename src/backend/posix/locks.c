/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locks on bytes of `.kvkeep/locks`. They are the open file's: threads share them, and a child's copy does not end them. NFS
 * 4, CephFS and Lustre (mounted with flock) keep such locks for all machines.
 */
#include "backend/posix/posix_private.h"

#include <errno.h>
#include <time.h>

#include "util/clock.h"

#define PAUSE_NS 1000000

static struct flock lock_of(uint32_t byte, short type)
{
	return (struct flock){ .l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = 1 };
}

/* Opens the file when it is needed first. */
static int locks_ready(struct kvk_posix *posix)
{
	int err = 0;

	pthread_mutex_lock(&posix->lock);
	if (posix->locks_fd < 0) {
		err = kvk_posix_locks_open(posix);
		if (!err && posix->must_chmod)
			err = posix->sys->fchmod(posix->locks_fd, posix->file_mode);
		if (err)
			kvk_posix_locks_close(posix);
	}
	pthread_mutex_unlock(&posix->lock);
	return err;
}

static int take(struct kvk_posix *posix, uint32_t byte, short type)
{
	struct flock lock = lock_of(byte, type);
	int err = locks_ready(posix);

	if (!err)
		err = posix->sys->lock_bytes(posix->locks_fd, &lock);
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
int kvk_posix_own_account(struct kvk_posix *posix, int fd)
{
	struct flock lock = lock_of(0, F_WRLCK);
	int err = posix->sys->lock_bytes(fd, &lock);

	if (err)
		return err == -EAGAIN || err == -EACCES ? -EBUSY : err;
	atomic_store(&posix->account_fd, fd);
	return 0;
}

static int take_account(struct kvk_posix *posix)
{
	int err, fd = kvk_posix_open_below(posix, ".kvkeep/" KVK_FILE_ACCOUNT, O_RDWR | O_NONBLOCK | O_NOCTTY, 0, false);

	/* Whoever makes it locks it then. */
	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	err = kvk_posix_own_account(posix, fd);
	if (err)
		posix->sys->close(fd);
	return err;
}

static void give_account(struct kvk_posix *posix)
{
	int fd = atomic_exchange(&posix->account_fd, -1);
	struct flock lock = lock_of(0, F_UNLCK);

	if (fd < 0)
		return;
	/* A child that was forked a moment ago may have a copy of the descriptor. */
	posix->sys->lock_bytes(fd, &lock);
	posix->sys->close(fd);
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
	if (posix->locks_fd >= 0)
		posix->sys->lock_bytes(posix->locks_fd, &lock);
}

int kvk_posix_is_locked(struct kvk_backend *backend, uint32_t byte)
{
	struct kvk_posix *posix = kvk_posix_of(backend);
	struct flock lock = lock_of(byte, F_WRLCK);
	int err = locks_ready(posix);

	if (!err)
		err = posix->sys->find_lock(posix->locks_fd, &lock);
	return err ? err : lock.l_type != F_UNLCK;
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
		err = posix->sys->futimens(posix->locks_fd, now);
	if (!err)
		err = kvk_posix_stat_fresh(posix, posix->locks_fd, &stat);
	if (!err)
		*now_ns = stat.modified_ns;
	return err;
}
