/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A get, and a find, which is a get of the footer alone:
 *
 *   hold the run --> PROOF --> [ once more ] --> [ ERASE ] --> let go, done(), finished
 *
 * While it is held its slots are not used again. Its footer may be zeroed meanwhile, by a remove: then it is a miss.
 */
#include <errno.h>
#include <string.h>

#include "adapter/pool/pool.h"
#include "util/alloc.h"

struct get {
	struct kvk_request *request;
	bool held;
	bool again;                    /* damaged once, being read once more */
	int status;                    /* the answer, after erasing */
	uint32_t reason;
	struct kvk_erase erase;
	struct kvk_look look;
};

/* ---- the rules of the proof --------------------------------------------------------------------- */

static void open_run(struct kvk_proof *proof)
{
	struct kvk_look *look = kvk_container_of(proof, struct kvk_look, proof);
	struct kvk_pool *pool = kvk_pool_of_request(proof->request);

	proof->place = kvk_pool_place(pool, &look->run);
	memset(&proof->stat, 0, sizeof(proof->stat));
	proof->end_bytes = kvk_pool_end_bytes(pool, &look->run);
	proof->most_bytes = kvk_pool_run_bytes(pool, &look->run);
	proof->least_bytes = proof->most_bytes - pool->shape.slot_bytes + 1;
	kvk_proof_read(proof, false);
}

static enum kvk_verdict judge(const struct kvk_proof *proof, const uint8_t digest[KVK_DIGEST_BYTES])
{
	const struct kvk_look *look = kvk_container_of(proof, struct kvk_look, proof);
	const struct kvk_request *request = proof->request;

	/* Whole, but not what was put there last. */
	if (!kvk_pool_is_of_run(kvk_pool_of_request(request), &proof->footer, &look->run))
		return KVK_VERDICT_ABSENT;
	if (request->name)
		return KVK_VERDICT_PROVEN;
	if (memcmp(digest, request->digest, KVK_DIGEST_BYTES) ||
	    (request->key && (proof->footer.key_bytes != request->key_bytes ||
			      memcmp(proof->footer.key, request->key, request->key_bytes))))
		return KVK_VERDICT_COLLISION;
	return KVK_VERDICT_PROVEN;
}

const struct kvk_proof_rules kvk_pool_proof_rules = {
	.open = open_run,
	.judge = judge,
};

/* ---- the steps ---------------------------------------------------------------------------------- */

static void get_answer(struct get *get, int status, uint32_t reason)
{
	struct kvk_request *request = get->request;

	/* First, so that who puts as soon as it is answered finds the slots of what left meanwhile. */
	if (get->held)
		kvk_pool_map_drop(&kvk_pool_of_request(request)->map, &get->look.run);
	kvk_proof_release(&get->look.proof);
	kvk_request_done(request, status, reason);
	kvk_mem_free(get);
	kvk_op_finish(&request->op);
}

static bool get_hold(struct get *get)
{
	struct kvk_request *request = get->request;
	struct kvk_pool *pool = kvk_pool_of_request(request);
	uint32_t slot;

	if (get->held)
		kvk_pool_map_drop(&pool->map, &get->look.run);
	if (request->name)
		get->held = kvk_pool_name_parse(request->name, &slot) && slot < pool->shape.slots &&
			    kvk_pool_map_hold_at(&pool->map, slot, true, &get->look.run);
	else
		get->held = kvk_pool_map_hold(&pool->map, request->digest, &get->look.run);
	return get->held;
}

static void get_erased(struct kvk_erase *erase)
{
	struct get *get = kvk_container_of(erase, struct get, erase);

	get->request->keep |= erase->status < 0;
	if (erase->status == 0)
		get->request->unlinked_bytes = kvk_pool_run_bytes(kvk_pool_of_request(get->request), &erase->run);
	get_answer(get, get->status, get->reason);
}

/* What is there is of no use: its slots are. */
static void get_forget(struct get *get, int status, uint32_t reason)
{
	struct kvk_request *request = get->request;
	struct kvk_pool *pool = kvk_pool_of_request(request);

	if (!kvk_pool_map_leave(&pool->map, &get->look.run)) {
		get_answer(get, -ENOENT, KVK_REASON_ABSENT);
		return;
	}
	get->status = status;
	get->reason = reason;
	get->erase = (struct kvk_erase){ .request = request, .run = get->look.run, .done = get_erased };
	kvk_erase_start(&get->erase);
}

static void get_damaged(struct get *get)
{
	struct kvk_request *request = get->request;
	struct kvk_pool *pool = kvk_pool_of_request(request);

	if (!kvk_pool_map_is_present(&pool->map, &get->look.run)) {
		get_answer(get, -ENOENT, KVK_REASON_ABSENT);
	} else if (!get->again) {
		/* A transfer may have gone wrong where the medium is right. */
		get->again = true;
		atomic_fetch_add(&request->adapter->counts.rereads, 1);
		kvk_proof_start(&get->look.proof);
	} else if (request->keep) {
		get_answer(get, -EBADMSG, KVK_REASON_DAMAGED);
	} else {
		get_forget(get, -EBADMSG, KVK_REASON_DAMAGED);
	}
}

static void get_judged(struct kvk_proof *proof)
{
	struct get *get = kvk_container_of(proof, struct get, look.proof);
	struct kvk_request *request = get->request;
	uint32_t reason;
	int status;

	switch (proof->verdict) {
	case KVK_VERDICT_PROVEN:
		request->outcome = KVK_OUTCOME_FOUND;
		request->moved_bytes = proof->delivered_bytes;
		if (!request->again || !request->again(request)) {
			get_answer(get, 0, KVK_REASON_NONE);
			return;
		}
		request->outcome = KVK_OUTCOME_NONE;
		if (get_hold(get))
			kvk_proof_start(proof);
		else
			get_answer(get, -ENOENT, KVK_REASON_ABSENT);
		return;
	case KVK_VERDICT_ABSENT:
		if (request->keep)
			get_answer(get, -ENOENT, KVK_REASON_ABSENT);
		else
			get_forget(get, -ENOENT, KVK_REASON_ABSENT);
		return;
	case KVK_VERDICT_DAMAGED:
		get_damaged(get);
		return;
	default:
		status = kvk_proof_miss(proof, &reason);
		get_answer(get, status, reason);
		return;
	}
}

static void get_start(struct kvk_request *request, enum kvk_proof_depth depth)
{
	struct get *get = kvk_mem_alloc(sizeof(*get));

	if (!get) {
		kvk_request_done(request, -ENOMEM, KVK_REASON_NO_MEMORY);
		kvk_op_finish(&request->op);
		return;
	}
	get->request = request;
	get->held = false;
	get->again = false;
	kvk_proof_init(&get->look.proof, request, NULL, depth, get_judged);
	get->look.proof.deliver = request->deliver;
	if (get_hold(get))
		kvk_proof_start(&get->look.proof);
	else
		get_answer(get, -ENOENT, KVK_REASON_ABSENT);
}

void kvk_pool_get(struct kvk_request *request)
{
	get_start(request, KVK_PROOF_WHOLE);
}

void kvk_pool_find(struct kvk_request *request)
{
	get_start(request, KVK_PROOF_FOOTER);
}
