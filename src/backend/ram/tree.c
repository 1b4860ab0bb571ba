/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/ram/tree.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "util/alloc.h"
#include "util/clock.h"

#define NAME_BYTES_MAX 255
#define PATH_BYTES_MAX 4095
#define FIRST_BUCKETS 256u

/* ---- nodes: called with the tree's lock held --------------------------------------------------------- */

static void init_node(struct kvk_ram_tree *tree, struct kvk_ram_node *node, bool folder)
{
	node->inode = ++tree->last_inode;
	node->born_ns = kvk_wall_ns();
	atomic_init(&node->modified_ns, node->born_ns);
	atomic_init(&node->accessed_ns, node->born_ns);
	node->refs = 1;
	node->folder = folder;
	node->unnamed = !folder;
	kvk_list_init(&node->entries);
	pthread_rwlock_init(&node->lock, NULL);
}

static struct kvk_ram_node *new_node(struct kvk_ram_tree *tree, bool folder)
{
	struct kvk_ram_node *node = kvk_mem_zalloc(1, sizeof(*node));

	if (node)
		init_node(tree, node, folder);
	return node;
}

static void drop_node(struct kvk_ram_tree *tree, struct kvk_ram_node *node)
{
	if (--node->refs > 0)
		return;
	kvk_ram_bytes_release(&node->bytes, &tree->space);
	pthread_rwlock_destroy(&node->lock);
	kvk_mem_free(node);
}

static void fill_stat(struct kvk_ram_tree *tree, struct kvk_ram_node *node, struct kvk_stat *stat)
{
	stat->bytes = atomic_load(&node->bytes.length_bytes);
	stat->inode = node->inode;
	stat->device = tree->device;
	stat->born_ns = node->born_ns;
	stat->modified_ns = atomic_load(&node->modified_ns);
	stat->accessed_ns = atomic_load(&node->accessed_ns);
	stat->links = node->folder ? 2 : node->links;
	stat->owner = tree->owner;
	stat->regular = !node->folder;
	stat->owned = true;
}

/* ---- entries: called with the tree's lock held ------------------------------------------------------- */

static uint64_t hash_name(const struct kvk_ram_node *folder, const char *name, size_t bytes)
{
	uint64_t hash = folder->inode * UINT64_C(0x9e3779b97f4a7c15) + bytes;

	for (size_t i = 0; i < bytes; i++)
		hash = (hash ^ (uint8_t)name[i]) * UINT64_C(0x100000001b3);
	return hash ^ (hash >> 29);
}

static struct kvk_ram_entry *find_entry(struct kvk_ram_tree *tree, struct kvk_ram_node *folder,
					const char *name, size_t bytes)
{
	uint64_t hash = hash_name(folder, name, bytes);
	struct kvk_ram_entry *entry = tree->buckets[hash & (tree->bucket_count - 1)];

	while (entry && (entry->hash != hash || entry->folder != folder || strncmp(entry->name, name, bytes) ||
			 entry->name[bytes]))
		entry = entry->next;
	return entry;
}

/* A table that stays small because memory is short is slow, not wrong. */
static void grow_buckets(struct kvk_ram_tree *tree)
{
	uint64_t count = tree->bucket_count * 2;
	struct kvk_ram_entry **grown;

	if (tree->entry_count < tree->bucket_count)
		return;
	grown = kvk_mem_zalloc(count, sizeof(*grown));
	if (!grown)
		return;
	for (uint64_t i = 0; i < tree->bucket_count; i++) {
		struct kvk_ram_entry *entry;

		while ((entry = tree->buckets[i])) {
			tree->buckets[i] = entry->next;
			entry->next = grown[entry->hash & (count - 1)];
			grown[entry->hash & (count - 1)] = entry;
		}
	}
	kvk_mem_free(tree->buckets);
	tree->buckets = grown;
	tree->bucket_count = count;
}

static void touch(struct kvk_ram_node *folder)
{
	atomic_store(&folder->modified_ns, kvk_wall_ns());
}

/* Takes a reference to node. */
static int add_entry(struct kvk_ram_tree *tree, struct kvk_ram_node *folder, const char *name, size_t bytes,
		     struct kvk_ram_node *node)
{
	struct kvk_ram_entry *entry = kvk_mem_alloc(sizeof(*entry) + bytes + 1);
	struct kvk_ram_entry **bucket;

	if (!entry)
		return -ENOMEM;
	grow_buckets(tree);
	memcpy(entry->name, name, bytes);
	entry->name[bytes] = '\0';
	entry->hash = hash_name(folder, name, bytes);
	entry->folder = folder;
	entry->node = node;
	node->refs++;
	node->links++;
	node->unnamed = false;
	bucket = &tree->buckets[entry->hash & (tree->bucket_count - 1)];
	entry->next = *bucket;
	*bucket = entry;
	tree->entry_count++;
	kvk_list_push(&folder->entries, &entry->sibling);
	touch(folder);
	return 0;
}

static void remove_entry(struct kvk_ram_tree *tree, struct kvk_ram_entry *entry)
{
	struct kvk_ram_entry **from = &tree->buckets[entry->hash & (tree->bucket_count - 1)];

	while (*from != entry)
		from = &(*from)->next;
	*from = entry->next;
	tree->entry_count--;
	kvk_list_remove(&entry->sibling);
	touch(entry->folder);
	entry->node->links--;
	drop_node(tree, entry->node);
	kvk_mem_free(entry);
}

/* ---- paths: called with the tree's lock held --------------------------------------------------------- */

static int check_component(const char *name, size_t bytes)
{
	if (bytes == 0)
		return -ENOENT;
	if (bytes > NAME_BYTES_MAX)
		return -ENAMETOOLONG;
	if (bytes == 1 && name[0] == '.')
		return -EINVAL;
	if (bytes == 2 && name[0] == '.' && name[1] == '.')
		return -EXDEV;
	return 0;
}

static int enter_folder(struct kvk_ram_tree *tree, struct kvk_ram_node **folder, const char *name, size_t bytes,
			bool make)
{
	struct kvk_ram_entry *entry = find_entry(tree, *folder, name, bytes);
	struct kvk_ram_node *node;
	int err;

	if (entry) {
		if (!entry->node->folder)
			return -ENOTDIR;
		*folder = entry->node;
		return 0;
	}
	if (!make)
		return -ENOENT;
	node = new_node(tree, true);
	if (!node)
		return -ENOMEM;
	err = add_entry(tree, *folder, name, bytes, node);
	if (!err)
		*folder = node;
	drop_node(tree, node);
	return err;
}

/* Finds the folder of path, making what is missing if make, and the last component. */
static int find_folder(struct kvk_ram_tree *tree, const char *path, bool make, struct kvk_ram_node **folder_ret,
		       const char **last_ret)
{
	struct kvk_ram_node *folder = &tree->root;
	const char *slash;
	int err;

	if (path[0] == '/')
		return -EXDEV;
	if (strlen(path) > PATH_BYTES_MAX)
		return -ENAMETOOLONG;
	while ((slash = strchr(path, '/'))) {
		size_t bytes = (size_t)(slash - path);

		err = check_component(path, bytes);
		if (!err)
			err = enter_folder(tree, &folder, path, bytes, make);
		if (err)
			return err;
		path = slash + 1;
	}
	err = check_component(path, strlen(path));
	if (err)
		return err;
	*folder_ret = folder;
	*last_ret = path;
	return 0;
}

static int find_path(struct kvk_ram_tree *tree, const char *path, struct kvk_ram_entry **ret)
{
	struct kvk_ram_node *folder;
	struct kvk_ram_entry *entry;
	const char *last;
	int err;

	err = find_folder(tree, path, false, &folder, &last);
	if (err)
		return err;
	entry = find_entry(tree, folder, last, strlen(last));
	if (!entry)
		return -ENOENT;
	*ret = entry;
	return 0;
}

static int find_file(struct kvk_ram_tree *tree, const char *path, struct kvk_ram_entry **ret)
{
	struct kvk_ram_entry *entry;
	int err;

	err = find_path(tree, path, &entry);
	if (err)
		return err;
	if (entry->node->folder)
		return -EISDIR;
	*ret = entry;
	return 0;
}

/* ---- what others call -------------------------------------------------------------------------------- */

int kvk_ram_tree_init(struct kvk_ram_tree *tree, uint64_t device, uint64_t limit_bytes)
{
	*tree = (struct kvk_ram_tree){ .device = device, .owner = (uint32_t)geteuid(), .bucket_count = FIRST_BUCKETS };
	tree->buckets = kvk_mem_zalloc(tree->bucket_count, sizeof(struct kvk_ram_entry *));
	if (!tree->buckets)
		return -ENOMEM;
	pthread_mutex_init(&tree->lock, NULL);
	kvk_ram_space_init(&tree->space, limit_bytes);
	init_node(tree, &tree->root, true);
	return 0;
}

void kvk_ram_tree_release(struct kvk_ram_tree *tree)
{
	for (uint64_t i = 0; i < tree->bucket_count; i++) {
		struct kvk_ram_entry *entry;

		while ((entry = tree->buckets[i])) {
			tree->buckets[i] = entry->next;
			drop_node(tree, entry->node);
			kvk_mem_free(entry);
		}
	}
	kvk_mem_free(tree->buckets);
	pthread_rwlock_destroy(&tree->root.lock);
	kvk_ram_space_release(&tree->space);
	pthread_mutex_destroy(&tree->lock);
}

int kvk_ram_tree_open(struct kvk_ram_tree *tree, const char *path, struct kvk_ram_node **ret)
{
	struct kvk_ram_entry *entry;
	int err;

	pthread_mutex_lock(&tree->lock);
	err = find_file(tree, path, &entry);
	if (!err) {
		entry->node->refs++;
		*ret = entry->node;
	}
	pthread_mutex_unlock(&tree->lock);
	return err;
}

int kvk_ram_tree_create(struct kvk_ram_tree *tree, const char *path, struct kvk_ram_node **ret)
{
	struct kvk_ram_node *folder;
	struct kvk_ram_node *node;
	const char *last;
	int err;

	pthread_mutex_lock(&tree->lock);
	err = find_folder(tree, path, true, &folder, &last);
	if (err)
		goto out;
	node = new_node(tree, false);
	if (node)
		*ret = node;
	else
		err = -ENOMEM;
out:
	pthread_mutex_unlock(&tree->lock);
	return err;
}

void kvk_ram_tree_put(struct kvk_ram_tree *tree, struct kvk_ram_node *node)
{
	pthread_mutex_lock(&tree->lock);
	drop_node(tree, node);
	pthread_mutex_unlock(&tree->lock);
}

int kvk_ram_tree_link(struct kvk_ram_tree *tree, const char *path, struct kvk_ram_node *node, bool replace)
{
	struct kvk_ram_node *folder;
	struct kvk_ram_entry *entry;
	const char *last;
	int err;

	pthread_mutex_lock(&tree->lock);
	err = find_folder(tree, path, false, &folder, &last);
	if (err)
		goto out;
	entry = find_entry(tree, folder, last, strlen(last));
	if (entry && entry->node->folder && replace)
		err = -EISDIR;
	else if (entry && !replace)
		err = -EEXIST;
	else if (node->links == 0 && !node->unnamed)
		err = -ENOENT;
	else
		err = add_entry(tree, folder, last, strlen(last), node);
	if (!err && entry)
		remove_entry(tree, entry);
out:
	pthread_mutex_unlock(&tree->lock);
	return err;
}

int kvk_ram_tree_move(struct kvk_ram_tree *tree, const char *path, const char *path2)
{
	struct kvk_ram_entry *entry;
	struct kvk_ram_node *folder;
	const char *last;
	int err;

	pthread_mutex_lock(&tree->lock);
	err = find_file(tree, path, &entry);
	if (!err)
		err = find_folder(tree, path2, false, &folder, &last);
	if (err)
		goto out;
	if (find_entry(tree, folder, last, strlen(last))) {
		err = -EEXIST;
		goto out;
	}
	err = add_entry(tree, folder, last, strlen(last), entry->node);
	if (!err)
		remove_entry(tree, entry);
out:
	pthread_mutex_unlock(&tree->lock);
	return err;
}

int kvk_ram_tree_exchange(struct kvk_ram_tree *tree, const char *path, const char *path2)
{
	struct kvk_ram_entry *entry;
	struct kvk_ram_entry *entry2;
	struct kvk_ram_node *node;
	int err;

	pthread_mutex_lock(&tree->lock);
	err = find_file(tree, path, &entry);
	if (!err)
		err = find_file(tree, path2, &entry2);
	if (err)
		goto out;
	node = entry->node;
	entry->node = entry2->node;
	entry2->node = node;
	touch(entry->folder);
	touch(entry2->folder);
out:
	pthread_mutex_unlock(&tree->lock);
	return err;
}

int kvk_ram_tree_unlink(struct kvk_ram_tree *tree, const char *path)
{
	struct kvk_ram_entry *entry;
	int err;

	pthread_mutex_lock(&tree->lock);
	err = find_file(tree, path, &entry);
	if (!err)
		remove_entry(tree, entry);
	pthread_mutex_unlock(&tree->lock);
	return err;
}

int kvk_ram_tree_stat_name(struct kvk_ram_tree *tree, const char *path, struct kvk_stat *stat)
{
	struct kvk_ram_entry *entry;
	int err;

	pthread_mutex_lock(&tree->lock);
	err = find_path(tree, path, &entry);
	if (!err)
		fill_stat(tree, entry->node, stat);
	pthread_mutex_unlock(&tree->lock);
	return err;
}

void kvk_ram_tree_stat(struct kvk_ram_tree *tree, struct kvk_ram_node *node, struct kvk_stat *stat)
{
	pthread_mutex_lock(&tree->lock);
	fill_stat(tree, node, stat);
	pthread_mutex_unlock(&tree->lock);
}

int kvk_ram_tree_folder(struct kvk_ram_tree *tree, const char *path, bool make)
{
	struct kvk_ram_node *folder;
	const char *last;
	int err;

	pthread_mutex_lock(&tree->lock);
	err = find_folder(tree, path, make, &folder, &last);
	pthread_mutex_unlock(&tree->lock);
	return err;
}

int kvk_ram_tree_list(struct kvk_ram_tree *tree, const char *folder, struct kvk_names *names)
{
	struct kvk_ram_node *node = &tree->root;
	struct kvk_ram_entry *entry;
	struct kvk_link *link;
	int err = 0;

	pthread_mutex_lock(&tree->lock);
	if (folder[0]) {
		err = find_path(tree, folder, &entry);
		if (err)
			goto out;
		node = entry->node;
		if (!node->folder) {
			err = -ENOTDIR;
			goto out;
		}
	}
	for (link = node->entries.next; link != &node->entries && !err; link = link->next) {
		entry = kvk_container_of(link, struct kvk_ram_entry, sibling);
		err = kvk_names_add(names, entry->name);
	}
out:
	pthread_mutex_unlock(&tree->lock);
	return err;
}
