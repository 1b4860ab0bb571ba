/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An adapter over a medium that a test bends. One lane, and no store around it, so that each step of a request is reached by saying
 * which call of the medium it is.
 */
#ifndef KVK_TESTS_UNIT_BENT_BED_H
#define KVK_TESTS_UNIT_BENT_BED_H

#include "bent_medium.h"

#include <semaphore.h>

/* ---- an adapter and its lane -------------------------------------------------------------------- */

struct bench {
	struct bent bent;
	struct kvk_adapter *adapter;
	struct kvk_agent *agent;
	struct kvk_adapter_options options;
	uint8_t namespace_digest[KVK_DIGEST_BYTES];
	struct kvk_pool_shape shape;
	int held_places;               /* by the adapter, as long as it is open */
};

static inline void bench_open(struct bench *bench, enum kvk_durability durability, enum kvk_naming naming)
{
	struct kvk_agent_options agent = { .lanes = 1, .memory_bytes = 16 << 20, .depth_bytes = 16 << 20 };

	memset(bench, 0, sizeof(*bench));
	bent_open(&bench->bent);
	bench->options = (struct kvk_adapter_options){
		.backend = &bench->bent.base, .durability = durability, .namespace_digest = bench->namespace_digest,
		.layout = { naming, naming == KVK_NAMING_KVKEEP }, .writer_id = 7, .adopted_ns = 2000,
		.quarantine_bytes = UINT64_C(1) << 30,
	};
	agent.backend = &bench->bent.base;
	assert_int_equal(kvk_agent_new(&bench->agent, &agent, NULL), 0);
}

static inline void bench_open_dynamic(struct bench *bench, enum kvk_durability durability, enum kvk_naming naming)
{
	bench_open(bench, durability, naming);
	assert_int_equal(kvk_dynamic_open(&bench->adapter, &bench->options), 0);
}

/* A pool of slots of 8 KiB in files of ten. */
#define BENCH_SLOT_BYTES 8192u
#define BENCH_FILE_SLOTS 10u

static inline int bench_try_pool(struct bench *bench, struct kvk_error *error)
{
	int err = kvk_pool_open(&bench->adapter, &bench->options, error);

	bench->held_places = bench->bent.places;
	return err;
}

static inline void bench_open_pool(struct bench *bench, enum kvk_durability durability, uint64_t slots)
{
	bench_open(bench, durability, KVK_NAMING_KVKEEP);
	bench->shape = (struct kvk_pool_shape){
		.slot_bytes = BENCH_SLOT_BYTES, .slots = slots, .file_slots = BENCH_FILE_SLOTS, .opens = 1,
	};
	bench->options.pool = &bench->shape;
	assert_int_equal(bench_try_pool(bench, NULL), 0);
}

/* Only what lies on the medium is known then. */
static inline void bench_close_adapter(struct bench *bench)
{
	bench->adapter->ops->close(bench->adapter);
	bench->adapter = NULL;
	assert_int_equal(bench->bent.places, 0);
	bench->held_places = 0;
	bench->shape.opens++;
}

static inline void bench_close(struct bench *bench)
{
	assert_int_equal(kvk_agent_stop(bench->agent, 20000000), 0);
	kvk_agent_free(bench->agent);
	if (bench->adapter)
		bench->adapter->ops->close(bench->adapter);
	bent_close(&bench->bent);
}

/* ---- a request ---------------------------------------------------------------------------------- */

struct ask {
	struct kvk_request request;
	struct iovec iov;
	uint8_t *data;
	unsigned answers;              /* of the operation: 1 in the end */
	int answered;                  /* what that was */
	unsigned dones;                /* of the request: 1 in the end, unless it never began */
	unsigned freed;
	sem_t finished;
};

static inline struct ask *ask_of(struct kvk_request *request)
{
	return kvk_container_of(request, struct ask, request);
}

static inline void ask_answer(struct kvk_op *op, int status)
{
	struct ask *ask = kvk_container_of(op, struct ask, request.op);

	ask->answers++;
	ask->answered = status;
}

static inline void ask_done(struct kvk_request *request)
{
	ask_of(request)->dones++;
	kvk_op_answer(&request->op, request->status);
}

static inline void ask_freed(struct kvk_request *request)
{
	ask_of(request)->freed++;
}

static inline void ask_finished(struct kvk_op *op)
{
	sem_post(&kvk_container_of(op, struct ask, request.op)->finished);
}

static inline void start_put(struct kvk_op *op)
{
	struct kvk_request *request = kvk_container_of(op, struct kvk_request, op);

	request->adapter->ops->put(request);
}

static inline void start_get(struct kvk_op *op)
{
	struct kvk_request *request = kvk_container_of(op, struct kvk_request, op);

	request->adapter->ops->get(request);
}

static inline void start_find(struct kvk_op *op)
{
	struct kvk_request *request = kvk_container_of(op, struct kvk_request, op);

	request->adapter->ops->find(request);
}

static inline void start_remove(struct kvk_op *op)
{
	struct kvk_request *request = kvk_container_of(op, struct kvk_request, op);

	request->adapter->ops->remove(request);
}

/* Of a key and a generation, and nowhere the same. */
static inline void ask_fill(uint8_t *data, uint64_t bytes, const char *key, unsigned generation)
{
	uint64_t mix = generation * UINT64_C(0x9e3779b97f4a7c15) + (uint8_t)key[0];

	for (uint64_t i = 0; i < bytes; i += sizeof(mix)) {
		mix = mix * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		memcpy(data + i, &mix, bytes - i < sizeof(mix) ? bytes - i : sizeof(mix));
	}
}

/* Room for bytes of payload, filled with the generation's; 0: not filled. */
static inline void ask_init(struct ask *ask, struct bench *bench, const char *key, uint64_t bytes, unsigned generation)
{
	struct kvk_request *request = &ask->request;

	memset(ask, 0, sizeof(*ask));
	ask->data = calloc(1, bytes + 1);
	assert_non_null(ask->data);
	if (generation)
		ask_fill(ask->data, bytes, key, generation);
	ask->iov = (struct iovec){ ask->data, bytes };
	request->adapter = bench->adapter;
	request->key = key;
	request->key_bytes = (uint32_t)strlen(key);
	assert_int_equal(kvk_key_digest(request->digest, bench->namespace_digest, key, request->key_bytes), 0);
	request->data = &ask->iov;
	request->data_count = 1;
	request->data_bytes = bytes;
	request->done = ask_done;
	request->freed = ask_freed;
	sem_init(&ask->finished, 0, 0);
}

static inline void ask_prepare(struct ask *ask, void (*start)(struct kvk_op *op))
{
	enum kvk_op_class class = start == start_put ? KVK_OP_WRITE : start == start_get ? KVK_OP_READ : KVK_OP_LIGHT;
	struct kvk_op *op = &ask->request.op;

	kvk_op_init(op, class, UINT64_MAX / 2, ask);
	op->start = start;
	op->answer = ask_answer;
	op->finished = ask_finished;
}

static inline void ask_wait(struct ask *ask)
{
	while (sem_wait(&ask->finished))
		assert_int_equal(errno, EINTR);
	assert_int_equal(ask->answers, 1);
	assert_int_equal(ask->dones, 1);
}

/* Carries it out, to the end. */
static inline void ask_run(struct ask *ask, struct bench *bench, void (*start)(struct kvk_op *op))
{
	struct kvk_link ops;

	ask_prepare(ask, start);
	bench->bent.request = &ask->request;
	kvk_list_init(&ops);
	kvk_list_push(&ops, &ask->request.op.link);
	kvk_agent_submit(bench->agent, &ops);
	ask_wait(ask);
	/* What is held is let go of when it is over. */
	assert_int_equal(bench->bent.places, bench->held_places);
}

static inline void ask_end(struct ask *ask)
{
	free(ask->data);
	sem_destroy(&ask->finished);
}

/* Short forms. */
static inline int bench_put(struct bench *bench, const char *key, uint64_t bytes, unsigned generation)
{
	struct ask ask;

	ask_init(&ask, bench, key, bytes, generation);
	ask_run(&ask, bench, start_put);
	ask_end(&ask);
	return ask.request.status;
}

#define BENCH_GENERATIONS 10

/* The generation that is loaded, or -errno. */
static inline int bench_get(struct bench *bench, const char *key, uint64_t bytes)
{
	uint8_t *expected = malloc(bytes + 1);
	int found = 0;
	struct ask ask;

	assert_non_null(expected);
	ask_init(&ask, bench, key, bytes, 0);
	ask.request.deliver = true;
	ask.request.keep = true;
	ask_run(&ask, bench, start_get);
	for (unsigned generation = 1; ask.request.status == 0 && !found && generation < BENCH_GENERATIONS; generation++) {
		ask_fill(expected, bytes, key, generation);
		if (!memcmp(ask.data, expected, bytes))
			found = (int)generation;
	}
	if (ask.request.status == 0 && !found)
		fail_msg("%s: a load with bytes that nobody stored", key);
	ask_end(&ask);
	free(expected);
	return ask.request.status ? ask.request.status : found;
}

/* Where the adapter keeps it. */
static inline void bench_name(struct bench *bench, char name[KVK_NAME_BYTES_MAX], const char *key)
{
	uint8_t digest[KVK_DIGEST_BYTES];
	uint32_t bytes = (uint32_t)strlen(key);

	assert_int_equal(kvk_key_digest(digest, bench->namespace_digest, key, bytes), 0);
	assert_int_equal(kvk_name_make(name, &bench->options.layout, digest, key, bytes), 0);
}

#endif
