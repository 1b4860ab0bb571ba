/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/stream.h"

#include <errno.h>

#include "agent/agent_private.h"
#include "util/alloc.h"
#include "util/clock.h"

/* What lies in the page cache is taken over in smaller pieces, so that it is still in the CPU's second-level cache
 * when its sums are computed. */
#define EAGER_BYTES (UINT32_C(256) << 10)
/* After this much of it a lane looks at its ring again. */
#define EAGER_TURN_BYTES (UINT32_C(4) << 20)

/* ---- pieces ------------------------------------------------------------------------------------- */

static struct kvk_piece *piece_new(struct kvk_lane *lane)
{
	struct kvk_piece *piece = lane->free_pieces;

	if (piece)
		lane->free_pieces = piece->next_free;
	else
		piece = kvk_mem_alloc(sizeof(*piece));
	return piece;
}

static void piece_free(struct kvk_lane *lane, struct kvk_piece *piece)
{
	if (piece->slot) {
		kvk_memory_give(&lane->memory, piece->slot);
		piece->slot = NULL;
	}
	piece->next_free = lane->free_pieces;
	lane->free_pieces = piece;
}

void kvk_pieces_free(struct kvk_lane *lane)
{
	struct kvk_piece *piece;

	while ((piece = lane->free_pieces)) {
		lane->free_pieces = piece->next_free;
		kvk_mem_free(piece);
	}
}

/* Which index the ring knows this memory under, or -1. */
static int32_t memory_index(struct kvk_lane *lane, const struct iovec *iov)
{
	const uint8_t *first = iov->iov_base;
	int32_t index;

	if (!lane->ring)
		return -1;
	index = kvk_memory_index(&lane->memory, first);
	for (uint32_t i = 0; index < 0 && i < KVK_REGIONS_MAX; i++) {
		const struct kvk_region *region = &lane->regions[i];

		if (region->base && first >= region->base &&
		    first + iov->iov_len <= region->base + region->bytes)
			index = (int32_t)(KVK_MEMORY_CHUNKS_MAX + i);
	}
	return index;
}

/*
 * Lays `bytes` of the caller's memory, from where the stream stands, into the piece. Returns how many went in: fewer
 * if it is in too many fragments. Does not move the stream.
 */
static uint32_t lay_caller(const struct kvk_stream *stream, struct kvk_piece *piece, uint32_t bytes)
{
	uint32_t index = stream->caller_index, laid = 0;
	uint64_t offset = stream->caller_offset_bytes;

	/* One place is kept for the slot. */
	while (laid < bytes && index < stream->caller_count && piece->memory_count < KVK_XFER_IOVS - 1) {
		const struct iovec *from = &stream->caller[index];
		uint64_t part = from->iov_len - offset;

		if (part > bytes - laid)
			part = bytes - laid;
		if (part > 0)
			piece->memory[piece->memory_count++] = (struct iovec){
				.iov_base = (uint8_t *)from->iov_base + offset, .iov_len = part };
		laid += (uint32_t)part;
		offset += part;
		if (offset == from->iov_len) {
			index++;
			offset = 0;
		}
	}
	return laid;
}

static void skip_caller(struct kvk_stream *stream, uint64_t bytes)
{
	while (bytes > 0 && stream->caller_index < stream->caller_count) {
		uint64_t left = stream->caller[stream->caller_index].iov_len - stream->caller_offset_bytes;

		if (bytes < left) {
			stream->caller_offset_bytes += bytes;
			return;
		}
		bytes -= left;
		stream->caller_index++;
		stream->caller_offset_bytes = 0;
	}
}

/* ---- the end of a piece, and of a stream -------------------------------------------------------- */

static void stream_settle(struct kvk_lane *lane, struct kvk_stream *stream)
{
	bool cut = stream->next_bytes >= stream->end_bytes || stream->status < 0;

	if (stream->in_flight > 0 || !cut)
		return;
	kvk_list_remove(&stream->link);
	kvk_list_push(&lane->ended_streams, &stream->link);
}

void kvk_streams_end(struct kvk_lane *lane)
{
	struct kvk_link *link;

	while ((link = kvk_list_pop(&lane->ended_streams))) {
		struct kvk_stream *stream = kvk_container_of(link, struct kvk_stream, link);

		stream->done(stream);
	}
}

static void budget_give(struct kvk_lane *lane, bool write, uint64_t bytes, uint64_t latency_us)
{
	struct kvk_agent *agent = lane->agent;

	if (!kvk_depth_give(&agent->depth, write ? KVK_DEPTH_WRITE : KVK_DEPTH_READ, bytes, kvk_now_us(),
			    latency_us))
		return;
	for (uint32_t i = 0; i < agent->lane_count; i++) {
		if (&agent->lanes[i] != lane)
			kvk_lane_wake(&agent->lanes[i]);
	}
}

/* Has the owner of the stream look at the piece, with its right to the caller's memory held. */
static void piece_look(struct kvk_stream *stream, struct kvk_piece *piece)
{
	int err;

	if (!kvk_op_touch(stream->op)) {
		stream->status = -ECANCELED;
		return;
	}
	err = stream->piece(stream, piece);
	kvk_op_untouch(stream->op);
	if (err < 0)
		stream->status = err;
}

static void piece_done(struct kvk_xfer *xfer)
{
	struct kvk_piece *piece = kvk_container_of(xfer, struct kvk_piece, xfer);
	struct kvk_stream *stream = piece->stream;
	struct kvk_lane *lane = xfer->lane;
	uint64_t latency_us = kvk_now_us() - piece->posted_us;

	stream->in_flight--;
	if (piece->budget_bytes > 0)
		budget_give(lane, stream->write, piece->budget_bytes, latency_us ? latency_us : 1);
	if (xfer->result < 0) {
		if (!stream->status)
			stream->status = (int)xfer->result;
	} else {
		atomic_fetch_add_explicit(&lane->agent->straight_bytes, piece->straight_bytes,
					  memory_order_relaxed);
		atomic_fetch_add_explicit(&lane->agent->copied_bytes, piece->bytes - piece->straight_bytes,
					  memory_order_relaxed);
		if (!stream->write && !stream->status)
			piece_look(stream, piece);
	}
	piece_free(lane, piece);
	stream_settle(lane, stream);
}

/* ---- cutting ------------------------------------------------------------------------------------ */

/* A page for a lookup stands in nobody's way, and must not wait for loads of many MiB before it: with them in flight
 * one lookup in a hundred took 125 to 639 ms. */
static bool goes_ahead(const struct kvk_stream *stream)
{
	return stream->op->class == KVK_OP_LIGHT;
}

enum cut {
	CUT_DONE,              /* a piece went out, or was taken over at once */
	CUT_WAIT,              /* no budget or no memory now */
	CUT_END,               /* the stream has ended */
};

static uint32_t clamp_part(uint64_t end_bytes, uint64_t offset_bytes, uint32_t bytes)
{
	if (end_bytes <= offset_bytes)
		return 0;
	return end_bytes - offset_bytes < bytes ? (uint32_t)(end_bytes - offset_bytes) : bytes;
}

/* Prepares a piece of `bytes`, the first straight_bytes of which lie in the caller's memory. */
static struct kvk_piece *piece_lay(struct kvk_lane *lane, struct kvk_stream *stream, uint32_t bytes,
				   uint32_t straight_bytes)
{
	struct kvk_piece *piece = piece_new(lane);

	if (!piece)
		return NULL;
	piece->stream = stream;
	piece->offset_bytes = stream->next_bytes;
	piece->bytes = bytes;
	piece->memory_count = 0;
	piece->slot = NULL;
	piece->straight_bytes = straight_bytes;
	if (straight_bytes > 0 && lay_caller(stream, piece, straight_bytes) < straight_bytes) {
		/* Too many fragments for one transfer: this piece goes through a slot. */
		piece->memory_count = 0;
		piece->straight_bytes = 0;
	}
	if (piece->straight_bytes < bytes) {
		piece->slot = kvk_memory_take(&lane->memory);
		if (!piece->slot) {
			piece_free(lane, piece);
			return NULL;
		}
		piece->memory[piece->memory_count++] = (struct iovec){
			.iov_base = piece->slot, .iov_len = bytes - piece->straight_bytes };
	}
	return piece;
}

static void piece_prepare(struct kvk_lane *lane, struct kvk_piece *piece)
{
	kvk_xfer_init(&piece->xfer, piece->stream->write ? KVK_XFER_WRITE : KVK_XFER_READ,
		      piece->stream->place, NULL);
	for (uint32_t i = 0; i < piece->memory_count; i++)
		piece->posted[i] = piece->memory[i];
	piece->xfer.iov = piece->posted;
	piece->xfer.iov_count = piece->memory_count;
	piece->xfer.offset_bytes = piece->offset_bytes;
	piece->xfer.memory_index = piece->memory_count == 1 ? memory_index(lane, piece->memory) : -1;
	piece->xfer.done = piece_done;
}

/*
 * Takes over what the page cache holds, straight into the caller's memory whether or not it may be held: the call
 * does not wait for a medium, so nothing can hang. False: it is not all there; nothing has happened.
 */
static bool take_eagerly(struct kvk_lane *lane, struct kvk_stream *stream, uint32_t bytes)
{
	struct kvk_backend *backend = lane->agent->backend;
	struct kvk_piece *piece;
	bool whole = false;

	piece = piece_lay(lane, stream, bytes, clamp_part(stream->eager_end_bytes, stream->next_bytes, bytes));
	if (!piece)
		return false;
	piece_prepare(lane, piece);
	piece->xfer.flags = KVK_XFER_NOWAIT;
	if (!kvk_op_touch(stream->op)) {
		stream->status = -ECANCELED;
	} else {
		backend->ops->run(backend, &piece->xfer);
		kvk_op_untouch(stream->op);
		whole = piece->xfer.result == (int64_t)bytes;
	}
	if (whole) {
		atomic_fetch_add_explicit(&lane->agent->straight_bytes, piece->straight_bytes,
					  memory_order_relaxed);
		skip_caller(stream, bytes);
		stream->next_bytes += bytes;
		piece_look(stream, piece);
	}
	piece_free(lane, piece);
	return whole;
}

/*
 * Finding the pages of a MiB costs 15 % of the CPU time of a load from a fast device; registered memory saves that, but
 * only in transfers of one fragment. Below this size a second transfer costs more.
 */
#define SEAM_FROM_BYTES (UINT32_C(128) << 10)

static uint32_t cut_at_seam(struct kvk_lane *lane, const struct kvk_stream *stream, uint32_t bytes)
{
	uint32_t part = clamp_part(stream->seam_bytes, stream->next_bytes, bytes);
	struct iovec first;

	if (part < SEAM_FROM_BYTES || part == bytes || stream->straight_end_bytes < stream->seam_bytes ||
	    stream->caller_index >= stream->caller_count)
		return bytes;
	first = stream->caller[stream->caller_index];
	first.iov_base = (uint8_t *)first.iov_base + stream->caller_offset_bytes;
	first.iov_len -= stream->caller_offset_bytes;
	if (first.iov_len < part)
		return bytes;
	first.iov_len = part;
	return memory_index(lane, &first) >= 0 ? part : bytes;
}

static enum cut cut_next(struct kvk_lane *lane, struct kvk_stream *stream, uint32_t *eager_bytes)
{
	uint64_t left = stream->end_bytes - stream->next_bytes;
	uint32_t bytes = left <= KVK_SLOT_BYTES ? (uint32_t)left : KVK_PIECE_BYTES, budget_bytes;
	enum kvk_depth_direction direction = stream->write ? KVK_DEPTH_WRITE : KVK_DEPTH_READ;
	struct kvk_piece *piece;

	if (kvk_op_answered(stream->op) && !stream->status)
		stream->status = -ECANCELED;
	if (stream->status < 0 || left == 0)
		return CUT_END;
	if (stream->eager_end_bytes > stream->next_bytes) {
		uint32_t part = stream->grain_bytes > EAGER_BYTES ? stream->grain_bytes : EAGER_BYTES;

		if (left <= part + KVK_PIECE_TAIL_BYTES)
			part = (uint32_t)left;

		if (take_eagerly(lane, stream, part)) {
			*eager_bytes += part;
			return CUT_DONE;
		}
		if (stream->status < 0)
			return CUT_END;
	}
	bytes = cut_at_seam(lane, stream, bytes);
	budget_bytes = goes_ahead(stream) ? 0 : bytes;
	if (budget_bytes > 0 && !kvk_depth_take(&lane->agent->depth, direction, bytes))
		return CUT_WAIT;
	piece = piece_lay(lane, stream, bytes,
			  clamp_part(stream->straight_end_bytes, stream->next_bytes, bytes));
	if (!piece) {
		if (budget_bytes > 0)
			budget_give(lane, stream->write, bytes, 0);
		/* Slots come back as transfers end; with none under way there is nothing to wait for. */
		if (lane->memory.slots_out == 0) {
			stream->status = -ENOMEM;
			return CUT_END;
		}
		return CUT_WAIT;
	}
	if (stream->write) {
		piece_look(stream, piece);
		if (stream->status < 0) {
			if (budget_bytes > 0)
				budget_give(lane, true, bytes, 0);
			piece_free(lane, piece);
			return CUT_END;
		}
	}
	piece->budget_bytes = budget_bytes;
	piece_prepare(lane, piece);
	skip_caller(stream, bytes);
	stream->next_bytes += bytes;
	stream->in_flight++;
	piece->posted_us = kvk_now_us();
	kvk_op_submit(stream->op, &piece->xfer);
	return CUT_DONE;
}

bool kvk_streams_issue(struct kvk_lane *lane)
{
	struct kvk_link *link, *next;
	uint32_t eager_bytes = 0;
	bool any = false, waiting[2] = { false, false };

	for (link = lane->streams.next; link != &lane->streams; link = next) {
		struct kvk_stream *stream = kvk_container_of(link, struct kvk_stream, link);
		enum cut cut = CUT_WAIT;

		next = link->next;
		/* Who comes later does not get what an earlier one waits for; but a canceled one may leave. */
		while (!waiting[stream->write] || goes_ahead(stream) || kvk_op_answered(stream->op)) {
			cut = cut_next(lane, stream, &eager_bytes);
			if (cut != CUT_DONE)
				break;
			any = true;
			if (eager_bytes >= EAGER_TURN_BYTES)
				goto out;
		}
		if (cut == CUT_END) {
			kvk_list_remove(&stream->link);
			any = true;
			stream_settle(lane, stream);
		} else if (!goes_ahead(stream)) {
			waiting[stream->write] = true;
		}
	}
out:
	waiting[0] = waiting[1] = false;
	for (link = lane->streams.next; link != &lane->streams; link = link->next)
		waiting[kvk_container_of(link, struct kvk_stream, link)->write] = true;
	atomic_store_explicit(&lane->has_stream[0], waiting[0], memory_order_relaxed);
	atomic_store_explicit(&lane->has_stream[1], waiting[1], memory_order_relaxed);
	atomic_store_explicit(&lane->agent->memory_bytes,
			      lane->agent->lane_count * kvk_memory_mapped_bytes(&lane->memory),
			      memory_order_relaxed);
	return any;
}

void kvk_stream_start(struct kvk_stream *stream)
{
	struct kvk_lane *lane = stream->op->lane;
	struct kvk_link *link = lane->streams.prev;

	stream->status = 0;
	stream->in_flight = 0;
	stream->next_bytes = stream->start_bytes;
	stream->caller_index = 0;
	stream->caller_offset_bytes = 0;
	skip_caller(stream, stream->caller_skip_bytes);
	/* In the order in which the operations were taken up, whichever was opened first. */
	while (link != &lane->streams &&
	       kvk_container_of(link, struct kvk_stream, link)->op->sequence > stream->op->sequence)
		link = link->prev;
	kvk_list_push(link->next, &stream->link);
}
