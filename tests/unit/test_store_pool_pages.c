/* SPDX-License-Identifier: Apache-2.0 */
/* Pages of a pool that hold something else than this version wrote there: what a newer version writes, and damage. */
#include "../seal.h"
#include "unit/store_kit.h"

#include "format/format.h"

#define PAGE 4096u
#define SLOTS 10u
#define VERSION_AT 8
#define WRITER_AT 64

static int open_pool(struct bed *bed, struct kvk_error *error)
{
	char spec[400];

	snprintf(spec, sizeof(spec), "{\"type\": \"nixl_store\", \"pool_size\": %u, \"slot_size\": 4096, \"io_engine\": \"threads\", "
		 "\"backend_params\": {\"file_path\": \"%s\"}}", SLOTS, bed->path);
	return kvk_store_open(&bed->store, spec, NULL, error);
}

static void must_open(struct bed *bed)
{
	struct kvk_error error = { .struct_bytes = sizeof(error) };

	if (open_pool(bed, &error))
		fail_msg("%s: %s", error.option, error.text);
}

static int slot_file(const struct bed *bed)
{
	char path[120];
	int fd;

	snprintf(path, sizeof(path), "%s/pool-00000.slots", bed->path);
	fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	return fd;
}

static void slot_read(const struct bed *bed, uint32_t slot, uint8_t page[PAGE])
{
	int fd = slot_file(bed);

	assert_int_equal(pread(fd, page, PAGE, (off_t)(KVK_POOL_HEAD_BYTES + slot * PAGE)), PAGE);
	close(fd);
}

static void slot_write(const struct bed *bed, uint32_t slot, const uint8_t page[PAGE])
{
	int fd = slot_file(bed);

	assert_int_equal(pwrite(fd, page, PAGE, (off_t)(KVK_POOL_HEAD_BYTES + slot * PAGE)), PAGE);
	close(fd);
}

/* The footer of an object of one slot in this pool, as a later version might write it. */
static void make_newer(struct bed *bed, uint8_t page[PAGE])
{
	must_open(bed);
	assert_int_equal(bed_put(bed->store, "k", 0, 1, NULL), 0);
	assert_int_equal(bed_close(bed), 0);
	slot_read(bed, 0, page);
	seal_put(page + VERSION_AT, 4, KVK_FORMAT_VERSION + 1);
	seal_footer_crc(page, PAGE);
}

/* A put of any page: nobody can make a pool impossible to open with it. */
static void newer_payload_is_payload(void **state)
{
	struct bed *bed = *state;
	struct kvk_put_item item = { .struct_bytes = sizeof(item), .key = bed_key("payload"), .data_count = 1 };
	struct kvk_result result = { .struct_bytes = sizeof(result) };
	uint8_t page[PAGE];
	struct iovec iov = { .iov_base = page, .iov_len = PAGE };

	make_newer(bed, page);
	/* The writer of no pool, as in a file of a newer version that a tenant stores. */
	seal_put(page + WRITER_AT, 8, 0);
	seal_footer_crc(page, PAGE);
	must_open(bed);
	item.data = &iov;
	assert_int_equal(kvk_store_put_wait(bed->store, &item, 1, 0, &result), 0);
	assert_int_equal(result.status, 0);
	assert_int_equal(bed_close(bed), 0);
	must_open(bed);
	assert_int_equal(bed_list(bed->store).objects, 2);
	assert_int_equal(bed_get(bed->store, "k", 0, 1, NULL), 0);
	assert_int_equal(bed_lookup(bed->store, "payload", 0, NULL), 0);
	BED_AGREES(bed->store);
}

/* What a newer version has put there is refused as it must be, wherever its run may begin; elsewhere it is a page of payload. */
static void newer_object_is_refused(void **state)
{
	struct bed *bed = *state;
	struct kvk_error error = { .struct_bytes = sizeof(error) };
	uint8_t page[PAGE], zeros[PAGE] = { 0 };
	uint64_t writer;

	make_newer(bed, page);
	writer = seal_get(page + WRITER_AT, 8);
	for (uint64_t first = 0; first < SLOTS; first++) {
		seal_put(page + WRITER_AT, 8, writer + first);
		seal_footer_crc(page, PAGE);
		slot_write(bed, 5, page);
		if (first > 5) {
			must_open(bed);
			assert_int_equal(bed_close(bed), 0);
			continue;
		}
		assert_int_equal(open_pool(bed, &error), -EPROTO);
		assert_string_equal(error.option, "backend_params.file_path");
		assert_non_null(strstr(error.text, "newer version"));
	}
	slot_write(bed, 5, zeros);
	must_open(bed);
	assert_int_equal(bed_get(bed->store, "k", 0, 1, NULL), 0);
}

static void expect_one_entry(struct kvk_store *store, struct kvk_list_entry *entry)
{
	char *cursor = NULL;

	entry->struct_bytes = sizeof(*entry);
	assert_int_equal(kvk_store_list(store, NULL, entry, 1, &cursor), 1);
	kvk_free(cursor);
}

/* What the list shows of an object whose footer went bad since the open is enough to remove it: its slots are free, for good. */
static void damaged_ones_can_be_removed(void **state)
{
	struct bed *bed = *state;
	struct kvk_key_item item = { .struct_bytes = sizeof(item), .flags = KVK_KEY_IS_DIGEST };
	struct kvk_result result = { .struct_bytes = sizeof(result) };
	struct kvk_list_entry whole, damaged;
	uint8_t page[PAGE];

	must_open(bed);
	assert_int_equal(bed_put(bed->store, "k", 2 * PAGE, 1, NULL), 0);
	expect_one_entry(bed->store, &whole);
	slot_read(bed, 2, page);
	page[300] ^= 4;
	slot_write(bed, 2, page);
	expect_one_entry(bed->store, &damaged);
	assert_int_equal(damaged.state, KVK_OBJECT_DAMAGED);
	assert_int_equal(damaged.key_bytes, 0);
	assert_int_equal(damaged.stored_bytes, 3 * PAGE);
	assert_memory_equal(damaged.digest, whole.digest, 16);
	assert_int_equal(damaged.created_ns, whole.created_ns);
	item.key = (struct kvk_key){ damaged.digest, sizeof(damaged.digest) };
	assert_int_equal(kvk_store_remove_wait(bed->store, &item, 1, 0, &result), 0);
	assert_int_equal(result.status, 0);
	assert_int_equal(bed_list(bed->store).objects, 0);
	assert_int_equal(kit_used_settles(bed->store, 0), 0);
	assert_int_equal(kvk_store_remove_wait(bed->store, &item, 1, 0, &result), 0);
	assert_int_equal(result.reason, KVK_REASON_ABSENT);
	slot_read(bed, 2, page);
	for (uint32_t i = 0; i < PAGE; i++)
		assert_int_equal(page[i], 0);
	/* All ten are free: one object has them all. */
	assert_int_equal(bed_put(bed->store, "all", (SLOTS - 1) * PAGE, 1, NULL), 0);
	BED_AGREES(bed->store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BED_TEST(newer_payload_is_payload, BED_POOL_THREADS, "pool, threads"),
		BED_TEST(newer_object_is_refused, BED_POOL_THREADS, "pool, threads"),
		BED_TEST(damaged_ones_can_be_removed, BED_POOL_THREADS, "pool, threads"),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
