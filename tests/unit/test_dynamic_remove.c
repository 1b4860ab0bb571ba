/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every way through a remove of a file per key, one call of the medium bent at a time: what is answered, what is credited, and
 * what stays.
 */
#include "bent_bed.h"

#define BYTES 20000u
#define FILE_BYTES (20480u + 4096u)
#define KEY "key"
#define LMCACHE_KEY "m@00000000@0@01"
#define OTHERS 7

static struct ask take(struct bench *bench, const char *key)
{
	struct ask ask;

	ask_init(&ask, bench, key, 0, 0);
	ask_run(&ask, bench, start_remove);
	ask_end(&ask);
	return ask;
}

static void expect(const struct ask *ask, const char *what, int status, uint32_t reason, unsigned freed)
{
	if (ask->request.status != status || ask->request.reason != reason || ask->freed != freed)
		fail_msg("%s: %d, reason %u, freed %u; wanted %d, %u, %u", what, ask->request.status, ask->request.reason, ask->freed,
			 status, reason, freed);
	assert_int_equal(ask->request.outcome, status ? KVK_OUTCOME_NONE : KVK_OUTCOME_REMOVED);
	if (freed)
		assert_int_equal(ask->request.unlinked_bytes, FILE_BYTES);
}

static void is_a_folder(struct bent *bent, struct kvk_xfer *xfer)
{
	xfer->stat.regular = false;
}

static void is_anothers(struct bent *bent, struct kvk_xfer *xfer)
{
	xfer->stat.owned = false;
}

struct row {
	const char *name;
	struct bend bend;
	int status;
	uint32_t reason;
	unsigned freed;
	bool stays;                    /* under its name */
	unsigned left;                 /* files besides */
};

#define FAILS(op, at, number) { .call = (op), .nth = (at), .error = -(number) }
#define FOREIGN .status = -ENOENT, .reason = KVK_REASON_FOREIGN, .stays = true
#define MEDIUM .status = -EIO, .reason = KVK_REASON_MEDIUM, .stays = true
#define ABSENT .status = -ENOENT, .reason = KVK_REASON_ABSENT

static const struct row rows[] = {
	{ "removed", { 0 }, .freed = 1 },
	{ "it is not there", FAILS(KVK_XFER_STAT_NAME, 1, ENOENT), ABSENT, .stays = true },
	{ "a link", FAILS(KVK_XFER_STAT_NAME, 1, ELOOP), FOREIGN },
	{ "behind a link", FAILS(KVK_XFER_STAT_NAME, 1, EXDEV), FOREIGN },
	{ "something else", FAILS(KVK_XFER_STAT_NAME, 1, EINVAL), FOREIGN },
	{ "a file for a folder", FAILS(KVK_XFER_STAT_NAME, 1, ENOTDIR), FOREIGN },
	{ "a folder", FAILS(KVK_XFER_STAT_NAME, 1, EISDIR), FOREIGN },
	{ "no file", { .call = KVK_XFER_STAT_NAME, .nth = 1, .after = is_a_folder }, FOREIGN },
	{ "another owner's", { .call = KVK_XFER_STAT_NAME, .nth = 1, .after = is_anothers }, FOREIGN },
	{ "it cannot be looked at", FAILS(KVK_XFER_STAT_NAME, 1, EIO), MEDIUM },
	{ "it cannot be moved", FAILS(KVK_XFER_MOVE, 1, EIO), MEDIUM },
	{ "it is gone when it is moved", { .call = KVK_XFER_MOVE, .nth = 1, .before = bent_removes }, ABSENT },
	{ "its folder is none when it is moved", FAILS(KVK_XFER_MOVE, 1, ENOTDIR), ABSENT, .stays = true },
	{ "a former run left that name", FAILS(KVK_XFER_MOVE, 1, EEXIST), .freed = 1 },
	{ "every name is taken", { .call = KVK_XFER_MOVE, .nth = 1, .every = true, .error = -EEXIST }, MEDIUM },
	{ "nobody knows what was moved", FAILS(KVK_XFER_STAT_NAME, 2, EIO), .freed = 1 },
	{ "a sweep was faster", FAILS(KVK_XFER_UNLINK, 1, ENOENT), .freed = 1, .left = 1 },
	{ "it cannot be unlinked", FAILS(KVK_XFER_UNLINK, 1, EIO), .left = 1 },
};

static void test_every_way(void **state)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct row *row = &rows[i];
		char name[KVK_NAME_BYTES_MAX], folder[KVK_NAME_BYTES_MAX];
		struct bench bench;
		struct ask ask;
		bool stays;

		bench_open_dynamic(&bench, KVK_DURABILITY_NONE, KVK_NAMING_KVKEEP);
		bench_name(&bench, name, KEY);
		snprintf(folder, sizeof(folder), "%.2s", name);
		bench.bent.name = name;
		assert_int_equal(bench_put(&bench, KEY, BYTES, OTHERS), 0);
		bent_set(&bench.bent, &row->bend, 1);
		ask = take(&bench, KEY);
		expect(&ask, row->name, row->status, row->reason, row->freed);
		assert_true(bench.bent.struck > 0 || !row->bend.nth);
		stays = bent_bytes(&bench.bent, name) >= 0;
		if (stays != row->stays || bent_count(&bench.bent, folder) - stays != row->left)
			fail_msg("%s: it %s, and %u files are left", row->name, stays ? "stays" : "is gone",
				 bent_count(&bench.bent, folder) - stays);
		STRAIGHT(&bench.bent);
		assert_int_equal(bench_get(&bench, KEY, BYTES), stays ? OTHERS : -ENOENT);
		bench_close(&bench);
	}
}

static void test_no_memory(void **state)
{
	struct bench bench;
	struct ask ask;

	bench_open_dynamic(&bench, KVK_DURABILITY_NONE, KVK_NAMING_KVKEEP);
	assert_int_equal(bench_put(&bench, KEY, BYTES, OTHERS), 0);
	ask_init(&ask, &bench, KEY, 0, 0);
	kvk_mem_fail_nth(1, false);
	ask_run(&ask, &bench, start_remove);
	kvk_mem_fail_nth(0, false);
	expect(&ask, "no memory", -ENOMEM, KVK_REASON_NO_MEMORY, 0);
	ask_end(&ask);
	assert_int_equal(bench_get(&bench, KEY, BYTES), OTHERS);
	bench_close(&bench);
}

/* Nobody has to want to know when the blocks are free. */
static void test_nobody_waits(void **state)
{
	struct bench bench;
	struct ask ask;

	bench_open_dynamic(&bench, KVK_DURABILITY_NONE, KVK_NAMING_KVKEEP);
	assert_int_equal(bench_put(&bench, KEY, BYTES, OTHERS), 0);
	ask_init(&ask, &bench, KEY, 0, 0);
	ask.request.freed = NULL;
	ask_run(&ask, &bench, start_remove);
	expect(&ask, "nobody waits", 0, KVK_REASON_NONE, 0);
	ask_end(&ask);
	bench_close(&bench);
}

/* What was stored anew after it was looked at is what was moved away: that length is credited. */
static void test_credits_what_it_took(void **state)
{
	static uint8_t longer[8 * 4096];
	char name[KVK_NAME_BYTES_MAX];
	struct bench bench;
	struct ask ask;

	bench_open_dynamic(&bench, KVK_DURABILITY_NONE, KVK_NAMING_KVKEEP);
	bench_name(&bench, name, KEY);
	assert_int_equal(bench_put(&bench, KEY, BYTES, OTHERS), 0);
	bench.bent.name = name;
	bench.bent.data = longer;
	bench.bent.bytes = sizeof(longer);
	BEND(&bench.bent, .call = KVK_XFER_MOVE, .nth = 1, .before = bent_publishes);
	ask = take(&bench, KEY);
	assert_int_equal(ask.request.status, 0);
	assert_int_equal(ask.request.unlinked_bytes, sizeof(longer));
	bench_close(&bench);
}

/* ---- naming lmcache: whose it is ------------------------------------------------------------------ */

static void born_before(struct bent *bent, struct kvk_xfer *xfer)
{
	xfer->stat.born_ns = 1000;
}

static void test_whose(void **state)
{
	static const struct { const char *key; struct bend bend; bool damaged; int status; uint32_t reason; } whose[] = {
		{ LMCACHE_KEY, { 0 }, false, 0, KVK_REASON_NONE },
		{ LMCACHE_KEY, { 0 }, true, 0, KVK_REASON_NONE },
		{ LMCACHE_KEY, { .call = KVK_XFER_OPEN, .nth = 1, .after = born_before }, true, 0, KVK_REASON_NONE },
		{ LMCACHE_KEY, FAILS(KVK_XFER_OPEN, 1, EIO), false, -EIO, KVK_REASON_MEDIUM },
		{ LMCACHE_KEY, { .call = KVK_XFER_READ, .nth = 1, .every = true, .error = -EIO }, false, -EIO, KVK_REASON_MEDIUM },
		{ LMCACHE_KEY, FAILS(KVK_XFER_OPEN, 1, ELOOP), false, -ENOENT, KVK_REASON_FOREIGN },
		{ "m@00000000@0@02", { 0 }, false, -ENOENT, KVK_REASON_ABSENT },
		{ "m@00000000@1@01", { 0 }, false, -ENOENT, KVK_REASON_ABSENT },
	};

	for (size_t i = 0; i < sizeof(whose) / sizeof(whose[0]); i++) {
		char name[KVK_NAME_BYTES_MAX];
		struct bench bench;
		struct ask ask;

		bench_open_dynamic(&bench, KVK_DURABILITY_NONE, KVK_NAMING_LMCACHE);
		assert_int_equal(bench_put(&bench, LMCACHE_KEY, BYTES, OTHERS), 0);
		bench_name(&bench, name, LMCACHE_KEY);
		if (whose[i].damaged)
			bent_flip(&bench.bent, name, FILE_BYTES - 1);
		bent_set(&bench.bent, &whose[i].bend, 1);
		ask = take(&bench, whose[i].key);
		expect(&ask, whose[i].key, whose[i].status, whose[i].reason, whose[i].status == 0);
		assert_int_equal(bent_bytes(&bench.bent, name), whose[i].status ? (int)FILE_BYTES : -ENOENT);
		bench_close(&bench);
	}
}

/* Of two keys that share a name only the one whose object it is removes it, but for who says the name. */
static void test_another_keys(void **state)
{
	char name[KVK_NAME_BYTES_MAX];
	struct bench bench;
	struct ask ask;

	bench_open_dynamic(&bench, KVK_DURABILITY_NONE, KVK_NAMING_LMCACHE);
	assert_int_equal(bench_put(&bench, "a/b@00000000@0@01", BYTES, OTHERS), 0);
	bench_name(&bench, name, "a/b@00000000@0@01");
	ask = take(&bench, "a--b@00000000@0@01");
	expect(&ask, "another key's", -ENOENT, KVK_REASON_COLLISION, 0);
	assert_int_equal(atomic_load(&bench.adapter->counts.collisions), 1);
	assert_int_equal(bench_get(&bench, "a/b@00000000@0@01", BYTES), OTHERS);
	for (int twice = 0; twice < 2; twice++) {
		ask_init(&ask, &bench, "a--b@00000000@0@01", 0, 0);
		ask.request.key = NULL;
		ask.request.name = name;
		ask_run(&ask, &bench, start_remove);
		expect(&ask, "by name", twice ? -ENOENT : 0, twice ? KVK_REASON_ABSENT : KVK_REASON_NONE, !twice);
		ask_end(&ask);
	}
	bench_close(&bench);
}

/* The older generation's name is the key's as well. */
static void test_old_name(void **state)
{
	static const struct kvk_layout layout = { KVK_NAMING_LMCACHE, 0 };
	char name[KVK_NAME_BYTES_MAX], old[KVK_NAME_BYTES_MAX];
	struct bench bench;
	struct ask ask;

	bench_open_dynamic(&bench, KVK_DURABILITY_NONE, KVK_NAMING_LMCACHE);
	assert_int_equal(bench_put(&bench, LMCACHE_KEY, BYTES, OTHERS), 0);
	bench_name(&bench, name, LMCACHE_KEY);
	assert_int_equal(kvk_name_make_old(old, &layout, LMCACHE_KEY, strlen(LMCACHE_KEY)), 0);
	assert_int_equal(bent_step(&bench.bent, KVK_XFER_MOVE, name, old), 0);
	ask = take(&bench, LMCACHE_KEY);
	expect(&ask, "the older name", 0, KVK_REASON_NONE, 1);
	assert_int_equal(bent_bytes(&bench.bent, old), -ENOENT);
	ask = take(&bench, LMCACHE_KEY);
	expect(&ask, "neither name", -ENOENT, KVK_REASON_ABSENT, 0);
	bench_close(&bench);
}

/* No name, or one in folders so deep that nothing can be moved beside it. */
static void test_no_name(void **state)
{
	char deep[KVK_NAME_BYTES_MAX];
	struct bench bench;
	struct ask ask;

	bench_open_dynamic(&bench, KVK_DURABILITY_NONE, KVK_NAMING_LMCACHE);
	ask = take(&bench, "no key of LMCache's");
	expect(&ask, "no name", -EINVAL, KVK_REASON_ARGUMENT, 0);
	memset(deep, 'a', sizeof(deep));
	deep[150] = deep[300] = deep[450] = '/';
	deep[452] = '\0';
	bent_file(&bench.bent, deep, "x", 1);
	ask_init(&ask, &bench, LMCACHE_KEY, 0, 0);
	ask.request.name = deep;
	ask_run(&ask, &bench, start_remove);
	expect(&ask, "too deep", -ENAMETOOLONG, KVK_REASON_ARGUMENT, 0);
	assert_int_equal(bent_bytes(&bench.bent, deep), 1);
	ask_end(&ask);
	bench_close(&bench);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_way),
		cmocka_unit_test(test_no_memory),
		cmocka_unit_test(test_nobody_waits),
		cmocka_unit_test(test_credits_what_it_took),
		cmocka_unit_test(test_whose),
		cmocka_unit_test(test_another_keys),
		cmocka_unit_test(test_old_name),
		cmocka_unit_test(test_no_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
