/* SPDX-License-Identifier: Apache-2.0 */
#include "store/waiting.h"

#include <errno.h>
#include <time.h>

#include "store/item.h"
#include "util/clock.h"

/* So many go before one that waits for a run to be made. */
#define PASSES_MAX 16

void kvk_waiting_init(struct kvk_waiting *waiting)
{
	pthread_condattr_t attributes;

	kvk_list_init(&waiting->items);
	pthread_mutex_init(&waiting->lock, NULL);
	pthread_mutex_init(&waiting->bell_lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&waiting->bell, &attributes);
	pthread_condattr_destroy(&attributes);
}

void kvk_waiting_release(struct kvk_waiting *waiting)
{
	pthread_cond_destroy(&waiting->bell);
	pthread_mutex_destroy(&waiting->bell_lock);
	pthread_mutex_destroy(&waiting->lock);
}

/* ---- the bell ----------------------------------------------------------------------------------- */

void kvk_room_ring(struct kvk_core *core)
{
	struct kvk_waiting *waiting = &core->waiting;

	if (atomic_exchange(&waiting->rung, true))
		return;
	pthread_mutex_lock(&waiting->bell_lock);
	pthread_cond_signal(&waiting->bell);
	pthread_mutex_unlock(&waiting->bell_lock);
}

void kvk_room_listen(struct kvk_core *core, uint64_t until_us)
{
	struct kvk_waiting *waiting = &core->waiting;
	struct timespec until = {
		.tv_sec = (time_t)(until_us / 1000000), .tv_nsec = (long)(until_us % 1000000) * 1000,
	};

	pthread_mutex_lock(&waiting->bell_lock);
	while (!atomic_load(&waiting->rung) &&
	       pthread_cond_timedwait(&waiting->bell, &waiting->bell_lock, &until) != ETIMEDOUT)
		;
	pthread_mutex_unlock(&waiting->bell_lock);
	atomic_store(&waiting->rung, false);
}

void kvk_room_mind(struct kvk_core *core)
{
	if (kvk_catalog_room(core->catalog) < atomic_load_explicit(&core->waiting.low_bytes, memory_order_relaxed))
		kvk_room_ring(core);
}

bool kvk_waiting_is_any(struct kvk_core *core)
{
	return atomic_load(&core->waiting.bytes) > 0;
}

void kvk_waiting_altered(struct kvk_core *core)
{
	atomic_fetch_add(&core->altered, 1);
	if (kvk_waiting_is_any(core))
		kvk_room_ring(core);
}

/* ---- waiting ------------------------------------------------------------------------------------ */

void kvk_waiting_add(struct kvk_core *core, struct kvk_item *item)
{
	struct kvk_waiting *waiting = &core->waiting;

	item->asked_us = kvk_now_us();
	pthread_mutex_lock(&waiting->lock);
	kvk_list_push(&waiting->items, &item->request.op.link);
	atomic_fetch_add(&waiting->bytes, item->charge_bytes);
	pthread_mutex_unlock(&waiting->lock);
	kvk_room_ring(core);
}

bool kvk_waiting_add_again(struct kvk_core *core, struct kvk_item *item)
{
	struct kvk_waiting *waiting = &core->waiting;
	struct kvk_link *link;
	bool ends;

	item->asked_us = kvk_now_us();
	pthread_mutex_lock(&waiting->lock);
	/* Whoever ends it says so before he looks for it here. */
	ends = atomic_load(&core->closing) || atomic_load(&item->answer->task->canceled);
	if (!ends) {
		link = item->run_tries > 0 ? waiting->items.next : &waiting->items;
		while (link != &waiting->items && kvk_container_of(link, struct kvk_item, request.op.link)->run_tries > 0)
			link = link->next;
		kvk_list_push(link, &item->request.op.link);
		atomic_fetch_add(&waiting->bytes, item->charge_bytes);
	}
	pthread_mutex_unlock(&waiting->lock);
	/* The item may be gone now. What it had reserved is free. */
	if (!ends)
		kvk_waiting_altered(core);
	return !ends;
}

void kvk_waiting_placed(struct kvk_core *core, struct kvk_item *item)
{
	item->placing = false;
	atomic_fetch_sub(&core->waiting.placing_bytes, item->charge_bytes);
}

static void take_out(struct kvk_waiting *waiting, struct kvk_item *item)
{
	kvk_list_remove(&item->request.op.link);
	atomic_fetch_sub(&waiting->bytes, item->charge_bytes);
}

/* Those that were let go for their runs may have taken them already: then this asks for more than it must, for as long. */
static bool lacks_run(struct kvk_core *core, const struct kvk_item *item)
{
	struct kvk_slots slots;

	if (item->run_tries == 0)
		return false;
	core->adapter->ops->slots(core->adapter, &slots);
	return slots.longest_free_slots * slots.slot_bytes < item->charge_bytes + atomic_load(&core->waiting.placing_bytes);
}

uint64_t kvk_waiting_serve(struct kvk_core *core, int refusal, uint64_t asked_before_us)
{
	struct kvk_waiting *waiting = &core->waiting;
	struct kvk_link *link, *next, ops;
	uint64_t need_bytes = 0;

	kvk_list_init(&ops);
	pthread_mutex_lock(&waiting->lock);
	waiting->run_bytes = 0;
	for (link = waiting->items.next; link != &waiting->items; link = next) {
		struct kvk_item *item = kvk_container_of(link, struct kvk_item, request.op.link);
		bool refuse = refusal && item->asked_us < asked_before_us;

		next = link->next;
		if (lacks_run(core, item)) {
			if (!refuse || refusal == -ENOSPC) {
				need_bytes = waiting->run_bytes = item->charge_bytes;
				break;
			}
			kvk_put_refuse(item, refusal == -ENOSR ? -ENOSPC : refusal);
			/* The next may need less. */
			if (refusal == -ENOSR)
				refusal = 0;
		} else if (kvk_put_retry(item, 0)) {
			item->placing = item->run_tries > 0;
			if (item->placing)
				atomic_fetch_add(&waiting->placing_bytes, item->charge_bytes);
			/* What it took may come back: whoever comes after it is not refused for that. */
			if (refusal == -ENOSPC)
				refusal = 0;
		} else if (!refuse || refusal == -ENOSR || !kvk_put_retry(item, refusal)) {
			/* Who comes later does not get what an earlier one waits for. */
			need_bytes = item->charge_bytes;
			break;
		}
		take_out(waiting, item);
		kvk_list_push(&ops, link);
	}
	/* Under the lock, so that a cancel finds them either here or with the agent. */
	if (!kvk_list_empty(&ops))
		kvk_agent_submit(core->agent, &ops);
	pthread_mutex_unlock(&waiting->lock);
	return need_bytes;
}

void kvk_waiting_pass(struct kvk_core *core)
{
	struct kvk_waiting *waiting = &core->waiting;
	struct kvk_link *link, *next, ops;
	struct kvk_slots slots;
	struct kvk_item *first;
	uint64_t free_bytes;

	kvk_list_init(&ops);
	pthread_mutex_lock(&waiting->lock);
	link = waiting->items.next;
	first = kvk_container_of(link, struct kvk_item, request.op.link);
	if (link == &waiting->items || !lacks_run(core, first))
		goto out;
	core->adapter->ops->slots(core->adapter, &slots);
	free_bytes = slots.longest_free_slots * slots.slot_bytes;
	for (link = link->next; link != &waiting->items && first->passed < PASSES_MAX; link = next) {
		struct kvk_item *item = kvk_container_of(link, struct kvk_item, request.op.link);

		next = link->next;
		if (item->run_tries > 0)
			continue;
		if (item->charge_bytes > free_bytes || !kvk_put_retry(item, 0))
			break;
		free_bytes -= item->charge_bytes;
		first->passed++;
		take_out(waiting, item);
		kvk_list_push(&ops, link);
	}
	if (!kvk_list_empty(&ops))
		kvk_agent_submit(core->agent, &ops);
out:
	pthread_mutex_unlock(&waiting->lock);
}

void kvk_waiting_end(struct kvk_core *core, const void *group, uint64_t now_us)
{
	struct kvk_waiting *waiting = &core->waiting;
	struct kvk_link *link, *next, ended;

	kvk_list_init(&ended);
	pthread_mutex_lock(&waiting->lock);
	for (link = waiting->items.next; link != &waiting->items; link = next) {
		struct kvk_item *item = kvk_container_of(link, struct kvk_item, request.op.link);

		next = link->next;
		if (group ? item->request.op.group != group : now_us && now_us < item->request.op.deadline_us)
			continue;
		take_out(waiting, item);
		kvk_list_push(&ended, link);
	}
	pthread_mutex_unlock(&waiting->lock);
	while ((link = kvk_list_pop(&ended))) {
		struct kvk_op *op = kvk_container_of(link, struct kvk_op, link);

		kvk_op_answer(op, now_us ? -ETIMEDOUT : -ECANCELED);
		op->finished(op);
	}
}
