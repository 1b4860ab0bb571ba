/* SPDX-License-Identifier: Apache-2.0 */
/* Walks over the folders: lists, empties. All on the calling thread, with blocking calls. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapter/dynamic/dynamic.h"
#include "util/alloc.h"

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void sort(struct kvk_names *names)
{
	if (names->count > 0)
		qsort(names->names, names->count, sizeof(*names->names), compare);
}

static int run(struct kvk_adapter *adapter, struct kvk_xfer *xfer)
{
	adapter->backend->ops->run(adapter->backend, xfer);
	return (int)xfer->result;
}

/* ---- one file ----------------------------------------------------------------------------------- */

/* One that the medium cannot open is there all the same. Its size and age are asked of its name; if the medium cannot tell those
 * either they stay 0, which is nobody's age. */
static int take_stat(struct kvk_adapter *adapter, const char *name, struct kvk_facts *facts)
{
	struct kvk_xfer xfer;
	int err;

	kvk_xfer_init(&xfer, KVK_XFER_STAT_NAME, NULL, name);
	err = run(adapter, &xfer);
	if (err)
		return err == -ENOENT ? err : 0;
	facts->stored_bytes = xfer.stat.bytes;
	facts->created_ns = xfer.stat.modified_ns;
	facts->inode = xfer.stat.inode;
	return 0;
}

int kvk_dynamic_inspect(struct kvk_adapter *adapter, const char *name, struct kvk_listed *listed)
{
	struct kvk_dynamic *dynamic = kvk_container_of(adapter, struct kvk_dynamic, base);
	struct kvk_facts *facts = &listed->facts;
	uint8_t page[KVK_PAGE_BYTES], digest[KVK_DIGEST_BYTES], *data = page;
	struct kvk_place *place;
	struct kvk_footer footer;
	struct kvk_xfer xfer;
	uint32_t footer_bytes;
	int err;

	listed->name = name;
	listed->state = KVK_OBJECT_DAMAGED;
	listed->key_bytes = 0;
	memset(facts, 0, offsetof(struct kvk_facts, meta));
	kvk_xfer_init(&xfer, KVK_XFER_OPEN, NULL, name);
	xfer.flags = KVK_XFER_BUFFERED | KVK_XFER_QUIET;
	err = run(adapter, &xfer);
	if (err == -EIO)
		return take_stat(adapter, name, facts);
	if (err)
		return err == -EMFILE || err == -ENFILE || err == -ENOMEM ? err : -ENOENT;
	place = xfer.place;
	facts->stored_bytes = xfer.stat.bytes;
	facts->created_ns = xfer.stat.modified_ns;
	facts->inode = xfer.stat.inode;
	if (dynamic->layout.naming == KVK_NAMING_LMCACHE && xfer.stat.born_ns &&
	    xfer.stat.born_ns < dynamic->adopted_ns) {
		listed->state = KVK_OBJECT_UNVERIFIED;
		facts->logical_bytes = xfer.stat.bytes;
		facts->unverified = true;
	}
	if (!xfer.stat.regular || xfer.stat.bytes < KVK_PAGE_BYTES || xfer.stat.bytes % KVK_PAGE_BYTES)
		goto out;
	err = kvk_adapter_move(adapter, KVK_XFER_READ, place, xfer.stat.bytes - KVK_PAGE_BYTES, page,
			       KVK_PAGE_BYTES);
	if (err)
		goto out;
	if (kvk_trailer_parse(page + KVK_PAGE_BYTES - KVK_TRAILER_BYTES, &footer_bytes) ||
	    footer_bytes > xfer.stat.bytes)
		goto out;
	if (footer_bytes > KVK_PAGE_BYTES) {
		data = kvk_mem_alloc(footer_bytes);
		if (!data) {
			err = -ENOMEM;
			goto out;
		}
		err = kvk_adapter_move(adapter, KVK_XFER_READ, place, xfer.stat.bytes - footer_bytes, data,
				       footer_bytes);
		if (err)
			goto out;
	}
	err = kvk_footer_parse(&footer, digest, data, footer_bytes);
	if (!err && kvk_dynamic_is_named(dynamic, name, &footer, digest) &&
	    xfer.stat.bytes == kvk_page_ceil(footer.stored_bytes) + footer_bytes)
		kvk_listed_take(listed, &footer, digest, dynamic->namespace_digest);
out:
	if (data != page)
		kvk_mem_free(data);
	kvk_xfer_init(&xfer, KVK_XFER_CLOSE, place, NULL);
	run(adapter, &xfer);
	/* One that cannot be read is one of the list, in its state; only what concerns all of them ends the page. */
	return err == -ENOMEM ? err : 0;
}

/* ---- folders ------------------------------------------------------------------------------------ */

int kvk_dynamic_folders(struct kvk_dynamic *dynamic, const char *prefix, uint32_t levels, struct kvk_names *folders)
{
	struct kvk_backend *backend = dynamic->base.backend;
	struct kvk_names names = { 0 };
	int err;

	if (levels == 0)
		return kvk_names_add(folders, prefix);
	err = backend->ops->list(backend, prefix, &names);
	atomic_fetch_add(&dynamic->base.counts.walked, 1);
	if (kvk_dynamic_is_no_folder(err))
		err = 0;
	sort(&names);
	for (uint32_t i = 0; i < names.count && !err; i++) {
		char path[KVK_NAME_BYTES_MAX];

		if (kvk_name_kind(names.names[i], &dynamic->layout, NULL) != KVK_NAME_FOLDER)
			continue;
		snprintf(path, sizeof(path), "%s%s%s", prefix, *prefix ? "/" : "", names.names[i]);
		err = kvk_dynamic_folders(dynamic, path, levels - 1, folders);
	}
	kvk_names_release(&names);
	return err;
}

typedef int folder_visit(struct kvk_dynamic *dynamic, const char *path, enum kvk_name_kind kind, void *user);

/* Visits what lies in a folder and is one of ours, sorted, after `after` (a path or NULL). */
static int visit_folder(struct kvk_dynamic *dynamic, const char *folder, const char *after, folder_visit *visit,
			void *user)
{
	struct kvk_backend *backend = dynamic->base.backend;
	struct kvk_names names = { 0 };
	int err = backend->ops->list(backend, folder, &names);

	atomic_fetch_add(&dynamic->base.counts.walked, 1);
	if (kvk_dynamic_is_no_folder(err))
		err = 0;
	sort(&names);
	for (uint32_t i = 0; i < names.count && !err; i++) {
		enum kvk_name_kind kind = kvk_name_kind(names.names[i], &dynamic->layout, NULL);
		char path[KVK_NAME_BYTES_MAX];

		if (kind == KVK_NAME_OTHER || kind == KVK_NAME_FOLDER)
			continue;
		if (snprintf(path, sizeof(path), "%s%s%s", folder, *folder ? "/" : "", names.names[i]) >=
		    (int)sizeof(path))
			continue;
		if (after && strcmp(path, after) <= 0)
			continue;
		err = visit(dynamic, path, kind, user);
	}
	kvk_names_release(&names);
	return err;
}

static int visit_all(struct kvk_dynamic *dynamic, const char *after, folder_visit *visit, void *user)
{
	struct kvk_names folders = { 0 };
	int err = kvk_dynamic_folders(dynamic, "", dynamic->layout.levels, &folders);

	for (uint32_t i = 0; i < folders.count && !err; i++) {
		size_t length = strlen(folders.names[i]);

		/* A folder whose every name comes before the cursor. */
		if (after && strncmp(after, folders.names[i], length) > 0)
			continue;
		err = visit_folder(dynamic, folders.names[i], after, visit, user);
	}
	kvk_names_release(&folders);
	return err;
}

/* ---- the three walks ---------------------------------------------------------------------------- */

struct list_walk {
	kvk_list_visit *visit;
	void *user;
	struct kvk_listed listed;
};

static int list_one(struct kvk_dynamic *dynamic, const char *path, enum kvk_name_kind kind, void *user)
{
	struct list_walk *walk = user;
	int err;

	if (kind != KVK_NAME_OBJECT)
		return 0;
	err = kvk_dynamic_inspect(&dynamic->base, path, &walk->listed);
	if (err)
		return err == -ENOENT ? 0 : err;
	return walk->visit(walk->user, &walk->listed) ? 0 : 1;
}

int kvk_dynamic_list(struct kvk_adapter *adapter, const char *after, kvk_list_visit *visit, void *user)
{
	struct list_walk walk = { .visit = visit, .user = user };

	return visit_all(kvk_container_of(adapter, struct kvk_dynamic, base), after, list_one, &walk);
}

static int unlink_one(struct kvk_dynamic *dynamic, const char *path, enum kvk_name_kind kind, void *user)
{
	struct kvk_xfer xfer;
	int *first_error = user;
	int err;

	atomic_fetch_add(&dynamic->base.counts.walked, 1);
	kvk_xfer_init(&xfer, KVK_XFER_UNLINK, NULL, path);
	err = run(&dynamic->base, &xfer);
	if (err && err != -ENOENT && !*first_error)
		*first_error = err;
	return 0;
}

int kvk_dynamic_remove_all(struct kvk_adapter *adapter)
{
	int first_error = 0;
	int err = visit_all(kvk_container_of(adapter, struct kvk_dynamic, base), NULL, unlink_one, &first_error);

	return err ? err : first_error;
}
