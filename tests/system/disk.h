/* SPDX-License-Identifier: Apache-2.0 */
/*
 * File systems of a test's own, on images in memory, that can lose their power.
 *
 * All of it lives in a mount name space of the test program: a tmpfs over DISK_WORLD with the images, loop devices that
 * the kernel lets go with the last mount. When the program ends, however it ends, nothing is left.
 */
#ifndef KVK_TESTS_DISK_H
#define KVK_TESTS_DISK_H

#include <stdbool.h>
#include <stdint.h>

#define DISK_WORLD "/mnt"

struct disk_kind {
	const char *name;
	const char *type;              /* of the file system: mkfs.<type> makes it */
	const char *make;              /* options of mkfs */
	const char *mount;             /* options of mount */
	uint64_t bytes;                /* as small as mkfs allows */
};

extern const struct disk_kind disk_ext4, disk_ext4_no_auto, disk_ext4_writeback, disk_ext4_journal, disk_xfs, disk_btrfs;

struct disk {
	const struct disk_kind *kind;
	char image[96];
	char path[64];                 /* where it is mounted */
	char file[96];                 /* what is mounted instead of the image, past the page cache; empty: the image */
};

/* NULL: there is a world for disks now, made by the first call. Else why there can be none. */
const char *disk_world(void);
/* The same for one kind: its mkfs must be there too. */
const char *disk_unable(const struct disk_kind *kind);

/* Makes an image of bytes (0: the kind's own) with an empty file system at DISK_WORLD/name.image and mounts it on
 * DISK_WORLD/name. more: further options of mkfs, or "". Each returns 0 or -errno. */
int disk_make(struct disk *disk, const char *name, const struct disk_kind *kind, uint64_t bytes, const char *more);
/* The same in another folder than DISK_WORLD. */
int disk_make_in(struct disk *disk, const char *folder, const char *name, const struct disk_kind *kind, uint64_t bytes,
		 const char *more);
/* The same, and does not mount it yet. */
int disk_make_image(struct disk *disk, const char *folder, const char *name, const struct disk_kind *kind, uint64_t bytes,
		    const char *more);
/* Mounts an image that is there. */
int disk_mount(struct disk *disk);
int disk_remount(struct disk *disk, bool read_only);
/* Tries until nobody uses it any more, ten seconds at most. */
int disk_unmount(struct disk *disk);
/* Unmounts if need be, and removes image and mount point. One that was never made is all zeros. */
void disk_end(struct disk *disk);

/* What was not written to the image by now is lost, the journal's end included; every call fails until the disk is
 * mounted anew. ext4 and XFS. */
int disk_cut(const struct disk *disk);
/* A commit of the journal for somebody else's sake: an fsync of a file that has nothing to do with any store. */
int disk_sync_other(const struct disk *disk);
/* All of it to the image. */
int disk_sync(const struct disk *disk);
/* A copy of the image as it is at this instant; both lie on one XFS. */
int disk_snapshot(const struct disk *from, const char *image);

/* Runs a shell command; its status. */
int disk_shell(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
