/* SPDX-License-Identifier: Apache-2.0 */
/* What holds of evictions under every policy: bytes, pins, chains, circles, how they end, and what the clock
 * does. */
#include <pthread.h>
#include <stdlib.h>

#include "catalog_kit.h"
#include "util/clock.h"

static const enum kvk_policy_kind evicting[] = {
	KVK_POLICY_LRU, KVK_POLICY_S3FIFO, KVK_POLICY_ARC, KVK_POLICY_ISOLATED_LRU,
};

#define POLICIES (sizeof(evicting) / sizeof(evicting[0]))

static struct kvk_catalog *new_with(enum kvk_policy_kind kind)
{
	struct kvk_policy_options options = { .kind = kind, .cap_bytes = 1000 * PAGE };
	struct kvk_catalog *catalog = NULL;

	assert_int_equal(kvk_catalog_new(&catalog, UINT64_MAX, &options), 0);
	return catalog;
}

static void put_below(struct kvk_catalog *catalog, uint64_t number, uint64_t parent)
{
	struct digest digest = digest_number(number);
	struct digest above = digest_number(parent);
	struct kvk_object_info info = info_of(1);
	bool durable;

	memcpy(info.parent_digest, above.bytes, sizeof(info.parent_digest));
	assert_int_equal(kvk_catalog_put_begin(catalog, digest.bytes, PAGE, &durable), 0);
	kvk_catalog_put_end(catalog, digest.bytes, &info);
}

static void pin_number(struct kvk_catalog *catalog, uint64_t number)
{
	struct digest digest = digest_number(number);
	struct kvk_catalog_ticket ticket;

	assert_int_equal(kvk_catalog_look(catalog, digest.bytes, true, false, &ticket, NULL), KVK_CATALOG_PRESENT);
}

static void use_number(struct kvk_catalog *catalog, uint64_t number)
{
	struct digest digest = digest_number(number);
	struct kvk_catalog_ticket ticket;

	kvk_catalog_look(catalog, digest.bytes, false, true, &ticket, NULL);
}

static void end(struct kvk_catalog *catalog, const struct kvk_victim *victim, enum kvk_evict_end how)
{
	uint64_t charge = 1;

	kvk_catalog_evicted(catalog, victim->prefix, how, 0, &charge);
	assert_int_equal(charge, how == KVK_EVICT_KEPT ? 0 : victim->charge_bytes);
	kvk_catalog_credit(catalog, charge);
}

static bool is_number(const struct kvk_victim *victim, uint64_t number)
{
	struct digest digest = digest_number(number);

	return memcmp(victim->prefix, digest.bytes, sizeof(victim->prefix)) == 0;
}

/* One victim, and which. */
static void assert_next(struct kvk_catalog *catalog, uint64_t number)
{
	struct kvk_victim victim;

	assert_int_equal(kvk_catalog_evict(catalog, 1, &victim, 1), 1);
	if (!is_number(&victim, number))
		fail_msg("it was not %" PRIu64 " that went next", number);
	end(catalog, &victim, KVK_EVICTED);
}

static void assert_none(struct kvk_catalog *catalog)
{
	struct kvk_victim victim;

	assert_int_equal(kvk_catalog_evict(catalog, UINT64_MAX, &victim, 1), 0);
}

static void noop_evicts_nothing(void **state)
{
	struct kvk_catalog *catalog = new_with(KVK_POLICY_NOOP);
	struct kvk_object_info info = info_of(1);

	(void)state;
	for (uint64_t i = 0; i < 100; i++) {
		struct digest digest = digest_number(i);

		info.used_at = 1000 * i;
		assert_int_equal(kvk_catalog_scanned(catalog, digest.bytes, &info), 0);
		use_number(catalog, i / 2);
	}
	assert_none(catalog);
	kvk_catalog_free(catalog);
}

/* What is asked for is reached, by no more than the last one; or nothing that may go is left. */
static void bytes_are_reached_or_nothing_is_left(void **state)
{
	(void)state;
	for (size_t policy = 0; policy < POLICIES; policy++) {
		struct kvk_catalog *catalog = new_with(evicting[policy]);
		uint64_t random = 88172645463325252u;
		struct kvk_victim victims[64];
		uint64_t left = 0;
		uint64_t pinned = 0;

		for (uint64_t i = 0; i < 3000; i++) {
			struct digest digest = digest_number(i);

			put(catalog, &digest, 1 + i % 5);
			use_number(catalog, i / 3);
			left += 1 + i % 5;
			if (i % 7 == 0) {
				pin_number(catalog, i);
				pinned += 1 + i % 5;
			}
		}
		while (left > pinned) {
			uint64_t bytes, chosen_bytes = 0;
			uint32_t count, chosen;

			random = random * 6364136223846793005u + 1442695040888963407u;
			bytes = (random >> 33) % 100 * PAGE;
			count = (uint32_t)(random >> 20) % 64;
			chosen = kvk_catalog_evict(catalog, bytes, victims, count);
			for (uint32_t i = 0; i < chosen; i++) {
				chosen_bytes += victims[i].charge_bytes;
				left -= victims[i].charge_bytes / PAGE;
				assert_true(chosen_bytes - victims[i].charge_bytes < bytes);
				end(catalog, &victims[i], i % 2 ? KVK_EVICTED : KVK_EVICT_ABSENT);
			}
			if (chosen < count && chosen_bytes < bytes)
				assert_int_equal(left, pinned);
		}
		assert_none(catalog);
		assert_int_equal(totals_of(catalog).used_bytes, pinned * PAGE);
		kvk_catalog_free(catalog);
	}
}

/* A forest in which each object has its parent among those before it. */
static void children_go_before_their_parents(void **state)
{
	enum { OBJECTS = 4000 };
	static uint64_t parents[OBJECTS];
	static bool gone[OBJECTS];
	static uint32_t children[OBJECTS];

	(void)state;
	for (size_t policy = 0; policy < POLICIES; policy++) {
		struct kvk_catalog *catalog = new_with(evicting[policy]);
		uint64_t random = 1 + policy;
		uint64_t left = OBJECTS;
		struct kvk_victim victims[100];

		memset(gone, 0, sizeof(gone));
		memset(children, 0, sizeof(children));
		for (uint64_t i = 0; i < OBJECTS; i++) {
			random = random * 6364136223846793005u + 1442695040888963407u;
			parents[i] = i && random >> 60 ? (random >> 33) % i : OBJECTS;
			put_below(catalog, i, parents[i]);
			if (parents[i] < OBJECTS)
				children[parents[i]]++;
			use_number(catalog, (random >> 20) % (i + 1));
		}
		while (left > 0) {
			uint32_t chosen = kvk_catalog_evict(catalog, 50 * PAGE, victims, 100);

			assert_int_equal(chosen, left < 50 ? left : 50);
			for (uint32_t at = 0; at < chosen; at++) {
				uint64_t number = 0;

				while (!is_number(&victims[at], number))
					number++;
				assert_false(gone[number]);
				if (children[number])
					fail_msg("%" PRIu64 " went before %u children", number, children[number]);
				gone[number] = true;
				if (parents[number] < OBJECTS)
					children[parents[number]]--;
				end(catalog, &victims[at], KVK_EVICTED);
			}
			left -= chosen;
		}
		kvk_catalog_free(catalog);
	}
}

static void a_long_chain_goes_from_its_end(void **state)
{
	enum { LENGTH = 100000 };
	struct kvk_victim *victims = calloc(LENGTH, sizeof(*victims));

	(void)state;
	assert_non_null(victims);
	for (size_t policy = 0; policy < POLICIES; policy++) {
		struct kvk_catalog *catalog = new_with(evicting[policy]);

		for (uint64_t i = 0; i < LENGTH; i++)
			put_below(catalog, i, i - 1);
		assert_int_equal(kvk_catalog_evict(catalog, UINT64_MAX, victims, LENGTH), LENGTH);
		for (uint64_t i = 0; i < LENGTH; i++) {
			if (!is_number(&victims[i], LENGTH - 1 - i))
				fail_msg("policy %zu: the one chosen as number %" PRIu64 " is another", policy, i);
		}
		kvk_catalog_free(catalog);
	}
	free(victims);
}

static void a_pin_holds_all_above(void **state)
{
	(void)state;
	for (size_t policy = 0; policy < POLICIES; policy++) {
		struct kvk_catalog *catalog = new_with(evicting[policy]);
		struct digest leaf = digest_number(49);

		for (uint64_t i = 0; i < 50; i++)
			put_below(catalog, i, i - 1);
		put_below(catalog, 100, 20);           /* a branch that may go */
		pin_number(catalog, 49);
		assert_next(catalog, 100);
		assert_none(catalog);
		assert_none(catalog);
		kvk_catalog_unpin(catalog, leaf.bytes);
		pin_number(catalog, 30);
		for (uint64_t i = 49; i > 30; i--)
			assert_next(catalog, i);
		assert_none(catalog);
		leaf = digest_number(30);
		kvk_catalog_unpin(catalog, leaf.bytes);
		for (uint64_t i = 31; i-- > 0;)
			assert_next(catalog, i);
		assert_none(catalog);
		kvk_catalog_free(catalog);
	}
}

/* Removed, lost or kept children leave their parents as free, or as held, as they should be. */
static void whatever_ends_a_child_frees_its_parent(void **state)
{
	(void)state;
	for (int how = 0; how < 4; how++) {
		struct kvk_catalog *catalog = new_with(KVK_POLICY_LRU);
		struct digest child = digest_number(2);
		struct kvk_catalog_ticket ticket;
		struct kvk_victim victim;
		uint64_t charge;
		bool pinned;

		put_below(catalog, 1, 0);
		put_below(catalog, 2, 1);
		if (how == 0) {
			remove_object(catalog, &child, 1);
		} else if (how == 1) {
			look(catalog, &child, &ticket);
			kvk_catalog_lost(catalog, child.bytes, &ticket);
		} else if (how == 2) {
			assert_int_equal(kvk_catalog_remove_begin(catalog, child.bytes, &pinned), 0);
			assert_none(catalog);
			kvk_catalog_remove_renamed(catalog, child.bytes, false, &charge);
			assert_next(catalog, 2);
		} else {
			assert_int_equal(kvk_catalog_evict(catalog, 1, &victim, 1), 1);
			end(catalog, &victim, KVK_EVICT_KEPT);
			assert_next(catalog, 2);
		}
		assert_next(catalog, 1);
		assert_none(catalog);
		kvk_catalog_free(catalog);
	}
}

/* No call makes a circle, so this one is made by hand: 0 below the last of `length`. */
static void close_circle(struct kvk_catalog *catalog, uint64_t length)
{
	struct digest first = digest_number(0);
	struct digest last = digest_number(length - 1);
	struct kvk_prefix prefixes[2] = { kvk_prefix_of(first.bytes), kvk_prefix_of(last.bytes) };
	struct kvk_entry *entries[2];
	uint32_t ids[2];

	for (int i = 0; i < 2; i++) {
		struct kvk_shard *shard = &catalog->shards[kvk_prefix_shard(&prefixes[i])];
		uint32_t index = kvk_shard_find(shard, &prefixes[i]);

		entries[i] = kvk_shard_entry(shard, index);
		ids[i] = index << KVK_SHARD_BITS | kvk_prefix_shard(&prefixes[i]);
	}
	entries[0]->parent = ids[1];
	entries[0]->parent_generation = entries[1]->generation;
	entries[0]->counted = true;
	entries[1]->children++;
}

static void circles_end(void **state)
{
	(void)state;
	for (size_t policy = 0; policy < POLICIES; policy++) {
		for (uint64_t length = 2; length < 12; length += 3) {
			struct kvk_catalog *catalog = new_with(evicting[policy]);
			struct digest middle = digest_number(length / 2);
			struct kvk_victim victims[20];

			for (uint64_t i = 0; i < length; i++)
				put_below(catalog, i, i - 1);
			put_below(catalog, 50, 0);     /* and something below it */
			put_below(catalog, 60, 1000);  /* and apart from it, later: it goes first all the same */
			close_circle(catalog, length);
			pin_number(catalog, length / 2);
			assert_int_equal(kvk_catalog_evict(catalog, UINT64_MAX, victims, 20), 2);
			end(catalog, &victims[0], KVK_EVICTED);
			end(catalog, &victims[1], KVK_EVICTED);
			assert_none(catalog);          /* one of them is pinned: so are all */
			kvk_catalog_unpin(catalog, middle.bytes);
			assert_int_equal(kvk_catalog_evict(catalog, UINT64_MAX, victims, 20), length);
			kvk_catalog_free(catalog);
		}
	}
}

static void unpin_number(struct kvk_catalog *catalog, uint64_t number)
{
	struct digest digest = digest_number(number);

	kvk_catalog_unpin(catalog, digest.bytes);
}

/* All is pinned: that is found out once, and again only after something happened that may let one go. */
static void nothing_to_evict_is_looked_for_once(void **state)
{
	(void)state;
	for (size_t policy = 0; policy < POLICIES; policy++) {
		struct kvk_catalog *catalog = new_with(evicting[policy]);
		struct digest last = digest_number(999);
		uint64_t walks;

		for (uint64_t i = 0; i < 1000; i++) {
			put_below(catalog, i, i % 10 ? i - 1 : 5000);
			pin_number(catalog, i);
		}
		for (uint32_t i = 0; i < 50; i++)
			assert_none(catalog);
		assert_int_equal(catalog->walks, 1);
		/* Nor do hits let anything go. */
		for (uint64_t i = 0; i < 1000; i++)
			use_number(catalog, i);
		assert_none(catalog);
		assert_int_equal(catalog->walks, 1);
		/* A pin of two is none that was taken off. */
		pin_number(catalog, 500);
		unpin_number(catalog, 500);
		assert_none(catalog);
		assert_int_equal(catalog->walks, 1);
		/* One that came and is pinned has to be looked at, but once. */
		put_below(catalog, 2000, 5000);
		pin_number(catalog, 2000);
		assert_none(catalog);
		assert_none(catalog);
		assert_int_equal(catalog->walks, 2);
		/* One that may go goes, and then the one above it that waited for it alone. */
		unpin_number(catalog, 998);
		assert_none(catalog);
		kvk_catalog_unpin(catalog, last.bytes);
		assert_next(catalog, 999);
		assert_next(catalog, 998);
		walks = catalog->walks;
		assert_none(catalog);
		assert_none(catalog);
		assert_true(catalog->walks <= walks + 1);
		kvk_catalog_free(catalog);
	}
}

struct evictor {
	struct kvk_catalog *catalog;
	bool found;
	struct kvk_victim victim;
	pthread_t thread;
};

static void *evict_one(void *argument)
{
	struct evictor *evictor = argument;
	uint64_t until_us = kvk_now_us() + 20000000;

	while (!evictor->found && kvk_now_us() < until_us)
		evictor->found = kvk_catalog_evict(evictor->catalog, 1, &evictor->victim, 1) == 1;
	return NULL;
}

/* What may go from some moment of the search on is found by the search after it, at the latest. */
static void a_pin_is_taken_off_during_the_search(void **state)
{
	struct kvk_catalog *catalog = new_with(KVK_POLICY_LRU);

	(void)state;
	for (uint64_t i = 0; i < 500; i++) {
		put_below(catalog, i, 5000);
		pin_number(catalog, i);
	}
	for (uint64_t i = 0; i < 500; i++) {
		struct evictor evictor = { .catalog = catalog };

		assert_int_equal(pthread_create(&evictor.thread, NULL, evict_one, &evictor), 0);
		for (uint64_t spin = 0; spin < i * 100; spin++)
			atomic_thread_fence(memory_order_seq_cst);
		unpin_number(catalog, i);
		pthread_join(evictor.thread, NULL);
		assert_true(evictor.found);
		assert_true(is_number(&evictor.victim, i));
		end(catalog, &evictor.victim, KVK_EVICTED);
	}
	kvk_catalog_free(catalog);
}

/* The count of children ends at 65,535: such a parent goes when nothing else may. */
static void more_children_than_are_counted(void **state)
{
	enum { CHILDREN = 66000 };
	struct kvk_victim *victims = calloc(CHILDREN + 3, sizeof(*victims));
	struct kvk_catalog *catalog = new_with(KVK_POLICY_LRU);

	(void)state;
	assert_non_null(victims);
	put_below(catalog, 0, 1u << 30);
	for (uint64_t i = 1; i <= CHILDREN; i++)
		put_below(catalog, i, 0);
	put_below(catalog, CHILDREN + 1, 1u << 30);
	assert_int_equal(kvk_catalog_evict(catalog, UINT64_MAX, victims, CHILDREN + 3), CHILDREN + 2);
	assert_true(is_number(&victims[0], 1));
	assert_true(is_number(&victims[CHILDREN], CHILDREN + 1));
	assert_true(is_number(&victims[CHILDREN + 1], 0));
	kvk_catalog_free(catalog);
	free(victims);
}

/* Findings of before an eviction are out of date after it, however it ended; only what was chosen can be ended. */
static void ends_are_for_what_was_chosen(void **state)
{
	static const enum kvk_evict_end ends[] = { KVK_EVICTED, KVK_EVICT_KEPT, KVK_EVICT_ABSENT };

	(void)state;
	for (int i = 0; i < 3; i++) {
		struct kvk_catalog *catalog = new_with(KVK_POLICY_LRU);
		struct kvk_object_info info = info_of(1);
		struct digest digest = digest_number(1);
		struct kvk_catalog_ticket ticket;
		struct kvk_victim victim;
		uint64_t charge = 1;
		bool flag;

		put(catalog, &digest, 1);
		look(catalog, &digest, &ticket);
		kvk_catalog_evicted(catalog, digest.bytes, ends[i], 0, &charge);
		assert_int_equal(charge, 0);
		assert_int_equal(state_of(catalog, &digest), KVK_CATALOG_PRESENT);
		assert_int_equal(kvk_catalog_remove_begin(catalog, digest.bytes, &flag), 0);
		kvk_catalog_evicted(catalog, digest.bytes, ends[i], 0, &charge);
		assert_int_equal(state_of(catalog, &digest), KVK_CATALOG_LEAVING);
		kvk_catalog_remove_renamed(catalog, digest.bytes, false, &charge);

		look(catalog, &digest, &ticket);
		assert_int_equal(kvk_catalog_evict(catalog, PAGE, &victim, 1), 1);
		assert_int_equal(totals_of(catalog).objects, 0);
		assert_int_equal(totals_of(catalog).used_bytes, PAGE);
		assert_int_equal(kvk_catalog_put_begin(catalog, digest.bytes, PAGE, &flag), -EBUSY);
		kvk_catalog_remove_renamed(catalog, digest.bytes, true, &charge);
		assert_int_equal(charge, 0);
		assert_int_equal(state_of(catalog, &digest), KVK_CATALOG_LEAVING);
		kvk_catalog_evicted(catalog, victim.prefix, ends[i], 0, &charge);
		assert_int_equal(charge, ends[i] == KVK_EVICT_KEPT ? 0 : PAGE);
		assert_int_equal(totals_of(catalog).used_bytes, PAGE);
		assert_int_equal(kvk_catalog_found(catalog, digest.bytes, &ticket, &info, false), -ESTALE);
		assert_int_equal(state_of(catalog, &digest),
				 ends[i] == KVK_EVICT_KEPT ? KVK_CATALOG_PRESENT : KVK_CATALOG_UNKNOWN);
		kvk_catalog_credit(catalog, charge);
		assert_int_equal(totals_of(catalog).used_bytes, PAGE - charge);
		kvk_catalog_free(catalog);
	}
}

/* What others used goes later. */
static void kept_ones_move_back(void **state)
{
	struct kvk_catalog *catalog = new_with(KVK_POLICY_LRU);
	struct kvk_object_info info = info_of(1);
	struct kvk_victim victim;
	uint64_t charge;

	(void)state;
	for (uint64_t i = 1; i <= 5; i++) {
		struct digest digest = digest_number(i);

		info.used_at = i * 1000000;
		assert_int_equal(kvk_catalog_scanned(catalog, digest.bytes, &info), 0);
	}
	assert_int_equal(kvk_catalog_evict(catalog, 1, &victim, 1), 1);
	assert_int_equal(victim.used_at_ns, 1000000);
	kvk_catalog_evicted(catalog, victim.prefix, KVK_EVICT_KEPT, 3500000, &charge);
	assert_next(catalog, 2);
	assert_next(catalog, 3);
	assert_next(catalog, 1);
	assert_next(catalog, 4);
	assert_next(catalog, 5);
	kvk_catalog_free(catalog);
}

static uint64_t used_at_of(struct kvk_catalog *catalog, uint64_t number)
{
	struct digest digest = digest_number(number);
	struct kvk_prefix prefix = kvk_prefix_of(digest.bytes);
	struct kvk_shard *shard = &catalog->shards[kvk_prefix_shard(&prefix)];

	return kvk_shard_entry(shard, kvk_shard_find(shard, &prefix))->used_at;
}

/* Uses follow the clock, never go back, and do not run further ahead of it than a second. */
static void uses_follow_the_clock(void **state)
{
	const uint64_t start_us = UINT64_C(1795000000) * 1000000;
	struct kvk_catalog *catalog = new_with(KVK_POLICY_LRU);
	struct kvk_object_info info = info_of(1);
	struct digest future = digest_number(3);
	uint64_t before;

	(void)state;
	kvk_catalog_clock(catalog, start_us * 1000);
	put_below(catalog, 1, 1000);
	put_below(catalog, 2, 1000);
	assert_int_equal(used_at_of(catalog, 1), start_us + 1);
	assert_int_equal(used_at_of(catalog, 2), start_us + 2);
	for (uint32_t i = 0; i < 1100000; i++)
		use_number(catalog, 1 + i % 2);
	assert_int_equal(used_at_of(catalog, 1), start_us + 1000000);
	kvk_catalog_clock(catalog, (start_us + 5000000) * 1000);
	use_number(catalog, 1);
	assert_int_equal(used_at_of(catalog, 1), start_us + 5000001);

	/* Set back by an hour: on at its pace from where it was. */
	kvk_catalog_clock(catalog, (start_us - 3600000000) * 1000);
	use_number(catalog, 2);
	assert_int_equal(used_at_of(catalog, 2), start_us + 5000002);
	kvk_catalog_clock(catalog, (start_us - 3600000000 + 250000) * 1000);
	use_number(catalog, 1);
	assert_int_equal(used_at_of(catalog, 1), start_us + 5250001);
	kvk_catalog_clock(catalog, (start_us + 9000000) * 1000);
	use_number(catalog, 2);
	assert_int_equal(used_at_of(catalog, 2), start_us + 9000001);

	/* An access time of next year is no reason to keep something for a year. */
	info.used_at = (start_us + 31536000000000) * 1000;
	assert_int_equal(kvk_catalog_scanned(catalog, future.bytes, &info), 0);
	before = used_at_of(catalog, 3);
	assert_true(before <= start_us + 9000001);
	kvk_catalog_clock(catalog, UINT64_MAX);
	use_number(catalog, 1);
	assert_true(used_at_of(catalog, 1) > before);
	kvk_catalog_free(catalog);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(noop_evicts_nothing),
		cmocka_unit_test(bytes_are_reached_or_nothing_is_left),
		cmocka_unit_test(children_go_before_their_parents),
		cmocka_unit_test(a_long_chain_goes_from_its_end),
		cmocka_unit_test(a_pin_holds_all_above),
		cmocka_unit_test(whatever_ends_a_child_frees_its_parent),
		cmocka_unit_test(circles_end),
		cmocka_unit_test(nothing_to_evict_is_looked_for_once),
		cmocka_unit_test(a_pin_is_taken_off_during_the_search),
		cmocka_unit_test(more_children_than_are_counted),
		cmocka_unit_test(ends_are_for_what_was_chosen),
		cmocka_unit_test(kept_ones_move_back),
		cmocka_unit_test(uses_follow_the_clock),
	};

	return cmocka_run_group_tests_name("catalog_evict", tests, NULL, NULL);
}
