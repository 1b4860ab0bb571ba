/* SPDX-License-Identifier: Apache-2.0 */
/* Which roots the posix backend takes, what it finds out about them, and that nobody leads it outside. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "backend/posix/posix_private.h"
#include "posix_help.h"

struct bench {
	char root[64];
	char log[256];                 /* the last line */
	struct kvk_posix_sys sys;
	struct kvk_log_sink sink;
	struct kvk_backend_options options;
	struct kvk_error error;
	struct kvk_backend *backend;
};

static void take_line(void *user, int level, const char *text)
{
	struct bench *bench = user;

	if (level <= KVK_LOG_WARNING)
		snprintf(bench->log, sizeof(bench->log), "%s", text);
}

static int setup(void **state)
{
	struct bench *bench = test_calloc(1, sizeof(*bench));

	snprintf(bench->root, sizeof(bench->root), "/tmp/kvk-root-XXXXXX");
	assert_non_null(mkdtemp(bench->root));
	bench->sys = kvk_posix_sys_real;
	bench->sink = (struct kvk_log_sink){ .user = bench, .line = take_line };
	bench->options = (struct kvk_backend_options){
		.path = bench->root, .create = true, .writer_id = 5, .log = &bench->sink,
	};
	kvk_posix_sys_use(&bench->sys);
	*state = bench;
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

static int reopen(struct bench *bench)
{
	kvk_backend_posix.close(bench->backend);
	bench->backend = NULL;
	bench->error = (struct kvk_error){ 0 };
	return kvk_backend_posix.open(&bench->backend, &bench->options, &bench->error);
}

static void assert_says(const struct bench *bench, const char *word)
{
	if (!strstr(bench->error.text, word))
		fail_msg("\"%s\" is not in: %s", word, bench->error.text);
	assert_string_equal(bench->error.option, "backend_params.file_path");
}

static int64_t name_op(struct bench *bench, enum kvk_xfer_op op, const char *name, const char *name2)
{
	struct kvk_xfer xfer;

	kvk_xfer_init(&xfer, op, NULL, name);
	xfer.name2 = name2;
	kvk_posix_run(bench->backend, &xfer);
	if (op == KVK_XFER_OPEN && !xfer.result) {
		struct kvk_xfer close;

		kvk_xfer_init(&close, KVK_XFER_CLOSE, xfer.place, NULL);
		kvk_posix_run(bench->backend, &close);
	}
	return xfer.result;
}

static void shell(const struct bench *bench, const char *command)
{
	char whole[512];

	snprintf(whole, sizeof(whole), "cd '%s' && %s", bench->root, command);
	assert_int_equal(system(whole), 0);
}

static void test_paths(void **state)
{
	struct bench *bench = *state;
	char path[128];
	char *before = getcwd(NULL, 0);

	bench->options.path = NULL;
	assert_int_equal(reopen(bench), -EINVAL);
	assert_says(bench, "must be given");
	bench->options.path = "";
	assert_int_equal(reopen(bench), -EINVAL);
	snprintf(path, sizeof(path), "%s/none/store", bench->root);
	bench->options.path = path;
	assert_int_equal(reopen(bench), -ENOENT);
	assert_says(bench, path);
	snprintf(path, sizeof(path), "%s/file", bench->root);
	shell(bench, "touch file");
	assert_int_equal(reopen(bench), -ENOTDIR);
	assert_says(bench, path);

	/* A bare relative path, from now on independent of where the process goes. */
	assert_int_equal(chdir(bench->root), 0);
	bench->options.path = "store";
	bench->options.create = false;
	assert_int_equal(reopen(bench), -ENOENT);
	bench->options.create = true;
	assert_int_equal(reopen(bench), 0);
	bench->options.create = false;
	assert_int_equal(reopen(bench), 0);
	bench->options.path = ".";
	assert_int_equal(reopen(bench), -ENOENT);
	assert_says(bench, "no store");
	assert_int_equal(chdir(before), 0);
	free(before);
}

static uid_t another_uid(void)
{
	return geteuid() + 1;
}

static void test_unsafe_roots(void **state)
{
	struct bench *bench = *state;
	static const struct {
		mode_t mode;
		bool group;
		int result;
		const char *says;
	} cases[] = {
		{ 0777, false, -EPERM, "chmod go-w" }, { 0770, false, -EPERM, "mode 0770" }, { 0702, true, -EPERM, "chmod o-w" },
		{ 01777, false, -EPERM, "mode 1777" }, { 0755, false, 0, "" }, { 0770, true, 0, "" }, { 0700, false, 0, "" },
	};

	for (unsigned inner = 0; inner < 2; inner++) {
		char path[96];

		snprintf(path, sizeof(path), "%s%s", bench->root, inner ? "/.kvkeep" : "");
		for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
			assert_int_equal(chmod(path, cases[i].mode), 0);
			bench->options.group = cases[i].group;
			assert_int_equal(reopen(bench), cases[i].result);
			if (cases[i].result) {
				assert_says(bench, cases[i].says);
				assert_says(bench, path);
			}
		}
		assert_int_equal(chmod(path, 0700), 0);
		assert_int_equal(reopen(bench), 0);
	}
	bench->sys.effective_uid = another_uid;
	assert_int_equal(reopen(bench), -EPERM);
	assert_says(bench, "chown");
	assert_says(bench, "mode 0700");
}

static uint32_t magic;

static int foreign_fstatfs(int fd, struct statfs *stat)
{
	int err = kvk_posix_sys_real.fstatfs(fd, stat);

	stat->f_type = (__fsword_t)magic;
	return err;
}

static int no_mountinfo(int dir_fd, const char *path, int flags, mode_t mode)
{
	return strcmp(path, "/proc/self/mountinfo") ? kvk_posix_sys_real.openat(dir_fd, path, flags, mode) : -ENOENT;
}

static void test_not_local(void **state)
{
	struct bench *bench = *state;
	static const struct {
		uint32_t magic;
		const char *name;
		bool local;
	} cases[] = {
		{ 0x6969, "nfs", false }, { 0x65735546, "fuse", false }, { 0x01021997, "9p", false },
		{ 0x00c36400, "ceph", false }, { 0x0bd00bd0, "lustre", false }, { 0xff534d42, "cifs", false },
		{ 0xfe534d42, "smb", false }, { 0x5346414f, "afs", false }, { 0x12345678, "0x12345678", false },
		{ 0xef53, "ext4", true }, { 0x58465342, "xfs", true }, { 0x9123683e, "btrfs", true },
		{ 0x01021994, "tmpfs", true }, { 0x794c7630, "overlay", true },
	};

	bench->sys.fstatfs = foreign_fstatfs;
	bench->sys.openat = no_mountinfo;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		magic = cases[i].magic;
		bench->options.shared = false;
		assert_int_equal(reopen(bench), cases[i].local ? 0 : -EPERM);
		if (!cases[i].local) {
			assert_says(bench, cases[i].name);
			assert_says(bench, "\"shared\": true");
		}
		bench->options.shared = true;
		assert_int_equal(reopen(bench), 0);
		assert_int_equal(bench->backend->caps.local, cases[i].local);
		assert_non_null(strstr(bench->backend->caps.medium, cases[i].name));
		/* Who shares it with other machines must know how it is mounted. */
		bench->options.many_hosts = true;
		assert_int_equal(reopen(bench), cases[i].local ? 0 : -EOPNOTSUPP);
		if (!cases[i].local) {
			assert_string_equal(bench->error.option, "shared");
			assert_non_null(strstr(bench->error.text, "/proc/self/mountinfo"));
		}
		bench->options.many_hosts = false;
	}
}

static int no_openat2(int dir_fd, const char *path, const struct open_how *how)
{
	return -EPERM;
}

static int old_openat2(int dir_fd, const char *path, const struct open_how *how)
{
	return how->resolve & RESOLVE_CACHED ? -EINVAL : kvk_posix_sys_real.openat2(dir_fd, path, how);
}

static int (*const lookups[])(int dir_fd, const char *path, const struct open_how *how) = {
	NULL, old_openat2, no_openat2,
};

/* Whatever somebody planted, each way of looking names up answers the same. */
static void test_planted(void **state)
{
	struct bench *bench = *state;
	static const struct {
		const char *name;
		int result;
	} cases[] = {
		{ "ab/object", 0 }, { "ab//object", 0 }, { "ab/linked-twice", 0 },
		{ "ab/missing", -ENOENT }, { "xy/missing", -ENOENT }, { "", -ENOENT },
		{ "ab/symlink", -ELOOP }, { "ab/dangling", -ELOOP }, { "ab/folder", -EISDIR },
		{ "ab/fifo", -EINVAL }, { "ab/socket", -EINVAL }, { "ab/object/x", -EINVAL },
		{ "/etc/passwd", -EXDEV }, { "../x", -EXDEV }, { "ab/../ab/object", -EXDEV }, { "ab/..", -EXDEV },
	};
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char name[700];
	int fd;

	shell(bench, "mkdir ab ab/folder && echo x > ab/object && ln -s object ab/symlink && ln -s none ab/dangling && "
	      "mkfifo ab/fifo && ln -s ab outside && echo x > ab/linked-twice && ln ab/linked-twice ab/again");
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/ab/socket", bench->root);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	close(fd);
	for (size_t way = 0; way < sizeof(lookups) / sizeof(lookups[0]); way++) {
		uint32_t before;

		bench->sys.openat2 = lookups[way] ? lookups[way] : kvk_posix_sys_real.openat2;
		assert_int_equal(reopen(bench), 0);
		before = open_descriptors();
		for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
			int64_t result = name_op(bench, KVK_XFER_OPEN, cases[i].name, NULL);

			if (result != cases[i].result)
				fail_msg("way %u, \"%s\": %d, not %d", (unsigned)way, cases[i].name, (int)result,
					 cases[i].result);
		}
		memset(name, 'x', sizeof(name));
		name[sizeof(name) - 1] = '\0';
		assert_int_equal(name_op(bench, KVK_XFER_OPEN, name, NULL), -ENAMETOOLONG);
		/* Through a folder that is a link, nothing is opened, made, moved or removed. */
		assert_true(name_op(bench, KVK_XFER_OPEN, "outside/object", NULL) < 0);
		assert_true(name_op(bench, KVK_XFER_CREATE, "outside/new", NULL) < 0);
		assert_true(name_op(bench, KVK_XFER_UNLINK, "outside/object", NULL) < 0);
		assert_true(name_op(bench, KVK_XFER_MOVE, "ab/object", "outside/new") < 0);
		assert_true(name_op(bench, KVK_XFER_MOVE, "outside/object", "ab/new") < 0);
		assert_true(name_op(bench, KVK_XFER_EXCHANGE, "ab/object", "outside/object") < 0);
		assert_true(name_op(bench, KVK_XFER_CREATE, "../new", NULL) < 0);
		assert_true(name_op(bench, KVK_XFER_UNLINK, "../x", NULL) < 0);
		assert_true(name_op(bench, KVK_XFER_SYNC_FOLDER, "outside/object", NULL) < 0);
		assert_int_equal(open_descriptors(), before);
	}
	/* Links are looked at, not through. */
	assert_int_equal(name_op(bench, KVK_XFER_STAT_NAME, "ab/symlink", NULL), 0);
}

static void test_stat(void **state)
{
	struct bench *bench = *state;
	struct kvk_xfer xfer;

	assert_int_equal(reopen(bench), 0);
	shell(bench, "mkdir ab && printf 12345 > ab/object && ln ab/object ab/again && ln -s object ab/symlink");
	kvk_xfer_init(&xfer, KVK_XFER_STAT_NAME, NULL, "ab/object");
	kvk_posix_run(bench->backend, &xfer);
	assert_int_equal(xfer.result, 0);
	assert_int_equal(xfer.stat.bytes, 5);
	assert_int_equal(xfer.stat.links, 2);
	assert_int_equal(xfer.stat.owner, geteuid());
	assert_true(xfer.stat.owned && xfer.stat.regular && xfer.stat.inode && xfer.stat.modified_ns);
	assert_int_equal(xfer.stat.born_ns != 0, bench->backend->caps.birth_time);
	kvk_xfer_init(&xfer, KVK_XFER_STAT_NAME, NULL, "ab/symlink");
	kvk_posix_run(bench->backend, &xfer);
	assert_int_equal(xfer.result, 0);
	assert_false(xfer.stat.regular);
	kvk_posix_of(bench->backend)->owner = another_uid();
	kvk_xfer_init(&xfer, KVK_XFER_OPEN, NULL, "ab/object");
	kvk_posix_run(bench->backend, &xfer);
	assert_int_equal(xfer.result, 0);
	assert_false(xfer.stat.owned);
	kvk_xfer_init(&xfer, KVK_XFER_CLOSE, xfer.place, NULL);
	kvk_posix_run(bench->backend, &xfer);
}

static void test_planted_kvkeep(void **state)
{
	struct bench *bench = *state;

	shell(bench, "mkdir -m 700 elsewhere && ln -s elsewhere .kvkeep");
	assert_true(reopen(bench) < 0);
	assert_says(bench, ".kvkeep");
	shell(bench, "test -z \"$(ls -A elsewhere)\"");
}

/* ---- the trial: each thing that a medium may not be able to do ---------------------------------- */

static bool no_tmpfile, no_procfd, no_empty_path, no_noreplace, no_exchange, no_direct, no_dioalign, only_pages;

static int lacking_openat(int dir_fd, const char *path, int flags, mode_t mode)
{
	if (no_tmpfile && (flags & O_TMPFILE) == O_TMPFILE)
		return -EOPNOTSUPP;
	if (no_direct && flags & O_DIRECT)
		return -EINVAL;
	return kvk_posix_sys_real.openat(dir_fd, path, flags, mode);
}

static int lacking_linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
	if ((no_procfd && flags & AT_SYMLINK_FOLLOW) || (no_empty_path && flags & AT_EMPTY_PATH))
		return -ENOENT;
	return kvk_posix_sys_real.linkat(from_fd, from, to_fd, to, flags);
}

static int lacking_renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
	if ((no_noreplace && flags & RENAME_NOREPLACE) || (no_exchange && flags & RENAME_EXCHANGE))
		return -EINVAL;
	return kvk_posix_sys_real.renameat2(from_fd, from, to_fd, to, flags);
}

static int lacking_statx(int fd, const char *path, int flags, unsigned mask, struct statx *stat)
{
	return kvk_posix_sys_real.statx(fd, path, flags, no_dioalign ? mask & ~(unsigned)STATX_DIOALIGN : mask, stat);
}

static int64_t lacking_pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	if (only_pages && (iov->iov_len | (size_t)offset | (uintptr_t)iov->iov_base) & 4095)
		return -EINVAL;
	return kvk_posix_sys_real.pwritev2(fd, iov, count, offset, flags);
}

static void test_trial_publish(void **state)
{
	struct bench *bench = *state;
	static const struct {
		bool tmpfile, procfd, empty_path, noreplace, exchange;
		const char *publish;
	} cases[] = {
		{ false, false, false, false, false, "linkat empty path" },
		{ false, false, true, false, false, "linkat procfd" },
		{ false, true, false, false, true, "linkat empty path" },
		{ false, true, true, false, false, "rename noreplace" },
		{ true, false, false, false, false, "rename noreplace" },
		{ true, false, false, true, true, "link and unlink" },
	};

	bench->sys.openat = lacking_openat;
	bench->sys.linkat = lacking_linkat;
	bench->sys.renameat2 = lacking_renameat2;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		no_tmpfile = cases[i].tmpfile;
		no_procfd = cases[i].procfd;
		no_empty_path = cases[i].empty_path;
		no_noreplace = cases[i].noreplace;
		no_exchange = cases[i].exchange;
		assert_int_equal(reopen(bench), 0);
		assert_string_equal(bench->backend->caps.publish, cases[i].publish);
		assert_int_equal(bench->backend->caps.exchange, !cases[i].exchange);
		shell(bench, "test \"$(ls -A .kvkeep)\" = \"$(printf 'namespaces\\nquarantine')\"");
	}
	no_tmpfile = no_procfd = no_empty_path = no_noreplace = no_exchange = false;
}

static void test_trial_direct(void **state)
{
	struct bench *bench = *state;
	struct kvk_backend_caps *caps;

	bench->sys.openat = lacking_openat;
	bench->sys.statx = lacking_statx;
	bench->sys.pwritev2 = lacking_pwritev2;
	assert_int_equal(reopen(bench), 0);
	caps = &bench->backend->caps;
	assert_false(caps->direct);
	assert_int_equal(caps->align_memory_bytes, 1);
	assert_int_equal(caps->align_offset_bytes, 1);
	assert_string_equal(caps->direct_note, "");
	bench->options.direct = true;

	no_direct = true;
	bench->log[0] = '\0';
	assert_int_equal(reopen(bench), 0);
	caps = &bench->backend->caps;
	no_direct = false;
	assert_false(caps->direct);
	assert_non_null(strstr(caps->direct_note, "buffered"));
	assert_non_null(strstr(bench->log, caps->direct_note));

	assert_int_equal(reopen(bench), 0);
	caps = &bench->backend->caps;
	if (!caps->direct) {
		print_message("SKIP: %s\n", caps->direct_note);
		skip();
	}
	assert_true(caps->align_memory_bytes >= 512 && caps->align_offset_bytes >= 512);
	no_dioalign = true;
	only_pages = true;
	assert_int_equal(reopen(bench), 0);
	no_dioalign = false;
	only_pages = false;
	caps = &bench->backend->caps;
	assert_true(caps->direct);
	assert_int_equal(caps->align_memory_bytes, 4096);
	assert_int_equal(caps->align_offset_bytes, 4096);
}

/* A disk that is full serves what it has. */
static int full_openat(int dir_fd, const char *path, int flags, mode_t mode)
{
	return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? -ENOSPC :
	       kvk_posix_sys_real.openat(dir_fd, path, flags, mode);
}

static void test_full_disk(void **state)
{
	struct bench *bench = *state;

	assert_int_equal(reopen(bench), 0);
	shell(bench, "mkdir ab && echo x > ab/object");
	bench->sys.openat = full_openat;
	assert_int_equal(reopen(bench), 0);
	assert_int_equal(name_op(bench, KVK_XFER_OPEN, "ab/object", NULL), 0);
	assert_int_equal(name_op(bench, KVK_XFER_CREATE, "ab/new", NULL), -ENOSPC);
}

static void test_ordinary_user(void **state)
{
	struct bench *bench = *state;
	int status;
	pid_t child;

	if (geteuid()) {
		print_message("SKIP: this is one already\n");
		skip();
	}
	assert_int_equal(chown(bench->root, 65534, 65534), 0);
	child = fork();
	if (child == 0) {
		if (setgid(65534) || setuid(65534))
			_exit(10);
		bench->options.direct = true;
		if (reopen(bench))
			_exit(11);
		_exit(bench->backend->caps.publish[0] ? 0 : 12);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

/* Real file systems, each on a disk of its own in memory. */
static void test_file_systems(void **state)
{
	struct bench *bench = *state;
	static const struct {
		const char *make;
		const char *name;
		uint32_t sector_bytes, align_bytes;
	} cases[] = {
		{ "mkfs.ext4 -q", "ext4", 512, 512 }, { "mkfs.ext4 -q", "ext4", 4096, 4096 },
		{ "mkfs.xfs -q", "xfs", 4096, 4096 }, { "mkfs.btrfs -q", "btrfs", 512, 4096 },
	};

	if (geteuid() || system("command -v losetup mkfs.ext4 mkfs.xfs mkfs.btrfs >/dev/null 2>&1")) {
		print_message("SKIP: needs root, losetup and the mkfs of ext4, xfs and btrfs\n");
		skip();
	}
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct kvk_backend_caps caps = { 0 };
		char command[512], path[80];
		int err;

		snprintf(command, sizeof(command),
			 "cd '%s' && rm -rf img mnt && mkdir mnt && truncate -s 400M img && "
			 "L=$(losetup -f --show --sector-size %u img) && echo $L > loop && "
			 "%s $L >/dev/null 2>&1 && mount $L mnt && mkdir -m 700 mnt/s",
			 bench->root, cases[i].sector_bytes, cases[i].make);
		err = system(command);
		if (!err) {
			snprintf(path, sizeof(path), "%s/mnt/s", bench->root);
			bench->options.path = path;
			bench->options.direct = true;
			err = reopen(bench);
			if (!err) {
				caps = bench->backend->caps;
				kvk_backend_posix.close(bench->backend);
				bench->backend = NULL;
			}
		}
		snprintf(command, sizeof(command),
			 "cd '%s'; umount mnt 2>/dev/null; test -s loop && losetup -d $(cat loop) 2>/dev/null; rm -f loop img; true",
			 bench->root);
		assert_int_equal(system(command), 0);
		if (err) {
			print_message("SKIP: no %s on a loop device here: %s\n", cases[i].name, bench->error.text);
			skip();
		}
		assert_string_equal(caps.medium, cases[i].name);
		assert_string_equal(caps.publish, "linkat empty path");
		assert_true(caps.direct && caps.local && caps.exchange && caps.nowait && caps.birth_time);
		assert_int_equal(caps.align_offset_bytes, cases[i].align_bytes);
		assert_false(caps.discard);
	}
}

#define ONE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

static int mountinfo_fd;

static int own_mountinfo(int dir_fd, const char *path, int flags, mode_t mode)
{
	return strcmp(path, "/proc/self/mountinfo") ? kvk_posix_sys_real.openat(dir_fd, path, flags, mode) : dup(mountinfo_fd);
}

/* With some options of a mount a machine sees nothing of the others, and nobody would notice. */
static void test_blinding_mounts(void **state)
{
	static const char *const options[] = { "nolock", "local_lock=all", "local_lock=posix", "local_lock=flock", "nocto",
					       "localflock", "nobrl" };
	struct bench *bench = *state;
	struct statx stat;

	assert_int_equal(statx(AT_FDCWD, bench->root, 0, STATX_MNT_ID, &stat), 0);
	bench->sys.openat = own_mountinfo;
	bench->options.shared = true;
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
		mountinfo_fd = memfd_create("mountinfo", MFD_CLOEXEC);
		dprintf(mountinfo_fd, "%llu 1 0:40 / /mnt rw,relatime - nfs4 server:/ rw,vers=4.2,%s,addr=10.0.0.1\n",
			(unsigned long long)stat.stx_mnt_id, options[i]);
		bench->options.many_hosts = false;
		assert_int_equal(reopen(bench), 0);
		bench->options.many_hosts = true;
		assert_int_equal(reopen(bench), -EOPNOTSUPP);
		assert_string_equal(bench->error.option, "shared");
		assert_non_null(strstr(bench->error.text, options[i]));
		close(mountinfo_fd);
	}
}

static const struct CMUnitTest tests[] = {
	ONE(test_blinding_mounts), ONE(test_paths), ONE(test_unsafe_roots), ONE(test_not_local), ONE(test_planted), ONE(test_stat),
	ONE(test_planted_kvkeep), ONE(test_trial_publish), ONE(test_trial_direct), ONE(test_full_disk),
	ONE(test_ordinary_user), ONE(test_file_systems),
};

int main(void)
{
	return cmocka_run_group_tests(tests, NULL, NULL);
}
