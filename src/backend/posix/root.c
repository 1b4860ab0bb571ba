/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names are looked up below the root's descriptor only. Where openat2 is there the kernel sees to it; where it is
 * not (before 5.6, or forbidden by a container's filter) each component is opened by itself without following links.
 * Both refuse the same names.
 */
#include "backend/posix/posix_private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "format/format.h"
#include "util/error.h"

#define OPTION_PATH "backend_params.file_path"
#define FOLDER_FLAGS (O_PATH | O_DIRECTORY)

static int name_check(const char *name)
{
	if (!name || !*name)
		return -ENOENT;
	if (*name == '/')
		return -EXDEV;
	if (strlen(name) >= KVK_NAME_BYTES_MAX)
		return -ENAMETOOLONG;
	for (const char *part = name; part; part = strchr(part, '/')) {
		if (*part == '/')
			part++;
		if (part[0] == '.' && part[1] == '.' && (part[2] == '\0' || part[2] == '/'))
			return -EXDEV;
	}
	return 0;
}

/* From one component to the next; the last answer is the asked-for descriptor. */
static int walk(struct kvk_posix *posix, const char *name, int flags, mode_t mode)
{
	char part[KVK_NAME_BYTES_MAX];
	int dir_fd = posix->root_fd;
	int fd;

	for (;;) {
		size_t bytes = strcspn(name, "/");
		const char *rest = name + bytes;

		rest += strspn(rest, "/");
		memcpy(part, name, bytes);
		part[bytes] = '\0';
		if (*rest)
			fd = posix->sys->openat(dir_fd, part, FOLDER_FLAGS | O_NOFOLLOW | O_CLOEXEC, 0);
		else
			fd = posix->sys->openat(dir_fd, part, flags, mode);
		if (dir_fd != posix->root_fd)
			posix->sys->close(dir_fd);
		if (fd < 0 || !*rest)
			return fd;
		dir_fd = fd;
		name = rest;
	}
}

int kvk_posix_open_below(struct kvk_posix *posix, const char *name, int flags, mode_t mode, bool cached)
{
	struct open_how how = {
		.flags = (uint64_t)(uint32_t)(flags | O_NOFOLLOW | O_CLOEXEC),
		.mode = mode,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	int fd = name_check(name);

	if (fd)
		return fd;
	if (!posix->has_openat2)
		return walk(posix, name, flags | O_NOFOLLOW | O_CLOEXEC, mode);
	if (cached && posix->has_cached)
		how.resolve |= RESOLVE_CACHED;
	do {
		/* Without RESOLVE_CACHED, -EAGAIN says that a rename elsewhere disturbed the lookup of "..". */
		fd = posix->sys->openat2(posix->root_fd, name, &how);
	} while (fd == -EINTR || (fd == -EAGAIN && !cached));
	return fd;
}

/* Writes the folder of name ("" for the root) and returns the last component. */
static const char *split(char folder[KVK_NAME_BYTES_MAX], const char *name)
{
	const char *slash = strrchr(name, '/');
	size_t bytes = slash ? (size_t)(slash - name) : 0;

	memcpy(folder, name, bytes);
	folder[bytes] = '\0';
	return slash ? slash + 1 : name;
}

static uint64_t folder_hash(const char *folder)
{
	uint64_t hash = 0xcbf29ce484222325u;

	for (; *folder; folder++)
		hash = (hash ^ (unsigned char)*folder) * 0x100000001b3u;
	return hash ? hash : 1;
}

static bool is_synced(struct kvk_posix *posix, const char *folder)
{
	uint64_t hash = folder_hash(folder);
	bool synced;

	pthread_mutex_lock(&posix->lock);
	synced = posix->synced_folders[hash % KVK_POSIX_SYNCED_FOLDERS] == hash;
	pthread_mutex_unlock(&posix->lock);
	return synced;
}

static void set_synced(struct kvk_posix *posix, const char *folder, bool synced)
{
	uint64_t hash = folder_hash(folder);
	uint64_t *slot = &posix->synced_folders[hash % KVK_POSIX_SYNCED_FOLDERS];

	pthread_mutex_lock(&posix->lock);
	if (synced)
		*slot = hash;
	else if (*slot == hash)
		*slot = 0;
	pthread_mutex_unlock(&posix->lock);
}

static int make_folder(struct kvk_posix *posix, int dir_fd, const char *base)
{
	int fd, err = posix->sys->mkdirat(dir_fd, base, posix->folder_mode);

	if (err)
		return err == -EEXIST ? 0 : err;
	/* mkdirat obeys the umask, which belongs to the host. */
	fd = posix->sys->openat(dir_fd, base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
	if (fd < 0)
		return fd;
	err = posix->sys->fchmod(fd, posix->folder_mode);
	posix->sys->close(fd);
	return err;
}

static int make_folders(struct kvk_posix *posix, const char *folder)
{
	struct kvk_posix_folder above;
	int err = kvk_posix_folder_open(posix, &above, folder, true);

	if (err)
		return err;
	set_synced(posix, folder, false);
	err = make_folder(posix, above.fd, above.base);
	kvk_posix_folder_release(posix, &above);
	return err;
}

int kvk_posix_folder_open(struct kvk_posix *posix, struct kvk_posix_folder *ret, const char *name, bool make)
{
	char folder[KVK_NAME_BYTES_MAX];
	const char *base;
	int fd = name_check(name);

	if (fd)
		return fd;
	base = split(folder, name);
	if (!*base || !strcmp(base, "."))
		return -EINVAL;
	if (!*folder) {
		*ret = (struct kvk_posix_folder){ .fd = posix->root_fd, .base = base };
		return 0;
	}
	fd = kvk_posix_open_below(posix, folder, FOLDER_FLAGS, 0, false);
	if (fd == -ENOENT && make) {
		int err = make_folders(posix, folder);

		if (err)
			return err;
		fd = kvk_posix_open_below(posix, folder, FOLDER_FLAGS, 0, false);
	}
	if (fd < 0)
		return fd;
	*ret = (struct kvk_posix_folder){ .fd = fd, .own = true, .base = base };
	return 0;
}

void kvk_posix_folder_release(struct kvk_posix *posix, struct kvk_posix_folder *folder)
{
	if (folder->own)
		posix->sys->close(folder->fd);
}

static int sync_one(struct kvk_posix *posix, const char *folder)
{
	int fd, err;

	if (!*folder)
		return posix->sys->fsync(posix->root_fd);
	fd = kvk_posix_open_below(posix, folder, O_RDONLY | O_DIRECTORY, 0, false);
	if (fd < 0)
		return fd;
	err = posix->sys->fsync(fd);
	posix->sys->close(fd);
	return err;
}

/*
 * Which process made a folder is not asked: another one may have made it a moment ago and not synced it yet. So
 * the first sync of each folder goes up to the root, and later ones only as far as it is needed.
 */
int kvk_posix_sync_folder(struct kvk_posix *posix, const char *name)
{
	char folder[KVK_NAME_BYTES_MAX], above[KVK_NAME_BYTES_MAX];
	int err = name_check(name);

	if (err)
		return err;
	split(folder, name);
	err = sync_one(posix, folder);
	if (err || !*folder || is_synced(posix, folder))
		return err;
	memcpy(above, folder, sizeof(above));
	while (*above) {
		char next[KVK_NAME_BYTES_MAX];

		split(next, above);
		memcpy(above, next, sizeof(above));
		err = sync_one(posix, above);
		if (err)
			return err;
	}
	set_synced(posix, folder, true);
	return 0;
}

/* Says what makes a folder unsafe and how to mend it. what: its path for people, tail: what comes after it. */
static int check_safe(struct kvk_posix *posix, int fd, const char *path, const char *tail, struct kvk_error *error)
{
	mode_t forbidden = posix->group ? S_IWOTH : S_IWGRP | S_IWOTH;
	struct statx stat;
	int err = posix->sys->statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &stat);

	if (err)
		return kvk_error_set(error, err, OPTION_PATH, "%s%s: %s", path, tail, strerror(-err));
	if (stat.stx_uid != posix->owner)
		return kvk_error_set(error, -EPERM, OPTION_PATH,
				     "%s%s has owner %u and mode %04o, but this process runs as %u; "
				     "if the store is its own: chown %u '%s%s'",
				     path, tail, stat.stx_uid, stat.stx_mode & 07777u, posix->owner, posix->owner,
				     path, tail);
	if (stat.stx_mode & forbidden)
		return kvk_error_set(error, -EPERM, OPTION_PATH,
				     "%s%s has owner %u and mode %04o: others may write there; "
				     "to mend it: chmod %s '%s%s'",
				     path, tail, stat.stx_uid, stat.stx_mode & 07777u, posix->group ? "o-w" : "go-w",
				     path, tail);
	return 0;
}

static int open_root_folder(struct kvk_posix *posix, const struct kvk_backend_options *options,
			    struct kvk_error *error)
{
	const char *path = options->path;
	bool made = false;
	int err;

	if (!path || !*path)
		return kvk_error_set(error, -EINVAL, OPTION_PATH, "a directory for the objects must be given");
	if (options->create) {
		err = posix->sys->mkdirat(AT_FDCWD, path, posix->folder_mode);
		made = !err;
		if (err == -ENOENT)
			return kvk_error_set(error, err, OPTION_PATH,
					     "%s cannot be made: the directory above it does not exist", path);
		if (err && err != -EEXIST)
			return kvk_error_set(error, err, OPTION_PATH, "%s cannot be made: %s", path,
					     strerror(-err));
	}
	posix->root_fd = posix->sys->openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	if (posix->root_fd < 0) {
		err = posix->root_fd;
		return kvk_error_set(error, err, OPTION_PATH, "%s cannot be opened: %s", path, strerror(-err));
	}
	if (made) {
		err = posix->sys->fchmod(posix->root_fd, posix->folder_mode);
		if (err)
			return kvk_error_set(error, err, OPTION_PATH, "mode of %s: %s", path, strerror(-err));
	}
	return check_safe(posix, posix->root_fd, path, "", error);
}

/* Linux 5.6 has openat2 and 5.12 RESOLVE_CACHED; a container's filter answers ENOSYS or EPERM. */
static void find_openat2(struct kvk_posix *posix)
{
	struct open_how how = {
		.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_CACHED,
	};
	int fd = posix->sys->openat2(posix->root_fd, ".", &how);

	posix->has_cached = fd >= 0 || fd == -EAGAIN;
	if (fd == -EINVAL) {
		how.resolve = RESOLVE_BENEATH;
		fd = posix->sys->openat2(posix->root_fd, ".", &how);
	}
	posix->has_openat2 = fd >= 0 || fd == -EAGAIN;
	if (fd >= 0)
		posix->sys->close(fd);
}

int kvk_posix_root_open(struct kvk_posix *posix, const struct kvk_backend_options *options, struct kvk_error *error)
{
	static const char *const inner[] = { "namespaces", "quarantine" };
	int err = open_root_folder(posix, options, error);

	if (err)
		return err;
	find_openat2(posix);
	if (options->create) {
		err = make_folder(posix, posix->root_fd, ".kvkeep");
		if (err)
			return kvk_error_set(error, err, OPTION_PATH, "%s/.kvkeep cannot be made: %s", options->path,
					     strerror(-err));
	}
	posix->own_fd = kvk_posix_open_below(posix, ".kvkeep", O_RDONLY | O_DIRECTORY, 0, false);
	if (posix->own_fd == -ENOENT)
		return kvk_error_set(error, -ENOENT, OPTION_PATH, "there is no store in %s", options->path);
	if (posix->own_fd < 0) {
		err = posix->own_fd;
		return kvk_error_set(error, err, OPTION_PATH, "%s/.kvkeep cannot be opened: %s", options->path,
				     strerror(-err));
	}
	err = check_safe(posix, posix->own_fd, options->path, "/.kvkeep", error);
	for (size_t i = 0; !err && options->create && i < sizeof(inner) / sizeof(inner[0]); i++) {
		err = make_folder(posix, posix->own_fd, inner[i]);
		if (err)
			kvk_error_set(error, err, OPTION_PATH, "%s/.kvkeep/%s cannot be made: %s", options->path,
				      inner[i], strerror(-err));
	}
	return err;
}
