/* SPDX-License-Identifier: Apache-2.0 */
#include "doctor.h"

#include <errno.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "cli.h"
#include "text.h"

#define FREE_GOOD (UINT64_C(4) << 30)
#define INODES_GOOD 100000

/* Magic numbers that linux/magic.h leaves to the file systems themselves. */
#define XFS_MAGIC 0x58465342
#define FUSE_MAGIC 0x65735546
#define P9_MAGIC 0x01021997
#define CIFS_MAGIC 0xff534d42
#define CEPH_MAGIC 0x00c36400
#define ZFS_MAGIC 0x2fc12fc1

struct file_system {
	unsigned long magic;
	const char *name;
	const char *advice;
};

static const struct file_system file_systems[] = {
	{ EXT4_SUPER_MAGIC, "ext4", NULL },
	{ XFS_MAGIC, "XFS", NULL },
	{ BTRFS_SUPER_MAGIC, "btrfs", NULL },
	{ F2FS_SUPER_MAGIC, "f2fs", NULL },
	{ ZFS_MAGIC, "ZFS", NULL },
	{ TMPFS_MAGIC, "tmpfs", "what is kept here is memory, and gone after a restart" },
	{ RAMFS_MAGIC, "ramfs", "what is kept here is memory, and gone after a restart" },
	{ OVERLAYFS_SUPER_MAGIC, "overlayfs", "mount a volume here: a container's own layer is slow and goes with it" },
	{ NFS_SUPER_MAGIC, "NFS", "not local: wants \"shared\": true" },
	{ FUSE_MAGIC, "FUSE", "not local: wants \"shared\": true" },
	{ P9_MAGIC, "9p", "not local: wants \"shared\": true" },
	{ CIFS_MAGIC, "CIFS", "not local: wants \"shared\": true" },
	{ CEPH_MAGIC, "Ceph", "not local: wants \"shared\": true" },
};

static void note_file_system(struct kvk_doctor *doctor, const char *directory)
{
	struct statfs stat;

	if (statfs(directory, &stat)) {
		kvk_doctor_note(doctor, KVK_HEALTH_BAD, "file system", "make it readable", "%s", strerror(errno));
		return;
	}
	for (size_t i = 0; i < sizeof(file_systems) / sizeof(file_systems[0]); i++) {
		const struct file_system *known = &file_systems[i];

		if ((unsigned long)stat.f_type != known->magic)
			continue;
		kvk_doctor_note(doctor, known->advice ? KVK_HEALTH_WARN : KVK_HEALTH_OK, "file system", known->advice,
				"%s", known->name);
		return;
	}
	kvk_doctor_note(doctor, KVK_HEALTH_WARN, "file system", "ext4, XFS and btrfs are tested", "of unknown kind 0x%lx",
			(unsigned long)stat.f_type);
}

static void note_room(struct kvk_doctor *doctor, const char *directory)
{
	char free_text[KVK_CLI_TEXT_BYTES], all_text[KVK_CLI_TEXT_BYTES];
	struct statvfs stat;
	uint64_t free_bytes, all_bytes;

	if (statvfs(directory, &stat))
		return;
	free_bytes = (uint64_t)stat.f_bavail * stat.f_frsize;
	all_bytes = (uint64_t)stat.f_blocks * stat.f_frsize;
	kvk_cli_format_bytes(free_text, free_bytes);
	kvk_cli_format_bytes(all_text, all_bytes);
	if (free_bytes < FREE_GOOD)
		kvk_doctor_note(doctor, KVK_HEALTH_WARN, "free space", "make room, or keep the cap (max_capacity_gb) "
				"below what is there", "%s of %s", free_text, all_text);
	else
		kvk_doctor_note(doctor, KVK_HEALTH_OK, "free space", NULL, "%s of %s", free_text, all_text);
	if (stat.f_files == 0)
		kvk_doctor_note(doctor, KVK_HEALTH_OK, "free inodes", NULL, "made as they are needed");
	else if (stat.f_favail < INODES_GOOD)
		kvk_doctor_note(doctor, KVK_HEALTH_WARN, "free inodes", "an object takes one: make the file system anew "
				"with more of them (mkfs.ext4 -N)", "%llu of %llu",
				(unsigned long long)stat.f_favail, (unsigned long long)stat.f_files);
	else
		kvk_doctor_note(doctor, KVK_HEALTH_OK, "free inodes", NULL, "%llu of %llu",
				(unsigned long long)stat.f_favail, (unsigned long long)stat.f_files);
	if (stat.f_flag & ST_RDONLY)
		kvk_doctor_note(doctor, KVK_HEALTH_BAD, "writable", "mount it writable: mount -o remount,rw",
				"the file system is read-only");
}

static void note_owner(struct kvk_doctor *doctor, const char *directory)
{
	char advice[PATH_MAX + 160];
	struct stat stat_buffer;
	unsigned mode;

	if (stat(directory, &stat_buffer))
		return;
	mode = stat_buffer.st_mode & 07777;
	if (stat_buffer.st_uid != geteuid()) {
		snprintf(advice, sizeof(advice), "a store belongs to one user: chown %u %s", (unsigned)geteuid(), directory);
		kvk_doctor_note(doctor, KVK_HEALTH_BAD, "owner", advice, "user %u, and you are %u",
				(unsigned)stat_buffer.st_uid, (unsigned)geteuid());
	} else {
		kvk_doctor_note(doctor, KVK_HEALTH_OK, "owner", NULL, "user %u", (unsigned)stat_buffer.st_uid);
	}
	if (mode & 022) {
		snprintf(advice, sizeof(advice), "others may write here, and what is loaded from here is trusted: "
			 "chmod 0700 %s", directory);
		kvk_doctor_note(doctor, KVK_HEALTH_BAD, "mode", advice, "%04o", mode);
	} else if (mode & 055) {
		snprintf(advice, sizeof(advice), "others may read here, and what is cached can be turned back into the "
			 "prompt: chmod 0700 %s", directory);
		kvk_doctor_note(doctor, KVK_HEALTH_WARN, "mode", advice, "%04o", mode);
	} else {
		kvk_doctor_note(doctor, KVK_HEALTH_OK, "mode", NULL, "%04o", mode);
	}
}

void kvk_doctor_directory(struct kvk_doctor *doctor, const char *directory)
{
	char existing[PATH_MAX];

	doctor->part = "directory";
	kvk_cli_existing_folder(existing, directory);
	if (access(directory, F_OK))
		kvk_doctor_note(doctor, KVK_HEALTH_OK, "directory", NULL, "%s is not there yet; the first put makes it; "
				"looking at %s", directory, existing);
	else
		note_owner(doctor, existing);
	note_file_system(doctor, existing);
	note_room(doctor, existing);
}
