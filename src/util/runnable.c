/* SPDX-License-Identifier: Apache-2.0 */
#include "util/runnable.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

bool kvk_is_runnable(pid_t thread)
{
	/* "12345 (a name, which may have parentheses) R 1 ...": a name has 15 characters at most. */
	char path[48], text[64];
	const char *name_end;
	ssize_t bytes;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", (int)thread);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	bytes = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (bytes <= 0)
		return false;
	text[bytes] = '\0';
	name_end = strrchr(text, ')');
	return name_end && !strncmp(name_end, ") R", 3);
}
