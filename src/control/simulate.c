/* SPDX-License-Identifier: Apache-2.0 */
/* The catalog under traffic, with nothing behind it: what is stored is there at once, what is evicted is gone at once. */
#include <kvkeep/simulate.h>

#include <errno.h>
#include <string.h>

#include "catalog/catalog.h"
#include "format/format.h"
#include "util/alloc.h"

/* Fetched into the processor's cache together; see kvk_catalog_warm(). */
#define WARM 32u

struct kvk_simulation {
	struct kvk_catalog *catalog;
	uint64_t cap_bytes;            /* UINT64_MAX: none */
	struct kvk_simulation_counts counts;
	uint8_t (*digests)[KVK_DIGEST_BYTES];          /* of the request's blocks, behind a zero one */
	uint32_t digest_room;
};

/* Numbers that count up must spread over the shards as digests do: the finalizer of SplitMix64, twice. */
static uint64_t mix(uint64_t number)
{
	number += UINT64_C(0x9e3779b97f4a7c15);
	number = (number ^ number >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	number = (number ^ number >> 27) * UINT64_C(0x94d049bb133111eb);
	return number ^ number >> 31;
}

/* Of a digest the catalog reads 16 bytes. */
static void digest_of(uint8_t digest[KVK_DIGEST_BYTES], uint64_t block)
{
	const uint64_t words[KVK_DIGEST_BYTES / sizeof(uint64_t)] = { mix(block), mix(block + UINT64_C(0xd1342543de82ef95)) };

	memcpy(digest, words, sizeof(words));
}

int kvk_simulation_new(struct kvk_simulation **ret, const struct kvk_simulation_options *options)
{
	struct kvk_policy_options policy = { 0 };
	struct kvk_simulation *simulation;
	unsigned index = 0;
	int err;

	if (!ret || !options || options->struct_bytes != sizeof(*options) || !options->policy)
		return -EINVAL;
	while (kvk_policy_words[index] && strcmp(kvk_policy_words[index], options->policy))
		index++;
	if (!kvk_policy_words[index])
		return -EINVAL;
	policy.kind = (enum kvk_policy_kind)index;
	policy.cap_bytes = options->cap_bytes;
	simulation = kvk_mem_zalloc(1, sizeof(*simulation));
	if (!simulation)
		return -ENOMEM;
	simulation->cap_bytes = options->cap_bytes ? options->cap_bytes : UINT64_MAX;
	err = kvk_catalog_new(&simulation->catalog, simulation->cap_bytes, &policy);
	if (err) {
		kvk_mem_free(simulation);
		return err;
	}
	*ret = simulation;
	return 0;
}

void kvk_simulation_free(struct kvk_simulation *simulation)
{
	if (!simulation)
		return;
	kvk_catalog_free(simulation->catalog);
	kvk_mem_free(simulation->digests);
	kvk_mem_free(simulation);
}

/* Evicts what one object needs, and no more. False: nothing may go. */
static bool make_room(struct kvk_simulation *simulation, uint64_t charge_bytes)
{
	struct kvk_victim victim;
	uint64_t charge, room;

	/* Nothing leaves for what cannot fit. */
	if (charge_bytes > simulation->cap_bytes)
		return false;
	while ((room = kvk_catalog_room(simulation->catalog)) < charge_bytes) {
		if (!kvk_catalog_evict(simulation->catalog, charge_bytes - room, &victim, 1))
			return false;
		kvk_catalog_evicted(simulation->catalog, victim.prefix, KVK_EVICTED, 0, &charge);
		kvk_catalog_credit(simulation->catalog, charge);
		kvk_catalog_add_room(simulation->catalog, (int64_t)charge);
		simulation->counts.evicted++;
	}
	return true;
}

/* Returns how many of them were warmed, from the first on. */
static uint32_t warm(struct kvk_simulation *simulation, const uint8_t (*digests)[KVK_DIGEST_BYTES], uint32_t count)
{
	const uint8_t *some[WARM];

	if (count > WARM)
		count = WARM;
	for (uint32_t i = 0; i < count; i++)
		some[i] = digests[i];
	kvk_catalog_warm(simulation->catalog, some, count);
	return count;
}

/* digests[-1] is the parent's. */
static int store(struct kvk_simulation *simulation, const uint8_t (*digest)[KVK_DIGEST_BYTES], uint64_t block_bytes)
{
	struct kvk_object_info info = {
		.logical_bytes = block_bytes, .charge_bytes = kvk_page_ceil(block_bytes), .published = true,
	};
	struct kvk_catalog_ticket ticket;
	bool durable;
	int err = kvk_catalog_put_begin(simulation->catalog, digest[0], info.charge_bytes, &durable);

	if (err == -ENOSPC && make_room(simulation, info.charge_bytes))
		err = kvk_catalog_put_begin(simulation->catalog, digest[0], info.charge_bytes, &durable);
	if (err == -EEXIST) {
		kvk_catalog_look(simulation->catalog, digest[0], false, true, &ticket, NULL);
		return 0;
	}
	if (err == -ENOSPC) {
		simulation->counts.refused++;
		return 0;
	}
	if (err)
		return err;
	memcpy(info.parent_digest, digest[-1], sizeof(info.parent_digest));
	kvk_catalog_put_end(simulation->catalog, digest[0], &info);
	simulation->counts.written++;
	simulation->counts.written_bytes += info.charge_bytes;
	return 0;
}

static int take_blocks(struct kvk_simulation *simulation, const uint64_t *blocks, uint32_t count)
{
	uint8_t (*grown)[KVK_DIGEST_BYTES];

	if (count >= simulation->digest_room) {
		grown = kvk_mem_realloc(simulation->digests, ((size_t)count + 1) * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		simulation->digests = grown;
		simulation->digest_room = count + 1;
		memset(simulation->digests[0], 0, sizeof(*grown));
	}
	for (uint32_t i = 0; i < count; i++)
		digest_of(simulation->digests[i + 1], blocks[i]);
	return 0;
}

int kvk_simulation_request(struct kvk_simulation *simulation, const uint64_t *blocks, uint32_t count,
			   uint64_t block_bytes, uint32_t *hits_ret)
{
	const uint8_t (*digests)[KVK_DIGEST_BYTES];
	struct kvk_catalog_ticket ticket;
	uint32_t hits = 0, warmed = 0;
	int err;

	if (block_bytes == 0 || block_bytes > KVK_OBJECT_BYTES_MAX || count == UINT32_MAX)
		return -EINVAL;
	err = take_blocks(simulation, blocks, count);
	if (err)
		return err;
	digests = simulation->digests + 1;
	for (; hits < count; hits++) {
		if (hits == warmed)
			warmed += warm(simulation, &digests[hits], count - hits);
		if (kvk_catalog_look(simulation->catalog, digests[hits], true, true, &ticket, NULL) != KVK_CATALOG_PRESENT)
			break;
	}
	for (uint32_t i = hits; i < count && !err; i++) {
		if (i == warmed)
			warmed += warm(simulation, &digests[i], count - i);
		err = store(simulation, &digests[i], block_bytes);
	}
	for (uint32_t i = 0; i < hits; i++)
		kvk_catalog_unpin(simulation->catalog, digests[i]);
	simulation->counts.accesses += count;
	simulation->counts.hits += hits;
	simulation->counts.hit_bytes += hits * kvk_page_ceil(block_bytes);
	if (hits_ret)
		*hits_ret = hits;
	return err;
}

int kvk_simulation_counts(struct kvk_simulation *simulation, struct kvk_simulation_counts *ret)
{
	struct kvk_catalog_totals totals;

	if (!ret || ret->struct_bytes != sizeof(*ret))
		return -EINVAL;
	kvk_catalog_totals(simulation->catalog, &totals);
	*ret = simulation->counts;
	ret->struct_bytes = sizeof(*ret);
	ret->objects = totals.objects;
	ret->used_bytes = totals.used_bytes;
	ret->memory_bytes = totals.memory_bytes;
	return 0;
}
