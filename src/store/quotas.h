/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tenants may hold: first what the specification says, then what was set while the store was in use, which is kept as
 * `.kvkeep/quotas` for all processes and later ones.
 */
#ifndef KVK_STORE_QUOTAS_H
#define KVK_STORE_QUOTAS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

struct kvk_core;

struct kvk_quotas {
	pthread_mutex_t lock;          /* guards seen_ns, and the file against other threads */
	uint64_t seen_ns;              /* when the file, as it was taken over, was written at the latest */
	uint64_t next_us;              /* the room thread's: when to look again */
	atomic_uint_fast64_t default_bytes;    /* of tenants without one of their own; UINT64_MAX: none */
};

void kvk_quotas_init(struct kvk_quotas *quotas);
void kvk_quotas_release(struct kvk_quotas *quotas);

/* Gives the catalog all there are. A file that cannot be read is told to the log, and the specification holds. -ENOMEM, -EUSERS. */
int kvk_quotas_open(struct kvk_core *core);

/* Takes over what other processes have set since. Called by the room thread as often as it likes. */
void kvk_quotas_follow(struct kvk_core *core);

/* As kvk_store_set_quota(). */
int kvk_quotas_set(struct kvk_core *core, const void *tenant, uint32_t tenant_bytes, uint64_t quota_bytes);

#endif
