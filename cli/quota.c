/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "count.h"
#include "status.h"
#include "text.h"

#define NO_QUOTA UINT64_MAX

struct quota {
	const char *tenant;        /* NULL: all, or the default */
	bool by_default;           /* about tenants without one of their own */
	bool set;
	uint64_t bytes;
	bool json;
};

static int parse(struct quota *quota, struct kvk_cli_line *line, const struct kvk_cli_verb *verb, int argc, char **argv)
{
	const struct kvk_cli_option options[] = {
		{ "default", KVK_OPTION_FLAG, .value = &quota->by_default },
		{ .name = NULL },
	};
	int err = 0, status = kvk_cli_read_line(line, verb, argc, argv, options, 1, 3,
						"wants STORE, perhaps TENANT, and perhaps SIZE or none");
	const char *size;

	if (status)
		return status;
	quota->json = line->json;
	if (quota->by_default && line->count == 3)
		return kvk_cli_usage(verb, "--default is about all tenants without a quota of their own: it wants no TENANT");
	quota->tenant = quota->by_default ? NULL : line->words[1];
	size = quota->by_default ? line->words[1] : line->count == 3 ? line->words[2] : NULL;
	quota->set = size != NULL;
	quota->bytes = NO_QUOTA;
	if (size && strcmp(size, "none") != 0)
		err = kvk_cli_parse_bytes(&quota->bytes, size);
	if (err)
		return kvk_cli_usage(verb, "SIZE: '%s' is %s", size,
				     err == -ERANGE ? "out of range" : "neither a size such as 50GiB nor none");
	return 0;
}

static int set(const struct quota *quota, struct kvk_store *store)
{
	const char *name = quota->tenant ? quota->tenant : "the default";
	char size[KVK_CLI_TEXT_BYTES];
	int err = kvk_store_set_quota(store, quota->tenant, quota->tenant ? (uint32_t)strlen(quota->tenant) : 0,
				      quota->bytes);

	switch (err) {
	case 0:
		break;
	case -EINVAL:
		return kvk_cli_fail("%s: a tenant is UTF-8 text of at most %d bytes", name, KVK_KEY_BYTES_MAX);
	case -EBUSY:
		return kvk_cli_fail("%s: another process is changing quotas, and has been for a second; try again", name);
	default:
		return kvk_cli_fail("%s: the quota is as it was: %s", name, strerror(-err));
	}
	if (quota->json)
		return kvk_cli_print_json(json_pack("{s:s?, s:o}", "tenant", quota->tenant, "quota_bytes",
						    quota->bytes == NO_QUOTA ? json_null() :
						    json_integer((json_int_t)quota->bytes)));
	if (quota->bytes == NO_QUOTA)
		printf("%s: no quota\n", name);
	else
		printf("%s: quota %s\n", name, kvk_cli_format_bytes(size, quota->bytes));
	return KVK_EXIT_DONE;
}

/* Tenants as they were counted on the medium, with their quotas; those that hold nothing come last. */
static int show(const struct quota *quota, struct kvk_store *store)
{
	json_t *all = json_object(), *tenants = NULL, *tenant;
	char size[KVK_CLI_TEXT_BYTES], limit[KVK_CLI_TEXT_BYTES], wanted[4 * KVK_KEY_BYTES_MAX + 1];
	const json_t *by_default;
	int status = all ? kvk_count_quotas(all, store) : kvk_cli_fail("not enough memory");
	size_t i;

	if (!status)
		status = kvk_count_medium(all, store);
	if (!status)
		status = kvk_count_join(all);
	if (status)
		goto out;
	by_default = json_object_get(all, "default_quota_bytes");
	tenants = json_array();
	if (quota->tenant)
		kvk_cli_escape(wanted, sizeof(wanted), quota->tenant, strlen(quota->tenant));
	json_array_foreach(json_object_get(all, "tenants"), i, tenant) {
		if (!quota->by_default && (!quota->tenant ||
					   !strcmp(json_string_value(json_object_get(tenant, "name")), wanted)))
			json_array_append(tenants, tenant);
	}
	if (quota->tenant && json_array_size(tenants) == 0)
		status = kvk_cli_fail("%s: holds nothing and has no quota of its own", quota->tenant);
	if (quota->json) {
		int err = kvk_cli_print_json(json_pack("{s:O, s:O}", "default_quota_bytes", by_default, "tenants", tenants));

		status = status ? status : err;
		goto out;
	}
	if (!quota->tenant)
		printf("default  %s\n", json_is_integer(by_default) ?
		       kvk_cli_format_bytes(limit, (uint64_t)json_integer_value(by_default)) : "no quota");
	if (!quota->by_default && json_array_size(tenants) > 0)
		printf("%10s  %10s  %8s  %s\n", "USED", "QUOTA", "OBJECTS", "TENANT");
	json_array_foreach(tenants, i, tenant) {
		const json_t *of_its_own = json_object_get(tenant, "quota_bytes");
		uint64_t used = kvk_cli_member(tenant, "stored_bytes");
		const char *name = json_string_value(json_object_get(tenant, "name"));
		bool limited = json_is_integer(of_its_own);

		printf("%10s  %10s  %8llu  %s%s\n", kvk_cli_format_bytes(size, used),
		       limited ? kvk_cli_format_bytes(limit, kvk_cli_member(tenant, "quota_bytes")) : "none",
		       (unsigned long long)kvk_cli_member(tenant, "objects"), *name ? name : "(none)",
		       limited && used > kvk_cli_member(tenant, "quota_bytes") ? "  over its quota" : "");
	}
out:
	json_decref(tenants);
	json_decref(all);
	return status;
}

static int run(const struct kvk_cli_verb *verb, int argc, char **argv)
{
	struct quota quota = { .tenant = NULL };
	struct kvk_store *store = NULL;
	struct kvk_cli_line line;
	int status = parse(&quota, &line, verb, argc, argv);

	if (!status)
		status = kvk_cli_open(&store, line.words[0], &(struct kvk_cli_overlay){
			.use = quota.set ? KVK_USE_TEND : KVK_USE_LOOK });
	if (!status)
		status = quota.set ? set(&quota, store) : show(&quota, store);
	kvk_store_close(store);
	return status;
}

const struct kvk_cli_verb kvk_cli_quota = {
	.name = "quota",
	.arguments = "STORE [TENANT [SIZE|none]] [--default] [--json]",
	.summary = "show what tenants hold and may hold, or change it while the store is in use",
	.help = "  --default             the quota of tenants without one of their own: STORE --default [SIZE|none]\n"
		"  --json                an object: default_quota_bytes, tenants; or tenant, quota_bytes if it was set\n\n"
		"With the policy IsolatedLRU, objects of tenants over their quota are evicted first; other policies do\n"
		"not look at quotas. A tenant is a key's salt; '' stands for keys without one. A tenant with none has no\n"
		"quota, whatever the default. What is set here is kept with the store, holds before what a configuration\n"
		"says, and processes that have the store open learn of it within seconds.\n",
	.run = run,
};
