/* SPDX-License-Identifier: Apache-2.0 */
#include "system/child.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "unit/store_kit.h"

pid_t child_start(child_body *body, void *user, uint32_t index, uint64_t random)
{
	pid_t child = fork();

	assert_true(child >= 0);
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		body(user, index, random);
		_exit(0);
	}
	return child;
}

void child_kill(pid_t *child)
{
	int status;

	assert_int_equal(kill(*child, SIGKILL), 0);
	assert_int_equal(waitpid(*child, &status, 0), *child);
	*child = 0;
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

void child_wait(pid_t *child, uint64_t until_us)
{
	int status;
	pid_t ended;

	while ((ended = waitpid(*child, &status, WNOHANG)) == 0) {
		if (kit_now_us() > until_us) {
			child_end(child);
			fail_msg("a child does not end");
		}
		usleep(1000);
	}
	assert_int_equal(ended, *child);
	*child = 0;
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		fail_msg("a child ended with status 0x%x", (unsigned)status);
}

void child_end(pid_t *child)
{
	if (*child > 0) {
		kill(*child, SIGKILL);
		waitpid(*child, NULL, 0);
	}
	*child = 0;
}
