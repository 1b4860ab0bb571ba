/* SPDX-License-Identifier: Apache-2.0 */
/* What is different where objects lie in the slots of a pool: its size, its files, its owner, and what a restart finds. */
#include <signal.h>
#include <sys/file.h>
#include <sys/wait.h>

#include "unit/pool_kit.h"
#include "unit/store_kit.h"
#include "format/format.h"
#include "store/core.h"

#define PAGE 4096u

/* A pool of this shape instead of the bed's own. */
static int open_shape(struct bed *bed, const char *shape, const char *more, struct kvk_error *error)
{
	char spec[1000];

	snprintf(spec, sizeof(spec), "{\"type\": \"nixl_store\", %s, \"io_engine\": \"threads\", \"backend_params\": "
		 "{\"file_path\": \"%s\"}%s}", shape, bed->path, more);
	return kvk_store_open(&bed->store, spec, NULL, error);
}

static void must_open(struct bed *bed, const char *shape)
{
	struct kvk_error error = { .struct_bytes = sizeof(error) };

	if (open_shape(bed, shape, "", &error))
		fail_msg("%s: %s: %s", shape, error.option, error.text);
}

static void must_not_open(struct bed *bed, const char *shape, int expected, const char *option)
{
	struct kvk_error error = { .struct_bytes = sizeof(error) };
	int err = open_shape(bed, shape, "", &error);

	if (err != expected || strcmp(error.option, option))
		fail_msg("%s: %d, %s: %s", shape, err, error.option, error.text);
}

/* No slot is nobody's: what is listed and what is free make the pool. The slots of what was erased are free once nobody reads
 * them any more, such as the keeper, who may have the footer of the same object in hand. */
static void expect_exact(struct kvk_store *store)
{
	uint64_t until_us = kit_now_us() + 20000000;
	struct kvk_slots slots;
	struct bed_listed listed;

	do {
		slots = slots_of(store);
		listed = bed_list(store);
	} while (listed.charged_bytes + slots.free_slots * slots.slot_bytes != slots.slots * slots.slot_bytes &&
		 kit_now_us() < until_us);
	assert_int_equal(listed.charged_bytes + slots.free_slots * slots.slot_bytes, slots.slots * slots.slot_bytes);
	assert_int_equal(slots.lost_slots, 0);
}

#define TEN "\"pool_size\": 10, \"slot_size\": 4096"

/* An object of n slots of a page has n - 1 pages of payload. */
static int put_slots(struct bed *bed, const char *key, uint32_t slots, struct kvk_result *result)
{
	return bed_put(bed->store, key, (uint64_t)(slots - 1) * PAGE, 1, result);
}

static int get_slots(struct bed *bed, const char *key, uint32_t slots)
{
	return bed_get(bed->store, key, (uint64_t)(slots - 1) * PAGE, 1, NULL);
}

/* Full is told for each key; a key that is there takes no slot; what is removed can be had again. */
static void exhaustion(void **state)
{
	struct bed *bed = *state;
	struct kvk_result result;

	must_open(bed, TEN);
	assert_int_equal(put_slots(bed, "a", 4, NULL), 0);
	assert_int_equal(put_slots(bed, "b", 4, NULL), 0);
	assert_int_equal(put_slots(bed, "a", 4, &result), 0);
	assert_int_equal(result.reason, KVK_REASON_PRESENT);
	assert_int_equal(slots_of(bed->store).free_slots, 2);
	assert_int_equal(put_slots(bed, "c", 3, &result), -ENOSPC);
	assert_int_equal(result.reason, KVK_REASON_NO_ROOM);
	assert_int_equal(put_slots(bed, "d", 2, NULL), 0);
	assert_int_equal(put_slots(bed, "e", 1, &result), -ENOSPC);
	assert_int_equal(slots_of(bed->store).free_slots, 0);
	assert_int_equal(bed_usage(bed->store).used_bytes, 10 * PAGE);
	assert_int_equal(bed_usage(bed->store).cap_bytes, 10 * PAGE);
	BED_AGREES(bed->store);
	assert_int_equal(bed_remove(bed->store, "b", NULL), 0);
	assert_int_equal(put_slots(bed, "c", 3, NULL), 0);
	assert_int_equal(get_slots(bed, "a", 4), 0);
	assert_int_equal(get_slots(bed, "c", 3), 0);
	assert_int_equal(get_slots(bed, "d", 2), 0);
	assert_int_equal(get_slots(bed, "b", 4), -ENOENT);
	/* Longer than any file of the pool will ever hold. */
	assert_int_equal(put_slots(bed, "long", 11, NULL), -ENOSPC);
	BED_AGREES(bed->store);
	expect_exact(bed->store);
}

/* Bytes enough are free, but not side by side. */
static void fragmentation(void **state)
{
	struct bed *bed = *state;
	struct kvk_result result;
	char key[8];

	must_open(bed, TEN);
	for (int i = 0; i < 5; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		assert_int_equal(put_slots(bed, key, 2, NULL), 0);
	}
	for (int i = 0; i < 5; i += 2) {
		snprintf(key, sizeof(key), "k%d", i);
		assert_int_equal(bed_remove(bed->store, key, NULL), 0);
	}
	assert_int_equal(slots_of(bed->store).free_slots, 6);
	assert_int_equal(slots_of(bed->store).longest_free_slots, 2);
	assert_int_equal(put_slots(bed, "n", 3, &result), -ENOSPC);
	assert_int_equal(result.reason, KVK_REASON_NO_ROOM);
	assert_int_equal(bed_usage(bed->store).writing_bytes, 0);
	assert_int_equal(put_slots(bed, "n", 2, NULL), 0);
	assert_int_equal(bed_remove(bed->store, "k3", NULL), 0);
	assert_int_equal(put_slots(bed, "m", 6, NULL), 0);
	assert_int_equal(get_slots(bed, "m", 6), 0);
	assert_int_equal(get_slots(bed, "k1", 2), 0);
	BED_AGREES(bed->store);
	expect_exact(bed->store);
}

/* Whatever was stored and removed before, a restart finds exactly what is there, and no file is added. */
static void restarts(void **state)
{
	struct bed *bed = *state;
	uint64_t random = kit_seed(), objects, others, bytes;
	uint32_t slots[40] = { 0 };
	char key[8];

	bed_open(bed, "");
	for (int round = 0; round < 25; round++) {
		for (int i = 0; i < 30; i++) {
			unsigned number = (unsigned)kit_below(&random, 40);

			snprintf(key, sizeof(key), "k%u", number);
			if (slots[number]) {
				assert_int_equal(bed_remove(bed->store, key, NULL), 0);
				slots[number] = 0;
			} else {
				slots[number] = 1 + (uint32_t)kit_below(&random, 20);
				assert_int_equal(put_slots(bed, key, slots[number], NULL), 0);
			}
		}
		bed_reopen(bed, "");
		expect_exact(bed->store);
		bytes = 0;
		for (unsigned i = 0; i < 40; i++) {
			snprintf(key, sizeof(key), "k%u", i);
			if (slots[i])
				assert_int_equal(get_slots(bed, key, slots[i]), 0);
			else
				assert_int_equal(bed_lookup(bed->store, key, 0, NULL), -ENOENT);
			bytes += slots[i] * PAGE;
		}
		BED_AGREES(bed->store);
		if (bed->kind != BED_POOL_DIRECT)
			assert_int_equal(bed_usage(bed->store).used_bytes, bytes);
		bed_files(bed, &objects, &others);
		assert_int_equal(objects, 0);
		assert_int_equal(others, bed_pool_files(bed->store));
	}
}

static void sizes(void **state)
{
	struct bed *bed = *state;
	struct kvk_result result;
	uint64_t objects, others;

	must_open(bed, "\"pool_size\": 8, \"slot_size\": 4096, \"file_size\": 16384");
	/* Into no file, however large the pool. */
	assert_int_equal(put_slots(bed, "c", 5, &result), -EFBIG);
	assert_int_equal(result.reason, KVK_REASON_ARGUMENT);
	assert_int_equal(put_slots(bed, "a", 4, NULL), 0);
	assert_int_equal(put_slots(bed, "b", 3, NULL), 0);
	assert_int_equal(bed_close(bed), 0);

	/* Everything may be left out, or said again in LMCache's way. */
	must_open(bed, "\"pool_size\": \"8\"");
	assert_int_equal(get_slots(bed, "a", 4), 0);
	assert_int_equal(bed_close(bed), 0);
	must_not_open(bed, "\"pool_size\": 7", -EINVAL, "pool_size");
	must_not_open(bed, "\"pool_size\": 8, \"slot_size\": 8192", -EINVAL, "slot_size");
	must_not_open(bed, "\"pool_size\": 8, \"file_size\": 32768", -EINVAL, "file_size");
	must_not_open(bed, "\"pool_size\": 8, \"slot_size\": 5000", -EINVAL, "slot_size");
	must_not_open(bed, "\"pool_size\": 0", -EINVAL, "pool_size");
	must_not_open(bed, "\"pool_size\": 8, \"naming\": \"lmcache\"", -EINVAL, "naming");

	/* Larger: the last file grows, others come. */
	must_open(bed, "\"pool_size\": 14");
	assert_int_equal(slots_of(bed->store).slots, 14);
	assert_int_equal(slots_of(bed->store).files, 4);
	bed_files(bed, &objects, &others);
	assert_int_equal(others, 4);
	assert_int_equal(bed_usage(bed->store).cap_bytes, 14 * PAGE);
	assert_int_equal(get_slots(bed, "a", 4), 0);
	assert_int_equal(get_slots(bed, "b", 3), 0);
	assert_int_equal(put_slots(bed, "d", 4, NULL), 0);
	assert_int_equal(put_slots(bed, "e", 2, NULL), 0);
	assert_int_equal(bed_close(bed), 0);
	must_open(bed, "\"pool_size\": 16");
	assert_int_equal(slots_of(bed->store).free_slots, 3);
	assert_int_equal(get_slots(bed, "e", 2), 0);
	expect_exact(bed->store);
}

/* What a store is was decided when it was made; who does not say it gets what is there. */
static void kinds(void **state)
{
	struct bed *bed = *state;
	struct kvk_error error = { .struct_bytes = sizeof(error) };
	char spec[400];

	must_not_open(bed, "\"durability\": \"none\"", -EINVAL, "pool_size");
	must_open(bed, TEN);
	assert_int_equal(put_slots(bed, "a", 3, NULL), 0);
	assert_int_equal(bed_close(bed), 0);
	snprintf(spec, sizeof(spec), "{\"type\": \"nixl_store_dynamic\", \"backend_params\": {\"file_path\": \"%s\"}}", bed->path);
	assert_int_equal(kvk_store_open(&bed->store, spec, NULL, &error), -EINVAL);
	assert_string_equal(error.option, "type");
	snprintf(spec, sizeof(spec), "{\"backend_params\": {\"file_path\": \"%s\"}}", bed->path);
	assert_int_equal(kvk_store_open(&bed->store, spec, NULL, NULL), 0);
	assert_int_equal(get_slots(bed, "a", 3), 0);
	assert_int_equal(bed_close(bed), 0);
	error = (struct kvk_error){ .struct_bytes = sizeof(error) };
	snprintf(spec, sizeof(spec), "{\"backend_params\": {\"file_path\": \"%s\", \"max_capacity_gb\": 1}}", bed->path);
	assert_int_equal(kvk_store_open(&bed->store, spec, NULL, &error), -EINVAL);
	assert_string_equal(error.option, "backend_params.max_capacity_gb");
}

/* A second process, and a second store of the same one. */
static void one_owner(void **state)
{
	struct bed *bed = *state, other = *bed;
	struct kvk_error error = { .struct_bytes = sizeof(error) };
	int status;
	pid_t child;

	must_open(bed, TEN);
	assert_int_equal(put_slots(bed, "a", 3, NULL), 0);
	assert_int_equal(open_shape(&other, TEN, "", &error), -EBUSY);
	assert_non_null(strstr(error.text, "one process"));
	child = fork();
	if (child == 0)
		_exit(open_shape(&other, TEN, "", NULL) == -EBUSY ? 17 : 1);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 17);
	assert_int_equal(get_slots(bed, "a", 3), 0);
	assert_int_equal(bed_close(bed), 0);
	must_open(&other, TEN);
	assert_int_equal(get_slots(&other, "a", 3), 0);
	assert_int_equal(bed_close(&other), 0);
}

/* "persist_enabled": false removes every object at the close, met or not; the files stay, empty. */
static void not_persistent(void **state)
{
	struct bed *bed = *state;
	uint64_t objects, others;

	must_open(bed, TEN);
	assert_int_equal(put_slots(bed, "a", 3, NULL), 0);
	assert_int_equal(bed_close(bed), 0);
	assert_int_equal(open_shape(bed, TEN, ", \"persist_enabled\": false", NULL), 0);
	assert_int_equal(put_slots(bed, "b", 3, NULL), 0);
	assert_int_equal(bed_close(bed), 0);
	must_open(bed, TEN);
	assert_int_equal(slots_of(bed->store).free_slots, 10);
	assert_int_equal(get_slots(bed, "a", 3), -ENOENT);
	assert_int_equal(get_slots(bed, "b", 3), -ENOENT);
	bed_files(bed, &objects, &others);
	assert_int_equal(others, 1);
}

/* A temporary file of the pool is as large as one of its files: it goes if its writer is dead. */
static void what_dead_makers_left(void **state)
{
	struct bed *bed = *state;
	char dead[256], alive[256];
	int fds[2];

	must_open(bed, TEN);
	assert_int_equal(bed_close(bed), 0);
	snprintf(dead, sizeof(dead), "%s/.tmp-0123456789abcdef-1", bed->path);
	snprintf(alive, sizeof(alive), "%s/.tmp-0123456789abcdef-2", bed->path);
	kit_file_write(dead, "left", 4);
	kit_file_write(alive, "lives", 5);
	fds[0] = open(alive, O_RDWR);
	assert_int_equal(flock(fds[0], LOCK_EX | LOCK_NB), 0);
	fds[1] = kit_writer_lives(bed->path, UINT64_C(0x0123456789abcdef));
	must_open(bed, TEN);
	assert_int_equal(access(dead, F_OK), -1);
	assert_int_equal(access(alive, F_OK), 0);
	assert_false(close(fds[0]) || close(fds[1]));
}

/* ---- what lies in the file ---------------------------------------------------------------------- */

#define FILE_BYTES (KVK_POOL_HEAD_BYTES + 10 * PAGE)

static void file_path(const struct bed *bed, char *path, size_t bytes)
{
	snprintf(path, bytes, "%s/pool-00000.slots", bed->path);
}

static uint8_t *file_read(const struct bed *bed)
{
	uint8_t *data = malloc(FILE_BYTES);
	char path[120];
	FILE *file;

	file_path(bed, path, sizeof(path));
	file = fopen(path, "rb");
	assert_non_null(file);
	assert_int_equal(fread(data, 1, FILE_BYTES, file), FILE_BYTES);
	fclose(file);
	return data;
}

static void file_write(const struct bed *bed, const uint8_t *data)
{
	char path[120];

	file_path(bed, path, sizeof(path));
	kit_file_write(path, data, FILE_BYTES);
}

static uint8_t *slot_at(uint8_t *data, uint32_t slot)
{
	return data + KVK_POOL_HEAD_BYTES + slot * PAGE;
}

static const struct { const char *key; uint32_t slots; } actors[] = { { "o", 2 }, { "p", 3 }, { "n", 4 }, { "m", 2 }, { "q", 5 } };

/* A hit has the right bytes (bed_get() sees to it), and what is no hit is a miss. */
static unsigned look_at_all(struct bed *bed)
{
	unsigned hits = 0;

	for (size_t i = 0; i < sizeof(actors) / sizeof(actors[0]); i++) {
		int status = get_slots(bed, actors[i].key, actors[i].slots);

		if (status != 0 && status != -ENOENT && status != -EBADMSG)
			fail_msg("%s: %d", actors[i].key, status);
		hits += status == 0;
	}
	return hits;
}

/*
 * After a power cut each page may be as it was at any moment before, whatever the order of writes was. The pool's life is
 * recorded page by page, and every page of the file is then taken from a moment of its own.
 */
static void every_mix_of_pages(void **state)
{
	struct bed *bed = *state;
	uint8_t *moments[12], *mix;
	unsigned count = 0, images = (unsigned)kit_number("KVK_STEPS", 600), hits = 0, objects = 0;
	uint64_t random = kit_seed();
	static const struct { const char *key; bool put; } life[] = {
		{ "o", true }, { "p", true }, { "o", false }, { "m", true }, { "p", false }, { "n", true }, { "m", false },
		{ "n", false }, { "q", true }, { "o", true },
	};

	must_open(bed, TEN);
	moments[count++] = file_read(bed);
	for (size_t i = 0; i < sizeof(life) / sizeof(life[0]); i++) {
		uint32_t slots = 0;

		for (size_t k = 0; k < sizeof(actors) / sizeof(actors[0]); k++)
			slots = strcmp(actors[k].key, life[i].key) ? slots : actors[k].slots;
		assert_int_equal(life[i].put ? put_slots(bed, life[i].key, slots, NULL)
					     : bed_remove(bed->store, life[i].key, NULL), 0);
		moments[count++] = file_read(bed);
	}
	assert_int_equal(bed_close(bed), 0);

	/* The moments themselves are whole. */
	for (unsigned i = 0; i < count; i++) {
		file_write(bed, moments[i]);
		must_open(bed, TEN);
		expect_exact(bed->store);
		objects = (unsigned)bed_list(bed->store).objects;
		assert_int_equal(look_at_all(bed), objects);
		assert_int_equal(bed_close(bed), 0);
	}
	mix = malloc(FILE_BYTES);
	memcpy(mix, moments[0], FILE_BYTES);
	for (unsigned i = 0; i < images; i++) {
		/* Some mixes of neighbours in time, some of all times. */
		unsigned span = 1 + (unsigned)kit_below(&random, count), from = (unsigned)kit_below(&random, count - span + 1);

		for (uint32_t slot = 0; slot < 10; slot++)
			memcpy(slot_at(mix, slot), slot_at(moments[from + kit_below(&random, span)], slot), PAGE);
		file_write(bed, mix);
		must_open(bed, TEN);
		expect_exact(bed->store);
		hits += look_at_all(bed);
		/* What was no hit has been erased, and its slots are free. */
		expect_exact(bed->store);
		/* Takes the scan a while. */
		if (i % 32 == 0)
			BED_AGREES(bed->store);
		assert_int_equal(bed_list(bed->store).damaged, 0);
		assert_int_equal(bed_close(bed), 0);
		/* Also on the medium: the next open finds the same. */
		if (i % 8 == 0) {
			must_open(bed, TEN);
			objects = (unsigned)bed_list(bed->store).objects;
			assert_int_equal(look_at_all(bed), objects);
			assert_int_equal(bed_close(bed), 0);
		}
	}
	proof_tell_more(4, images, "states", atomic_load(&bed_wrong_answers), "hits=%u", hits);
	assert_true(hits > 0);
	free(mix);
	while (count > 0)
		free(moments[--count]);
}

/* Who may choose payload cannot choose what a restart finds: bytes that look like an object are somebody's payload. */
static void footers_in_payload(void **state)
{
	struct bed *bed = *state;
	struct kvk_put_item item = { .struct_bytes = sizeof(item), .key = bed_key("big"), .data_count = 1 };
	struct kvk_result result = { .struct_bytes = sizeof(result) };
	uint8_t *pool;
	struct iovec iov;

	must_open(bed, TEN);
	assert_int_equal(put_slots(bed, "victim", 2, NULL), 0);
	pool = file_read(bed);
	assert_int_equal(bed_remove(bed->store, "victim", NULL), 0);
	assert_int_equal(put_slots(bed, "first", 1, NULL), 0);
	/* Lands one slot behind where it was copied from, with the victim's footer at the end of a slot. */
	iov = (struct iovec){ .iov_base = slot_at(pool, 0), .iov_len = 4 * PAGE };
	item.data = &iov;
	assert_int_equal(kvk_store_put_wait(bed->store, &item, 1, 0, &result), 0);
	assert_int_equal(result.status, 0);
	assert_int_equal(bed_close(bed), 0);
	must_open(bed, TEN);
	assert_int_equal(get_slots(bed, "victim", 2), -ENOENT);
	assert_int_equal(bed_lookup(bed->store, "big", 0, NULL), 0);
	assert_int_equal(bed_list(bed->store).objects, 2);
	expect_exact(bed->store);
	assert_int_equal(bed_close(bed), 0);
	free(pool);
}

/* Damage is a miss, and its slots are free again. */
static void damage(void **state)
{
	struct bed *bed = *state;
	struct kvk_result result;
	uint8_t *data;

	must_open(bed, TEN);
	assert_int_equal(put_slots(bed, "a", 4, NULL), 0);
	assert_int_equal(put_slots(bed, "b", 4, NULL), 0);
	assert_int_equal(bed_close(bed), 0);
	data = file_read(bed);
	slot_at(data, 1)[77] ^= 4;             /* payload of a */
	slot_at(data, 7)[300] ^= 4;            /* footer of b */
	file_write(bed, data);
	must_open(bed, TEN);
	assert_int_equal(slots_of(bed->store).free_slots, 6);
	assert_int_equal(bed_lookup(bed->store, "b", 0, NULL), -ENOENT);
	assert_int_equal(bed_lookup(bed->store, "a", 0, NULL), 0);
	assert_int_equal(bed_get(bed->store, "a", 3 * PAGE, 1, &result), -EBADMSG);
	assert_int_equal(result.reason, KVK_REASON_DAMAGED);
	assert_int_equal(slots_of(bed->store).free_slots, 10);
	BED_AGREES(bed->store);
	assert_int_equal(put_slots(bed, "a", 4, NULL), 0);
	assert_int_equal(get_slots(bed, "a", 4), 0);
	assert_int_equal(bed_close(bed), 0);
	/* A head that is no head: nothing is overwritten. */
	free(data);
	data = file_read(bed);
	data[9] ^= 1;
	file_write(bed, data);
	must_not_open(bed, TEN, -EBADMSG, "backend_params.file_path");
	data[9] ^= 1;
	file_write(bed, data);
	must_open(bed, TEN);
	assert_int_equal(get_slots(bed, "a", 4), 0);
	free(data);
}

/* A pool whose `.kvkeep` is lost is served again by who says its shape. */
static void lost_superblock(void **state)
{
	struct bed *bed = *state;
	char command[200];

	must_open(bed, TEN);
	assert_int_equal(put_slots(bed, "a", 4, NULL), 0);
	assert_int_equal(bed_close(bed), 0);
	snprintf(command, sizeof(command), "rm -r '%s/.kvkeep'", bed->path);
	assert_int_equal(system(command), 0);
	must_not_open(bed, "\"pool_size\": 10, \"slot_size\": 8192", -EINVAL, "backend_params.file_path");
	snprintf(command, sizeof(command), "rm -r '%s/.kvkeep'", bed->path);
	assert_int_equal(system(command), 0);
	must_open(bed, TEN);
	assert_int_equal(get_slots(bed, "a", 4), 0);
	assert_int_equal(put_slots(bed, "b", 4, NULL), 0);
	assert_int_equal(bed_close(bed), 0);
	must_open(bed, TEN);
	assert_int_equal(get_slots(bed, "a", 4), 0);
	assert_int_equal(get_slots(bed, "b", 4), 0);
}

/* ---- a device ----------------------------------------------------------------------------------- */

static void device(void **state)
{
	struct bed *bed = *state;
	struct kvk_error error = { .struct_bytes = sizeof(error) };
	char command[300], spec[600], loop[64] = "";
	FILE *pipe;

	if (geteuid())
		SKIP("a loop device needs root");
	snprintf(command, sizeof(command), "truncate -s 8M '%s.img' && losetup -f --show '%s.img' 2>/dev/null", bed->path, bed->path);
	pipe = popen(command, "r");
	if (!pipe || !fgets(loop, sizeof(loop), pipe) || pclose(pipe) || strncmp(loop, "/dev/loop", 9)) {
		snprintf(command, sizeof(command), "%s.img", bed->path);
		unlink(command);
		SKIP("no loop device is to be had");
	}
	loop[strcspn(loop, "\n")] = 0;
	for (int round = 0; round < 3; round++) {
		struct bed other = *bed;

		snprintf(spec, sizeof(spec), "{\"type\": \"nixl_store\", \"pool_size\": %d, \"slot_size\": 65536, \"durability\": "
			 "\"batch\", \"backend_params\": {\"file_path\": \"%s\", \"device_path\": \"%s\", \"use_direct_io\": %s}}",
			 100, bed->path, loop, round % 2 ? "true" : "false");
		if (kvk_store_open(&bed->store, spec, NULL, &error))
			fail_msg("%s: %s", error.option, error.text);
		if (round == 0)
			assert_int_equal(bed_put(bed->store, "k", 300000, 1, NULL), 0);
		assert_int_equal(bed_get(bed->store, "k", 300000, 1, NULL), 0);
		assert_int_equal(slots_of(bed->store).free_slots, 95);
		assert_int_equal(bed_put(bed->store, "l", 1500000, 1, NULL), 0);
		assert_int_equal(bed_get(bed->store, "l", 1500000, 1, NULL), 0);
		assert_int_equal(bed_remove(bed->store, "l", NULL), 0);
		/* The device is this store's alone, also for a store in another directory. */
		bed_begin(&other, BED_POOL);
		snprintf(spec, sizeof(spec), "{\"type\": \"nixl_store\", \"pool_size\": 10, \"slot_size\": 65536, \"backend_params\": "
			 "{\"file_path\": \"%s\", \"device_path\": \"%s\"}}", other.path, loop);
		assert_int_equal(kvk_store_open(&other.store, spec, NULL, NULL), -EBUSY);
		bed_end(&other);
		assert_int_equal(bed_close(bed), 0);
	}
	must_not_open(bed, "\"pool_size\": 100", -EINVAL, "backend_params.device_path");
	/* Too large, or not empty, or no device. */
	snprintf(command, sizeof(command), "rm -r '%s/.kvkeep'; dd if=/dev/zero of=%s bs=64k count=2 conv=notrunc 2>/dev/null; "
		 "printf x | dd of=%s bs=1 seek=70000 conv=notrunc 2>/dev/null", bed->path, loop, loop);
	assert_int_equal(system(command), 0);
	snprintf(spec, sizeof(spec), "{\"type\": \"nixl_store\", \"pool_size\": 100, \"slot_size\": 65536, \"backend_params\": "
		 "{\"file_path\": \"%s\", \"device_path\": \"%s\"}}", bed->path, loop);
	assert_int_equal(kvk_store_open(&bed->store, spec, NULL, NULL), -EEXIST);
	snprintf(spec, sizeof(spec), "{\"type\": \"nixl_store\", \"pool_size\": 100, \"slot_size\": 65536, \"backend_params\": "
		 "{\"file_path\": \"%s\", \"device_path\": \"/dev/null\"}}", bed->path);
	assert_int_equal(kvk_store_open(&bed->store, spec, NULL, NULL), -ENOTBLK);
	snprintf(command, sizeof(command), "losetup -d %s; rm '%s.img'", loop, bed->path);
	assert_int_equal(system(command), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BED_TEST(exhaustion, BED_POOL_THREADS, "pool, threads"),
		BED_TEST(fragmentation, BED_POOL_THREADS, "pool, threads"),
		BED_TESTS_POOL_POSIX(restarts),
		BED_TEST(sizes, BED_POOL_THREADS, "pool, threads"),
		BED_TEST(kinds, BED_POOL_THREADS, "pool, threads"),
		BED_TEST(one_owner, BED_POOL_THREADS, "pool, threads"),
		BED_TEST(what_dead_makers_left, BED_POOL_THREADS, "pool, threads"),
		BED_TEST(not_persistent, BED_POOL_THREADS, "pool, threads"),
		BED_TEST(every_mix_of_pages, BED_POOL_THREADS, "pool, threads"),
		BED_TEST(footers_in_payload, BED_POOL_THREADS, "pool, threads"),
		BED_TEST(damage, BED_POOL_THREADS, "pool, threads"),
		BED_TEST(lost_superblock, BED_POOL_THREADS, "pool, threads"),
		BED_TEST(device, BED_POOL, "loop device"),
	};

	cmocka_set_test_filter(getenv("KVK_ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
