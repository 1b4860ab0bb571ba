/* SPDX-License-Identifier: Apache-2.0 */
/* What a store tells of itself: its account, the processes that share it, and the pass that compares it with the medium. */
#ifndef KVK_CLI_STATUS_H
#define KVK_CLI_STATUS_H

#include <signal.h>

#include <jansson.h>
#include <kvkeep/kvkeep.h>

#include "cli.h"

/* Set when the user has had enough; kvk_cli_catch_signals() has it set by SIGINT and SIGTERM. */
extern volatile sig_atomic_t kvk_cli_interrupted;
void kvk_cli_catch_signals(void);

/* A number of an object that the library wrote; 0 if there is none. */
uint64_t kvk_cli_member(const json_t *object, const char *name);

/* The status of a store as JSON, or NULL. */
json_t *kvk_cli_status(struct kvk_store *store);

/*
 * The store's usage, once it has looked at the account it shares with others and at the medium, which it does as the first
 * thing after it was opened. 0, or KVK_EXIT_FAILED after saying why.
 */
int kvk_cli_usage_of(struct kvk_store *store, struct kvk_usage *usage);

/* All of it as JSON, or null. */
json_t *kvk_usage_json(struct kvk_store *store);

enum kvk_scan_phase {
	KVK_SCAN_UNKNOWN = 0,      /* the library does not tell */
	KVK_SCAN_WAITING,          /* this process will, in a moment */
	KVK_SCAN_ELSEWHERE,        /* another process does it */
	KVK_SCAN_NAMES,            /* names and sizes: what is there is being counted */
	KVK_SCAN_FOOTERS,          /* tenants and chains are being read */
	KVK_SCAN_SETTLING,         /* all is known; the account waits for another process, or for the medium */
	KVK_SCAN_IDLE,             /* all is known and in the account */
};

struct kvk_scan {
	enum kvk_scan_phase phase;
	uint64_t buckets_done, buckets;
	uint64_t objects, bytes;
	double left_s;             /* below 0: not known */
	bool has_drift;
	int64_t drift_bytes;       /* what the last pass had to correct */
};

/* usage tells whether others have the store open too. status may be NULL. */
void kvk_scan_read(struct kvk_scan *ret, const json_t *status, const struct kvk_usage *usage);
const char *kvk_scan_text(enum kvk_scan_phase phase);

/*
 * Waits until this process knows all that is in the store, showing how far it is, as long as it is this process that looks.
 * 0: it knows. -EBUSY: another process looks, and knows. -EINTR: the user has had enough. -EIO: the store does not tell.
 */
int kvk_scan_wait(struct kvk_store *store, const char *verb);

#endif
