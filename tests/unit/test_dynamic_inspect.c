/* SPDX-License-Identifier: Apache-2.0 */
/* What is told of one object that is looked at for a list: of whole ones, of strangers, and on a medium that fails. */
#include "bent_bed.h"

#include <pthread.h>

#include "no_digest.h"

#define BYTES 20000u
#define FILE_BYTES (20480u + 4096u)
#define KEY "m@00000000@0@01"

static void open_with(struct bench *bench, enum kvk_naming naming, uint32_t levels)
{
	bench_open(bench, KVK_DURABILITY_NONE, naming);
	bench->options.layout.levels = levels;
	assert_int_equal(kvk_dynamic_open(&bench->adapter, &bench->options), 0);
}

static struct kvk_listed inspect(struct bench *bench, const char *name, int expected)
{
	struct kvk_listed listed = { .key_bytes = 77 };
	int err = bench->adapter->ops->inspect(bench->adapter, name, &listed);

	if (err != expected)
		fail_msg("inspect: %d, wanted %d", err, expected);
	return listed;
}

static void is_a_folder(struct bent *bent, struct kvk_xfer *xfer)
{
	xfer->stat.regular = false;
}

static void ends_early(struct bent *bent, struct kvk_xfer *xfer)
{
	xfer->result = 0;
}

static void comes_in_two(struct bent *bent, struct kvk_xfer *xfer)
{
	xfer->result = 100;
}

static void test_inspecting(void **state)
{
	static const struct { int error, expected; } opens[] = {
		{ ENOENT, -ENOENT }, { ELOOP, -ENOENT }, { EACCES, -ENOENT }, { EMFILE, -EMFILE }, { ENFILE, -ENFILE }, { ENOMEM, -ENOMEM },
	};
	char name[KVK_NAME_BYTES_MAX];
	struct kvk_listed listed;
	struct bench bench;

	open_with(&bench, KVK_NAMING_KVKEEP, 1);
	assert_int_equal(bench_put(&bench, KEY, BYTES, 1), 0);
	bench_name(&bench, name, KEY);
	listed = inspect(&bench, name, 0);
	assert_int_equal(listed.state, KVK_OBJECT_PRESENT);
	assert_int_equal(listed.facts.logical_bytes, BYTES);
	for (size_t i = 0; i < sizeof(opens) / sizeof(opens[0]); i++) {
		BEND(&bench.bent, .call = KVK_XFER_OPEN, .nth = 1, .error = -opens[i].error);
		inspect(&bench, name, opens[i].expected);
	}
	/* One that the medium cannot open is there all the same, if its name is. */
	BEND(&bench.bent, .call = KVK_XFER_OPEN, .nth = 1, .error = -EIO);
	listed = inspect(&bench, name, 0);
	assert_int_equal(listed.state, KVK_OBJECT_DAMAGED);
	assert_int_equal(listed.facts.stored_bytes, FILE_BYTES);
	assert_true(listed.facts.inode > 0 && listed.facts.created_ns > 0);
	for (int gone = 0; gone < 2; gone++) {
		bent_set(&bench.bent, (struct bend[2]){ { .call = KVK_XFER_OPEN, .nth = 1, .error = -EIO },
			 { .call = KVK_XFER_STAT_NAME, .nth = 1, .error = gone ? -ENOENT : -EIO } }, 2);
		listed = inspect(&bench, name, gone ? -ENOENT : 0);
		assert_int_equal(listed.facts.stored_bytes, 0);
	}
	/* What cannot be read, or is no file, is one of the list, in its state; only what concerns all of them ends it. */
	BEND(&bench.bent, .call = KVK_XFER_OPEN, .nth = 1, .after = is_a_folder);
	assert_int_equal(inspect(&bench, name, 0).state, KVK_OBJECT_DAMAGED);
	BEND(&bench.bent, .call = KVK_XFER_READ, .nth = 1, .error = -EIO);
	assert_int_equal(inspect(&bench, name, 0).state, KVK_OBJECT_DAMAGED);
	BEND(&bench.bent, .call = KVK_XFER_READ, .nth = 1, .after = ends_early);
	assert_int_equal(inspect(&bench, name, 0).state, KVK_OBJECT_DAMAGED);
	BEND(&bench.bent, .call = KVK_XFER_READ, .nth = 1, .after = comes_in_two);
	assert_int_equal(inspect(&bench, name, 0).state, KVK_OBJECT_PRESENT);
	BEND(&bench.bent, .call = KVK_XFER_READ, .nth = 1, .error = -ENOMEM);
	inspect(&bench, name, -ENOMEM);
	assert_int_equal(bench.bent.places, 0);
	STRAIGHT(&bench.bent);
	bent_flip(&bench.bent, name, FILE_BYTES - 1);
	assert_int_equal(inspect(&bench, name, 0).state, KVK_OBJECT_DAMAGED);
	bent_flip(&bench.bent, name, FILE_BYTES - 1);
	bent_flip(&bench.bent, name, FILE_BYTES - 200);
	assert_int_equal(inspect(&bench, name, 0).state, KVK_OBJECT_DAMAGED);
	bench_close(&bench);
}

/* A whole object that is not where it belongs, or not as long as it says. */
static void test_inspecting_strangers(void **state)
{
	static const char elsewhere[] = "00/0000000000000000000000000000000000000000000000000000000000000000.kv";
	char name[KVK_NAME_BYTES_MAX];
	struct kvk_listed listed;
	struct bench bench;
	uint64_t bytes;
	uint8_t *file;

	open_with(&bench, KVK_NAMING_KVKEEP, 1);
	assert_int_equal(bench_put(&bench, KEY, BYTES, 1), 0);
	bench_name(&bench, name, KEY);
	file = bent_read(&bench.bent, name, &bytes);
	bent_file(&bench.bent, elsewhere, file, bytes);
	listed = inspect(&bench, elsewhere, 0);
	assert_int_equal(listed.state, KVK_OBJECT_DAMAGED);
	assert_int_equal(listed.key_bytes, 0);
	bent_file(&bench.bent, name, file + 4096, bytes - 4096);
	assert_int_equal(inspect(&bench, name, 0).state, KVK_OBJECT_DAMAGED);
	bent_file(&bench.bent, name, file, 100);
	assert_int_equal(inspect(&bench, name, 0).state, KVK_OBJECT_DAMAGED);
	bent_file(&bench.bent, name, file, bytes - 1);
	assert_int_equal(inspect(&bench, name, 0).state, KVK_OBJECT_DAMAGED);
	free(file);
	bench_close(&bench);
}

static void born_before(struct bent *bent, struct kvk_xfer *xfer)
{
	xfer->stat.born_ns = 1000;
}

static void born_never(struct bent *bent, struct kvk_xfer *xfer)
{
	xfer->stat.born_ns = 0;
}

static char inspected_name[KVK_NAME_BYTES_MAX];

static void *inspect_without_memory(void *bench)
{
	atomic_store(&no_digest, true);
	inspect(bench, inspected_name, -ENOMEM);
	atomic_store(&no_digest, false);
	return NULL;
}

/* Without memory for a digest nothing is known of an object: least of all that it is damaged. */
static void test_inspecting_without_memory(void **state)
{
	struct bench bench;
	pthread_t thread;

	open_with(&bench, KVK_NAMING_KVKEEP, 1);
	assert_int_equal(bench_put(&bench, KEY, BYTES, 1), 0);
	bench_name(&bench, inspected_name, KEY);
	assert_int_equal(pthread_create(&thread, NULL, inspect_without_memory, &bench), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(inspect(&bench, inspected_name, 0).state, KVK_OBJECT_PRESENT);
	bench_close(&bench);
}

/* What other namespaces have is whole, and theirs. */
static void test_inspecting_a_namespace(void **state)
{
	char name[KVK_NAME_BYTES_MAX];
	struct kvk_listed listed;
	struct bench bench;

	open_with(&bench, KVK_NAMING_KVKEEP, 1);
	assert_int_equal(bench_put(&bench, KEY, BYTES, 1), 0);
	bench_name(&bench, name, KEY);
	bench_close_adapter(&bench);
	bench.namespace_digest[0] = 1;
	assert_int_equal(kvk_dynamic_open(&bench.adapter, &bench.options), 0);
	listed = inspect(&bench, name, 0);
	assert_int_equal(listed.state, KVK_OBJECT_FOREIGN);
	assert_int_equal(listed.key_bytes, strlen(KEY));
	bench_close_adapter(&bench);
	kvk_mem_fail_nth(1, false);
	assert_int_equal(kvk_dynamic_open(&bench.adapter, &bench.options), -ENOMEM);
	kvk_mem_fail_nth(0, false);
	assert_null(bench.adapter);
	bench_close(&bench);
}

/* LMCache's older names are the objects' own as well, if they have one. */
static void test_inspecting_old_names(void **state)
{
	static const struct kvk_layout layout = { KVK_NAMING_LMCACHE, 0 };
	static const char *const keys[] = { KEY, "m@00000000@1@01" };
	char name[KVK_NAME_BYTES_MAX], old[KVK_NAME_BYTES_MAX];
	struct bench bench;

	open_with(&bench, KVK_NAMING_LMCACHE, 0);
	assert_int_equal(kvk_name_make_old(old, &layout, KEY, strlen(KEY)), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(bench_put(&bench, keys[i], BYTES, 1), 0);
		bench_name(&bench, name, keys[i]);
		bent_step(&bench.bent, KVK_XFER_UNLINK, old, NULL);
		assert_int_equal(bent_step(&bench.bent, KVK_XFER_MOVE, name, old), 0);
		assert_int_equal(inspect(&bench, old, 0).state, i ? KVK_OBJECT_DAMAGED : KVK_OBJECT_PRESENT);
	}
	bench_close(&bench);
}

static void test_inspecting_adopted(void **state)
{
	char name[KVK_NAME_BYTES_MAX];
	struct kvk_listed listed;
	struct bench bench;

	open_with(&bench, KVK_NAMING_LMCACHE, 0);
	bench_name(&bench, name, KEY);
	bent_file(&bench.bent, name, "no footer", 9);
	BEND(&bench.bent, .call = KVK_XFER_OPEN, .nth = 1, .after = born_before);
	listed = inspect(&bench, name, 0);
	assert_int_equal(listed.state, KVK_OBJECT_UNVERIFIED);
	assert_int_equal(listed.facts.logical_bytes, 9);
	BEND(&bench.bent, .call = KVK_XFER_OPEN, .nth = 1, .after = born_never);
	assert_int_equal(inspect(&bench, name, 0).state, KVK_OBJECT_DAMAGED);
	bench_close(&bench);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_inspecting),
		cmocka_unit_test(test_inspecting_strangers),
		cmocka_unit_test(test_inspecting_without_memory),
		cmocka_unit_test(test_inspecting_a_namespace),
		cmocka_unit_test(test_inspecting_old_names),
		cmocka_unit_test(test_inspecting_adopted),
	};

	no_digest_prepare();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
