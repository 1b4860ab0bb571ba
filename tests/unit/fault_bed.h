/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of the fault backend share: a backend with a ring, a fault around it, and one life of a file,
 * through run() or through the ring.
 */
#ifndef KVK_TESTS_UNIT_FAULT_BED_H
#define KVK_TESTS_UNIT_FAULT_BED_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "backend/backend.h"
#include "backend/fault/fault.h"
#include "util/alloc.h"
#include "util/clock.h"

#define BYTES 12288u

/* ---- a backend with a ring: what it is given is done at the next turn -------------------------------- */

struct plain {
	struct kvk_backend base;
	struct kvk_backend *medium;    /* a fault without rules over ram: it counts places */
	atomic_uint puts;
	atomic_uint cancels;
	_Atomic int32_t memory_index;  /* of the last that was run */
};

struct plain_ring {
	struct plain *plain;
	uint32_t depth;
	uint32_t memory_slots;
	uint32_t count;
	struct kvk_link taken;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool woken;
};

static inline struct plain *plain_of(struct kvk_backend *backend)
{
	return kvk_container_of(backend, struct plain, base);
}

static inline struct plain_ring *plain_ring_of(struct kvk_ring *ring)
{
	return (struct plain_ring *)(void *)ring;
}

static inline void plain_close(struct kvk_backend *backend)
{
	struct plain *plain = plain_of(backend);

	assert_int_equal(kvk_fault_places(plain->medium), 0);
	plain->medium->ops->close(plain->medium);
	free(plain);
}

static inline void plain_run(struct kvk_backend *backend, struct kvk_xfer *xfer)
{
	struct plain *plain = plain_of(backend);

	atomic_store(&plain->memory_index, xfer->memory_index);
	plain->medium->ops->run(plain->medium, xfer);
}

static inline int plain_ring_open(struct kvk_ring **ret, struct kvk_backend *backend, uint32_t depth, uint32_t memory_slots)
{
	struct plain_ring *ring = calloc(1, sizeof(*ring));
	pthread_condattr_t attr;

	assert_non_null(ring);
	ring->plain = plain_of(backend);
	ring->memory_slots = memory_slots;
	ring->depth = depth;
	kvk_list_init(&ring->taken);
	pthread_mutex_init(&ring->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&ring->changed, &attr);
	pthread_condattr_destroy(&attr);
	*ret = (struct kvk_ring *)(void *)ring;
	return 0;
}

static inline void plain_ring_close(struct kvk_ring *base)
{
	struct plain_ring *ring = plain_ring_of(base);

	assert_int_equal(ring->count, 0);
	pthread_cond_destroy(&ring->changed);
	pthread_mutex_destroy(&ring->lock);
	free(ring);
}

static inline int plain_ring_put(struct kvk_ring *base, struct kvk_xfer *xfer)
{
	struct plain_ring *ring = plain_ring_of(base);

	if (xfer->op == KVK_XFER_SYNC_ALL)
		return -EOPNOTSUPP;
	if (ring->count == ring->depth)
		return -EAGAIN;
	ring->count++;
	atomic_fetch_add(&ring->plain->puts, 1);
	kvk_list_push(&ring->taken, &xfer->link);
	return 0;
}

static inline void plain_ring_turn(struct kvk_ring *base, struct kvk_link *finished, uint64_t wait_us)
{
	struct plain_ring *ring = plain_ring_of(base);
	uint64_t due_us = kvk_now_us() + wait_us;
	struct timespec due = { .tv_sec = (time_t)(due_us / 1000000), .tv_nsec = (long)(due_us % 1000000 * 1000) };
	struct kvk_link *link;

	pthread_mutex_lock(&ring->lock);
	while (ring->count == 0 && wait_us > 0 && !ring->woken) {
		if (pthread_cond_timedwait(&ring->changed, &ring->lock, &due) == ETIMEDOUT)
			break;
	}
	ring->woken = false;
	pthread_mutex_unlock(&ring->lock);
	while ((link = kvk_list_pop(&ring->taken))) {
		ring->count--;
		plain_run(&ring->plain->base, kvk_container_of(link, struct kvk_xfer, link));
		kvk_list_push(finished, link);
	}
}

static inline void plain_ring_wake(struct kvk_ring *base)
{
	struct plain_ring *ring = plain_ring_of(base);

	pthread_mutex_lock(&ring->lock);
	ring->woken = true;
	pthread_cond_signal(&ring->changed);
	pthread_mutex_unlock(&ring->lock);
}

static inline void plain_ring_cancel(struct kvk_ring *base, struct kvk_xfer *xfer)
{
	struct plain_ring *ring = plain_ring_of(base);

	assert_int_not_equal(ring->count, 0);
	assert_ptr_equal(xfer->link.next->prev, &xfer->link);
	atomic_fetch_add(&ring->plain->cancels, 1);
}

static inline int plain_ring_set_memory(struct kvk_ring *base, uint32_t slot, void *memory, uint64_t bytes)
{
	return slot < plain_ring_of(base)->memory_slots ? 0 : -ENOBUFS;
}

static const struct kvk_ring_ops plain_ring_ops = {
	.open = plain_ring_open,
	.close = plain_ring_close,
	.put = plain_ring_put,
	.turn = plain_ring_turn,
	.wake = plain_ring_wake,
	.cancel = plain_ring_cancel,
	.set_memory = plain_ring_set_memory,
};

static const struct kvk_backend_ops plain_ops = {
	.name = "plain",
	.close = plain_close,
	.run = plain_run,
	.ring = &plain_ring_ops,
};

/* ---- what every test has ----------------------------------------------------------------------------- */

struct fixture {
	struct kvk_backend *fault;
	struct plain *plain;
	struct kvk_ring *ring;         /* NULL: through run() */
	uint8_t data[BYTES];
};

static inline void start(struct fixture *fixture, bool with_ring)
{
	struct kvk_backend_options options = { .create = true };
	struct kvk_backend *ram = NULL;

	*fixture = (struct fixture){ .plain = calloc(1, sizeof(*fixture->plain)) };
	assert_non_null(fixture->plain);
	assert_int_equal(kvk_backend_ram.open(&ram, &options, NULL), 0);
	assert_int_equal(kvk_fault_new(&fixture->plain->medium, ram, 0), 0);
	assert_null(fixture->plain->medium->ops->ring);
	fixture->plain->base = (struct kvk_backend){ .ops = &plain_ops, .caps = ram->caps };
	kvk_syncs_init(&fixture->plain->base.syncs);
	assert_int_equal(kvk_fault_new(&fixture->fault, &fixture->plain->base, 42), 0);
	assert_string_equal(fixture->fault->ops->name, "fault");
	assert_string_equal(fixture->fault->caps.medium, "ram");
	assert_non_null(fixture->fault->ops->ring);
	if (with_ring)
		assert_int_equal(fixture->fault->ops->ring->open(&fixture->ring, fixture->fault, 4, 2), 0);
	for (unsigned i = 0; i < BYTES; i++)
		fixture->data[i] = (uint8_t)(i % 251 + 1);
}

static inline void stop(struct fixture *fixture)
{
	assert_int_equal(kvk_fault_places(fixture->fault), 0);
	if (fixture->ring)
		fixture->fault->ops->ring->close(fixture->ring);
	fixture->fault->ops->close(fixture->fault);
}

/* Turns until something ends or wait_us is over. */
static inline struct kvk_xfer *turn(struct fixture *fixture, uint64_t wait_us)
{
	uint64_t due_us = kvk_now_us() + wait_us;
	struct kvk_link finished;

	kvk_list_init(&finished);
	for (;;) {
		uint64_t now_us = kvk_now_us();
		struct kvk_link *link;

		fixture->fault->ops->ring->turn(fixture->ring, &finished, due_us > now_us ? due_us - now_us : 0);
		link = kvk_list_pop(&finished);
		if (link) {
			assert_true(kvk_list_empty(&finished));
			return kvk_container_of(link, struct kvk_xfer, link);
		}
		if (kvk_now_us() >= due_us)
			return NULL;
	}
}

static inline int64_t carry(struct fixture *fixture, struct kvk_xfer *xfer)
{
	xfer->result = -12345;
	if (fixture->ring) {
		assert_int_equal(fixture->fault->ops->ring->put(fixture->ring, xfer), 0);
		assert_ptr_equal(turn(fixture, 10000000), xfer);
	} else {
		fixture->fault->ops->run(fixture->fault, xfer);
	}
	return xfer->result;
}

static inline int64_t step(struct fixture *fixture, enum kvk_xfer_op op, struct kvk_place **place, const char *name)
{
	struct kvk_xfer xfer;
	int64_t result;

	kvk_xfer_init(&xfer, op, place ? *place : NULL, name);
	result = carry(fixture, &xfer);
	if (place)
		*place = xfer.place;
	return result;
}

/* A READ or WRITE of three pieces that are BYTES together. */
static inline void init_pieces(struct kvk_xfer *xfer, struct iovec *iov, enum kvk_xfer_op op, struct kvk_place *place,
			uint8_t *data)
{
	kvk_xfer_init(xfer, op, place, NULL);
	iov[0] = (struct iovec){ data, 4096 };
	iov[1] = (struct iovec){ data + 4096, 100 };
	iov[2] = (struct iovec){ data + 4196, BYTES - 4196 };
	xfer->iov = iov;
	xfer->iov_count = 3;
}

/* A published file "k" with the fixture's data, no rule involved. */
static inline void make(struct fixture *fixture)
{
	struct kvk_place *place = NULL;
	struct kvk_xfer xfer;
	struct iovec iov[3];

	assert_int_equal(step(fixture, KVK_XFER_CREATE, &place, "k"), 0);
	init_pieces(&xfer, iov, KVK_XFER_WRITE, place, fixture->data);
	assert_int_equal(carry(fixture, &xfer), BYTES);
	assert_int_equal(step(fixture, KVK_XFER_PUBLISH, &place, "k"), 0);
	assert_int_equal(step(fixture, KVK_XFER_CLOSE, &place, NULL), 0);
}

static inline void add(struct fixture *fixture, const struct kvk_fault_rule *rule)
{
	assert_int_equal(kvk_fault_add(fixture->fault, rule), 0);
}

/* Runs test once through run() and once through a ring. */
static inline void both_ways(void (*test)(struct fixture *fixture))
{
	for (int with_ring = 0; with_ring < 2; with_ring++) {
		struct fixture fixture;

		start(&fixture, with_ring);
		test(&fixture);
		stop(&fixture);
	}
}

#endif
