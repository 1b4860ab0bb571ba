/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fork while a medium takes its time over an open or a close: it waits for none, and no child that lives on keeps a lock or a
 * device from others.
 *
 * Method: a system call waits, before or after its work, until it is let go, and a child is forked meanwhile. A fork that waits
 * never comes back: an alarm ends the program.
 */
#include "support/skip.h"

#include <pthread.h>
#include <signal.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "posix_bench.h"

#define BYTE 7

enum when { BEFORE, AFTER };

/* The call that waits next. */
static struct {
	atomic_bool armed, inside, goes_on;
	const char *path;
	int fd;
	enum when when;
} gate;

static void gate_wait(enum when when)
{
	if (gate.when != when)
		return;
	atomic_store(&gate.inside, true);
	while (!atomic_load(&gate.goes_on))
		usleep(100);
}

static void gate_arm(const char *path, int fd, enum when when)
{
	gate.path = path;
	gate.fd = fd;
	gate.when = when;
	atomic_store(&gate.inside, false);
	atomic_store(&gate.goes_on, false);
	atomic_store(&gate.armed, true);
}

static int gate_openat(int dir_fd, const char *path, int flags, mode_t mode)
{
	bool waits = gate.path && !strcmp(path, gate.path) && atomic_exchange(&gate.armed, false);
	int fd;

	if (waits)
		gate_wait(BEFORE);
	fd = kvk_posix_sys_real.openat(dir_fd, path, flags, mode);
	if (waits)
		gate_wait(AFTER);
	return fd;
}

static int gate_replace(int fd, int other_fd)
{
	bool waits = other_fd == gate.fd && atomic_exchange(&gate.armed, false);
	int ret;

	if (waits)
		gate_wait(BEFORE);
	ret = kvk_posix_sys_real.replace(fd, other_fd);
	if (waits)
		gate_wait(AFTER);
	return ret;
}

/* ---- children ------------------------------------------------------------------------------------- */

/* What a child of fork keeps, and it lives until it is told. */
struct child {
	pid_t pid;
	int end;
	bool has_fd;                   /* the descriptor that is asked for */
	int devices;                   /* how many block devices it has open */
};

static int count_devices(void)
{
	struct stat found;
	int count = 0;

	for (int fd = 0; fd < 1024; fd++)
		count += !fstat(fd, &found) && S_ISBLK(found.st_mode);
	return count;
}

static void child_begin(struct child *child, int fd)
{
	int end[2], told[2], words[2];

	assert_int_equal(pipe(end), 0);
	assert_int_equal(pipe(told), 0);
	alarm(60);
	child->pid = fork();
	assert_true(child->pid >= 0);
	if (child->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(end[1]);
		words[0] = fd >= 0 && fcntl(fd, F_GETFD) >= 0;
		words[1] = count_devices();
		_exit(write(told[1], words, sizeof(words)) != sizeof(words) || read(end[0], words, 1) != 0);
	}
	close(end[0]);
	close(told[1]);
	assert_int_equal(read(told[0], words, sizeof(words)), sizeof(words));
	alarm(0);
	close(told[0]);
	child->end = end[1];
	child->has_fd = words[0];
	child->devices = words[1];
}

static void child_end(struct child *child)
{
	int status;

	close(child->end);
	assert_int_equal(waitpid(child->pid, &status, 0), child->pid);
	assert_int_equal(status, 0);
}

/* ---- a call on a thread of its own ------------------------------------------------------------------ */

struct call {
	struct bench *bench;
	void (*make)(struct call *call);
	pthread_t thread;
	struct kvk_xfer xfer;
	int64_t result;
};

static void *call_main(void *argument)
{
	struct call *call = argument;

	call->make(call);
	return NULL;
}

/* Comes back when the call waits at the gate. */
static void call_begin(struct call *call, struct bench *bench, void (*make)(struct call *call))
{
	*call = (struct call){ .bench = bench, .make = make };
	assert_int_equal(pthread_create(&call->thread, NULL, call_main, call), 0);
	while (!atomic_load(&gate.inside))
		usleep(100);
}

static int64_t call_end(struct call *call)
{
	atomic_store(&gate.goes_on, true);
	pthread_join(call->thread, NULL);
	return call->result;
}

static void make_lock(struct call *call)
{
	call->result = kvk_backend_posix.lock(call->bench->backend, BYTE, 0);
}

static void make_close(struct call *call)
{
	kvk_backend_posix.close(call->bench->backend);
}

static void make_open_device(struct call *call)
{
	kvk_xfer_init(&call->xfer, KVK_XFER_OPEN, NULL, gate.path);
	call->xfer.flags = KVK_XFER_DEVICE | KVK_XFER_WRITABLE;
	call->result = run(call->bench, &call->xfer);
}

/* ---- cases ---------------------------------------------------------------------------------------- */

/* What is being opened gets its locks, and they are nobody's when it is closed, whoever was forked meanwhile. */
static void forks_while_the_locks_are_opened(void **state)
{
	struct bench *bench = *state, other = *bench;
	struct child child;
	struct call call;

	bench->sys.openat = gate_openat;
	open_backend(&other);
	for (enum when when = BEFORE; when <= AFTER; when++) {
		gate_arm("locks", -1, when);
		call_begin(&call, bench, make_lock);
		child_begin(&child, -1);
		assert_int_equal(call_end(&call), 0);
		assert_int_equal(kvk_backend_posix.lock(other.backend, BYTE, 0), -EBUSY);
		kvk_backend_posix.close(bench->backend);
		assert_int_equal(kvk_backend_posix.lock(other.backend, BYTE, 0), 0);
		kvk_backend_posix.unlock(other.backend, BYTE);
		child_end(&child);
		open_backend(bench);
	}
	kvk_backend_posix.close(other.backend);
}

/* What is being closed takes its locks along, and the child closes no number that is somebody else's by then. */
static void forks_while_the_locks_are_closed(void **state)
{
	struct bench *bench = *state, other = *bench;
	struct child child;
	struct call call;

	bench->sys.replace = gate_replace;
	open_backend(&other);
	for (enum when when = BEFORE; when <= AFTER; when++) {
		int fd;

		assert_int_equal(kvk_backend_posix.lock(bench->backend, BYTE, 0), 0);
		fd = kvk_posix_of(bench->backend)->locks.fd;
		gate_arm(NULL, fd, when);
		call_begin(&call, bench, make_close);
		child_begin(&child, fd);
		assert_false(child.has_fd);
		call_end(&call);
		assert_int_equal(fcntl(fd, F_GETFD), -1);
		assert_int_equal(kvk_backend_posix.lock(other.backend, BYTE, 0), 0);
		kvk_backend_posix.unlock(other.backend, BYTE);
		child_end(&child);
		open_backend(bench);
	}
	kvk_backend_posix.close(other.backend);
}

/* A device is claimed by being opened: a child that is forked in this moment gives its copy up all the same. */
static void forks_while_a_device_is_opened(void **state)
{
	struct bench *bench = *state, other = *bench;
	char command[300], loop[64] = "";
	int64_t opened[2];
	struct child child;
	struct call call;
	FILE *pipe;

	if (geteuid())
		SKIP("a loop device needs root");
	snprintf(command, sizeof(command), "truncate -s 8M '%s.img' && losetup -f --show '%s.img' 2>/dev/null", bench->root,
		 bench->root);
	pipe = popen(command, "r");
	if (!pipe || !fgets(loop, sizeof(loop), pipe) || pclose(pipe) || strncmp(loop, "/dev/loop", 9)) {
		snprintf(command, sizeof(command), "%s.img", bench->root);
		unlink(command);
		SKIP("no loop device is to be had");
	}
	loop[strcspn(loop, "\n")] = 0;
	bench->sys.openat = gate_openat;
	open_backend(&other);
	for (enum when when = BEFORE; when <= AFTER; when++) {
		struct call again = { .bench = &other };

		gate_arm(loop, -1, when);
		call_begin(&call, bench, make_open_device);
		child_begin(&child, -1);
		opened[0] = call_end(&call);
		if (!opened[0])
			place_op(bench, KVK_XFER_CLOSE, call.xfer.place, NULL);
		/* The gate lets it through. */
		make_open_device(&again);
		opened[1] = again.result;
		if (!opened[1])
			place_op(&other, KVK_XFER_CLOSE, again.xfer.place, NULL);
		child_end(&child);
		if (opened[0] || opened[1] || child.devices)
			break;
	}
	kvk_backend_posix.close(other.backend);
	snprintf(command, sizeof(command), "losetup -d %s; rm '%s.img'", loop, bench->root);
	assert_int_equal(system(command), 0);
	assert_int_equal(child.devices, 0);
	assert_int_equal(opened[0], 0);
	assert_int_equal(opened[1], 0);
}

/* A writer is killed while it has a named temporary file, of which a child of it has a copy: others sweep it, and not before. */
static void a_temporary_of_a_killed_parent(void **state)
{
	char base[NAME_MAX + 1], name[NAME_MAX + 8];
	struct bench *bench = *state;
	int told[2], end[2];
	pid_t parent;

	for (enum kvk_posix_publish publish = KVK_PUBLISH_RENAME; publish <= KVK_PUBLISH_LINK; publish++) {
		assert_int_equal(pipe(told), 0);
		assert_int_equal(pipe(end), 0);
		parent = fork();
		assert_true(parent >= 0);
		if (parent == 0) {
			struct kvk_backend_options options = options_for(bench->root);
			struct kvk_place *place;
			char byte;

			prctl(PR_SET_PDEATHSIG, SIGKILL);
			options.writer_id = 0xabcd0000 + publish;
			if (kvk_backend_posix.open(&bench->backend, &options, NULL))
				_exit(1);
			kvk_posix_force_publish(bench->backend, publish);
			place = create(bench, OBJECT);
			if (fork() == 0) {
				/* It ends when the test does: nobody else has the other end then. */
				close(end[1]);
				_exit(write(told[1], place->temp, sizeof(place->temp)) != sizeof(place->temp) || read(end[0], &byte, 1) != 0);
			}
			pause();
			_exit(1);
		}
		close(told[1]);
		close(end[0]);
		memset(base, 0, sizeof(base));
		assert_in_range(read(told[0], base, sizeof(base) - 1), 1, sizeof(base));
		snprintf(name, sizeof(name), "ab/%s", base);
		assert_int_equal(kvk_backend_posix.sweep(bench->backend, name), -EBUSY);
		assert_int_equal(kill(parent, SIGKILL), 0);
		assert_int_equal(waitpid(parent, NULL, 0), parent);
		assert_int_equal(kvk_backend_posix.sweep(bench->backend, name), 0);
		assert_int_equal(count_names(bench, "ab"), 0);
		close(end[1]);
		close(told[0]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(forks_while_the_locks_are_opened, setup, teardown),
		cmocka_unit_test_setup_teardown(forks_while_the_locks_are_closed, setup, teardown),
		cmocka_unit_test_setup_teardown(forks_while_a_device_is_opened, setup, teardown),
		cmocka_unit_test_setup_teardown(a_temporary_of_a_killed_parent, setup, teardown),
	};

	return cmocka_run_group_tests_name("posix_forks", tests, NULL, NULL);
}
