/* SPDX-License-Identifier: Apache-2.0 */
/* A kernel that has no random numbers to give, when a test says so. For one source of a program. */
#ifndef KVK_TESTS_UNIT_NO_RANDOM_H
#define KVK_TESTS_UNIT_NO_RANDOM_H

#include <errno.h>
#include <stdbool.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool no_random;

/* Takes the place of libc's for what is linked into the program. */
ssize_t getrandom(void *data, size_t bytes, unsigned flags)
{
	if (no_random) {
		errno = ENOSYS;
		return -1;
	}
	return syscall(SYS_getrandom, data, bytes, flags);
}

#endif
