/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every way through a get and a find of a file per key, one call of the medium bent at a time, and footers that no put writes: what
 * is answered, and what is moved aside.
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

/* ---- adopted files ------------------------------------------------------------------------------ */

static void born_before(struct bent *bent, struct kvk_xfer *xfer)
{
	xfer->stat.born_ns = 1000;
}

static void born_after(struct bent *bent, struct kvk_xfer *xfer)
{
	xfer->stat.born_ns = 3000;
}

static void born_never(struct bent *bent, struct kvk_xfer *xfer)
{
	xfer->stat.born_ns = 0;
}

static void adopt(struct bench *bench, bool accept, bool direct, uint64_t bytes)
{
	char name[KVK_NAME_BYTES_MAX];
	uint8_t *data = malloc(bytes + 1);

	bench_open(bench, KVK_DURABILITY_NONE, KVK_NAMING_LMCACHE);
	bench->bent.base.caps.direct = direct;
	bench->options.accept_unverified = accept;
	assert_int_equal(kvk_dynamic_open(&bench->adapter, &bench->options), 0);
	assert_non_null(data);
	ask_fill(data, bytes, LMCACHE_KEY, OTHERS);
	bench_name(bench, name, LMCACHE_KEY);
	bent_file(&bench->bent, name, data, bytes);
	free(data);
}

/* Without a footer: what was there before the store took the folder is adopted if that was asked for; anything else is damaged. */
static void test_adopted(void **state)
{
	static const uint64_t lengths[] = { BYTES, 20480, 100, 4096 };

	for (unsigned way = 0; way < 16; way++) {
		bool accept = way & 1, direct = way & 2;
		uint64_t bytes = lengths[way / 4];
		struct bench bench;
		struct ask ask;

		adopt(&bench, accept, direct, bytes);
		for (int whole = 0; whole < 2; whole++) {
			ask_init(&ask, &bench, LMCACHE_KEY, bytes, 0);
			ask.request.deliver = whole;
			BEND(&bench.bent, .call = KVK_XFER_OPEN, .nth = 1, .every = true, .after = born_before);
			ask_run(&ask, &bench, whole ? start_get : start_find);
			if (!accept) {
				expect(&ask, "not accepted", -ENOENT, KVK_REASON_FOREIGN);
			} else {
				expect(&ask, "accepted", 0, KVK_REASON_NONE);
				assert_true(ask.request.facts.unverified);
				assert_int_equal(ask.request.facts.logical_bytes, bytes);
				assert_int_equal(ask.request.moved_bytes, whole ? bytes : 0);
			}
			ask_end(&ask);
		}
		assert_int_equal(atomic_load(&bench.adapter->counts.unverified), accept);
		/* Another length is another object's, as far as can be known. */
		if (accept) {
			BEND(&bench.bent, .call = KVK_XFER_OPEN, .nth = 1, .every = true, .after = born_before);
			ask_init(&ask, &bench, LMCACHE_KEY, bytes + 1, 0);
			ask.request.deliver = true;
			ask_run(&ask, &bench, start_get);
			expect(&ask, "another length", -ENOENT, KVK_REASON_COLLISION);
			ask_end(&ask);
		}
		bench_close(&bench);
	}
}

/* A part of an adopted file, and nothing beyond its end. */
static void test_part_of_adopted(void **state)
{
	static const struct { uint64_t offset, range; int status; } rows[] = {
		{ 5000, 3000, 0 }, { 0, BYTES, 0 }, { BYTES, 0, -ENOENT }, { BYTES - 1, 2, -EINVAL }, { BYTES + 1, 1, -EINVAL },
	};
	struct bench bench;

	adopt(&bench, true, false, BYTES);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint8_t expected[BYTES];
		struct ask ask;

		BEND(&bench.bent, .call = KVK_XFER_OPEN, .nth = 1, .every = true, .after = born_before);
		ask_fill(expected, BYTES, LMCACHE_KEY, OTHERS);
		ask_init(&ask, &bench, LMCACHE_KEY, BYTES + 1, 0);
		ask.request.deliver = true;
		ask.request.offset_bytes = rows[i].offset;
		ask.request.range_bytes = rows[i].range;
		ask_run(&ask, &bench, start_get);
		assert_int_equal(ask.request.status, rows[i].status);
		if (!rows[i].status)
			assert_memory_equal(ask.data, expected + rows[i].offset, rows[i].range);
		ask_end(&ask);
	}
	bench_close(&bench);
}

/* Nothing without bytes was adopted, nothing whose age nobody knows, and nothing that is younger than the store. */
static void test_not_adopted(void **state)
{
	static void (*const ages[])(struct bent *bent, struct kvk_xfer *xfer) = { born_after, born_never, born_before };

	for (size_t i = 0; i < 3; i++) {
		struct bench bench;

		adopt(&bench, true, false, i == 2 ? 0 : BYTES);
		BEND(&bench.bent, .call = KVK_XFER_OPEN, .nth = 1, .every = true, .after = ages[i]);
		EXPECT(get(&bench, LMCACHE_KEY, true), -EBADMSG, KVK_REASON_DAMAGED);
		assert_int_equal(quarantined(&bench), 1);
		bench_close(&bench);
	}
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_not_opened),
		cmocka_unit_test(test_opened),
		cmocka_unit_test(test_answered_when_it_is_opened),
		cmocka_unit_test(test_stale),
		cmocka_unit_test(test_names_that_cannot_be),
		cmocka_unit_test(test_old_names),
		cmocka_unit_test(test_adopted),
		cmocka_unit_test(test_part_of_adopted),
		cmocka_unit_test(test_not_adopted),
		cmocka_unit_test(test_again),
		cmocka_unit_test(test_renewed),
		cmocka_unit_test(test_moved_aside),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
