/* SPDX-License-Identifier: Apache-2.0 */
/* A posix backend in a folder of its own, and its operations one by one. Included after cmocka.h. */
#ifndef KVK_TESTS_POSIX_BENCH_H
#define KVK_TESTS_POSIX_BENCH_H

#include <errno.h>
#include <string.h>

#include "backend/posix/posix_private.h"
#include "posix_help.h"

#define OBJECT "ab/abcdef.kv"

struct bench {
	char root[64];
	struct kvk_backend *backend;
	struct kvk_posix_sys sys;
};

static inline int no_openat2(int dir_fd, const char *path, const struct open_how *how)
{
	return -ENOSYS;
}

static inline struct kvk_backend_options options_for(const char *path)
{
	return (struct kvk_backend_options){ .path = path, .create = true, .writer_id = 0x1234 };
}

static inline void open_backend(struct bench *bench)
{
	struct kvk_backend_options options = options_for(bench->root);
	struct kvk_error error = { 0 };

	if (kvk_backend_posix.open(&bench->backend, &options, &error))
		fail_msg("%s: %s", error.option, error.text);
}

static inline int setup(void **state)
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

static inline int setup_walk(void **state)
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

static inline int teardown(void **state)
{
	struct bench *bench = *state;

	kvk_backend_posix.close(bench->backend);
	kvk_posix_sys_use(NULL);
	remove_tree(bench->root);
	test_free(bench);
	return 0;
}

static inline int64_t run(struct bench *bench, struct kvk_xfer *xfer)
{
	bench->backend->ops->run(bench->backend, xfer);
	return xfer->result;
}

static inline int64_t name_op(struct bench *bench, enum kvk_xfer_op op, const char *name, const char *name2)
{
	struct kvk_xfer xfer;

	kvk_xfer_init(&xfer, op, NULL, name);
	xfer.name2 = name2;
	return run(bench, &xfer);
}

static inline int64_t place_op(struct bench *bench, enum kvk_xfer_op op, struct kvk_place *place, const char *name)
{
	struct kvk_xfer xfer;

	kvk_xfer_init(&xfer, op, place, name);
	return run(bench, &xfer);
}

static inline struct kvk_place *create(struct bench *bench, const char *name)
{
	struct kvk_xfer xfer;

	kvk_xfer_init(&xfer, KVK_XFER_CREATE, NULL, name);
	assert_int_equal(run(bench, &xfer), 0);
	return xfer.place;
}

static inline int64_t move_bytes(struct bench *bench, enum kvk_xfer_op op, struct kvk_place *place, void *data, size_t bytes,
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

static inline int64_t put(struct bench *bench, const char *name, const char *text)
{
	struct kvk_place *place = create(bench, name);
	int64_t result;

	assert_int_equal(move_bytes(bench, KVK_XFER_WRITE, place, (void *)(uintptr_t)text, strlen(text), 0, 0),
			 strlen(text));
	result = place_op(bench, KVK_XFER_PUBLISH, place, name);
	assert_int_equal(place_op(bench, KVK_XFER_CLOSE, place, NULL), 0);
	return result;
}

static inline void assert_content(struct bench *bench, const char *name, const char *text)
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

static inline uint32_t count_names(struct bench *bench, const char *folder)
{
	struct kvk_names names = { 0 };
	uint32_t count;

	assert_int_equal(bench->backend->ops->list(bench->backend, folder, &names), 0);
	count = names.count;
	kvk_names_release(&names);
	return count;
}

#define BOTH(test) \
	cmocka_unit_test_setup_teardown(test, setup, teardown), { #test "_walking", test, setup_walk, teardown, NULL }

/* Those that are open besides the folders that the backend holds on purpose. */
static inline uint32_t descriptors_besides_folders(struct bench *bench)
{
	struct kvk_posix *posix = kvk_posix_of(bench->backend);
	uint32_t held = posix->stale_count;

	for (int i = 0; i < KVK_POSIX_FOLDERS; i++)
		held += posix->folders[i] >= 0;
	return open_descriptors() - held;
}

#endif
