/* SPDX-License-Identifier: Apache-2.0 */
/* The table of a shard: order of use, links to parents, runs of slots, memory that runs out. */
#include "catalog_kit.h"

/* The objects of a shard from the coldest on, as their home numbers. */
static void assert_use_order(struct kvk_catalog *catalog, uint32_t shard_number, const uint64_t *homes, uint32_t count)
{
	struct kvk_shard *shard = &catalog->shards[shard_number];
	uint32_t at = shard->lists[0].oldest;
	uint32_t before = KVK_NO_ENTRY;

	for (uint32_t i = 0; i < count; i++) {
		assert_int_not_equal(at, KVK_NO_ENTRY);
		assert_int_equal(kvk_shard_entry(shard, at)->prefix.word[1], homes[i]);
		assert_int_equal(kvk_shard_entry(shard, at)->older, before);
		before = at;
		at = kvk_shard_entry(shard, at)->newer;
	}
	assert_int_equal(at, KVK_NO_ENTRY);
	assert_int_equal(shard->lists[0].newest, before);
}

static void use_is_kept_in_order(void **state)
{
	struct kvk_catalog *catalog = *state;
	struct kvk_catalog_ticket ticket;
	struct digest digests[5];
	uint64_t charge;
	bool flag;

	for (uint32_t i = 0; i < 5; i++) {
		digests[i] = digest_at(3, i, i);
		put(catalog, &digests[i], 1);
	}
	assert_use_order(catalog, 3, (uint64_t[]){ 0, 1, 2, 3, 4 }, 5);
	kvk_catalog_look(catalog, digests[1].bytes, false, true, &ticket, NULL);
	kvk_catalog_look(catalog, digests[4].bytes, false, false, &ticket, NULL);
	assert_use_order(catalog, 3, (uint64_t[]){ 0, 2, 3, 4, 1 }, 5);
	kvk_catalog_look(catalog, digests[0].bytes, false, true, &ticket, NULL);
	kvk_catalog_look(catalog, digests[0].bytes, false, true, &ticket, NULL);
	assert_use_order(catalog, 3, (uint64_t[]){ 2, 3, 4, 1, 0 }, 5);
	remove_object(catalog, &digests[4], 1);
	assert_int_equal(kvk_catalog_remove_begin(catalog, digests[3].bytes, &flag), 0);
	kvk_catalog_remove_renamed(catalog, digests[3].bytes, false, &charge);
	assert_use_order(catalog, 3, (uint64_t[]){ 2, 3, 1, 0 }, 4);
	remove_object(catalog, &digests[2], 1);
	remove_object(catalog, &digests[0], 1);
	assert_use_order(catalog, 3, (uint64_t[]){ 3, 1 }, 2);
	remove_object(catalog, &digests[3], 1);
	remove_object(catalog, &digests[1], 1);
	assert_use_order(catalog, 3, NULL, 0);
}

static void parents_end_with_their_life(void **state)
{
	struct kvk_catalog *catalog = *state;
	struct digest parent = digest_at(1, 1, 1);
	struct digest child = digest_at(2, 2, 2);
	struct digest usurper = digest_at(1, 3, 3);
	struct kvk_object_info info = info_of(1);
	struct kvk_prefix found = { 0 };
	bool durable;

	memcpy(info.parent_digest, parent.bytes, sizeof(info.parent_digest));
	put(catalog, &parent, 1);
	assert_false(kvk_catalog_parent(catalog, parent.bytes, &found));
	assert_false(kvk_catalog_parent(catalog, child.bytes, &found));
	assert_int_equal(kvk_catalog_put_begin(catalog, child.bytes, PAGE, &durable), 0);
	kvk_catalog_put_end(catalog, child.bytes, &info);
	assert_true(kvk_catalog_parent(catalog, child.bytes, &found));
	assert_memory_equal(&found, parent.bytes, sizeof(found));

	remove_object(catalog, &parent, 1);
	assert_false(kvk_catalog_parent(catalog, child.bytes, &found));
	put(catalog, &usurper, 1);
	assert_int_equal(kvk_shard_find(&catalog->shards[1], &(struct kvk_prefix){ { 1 | 3 << 6, 3 } }), 0);
	assert_false(kvk_catalog_parent(catalog, child.bytes, &found));
	remove_object(catalog, &child, 1);

	/* Not known: no link. Its own: no link. */
	assert_int_equal(kvk_catalog_put_begin(catalog, child.bytes, PAGE, &durable), 0);
	kvk_catalog_put_end(catalog, child.bytes, &info);
	assert_false(kvk_catalog_parent(catalog, child.bytes, &found));
	assert_int_equal(kvk_catalog_put_begin(catalog, parent.bytes, PAGE, &durable), 0);
	kvk_catalog_put_end(catalog, parent.bytes, &info);
	assert_false(kvk_catalog_parent(catalog, parent.bytes, &found));
}

/* One shard, one home slot or the last one: deleting from the middle of a run must lose nobody. */
static void deleting_from_runs_loses_nobody(void **state)
{
	struct kvk_catalog *catalog = *state;
	struct digest digests[40];
	bool there[40] = { false };
	uint32_t random = 12345;

	for (uint32_t i = 0; i < 40; i++)
		digests[i] = digest_at(0, i, (i % 3 ? UINT64_C(62) : UINT64_C(61) + i % 4) | (uint64_t)i << 32);
	for (uint32_t step = 0; step < 20000; step++) {
		uint32_t i;

		random = random * 1664525 + 1013904223;
		i = (random >> 8) % 40;
		if (there[i])
			remove_object(catalog, &digests[i], 1);
		else
			put(catalog, &digests[i], 1);
		there[i] = !there[i];
		for (uint32_t j = 0; j < 40; j++) {
			if (state_of(catalog, &digests[j]) != (there[j] ? KVK_CATALOG_PRESENT : KVK_CATALOG_UNKNOWN))
				fail_msg("step %u: object %u is not %d", step, j, there[j]);
		}
	}
	assert_int_equal(catalog->shards[0].slot_count, 64);
	assert_in_range(catalog->shards[0].fresh, 30, 40);
}

/*
 * Memory that runs out changes nothing: the nth allocation of each call fails, until none does. 200 objects in one
 * shard pass the growth of slots, chunks, their row, and names.
 */
static void short_memory_changes_nothing(void **state)
{
	struct kvk_object_info info = info_of(2);
	uint32_t failures = 0;

	(void)state;
	for (int call = 0; call < 3; call++) {
		struct kvk_catalog *catalog = NULL;
		int err = -ENOMEM;

		for (uint64_t nth = 1; err; nth++) {
			kvk_mem_fail_nth(nth, false);
			err = kvk_catalog_new(&catalog, LEASE, NULL);
			assert_int_equal(err, kvk_mem_has_failed() ? -ENOMEM : 0);
		}
		for (uint32_t i = 0; i < 1400; i++) {
			struct digest digest = digest_at(0, i % KVK_GROUPS, i);
			struct kvk_catalog_totals before = totals_of(catalog);
			struct kvk_catalog_ticket ticket;
			bool flag = false;
			uint64_t charge;

			info.charge_bytes = i % 2 * PAGE;
			err = -ENOMEM;
			for (uint64_t nth = 1; err; nth++) {
				look(catalog, &digest, &ticket);
				kvk_mem_fail_nth(nth, nth % 2);
				if (call == 0)
					err = kvk_catalog_put_begin(catalog, digest.bytes, info.charge_bytes, &flag);
				else if (call == 1)
					err = kvk_catalog_found(catalog, digest.bytes, &ticket, &info, true);
				else
					err = kvk_catalog_remove_begin(catalog, digest.bytes, &flag);
				assert_int_equal(err, kvk_mem_has_failed() ? -ENOMEM : 0);
				kvk_mem_fail_nth(0, false);
				if (err) {
					struct kvk_catalog_totals after = totals_of(catalog);

					failures++;
					assert_int_equal(state_of(catalog, &digest), KVK_CATALOG_UNKNOWN);
					assert_int_equal(after.used_bytes, before.used_bytes);
					assert_int_equal(after.writing_bytes, before.writing_bytes);
					assert_int_equal(after.pinned_objects, before.pinned_objects);
				}
			}
			if (call == 0)
				kvk_catalog_put_end(catalog, digest.bytes, i % 3 ? &info : NULL);
			if (call == 2)
				kvk_catalog_remove_renamed(catalog, digest.bytes, i % 2 == 0, &charge);
		}
		kvk_catalog_free(catalog);
	}
	assert_in_range(failures, 20, 1000);
}

static void warming_changes_nothing(void **state)
{
	struct kvk_catalog *catalog = *state;
	struct digest digests[300];
	const uint8_t *pointers[300];

	for (uint32_t i = 0; i < 300; i++) {
		digests[i] = digest_at(4, i % KVK_GROUPS, i % 7 | (uint64_t)i << 50);
		pointers[i] = digests[i].bytes;
	}
	kvk_catalog_warm(catalog, pointers, 300);      /* nothing is there */
	assert_int_equal(totals_of(catalog).objects, 0);
	for (uint32_t i = 0; i < 300; i += 2)
		put(catalog, &digests[i], 1);
	kvk_catalog_warm(catalog, pointers, 300);
	kvk_catalog_warm(catalog, NULL, 0);
	for (uint32_t i = 0; i < 300; i++)
		assert_int_equal(state_of(catalog, &digests[i]), i % 2 ? KVK_CATALOG_UNKNOWN : KVK_CATALOG_PRESENT);
	assert_int_equal(totals_of(catalog).objects, 150);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_LEASE(use_is_kept_in_order),
		WITH_LEASE(parents_end_with_their_life),
		WITH_LEASE(deleting_from_runs_loses_nobody),
		WITH_LEASE(warming_changes_nothing),
		cmocka_unit_test(short_memory_changes_nothing),
	};

	return cmocka_run_group_tests_name("catalog_table", tests, NULL, NULL);
}
