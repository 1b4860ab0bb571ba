/* SPDX-License-Identifier: Apache-2.0 */
/* What a store tells: usage, shares, lists, listeners; and what it refuses to listen to. */
#include "support/skip.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "store_bed.h"

/* ---- usage -------------------------------------------------------------------------------------- */

/* 0 when empty, more with each put, less with each remove; a fraction only under a cap. */
static void test_usage(void **state)
{
	struct bed *bed = *state;
	struct kvk_usage usage;

	bed_open(bed, "");
	usage = bed_usage(bed->store);
	assert_int_equal(usage.used_bytes, 0);
	assert_int_equal(usage.objects, 0);
	assert_int_equal(usage.cap_bytes, 0);
	assert_true(usage.used_fraction == -1);
	for (uint32_t i = 0; i < 5; i++) {
		char name[8];

		snprintf(name, sizeof(name), "u%u", i);
		assert_int_equal(bed_put(bed->store, name, 4096 * i + 1, 1, NULL), 0);
		usage = bed_usage(bed->store);
		assert_int_equal(usage.objects, i + 1);
		assert_int_equal(usage.used_bytes, (i + 1) * (i + 2) / 2 * 4096 + (i + 1) * 4096);
		BED_AGREES(bed->store);
	}
	assert_int_equal(bed_remove(bed->store, "u4", NULL), 0);
	BED_AGREES(bed->store);
	assert_int_equal(bed_usage(bed->store).used_bytes, 10 * 4096 + 4 * 4096);
	if (!bed_is_ram(bed)) {
		bed_reopen(bed, "params:\"max_capacity_gb\": \"0.25\"");
		assert_int_equal(bed_lookup(bed->store, "u0", 0, NULL), 0);
	} else {
		bed_reopen(bed, "params:\"max_capacity_gb\": \"0.25\"");
		assert_int_equal(bed_put(bed->store, "u0", 1, 1, NULL), 0);
	}
	usage = bed_usage(bed->store);
	assert_int_equal(usage.cap_bytes, 1 << 28);
	assert_true(usage.used_fraction == (bed->kind == BED_RAM ? 8192.0 : 14 * 4096.0) / (1 << 28));
}

/* ---- lists and shares --------------------------------------------------------------------------- */

#define OBJECTS 36u

/* Two models, three tenants (one without a name), six objects each. */
static uint32_t make_key(char text[200], uint32_t i)
{
	static const char *const models[] = { "llama", "qwen/2" };
	static const char *const salts[] = { "", "alice", "bob@home" };
	uint32_t hash = i * 2654435761u;
	struct kvk_key_fields fields = { .struct_bytes = sizeof(fields), .rank = i % 4, .group = 1,
		.model = bed_key(models[i % 2]), .hash = { .data = &hash, .bytes = sizeof(hash) },
		.salt = bed_key(salts[i / 2 % 3]) };
	int length = kvk_key_encode(&fields, text, 199);

	assert_true(length > 0);
	text[length] = 0;
	return (uint32_t)length;
}

static void put_all(struct kvk_store *store)
{
	char text[200];

	for (uint32_t i = 0; i < OBJECTS; i++) {
		make_key(text, i);
		assert_int_equal(bed_put(store, text, 100 + i, 1, NULL), 0);
	}
}

static void test_shares(void **state)
{
	struct bed *bed = *state;
	struct kvk_share shares[5];
	static const char *const names[2][3] = { { "", "alice", "bob@home" }, { "llama", "qwen/2", NULL } };

	bed_open(bed, "");
	put_all(bed->store);
	for (int i = 0; i < 5; i++)
		shares[i].struct_bytes = sizeof(shares[i]);
	for (uint32_t by = 0; by < 2; by++) {
		int count = kvk_store_shares(bed->store, (enum kvk_share_by)by, shares, 5);
		uint32_t seen = 0, named = by ? 2 : 3;

		assert_in_range(count, named, named + 1);
		for (int i = 0; i < count; i++) {
			for (uint32_t k = 0; k < named; k++) {
				if (shares[i].name_bytes != strlen(names[by][k]) ||
				    memcmp(shares[i].name, names[by][k], shares[i].name_bytes))
					continue;
				seen |= 1u << k;
				assert_int_equal(shares[i].objects, OBJECTS / named);
				assert_int_equal(shares[i].used_bytes, OBJECTS / named * 8192);
			}
		}
		assert_int_equal(seen, (1u << named) - 1);
		/* How many there are is told also when they do not fit. */
		assert_int_equal(kvk_store_shares(bed->store, (enum kvk_share_by)by, shares, 1), count);
		assert_int_equal(kvk_store_shares(bed->store, (enum kvk_share_by)by, NULL, 0), count);
	}
	assert_int_equal(kvk_store_shares(bed->store, (enum kvk_share_by)2, shares, 5), -EINVAL);
}

/* Walks pages of a length; returns how many entries there were, each seen once and in the same order as before. */
static uint32_t walk(struct kvk_store *store, struct kvk_list_query *query, uint32_t page, char names[][256])
{
	struct kvk_list_entry *entries = calloc(page, sizeof(*entries));
	uint32_t total = 0;
	char *cursor = NULL, *next;

	assert_non_null(entries);
	for (uint32_t i = 0; i < page; i++)
		entries[i].struct_bytes = sizeof(entries[i]);
	do {
		int count;

		next = NULL;
		query->cursor = cursor;
		count = kvk_store_list(store, query, entries, page, &next);
		assert_in_range(count, 0, page);
		for (int i = 0; i < count; i++, total++) {
			assert_true(total < OBJECTS);
			assert_true(total == 0 || strcmp(names[total - 1], entries[i].name) < 0);
			memcpy(names[total], entries[i].name, 256);
		}
		kvk_free(cursor);
		cursor = next;
	} while (cursor);
	query->cursor = NULL;
	free(entries);
	return total;
}

static void test_lists(void **state)
{
	struct bed *bed = *state;
	char (*names)[256] = calloc(2 * OBJECTS, 256);
	struct kvk_list_query query = { .struct_bytes = sizeof(query) };

	assert_non_null(names);
	bed_open(bed, "");
	assert_int_equal(walk(bed->store, &query, 5, names), 0);
	put_all(bed->store);
	assert_int_equal(walk(bed->store, &query, 64, names), OBJECTS);
	for (uint32_t page = 1; page < 9; page++) {
		assert_int_equal(walk(bed->store, &query, page, names + OBJECTS), OBJECTS);
		assert_memory_equal(names, names + OBJECTS, OBJECTS * 256);
	}
	query.model = bed_key("llama");
	assert_int_equal(walk(bed->store, &query, 4, names), OBJECTS / 2);
	query.salt = bed_key("alice");
	assert_int_equal(walk(bed->store, &query, 4, names), OBJECTS / 6);
	query.model = bed_key("llam");
	assert_int_equal(walk(bed->store, &query, 4, names), 0);
	query.model = (struct kvk_key){ 0 };
	assert_int_equal(walk(bed->store, &query, 4, names), OBJECTS / 3);
	query.salt = (struct kvk_key){ 0 };
	query.prefix = bed_key("qwen/2@00000001@");
	assert_int_equal(walk(bed->store, &query, 4, names), OBJECTS / 4);
	query.prefix = (struct kvk_key){ 0 };
	query.created_before_ns = 1;
	assert_int_equal(walk(bed->store, &query, 4, names), 0);
	query.created_before_ns = UINT64_MAX;
	assert_int_equal(walk(bed->store, &query, 4, names), OBJECTS);
	free(names);
}

/* ---- listeners ---------------------------------------------------------------------------------- */

struct listener {
	struct bed *bed;
	pthread_mutex_t lock;
	pthread_cond_t heard;
	uint32_t counts[4];
	uint32_t stored_but_not_found;
	uint32_t on_a_callers_thread;
	pthread_t caller;
	uint64_t gone;                 /* a bit a key k0 to k63 that is deleted */
	char last[64];
};

static void hear(void *user, const struct kvk_event *event)
{
	struct listener *listener = user;

	for (uint32_t i = 0; i < event->count; i++) {
		char name[64] = "";

		memcpy(name, event->keys[i].data, event->keys[i].bytes < 63 ? event->keys[i].bytes : 63);
		/* After the fact, and with no lock held: the store may be asked from here. */
		if (event->kind == KVK_EVENT_STORED && name[0] == 'k' && bed_lookup(listener->bed->store, name, 0, NULL))
			listener->stored_but_not_found++;
		pthread_mutex_lock(&listener->lock);
		listener->counts[event->kind]++;
		if (event->kind == KVK_EVENT_DELETED && name[0] == 'k')
			listener->gone |= UINT64_C(1) << (atoi(name + 1) & 63);
		listener->on_a_callers_thread += pthread_equal(pthread_self(), listener->caller) != 0;
		memcpy(listener->last, name, sizeof(name));
		pthread_cond_broadcast(&listener->heard);
		pthread_mutex_unlock(&listener->lock);
	}
}

static void await_counts(struct listener *listener, uint32_t stored, uint32_t accessed, uint32_t deleted)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 30;
	pthread_mutex_lock(&listener->lock);
	while (listener->counts[1] < stored || listener->counts[2] < accessed || listener->counts[3] < deleted) {
		if (pthread_cond_timedwait(&listener->heard, &listener->lock, &until))
			break;
	}
	pthread_mutex_unlock(&listener->lock);
	assert_int_equal(listener->counts[1], stored);
	assert_int_equal(listener->counts[2], accessed);
	assert_int_equal(listener->counts[3], deleted);
}

static void test_listeners(void **state)
{
	struct bed *bed = *state;
	struct listener listener = { .bed = bed, .lock = PTHREAD_MUTEX_INITIALIZER, .heard = PTHREAD_COND_INITIALIZER,
		.caller = pthread_self() };
	struct kvk_hooks hooks = { .struct_bytes = sizeof(hooks), .user = &listener, .event = hear };
	char name[8];

	bed->hooks = &hooks;
	bed_open(bed, "");
	for (int i = 0; i < 10; i++) {
		snprintf(name, sizeof(name), "k%d", i);
		assert_int_equal(bed_put(bed->store, name, 5000, 1, NULL), 0);
	}
	await_counts(&listener, 10, 0, 0);
	/* What is present already is not stored again. */
	assert_int_equal(bed_put(bed->store, "k0", 5000, 1, NULL), 0);
	assert_int_equal(bed_get(bed->store, "k1", 5000, 1, NULL), 0);
	assert_int_equal(bed_get(bed->store, "none", 5000, 1, NULL), -ENOENT);
	assert_int_equal(bed_get_how(bed->store, bed_key("k2"), 5000, 1, &(struct bed_how){ .flags = KVK_GET_PEEK }, NULL), 0);
	await_counts(&listener, 10, 1, 0);
	assert_int_equal(bed_lookup(bed->store, "k3", KVK_LOOKUP_PIN, NULL), 0);
	assert_int_equal(bed_lookup(bed->store, "none", KVK_LOOKUP_PIN, NULL), -ENOENT);
	assert_int_equal(bed_remove(bed->store, "k3", NULL), -EBUSY);
	assert_int_equal(bed_unpin(bed->store, "k3"), 0);
	await_counts(&listener, 10, 2, 0);
	assert_int_equal(bed_remove(bed->store, "k3", NULL), 0);
	assert_int_equal(bed_remove(bed->store, "none", NULL), -ENOENT);
	await_counts(&listener, 10, 2, 1);
	assert_string_equal(listener.last, "k3");
	/* A close delivers what is waiting, and nothing comes after it. */
	assert_int_equal(bed_remove(bed->store, "k4", NULL), 0);
	assert_int_equal(bed_close(bed), 0);
	await_counts(&listener, 10, 2, 2);
	assert_int_equal(listener.stored_but_not_found, 0);
	assert_int_equal(listener.on_a_callers_thread, 0);
}

/*
 * What the store removes itself is told by its keys, also where an earlier run stored it.
 */
static void test_listeners_hear_what_nobody_asked_for(void **state)
{
	static const char spec[] = "params:\"max_capacity_gb\": 0.0009765625; \"eviction\": {\"eviction_policy\": \"LRU\", "
		"\"trigger_watermark\": 1.0, \"eviction_ratio\": 0.1}";
	struct bed *bed = *state;
	struct listener listener = { .bed = bed, .lock = PTHREAD_MUTEX_INITIALIZER, .heard = PTHREAD_COND_INITIALIZER,
		.caller = pthread_self() };
	struct kvk_hooks hooks = { .struct_bytes = sizeof(hooks), .user = &listener, .event = hear };
	uint64_t missing = 0;
	char name[8];

	bed_open(bed, spec);
	for (int i = 0; i < 10; i++) {
		snprintf(name, sizeof(name), "k%d", i);
		assert_int_equal(bed_put(bed->store, name, 61440, 1, NULL), 0);
	}
	assert_int_equal(bed_close(bed), 0);
	bed->hooks = &hooks;
	bed_open(bed, spec);
	for (int i = 10; i < 30; i++) {
		snprintf(name, sizeof(name), "k%d", i);
		assert_int_equal(bed_put(bed->store, name, 61440, 1, NULL), 0);
	}
	for (int i = 0; i < 30; i++) {
		snprintf(name, sizeof(name), "k%d", i);
		if (bed_lookup(bed->store, name, 0, NULL))
			missing |= UINT64_C(1) << i;
	}
	assert_true(__builtin_popcountll(missing & 1023) > 0);
	assert_int_equal(bed_close(bed), 0);
	/* A close delivers what is waiting. */
	assert_int_equal(listener.gone & missing, missing);
	assert_true(listener.counts[3] >= 14);
}

/* ---- what is refused ---------------------------------------------------------------------------- */

static unsigned char byte;
static const struct iovec one = { .iov_base = &byte, .iov_len = 1 };
static const struct iovec nowhere = { .iov_base = NULL, .iov_len = 1 };
static const struct iovec huge[2] = { { &byte, (size_t)4 << 30 }, { &byte, 1 } };
static char long_key[1025];

#define PUT(...) { .struct_bytes = sizeof(struct kvk_put_item), .key = { "k", 1 }, __VA_ARGS__ }
#define GET(...) { .struct_bytes = sizeof(struct kvk_get_item), .key = { "k", 1 }, __VA_ARGS__ }
#define KEY(...) { .struct_bytes = sizeof(struct kvk_key_item), .key = { "k", 1 }, __VA_ARGS__ }
#define COUNT(array) (uint32_t)(sizeof(array) / sizeof((array)[0]))

static const struct kvk_put_item bad_puts[] = {
	PUT(.flags = KVK_LOOKUP_PIN), PUT(.flags = 1u << 31), PUT(.reserved = 1), PUT(.data_count = 1),
	PUT(.data = &nowhere, .data_count = 1), PUT(.data = huge, .data_count = 2),
	PUT(.meta = long_key, .meta_bytes = 257), PUT(.meta_bytes = 1), PUT(.parent = { NULL, 1 }),
	PUT(.parent = { long_key, 1025 }),
	{ .struct_bytes = sizeof(struct kvk_put_item) },
	{ .struct_bytes = sizeof(struct kvk_put_item), .key = { long_key, 1025 } },
	{ .struct_bytes = sizeof(struct kvk_put_item), .key = { NULL, 1 } },
	{ .struct_bytes = sizeof(struct kvk_put_item) - 8, .key = { "k", 1 } },
	{ .struct_bytes = sizeof(struct kvk_put_item) + 4, .key = { "k", 1 } },
	{ .struct_bytes = 0, .key = { "k", 1 } },
};

static const struct kvk_get_item bad_gets[] = {
	GET(.flags = KVK_LOOKUP_PIN), GET(.flags = 1u << 31), GET(.data_count = 1),
	GET(.data = &nowhere, .data_count = 1), GET(.data = huge, .data_count = 2), GET(.flags = KVK_KEY_IS_DIGEST),
	GET(.flags = KVK_KEY_IS_NAME), GET(.flags = KVK_GET_PEEK | KVK_KEY_IS_NAME | KVK_KEY_IS_DIGEST),
	{ .struct_bytes = sizeof(struct kvk_get_item) },
	{ .struct_bytes = sizeof(struct kvk_get_item), .key = { long_key, 1025 } },
	{ .struct_bytes = sizeof(struct kvk_get_item), .key = { "a\0b", 3 }, .flags = KVK_GET_PEEK | KVK_KEY_IS_NAME },
	{ .struct_bytes = sizeof(struct kvk_get_item), .key = { long_key, 1000 }, .flags = KVK_GET_PEEK | KVK_KEY_IS_NAME },
	{ .struct_bytes = sizeof(struct kvk_get_item) - 8, .key = { "k", 1 } },
};

static const struct kvk_key_item bad_keys[] = {
	KEY(.flags = KVK_MEM_HELD), KEY(.flags = 1u << 31), KEY(.reserved = 1), KEY(.flags = KVK_KEY_IS_DIGEST),
	{ .struct_bytes = sizeof(struct kvk_key_item), .key = { long_key, 32 }, .flags = KVK_KEY_IS_DIGEST | KVK_LOOKUP_PIN },
	{ .struct_bytes = sizeof(struct kvk_key_item) },
	{ .struct_bytes = sizeof(struct kvk_key_item), .key = { long_key, 1025 } },
	{ .struct_bytes = sizeof(struct kvk_key_item) - 8, .key = { "k", 1 } },
};

/* A malformed item, wherever in a batch, refuses the whole batch; nothing of it is done or answered. */
static void test_arguments(void **state)
{
	struct bed *bed = *state;
	struct kvk_result results[2] = { { .struct_bytes = sizeof(results[0]) }, { .struct_bytes = sizeof(results[0]) } };
	const struct kvk_key_item fine = KEY();
	struct kvk_stats stats;

	memset(long_key, 'x', sizeof(long_key));
	bed_open(bed, "");
	for (uint32_t i = 0; i < COUNT(bad_puts); i++) {
		const struct kvk_put_item items[2] = { PUT(.data = &one, .data_count = 1), bad_puts[i] };

		if (kvk_store_put(bed->store, items, 2, 0) != -EINVAL ||
		    kvk_store_put(bed->store, items + 1, 1, 0) != -EINVAL ||
		    kvk_store_put_wait(bed->store, items, 2, 0, results) != -EINVAL)
			fail_msg("malformed put %u was taken", i);
	}
	for (uint32_t i = 0; i < COUNT(bad_gets); i++) {
		const struct kvk_get_item items[2] = { GET(.data = &one, .data_count = 1), bad_gets[i] };

		if (kvk_store_get(bed->store, items, 2, 0) != -EINVAL ||
		    kvk_store_get(bed->store, items + 1, 1, 0) != -EINVAL ||
		    kvk_store_get_wait(bed->store, items, 2, 0, results) != -EINVAL)
			fail_msg("malformed get %u was taken", i);
	}
	for (uint32_t i = 0; i < COUNT(bad_keys); i++) {
		const struct kvk_key_item items[2] = { KEY(), bad_keys[i] };

		if (kvk_store_lookup(bed->store, items, 2, 0) != -EINVAL ||
		    kvk_store_lookup_wait(bed->store, items, 2, 0, results) != -EINVAL ||
		    kvk_store_unpin(bed->store, items, 2) != -EINVAL ||
		    kvk_store_unpin_wait(bed->store, items, 2, results) != -EINVAL ||
		    kvk_store_remove(bed->store, items, 2, 0) != -EINVAL ||
		    kvk_store_remove_wait(bed->store, items, 2, 0, results) != -EINVAL)
			fail_msg("malformed key item %u was taken", i);
	}
	assert_int_equal(kvk_store_lookup(bed->store, NULL, 1, 0), -EINVAL);
	assert_int_equal(kvk_store_lookup(bed->store, &fine, 0, 0), -EINVAL);
	assert_int_equal(kvk_store_lookup(bed->store, &fine, KVK_BATCH_ITEMS_MAX + 1, 0), -EINVAL);
	assert_int_equal(kvk_store_lookup_wait(bed->store, &fine, 1, 0, NULL), -EINVAL);
	results[0].struct_bytes = sizeof(results[0]) - 8;
	assert_int_equal(kvk_store_lookup_wait(bed->store, &fine, 1, 0, results), -EINVAL);

	stats = bed_stats(bed->store);
	assert_int_equal(stats.puts + stats.gets + stats.lookups + stats.removes, 0);
	for (int i = 0; i < KVK_QUEUE_COUNT; i++)
		assert_int_equal(kvk_store_wait(bed->store, (enum kvk_queue)i, 0), 0);
	assert_int_equal(bed_list(bed->store).objects, 0);
}

/* Structs of a later version are longer: their length is the distance between elements, here and there. */
static void test_longer_structs(void **state)
{
	struct bed *bed = *state;
	struct { struct kvk_put_item item; uint64_t later[3]; } puts[3] = { 0 };
	struct { struct kvk_key_item item; uint64_t later; } keys[3] = { 0 };
	struct { struct kvk_result result; uint64_t later[2]; } results[3] = { 0 };
	struct { struct kvk_usage usage; uint64_t later; } usage = { .usage.struct_bytes = sizeof(usage), .later = 7 };
	struct kvk_usage short_usage = { .struct_bytes = sizeof(short_usage) - 8 };
	struct { struct kvk_list_entry entry; uint64_t later; } *entries = calloc(3, sizeof(*entries));
	static const char *const names[3] = { "l0", "l1", "l2" };
	char *cursor = NULL;

	assert_non_null(entries);
	bed_open(bed, "");
	for (uint32_t i = 0; i < 3; i++) {
		puts[i].item = (struct kvk_put_item){ .struct_bytes = sizeof(puts[0]), .key = bed_key(names[i]), .user = i };
		keys[i].item = (struct kvk_key_item){ .struct_bytes = sizeof(keys[0]), .key = bed_key(names[i]), .user = i };
		results[i].result.struct_bytes = sizeof(results[0]);
		results[i].later[0] = results[i].later[1] = 7;
		entries[i].entry.struct_bytes = sizeof(entries[0]);
		entries[i].later = 7;
	}
	assert_int_equal(kvk_store_put_wait(bed->store, &puts[0].item, 3, 0, &results[0].result), 0);
	for (uint32_t i = 0; i < 3; i++) {
		assert_int_equal(results[i].result.status, 0);
		assert_int_equal(results[i].result.user, i);
		assert_int_equal(results[i].result.struct_bytes, sizeof(results[0]));
		assert_int_equal(results[i].later[0] + results[i].later[1], 14);
	}
	assert_true(kvk_store_lookup(bed->store, &keys[0].item, 3, 0) > 0);
	assert_int_equal(kvk_store_drain(bed->store, KVK_QUEUE_LOOKUP, &results[0].result, 3), 3);
	for (uint32_t i = 0; i < 3; i++) {
		assert_int_equal(results[i].result.status, 0);
		assert_int_equal(results[i].result.user, i);
		assert_int_equal(results[i].later[0] + results[i].later[1], 14);
	}
	assert_int_equal(kvk_store_list(bed->store, NULL, &entries[0].entry, 3, &cursor), 3);
	kvk_free(cursor);
	for (uint32_t i = 0; i < 3; i++) {
		assert_int_equal(entries[i].entry.key_bytes, 2);
		assert_int_equal(entries[i].later, 7);
	}
	assert_int_equal(kvk_store_usage(bed->store, &usage.usage), 0);
	assert_int_equal(usage.usage.objects, 3);
	assert_int_equal(usage.later, 7);
	assert_int_equal(kvk_store_usage(bed->store, &short_usage), -EINVAL);
	assert_int_equal(kvk_store_list(bed->store, NULL, &entries[0].entry, 0, &cursor), -EINVAL);
	entries[0].entry.struct_bytes = sizeof(struct kvk_list_entry) - 8;
	assert_int_equal(kvk_store_list(bed->store, NULL, &entries[0].entry, 1, &cursor), -EINVAL);
	free(entries);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BED_TESTS(test_usage),
		BED_TESTS_ALL_PAGES(test_shares),
		BED_TESTS_ALL(test_lists),
		BED_TESTS_ALL(test_listeners),
		BED_TESTS_POSIX(test_listeners_hear_what_nobody_asked_for),
		BED_TEST(test_arguments, BED_RAM, "ram"),
		BED_TEST(test_longer_structs, BED_RAM, "ram"),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
