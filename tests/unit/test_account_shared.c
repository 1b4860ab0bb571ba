/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The account on a medium that machines share: the medium's clock counts, and where each machine stamps folders with its own
 * clock, what those differ by is found out, and never makes the books too low. Time is the test's own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/syscall.h>

#include "account_bed.h"

#define MS UINT64_C(1000000)
#define SECOND (1000 * MS)
#define HOUR (3600 * SECOND)
#define MACHINES 4

static uint64_t medium_ns = UINT64_C(1700000000) * SECOND, since_boot = 5000 * SECOND;
static bool mute;                      /* the medium cannot be asked */
static uint32_t asked;

/* Each process of a test is on a machine of its own. */
static struct machine {
	struct process process;
	struct kvk_backend_ops ops;
	int64_t ahead_ns;
} machines[MACHINES];

/* The machine's own wall clock is wrong by an hour, and nobody may notice. */
int clock_gettime(clockid_t clock, struct timespec *now)
{
	uint64_t ns = clock == CLOCK_REALTIME_COARSE ? medium_ns + HOUR : clock == CLOCK_MONOTONIC_COARSE ? since_boot : 0;

	if (!ns)
		return (int)syscall(SYS_clock_gettime, clock, now);
	*now = (struct timespec){ .tv_sec = (time_t)(ns / SECOND), .tv_nsec = (long)(ns % SECOND) };
	return 0;
}

static uint64_t clock_of(const struct machine *machine)
{
	return medium_ns + (uint64_t)machine->ahead_ns;
}

static int now_of_medium(struct kvk_backend *backend, uint64_t *now_ns)
{
	asked++;
	if (mute)
		return -EIO;
	for (unsigned i = 0; i < MACHINES; i++) {
		if (machines[i].process.backend == backend)
			*now_ns = clock_of(&machines[i]);
	}
	return 0;
}

static void go_on(uint64_t ns)
{
	medium_ns += ns;
	since_boot += ns;
}

static void boot(struct machine *machine, struct bed *bed, int64_t ahead_ns)
{
	machine->ahead_ns = ahead_ns;
	machine->ops = *bed->ops;
	machine->ops.now = now_of_medium;
	machine->process = (struct process){ .bed = bed, .backend = bed_backend(bed) };
	machine->process.backend->ops = &machine->ops;
	machine->process.backend->caps.many_hosts = true;
	assert_int_equal(kvk_account_open(&machine->process.account, machine->process.backend, CAP, true, &bed->log, NULL), 0);
}

static int setup(void **state)
{
	static struct bed bed;

	bed_start(&bed, &kvk_backend_ram);
	*state = &bed;
	mute = false;
	go_on(HOUR);
	return 0;
}

static int teardown(void **state)
{
	bed_end(*state);
	return 0;
}

static int find(struct machine *machine, uint32_t bucket, uint64_t modified_ns, uint64_t real_bytes)
{
	struct kvk_bucket_finding finding;

	kvk_account_finding(machine->process.account, &finding, bucket);
	finding.modified_ns = modified_ns;
	finding.real_bytes = real_bytes;
	finding.may_lower = true;
	assert_int_equal(kvk_account_reconcile(machine->process.account, &finding, 1, 100), 0);
	return finding.status;
}

static uint64_t charged_in(struct machine *machine, uint32_t bucket)
{
	return image_of(&machine->process)->charged_bytes[bucket];
}

static void the_mediums_clock_counts(void **state)
{
	struct machine *keeper = &machines[0], *other = &machines[1];
	uint32_t before;

	boot(keeper, *state, 0);
	boot(other, *state, 0);
	visit(&other->process, 50 * MIB, 0, false);
	before = asked;
	publish(&other->process, 1, 10 * MIB);
	unlinks(&other->process, 2, MIB);
	/* A server may be far: nothing on the way of a put asks it. */
	assert_int_equal(asked, before);
	sync_and_visit(&other->process);
	go_on(3 * SECOND);
	visit(&other->process, 60 * MIB, 0, false);
	/* Changed too short a time ago for servers that keep whole seconds, and for clocks that differ a little. */
	assert_int_equal(find(keeper, 1, medium_ns - SECOND, 4 * MIB), -ESTALE);
	assert_int_equal(find(keeper, 1, medium_ns - 1100 * MS, 10 * MIB), -EAGAIN);
	go_on(SECOND);
	visit(&other->process, 60 * MIB, 0, false);
	assert_int_equal(find(keeper, 1, medium_ns - 2100 * MS, 10 * MIB), 0);
	assert_int_equal(find(keeper, 1, medium_ns - 2100 * MS, 4 * MIB), 0);
	assert_true(charged_in(keeper, 1) == 4 * MIB);
	assert_true(kvk_account_skew_ns(keeper->process.account) == 0);
	stop(&other->process);
	stop(&keeper->process);
}

/* A medium that does not say its time proves nothing; what is leased and posted goes on. */
static void a_clock_that_cannot_be_asked_proves_nothing(void **state)
{
	struct machine *keeper = &machines[0], *other = &machines[1];
	struct kvk_bucket_finding finding;

	boot(keeper, *state, 0);
	boot(other, *state, 0);
	visit(&other->process, 50 * MIB, 0, false);
	publish(&other->process, 1, 10 * MIB);
	mute = true;
	go_on(SECOND);
	for (unsigned i = 0; i < 20; i++) {
		go_on(SECOND);
		assert_true(visit(&other->process, 40 * MIB + i * MIB, 0, false) <= MIB);
		visit(&keeper->process, 0, 0, false);
	}
	assert_true(charged_in(keeper, 1) == 10 * MIB);
	kvk_account_finding(keeper->process.account, &finding, 1);
	assert_false(kvk_account_is_still(keeper->process.account, &finding));
	assert_int_equal(find(keeper, 1, medium_ns - 10 * SECOND, 0), -EINVAL);
	assert_true(kvk_account_skew_ns(keeper->process.account) == 0);
	mute = false;
	go_on(SECOND);
	visit(&other->process, 61 * MIB, 0, false);
	go_on(2 * SECOND);
	visit(&other->process, 60 * MIB, 0, false);
	visit(&keeper->process, 0, 0, false);
	assert_true(kvk_account_skew_ns(keeper->process.account) == 0);
	assert_int_equal(find(keeper, 1, medium_ns - 5 * SECOND, 8 * MIB), 0);
	assert_true(charged_in(keeper, 1) == 8 * MIB);
	stop(&other->process);
	stop(&keeper->process);
}

/*
 * 1. a machine opens while the medium does not say its time, and unlinks; 2. the medium tells its time again; 3. the machine visits,
 * and must not say that all before is posted: its credit is to come; 4. the keeper finds what is left.
 */
static void what_was_unlinked_before_any_clock_was_known(void **state)
{
	struct machine *keeper = &machines[0], *other = &machines[1];

	for (unsigned synced = 0; synced < 2; synced++) {
		boot(keeper, *state, 0);
		visit(&keeper->process, 50 * MIB, 0, false);
		publish(&keeper->process, 1 + synced, 20 * MIB);
		visit(&keeper->process, 0, 0, false);
		mute = true;
		boot(other, *state, 0);
		if (synced) {
			unlinks(&other->process, 1 + synced, 4 * MIB);
			kvk_account_sync_begin(other->process.account);
		}
		unlinks(&other->process, 1 + synced, 10 * MIB);
		mute = false;
		for (unsigned i = 0; i < 3; i++) {
			go_on(5 * SECOND);
			visit(&other->process, i * MIB, 0, synced);
			visit(&keeper->process, 0, 0, false);
			assert_int_equal(find(keeper, 1 + synced, medium_ns - 5 * (i + 1) * SECOND, synced ? 6 * MIB : 10 * MIB), -EAGAIN);
		}
		sync_and_visit(&other->process);
		assert_true(charged_in(keeper, 1 + synced) == (synced ? 6 * MIB : 10 * MIB));
		stop(&other->process);
		stop(&keeper->process);
	}
}

/* As in the comment of the rule: nothing but the rule keeps the unlink from being taken off twice. */
static void clocks_that_differ_prove_nothing(void **state)
{
	struct machine *keeper = &machines[0], *ahead = &machines[1];
	uint32_t warnings = ((struct bed *)*state)->warnings;
	int status;

	boot(keeper, *state, 0);
	boot(ahead, *state, 10 * SECOND);
	visit(&ahead->process, 50 * MIB, 0, false);
	publish(&ahead->process, 1, 20 * MIB);
	visit(&ahead->process, 50 * MIB, 0, false);
	visit(&keeper->process, 0, 0, false);
	assert_true(kvk_account_skew_ns(keeper->process.account) == 10 * SECOND);
	visit(&ahead->process, 55 * MIB, 0, false);
	assert_true(kvk_account_skew_ns(ahead->process.account) == 10 * SECOND);
	assert_int_equal(((struct bed *)*state)->warnings, warnings + 2);

	go_on(SECOND);
	unlinks(&ahead->process, 1, 10 * MIB);
	go_on(2 * SECOND);
	for (unsigned i = 0; i < 10; i++) {
		/* Somebody else's change made the folder look older than that unlink. */
		status = find(keeper, 1, medium_ns - 2 * SECOND, 10 * MIB);
		assert_int_equal(status, -EAGAIN);
		assert_true(charged_in(keeper, 1) == 20 * MIB);
		go_on(SECOND);
		visit(&ahead->process, 0, 0, false);
	}
	sync_and_visit(&ahead->process);
	assert_true(charged_in(keeper, 1) == 10 * MIB);
	/* And said once, not each time. */
	assert_int_equal(((struct bed *)*state)->warnings, warnings + 2);
	stop(&ahead->process);
	stop(&keeper->process);
}

/* A keeper on another machine does not see it, and takes the unlink for settled. So it is not credited as well. */
static void a_clock_of_ones_own_that_is_set_back_costs_credits(void **state)
{
	struct machine *keeper = &machines[0], *other = &machines[1];

	boot(keeper, *state, 0);
	boot(other, *state, 0);
	visit(&other->process, 50 * MIB, 0, false);
	publish(&other->process, 1, 10 * MIB);
	go_on(10 * SECOND);
	visit(&other->process, 60 * MIB, 0, false);
	visit(&keeper->process, 0, 0, false);
	other->ahead_ns = -8 * (int64_t)SECOND;
	unlinks(&other->process, 1, 4 * MIB);
	assert_int_equal(find(keeper, 1, clock_of(other), 6 * MIB), 0);
	sync_and_visit(&other->process);
	assert_true(charged_in(keeper, 1) == 6 * MIB);
	stop(&other->process);
	stop(&keeper->process);
}

/* As if so many transactions had been. */
static void let_transactions_pass(struct kvk_backend *backend, uint64_t count)
{
	static struct kvk_account_image image, scratch;
	static uint8_t data[2 * KVK_ACCOUNT_BYTES];
	uint64_t bytes;
	void *old;

	assert_int_equal(backend->ops->load_file(backend, "account", &old, &bytes, sizeof(data)), 0);
	assert_int_equal(kvk_account_parse_file(&image, &scratch, old, bytes), 0);
	kvk_mem_free(old);
	image.sequence += count;
	kvk_account_encode(&image, data);
	memcpy(data + KVK_ACCOUNT_BYTES, data, KVK_ACCOUNT_BYTES);
	assert_int_equal(backend->ops->save_file(backend, "account", data, sizeof(data), false), 0);
}

/*
 * A row keeps the low half of the sequence that its process has seen, and who is idle writes none: when the others have done more than
 * 2^31 transactions since, what was seen long ago would look as if it were still to come.
 */
static void who_is_idle_for_very_long(void **state)
{
	struct machine *busy = &machines[0], *idle = &machines[1];
	struct kvk_account_row rows[2];
	const struct kvk_account_image *image;
	uint64_t sequence;
	uint32_t row;

	boot(busy, *state, 0);
	boot(idle, *state, 0);
	assert_int_equal(kvk_account_rows(idle->process.account, rows, 2), 2);
	row = rows[rows[1].self].index;
	for (unsigned i = 0; i < 12; i++) {
		let_transactions_pass(busy->process.backend, UINT64_C(1) << 28);
		for (unsigned turns = 0; turns < 4; turns++) {
			go_on(2 * SECOND);
			visit(&idle->process, 0, 0, false);
		}
		image = image_of(&idle->process);
		assert_in_range((uint32_t)image->sequence - image->rows[row].seen, 0, 3u << 29);
	}
	/* And no more often than that. */
	sequence = image_of(&idle->process)->sequence;
	for (unsigned turns = 0; turns < 8; turns++) {
		go_on(2 * SECOND);
		visit(&idle->process, 0, 0, false);
	}
	assert_true(image_of(&idle->process)->sequence == sequence);
	stop(&idle->process);
	stop(&busy->process);
}

static void leave_bounds(struct bed *bed, uint64_t transactions, bool lost)
{
	struct machine *keeper = &machines[0], *ahead = &machines[1], *dead = &machines[2];
	int status = -EAGAIN;
	unsigned turns;

	boot(keeper, bed, 0);
	let_transactions_pass(keeper->process.backend, transactions);
	for (turns = 1; turns < 5; turns++) {
		go_on(2 * SECOND);
		visit(&keeper->process, turns * 4096, 0, false);
	}
	visit(&keeper->process, 0, turns * 4096, false);
	boot(ahead, bed, -20 * (int64_t)SECOND);
	boot(dead, bed, HOUR);
	visit(&dead->process, 50 * MIB, 0, false);
	publish(&dead->process, 1, 20 * MIB);
	visit(&dead->process, 30 * MIB, 0, false);
	unlinks(&dead->process, 1, 8 * MIB);
	die(&dead->process);
	visit(&ahead->process, MIB, 0, false);
	visit(&keeper->process, 0, 0, false);
	visit(&ahead->process, MIB, 0, false);
	assert_true(kvk_account_skew_ns(keeper->process.account) > 0);
	assert_true(charged_in(keeper, 1) == 20 * MIB);
	if (lost) {
		/* Whoever did not visit since may have done anything. */
		assert_int_equal(keeper->process.backend->ops->save_file(keeper->process.backend, "account", "", 0, false), 0);
		for (turns = 0; turns < 10; turns++) {
			go_on(250 * MS);
			visit(&keeper->process, 0, 0, false);
			assert_int_equal(find(keeper, 1, medium_ns - 30 * SECOND, 12 * MIB), -EAGAIN);
		}
	}
	for (turns = 0; status == -EAGAIN && turns < 40; turns++) {
		go_on(250 * MS);
		status = find(keeper, 1, medium_ns - 30 * SECOND, 12 * MIB);
		visit(&ahead->process, MIB, 0, false);
		visit(&keeper->process, 0, 0, false);
	}
	if (status != 1 || (!lost && turns < 5) || turns > 20)
		fail_msg("after %llu transactions: %d after %u turns", (unsigned long long)transactions, status, turns);
	assert_true(charged_in(keeper, 1) == 12 * MIB);
	stop(&ahead->process);
	/* Who is alone has nobody to disagree with. */
	go_on(3 * SECOND);
	visit(&keeper->process, 0, 0, false);
	assert_int_equal(find(keeper, 1, medium_ns - 2 * SECOND, 4 * MIB), 0);
	assert_true(charged_in(keeper, 1) == 4 * MIB);
	stop(&keeper->process);
}

/* What a dead process left is found all the same: by what came after what, without any clock, and however many came before. */
static void clocks_that_differ_leave_bounds(void **state)
{
	static const uint64_t transactions[] = { 0, UINT64_C(1) << 30, UINT64_C(1) << 31, UINT64_C(3) << 30, (UINT64_C(1) << 32) - 20 };

	for (unsigned i = 0; i < 2 * sizeof(transactions) / sizeof(transactions[0]); i++) {
		leave_bounds(*state, transactions[i / 2], i % 2);
		bed_end(*state);
		bed_start(*state, &kvk_backend_ram);
	}
}

/* Clocks as they are kept by NTP are no skew; and one that was set right is forgiven after a while. */
static void agreement_is_seen_as_well(void **state)
{
	struct machine *one = &machines[0], *two = &machines[1];

	boot(one, *state, 0);
	boot(two, *state, 350 * MS);
	for (unsigned i = 0; i < 100; i++) {
		visit(&one->process, (i % 2 + 1) * MIB, 0, false);
		visit(&two->process, (i % 2 + 1) * MIB, 0, false);
		go_on(10 * MS);
	}
	assert_true(kvk_account_skew_ns(one->process.account) == 0);
	two->ahead_ns = 5 * SECOND;
	visit(&two->process, 3 * MIB, 0, false);
	visit(&one->process, 3 * MIB, 0, false);
	assert_true(kvk_account_skew_ns(one->process.account) > 4 * SECOND);
	two->ahead_ns = 0;
	go_on(10 * SECOND);
	for (unsigned i = 0; i < 10100; i++) {
		struct kvk_account_visit give = { .give_bytes = 4096, .want_bytes = 3 * MIB };

		assert_int_equal(kvk_account_visit(one->process.account, &give, 0), 0);
		go_on(10 * MS);
	}
	assert_true(kvk_account_skew_ns(one->process.account) == 0);
	visit(&two->process, 0, 0, false);
	assert_true(kvk_account_skew_ns(two->process.account) == 0);
	stop(&two->process);
	stop(&one->process);
}

/* ---- everything at random -------------------------------------------------------------------------------- */

#define BUCKETS 3

/* A change that was made on the medium and is not told to the account yet. */
struct under_way {
	bool stands, published;
	uint32_t entered, bucket;
	uint64_t bytes;
};

struct world {
	struct bed *bed;
	unsigned random;
	bool forward_only;                     /* a folder's time never goes back, as on CephFS */
	uint64_t real[BUCKETS], modified[BUCKETS], lease[MACHINES];
	struct under_way under_way[MACHINES];
	struct kvk_bucket_finding kept[BUCKETS];
	unsigned set, bounded, refused, died;
};

static void tell(struct world *world, unsigned who)
{
	struct under_way *change = &world->under_way[who];
	struct kvk_account *account = machines[who].process.account;

	if (!change->stands)
		return;
	if (change->published)
		kvk_account_published(account, change->bucket, change->bytes);
	else
		kvk_account_unlinked(account, change->bucket, change->bytes);
	kvk_account_leave(account, change->entered);
	change->stands = false;
}

static void change(struct world *world, unsigned who, bool publishes, uint32_t bucket, uint64_t bytes)
{
	uint64_t now = clock_of(&machines[who]);

	if (world->under_way[who].stands || (publishes ? world->lease[who] < bytes : world->real[bucket] < bytes))
		return;
	world->under_way[who] = (struct under_way){
		.stands = true, .published = publishes, .bucket = bucket, .bytes = bytes,
		.entered = kvk_account_enter(machines[who].process.account),
	};
	world->lease[who] -= publishes ? bytes : 0;
	world->real[bucket] += publishes ? bytes : -bytes;
	if (!world->forward_only || now > world->modified[bucket])
		world->modified[bucket] = now;
}

static void keep_books(struct world *world, uint32_t bucket)
{
	struct kvk_bucket_finding *kept = &world->kept[bucket];

	if (!kept->begin_ns || kept->status != -EAGAIN) {
		kvk_account_finding(machines[0].process.account, kept, bucket);
		kept->modified_ns = world->modified[bucket];
		kept->real_bytes = world->real[bucket];
		kept->may_lower = true;
	}
	assert_int_equal(kvk_account_reconcile(machines[0].process.account, kept, 1, 0), 0);
	world->refused += kept->status < 0;
	world->bounded += kept->status > 0;
	world->set += kept->status == 0;
}

static void step(struct world *world)
{
	unsigned draw = (world->random = world->random * 1103515245 + 12345) >> 8, who = 1 + draw % 3;
	struct machine *machine = &machines[who];
	struct kvk_account_visit seen = { .want_bytes = 256 * 1024 };
	uint32_t bucket = draw >> 2 & 3;
	uint64_t bytes = ((draw >> 4 & 15) + 1) * 4096;

	/* Each visits about four times a second, and a bucket changes once in one. */
	go_on((draw >> 8 & 63) * MS);
	if (bucket >= BUCKETS)
		bucket = 0;
	switch (draw >> 14 & 31) {
	case 0: case 1:
		change(world, who, true, bucket, bytes);
		break;
	case 2:
		change(world, who, false, bucket, bytes);
		break;
	case 3: case 4: case 5: case 6:
		tell(world, who);
		break;
	case 7: case 8: case 9: case 10: case 11: case 12:
		kvk_account_sync_begin(machine->process.account);
		visit(&machine->process, 0, 0, true);
		break;
	case 13: case 14: case 15: case 16: case 17: case 18:
		assert_int_equal(kvk_account_visit(machine->process.account, &seen, 0), 0);
		world->lease[who] += seen.granted_bytes;
		break;
	case 19:
		if ((draw >> 19 & 7) != 0)
			break;
		die(&machine->process);
		world->under_way[who].stands = false;
		world->lease[who] = 0;
		world->died++;
		boot(machine, world->bed, machine->ahead_ns);
		break;
	default:
		keep_books(world, bucket);
		break;
	}
}

static void check_books(const struct world *world, unsigned round, unsigned step_number)
{
	const struct kvk_account_image *image = image_of(&machines[0].process);
	uint64_t sum = 0, books = image->loose_bytes;

	for (unsigned i = 0; i < BUCKETS; i++)
		sum += world->real[i];
	for (unsigned i = 0; i < KVK_ACCOUNT_BUCKETS; i++)
		books += image->charged_bytes[i];
	for (unsigned i = 0; i < KVK_ACCOUNT_ROWS; i++)
		books += image->rows[i].leased_bytes;
	if (sum > books || books > CAP)
		fail_msg("round %u, step %u: %llu bytes are there, charged and leased are %llu", round, step_number,
			 (unsigned long long)sum, (unsigned long long)books);
}

/*
 * Machines whose clocks differ by nothing, by less than what is seen, by as much as the margin covers, and by more, on media that
 * stamp folders with the time of whoever changed them last, or never set them back. Three change, and die; a fourth keeps the
 * books. At every step what is there is at most what is charged, loose or leased.
 */
static void at_random_the_books_are_never_too_low(void **state)
{
	static const int64_t ahead_ms[][MACHINES] = {
		{ 0, 0, 0, 0 }, { 0, 300, -300, 0 }, { 0, 900, 0, -100 }, { 0, 10000, -5000, 0 }, { 3600000, 0, -10000, 1500 },
		{ -2000, 0, 0, 0 },
	};

	for (unsigned round = 0; round < 2 * sizeof(ahead_ms) / sizeof(ahead_ms[0]); round++) {
		struct world world = { .bed = *state, .random = 77 + round, .forward_only = round & 1 };
		const int64_t *ahead = ahead_ms[round / 2];

		for (unsigned i = 0; i < MACHINES; i++)
			boot(&machines[i], *state, ahead[i] * (int64_t)MS);
		for (unsigned i = 0; i < BUCKETS; i++)
			world.modified[i] = medium_ns - 2 * HOUR;
		for (unsigned i = 0; i < 4000; i++) {
			step(&world);
			check_books(&world, round, i);
		}
		/* It was worth something: the books were kept, and where clocks agree exactly. */
		assert_true(world.bounded > 20 && world.refused > 100 && world.died > 3);
		if (round < 2)
			assert_true(world.set > 20);
		for (unsigned i = 0; i < MACHINES; i++) {
			tell(&world, i);
			stop(&machines[i].process);
		}
		bed_end(*state);
		bed_start(*state, &kvk_backend_ram);
	}
}

#define ONE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ONE(the_mediums_clock_counts),
		ONE(a_clock_that_cannot_be_asked_proves_nothing),
		ONE(what_was_unlinked_before_any_clock_was_known),
		ONE(clocks_that_differ_prove_nothing),
		ONE(a_clock_of_ones_own_that_is_set_back_costs_credits),
		ONE(clocks_that_differ_leave_bounds),
		ONE(who_is_idle_for_very_long),
		ONE(agreement_is_seen_as_well),
		ONE(at_random_the_books_are_never_too_low),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
