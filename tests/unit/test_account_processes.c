/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes that share a folder: they lease, publish real files, unlink, sync and keep the books, and are killed or stopped at any
 * moment. At each look no file is there, and none may come, that is not charged, loose or leased, and they never are more than the
 * cap; at rest the books are exact to the byte. KVK_ACCOUNT_SECONDS makes it run longer, KVK_SEED again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "account_bed.h"
#include "support/proof.h"
#include "util/clock.h"

#define PROCESSES 8
#define FOLDERS 16
#define SMALL_CAP (8 * MIB)
#define LEASE (SMALL_CAP / 32)

/* What each may still publish, in memory that all see; then who looks on, and how many passes were made. */
static _Atomic uint64_t *leases;

/* ---- one process --------------------------------------------------------------------------------------- */

struct actor {
	struct kvk_backend *backend;
	struct kvk_account *account;
	_Atomic uint64_t *lease_bytes; /* what it may still publish: seen by who looks on */
	uint64_t random;
	uint64_t files;
	bool passing;
	struct kvk_bucket_finding findings[FOLDERS];
	int folders[FOLDERS];
};

static _Noreturn void give_up(const char *what, int err)
{
	fprintf(stderr, "a process failed: %s: %d\n", what, err);
	_exit(3);
}

static uint32_t draw(struct actor *actor, uint32_t below)
{
	actor->random ^= actor->random >> 12;
	actor->random ^= actor->random << 25;
	actor->random ^= actor->random >> 27;
	return (uint32_t)((actor->random * UINT64_C(0x2545f4914f6cdd1d)) >> 32) % below;
}

/* The gaps in which a process is likely to be killed. */
static void dawdle(struct actor *actor)
{
	if (draw(actor, 3) == 0)
		usleep(draw(actor, 4000));
}

static void act_publish(struct actor *actor)
{
	uint64_t bytes = (1 + draw(actor, 16)) * UINT64_C(4096);
	uint32_t entered, bucket = draw(actor, FOLDERS);
	char name[64], from[64];
	int fd;

	if (*actor->lease_bytes < bytes)
		return;
	*actor->lease_bytes -= bytes;
	entered = kvk_account_enter(actor->account);
	fd = openat(actor->folders[bucket], ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)bytes))
		give_up("a file", errno);
	dawdle(actor);
	snprintf(name, sizeof(name), "%d-%llu", getpid(), (unsigned long long)actor->files++);
	snprintf(from, sizeof(from), "/proc/self/fd/%d", fd);
	if (linkat(AT_FDCWD, from, actor->folders[bucket], name, AT_SYMLINK_FOLLOW))
		give_up("linkat", errno);
	close(fd);
	dawdle(actor);
	kvk_account_published(actor->account, bucket, bytes);
	kvk_account_leave(actor->account, entered);
}

/* Some file of the folder, whoever's. Who gets it has removed it. */
static void act_unlink(struct actor *actor)
{
	uint32_t entered, bucket = draw(actor, FOLDERS), nth = draw(actor, 4);
	int fd = openat(actor->folders[bucket], ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *folder = fdopendir(fd);
	struct dirent *entry;
	struct stat stat;

	while (folder && (entry = readdir(folder))) {
		if (entry->d_name[0] == '.' || nth-- > 0)
			continue;
		entered = kvk_account_enter(actor->account);
		if (!fstatat(fd, entry->d_name, &stat, 0) && !unlinkat(fd, entry->d_name, 0)) {
			dawdle(actor);
			kvk_account_unlinked(actor->account, bucket, (uint64_t)stat.st_size);
		}
		kvk_account_leave(actor->account, entered);
		break;
	}
	closedir(folder);
}

static void act_visit(struct actor *actor, bool sync)
{
	struct kvk_account_visit visit = { .want_bytes = LEASE };
	int err;

	if (sync) {
		kvk_account_sync_begin(actor->account);
		if (syncfs(actor->folders[0]))
			give_up("syncfs", errno);
		visit.synced = true;
	}
	if (draw(actor, 8) == 0) {
		visit.give_bytes = *actor->lease_bytes / 2;
		visit.want_bytes = 0;
		*actor->lease_bytes -= visit.give_bytes;
	}
	err = kvk_account_visit(actor->account, &visit, 20);
	if (err && err != -EBUSY)
		give_up("a visit", err);
	*actor->lease_bytes += visit.granted_bytes;
	if (visit.granted_bytes && visit.charged_bytes + visit.leased_bytes > SMALL_CAP)
		give_up("more than the cap", 0);
}

static uint64_t folder_bytes(int folder_fd)
{
	int fd = openat(folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *folder = fdopendir(fd);
	struct dirent *entry;
	uint64_t bytes = 0;

	while ((entry = readdir(folder))) {
		struct stat stat;

		if (entry->d_name[0] != '.' && !fstatat(fd, entry->d_name, &stat, 0))
			bytes += (uint64_t)stat.st_size;
	}
	closedir(folder);
	return bytes;
}

static void find(struct actor *actor, struct kvk_bucket_finding *finding, uint32_t bucket)
{
	uint64_t after_ns = 0;
	char name[8];
	int err;

	snprintf(name, sizeof(name), "%02x", bucket);
	kvk_account_finding(actor->account, finding, bucket);
	finding->status = -EAGAIN;
	do {
		err = actor->backend->ops->folder_time(actor->backend, name, &finding->modified_ns);
		finding->real_bytes = folder_bytes(actor->folders[bucket]);
		err = err ? err : actor->backend->ops->folder_time(actor->backend, name, &after_ns);
		if (err)
			give_up("a folder's time", err);
	} while (after_ns != finding->modified_ns);
}

/*
 * One turn of a pass: lists what is to be listed, and hands in what is not in the account yet. True: all is, and the pass is
 * over.
 */
static bool act_keeper(struct actor *actor)
{
	struct kvk_bucket_finding handed[FOLDERS];
	uint32_t count = 0;
	int err;

	if (!actor->passing) {
		kvk_account_pass_begin(actor->account);
		for (uint32_t i = 0; i < FOLDERS; i++)
			actor->findings[i] = (struct kvk_bucket_finding){ .status = -ESTALE };
		actor->passing = true;
	}
	for (uint32_t i = 0; i < FOLDERS; i++) {
		if (actor->findings[i].status == -ESTALE || actor->findings[i].status == 1 ||
		    (actor->findings[i].status && draw(actor, 4) == 0))
			find(actor, &actor->findings[i], i);
	}
	if (syncfs(actor->folders[0]))
		give_up("syncfs", errno);
	for (uint32_t i = 0; i < FOLDERS; i++) {
		actor->findings[i].may_lower = true;
		if (actor->findings[i].status < 0)
			handed[count++] = actor->findings[i];
	}
	err = kvk_account_reconcile(actor->account, handed, count, 20);
	if (err && err != -EBUSY)
		give_up("reconcile", err);
	for (uint32_t i = 0, left = count; i < left; i++) {
		actor->findings[handed[i].bucket] = handed[i];
		count -= handed[i].status >= 0;
	}
	if (count > 0 || kvk_account_pass_end(actor->account))
		return false;
	actor->passing = false;
	leases[PROCESSES + 1]++;
	return true;
}

static void open_actor(struct actor *actor, struct bed *bed, uint32_t index, uint64_t seed)
{
	struct kvk_error error = { .struct_bytes = sizeof(error) };
	char path[96];
	int err;

	*actor = (struct actor){ .backend = bed_backend(bed), .random = seed * 2654435761u + 88172645463325252u,
				 .lease_bytes = &leases[index] };
	for (unsigned i = 0; i < FOLDERS; i++) {
		snprintf(path, sizeof(path), "%s/%02x", bed->path, i);
		if ((mkdir(path, 0700) && errno != EEXIST) ||
		    (actor->folders[i] = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
			give_up(path, errno);
	}
	err = kvk_account_open(&actor->account, actor->backend, SMALL_CAP, true, NULL, &error);
	if (err)
		give_up(error.text, err);
}

static void close_actor(struct actor *actor)
{
	kvk_account_close(actor->account, 1000);
	actor->backend->ops->close(actor->backend);
	for (unsigned i = 0; i < FOLDERS; i++)
		close(actor->folders[i]);
}

static volatile sig_atomic_t must_end;

static void on_term(int signal)
{
	must_end = 1;
}

/* before: the signals that were blocked until it was forked. It may be told to end before it can listen. */
static _Noreturn void live(struct bed *bed, uint32_t index, uint64_t seed, const sigset_t *before)
{
	struct actor actor;
	bool keeper = false;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGTERM, on_term);
	sigprocmask(SIG_SETMASK, before, NULL);
	open_actor(&actor, bed, index, seed);
	while (!must_end) {
		switch (draw(&actor, 16)) {
		case 0: case 1: case 2: case 3: case 4: case 5:
			act_publish(&actor);
			break;
		case 6: case 7: case 8: case 9:
			act_unlink(&actor);
			break;
		case 10:
			act_visit(&actor, true);
			break;
		case 11:
			keeper = keeper || (draw(&actor, 8) == 0 &&
					    !actor.backend->ops->lock(actor.backend, KVK_LOCK_KEEPER, 0));
			if (keeper)
				act_keeper(&actor);
			break;
		default:
			act_visit(&actor, false);
			break;
		}
		dawdle(&actor);
	}
	close_actor(&actor);
	_exit(0);
}

/* ---- who looks on -------------------------------------------------------------------------------------- */

static pid_t spawn(struct bed *bed, uint32_t index, uint64_t seed)
{
	sigset_t term, before;
	pid_t child;

	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_BLOCK, &term, &before);
	child = fork();
	if (child == 0)
		live(bed, index, seed, &before);
	sigprocmask(SIG_SETMASK, &before, NULL);
	assert_true(child >= 0);
	return child;
}

static int setup(void **state)
{
	static struct bed bed;

	bed_start(&bed, &kvk_backend_posix);
	leases = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(leases != MAP_FAILED);
	*state = &bed;
	return 0;
}

static int teardown(void **state)
{
	bed_end(*state);
	munmap(leases, 4096);
	return 0;
}

/*
 * With the account's lock held nothing is posted, credited or leased: what is there then must be in the books, and what may
 * still be published too. Who publishes takes it off its lease first, so in this order nothing is counted twice.
 */
static void look(struct actor *eyes, uint64_t *books_max)
{
	struct process process = { .backend = eyes->backend };
	uint64_t real = 0, books;

	if (eyes->backend->ops->lock(eyes->backend, KVK_LOCK_ACCOUNT, 2000))
		return;        /* a process that is stopped has it */
	books = charged_of(&process) + leased_of(&process);
	for (unsigned i = 0; i < FOLDERS; i++)
		real += folder_bytes(eyes->folders[i]);
	for (unsigned i = 0; i <= PROCESSES; i++)
		real += leases[i];
	eyes->backend->ops->unlock(eyes->backend, KVK_LOCK_ACCOUNT);
	if (real > books || real > SMALL_CAP)
		fail_msg("%llu bytes are there or may come, charged and leased are %llu, the cap is %llu", (unsigned long long)real,
			 (unsigned long long)books, (unsigned long long)SMALL_CAP);
	if (books > *books_max)
		*books_max = books;
}

/* Until everything is settled and found. What was found while others were at work may be too much. */
static void rest(struct actor *eyes)
{
	eyes->passing = false;
	for (unsigned i = 0; i < 200; i++) {
		pause_ms(30);
		act_visit(eyes, true);
		if (act_keeper(eyes))
			return;
	}
	fail_msg("the buckets do not come to rest");
}

static void check_exact(struct actor *eyes)
{
	struct process process = { .backend = eyes->backend };
	const struct kvk_account_image *image = image_of(&process);

	for (unsigned i = 0; i < FOLDERS; i++) {
		uint64_t real = folder_bytes(eyes->folders[i]);

		if (image->charged_bytes[i] != real)
			fail_msg("folder %02x: charged are %llu bytes, there are %llu", i,
				 (unsigned long long)image->charged_bytes[i], (unsigned long long)real);
	}
	assert_true(image->loose_bytes == 0);
}

static void reap(pid_t child, int expected)
{
	int status = 0;

	assert_int_equal(waitpid(child, &status, 0), child);
	if (expected == SIGKILL ? !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL :
				  !WIFEXITED(status) || WEXITSTATUS(status))
		fail_msg("a process ended with %x", (unsigned)status);
}

static void killed_and_stopped_at_any_moment(void **state)
{
	const char *seconds = getenv("KVK_ACCOUNT_SECONDS"), *chosen = getenv("KVK_SEED");
	uint64_t seed = chosen ? strtoull(chosen, NULL, 0) : (uint64_t)time(NULL), begin_us = kvk_now_us(), books_max = 0;
	uint64_t end_us = begin_us + (seconds ? (uint64_t)atoi(seconds) : 5) * 1000000u;
	pid_t children[PROCESSES];
	unsigned kills = 0, looks = 0;
	struct actor eyes;

	print_message("# KVK_SEED=%llu\n", (unsigned long long)seed);
	open_actor(&eyes, *state, PROCESSES, seed);
	for (unsigned i = 0; i < PROCESSES; i++)
		children[i] = spawn(*state, i, seed + i);
	/* For a while, and on a busy machine until enough has happened. */
	while (kvk_now_us() < end_us ||
	       ((kills <= 10 || books_max <= SMALL_CAP / 2) && kvk_now_us() < end_us + UINT64_C(60000000))) {
		uint32_t i = draw(&eyes, PROCESSES);

		pause_ms(draw(&eyes, 40));
		if (draw(&eyes, 4)) {
			kill(children[i], SIGKILL);
			reap(children[i], SIGKILL);
			leases[i] = 0;
			kills++;
			look(&eyes, &books_max);
			children[i] = spawn(*state, i, seed + 1000 + kills);
		} else {
			kill(children[i], SIGSTOP);
			look(&eyes, &books_max);
			pause_ms(draw(&eyes, 20));
			kill(children[i], SIGCONT);
		}
		look(&eyes, &books_max);
		looks++;
		if (!eyes.backend->ops->lock(eyes.backend, KVK_LOCK_KEEPER, 0))
			act_keeper(&eyes);
		act_visit(&eyes, false);
	}
	for (unsigned i = 0; i < PROCESSES; i++)
		kill(children[i], SIGTERM);
	for (unsigned i = 0; i < PROCESSES; i++)
		reap(children[i], 0);
	rest(&eyes);
	check_exact(&eyes);
	print_message("%u looks, %u killed, %llu passes, at most %llu of %llu bytes\n", looks, kills,
		      (unsigned long long)leases[PROCESSES + 1], (unsigned long long)books_max,
		      (unsigned long long)SMALL_CAP);
	assert_true(kills > 10 && books_max > SMALL_CAP / 2);
	proof_tell_more(14, (kvk_now_us() - begin_us) / 1000000, "seconds", 0, "kills=%u looks=%u", kills, looks);
	close_actor(&eyes);
}

/* All die at once, as when the power is cut, and another comes. */
static void all_are_killed_at_once(void **state)
{
	struct actor eyes;
	uint64_t books_max = 0;

	for (unsigned round = 0; round < 20; round++) {
		pid_t children[PROCESSES];

		for (unsigned i = 0; i < PROCESSES; i++)
			children[i] = spawn(*state, i, round * 100 + i);
		pause_ms(60);
		for (unsigned i = 0; i < PROCESSES; i++)
			kill(children[i], SIGKILL);
		for (unsigned i = 0; i < PROCESSES; i++)
			reap(children[i], SIGKILL);
		memset(leases, 0, 4096);
		open_actor(&eyes, *state, PROCESSES, round);
		assert_int_equal(kvk_account_rows(eyes.account, NULL, 0), 1);
		look(&eyes, &books_max);
		rest(&eyes);
		check_exact(&eyes);
		close_actor(&eyes);
	}
}

/* A child shares the open file of the locks until it closes it: the death of the parent shows all the same. */
static void a_child_does_not_keep_a_dead_parent_alive(void **state)
{
	struct bed *bed = *state;
	struct process one;
	int up[2];
	pid_t parent, child = 0;

	start(&one, bed);
	assert_int_equal(pipe(up), 0);
	parent = fork();
	if (parent == 0) {
		struct process two;

		start(&two, bed);
		visit(&two, 10 * MIB, 0, false);
		child = fork();
		if (child == 0) {
			kvk_account_abandon(two.account);
			child = getpid();
			if (write(up[1], &child, sizeof(child)) != sizeof(child))
				_exit(1);
			pause();
		}
		pause();
	}
	assert_int_equal(read(up[0], &child, sizeof(child)), sizeof(child));
	visit(&one, 0, 0, false);
	assert_true(leased_of(&one) == 10 * MIB);
	kill(parent, SIGKILL);
	reap(parent, SIGKILL);
	visit(&one, 0, 0, false);
	kill(child, SIGKILL);
	assert_true(leased_of(&one) == 0 && image_of(&one)->loose_bytes == 10 * MIB);
	close(up[0]);
	close(up[1]);
	stop(&one);
}

#define ONE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ONE(killed_and_stopped_at_any_moment),
		ONE(all_are_killed_at_once),
		ONE(a_child_does_not_keep_a_dead_parent_alive),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
