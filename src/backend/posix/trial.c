/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can this medium do? Everything that can be tried is tried, in `.kvkeep`, with files that are gone again when
 * the trial is over: names of file systems and kernel versions say little (overlays, network file systems,
 * filters of containers). Nothing is synced, so a quiet machine needs well below a millisecond.
 */
#include "backend/posix/posix_private.h"

#include <errno.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>

#include "util/alloc.h"
#include "util/error.h"

#define OPTION_PATH "backend_params.file_path"
#define PAGE_BYTES 4096u
#define ALIGN_MIN_BYTES 512u
#define TEXT_BYTES_MAX (4u << 20)

static const struct {
	uint32_t magic;
	bool local;
	const char *name;
} mediums[] = {
	{ 0x0000ef53, true, "ext4" },          /* and ext2, ext3: mountinfo says which */
	{ 0x58465342, true, "xfs" },
	{ 0x9123683e, true, "btrfs" },
	{ 0xf2f52010, true, "f2fs" },
	{ 0x2fc12fc1, true, "zfs" },
	{ 0xca451a4e, true, "bcachefs" },
	{ 0x01021994, true, "tmpfs" },
	{ 0x858458f6, true, "ramfs" },
	{ 0x794c7630, true, "overlay" },
	{ 0x00006969, false, "nfs" },
	{ 0x65735546, false, "fuse" },         /* and virtiofs, gluster, sshfs */
	{ 0x01021997, false, "9p" },
	{ 0x00c36400, false, "ceph" },
	{ 0x0bd00bd0, false, "lustre" },
	{ 0xff534d42, false, "cifs" },
	{ 0xfe534d42, false, "smb" },
	{ 0x0000517b, false, "smb" },
	{ 0x5346414f, false, "afs" },
	{ 0x6b414653, false, "afs" },
	{ 0x47504653, false, "gpfs" },
	{ 0x19830326, false, "beegfs" },
};

/* Options of a mount with which what other machines do is not seen: their locks, or what they wrote. */
static const char *const blinding_options[] = {
	"nolock", "local_lock=all", "local_lock=posix", "local_lock=flock", "nocto",   /* NFS */
	"localflock",                                                                  /* Lustre */
	"nobrl",                                                                       /* CIFS */
};

static const char *const publish_names[KVK_PUBLISH_COUNT] = {
	[KVK_PUBLISH_PROCFD] = "linkat procfd",
	[KVK_PUBLISH_EMPTY_PATH] = "linkat empty path",
	[KVK_PUBLISH_RENAME] = "rename noreplace",
	[KVK_PUBLISH_LINK] = "link and unlink",
};

#define TRIAL_NAME_BYTES 64

struct mount {
	const char *blinding;          /* an option of those, or NULL */
	char point[PATH_MAX];
};

struct trial {
	struct kvk_posix *posix;
	char first[TRIAL_NAME_BYTES];  /* names in `.kvkeep`, there or not */
	char second[TRIAL_NAME_BYTES];
	int first_fd;
	int second_fd;
	void *page;                    /* two pages */
};

/* A full disk says nothing about what the medium can do. */
static bool is_full(int64_t err)
{
	return err == -ENOSPC || err == -EDQUOT;
}

static void set_publish(struct kvk_posix *posix, enum kvk_posix_publish publish)
{
	posix->publish = publish;
	snprintf(posix->base.caps.publish, sizeof(posix->base.caps.publish), "%s", publish_names[publish]);
}

void kvk_posix_force_publish(struct kvk_backend *backend, enum kvk_posix_publish publish)
{
	set_publish(kvk_posix_of(backend), publish);
}

/* ---- which medium ------------------------------------------------------------------------------- */

char *kvk_posix_read_text(const struct kvk_posix_sys *sys, const char *path)
{
	size_t room = 65536, used = 0;
	char *text = NULL;
	int fd = sys->openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);

	if (fd < 0)
		return NULL;
	text = kvk_mem_alloc(room);
	while (text) {
		struct iovec iov = { text + used, room - used - 1 };
		int64_t moved = sys->preadv2(fd, &iov, 1, (off_t)used, 0);
		char *grown;

		if (moved == -EINTR)
			continue;
		if (moved <= 0)
			break;
		used += (size_t)moved;
		if (room - used > PAGE_BYTES)
			continue;
		grown = room < TEXT_BYTES_MAX ? kvk_mem_realloc(text, room * 2) : NULL;
		if (!grown)
			break;
		text = grown;
		room *= 2;
	}
	if (text)
		text[used] = '\0';
	sys->close(fd);
	return text;
}

static bool has_option(const char *options, const char *word)
{
	size_t bytes = strlen(word);

	for (; options; options = strchr(options, ',')) {
		options += *options == ',';
		if (!strncmp(options, word, bytes) && (options[bytes] == ',' || options[bytes] == '\0'))
			return true;
	}
	return false;
}

static const char *find_blinding(const char *options)
{
	for (size_t i = 0; i < sizeof(blinding_options) / sizeof(blinding_options[0]); i++) {
		if (has_option(options, blinding_options[i]))
			return blinding_options[i];
	}
	return NULL;
}

/* A line: id parent major:minor root point options [tags...] - type source options */
static void read_mount_line(struct kvk_backend_caps *caps, char *line, struct mount *mount)
{
	char *tail = strstr(line, " - ");
	char *words[6] = { 0 };
	char *save = NULL;
	uint32_t count = 0;

	if (!tail)
		return;
	*tail = '\0';
	for (char *word = strtok_r(line, " ", &save); word && count < 6; word = strtok_r(NULL, " ", &save))
		words[count++] = word;
	if (count == 6) {
		caps->discard = has_option(words[5], "discard");
		snprintf(mount->point, sizeof(mount->point), "%s", words[4]);
	}
	save = NULL;
	count = 0;
	for (char *word = strtok_r(tail + 3, " ", &save); word && count < 3; word = strtok_r(NULL, " ", &save))
		words[count++] = word;
	if (count > 0)
		snprintf(caps->medium, sizeof(caps->medium), "%s", words[0]);
	if (count == 3) {
		caps->discard |= has_option(words[2], "discard");
		mount->blinding = find_blinding(words[2]);
	}
}

/* The number of the mount in mountinfo. statx tells it since Linux 5.8, and not everywhere where programs are confined. */
static bool find_mount_id(struct kvk_posix *posix, unsigned long long *ret)
{
	struct statx stat;
	char path[40], *text, *line;
	bool found;

	if (!posix->sys->statx(posix->root_fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &stat) && stat.stx_mask & STATX_MNT_ID) {
		*ret = stat.stx_mnt_id;
		return true;
	}
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", posix->root_fd);
	text = kvk_posix_read_text(posix->sys, path);
	line = text ? strstr(text, "mnt_id:") : NULL;
	found = line && sscanf(line, "mnt_id: %llu", ret) == 1;
	kvk_mem_free(text);
	return found;
}

/* Whether the kernel tells: where /proc is, and no chroot hides the mount. */
static bool find_mount(struct kvk_posix *posix, struct mount *mount)
{
	unsigned long long mount_id;
	char *text, *save = NULL;
	bool found = false;

	if (!find_mount_id(posix, &mount_id))
		return false;
	text = kvk_posix_read_text(posix->sys, "/proc/self/mountinfo");
	if (!text)
		return false;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		unsigned long long id;

		if (sscanf(line, "%llu ", &id) == 1 && id == mount_id) {
			read_mount_line(&posix->base.caps, line, mount);
			found = true;
			break;
		}
	}
	kvk_mem_free(text);
	return found;
}

static int find_medium(struct kvk_posix *posix, const struct kvk_backend_options *options, struct kvk_error *error)
{
	struct kvk_backend_caps *caps = &posix->base.caps;
	struct mount mount = { 0 };
	struct statfs stat;
	uint32_t magic;
	bool found;
	int err = posix->sys->fstatfs(posix->root_fd, &stat);

	if (err)
		return kvk_error_set(error, err, OPTION_PATH, "%s: file system: %s", options->path, strerror(-err));
	magic = (uint32_t)stat.f_type;
	snprintf(caps->medium, sizeof(caps->medium), "unknown (0x%x)", magic);
	for (size_t i = 0; i < sizeof(mediums) / sizeof(mediums[0]); i++) {
		if (mediums[i].magic == magic) {
			caps->local = mediums[i].local;
			snprintf(caps->medium, sizeof(caps->medium), "%s", mediums[i].name);
		}
	}
	found = find_mount(posix, &mount);
	if (!caps->local && !options->shared)
		return kvk_error_set(error, -EPERM, OPTION_PATH,
				     "%s is on %s, which is not known to be a file system of this machine alone; "
				     "set \"shared\": true to use it all the same",
				     options->path, caps->medium);
	if (!found && !caps->local && options->many_hosts)
		return kvk_error_set(error, -EOPNOTSUPP, "shared",
				     "%s is on %s, and the kernel does not tell with which options (that takes /proc/self/mountinfo, and "
				     "a mount below the root of this process), by which to tell whether this machine sees what others "
				     "lock and write",
				     options->path, caps->medium);
	if (mount.blinding && options->many_hosts)
		return kvk_error_set(error, -EOPNOTSUPP, "shared",
				     "%s is mounted with %s, so that this machine does not see what others lock or write; mount it "
				     "without that", options->path, mount.blinding);
	if (!strcmp(caps->medium, "fuse.glusterfs") && options->many_hosts)
		return kvk_posix_check_gluster(posix, options->path, mount.point, error);
	return 0;
}

/* ---- publishing --------------------------------------------------------------------------------- */

/* Gives the name another value if there is a file of that name afterwards. */
static int create_file(struct trial *trial, char name[TRIAL_NAME_BYTES])
{
	char temp[TRIAL_NAME_BYTES];
	int fd = kvk_posix_make_temp(trial->posix, trial->posix->own_fd, ".kvkeep/trial", O_RDWR | O_NOFOLLOW | O_CLOEXEC, temp,
				     sizeof(temp));

	if (fd >= 0)
		memcpy(name, temp, sizeof(temp));
	return fd;
}

/* Leaves a file under the first name, by the best of the two ways that need no temporary name. */
static int try_nameless(struct trial *trial)
{
	const struct kvk_posix_sys *sys = trial->posix->sys;
	int own_fd = trial->posix->own_fd;
	char procfd[32];
	int err;

	trial->first_fd = sys->openat(own_fd, ".", O_RDWR | O_TMPFILE | O_CLOEXEC, trial->posix->file_mode);
	if (trial->first_fd < 0)
		return trial->first_fd;
	kvk_posix_claim(trial->posix, trial->first_fd);
	snprintf(procfd, sizeof(procfd), "/proc/self/fd/%d", trial->first_fd);
	err = sys->linkat(AT_FDCWD, procfd, own_fd, trial->first, AT_SYMLINK_FOLLOW);
	if (is_full(err))
		return err;
	if (!err) {
		trial->posix->has_procfd = true;
		set_publish(trial->posix, KVK_PUBLISH_PROCFD);
		/* The same inode under a second name: the cheaper way, if this process may take it: before Linux 6.10 it needs
		 * CAP_DAC_READ_SEARCH, since then the credentials that opened the file. */
		if (!sys->linkat(trial->first_fd, "", own_fd, trial->second, AT_EMPTY_PATH)) {
			set_publish(trial->posix, KVK_PUBLISH_EMPTY_PATH);
			sys->unlinkat(own_fd, trial->second, 0);
		}
		return 0;
	}
	err = sys->linkat(trial->first_fd, "", own_fd, trial->first, AT_EMPTY_PATH);
	if (!err)
		set_publish(trial->posix, KVK_PUBLISH_EMPTY_PATH);
	return err;
}

/* With both names taken by different files. Exchanging two names of one file would always seem to work. */
static void try_renames(struct trial *trial)
{
	struct kvk_posix *posix = trial->posix;
	int fd = posix->own_fd;

	posix->base.caps.exchange = !posix->sys->renameat2(fd, trial->first, fd, trial->second, RENAME_EXCHANGE);
	if (posix->sys->renameat2(fd, trial->first, fd, trial->second, RENAME_NOREPLACE) != -EEXIST)
		return;
	posix->sys->unlinkat(fd, trial->second, 0);
	posix->has_noreplace = !posix->sys->renameat2(fd, trial->first, fd, trial->second, RENAME_NOREPLACE);
	if (posix->has_noreplace)
		posix->sys->renameat2(fd, trial->second, fd, trial->first, RENAME_NOREPLACE);
}

static int try_publish(struct trial *trial, struct kvk_error *error)
{
	struct kvk_posix *posix = trial->posix;
	bool nameless;
	int err = try_nameless(trial);

	nameless = !err;
	if (is_full(err)) {
		/* The usual kind of local disk, and full: what is there can be served. */
		set_publish(posix, KVK_PUBLISH_PROCFD);
		posix->has_noreplace = true;
		posix->base.caps.exchange = true;
		return 0;
	}
	if (err) {
		if (trial->first_fd >= 0)
			posix->sys->close(trial->first_fd);
		trial->first_fd = create_file(trial, trial->first);
		if (trial->first_fd < 0) {
			err = trial->first_fd;
			return kvk_error_set(error, err, OPTION_PATH, "no file can be made in .kvkeep: %s",
					     strerror(-err));
		}
	}
	trial->second_fd = create_file(trial, trial->second);
	if (trial->second_fd >= 0)
		try_renames(trial);
	if (nameless)
		return 0;
	if (posix->has_noreplace) {
		set_publish(posix, KVK_PUBLISH_RENAME);
		return 0;
	}
	posix->sys->unlinkat(posix->own_fd, trial->second, 0);
	err = posix->sys->linkat(posix->own_fd, trial->first, posix->own_fd, trial->second, 0);
	if (err)
		return kvk_error_set(error, -EOPNOTSUPP, OPTION_PATH,
				     "%s has no way to give a file a name without replacing another (link: %s)",
				     posix->base.caps.medium, strerror(-err));
	set_publish(posix, KVK_PUBLISH_LINK);
	return 0;
}

/* ---- direct I/O --------------------------------------------------------------------------------- */

static int64_t direct_round(struct trial *trial, int fd, uint32_t align_bytes, uint32_t bytes)
{
	/* The address is a multiple of align_bytes and of nothing larger. */
	struct iovec iov = { (char *)trial->page + align_bytes, bytes };
	const struct kvk_posix_sys *sys = trial->posix->sys;
	off_t offset = bytes < PAGE_BYTES ? (off_t)align_bytes : 0;
	int64_t moved = sys->pwritev2(fd, &iov, 1, offset, 0);

	if (moved == (int64_t)bytes)
		moved = sys->preadv2(fd, &iov, 1, offset, 0);
	if (moved < 0)
		return moved;
	return moved == (int64_t)bytes ? 0 : -EIO;
}

static int64_t try_direct_fd(struct trial *trial, int fd)
{
	struct kvk_backend_caps *caps = &trial->posix->base.caps;
	uint32_t memory_bytes = 0, offset_bytes = 0;
	struct statx stat;
	int64_t err;

	if (!trial->posix->sys->statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stat) &&
	    stat.stx_mask & STATX_DIOALIGN) {
		memory_bytes = stat.stx_dio_mem_align;
		offset_bytes = stat.stx_dio_offset_align;
	}
	err = direct_round(trial, fd, PAGE_BYTES, PAGE_BYTES);
	if (err && !is_full(err))
		return err;
	if (!memory_bytes || !offset_bytes) {
		/* Not said (before 6.1): found out. btrfs takes anything, and what is not a whole block of 4 KiB goes
		 * through the page cache without a word. */
		memory_bytes = !err && strcmp(caps->medium, "btrfs") &&
			       !direct_round(trial, fd, ALIGN_MIN_BYTES, ALIGN_MIN_BYTES) ?
			       ALIGN_MIN_BYTES : PAGE_BYTES;
		offset_bytes = memory_bytes;
	}
	caps->align_memory_bytes = memory_bytes > ALIGN_MIN_BYTES ? memory_bytes : ALIGN_MIN_BYTES;
	caps->align_offset_bytes = offset_bytes > ALIGN_MIN_BYTES ? offset_bytes : ALIGN_MIN_BYTES;
	caps->direct = true;
	return 0;
}

static void try_direct(struct trial *trial, const struct kvk_backend_options *options)
{
	struct kvk_posix *posix = trial->posix;
	struct kvk_backend_caps *caps = &posix->base.caps;
	int64_t err = posix->sys->openat(posix->own_fd, trial->first, O_RDWR | O_DIRECT | O_NOFOLLOW | O_CLOEXEC, 0);

	if (err >= 0) {
		int fd = (int)err;

		err = try_direct_fd(trial, fd);
		posix->sys->close(fd);
	}
	if (!err)
		return;
	snprintf(caps->direct_note, sizeof(caps->direct_note), "%s refuses direct I/O (%s); buffered I/O is used",
		 caps->medium, strerror((int)-err));
	kvk_log(options->log, KVK_LOG_WARNING, "%s: %s", options->path, caps->direct_note);
}

/* ------------------------------------------------------------------------------------------------- */

static void try_others(struct trial *trial)
{
	struct kvk_posix *posix = trial->posix;
	struct iovec iov = { trial->page, PAGE_BYTES };
	struct statx stat;
	int64_t moved;

	/* The file is empty, so nothing could wait: an error is a refusal of the flag. */
	moved = posix->sys->preadv2(trial->first_fd, &iov, 1, 0, RWF_NOWAIT);
	posix->base.caps.nowait = moved >= 0 || moved == -EAGAIN;
	if (posix->sys->statx(trial->first_fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &stat)) {
		posix->must_chmod = true;
	} else {
		posix->base.caps.birth_time = stat.stx_mask & STATX_BTIME && stat.stx_btime.tv_sec;
		posix->must_chmod = posix->group || (stat.stx_mode & 0777) != posix->file_mode;
	}
}

int kvk_posix_trial(struct kvk_posix *posix, const struct kvk_backend_options *options, struct kvk_error *error)
{
	struct trial trial = { .posix = posix, .first_fd = -1, .second_fd = -1 };
	int err;

	posix->must_chmod = true;
	posix->base.caps.align_memory_bytes = 1;
	posix->base.caps.align_offset_bytes = 1;
	err = find_medium(posix, options, error);
	if (err)
		return err;
	trial.page = kvk_mem_map(2 * PAGE_BYTES);
	if (!trial.page)
		return kvk_error_set(error, -ENOMEM, NULL, "out of memory");
	err = kvk_posix_temp_base(posix, ".kvkeep/trial", trial.first, sizeof(trial.first));
	if (!err)
		err = kvk_posix_temp_base(posix, ".kvkeep/trial", trial.second, sizeof(trial.second));
	if (!err)
		err = try_publish(&trial, error);
	if (!err && trial.first_fd >= 0) {
		try_others(&trial);
		if (options->direct)
			try_direct(&trial, options);
	}

	if (trial.first[0])
		posix->sys->unlinkat(posix->own_fd, trial.first, 0);
	if (trial.second[0])
		posix->sys->unlinkat(posix->own_fd, trial.second, 0);
	if (trial.first_fd >= 0)
		posix->sys->close(trial.first_fd);
	if (trial.second_fd >= 0)
		posix->sys->close(trial.second_fd);
	kvk_mem_unmap(trial.page, 2 * PAGE_BYTES);
	return err;
}
