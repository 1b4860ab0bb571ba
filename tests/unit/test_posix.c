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

#include "posix_bench.h"
#include "util/alloc.h"

#define OTHER "ab/abcd00.kv"

/* The first one to publish wins, nobody sees a file before, one that is closed unpublished is gone. */
static void test_publish_every_way(void **state)
{
	struct bench *bench = *state;
	uint32_t before;

	/* Temporary names open the file of locks, which stays open. */
	assert_int_equal(kvk_posix_hold_writer(kvk_posix_of(bench->backend)), 0);
	before = descriptors_besides_folders(bench);
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
	assert_int_equal(descriptors_besides_folders(bench), before);
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
	struct kvk_space space = { 0 };
	uint64_t bytes = 77;
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
	assert_int_equal(ops->space(bench->backend, &space), 0);
	assert_true(space.free_bytes <= space.total_bytes && space.total_bytes > 0);
	assert_true(space.free_inodes <= space.total_inodes);
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

static int swept_root_fd;

/* What has the name is exchanged when the sweep has opened it, as by a put that replaces what is damaged. */
static int exchanging_flock(int fd, int operation)
{
	assert_int_equal(kvk_posix_sys_real.renameat2(swept_root_fd, OBJECT, swept_root_fd, "ab/.tmp-1-1", RENAME_EXCHANGE), 0);
	return kvk_posix_sys_real.flock(fd, operation);
}

static void test_sweep_spares_what_it_did_not_open(void **state)
{
	struct bench *bench = *state;

	assert_int_equal(put(bench, OBJECT, "sound"), 0);
	assert_int_equal(put(bench, "ab/.tmp-1-1", "other"), 0);
	swept_root_fd = kvk_posix_of(bench->backend)->root_fd;
	bench->sys.flock = exchanging_flock;
	assert_int_equal(bench->backend->ops->sweep(bench->backend, "ab/.tmp-1-1"), -EBUSY);
	assert_content(bench, "ab/.tmp-1-1", "sound");
	assert_content(bench, OBJECT, "other");
}

/* A link that was made, and whose answer got lost: the client of a network file system asks again and is told -EEXIST. */
static int link_twice(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
	int err = kvk_posix_sys_real.linkat(from_fd, from, to_fd, to, flags);

	return err ? err : kvk_posix_sys_real.linkat(from_fd, from, to_fd, to, flags);
}

static void test_link_whose_answer_got_lost(void **state)
{
	struct bench *bench = *state;
	struct kvk_place *other;

	kvk_posix_force_publish(bench->backend, KVK_PUBLISH_LINK);
	other = create(bench, OBJECT);
	bench->sys.linkat = link_twice;
	assert_int_equal(put(bench, OBJECT, "mine"), 0);
	assert_content(bench, OBJECT, "mine");
	/* Somebody else's stays in the way. */
	assert_int_equal(place_op(bench, KVK_XFER_PUBLISH, other, OBJECT), -EEXIST);
	assert_int_equal(place_op(bench, KVK_XFER_CLOSE, other, NULL), 0);
	assert_content(bench, OBJECT, "mine");
	assert_int_equal(count_names(bench, "ab"), 1);
}

static int unlink_error;

static int failing_unlink(int fd, const char *path, int flags)
{
	return unlink_error ? unlink_error : kvk_posix_sys_real.unlinkat(fd, path, flags);
}

/* The same for a move by link: it is done once the new name is there, and what becomes of the own name changes nothing. */
static void test_moved_link_whose_answer_got_lost(void **state)
{
	struct bench *bench = *state;
	static const char temp[] = "ab/.tmp-1-1", gone[] = "ab/0123.1.gone";

	kvk_posix_force_publish(bench->backend, KVK_PUBLISH_LINK);
	kvk_posix_of(bench->backend)->has_noreplace = false;
	bench->sys.linkat = link_twice;
	bench->sys.unlinkat = failing_unlink;
	assert_int_equal(put(bench, temp, "mine"), 0);
	assert_int_equal(name_op(bench, KVK_XFER_MOVE, temp, OBJECT), 0);
	assert_content(bench, OBJECT, "mine");
	assert_int_equal(name_op(bench, KVK_XFER_STAT_NAME, temp, NULL), -ENOENT);
	/* Somebody else's stays in the way, also if it says the same, and so does the own name. */
	assert_int_equal(put(bench, temp, "mine"), 0);
	assert_int_equal(name_op(bench, KVK_XFER_MOVE, temp, OBJECT), -EEXIST);
	assert_int_equal(name_op(bench, KVK_XFER_STAT_NAME, temp, NULL), 0);
	assert_int_equal(name_op(bench, KVK_XFER_UNLINK, temp, NULL), 0);
	assert_content(bench, OBJECT, "mine");
	assert_int_equal(name_op(bench, KVK_XFER_MOVE, OBJECT, gone), 0);
	unlink_error = -EIO;
	assert_int_equal(name_op(bench, KVK_XFER_MOVE, gone, OBJECT), 0);
	/* And sent again as a whole. */
	unlink_error = 0;
	assert_int_equal(name_op(bench, KVK_XFER_MOVE, gone, OBJECT), 0);
	assert_content(bench, OBJECT, "mine");
	assert_int_equal(count_names(bench, "ab"), 1);
}

static bool put_anew;

/* Between the steps of a move that another process makes, too: it was faster, and the key is put anew. */
static int rename_late(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
	return flags ? -EINVAL : kvk_posix_sys_real.renameat2(from_fd, from, to_fd, to, flags);
}

static int unlink_late(int fd, const char *path, int flags)
{
	put_anew |= !strcmp(path, "abcdef.kv");
	return kvk_posix_sys_real.unlinkat(fd, path, flags);
}

/* What has a name that others give is moved in one step, where no call moves without replacing. */
static void test_move_by_rename(void **state)
{
	struct bench *bench = *state;
	static const char *const targets[] = { "ab/0123.1.gone", ".kvkeep/quarantine/x" };

	kvk_posix_force_publish(bench->backend, KVK_PUBLISH_LINK);
	kvk_posix_of(bench->backend)->has_noreplace = false;
	bench->sys.renameat2 = rename_late;
	bench->sys.unlinkat = unlink_late;
	for (unsigned i = 0; i < 2; i++) {
		put_anew = false;
		assert_int_equal(put(bench, OBJECT, "one"), 0);
		assert_int_equal(name_op(bench, KVK_XFER_MOVE, OBJECT, targets[i]), 0);
		assert_int_equal(name_op(bench, KVK_XFER_MOVE, OBJECT, "ab/0123.2.gone"), -ENOENT);
		/* No step in which it could take another's away. */
		assert_false(put_anew);
		assert_int_equal(put(bench, OBJECT, "two"), 0);
		assert_int_equal(name_op(bench, KVK_XFER_MOVE, OBJECT, targets[i]), -EEXIST);
		/* Back, it never replaces. */
		assert_int_equal(name_op(bench, KVK_XFER_MOVE, targets[i], OBJECT), -EEXIST);
		assert_content(bench, OBJECT, "two");
		assert_int_equal(name_op(bench, KVK_XFER_UNLINK, OBJECT, NULL), 0);
		assert_int_equal(name_op(bench, KVK_XFER_MOVE, targets[i], OBJECT), 0);
		assert_content(bench, OBJECT, "one");
		assert_int_equal(name_op(bench, KVK_XFER_UNLINK, OBJECT, NULL), 0);
		assert_int_equal(count_names(bench, "ab"), 0);
	}
}

static int stamps;
static struct timespec stamped;
static unsigned fresh_stats;

static int server_stamps(int fd, const struct timespec times[2])
{
	/* The server is asked for its own time. */
	if (times[0].tv_nsec != UTIME_NOW || times[1].tv_nsec != UTIME_NOW)
		return -EINVAL;
	stamps++;
	return kvk_posix_sys_real.futimens(fd, (struct timespec[2]){ stamped, stamped });
}

static int count_fresh(int dir_fd, const char *path, int flags, unsigned mask, struct statx *stat)
{
	fresh_stats += (flags & AT_STATX_FORCE_SYNC) != 0;
	return kvk_posix_sys_real.statx(dir_fd, path, flags, mask, stat);
}

/* Where machines share a medium its clock counts, and what folders say is not taken from a cache of this machine. */
static void test_clock_of_many_hosts(void **state)
{
	struct bench *bench = *state;
	struct kvk_backend_options options = options_for(bench->root);
	const struct kvk_listing listing = { .wanted = NULL };
	uint64_t now_ns = 0, folder_ns;

	assert_int_equal(bench->backend->ops->now(bench->backend, &now_ns), 0);
	assert_true(now_ns > UINT64_C(1600000000000000000));
	assert_int_equal(stamps, 0);
	kvk_backend_posix.close(bench->backend);
	bench->backend = NULL;
	bench->sys.futimens = server_stamps;
	bench->sys.statx = count_fresh;
	options.many_hosts = true;
	assert_int_equal(kvk_backend_posix.open(&bench->backend, &options, NULL), 0);
	assert_true(bench->backend->caps.many_hosts);
	for (stamped.tv_sec = 1000; stamped.tv_sec < 3000; stamped.tv_sec += 500) {
		fresh_stats = 0;
		assert_int_equal(bench->backend->ops->now(bench->backend, &now_ns), 0);
		assert_true(now_ns == (uint64_t)stamped.tv_sec * 1000000000u);
		assert_int_equal(fresh_stats, 1);
	}
	assert_int_equal(stamps, 4);
	fresh_stats = 0;
	assert_int_equal(bench->backend->ops->folder_time(bench->backend, ".kvkeep/namespaces", &folder_ns), 0);
	assert_int_equal(bench->backend->ops->folder_time(bench->backend, "", &folder_ns), 0);
	assert_int_equal(fresh_stats, 2);
	assert_int_equal(bench->backend->ops->list_stat(bench->backend, ".kvkeep/namespaces", &listing, &folder_ns), 0);
	assert_int_equal(fresh_stats, 4);
	/* Others see it when it has its name, so it is on the server by then. */
	assert_int_equal(put(bench, OBJECT, "x"), 0);
	assert_content(bench, OBJECT, "x");
}

/* What another machine removed is -ESTALE to who has it open. */
static unsigned stale_calls;

static int stale_openat(int dir_fd, const char *path, int flags, mode_t mode)
{
	if (stale_calls && flags & O_TMPFILE & ~O_DIRECTORY) {
		stale_calls--;
		return -ESTALE;
	}
	return kvk_posix_sys_real.openat(dir_fd, path, flags, mode);
}

static int stale_statx(int dir_fd, const char *path, int flags, unsigned mask, struct statx *stat)
{
	return mask == STATX_NLINK ? -ESTALE : kvk_posix_sys_real.statx(dir_fd, path, flags, mask, stat);
}

static void test_folder_removed_elsewhere(void **state)
{
	struct bench *bench = *state;

	assert_int_equal(put(bench, OBJECT, "x"), 0);
	kvk_posix_force_publish(bench->backend, KVK_PUBLISH_PROCFD);
	bench->sys.openat = stale_openat;
	bench->sys.statx = stale_statx;
	stale_calls = 1;
	assert_int_equal(put(bench, "ab/another.kv", "y"), 0);
	assert_int_equal(stale_calls, 0);
	assert_content(bench, "ab/another.kv", "y");
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test_setup_teardown(test_link_whose_answer_got_lost, setup, teardown),
	cmocka_unit_test_setup_teardown(test_moved_link_whose_answer_got_lost, setup, teardown),
	cmocka_unit_test_setup_teardown(test_move_by_rename, setup, teardown),
	cmocka_unit_test_setup_teardown(test_clock_of_many_hosts, setup, teardown),
	cmocka_unit_test_setup_teardown(test_folder_removed_elsewhere, setup, teardown),
	BOTH(test_publish_every_way),
	BOTH(test_move_exchange_unlink),
	BOTH(test_if_cached),
	BOTH(test_sync_folder),
	BOTH(test_files),
	BOTH(test_list),
	BOTH(test_sweep),
	cmocka_unit_test_setup_teardown(test_bytes, setup, teardown),
	cmocka_unit_test_setup_teardown(test_modes, setup, teardown),
	cmocka_unit_test_setup_teardown(test_hold, setup, teardown),
	cmocka_unit_test_setup_teardown(test_sweep_spares_replacement, setup, teardown),
	cmocka_unit_test_setup_teardown(test_sweep_spares_what_it_did_not_open, setup, teardown),
};

int main(void)
{
	return cmocka_run_group_tests(tests, NULL, NULL);
}
