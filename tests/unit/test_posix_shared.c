/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the posix backend does where machines share a file system, and which clients of GlusterFS it takes. Method: the calls
 * of the system are wrapped, so that a local folder behaves as a client does.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "posix_bench.h"
#include "util/alloc.h"

#define GRAPH_PATH "/mnt/a store/.meta/graphs/active/volfile"

static int mountinfo_fd, graph_fd;
static bool has_fdinfo = true;

static int client_openat(int dir_fd, const char *path, int flags, mode_t mode)
{
	if (!strcmp(path, "/proc/self/mountinfo"))
		return dup(mountinfo_fd);
	if (!has_fdinfo && !strncmp(path, "/proc/self/fdinfo/", 18))
		return -ENOENT;
	if (!strcmp(path, GRAPH_PATH))
		return graph_fd < 0 ? -ENOENT : dup(graph_fd);
	return kvk_posix_sys_real.openat(dir_fd, path, flags, mode);
}

/* Opens the root as if it were on a client with that graph. NULL: the client tells none. */
static int open_client(struct bench *bench, const char *graph, bool many_hosts, struct kvk_error *error)
{
	struct kvk_backend_options options = options_for(bench->root);
	struct kvk_backend *backend = NULL;
	struct statx stat;
	int err;

	assert_int_equal(statx(AT_FDCWD, bench->root, 0, STATX_MNT_ID, &stat), 0);
	mountinfo_fd = memfd_create("mountinfo", MFD_CLOEXEC);
	dprintf(mountinfo_fd, "%llu 1 0:40 / /mnt/a\\040store rw,relatime - fuse.glusterfs server:/kvk rw,user_id=0\n",
		(unsigned long long)stat.stx_mnt_id);
	graph_fd = -1;
	if (graph) {
		graph_fd = memfd_create("volfile", MFD_CLOEXEC);
		dprintf(graph_fd, "%s", graph);
	}
	bench->sys.openat = client_openat;
	options.writer_id = 0x5678;
	options.shared = true;
	options.many_hosts = many_hosts;
	*error = (struct kvk_error){ 0 };
	err = kvk_backend_posix.open(&backend, &options, error);
	kvk_backend_posix.close(backend);
	close(mountinfo_fd);
	if (graph)
		close(graph_fd);
	return err;
}

#define SERVER(threads) "volume kvk-client-0\n    type protocol/client\n    option remote-host a\n" threads "end-volume\n\n"
#define LAYER(type) "volume kvk-layer\n    type " type "\n    option log-level INFO\n    subvolumes kvk-client-0\nend-volume\n\n"
#define MANY "    option event-threads 32\n"

/* Each of them keeps what others may have changed meanwhile, and whoever is refused is told what to turn off. */
static void test_layers_of_gluster(void **state)
{
	static const struct {
		const char *graph;
		const char *says;      /* NULL: it is taken */
	} cases[] = {
		{ SERVER(MANY) LAYER("performance/io-threads") LAYER("debug/io-stats"), NULL },
		{ SERVER(MANY) LAYER("performance/quick-read"), "performance.quick-read off" },
		{ SERVER(MANY) LAYER("performance/md-cache"), "performance.stat-prefetch off" },
		{ SERVER(MANY) LAYER("performance/open-behind"), "performance.open-behind off" },
		{ SERVER(MANY) LAYER("performance/write-behind"), "performance.write-behind off" },
		{ SERVER(MANY) LAYER("performance/io-cache"), "performance.io-cache off" },
		{ SERVER(MANY) LAYER("performance/nl-cache"), "performance.nl-cache off" },
		{ SERVER(MANY) LAYER("performance/read-ahead"), "performance.read-ahead off" },
		{ SERVER(MANY) LAYER("performance/readdir-ahead"), "performance.readdir-ahead off" },
		{ SERVER("") LAYER("debug/io-stats"), "client.event-threads 32" },
		{ SERVER("    option event-threads 31\n") LAYER("debug/io-stats"), "client.event-threads 32" },
		{ SERVER("    option event-threads 2\n") SERVER(MANY), "client.event-threads 32" },
		{ SERVER(MANY) SERVER("    option event-threads 2\n"), "client.event-threads 32" },
		{ "", "/mnt/a store/.meta" },
		{ NULL, "/mnt/a store/.meta" },
	};
	struct bench *bench = *state;
	struct kvk_error error;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int err = open_client(bench, cases[i].graph, true, &error);

		if (err != (cases[i].says ? -EOPNOTSUPP : 0))
			fail_msg("case %zu: %d, %s", i, err, error.text);
		if (cases[i].says) {
			assert_string_equal(error.option, "shared");
			if (!strstr(error.text, cases[i].says))
				fail_msg("case %zu: \"%s\" is not in: %s", i, cases[i].says, error.text);
		}
		/* Whoever uses it alone sees what he did himself. */
		assert_int_equal(open_client(bench, cases[i].graph, false, &error), 0);
	}
}

static int fuse_fstatfs(int fd, struct statfs *stat)
{
	int err = kvk_posix_sys_real.fstatfs(fd, stat);

	stat->f_type = 0x65735546;
	return err;
}

static int statx_of_linux_5_7(int dir_fd, const char *path, int flags, unsigned mask, struct statx *stat)
{
	int err = kvk_posix_sys_real.statx(dir_fd, path, flags, mask, stat);

	stat->stx_mask &= ~(unsigned)STATX_MNT_ID;
	return err;
}

/* How it is mounted is found out without that number in statx, too. */
static void test_mounts_of_older_kernels(void **state)
{
	struct bench *bench = *state;
	struct kvk_error error;

	bench->sys.fstatfs = fuse_fstatfs;
	for (unsigned older = 0; older < 2; older++) {
		if (older)
			bench->sys.statx = statx_of_linux_5_7;
		assert_int_equal(open_client(bench, SERVER(MANY), true, &error), 0);
		assert_int_equal(open_client(bench, SERVER(""), true, &error), -EOPNOTSUPP);
		assert_non_null(strstr(error.text, "client.event-threads 32"));
	}
	has_fdinfo = false;
	assert_int_equal(open_client(bench, SERVER(MANY), true, &error), -EOPNOTSUPP);
	assert_non_null(strstr(error.text, "/proc/self/mountinfo"));
	assert_int_equal(open_client(bench, SERVER(MANY), false, &error), 0);
	has_fdinfo = true;
}

static unsigned drops;

static int counting_drop(int fd)
{
	drops++;
	return kvk_posix_sys_real.drop_cache(fd);
}

static int64_t read_after_drop(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	assert_true(drops > 0);
	return kvk_posix_sys_real.preadv2(fd, iov, count, offset, flags);
}

/* Two clients of GlusterFS each went on with the account that they had in memory. */
static void test_small_files_are_read_anew(void **state)
{
	struct bench *bench = *state;
	const struct kvk_backend_ops *ops = bench->backend->ops;
	uint64_t bytes;
	void *data;

	assert_int_equal(ops->update_file(bench->backend, KVK_FILE_ACCOUNT, 0, "one", 3), 0);
	bench->sys.drop_cache = counting_drop;
	for (unsigned many = 0; many < 2; many++) {
		bench->backend->caps.many_hosts = many;
		bench->sys.preadv2 = many ? read_after_drop : kvk_posix_sys_real.preadv2;
		drops = 0;
		assert_int_equal(ops->lock(bench->backend, KVK_LOCK_ACCOUNT, 0), 0);
		assert_int_equal(ops->load_file(bench->backend, KVK_FILE_ACCOUNT, &data, &bytes, 100), 0);
		ops->unlock(bench->backend, KVK_LOCK_ACCOUNT);
		kvk_mem_free(data);
		assert_int_equal(drops, many);
	}
	bench->backend->caps.many_hosts = false;
}

static unsigned interruptions;

static int interrupted_flock(int fd, int operation)
{
	return interruptions && interruptions-- ? -EINTR : kvk_posix_sys_real.flock(fd, operation);
}

static int interrupted_lock(int fd, const struct flock *lock)
{
	return interruptions && interruptions-- ? -EINTR : kvk_posix_sys_real.lock_bytes(fd, lock);
}

static int interrupted_find(int fd, struct flock *lock)
{
	return interruptions && interruptions-- ? -EINTR : kvk_posix_sys_real.find_lock(fd, lock);
}

/* A signal ends a lock that is on its way to a server, and an unlock as well. */
static void test_interrupted_locks(void **state)
{
	struct bench *bench = *state;
	const struct kvk_backend_ops *ops = bench->backend->ops;
	struct kvk_backend_options options = options_for(bench->root);
	struct kvk_backend *other;
	struct kvk_place *place;

	options.writer_id = 0x5678;
	assert_int_equal(kvk_backend_posix.open(&other, &options, NULL), 0);
	bench->sys.flock = interrupted_flock;
	bench->sys.lock_bytes = interrupted_lock;
	bench->sys.find_lock = interrupted_find;
	interruptions = 3;
	assert_int_equal(ops->lock(bench->backend, 7, 0), 0);
	assert_int_equal(interruptions, 0);
	interruptions = 3;
	assert_int_equal(ops->is_locked(other, 7), 1);
	interruptions = 3;
	ops->unlock(bench->backend, 7);
	assert_int_equal(interruptions, 0);
	assert_int_equal(ops->is_locked(other, 7), 0);
	kvk_posix_force_publish(bench->backend, KVK_PUBLISH_LINK);
	assert_int_equal(kvk_posix_hold_writer(kvk_posix_of(bench->backend)), 0);
	interruptions = 3;
	place = create(bench, OBJECT);
	assert_int_equal(interruptions, 0);
	assert_int_equal(place_op(bench, KVK_XFER_CLOSE, place, NULL), 0);
	kvk_backend_posix.close(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_layers_of_gluster, setup, teardown),
		cmocka_unit_test_setup_teardown(test_mounts_of_older_kernels, setup, teardown),
		cmocka_unit_test_setup_teardown(test_small_files_are_read_anew, setup, teardown),
		cmocka_unit_test_setup_teardown(test_interrupted_locks, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
