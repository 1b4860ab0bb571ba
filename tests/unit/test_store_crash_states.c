/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store with a file per key is right on any file system that the model allows (tests/model_fs.h says what that is, and after
 * whom): whenever the power goes, and whatever of the calls that no sync had covered reached the medium.
 *
 * Method: a life of a store is recorded call by call: the first open, puts of new keys and over damaged files, gets, removes,
 * evictions, scans, closes with their snapshots, at each durability, with each way of publishing. Then the power goes before any
 * of these calls. Of most states only the objects are made, in the folder of a store that is open, and what differs from the
 * state before is loaded; some are made as a whole, and a store is opened on them. The life goes on from one of those, so that what
 * recovers is recorded as well.
 *
 *   - A load is a hit with exactly the bytes of a generation that was put under that key, or it is a miss.
 *   - What was acknowledged at durability `object`, or at any before a sync of everything, and was not removed, damaged or
 *     evicted since, is a hit, and with nothing older than what was acknowledged.
 *   - Every state can be opened. Usage is then never less than what is there; after a scan it is exactly that, no temporary file
 *     is left, and every key can be put and loaded.
 *
 * KVK_STEPS says how many states, KVK_SEED which. Threads of the store's own (account, keeper, unlinks) fall in between by
 * themselves, so a seed gives the same requests and the same choices, and calls in nearly the same order; a failure tells all of them.
 */
#include <dirent.h>

#include "crash_probe.h"
#include "system/truth.h"

#define STATES (KIT_SANITIZED ? 3000 : 25000)
#define STATES_A_LIFE 2500
#define OPENED_OF 1200                 /* states, one is opened */
#define THOROUGH_OF 12                 /* of these, one is used on */
#define SAME_CRASH 12                  /* states that differ in what reached the medium alone */
#define LIVES_A_CHAIN 4
#define STEPS 36
#define BATCH 4u
#define WAIT_US 20000000
#define SCAN_US 10000                  /* a scan goes on by itself: where it is cut off is as good as any other place */

/* ---- a life that is recorded ------------------------------------------------------------------------ */

static void open_recorded(struct run *run)
{
	kvk_posix_sys_use(model_table());
	bed_open(&run->bed, run->more);
	kvk_posix_sys_use(NULL);
}

static uint32_t some_keys(struct run *run)
{
	uint32_t which = 0;

	for (uint64_t n = 1 + kit_below(&run->random, BATCH); n > 0; n--)
		which |= 1u << kit_below(&run->random, KEYS);
	return which;
}

static void step_put(struct run *run)
{
	struct kvk_result results[KEYS];
	uint32_t which = some_keys(run);

	put(&run->crashes, &run->job, run->bed.store, which, results);
	for (uint32_t i = 0; i < KEYS; i++) {
		struct line *line = &run->crashes.lines[i];

		if (!(which >> i & 1))
			continue;
		if (results[i].status == 0 && results[i].reason == KVK_REASON_NONE)
			promise(&run->crashes, line, line->tried);
		else if (results[i].status == 0 && run->crashes.level == KVK_DURABILITY_OBJECT && !line->rots &&
			 (!line->promise_count || !line->promises[line->promise_count - 1].generation))
			promise(&run->crashes, line, ANY);
		else if (results[i].status && results[i].reason != KVK_REASON_SCANNING && results[i].reason != KVK_REASON_BUSY &&
			 !(run->crashes.capped && results[i].reason == KVK_REASON_NO_ROOM))
			fail_msg("a put of %s: %d, %s", line->text, results[i].status, kvk_reason_text(results[i].reason));
	}
}

static void step_remove(struct run *run)
{
	struct line *line = &run->crashes.lines[kit_below(&run->random, KEYS)];
	int err;

	take_back(&run->crashes, line);
	err = bed_remove(run->bed.store, line->text, NULL);
	assert_true(err == 0 || err == -ENOENT);
}

/* A flipped bit, in the payload or in the footer. */
static void step_damage(struct run *run)
{
	struct line *line = &run->crashes.lines[kit_below(&run->random, KEYS)];

	take_back(&run->crashes, line);
	line->rots = true;
	model_damage(line->name, kit_below(&run->random, 2) ? kit_below(&run->random, 40) : 4096 + kit_below(&run->random, 280));
}

static void step_load(struct run *run)
{
	load(&run->crashes, &run->job, run->bed.store, some_keys(run));
	assert_int_equal(atomic_load(&bed_wrong_answers), 0);
}

static void step_evict(struct run *run)
{
	uint64_t bytes;

	if (run->crashes.capped)
		assert_int_equal(kvk_store_evict(run->bed.store, 1 + kit_below(&run->random, 50000), &bytes), 0);
}

/* Another program syncs the file system. */
static void step_sync(struct run *run)
{
	model_sync_all();
}

static void step_scan(struct run *run)
{
	int err = kvk_store_scan(run->bed.store, SCAN_US);

	assert_true(err == 0 || err == -ETIMEDOUT || err == -EBUSY);
}

static void step_reopen(struct run *run)
{
	assert_int_equal(bed_close(&run->bed), 0);
	open_recorded(run);
}

static const struct {
	uint32_t share;
	void (*step)(struct run *run);
} steps[] = {
	{ 17, step_put }, { 4, step_remove }, { 3, step_damage }, { 4, step_load }, { 1, step_evict }, { 1, step_sync },
	{ 1, step_scan }, { 1, step_reopen },
};

static void step(struct run *run)
{
	uint64_t drawn = kit_below(&run->random, 32);
	size_t i = 0;

	for (; drawn >= steps[i].share; i++)
		drawn -= steps[i].share;
	steps[i].step(run);
}

/* Returns the record; *first is the call from which on objects may be there. */
static struct model_record *live(struct run *run, uint32_t *first)
{
	model_begin(run->bed.path, run->lacks);
	open_recorded(run);
	*first = model_count();
	for (unsigned i = 0; i < STEPS; i++)
		step(run);
	assert_int_equal(bed_close(&run->bed), 0);
	return model_end();
}

/* ---- states that are opened --------------------------------------------------------------------------- */

/* Files, each rounded up to a page. One that has two names after half a rename lies there once. */
static uint64_t bytes_below(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	uint64_t bytes = 0;
	struct stat stat;
	char below[600];

	while (dir && (entry = readdir(dir))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		snprintf(below, sizeof(below), "%s/%s", path, entry->d_name);
		if (lstat(below, &stat))
			continue;
		if (!S_ISDIR(stat.st_mode))
			bytes += kvk_page_ceil((uint64_t)stat.st_size) / stat.st_nlink;
		else if (!strcmp(entry->d_name, ".kvkeep"))
			bytes += bytes_below(strcat(below, "/quarantine"));
		else
			bytes += bytes_below(below);
	}
	if (dir)
		closedir(dir);
	return bytes;
}

static void must_agree(const struct model_state *state, const char *what)
{
	if (!what)
		return;
	model_tell(state);
	fail_msg("%s", what);
}

/* Beside the objects: what was being written aside. */
static void must_be_swept(const struct model_state *state, const struct bed *bed, const char *folder)
{
	char path[200];
	DIR *dir;
	struct dirent *entry;

	snprintf(path, sizeof(path), "%s/%s", bed->path, folder);
	dir = opendir(path);
	assert_non_null(dir);
	while ((entry = readdir(dir))) {
		if (!strncmp(entry->d_name, ".tmp-", 5))
			must_agree(state, entry->d_name);
	}
	closedir(dir);
}

/* While nothing is stored usage may be more than what is there, never less. */
static void must_be_charged(const struct model_state *state, const struct bed *bed)
{
	struct kvk_usage usage = bed_usage(bed->store);
	uint64_t bytes = bytes_below(bed->path);

	if (usage.used_bytes + usage.leased_bytes >= bytes)
		return;
	model_tell(state);
	fail_msg("usage says %" PRIu64 " bytes and %" PRIu64 " leased; %" PRIu64 " are there", usage.used_bytes, usage.leased_bytes, bytes);
}

/* Whatever was left there, the store goes on: it counts, cleans up, and every key can be used. */
static void check_rested(struct run *run, struct resting *resting)
{
	struct kvk_result results[KEYS];
	const char *what;

	if (!resting->bed.store)
		return;
	what = truth_disagrees(resting->bed.store, resting->bed.path, WAIT_US);
	if (what)
		fail_msg("%s: %s", resting->what, what);
	put(&run->crashes, &run->job, resting->bed.store, (1u << KEYS) - 1, results);
	load(&run->crashes, &run->job, resting->bed.store, (1u << KEYS) - 1);
	for (uint32_t i = 0; i < KEYS && !resting->capped; i++) {
		if (results[i].status || !run->job.found[i])
			fail_msg("%s: a put of %s: %d, %s; found is generation %u", resting->what, run->crashes.lines[i].text,
				 results[i].status, kvk_reason_text(results[i].reason), run->job.found[i]);
	}
	end_bed(&resting->bed);
	run->crashes.figures.thorough++;
}

static void open_state(struct run *run, uint32_t crash, uint64_t seed)
{
	struct resting *resting = &run->resting[run->rest_next];
	struct kvk_error error = { .struct_bytes = sizeof(error) };
	struct model_state state;
	struct bed bed;

	model_state_init(&state, run->crashes.record, crash, seed);
	bed_begin(&bed, BED_THREADS);
	model_build(&state, bed.path);
	if (bed_try_open(&bed, run->more, &error)) {
		model_tell(&state);
		fail_msg("cannot be opened: %s: %s", error.option, error.text);
	}
	must_be_charged(&state, &bed);
	must_be_swept(&state, &bed, ".kvkeep");
	must_be_swept(&state, &bed, ".kvkeep/namespaces");
	load(&run->crashes, &run->job, bed.store, (1u << KEYS) - 1);
	check_found(run, &state, run->job.found);
	must_be_charged(&state, &bed);
	run->crashes.figures.opened++;
	run->crashes.figures.states++;
	model_state_free(&state);
	if (run->crashes.figures.opened % THOROUGH_OF) {
		end_bed(&bed);
		return;
	}
	check_rested(run, resting);
	*resting = (struct resting){ .bed = bed, .capped = run->crashes.capped };
	snprintf(resting->what, sizeof(resting->what), "crash before call %u, seed 0x%" PRIx64, crash, seed);
	run->rest_next = (run->rest_next + 1) % RESTING;
}

/* ---- one life, and the next one from one of its crashes ------------------------------------------------- */

static void choose_chain(struct run *run)
{
	struct kvk_layout layout = { .naming = KVK_NAMING_KVKEEP, .levels = 1 + (uint32_t)kit_below(&run->random, 2) };
	uint8_t namespace_digest[KVK_DIGEST_BYTES] = { 0 }, digest[KVK_DIGEST_BYTES];
	bool has_namespace = kit_below(&run->random, 2);

	if (has_namespace)
		assert_int_equal(kvk_manifest_digest(namespace_digest, "{\"model\":\"m\"}"), 0);
	snprintf(run->shape, sizeof(run->shape), "\"lanes\": 1, \"max_objects\": %s%s", layout.levels == 2 ? "6000000" : "1000",
		 has_namespace ? ", \"namespace\": {\"model\": \"m\"}" : "");
	for (uint32_t i = 0; i < KEYS; i++) {
		struct line *line = &run->crashes.lines[i];

		/* Generations go on: stores of the chain before may still be at rest. */
		*line = (struct line){ .tried = line->tried };
		snprintf(line->text, sizeof(line->text), "k%u", i);
		assert_int_equal(kvk_key_digest(digest, namespace_digest, line->text, (uint32_t)strlen(line->text)), 0);
		assert_int_equal(kvk_name_make(line->name, &layout, digest, line->text, (uint32_t)strlen(line->text)), 0);
	}
}

static void choose_life(struct run *run)
{
	static const char *const words[] = { "none", "batch", "object" };

	run->crashes.level = (enum kvk_durability)kit_below(&run->random, 3);
	run->crashes.capped = run->crashes.level == KVK_DURABILITY_NONE && kit_below(&run->random, 3) == 0;
	run->lacks = kit_below(&run->random, 3) == 0 ? (uint32_t)kit_below(&run->random, 4) : 0;
	snprintf(run->more, sizeof(run->more), "params:\"max_capacity_gb\": %s; %s, \"durability\": \"%s\", \"batch_seconds\": 0.1%s",
		 run->crashes.capped ? "0.0001" : "0", run->shape, words[run->crashes.level],
		 run->crashes.capped ? ", \"eviction\": {\"eviction_policy\": \"LRU\"}" : "");
}

/* What was promised at the crash is so from now on, and nothing else. */
static void go_on_from(struct run *run, uint32_t crash, uint64_t seed)
{
	struct model_state state;

	model_state_init(&state, run->crashes.record, crash, seed);
	end_bed(&run->bed);
	bed_begin(&run->bed, BED_THREADS);
	model_build(&state, run->bed.path);
	for (uint32_t i = 0; i < KEYS; i++) {
		struct line *line = &run->crashes.lines[i];

		line->promises[0] = (struct promise){ .generation = promised_at(&run->crashes, line, crash) };
		line->promise_count = 1;
	}
	model_state_free(&state);
}

static void crash_often(struct run *run, uint32_t first, uint64_t wanted)
{
	uint32_t names[KEYS], count = run->crashes.record->op_count, crash = first;
	uint64_t seed = kit_random(&run->random), before = run->crashes.figures.states;

	memset(run->seen, 0, SEEN_ROOM * sizeof(*run->seen));
	for (uint32_t i = 0; i < KEYS; i++)
		names[i] = model_find(run->crashes.record, run->crashes.lines[i].name);
	for (uint32_t i = 0; i < PROBES; i++)
		memset(run->probes[i].numbers, 0, sizeof(run->probes[i].numbers));
	for (uint64_t n = 0; n < 3 * wanted && run->crashes.figures.states - before < wanted; n++) {
		if (n % SAME_CRASH == 0)
			crash = first + (uint32_t)(kit_mix(seed ^ n << 1) % (count - first + 1));
		probe_state(run, names, crash, kit_mix(seed ^ (n << 1 | 1)));
		/* As a whole also before there are objects: the first open may be cut off, too. */
		if (n % OPENED_OF == 0)
			open_state(run, (uint32_t)(kit_mix(seed ^ n << 2) % (count + 1)), kit_mix(seed ^ n << 3));
	}
	judge_probes(run);
}

static void begin_chain(struct run *run)
{
	choose_chain(run);
	bed_begin(&run->bed, BED_THREADS);
	for (uint32_t i = 0; i < PROBES; i++)
		open_probe(run, &run->probes[i]);
}

static void end_chain(struct run *run)
{
	for (uint32_t i = 0; i < PROBES && run->probes[i].bed.store; i++)
		close_probe(&run->probes[i]);
	if (run->bed.path[0])
		end_bed(&run->bed);
}

static void any_crash(void **state)
{
	struct run *run = calloc(1, sizeof(*run));
	uint64_t wanted = kit_number("KVK_STEPS", STATES), begin_us = kit_now_us(), us;
	struct model_record *record;

	assert_non_null(run);
	run->seen = calloc(SEEN_ROOM, sizeof(*run->seen));
	assert_non_null(run->seen);
	run->random = kit_seed();
	bed_begin(&run->bed, BED_URING);
	run->ring = bed_try_open(&run->bed, "", NULL) == 0;
	end_bed(&run->bed);
	for (uint64_t life = 0; run->crashes.figures.states < wanted; life++) {
		uint32_t first;

		if (life % LIVES_A_CHAIN == 0)
			begin_chain(run);
		choose_life(run);
		record = live(run, &first);
		run->crashes.record = record;
		run->crashes.figures.calls += record->op_count;
		/* Promises of a store whose objects may be evicted mean nothing. */
		for (uint32_t i = 0; i < KEYS && run->crashes.capped; i++)
			run->crashes.lines[i].promise_count = 0;
		crash_often(run, life % LIVES_A_CHAIN ? 0 : first, STATES_A_LIFE);
		if (life % LIVES_A_CHAIN == LIVES_A_CHAIN - 1)
			end_chain(run);
		else
			go_on_from(run, (uint32_t)kit_below(&run->random, record->op_count + 1), kit_random(&run->random));
		model_free(record);
	}
	end_chain(run);
	for (uint32_t i = 0; i < RESTING; i++)
		check_rested(run, &run->resting[i]);
	us = kit_now_us() - begin_us;
	printf("# %" PRIu64 " states after %" PRIu64 " recorded calls, %" PRIu64 " of them opened (%" PRIu64 " used on): %" PRIu64
	       " loads, %" PRIu64 " hits, %" PRIu64 " absent, %" PRIu64 " rejected; %" PRIu64 " had to hit; %" PRIu64 " us a state\n",
	       run->crashes.figures.states, run->crashes.figures.calls, run->crashes.figures.opened, run->crashes.figures.thorough, run->crashes.figures.loads,
	       run->crashes.figures.hits, run->crashes.figures.misses, run->crashes.figures.rejected, run->crashes.figures.promised, us / run->crashes.figures.states);
	proof_tell_more(4, run->crashes.figures.states, "states", atomic_load(&bed_wrong_answers), "hits=%" PRIu64 " rejected=%" PRIu64
			" opened=%" PRIu64, run->crashes.figures.hits, run->crashes.figures.rejected, run->crashes.figures.opened);
	/* A run that sees no damage, or no object that survives, shows nothing. */
	assert_true(run->crashes.figures.rejected > 0);
	assert_true(run->crashes.figures.hits > 0);
	assert_true(run->crashes.figures.promised > 0);
	free(run->seen);
	free(run);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_crash),
	};

	kit_in_memory();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
