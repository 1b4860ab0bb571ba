/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What somebody planted in a store's directory is neither read, nor followed, nor waited for, nor destroyed.
 *
 * Method: a table of things that may lie where an object, a folder or one of the store's own files is expected, each tried
 * with every request. Behind the links lie objects that would verify: it is the way to them that must be refused.
 */
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

#include "unit/store_kit.h"

#define BYTES 9000u
#define STRANGER 12345

/* The bed's store, and beside it a folder with what attackers would have us read. */
struct scene {
	struct bed *bed;
	char path[PATH_MAX];           /* of the object "victim" */
	char folder[PATH_MAX];         /* of that */
	char outside[PATH_MAX];        /* a folder */
	char treasure[PATH_MAX];       /* in it: a whole and valid object "victim" */
};

static void scene_setup(struct scene *scene, struct bed *bed)
{
	*scene = (struct scene){ .bed = bed };
	kit_path(scene->path, bed->path, bed_key("victim"));
	snprintf(scene->folder, sizeof(scene->folder), "%.*s", (int)(strrchr(scene->path, '/') - scene->path),
		 scene->path);
	snprintf(scene->outside, sizeof(scene->outside), "%s/.outside", bed->path);
	snprintf(scene->treasure, sizeof(scene->treasure), "%.3900s/%.100s", scene->outside,
		 strrchr(scene->path, '/') + 1);
	bed_open(bed, "");
	KIT_EXPECT(kit_store(bed->store, "victim", BYTES, 1), 0, KVK_REASON_NONE);
	assert_int_equal(mkdir(scene->outside, 0700), 0);
	assert_int_equal(rename(scene->path, scene->treasure), 0);
	bed_close_forgetting(bed);
	bed_open(bed, "");
}

/* ---- in the place of an object ----------------------------------------------------------------------- */

static void plant_link(struct scene *scene)
{
	assert_int_equal(symlink(scene->treasure, scene->path), 0);
}

static void plant_relative_link(struct scene *scene)
{
	char target[PATH_MAX];

	snprintf(target, sizeof(target), "../.outside/%.100s", strrchr(scene->path, '/') + 1);
	assert_int_equal(symlink(target, scene->path), 0);
}

static void plant_dangling_link(struct scene *scene)
{
	assert_int_equal(symlink("nowhere", scene->path), 0);
}

static void plant_link_to_itself(struct scene *scene)
{
	assert_int_equal(symlink(strrchr(scene->path, '/') + 1, scene->path), 0);
}

static void plant_magic_link(struct scene *scene)
{
	assert_int_equal(symlink("/proc/self/fd/0", scene->path), 0);
}

static void plant_fifo(struct scene *scene)
{
	assert_int_equal(mkfifo(scene->path, 0600), 0);
}

static void plant_folder(struct scene *scene)
{
	assert_int_equal(mkdir(scene->path, 0700), 0);
}

static void plant_full_folder(struct scene *scene)
{
	char inner[PATH_MAX + 8];

	plant_folder(scene);
	snprintf(inner, sizeof(inner), "%s/inner", scene->path);
	assert_int_equal(mkdir(inner, 0700), 0);
}

static void plant_socket(struct scene *scene)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	assert_in_range(snprintf(address.sun_path, sizeof(address.sun_path), "%s/s", scene->outside), 1,
			sizeof(address.sun_path) - 1);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	close(fd);
	assert_int_equal(rename(address.sun_path, scene->path), 0);
}

static void plant_device(struct scene *scene, mode_t kind, dev_t device)
{
	if (mknod(scene->path, kind | 0600, device))
		SKIP("device nodes: %s", strerror(errno));
}

static void plant_zero_device(struct scene *scene)
{
	plant_device(scene, S_IFCHR, makedev(1, 5));
}

static void plant_terminal(struct scene *scene)
{
	plant_device(scene, S_IFCHR, makedev(5, 0));
}

static void plant_device_of_nobody(struct scene *scene)
{
	plant_device(scene, S_IFCHR, makedev(60, 77));
}

static void plant_disk(struct scene *scene)
{
	plant_device(scene, S_IFBLK, makedev(7, 0));
}

static void plant_strangers_file(struct scene *scene)
{
	assert_int_equal(link(scene->treasure, scene->path), 0);
	if (chown(scene->path, STRANGER, STRANGER))
		SKIP("another owner: %s", strerror(errno));
}

/* ---- in the place of its folder ------------------------------------------------------------------------ */

static void plant_folder_link(struct scene *scene)
{
	assert_int_equal(rmdir(scene->folder), 0);
	assert_int_equal(symlink(scene->outside, scene->folder), 0);
}

static void plant_relative_folder_link(struct scene *scene)
{
	assert_int_equal(rmdir(scene->folder), 0);
	assert_int_equal(symlink(".outside", scene->folder), 0);
}

static void plant_file_as_folder(struct scene *scene)
{
	assert_int_equal(rmdir(scene->folder), 0);
	kit_file_write(scene->folder, "no folder", 9);
}

static void plant_fifo_as_folder(struct scene *scene)
{
	assert_int_equal(rmdir(scene->folder), 0);
	assert_int_equal(mkfifo(scene->folder, 0600), 0);
}

static const struct plant {
	const char *name;
	void (*plant)(struct scene *scene);
	bool folder;                   /* in the folder's place */
} plants[] = {
	{ "a link to an object outside", plant_link, false },
	{ "a relative link out of the folder", plant_relative_link, false },
	{ "a dangling link", plant_dangling_link, false },
	{ "a link to itself", plant_link_to_itself, false },
	{ "a link into /proc", plant_magic_link, false },
	{ "a FIFO", plant_fifo, false },
	{ "a folder", plant_folder, false },
	{ "a folder with something in it", plant_full_folder, false },
	{ "a socket", plant_socket, false },
	{ "/dev/zero", plant_zero_device, false },
	{ "/dev/tty", plant_terminal, false },
	{ "a device without a driver", plant_device_of_nobody, false },
	{ "a block device", plant_disk, false },
	{ "a stranger's whole object", plant_strangers_file, false },
	{ "a folder that is a link outside", plant_folder_link, true },
	{ "a folder that is a relative link", plant_relative_folder_link, true },
	{ "a folder that is a file", plant_file_as_folder, true },
	{ "a folder that is a FIFO", plant_fifo_as_folder, true },
};

/* ---- every request ------------------------------------------------------------------------------------- */

struct attempt {
	const char *name;
	int32_t status;
	uint32_t reason;
};

static struct attempt attempts[16];
static unsigned attempt_count;

static void note(const char *name, struct kvk_result result)
{
	attempts[attempt_count++] = (struct attempt){ name, result.status, result.reason };
}

static struct kvk_result get_with(struct kvk_store *store, struct kvk_key key, uint32_t flags)
{
	static uint8_t data[BYTES];
	struct kvk_result result;

	memset(data, 0x11, sizeof(data));
	result = kit_get(store, key, data, sizeof(data), flags);
	if (result.status && ((data[0] != 0x11 && data[0] != 0xdb) || memcmp(data, data + 1, sizeof(data) - 1)))
		bed_wrong("a refused get left bytes in the caller's memory");
	return result;
}

static void try_all(struct scene *scene)
{
	struct kvk_store *store = scene->bed->store;
	const char *name = scene->path + strlen(scene->bed->path) + 1;
	uint8_t digest[KVK_DIGEST_BYTES], none[KVK_DIGEST_BYTES] = { 0 }, meta[8];
	struct kvk_key_item item = { .struct_bytes = sizeof(item), .flags = KVK_LOOKUP_PIN, .key = bed_key("victim"),
				     .meta = meta, .meta_bytes = sizeof(meta) };
	struct kvk_result result = { .struct_bytes = sizeof(result) };

	attempt_count = 0;
	assert_int_equal(kvk_key_digest(digest, none, "victim", 6), 0);
	note("get", get_with(store, bed_key("victim"), 0));
	note("get with KVK_GET_PEEK", get_with(store, bed_key("victim"), KVK_GET_PEEK));
	note("get with KVK_GET_VERIFY", get_with(store, bed_key("victim"), KVK_GET_VERIFY));
	note("get by digest", get_with(store, (struct kvk_key){ digest, sizeof(digest) }, KVK_KEY_IS_DIGEST));
	note("get by name", get_with(store, bed_key(name), KVK_KEY_IS_NAME | KVK_GET_PEEK));
	note("lookup", kit_lookup(store, "victim", 0));
	assert_int_equal(kvk_store_lookup_wait(store, &item, 1, 0, &result), 0);
	note("lookup with a pin", result);
	note("put", kit_store(store, "victim", BYTES, 1));
	note("remove", kit_remove(store, "victim"));
}

static bool is_fine(const struct plant *plant, const struct attempt *attempt)
{
	if (!strcmp(attempt->name, "put"))
		return attempt->status < 0 && (plant->folder || (attempt->status == -EEXIST &&
								 attempt->reason == KVK_REASON_COLLISION));
	if (plant->folder && !strcmp(attempt->name, "remove"))
		return attempt->status < 0;
	return attempt->status == -ENOENT && attempt->reason == KVK_REASON_FOREIGN;
}

static void try_plant(struct scene *scene, const struct plant *plant)
{
	const char *place = plant->folder ? scene->folder : scene->path;
	struct stat before, after, treasure_before, treasure_after;
	uint64_t from_us = kit_now_us();

	plant->plant(scene);
	assert_int_equal(lstat(place, &before), 0);
	assert_int_equal(stat(scene->treasure, &treasure_before), 0);
	try_all(scene);
	for (unsigned i = 0; i < attempt_count; i++) {
		if (!is_fine(plant, &attempts[i]))
			fail_msg("%s: %s: status %d, reason \"%s\"", plant->name, attempts[i].name, attempts[i].status,
				 kvk_reason_text(attempts[i].reason));
	}
	bed_list(scene->bed->store);
	if (kit_now_us() - from_us > 20000000)
		fail_msg("%s: requests waited for it", plant->name);
	/* It lies where it lay, and so does what it leads to. */
	if (lstat(place, &after) || after.st_ino != before.st_ino || after.st_mode != before.st_mode)
		fail_msg("%s: is not what it was", plant->name);
	assert_int_equal(stat(scene->treasure, &treasure_after), 0);
	assert_int_equal(treasure_after.st_ino, treasure_before.st_ino);
	assert_int_equal(treasure_after.st_size, treasure_before.st_size);
	/* What was there before is charged until its folder is looked at; the plant is not. */
	assert_in_range(bed_usage(scene->bed->store).used_bytes, 0, BYTES + 8192);
	assert_int_equal(bed_usage(scene->bed->store).objects, 0);
	assert_int_equal(bed_usage(scene->bed->store).pinned_objects, 0);
	assert_int_equal(bed_stats(scene->bed->store).quarantined, 0);
}

static void try_index(void **state, size_t index)
{
	struct scene scene;

	scene_setup(&scene, *state);
	try_plant(&scene, &plants[index]);
}

#define PLANTED(number) static void planted_##number(void **state) { try_index(state, number); }
PLANTED(0) PLANTED(1) PLANTED(2) PLANTED(3) PLANTED(4) PLANTED(5) PLANTED(6) PLANTED(7) PLANTED(8)
PLANTED(9) PLANTED(10) PLANTED(11) PLANTED(12) PLANTED(13) PLANTED(14) PLANTED(15) PLANTED(16) PLANTED(17)
_Static_assert(sizeof(plants) / sizeof(plants[0]) == 18, "each plant is a test");

/* ---- links that are honest ------------------------------------------------------------------------------ */

/* A backup made by links: served, and counted. */
static void hard_link_of_the_object(void **state)
{
	struct scene scene;

	scene_setup(&scene, *state);
	assert_int_equal(link(scene.treasure, scene.path), 0);
	KIT_EXPECT(kit_load(scene.bed->store, "victim", BYTES, 1), 0, KVK_REASON_NONE);
	assert_in_range(bed_stats(scene.bed->store).links, 1, 9);
	KIT_EXPECT(kit_remove(scene.bed->store, "victim"), 0, KVK_REASON_NONE);
	assert_int_equal(access(scene.treasure, F_OK), 0);
}

static void hard_link_of_another_object(void **state)
{
	struct scene scene;
	char path[PATH_MAX];

	scene_setup(&scene, *state);
	KIT_EXPECT(kit_store(scene.bed->store, "other", BYTES, 1), 0, KVK_REASON_NONE);
	kit_path(path, scene.bed->path, bed_key("other"));
	assert_int_equal(link(path, scene.path), 0);
	/* The link goes, the object stays, and nobody can keep a key from being stored. */
	KIT_EXPECT(kit_load(scene.bed->store, "victim", BYTES, 1), -EBADMSG, KVK_REASON_DAMAGED);
	assert_int_equal(access(scene.path, F_OK), -1);
	KIT_EXPECT(kit_load(scene.bed->store, "other", BYTES, 1), 0, KVK_REASON_NONE);
	KIT_EXPECT(kit_store(scene.bed->store, "victim", BYTES, 2), 0, KVK_REASON_NONE);
	KIT_EXPECT(kit_load(scene.bed->store, "victim", BYTES, 2), 0, KVK_REASON_NONE);
	KIT_EXPECT(kit_load(scene.bed->store, "other", BYTES, 1), 0, KVK_REASON_NONE);
	assert_int_equal(bed_stats(scene.bed->store).quarantined, 1);
}

/* ---- what the sweep meets ------------------------------------------------------------------------------- */

static void sweep_follows_nothing(void **state)
{
	static const char *const names[] = { ".tmp-00112233445566ff-7", ".tmp-00112233445566ff-8" };
	struct scene scene;
	char at[2][PATH_MAX + 64], gone[2][PATH_MAX + 64];
	uint64_t until_us = kit_now_us() + 20000000;
	struct stat link;

	scene_setup(&scene, *state);
	for (int i = 0; i < 2; i++) {
		snprintf(at[i], sizeof(at[i]), "%s/%s", scene.folder, names[i]);
		snprintf(gone[i], sizeof(gone[i]), "%.*s.7%d.gone", (int)strlen(scene.path) - 3, scene.path, i);
	}
	assert_int_equal(symlink(scene.treasure, at[0]), 0);
	assert_int_equal(mkfifo(at[1], 0600), 0);
	assert_int_equal(symlink(scene.treasure, gone[0]), 0);
	kit_file_write(gone[1], "x", 1);
	bed_reopen(scene.bed, "");
	while (!access(gone[1], F_OK) && kit_now_us() < until_us)
		usleep(10000);
	/* A file of ours that looks removed goes; a link is nobody's of ours, and what it leads to stays. */
	assert_int_equal(access(gone[1], F_OK), -1);
	assert_int_equal(lstat(gone[0], &link), 0);
	assert_int_equal(access(scene.treasure, F_OK), 0);
	KIT_EXPECT(kit_store(scene.bed->store, "victim", BYTES, 2), 0, KVK_REASON_NONE);
	KIT_EXPECT(kit_load(scene.bed->store, "victim", BYTES, 2), 0, KVK_REASON_NONE);
}

/* Damaged objects are not carried out of the store through a link. */
static void quarantine_that_is_a_link(void **state)
{
	struct scene scene;
	char quarantine[PATH_MAX], stolen[PATH_MAX + 8];

	scene_setup(&scene, *state);
	snprintf(quarantine, sizeof(quarantine), "%s/.kvkeep/quarantine", scene.bed->path);
	snprintf(stolen, sizeof(stolen), "%.4000s/stolen", scene.outside);
	assert_int_equal(mkdir(stolen, 0700), 0);
	assert_int_equal(rmdir(quarantine), 0);
	assert_int_equal(symlink(stolen, quarantine), 0);
	kit_file_write(scene.path, "damaged", 7);
	KIT_EXPECT(kit_load(scene.bed->store, "victim", BYTES, 1), -EBADMSG, KVK_REASON_DAMAGED);
	assert_int_equal(access(scene.path, F_OK), 0);
	assert_int_equal(rmdir(stolen), 0);
}

/* ---- names -------------------------------------------------------------------------------------------- */

static void names_that_lead_out(void **state)
{
	static const char *const names[] = {
		"../etc/passwd", "..", ".", "/", "//", "/etc/passwd", "ab/../../x", ".kvkeep/superblock", ".kvkeep", ".kvkeep/locks",
		"ab/./x", "ab//x", "./x", "x/..", ".outside/../.outside", " ", "ab", "ab/", "\xff\xfe", "ab/\n.kv",
	};
	struct scene scene;
	char name[400];

	scene_setup(&scene, *state);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct kvk_result result = get_with(scene.bed->store, bed_key(names[i]), KVK_KEY_IS_NAME | KVK_GET_PEEK);

		if (result.status >= 0)
			fail_msg("\"%s\" was read", names[i]);
	}
	/* A whole object under a name that is not its own. */
	snprintf(name, sizeof(name), ".outside/%.300s", strrchr(scene.treasure, '/') + 1);
	KIT_EXPECT(get_with(scene.bed->store, bed_key(name), KVK_KEY_IS_NAME | KVK_GET_PEEK), -EBADMSG,
		   KVK_REASON_DAMAGED);
	assert_int_equal(bed_stats(scene.bed->store).quarantined, 0);
}

static void names_that_are_malformed(void **state)
{
	struct bed *bed = *state;
	char longest[600];
	struct kvk_get_item item = { .struct_bytes = sizeof(item), .flags = KVK_KEY_IS_NAME | KVK_GET_PEEK };

	bed_open(bed, "");
	memset(longest, 'a', sizeof(longest));
	item.key = (struct kvk_key){ "ab\0cd", 5 };
	assert_int_equal(kvk_store_get(bed->store, &item, 1, 0), -EINVAL);
	item.key = (struct kvk_key){ longest, KVK_NAME_BYTES_MAX };
	assert_int_equal(kvk_store_get(bed->store, &item, 1, 0), -EINVAL);
	item.key = (struct kvk_key){ longest, 0 };
	assert_int_equal(kvk_store_get(bed->store, &item, 1, 0), -EINVAL);
	/* A name that would move things aside. */
	item.key = (struct kvk_key){ longest, 10 };
	item.flags = KVK_KEY_IS_NAME;
	assert_int_equal(kvk_store_get(bed->store, &item, 1, 0), -EINVAL);
	assert_int_equal(get_with(bed->store, (struct kvk_key){ longest, 400 }, KVK_KEY_IS_NAME | KVK_GET_PEEK).status < 0, 1);
}

/* Keys are bytes: none of them is ever part of a path. */
static void keys_of_any_bytes(void **state)
{
	static const struct { const char *bytes; uint32_t count; } keys[] = {
		{ "../../etc/passwd", 16 }, { "/etc/passwd", 11 }, { "\0", 1 }, { "a\0b", 3 }, { "..", 2 }, { ".", 1 }, { "/", 1 },
		{ "\n", 1 }, { "\xff\xff", 2 }, { "%s%n", 4 }, { ".kvkeep/superblock", 18 }, { "'; rm -rf /; '", 14 },
	};
	static uint8_t data[1500], back[1500];
	static uint8_t longest[KVK_KEY_BYTES_MAX + 1];
	struct bed *bed = *state;
	uint64_t objects, others;

	bed_open(bed, "");
	for (size_t i = 0; i <= sizeof(keys) / sizeof(keys[0]); i++) {
		struct kvk_key key = { longest, KVK_KEY_BYTES_MAX };

		if (i < sizeof(keys) / sizeof(keys[0]))
			key = (struct kvk_key){ keys[i].bytes, keys[i].count };
		bed_fill(data, sizeof(data), key, 1, 0);
		KIT_EXPECT(kit_put(bed->store, key, data, sizeof(data)), 0, KVK_REASON_NONE);
		KIT_EXPECT(kit_get(bed->store, key, back, sizeof(back), 0), 0, KVK_REASON_NONE);
		assert_int_equal(bed_judge(back, sizeof(back), key, 1, 0), BED_RIGHT);
	}
	bed_files(bed, &objects, &others);
	assert_int_equal(objects, sizeof(keys) / sizeof(keys[0]) + 1);
	assert_int_equal(others, 0);
	assert_int_equal(bed_list(bed->store).objects, objects);
}

#define PLANTED_TESTS(number) BED_TEST(planted_##number, BED_URING, "io_uring, buffered"), \
			      BED_TEST(planted_##number, BED_THREADS_DIRECT, "threads, direct")

int main(void)
{
	const struct CMUnitTest tests[] = {
		PLANTED_TESTS(0), PLANTED_TESTS(1), PLANTED_TESTS(2), PLANTED_TESTS(3), PLANTED_TESTS(4), PLANTED_TESTS(5),
		PLANTED_TESTS(6), PLANTED_TESTS(7), PLANTED_TESTS(8), PLANTED_TESTS(9), PLANTED_TESTS(10), PLANTED_TESTS(11),
		PLANTED_TESTS(12), PLANTED_TESTS(13), PLANTED_TESTS(14), PLANTED_TESTS(15), PLANTED_TESTS(16), PLANTED_TESTS(17),
		BED_TESTS_POSIX(hard_link_of_the_object),
		BED_TESTS_POSIX(hard_link_of_another_object),
		BED_TEST(sweep_follows_nothing, BED_URING, "io_uring, buffered"),
		BED_TESTS_POSIX(quarantine_that_is_a_link),
		BED_TESTS_POSIX(names_that_lead_out),
		BED_TEST(names_that_are_malformed, BED_URING, "io_uring, buffered"),
		BED_TESTS_POSIX(keys_of_any_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
