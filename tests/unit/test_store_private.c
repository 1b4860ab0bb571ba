/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may look in: modes of files and folders whatever the umask, a root or an own folder that others may write, links and
 * strangers in place of the store's own files; and where keys, salts and contents must not show: logs, status, errors,
 * names, core dumps.
 */
#include <dirent.h>
#include <ftw.h>
#include <pthread.h>
#include <sys/mman.h>

#include "unit/store_kit.h"

#define BYTES 70000u

/* ---- modes ------------------------------------------------------------------------------------------ */

static mode_t expected_file, expected_folder;
static unsigned files_seen, folders_seen;

static int check_mode(const char *path, const struct stat *stat, int kind, struct FTW *ftw)
{
	mode_t expected = S_ISDIR(stat->st_mode) ? expected_folder : expected_file;

	if ((stat->st_mode & 07777) != expected) {
		print_error("%s has mode %04o, must have %04o\n", path, stat->st_mode & 07777u, expected);
		return 1;
	}
	S_ISDIR(stat->st_mode) ? folders_seen++ : files_seen++;
	return 0;
}

/* Everything the store makes: its root, folders, objects, quarantine, superblock, manifests. */
static void use_all(struct bed *bed, const char *more)
{
	char path[PATH_MAX], with_manifest[128];

	snprintf(with_manifest, sizeof(with_manifest), "%s%s\"namespace\": {\"a\": 1}", more, *more ? ", " : "");
	bed_open(bed, with_manifest);
	bed_reopen(bed, more);
	for (unsigned i = 0; i < 40; i++) {
		char key[16];

		snprintf(key, sizeof(key), "key %u", i);
		KIT_EXPECT(kit_store(bed->store, key, i * 1000, 1), 0, KVK_REASON_NONE);
	}
	for (unsigned i = 0; i < 2; i++) {
		/* One that a get moves aside, and one that a put replaces. */
		kit_path(path, bed->path, bed_key(i ? "key 30" : "key 31"));
		assert_int_equal(truncate(path, 5000), 0);
	}
	bed_reopen(bed, more);
	KIT_EXPECT(kit_load(bed->store, "key 30", 30000, 1), -EBADMSG, KVK_REASON_DAMAGED);
	KIT_EXPECT(kit_store(bed->store, "key 31", 31000, 1), 0, KVK_REASON_NONE);
	assert_int_equal(bed_close(bed), 0);
}

static void check_modes(struct bed *bed, bool group)
{
	static const mode_t masks[] = { 0, 022, 077, 0777 };
	const char *more = group ? "\"group\": true" : "";

	expected_file = group ? 0660 : 0600;
	expected_folder = group ? 0770 : 0700;
	for (size_t i = 0; i < sizeof(masks) / sizeof(masks[0]); i++) {
		mode_t before = umask(masks[i]);
		struct bed own = { .kind = bed->kind };

		/* A root of the store's own making. */
		snprintf(own.path, sizeof(own.path), "%.50s/%s%zu", bed->path, group ? "g" : "o", i);
		use_all(&own, more);
		umask(before);
		files_seen = folders_seen = 0;
		assert_int_equal(nftw(own.path, check_mode, 16, FTW_PHYS), 0);
		/* 40 objects (one of them in quarantine), superblock, locks, manifest; root, .kvkeep and what is in it. */
		assert_in_range(files_seen, 43, 46);
		assert_in_range(folders_seen, 5, 45);
	}
}

static void modes_whatever_the_umask(void **state)
{
	check_modes(*state, false);
}

static void modes_of_a_group(void **state)
{
	check_modes(*state, true);
}

/* ---- roots that are not safe -------------------------------------------------------------------------- */

static void expect_unsafe(struct bed *bed, const char *more, const char *mend)
{
	struct kvk_error error = { .struct_bytes = sizeof(error) };

	assert_int_equal(bed_try_open(bed, more, &error), -EPERM);
	assert_int_equal(error.code, -EPERM);
	assert_string_equal(error.option, "backend_params.file_path");
	/* It says what would mend it. */
	if (!strstr(error.text, mend))
		fail_msg("\"%s\" does not say \"%s\"", error.text, mend);
}

static void roots_that_others_may_write(void **state)
{
	static const struct { mode_t mode; bool group, fine; } roots[] = {
		{ 0700, false, true }, { 0755, false, true }, { 0775, false, false }, { 0777, false, false }, { 0702, false, false },
		{ 01777, false, false }, { 0770, true, true }, { 0775, true, true }, { 0777, true, false }, { 0772, true, false },
	};
	struct bed *bed = *state;

	for (size_t i = 0; i < sizeof(roots) / sizeof(roots[0]); i++) {
		const char *more = roots[i].group ? "\"group\": true" : "";
		struct bed own = { .kind = bed->kind };

		snprintf(own.path, sizeof(own.path), "%.50s/%zu", bed->path, i);
		assert_int_equal(mkdir(own.path, 0700), 0);
		assert_int_equal(chmod(own.path, roots[i].mode), 0);
		if (!roots[i].fine) {
			expect_unsafe(&own, more, "chmod");
			continue;
		}
		bed_open(&own, more);
		assert_int_equal(bed_close(&own), 0);
	}
}

static void own_folder_that_others_may_write(void **state)
{
	struct bed *bed = *state;
	char path[PATH_MAX];

	bed_open(bed, "");
	bed_close(bed);
	snprintf(path, sizeof(path), "%s/.kvkeep", bed->path);
	assert_int_equal(chmod(path, 0777), 0);
	expect_unsafe(bed, "", "chmod");
	assert_int_equal(chmod(path, 0720), 0);
	expect_unsafe(bed, "", "chmod");
	assert_int_equal(chmod(path, 0700), 0);
	bed_open(bed, "");
}

static void roots_of_strangers(void **state)
{
	struct bed *bed = *state;
	char path[PATH_MAX];

	if (geteuid())
		SKIP("changing owners wants root");
	bed_open(bed, "");
	bed_close(bed);
	snprintf(path, sizeof(path), "%s/.kvkeep", bed->path);
	assert_int_equal(chown(path, 12345, 12345), 0);
	expect_unsafe(bed, "", "chown");
	assert_int_equal(chown(path, 0, 0), 0);
	assert_int_equal(chown(bed->path, 12345, 0), 0);
	expect_unsafe(bed, "", "chown");
	assert_int_equal(chown(bed->path, 0, 0), 0);
	bed_open(bed, "");
}

/* ---- links and strangers in place of the store's own files ------------------------------------------------ */

static void own_files_that_are_links(void **state)
{
	static const struct { const char *name; bool folder; } files[] = {
		{ ".kvkeep", true }, { ".kvkeep/superblock", false }, { ".kvkeep/locks", false }, { ".kvkeep/namespaces", true },
	};
	struct bed *bed = *state;

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		struct kvk_error error = { .struct_bytes = sizeof(error) };
		char path[PATH_MAX], moved[PATH_MAX], manifests[PATH_MAX + 32];

		snprintf(path, sizeof(path), "%s/%s", bed->path, files[i].name);
		snprintf(moved, sizeof(moved), "%s/moved%zu", bed->path, i);
		bed_open(bed, "");
		bed_close(bed);
		assert_int_equal(rename(path, moved), 0);
		assert_int_equal(symlink(moved, path), 0);
		if (bed_try_open(bed, "\"namespace\": {\"a\": 1}", &error) == 0)
			fail_msg("a store was opened through the link %s", files[i].name);
		assert_true(error.text[0]);
		snprintf(manifests, sizeof(manifests), "%s", moved);
		if (files[i].folder && i == 3)
			assert_int_equal(rmdir(manifests), 0);   /* nothing was written there */
		assert_int_equal(unlink(path), 0);
		if (i == 3)
			assert_int_equal(mkdir(path, 0700), 0);
		else
			assert_int_equal(rename(moved, path), 0);
	}
	bed_open(bed, "");
}

static void own_files_that_would_block(void **state)
{
	static const char *const files[] = { "superblock", "locks" };
	struct bed *bed = *state;

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		char path[PATH_MAX];
		uint64_t from_us = kit_now_us();

		snprintf(path, sizeof(path), "%s/.kvkeep/%s", bed->path, files[i]);
		bed_open(bed, "");
		bed_close(bed);
		assert_int_equal(unlink(path), 0);
		assert_int_equal(mkfifo(path, 0600), 0);
		if (bed_try_open(bed, "", NULL) == 0)
			assert_int_equal(bed_close(bed), 0);
		assert_true(kit_now_us() - from_us < 20000000);
		assert_int_equal(unlink(path), 0);
	}
}

/* ---- what must not show ------------------------------------------------------------------------------------ */

#define SECRET "xyzzySECRETplugh"

static struct {
	pthread_mutex_t lock;
	char text[1 << 20];
	size_t bytes;
	unsigned lines;
} heard = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void hear(void *user, int level, const char *text)
{
	size_t bytes = strlen(text);

	pthread_mutex_lock(&heard.lock);
	if (heard.bytes + bytes + 2 < sizeof(heard.text)) {
		memcpy(heard.text + heard.bytes, text, bytes);
		heard.bytes += bytes;
		heard.text[heard.bytes++] = '\n';
		heard.lines++;
	}
	pthread_mutex_unlock(&heard.lock);
}

/* Neither as it is nor in hex. */
static void expect_no_secret(const char *text, const char *where)
{
	char hex[2 * sizeof(SECRET)];

	kvk_hex(hex, SECRET, sizeof(SECRET) - 1);
	if (strcasestr(text, SECRET) || strcasestr(text, hex))
		fail_msg("%s tells a secret: %.200s", where, strcasestr(text, SECRET) ? strcasestr(text, SECRET) : text);
}

static int check_name(const char *path, const struct stat *stat, int kind, struct FTW *ftw)
{
	return strcasestr(path, SECRET) != NULL;
}

static void secret_key(char text[200], unsigned number)
{
	char hex[2 * sizeof(SECRET)];

	kvk_hex(hex, SECRET, sizeof(SECRET) - 1);
	snprintf(text, 200, SECRET "/model@%08x@0@%s%02x@" SECRET "salt", number, hex, number);
}

static void fill_secret(uint8_t *data, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		data[i] = (uint8_t)SECRET[i % (sizeof(SECRET) - 1)];
}

static void check_texts(struct bed *bed, const char *when)
{
	char *status;

	assert_int_equal(kvk_store_status(bed->store, &status), 0);
	expect_no_secret(status, when);
	kvk_free(status);
}

/* Everything that may be said about an object: stored, missed, damaged, failing, without room, canceled, in the way. */
static void live_with_secrets(struct bed *bed, const char *more)
{
	static uint8_t data[BYTES];
	struct iovec iov = { data, BYTES };
	char key[200], path[PATH_MAX];

	bed_open(bed, more);
	for (unsigned i = 0; i < 24; i++) {
		struct kvk_put_item item = { .struct_bytes = sizeof(item), .data = &iov, .data_count = 1, .meta = SECRET,
					     .meta_bytes = sizeof(SECRET) - 1 };
		struct kvk_result result = { .struct_bytes = sizeof(result) };
		struct kvk_get_item get = { .struct_bytes = sizeof(get), .data = &iov, .data_count = 1 };

		secret_key(key, i);
		item.key = item.parent = get.key = bed_key(key);
		fill_secret(data, sizeof(data));
		assert_int_equal(kvk_store_put_wait(bed->store, &item, 1, i % 7 == 6 ? 1 : 0, &result), 0);
		kit_path(path, bed->path, bed_key(key));
		if (i % 3 == 0 && access(path, F_OK) == 0)
			assert_int_equal(truncate(path, 4096 * (i % 4)), 0);
		assert_int_equal(kvk_store_get_wait(bed->store, &get, 1, 0, &result), 0);
		kit_lookup(bed->store, key, i % 2 ? KVK_LOOKUP_PIN : 0);
		if (i % 5 == 0)
			kit_remove(bed->store, key);
	}
	check_texts(bed, "the status");
	assert_int_equal(bed_close(bed), 0);
}

static void secrets_show_nowhere(void **state)
{
	static const char *const lives[] = {
		"\"namespace\": {\"a\": 1}",
		"",
		"params:\"max_capacity_gb\": 0.0006; \"lanes\": 1",
		"params:\"max_capacity_gb\": 0; \"fault\": [{\"do\": \"fail\", \"ops\": [\"read\"], \"nth\": 1, \"every\": 2}]",
		"\"fault\": [{\"do\": \"fail\", \"ops\": [\"write\", \"publish\", \"create\"], \"nth\": 1, \"every\": 2}]",
		"\"fault\": [{\"do\": \"fail\", \"nth\": 1, \"every\": 5, \"error\": \"ENOSPC\"}]",
		"\"fault\": [{\"do\": \"corrupt\", \"ops\": [\"read\"], \"nth\": 1, \"every\": 1}]",
		"\"durability\": \"object\", \"fault\": [{\"do\": \"fail\", \"ops\": [\"sync\", \"sync_folder\"], \"nth\": 1, \"every\": 3}]",
	};
	struct kvk_hooks hooks = { .struct_bytes = sizeof(hooks), .log = hear };
	struct kvk_error error = { .struct_bytes = sizeof(error) };
	struct bed *bed = *state;

	bed->hooks = &hooks;
	for (size_t i = 0; i < sizeof(lives) / sizeof(lives[0]); i++)
		live_with_secrets(bed, lives[i]);
	/* Something was said, or nothing was tried. */
	assert_in_range(heard.lines, 1, 100000);
	heard.text[heard.bytes] = 0;
	expect_no_secret(heard.text, "the log");
	assert_int_equal(nftw(bed->path, check_name, 16, FTW_PHYS), 0);
	/* An opening that fails does not repeat the manifest. */
	assert_int_equal(bed_try_open(bed, "\"namespace\": {\"" SECRET "\": 1, \"" SECRET "\": 2}", &error), -EINVAL);
	expect_no_secret(error.option, "the option of an error");
	printf("# %u lines of log, none of them tells a secret\n", heard.lines);
}

/* ---- core dumps ----------------------------------------------------------------------------------------------- */

struct mapping {
	uint64_t start, end;
	bool dumped;
	bool readable;
};

static unsigned read_mappings(struct mapping *mappings, unsigned room)
{
	FILE *file = fopen("/proc/self/smaps", "r");
	unsigned count = 0;
	char line[512], mode[8];

	assert_non_null(file);
	while (fgets(line, sizeof(line), file)) {
		uint64_t start, end;

		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s", &start, &end, mode) == 3 && count < room)
			mappings[count++] = (struct mapping){ start, end, true, mode[0] == 'r' && mode[1] == 'w' };
		else if (!strncmp(line, "VmFlags:", 8) && count > 0)
			mappings[count - 1].dumped = !strstr(line, " dd");
	}
	fclose(file);
	return count;
}

/* What was stored lies in the store's memory still; nowhere may it lie where a core dump would take it. */
static void contents_stay_out_of_core_dumps(void **state)
{
	static struct mapping mappings[4096];
	struct bed *bed = *state;
	uint8_t *data = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned count, kept = 0, found = 0;
	uint8_t needle[64];

	if (KIT_SANITIZED)
		SKIP("sanitizers keep shadows of all memory");
	assert_true(data != MAP_FAILED);
	bed_open(bed, "");
	bed_fill(data, 1 << 20, bed_key("key"), 1, 0);
	KIT_EXPECT(kit_put(bed->store, bed_key("key"), data, 1 << 20), 0, KVK_REASON_NONE);
	KIT_EXPECT(kit_get(bed->store, bed_key("key"), data, 1 << 20, 0), 0, KVK_REASON_NONE);
	memcpy(needle, data + 40960 + 512, sizeof(needle));
	assert_int_equal(munmap(data, 1 << 20), 0);
	count = read_mappings(mappings, sizeof(mappings) / sizeof(mappings[0]));
	for (unsigned i = 0; i < count; i++) {
		const uint8_t *at = (const uint8_t *)(uintptr_t)mappings[i].start;
		uint64_t bytes = mappings[i].end - mappings[i].start;

		if (!mappings[i].readable || bytes > 1 << 30)
			continue;
		/* Not the needle on this stack, nor any copy of a part of it. */
		if (needle >= at && needle < at + bytes)
			continue;
		if (!memmem(at, bytes, needle, sizeof(needle)))
			continue;
		found += mappings[i].dumped;
		kept += !mappings[i].dumped;
	}
	assert_int_equal(found, 0);
	assert_in_range(kept, 1, 100);
}

/* What fills the last page of a payload is zeros, and not what the memory held that it went through: another tenant's bytes. */
static void padding_tells_nothing(void **state)
{
	static const uint64_t lengths[] = { 1, 4095, 5000, 65537, 1048577 };
	struct bed *bed = *state;
	char path[PATH_MAX];

	bed_open(bed, "\"lanes\": 1");
	for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		uint64_t bytes, padded = (lengths[i] + 4095) / 4096 * 4096;
		char key[16];
		uint8_t *file;

		snprintf(key, sizeof(key), "key %u", i);
		assert_int_equal(bed_put(bed->store, "of another", 2000000, i + 1, NULL), 0);
		assert_int_equal(bed_remove(bed->store, "of another", NULL), 0);
		assert_int_equal(bed_put(bed->store, key, lengths[i], 1, NULL), 0);
		kit_path(path, bed->path, bed_key(key));
		file = kit_file_read(path, &bytes);
		assert_int_equal(bytes, padded + 4096);
		for (uint64_t at = lengths[i]; at < padded; at++) {
			if (file[at])
				fail_msg("%" PRIu64 " bytes: byte %" PRIu64 " of the file is %u", lengths[i], at, file[at]);
		}
		free(file);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BED_TESTS_POSIX(padding_tells_nothing),
		BED_TEST(modes_whatever_the_umask, BED_URING, "io_uring, buffered"),
		BED_TEST(modes_whatever_the_umask, BED_THREADS, "threads, buffered"),
		BED_TEST(modes_of_a_group, BED_URING, "io_uring, buffered"),
		BED_TEST(modes_of_a_group, BED_THREADS, "threads, buffered"),
		BED_TEST(roots_that_others_may_write, BED_THREADS, "threads, buffered"),
		BED_TEST(own_folder_that_others_may_write, BED_THREADS, "threads, buffered"),
		BED_TEST(roots_of_strangers, BED_THREADS, "threads, buffered"),
		BED_TEST(own_files_that_are_links, BED_THREADS, "threads, buffered"),
		BED_TEST(own_files_that_would_block, BED_THREADS, "threads, buffered"),
		BED_TEST(secrets_show_nowhere, BED_URING, "io_uring, buffered"),
		BED_TESTS_POSIX(contents_stay_out_of_core_dumps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
