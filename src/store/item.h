/* SPDX-License-Identifier: Apache-2.0 */
/* One item of a task that needs a lane, and what the kinds of requests share. */
#ifndef KVK_STORE_ITEM_H
#define KVK_STORE_ITEM_H

#include <string.h>

#include "store/core.h"

struct kvk_item {
	struct kvk_request request;
	struct kvk_core *core;
	struct kvk_answer *answer;
	void (*start)(struct kvk_request *request);
	/* Tells the catalog and the counters what came of it: request->outcome, status, facts. Exactly once; for an item
	 * that never started as well. */
	void (*settle)(struct kvk_item *item);
	/* The answer came too late for the caller: takes back what he was to have. NULL: nothing. */
	void (*undo)(struct kvk_item *item);
	uint64_t answer_bytes;
	struct kvk_catalog_ticket ticket;      /* what the catalog knew when it was asked */
	uint8_t parent_digest[KVK_DIGEST_BYTES];
	void *meta_to;                         /* get, lookup: the caller's, or NULL */
	uint32_t meta_room;
	bool present;                          /* get: the catalog knew it when it was asked */
	bool pin;                              /* lookup */
	bool pinned;                           /* lookup: by the first look already */
	uint8_t tries;                         /* lookup: how often the finding was out of date; put: what was present not there */
	int found;                             /* lookup: what the catalog said of the finding */
	bool started;                          /* a lane has taken it up */
	bool alters;                           /* may publish or unlink */
	bool removes;                          /* counted in core->removing */
	uint32_t entered;                      /* the account, when it was started */
	bool settled;                          /* the catalog has been told what came of it */
	bool hangs;                            /* its memory is with the kernel: a release will follow */
	uint64_t credit_bytes;                 /* remove */
	uint64_t charge_bytes;                 /* put: what it reserves */
	uint64_t asked_us;                     /* put: since when it waits for room */
	uint8_t run_tries;                     /* put: how often it found room, but not side by side */
	uint8_t passed;                        /* and how many that came later went before it */
	bool again;                            /* put: it is to wait for room (again), and is not answered yet */
	bool placing;                          /* put: it was given to the agent for a run it had waited for */
};

/* Room for the copies of what items point to. */
struct kvk_arena {
	uint8_t *next;
	uint8_t *end;
};

/* Makes a task; with_items: and room for its items and arena_bytes of copies. -ENOMEM, -EAGAIN, or kvk_core_check(). */
int kvk_task_begin(struct kvk_core *core, enum kvk_queue queue, uint32_t count, uint64_t arena_bytes,
		   bool with_items, struct kvk_waiter *waiter, struct kvk_task **ret, struct kvk_arena *arena);

/* Items of a task that had none: for what memory alone could not answer. -ENOMEM. */
int kvk_task_add_items(struct kvk_task *task, uint64_t arena_bytes, struct kvk_arena *arena);

/* The task is set up: hands over the operations and drops or passes on the submitter's reference. */
int64_t kvk_task_submit(struct kvk_core *core, struct kvk_task *task, struct kvk_link *ops,
			struct kvk_task **ret);

void *kvk_arena_copy(struct kvk_arena *arena, const void *data, uint64_t bytes);

/* Sets up an item and its operation; the task is held until it has finished. */
struct kvk_item *kvk_item_begin(struct kvk_core *core, struct kvk_task *task, uint32_t index,
				enum kvk_op_class class, uint64_t deadline_us,
				void (*start)(struct kvk_request *request),
				void (*settle)(struct kvk_item *item));

/* The element of an array whose elements may be longer than they were when this was built. */
#define kvk_item_at(items, index) \
	((const void *)((const char *)(items) + (size_t)(index) * (items)->struct_bytes))

uint64_t kvk_deadline(const struct kvk_core *core, uint64_t deadline_us);

/* Digest of a key in this store's namespace. */
int kvk_core_digest(const struct kvk_core *core, uint8_t digest[KVK_DIGEST_BYTES], const struct kvk_key *key);

/* What an object is known under: to the adapter by its digest, to the catalog by what its name alone would tell. The same
 * in stores with kvkeep's naming. */
struct kvk_identity {
	uint8_t digest[KVK_DIGEST_BYTES];
	uint8_t id[KVK_DIGEST_BYTES];
};

static inline void kvk_identity_of_digest(struct kvk_identity *ret, const void *digest)
{
	memcpy(ret->digest, digest, KVK_DIGEST_BYTES);
	memcpy(ret->id, digest, KVK_DIGEST_BYTES);
}

/* Whether what the catalog knows under an id is this key's. With LMCache's names two keys may share a file (`a/b` and
 * `a--b`): then only the medium tells. */
static inline bool kvk_ids_are_keys(const struct kvk_core *core)
{
	return core->superblock.layout.naming == KVK_NAMING_KVKEEP;
}

int kvk_core_identify(const struct kvk_core *core, struct kvk_identity *ret, const struct kvk_key *key);
void kvk_item_identify(struct kvk_item *item, const struct kvk_identity *identity);

/* Builds what the catalog keeps, from facts and from the key (tenant and model, if it is in text form). */
void kvk_item_info(const struct kvk_item *item, struct kvk_object_info *info);

/* A put that waited asks the catalog again. True: it goes to the agent, to be written or to say why not. False: there is
 * still no room, and refusal is 0; else that is its answer (kvk_waiting_serve()). */
bool kvk_put_retry(struct kvk_item *item, int refusal);

/* There is no run for it and none can be made, or nobody can see to it: status is its answer, by way of the agent. */
void kvk_put_refuse(struct kvk_item *item, int status);
/* The adapter found no run for it, or not what was to be there already. True: that is not its answer yet, since objects may
 * be evicted until there is a run, or it is written when it has reserved. */
bool kvk_put_wants_room(const struct kvk_item *item);
/* It has finished, unanswered, and waits for its room. False: it was answered meanwhile, or is now since nobody wants it. */
bool kvk_put_waits_again(struct kvk_item *item);

/* An answer that needs no lane. Not handed over yet. */
void kvk_answer_set(struct kvk_answer *answer, int status, enum kvk_reason reason);

/* Hands over answers first to last - 1 of a task. */
void kvk_answers_hand_over(struct kvk_core *core, struct kvk_task *task, uint32_t first, uint32_t last);

/* Hands over what was answered at once, in runs of neighbours; `later` says which answers come from lanes. */
void kvk_answers_now(struct kvk_core *core, struct kvk_task *task, const bool *later);

void kvk_event(struct kvk_core *core, enum kvk_event_kind kind, const struct kvk_request *request);

static inline void kvk_count(atomic_uint_fast64_t *counter)
{
	atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/* A load of a file moves what is damaged aside; in a pool it erases it. */
static inline bool kvk_loads_alter(const struct kvk_core *core)
{
	return core->adapter->ops->slots != NULL;
}

/* What lost its name is given back. */
static inline void kvk_item_unlinked(const struct kvk_item *item)
{
	const struct kvk_request *request = &item->request;

	if (request->unlinked_bytes > 0)
		kvk_account_unlinked(item->core->account, request->bucket, kvk_page_ceil(request->unlinked_bytes));
}

static inline struct kvk_item *kvk_item_of(struct kvk_request *request)
{
	return kvk_container_of(request, struct kvk_item, request);
}

#endif
