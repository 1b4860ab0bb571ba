/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `.kvkeep/quotas` of any bytes: the store opens whatever it says, has for each tenant what it says, keeps the rest of it when one
 * quota is set, and finds all of that after a restart.
 */
#include "fuzz.h"

#include <errno.h>

#include <jansson.h>
#include <kvkeep/kvkeep.h>

#include "backend/backend.h"
#include "util/alloc.h"

enum { SHARES = 256, FILE_BYTES_MAX = 1 << 20 };

static struct kvk_store *open_store(const char *medium)
{
	struct kvk_error error = { .struct_bytes = sizeof(error) };
	struct kvk_store *store = NULL;
	char spec[300];

	snprintf(spec, sizeof(spec), "{\"backend\": \"RAM\", \"backend_params\": {\"file_path\": \"%s\"}, \"keeper\": false, "
		 "\"lanes\": 1, \"memory_mb\": 16, \"eviction\": {\"eviction_policy\": \"IsolatedLRU\"}}", medium);
	FUZZ_ASSERT(kvk_store_open(&store, spec, NULL, &error) == 0);
	return store;
}

/* What the store says of each tenant is what the file says. */
static void try_shares(struct kvk_store *store, const json_t *kept)
{
	static struct kvk_share shares[SHARES];
	const json_t *tenants = json_object_get(kept, "tenants");
	int count;

	for (unsigned i = 0; i < SHARES; i++)
		shares[i].struct_bytes = sizeof(shares[i]);
	count = kvk_store_shares(store, KVK_BY_TENANT, shares, SHARES);
	FUZZ_ASSERT(count == (int)json_object_size(tenants));
	for (int i = 0; i < count && i < SHARES; i++) {
		char name[sizeof(shares[i].name)] = "";
		const json_t *quota;
		json_int_t bytes;

		/* Longer names are cut. */
		if (shares[i].name_bytes == sizeof(shares[i].name))
			continue;
		memcpy(name, shares[i].name, shares[i].name_bytes);
		quota = json_object_get(tenants, name);
		bytes = json_integer_value(quota);
		FUZZ_ASSERT(quota);
		FUZZ_ASSERT(shares[i].quota_bytes == (json_is_integer(quota) && bytes >= 0 ? (uint64_t)bytes : UINT64_MAX));
	}
}

/* One quota more, and all else as it was. */
static json_t *try_set(struct kvk_store *store, struct kvk_backend *outside, const json_t *before)
{
	json_t *wanted = before ? json_deep_copy(before) : json_object(), *kept;
	uint64_t bytes;
	void *data;

	FUZZ_ASSERT(kvk_store_set_quota(store, "tenant", 6, 12345) == 0);
	FUZZ_ASSERT(outside->ops->load_file(outside, "quotas", &data, &bytes, FILE_BYTES_MAX) == 0);
	kept = json_loadb(data, bytes, JSON_REJECT_DUPLICATES, NULL);
	kvk_mem_free(data);
	if (!json_is_object(json_object_get(wanted, "tenants")))
		json_object_set_new(wanted, "tenants", json_object());
	json_object_set_new(json_object_get(wanted, "tenants"), "tenant", json_integer(12345));
	FUZZ_ASSERT(json_equal(kept, wanted));
	json_decref(wanted);
	return kept;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static unsigned runs;
	struct kvk_backend_options options = { .create = true };
	struct kvk_backend *outside = NULL;
	struct kvk_store *store;
	json_t *before, *after;
	char medium[32];

	snprintf(medium, sizeof(medium), "quotas %u", runs++);
	options.path = medium;
	FUZZ_ASSERT(kvk_backend_ram.open(&outside, &options, NULL) == 0);
	FUZZ_ASSERT(outside->ops->save_file(outside, "quotas", data, bytes, false) == 0);
	before = json_loadb((const char *)data, bytes, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_object(before)) {
		json_decref(before);
		before = NULL;
	}
	store = open_store(medium);
	try_shares(store, before);
	after = try_set(store, outside, before);
	FUZZ_ASSERT(kvk_store_close(store) == 0);
	store = open_store(medium);
	try_shares(store, after);
	FUZZ_ASSERT(kvk_store_close(store) == 0);
	json_decref(before);
	json_decref(after);
	outside->ops->close(outside);
	return 0;
}
