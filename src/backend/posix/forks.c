/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lock on `.kvkeep/locks` belongs to the open file, which a forked child shares: while such a child lives, the lock
 * of a parent that died would look as if it lived. So a child closes its copies, which unlocks nothing. It is the same with a
 * device, which is nobody else's while any copy of its descriptor is open.
 *
 * What is opened or closed may wait for a medium, and fork must not. So the lock that a fork takes is held over neither, and a
 * fork may come in between:
 *
 *	opening   keep() finds that there was a fork since before, whose child may have a copy that nobody closes. As long as that
 *	          has no lock it does no harm: it is closed and opened anew. A claim on a device comes with the opening: there a
 *	          child looks among its descriptors for the device that was just being opened.
 *	closing   the number becomes that of a copy of a folder at once, whose closing waits for nothing, and goes after that; were
 *	          it free before it is struck off here, a child could close what somebody else has opened under it.
 */
#include "backend/posix/posix_private.h"

#include <errno.h>
#include <sys/resource.h>

/* Descriptors that a child looks through. */
#define FDS_MAX (1 << 20)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;       /* guards what follows, across a fork too */
static struct kvk_link kept_ones = { &kept_ones, &kept_ones };
static struct kvk_link claims = { &claims, &claims };          /* devices that are being opened */
static uint64_t forks;
static pthread_once_t once = PTHREAD_ONCE_INIT;

struct claim {
	struct kvk_link link;
	const struct kvk_posix_sys *sys;
	uint32_t major, minor;
};

static void before_fork(void)
{
	pthread_mutex_lock(&lock);
	forks++;
}

static void in_parent(void)
{
	pthread_mutex_unlock(&lock);
}

/* What is not asked of the medium is answered from what the kernel has, and of a device that is enough. */
static void close_device(const struct claim *claim)
{
	struct rlimit limit = { .rlim_cur = FDS_MAX };
	struct statx found;

	getrlimit(RLIMIT_NOFILE, &limit);
	for (int fd = 0; fd < FDS_MAX && (rlim_t)fd < limit.rlim_cur; fd++) {
		if (!claim->sys->statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &found) && S_ISBLK(found.stx_mode) &&
		    found.stx_rdev_major == claim->major && found.stx_rdev_minor == claim->minor)
			claim->sys->close(fd);
	}
}

static void in_child(void)
{
	struct kvk_link *link;

	while ((link = kvk_list_pop(&kept_ones))) {
		struct kvk_kept *kept = kvk_container_of(link, struct kvk_kept, link);

		kept->sys->close(atomic_exchange(&kept->fd, -1));
	}
	while ((link = kvk_list_pop(&claims)))
		close_device(kvk_container_of(link, struct claim, link));
	pthread_mutex_unlock(&lock);
}

static void register_handlers(void)
{
	pthread_atfork(before_fork, in_parent, in_child);
}

uint64_t kvk_posix_forks(void)
{
	uint64_t count;

	pthread_once(&once, register_handlers);
	pthread_mutex_lock(&lock);
	count = forks;
	pthread_mutex_unlock(&lock);
	return count;
}

/* Called with the lock held. */
static void add(struct kvk_posix *posix, struct kvk_kept *kept, int fd)
{
	kept->sys = posix->sys;
	atomic_store(&kept->fd, fd);
	kvk_list_push(&kept_ones, &kept->link);
}

int kvk_posix_keep(struct kvk_posix *posix, struct kvk_kept *kept, int fd, uint64_t forks_before)
{
	bool forked;

	pthread_mutex_lock(&lock);
	forked = forks != forks_before;
	if (!forked)
		add(posix, kept, fd);
	pthread_mutex_unlock(&lock);
	return forked ? -EAGAIN : 0;
}

void kvk_posix_let_go(struct kvk_kept *kept)
{
	pthread_mutex_lock(&lock);
	kvk_list_remove(&kept->link);
	atomic_store(&kept->fd, -1);
	pthread_mutex_unlock(&lock);
}

void kvk_posix_close_kept(struct kvk_posix *posix, struct kvk_kept *kept)
{
	int fd = atomic_load(&kept->fd);
	bool replaced;

	if (fd < 0)
		return;
	replaced = posix->sys->replace(posix->own_fd, fd) >= 0;
	pthread_mutex_lock(&lock);
	kvk_list_remove(&kept->link);
	atomic_store(&kept->fd, -1);
	if (replaced)
		posix->sys->close(fd);
	pthread_mutex_unlock(&lock);
	if (!replaced)
		posix->sys->close(fd);
}

int kvk_posix_open_claimed(struct kvk_posix *posix, struct kvk_kept *kept, const char *path, int flags, const struct statx *device)
{
	struct claim claim = { .sys = posix->sys, .major = device->stx_rdev_major, .minor = device->stx_rdev_minor };
	int fd;

	kvk_posix_forks();
	pthread_mutex_lock(&lock);
	kvk_list_push(&claims, &claim.link);
	pthread_mutex_unlock(&lock);
	fd = posix->sys->openat(AT_FDCWD, path, flags | O_EXCL | O_CLOEXEC, 0);
	pthread_mutex_lock(&lock);
	kvk_list_remove(&claim.link);
	if (fd >= 0)
		add(posix, kept, fd);
	pthread_mutex_unlock(&lock);
	return fd;
}
