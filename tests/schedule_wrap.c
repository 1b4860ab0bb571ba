/* SPDX-License-Identifier: Apache-2.0 */
/* What stands in the place of the system's functions: see schedule.h. Locks lie where the system's lie, and use their memory. */
#include "schedule.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define WALL_NS UINT64_C(1700000000000000000)
#define TICK_NS UINT64_C(1000000)

struct mutex {
	const void *owner;
};

struct cond {
	clockid_t clock;
};

struct rwlock {
	const void *writer;
	uint32_t readers;
};

static_assert(sizeof(struct mutex) <= sizeof(pthread_mutex_t), "");
static_assert(sizeof(struct cond) <= sizeof(pthread_cond_t), "");
static_assert(sizeof(struct rwlock) <= sizeof(pthread_rwlock_t), "");

int __wrap_pthread_create(pthread_t *ret, const pthread_attr_t *attr, void *(*run)(void *), void *argument);
int __wrap_pthread_join(pthread_t thread, void **result);
int __wrap_pthread_detach(pthread_t thread);
int __wrap_pthread_setname_np(pthread_t thread, const char *name);
int __wrap_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attr);
int __wrap_pthread_mutex_destroy(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex);
int __wrap_pthread_cond_init(pthread_cond_t *cond, const pthread_condattr_t *attr);
int __wrap_pthread_cond_destroy(pthread_cond_t *cond);
int __wrap_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex);
int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *until);
int __wrap_pthread_cond_signal(pthread_cond_t *cond);
int __wrap_pthread_cond_broadcast(pthread_cond_t *cond);
int __wrap_pthread_rwlock_init(pthread_rwlock_t *lock, const pthread_rwlockattr_t *attr);
int __wrap_pthread_rwlock_destroy(pthread_rwlock_t *lock);
int __wrap_pthread_rwlock_rdlock(pthread_rwlock_t *lock);
int __wrap_pthread_rwlock_wrlock(pthread_rwlock_t *lock);
int __wrap_pthread_rwlock_unlock(pthread_rwlock_t *lock);
int __wrap_nanosleep(const struct timespec *pause, struct timespec *left);
int __wrap_clock_nanosleep(clockid_t clock, int flags, const struct timespec *pause, struct timespec *left);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ret);
int __wrap_poll(struct pollfd *fds, nfds_t count, int wait_ms);
int __wrap_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *wait, const sigset_t *mask);
ssize_t __wrap_write(int fd, const void *data, size_t bytes);
ssize_t __wrap_getrandom(void *data, size_t bytes, unsigned flags);
int __real_poll(struct pollfd *fds, nfds_t count, int wait_ms);
ssize_t __real_write(int fd, const void *data, size_t bytes);
ssize_t __real_getrandom(void *data, size_t bytes, unsigned flags);
int __real_clock_gettime(clockid_t clock, struct timespec *ret);

static uint64_t ns_of(const struct timespec *time)
{
	return (uint64_t)time->tv_sec * 1000000000u + (uint64_t)time->tv_nsec;
}

/* ---- threads ---------------------------------------------------------------------------------------- */

int __wrap_pthread_create(pthread_t *ret, const pthread_attr_t *attr, void *(*run)(void *), void *argument)
{
	(void)attr;
	*ret = (pthread_t)sched_spawn(run, argument);
	sched_lock_point();
	return 0;
}

int __wrap_pthread_join(pthread_t thread, void **result)
{
	void *told = sched_await((unsigned long)thread);

	if (result)
		*result = told;
	return 0;
}

/* It keeps its slot until the schedule is over. */
int __wrap_pthread_detach(pthread_t thread)
{
	(void)thread;
	return 0;
}

int __wrap_pthread_setname_np(pthread_t thread, const char *name)
{
	sched_name((unsigned long)thread, name);
	return 0;
}

/* ---- locks ------------------------------------------------------------------------------------------ */

static struct mutex *mutex_of(pthread_mutex_t *mutex)
{
	return (struct mutex *)(void *)mutex;
}

int __wrap_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attr)
{
	(void)attr;
	mutex_of(mutex)->owner = NULL;
	return 0;
}

int __wrap_pthread_mutex_destroy(pthread_mutex_t *mutex)
{
	assert(!mutex_of(mutex)->owner);
	return 0;
}

static int lock_again(pthread_mutex_t *mutex)
{
	assert(mutex_of(mutex)->owner != sched_self());
	while (mutex_of(mutex)->owner)
		sched_block(mutex, SCHED_NEVER);
	mutex_of(mutex)->owner = sched_self();
	return 0;
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex)
{
	sched_lock_point();
	return lock_again(mutex);
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex)
{
	assert(mutex_of(mutex)->owner == sched_self());
	mutex_of(mutex)->owner = NULL;
	sched_wake(mutex, true);
	return 0;
}

static struct rwlock *rwlock_of(pthread_rwlock_t *lock)
{
	return (struct rwlock *)(void *)lock;
}

int __wrap_pthread_rwlock_init(pthread_rwlock_t *lock, const pthread_rwlockattr_t *attr)
{
	(void)attr;
	*rwlock_of(lock) = (struct rwlock){ 0 };
	return 0;
}

int __wrap_pthread_rwlock_destroy(pthread_rwlock_t *lock)
{
	assert(!rwlock_of(lock)->writer && rwlock_of(lock)->readers == 0);
	return 0;
}

int __wrap_pthread_rwlock_rdlock(pthread_rwlock_t *lock)
{
	sched_lock_point();
	while (rwlock_of(lock)->writer)
		sched_block(lock, SCHED_NEVER);
	rwlock_of(lock)->readers++;
	return 0;
}

int __wrap_pthread_rwlock_wrlock(pthread_rwlock_t *lock)
{
	sched_lock_point();
	while (rwlock_of(lock)->writer || rwlock_of(lock)->readers > 0)
		sched_block(lock, SCHED_NEVER);
	rwlock_of(lock)->writer = sched_self();
	return 0;
}

int __wrap_pthread_rwlock_unlock(pthread_rwlock_t *lock)
{
	if (rwlock_of(lock)->writer)
		rwlock_of(lock)->writer = NULL;
	else
		rwlock_of(lock)->readers--;
	sched_wake(lock, true);
	return 0;
}

/* ---- conditions ------------------------------------------------------------------------------------- */

static struct cond *cond_of(pthread_cond_t *cond)
{
	return (struct cond *)(void *)cond;
}

int __wrap_pthread_cond_init(pthread_cond_t *cond, const pthread_condattr_t *attr)
{
	cond_of(cond)->clock = CLOCK_REALTIME;
	if (attr)
		pthread_condattr_getclock(attr, &cond_of(cond)->clock);
	return 0;
}

int __wrap_pthread_cond_destroy(pthread_cond_t *cond)
{
	(void)cond;
	return 0;
}

static int wait_until(pthread_cond_t *cond, pthread_mutex_t *mutex, uint64_t until_ns)
{
	bool late;

	__wrap_pthread_mutex_unlock(mutex);
	late = sched_block(cond, until_ns);
	lock_again(mutex);
	return late ? ETIMEDOUT : 0;
}

int __wrap_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex)
{
	return wait_until(cond, mutex, SCHED_NEVER);
}

int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *until)
{
	/* The wall clock may be set meanwhile: nobody is to wait by it. */
	assert(cond_of(cond)->clock == CLOCK_MONOTONIC);
	return wait_until(cond, mutex, ns_of(until));
}

int __wrap_pthread_cond_signal(pthread_cond_t *cond)
{
	sched_wake(cond, false);
	return 0;
}

int __wrap_pthread_cond_broadcast(pthread_cond_t *cond)
{
	sched_wake(cond, true);
	return 0;
}

/* ---- time ------------------------------------------------------------------------------------------- */

int __wrap_nanosleep(const struct timespec *pause, struct timespec *left)
{
	(void)left;
	sched_block(pause, sched_clock_ns() + ns_of(pause));
	return 0;
}

int __wrap_clock_nanosleep(clockid_t clock, int flags, const struct timespec *pause, struct timespec *left)
{
	(void)left;
	assert(clock == CLOCK_MONOTONIC);
	sched_block(pause, flags & TIMER_ABSTIME ? ns_of(pause) : sched_clock_ns() + ns_of(pause));
	return 0;
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *ret)
{
	uint64_t now_ns;

	if (!sched_runs())
		return __real_clock_gettime(clock, ret);
	now_ns = sched_clock_ns();
	if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)
		now_ns += WALL_NS + (uint64_t)sched_wall_ns();
	if (clock == CLOCK_REALTIME_COARSE || clock == CLOCK_MONOTONIC_COARSE)
		now_ns -= now_ns % TICK_NS;
	*ret = (struct timespec){ .tv_sec = (time_t)(now_ns / 1000000000u), .tv_nsec = (long)(now_ns % 1000000000u) };
	return 0;
}

/* ---- descriptors: the real ones, which are only waited for here ---------------------------------------- */

static const char written;

static int poll_until(struct pollfd *fds, nfds_t count, uint64_t until_ns)
{
	int ready;

	while ((ready = __real_poll(fds, count, 0)) == 0) {
		if (sched_block(&written, until_ns))
			return __real_poll(fds, count, 0);
	}
	return ready;
}

int __wrap_poll(struct pollfd *fds, nfds_t count, int wait_ms)
{
	return poll_until(fds, count, wait_ms < 0 ? SCHED_NEVER : sched_clock_ns() + (uint64_t)wait_ms * 1000000u);
}

int __wrap_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *wait, const sigset_t *mask)
{
	(void)mask;
	return poll_until(fds, count, wait ? sched_clock_ns() + ns_of(wait) : SCHED_NEVER);
}

ssize_t __wrap_write(int fd, const void *data, size_t bytes)
{
	ssize_t done = __real_write(fd, data, bytes);

	if (sched_runs())
		sched_wake(&written, true);
	return done;
}

ssize_t __wrap_getrandom(void *data, size_t bytes, unsigned flags)
{
	uint8_t *at = data;

	if (!sched_runs())
		return __real_getrandom(data, bytes, flags);
	for (size_t i = 0; i < bytes; i++)
		at[i] = (uint8_t)sched_below(256);
	return (ssize_t)bytes;
}
