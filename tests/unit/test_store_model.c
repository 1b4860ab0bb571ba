/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store against a model of it: batches of random requests, restarts, damage and losses behind its back.
 *
 * Method: the model (store_model.h) holds for each key what lies on the medium and what the store has learnt of it, and so
 * predicts every answer: status, reason, lengths, bytes. After each batch the bytes in use, the objects and the pins
 * must be the model's; now and then a list must be, too. KVK_SEED and KVK_STEPS repeat a run. Runs that failed stand in
 * tests/corpus/model_seeds and come first.
 */
#include "unit/store_model.h"

/* ---- requests ------------------------------------------------------------------------------------- */

/*
 * What was stored is there. What was refused had no room for certain: when it was refused nothing else was under way, and nothing
 * is given back after that but by those of the batch that take a damaged object's place, each what that one was charged.
 */
static void settle_puts(struct model *model, struct object **written, const struct facts *facts, uint32_t count)
{
	int64_t replaced = 0;

	for (uint32_t i = 0; i < count; i++) {
		struct object *object = written[i];

		if (!object || model->refused[i])
			continue;
		replaced += object->there ? (int64_t)kvk_page_ceil(object->file_bytes) : 0;
		model->charged -= object->there ? kvk_page_ceil(object->file_bytes) : 0;
		object->facts = facts[i];
		object->there = true;
		object->damage = WHOLE;
		object->file_bytes = model_charge(object, &facts[i]);
		model->charged += object->file_bytes;
		model_learn(model, object);
	}
	for (uint32_t i = 0; i < count; i++) {
		int64_t room = model_room(model), charge = written[i] ? (int64_t)model_charge(written[i], &facts[i]) : 0;

		if (written[i] && model->refused[i] && room >= charge + replaced)
			fail_msg("refused %" PRId64 " bytes with room for %" PRId64 ", %" PRId64 " of it replaced; %" PRIu64
				 " leased, %" PRIu64 " used", charge, room, replaced, bed_usage(model->bed.store).leased_bytes,
				 bed_usage(model->bed.store).used_bytes);
	}
}

static void run_puts(struct model *model, uint32_t count)
{
	static struct iovec pieces[MODEL_BATCH][4];
	struct kvk_put_item items[MODEL_BATCH];
	struct expected expected[MODEL_BATCH];
	struct object *written[MODEL_BATCH] = { NULL };
	struct facts facts[MODEL_BATCH];
	int64_t room = model_room(model), wanted = 0;

	memset(items, 0, sizeof(items));
	for (uint32_t i = 0; i < count; i++) {
		struct object *object = model_pick(model, i);
		struct facts new = model_new_facts(model, object);
		struct kvk_put_item *item = &items[i];
		uint64_t charge = model_charge(object, &new);

		item->struct_bytes = sizeof(*item);
		item->flags = kit_below(&model->random, 4) == 0 ? KVK_MEM_HELD : 0;
		item->key = object->key;
		item->depth = new.depth;
		item->user = i;
		if (new.parent >= 0)
			item->parent = model->objects[new.parent].key;
		item->meta_bytes = new.meta_bytes;
		bed_fill(model->metas[i], new.meta_bytes, object->key, new.generation, 0);
		item->meta = model->metas[i];
		bed_fill(model->memory[i], new.bytes, object->key, new.generation, 0);
		item->data = pieces[i];
		item->data_count = model_pieces(model, pieces[i], 4, model->memory[i], new.bytes);
		expected[i] = (struct expected){ .object_bytes = UINT64_MAX };

		if (object->known) {
			expected[i].reason = KVK_REASON_PRESENT;
			continue;
		}
		wanted += (int64_t)charge;
		if (object->there && object->damage != FOOTER_DAMAGED) {
			/* Found there; what was reserved for it goes back. */
			expected[i].reason = KVK_REASON_PRESENT;
			model_learn(model, object);
			continue;
		}
		expected[i].bytes = new.bytes;
		facts[i] = new;
		written[i] = object;
	}
	/* Which of them get the room that is left, is not said. */
	for (uint32_t i = 0; i < count; i++)
		expected[i].or_no_room = written[i] && wanted > room;
	model_submit(model, kvk_store_put(model->bed.store, items, count, 0), KVK_QUEUE_PUT, count, expected);
	settle_puts(model, written, facts, count);
}

static void expect_get(struct model *model, struct object *object, const struct kvk_get_item *item, uint64_t room,
		       struct expected *expected)
{
	const struct facts *facts = &object->facts;
	uint64_t end = item->range_bytes ? item->offset_bytes + item->range_bytes : facts->bytes;
	bool peek = item->flags & KVK_GET_PEEK;

	*expected = (struct expected){ .object_bytes = UINT64_MAX };
	if (!object->there) {
		*expected = (struct expected){ .status = -ENOENT, .reason = KVK_REASON_ABSENT, .object_bytes = UINT64_MAX };
		model_lost(model, object);
		return;
	}
	if (object->damage == FOOTER_DAMAGED)
		goto damaged;
	if (item->offset_bytes > facts->bytes || end > facts->bytes) {
		expected->status = -EINVAL;
		expected->reason = KVK_REASON_ARGUMENT;
		return;
	}
	if (!(item->flags & KVK_GET_VERIFY) && end - item->offset_bytes > room) {
		expected->status = -EMSGSIZE;
		expected->reason = KVK_REASON_ARGUMENT;
		return;
	}
	if (object->damage == PAYLOAD_DAMAGED && end > item->offset_bytes &&
	    object->damage_at / KVK_BLOCK_BYTES_MIN >= item->offset_bytes / KVK_BLOCK_BYTES_MIN &&
	    object->damage_at / KVK_BLOCK_BYTES_MIN <= (end - 1) / KVK_BLOCK_BYTES_MIN)
		goto damaged;
	expected->bytes = item->flags & KVK_GET_VERIFY ? 0 : end - item->offset_bytes;
	expected->object_bytes = facts->bytes;
	expected->object = object;
	expected->offset = item->offset_bytes;
	expected->meta = true;
	if (!peek)
		model_learn(model, object);
	return;

damaged:
	expected->status = -EBADMSG;
	expected->reason = KVK_REASON_DAMAGED;
	expected->aside = peek ? NULL : object;
}

static void run_gets(struct model *model, uint32_t count)
{
	static struct iovec pieces[MODEL_BATCH][4];
	struct kvk_get_item items[MODEL_BATCH];
	struct expected expected[MODEL_BATCH];

	memset(items, 0, sizeof(items));
	for (uint32_t i = 0; i < count; i++) {
		struct object *object = model_pick(model, i);
		struct kvk_get_item *item = &items[i];
		uint64_t bytes = object->facts.bytes, room;

		item->struct_bytes = sizeof(*item);
		item->key = object->key;
		item->user = i;
		item->meta = model->metas[i];
		item->meta_bytes = KVK_META_BYTES_MAX;
		if (kit_below(&model->random, 4) == 0)
			item->flags |= KVK_MEM_HELD;
		if (kit_below(&model->random, 6) == 0)
			item->flags |= KVK_GET_PEEK;
		if (kit_below(&model->random, 8) == 0)
			item->flags = (item->flags & ~(uint32_t)KVK_MEM_HELD) | KVK_GET_VERIFY;
		if (kit_below(&model->random, 3) == 0) {
			item->offset_bytes = kit_below(&model->random, bytes + 2);
			item->range_bytes = kit_below(&model->random, bytes + 2);
		}
		room = item->range_bytes ? item->range_bytes : bytes;
		if (kit_below(&model->random, 16) == 0)
			room = kit_below(&model->random, bytes + 2);
		else if (kit_below(&model->random, 4) == 0)
			room += kit_below(&model->random, 5000);
		if (room > MODEL_OBJECT_BYTES)
			room = MODEL_OBJECT_BYTES;
		memset(model->memory[i], UNTOUCHED, MODEL_OBJECT_BYTES);
		memset(model->metas[i], UNTOUCHED, KVK_META_BYTES_MAX);
		item->data = pieces[i];
		item->data_count = model_pieces(model, pieces[i], 4, model->memory[i], room);
		expect_get(model, object, item, room, &expected[i]);
		expected[i].room = room;
	}
	model_submit(model, kvk_store_get(model->bed.store, items, count, 0), KVK_QUEUE_GET, count, expected);
}

static void expect_lookup(struct model *model, struct object *object, bool pin, bool meta, struct expected *expected)
{
	*expected = (struct expected){ .object_bytes = UINT64_MAX };
	if (object->known && !meta) {
		expected->bytes = expected->object_bytes = object->known_bytes;
		object->pins += pin;
	} else if (!object->there) {
		expected->status = -ENOENT;
		expected->reason = KVK_REASON_ABSENT;
		model_lost(model, object);
	} else if (object->damage == FOOTER_DAMAGED) {
		expected->status = -EBADMSG;
		expected->reason = KVK_REASON_DAMAGED;
		expected->aside = object;
	} else {
		expected->bytes = expected->object_bytes = object->facts.bytes;
		expected->object = meta ? object : NULL;
		expected->meta = meta;
		model_learn(model, object);
		object->pins += pin;
	}
}

static void run_lookups(struct model *model, uint32_t count, bool pin, bool meta)
{
	struct kvk_key_item items[MODEL_BATCH];
	struct expected expected[MODEL_BATCH];

	memset(items, 0, sizeof(items));
	for (uint32_t i = 0; i < count; i++) {
		struct object *object = model_pick(model, i);

		items[i] = (struct kvk_key_item){ .struct_bytes = sizeof(items[0]), .key = object->key, .user = i,
						  .flags = pin ? KVK_LOOKUP_PIN : 0 };
		memset(model->metas[i], UNTOUCHED, KVK_META_BYTES_MAX);
		if (meta) {
			items[i].meta = model->metas[i];
			items[i].meta_bytes = KVK_META_BYTES_MAX;
		}
		expect_lookup(model, object, pin, meta, &expected[i]);
	}
	model_submit(model, kvk_store_lookup(model->bed.store, items, count, 0), KVK_QUEUE_LOOKUP, count, expected);
}

static void run_unpins_or_removes(struct model *model, uint32_t count, bool remove)
{
	struct kvk_key_item items[MODEL_BATCH];
	struct expected expected[MODEL_BATCH];

	memset(items, 0, sizeof(items));
	for (uint32_t i = 0; i < count; i++) {
		struct object *object = model_pick(model, i);

		items[i] = (struct kvk_key_item){ .struct_bytes = sizeof(items[0]), .key = object->key, .user = i };
		expected[i] = (struct expected){ .object_bytes = UINT64_MAX };
		if (!remove) {
			object->pins -= object->pins > 0;
		} else if (object->pins > 0) {
			expected[i].status = -EBUSY;
			expected[i].reason = KVK_REASON_PINNED;
		} else {
			if (!object->there) {
				expected[i].status = -ENOENT;
				expected[i].reason = KVK_REASON_ABSENT;
			} else {
				model->charged -= kvk_page_ceil(object->file_bytes);
			}
			object->there = false;
			model_lost(model, object);
		}
	}
	if (remove)
		model_submit(model, kvk_store_remove(model->bed.store, items, count, 0), KVK_QUEUE_PUT, count, expected);
	else
		model_submit(model, kvk_store_unpin(model->bed.store, items, count), KVK_QUEUE_LOOKUP, count, expected);
}

/* Canceled while it runs: each of its items is stored wholly or not at all, and the medium says which. */
static void run_canceled_puts(struct model *model, uint32_t count)
{
	struct kvk_put_item items[MODEL_BATCH];
	struct object *objects[MODEL_BATCH];
	struct iovec pieces[MODEL_BATCH];
	struct facts facts[MODEL_BATCH];
	uint32_t chosen = 0;
	int64_t task;

	memset(items, 0, sizeof(items));
	for (uint32_t i = 0; i < count; i++) {
		struct object *object = model_pick(model, i);

		if (object->there || object->known)
			continue;
		facts[chosen] = model_new_facts(model, object);
		facts[chosen].parent = -1;
		facts[chosen].depth = 0;
		facts[chosen].meta_bytes = 0;
		bed_fill(model->memory[chosen], facts[chosen].bytes, object->key, facts[chosen].generation, 0);
		pieces[chosen] = (struct iovec){ model->memory[chosen], facts[chosen].bytes };
		items[chosen] = (struct kvk_put_item){ .struct_bytes = sizeof(items[0]), .key = object->key,
						       .data = &pieces[chosen], .data_count = 1, .user = chosen };
		objects[chosen++] = object;
	}
	if (chosen == 0)
		return;
	task = kvk_store_put(model->bed.store, items, chosen, 0);
	assert_true(task > 0);
	kvk_store_cancel(model->bed.store, task);
	for (uint32_t i = 0; i < chosen; i++) {
		struct kvk_result result = { .struct_bytes = sizeof(result) };

		assert_true(bed_next(model->bed.store, KVK_QUEUE_PUT, &result));
		assert_true(result.status == 0 || result.status == -ECANCELED || result.status == -ENOSPC);
	}
	model_wait_for_writes(model);
	for (uint32_t i = 0; i < chosen; i++) {
		if (!model_on_medium(model, objects[i], NULL))
			continue;
		objects[i]->facts = facts[i];
		objects[i]->there = true;
		objects[i]->damage = WHOLE;
		objects[i]->file_bytes = model_charge(objects[i], &facts[i]);
		model->charged += objects[i]->file_bytes;
		model_learn(model, objects[i]);
	}
}

/* ---- runs ------------------------------------------------------------------------------------------- */

static void run_step(struct model *model)
{
	uint32_t count = 1 + (uint32_t)kit_below(&model->random, MODEL_BATCH);
	uint64_t choice = kit_below(&model->random, 1000);

	if (choice < 300)
		run_puts(model, count);
	else if (choice < 600)
		run_gets(model, count);
	else if (choice < 740)
		run_lookups(model, count, choice < 690, choice % 3 == 0);
	else if (choice < 830)
		run_unpins_or_removes(model, count, false);
	else if (choice < 890)
		run_unpins_or_removes(model, count, true);
	else if (choice < 910)
		run_canceled_puts(model, count);
	else if (choice < 960)
		model_damage(model, &model->objects[kit_below(&model->random, MODEL_KEYS)]);
	else if (choice < 980)
		model_vanish(model, &model->objects[kit_below(&model->random, MODEL_KEYS)]);
	else if (choice < 994)
		model_check_list(model);
	else
		model_reopen(model);
	model->steps += count;
	model_check(model);
}

static void run_seed(enum bed_kind kind, uint64_t seed, uint64_t steps)
{
	struct model model;

	model_setup(&model, kind, seed);
	while (model.answers < steps)
		run_step(&model);
	model_check_list(&model);
	printf("# %s, KVK_SEED=%" PRIu64 ": %" PRIu64 " requests, cap %" PRIu64 " bytes; %" PRIu64 " answers checked, %" PRIu64
	       " hits, %" PRIu64 " damaged, %" PRIu64 " restarts; 0 wrong\n", bed_kind_name(kind), seed, model.steps,
	       model.cap_bytes, model.answers, model.hits, model.damaged, model.restarts);
	proof_tell_more(8, model.answers, "answers", atomic_load(&bed_wrong_answers), "hits=%" PRIu64 " damaged=%" PRIu64
			" restarts=%" PRIu64, model.hits, model.damaged, model.restarts);
	model_release(&model);
}

/* Beside this source, or where the environment says. */
static FILE *corpus_open(void)
{
	const char *folder = getenv("KVK_CORPUS_DIR");
	const char *slash = strrchr(__FILE__, '/');
	char path[PATH_MAX];

	if (folder)
		snprintf(path, sizeof(path), "%s/model_seeds", folder);
	else
		snprintf(path, sizeof(path), "%.*s/../corpus/model_seeds", (int)(slash - __FILE__), __FILE__);
	return fopen(path, "r");
}

static void corpus(void **state)
{
	FILE *file = corpus_open();
	uint64_t seed, steps;
	unsigned runs = 0;
	char line[256];

	if (!file)
		SKIP("no tests/corpus here (KVK_CORPUS_DIR says where)");
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%" SCNu64 " %" SCNu64, &seed, &steps) != 2)
			continue;
		run_seed(BED_RAM, seed, steps);
		run_seed(BED_THREADS, seed, steps);
		runs++;
	}
	fclose(file);
	assert_true(runs > 0);
}

static void random_requests(enum bed_kind kind, uint64_t steps)
{
	uint64_t seed = kit_seed();

	/* Several seeds: each has its own cap, and its own fate. */
	steps = kit_number("KVK_STEPS", steps);
	for (unsigned i = 0; i < 4; i++)
		run_seed(kind, seed + i * 1000003, (steps + 3) / 4);
}

static void in_memory(void **state)
{
	random_requests(BED_RAM, 100000);
}

/* Through the page cache it is all the same which file system it is; what goes past it wants a disk. */
static void on_disk(void **state)
{
	struct bed *bed = *state;
	bool direct = bed->kind == BED_URING_DIRECT || bed->kind == BED_THREADS_DIRECT;
	bool chosen = getenv("KVK_TEST_DIR") != NULL;

	/* Is the mechanism to be had? */
	bed_open(bed, "");
	bed_close(bed);
	if (!direct && !chosen)
		kit_in_memory();
	random_requests(bed->kind, direct ? 10000 : 40000);
	if (!chosen)
		unsetenv("KVK_TEST_DIR");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(corpus),
		cmocka_unit_test(in_memory),
		BED_TESTS_POSIX(on_disk),
	};

	cmocka_set_test_filter(getenv("KVK_ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
