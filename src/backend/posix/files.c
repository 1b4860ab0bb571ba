/* SPDX-License-Identifier: Apache-2.0 */
/* Files beside the objects: small ones read, replaced and updated, folders listed, the sweep. */
#include "backend/posix/posix_private.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "format/format.h"
#include "util/alloc.h"

#define LIST_BYTES 32768u

static int full_name(char full[KVK_NAME_BYTES_MAX], const char *name)
{
	int bytes = snprintf(full, KVK_NAME_BYTES_MAX, ".kvkeep/%s", name);

	return bytes < (int)KVK_NAME_BYTES_MAX ? 0 : -ENAMETOOLONG;
}

/* The account's own descriptor while it is locked, or -1. */
static int locked_fd(struct kvk_posix *posix, const char *name)
{
	return strcmp(name, KVK_FILE_ACCOUNT) ? -1 : atomic_load(&posix->account.fd);
}

static void close_unlocked(struct kvk_posix *posix, int fd)
{
	if (fd != atomic_load(&posix->account.fd))
		posix->sys->close(fd);
}

int kvk_posix_load_file(struct kvk_backend *backend, const char *name, void **data_ret, uint64_t *bytes_ret,
			uint64_t max_bytes)
{
	struct kvk_posix *posix = kvk_posix_of(backend);
	char full[KVK_NAME_BYTES_MAX];
	struct kvk_stat stat;
	uint64_t used = 0;
	char *data = NULL;
	int fd, err = full_name(full, name);

	if (err)
		return err;
	fd = locked_fd(posix, name);
	if (fd < 0)
		fd = kvk_posix_open_below(posix, full, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0, false);
	if (fd < 0)
		return fd;
	/*
	 * What this machine has of it may be older. An open forgets that on NFS, and so does taking the lock of the file, but not on
	 * GlusterFS: two clients of 10.3 each went on with an account of their own.
	 */
	if (posix->base.caps.many_hosts)
		posix->sys->drop_cache(fd);
	err = kvk_posix_stat_fresh(posix, fd, &stat);
	if (err)
		goto out;
	err = !stat.regular ? -EINVAL : stat.bytes > max_bytes ? -EFBIG : 0;
	if (err)
		goto out;
	data = kvk_mem_alloc(stat.bytes + 1);
	if (!data) {
		err = -ENOMEM;
		goto out;
	}
	while (used < stat.bytes) {
		struct iovec iov = { data + used, stat.bytes - used };
		int64_t moved = posix->sys->preadv2(fd, &iov, 1, (off_t)used, 0);

		if (moved == -EINTR)
			continue;
		if (moved < 0) {
			err = (int)moved;
			goto out;
		}
		if (moved == 0)
			break;     /* it became shorter: what is there is what it says */
		used += (uint64_t)moved;
	}
	data[used] = '\0';
	*data_ret = data;
	*bytes_ret = used;
	data = NULL;
out:
	close_unlocked(posix, fd);
	kvk_mem_free(data);
	return err;
}

static int write_all(struct kvk_posix *posix, int fd, const char *data, uint64_t bytes, uint64_t offset_bytes)
{
	uint64_t used = 0;

	while (used < bytes) {
		struct iovec iov = { (char *)(uintptr_t)(data + used), bytes - used };
		int64_t moved = posix->sys->pwritev2(fd, &iov, 1, (off_t)(offset_bytes + used), 0);

		if (moved == -EINTR)
			continue;
		if (moved <= 0)
			return moved ? (int)moved : -EIO;
		used += (uint64_t)moved;
	}
	return 0;
}

/*
 * The agent knows nothing of these syncs, but a disk that fails to flush its cache tells it to one of them as well: those of objects
 * that are under way with it wait, and are not believed if it fails, see backend/syncs.h.
 */
static int sync_file(struct kvk_posix *posix, int fd, int (*call)(int fd))
{
	struct kvk_sync sync = { .over = NULL };
	int err;

	kvk_sync_begin(&posix->base.syncs, &sync);
	err = call(fd);
	kvk_sync_end(&posix->base.syncs, &sync, err);
	return err;
}

static int sync_folder_of(struct kvk_posix *posix, const char *full)
{
	struct kvk_sync sync = { .over = NULL };
	int err;

	kvk_sync_begin(&posix->base.syncs, &sync);
	err = kvk_posix_sync_folder(posix, full);
	kvk_sync_end(&posix->base.syncs, &sync, err);
	return err;
}

static int give_name(struct kvk_posix *posix, int folder_fd, const char *temp, const char *base, bool keep)
{
	int err;

	if (!keep)
		return posix->sys->renameat2(folder_fd, temp, folder_fd, base, 0);
	if (posix->has_noreplace)
		return posix->sys->renameat2(folder_fd, temp, folder_fd, base, RENAME_NOREPLACE);
	err = posix->sys->linkat(folder_fd, temp, folder_fd, base, 0);
	if (!err)
		posix->sys->unlinkat(folder_fd, temp, 0);
	return err;
}

int kvk_posix_save_file(struct kvk_backend *backend, const char *name, const void *data, uint64_t bytes, bool keep)
{
	struct kvk_posix *posix = kvk_posix_of(backend);
	char full[KVK_NAME_BYTES_MAX], temp[NAME_MAX + 1];
	struct kvk_posix_folder folder;
	int fd, err = full_name(full, name);

	if (err)
		return err;
	err = kvk_posix_folder_open(posix, &folder, full, true);
	if (err)
		return err;
	err = kvk_posix_temp_base(posix, full, temp, sizeof(temp));
	if (err)
		goto out_folder;
	fd = posix->sys->openat(folder.fd, temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
				posix->file_mode);
	if (fd < 0) {
		err = fd;
		goto out_folder;
	}
	err = kvk_posix_claim(posix, fd);
	if (!err)
		err = posix->sys->fchmod(fd, posix->file_mode);
	if (!err)
		err = write_all(posix, fd, data, bytes, 0);
	if (!err)
		err = sync_file(posix, fd, posix->sys->fsync);
	if (!err)
		err = give_name(posix, folder.fd, temp, folder.base, keep);
	if (err)
		posix->sys->unlinkat(folder.fd, temp, 0);
	else
		err = sync_folder_of(posix, full);
	posix->sys->close(fd);
out_folder:
	kvk_posix_folder_release(posix, &folder);
	return err;
}

/* O_NONBLOCK: a FIFO that somebody planted must not hold the thread up. */
int kvk_posix_update_file(struct kvk_backend *backend, const char *name, uint64_t offset_bytes, const void *data,
			  uint64_t bytes)
{
	struct kvk_posix *posix = kvk_posix_of(backend);
	const int flags = O_WRONLY | O_NONBLOCK | O_NOCTTY;
	char full[KVK_NAME_BYTES_MAX];
	uint64_t forks = kvk_posix_forks();
	struct kvk_stat stat;
	int fd, err = full_name(full, name);
	bool made = false;

	if (err)
		return err;
	fd = locked_fd(posix, name);
	if (fd < 0)
		fd = kvk_posix_open_below(posix, full, flags, 0, false);
	if (fd == -ENOENT) {
		fd = kvk_posix_open_below(posix, full, flags | O_CREAT, posix->file_mode, false);
		made = fd >= 0;
	}
	if (fd < 0)
		return fd;
	err = kvk_posix_stat(posix, fd, &stat);
	if (!err && !stat.regular)
		err = -EINVAL;
	if (!err && made && posix->must_chmod)
		err = posix->sys->fchmod(fd, posix->file_mode);
	if (!err && made && posix->base.caps.many_hosts && !strcmp(name, KVK_FILE_ACCOUNT))
		err = kvk_posix_own_account(posix, fd, forks);
	if (!err)
		err = write_all(posix, fd, data, bytes, offset_bytes);
	if (!err)
		err = sync_file(posix, fd, posix->sys->fdatasync);
	if (!err && made)
		err = sync_folder_of(posix, full);
	close_unlocked(posix, fd);
	return err;
}

int kvk_posix_list(struct kvk_backend *backend, const char *folder, struct kvk_names *names)
{
	struct kvk_posix *posix = kvk_posix_of(backend);
	int64_t got = 0;
	char *buffer;
	int fd, err = 0;

	/* A descriptor of its own: reading a folder moves the position of the open file. */
	fd = *folder ? kvk_posix_open_below(posix, folder, O_RDONLY | O_DIRECTORY, 0, false) :
		       posix->sys->openat(posix->root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	if (fd < 0)
		return fd;
	buffer = kvk_mem_alloc(LIST_BYTES);
	if (!buffer)
		err = -ENOMEM;
	while (!err && (got = posix->sys->getdents(fd, buffer, LIST_BYTES)) > 0) {
		for (int64_t at = 0; !err && at < got;) {
			const struct dirent64 *entry = (const void *)(buffer + at);

			if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
				err = kvk_names_add(names, entry->d_name);
			at += entry->d_reclen;
		}
	}
	if (!err && got < 0)
		err = (int)got;
	kvk_mem_free(buffer);
	posix->sys->close(fd);
	return err;
}

int kvk_posix_folder_time(struct kvk_backend *backend, const char *folder, uint64_t *modified_ns)
{
	struct kvk_posix *posix = kvk_posix_of(backend);
	struct kvk_stat stat;
	int fd, err;

	if (!*folder) {
		err = kvk_posix_stat_fresh(posix, posix->root_fd, &stat);
	} else {
		fd = kvk_posix_open_below(posix, folder, O_PATH | O_DIRECTORY, 0, false);
		if (fd < 0)
			return fd;
		err = kvk_posix_stat_fresh(posix, fd, &stat);
		posix->sys->close(fd);
	}
	if (!err)
		*modified_ns = stat.modified_ns;
	return err;
}

/*
 * A temporary file whose writer is gone can be locked. Its writer may have published it between our open and our
 * lock, and a name is used once in all time: so it goes only if the name still is the file that we hold. What was put aside is
 * judged by whether its writer lives alone.
 */
int kvk_posix_sweep(struct kvk_backend *backend, const char *name)
{
	struct kvk_posix *posix = kvk_posix_of(backend);
	struct kvk_posix_folder folder;
	struct kvk_stat held, named;
	struct kvk_xfer look;
	int fd, err = kvk_posix_folder_open(posix, &folder, name, false);

	if (err)
		return err;
	/* For writing: NFS makes a lock on all of its bytes of this one, which takes a file that may be written. */
	fd = kvk_posix_open_below(posix, name, O_RDWR | O_NONBLOCK | O_NOCTTY, 0, false);
	if (fd < 0) {
		err = fd;
		goto out_folder;
	}
	err = kvk_posix_stat(posix, fd, &held);
	if (!err && !held.regular)
		err = -EINVAL;
	/* Nobody has what was put aside locked: it may be another's, who has long been done with it. */
	if (!err)
		err = kvk_name_is_aside(folder.base) ? -EWOULDBLOCK : kvk_posix_claim(posix, fd);
	if (err == -EWOULDBLOCK)
		err = kvk_posix_writer_is_gone(posix, name) ? 0 : -EBUSY;
	if (err)
		goto out;
	kvk_xfer_init(&look, KVK_XFER_STAT_NAME, NULL, name);
	kvk_posix_run(backend, &look);
	err = (int)look.result;
	named = look.stat;
	if (!err && (named.inode != held.inode || named.device != held.device))
		err = -EBUSY;
	if (!err)
		err = posix->sys->unlinkat(folder.fd, folder.base, 0);
out:
	posix->sys->close(fd);
out_folder:
	kvk_posix_folder_release(posix, &folder);
	return err;
}
