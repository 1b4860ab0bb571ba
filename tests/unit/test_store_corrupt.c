/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verification is complete: whatever is changed in an object's file, a get never takes it for the object.
 *
 * Method: files of a store in a file system in memory are changed behind its back through a mapping, and gets with
 * KVK_GET_PEEK, which move nothing aside, are asked in batches. Each of the changes is judged alone; wrong answers are
 * counted, and must be none.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "unit/store_kit.h"

#define WORKERS 2
#define BATCH 32

/* ---- single bits and bytes ------------------------------------------------------------------------ */

/* Objects of one length, each under its own key, their files mapped. */
struct field {
	struct kvk_store *store;
	const char *root;
	uint64_t object_bytes;
	uint64_t file_bytes;
	bool bits;                     /* every bit in turn; else one bit of every byte */
	uint64_t places;
	uint64_t stride;
	uint64_t seed;
	atomic_uint_fast64_t accepted; /* changed, and a hit */
	atomic_uint_fast64_t other;    /* changed, and an answer that does not say so */
	atomic_uint_fast64_t refused;
};

struct worker {
	struct field *field;
	unsigned index;
	pthread_t thread;
	char keys[BATCH][32];
	uint8_t *files[BATCH];
};

static void judge_batch(struct worker *worker, const uint64_t *offsets, uint32_t count)
{
	struct field *field = worker->field;
	struct kvk_get_item items[BATCH];
	struct kvk_result results[BATCH];

	memset(items, 0, sizeof(items));
	for (uint32_t i = 0; i < count; i++) {
		items[i].struct_bytes = sizeof(items[i]);
		items[i].flags = KVK_GET_PEEK | KVK_GET_VERIFY;
		items[i].key = kit_key(worker->keys[i]);
		/* Of a large object only the block in question: the others are tried with their own bytes. */
		if (offsets[i] < field->object_bytes) {
			items[i].offset_bytes = offsets[i] & ~(uint64_t)(KVK_BLOCK_BYTES_MIN - 1);
			items[i].range_bytes = KVK_BLOCK_BYTES_MIN;
		}
		results[i].struct_bytes = sizeof(results[i]);
	}
	if (kvk_store_get_wait(field->store, items, count, 0, results)) {
		atomic_fetch_add(&field->other, count);
		return;
	}
	for (uint32_t i = 0; i < count; i++) {
		if (results[i].status == 0)
			atomic_fetch_add(&field->accepted, 1);
		else if (results[i].status == -EBADMSG && results[i].reason == KVK_REASON_DAMAGED)
			atomic_fetch_add(&field->refused, 1);
		else
			atomic_fetch_add(&field->other, 1);
	}
}

static void *change_all(void *argument)
{
	struct worker *worker = argument;
	struct field *field = worker->field;
	uint64_t random = field->seed + worker->index;
	uint64_t offsets[BATCH];
	uint8_t masks[BATCH];

	for (uint64_t at = worker->index * field->stride; at < field->places;) {
		uint32_t count = 0;

		for (; count < BATCH && at < field->places; at += WORKERS * field->stride, count++) {
			offsets[count] = field->bits ? at / 8 : at;
			masks[count] = (uint8_t)(1u << (field->bits ? at % 8 : kit_below(&random, 8)));
			worker->files[count][offsets[count]] ^= masks[count];
		}
		judge_batch(worker, offsets, count);
		for (uint32_t i = 0; i < count; i++)
			worker->files[i][offsets[i]] ^= masks[i];
	}
	return NULL;
}

static void worker_setup(struct worker *worker, void *payload)
{
	struct field *field = worker->field;

	for (unsigned i = 0; i < BATCH; i++) {
		char path[PATH_MAX];
		int fd;

		snprintf(worker->keys[i], sizeof(worker->keys[i]), "w%u/%u", worker->index, i);
		kit_fill(payload, field->object_bytes, kit_tag(worker->keys[i], (uint32_t)strlen(worker->keys[i]), 0));
		KIT_EXPECT(kit_put(field->store, kit_key(worker->keys[i]), payload, field->object_bytes), 0,
			   KVK_REASON_NONE);
		kit_path(path, field->root, kit_key(worker->keys[i]));
		field->file_bytes = kit_file_bytes(path);
		fd = open(path, O_RDWR);
		worker->files[i] = mmap(NULL, field->file_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		assert_true(worker->files[i] != MAP_FAILED);
		close(fd);
	}
}

static void change_everything(uint64_t object_bytes, bool bits)
{
	struct field field = { .object_bytes = object_bytes, .bits = bits, .seed = kit_seed(),
			       /* For a quick look, and for tools that make everything fifty times slower. */
			       .stride = kit_number("KVK_STRIDE", 1) };
	struct worker workers[WORKERS];
	void *payload = malloc(object_bytes);
	char root[PATH_MAX];

	kit_folder(root);
	field.root = root;
	field.store = kit_open(root, ", \"lanes\": 2");
	for (unsigned w = 0; w < WORKERS; w++) {
		workers[w] = (struct worker){ .field = &field, .index = w };
		worker_setup(&workers[w], payload);
	}
	field.places = field.file_bytes * (bits ? 8 : 1);
	for (unsigned w = 0; w < WORKERS; w++)
		assert_int_equal(pthread_create(&workers[w].thread, NULL, change_all, &workers[w]), 0);
	for (unsigned w = 0; w < WORKERS; w++)
		pthread_join(workers[w].thread, NULL);
	printf("# %" PRIu64 " %s of an object of %" PRIu64 " bytes: %" PRIuFAST64 " refused, %" PRIuFAST64 " accepted\n",
	       (field.places + field.stride - 1) / field.stride, bits ? "bits" : "bytes", object_bytes,
	       atomic_load(&field.refused), atomic_load(&field.accepted));
	assert_int_equal(atomic_load(&field.accepted), 0);
	assert_int_equal(atomic_load(&field.other), 0);
	assert_int_equal(atomic_load(&field.refused), (field.places + field.stride - 1) / field.stride);

	/* Changed back they are what they were: it was the change that was refused. */
	for (unsigned w = 0; w < WORKERS; w++) {
		for (unsigned i = 0; i < BATCH; i++) {
			KIT_EXPECT(kit_get(field.store, kit_key(workers[w].keys[i]), payload, object_bytes, KVK_GET_PEEK),
				   0, KVK_REASON_NONE);
			assert_true(kit_is(payload, 0, object_bytes,
					   kit_tag(workers[w].keys[i], (uint32_t)strlen(workers[w].keys[i]), 0)));
			munmap(workers[w].files[i], field.file_bytes);
		}
	}
	kit_close(field.store);
	kit_folder_remove(root);
	free(payload);
}

static void every_bit_of_64_kib(void **state)
{
	change_everything(65536, true);
}

static void every_byte_of_1_mib(void **state)
{
	change_everything(1 << 20, false);
}

/* ---- lengths, blocks, whole files, over all mechanisms ---------------------------------------------- */

static const struct mode {
	const char *name, *params, *more;
} modes[] = {
	{ "ring, buffered", ", \"use_direct_io\": false", ", \"io_engine\": \"auto\"" },
	{ "ring, direct", ", \"use_direct_io\": true", ", \"io_engine\": \"auto\"" },
	{ "threads, buffered", ", \"use_direct_io\": false", ", \"io_engine\": \"threads\"" },
	{ "threads, direct", ", \"use_direct_io\": true", ", \"io_engine\": \"threads\"" },
};

struct bed {
	struct kvk_store *store;
	const struct mode *mode;
	char root[PATH_MAX];
	char path[PATH_MAX];           /* of the key "victim" */
	uint64_t object_bytes;
	uint64_t file_bytes;
	uint8_t *good;                 /* the file as it should be */
	uint8_t *other;                /* another key's, of the same length */
	uint8_t *older;                /* the same key's, of other contents */
	uint8_t *scratch;
	uint8_t *buffer;
	uint64_t tried;
};

static void put_and_keep(struct bed *bed, const char *key, uint64_t generation, uint8_t **file_ret)
{
	char path[PATH_MAX];
	uint64_t bytes;

	kit_fill(bed->buffer, bed->object_bytes, kit_tag(key, (uint32_t)strlen(key), generation));
	KIT_EXPECT(kit_put(bed->store, kit_key(key), bed->buffer, bed->object_bytes), 0, KVK_REASON_NONE);
	kit_path(path, bed->root, kit_key(key));
	*file_ret = kit_file_read(path, &bytes);
	assert_true(bed->file_bytes == 0 || bed->file_bytes == bytes);
	bed->file_bytes = bytes;
}

static void bed_setup(struct bed *bed, const struct mode *mode, uint64_t object_bytes)
{
	*bed = (struct bed){ .mode = mode, .object_bytes = object_bytes };
	bed->buffer = malloc(object_bytes + 1);
	kit_folder(bed->root);
	kit_path(bed->path, bed->root, kit_key("victim"));
	bed->store = kit_open_with(bed->root, mode->params, mode->more, NULL);
	put_and_keep(bed, "victim", 1, &bed->older);
	KIT_EXPECT(kit_remove(bed->store, kit_key("victim")), 0, KVK_REASON_NONE);
	put_and_keep(bed, "other", 1, &bed->other);
	put_and_keep(bed, "victim", 2, &bed->good);
	bed->scratch = malloc(bed->file_bytes * 2 + 8192);
	memcpy(bed->scratch, bed->good, bed->file_bytes);
}

static void bed_release(struct bed *bed)
{
	kit_file_write(bed->path, bed->good, bed->file_bytes);
	KIT_EXPECT(kit_get(bed->store, kit_key("victim"), bed->buffer, bed->object_bytes, KVK_GET_PEEK), 0,
		   KVK_REASON_NONE);
	assert_true(kit_is(bed->buffer, 0, bed->object_bytes, kit_tag("victim", 6, 2)));
	printf("# %s: %" PRIu64 " damaged files of %" PRIu64 " bytes, 0 accepted\n", bed->mode->name, bed->tried,
	       bed->file_bytes);
	kit_close(bed->store);
	kit_folder_remove(bed->root);
	free(bed->good);
	free(bed->other);
	free(bed->older);
	free(bed->scratch);
	free(bed->buffer);
}

/* Writes the file anew; the get must be refused, and leave nothing of the payload in the buffer. */
static void refuse(struct bed *bed, uint64_t bytes, int status, uint32_t reason, const char *what, uint64_t at)
{
	struct kvk_result result;

	kit_file_write(bed->path, bed->scratch, bytes);
	memset(bed->buffer, 0x11, bed->object_bytes);
	result = kit_get(bed->store, kit_key("victim"), bed->buffer, bed->object_bytes, KVK_GET_PEEK);
	if (result.status != status || result.reason != reason)
		fail_msg("%s, %s at %" PRIu64 ": status %d, reason \"%s\"; must be %d, \"%s\"", bed->mode->name, what, at,
			 result.status, kvk_reason_text(result.reason), status, kvk_reason_text(reason));
	/* All of it filled, or none of it touched. */
	if ((bed->buffer[0] != 0xdb && bed->buffer[0] != 0x11) ||
	    memcmp(bed->buffer, bed->buffer + 1, bed->object_bytes - 1))
		fail_msg("%s, %s at %" PRIu64 ": the buffer holds bytes that were not proven", bed->mode->name, what, at);
	assert_int_equal(kit_file_bytes(bed->path), bytes);
	bed->tried++;
}

static void refuse_damaged(struct bed *bed, uint64_t bytes, const char *what, uint64_t at)
{
	refuse(bed, bytes, -EBADMSG, KVK_REASON_DAMAGED, what, at);
	memcpy(bed->scratch, bed->good, bed->file_bytes);
}

static void try_lengths(struct bed *bed, uint64_t grain)
{
	uint64_t end = bed->file_bytes;

	for (uint64_t bytes = 0; bytes < end; bytes += grain)
		refuse_damaged(bed, bytes, "truncated", bytes);
	for (uint64_t more = 1; more <= 8192; more = more < 4096 ? more * 2 : more + 4096) {
		memset(bed->scratch + end, 0, more);
		refuse_damaged(bed, end + more, "extended by zeros", more);
	}
	/* With a whole footer at the very end, but not where the length says. */
	memcpy(bed->scratch + end, bed->good + end - 4096, 4096);
	refuse_damaged(bed, end + 4096, "footer twice", end);
	memcpy(bed->scratch + end - 8192, bed->good + end - 4096, 4096);
	refuse_damaged(bed, end - 4096, "footer too early", end);
}

static void try_blocks(struct bed *bed)
{
	uint64_t payload_end = bed->file_bytes - 4096;

	for (uint64_t at = 0; at < bed->file_bytes; at += 4096) {
		memset(bed->scratch + at, 0, 4096);
		refuse_damaged(bed, bed->file_bytes, "zeroed block", at);
		if (at < payload_end) {
			memcpy(bed->scratch + at, bed->other + at, 4096);
			refuse_damaged(bed, bed->file_bytes, "block of another key", at);
			/* The next block of its own payload. */
			memcpy(bed->scratch + at, bed->good + (at + 4096) % payload_end, 4096);
			if (memcmp(bed->scratch + at, bed->good + at, 4096))
				refuse_damaged(bed, bed->file_bytes, "block of another place", at);
		}
		memcpy(bed->scratch + at, bed->older + at, 4096);
		refuse_damaged(bed, bed->file_bytes, "block of an older object", at);
		/* Torn: up to here new, from here on old, and the other way round. */
		if (at > 0) {
			memcpy(bed->scratch + at, bed->older + at, bed->file_bytes - at);
			refuse_damaged(bed, bed->file_bytes, "old from here on", at);
			memcpy(bed->scratch, bed->older, at);
			refuse_damaged(bed, bed->file_bytes, "old up to here", at);
		}
	}
}

static void try_whole_files(struct bed *bed)
{
	uint64_t end = bed->file_bytes;

	refuse_damaged(bed, 0, "empty file", 0);
	memset(bed->scratch, 0, end);
	refuse_damaged(bed, end, "file of zeros", 0);
	memset(bed->scratch, 0, end - 4096);
	refuse_damaged(bed, end, "zeros before a whole footer", 0);
	memset(bed->scratch, 0xff, end);
	refuse_damaged(bed, end, "file of ones", 0);
	memcpy(bed->scratch, bed->other, end);
	refuse(bed, end, -ENOENT, KVK_REASON_COLLISION, "another key's file", 0);
	memcpy(bed->scratch, bed->good, end - 4096);
	refuse(bed, end, -ENOENT, KVK_REASON_COLLISION, "another key's footer", 0);
	memcpy(bed->scratch, bed->good, end);
}

static void every_length_of_a_small_object(void **state)
{
	for (size_t m = 0; m < sizeof(modes) / sizeof(modes[0]); m++) {
		struct bed bed;

		bed_setup(&bed, &modes[m], 5000);
		/* All of them once; a part of them, on every page and at odd places, the other ways. */
		try_lengths(&bed, m == 0 ? 1 : 29);
		bed_release(&bed);
	}
}

static void every_block_of_a_large_object(void **state)
{
	for (size_t m = 0; m < sizeof(modes) / sizeof(modes[0]); m++) {
		struct bed bed;

		bed_setup(&bed, &modes[m], 1 << 20);
		try_blocks(&bed);
		try_lengths(&bed, 4096);
		try_whole_files(&bed);
		bed_release(&bed);
	}
}

/* Seen on ext4 after a power cut: 4 MiB of zeros, and behind them the footer as it was written. */
static void footer_behind_4_mib_of_zeros(void **state)
{
	for (size_t m = 0; m < sizeof(modes) / sizeof(modes[0]); m++) {
		struct bed bed;

		bed_setup(&bed, &modes[m], 4 << 20);
		try_whole_files(&bed);
		bed_release(&bed);
	}
}

/* Two objects that changed places, as a file system that confuses its inodes would leave them. */
static void files_that_changed_places(void **state)
{
	struct bed bed;
	char path[PATH_MAX];

	bed_setup(&bed, &modes[0], 100000);
	kit_path(path, bed.root, kit_key("other"));
	assert_int_equal(renameat2(AT_FDCWD, path, AT_FDCWD, bed.path, RENAME_EXCHANGE), 0);
	for (int round = 0; round < 2; round++) {
		/* The second time without KVK_GET_PEEK: what is whole is never moved aside, whoever it belongs to. */
		uint32_t flags = round == 0 ? KVK_GET_PEEK : 0;

		KIT_EXPECT(kit_get(bed.store, kit_key("victim"), bed.buffer, 100000, flags), -ENOENT,
			   KVK_REASON_COLLISION);
		KIT_EXPECT(kit_get(bed.store, kit_key("other"), bed.buffer, 100000, flags), -ENOENT,
			   KVK_REASON_COLLISION);
	}
	assert_int_equal(kit_stats(bed.store).quarantined, 0);
	assert_int_equal(renameat2(AT_FDCWD, path, AT_FDCWD, bed.path, RENAME_EXCHANGE), 0);
	KIT_EXPECT(kit_get(bed.store, kit_key("other"), bed.buffer, 100000, 0), 0, KVK_REASON_NONE);
	assert_true(kit_is(bed.buffer, 0, 100000, kit_tag("other", 5, 1)));
	bed_release(&bed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_bit_of_64_kib),
		cmocka_unit_test(every_byte_of_1_mib),
		cmocka_unit_test(every_length_of_a_small_object),
		cmocka_unit_test(every_block_of_a_large_object),
		cmocka_unit_test(footer_behind_4_mib_of_zeros),
		cmocka_unit_test(files_that_changed_places),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
