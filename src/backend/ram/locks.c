/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/ram/locks.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

#include "backend/backend.h"

#define PAUSE_NS 1000000

void kvk_ram_locks_init(struct kvk_ram_locks *locks)
{
	memset(locks->owners, 0, sizeof(locks->owners));
	pthread_mutex_init(&locks->lock, NULL);
}

void kvk_ram_locks_release(struct kvk_ram_locks *locks)
{
	pthread_mutex_destroy(&locks->lock);
}

/* Where its owner stands, or NULL. */
static const void **place_of(struct kvk_ram_locks *locks, uint32_t byte)
{
	if (byte < KVK_RAM_LOCK_ROWS)
		return &locks->owners[byte];
	if (byte < KVK_LOCK_HOLD || byte - KVK_LOCK_HOLD >= KVK_RAM_LOCKS - KVK_RAM_LOCK_ROWS)
		return NULL;
	return &locks->owners[KVK_RAM_LOCK_ROWS + byte - KVK_LOCK_HOLD];
}

int kvk_ram_locks_take(struct kvk_ram_locks *locks, const void *owner, uint32_t byte, uint32_t wait_ms)
{
	struct timespec pause = { .tv_nsec = PAUSE_NS };
	const void **place = place_of(locks, byte);
	bool taken;

	if (!place)
		return -EINVAL;
	for (;;) {
		pthread_mutex_lock(&locks->lock);
		taken = !*place || *place == owner;
		if (taken)
			*place = owner;
		pthread_mutex_unlock(&locks->lock);
		if (taken || wait_ms-- == 0)
			return taken ? 0 : -EBUSY;
		nanosleep(&pause, NULL);
	}
}

void kvk_ram_locks_give(struct kvk_ram_locks *locks, const void *owner, uint32_t byte)
{
	const void **place = place_of(locks, byte);

	pthread_mutex_lock(&locks->lock);
	if (place && *place == owner)
		*place = NULL;
	pthread_mutex_unlock(&locks->lock);
}

void kvk_ram_locks_give_all(struct kvk_ram_locks *locks, const void *owner)
{
	pthread_mutex_lock(&locks->lock);
	for (uint32_t i = 0; i < KVK_RAM_LOCKS; i++) {
		if (locks->owners[i] == owner)
			locks->owners[i] = NULL;
	}
	pthread_mutex_unlock(&locks->lock);
}

int kvk_ram_locks_taken(struct kvk_ram_locks *locks, const void *owner, uint32_t byte)
{
	const void **place = place_of(locks, byte);
	int taken;

	if (!place)
		return -EINVAL;
	pthread_mutex_lock(&locks->lock);
	taken = *place && *place != owner;
	pthread_mutex_unlock(&locks->lock);
	return taken;
}
