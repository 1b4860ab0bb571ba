/* SPDX-License-Identifier: Apache-2.0 */
/* Processes of a test. They die with it; in each function that takes a pid_t, 0 is none, and is what it is set to. */
#ifndef KVK_TESTS_CHILD_H
#define KVK_TESTS_CHILD_H

#include <stdint.h>
#include <sys/types.h>

/* What a child does; when it returns the child ends with status 0, and nothing of the test is torn down in it. */
typedef void child_body(void *user, uint32_t index, uint64_t random);

pid_t child_start(child_body *body, void *user, uint32_t index, uint64_t random);
/* By SIGKILL, and nothing else may have ended it. */
void child_kill(pid_t *child);
/* The child must end by itself with status 0 before kit_now_us() is until_us. */
void child_wait(pid_t *child, uint64_t until_us);
/* However it is. */
void child_end(pid_t *child);

#endif
