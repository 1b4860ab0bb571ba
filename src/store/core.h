/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store without its own threads: catalog, adapter, agent, and the requests that go through them.
 */
#ifndef KVK_STORE_CORE_H
#define KVK_STORE_CORE_H

#include <sys/types.h>

#include "account/account.h"
#include "adapter/adapter.h"
#include "catalog/catalog.h"
#include "store/news.h"
#include "store/notices.h"
#include "store/quotas.h"
#include "store/results.h"
#include "store/scan_state.h"
#include "store/spec.h"
#include "store/waiting.h"

struct kvk_core {
	pid_t pid;                             /* a store belongs to the process that opened it */
	struct kvk_spec spec;
	struct kvk_superblock superblock;
	struct kvk_notices notices;
	struct kvk_log_sink log;
	struct kvk_backend *backend;
	struct kvk_adapter *adapter;
	struct kvk_catalog *catalog;
	struct kvk_account *account;
	struct kvk_waiting waiting;
	struct kvk_quotas quotas;
	struct kvk_news news;
	struct kvk_agent *agent;
	/* What the room thread saw at its last visit of the account, for whoever asks: he must not wait for the medium. */
	struct {
		atomic_uint_fast64_t leased_bytes, limit_bytes, free_bytes, total_bytes, floor_bytes;
		atomic_uint processes;
		atomic_bool exact;
	} view;
	atomic_bool keeper;                    /* this process evicts for all */
	atomic_uint lessons;                   /* folders it looked at for want of something to evict */
	/* How far the scan is; NULL before control has started. */
	void (*scan_state)(void *user, struct kvk_scan_state *ret);
	void *scan_user;
	struct kvk_result_queue queues[KVK_QUEUE_COUNT];
	atomic_bool closing;
	atomic_int_fast64_t next_task;
	atomic_uint_fast32_t items;            /* under way */
	atomic_uint_fast32_t held_items;       /* answered while the kernel may have the caller's memory */
	pthread_mutex_t tasks_lock;            /* guards the links of tasks */
	struct kvk_link tasks;                 /* not wholly answered yet */
	atomic_uint removing;                  /* removes whose blocks are not free yet */
	atomic_uint_fast64_t altered;          /* puts, removes and moves to quarantine that are over */
	atomic_uint_fast64_t unsynced_bytes;   /* published since the last sync of everything */
	atomic_bool syncing;                   /* a sync of everything is under way */
	atomic_uint_fast64_t settle_steps;     /* see kvk_core_settle_steps(); what the adapter walked comes on top */
	atomic_uint_fast64_t trouble_us;       /* when the medium last failed; 0: never */
	atomic_int trouble;                    /* with what: -errno */
	struct {
		atomic_uint_fast64_t puts, put_stored, put_present, put_no_room, put_failed, put_bytes;
		atomic_uint_fast64_t gets, get_hits, get_absent, get_damaged, get_failed, get_bytes;
		atomic_uint_fast64_t lookups, lookup_memory_hits, lookup_medium_hits, lookup_absent;
		atomic_uint_fast64_t removes, removed, deadlines, canceled;
		atomic_uint_fast64_t evicted, evicted_bytes, evict_kept, medium_full;
	} counts;
};

/* A smaller cap holds no object worth the name. */
#define KVK_CAP_BYTES_MIN UINT64_C(65536)

/* After trouble with the medium a store counts as degraded for so long. */
#define KVK_TROUBLE_US UINT64_C(60000000)

int kvk_core_open(struct kvk_core **ret, const char *spec, const struct kvk_hooks *hooks,
		  struct kvk_error *error);
/* Ends what is under way, waiting wait_us at most. 0: kvk_core_settle() may follow. -ETIMEDOUT: a medium hangs, the core must
 * be left alone until another call, by one thread at a time, says 0. */
int kvk_core_stop(struct kvk_core *core, uint64_t wait_us);
/*
 * What is left to do on the medium when nothing is under way, on the calling thread, for as long as the medium takes: removes
 * the objects if the store was not to persist and nobody else has it open; syncs and credits what was removed; gives back
 * what was leased.
 */
void kvk_core_settle(struct kvk_core *core);
/* Any thread: it gets on as long as this grows. */
uint64_t kvk_core_settle_steps(struct kvk_core *core);
/* Nobody is in any call, and the hooks have ended. */
void kvk_core_free(struct kvk_core *core);
/* In a child after fork: only memory and descriptors. */
void kvk_core_abandon(struct kvk_core *core);

/* 0, -ECHILD or -ESHUTDOWN. */
int kvk_core_check(const struct kvk_core *core);

/* requests.c, one for each kind. items were checked. waiter NULL: results go to the queue. Returns the task (in *ret,
 * with a reference for the caller, if ret is given) or -errno. */
int64_t kvk_core_put(struct kvk_core *core, const struct kvk_put_item *items, uint32_t count,
		     uint64_t deadline_us, struct kvk_waiter *waiter, struct kvk_task **ret);
int64_t kvk_core_get(struct kvk_core *core, const struct kvk_get_item *items, uint32_t count,
		     uint64_t deadline_us, struct kvk_waiter *waiter, struct kvk_task **ret);
int64_t kvk_core_lookup(struct kvk_core *core, const struct kvk_key_item *items, uint32_t count,
			uint64_t deadline_us, struct kvk_waiter *waiter, struct kvk_task **ret);
int64_t kvk_core_unpin(struct kvk_core *core, const struct kvk_key_item *items, uint32_t count,
		       struct kvk_waiter *waiter, struct kvk_task **ret);
int64_t kvk_core_remove(struct kvk_core *core, const struct kvk_key_item *items, uint32_t count,
			uint64_t deadline_us, struct kvk_waiter *waiter, struct kvk_task **ret);
int kvk_core_cancel(struct kvk_core *core, int64_t task);

/* Something of the medium failed: remembered for the state of health. */
void kvk_core_trouble(struct kvk_core *core, int status);

/* Changes the cap in account and superblock. -EBUSY, -EIO; -ESHUTDOWN: settled. */
int kvk_core_set_cap(struct kvk_core *core, uint64_t cap_bytes);

/* look.c: figures and lists. */
void kvk_core_usage(struct kvk_core *core, struct kvk_usage *ret);
void kvk_core_stats(struct kvk_core *core, struct kvk_stats *ret);
int kvk_core_status(struct kvk_core *core, char **ret);
int kvk_core_list(struct kvk_core *core, const struct kvk_list_query *query, struct kvk_list_entry *entries,
		  uint32_t count, char **cursor_ret);

#endif
