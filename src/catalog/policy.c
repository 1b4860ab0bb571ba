/* SPDX-License-Identifier: Apache-2.0 */
/* The policies there are, and the one that evicts nothing. */
#include "catalog/policy.h"

static bool noop_next(struct kvk_catalog *catalog, struct kvk_coldest *ret)
{
	return false;
}

const struct kvk_policy kvk_policy_noop = {
	.next = noop_next,
};

const char *const kvk_policy_words[] = {
	[KVK_POLICY_NOOP] = "noop",
	[KVK_POLICY_LRU] = "LRU",
	[KVK_POLICY_S3FIFO] = "S3FIFO",
	[KVK_POLICY_ARC] = "ARC",
	[KVK_POLICY_ISOLATED_LRU] = "IsolatedLRU",
	NULL,
};

const struct kvk_policy *kvk_policy_find(enum kvk_policy_kind kind)
{
	static const struct kvk_policy *const policies[] = {
		[KVK_POLICY_NOOP] = &kvk_policy_noop,
		[KVK_POLICY_LRU] = &kvk_policy_lru,
		[KVK_POLICY_S3FIFO] = &kvk_policy_s3fifo,
		[KVK_POLICY_ARC] = &kvk_policy_arc,
		[KVK_POLICY_ISOLATED_LRU] = &kvk_policy_isolated,
	};

	return policies[kind];
}
