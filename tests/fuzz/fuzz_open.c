/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store whose superblock, account and snapshot were changed, under sums that are right: it opens and serves what is there, or says
 * why not, and then opens with what was there before; no load is wrong, and everything is answered.
 *
 * An input is a list of changes: which file and where in it (two bytes), how many bytes (one), and those.
 */
#include "support/skip.h"

#include "fuzz.h"
#include "unit/store_kit.h"

#include "format/bytes.h"

#define SPEC "\"lanes\": 1, \"memory_mb\": 16, \"min_free_gb\": 0"

enum { SUPERBLOCK, ACCOUNT, SNAPSHOT, FILES, FILE_BYTES_MAX = 1 << 20 };

static const char *const names[FILES] = { "superblock", "account", "snapshot" };
/* Changes of a superblock begin behind its flags: what is said to be a pool takes the room that it says it has. */
static const size_t first[FILES] = { 16, 0, 0 };

struct beside {
	uint8_t *data[FILES];
	uint64_t bytes[FILES];
};

static void load(struct beside *beside, struct kvk_backend *outside)
{
	for (unsigned i = 0; i < FILES; i++) {
		void *data = NULL;
		int err = outside->ops->load_file(outside, names[i], &data, &beside->bytes[i], FILE_BYTES_MAX);

		FUZZ_ASSERT(err == 0 || (i == SNAPSHOT && err == -ENOENT));
		beside->data[i] = data;
	}
}

static void save(const struct beside *beside, struct kvk_backend *outside)
{
	for (unsigned i = 0; i < FILES; i++) {
		if (beside->data[i])
			FUZZ_ASSERT(!outside->ops->save_file(outside, names[i], beside->data[i], beside->bytes[i], false));
	}
}

static void release(struct beside *beside)
{
	for (unsigned i = 0; i < FILES; i++)
		free(beside->data[i]);
}

static void copy(struct beside *to, const struct beside *from)
{
	*to = *from;
	for (unsigned i = 0; i < FILES; i++) {
		if (!from->data[i])
			continue;
		to->data[i] = malloc(from->bytes[i]);
		FUZZ_ASSERT(to->data[i]);
		memcpy(to->data[i], from->data[i], from->bytes[i]);
	}
}

static void change(struct beside *beside, struct fuzz_rest *rest)
{
	while (rest->bytes > 0) {
		uint64_t where = fuzz_take(rest, 2), file = where / 16384 % FILES, at = where % 16384, count = fuzz_take(rest, 1);
		uint64_t room = beside->bytes[file];

		if (!beside->data[file] || room <= first[file])
			continue;
		/* The second copy of the account, too. */
		if (file == ACCOUNT && where >= 49152)
			at += KVK_ACCOUNT_BYTES;
		at = first[file] + at % (room - first[file]);
		count = count < rest->bytes ? count : rest->bytes;
		count = count < room - at ? count : room - at;
		memcpy(beside->data[file] + at, rest->at, count);
		rest->at += count;
		rest->bytes -= count;
	}
}

static void seal(struct beside *beside)
{
	uint8_t *superblock = beside->data[SUPERBLOCK], *snapshot = beside->data[SNAPSHOT];
	uint64_t bytes = beside->bytes[SNAPSHOT];

	kvk_put32(superblock + 4092, kvk_crc32c(superblock, 4092, 0));
	for (uint64_t at = 0; at + KVK_ACCOUNT_BYTES <= beside->bytes[ACCOUNT]; at += KVK_ACCOUNT_BYTES) {
		uint8_t *copy_at = beside->data[ACCOUNT] + at;
		uint32_t crc = kvk_crc32c(copy_at, 8188, 0);

		kvk_put32(copy_at + 8188, kvk_crc32c(copy_at + 8192, KVK_ACCOUNT_BYTES - 8192, crc));
	}
	if (snapshot && bytes >= 104) {
		kvk_put32(snapshot + 92, kvk_crc32c(snapshot, 92, 0));
		kvk_put32(snapshot + bytes - 8, kvk_crc32c(snapshot + 96, bytes - 104, 0));
	}
}

/* What lies there is served, or is not found where the superblock says that names are others. */
static void use(struct kvk_store *store)
{
	for (unsigned i = 0; i < 4; i++) {
		char key[32];
		int got;

		snprintf(key, sizeof(key), "m@00000000@0@%04x@t%u", i, i % 2);
		got = bed_get(store, key, 3000 + i, 1, NULL);
		FUZZ_ASSERT(got == 0 || got == -ENOENT);
		got = bed_lookup(store, key, 0, NULL);
		FUZZ_ASSERT(got == 0 || got == -ENOENT);
		got = bed_put(store, key, 3000 + i, 1, NULL);
		FUZZ_ASSERT(got == 0 || got == -ENOSPC || got == -EAGAIN);
	}
}

static int try_open(struct bed *bed, const char *spec)
{
	struct kvk_error error = { .struct_bytes = sizeof(error) };
	int err = kvk_store_open(&bed->store, spec, NULL, &error);

	FUZZ_ASSERT(err == 0 || (error.code == err && error.text[0] && fuzz_is_utf8(error.text)));
	return err;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static unsigned runs;
	struct kvk_backend_options options = { .create = true };
	struct fuzz_rest rest = { data, bytes };
	struct bed bed = { .kind = BED_RAM };
	struct kvk_backend *outside = NULL;
	struct beside before, changed;
	char medium[32], spec[200];

	setenv("CMOCKA_TEST_ABORT", "1", 1);
	atomic_store(&bed_wrong_answers, 0);
	snprintf(medium, sizeof(medium), "open %u", runs++);
	snprintf(spec, sizeof(spec), "{\"backend\": \"RAM\", \"backend_params\": {\"file_path\": \"%s\"}, %s}", medium, SPEC);
	options.path = medium;
	FUZZ_ASSERT(kvk_backend_ram.open(&outside, &options, NULL) == 0);
	FUZZ_ASSERT(try_open(&bed, spec) == 0);
	use(bed.store);
	FUZZ_ASSERT(bed_close(&bed) == 0);
	load(&before, outside);
	copy(&changed, &before);
	change(&changed, &rest);
	seal(&changed);
	save(&changed, outside);
	if (try_open(&bed, spec)) {
		save(&before, outside);
		FUZZ_ASSERT(try_open(&bed, spec) == 0);
	}
	use(bed.store);
	FUZZ_ASSERT(bed_close(&bed) == 0);
	FUZZ_ASSERT(atomic_load(&bed_wrong_answers) == 0);
	release(&before);
	release(&changed);
	outside->ops->close(outside);
	return 0;
}
