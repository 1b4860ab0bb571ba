/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is moved aside, and what never: only what fails its own proof twice, at a bounded rate, into a bounded room, and
 * charged; never for an error of the medium or a disagreement with the caller.
 *
 * That what was stored between judging and moving is fresh, and goes back, rests on its inode: with that taken out
 * fresh_object_is_put_back fails (tests/mutants/race.txt).
 */
#include <dirent.h>

#include "seal.h"
#include "unit/store_kit.h"

#define BYTES 20000u
#define CHARGE (20480u + 4096u)
#define PER_MINUTE 16

static void path_in(char path[PATH_MAX], struct bed *bed, const char *key)
{
	kit_path(path, bed->path, bed_key(key));
}

/* Flips a bit in the middle of the payload. */
static void damage(struct bed *bed, const char *key)
{
	char path[PATH_MAX];
	uint64_t bytes;
	uint8_t *data;

	path_in(path, bed, key);
	data = kit_file_read(path, &bytes);
	data[BYTES / 2] ^= 0x10;
	kit_file_write(path, data, bytes);
	free(data);
}

static bool is_there(struct bed *bed, const char *key)
{
	char path[PATH_MAX];

	path_in(path, bed, key);
	return access(path, F_OK) == 0;
}

/* How many files lie in quarantine, and their bytes. */
static unsigned quarantined(struct bed *bed, uint64_t *bytes_ret)
{
	char folder[PATH_MAX], path[PATH_MAX + 300];
	struct dirent *entry;
	unsigned count = 0;
	DIR *dir;

	snprintf(folder, sizeof(folder), "%s/.kvkeep/quarantine", bed->path);
	dir = opendir(folder);
	assert_non_null(dir);
	*bytes_ret = 0;
	while ((entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
		*bytes_ret += kit_file_bytes(path);
		count++;
	}
	closedir(dir);
	return count;
}

static void expect_quarantine(struct bed *bed, unsigned count)
{
	uint64_t bytes;

	assert_int_equal(quarantined(bed, &bytes), count);
	assert_int_equal(bytes, (uint64_t)count * CHARGE);
	assert_int_equal(bed_stats(bed->store).quarantined, count);
	assert_int_equal(bed_usage(bed->store).quarantined_bytes, bytes);
}

/* ---- moved aside ------------------------------------------------------------------------------------- */

static void damaged_object_is_moved_aside_and_charged(void **state)
{
	struct bed *bed = *state;
	struct stat before, after;
	char path[PATH_MAX];

	bed_open(bed, "");
	KIT_EXPECT(kit_store(bed->store, "key", BYTES, 1), 0, KVK_REASON_NONE);
	damage(bed, "key");
	path_in(path, bed, "key");
	assert_int_equal(stat(path, &before), 0);
	KIT_EXPECT(kit_load(bed->store, "key", BYTES, 1), -EBADMSG, KVK_REASON_DAMAGED);
	/* Read once more before it was judged. */
	assert_int_equal(bed_stats(bed->store).rereads, 1);
	assert_false(is_there(bed, "key"));
	expect_quarantine(bed, 1);
	/* It still takes its place on the medium, and is counted there. */
	assert_int_equal(bed_usage(bed->store).used_bytes, CHARGE);
	/* The keeper may have listed the folder just before, and lists it anew since it changed. */
	for (uint64_t until_us = kit_now_us() + 30000000; bed_usage(bed->store).objects && kit_now_us() < until_us;)
		usleep(1000);
	assert_int_equal(bed_usage(bed->store).objects, 0);
	KIT_EXPECT(kit_load(bed->store, "key", BYTES, 1), -ENOENT, KVK_REASON_ABSENT);
	KIT_EXPECT(kit_store(bed->store, "key", BYTES, 2), 0, KVK_REASON_NONE);
	KIT_EXPECT(kit_load(bed->store, "key", BYTES, 2), 0, KVK_REASON_NONE);
	assert_int_equal(bed_usage(bed->store).used_bytes, 2 * CHARGE);
	assert_int_equal(stat(path, &after), 0);
	assert_int_not_equal(after.st_ino, before.st_ino);
}

static void no_more_than_sixteen_a_minute(void **state)
{
	struct bed *bed = *state;
	uint64_t bytes, minute;
	unsigned moved;

	bed_open(bed, "");
	for (unsigned i = 0; i < 40; i++) {
		char key[16];

		snprintf(key, sizeof(key), "key %u", i);
		KIT_EXPECT(kit_store(bed->store, key, BYTES, 1), 0, KVK_REASON_NONE);
		damage(bed, key);
	}
	minute = kit_now_us() / 60000000;
	for (unsigned i = 0; i < 40; i++) {
		char key[16];

		snprintf(key, sizeof(key), "key %u", i);
		KIT_EXPECT(kit_load(bed->store, key, BYTES, 1), -EBADMSG, KVK_REASON_DAMAGED);
	}
	moved = quarantined(bed, &bytes);
	/* Another minute may have begun meanwhile. */
	if (kit_now_us() / 60000000 == minute)
		assert_int_equal(moved, PER_MINUTE);
	else
		assert_in_range(moved, PER_MINUTE, 2 * PER_MINUTE);
	/* What stays where it is stays charged. */
	assert_int_equal(bed_usage(bed->store).used_bytes, 40 * CHARGE);
	assert_int_equal(bed_stats(bed->store).quarantined, moved);
}

/* 1 % of the cap: room for two of these. */
static void no_more_than_a_share_of_the_cap(void **state)
{
	struct bed *bed = *state;
	uint64_t bytes;

	bed_open(bed, "params:\"max_capacity_gb\": 0.005;");
	for (unsigned i = 0; i < 6; i++) {
		char key[16];

		snprintf(key, sizeof(key), "key %u", i);
		KIT_EXPECT(kit_store(bed->store, key, BYTES, 1), 0, KVK_REASON_NONE);
		damage(bed, key);
		KIT_EXPECT(kit_load(bed->store, key, BYTES, 1), -EBADMSG, KVK_REASON_DAMAGED);
	}
	assert_int_equal(quarantined(bed, &bytes), 2);
	assert_in_range(bytes, 1, bed_usage(bed->store).cap_bytes / 100);
	assert_int_equal(bed_usage(bed->store).used_bytes, 6 * CHARGE);
}

/* ---- never moved aside --------------------------------------------------------------------------------- */

/* The medium is right, a transfer was not. */
static void one_bad_transfer(void **state)
{
	struct bed *bed = *state;

	bed_open(bed, "");
	KIT_EXPECT(kit_store(bed->store, "key", BYTES, 1), 0, KVK_REASON_NONE);
	bed_reopen(bed, "\"fault\": [{\"do\": \"corrupt\", \"ops\": [\"read\"], \"nth\": 1, \"times\": 1}]");
	KIT_EXPECT(kit_load(bed->store, "key", BYTES, 1), 0, KVK_REASON_NONE);
	/* A bit of what nobody asked for (the padding) may be the one. */
	assert_in_range(bed_stats(bed->store).rereads, 0, 1);
	assert_int_equal(kvk_fault_struck(bed_backend(bed->store)), 1);
	expect_quarantine(bed, 0);
}

static void errors_of_the_medium(void **state)
{
	static const struct { int error; int status; uint32_t reason; } errors[] = {
		{ EIO, -EIO, KVK_REASON_MEDIUM }, { EMFILE, -EMFILE, KVK_REASON_NO_MEMORY },
		{ ENFILE, -ENFILE, KVK_REASON_NO_MEMORY }, { ENOMEM, -ENOMEM, KVK_REASON_NO_MEMORY },
		{ ESTALE, 0, 0 }, { ENODEV, 0, 0 }, { EREMOTEIO, 0, 0 }, { ENOTCONN, 0, 0 }, { EAGAIN, 0, 0 },
	};
	static const uint32_t steps[] = { 1u << KVK_XFER_OPEN, 1u << KVK_XFER_READ };
	struct bed *bed = *state;

	bed_open(bed, "\"fault\": []");
	KIT_EXPECT(kit_store(bed->store, "key", BYTES, 1), 0, KVK_REASON_NONE);
	for (size_t s = 0; s < sizeof(steps) / sizeof(steps[0]); s++) {
		for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
			struct kvk_fault_rule rule = { .kind = KVK_FAULT_FAIL, .ops = steps[s], .nth = 1, .every = 1,
						       .error = errors[i].error };
			struct kvk_result result;

			/* Over and over it is asked again by whoever has patience: not a case of judging. */
			if (errors[i].error == EAGAIN)
				rule.times = 3;
			assert_int_equal(kvk_fault_add(bed_backend(bed->store), &rule), 0);
			result = kit_load(bed->store, "key", BYTES, 1);
			kvk_fault_clear(bed_backend(bed->store));
			if (result.status == -EBADMSG || (errors[i].status && result.status != errors[i].status) ||
			    (errors[i].status && result.reason != errors[i].reason))
				fail_msg("%s: status %d, reason \"%s\"", strerror(errors[i].error), result.status,
					 kvk_reason_text(result.reason));
			assert_true(is_there(bed, "key"));
			KIT_EXPECT(kit_load(bed->store, "key", BYTES, 1), 0, KVK_REASON_NONE);
		}
	}
	expect_quarantine(bed, 0);
}

static void disagreements_with_the_caller(void **state)
{
	static uint8_t data[2 * BYTES];
	struct bed *bed = *state;
	char path[PATH_MAX], other[PATH_MAX];
	uint64_t bytes;
	uint8_t *file;

	bed_open(bed, "");
	KIT_EXPECT(kit_store(bed->store, "key", BYTES, 1), 0, KVK_REASON_NONE);
	path_in(path, bed, "key");

	/* Length: shorter is the caller's mistake, longer is none. */
	for (uint64_t room = 0; room < BYTES; room += room < 32 ? 1 : 999)
		KIT_EXPECT(kit_get(bed->store, bed_key("key"), data, room, 0), -EMSGSIZE, KVK_REASON_ARGUMENT);
	for (uint64_t room = BYTES; room <= 2 * BYTES; room += 999)
		KIT_EXPECT(kit_get(bed->store, bed_key("key"), data, room, 0), 0, KVK_REASON_NONE);

	/* Key: the file under another name, which no store gave it. The object stays, a put takes the name. */
	path_in(other, bed, "other");
	*strrchr(other, '/') = 0;
	mkdir(other, 0700);
	path_in(other, bed, "other");
	assert_int_equal(link(path, other), 0);
	KIT_EXPECT(kit_load(bed->store, "other", BYTES, 1), -EBADMSG, KVK_REASON_DAMAGED);
	assert_int_equal(access(other, F_OK), -1);
	KIT_EXPECT(kit_load(bed->store, "key", BYTES, 1), 0, KVK_REASON_NONE);
	KIT_EXPECT(kit_store(bed->store, "other", BYTES, 2), 0, KVK_REASON_NONE);
	KIT_EXPECT(kit_load(bed->store, "other", BYTES, 2), 0, KVK_REASON_NONE);
	expect_quarantine(bed, 1);

	/* Owner. */
	if (geteuid() == 0) {
		assert_int_equal(chown(path, 12345, 12345), 0);
		KIT_EXPECT(kit_load(bed->store, "key", BYTES, 1), -ENOENT, KVK_REASON_FOREIGN);
		assert_int_equal(chown(path, 0, 0), 0);
	}

	/* A newer version: whole, but not ours to understand. */
	file = kit_file_read(path, &bytes);
	for (unsigned at = 8; at < 12; at++) {
		uint8_t *footer = file + bytes - 4096;

		footer[at] ^= 0x40;
		seal_footer(footer, 4096);
		kit_file_write(path, file, bytes);
		KIT_EXPECT(kit_load(bed->store, "key", BYTES, 1), -ENOENT, KVK_REASON_FOREIGN);
		footer[at] ^= 0x40;
		seal_footer(footer, 4096);
		kit_file_write(path, file, bytes);
	}
	KIT_EXPECT(kit_load(bed->store, "key", BYTES, 1), 0, KVK_REASON_NONE);
	free(file);

	/* Namespace: a whole object of one, under the name that another gives it. */
	bed_reopen(bed, "\"namespace\": {\"a\": 1}");
	KIT_EXPECT(kit_store(bed->store, "key", BYTES, 2), 0, KVK_REASON_NONE);
	assert_int_equal(bed_stats(bed->store).quarantined, 0);
}

/* What the medium does not let be moved stays where it is, charged and known, and takes nothing of the room for two of these. */
static void what_cannot_be_moved_stays(void **state)
{
	struct kvk_fault_rule rule = { .kind = KVK_FAULT_FAIL, .ops = 1u << KVK_XFER_MOVE, .nth = 1, .every = 1, .error = EIO };
	struct bed *bed = *state;

	bed_keep_keeper_out(bed);
	bed_open(bed, "params:\"max_capacity_gb\": 0.005;\"fault\": []");
	KIT_EXPECT(kit_store(bed->store, "key", BYTES, 1), 0, KVK_REASON_NONE);
	damage(bed, "key");
	assert_int_equal(kvk_fault_add(bed_backend(bed->store), &rule), 0);
	for (unsigned i = 0; i < 3; i++) {
		KIT_EXPECT(kit_load(bed->store, "key", BYTES, 1), -EBADMSG, KVK_REASON_DAMAGED);
		assert_true(is_there(bed, "key"));
		expect_quarantine(bed, 0);
		assert_int_equal(bed_usage(bed->store).objects, 1);
		assert_int_equal(bed_usage(bed->store).used_bytes, CHARGE);
	}
	kvk_fault_clear(bed_backend(bed->store));
	KIT_EXPECT(kit_load(bed->store, "key", BYTES, 1), -EBADMSG, KVK_REASON_DAMAGED);
	assert_false(is_there(bed, "key"));
	expect_quarantine(bed, 1);
	assert_int_equal(bed_usage(bed->store).objects, 0);
}

/* ---- races of judging and moving --------------------------------------------------------------------------- */

/* Between judging and moving somebody stored it anew: that one goes back to its place. */
static void fresh_object_is_put_back(void **state)
{
	struct kvk_fault_rule rule = { .kind = KVK_FAULT_HANG, .ops = 1u << KVK_XFER_MOVE, .nth = 1, .times = 1 };
	struct bed *bed = *state;
	struct kvk_result result = { .struct_bytes = sizeof(result) };
	char path[PATH_MAX], aside[PATH_MAX + 8];
	uint8_t *data = malloc(BYTES);
	struct iovec iov = { data, BYTES };
	struct kvk_get_item item = { .struct_bytes = sizeof(item), .key = bed_key("key"), .data = &iov, .data_count = 1 };

	bed_open(bed, "\"fault\": []");
	path_in(path, bed, "key");
	snprintf(aside, sizeof(aside), "%s.good", path);
	KIT_EXPECT(kit_store(bed->store, "key", BYTES, 1), 0, KVK_REASON_NONE);
	assert_int_equal(rename(path, aside), 0);
	bed_reopen(bed, "\"fault\": []");
	kit_file_write(path, "damaged", 7);
	assert_int_equal(kvk_fault_add(bed_backend(bed->store), &rule), 0);
	assert_true(kvk_store_get(bed->store, &item, 1, 0) > 0);
	kit_wait_struck(bed->store, 1);
	assert_int_equal(rename(aside, path), 0);
	kvk_fault_release(bed_backend(bed->store));
	assert_true(bed_next(bed->store, KVK_QUEUE_GET, &result));
	assert_int_equal(result.status, -EBADMSG);
	assert_true(is_there(bed, "key"));
	expect_quarantine(bed, 0);
	KIT_EXPECT(kit_load(bed->store, "key", BYTES, 1), 0, KVK_REASON_NONE);
	/* The scan may have counted the short file, and then counts the folder once more. */
	assert_int_equal(kit_used_settles(bed->store, CHARGE), CHARGE);
	free(data);
}

/*
 * What was stored anew is in quarantine by mistake, and its name is another's when it would go back: it is unlinked, and who did that
 * gives it back. No keeper puts the books right.
 */
static void fresh_object_is_one_too_many(void **state)
{
	struct kvk_fault_rule rule = { .kind = KVK_FAULT_HANG, .ops = 1u << KVK_XFER_MOVE, .nth = 1, .times = 1 };
	struct kvk_get_item item = { .struct_bytes = sizeof(item), .key = bed_key("key"), .flags = KVK_GET_VERIFY };
	struct kvk_result result = { .struct_bytes = sizeof(result) };
	struct bed *bed = *state, other = *bed;

	bed_keep_keeper_out(bed);
	bed_open(bed, "\"fault\": []");
	bed_open(&other, "");
	KIT_EXPECT(kit_store(bed->store, "key", BYTES, 1), 0, KVK_REASON_NONE);
	assert_int_equal(kit_used_settles(other.store, CHARGE), CHARGE);
	damage(bed, "key");
	for (rule.nth = 1; rule.nth <= 2; rule.nth++)
		assert_int_equal(kvk_fault_add(bed_backend(bed->store), &rule), 0);
	assert_true(kvk_store_get(bed->store, &item, 1, 0) > 0);
	kit_wait_struck(bed->store, 1);
	assert_int_equal(bed_remove(other.store, "key", NULL), 0);
	KIT_EXPECT(kit_store(other.store, "key", BYTES, 2), 0, KVK_REASON_NONE);
	kvk_fault_release(bed_backend(bed->store));
	kit_wait_struck(bed->store, 2);
	assert_int_equal(bed_remove(other.store, "key", NULL), -ENOENT);
	KIT_EXPECT(kit_store(other.store, "key", 2 * BYTES, 3), 0, KVK_REASON_NONE);
	kvk_fault_release(bed_backend(bed->store));
	assert_true(bed_next(bed->store, KVK_QUEUE_GET, &result));
	assert_int_equal(result.status, -EBADMSG);
	expect_quarantine(bed, 0);
	assert_int_equal(kit_used_settles(other.store, CHARGE + 20480), CHARGE + 20480);
	assert_int_equal(kit_used_settles(bed->store, CHARGE + 20480), CHARGE + 20480);
	assert_int_equal(bed_close(&other), 0);
}

/* Two gets judge the same file: one moves it, it is charged once. */
static void two_gets_move_it_once(void **state)
{
	struct bed *bed = *state, other = *bed;
	uint64_t bytes;

	bed_open(bed, "");
	bed_open(&other, "\"fault\": []");
	for (unsigned i = 0; i < 8; i++) {
		struct kvk_fault_rule rule = { .kind = KVK_FAULT_HANG, .ops = 1u << KVK_XFER_MOVE, .nth = 1, .times = 1 };
		struct kvk_get_item item = { .struct_bytes = sizeof(item), .flags = KVK_GET_VERIFY };
		struct kvk_result result = { .struct_bytes = sizeof(result) };
		char key[16];

		snprintf(key, sizeof(key), "key %u", i);
		item.key = bed_key(key);
		KIT_EXPECT(kit_store(bed->store, key, BYTES, 1), 0, KVK_REASON_NONE);
		damage(bed, key);
		kvk_fault_clear(bed_backend(other.store));
		assert_int_equal(kvk_fault_add(bed_backend(other.store), &rule), 0);
		assert_true(kvk_store_get(other.store, &item, 1, 0) > 0);
		kit_wait_struck(other.store, 1);
		KIT_EXPECT(kit_load(bed->store, key, BYTES, 1), -EBADMSG, KVK_REASON_DAMAGED);
		kvk_fault_release(bed_backend(other.store));
		assert_true(bed_next(other.store, KVK_QUEUE_GET, &result));
		assert_int_equal(result.status, -EBADMSG);
		assert_int_equal(quarantined(bed, &bytes), i + 1);
	}
	assert_int_equal(bed_stats(bed->store).quarantined, 8);
	assert_int_equal(bed_stats(other.store).quarantined, 0);
	assert_int_equal(bed_usage(bed->store).used_bytes, 8 * CHARGE);
	/* Both have one account. */
	assert_int_equal(kit_used_settles(other.store, 8 * CHARGE), 8 * CHARGE);
	assert_int_equal(bed_close(&other), 0);
}

#define BOTH(function) BED_TEST(function, BED_URING, "io_uring, buffered"), \
		       BED_TEST(function, BED_THREADS_DIRECT, "threads, direct")

int main(void)
{
	const struct CMUnitTest tests[] = {
		BED_TESTS_POSIX(damaged_object_is_moved_aside_and_charged),
		BOTH(no_more_than_sixteen_a_minute),
		BOTH(no_more_than_a_share_of_the_cap),
		BOTH(what_cannot_be_moved_stays),
		BED_TESTS_POSIX(one_bad_transfer),
		BED_TESTS_POSIX(errors_of_the_medium),
		BED_TESTS_POSIX(disagreements_with_the_caller),
		BED_TESTS_POSIX(fresh_object_is_put_back),
		BOTH(fresh_object_is_one_too_many),
		BOTH(two_gets_move_it_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
