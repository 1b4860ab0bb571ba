/* SPDX-License-Identifier: Apache-2.0 */
/* What a verdict does to one transfer, before and after the inner backend had it. */
#include <errno.h>
#include <string.h>

#include "backend/fault/inside.h"
#include "util/alloc.h"

static bool struck_by(const struct kvk_fault_held *held, enum kvk_fault_kind kind)
{
	return held->verdict.struck && held->verdict.kind == kind;
}

static uint64_t iov_bytes(const struct kvk_xfer *xfer)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < xfer->iov_count; i++)
		bytes += xfer->iov[i].iov_len;
	return bytes;
}

/*
 * Direct transfers stay aligned: a disk shortens them by whole blocks, and an unaligned rest would be refused
 * by the kernel, which is another fault than the one asked for.
 */
static bool shorten(struct kvk_fault *fault, struct kvk_fault_held *held)
{
	struct kvk_xfer *xfer = &held->xfer;
	uint64_t asked_bytes = iov_bytes(xfer);
	uint64_t align_bytes = fault->base.caps.align_offset_bytes;
	uint64_t left_bytes = 0;
	uint32_t count = 0;

	if (asked_bytes > held->verdict.part_bytes)
		left_bytes = asked_bytes - held->verdict.part_bytes;
	if (align_bytes > 1 && (asked_bytes | xfer->offset_bytes) % align_bytes == 0)
		left_bytes -= left_bytes % align_bytes;
	for (; left_bytes > 0; count++) {
		held->iov[count] = xfer->iov[count];
		if (held->iov[count].iov_len > left_bytes)
			held->iov[count].iov_len = left_bytes;
		left_bytes -= held->iov[count].iov_len;
	}
	xfer->iov = held->iov;
	xfer->iov_count = count;
	xfer->result = 0;
	return count > 0;
}

static void flip_bit(struct kvk_xfer *xfer, uint64_t bytes, uint64_t random)
{
	uint64_t at = random / 8 % bytes;

	for (uint32_t i = 0; i < xfer->iov_count; i++) {
		if (at < xfer->iov[i].iov_len) {
			uint8_t *byte = (uint8_t *)xfer->iov[i].iov_base + at;

			*byte = (uint8_t)(*byte ^ 1u << random % 8);
			return;
		}
		at -= xfer->iov[i].iov_len;
	}
}

/* The caller's bytes stay as they are: what is written is a mapped, hence aligned, copy. */
static bool corrupt_write(struct kvk_fault_held *held)
{
	struct kvk_xfer *xfer = &held->xfer;
	uint64_t bytes = iov_bytes(xfer);
	uint64_t at = 0;

	if (bytes == 0)
		return true;
	held->copy = kvk_mem_map(bytes);
	if (!held->copy) {
		xfer->result = -ENOMEM;
		return false;
	}
	held->copy_bytes = bytes;
	for (uint32_t i = 0; i < xfer->iov_count; i++) {
		memcpy((uint8_t *)held->copy + at, xfer->iov[i].iov_base, xfer->iov[i].iov_len);
		at += xfer->iov[i].iov_len;
	}
	held->iov[0] = (struct iovec){ held->copy, bytes };
	xfer->iov = held->iov;
	xfer->iov_count = 1;
	xfer->memory_index = -1;
	flip_bit(xfer, bytes, held->verdict.random);
	return true;
}

bool kvk_fault_held_begin(struct kvk_fault *fault, struct kvk_fault_held *held, struct kvk_xfer *outer,
			  const struct kvk_fault_verdict *verdict)
{
	/* Only what a backend is told: the rest belongs to the lane, which may be changing it. */
	kvk_xfer_init(&held->xfer, outer->op, outer->place, outer->name);
	held->xfer.flags = outer->flags;
	held->xfer.name2 = outer->name2;
	held->xfer.iov = outer->iov;
	held->xfer.iov_count = outer->iov_count;
	held->xfer.memory_index = outer->memory_index;
	held->xfer.offset_bytes = outer->offset_bytes;
	held->outer = outer;
	held->verdict = *verdict;
	held->copy = NULL;
	held->with_inner = false;
	held->due_us = 0;
	if (!verdict->struck)
		return true;
	switch (verdict->kind) {
	case KVK_FAULT_FAIL:
		/* A close that fails closes all the same; else the place would be lost for good. */
		if (outer->op == KVK_XFER_CLOSE)
			return true;
		held->xfer.result = -verdict->error;
		return false;
	case KVK_FAULT_SHORTEN:
		return shorten(fault, held);
	case KVK_FAULT_CORRUPT:
		return outer->op != KVK_XFER_WRITE || corrupt_write(held);
	case KVK_FAULT_FAIL_AFTER:
	case KVK_FAULT_DELAY:
	case KVK_FAULT_HANG:
		break;
	}
	return true;
}

void kvk_fault_held_drop(struct kvk_fault_held *held)
{
	if (held->copy)
		kvk_mem_unmap(held->copy, held->copy_bytes);
	held->copy = NULL;
}

void kvk_fault_held_end(struct kvk_fault *fault, struct kvk_fault_held *held)
{
	struct kvk_xfer *xfer = &held->xfer;
	struct kvk_xfer *outer = held->outer;
	bool opens = xfer->op == KVK_XFER_OPEN || xfer->op == KVK_XFER_CREATE;

	if (struck_by(held, KVK_FAULT_CORRUPT) && xfer->op == KVK_XFER_READ && xfer->result > 0)
		flip_bit(xfer, (uint64_t)xfer->result, held->verdict.random);
	if (struck_by(held, KVK_FAULT_FAIL_AFTER) || struck_by(held, KVK_FAULT_FAIL)) {
		if (opens && xfer->result >= 0) {
			struct kvk_xfer close;

			kvk_xfer_init(&close, KVK_XFER_CLOSE, xfer->place, NULL);
			fault->inner->ops->run(fault->inner, &close);
		}
		xfer->result = -held->verdict.error;
	}
	kvk_fault_held_drop(held);
	outer->stat = xfer->stat;
	outer->result = xfer->result;
	if (opens && xfer->result >= 0) {
		outer->place = xfer->place;
		atomic_fetch_add(&fault->places, 1);
	}
	if (xfer->op == KVK_XFER_CLOSE) {
		outer->place = xfer->place;
		atomic_fetch_sub(&fault->places, 1);
	}
}
