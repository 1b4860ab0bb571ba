/* SPDX-License-Identifier: Apache-2.0 */
#include "system/truth.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool ends_in(const char *name, const char *end)
{
	size_t bytes = strlen(name), end_bytes = strlen(end);

	return bytes > end_bytes && !strcmp(name + bytes - end_bytes, end);
}

static void count(int above_fd, const char *folder, bool aside, struct truth *truth)
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
				count(fd, ".kvkeep/quarantine", true, truth);
			else
				count(fd, name, aside, truth);
			continue;
		}
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

	count(AT_FDCWD, root, false, &truth);
	return truth;
}

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
