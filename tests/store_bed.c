/* SPDX-License-Identifier: Apache-2.0 */
#include "support/skip.h"

#include "store_bed.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "backend/fault/fault.h"
#include "store/core.h"
#include "util/clock.h"

#define GUARD_BYTES 61
#define UNTOUCHED 0xa5
#define PAGE 4096u

atomic_uint bed_wrong_answers;

void bed_wrong(const char *format, ...)
{
	va_list arguments;
	char text[400];

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	fprintf(stderr, "wrong answer: %s\n", text);
	atomic_fetch_add(&bed_wrong_answers, 1);
}

/* ---- beds --------------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	const char *spec;
} kinds[BED_KIND_COUNT] = {
	[BED_RAM] = { "ram", "\"backend\": \"RAM\"" },
	[BED_URING] = { "io_uring, buffered", "\"io_engine\": \"io_uring\"" },
	[BED_URING_DIRECT] = { "io_uring, direct", "\"io_engine\": \"io_uring\"" },
	[BED_THREADS] = { "threads, buffered", "\"io_engine\": \"threads\"" },
	[BED_THREADS_DIRECT] = { "threads, direct", "\"io_engine\": \"threads\"" },
	[BED_POOL_RAM] = { "pool, ram", "\"type\": \"nixl_store\", \"backend\": \"RAM\"" },
	[BED_POOL] = { "pool, io_uring", "\"type\": \"nixl_store\", \"io_engine\": \"io_uring\"" },
	[BED_POOL_DIRECT] = { "pool, io_uring, direct", "\"type\": \"nixl_store\", \"io_engine\": \"io_uring\"" },
	[BED_POOL_THREADS] = { "pool, threads", "\"type\": \"nixl_store\", \"io_engine\": \"threads\"" },
};

bool bed_is_ram(const struct bed *bed)
{
	return bed->kind == BED_RAM || bed->kind == BED_POOL_RAM;
}

bool bed_is_pool(const struct bed *bed)
{
	return bed->kind >= BED_POOL_RAM;
}

const char *bed_kind_name(enum bed_kind kind)
{
	return kinds[kind].name;
}

static bool kind_is_direct(enum bed_kind kind)
{
	return kind == BED_URING_DIRECT || kind == BED_THREADS_DIRECT || kind == BED_POOL_DIRECT;
}

static void remove_tree(const char *path)
{
	char command[160];

	snprintf(command, sizeof(command), "rm -rf -- '%s'", path);
	if (system(command))
		fprintf(stderr, "cannot remove %s\n", path);
}

/* Tests want a disk where they may get one: on tmpfs there is no direct I/O. */
static const char *scratch(void)
{
	const char *folder = getenv("KVK_TEST_DIR");

	return folder ? folder : "/var/tmp";
}

void bed_begin(struct bed *bed, enum bed_kind kind)
{
	*bed = (struct bed){ .kind = kind };
	atomic_store(&bed_wrong_answers, 0);
	if (bed_is_ram(bed))
		return;
	snprintf(bed->path, sizeof(bed->path), "%.40s/kvk-bed-XXXXXX", scratch());
	if (!mkdtemp(bed->path)) {
		fprintf(stderr, "cannot make %s: %s\n", bed->path, strerror(errno));
		abort();
	}
}

int bed_end(struct bed *bed)
{
	bed_close(bed);
	if (bed->outside)
		bed->outside->ops->close(bed->outside);
	if (bed->path[0])
		remove_tree(bed->path);
	return atomic_load(&bed_wrong_answers) ? -1 : 0;
}

int bed_setup(void **state)
{
	struct bed *bed = malloc(sizeof(*bed));

	if (!bed)
		return -1;
	bed_begin(bed, (enum bed_kind)(uintptr_t)*state);
	*state = bed;
	return 0;
}

int bed_teardown(void **state)
{
	struct bed *bed = *state;
	int err = bed_end(bed);

	free(bed);
	return err;
}

#define POOL_BYTES (UINT64_C(128) << 20)

/* The shape of a pool: as large as the cap in params, which is taken out, or POOL_BYTES. */
static void pool_spec(const struct bed *bed, char *pool, size_t pool_bytes, const char **params, int *params_bytes)
{
	static const char cap[] = "\"max_capacity_gb\":";
	uint64_t slot_bytes = bed->kind == BED_POOL_DIRECT ? 65536 : PAGE, bytes = POOL_BYTES;

	if (!strncmp(*params, cap, sizeof(cap) - 1)) {
		int length = (int)strcspn(*params, ",;");

		bytes = (uint64_t)(strtod(*params + sizeof(cap) - 1, NULL) * (double)(UINT64_C(1) << 30));
		length += (*params)[length] == ',';
		*params += length < *params_bytes ? length : *params_bytes;
		*params_bytes -= length < *params_bytes ? length : *params_bytes;
	}
	snprintf(pool, pool_bytes, ", \"pool_size\": %llu, \"slot_size\": %llu, \"file_size\": %llu",
		 (unsigned long long)(bytes / slot_bytes), (unsigned long long)slot_bytes,
		 (unsigned long long)(bed->kind == BED_POOL_DIRECT ? POOL_BYTES / 2 : POOL_BYTES));
}

void bed_spec(const struct bed *bed, char *spec, size_t spec_bytes, const char *more)
{
	const char *params = "";
	char pool[200] = "";
	int params_bytes = 0;

	if (!strncmp(more, "params:", 7)) {
		params = more + 7;
		params_bytes = (int)strcspn(params, ";");
		more = params + params_bytes;
		more += *more == ';';
	}
	more += strspn(more, " ");
	if (bed_is_pool(bed))
		pool_spec(bed, pool, sizeof(pool), &params, &params_bytes);
	if (bed_is_ram(bed))
		snprintf(spec, spec_bytes, "{%s%s%s, \"backend_params\": {%.*s}%s%s}", kinds[bed->kind].spec, pool,
			 bed->has_no_keeper ? ", \"keeper\": false" : "", params_bytes, params, *more ? ", " : "", more);
	else
		snprintf(spec, spec_bytes,
			 "{%s%s, \"backend_params\": {\"file_path\": \"%s\", \"use_direct_io\": %s%s%.*s}%s%s}",
			 kinds[bed->kind].spec, pool, bed->path, kind_is_direct(bed->kind) ? "true" : "false",
			 params_bytes ? ", " : "", params_bytes, params, *more ? ", " : "", more);
}

int bed_try_open(struct bed *bed, const char *more, struct kvk_error *error)
{
	char spec[4096];

	bed_spec(bed, spec, sizeof(spec), more);
	return kvk_store_open(&bed->store, spec, bed->hooks, error);
}

void bed_open(struct bed *bed, const char *more)
{
	struct kvk_error error = { .struct_bytes = sizeof(error) };
	int err = bed_try_open(bed, more, &error);

	if (err && !strcmp(error.option, "io_engine"))
		SKIP("%s", error.text);
	if (err)
		fail_msg("cannot open a store (%s): %d, %s: %s", bed_kind_name(bed->kind), err, error.option, error.text);
}

int bed_close(struct bed *bed)
{
	struct kvk_store *store = bed->store;

	bed->store = NULL;
	return kvk_store_close(store);
}

void bed_reopen(struct bed *bed, const char *more)
{
	int err = bed_close(bed);

	assert_int_equal(err, 0);
	bed_open(bed, more);
}

void bed_close_forgetting(struct bed *bed)
{
	char path[PATH_MAX];

	assert_int_equal(bed_close(bed), 0);
	snprintf(path, sizeof(path), "%s/.kvkeep/snapshot", bed->path);
	if (unlink(path))
		assert_int_equal(errno, ENOENT);
}

void bed_keep_keeper_out(struct bed *bed)
{
	struct kvk_backend_options options = { .path = bed->path };

	bed->has_no_keeper = bed_is_ram(bed);
	if (bed->has_no_keeper)
		return;
	bed_open(bed, "");
	bed_close(bed);
	assert_int_equal(kvk_backend_posix.open(&bed->outside, &options, NULL), 0);
	assert_int_equal(bed->outside->ops->lock(bed->outside, KVK_LOCK_KEEPER, 0), 0);
}

struct kvk_core *bed_core(struct kvk_store *store)
{
	return *(struct kvk_core **)(void *)store;     /* the first member of struct kvk_store */
}

struct kvk_backend *bed_backend(struct kvk_store *store)
{
	return bed_core(store)->backend;
}

uint32_t bed_ops(const struct bed *bed, uint32_t ops)
{
	const uint32_t writes = 1u << KVK_XFER_CREATE | 1u << KVK_XFER_PUBLISH | 1u << KVK_XFER_MOVE;

	if (!bed_is_pool(bed))
		return ops;
	if (ops & writes)
		ops |= 1u << KVK_XFER_WRITE;
	if (ops & 1u << KVK_XFER_OPEN)
		ops |= 1u << KVK_XFER_READ;
	if (ops & 1u << KVK_XFER_SYNC_FOLDER)
		ops |= 1u << KVK_XFER_SYNC;
	return ops & ~(writes | 1u << KVK_XFER_OPEN | 1u << KVK_XFER_SYNC_FOLDER);
}

uint64_t bed_pool_files(struct kvk_store *store)
{
	struct kvk_adapter *adapter = bed_core(store)->adapter;
	struct kvk_slots slots = { 0 };

	if (adapter->ops->slots)
		adapter->ops->slots(adapter, &slots);
	return slots.files;
}

uint64_t bed_places(struct kvk_store *store)
{
	return kvk_fault_places(bed_backend(store)) - bed_pool_files(store);
}

/* ---- short forms -------------------------------------------------------------------------------- */

struct kvk_key bed_key(const char *text)
{
	return (struct kvk_key){ .data = text, .bytes = (uint32_t)strlen(text) };
}

/* Memory of one object in pieces, with bytes that must stay as they are between and behind them. */
struct pieces {
	unsigned char *memory;
	uint64_t memory_bytes;
	struct iovec iov[64];
	uint32_t count;
};

static bool pieces_make(struct pieces *pieces, uint64_t bytes, const struct bed_how *how)
{
	uint32_t count = how->pieces ? how->pieces : 1;
	uint64_t from = 0, to, at, gap = how->aligned ? PAGE : GUARD_BYTES;

	if (count > 64)
		count = 64;
	pieces->count = count;
	pieces->memory_bytes = bytes + (count + 1) * (gap + (how->aligned ? PAGE : 0));
	pieces->memory = aligned_alloc(PAGE, (pieces->memory_bytes + PAGE - 1) & ~(uint64_t)(PAGE - 1));
	if (!pieces->memory)
		return false;
	memset(pieces->memory, UNTOUCHED, pieces->memory_bytes);
	at = how->aligned ? 0 : 3;
	for (uint32_t i = 0; i < count; i++, from = to) {
		to = i + 1 == count ? bytes : bytes * (i + 1) / count;
		if (how->aligned && i + 1 < count)
			to &= ~(uint64_t)(PAGE - 1);
		pieces->iov[i] = (struct iovec){ .iov_base = pieces->memory + at, .iov_len = to - from };
		at += to - from + gap;
		if (how->aligned)
			at = (at + PAGE - 1) & ~(uint64_t)(PAGE - 1);
	}
	return true;
}

static void pieces_fill(struct pieces *pieces, struct kvk_key key, uint32_t generation)
{
	uint64_t offset = 0;

	for (uint32_t i = 0; i < pieces->count; i++) {
		bed_fill(pieces->iov[i].iov_base, pieces->iov[i].iov_len, key, generation, offset);
		offset += pieces->iov[i].iov_len;
	}
}

static enum bed_verdict pieces_judge(const struct pieces *pieces, struct kvk_key key, uint32_t generation)
{
	enum bed_verdict verdict = BED_RIGHT;
	uint64_t offset = 0;

	for (uint32_t i = 0; i < pieces->count && verdict == BED_RIGHT; i++) {
		verdict = bed_judge(pieces->iov[i].iov_base, pieces->iov[i].iov_len, key, generation, offset);
		offset += pieces->iov[i].iov_len;
	}
	return verdict;
}

static bool is_all(const unsigned char *data, uint64_t bytes, unsigned char byte)
{
	return bytes == 0 || (data[0] == byte && !memcmp(data, data + 1, bytes - 1));
}

/* What no request may touch. */
static bool gaps_are_intact(const struct pieces *pieces)
{
	const unsigned char *at = pieces->memory, *from;

	for (uint32_t i = 0; i < pieces->count; i++) {
		from = pieces->iov[i].iov_base;
		if (!is_all(at, (uint64_t)(from - at), UNTOUCHED))
			return false;
		at = from + pieces->iov[i].iov_len;
	}
	return is_all(at, (uint64_t)(pieces->memory + pieces->memory_bytes - at), UNTOUCHED);
}

/* After a miss: never touched, or filled so that misuse is loud. */
static bool holds_nothing(const struct pieces *pieces)
{
	bool untouched = true, filled = true;

	for (uint32_t i = 0; i < pieces->count; i++) {
		untouched = untouched && is_all(pieces->iov[i].iov_base, pieces->iov[i].iov_len, UNTOUCHED);
		filled = filled && is_all(pieces->iov[i].iov_base, pieces->iov[i].iov_len, 0xdb);
	}
	return untouched || filled;
}

static int hand_out(int err, const struct kvk_result *from, struct kvk_result *result)
{
	if (result && !err)
		*result = *from;
	return err ? err : from->status;
}

int bed_put_how(struct kvk_store *store, struct kvk_key key, uint64_t bytes, uint32_t generation,
		const struct bed_how *how, struct kvk_result *ret)
{
	struct kvk_result result = { .struct_bytes = sizeof(result) };
	struct kvk_put_item item = {
		.struct_bytes = sizeof(item), .flags = how->flags, .key = key,
	};
	struct pieces pieces;
	int err;

	if (!pieces_make(&pieces, bytes, how))
		return -ENOMEM;
	pieces_fill(&pieces, key, generation);
	item.data = pieces.iov;
	item.data_count = pieces.count;
	err = kvk_store_put_wait(store, &item, 1, how->deadline_us, &result);
	if (!gaps_are_intact(&pieces) || pieces_judge(&pieces, key, generation) != BED_RIGHT)
		bed_wrong("a put of %.*s changed the caller's memory", (int)key.bytes, (const char *)key.data);
	free(pieces.memory);
	return hand_out(err, &result, ret);
}

int bed_get_how(struct kvk_store *store, struct kvk_key key, uint64_t bytes, uint32_t generation,
		const struct bed_how *how, struct kvk_result *ret)
{
	struct kvk_result result = { .struct_bytes = sizeof(result) };
	struct kvk_get_item item = {
		.struct_bytes = sizeof(item), .flags = how->flags, .key = key,
	};
	enum bed_verdict verdict;
	struct pieces pieces;
	int err;

	if (!pieces_make(&pieces, bytes, how))
		return -ENOMEM;
	item.data = pieces.iov;
	item.data_count = pieces.count;
	err = kvk_store_get_wait(store, &item, 1, how->deadline_us, &result);
	verdict = pieces_judge(&pieces, key, generation);
	if (!err && !result.status && result.object_bytes != bytes)
		bed_wrong("%.*s has %llu bytes, must have %llu", (int)key.bytes, (const char *)key.data,
			  (unsigned long long)result.object_bytes, (unsigned long long)bytes);
	else if (!err && !result.status && verdict != BED_RIGHT)
		bed_wrong("%.*s, generation %u, loaded as %s", (int)key.bytes, (const char *)key.data, generation,
			  bed_verdict_name(verdict));
	else if ((err || result.status) && !holds_nothing(&pieces))
		bed_wrong("a miss of %.*s (%d) left bytes in the caller's memory", (int)key.bytes,
			  (const char *)key.data, err ? err : result.status);
	if (!gaps_are_intact(&pieces))
		bed_wrong("a get of %.*s wrote beside the caller's memory", (int)key.bytes, (const char *)key.data);
	free(pieces.memory);
	return hand_out(err, &result, ret);
}

int bed_put(struct kvk_store *store, const char *key, uint64_t bytes, uint32_t generation, struct kvk_result *result)
{
	return bed_put_how(store, bed_key(key), bytes, generation, &(struct bed_how){ 0 }, result);
}

int bed_get(struct kvk_store *store, const char *key, uint64_t bytes, uint32_t generation, struct kvk_result *result)
{
	return bed_get_how(store, bed_key(key), bytes, generation, &(struct bed_how){ 0 }, result);
}

int bed_lookup(struct kvk_store *store, const char *key, uint32_t flags, struct kvk_result *ret)
{
	struct kvk_result result = { .struct_bytes = sizeof(result) };
	struct kvk_key_item item = { .struct_bytes = sizeof(item), .flags = flags, .key = bed_key(key) };
	int err = kvk_store_lookup_wait(store, &item, 1, 0, &result);

	return hand_out(err, &result, ret);
}

int bed_unpin(struct kvk_store *store, const char *key)
{
	struct kvk_result result = { .struct_bytes = sizeof(result) };
	struct kvk_key_item item = { .struct_bytes = sizeof(item), .key = bed_key(key) };
	int err = kvk_store_unpin_wait(store, &item, 1, &result);

	return hand_out(err, &result, NULL);
}

int bed_remove(struct kvk_store *store, const char *key, struct kvk_result *ret)
{
	struct kvk_result result = { .struct_bytes = sizeof(result) };
	struct kvk_key_item item = { .struct_bytes = sizeof(item), .key = bed_key(key) };
	int err = kvk_store_remove_wait(store, &item, 1, 0, &result);

	return hand_out(err, &result, ret);
}

bool bed_next(struct kvk_store *store, enum kvk_queue queue, struct kvk_result *result)
{
	*result = (struct kvk_result){ .struct_bytes = sizeof(*result) };
	return kvk_store_wait(store, queue, 30000000) == 1 && kvk_store_drain(store, queue, result, 1) == 1;
}

/* ---- figures ------------------------------------------------------------------------------------ */

struct kvk_usage bed_usage(struct kvk_store *store)
{
	struct kvk_usage usage = { .struct_bytes = sizeof(usage) };

	kvk_store_usage(store, &usage);
	return usage;
}

struct kvk_stats bed_stats(struct kvk_store *store)
{
	struct kvk_stats stats = { .struct_bytes = sizeof(stats) };

	kvk_store_stats(store, &stats);
	return stats;
}

bool bed_is_healthy(struct kvk_store *store)
{
	char *text = NULL, *at;
	bool healthy;

	if (kvk_store_status(store, &text))
		return false;
	at = strstr(text, "\"healthy\"");
	healthy = at && at[9 + strcspn(at + 9, "tf")] == 't';
	kvk_free(text);
	return healthy;
}

#define LIST_PAGE 64

struct bed_listed bed_list(struct kvk_store *store)
{
	struct kvk_list_query query = { .struct_bytes = sizeof(query) };
	struct kvk_list_entry *entries = calloc(LIST_PAGE, sizeof(*entries));
	struct bed_listed listed = { 0 };
	char *cursor = NULL, *next = NULL;
	int count = entries ? 0 : -ENOMEM;

	for (int i = 0; entries && i < LIST_PAGE; i++)
		entries[i].struct_bytes = sizeof(entries[i]);
	do {
		query.cursor = cursor;
		if (count >= 0)
			count = kvk_store_list(store, &query, entries, LIST_PAGE, &next);
		if (count < 0) {
			bed_wrong("a list failed with %d", count);
			next = NULL;
		}
		for (int i = 0; i < count; i++) {
			listed.objects++;
			listed.charged_bytes += (entries[i].stored_bytes + PAGE - 1) & ~(uint64_t)(PAGE - 1);
			listed.damaged += entries[i].state == KVK_OBJECT_DAMAGED;
		}
		kvk_free(cursor);
		cursor = next;
	} while (cursor);
	free(entries);
	return listed;
}

/* What the store did itself settles at once; what others did to its files or left behind, when the keeper has looked. */
#define AGREES_US 20000000

const char *bed_disagrees(struct kvk_store *store)
{
	static _Thread_local char text[200];
	uint64_t until_us = kvk_now_us() + AGREES_US;
	struct timespec pause = { .tv_nsec = 100000 };
	struct bed_listed listed;
	struct kvk_usage usage;

	for (;;) {
		usage = bed_usage(store);
		listed = bed_list(store);
		if (usage.objects == listed.objects && usage.used_bytes == listed.charged_bytes + usage.quarantined_bytes &&
		    usage.writing_bytes == 0)
			return NULL;
		if (kvk_now_us() > until_us)
			break;
		nanosleep(&pause, NULL);
		pause.tv_nsec = pause.tv_nsec < 5000000 ? pause.tv_nsec * 2 : pause.tv_nsec;
	}
	snprintf(text, sizeof(text), "usage: %llu objects, %llu bytes, %llu being written, %llu aside; listed: %llu, %llu",
		 (unsigned long long)usage.objects, (unsigned long long)usage.used_bytes,
		 (unsigned long long)usage.writing_bytes, (unsigned long long)usage.quarantined_bytes,
		 (unsigned long long)listed.objects, (unsigned long long)listed.charged_bytes);
	return text;
}
