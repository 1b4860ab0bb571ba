/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The proof: opens an object, reads footer and payload, and says whether it is the one that was asked for. Everything that
 * takes bytes from a medium goes through here: get, find, and a put that meets an object that exists.
 */
#ifndef KVK_ADAPTER_DYNAMIC_PROOF_H
#define KVK_ADAPTER_DYNAMIC_PROOF_H

#include "adapter/adapter.h"
#include "agent/stream.h"

enum kvk_verdict {
	KVK_VERDICT_NONE = 0,          /* not judged: status says why (an error of the medium, a deadline) */
	KVK_VERDICT_PROVEN,
	KVK_VERDICT_ABSENT,
	KVK_VERDICT_DAMAGED,           /* fails its own proof: may be moved aside */
	KVK_VERDICT_COLLISION,         /* whole, but of another key or namespace */
	KVK_VERDICT_UNVERIFIED,        /* adopted, without a footer, and such are not accepted: nothing is known of it */
	KVK_VERDICT_FOREIGN,           /* not ours: another owner, no regular file, a newer version */
	KVK_VERDICT_ARGUMENT,          /* the buffer is shorter than the object, or the range lies outside */
};

enum kvk_proof_depth {
	KVK_PROOF_FOOTER,              /* the footer alone */
	KVK_PROOF_WHOLE,               /* footer and the wanted part of the payload */
};

struct kvk_proof {
	/* Set before kvk_proof_start(): */
	struct kvk_request *request;   /* key, digest, name, memory, range; facts are filled in */
	const char *name;
	enum kvk_proof_depth depth;
	bool buffered;                 /* through the page cache, also where direct I/O is in use */
	bool deliver;                  /* to the request's memory */
	void (*done)(struct kvk_proof *proof);
	/* The answer. The place is open (unless NULL) and the owner's to close. */
	enum kvk_verdict verdict;
	int status;
	uint64_t delivered_bytes;
	struct kvk_place *place;
	struct kvk_stat stat;
	/* Set by rules->open(): the object ends at end_bytes of the place and is no shorter and no longer than these. */
	uint64_t end_bytes;
	uint64_t least_bytes;
	uint64_t most_bytes;
	/* Private: */
	struct kvk_xfer xfer;
	struct kvk_stream stream;
	uint64_t seed;
	uint64_t base_bytes;           /* where it begins in the place; a guess until the footer has been read */
	uint64_t logical_bytes;        /* of the object; a guess until the footer has been read */
	uint64_t from_bytes, to_bytes; /* the wanted part of the payload */
	uint32_t block_bytes;
	uint32_t sums_room;
	uint32_t footer_bytes;
	uint32_t footer_room;
	bool footer_read;
	bool plain;                    /* an adopted file without a footer */
	struct kvk_footer footer;
	uint64_t *sums;                /* of the blocks that have arrived */
	uint8_t *footer_data;
	uint8_t footer_page[KVK_PAGE_BYTES];
};

/* What a layout of objects adds to the proof. */
struct kvk_proof_rules {
	/* Sets place, stat and the bounds above and calls kvk_proof_read(), or ends the proof. On the lane. */
	void (*open)(struct kvk_proof *proof);
	/* Says of a whole footer, which is proof->footer, whether it is the object that was asked for. */
	enum kvk_verdict (*judge)(const struct kvk_proof *proof, const uint8_t digest[KVK_DIGEST_BYTES]);
	/* There is no footer where one should be: ends or goes on. NULL: it is damaged. */
	void (*without_footer)(struct kvk_proof *proof);
};

/* Zeroes what is private. */
void kvk_proof_init(struct kvk_proof *proof, struct kvk_request *request, const char *name,
		    enum kvk_proof_depth depth, void (*done)(struct kvk_proof *proof));
/* On the lane. May be started again after done(), with place closed. */
void kvk_proof_start(struct kvk_proof *proof);
void kvk_proof_release(struct kvk_proof *proof);
/* What a get or a lookup answers to a verdict that is neither proven, absent nor damaged: the status, and *reason_ret. A
 * collision is counted. */
int kvk_proof_miss(const struct kvk_proof *proof, uint32_t *reason_ret);

/* For the rules. */
void kvk_proof_read(struct kvk_proof *proof, bool footer_first);
/* Reads the wanted part of the payload; logical_bytes and block_bytes are known. */
void kvk_proof_read_wanted(struct kvk_proof *proof);
void kvk_proof_without_footer(struct kvk_proof *proof);
void kvk_proof_end(struct kvk_proof *proof, enum kvk_verdict verdict, int status);
bool kvk_proof_is_direct(const struct kvk_proof *proof);

/* Copies between the caller's fragments, from offset_bytes on, and plain memory. */
void kvk_memory_scatter(const struct iovec *to, uint32_t count, uint64_t offset_bytes, const void *from,
			uint64_t bytes);
void kvk_memory_gather(void *to, const struct iovec *from, uint32_t count, uint64_t offset_bytes,
		       uint64_t bytes);
/* Whether direct transfers can go straight to or from these fragments. */
bool kvk_memory_aligned(const struct iovec *iov, uint32_t count, const struct kvk_backend_caps *caps);

#endif
