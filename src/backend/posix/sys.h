/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The system calls that the posix backend makes, in one table, so that a test can let each of them fail. All
 * return -errno instead of setting errno; none retries.
 */
#ifndef KVK_BACKEND_POSIX_SYS_H
#define KVK_BACKEND_POSIX_SYS_H

#include <fcntl.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/types.h>
#include <sys/uio.h>

struct io_uring;
struct io_uring_params;

struct kvk_posix_sys {
	uid_t (*effective_uid)(void);
	int (*openat2)(int dir_fd, const char *path, const struct open_how *how);
	int (*openat)(int dir_fd, const char *path, int flags, mode_t mode);
	int (*close)(int fd);
	int (*replace)(int fd, int other_fd);              /* dup3 with O_CLOEXEC: other_fd is a copy of fd from now on */
	int (*statx)(int fd, const char *path, int flags, unsigned mask, struct statx *stat);
	int (*fstatfs)(int fd, struct statfs *stat);
	int (*mkdirat)(int dir_fd, const char *path, mode_t mode);
	int (*fchmod)(int fd, mode_t mode);
	int (*set_flags)(int fd, int flags);               /* F_SETFL */
	int (*futimens)(int fd, const struct timespec times[2]);
	int (*linkat)(int from_fd, const char *from, int to_fd, const char *to, int flags);
	int (*unlinkat)(int dir_fd, const char *path, int flags);
	int (*renameat2)(int from_fd, const char *from, int to_fd, const char *to, unsigned flags);
	int64_t (*preadv2)(int fd, const struct iovec *iov, int iov_count, off_t offset, int flags);
	int64_t (*pwritev2)(int fd, const struct iovec *iov, int iov_count, off_t offset, int flags);
	int (*fallocate)(int fd, int mode, off_t offset, off_t bytes);
	int (*device_bytes)(int fd, uint64_t *ret);        /* BLKGETSIZE64 */
	int (*fdatasync)(int fd);
	int (*fsync)(int fd);
	int (*syncfs)(int fd);
	int (*flock)(int fd, int operation);
	int (*lock_bytes)(int fd, const struct flock *lock);  /* F_OFD_SETLK */
	int (*find_lock)(int fd, struct flock *lock);         /* F_OFD_GETLK */
	int64_t (*getdents)(int fd, void *buffer, size_t bytes);
	int (*drop_cache)(int fd);                         /* POSIX_FADV_DONTNEED of all of it */
	int (*ring_init)(unsigned entries, struct io_uring *ring, struct io_uring_params *params);
};

extern const struct kvk_posix_sys kvk_posix_sys_real;

/* The table that backends opened from now on use. NULL: the real one. For tests; not while others open. */
void kvk_posix_sys_use(const struct kvk_posix_sys *sys);
const struct kvk_posix_sys *kvk_posix_sys(void);

#endif
