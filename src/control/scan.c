/* SPDX-License-Identifier: Apache-2.0 */
#include "control/scan.h"

#include <errno.h>
#include <string.h>

#include "agent/thread.h"
#include "util/clock.h"

/* Footers are read in portions of so much work. */
#define PORTION_US 5000
#define REST_FACTOR 1

void kvk_scan_init(struct kvk_scan *scan)
{
	scan->bucket_count = scan->adapter->ops->buckets(scan->adapter);
}

uint32_t kvk_scan_bucket_at(const struct kvk_scan *scan, uint32_t i)
{
	return i < scan->bucket_count ? i : KVK_SCAN_QUARANTINE;
}

/* ---- names -------------------------------------------------------------------------------------- */

struct names_walk {
	struct kvk_scan *scan;
	uint64_t bytes;
	uint64_t objects;
	bool bare;                     /* some want their footers read */
	bool swept;
	int err;
};

/* 0: it is gone. */
static int sweep(struct kvk_scan *scan, const struct kvk_scanned *scanned)
{
	struct kvk_backend *backend = scan->backend;
	struct kvk_xfer xfer;

	/* By its writer's lock, never by its age: somebody may be writing it right now. */
	if (scanned->kind == KVK_NAME_TEMP)
		return backend->ops->sweep(backend, scanned->name);
	/* If its remover lives and was about to unlink it, it takes the same thing for done. */
	kvk_xfer_init(&xfer, KVK_XFER_UNLINK, NULL, scanned->name);
	backend->ops->run(backend, &xfer);
	return (int)xfer.result;
}

int kvk_scan_tell(struct kvk_catalog *catalog, const struct kvk_scanned *scanned)
{
	struct kvk_object_info info = {
		.charge_bytes = kvk_page_ceil(scanned->bytes),
		.used_at = scanned->accessed_ns > scanned->modified_ns ? scanned->accessed_ns : scanned->modified_ns,
		.source = KVK_SOURCE_NAME,
	};
	int err = kvk_catalog_scanned(catalog, scanned->id, &info);

	/* Being written or removed at this moment: whoever does that knows it better. */
	return err == -EALREADY || err == -EBUSY ? 0 : err;
}

static bool visit_name(void *user, const struct kvk_scanned *scanned)
{
	struct names_walk *walk = user;
	struct kvk_scan *scan = walk->scan;

	if (scanned->kind == KVK_NAME_TEMP || scanned->kind == KVK_NAME_GONE) {
		int err = sweep(scan, scanned);

		if (err == 0 || err == -ENOENT) {
			atomic_fetch_add(&scan->swept, err == 0);
			walk->swept = true;
			return true;
		}
		/* Being published by link, or moved back: its bytes count under the other name. */
		if (scanned->links > 1)
			return true;
	} else if (scanned->kind == KVK_NAME_OBJECT) {
		walk->err = kvk_scan_tell(walk->scan->catalog, scanned);
		if (walk->err == KVK_CATALOG_WANTS_FOOTER) {
			walk->bare = true;
			walk->err = 0;
		}
		if (walk->err)
			return false;
		walk->objects++;
	}
	walk->bytes += kvk_page_ceil(scanned->bytes);
	if (atomic_load_explicit(scan->stopping, memory_order_relaxed))
		walk->err = -EINTR;
	return walk->err == 0;
}

static uint64_t stamp_of(struct kvk_scan *scan, uint32_t bucket, uint64_t *modified_ns)
{
	uint64_t stamp = 0;

	*modified_ns = 0;
	if (scan->adapter->ops->bucket_time)
		scan->adapter->ops->bucket_time(scan->adapter, bucket, modified_ns, &stamp);
	return stamp;
}

int kvk_scan_names(struct kvk_scan *scan, uint32_t bucket)
{
	struct kvk_scan_bucket *is = &scan->buckets[bucket];
	struct names_walk walk = { .scan = scan };
	struct kvk_bucket_finding finding;
	uint64_t modified_ns = 0, ignored_ns;
	uint64_t stamp = stamp_of(scan, bucket, &ignored_ns);
	int err, first = scan->bucket_count > 1 ? (int)bucket : -1;

	if (bucket != KVK_SCAN_QUARANTINE)
		kvk_catalog_forget_seen(scan->catalog, first);
	kvk_account_finding(scan->account, &finding, bucket);
	err = scan->adapter->ops->scan(scan->adapter, bucket, visit_name, &walk, &modified_ns);
	if (walk.err)
		err = walk.err;
	if (err && err != -EAGAIN) {
		if (err != -EINTR) {
			atomic_store(&scan->trouble, err);
			is->listed = true;
		}
		return err;
	}
	finding.real_bytes = walk.bytes;
	finding.modified_ns = modified_ns;
	is->finding = finding;
	is->stamp = stamp;
	is->objects = walk.objects;
	is->stands = !err && !walk.swept && kvk_account_is_still(scan->account, &finding);
	is->posted = false;
	is->exact = false;
	is->refused = 0;
	is->listed = true;
	is->wants_footers = is->wants_footers || walk.bare;
	/* Only a listing in which nothing moved proves that something is not there. */
	if (is->stands && bucket != KVK_SCAN_QUARANTINE)
		kvk_catalog_lose_unseen(scan->catalog, first);
	atomic_fetch_add(&scan->objects, walk.objects);
	atomic_fetch_add(&scan->bytes, walk.bytes);
	atomic_fetch_add(&scan->buckets_done, 1);
	return 0;
}

bool kvk_scan_has_changed(struct kvk_scan *scan, uint32_t bucket)
{
	struct kvk_scan_bucket *is = &scan->buckets[bucket];
	uint64_t modified_ns;

	if (!is->listed || !is->stands)
		return true;
	return scan->adapter->ops->bucket_time && stamp_of(scan, bucket, &modified_ns) != is->stamp;
}

/* ---- a pass by several threads ------------------------------------------------------------------ */

static void *pass_main(void *argument)
{
	struct kvk_scan *scan = argument;
	uint32_t i;

	do {
		i = (uint32_t)atomic_fetch_add(&scan->next, 1);
	} while (i <= scan->bucket_count && kvk_scan_names(scan, kvk_scan_bucket_at(scan, i)) != -EINTR);
	return NULL;
}

void kvk_scan_pass(struct kvk_scan *scan)
{
	pthread_t helpers[KVK_SCAN_THREADS - 1];
	uint32_t count = 0;

	atomic_store(&scan->next, 0);
	atomic_store(&scan->objects, 0);
	atomic_store(&scan->bytes, 0);
	atomic_store(&scan->buckets_done, 0);
	/* Without a helper it takes longer, that is all. */
	while (scan->bucket_count > 1 && count < KVK_SCAN_THREADS - 1 &&
	       !kvk_thread_start(&helpers[count], "kvk-scan", pass_main, scan))
		count++;
	pass_main(scan);
	for (uint32_t i = 0; i < count; i++)
		pthread_join(helpers[i], NULL);
}

/* ---- footers ------------------------------------------------------------------------------------ */

struct footers_walk {
	struct kvk_scan *scan;
	bool (*rest_us)(void *user, uint64_t us);
	void *user;
	uint64_t begin_us;
	int err;
	struct kvk_listed listed;
};

static void describe(struct kvk_object_info *info, const struct kvk_scanned *scanned, const struct kvk_listed *listed,
		     const struct kvk_layout *layout)
{
	struct kvk_key_fields fields = { .struct_bytes = sizeof(fields) };
	struct kvk_key key = { .data = listed->key, .bytes = listed->key_bytes };
	uint8_t hash[KVK_KEY_BYTES_MAX / 2];

	*info = (struct kvk_object_info){
		.charge_bytes = kvk_page_ceil(listed->facts.stored_bytes),
		.used_at = scanned->modified_ns,
		.source = KVK_SOURCE_OPAQUE,
	};
	if (listed->key_bytes) {
		info->logical_bytes = listed->facts.logical_bytes;
		info->source = KVK_SOURCE_FOOTER;
		/* With LMCache's names an identity does not follow from a digest, and the footer has the parent's digest only. */
		if (layout->naming == KVK_NAMING_KVKEEP)
			memcpy(info->parent_digest, listed->facts.parent_digest, KVK_DIGEST_BYTES);
		if (kvk_key_decode(&fields, &key, hash, sizeof(hash)))
			return;
	} else if (layout->naming != KVK_NAMING_LMCACHE ||
		   !kvk_name_owner(listed->name, &fields.model, &fields.salt)) {
		return;
	}
	info->tenant = fields.salt.data;
	info->tenant_bytes = fields.salt.bytes;
	info->model = fields.model.data;
	info->model_bytes = fields.model.bytes;
}

static int read_footer(struct footers_walk *walk, const struct kvk_scanned *scanned, const struct kvk_catalog_ticket *ticket)
{
	struct kvk_scan *scan = walk->scan;
	struct kvk_object_info info;
	int err = scan->adapter->ops->inspect(scan->adapter, scanned->name, &walk->listed);

	if (err)
		return err == -ENOENT ? 0 : err;
	describe(&info, scanned, &walk->listed, &scan->layout);
	atomic_fetch_add(&scan->footers, 1);
	atomic_fetch_add(&scan->unreadable, info.source == KVK_SOURCE_OPAQUE);
	err = kvk_catalog_inspected(scan->catalog, scanned->id, ticket, &info);
	return err == -ESTALE || err > 0 ? 0 : err;
}

static bool visit_footer(void *user, const struct kvk_scanned *scanned)
{
	struct footers_walk *walk = user;
	struct kvk_scan *scan = walk->scan;
	struct kvk_catalog_ticket ticket;
	uint64_t now_us;

	if (scanned->kind != KVK_NAME_OBJECT || !kvk_catalog_wants_footer(scan->catalog, scanned->id, &ticket))
		return true;
	walk->err = read_footer(walk, scanned, &ticket);
	now_us = kvk_now_us();
	if (!walk->err && now_us - walk->begin_us >= PORTION_US) {
		if (!walk->rest_us(walk->user, REST_FACTOR * (now_us - walk->begin_us)))
			walk->err = -EINTR;
		walk->begin_us = kvk_now_us();
	}
	return walk->err == 0;
}

int kvk_scan_footers(struct kvk_scan *scan, uint32_t bucket, bool (*rest_us)(void *user, uint64_t us), void *user)
{
	struct footers_walk walk = { .scan = scan, .rest_us = rest_us, .user = user, .begin_us = kvk_now_us() };
	uint64_t modified_ns;
	int err;

	err = scan->adapter->ops->scan(scan->adapter, bucket, visit_footer, &walk, &modified_ns);
	if (walk.err)
		err = walk.err;
	if (err == -EINTR)
		return err;
	/* What came meanwhile changed the folder, so it will be listed again; and what failed is, to be tried once more. */
	scan->buckets[bucket].wants_footers = false;
	if (err && err != -EAGAIN) {
		scan->buckets[bucket].stands = false;
		atomic_store(&scan->trouble, err);
		return err;
	}
	return 0;
}
