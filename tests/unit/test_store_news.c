/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one process removes the others know within a moment, although they list no folders: lookups and puts stop saying that it is
 * there. Without kvk_news_follow() every case but the first and the last one falls over: they would say so until they load it.
 */
#include "unit/scan_kit.h"

#include "account/account.h"
#include "backend/backend.h"
#include "store/item.h"

#define BYTES 5000
#define PATIENCE_US 20000000

/* ---- the file ----------------------------------------------------------------------------------- */

static void test_head(void **state)
{
	struct kvk_news_head head = { .generation = UINT64_C(0x0123456789abcdef), .count = 77 }, read, before;
	uint8_t data[KVK_NEWS_HEAD_BYTES + 1];

	kvk_news_encode(&head, data);
	assert_int_equal(kvk_news_parse(&read, data, KVK_NEWS_HEAD_BYTES), 0);
	assert_memory_equal(&read, &head, sizeof(head));
	before = read;
	for (uint32_t bytes = 0; bytes <= sizeof(data); bytes++) {
		if (bytes != KVK_NEWS_HEAD_BYTES)
			assert_int_equal(kvk_news_parse(&read, data, bytes), -EBADMSG);
	}
	for (uint32_t bit = 0; bit < 8 * KVK_NEWS_HEAD_BYTES; bit++) {
		data[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(kvk_news_parse(&read, data, KVK_NEWS_HEAD_BYTES), -EBADMSG);
		data[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	assert_memory_equal(&read, &before, sizeof(read));
}

/* ---- two processes ------------------------------------------------------------------------------ */

/* bed->store is the keeper, the other one is not. */
static void open_both(struct bed *bed, struct kvk_store **other)
{
	struct kvk_store *keeper;

	bed_open(bed, "\"eviction\": {\"eviction_policy\": \"LRU\"}");
	scan_wait_phase(bed->store, KVK_SCAN_IDLE);
	keeper = bed->store;
	bed->store = NULL;
	bed_open(bed, "\"eviction\": {\"eviction_policy\": \"LRU\"}");
	*other = bed->store;
	bed->store = keeper;
}

/* That a lookup finds nothing, at the latest in a while. */
static void becomes_absent(struct kvk_store *store, const char *key)
{
	uint64_t until_us = kit_now_us() + PATIENCE_US;

	while (bed_lookup(store, key, 0, NULL) == 0) {
		if (kit_now_us() > until_us)
			fail_msg("%s is said to be there for ever", key);
		usleep(2000);
	}
}

static void knows(struct kvk_store *store, const char *key)
{
	uint64_t before = bed_stats(store).lookup_memory_hits;

	assert_int_equal(bed_lookup(store, key, 0, NULL), 0);
	assert_int_equal(bed_stats(store).lookup_memory_hits, before + 1);
}

static void test_removed_by_the_keeper(void **state)
{
	struct bed *bed = *state;
	struct kvk_store *other;
	uint64_t asked;

	open_both(bed, &other);
	assert_int_equal(bed_put(other, "m@0@0@gone", BYTES, 1, NULL), 0);
	assert_int_equal(bed_put(other, "m@0@0@stays", BYTES, 1, NULL), 0);
	knows(other, "m@0@0@gone");
	assert_int_equal(bed_remove(bed->store, "m@0@0@gone", NULL), 0);
	asked = bed_stats(other).lookup_medium_hits;
	becomes_absent(other, "m@0@0@gone");
	/* Only what went is forgotten. */
	knows(other, "m@0@0@stays");
	assert_int_equal(bed_stats(other).lookup_medium_hits, asked);
	/* A put stores it anew, and does not say that it is there. */
	assert_int_equal(kit_store(other, "m@0@0@gone", BYTES, 2).reason, KVK_REASON_NONE);
	assert_int_equal(bed_get(bed->store, "m@0@0@gone", BYTES, 2, NULL), 0);
	assert_int_equal(kvk_store_close(other), 0);
}

/* Waits until a process has heard that an object is gone. */
static void becomes_doubted(struct kvk_store *store, const char *key)
{
	struct kvk_key name = bed_key(key);
	uint64_t until_us = kit_now_us() + PATIENCE_US;
	struct kvk_catalog_ticket ticket;
	struct kvk_identity identity;

	assert_int_equal(kvk_core_identify(bed_core(store), &identity, &name), 0);
	while (!kvk_catalog_wants_footer(bed_core(store)->catalog, identity.id, &ticket)) {
		assert_true(kit_now_us() < until_us);
		usleep(1000);
	}
}

/* Who asks the medium for what is doubted, and finds nothing, has it in his books no longer. */
static void test_asked_for(void **state)
{
	static const char *const keys[] = { "m@0@0@looked-up", "m@0@0@loaded" };
	struct bed *bed = *state;
	struct kvk_store *other;

	open_both(bed, &other);
	/* So that what the other one knows is less than there is. */
	assert_int_equal(bed_put(bed->store, "m@0@0@large", 40 * BYTES, 1, NULL), 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(bed_put(other, keys[i], BYTES, 1, NULL), 0);
		assert_int_equal(bed_usage(other).objects, 1);
		assert_int_equal(bed_remove(bed->store, keys[i], NULL), 0);
		becomes_doubted(other, keys[i]);
		assert_int_equal(i ? bed_get(other, keys[i], BYTES, 1, NULL) : bed_lookup(other, keys[i], 0, NULL), -ENOENT);
		assert_int_equal(bed_usage(other).objects, 0);
	}
	assert_int_equal(kvk_store_close(other), 0);
}

/* What others removed, and nobody asks for again, does not stay for ever. */
static void test_nobody_asks(void **state)
{
	struct bed *bed = *state;
	struct kvk_store *other;
	uint64_t until_us;
	char key[64];

	open_both(bed, &other);
	put_all(other, 40);
	assert_int_equal(bed_put(other, "m@0@0@stays", BYTES, 1, NULL), 0);
	assert_int_equal(bed_lookup(other, "m@0@0@stays", KVK_LOOKUP_PIN, NULL), 0);
	for (unsigned i = 0; i < 40; i++) {
		key_of(key, i);
		assert_int_equal(bed_remove(bed->store, key, NULL), 0);
	}
	for (until_us = kit_now_us() + PATIENCE_US; bed_usage(other).objects > 1; usleep(2000))
		assert_true(kit_now_us() < until_us);
	knows(other, "m@0@0@stays");
	assert_int_equal(bed_remove(other, "m@0@0@stays", NULL), -EBUSY);
	assert_int_equal(kvk_store_close(other), 0);
}

static void test_evicted_by_the_keeper(void **state)
{
	struct bed *bed = *state;
	struct kvk_store *other;
	uint64_t evicted, until_us = kit_now_us() + PATIENCE_US;
	char key[64];

	open_both(bed, &other);
	put_all(other, 40);
	while (bed_usage(bed->store).objects < 40) {
		assert_true(kit_now_us() < until_us);
		usleep(2000);
	}
	assert_int_equal(kvk_store_evict(bed->store, UINT64_MAX / 2, &evicted), 0);
	assert_true(evicted > 0);
	for (unsigned i = 0; i < 40; i++) {
		key_of(key, i);
		becomes_absent(other, key);
	}
	assert_int_equal(kvk_store_close(other), 0);
}

/* What one found damaged and moved aside the other would answer puts of with "present", and nothing is there. */
static void test_moved_aside(void **state)
{
	struct bed *bed = *state;
	struct kvk_store *other;
	char path[512], meta[8];
	/* With room for metadata it asks the medium, whatever the keeper has listed meanwhile. */
	struct kvk_key_item item = {
		.struct_bytes = sizeof(item), .key = bed_key("m@0@0@spoiled"), .meta = meta, .meta_bytes = sizeof(meta),
	};
	struct kvk_result result = { .struct_bytes = sizeof(result) };
	int fd;

	open_both(bed, &other);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(bed_put(other, "m@0@0@spoiled", BYTES, 1, NULL), 0);
		assert_int_equal(bed_path_of(bed, "m@0@0@spoiled", path, sizeof(path)), 0);
		fd = open(path, O_WRONLY);
		assert_true(fd >= 0);
		/* Of the payload; then of the footer, which a lookup reads, too. */
		assert_int_equal(pwrite(fd, "spoiled", 7, i == 0 ? 100 : lseek(fd, 0, SEEK_END) - 100), 7);
		assert_int_equal(close(fd), 0);
		knows(other, "m@0@0@spoiled");
		if (i == 0)
			assert_int_equal(bed_get(bed->store, "m@0@0@spoiled", BYTES, 1, NULL), -EBADMSG);
		else
			assert_int_equal(kvk_store_lookup_wait(bed->store, &item, 1, 0, &result), 0);
		becomes_absent(other, "m@0@0@spoiled");
	}
	assert_int_equal(kvk_store_close(other), 0);
}

/* A pin stays with its key, whatever becomes of what it was put on. */
static void test_pinned(void **state)
{
	struct bed *bed = *state;
	struct kvk_store *other;

	open_both(bed, &other);
	assert_int_equal(bed_put(other, "m@0@0@pinned", BYTES, 1, NULL), 0);
	assert_int_equal(bed_lookup(other, "m@0@0@pinned", KVK_LOOKUP_PIN, NULL), 0);
	assert_int_equal(bed_remove(bed->store, "m@0@0@pinned", NULL), 0);
	becomes_absent(other, "m@0@0@pinned");
	assert_int_equal(bed_put(bed->store, "m@0@0@pinned", BYTES, 2, NULL), 0);
	assert_int_equal(bed_lookup(other, "m@0@0@pinned", 0, NULL), 0);
	assert_int_equal(bed_remove(other, "m@0@0@pinned", NULL), -EBUSY);
	assert_int_equal(bed_unpin(other, "m@0@0@pinned"), 0);
	assert_int_equal(bed_remove(other, "m@0@0@pinned", NULL), 0);
	assert_int_equal(kvk_store_close(other), 0);
}

/* More at once than there is room for: nobody knows what it was, so everything is asked for once. */
static void test_too_much(void **state)
{
	static const uint8_t nothing[KVK_NEWS_ID_BYTES];
	struct bed *bed = *state;
	struct kvk_store *other;
	uint64_t asked, until_us = kit_now_us() + PATIENCE_US;

	open_both(bed, &other);
	assert_int_equal(bed_put(other, "m@0@0@doubted", BYTES, 1, NULL), 0);
	assert_int_equal(bed_put(other, "m@0@0@gone", BYTES, 1, NULL), 0);
	knows(other, "m@0@0@doubted");
	asked = bed_stats(other).lookup_medium_hits;
	for (uint32_t i = 0; i < 3 * KVK_NEWS_TOLD_MAX; i++)
		kvk_news_tell(bed_core(bed->store), nothing);
	assert_int_equal(bed_remove(bed->store, "m@0@0@gone", NULL), 0);
	becomes_absent(other, "m@0@0@gone");
	while (bed_stats(other).lookup_medium_hits == asked) {
		assert_int_equal(bed_lookup(other, "m@0@0@doubted", 0, NULL), 0);
		assert_true(kit_now_us() < until_us);
		usleep(1000);
	}
	assert_int_equal(kvk_store_close(other), 0);
}

/* As another process that posts, and takes its time. */
static int keep_from_posting(const struct bed *bed)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = KVK_LOCK_NEWS, .l_len = 1 };
	uint64_t until_us = kit_now_us() + PATIENCE_US;
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/.kvkeep/locks", bed->path);
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	while (fcntl(fd, F_OFD_SETLK, &lock)) {
		assert_true(kit_now_us() < until_us);
		usleep(200);
	}
	return fd;
}

/*
 * 1. There is no more room for what is told, and the room thread reads how much there is to post. 2. More is told, for which there is
 * no room. 3. It posts. Nothing is left to be posted but that something was: that is news as well.
 */
static void test_too_much_while_posting(void **state)
{
	static const uint8_t nothing[KVK_NEWS_ID_BYTES];
	struct bed *bed = *state;
	struct kvk_store *other;
	char key[64];

	open_both(bed, &other);
	for (unsigned round = 0; round < 4; round++) {
		int fd = keep_from_posting(bed);

		snprintf(key, sizeof(key), "m@0@0@round-%u", round);
		assert_int_equal(bed_put(other, key, BYTES, 1, NULL), 0);
		for (uint32_t i = 0; i < KVK_NEWS_TOLD_MAX; i++)
			kvk_news_tell(bed_core(bed->store), nothing);
		/* Long enough that it waits for us most of the time, and not as long as it would wait. */
		usleep(400000);
		kvk_room_ring(bed_core(bed->store));
		usleep(30000);
		assert_int_equal(bed_remove(bed->store, key, NULL), 0);
		assert_int_equal(close(fd), 0);
		becomes_absent(other, key);
	}
	assert_int_equal(kvk_store_close(other), 0);
}

static uint64_t head_count(const struct bed *bed)
{
	uint8_t data[KVK_NEWS_HEAD_BYTES] = { 0 };
	struct kvk_news_head head = { 0 };
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/.kvkeep/news", bed->path);
	fd = open(path, O_RDONLY);
	if (fd >= 0) {
		if (read(fd, data, sizeof(data)) == sizeof(data))
			kvk_news_parse(&head, data, sizeof(data));
		close(fd);
	}
	return head.count;
}

/* However often the room thread comes round since somebody rings for room, he does not wait for files of news to be synced each time. */
static void test_posts_in_its_time(void **state)
{
	static const uint8_t nothing[KVK_NEWS_ID_BYTES];
	struct bed *bed = *state;
	uint64_t start_us, count, last = 0;
	struct kvk_store *other;
	unsigned posts = 0;

	open_both(bed, &other);
	for (start_us = kit_now_us(); posts == 0 || kit_now_us() - start_us < 1000000; usleep(1000)) {
		assert_true(kit_now_us() - start_us < PATIENCE_US);
		kvk_news_tell(bed_core(bed->store), nothing);
		kvk_room_ring(bed_core(bed->store));
		count = head_count(bed);
		posts += count > last;
		last = count > last ? count : last;
	}
	assert_in_range(posts, 1, (kit_now_us() - start_us) / 250000 + 2);
	assert_int_equal(kvk_store_close(other), 0);
}

static void count_complaints(void *user, int level, const char *text)
{
	if (strstr(text, "cannot be written to .kvkeep/news"))
		atomic_fetch_add((atomic_uint *)user, 1);
}

/* What cannot be written is said once, however often it is tried, and goes out when it can be. */
static void test_said_once(void **state)
{
	struct bed *bed = *state;
	atomic_uint complaints = 0;
	struct kvk_hooks hooks = { .struct_bytes = sizeof(hooks), .user = &complaints, .log = count_complaints };
	uint64_t until_us = kit_now_us() + PATIENCE_US;
	char path[512], aside[512];
	struct kvk_store *other;

	bed->hooks = &hooks;
	open_both(bed, &other);
	assert_int_equal(bed_put(other, "m@0@0@first", BYTES, 1, NULL), 0);
	assert_int_equal(bed_put(other, "m@0@0@second", BYTES, 1, NULL), 0);
	assert_int_equal(bed_remove(bed->store, "m@0@0@first", NULL), 0);
	becomes_absent(other, "m@0@0@first");
	snprintf(path, sizeof(path), "%s/.kvkeep/news-ids", bed->path);
	snprintf(aside, sizeof(aside), "%s/.kvkeep/news-aside", bed->path);
	assert_int_equal(rename(path, aside), 0);
	assert_int_equal(mkdir(path, 0700), 0);
	/* Who is not the keeper reads as well, which goes well. */
	assert_int_equal(bed_remove(other, "m@0@0@second", NULL), 0);
	while (atomic_load(&complaints) == 0) {
		assert_true(kit_now_us() < until_us);
		usleep(1000);
	}
	for (unsigned i = 0; i < 20; i++) {
		kvk_room_ring(bed_core(other));
		usleep(30000);
	}
	assert_int_equal(atomic_load(&complaints), 1);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(rename(aside, path), 0);
	while (kvk_news_extent(bed_core(other)).told_count > 0) {
		assert_true(kit_now_us() < until_us);
		usleep(1000);
	}
	assert_int_equal(kvk_store_close(other), 0);
}

static void spoil(const struct bed *bed, const char *name)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/.kvkeep/%s", bed->path, name);
	fd = open(path, O_WRONLY | O_TRUNC);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "not news", 8), 8);
	assert_int_equal(close(fd), 0);
}

/* Files that are damaged are written anew, and what was in them counts as a gap. */
static void test_damaged(void **state)
{
	static const char *const files[] = { "news", "news-ids" };
	struct bed *bed = *state;
	struct kvk_store *other;
	char key[64];

	open_both(bed, &other);
	assert_int_equal(bed_put(other, "m@0@0@first", BYTES, 1, NULL), 0);
	assert_int_equal(bed_remove(bed->store, "m@0@0@first", NULL), 0);
	becomes_absent(other, "m@0@0@first");
	for (unsigned i = 0; i < 2; i++) {
		spoil(bed, files[i]);
		snprintf(key, sizeof(key), "m@0@0@after-%s", files[i]);
		assert_int_equal(bed_put(other, key, BYTES, 1, NULL), 0);
		assert_int_equal(bed_remove(bed->store, key, NULL), 0);
		becomes_absent(other, key);
	}
	assert_int_equal(kvk_store_close(other), 0);
}

/* The ring comes round. */
static void test_round(void **state)
{
	struct bed *bed = *state;
	struct kvk_store *other;
	char key[64];
	uint8_t id[KVK_NEWS_ID_BYTES] = { 1 };

	open_both(bed, &other);
	for (unsigned round = 0; round < 6; round++) {
		uint64_t until_us = kit_now_us() + PATIENCE_US;

		snprintf(key, sizeof(key), "m@0@0@round-%u", round);
		assert_int_equal(bed_put(other, key, BYTES, 1, NULL), 0);
		for (unsigned i = 0; i < KVK_NEWS_TOLD_MAX - 10; i++)
			kvk_news_tell(bed_core(bed->store), id);
		assert_int_equal(bed_remove(bed->store, key, NULL), 0);
		becomes_absent(other, key);
		while (kvk_news_extent(bed_core(bed->store)).told_count > 0) {
			assert_true(kit_now_us() < until_us);
			usleep(1000);
		}
	}
	assert_int_equal(kvk_store_close(other), 0);
}

/*
 * A process removes an object, and is killed before its room thread has told the others: nobody knows what it was. The dead one is an
 * account, as its process left it: with a lease, or without one, as in a store that is full.
 */
static void removed_by_the_dead(struct bed *bed, uint64_t lease_bytes)
{
	struct kvk_backend_options options = { .path = bed->path, .writer_id = 77 };
	struct kvk_account_visit visit = { .want_bytes = lease_bytes };
	struct kvk_account *account;
	struct kvk_backend *backend;
	struct kvk_store *other;
	char path[PATH_MAX];

	open_both(bed, &other);
	assert_int_equal(bed_put(other, "m@0@0@gone", BYTES, 1, NULL), 0);
	knows(other, "m@0@0@gone");
	assert_int_equal(kvk_backend_posix.open(&backend, &options, NULL), 0);
	assert_int_equal(kvk_account_open(&account, backend, 0, false, NULL, NULL), 0);
	assert_int_equal(kvk_account_visit(account, &visit, 1000), 0);
	assert_int_equal(visit.granted_bytes, lease_bytes);
	assert_int_equal(bed_path_of(bed, "m@0@0@gone", path, sizeof(path)), 0);
	assert_int_equal(unlink(path), 0);
	kvk_account_abandon(account);
	backend->ops->close(backend);
	becomes_absent(other, "m@0@0@gone");
	assert_int_equal(kit_store(other, "m@0@0@gone", BYTES, 2).reason, KVK_REASON_NONE);
	assert_int_equal(kvk_store_close(other), 0);
}

static void test_removed_by_the_dead(void **state)
{
	removed_by_the_dead(*state, 1 << 20);
}

static void test_removed_by_the_dead_without_a_lease(void **state)
{
	removed_by_the_dead(*state, 0);
}

static void *close_it(void *argument)
{
	assert_int_equal(kvk_store_close(argument), 0);
	return NULL;
}

/* What is removed while the store closes, after its room thread has told the others for the last time, they hear of as well. */
static void test_removed_while_closing(void **state)
{
	struct kvk_key_item gone = { .struct_bytes = sizeof(gone), .key = bed_key("m@0@0@gone") };
	struct bed *bed = *state, third = *bed;
	struct kvk_store *other;
	pthread_t thread;

	open_both(bed, &other);
	third.store = NULL;
	third.outside = NULL;
	bed_open(&third, "\"fault\": [{\"do\": \"hang\", \"ops\": [\"move\"], \"nth\": 1, \"times\": 1}]");
	assert_int_equal(bed_put(other, "m@0@0@gone", BYTES, 1, NULL), 0);
	knows(other, "m@0@0@gone");
	assert_true(kvk_store_remove(third.store, &gone, 1, 0) > 0);
	kit_wait_struck(third.store, 1);
	assert_int_equal(pthread_create(&thread, NULL, close_it, third.store), 0);
	/* If that is too short, less is tried. */
	usleep(400000);
	kvk_fault_release(bed_backend(third.store));
	pthread_join(thread, NULL);
	becomes_absent(other, "m@0@0@gone");
	assert_int_equal(kit_store(other, "m@0@0@gone", BYTES, 2).reason, KVK_REASON_NONE);
	assert_int_equal(kvk_store_close(other), 0);
}

/* Who is alone writes nothing. */
static void test_alone(void **state)
{
	struct bed *bed = *state;
	uint64_t until_us = kit_now_us() + PATIENCE_US;
	char path[512];

	bed_open(bed, "");
	assert_int_equal(bed_put(bed->store, "m@0@0@key", BYTES, 1, NULL), 0);
	assert_int_equal(bed_remove(bed->store, "m@0@0@key", NULL), 0);
	while (kvk_news_extent(bed_core(bed->store)).told_count > 0) {
		assert_true(kit_now_us() < until_us);
		usleep(1000);
	}
	snprintf(path, sizeof(path), "%s/.kvkeep/news", bed->path);
	assert_int_equal(access(path, F_OK), -1);
}

int main(void)
{
	kit_in_memory();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_head),
		BED_TEST(test_removed_by_the_keeper, BED_THREADS, "threads"),
		BED_TEST(test_removed_by_the_keeper, BED_URING, "io_uring"),
		BED_TEST(test_evicted_by_the_keeper, BED_THREADS, "threads"),
		BED_TEST(test_moved_aside, BED_THREADS, "threads"),
		BED_TEST(test_pinned, BED_THREADS, "threads"),
		BED_TEST(test_asked_for, BED_THREADS, "threads"),
		BED_TEST(test_nobody_asks, BED_THREADS, "threads"),
		BED_TEST(test_too_much, BED_THREADS, "threads"),
		BED_TEST(test_too_much_while_posting, BED_THREADS, "threads"),
		BED_TEST(test_posts_in_its_time, BED_THREADS, "threads"),
		BED_TEST(test_said_once, BED_THREADS, "threads"),
		BED_TEST(test_damaged, BED_THREADS, "threads"),
		BED_TEST(test_round, BED_THREADS, "threads"),
		BED_TEST(test_removed_by_the_dead, BED_THREADS, "threads"),
		BED_TEST(test_removed_by_the_dead_without_a_lease, BED_THREADS, "threads"),
		BED_TEST(test_removed_while_closing, BED_THREADS, "threads"),
		BED_TEST(test_alone, BED_THREADS, "threads"),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
