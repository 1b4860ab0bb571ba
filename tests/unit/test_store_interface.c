/* SPDX-License-Identifier: Apache-2.0 */
/* What engines rely on when they talk to a store: queues, batches, pins, and who is told what. */
#include "support/skip.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "store_bed.h"

#include "backend/fault/fault.h"

#define BYTES 10000u
#define MANY 20u

/* ---- batches ------------------------------------------------------------------------------------ */

/* A batch of objects named <prefix>0, <prefix>1, ... of BYTES each, generation 1. */
struct batch {
	uint32_t count;
	char names[MANY][16];
	unsigned char *data[MANY];
	struct iovec iov[MANY];
	struct kvk_put_item puts[MANY];
	struct kvk_get_item gets[MANY];
	struct kvk_key_item keys[MANY];
	struct kvk_result results[MANY];
};

static struct batch *batch_new(const char *prefix, uint32_t count)
{
	struct batch *batch = calloc(1, sizeof(*batch));

	assert_non_null(batch);
	batch->count = count;
	for (uint32_t i = 0; i < count; i++) {
		struct kvk_key key;

		snprintf(batch->names[i], sizeof(batch->names[i]), "%s%u", prefix, i);
		key = bed_key(batch->names[i]);
		batch->data[i] = malloc(BYTES);
		assert_non_null(batch->data[i]);
		bed_fill(batch->data[i], BYTES, key, 1, 0);
		batch->iov[i] = (struct iovec){ .iov_base = batch->data[i], .iov_len = BYTES };
		batch->puts[i] = (struct kvk_put_item){ .struct_bytes = sizeof(batch->puts[i]), .key = key,
			.data = &batch->iov[i], .data_count = 1, .user = 1000 + i };
		batch->gets[i] = (struct kvk_get_item){ .struct_bytes = sizeof(batch->gets[i]), .key = key,
			.data = &batch->iov[i], .data_count = 1, .user = 2000 + i };
		batch->keys[i] = (struct kvk_key_item){ .struct_bytes = sizeof(batch->keys[i]), .key = key,
			.user = 3000 + i };
		batch->results[i].struct_bytes = sizeof(batch->results[i]);
	}
	return batch;
}

static void batch_free(struct batch *batch)
{
	for (uint32_t i = 0; i < batch->count; i++)
		free(batch->data[i]);
	free(batch);
}

static void batch_wipe(struct batch *batch)
{
	for (uint32_t i = 0; i < batch->count; i++)
		memset(batch->data[i], 0x5a, BYTES);
}

static bool batch_is_right(const struct batch *batch, uint32_t i)
{
	return bed_judge(batch->data[i], BYTES, bed_key(batch->names[i]), 1, 0) == BED_RIGHT;
}

static bool readable(int fd)
{
	struct pollfd pollfd = { .fd = fd, .events = POLLIN };

	return poll(&pollfd, 1, 0) == 1;
}

/* Drains a task of count items from a queue and checks that each was answered once. */
static void drain_task(struct kvk_store *store, enum kvk_queue queue, int64_t task, uint32_t count, int status)
{
	bool seen[MANY] = { false };
	struct kvk_result result;

	for (uint32_t i = 0; i < count; i++) {
		assert_true(bed_next(store, queue, &result));
		assert_int_equal(result.task, task);
		assert_true(result.item < count);
		assert_false(seen[result.item]);
		seen[result.item] = true;
		assert_int_equal(result.status, status);
		assert_int_equal(!!(result.flags & KVK_RESULT_LAST), i + 1 == count);
	}
	assert_int_equal(kvk_store_drain(store, queue, &result, 1), 0);
}

/* ---- queues ------------------------------------------------------------------------------------- */

/* Each kind of request wakes its own descriptor, which stays readable until the queue is empty. */
static void test_queues(void **state)
{
	struct bed *bed = *state;
	struct batch *batch = batch_new("q", 3);
	int fds[KVK_QUEUE_COUNT];
	int64_t task;

	bed_open(bed, "");
	for (int i = 0; i < KVK_QUEUE_COUNT; i++) {
		fds[i] = kvk_store_event_fd(bed->store, (enum kvk_queue)i);
		assert_true(fds[i] >= 0);
		assert_false(readable(fds[i]));
		for (int k = 0; k < i; k++)
			assert_int_not_equal(fds[i], fds[k]);
	}
	assert_int_equal(kvk_store_event_fd(bed->store, (enum kvk_queue)KVK_QUEUE_COUNT), -EINVAL);

	for (int round = 0; round < 5; round++) {
		static const enum kvk_queue queue_of[5] = {
			KVK_QUEUE_PUT, KVK_QUEUE_LOOKUP, KVK_QUEUE_GET, KVK_QUEUE_LOOKUP, KVK_QUEUE_PUT };
		enum kvk_queue queue = queue_of[round];
		struct kvk_result result = { .struct_bytes = sizeof(result) };

		task = round == 0 ? kvk_store_put(bed->store, batch->puts, 3, 0)
		     : round == 1 ? kvk_store_lookup(bed->store, batch->keys, 3, 0)
		     : round == 2 ? kvk_store_get(bed->store, batch->gets, 3, 0)
		     : round == 3 ? kvk_store_unpin(bed->store, batch->keys, 3)
				  : kvk_store_remove(bed->store, batch->keys, 3, 0);
		assert_true(task > 0);
		for (int i = 0; i < 3; i++) {
			assert_int_equal(kvk_store_wait(bed->store, queue, 10000000), 1);
			assert_true(readable(fds[queue]));
			assert_true(readable(fds[queue]));
			assert_int_equal(kvk_store_drain(bed->store, queue, &result, 1), 1);
			assert_int_equal(result.task, task);
			assert_int_equal(result.status, 0);
		}
		for (int i = 0; i < KVK_QUEUE_COUNT; i++)
			assert_false(readable(fds[i]));
		assert_int_equal(kvk_store_drain(bed->store, queue, &result, 1), 0);
		assert_int_equal(kvk_store_wait(bed->store, queue, 1000), 0);
	}
	batch_free(batch);
}

/* Task ids never repeat, whatever kind of request; each answer comes once and says whose it is. */
static void test_tasks(void **state)
{
	struct bed *bed = *state;
	struct batch *batch = batch_new("t", MANY);
	int64_t ids[200], count = 0;
	bool seen[MANY] = { false };

	bed_open(bed, "");
	ids[count++] = kvk_store_put(bed->store, batch->puts, MANY, 0);
	for (uint32_t taken = 0; taken < MANY;) {
		int got;

		assert_int_equal(kvk_store_wait(bed->store, KVK_QUEUE_PUT, 10000000), 1);
		got = kvk_store_drain(bed->store, KVK_QUEUE_PUT, batch->results, 3);
		assert_in_range(got, 1, 3);
		for (int i = 0; i < got; i++, taken++) {
			assert_false(seen[batch->results[i].item]);
			seen[batch->results[i].item] = true;
			assert_int_equal(batch->results[i].user, 1000 + batch->results[i].item);
			assert_int_equal(batch->results[i].bytes, BYTES);
			assert_int_equal(!!(batch->results[i].flags & KVK_RESULT_LAST), taken + 1 == MANY);
		}
	}
	for (int i = 0; i < 10; i++) {
		ids[count++] = kvk_store_lookup(bed->store, batch->keys, 1, 0);
		ids[count++] = kvk_store_get(bed->store, batch->gets, 1, 0);
		drain_task(bed->store, KVK_QUEUE_GET, ids[count - 1], 1, 0);
		ids[count++] = kvk_store_unpin(bed->store, batch->keys, 1);
		ids[count++] = kvk_store_put(bed->store, batch->puts, 1, 0);
		ids[count++] = kvk_store_remove(bed->store, batch->keys + 10 + i, 1, 0);
	}
	for (int64_t i = 0; i < count; i++) {
		assert_true(ids[i] > 0);
		for (int64_t k = 0; k < i; k++)
			assert_int_not_equal(ids[i], ids[k]);
	}
	batch_free(batch);
}

/* Waiting calls answer in place, in the order of the items, and leave the queues alone. */
static void test_waiting(void **state)
{
	struct bed *bed = *state;
	struct batch *batch = batch_new("w", MANY);

	bed_open(bed, "");
	assert_int_equal(kvk_store_put_wait(bed->store, batch->puts, MANY, 0, batch->results), 0);
	for (uint32_t i = 0; i < MANY; i++) {
		assert_int_equal(batch->results[i].item, i);
		assert_int_equal(batch->results[i].user, 1000 + i);
		assert_int_equal(batch->results[i].status, 0);
	}
	assert_int_equal(kvk_store_lookup_wait(bed->store, batch->keys, MANY, 0, batch->results), 0);
	for (uint32_t i = 0; i < MANY; i++) {
		assert_int_equal(batch->results[i].user, 3000 + i);
		assert_int_equal(batch->results[i].object_bytes, BYTES);
	}
	batch_wipe(batch);
	assert_int_equal(kvk_store_get_wait(bed->store, batch->gets, MANY, 0, batch->results), 0);
	for (uint32_t i = 0; i < MANY; i++) {
		assert_int_equal(batch->results[i].status, 0);
		assert_true(batch_is_right(batch, i));
	}
	assert_int_equal(kvk_store_unpin_wait(bed->store, batch->keys, MANY, batch->results), 0);
	assert_int_equal(kvk_store_remove_wait(bed->store, batch->keys, MANY, 0, batch->results), 0);
	for (uint32_t i = 0; i < MANY; i++)
		assert_int_equal(batch->results[i].status, 0);
	for (int i = 0; i < KVK_QUEUE_COUNT; i++)
		assert_int_equal(kvk_store_wait(bed->store, (enum kvk_queue)i, 0), 0);
	batch_free(batch);
}

/* ---- batches that partly fail ------------------------------------------------------------------- */

/* One key that finds no room does not take others with it: what was written stays, and is found. */
static void test_batch_at_the_cap(void **state)
{
	struct bed *bed = *state;
	struct batch *batch = batch_new("c", MANY);
	uint32_t stored = 0;
	struct kvk_usage usage;

	/* 100 KiB: six objects of 12 KiB and a footer of 4 KiB. */
	bed_open(bed, "params:\"max_capacity_gb\": 0.000095367431640625");
	assert_int_equal(bed_usage(bed->store).cap_bytes, 102400);
	assert_int_equal(kvk_store_put_wait(bed->store, batch->puts, MANY, 0, batch->results), 0);
	for (uint32_t i = 0; i < MANY; i++) {
		int found = bed_get(bed->store, batch->names[i], BYTES, 1, NULL);

		if (batch->results[i].status == 0) {
			stored++;
			assert_int_equal(found, 0);
			continue;
		}
		assert_int_equal(batch->results[i].status, -ENOSPC);
		assert_int_equal(batch->results[i].reason, KVK_REASON_NO_ROOM);
		assert_int_equal(found, -ENOENT);
	}
	assert_int_equal(stored, 6);
	usage = bed_usage(bed->store);
	assert_int_equal(usage.used_bytes, 6 * 16384);
	assert_int_equal(usage.writing_bytes, 0);
	assert_int_equal(bed_stats(bed->store).put_no_room, MANY - 6);
	BED_AGREES(bed->store);

	/* What is present costs nothing; what is removed makes room for exactly one. */
	for (uint32_t i = 0; i < MANY && stored == 6; i++) {
		struct kvk_result result;

		if (batch->results[i].status)
			continue;
		assert_int_equal(bed_put(bed->store, batch->names[i], BYTES, 1, &result), 0);
		assert_int_equal(result.reason, KVK_REASON_PRESENT);
		assert_int_equal(result.bytes, 0);
		assert_int_equal(bed_remove(bed->store, batch->names[i], NULL), 0);
		BED_AGREES(bed->store);
		assert_int_equal(bed_put(bed->store, "new", BYTES, 1, NULL), 0);
		assert_int_equal(bed_put(bed->store, "newer", BYTES, 1, NULL), -ENOSPC);
		stored = 0;
	}
	batch_free(batch);
}

/* A missing object clears its own answer only; the buffers of the others are right. */
static void test_batch_with_one_missing(void **state)
{
	struct bed *bed = *state;
	struct batch *batch = batch_new("m", 5);

	bed_open(bed, "");
	assert_int_equal(kvk_store_put_wait(bed->store, batch->puts, 5, 0, batch->results), 0);
	assert_int_equal(bed_remove(bed->store, "m2", NULL), 0);
	batch_wipe(batch);
	assert_int_equal(kvk_store_get_wait(bed->store, batch->gets, 5, 0, batch->results), 0);
	for (uint32_t i = 0; i < 5; i++) {
		assert_int_equal(batch->results[i].status, i == 2 ? -ENOENT : 0);
		assert_int_equal(batch->results[i].reason, i == 2 ? KVK_REASON_ABSENT : KVK_REASON_NONE);
		if (i != 2)
			assert_true(batch_is_right(batch, i));
	}
	for (uint32_t i = 0; i < BYTES; i++)
		assert_true(batch->data[2][i] == 0x5a || batch->data[2][i] == 0xdb);
	batch_free(batch);
}

/* The same key twice in one batch: one is written, the other is told so; the bytes are charged once. */
static void test_batch_with_twins(void **state)
{
	struct bed *bed = *state;
	struct batch *batch = batch_new("z", 6);
	uint32_t written = 0;

	bed_open(bed, "");
	for (uint32_t i = 1; i < 6; i++) {
		batch->puts[i].key = batch->puts[0].key;
		batch->puts[i].data = batch->puts[0].data;
	}
	assert_int_equal(kvk_store_put_wait(bed->store, batch->puts, 6, 0, batch->results), 0);
	for (uint32_t i = 0; i < 6; i++) {
		written += batch->results[i].status == 0 && batch->results[i].reason == KVK_REASON_NONE;
		assert_true(batch->results[i].status == 0 || batch->results[i].status == -EALREADY);
		if (batch->results[i].status)
			assert_int_equal(batch->results[i].reason, KVK_REASON_BUSY);
	}
	assert_int_equal(written, 1);
	assert_int_equal(bed_usage(bed->store).used_bytes, 16384);
	BED_AGREES(bed->store);
	batch_free(batch);
}

/* ---- pins --------------------------------------------------------------------------------------- */

static void test_pins(void **state)
{
	struct bed *bed = *state;
	struct batch *batch = batch_new("p", 4);
	struct kvk_result result;

	bed_open(bed, "");
	/* Taking off what was never put on harms nobody. */
	assert_int_equal(bed_unpin(bed->store, "p0"), 0);
	assert_int_equal(kvk_store_put_wait(bed->store, batch->puts, 2, 0, batch->results), 0);
	assert_int_equal(bed_unpin(bed->store, "p0"), 0);

	/* A lookup pins what it finds, and nothing else. */
	for (uint32_t i = 0; i < 4; i++)
		batch->keys[i].flags = KVK_LOOKUP_PIN;
	assert_int_equal(kvk_store_lookup_wait(bed->store, batch->keys, 4, 0, batch->results), 0);
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(batch->results[i].status, i < 2 ? 0 : -ENOENT);
	assert_int_equal(bed_usage(bed->store).pinned_objects, 2);
	assert_int_equal(bed_put(bed->store, "p2", BYTES, 1, NULL), 0);
	assert_int_equal(bed_usage(bed->store).pinned_objects, 2);

	/* Removing skips what is pinned, ignores what is not there, and says which. */
	for (uint32_t i = 0; i < 4; i++)
		batch->keys[i].flags = 0;
	assert_int_equal(kvk_store_remove_wait(bed->store, batch->keys, 4, 0, batch->results), 0);
	for (uint32_t i = 0; i < 4; i++) {
		assert_int_equal(batch->results[i].status, i < 2 ? -EBUSY : i == 2 ? 0 : -ENOENT);
		assert_int_equal(batch->results[i].reason,
				 i < 2 ? KVK_REASON_PINNED : i == 2 ? KVK_REASON_NONE : KVK_REASON_ABSENT);
	}
	assert_int_equal(bed_get(bed->store, "p0", BYTES, 1, NULL), 0);
	assert_int_equal(bed_get(bed->store, "p2", BYTES, 1, NULL), -ENOENT);

	/* Two pins need two to take them off; a lookup without the flag puts none on. */
	assert_int_equal(bed_lookup(bed->store, "p0", KVK_LOOKUP_PIN, NULL), 0);
	assert_int_equal(bed_lookup(bed->store, "p0", 0, NULL), 0);
	assert_int_equal(bed_unpin(bed->store, "p0"), 0);
	assert_int_equal(bed_remove(bed->store, "p0", &result), -EBUSY);
	assert_int_equal(bed_unpin(bed->store, "p0"), 0);
	assert_int_equal(bed_remove(bed->store, "p0", NULL), 0);
	assert_int_equal(bed_remove(bed->store, "p0", NULL), -ENOENT);
	assert_int_equal(bed_unpin(bed->store, "p1"), 0);
	assert_int_equal(bed_usage(bed->store).pinned_objects, 0);
	batch_free(batch);
}

/* After a restart what is there is charged as before; a lookup asks the medium, pins what it finds, and charges nothing. */
static void test_restart(void **state)
{
	struct bed *bed = *state;
	struct batch *batch = batch_new("r", 3);
	uint64_t used;

	bed_open(bed, "");
	assert_int_equal(kvk_store_put_wait(bed->store, batch->puts, 3, 0, batch->results), 0);
	used = bed_usage(bed->store).used_bytes;
	bed_reopen(bed, "");
	assert_int_equal(bed_usage(bed->store).used_bytes, used);
	for (int i = 0; i < 3; i++)
		assert_int_equal(bed_lookup(bed->store, "r0", KVK_LOOKUP_PIN, NULL), 0);
	assert_int_equal(bed_usage(bed->store).used_bytes, used);
	assert_int_equal(bed_remove(bed->store, "r0", NULL), -EBUSY);
	/* At most the first of them: the scan may have been there before. */
	assert_in_range(bed_stats(bed->store).lookup_medium_hits, 0, 1);
	assert_int_equal(bed_stats(bed->store).lookup_medium_hits + bed_stats(bed->store).lookup_memory_hits, 3);
	batch_wipe(batch);
	assert_int_equal(kvk_store_get_wait(bed->store, batch->gets, 3, 0, batch->results), 0);
	for (uint32_t i = 0; i < 3; i++)
		assert_true(batch_is_right(batch, i));
	assert_int_equal(bed_put(bed->store, "r1", BYTES, 1, NULL), 0);
	assert_int_equal(bed_usage(bed->store).used_bytes, used);
	for (int i = 0; i < 3; i++)
		assert_int_equal(bed_unpin(bed->store, "r0"), 0);
	assert_int_equal(kvk_store_remove_wait(bed->store, batch->keys, 3, 0, batch->results), 0);
	BED_AGREES(bed->store);
	assert_int_equal(bed_usage(bed->store).used_bytes, 0);
	batch_free(batch);
}

/* What was removed without the store knowing is a miss, and is charged no longer once its folder was looked at. */
static void test_removed_behind_its_back(void **state)
{
	struct bed *bed = *state;
	char path[512];

	bed_open(bed, "");
	assert_int_equal(bed_put(bed->store, "gone", BYTES, 1, NULL), 0);
	assert_int_equal(bed_path_of(bed, "gone", path, sizeof(path)), 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(bed_get(bed->store, "gone", BYTES, 1, NULL), -ENOENT);
	BED_AGREES(bed->store);
	assert_int_equal(bed_usage(bed->store).used_bytes, 0);
	assert_int_equal(bed_lookup(bed->store, "gone", KVK_LOOKUP_PIN, NULL), -ENOENT);
	assert_int_equal(bed_put(bed->store, "gone", BYTES, 1, NULL), 0);
	assert_int_equal(bed_get(bed->store, "gone", BYTES, 1, NULL), 0);
	BED_AGREES(bed->store);
}

/*
 * A remove renames, answers, and unlinks in the background. A sweep, of this or another process, may unlink first: the
 * bytes are free all the same.
 */
static void test_swept_while_removed(void **state)
{
	struct bed *bed = *state;
	char command[200];

	bed_open(bed, "\"lanes\": 1, \"fault\": [{\"do\": \"hang\", \"ops\": [\"unlink\"], \"nth\": 1}]");
	assert_int_equal(bed_put(bed->store, "swept", BYTES, 1, NULL), 0);
	assert_int_equal(bed_remove(bed->store, "swept", NULL), 0);
	assert_int_equal(bed_usage(bed->store).used_bytes, 16384);
	snprintf(command, sizeof(command), "rm -f '%s'/*/*.gone", bed->path);
	assert_int_equal(system(command), 0);
	kvk_fault_release(bed_backend(bed->store));
	BED_AGREES(bed->store);
	assert_int_equal(bed_usage(bed->store).used_bytes, 0);
}

/* ---- too much at a time, and never mind --------------------------------------------------------- */

#define SLOW "\"fault\": [{\"do\": \"hang\", \"ops\": [\"create\"], \"nth\": 1, \"every\": 1}]"

/* Beyond max_items a batch is refused whole, and taken after others have ended. */
static void test_back_pressure(void **state)
{
	struct bed *bed = *state;
	struct batch *batch = batch_new("b", MANY);
	int64_t task;

	/* The hang is in the lanes: more of them, so that others go on. */
	bed_open(bed, "\"max_items\": 4, \"lanes\": 4, " SLOW);
	task = kvk_store_put(bed->store, batch->puts, 3, 0);
	assert_true(task > 0);
	assert_int_equal(kvk_store_put(bed->store, batch->puts + 3, 2, 0), -EAGAIN);
	assert_int_equal(kvk_store_get(bed->store, batch->gets + 3, 2, 0), -EAGAIN);
	assert_int_equal(kvk_store_put_wait(bed->store, batch->puts + 3, 2, 0, batch->results), -EAGAIN);
	kvk_fault_clear(bed_backend(bed->store));
	kvk_fault_release(bed_backend(bed->store));
	drain_task(bed->store, KVK_QUEUE_PUT, task, 3, 0);
	while ((task = kvk_store_put(bed->store, batch->puts + 3, 4, 0)) == -EAGAIN)
		;
	assert_true(task > 0);
	drain_task(bed->store, KVK_QUEUE_PUT, task, 4, 0);
	/* One batch is let through whatever its size. */
	while ((task = kvk_store_put(bed->store, batch->puts + 7, MANY - 7, 0)) == -EAGAIN)
		;
	assert_true(task > 0);
	drain_task(bed->store, KVK_QUEUE_PUT, task, MANY - 7, 0);
	BED_AGREES(bed->store);
	batch_free(batch);
}

/* Cancelling answers what is not done, once; what was done stays. */
static void test_cancel(void **state)
{
	struct bed *bed = *state;
	struct batch *batch = batch_new("x", MANY);
	uint32_t answers[MANY] = { 0 }, canceled = 0;
	struct kvk_result result;
	int64_t task;

	bed_open(bed, "\"lanes\": 1, \"fault\": [{\"do\": \"delay\", \"ops\": [\"create\"], \"nth\": 4, \"every\": 1, "
		      "\"delay_ms\": 200}]");
	assert_int_equal(kvk_store_cancel(bed->store, 12345), -ENOENT);
	task = kvk_store_put(bed->store, batch->puts, MANY, 0);
	assert_true(task > 0);
	/* Some are done before the medium gets slow; then the rest is cancelled where it is. */
	for (uint32_t i = 0; i < 3; i++) {
		assert_true(bed_next(bed->store, KVK_QUEUE_PUT, &result));
		assert_int_equal(result.status, 0);
		answers[result.item]++;
	}
	assert_int_equal(kvk_store_cancel(bed->store, task), 0);
	kvk_fault_clear(bed_backend(bed->store));
	kvk_fault_release(bed_backend(bed->store));
	for (uint32_t i = 3; i < MANY; i++) {
		assert_true(bed_next(bed->store, KVK_QUEUE_PUT, &result));
		assert_true(result.status == 0 || result.status == -ECANCELED);
		if (result.status) {
			assert_int_equal(result.reason, KVK_REASON_CANCELED);
			canceled++;
		}
		answers[result.item]++;
	}
	assert_true(result.flags & KVK_RESULT_LAST);
	for (uint32_t i = 0; i < MANY; i++)
		assert_int_equal(answers[i], 1);
	assert_true(canceled >= MANY / 2);
	assert_int_equal(bed_stats(bed->store).canceled, canceled);
	/* It leaves the list of tasks a moment after its last answer was handed out. */
	while (kvk_store_cancel(bed->store, task) != -ENOENT)
		sched_yield();
	BED_AGREES(bed->store);
	batch_free(batch);
}

/* Closing with requests under way: after it, memory may be unmapped. */
static void test_close_under_way(void **state)
{
	struct bed *bed = *state;
	const size_t room = 64 * 65536;
	struct kvk_get_item gets[64];
	struct kvk_put_item puts[64];
	struct iovec iov[64];
	char names[64][8];

	for (int round = 0; round < 6; round++) {
		unsigned char *memory = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		assert_ptr_not_equal(memory, MAP_FAILED);
		for (uint32_t i = 0; i < 64; i++) {
			snprintf(names[i], sizeof(names[i]), "u%u", i);
			iov[i] = (struct iovec){ .iov_base = memory + i * 65536, .iov_len = 65536 };
			puts[i] = (struct kvk_put_item){ .struct_bytes = sizeof(puts[i]), .key = bed_key(names[i]),
				.data = &iov[i], .data_count = 1, .flags = round % 2 ? KVK_MEM_HELD : 0 };
			gets[i] = (struct kvk_get_item){ .struct_bytes = sizeof(gets[i]), .key = bed_key(names[i]),
				.data = &iov[i], .data_count = 1, .flags = round % 2 ? KVK_MEM_HELD : 0 };
			bed_fill(iov[i].iov_base, 65536, bed_key(names[i]), 1, 0);
		}
		bed_open(bed, "");
		assert_true(kvk_store_put(bed->store, puts, 64, 0) > 0);
		if (round >= 2)
			assert_true(kvk_store_get(bed->store, gets, 64, 0) > 0);
		assert_int_equal(bed_close(bed), 0);
		assert_int_equal(munmap(memory, room), 0);
	}
	bed_open(bed, "");
	for (uint32_t i = 0; i < 64; i++) {
		int status = bed_get(bed->store, names[i], 65536, 1, NULL);

		assert_true(status == 0 || status == -ENOENT);
	}
	assert_int_equal(bed_list(bed->store).damaged, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BED_TESTS_ALL(test_queues),
		BED_TESTS_ALL(test_tasks),
		BED_TESTS_ALL(test_waiting),
		BED_TESTS_ALL_PAGES(test_batch_at_the_cap),
		BED_TESTS_ALL(test_batch_with_one_missing),
		BED_TESTS_ALL_PAGES(test_batch_with_twins),
		BED_TESTS_ALL(test_pins),
		BED_TESTS_ALL_POSIX(test_restart),
		BED_TESTS_POSIX(test_removed_behind_its_back),
		BED_TESTS_POSIX(test_swept_while_removed),
		BED_TESTS(test_back_pressure),
		BED_TESTS(test_cancel),
		BED_TESTS_ALL(test_close_under_way),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
