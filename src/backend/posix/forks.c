/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lock on `.kvkeep/locks` belongs to the open file, which a forked child shares: while such a child lives, the lock
 * of a parent that died would look as if it lived. So a child closes its copies, which unlocks nothing. It is the same with a
 * device, which is nobody else's while any copy of its descriptor is open: it is opened when KVK_LOCK_POOL is held.
 */
#include "backend/posix/posix_private.h"

#include <errno.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;       /* guards what follows, across a fork too */
static struct kvk_link held = { &held, &held };
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void before_fork(void)
{
	pthread_mutex_lock(&lock);
}

static void in_parent(void)
{
	pthread_mutex_unlock(&lock);
}

static void in_child(void)
{
	struct kvk_link *link;

	while ((link = kvk_list_pop(&held))) {
		struct kvk_posix *posix = kvk_container_of(link, struct kvk_posix, forks_link);

		int account_fd = atomic_exchange(&posix->account_fd, -1), device_fd = atomic_exchange(&posix->device_fd, -1);

		posix->sys->close(posix->locks_fd);
		posix->locks_fd = -1;
		if (account_fd >= 0)
			posix->sys->close(account_fd);
		if (device_fd >= 0)
			posix->sys->close(device_fd);
	}
	pthread_mutex_unlock(&lock);
}

static void register_handlers(void)
{
	pthread_atfork(before_fork, in_parent, in_child);
}

int kvk_posix_locks_open(struct kvk_posix *posix)
{
	const int flags = O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
	struct kvk_stat stat;
	int fd, err = 0;

	pthread_once(&once, register_handlers);
	pthread_mutex_lock(&lock);
	fd = posix->sys->openat(posix->own_fd, "locks", flags, posix->file_mode);
	if (fd < 0)
		goto out;
	/* The kernel locks bytes of whatever has a name; what somebody planted is not asked to be a file. */
	err = kvk_posix_stat(posix, fd, &stat);
	if (!err && !stat.regular)
		err = -EINVAL;
	if (err) {
		posix->sys->close(fd);
		goto out;
	}
	posix->locks_fd = fd;
	kvk_list_push(&held, &posix->forks_link);
out:
	pthread_mutex_unlock(&lock);
	return fd < 0 ? fd : err;
}

void kvk_posix_locks_close(struct kvk_posix *posix)
{
	pthread_mutex_lock(&lock);
	if (posix->locks_fd >= 0) {
		kvk_list_remove(&posix->forks_link);
		posix->sys->close(posix->locks_fd);
		posix->locks_fd = -1;
	}
	pthread_mutex_unlock(&lock);
}
