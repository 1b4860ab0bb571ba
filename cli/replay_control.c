/* SPDX-License-Identifier: Apache-2.0 */
#include "replay.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli.h"

static void *shared_pages(uint64_t bytes)
{
	void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return pages == MAP_FAILED ? NULL : pages;
}

void kvk_replay_fault(struct kvk_replay *replay, const char *format, ...)
{
	struct kvk_replay_shared *shared = replay->shared;
	va_list args;

	if (shared->fault_count < KVK_REPLAY_FAULTS_MAX) {
		va_start(args, format);
		vsnprintf(shared->faults[shared->fault_count], sizeof(shared->faults[0]), format, args);
		va_end(args);
	}
	shared->fault_count++;
}

struct worker {
	pid_t pid;
	int notify_fd;
};

static int start_worker(struct kvk_replay *replay, struct worker *worker, bool stay)
{
	pid_t parent = getpid(), pid;
	int ends[2];

	if (pipe2(ends, O_CLOEXEC))
		return kvk_cli_fail("pipe: %s", strerror(errno));
	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		int err = errno;

		close(ends[0]);
		close(ends[1]);
		return kvk_cli_fail("fork: %s", strerror(err));
	}
	if (pid == 0) {
		int status = KVK_EXIT_FAILED;

		close(ends[0]);
		/* A worker must not outlive an interrupted command; it may have died before this line. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() == parent)
			status = kvk_replay_work(replay, ends[1], stay);
		fflush(NULL);
		_exit(status);
	}
	close(ends[1]);
	*worker = (struct worker){ .pid = pid, .notify_fd = ends[0] };
	return 0;
}

/* Ends the worker's life and books what it used. Returns its wait status. */
static int reap_worker(struct kvk_replay *replay, struct worker *worker)
{
	struct rusage usage;
	int wait_status = 0;

	while (wait4(worker->pid, &wait_status, 0, &usage) < 0 && errno == EINTR)
		;
	replay->cpu_ns += (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000u +
			  (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000u;
	close(worker->notify_fd);
	return wait_status;
}

static void show_progress(const struct kvk_replay *replay, struct kvk_progress *progress)
{
	const struct kvk_replay_shared *shared = replay->shared;

	kvk_progress_show(progress, atomic_load(&replay->shared->done), replay->trace.request_count, "requests",
			  shared->ops[KVK_REPLAY_LOAD].bytes + shared->ops[KVK_REPLAY_STORE].bytes);
}

/* Waits until `until` requests are done (0: never) or the worker has closed its end. Returns whether they are. */
static bool follow(struct kvk_replay *replay, const struct worker *worker, uint64_t until,
		   struct kvk_progress *progress)
{
	struct pollfd poll_fd = { .fd = worker->notify_fd, .events = POLLIN };
	char bytes[4096];

	for (;;) {
		int ready;

		if (until && atomic_load(&replay->shared->done) >= until)
			return true;
		ready = poll(&poll_fd, 1, 100);
		show_progress(replay, progress);
		if (ready <= 0)
			continue;
		if (read(worker->notify_fd, bytes, sizeof(bytes)) == 0)
			return false;
	}
}

/* What a dead worker left half done. Requests under way are asked for again by the next one, as an engine would. */
static void after_kill(struct kvk_replay *replay)
{
	replay->unacknowledged += kvk_model_killed(&replay->model);
	replay->restarts++;
}

static int run_workers(struct kvk_replay *replay, struct kvk_progress *progress)
{
	for (uint32_t round = 0; round <= replay->kill_count; round++) {
		uint64_t kill_at = round < replay->kill_count ? replay->kills[round] : 0;
		struct worker worker;
		int wait_status, status = start_worker(replay, &worker, kill_at != 0);

		if (status)
			return status;
		if (follow(replay, &worker, kill_at, progress))
			kill(worker.pid, SIGKILL);
		wait_status = reap_worker(replay, &worker);
		if (kill_at && WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGKILL) {
			after_kill(replay);
			continue;
		}
		kvk_progress_end(progress);
		if (WIFSIGNALED(wait_status))
			return kvk_cli_fail("the worker was ended by signal %d (%s)", WTERMSIG(wait_status),
					    strsignal(WTERMSIG(wait_status)));
		if (WEXITSTATUS(wait_status))
			return WEXITSTATUS(wait_status);
	}
	return 0;
}

int kvk_replay_control(struct kvk_replay *replay)
{
	uint64_t begin_ns = kvk_cli_now_ns();
	struct kvk_progress progress;
	int status;

	replay->shared = shared_pages(sizeof(*replay->shared));
	replay->requests = shared_pages((replay->trace.request_count + 1) * sizeof(*replay->requests));
	replay->model.count = replay->trace.distinct_count;
	replay->model.states = shared_pages(replay->model.count + 1);
	if (!replay->shared || !replay->requests || !replay->model.states)
		return kvk_cli_fail("not enough memory");
	if (replay->not_empty)
		memset(replay->model.states, KVK_MODEL_UNASKED, replay->model.count);
	kvk_progress_begin(&progress, "replay");
	status = run_workers(replay, &progress);
	kvk_progress_end(&progress);
	replay->wall_ns = kvk_cli_now_ns() - begin_ns;
	return status;
}
