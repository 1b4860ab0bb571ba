/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The policies beside the algorithms they are named after, written down as plainly as possible: arrays, one
 * queue each, no shards. Each access is the same on both sides, and so must be every hit and every victim, in
 * order. Then what they are for: hit ratios on skewed accesses with scans among them.
 */
#include <stdlib.h>

#include "catalog_kit.h"

#define KEYS 1500u
#define CAP_PAGES 700u
#define STEPS 60000u

struct object {
	uint64_t pages;
	uint32_t freq;
	bool here;
	bool second;                   /* in main, in T2 */
	uint32_t ghost;                /* 0: none; 1 + its class */
	uint64_t number;               /* of its eviction, within its class */
};

/* Oldest first. */
struct queue {
	uint32_t keys[KEYS];
	uint32_t count;
	uint64_t pages;
};

struct reference {
	struct object objects[KEYS];
	struct queue queues[2];
	uint64_t evicted[2];
	uint64_t aim_pages;
};

static void queue_push(struct reference *reference, int queue, uint32_t key)
{
	struct queue *to = &reference->queues[queue];

	to->keys[to->count++] = key;
	to->pages += reference->objects[key].pages;
	reference->objects[key].second = queue == 1;
}

static void queue_remove(struct reference *reference, int queue, uint32_t key)
{
	struct queue *from = &reference->queues[queue];
	uint32_t at = 0;

	while (from->keys[at] != key)
		at++;
	memmove(&from->keys[at], &from->keys[at + 1], (--from->count - at) * sizeof(from->keys[0]));
	from->pages -= reference->objects[key].pages;
}

static void to_ghost(struct reference *reference, int queue, uint32_t key)
{
	reference->objects[key].ghost = 1 + (uint32_t)queue;
	reference->objects[key].number = ++reference->evicted[queue];
}

static bool ghost_within(const struct reference *reference, uint32_t key, uint32_t class, uint64_t window)
{
	const struct object *object = &reference->objects[key];

	return object->ghost == 1 + class && reference->evicted[class] - object->number < window;
}

struct algorithm {
	enum kvk_policy_kind kind;
	void (*hit)(struct reference *reference, uint32_t key);
	void (*insert)(struct reference *reference, uint32_t key);
	uint32_t (*evict)(struct reference *reference);
};

/* ---- LRU ---------------------------------------------------------------------------------------- */

static void lru_hit(struct reference *reference, uint32_t key)
{
	queue_remove(reference, 0, key);
	queue_push(reference, 0, key);
}

static void lru_insert(struct reference *reference, uint32_t key)
{
	queue_push(reference, 0, key);
}

static uint32_t lru_evict(struct reference *reference)
{
	uint32_t key = reference->queues[0].keys[0];

	queue_remove(reference, 0, key);
	return key;
}

/* ---- S3-FIFO ------------------------------------------------------------------------------------ */

static void s3fifo_hit(struct reference *reference, uint32_t key)
{
	if (reference->objects[key].freq < 3)
		reference->objects[key].freq++;
}

static void s3fifo_insert(struct reference *reference, uint32_t key)
{
	bool back = ghost_within(reference, key, 0, reference->queues[1].count);

	reference->objects[key].ghost = 0;
	reference->objects[key].freq = 0;
	queue_push(reference, back ? 1 : 0, key);
}

static uint32_t s3fifo_evict(struct reference *reference)
{
	struct queue *small = &reference->queues[0];
	struct queue *main = &reference->queues[1];

	for (;;) {
		if (small->count && (small->pages * 10 > CAP_PAGES || !main->count)) {
			uint32_t key = small->keys[0];

			queue_remove(reference, 0, key);
			if (reference->objects[key].freq <= 1) {
				to_ghost(reference, 0, key);
				return key;
			}
			reference->objects[key].freq = 0;
			queue_push(reference, 1, key);
		} else {
			uint32_t key = main->keys[0];

			queue_remove(reference, 1, key);
			if (reference->objects[key].freq == 0)
				return key;
			reference->objects[key].freq--;
			queue_push(reference, 1, key);
		}
	}
}

/* ---- ARC ---------------------------------------------------------------------------------------- */

static void arc_hit(struct reference *reference, uint32_t key)
{
	queue_remove(reference, reference->objects[key].second, key);
	queue_push(reference, 1, key);
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static void arc_insert(struct reference *reference, uint32_t key)
{
	uint64_t first = reference->queues[0].count;
	uint64_t second = reference->queues[1].count;
	uint64_t b1 = least(second, reference->evicted[0]);
	uint64_t b2 = least(first + second - b1, reference->evicted[1]);
	uint64_t pages = reference->objects[key].pages;
	bool in_b1 = ghost_within(reference, key, 0, b1);
	bool in_b2 = ghost_within(reference, key, 1, b2);

	reference->objects[key].ghost = 0;
	if (in_b1)
		reference->aim_pages = least(reference->aim_pages + pages * (b2 > b1 ? b2 / b1 : 1), CAP_PAGES);
	if (in_b2)
		reference->aim_pages -= least(reference->aim_pages, pages * (b1 > b2 ? b1 / b2 : 1));
	queue_push(reference, in_b1 || in_b2, key);
}

static uint32_t arc_evict(struct reference *reference)
{
	const struct queue *first = &reference->queues[0];
	int from = first->count && (first->pages > reference->aim_pages || !reference->queues[1].count) ? 0 : 1;
	uint32_t key = reference->queues[from].keys[0];

	queue_remove(reference, from, key);
	to_ghost(reference, from, key);
	return key;
}

/* ---- side by side ------------------------------------------------------------------------------- */

static const struct algorithm algorithms[] = {
	{ KVK_POLICY_LRU, lru_hit, lru_insert, lru_evict },
	{ KVK_POLICY_S3FIFO, s3fifo_hit, s3fifo_insert, s3fifo_evict },
	{ KVK_POLICY_ARC, arc_hit, arc_insert, arc_evict },
};

static uint64_t next_random(uint64_t *random)
{
	*random ^= *random << 13;
	*random ^= *random >> 7;
	*random ^= *random << 17;
	return *random >> 20;
}

/* Some keys often, most seldom, and now and then a stretch of the seldom ones in a row. */
static uint32_t pick_key(uint64_t *random, uint32_t step)
{
	uint64_t r = next_random(random);

	if (step % 2000 > 1700)
		return 500 + (step + (uint32_t)(step / 2000) * 37) % (KEYS - 500);
	if (r % 4 == 0)
		return (uint32_t)(r / 4 % KEYS);
	return (uint32_t)(r / 4 % 40 * (r / 160 % 25));
}

static void make_room(struct kvk_catalog *catalog, struct reference *reference, const struct algorithm *algorithm,
		      uint64_t pages, uint32_t step)
{
	uint64_t used = reference->queues[0].pages + reference->queues[1].pages;
	struct kvk_victim victims[16];
	uint32_t chosen;

	if (used + pages <= CAP_PAGES)
		return;
	chosen = kvk_catalog_evict(catalog, (used + pages - CAP_PAGES) * PAGE, victims, 16);
	for (uint32_t i = 0; i < chosen; i++) {
		uint32_t key = algorithm->evict(reference);
		struct digest digest = digest_number(key);
		uint64_t charge;

		if (memcmp(victims[i].prefix, digest.bytes, sizeof(victims[i].prefix)) != 0)
			fail_msg("policy %d, access %u: the victim is not %u", (int)algorithm->kind, step, key);
		reference->objects[key].here = false;
		kvk_catalog_evicted(catalog, victims[i].prefix, KVK_EVICTED, 0, &charge);
		kvk_catalog_credit(catalog, charge);
	}
	assert_true(reference->queues[0].pages + reference->queues[1].pages + pages <= CAP_PAGES);
}

static void policies_do_as_published(void **state)
{
	static struct reference reference;

	(void)state;
	for (size_t i = 0; i < 3 * sizeof(algorithms) / sizeof(algorithms[0]); i++) {
		const struct algorithm *algorithm = &algorithms[i / 3];
		struct kvk_policy_options options = { .kind = algorithm->kind, .cap_bytes = CAP_PAGES * PAGE };
		uint64_t random = 0x9e3779b97f4a7c15u + i % 3;
		struct kvk_catalog *catalog = NULL;
		uint32_t hits = 0;

		memset(&reference, 0, sizeof(reference));
		assert_int_equal(kvk_catalog_new(&catalog, UINT64_MAX, &options), 0);
		for (uint32_t step = 0; step < STEPS; step++) {
			uint32_t key = pick_key(&random, step);
			struct object *object = &reference.objects[key];
			struct digest digest = digest_number(key);
			struct kvk_catalog_ticket ticket;

			assert_int_equal(kvk_catalog_look(catalog, digest.bytes, false, true, &ticket, NULL),
					 object->here ? KVK_CATALOG_PRESENT : KVK_CATALOG_UNKNOWN);
			if (object->here) {
				algorithm->hit(&reference, key);
				hits++;
				continue;
			}
			object->pages = 1 + key % 4;
			make_room(catalog, &reference, algorithm, object->pages, step);
			put(catalog, &digest, object->pages);
			algorithm->insert(&reference, key);
			object->here = true;
		}
		print_message("policy %d: %u of %u hit\n", (int)algorithm->kind, hits, STEPS);
		assert_in_range(hits, STEPS / 5, STEPS - STEPS / 10);
		kvk_catalog_free(catalog);
	}
}

/* ---- what they are for -------------------------------------------------------------------------- */

#define ZIPF_KEYS 5000u

static double hit_ratio(enum kvk_policy_kind kind, uint64_t cap_pages)
{
	static double sums[ZIPF_KEYS];
	struct kvk_policy_options options = { .kind = kind, .cap_bytes = cap_pages * PAGE };
	struct kvk_catalog *catalog = NULL;
	uint64_t random = 88172645463325252u;
	uint64_t scanned = ZIPF_KEYS;
	uint32_t hits = 0, asked = 0;

	for (uint32_t i = 0; i < ZIPF_KEYS; i++)
		sums[i] = (i ? sums[i - 1] : 0) + 1.0 / (i + 1);
	assert_int_equal(kvk_catalog_new(&catalog, UINT64_MAX, &options), 0);
	for (uint32_t step = 0; step < 100000; step++) {
		bool scan = step % 1000 >= 600;        /* four of ten are asked for once and never again */
		double at = (double)(next_random(&random) % 1000000) / 1e6 * sums[ZIPF_KEYS - 1];
		uint64_t key = scan ? scanned++ : 0;
		struct kvk_catalog_ticket ticket;
		struct digest digest;

		while (!scan && sums[key] < at)
			key += key + 64 < ZIPF_KEYS && sums[key + 64] < at ? 64 : 1;
		digest = digest_number(key);
		asked += !scan;
		if (kvk_catalog_look(catalog, digest.bytes, false, true, &ticket, NULL) == KVK_CATALOG_PRESENT) {
			hits++;
			continue;
		}
		while (totals_of(catalog).used_bytes >= cap_pages * PAGE) {
			struct kvk_victim victim;
			uint64_t charge;

			assert_int_equal(kvk_catalog_evict(catalog, 1, &victim, 1), 1);
			kvk_catalog_evicted(catalog, victim.prefix, KVK_EVICTED, 0, &charge);
			kvk_catalog_credit(catalog, charge);
		}
		put(catalog, &digest, 1);
	}
	kvk_catalog_free(catalog);
	return (double)hits / asked;
}

/* When this was written: LRU 0.476, S3-FIFO 0.632, ARC 0.639. */
static void scans_push_out_less_than_under_lru(void **state)
{
	double lru = hit_ratio(KVK_POLICY_LRU, 250);
	double s3fifo = hit_ratio(KVK_POLICY_S3FIFO, 250);
	double arc = hit_ratio(KVK_POLICY_ARC, 250);

	(void)state;
	print_message("LRU %.3f, S3-FIFO %.3f, ARC %.3f\n", lru, s3fifo, arc);
	assert_true(lru > 0.2);
	assert_true(s3fifo > lru + 0.03);
	assert_true(arc > lru + 0.03);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(policies_do_as_published),
		cmocka_unit_test(scans_push_out_less_than_under_lru),
	};

	return cmocka_run_group_tests_name("catalog_policy", tests, NULL, NULL);
}
