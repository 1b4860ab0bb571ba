/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/ram/media.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "backend/ram/ram.h"
#include "util/alloc.h"

/* The media that have a name: what stands in for the disk that outlives a store. */
static pthread_mutex_t media_lock = PTHREAD_MUTEX_INITIALIZER;
static struct kvk_link media = { &media, &media };
static _Atomic uint64_t last_device;

struct kvk_ram_medium *kvk_ram_medium_new(const char *name, uint64_t limit_bytes)
{
	struct kvk_ram_medium *medium = kvk_mem_zalloc(1, sizeof(*medium) + strlen(name) + 1);

	if (!medium)
		return NULL;
	if (kvk_ram_tree_init(&medium->tree, atomic_fetch_add(&last_device, 1) + 1, limit_bytes)) {
		kvk_mem_free(medium);
		return NULL;
	}
	/* The folders that a store of any medium begins with. */
	if (kvk_ram_tree_folder(&medium->tree, SIDE_FOLDER "namespaces/any", true) ||
	    kvk_ram_tree_folder(&medium->tree, SIDE_FOLDER "quarantine/any", true)) {
		kvk_ram_tree_release(&medium->tree);
		kvk_mem_free(medium);
		return NULL;
	}
	kvk_ram_locks_init(&medium->locks);
	kvk_list_init(&medium->link);
	medium->refs = 1;
	memcpy(medium->name, name, strlen(name) + 1);
	return medium;
}

/* Called with media_lock held. */
static void drop(struct kvk_ram_medium *medium)
{
	if (--medium->refs > 0)
		return;
	kvk_ram_locks_release(&medium->locks);
	kvk_ram_tree_release(&medium->tree);
	kvk_mem_free(medium);
}

/* Called with media_lock held. */
static struct kvk_ram_medium *find_medium(const char *name)
{
	for (struct kvk_link *link = media.next; link != &media; link = link->next) {
		struct kvk_ram_medium *medium = kvk_container_of(link, struct kvk_ram_medium, link);

		if (!strcmp(medium->name, name))
			return medium;
	}
	return NULL;
}

struct kvk_ram_medium *kvk_ram_medium_share(const char *name)
{
	struct kvk_ram_medium *medium;

	pthread_mutex_lock(&media_lock);
	medium = find_medium(name);
	if (!medium) {
		medium = kvk_ram_medium_new(name, UINT64_MAX);
		if (medium)
			kvk_list_push(&media, &medium->link);
	}
	if (medium)
		medium->refs++;
	pthread_mutex_unlock(&media_lock);
	return medium;
}

void kvk_backend_ram_forget(const char *name)
{
	struct kvk_ram_medium *medium;

	pthread_mutex_lock(&media_lock);
	medium = find_medium(name);
	if (medium) {
		kvk_list_remove(&medium->link);
		drop(medium);
	}
	pthread_mutex_unlock(&media_lock);
}

void kvk_ram_medium_drop(struct kvk_ram_medium *medium)
{
	pthread_mutex_lock(&media_lock);
	drop(medium);
	pthread_mutex_unlock(&media_lock);
}
