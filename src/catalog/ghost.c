/* SPDX-License-Identifier: Apache-2.0 */
#include "catalog/ghost.h"

#include "util/alloc.h"

#define BUCKET_GHOSTS 8u
#define FIRST_BUCKETS 8u
#define NUMBER_BITS 31u
#define NUMBER_MASK ((1u << NUMBER_BITS) - 1)

struct ghost {
	uint32_t mark;                 /* of the digest; 0: none */
	uint32_t class : 1;
	uint32_t number : 31;
};

struct kvk_ghosts {
	uint32_t bucket_count;         /* a power of two */
	struct ghost ghosts[];
};

static uint64_t bytes_of(uint32_t bucket_count)
{
	return sizeof(struct kvk_ghosts) + (uint64_t)bucket_count * BUCKET_GHOSTS * sizeof(struct ghost);
}

uint64_t kvk_ghosts_memory_bytes(const struct kvk_ghosts *ghosts)
{
	return bytes_of(ghosts->bucket_count);
}

/* Other bits than those that choose the shard, and those that the table puts into its slots stand at the other
 * end. */
static uint32_t mark_of(const struct kvk_prefix *prefix)
{
	uint32_t mark = (uint32_t)(prefix->word[0] >> 32);

	return mark ? mark : 1;
}

static uint32_t age_of(const struct ghost *ghost, const uint64_t evicted[2])
{
	return ((uint32_t)evicted[ghost->class] - ghost->number) & NUMBER_MASK;
}

/* Where it stands; else the place to put it: a free one, or that of the oldest. */
static struct ghost *place_of(struct kvk_ghosts *ghosts, uint32_t mark, const uint64_t evicted[2])
{
	struct ghost *bucket = &ghosts->ghosts[(mark & (ghosts->bucket_count - 1)) * BUCKET_GHOSTS];
	struct ghost *worst = bucket;

	for (uint32_t i = 0; i < BUCKET_GHOSTS; i++) {
		if (bucket[i].mark == mark)
			return &bucket[i];
		if (worst->mark && (!bucket[i].mark || age_of(&bucket[i], evicted) > age_of(worst, evicted)))
			worst = &bucket[i];
	}
	return worst;
}

/* As many places as the shard has objects, at least: no policy remembers more ghosts than there are objects. */
static void grow(struct kvk_shard *shard, const uint64_t evicted[2])
{
	struct kvk_ghosts *old = shard->ghosts;
	uint32_t bucket_count = old ? old->bucket_count : FIRST_BUCKETS;
	struct kvk_ghosts *ghosts;

	while ((uint64_t)bucket_count * BUCKET_GHOSTS < shard->entry_count)
		bucket_count *= 2;
	if (old && bucket_count == old->bucket_count)
		return;
	ghosts = kvk_mem_zalloc(1, bytes_of(bucket_count));
	if (!ghosts)
		return;
	ghosts->bucket_count = bucket_count;
	for (uint32_t i = 0; old && i < old->bucket_count * BUCKET_GHOSTS; i++) {
		if (old->ghosts[i].mark)
			*place_of(ghosts, old->ghosts[i].mark, evicted) = old->ghosts[i];
	}
	kvk_mem_free(old);
	shard->ghosts = ghosts;
}

void kvk_ghost_add(struct kvk_shard *shard, const struct kvk_prefix *prefix, uint32_t class,
		   const uint64_t evicted[2])
{
	uint32_t mark = mark_of(prefix);

	grow(shard, evicted);
	if (shard->ghosts)
		*place_of(shard->ghosts, mark, evicted) = (struct ghost){
			.mark = mark, .class = class & 1, .number = evicted[class] & NUMBER_MASK,
		};
}

bool kvk_ghost_take(struct kvk_shard *shard, const struct kvk_prefix *prefix, const uint64_t evicted[2],
		    const uint64_t window[2], uint32_t *class_ret)
{
	uint32_t mark = mark_of(prefix);
	struct ghost *ghost;

	if (!shard->ghosts)
		return false;
	ghost = place_of(shard->ghosts, mark, evicted);
	if (ghost->mark != mark)
		return false;
	ghost->mark = 0;
	*class_ret = ghost->class;
	return age_of(ghost, evicted) < window[ghost->class];
}
