/* SPDX-License-Identifier: Apache-2.0 */
/* The one place where the library makes threads. */
#ifndef KVK_AGENT_THREAD_H
#define KVK_AGENT_THREAD_H

#include <pthread.h>
#include <signal.h>

/*
 * Starts a thread with every signal blocked (signals are the host's business) and a name for top and gdb of at most
 * 15 characters. -errno.
 */
int kvk_thread_start(pthread_t *ret, const char *name, void *(*run)(void *), void *argument);

/*
 * What the caller's own thread does for a store (opening, closing) may meet RLIMIT_FSIZE, too: a write beyond it is answered
 * with EFBIG and, besides, with SIGXFSZ, which would end the host. Between the two calls it is kept back, and one that
 * came is taken away; one that the host itself had waiting stays. errno is untouched.
 */
struct kvk_thread_quiet {
	sigset_t mask;
	int waiting;
};

void kvk_thread_quiet_begin(struct kvk_thread_quiet *quiet);
void kvk_thread_quiet_end(const struct kvk_thread_quiet *quiet);

#endif
