/* SPDX-License-Identifier: Apache-2.0 */
/* What a store whose power goes must hold, key by key, and loads and puts that are judged by it. */
#ifndef KVK_TESTS_UNIT_CRASH_KIT_H
#define KVK_TESTS_UNIT_CRASH_KIT_H

#include "store_kit.h"

#include "model_fs.h"

#define KEYS 10u
#define BYTES_MAX 12288u
#define PROMISES 600
#define ANY UINT32_MAX

/* From a call on, this generation must be found. */
struct promise {
	uint32_t at;
	uint32_t generation;           /* 0: none must. ANY */
	bool after_sync;               /* only after a sync of everything */
};

struct line {
	char text[8];
	char name[KVK_NAME_BYTES_MAX]; /* below the root */
	uint32_t tried;                /* the newest generation that was ever put */
	struct promise promises[PROMISES];
	uint32_t promise_count;
	bool rots;                     /* damaged where the store does not see it: that it knows of it says nothing any more */
};

/* Loads of one store, in one batch. */
struct job {
	struct kvk_store *store;
	uint32_t count;                /* asked for and not answered */
	uint32_t found[KEYS];          /* generation; 0: no hit */
	struct kvk_get_item items[KEYS];
	struct iovec iov[KEYS];
	uint8_t data[KEYS][BYTES_MAX];
};

struct figures {
	uint64_t states, opened, thorough, loads, hits, misses, rejected, promised, calls;
};

struct crashes {
	struct line lines[KEYS];
	enum kvk_durability level;
	bool capped;
	const struct model_record *record;
	struct figures figures;
};

static inline uint64_t bytes_of(const struct line *line, uint32_t generation)
{
	static const uint64_t bytes[] = { 40, 700, 4096, 5000, 8192, BYTES_MAX };

	return bytes[kit_mix((uint64_t)line->text[1] << 32 | generation) % 6];
}

static inline void promise(struct crashes *crashes, struct line *line, uint32_t generation)
{
	if (crashes->capped || line->promise_count == PROMISES)
		return;
	line->promises[line->promise_count++] = (struct promise){
		.at = model_count(), .generation = generation,
		.after_sync = generation && crashes->level != KVK_DURABILITY_OBJECT,
	};
}

/* Before what takes it away begins. */
static inline void take_back(struct crashes *crashes, struct line *line)
{
	promise(crashes, line, 0);
}

static inline uint32_t promised_at(const struct crashes *crashes, const struct line *line, uint32_t crash)
{
	const struct promise *last = NULL;

	for (uint32_t i = 0; i < line->promise_count && line->promises[i].at <= crash; i++)
		last = &line->promises[i];
	if (!last || (last->after_sync && model_synced_at(crashes->record, last->at) >= crash))
		return 0;
	return last->generation;
}

/* ---- answers ---------------------------------------------------------------------------------------- */

/* 0: none that was ever put. */
static inline uint32_t generation_of(const struct line *line, const uint8_t *data, uint64_t bytes)
{
	uint32_t generation = bed_generation(data);

	if (generation == 0 || generation > line->tried || bytes != bytes_of(line, generation))
		return 0;
	return bed_judge(data, bytes, bed_key(line->text), generation, 0) == BED_RIGHT ? generation : 0;
}

static inline void judge(struct crashes *crashes, struct job *job, uint32_t index, const struct kvk_result *result)
{
	const struct line *line = &crashes->lines[index];
	const uint8_t *data = job->data[index];

	crashes->figures.loads++;
	if (result->status == 0) {
		job->found[index] = result->object_bytes <= BYTES_MAX ? generation_of(line, data, result->object_bytes) : 0;
		if (!job->found[index])
			bed_wrong("%s: %" PRIu64 " bytes that nobody put there", line->text, result->object_bytes);
		crashes->figures.hits++;
		return;
	}
	if (result->status == -ENOENT && (result->reason == KVK_REASON_ABSENT || result->reason == KVK_REASON_BUSY))
		crashes->figures.misses++;
	else if (result->status == -EBADMSG && result->reason == KVK_REASON_DAMAGED)
		crashes->figures.rejected++;
	else
		bed_wrong("%s: status %d, \"%s\"", line->text, result->status, kvk_reason_text(result->reason));
	if (data[0] != 0xa5 && data[0] != 0xdb)
		bed_wrong("%s: a miss left 0x%02x in the caller's memory", line->text, data[0]);
	if (memcmp(data, data + 1, BYTES_MAX - 1))
		bed_wrong("%s: a miss left bytes in the caller's memory", line->text);
}

/* Asks for those whose bit is set. */
static inline void load_begin(struct crashes *crashes, struct job *job, struct kvk_store *store, uint32_t which, uint32_t flags)
{
	job->store = store;
	job->count = 0;
	for (uint32_t i = 0; i < KEYS; i++) {
		if (!(which >> i & 1))
			continue;
		job->found[i] = 0;
		memset(job->data[i], 0xa5, BYTES_MAX);
		job->iov[i] = (struct iovec){ job->data[i], BYTES_MAX };
		job->items[job->count++] = (struct kvk_get_item){
			.struct_bytes = sizeof(job->items[0]), .flags = flags, .key = bed_key(crashes->lines[i].text),
			.data = &job->iov[i], .data_count = 1, .user = i,
		};
	}
	if (job->count)
		assert_true(kvk_store_get(store, job->items, job->count, 0) > 0);
}

static inline void load_end(struct crashes *crashes, struct job *job)
{
	struct kvk_result result;

	for (; job->count > 0; job->count--) {
		assert_true(bed_next(job->store, KVK_QUEUE_GET, &result));
		judge(crashes, job, (uint32_t)result.user, &result);
	}
}

static inline void load(struct crashes *crashes, struct job *job, struct kvk_store *store, uint32_t which)
{
	load_begin(crashes, job, store, which, 0);
	load_end(crashes, job);
}

static inline void put(struct crashes *crashes, struct job *job, struct kvk_store *store, uint32_t which,
		       struct kvk_result results[KEYS])
{
	struct kvk_put_item items[KEYS];
	struct kvk_result answers[KEYS];
	struct iovec iov[KEYS];
	uint32_t lines[KEYS], count = 0;

	for (uint32_t i = 0; i < KEYS; i++) {
		struct line *line = &crashes->lines[i];

		if (!(which >> i & 1))
			continue;
		line->tried++;
		iov[count] = (struct iovec){ job->data[i], bytes_of(line, line->tried) };
		bed_fill(job->data[i], iov[count].iov_len, bed_key(line->text), line->tried, 0);
		items[count] = (struct kvk_put_item){ .struct_bytes = sizeof(items[0]), .key = bed_key(line->text),
						      .data = &iov[count], .data_count = 1 };
		answers[count] = (struct kvk_result){ .struct_bytes = sizeof(answers[0]) };
		lines[count++] = i;
	}
	assert_int_equal(kvk_store_put_wait(store, items, count, 0, answers), 0);
	for (uint32_t i = 0; i < count; i++)
		results[lines[i]] = answers[i];
}

#endif
