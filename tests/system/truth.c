/* SPDX-License-Identifier: Apache-2.0 */
#include "system/truth.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <kvkeep/kvkeep.h>

#include "format/format.h"
#include "util/clock.h"

static bool ends_in(const char *name, const char *end)
{
	size_t bytes = strlen(name), end_bytes = strlen(end);

	return bytes > end_bytes && !strcmp(name + bytes - end_bytes, end);
}

/* Files that have other names, too: published by link, one has both for a moment. */
struct linked {
	uint64_t inodes[1024];
	unsigned count;
};

/* A file that is counted already, by another name. */
static bool is_counted(struct linked *linked, const struct stat *stat)
{
	if (stat->st_nlink < 2)
		return false;
	for (unsigned i = 0; i < linked->count; i++) {
		if (linked->inodes[i] == stat->st_ino)
			return true;
	}
	if (linked->count < sizeof(linked->inodes) / sizeof(linked->inodes[0]))
		linked->inodes[linked->count++] = stat->st_ino;
	return false;
}

static void count(int above_fd, const char *folder, bool aside, struct truth *truth, struct linked *linked)
{
	int fd = openat(above_fd, folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	struct stat stat;

	while (dir && (entry = readdir(dir))) {
		const char *name = entry->d_name;

		if (!strcmp(name, ".") || !strcmp(name, "..") || fstatat(fd, name, &stat, AT_SYMLINK_NOFOLLOW))
			continue;
		if (S_ISDIR(stat.st_mode)) {
			if (!strcmp(name, ".kvkeep"))
				count(fd, ".kvkeep/quarantine", true, truth, linked);
			else
				count(fd, name, aside, truth, linked);
			continue;
		}
		if (!is_counted(linked, &stat))
			truth->bytes += ((uint64_t)stat.st_size + 4095) & ~UINT64_C(4095);
		if (aside)
			truth->aside++;
		else if (name[0] != '.' && (ends_in(name, ".kv") || ends_in(name, ".bin")))
			truth->objects++;
		else
			truth->others++;
	}
	if (dir)
		closedir(dir);
}

struct truth truth_of(const char *root)
{
	struct truth truth = { 0 };
	struct linked linked;

	linked.count = 0;
	count(AT_FDCWD, root, false, &truth, &linked);
	return truth;
}

/* ---- beside what the store says ------------------------------------------------------------------- */

static struct kvk_usage usage_of(struct kvk_store *store)
{
	struct kvk_usage usage = { .struct_bytes = sizeof(usage) };

	kvk_store_usage(store, &usage);
	return usage;
}

static const char *say(const struct kvk_usage *usage, const struct truth *truth)
{
	static char text[300];

	snprintf(text, sizeof(text), "usage%s says %" PRIu64 " bytes, %" PRIu64 " leased, %" PRIu64 " being written, cap %"
		 PRIu64 "; on the disk are %" PRIu64 " in %" PRIu64 " objects, %" PRIu64 " aside, %" PRIu64 " others",
		 usage->flags & KVK_USAGE_EXACT ? " (exact)" : "", usage->used_bytes, usage->leased_bytes,
		 usage->writing_bytes, usage->cap_bytes, truth->bytes, truth->objects, truth->aside, truth->others);
	return text;
}

const char *truth_disagrees(struct kvk_store *store, const char *root, uint64_t wait_us)
{
	uint64_t until_us = kvk_now_us() + wait_us;
	struct kvk_usage usage;
	struct truth truth;

	for (;; usleep(5000)) {
		usage = usage_of(store);
		truth = truth_of(root);
		if (usage.flags & KVK_USAGE_EXACT && usage.used_bytes == truth.bytes && truth.others == 0)
			return NULL;
		if (kvk_now_us() > until_us)
			return say(&usage, &truth);
	}
}

const char *truth_exceeds(struct kvk_store *store, const char *root)
{
	struct kvk_usage usage = usage_of(store);
	struct truth truth = truth_of(root);

	return usage.used_bytes + usage.leased_bytes < truth.bytes ? say(&usage, &truth) : NULL;
}

int truth_account(const char *root, uint64_t *counted_bytes, uint64_t *cap_bytes)
{
	struct kvk_account_image *images = calloc(2, sizeof(*images));
	uint8_t *data = malloc(2 * KVK_ACCOUNT_BYTES);
	char path[300];
	ssize_t got = 0;
	int fd, err = -ENOMEM;

	snprintf(path, sizeof(path), "%s/.kvkeep/account", root);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (images && data)
		err = fd < 0 ? -errno : 0;
	if (!err) {
		got = pread(fd, data, 2 * KVK_ACCOUNT_BYTES, 0);
		err = got < 0 ? -errno : kvk_account_parse_file(&images[0], &images[1], data, (size_t)got);
	}
	if (!err) {
		*cap_bytes = images->cap_bytes;
		*counted_bytes = images->loose_bytes;
		for (unsigned i = 0; i < KVK_ACCOUNT_BUCKETS; i++)
			*counted_bytes += images->charged_bytes[i];
		for (unsigned i = 0; i < KVK_ACCOUNT_ROWS; i++)
			*counted_bytes += images->rows[i].leased_bytes;
	}
	if (fd >= 0)
		close(fd);
	free(data);
	free(images);
	return err;
}

/* ---- this process --------------------------------------------------------------------------------- */

uint64_t truth_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	uint64_t count = 0;

	while (dir && readdir(dir))
		count++;
	if (dir)
		closedir(dir);
	return count;
}

uint64_t truth_memory(void)
{
	FILE *file = fopen("/proc/self/statm", "re");
	unsigned long pages = 0;

	if (file && fscanf(file, "%*u %lu", &pages) != 1)
		pages = 0;
	if (file)
		fclose(file);
	return (uint64_t)pages * 4096;
}
