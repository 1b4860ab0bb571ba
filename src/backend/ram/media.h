/* SPDX-License-Identifier: Apache-2.0 */
/* What a backend in memory keeps its files on: a medium of its own, or one that has a name and outlives it. */
#ifndef KVK_BACKEND_RAM_MEDIA_H
#define KVK_BACKEND_RAM_MEDIA_H

#include "backend/ram/locks.h"
#include "backend/ram/tree.h"
#include "util/list.h"

#define SIDE_FOLDER ".kvkeep/"

struct kvk_ram_medium {
	struct kvk_ram_tree tree;
	struct kvk_link link;          /* among those that are kept */
	uint32_t refs;                 /* backends, and one for being kept; guarded by the lock of them all */
	struct kvk_ram_locks locks;
	char name[];
};

/* With one reference. NULL: out of memory. */
struct kvk_ram_medium *kvk_ram_medium_new(const char *name, uint64_t limit_bytes);
/* A reference to the medium of that name, which is made if there is none. NULL: out of memory. */
struct kvk_ram_medium *kvk_ram_medium_share(const char *name);
void kvk_ram_medium_drop(struct kvk_ram_medium *medium);

#endif
