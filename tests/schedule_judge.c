/* SPDX-License-Identifier: Apache-2.0 */
#include "schedule_judge.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <kvkeep/kvkeep.h>

/* 0: nothing. Otherwise a generation, and whether what is there is damaged. */
typedef uint32_t object;
#define DAMAGED 1u

struct search {
	const struct history *history;
	const struct act *acts[ACTS_MAX];
	uint32_t count;
	/* What was tried and led nowhere. */
	struct { uint32_t placed, state; } dead[4096];
	uint32_t dead_count;
};

static bool is_unanswered(const struct act *act)
{
	return act->status == -ETIMEDOUT || act->status == -ECANCELED || act->status == -EIO || act->status == -EHOSTDOWN;
}

static uint64_t end_of(const struct act *act)
{
	return is_unanswered(act) ? UINT64_MAX : act->end;
}

static bool overlap(const struct act *a, const struct act *b)
{
	return a != b && a->begin <= end_of(b) && b->begin <= end_of(a);
}

static bool changes(const struct act *act)
{
	return act->kind == ACT_PUT || act->kind == ACT_REMOVE || act->kind == ACT_EVICT;
}

/* Another request of the same process has the key in its hands. */
static bool is_disturbed(const struct search *search, const struct act *act, bool pins)
{
	const struct history *history = search->history;

	for (uint32_t i = 0; i < history->count; i++) {
		const struct act *other = &history->acts[i];

		/* A put that is to replace a damaged file and finds another process's there asks to be asked again. */
		bool near = other->store == act->store || (history->damaged && act->kind == ACT_PUT);

		if (!near || (other->key != act->key && other->kind != ACT_EVICT))
			continue;
		if (pins ? other->kind == ACT_PIN && other->begin <= act->end : overlap(act, other) && changes(other))
			return true;
	}
	return history->vanish && !pins;
}

/* Another process removed something of this key before or meanwhile, and this one may not have heard of it. */
static bool may_be_stale(const struct search *search, const struct act *act)
{
	for (uint32_t i = 0; i < search->count && !act->at_rest; i++) {
		const struct act *other = search->acts[i];

		if (other->store != act->store && other->begin <= act->end &&
		    (other->kind == ACT_REMOVE || other->status == -EBADMSG))
			return true;
	}
	return search->history->vanish;
}

/* Meanwhile somebody moves aside by name what he found damaged, looks whether it is that, and else moves it back. */
static bool is_moved_about(const struct search *search, const struct act *act)
{
	for (uint32_t i = 0; i < search->count; i++) {
		if (search->acts[i]->status == -EBADMSG && overlap(act, search->acts[i]))
			return true;
	}
	return false;
}

/* The objects that may be there after it, in next; their number. 0: it cannot have happened with this one there. */
static unsigned happens(const struct search *search, const struct act *act, object there, object next[2])
{
	next[0] = there;
	next[1] = there | DAMAGED;
	/* The same byte changed twice is right again. */
	if (act->kind == ACT_DAMAGE)
		return act->status == 0 && there != 0 ? 2 : act->status != 0;
	if (is_unanswered(act)) {
		next[1] = act->kind == ACT_PUT && (there == 0 || there & DAMAGED) ? act->generation << 1 :
			  act->kind == ACT_REMOVE ? 0 : there;
		return 2;
	}
	if (act->reason == KVK_REASON_BUSY)
		return is_disturbed(search, act, false);
	switch (act->kind) {
	case ACT_PUT:
		if (act->status == 0 && act->reason == KVK_REASON_PRESENT)
			return there != 0 || may_be_stale(search, act);
		next[0] = act->generation << 1;
		return act->status == 0 && (there == 0 || there & DAMAGED || is_moved_about(search, act));
	case ACT_GET:
		if (act->status == 0)
			return there == act->generation << 1;
		break;
	case ACT_LOOKUP:
	case ACT_PIN:
		if (act->status == 0)
			return there != 0 || may_be_stale(search, act);
		break;
	case ACT_REMOVE:
		if (act->status == -EBUSY)
			return is_disturbed(search, act, true);
		if (act->status == 0) {
			next[0] = 0;
			return there != 0;
		}
		break;
	case ACT_UNPIN:
	case ACT_EVICT:
	case ACT_DAMAGE:
	case ACT_KINDS:
		return 1;
	}
	if (act->status == -EBADMSG && there & DAMAGED) {
		next[1] = 0;
		return 2;
	}
	if (act->status == -ENOENT && there & DAMAGED)
		next[0] = 0;
	return act->status == -ENOENT && (there == 0 || there & DAMAGED || is_moved_about(search, act));
}

static bool was_dead(struct search *search, uint32_t placed, object there)
{
	for (uint32_t i = 0; i < search->dead_count; i++) {
		if (search->dead[i].placed == placed && search->dead[i].state == there)
			return true;
	}
	return false;
}

static bool explain(struct search *search, uint32_t placed, object there)
{
	uint64_t first_end = UINT64_MAX;
	object next[2];

	if (placed == (UINT32_C(1) << search->count) - 1)
		return true;
	if (was_dead(search, placed, there))
		return false;
	for (uint32_t i = 0; i < search->count; i++) {
		if (!(placed & UINT32_C(1) << i) && end_of(search->acts[i]) < first_end)
			first_end = end_of(search->acts[i]);
	}
	for (uint32_t i = 0; i < search->count; i++) {
		unsigned ways;

		if (placed & UINT32_C(1) << i || search->acts[i]->begin > first_end)
			continue;
		ways = happens(search, search->acts[i], there, next);
		for (unsigned way = 0; way < ways; way++) {
			if (explain(search, placed | UINT32_C(1) << i, next[way]))
				return true;
		}
	}
	if (search->history->vanish && there != 0 && explain(search, placed, 0))
		return true;
	if (search->dead_count < sizeof(search->dead) / sizeof(search->dead[0])) {
		search->dead[search->dead_count].placed = placed;
		search->dead[search->dead_count++].state = there;
	}
	return false;
}

bool history_is_explained(const struct history *history, uint32_t key, struct beginning beginning)
{
	static struct search search;

	search.history = history;
	search.count = 0;
	search.dead_count = 0;
	for (uint32_t i = 0; i < history->count; i++) {
		if (history->acts[i].key == key && history->acts[i].kind != ACT_EVICT && !history->acts[i].never)
			search.acts[search.count++] = &history->acts[i];
	}
	return explain(&search, 0, beginning.generation << 1 | (beginning.damaged ? DAMAGED : 0));
}

void history_tell(const struct history *history)
{
	static const char *const kinds[ACT_KINDS] = { "put", "get", "lookup", "pin", "unpin", "remove", "evict", "damage" };

	for (uint32_t i = 0; i < history->count; i++) {
		const struct act *act = &history->acts[i];

		fprintf(stderr, "    %5llu to %5llu: %s of key %u in store %u, generation %u: %d (%s)%s\n", (unsigned long long)act->begin,
			(unsigned long long)act->end, kinds[act->kind], act->key, act->store, act->generation, act->status,
			kvk_reason_text(act->reason), act->at_rest ? ", at rest" : act->never ? ", never" : "");
	}
}
