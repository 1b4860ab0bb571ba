/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every backend offers beside objects to those who share a medium: locks on bytes, files updated in place, times of
 * folders, access times, room. The same cases run over files, memory and the backend that fails.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "account_bed.h"
#include "util/clock.h"

static bool through_fault;

static struct kvk_backend *open_one(struct bed *bed)
{
	struct kvk_backend *backend = bed_backend(bed), *fault;

	if (!through_fault)
		return backend;
	assert_int_equal(kvk_fault_new(&fault, backend, 1), 0);
	return fault;
}

static int setup_ram(void **state)
{
	static struct bed bed;

	through_fault = false;
	bed_start(&bed, &kvk_backend_ram);
	*state = &bed;
	return 0;
}

static int setup_posix(void **state)
{
	static struct bed bed;

	through_fault = false;
	bed_start(&bed, &kvk_backend_posix);
	*state = &bed;
	return 0;
}

static int setup_fault(void **state)
{
	setup_ram(state);
	through_fault = true;
	return 0;
}

static int teardown(void **state)
{
	bed_end(*state);
	return 0;
}

static void locks_exclude_others(void **state)
{
	static const uint32_t bytes[] = {
		0, 1, 255, KVK_LOCK_ACCOUNT, KVK_LOCK_KEEPER, KVK_LOCK_POOL, KVK_LOCK_QUOTAS, KVK_LOCK_NEWS, KVK_LOCK_END - 1,
	};
	struct kvk_backend *one = open_one(*state), *two = open_one(*state);
	uint64_t begin_us;

	for (unsigned i = 0; i < sizeof(bytes) / sizeof(bytes[0]); i++) {
		uint32_t byte = bytes[i];

		assert_int_equal(two->ops->is_locked(two, byte), 0);
		assert_int_equal(one->ops->lock(one, byte, 0), 0);
		assert_int_equal(one->ops->lock(one, byte, 0), 0);
		assert_int_equal(one->ops->is_locked(one, byte), 0);
		assert_int_equal(two->ops->is_locked(two, byte), 1);
		begin_us = kvk_now_us();
		assert_int_equal(two->ops->lock(two, byte, 20), -EBUSY);
		assert_true(kvk_now_us() - begin_us >= 20000);
		two->ops->unlock(two, byte);
		assert_int_equal(two->ops->is_locked(two, byte), 1);
		one->ops->unlock(one, byte);
		assert_int_equal(two->ops->lock(two, byte, 0), 0);
		assert_int_equal(one->ops->lock(one, byte, 0), -EBUSY);
		two->ops->unlock(two, byte);
	}
	/* One byte says nothing about the next, and close gives up all. */
	assert_int_equal(one->ops->lock(one, 7, 0), 0);
	assert_int_equal(one->ops->lock(one, KVK_LOCK_KEEPER, 0), 0);
	assert_int_equal(two->ops->lock(two, 6, 0), 0);
	assert_int_equal(two->ops->lock(two, 8, 0), 0);
	one->ops->close(one);
	assert_int_equal(two->ops->is_locked(two, 7), 0);
	assert_int_equal(two->ops->lock(two, KVK_LOCK_KEEPER, 0), 0);
	two->ops->close(two);
}

static void files_are_updated_in_place(void **state)
{
	struct kvk_backend *backend = open_one(*state);
	struct bed *bed = *state;
	char path[96], *data;
	uint64_t bytes;
	struct stat stat_;
	void *loaded;

	assert_int_equal(backend->ops->update_file(backend, "account", 6, "world", 5), 0);
	assert_int_equal(backend->ops->load_file(backend, "account", &loaded, &bytes, 100), 0);
	assert_int_equal(bytes, 11);
	assert_memory_equal(loaded, "\0\0\0\0\0\0world", 11);
	kvk_mem_free(loaded);
	assert_int_equal(backend->ops->update_file(backend, "account", 0, "hello ", 6), 0);
	assert_int_equal(backend->ops->load_file(backend, "account", &loaded, &bytes, 100), 0);
	data = loaded;
	assert_int_equal(bytes, 11);
	assert_memory_equal(data, "hello world", 11);
	kvk_mem_free(loaded);
	assert_true(backend->ops->update_file(backend, "../outside", 0, "x", 1) < 0);
	assert_true(backend->ops->update_file(backend, "namespaces", 0, "x", 1) < 0);
	if (bed->ops == &kvk_backend_posix) {
		snprintf(path, sizeof(path), "%s/.kvkeep/account", bed->path);
		assert_int_equal(stat(path, &stat_), 0);
		assert_int_equal(stat_.st_mode & 07777, 0600);
		/* Through no link, and no FIFO holds it up. */
		assert_int_equal(unlink(path), 0);
		assert_int_equal(symlink("superblock", path), 0);
		assert_int_equal(backend->ops->update_file(backend, "account", 0, "x", 1), -ELOOP);
		assert_int_equal(unlink(path), 0);
		assert_int_equal(mkfifo(path, 0600), 0);
		assert_true(backend->ops->update_file(backend, "account", 0, "x", 1) < 0);
	}
	backend->ops->close(backend);
}

static int step(struct kvk_backend *backend, enum kvk_xfer_op op, struct kvk_place **place, const char *name,
		struct kvk_stat *stat)
{
	struct kvk_xfer xfer;

	kvk_xfer_init(&xfer, op, *place, name);
	backend->ops->run(backend, &xfer);
	*place = xfer.place;
	if (stat)
		*stat = xfer.stat;
	return (int)xfer.result;
}

static void put(struct kvk_backend *backend, const char *name)
{
	struct kvk_place *place = NULL;

	assert_int_equal(step(backend, KVK_XFER_CREATE, &place, name, NULL), 0);
	assert_int_equal(step(backend, KVK_XFER_PUBLISH, &place, name, NULL), 0);
	assert_int_equal(step(backend, KVK_XFER_CLOSE, &place, NULL, NULL), 0);
}

static void a_folder_changes_when_names_do(void **state)
{
	struct kvk_backend *backend = open_one(*state);
	struct kvk_place *none = NULL;
	uint64_t before = 7, after, root;

	assert_int_equal(backend->ops->folder_time(backend, "ab", &before), -ENOENT);
	assert_true(before == 7);
	put(backend, "ab/one");
	assert_int_equal(backend->ops->folder_time(backend, "ab", &before), 0);
	assert_true(before <= wall_ns() && before + 10000000000u > wall_ns());
	assert_int_equal(backend->ops->folder_time(backend, "", &root), 0);
	pause_ms(30);
	put(backend, "cd/two");
	assert_int_equal(backend->ops->folder_time(backend, "ab", &after), 0);
	assert_true(after == before);
	assert_int_equal(backend->ops->folder_time(backend, "", &after), 0);
	assert_true(after > root);
	put(backend, "ab/two");
	assert_int_equal(backend->ops->folder_time(backend, "ab", &after), 0);
	assert_true(after > before);
	pause_ms(30);
	assert_int_equal(step(backend, KVK_XFER_UNLINK, &none, "ab/one", NULL), 0);
	assert_int_equal(backend->ops->folder_time(backend, "ab", &before), 0);
	assert_true(before > after);
	assert_true(backend->ops->folder_time(backend, "ab/two", &after) < 0);
	assert_true(backend->ops->folder_time(backend, "../ab", &after) < 0);
	backend->ops->close(backend);
}

static void a_touch_sets_the_access_time_alone(void **state)
{
	struct kvk_backend *backend = open_one(*state);
	struct kvk_place *place = NULL;
	struct kvk_stat before, after;

	put(backend, "ab/one");
	pause_ms(30);
	assert_int_equal(step(backend, KVK_XFER_OPEN, &place, "ab/one", &before), 0);
	assert_int_equal(step(backend, KVK_XFER_TOUCH, &place, NULL, NULL), 0);
	assert_int_equal(step(backend, KVK_XFER_STAT, &place, NULL, &after), 0);
	assert_true(after.accessed_ns > before.accessed_ns && after.modified_ns == before.modified_ns);
	assert_int_equal(step(backend, KVK_XFER_CLOSE, &place, NULL, NULL), 0);
	backend->ops->close(backend);
}

static void a_medium_tells_its_room(void **state)
{
	struct kvk_backend *backend = open_one(*state);
	struct kvk_space space = { 0 };

	assert_int_equal(backend->ops->space(backend, &space), 0);
	assert_true(space.total_bytes > 0 && space.free_bytes <= space.total_bytes);
	assert_true(space.free_inodes <= space.total_inodes);
	backend->ops->close(backend);
}

/* Other processes, and what is left of their locks when they are gone. */
static void locks_end_with_their_process(void **state)
{
	struct kvk_backend *one = open_one(*state);
	int up[2], status;
	char byte = 0;
	pid_t child;

	assert_int_equal(pipe(up), 0);
	child = fork();
	if (child == 0) {
		struct kvk_backend *two = open_one(*state);

		byte = (char)(two->ops->lock(two, 3, 0) == 0);
		if (write(up[1], &byte, 1) != 1)
			_exit(1);
		pause();
	}
	assert_int_equal(read(up[0], &byte, 1), 1);
	assert_int_equal(byte, 1);
	assert_int_equal(one->ops->is_locked(one, 3), 1);
	assert_int_equal(one->ops->lock(one, 3, 2), -EBUSY);
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(one->ops->lock(one, 3, 0), 0);
	close(up[0]);
	close(up[1]);
	one->ops->close(one);
}

/* ---- the backend that fails ---------------------------------------------------------------------------- */

static void updates_fail_by_rules_that_name_them(void **state)
{
	static const struct {
		struct kvk_fault_rule rule;
		int result;
		const char *left;
	} rows[] = {
		{ { .kind = KVK_FAULT_FAIL, .error = ENOSPC }, -ENOSPC, "old text" },
		{ { .kind = KVK_FAULT_FAIL_AFTER, .error = EIO }, -EIO, "new text" },
		{ { .kind = KVK_FAULT_SHORTEN, .part_bytes = 6 }, -EIO, "ned text" },
		{ { .kind = KVK_FAULT_SHORTEN, .part_bytes = UINT64_MAX }, -EIO, "old text" },
		{ { .kind = KVK_FAULT_DELAY, .delay_us = 20000 }, 0, "new text" },
		{ { .kind = KVK_FAULT_CORRUPT }, 0, NULL },
	};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct kvk_backend *backend = open_one(*state);
		struct kvk_fault_rule rule = rows[i].rule, others = { .kind = KVK_FAULT_FAIL, .error = EIO, .nth = 1, .every = 1 };
		uint64_t bytes, begin_us;
		unsigned wrong = 0;
		void *loaded;

		assert_int_equal(backend->ops->update_file(backend, "account", 0, "old text", 8), 0);
		/* One for all operations means transfers. */
		assert_int_equal(kvk_fault_add(backend, &others), 0);
		assert_int_equal(backend->ops->update_file(backend, "account", 0, "old text", 8), 0);
		kvk_fault_clear(backend);
		rule.ops = 1u << KVK_FAULT_UPDATE_FILE;
		rule.nth = 2;
		assert_int_equal(kvk_fault_add(backend, &rule), 0);
		assert_int_equal(backend->ops->update_file(backend, "account", 0, "old text", 8), 0);
		begin_us = kvk_now_us();
		assert_int_equal(backend->ops->update_file(backend, "account", 0, "new text", 8), rows[i].result);
		assert_true(kvk_now_us() - begin_us >= rule.delay_us);
		assert_int_equal(kvk_fault_struck(backend), 1);
		assert_int_equal(backend->ops->load_file(backend, "account", &loaded, &bytes, 100), 0);
		assert_int_equal(bytes, 8);
		for (unsigned j = 0; j < 8; j++)
			wrong += (unsigned)__builtin_popcount((uint8_t)(((char *)loaded)[j] ^ "new text"[j]));
		if (rows[i].left)
			assert_memory_equal(loaded, rows[i].left, 8);
		else
			assert_int_equal(wrong, 1);
		kvk_mem_free(loaded);
		backend->ops->close(backend);
	}
}

/* Questions are judged as well, by rules that name them and by no others. */
static void questions_fail_on_purpose(void **state)
{
	struct kvk_fault_rule others = { .kind = KVK_FAULT_FAIL, .error = EIO, .nth = 1, .every = 1 };
	struct kvk_backend *backend = open_one(*state);
	struct kvk_space space;
	uint64_t begin_us;

	assert_int_equal(kvk_fault_add(backend, &others), 0);
	assert_int_equal(backend->ops->space(backend, &space), 0);
	assert_int_equal(backend->ops->is_locked(backend, 7), 0);
	kvk_fault_clear(backend);
	assert_int_equal(kvk_fault_parse(backend, "[{\"do\":\"fail\",\"ops\":[\"ask\"],\"nth\":2,\"every\":1,\"times\":2}, "
					 "{\"do\":\"delay\",\"ops\":[\"ask\"],\"nth\":5,\"delay_ms\":20}]", NULL), 0);
	assert_int_equal(backend->ops->space(backend, &space), 0);
	assert_int_equal(backend->ops->space(backend, &space), -EIO);
	assert_int_equal(backend->ops->is_locked(backend, 7), -EIO);
	assert_int_equal(backend->ops->is_locked(backend, 7), 0);
	begin_us = kvk_now_us();
	assert_int_equal(backend->ops->space(backend, &space), 0);
	assert_true(kvk_now_us() - begin_us >= 20000);
	assert_int_equal(kvk_fault_struck(backend), 3);
	backend->ops->close(backend);
}

static void an_update_is_named_in_the_option(void **state)
{
	struct kvk_backend *backend = open_one(*state);

	assert_int_equal(kvk_fault_parse(backend, "[{\"do\":\"fail\",\"ops\":[\"update_file\"],\"nth\":1}]", NULL), 0);
	assert_int_equal(backend->ops->update_file(backend, "account", 0, "x", 1), -EIO);
	assert_int_equal(backend->ops->update_file(backend, "account", 0, "x", 1), 0);
	backend->ops->close(backend);
}

#define OVER_ALL(test) \
	cmocka_unit_test_setup_teardown(test, setup_ram, teardown), \
	cmocka_unit_test_setup_teardown(test, setup_posix, teardown), \
	cmocka_unit_test_setup_teardown(test, setup_fault, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		OVER_ALL(locks_exclude_others),
		OVER_ALL(files_are_updated_in_place),
		OVER_ALL(a_folder_changes_when_names_do),
		OVER_ALL(a_touch_sets_the_access_time_alone),
		OVER_ALL(a_medium_tells_its_room),
		cmocka_unit_test_setup_teardown(locks_end_with_their_process, setup_posix, teardown),
		cmocka_unit_test_setup_teardown(updates_fail_by_rules_that_name_them, setup_fault, teardown),
		cmocka_unit_test_setup_teardown(questions_fail_on_purpose, setup_fault, teardown),
		cmocka_unit_test_setup_teardown(an_update_is_named_in_the_option, setup_fault, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
