/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The 256 folders of a store, held open: finding a folder anew for each put cost 9 % of its CPU time (64 KiB on ext4 over
 * memory). Only CREATE uses them: everything else finds names anew, so that a folder that was moved or removed by
 * somebody is noticed by whoever looks for an object in it.
 */
#include <string.h>
#include <sys/resource.h>

#include "backend/posix/posix_private.h"
#include "format/format.h"

void kvk_posix_folders_init(struct kvk_posix *posix)
{
	struct rlimit limit;

	for (int i = 0; i < KVK_POSIX_FOLDERS; i++)
		atomic_init(&posix->folders[i], -1);
	/* A host with few descriptors needs them more than we do. */
	atomic_init(&posix->hold_folders, !getrlimit(RLIMIT_NOFILE, &limit) &&
					  limit.rlim_cur >= 8 * KVK_POSIX_FOLDERS);
}

void kvk_posix_folders_release(struct kvk_posix *posix)
{
	for (int i = 0; i < KVK_POSIX_FOLDERS; i++) {
		if (posix->folders[i] >= 0)
			posix->sys->close(posix->folders[i]);
	}
	for (uint32_t i = 0; i < posix->stale_count; i++)
		posix->sys->close(posix->stale_folders[i]);
}

/* The index of `ab/...`, or -1. */
static int index_of(const char *name)
{
	uint8_t index;
	char text[3];

	if (strlen(name) < 3 || name[2] != '/' || strchr(name + 3, '/'))
		return -1;
	memcpy(text, name, 2);
	text[2] = 0;
	return kvk_unhex(&index, text, 1) ? -1 : index;
}

int kvk_posix_folder_hold(struct kvk_posix *posix, struct kvk_posix_folder *ret, const char *name)
{
	int index = atomic_load(&posix->hold_folders) ? index_of(name) : -1;
	int none = -1, err, fd;

	if (index < 0)
		return kvk_posix_folder_open(posix, ret, name, true);
	fd = atomic_load(&posix->folders[index]);
	if (fd < 0) {
		err = kvk_posix_folder_open(posix, ret, name, true);
		if (err)
			return err;
		fd = ret->fd;
		if (!atomic_compare_exchange_strong(&posix->folders[index], &none, fd))
			return 0;      /* another thread was faster: this one is closed after use */
	}
	*ret = (struct kvk_posix_folder){ .fd = fd, .base = name + 3 };
	return 0;
}

/* Somebody removed the folder under us. Other threads may still use the descriptor: it is closed with the backend. */
bool kvk_posix_folder_forget(struct kvk_posix *posix, const char *name, int fd)
{
	int index = index_of(name);

	if (!atomic_load(&posix->hold_folders) || index < 0)
		return false;
	pthread_mutex_lock(&posix->lock);
	if (posix->stale_count == KVK_POSIX_FOLDERS)
		atomic_store(&posix->hold_folders, false);     /* somebody removes folders all the time */
	else if (atomic_compare_exchange_strong(&posix->folders[index], &fd, -1))
		posix->stale_folders[posix->stale_count++] = fd;
	pthread_mutex_unlock(&posix->lock);
	return true;
}
