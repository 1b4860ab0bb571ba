/* SPDX-License-Identifier: Apache-2.0 */
#include "entry.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "text.h"

const char *kvk_entry_state(uint32_t state)
{
	switch (state) {
	case KVK_OBJECT_PRESENT:
		return "present";
	case KVK_OBJECT_DAMAGED:
		return "damaged";
	case KVK_OBJECT_UNVERIFIED:
		return "unverified";
	case KVK_OBJECT_FOREIGN:
		return "foreign";
	}
	return "unknown";
}

void kvk_entry_names(const struct kvk_list_entry *entry, struct kvk_key *model, struct kvk_key *tenant)
{
	struct kvk_key_fields fields = { .struct_bytes = sizeof(fields) };
	struct kvk_key key = { entry->key, entry->key_bytes };
	uint8_t hash[KVK_KEY_BYTES_MAX / 2];

	*model = *tenant = (struct kvk_key){ "", 0 };
	if (entry->key_bytes == 0 || kvk_key_decode(&fields, &key, hash, sizeof(hash)))
		return;
	*model = fields.model;
	*tenant = fields.salt;
}

const char *kvk_entry_key(char *text, const struct kvk_list_entry *entry)
{
	if (entry->key_bytes)
		return kvk_cli_format_key(text, entry->key, entry->key_bytes);
	snprintf(text, KVK_CLI_KEY_TEXT_BYTES, "(%.*s)", (int)sizeof(entry->name), entry->name);
	return text;
}

static json_t *digest_json(const uint8_t digest[32])
{
	static const uint8_t none[32];

	return memcmp(digest, none, sizeof(none)) ? kvk_cli_json_hex(digest, 32) : json_null();
}

json_t *kvk_entry_json(const struct kvk_list_entry *entry, uint64_t now_ns)
{
	struct kvk_key model, tenant;
	uint64_t age_ns = now_ns > entry->created_ns ? now_ns - entry->created_ns : 0;

	kvk_entry_names(entry, &model, &tenant);
	return json_pack("{s:o, s:s, s:o, s:o, s:I, s:I, s:I, s:f, s:I, s:I, s:o, s:o, s:o, s:o, s:s}",
			 "key", entry->key_bytes ? kvk_cli_json_key(entry->key, entry->key_bytes) : json_null(),
			 "state", kvk_entry_state(entry->state),
			 "model", kvk_cli_json_text(model.data, model.bytes),
			 "tenant", kvk_cli_json_text(tenant.data, tenant.bytes),
			 "bytes", (json_int_t)entry->object_bytes, "stored_bytes", (json_int_t)entry->stored_bytes,
			 "created_ns", (json_int_t)entry->created_ns, "age_s", (double)(age_ns / 1000000) / 1000,
			 "depth", (json_int_t)entry->depth, "pins", (json_int_t)entry->pins,
			 "digest", digest_json(entry->digest), "parent", digest_json(entry->parent_digest),
			 "namespace", digest_json(entry->namespace_digest),
			 "meta", kvk_cli_json_text(entry->meta, entry->meta_bytes), "name", entry->name);
}

struct kvk_list_entry *kvk_entry_page_new(void)
{
	struct kvk_list_entry *entries = calloc(KVK_ENTRY_PAGE, sizeof(*entries));

	for (uint32_t i = 0; entries && i < KVK_ENTRY_PAGE; i++)
		entries[i].struct_bytes = sizeof(entries[i]);
	return entries;
}
