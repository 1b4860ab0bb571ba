/* SPDX-License-Identifier: Apache-2.0 */
#include "system/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)
/* EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN are the same number; 2 is "without writing the journal first". */
#define SHUTDOWN _IOR('X', 125, uint32_t)
#define SHUTDOWN_AT_ONCE 2

/* A small journal and a long interval between its commits: what is not asked for is not written. */
#define EXT4_MAKE "-q -F -b 4096 -J size=8 -E lazy_itable_init=0,lazy_journal_init=0"

const struct disk_kind disk_ext4 = { "ext4", "ext4", EXT4_MAKE, "commit=300", 160 * MIB };
const struct disk_kind disk_ext4_no_auto = { "ext4, noauto_da_alloc", "ext4", EXT4_MAKE, "commit=300,noauto_da_alloc",
					     160 * MIB };
const struct disk_kind disk_ext4_writeback = { "ext4, data=writeback", "ext4", EXT4_MAKE, "commit=300,data=writeback",
					       160 * MIB };
const struct disk_kind disk_ext4_journal = { "ext4, data=journal", "ext4", EXT4_MAKE, "commit=300,data=journal",
					     160 * MIB };
/* Images of one disk are mounted beside each other: their ids are not looked at. */
const struct disk_kind disk_xfs = { "xfs", "xfs", "-q -f", "nouuid", 320 * MIB };
const struct disk_kind disk_btrfs = { "btrfs", "btrfs", "-q -f", "commit=300", 256 * MIB };

int disk_shell(const char *format, ...)
{
	va_list arguments;
	char command[512];

	va_start(arguments, format);
	vsnprintf(command, sizeof(command), format, arguments);
	va_end(arguments);
	return system(command);
}

const char *disk_world(void)
{
	static bool there;

	if (there)
		return NULL;
	if (geteuid() != 0)
		return "file systems of its own need root";
	if (access("/dev/loop-control", R_OK | W_OK))
		return "there are no loop devices here";
	if (access(DISK_WORLD, X_OK))
		return "there is no " DISK_WORLD " to mount on";
	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("kvkeep-tests", DISK_WORLD, "tmpfs", 0, "mode=0700,size=6g"))
		return "mounting is forbidden here";
	there = true;
	return NULL;
}

const char *disk_unable(const struct disk_kind *kind)
{
	static char text[64];
	const char *why = disk_world();

	if (why)
		return why;
	snprintf(text, sizeof(text), "there is no mkfs.%s here", kind->type);
	return disk_shell("PATH=$PATH:/sbin:/usr/sbin; command -v mkfs.%s >/dev/null", kind->type) ? text : NULL;
}

/* A loop device for the image, gone with the last that uses it. Returns its open descriptor. */
static int attach(const char *image, bool direct, char device[32])
{
	struct loop_config config = { .block_size = 0 };
	int control, file, loop = -1, number, err = -EBUSY;

	control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	file = open(image, O_RDWR | O_CLOEXEC);
	if (control < 0 || file < 0) {
		err = -errno;
		goto out;
	}
	config.fd = (uint32_t)file;
	config.info.lo_flags = LO_FLAGS_AUTOCLEAR | (direct ? LO_FLAGS_DIRECT_IO : 0);
	/* Others take the device that was free a moment ago. */
	for (int tries = 0; tries < 100 && err == -EBUSY; tries++) {
		number = ioctl(control, LOOP_CTL_GET_FREE);
		if (number < 0) {
			err = -errno;
			break;
		}
		snprintf(device, 32, "/dev/loop%d", number);
		loop = open(device, O_RDWR | O_CLOEXEC);
		if (loop < 0) {
			err = -errno;
			break;
		}
		err = ioctl(loop, LOOP_CONFIGURE, &config) ? -errno : 0;
		if (err) {
			close(loop);
			loop = -1;
		}
	}
out:
	if (file >= 0)
		close(file);
	if (control >= 0)
		close(control);
	return err ? err : loop;
}

int disk_mount(struct disk *disk)
{
	char device[32];
	int err, loop = attach(disk->file[0] ? disk->file : disk->image, disk->file[0], device);

	if (loop < 0)
		return loop;
	err = mount(device, disk->path, disk->kind->type, 0, disk->kind->mount) ? -errno : 0;
	close(loop);
	return err;
}

int disk_remount(struct disk *disk, bool read_only)
{
	return mount(NULL, disk->path, NULL, MS_REMOUNT | (read_only ? MS_RDONLY : 0), NULL) ? -errno : 0;
}

int disk_unmount(struct disk *disk)
{
	const struct timespec pause = { .tv_nsec = 1000000 };
	int err = 0;

	for (int tries = 0; tries < 10000; tries++) {
		err = umount2(disk->path, UMOUNT_NOFOLLOW) ? -errno : 0;
		if (err != -EBUSY)
			break;
		nanosleep(&pause, NULL);
	}
	return err;
}

int disk_make_image(struct disk *disk, const char *folder, const char *name, const struct disk_kind *kind, uint64_t bytes,
		    const char *more)
{
	int fd, err;

	disk->kind = kind;
	disk->file[0] = 0;
	snprintf(disk->image, sizeof(disk->image), "%s/%s.image", folder, name);
	snprintf(disk->path, sizeof(disk->path), DISK_WORLD "/%s", name);
	fd = open(disk->image, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	err = ftruncate(fd, (off_t)(bytes ? bytes : kind->bytes)) ? -errno : 0;
	close(fd);
	if (!err && disk_shell("PATH=$PATH:/sbin:/usr/sbin; mkfs.%s %s %s %s >/dev/null", kind->type, kind->make, more,
			       disk->image))
		err = -EIO;
	if (!err && mkdir(disk->path, 0700) && errno != EEXIST)
		err = -errno;
	return err;
}

int disk_make_in(struct disk *disk, const char *folder, const char *name, const struct disk_kind *kind, uint64_t bytes,
		 const char *more)
{
	int err = disk_make_image(disk, folder, name, kind, bytes, more);

	return err ? err : disk_mount(disk);
}

int disk_make(struct disk *disk, const char *name, const struct disk_kind *kind, uint64_t bytes, const char *more)
{
	return disk_make_in(disk, DISK_WORLD, name, kind, bytes, more);
}

void disk_end(struct disk *disk)
{
	if (!disk->kind)
		return;
	umount2(disk->path, MNT_DETACH);
	rmdir(disk->path);
	unlink(disk->image);
}

int disk_cut(const struct disk *disk)
{
	uint32_t how = SHUTDOWN_AT_ONCE;
	int err, fd = open(disk->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	err = ioctl(fd, SHUTDOWN, &how) ? -errno : 0;
	close(fd);
	return err;
}

int disk_sync_other(const struct disk *disk)
{
	char path[96];
	int fd, err;

	snprintf(path, sizeof(path), "%s/elsewhere", disk->path);
	fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	err = write(fd, path, sizeof(path)) != sizeof(path) || fsync(fd) ? -errno : 0;
	close(fd);
	return err;
}

int disk_sync(const struct disk *disk)
{
	int err, fd = open(disk->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	err = syncfs(fd) ? -errno : 0;
	close(fd);
	return err;
}

int disk_snapshot(const struct disk *from, const char *image)
{
	int source, copy, err;

	source = open(from->image, O_RDONLY | O_CLOEXEC);
	copy = open(image, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	err = source < 0 || copy < 0 || ioctl(copy, FICLONE, source) ? -errno : 0;
	if (source >= 0)
		close(source);
	if (copy >= 0)
		close(copy);
	return err;
}
