/* SPDX-License-Identifier: Apache-2.0 */
#include "adapter/write.h"

#include <errno.h>
#include <string.h>

#include "adapter/proof.h"
#include "util/alloc.h"
#include "util/clock.h"

int kvk_write_prepare(struct kvk_write *write, struct kvk_request *request,
		      const uint8_t namespace_digest[KVK_DIGEST_BYTES], uint64_t writer_id)
{
	struct kvk_footer *footer = &write->footer;

	write->request = request;
	footer->checksum_id = KVK_CHECKSUM_XXH3;
	footer->logical_bytes = request->data_bytes;
	footer->stored_bytes = request->data_bytes;
	footer->block_bytes = kvk_block_bytes_for(request->data_bytes);
	footer->block_count = kvk_block_count_for(request->data_bytes, footer->block_bytes);
	footer->created_ns = kvk_wall_ns();
	footer->writer_id = writer_id;
	memcpy(footer->namespace_digest, namespace_digest, KVK_DIGEST_BYTES);
	if (request->parent_digest)
		memcpy(footer->parent_digest, request->parent_digest, KVK_DIGEST_BYTES);
	footer->depth = request->depth;
	footer->meta = request->meta;
	footer->meta_bytes = request->meta_bytes;
	footer->key = request->key;
	footer->key_bytes = request->key_bytes;
	write->footer_bytes = kvk_footer_bytes(footer);
	write->object_bytes = kvk_page_ceil(request->data_bytes) + write->footer_bytes;
	write->seed = kvk_digest_seed(request->digest);
	write->sums = kvk_mem_alloc((footer->block_count + 1) * sizeof(*write->sums));
	return write->sums ? 0 : -ENOMEM;
}

void kvk_write_release(struct kvk_write *write)
{
	kvk_mem_free(write->sums);
	write->sums = NULL;
}

uint64_t kvk_object_bytes(uint64_t logical_bytes, uint32_t key_bytes, uint32_t meta_bytes)
{
	struct kvk_footer footer = {
		.block_bytes = kvk_block_bytes_for(logical_bytes), .meta_bytes = meta_bytes, .key_bytes = key_bytes,
	};

	footer.block_count = kvk_block_count_for(logical_bytes, footer.block_bytes);
	return kvk_page_ceil(logical_bytes) + kvk_footer_bytes(&footer);
}

void kvk_write_take_facts(const struct kvk_write *write, struct kvk_facts *facts)
{
	facts->logical_bytes = write->footer.logical_bytes;
	facts->stored_bytes = write->object_bytes;
	facts->created_ns = write->footer.created_ns;
	facts->depth = write->footer.depth;
	facts->durable = false;
	facts->unverified = false;
	memcpy(facts->parent_digest, write->footer.parent_digest, KVK_DIGEST_BYTES);
}

static int fill_piece(struct kvk_stream *stream, struct kvk_piece *piece)
{
	struct kvk_write *write = kvk_container_of(stream, struct kvk_write, stream);
	const struct kvk_request *request = write->request;
	uint64_t piece_start = piece->offset_bytes - write->base_bytes;
	uint64_t at = piece_start, piece_end = at + piece->bytes;
	uint64_t slot_start = at + piece->straight_bytes;
	uint64_t logical = write->footer.logical_bytes, padded = kvk_page_ceil(logical);
	uint64_t data_end = piece_end < logical ? piece_end : logical;

	while (at < data_end) {
		uint64_t block_end = at + write->footer.block_bytes < data_end ? at + write->footer.block_bytes : data_end;
		uint64_t from = at > slot_start ? at : slot_start;

		/* Copy and sum block by block, while the block is in the CPU's cache. */
		if (from < block_end)
			kvk_memory_gather(piece->slot + (from - slot_start), request->data, request->data_count,
					  from, block_end - from);
		write->sums[at / write->footer.block_bytes] = kvk_block_sum_iov(
			piece->memory, piece->memory_count, at - piece_start, block_end - at, write->seed);
		at = block_end;
	}
	if (piece_end < write->object_bytes)
		return 0;
	/* The last piece: it holds the padding and the whole footer, and all sums are known now. */
	memset(piece->slot + (logical > slot_start ? logical - slot_start : 0), 0,
	       padded - (logical > slot_start ? logical : slot_start));
	write->footer.block_sums = write->sums;
	return kvk_footer_encode(&write->footer, request->digest, piece->slot + (padded - slot_start),
				 write->footer_bytes);
}

static void start(struct kvk_write *write, uint64_t from, uint64_t to);

static void written(struct kvk_stream *stream)
{
	struct kvk_write *write = kvk_container_of(stream, struct kvk_write, stream);
	uint64_t from = write->split_bytes;

	write->status = stream->status;
	if (write->status < 0 || from == write->object_bytes) {
		write->done(write);
		return;
	}
	write->split_bytes = write->object_bytes;
	start(write, from, write->object_bytes);
}

/* Writes [from, to) of the object. */
static void start(struct kvk_write *write, uint64_t from, uint64_t to)
{
	struct kvk_request *request = write->request;
	struct kvk_stream *stream = &write->stream;
	uint64_t base = write->base_bytes;

	*stream = (struct kvk_stream){
		.op = &request->op, .place = write->place, .write = true, .direct = write->direct,
		.start_bytes = base + from, .end_bytes = base + to, .straight_end_bytes = base + from,
		.caller = request->data, .caller_count = request->data_count, .caller_skip_bytes = from,
		.grain_bytes = write->footer.block_bytes,
		.piece = fill_piece, .done = written,
	};
	kvk_list_init(&stream->link);
	if (request->data_bytes % KVK_PAGE_BYTES == 0 && write->in_pieces)
		stream->seam_bytes = base + request->data_bytes;
	if (request->held && (!write->direct || kvk_memory_aligned(request->data, request->data_count,
								   &request->adapter->backend->caps)))
		stream->straight_end_bytes = base + (write->direct ? kvk_page_floor(request->data_bytes)
								   : request->data_bytes);
	kvk_stream_start(stream);
}

void kvk_write_start(struct kvk_write *write)
{
	uint64_t object = write->object_bytes;

	write->split_bytes = object;
	/* Pieces come back in any order, and what is left of a put that was cut short must not look like an object. */
	if (write->footer_last && object > KVK_SLOT_BYTES)
		write->split_bytes = (object - KVK_SLOT_BYTES + KVK_PIECE_BYTES - 1) / KVK_PIECE_BYTES * KVK_PIECE_BYTES;
	start(write, 0, write->split_bytes);
}
