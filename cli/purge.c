/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Removes all objects of a tenant, a model, a namespace or an age. They are found by the list, not by what this process
 * knows, and removed by name: so nothing is missed that another process stored, or that lies in another namespace.
 */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "entry.h"
#include "status.h"
#include "text.h"

#define DIGEST_BYTES 32
#define PREFIX_DIGITS_MIN 4

struct purge {
	struct kvk_list_query query;
	uint64_t before_ns;            /* 0: of any age. Not asked of the list, which leaves out what has no known age */
	const char *namespace_digits;  /* NULL: all; "none": objects of no namespace */
	bool dry_run;
	bool json;
	bool pool;                     /* objects have no files of their own to be named by */
	uint64_t found, found_bytes;
	uint64_t removed, removed_bytes;
	uint64_t gone;                 /* somebody else was faster */
	uint64_t failed;
	char failure[96];              /* the first one, in words */
	struct kvk_progress progress;
};

static int check_namespace(const struct kvk_cli_verb *verb, const char *text)
{
	size_t digits = strlen(text);

	if (!strcmp(text, "none") || (digits >= PREFIX_DIGITS_MIN && digits <= (size_t)2 * DIGEST_BYTES &&
				      strspn(text, "0123456789abcdef") == digits))
		return 0;
	return kvk_cli_usage(verb, "--namespace: '%s' is neither %d or more digits of a digest, as `kvkeep namespace` shows them, "
			     "nor none", text, PREFIX_DIGITS_MIN);
}

static int parse(struct purge *purge, struct kvk_cli_line *line, const struct kvk_cli_verb *verb, int argc, char **argv)
{
	uint64_t older_ns = UINT64_MAX, now_ns = kvk_cli_wall_ns();
	const char *tenant = NULL, *model = NULL;
	const struct kvk_cli_option options[] = {
		{ "tenant", KVK_OPTION_TEXT, .value = &tenant },
		{ "model", KVK_OPTION_TEXT, .value = &model },
		{ "namespace", KVK_OPTION_TEXT, .value = &purge->namespace_digits },
		{ "older", KVK_OPTION_NS, .value = &older_ns, .most = now_ns - 1 },
		{ "dry-run", KVK_OPTION_FLAG, .value = &purge->dry_run, .letter = 'n' },
		{ .name = NULL },
	};
	int status = kvk_cli_read_line(line, verb, argc, argv, options, 1, 1, "wants one STORE");

	if (status)
		return status;
	if (!tenant && !model && !purge->namespace_digits && older_ns == UINT64_MAX)
		return kvk_cli_usage(verb, "wants --tenant, --model, --namespace or --older; --older 0s takes everything");
	if ((tenant && !*tenant) || (model && !*model))
		return kvk_cli_usage(verb, "--%s: is empty; it wants a name", model && !*model ? "model" : "tenant");
	status = purge->namespace_digits ? check_namespace(verb, purge->namespace_digits) : 0;
	purge->json = line->json;
	purge->query.struct_bytes = sizeof(purge->query);
	if (tenant)
		purge->query.salt = (struct kvk_key){ tenant, (uint32_t)strlen(tenant) };
	if (model)
		purge->query.model = (struct kvk_key){ model, (uint32_t)strlen(model) };
	if (older_ns != UINT64_MAX)
		purge->before_ns = now_ns - older_ns;
	return status;
}

static bool wanted(const struct purge *purge, const struct kvk_list_entry *entry)
{
	static const uint8_t none[DIGEST_BYTES];
	const char *digits = purge->namespace_digits;
	char hex[2 * DIGEST_BYTES + 1];

	if (purge->before_ns && entry->created_ns >= purge->before_ns)
		return false;
	if (!digits)
		return true;
	/* Of what is damaged nobody knows where it belongs. */
	if (entry->key_bytes == 0)
		return false;
	if (!strcmp(digits, "none"))
		return !memcmp(entry->namespace_digest, none, DIGEST_BYTES);
	return !strncmp(kvk_cli_hex(hex, entry->namespace_digest, DIGEST_BYTES), digits, strlen(digits));
}

static void fail(struct purge *purge, const char *why)
{
	if (purge->failed++ == 0)
		snprintf(purge->failure, sizeof(purge->failure), "%s", why);
}

static void judge(struct purge *purge, const struct kvk_list_entry *entry, const struct kvk_result *result)
{
	if (!result->status) {
		purge->removed++;
		purge->removed_bytes += entry->stored_bytes;
	} else if (result->reason == KVK_REASON_ABSENT) {
		purge->gone++;
	} else {
		fail(purge, kvk_cli_result_text(result));
	}
}

static int purge_page(struct purge *purge, struct kvk_store *store, const struct kvk_list_entry *entries, uint32_t count)
{
	const struct kvk_list_entry *chosen[KVK_ENTRY_PAGE];
	struct kvk_key_item items[KVK_ENTRY_PAGE];
	struct kvk_result results[KVK_ENTRY_PAGE];
	uint32_t found = 0;
	int err;

	for (uint32_t i = 0; i < count; i++) {
		if (!wanted(purge, &entries[i]))
			continue;
		if (purge->before_ns && !entries[i].created_ns) {
			fail(purge, "the medium does not tell how old it is");
			continue;
		}
		chosen[found] = &entries[i];
		items[found] = (struct kvk_key_item){
			.struct_bytes = sizeof(items[found]),
			.flags = purge->pool ? KVK_KEY_IS_DIGEST : KVK_KEY_IS_NAME,
			.key = { entries[i].name, (uint32_t)strlen(entries[i].name) },
		};
		if (purge->pool)
			items[found].key = (struct kvk_key){ entries[i].digest, DIGEST_BYTES };
		results[found] = (struct kvk_result){ .struct_bytes = sizeof(results[found]) };
		found++;
		purge->found++;
		purge->found_bytes += entries[i].stored_bytes;
	}
	if (found == 0 || purge->dry_run)
		return 0;
	err = kvk_store_remove_wait(store, items, found, 0, results);
	if (err)
		return kvk_cli_fail("remove: %s", strerror(-err));
	for (uint32_t i = 0; i < found; i++)
		judge(purge, chosen[i], &results[i]);
	return 0;
}

static int purge_all(struct purge *purge, struct kvk_store *store)
{
	struct kvk_list_entry *entries = kvk_entry_page_new();
	char *cursor = NULL;
	int status = entries ? 0 : kvk_cli_fail("not enough memory");

	kvk_progress_begin(&purge->progress, "purge");
	while (!status && !kvk_cli_interrupted) {
		char *next = NULL;
		int count = kvk_store_list(store, &purge->query, entries, KVK_ENTRY_PAGE, &next);

		kvk_free(cursor);
		purge->query.cursor = cursor = next;
		if (count < 0)
			status = kvk_cli_fail("the list broke off: %s", strerror(-count));
		else
			status = purge_page(purge, store, entries, (uint32_t)count);
		kvk_progress_show(&purge->progress, purge->found, 0, purge->dry_run ? "objects found" : "objects removed",
				  purge->found_bytes);
		if (!cursor)
			break;
	}
	kvk_progress_end(&purge->progress);
	kvk_free(cursor);
	free(entries);
	return status;
}

/* The names are gone; now they must stay gone, also if the power fails. */
static int sync_directory(const char *directory)
{
	int fd, err = 0;

	if (!directory)
		return 0;
	fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || syncfs(fd))
		err = errno;
	if (fd >= 0)
		close(fd);
	return err ? kvk_cli_fail("%s: removed, but not safe from a power cut: %s", directory, strerror(err)) : 0;
}

static int report(const struct purge *purge)
{
	char found[KVK_CLI_TEXT_BYTES], removed[KVK_CLI_TEXT_BYTES];

	kvk_cli_format_bytes(found, purge->found_bytes);
	kvk_cli_format_bytes(removed, purge->removed_bytes);
	if (purge->json) {
		if (kvk_cli_print_json(json_pack("{s:b, s:I, s:I, s:I, s:I, s:I, s:I}", "dry_run", purge->dry_run, "found",
						 (json_int_t)purge->found, "found_bytes",
						 (json_int_t)purge->found_bytes, "removed", (json_int_t)purge->removed,
						 "removed_bytes", (json_int_t)purge->removed_bytes, "gone",
						 (json_int_t)purge->gone, "failed", (json_int_t)purge->failed)))
			return KVK_EXIT_FAILED;
	} else if (purge->dry_run) {
		printf("%llu objects, %s would be removed\n", (unsigned long long)purge->found, found);
	} else {
		printf("%llu objects, %s removed\n", (unsigned long long)purge->removed, removed);
		if (purge->gone)
			printf("%llu were removed by others meanwhile\n", (unsigned long long)purge->gone);
	}
	if (kvk_cli_interrupted)
		return kvk_cli_fail("interrupted: there may be more; run it again");
	if (purge->failed)
		return kvk_cli_fail("%llu objects %s: %s", (unsigned long long)purge->failed, purge->dry_run ?
				    "may or may not go" : "are still there", purge->failure);
	return KVK_EXIT_DONE;
}

static bool is_pool(const json_t *spec)
{
	const char *type = json_string_value(json_object_get(spec, "type"));

	return type && !strcmp(type, "nixl_store");
}

static int run(const struct kvk_cli_verb *verb, int argc, char **argv)
{
	struct purge purge = { .found = 0 };
	struct kvk_store *store = NULL;
	struct kvk_cli_line line;
	json_t *spec = NULL;
	int close_err, status = parse(&purge, &line, verb, argc, argv);

	if (status)
		return status;
	kvk_cli_catch_signals();
	status = kvk_cli_spec(&spec, line.words[0], &(struct kvk_cli_overlay){
		.use = purge.dry_run ? KVK_USE_LOOK : KVK_USE_TEND });
	if (!status)
		status = kvk_cli_open_spec(&store, spec, false, NULL);
	if (status)
		goto out;
	purge.pool = is_pool(spec);
	status = purge_all(&purge, store);
	/* Closing waits for what is being unlinked. */
	close_err = kvk_store_close(store);
	if (close_err)
		status = kvk_cli_fail("the store could not be closed: %s", strerror(-close_err));
	if (purge.removed && sync_directory(kvk_cli_spec_directory(spec)))
		status = KVK_EXIT_FAILED;
	if (!status)
		status = report(&purge);
out:
	json_decref(spec);
	return status;
}

const struct kvk_cli_verb kvk_cli_purge = {
	.name = "purge",
	.arguments = "STORE --tenant|--model|--namespace|--older VALUE ... [--dry-run] [--json]",
	.summary = "remove all objects of a tenant, a model, a namespace, or an age",
	.help = "  --tenant TEXT         keys with this salt\n"
		"  --model TEXT          keys of this model\n"
		"  --namespace DIGEST    objects of this namespace, by its first 4 or more digits; none: of none\n"
		"  --older DURATION      objects stored longer ago, such as 90m or 7d\n"
		"  --dry-run             only count\n"
		"  --json                an object: dry_run, found, found_bytes, removed, removed_bytes, gone, failed\n\n"
		"Several of them narrow it down: what is removed is what all agree on. When it ends with 0 everything that was\n"
		"there when it began is gone, in all namespaces, and does not come back after a power cut. What a process\n"
		"stores meanwhile may stay. Damaged objects have no key: only --older alone takes them; those that were moved\n"
		"aside stay in .kvkeep/quarantine.\n",
	.run = run,
};
