/* SPDX-License-Identifier: Apache-2.0 */
/* The "fault" option, in words an operator can correct it by. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "backend/fault/inside.h"
#include "util/error.h"

#define DELAY_MS_MAX 3600000.0
#define PART_KB_MAX 1e9
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const struct {
	const char *name;
	int number;
} errors[] = {
	{ "EIO", EIO },       { "ENOSPC", ENOSPC }, { "EDQUOT", EDQUOT }, { "EROFS", EROFS },   { "EMFILE", EMFILE },
	{ "ENFILE", ENFILE }, { "ENOMEM", ENOMEM }, { "EINTR", EINTR },   { "EAGAIN", EAGAIN }, { "ESTALE", ESTALE },
	{ "EACCES", EACCES }, { "EEXIST", EEXIST }, { "ENOENT", ENOENT },
};

static const char *const kinds[] = {
	[KVK_FAULT_FAIL] = "fail",       [KVK_FAULT_FAIL_AFTER] = "fail_after", [KVK_FAULT_SHORTEN] = "shorten",
	[KVK_FAULT_DELAY] = "delay",     [KVK_FAULT_CORRUPT] = "corrupt",       [KVK_FAULT_HANG] = "hang",
};

/* Where in the option we are, for the message. */
struct where {
	size_t index;
	const char *member;
	struct kvk_error *error;
};

static int wrong(const struct where *where, const char *text)
{
	char option[64];

	snprintf(option, sizeof(option), "fault[%zu]%s%s", where->index, where->member ? "." : "",
		 where->member ? where->member : "");
	return kvk_error_set(where->error, -EINVAL, option, "%s", text);
}

static int read_kind(const json_t *value, struct kvk_fault_rule *rule, const struct where *where)
{
	const char *text = json_string_value(value);

	for (size_t i = 0; text && i < COUNT(kinds); i++) {
		if (!strcmp(text, kinds[i])) {
			rule->kind = (enum kvk_fault_kind)i;
			return 0;
		}
	}
	return wrong(where, "must be one of \"fail\", \"fail_after\", \"shorten\", \"delay\", \"corrupt\", \"hang\"");
}

static int read_errno(const json_t *value, struct kvk_fault_rule *rule, const struct where *where)
{
	const char *text = json_string_value(value);

	for (size_t i = 0; text && i < COUNT(errors); i++) {
		if (!strcmp(text, errors[i].name)) {
			rule->error = errors[i].number;
			return 0;
		}
	}
	return wrong(where, "must be one of \"EIO\", \"ENOSPC\", \"EDQUOT\", \"EROFS\", \"EMFILE\", \"ENFILE\", "
			    "\"ENOMEM\", \"EINTR\", \"EAGAIN\", \"ESTALE\", \"EACCES\", \"EEXIST\", \"ENOENT\"");
}

static const char *op_name(unsigned op)
{
	return op == KVK_FAULT_UPDATE_FILE ? "update_file" : op == KVK_FAULT_ASK ? "ask"
	     : kvk_xfer_op_name((enum kvk_xfer_op)op);
}

static int read_op(const char *text, uint32_t *ops)
{
	for (unsigned op = 0; text && op < KVK_FAULT_OP_COUNT; op++) {
		if (!strcmp(text, op_name(op))) {
			*ops |= 1u << op;
			return 0;
		}
	}
	return -EINVAL;
}

static int read_ops(const json_t *value, struct kvk_fault_rule *rule, const struct where *where)
{
	char text[320] = "must be a list of";
	size_t count = json_array_size(value);
	int err = count > 0 ? 0 : -EINVAL;

	for (size_t i = 0; i < count && !err; i++)
		err = read_op(json_string_value(json_array_get(value, i)), &rule->ops);
	if (!err)
		return 0;
	for (unsigned op = 0; op < KVK_FAULT_OP_COUNT; op++) {
		size_t used = strlen(text);

		snprintf(text + used, sizeof(text) - used, "%s \"%s\"", op ? "," : "", op_name(op));
	}
	return wrong(where, text);
}

static int read_count(const json_t *value, uint64_t *ret, const struct where *where)
{
	if (!json_is_integer(value) || json_integer_value(value) < 0)
		return wrong(where, "must be a whole number, 0 or more");
	*ret = (uint64_t)json_integer_value(value);
	return 0;
}

/* A number from least to most, times factor. */
static int read_scaled(const json_t *value, double least, double most, double factor, uint64_t *ret,
		       const struct where *where)
{
	double number = json_number_value(value);
	char text[96];

	if (json_is_number(value) && number >= least && number <= most) {
		*ret = (uint64_t)(number * factor + 0.5);
		return 0;
	}
	snprintf(text, sizeof(text), "must be a number from %.10g to %.10g", least, most);
	return wrong(where, text);
}

static int read_member(const char *member, const json_t *value, struct kvk_fault_rule *rule,
		       const struct where *where)
{
	uint64_t ppm = 0;
	int err;

	if (!strcmp(member, "do"))
		return read_kind(value, rule, where);
	if (!strcmp(member, "ops"))
		return read_ops(value, rule, where);
	if (!strcmp(member, "error"))
		return read_errno(value, rule, where);
	if (!strcmp(member, "nth"))
		return read_count(value, &rule->nth, where);
	if (!strcmp(member, "every"))
		return read_count(value, &rule->every, where);
	if (!strcmp(member, "times"))
		return read_count(value, &rule->times, where);
	if (!strcmp(member, "part_kb"))
		return read_scaled(value, 0, PART_KB_MAX, 1024, &rule->part_bytes, where);
	if (!strcmp(member, "delay_ms"))
		return read_scaled(value, 0, DELAY_MS_MAX, 1000, &rule->delay_us, where);
	if (!strcmp(member, "chance")) {
		err = read_scaled(value, 1e-6, 1, 1e6, &ppm, where);
		rule->chance_ppm = (uint32_t)ppm;
		return err;
	}
	return wrong(where, "is not known; there are \"do\", \"ops\", \"nth\", \"every\", \"times\", \"chance\", "
			    "\"error\", \"part_kb\" and \"delay_ms\"");
}

static int read_rule(json_t *object, struct kvk_fault_rule *rule, size_t index, struct kvk_error *error)
{
	struct where where = { .index = index, .error = error };
	const char *member;
	const char *text;
	json_t *value;
	int err;

	*rule = (struct kvk_fault_rule){ .error = EIO };
	if (!json_is_object(object))
		return wrong(&where, "must be an object such as {\"do\": \"fail\", \"nth\": 1}");
	json_object_foreach(object, member, value) {
		where.member = member;
		err = read_member(member, value, rule, &where);
		if (err)
			return err;
	}
	where.member = "do";
	if (!json_object_get(object, "do"))
		return wrong(&where, "is missing: say \"fail\", \"fail_after\", \"shorten\", \"delay\", \"corrupt\" or "
				     "\"hang\"");
	where.member = "part_kb";
	if (rule->kind == KVK_FAULT_SHORTEN && !json_object_get(object, "part_kb"))
		return wrong(&where, "is missing: say by how many KiB to shorten");
	where.member = "delay_ms";
	if (rule->kind == KVK_FAULT_DELAY && !json_object_get(object, "delay_ms"))
		return wrong(&where, "is missing: say by how many milliseconds to delay");
	where.member = NULL;
	text = kvk_fault_rule_check(rule);
	return text ? wrong(&where, text) : 0;
}

int kvk_fault_parse(struct kvk_backend *backend, const char *json, struct kvk_error *error)
{
	struct kvk_fault *fault = kvk_fault_of(backend);
	struct kvk_fault_rules read;
	json_error_t json_error;
	json_t *root;
	int err = 0;

	root = json_loads(json, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &json_error);
	if (!root)
		return kvk_error_set(error, -EINVAL, "fault", "fault: line %d, column %d: %s", json_error.line,
				     json_error.column, json_error.text);
	if (!json_is_array(root)) {
		err = kvk_error_set(error, -EINVAL, "fault", "fault: must be a list of rules, [{\"do\": ...}, ...]");
		goto out;
	}
	pthread_mutex_lock(&fault->lock);
	read = fault->rules;
	for (size_t i = 0; i < json_array_size(root) && !err; i++) {
		struct kvk_fault_rule rule;

		err = read_rule(json_array_get(root, i), &rule, i, error);
		if (!err && kvk_fault_rules_add(&read, &rule))
			err = kvk_error_set(error, -EINVAL, "fault", "fault: there can be %d rules at most",
					    KVK_FAULT_RULES_MAX);
	}
	if (!err)
		fault->rules = read;
	pthread_mutex_unlock(&fault->lock);
out:
	json_decref(root);
	return err;
}
