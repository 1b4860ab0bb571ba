/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KVK_UTIL_RUNNABLE_H
#define KVK_UTIL_RUNNABLE_H

#include <stdbool.h>
#include <sys/types.h>

/* Whether a thread of this process computes or waits for a processor to do so: what waits for a medium does neither. False where
 * the kernel does not say (no /proc), and when there is no such thread. */
bool kvk_is_runnable(pid_t thread);

#endif
