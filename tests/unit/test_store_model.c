/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store against a model of it: batches of random requests, restarts, damage and losses behind its back.
 *
 * Method: the model (store_model.h) holds for each key what lies on the medium and what the store has learnt of it, and so
 * predicts every answer to what it asks (store_model_calls.h): status, reason, lengths, bytes. After each batch the bytes in
 * use, the objects and the pins must be the model's; now and then a list must be, too. KVK_SEED and KVK_STEPS repeat a run.
 * Runs that failed stand in tests/corpus/model_seeds and come first.
 */
#include "unit/store_model_calls.h"

/* ---- runs --------------------------------------------------------------------------------------- */

static void run_step(struct model *model)
{
	uint32_t count = 1 + (uint32_t)model_draw(model, MODEL_BATCH);
	uint64_t choice = model_draw(model, 1000);

	if (choice < 300)
		run_puts(model, count);
	else if (choice < 600)
		run_gets(model, count);
	else if (choice < 740)
		run_lookups(model, count, choice < 690, choice % 3 == 0);
	else if (choice < 830)
		run_unpins_or_removes(model, count, false);
	else if (choice < 890)
		run_unpins_or_removes(model, count, true);
	else if (choice < 910)
		run_canceled_puts(model, count);
	else if (choice < 960)
		model_damage(model, &model->objects[model_draw(model, MODEL_KEYS)]);
	else if (choice < 980)
		model_vanish(model, &model->objects[model_draw(model, MODEL_KEYS)]);
	else if (choice < 994)
		model_check_list(model);
	else
		model_reopen(model);
	model->steps += count;
	model_check(model);
}

static void run_seed(enum bed_kind kind, uint64_t seed, uint64_t steps)
{
	struct model model = { .random = kit_mix(seed), .options = "\"lanes\": 2" };

	model_setup(&model, kind);
	while (model.answers < steps)
		run_step(&model);
	model_check_list(&model);
	printf("# %s, KVK_SEED=%" PRIu64 ": %" PRIu64 " requests, cap %" PRIu64 " bytes; %" PRIu64 " answers checked, %" PRIu64
	       " hits, %" PRIu64 " damaged, %" PRIu64 " restarts; 0 wrong\n", bed_kind_name(kind), seed, model.steps,
	       model.cap_bytes, model.answers, model.hits, model.damaged, model.restarts);
	proof_tell_more(8, model.answers, "answers", atomic_load(&bed_wrong_answers), "hits=%" PRIu64 " damaged=%" PRIu64
			" restarts=%" PRIu64, model.hits, model.damaged, model.restarts);
	model_keep(&model);
	model_release(&model);
}

/* Beside this source, or where the environment says. */
static FILE *corpus_open(void)
{
	const char *folder = getenv("KVK_CORPUS_DIR");
	const char *slash = strrchr(__FILE__, '/');
	char path[PATH_MAX];

	if (folder)
		snprintf(path, sizeof(path), "%s/model_seeds", folder);
	else
		snprintf(path, sizeof(path), "%.*s/../corpus/model_seeds", (int)(slash - __FILE__), __FILE__);
	return fopen(path, "r");
}

static void corpus(void **state)
{
	FILE *file = corpus_open();
	uint64_t seed, steps;
	unsigned runs = 0;
	char line[256];

	if (!file)
		SKIP("no tests/corpus here (KVK_CORPUS_DIR says where)");
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%" SCNu64 " %" SCNu64, &seed, &steps) != 2)
			continue;
		run_seed(BED_RAM, seed, steps);
		run_seed(BED_THREADS, seed, steps);
		runs++;
	}
	fclose(file);
	assert_true(runs > 0);
}

static void random_requests(enum bed_kind kind, uint64_t steps)
{
	uint64_t seed = kit_seed();

	/* Several seeds: each has its own cap, and its own fate. */
	steps = kit_number("KVK_STEPS", steps);
	for (unsigned i = 0; i < 4; i++)
		run_seed(kind, seed + i * 1000003, (steps + 3) / 4);
}

static void in_memory(void **state)
{
	random_requests(BED_RAM, 100000);
}

/* Through the page cache it is all the same which file system it is; what goes past it wants a disk. */
static void on_disk(void **state)
{
	struct bed *bed = *state;
	bool direct = bed->kind == BED_URING_DIRECT || bed->kind == BED_THREADS_DIRECT;
	bool chosen = getenv("KVK_TEST_DIR") != NULL;

	/* Is the mechanism to be had? */
	bed_open(bed, "");
	bed_close(bed);
	if (!direct && !chosen)
		kit_in_memory();
	random_requests(bed->kind, direct ? 10000 : 40000);
	if (!chosen)
		unsetenv("KVK_TEST_DIR");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(corpus),
		cmocka_unit_test(in_memory),
		BED_TESTS_POSIX(on_disk),
	};

	cmocka_set_test_filter(getenv("KVK_ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
