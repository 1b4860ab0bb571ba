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


/* Pieces of memory, offsets, ends of files; what is reserved is part of the file. */
static void test_bytes(void **state)
{
	struct bench *bench = *state;
	struct kvk_place *place = create(bench, OBJECT);
	char data[16] = "0123456789abcdef", first[4], second[8];
	struct iovec out[2] = { { data, 4 }, { data + 8, 8 } };
	struct iovec in[2] = { { first, 4 }, { second, 8 } };
	struct kvk_xfer xfer;

	kvk_xfer_init(&xfer, KVK_XFER_RESERVE, place, NULL);
	xfer.offset_bytes = 100;
	if (!run(bench, &xfer)) {
		assert_int_equal(place_op(bench, KVK_XFER_STAT, place, NULL), 0);
		kvk_xfer_init(&xfer, KVK_XFER_STAT, place, NULL);
		assert_int_equal(run(bench, &xfer), 0);
		assert_int_equal(xfer.stat.bytes, 100);
		assert_int_equal(xfer.stat.links, kvk_posix_of(bench->backend)->publish > KVK_PUBLISH_EMPTY_PATH);
	}
	kvk_xfer_init(&xfer, KVK_XFER_WRITE, place, NULL);
	xfer.iov = out;
	xfer.iov_count = 2;
	xfer.offset_bytes = 88;
	assert_int_equal(run(bench, &xfer), 12);
	kvk_xfer_init(&xfer, KVK_XFER_READ, place, NULL);
	xfer.iov = in;
	xfer.iov_count = 2;
	xfer.offset_bytes = 88;
	assert_int_equal(run(bench, &xfer), 12);
	assert_memory_equal(first, "0123", 4);
	assert_memory_equal(second, "89abcdef", 8);
	xfer.offset_bytes = 98;
	assert_int_equal(run(bench, &xfer), 2);
	xfer.offset_bytes = 100;
	assert_int_equal(run(bench, &xfer), 0);
	/* Just written, so in the page cache. */
	xfer.offset_bytes = 88;
	xfer.flags = KVK_XFER_NOWAIT;
	assert_int_equal(run(bench, &xfer), bench->backend->caps.nowait ? 12 : -EAGAIN);
	bench->backend->caps.nowait = false;
	assert_int_equal(run(bench, &xfer), -EAGAIN);
	assert_int_equal(place_op(bench, KVK_XFER_SYNC, place, NULL), 0);
	assert_int_equal(place_op(bench, KVK_XFER_CLOSE, place, NULL), 0);
}

static void test_if_cached(void **state)
{
	struct bench *bench = *state;
	struct kvk_xfer xfer;

	assert_int_equal(put(bench, OBJECT, "x"), 0);
	kvk_xfer_init(&xfer, KVK_XFER_OPEN, NULL, OBJECT);
	xfer.flags = KVK_XFER_IF_CACHED;
	assert_int_equal(run(bench, &xfer), 0);
	assert_int_equal(place_op(bench, KVK_XFER_CLOSE, xfer.place, NULL), 0);
}

static unsigned fsyncs;

static int counted_fsync(int fd)
{
	fsyncs++;
	return kvk_posix_sys_real.fsync(fd);
}

/* A folder's first sync goes up to the root, whoever made it; a folder made anew starts again. */
static void test_sync_folder(void **state)
{
	struct bench *bench = *state;
	static const struct {
		const char *name;
		unsigned fsyncs;
	} steps[] = { { "ab/cd/x", 3 }, { "ab/cd/y", 1 }, { "ab/z", 2 }, { "ab/z", 1 }, { "top", 1 } };
	char path[128];

	bench->sys.fsync = counted_fsync;
	assert_int_equal(put(bench, "ab/cd/x", "x"), 0);
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		fsyncs = 0;
		assert_int_equal(name_op(bench, KVK_XFER_SYNC_FOLDER, steps[i].name, NULL), 0);
		assert_int_equal(fsyncs, steps[i].fsyncs);
	}
	snprintf(path, sizeof(path), "%s/ab", bench->root);
	remove_tree(path);
	assert_int_equal(name_op(bench, KVK_XFER_SYNC_FOLDER, "ab/z", NULL), -ENOENT);
	assert_int_equal(put(bench, "ab/z", "x"), 0);
	fsyncs = 0;
	assert_int_equal(name_op(bench, KVK_XFER_SYNC_FOLDER, "ab/z", NULL), 0);
	assert_int_equal(fsyncs, 2);
	assert_int_equal(name_op(bench, KVK_XFER_SYNC_ALL, NULL, NULL), 0);
}

static unsigned mode_of(struct bench *bench, const char *name)
{
	char path[160];
	struct stat stat;

	snprintf(path, sizeof(path), "%s/%s", bench->root, name);
	assert_int_equal(lstat(path, &stat), 0);
	return stat.st_mode & 07777u;
}

/* Nobody else may read what can be turned back into a prompt, whatever the host's umask says. */
static void test_modes(void **state)
{
	struct bench *bench = *state;
	static const mode_t umasks[] = { 0, 022, 077, 0277, 0777 };

	for (unsigned group = 0; group < 2; group++) {
		for (size_t i = 0; i < sizeof(umasks) / sizeof(umasks[0]); i++) {
			struct kvk_backend_options options = options_for(bench->root);
			unsigned file = group ? 0660 : 0600, folder = group ? 0770 : 0700;
			mode_t before;

			kvk_backend_posix.close(bench->backend);
			bench->backend = NULL;
			remove_tree(bench->root);
			options.group = group;
			before = umask(umasks[i]);
			assert_int_equal(kvk_backend_posix.open(&bench->backend, &options, NULL), 0);
			for (unsigned way = 0; way < KVK_PUBLISH_COUNT; way++) {
				char name[16];

				kvk_posix_force_publish(bench->backend, way);
				snprintf(name, sizeof(name), "ab/%u", way);
				assert_int_equal(put(bench, name, "x"), 0);
				assert_int_equal(mode_of(bench, name), file);
			}
			assert_int_equal(bench->backend->ops->save_file(bench->backend, "superblock", "x", 1, false), 0);
			assert_int_equal(bench->backend->ops->hold(bench->backend, true), 0);
			umask(before);
			assert_int_equal(mode_of(bench, ""), folder);
			assert_int_equal(mode_of(bench, "ab"), folder);
			assert_int_equal(mode_of(bench, ".kvkeep"), folder);
			assert_int_equal(mode_of(bench, ".kvkeep/quarantine"), folder);
			assert_int_equal(mode_of(bench, ".kvkeep/superblock"), file);
			assert_int_equal(mode_of(bench, ".kvkeep/locks"), file);
		}
	}
}

static void test_files(void **state)
{
	struct bench *bench = *state;
	const struct kvk_backend_ops *ops = bench->backend->ops;
	uint64_t bytes = 77, free_bytes = 0, total_bytes = 0;
	void *data = NULL;

	assert_int_equal(ops->load_file(bench->backend, "superblock", &data, &bytes, 100), -ENOENT);
	assert_int_equal(ops->save_file(bench->backend, "superblock", "one", 3, true), 0);
	assert_int_equal(ops->save_file(bench->backend, "superblock", "two", 3, true), -EEXIST);
	assert_int_equal(ops->load_file(bench->backend, "superblock", &data, &bytes, 2), -EFBIG);
	assert_null(data);
	assert_int_equal(bytes, 77);
	assert_int_equal(ops->load_file(bench->backend, "superblock", &data, &bytes, 3), 0);
	assert_int_equal(bytes, 3);
	assert_memory_equal(data, "one", 3);
	kvk_mem_free(data);
	assert_int_equal(ops->save_file(bench->backend, "superblock", "", 0, false), 0);
	assert_int_equal(ops->load_file(bench->backend, "superblock", &data, &bytes, 3), 0);
	assert_int_equal(bytes, 0);
	kvk_mem_free(data);
	assert_int_equal(ops->save_file(bench->backend, "namespaces/a.json", "{}", 2, true), 0);
	assert_int_equal(ops->load_file(bench->backend, "../../etc/passwd", &data, &bytes, 3), -EXDEV);
	assert_int_equal(ops->load_file(bench->backend, "namespaces", &data, &bytes, 3), -EINVAL);
	assert_int_equal(count_names(bench, ".kvkeep"), 3);
	assert_int_equal(ops->space(bench->backend, &free_bytes, &total_bytes), 0);
	assert_true(free_bytes <= total_bytes && total_bytes > 0);
}

static void test_list(void **state)
{
	struct bench *bench = *state;
	struct kvk_names names = { 0 };
	char name[300];
	bool seen[600] = { 0 };

	for (unsigned i = 0; i < 600; i++) {
		snprintf(name, sizeof(name), "%s/%0200u", bench->root, i);
		assert_int_equal(close(open(name, O_CREAT | O_WRONLY, 0600)), 0);
	}
	assert_int_equal(bench->backend->ops->list(bench->backend, "", &names), 0);
	assert_int_equal(names.count, 601);            /* and .kvkeep */
	for (unsigned i = 0; i < names.count; i++) {
		if (strcmp(names.names[i], ".kvkeep")) {
			assert_false(seen[atoi(names.names[i])]);
			seen[atoi(names.names[i])] = true;
		}
	}
	kvk_names_release(&names);
	assert_int_equal(bench->backend->ops->list(bench->backend, "none", &names), -ENOENT);
}

/* Another open of the store, as another process would have it: the lock is the open file's. */
static void test_hold(void **state)
{
	struct bench *bench = *state;
	struct kvk_backend_options options = options_for(bench->root);
	struct kvk_backend *other;
	int status;
	pid_t child;

	assert_int_equal(kvk_backend_posix.open(&other, &options, NULL), 0);
	assert_int_equal(other->ops->hold(other, false), 0);
	assert_int_equal(other->ops->hold(bench->backend, false), 0);
	assert_int_equal(other->ops->hold(bench->backend, true), -EBUSY);
	assert_int_equal(other->ops->hold(other, true), -EBUSY);
	kvk_backend_posix.close(other);
	assert_int_equal(bench->backend->ops->hold(bench->backend, true), 0);
	assert_int_equal(kvk_backend_posix.open(&other, &options, NULL), 0);
	/* A child that lets go of its copy does not let go of the lock. */
	child = fork();
	if (child == 0) {
		kvk_backend_posix.close(bench->backend);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(other->ops->hold(other, false), -EBUSY);
	assert_int_equal(bench->backend->ops->hold(bench->backend, false), 0);
	assert_int_equal(other->ops->hold(other, false), 0);
	kvk_backend_posix.close(other);
}

/* Live writers keep their temporary files, dead ones do not, and what was published is nobody's temporary file. */
static void test_sweep(void **state)
{
	struct bench *bench = *state;

	for (unsigned way = KVK_PUBLISH_RENAME; way < KVK_PUBLISH_COUNT; way++) {
		struct kvk_place *place;
		struct kvk_names names = { 0 };
		char temp[300];
		int status;
		pid_t child;

		kvk_posix_force_publish(bench->backend, way);
		place = create(bench, OBJECT);
		assert_int_equal(bench->backend->ops->list(bench->backend, "ab", &names), 0);
		assert_int_equal(names.count, 1);
		snprintf(temp, sizeof(temp), "ab/%s", names.names[0]);
		kvk_names_release(&names);
		assert_int_equal(bench->backend->ops->sweep(bench->backend, temp), -EBUSY);
		assert_int_equal(place_op(bench, KVK_XFER_PUBLISH, place, OBJECT), 0);
		assert_int_equal(bench->backend->ops->sweep(bench->backend, temp), -ENOENT);
		assert_int_equal(place_op(bench, KVK_XFER_CLOSE, place, NULL), 0);
		assert_int_equal(name_op(bench, KVK_XFER_UNLINK, OBJECT, NULL), 0);

		child = fork();
		if (child == 0) {
			create(bench, OBJECT);
			_exit(0);
		}
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_int_equal(status, 0);
		assert_int_equal(bench->backend->ops->list(bench->backend, "ab", &names), 0);
		assert_int_equal(names.count, 1);
		snprintf(temp, sizeof(temp), "ab/%s", names.names[0]);
		kvk_names_release(&names);
		assert_int_equal(bench->backend->ops->sweep(bench->backend, temp), 0);
		assert_int_equal(count_names(bench, "ab"), 0);
	}
}

/* An object on its way to replace a damaged one has a temporary name and a live writer. */
static void test_sweep_spares_replacement(void **state)
{
	struct bench *bench = *state;
	struct kvk_place *place = create(bench, OBJECT);

	assert_int_equal(place_op(bench, KVK_XFER_PUBLISH, place, "ab/.tmp-1-1"), 0);
	assert_int_equal(bench->backend->ops->sweep(bench->backend, "ab/.tmp-1-1"), -EBUSY);
	assert_int_equal(place_op(bench, KVK_XFER_CLOSE, place, NULL), 0);
	assert_int_equal(bench->backend->ops->sweep(bench->backend, "ab/.tmp-1-1"), 0);
}

/* ---- every system call fails once -------------------------------------------------------------- */

static uint64_t calls_left;            /* the call that makes it 0 fails */
static int call_error;
static bool call_failed;

static bool fails_now(void)
{
	if (calls_left == 0 || --calls_left)
		return false;
	call_failed = true;
	return true;
}

#define FAILING(name, params, args) \
	static int failing_##name params { return fails_now() ? call_error : kvk_posix_sys_real.name args; }
#define FAILING64(name, params, args) \
	static int64_t failing_##name params { return fails_now() ? call_error : kvk_posix_sys_real.name args; }

FAILING(openat2, (int d, const char *p, const struct open_how *h), (d, p, h))
FAILING(openat, (int d, const char *p, int f, mode_t m), (d, p, f, m))
FAILING(statx, (int d, const char *p, int f, unsigned m, struct statx *s), (d, p, f, m, s))
FAILING(fstatfs, (int d, struct statfs *s), (d, s))
FAILING(mkdirat, (int d, const char *p, mode_t m), (d, p, m))
FAILING(fchmod, (int d, mode_t m), (d, m))
FAILING(set_flags, (int d, int f), (d, f))
FAILING(linkat, (int d, const char *p, int e, const char *q, int f), (d, p, e, q, f))
FAILING(renameat2, (int d, const char *p, int e, const char *q, unsigned f), (d, p, e, q, f))
FAILING64(preadv2, (int d, const struct iovec *v, int c, off_t o, int f), (d, v, c, o, f))
FAILING64(pwritev2, (int d, const struct iovec *v, int c, off_t o, int f), (d, v, c, o, f))
FAILING(fdatasync, (int d), (d))
FAILING(fsync, (int d), (d))
FAILING(flock, (int d, int o), (d, o))
FAILING(lock_bytes, (int d, const struct flock *l), (d, l))
FAILING64(getdents, (int d, void *b, size_t n), (d, b, n))

/* A close that reports an error has closed all the same; an unlink that fails may leave a temporary file, by nature. */
static void let_calls_fail(struct kvk_posix_sys *sys)
{
	sys->openat2 = failing_openat2;
	sys->openat = failing_openat;
	sys->statx = failing_statx;
	sys->fstatfs = failing_fstatfs;
	sys->mkdirat = failing_mkdirat;
	sys->fchmod = failing_fchmod;
	sys->set_flags = failing_set_flags;
	sys->linkat = failing_linkat;
	sys->renameat2 = failing_renameat2;
	sys->preadv2 = failing_preadv2;
	sys->pwritev2 = failing_pwritev2;
	sys->fdatasync = failing_fdatasync;
	sys->fsync = failing_fsync;
	sys->flock = failing_flock;
	sys->lock_bytes = failing_lock_bytes;
	sys->getdents = failing_getdents;
}

static int64_t put_steps(struct bench *bench)
{
	static char text[] = "payload";
	struct kvk_xfer xfer;
	struct kvk_place *place;
	int64_t result;

	kvk_xfer_init(&xfer, KVK_XFER_CREATE, NULL, OBJECT);
	if (run(bench, &xfer))
		return xfer.result;
	place = xfer.place;
	result = move_bytes(bench, KVK_XFER_WRITE, place, text, 7, 0, 0);
	if (result == 7)
		result = place_op(bench, KVK_XFER_SYNC, place, NULL);
	if (!result)
		result = place_op(bench, KVK_XFER_PUBLISH, place, OBJECT);
	if (!result)
		result = place_op(bench, KVK_XFER_SYNC_FOLDER, NULL, OBJECT);
	assert_int_equal(place_op(bench, KVK_XFER_CLOSE, place, NULL), 0);
	return result;
}

static int64_t get_steps(struct bench *bench)
{
	char data[8];
	struct kvk_xfer xfer;
	int64_t result;

	kvk_xfer_init(&xfer, KVK_XFER_OPEN, NULL, OBJECT);
	if (run(bench, &xfer)) {
		assert_null(xfer.place);
		return xfer.result;
	}
	result = move_bytes(bench, KVK_XFER_READ, xfer.place, data, 8, 0, 0);
	assert_int_equal(place_op(bench, KVK_XFER_CLOSE, xfer.place, NULL), 0);
	return result == 7 ? 0 : result;
}

static void assert_no_temps(struct bench *bench, const char *folder)
{
	struct kvk_names names = { 0 };

	assert_int_equal(bench->backend->ops->list(bench->backend, folder, &names), 0);
	for (uint32_t i = 0; i < names.count; i++) {
		if (!strncmp(names.names[i], ".tmp-", 5))
			fail_msg("%s/%s was left behind", folder, names.names[i]);
	}
	kvk_names_release(&names);
}

/*
 * A step that fails says so and leaves nothing: no descriptor, no temporary file, no object that was not published.
 * Method: the first system call fails, in a new run the second, until one gets through; with errors that are retried,
 * and with those that are not.
 */
static void test_every_call_fails(void **state)
{
	struct bench *bench = *state;
	static const int errors[] = { -EIO, -ENOSPC, -EMFILE, -ENOMEM, -EROFS, -ESTALE };
	uint32_t before = open_descriptors();

	let_calls_fail(&bench->sys);
	for (unsigned way = 0; way < KVK_PUBLISH_COUNT; way++) {
		kvk_posix_force_publish(bench->backend, way);
		for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
			bool failed = true;

			for (uint64_t nth = 1; failed; nth++) {
				char path[128];
				int64_t result, got;

				snprintf(path, sizeof(path), "%s/ab", bench->root);
				remove_tree(path);
				call_error = errors[i];
				call_failed = false;
				calls_left = nth;
				result = put_steps(bench);
				failed = call_failed;
				calls_left = 0;
				if (result != (failed ? errors[i] : 0))
					fail_msg("way %u, call %d: %d, not %d", way, (int)nth, (int)result, errors[i]);
				got = get_steps(bench);
				if (!failed)
					assert_int_equal(got, 0);
				assert_true(got == 0 || got == -ENOENT);
				if (!access(path, F_OK))
					assert_int_equal(count_names(bench, "ab"), got == 0);
				assert_int_equal(open_descriptors(), before);
			}
			failed = true;
			for (uint64_t nth = 1; failed; nth++) {
				int64_t result;

				call_failed = false;
				calls_left = nth;
				result = get_steps(bench);
				failed = call_failed;
				calls_left = 0;
				assert_int_equal(result, failed ? errors[i] : 0);
				assert_int_equal(open_descriptors(), before);
			}
		}
	}
}

/* The same for a whole open, the files beside and the lock. An open may get by without what failed, but says the truth. */
static void test_every_call_fails_at_open(void **state)
{
	struct bench *bench = *state;
	uint32_t before;
	bool failed = true;

	kvk_backend_posix.close(bench->backend);
	bench->backend = NULL;
	let_calls_fail(&bench->sys);
	before = open_descriptors();
	for (uint64_t nth = 1; failed; nth++) {
		struct kvk_backend_options options = options_for(bench->root);
		struct kvk_error error = { 0 };
		struct kvk_backend *backend = NULL;
		int err;

		options.direct = true;
		remove_tree(bench->root);
		call_error = -EIO;
		call_failed = false;
		calls_left = nth;
		err = kvk_backend_posix.open(&backend, &options, &error);
		if (err) {
			assert_null(backend);
			assert_int_equal(err, -EIO);
			assert_true(error.text[0]);
		} else {
			uint64_t bytes;
			void *data = NULL;

			bench->backend = backend;
			if (!backend->ops->save_file(backend, "superblock", "x", 1, false) &&
			    !backend->ops->load_file(backend, "superblock", &data, &bytes, 9)) {
				assert_int_equal(bytes, 1);
				kvk_mem_free(data);
				backend->ops->hold(backend, true);
			}
			failed = call_failed;
			calls_left = 0;
			assert_no_temps(bench, ".kvkeep");
			backend->caps.direct = false;
			assert_int_equal(put(bench, OBJECT, "x"), 0);
			assert_content(bench, OBJECT, "x");
			kvk_backend_posix.close(backend);
			bench->backend = NULL;
		}
		calls_left = 0;
		assert_int_equal(open_descriptors(), before);
	}
}

static void test_allocation_fails(void **state)
{
	struct bench *bench = *state;
	uint32_t before = open_descriptors();
	bool failed = true;

	for (uint64_t nth = 1; failed; nth++) {
		struct kvk_backend_options options = options_for(bench->root);
		struct kvk_names names = { 0 };
		struct kvk_backend *backend;
		char path[128];
		void *data = NULL;
		uint64_t bytes;
		int err;

		snprintf(path, sizeof(path), "%s/ab", bench->root);
		remove_tree(path);
		kvk_mem_fail_nth(nth, true);
		err = kvk_backend_posix.open(&backend, &options, NULL);
		if (!err) {
			struct bench other = { .backend = backend };

			err = backend->ops->save_file(backend, "superblock", "x", 1, false);
			if (!err)
				err = backend->ops->load_file(backend, "superblock", &data, &bytes, 9);
			if (!err)
				err = backend->ops->list(backend, "", &names);
			if (!err)
				err = (int)put_steps(&other);
			if (!err)
				err = (int)get_steps(&other);
			kvk_mem_free(data);
			kvk_names_release(&names);
			kvk_backend_posix.close(backend);
		}
		failed = kvk_mem_has_failed();
		kvk_mem_fail_nth(0, false);
		assert_int_equal(err, failed ? -ENOMEM : 0);
		assert_int_equal(open_descriptors(), before);
	}
}

static unsigned interruptions;

static int64_t interrupted_read(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	return interruptions && interruptions-- ? -EINTR : kvk_posix_sys_real.preadv2(fd, iov, count, offset, flags);
}

static int64_t interrupted_write(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	struct iovec part = { iov->iov_base, 1 };

	return interruptions && interruptions-- ? -EINTR : kvk_posix_sys_real.pwritev2(fd, &part, 1, offset, flags);
}

/* Interruptions are nobody's business; a short write is handed up here and continued in files of our own. */
static void test_interrupted_and_short(void **state)
{
	struct bench *bench = *state;
	struct kvk_place *place = create(bench, OBJECT);
	char data[4] = "abcd", back[4] = "";
	uint64_t bytes = 0;
	void *loaded = NULL;

	bench->sys.preadv2 = interrupted_read;
	bench->sys.pwritev2 = interrupted_write;
	interruptions = 3;
	assert_int_equal(move_bytes(bench, KVK_XFER_WRITE, place, data, 4, 0, 0), 1);
	assert_int_equal(interruptions, 0);
	interruptions = 3;
	assert_int_equal(move_bytes(bench, KVK_XFER_READ, place, back, 4, 0, 0), 1);
	assert_int_equal(back[0], 'a');
	assert_int_equal(place_op(bench, KVK_XFER_CLOSE, place, NULL), 0);
	interruptions = 2;
	assert_int_equal(bench->backend->ops->save_file(bench->backend, "superblock", data, 4, false), 0);
	interruptions = 2;
	assert_int_equal(bench->backend->ops->load_file(bench->backend, "superblock", &loaded, &bytes, 4), 0);
	assert_int_equal(bytes, 4);
	assert_memory_equal(loaded, data, 4);
	kvk_mem_free(loaded);
}

#define BOTH(test) \
	cmocka_unit_test_setup_teardown(test, setup, teardown), { #test "_walking", test, setup_walk, teardown, NULL }

static const struct CMUnitTest tests[] = {
	BOTH(test_publish_every_way),
	BOTH(test_move_exchange_unlink),
	BOTH(test_if_cached),
	BOTH(test_sync_folder),
	BOTH(test_files),
	BOTH(test_list),
	BOTH(test_sweep),
	BOTH(test_every_call_fails),
	cmocka_unit_test_setup_teardown(test_bytes, setup, teardown),
	cmocka_unit_test_setup_teardown(test_modes, setup, teardown),
	cmocka_unit_test_setup_teardown(test_hold, setup, teardown),
	cmocka_unit_test_setup_teardown(test_sweep_spares_replacement, setup, teardown),
	cmocka_unit_test_setup_teardown(test_every_call_fails_at_open, setup, teardown),
	cmocka_unit_test_setup_teardown(test_allocation_fails, setup, teardown),
	cmocka_unit_test_setup_teardown(test_interrupted_and_short, setup, teardown),
};

int main(void)
{
	return cmocka_run_group_tests(tests, NULL, NULL);
}
