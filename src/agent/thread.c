/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/thread.h"

#include <errno.h>
#include <time.h>

int kvk_thread_start(pthread_t *ret, const char *name, void *(*run)(void *), void *argument)
{
	sigset_t all, before;
	pthread_t thread;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = pthread_create(&thread, NULL, run, argument);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (err)
		return -err;
	pthread_setname_np(thread, name);
	*ret = thread;
	return 0;
}

static void only_xfsz(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGXFSZ);
}

void kvk_thread_quiet_begin(struct kvk_thread_quiet *quiet)
{
	sigset_t set, waiting;

	only_xfsz(&set);
	pthread_sigmask(SIG_BLOCK, &set, &quiet->mask);
	quiet->waiting = sigpending(&waiting) == 0 && sigismember(&waiting, SIGXFSZ);
}

void kvk_thread_quiet_end(const struct kvk_thread_quiet *quiet)
{
	static const struct timespec at_once;
	sigset_t set;
	int err = errno;

	only_xfsz(&set);
	if (!quiet->waiting)
		sigtimedwait(&set, NULL, &at_once);
	pthread_sigmask(SIG_SETMASK, &quiet->mask, NULL);
	errno = err;
}
