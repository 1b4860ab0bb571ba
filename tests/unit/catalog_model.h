/* SPDX-License-Identifier: Apache-2.0 */
/* The naive model of the catalog that test_catalog_model.c compares it with: arrays, no shards, no hashing, no
 * lists. */
#ifndef KVK_TESTS_CATALOG_MODEL_H
#define KVK_TESTS_CATALOG_MODEL_H

#include <stdlib.h>

#include "catalog_kit.h"

#define KEYS 72u
#define NAMES 5u                       /* of tenants and of models; 0 is "" */
#define TICKETS 24u
#define STEPS_DEFAULT 200000u
#define MODEL_LEASE (300 * PAGE)

static const char *const names[NAMES] = { "", "a", "bb", "a-long-name-of-a-tenant", "\xff\x01" };

struct model_key {
	struct digest digest;
	uint32_t group;                /* the first key whose version it shares */
	enum kvk_catalog_state state;
	bool known;
	bool durable;
	uint32_t pins;
	uint32_t tenant;
	uint32_t model;
	uint64_t life;                 /* a number of its own each time it becomes present */
	uint64_t events;               /* ends of puts and removes, losses; counted at the group's first key */
	uint64_t used_at;
	uint64_t birth;                /* when it became known */
	struct model_key *parent;      /* NULL: none was known then */
	bool counted;                  /* the parent has it among its children */
	bool chosen;                   /* leaving by an eviction */
	uint64_t parent_birth;
	uint64_t charge_bytes;         /* charged, or reserved while writing */
	uint64_t logical_bytes;
};

struct model_ticket {
	struct kvk_catalog_ticket ticket;
	uint32_t key;
	uint64_t life;                 /* 0: it was not present */
	uint64_t events;
};

struct model {
	struct kvk_catalog *catalog;
	struct model_key keys[KEYS];
	struct model_ticket tickets[TICKETS];
	int64_t room_bytes;
	uint64_t loose_bytes;
	uint64_t clock;                /* births and lives */
	uint64_t use;                  /* counts as the catalog does without a clock */
	uint64_t random;
	uint64_t answers[10];           /* how often which, to see that the run was worth something */
};

static inline uint32_t pick(struct model *model, uint32_t below)
{
	model->random ^= model->random << 13;
	model->random ^= model->random >> 7;
	model->random ^= model->random << 17;
	return (uint32_t)(model->random >> 33) % below;
}

/* A third of the keys anywhere, a third in one shard with few homes, a third in one group. */
static inline void model_init(struct model *model, uint64_t seed)
{
	memset(model, 0, sizeof(*model));
	model->random = seed * 2 + 1;
	model->room_bytes = MODEL_LEASE;
	for (uint32_t i = 0; i < KEYS; i++) {
		struct model_key *key = &model->keys[i];

		if (i % 3 == 0)
			key->digest = digest_number(seed + i);
		else if (i % 3 == 1)
			key->digest = digest_at(9, i, i % 5 | (uint64_t)i << 40);
		else
			key->digest = digest_at(9, 200, 63 | (uint64_t)i << 40);
		key->group = i;
		for (uint32_t j = 0; j < i; j++) {
			struct kvk_prefix mine = kvk_prefix_of(key->digest.bytes);
			struct kvk_prefix other = kvk_prefix_of(model->keys[j].digest.bytes);

			if (kvk_prefix_shard(&mine) == kvk_prefix_shard(&other) &&
			    kvk_prefix_group(&mine) == kvk_prefix_group(&other)) {
				key->group = j;
				break;
			}
		}
	}
	assert_int_equal(kvk_catalog_new(&model->catalog, MODEL_LEASE, NULL), 0);
}

static inline uint64_t *events_of(struct model *model, const struct model_key *key)
{
	return &model->keys[key->group].events;
}

static inline struct kvk_object_info random_info(struct model *model, uint32_t *tenant_ret, uint32_t *model_ret)
{
	struct kvk_object_info info = {
		.logical_bytes = pick(model, 100000),
		.charge_bytes = pick(model, 12) * PAGE,
		.durable = pick(model, 2),
	};

	*tenant_ret = pick(model, NAMES);
	*model_ret = pick(model, NAMES);
	info.tenant = names[*tenant_ret];
	info.tenant_bytes = (uint32_t)strlen(names[*tenant_ret]);
	info.model = names[*model_ret];
	info.model_bytes = (uint32_t)strlen(names[*model_ret]);
	if (pick(model, 2))
		memcpy(info.parent_digest, model->keys[pick(model, KEYS)].digest.bytes, sizeof(info.parent_digest));
	return info;
}

static inline struct model_key *key_of(struct model *model, const uint8_t digest[32])
{
	for (uint32_t i = 0; i < KEYS; i++) {
		if (memcmp(model->keys[i].digest.bytes, digest, 32) == 0)
			return &model->keys[i];
	}
	return NULL;
}

static inline void model_make_known(struct model *model, struct model_key *key, const struct kvk_object_info *info,
			     uint32_t tenant, uint32_t model_name)
{
	key->state = KVK_CATALOG_PRESENT;
	key->known = true;
	key->durable = info->durable;
	key->charge_bytes = info->charge_bytes;
	key->logical_bytes = info->logical_bytes;
	key->tenant = tenant;
	key->model = model_name;
	key->life = ++model->clock;
	key->birth = ++model->clock;
	key->used_at = info->used_at ? info->used_at / 1000 : ++model->use;
	if (key->used_at > model->use)
		model->use = key->used_at;
	key->parent = key_of(model, info->parent_digest);
	if (key->parent == key || (key->parent && !key->parent->known))
		key->parent = NULL;
	key->parent_birth = key->parent ? key->parent->birth : 0;
	key->counted = key->parent != NULL;
	key->chosen = false;
}

static inline bool has_live_parent(const struct model_key *key)
{
	return key->parent && key->parent->known && key->parent->birth == key->parent_birth;
}

static inline uint32_t children_of(const struct model *model, const struct model_key *parent)
{
	uint32_t children = 0;

	for (uint32_t i = 0; i < KEYS; i++) {
		const struct model_key *key = &model->keys[i];

		children += key->known && key->counted && key->parent == parent && has_live_parent(key);
	}
	return children;
}

/* What was used last below a parent counts as its use, at the latest from when that goes. */
static inline void model_leave_parent(struct model_key *key)
{
	if (key->counted && has_live_parent(key) && key->parent->used_at < key->used_at)
		key->parent->used_at = key->used_at;
	key->counted = false;
}

static inline void model_forget(struct model_key *key)
{
	if (key->known)
		model_leave_parent(key);
	key->parent = NULL;
	key->chosen = false;
	key->state = KVK_CATALOG_UNKNOWN;
	key->known = false;
	key->durable = false;
	key->life = 0;
	key->charge_bytes = 0;
}

#endif
