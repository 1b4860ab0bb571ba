/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A backend that wraps another and fails on purpose: for tests, and for operators who want to see how an
 * engine behaves on a bad disk (the "fault" option of a store).
 */
#ifndef KVK_BACKEND_FAULT_FAULT_H
#define KVK_BACKEND_FAULT_FAULT_H

#include "backend/backend.h"

enum kvk_fault_kind {
	KVK_FAULT_FAIL = 0,            /* ends with -error, nothing is done; but CLOSE closes */
	KVK_FAULT_FAIL_AFTER,          /* is done, and ends with -error all the same (a write or fsync that lies) */
	/* READ, WRITE: moves part_bytes fewer, at least 0; whole blocks stay whole. UPDATE_FILE: and ends with -EIO */
	KVK_FAULT_SHORTEN,
	KVK_FAULT_DELAY,               /* ends delay_us later */
	/* READ: one bit of what arrives is flipped; WRITE, UPDATE_FILE: one bit of what is written */
	KVK_FAULT_CORRUPT,
	KVK_FAULT_HANG,                /* ends only after kvk_fault_release(), or at close() of the backend */
};

/* Stands for update_file() among the ops of a rule. Rules for all ops mean transfers alone, so that what a store writes
 * beside its objects does not disturb their counts. */
#define KVK_FAULT_UPDATE_FILE KVK_XFER_OP_COUNT
/* The same for what only asks how the medium is: space() and is_locked(). */
#define KVK_FAULT_ASK (KVK_XFER_OP_COUNT + 1)
#define KVK_FAULT_OP_COUNT (KVK_XFER_OP_COUNT + 2)

/* One rule. It looks at transfers whose op is in ops; of those it strikes the nth (from 1), and with every > 0 each
 * every-th after it. Independently, it strikes chance_ppm of them by chance. In all at most times times (0: without end).
 * It counts and draws also where an earlier rule strikes. */
struct kvk_fault_rule {
	enum kvk_fault_kind kind;
	uint32_t ops;                  /* bit 1u << enum kvk_xfer_op; 0: all transfers */
	uint64_t nth;                  /* 0: only by chance */
	uint64_t every;
	uint64_t times;
	uint32_t chance_ppm;
	int error;                     /* EIO, ENOSPC, ...: positive */
	uint64_t part_bytes;           /* SHORTEN: how many fewer; UINT64_MAX: none at all is moved */
	uint64_t delay_us;
};

#define KVK_FAULT_RULES_MAX 16

/* Wraps inner, which it owns from now on and closes. Rules strike in the order given, the first that matches.
 * On failure inner stays the caller's. */
int kvk_fault_new(struct kvk_backend **ret, struct kvk_backend *inner, uint64_t seed);
/* -EINVAL: it makes no sense, or would never strike. -E2BIG: KVK_FAULT_RULES_MAX were added. */
int kvk_fault_add(struct kvk_backend *fault, const struct kvk_fault_rule *rule);
/* No rule strikes any more; counters go to 0. What hangs goes on hanging. */
void kvk_fault_clear(struct kvk_backend *fault);
/* What hangs goes on and ends as it would have. */
void kvk_fault_release(struct kvk_backend *fault);
/* How many transfers a rule struck; how many were seen in all (also without rules); places open now. */
uint64_t kvk_fault_struck(struct kvk_backend *fault);
uint64_t kvk_fault_seen(struct kvk_backend *fault);
uint64_t kvk_fault_places(struct kvk_backend *fault);

/*
 * Reads the "fault" option: a JSON array of rules, {"do":"fail","ops":["read"],"nth":1,"every":0,"times":1,
 * "chance":0.001,"error":"EIO","part_kb":4,"delay_ms":10}. Needed are "do", and "nth" or "chance"; "part_kb" to
 * shorten; "delay_ms" to delay. Without "ops" all transfers are meant, without "error" EIO; "update_file"
 * and "ask" are among the ops as well. -EINVAL with *error filled; then
 * no rule was added.
 */
int kvk_fault_parse(struct kvk_backend *fault, const char *json, struct kvk_error *error);

#endif
