/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model of a store: what lies on its medium, what it has learnt of that, what its account says, and what it must answer.
 *
 * The store is not the keeper of its medium: the model holds that lock. So it learns only from what it is asked, and what
 * is done behind its back stays in the account, which makes both predictable. At the end it becomes the keeper, and finds
 * the truth.
 */
#ifndef KVK_TESTS_STORE_MODEL_H
#define KVK_TESTS_STORE_MODEL_H

#include "unit/store_kit.h"

#include "catalog/catalog_private.h"

#define MODEL_KEYS 160
#define MODEL_BATCH 12
#ifndef MODEL_OBJECT_BYTES
#define MODEL_OBJECT_BYTES 300000u     /* more than 65,537: a second block, and what is next to its edge */
#endif
#define UNTOUCHED 0xa5

/* What a put said. */
struct facts {
	uint32_t generation;
	uint64_t bytes;
	uint32_t meta_bytes;
	uint32_t depth;
	int parent;                    /* index of a key, or -1 */
};

enum damage { WHOLE = 0, PAYLOAD_DAMAGED, FOOTER_DAMAGED };

struct object {
	char text[64];
	struct kvk_key key;
	struct kvk_prefix prefix;      /* of its digest */
	char name[KVK_NAME_BYTES_MAX];
	/* On the medium: */
	bool there;
	enum damage damage;
	uint64_t damage_at;
	uint64_t file_bytes;
	struct facts facts;            /* of the last put, also of one that is gone */
	/* In the catalog: */
	bool known;
	uint64_t known_bytes;          /* logical length, when it was learnt */
	uint32_t pins;
};

struct expected {
	int status;
	uint32_t reason;
	uint64_t bytes;
	uint64_t object_bytes;         /* UINT64_MAX: not looked at */
	struct object *object;         /* a hit: whose bytes, from offset on */
	uint64_t offset;
	uint64_t room;                 /* the caller's memory; 0 where none was given */
	bool meta;
	struct object *aside;          /* damaged: may have been moved aside */
	bool or_no_room;               /* the batch does not fit as a whole: this one may be refused */
};

struct model {
	struct bed bed;
	struct kvk_backend *outside;   /* another hand on the same medium */
	uint64_t random;
	const uint8_t *input;          /* what is drawn comes from here ... */
	size_t input_bytes;            /* ... as far as it reaches; NULL: from random */
	const char *options;           /* of the store, besides its cap */
	const char *capacity;          /* "max_capacity_gb"; NULL: is drawn */
	uint64_t cap_bytes;
	uint64_t spec_cap_bytes;       /* it is this again after each open */
	uint64_t quarantined;          /* lies in quarantine */
	uint64_t charged;              /* what the account must say: all that was published and not unlinked by the store */
	uint64_t steps, answers, hits, damaged, restarts;
	char more[192];
	struct object objects[MODEL_KEYS];
	uint32_t first;                /* of the batch: its keys follow in steps, so that none comes twice */
	uint32_t stride;
	bool refused[MODEL_BATCH];     /* of the last batch: there was no room, as it may be */
	uint8_t *memory[MODEL_BATCH];
	uint8_t metas[MODEL_BATCH][KVK_META_BYTES_MAX];
};

/* A number below limit, which is at most 2^24. An input that is used up draws zeros. */
static inline uint64_t model_draw(struct model *model, uint64_t limit)
{
	uint64_t value = 0;

	if (!model->input)
		return kit_below(&model->random, limit);
	for (uint64_t reach = 1; reach < limit && model->input_bytes > 0; reach <<= 8) {
		value = value << 8 | *model->input++;
		model->input_bytes--;
	}
	return value % limit;
}

/* ---- the medium, behind the store's back --------------------------------------------------------------- */

static inline int64_t outside_run(struct model *model, struct kvk_xfer *xfer)
{
	model->outside->ops->run(model->outside, xfer);
	return xfer->result;
}

static inline bool model_on_medium(struct model *model, const struct object *object, uint64_t *bytes_ret)
{
	struct kvk_xfer xfer;

	kvk_xfer_init(&xfer, KVK_XFER_STAT_NAME, NULL, object->name);
	if (outside_run(model, &xfer))
		return false;
	if (bytes_ret)
		*bytes_ret = xfer.stat.bytes;
	return true;
}

static inline void outside_unlink(struct model *model, const struct object *object)
{
	struct kvk_xfer xfer;

	kvk_xfer_init(&xfer, KVK_XFER_UNLINK, NULL, object->name);
	assert_int_equal(outside_run(model, &xfer), 0);
}

static inline void outside_move(struct model *model, enum kvk_xfer_op op, struct kvk_place *place, uint8_t *data,
				uint64_t bytes)
{
	for (uint64_t at = 0; at < bytes;) {
		struct iovec iov = { data + at, bytes - at };
		struct kvk_xfer xfer;

		kvk_xfer_init(&xfer, op, place, NULL);
		xfer.iov = &iov;
		xfer.iov_count = 1;
		xfer.offset_bytes = at;
		assert_true(outside_run(model, &xfer) > 0);
		at += (uint64_t)xfer.result;
	}
}

/* Reads the file, or writes a new one in its place. */
static inline uint8_t *outside_read(struct model *model, const struct object *object, uint64_t bytes)
{
	uint8_t *data = malloc(bytes + 1);
	struct kvk_xfer xfer;

	kvk_xfer_init(&xfer, KVK_XFER_OPEN, NULL, object->name);
	assert_int_equal(outside_run(model, &xfer), 0);
	outside_move(model, KVK_XFER_READ, xfer.place, data, bytes);
	kvk_xfer_init(&xfer, KVK_XFER_CLOSE, xfer.place, NULL);
	outside_run(model, &xfer);
	return data;
}

static inline void outside_write(struct model *model, const struct object *object, uint8_t *data, uint64_t bytes)
{
	struct kvk_place *place;
	struct kvk_xfer xfer;

	outside_unlink(model, object);
	kvk_xfer_init(&xfer, KVK_XFER_CREATE, NULL, object->name);
	assert_int_equal(outside_run(model, &xfer), 0);
	place = xfer.place;
	outside_move(model, KVK_XFER_WRITE, place, data, bytes);
	kvk_xfer_init(&xfer, KVK_XFER_PUBLISH, place, object->name);
	assert_int_equal(outside_run(model, &xfer), 0);
	kvk_xfer_init(&xfer, KVK_XFER_CLOSE, place, NULL);
	outside_run(model, &xfer);
}

/* ---- what the store must have learnt --------------------------------------------------------------------- */

static inline void model_learn(struct model *model, struct object *object)
{
	if (object->known)
		return;
	object->known = true;
	object->known_bytes = object->facts.bytes;
}

static inline void model_lost(struct model *model, struct object *object)
{
	object->known = false;
}

/* What lies there. */
static inline uint64_t model_real(const struct model *model)
{
	uint64_t bytes = model->quarantined;

	for (unsigned i = 0; i < MODEL_KEYS; i++)
		bytes += model->objects[i].there ? kvk_page_ceil(model->objects[i].file_bytes) : 0;
	return bytes;
}

static inline int64_t model_room(const struct model *model)
{
	return model->cap_bytes ? (int64_t)model->cap_bytes - (int64_t)model->charged : INT64_MAX;
}

/* ---- batches ----------------------------------------------------------------------------------------------- */

/* The key of the ith item: distinct in a batch. */
static inline struct object *model_pick(struct model *model, uint32_t i)
{
	if (i == 0) {
		model->first = (uint32_t)model_draw(model, MODEL_KEYS);
		/* Odd and no multiple of five: it meets all 160 before one comes again. */
		model->stride = (uint32_t)model_draw(model, 16) * 10 + 1;
	}
	return &model->objects[(model->first + i * model->stride) % MODEL_KEYS];
}

static inline uint64_t model_size(struct model *model)
{
	switch (model_draw(model, 32)) {
	case 0:
		return 0;
	case 1 ... 3:
		return 1 + model_draw(model, 16);
	case 4 ... 6:
		return 4095 + model_draw(model, 3);
	case 7:
		return 65535 + model_draw(model, 3);
	case 8:
		return 1 + model_draw(model, MODEL_OBJECT_BYTES);
	default:
		return 1 + model_draw(model, 20000);
	}
}

static inline struct facts model_new_facts(struct model *model, const struct object *object)
{
	struct facts new = { .generation = object->facts.generation + 1, .bytes = model_size(model), .parent = -1 };

	if (model_draw(model, 3) == 0)
		new.meta_bytes = (uint32_t)model_draw(model, KVK_META_BYTES_MAX + 1);
	if (model_draw(model, 3) == 0) {
		new.parent = (int)model_draw(model, MODEL_KEYS);
		new.depth = (uint32_t)model_draw(model, 1000);
	}
	return new;
}

static inline uint64_t model_charge(const struct object *object, const struct facts *facts)
{
	struct kvk_footer footer = { .block_bytes = kvk_block_bytes_for(facts->bytes), .meta_bytes = facts->meta_bytes,
				     .key_bytes = object->key.bytes };

	footer.block_count = kvk_block_count_for(facts->bytes, footer.block_bytes);
	return kvk_page_ceil(facts->bytes) + kvk_footer_bytes(&footer);
}

/* Cuts bytes of memory into up to count pieces, some of them empty. */
static inline uint32_t model_pieces(struct model *model, struct iovec *pieces, uint32_t count, uint8_t *memory,
				    uint64_t bytes)
{
	uint32_t wanted = 1 + (uint32_t)model_draw(model, count);
	uint64_t at = 0;

	for (uint32_t i = 0; i < wanted; i++) {
		uint64_t part = i + 1 == wanted ? bytes - at : model_draw(model, bytes - at + 1);

		pieces[i] = (struct iovec){ .iov_base = memory + at, .iov_len = part };
		at += part;
	}
	return wanted;
}

static inline bool is_filled(const uint8_t *data, uint64_t bytes, uint8_t byte)
{
	return bytes == 0 || (data[0] == byte && !memcmp(data, data + 1, bytes - 1));
}

/* Damaged: the medium says whether it was moved aside. */
static inline void model_settle_damaged(struct model *model, struct object *object)
{
	if (model_on_medium(model, object, NULL))
		return;
	object->there = false;
	model_lost(model, object);
	model->quarantined += kvk_page_ceil(object->file_bytes);
}

static inline void model_judge(struct model *model, const struct kvk_result *result, const struct expected *expected)
{
	const uint8_t *memory = model->memory[result->item], *meta = model->metas[result->item];
	const struct object *object = expected->object;

	model->answers++;
	model->refused[result->item] = expected->or_no_room && result->status == -ENOSPC &&
				       result->reason == KVK_REASON_NO_ROOM;
	if (model->refused[result->item])
		return;
	if (result->status != expected->status || result->reason != expected->reason ||
	    (result->status == 0 && result->bytes != expected->bytes) || result->user != result->item ||
	    (expected->object_bytes != UINT64_MAX && result->object_bytes != expected->object_bytes))
		fail_msg("item %u: status %d, reason \"%s\", %" PRIu64 " bytes of %" PRIu64 "; must be %d, \"%s\", %" PRIu64
			 " of %" PRIu64, result->item, result->status, kvk_reason_text(result->reason), result->bytes,
			 result->object_bytes, expected->status, kvk_reason_text(expected->reason), expected->bytes,
			 expected->object_bytes);
	model->damaged += result->status == -EBADMSG;
	if (object) {
		model->hits++;
		if (expected->room)
			assert_int_equal(bed_judge(memory, result->bytes, object->key, object->facts.generation,
						   expected->offset), BED_RIGHT);
	} else if (expected->room && result->status) {
		assert_true(is_filled(memory, expected->room, UNTOUCHED) || is_filled(memory, expected->room, 0xdb));
	}
	if (expected->room)
		assert_true(is_filled(memory + expected->room, MODEL_OBJECT_BYTES - expected->room, UNTOUCHED));
	if (object && expected->meta) {
		assert_int_equal(result->meta_bytes, object->facts.meta_bytes);
		assert_int_equal(bed_judge(meta, result->meta_bytes, object->key, object->facts.generation, 0), BED_RIGHT);
	}
}

/* Drains the answers of a batch, each of which comes once, and then what is moved or freed in the background. */
static inline void model_submit(struct model *model, int64_t task, enum kvk_queue queue, uint32_t count,
				const struct expected *expected)
{
	bool seen[MODEL_BATCH] = { false };

	assert_true(task > 0);
	for (uint32_t i = 0; i < count; i++) {
		struct kvk_result result = { .struct_bytes = sizeof(result) };

		assert_true(bed_next(model->bed.store, queue, &result));
		assert_int_equal(result.task, task);
		assert_in_range(result.item, 0, count - 1);
		assert_false(seen[result.item]);
		assert_int_equal(!!(result.flags & KVK_RESULT_LAST), i + 1 == count);
		seen[result.item] = true;
		model_judge(model, &result, &expected[result.item]);
	}
	for (uint32_t i = 0; i < count; i++) {
		if (expected[i].aside)
			model_settle_damaged(model, expected[i].aside);
	}
}

static inline void model_wait_for_writes(struct model *model)
{
	uint64_t until_us = kit_now_us() + 20000000;

	while (bed_usage(model->bed.store).writing_bytes > 0) {
		assert_true(kit_now_us() < until_us);
		usleep(100);
	}
}

/* ---- what happens besides ------------------------------------------------------------------------------------ */

static inline void model_damage(struct model *model, struct object *object)
{
	uint64_t bytes = object->file_bytes, footer_bytes, at;
	uint8_t *data;

	if (!object->there || object->damage != WHOLE)
		return;
	data = outside_read(model, object, bytes);
	footer_bytes = bytes - kvk_page_ceil(object->facts.bytes);
	object->damage = FOOTER_DAMAGED;
	switch (model_draw(model, 4)) {
	case 0:
		at = model_draw(model, footer_bytes);
		data[bytes - footer_bytes + at] ^= (uint8_t)(1u << model_draw(model, 8));
		break;
	case 1:
		object->file_bytes = model_draw(model, bytes);
		break;
	case 2:
		memset(data, 0, bytes);
		break;
	default:
		if (object->facts.bytes == 0) {
			object->damage = WHOLE;
			break;
		}
		at = model_draw(model, object->facts.bytes);
		data[at] ^= (uint8_t)(1u << model_draw(model, 8));
		object->damage = PAYLOAD_DAMAGED;
		object->damage_at = at;
		break;
	}
	outside_write(model, object, data, object->file_bytes);
	free(data);
}

static inline void model_vanish(struct model *model, struct object *object)
{
	if (!object->there)
		return;
	outside_unlink(model, object);
	object->there = false;
}

static inline void model_check(struct model *model)
{
	uint64_t known = 0, pinned = 0;
	struct kvk_usage usage;

	for (unsigned i = 0; i < MODEL_KEYS; i++) {
		known += model->objects[i].known;
		pinned += model->objects[i].pins > 0;
	}
	assert_int_equal(kit_used_settles(model->bed.store, model->charged), model->charged);
	usage = bed_usage(model->bed.store);
	assert_int_equal(usage.writing_bytes, 0);
	assert_int_equal(usage.objects, known);
	assert_int_equal(usage.pinned_objects, pinned);
}

static inline struct object *model_find(struct model *model, const struct kvk_list_entry *entry)
{
	for (unsigned i = 0; i < MODEL_KEYS; i++) {
		if (!strcmp(model->objects[i].name, entry->name))
			return &model->objects[i];
	}
	fail_msg("\"%s\" is nobody's name", entry->name);
	return NULL;
}

static inline void model_check_entry(struct model *model, const struct kvk_list_entry *entry)
{
	const struct object *object = model_find(model, entry);

	assert_true(object->there);
	assert_int_equal(entry->stored_bytes, object->file_bytes);
	assert_int_equal(entry->state, object->damage == FOOTER_DAMAGED ? KVK_OBJECT_DAMAGED : KVK_OBJECT_PRESENT);
	if (object->damage == FOOTER_DAMAGED)
		return;
	assert_int_equal(entry->object_bytes, object->facts.bytes);
	assert_int_equal(entry->depth, object->facts.depth);
	assert_int_equal(entry->pins, object->pins);
	assert_int_equal(entry->key_bytes, object->key.bytes);
	assert_memory_equal(entry->key, object->key.data, object->key.bytes);
	assert_int_equal(entry->meta_bytes, object->facts.meta_bytes);
	assert_int_equal(bed_judge(entry->meta, entry->meta_bytes, object->key, object->facts.generation, 0), BED_RIGHT);
}

/* A list shows each object that lies there, once, in the order of names. */
static inline void model_check_list(struct model *model)
{
	static struct kvk_list_entry entries[16];
	struct kvk_list_query query = { .struct_bytes = sizeof(query) };
	uint64_t there = 0, listed = 0;
	char *cursor = NULL, last[256] = "";

	for (unsigned i = 0; i < MODEL_KEYS; i++)
		there += model->objects[i].there;
	do {
		char *next = NULL;
		int count;

		for (unsigned i = 0; i < 16; i++)
			entries[i].struct_bytes = sizeof(entries[i]);
		query.cursor = cursor;
		count = kvk_store_list(model->bed.store, &query, entries, 16, &next);
		assert_in_range(count, 0, 16);
		for (int i = 0; i < count; i++) {
			assert_true(strcmp(last, entries[i].name) < 0);
			strcpy(last, entries[i].name);
			model_check_entry(model, &entries[i]);
		}
		listed += (uint64_t)count;
		kvk_free(cursor);
		cursor = next;
	} while (cursor);
	assert_int_equal(listed, there);
}

static inline void model_reopen(struct model *model)
{
	bed_reopen(&model->bed, model->more);
	model->cap_bytes = model->spec_cap_bytes;
	for (unsigned i = 0; i < MODEL_KEYS; i++) {
		model_lost(model, &model->objects[i]);
		model->objects[i].pins = 0;
	}
	model->restarts++;
}

/*
 * Keys of a group share a version in the catalog: what a get finds of one is not learnt if another of it went meanwhile, and in a
 * batch of both that is a matter of time. So no two of these are of one group, and what must be known is certain.
 */
static inline bool model_is_alone(const struct model *model, unsigned i, struct kvk_prefix prefix)
{
	for (unsigned j = 0; j < i; j++) {
		struct kvk_prefix other = model->objects[j].prefix;

		if (kvk_prefix_shard(&other) == kvk_prefix_shard(&prefix) && kvk_prefix_group(&other) == kvk_prefix_group(&prefix))
			return false;
	}
	return true;
}

static inline void model_name(struct model *model, unsigned i)
{
	static const uint8_t none[KVK_DIGEST_BYTES];
	struct kvk_layout layout = { .naming = KVK_NAMING_KVKEEP, .levels = 1 };
	struct object *object = &model->objects[i];
	uint8_t digest[KVK_DIGEST_BYTES];
	unsigned number = i;

	do {
		if (i % 8 == 0)
			snprintf(object->text, sizeof(object->text), "any bytes %u", number);
		else
			snprintf(object->text, sizeof(object->text), "org/model@%08x@%x@%04x@tenant%u", i % 4, i % 3, number, i % 5);
		number += MODEL_KEYS;
		object->key = bed_key(object->text);
		assert_int_equal(kvk_key_digest(digest, none, object->key.data, object->key.bytes), 0);
		object->prefix = kvk_prefix_of(digest);
	} while (!model_is_alone(model, i, object->prefix));
	assert_int_equal(kvk_name_make(object->name, &layout, digest, object->key.data, object->key.bytes), 0);
}

/* ---- a run ----------------------------------------------------------------------------------------------------- */

/* *model is zeros but for where it draws from and its options. */
static inline void model_setup(struct model *model, enum bed_kind kind)
{
	struct kvk_backend_options options = { 0 };
	static unsigned runs;
	char medium[32];

	bed_begin(&model->bed, kind);
	/* Little room, more than a little, and no end of it. */
	if (!model->capacity)
		model->capacity = (const char *[]){ "0.0008", "0.002", "0" }[model_draw(model, 3)];
	snprintf(medium, sizeof(medium), "model %u", runs++);
	if (kind == BED_RAM)
		snprintf(model->more, sizeof(model->more), "params:\"file_path\": \"%s\", \"max_capacity_gb\": %s; %s",
			 medium, model->capacity, model->options);
	else
		snprintf(model->more, sizeof(model->more), "params:\"max_capacity_gb\": %s; %s", model->capacity,
			 model->options);
	bed_open(&model->bed, model->more);
	model->cap_bytes = model->spec_cap_bytes = bed_usage(model->bed.store).cap_bytes;
	assert_int_equal(bed_close(&model->bed), 0);
	options.path = kind == BED_RAM ? medium : model->bed.path;
	assert_int_equal((kind == BED_RAM ? &kvk_backend_ram : &kvk_backend_posix)->open(&model->outside, &options, NULL), 0);
	assert_int_equal(model->outside->ops->lock(model->outside, KVK_LOCK_KEEPER, 0), 0);
	bed_open(&model->bed, model->more);
	for (unsigned i = 0; i < MODEL_KEYS; i++)
		model_name(model, i);
	for (unsigned i = 0; i < MODEL_BATCH; i++)
		assert_int_equal(posix_memalign((void **)&model->memory[i], 4096, MODEL_OBJECT_BYTES + 4096), 0);
}

/* The keeper counts what lies there, whatever was done behind the store's back. */
static inline void model_keep(struct model *model)
{
	uint64_t until_us = kit_now_us() + 20000000, real = model_real(model);

	model->outside->ops->unlock(model->outside, KVK_LOCK_KEEPER);
	while (bed_usage(model->bed.store).used_bytes != real && kit_now_us() < until_us)
		usleep(1000);
	assert_int_equal(bed_usage(model->bed.store).used_bytes, real);
}

static inline void model_release(struct model *model)
{
	assert_int_equal(bed_close(&model->bed), 0);
	model->outside->ops->close(model->outside);
	assert_int_equal(bed_end(&model->bed), 0);
	for (unsigned i = 0; i < MODEL_BATCH; i++)
		free(model->memory[i]);
}

#endif
