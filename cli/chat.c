/* SPDX-License-Identifier: Apache-2.0 */
#include "trace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "payload.h"
#include "text.h"

/* Between two turns of one chat lie 5 to 65 seconds; chats begin within ten minutes. */
#define PAUSE_MS_LEAST 5000
#define PAUSE_MS_SPAN 60000
#define BEGIN_MS_SPAN 600000

/* Ids of system blocks and of each user's own blocks lie in ranges of their own. */
#define ID_RANGE (UINT64_C(1) << 32)

struct random {
	uint64_t state;
};

static uint64_t draw(struct random *random, uint64_t below)
{
	random->state += UINT64_C(0x9e3779b97f4a7c15);
	return kvk_payload_mix(random->state) % below;
}

/* Between half and one and a half of the mean. */
static uint64_t draw_tokens(struct random *random, uint64_t mean)
{
	return mean / 2 + draw(random, mean + 1);
}

int kvk_chat_parse(struct kvk_chat *chat, const char *text, char error[KVK_TRACE_ERROR_BYTES])
{
	struct kvk_chat parsed = {
		.users = 0, .turns = 0, .systems = 4, .system_tokens = 2048, .prompt_tokens = 256,
		.reply_tokens = 512, .block_tokens = 512, .seed = chat->seed,
	};
	const struct {
		const char *name;
		uint64_t *value;
		uint64_t least, most;
	} parts[] = {
		{ "users", &parsed.users, 1, 1000000 }, { "turns", &parsed.turns, 1, 10000 },
		{ "systems", &parsed.systems, 1, 1000000 }, { "system", &parsed.system_tokens, 0, 10000000 },
		{ "prompt", &parsed.prompt_tokens, 1, 1000000 }, { "reply", &parsed.reply_tokens, 0, 1000000 },
		{ "block", &parsed.block_tokens, 1, 65536 }, { "seed", &parsed.seed, 0, INT64_MAX },
	};
	char *copy = strdup(text), *rest = copy, *part;
	int err = 0;

	if (!copy)
		return -ENOMEM;
	while (!err && (part = strsep(&rest, ","))) {
		char *value = strchr(part, '=');
		size_t i;

		if (value)
			*value++ = '\0';
		for (i = 0; i < sizeof(parts) / sizeof(parts[0]) && strcmp(parts[i].name, part); i++)
			;
		if (i == sizeof(parts) / sizeof(parts[0]) || !value) {
			snprintf(error, KVK_TRACE_ERROR_BYTES, "'%.40s' is none of users, turns, systems, system, "
				 "prompt, reply, block, seed with =NUMBER", part);
			err = -EINVAL;
		} else if (kvk_cli_parse_count(parts[i].value, value, parts[i].least, parts[i].most)) {
			snprintf(error, KVK_TRACE_ERROR_BYTES, "%s: '%.40s' is not a number from %llu to %llu", part,
				 value, (unsigned long long)parts[i].least, (unsigned long long)parts[i].most);
			err = -EINVAL;
		}
	}
	if (!err && (!parsed.users || !parsed.turns)) {
		snprintf(error, KVK_TRACE_ERROR_BYTES, "users=N and turns=N are wanted");
		err = -EINVAL;
	}
	if (!err && parsed.users * parsed.turns > KVK_CHAT_REQUESTS_MAX) {
		snprintf(error, KVK_TRACE_ERROR_BYTES, "users times turns: %llu requests are more than %llu",
			 (unsigned long long)(parsed.users * parsed.turns), (unsigned long long)KVK_CHAT_REQUESTS_MAX);
		err = -EINVAL;
	}
	if (!err)
		*chat = parsed;
	free(copy);
	return err;
}

struct turn {
	uint64_t timestamp_ms;
	uint64_t user;
	uint64_t turn;
	uint64_t system;
	uint64_t input_tokens;
	uint64_t output_tokens;
};

static int compare_turns(const void *left, const void *right)
{
	const struct turn *a = left, *b = right;

	if (a->timestamp_ms != b->timestamp_ms)
		return a->timestamp_ms < b->timestamp_ms ? -1 : 1;
	if (a->user != b->user)
		return a->user < b->user ? -1 : 1;
	return a->turn < b->turn ? -1 : a->turn > b->turn;
}

static void make_user(struct turn *turns, const struct kvk_chat *chat, uint64_t user)
{
	struct random random = { kvk_payload_mix(chat->seed ^ kvk_payload_mix(user + 1)) };
	uint64_t system = draw(&random, chat->systems);
	uint64_t now_ms = draw(&random, BEGIN_MS_SPAN), tokens = chat->system_tokens;

	for (uint64_t i = 0; i < chat->turns; i++) {
		uint64_t output;

		tokens += draw_tokens(&random, chat->prompt_tokens);
		output = draw_tokens(&random, chat->reply_tokens);
		turns[i] = (struct turn){
			.timestamp_ms = now_ms, .user = user, .turn = i, .system = system,
			.input_tokens = tokens, .output_tokens = output,
		};
		tokens += output;
		now_ms += PAUSE_MS_LEAST + draw(&random, PAUSE_MS_SPAN);
	}
}

static int add_turn(struct kvk_trace *trace, const struct kvk_chat *chat, const struct turn *turn, uint64_t *ids)
{
	struct kvk_trace_request request = {
		.timestamp_ms = turn->timestamp_ms,
		.input_tokens = turn->input_tokens,
		.output_tokens = turn->output_tokens,
	};
	/* A block on the border holds a part of the user's own text, so it is the user's. */
	uint64_t count = turn->input_tokens / chat->block_tokens, shared = chat->system_tokens / chat->block_tokens;

	if (count > KVK_TRACE_BLOCKS_MAX)
		return -E2BIG;
	for (uint64_t i = 0; i < count; i++)
		ids[i] = (i < shared ? turn->system : chat->systems + turn->user) * ID_RANGE + i;
	return kvk_trace_add(trace, &request, ids, (uint32_t)count);
}

int kvk_chat_make(struct kvk_trace *trace, const struct kvk_chat *chat, uint64_t limit)
{
	uint64_t count = chat->users * chat->turns;
	struct turn *turns = calloc(count, sizeof(*turns));
	uint64_t *ids = calloc(KVK_TRACE_BLOCKS_MAX, sizeof(*ids));
	int err = turns && ids ? 0 : -ENOMEM;

	trace->block_tokens = (uint32_t)chat->block_tokens;
	for (uint64_t user = 0; user < chat->users && !err; user++)
		make_user(turns + user * chat->turns, chat, user);
	if (!err)
		qsort(turns, count, sizeof(*turns), compare_turns);
	for (uint64_t i = 0; i < count && (!limit || i < limit) && !err; i++)
		err = add_turn(trace, chat, &turns[i], ids);
	free(turns);
	free(ids);
	return err;
}
