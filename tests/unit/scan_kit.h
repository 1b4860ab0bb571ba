/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the scan share: what is on the disk, how far the keeper is, and the order in which objects would go. */
#ifndef KVK_TESTS_UNIT_SCAN_KIT_H
#define KVK_TESTS_UNIT_SCAN_KIT_H

#include <ftw.h>
#include <signal.h>
#include <sys/wait.h>

#include "unit/store_kit.h"

#include "catalog/catalog.h"
#include "store/core.h"
#include "util/clock.h"

/* ---- objects and processes ----------------------------------------------------------------------- */

#define OBJECTS 400

static inline void key_of(char key[64], unsigned i)
{
	snprintf(key, 64, "model-%u@%08x@0@%08x@tenant-%u", i % 2, i % 3, i, i % 5);
}

static inline uint64_t bytes_of(unsigned i)
{
	return kit_mix(i) % 30000;
}

static inline void put_all(struct kvk_store *store, unsigned count)
{
	char key[64];

	for (unsigned i = 0; i < count; i++) {
		key_of(key, i);
		assert_int_equal(bed_put(store, key, bytes_of(i), 1, NULL), 0);
	}
}

static inline void get_all(struct kvk_store *store, unsigned count)
{
	char key[64];

	for (unsigned i = 0; i < count; i++) {
		key_of(key, i);
		assert_int_equal(bed_get(store, key, bytes_of(i), 1, NULL), 0);
	}
}

static inline void in_a_child(struct bed *bed, void (*run)(struct bed *bed))
{
	pid_t child = fork();
	int status;

	assert_true(child >= 0);
	if (child == 0) {
		run(bed);
		raise(SIGKILL);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static inline void store_and_die(struct bed *bed)
{
	bed_open(bed, "");
	put_all(bed->store, OBJECTS);
}

static inline int make(const struct bed *bed, const char *name, uint64_t bytes)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", bed->path, name);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	return fd;
}

/* ---- the disk ----------------------------------------------------------------------------------- */

static uint64_t scan_disk_bytes_sum;
static size_t scan_root_length;

static inline int scan_add_file(const char *path, const struct stat *stat, int flag, struct FTW *walk)
{
	const char *below = path + scan_root_length;

	if (flag == FTW_F && S_ISREG(stat->st_mode) &&
	    (strncmp(below, "/.kvkeep/", 9) || !strncmp(below, "/.kvkeep/quarantine/", 20)))
		scan_disk_bytes_sum += kvk_page_ceil((uint64_t)stat->st_size);
	return 0;
}

/* Lengths in whole pages of all files but the store's own. Everything there is must be the store's. */
static inline uint64_t scan_disk_bytes(const char *root)
{
	scan_disk_bytes_sum = 0;
	scan_root_length = strlen(root);
	nftw(root, scan_add_file, 16, FTW_PHYS);
	return scan_disk_bytes_sum;
}

/* ---- the keeper --------------------------------------------------------------------------------- */

static inline struct kvk_scan_state scan_state(struct kvk_store *store)
{
	struct kvk_core *core = bed_core(store);
	struct kvk_scan_state state;

	core->scan_state(core->scan_user, &state);
	return state;
}

static inline void scan_wait_phase(struct kvk_store *store, enum kvk_scan_phase phase)
{
	uint64_t until_us = kit_now_us() + 20000000;

	while (scan_state(store).phase != phase) {
		struct kvk_account_row row = { 0 };

		if (kit_now_us() > until_us) {
			kvk_account_rows(bed_core(store)->account, &row, 1);
			fail_msg("the scan is in phase %d, not %d; unsettled %u, trouble %d, settled %" PRId64 " ms ago",
				 scan_state(store).phase, phase, scan_state(store).unsettled, scan_state(store).trouble,
				 (int64_t)(kvk_wall_ns() - row.settled_ns) / 1000000);
		}
		usleep(1000);
	}
}

/* At rest, the account says what the disk holds, to the byte. */
static inline void scan_settles(struct kvk_store *store, const char *root)
{
	uint64_t until_us = kit_now_us() + 20000000, used, disk;

	scan_wait_phase(store, KVK_SCAN_IDLE);
	for (;;) {
		used = bed_usage(store).used_bytes;
		disk = scan_disk_bytes(root);
		if (used == disk)
			return;
		if (kit_now_us() > until_us)
			fail_msg("used %" PRIu64 ", on the disk %" PRIu64, used, disk);
		usleep(5000);
	}
}

/* ---- the order of use --------------------------------------------------------------------------- */

struct scan_use {
	uint8_t prefix[16];
	uint64_t used_at;
	uint64_t charge_bytes;
	uint64_t logical_bytes;
	enum kvk_source source;
	bool has_parent;
};

struct scan_order {
	struct scan_use *uses;
	uint32_t count, room;
};

static inline bool scan_order_add(void *user, const uint8_t prefix[16], const struct kvk_object_info *info)
{
	static const uint8_t none[16];
	struct scan_order *order = user;
	struct scan_use *use;

	if (order->count == order->room) {
		order->room = order->room ? 2 * order->room : 64;
		order->uses = realloc(order->uses, order->room * sizeof(*order->uses));
	}
	use = &order->uses[order->count++];
	*use = (struct scan_use){ .used_at = info->used_at, .charge_bytes = info->charge_bytes,
				  .logical_bytes = info->logical_bytes, .source = info->source,
				  .has_parent = memcmp(info->parent_digest, none, 16) != 0 };
	memcpy(use->prefix, prefix, 16);
	return true;
}

static inline int scan_by_use(const void *a, const void *b)
{
	const struct scan_use *left = a, *right = b;

	if (left->used_at != right->used_at)
		return left->used_at < right->used_at ? -1 : 1;
	return memcmp(left->prefix, right->prefix, 16);
}

/* All that is known, coldest first. */
static inline struct scan_order scan_order_of(struct kvk_store *store)
{
	struct scan_order order = { NULL, 0, 0 };

	for (uint32_t shard = 0; shard < KVK_CATALOG_SHARDS; shard++)
		assert_int_equal(kvk_catalog_visit(bed_core(store)->catalog, shard, scan_order_add, &order), 0);
	if (order.count)
		qsort(order.uses, order.count, sizeof(*order.uses), scan_by_use);
	return order;
}

#endif
