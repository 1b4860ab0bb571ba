/* SPDX-License-Identifier: Apache-2.0 */
/* Locks on the bytes of a medium in memory, which is seen by one process but may be shared by several backends of it. */
#ifndef KVK_BACKEND_RAM_LOCKS_H
#define KVK_BACKEND_RAM_LOCKS_H

#include <pthread.h>
#include <stdint.h>

#include "backend/backend.h"

/* Of the bytes that may be locked: the rows of an account, and those that have names. */
enum { KVK_RAM_LOCK_ROWS = 256, KVK_RAM_LOCKS = KVK_RAM_LOCK_ROWS + KVK_LOCK_END - KVK_LOCK_HOLD };

struct kvk_ram_locks {
	pthread_mutex_t lock;          /* guards owners */
	const void *owners[KVK_RAM_LOCKS];
};

void kvk_ram_locks_init(struct kvk_ram_locks *locks);
void kvk_ram_locks_release(struct kvk_ram_locks *locks);
/* What backends promise, for the backend that is owner. -EINVAL: no such byte. */
int kvk_ram_locks_take(struct kvk_ram_locks *locks, const void *owner, uint32_t byte, uint32_t wait_ms);
void kvk_ram_locks_give(struct kvk_ram_locks *locks, const void *owner, uint32_t byte);
void kvk_ram_locks_give_all(struct kvk_ram_locks *locks, const void *owner);
int kvk_ram_locks_taken(struct kvk_ram_locks *locks, const void *owner, uint32_t byte);

#endif
