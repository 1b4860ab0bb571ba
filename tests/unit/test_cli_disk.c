/* SPDX-License-Identifier: Apache-2.0 */
/* cli/disk.c: which files a store charges, by their names; and what a directory with some of each comes to. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/disk.h"
#include "support/skip.h"

#define D16 "0123456789abcdef"
#define DIGEST D16 D16 D16 D16

static const struct kvk_disk_layout kvkeep = { .levels = 1 }, kvkeep2 = { .levels = 2 };
static const struct kvk_disk_layout flat = { .lmcache = true }, sharded = { .lmcache = true, .levels = 2 };

static const struct {
	const char *path;
	const struct kvk_disk_layout *layout;
	enum kvk_disk_kind kind;
} paths[] = {
	{ "01/" DIGEST ".kv", &kvkeep, KVK_DISK_OBJECT },
	{ "01/23/" DIGEST ".kv", &kvkeep2, KVK_DISK_OBJECT },
	{ "01/23/" DIGEST ".kv", &kvkeep, KVK_DISK_OTHER },
	{ "01/" DIGEST ".kv", &kvkeep2, KVK_DISK_OTHER },
	{ "02/" DIGEST ".kv", &kvkeep, KVK_DISK_OTHER },
	{ "01/24/" DIGEST ".kv", &kvkeep2, KVK_DISK_OTHER },
	{ DIGEST ".kv", &kvkeep, KVK_DISK_OTHER },
	{ "01/" DIGEST ".kv2", &kvkeep, KVK_DISK_OTHER },
	{ "01/" D16 ".kv", &kvkeep, KVK_DISK_OTHER },
	{ "0G/" DIGEST ".kv", &kvkeep, KVK_DISK_OTHER },
	{ "012/" DIGEST ".kv", &kvkeep, KVK_DISK_OTHER },
	{ "01/" DIGEST ".7.gone", &kvkeep, KVK_DISK_GONE },
	{ "01/x.gone", &kvkeep, KVK_DISK_OTHER },
	{ "01/.tmp-0123456789abcdef-5", &kvkeep, KVK_DISK_TEMPORARY },
	{ ".tmp-0123456789abcdef-5", &kvkeep, KVK_DISK_OTHER },
	{ ".tmp-0123456789abcdef-5", &flat, KVK_DISK_TEMPORARY },
	{ ".kvkeep/quarantine/" DIGEST ".kv", &kvkeep, KVK_DISK_QUARANTINE },
	{ ".kvkeep/quarantine/m_00000000_0_ab.bin", &flat, KVK_DISK_QUARANTINE },
	{ ".kvkeep/account", &kvkeep, KVK_DISK_OTHER },
	{ ".kvkeep/namespaces/" DIGEST ".json", &kvkeep, KVK_DISK_OTHER },
	{ "m_00000000_0_ab.bin", &flat, KVK_DISK_OBJECT },
	{ ".hidden.bin", &flat, KVK_DISK_OTHER },
	{ "m_00000000_0_ab.bin", &sharded, KVK_DISK_OTHER },
	{ "ab/cd/m_00000000_0_abcd.bin", &sharded, KVK_DISK_OBJECT },
	{ "ab/cd/" DIGEST ".1.gone", &sharded, KVK_DISK_GONE },
	{ "01/" DIGEST ".kv", &flat, KVK_DISK_OTHER },
	{ ".bin", &flat, KVK_DISK_OTHER },
	{ "", &flat, KVK_DISK_OTHER },
};

static void names_tell_what_is_charged(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		enum kvk_disk_kind kind = kvk_disk_kind(paths[i].path, paths[i].layout);

		if (kind != paths[i].kind)
			fail_msg("%s (%s, %u): kind %d, wanted %d", paths[i].path,
				 paths[i].layout->lmcache ? "lmcache" : "kvkeep", paths[i].layout->levels, kind,
				 paths[i].kind);
	}
}

static void make(const char *folder, const char *name, uint64_t bytes)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = open(path, O_CREAT | O_WRONLY | O_EXCL, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	close(fd);
}

static void make_folder(const char *folder, const char *name)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	assert_int_equal(mkdir(path, 0700), 0);
}

struct ticking {
	unsigned ticks, stop_at;
};

static bool tick(void *user, const struct kvk_disk *disk)
{
	struct ticking *ticking = user;

	(void)disk;
	return ++ticking->ticks != ticking->stop_at;
}

static void directories_are_added_up(void **state)
{
	char folder[] = "/tmp/kvkeep-disk-XXXXXX", command[64];
	struct ticking ticking = { .ticks = 0 };
	struct kvk_disk disk = { .folders_changed = 99 };

	(void)state;
	assert_non_null(mkdtemp(folder));
	make_folder(folder, ".kvkeep");
	make_folder(folder, ".kvkeep/quarantine");
	make_folder(folder, "01");
	make_folder(folder, "02");
	make(folder, "01/" DIGEST ".kv", 4097);
	make(folder, "01/" DIGEST ".1.gone", 4096);
	make(folder, "01/.tmp-0123456789abcdef-5", 1);
	make(folder, "02/" DIGEST ".kv", 100000);
	make(folder, "kept.txt", 100000);
	make(folder, ".kvkeep/quarantine/" DIGEST ".kv", 8193);
	make(folder, ".kvkeep/account", 65536);
	snprintf(command, sizeof(command), "%s/01/link", folder);
	assert_int_equal(symlink(folder, command), 0);

	assert_int_equal(kvk_disk_read(&disk, folder, &kvkeep, tick, &ticking), 0);
	assert_int_equal(disk.files[KVK_DISK_OBJECT], 1);
	assert_int_equal(disk.bytes[KVK_DISK_OBJECT], 8192);
	assert_int_equal(disk.bytes[KVK_DISK_GONE], 4096);
	assert_int_equal(disk.bytes[KVK_DISK_TEMPORARY], 4096);
	assert_int_equal(disk.bytes[KVK_DISK_QUARANTINE], 12288);
	assert_int_equal(disk.files[KVK_DISK_OTHER], 4);
	assert_int_equal(kvk_disk_charged(&disk), 8192 + 4096 + 4096 + 12288);
	assert_int_equal(disk.folders_changed, 0);
	assert_int_equal(ticking.ticks, 5);

	ticking = (struct ticking){ .stop_at = 3 };
	disk.folders_changed = 99;
	assert_int_equal(kvk_disk_read(&disk, folder, &kvkeep, tick, &ticking), -ECANCELED);
	assert_int_equal(disk.folders_changed, 99);
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	assert_int_equal(system(command), 0);
	assert_int_equal(kvk_disk_read(&disk, folder, &kvkeep, tick, &ticking), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_tell_what_is_charged),
		cmocka_unit_test(directories_are_added_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
