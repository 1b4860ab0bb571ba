/* SPDX-License-Identifier: Apache-2.0 */
/* What the catalog promises, call by call: states, the lease, tickets, pins. */
#include "catalog_kit.h"

/* Every call in every state. */
static void answers_by_state(void **state)
{
	static const struct {
		int put, look, found, remove;
		uint32_t objects;
	} expected[] = {
		[KVK_CATALOG_UNKNOWN] = { 0, KVK_CATALOG_UNKNOWN, 0, 0, 0 },
		[KVK_CATALOG_WRITING] = { -EALREADY, KVK_CATALOG_WRITING, -EALREADY, -EBUSY, 0 },
		[KVK_CATALOG_PRESENT] = { -EEXIST, KVK_CATALOG_PRESENT, 0, 0, 1 },
		[KVK_CATALOG_LEAVING] = { -EBUSY, KVK_CATALOG_LEAVING, -EBUSY, -EBUSY, 0 },
	};
	struct digest digest = digest_number(1);
	struct kvk_object_info info = info_of(2);

	(void)state;
	for (int in = KVK_CATALOG_UNKNOWN; in <= KVK_CATALOG_LEAVING; in++) {
		for (int call = 0; call < 4; call++) {
			struct kvk_catalog *catalog = NULL;
			struct kvk_catalog_ticket ticket;
			bool pinned = true;
			bool durable = true;

			assert_int_equal(kvk_catalog_new(&catalog, LEASE, NULL), 0);
			if (in == KVK_CATALOG_WRITING)
				assert_int_equal(kvk_catalog_put_begin(catalog, digest.bytes, 1, &durable), 0);
			if (in == KVK_CATALOG_PRESENT || in == KVK_CATALOG_LEAVING)
				put(catalog, &digest, 2);
			if (in == KVK_CATALOG_LEAVING)
				assert_int_equal(kvk_catalog_remove_begin(catalog, digest.bytes, &pinned), 0);
			assert_int_equal(look(catalog, &digest, &ticket), expected[in].look);
			assert_int_equal(totals_of(catalog).objects, expected[in].objects);
			switch (call) {
			case 0:
				assert_int_equal(kvk_catalog_put_begin(catalog, digest.bytes, 1, &durable),
						 expected[in].put);
				assert_int_equal(durable, in != KVK_CATALOG_PRESENT);   /* else untouched */
				break;
			case 1:
				assert_int_equal(kvk_catalog_found(catalog, digest.bytes, &ticket, &info, true),
						 expected[in].found);
				assert_int_equal(kvk_catalog_pins(catalog, digest.bytes), expected[in].found == 0);
				break;
			case 2:
				pinned = true;
				assert_int_equal(kvk_catalog_remove_begin(catalog, digest.bytes, &pinned),
						 expected[in].remove);
				assert_int_equal(pinned, expected[in].remove == 0);
				break;
			default:
				kvk_catalog_unpin(catalog, digest.bytes);
				kvk_catalog_lost(catalog, digest.bytes, &ticket);
				assert_int_equal(state_of(catalog, &digest),
						 in == KVK_CATALOG_PRESENT ? KVK_CATALOG_UNKNOWN : in);
				break;
			}
			kvk_catalog_free(catalog);
		}
	}
	kvk_catalog_free(NULL);
}

static void put_settles_what_it_reserved(void **state)
{
	static const struct {
		uint64_t reserved, charged;
		int64_t room;          /* if this put published it */
	} rows[] = {
		{ 5 * PAGE, 5 * PAGE, 995 }, { 5 * PAGE, 2 * PAGE, 998 }, { 2 * PAGE, 7 * PAGE, 993 },
		{ 1, 1, 999 }, { 0, 0, 1000 }, { 1000 * PAGE, 1001 * PAGE, -1 },
	};
	struct kvk_catalog *catalog = *state;

	for (size_t i = 0; i < 2 * sizeof(rows) / sizeof(rows[0]); i++) {
		bool published = i % 2;
		uint64_t reserved = rows[i / 2].reserved;
		uint64_t charged = rows[i / 2].charged;
		int64_t room = published ? rows[i / 2].room * (int64_t)PAGE : (int64_t)LEASE;
		struct kvk_object_info info = {
			.logical_bytes = 1, .charge_bytes = charged, .published = published,
		};
		struct digest digest = digest_number(i);
		struct kvk_catalog_ticket ticket;
		bool durable;

		assert_int_equal(kvk_catalog_put_begin(catalog, digest.bytes, reserved, &durable), 0);
		assert_int_equal(totals_of(catalog).writing_bytes, (reserved + PAGE - 1) / PAGE * PAGE);
		assert_int_equal(totals_of(catalog).used_bytes, 0);
		kvk_catalog_put_end(catalog, digest.bytes, &info);
		assert_int_equal(totals_of(catalog).writing_bytes, 0);
		assert_int_equal(totals_of(catalog).used_bytes, (charged + PAGE - 1) / PAGE * PAGE);
		assert_int_equal(room_of(catalog), room);
		assert_int_equal(look(catalog, &digest, &ticket), KVK_CATALOG_PRESENT);
		kvk_catalog_lost(catalog, digest.bytes, &ticket);
		assert_int_equal(totals_of(catalog).used_bytes, 0);
		assert_int_equal(room_of(catalog), room);
		kvk_catalog_add_room(catalog, (int64_t)LEASE - room);

		assert_int_equal(kvk_catalog_put_begin(catalog, digest.bytes, reserved, &durable), 0);
		kvk_catalog_put_end(catalog, digest.bytes, NULL);
		assert_int_equal(state_of(catalog, &digest), KVK_CATALOG_UNKNOWN);
		assert_int_equal(room_of(catalog), LEASE);
	}
}

/* Found, lost, removed, freed: the medium has more or less, and this process may publish as much as before. */
static void only_puts_move_the_lease(void **state)
{
	struct kvk_catalog *catalog = *state;
	struct digest big = digest_number(1);
	struct digest other = digest_number(2);
	struct kvk_object_info info = info_of(1500);
	struct kvk_catalog_ticket ticket;
	bool durable;

	assert_int_equal(kvk_catalog_put_begin(catalog, big.bytes, LEASE + 1, &durable), -ENOSPC);
	assert_int_equal(kvk_catalog_put_begin(catalog, big.bytes, UINT64_MAX, &durable), -ENOSPC);
	assert_int_equal(totals_of(catalog).writing_bytes, 0);
	assert_int_equal(look(catalog, &big, &ticket), KVK_CATALOG_UNKNOWN);
	assert_int_equal(kvk_catalog_found(catalog, big.bytes, &ticket, &info, false), 0);
	assert_int_equal(kvk_catalog_scanned(catalog, other.bytes, &info), 0);
	assert_int_equal(totals_of(catalog).used_bytes, 3000 * PAGE);
	look(catalog, &big, &ticket);
	kvk_catalog_lost(catalog, big.bytes, &ticket);
	look(catalog, &other, &ticket);
	kvk_catalog_lost(catalog, other.bytes, &ticket);
	kvk_catalog_charge(catalog, 7 * PAGE);
	kvk_catalog_credit(catalog, 7 * PAGE);
	assert_int_equal(totals_of(catalog).used_bytes, 0);
	assert_int_equal(room_of(catalog), LEASE);
	assert_int_equal(kvk_catalog_room(catalog), LEASE);

	assert_int_equal(kvk_catalog_take_room(catalog, LEASE - PAGE), LEASE - PAGE);
	assert_int_equal(kvk_catalog_put_begin(catalog, other.bytes, 2 * PAGE, &durable), -ENOSPC);
	assert_int_equal(kvk_catalog_put_begin(catalog, other.bytes, PAGE, &durable), 0);
	assert_int_equal(kvk_catalog_take_room(catalog, 1), 0);
	kvk_catalog_put_end(catalog, other.bytes, NULL);
	assert_int_equal(kvk_catalog_take_room(catalog, UINT64_MAX), PAGE);
	kvk_catalog_add_room(catalog, -3 * (int64_t)PAGE);
	assert_int_equal(kvk_catalog_room(catalog), 0);
	assert_int_equal(kvk_catalog_take_room(catalog, UINT64_MAX), 0);
	assert_int_equal(kvk_catalog_put_begin(catalog, other.bytes, 0, &durable), -ENOSPC);
	assert_int_equal(room_of(catalog), -3 * (int64_t)PAGE);
}

static void no_limit_is_no_limit(void **state)
{
	struct kvk_catalog *catalog = NULL;
	struct digest digest = digest_number(1);
	bool durable;

	(void)state;
	assert_int_equal(kvk_catalog_new(&catalog, UINT64_MAX, NULL), 0);
	kvk_catalog_add_room(catalog, INT64_MIN);
	for (uint64_t i = 0; i < 3; i++) {
		struct digest many = digest_number(i);

		assert_int_equal(kvk_catalog_put_begin(catalog, many.bytes, UINT64_MAX, &durable), 0);
	}
	assert_int_equal(totals_of(catalog).writing_bytes, 3 * ((UINT64_C(8) << 30) - 4096));
	assert_int_equal(kvk_catalog_take_room(catalog, 1), 0);
	assert_int_equal(kvk_catalog_room(catalog), UINT64_MAX);
	kvk_catalog_put_end(catalog, digest.bytes, NULL);
	kvk_catalog_free(catalog);
}

static void removed_bytes_stay_charged_until_credit(void **state)
{
	struct kvk_catalog *catalog = *state;
	struct digest digest = digest_number(1);
	uint64_t charge = 0;
	bool pinned = false;

	put(catalog, &digest, 10);
	assert_int_equal(kvk_catalog_remove_begin(catalog, digest.bytes, &pinned), 0);
	assert_int_equal(totals_of(catalog).used_bytes, 10 * PAGE);
	kvk_catalog_remove_renamed(catalog, digest.bytes, false, &charge);
	assert_int_equal(charge, 0);
	assert_int_equal(state_of(catalog, &digest), KVK_CATALOG_PRESENT);
	assert_int_equal(totals_of(catalog).objects, 1);

	assert_int_equal(kvk_catalog_remove_begin(catalog, digest.bytes, &pinned), 0);
	kvk_catalog_remove_renamed(catalog, digest.bytes, true, &charge);
	assert_int_equal(charge, 10 * PAGE);
	assert_int_equal(state_of(catalog, &digest), KVK_CATALOG_UNKNOWN);
	assert_int_equal(totals_of(catalog).used_bytes, 10 * PAGE);
	assert_int_equal(room_of(catalog), LEASE - 10 * PAGE);
	kvk_catalog_credit(catalog, 4 * PAGE);
	assert_int_equal(totals_of(catalog).used_bytes, 6 * PAGE);
	kvk_catalog_credit(catalog, 100 * PAGE);       /* more than is charged */
	assert_int_equal(totals_of(catalog).used_bytes, 0);
	assert_int_equal(room_of(catalog), LEASE - 10 * PAGE);

	kvk_catalog_charge(catalog, 3 * PAGE);
	assert_int_equal(totals_of(catalog).used_bytes, 3 * PAGE);

	/* What memory does not know was never charged. */
	for (int removed = 0; removed < 2; removed++) {
		charge = 1;
		assert_int_equal(kvk_catalog_remove_begin(catalog, digest.bytes, &pinned), 0);
		assert_int_equal(state_of(catalog, &digest), KVK_CATALOG_LEAVING);
		kvk_catalog_remove_renamed(catalog, digest.bytes, removed, &charge);
		assert_int_equal(charge, 0);
		assert_int_equal(state_of(catalog, &digest), KVK_CATALOG_UNKNOWN);
	}
	charge = 1;
	kvk_catalog_remove_renamed(catalog, digest.bytes, true, &charge);      /* nothing was begun */
	assert_int_equal(charge, 0);
}

/* What may happen between asking and telling, and what the finding is worth then. */
enum between {
	NOTHING, FOUND, PUT_FAILED, PUT, PUT_REMOVED, REMOVED, REMOVE_FAILED, FOUND_LOST, FOUND_REMOVED, FOUND_LOST_PUT,
	FOUND_LOST_FOUND, BETWEEN_COUNT,
};

static void happens(struct kvk_catalog *catalog, const struct digest *digest, enum between what)
{
	struct kvk_object_info info = info_of(7);
	struct kvk_catalog_ticket ticket;
	uint64_t charge;
	bool pinned, durable;

	if (what == FOUND || what >= FOUND_LOST) {
		look(catalog, digest, &ticket);
		assert_int_equal(kvk_catalog_found(catalog, digest->bytes, &ticket, &info, false), 0);
	}
	if (what == FOUND_LOST || what == FOUND_LOST_PUT || what == FOUND_LOST_FOUND) {
		look(catalog, digest, &ticket);
		kvk_catalog_lost(catalog, digest->bytes, &ticket);
		look(catalog, digest, &ticket);
	}
	if (what == FOUND_LOST_FOUND)
		assert_int_equal(kvk_catalog_found(catalog, digest->bytes, &ticket, &info, false), 0);
	if (what == PUT_FAILED) {
		assert_int_equal(kvk_catalog_put_begin(catalog, digest->bytes, 1, &durable), 0);
		kvk_catalog_put_end(catalog, digest->bytes, NULL);
	}
	if (what == PUT || what == PUT_REMOVED || what == FOUND_LOST_PUT)
		put(catalog, digest, 7);
	if (what == PUT_REMOVED || what == REMOVED || what == FOUND_REMOVED || what == REMOVE_FAILED) {
		assert_int_equal(kvk_catalog_remove_begin(catalog, digest->bytes, &pinned), 0);
		kvk_catalog_remove_renamed(catalog, digest->bytes, what != REMOVE_FAILED, &charge);
		kvk_catalog_credit(catalog, charge);
	}
}

static void findings_out_of_date_are_not_taken(void **state)
{
	static const int expected[BETWEEN_COUNT] = {
		[NOTHING] = 0, [FOUND] = 0, [PUT_FAILED] = -ESTALE, [PUT] = -ESTALE, [PUT_REMOVED] = -ESTALE,
		[REMOVED] = -ESTALE, [REMOVE_FAILED] = -ESTALE, [FOUND_LOST] = -ESTALE, [FOUND_REMOVED] = -ESTALE,
		[FOUND_LOST_PUT] = -ESTALE, [FOUND_LOST_FOUND] = -ESTALE,
	};
	struct kvk_object_info info = info_of(7);

	(void)state;
	for (int what = 0; what < BETWEEN_COUNT; what++) {
		struct digest digest = digest_number(1);
		struct kvk_catalog_ticket before;
		struct kvk_catalog *catalog = NULL;
		uint64_t used;
		int known;

		assert_int_equal(kvk_catalog_new(&catalog, LEASE, NULL), 0);
		assert_int_equal(look(catalog, &digest, &before), KVK_CATALOG_UNKNOWN);
		happens(catalog, &digest, (enum between)what);
		known = state_of(catalog, &digest);
		used = totals_of(catalog).used_bytes;
		if (kvk_catalog_found(catalog, digest.bytes, &before, &info, true) != expected[what])
			fail_msg("found() after event %d did not answer %d", what, expected[what]);
		if (expected[what] == 0) {
			assert_int_equal(totals_of(catalog).used_bytes, 7 * PAGE);     /* once */
			assert_int_equal(kvk_catalog_pins(catalog, digest.bytes), 1);
		} else {
			assert_int_equal(state_of(catalog, &digest), known);
			assert_int_equal(totals_of(catalog).used_bytes, used);
			assert_int_equal(kvk_catalog_pins(catalog, digest.bytes), 0);
		}
		kvk_catalog_free(catalog);
	}
}

/* The same for tickets of an object that was present: lost() must not touch the next life, nor must a pin. */
static void a_ticket_is_for_one_life(void **state)
{
	struct kvk_catalog *catalog = *state;
	struct digest digest = digest_number(1);
	struct kvk_object_info info = info_of(3);
	struct kvk_catalog_ticket unknown, first, second, later;
	struct kvk_object_info seen;
	uint64_t charge;
	bool pinned;

	look(catalog, &digest, &unknown);
	put(catalog, &digest, 3);
	look(catalog, &digest, &first);
	kvk_catalog_lost(catalog, digest.bytes, &unknown);
	assert_int_equal(state_of(catalog, &digest), KVK_CATALOG_PRESENT);
	assert_int_equal(kvk_catalog_found(catalog, digest.bytes, &first, &info, false), 0);
	remove_object(catalog, &digest, 3);
	assert_int_equal(kvk_catalog_found(catalog, digest.bytes, &first, &info, false), -ESTALE);
	put(catalog, &digest, 4);
	kvk_catalog_lost(catalog, digest.bytes, &first);
	kvk_catalog_set_durable(catalog, digest.bytes, &first);
	assert_int_equal(kvk_catalog_found(catalog, digest.bytes, &first, &info, true), -ESTALE);
	assert_int_equal(kvk_catalog_look(catalog, digest.bytes, false, false, &second, &seen), KVK_CATALOG_PRESENT);
	assert_false(seen.durable);
	assert_int_equal(seen.charge_bytes, 4 * PAGE);
	assert_int_equal(seen.logical_bytes, 4 * PAGE - 1);
	kvk_catalog_set_durable(catalog, digest.bytes, &second);
	look(catalog, &digest, &later);
	assert_memory_equal(&second, &later, sizeof(second));

	assert_int_equal(kvk_catalog_remove_begin(catalog, digest.bytes, &pinned), 0);
	kvk_catalog_lost(catalog, digest.bytes, &second);
	assert_int_equal(state_of(catalog, &digest), KVK_CATALOG_LEAVING);
	kvk_catalog_remove_renamed(catalog, digest.bytes, false, &charge);
	kvk_catalog_lost(catalog, digest.bytes, &second);
	assert_int_equal(kvk_catalog_look(catalog, digest.bytes, false, false, &later, &seen), KVK_CATALOG_PRESENT);
	assert_true(seen.durable);
	kvk_catalog_lost(catalog, digest.bytes, &later);
	assert_int_equal(state_of(catalog, &digest), KVK_CATALOG_UNKNOWN);
}

static uint64_t objects_of(struct kvk_catalog *catalog)
{
	struct kvk_catalog_totals totals;

	kvk_catalog_totals(catalog, &totals);
	return totals.objects;
}

/* Who took a name away tells so by the ticket of before: what was listed in between goes, what was put stays, and is doubted. */
static void what_was_moved_aside_is_lost(void **state)
{
	struct kvk_catalog *catalog = *state;
	struct digest digest = digest_number(1);
	struct kvk_object_info info = info_of(3);
	struct kvk_catalog_ticket unknown, present;
	uint64_t charge;
	bool pinned, durable;

	info.source = KVK_SOURCE_NAME;
	look(catalog, &digest, &unknown);
	kvk_catalog_moved_aside(catalog, digest.bytes, &unknown);
	/* Who found it before it was moved comes too late. */
	assert_int_equal(kvk_catalog_found(catalog, digest.bytes, &unknown, &info, false), -ESTALE);
	look(catalog, &digest, &unknown);
	assert_int_equal(kvk_catalog_scanned(catalog, digest.bytes, &info), KVK_CATALOG_WANTS_FOOTER);
	kvk_catalog_lost(catalog, digest.bytes, &unknown);
	assert_int_equal(objects_of(catalog), 1);
	kvk_catalog_moved_aside(catalog, digest.bytes, &unknown);
	assert_int_equal(objects_of(catalog), 0);
	assert_int_equal(state_of(catalog, &digest), KVK_CATALOG_UNKNOWN);

	/* A put that ends with having found it may have done so before it was moved: who asks next asks the medium. */
	look(catalog, &digest, &unknown);
	assert_int_equal(kvk_catalog_put_begin(catalog, digest.bytes, info.charge_bytes, &durable), 0);
	kvk_catalog_moved_aside(catalog, digest.bytes, &unknown);
	info.source = KVK_SOURCE_FOOTER;
	kvk_catalog_put_end(catalog, digest.bytes, &info);
	assert_int_equal(look(catalog, &digest, &present), KVK_CATALOG_UNKNOWN);
	kvk_catalog_lost(catalog, digest.bytes, &present);
	assert_int_equal(objects_of(catalog), 0);

	look(catalog, &digest, &unknown);
	put(catalog, &digest, 3);
	kvk_catalog_moved_aside(catalog, digest.bytes, &unknown);
	assert_int_equal(objects_of(catalog), 1);
	assert_int_equal(look(catalog, &digest, &present), KVK_CATALOG_UNKNOWN);
	assert_int_equal(kvk_catalog_found(catalog, digest.bytes, &present, &info, false), 0);
	assert_int_equal(look(catalog, &digest, &present), KVK_CATALOG_PRESENT);
	assert_int_equal(kvk_catalog_remove_begin(catalog, digest.bytes, &pinned), 0);
	kvk_catalog_moved_aside(catalog, digest.bytes, &present);
	assert_int_equal(state_of(catalog, &digest), KVK_CATALOG_LEAVING);
	kvk_catalog_remove_renamed(catalog, digest.bytes, false, &charge);
	look(catalog, &digest, &present);
	kvk_catalog_moved_aside(catalog, digest.bytes, &present);
	assert_int_equal(state_of(catalog, &digest), KVK_CATALOG_UNKNOWN);
}

/* A version that comes round must not look like "not known". */
static void versions_wrap(void **state)
{
	struct kvk_catalog *catalog = *state;
	struct digest digest = digest_at(5, 9, 0);
	struct kvk_object_info info = info_of(1);
	struct kvk_catalog_ticket unknown, present;

	catalog->shards[5].versions[9] = UINT32_MAX;
	look(catalog, &digest, &unknown);
	put(catalog, &digest, 1);
	look(catalog, &digest, &present);
	assert_int_not_equal(present.entry_version, 0);
	assert_int_equal(kvk_catalog_found(catalog, digest.bytes, &unknown, &info, false), -ESTALE);
}

static void neighbours_do_not_make_tickets_stale(void **state)
{
	struct kvk_catalog *catalog = *state;
	struct digest mine = digest_at(7, 1, 100);
	struct kvk_object_info info = info_of(1);
	struct kvk_catalog_ticket ticket;

	look(catalog, &mine, &ticket);
	for (uint32_t group = 2; group < KVK_GROUPS; group++) {
		struct digest other = digest_at(7, group, 100);

		put(catalog, &other, 1);
		remove_object(catalog, &other, 1);
	}
	assert_int_equal(kvk_catalog_found(catalog, mine.bytes, &ticket, &info, false), 0);
}

static void pins_are_counted_and_bounded(void **state)
{
	struct kvk_catalog *catalog = *state;
	struct digest digest = digest_number(1);
	struct kvk_object_info info = info_of(1);
	struct kvk_catalog_ticket ticket;
	struct kvk_catalog_ticket untouched = { 17, 18 };
	bool pinned = false;

	put(catalog, &digest, 1);
	for (uint32_t i = 1; i <= UINT16_MAX; i++) {
		assert_int_equal(kvk_catalog_look(catalog, digest.bytes, true, false, &ticket, NULL),
				 KVK_CATALOG_PRESENT);
		assert_int_equal(kvk_catalog_pins(catalog, digest.bytes), i);
	}
	assert_int_equal(kvk_catalog_look(catalog, digest.bytes, true, false, &untouched, NULL), -EOVERFLOW);
	assert_int_equal(untouched.shard_version, 17);
	assert_int_equal(kvk_catalog_found(catalog, digest.bytes, &ticket, &info, true), -EOVERFLOW);
	assert_int_equal(totals_of(catalog).pinned_objects, 1);
	assert_int_equal(kvk_catalog_remove_begin(catalog, digest.bytes, &pinned), -EBUSY);
	assert_true(pinned);
	for (uint32_t i = UINT16_MAX; i > 0; i--) {
		assert_int_equal(totals_of(catalog).pinned_objects, 1);
		kvk_catalog_unpin(catalog, digest.bytes);
	}
	assert_int_equal(totals_of(catalog).pinned_objects, 0);
	kvk_catalog_unpin(catalog, digest.bytes);
	assert_int_equal(kvk_catalog_pins(catalog, digest.bytes), 0);
}

/* A pin is the key's until it is taken off, whatever becomes of the object: lost, stored anew, in vain or not, and found. */
static void pins_outlive_their_object(void **state)
{
	struct kvk_catalog *catalog = *state;
	struct kvk_object_info info = info_of(2);
	struct digest digest = digest_number(1);
	struct kvk_catalog_ticket ticket, old;
	bool durable, pinned;

	for (int ends = 0; ends < 4; ends++) {
		put(catalog, &digest, 1);
		for (int pins = 0; pins < 3; pins++)
			assert_int_equal(kvk_catalog_look(catalog, digest.bytes, true, false, &old, NULL), KVK_CATALOG_PRESENT);
		kvk_catalog_lost(catalog, digest.bytes, &old);
		assert_int_equal(kvk_catalog_pins(catalog, digest.bytes), 3);
		assert_int_equal(totals_of(catalog).pinned_objects, 1);
		assert_int_equal(totals_of(catalog).objects, 0);
		assert_int_equal(totals_of(catalog).used_bytes, 0);
		/* Whoever asks now asks the medium, and pins nothing by asking; what was found before is out of date. */
		assert_int_equal(kvk_catalog_look(catalog, digest.bytes, true, false, &ticket, NULL), KVK_CATALOG_UNKNOWN);
		assert_int_equal(kvk_catalog_found(catalog, digest.bytes, &old, &info, true), -ESTALE);
		kvk_catalog_lost(catalog, digest.bytes, &old);
		assert_int_equal(kvk_catalog_pins(catalog, digest.bytes), 3);
		/* It may be there all the same, stored by others. */
		pinned = false;
		assert_int_equal(kvk_catalog_remove_begin(catalog, digest.bytes, &pinned), -EBUSY);
		assert_true(pinned);
		/* Two puts of it fail: a pool that is in pieces, for instance. */
		for (int failed = 0; failed < 2; failed++) {
			assert_int_equal(kvk_catalog_put_begin(catalog, digest.bytes, 2 * PAGE, &durable), 0);
			assert_int_equal(kvk_catalog_pins(catalog, digest.bytes), 3);
			assert_int_equal(kvk_catalog_remove_begin(catalog, digest.bytes, &pinned), -EBUSY);
			assert_false(pinned);
			kvk_catalog_put_end(catalog, digest.bytes, NULL);
			assert_int_equal(kvk_catalog_pins(catalog, digest.bytes), 3);
			assert_int_equal(totals_of(catalog).pinned_objects, 1);
			assert_int_equal(totals_of(catalog).writing_bytes, 0);
		}
		if (ends == 0)
			assert_int_equal(kvk_catalog_put_begin(catalog, digest.bytes, 2 * PAGE, &durable), 0);
		kvk_catalog_unpin(catalog, digest.bytes);
		assert_int_equal(kvk_catalog_pins(catalog, digest.bytes), 2);
		info.published = true;
		if (ends == 0) {
			kvk_catalog_put_end(catalog, digest.bytes, &info);
		} else if (ends == 1) {
			look(catalog, &digest, &ticket);
			assert_int_equal(kvk_catalog_found(catalog, digest.bytes, &ticket, &info, false), 0);
		} else if (ends == 2) {
			assert_int_equal(kvk_catalog_scanned(catalog, digest.bytes, &info), 0);
		}
		if (ends < 3) {
			assert_int_equal(totals_of(catalog).used_bytes, 2 * PAGE);
			assert_false(kvk_catalog_may_leave(catalog, digest.bytes));
			pinned = false;
			assert_int_equal(kvk_catalog_remove_begin(catalog, digest.bytes, &pinned), -EBUSY);
			assert_true(pinned);
		}
		assert_int_equal(totals_of(catalog).pinned_objects, 1);
		kvk_catalog_unpin(catalog, digest.bytes);
		assert_int_equal(totals_of(catalog).pinned_objects, 1);
		kvk_catalog_unpin(catalog, digest.bytes);
		assert_int_equal(totals_of(catalog).pinned_objects, 0);
		kvk_catalog_unpin(catalog, digest.bytes);
		if (ends < 3)
			remove_object(catalog, &digest, 2);
		/* Nothing is left of it. */
		for (uint32_t i = 0; i < KVK_SHARDS; i++)
			assert_int_equal(catalog->shards[i].entry_count, 0);
	}
}

/* Pins without objects are in the way of nothing, and the index that grows over them keeps them. */
static void pins_of_what_is_gone_are_kept_in_a_growing_index(void **state)
{
	enum { KEYS = 1000 };
	struct kvk_catalog *catalog = *state;
	struct kvk_catalog_ticket ticket;

	kvk_catalog_add_room(catalog, 2 * KEYS * PAGE);
	for (uint64_t i = 0; i < 2 * KEYS; i++) {
		struct digest digest = digest_at(3, (uint32_t)(i % KVK_GROUPS), i);

		put(catalog, &digest, 1);
		assert_int_equal(kvk_catalog_look(catalog, digest.bytes, i < KEYS, false, &ticket, NULL), KVK_CATALOG_PRESENT);
		kvk_catalog_lost(catalog, digest.bytes, &ticket);
	}
	assert_int_equal(totals_of(catalog).pinned_objects, KEYS);
	assert_int_equal(catalog->shards[3].entry_count, KEYS);
	for (uint64_t i = 0; i < 2 * KEYS; i++) {
		struct digest digest = digest_at(3, (uint32_t)(i % KVK_GROUPS), i);

		assert_int_equal(kvk_catalog_pins(catalog, digest.bytes), i < KEYS);
		kvk_catalog_unpin(catalog, digest.bytes);
	}
	assert_int_equal(totals_of(catalog).pinned_objects, 0);
	assert_int_equal(catalog->shards[3].entry_count, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers_by_state),
		WITH_LEASE(put_settles_what_it_reserved),
		WITH_LEASE(only_puts_move_the_lease),
		cmocka_unit_test(no_limit_is_no_limit),
		WITH_LEASE(removed_bytes_stay_charged_until_credit),
		cmocka_unit_test(findings_out_of_date_are_not_taken),
		WITH_LEASE(a_ticket_is_for_one_life),
		WITH_LEASE(what_was_moved_aside_is_lost),
		WITH_LEASE(versions_wrap),
		WITH_LEASE(neighbours_do_not_make_tickets_stale),
		WITH_LEASE(pins_are_counted_and_bounded),
		WITH_LEASE(pins_outlive_their_object),
		WITH_LEASE(pins_of_what_is_gone_are_kept_in_a_growing_index),
	};

	return cmocka_run_group_tests_name("catalog", tests, NULL, NULL);
}
