/* SPDX-License-Identifier: Apache-2.0 */
/* The catalog over a close: what goes in comes out, and nothing comes out of what is damaged, stale or another store's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "catalog/catalog.h"
#include "control/snapshot.h"
#include "format/bytes.h"
#include "format/format.h"
#include "util/alloc.h"

#define OBJECTS 60

struct fixture {
	struct kvk_backend *backend;
	struct kvk_catalog *catalog;
};

static void new_catalog(struct fixture *fixture)
{
	kvk_catalog_free(fixture->catalog);
	fixture->catalog = NULL;
	assert_int_equal(kvk_catalog_new(&fixture->catalog, UINT64_MAX, NULL), 0);
}

static int setup(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));
	struct kvk_backend_options options = { .create = true };

	assert_non_null(fixture);
	assert_int_equal(kvk_backend_ram.open(&fixture->backend, &options, NULL), 0);
	new_catalog(fixture);
	*state = fixture;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fixture = *state;

	kvk_catalog_free(fixture->catalog);
	fixture->backend->ops->close(fixture->backend);
	free(fixture);
	return 0;
}

static struct kvk_snapshot_what what(struct fixture *fixture, uint64_t epoch)
{
	struct kvk_snapshot_what is = { .backend = fixture->backend, .catalog = fixture->catalog, .epoch = epoch };

	memcpy(is.store_id, "0123456789abcdef", 16);
	return is;
}

static void id_of(uint8_t id[KVK_DIGEST_BYTES], uint32_t i)
{
	char text[16];

	snprintf(text, sizeof(text), "object %u", i);
	assert_int_equal(kvk_name_digest(id, text), 0);
}

static uint64_t logical_of(uint32_t i)
{
	return i * UINT64_C(1000003) % 7000000000u;
}

/* Each fifth is the child of the one before; the last ten are known by name only. */
static void fill(struct fixture *fixture)
{
	for (uint32_t i = 0; i < OBJECTS; i++) {
		char tenant[32], model[32];
		struct kvk_object_info info = {
			.logical_bytes = logical_of(i), .charge_bytes = (i + 1) * UINT64_C(4096), .durable = i % 2,
			.used_at = (1000000 + (i * 17) % OBJECTS) * UINT64_C(1000), .tenant = tenant, .model = model,
			.source = i < OBJECTS - 10 ? KVK_SOURCE_FOOTER : KVK_SOURCE_NAME,
		};
		uint8_t id[KVK_DIGEST_BYTES];

		info.tenant_bytes = i % 3 ? (uint32_t)snprintf(tenant, sizeof(tenant), "tenant %u", i % 3) : 0;
		info.model_bytes = (uint32_t)snprintf(model, sizeof(model), "model %u", i % 4);
		if (i % 5 == 1)
			id_of(info.parent_digest, i - 1);
		id_of(id, i);
		assert_in_range(kvk_catalog_scanned(fixture->catalog, id, &info), 0, 1);
	}
}

struct seen {
	uint32_t count, parents;
};

static bool check_one(void *user, const uint8_t prefix[16], const struct kvk_object_info *info)
{
	static const uint8_t none[16];
	struct seen *seen = user;
	uint8_t id[KVK_DIGEST_BYTES];
	char text[32];
	uint32_t i = 0;

	do {
		id_of(id, i);
	} while (memcmp(id, prefix, 16) && ++i < OBJECTS);
	assert_true(i < OBJECTS - 10);
	assert_int_equal(info->source, KVK_SOURCE_SNAPSHOT);
	assert_int_equal(info->logical_bytes, logical_of(i));
	assert_int_equal(info->charge_bytes, (i + 1) * UINT64_C(4096));
	assert_int_equal(info->used_at, (1000000 + (i * 17) % OBJECTS) * UINT64_C(1000));
	assert_int_equal(info->durable, i % 2);
	assert_int_equal(info->tenant_bytes, i % 3 ? snprintf(text, sizeof(text), "tenant %u", i % 3) : 0);
	if (info->tenant_bytes)
		assert_memory_equal(info->tenant, text, info->tenant_bytes);
	assert_int_equal(info->model_bytes, snprintf(text, sizeof(text), "model %u", i % 4));
	assert_memory_equal(info->model, text, info->model_bytes);
	if (memcmp(info->parent_digest, none, 16)) {
		id_of(id, i - 1);
		assert_memory_equal(info->parent_digest, id, 16);
		seen->parents++;
	}
	seen->count++;
	return true;
}

static void test_comes_back_as_it_was(void **state)
{
	struct fixture *fixture = *state;
	struct kvk_catalog_ticket ticket;
	struct seen seen = { 0, 0 };
	struct kvk_snapshot_what is;
	uint8_t id[KVK_DIGEST_BYTES];
	uint64_t count = 0;

	fill(fixture);
	is = what(fixture, 5);
	assert_int_equal(kvk_snapshot_save(&is), 0);
	new_catalog(fixture);
	is = what(fixture, 5);
	assert_int_equal(kvk_snapshot_load(&is, &count), 0);
	assert_int_equal(count, OBJECTS - 10);
	for (uint32_t shard = 0; shard < KVK_CATALOG_SHARDS; shard++)
		assert_int_equal(kvk_catalog_visit(fixture->catalog, shard, check_one, &seen), 0);
	assert_int_equal(seen.count, OBJECTS - 10);
	assert_int_equal(seen.parents, 10);
	/* It answers nothing before a listing has shown the name. */
	id_of(id, 7);
	assert_int_equal(kvk_catalog_look(fixture->catalog, id, false, false, &ticket, NULL), KVK_CATALOG_UNKNOWN);
	assert_int_equal(kvk_catalog_scanned(fixture->catalog, id, &(struct kvk_object_info){
			 .charge_bytes = 8 * 4096, .used_at = 1, .source = KVK_SOURCE_NAME }), 0);
	assert_int_equal(kvk_catalog_look(fixture->catalog, id, false, false, &ticket, NULL), KVK_CATALOG_PRESENT);
	/* Of another length: it is what the listing says, and its footer is wanted. */
	id_of(id, 8);
	assert_int_equal(kvk_catalog_scanned(fixture->catalog, id, &(struct kvk_object_info){
			 .charge_bytes = 80 * 4096, .used_at = 1, .source = KVK_SOURCE_NAME }),
			 KVK_CATALOG_WANTS_FOOTER);
	assert_int_equal(kvk_catalog_look(fixture->catalog, id, false, false, &ticket, NULL), KVK_CATALOG_UNKNOWN);
	assert_true(kvk_catalog_wants_footer(fixture->catalog, id, &ticket));
}

/* What the listing does not show is not there. */
static void test_what_is_gone_goes(void **state)
{
	struct fixture *fixture = *state;
	struct kvk_catalog_totals totals;
	struct kvk_snapshot_what is;
	uint8_t id[KVK_DIGEST_BYTES];
	uint64_t count;

	fill(fixture);
	is = what(fixture, 5);
	assert_int_equal(kvk_snapshot_save(&is), 0);
	new_catalog(fixture);
	is = what(fixture, 5);
	assert_int_equal(kvk_snapshot_load(&is, &count), 0);
	kvk_catalog_forget_seen(fixture->catalog, -1);
	for (uint32_t i = 0; i < 20; i++) {
		id_of(id, i);
		assert_int_equal(kvk_catalog_scanned(fixture->catalog, id, &(struct kvk_object_info){
				 .charge_bytes = (i + 1) * UINT64_C(4096), .used_at = 1, .source = KVK_SOURCE_NAME }), 0);
	}
	assert_int_equal(kvk_catalog_lose_unseen(fixture->catalog, -1), OBJECTS - 10 - 20);
	kvk_catalog_totals(fixture->catalog, &totals);
	assert_int_equal(totals.objects, 20);
	assert_int_equal(totals.used_bytes, 20 * 21 / 2 * 4096);
}

static void expect_refused(struct fixture *fixture, int err, const char *how, uint64_t where)
{
	struct kvk_snapshot_what is = what(fixture, 5);
	struct kvk_catalog_totals totals;
	uint64_t count = 12345;
	int got = kvk_snapshot_load(&is, &count);

	kvk_catalog_totals(fixture->catalog, &totals);
	if (got != err || count != 12345 || totals.objects != 0)
		fail_msg("%s %llu: %d, must be %d; %llu objects", how, (unsigned long long)where, got, err,
			 (unsigned long long)totals.objects);
}

static void save_bytes(struct fixture *fixture, const void *data, uint64_t bytes)
{
	assert_int_equal(fixture->backend->ops->save_file(fixture->backend, "snapshot", data, bytes, false), 0);
}

static void test_every_flip_and_every_cut_is_refused(void **state)
{
	struct fixture *fixture = *state;
	struct kvk_snapshot_what is;
	uint64_t bytes, longer;
	uint8_t *data;
	void *loaded;

	expect_refused(fixture, -ENOENT, "nothing", 0);
	fill(fixture);
	is = what(fixture, 5);
	assert_int_equal(kvk_snapshot_save(&is), 0);
	assert_int_equal(fixture->backend->ops->load_file(fixture->backend, "snapshot", &loaded, &bytes, 1 << 20), 0);
	new_catalog(fixture);
	data = calloc(1, bytes + 4096);
	memcpy(data, loaded, bytes);
	for (uint64_t bit = 0; bit < 8 * bytes; bit++) {
		data[bit / 8] ^= (uint8_t)(1u << bit % 8);
		save_bytes(fixture, data, bytes);
		expect_refused(fixture, -EBADMSG, "bit", bit);
		data[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	for (uint64_t cut = 0; cut < bytes; cut++) {
		save_bytes(fixture, data, cut);
		expect_refused(fixture, -EBADMSG, "cut to", cut);
	}
	for (longer = bytes + 1; longer < bytes + 200; longer++) {
		save_bytes(fixture, data, longer);
		expect_refused(fixture, -EBADMSG, "grown to", longer);
	}
	/* Another version, and flags that are not known, under a CRC that is right. */
	for (uint32_t at = 8; at <= 12; at += 4) {
		memcpy(data, loaded, bytes);
		data[at] ^= 2;
		kvk_put32(data + 92, kvk_crc32c(data, 92, 0));
		save_bytes(fixture, data, bytes);
		expect_refused(fixture, -EPROTO, "newer", at);
	}
	/* An object fewer, or more, than what follows, and again the head's CRC is right. */
	for (int more = -1; more <= 1; more += 2) {
		memcpy(data, loaded, bytes);
		kvk_put64(data + 48, kvk_get64(data + 48) + (uint64_t)(int64_t)more);
		kvk_put32(data + 92, kvk_crc32c(data, 92, 0));
		save_bytes(fixture, data, bytes);
		expect_refused(fixture, -EBADMSG, "objects more", (uint64_t)(int64_t)more);
	}
	/* What nobody writes where zeros belong, and flags of objects that are not known, under sums that are right. */
	for (uint64_t at = 16; at < KVK_SNAPSHOT_HEAD_BYTES + 2 * KVK_SNAPSHOT_OBJECT_BYTES; at++) {
		uint64_t in_object = (at - KVK_SNAPSHOT_HEAD_BYTES) % KVK_SNAPSHOT_OBJECT_BYTES;

		if (at < KVK_SNAPSHOT_HEAD_BYTES ? (at >= 24 && at < 68) || at >= 92 : in_object < 60)
			continue;
		memcpy(data, loaded, bytes);
		data[at] ^= 0x82;
		kvk_put32(data + 92, kvk_crc32c(data, 92, 0));
		kvk_put32(data + bytes - 8, kvk_crc32c(data + KVK_SNAPSHOT_HEAD_BYTES, bytes - KVK_SNAPSHOT_HEAD_BYTES - 8, 0));
		save_bytes(fixture, data, bytes);
		expect_refused(fixture, -EBADMSG, "zero", at);
	}
	save_bytes(fixture, loaded, bytes);
	is = what(fixture, 5);
	assert_int_equal(kvk_snapshot_load(&is, &longer), 0);
	kvk_mem_free(loaded);
	free(data);
}

static void test_stale_and_foreign_are_refused(void **state)
{
	struct fixture *fixture = *state;
	struct kvk_snapshot_what is;

	fill(fixture);
	for (uint64_t epoch = 3; epoch < 8; epoch++) {
		is = what(fixture, epoch);
		if (epoch == 5)
			is.store_id[3] ^= 1;
		assert_int_equal(kvk_snapshot_save(&is), 0);
		new_catalog(fixture);
		expect_refused(fixture, -ESTALE, "epoch", epoch);
		fill(fixture);
	}
}

/* Names and objects that say what cannot be, under sums that are right: nothing is read outside. */
static void test_wild_names_are_none(void **state)
{
	uint8_t names[16] = { 3, 0, 'a', 'b', 'c', 255, 255, 1, 0 };

	assert_int_equal(kvk_snapshot_get_name(names, 8, 1).bytes, 3);
	assert_int_equal(kvk_snapshot_get_name(names, 8, 0).bytes, 0);
	assert_null(kvk_snapshot_get_name(names, 8, 6).data);
	assert_null(kvk_snapshot_get_name(names, 8, 8).data);
	assert_null(kvk_snapshot_get_name(names, 8, 9).data);
	assert_null(kvk_snapshot_get_name(names, 8, UINT32_MAX).data);
	assert_null(kvk_snapshot_get_name(names, 0, 1).data);
	assert_null(kvk_snapshot_get_name(names, 4, 1).data);
}

/* A head and names that would not fit: neither counted nor written, to the last byte that does. */
static void test_too_much_is_refused(void **state)
{
	struct kvk_snapshot_head head = { .names_bytes = 8 };
	uint8_t names[12] = { 0 };
	uint32_t used = 0;
	uint64_t most;

	assert_int_equal(kvk_snapshot_bytes(&head), KVK_SNAPSHOT_HEAD_BYTES + 8 + KVK_SNAPSHOT_END_BYTES);
	most = (KVK_SNAPSHOT_BYTES_MAX - kvk_snapshot_bytes(&head)) / KVK_SNAPSHOT_OBJECT_BYTES;
	head.object_count = most;
	assert_in_range(kvk_snapshot_bytes(&head), KVK_SNAPSHOT_BYTES_MAX - KVK_SNAPSHOT_OBJECT_BYTES + 1, KVK_SNAPSHOT_BYTES_MAX);
	head.object_count = most + 1;
	assert_int_equal(kvk_snapshot_bytes(&head), 0);
	head.object_count = 0;
	head.names_bytes = 7;
	assert_int_equal(kvk_snapshot_bytes(&head), 0);
	head.names_bytes = (uint32_t)KVK_SNAPSHOT_BYTES_MAX;
	assert_int_equal(kvk_snapshot_bytes(&head), 0);

	assert_int_equal(kvk_snapshot_put_name(names, sizeof(names), &used, "abcdef", 6), 1);
	assert_int_equal(used, 8);
	assert_int_equal(kvk_snapshot_put_name(names, sizeof(names), &used, "abc", 3), 0);
	assert_int_equal(kvk_snapshot_put_name(names, sizeof(names), &used, "ab", UINT16_MAX + 1), 0);
	assert_int_equal(used, 8);
	assert_int_equal(kvk_snapshot_put_name(names, sizeof(names), &used, "ab", 2), 9);
	assert_int_equal(used, sizeof(names));
	assert_int_equal(kvk_snapshot_put_name(names, sizeof(names), &used, "", 0), 0);
}

static void test_out_of_memory(void **state)
{
	struct fixture *fixture = *state;
	bool failed = true;

	for (uint64_t nth = 1; failed; nth++) {
		struct kvk_snapshot_what is;
		uint64_t count;
		int err;

		new_catalog(fixture);
		fill(fixture);
		is = what(fixture, 5);
		kvk_mem_fail_nth(nth, false);
		err = kvk_snapshot_save(&is);
		failed = kvk_mem_has_failed();
		kvk_mem_fail_nth(0, false);
		assert_int_equal(err, failed ? -ENOMEM : 0);
		if (failed)
			continue;
		for (bool again = true; again;) {
			new_catalog(fixture);
			is = what(fixture, 5);
			kvk_mem_fail_nth(nth, false);
			err = kvk_snapshot_load(&is, &count);
			again = kvk_mem_has_failed();
			kvk_mem_fail_nth(0, false);
			nth++;
			assert_true(again || err == 0);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_comes_back_as_it_was, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_is_gone_goes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_every_flip_and_every_cut_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stale_and_foreign_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wild_names_are_none, setup, teardown),
		cmocka_unit_test(test_too_much_is_refused),
		cmocka_unit_test_setup_teardown(test_out_of_memory, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
