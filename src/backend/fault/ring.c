/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ring around the inner ring. Everything is carried by a transfer of our own:
 *
 *	put() --> inner ring --> (delayed) --> ended --> turn() hands it back
 *	   |          ^
 *	   |          '-- waiting <-- hung, once released
 *	   '-- ended: failed, or nothing left of it
 */
#include <errno.h>

#include "backend/fault/inside.h"
#include "util/alloc.h"
#include "util/clock.h"

struct fault_ring {
	struct kvk_fault *fault;
	struct kvk_ring *inner;
	struct kvk_link link;          /* in fault->rings, guarded by its lock */
	/* The ring's own thread's: struct kvk_fault_held through their xfer, but lost */
	struct kvk_link unused;
	struct kvk_link hung;
	struct kvk_link waiting;       /* for the inner ring to take them */
	struct kvk_link delayed;
	struct kvk_link ended;
	struct kvk_link lost;          /* the caller's own xfers: there was no memory to carry them */
};

static struct fault_ring *ring_of(struct kvk_ring *ring)
{
	return (struct fault_ring *)(void *)ring;
}

static const struct kvk_ring_ops *inner_ops(const struct fault_ring *ring)
{
	return ring->fault->inner->ops->ring;
}

static struct kvk_fault_held *held_of(struct kvk_link *link)
{
	return kvk_container_of(link, struct kvk_fault_held, xfer.link);
}

static int fault_ring_open(struct kvk_ring **ret, struct kvk_backend *backend, uint32_t depth, uint32_t memory_slots)
{
	struct kvk_fault *fault = kvk_fault_of(backend);
	struct fault_ring *ring = kvk_mem_zalloc(1, sizeof(*ring));
	int err;

	if (!ring)
		return -ENOMEM;
	err = fault->inner->ops->ring->open(&ring->inner, fault->inner, depth, memory_slots);
	if (err) {
		kvk_mem_free(ring);
		return err;
	}
	ring->fault = fault;
	kvk_list_init(&ring->unused);
	kvk_list_init(&ring->hung);
	kvk_list_init(&ring->waiting);
	kvk_list_init(&ring->delayed);
	kvk_list_init(&ring->ended);
	kvk_list_init(&ring->lost);
	pthread_mutex_lock(&fault->lock);
	kvk_list_push(&fault->rings, &ring->link);
	pthread_mutex_unlock(&fault->lock);
	*ret = (struct kvk_ring *)(void *)ring;
	return 0;
}

static void free_all(struct kvk_link *head)
{
	struct kvk_link *link;

	while ((link = kvk_list_pop(head))) {
		struct kvk_fault_held *held = held_of(link);

		kvk_fault_held_drop(held);
		kvk_mem_free(held);
	}
}

static void fault_ring_close(struct kvk_ring *base)
{
	struct fault_ring *ring = ring_of(base);

	if (!ring)
		return;
	pthread_mutex_lock(&ring->fault->lock);
	kvk_list_remove(&ring->link);
	pthread_mutex_unlock(&ring->fault->lock);
	inner_ops(ring)->close(ring->inner);
	free_all(&ring->unused);
	free_all(&ring->hung);
	free_all(&ring->waiting);
	free_all(&ring->delayed);
	free_all(&ring->ended);
	kvk_mem_free(ring);
}

void kvk_fault_rings_wake(struct kvk_fault *fault)
{
	for (struct kvk_link *link = fault->rings.next; link != &fault->rings; link = link->next) {
		struct fault_ring *ring = kvk_container_of(link, struct fault_ring, link);

		inner_ops(ring)->wake(ring->inner);
	}
}

/* Called with the lock of the backend held. */
static int put_judged(struct fault_ring *ring, struct kvk_fault_held *held, struct kvk_xfer *xfer,
		      const struct kvk_fault_verdict *verdict)
{
	bool goes_on = kvk_fault_held_begin(ring->fault, held, xfer, verdict);
	int err;

	if (!goes_on) {
		kvk_list_push(&ring->ended, &held->xfer.link);
		return 0;
	}
	if (verdict->struck && verdict->kind == KVK_FAULT_HANG) {
		held->releases = ring->fault->releases;
		kvk_list_push(&ring->hung, &held->xfer.link);
		return 0;
	}
	err = inner_ops(ring)->put(ring->inner, &held->xfer);
	held->with_inner = !err;
	if (err)
		kvk_fault_held_drop(held);
	return err;
}

static int fault_ring_put(struct kvk_ring *base, struct kvk_xfer *xfer)
{
	struct fault_ring *ring = ring_of(base);
	struct kvk_fault *fault = ring->fault;
	struct kvk_link *link = kvk_list_pop(&ring->unused);
	struct kvk_fault_held *held = link ? held_of(link) : kvk_mem_zalloc(1, sizeof(*held));
	struct kvk_fault_verdict verdict;
	struct kvk_fault_rules before;
	int err;

	if (!held) {
		xfer->ring_data = 0;
		xfer->result = -ENOMEM;
		kvk_list_push(&ring->lost, &xfer->link);
		return 0;
	}
	/* One that is not taken comes again, here or through run(): it must count once. So the inner put is under
	 * the lock, and no other judgement lies between this one and taking it back. */
	pthread_mutex_lock(&fault->lock);
	before = fault->rules;
	kvk_fault_rules_judge(&fault->rules, xfer->op, &verdict);
	err = put_judged(ring, held, xfer, &verdict);
	if (err)
		fault->rules = before;
	pthread_mutex_unlock(&fault->lock);
	if (err) {
		kvk_list_push(&ring->unused, &held->xfer.link);
		return err;
	}
	xfer->ring_data = (uint64_t)(uintptr_t)held;
	atomic_fetch_add(&fault->seen, 1);
	if (verdict.struck)
		atomic_fetch_add(&fault->struck, 1);
	return 0;
}

/* What was released goes to the inner ring, in the order in which it was put. */
static void let_go(struct fault_ring *ring)
{
	struct kvk_link *link;
	uint64_t releases;

	pthread_mutex_lock(&ring->fault->lock);
	releases = ring->fault->releases;
	pthread_mutex_unlock(&ring->fault->lock);
	while ((link = kvk_list_first(&ring->hung)) && held_of(link)->releases != releases) {
		kvk_list_remove(link);
		kvk_list_push(&ring->waiting, link);
	}
	while ((link = kvk_list_first(&ring->waiting))) {
		struct kvk_fault_held *held = held_of(link);
		int err;

		kvk_list_remove(link);
		err = inner_ops(ring)->put(ring->inner, &held->xfer);
		held->with_inner = !err;
		if (err == -EAGAIN) {
			kvk_list_push_front(&ring->waiting, link);
			return;
		}
		if (err == 0)
			continue;
		/* The inner ring does not do such an operation, which hanging kept us from learning earlier. */
		ring->fault->inner->ops->run(ring->fault->inner, &held->xfer);
		kvk_list_push(&ring->ended, link);
	}
}

/* How long the inner ring may wait without anything of ours becoming late. */
static uint64_t shorten_wait(struct fault_ring *ring, uint64_t wait_us)
{
	uint64_t now_us = kvk_now_us();

	if (!kvk_list_empty(&ring->ended) || !kvk_list_empty(&ring->lost) || !kvk_list_empty(&ring->waiting))
		return 0;
	for (struct kvk_link *link = ring->delayed.next; link != &ring->delayed; link = link->next) {
		uint64_t due_us = held_of(link)->due_us;
		uint64_t left_us = due_us > now_us ? due_us - now_us : 0;

		if (left_us < wait_us)
			wait_us = left_us;
	}
	return wait_us;
}

/* What the inner ring finished ends now, or later. */
static void sort_finished(struct fault_ring *ring, struct kvk_link *carried)
{
	uint64_t now_us = kvk_now_us();
	struct kvk_link *link;
	struct kvk_link *next;

	while ((link = kvk_list_pop(carried))) {
		struct kvk_fault_held *held = held_of(link);
		bool delayed = held->verdict.struck && held->verdict.kind == KVK_FAULT_DELAY;

		held->with_inner = false;
		held->due_us = now_us + held->verdict.delay_us;
		kvk_list_push(delayed ? &ring->delayed : &ring->ended, link);
	}
	for (link = ring->delayed.next; link != &ring->delayed; link = next) {
		next = link->next;
		if (held_of(link)->due_us <= now_us) {
			kvk_list_remove(link);
			kvk_list_push(&ring->ended, link);
		}
	}
}

static void fault_ring_turn(struct kvk_ring *base, struct kvk_link *finished, uint64_t wait_us)
{
	struct fault_ring *ring = ring_of(base);
	struct kvk_link carried;
	struct kvk_link *link;

	kvk_list_init(&carried);
	let_go(ring);
	inner_ops(ring)->turn(ring->inner, &carried, shorten_wait(ring, wait_us));
	sort_finished(ring, &carried);
	kvk_list_splice(finished, &ring->lost);
	while ((link = kvk_list_pop(&ring->ended))) {
		struct kvk_fault_held *held = held_of(link);

		kvk_fault_held_end(ring->fault, held);
		held->outer->ring_data = 0;
		kvk_list_push(finished, &held->outer->link);
		kvk_list_push(&ring->unused, link);
	}
}

static void fault_ring_wake(struct kvk_ring *base)
{
	struct fault_ring *ring = ring_of(base);

	inner_ops(ring)->wake(ring->inner);
}

/* What hangs or is late does not listen, as a disk in trouble does not. */
static void fault_ring_cancel(struct kvk_ring *base, struct kvk_xfer *xfer)
{
	struct fault_ring *ring = ring_of(base);
	struct kvk_fault_held *held = (struct kvk_fault_held *)(uintptr_t)xfer->ring_data;

	if (held && held->with_inner)
		inner_ops(ring)->cancel(ring->inner, &held->xfer);
}

static int fault_ring_set_memory(struct kvk_ring *base, uint32_t slot, void *memory, uint64_t bytes)
{
	struct fault_ring *ring = ring_of(base);

	return inner_ops(ring)->set_memory(ring->inner, slot, memory, bytes);
}

const struct kvk_ring_ops kvk_fault_ring_ops = {
	.open = fault_ring_open,
	.close = fault_ring_close,
	.put = fault_ring_put,
	.turn = fault_ring_turn,
	.wake = fault_ring_wake,
	.cancel = fault_ring_cancel,
	.set_memory = fault_ring_set_memory,
};
