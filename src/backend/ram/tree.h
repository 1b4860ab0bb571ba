/* SPDX-License-Identifier: Apache-2.0 */
/* The names of a medium in memory: folders, and files that outlive their names while they are open. */
#ifndef KVK_BACKEND_RAM_TREE_H
#define KVK_BACKEND_RAM_TREE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "backend/backend.h"
#include "backend/ram/bytes.h"

/* A file or a folder. */
struct kvk_ram_node {
	uint64_t inode;
	uint64_t born_ns;
	_Atomic uint64_t modified_ns;
	_Atomic uint64_t accessed_ns;
	/* Guarded by the lock of the tree: */
	struct kvk_link entries;       /* of a folder: struct kvk_ram_entry */
	uint32_t refs;                 /* places and names */
	uint32_t links;                /* names */
	bool folder;
	bool unnamed;                  /* was never published, so links == 0 does not mean removed */
	/* Guards bytes. Never taken together with the lock of the tree. */
	pthread_rwlock_t lock;
	struct kvk_ram_bytes bytes;
};

/* One name in a folder. */
struct kvk_ram_entry {
	struct kvk_link sibling;
	struct kvk_ram_entry *next;    /* in its bucket */
	struct kvk_ram_node *folder;
	struct kvk_ram_node *node;
	uint64_t hash;
	char name[];
};

struct kvk_ram_tree {
	pthread_mutex_t lock;          /* guards all below but space; never held while bytes are copied */
	struct kvk_ram_node root;
	struct kvk_ram_entry **buckets;
	uint64_t bucket_count;         /* a power of two */
	uint64_t entry_count;
	uint64_t last_inode;
	uint64_t device;
	uint32_t owner;                /* uid of who made it */
	struct kvk_ram_space space;
};

int kvk_ram_tree_init(struct kvk_ram_tree *tree, uint64_t device, uint64_t limit_bytes);
/* No place is open. */
void kvk_ram_tree_release(struct kvk_ram_tree *tree);

/* All that follow take the lock of the tree themselves. Names are paths below the root: -ENOENT, -ENOTDIR,
 * -ENAMETOOLONG, -EXDEV (leads out of the root) as from a file system. */

/* A reference to the file of that name. -EISDIR. */
int kvk_ram_tree_open(struct kvk_ram_tree *tree, const char *path, struct kvk_ram_node **ret);
/* A reference to a new file without a name; the folders that path needs exist from now on. */
int kvk_ram_tree_create(struct kvk_ram_tree *tree, const char *path, struct kvk_ram_node **ret);
void kvk_ram_tree_put(struct kvk_ram_tree *tree, struct kvk_ram_node *node);
/* -EEXIST; with replace, what has the name loses it. -ENOENT too: node was removed. */
int kvk_ram_tree_link(struct kvk_ram_tree *tree, const char *path, struct kvk_ram_node *node, bool replace);
/* -EEXIST, -EISDIR: folders stay where they are. */
int kvk_ram_tree_move(struct kvk_ram_tree *tree, const char *path, const char *path2);
int kvk_ram_tree_exchange(struct kvk_ram_tree *tree, const char *path, const char *path2);
int kvk_ram_tree_unlink(struct kvk_ram_tree *tree, const char *path);
int kvk_ram_tree_stat_name(struct kvk_ram_tree *tree, const char *path, struct kvk_stat *stat);
void kvk_ram_tree_stat(struct kvk_ram_tree *tree, struct kvk_ram_node *node, struct kvk_stat *stat);
/* 0: the folder of path exists, or with make does now. */
int kvk_ram_tree_folder(struct kvk_ram_tree *tree, const char *path, bool make);
int kvk_ram_tree_list(struct kvk_ram_tree *tree, const char *folder, struct kvk_names *names);

#endif
