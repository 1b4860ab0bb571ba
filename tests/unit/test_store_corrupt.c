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
	struct bed bed;
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
		items[i].key = bed_key(worker->keys[i]);
		/* Of a large object only the block in question: the others are tried with their own bytes. */
		if (offsets[i] < field->object_bytes) {
			items[i].offset_bytes = offsets[i] & ~(uint64_t)(KVK_BLOCK_BYTES_MIN - 1);
			items[i].range_bytes = KVK_BLOCK_BYTES_MIN;
		}
		results[i].struct_bytes = sizeof(results[i]);
	}
	if (kvk_store_get_wait(field->bed.store, items, count, 0, results)) {
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
		bed_fill(payload, field->object_bytes, bed_key(worker->keys[i]), 1, 0);
		KIT_EXPECT(kit_put(field->bed.store, bed_key(worker->keys[i]), payload, field->object_bytes), 0,
			   KVK_REASON_NONE);
		kit_path(path, field->bed.path, bed_key(worker->keys[i]));
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
			       /* Nothing is left out but in builds that look for other faults. */
			       .stride = kit_number("KVK_STRIDE", KIT_SANITIZED ? 11 : 1) };
	struct worker workers[WORKERS];
	void *payload = malloc(object_bytes);

	/* The faster of the two where it is to be had: 1.6 million gets. */
	bed_begin(&field.bed, BED_URING);
	if (bed_try_open(&field.bed, "\"lanes\": 2", NULL)) {
		field.bed.kind = BED_THREADS;
		bed_open(&field.bed, "\"lanes\": 2");
	}
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
	proof_tell(10, atomic_load(&field.refused) + atomic_load(&field.accepted), "changes", atomic_load(&field.accepted));
	assert_int_equal(atomic_load(&field.accepted), 0);
	assert_int_equal(atomic_load(&field.other), 0);
	assert_int_equal(atomic_load(&field.refused), (field.places + field.stride - 1) / field.stride);

	/* Changed back they are what they were: it was the change that was refused. */
	for (unsigned w = 0; w < WORKERS; w++) {
		for (unsigned i = 0; i < BATCH; i++) {
			KIT_EXPECT(kit_get(field.bed.store, bed_key(workers[w].keys[i]), payload, object_bytes, KVK_GET_PEEK),
				   0, KVK_REASON_NONE);
			assert_int_equal(bed_judge(payload, object_bytes, bed_key(workers[w].keys[i]), 1, 0), BED_RIGHT);
			munmap(workers[w].files[i], field.file_bytes);
		}
	}
	assert_int_equal(bed_end(&field.bed), 0);
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

struct victim {
	struct bed *bed;
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

static void put_and_keep(struct victim *victim, const char *key, uint32_t generation, uint8_t **file_ret)
{
	char path[PATH_MAX];
	uint64_t bytes;

	bed_fill(victim->buffer, victim->object_bytes, bed_key(key), generation, 0);
	KIT_EXPECT(kit_put(victim->bed->store, bed_key(key), victim->buffer, victim->object_bytes), 0, KVK_REASON_NONE);
	kit_path(path, victim->bed->path, bed_key(key));
	*file_ret = kit_file_read(path, &bytes);
	assert_true(victim->file_bytes == 0 || victim->file_bytes == bytes);
	victim->file_bytes = bytes;
}

static void victim_setup(struct victim *victim, struct bed *bed, uint64_t object_bytes)
{
	*victim = (struct victim){ .bed = bed, .object_bytes = object_bytes };
	victim->buffer = malloc(object_bytes + 1);
	kit_path(victim->path, bed->path, bed_key("victim"));
	bed_open(bed, "");
	put_and_keep(victim, "victim", 1, &victim->older);
	KIT_EXPECT(kit_remove(victim->bed->store, "victim"), 0, KVK_REASON_NONE);
	put_and_keep(victim, "other", 1, &victim->other);
	put_and_keep(victim, "victim", 2, &victim->good);
	victim->scratch = malloc(victim->file_bytes * 2 + 8192);
	memcpy(victim->scratch, victim->good, victim->file_bytes);
}

static void victim_release(struct victim *victim)
{
	kit_file_write(victim->path, victim->good, victim->file_bytes);
	KIT_EXPECT(kit_get(victim->bed->store, bed_key("victim"), victim->buffer, victim->object_bytes, KVK_GET_PEEK), 0,
		   KVK_REASON_NONE);
	assert_int_equal(bed_judge(victim->buffer, victim->object_bytes, bed_key("victim"), 2, 0), BED_RIGHT);
	printf("# %s: %" PRIu64 " damaged files of %" PRIu64 " bytes, 0 accepted\n", bed_kind_name(victim->bed->kind), victim->tried,
	       victim->file_bytes);
	proof_tell(10, victim->tried, "changes", atomic_load(&bed_wrong_answers));
	free(victim->good);
	free(victim->other);
	free(victim->older);
	free(victim->scratch);
	free(victim->buffer);
}

/* Writes the file anew; the get must be refused, and leave nothing of the payload in the buffer. */
static void refuse(struct victim *victim, uint64_t bytes, int status, uint32_t reason, const char *what, uint64_t at)
{
	struct kvk_result result;

	kit_file_write(victim->path, victim->scratch, bytes);
	memset(victim->buffer, 0x11, victim->object_bytes);
	result = kit_get(victim->bed->store, bed_key("victim"), victim->buffer, victim->object_bytes, KVK_GET_PEEK);
	if (result.status != status || result.reason != reason)
		fail_msg("%s, %s at %" PRIu64 ": status %d, reason \"%s\"; must be %d, \"%s\"", bed_kind_name(victim->bed->kind), what, at,
			 result.status, kvk_reason_text(result.reason), status, kvk_reason_text(reason));
	/* All of it filled, or none of it touched. */
	if ((victim->buffer[0] != 0xdb && victim->buffer[0] != 0x11) ||
	    memcmp(victim->buffer, victim->buffer + 1, victim->object_bytes - 1))
		fail_msg("%s, %s at %" PRIu64 ": the buffer holds bytes that were not proven", bed_kind_name(victim->bed->kind), what, at);
	assert_int_equal(kit_file_bytes(victim->path), bytes);
	victim->tried++;
}

static void refuse_damaged(struct victim *victim, uint64_t bytes, const char *what, uint64_t at)
{
	refuse(victim, bytes, -EBADMSG, KVK_REASON_DAMAGED, what, at);
	memcpy(victim->scratch, victim->good, victim->file_bytes);
}

static void try_lengths(struct victim *victim, uint64_t grain)
{
	uint64_t end = victim->file_bytes;

	for (uint64_t bytes = 0; bytes < end; bytes += grain)
		refuse_damaged(victim, bytes, "truncated", bytes);
	for (uint64_t more = 1; more <= 8192; more = more < 4096 ? more * 2 : more + 4096) {
		memset(victim->scratch + end, 0, more);
		refuse_damaged(victim, end + more, "extended by zeros", more);
	}
	/* With a whole footer at the very end, but not where the length says. */
	memcpy(victim->scratch + end, victim->good + end - 4096, 4096);
	refuse_damaged(victim, end + 4096, "footer twice", end);
	memcpy(victim->scratch + end - 8192, victim->good + end - 4096, 4096);
	refuse_damaged(victim, end - 4096, "footer too early", end);
}

static void try_blocks(struct victim *victim)
{
	uint64_t payload_end = victim->file_bytes - 4096;

	for (uint64_t at = 0; at < victim->file_bytes; at += 4096) {
		memset(victim->scratch + at, 0, 4096);
		refuse_damaged(victim, victim->file_bytes, "zeroed block", at);
		if (at < payload_end) {
			memcpy(victim->scratch + at, victim->other + at, 4096);
			refuse_damaged(victim, victim->file_bytes, "block of another key", at);
			/* The next block of its own payload. */
			memcpy(victim->scratch + at, victim->good + (at + 4096) % payload_end, 4096);
			if (memcmp(victim->scratch + at, victim->good + at, 4096))
				refuse_damaged(victim, victim->file_bytes, "block of another place", at);
		}
		memcpy(victim->scratch + at, victim->older + at, 4096);
		refuse_damaged(victim, victim->file_bytes, "block of an older object", at);
		/* Torn: up to here new, from here on old, and the other way round. */
		if (at > 0) {
			memcpy(victim->scratch + at, victim->older + at, victim->file_bytes - at);
			refuse_damaged(victim, victim->file_bytes, "old from here on", at);
			memcpy(victim->scratch, victim->older, at);
			refuse_damaged(victim, victim->file_bytes, "old up to here", at);
		}
	}
}

static void try_whole_files(struct victim *victim)
{
	uint64_t end = victim->file_bytes;

	refuse_damaged(victim, 0, "empty file", 0);
	memset(victim->scratch, 0, end);
	refuse_damaged(victim, end, "file of zeros", 0);
	memset(victim->scratch, 0, end - 4096);
	refuse_damaged(victim, end, "zeros before a whole footer", 0);
	memset(victim->scratch, 0xff, end);
	refuse_damaged(victim, end, "file of ones", 0);
	memcpy(victim->scratch, victim->other, end);
	refuse(victim, end, -EBADMSG, KVK_REASON_DAMAGED, "another key's file", 0);
	memcpy(victim->scratch, victim->good, end - 4096);
	refuse(victim, end, -EBADMSG, KVK_REASON_DAMAGED, "another key's footer", 0);
	memcpy(victim->scratch, victim->good, end);
}

static void every_length_of_a_small_object(void **state)
{
	struct bed *bed = *state;
	struct victim victim;

	victim_setup(&victim, bed, 5000);
	/* All of them once; a part of them, on every page and at odd places, the other ways. */
	try_lengths(&victim, bed->kind == BED_URING ? 1 : 29);
	victim_release(&victim);
}

static void every_block_of_a_large_object(void **state)
{
	struct victim victim;

	victim_setup(&victim, *state, 1 << 20);
	try_blocks(&victim);
	try_lengths(&victim, 4096);
	try_whole_files(&victim);
	victim_release(&victim);
}

/* Seen on ext4 after a power cut: 4 MiB of zeros, and behind them the footer as it was written. */
static void footer_behind_4_mib_of_zeros(void **state)
{
	struct victim victim;

	victim_setup(&victim, *state, 4 << 20);
	try_whole_files(&victim);
	victim_release(&victim);
}

/* Two objects that changed places, as a file system that confuses its inodes would leave them. */
static void files_that_changed_places(void **state)
{
	struct victim victim;
	char path[PATH_MAX];

	victim_setup(&victim, *state, 100000);
	kit_path(path, victim.bed->path, bed_key("other"));
	assert_int_equal(renameat2(AT_FDCWD, path, AT_FDCWD, victim.path, RENAME_EXCHANGE), 0);
	KIT_EXPECT(kit_get(victim.bed->store, bed_key("victim"), victim.buffer, 100000, KVK_GET_PEEK), -EBADMSG,
		   KVK_REASON_DAMAGED);
	KIT_EXPECT(kit_get(victim.bed->store, bed_key("other"), victim.buffer, 100000, KVK_GET_PEEK), -EBADMSG,
		   KVK_REASON_DAMAGED);
	assert_int_equal(bed_stats(victim.bed->store).quarantined, 0);
	assert_int_equal(renameat2(AT_FDCWD, path, AT_FDCWD, victim.path, RENAME_EXCHANGE), 0);
	KIT_EXPECT(kit_get(victim.bed->store, bed_key("other"), victim.buffer, 100000, 0), 0, KVK_REASON_NONE);
	assert_int_equal(bed_judge(victim.buffer, 100000, bed_key("other"), 1, 0), BED_RIGHT);

	/* Without the flag they make room for what the names are of: whole as they are, no store put them there. */
	assert_int_equal(renameat2(AT_FDCWD, path, AT_FDCWD, victim.path, RENAME_EXCHANGE), 0);
	KIT_EXPECT(kit_get(victim.bed->store, bed_key("victim"), victim.buffer, 100000, 0), -EBADMSG, KVK_REASON_DAMAGED);
	KIT_EXPECT(kit_get(victim.bed->store, bed_key("other"), victim.buffer, 100000, 0), -EBADMSG, KVK_REASON_DAMAGED);
	assert_int_equal(access(victim.path, F_OK), -1);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(bed_stats(victim.bed->store).quarantined, 2);
	victim_release(&victim);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_bit_of_64_kib),
		cmocka_unit_test(every_byte_of_1_mib),
		BED_TESTS_POSIX(every_length_of_a_small_object),
		BED_TESTS_POSIX(every_block_of_a_large_object),
		BED_TESTS_POSIX(footer_behind_4_mib_of_zeros),
		BED_TEST(files_that_changed_places, BED_URING, "io_uring, buffered"),
	};

	kit_in_memory();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
