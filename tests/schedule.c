/* SPDX-License-Identifier: Apache-2.0 */
#include "schedule.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#if defined(__SANITIZE_ADDRESS__)
#define SCHED_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SCHED_ASAN 1
#endif
#endif
#ifdef SCHED_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

#define THREADS_MAX 96
#define STACK_BYTES (UINT64_C(512) << 10)
/* A schedule of a few requests has some hundred. */
#define POINTS_MAX 2000000
#define BEGIN_NS UINT64_C(1000000000000)

enum state { NONE, READY, WAITS, ENDED };

struct thread {
	ucontext_t context;
	void *stack;                   /* kept for the threads that follow */
	void *fake_stack;              /* ASan's */
	enum state state;
	const void *on;
	uint64_t until_ns;
	bool timed_out;
	bool killed;
	uint32_t process;
	uint32_t priority;
	uint32_t quiet;
	void *(*run)(void *);
	void *argument, *result;
	char name[16];
};

static struct {
	struct thread threads[THREADS_MAX];
	uint32_t count;                /* of slots that were ever used in this schedule */
	struct thread *now;            /* NULL: no schedule is running */
	struct sched_options options;
	struct sched_outcome outcome;
	uint64_t random, now_ns;
	int64_t wall_ns;
	uint64_t kill_point;           /* 0: nobody is to be killed */
	uint32_t victim;
	void (*killed)(void *);
	void *killer;
	uint32_t lowest;
	ucontext_t outside;
	const void *outside_stack;
	size_t outside_bytes;
	void *outside_fake;
	void (*body)(void *);
	void *argument;
	bool calm;
	bool shows;                    /* KVK_TRACE: every point is told on stderr */
} world;

static uint64_t mix(uint64_t x)
{
	x += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

uint64_t sched_below(uint64_t limit)
{
	return mix(world.random++) % limit;
}

static void trace(uint64_t what)
{
	world.outcome.trace = mix(world.outcome.trace ^ what);
}

/* ---- switching -------------------------------------------------------------------------------------- */

/* from NULL: it is the thread of the system; to NULL likewise. dies: from is never come back to. */
static void jump(struct thread *from, struct thread *to, bool dies)
{
	int err = errno;

	world.now = to;
#ifdef SCHED_ASAN
	__sanitizer_start_switch_fiber(dies ? NULL : from ? &from->fake_stack : &world.outside_fake,
				       to ? to->stack : world.outside_stack, to ? STACK_BYTES : world.outside_bytes);
#else
	(void)dies;
#endif
	swapcontext(from ? &from->context : &world.outside, to ? &to->context : &world.outside);
#ifdef SCHED_ASAN
	__sanitizer_finish_switch_fiber(from ? from->fake_stack : world.outside_fake, NULL, NULL);
#endif
	errno = err;
}

void sched_give_up(void)
{
	world.outcome.stuck = true;
	jump(world.now, NULL, true);
	abort();
}

static bool can_run(const struct thread *thread)
{
	return thread->state == READY && !thread->killed;
}

/* Lets those go on whose time has come. False: there is nobody who waits for a time. */
static bool pass_time(void)
{
	uint64_t next_ns = SCHED_NEVER;

	for (uint32_t i = 0; i < world.count; i++) {
		if (world.threads[i].state == WAITS && !world.threads[i].killed && world.threads[i].until_ns < next_ns)
			next_ns = world.threads[i].until_ns;
	}
	if (next_ns == SCHED_NEVER)
		return false;
	if (world.now_ns < next_ns)
		world.now_ns = next_ns;
	for (uint32_t i = 0; i < world.count; i++) {
		struct thread *thread = &world.threads[i];

		if (thread->state == WAITS && thread->until_ns <= world.now_ns) {
			thread->state = READY;
			thread->timed_out = true;
		}
	}
	return true;
}

static struct thread *best(void)
{
	struct thread *best = NULL;

	for (uint32_t i = 0; i < world.count; i++) {
		struct thread *thread = &world.threads[i];

		if (can_run(thread) && (!best || thread->priority > best->priority))
			best = thread;
	}
	return best;
}

static struct thread *any(void)
{
	uint64_t ready = 0, chosen;

	for (uint32_t i = 0; i < world.count; i++)
		ready += can_run(&world.threads[i]);
	if (ready == 0)
		return NULL;
	chosen = ready > 1 ? sched_below(ready) : 0;
	for (uint32_t i = 0;; i++) {
		if (can_run(&world.threads[i]) && chosen-- == 0)
			return &world.threads[i];
	}
}

static void tell_stuck(const char *why)
{
	fprintf(stderr, "stuck: %s, after %llu points, %llu us\n", why, (unsigned long long)world.outcome.points,
		(unsigned long long)sched_now_us());
	for (uint32_t i = 0; i < world.count; i++) {
		static const char *const states[] = { "none", "ready", "waits", "ended" };
		const struct thread *thread = &world.threads[i];

		if (thread->state != NONE && thread->state != ENDED)
			fprintf(stderr, "    %u %s: %s\n", i, thread->name, states[thread->state]);
	}
}

/* The one that runs cannot, or need not, go on: whoever is drawn does. Returns when it is its turn again. */
static void pass_on(bool dies)
{
	struct thread *self = world.now, *next;

	while (!(next = world.options.stay ? any() : best())) {
		if (!pass_time()) {
			tell_stuck("all wait");
			sched_give_up();
		}
	}
	if (next == self)
		return;
	world.outcome.switches++;
	trace((uint64_t)(next - world.threads));
	jump(self, next, dies);
}

static void kill_now(void)
{
	world.kill_point = 0;
	for (uint32_t i = 0; i < world.count; i++) {
		struct thread *thread = &world.threads[i];

		if (thread->state == NONE || thread->process != world.victim)
			continue;
		thread->killed = true;
		sched_wake(thread, true);
	}
	if (world.shows)
		fprintf(stderr, "%6llu process %u is killed\n", (unsigned long long)world.outcome.points, (unsigned)world.victim);
	world.killed(world.killer);
}

void sched_kill_at(uint64_t point, uint32_t process, void (*then)(void *), void *user)
{
	world.kill_point = point;
	world.victim = process;
	world.killed = then;
	world.killer = user;
	if (point == 0)
		kill_now();
}

void sched_revive(uint32_t process)
{
	for (uint32_t i = 0; i < world.count; i++) {
		if (world.threads[i].process == process)
			world.threads[i].killed = false;
	}
}

void sched_jump(void)
{
	static const int64_t far_ns[] = { 1000000, 1000000000, INT64_C(3600000000000), INT64_C(172800000000000) };
	uint64_t limit_ns = (uint64_t)far_ns[sched_below(4)];

	world.wall_ns += (int64_t)sched_below(2 * limit_ns) - (int64_t)limit_ns;
	world.outcome.jumps++;
	if (world.shows)
		fprintf(stderr, "%6llu the wall clock is off by %lld ms\n", (unsigned long long)world.outcome.points,
			(long long)(world.wall_ns / 1000000));
}

void sched_point(const char *what, const char *detail)
{
	struct thread *self = world.now;

	if (!self || self->quiet || world.calm)
		return;
	trace((uint64_t)(self - world.threads) << 32 | (uint64_t)(uint8_t)what[0] << 8 | (uint8_t)what[strlen(what) / 2]);
	if (world.shows)
		fprintf(stderr, "%6llu %8llu us %2u %s: %s %s\n", (unsigned long long)world.outcome.points,
			(unsigned long long)sched_now_us(), (unsigned)(self - world.threads), self->name, what, detail);
	if (++world.outcome.points > POINTS_MAX) {
		tell_stuck("no end");
		sched_give_up();
	}
	world.now_ns += 1000;
	if (world.options.jumps && sched_below(world.options.jumps) == 0)
		sched_jump();
	if (world.kill_point && world.outcome.points >= world.kill_point) {
		kill_now();
		if (self->killed) {
			pass_on(false);
			return;
		}
	}
	if (world.options.timers && sched_below(world.options.timers) == 0) {
		world.outcome.early_timers++;
		pass_time();
	}
	if (world.options.stay) {
		if (world.options.stay == 1 || sched_below(world.options.stay) == 0)
			pass_on(false);
		return;
	}
	if (sched_below(world.options.demote) == 0)
		self->priority = --world.lowest;
	pass_on(false);
}

void sched_lock_point(void)
{
	if (world.now && !world.now->quiet && !world.calm && world.options.locks && sched_below(world.options.locks) == 0)
		sched_point("lock", "");
}

/* ---- waiting ---------------------------------------------------------------------------------------- */

bool sched_block(const void *on, uint64_t until_ns)
{
	struct thread *self = world.now;

	if (!self) {
		fprintf(stderr, "something waits, and nobody else runs\n");
		abort();
	}
	self->state = WAITS;
	self->on = on;
	self->until_ns = until_ns;
	self->timed_out = false;
	pass_on(false);
	self->on = NULL;
	return self->timed_out;
}

void sched_wake(const void *on, bool all)
{
	uint64_t waiting = 0, chosen;

	for (uint32_t i = 0; i < world.count; i++)
		waiting += world.threads[i].state == WAITS && world.threads[i].on == on;
	if (waiting == 0)
		return;
	chosen = all || waiting == 1 ? 0 : sched_below(waiting);
	for (uint32_t i = 0; i < world.count; i++) {
		struct thread *thread = &world.threads[i];

		if (thread->state != WAITS || thread->on != on)
			continue;
		if (all || chosen-- == 0)
			thread->state = READY;
	}
}

/* ---- threads ---------------------------------------------------------------------------------------- */

static void enter(void)
{
	struct thread *self = world.now;

#ifdef SCHED_ASAN
	const void *stack;
	size_t bytes;

	__sanitizer_finish_switch_fiber(NULL, &stack, &bytes);
	if (!world.outside_stack) {
		world.outside_stack = stack;
		world.outside_bytes = bytes;
	}
#endif
	self->result = self->run(self->argument);
	self->state = ENDED;
	sched_wake(self, true);
	for (uint32_t i = 0; i < world.count; i++) {
		if (world.threads[i].state != NONE && world.threads[i].state != ENDED)
			pass_on(true);
	}
	jump(self, NULL, true);
}

unsigned long sched_spawn(void *(*run)(void *), void *argument)
{
	struct thread *thread = NULL;

	for (uint32_t i = 0; i < THREADS_MAX && !thread; i++) {
		if (i >= world.count || world.threads[i].state == NONE)
			thread = &world.threads[i];
	}
	if (!thread) {
		fprintf(stderr, "more than %u threads\n", THREADS_MAX);
		abort();
	}
	if (thread - world.threads >= (ptrdiff_t)world.count)
		world.count = (uint32_t)(thread - world.threads) + 1;
	if (!thread->stack) {
		thread->stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (thread->stack == MAP_FAILED)
			abort();
	}
	getcontext(&thread->context);
	thread->context.uc_stack.ss_sp = thread->stack;
	thread->context.uc_stack.ss_size = STACK_BYTES;
	thread->context.uc_link = NULL;
	makecontext(&thread->context, enter, 0);
	thread->state = READY;
	thread->on = NULL;
	thread->fake_stack = NULL;
	thread->quiet = 0;
	thread->killed = false;
	thread->process = world.now ? world.now->process : 0;
	thread->priority = 1000000 + (uint32_t)sched_below(1000000);
	thread->run = run;
	thread->argument = argument;
	snprintf(thread->name, sizeof(thread->name), "thread");
	return (unsigned long)(thread - world.threads) + 1;
}

void *sched_await(unsigned long name)
{
	struct thread *thread = &world.threads[name - 1];

	while (thread->state != ENDED) {
		if (thread->killed)
			return NULL;
		sched_block(thread, SCHED_NEVER);
	}
	thread->state = NONE;
	return thread->result;
}

void sched_name(unsigned long name, const char *text)
{
	snprintf(world.threads[name - 1].name, sizeof(world.threads[0].name), "%s", text);
}

static void *first(void *argument)
{
	(void)argument;
	world.body(world.argument);
	return NULL;
}

void sched_run(const struct sched_options *options, void (*body)(void *), void *argument, struct sched_outcome *ret)
{
	unsigned long name;

	for (uint32_t i = 0; i < world.count; i++)
		world.threads[i].state = NONE;
	world.count = 0;
	world.options = *options;
	world.outcome = (struct sched_outcome){ 0 };
	world.random = mix(options->seed);
	world.now_ns = BEGIN_NS;
	world.wall_ns = 0;
	world.kill_point = 0;
	world.lowest = 1000000;
	world.calm = true;
	world.body = body;
	world.argument = argument;
	world.shows = getenv("KVK_TRACE") != NULL;
	name = sched_spawn(first, NULL);
	sched_name(name, "first");
	jump(NULL, &world.threads[name - 1], false);
	*ret = world.outcome;
}

/* ---- what is told ----------------------------------------------------------------------------------- */

void sched_quiet_begin(void)
{
	if (world.now)
		world.now->quiet++;
}

void sched_quiet_end(void)
{
	if (world.now)
		world.now->quiet--;
}

void sched_calm(bool calm)
{
	world.calm = calm;
}

bool sched_is_calm(void)
{
	return world.calm;
}

bool sched_runs(void)
{
	return world.now != NULL;
}

uint64_t sched_now_us(void)
{
	return (world.now_ns - BEGIN_NS) / 1000;
}

void sched_sleep(const void *on, uint64_t until_us)
{
	sched_block(on, until_us * 1000 + BEGIN_NS);
}

uint64_t sched_clock_ns(void)
{
	return world.now_ns += 1000;
}

int64_t sched_wall_ns(void)
{
	return world.wall_ns;
}

void sched_join_process(uint32_t process)
{
	world.now->process = process;
}

uint32_t sched_process(void)
{
	return world.now ? world.now->process : 0;
}

uint64_t sched_step(void)
{
	return world.outcome.points;
}

const void *sched_self(void)
{
	return world.now ? (const void *)world.now : (const void *)&world;
}
