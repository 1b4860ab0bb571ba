/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of files in memory, and what they cost. */
#include "ram_bed.h"

/* ---- bytes ------------------------------------------------------------------------------------------- */

/*
 * A file reads as the same bytes as an array does.
 * Method: random writes and reads around chunk borders, also through several pieces, against a flat array.
 */
static void bytes_against_an_array(void **state)
{
	enum { FILE_BYTES = 5 * CHUNK, ROUNDS = 4000 };
	struct kvk_backend *backend = open_ram(NULL);
	uint8_t *model = calloc(1, FILE_BYTES);
	uint8_t *data = malloc(FILE_BYTES);
	struct kvk_place *place = NULL;
	uint64_t length = 0;

	assert_true(model && data);
	srandom(7);
	assert_int_equal(CREATE(backend, &place, "f"), 0);
	for (int round = 0; round < ROUNDS; round++) {
		uint64_t at = (uint64_t)random() % FILE_BYTES;
		uint64_t bytes = (uint64_t)random() % (random() % 8 ? 5000 : 2 * CHUNK);
		struct kvk_xfer xfer;
		struct iovec iov[3];
		uint64_t wanted;

		if (bytes > FILE_BYTES - at)
			bytes = FILE_BYTES - at;
		for (int i = 0; i < 3; i++) {
			uint64_t from = bytes * (uint64_t)i / 3;

			iov[i] = (struct iovec){ data + from, bytes * (uint64_t)(i + 1) / 3 - from };
		}
		kvk_xfer_init(&xfer, random() % 2 ? KVK_XFER_WRITE : KVK_XFER_READ, place, NULL);
		xfer.iov = iov;
		xfer.iov_count = 3;
		xfer.offset_bytes = at;
		if (xfer.op == KVK_XFER_WRITE) {
			memset(data, (int)(random() % 255 + 1), bytes);
			memcpy(model + at, data, bytes);
			if (bytes > 0 && at + bytes > length)
				length = at + bytes;
			assert_int_equal(run(backend, &xfer), bytes);
			continue;
		}
		wanted = at >= length ? 0 : at + bytes > length ? length - at : bytes;
		memset(data, 0xee, bytes);
		assert_int_equal(run(backend, &xfer), wanted);
		assert_memory_equal(data, model + at, wanted);
		for (uint64_t i = wanted; i < bytes; i++)
			assert_int_equal(data[i], 0xee);
	}
	CLOSE(backend, &place);
	free(model);
	free(data);
	backend->ops->close(backend);
}

/* A chunk that was used before must not show through a hole. */
static void holes_read_as_zeros(void **state)
{
	struct kvk_backend *backend = open_ram("4194304");
	struct kvk_place *place = NULL;
	uint8_t data[4096];
	uint8_t got[3 * CHUNK];
	struct kvk_stat stat;
	uint64_t before = free_bytes(backend);

	memset(data, 0xab, sizeof(data));
	for (int round = 0; round < 2; round++) {
		assert_int_equal(CREATE(backend, &place, "f"), 0);
		for (unsigned at = 0; round == 0 && at < 16 * CHUNK; at += sizeof(data))
			assert_int_equal(WRITE(backend, place, data, sizeof(data), at), sizeof(data));
		if (round == 0) {
			CLOSE(backend, &place);
			assert_int_equal(free_bytes(backend), before);
		}
	}
	assert_int_equal(WRITE(backend, place, data, 10, 2 * CHUNK + 5000), 10);
	assert_int_equal(STAT(backend, &place, &stat), 0);
	assert_int_equal(stat.bytes, 2 * CHUNK + 5010);
	assert_int_equal(READ(backend, place, got, sizeof(got), 0), stat.bytes);
	for (unsigned i = 0; i < 2 * CHUNK + 5000; i++)
		assert_int_equal(got[i], 0);
	assert_memory_equal(got + 2 * CHUNK + 5000, data, 10);
	CLOSE(backend, &place);
	backend->ops->close(backend);
}

static void a_sparse_4_gib_file_costs_little(void **state)
{
	const uint64_t gib = UINT64_C(1) << 30;
	struct kvk_backend *backend = open_ram("1048576");
	struct kvk_place *place = NULL;
	char got[4];

	assert_int_equal(CREATE(backend, &place, "f"), 0);
	assert_int_equal(WRITE(backend, place, "end", 4, 4 * gib - 4), 4);
	assert_int_equal(READ(backend, place, got, 4, 4 * gib - 4), 4);
	assert_string_equal(got, "end");
	assert_int_equal(READ(backend, place, got, 4, 4 * gib), 0);
	assert_int_equal(READ(backend, place, got, 4, UINT64_MAX), 0);
	assert_int_equal(WRITE(backend, place, got, 4, KVK_RAM_FILE_BYTES_MAX - 3), -EFBIG);
	assert_int_equal(WRITE(backend, place, got, 4, UINT64_MAX - 1), -EFBIG);
	CLOSE(backend, &place);
	backend->ops->close(backend);
}

static void only_what_was_created_is_written(void **state)
{
	struct kvk_backend *backend = open_ram(NULL);
	struct kvk_place *place = NULL;
	struct kvk_xfer xfer;

	make(backend, "f", "F");
	assert_int_equal(OPEN(backend, &place, "f"), 0);
	assert_int_equal(WRITE(backend, place, "x", 1, 0), -EBADF);
	kvk_xfer_init(&xfer, KVK_XFER_RESERVE, place, NULL);
	xfer.offset_bytes = 4096;
	assert_int_equal(run(backend, &xfer), -EBADF);
	kvk_xfer_init(&xfer, KVK_XFER_SYNC, place, NULL);
	assert_int_equal(run(backend, &xfer), 0);
	CLOSE(backend, &place);
	check_text(backend, "f", "F");
	backend->ops->close(backend);
}

/* ---- room -------------------------------------------------------------------------------------------- */

/* As a disk does: what fits is written, then nothing more; what is removed makes room again. */
static void a_full_medium_says_so(void **state)
{
	struct kvk_backend *backend = open_ram("100000");      /* 24 pages */
	struct kvk_place *place = NULL;
	struct kvk_xfer xfer;
	static uint8_t data[200000];
	struct kvk_space space;

	assert_int_equal(backend->ops->space(backend, &space), 0);
	assert_int_equal(space.total_bytes, 100000);
	assert_int_equal(space.free_bytes, 100000);
	assert_int_equal(space.total_inodes, 0);
	assert_int_equal(CREATE(backend, &place, "f"), 0);
	kvk_xfer_init(&xfer, KVK_XFER_RESERVE, place, NULL);
	xfer.offset_bytes = 100000;
	assert_int_equal(run(backend, &xfer), 0);
	xfer.offset_bytes = 100001;
	assert_int_equal(run(backend, &xfer), -ENOSPC);
	assert_int_equal(WRITE(backend, place, data, sizeof(data), 0), 24 * 4096);
	assert_int_equal(WRITE(backend, place, data, 1, 24 * 4096), -ENOSPC);
	assert_int_equal(WRITE(backend, place, data, 4096, 4096), 4096);
	assert_int_equal(backend->ops->save_file(backend, "superblock", data, 10, false), -ENOSPC);
	assert_int_equal(CLOSE(backend, &place), 0);
	assert_int_equal(backend->ops->save_file(backend, "superblock", data, 10, false), 0);
	assert_int_equal(backend->ops->save_file(backend, "snapshot", data, sizeof(data), false), -ENOSPC);
	assert_false(has_name(backend, ".kvkeep", "snapshot", 3));
	assert_int_equal(free_bytes(backend), 100000 - 4096);
	backend->ops->close(backend);

	backend = open_ram("0");
	assert_int_equal(CREATE(backend, &place, "f"), 0);
	assert_int_equal(WRITE(backend, place, data, 1, 0), -ENOSPC);
	CLOSE(backend, &place);
	backend->ops->close(backend);
}

static void a_size_beyond_64_bits_is_refused(void **state)
{
	struct kvk_backend_options options = { .path = "99999999999999999999999" };
	struct kvk_backend *backend = NULL;
	struct kvk_error error = { .struct_bytes = sizeof(error) };

	assert_int_equal(kvk_backend_ram.open(&backend, &options, &error), -ERANGE);
	assert_null(backend);
	assert_int_equal(error.code, -ERANGE);
	assert_non_null(strstr(error.text, options.path));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_against_an_array),
		cmocka_unit_test(holes_read_as_zeros),
		cmocka_unit_test(a_sparse_4_gib_file_costs_little),
		cmocka_unit_test(only_what_was_created_is_written),
		cmocka_unit_test(a_full_medium_says_so),
		cmocka_unit_test(a_size_beyond_64_bits_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
