/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What somebody planted in the place of the store's own files and folders, or among its objects, is neither followed, nor
 * waited for, nor written to, and the store opens without it or says why it does not.
 *
 * Method: places times things. A store is made and closed, the thing takes a place's name, and a life is led on what is
 * there: opened, put, loaded, damaged, removed, listed, given a quota, closed. What belongs there has been moved outside,
 * where links lead: it would do, so it is the way that must be refused. Afterwards everything outside is what it was.
 */
#include <ftw.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

#include "unit/store_kit.h"

#define BYTES 9000u
#define LIFE_US_MAX 30000000u
#define LEVELS_TWO ", \"max_objects\": 6000000"
#define OPTIONS "\"deadline_ms\": 3000, \"lanes\": 1, \"namespace\": {\"a\": 1}, \"eviction\": {\"eviction_policy\": \"IsolatedLRU\", " \
		"\"quotas_gb\": {\"t\": 1}}"

/* What must come of it. */
enum verdict {
	REFUSED,                       /* the store does not open, and says why */
	DONE_WITHOUT,                  /* it opens, and what it stored before is served */
	MISSED,                        /* it opens, and what lay behind the place is a miss */
};

static const struct place {
	const char *name;              /* below the root; NULL: found by what follows */
	const char *more;              /* of the specification */
	enum verdict verdict;
	bool folder;                   /* what belongs there is one */
	int above;                     /* how many folders above the object's file */
	const char *beside;            /* a name beside the object's file */
	const char *behind;            /* what follows the digits of the object's name instead of ".kv" */
} places[] = {
	{ ".kvkeep", "", REFUSED, true, 0, NULL, NULL },
	{ ".kvkeep/superblock", "", REFUSED, false, 0, NULL, NULL },
	{ ".kvkeep/locks", "", REFUSED, false, 0, NULL, NULL },
	{ ".kvkeep/account", "", REFUSED, false, 0, NULL, NULL },
	{ ".kvkeep/namespaces", "", REFUSED, true, 0, NULL, NULL },
	{ ".kvkeep/quarantine", "", DONE_WITHOUT, true, 0, NULL, NULL },
	{ ".kvkeep/snapshot", "", DONE_WITHOUT, false, 0, NULL, NULL },
	{ ".kvkeep/quotas", "", DONE_WITHOUT, false, 0, NULL, NULL },
	{ NULL, "", DONE_WITHOUT, false, 0, ".tmp-00112233445566ff-7", NULL },
	{ NULL, "", DONE_WITHOUT, false, 0, NULL, ".77.gone" },
	{ NULL, "", MISSED, true, 1, NULL, NULL },
	{ NULL, LEVELS_TWO, MISSED, true, 1, NULL, NULL },
	{ NULL, LEVELS_TWO, MISSED, true, 2, NULL, NULL },
};
#define PLACES (sizeof(places) / sizeof(places[0]))

struct scene {
	size_t number;                 /* of the case */
	struct bed bed;
	const struct place *place;
	char path[PATH_MAX];           /* of the place */
	char object[PATH_MAX];         /* of the key "victim" */
	char outside[PATH_MAX];        /* a folder beside the store */
	char moved[PATH_MAX + 8];      /* in it: what was in the place */
};

/* ---- what is planted -------------------------------------------------------------------------------------- */

static void plant_link(struct scene *scene)
{
	assert_int_equal(symlink(scene->moved, scene->path), 0);
}

static void plant_dangling_link(struct scene *scene)
{
	char target[PATH_MAX + 8];

	snprintf(target, sizeof(target), "%s/none", scene->outside);
	assert_int_equal(symlink(target, scene->path), 0);
}

static void plant_link_to_itself(struct scene *scene)
{
	assert_int_equal(symlink(strrchr(scene->path, '/') + 1, scene->path), 0);
}

static void plant_fifo(struct scene *scene)
{
	assert_int_equal(mkfifo(scene->path, 0600), 0);
}

static void plant_socket(struct scene *scene)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	assert_in_range(snprintf(address.sun_path, sizeof(address.sun_path), "%s.s", scene->bed.path), 1,
			sizeof(address.sun_path) - 1);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	close(fd);
	assert_int_equal(rename(address.sun_path, scene->path), 0);
}

static void plant_device(struct scene *scene)
{
	if (mknod(scene->path, S_IFCHR | 0600, makedev(1, 5)))
		SKIP("device nodes: %s", strerror(errno));
}

/* A folder with something in it for a file, a file for a folder. */
static void plant_other_kind(struct scene *scene)
{
	char inner[PATH_MAX + 8];

	if (scene->place->folder) {
		kit_file_write(scene->path, "no folder", 9);
		return;
	}
	assert_int_equal(mkdir(scene->path, 0700), 0);
	snprintf(inner, sizeof(inner), "%s/inner", scene->path);
	kit_file_write(inner, "x", 1);
}

static const struct thing {
	const char *name;
	void (*plant)(struct scene *scene);
} things[] = {
	{ "a link to what belongs there", plant_link },
	{ "a dangling link", plant_dangling_link },
	{ "a link to itself", plant_link_to_itself },
	{ "a FIFO", plant_fifo },
	{ "a socket", plant_socket },
	{ "/dev/zero", plant_device },
	{ "a thing of another kind", plant_other_kind },
};
#define THINGS (sizeof(things) / sizeof(things[0]))

/* ---- what is outside --------------------------------------------------------------------------------------- */

static uint64_t outside_sum;
static unsigned outside_count;

static int add_up(const char *path, const struct stat *stat, int kind, struct FTW *ftw)
{
	uint64_t sum = stat->st_mode, bytes = 0;
	uint8_t *data;

	(void)kind;
	for (const char *at = path + ftw->base; *at; at++)
		sum = kit_mix(sum ^ (uint8_t)*at);
	if (S_ISREG(stat->st_mode)) {
		data = kit_file_read(path, &bytes);
		for (uint64_t i = 0; i < bytes; i++)
			sum = kit_mix(sum ^ data[i]);
		free(data);
	}
	outside_sum += kit_mix(sum ^ bytes);
	outside_count++;
	return 0;
}

static uint64_t sum_of_outside(const struct scene *scene)
{
	outside_sum = outside_count = 0;
	assert_int_equal(nftw(scene->outside, add_up, 16, FTW_PHYS), 0);
	return outside_sum;
}

static int remove_one(const char *path, const struct stat *stat, int kind, struct FTW *ftw)
{
	(void)stat, (void)kind, (void)ftw;
	return remove(path);
}

/* ---- a life on it ------------------------------------------------------------------------------------------- */

static int open_store(struct scene *scene, struct kvk_error *error)
{
	char more[600];

	snprintf(more, sizeof(more), "params:\"max_capacity_gb\": 0.01; " OPTIONS "%s", scene->place->more);
	return bed_try_open(&scene->bed, more, error);
}

/* What the requests answer is judged by the oracle; that each of them answers is the clock's business. */
static struct kvk_result live(struct scene *scene)
{
	struct kvk_store *store = scene->bed.store;
	struct kvk_result result;

	result = kit_load(store, "victim", BYTES, 1);
	kit_lookup(store, "victim", KVK_LOOKUP_PIN);
	kit_store(store, "new", BYTES, 1);
	kit_load(store, "new", BYTES, 1);
	kit_remove(store, "new");
	/* One that is moved to quarantine. */
	kit_load(store, "damaged", BYTES, 1);
	bed_list(store);
	bed_usage(store);
	kvk_store_set_quota(store, "t", 1, 1 << 20);
	return result;
}

static void scene_setup(struct scene *scene, const struct place *place)
{
	char path[PATH_MAX];

	scene->place = place;
	bed_begin(&scene->bed, BED_THREADS);
	if (open_store(scene, NULL))
		fail_msg("a store cannot be made");
	kit_wait_counted(scene->bed.store);
	KIT_EXPECT(kit_store(scene->bed.store, "victim", BYTES, 1), 0, KVK_REASON_NONE);
	KIT_EXPECT(kit_store(scene->bed.store, "damaged", BYTES, 1), 0, KVK_REASON_NONE);
	assert_int_equal(kvk_store_set_quota(scene->bed.store, "t", 1, 1 << 20), 0);
	assert_int_equal(bed_path_of(&scene->bed, "victim", scene->object, sizeof(scene->object)), 0);
	assert_int_equal(bed_path_of(&scene->bed, "damaged", path, sizeof(path)), 0);
	assert_int_equal(bed_close(&scene->bed), 0);
	assert_int_equal(truncate(path, 5000), 0);

	if (place->name)
		snprintf(scene->path, sizeof(scene->path), "%s/%s", scene->bed.path, place->name);
	else
		snprintf(scene->path, sizeof(scene->path), "%s", scene->object);
	for (int i = 0; i < place->above; i++)
		*strrchr(scene->path, '/') = 0;
	if (place->beside)
		snprintf(strrchr(scene->path, '/') + 1, 64, "%s", place->beside);
	if (place->behind)
		snprintf(strrchr(scene->path, '.'), 16, "%s", place->behind);
	snprintf(scene->outside, sizeof(scene->outside), "%s.outside", scene->bed.path);
	snprintf(scene->moved, sizeof(scene->moved), "%.4000s/moved", scene->outside);
	assert_int_equal(mkdir(scene->outside, 0700), 0);
	if (place->beside || place->behind) {
		kit_file_write(scene->moved, "what a put left behind", 22);
	} else if (rename(scene->path, scene->moved)) {
		/* There is a snapshot only if the keeper was through with its scan before the close. */
		assert_int_equal(errno, ENOENT);
		assert_string_equal(place->name, ".kvkeep/snapshot");
		kit_file_write(scene->moved, "no snapshot", 11);
	}
}

/* Opens what it finds, and lives on it. */
static void judge(struct scene *scene, const char *thing)
{
	struct kvk_error error = { .struct_bytes = sizeof(error) };
	struct kvk_result loaded;
	enum verdict verdict = scene->place->verdict;
	const char *name = scene->path + strlen(scene->bed.path) + 1;
	int err = open_store(scene, &error);

	if (verdict == REFUSED) {
		if (!err || !error.text[0])
			fail_msg("%s in the place of %s: the open says %d, \"%s\"", thing, name, err, error.text);
		return;
	}
	if (err)
		fail_msg("%s in the place of %s: the open says %d, \"%s\"", thing, name, err, error.text);
	loaded = live(scene);
	/* The keeper has met it, too. */
	if (verdict == DONE_WITHOUT)
		kit_wait_counted(scene->bed.store);
	if (verdict == DONE_WITHOUT ? loaded.status != 0 : loaded.status >= 0)
		fail_msg("%s in the place of %s: the load says %d, \"%s\"", thing, name, loaded.status,
			 kvk_reason_text(loaded.reason));
	assert_int_equal(bed_close(&scene->bed), 0);
}

static void try_it(struct scene *scene, const struct thing *thing)
{
	struct kvk_error error = { .struct_bytes = sizeof(error) };
	struct stat planted, after;
	uint64_t sum, from_us;
	unsigned count;

	thing->plant(scene);
	assert_int_equal(lstat(scene->path, &planted), 0);
	sum = sum_of_outside(scene);
	count = outside_count;
	from_us = kit_now_us();
	judge(scene, thing->name);
	if (kit_now_us() - from_us > LIFE_US_MAX)
		fail_msg("%s: it was waited for", thing->name);
	/* Nothing was written, made or removed through it, and it was not taken for what belongs there. */
	if (sum_of_outside(scene) != sum || outside_count != count)
		fail_msg("%s in the place of %s: what lies outside has changed", thing->name, scene->path);
	/* What the store replaces by a rename is a file of its own now; nothing else has changed. */
	if (lstat(scene->path, &after) || (after.st_ino != planted.st_ino && !S_ISREG(after.st_mode)))
		fail_msg("%s in the place of %s: it is neither what it was nor a file", thing->name, scene->path);
	if (scene->place->verdict == REFUSED)
		assert_int_equal(after.st_ino, planted.st_ino);

	/* Taken away, and put back what belongs there, all is as before. */
	assert_int_equal(nftw(scene->path, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
	assert_int_equal(rename(scene->moved, scene->path), 0);
	if (open_store(scene, &error))
		fail_msg("%s in the place of %s, taken away: %s", thing->name, scene->path, error.text);
	KIT_EXPECT(kit_load(scene->bed.store, "victim", BYTES, 1), 0, KVK_REASON_NONE);
	assert_int_equal(bed_close(&scene->bed), 0);
}

/* ---- the table ------------------------------------------------------------------------------------------------ */

static void planted(void **state)
{
	struct scene *scene = *state;
	size_t number = scene->number;

	scene_setup(scene, &places[number / THINGS]);
	try_it(scene, &things[number % THINGS]);
}

static int setup(void **state)
{
	struct scene *scene = calloc(1, sizeof(*scene));

	if (!scene)
		return -1;
	scene->number = (size_t)(uintptr_t)*state;
	*state = scene;
	return 0;
}

static int teardown(void **state)
{
	struct scene *scene = *state;
	int err = bed_end(&scene->bed);

	if (scene->outside[0])
		nftw(scene->outside, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(scene);
	return err;
}

int main(void)
{
	static struct CMUnitTest tests[PLACES * THINGS];
	static char names[PLACES * THINGS][120];

	for (size_t i = 0; i < PLACES * THINGS; i++) {
		const struct place *place = &places[i / THINGS];
		const char *what = place->name ? place->name : place->beside ? place->beside : place->behind ? place->behind :
				   place->above == 2 ? "the first of two folders" :
				   place->more[0] ? "the second of two folders" : "a folder of objects";

		snprintf(names[i], sizeof(names[i]), "%s in the place of %s", things[i % THINGS].name, what);
		tests[i] = (struct CMUnitTest){ names[i], planted, setup, teardown, (void *)(uintptr_t)i };
	}
	kit_in_memory();
	cmocka_set_test_filter(getenv("KVK_ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
