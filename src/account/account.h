/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is charged and leased on a medium that processes share. One small file, `.kvkeep/account`, changed only by
 * transactions: under a lock, read anew, written and synced before anything counts. The rule it keeps, at every instant and
 * also after kill -9 or a power cut: the bytes on the medium are at most what is charged, loose and leased, and nothing is
 * leased that would bring their sum above the cap.
 *
 *	charged   by bucket: what is known to be there
 *	loose     what processes that died had leased: up to so much may be there uncharged
 *	leased    by process: what it may publish, or has published and not posted yet
 *
 * A process takes a lease ahead, publishes out of it without a lock or a system call, and posts at its next visit: from its
 * lease to the buckets. What it unlinked is taken off a bucket only after a sync that began after the unlink.
 *
 * Each operation that makes bytes visible or takes them away stands between enter() and leave(), which tell since when
 * something may be on the medium that is not posted.
 */
#ifndef KVK_ACCOUNT_ACCOUNT_H
#define KVK_ACCOUNT_ACCOUNT_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/backend.h"
#include "format/format.h"
#include "util/log.h"

struct kvk_account;

/*
 * Opens the account, or makes it with cap_bytes (0: none; else the one written down counts), settles the rows of dead
 * processes and takes a row. backend and log (may be NULL) must outlive it. A file that is lost or damaged is made anew, and
 * needs a scan unless empty says that the store was just made. Where the file cannot be written now (a full disk), the
 * open succeeds all the same and nothing is leased until a visit could write.
 * -EUSERS: as many processes as there are rows have it open. -EBUSY: somebody holds the lock for long. -EPROTO: newer.
 */
int kvk_account_open(struct kvk_account **ret, struct kvk_backend *backend, uint64_t cap_bytes, bool empty,
		     const struct kvk_log_sink *log, struct kvk_error *error);
/* Posts what is left and gives lease and row back. Waits up to wait_ms; a row that could not be given back is settled by others
 * once the backend is closed. From then on transactions get -ESHUTDOWN, and figures stand as they were. NULL is fine. */
void kvk_account_retire(struct kvk_account *account, uint32_t wait_ms);
/* Retires if that was not done, and frees: nobody may be in any call, or make one. NULL is fine. */
void kvk_account_close(struct kvk_account *account, uint32_t wait_ms);
/* In a child after fork: frees memory only. NULL is fine. */
void kvk_account_abandon(struct kvk_account *account);

/* ---- any thread, no lock, no system call --------------------------------------------------------------- */

/*
 * An operation that may publish or unlink is under way: enter() before it begins, leave() with what enter() returned after
 * published() and unlinked() were called for it. It holds up only what the keeper may conclude, so seconds are fine.
 */
uint32_t kvk_account_enter(struct kvk_account *account);
void kvk_account_leave(struct kvk_account *account, uint32_t entered);
/* Somebody entered and did not leave yet. */
bool kvk_account_is_entered(const struct kvk_account *account);
/* It is on the medium under its name, out of the lease. */
void kvk_account_published(struct kvk_account *account, uint32_t bucket, uint64_t bytes);
/* Its last name is gone. Credited after a sync. */
void kvk_account_unlinked(struct kvk_account *account, uint32_t bucket, uint64_t bytes);
/* Something that was unlinked waits for a sync, or for the visit after it. */
bool kvk_account_has_credits(const struct kvk_account *account);
/* Charged (what is loose included) and cap as of the last transaction, with what this process published and unlinked since. */
void kvk_account_usage(const struct kvk_account *account, uint64_t *used_bytes, uint64_t *cap_bytes);

/* ---- any thread, never longer than a copy of figures takes: no transaction is waited for ---------------- */

/* What is charged in one bucket, as of the last transaction, with what this process published and unlinked since. */
uint64_t kvk_account_bucket(struct kvk_account *account, uint32_t bucket);

struct kvk_account_row {
	uint64_t leased_bytes;
	uint64_t settled_ns;       /* all that was published or unlinked before is posted */
	uint32_t index;
	uint32_t pid;              /* as its process sees itself: a container's pid means nothing outside */
	/* As of the last visit that looked at the row; it settles a dead one, so that such a row is seen only while the account
	 * cannot be written. */
	bool alive;
	bool self;
	char host[32];
};

/* Rows as of the last transaction: writes up to count, returns how many are in use. */
uint32_t kvk_account_rows(struct kvk_account *account, struct kvk_account_row *rows, uint32_t count);
/* By how much the clocks of the machines that share the medium were seen to differ lately; 0: they agree. */
uint64_t kvk_account_skew_ns(struct kvk_account *account);

/* ---- visits: one thread at a time waits for the others ------------------------------------------------- */

struct kvk_account_visit {
	uint64_t want_bytes;       /* in: the lease to have from now on, with what is in use of it */
	/* in: lease that the caller took out of circulation. It is the account's from the call on, whatever comes of it: what
	 * cannot be given up now is given up by the next visit that writes. */
	uint64_t give_bytes;
	bool synced;               /* in: everything was synced, by a sync that began after kvk_account_sync_begin() */
	uint64_t granted_bytes;    /* out: new lease, to be put into circulation */
	uint64_t charged_bytes;    /* out, of all processes: what is loose included */
	uint64_t loose_bytes;      /* out: of that, what processes that died had leased */
	uint64_t died;             /* out: counts who died, modulo 2^64; starts anew when the account is lost */
	uint64_t leased_bytes;     /* out, of all processes */
	uint64_t cap_bytes;        /* out; 0: none */
	uint64_t missing_bytes;    /* out: what want_bytes asked for and the cap, or a scan to come, did not allow */
	uint64_t epoch;            /* out */
	uint32_t processes;        /* out: alive, this one included */
	bool needs_scan;           /* out: charged may be less than what is there; nothing is leased until a pass is over */
};

/* Before a sync of everything: what was unlinked until now is credited by visits with synced. */
void kvk_account_sync_begin(struct kvk_account *account);
/*
 * One transaction; without a change nothing is written. 0; -EBUSY: the lock could not be had in wait_ms; -ESHUTDOWN: retired;
 * else -errno: it could not be written. On failure nothing is granted and nothing posted (out-values are untouched, granted_bytes 0).
 */
int kvk_account_visit(struct kvk_account *account, struct kvk_account_visit *visit, uint32_t wait_ms);
/* Seen by the others at their next visits. 0: none. */
int kvk_account_set_cap(struct kvk_account *account, uint64_t cap_bytes);
/* What was published beyond the lease, and was charged since this was asked last. Whoever took it out of circulation, where
 * nothing was left, is even again when he adds it; so one asks who circulates the lease, and nobody else. */
uint64_t kvk_account_take_overdrawn(struct kvk_account *account);

/* The opens there were, this one included. *alone_at_open: nobody else had it open then. A snapshot counts only with
 * the epoch before ours, and if we were alone. */
uint64_t kvk_account_epoch(const struct kvk_account *account, bool *alone_at_open);

/* ---- the keeper's -------------------------------------------------------------------------------------- */

/* What listing a bucket's folders found. */
struct kvk_bucket_finding {
	uint32_t bucket;
	int status;                /* out */
	uint64_t modified_ns;      /* of the folders (the newest of them), the same before and after the listing */
	uint64_t real_bytes;
	bool may_lower;            /* a sync of everything was made after the listing. Otherwise a bucket only rises */
	/* The account's own: */
	uint32_t remade;
	uint64_t sequence;
	uint64_t published_bytes;
	uint64_t begin_ns;
	uint64_t end_ns;           /* it was listed before */
	uint32_t end_sequence;     /* the low half of one that was written after it was listed */
};

/* Nothing changed the folder just before the listing, or by a time that may come again during it. */
bool kvk_account_is_still(const struct kvk_account *account, const struct kvk_bucket_finding *finding);
/* To be called before the folders are looked at: sets the bucket and what is the account's own, clears the rest. */
void kvk_account_finding(struct kvk_account *account, struct kvk_bucket_finding *finding, uint32_t bucket);
/*
 * One transaction that brings the buckets to what was found. In a status:
 *
 *	0        the bucket was quiet, and is what was found
 *	1        it is not quiet, and stands at no less than what is there, though at more, by what came and went since an earlier
 *	         listing: list again for the exact amount
 *	-EAGAIN  something that was found may not be posted. All processes are asked to visit: hand it in again after a while, or
 *	         list again. The first finding that got this answer is remembered, and may bring the next one a 1
 *	-ESTALE  the folder changed just before the listing, or the account was made anew: list again
 *
 * Returns as kvk_account_visit(); on failure every status is that.
 */
int kvk_account_reconcile(struct kvk_account *account, struct kvk_bucket_finding *findings, uint32_t count,
			  uint32_t wait_ms);
/* Around a pass over all buckets (quarantine included) whose listings begin after pass_begin() and whose findings
 * got status 0 or 1. The end drops what was loose at the beginning, and whoever needed a scan does not need it any more.
 * -EAGAIN, of the begin: as of the last visit a process is alive whose lease got lost with the file, and has not visited since,
 * so that a pass would prove nothing yet. Of the end: the file got lost meanwhile, and a new pass must begin. */
int kvk_account_pass_begin(struct kvk_account *account);
int kvk_account_pass_end(struct kvk_account *account);
/* By how much the two lowered (below 0: raised) what is charged, since open. Only by the thread that calls them. */
int64_t kvk_account_corrected(const struct kvk_account *account);

#endif
