/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Machines that share a file system: the cap holds, and what is found is right.
 *
 * Method: NFS 4.2 with two mounts that share no cache, and GlusterFS with two clients. tests/system/nfs.sh and glusterfs.sh make a
 * small world for each, and run this program in it again. Six processes, half of them on each mount, want to keep more than
 * the cap allows, and are killed at random and replaced. Now and then all of them are stopped, and what lies on the
 * server itself is counted: it is never more than the cap, nor than what the account says. At the end everything is
 * loaded through either mount, and at rest what is counted is what is there.
 */
#include <signal.h>
#include <sys/mman.h>

#include "unit/store_kit.h"

#include "system/child.h"
#include "system/load.h"
#include "system/truth.h"

#define SECONDS 20
#define CHILDREN 6
#define KEYS 300
#define BYTES_MAX 60000u
#define CAP_SHARE 0.6
/* What the dead had leased comes back after a look at every folder, which takes its time where the machine is slow. */
#define PUTS_A_KILL 60
#define DEADLINE_US 20000000
/* So long a slow machine may take to come to what makes it worth anything. */
#define SLOW_US 60000000
#define REST_US 30000000

struct shared {
	struct load_ledger ledger;
	atomic_uint failed_opens, failed_closes;
	atomic_bool stop;
};

struct run {
	struct bed beds[2];            /* one through each mount */
	char truth[64];                /* the same directory as it lies on the server */
	char more[320];
	struct shared *shared;
	struct load load;
	uint64_t random, cap_bytes, kills, next_kill, counts, most_bytes, most_counted_bytes;
	pid_t children[CHILDREN];
};

/* ---- inside ------------------------------------------------------------------------------------------- */

static void child_main(void *user, uint32_t index, uint64_t random)
{
	struct run *run = user;
	struct bed *bed = &run->beds[index % 2];
	struct load load = run->load;
	struct load_worker worker = { .load = &load, .index = index, .random = random };
	struct kvk_error error = { .struct_bytes = sizeof(error) };

	if (bed_try_open(bed, run->more, &error)) {
		fprintf(stderr, "child %u cannot open: %s: %s\n", index, error.option, error.text);
		run->shared->failed_opens++;
		_exit(1);
	}
	load.store = bed->store;
	load.ledger->workers++;
	while (!run->shared->stop)
		load_step(&worker);
	if (bed_close(bed))
		run->shared->failed_closes++;
}

static void start_child(struct run *run, uint32_t index)
{
	run->children[index] = child_start(child_main, run, index, kit_random(&run->random));
}

static void kill_one(struct run *run)
{
	uint32_t index = (uint32_t)kit_below(&run->random, CHILDREN);

	child_kill(&run->children[index]);
	run->kills++;
	start_child(run, index);
}

/* While nothing moves. */
static void count_all(struct run *run)
{
	uint64_t counted = 0, cap = 0;
	struct truth truth;
	int err;

	for (unsigned i = 0; i < CHILDREN; i++)
		kill(run->children[i], SIGSTOP);
	/* What a server was asked for is done in a moment. */
	usleep(50000);
	truth = truth_of(run->truth);
	err = truth_account(run->truth, &counted, &cap);
	for (unsigned i = 0; i < CHILDREN; i++)
		kill(run->children[i], SIGCONT);
	assert_int_equal(err, 0);
	run->counts++;
	if (truth.bytes > run->most_bytes)
		run->most_bytes = truth.bytes;
	if (counted > run->most_counted_bytes)
		run->most_counted_bytes = counted;
	if (truth.bytes > counted || counted > run->cap_bytes)
		fail_msg("%" PRIu64 " bytes are there in %" PRIu64 " objects and %" PRIu64 " others, the account says %" PRIu64
			 ", the cap is %" PRIu64, truth.bytes, truth.objects, truth.others, counted, run->cap_bytes);
}

static void let_children_end(struct run *run)
{
	uint64_t until_us = kit_now_us() + 30000000;

	run->shared->stop = true;
	for (unsigned i = 0; i < CHILDREN; i++)
		child_wait(&run->children[i], until_us);
}

static void check_at_rest(struct run *run, struct bed *bed)
{
	struct load_found found = { 0 };
	const char *what;

	bed_open(bed, run->more);
	what = truth_disagrees(bed->store, run->truth, REST_US);
	if (what)
		fail_msg("at rest, through %s: %s", bed->path, what);
	run->load.store = bed->store;
	load_verify(&run->load, NULL, false, &found);
	if (found.wrong)
		fprintf(stderr, "# through %s: %" PRIu64 " hits, %" PRIu64 " wrong; %" PRIu64 " objects are there\n", bed->path,
			found.hits, found.wrong, truth_of(run->truth).objects);
	assert_int_equal(run->shared->ledger.wrong + found.wrong + atomic_load(&bed_wrong_answers), 0);
	assert_int_equal(found.lost + found.failed + found.rejected, 0);
	assert_true(found.hits > 0);
	assert_int_equal(bed_close(bed), 0);
}

static void tell(const struct run *run, uint64_t seconds)
{
	const struct load_ledger *ledger = &run->shared->ledger;

	printf("# %s, %" PRIu64 " s: %" PRIu64 " kills; %" PRIuFAST64 " puts (%" PRIuFAST64 " stored, %" PRIuFAST64 " no room, %"
	       PRIuFAST64 " late), %" PRIuFAST64 " gets, %" PRIuFAST64 " hits, %" PRIuFAST64 " damaged; slowest call %.1f s\n",
	       bed_kind_name(run->beds[0].kind), seconds, run->kills, ledger->puts, ledger->put_reasons[KVK_REASON_NONE],
	       ledger->put_reasons[KVK_REASON_NO_ROOM], ledger->put_reasons[KVK_REASON_DEADLINE], ledger->gets, ledger->hits,
	       ledger->get_reasons[KVK_REASON_DAMAGED], (double)ledger->slowest_us / 1e6);
	printf("# cap %" PRIu64 " bytes; at most %" PRIu64 " there and %" PRIu64 " counted, in %" PRIu64 " counts\n", run->cap_bytes,
	       run->most_bytes, run->most_counted_bytes, run->counts);
	proof_tell_more(14, seconds, "seconds", ledger->wrong + atomic_load(&bed_wrong_answers), "kills=%" PRIu64
			" counts=%" PRIu64, run->kills, run->counts);
}

/* KVK_SHARED_DIRS is MOUNT:MOUNT:DIRECTORY OF THE SERVER. */
static void take_dirs(struct run *run)
{
	char a[40], b[40], truth[40];

	assert_int_equal(sscanf(getenv("KVK_SHARED_DIRS"), "%39[^:]:%39[^:]:%39s", a, b, truth), 3);
	snprintf(run->beds[0].path, sizeof(run->beds[0].path), "%s/store", a);
	snprintf(run->beds[1].path, sizeof(run->beds[1].path), "%s/store", b);
	snprintf(run->truth, sizeof(run->truth), "%s/store", truth);
	run->random = kit_seed();
	run->beds[0].kind = run->beds[1].kind = (enum bed_kind)(BED_URING + kit_below(&run->random, 4));
}

static void end_run(struct run *run)
{
	for (unsigned i = 0; i < CHILDREN; i++)
		child_end(&run->children[i]);
	kvk_store_close(run->beds[0].store);
	kvk_store_close(run->beds[1].store);
}

static int setup(void **state)
{
	struct run *run = *state = calloc(1, sizeof(*run));

	if (!run)
		return -1;
	run->shared = mmap(NULL, sizeof(*run->shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return run->shared == MAP_FAILED ? -1 : 0;
}

static int teardown(void **state)
{
	struct run *run = *state;

	end_run(run);
	munmap(run->shared, sizeof(*run->shared));
	free(run);
	return 0;
}

/* It is worth nothing unless the cap was reached, and the store went on working. */
static bool is_worth_it(const struct run *run)
{
	const struct load_ledger *ledger = &run->shared->ledger;

	return run->most_bytes > run->cap_bytes / 2 && ledger->put_reasons[KVK_REASON_NONE] > KEYS / 2 && ledger->hits > 0 &&
	       run->kills > 0;
}

static void two_mounts(void **state)
{
	struct run *run = *state;
	uint64_t seconds = kit_number("KVK_SHARED_SECONDS", SECONDS), began_us, ran_us = 0, want_bytes = 0;
	struct load_ledger *ledger = &run->shared->ledger;

	take_dirs(run);
	run->load = (struct load){ .ledger = ledger, .keys = KEYS, .workers = CHILDREN, .bytes_max = BYTES_MAX,
				   .promises = LOAD_ORDERS_PUTS | LOAD_ORDERS_REMOVES, .put_share = 8, .get_share = 7,
				   .deadline_us = DEADLINE_US };
	for (uint32_t i = 0; i < KEYS; i++)
		want_bytes += ((load_bytes(&run->load, i, 1) + 4095) & ~UINT64_C(4095)) + 4096;
	snprintf(run->more, sizeof(run->more), "params:\"max_capacity_gb\": %.12f; \"shared\": true, \"lanes\": 1, \"eviction\": "
		 "{\"eviction_policy\": \"LRU\", \"trigger_watermark\": 0.9, \"eviction_ratio\": 0.1}",
		 CAP_SHARE * (double)want_bytes / (double)(UINT64_C(1) << 30));
	bed_open(&run->beds[0], run->more);
	run->cap_bytes = bed_usage(run->beds[0].store).cap_bytes;
	assert_int_equal(bed_close(&run->beds[0]), 0);

	for (uint32_t i = 0; i < CHILDREN; i++)
		start_child(run, i);
	began_us = kit_now_us();
	while ((ran_us < seconds * 1000000 || (!is_worth_it(run) && ran_us < SLOW_US)) && !run->shared->failed_opens) {
		usleep((useconds_t)kit_below(&run->random, 800000));
		count_all(run);
		ran_us = kit_now_us() - began_us;
		if (ledger->put_reasons[KVK_REASON_NONE] < run->next_kill)
			continue;
		kill_one(run);
		run->next_kill = ledger->put_reasons[KVK_REASON_NONE] + PUTS_A_KILL;
	}
	assert_int_equal(run->shared->failed_opens, 0);
	let_children_end(run);
	tell(run, seconds);
	assert_int_equal(run->shared->failed_closes, 0);
	assert_true(is_worth_it(run));
	check_at_rest(run, &run->beds[0]);
	check_at_rest(run, &run->beds[1]);
}

/* Where a client does not see what others do, the store is refused, and whoever opens it is told what to change. */
static void refused(void **state)
{
	struct run *run = *state;
	struct kvk_error error = { .struct_bytes = sizeof(error) };

	take_dirs(run);
	assert_int_equal(bed_try_open(&run->beds[0], "params:\"max_capacity_gb\": 1; \"shared\": true", &error), -EOPNOTSUPP);
	assert_string_equal(error.option, "shared");
	if (!strstr(error.text, getenv("KVK_SHARED_REFUSED")))
		fail_msg("\"%s\" is not in: %s", getenv("KVK_SHARED_REFUSED"), error.text);
}

/* ---- outside ------------------------------------------------------------------------------------------- */

/* Runs this program in the world that the script makes. */
static void in_world(const char *script)
{
	char self[256] = "", command[600], line[512];
	int status = -1;
	FILE *output;

	if (KIT_SANITIZED)
		SKIP("a build with sanitizers has no room for its shadows in a kernel in user mode, and no time beside a server");
	assert_true(readlink("/proc/self/exe", self, sizeof(self) - 1) > 0);
	snprintf(command, sizeof(command), "sh '%s/%s' '%s'", KVK_SYSTEM_TESTS, script, self);
	output = popen(command, "re");
	assert_non_null(output);
	while (fgets(line, sizeof(line), output)) {
		line[strcspn(line, "\r\n")] = 0;
		if (!strncmp(line, "SKIP: ", 6)) {
			pclose(output);
			SKIP("%s", line + 6);
		}
		sscanf(line, "shared: status %d", &status);
		if (!strncmp(line, "# proof: ", 9))
			printf("%s\n", line);
		if (line[0])
			fprintf(stderr, "# %s: %s\n", script, line);
	}
	pclose(output);
	assert_int_equal(status, 0);
}

static void test_nfs(void **state)
{
	in_world("nfs.sh");
}

static void test_glusterfs(void **state)
{
	in_world("glusterfs.sh");
}

int main(void)
{
	const struct CMUnitTest refusals[] = {
		cmocka_unit_test_setup_teardown(refused, setup, teardown),
	};
	const struct CMUnitTest inside[] = {
		cmocka_unit_test_setup_teardown(two_mounts, setup, teardown),
	};
	const struct CMUnitTest outside[] = {
		cmocka_unit_test(test_nfs),
		cmocka_unit_test(test_glusterfs),
	};

	if (getenv("KVK_SHARED_REFUSED"))
		return cmocka_run_group_tests(refusals, NULL, NULL);
	if (getenv("KVK_SHARED_DIRS"))
		return cmocka_run_group_tests(inside, NULL, NULL);
	cmocka_set_test_filter(getenv("KVK_ONLY"));
	return cmocka_run_group_tests(outside, NULL, NULL);
}
