/* SPDX-License-Identifier: Apache-2.0 */
/* Which transfers are struck. Pure counting and a seeded generator: the same transfers give the same strikes. */
#ifndef KVK_BACKEND_FAULT_RULES_H
#define KVK_BACKEND_FAULT_RULES_H

#include "backend/fault/fault.h"

struct kvk_fault_rules {
	struct kvk_fault_rule rules[KVK_FAULT_RULES_MAX];
	uint64_t looked_at[KVK_FAULT_RULES_MAX];
	uint64_t struck[KVK_FAULT_RULES_MAX];
	uint32_t count;
	uint64_t random;
};

struct kvk_fault_verdict {
	bool struck;
	enum kvk_fault_kind kind;
	int error;
	uint64_t part_bytes;
	uint64_t delay_us;
	uint64_t random;               /* picks the bit that is flipped */
};

/* NULL: rule is fine; else what is wrong, a static text. */
const char *kvk_fault_rule_check(const struct kvk_fault_rule *rule);

void kvk_fault_rules_init(struct kvk_fault_rules *rules, uint64_t seed);
/* rule was checked. -E2BIG: there are KVK_FAULT_RULES_MAX already. */
int kvk_fault_rules_add(struct kvk_fault_rules *rules, const struct kvk_fault_rule *rule);
/* Whether a rule may still delay or hang this op. */
bool kvk_fault_rules_hold_up(const struct kvk_fault_rules *rules, enum kvk_xfer_op op);
void kvk_fault_rules_judge(struct kvk_fault_rules *rules, enum kvk_xfer_op op, struct kvk_fault_verdict *verdict);

#endif
