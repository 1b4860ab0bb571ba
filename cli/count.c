/* SPDX-License-Identifier: Apache-2.0 */
#include "count.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "entry.h"
#include "status.h"
#include "text.h"

struct counts {
	uint64_t objects, bytes, stored_bytes, damaged, unverified, foreign;
	json_t *tenants, *models;  /* objects by name */
};

static void add_to(json_t *object, const char *member, uint64_t more)
{
	json_t *value = json_object_get(object, member);

	if (value)
		json_integer_set(value, json_integer_value(value) + (json_int_t)more);
	else
		json_object_set_new(object, member, json_integer((json_int_t)more));
}

static void add_share(json_t *shares, const struct kvk_key *name, uint64_t stored_bytes)
{
	char text[4 * KVK_KEY_BYTES_MAX + 1];
	json_t *share;

	kvk_cli_escape(text, sizeof(text), name->data, name->bytes);
	share = json_object_get(shares, text);
	if (!share) {
		share = json_pack("{s:s}", "name", text);
		json_object_set_new(shares, text, share);
	}
	add_to(share, "objects", 1);
	add_to(share, "stored_bytes", stored_bytes);
}

static void count_entry(struct counts *counts, const struct kvk_list_entry *entry)
{
	struct kvk_key model, tenant;

	counts->objects++;
	counts->bytes += entry->object_bytes;
	counts->stored_bytes += entry->stored_bytes;
	counts->damaged += entry->state == KVK_OBJECT_DAMAGED;
	counts->unverified += entry->state == KVK_OBJECT_UNVERIFIED;
	counts->foreign += entry->state == KVK_OBJECT_FOREIGN;
	if (entry->state == KVK_OBJECT_DAMAGED)
		return;
	kvk_entry_names(entry, &model, &tenant);
	add_share(counts->models, &model, entry->stored_bytes);
	add_share(counts->tenants, &tenant, entry->stored_bytes);
}

static int compare_shares(const void *left, const void *right)
{
	json_int_t a = json_integer_value(json_object_get(*(json_t *const *)left, "stored_bytes"));
	json_int_t b = json_integer_value(json_object_get(*(json_t *const *)right, "stored_bytes"));

	if (a != b)
		return a < b ? 1 : -1;
	return strcmp(json_string_value(json_object_get(*(json_t *const *)left, "name")),
		      json_string_value(json_object_get(*(json_t *const *)right, "name")));
}

/* The shares as an array, largest first; NULL when memory is short. */
static json_t *sorted(json_t *shares)
{
	json_t **order = calloc(json_object_size(shares) + 1, sizeof(*order)), *list = json_array(), *share;
	size_t count = 0;
	const char *name;

	if (!order || !list) {
		free(order);
		json_decref(list);
		return NULL;
	}
	json_object_foreach(shares, name, share)
		order[count++] = share;
	qsort(order, count, sizeof(*order), compare_shares);
	for (size_t i = 0; i < count; i++)
		json_array_append(list, order[i]);
	free(order);
	return list;
}

static int read_list(struct counts *counts, struct kvk_store *store)
{
	struct kvk_list_entry *entries = kvk_entry_page_new();
	struct kvk_list_query query = { .struct_bytes = sizeof(query) };
	struct kvk_progress progress;
	char *cursor = NULL;
	int status = entries ? 0 : kvk_cli_fail("not enough memory");

	kvk_progress_begin(&progress, "count");
	while (!status) {
		char *next = NULL;
		int count = kvk_store_list(store, &query, entries, KVK_ENTRY_PAGE, &next);

		kvk_free(cursor);
		query.cursor = cursor = next;
		for (int i = 0; i < count; i++)
			count_entry(counts, &entries[i]);
		if (count < 0)
			status = kvk_cli_fail("the list broke off: %s", strerror(-count));
		kvk_progress_show(&progress, counts->objects, 0, "objects", 0);
		if (!cursor)
			break;
	}
	kvk_progress_end(&progress);
	kvk_free(cursor);
	free(entries);
	return status;
}

int kvk_count_medium(json_t *object, struct kvk_store *store)
{
	struct counts counts = { .tenants = json_object(), .models = json_object() };
	int status = counts.tenants && counts.models ? read_list(&counts, store) : kvk_cli_fail("not enough memory");

	if (!status && (json_object_set_new(object, "medium", json_pack(
				"{s:I, s:I, s:I, s:I, s:I, s:I}", "objects", (json_int_t)counts.objects, "bytes",
				(json_int_t)counts.bytes, "stored_bytes", (json_int_t)counts.stored_bytes, "damaged",
				(json_int_t)counts.damaged, "unverified", (json_int_t)counts.unverified, "foreign",
				(json_int_t)counts.foreign)) ||
			json_object_set_new(object, "tenants", sorted(counts.tenants)) ||
			json_object_set_new(object, "models", sorted(counts.models))))
		status = kvk_cli_fail("not enough memory");
	json_decref(counts.tenants);
	json_decref(counts.models);
	return status;
}

/* ---- quotas ------------------------------------------------------------------------------------- */

static json_t *quota_json(uint64_t bytes)
{
	return bytes == UINT64_MAX ? json_null() : json_integer((json_int_t)bytes);
}

static int read_shares(struct kvk_share **ret, struct kvk_store *store)
{
	int count = kvk_store_shares(store, KVK_BY_TENANT, NULL, 0), again;
	struct kvk_share *shares;

	if (count < 0)
		return count;
	shares = calloc((size_t)count + 1, sizeof(*shares));
	if (!shares)
		return -ENOMEM;
	for (int i = 0; i < count; i++)
		shares[i].struct_bytes = sizeof(shares[i]);
	again = kvk_store_shares(store, KVK_BY_TENANT, shares, (uint32_t)count);
	if (again < 0) {
		free(shares);
		return again;
	}
	*ret = shares;
	return again < count ? again : count;
}

int kvk_count_quotas(json_t *object, struct kvk_store *store)
{
	char name[4 * KVK_KEY_BYTES_MAX + 1];
	struct kvk_share *shares = NULL;
	json_t *quotas = json_object(), *status = kvk_cli_status(store), *by_default;
	int count = read_shares(&shares, store);

	by_default = json_object_get(status, "default_quota_bytes");
	for (int i = 0; i < count; i++) {
		uint32_t bytes = shares[i].name_bytes < sizeof(shares[i].name) ? shares[i].name_bytes :
				 (uint32_t)sizeof(shares[i].name);

		json_object_set_new(quotas, kvk_cli_escape(name, sizeof(name), shares[i].name, bytes),
				    quota_json(shares[i].quota_bytes));
	}
	free(shares);
	if (count < 0 || !quotas) {
		json_decref(quotas);
		json_decref(status);
		return kvk_cli_fail("quotas: %s", strerror(count < 0 ? -count : ENOMEM));
	}
	json_object_set(object, "default_quota_bytes", by_default ? by_default : json_null());
	json_object_set_new(object, "quotas", quotas);
	json_decref(status);
	return 0;
}

int kvk_count_join(json_t *object)
{
	json_t *quotas = json_object_get(object, "quotas"), *tenants = json_object_get(object, "tenants");
	json_t *by_default = json_object_get(object, "default_quota_bytes"), *tenant, *quota;
	const char *name;
	size_t i;
	int err = 0;

	json_array_foreach(tenants, i, tenant) {
		name = json_string_value(json_object_get(tenant, "name"));
		quota = json_object_get(quotas, name);
		err |= json_object_set(tenant, "quota_bytes", quota ? quota : by_default);
		json_object_del(quotas, name);
	}
	json_object_foreach(quotas, name, quota) {
		/* What was met under a name and is gone needs no line. */
		if (!json_equal(quota, by_default))
			err |= json_array_append_new(tenants, json_pack("{s:s, s:i, s:i, s:O}", "name", name, "objects", 0,
									"stored_bytes", 0, "quota_bytes", quota));
	}
	json_object_del(object, "quotas");
	return err ? kvk_cli_fail("not enough memory") : 0;
}
