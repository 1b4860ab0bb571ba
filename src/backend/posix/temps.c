/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files under temporary names. Others sweep those that they can lock (kvk_posix_sweep()), so whoever makes one locks it as long as
 * it has that name. A sweep may come between the making and the lock.
 */
#include <errno.h>
#include <string.h>

#include "backend/posix/posix_private.h"
#include "format/format.h"

#define TRIES 8u

int kvk_posix_temp_base(struct kvk_posix *posix, const char *name, char *base, size_t bytes)
{
	char temp[KVK_NAME_BYTES_MAX];
	const char *slash;
	int err = kvk_name_make_temp(temp, name, posix->writer_id, atomic_fetch_add(&posix->sequence, 1));

	if (err)
		return err;
	slash = strrchr(temp, '/');
	slash = slash ? slash + 1 : temp;
	if (strlen(slash) >= bytes)
		return -ENAMETOOLONG;
	memcpy(base, slash, strlen(slash) + 1);
	return 0;
}

/*
 * Locks what was just made. -EWOULDBLOCK, -ENOENT: a sweep is about to take its name, or has. Another machine's leaves the
 * name in this one's cache: then only the server's count of links tells.
 */
static int claim(struct kvk_posix *posix, int folder_fd, const char *temp, int fd)
{
	struct kvk_stat stat;
	int err = kvk_posix_claim(posix, fd);

	if (!err)
		err = kvk_posix_stat_at(posix, folder_fd, temp, &stat);
	if (!err)
		err = kvk_posix_stat_fresh(posix, fd, &stat);
	if (!err && stat.links == 0)
		err = -ENOENT;
	return err;
}

int kvk_posix_make_temp(struct kvk_posix *posix, int folder_fd, const char *name, int flags, char *temp, size_t temp_bytes)
{
	for (unsigned tries = 0; tries < TRIES; tries++) {
		int err = kvk_posix_temp_base(posix, name, temp, temp_bytes), fd;

		if (err)
			return err;
		fd = posix->sys->openat(folder_fd, temp, flags | O_CREAT | O_EXCL, posix->file_mode);
		if (fd < 0)
			return fd;
		err = claim(posix, folder_fd, temp, fd);
		if (!err)
			return fd;
		posix->sys->close(fd);
		if (err != -EWOULDBLOCK && err != -ENOENT) {
			posix->sys->unlinkat(folder_fd, temp, 0);
			return err;
		}
	}
	return -EBUSY;
}
