/* SPDX-License-Identifier: Apache-2.0 */
#include "disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096
#define DIGEST_DIGITS 64
/* Objects lie at most two folders deep. */
#define DEPTH_MAX 3

static bool ends_with(const char *text, size_t bytes, const char *end)
{
	size_t end_bytes = strlen(end);

	return bytes > end_bytes && !memcmp(text + bytes - end_bytes, end, end_bytes);
}

static bool is_hex(const char *text, size_t digits)
{
	return strspn(text, "0123456789abcdef") >= digits;
}

/* Whether path has as many folders of two digits as it should have, and nothing else before its last component. */
static bool in_its_folder(const char *path, const char *last, uint32_t levels)
{
	if (last - path != 3 * (ptrdiff_t)levels)
		return false;
	for (; path < last; path += 3) {
		if (!is_hex(path, 2) || path[2] != '/')
			return false;
	}
	return true;
}

/* kvkeep's own names begin with what their folders say; nobody looks for them elsewhere. */
static bool agrees(const char *path, const char *last)
{
	for (const char *digits = last; path < last; path += 3, digits += 2) {
		if (memcmp(path, digits, 2) != 0)
			return false;
	}
	return true;
}

enum kvk_disk_kind kvk_disk_kind(const char *path, const struct kvk_disk_layout *layout)
{
	static const char quarantine[] = ".kvkeep/quarantine/";
	const char *slash = strrchr(path, '/'), *last = slash ? slash + 1 : path;
	size_t bytes = strlen(last);
	bool ours = is_hex(last, DIGEST_DIGITS);

	if (!strncmp(path, quarantine, strlen(quarantine)))
		return KVK_DISK_QUARANTINE;
	if (!in_its_folder(path, last, layout->levels))
		return KVK_DISK_OTHER;
	if (!strncmp(last, ".tmp-", 5))
		return KVK_DISK_TEMPORARY;
	if (ours && last[DIGEST_DIGITS] == '.' && ends_with(last, bytes, ".gone"))
		return KVK_DISK_GONE;
	if (layout->lmcache)
		return last[0] != '.' && ends_with(last, bytes, ".bin") ? KVK_DISK_OBJECT : KVK_DISK_OTHER;
	return ours && !strcmp(last + DIGEST_DIGITS, ".kv") && agrees(path, last) ? KVK_DISK_OBJECT : KVK_DISK_OTHER;
}

uint64_t kvk_disk_charged(const struct kvk_disk *disk)
{
	return disk->bytes[KVK_DISK_OBJECT] + disk->bytes[KVK_DISK_TEMPORARY] + disk->bytes[KVK_DISK_GONE] +
	       disk->bytes[KVK_DISK_QUARANTINE];
}

struct reading {
	struct kvk_disk *disk;
	const struct kvk_disk_layout *layout;
	uid_t owner;               /* of the directory: what others planted is not charged */
	bool (*tick)(void *user, const struct kvk_disk *disk);
	void *user;
	char path[PATH_MAX];       /* of what is being looked at, below the directory */
};

static bool same_time(const struct stat *a, const struct stat *b)
{
	return a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static int read_folder(struct reading *reading, int parent_fd, const char *name, size_t path_bytes, int depth);

/* One entry of a folder; its path stands in reading->path. */
static int look(struct reading *reading, int fd, const char *name, size_t path_bytes, int depth)
{
	enum kvk_disk_kind kind;
	struct stat stat;

	if (fstatat(fd, name, &stat, AT_SYMLINK_NOFOLLOW))
		return errno == ENOENT ? 0 : -errno;
	if (S_ISDIR(stat.st_mode)) {
		reading->path[path_bytes] = '/';
		return depth < DEPTH_MAX ? read_folder(reading, fd, name, path_bytes + 1, depth + 1) : 0;
	}
	kind = S_ISREG(stat.st_mode) && stat.st_uid == reading->owner ?
	       kvk_disk_kind(reading->path, reading->layout) : KVK_DISK_OTHER;
	reading->disk->files[kind]++;
	reading->disk->bytes[kind] += ((uint64_t)stat.st_size + PAGE - 1) / PAGE * PAGE;
	return 0;
}

static int read_folder(struct reading *reading, int parent_fd, const char *name, size_t path_bytes, int depth)
{
	struct stat before, after;
	struct dirent *entry;
	int fd, err = 0;
	DIR *folder;

	if (!reading->tick(reading->user, reading->disk))
		return -ECANCELED;
	fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT && depth > 0 ? 0 : -errno;
	folder = fdopendir(fd);
	if (!folder) {
		err = -errno;
		close(fd);
		return err;
	}
	if (fstat(fd, &before))
		err = -errno;
	else if (depth == 0)
		reading->owner = before.st_uid;
	while (!err) {
		int count;

		errno = 0;
		entry = readdir(folder);
		if (!entry) {
			err = -errno;
			break;
		}
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		count = snprintf(reading->path + path_bytes, PATH_MAX - path_bytes, "%s", entry->d_name);
		if (count < 0 || (size_t)count + 2 > PATH_MAX - path_bytes)
			err = -ENAMETOOLONG;
		else
			err = look(reading, fd, entry->d_name, path_bytes + (size_t)count, depth);
	}
	if (!err && (fstat(fd, &after) || !same_time(&before, &after)))
		reading->disk->folders_changed++;
	closedir(folder);
	return err;
}

int kvk_disk_read(struct kvk_disk *ret, const char *directory, const struct kvk_disk_layout *layout,
		  bool (*tick)(void *user, const struct kvk_disk *disk), void *user)
{
	struct kvk_disk disk = { .folders_changed = 0 };
	struct reading *reading = malloc(sizeof(*reading));
	int err;

	if (!reading)
		return -ENOMEM;
	reading->disk = &disk;
	reading->layout = layout;
	reading->tick = tick;
	reading->user = user;
	err = read_folder(reading, AT_FDCWD, directory, 0, 0);
	free(reading);
	if (!err)
		*ret = disk;
	return err;
}
