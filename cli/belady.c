/* SPDX-License-Identifier: Apache-2.0 */
#include "belady.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define NEVER UINT32_MAX

/* When a block is used next: the request, then the place in it, and one, so that it is never 0. Larger is farther. */
struct candidate {
	uint64_t next;
	uint32_t block;
};

struct run {
	const struct kvk_trace *trace;
	uint32_t *next_request;        /* per access */
	uint64_t *kept;                /* per block: the candidate's next, or 0 */
	struct candidate *heap;        /* the farthest first; what is no longer true of a block is passed over */
	uint64_t heap_count, kept_count;
};

static uint64_t next_of(const struct run *run, uint64_t access, uint32_t place)
{
	return (uint64_t)run->next_request[access] << 32 | (place + 1);
}

static void push(struct run *run, uint32_t block, uint64_t next)
{
	uint64_t at = run->heap_count++;

	for (; at > 0 && run->heap[(at - 1) / 2].next < next; at = (at - 1) / 2)
		run->heap[at] = run->heap[(at - 1) / 2];
	run->heap[at] = (struct candidate){ .next = next, .block = block };
	run->kept_count += run->kept[block] == 0;
	run->kept[block] = next;
}

static struct candidate pop(struct run *run)
{
	struct candidate top = run->heap[0], last = run->heap[--run->heap_count];
	uint64_t at = 0, child;

	while ((child = 2 * at + 1) < run->heap_count) {
		child += child + 1 < run->heap_count && run->heap[child + 1].next > run->heap[child].next;
		if (run->heap[child].next <= last.next)
			break;
		run->heap[at] = run->heap[child];
		at = child;
	}
	run->heap[at] = last;
	return top;
}

static void evict_one(struct run *run)
{
	struct candidate farthest;

	do {
		farthest = pop(run);
	} while (run->kept[farthest.block] != farthest.next);
	run->kept[farthest.block] = 0;
	run->kept_count--;
}

static int look_ahead(struct run *run)
{
	const struct kvk_trace *trace = run->trace;
	uint32_t *seen = malloc((trace->distinct_count + 1) * sizeof(*seen));

	if (!seen)
		return -ENOMEM;
	memset(seen, 0xff, trace->distinct_count * sizeof(*seen));
	for (uint64_t i = trace->request_count; i-- > 0;) {
		const struct kvk_trace_request *request = &trace->requests[i];

		for (uint64_t j = request->first; j < request->first + request->block_count; j++) {
			run->next_request[j] = seen[trace->blocks[j]];
			seen[trace->blocks[j]] = (uint32_t)i;
		}
	}
	free(seen);
	return 0;
}

static void play(struct run *run, const struct kvk_trace_request *request, uint64_t cap_blocks, struct kvk_belady *ret)
{
	const uint32_t *blocks = &run->trace->blocks[request->first];
	uint32_t hits = 0;

	while (hits < request->block_count && run->kept[blocks[hits]])
		hits++;
	ret->hits += hits;
	for (uint32_t i = 0; i < request->block_count; i++) {
		bool there = run->kept[blocks[i]];

		if (!there && run->next_request[request->first + i] == NEVER)
			continue;
		ret->written += !there;
		push(run, blocks[i], next_of(run, request->first + i, i));
		if (run->kept_count > cap_blocks)
			evict_one(run);
	}
}

int kvk_belady_run(const struct kvk_trace *trace, uint64_t cap_blocks, struct kvk_belady *ret)
{
	struct run run = { .trace = trace };
	struct kvk_belady result = { 0 };
	int err = -ENOMEM;

	run.next_request = malloc((trace->block_count + 1) * sizeof(*run.next_request));
	run.kept = calloc(trace->distinct_count + 1, sizeof(*run.kept));
	/* An access adds one candidate at most. */
	run.heap = malloc((trace->block_count + 1) * sizeof(*run.heap));
	if (!run.next_request || !run.kept || !run.heap)
		goto out;
	err = look_ahead(&run);
	if (err)
		goto out;
	for (uint64_t i = 0; i < trace->request_count; i++)
		play(&run, &trace->requests[i], cap_blocks, &result);
	*ret = result;
out:
	free(run.next_request);
	free(run.kept);
	free(run.heap);
	return err;
}
