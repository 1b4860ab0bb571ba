/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/thread.h"

#include <signal.h>

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
