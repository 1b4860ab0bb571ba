/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The "fault" option of any bytes: rules that are taken make sense and can be written down and read again; a list that is
 * refused adds none, and is told which of its members is wrong.
 */
#include "fuzz.h"

#include <errno.h>
#include <inttypes.h>

#include "backend/fault/inside.h"

static const char *const kinds[] = { "fail", "fail_after", "shorten", "delay", "corrupt", "hang" };

static struct kvk_backend *new_fault(void)
{
	struct kvk_backend_options options = { .create = true };
	struct kvk_backend *ram = NULL, *fault = NULL;

	FUZZ_ASSERT(kvk_backend_ram.open(&ram, &options, NULL) == 0);
	FUZZ_ASSERT(kvk_fault_new(&fault, ram, 1) == 0);
	return fault;
}

static int parse(struct kvk_backend *fault, const char *json, struct kvk_error *error)
{
	int err;

	*error = (struct kvk_error){ .struct_bytes = sizeof(*error) };
	fuzz_memory_for(strlen(json));
	err = kvk_fault_parse(fault, json, error);
	fuzz_memory_limit(SIZE_MAX);
	return err;
}

static void print_ops(FILE *out, uint32_t ops)
{
	const char *before = ",\"ops\":[";

	for (unsigned op = 0; op < KVK_FAULT_OP_COUNT; op++) {
		if (!(ops & 1u << op))
			continue;
		fprintf(out, "%s\"%s\"", before, op == KVK_FAULT_UPDATE_FILE ? "update_file" : op == KVK_FAULT_ASK ? "ask" :
			kvk_xfer_op_name((enum kvk_xfer_op)op));
		before = ",";
	}
	fputs(ops ? "]" : "", out);
}

static void print_rule(FILE *out, const struct kvk_fault_rule *rule)
{
	fprintf(out, "{\"do\":\"%s\",\"error\":\"%s\",\"nth\":%" PRIu64 ",\"every\":%" PRIu64 ",\"times\":%" PRIu64,
		kinds[rule->kind], strerrorname_np(rule->error), rule->nth, rule->every, rule->times);
	print_ops(out, rule->ops);
	if (rule->chance_ppm)
		fprintf(out, ",\"chance\":%.17g", rule->chance_ppm / 1e6);
	fprintf(out, ",\"part_kb\":%.17g,\"delay_ms\":%.17g}", (double)rule->part_bytes / 1024,
		(double)rule->delay_us / 1000);
}

static void same(const struct kvk_fault_rule *a, const struct kvk_fault_rule *b)
{
	FUZZ_ASSERT(a->kind == b->kind && a->ops == b->ops && a->error == b->error);
	FUZZ_ASSERT(a->nth == b->nth && a->every == b->every && a->times == b->times);
	FUZZ_ASSERT(a->chance_ppm == b->chance_ppm);
	FUZZ_ASSERT(a->part_bytes == b->part_bytes && a->delay_us == b->delay_us);
}

static void try_again(const struct kvk_fault_rules *rules)
{
	struct kvk_backend *fault = new_fault();
	const struct kvk_fault_rules *again = &kvk_fault_of(fault)->rules;
	struct kvk_error error;
	char *text = NULL;
	size_t bytes = 0;
	FILE *out = open_memstream(&text, &bytes);

	if (!out)
		abort();
	fputc('[', out);
	for (uint32_t i = 0; i < rules->count; i++) {
		fputs(i ? "," : "", out);
		print_rule(out, &rules->rules[i]);
	}
	fputc(']', out);
	fclose(out);
	FUZZ_ASSERT(parse(fault, text, &error) == 0 && again->count == rules->count);
	for (uint32_t i = 0; i < rules->count; i++)
		same(&rules->rules[i], &again->rules[i]);
	free(text);
	fault->ops->close(fault);
}

/* They strike as they say, whatever comes. */
static void try_judging(const struct kvk_fault_rules *rules)
{
	struct kvk_fault_rules judging = *rules;

	for (unsigned i = 0; i < 64; i++) {
		enum kvk_xfer_op op = (enum kvk_xfer_op)(i % KVK_FAULT_OP_COUNT);
		struct kvk_fault_verdict verdict = { .struck = false };

		kvk_fault_rules_judge(&judging, op, &verdict);
		kvk_fault_rules_hold_up(&judging, op);
		FUZZ_ASSERT(!verdict.struck || rules->count > 0);
		FUZZ_ASSERT(!verdict.struck || verdict.kind > KVK_FAULT_FAIL_AFTER || verdict.error > 0);
	}
	for (uint32_t i = 0; i < judging.count; i++)
		FUZZ_ASSERT(judging.rules[i].times == 0 || judging.struck[i] <= judging.rules[i].times);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static const struct kvk_fault_rule first = { .kind = KVK_FAULT_FAIL, .nth = 1, .error = EIO };
	struct kvk_backend *fault = new_fault();
	const struct kvk_fault_rules *rules = &kvk_fault_of(fault)->rules;
	char *json = fuzz_text(data, bytes);
	struct kvk_fault_rules before;
	struct kvk_error error;
	int err;

	/* What was there before stays. */
	FUZZ_ASSERT(kvk_fault_add(fault, &first) == 0);
	before = *rules;
	err = parse(fault, json, &error);
	if (err) {
		FUZZ_ASSERT(err == -EINVAL && error.code == err);
		FUZZ_ASSERT(strncmp(error.option, "fault", 5) == 0 && error.text[0]);
		FUZZ_ASSERT(fuzz_is_utf8(error.option) && fuzz_is_utf8(error.text));
		FUZZ_ASSERT(memcmp(&before, rules, sizeof(before)) == 0);
	} else {
		FUZZ_ASSERT(error.code == 0 && rules->count <= KVK_FAULT_RULES_MAX);
		same(&rules->rules[0], &first);
		for (uint32_t i = 0; i < rules->count; i++)
			FUZZ_ASSERT(!kvk_fault_rule_check(&rules->rules[i]));
		try_again(rules);
		try_judging(rules);
	}
	free(json);
	fault->ops->close(fault);
	return 0;
}
