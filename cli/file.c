/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "text.h"

int kvk_cli_read_file(struct kvk_cli_blob *ret, const char *path, uint64_t bytes_max)
{
	bool standard = !path || !strcmp(path, "-");
	const char *name = standard ? "standard input" : path;
	char text[KVK_CLI_TEXT_BYTES];
	uint64_t room = 1 << 16, bytes = 0;
	struct kvk_progress progress;
	struct stat stat;
	char *data = NULL;
	int fd = STDIN_FILENO, status;

	kvk_progress_begin(&progress, "read");
	if (!standard)
		fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		status = kvk_cli_fail("%s: %s", name, strerror(errno));
		goto out;
	}
	/* A byte more than the file, so that its end is seen without growing once more. */
	if (!fstat(fd, &stat) && S_ISREG(stat.st_mode) && (uint64_t)stat.st_size <= bytes_max)
		room = (uint64_t)stat.st_size + 1;
	for (;;) {
		ssize_t got;

		if (!data || bytes == room) {
			char *grown;

			if (data)
				room *= 2;
			grown = realloc(data, room);
			if (!grown) {
				status = kvk_cli_fail("%s: not enough memory for %s", name,
						      kvk_cli_format_bytes(text, room));
				goto out;
			}
			data = grown;
		}
		got = read(fd, data + bytes, room - bytes);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			status = kvk_cli_fail("%s: %s", name, strerror(errno));
			goto out;
		}
		if (got == 0)
			break;
		bytes += (uint64_t)got;
		if (bytes > bytes_max) {
			status = kvk_cli_fail("%s: longer than %s", name,
					      kvk_cli_format_bytes(text, bytes_max));
			goto out;
		}
		kvk_progress_show(&progress, bytes, 0, "bytes", bytes);
	}
	*ret = (struct kvk_cli_blob){ .data = data, .bytes = bytes };
	data = NULL;
	status = 0;
out:
	kvk_progress_end(&progress);
	free(data);
	if (!standard && fd >= 0)
		close(fd);
	return status;
}

static int write_all(int fd, const char *data, uint64_t bytes)
{
	while (bytes) {
		ssize_t put = write(fd, data, bytes);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		data += put;
		bytes -= (uint64_t)put;
	}
	return 0;
}

/* An existing regular file keeps its mode; its name is changed over only when everything is written. */
static int replace_file(const char *path, mode_t mode, const void *data, uint64_t bytes)
{
	char temporary[PATH_MAX];
	int fd = -1, err;

	if (snprintf(temporary, sizeof(temporary), "%s.kvkeep-XXXXXX", path) >= (int)sizeof(temporary))
		return -ENAMETOOLONG;
	fd = mkostemp(temporary, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	err = write_all(fd, data, bytes);
	if (!err && fchmod(fd, mode))
		err = -errno;
	if (close(fd) && !err)
		err = -errno;
	if (!err && rename(temporary, path))
		err = -errno;
	if (err)
		unlink(temporary);
	return err;
}

int kvk_cli_write_file(const char *path, const void *data, uint64_t bytes)
{
	char resolved[PATH_MAX];
	struct stat stat_buffer;
	int err, fd;

	if (!path || !strcmp(path, "-")) {
		fflush(stdout);
		err = write_all(STDOUT_FILENO, data, bytes);
		return err ? kvk_cli_fail("standard output: %s", strerror(-err)) : 0;
	}
	if (stat(path, &stat_buffer)) {
		err = errno == ENOENT ? replace_file(path, 0600, data, bytes) : -errno;
	} else if (S_ISREG(stat_buffer.st_mode)) {
		err = realpath(path, resolved) ?
			replace_file(resolved, stat_buffer.st_mode & 07777, data, bytes) : -errno;
	} else {
		fd = open(path, O_WRONLY | O_CLOEXEC);
		if (fd < 0) {
			err = -errno;
		} else {
			err = write_all(fd, data, bytes);
			if (close(fd) && !err)
				err = -errno;
		}
	}
	return err ? kvk_cli_fail("%s: %s", path, strerror(-err)) : 0;
}

const char *kvk_cli_existing_folder(char *ret, const char *path)
{
	struct stat stat_buffer;

	snprintf(ret, PATH_MAX, "%s", path);
	while (stat(ret, &stat_buffer) || !S_ISDIR(stat_buffer.st_mode)) {
		char *slash = strrchr(ret, '/');

		if (!slash) {
			strcpy(ret, ".");
			break;
		}
		slash[slash == ret] = '\0';
		if (!strcmp(ret, "/"))
			break;
	}
	return ret;
}
