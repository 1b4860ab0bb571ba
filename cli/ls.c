/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "entry.h"
#include "text.h"

struct ls {
	const char *store_argument;
	struct kvk_list_query query;
	struct kvk_cli_key prefix;
	uint64_t limit;
	const char *cursor;
	bool long_form;
	bool json;
	uint64_t now_ns;
	uint64_t listed;
	uint64_t listed_bytes;
};

static struct kvk_key text_key(const char *text)
{
	return (struct kvk_key){ text, (uint32_t)strlen(text) };
}

static int parse(struct ls *ls, const struct kvk_cli_verb *verb, int argc, char **argv)
{
	const char *model = "", *tenant = "";
	uint64_t older_ns = UINT64_MAX;
	const struct kvk_cli_option options[] = {
		{ "model", KVK_OPTION_TEXT, .value = &model },
		{ "tenant", KVK_OPTION_TEXT, .value = &tenant },
		{ "prefix", KVK_OPTION_TAKE, .value = &ls->prefix, .take = kvk_cli_take_key },
		{ "older", KVK_OPTION_NS, .value = &older_ns, .most = ls->now_ns - 1 },
		{ "long", KVK_OPTION_FLAG, .value = &ls->long_form, .letter = 'l' },
		{ "limit", KVK_OPTION_COUNT, .value = &ls->limit, .least = 1 },
		{ "cursor", KVK_OPTION_TEXT, .value = &ls->cursor },
		{ .name = NULL },
	};
	struct kvk_cli_line line;
	int status = kvk_cli_read_line(&line, verb, argc, argv, options, 1, 1, "wants one STORE");

	if (status)
		return status;
	ls->json = line.json;
	ls->store_argument = line.words[0];
	ls->query.model = text_key(model);
	ls->query.salt = text_key(tenant);
	ls->query.prefix = (struct kvk_key){ ls->prefix.data, ls->prefix.bytes };
	if (older_ns != UINT64_MAX)
		ls->query.created_before_ns = ls->now_ns - older_ns;
	return 0;
}

static void print_entry(const struct ls *ls, const struct kvk_list_entry *entry)
{
	char key[KVK_CLI_KEY_TEXT_BYTES], size[KVK_CLI_TEXT_BYTES], age[KVK_CLI_TEXT_BYTES], tenant_text[256];
	char digest[17], parent[17], space[17], meta[4 * KVK_META_BYTES_MAX + 1];
	struct kvk_key model, tenant;

	kvk_entry_names(entry, &model, &tenant);
	kvk_cli_format_bytes(size, entry->object_bytes);
	kvk_cli_format_ns(age, ls->now_ns > entry->created_ns ? ls->now_ns - entry->created_ns : 0);
	kvk_cli_escape(tenant_text, sizeof(tenant_text), tenant.data, tenant.bytes);
	if (!ls->long_form) {
		printf("%10s  %7s  %-10s  %-10s  %s\n", size, age, tenant.bytes ? tenant_text : "-",
		       kvk_entry_state(entry->state), kvk_entry_key(key, entry));
		return;
	}
	printf("%12llu  %12llu  %7s  %-10s  %-10s  %5u  %4u  %s  %s  %s  %s%s%s  %s\n",
	       (unsigned long long)entry->object_bytes, (unsigned long long)entry->stored_bytes, age,
	       tenant.bytes ? tenant_text : "-", kvk_entry_state(entry->state), entry->depth, entry->pins,
	       kvk_cli_hex(digest, entry->digest, 8), kvk_cli_hex(parent, entry->parent_digest, 8),
	       kvk_cli_hex(space, entry->namespace_digest, 8), kvk_entry_key(key, entry),
	       entry->meta_bytes ? "  meta:" : "", kvk_cli_escape(meta, sizeof(meta), entry->meta, entry->meta_bytes),
	       entry->name);
}

static void print_head(const struct ls *ls)
{
	if (ls->json)
		fputs("{\"objects\": [", stdout);
	else if (ls->long_form)
		printf("%12s  %12s  %7s  %-10s  %-10s  %5s  %4s  %-16s  %-16s  %-16s  %s\n", "BYTES", "STORED", "AGE",
		       "TENANT", "STATE", "DEPTH", "PINS", "DIGEST", "PARENT", "NAMESPACE", "KEY, META, FILE");
	else
		printf("%10s  %7s  %-10s  %-10s  %s\n", "SIZE", "AGE", "TENANT", "STATE", "KEY");
}

/* What the JSON form writes page by page is one document: a list may be longer than memory. */
static int print_page(struct ls *ls, const struct kvk_list_entry *entries, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		if (ls->json) {
			json_t *object = kvk_entry_json(&entries[i], ls->now_ns);
			int err;

			fputs(ls->listed ? ",\n" : "\n", stdout);
			err = object ? json_dumpf(object, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9)) : -1;
			json_decref(object);
			if (err)
				return kvk_cli_fail("cannot write the JSON");
		} else {
			print_entry(ls, &entries[i]);
		}
		ls->listed++;
		ls->listed_bytes += entries[i].object_bytes;
	}
	return 0;
}

static void print_tail(const struct ls *ls, const char *cursor)
{
	char size[KVK_CLI_TEXT_BYTES];

	if (ls->json) {
		json_t *value = cursor ? json_string(cursor) : json_null();

		fputs("\n], \"cursor\": ", stdout);
		json_dumpf(value, stdout, JSON_ENCODE_ANY);
		puts("}");
		json_decref(value);
		return;
	}
	printf("%llu objects, %s\n", (unsigned long long)ls->listed, kvk_cli_format_bytes(size, ls->listed_bytes));
	if (cursor)
		printf("more with --cursor '%s'\n", cursor);
}

static int list(struct ls *ls, struct kvk_store *store)
{
	struct kvk_list_entry *entries = kvk_entry_page_new();
	char *cursor = NULL;
	int status = 0;

	if (!entries)
		return kvk_cli_fail("not enough memory");
	ls->query.cursor = ls->cursor;
	print_head(ls);
	do {
		uint64_t left = ls->limit ? ls->limit - ls->listed : KVK_ENTRY_PAGE;
		char *next = NULL;
		int count;

		count = kvk_store_list(store, &ls->query, entries,
				       left < KVK_ENTRY_PAGE ? (uint32_t)left : KVK_ENTRY_PAGE, &next);
		kvk_free(cursor);
		cursor = next;
		if (count < 0) {
			status = kvk_cli_fail("the list broke off: %s", strerror(-count));
			break;
		}
		status = print_page(ls, entries, (uint32_t)count);
		ls->query.cursor = cursor;
	} while (!status && cursor && (!ls->limit || ls->listed < ls->limit));
	print_tail(ls, cursor);
	kvk_free(cursor);
	free(entries);
	return status;
}

static int run(const struct kvk_cli_verb *verb, int argc, char **argv)
{
	struct ls ls = { .query = { .struct_bytes = sizeof(ls.query) }, .now_ns = kvk_cli_wall_ns() };
	struct kvk_store *store = NULL;
	int status = parse(&ls, verb, argc, argv);

	if (!status)
		status = kvk_cli_open(&store, ls.store_argument, &(struct kvk_cli_overlay){ .use = KVK_USE_LOOK });
	if (!status)
		status = list(&ls, store);
	kvk_store_close(store);
	free(ls.prefix.data);
	return status;
}

const struct kvk_cli_verb kvk_cli_ls = {
	.name = "ls",
	.arguments = "STORE [options]",
	.summary = "list objects: size, age, tenant, state, key",
	.help = "  --model TEXT          only keys of this model\n"
		"  --tenant TEXT         only keys with this salt\n"
		"  --prefix KEY          only keys that begin so (text, or hex:DIGITS)\n"
		"  --older DURATION      only objects stored longer ago, such as 90m or 7d\n"
		"  --long                exact sizes, depth, pins, digests, metadata and file\n"
		"  --limit N             stop after N objects and tell how to go on\n"
		"  --cursor TEXT         go on there\n"
		"  --json                {\"objects\": [...], \"cursor\": TEXT or null}\n\n"
		"The order is that of the names on the medium and stays the same. A key is shown as it can be given to\n"
		"the other verbs: as text if it is printable, else as hex:DIGITS; a damaged object's as (file name).\n",
	.run = run,
};
