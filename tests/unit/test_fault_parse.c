/* SPDX-License-Identifier: Apache-2.0 */
/* The "fault" option: what is read, and what an operator is told who got it wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "backend/backend.h"
#include "backend/fault/fault.h"
#include "backend/fault/inside.h"

static struct kvk_backend *new_fault(void)
{
	struct kvk_backend_options options = { .create = true };
	struct kvk_backend *ram = NULL;
	struct kvk_backend *fault = NULL;

	assert_int_equal(kvk_backend_ram.open(&ram, &options, NULL), 0);
	assert_int_equal(kvk_fault_new(&fault, ram, 1), 0);
	return fault;
}

#define OP(op) (1u << KVK_XFER_##op)

static void good_rules(void **state)
{
	const struct {
		const char *json;
		struct kvk_fault_rule wanted;
	} rows[] = {
		{ "[{\"do\":\"fail\",\"ops\":[\"read\"],\"nth\":1,\"every\":0,\"times\":1,\"chance\":0.001,"
		  "\"error\":\"ENOSPC\",\"part_kb\":4,\"delay_ms\":10}]",
		  { KVK_FAULT_FAIL, OP(READ), 1, 0, 1, 1000, ENOSPC, 4096, 10000 } },
		{ "[{\"do\":\"fail_after\",\"nth\":3,\"every\":2}]", { KVK_FAULT_FAIL_AFTER, 0, 3, 2, 0, 0, EIO, 0, 0 } },
		{ "[{\"nth\":1,\"part_kb\":0.5,\"do\":\"shorten\"}]", { KVK_FAULT_SHORTEN, 0, 1, 0, 0, 0, EIO, 512, 0 } },
		{ "[{\"do\":\"delay\",\"delay_ms\":0.25,\"chance\":1}]", { KVK_FAULT_DELAY, 0, 0, 0, 0, 1000000, EIO, 0, 250 } },
		{ "[{\"do\":\"corrupt\",\"ops\":[\"write\",\"sync_folder\"],\"chance\":0.000001}]",
		  { KVK_FAULT_CORRUPT, OP(WRITE) | OP(SYNC_FOLDER), 0, 0, 0, 1, EIO, 0, 0 } },
		{ "[{\"do\":\"hang\",\"ops\":[\"open\",\"stat_name\"],\"nth\":2,\"error\":\"EACCES\"}]",
		  { KVK_FAULT_HANG, OP(OPEN) | OP(STAT_NAME), 2, 0, 0, 0, EACCES, 0, 0 } },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct kvk_backend *fault = new_fault();
		struct kvk_error error = { .struct_bytes = sizeof(error) };
		const struct kvk_fault_rule *wanted = &rows[i].wanted;
		const struct kvk_fault_rule *got = &kvk_fault_of(fault)->rules.rules[0];

		if (kvk_fault_parse(fault, rows[i].json, &error))
			fail_msg("%s: %s", rows[i].json, error.text);
		assert_int_equal(kvk_fault_of(fault)->rules.count, 1);
		assert_int_equal(got->kind, wanted->kind);
		assert_int_equal(got->ops, wanted->ops);
		assert_int_equal(got->nth, wanted->nth);
		assert_int_equal(got->every, wanted->every);
		assert_int_equal(got->times, wanted->times);
		assert_int_equal(got->chance_ppm, wanted->chance_ppm);
		assert_int_equal(got->error, wanted->error);
		assert_int_equal(got->part_bytes, wanted->part_bytes);
		assert_int_equal(got->delay_us, wanted->delay_us);
		fault->ops->close(fault);
	}
}

static void every_error_name_and_op(void **state)
{
	const struct {
		const char *name;
		int number;
	} rows[] = {
		{ "EIO", EIO },       { "ENOSPC", ENOSPC }, { "EDQUOT", EDQUOT }, { "EROFS", EROFS },   { "EMFILE", EMFILE },
		{ "ENFILE", ENFILE }, { "ENOMEM", ENOMEM }, { "EINTR", EINTR },   { "EAGAIN", EAGAIN }, { "ESTALE", ESTALE },
		{ "EACCES", EACCES }, { "EEXIST", EEXIST }, { "ENOENT", ENOENT },
	};
	char json[128];

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct kvk_backend *fault = new_fault();
		struct kvk_xfer xfer;

		snprintf(json, sizeof(json), "[{\"do\":\"fail\",\"nth\":1,\"error\":\"%s\"}]", rows[i].name);
		assert_int_equal(kvk_fault_parse(fault, json, NULL), 0);
		kvk_xfer_init(&xfer, KVK_XFER_SYNC_ALL, NULL, NULL);
		fault->ops->run(fault, &xfer);
		assert_int_equal(xfer.result, -rows[i].number);
		fault->ops->close(fault);
	}
	for (unsigned op = 0; op < KVK_XFER_OP_COUNT; op++) {
		struct kvk_backend *fault = new_fault();

		snprintf(json, sizeof(json), "[{\"do\":\"fail\",\"nth\":1,\"ops\":[\"%s\"]}]",
			 kvk_xfer_op_name((enum kvk_xfer_op)op));
		assert_int_equal(kvk_fault_parse(fault, json, NULL), 0);
		assert_int_equal(kvk_fault_of(fault)->rules.rules[0].ops, 1u << op);
		fault->ops->close(fault);
	}
}

/* The message names the rule and the member and says what would be right; no rule is added. */
static void wrong_rules(void **state)
{
	const struct {
		const char *json;
		const char *option;
		const char *text;      /* a part of it */
	} rows[] = {
		{ "[", "fault", "line 1" },
		{ "", "fault", "line 1" },
		{ "{}", "fault", "list of rules" },
		{ "[7]", "fault[0]", "an object" },
		{ "[{}]", "fault[0].do", "missing: say \"fail\"" },
		{ "[{\"do\":\"hang\",\"nth\":1},{\"do\":\"burn\"}]", "fault[1].do", "\"corrupt\", \"hang\"" },
		{ "[{\"do\":3}]", "fault[0].do", "must be one of" },
		{ "[{\"do\":\"fail\",\"do\":\"fail\"}]", "fault", "duplicate" },
		{ "[{\"do\":\"fail\",\"ops\":\"read\"}]", "fault[0].ops", "must be a list of \"open\", \"create\"" },
		{ "[{\"do\":\"fail\",\"ops\":[]}]", "fault[0].ops", "\"close\", \"stat_name\"" },
		{ "[{\"do\":\"fail\",\"ops\":[\"read\",\"reed\"]}]", "fault[0].ops", "must be a list" },
		{ "[{\"do\":\"fail\",\"ops\":[1]}]", "fault[0].ops", "must be a list" },
		{ "[{\"do\":\"fail\",\"nth\":-1}]", "fault[0].nth", "whole number" },
		{ "[{\"do\":\"fail\",\"nth\":1.5}]", "fault[0].nth", "whole number" },
		{ "[{\"do\":\"fail\",\"nth\":1,\"every\":\"x\"}]", "fault[0].every", "whole number" },
		{ "[{\"do\":\"fail\",\"nth\":1,\"times\":null}]", "fault[0].times", "whole number" },
		{ "[{\"do\":\"fail\",\"chance\":1.1}]", "fault[0].chance", "from 1e-06 to 1" },
		{ "[{\"do\":\"fail\",\"chance\":0}]", "fault[0].chance", "from 1e-06 to 1" },
		{ "[{\"do\":\"fail\",\"nth\":1,\"error\":\"EFOO\"}]", "fault[0].error", "\"EIO\", \"ENOSPC\"" },
		{ "[{\"do\":\"fail\",\"nth\":1,\"error\":5}]", "fault[0].error", "\"ENOENT\"" },
		{ "[{\"do\":\"shorten\",\"nth\":1}]", "fault[0].part_kb", "missing" },
		{ "[{\"do\":\"shorten\",\"nth\":1,\"part_kb\":-1}]", "fault[0].part_kb", "from 0 to 1000000000" },
		{ "[{\"do\":\"delay\",\"nth\":1}]", "fault[0].delay_ms", "missing" },
		{ "[{\"do\":\"delay\",\"nth\":1,\"delay_ms\":3600001}]", "fault[0].delay_ms", "from 0 to 3600000" },
		{ "[{\"do\":\"delay\",\"nth\":1,\"delay\":3}]", "fault[0].delay", "not known" },
		{ "[{\"do\":\"fail\"}]", "fault[0]", "never strike" },
		{ "[{\"do\":\"fail\",\"nth\":0}]", "fault[0]", "never strike" },
		{ "[{\"do\":\"fail\",\"every\":2,\"chance\":1}]", "fault[0]", "\"nth\", which is missing" },
		{ "[{\"do\":\"corrupt\",\"nth\":1,\"ops\":[\"open\"]}]", "fault[0]", "only \"read\", \"write\" and \"update_file\"" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct kvk_backend *fault = new_fault();
		struct kvk_error error = { .struct_bytes = sizeof(error) };
		int err = kvk_fault_parse(fault, rows[i].json, &error);

		if (err != -EINVAL || error.code != -EINVAL)
			fail_msg("%s: %d, wanted %d", rows[i].json, err, -EINVAL);
		if (strcmp(error.option, rows[i].option) || !strstr(error.text, rows[i].text))
			fail_msg("%s: option \"%s\", wanted \"%s\"; \"%s\", wanted \"%s\" in it", rows[i].json,
				 error.option, rows[i].option, error.text, rows[i].text);
		assert_int_equal(kvk_fault_parse(fault, rows[i].json, NULL), -EINVAL);
		assert_int_equal(kvk_fault_of(fault)->rules.count, 0);
		fault->ops->close(fault);
	}
}

static void too_many_rules(void **state)
{
	struct kvk_backend *fault = new_fault();
	struct kvk_error error = { .struct_bytes = sizeof(error) };
	const char *rule = "{\"do\":\"hang\",\"nth\":1}";
	char json[1024] = "[";

	for (int i = 0; i < KVK_FAULT_RULES_MAX; i++) {
		strcat(json, i ? "," : "");
		strcat(json, rule);
	}
	strcat(json, "]");
	assert_int_equal(kvk_fault_parse(fault, json, NULL), 0);
	assert_int_equal(kvk_fault_of(fault)->rules.count, KVK_FAULT_RULES_MAX);
	assert_int_equal(kvk_fault_parse(fault, "[]", NULL), 0);
	assert_int_equal(kvk_fault_parse(fault, "[{\"do\":\"hang\",\"nth\":1}]", &error), -EINVAL);
	assert_non_null(strstr(error.text, "16"));
	fault->ops->close(fault);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_rules),
		cmocka_unit_test(every_error_name_and_op),
		cmocka_unit_test(wrong_rules),
		cmocka_unit_test(too_many_rules),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
