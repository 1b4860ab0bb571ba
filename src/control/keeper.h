/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper: of all processes that have a store open the one that scans, reconciles the account, sweeps and evicts. Whoever
 * gets its lock byte is it, tries every 250 ms and never waits for it, so that a keeper that dies or stops is followed by
 * another and holds nobody up.
 *
 * A new keeper knows what it stored and met itself. So it lists everything once (names, then footers), and from then on
 * what changed: folders' modification times tell what others published and removed.
 */
#ifndef KVK_CONTROL_KEEPER_H
#define KVK_CONTROL_KEEPER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "account/account.h"
#include "adapter/adapter.h"
#include "catalog/catalog.h"
#include "store/scan_state.h"
#include "util/log.h"

struct kvk_keeper;

struct kvk_keeper_options {
	struct kvk_backend *backend;   /* these outlive the keeper */
	struct kvk_adapter *adapter;
	struct kvk_catalog *catalog;
	struct kvk_account *account;
	const struct kvk_log_sink *log;
	struct kvk_layout layout;
	uint8_t store_id[16];
	bool persist;                  /* false: no snapshot is written */
	atomic_bool *is_keeper;        /* told besides; NULL: to nobody */
	/* A sync of everything failed. The kernel tells that once, so nobody else may hear of it. NULL: nobody is told. */
	void (*trouble)(void *user, int status);
	void *user;
};

/* -ENOMEM. Starts nothing. */
int kvk_keeper_new(struct kvk_keeper **ret, const struct kvk_keeper_options *options);
/* Not while run() is under way. NULL is fine. */
void kvk_keeper_free(struct kvk_keeper *keeper);

/* The body of a thread: returns soon after kvk_keeper_stop(), with the lock given back; a keeper that knew all writes
 * its snapshot before. */
void kvk_keeper_run(struct kvk_keeper *keeper);
/* Any thread; may be called before run(). */
void kvk_keeper_stop(struct kvk_keeper *keeper);

/*
 * Any thread but the keeper's. Has all buckets listed and compared anew, whether or not they seem to have changed, the footers read that
 * were not, and what the account has too much taken off it; and waits for that, wait_us at most. 0: all that rests is
 * exact. -EBUSY: this process is not the keeper. -ETIMEDOUT: it goes on, and the next call waits for the rest of it. -ESHUTDOWN.
 */
int kvk_keeper_scan(struct kvk_keeper *keeper, uint64_t wait_us);

/* Any thread. */
bool kvk_keeper_is_keeper(struct kvk_keeper *keeper);
void kvk_keeper_state(struct kvk_keeper *keeper, struct kvk_scan_state *ret);

#endif
