/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many bytes does the catalog take for an object, and how long does it take to look one up? Method: a
 * million objects (--objects N; --smoke: 20,000) are put, each with the one before it as its parent, under 100
 * tenants and 3 models. Bytes: the larger of what the catalog says it takes and the growth of the process'
 * resident memory, over the objects; more than 96 is a failure (--smoke: only said). Time: passes over all
 * objects in random order with digests at hand: one by one, in warmed batches of 64, and so with renewing; each
 * pass also counts that all were there. The longest single put is told, since it may grow a shard's table. Then
 * under each policy that evicts: the same objects and half as many again, each of which pushes out another, so
 * that what is remembered of evicted ones has its full size; its own bytes count here, and the time is that of
 * an eviction and its end.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "catalog/catalog.h"

#define BYTES_PER_OBJECT_MAX 96.0
#define BATCH 64u

struct digest {
	uint8_t bytes[32];
};

static struct digest digest_number(uint64_t number)
{
	uint64_t words[4];
	struct digest digest;

	for (uint32_t i = 0; i < 4; i++) {
		uint64_t z = number * 4 + i + UINT64_C(0x9e3779b97f4a7c15);

		z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
		z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
		words[i] = z ^ (z >> 31);
	}
	memcpy(digest.bytes, words, sizeof(words));
	return digest;
}

/* Of this thread's own work: a neighbour on the same core is not the catalog's. */
static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t resident_bytes(void)
{
	FILE *file = fopen("/proc/self/statm", "re");
	uint64_t pages = 0;

	if (!file)
		return 0;
	if (fscanf(file, "%*u %" SCNu64, &pages) != 1)
		pages = 0;
	fclose(file);
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* Returns the longest put in ns, or a negative errno. */
static int64_t fill(struct kvk_catalog *catalog, uint64_t objects)
{
	static const char *const models[] = { "llama-3-8b", "qwen-2.5-72b", "mistral" };
	uint64_t longest_ns = 0;

	for (uint64_t i = 0; i < objects; i++) {
		struct digest digest = digest_number(i);
		struct digest parent = digest_number(i - 1);
		struct kvk_object_info info = { .logical_bytes = 2 << 20, .charge_bytes = (2 << 20) + 4096 };
		char salt[16];
		uint64_t begin_ns;
		uint64_t put_ns;
		bool durable;
		int err;

		if (i > 0)
			memcpy(info.parent_digest, parent.bytes, sizeof(info.parent_digest));
		info.tenant_bytes = (uint32_t)snprintf(salt, sizeof(salt), "salt-%u", (unsigned)(i % 100));
		info.tenant = salt;
		info.model = models[i % 3];
		info.model_bytes = (uint32_t)strlen(models[i % 3]);
		begin_ns = now_ns();
		err = kvk_catalog_put_begin(catalog, digest.bytes, info.charge_bytes, &durable);
		if (err)
			return err;
		kvk_catalog_put_end(catalog, digest.bytes, &info);
		put_ns = now_ns() - begin_ns;
		if (put_ns > longest_ns)
			longest_ns = put_ns;
	}
	return (int64_t)longest_ns;
}

struct churn {
	const char *name;
	enum kvk_policy_kind kind;
	double per_object_bytes;
	double evict_ns;
};

static int evict_one(struct kvk_catalog *catalog)
{
	struct kvk_victim victim;
	uint64_t charge_bytes;

	if (kvk_catalog_evict(catalog, 1, &victim, 1) != 1)
		return -ENOENT;
	kvk_catalog_evicted(catalog, victim.prefix, KVK_EVICTED, 0, &charge_bytes);
	kvk_catalog_credit(catalog, charge_bytes);
	return 0;
}

static int churn(struct churn *churn, uint64_t objects)
{
	struct kvk_policy_options options = { .kind = churn->kind, .cap_bytes = objects * ((2 << 20) + 4096) };
	struct kvk_object_info info = { .logical_bytes = 2 << 20, .charge_bytes = (2 << 20) + 4096 };
	struct kvk_catalog *catalog = NULL;
	struct kvk_catalog_totals totals;
	uint64_t evict_ns = 0;
	int err = kvk_catalog_new(&catalog, UINT64_MAX, &options);

	for (uint64_t i = 0; !err && i < objects + objects / 2; i++) {
		struct digest digest = digest_number(i);
		bool durable;

		if (i >= objects) {
			uint64_t begin_ns = i % 16 ? 0 : now_ns();

			err = evict_one(catalog);
			if (begin_ns)
				evict_ns += now_ns() - begin_ns;
		}
		if (!err)
			err = kvk_catalog_put_begin(catalog, digest.bytes, info.charge_bytes, &durable);
		if (!err)
			kvk_catalog_put_end(catalog, digest.bytes, &info);
	}
	if (!err) {
		kvk_catalog_totals(catalog, &totals);
		churn->per_object_bytes = (double)totals.memory_bytes / (double)objects;
		churn->evict_ns = (double)evict_ns / ((double)objects / 32);
	}
	kvk_catalog_free(catalog);
	return err;
}

/* As an engine asks: some keys at a time. batch 1: one by one, without warming. ns per look; hits_ret: how many
 * were present. */
static double look_all(struct kvk_catalog *catalog, const struct digest *digests, uint64_t objects, uint32_t batch,
		       bool renew, uint64_t *hits_ret)
{
	uint64_t begin_ns = now_ns();
	uint64_t hits = 0;

	for (uint64_t i = 0; i < objects; i++) {
		struct kvk_catalog_ticket ticket;
		struct kvk_object_info info;

		if (batch > 1 && i % batch == 0) {
			const uint8_t *ahead[BATCH];
			uint32_t count = 0;

			while (count < batch && i + count < objects) {
				ahead[count] = digests[i + count].bytes;
				count++;
			}
			kvk_catalog_warm(catalog, ahead, count);
		}
		hits += kvk_catalog_look(catalog, digests[i].bytes, false, renew, &ticket, &info) ==
			KVK_CATALOG_PRESENT;
	}
	*hits_ret = hits;
	return (double)(now_ns() - begin_ns) / (double)objects;
}

int main(int argc, char **argv)
{
	struct kvk_catalog *catalog = NULL;
	struct kvk_catalog_totals totals;
	struct digest *digests = NULL;
	uint64_t objects = 1000000;
	uint64_t before_bytes, grown_bytes, plain_hits, batch_hits, renew_hits;
	struct churn churns[] = {
		{ .name = "lru", .kind = KVK_POLICY_LRU }, { .name = "s3fifo", .kind = KVK_POLICY_S3FIFO },
		{ .name = "arc", .kind = KVK_POLICY_ARC }, { .name = "isolated_lru", .kind = KVK_POLICY_ISOLATED_LRU },
	};
	double per_object_bytes, most_bytes, plain_ns, batch_ns, renew_ns;
	int64_t longest_ns;
	bool smoke = false;
	int status = EXIT_FAILURE;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--smoke") == 0) {
			smoke = true;
			objects = 20000;
		} else if (strcmp(argv[i], "--objects") == 0 && i + 1 < argc) {
			objects = strtoull(argv[++i], NULL, 10);
		}
	}
	digests = objects ? malloc(objects * sizeof(*digests)) : NULL;
	if (!digests) {
		fprintf(stderr, "usage: catalog_memory [--smoke] [--objects N]\n");
		goto out;
	}
	for (uint64_t i = 0; i < objects; i++)
		digests[i] = digest_number(i);
	for (uint64_t i = objects - 1; i > 0; i--) {
		struct digest kept = digests[i];
		uint64_t other;

		memcpy(&other, kept.bytes + 8, sizeof(other));
		other %= i + 1;
		digests[i] = digests[other];
		digests[other] = kept;
	}

	before_bytes = resident_bytes();
	if (kvk_catalog_new(&catalog, UINT64_MAX, NULL)) {
		fprintf(stderr, "catalog_memory: no memory\n");
		goto out;
	}
	longest_ns = fill(catalog, objects);
	if (longest_ns < 0) {
		fprintf(stderr, "catalog_memory: a put failed: %s\n", strerror((int)-longest_ns));
		goto out;
	}
	grown_bytes = resident_bytes() - before_bytes;
	kvk_catalog_totals(catalog, &totals);
	per_object_bytes = (double)(grown_bytes > totals.memory_bytes ? grown_bytes : totals.memory_bytes) /
			   (double)objects;

	look_all(catalog, digests, objects, 1, false, &plain_hits);       /* warm-up */
	plain_ns = look_all(catalog, digests, objects, 1, false, &plain_hits);
	batch_ns = look_all(catalog, digests, objects, BATCH, false, &batch_hits);
	renew_ns = look_all(catalog, digests, objects, BATCH, true, &renew_hits);
	printf("{\"bench\":\"catalog_memory\",\"objects\":%" PRIu64 ",\"bytes_per_object\":%.1f,"
	       "\"memory_bytes\":%" PRIu64 ",\"resident_bytes\":%" PRIu64 ",\"look_ns\":%.1f,\"look_batch_ns\":%.1f,"
	       "\"look_batch_renew_ns\":%.1f,"
	       "\"longest_put_us\":%.1f",
	       objects, per_object_bytes, totals.memory_bytes, grown_bytes, plain_ns, batch_ns, renew_ns,
	       (double)longest_ns / 1000.0);
	most_bytes = per_object_bytes;
	for (size_t i = 0; i < sizeof(churns) / sizeof(churns[0]); i++) {
		int err = churn(&churns[i], objects);

		if (err) {
			fprintf(stderr, "\ncatalog_memory: %s: %s\n", churns[i].name, strerror(-err));
			goto out;
		}
		printf(",\"%s_bytes_per_object\":%.1f,\"%s_evict_ns\":%.0f", churns[i].name, churns[i].per_object_bytes,
		       churns[i].name, churns[i].evict_ns);
		if (churns[i].per_object_bytes > most_bytes)
			most_bytes = churns[i].per_object_bytes;
	}
	printf("}\n");
	if (totals.objects != objects || plain_hits != objects || batch_hits != objects || renew_hits != objects)
		fprintf(stderr, "catalog_memory: of %" PRIu64 " objects %" PRIu64 " are there, %" PRIu64 " were found\n",
			objects, totals.objects, plain_hits);
	else if (!smoke && most_bytes > BYTES_PER_OBJECT_MAX)
		fprintf(stderr, "catalog_memory: %.1f bytes per object, not %.0f\n", most_bytes,
			BYTES_PER_OBJECT_MAX);
	else
		status = EXIT_SUCCESS;
out:
	kvk_catalog_free(catalog);
	free(digests);
	return status;
}
