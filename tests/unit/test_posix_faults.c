/* SPDX-License-Identifier: Apache-2.0 */
/* The posix backend when system calls and allocations fail. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "posix_bench.h"
#include "util/alloc.h"

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
	uint32_t before;

	/* Temporary names open the file of locks, which stays open. */
	assert_int_equal(kvk_posix_hold_writer(kvk_posix_of(bench->backend)), 0);
	before = descriptors_besides_folders(bench);
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
				assert_int_equal(descriptors_besides_folders(bench), before);
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
				assert_int_equal(descriptors_besides_folders(bench), before);
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
	uint32_t before = descriptors_besides_folders(bench);
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
		assert_int_equal(descriptors_besides_folders(bench), before);
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

static int unsent(int fd)
{
	return -ENOSPC;
}

/* Where machines share the medium, what does not fit there is only said when it is sent: it gets no name before. */
static void test_not_published_before_it_is_sent(void **state)
{
	struct bench *bench = *state;
	struct kvk_place *place = create(bench, OBJECT);

	bench->sys.fdatasync = unsent;
	bench->backend->caps.many_hosts = true;
	bench->backend->caps.direct = false;
	assert_int_equal(place_op(bench, KVK_XFER_PUBLISH, place, OBJECT), -ENOSPC);
	assert_int_equal(name_op(bench, KVK_XFER_STAT_NAME, OBJECT, NULL), -ENOENT);
	bench->backend->caps.many_hosts = false;
	assert_int_equal(place_op(bench, KVK_XFER_PUBLISH, place, OBJECT), 0);
	assert_int_equal(place_op(bench, KVK_XFER_CLOSE, place, NULL), 0);
}

static int64_t refused_write(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	return -EIO;
}

static struct kvk_syncs *syncs;
static unsigned syncs_left, waited, let_go;

static void is_let_go(struct kvk_sync *sync)
{
	let_go++;
}

/* A sync that ends well while another is under way, which fails. */
static int fails_beside(int fd)
{
	static struct kvk_sync beside[2];
	struct kvk_sync *sync = &beside[syncs_left & 1];

	sync->over = is_let_go;
	kvk_sync_begin(syncs, sync);
	waited += !kvk_sync_end(syncs, sync, 0);
	return --syncs_left ? 0 : -EIO;
}

/* Syncs of what lies beside the objects are waited for by those of objects, and make them doubtful if they fail. */
static void test_syncs_beside_objects(void **state)
{
	struct bench *bench = *state;
	const struct kvk_backend_ops *ops = bench->backend->ops;

	syncs = &bench->backend->syncs;
	waited = let_go = 0;
	/* The file, and its folder; of one that is there already the file alone. */
	for (unsigned nth = 1; nth <= 5; nth++) {
		bench->sys.fsync = bench->sys.fdatasync = fails_beside;
		syncs_left = nth <= 2 ? nth : nth <= 4 ? nth - 2 : 1;
		if (nth <= 2)
			assert_int_equal(ops->save_file(bench->backend, "superblock", "a", 1, false), -EIO);
		else if (nth <= 4)
			assert_int_equal(ops->update_file(bench->backend, nth == 3 ? "first" : "second", 0, "a", 1), -EIO);
		else
			assert_int_equal(ops->update_file(bench->backend, "second", 0, "b", 1), -EIO);
		assert_int_equal(syncs_left, 0);
		assert_int_equal(kvk_syncs_failed(syncs), nth);
	}
	assert_int_equal(waited, 1 + 2 + 1 + 2 + 1);
	assert_int_equal(let_go, waited);
	/* What was not even written says nothing of what was. */
	bench->sys.pwritev2 = refused_write;
	assert_int_equal(ops->update_file(bench->backend, "second", 0, "c", 1), -EIO);
	assert_int_equal(kvk_syncs_failed(syncs), 5);
}

/* Somebody guessed the next temporary name, and waits there for what is written. */
static void test_planted_under_a_temporary_name(void **state)
{
	struct bench *bench = *state;
	struct kvk_posix *posix = kvk_posix_of(bench->backend);
	struct kvk_xfer xfer;
	char temp[64];

	kvk_posix_force_publish(bench->backend, KVK_PUBLISH_RENAME);
	snprintf(temp, sizeof(temp), "ab/.tmp-%016llx-%llu", (unsigned long long)posix->writer_id,
		 (unsigned long long)atomic_load(&posix->sequence) + 1);
	assert_int_equal(put(bench, temp, "planted"), 0);
	kvk_xfer_init(&xfer, KVK_XFER_CREATE, NULL, OBJECT);
	assert_int_equal(run(bench, &xfer), -EEXIST);
	assert_content(bench, temp, "planted");
	assert_int_equal(put(bench, OBJECT, "ours"), 0);
}

enum sweeping {
	SWEPT,                         /* it has unlinked */
	BEING_SWEPT,                   /* it has locked, and not unlinked */
	SWEPT_ELSEWHERE,               /* it has unlinked, and the name is in this machine's cache */
	SWEEPING_COUNT
};

static char swept_folder[128];
static unsigned sweeps;                /* still to come */
static enum sweeping sweeping;

/* A sweep comes between the making of a temporary file and its lock. */
static int swept_flock(int fd, int operation)
{
	const struct dirent *entry;
	DIR *folder;

	if (sweeps == 0)
		return kvk_posix_sys_real.flock(fd, operation);
	sweeps--;
	if (sweeping == BEING_SWEPT)
		return -EWOULDBLOCK;
	folder = opendir(swept_folder);
	assert_non_null(folder);
	while ((entry = readdir(folder))) {
		if (!strncmp(entry->d_name, ".tmp-", 5))
			assert_int_equal(unlinkat(dirfd(folder), entry->d_name, 0), 0);
	}
	closedir(folder);
	return kvk_posix_sys_real.flock(fd, operation);
}

static int cached_statx(int fd, const char *path, int flags, unsigned mask, struct statx *stat)
{
	int err = kvk_posix_sys_real.statx(fd, path, flags, mask, stat);

	if (err != -ENOENT || sweeping != SWEPT_ELSEWHERE || strncmp(path, ".tmp-", 5))
		return err;
	memset(stat, 0, sizeof(*stat));
	return 0;
}

static int nameful_openat(int fd, const char *path, int flags, mode_t mode)
{
	return (flags & O_TMPFILE) == O_TMPFILE ? -EOPNOTSUPP : kvk_posix_sys_real.openat(fd, path, flags, mode);
}

static void let_sweeps_come(struct bench *bench, const char *folder)
{
	snprintf(swept_folder, sizeof(swept_folder), "%s/%s", bench->root, folder);
	bench->sys.flock = swept_flock;
	bench->sys.statx = cached_statx;
}

/* What a sweep got before it was locked is made once more; a sweep that always comes first ends in an error. */
static void test_swept_before_it_is_locked(void **state)
{
	struct bench *bench = *state;

	let_sweeps_come(bench, "ab");
	for (unsigned way = KVK_PUBLISH_RENAME; way < KVK_PUBLISH_COUNT; way++) {
		kvk_posix_force_publish(bench->backend, way);
		for (sweeping = 0; sweeping < SWEEPING_COUNT; sweeping++) {
			remove_tree(swept_folder);
			sweeps = 2;
			assert_int_equal(put_steps(bench), 0);
			assert_int_equal(sweeps, 0);
			assert_int_equal(get_steps(bench), 0);
			remove_tree(swept_folder);
			sweeps = 1000;
			assert_int_equal(put_steps(bench), -EBUSY);
			sweeps = 0;
			assert_int_equal(get_steps(bench), -ENOENT);
		}
	}
}

/* The same for what a process tries when it opens a store, beside one that has it alone. */
static void test_swept_when_opened(void **state)
{
	struct bench *bench = *state;
	struct kvk_backend_options options = options_for(bench->root);
	struct kvk_error error = { 0 };
	struct kvk_backend *second;

	let_sweeps_come(bench, ".kvkeep");
	bench->sys.openat = nameful_openat;
	for (sweeping = 0; sweeping < SWEEPING_COUNT; sweeping++) {
		sweeps = 2;
		options.writer_id++;
		if (kvk_backend_posix.open(&second, &options, &error))
			fail_msg("%s: %s", error.option, error.text);
		assert_int_equal(sweeps, 0);
		assert_int_equal(kvk_posix_of(second)->publish, KVK_PUBLISH_RENAME);
		assert_true(second->caps.exchange);
		kvk_backend_posix.close(second);
		sweeps = 1000;
		options.writer_id++;
		assert_int_equal(kvk_backend_posix.open(&second, &options, &error), -EBUSY);
		sweeps = 0;
	}
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test_setup_teardown(test_swept_before_it_is_locked, setup, teardown),
	cmocka_unit_test_setup_teardown(test_swept_when_opened, setup, teardown),
	BOTH(test_every_call_fails),
	cmocka_unit_test_setup_teardown(test_planted_under_a_temporary_name, setup, teardown),
	cmocka_unit_test_setup_teardown(test_not_published_before_it_is_sent, setup, teardown),
	cmocka_unit_test_setup_teardown(test_syncs_beside_objects, setup, teardown),
	cmocka_unit_test_setup_teardown(test_every_call_fails_at_open, setup, teardown),
	cmocka_unit_test_setup_teardown(test_allocation_fails, setup, teardown),
	cmocka_unit_test_setup_teardown(test_interrupted_and_short, setup, teardown),
};

int main(void)
{
	return cmocka_run_group_tests(tests, NULL, NULL);
}
