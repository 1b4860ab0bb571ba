/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The nth allocation fails, once or from then on, in a life of a store from open to close; n grows until none fails.
 * Nothing crashes or leaks, whatever was answered with success holds, and a store that lives goes on when memory is back.
 */
#include "support/proof.h"
#include "support/skip.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store_bed.h"
#include "util/alloc.h"

#define BYTES 70000u
#define SPEC "\"lanes\": 1, \"namespace\": {\"model\": \"m\"}"

static void hear(void *user, const struct kvk_event *event)
{
}

static const struct kvk_hooks hooks = { .struct_bytes = sizeof(hooks), .event = hear };

/* What each step answered. */
struct life {
	int open, put, get, get_held, lookup, other, remove, status, listed;
	int put_after, get_after, remove_after;
};

static const char *told(uint64_t nth, bool for_ever)
{
	static char text[80];

	snprintf(text, sizeof(text), "allocation %llu %s", (unsigned long long)nth, for_ever ? "and all after it" : "once");
	return text;
}

static bool is_one_of(int status, int a, int b)
{
	return status == 0 || status == -ENOMEM || status == a || status == b;
}

/* One life. Failing is switched off before what was answered is checked. */
static bool live(struct bed *bed, uint64_t nth, bool for_ever)
{
	static const struct bed_how held = { .flags = KVK_MEM_HELD, .aligned = true };
	struct kvk_list_entry *entry = calloc(1, sizeof(*entry));
	struct kvk_error error = { .struct_bytes = sizeof(error) };
	struct life is = { 0 };
	char *cursor = NULL, *text = NULL;
	int unpin = 0;
	bool failed;

	assert_non_null(entry);
	entry->struct_bytes = sizeof(*entry);
	kvk_mem_fail_nth(nth, for_ever);
	is.open = bed_try_open(bed, SPEC, &error);
	if (is.open == 0) {
		is.put = bed_put(bed->store, "a", BYTES, 1, NULL);
		is.get = bed_get(bed->store, "a", BYTES, 1, NULL);
		is.get_held = bed_get_how(bed->store, bed_key("a"), BYTES, 1, &held, NULL);
		is.lookup = bed_lookup(bed->store, "a", KVK_LOOKUP_PIN, NULL);
		unpin = is.lookup ? 0 : bed_unpin(bed->store, "a");
		is.other = bed_lookup(bed->store, "never stored", 0, NULL);
		is.listed = kvk_store_list(bed->store, NULL, entry, 1, &cursor);
		is.status = kvk_store_status(bed->store, &text);
		is.remove = bed_remove(bed->store, "a", NULL);
	}
	failed = kvk_mem_has_failed();
	kvk_mem_fail_nth(0, false);
	kvk_free(cursor);
	kvk_free(text);
	free(entry);
	if (unpin) {
		/* The pin is still there, and nothing else. */
		assert_int_equal(unpin, -ENOMEM);
		assert_int_equal(bed_usage(bed->store).pinned_objects, 1);
		assert_int_equal(bed_unpin(bed->store, "a"), 0);
	}

	if (is.open) {
		if (is.open != -ENOMEM || !error.text[0])
			fail_msg("%s: open says %d, \"%s\"", told(nth, for_ever), is.open, error.text);
		assert_null(bed->store);
		return true;
	}
	if (!is_one_of(is.put, 0, 0) || !is_one_of(is.get, -ENOENT, 0) || !is_one_of(is.get_held, -ENOENT, 0) ||
	    !is_one_of(is.lookup, -ENOENT, 0) || !is_one_of(is.remove, -ENOENT, unpin ? -EBUSY : -ENOENT) ||
	    !is_one_of(is.other, -ENOENT, -ENOENT) || (is.status && is.status != -ENOMEM) ||
	    (is.listed < 0 && is.listed != -ENOMEM))
		fail_msg("%s: put %d, get %d, held %d, lookup %d, list %d, status %d, remove %d", told(nth, for_ever), is.put,
			 is.get, is.get_held, is.lookup, is.listed, is.status, is.remove);
	/* What was stored is there until it was removed. */
	if (bed_get(bed->store, "a", BYTES, 1, NULL) != (is.put == 0 && is.remove != 0 ? 0 : -ENOENT))
		fail_msg("%s: put %d, remove %d, and then it is %sthere", told(nth, for_ever), is.put, is.remove,
			 is.put == 0 && is.remove != 0 ? "not " : "");
	is.put_after = bed_put(bed->store, "b", BYTES, 1, NULL);
	is.get_after = bed_get(bed->store, "b", BYTES, 1, NULL);
	is.remove_after = bed_remove(bed->store, "b", NULL);
	if (is.put_after || is.get_after || is.remove_after)
		fail_msg("%s: the store does not go on: put %d, get %d, remove %d", told(nth, for_ever), is.put_after,
			 is.get_after, is.remove_after);
	if (is.put == 0 && is.remove != 0)
		assert_int_equal(bed_remove(bed->store, "a", NULL), 0);
	if (bed_disagrees(bed->store))
		fail_msg("%s: %s", told(nth, for_ever), bed_disagrees(bed->store));
	if (!failed && !for_ever)
		assert_true(is.put == 0 && is.get == 0 && is.get_held == 0 && is.lookup == 0 && is.remove == 0 &&
			    is.listed == 1 && is.status == 0 && is.other == -ENOENT);
	assert_int_equal(bed_close(bed), 0);
	return failed;
}

static void test_nth_allocation(void **state)
{
	struct bed *bed = *state;
	uint64_t nth = 1;

	/* Made whole once, and skipped where the mechanism is not to be had. */
	bed_open(bed, SPEC);
	assert_int_equal(bed_close(bed), 0);
	bed->hooks = &hooks;
	while (live(bed, nth, false))
		nth++;
	assert_true(nth > 10);
	for (uint64_t all = 1; all < nth; all++)
		live(bed, all, true);
	/* Each of them once, and each from then on. */
	proof_tell(3, 2 * (nth - 1), "allocations", atomic_load(&bed_wrong_answers));
}

/* Closing needs no memory. */
static void test_closing_without_memory(void **state)
{
	struct bed *bed = *state;

	bed_open(bed, "\"persist_enabled\": true");
	assert_int_equal(bed_put(bed->store, "a", BYTES, 1, NULL), 0);
	kvk_mem_fail_nth(1, true);
	assert_int_equal(bed_close(bed), 0);
	kvk_mem_fail_nth(0, false);
	if (bed_is_ram(bed))
		return;
	bed_open(bed, "");
	assert_int_equal(bed_get(bed->store, "a", BYTES, 1, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BED_TESTS_ALL(test_nth_allocation),
		BED_TESTS_ALL(test_closing_without_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
