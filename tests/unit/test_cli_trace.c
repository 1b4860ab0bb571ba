/* SPDX-License-Identifier: Apache-2.0 */
/* Traces: the reader, the generator of chats, and the model that counts what must be a hit. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/model.h"
#include "cli/trace.h"
#include "support/skip.h"

static int read_text(struct kvk_trace *trace, const char *text, uint64_t limit, char *error)
{
	FILE *in = fmemopen((void *)(uintptr_t)text, strlen(text), "r");
	int err = kvk_trace_read(trace, in, limit, error);

	fclose(in);
	return err;
}

#define LINE(ids) "{\"timestamp\": 5, \"input_length\": 1024, \"output_length\": 7, \"hash_ids\": [" ids "]}\n"

static void lines_become_requests(void **state)
{
	struct kvk_trace trace = { 0 };
	char error[KVK_TRACE_ERROR_BYTES] = "";
	static const uint32_t blocks[] = { 0, 1, 2, 0, 1, 3 };
	static const uint64_t ids[] = { 7, 900000000000, 8, 9 };

	(void)state;
	assert_int_equal(read_text(&trace, LINE("7, 900000000000, 8") "\n" LINE("7, 900000000000, 9") LINE(""), 0, error), 0);
	assert_int_equal(trace.request_count, 3);
	assert_int_equal(trace.distinct_count, 4);
	assert_int_equal(trace.block_count, 6);
	assert_int_equal(trace.blocks_most, 3);
	assert_int_equal(trace.block_tokens, 512);
	assert_int_equal(trace.requests[1].first, 3);
	assert_int_equal(trace.requests[1].block_count, 3);
	assert_int_equal(trace.requests[1].timestamp_ms, 5);
	assert_int_equal(trace.requests[1].input_tokens, 1024);
	assert_int_equal(trace.requests[1].output_tokens, 7);
	assert_int_equal(trace.requests[2].block_count, 0);
	assert_memory_equal(trace.blocks, blocks, sizeof(blocks));
	assert_memory_equal(trace.ids, ids, sizeof(ids));
	kvk_trace_release(&trace);
	assert_int_equal(read_text(&trace, LINE("1") LINE("2") LINE("3"), 2, error), 0);
	assert_int_equal(trace.request_count, 2);
	kvk_trace_release(&trace);
}

static void bad_lines_are_named(void **state)
{
	static const struct {
		const char *text;
		const char *wanted;
	} table[] = {
		{ LINE("1") "{", "line 2: " }, { "[]\n", "line 1: not an object" }, { "3\n", "line 1: " },
		{ "\n\n" LINE("1, 2, 1"), "line 3: hash_ids has the same block twice" },
		{ LINE("1") LINE("1.5"), "line 2: hash_ids has a member that is not a whole number" },
		{ LINE("\"1\""), "line 1: hash_ids has a member that is not a whole number" },
		{ "{\"timestamp\": -1, \"input_length\": 1, \"output_length\": 1, \"hash_ids\": []}", "line 1: timestamp" },
		{ "{\"timestamp\": 1, \"output_length\": 1, \"hash_ids\": []}", "line 1: input_length" },
		{ "{\"timestamp\": 1, \"input_length\": 1, \"hash_ids\": []}", "line 1: output_length" },
		{ "{\"timestamp\": 1, \"input_length\": 1, \"output_length\": 1}", "line 1: hash_ids is not an array" },
		{ LINE("1") "xyz\n", "line 2: " },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		char error[KVK_TRACE_ERROR_BYTES] = "";
		struct kvk_trace trace = { 0 };

		assert_int_equal(read_text(&trace, table[i].text, 0, error), -EINVAL);
		if (strncmp(error, table[i].wanted, strlen(table[i].wanted)))
			fail_msg("'%s' is told as '%s', wanted '%s...'", table[i].text, error, table[i].wanted);
		kvk_trace_release(&trace);
	}
}

/* What never ends a line does not take all memory, and what is quoted of a line moves no cursor. */
static void wild_lines_are_told(void **state)
{
	char error[KVK_TRACE_ERROR_BYTES] = "";
	struct kvk_trace trace = { 0 };
	FILE *in = fopen("/dev/zero", "r");

	(void)state;
	assert_non_null(in);
	assert_int_equal(kvk_trace_read(&trace, in, 0, error), -EINVAL);
	fclose(in);
	assert_string_equal(error, "line 1: is longer than 16 MiB");
	kvk_trace_release(&trace);
	assert_int_equal(read_text(&trace, LINE("1") "\n \t\r\n" LINE("2"), 0, error), 0);
	assert_int_equal(trace.request_count, 2);
	kvk_trace_release(&trace);
	assert_int_equal(read_text(&trace, "{\"a\033[2J\n", 0, error), -EINVAL);
	assert_null(strchr(error, '\033'));
	assert_non_null(strstr(error, "a"));
	kvk_trace_release(&trace);
}

/* The published trace of one hour of chats; its README names these numbers. */
static void the_published_trace_has_its_numbers(void **state)
{
	char path[1024], error[KVK_TRACE_ERROR_BYTES] = "";
	const char *slash = strrchr(__FILE__, '/');
	struct kvk_trace trace = { 0 };
	uint64_t hits = 0;
	FILE *in;

	(void)state;
	snprintf(path, sizeof(path), "%.*s/../../../shared/traces/conversation_trace.jsonl", (int)(slash - __FILE__),
		 __FILE__);
	in = fopen(path, "r");
	if (!in)
		SKIP("shared/traces/conversation_trace.jsonl is not beside the repository");
	assert_int_equal(kvk_trace_read(&trace, in, 0, error), 0);
	fclose(in);
	assert_int_equal(trace.request_count, 12031);
	assert_int_equal(trace.block_count, 288500);
	assert_int_equal(trace.distinct_count, 182790);
	assert_int_equal(kvk_model_unlimited_hits(&trace, 0, &hits), 0);
	assert_int_equal(hits, 105710);                 /* 36.64 % */
	assert_int_equal(kvk_model_unlimited_hits(&trace, 1, &hits), 0);
	assert_int_equal(hits, 0);
	kvk_trace_release(&trace);
}

static void make_chat(struct kvk_trace *trace, const char *text, uint64_t limit)
{
	char error[KVK_TRACE_ERROR_BYTES] = "";
	struct kvk_chat chat = { .seed = 1 };

	if (kvk_chat_parse(&chat, text, error))
		fail_msg("%s: %s", text, error);
	assert_int_equal(kvk_chat_make(trace, &chat, limit), 0);
}

/* Later turns of a user begin with all blocks of the ones before; users of one system prompt share its blocks. */
static void chats_grow_and_share(void **state)
{
	enum { USERS = 20, TURNS = 6 };
	struct kvk_trace trace = { 0 }, again = { 0 }, other = { 0 };
	uint64_t hits, last_ms = 0, shared = 0;

	(void)state;
	make_chat(&trace, "users=20,turns=6,systems=2,system=1024,prompt=700,reply=700,seed=5", 0);
	make_chat(&again, "users=20,turns=6,systems=2,system=1024,prompt=700,reply=700,seed=5", 0);
	make_chat(&other, "users=20,turns=6,systems=2,system=1024,prompt=700,reply=700,seed=6", 0);
	assert_int_equal(trace.request_count, USERS * TURNS);
	assert_int_equal(trace.block_count, again.block_count);
	assert_memory_equal(trace.blocks, again.blocks, trace.block_count * sizeof(*trace.blocks));
	assert_true(trace.block_count != other.block_count ||
		    memcmp(trace.blocks, other.blocks, trace.block_count * sizeof(*trace.blocks)));
	for (uint64_t i = 0; i < trace.request_count; i++) {
		const struct kvk_trace_request *request = &trace.requests[i];
		const uint32_t *blocks = trace.blocks + request->first;

		assert_true(request->timestamp_ms >= last_ms);
		last_ms = request->timestamp_ms;
		assert_int_equal(request->block_count, request->input_tokens / 512);
		/* Of two requests that have the same block, both have the same prefix before it. */
		for (uint64_t k = 0; k < i; k++) {
			const uint32_t *before = trace.blocks + trace.requests[k].first;
			bool same = true;

			for (uint32_t at = 0; at < request->block_count && at < trace.requests[k].block_count; at++) {
				assert_true(same || blocks[at] != before[at]);
				same = same && blocks[at] == before[at];
				shared += same;
			}
		}
	}
	assert_true(shared > 0);
	/* What can be a hit: all but each user's growth and two system prompts. */
	assert_int_equal(kvk_model_unlimited_hits(&trace, 0, &hits), 0);
	assert_int_equal(hits, trace.block_count - trace.distinct_count);
	kvk_trace_release(&trace);
	kvk_trace_release(&again);
	kvk_trace_release(&other);
	make_chat(&trace, "users=20,turns=6", 7);
	assert_int_equal(trace.request_count, 7);
	kvk_trace_release(&trace);
}

static void bad_chats_are_refused(void **state)
{
	static const char *const table[] = {
		"", "users=1", "turns=1", "users=0,turns=1", "users=1,turns=x", "users=1,turns=1,", "users=1,turns=1,frob=1",
		"users,turns=1", "users=1,turns=1,block=0", "users=-1,turns=1", "users=1,turns=1,seed=1.5",
		/* 480 GB of turns, of which -n 1 would take one. */
		"users=1000000,turns=10000", "users=1000000,turns=17",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		char error[KVK_TRACE_ERROR_BYTES] = "";
		struct kvk_chat chat = { .seed = 77 };

		if (kvk_chat_parse(&chat, table[i], error) != -EINVAL)
			fail_msg("'%s' was taken", table[i]);
		assert_true(error[0]);
		assert_int_equal(chat.seed, 77);
	}
}

static void a_hole_ends_the_hit(void **state)
{
	uint8_t states[6] = { KVK_MODEL_STORED, KVK_MODEL_STORED, KVK_MODEL_ABSENT, KVK_MODEL_STORED, KVK_MODEL_UNKNOWN,
			      KVK_MODEL_WRITING };
	struct kvk_model model = { states, 6 };
	static const uint32_t with_hole[] = { 0, 1, 2, 3 }, unknown[] = { 3, 4, 0 }, writing[] = { 1, 5, 0 };

	(void)state;
	assert_int_equal(kvk_model_hits(&model, with_hole, 4), 2);
	assert_int_equal(kvk_model_hits(&model, with_hole, 1), 1);
	assert_int_equal(kvk_model_hits(&model, with_hole, 0), 0);
	assert_int_equal(kvk_model_hits(&model, unknown, 3), 1);
	assert_int_equal(kvk_model_hits(&model, writing, 3), 1);
}

/* The model contradicts what cannot be, takes what it could not know, and counts a fault once. */
static void the_model_learns(void **state)
{
	static const struct {
		uint8_t before;
		bool found, agrees;
		uint8_t after;
	} table[] = {
		{ KVK_MODEL_ABSENT, false, true, KVK_MODEL_ABSENT }, { KVK_MODEL_ABSENT, true, false, KVK_MODEL_STORED },
		{ KVK_MODEL_STORED, true, true, KVK_MODEL_STORED }, { KVK_MODEL_STORED, false, false, KVK_MODEL_ABSENT },
		{ KVK_MODEL_UNKNOWN, true, true, KVK_MODEL_STORED }, { KVK_MODEL_UNKNOWN, false, true, KVK_MODEL_ABSENT },
		{ KVK_MODEL_UNASKED, true, true, KVK_MODEL_STORED }, { KVK_MODEL_UNASKED, false, true, KVK_MODEL_ABSENT },
		{ KVK_MODEL_WRITING, false, true, KVK_MODEL_WRITING }, { KVK_MODEL_WRITING, true, false, KVK_MODEL_WRITING },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		uint8_t block = table[i].before;
		struct kvk_model model = { &block, 1 };

		assert_int_equal(kvk_model_learn(&model, 0, table[i].found), table[i].agrees);
		assert_int_equal(block, table[i].after);
		if (block != KVK_MODEL_WRITING)
			assert_true(kvk_model_learn(&model, 0, table[i].found));
	}
}

static void a_kill_leaves_puts_open(void **state)
{
	uint8_t states[5] = { KVK_MODEL_WRITING, KVK_MODEL_STORED, KVK_MODEL_UNKNOWN, KVK_MODEL_WRITING, KVK_MODEL_ABSENT };
	static const uint8_t after[5] = { KVK_MODEL_UNKNOWN, KVK_MODEL_STORED, KVK_MODEL_UNKNOWN, KVK_MODEL_UNKNOWN,
					  KVK_MODEL_ABSENT };
	struct kvk_model model = { states, 5 };

	(void)state;
	assert_int_equal(kvk_model_killed(&model), 2);
	assert_memory_equal(states, after, sizeof(after));
	assert_int_equal(kvk_model_killed(&model), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines_become_requests), cmocka_unit_test(bad_lines_are_named),
		cmocka_unit_test(wild_lines_are_told),
		cmocka_unit_test(the_published_trace_has_its_numbers), cmocka_unit_test(chats_grow_and_share),
		cmocka_unit_test(bad_chats_are_refused), cmocka_unit_test(a_hole_ends_the_hit),
		cmocka_unit_test(the_model_learns), cmocka_unit_test(a_kill_leaves_puts_open),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
