/* SPDX-License-Identifier: Apache-2.0 */
/* The one place where the library makes threads. */
#ifndef KVK_AGENT_THREAD_H
#define KVK_AGENT_THREAD_H

#include <pthread.h>

/*
 * Starts a thread with every signal blocked (signals are the host's business) and a name for top and gdb of at most
 * 15 characters. -errno.
 */
int kvk_thread_start(pthread_t *ret, const char *name, void *(*run)(void *), void *argument);

#endif
