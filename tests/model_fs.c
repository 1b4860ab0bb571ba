/* SPDX-License-Identifier: Apache-2.0 */
/* The recorder: a table of system calls that passes on and writes down. */
#include "model_fs.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DESCRIPTORS_MAX 65536

/* Guards all of it, and is held over the real call, so that there is one order. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct model_record *record;
static char root_path[200];
static uint32_t lacks;
static uint32_t inode_of_fd[DESCRIPTORS_MAX];

static void give_up(const char *what)
{
	fprintf(stderr, "the modelled file system: %s\n", what);
	abort();
}

static void *grow(void *array, uint32_t count, uint32_t *room, size_t each)
{
	if (count < *room)
		return array;
	*room = *room ? *room * 2 : 256;
	array = realloc(array, *room * each);
	if (!array)
		give_up("out of memory");
	return array;
}

static uint32_t add_inode(bool folder)
{
	record->inodes = grow(record->inodes, record->inode_count, &record->inode_room, sizeof(*record->inodes));
	record->inodes[record->inode_count] = (struct model_inode){
		.folder = folder, .first_op = MODEL_NEVER, .last_op = MODEL_NEVER,
	};
	return record->inode_count++;
}

static uint32_t find_name(const struct model_record *in, uint32_t folder, const char *text)
{
	for (uint32_t i = 1; i < in->name_count; i++) {
		if (in->names[i].folder == folder && !strcmp(in->names[i].text, text))
			return i;
	}
	return 0;
}

static uint32_t need_name(uint32_t folder, const char *text)
{
	uint32_t name = find_name(record, folder, text);

	if (name)
		return name;
	if (strlen(text) >= MODEL_NAME_BYTES)
		give_up("a name is too long");
	record->names = grow(record->names, record->name_count, &record->name_room, sizeof(*record->names));
	record->names[record->name_count] = (struct model_name){ .folder = folder };
	snprintf(record->names[record->name_count].text, MODEL_NAME_BYTES, "%s", text);
	return record->name_count++;
}

static struct model_op *add_op(enum model_kind kind, uint32_t inode)
{
	struct model_inode *of = &record->inodes[inode];
	uint32_t index = record->op_count;

	record->ops = grow(record->ops, index, &record->op_room, sizeof(*record->ops));
	record->ops[index] = (struct model_op){ .kind = kind, .inode = inode, .next = MODEL_NEVER, .safe_at = MODEL_NEVER };
	record->op_count++;
	if (kind == MODEL_WRITE || kind == MODEL_SIZE) {
		if (of->last_op == MODEL_NEVER)
			of->first_op = index;
		else
			record->ops[of->last_op].next = index;
		of->last_op = index;
	}
	return &record->ops[index];
}

/* The names of one call; a folder comes to lie where its name is. */
static void add_names(uint32_t count, const uint32_t names[2], const uint32_t inodes[2])
{
	struct model_op *op = add_op(MODEL_NAMES, 0);

	op->change_count = count;
	for (uint32_t i = 0; i < count; i++) {
		op->changes[i] = (struct model_change){ names[i], inodes[i], MODEL_NEVER };
		record->names[names[i]].now = inodes[i];
		if (record->inodes[inodes[i]].folder)
			record->inodes[inodes[i]].own_name = names[i];
	}
}

static void add_name(uint32_t name, uint32_t inode)
{
	add_names(1, (uint32_t[2]){ name, 0 }, (uint32_t[2]){ inode, 0 });
}

static void add_length(uint32_t inode, struct model_op *op, uint64_t bytes)
{
	struct model_inode *of = &record->inodes[inode];

	op->grows = bytes > of->length_bytes;
	of->length_bytes = op->grows ? bytes : of->length_bytes;
	op->length_bytes = of->length_bytes;
	if (of->length_bytes > MODEL_FILE_BYTES_MAX)
		give_up("a file is too long");
}

static void add_write(uint32_t inode, const struct iovec *iov, uint64_t bytes, uint64_t offset_bytes)
{
	struct model_op *op = add_op(MODEL_WRITE, inode);
	uint64_t used = 0;

	op->offset_bytes = offset_bytes;
	op->bytes = bytes;
	op->data = malloc(bytes + 1);
	if (!op->data)
		give_up("out of memory");
	for (; used < bytes; iov++) {
		uint64_t part = iov->iov_len < bytes - used ? iov->iov_len : bytes - used;

		memcpy(op->data + used, iov->iov_base, part);
		used += part;
	}
	add_length(inode, op, offset_bytes + bytes);
}

/* ---- which file ------------------------------------------------------------------------------------- */

static uint32_t inode_of(int fd)
{
	return fd >= 0 && fd < DESCRIPTORS_MAX ? inode_of_fd[fd] : 0;
}

static void set_inode(int fd, uint32_t inode)
{
	if (fd >= DESCRIPTORS_MAX)
		give_up("too many descriptors");
	inode_of_fd[fd] = inode;
}

/* The last component's folder, 0 where that is not below the root; and the component, empty for the folder itself. */
static uint32_t folder_of(int dir_fd, const char *path, char base[MODEL_NAME_BYTES])
{
	uint32_t folder = inode_of(dir_fd);
	size_t root_bytes = strlen(root_path);

	base[0] = '\0';
	if (dir_fd == AT_FDCWD) {
		if (strncmp(path, root_path, root_bytes) || (path[root_bytes] && path[root_bytes] != '/'))
			return 0;
		folder = 1;
		path += root_bytes;
	}
	while (folder && *path) {
		size_t bytes = strcspn(path, "/");

		if (bytes >= MODEL_NAME_BYTES)
			give_up("a name is too long");
		if (bytes > 0 && !(bytes == 1 && *path == '.')) {
			if (base[0])
				folder = record->names[find_name(record, folder, base)].now;
			memcpy(base, path, bytes);
			base[bytes] = '\0';
		}
		path += bytes;
		path += *path == '/';
	}
	return folder;
}

/* Of a path that may be "", "." or a link of /proc to a descriptor. */
static uint32_t find(int dir_fd, const char *path)
{
	char base[MODEL_NAME_BYTES];
	uint32_t folder;

	if (!strncmp(path, "/proc/self/fd/", 14))
		return inode_of(atoi(path + 14));
	if (!*path)
		return inode_of(dir_fd);
	folder = folder_of(dir_fd, path, base);
	return folder && base[0] ? record->names[find_name(record, folder, base)].now : folder;
}

static void opened(int fd, int dir_fd, const char *path, uint64_t flags)
{
	char base[MODEL_NAME_BYTES];
	uint32_t folder, inode;

	if (fd < 0 || !record)
		return;
	if ((flags & O_TMPFILE) == O_TMPFILE) {
		set_inode(fd, find(dir_fd, path) ? add_inode(false) : 0);
		return;
	}
	inode = find(dir_fd, path);
	if (!inode && flags & O_CREAT) {
		folder = folder_of(dir_fd, path, base);
		if (folder) {
			inode = add_inode(false);
			add_name(need_name(folder, base), inode);
		}
	}
	if (flags & O_TRUNC)
		give_up("files are not expected to be cut");
	set_inode(fd, inode);
}

/* ---- the calls -------------------------------------------------------------------------------------- */

static int model_openat2(int dir_fd, const char *path, const struct open_how *how)
{
	int fd;

	pthread_mutex_lock(&lock);
	fd = kvk_posix_sys_real.openat2(dir_fd, path, how);
	opened(fd, dir_fd, path, how->flags);
	pthread_mutex_unlock(&lock);
	return fd;
}

static int model_openat(int dir_fd, const char *path, int flags, mode_t mode)
{
	int fd;

	if ((flags & O_TMPFILE) == O_TMPFILE && lacks & MODEL_LACKS_TMPFILE)
		return -EOPNOTSUPP;
	pthread_mutex_lock(&lock);
	fd = kvk_posix_sys_real.openat(dir_fd, path, flags, mode);
	opened(fd, dir_fd, path, (uint64_t)(uint32_t)flags);
	pthread_mutex_unlock(&lock);
	return fd;
}

static int model_close(int fd)
{
	int err;

	pthread_mutex_lock(&lock);
	if (fd >= 0 && fd < DESCRIPTORS_MAX)
		inode_of_fd[fd] = 0;
	err = kvk_posix_sys_real.close(fd);
	pthread_mutex_unlock(&lock);
	return err;
}

static int model_mkdirat(int dir_fd, const char *path, mode_t mode)
{
	char base[MODEL_NAME_BYTES];
	uint32_t folder;
	int err;

	pthread_mutex_lock(&lock);
	err = kvk_posix_sys_real.mkdirat(dir_fd, path, mode);
	folder = err || !record ? 0 : folder_of(dir_fd, path, base);
	if (folder)
		add_name(need_name(folder, base), add_inode(true));
	pthread_mutex_unlock(&lock);
	return err;
}

static int model_linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
	char base[MODEL_NAME_BYTES];
	uint32_t folder, inode;
	int err;

	pthread_mutex_lock(&lock);
	inode = record ? find(from_fd, from) : 0;
	err = kvk_posix_sys_real.linkat(from_fd, from, to_fd, to, flags);
	folder = err || !inode ? 0 : folder_of(to_fd, to, base);
	if (folder)
		add_name(need_name(folder, base), inode);
	pthread_mutex_unlock(&lock);
	return err;
}

static int model_unlinkat(int dir_fd, const char *path, int flags)
{
	char base[MODEL_NAME_BYTES];
	uint32_t folder;
	int err;

	pthread_mutex_lock(&lock);
	err = kvk_posix_sys_real.unlinkat(dir_fd, path, flags);
	folder = err || !record ? 0 : folder_of(dir_fd, path, base);
	if (folder)
		add_name(need_name(folder, base), 0);
	pthread_mutex_unlock(&lock);
	return err;
}

static int model_renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
	uint32_t folders[2], names[2], inodes[2];
	char base[2][MODEL_NAME_BYTES];
	int err;

	if (flags == RENAME_EXCHANGE && lacks & MODEL_LACKS_EXCHANGE)
		return -EINVAL;
	pthread_mutex_lock(&lock);
	err = kvk_posix_sys_real.renameat2(from_fd, from, to_fd, to, flags);
	folders[0] = err || !record ? 0 : folder_of(from_fd, from, base[0]);
	folders[1] = folders[0] ? folder_of(to_fd, to, base[1]) : 0;
	if (folders[1]) {
		names[0] = need_name(folders[0], base[0]);
		names[1] = need_name(folders[1], base[1]);
		inodes[0] = flags == RENAME_EXCHANGE ? record->names[names[1]].now : 0;
		inodes[1] = record->names[names[0]].now;
		add_names(2, names, inodes);
	}
	pthread_mutex_unlock(&lock);
	return err;
}

static int64_t model_pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	int64_t moved;

	pthread_mutex_lock(&lock);
	moved = kvk_posix_sys_real.pwritev2(fd, iov, count, offset, flags);
	if (moved > 0 && record && inode_of(fd))
		add_write(inode_of(fd), iov, (uint64_t)moved, (uint64_t)offset);
	pthread_mutex_unlock(&lock);
	return moved;
}

static int model_fallocate(int fd, int mode, off_t offset, off_t bytes)
{
	int err;

	pthread_mutex_lock(&lock);
	err = kvk_posix_sys_real.fallocate(fd, mode, offset, bytes);
	if (!err && mode)
		give_up("only lengths are expected to be allocated");
	if (!err && record && inode_of(fd))
		add_length(inode_of(fd), add_op(MODEL_SIZE, inode_of(fd)), (uint64_t)(offset + bytes));
	pthread_mutex_unlock(&lock);
	return err;
}

static int sync_with(int (*real)(int fd), int fd, bool all)
{
	uint32_t inode;
	int err;

	pthread_mutex_lock(&lock);
	err = real(fd);
	inode = err || !record ? 0 : inode_of(fd);
	if (inode)
		add_op(all ? MODEL_SYNC_ALL : record->inodes[inode].folder ? MODEL_SYNC_FOLDER : MODEL_SYNC_FILE, inode);
	pthread_mutex_unlock(&lock);
	return err;
}

static int model_fdatasync(int fd)
{
	return sync_with(kvk_posix_sys_real.fdatasync, fd, false);
}

static int model_fsync(int fd)
{
	return sync_with(kvk_posix_sys_real.fsync, fd, false);
}

static int model_syncfs(int fd)
{
	return sync_with(kvk_posix_sys_real.syncfs, fd, true);
}

const struct kvk_posix_sys *model_table(void)
{
	static struct kvk_posix_sys table;

	/* What only looks is the real thing; so are modes, times and locks, which the model does not have. */
	table = kvk_posix_sys_real;
	table.openat2 = model_openat2;
	table.openat = model_openat;
	table.close = model_close;
	table.mkdirat = model_mkdirat;
	table.linkat = model_linkat;
	table.unlinkat = model_unlinkat;
	table.renameat2 = model_renameat2;
	table.pwritev2 = model_pwritev2;
	table.fallocate = model_fallocate;
	table.fdatasync = model_fdatasync;
	table.fsync = model_fsync;
	table.syncfs = model_syncfs;
	return &table;
}

/* ---- beginning and end ------------------------------------------------------------------------------ */

/* Files with several names: which inode they are. */
struct linked {
	ino_t real;
	uint32_t inode;
};

static void adopt_file(int dir_fd, const char *text, uint32_t inode)
{
	struct model_inode *of = &record->inodes[inode];
	int fd = openat(dir_fd, text, O_RDONLY | O_CLOEXEC);
	struct stat stat;

	if (fd < 0 || fstat(fd, &stat) || stat.st_size > (off_t)MODEL_FILE_BYTES_MAX)
		give_up("cannot take over a file");
	of->base_bytes = (uint64_t)stat.st_size;
	of->length_bytes = of->base_bytes;
	of->base = malloc(of->base_bytes + 1);
	if (!of->base || pread(fd, of->base, of->base_bytes, 0) != stat.st_size)
		give_up("cannot read a file");
	close(fd);
}

static void adopt_folder(int fd, uint32_t folder, struct linked *links, uint32_t *link_count)
{
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	struct stat stat;

	if (!dir)
		give_up("cannot list a folder");
	while ((entry = readdir(dir))) {
		uint32_t name, inode = 0;

		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		if (fstatat(dirfd(dir), entry->d_name, &stat, AT_SYMLINK_NOFOLLOW))
			give_up("cannot look at a file");
		for (uint32_t i = 0; i < *link_count; i++)
			inode = links[i].real == stat.st_ino ? links[i].inode : inode;
		if (!inode) {
			inode = add_inode(S_ISDIR(stat.st_mode));
			if (!S_ISDIR(stat.st_mode))
				adopt_file(dirfd(dir), entry->d_name, inode);
			if (!S_ISDIR(stat.st_mode) && stat.st_nlink > 1 && *link_count < 64)
				links[(*link_count)++] = (struct linked){ stat.st_ino, inode };
		}
		name = need_name(folder, entry->d_name);
		record->names[name].base = inode;
		record->names[name].now = inode;
		record->inodes[inode].own_name = name;
		if (S_ISDIR(stat.st_mode))
			adopt_folder(openat(dirfd(dir), entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC), inode, links, link_count);
	}
	closedir(dir);
}

void model_begin(const char *root, uint32_t what_lacks)
{
	struct linked links[64];
	uint32_t link_count = 0;

	pthread_mutex_lock(&lock);
	if (record)
		give_up("two are recorded at a time");
	record = calloc(1, sizeof(*record));
	if (!record)
		give_up("out of memory");
	snprintf(root_path, sizeof(root_path), "%s", root);
	lacks = what_lacks;
	record->names = grow(NULL, 0, &record->name_room, sizeof(*record->names));
	record->names[0] = (struct model_name){ 0 };
	record->name_count = 1;
	add_inode(false);
	add_inode(true);
	adopt_folder(open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC), 1, links, &link_count);
	pthread_mutex_unlock(&lock);
}

static void settle_op(uint32_t index, const uint32_t *synced, uint32_t all)
{
	struct model_op *op = &record->ops[index];

	if ((op->kind == MODEL_WRITE || op->kind == MODEL_SIZE) && op->safe_at == MODEL_NEVER)
		op->safe_at = synced[op->inode] < all ? synced[op->inode] : all;
	for (uint32_t i = 0; i < op->change_count; i++) {
		uint32_t folder = record->names[op->changes[i].name].folder;

		op->changes[i].safe_at = synced[folder] < all ? synced[folder] : all;
	}
}

struct model_record *model_end(void)
{
	struct model_record *ended = record;
	uint32_t *synced, all = MODEL_NEVER;

	pthread_mutex_lock(&lock);
	synced = malloc(record->inode_count * sizeof(*synced));
	if (!synced)
		give_up("out of memory");
	memset(synced, 0xff, record->inode_count * sizeof(*synced));
	for (uint32_t i = record->op_count; i-- > 0;) {
		const struct model_op *op = &record->ops[i];

		if (op->kind == MODEL_SYNC_ALL)
			all = i;
		else if (op->kind == MODEL_SYNC_FILE || op->kind == MODEL_SYNC_FOLDER)
			synced[op->inode] = i;
		else
			settle_op(i, synced, all);
	}
	free(synced);
	record = NULL;
	pthread_mutex_unlock(&lock);
	return ended;
}

void model_free(struct model_record *ended)
{
	if (!ended)
		return;
	for (uint32_t i = 0; i < ended->op_count; i++)
		free(ended->ops[i].data);
	for (uint32_t i = 0; i < ended->inode_count; i++)
		free(ended->inodes[i].base);
	free(ended->ops);
	free(ended->names);
	free(ended->inodes);
	free(ended);
}

uint32_t model_count(void)
{
	uint32_t count;

	pthread_mutex_lock(&lock);
	count = record->op_count;
	pthread_mutex_unlock(&lock);
	return count;
}

void model_sync_all(void)
{
	pthread_mutex_lock(&lock);
	add_op(MODEL_SYNC_ALL, 1);
	pthread_mutex_unlock(&lock);
}

uint32_t model_find(const struct model_record *in, const char *path)
{
	char part[MODEL_NAME_BYTES];
	uint32_t folder = 1, name = 0;

	for (; *path; path += strspn(path, "/")) {
		size_t bytes = strcspn(path, "/");

		if (name)
			folder = in->inodes[in->names[name].base].folder ? in->names[name].base : in->names[name].now;
		memcpy(part, path, bytes);
		part[bytes] = '\0';
		name = find_name(in, folder, part);
		if (!name)
			return 0;
		path += bytes;
	}
	return name;
}

bool model_damage(const char *path, uint64_t offset_bytes)
{
	uint32_t name, inode;
	char full[500];
	uint8_t byte;
	int fd;

	snprintf(full, sizeof(full), "%s/%s", root_path, path);
	pthread_mutex_lock(&lock);
	name = model_find(record, path);
	inode = record->names[name].now;
	fd = inode ? open(full, O_RDWR | O_CLOEXEC) : -1;
	if (fd >= 0 && pread(fd, &byte, 1, (off_t)offset_bytes) == 1) {
		byte ^= 0x20;
		if (pwrite(fd, &byte, 1, (off_t)offset_bytes) != 1)
			give_up("cannot damage a file");
		add_write(inode, &(struct iovec){ &byte, 1 }, 1, offset_bytes);
		/* Of itself. */
		record->ops[record->op_count - 1].safe_at = record->op_count - 1;
	} else {
		inode = 0;
	}
	if (fd >= 0)
		close(fd);
	pthread_mutex_unlock(&lock);
	return inode != 0;
}
