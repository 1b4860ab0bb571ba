/* SPDX-License-Identifier: Apache-2.0 */
#include "adapter/proof.h"

#include <errno.h>
#include <string.h>

#include "util/alloc.h"

/*
 *   open --> [FOOTER] --> PAYLOAD --> verdict
 *
 * Where the object may be as long as the caller's buffer, footer and payload are read in
 * one go and the sums are computed as if the footer said what is expected; if it says something else, everything
 * is done again with the footer first.
 */

void kvk_proof_end(struct kvk_proof *proof, enum kvk_verdict verdict, int status)
{
	/* On a file system that machines share, what is removed elsewhere while it is read is gone at once. On another it is an
	 * error like any other, and says nothing about the object. */
	if (status == -ESTALE && !proof->request->adapter->backend->caps.local) {
		verdict = KVK_VERDICT_ABSENT;
		status = -ENOENT;
	}
	proof->verdict = verdict;
	proof->status = status;
	proof->done(proof);
}

int kvk_proof_miss(const struct kvk_proof *proof, uint32_t *reason_ret)
{
	switch (proof->verdict) {
	case KVK_VERDICT_COLLISION:
		atomic_fetch_add(&proof->request->adapter->counts.collisions, 1);
		*reason_ret = KVK_REASON_COLLISION;
		return -ENOENT;
	case KVK_VERDICT_UNVERIFIED:
	case KVK_VERDICT_FOREIGN:
		*reason_ret = KVK_REASON_FOREIGN;
		return -ENOENT;
	case KVK_VERDICT_ARGUMENT:
		*reason_ret = KVK_REASON_ARGUMENT;
		return proof->status;
	default:
		*reason_ret = kvk_reason_of(proof->status);
		return proof->status;
	}
}

void kvk_proof_init(struct kvk_proof *proof, struct kvk_request *request, const char *name,
		    enum kvk_proof_depth depth, void (*done)(struct kvk_proof *proof))
{
	/* Not the page: it is written before it is read, and clearing it would cost as much as a lookup. */
	memset(proof, 0, offsetof(struct kvk_proof, footer_page));
	kvk_list_init(&proof->stream.link);
	proof->request = request;
	proof->name = name;
	proof->depth = depth;
	proof->done = done;
}

void kvk_proof_release(struct kvk_proof *proof)
{
	kvk_mem_free(proof->sums);
	if (proof->footer_data != proof->footer_page)
		kvk_mem_free(proof->footer_data);
	proof->sums = NULL;
	proof->footer_data = NULL;
	proof->sums_room = 0;
	proof->footer_room = 0;
}

bool kvk_proof_is_direct(const struct kvk_proof *proof)
{
	return !proof->buffered && proof->request->adapter->backend->caps.direct;
}

static bool sums_reserve(struct kvk_proof *proof, uint32_t count)
{
	uint64_t *grown;

	if (count <= proof->sums_room)
		return true;
	grown = kvk_mem_realloc(proof->sums, count * sizeof(*grown));
	if (!grown)
		return false;
	proof->sums = grown;
	proof->sums_room = count;
	return true;
}

/* ---- the payload -------------------------------------------------------------------------------- */

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Gives the caller what of [from, to) of the object lies in the slot at this place of the piece. */
static void deliver_slot(struct kvk_proof *proof, const struct kvk_piece *piece, uint64_t from, uint64_t to)
{
	uint64_t slot_start = piece->offset_bytes - proof->base_bytes + piece->straight_bytes;

	if (from < slot_start)
		from = slot_start;
	if (from < proof->from_bytes)
		from = proof->from_bytes;
	if (to > proof->to_bytes)
		to = proof->to_bytes;
	if (from < to)
		kvk_memory_scatter(proof->request->data, proof->request->data_count, from - proof->from_bytes,
				   piece->slot + (from - slot_start), to - from);
}

static int payload_piece(struct kvk_stream *stream, struct kvk_piece *piece)
{
	struct kvk_proof *proof = kvk_container_of(stream, struct kvk_proof, stream);
	uint64_t piece_start = piece->offset_bytes - proof->base_bytes;
	uint64_t at = piece_start, piece_end = at + piece->bytes;
	uint64_t data_end = min_u64(piece_end, proof->logical_bytes);

	proof->request->dirty |= proof->deliver;
	while (at < data_end) {
		uint64_t block_end = min_u64(at + proof->block_bytes, data_end);

		/* Sum and copy block by block, while the block is in the CPU's cache. */
		if (!proof->plain)
			proof->sums[at / proof->block_bytes] = kvk_block_sum_iov(
				piece->memory, piece->memory_count, at - piece_start, block_end - at,
				proof->seed);
		if (proof->deliver && piece->slot)
			deliver_slot(proof, piece, at, block_end);
		at = block_end;
	}
	if (!proof->footer_read && piece_end == proof->end_bytes - proof->base_bytes)
		memcpy(proof->footer_page, piece->slot + (piece->bytes - piece->straight_bytes) - KVK_PAGE_BYTES,
		       KVK_PAGE_BYTES);
	return 0;
}

static void read_footer(struct kvk_proof *proof, uint32_t footer_bytes);
static void judge_footer(struct kvk_proof *proof);

static bool sums_agree(const struct kvk_proof *proof, uint64_t first, uint64_t last)
{
	for (uint64_t i = first; i < last; i++) {
		if (kvk_footer_sum(&proof->footer, (uint32_t)i) != proof->sums[i])
			return false;
	}
	return true;
}

/* A stream that failed: a file that ended early is torn, all else says nothing about the object. */
static void end_failed(struct kvk_proof *proof, int status)
{
	if (status == -ENODATA)
		kvk_proof_end(proof, KVK_VERDICT_DAMAGED, -EBADMSG);
	else
		kvk_proof_end(proof, KVK_VERDICT_NONE, status);
}

static void payload_done(struct kvk_stream *stream)
{
	struct kvk_proof *proof = kvk_container_of(stream, struct kvk_proof, stream);
	uint64_t block = proof->block_bytes;

	if (stream->status < 0) {
		end_failed(proof, stream->status);
		return;
	}
	if (!proof->footer_read) {
		/* In one go: now the footer says whether the guesses were right. */
		proof->footer_read = true;
		proof->footer_data = proof->footer_page;
		proof->footer_bytes = KVK_PAGE_BYTES;
		judge_footer(proof);
		return;
	}
	if (!proof->plain &&
	    !sums_agree(proof, proof->from_bytes / block, (proof->to_bytes + block - 1) / block)) {
		kvk_proof_end(proof, KVK_VERDICT_DAMAGED, -EBADMSG);
		return;
	}
	proof->delivered_bytes = proof->deliver ? proof->to_bytes - proof->from_bytes : 0;
	kvk_proof_end(proof, KVK_VERDICT_PROVEN, 0);
}

/* What goes straight may leave bytes behind also where the transfer fails in the end, and nobody tells of those. */
static bool mark_straight(const struct kvk_stream *stream, struct kvk_request *request)
{
	if (stream->straight_end_bytes <= stream->start_bytes && stream->eager_end_bytes <= stream->start_bytes)
		return true;
	if (!kvk_op_touch(&request->op))
		return false;
	request->dirty = true;
	kvk_op_untouch(&request->op);
	return true;
}

/* Reads [from_bytes, to_bytes) of the payload, in whole blocks, and up to end_bytes of the object in any case. */
static void read_payload(struct kvk_proof *proof, uint64_t end_bytes)
{
	struct kvk_request *request = proof->request;
	const struct kvk_backend_caps *caps = &request->adapter->backend->caps;
	struct kvk_stream *stream = &proof->stream;
	uint64_t block = proof->block_bytes;
	uint64_t base = proof->base_bytes, start = proof->from_bytes / block * block;
	bool fits = proof->deliver && start == proof->from_bytes;
	bool direct = kvk_proof_is_direct(proof);

	if (!sums_reserve(proof, kvk_block_count_for(proof->logical_bytes, proof->block_bytes))) {
		kvk_proof_end(proof, KVK_VERDICT_NONE, -ENOMEM);
		return;
	}
	*stream = (struct kvk_stream){
		.op = &request->op, .place = proof->place, .direct = direct,
		.start_bytes = base + start, .end_bytes = base + end_bytes, .grain_bytes = proof->block_bytes,
		.caller = fits ? request->data : NULL, .caller_count = fits ? request->data_count : 0,
		.straight_end_bytes = base + start, .eager_end_bytes = base + start,
		.piece = payload_piece, .done = payload_done,
	};
	kvk_list_init(&stream->link);
	if (fits && request->held &&
	    (!direct || kvk_memory_aligned(request->data, request->data_count, caps)))
		stream->straight_end_bytes = base + (direct ? kvk_page_floor(proof->to_bytes) : proof->to_bytes);
	if (proof->logical_bytes % KVK_PAGE_BYTES == 0 && end_bytes > proof->logical_bytes)
		stream->seam_bytes = base + proof->logical_bytes;
	if (!direct && caps->nowait)
		stream->eager_end_bytes = base + (fits ? proof->to_bytes : end_bytes);
	if (fits && !mark_straight(stream, request)) {
		kvk_proof_end(proof, KVK_VERDICT_NONE, -ECANCELED);
		return;
	}
	kvk_stream_start(stream);
}

void kvk_proof_read_wanted(struct kvk_proof *proof)
{
	struct kvk_request *request = proof->request;
	uint64_t block = proof->block_bytes, end_bytes;

	if (request->offset_bytes > proof->logical_bytes ||
	    request->range_bytes > proof->logical_bytes - request->offset_bytes) {
		kvk_proof_end(proof, KVK_VERDICT_ARGUMENT, -EINVAL);
		return;
	}
	proof->from_bytes = request->offset_bytes;
	proof->to_bytes = request->range_bytes ? request->offset_bytes + request->range_bytes
					       : proof->logical_bytes;
	if (proof->deliver && proof->to_bytes - proof->from_bytes > request->data_bytes) {
		kvk_proof_end(proof, KVK_VERDICT_ARGUMENT, -EMSGSIZE);
		return;
	}
	if (proof->from_bytes == proof->to_bytes) {
		proof->delivered_bytes = 0;
		kvk_proof_end(proof, KVK_VERDICT_PROVEN, 0);
		return;
	}
	end_bytes = (proof->to_bytes + block - 1) / block * block;
	end_bytes = min_u64(end_bytes, proof->plain ? proof->end_bytes : kvk_page_ceil(proof->logical_bytes));
	read_payload(proof, end_bytes);
}

/* ---- the footer --------------------------------------------------------------------------------- */

static void take_facts(struct kvk_proof *proof, const uint8_t digest[KVK_DIGEST_BYTES])
{
	struct kvk_facts *facts = &proof->request->facts;

	kvk_facts_take(facts, &proof->footer, digest);
	facts->stored_bytes = proof->most_bytes;
	facts->inode = proof->stat.inode;
}

void kvk_proof_without_footer(struct kvk_proof *proof)
{
	const struct kvk_proof_rules *rules = proof->request->adapter->proof_rules;

	if (rules->without_footer)
		rules->without_footer(proof);
	else
		kvk_proof_end(proof, KVK_VERDICT_DAMAGED, -EBADMSG);
}

static void judge_footer(struct kvk_proof *proof)
{
	uint8_t digest[KVK_DIGEST_BYTES];
	uint32_t footer_bytes;
	uint64_t object_bytes, guessed = proof->logical_bytes;
	const struct kvk_proof_rules *rules = proof->request->adapter->proof_rules;
	uint32_t guessed_block = proof->block_bytes;
	enum kvk_verdict verdict;
	int err;

	err = kvk_trailer_parse(proof->footer_data + proof->footer_bytes - KVK_TRAILER_BYTES, &footer_bytes);
	if (err || footer_bytes > proof->most_bytes) {
		kvk_proof_without_footer(proof);
		return;
	}
	if (footer_bytes > proof->footer_bytes) {
		read_footer(proof, footer_bytes);
		return;
	}
	err = kvk_footer_parse(&proof->footer, digest, proof->footer_data + proof->footer_bytes - footer_bytes,
			       footer_bytes);
	if (err) {
		kvk_proof_end(proof, err == -EPROTO ? KVK_VERDICT_FOREIGN
		    : err == -EBADMSG ? KVK_VERDICT_DAMAGED : KVK_VERDICT_NONE, err);
		return;
	}
	object_bytes = kvk_page_ceil(proof->footer.stored_bytes) + footer_bytes;
	if (object_bytes < proof->least_bytes || object_bytes > proof->most_bytes) {
		kvk_proof_end(proof, KVK_VERDICT_DAMAGED, -EBADMSG);
		return;
	}
	verdict = rules->judge(proof, digest);
	if (verdict != KVK_VERDICT_PROVEN) {
		kvk_proof_end(proof, verdict, verdict == KVK_VERDICT_DAMAGED ? -EBADMSG : -ENOENT);
		return;
	}
	proof->base_bytes = proof->end_bytes - object_bytes;
	take_facts(proof, digest);
	proof->seed = kvk_digest_seed(digest);
	proof->logical_bytes = proof->footer.logical_bytes;
	proof->block_bytes = proof->footer.block_bytes;
	if (proof->depth == KVK_PROOF_FOOTER) {
		kvk_proof_end(proof, KVK_VERDICT_PROVEN, 0);
	} else if (guessed && guessed == proof->logical_bytes && guessed_block == proof->block_bytes) {
		/* Everything was read in one go and summed up with what turns out to be the right values. */
		payload_done(&proof->stream);
	} else {
		kvk_proof_read_wanted(proof);
	}
}

static int footer_piece(struct kvk_stream *stream, struct kvk_piece *piece)
{
	struct kvk_proof *proof = kvk_container_of(stream, struct kvk_proof, stream);

	memcpy(proof->footer_data, piece->slot, piece->bytes);
	return 0;
}

static void footer_done(struct kvk_stream *stream)
{
	struct kvk_proof *proof = kvk_container_of(stream, struct kvk_proof, stream);

	if (stream->status < 0)
		end_failed(proof, stream->status);
	else
		judge_footer(proof);
}

static void read_footer(struct kvk_proof *proof, uint32_t footer_bytes)
{
	struct kvk_stream *stream = &proof->stream;

	if (proof->footer_data != proof->footer_page)
		kvk_mem_free(proof->footer_data);
	proof->footer_data = proof->footer_page;
	if (footer_bytes > KVK_PAGE_BYTES) {
		proof->footer_data = kvk_mem_alloc(footer_bytes);
		if (!proof->footer_data) {
			kvk_proof_end(proof, KVK_VERDICT_NONE, -ENOMEM);
			return;
		}
	}
	proof->footer_read = true;
	proof->footer_bytes = footer_bytes;
	proof->logical_bytes = 0;
	*stream = (struct kvk_stream){
		.op = &proof->request->op, .place = proof->place, .direct = kvk_proof_is_direct(proof),
		.start_bytes = proof->end_bytes - footer_bytes, .end_bytes = proof->end_bytes,
		.straight_end_bytes = 0,
		.eager_end_bytes = !kvk_proof_is_direct(proof) && proof->request->adapter->backend->caps.nowait
				   ? proof->end_bytes : 0,
		.grain_bytes = KVK_PAGE_BYTES,
		.piece = footer_piece, .done = footer_done,
	};
	kvk_list_init(&stream->link);
	kvk_stream_start(stream);
}

/* ---- from the start ----------------------------------------------------------------------------- */

void kvk_proof_read(struct kvk_proof *proof, bool footer_first)
{
	struct kvk_request *request = proof->request;
	uint64_t guess_bytes = kvk_page_ceil(request->data_bytes) + KVK_PAGE_BYTES;

	if (!footer_first && proof->depth == KVK_PROOF_WHOLE && proof->deliver && !request->name &&
	    request->offset_bytes == 0 && request->range_bytes == 0 && request->data_bytes > 0 &&
	    guess_bytes >= proof->least_bytes && guess_bytes <= proof->most_bytes) {
		proof->base_bytes = proof->end_bytes - guess_bytes;
		proof->seed = kvk_digest_seed(request->digest);
		proof->logical_bytes = request->data_bytes;
		proof->block_bytes = kvk_block_bytes_for(request->data_bytes);
		proof->from_bytes = 0;
		proof->to_bytes = request->data_bytes;
		read_payload(proof, guess_bytes);
		return;
	}
	read_footer(proof, KVK_PAGE_BYTES);
}

void kvk_proof_start(struct kvk_proof *proof)
{
	/* Started again, a long footer of the first time is still there. */
	if (proof->footer_data != proof->footer_page)
		kvk_mem_free(proof->footer_data);
	proof->footer_data = NULL;
	proof->verdict = KVK_VERDICT_NONE;
	proof->status = 0;
	proof->place = NULL;
	proof->plain = false;
	proof->footer_read = false;
	proof->delivered_bytes = 0;
	proof->logical_bytes = 0;
	proof->base_bytes = 0;
	proof->request->adapter->proof_rules->open(proof);
}
