/* SPDX-License-Identifier: Apache-2.0 */
/* One operation: who answers it, and who may touch its caller's memory. */
#include "agent/agent_private.h"
#include "util/clock.h"

void kvk_op_init(struct kvk_op *op, enum kvk_op_class class, uint64_t deadline_us, const void *group)
{
	op->class = class;
	atomic_init(&op->deadline_us, deadline_us);
	op->group = group;
	op->lane = NULL;
	kvk_list_init(&op->link);
	kvk_list_init(&op->xfers);
	op->detached = false;
	atomic_init(&op->claim, CLAIM_OPEN);
	atomic_init(&op->canceled, false);
}

bool kvk_op_answer(struct kvk_op *op, int status)
{
	unsigned open = CLAIM_OPEN;

	if (!atomic_compare_exchange_strong(&op->claim, &open, CLAIM_ANSWERED))
		return false;
	op->answer(op, status);
	return true;
}

bool kvk_op_answered(struct kvk_op *op)
{
	return atomic_load(&op->claim) == CLAIM_ANSWERED;
}

bool kvk_op_touch(struct kvk_op *op)
{
	unsigned open = CLAIM_OPEN;

	return atomic_compare_exchange_strong(&op->claim, &open, CLAIM_TOUCHING);
}

void kvk_op_untouch(struct kvk_op *op)
{
	atomic_store(&op->claim, CLAIM_OPEN);
}

bool kvk_op_alone(const struct kvk_op *op)
{
	return op->lane->active_count == 1;
}

void kvk_op_detach(struct kvk_op *op)
{
	atomic_store(&op->deadline_us, UINT64_MAX);
	op->detached = true;
	op->lane->active_count--;
}

bool kvk_op_late(struct kvk_op *op)
{
	return atomic_load(&op->canceled) || kvk_op_answered(op) ||
	       kvk_now_us() >= atomic_load(&op->deadline_us);
}

void kvk_op_finish(struct kvk_op *op)
{
	struct kvk_lane *lane = op->lane;

	pthread_mutex_lock(&lane->active_lock);
	kvk_list_remove(&op->link);
	lane->active_count -= !op->detached;
	pthread_mutex_unlock(&lane->active_lock);
	lane->lingers = lane->agent->lingers;
	op->finished(op);
}
