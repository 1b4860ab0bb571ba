/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is there, by name and size alone: the first thing that is learnt of a store that somebody else filled. On the calling
 * thread, with blocking calls, one bucket at a time.
 *
 * A bucket is what lies below one of the 256 first folders, or everything where there are none.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "adapter/dynamic/dynamic.h"

#define BUCKETS 256u
#define QUARANTINE ".kvkeep/quarantine"

uint32_t kvk_dynamic_buckets(struct kvk_adapter *adapter)
{
	return kvk_container_of(adapter, struct kvk_dynamic, base)->layout.levels ? BUCKETS : 1;
}

/* The first folder of a bucket; -ERANGE. */
static int bucket_folder(const struct kvk_dynamic *dynamic, uint32_t bucket, char folder[32])
{
	if (bucket == KVK_SCAN_QUARANTINE)
		memcpy(folder, QUARANTINE, sizeof(QUARANTINE));
	else if (dynamic->layout.levels == 0 && bucket == 0)
		folder[0] = '\0';
	else if (dynamic->layout.levels > 0 && bucket < BUCKETS)
		snprintf(folder, 32, "%02x", bucket);
	else
		return -ERANGE;
	return 0;
}

static bool has_second_level(const struct kvk_dynamic *dynamic, uint32_t bucket)
{
	return bucket != KVK_SCAN_QUARANTINE && dynamic->layout.levels == 2;
}

/* ---- listing ------------------------------------------------------------------------------------ */

struct scan {
	const struct kvk_layout *layout;
	bool quarantine;
	kvk_scan_visit *visit;
	void *user;
	bool stopped;
	char *component;               /* within path, behind the folder */
	size_t component_room;
	char path[KVK_NAME_BYTES_MAX];
};

/* A quick look: most names in a store are the store's, and of the others the stat is the price. */
static bool wanted(void *user, const char *name)
{
	const struct scan *scan = user;

	return scan->quarantine || name[0] != '.' || name[1] == 't';
}

static bool visit_one(void *user, const char *name, const struct kvk_stat *stat)
{
	static const uint8_t none[KVK_DIGEST_BYTES];
	struct scan *scan = user;
	size_t name_bytes = strlen(name) + 1;
	struct kvk_scanned scanned = {
		.name = scan->path,
		.bytes = stat->bytes,
		.accessed_ns = stat->accessed_ns,
		.modified_ns = stat->modified_ns,
		.inode = stat->inode,
		.links = stat->links,
	};

	if (!stat->regular || !stat->owned || name_bytes > scan->component_room)
		return true;
	memcpy(scan->component, name, name_bytes);
	scanned.kind = KVK_NAME_OTHER;
	if (!scan->quarantine) {
		scanned.kind = kvk_name_id(scanned.id, scan->layout, scan->path) ? kvk_name_kind(name, scan->layout, NULL)
										 : KVK_NAME_OBJECT;
		/* An object without an identity lies where nobody looks for it. */
		if (scanned.kind == KVK_NAME_OTHER || scanned.kind == KVK_NAME_FOLDER ||
		    (scanned.kind == KVK_NAME_OBJECT && !memcmp(scanned.id, none, sizeof(none))))
			return true;
	}
	scan->stopped = !scan->visit(scan->user, &scanned);
	return !scan->stopped;
}

static int scan_folder(struct kvk_dynamic *dynamic, struct scan *scan, const char *folder, uint64_t *modified_ns)
{
	const struct kvk_listing listing = { .wanted = wanted, .visit = visit_one, .user = scan };
	int bytes = snprintf(scan->path, sizeof(scan->path), "%s%s", folder, *folder ? "/" : "");
	uint64_t changed_ns = 0;
	int err;

	scan->component = scan->path + bytes;
	scan->component_room = sizeof(scan->path) - (size_t)bytes;
	err = dynamic->base.backend->ops->list_stat(dynamic->base.backend, folder, &listing, &changed_ns);
	if (kvk_dynamic_is_no_folder(err))
		err = 0;
	if (changed_ns > *modified_ns)
		*modified_ns = changed_ns;
	return err;
}

static int folder_time(struct kvk_dynamic *dynamic, const char *folder, uint64_t *changed_ns)
{
	int err = dynamic->base.backend->ops->folder_time(dynamic->base.backend, folder, changed_ns);

	if (!kvk_dynamic_is_no_folder(err))
		return err;
	*changed_ns = 0;
	return 0;
}

/* The folders below the first one, which may come and go as well. */
static int scan_below(struct kvk_dynamic *dynamic, struct scan *scan, const char *first, uint64_t *modified_ns)
{
	struct kvk_names folders = { 0 };
	uint64_t before_ns = 0, after_ns = 0;
	bool changed = false;
	int err;

	err = folder_time(dynamic, first, &before_ns);
	if (!err)
		err = kvk_dynamic_folders(dynamic, first, 1, &folders);
	if (before_ns > *modified_ns)
		*modified_ns = before_ns;
	for (uint32_t i = 0; i < folders.count && !err && !scan->stopped; i++) {
		err = scan_folder(dynamic, scan, folders.names[i], modified_ns);
		if (err == -EAGAIN) {
			changed = true;
			err = 0;
		}
	}
	if (!err)
		err = folder_time(dynamic, first, &after_ns);
	kvk_names_release(&folders);
	if (err)
		return err;
	return changed || before_ns != after_ns ? -EAGAIN : 0;
}

int kvk_dynamic_scan(struct kvk_adapter *adapter, uint32_t bucket, kvk_scan_visit *visit, void *user,
		     uint64_t *modified_ns)
{
	struct kvk_dynamic *dynamic = kvk_container_of(adapter, struct kvk_dynamic, base);
	struct scan scan = {
		.layout = &dynamic->layout, .quarantine = bucket == KVK_SCAN_QUARANTINE, .visit = visit, .user = user,
	};
	uint64_t changed_ns = 0;
	char folder[32];
	int err = bucket_folder(dynamic, bucket, folder);

	if (err)
		return err;
	if (has_second_level(dynamic, bucket))
		err = scan_below(dynamic, &scan, folder, &changed_ns);
	else
		err = scan_folder(dynamic, &scan, folder, &changed_ns);
	if (!err || err == -EAGAIN)
		*modified_ns = changed_ns;
	return err;
}

/* ---- has it changed? ---------------------------------------------------------------------------- */

/* Of all folders together: one whose clock was set back must not hide behind another's later time. */
static uint64_t stamp_with(uint64_t stamp, uint64_t changed_ns)
{
	stamp = (stamp ^ changed_ns) * UINT64_C(0x9e3779b97f4a7c15);
	return stamp ^ stamp >> 29;
}

int kvk_dynamic_bucket_time(struct kvk_adapter *adapter, uint32_t bucket, uint64_t *modified_ns, uint64_t *stamp)
{
	struct kvk_dynamic *dynamic = kvk_container_of(adapter, struct kvk_dynamic, base);
	uint64_t latest_ns, changed_ns = 0, sum;
	struct kvk_names folders = { 0 };
	char folder[32];
	int err = bucket_folder(dynamic, bucket, folder);

	if (!err)
		err = folder_time(dynamic, folder, &latest_ns);
	if (err)
		return err;
	sum = stamp_with(1, latest_ns);
	if (has_second_level(dynamic, bucket))
		err = kvk_dynamic_folders(dynamic, folder, 1, &folders);
	for (uint32_t i = 0; i < folders.count && !err; i++) {
		err = folder_time(dynamic, folders.names[i], &changed_ns);
		sum = stamp_with(sum, changed_ns);
		if (changed_ns > latest_ns)
			latest_ns = changed_ns;
	}
	kvk_names_release(&folders);
	if (err)
		return err;
	*modified_ns = latest_ns;
	*stamp = sum;
	return 0;
}
