/* SPDX-License-Identifier: Apache-2.0 */
#include "catalog/ghost.h"

#include "util/alloc.h"

#define BUCKET_GHOSTS 8u
#define BUCKET_BYTES 64u
#define FIRST_BUCKETS 8u
#define NUMBER_BITS 31u
#define NUMBER_MASK ((1u << NUMBER_BITS) - 1)

struct ghost {
	uint32_t mark;                 /* of the digest; 0: none */
	uint32_t class : 1;
	uint32_t number : 31;
};

/* A bucket is one cache line. */
struct bucket {
	struct ghost ghosts[BUCKET_GHOSTS];
};
static_assert(sizeof(struct bucket) == BUCKET_BYTES, "a bucket is fetched at once");

struct kvk_ghosts {
	uint32_t bucket_count;         /* a power of two */
	struct bucket *buckets;        /* within the same memory, which is longer by a cache line */
};

static uint64_t bytes_of(uint32_t bucket_count)
{
	return sizeof(struct kvk_ghosts) + ((uint64_t)bucket_count + 1) * sizeof(struct bucket);
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

static struct bucket *bucket_of(struct kvk_ghosts *ghosts, uint32_t mark)
{
	return &ghosts->buckets[mark & (ghosts->bucket_count - 1)];
}

void kvk_ghost_warm(const struct kvk_shard *shard, const struct kvk_prefix *prefix)
{
	if (shard->ghosts)
		__builtin_prefetch(bucket_of(shard->ghosts, mark_of(prefix)));
}

/* NULL: it stands nowhere. */
static struct ghost *find(struct kvk_ghosts *ghosts, uint32_t mark)
{
	struct bucket *bucket = bucket_of(ghosts, mark);

	for (uint32_t i = 0; i < BUCKET_GHOSTS; i++) {
		if (bucket->ghosts[i].mark == mark)
			return &bucket->ghosts[i];
	}
	return NULL;
}

/* Where it stands; else the place to put it: a free one, or that of the oldest. */
static struct ghost *place_of(struct kvk_ghosts *ghosts, uint32_t mark, const uint64_t evicted[2])
{
	struct bucket *bucket = bucket_of(ghosts, mark);
	struct ghost *found = find(ghosts, mark);
	uint32_t worst = 0, worst_age = 0;

	for (uint32_t i = 0; i < BUCKET_GHOSTS && !found; i++) {
		uint32_t age = bucket->ghosts[i].mark ? age_of(&bucket->ghosts[i], evicted) : UINT32_MAX;
		bool worse = age > worst_age;

		worst = worse ? i : worst;
		worst_age = worse ? age : worst_age;
	}
	return found ? found : &bucket->ghosts[worst];
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
	ghosts->buckets = (struct bucket *)(((uintptr_t)(ghosts + 1) + BUCKET_BYTES - 1) & ~(uintptr_t)(BUCKET_BYTES - 1));
	for (uint32_t i = 0; old && i < old->bucket_count * BUCKET_GHOSTS; i++) {
		const struct ghost *ghost = &old->buckets[i / BUCKET_GHOSTS].ghosts[i % BUCKET_GHOSTS];

		if (ghost->mark)
			*place_of(ghosts, ghost->mark, evicted) = *ghost;
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
	ghost = find(shard->ghosts, mark);
	if (!ghost)
		return false;
	ghost->mark = 0;
	*class_ret = ghost->class;
	return age_of(ghost, evicted) < window[ghost->class];
}
