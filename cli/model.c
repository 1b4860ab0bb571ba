/* SPDX-License-Identifier: Apache-2.0 */
#include "model.h"

#include <errno.h>
#include <stdlib.h>

bool kvk_model_learn(struct kvk_model *model, uint32_t block, bool found)
{
	uint8_t state = model->states[block];

	if (state != KVK_MODEL_WRITING)
		model->states[block] = found ? KVK_MODEL_STORED : KVK_MODEL_ABSENT;
	return state == KVK_MODEL_UNKNOWN || state == KVK_MODEL_UNASKED || found == (state == KVK_MODEL_STORED);
}

uint32_t kvk_model_hits(const struct kvk_model *model, const uint32_t *blocks, uint32_t count)
{
	uint32_t hits = 0;

	while (hits < count && model->states[blocks[hits]] == KVK_MODEL_STORED)
		hits++;
	return hits;
}

uint64_t kvk_model_killed(struct kvk_model *model)
{
	uint64_t killed = 0;

	for (uint64_t i = 0; i < model->count; i++) {
		if (model->states[i] != KVK_MODEL_WRITING)
			continue;
		model->states[i] = KVK_MODEL_UNKNOWN;
		killed++;
	}
	return killed;
}

int kvk_model_unlimited_hits(const struct kvk_trace *trace, uint64_t limit, uint64_t *hits)
{
	struct kvk_model model = { calloc(trace->distinct_count + 1, 1), trace->distinct_count };
	uint64_t sum = 0;

	if (!model.states)
		return -ENOMEM;
	for (uint64_t i = 0; i < trace->request_count && (!limit || i < limit); i++) {
		const struct kvk_trace_request *request = &trace->requests[i];
		const uint32_t *blocks = trace->blocks + request->first;

		sum += kvk_model_hits(&model, blocks, request->block_count);
		for (uint32_t k = 0; k < request->block_count; k++)
			model.states[blocks[k]] = KVK_MODEL_STORED;
	}
	free(model.states);
	*hits = sum;
	return 0;
}
