/* SPDX-License-Identifier: Apache-2.0 */
/* What the proof of an object that is a file adds: its opening, whose it is, and adopted files without a footer. */
#include <errno.h>
#include <string.h>

#include "adapter/dynamic/dynamic.h"

static bool is_wanted(const struct kvk_request *request, const struct kvk_footer *footer,
		      const uint8_t digest[KVK_DIGEST_BYTES])
{
	return !memcmp(digest, request->digest, KVK_DIGEST_BYTES) &&
	       (!request->key || (footer->key_bytes == request->key_bytes &&
				  !memcmp(footer->key, request->key, request->key_bytes)));
}

/* A file that LMCache wrote before this store adopted the directory: nothing in it can prove it. */
static bool is_adopted(const struct kvk_proof *proof)
{
	const struct kvk_dynamic *dynamic = kvk_dynamic_of(proof->request);

	return dynamic->layout.naming == KVK_NAMING_LMCACHE && proof->stat.bytes > 0 && proof->stat.born_ns &&
	       proof->stat.born_ns < dynamic->adopted_ns;
}

static bool may_be_plain(const struct kvk_proof *proof)
{
	return is_adopted(proof) && kvk_dynamic_of(proof->request)->accept_unverified;
}

static void plain_closed(struct kvk_xfer *xfer)
{
	kvk_proof_start(kvk_container_of(xfer, struct kvk_proof, xfer));
}

static void take_plain(struct kvk_proof *proof)
{
	struct kvk_request *request = proof->request;
	struct kvk_facts *facts = &request->facts;

	if (kvk_proof_is_direct(proof) && proof->stat.bytes % KVK_PAGE_BYTES) {
		/* Nobody padded it, so its last bytes cannot be read past the page cache. */
		proof->buffered = true;
		kvk_xfer_init(&proof->xfer, KVK_XFER_CLOSE, proof->place, NULL);
		proof->xfer.done = plain_closed;
		proof->place = NULL;
		kvk_op_submit(&request->op, &proof->xfer);
		return;
	}
	facts->logical_bytes = proof->stat.bytes;
	facts->stored_bytes = proof->stat.bytes;
	facts->created_ns = proof->stat.modified_ns;
	facts->inode = proof->stat.inode;
	facts->unverified = true;
	memcpy(facts->digest, request->digest, KVK_DIGEST_BYTES);
	proof->plain = true;
	proof->footer_read = true;     /* there is none to come */
	proof->logical_bytes = proof->stat.bytes;
	proof->block_bytes = KVK_BLOCK_BYTES_MAX;
	if (proof->depth == KVK_PROOF_FOOTER)
		kvk_proof_end(proof, KVK_VERDICT_PROVEN, 0);
	else if (proof->deliver && !request->range_bytes && request->data_bytes != proof->stat.bytes)
		/* The exact size is all there is to go by. */
		kvk_proof_end(proof, KVK_VERDICT_COLLISION, -ENOENT);
	else
		kvk_proof_read_wanted(proof);
}

/* Without a footer where one should be. */
static void without_footer(struct kvk_proof *proof)
{
	if (!is_adopted(proof))
		kvk_proof_end(proof, KVK_VERDICT_DAMAGED, -EBADMSG);
	else if (!kvk_dynamic_of(proof->request)->accept_unverified)
		kvk_proof_end(proof, KVK_VERDICT_UNVERIFIED, -ENOENT);
	else
		take_plain(proof);
}

/*
 * Two keys may have one of LMCache's names. A whole object under a name that is not its own, though, was not put there
 * by a store: it was copied, or a power cut left the blocks of an older file of the same length in this one (ext4 with
 * data=writeback). A put may take its place.
 */
static enum kvk_verdict judge(const struct kvk_proof *proof, const uint8_t digest[KVK_DIGEST_BYTES])
{
	if (!proof->request->name && is_wanted(proof->request, &proof->footer, digest))
		return KVK_VERDICT_PROVEN;
	if (!kvk_dynamic_is_named(kvk_dynamic_of(proof->request), proof->name, &proof->footer, digest))
		return KVK_VERDICT_DAMAGED;
	return proof->request->name ? KVK_VERDICT_PROVEN : KVK_VERDICT_COLLISION;
}

/* ---- opening ------------------------------------------------------------------------------------ */

static void end_unopened(struct kvk_proof *proof, int err)
{
	switch (err) {
	case -ENOENT:
		kvk_proof_end(proof, KVK_VERDICT_ABSENT, -ENOENT);
		return;
	case -ELOOP:
	case -EXDEV:
	case -EISDIR:
	case -EINVAL:
	case -ENOTDIR:
	case -ENXIO:
	case -EACCES:
	case -EPERM:
		kvk_proof_end(proof, KVK_VERDICT_FOREIGN, -ENOENT);
		return;
	default:
		kvk_proof_end(proof, KVK_VERDICT_NONE, err);
	}
}

static void opened(struct kvk_xfer *xfer)
{
	struct kvk_proof *proof = kvk_container_of(xfer, struct kvk_proof, xfer);
	struct kvk_request *request = proof->request;
	uint64_t bytes;

	if (xfer->result < 0) {
		end_unopened(proof, (int)xfer->result);
		return;
	}
	proof->place = xfer->place;
	proof->stat = xfer->stat;
	bytes = proof->stat.bytes;
	if (!proof->stat.regular || !proof->stat.owned) {
		kvk_proof_end(proof, KVK_VERDICT_FOREIGN, -ENOENT);
		return;
	}
	if (proof->stat.links == 0) {
		kvk_proof_end(proof, KVK_VERDICT_ABSENT, -ENOENT);
		return;
	}
	/* A backup made by links, or a publish that was interrupted: served, and counted. */
	if (proof->stat.links > 1)
		atomic_fetch_add(&request->adapter->counts.links, 1);
	proof->end_bytes = bytes;
	proof->least_bytes = bytes;
	proof->most_bytes = bytes;
	if (bytes < KVK_PAGE_BYTES || bytes % KVK_PAGE_BYTES)
		without_footer(proof);
	else
		kvk_proof_read(proof, may_be_plain(proof));
}

static void open_name(struct kvk_proof *proof)
{
	kvk_xfer_init(&proof->xfer, KVK_XFER_OPEN, NULL, proof->name);
	if (proof->buffered)
		proof->xfer.flags |= KVK_XFER_BUFFERED;
	proof->xfer.done = opened;
	kvk_op_submit(&proof->request->op, &proof->xfer);
}

const struct kvk_proof_rules kvk_dynamic_proof_rules = {
	.open = open_name,
	.judge = judge,
	.without_footer = without_footer,
};
