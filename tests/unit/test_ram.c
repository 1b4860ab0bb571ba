/* SPDX-License-Identifier: Apache-2.0 */
/* The names of a medium in memory against what a POSIX file system shows through the same interface. */
#include "ram_bed.h"

/* ---- names ------------------------------------------------------------------------------------------- */

static void caps_say_what_memory_can_do(void **state)
{
	struct kvk_backend *backend = open_ram(NULL);
	const struct kvk_backend_caps *caps = &backend->caps;

	assert_ptr_equal(backend->ops, &kvk_backend_ram);
	assert_null(backend->ops->ring);
	assert_string_equal(caps->medium, "ram");
	assert_string_equal(caps->publish, "in memory");
	assert_int_equal(caps->align_memory_bytes, 1);
	assert_int_equal(caps->align_offset_bytes, 1);
	assert_false(caps->direct);
	assert_true(caps->nowait && caps->exchange && caps->birth_time && caps->local);
	assert_int_equal(backend->ops->hold(backend, true), 0);
	assert_int_equal(backend->ops->hold(backend, false), 0);
	assert_int_equal(backend->ops->sweep(backend, "x.tmp"), -ENOENT);
	backend->ops->close(backend);
	kvk_backend_ram.close(NULL);
}

static void a_file_is_seen_once_it_is_published(void **state)
{
	struct kvk_backend *backend = open_ram(NULL);
	struct kvk_place *place = NULL;
	struct kvk_place *second = NULL;
	struct kvk_place *none = NULL;
	struct kvk_stat stat;
	char text[] = "hello";

	assert_int_equal(OPEN(backend, &none, "ab/k.kv"), -ENOENT);
	assert_null(none);
	assert_int_equal(CREATE(backend, &place, "ab/k.kv"), 0);
	assert_int_equal(CREATE(backend, &second, "ab/k.kv"), 0);
	assert_true(has_name(backend, "", "ab", 2));
	assert_false(has_name(backend, "ab", "k.kv", 0));
	assert_int_equal(OPEN(backend, &none, "ab/k.kv"), -ENOENT);
	assert_int_equal(STAT(backend, &place, &stat), 0);
	assert_int_equal(stat.links, 0);
	assert_int_equal(WRITE(backend, place, text, 5, 0), 5);
	assert_int_equal(PUBLISH(backend, &place, "ab/k.kv"), 0);
	assert_int_equal(PUBLISH(backend, &second, "ab/k.kv"), -EEXIST);
	assert_int_equal(CLOSE(backend, &second), 0);
	assert_int_equal(STAT(backend, &place, &stat), 0);
	assert_int_equal(stat.links, 1);
	assert_int_equal(stat.bytes, 5);
	assert_int_equal(stat.owner, geteuid());
	assert_true(stat.regular && stat.owned);
	assert_int_not_equal(stat.inode, 0);
	assert_int_not_equal(stat.born_ns, 0);
	assert_true(stat.modified_ns >= stat.born_ns);
	assert_int_equal(CLOSE(backend, &place), 0);
	check_text(backend, "ab/k.kv", "hello");
	assert_true(has_name(backend, "ab", "k.kv", 1));
	backend->ops->close(backend);
}

static void an_open_place_survives_its_name(void **state)
{
	struct kvk_backend *backend = open_ram("1048576");
	struct kvk_place *place = NULL;
	struct kvk_stat stat;
	uint64_t before = free_bytes(backend);
	char got[8] = { 0 };

	make(backend, "k", "old");
	assert_int_equal(free_bytes(backend), before - 4096);
	assert_int_equal(OPEN(backend, &place, "k"), 0);
	assert_int_equal(UNLINK(backend, "k"), 0);
	assert_int_equal(UNLINK(backend, "k"), -ENOENT);
	make(backend, "k", "newer");
	assert_int_equal(STAT(backend, &place, &stat), 0);
	assert_int_equal(stat.links, 0);
	assert_int_equal(READ(backend, place, got, sizeof(got), 0), 3);
	assert_string_equal(got, "old");
	assert_int_equal(PUBLISH(backend, &place, "again"), -ENOENT);
	assert_int_equal(free_bytes(backend), before - 2 * 4096);
	assert_int_equal(CLOSE(backend, &place), 0);
	assert_int_equal(free_bytes(backend), before - 4096);
	check_text(backend, "k", "newer");
	backend->ops->close(backend);
}

static void move_and_exchange_replace_nothing(void **state)
{
	struct kvk_backend *backend = open_ram(NULL);
	struct kvk_stat a;
	struct kvk_stat b;
	struct kvk_stat now;

	make(backend, "d/a", "A");
	make(backend, "d/b", "B");
	assert_int_equal(STAT_NAME(backend, "d/a", &a), 0);
	assert_int_equal(STAT_NAME(backend, "d/b", &b), 0);
	assert_int_not_equal(a.inode, b.inode);
	assert_int_equal(MOVE(backend, "d/a", "d/b"), -EEXIST);
	assert_int_equal(MOVE(backend, "d/none", "d/c"), -ENOENT);
	assert_int_equal(MOVE(backend, "d/a", "none/a"), -ENOENT);
	assert_int_equal(MOVE(backend, "d/a", ".kvkeep/quarantine/a"), 0);
	assert_int_equal(STAT_NAME(backend, "d/a", &now), -ENOENT);
	assert_int_equal(STAT_NAME(backend, ".kvkeep/quarantine/a", &now), 0);
	assert_int_equal(now.inode, a.inode);
	assert_int_equal(now.links, 1);
	assert_int_equal(EXCHANGE(backend, ".kvkeep/quarantine/a", "d/b"), 0);
	check_text(backend, "d/b", "A");
	check_text(backend, ".kvkeep/quarantine/a", "B");
	assert_int_equal(EXCHANGE(backend, "d/b", "d/none"), -ENOENT);
	assert_int_equal(EXCHANGE(backend, "d/none", "d/b"), -ENOENT);
	check_text(backend, "d/b", "A");
	backend->ops->close(backend);
}

static void two_names_of_one_file_are_counted(void **state)
{
	struct kvk_backend *backend = open_ram(NULL);
	struct kvk_place *place = NULL;
	struct kvk_stat stat;

	make(backend, "a", "A");
	assert_int_equal(OPEN(backend, &place, "a"), 0);
	assert_int_equal(PUBLISH(backend, &place, "b"), 0);
	assert_int_equal(STAT(backend, &place, &stat), 0);
	assert_int_equal(stat.links, 2);
	assert_int_equal(UNLINK(backend, "a"), 0);
	assert_int_equal(STAT(backend, &place, &stat), 0);
	assert_int_equal(stat.links, 1);
	CLOSE(backend, &place);
	check_text(backend, "b", "A");
	backend->ops->close(backend);
}

static void names_that_are_no_objects_are_refused(void **state)
{
	char long_name[300];
	const struct {
		const char *name;
		int open_err;
		int create_err;
	} rows[] = {
		{ "", -ENOENT, -ENOENT },           { "d", -EISDIR, 0 },
		{ "d/", -ENOENT, -ENOENT },         { "d//f", -ENOENT, -ENOENT },
		{ "/etc/passwd", -EXDEV, -EXDEV },  { "../x", -EXDEV, -EXDEV },
		{ "d/../../x", -EXDEV, -EXDEV },    { "./d/f", -EINVAL, -EINVAL },
		{ "d/f/x", -ENOTDIR, -ENOTDIR },    { "none/x", -ENOENT, 0 },
		{ long_name, -ENAMETOOLONG, -ENAMETOOLONG },
	};
	struct kvk_backend *backend = open_ram(NULL);
	struct kvk_names names = { 0 };

	memset(long_name, 'n', sizeof(long_name));
	long_name[256] = '\0';
	make(backend, "d/f", "F");
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct kvk_place *place = NULL;
		int64_t open_err = OPEN(backend, &place, rows[i].name);
		int64_t create_err = CREATE(backend, &place, rows[i].name);

		if (open_err != rows[i].open_err || create_err != rows[i].create_err)
			fail_msg("\"%s\": open %d, wanted %d; create %d, wanted %d", rows[i].name, (int)open_err,
				 rows[i].open_err, (int)create_err, rows[i].create_err);
		if (create_err == 0)
			CLOSE(backend, &place);
	}
	long_name[255] = '\0';
	make(backend, long_name, "L");
	check_text(backend, long_name, "L");
	assert_int_equal(UNLINK(backend, "d"), -EISDIR);
	assert_int_equal(MOVE(backend, "d", "e"), -EISDIR);
	assert_int_equal(EXCHANGE(backend, "d", long_name), -EISDIR);
	assert_int_equal(step(backend, KVK_XFER_SYNC_FOLDER, NULL, "d/f", NULL, NULL), 0);
	assert_int_equal(step(backend, KVK_XFER_SYNC_FOLDER, NULL, "gone/f", NULL, NULL), -ENOENT);
	assert_int_equal(step(backend, KVK_XFER_SYNC_ALL, NULL, NULL, NULL, NULL), 0);
	assert_int_equal(step(backend, KVK_XFER_OP_COUNT, NULL, NULL, NULL, NULL), -EINVAL);
	assert_int_equal(backend->ops->list(backend, "gone", &names), -ENOENT);
	assert_int_equal(backend->ops->list(backend, "d/f", &names), -ENOTDIR);
	assert_int_equal(names.count, 0);
	backend->ops->close(backend);
}

static void a_folder_stays_and_tells_of_change(void **state)
{
	struct kvk_backend *backend = open_ram(NULL);
	struct kvk_stat before;
	struct kvk_stat after;

	make(backend, "d/f", "F");
	assert_int_equal(STAT_NAME(backend, "d", &before), 0);
	assert_false(before.regular);
	usleep(1000);
	assert_int_equal(UNLINK(backend, "d/f"), 0);
	assert_int_equal(STAT_NAME(backend, "d", &after), 0);
	assert_int_equal(after.inode, before.inode);
	assert_true(after.modified_ns > before.modified_ns);
	assert_false(has_name(backend, "d", "f", 0));
	backend->ops->close(backend);
}

/* Many names, so that the table grows several times; then every second one goes. */
static void many_names(void **state)
{
	enum { COUNT = 5000 };
	struct kvk_backend *backend = open_ram(NULL);
	char name[32];

	for (int i = 0; i < COUNT; i++) {
		snprintf(name, sizeof(name), "%02x/%d", i % 7, i);
		make(backend, name, name);
	}
	for (int i = 0; i < COUNT; i += 2) {
		snprintf(name, sizeof(name), "%02x/%d", i % 7, i);
		assert_int_equal(UNLINK(backend, name), 0);
	}
	for (int i = 0; i < COUNT; i++) {
		snprintf(name, sizeof(name), "%02x/%d", i % 7, i);
		if (i % 2)
			check_text(backend, name, name);
		else
			assert_int_equal(STAT_NAME(backend, name, &(struct kvk_stat){ 0 }), -ENOENT);
	}
	assert_true(has_name(backend, "", "06", 8));
	backend->ops->close(backend);
}

/* ---- media ------------------------------------------------------------------------------------------- */

static void a_named_medium_is_shared_and_kept(void **state)
{
	struct kvk_backend *one = open_ram("mem:one");
	struct kvk_backend *two = open_ram("mem:one");
	struct kvk_backend *other = open_ram("mem:other");
	struct kvk_backend *own = open_ram(NULL);
	struct kvk_stat stat;

	make(one, "k", "K");
	check_text(two, "k", "K");
	assert_int_equal(STAT_NAME(other, "k", &stat), -ENOENT);
	assert_int_equal(STAT_NAME(own, "k", &stat), -ENOENT);
	own->ops->close(own);
	other->ops->close(other);
	one->ops->close(one);
	two->ops->close(two);

	one = open_ram("mem:one");
	check_text(one, "k", "K");
	kvk_backend_ram_forget("mem:one");
	check_text(one, "k", "K");
	two = open_ram("mem:one");
	assert_int_equal(STAT_NAME(two, "k", &stat), -ENOENT);
	one->ops->close(one);
	two->ops->close(two);
	kvk_backend_ram_forget("mem:one");
	kvk_backend_ram_forget("mem:one");
	kvk_backend_ram_forget("mem:other");
}

static void small_files(void **state)
{
	struct kvk_backend *backend = open_ram(NULL);
	void *data = NULL;
	uint64_t bytes = 77;

	assert_int_equal(backend->ops->load_file(backend, "superblock", &data, &bytes, 100), -ENOENT);
	assert_int_equal(backend->ops->save_file(backend, "superblock", "first", 5, true), 0);
	assert_int_equal(backend->ops->save_file(backend, "superblock", "second", 6, true), -EEXIST);
	assert_int_equal(backend->ops->load_file(backend, "superblock", &data, &bytes, 4), -EFBIG);
	assert_null(data);
	assert_int_equal(bytes, 77);
	assert_int_equal(backend->ops->load_file(backend, "superblock", &data, &bytes, 5), 0);
	assert_int_equal(bytes, 5);
	assert_memory_equal(data, "first", 5);
	kvk_mem_free(data);
	assert_int_equal(backend->ops->save_file(backend, "superblock", "", 0, false), 0);
	assert_int_equal(backend->ops->load_file(backend, "superblock", &data, &bytes, 0), 0);
	assert_int_equal(bytes, 0);
	kvk_mem_free(data);
	assert_int_equal(backend->ops->save_file(backend, "namespaces/ab.json", "{}", 2, true), 0);
	assert_true(has_name(backend, ".kvkeep", "superblock", 3));
	assert_true(has_name(backend, ".kvkeep/namespaces", "ab.json", 1));
	assert_int_equal(backend->ops->save_file(backend, "namespaces", "x", 1, false), -EISDIR);
	assert_int_equal(backend->ops->save_file(backend, "namespaces", "x", 1, true), -EEXIST);
	backend->ops->close(backend);
}

/*
 * When memory is short a step fails with -ENOMEM and leaves nothing behind.
 * Method: one life of a file with the nth allocation failing, for every n until none fails.
 */
static void every_allocation_may_fail(void **state)
{
	bool failed = true;
	uint64_t nth;

	for (nth = 1; failed; nth++) {
		struct kvk_backend_options options = { .path = "1048576" };
		struct kvk_backend *backend = NULL;
		struct kvk_place *place = NULL;
		struct kvk_names names = { 0 };
		void *data = NULL;
		uint64_t bytes = 0;
		int64_t err;

		kvk_mem_fail_nth(nth, false);
		err = kvk_backend_ram.open(&backend, &options, NULL);
		if (err)
			goto judged;
		err = CREATE(backend, &place, "ab/cd/k");
		if (err)
			goto judged;
		err = WRITE(backend, place, "text", 4, CHUNK * 5);
		err = err == 4 ? PUBLISH(backend, &place, "ab/cd/k") : err;
		CLOSE(backend, &place);
		err = err ? err : MOVE(backend, "ab/cd/k", "ab/k");
		place = NULL;
		err = err ? err : OPEN(backend, &place, "ab/k");
		if (place)
			CLOSE(backend, &place);
		err = err ? err : backend->ops->save_file(backend, "account", "x", 1, false);
		err = err ? err : backend->ops->load_file(backend, "account", &data, &bytes, 1);
		err = err ? err : backend->ops->list(backend, "", &names);
judged:
		failed = kvk_mem_has_failed();
		kvk_mem_fail_nth(0, false);
		if (err != (failed ? -ENOMEM : 0))
			fail_msg("allocation %u: %d, wanted %d", (unsigned)nth, (int)err, failed ? -ENOMEM : 0);
		if (backend) {
			if (STAT_NAME(backend, "ab/k", &(struct kvk_stat){ 0 }))
				assert_int_equal(free_bytes(backend), 1048576 - (STAT_NAME(backend, "ab/cd/k",
						 &(struct kvk_stat){ 0 }) ? 0 : 4096));
			backend->ops->close(backend);
		}
		kvk_names_release(&names);
		kvk_mem_free(data);
	}
	assert_true(nth > 15);
}

/* ---- threads ----------------------------------------------------------------------------------------- */

struct worker {
	pthread_t thread;
	struct kvk_backend *backend;
	unsigned number;
	unsigned published;
	unsigned wrong;
};

/* Publishes, reads, moves and removes over few names; a file's text is its inode, so any read can be judged. */
static void *work(void *arg)
{
	struct worker *worker = arg;
	struct kvk_backend *backend = worker->backend;
	unsigned seed = worker->number;

	for (int i = 0; i < 3000; i++) {
		struct kvk_place *place = NULL;
		struct kvk_stat stat = { 0 };
		uint64_t got[2048] = { 0 };
		char name[16];
		char name2[16];

		snprintf(name, sizeof(name), "%d/%d", rand_r(&seed) % 2, rand_r(&seed) % 4);
		snprintf(name2, sizeof(name2), "%d/%d", rand_r(&seed) % 2, rand_r(&seed) % 4);
		switch (rand_r(&seed) % 6) {
		case 0:
		case 1:
			if (CREATE(backend, &place, name))
				worker->wrong++;
			STAT(backend, &place, &stat);
			for (int k = 0; k < 2048; k++)
				got[k] = stat.inode;
			WRITE(backend, place, got, sizeof(got), 0);
			worker->published += PUBLISH(backend, &place, name) == 0;
			CLOSE(backend, &place);
			break;
		case 2:
			UNLINK(backend, name);
			break;
		case 3:
			if (rand_r(&seed) % 2)
				MOVE(backend, name, name2);
			else
				EXCHANGE(backend, name, name2);
			break;
		default:
			if (step(backend, KVK_XFER_OPEN, &place, name, NULL, &stat))
				break;
			worker->wrong += READ(backend, place, got, sizeof(got), 0) != sizeof(got);
			for (int k = 0; k < 2048; k++)
				worker->wrong += got[k] != stat.inode;
			CLOSE(backend, &place);
		}
	}
	return NULL;
}

static void threads_see_whole_files(void **state)
{
	struct worker workers[4];
	struct kvk_backend *backend = open_ram("67108864");
	unsigned published = 0;

	for (unsigned i = 0; i < 4; i++) {
		workers[i] = (struct worker){ .backend = backend, .number = i + 1 };
		assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
	}
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
		assert_int_equal(workers[i].wrong, 0);
		published += workers[i].published;
	}
	assert_true(published > 100);
	for (int i = 0; i < 8; i++) {
		char name[16];

		snprintf(name, sizeof(name), "%d/%d", i / 4, i % 4);
		UNLINK(backend, name);
	}
	assert_int_equal(free_bytes(backend), 67108864);
	backend->ops->close(backend);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(caps_say_what_memory_can_do),
		cmocka_unit_test(a_file_is_seen_once_it_is_published),
		cmocka_unit_test(an_open_place_survives_its_name),
		cmocka_unit_test(move_and_exchange_replace_nothing),
		cmocka_unit_test(two_names_of_one_file_are_counted),
		cmocka_unit_test(names_that_are_no_objects_are_refused),
		cmocka_unit_test(a_folder_stays_and_tells_of_change),
		cmocka_unit_test(many_names),
		cmocka_unit_test(a_named_medium_is_shared_and_kept),
		cmocka_unit_test(small_files),
		cmocka_unit_test(every_allocation_may_fail),
		cmocka_unit_test(threads_see_whole_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
