/* SPDX-License-Identifier: Apache-2.0 */
#include "trace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "payload.h"
#include "text.h"

#define BLOCK_TOKENS 512
/* Ten times what the longest request takes: who reads from what never ends a line learns of it. */
#define LINE_BYTES_MAX (16u << 20)

static int grow(void **array, uint64_t *room, uint64_t wanted, size_t bytes)
{
	uint64_t larger = *room ? *room : 1024;
	void *grown;

	if (wanted <= *room)
		return 0;
	while (larger < wanted)
		larger *= 2;
	grown = reallocarray(*array, larger, bytes);
	if (!grown)
		return -ENOMEM;
	*array = grown;
	*room = larger;
	return 0;
}

/* The slot in which id stands or would stand. */
static uint64_t find_slot(const struct kvk_trace *trace, uint64_t id)
{
	uint64_t slot = kvk_payload_mix(id) & (trace->slot_count - 1);

	while (trace->slots[slot] && trace->ids[trace->slots[slot] - 1] != id)
		slot = (slot + 1) & (trace->slot_count - 1);
	return slot;
}

static int grow_slots(struct kvk_trace *trace)
{
	uint32_t *old = trace->slots;

	if (trace->distinct_count * 2 < trace->slot_count)
		return 0;
	trace->slots = calloc(trace->slot_count ? trace->slot_count * 2 : 4096, sizeof(*trace->slots));
	if (!trace->slots) {
		trace->slots = old;
		return -ENOMEM;
	}
	trace->slot_count = trace->slot_count ? trace->slot_count * 2 : 4096;
	for (uint64_t i = 0; i < trace->distinct_count; i++)
		trace->slots[find_slot(trace, trace->ids[i])] = (uint32_t)i + 1;
	free(old);
	return 0;
}

static int number_of(struct kvk_trace *trace, uint64_t id, uint32_t *number)
{
	uint64_t room = trace->distinct_room, slot;
	int err = grow_slots(trace);

	if (err)
		return err;
	slot = find_slot(trace, id);
	if (!trace->slots[slot]) {
		if (trace->distinct_count == UINT32_MAX)
			return -E2BIG;
		err = grow((void **)&trace->ids, &room, trace->distinct_count + 1, sizeof(*trace->ids));
		if (!err)
			err = grow((void **)&trace->seen, &trace->distinct_room, trace->distinct_count + 1,
				   sizeof(*trace->seen));
		if (err)
			return err;
		trace->ids[trace->distinct_count] = id;
		trace->seen[trace->distinct_count] = 0;
		trace->slots[slot] = (uint32_t)++trace->distinct_count;
	}
	*number = trace->slots[slot] - 1;
	return 0;
}

int kvk_trace_add(struct kvk_trace *trace, const struct kvk_trace_request *request, const uint64_t *ids,
		  uint32_t count)
{
	struct kvk_trace_request *added;
	int err;

	if (count > KVK_TRACE_BLOCKS_MAX)
		return -E2BIG;
	err = grow((void **)&trace->requests, &trace->request_room, trace->request_count + 1,
		   sizeof(*trace->requests));
	if (!err)
		err = grow((void **)&trace->blocks, &trace->block_room, trace->block_count + count,
			   sizeof(*trace->blocks));
	for (uint32_t i = 0; i < count && !err; i++) {
		uint32_t number;

		err = number_of(trace, ids[i], &number);
		if (err)
			break;
		if (trace->seen[number] == trace->request_count + 1)
			err = -EEXIST;
		trace->seen[number] = trace->request_count + 1;
		trace->blocks[trace->block_count + i] = number;
	}
	if (err)
		return err;
	added = &trace->requests[trace->request_count++];
	*added = *request;
	added->first = trace->block_count;
	added->block_count = count;
	trace->block_count += count;
	if (count > trace->blocks_most)
		trace->blocks_most = count;
	return 0;
}

static int count_member(uint64_t *ret, const json_t *object, const char *name)
{
	const json_t *value = json_object_get(object, name);

	if (!json_is_integer(value) || json_integer_value(value) < 0)
		return -EINVAL;
	*ret = (uint64_t)json_integer_value(value);
	return 0;
}

/* A line's own faults are told by a static text; *wrong NULL with an error is a matter of memory. */
static int add_line(struct kvk_trace *trace, const json_t *object, const char **wrong)
{
	struct kvk_trace_request request = { 0 };
	const json_t *list = json_object_get(object, "hash_ids");
	size_t count = json_array_size(list);
	uint64_t *ids;
	int err = 0;

	*wrong = NULL;
	if (!json_is_object(object))
		*wrong = "not an object";
	else if (count_member(&request.timestamp_ms, object, "timestamp"))
		*wrong = "timestamp is not a whole number";
	else if (count_member(&request.input_tokens, object, "input_length"))
		*wrong = "input_length is not a whole number";
	else if (count_member(&request.output_tokens, object, "output_length"))
		*wrong = "output_length is not a whole number";
	else if (!json_is_array(list))
		*wrong = "hash_ids is not an array";
	else if (count > KVK_TRACE_BLOCKS_MAX)
		*wrong = "hash_ids has more than 65,536 blocks";
	if (*wrong)
		return -EINVAL;
	ids = calloc(count + 1, sizeof(*ids));
	if (!ids)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		const json_t *id = json_array_get(list, i);

		if (!json_is_integer(id)) {
			*wrong = "hash_ids has a member that is not a whole number";
			err = -EINVAL;
			break;
		}
		ids[i] = (uint64_t)json_integer_value(id);
	}
	if (!err)
		err = kvk_trace_add(trace, &request, ids, (uint32_t)count);
	if (err == -EEXIST)
		*wrong = "hash_ids has the same block twice";
	free(ids);
	return err == -EEXIST ? -EINVAL : err;
}

/* A line with its end, which may be missing at the end of all. Returns its length, 0 at the end; -E2BIG, -ENOMEM. */
static ssize_t read_line(char **line, size_t *room, FILE *in)
{
	size_t length = 0;
	int c;

	while ((c = getc_unlocked(in)) != EOF) {
		if (length == *room) {
			size_t larger = *room ? 2 * *room : 4096;
			char *grown = length < LINE_BYTES_MAX ? realloc(*line, larger) : NULL;

			if (!grown)
				return length < LINE_BYTES_MAX ? -ENOMEM : -E2BIG;
			*line = grown;
			*room = larger;
		}
		(*line)[length++] = (char)c;
		if (c == '\n')
			break;
	}
	return (ssize_t)length;
}

static bool is_blank(const char *line, size_t length)
{
	while (length > 0 && strchr(" \t\r\n", line[length - 1]) && line[length - 1])
		length--;
	return length == 0;
}

int kvk_trace_read(struct kvk_trace *trace, FILE *in, uint64_t limit, char error[KVK_TRACE_ERROR_BYTES])
{
	uint64_t number = 0;
	char *line = NULL;
	size_t room = 0;
	ssize_t length = 0;
	int err = 0;

	trace->block_tokens = BLOCK_TOKENS;
	while (!err && (!limit || trace->request_count < limit) && (length = read_line(&line, &room, in)) > 0) {
		const char *wrong = NULL;
		json_error_t parse_error;
		char shown[121];
		json_t *object;

		number++;
		if (is_blank(line, (size_t)length))
			continue;
		object = json_loadb(line, (size_t)length, 0, &parse_error);
		if (object) {
			err = add_line(trace, object, &wrong);
		} else {
			err = -EINVAL;
			/* It quotes the line. */
			wrong = kvk_cli_escape(shown, sizeof(shown), parse_error.text, strlen(parse_error.text));
		}
		if (err && wrong)
			snprintf(error, KVK_TRACE_ERROR_BYTES, "line %llu: %s", (unsigned long long)number, wrong);
		else if (err)
			snprintf(error, KVK_TRACE_ERROR_BYTES, "not enough memory");
		json_decref(object);
	}
	if (!err && length == -E2BIG) {
		snprintf(error, KVK_TRACE_ERROR_BYTES, "line %llu: is longer than %u MiB", (unsigned long long)number + 1,
			 LINE_BYTES_MAX >> 20);
		err = -EINVAL;
	} else if (!err && length < 0) {
		snprintf(error, KVK_TRACE_ERROR_BYTES, "not enough memory");
		err = (int)length;
	}
	if (!err && ferror(in)) {
		snprintf(error, KVK_TRACE_ERROR_BYTES, "cannot be read");
		err = -EIO;
	}
	free(line);
	return err;
}

void kvk_trace_release(struct kvk_trace *trace)
{
	free(trace->requests);
	free(trace->blocks);
	free(trace->ids);
	free(trace->seen);
	free(trace->slots);
	*trace = (struct kvk_trace){ 0 };
}
