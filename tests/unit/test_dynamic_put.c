/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every way through a put of a file per key, one call of the medium bent at a time, or two: what it answers, what it says that
 * was charged and given back, and what lies under the name afterwards.
 */
#include "bent_bed.h"

#define BYTES 20000u
#define FILE_BYTES (20480u + 4096u)
#define KEY "key"
/* The generations of what was there once, and of what is put. */
#define OTHERS 7
#define OURS 8

enum prior { NOTHING = 0, SOUND, DAMAGED };

struct row {
	const char *name;
	enum kvk_durability durability;
	enum prior prior;
	bool judge_first;
	struct bend bends[3];
	int status;
	uint32_t reason;
	enum kvk_outcome outcome;
	int after;                     /* the generation that is found then, or -errno */
	unsigned left;                 /* files besides */
	bool published, unlinked, durable;
};

#define FAILS(op, at, number) { .call = (op), .nth = (at), .error = -(number) }
#define ALWAYS(op, number) { .call = (op), .nth = 1, .every = true, .error = -(number) }
#define OBJECT .durability = KVK_DURABILITY_OBJECT
#define STORED .outcome = KVK_OUTCOME_WRITTEN, .after = OURS, .published = true
#define FOUND .reason = KVK_REASON_PRESENT, .outcome = KVK_OUTCOME_FOUND, .after = OTHERS
#define MEDIUM .status = -EIO, .reason = KVK_REASON_MEDIUM
#define NOT_DURABLE .status = -EIO, .reason = KVK_REASON_NOT_DURABLE
#define BUSY .status = -EALREADY, .reason = KVK_REASON_BUSY
#define LATE .status = -ETIMEDOUT, .reason = KVK_REASON_DEADLINE
#define CANCELED .status = -ECANCELED, .reason = KVK_REASON_CANCELED

static const struct row rows[] = {
	/* Nothing is there. */
	{ "stored", STORED },
	{ "stored, durable", OBJECT, STORED, .durable = true },
	{ "it cannot be created", .bends = { FAILS(KVK_XFER_CREATE, 1, EIO) }, MEDIUM, .after = -ENOENT },
	{ "its folder goes as it is created", .bends = { FAILS(KVK_XFER_CREATE, 1, ENOENT) }, .status = -ENOENT,
	  .reason = KVK_REASON_ABSENT, .after = -ENOENT },
	{ "it cannot be created, for there is always one, and there is none", .bends = { ALWAYS(KVK_XFER_CREATE, EEXIST) }, MEDIUM,
	  .after = -ENOENT },
	{ "it cannot be published, for there is always one, and there is none", .bends = { ALWAYS(KVK_XFER_PUBLISH, EEXIST) },
	  MEDIUM, .after = -ENOENT },
	{ "it cannot be published", .bends = { FAILS(KVK_XFER_PUBLISH, 1, EIO) }, MEDIUM, .after = -ENOENT },
	{ "it cannot be written", .bends = { FAILS(KVK_XFER_WRITE, 1, ENOSPC) }, .status = -ENOSPC,
	  .reason = KVK_REASON_NO_ROOM, .after = -ENOENT },
	{ "late when it is written", .bends = { { .call = KVK_XFER_WRITE, .nth = 1, .after = bent_is_late } }, LATE, .after = -ENOENT },
	{ "canceled when it is written", .bends = { { .call = KVK_XFER_WRITE, .nth = 1, .after = bent_cancels } }, CANCELED,
	  .after = -ENOENT },

	/* Durable, step by step. */
	{ "late when it is synced", OBJECT, .bends = { { .call = KVK_XFER_SYNC, .nth = 1, .after = bent_is_late } }, LATE,
	  .after = -ENOENT },
	{ "canceled when it is synced", OBJECT, .bends = { { .call = KVK_XFER_SYNC, .nth = 1, .after = bent_cancels } }, CANCELED,
	  .after = -ENOENT },
	{ "it cannot be synced", OBJECT, .bends = { FAILS(KVK_XFER_SYNC, 1, EIO) }, NOT_DURABLE, .after = -ENOENT },
	{ "its folder cannot be synced", OBJECT, .bends = { FAILS(KVK_XFER_SYNC_FOLDER, 1, EIO) }, NOT_DURABLE, .after = -ENOENT,
	  .published = true, .unlinked = true },
	{ "its folder cannot be synced, and it cannot be taken back", OBJECT,
	  .bends = { FAILS(KVK_XFER_SYNC_FOLDER, 1, EIO), FAILS(KVK_XFER_MOVE, 1, EIO) }, NOT_DURABLE, .after = OURS,
	  .published = true },
	{ "its folder cannot be synced, and nobody knows which file it is", OBJECT,
	  .bends = { FAILS(KVK_XFER_SYNC_FOLDER, 1, EIO), FAILS(KVK_XFER_STAT, 1, EIO) }, NOT_DURABLE, .after = OURS,
	  .published = true },
	{ "its folder cannot be synced, and nobody knows what was taken back", OBJECT,
	  .bends = { FAILS(KVK_XFER_SYNC_FOLDER, 1, EIO), FAILS(KVK_XFER_STAT_NAME, 1, EIO) }, NOT_DURABLE, .after = -ENOENT,
	  .published = true, .left = 1 },
	{ "its folder cannot be synced, and what was taken back stays", OBJECT,
	  .bends = { FAILS(KVK_XFER_SYNC_FOLDER, 1, EIO), FAILS(KVK_XFER_UNLINK, 1, EIO) }, NOT_DURABLE, .after = -ENOENT,
	  .published = true, .left = 1 },
	{ "its folder cannot be synced, and a sweep is faster", OBJECT,
	  .bends = { FAILS(KVK_XFER_SYNC_FOLDER, 1, EIO), FAILS(KVK_XFER_STAT_NAME, 1, ENOENT) }, NOT_DURABLE, .after = -ENOENT,
	  .published = true, .unlinked = true, .left = 1 },
	{ "its folder cannot be synced, and a sweep unlinks it first", OBJECT,
	  .bends = { FAILS(KVK_XFER_SYNC_FOLDER, 1, EIO), FAILS(KVK_XFER_UNLINK, 1, ENOENT) }, NOT_DURABLE, .after = -ENOENT,
	  .published = true, .unlinked = true, .left = 1 },
	{ "its folder cannot be synced, and another has removed it", OBJECT, .bends = { FAILS(KVK_XFER_SYNC_FOLDER, 1, EIO),
	  { .call = KVK_XFER_MOVE, .nth = 1, .before = bent_removes } }, NOT_DURABLE, .after = -ENOENT, .published = true },
	{ "its folder cannot be synced, another has stored it anew, and there is one more when it goes back", OBJECT,
	  .bends = { FAILS(KVK_XFER_SYNC_FOLDER, 1, EIO), { .call = KVK_XFER_MOVE, .nth = 1, .before = bent_publishes },
	  { .call = KVK_XFER_MOVE, .nth = 2, .before = bent_publishes } }, NOT_DURABLE, .after = OTHERS, .published = true,
	  .unlinked = true },
	{ "its folder cannot be synced, and another has stored it anew", OBJECT, .bends = { FAILS(KVK_XFER_SYNC_FOLDER, 1, EIO),
	  { .call = KVK_XFER_MOVE, .nth = 1, .before = bent_publishes } }, NOT_DURABLE, .after = OTHERS, .published = true },

	/* It is there. */
	{ "found", .prior = SOUND, FOUND },
	{ "found, first", .prior = SOUND, .judge_first = true, FOUND },
	{ "found, durable", OBJECT, .prior = SOUND, FOUND, .durable = true },
	{ "found when it is to be published", .prior = SOUND, .bends = { { .call = KVK_XFER_CREATE, .nth = 1, .before = bent_removes,
	  .after = bent_publishes } }, FOUND },
	{ "it cannot be looked at", .prior = SOUND, .bends = { FAILS(KVK_XFER_OPEN, 1, EIO) }, MEDIUM, .after = OTHERS },
	{ "it cannot be looked at, first", .prior = SOUND, .judge_first = true, .bends = { FAILS(KVK_XFER_OPEN, 1, EMFILE) },
	  .status = -EMFILE, .reason = KVK_REASON_NO_MEMORY, .after = OTHERS },
	{ "what lies there is nobody's of ours", .prior = SOUND, .bends = { FAILS(KVK_XFER_OPEN, 1, ELOOP) }, .status = -EEXIST,
	  .reason = KVK_REASON_COLLISION, .after = OTHERS },
	{ "nothing is there after all, first", .judge_first = true, BUSY, .outcome = KVK_OUTCOME_UNWRITTEN, .after = -ENOENT },
	{ "damaged, first", .prior = DAMAGED, .judge_first = true, BUSY, .outcome = KVK_OUTCOME_UNWRITTEN, .after = -EBADMSG },

	/* It is there and cannot be synced: it stays, and nothing is acknowledged. */
	{ "found and not synced", OBJECT, .prior = SOUND, .bends = { FAILS(KVK_XFER_SYNC, 1, EIO) }, NOT_DURABLE,
	  .outcome = KVK_OUTCOME_FOUND, .after = OTHERS },
	{ "found, and its folder not synced", OBJECT, .prior = SOUND, .bends = { FAILS(KVK_XFER_SYNC_FOLDER, 1, EIO) }, NOT_DURABLE,
	  .outcome = KVK_OUTCOME_FOUND, .after = OTHERS },
	{ "found and not synced, first", OBJECT, .prior = SOUND, .judge_first = true, .bends = { FAILS(KVK_XFER_SYNC, 1, EIO) }, NOT_DURABLE,
	  .outcome = KVK_OUTCOME_FOUND, .after = OTHERS },

	/* It is damaged, and exchanged for ours. */
	{ "replaced", .prior = DAMAGED, STORED, .unlinked = true },
	{ "replaced, durable", OBJECT, .prior = DAMAGED, STORED, .unlinked = true, .durable = true },
	{ "late when it is judged", .prior = DAMAGED, .bends = { { .call = KVK_XFER_CLOSE, .nth = 1, .after = bent_is_late } }, LATE,
	  .after = -EBADMSG },
	{ "canceled when it is judged", .prior = DAMAGED, .bends = { { .call = KVK_XFER_CLOSE, .nth = 1, .after = bent_cancels } },
	  CANCELED, .after = -EBADMSG },
	{ "ours gets no name beside it", .prior = DAMAGED, .bends = { FAILS(KVK_XFER_PUBLISH, 2, EIO) }, MEDIUM, .after = -EBADMSG },
	{ "late when ours has a name beside it", .prior = DAMAGED, .bends = { { .call = KVK_XFER_PUBLISH, .nth = 2,
	  .after = bent_is_late } }, LATE, .after = -EBADMSG },
	{ "it cannot be exchanged", .prior = DAMAGED, .bends = { FAILS(KVK_XFER_EXCHANGE, 1, EIO) }, MEDIUM, .after = -EBADMSG },
	{ "it is gone when it is to be exchanged", .prior = DAMAGED, .bends = { { .call = KVK_XFER_EXCHANGE, .nth = 1,
	  .before = bent_removes } }, STORED },
	{ "gone when it is to be exchanged, and then there is another", .prior = DAMAGED,
	  .bends = { { .call = KVK_XFER_EXCHANGE, .nth = 1, .before = bent_removes, .after = bent_publishes } }, BUSY,
	  .after = OTHERS },
	{ "another's is exchanged, and given back", .prior = DAMAGED, .bends = { { .call = KVK_XFER_EXCHANGE, .nth = 1,
	  .before = bent_publishes } }, BUSY, .after = OTHERS },
	{ "another's is exchanged, and ours removed", .prior = DAMAGED, .bends = { { .call = KVK_XFER_EXCHANGE, .nth = 1,
	  .before = bent_publishes }, { .call = KVK_XFER_EXCHANGE, .nth = 2, .before = bent_removes } }, BUSY, .after = -ENOENT,
	  .published = true, .unlinked = true },
	{ "another's is exchanged, and ours removed, and what came out stays", .prior = DAMAGED, .bends = { { .call = KVK_XFER_EXCHANGE,
	  .nth = 1, .before = bent_publishes }, { .call = KVK_XFER_EXCHANGE, .nth = 2, .before = bent_removes },
	  FAILS(KVK_XFER_UNLINK, 1, EIO) }, BUSY, .after = -ENOENT, .published = true, .left = 1 },
	{ "another's is exchanged, and cannot be given back", .prior = DAMAGED, .bends = { { .call = KVK_XFER_EXCHANGE, .nth = 1,
	  .before = bent_publishes }, FAILS(KVK_XFER_EXCHANGE, 2, EIO) }, STORED, .left = 1 },
	{ "what came out is gone", .prior = DAMAGED, .bends = { FAILS(KVK_XFER_STAT_NAME, 1, ENOENT) }, STORED, .left = 1 },
	{ "nobody knows what came out, and it is given back", .prior = DAMAGED, .bends = { FAILS(KVK_XFER_STAT_NAME, 1, EIO) }, BUSY,
	  .after = -EBADMSG },
	{ "what came out cannot be removed", .prior = DAMAGED, .bends = { FAILS(KVK_XFER_UNLINK, 1, EIO) }, STORED, .left = 1 },

	/* ... or moved aside, where nothing can be exchanged. */
	{ "moved aside (EINVAL)", .prior = DAMAGED, .bends = { FAILS(KVK_XFER_EXCHANGE, 1, EINVAL) }, STORED, .unlinked = true },
	{ "moved aside (ENOSYS)", .prior = DAMAGED, .bends = { FAILS(KVK_XFER_EXCHANGE, 1, ENOSYS) }, STORED, .unlinked = true },
	{ "moved aside (EOPNOTSUPP)", .prior = DAMAGED, .bends = { FAILS(KVK_XFER_EXCHANGE, 1, EOPNOTSUPP) }, STORED,
	  .unlinked = true },
	{ "it cannot be moved aside", .prior = DAMAGED, .bends = { FAILS(KVK_XFER_EXCHANGE, 1, EINVAL), FAILS(KVK_XFER_MOVE, 1, EIO) },
	  MEDIUM, .after = -EBADMSG },
	{ "it is gone when it is to be moved aside", .prior = DAMAGED, .bends = { FAILS(KVK_XFER_EXCHANGE, 1, EINVAL),
	  { .call = KVK_XFER_MOVE, .nth = 1, .before = bent_removes } }, STORED },
	{ "what was moved aside is gone", .prior = DAMAGED, .bends = { FAILS(KVK_XFER_EXCHANGE, 1, EINVAL),
	  FAILS(KVK_XFER_STAT_NAME, 1, ENOENT) }, STORED, .unlinked = true },
	{ "nobody knows what was moved aside, and it is moved back", .prior = DAMAGED, .bends = { FAILS(KVK_XFER_EXCHANGE, 1, EINVAL),
	  FAILS(KVK_XFER_STAT_NAME, 1, EIO) }, BUSY, .after = -EBADMSG },
	{ "another's was moved aside, and is moved back", .prior = DAMAGED, .bends = { FAILS(KVK_XFER_EXCHANGE, 1, EINVAL),
	  { .call = KVK_XFER_MOVE, .nth = 1, .before = bent_publishes } }, BUSY, .after = OTHERS },
	{ "another's was moved aside, and there is another when it is moved back", .prior = DAMAGED,
	  .bends = { FAILS(KVK_XFER_EXCHANGE, 1, EINVAL), { .call = KVK_XFER_MOVE, .nth = 1, .before = bent_publishes },
	  { .call = KVK_XFER_MOVE, .nth = 2, .before = bent_publishes } }, BUSY, .after = OTHERS, .unlinked = true },
	{ "another is published when ours is to be moved in", .prior = DAMAGED, .bends = { FAILS(KVK_XFER_EXCHANGE, 1, EINVAL),
	  { .call = KVK_XFER_MOVE, .nth = 2, .before = bent_publishes } }, BUSY, .after = OTHERS, .unlinked = true },
	{ "ours cannot be moved in", .prior = DAMAGED, .bends = { FAILS(KVK_XFER_EXCHANGE, 1, EINVAL), FAILS(KVK_XFER_MOVE, 2, EIO) },
	  MEDIUM, .after = -ENOENT, .unlinked = true },
};

static void run_row(const struct row *row)
{
	char name[KVK_NAME_BYTES_MAX], folder[KVK_NAME_BYTES_MAX];
	struct kvk_request *request;
	struct bench bench;
	struct ask ask;
	unsigned bends = 0, there;
	uint64_t bytes;
	uint8_t *theirs;
	int after;

	bench_open_dynamic(&bench, row->durability, KVK_NAMING_KVKEEP);
	bench_name(&bench, name, KEY);
	snprintf(folder, sizeof(folder), "%.2s", name);
	assert_int_equal(bench_put(&bench, KEY, BYTES, OTHERS), 0);
	theirs = bent_read(&bench.bent, name, &bytes);
	assert_int_equal(bytes, FILE_BYTES);
	bench.bent.name = name;
	bench.bent.data = theirs;
	bench.bent.bytes = bytes;
	if (row->prior == NOTHING)
		assert_int_equal(bent_step(&bench.bent, KVK_XFER_UNLINK, name, NULL), 0);
	else if (row->prior == DAMAGED)
		bent_flip(&bench.bent, name, FILE_BYTES - 100);

	while (bends < 3 && row->bends[bends].nth)
		bends++;
	bent_set(&bench.bent, row->bends, bends);
	ask_init(&ask, &bench, KEY, BYTES, OURS);
	assert_int_equal(bench.adapter->ops->charge(&ask.request, BYTES), FILE_BYTES);
	ask.request.judge_first = row->judge_first;
	ask_run(&ask, &bench, start_put);
	request = &ask.request;
	/* Past a deadline the lane may answer before the put does. */
	if (ask.answered != row->status || (row->status != -ETIMEDOUT && request->reason != row->reason) ||
	    request->outcome != row->outcome)
		fail_msg("%s: %d, %u, outcome %d; wanted %d, %u, %d", row->name, ask.answered, request->reason, request->outcome,
			 row->status, row->reason, row->outcome);
	if (bench.bent.struck < bends)
		fail_msg("%s: %u of %u were struck", row->name, bench.bent.struck, bends);
	/* What is charged, and what is given back. */
	if (request->published_bytes != (row->published ? FILE_BYTES : 0) ||
	    request->unlinked_bytes != (row->unlinked ? FILE_BYTES : 0) || (row->status == 0 && request->facts.durable != row->durable))
		fail_msg("%s: %llu published, %llu unlinked, durable %d", row->name, (unsigned long long)request->published_bytes,
			 (unsigned long long)request->unlinked_bytes, request->facts.durable);
	ask_end(&ask);
	STRAIGHT(&bench.bent);
	there = bent_count(&bench.bent, folder) - (bent_bytes(&bench.bent, name) >= 0);
	if (there != row->left)
		fail_msg("%s: %u files are left over; wanted %u", row->name, there, row->left);
	after = bench_get(&bench, KEY, BYTES);
	if (after != row->after)
		fail_msg("%s: afterwards %d; wanted %d", row->name, after, row->after);
	free(theirs);
	bench_close(&bench);
}

static void test_every_way(void **state)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		run_row(&rows[i]);
}

/* What is there is as good as before if a sync of it was canceled as it waited, or no folder could be opened for it: it is not doubted,
 * and the next put of it writes nothing. */
static void test_not_asked(void **state)
{
	static const struct bend bends[] = { FAILS(KVK_XFER_SYNC, 1, ECANCELED), FAILS(KVK_XFER_SYNC_FOLDER, 1, EMFILE) };

	for (size_t i = 0; i < sizeof(bends) / sizeof(bends[0]); i++) {
		struct bench bench;
		struct ask ask;

		bench_open_dynamic(&bench, KVK_DURABILITY_OBJECT, KVK_NAMING_KVKEEP);
		assert_int_equal(bench_put(&bench, KEY, BYTES, OTHERS), 0);
		bent_set(&bench.bent, &bends[i], 1);
		assert_int_equal(bench_put(&bench, KEY, BYTES, OURS), -EIO);
		ask_init(&ask, &bench, KEY, BYTES, OURS);
		ask_run(&ask, &bench, start_put);
		assert_int_equal(ask.request.status, 0);
		assert_int_equal(ask.request.outcome, KVK_OUTCOME_FOUND);
		assert_true(ask.request.facts.durable);
		ask_end(&ask);
		bench_close(&bench);
	}
}

/* A key that no name can be made of never reaches the medium. */
static void test_no_name(void **state)
{
	struct bench bench;
	struct ask ask;

	bench_open_dynamic(&bench, KVK_DURABILITY_NONE, KVK_NAMING_LMCACHE);
	STRAIGHT(&bench.bent);
	ask_init(&ask, &bench, "no key of LMCache's", BYTES, OURS);
	ask_run(&ask, &bench, start_put);
	assert_int_equal(ask.request.status, -EINVAL);
	assert_int_equal(ask.request.reason, KVK_REASON_ARGUMENT);
	for (unsigned call = 0; call < BENT_CALLS; call++)
		assert_int_equal(bench.bent.calls[call], 0);
	ask_end(&ask);
	bench_close(&bench);
}

/* Two keys that share a name: the second is told so, and the first stays. */
static void test_collision(void **state)
{
	struct bench bench;
	struct ask ask;

	bench_open_dynamic(&bench, KVK_DURABILITY_NONE, KVK_NAMING_LMCACHE);
	assert_int_equal(bench_put(&bench, "a/b@00000000@0@01", BYTES, OTHERS), 0);
	for (int first = 0; first < 2; first++) {
		ask_init(&ask, &bench, "a--b@00000000@0@01", BYTES, OURS);
		ask.request.judge_first = first;
		ask_run(&ask, &bench, start_put);
		assert_int_equal(ask.request.status, -EEXIST);
		assert_int_equal(ask.request.reason, KVK_REASON_COLLISION);
		assert_int_equal(ask.request.outcome, KVK_OUTCOME_NONE);
		ask_end(&ask);
	}
	assert_int_equal(bench_get(&bench, "a/b@00000000@0@01", BYTES), OTHERS);
	bench_close(&bench);
}

/* What an object says of itself comes back, and the caller's memory is written as it lies there, in every way. */
static void test_what_is_written(void **state)
{
	static const uint8_t parent[KVK_DIGEST_BYTES] = { 1, 2, 3 };
	static const uint64_t lengths[] = { 0, 1, 4096, 20000, 65536, 700000, (1 << 20) + 8192, (3 << 20) + 1 };

	for (unsigned way = 0; way < 16; way++) {
		bool direct = way & 1, held = way & 2, odd = way & 4, short_parts = way & 8;

		for (size_t l = 0; l < sizeof(lengths) / sizeof(lengths[0]); l++) {
			uint64_t bytes = lengths[l], first = bytes / 8192 * 4096 + (short_parts && bytes > 8192 ? 100 : 0);
			struct iovec parts[2];
			void *memory = NULL;
			struct bench bench;
			struct ask ask;

			bench_open_dynamic(&bench, KVK_DURABILITY_NONE, KVK_NAMING_KVKEEP);
			bench.bent.base.caps.direct = direct;
			bench.bent.base.caps.align_memory_bytes = bench.bent.base.caps.align_offset_bytes = direct ? 512 : 1;
			ask_init(&ask, &bench, KEY, bytes, OURS);
			assert_int_equal(posix_memalign(&memory, 4096, bytes + 4096), 0);
			memcpy((uint8_t *)memory + odd, ask.data, bytes);
			parts[0] = (struct iovec){ (uint8_t *)memory + odd, first };
			parts[1] = (struct iovec){ (uint8_t *)memory + odd + first, bytes - first };
			ask.request.data = parts;
			ask.request.data_count = 2;
			ask.request.held = held;
			ask.request.parent_digest = parent;
			ask.request.depth = 5;
			ask.request.meta = "meta";
			ask.request.meta_bytes = 4;
			ask_run(&ask, &bench, start_put);
			assert_int_equal(ask.request.status, 0);
			assert_memory_equal(ask.request.facts.parent_digest, parent, sizeof(parent));
			free(memory);
			ask_end(&ask);
			assert_int_equal(bench_get(&bench, KEY, bytes), bytes ? OURS : 1);
			ask_init(&ask, &bench, KEY, bytes, 0);
			ask_run(&ask, &bench, start_find);
			assert_memory_equal(ask.request.facts.parent_digest, parent, sizeof(parent));
			assert_memory_equal(ask.request.facts.meta, "meta", 4);
			assert_int_equal(ask.request.facts.depth, 5);
			ask_end(&ask);
			bench_close(&bench);
		}
	}
}

/* Blocks are allocated ahead for smaller objects where others are under way on the lane. */
static void test_two_together(void **state)
{
	static const char *const keys[] = { "a", "b" };
	struct bench bench;
	struct ask asks[2];
	struct kvk_link ops;

	bench_open_dynamic(&bench, KVK_DURABILITY_NONE, KVK_NAMING_KVKEEP);
	bench.bent.base.caps.direct = true;
	kvk_list_init(&ops);
	for (int i = 0; i < 2; i++) {
		ask_init(&asks[i], &bench, keys[i], 700000, OURS);
		ask_prepare(&asks[i], start_put);
		kvk_list_push(&ops, &asks[i].request.op.link);
	}
	STRAIGHT(&bench.bent);
	kvk_agent_submit(bench.agent, &ops);
	for (int i = 0; i < 2; i++) {
		ask_wait(&asks[i]);
		assert_int_equal(asks[i].request.status, 0);
		ask_end(&asks[i]);
	}
	assert_in_range(bench.bent.calls[KVK_XFER_RESERVE], 1, 2);
	/* Alone it is one transfer. */
	STRAIGHT(&bench.bent);
	assert_int_equal(bench_put(&bench, KEY, 700000, OURS), 0);
	assert_int_equal(bench.bent.calls[KVK_XFER_RESERVE], 0);
	bench_close(&bench);
}

/* The nth allocation of a put fails: nothing is left of it. */
static void test_no_memory(void **state)
{
	char name[KVK_NAME_BYTES_MAX];
	struct bench bench;
	uint64_t nth = 0;
	struct ask ask;
	int status;

	bench_open_dynamic(&bench, KVK_DURABILITY_NONE, KVK_NAMING_KVKEEP);
	bench_name(&bench, name, KEY);
	do {
		ask_init(&ask, &bench, KEY, BYTES, OURS);
		kvk_mem_fail_nth(++nth, false);
		ask_run(&ask, &bench, start_put);
		kvk_mem_fail_nth(0, false);
		status = ask.request.status;
		if (status) {
			assert_int_equal(status, -ENOMEM);
			assert_int_equal(ask.request.reason, KVK_REASON_NO_MEMORY);
			assert_int_equal(bent_bytes(&bench.bent, name), -ENOENT);
		}
		ask_end(&ask);
	} while (status);
	assert_true(nth > 2);
	assert_int_equal(bench_get(&bench, KEY, BYTES), OURS);
	bench_close(&bench);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_way),
		cmocka_unit_test(test_not_asked),
		cmocka_unit_test(test_no_name),
		cmocka_unit_test(test_collision),
		cmocka_unit_test(test_what_is_written),
		cmocka_unit_test(test_two_together),
		cmocka_unit_test(test_no_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
