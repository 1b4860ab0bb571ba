/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The catalog over a clean close: what the keeper knew when it ended, for the next open. A hint in two ways: it counts only if
 * nobody opened the store since (the account counts opens), and what it says of an object is not believed before the scan
 * has seen a file of that name and length.
 */
#ifndef KVK_CONTROL_SNAPSHOT_H
#define KVK_CONTROL_SNAPSHOT_H

#include <stdint.h>

#include "backend/backend.h"
#include "catalog/catalog.h"

struct kvk_snapshot_what {
	struct kvk_backend *backend;
	struct kvk_catalog *catalog;
	uint8_t store_id[16];
	uint64_t epoch;                /* save: opens so far. load: those that the snapshot must know of */
};

/* Other threads may use the catalog meanwhile. -ENOMEM; -EFBIG: too many objects; or why it could not be written. */
int kvk_snapshot_save(const struct kvk_snapshot_what *what);
/* Tells the catalog. *count_ret: how many objects. -ENOENT; -ESTALE: another store's, or not the last one's; -EBADMSG,
 * -EPROTO, -ENOMEM. Where it fails, some may have been told, which does no harm. */
int kvk_snapshot_load(const struct kvk_snapshot_what *what, uint64_t *count_ret);

#endif
