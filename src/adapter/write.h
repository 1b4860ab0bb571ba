/* SPDX-License-Identifier: Apache-2.0 */
/* Writing the bytes of an object, payload, padding and footer, into a place. */
#ifndef KVK_ADAPTER_WRITE_H
#define KVK_ADAPTER_WRITE_H

#include "adapter/adapter.h"
#include "agent/stream.h"

struct kvk_write {
	/* Set before kvk_write_start(): */
	struct kvk_request *request;
	struct kvk_place *place;
	uint64_t base_bytes;           /* where in the place the object begins: a multiple of a page */
	bool direct;
	bool in_pieces;                /* several transfers rather than one */
	bool footer_last;              /* the footer goes out when everything before it has been written */
	void (*done)(struct kvk_write *write);
	int status;                    /* in done() */
	/* After kvk_write_prepare(): */
	struct kvk_footer footer;
	uint32_t footer_bytes;
	uint64_t object_bytes;         /* payload, padding and footer */
	/* Private: */
	uint64_t split_bytes;          /* of the object: what is still to be written begins here */
	uint64_t seed;
	uint64_t *sums;
	struct kvk_stream stream;
};

/* Lays out the footer for the request. Called with everything zero. -ENOMEM. */
int kvk_write_prepare(struct kvk_write *write, struct kvk_request *request,
		      const uint8_t namespace_digest[KVK_DIGEST_BYTES], uint64_t writer_id);
/* On the lane. */
void kvk_write_start(struct kvk_write *write);
/* What is written there: for the answer. */
void kvk_write_take_facts(const struct kvk_write *write, struct kvk_facts *facts);
void kvk_write_release(struct kvk_write *write);

/* How long an object of this payload is, footer included. */
uint64_t kvk_object_bytes(uint64_t logical_bytes, uint32_t key_bytes, uint32_t meta_bytes);

#endif
