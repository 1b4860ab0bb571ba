/* SPDX-License-Identifier: Apache-2.0 */
/* What one item may be: sizes, pieces of memory, ranges, metadata, flags; and which are refused. */
#include "support/skip.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store_bed.h"

#define BLOCK 65536u
#define MIB 1048576u

/* ---- sizes and pieces --------------------------------------------------------------------------- */

static const uint64_t sizes[] = {
	0, 1, 4095, 4096, 4097, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 777, MIB - 1, MIB, MIB + 1, MIB + BLOCK,
	MIB + BLOCK + 1, 3 * MIB + 5,
};

/* Objects of every awkward size, from and to memory in every awkward shape. */
static void test_sizes_and_pieces(void **state)
{
	static const struct bed_how hows[] = {
		{ .pieces = 1 }, { .pieces = 2 }, { .pieces = 7 }, { .pieces = 64 },
		{ .pieces = 1, .aligned = true }, { .pieces = 5, .aligned = true },
		{ .pieces = 1, .flags = KVK_MEM_HELD }, { .pieces = 20, .flags = KVK_MEM_HELD },
		{ .pieces = 1, .aligned = true, .flags = KVK_MEM_HELD },
		{ .pieces = 3, .aligned = true, .flags = KVK_MEM_HELD },
		{ .pieces = 40, .aligned = true, .flags = KVK_MEM_HELD },
	};
	struct bed *bed = *state;
	uint32_t count = 0;

	bed_open(bed, "");
	for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
		for (size_t h = 0; h < sizeof(hows) / sizeof(hows[0]); h++) {
			const struct bed_how *back = &hows[(h + s) % (sizeof(hows) / sizeof(hows[0]))];
			struct kvk_result result;
			char name[32];
			int status;

			snprintf(name, sizeof(name), "s%zu-%zu", s, h);
			status = bed_put_how(bed->store, bed_key(name), sizes[s], 1, &hows[h], &result);
			if (status || result.bytes != sizes[s] || result.reason || result.flags != KVK_RESULT_LAST)
				fail_msg("put of %llu bytes, shape %zu: status %d, %llu bytes, reason %u, flags %u",
					 (unsigned long long)sizes[s], h, status, (unsigned long long)result.bytes,
					 result.reason, result.flags);
			status = bed_get_how(bed->store, bed_key(name), sizes[s], 1, back, &result);
			if (status || result.bytes != sizes[s])
				fail_msg("get of %llu bytes, shape %zu: status %d, %llu bytes",
					 (unsigned long long)sizes[s], h, status, (unsigned long long)result.bytes);
			count++;
		}
	}
	assert_int_equal(bed_usage(bed->store).objects, count);
	BED_AGREES(bed->store);
}

/* A buffer may be longer than the object: the true length is told. Shorter is refused. */
static void test_buffer_lengths(void **state)
{
	struct bed *bed = *state;
	unsigned char *data = malloc(100000);
	struct iovec iov = { .iov_base = data };
	struct kvk_get_item item = { .struct_bytes = sizeof(item), .data = &iov, .data_count = 1 };
	struct kvk_result result = { .struct_bytes = sizeof(result) };

	assert_non_null(data);
	bed_open(bed, "");
	assert_int_equal(bed_put(bed->store, "k", 70000, 1, NULL), 0);
	item.key = bed_key("k");
	for (size_t length = 69999; length <= 100000; length += length < 70001 ? 1 : 29999) {
		iov.iov_len = length;
		memset(data, 0x5a, 100000);
		assert_int_equal(kvk_store_get_wait(bed->store, &item, 1, 0, &result), 0);
		assert_int_equal(result.object_bytes, 70000);
		if (length < 70000) {
			assert_int_equal(result.status, -EMSGSIZE);
			assert_int_equal(result.reason, KVK_REASON_ARGUMENT);
			continue;
		}
		assert_int_equal(result.status, 0);
		assert_int_equal(result.bytes, 70000);
		assert_int_equal(bed_judge(data, 70000, bed_key("k"), 1, 0), BED_RIGHT);
		for (size_t i = length; i < 100000; i++)
			assert_int_equal(data[i], 0x5a);
	}
	free(data);
}

/* Ranges that begin and end at, before and behind the edges of blocks. */
static void test_ranges(void **state)
{
	static const uint64_t edges[] = { 0, 1, 4096, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK, 3 * BLOCK + 776,
					  3 * BLOCK + 777 };
	const uint64_t bytes = 3 * BLOCK + 777;
	struct bed *bed = *state;
	unsigned char *data = aligned_alloc(4096, 4 * BLOCK);
	struct kvk_result result = { .struct_bytes = sizeof(result) };

	assert_non_null(data);
	bed_open(bed, "");
	assert_int_equal(bed_put(bed->store, "k", bytes, 1, NULL), 0);
	for (size_t a = 0; a < sizeof(edges) / sizeof(edges[0]); a++) {
		for (size_t b = a; b < sizeof(edges) / sizeof(edges[0]); b++) {
			for (uint32_t flags = 0; flags <= KVK_MEM_HELD; flags += KVK_MEM_HELD) {
				uint64_t length = edges[b] - edges[a], wanted = length ? length : bytes - edges[a];
				struct iovec iov = { .iov_base = data, .iov_len = wanted };
				struct kvk_get_item item = { .struct_bytes = sizeof(item), .key = bed_key("k"),
					.flags = flags, .data = &iov, .data_count = 1, .offset_bytes = edges[a],
					.range_bytes = length };

				memset(data, 0x5a, 4 * BLOCK);
				assert_int_equal(kvk_store_get_wait(bed->store, &item, 1, 0, &result), 0);
				if (result.status || result.bytes != wanted || result.object_bytes != bytes ||
				    bed_judge(data, wanted, bed_key("k"), 1, edges[a]) != BED_RIGHT ||
				    data[wanted] != 0x5a)
					fail_msg("range %llu + %llu: status %d, %llu bytes, %s",
						 (unsigned long long)edges[a], (unsigned long long)length, result.status,
						 (unsigned long long)result.bytes,
						 bed_verdict_name(bed_judge(data, wanted, bed_key("k"), 1, edges[a])));
			}
		}
	}
	free(data);
}

/* Ranges that reach beyond the object, and sums of offset and length that overflow. */
static void test_ranges_beyond(void **state)
{
	static const uint64_t cases[][2] = { { 0, 5001 }, { 5000, 1 }, { 5001, 0 }, { 1, UINT64_MAX },
					     { UINT64_MAX, 1 }, { UINT64_MAX, 0 }, { 4999, 2 } };
	struct bed *bed = *state;
	unsigned char data[8192];
	struct iovec iov = { .iov_base = data, .iov_len = sizeof(data) };
	struct kvk_result result = { .struct_bytes = sizeof(result) };

	bed_open(bed, "");
	assert_int_equal(bed_put(bed->store, "k", 5000, 1, NULL), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct kvk_get_item item = { .struct_bytes = sizeof(item), .key = bed_key("k"), .data = &iov,
			.data_count = 1, .offset_bytes = cases[i][0], .range_bytes = cases[i][1] };

		assert_int_equal(kvk_store_get_wait(bed->store, &item, 1, 0, &result), 0);
		if (result.status != -EINVAL || result.reason != KVK_REASON_ARGUMENT)
			fail_msg("range %llu + %llu: status %d, reason %u", (unsigned long long)cases[i][0],
				 (unsigned long long)cases[i][1], result.status, result.reason);
	}
	/* The object is none the worse for it. */
	assert_int_equal(bed_get(bed->store, "k", 5000, 1, NULL), 0);
}

/* ---- what travels with an object ---------------------------------------------------------------- */

static void test_metadata(void **state)
{
	static const uint32_t lengths[] = { 0, 1, 100, 255, 256 };
	struct bed *bed = *state;
	unsigned char meta[256], back[260];
	struct kvk_result result = { .struct_bytes = sizeof(result) };

	bed_open(bed, "");
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		char name[16];
		struct kvk_put_item put = { .struct_bytes = sizeof(put), .meta = meta, .meta_bytes = lengths[i] };
		struct kvk_get_item get = { .struct_bytes = sizeof(get), .meta = back };
		struct kvk_key_item look = { .struct_bytes = sizeof(look), .meta = back };

		snprintf(name, sizeof(name), "meta%zu", i);
		put.key = get.key = look.key = bed_key(name);
		for (size_t k = 0; k < sizeof(meta); k++)
			meta[k] = (unsigned char)(k * 7 + i);
		assert_int_equal(kvk_store_put_wait(bed->store, &put, 1, 0, &result), 0);
		assert_int_equal(result.status, 0);
		for (uint32_t room = 0; room <= 256; room += 64) {
			uint32_t both = room < lengths[i] ? room : lengths[i];

			for (int how = 0; how < 2; how++) {
				memset(back, 0x5a, sizeof(back));
				get.meta_bytes = look.meta_bytes = room;
				if (how)
					assert_int_equal(kvk_store_get_wait(bed->store, &get, 1, 0, &result), 0);
				else
					assert_int_equal(kvk_store_lookup_wait(bed->store, &look, 1, 0, &result), 0);
				assert_int_equal(result.status, 0);
				assert_int_equal(result.meta_bytes, lengths[i]);
				assert_memory_equal(back, meta, both);
				assert_int_equal(back[both], 0x5a);
			}
		}
	}
}

/* Parent, depth and key are seen in a list, and the parent's digest is the one of the parent's own entry. */
static void test_parents(void **state)
{
	struct bed *bed = *state;
	struct kvk_list_entry *entries = calloc(4, sizeof(*entries));
	struct kvk_result result = { .struct_bytes = sizeof(result) };
	static const char *const names[3] = { "chain-0", "chain-1", "chain-2" };
	uint8_t digests[3][32], none[32] = { 0 };
	char *cursor = NULL;

	assert_non_null(entries);
	bed_open(bed, "");
	for (uint32_t i = 0; i < 3; i++) {
		struct kvk_put_item put = { .struct_bytes = sizeof(put), .key = bed_key(names[i]), .depth = i };

		if (i > 0)
			put.parent = bed_key(names[i - 1]);
		assert_int_equal(kvk_store_put_wait(bed->store, &put, 1, 0, &result), 0);
		assert_int_equal(result.status, 0);
	}
	for (int i = 0; i < 4; i++)
		entries[i].struct_bytes = sizeof(entries[i]);
	assert_int_equal(kvk_store_list(bed->store, NULL, entries, 4, &cursor), 3);
	assert_null(cursor);
	for (uint32_t i = 0; i < 3; i++) {
		assert_int_equal(entries[i].key_bytes, 7);
		memcpy(digests[entries[i].key[6] - '0'], entries[i].digest, 32);
	}
	for (uint32_t i = 0; i < 3; i++) {
		uint32_t which = entries[i].key[6] - '0';

		assert_memory_equal(entries[i].key, names[which], 7);
		assert_int_equal(entries[i].depth, which);
		assert_memory_equal(entries[i].parent_digest, which ? digests[which - 1] : none, 32);
		assert_int_equal(entries[i].state, KVK_OBJECT_PRESENT);
	}
	free(entries);
}

/* ---- flags -------------------------------------------------------------------------------------- */

static int get_as(struct kvk_store *store, uint32_t flags, struct kvk_key key, unsigned char *data,
		  struct kvk_result *result)
{
	struct iovec iov = { .iov_base = data, .iov_len = 10000 };
	struct kvk_get_item item = { .struct_bytes = sizeof(item), .flags = flags, .key = key, .data = &iov,
		.data_count = 1 };

	*result = (struct kvk_result){ .struct_bytes = sizeof(*result) };
	memset(data, 0x5a, 10000);
	assert_int_equal(kvk_store_get_wait(store, &item, 1, 0, result), 0);
	return result->status;
}

/* An object may be asked for by its digest and, to look only, by its name. */
static void test_keys_of_other_kinds(void **state)
{
	struct bed *bed = *state;
	struct kvk_list_entry *entry = calloc(1, sizeof(*entry));
	unsigned char *data = malloc(10000);
	struct kvk_result result = { .struct_bytes = sizeof(result) };
	struct kvk_key_item look = { .struct_bytes = sizeof(look), .flags = KVK_KEY_IS_DIGEST };
	struct kvk_key digest, name;
	char *cursor = NULL;

	assert_non_null(entry);
	assert_non_null(data);
	bed_open(bed, "");
	assert_int_equal(bed_put(bed->store, "k", 10000, 1, NULL), 0);
	entry->struct_bytes = sizeof(*entry);
	assert_int_equal(kvk_store_list(bed->store, NULL, entry, 1, &cursor), 1);
	kvk_free(cursor);
	digest = (struct kvk_key){ .data = entry->digest, .bytes = 32 };
	name = bed_key(entry->name);
	if (!bed_is_ram(bed))
		bed_reopen(bed, "");

	look.key = digest;
	assert_int_equal(kvk_store_lookup_wait(bed->store, &look, 1, 0, &result), 0);
	assert_int_equal(result.status, 0);
	assert_int_equal(result.object_bytes, 10000);
	assert_int_equal(get_as(bed->store, KVK_KEY_IS_DIGEST, digest, data, &result), 0);
	assert_int_equal(bed_judge(data, 10000, bed_key("k"), 1, 0), BED_RIGHT);
	assert_int_equal(get_as(bed->store, KVK_GET_PEEK | KVK_KEY_IS_NAME, name, data, &result), 0);
	assert_int_equal(bed_judge(data, 10000, bed_key("k"), 1, 0), BED_RIGHT);
	assert_int_equal(get_as(bed->store, KVK_GET_PEEK | KVK_GET_VERIFY | KVK_KEY_IS_NAME, name, data, &result), 0);
	assert_int_equal(data[0], 0x5a);

	entry->digest[31] ^= 1;
	assert_int_equal(get_as(bed->store, KVK_KEY_IS_DIGEST, digest, data, &result), -ENOENT);
	assert_int_equal(get_as(bed->store, KVK_GET_PEEK | KVK_KEY_IS_NAME, bed_key("00/nothing"), data, &result),
			 -ENOENT);
	assert_int_equal(get_as(bed->store, KVK_GET_PEEK | KVK_KEY_IS_NAME, bed_key("../../etc/passwd"), data, &result),
			 -ENOENT);
	free(entry);
	free(data);
}

static void flip_byte(const char *path, long at)
{
	FILE *file = fopen(path, "r+b");
	int byte;

	assert_non_null(file);
	assert_int_equal(fseek(file, at, SEEK_SET), 0);
	byte = fgetc(file);
	assert_int_equal(fseek(file, at, SEEK_SET), 0);
	fputc(byte ^ 1, file);
	assert_int_equal(fclose(file), 0);
}

/* Peeking at what is damaged reports it and leaves it; a get moves it aside, and a put makes it anew. */
static void test_damaged(void **state)
{
	struct bed *bed = *state;
	unsigned char *data = malloc(10000);
	struct kvk_result result;
	char path[512];

	assert_non_null(data);
	bed_open(bed, "params:\"max_capacity_gb\": 1");
	assert_int_equal(bed_put(bed->store, "k", 10000, 1, NULL), 0);
	assert_int_equal(bed_path_of(bed, "k", path, sizeof(path)), 0);
	flip_byte(path, 5000);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(get_as(bed->store, KVK_GET_PEEK, bed_key("k"), data, &result), -EBADMSG);
		assert_int_equal(result.reason, KVK_REASON_DAMAGED);
		assert_int_equal(get_as(bed->store, KVK_GET_PEEK | KVK_GET_VERIFY, bed_key("k"), data, &result), -EBADMSG);
		assert_int_equal(data[0], 0x5a);
	}
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(bed_stats(bed->store).quarantined, 0);

	assert_int_equal(get_as(bed->store, KVK_GET_VERIFY, bed_key("k"), data, &result), -EBADMSG);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(bed_stats(bed->store).quarantined, 1);
	assert_int_equal(bed_get(bed->store, "k", 10000, 1, NULL), -ENOENT);
	BED_AGREES(bed->store);
	assert_int_equal(bed_usage(bed->store).used_bytes, 16384);

	/* A footer that does not verify: the put that finds it replaces it. */
	assert_int_equal(bed_put(bed->store, "k", 10000, 2, NULL), 0);
	flip_byte(path, 16000);
	bed_close_forgetting(bed);
	bed_open(bed, "");
	assert_int_equal(bed_put(bed->store, "k", 10000, 3, &result), 0);
	assert_int_equal(result.reason, KVK_REASON_NONE);
	assert_int_equal(bed_get(bed->store, "k", 10000, 3, NULL), 0);
	BED_AGREES(bed->store);
	free(data);
}

/* Beyond sixteen a minute what is damaged stays where it is, and stays charged. */
static void test_many_damaged(void **state)
{
	struct bed *bed = *state;
	char names[20][8], path[512];
	uint64_t aside;

	bed_open(bed, "");
	for (int i = 0; i < 20; i++) {
		snprintf(names[i], sizeof(names[i]), "d%d", i);
		assert_int_equal(bed_put(bed->store, names[i], 5000, 1, NULL), 0);
		assert_int_equal(bed_path_of(bed, names[i], path, sizeof(path)), 0);
		flip_byte(path, 100);
	}
	for (int i = 0; i < 20; i++)
		assert_int_equal(bed_get(bed->store, names[i], 5000, 1, NULL), -EBADMSG);
	aside = bed_stats(bed->store).quarantined;
	assert_in_range(aside, 16, 20);        /* 20 if the minute changed in between */
	assert_int_equal(bed_list(bed->store).objects, 20 - aside);
	BED_AGREES(bed->store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BED_TESTS_ALL(test_sizes_and_pieces),
		BED_TESTS_ALL(test_buffer_lengths),
		BED_TESTS_ALL(test_ranges),
		BED_TESTS_ALL(test_ranges_beyond),
		BED_TESTS_ALL(test_metadata),
		BED_TESTS_ALL(test_parents),
		BED_TESTS_ALL(test_keys_of_other_kinds),
		BED_TESTS_POSIX(test_damaged),
		BED_TESTS_POSIX(test_many_damaged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
