/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the account share. */
#ifndef KVK_ACCOUNT_ACCOUNT_PRIVATE_H
#define KVK_ACCOUNT_ACCOUNT_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "account/account.h"

/* Operations under way are counted by the visit that came before them: so many visits back are kept apart. */
#define KVK_ACCOUNT_TURNS 16u

struct kvk_account_turn {
	_Alignas(64) _Atomic uint32_t count;
	uint64_t since_ns;             /* none of those counted here began before. lock guards it */
};

/* What a write may have left on the medium although it failed. The row's number of visits tells, when it is read again. */
struct kvk_account_doubt {
	bool stands;
	uint32_t visits;
	uint64_t published_bytes[KVK_ACCOUNT_BUCKETS];
	uint64_t credited_bytes[KVK_ACCOUNT_BUCKETS];
};

struct kvk_account {
	struct kvk_backend *backend;
	const struct kvk_log_sink *log;

	/* Any thread: */
	_Atomic uint64_t published_bytes[KVK_ACCOUNT_BUCKETS];
	_Atomic uint64_t unlinked_bytes[KVK_ACCOUNT_BUCKETS];
	_Atomic uint64_t credits_bytes;        /* unlinked, not credited: of the array above and of syncing_bytes */
	_Atomic uint64_t used_bytes;           /* known_bytes, and what was published and unlinked and is not in it */
	_Atomic uint64_t cap_bytes;
	_Atomic uint32_t turn;
	struct kvk_account_turn turns[KVK_ACCOUNT_TURNS];

	/* Never changed after open: */
	uint32_t row;
	uint64_t token;
	uint64_t epoch;
	uint64_t first_cap_bytes;
	bool first_empty;
	bool alone_at_open;
	bool many_hosts;                       /* of the backend */
	uint64_t margin_ns;
	char host[24];

	pthread_mutex_t lock;                  /* guards all below, and is held across a transaction */
	/* Taken under lock, and never held over I/O, so that who only looks never waits for the medium: what is marked with a
	 * star is changed with both held. */
	pthread_mutex_t look_lock;
	bool retired;                          /* the row was given back */
	bool counted;                          /* this open is in the file's epoch */
	bool complained;                       /* about writes that fail; until one succeeds */
	uint32_t visits;                       /* tried */
	uint64_t known_bytes;                  /* charged and loose as of the last transaction */
	uint64_t lease_bytes;                  /* in circulation, or published and not posted */
	uint64_t overdrawn_bytes;              /* posted beyond the lease: until kvk_account_take_overdrawn() */
	uint64_t posting_bytes[KVK_ACCOUNT_BUCKETS];   /* * of the transaction under way */
	uint64_t syncing_bytes[KVK_ACCOUNT_BUCKETS];   /* * unlinked before the last sync_begin() */
	/* Synced, but more than is charged: another process has published it and not posted that yet. It is taken off once he has. */
	uint64_t early_bytes[KVK_ACCOUNT_BUCKETS];     /* * */
	uint64_t staying_bytes[KVK_ACCOUNT_BUCKETS];   /* what the transaction under way leaves of it */
	uint64_t early_since_ns;               /* no unlink of it is older; 0: there is none */
	uint64_t early_until_ns;               /* then it is given up: nobody posts it. 0: there is none */
	uint64_t frontier_ns;                  /* of the last look: nothing under way was older */
	uint64_t sync_frontier_ns;             /* the same at the last sync_begin() */
	uint64_t waiting_bytes;                /* unlinked and not credited, at the last look: later ones are younger than frontier_ns */
	uint64_t credits_since_ns;             /* no unlink that waits for credit is older; 0: none waits */
	uint64_t wall_ns, monotonic_ns;        /* of the last look: by the medium's clock, and since this machine started */
	int64_t least_ahead_ns, most_ahead_ns; /* the first of these of the second, when either was set last, as far as known */
	bool clock_known;                      /* the medium told its time at the last look */
	bool clock_was_set;                    /* since the last transaction */
	uint64_t even_since;                   /* who has seen this sequence wrote down a time of since the clock was set; 0: never */
	bool skew_told;
	uint64_t seen;                         /* what was done before this sequence was read is posted */
	uint64_t mark, mark_ns;                /* a later sequence, and when it was read; mark_ns 0: none */
	uint32_t pass_remade;                  /* of the image when the pass began */
	uint64_t pass_loosened_bytes;
	uint64_t pass_above_bytes;     /* by which bounds were above what is charged, of all buckets */
	int64_t corrected_bytes;               /* lowered by findings and passes */
	bool pass_sound;                       /* no row was lost when it began */
	uint32_t cursor;                       /* of the row that is looked at next, whether it is dead */
	bool dead[KVK_ACCOUNT_ROWS];           /* * whose process was found dead, as long as image has the row */
	struct kvk_bucket_finding kept[KVK_ACCOUNT_BUCKETS];   /* of buckets that are not quiet; begin_ns 0: none */
	struct kvk_account_doubt doubt;
	struct kvk_account_image image;        /* * as of the last transaction */
	struct kvk_account_image next;         /* what the one under way makes of it */
	struct kvk_account_image scratch;
	uint8_t encoded[KVK_ACCOUNT_BYTES];
};

/* Longer than a tick of the kernel's clock, and than another processor is late to see one. */
#define KVK_ACCOUNT_MARGIN_NS UINT64_C(20000000)
/*
 * Where machines share the medium: more than servers that keep whole seconds lose, and than clocks differ without its being
 * seen. Those of two machines are seen to differ by SKEW if both visit within the rest of the margin, and they do so
 * four times a second.
 */
#define KVK_ACCOUNT_SHARED_MARGIN_NS UINT64_C(1100000000)
#define KVK_ACCOUNT_SKEW_NS UINT64_C(400000000)
/* Clocks that were seen to differ are mistrusted for so many transactions: minutes in a store that is in use. */
#define KVK_ACCOUNT_SKEWED_FOR 10000u
/* Of sequences, whose low halves are compared. */
#define KVK_ACCOUNT_LONG_AGO (1u << 30)

struct kvk_account_tx;

/* ---- time.c: called with the lock held ----------------------------------------------------------------- */

/* The clock that the medium stamps folders with. 0: it cannot be asked now. */
uint64_t kvk_account_now_ns(struct kvk_account *account);
/* The same, or what it said up to half a second ago where asking takes a way to a server. */
uint64_t kvk_account_lately_ns(struct kvk_account *account);
/*
 * Everything older than the answer is done: published() and unlinked() were called for it, and whoever reads those sums after
 * this sees it. Begins a new turn.
 */
uint64_t kvk_account_frontier(struct kvk_account *account);
/* After a look at the clock within a transaction: whether it was set, which those who open later read in the file. */
void kvk_account_mind_set_clock(struct kvk_account *account, struct kvk_account_tx *tx);
/* The clocks of those who share the medium differ, as far as is known. */
bool kvk_account_is_skewed(const struct kvk_account *account, const struct kvk_account_image *image);

/* ---- transaction.c: called with the lock held ---------------------------------------------------------- */

/* What a transaction under way is about to do. */
struct kvk_account_tx {
	bool changed;                  /* something must be written */
	bool synced;                   /* credits count */
	bool stays;                    /* some are early */
	bool leaves;                   /* the row was given back */
	bool applied;                  /* the write that failed last is in the file */
	uint32_t processes;
	uint64_t posted_bytes;
	uint64_t settled_ns;
	uint64_t seen;                 /* as in the account, once this is written */
};

/* After a look at the clock within the transaction: it comes after the last one, whatever the clocks of their machines say. */
void kvk_account_mind_skew(struct kvk_account *account, struct kvk_account_tx *tx);

/*
 * Locks and reads the account into account->next, settles dead rows, sees to the own row and posts. After 0 the caller
 * changes next as it likes and calls end(). -errno: nothing happened.
 */
int kvk_account_tx_begin(struct kvk_account *account, struct kvk_account_tx *tx, uint32_t wait_ms);
/* The same without a row and without posting: for an open, which takes one. */
int kvk_account_tx_begin_open(struct kvk_account *account, struct kvk_account_tx *tx, uint32_t wait_ms);
/* Ends it without writing. */
void kvk_account_tx_give_up(struct kvk_account *account);
/* Writes next if it changed, and unlocks. -errno: nothing counts, and it is to be tried again as if it had not been. */
int kvk_account_tx_end(struct kvk_account *account, struct kvk_account_tx *tx);
/* Makes the row account->row of next the own one. -ESTALE: it is another's. */
int kvk_account_tx_take_row(struct kvk_account *account, struct kvk_account_tx *tx);

uint64_t kvk_account_charged(const struct kvk_account_image *image);   /* what is loose included */
uint64_t kvk_account_leased(const struct kvk_account_image *image);
static inline bool kvk_account_in_use(const struct kvk_account_line *line)
{
	return line->token != 0 || line->lost;
}

static inline uint64_t kvk_account_less(uint64_t bytes, uint64_t by)
{
	return bytes > by ? bytes - by : 0;
}

/* Beyond the maximum there is no medium. */
static inline uint64_t kvk_account_more(uint64_t bytes, uint64_t by)
{
	return by < KVK_ACCOUNT_VALUE_MAX - bytes ? bytes + by : KVK_ACCOUNT_VALUE_MAX;
}

#endif
