/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the posix backend share. Included after cmocka.h. */
#ifndef KVK_TESTS_POSIX_HELP_H
#define KVK_TESTS_POSIX_HELP_H

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static inline void remove_tree(const char *path)
{
	char command[160];

	snprintf(command, sizeof(command), "rm -rf -- '%s'", path);
	assert_int_equal(system(command), 0);
}

/* Those of this process, the one that counts them included. */
static inline uint32_t open_descriptors(void)
{
	DIR *folder = opendir("/proc/self/fd");
	uint32_t count = 0;

	assert_non_null(folder);
	while (readdir(folder))
		count++;
	closedir(folder);
	return count;
}

#endif
