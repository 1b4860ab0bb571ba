/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every way through a get and a find of a file per key, one call of the medium bent at a time: what is answered, and what is moved
 * aside.
 */
#include "bent_bed.h"

#define BYTES 20000u
#define FILE_BYTES (20480u + 4096u)
#define KEY "key"
#define LMCACHE_KEY "m@00000000@0@01"
#define OTHERS 7

static struct ask get(struct bench *bench, const char *key, bool whole)
{
	struct ask ask;

	ask_init(&ask, bench, key, BYTES, 0);
	ask.request.deliver = whole;
	ask_run(&ask, bench, whole ? start_get : start_find);
	ask_end(&ask);
	return ask;
}

static void expect(const struct ask *ask, const char *what, int status, uint32_t reason)
{
	if (ask->request.status != status || ask->request.reason != reason)
		fail_msg("%s: %d, reason %u; wanted %d, %u", what, ask->request.status, ask->request.reason, status, reason);
	assert_int_equal(ask->request.outcome, status ? KVK_OUTCOME_NONE : KVK_OUTCOME_FOUND);
}

#define EXPECT(call, status, reason) do { \
		struct ask ask_ = (call); \
		expect(&ask_, #call, (status), (reason)); \
	} while (0)

static unsigned quarantined(struct bench *bench)
{
	return bent_count(&bench->bent, ".kvkeep/quarantine");
}

/* ---- opening ------------------------------------------------------------------------------------ */

/* What lies there is not one of ours: a miss, and nothing is moved. All else says nothing about the object. */
static void test_not_opened(void **state)
{
	static const struct { int error, status; uint32_t reason; } rows[] = {
		{ ENOENT, -ENOENT, KVK_REASON_ABSENT }, { ELOOP, -ENOENT, KVK_REASON_FOREIGN }, { EXDEV, -ENOENT, KVK_REASON_FOREIGN },
		{ EISDIR, -ENOENT, KVK_REASON_FOREIGN }, { EINVAL, -ENOENT, KVK_REASON_FOREIGN }, { ENOTDIR, -ENOENT, KVK_REASON_FOREIGN },
		{ ENXIO, -ENOENT, KVK_REASON_FOREIGN }, { EACCES, -ENOENT, KVK_REASON_FOREIGN }, { EPERM, -ENOENT, KVK_REASON_FOREIGN },
		{ EIO, -EIO, KVK_REASON_MEDIUM }, { EMFILE, -EMFILE, KVK_REASON_NO_MEMORY }, { ENFILE, -ENFILE, KVK_REASON_NO_MEMORY },
		{ ENOMEM, -ENOMEM, KVK_REASON_NO_MEMORY }, { EDQUOT, -EDQUOT, KVK_REASON_NO_ROOM },
		{ EHOSTDOWN, -EHOSTDOWN, KVK_REASON_DEGRADED }, { ETIMEDOUT, -ETIMEDOUT, KVK_REASON_DEADLINE },
		{ ENAMETOOLONG, -ENAMETOOLONG, KVK_REASON_ARGUMENT }, { ESTALE, -ESTALE, KVK_REASON_MEDIUM },
	};
	struct bench bench;

	bench_open_dynamic(&bench, KVK_DURABILITY_NONE, KVK_NAMING_KVKEEP);
	assert_int_equal(bench_put(&bench, KEY, BYTES, OTHERS), 0);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		for (int whole = 0; whole < 2; whole++) {
			BEND(&bench.bent, .call = KVK_XFER_OPEN, .nth = 1, .error = -rows[i].error);
			EXPECT(get(&bench, KEY, whole), rows[i].status, rows[i].reason);
		}
	}
	STRAIGHT(&bench.bent);
	assert_int_equal(bench_get(&bench, KEY, BYTES), OTHERS);
	bench_close(&bench);
}

static void is_a_folder(struct bent *bent, struct kvk_xfer *xfer)
{
	xfer->stat.regular = false;
}

static void is_anothers(struct bent *bent, struct kvk_xfer *xfer)
{
	xfer->stat.owned = false;
}

static void has_no_name(struct bent *bent, struct kvk_xfer *xfer)
{
	xfer->stat.links = 0;
}

static void has_two_names(struct bent *bent, struct kvk_xfer *xfer)
{
	xfer->stat.links = 2;
}

static void test_opened(void **state)
{
	struct bench bench;

	bench_open_dynamic(&bench, KVK_DURABILITY_NONE, KVK_NAMING_KVKEEP);
	assert_int_equal(bench_put(&bench, KEY, BYTES, OTHERS), 0);
	BEND(&bench.bent, .call = KVK_XFER_OPEN, .nth = 1, .after = is_a_folder);
	EXPECT(get(&bench, KEY, true), -ENOENT, KVK_REASON_FOREIGN);
	BEND(&bench.bent, .call = KVK_XFER_OPEN, .nth = 1, .after = is_anothers);
	EXPECT(get(&bench, KEY, true), -ENOENT, KVK_REASON_FOREIGN);
	BEND(&bench.bent, .call = KVK_XFER_OPEN, .nth = 1, .after = has_no_name);
	EXPECT(get(&bench, KEY, true), -ENOENT, KVK_REASON_ABSENT);
	assert_int_equal(atomic_load(&bench.adapter->counts.links), 0);
	BEND(&bench.bent, .call = KVK_XFER_OPEN, .nth = 1, .after = has_two_names);
	EXPECT(get(&bench, KEY, true), 0, KVK_REASON_NONE);
	assert_int_equal(atomic_load(&bench.adapter->counts.links), 1);
	assert_int_equal(quarantined(&bench), 0);
	bench_close(&bench);
}

/* What was answered while it was opened is not read, and no byte of the caller's is touched, wherever it would have gone. */
static void test_answered_when_it_is_opened(void **state)
{
	struct bench bench;

	bench_open_dynamic(&bench, KVK_DURABILITY_NONE, KVK_NAMING_KVKEEP);
	assert_int_equal(bench_put(&bench, KEY, BYTES, OTHERS), 0);
	for (int held = 0; held < 2; held++) {
		struct ask ask;

		ask_init(&ask, &bench, KEY, BYTES, 0);
		ask.request.deliver = true;
		ask.request.held = held;
		BEND(&bench.bent, .call = KVK_XFER_OPEN, .nth = 1, .after = bent_answers);
		ask_run(&ask, &bench, start_get);
		assert_int_equal(ask.answered, -ETIMEDOUT);
		assert_int_equal(ask.request.status, -ECANCELED);
		assert_int_equal(bench.bent.calls[KVK_XFER_READ], 0);
		assert_false(ask.request.dirty);
		for (uint64_t i = 0; i < BYTES; i++)
			assert_int_equal(ask.data[i], 0);
		ask_end(&ask);
	}
	bench_close(&bench);
}

/* On a medium of many machines what is removed elsewhere is gone at once; on another it is an error, and says nothing. */
static void test_stale(void **state)
{
	static const unsigned calls[] = { KVK_XFER_OPEN, KVK_XFER_READ };
	struct bench bench;

	bench_open_dynamic(&bench, KVK_DURABILITY_NONE, KVK_NAMING_KVKEEP);
	assert_int_equal(bench_put(&bench, KEY, BYTES, OTHERS), 0);
	for (int local = 0; local < 2; local++) {
		bench.bent.base.caps.local = local;
		for (size_t i = 0; i < 2; i++) {
			BEND(&bench.bent, .call = calls[i], .nth = 1, .every = true, .error = -ESTALE);
			if (local)
				EXPECT(get(&bench, KEY, true), -ESTALE, KVK_REASON_MEDIUM);
			else
				EXPECT(get(&bench, KEY, true), -ENOENT, KVK_REASON_ABSENT);
		}
	}
	assert_int_equal(quarantined(&bench), 0);
	bench_close(&bench);
}

/* ---- names -------------------------------------------------------------------------------------- */

static void test_names_that_cannot_be(void **state)
{
	char name[KVK_NAME_BYTES_MAX + 8];
	struct bench bench;
	struct ask ask;

	bench_open_dynamic(&bench, KVK_DURABILITY_NONE, KVK_NAMING_LMCACHE);
	EXPECT(get(&bench, "no key of LMCache's", true), -EINVAL, KVK_REASON_ARGUMENT);
	memset(name, 'a', sizeof(name));
	name[200] = name[400] = '/';
	name[KVK_NAME_BYTES_MAX] = '\0';
	for (int fits = 0; fits < 2; fits++) {
		name[KVK_NAME_BYTES_MAX - (unsigned)fits] = '\0';
		ask_init(&ask, &bench, LMCACHE_KEY, BYTES, 0);
		ask.request.name = name;
		ask_run(&ask, &bench, start_find);
		if (fits)
			expect(&ask, "a name that nearly fits", -ENOENT, KVK_REASON_ABSENT);
		else
			expect(&ask, "a name that is too long", -ENAMETOOLONG, KVK_REASON_ARGUMENT);
		ask_end(&ask);
	}
	bench_close(&bench);
}

static struct ask find_name(struct bench *bench, const char *name)
{
	struct ask ask;

	ask_init(&ask, bench, "another", BYTES, 0);
	ask.request.key = NULL;
	ask.request.name = name;
	ask.request.deliver = true;
	ask.request.keep = true;
	ask_run(&ask, bench, start_get);
	ask_end(&ask);
	return ask;
}

/* Who says the name gets what belongs there, whatever its key; who says only the digest, or a key of the same digest, is compared. */
static void test_whose(void **state)
{
	static const char elsewhere[] = "00/0000000000000000000000000000000000000000000000000000000000000000.kv";
	char name[KVK_NAME_BYTES_MAX];
	struct bench bench;
	uint64_t bytes;
	uint8_t *file;
	struct ask ask;

	bench_open_dynamic(&bench, KVK_DURABILITY_NONE, KVK_NAMING_KVKEEP);
	assert_int_equal(bench_put(&bench, KEY, BYTES, OTHERS), 0);
	bench_name(&bench, name, KEY);
	EXPECT(find_name(&bench, name), 0, KVK_REASON_NONE);
	file = bent_read(&bench.bent, name, &bytes);
	bent_file(&bench.bent, elsewhere, file, bytes);
	EXPECT(find_name(&bench, elsewhere), -EBADMSG, KVK_REASON_DAMAGED);
	for (unsigned way = 0; way < 3; way++) {
		ask_init(&ask, &bench, KEY, BYTES, 0);
		if (way == 0)
			ask.request.key = NULL;
		else if (way == 1)
			ask.request.key_bytes--;
		else
			ask.request.key = "kez";
		ask_run(&ask, &bench, start_find);
		expect(&ask, "by digest", way ? -ENOENT : 0, way ? KVK_REASON_COLLISION : KVK_REASON_NONE);
		ask_end(&ask);
	}
	assert_int_equal(bench_get(&bench, KEY, BYTES), OTHERS);
	free(file);
	bench_close(&bench);
}

/* With LMCache's names, too: a whole object whose key makes no such name, or another, was put there by no store. */
static void test_whose_of_lmcache(void **state)
{
	static const char *const strangers[] = { "n@00000000@0@01", "m@00000000@1@01", "no key of LMCache's" };
	char name[KVK_NAME_BYTES_MAX];

	for (size_t i = 0; i < 3; i++) {
		struct bench bench, other;
		uint64_t bytes;
		uint8_t *file;

		bench_open_dynamic(&other, KVK_DURABILITY_NONE, KVK_NAMING_KVKEEP);
		assert_int_equal(bench_put(&other, strangers[i], BYTES, OTHERS), 0);
		bench_name(&other, name, strangers[i]);
		file = bent_read(&other.bent, name, &bytes);
		bench_close(&other);
		bench_open_dynamic(&bench, KVK_DURABILITY_NONE, KVK_NAMING_LMCACHE);
		bench_name(&bench, name, LMCACHE_KEY);
		bent_file(&bench.bent, name, file, bytes);
		EXPECT(get(&bench, LMCACHE_KEY, true), -EBADMSG, KVK_REASON_DAMAGED);
		free(file);
		bench_close(&bench);
	}
}

/* LMCache's older generation of names is tried after the newer one, and only where it says the same. */
static void test_old_names(void **state)
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
	EXPECT(get(&bench, LMCACHE_KEY, true), 0, KVK_REASON_NONE);
	EXPECT(get(&bench, "m@00000000@1@01", true), -ENOENT, KVK_REASON_ABSENT);
	ask_init(&ask, &bench, LMCACHE_KEY, BYTES, 0);
	ask.request.key = NULL;
	ask.request.name = name;
	ask_run(&ask, &bench, start_find);
	expect(&ask, "by name alone", -ENOENT, KVK_REASON_ABSENT);
	ask_end(&ask);

	/* Damaged there, it is read twice there as well, though the newer name was read before. */
	bent_flip(&bench.bent, old, 5);
	EXPECT(get(&bench, LMCACHE_KEY, true), -EBADMSG, KVK_REASON_DAMAGED);
	assert_int_equal(atomic_load(&bench.adapter->counts.rereads), 1);
	assert_int_equal(bent_bytes(&bench.bent, old), -ENOENT);
	assert_int_equal(quarantined(&bench), 1);
	bench_close(&bench);
}

/* ---- asked again, used ---------------------------------------------------------------------------- */

static unsigned agains;

static bool again_once(struct kvk_request *request)
{
	return agains++ == 0;
}

/* What was found may be out of date: the medium is asked once more, with a place of its own. */
static void test_again(void **state)
{
	char name[KVK_NAME_BYTES_MAX];
	struct bench bench;
	struct ask ask;

	bench_open_dynamic(&bench, KVK_DURABILITY_NONE, KVK_NAMING_KVKEEP);
	assert_int_equal(bench_put(&bench, KEY, BYTES, OTHERS), 0);
	bench_name(&bench, name, KEY);
	for (int removed = 0; removed < 2; removed++) {
		agains = 0;
		bench.bent.name = name;
		BEND(&bench.bent, .call = KVK_XFER_CLOSE, .nth = 1, .after = removed ? bent_removes : NULL);
		ask_init(&ask, &bench, KEY, BYTES, 0);
		ask.request.again = again_once;
		ask_run(&ask, &bench, start_find);
		expect(&ask, "asked again", removed ? -ENOENT : 0, removed ? KVK_REASON_ABSENT : KVK_REASON_NONE);
		assert_int_equal(agains, removed ? 1 : 2);
		assert_int_equal(bench.bent.calls[KVK_XFER_OPEN], 2);
		ask_end(&ask);
	}
	bench_close(&bench);
}

static void used_long_ago(struct bent *bent, struct kvk_xfer *xfer)
{
	xfer->stat.accessed_ns = 1;
}

/* An object is marked as used when it was found, and not more often than others have to know. */
static void test_renewed(void **state)
{
	static const struct { bool renew, old; unsigned touches; } rows[] = { { true, true, 1 }, { true, false, 0 }, { false, true, 0 } };
	struct bench bench;

	bench_open_dynamic(&bench, KVK_DURABILITY_NONE, KVK_NAMING_KVKEEP);
	assert_int_equal(bench_put(&bench, KEY, BYTES, OTHERS), 0);
	for (size_t i = 0; i < 3; i++) {
		struct ask ask;

		BEND(&bench.bent, .call = KVK_XFER_OPEN, .nth = 1, .after = rows[i].old ? used_long_ago : NULL);
		ask_init(&ask, &bench, KEY, BYTES, 0);
		ask.request.renew = rows[i].renew;
		ask_run(&ask, &bench, start_find);
		expect(&ask, "found", 0, KVK_REASON_NONE);
		assert_int_equal(bench.bent.calls[KVK_XFER_TOUCH], rows[i].touches);
		ask_end(&ask);
	}
	BEND(&bench.bent, .call = KVK_XFER_READ, .nth = 1, .every = true, .error = -EIO);
	EXPECT(get(&bench, KEY, false), -EIO, KVK_REASON_MEDIUM);
	bench_close(&bench);
}

/* ---- moving aside ------------------------------------------------------------------------------- */

static void test_moved_aside(void **state)
{
	struct bend anew[] = { { .call = KVK_XFER_MOVE, .nth = 1, .before = bent_publishes } };
	char name[KVK_NAME_BYTES_MAX];
	struct bench bench;
	uint64_t bytes;
	uint8_t *good;
	struct ask ask;

	bench_open_dynamic(&bench, KVK_DURABILITY_NONE, KVK_NAMING_KVKEEP);
	bench_name(&bench, name, KEY);
	assert_int_equal(bench_put(&bench, KEY, BYTES, OTHERS), 0);
	good = bent_read(&bench.bent, name, &bytes);
	bench.bent.name = name;
	bench.bent.data = good;
	bench.bent.bytes = bytes;
	bent_flip(&bench.bent, name, 5);

	/* It stays: so it was asked for; the medium refuses. */
	ask_init(&ask, &bench, KEY, BYTES, 0);
	ask.request.deliver = ask.request.keep = true;
	ask_run(&ask, &bench, start_get);
	expect(&ask, "kept", -EBADMSG, KVK_REASON_DAMAGED);
	ask_end(&ask);
	BEND(&bench.bent, .call = KVK_XFER_MOVE, .nth = 1, .error = -EIO);
	ask = get(&bench, KEY, true);
	expect(&ask, "refused", -EBADMSG, KVK_REASON_DAMAGED);
	assert_true(ask.request.keep);
	assert_int_equal(bent_bytes(&bench.bent, name), FILE_BYTES);
	/* It is gone, and nothing has to be kept. */
	BEND(&bench.bent, .call = KVK_XFER_MOVE, .nth = 1, .before = bent_removes);
	ask = get(&bench, KEY, true);
	expect(&ask, "gone", -EBADMSG, KVK_REASON_DAMAGED);
	assert_false(ask.request.keep);
	/* It was stored anew: that goes back to its place. */
	bent_publishes(&bench.bent, NULL);
	bent_flip(&bench.bent, name, 5);
	bent_set(&bench.bent, anew, 1);
	ask = get(&bench, KEY, true);
	expect(&ask, "anew", -EBADMSG, KVK_REASON_DAMAGED);
	assert_true(ask.request.keep);
	assert_int_equal(quarantined(&bench), 0);
	assert_int_equal(bench_get(&bench, KEY, BYTES), OTHERS);
	assert_int_equal(atomic_load(&bench.adapter->counts.quarantined), 0);
	/* Nobody can say what was moved: it counts. */
	bent_flip(&bench.bent, name, 5);
	BEND(&bench.bent, .call = KVK_XFER_STAT_NAME, .nth = 1, .error = -EIO);
	EXPECT(get(&bench, KEY, true), -EBADMSG, KVK_REASON_DAMAGED);
	assert_int_equal(quarantined(&bench), 1);
	assert_int_equal(atomic_load(&bench.adapter->counts.quarantined), 1);
	assert_int_equal(atomic_load(&bench.adapter->counts.quarantined_bytes), FILE_BYTES);
	free(good);
	bench_close(&bench);
}

/* Around each move the store is told, and each is logged. */
static unsigned begins, logs;
static uint64_t ended_bytes;

static uint32_t aside_begin(void *user)
{
	return ++begins;
}

static void aside_end(void *user, uint32_t begun, uint32_t bucket, uint64_t bytes, uint64_t stray_bytes)
{
	assert_int_equal(begun, begins);
	assert_int_equal(stray_bytes, 0);
	ended_bytes += bytes;
}

static void log_line(void *user, int level, const char *text)
{
	logs++;
}

/* No more than there is room for, and no more than sixteen a minute. */
static void test_limits_of_quarantine(void **state)
{
	for (int by_room = 0; by_room < 2; by_room++) {
		struct kvk_log_sink log = { NULL, log_line };
		unsigned wanted = by_room ? 2 : 16, count = 20, there;
		uint64_t minute = kvk_now_us() / 60000000;
		struct bench bench;

		begins = logs = 0;
		ended_bytes = 0;
		bench_open(&bench, KVK_DURABILITY_NONE, KVK_NAMING_KVKEEP);
		bench.options.log = &log;
		bench.options.aside_begin = aside_begin;
		bench.options.aside_end = aside_end;
		bench.options.quarantine_bytes = by_room ? 2 * FILE_BYTES + 1 : UINT64_C(1) << 30;
		assert_int_equal(kvk_dynamic_open(&bench.adapter, &bench.options), 0);
		for (unsigned i = 0; i < count; i++) {
			char key[16], name[KVK_NAME_BYTES_MAX];

			snprintf(key, sizeof(key), "key %u", i);
			assert_int_equal(bench_put(&bench, key, BYTES, OTHERS), 0);
			bench_name(&bench, name, key);
			bent_flip(&bench.bent, name, 5);
			EXPECT(get(&bench, key, true), -EBADMSG, KVK_REASON_DAMAGED);
		}
		there = quarantined(&bench);
		/* Another minute may have begun. */
		if (by_room || kvk_now_us() / 60000000 == minute)
			assert_int_equal(there, wanted);
		else
			assert_in_range(there, wanted, count);
		assert_int_equal(begins, there);
		assert_int_equal(ended_bytes, (uint64_t)there * FILE_BYTES);
		assert_int_equal(logs, count);
		bench_close(&bench);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_not_opened),
		cmocka_unit_test(test_opened),
		cmocka_unit_test(test_answered_when_it_is_opened),
		cmocka_unit_test(test_stale),
		cmocka_unit_test(test_names_that_cannot_be),
		cmocka_unit_test(test_whose),
		cmocka_unit_test(test_whose_of_lmcache),
		cmocka_unit_test(test_old_names),
		cmocka_unit_test(test_again),
		cmocka_unit_test(test_renewed),
		cmocka_unit_test(test_moved_aside),
		cmocka_unit_test(test_limits_of_quarantine),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
