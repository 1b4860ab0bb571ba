/* SPDX-License-Identifier: Apache-2.0 */
/* The operations of the posix backend, over every way of publishing and of looking names up. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "backend/posix/posix_private.h"
#include "posix_help.h"
#include "util/alloc.h"

#define OBJECT "ab/abcdef.kv"
#define OTHER "ab/abcd00.kv"

struct bench {
	char root[64];
	struct kvk_backend *backend;
	struct kvk_posix_sys sys;
};

static int no_openat2(int dir_fd, const char *path, const struct open_how *how)
{
	return -ENOSYS;
}

static struct kvk_backend_options options_for(const char *path)
{
	return (struct kvk_backend_options){ .path = path, .create = true, .writer_id = 0x1234 };
}

static void open_backend(struct bench *bench)
{
	struct kvk_backend_options options = options_for(bench->root);
	struct kvk_error error = { 0 };

	if (kvk_backend_posix.open(&bench->backend, &options, &error))
		fail_msg("%s: %s", error.option, error.text);
}

static int setup(void **state)
{
	struct bench *bench = test_calloc(1, sizeof(*bench));

	snprintf(bench->root, sizeof(bench->root), "/tmp/kvk-posix-XXXXXX");
	assert_non_null(mkdtemp(bench->root));
	bench->sys = kvk_posix_sys_real;
	kvk_posix_sys_use(&bench->sys);
	open_backend(bench);
	*state = bench;
	return 0;
}

static int setup_walk(void **state)
{
	struct bench *bench;

	setup(state);
	bench = *state;
	kvk_backend_posix.close(bench->backend);
	bench->sys.openat2 = no_openat2;
	open_backend(bench);
	assert_false(kvk_posix_of(bench->backend)->has_openat2);
	return 0;
}

static int teardown(void **state)
{
	struct bench *bench = *state;

	kvk_backend_posix.close(bench->backend);
	kvk_posix_sys_use(NULL);
	remove_tree(bench->root);
	test_free(bench);
	return 0;
}

static int64_t run(struct bench *bench, struct kvk_xfer *xfer)
{
	bench->backend->ops->run(bench->backend, xfer);
	return xfer->result;
}

static int64_t name_op(struct bench *bench, enum kvk_xfer_op op, const char *name, const char *name2)
{
	struct kvk_xfer xfer;

	kvk_xfer_init(&xfer, op, NULL, name);
	xfer.name2 = name2;
	return run(bench, &xfer);
}

static int64_t place_op(struct bench *bench, enum kvk_xfer_op op, struct kvk_place *place, const char *name)
{
	struct kvk_xfer xfer;

	kvk_xfer_init(&xfer, op, place, name);
	return run(bench, &xfer);
}

static struct kvk_place *create(struct bench *bench, const char *name)
{
	struct kvk_xfer xfer;

	kvk_xfer_init(&xfer, KVK_XFER_CREATE, NULL, name);
	assert_int_equal(run(bench, &xfer), 0);
	return xfer.place;
}

static int64_t move_bytes(struct bench *bench, enum kvk_xfer_op op, struct kvk_place *place, void *data, size_t bytes,
			  uint64_t offset, uint32_t flags)
{
	struct iovec iov = { data, bytes };
	struct kvk_xfer xfer;

	kvk_xfer_init(&xfer, op, place, NULL);
	xfer.iov = &iov;
	xfer.iov_count = 1;
	xfer.offset_bytes = offset;
	xfer.flags = flags;
	return run(bench, &xfer);
}

static int64_t put(struct bench *bench, const char *name, const char *text)
{
	struct kvk_place *place = create(bench, name);
	int64_t result;

	assert_int_equal(move_bytes(bench, KVK_XFER_WRITE, place, (void *)(uintptr_t)text, strlen(text), 0, 0),
			 strlen(text));
	result = place_op(bench, KVK_XFER_PUBLISH, place, name);
	assert_int_equal(place_op(bench, KVK_XFER_CLOSE, place, NULL), 0);
	return result;
}

static void assert_content(struct bench *bench, const char *name, const char *text)
{
	char data[64];
	struct kvk_xfer xfer;

	kvk_xfer_init(&xfer, KVK_XFER_OPEN, NULL, name);
	assert_int_equal(run(bench, &xfer), 0);
	assert_int_equal(xfer.stat.bytes, strlen(text));
	assert_true(xfer.stat.regular);
	assert_true(xfer.stat.owned);
	assert_int_equal(xfer.stat.links, 1);
	assert_int_equal(move_bytes(bench, KVK_XFER_READ, xfer.place, data, sizeof(data), 0, 0), strlen(text));
	assert_memory_equal(data, text, strlen(text));
	assert_int_equal(place_op(bench, KVK_XFER_CLOSE, xfer.place, NULL), 0);
}

static uint32_t count_names(struct bench *bench, const char *folder)
{
	struct kvk_names names = { 0 };
	uint32_t count;

	assert_int_equal(bench->backend->ops->list(bench->backend, folder, &names), 0);
	count = names.count;
	kvk_names_release(&names);
	return count;
}

/* The first one to publish wins, nobody sees a file before, one that is closed unpublished is gone. */
static void test_publish_every_way(void **state)
{
	struct bench *bench = *state;
	uint32_t before = open_descriptors();

	for (unsigned way = 0; way < KVK_PUBLISH_COUNT; way++) {
		struct kvk_place *place;
		char name[32];

		kvk_posix_force_publish(bench->backend, way);
		snprintf(name, sizeof(name), "c%u/object.kv", way);
		place = create(bench, name);
		assert_int_equal(name_op(bench, KVK_XFER_STAT_NAME, name, NULL), -ENOENT);
		assert_int_equal(place_op(bench, KVK_XFER_CLOSE, place, NULL), 0);
		name[2] = '\0';
		assert_int_equal(count_names(bench, name), 0);
		name[2] = '/';
		assert_int_equal(put(bench, name, "first"), 0);
		assert_int_equal(put(bench, name, "second"), -EEXIST);
		assert_content(bench, name, "first");
		name[2] = '\0';
		assert_int_equal(count_names(bench, name), 1);
	}
	assert_int_equal(open_descriptors(), before);
}

static void test_move_exchange_unlink(void **state)
{
	struct bench *bench = *state;

	assert_int_equal(put(bench, OBJECT, "one"), 0);
	assert_int_equal(put(bench, OTHER, "other"), 0);
	assert_int_equal(name_op(bench, KVK_XFER_MOVE, OBJECT, OTHER), -EEXIST);
	assert_int_equal(name_op(bench, KVK_XFER_EXCHANGE, OBJECT, OTHER), 0);
	assert_content(bench, OBJECT, "other");
	assert_content(bench, OTHER, "one");
	assert_int_equal(name_op(bench, KVK_XFER_MOVE, OBJECT, ".kvkeep/quarantine/x"), 0);
	assert_int_equal(name_op(bench, KVK_XFER_STAT_NAME, OBJECT, NULL), -ENOENT);
	assert_content(bench, ".kvkeep/quarantine/x", "other");
	kvk_posix_of(bench->backend)->has_noreplace = false;
	assert_int_equal(name_op(bench, KVK_XFER_MOVE, OTHER, ".kvkeep/quarantine/x"), -EEXIST);
	assert_int_equal(name_op(bench, KVK_XFER_MOVE, OTHER, OBJECT), 0);
	assert_content(bench, OBJECT, "one");
	assert_int_equal(name_op(bench, KVK_XFER_UNLINK, OBJECT, NULL), 0);
	assert_int_equal(name_op(bench, KVK_XFER_UNLINK, OBJECT, NULL), -ENOENT);
	assert_int_equal(count_names(bench, "ab"), 0);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test_setup_teardown(test_publish_every_way, setup, teardown),
	{ "test_publish_every_way_walking", test_publish_every_way, setup_walk, teardown, NULL },
	cmocka_unit_test_setup_teardown(test_move_exchange_unlink, setup, teardown),
	{ "test_move_exchange_unlink_walking", test_move_exchange_unlink, setup_walk, teardown, NULL },
};

int main(void)
{
	return cmocka_run_group_tests(tests, NULL, NULL);
}
