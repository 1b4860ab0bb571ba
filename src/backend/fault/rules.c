/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/fault/rules.h"

#include <errno.h>

#define ALL_OPS ((1u << KVK_XFER_OP_COUNT) - 1)
#define SOME_OPS ((1u << KVK_FAULT_OP_COUNT) - 1)
#define BYTE_OPS (1u << KVK_XFER_READ | 1u << KVK_XFER_WRITE | 1u << KVK_FAULT_UPDATE_FILE)
#define PPM 1000000u

static uint32_t rule_ops(const struct kvk_fault_rule *rule)
{
	uint32_t ops = rule->ops ? rule->ops : ALL_OPS;

	if (rule->kind == KVK_FAULT_SHORTEN || rule->kind == KVK_FAULT_CORRUPT)
		ops &= BYTE_OPS;
	return ops;
}

const char *kvk_fault_rule_check(const struct kvk_fault_rule *rule)
{
	if ((unsigned)rule->kind > KVK_FAULT_HANG)
		return "there is no such kind of fault";
	if (rule->ops & ~SOME_OPS)
		return "there is no such operation";
	if (!rule_ops(rule))
		return "only \"read\", \"write\" and \"update_file\" can be shortened or corrupted";
	if (rule->nth == 0 && rule->every > 0)
		return "\"every\" counts from \"nth\", which is missing";
	if (rule->nth == 0 && rule->chance_ppm == 0)
		return "without \"nth\" or \"chance\" it would never strike";
	if (rule->chance_ppm > PPM)
		return "a chance is at most 1";
	if (rule->kind <= KVK_FAULT_FAIL_AFTER && (rule->error <= 0 || rule->error > 4095))
		return "an error number is missing";
	return NULL;
}

/* xorshift64*: a few operations, and no state but one word that tests can seed. */
static uint64_t next_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * UINT64_C(0x2545f4914f6cdd1d);
}

void kvk_fault_rules_init(struct kvk_fault_rules *rules, uint64_t seed)
{
	*rules = (struct kvk_fault_rules){ .random = seed ^ UINT64_C(0x9e3779b97f4a7c15) };
	/* The one state that xorshift never leaves. */
	if (rules->random == 0)
		rules->random = 1;
}

int kvk_fault_rules_add(struct kvk_fault_rules *rules, const struct kvk_fault_rule *rule)
{
	if (rules->count == KVK_FAULT_RULES_MAX)
		return -E2BIG;
	rules->looked_at[rules->count] = 0;
	rules->struck[rules->count] = 0;
	rules->rules[rules->count++] = *rule;
	return 0;
}

/* Draws also where the count has decided, so that a rule's draws depend on nothing but the transfers. */
static bool rule_matches(struct kvk_fault_rules *rules, uint32_t i)
{
	const struct kvk_fault_rule *rule = &rules->rules[i];
	uint64_t number = ++rules->looked_at[i];
	bool hit = false;

	if (rule->nth > 0 && number >= rule->nth)
		hit = number == rule->nth || (rule->every > 0 && (number - rule->nth) % rule->every == 0);
	if (rule->chance_ppm > 0 && next_random(&rules->random) % PPM < rule->chance_ppm)
		hit = true;
	return hit && (rule->times == 0 || rules->struck[i] < rule->times);
}

bool kvk_fault_rules_hold_up(const struct kvk_fault_rules *rules, enum kvk_xfer_op op)
{
	for (uint32_t i = 0; i < rules->count; i++) {
		const struct kvk_fault_rule *rule = &rules->rules[i];

		if ((rule->kind == KVK_FAULT_DELAY || rule->kind == KVK_FAULT_HANG) && (rule_ops(rule) & 1u << op) &&
		    (rule->times == 0 || rules->struck[i] < rule->times))
			return true;
	}
	return false;
}

void kvk_fault_rules_judge(struct kvk_fault_rules *rules, enum kvk_xfer_op op, struct kvk_fault_verdict *verdict)
{
	*verdict = (struct kvk_fault_verdict){ 0 };
	for (uint32_t i = 0; i < rules->count; i++) {
		const struct kvk_fault_rule *rule = &rules->rules[i];

		if (!(rule_ops(rule) & 1u << op) || !rule_matches(rules, i) || verdict->struck)
			continue;
		rules->struck[i]++;
		*verdict = (struct kvk_fault_verdict){
			.struck = true,
			.kind = rule->kind,
			.error = rule->error,
			.part_bytes = rule->part_bytes,
			.delay_us = rule->delay_us,
		};
		if (rule->kind == KVK_FAULT_CORRUPT)
			verdict->random = next_random(&rules->random);
	}
}
