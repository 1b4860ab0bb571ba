/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "count.h"
#include "entry.h"
#include "status.h"
#include "text.h"

/* Every counter of kvk_stats once, for both forms of the report. */
#define STATS(X) \
	X(puts) X(put_stored) X(put_present) X(put_no_room) X(put_failed) X(put_bytes) \
	X(gets) X(get_hits) X(get_absent) X(get_damaged) X(get_failed) X(get_bytes) X(get_unverified) \
	X(lookups) X(lookup_memory_hits) X(lookup_medium_hits) X(lookup_absent) \
	X(removes) X(removed) X(deadlines) X(canceled) X(medium_errors) X(short_transfers) X(rereads) \
	X(quarantined) X(collisions) X(links) X(copied_bytes) X(straight_bytes) X(notices_dropped) \
	X(evicted) X(evicted_bytes) X(evict_kept) X(medium_full)

static json_t *stats_json(struct kvk_store *store)
{
	struct kvk_stats stats = { .struct_bytes = sizeof(stats) };
	json_t *object = json_object();

	if (kvk_store_stats(store, &stats))
		return object;
#define ADD(name) json_object_set_new(object, #name, json_integer((json_int_t)stats.name));
	STATS(ADD)
#undef ADD
	return object;
}

static void print_shares(const char *title, const json_t *list)
{
	char size[KVK_CLI_TEXT_BYTES];
	const json_t *share;
	size_t i;

	if (json_array_size(list) == 0)
		return;
	printf("%s\n", title);
	json_array_foreach(list, i, share) {
		const char *name = json_string_value(json_object_get(share, "name"));

		printf("  %10s  %8llu objects  %s\n", kvk_cli_format_bytes(size, kvk_cli_member(share, "stored_bytes")),
		       (unsigned long long)kvk_cli_member(share, "objects"), name && *name ? name : "(none)");
	}
}

/* Nested values as `a.b: value`, one a line; whatever the library tells is shown without knowing it. */
static void print_members(const char *path, const json_t *value)
{
	const char *name;
	json_t *below;
	char longer[256];

	if (!json_is_object(value)) {
		char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);

		printf("  %s: %s\n", path, json_is_string(value) ? json_string_value(value) : text ? text : "");
		free(text);
		return;
	}
	json_object_foreach((json_t *)value, name, below) {
		snprintf(longer, sizeof(longer), "%s%s%s", path, *path ? "." : "", name);
		print_members(longer, below);
	}
}

static void print_holdings(const json_t *medium, const json_t *usage)
{
	uint64_t cap_bytes = kvk_cli_member(usage, "cap_bytes"), stored_bytes = kvk_cli_member(medium, "stored_bytes");
	char size[KVK_CLI_TEXT_BYTES];

	printf("%llu objects, %s", (unsigned long long)kvk_cli_member(medium, "objects"),
	       kvk_cli_format_bytes(size, kvk_cli_member(medium, "bytes")));
	printf(" (%s with footers and padding)", kvk_cli_format_bytes(size, stored_bytes));
	if (cap_bytes)
		printf(", %.1f %% of the cap of %s", 100 * (double)stored_bytes / (double)cap_bytes,
		       kvk_cli_format_bytes(size, cap_bytes));
	else
		printf(", no cap");
	putchar('\n');
	if (kvk_cli_member(medium, "damaged"))
		printf("%llu of them damaged: `kvkeep verify` tells which\n",
		       (unsigned long long)kvk_cli_member(medium, "damaged"));
	if (kvk_cli_member(usage, "quarantined_bytes"))
		printf("%s in quarantine\n", kvk_cli_format_bytes(size, kvk_cli_member(usage, "quarantined_bytes")));
}

static int stat_store(struct kvk_store *store, bool json)
{
	json_t *about = kvk_cli_status(store);
	json_t *all = json_pack("{s:o, s:o, s:o}", "usage", kvk_usage_json(store), "status", about ? about : json_null(), "stats",
				stats_json(store));
	const json_t *stats = json_object_get(all, "stats");
	int status = all ? kvk_count_medium(all, store) : kvk_cli_fail("not enough memory");
	const char *name;
	json_t *value;

	if (status) {
		json_decref(all);
		return status;
	}
	if (json)
		return kvk_cli_print_json(all);
	print_holdings(json_object_get(all, "medium"), json_object_get(all, "usage"));
	print_shares("tenants", json_object_get(all, "tenants"));
	print_shares("models", json_object_get(all, "models"));
	puts("status");
	print_members("", json_object_get(all, "status"));
	puts("counters since open that are not 0");
	json_object_foreach((json_t *)stats, name, value) {
		if (json_integer_value(value))
			printf("  %s: %lld\n", name, (long long)json_integer_value(value));
	}
	json_decref(all);
	return KVK_EXIT_DONE;
}

/*
 * What a lookup does not tell (age, parent, namespace, file) stands in the list, whose order is that of digests: it is
 * read until the key comes. 1: *entry was filled, 0: not found, or -errno.
 */
static int find_entry(struct kvk_store *store, const struct kvk_cli_key *key, struct kvk_list_entry *entry)
{
	struct kvk_list_entry *entries = kvk_entry_page_new();
	struct kvk_list_query query = {
		.struct_bytes = sizeof(query),
		.prefix = { key->data, key->bytes },
	};
	char *cursor = NULL;
	int found = 0;

	if (!entries)
		return -ENOMEM;
	do {
		char *next = NULL;
		int count = kvk_store_list(store, &query, entries, KVK_ENTRY_PAGE, &next);

		kvk_free(cursor);
		query.cursor = cursor = next;
		if (count < 0)
			found = count;
		for (int i = 0; i < count && !found; i++) {
			if (entries[i].state != KVK_OBJECT_FOREIGN && entries[i].key_bytes == key->bytes &&
			    !memcmp(entries[i].key, key->data, key->bytes)) {
				*entry = entries[i];
				found = 1;
			}
		}
	} while (!found && cursor);
	kvk_free(cursor);
	free(entries);
	return found;
}

static const char *digest_text(char text[65], const uint8_t digest[32])
{
	static const uint8_t none[32];

	return memcmp(digest, none, sizeof(none)) ? kvk_cli_hex(text, digest, 32) : "none";
}

static int stat_key(struct kvk_store *store, const char *argument, const struct kvk_cli_key *key, bool json)
{
	struct kvk_key_item item = { .struct_bytes = sizeof(item), .key = { key->data, key->bytes } };
	struct kvk_result result = { .struct_bytes = sizeof(result) };
	static struct kvk_list_entry entry;
	char text[4 * KVK_KEY_BYTES_MAX + 1], size[KVK_CLI_TEXT_BYTES], hex[65];
	uint64_t now_ns = kvk_cli_wall_ns();
	struct kvk_key model, tenant;
	int found, err = kvk_store_lookup_wait(store, &item, 1, 0, &result);

	if (err)
		return kvk_cli_fail("%s: %s", argument, strerror(-err));
	if (result.status)
		return kvk_cli_fail("%s: %s", argument, result.reason == KVK_REASON_ABSENT ?
				    "not found" : kvk_cli_result_text(&result));
	found = find_entry(store, key, &entry);
	if (found < 0)
		return kvk_cli_fail("the list broke off: %s", strerror(-found));
	if (!found)
		return kvk_cli_fail("%s: removed meanwhile", argument);
	if (json)
		return kvk_cli_print_json(kvk_entry_json(&entry, now_ns));
	kvk_entry_names(&entry, &model, &tenant);
	printf("key        %s\n", kvk_cli_format_key(text, entry.key, entry.key_bytes));
	printf("state      %s\n", kvk_entry_state(entry.state));
	printf("size       %llu bytes (%s), %llu on the medium\n", (unsigned long long)entry.object_bytes,
	       kvk_cli_format_bytes(size, entry.object_bytes), (unsigned long long)entry.stored_bytes);
	printf("age        %s\n", kvk_cli_format_ns(size, now_ns > entry.created_ns ? now_ns - entry.created_ns : 0));
	printf("model      %s\n", kvk_cli_escape(text, sizeof(text), model.data, model.bytes));
	printf("tenant     %s\n", kvk_cli_escape(text, sizeof(text), tenant.data, tenant.bytes));
	printf("depth      %u\n", entry.depth);
	printf("parent     %s\n", digest_text(hex, entry.parent_digest));
	printf("namespace  %s\n", digest_text(hex, entry.namespace_digest));
	printf("digest     %s\n", kvk_cli_hex(hex, entry.digest, 32));
	printf("meta       %s\n", kvk_cli_escape(text, sizeof(text), entry.meta, entry.meta_bytes));
	printf("file       %s\n", entry.name);
	return KVK_EXIT_DONE;
}

static int run(const struct kvk_cli_verb *verb, int argc, char **argv)
{
	static const struct kvk_cli_option options[] = { { .name = NULL } };
	struct kvk_cli_key key = { NULL, 0 };
	struct kvk_store *store = NULL;
	struct kvk_cli_line line;
	int status = kvk_cli_read_line(&line, verb, argc, argv, options, 1, 2, "wants STORE and perhaps KEY");

	if (!status && line.count == 2 && kvk_cli_parse_key(&key, line.words[1]))
		status = kvk_cli_usage(verb, "KEY: '%s' is not a key of 1 to %d bytes", line.words[1], KVK_KEY_BYTES_MAX);
	if (!status)
		status = kvk_cli_open(&store, line.words[0], &(struct kvk_cli_overlay){ .use = KVK_USE_LOOK });
	if (!status && key.data)
		status = stat_key(store, line.words[1], &key, line.json);
	else if (!status)
		status = stat_store(store, line.json);
	kvk_store_close(store);
	free(key.data);
	return status;
}

const struct kvk_cli_verb kvk_cli_stat = {
	.name = "stat",
	.arguments = "STORE [KEY] [--json]",
	.summary = "show what a store holds and how it is, or all about one object",
	.help = "  --json                an object: medium, tenants, models, usage, status, stats; or the one of\n"
		"                        `kvkeep ls`\n\n"
		"Objects are counted on the medium, from their footers. usage and stats are what this process knows:\n"
		"it has just opened the store.\n",
	.run = run,
};
