/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Specifications of stores of any bytes: what is accepted is within the bounds that the store relies on and does not depend on
 * how the JSON is laid out; what is refused says why, in UTF-8, and names an option unless it is no JSON.
 */
#include "fuzz.h"

#include <errno.h>

#include <jansson.h>

#include "store/spec.h"

#define MIB (UINT64_C(1) << 20)

static void try_shape(const struct kvk_spec *spec)
{
	const struct kvk_superblock_wish *wish = &spec->wish;
	struct kvk_superblock is = wish->values, parsed;
	uint8_t data[KVK_SUPERBLOCK_BYTES];

	if (is.pool.slot_bytes == 0) {
		FUZZ_ASSERT(is.pool.slots == 0 && is.pool.file_slots == 0 && !wish->says_slots);
	} else {
		FUZZ_ASSERT(!wish->says_cap);
		/* A pool that exists may be opened without saying how many. */
		FUZZ_ASSERT(wish->says_slots || is.pool.slots == 0);
		if (!wish->says_slots)
			is.pool.slots = 1;
	}
	/* What a new store would write down can be read again. */
	kvk_superblock_encode(&is, data);
	FUZZ_ASSERT(kvk_superblock_parse(&parsed, data, sizeof(data)) == 0);
	FUZZ_ASSERT(is.cap_bytes == 0 || is.cap_bytes >= 65536);
}

static void try_values(const struct kvk_spec *spec)
{
	uint8_t digest[KVK_DIGEST_BYTES];

	FUZZ_ASSERT(spec->ram || (spec->path && spec->path[0]));
	FUZZ_ASSERT(!spec->device || spec->device[0] == '/');
	FUZZ_ASSERT(spec->lanes <= 32 && spec->max_items >= 1 && spec->max_items <= 1u << 24);
	FUZZ_ASSERT(spec->memory_bytes >= 16 * MIB && spec->memory_bytes <= 65536 * MIB);
	FUZZ_ASSERT(spec->depth_bytes >= 2 * MIB && spec->depth_bytes <= 4096 * MIB);
	FUZZ_ASSERT(spec->deadline_us >= 1000 && spec->batch_us >= 100000 && spec->batch_bytes >= MIB);
	FUZZ_ASSERT(spec->policy <= KVK_POLICY_ISOLATED_LRU);
	FUZZ_ASSERT(spec->trigger_watermark > 0 && spec->trigger_watermark <= 1);
	FUZZ_ASSERT(spec->eviction_ratio > 0 && spec->eviction_ratio <= 1);
	FUZZ_ASSERT(spec->disk_watermark > 0 && spec->disk_watermark <= 1);
	FUZZ_ASSERT(spec->min_free_bytes <= UINT64_C(1000000000) << 30);
	FUZZ_ASSERT(!spec->quota_count == !spec->quotas);
	for (uint32_t i = 0; i < spec->quota_count; i++)
		FUZZ_ASSERT(spec->quotas[i].tenant && spec->quotas[i].bytes <= UINT64_C(1000000000) << 30);
	FUZZ_ASSERT(kvk_manifest_digest(digest, spec->manifest) == 0);
	FUZZ_ASSERT(memcmp(digest, spec->namespace_digest, sizeof(digest)) == 0);
	FUZZ_ASSERT(!spec->fault || spec->fault[0] == '[');
}

static bool same_text(const char *left, const char *right)
{
	return left && right ? strcmp(left, right) == 0 : left == right;
}

static uint64_t quota_of(const struct kvk_spec *spec, const char *tenant)
{
	for (uint32_t i = 0; i < spec->quota_count; i++) {
		if (same_text(spec->quotas[i].tenant, tenant))
			return spec->quotas[i].bytes;
	}
	return UINT64_MAX;
}

/* All but the rules of faults, whose text is as it was laid out. */
static void same(const struct kvk_spec *left, const struct kvk_spec *right)
{
	struct kvk_spec a = *left, b = *right;
	struct kvk_superblock_wish *of_a = &a.wish, *of_b = &b.wish;

	FUZZ_ASSERT(same_text(a.path, b.path) && same_text(a.device, b.device) && same_text(a.manifest, b.manifest));
	FUZZ_ASSERT(a.quota_count == b.quota_count && !a.fault == !b.fault);
	for (uint32_t i = 0; i < a.quota_count; i++)
		FUZZ_ASSERT(quota_of(&b, a.quotas[i].tenant) == a.quotas[i].bytes);
	FUZZ_ASSERT(a.ram == b.ram && a.direct == b.direct && a.shared == b.shared && a.keeper == b.keeper);
	FUZZ_ASSERT(a.accept_unverified == b.accept_unverified && a.engine == b.engine && a.lanes == b.lanes);
	FUZZ_ASSERT(a.memory_bytes == b.memory_bytes && a.depth_bytes == b.depth_bytes && a.max_items == b.max_items);
	FUZZ_ASSERT(a.deadline_us == b.deadline_us && a.batch_us == b.batch_us && a.batch_bytes == b.batch_bytes);
	FUZZ_ASSERT(a.policy == b.policy && a.trigger_watermark == b.trigger_watermark);
	FUZZ_ASSERT(a.eviction_ratio == b.eviction_ratio && a.default_quota_bytes == b.default_quota_bytes);
	FUZZ_ASSERT(a.says_min_free == b.says_min_free && a.min_free_bytes == b.min_free_bytes);
	FUZZ_ASSERT(a.disk_watermark == b.disk_watermark && a.fault_seed == b.fault_seed);
	FUZZ_ASSERT(of_a->create == of_b->create && of_a->visitor == of_b->visitor);
	FUZZ_ASSERT(of_a->says_naming == of_b->says_naming && of_a->says_levels == of_b->says_levels);
	FUZZ_ASSERT(of_a->says_cap == of_b->says_cap && of_a->values.cap_bytes == of_b->values.cap_bytes);
	FUZZ_ASSERT(of_a->values.durability == of_b->values.durability && of_a->values.persist == of_b->values.persist);
	FUZZ_ASSERT(of_a->values.group == of_b->values.group);
	FUZZ_ASSERT(memcmp(&of_a->values.layout, &of_b->values.layout, sizeof(of_a->values.layout)) == 0);
	FUZZ_ASSERT(memcmp(&of_a->values.pool, &of_b->values.pool, sizeof(of_a->values.pool)) == 0);
}

static int parse(struct kvk_spec *spec, const char *json, size_t bytes, struct kvk_error *error)
{
	int err;

	*error = (struct kvk_error){ .struct_bytes = sizeof(*error) };
	fuzz_memory_for(bytes);
	err = kvk_spec_parse(spec, json, error);
	fuzz_memory_limit(SIZE_MAX);
	return err;
}

/* The same, its members in the order of their names. */
static void try_sorted(const struct kvk_spec *spec, const char *json)
{
	json_t *root = json_loads(json, 0, NULL);
	char *sorted = json_dumps(root, JSON_COMPACT | JSON_SORT_KEYS);
	struct kvk_error error;
	struct kvk_spec again;

	if (!sorted)
		abort();
	FUZZ_ASSERT(parse(&again, sorted, strlen(sorted), &error) == 0);
	same(spec, &again);
	kvk_spec_release(&again);
	free(sorted);
	json_decref(root);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	char *json = fuzz_text(data, bytes);
	struct kvk_error error;
	struct kvk_spec spec;
	json_t *root;
	int err;

	memset(&spec, FUZZ_SPOILT, sizeof(spec));
	err = parse(&spec, json, bytes, &error);
	if (err) {
		FUZZ_ASSERT(err == -EINVAL && error.code == err && error.text[0]);
		FUZZ_ASSERT(fuzz_is_utf8(error.option) && fuzz_is_utf8(error.text));
		root = json_loads(json, JSON_REJECT_DUPLICATES, NULL);
		/* An option of no name has none. */
		FUZZ_ASSERT(!json_is_object(root) || error.option[0] || json_object_get(root, ""));
		json_decref(root);
	} else {
		FUZZ_ASSERT(error.code == 0);
		try_shape(&spec);
		try_values(&spec);
		try_sorted(&spec, json);
	}
	kvk_spec_release(&spec);
	free(json);
	return 0;
}
