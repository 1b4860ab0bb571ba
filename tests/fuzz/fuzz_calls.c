/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes as calls of a store, each of which must answer what the model of tests/unit/store_model.h says: puts, gets of ranges,
 * lookups that pin, unpins, removes, damage and losses behind the store's back, lists from any cursor, evictions, changes of the
 * cap, and closing and opening again. One thread asks, and waits for every answer, so that the same bytes do the same.
 *
 * The first byte says which store: in memory or on a file system in memory, with which cap, with a policy or without. Each call is
 * a byte and what the model draws for it from the bytes that follow.
 */
#include "support/skip.h"

/* Two blocks, and no more to fill and to look through. */
#define MODEL_OBJECT_BYTES 70000u

#include "fuzz.h"

#include <jansson.h>

#include "unit/store_model_calls.h"

#define OPTIONS "\"lanes\": 1, \"memory_mb\": 16, \"min_free_gb\": 0"

enum { CALLS_MAX = 48, PAGE_ENTRIES = 16, TENANTS = 6 };

/* ---- lists -------------------------------------------------------------------------------------- */

static bool is_asked_for(const struct object *object, const struct kvk_list_query *query)
{
	struct kvk_key_fields fields = { .struct_bytes = sizeof(fields) };
	uint8_t hash[KVK_KEY_BYTES_MAX / 2];
	bool known = object->damage != FOOTER_DAMAGED;

	if (!object->there || (query->cursor && strcmp(object->name, query->cursor) <= 0))
		return false;
	if (query->prefix.bytes && (!known || object->key.bytes < query->prefix.bytes ||
				    memcmp(object->key.data, query->prefix.data, query->prefix.bytes)))
		return false;
	if (!query->salt.bytes)
		return true;
	return known && !kvk_key_decode(&fields, &object->key, hash, sizeof(hash)) &&
	       fields.salt.bytes == query->salt.bytes && !memcmp(fields.salt.data, query->salt.data, query->salt.bytes);
}

/* Pages of any length, from any cursor on: each object that is asked for once, in the order of names. */
static void run_list(struct model *model)
{
	static struct kvk_list_entry entries[PAGE_ENTRIES];
	struct kvk_list_query query = { .struct_bytes = sizeof(query) };
	uint32_t page = 1 + (uint32_t)model_draw(model, PAGE_ENTRIES), choice = (uint32_t)model_draw(model, 256);
	const struct object *object = &model->objects[model_draw(model, MODEL_KEYS)];
	char salt[16], last[256] = "", start[256] = "", *cursor = NULL;
	uint64_t wanted = 0, listed = 0;

	if (choice & 1)
		query.prefix = (struct kvk_key){ object->key.data, (uint32_t)model_draw(model, object->key.bytes + 1) };
	if (choice & 2) {
		snprintf(salt, sizeof(salt), "tenant%u", (unsigned)model_draw(model, 6));
		query.salt = bed_key(salt);
	}
	if (choice & 4)
		snprintf(start, sizeof(start), "%s", object->name);
	if (choice & 8)
		start[model_draw(model, 70)] = (char)model_draw(model, 256);
	if (choice & 12)
		cursor = strdup(start);
	query.cursor = cursor;
	for (unsigned i = 0; i < MODEL_KEYS; i++)
		wanted += is_asked_for(&model->objects[i], &query);
	do {
		char *next = NULL;
		int count;

		for (unsigned i = 0; i < PAGE_ENTRIES; i++)
			entries[i].struct_bytes = sizeof(entries[i]);
		query.cursor = cursor;
		count = kvk_store_list(model->bed.store, &query, entries, page, &next);
		assert_in_range(count, 0, page);
		for (int i = 0; i < count; i++) {
			assert_true(strcmp(last, entries[i].name) < 0);
			strcpy(last, entries[i].name);
			assert_true(is_asked_for(model_find(model, &entries[i]), &query));
			model_check_entry(model, &entries[i]);
		}
		listed += (uint64_t)count;
		free(cursor);
		cursor = next;
	} while (cursor);
	assert_int_equal(listed, wanted);
}

/* ---- figures ------------------------------------------------------------------------------------ */

static uint32_t tenant_of(const struct object *object)
{
	struct kvk_key_fields fields = { .struct_bytes = sizeof(fields) };
	uint8_t hash[KVK_KEY_BYTES_MAX / 2];

	/* 0: of none. */
	if (kvk_key_decode(&fields, &object->key, hash, sizeof(hash)))
		return 0;
	return 1 + (uint32_t)(((const char *)fields.salt.data)[fields.salt.bytes - 1] - '0');
}

/* Each tenant has the objects that the store knows of, and the status is JSON. */
static void run_figures(struct model *model)
{
	uint64_t objects[TENANTS] = { 0 };
	struct kvk_share shares[TENANTS];
	char *status = NULL;
	json_t *root;
	int count;

	for (unsigned i = 0; i < MODEL_KEYS; i++)
		objects[tenant_of(&model->objects[i])] += model->objects[i].known;
	for (unsigned i = 0; i < TENANTS; i++)
		shares[i].struct_bytes = sizeof(shares[i]);
	count = kvk_store_shares(model->bed.store, KVK_BY_TENANT, shares, TENANTS);
	assert_in_range(count, 0, TENANTS);
	for (int i = 0; i < count; i++) {
		uint32_t tenant = shares[i].name_bytes ? 1 + (uint32_t)(shares[i].name[shares[i].name_bytes - 1] - '0') : 0;

		assert_in_range(tenant, 0, TENANTS - 1);
		assert_int_equal(shares[i].objects, objects[tenant]);
		objects[tenant] = 0;
	}
	for (unsigned i = 0; i < TENANTS; i++)
		assert_int_equal(objects[i], 0);
	assert_int_equal(kvk_store_status(model->bed.store, &status), 0);
	root = json_loads(status, JSON_REJECT_DUPLICATES, NULL);
	assert_true(json_is_object(root));
	json_decref(root);
	kvk_free(status);
}

/* ---- the cap ------------------------------------------------------------------------------------ */

static void run_cap(struct model *model)
{
	static const uint64_t caps[] = { 0, 65536, 131072, 500000, 1000000, 5000000, 65535, 1 };
	uint64_t cap_bytes = caps[model_draw(model, 8)];
	int err = kvk_store_set_cap(model->bed.store, cap_bytes);

	if (cap_bytes > 0 && cap_bytes < 65536) {
		assert_int_equal(err, -EINVAL);
		return;
	}
	assert_int_equal(err, 0);
	model->cap_bytes = cap_bytes;
	assert_int_equal(bed_usage(model->bed.store).cap_bytes, cap_bytes);
}

/* ---- evictions ---------------------------------------------------------------------------------- */

/*
 * An eviction may make a store that is not the keeper learn what lies there, and forget what does not. Which of both it did, it
 * says when it is asked for everything.
 */
static void learn_all(struct model *model)
{
	for (unsigned i = 0; i < MODEL_KEYS; i++) {
		struct object *object = &model->objects[i];
		struct kvk_result result = kit_lookup(model->bed.store, object->text, 0);

		switch (result.status) {
		case 0:
			assert_true(object->there || object->known);
			if (!object->known)
				assert_true(object->damage != FOOTER_DAMAGED && result.object_bytes == object->facts.bytes);
			model_learn(model, object);
			break;
		case -ENOENT:
			assert_false(object->there);
			model_lost(model, object);
			break;
		default:
			assert_int_equal(result.status, -EBADMSG);
			assert_true(object->there && object->damage == FOOTER_DAMAGED);
			model_settle_damaged(model, object);
			model_lost(model, object);
			break;
		}
	}
}

/* Gone is what it says, nothing that is pinned, and all of that is credited. */
static void run_evict(struct model *model, bool has_policy)
{
	uint64_t wanted = model_draw(model, 1 << 20), evicted = UINT64_MAX, gone = 0;
	int err = kvk_store_evict(model->bed.store, wanted, &evicted);

	if (!has_policy) {
		assert_int_equal(err, -ENOTSUP);
		assert_true(evicted == UINT64_MAX);
		return;
	}
	assert_int_equal(err, 0);
	for (unsigned i = 0; i < MODEL_KEYS; i++) {
		struct object *object = &model->objects[i];

		if (!object->there || model_on_medium(model, object, NULL))
			continue;
		assert_int_equal(object->pins, 0);
		gone += kvk_page_ceil(object->file_bytes);
		object->there = false;
		model_lost(model, object);
	}
	assert_int_equal(evicted, gone);
	model->charged -= gone;
	learn_all(model);
}

/* ---- a run -------------------------------------------------------------------------------------- */

static void run_call(struct model *model, bool has_policy)
{
	uint32_t choice = (uint32_t)model_draw(model, 256), count = 1 + (uint32_t)model_draw(model, MODEL_BATCH);

	switch (choice % 16) {
	case 0 ... 3:
		run_puts(model, count);
		break;
	case 4 ... 6:
		run_gets(model, count);
		break;
	case 7:
	case 8:
		run_lookups(model, count, choice & 16, choice & 32);
		break;
	case 9:
		run_unpins_or_removes(model, count, false);
		break;
	case 10:
		run_unpins_or_removes(model, count, true);
		break;
	case 11:
		model_damage(model, &model->objects[model_draw(model, MODEL_KEYS)]);
		break;
	case 12:
		model_vanish(model, &model->objects[model_draw(model, MODEL_KEYS)]);
		break;
	case 13:
		run_list(model);
		run_figures(model);
		break;
	case 14:
		/* With a policy a cap is kept in the background. */
		if (has_policy || choice & 16)
			run_evict(model, has_policy);
		else
			run_cap(model);
		break;
	default:
		model_reopen(model);
		break;
	}
	model_check(model);
}

/* What the asserts of the model do when none of cmocka's tests runs: the input is to be kept. */
static void begin(void)
{
	setenv("CMOCKA_TEST_ABORT", "1", 1);
	kit_in_memory();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static struct model model;
	bool has_policy;
	uint8_t choice;

	if (bytes < 2)
		return 0;
	begin();
	choice = data[0];
	has_policy = choice & 1;
	model = (struct model){ .input = data + 1, .input_bytes = bytes - 1, .random = choice };
	/* Whatever else lies on the medium. */
	model.options = has_policy ? OPTIONS ", \"eviction\": {\"eviction_policy\": \"LRU\"}" : OPTIONS;
	model.capacity = has_policy ? "0" : NULL;
	model_setup(&model, choice & 2 ? BED_THREADS : BED_RAM);
	for (unsigned i = 0; i < CALLS_MAX && model.input_bytes > 0; i++)
		run_call(&model, has_policy);
	model_check_list(&model);
	/* It takes a moment until the store has become the keeper. */
	if (choice >= 0xf8)
		model_keep(&model);
	model_release(&model);
	return 0;
}
