/* SPDX-License-Identifier: Apache-2.0 */
/* Options about how much a store may hold, and what leaves when it is full. */
#include <errno.h>
#include <string.h>

#include "store/spec_private.h"
#include "util/alloc.h"
#include "util/error.h"

static int take_policy(struct parsing *parsing, const char *path, const json_t *value)
{
	int index, err = kvk_spec_take_word(parsing, path, value, kvk_policy_words, &index);

	if (!err)
		parsing->spec->policy = (enum kvk_policy_kind)index;
	return err;
}

static int take_watermark(struct parsing *parsing, const char *path, const json_t *value)
{
	return kvk_spec_take_number(parsing, path, value, 0.01, 1, &parsing->spec->trigger_watermark);
}

static int take_ratio(struct parsing *parsing, const char *path, const json_t *value)
{
	return kvk_spec_take_number(parsing, path, value, 0.001, 1, &parsing->spec->eviction_ratio);
}

static int take_gib(struct parsing *parsing, const char *path, const json_t *value, uint64_t *ret)
{
	double gib;
	int err = kvk_spec_take_number_text(parsing, path, value, 0, 1e9, &gib);

	if (!err)
		*ret = (uint64_t)(gib * (double)GIB);
	return err;
}

static int take_default_quota(struct parsing *parsing, const char *path, const json_t *value)
{
	return take_gib(parsing, path, value, &parsing->spec->default_quota_bytes);
}

static int take_quotas(struct parsing *parsing, const char *path, const json_t *value)
{
	struct kvk_spec *spec = parsing->spec;
	const char *tenant;
	json_t *member;

	if (!json_is_object(value))
		return kvk_spec_refuse(parsing, path, "must be a JSON object of tenants (salts) and GiB, such as {\"a\": 10}");
	kvk_spec_release_quotas(spec);
	if (json_object_size(value) == 0)
		return 0;
	spec->quotas = kvk_mem_zalloc(json_object_size(value), sizeof(*spec->quotas));
	if (!spec->quotas)
		return kvk_error_set(parsing->error, -ENOMEM, path, "out of memory");
	json_object_foreach((json_t *)(uintptr_t)value, tenant, member) {
		struct kvk_quota *quota = &spec->quotas[spec->quota_count];
		int err = take_gib(parsing, path, member, &quota->bytes);

		if (err)
			return err;
		quota->tenant = kvk_mem_strdup(tenant);
		if (!quota->tenant)
			return kvk_error_set(parsing->error, -ENOMEM, path, "out of memory");
		spec->quota_count++;
	}
	return 0;
}

static const struct option eviction_options[] = {
	{ "eviction.eviction_policy", "eviction_policy", take_policy },
	{ "eviction.trigger_watermark", "trigger_watermark", take_watermark },
	{ "eviction.eviction_ratio", "eviction_ratio", take_ratio },
	{ "eviction.quotas_gb", "quotas_gb", take_quotas },
	{ "eviction.default_quota_gb", "default_quota_gb", take_default_quota },
	{ NULL, NULL, NULL },
};

int kvk_spec_take_eviction(struct parsing *parsing, const char *path, const json_t *value)
{
	/* Who says how to evict wants it; docs/eviction.md says why this one. */
	parsing->spec->policy = KVK_POLICY_LRU;
	return kvk_spec_take_object(parsing, path, value, eviction_options);
}

int kvk_spec_take_min_free(struct parsing *parsing, const char *path, const json_t *value)
{
	parsing->spec->says_min_free = true;
	return take_gib(parsing, path, value, &parsing->spec->min_free_bytes);
}

int kvk_spec_take_disk_watermark(struct parsing *parsing, const char *path, const json_t *value)
{
	return kvk_spec_take_number(parsing, path, value, 0.01, 1, &parsing->spec->disk_watermark);
}

void kvk_spec_release_quotas(struct kvk_spec *spec)
{
	for (uint32_t i = 0; i < spec->quota_count; i++)
		kvk_mem_free(spec->quotas[i].tenant);
	kvk_mem_free(spec->quotas);
	spec->quotas = NULL;
	spec->quota_count = 0;
}
