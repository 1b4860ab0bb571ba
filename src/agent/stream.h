/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stream moves one stretch of a place, cut into pieces, between the medium and memory: the lane's own slots, or,
 * where the caller allowed it, straight to or from the caller's memory. Pieces go out in order, as the budget
 * in flight allows, and come back in any order.
 */
#ifndef KVK_AGENT_STREAM_H
#define KVK_AGENT_STREAM_H

#include "agent/agent.h"

/* A piece, and the distance between the beginnings of pieces. A multiple of every block size. */
#define KVK_PIECE_BYTES (UINT32_C(1) << 20)
/* The last piece may be longer by this much, so that a tail and a footer travel with it. */
#define KVK_PIECE_TAIL_BYTES (UINT32_C(64) << 10)
#define KVK_SLOT_BYTES (KVK_PIECE_BYTES + KVK_PIECE_TAIL_BYTES)

struct kvk_piece {
	struct kvk_xfer xfer;
	struct kvk_stream *stream;
	uint64_t offset_bytes;         /* in the place */
	uint32_t bytes;
	uint32_t budget_bytes;         /* what it took of the budget in flight */
	uint32_t straight_bytes;       /* so many first bytes lie in the caller's memory ... */
	uint8_t *slot;                 /* ... and the rest here */
	struct iovec memory[KVK_XFER_IOVS];    /* both, in order */
	uint32_t memory_count;
	struct iovec posted[KVK_XFER_IOVS];    /* the same, eaten up as bytes arrive */
	uint64_t posted_us;
	struct kvk_piece *next_free;
};

struct kvk_stream {
	/* Set before kvk_stream_start(): */
	struct kvk_op *op;
	struct kvk_place *place;
	bool write;
	bool direct;                   /* the place bypasses the page cache */
	uint64_t start_bytes;          /* of the place */
	uint64_t end_bytes;
	/* The caller's memory, or none: its byte caller_skip_bytes belongs at start_bytes. */
	const struct iovec *caller;
	uint32_t caller_count;
	uint64_t caller_skip_bytes;
	/* Up to here (in the place) transfers may go straight. start_bytes: nowhere. */
	uint64_t straight_end_bytes;
	/* Up to here the caller's memory may receive bytes that are in the page cache already, since taking them
	 * over never waits (KVK_XFER_NOWAIT). start_bytes: nowhere. Reads of places that are not direct only. */
	uint64_t eager_end_bytes;
	/* Where the payload ends and the footer begins, if a piece may end there; 0: it may not. Then payload that is
	 * registered travels as one fixed transfer and the footer as another. */
	uint64_t seam_bytes;
	uint32_t grain_bytes;          /* pieces begin at multiples of this from start_bytes; up to KVK_PIECE_BYTES */
	/*
	 * Write: fills (slot) and looks over (straight) the piece before it goes out; called in order. Read: looks
	 * over the piece that has arrived; called in any order. Around it the caller's memory is touched
	 * (kvk_op_touch). A negative value ends the stream.
	 */
	int (*piece)(struct kvk_stream *stream, struct kvk_piece *piece);
	/* From the lane's loop, when nothing of the stream is in flight; status is final. */
	void (*done)(struct kvk_stream *stream);
	int status;
	/* The agent's: */
	struct kvk_link link;
	uint64_t next_bytes;
	uint32_t in_flight;
	uint32_t caller_index;         /* where next_bytes is in the caller's memory */
	uint64_t caller_offset_bytes;
};

/* On the lane of stream->op. */
void kvk_stream_start(struct kvk_stream *stream);

#endif
