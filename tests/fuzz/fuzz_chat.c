/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What follows `chat:` for `kvkeep replay`, of any bytes: what is taken is within bounds, is the same when it is written down and
 * read again, and makes a trace that is in order; what is refused changes nothing and says which part is wrong.
 */
#include "fuzz.h"

#include <errno.h>
#include <inttypes.h>

#include "trace.h"

/* Traces of more are not made here: they only take long. */
#define REQUESTS_MAX 300
#define BLOCKS_MAX 100000

static void try_bounds(const struct kvk_chat *chat)
{
	FUZZ_ASSERT(chat->users >= 1 && chat->users <= 1000000 && chat->turns >= 1 && chat->turns <= 10000);
	FUZZ_ASSERT(chat->users * chat->turns <= KVK_CHAT_REQUESTS_MAX);
	FUZZ_ASSERT(chat->systems >= 1 && chat->systems <= 1000000 && chat->system_tokens <= 10000000);
	FUZZ_ASSERT(chat->prompt_tokens >= 1 && chat->prompt_tokens <= 1000000 && chat->reply_tokens <= 1000000);
	FUZZ_ASSERT(chat->block_tokens >= 1 && chat->block_tokens <= 65536 && chat->seed <= INT64_MAX);
}

static void try_written(const struct kvk_chat *chat)
{
	struct kvk_chat again = { .seed = 9 };
	char text[300], error[KVK_TRACE_ERROR_BYTES];

	snprintf(text, sizeof(text), "users=%" PRIu64 ",turns=%" PRIu64 ",systems=%" PRIu64 ",system=%" PRIu64 ",prompt=%"
		 PRIu64 ",reply=%" PRIu64 ",block=%" PRIu64 ",seed=%" PRIu64, chat->users, chat->turns, chat->systems,
		 chat->system_tokens, chat->prompt_tokens, chat->reply_tokens, chat->block_tokens, chat->seed);
	FUZZ_ASSERT(kvk_chat_parse(&again, text, error) == 0);
	FUZZ_ASSERT(memcmp(&again, chat, sizeof(again)) == 0);
}

static void try_trace(const struct kvk_trace *trace, const struct kvk_chat *chat)
{
	uint64_t last_ms = 0, blocks = 0;

	FUZZ_ASSERT(trace->block_tokens == chat->block_tokens);
	for (uint64_t i = 0; i < trace->request_count; i++) {
		const struct kvk_trace_request *request = &trace->requests[i];

		FUZZ_ASSERT(request->timestamp_ms >= last_ms && request->first == blocks);
		FUZZ_ASSERT(request->block_count == request->input_tokens / chat->block_tokens);
		last_ms = request->timestamp_ms;
		blocks += request->block_count;
	}
	FUZZ_ASSERT(blocks == trace->block_count);
	for (uint64_t i = 0; i < blocks; i++)
		FUZZ_ASSERT(trace->blocks[i] < trace->distinct_count);
}

/* The longest prompts that there can be, of all requests together. */
static uint64_t blocks_most(const struct kvk_chat *chat)
{
	uint64_t tokens = chat->system_tokens + chat->turns * (chat->prompt_tokens + chat->reply_tokens + 2) * 3 / 2;

	return chat->users * chat->turns * (tokens / chat->block_tokens);
}

static void try_made(const struct kvk_chat *chat)
{
	struct kvk_trace trace = { 0 }, first = { 0 };
	int err = kvk_chat_make(&trace, chat, 0);

	FUZZ_ASSERT(err == 0 || err == -E2BIG);
	try_trace(&trace, chat);
	if (!err) {
		FUZZ_ASSERT(trace.request_count == chat->users * chat->turns);
		FUZZ_ASSERT(kvk_chat_make(&first, chat, 1) == 0 && first.request_count == 1);
		FUZZ_ASSERT(first.requests[0].timestamp_ms == trace.requests[0].timestamp_ms);
		FUZZ_ASSERT(first.block_count == trace.requests[0].block_count);
	}
	kvk_trace_release(&trace);
	kvk_trace_release(&first);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static const struct kvk_chat untouched = { .users = 5, .seed = 77 };
	struct kvk_chat chat = untouched;
	char error[KVK_TRACE_ERROR_BYTES] = "", *text = fuzz_text(data, bytes);
	int err;

	fuzz_memory_for(bytes);
	err = kvk_chat_parse(&chat, text, error);
	fuzz_memory_limit(SIZE_MAX);
	if (err) {
		FUZZ_ASSERT(err == -EINVAL && error[0] && memcmp(&chat, &untouched, sizeof(chat)) == 0);
	} else {
		try_bounds(&chat);
		try_written(&chat);
		if (chat.users * chat.turns <= REQUESTS_MAX && blocks_most(&chat) <= BLOCKS_MAX)
			try_made(&chat);
	}
	free(text);
	return 0;
}
