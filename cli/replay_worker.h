/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the worker: requests under way, and the buffers that they borrow. */
#ifndef KVK_CLI_REPLAY_WORKER_H
#define KVK_CLI_REPLAY_WORKER_H

#include "blockkey.h"
#include "replay.h"

/*
 * A request:  ASK --> ASKING --> LOAD --> STORE --> UNPIN --> UNPINNING --> free
 *
 * In ASK and UNPIN the batch is still to be submitted; LOAD and STORE submit as buffers come free, and are over when
 * all their answers came and were checked.
 */
enum kvk_slot_state {
	KVK_SLOT_FREE,
	KVK_SLOT_ASK,
	KVK_SLOT_ASKING,
	KVK_SLOT_LOAD,
	KVK_SLOT_STORE,
	KVK_SLOT_UNPIN,
	KVK_SLOT_UNPINNING,
};

struct kvk_slot {
	enum kvk_slot_state state;
	uint32_t index;
	uint64_t request;
	const uint32_t *blocks;
	uint32_t count;
	char (*keys)[KVK_BLOCK_KEY_BYTES];
	uint32_t key_bytes;        /* all are of one length */
	uint64_t *names;           /* of the payloads */
	bool *found;               /* by the lookup; false again when the load failed */
	uint8_t *reasons;          /* the lookup's, where it did not find */
	bool *pinned;
	bool *claimed;             /* no later request with this block begins before this one is done */
	uint32_t hits;
	uint32_t model_hits;
	uint32_t next;             /* position that is to be loaded or stored next */
	uint32_t outstanding;      /* answers to come, and loads to be checked */
	uint32_t filling;          /* buffers of the next put that are not filled yet ... */
	struct kvk_buffer *filled; /* ... and those that are, in order */
	struct kvk_buffer **filled_end;
	uint64_t submit_ns;
	struct kvk_slot *later;    /* the list of active slots, in the order of requests */
};

/* Memory for one object, and what is being done with it. */
struct kvk_buffer {
	void *memory;
	struct kvk_slot *slot;     /* NULL: free, or lost to a hung medium until its release */
	uint32_t position;
	bool check;                /* work to do: compare; else fill */
	uint64_t offset;           /* so far */
	uint64_t submit_ns;
	struct kvk_buffer *next;
};

struct kvk_worker {
	struct kvk_replay *replay;
	struct kvk_replay_shared *shared;
	struct kvk_store *store;
	int notify_fd;
	uint64_t open_ns;          /* when it was begun */
	bool loaded;               /* something, since the open */
	bool again;                /* a submission was refused for now */
	int error;                 /* a submission failed for good */
	uint64_t next_request;
	struct kvk_slot *slots;
	uint32_t slot_count;
	struct kvk_slot *active;
	uint8_t *claims;           /* by block */
	struct kvk_buffer *buffers;
	uint32_t buffer_count;
	void *memory;
	uint64_t memory_bytes;
	struct kvk_buffer *free_buffers;
	struct kvk_buffer *work;   /* to fill or check, oldest first */
	struct kvk_buffer **work_end;
	uint64_t under_way[KVK_REPLAY_OPS];
	uint64_t busy_since_ns[KVK_REPLAY_OPS];
	/* Room for the largest batch. The library copies what it keeps. */
	struct kvk_key_item *key_items;
	struct kvk_get_item *get_items;
	struct kvk_put_item *put_items;
	struct iovec *pieces;
};

/* ---- replay_steps.c: what a request does next ---- */

/* Moves a request on as far as it goes without waiting. Returns whether it moved. */
bool kvk_slot_step(struct kvk_worker *worker, struct kvk_slot *slot);
/* One answer. */
void kvk_worker_answer(struct kvk_worker *worker, enum kvk_queue queue, const struct kvk_result *result,
		       uint64_t now_ns);
/* Fills or compares a piece of the oldest buffer that waits for it. */
void kvk_worker_do_work(struct kvk_worker *worker);

/* ---- replay_worker.c ---- */

void kvk_worker_finish(struct kvk_worker *worker, struct kvk_slot *slot);

#endif
