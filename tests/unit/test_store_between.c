/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happens between the steps of a put: others publish or remove under its name, what it found damaged is gone or is sound
 * when it comes to replace it, a step says what it should not, and the deadline passes on the way. Whatever it is, the
 * answer is true, another's sound object stays, and nothing is left behind that a later run would not sweep.
 *
 * That EEXIST on a damaged file is no success, and that a damaged file is given back once, is what fails here when it is taken
 * out (tests/mutants/publish.txt, put-found-... and replace-credited-once).
 */
#include <pthread.h>

#include "unit/store_kit.h"

#include "control/scan.h"
#include "store/core.h"

#define BYTES 20000u
#define DEADLINE_US 150000u
/* As many as an agent has. */
#define WORKERS 16u
/* The generations of what was there once, and of what is put. */
#define OTHERS 7u
#define OURS 8u

/* What somebody else does under the name, while a rule holds the put. */
enum meddling { NOTHING = 0, REMOVED, PUBLISHED };

struct row {
	const char *name;
	bool damaged;                  /* something damaged lies under the name at first */
	struct kvk_fault_rule rules[2];
	enum meddling meddling;
	uint64_t deadline_us;
	int status;
	uint32_t reason;
	uint32_t after;                /* the generation that is found then; 0: none */
	uint64_t left;                 /* files for a later sweep, at most */
};

#define FAIL(op, at, number) { .kind = KVK_FAULT_FAIL, .ops = 1u << (op), .nth = (at), .times = 1, .error = (number) }
#define ALWAYS(op, number) { .kind = KVK_FAULT_FAIL, .ops = 1u << (op), .nth = 1, .every = 1, .error = (number) }
#define HOLD(op, at) { .kind = KVK_FAULT_HANG, .ops = 1u << (op), .nth = (at), .times = 1 }
#define DELAY(op, at) { .kind = KVK_FAULT_DELAY, .ops = 1u << (op), .nth = (at), .times = 1, .delay_us = 3 * DEADLINE_US }
#define NO_EXCHANGE ALWAYS(KVK_XFER_EXCHANGE, EINVAL)

static const struct row rows[] = {
	/* Nothing is there. */
	{ "the name is taken, and then it is not", false, { FAIL(KVK_XFER_PUBLISH, 1, EEXIST) },
	  .reason = KVK_REASON_NONE, .after = OURS },
	{ "the name is always taken by nothing", false, { ALWAYS(KVK_XFER_PUBLISH, EEXIST) },
	  .status = -EIO, .reason = KVK_REASON_MEDIUM },
	{ "it cannot be created, for there is one, and there is none", false, { FAIL(KVK_XFER_CREATE, 1, EEXIST) },
	  .reason = KVK_REASON_NONE, .after = OURS },
	{ "another publishes first", false, { HOLD(KVK_XFER_PUBLISH, 1) }, .meddling = PUBLISHED,
	  .reason = KVK_REASON_PRESENT, .after = OTHERS },

	/* What is damaged is exchanged for ours. */
	{ "what is damaged is replaced", true, { { 0 } }, .reason = KVK_REASON_NONE, .after = OURS },
	{ "what is damaged is gone", true, { HOLD(KVK_XFER_EXCHANGE, 1) }, .meddling = REMOVED,
	  .reason = KVK_REASON_NONE, .after = OURS },
	{ "another replaced it: it is given back", true, { HOLD(KVK_XFER_EXCHANGE, 1) }, .meddling = PUBLISHED,
	  .status = -EALREADY, .reason = KVK_REASON_BUSY, .after = OTHERS },
	{ "another replaced it, and it cannot be given back", true,
	  { HOLD(KVK_XFER_EXCHANGE, 1), FAIL(KVK_XFER_EXCHANGE, 2, EIO) }, .meddling = PUBLISHED,
	  .reason = KVK_REASON_NONE, .after = OURS, .left = 1 },
	{ "what came out cannot be found any more", true, { FAIL(KVK_XFER_STAT_NAME, 1, ENOENT) },
	  .reason = KVK_REASON_NONE, .after = OURS, .left = 1 },
	{ "the exchange fails", true, { FAIL(KVK_XFER_EXCHANGE, 1, EIO) }, .status = -EIO, .reason = KVK_REASON_MEDIUM },
	{ "ours gets no name beside it", true, { FAIL(KVK_XFER_PUBLISH, 2, EIO) }, .status = -EIO,
	  .reason = KVK_REASON_MEDIUM },

	/* Where nothing can be exchanged it is moved aside. */
	{ "moved aside and replaced", true, { NO_EXCHANGE }, .reason = KVK_REASON_NONE, .after = OURS },
	{ "moved aside: it is gone", true, { NO_EXCHANGE, HOLD(KVK_XFER_MOVE, 1) }, .meddling = REMOVED,
	  .reason = KVK_REASON_NONE, .after = OURS },
	{ "moved aside: it is another's, and moved back", true, { NO_EXCHANGE, HOLD(KVK_XFER_MOVE, 1) },
	  .meddling = PUBLISHED, .status = -EALREADY, .reason = KVK_REASON_BUSY, .after = OTHERS },
	{ "moved aside: nobody knows what it is, and it is moved back", true,
	  { NO_EXCHANGE, FAIL(KVK_XFER_STAT_NAME, 1, EIO) }, .status = -EALREADY, .reason = KVK_REASON_BUSY },
	{ "it cannot be moved aside", true, { NO_EXCHANGE, FAIL(KVK_XFER_MOVE, 1, EIO) }, .status = -EIO,
	  .reason = KVK_REASON_MEDIUM },
	{ "ours cannot be moved in", true, { NO_EXCHANGE, FAIL(KVK_XFER_MOVE, 2, EIO) }, .status = -EIO,
	  .reason = KVK_REASON_MEDIUM },

	/* The deadline passes. */
	{ "late while what is there is judged", true, { DELAY(KVK_XFER_OPEN, 1) }, .deadline_us = DEADLINE_US,
	  .status = -ETIMEDOUT, .reason = KVK_REASON_DEADLINE },
	{ "late when ours has a name beside it", true, { DELAY(KVK_XFER_PUBLISH, 2) }, .deadline_us = DEADLINE_US,
	  .status = -ETIMEDOUT, .reason = KVK_REASON_DEADLINE },
};

/* A file of its own inode takes the name at once, as when another process publishes there. */
static void publish(const char *path, const void *data, uint64_t bytes)
{
	char fresh[PATH_MAX + 8];

	snprintf(fresh, sizeof(fresh), "%s.fresh", path);
	kit_file_write(fresh, data, bytes);
	assert_int_equal(chmod(fresh, 0600), 0);
	assert_int_equal(rename(fresh, path), 0);
}

static void wait_until_struck(struct kvk_backend *fault, uint64_t count)
{
	uint64_t until_us = kit_now_us() + 30000000;

	while (kvk_fault_struck(fault) < count && kit_now_us() < until_us)
		usleep(1000);
	assert_true(kvk_fault_struck(fault) >= count);
}

static void wait_until_closed(struct kvk_store *store)
{
	uint64_t until_us = kit_now_us() + 30000000;

	while (bed_places(store) > 0 && kit_now_us() < until_us)
		usleep(1000);
	assert_int_equal(bed_places(store), 0);
}

/* Puts ours with the rules of the row, and meddles while one of them holds it. */
static struct kvk_result put_ours(struct bed *bed, const struct row *row, const char *path, const void *theirs,
				  uint64_t theirs_bytes)
{
	struct kvk_backend *fault = bed_backend(bed->store);
	struct kvk_result result = { .struct_bytes = sizeof(result) };
	struct kvk_put_item item = { .struct_bytes = sizeof(item), .key = bed_key("key") };
	uint64_t before = 0;
	struct iovec iov = { .iov_base = malloc(BYTES), .iov_len = BYTES };

	assert_non_null(iov.iov_base);
	bed_fill(iov.iov_base, BYTES, item.key, OURS, 0);
	item.data = &iov;
	item.data_count = 1;
	for (uint32_t i = 0; i < 2; i++) {
		if (row->rules[i].nth)
			assert_int_equal(kvk_fault_add(fault, &row->rules[i]), 0);
		/* Where nothing can be exchanged that is struck first. */
		if (row->rules[i].nth && i > 0 && row->rules[i].kind == KVK_FAULT_HANG)
			before = 1;
	}
	assert_true(kvk_store_put(bed->store, &item, 1, row->deadline_us) > 0);
	if (row->meddling != NOTHING) {
		wait_until_struck(fault, before + 1);
		if (row->meddling == PUBLISHED)
			publish(path, theirs, theirs_bytes);
		else
			assert_int_equal(unlink(path), 0);
		kvk_fault_release(fault);
	}
	assert_true(bed_next(bed->store, KVK_QUEUE_PUT, &result));
	wait_until_closed(bed->store);
	if (row->rules[0].nth && !kvk_fault_struck(fault))
		fail_msg("%s: no rule struck", row->name);
	kvk_fault_clear(fault);
	free(iov.iov_base);
	return result;
}

/* Files that are no objects. A put that was answered because it was late goes on to its end, and has some until then. */
static uint64_t left_over(struct bed *bed, uint64_t accepted)
{
	uint64_t until_us = kit_now_us() + 30000000, objects, others;

	do {
		usleep(1000);
		bed_files(bed, &objects, &others);
	} while (others > accepted && kit_now_us() < until_us);
	return others;
}

/* And until then the key is busy. */
static void put_again(struct kvk_store *store)
{
	uint64_t until_us = kit_now_us() + 30000000;
	int status;

	while ((status = bed_put(store, "key", BYTES, OURS, NULL)) == -EALREADY && kit_now_us() < until_us)
		usleep(1000);
	assert_int_equal(status, 0);
}

static void run_row(struct bed *bed, const struct row *row)
{
	struct kvk_result result;
	char path[PATH_MAX];
	uint64_t theirs_bytes, objects, others;
	uint8_t *theirs;
	int status;

	bed_open(bed, "\"lanes\": 2, \"fault\": []");
	assert_int_equal(bed_put(bed->store, "key", BYTES, OTHERS, NULL), 0);
	kit_path(path, bed->path, bed_key("key"));
	theirs = kit_file_read(path, &theirs_bytes);
	assert_int_equal(bed_remove(bed->store, "key", NULL), 0);
	BED_AGREES(bed->store);
	if (row->damaged) {
		theirs[theirs_bytes - 1] ^= 1;
		publish(path, theirs, theirs_bytes);
		theirs[theirs_bytes - 1] ^= 1;
	}

	result = put_ours(bed, row, path, theirs, theirs_bytes);
	if (result.status != row->status || result.reason != row->reason)
		fail_msg("%s: %d, %s; wanted %d, %s", row->name, result.status, kvk_reason_text(result.reason), row->status,
			 kvk_reason_text(row->reason));
	if (row->after)
		status = bed_get(bed->store, "key", BYTES, row->after, NULL);
	else
		status = bed_get(bed->store, "key", BYTES, OURS, NULL) ? 0 : -EEXIST;
	if (status)
		fail_msg("%s: afterwards %s", row->name, row->after ? "it is not there" : "it is there");
	others = left_over(bed, row->left);
	if (others > row->left)
		fail_msg("%s: %" PRIu64 " files are left over", row->name, others);

	/* Everything works, and a later run finds nothing that disagrees. */
	if (!row->after)
		put_again(bed->store);
	bed_reopen(bed, "");
	assert_int_equal(bed_get(bed->store, "key", BYTES, row->after ? row->after : OURS, NULL), 0);
	BED_AGREES(bed->store);
	bed_files(bed, &objects, &others);
	assert_int_equal(objects, 1);
	assert_int_equal(bed_remove(bed->store, "key", NULL), 0);
	BED_AGREES(bed->store);
	assert_int_equal(bed_close(bed), 0);
	free(theirs);
}

static void test_between_the_steps(void **state)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		printf("# %s\n", rows[i].name);
		run_row(*state, &rows[i]);
	}
}

struct taker {
	struct kvk_store *store;
	bool evicts;
	int status;
	pthread_t thread;
};

static void *take(void *argument)
{
	struct taker *taker = argument;
	uint64_t evicted;

	taker->status = taker->evicts ? kvk_store_evict(taker->store, 1, &evicted) : bed_remove(taker->store, "x", NULL);
	return NULL;
}

/* Others store something longer under the name after it was looked at, and before it is moved away: that is what is credited. No keeper
 * puts the books right. */
static void what_is_taken_is_credited(struct bed *bed, bool evicts)
{
	const char *more = "\"eviction\": {\"eviction_policy\": \"LRU\"}, \"fault\": [{\"do\": \"hang\", \"ops\": [\"move\"], \"nth\": 1, "
			   "\"times\": 1}]";
	struct bed second;
	struct taker taker = { .evicts = evicts };

	bed_keep_keeper_out(bed);
	bed_open(bed, more);
	second = *bed;
	second.store = NULL;
	second.outside = NULL;
	bed_open(&second, "\"eviction\": {\"eviction_policy\": \"LRU\"}");
	KIT_EXPECT(kit_store(bed->store, "x", BYTES, OTHERS), 0, KVK_REASON_NONE);
	taker.store = bed->store;
	assert_int_equal(pthread_create(&taker.thread, NULL, take, &taker), 0);
	kit_wait_struck(bed->store, 1);
	/* What is credited before it is posted would count too high: one waits for the other. */
	assert_int_equal(kit_used_settles(second.store, 24576), 24576);
	assert_int_equal(bed_remove(second.store, "x", NULL), 0);
	KIT_EXPECT(kit_store(second.store, "x", 3 * BYTES, OURS), 0, KVK_REASON_NONE);
	assert_int_equal(kit_used_settles(bed->store, 65536), 65536);
	kvk_fault_release(bed_backend(bed->store));
	pthread_join(taker.thread, NULL);
	assert_int_equal(taker.status, 0);
	assert_int_equal(kit_used_settles(bed->store, 0), 0);
	assert_int_equal(bed_list(bed->store).objects, 0);
	assert_int_equal(bed_close(&second), 0);
}

static void test_a_remove_credits_what_it_took(void **state)
{
	what_is_taken_is_credited(*state, false);
}

static void test_an_eviction_credits_what_it_took(void **state)
{
	what_is_taken_is_credited(*state, true);
}

/* What is damaged and replaced is given back by who unlinked it: where that fails it is still there, and charged. */
static void test_credited_by_who_unlinks(void **state)
{
	static const struct kvk_fault_rule fails = FAIL(KVK_XFER_UNLINK, 1, EIO);
	struct bed *bed = *state;
	uint64_t used, file_bytes;
	char path[PATH_MAX];
	uint8_t *file;

	bed_keep_keeper_out(bed);
	bed_open(bed, "");
	assert_int_equal(bed_put(bed->store, "key", BYTES, OTHERS, NULL), 0);
	used = bed_usage(bed->store).used_bytes;
	kit_path(path, bed->path, bed_key("key"));
	file = kit_file_read(path, &file_bytes);
	for (uint64_t failed = 0; failed < 2; failed++) {
		assert_int_equal(bed_close(bed), 0);
		file[file_bytes - 1] ^= 1;
		publish(path, file, file_bytes);
		file[file_bytes - 1] ^= 1;
		bed_open(bed, "\"fault\": []");
		if (failed)
			assert_int_equal(kvk_fault_add(bed_backend(bed->store), &fails), 0);
		assert_int_equal(bed_put(bed->store, "key", BYTES, OURS, NULL), 0);
		assert_int_equal(kvk_fault_struck(bed_backend(bed->store)), failed);
		assert_int_equal(bed_usage(bed->store).used_bytes, used + failed * used);
		assert_int_equal(left_over(bed, failed), failed);
		assert_int_equal(bed_get(bed->store, "key", BYTES, OURS, NULL), 0);
	}
	free(file);
}

/* Of what is there nothing is written, although nobody knows of it yet. */
static void test_nothing_is_written_of_what_is_there(void **state)
{
	static const struct kvk_fault_rule no_write = ALWAYS(KVK_XFER_WRITE, EIO);
	struct kvk_result result = { .struct_bytes = sizeof(result) };
	struct bed *bed = *state;

	bed_keep_keeper_out(bed);
	bed_open(bed, "");
	assert_int_equal(bed_put(bed->store, "key", BYTES, OTHERS, NULL), 0);
	bed_reopen(bed, "\"fault\": []");
	assert_int_equal(kvk_fault_add(bed_backend(bed->store), &no_write), 0);
	assert_int_equal(bed_put(bed->store, "key", BYTES, OTHERS, &result), 0);
	assert_int_equal(result.reason, KVK_REASON_PRESENT);
	assert_int_equal(kvk_fault_struck(bed_backend(bed->store)), 0);
}

static void damage(struct bed *bed, uint32_t generation)
{
	char path[PATH_MAX];
	uint64_t file_bytes;
	uint8_t *file;

	bed_open(bed, "");
	KIT_EXPECT(kit_store(bed->store, "key", BYTES, generation), 0, KVK_REASON_NONE);
	assert_int_equal(bed_close(bed), 0);
	kit_path(path, bed->path, bed_key("key"));
	file = kit_file_read(path, &file_bytes);
	file[file_bytes - 1] ^= 1;
	publish(path, file, file_bytes);
	free(file);
}

/* What is being moved aside is known from the snapshot, and listed by the keeper, a moment before: it is not there all the same, and the next put stores it. */
static void test_listed_while_it_is_moved_aside(void **state)
{
	static const uint8_t none[KVK_DIGEST_BYTES];
	const struct kvk_object_info kept = { .charge_bytes = 24576, .logical_bytes = BYTES, .source = KVK_SOURCE_SNAPSHOT };
	const struct kvk_object_info listed = { .charge_bytes = 24576, .source = KVK_SOURCE_NAME };
	struct kvk_key_item lookup = { .struct_bytes = sizeof(lookup), .key = bed_key("key") };
	struct kvk_get_item get = { .struct_bytes = sizeof(get), .key = bed_key("key"), .flags = KVK_GET_VERIFY };
	struct bed *bed = *state;
	uint8_t digest[KVK_DIGEST_BYTES];

	assert_int_equal(kvk_key_digest(digest, none, "key", 3), 0);
	bed_keep_keeper_out(bed);
	for (uint32_t round = 0; round < 2; round++) {
		struct kvk_catalog *catalog;
		struct kvk_result result;

		damage(bed, OTHERS + round);
		bed_open(bed, "\"fault\": [{\"do\": \"hang\", \"ops\": [\"move\"], \"nth\": 1, \"times\": 1}]");
		if (round == 0)
			assert_true(kvk_store_get(bed->store, &get, 1, 0) > 0);
		else
			assert_true(kvk_store_lookup(bed->store, &lookup, 1, 0) > 0);
		kit_wait_struck(bed->store, 1);
		catalog = bed_core(bed->store)->catalog;
		assert_int_equal(kvk_catalog_scanned(catalog, digest, &kept), 0);
		assert_int_equal(kvk_catalog_scanned(catalog, digest, &listed), 0);
		kvk_fault_release(bed_backend(bed->store));
		assert_true(bed_next(bed->store, round == 0 ? KVK_QUEUE_GET : KVK_QUEUE_LOOKUP, &result));
		assert_int_equal(result.reason, KVK_REASON_DAMAGED);
		KIT_EXPECT(kit_store(bed->store, "key", BYTES, OURS), 0, KVK_REASON_NONE);
		assert_int_equal(bed_get(bed->store, "key", BYTES, OURS, NULL), 0);
		assert_int_equal(bed_remove(bed->store, "key", NULL), 0);
		assert_int_equal(bed_close(bed), 0);
	}
}

/* ---- sweeps ----------------------------------------------------------------------------------------- */

/* Ways to something that was not meant: another's sound object is away from its name from the first of these steps to the second, which
 * gives it back. */
struct away {
	const char *name;
	const char *more;
	bool loads;                    /* a load moves it, else a put */
	bool damaged;
	struct kvk_fault_rule rules[3];   /* the last two hold */
};

static const struct away aways[] = {
	{ "exchanged", "", false, true, { { 0 }, HOLD(KVK_XFER_EXCHANGE, 1), HOLD(KVK_XFER_EXCHANGE, 2) } },
	{ "moved aside", "", false, true, { NO_EXCHANGE, HOLD(KVK_XFER_MOVE, 1), HOLD(KVK_XFER_MOVE, 2) } },
	{ "taken back", ", \"durability\": \"object\"", false, false,
	  { FAIL(KVK_XFER_SYNC_FOLDER, 1, EIO), HOLD(KVK_XFER_MOVE, 1), HOLD(KVK_XFER_MOVE, 2) } },
	{ "put in quarantine", "", true, true, { { 0 }, HOLD(KVK_XFER_MOVE, 1), HOLD(KVK_XFER_MOVE, 2) } },
};

/* What a keeper of this process does with the names that it finds. */
static void sweep(struct kvk_store *store)
{
	static const atomic_bool going_on;
	static struct kvk_scan scan;
	struct kvk_core *core = bed_core(store);

	memset(&scan, 0, sizeof(scan));
	scan.backend = core->backend;
	scan.adapter = core->adapter;
	scan.catalog = core->catalog;
	scan.account = core->account;
	scan.layout = core->superblock.layout;
	scan.stopping = &going_on;
	kvk_scan_init(&scan);
	kvk_scan_pass(&scan);
}

static void run_away(struct bed *bed, const struct away *away)
{
	struct kvk_get_item get = { .struct_bytes = sizeof(get), .key = bed_key("key"), .flags = KVK_GET_VERIFY };
	struct kvk_put_item put = { .struct_bytes = sizeof(put), .key = bed_key("key"), .data_count = 1 };
	struct iovec iov = { .iov_base = malloc(BYTES), .iov_len = BYTES };
	enum kvk_queue queue = away->loads ? KVK_QUEUE_GET : KVK_QUEUE_PUT;
	uint64_t theirs_bytes, objects, others, struck = away->rules[0].nth > 0;
	struct kvk_result result;
	struct bed second = *bed;
	char path[PATH_MAX], more[100];
	uint8_t *theirs;

	assert_non_null(iov.iov_base);
	bed_fill(iov.iov_base, BYTES, put.key, OURS, 0);
	put.data = &iov;
	snprintf(more, sizeof(more), "\"fault\": []%s", away->more);
	bed_open(bed, more);
	assert_int_equal(bed_put(bed->store, "key", BYTES, OTHERS, NULL), 0);
	kit_path(path, bed->path, bed_key("key"));
	theirs = kit_file_read(path, &theirs_bytes);
	assert_int_equal(bed_remove(bed->store, "key", NULL), 0);
	assert_int_equal(kit_used_settles(bed->store, 0), 0);
	assert_int_equal(bed_close(bed), 0);
	if (away->damaged) {
		theirs[theirs_bytes - 1] ^= 1;
		publish(path, theirs, theirs_bytes);
		theirs[theirs_bytes - 1] ^= 1;
	}
	bed_open(bed, more);
	second.store = NULL;
	second.outside = NULL;
	bed_open(&second, away->more + (*away->more ? 2 : 0));

	for (uint32_t i = 0; i < 3; i++) {
		if (away->rules[i].nth)
			assert_int_equal(kvk_fault_add(bed_backend(bed->store), &away->rules[i]), 0);
	}
	if (away->loads)
		assert_true(kvk_store_get(bed->store, &get, 1, 0) > 0);
	else
		assert_true(kvk_store_put(bed->store, &put, 1, 0) > 0);
	kit_wait_struck(bed->store, struck + 1);
	publish(path, theirs, theirs_bytes);
	kvk_fault_release(bed_backend(bed->store));
	kit_wait_struck(bed->store, struck + 2);
	sweep(second.store);
	sweep(bed->store);
	kvk_fault_release(bed_backend(bed->store));
	assert_true(bed_next(bed->store, queue, &result));
	wait_until_closed(bed->store);
	kvk_fault_clear(bed_backend(bed->store));

	assert_int_equal(bed_get(second.store, "key", BYTES, OTHERS, NULL), 0);
	assert_int_equal(bed_get(bed->store, "key", BYTES, OTHERS, NULL), 0);
	assert_int_equal(left_over(bed, 0), 0);
	bed_files(bed, &objects, &others);
	assert_int_equal(objects, 1);
	assert_int_equal(bed_close(&second), 0);
	bed_reopen(bed, away->more + (*away->more ? 2 : 0));
	BED_AGREES(bed->store);
	assert_int_equal(bed_remove(bed->store, "key", NULL), 0);
	BED_AGREES(bed->store);
	assert_int_equal(bed_close(bed), 0);
	free(theirs);
	free(iov.iov_base);
}

/* Keepers of this process and of another sweep while another's sound object is away from its name: it comes back. */
static void test_swept_while_it_is_away(void **state)
{
	struct bed *bed = *state;

	for (size_t i = 0; i < sizeof(aways) / sizeof(aways[0]); i++) {
		printf("# %s\n", aways[i].name);
		run_away(bed, &aways[i]);
	}
}

static struct kvk_result put_late(struct kvk_store *store)
{
	struct kvk_put_item put = { .struct_bytes = sizeof(put), .key = bed_key("key"), .data_count = 1 };
	struct iovec iov = { .iov_base = malloc(BYTES), .iov_len = BYTES };
	struct kvk_result result = { .struct_bytes = sizeof(result) };

	assert_non_null(iov.iov_base);
	bed_fill(iov.iov_base, BYTES, put.key, OURS, 0);
	put.data = &iov;
	assert_int_equal(kvk_store_put_wait(store, &put, 1, DEADLINE_US, &result), 0);
	free(iov.iov_base);
	return result;
}

/* All workers are at something else when a put that is late unlinks its own: it is unlinked all the same, when one is free. */
static void test_late_and_cleaned_up(void **state)
{
	static const struct kvk_fault_rule rules[] = {
		{ .kind = KVK_FAULT_HANG, .ops = 1u << KVK_XFER_UNLINK, .nth = 1, .every = 1, .times = WORKERS },
		DELAY(KVK_XFER_PUBLISH, 2),
	};
	struct bed *bed = *state;
	struct kvk_key_item items[WORKERS];
	struct kvk_result result;
	char keys[WORKERS][8];

	bed_keep_keeper_out(bed);
	damage(bed, OTHERS);
	bed_open(bed, "\"fault\": []");
	for (unsigned i = 0; i < WORKERS; i++) {
		snprintf(keys[i], sizeof(keys[i]), "%u", i);
		assert_int_equal(bed_put(bed->store, keys[i], 1, OTHERS, NULL), 0);
		items[i] = (struct kvk_key_item){ .struct_bytes = sizeof(items[i]), .key = bed_key(keys[i]) };
	}
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(kvk_fault_add(bed_backend(bed->store), &rules[i]), 0);
	assert_true(kvk_store_remove(bed->store, items, WORKERS, 0) > 0);
	for (unsigned i = 0; i < WORKERS; i++) {
		assert_true(bed_next(bed->store, KVK_QUEUE_PUT, &result));
		assert_int_equal(result.status, 0);
	}
	KIT_EXPECT(put_late(bed->store), -ETIMEDOUT, KVK_REASON_DEADLINE);
	usleep(4 * DEADLINE_US);
	kvk_fault_clear(bed_backend(bed->store));
	kvk_fault_release(bed_backend(bed->store));
	wait_until_closed(bed->store);
	assert_int_equal(left_over(bed, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BED_TESTS_POSIX(test_between_the_steps),
		BED_TESTS_POSIX(test_a_remove_credits_what_it_took),
		BED_TESTS_POSIX(test_an_eviction_credits_what_it_took),
		BED_TESTS_POSIX(test_credited_by_who_unlinks),
		BED_TESTS_POSIX(test_nothing_is_written_of_what_is_there),
		BED_TESTS_POSIX(test_listed_while_it_is_moved_aside),
		BED_TESTS_POSIX(test_swept_while_it_is_away),
		BED_TESTS_POSIX(test_late_and_cleaned_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
