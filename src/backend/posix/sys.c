/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/posix/sys.h"

#include <dirent.h>
#include <errno.h>
#include <liburing.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static int result_of(int ret)
{
	return ret < 0 ? -errno : ret;
}

static int sys_openat2(int dir_fd, const char *path, const struct open_how *how)
{
	return result_of((int)syscall(SYS_openat2, dir_fd, path, how, sizeof(*how)));
}

static int sys_openat(int dir_fd, const char *path, int flags, mode_t mode)
{
	return result_of(openat(dir_fd, path, flags, mode));
}

static int sys_close(int fd)
{
	return result_of(close(fd));
}

static int sys_replace(int fd, int other_fd)
{
	return result_of(dup3(fd, other_fd, O_CLOEXEC));
}

static int sys_statx(int fd, const char *path, int flags, unsigned mask, struct statx *stat)
{
	return result_of(statx(fd, path, flags, mask, stat));
}

static int sys_fstatfs(int fd, struct statfs *stat)
{
	return result_of(fstatfs(fd, stat));
}

static int sys_mkdirat(int dir_fd, const char *path, mode_t mode)
{
	return result_of(mkdirat(dir_fd, path, mode));
}

static int sys_fchmod(int fd, mode_t mode)
{
	return result_of(fchmod(fd, mode));
}

static int sys_set_flags(int fd, int flags)
{
	return result_of(fcntl(fd, F_SETFL, flags));
}

static int sys_futimens(int fd, const struct timespec times[2])
{
	return result_of(futimens(fd, times));
}

static int sys_linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
	return result_of(linkat(from_fd, from, to_fd, to, flags));
}

static int sys_unlinkat(int dir_fd, const char *path, int flags)
{
	return result_of(unlinkat(dir_fd, path, flags));
}

static int sys_renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
	return result_of(renameat2(from_fd, from, to_fd, to, flags));
}

static int64_t sys_preadv2(int fd, const struct iovec *iov, int iov_count, off_t offset, int flags)
{
	ssize_t ret = preadv2(fd, iov, iov_count, offset, flags);

	return ret < 0 ? -errno : ret;
}

static int64_t sys_pwritev2(int fd, const struct iovec *iov, int iov_count, off_t offset, int flags)
{
	ssize_t ret = pwritev2(fd, iov, iov_count, offset, flags);

	return ret < 0 ? -errno : ret;
}

static int sys_fallocate(int fd, int mode, off_t offset, off_t bytes)
{
	return result_of(fallocate(fd, mode, offset, bytes));
}

static int sys_fdatasync(int fd)
{
	return result_of(fdatasync(fd));
}

static int sys_fsync(int fd)
{
	return result_of(fsync(fd));
}

static int sys_syncfs(int fd)
{
	return result_of(syncfs(fd));
}

static int sys_device_bytes(int fd, uint64_t *ret)
{
	return result_of(ioctl(fd, BLKGETSIZE64, ret));
}

static int sys_flock(int fd, int operation)
{
	return result_of(flock(fd, operation));
}

static int sys_lock_bytes(int fd, const struct flock *lock)
{
	return result_of(fcntl(fd, F_OFD_SETLK, lock));
}

static int sys_find_lock(int fd, struct flock *lock)
{
	return result_of(fcntl(fd, F_OFD_GETLK, lock));
}

static int64_t sys_getdents(int fd, void *buffer, size_t bytes)
{
	ssize_t ret = getdents64(fd, buffer, bytes);

	return ret < 0 ? -errno : ret;
}

static int sys_drop_cache(int fd)
{
	return -posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

const struct kvk_posix_sys kvk_posix_sys_real = {
	.effective_uid = geteuid,
	.openat2 = sys_openat2,
	.openat = sys_openat,
	.close = sys_close,
	.replace = sys_replace,
	.statx = sys_statx,
	.fstatfs = sys_fstatfs,
	.mkdirat = sys_mkdirat,
	.fchmod = sys_fchmod,
	.set_flags = sys_set_flags,
	.futimens = sys_futimens,
	.linkat = sys_linkat,
	.unlinkat = sys_unlinkat,
	.renameat2 = sys_renameat2,
	.preadv2 = sys_preadv2,
	.pwritev2 = sys_pwritev2,
	.fallocate = sys_fallocate,
	.device_bytes = sys_device_bytes,
	.fdatasync = sys_fdatasync,
	.fsync = sys_fsync,
	.syncfs = sys_syncfs,
	.flock = sys_flock,
	.lock_bytes = sys_lock_bytes,
	.find_lock = sys_find_lock,
	.getdents = sys_getdents,
	.drop_cache = sys_drop_cache,
	.ring_init = io_uring_queue_init_params,
};

static const struct kvk_posix_sys *in_use = &kvk_posix_sys_real;

void kvk_posix_sys_use(const struct kvk_posix_sys *sys)
{
	in_use = sys ? sys : &kvk_posix_sys_real;
}

const struct kvk_posix_sys *kvk_posix_sys(void)
{
	return in_use;
}
