/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "count.h"
#include "entry.h"
#include "statefile.h"
#include "text.h"

/* So many objects are asked for at once, fewer where the rate is low. */
#define BATCH_ITEMS 16
/* A page is what an interruption loses: less than a second's work on most media. */
#define PAGE_ITEMS 64

_Static_assert(PAGE_ITEMS <= KVK_ENTRY_PAGE, "kvk_entry_page_new() makes room for a page");

struct verify {
	const char *store_argument;
	const char *state_argument;
	uint64_t rate_bytes;       /* a second; 0: as fast as it goes */
	bool resume;
	bool json;
	char state_path[KVK_STATE_PATH_BYTES];
	struct kvk_progress progress;
	uint64_t total;            /* objects there are, for the progress line; 0: not known */
	uint64_t checked_before, bytes_before;         /* by the run that this one goes on from */
	uint64_t begin_ns;
	/* The token bucket: what may be read now, below 0 after a batch that was larger. */
	double tokens;
	uint64_t filled_ns;
	struct kvk_verify_state state;
};

static volatile sig_atomic_t interrupted;

static void on_signal(int signal)
{
	(void)signal;
	interrupted = 1;
}

/* A bare number is what the option is named after: MB/s. */
static int take_rate(const struct kvk_cli_verb *verb, const struct kvk_cli_option *option, const char *text)
{
	uint64_t *rate = option->value;

	if (!kvk_cli_parse_count(rate, text, 1, 1000000)) {
		*rate *= 1000000;
		return 0;
	}
	if (!kvk_cli_parse_bytes(rate, text))
		return 0;
	return kvk_cli_usage(verb, "--rate: '%s' is neither MB a second from 1 to 1000000 nor a size such as 200MiB", text);
}

static int parse(struct verify *verify, const struct kvk_cli_verb *verb, int argc, char **argv)
{
	const struct kvk_cli_option options[] = {
		{ "rate", KVK_OPTION_TAKE, .value = &verify->rate_bytes, .take = take_rate },
		{ "resume", KVK_OPTION_FLAG, .value = &verify->resume },
		{ "state", KVK_OPTION_TEXT, .value = &verify->state_argument },
		{ .name = NULL },
	};
	struct kvk_cli_line line;
	int status = kvk_cli_read_line(&line, verb, argc, argv, options, 1, 1, "wants one STORE");

	if (status)
		return status;
	verify->json = line.json;
	verify->store_argument = line.words[0];
	return 0;
}

/* Waits until the rate allows the next batch. A second's worth may be saved up, no more. */
static void wait_for_rate(struct verify *verify)
{
	while (verify->rate_bytes && !interrupted) {
		uint64_t now_ns = kvk_cli_now_ns(), wait_ns;
		struct timespec wait;

		verify->tokens += (double)(now_ns - verify->filled_ns) / 1e9 * (double)verify->rate_bytes;
		verify->filled_ns = now_ns;
		if (verify->tokens > (double)verify->rate_bytes)
			verify->tokens = (double)verify->rate_bytes;
		if (verify->tokens >= 0)
			return;
		wait_ns = (uint64_t)(-verify->tokens / (double)verify->rate_bytes * 1e9) + 1000;
		wait.tv_sec = (time_t)(wait_ns / 1000000000);
		wait.tv_nsec = (long)(wait_ns % 1000000000);
		nanosleep(&wait, NULL);
	}
}

static int add_bad(struct verify *verify, const struct kvk_list_entry *entry, const char *reason)
{
	char key[KVK_CLI_KEY_TEXT_BYTES];
	json_t *bad = json_pack("{s:o, s:s, s:s, s:I}", "key",
				entry->key_bytes ? kvk_cli_json_key(entry->key, entry->key_bytes) : json_null(),
				"name", entry->name, "reason", reason, "bytes", (json_int_t)entry->object_bytes);

	if (!bad || json_array_append_new(verify->state.bad, bad))
		return kvk_cli_fail("not enough memory");
	if (!verify->json) {
		kvk_progress_end(&verify->progress);
		printf("bad  %s  %s  %s\n", reason, kvk_entry_key(key, entry), entry->name);
		fflush(stdout);
	}
	return 0;
}

static int judge(struct verify *verify, const struct kvk_list_entry *entry, const struct kvk_result *result)
{
	struct kvk_verify_state *state = &verify->state;

	if (entry->state == KVK_OBJECT_UNVERIFIED || (result->status && result->reason == KVK_REASON_FOREIGN)) {
		state->skipped++;
		return 0;
	}
	if (!result->status && entry->state != KVK_OBJECT_DAMAGED) {
		state->checked++;
		state->bytes += result->object_bytes;
		return 0;
	}
	/* Removed between the list and the load: nothing lies there that could be bad. */
	if (result->status == -ENOENT && entry->state != KVK_OBJECT_DAMAGED) {
		state->gone++;
		return 0;
	}
	state->checked++;
	return add_bad(verify, entry, result->status == -ENOENT || !result->status ?
			       kvk_reason_text(KVK_REASON_DAMAGED) : kvk_cli_result_text(result));
}

/* Loads and judges entries [first, first + count) of a page. */
static int verify_batch(struct verify *verify, struct kvk_store *store, const struct kvk_list_entry *entries,
			uint32_t count)
{
	struct kvk_get_item items[BATCH_ITEMS];
	struct kvk_result results[BATCH_ITEMS];
	int err, status = 0;

	for (uint32_t i = 0; i < count; i++) {
		items[i] = (struct kvk_get_item){
			.struct_bytes = sizeof(items[i]),
			.flags = KVK_GET_VERIFY | KVK_GET_PEEK | KVK_KEY_IS_NAME,
			.key = { entries[i].name, (uint32_t)strlen(entries[i].name) },
		};
		results[i] = (struct kvk_result){ .struct_bytes = sizeof(results[i]) };
	}
	err = kvk_store_get_wait(store, items, count, 0, results);
	if (err)
		return kvk_cli_fail("verify: %s", strerror(-err));
	for (uint32_t i = 0; i < count && !status; i++) {
		verify->tokens -= (double)entries[i].object_bytes;
		status = judge(verify, &entries[i], &results[i]);
	}
	kvk_progress_show(&verify->progress, verify->state.checked - verify->checked_before,
			  verify->total - verify->checked_before, "objects",
			  verify->state.bytes - verify->bytes_before);
	return status;
}

static int verify_page(struct verify *verify, struct kvk_store *store, const struct kvk_list_entry *entries,
		       uint32_t count)
{
	/* A quarter of a second's worth at once, so that a low rate is a steady one; at least one object. */
	uint64_t batch_max = verify->rate_bytes ? verify->rate_bytes / 4 : UINT64_MAX;
	int status = 0;

	for (uint32_t i = 0; i < count && !status && !interrupted;) {
		uint64_t bytes = 0;
		uint32_t batch = 0;

		do
			bytes += entries[i + batch++].object_bytes;
		while (batch < BATCH_ITEMS && i + batch < count && bytes < batch_max);
		wait_for_rate(verify);
		if (interrupted)
			break;
		status = verify_batch(verify, store, entries + i, batch);
		i += batch;
	}
	return status;
}

/*
 * A page counts only as a whole: when the work is interrupted within one, counts and cursor are put back to
 * where it began, so that going on neither leaves out nor counts twice.
 */
static int verify_all(struct verify *verify, struct kvk_store *store)
{
	struct kvk_list_entry *entries = kvk_entry_page_new();
	struct kvk_list_query query = { .struct_bytes = sizeof(query) };
	struct kvk_verify_state *state = &verify->state;
	int status = 0;

	if (!entries)
		return kvk_cli_fail("not enough memory");
	do {
		struct kvk_verify_state before = *state;
		size_t bad_before = json_array_size(state->bad);
		char *next = NULL;
		int count;

		query.cursor = state->cursor;
		count = kvk_store_list(store, &query, entries, PAGE_ITEMS, &next);
		if (count < 0) {
			status = kvk_cli_fail("the list broke off: %s", strerror(-count));
			break;
		}
		status = verify_page(verify, store, entries, (uint32_t)count);
		if (status || interrupted) {
			*state = before;
			while (json_array_size(state->bad) > bad_before)
				json_array_remove(state->bad, bad_before);
			kvk_free(next);
			break;
		}
		free(state->cursor);
		state->cursor = next ? strdup(next) : NULL;
		if (next && !state->cursor)
			status = kvk_cli_fail("not enough memory");
		kvk_free(next);
		if (!status && state->cursor)
			status = kvk_verify_state_save(state, verify->state_path);
	} while (!status && state->cursor);
	state->complete = !status && !interrupted;
	if (state->complete)
		kvk_verify_state_forget(verify->state_path);
	free(entries);
	return status;
}

/* How much there is to do: only for the progress line, so only where there is one. */
static int count_objects(struct verify *verify, struct kvk_store *store)
{
	json_t *counts = json_object();
	int status = counts ? kvk_count_medium(counts, store) : kvk_cli_fail("not enough memory");

	if (!status)
		verify->total = (uint64_t)json_integer_value(
			json_object_get(json_object_get(counts, "medium"), "objects"));
	if (verify->total < verify->checked_before)
		verify->total = verify->checked_before;
	json_decref(counts);
	return status;
}

static int report(struct verify *verify)
{
	const struct kvk_verify_state *state = &verify->state;
	double seconds = (double)(kvk_cli_now_ns() - verify->begin_ns) / 1e9;
	size_t bad = json_array_size(state->bad);
	char size[KVK_CLI_TEXT_BYTES];

	if (verify->json) {
		if (kvk_cli_print_json(json_pack("{s:b, s:I, s:I, s:O, s:I, s:I, s:f}", "complete", state->complete,
						 "checked", (json_int_t)state->checked, "bytes",
						 (json_int_t)state->bytes, "bad", state->bad, "gone",
						 (json_int_t)state->gone, "skipped", (json_int_t)state->skipped,
						 "seconds", seconds)))
			return KVK_EXIT_FAILED;
	} else {
		printf("%llu objects read, %s, %zu bad", (unsigned long long)state->checked,
		       kvk_cli_format_bytes(size, state->bytes), bad);
		if (state->skipped)
			printf(", %llu without a proof of this namespace skipped",
			       (unsigned long long)state->skipped);
		if (state->gone)
			printf(", %llu removed meanwhile", (unsigned long long)state->gone);
		putchar('\n');
	}
	if (!state->complete)
		return kvk_cli_fail("interrupted; `kvkeep verify --resume` goes on from here");
	return bad ? KVK_EXIT_FAILED : KVK_EXIT_DONE;
}

static int run(const struct kvk_cli_verb *verb, int argc, char **argv)
{
	struct verify verify = { .store_argument = NULL };
	struct sigaction action = { .sa_handler = on_signal };
	struct kvk_store *store = NULL;
	int status = parse(&verify, verb, argc, argv);

	if (!status)
		status = kvk_cli_open(&store, verify.store_argument, &(struct kvk_cli_overlay){ .use = KVK_USE_LOOK });
	if (!status)
		status = kvk_verify_state_init(&verify.state);
	if (!status)
		status = kvk_verify_state_path(verify.state_path, verify.state_argument, store, verify.store_argument);
	if (!status && verify.resume)
		status = kvk_verify_state_load(&verify.state, verify.state_path);
	if (status)
		goto out;
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	verify.checked_before = verify.state.checked;
	verify.bytes_before = verify.state.bytes;
	kvk_progress_begin(&verify.progress, "verify");
	if (verify.progress.terminal)
		status = count_objects(&verify, store);
	if (status)
		goto out;
	verify.begin_ns = verify.filled_ns = kvk_cli_now_ns();
	status = verify_all(&verify, store);
	kvk_progress_end(&verify.progress);
	if (!status)
		status = report(&verify);
out:
	kvk_verify_state_release(&verify.state);
	kvk_store_close(store);
	return status;
}

const struct kvk_cli_verb kvk_cli_verify = {
	.name = "verify",
	.arguments = "STORE [options]",
	.summary = "read every object, check it, and report the bad ones",
	.help = "  --rate RATE           at most so much a second: MB, or a size such as 200MiB\n"
		"  --resume              go on where the run before was interrupted\n"
		"  --state FILE          where that is remembered, instead of verify-<store> in\n"
		"                        $XDG_STATE_HOME/kvkeep or ~/.local/state/kvkeep\n"
		"  --json                an object: complete, checked, bytes, bad, gone, skipped, seconds\n\n"
		"Objects are neither renewed nor moved aside. The exit status is 1 if one is bad, or if the work was\n"
		"interrupted. Adopted files without a footer and objects of other namespaces that cannot be proven\n"
		"are skipped and counted.\n",
	.run = run,
};
