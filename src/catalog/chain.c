/* SPDX-License-Identifier: Apache-2.0 */
#include "catalog/chain.h"

#include <errno.h>

#include "catalog/place.h"
#include "catalog/policy.h"

static struct kvk_chain_link link_of(const struct kvk_entry *entry)
{
	return (struct kvk_chain_link){ .id = entry->parent, .generation = entry->parent_generation };
}

/* The entry that a link names, its shard locked; or NULL, nothing locked: that object is gone. */
static struct kvk_entry *parent_lock(struct kvk_catalog *catalog, const struct kvk_chain_link *link)
{
	struct kvk_shard *shard = kvk_id_shard(catalog, link->id);
	struct kvk_entry *entry;

	pthread_mutex_lock(&shard->lock);
	entry = kvk_shard_entry(shard, kvk_id_index(link->id));
	if (entry->generation == link->generation && entry->known)
		return entry;
	pthread_mutex_unlock(&shard->lock);
	return NULL;
}

static void parent_unlock(struct kvk_catalog *catalog, const struct kvk_chain_link *link)
{
	pthread_mutex_unlock(&kvk_id_shard(catalog, link->id)->lock);
}

bool kvk_catalog_parent(struct kvk_catalog *catalog, const uint8_t digest[32], struct kvk_prefix *parent_ret)
{
	struct kvk_chain_link link = { .id = KVK_NO_ID };
	struct kvk_entry *parent;
	struct kvk_place place;

	kvk_place_lock(&place, catalog, digest);
	if (place.entry)
		link = link_of(place.entry);
	kvk_place_unlock(&place);
	parent = link.id == KVK_NO_ID ? NULL : parent_lock(catalog, &link);
	if (!parent)
		return false;
	*parent_ret = parent->prefix;
	parent_unlock(catalog, &link);
	return true;
}

/* ---- counting ----------------------------------------------------------------------------------- */

static void count_child(struct kvk_entry *parent)
{
	if (parent->children < KVK_CHILDREN_MAX)
		parent->children++;
}

bool kvk_chain_release_to(struct kvk_catalog *catalog, const struct kvk_chain_link *link,
			  struct kvk_coldest *freed_ret)
{
	struct kvk_entry *parent = link->id == KVK_NO_ID ? NULL : parent_lock(catalog, link);
	struct kvk_shard *shard;
	bool freed;
	uint32_t index;

	if (!parent)
		return false;
	shard = kvk_id_shard(catalog, link->id);
	index = kvk_id_index(link->id);
	if (link->used_at > parent->used_at) {
		if (catalog->policy->by_use)
			kvk_use_drop(catalog, shard, index);
		parent->used_at = link->used_at & KVK_USED_AT_MAX;
		kvk_use_renewed(catalog, shard, index);
	}
	/* A count that reached its end is no longer one: who has so many children stays as long as anybody else
	 * can go. */
	if (parent->children > 0 && parent->children < KVK_CHILDREN_MAX)
		parent->children--;
	kvk_place_return(catalog, shard, index);
	freed = kvk_may_go(parent);
	if (freed)
		*freed_ret = (struct kvk_coldest){
			.shard = link->id & (KVK_SHARDS - 1), .use = KVK_USE_ASIDE, .index = index,
			.generation = parent->generation, .tenant = parent->tenant, .used_at = parent->used_at,
		};
	parent_unlock(catalog, link);
	return freed;
}

void kvk_chain_release(struct kvk_catalog *catalog, const struct kvk_chain_link *link)
{
	struct kvk_coldest freed;

	kvk_chain_release_to(catalog, link, &freed);
}

void kvk_chain_take(struct kvk_place *place, const struct kvk_chain_link *link)
{
	if (link->id == KVK_NO_ID)
		return;
	place->entry->parent = link->id;
	place->entry->parent_generation = link->generation;
	place->entry->counted = true;
	place->shard->changes++;
}

/* Counts the child at the parent that link names, and writes the link, if the child is known and has no other
 * that counts. */
static int count_and_link(struct kvk_catalog *catalog, const uint8_t *digest, struct kvk_chain_link *link)
{
	struct kvk_entry *parent = parent_lock(catalog, link);
	struct kvk_place place;
	int err = 0;

	if (!parent)
		return -ENOENT;
	count_child(parent);
	parent_unlock(catalog, link);

	kvk_place_lock(&place, catalog, digest);
	if (!place.entry || !place.entry->known || place.entry->chosen)
		err = -ENOENT;
	else if (place.entry->counted)
		err = -EEXIST;
	else
		kvk_chain_take(&place, link);
	kvk_place_unlock(&place);
	if (err)
		kvk_chain_release(catalog, link);
	return err;
}

static struct kvk_chain_link link_to(struct kvk_catalog *catalog, const uint8_t *parent_digest, bool count)
{
	struct kvk_chain_link link = { .id = KVK_NO_ID };
	struct kvk_place parent;

	kvk_place_lock(&parent, catalog, parent_digest);
	if (parent.entry && parent.entry->known) {
		link.id = parent.index << KVK_SHARD_BITS | kvk_prefix_shard(&parent.prefix);
		link.generation = parent.entry->generation;
		if (count)
			count_child(parent.entry);
	}
	kvk_place_unlock(&parent);
	return link;
}

static bool same_prefix(const uint8_t *digest, const uint8_t *other)
{
	return memcmp(digest, other, sizeof(struct kvk_prefix)) == 0;
}

struct kvk_chain_link kvk_chain_count(struct kvk_catalog *catalog, const uint8_t *digest, const uint8_t *parent_digest)
{
	if (kvk_chain_is_none(parent_digest) || same_prefix(parent_digest, digest))
		return (struct kvk_chain_link){ .id = KVK_NO_ID };
	return link_to(catalog, parent_digest, true);
}

void kvk_chain_join(struct kvk_catalog *catalog, const uint8_t *digest, const uint8_t *parent_digest)
{
	struct kvk_chain_link link;

	if (kvk_chain_is_none(parent_digest) || same_prefix(parent_digest, digest))
		return;
	link = link_to(catalog, parent_digest, false);
	if (link.id != KVK_NO_ID)
		count_and_link(catalog, digest, &link);
}

void kvk_chain_rejoin(struct kvk_catalog *catalog, const uint8_t *digest)
{
	struct kvk_chain_link link = { .id = KVK_NO_ID };
	struct kvk_place place;

	kvk_place_lock(&place, catalog, digest);
	if (place.entry && place.entry->known && !place.entry->counted)
		link = link_of(place.entry);
	kvk_place_unlock(&place);
	if (link.id != KVK_NO_ID)
		count_and_link(catalog, digest, &link);
}

/* ---- links that are learnt later ---------------------------------------------------------------- */

/* One step up. False: there is no further one. */
static bool step_up(struct kvk_catalog *catalog, struct kvk_chain_link *link)
{
	struct kvk_entry *entry = parent_lock(catalog, link);
	struct kvk_chain_link up = { .id = KVK_NO_ID };

	if (!entry)
		return false;
	if (entry->counted)
		up = link_of(entry);
	parent_unlock(catalog, link);
	*link = up;
	return up.id != KVK_NO_ID;
}

int kvk_catalog_link(struct kvk_catalog *catalog, const uint8_t *digest, const uint8_t *parent_digest)
{
	struct kvk_chain_link has = { .id = KVK_NO_ID };
	struct kvk_chain_link link, way;
	struct kvk_entry *parent;
	struct kvk_place place;
	bool has_children;
	uint16_t generation;
	uint32_t id;

	if (same_prefix(digest, parent_digest))
		return -ELOOP;
	link = link_to(catalog, parent_digest, false);
	kvk_place_lock(&place, catalog, digest);
	if (link.id == KVK_NO_ID || !place.entry || !place.entry->known) {
		kvk_place_unlock(&place);
		return -ENOENT;
	}
	id = place.index << KVK_SHARD_BITS | kvk_prefix_shard(&place.prefix);
	generation = place.entry->generation;
	has_children = place.entry->children > 0;
	if (place.entry->counted)
		has = link_of(place.entry);
	kvk_place_unlock(&place);

	if (has.id != KVK_NO_ID) {
		parent = parent_lock(catalog, &has);
		if (parent) {
			parent_unlock(catalog, &has);
			return has.id == link.id && has.generation == link.generation ? 0 : -EEXIST;
		}
		/* That parent is gone: the link may be another's. */
		kvk_place_lock(&place, catalog, digest);
		if (place.entry && place.entry->counted && place.entry->parent == has.id &&
		    place.entry->parent_generation == has.generation)
			place.entry->counted = false;
		kvk_place_unlock(&place);
	}
	/* Who has no children is before nobody. So chains that are linked from their root on cost nothing here. A link up to an
	 * object that is gone may name the slot that this one has now. */
	way = link;
	for (uint32_t steps = 0; has_children; steps++) {
		if ((way.id == id && way.generation == generation) || steps == KVK_CHAIN_STEPS_MAX)
			return -ELOOP;
		if (!step_up(catalog, &way))
			break;
	}
	return count_and_link(catalog, digest, &link);
}

/* ---- circles ------------------------------------------------------------------------------------ */

/* Calls visit for every known entry, its shard locked. */
static void for_all(struct kvk_catalog *catalog,
		    void (*visit)(void *user, struct kvk_entry *entry, uint32_t id), void *user)
{
	for (uint32_t number = 0; number < KVK_SHARDS; number++) {
		struct kvk_shard *shard = &catalog->shards[number];
		bool more = true;

		for (uint32_t index = 0; more;) {
			pthread_mutex_lock(&shard->lock);
			for (uint32_t i = 0; i < KVK_WALK_AT_ONCE && index < shard->fresh; i++, index++) {
				struct kvk_entry *entry = kvk_shard_entry(shard, index);

				if (entry->state != KVK_CATALOG_UNKNOWN && entry->known)
					visit(user, entry, index << KVK_SHARD_BITS | number);
			}
			more = index < shard->fresh;
			pthread_mutex_unlock(&shard->lock);
		}
	}
}

static void unmark(void *user, struct kvk_entry *entry, uint32_t id)
{
	entry->mark = false;
}

/* All that is above an entry that stays, or that goes by itself, waits for that one. */
static void mark_above(struct kvk_catalog *catalog, struct kvk_chain_link link)
{
	struct kvk_entry *entry;

	while (link.id != KVK_NO_ID && (entry = parent_lock(catalog, &link))) {
		struct kvk_chain_link up = { .id = KVK_NO_ID };

		if (!entry->mark && entry->counted)
			up = link_of(entry);
		entry->mark = true;
		parent_unlock(catalog, &link);
		link = up;
	}
}

static void mark_all(struct kvk_catalog *catalog)
{
	for (uint32_t number = 0; number < KVK_SHARDS; number++) {
		struct kvk_shard *shard = &catalog->shards[number];

		for (uint32_t index = 0;; index++) {
			struct kvk_chain_link link = { .id = KVK_NO_ID };
			const struct kvk_entry *entry;
			bool more;

			pthread_mutex_lock(&shard->lock);
			more = index < shard->fresh;
			if (more) {
				entry = kvk_shard_entry(shard, index);
				if (entry->known && entry->counted &&
				    (entry->pins || !entry->children || entry->state != KVK_CATALOG_PRESENT))
					link = link_of(entry);
			}
			pthread_mutex_unlock(&shard->lock);
			if (!more)
				break;
			mark_above(catalog, link);
		}
	}
}

struct unmarked {
	struct kvk_chain_link coldest;
};

static void find_unmarked(void *user, struct kvk_entry *entry, uint32_t id)
{
	struct unmarked *found = user;

	if (entry->mark || entry->pins || !entry->children || entry->state != KVK_CATALOG_PRESENT ||
	    entry->used_at >= found->coldest.used_at)
		return;
	found->coldest = (struct kvk_chain_link){
		.id = id, .generation = entry->generation, .used_at = entry->used_at,
	};
}

bool kvk_chain_break(struct kvk_catalog *catalog)
{
	struct unmarked found = { .coldest = { .id = KVK_NO_ID, .used_at = UINT64_MAX } };
	struct kvk_entry *entry;

	catalog->walks++;
	for_all(catalog, unmark, NULL);
	mark_all(catalog);
	for_all(catalog, find_unmarked, &found);
	entry = found.coldest.id == KVK_NO_ID ? NULL : parent_lock(catalog, &found.coldest);
	if (!entry)
		return false;
	entry->children = 0;
	kvk_place_return(catalog, kvk_id_shard(catalog, found.coldest.id), kvk_id_index(found.coldest.id));
	parent_unlock(catalog, &found.coldest);
	return true;
}
