/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "count.h"
#include "status.h"
#include "text.h"

struct df {
	bool quick;
	bool json;
	struct kvk_usage usage;
	struct kvk_scan scan;
	json_t *status;            /* what the library tells, or NULL */
	json_t *shares;            /* tenants, models, medium; empty with --quick */
};

static const char *keeper_text(const struct df *df)
{
	if (df->usage.flags & KVK_USAGE_KEEPER)
		return "this";
	return df->usage.processes > 1 ? "other" : "none";
}

/* Every process with room of its own; null where the library does not tell. */
static json_t *rows_json(const struct df *df)
{
	json_t *rows = json_object_get(json_object_get(df->status, "account"), "rows");

	return rows ? json_incref(rows) : json_null();
}

static json_t *scan_json(const struct kvk_scan *scan)
{
	return json_pack("{s:s, s:I, s:I, s:I, s:I, s:o, s:o}", "phase", kvk_scan_text(scan->phase), "buckets_done",
			 (json_int_t)scan->buckets_done, "buckets", (json_int_t)scan->buckets, "objects",
			 (json_int_t)scan->objects, "bytes", (json_int_t)scan->bytes, "left_s",
			 scan->left_s < 0 ? json_null() : json_real(scan->left_s), "drift_bytes",
			 scan->has_drift ? json_integer(scan->drift_bytes) : json_null());
}

static json_t *member_or_null(const json_t *object, const char *name)
{
	json_t *value = json_object_get(object, name);

	return value ? json_incref(value) : json_null();
}

static int print_json(const struct df *df)
{
	const struct kvk_usage *usage = &df->usage;

	return kvk_cli_print_json(json_pack(
		"{s:I, s:I, s:I, s:I, s:f, s:b, s:I, s:I, s:o, s:I, s:s, s:o, s:o, s:o, s:o, s:o, s:o}",
		"used_bytes", (json_int_t)usage->used_bytes, "leased_bytes", (json_int_t)usage->leased_bytes,
		"cap_bytes", (json_int_t)usage->cap_bytes, "limit_bytes", (json_int_t)usage->limit_bytes,
		"used_fraction", usage->used_fraction, "exact", (usage->flags & KVK_USAGE_EXACT) != 0,
		"medium_free_bytes", (json_int_t)usage->medium_free_bytes,
		"floor_bytes", (json_int_t)usage->floor_bytes,
		"medium_total_bytes", member_or_null(df->status, "medium_total_bytes"),
		"processes", (json_int_t)usage->processes, "keeper", keeper_text(df), "rows", rows_json(df),
		"scan", scan_json(&df->scan), "medium", member_or_null(df->shares, "medium"),
		"default_quota_bytes", member_or_null(df->shares, "default_quota_bytes"),
		"tenants", member_or_null(df->shares, "tenants"), "models", member_or_null(df->shares, "models")));
}

static void print_room(const struct df *df)
{
	char a[KVK_CLI_TEXT_BYTES], b[KVK_CLI_TEXT_BYTES];
	const struct kvk_usage *usage = &df->usage;
	uint64_t total = kvk_cli_member(df->status, "medium_total_bytes");

	printf("used       %s", kvk_cli_format_bytes(a, usage->used_bytes));
	if (usage->cap_bytes)
		printf(" of %s, %.1f %%", kvk_cli_format_bytes(b, usage->cap_bytes), 100 * usage->used_fraction);
	else
		printf(", no cap");
	puts(usage->flags & KVK_USAGE_EXACT ? "" : " at most: not yet compared with what is there");
	printf("leased     %s ahead, by %u process%s\n", kvk_cli_format_bytes(a, usage->leased_bytes), usage->processes,
	       usage->processes == 1 ? "" : "es");
	if (usage->limit_bytes && usage->limit_bytes != usage->cap_bytes)
		printf("limit      %s%s\n", kvk_cli_format_bytes(a, usage->limit_bytes), usage->cap_bytes ?
		       ": the medium has less to give than the cap" : " with what the medium has above its floor");
	if (usage->medium_free_bytes || usage->floor_bytes) {
		printf("medium     %s free", kvk_cli_format_bytes(a, usage->medium_free_bytes));
		if (total)
			printf(" of %s", kvk_cli_format_bytes(b, total));
		printf(", floor %s%s\n", kvk_cli_format_bytes(a, usage->floor_bytes),
		       usage->medium_free_bytes < usage->floor_bytes ? ": below it, so nothing more is stored" : "");
	}
}

static void print_scan(const struct df *df)
{
	char a[KVK_CLI_TEXT_BYTES], b[KVK_CLI_TEXT_BYTES];
	const struct kvk_scan *scan = &df->scan;

	if (df->usage.flags & KVK_USAGE_KEEPER)
		puts("keeper     this process");
	else
		printf("keeper     %s\n", df->usage.processes > 1 ? "another process" : "nobody yet");
	switch (scan->phase) {
	case KVK_SCAN_UNKNOWN:
	case KVK_SCAN_WAITING:
		break;
	case KVK_SCAN_ELSEWHERE:
		puts("scan       by the keeper");
		break;
	case KVK_SCAN_NAMES:
	case KVK_SCAN_FOOTERS:
		printf("scan       %s of %llu of %llu folders read, %llu objects, %s", kvk_scan_text(scan->phase),
		       (unsigned long long)scan->buckets_done, (unsigned long long)scan->buckets,
		       (unsigned long long)scan->objects, kvk_cli_format_bytes(a, scan->bytes));
		if (scan->left_s >= 0)
			printf(", %s left", kvk_cli_format_ns(b, (uint64_t)(scan->left_s * 1e9)));
		putchar('\n');
		break;
	case KVK_SCAN_SETTLING:
		puts("scan       everything is known; the account waits for another process, or for the medium");
		break;
	case KVK_SCAN_IDLE:
		puts("scan       everything is known");
		break;
	}
	if (scan->has_drift && scan->drift_bytes)
		printf("drift      %s%s was corrected by the last pass\n", scan->drift_bytes < 0 ? "-" : "",
		       kvk_cli_format_bytes(a, (uint64_t)llabs(scan->drift_bytes)));
}

static void print_rows(const json_t *rows)
{
	char leased[KVK_CLI_TEXT_BYTES];
	const json_t *row;
	size_t i;

	if (json_array_size(rows) == 0)
		return;
	printf("\n%10s  %8s  %-8s  %s\n", "LEASED", "PID", "STATE", "HOST");
	json_array_foreach(rows, i, row) {
		const char *host = json_string_value(json_object_get(row, "host"));
		bool self = json_is_true(json_object_get(row, "self"));

		printf("%10s  %8llu  %-8s  %s\n", kvk_cli_format_bytes(leased, kvk_cli_member(row, "leased_bytes")),
		       (unsigned long long)kvk_cli_member(row, "pid"),
		       self ? "this" : json_is_true(json_object_get(row, "alive")) ? "alive" : "dead", host ? host : "");
	}
}

static void print_shares(const char *title, const json_t *list, bool quotas)
{
	char used[KVK_CLI_TEXT_BYTES], limit[KVK_CLI_TEXT_BYTES];
	const json_t *share;
	size_t i;

	if (json_array_size(list) == 0)
		return;
	printf("\n%10s  ", "USED");
	if (quotas)
		printf("%10s  ", "QUOTA");
	printf("%8s  %s\n", "OBJECTS", title);
	json_array_foreach(list, i, share) {
		const char *name = json_string_value(json_object_get(share, "name"));
		const json_t *quota = json_object_get(share, "quota_bytes");

		printf("%10s  ", kvk_cli_format_bytes(used, kvk_cli_member(share, "stored_bytes")));
		if (quotas)
			printf("%10s  ", json_is_integer(quota) ?
			       kvk_cli_format_bytes(limit, kvk_cli_member(share, "quota_bytes")) : "none");
		printf("%8llu  %s\n", (unsigned long long)kvk_cli_member(share, "objects"), name && *name ? name : "(none)");
	}
}

static int look(struct df *df, struct kvk_store *store)
{
	int status = kvk_cli_usage_of(store, &df->usage);

	if (status)
		return status;
	df->shares = json_object();
	if (!df->shares)
		return kvk_cli_fail("not enough memory");
	if (!df->quick) {
		status = kvk_count_medium(df->shares, store);
		if (!status)
			status = kvk_count_quotas(df->shares, store);
		if (!status)
			status = kvk_count_join(df->shares);
		/* That may have taken a while. */
		if (!status)
			status = kvk_cli_usage_of(store, &df->usage);
	}
	df->status = kvk_cli_status(store);
	kvk_scan_read(&df->scan, df->status, &df->usage);
	return status;
}

static int run(const struct kvk_cli_verb *verb, int argc, char **argv)
{
	struct df df = { .quick = false };
	const struct kvk_cli_option options[] = {
		{ "quick", KVK_OPTION_FLAG, .value = &df.quick, .letter = 'q' },
		{ .name = NULL },
	};
	struct kvk_store *store = NULL;
	struct kvk_cli_line line;
	int status = kvk_cli_read_line(&line, verb, argc, argv, options, 1, 1, "wants one STORE");

	if (!status)
		status = kvk_cli_open(&store, line.words[0], &(struct kvk_cli_overlay){ .use = KVK_USE_LOOK });
	if (!status)
		status = look(&df, store);
	if (status)
		goto out;
	if (line.json) {
		status = print_json(&df);
		goto out;
	}
	print_room(&df);
	print_scan(&df);
	print_rows(json_object_get(json_object_get(df.status, "account"), "rows"));
	print_shares("TENANT", json_object_get(df.shares, "tenants"), true);
	print_shares("MODEL", json_object_get(df.shares, "models"), false);
out:
	json_decref(df.shares);
	json_decref(df.status);
	kvk_store_close(store);
	return status;
}

const struct kvk_cli_verb kvk_cli_df = {
	.name = "df",
	.arguments = "STORE [--quick] [--json]",
	.summary = "show what is used and what may be, by whom, and what keeps it so",
	.help = "  --quick               without tenants and models, for which every footer is read\n"
		"  --json                an object: used_bytes, leased_bytes, cap_bytes, limit_bytes, used_fraction,\n"
		"                        exact, medium_free_bytes, floor_bytes, medium_total_bytes, processes, keeper,\n"
		"                        rows (processes), scan, medium, default_quota_bytes, tenants, models\n\n"
		"Used is what all processes together have charged: payloads padded to 4,096, and footers. Leased is room\n"
		"that processes took ahead and may fill without asking. Both together never exceed the cap. The floor is what\n"
		"stays free on the medium. The keeper is the process that compares the account with what is there, and\n"
		"evicts for all.\n",
	.run = run,
};
