/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is there when a store is opened is found: charged exactly, in the order in which it was used, of its tenants; and what
 * is nobody's is left alone.
 */
#include <sched.h>
#include <sys/file.h>
#include <sys/mount.h>

#include "unit/scan_kit.h"

#include "adapter/adapter.h"
#include "control/scan.h"

static int by_used_bytes(const void *a, const void *b)
{
	const struct kvk_share *left = a, *right = b;

	return strcmp((const char *)left->name, (const char *)right->name);
}

static uint32_t shares_of(struct kvk_store *store, struct kvk_share *shares, uint32_t count)
{
	uint32_t n;

	for (uint32_t i = 0; i < count; i++)
		shares[i] = (struct kvk_share){ .struct_bytes = sizeof(shares[i]) };
	n = kvk_catalog_shares(bed_core(store)->catalog, KVK_BY_TENANT, shares, count);
	qsort(shares, n, sizeof(*shares), by_used_bytes);
	return n;
}

static void same_shares(const struct kvk_share *before, uint32_t count, struct kvk_store *store)
{
	struct kvk_share after[16];

	assert_int_equal(shares_of(store, after, 16), count);
	for (uint32_t i = 0; i < count; i++) {
		assert_string_equal((const char *)after[i].name, (const char *)before[i].name);
		assert_int_equal(after[i].used_bytes, before[i].used_bytes);
		assert_int_equal(after[i].objects, before[i].objects);
	}
}

/* Two uses whose times are this close together may have changed places. */
static void same_order(const struct scan_order *before, const struct scan_order *after, uint64_t grain_ns)
{
	assert_int_equal(after->count, before->count);
	for (uint32_t i = 0; i < before->count; i++) {
		uint32_t k = i;

		while (k > 0 && before->uses[i].used_at - before->uses[k - 1].used_at <= grain_ns)
			k--;
		while (k < before->count && memcmp(before->uses[k].prefix, after->uses[i].prefix, 16) &&
		       (before->uses[k].used_at <= before->uses[i].used_at + grain_ns))
			k++;
		if (k == before->count || memcmp(before->uses[k].prefix, after->uses[i].prefix, 16))
			fail_msg("place %u of %u in the order of use is another object's", i, before->count);
		assert_int_equal(after->uses[i].charge_bytes, before->uses[k].charge_bytes);
	}
}

/* ---- restarts ----------------------------------------------------------------------------------- */

static void test_a_clean_close_is_remembered(void **state)
{
	struct bed *bed = *state;
	struct scan_order before, after;
	struct kvk_share shares[16];
	struct kvk_usage usage;
	uint32_t count;
	char key[64];

	bed_open(bed, "");
	put_all(bed->store, OBJECTS);
	for (unsigned i = 0; i < OBJECTS; i += 7) {
		key_of(key, i);
		assert_int_equal(bed_get(bed->store, key, bytes_of(i), 1, NULL), 0);
	}
	scan_settles(bed->store, bed->path);
	usage = bed_usage(bed->store);
	assert_int_equal(usage.objects, OBJECTS);
	before = scan_order_of(bed->store);
	count = shares_of(bed->store, shares, 16);
	assert_int_equal(count, 5);

	bed_reopen(bed, "");
	scan_settles(bed->store, bed->path);
	assert_int_equal(bed_usage(bed->store).used_bytes, usage.used_bytes);
	assert_int_equal(bed_usage(bed->store).objects, OBJECTS);
	assert_int_equal(scan_state(bed->store).from_snapshot, OBJECTS);
	assert_int_equal(scan_state(bed->store).footers, 0);
	after = scan_order_of(bed->store);
	same_order(&before, &after, 0);
	same_shares(shares, count, bed->store);
	get_all(bed->store, OBJECTS);
	free(before.uses);
	free(after.uses);
}

static void test_a_killed_store_is_found_again(void **state)
{
	struct bed *bed = *state;
	struct scan_order after;
	struct kvk_share shares[16];
	char key[64];

	in_a_child(bed, store_and_die);
	bed_open(bed, "");
	scan_settles(bed->store, bed->path);
	assert_int_equal(bed_usage(bed->store).objects, OBJECTS);
	assert_int_equal(scan_state(bed->store).from_snapshot, 0);
	assert_int_equal(scan_state(bed->store).footers, OBJECTS);
	assert_int_equal(scan_state(bed->store).unreadable, 0);
	assert_int_equal(shares_of(bed->store, shares, 16), 5);
	/* As they were stored, as far as the kernel's tick tells. */
	after = scan_order_of(bed->store);
	assert_int_equal(after.count, OBJECTS);
	for (unsigned i = 0; i < OBJECTS; i++) {
		static const uint8_t none[KVK_DIGEST_BYTES];
		uint8_t digest[KVK_DIGEST_BYTES];
		uint32_t k = 0;

		key_of(key, i);
		assert_int_equal(kvk_key_digest(digest, none, key, (uint32_t)strlen(key)), 0);
		while (k < OBJECTS && memcmp(after.uses[k].prefix, digest, 16))
			k++;
		assert_true(k < OBJECTS);
		assert_int_equal(after.uses[k].source, KVK_SOURCE_FOOTER);
		assert_int_equal(after.uses[k].logical_bytes, bytes_of(i));
		assert_true(i == 0 || after.uses[k].used_at + 20000000 >= after.uses[i / 2].used_at);
	}
	get_all(bed->store, OBJECTS);
	free(after.uses);
}

/* Access times alone say what was used last, whatever the order of storing was. */
static void test_recency_from_access_times(void **state)
{
	struct bed *bed = *state;
	struct scan_order after;
	char key[64], path[PATH_MAX];

	bed_open(bed, "");
	put_all(bed->store, 50);
	assert_int_equal(bed_close(bed), 0);
	for (unsigned i = 0; i < 50; i++) {
		struct timespec times[2] = { { .tv_sec = (time_t)(1000000 + (i * 17) % 50) }, { .tv_sec = 1000 } };

		key_of(key, i);
		kit_path(path, bed->path, bed_key(key));
		assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
	}
	snprintf(path, sizeof(path), "%s/.kvkeep/snapshot", bed->path);
	unlink(path);
	bed_open(bed, "");
	scan_wait_phase(bed->store, KVK_SCAN_IDLE);
	after = scan_order_of(bed->store);
	assert_int_equal(after.count, 50);
	for (unsigned i = 0; i < 50; i++) {
		static const uint8_t none[KVK_DIGEST_BYTES];
		uint8_t digest[KVK_DIGEST_BYTES];

		key_of(key, i);
		assert_int_equal(kvk_key_digest(digest, none, key, (uint32_t)strlen(key)), 0);
		assert_memory_equal(after.uses[(i * 17) % 50].prefix, digest, 16);
	}
	free(after.uses);
}

/*
 * A load says in the access time that the object is in use: at most once a minute, and never in the other time. On a
 * file system that does not set access times by itself, so that it can only be us.
 */
static void test_loads_renew_access_times(void **state)
{
	static const struct {
		long accessed_ago_s;
		uint32_t flags;
		bool renewed;
	} rows[] = { { 3600, 0, true }, { 70, 0, true }, { 30, 0, false }, { 3600, KVK_GET_PEEK, false } };
	struct bed *bed = *state;
	struct timespec now;
	uint64_t until_us;
	struct stat stat;
	uint8_t data[4096];
	char path[512];

	mkdir(bed->path, 0700);
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("tmpfs", bed->path, "tmpfs", MS_NOATIME, "size=16m,mode=0700"))
		SKIP("a file system without access times cannot be mounted here");
	bed_open(bed, "");
	assert_int_equal(bed_put(bed->store, "k", 4096, 1, NULL), 0);
	assert_int_equal(bed_path_of(bed, "k", path, sizeof(path)), 0);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct timespec times[2];

		/* Times of files come from the last tick, which may be of the second before. */
		clock_gettime(CLOCK_REALTIME_COARSE, &now);
		times[0] = (struct timespec){ .tv_sec = now.tv_sec - rows[i].accessed_ago_s };
		times[1] = (struct timespec){ .tv_sec = now.tv_sec - 7200 };
		assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
		assert_int_equal(kit_get(bed->store, bed_key("k"), data, sizeof(data), rows[i].flags).status, 0);
		/* It is set after the answer, on a busy machine long after. */
		until_us = kit_now_us() + (rows[i].renewed ? 20000000 : 200000);
		do {
			usleep(1000);
			assert_int_equal(lstat(path, &stat), 0);
		} while (stat.st_atim.tv_sec == times[0].tv_sec && kit_now_us() < until_us);
		assert_int_equal(stat.st_mtim.tv_sec, times[1].tv_sec);
		if (rows[i].renewed)
			assert_true(stat.st_atim.tv_sec >= now.tv_sec);
		else
			assert_int_equal(stat.st_atim.tv_sec, times[0].tv_sec);
	}
	assert_int_equal(bed_close(bed), 0);
	assert_int_equal(umount(bed->path), 0);
}

/* Known by name only, it answers from the medium: what is not whole is no hit, before and after the scan. */
static void test_a_name_is_no_hit(void **state)
{
	struct bed *bed = *state;
	struct kvk_result result = { .struct_bytes = sizeof(result) };
	char path[512];

	bed_open(bed, "");
	assert_int_equal(bed_put(bed->store, "torn", 20000, 1, NULL), 0);
	assert_int_equal(bed_put(bed->store, "zero", 20000, 1, NULL), 0);
	assert_int_equal(bed_put(bed->store, "whole", 20000, 1, NULL), 0);
	assert_int_equal(bed_path_of(bed, "torn", path, sizeof(path)), 0);
	assert_int_equal(truncate(path, 12288), 0);
	assert_int_equal(bed_path_of(bed, "zero", path, sizeof(path)), 0);
	assert_int_equal(truncate(path, 0), 0);
	assert_int_equal(bed_close(bed), 0);
	snprintf(path, sizeof(path), "%s/.kvkeep/snapshot", bed->path);
	unlink(path);

	bed_open(bed, "");
	scan_settles(bed->store, bed->path);
	assert_int_equal(scan_state(bed->store).unreadable, 2);
	assert_int_equal(bed_lookup(bed->store, "whole", 0, &result), 0);
	assert_int_equal(result.object_bytes, 20000);
	assert_int_not_equal(bed_lookup(bed->store, "torn", 0, NULL), 0);
	assert_int_not_equal(bed_lookup(bed->store, "zero", 0, NULL), 0);
	/* Nor is a put of it answered from memory. */
	assert_int_equal(bed_put(bed->store, "zero", 20000, 1, &result), 0);
	assert_int_equal(result.reason, KVK_REASON_NONE);
	assert_int_equal(bed_get(bed->store, "zero", 20000, 1, NULL), 0);
	assert_int_equal(bed_put(bed->store, "whole", 20000, 1, &result), 0);
	assert_int_equal(result.reason, KVK_REASON_PRESENT);
	scan_settles(bed->store, bed->path);
}

/* ---- what dead processes left ------------------------------------------------------------------- */

static void test_sweeps_the_dead_and_spares_the_living(void **state)
{
	static const char dead[] = "ab/.tmp-0123456789abcdef-1", alive[] = "ab/.tmp-0123456789abcdef-2";
	static const char inherited[] = "ab/.tmp-fedcba9876543210-1";
	static const char gone[] = "ab/abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789.7.gone";
	struct bed *bed = *state;
	char path[512];
	int fd, inherited_fd, writer_fd;

	bed_open(bed, "");
	put_all(bed->store, 20);
	assert_int_equal(bed_close(bed), 0);
	snprintf(path, sizeof(path), "%s/ab", bed->path);
	mkdir(path, 0700);
	close(make(bed, dead, 50000));
	close(make(bed, gone, 60000));
	fd = make(bed, alive, 70000);
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
	writer_fd = kit_writer_lives(bed->path, UINT64_C(0x0123456789abcdef));
	/* A child of its writer has it open, who is dead. */
	inherited_fd = make(bed, inherited, 40000);
	assert_int_equal(flock(inherited_fd, LOCK_EX | LOCK_NB), 0);

	bed_open(bed, "");
	/* The living one is on the disk, so it counts. */
	scan_settles(bed->store, bed->path);
	assert_int_equal(scan_state(bed->store).swept, 3);
	snprintf(path, sizeof(path), "%s/%s", bed->path, dead);
	assert_int_equal(access(path, F_OK), -1);
	snprintf(path, sizeof(path), "%s/%s", bed->path, inherited);
	assert_int_equal(access(path, F_OK), -1);
	snprintf(path, sizeof(path), "%s/%s", bed->path, gone);
	assert_int_equal(access(path, F_OK), -1);
	snprintf(path, sizeof(path), "%s/%s", bed->path, alive);
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(unlink(path), 0);
	close(writer_fd);
	close(inherited_fd);
	close(fd);
	scan_settles(bed->store, bed->path);
}

/* Somebody's own files: neither charged nor touched. */
static void test_junk_is_not_charged(void **state)
{
	struct bed *bed = *state;
	uint64_t used, objects;
	char path[512], target[512];

	bed_open(bed, "");
	put_all(bed->store, 20);
	scan_settles(bed->store, bed->path);
	used = bed_usage(bed->store).used_bytes;
	objects = bed_usage(bed->store).objects;
	assert_int_equal(bed_close(bed), 0);
	snprintf(path, sizeof(path), "%s/ab", bed->path);
	mkdir(path, 0700);
	close(make(bed, "ab/notes.txt", 100000));
	close(make(bed, "abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789.kv", 100000));
	close(make(bed, "ab/cdef0123456789abcdef0123456789abcdef0123456789abcdef012345678900.kv", 100000));
	snprintf(path, sizeof(path), "%s/ab/ab%062d.kv", bed->path, 1);
	assert_int_equal(mkdir(path, 0700), 0);
	snprintf(path, sizeof(path), "%s/ab/ab%062d.kv", bed->path, 2);
	snprintf(target, sizeof(target), "%s/ab/notes.txt", bed->path);
	assert_int_equal(symlink(target, path), 0);

	bed_open(bed, "");
	scan_wait_phase(bed->store, KVK_SCAN_IDLE);
	usleep(600000);
	assert_int_equal(bed_usage(bed->store).used_bytes, used);
	assert_int_equal(bed_usage(bed->store).objects, objects);
	assert_int_equal(access(target, F_OK), 0);
}

/* ---- adopted directories ------------------------------------------------------------------------ */

#define ADOPTED 300
#define LRU "\"eviction\": {\"eviction_policy\": \"LRU\", \"trigger_watermark\": 1.0, \"eviction_ratio\": 0.1}"

/* What LMCache left: payloads without footers, each third under a name of the older generation. */
static void plant(const struct bed *bed, const struct kvk_layout *layout, unsigned i, char key[64])
{
	char name[KVK_NAME_BYTES_MAX], path[PATH_MAX];
	uint8_t *data = malloc(bytes_of(i) + 1);
	uint32_t bytes = (uint32_t)snprintf(key, 64, "org/model-%u@%08x@0@%08x", i % 4, i % 3, i * 2654435761u);

	if (i % 3)
		assert_int_equal(kvk_name_make(name, layout, NULL, key, bytes), 0);
	else
		assert_int_equal(kvk_name_make_old(name, layout, key, bytes), 0);
	for (char *at = strchr(name, '/'); at; at = strchr(at + 1, '/')) {
		snprintf(path, sizeof(path), "%s/%.*s", bed->path, (int)(at - name), name);
		mkdir(path, 0700);
	}
	snprintf(path, sizeof(path), "%s/%s", bed->path, name);
	bed_fill(data, bytes_of(i), bed_key(key), 1, 0);
	kit_file_write(path, data, bytes_of(i));
	free(data);
}

/* Found, charged, told apart by model, loadable, evictable. */
static void adopt(struct bed *bed, const struct kvk_layout *layout, const char *spec)
{
	struct kvk_share shares[8];
	char key[64], junk[512];
	uint64_t evicted, disk;

	for (unsigned i = 0; i < ADOPTED; i++)
		plant(bed, layout, i, key);
	usleep(30000);
	bed_open(bed, spec);
	usleep(30000);
	if (!bed_backend(bed->store)->caps.birth_time)
		SKIP("this file system does not tell when files were born");
	scan_settles(bed->store, bed->path);
	assert_int_equal(bed_usage(bed->store).objects, ADOPTED);
	assert_int_equal(scan_state(bed->store).unreadable, ADOPTED);
	for (uint32_t i = 0; i < 8; i++)
		shares[i] = (struct kvk_share){ .struct_bytes = sizeof(shares[i]) };
	assert_int_equal(kvk_catalog_shares(bed_core(bed->store)->catalog, KVK_BY_MODEL, shares, 8), 4);
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(shares[i].objects, ADOPTED / 4);
	for (unsigned i = 0; i < ADOPTED; i++) {
		snprintf(key, sizeof(key), "org/model-%u@%08x@0@%08x", i % 4, i % 3, i * 2654435761u);
		assert_int_equal(bed_get(bed->store, key, bytes_of(i), 1, NULL), 0);
	}
	/* Those that were looked up are not charged a second time. */
	assert_int_equal(bed_usage(bed->store).objects, ADOPTED);
	scan_settles(bed->store, bed->path);
	disk = scan_disk_bytes(bed->path);
	snprintf(junk, sizeof(junk), "%s/pytorch_model.bin", bed->path);
	kit_file_write(junk, "x", 1);
	assert_int_equal(kvk_store_evict(bed->store, disk / 2, &evicted), 0);
	assert_in_range(evicted, disk / 2, disk);
	assert_int_equal(kvk_store_evict(bed->store, disk, &evicted), 0);
	assert_int_equal(access(junk, F_OK), 0);
	assert_int_equal(unlink(junk), 0);
	assert_int_equal(scan_disk_bytes(bed->path), 0);
	scan_settles(bed->store, bed->path);
	assert_int_equal(bed_usage(bed->store).objects, 0);
}

static void test_adopts_a_flat_directory(void **state)
{
	adopt(*state, &(struct kvk_layout){ KVK_NAMING_LMCACHE, 0 },
	      "\"naming\": \"lmcache\", \"unverified\": \"accept\", " LRU);
}

static void test_adopts_a_sharded_directory(void **state)
{
	adopt(*state, &(struct kvk_layout){ KVK_NAMING_LMCACHE, 2 },
	      "params:\"shard_dirs\": true; \"naming\": \"lmcache\", \"unverified\": \"accept\", " LRU);
}

/* ---- many --------------------------------------------------------------------------------------- */

static void store_many_and_die(struct bed *bed)
{
	bed_open(bed, "");
	put_all(bed->store, (unsigned)kit_number("KVK_SCAN_OBJECTS", 5000));
}

static int by_prefix(const void *a, const void *b)
{
	return memcmp(((const struct scan_use *)a)->prefix, ((const struct scan_use *)b)->prefix, 16);
}

/* The order in which they were stored, and would go without a restart. Of those of one tick the medium's times tell none. */
static void in_the_order_of_puts(const struct scan_order *order)
{
	static const uint8_t none[KVK_DIGEST_BYTES];
	struct scan_use *uses = malloc(order->count * sizeof(*uses));
	uint64_t last = 0;

	assert_non_null(uses);
	memcpy(uses, order->uses, order->count * sizeof(*uses));
	qsort(uses, order->count, sizeof(*uses), by_prefix);
	for (uint32_t i = 0; i < order->count; i++) {
		uint8_t digest[KVK_DIGEST_BYTES];
		struct scan_use key = { 0 };
		const struct scan_use *use;
		char text[64];

		key_of(text, i);
		assert_int_equal(kvk_key_digest(digest, none, text, (uint32_t)strlen(text)), 0);
		memcpy(key.prefix, digest, sizeof(key.prefix));
		use = bsearch(&key, uses, order->count, sizeof(*uses), by_prefix);
		assert_non_null(use);
		assert_true(use->used_at >= last);
		last = use->used_at;
	}
	assert_true(order->uses[0].used_at < last);
	free(uses);
}

/* Killed, found again; closed, remembered: the same usage and the same order each time. KVK_SCAN_OBJECTS=100000 takes 40 s. */
static void test_many(void **state)
{
	uint64_t count = kit_number("KVK_SCAN_OBJECTS", 5000), used;
	struct bed *bed = *state;
	struct scan_order killed, scanned, closed;

	in_a_child(bed, store_many_and_die);
	bed_open(bed, "");
	scan_settles(bed->store, bed->path);
	killed = scan_order_of(bed->store);
	assert_int_equal(killed.count, count);
	in_the_order_of_puts(&killed);
	used = bed_usage(bed->store).used_bytes;
	assert_int_equal(bed_close(bed), 0);
	bed_open(bed, "");
	scan_settles(bed->store, bed->path);
	assert_int_equal(scan_state(bed->store).from_snapshot, count);
	closed = scan_order_of(bed->store);
	same_order(&killed, &closed, 0);
	assert_int_equal(bed_usage(bed->store).used_bytes, used);
	bed_close(bed);
	bed_open(bed, "");
	scan_wait_phase(bed->store, KVK_SCAN_IDLE);
	scanned = scan_order_of(bed->store);
	same_order(&closed, &scanned, 0);
	free(killed.uses);
	free(scanned.uses);
	free(closed.uses);
}

/* ---- beside those who store --------------------------------------------------------------------- */

/* The adapter of a store and a catalog of their own, so that nobody else reads footers. */
struct meanwhile {
	struct kvk_adapter *adapter;
	struct kvk_catalog *catalog;
	const struct kvk_adapter_ops *ops;
	unsigned puts;
};

static struct meanwhile meanwhile;

/* While the footer is on its way from the medium to the catalog, the object is removed: of each second one a put follows. */
static int inspect_and_remove(struct kvk_adapter *adapter, const char *name, struct kvk_listed *listed)
{
	struct kvk_object_info info = { .logical_bytes = 1, .charge_bytes = 8192, .published = true };
	int err = meanwhile.ops->inspect(adapter, name, listed);
	bool pinned, durable;
	uint64_t charge;

	if (err)
		return err;
	assert_int_equal(kvk_catalog_remove_begin(meanwhile.catalog, listed->facts.digest, &pinned), 0);
	kvk_catalog_remove_renamed(meanwhile.catalog, listed->facts.digest, true, &charge);
	kvk_catalog_credit(meanwhile.catalog, charge);
	if (meanwhile.puts++ % 2) {
		assert_int_equal(kvk_catalog_put_begin(meanwhile.catalog, listed->facts.digest, 8192, &durable), 0);
		kvk_catalog_put_end(meanwhile.catalog, listed->facts.digest, &info);
	}
	return 0;
}

static bool rest_not(void *user, uint64_t us)
{
	(void)user;
	(void)us;
	return true;
}

/* Else a put of it would be told that it is present, and nothing would be stored. */
static void test_what_is_removed_meanwhile_is_not_present(void **state)
{
	static const uint8_t none[KVK_DIGEST_BYTES];
	struct bed *bed = *state;
	struct kvk_scan *scan = calloc(1, sizeof(*scan));
	struct kvk_catalog_totals totals;
	struct kvk_adapter_options options;
	struct kvk_adapter_ops ops;
	struct kvk_core *core;
	atomic_bool stopping = false;

	bed_open(bed, "");
	put_all(bed->store, OBJECTS);
	core = bed_core(bed->store);
	options = (struct kvk_adapter_options){ .backend = core->backend, .layout = core->superblock.layout,
						.namespace_digest = none };
	assert_int_equal(kvk_dynamic_open(&meanwhile.adapter, &options), 0);
	assert_int_equal(kvk_catalog_new(&meanwhile.catalog, UINT64_MAX, NULL), 0);
	meanwhile.ops = meanwhile.adapter->ops;
	meanwhile.puts = 0;
	ops = *meanwhile.ops;
	ops.inspect = inspect_and_remove;
	meanwhile.adapter->ops = &ops;
	assert_non_null(scan);
	scan->backend = core->backend;
	scan->adapter = meanwhile.adapter;
	scan->catalog = meanwhile.catalog;
	scan->account = core->account;
	scan->layout = core->superblock.layout;
	scan->stopping = &stopping;
	kvk_scan_init(scan);
	for (uint32_t bucket = 0; bucket < scan->bucket_count; bucket++) {
		assert_int_equal(kvk_scan_names(scan, bucket), 0);
		assert_int_equal(kvk_scan_footers(scan, bucket, rest_not, NULL), 0);
	}
	assert_int_equal(meanwhile.puts, OBJECTS);
	kvk_catalog_totals(meanwhile.catalog, &totals);
	assert_int_equal(totals.objects, OBJECTS / 2);
	assert_int_equal(totals.used_bytes, OBJECTS / 2 * 8192);
	for (unsigned i = 0; i < OBJECTS; i++) {
		struct kvk_catalog_ticket ticket;
		struct kvk_object_info info;
		uint8_t digest[KVK_DIGEST_BYTES];
		char key[64];

		key_of(key, i);
		assert_int_equal(kvk_key_digest(digest, none, key, (uint32_t)strlen(key)), 0);
		/* What was put meanwhile is as the put said. */
		if (kvk_catalog_look(meanwhile.catalog, digest, false, false, &ticket, &info) == KVK_CATALOG_PRESENT)
			assert_int_equal(info.logical_bytes, 1);
	}
	kvk_catalog_free(meanwhile.catalog);
	meanwhile.ops->close(meanwhile.adapter);
	free(scan);
	bed_close(bed);
}

int main(void)
{
	kit_in_memory();
	const struct CMUnitTest tests[] = {
		BED_TESTS_POSIX(test_a_clean_close_is_remembered),
		BED_TESTS_POSIX(test_a_killed_store_is_found_again),
		BED_TEST(test_recency_from_access_times, BED_THREADS, "threads"),
		BED_TESTS_POSIX(test_loads_renew_access_times),
		BED_TEST(test_a_name_is_no_hit, BED_URING, "io_uring"),
		BED_TEST(test_sweeps_the_dead_and_spares_the_living, BED_THREADS, "threads"),
		BED_TEST(test_junk_is_not_charged, BED_THREADS, "threads"),
		BED_TEST(test_adopts_a_flat_directory, BED_THREADS, "threads"),
		BED_TEST(test_adopts_a_sharded_directory, BED_THREADS, "threads"),
		BED_TEST(test_many, BED_THREADS, "threads"),
		BED_TEST(test_what_is_removed_meanwhile_is_not_present, BED_THREADS, "threads"),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
