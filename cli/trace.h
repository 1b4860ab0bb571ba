/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Traffic: requests that name their prompts in blocks. The same block id means the same block and the same whole
 * prefix before it. Traces come from JSON lines or from a generator.
 */
#ifndef KVK_CLI_TRACE_H
#define KVK_CLI_TRACE_H

#include <stdint.h>
#include <stdio.h>

/* A request may have this many blocks: one batch of the library. */
#define KVK_TRACE_BLOCKS_MAX 65536

struct kvk_trace_request {
	uint64_t timestamp_ms;
	uint64_t input_tokens;
	uint64_t output_tokens;
	uint64_t first;            /* its blocks begin here in kvk_trace.blocks */
	uint32_t block_count;
};

struct kvk_trace {
	struct kvk_trace_request *requests;
	uint64_t request_count, request_room;
	/* Blocks in the order of requests, as numbers below distinct_count. */
	uint32_t *blocks;
	uint64_t block_count, block_room;
	/* What the trace calls them. */
	uint64_t *ids;
	/* The last request (and one) that had this block, so that a block that comes twice in one is found. */
	uint64_t *seen;
	uint64_t distinct_count, distinct_room;
	uint32_t *slots;           /* hash table: number and one, 0 is free; a power of two of them */
	uint64_t slot_count;
	uint32_t blocks_most;      /* of the longest request */
	uint32_t block_tokens;
};

#define KVK_TRACE_ERROR_BYTES 160

/*
 * Reads up to `limit` requests (0: all) of JSON lines with timestamp, input_length, output_length and
 * hash_ids. *trace must be zeros and is ended with kvk_trace_release() whatever the outcome. -EINVAL: error tells the
 * line and what is wrong with it.
 */
int kvk_trace_read(struct kvk_trace *trace, FILE *in, uint64_t limit, char error[KVK_TRACE_ERROR_BYTES]);

/* Appends a request. -EEXIST: a block comes twice. -E2BIG: too many blocks. -ENOMEM. */
int kvk_trace_add(struct kvk_trace *trace, const struct kvk_trace_request *request, const uint64_t *ids,
		  uint32_t count);

void kvk_trace_release(struct kvk_trace *trace);

/* ---- chat.c ---- */

/*
 * Multi-turn chats: each turn's prompt is a system prompt that many users share, all of the chat before, and a new
 * question. Only whole blocks are named, as engines cache them. The same text makes the same trace.
 */
struct kvk_chat {
	uint64_t users;
	uint64_t turns;
	uint64_t systems;          /* different system prompts */
	uint64_t system_tokens;
	uint64_t prompt_tokens;    /* mean of a question; each is between half and one and a half of it */
	uint64_t reply_tokens;     /* mean of an answer, likewise */
	uint64_t block_tokens;
	uint64_t seed;
};

/* Users times turns: all are made before they are put in order, whoever asks for the first few. */
#define KVK_CHAT_REQUESTS_MAX (UINT64_C(1) << 24)

/* Parses "users=100,turns=5,...". -EINVAL: error names the part that is wrong. */
int kvk_chat_parse(struct kvk_chat *chat, const char *text, char error[KVK_TRACE_ERROR_BYTES]);
/* Makes up to `limit` requests (0: all), ordered by time. As kvk_trace_read(). */
int kvk_chat_make(struct kvk_trace *trace, const struct kvk_chat *chat, uint64_t limit);

#endif
