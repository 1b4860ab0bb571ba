/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the fault backend share. */
#ifndef KVK_BACKEND_FAULT_INSIDE_H
#define KVK_BACKEND_FAULT_INSIDE_H

#include <pthread.h>
#include <stdatomic.h>

#include "backend/fault/rules.h"

struct kvk_fault {
	struct kvk_backend base;
	struct kvk_backend *inner;
	_Atomic uint64_t seen;
	_Atomic uint64_t struck;
	_Atomic uint64_t places;
	pthread_mutex_t lock;          /* guards all below. A ring's put() and wake() are called with it held */
	pthread_cond_t changed;        /* releases, closing, hanging */
	struct kvk_fault_rules rules;
	uint64_t releases;
	uint32_t hanging;              /* threads in run() that hang or did, until they leave */
	bool closing;
	struct kvk_link rings;
};

/* One transfer on its way through the inner backend, which sees xfer; outer stays as its owner left it. */
struct kvk_fault_held {
	struct kvk_xfer xfer;
	struct kvk_xfer *outer;
	struct kvk_fault_verdict verdict;
	struct iovec iov[KVK_XFER_IOVS];
	void *copy;                    /* what is written instead, or NULL */
	uint64_t copy_bytes;
	uint64_t due_us;               /* DELAY: when it may end */
	uint64_t releases;             /* HANG: how many releases there were when it began */
	bool with_inner;               /* the inner ring has it */
};

/* fault.c */
struct kvk_fault *kvk_fault_of(struct kvk_backend *backend);

/* held.c */
/* Takes outer over. true: held->xfer goes to the inner backend. false: held->xfer.result is final already. */
bool kvk_fault_held_begin(struct kvk_fault *fault, struct kvk_fault_held *held, struct kvk_xfer *outer,
			  const struct kvk_fault_verdict *verdict);
/* Undoes begin: the inner backend did not take it. */
void kvk_fault_held_drop(struct kvk_fault_held *held);
/* held->xfer.result is final: does what comes after, and hands the results to outer. */
void kvk_fault_held_end(struct kvk_fault *fault, struct kvk_fault_held *held);

/* ring.c */
extern const struct kvk_ring_ops kvk_fault_ring_ops;
/* Wakes every ring. Called with the lock held. */
void kvk_fault_rings_wake(struct kvk_fault *fault);

#endif
