/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cap is kept: to the last object, by eviction where a policy is set, by refusal where none is; through a change of the
 * cap, with two openers of one directory, after a crash, and where the medium has less than the cap says.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

#include "store/core.h"
#include "unit/store_kit.h"

#include "backend/posix/sys.h"
#include "control/evict.h"
#include "control/room.h"

/* What an object of OBJECT bytes costs: payload and one page of footer. */
#define OBJECT 61440u
#define CHARGE (OBJECT + 4096u)
/* 16 objects. */
#define CAP_16 "params:\"max_capacity_gb\": 0.0009765625; "
#define LRU "\"eviction\": {\"eviction_policy\": \"LRU\", \"trigger_watermark\": 1.0, \"eviction_ratio\": 0.1}"

/* A key that has a name in LMCache's way of naming, too. */
static const char *name_of(uint32_t i)
{
	static _Thread_local char name[32];

	snprintf(name, sizeof(name), "m@00000000@0@%08x", i);
	return name;
}

static void put_some(struct kvk_store *store, uint32_t first, uint32_t count)
{
	for (uint32_t i = first; i < first + count; i++)
		KIT_EXPECT(kit_store(store, name_of(i), OBJECT, 1), 0, KVK_REASON_NONE);
}

static bool has(struct kvk_store *store, uint32_t i)
{
	return bed_lookup(store, name_of(i), 0, NULL) == 0;
}

/* Exactly as many as fit, and one more for each one that goes. */
static void test_to_the_brim(void **state)
{
	struct bed *bed = *state;

	bed_open(bed, CAP_16);
	put_some(bed->store, 0, 16);
	KIT_EXPECT(kit_store(bed->store, "more", OBJECT, 1), -ENOSPC, KVK_REASON_NO_ROOM);
	KIT_EXPECT(kit_store(bed->store, "small", 1, 1), -ENOSPC, KVK_REASON_NO_ROOM);
	assert_int_equal(bed_usage(bed->store).used_bytes, 16 * CHARGE);
	assert_int_equal(bed_stats(bed->store).put_no_room, 2);
	for (uint32_t i = 0; i < 8; i++) {
		assert_int_equal(bed_remove(bed->store, name_of(i), NULL), 0);
		/* Its room comes back when the medium has forgotten it; a put waits for that. */
		assert_int_equal(kit_used_settles(bed->store, 15 * CHARGE), 15 * CHARGE);
		KIT_EXPECT(kit_store(bed->store, name_of(100 + i), OBJECT, 1), 0, KVK_REASON_NONE);
		KIT_EXPECT(kit_store(bed->store, "more", OBJECT, 1), -ENOSPC, KVK_REASON_NO_ROOM);
	}
	/* What is there is served, and stored again, whatever the cap. */
	KIT_EXPECT(kit_store(bed->store, name_of(9), OBJECT, 1), 0, KVK_REASON_PRESENT);
	KIT_EXPECT(kit_load(bed->store, name_of(9), OBJECT, 1), 0, KVK_REASON_NONE);
	BED_AGREES(bed->store);
}

/* A put that finds no room makes it: the coldest goes, what was read or is pinned stays. */
static void test_a_put_makes_room(void **state)
{
	struct bed *bed = *state;

	bed_open(bed, CAP_16 LRU);
	put_some(bed->store, 0, 16);
	KIT_EXPECT(kit_load(bed->store, name_of(0), OBJECT, 1), 0, KVK_REASON_NONE);
	assert_int_equal(bed_lookup(bed->store, name_of(1), KVK_LOOKUP_PIN, NULL), 0);
	put_some(bed->store, 16, 4);
	assert_true(has(bed->store, 0));
	assert_true(has(bed->store, 1));
	assert_false(has(bed->store, 2));
	for (uint32_t i = 16; i < 20; i++)
		assert_true(has(bed->store, i));
	assert_true(bed_stats(bed->store).evicted >= 4);
	assert_true(bed_usage(bed->store).used_bytes <= 16 * CHARGE);
	/* Ten times what fits goes through. */
	put_some(bed->store, 20, 160);
	assert_true(has(bed->store, 1));
	assert_true(has(bed->store, 179));
	assert_int_equal(bed_unpin(bed->store, name_of(1)), 0);
	BED_AGREES(bed->store);
}

/* What the cap would not hold even if all went: it is refused, and nothing went for it. */
static void test_larger_than_the_cap(void **state)
{
	struct bed *bed = *state;

	bed_open(bed, CAP_16 LRU);
	put_some(bed->store, 0, 12);
	KIT_EXPECT(kit_store(bed->store, "large", 16 * CHARGE, 1), -ENOSPC, KVK_REASON_NO_ROOM);
	assert_int_equal(bed_stats(bed->store).evicted, 0);
	for (uint32_t i = 0; i < 12; i++)
		assert_true(has(bed->store, i));
	/* Just so large that all must go. */
	KIT_EXPECT(kit_store(bed->store, "large", 16 * CHARGE - 4096, 1), 0, KVK_REASON_NONE);
	assert_int_equal(bed_stats(bed->store).evicted, 12);
	BED_AGREES(bed->store);
}

/* All that is there is pinned: nothing may go, and the put says so. */
static void test_pins_are_stronger(void **state)
{
	struct bed *bed = *state;

	bed_open(bed, CAP_16 LRU);
	put_some(bed->store, 0, 16);
	for (uint32_t i = 0; i < 16; i++)
		assert_int_equal(bed_lookup(bed->store, name_of(i), KVK_LOOKUP_PIN, NULL), 0);
	KIT_EXPECT(kit_store(bed->store, "more", OBJECT, 1), -ENOSPC, KVK_REASON_NO_ROOM);
	for (uint32_t i = 0; i < 16; i++)
		assert_true(has(bed->store, i));
	assert_int_equal(bed_unpin(bed->store, name_of(7)), 0);
	KIT_EXPECT(kit_store(bed->store, "more", OBJECT, 1), 0, KVK_REASON_NONE);
	assert_false(has(bed->store, 7));
}

/* A cap that is lowered while the store is open is reached by evicting; one that is raised gives room at once. */
static void test_the_cap_changes(void **state)
{
	struct bed *bed = *state;
	uint64_t until_us = kit_now_us() + 20000000, evicted;

	bed_open(bed, CAP_16 "\"eviction\": {\"eviction_policy\": \"LRU\", \"trigger_watermark\": 1.0, \"eviction_ratio\": 0.01}");
	put_some(bed->store, 0, 16);
	assert_int_equal(kvk_store_set_cap(bed->store, 1000), -EINVAL);
	assert_int_equal(kvk_store_set_cap(bed->store, 8 * CHARGE), 0);
	while (bed_usage(bed->store).used_bytes > 8 * CHARGE && kit_now_us() < until_us)
		usleep(1000);
	assert_true(bed_usage(bed->store).used_bytes <= 8 * CHARGE);
	assert_int_equal(bed_usage(bed->store).cap_bytes, 8 * CHARGE);
	assert_true(has(bed->store, 15));
	assert_false(has(bed->store, 0));
	assert_int_equal(kvk_store_set_cap(bed->store, 32 * CHARGE), 0);
	put_some(bed->store, 100, 20);
	assert_true(has(bed->store, 15));
	assert_int_equal(kvk_store_evict(bed->store, 3 * CHARGE, &evicted), 0);
	assert_int_equal(evicted, 3 * CHARGE);
	BED_AGREES(bed->store);
	if (bed->kind == BED_RAM)
		return;
	/* It is remembered; an open that says something else changes it. */
	bed_reopen(bed, "");
	assert_int_equal(bed_usage(bed->store).cap_bytes, 32 * CHARGE);
	bed_reopen(bed, CAP_16);
	assert_int_equal(bed_usage(bed->store).cap_bytes, 16 * CHARGE);
}

/* Above the watermark objects leave, and while there are loads with pauses: twelve of 8 MiB take 60 ms each, and after four there is a
 * pause of 240 ms. */
static void test_loads_come_first(void **state)
{
	struct bed *bed = *state;
	uint64_t begin_us;

	bed_open(bed, "\"fault\": [{\"do\": \"delay\", \"ops\": [\"unlink\"], \"delay_ms\": 60, \"chance\": 1}], "
		      "\"eviction\": {\"eviction_policy\": \"LRU\", \"trigger_watermark\": 0.5, \"eviction_ratio\": 0.65}");
	for (uint32_t i = 0; i < 18; i++)
		KIT_EXPECT(kit_store(bed->store, name_of(i), 8u << 20, 1), 0, KVK_REASON_NONE);
	KIT_EXPECT(kit_load(bed->store, name_of(0), 8u << 20, 1), 0, KVK_REASON_NONE);
	begin_us = kit_now_us();
	assert_int_equal(kvk_store_set_cap(bed->store, bed_usage(bed->store).used_bytes * 8 / 5), 0);
	while (bed_stats(bed->store).evicted < 12 && kit_now_us() < begin_us + 30000000)
		KIT_EXPECT(kit_load(bed->store, name_of(0), 8u << 20, 1), 0, KVK_REASON_NONE);
	assert_int_equal(bed_stats(bed->store).evicted, 12);
	assert_true(kit_now_us() - begin_us >= 1200000);
	BED_AGREES(bed->store);
}

/* Without a policy there is nothing to evict with. */
static void test_no_policy(void **state)
{
	struct bed *bed = *state;
	uint64_t evicted;

	bed_open(bed, CAP_16);
	assert_int_equal(kvk_store_evict(bed->store, 1, &evicted), -ENOTSUP);
	put_some(bed->store, 0, 16);
	assert_int_equal(kvk_store_set_cap(bed->store, 8 * CHARGE), 0);
	KIT_EXPECT(kit_store(bed->store, "more", OBJECT, 1), -ENOSPC, KVK_REASON_NO_ROOM);
	for (uint32_t i = 0; i < 16; i++)
		assert_true(has(bed->store, i));
}

struct writer {
	struct kvk_store *store;
	uint32_t first;
	atomic_uint *stop;
	atomic_uint_fast64_t stored;
	pthread_t thread;
};

static void *write_on(void *argument)
{
	struct writer *writer = argument;

	for (uint32_t i = writer->first; !atomic_load(writer->stop); i++)
		writer->stored += bed_put(writer->store, name_of(i), OBJECT, 1, NULL) == 0;
	return NULL;
}

/* Two openers, each with its own lease: what is used and leased together never exceeds the cap, and neither starves. */
static void test_two_openers(void **state)
{
	struct bed *bed = *state, second;
	struct writer writers[2];
	struct kvk_usage usage;
	atomic_uint stop = 0;
	uint64_t most = 0, from_us = kit_now_us();

	bed_open(bed, "params:\"max_capacity_gb\": 0.00390625; " LRU);
	second = *bed;
	second.store = NULL;
	bed_open(&second, "params:\"max_capacity_gb\": 0.00390625; " LRU);
	for (uint32_t i = 0; i < 2; i++) {
		writers[i] = (struct writer){ .store = i ? second.store : bed->store, .first = i * 1000000, .stop = &stop };
		assert_int_equal(pthread_create(&writers[i].thread, NULL, write_on, &writers[i]), 0);
	}
	/* For a while, and on a busy machine until both went through all places. */
	while (kit_now_us() < from_us + 3000000 ||
	       ((writers[0].stored <= 64 || writers[1].stored <= 64) && kit_now_us() < from_us + 30000000)) {
		uint64_t there = bed_usage(bed->store).used_bytes;

		if (there > most)
			most = there;
		usleep(100);
	}
	atomic_store(&stop, 1);
	for (uint32_t i = 0; i < 2; i++) {
		pthread_join(writers[i].thread, NULL);
		assert_true(writers[i].stored > 64);
	}
	assert_true(most <= 64 * CHARGE);
	assert_true(most >= 16 * CHARGE);
	usage = bed_usage(bed->store);
	assert_int_equal(usage.processes, 2);
	assert_true(usage.used_bytes <= usage.cap_bytes);
	assert_int_equal(bed_close(&second), 0);
	printf("# %" PRIuFAST64 " and %" PRIuFAST64 " objects through 64 places, at most %" PRIu64 " at a time\n", writers[0].stored,
	       writers[1].stored, most / CHARGE);
}

/* What others have removed is no reason to stop looking: all it knows is gone, and what it does not know lies in the folders. */
static void test_others_removed_all_it_knows(void **state)
{
	struct bed *bed = *state, second;

	bed_open(bed, CAP_16 LRU);
	while (!atomic_load(&bed_core(bed->store)->keeper))
		usleep(1000);
	second = *bed;
	second.store = NULL;
	bed_open(&second, CAP_16 LRU);
	put_some(second.store, 0, 12);
	for (uint32_t i = 0; i < 12; i++)
		assert_int_equal(bed_remove(bed->store, name_of(i), NULL), 0);
	assert_int_equal(kit_used_settles(bed->store, 0), 0);
	put_some(bed->store, 100, 12);
	assert_int_equal(kvk_evict(bed_core(second.store), 1, NULL), CHARGE);
	assert_int_equal(bed_stats(second.store).evicted, 1);
	assert_int_equal(bed_list(bed->store).objects, 11);
	assert_int_equal(bed_close(&second), 0);
	BED_AGREES(bed->store);
}

/* The first visit leases no more than any other. */
static void test_the_first_lease(void **state)
{
	struct bed *bed = *state;
	struct kvk_core *core;

	bed_open(bed, CAP_16);
	core = bed_core(bed->store);
	while (atomic_load(&core->view.processes) == 0)
		usleep(100);
	assert_true(atomic_load(&core->view.leased_bytes) <= 2 * CHARGE);
}

/* Puts count objects at once, from the first name on; returns how many were stored, all others having found no room. */
static uint32_t put_at_once(struct kvk_store *store, uint32_t count)
{
	static uint8_t data[16][OBJECT];
	struct kvk_put_item items[16];
	struct kvk_result result = { .struct_bytes = sizeof(result) };
	struct iovec iovs[16];
	char names[16][32];
	uint32_t stored = 0;

	for (uint32_t i = 0; i < count; i++) {
		snprintf(names[i], sizeof(names[i]), "%s", name_of(i));
		bed_fill(data[i], OBJECT, bed_key(names[i]), 1, 0);
		iovs[i] = (struct iovec){ .iov_base = data[i], .iov_len = OBJECT };
		items[i] = (struct kvk_put_item){
			.struct_bytes = sizeof(items[i]), .key = bed_key(names[i]), .data = &iovs[i], .data_count = 1,
		};
	}
	assert_true(kvk_store_put(store, items, count, 0) > 0);
	for (uint32_t i = 0; i < count; i++) {
		assert_true(bed_next(store, KVK_QUEUE_PUT, &result));
		stored += result.status == 0;
		if (result.status) {
			assert_int_equal(result.status, -ENOSPC);
			assert_int_equal(result.reason, KVK_REASON_NO_ROOM);
		}
	}
	return stored;
}

/* What a put takes for present, and has to be looked for on the medium, takes no room; if another has removed it, it does. */
static void gone_meanwhile(struct bed *bed, const char *more)
{
	struct bed second = *bed;
	uint32_t stored;

	bed_open(bed, more);
	/* The keeper alone learns what the other stores. */
	while (!atomic_load(&bed_core(bed->store)->keeper))
		usleep(1000);
	bed_open(&second, more);
	put_some(bed->store, 0, 12);
	for (uint32_t i = 0; i < 12; i++)
		assert_true(has(second.store, i));
	for (uint32_t i = 0; i < 12; i++)
		assert_int_equal(bed_remove(bed->store, name_of(i), NULL), 0);
	assert_int_equal(kit_used_settles(bed->store, 0), 0);
	put_some(bed->store, 100, 12);
	stored = put_at_once(second.store, 12);
	assert_int_equal(bed_list(bed->store).objects, 12 + stored);
	assert_true(bed_list(bed->store).charged_bytes <= 16 * CHARGE);
	assert_true(stored > 0);
	assert_int_equal(bed_stats(second.store).put_no_room, 12 - stored);
	BED_AGREES(bed->store);
	/* When there is room they go in, and what is there already is found. */
	for (uint32_t i = 100; i < 112; i++)
		assert_int_equal(bed_remove(bed->store, name_of(i), NULL), 0);
	assert_int_equal(kit_used_settles(bed->store, stored * CHARGE), stored * CHARGE);
	assert_int_equal(put_at_once(second.store, 12), 12);
	assert_int_equal(bed_stats(second.store).put_present, stored);
	assert_int_equal(bed_close(&second), 0);
	BED_AGREES(bed->store);
	assert_int_equal(bed_usage(bed->store).used_bytes, 12 * CHARGE);
	for (uint32_t i = 0; i < 12; i++)
		KIT_EXPECT(kit_load(bed->store, name_of(i), OBJECT, 1), 0, KVK_REASON_NONE);
}

static void test_gone_meanwhile_lmcache(void **state)
{
	gone_meanwhile(*state, CAP_16 "\"naming\": \"lmcache\"");
}

static void test_gone_meanwhile_durable(void **state)
{
	gone_meanwhile(*state, CAP_16 "\"durability\": \"object\"");
}

/* In a full store what is damaged stays until there is room for what replaces it: for a moment there are both. */
static void test_damaged_in_a_full_store(void **state)
{
	struct bed *bed = *state;
	char path[PATH_MAX];
	uint64_t bytes;
	uint8_t *file;

	bed_open(bed, CAP_16 "\"durability\": \"object\"");
	put_some(bed->store, 0, 16);
	bed_close_forgetting(bed);
	bed_open(bed, "");
	kit_wait_counted(bed->store);
	assert_true(has(bed->store, 0));
	assert_int_equal(bed_path_of(bed, name_of(0), path, sizeof(path)), 0);
	file = kit_file_read(path, &bytes);
	file[5000] ^= 1;
	kit_file_write(path, file, bytes);
	free(file);
	KIT_EXPECT(kit_store(bed->store, name_of(0), OBJECT, 1), -ENOSPC, KVK_REASON_NO_ROOM);
	assert_int_equal(bed_list(bed->store).charged_bytes, 16 * CHARGE);
	assert_int_equal(bed_remove(bed->store, name_of(1), NULL), 0);
	KIT_EXPECT(kit_store(bed->store, name_of(0), OBJECT, 1), 0, KVK_REASON_NONE);
	KIT_EXPECT(kit_load(bed->store, name_of(0), OBJECT, 1), 0, KVK_REASON_NONE);
	assert_int_equal(bed_list(bed->store).objects, 15);
	BED_AGREES(bed->store);
}

/* After a crash what is there is known at once, and never less: what the dead one had leased counts until it is scanned. */
static void test_after_a_crash(void **state)
{
	struct bed *bed = *state;
	struct kvk_usage usage;
	uint64_t until_us = kit_now_us() + 20000000;
	pid_t child = fork();
	int status;

	assert_true(child >= 0);
	if (child == 0) {
		bed_open(bed, CAP_16);
		put_some(bed->store, 0, 10);
		raise(SIGKILL);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	bed_open(bed, CAP_16);
	usage = bed_usage(bed->store);
	assert_true(usage.used_bytes >= 10 * CHARGE);
	assert_true(usage.used_bytes <= 16 * CHARGE);
	while (bed_usage(bed->store).used_bytes != 10 * CHARGE && kit_now_us() < until_us)
		usleep(1000);
	assert_int_equal(bed_usage(bed->store).used_bytes, 10 * CHARGE);
	for (uint32_t i = 10; i < 16; i++)
		KIT_EXPECT(kit_store(bed->store, name_of(i), OBJECT, 1), 0, KVK_REASON_NONE);
	KIT_EXPECT(kit_store(bed->store, "more", OBJECT, 1), -ENOSPC, KVK_REASON_NO_ROOM);
}

/* The medium says ENOSPC in spite of the cap: that put fails, it is counted, and nothing more is stored for a while. */
static void test_medium_full(void **state)
{
	struct bed *bed = *state;

	bed_open(bed, "\"fault\": [{\"do\": \"fail\", \"ops\": [\"write\"], \"nth\": 5, \"error\": \"ENOSPC\"}]");
	put_some(bed->store, 0, 4);
	KIT_EXPECT(kit_store(bed->store, "full", OBJECT, 1), -ENOSPC, KVK_REASON_NO_ROOM);
	assert_int_equal(bed_stats(bed->store).medium_full, 1);
	for (uint32_t i = 0; i < 4; i++)
		KIT_EXPECT(kit_load(bed->store, name_of(i), OBJECT, 1), 0, KVK_REASON_NONE);
	BED_AGREES(bed->store);
}

/* More is to stay free than the medium has: nothing is stored, and usage says why. */
static void test_floor(void **state)
{
	struct bed *bed = *state;
	struct kvk_usage usage;

	bed_open(bed, "\"min_free_gb\": 900000000");
	KIT_EXPECT(kit_store(bed->store, "k", OBJECT, 1), -ENOSPC, KVK_REASON_NO_ROOM);
	usage = bed_usage(bed->store);
	assert_int_equal(usage.cap_bytes, 0);
	assert_true(usage.floor_bytes > usage.medium_free_bytes);
	bed_reopen(bed, "\"min_free_gb\": 0");
	KIT_EXPECT(kit_store(bed->store, "k", OBJECT, 1), 0, KVK_REASON_NONE);
}

static _Atomic uint64_t medium_in_use;         /* blocks of a page, of a million, besides the store's own */
static struct kvk_store *_Atomic medium_store;
static struct kvk_posix_sys medium_sys;

static int medium_of_a_million(int fd, struct statfs *stat)
{
	int err = kvk_posix_sys_real.fstatfs(fd, stat);
	uint64_t own = medium_store ? bed_usage(medium_store).used_bytes / 4096 : 0;

	stat->f_frsize = 4096;
	stat->f_blocks = 1000000;
	stat->f_bfree = stat->f_bavail = 1000000 - medium_in_use - own;
	return err;
}

/* Others fill the medium: from so much on nothing is stored, what is there is served, and with a policy objects leave. */
static void test_watermark_of_the_medium(void **state)
{
	struct bed *bed = *state;
	const uint64_t until_us = kit_now_us() + 20000000;
	struct kvk_usage usage;

	medium_sys = kvk_posix_sys_real;
	medium_sys.fstatfs = medium_of_a_million;
	kvk_posix_sys_use(&medium_sys);
	medium_in_use = 899000;
	bed_open(bed, "\"min_free_gb\": 0, \"disk_high_watermark\": 0.9");
	put_some(bed->store, 0, 4);
	usage = bed_usage(bed->store);
	assert_in_range(usage.floor_bytes, UINT64_C(99999) * 4096, UINT64_C(100000) * 4096);
	assert_int_equal(bed_close(bed), 0);
	medium_in_use = 901000;
	bed_open(bed, "\"min_free_gb\": 0, \"disk_high_watermark\": 0.9");
	KIT_EXPECT(kit_store(bed->store, "more", OBJECT, 1), -ENOSPC, KVK_REASON_NO_ROOM);
	KIT_EXPECT(kit_load(bed->store, name_of(0), OBJECT, 1), 0, KVK_REASON_NONE);
	/* While it is in use. */
	medium_in_use = 800000;
	while (kit_store(bed->store, name_of(4), OBJECT, 1).status && kit_now_us() < until_us)
		usleep(10000);
	assert_true(has(bed->store, 4));
	assert_int_equal(bed_close(bed), 0);
	/* Four more fit, and as many may be leased before the medium is asked again: whoever comes after them has others leave. */
	medium_in_use = 900000 - 4 * CHARGE / 4096 - 5 * CHARGE / 4096;
	bed_open(bed, "\"min_free_gb\": 0, \"disk_high_watermark\": 0.9, " LRU);
	medium_store = bed->store;
	put_some(bed->store, 5, 30);
	assert_true(has(bed->store, 34) && !has(bed->store, 0));
	assert_in_range(bed_usage(bed->store).used_bytes, CHARGE, 20 * CHARGE);
	medium_store = NULL;
	assert_int_equal(bed_close(bed), 0);
	kvk_posix_sys_use(NULL);
}

/* A put that waits for room is answered by its deadline, and at once by a cancel. */
static void test_waiting_ends(void **state)
{
	struct bed *bed = *state;
	static uint8_t data[OBJECT];
	struct iovec iov = { .iov_base = data, .iov_len = sizeof(data) };
	struct kvk_put_item item = { .struct_bytes = sizeof(item), .key = bed_key("w"), .data = &iov, .data_count = 1 };
	struct kvk_result result = { .struct_bytes = sizeof(result) };
	const struct bed_how how = { .deadline_us = 300000 };
	int64_t task;

	/* The account cannot be written: whoever finds no room in the lease waits. */
	bed_open(bed, CAP_16 "\"fault\": [{\"do\": \"hang\", \"ops\": [\"sync_all\"], \"nth\": 1, \"every\": 1}]");
	put_some(bed->store, 0, 16);
	assert_int_equal(bed_remove(bed->store, name_of(0), NULL), 0);
	assert_int_equal(kit_used_settles(bed->store, 15 * CHARGE), 15 * CHARGE);
	kit_wait_struck(bed->store, 1);
	assert_int_equal(bed_put_how(bed->store, bed_key("late"), OBJECT, 1, &how, NULL), -ETIMEDOUT);
	task = kvk_store_put(bed->store, &item, 1, 0);
	assert_true(task > 0);
	assert_int_equal(kvk_store_cancel(bed->store, task), 0);
	assert_true(bed_next(bed->store, KVK_QUEUE_PUT, &result));
	assert_int_equal(result.status, -ECANCELED);
	kvk_fault_clear(bed_backend(bed->store));
	kvk_fault_release(bed_backend(bed->store));
	KIT_EXPECT(kit_store(bed->store, "after", OBJECT, 1), 0, KVK_REASON_NONE);
	BED_AGREES(bed->store);
}

/* Where machines share the medium, others take over the lease of one that is not heard of; so it stops using it before. */
static void test_a_lease_is_not_forever(void **state)
{
	const uint64_t second_us = 1000000;
	struct bed *bed = *state;
	struct kvk_backend_options options = { .path = bed->path };
	struct kvk_backend *other;
	struct kvk_room *alone, *room;
	struct kvk_core *core;
	uint64_t now_us, until_us;

	bed_open(bed, CAP_16);
	put_some(bed->store, 0, 2);
	core = bed_core(bed->store);
	/* What the two took is leased anew; then the lease stays as it is, for no visit comes through. */
	while (kvk_catalog_room(core->catalog) == 0)
		usleep(100);
	assert_int_equal(kvk_backend_posix.open(&other, &options, NULL), 0);
	assert_int_equal(other->ops->lock(other, KVK_LOCK_ACCOUNT, 10000), 0);
	assert_int_equal(kvk_room_new(&alone, core, false), 0);
	assert_int_equal(kvk_room_new(&room, core, true), 0);
	now_us = kit_now_us();
	kvk_room_watch(alone, now_us + 1000 * second_us);
	assert_true(kvk_catalog_room(core->catalog) > 0);
	kvk_room_watch(room, now_us + 44 * second_us);
	assert_true(kvk_catalog_room(core->catalog) > 0);
	/* A visit that was over already may have something to add still. */
	until_us = now_us + 20 * second_us;
	do {
		kvk_room_watch(room, now_us + 46 * second_us);
	} while (kvk_catalog_room(core->catalog) > 0 && kit_now_us() < until_us);
	assert_true(kvk_catalog_room(core->catalog) == 0);
	/* Once more: nothing is left, and nothing is said. */
	kvk_room_watch(room, now_us + 47 * second_us);
	other->ops->close(other);
	kvk_room_free(room);
	kvk_room_free(alone);
	assert_true(has(bed->store, 0) && has(bed->store, 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BED_TESTS(test_to_the_brim),
		BED_TESTS(test_a_put_makes_room),
		BED_TESTS(test_larger_than_the_cap),
		BED_TESTS(test_pins_are_stronger),
		BED_TESTS(test_the_cap_changes),
		BED_TEST(test_loads_come_first, BED_RAM, "ram"),
		BED_TESTS(test_no_policy),
		BED_TESTS_POSIX(test_two_openers),
		BED_TESTS_POSIX(test_others_removed_all_it_knows),
		BED_TESTS(test_the_first_lease),
		BED_TESTS_POSIX(test_gone_meanwhile_lmcache),
		BED_TESTS_POSIX(test_gone_meanwhile_durable),
		BED_TESTS_POSIX(test_damaged_in_a_full_store),
		BED_TESTS_POSIX(test_after_a_crash),
		BED_TESTS(test_medium_full),
		BED_TEST(test_floor, BED_URING, "io_uring, buffered"),
		BED_TEST(test_watermark_of_the_medium, BED_THREADS, "threads"),
		BED_TESTS(test_waiting_ends),
		BED_TEST(test_a_lease_is_not_forever, BED_URING, "io_uring, buffered"),
	};

	kit_in_memory();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
