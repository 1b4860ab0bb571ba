/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store under load on a file system on a disk of medium.h, round by round: each ends with everything being loaded from the
 * disk itself, past every cache, and judged by the ledger of the load.
 */
#ifndef KVK_TESTS_BAD_DISK_H
#define KVK_TESTS_BAD_DISK_H

#include "unit/store_kit.h"

#include "system/disk.h"
#include "system/load.h"
#include "system/medium.h"

#define BAD_DISK_KEYS 96
#define BAD_DISK_WORKERS 3
#define BAD_DISK_BYTES_MAX 400000u
#define BAD_DISK_RUN_US_MAX 60000

/* Where, and how. */
struct bad_disk_scene {
	const struct disk_kind *disk;
	uint64_t disk_bytes;
	const char *make;
	unsigned mechanism_count;
	enum bed_kind mechanisms[4];
};

extern const struct bad_disk_scene bad_disk_ext4, bad_disk_xfs, bad_disk_pool_pages, bad_disk_pool_slots;

struct bad_disk {
	const struct bad_disk_scene *scene;
	struct disk disk;
	struct medium *medium;
	struct bed bed;
	struct load_ledger ledger;
	struct load load;
	struct load_worker workers[BAD_DISK_WORKERS];
	atomic_bool stop;
	bool busy;
	uint64_t random, rounds, acknowledged;
	struct load_found found;
};

/* For cmocka: *state is a struct bad_disk. */
int bad_disk_setup(void **state);
int bad_disk_teardown(void **state);

/* Makes the disk and opens the store; the test is skipped where there can be none. */
void bad_disk_begin(struct bad_disk *run, const struct bad_disk_scene *scene);
/* With one of the scene's mechanisms, at durability `object`. */
void bad_disk_open(struct bad_disk *run);
/* Nothing of the disk stays in the kernel's memory. */
void bad_disk_close_and_mount(struct bad_disk *run);
void bad_disk_start_load(struct bad_disk *run);
void bad_disk_stop_load(struct bad_disk *run);
/* A while of it, of random length. */
void bad_disk_run_load(struct bad_disk *run);
/* Waits until it has counted so many, a minute at most. what: that it does not. */
void bad_disk_wait(const struct bad_disk *run, uint64_t (*count)(const struct bad_disk *run), uint64_t least, const char *what);
uint64_t bad_disk_good_puts(const struct bad_disk *run);
/* Ends a round: nothing is wrong, lost or without an answer. Leaves the store open. */
void bad_disk_verify(struct bad_disk *run);
/* What came of all rounds, and the line for the proof. */
void bad_disk_tell(const struct bad_disk *run, unsigned row, const char *what, const char *unit);

#endif
