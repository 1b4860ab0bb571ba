/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the catalog share: digests made to measure, short forms of its calls, books that must add
 * up. */
#ifndef KVK_TESTS_CATALOG_KIT_H
#define KVK_TESTS_CATALOG_KIT_H

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "catalog/catalog.h"
#include "catalog/catalog_private.h"
#include "util/alloc.h"

#define PAGE UINT64_C(4096)
#define LEASE (1000 * PAGE)

struct digest {
	uint8_t bytes[32];
};

/* Shard, group, home slot and tag as wanted, so that collisions can be arranged. */
static inline struct digest digest_at(uint32_t shard, uint32_t group, uint64_t home)
{
	uint64_t words[4] = { shard | group << KVK_SHARD_BITS, home, 3, 4 };
	struct digest digest;

	memcpy(digest.bytes, words, sizeof(words));
	return digest;
}

static inline struct digest digest_number(uint64_t number)
{
	uint64_t words[4];
	struct digest digest;

	for (uint32_t i = 0; i < 4; i++) {
		uint64_t z = number * 4 + i + UINT64_C(0x9e3779b97f4a7c15);

		z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
		z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
		words[i] = z ^ (z >> 31);
	}
	memcpy(digest.bytes, words, sizeof(words));
	return digest;
}

static inline struct kvk_object_info info_of(uint64_t pages)
{
	return (struct kvk_object_info){
		.logical_bytes = pages * PAGE - 1, .charge_bytes = pages * PAGE, .published = true,
	};
}

static inline int64_t room_of(struct kvk_catalog *catalog)
{
	return atomic_load(&catalog->room_bytes);
}

static inline struct kvk_catalog_totals totals_of(struct kvk_catalog *catalog)
{
	struct kvk_catalog_totals totals;

	kvk_catalog_totals(catalog, &totals);
	return totals;
}

static inline int look(struct kvk_catalog *catalog, const struct digest *digest, struct kvk_catalog_ticket *ticket)
{
	return kvk_catalog_look(catalog, digest->bytes, false, false, ticket, NULL);
}

static inline int state_of(struct kvk_catalog *catalog, const struct digest *digest)
{
	struct kvk_catalog_ticket ticket;

	return look(catalog, digest, &ticket);
}

static inline void put(struct kvk_catalog *catalog, const struct digest *digest, uint64_t pages)
{
	struct kvk_object_info info = info_of(pages);
	bool durable;

	assert_int_equal(kvk_catalog_put_begin(catalog, digest->bytes, pages * PAGE, &durable), 0);
	kvk_catalog_put_end(catalog, digest->bytes, &info);
}

static inline void remove_object(struct kvk_catalog *catalog, const struct digest *digest, uint64_t pages)
{
	uint64_t charge = 1;
	bool pinned = false;

	assert_int_equal(kvk_catalog_remove_begin(catalog, digest->bytes, &pinned), 0);
	kvk_catalog_remove_renamed(catalog, digest->bytes, true, &charge);
	assert_int_equal(charge, pages * PAGE);
	kvk_catalog_credit(catalog, charge);
	kvk_catalog_add_room(catalog, (int64_t)charge);
}

static inline void remove_number(struct kvk_catalog *catalog, uint64_t number)
{
	struct digest digest = digest_number(number);

	remove_object(catalog, &digest, 1);
}

static inline int setup(void **state)
{
	return kvk_catalog_new((struct kvk_catalog **)state, LEASE, NULL);
}

struct books {
	uint64_t used_bytes;
	uint64_t used_at;
	bool in_order;
};

static inline bool add_to_books(void *user, const uint8_t prefix[16], const struct kvk_object_info *info)
{
	struct books *books = user;

	books->used_bytes += info->charge_bytes;
	books->in_order &= info->used_at >= books->used_at;
	books->used_at = info->used_at;
	return true;
}

/* Whatever a test did: what is used is what is told one by one, in order. */
static inline int teardown(void **state)
{
	struct kvk_catalog *catalog = *state;
	struct books books = { .used_bytes = atomic_load(&catalog->loose_bytes), .in_order = true };
	uint64_t used_bytes = totals_of(catalog).used_bytes;
	int err = 0;

	for (uint32_t shard = 0; shard < KVK_SHARDS; shard++) {
		books.used_at = 0;
		if (kvk_catalog_visit(catalog, shard, add_to_books, &books))
			err = -1;
	}
	kvk_catalog_free(catalog);
	if (books.used_bytes != used_bytes)
		print_error("%" PRIu64 " bytes are used, one by one %" PRIu64 "\n", used_bytes, books.used_bytes);
	return err || books.used_bytes != used_bytes || !books.in_order ? -1 : 0;
}

#define WITH_LEASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

#endif
