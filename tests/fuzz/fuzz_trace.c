/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Traces of any bytes, as `kvkeep replay` and `simulate` read them: what is taken is whole, and the same when it is written
 * down and read again; what is refused names its line.
 */
#include "fuzz.h"

#include <errno.h>
#include <inttypes.h>

#include "trace.h"

static int read_trace(struct kvk_trace *trace, const void *data, size_t bytes, uint64_t limit,
		      char error[KVK_TRACE_ERROR_BYTES])
{
	/* Of no bytes there is no stream. */
	FILE *in = bytes ? fmemopen((void *)(uintptr_t)data, bytes, "r") : fopen("/dev/null", "r");
	int err;

	if (!in)
		abort();
	error[0] = '\0';
	fuzz_memory_for(bytes);
	err = kvk_trace_read(trace, in, limit, error);
	fuzz_memory_limit(SIZE_MAX);
	fclose(in);
	return err;
}

static void try_whole(const struct kvk_trace *trace)
{
	/* By number: the last request, and one, that had it. */
	uint64_t *had = calloc(trace->distinct_count + 1, sizeof(*had));
	uint64_t blocks = 0, distinct = 0;
	uint32_t most = 0;

	if (!had)
		abort();
	FUZZ_ASSERT(trace->block_tokens == 512);
	for (uint64_t i = 0; i < trace->request_count; i++) {
		const struct kvk_trace_request *request = &trace->requests[i];

		FUZZ_ASSERT(request->first == blocks && request->block_count <= KVK_TRACE_BLOCKS_MAX);
		FUZZ_ASSERT(request->timestamp_ms <= INT64_MAX);
		most = request->block_count > most ? request->block_count : most;
		blocks += request->block_count;
	}
	FUZZ_ASSERT(blocks == trace->block_count && most == trace->blocks_most);
	/* Numbers are given in the order in which blocks come for the first time. */
	for (uint64_t i = 0; i < trace->block_count; i++) {
		FUZZ_ASSERT(trace->blocks[i] <= distinct);
		distinct += trace->blocks[i] == distinct;
	}
	FUZZ_ASSERT(distinct == trace->distinct_count);
	/* None comes twice in one request. */
	for (uint64_t i = 0; i < trace->request_count; i++) {
		const struct kvk_trace_request *request = &trace->requests[i];

		for (uint32_t k = 0; k < request->block_count; k++) {
			uint32_t number = trace->blocks[request->first + k];

			FUZZ_ASSERT(had[number] != i + 1);
			had[number] = i + 1;
		}
	}
	free(had);
}

static void same(const struct kvk_trace *a, const struct kvk_trace *b)
{
	FUZZ_ASSERT(a->request_count == b->request_count && a->block_count == b->block_count);
	for (uint64_t i = 0; i < a->request_count; i++) {
		const struct kvk_trace_request *of_a = &a->requests[i], *of_b = &b->requests[i];

		FUZZ_ASSERT(of_a->timestamp_ms == of_b->timestamp_ms && of_a->input_tokens == of_b->input_tokens);
		FUZZ_ASSERT(of_a->output_tokens == of_b->output_tokens && of_a->block_count == of_b->block_count);
	}
	for (uint64_t i = 0; i < a->block_count; i++)
		FUZZ_ASSERT(a->ids[a->blocks[i]] == b->ids[b->blocks[i]]);
}

static void try_written(const struct kvk_trace *trace)
{
	char error[KVK_TRACE_ERROR_BYTES], *text = NULL;
	struct kvk_trace again = { 0 };
	size_t bytes = 0;
	FILE *out = open_memstream(&text, &bytes);

	if (!out)
		abort();
	for (uint64_t i = 0; i < trace->request_count; i++) {
		const struct kvk_trace_request *request = &trace->requests[i];

		fprintf(out, "{\"timestamp\": %" PRIu64 ", \"input_length\": %" PRIu64 ", \"output_length\": %" PRIu64
			", \"hash_ids\": [", request->timestamp_ms, request->input_tokens, request->output_tokens);
		for (uint32_t k = 0; k < request->block_count; k++)
			fprintf(out, "%s%" PRId64, k ? ", " : "", (int64_t)trace->ids[trace->blocks[request->first + k]]);
		fputs("]}\n", out);
	}
	fclose(out);
	FUZZ_ASSERT(read_trace(&again, text, bytes, 0, error) == 0);
	same(trace, &again);
	kvk_trace_release(&again);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct kvk_trace trace = { 0 }, short_one = { 0 };
	char error[KVK_TRACE_ERROR_BYTES];
	int err = read_trace(&trace, data, bytes, 0, error);

	/* What was read before a bad line is whole, too. */
	if (err)
		FUZZ_ASSERT(err == -EINVAL && strncmp(error, "line ", 5) == 0 && fuzz_is_utf8(error));
	else
		FUZZ_ASSERT(error[0] == '\0');
	if (!err) {
		try_whole(&trace);
		try_written(&trace);
	}
	/* Of a bad line nothing is seen by who does not read as far. */
	if (trace.request_count > 0) {
		FUZZ_ASSERT(read_trace(&short_one, data, bytes, trace.request_count, error) == 0);
		FUZZ_ASSERT(short_one.request_count == trace.request_count);
		try_whole(&short_one);
	}
	kvk_trace_release(&trace);
	kvk_trace_release(&short_one);
	return 0;
}
