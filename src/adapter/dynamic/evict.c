/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Removes what the catalog chose. The catalog keeps half of an identity and no name, so names are found by one listing of
 * the folder for all that leave it: 4,096 names take a millisecond, and eviction takes many at a time.
 *
 * Other processes read too, and tell so by access times alone. So each is looked at before it goes, and stays if
 * somebody read it after this process last did. Between that look and the rename it may still be read: that reader has
 * its file open and keeps its bytes.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapter/dynamic/dynamic.h"
#include "util/alloc.h"

struct eviction {
	struct kvk_dynamic *dynamic;
	struct kvk_evictee **sorted;   /* by prefix */
	uint32_t count;
};

static int compare(const void *a, const void *b)
{
	return memcmp((*(struct kvk_evictee *const *)a)->prefix, (*(struct kvk_evictee *const *)b)->prefix,
		      sizeof((*(struct kvk_evictee *const *)a)->prefix));
}

static int compare_prefix(const void *prefix, const void *element)
{
	return memcmp(prefix, (*(struct kvk_evictee *const *)element)->prefix,
		      sizeof((*(struct kvk_evictee *const *)element)->prefix));
}

static int run(struct kvk_dynamic *dynamic, struct kvk_xfer *xfer)
{
	dynamic->base.backend->ops->run(dynamic->base.backend, xfer);
	return (int)xfer->result;
}

static int move_away(struct kvk_dynamic *dynamic, const char *name, const uint8_t *id, char gone[KVK_NAME_BYTES_MAX])
{
	struct kvk_xfer xfer;
	int err = -EEXIST;

	/* A former run may have left that name; the next sequence is free. */
	for (unsigned tries = 0; err == -EEXIST && tries < KVK_DYNAMIC_GONE_TRIES; tries++) {
		kvk_name_make_gone(gone, name, id, atomic_fetch_add(&dynamic->sequence, 1));
		kvk_xfer_init(&xfer, KVK_XFER_MOVE, NULL, name);
		xfer.name2 = gone;
		err = run(dynamic, &xfer);
	}
	return err == -EEXIST ? -EIO : err;
}

static void evict_one(struct kvk_dynamic *dynamic, const char *name, const uint8_t *id, struct kvk_evictee *evictee)
{
	char gone[KVK_NAME_BYTES_MAX];
	struct kvk_listed listed = { 0 };
	struct kvk_xfer xfer;

	kvk_xfer_init(&xfer, KVK_XFER_STAT_NAME, NULL, name);
	evictee->status = run(dynamic, &xfer);
	if (evictee->status)
		return;
	if (!xfer.stat.regular || !xfer.stat.owned) {
		evictee->status = -ENOENT;
		return;
	}
	evictee->accessed_ns = xfer.stat.accessed_ns;
	if (xfer.stat.accessed_ns > evictee->used_at_ns && xfer.stat.accessed_ns - evictee->used_at_ns > KVK_RENEW_NS) {
		evictee->status = -EBUSY;
		return;
	}
	if (dynamic->evicted && kvk_dynamic_inspect(&dynamic->base, name, &listed))
		listed.key_bytes = 0;
	evictee->status = move_away(dynamic, name, id, gone);
	if (evictee->status)
		return;
	if (listed.key_bytes > 0)
		dynamic->evicted(dynamic->user, listed.key, listed.key_bytes);
	/* Others may have removed it and stored it anew since it was looked at. */
	evictee->freed_bytes = kvk_page_ceil(xfer.stat.bytes);
	kvk_xfer_init(&xfer, KVK_XFER_STAT_NAME, NULL, gone);
	if (!run(dynamic, &xfer))
		evictee->freed_bytes = kvk_page_ceil(xfer.stat.bytes);
	kvk_xfer_init(&xfer, KVK_XFER_UNLINK, NULL, gone);
	if (run(dynamic, &xfer) && xfer.result != -ENOENT)
		evictee->freed_bytes = 0;      /* the sweep of a later run has another try */
}

/* Finds those of sorted[first] to sorted[last - 1] in a folder. */
static int evict_in(struct eviction *eviction, const char *folder, uint32_t first, uint32_t last)
{
	struct kvk_dynamic *dynamic = eviction->dynamic;
	struct kvk_backend *backend = dynamic->base.backend;
	uint32_t left = last - first;
	struct kvk_names names = { 0 };
	int err = backend->ops->list(backend, folder, &names);

	if (kvk_dynamic_is_no_folder(err))
		err = 0;
	for (uint32_t i = 0; i < names.count && left > 0 && !err; i++) {
		struct kvk_evictee **found;
		char path[KVK_NAME_BYTES_MAX];
		uint8_t id[KVK_DIGEST_BYTES];

		if (snprintf(path, sizeof(path), "%s%s%s", folder, *folder ? "/" : "", names.names[i]) >=
		    (int)sizeof(path) || kvk_name_id(id, &dynamic->layout, path))
			continue;
		found = bsearch(id, eviction->sorted + first, last - first, sizeof(*eviction->sorted), compare_prefix);
		if (!found || (*found)->status != -ENOENT)
			continue;
		evict_one(dynamic, path, id, *found);
		left -= (*found)->status != -ENOENT;
	}
	kvk_names_release(&names);
	return err;
}

int kvk_dynamic_evict(struct kvk_adapter *adapter, uint32_t bucket, struct kvk_evictee *evictees, uint32_t count)
{
	struct eviction eviction = {
		.dynamic = kvk_container_of(adapter, struct kvk_dynamic, base), .count = count,
	};
	uint32_t levels = eviction.dynamic->layout.levels;
	int err = 0;

	if (bucket >= kvk_dynamic_buckets(adapter))
		return -ERANGE;
	if (count == 0)
		return 0;
	eviction.sorted = kvk_mem_alloc(count * sizeof(*eviction.sorted));
	if (!eviction.sorted)
		return -ENOMEM;
	for (uint32_t i = 0; i < count; i++) {
		evictees[i].status = -ENOENT;
		evictees[i].accessed_ns = 0;
		evictees[i].freed_bytes = 0;
		eviction.sorted[i] = &evictees[i];
	}
	qsort(eviction.sorted, count, sizeof(*eviction.sorted), compare);
	for (uint32_t first = 0, last; first < count && !err; first = last) {
		uint8_t second = eviction.sorted[first]->prefix[1];
		char folder[16] = "";

		last = levels == 2 ? first : count;
		while (last < count && eviction.sorted[last]->prefix[1] == second)
			last++;
		if (levels == 1)
			snprintf(folder, sizeof(folder), "%02x", (uint8_t)bucket);
		else if (levels == 2)
			snprintf(folder, sizeof(folder), "%02x/%02x", (uint8_t)bucket, second);
		err = evict_in(&eviction, folder, first, last);
	}
	kvk_mem_free(eviction.sorted);
	return err;
}
