/* SPDX-License-Identifier: Apache-2.0 */
#include "schedule_medium.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend/backend.h"
#include "backend/ram/ram.h"
#include "format/format.h"
#include "schedule.h"
#include "util/alloc.h"

#define PAGE 4096u

struct gate {
	struct kvk_backend base;
	struct kvk_backend *inner;
	struct sched_medium_options options;
	struct kvk_link link;          /* among gates */
	uint32_t process;
	bool dead;
	int64_t places;                /* that are open */
};

static struct sched_medium_options options;
static struct kvk_link gates = { &gates, &gates };

const struct kvk_backend_ops *__wrap_kvk_backend_find(const char *name);

static struct gate *gate_of(struct kvk_backend *backend)
{
	return kvk_container_of(backend, struct gate, base);
}

/* ---- steps ------------------------------------------------------------------------------------------ */

static struct kvk_backend *step(struct kvk_backend *backend, const char *what, const char *detail)
{
	sched_point(what, detail ? detail : "");
	sched_quiet_begin();
	return gate_of(backend)->inner;
}

static void over(const char *what)
{
	sched_quiet_end();
	sched_point(what, "is over");
}

#define STEP(type, what, detail, call) do { \
		struct kvk_backend *inner = step(backend, what, detail); \
		type result_ = gate_of(backend)->dead ? -EIO : inner->ops->call; \
		over(what); \
		return result_; \
	} while (0)

static void hold(const struct gate *gate)
{
	struct timespec pause = {
		.tv_sec = (time_t)(gate->options.hold_us / 1000000), .tv_nsec = (long)(gate->options.hold_us % 1000000) * 1000,
	};

	if (gate->options.hold && !sched_is_calm() && sched_below(gate->options.hold) == 0)
		nanosleep(&pause, NULL);
}

/* Fewer bytes than asked: as many as the first piece has, or half of a single one. */
static void run_short(struct kvk_backend *inner, struct kvk_xfer *xfer)
{
	struct iovec whole = xfer->iov[0];
	uint32_t count = xfer->iov_count;

	xfer->iov_count = 1;
	if (count == 1)
		xfer->iov[0].iov_len = whole.iov_len / 2;
	inner->ops->run(inner, xfer);
	xfer->iov[0] = whole;
	xfer->iov_count = count;
}

static void gate_run_now(struct gate *gate, struct kvk_xfer *xfer)
{
	const char *what = kvk_xfer_op_name(xfer->op);
	struct kvk_backend *inner = step(&gate->base, what, xfer->name);
	bool moves = xfer->op == KVK_XFER_READ || xfer->op == KVK_XFER_WRITE;

	/* What is open may be closed, for the memory. */
	if (gate->dead && xfer->op != KVK_XFER_CLOSE)
		xfer->result = -EIO;
	else if (moves && xfer->iov_count > 0 && xfer->iov[0].iov_len > 1 && gate->options.shorten &&
	    sched_below(gate->options.shorten) == 0)
		run_short(inner, xfer);
	else
		inner->ops->run(inner, xfer);
	if (xfer->op == KVK_XFER_CLOSE)
		gate->places--;
	if ((xfer->op == KVK_XFER_OPEN || xfer->op == KVK_XFER_CREATE) && xfer->result >= 0)
		gate->places++;
	over(what);
}

static void gate_run(struct kvk_backend *backend, struct kvk_xfer *xfer)
{
	if (!(xfer->flags & (KVK_XFER_NOWAIT | KVK_XFER_IF_CACHED)))
		hold(gate_of(backend));
	gate_run_now(gate_of(backend), xfer);
}

/* ---- rings ------------------------------------------------------------------------------------------ */

/* Ends what it took in any order, on the lane's own stack; what is held keeps for so long what it was put with. */
struct gate_ring {
	struct gate *gate;
	struct kvk_link taken, ended;
	uint32_t count, depth;
};

static struct gate_ring *ring_of(struct kvk_ring *ring)
{
	return (struct gate_ring *)(void *)ring;
}

static int ring_open(struct kvk_ring **ret, struct kvk_backend *backend, uint32_t depth, uint32_t memory_slots)
{
	struct gate_ring *ring = calloc(1, sizeof(*ring));

	if (!ring)
		return -ENOMEM;
	ring->gate = gate_of(backend);
	ring->depth = depth < 3 ? depth : 3;
	kvk_list_init(&ring->taken);
	kvk_list_init(&ring->ended);
	*ret = (struct kvk_ring *)(void *)ring;
	return 0;
}

static void ring_close(struct kvk_ring *ring)
{
	free(ring);
}

static int ring_put(struct kvk_ring *base, struct kvk_xfer *xfer)
{
	struct gate_ring *ring = ring_of(base);

	if (xfer->op != KVK_XFER_READ && xfer->op != KVK_XFER_WRITE && xfer->op != KVK_XFER_OPEN && xfer->op != KVK_XFER_SYNC)
		return -EOPNOTSUPP;
	if (ring->count == ring->depth)
		return -EAGAIN;
	ring->count++;
	xfer->ring_data = 0;
	if (ring->gate->options.hold && !sched_is_calm() && sched_below(ring->gate->options.hold) == 0)
		xfer->ring_data = sched_now_us() + ring->gate->options.hold_us;
	kvk_list_push(&ring->taken, &xfer->link);
	return 0;
}

/* One of those that may end now, drawn; or when the first of them may. */
static struct kvk_xfer *ring_choose(struct gate_ring *ring, uint64_t *next_us)
{
	struct kvk_xfer *chosen = NULL;
	uint64_t seen = 0;

	for (struct kvk_link *link = ring->taken.next; link != &ring->taken; link = link->next) {
		struct kvk_xfer *xfer = kvk_container_of(link, struct kvk_xfer, link);

		if (xfer->ring_data > sched_now_us())
			*next_us = xfer->ring_data < *next_us ? xfer->ring_data : *next_us;
		else if (sched_below(++seen) == 0)
			chosen = xfer;
	}
	return chosen;
}

static void ring_turn(struct kvk_ring *base, struct kvk_link *finished, uint64_t wait_us)
{
	struct gate_ring *ring = ring_of(base);
	uint64_t until_us = sched_now_us() + wait_us, next_us = until_us;
	struct kvk_xfer *xfer = ring_choose(ring, &next_us);

	if (!xfer && wait_us > 0) {
		sched_sleep(ring, next_us);
		xfer = ring_choose(ring, &next_us);
	}
	for (; xfer; xfer = sched_below(2) ? ring_choose(ring, &next_us) : NULL) {
		kvk_list_remove(&xfer->link);
		ring->count--;
		gate_run_now(ring->gate, xfer);
		kvk_list_push(finished, &xfer->link);
	}
}

static void ring_wake(struct kvk_ring *ring)
{
	sched_wake(ring, true);
}

/* Half of the time it is too late. */
static void ring_cancel(struct kvk_ring *base, struct kvk_xfer *xfer)
{
	if (xfer->ring_data && sched_below(2))
		xfer->ring_data = 0;
}

static int ring_set_memory(struct kvk_ring *ring, uint32_t slot, void *base, uint64_t bytes)
{
	return 0;
}

static const struct kvk_ring_ops ring_ops = {
	.open = ring_open,
	.close = ring_close,
	.put = ring_put,
	.turn = ring_turn,
	.wake = ring_wake,
	.cancel = ring_cancel,
	.set_memory = ring_set_memory,
};

/* ---- the rest --------------------------------------------------------------------------------------- */

static void gate_close(struct kvk_backend *backend)
{
	if (!backend)
		return;
	kvk_list_remove(&gate_of(backend)->link);
	gate_of(backend)->inner->ops->close(gate_of(backend)->inner);
	kvk_syncs_release(&backend->syncs);
	free(gate_of(backend));
}

static int gate_load_file(struct kvk_backend *backend, const char *name, void **data, uint64_t *bytes, uint64_t max_bytes)
{
	STEP(int, "load file", name, load_file(inner, name, data, bytes, max_bytes));
}

static int gate_save_file(struct kvk_backend *backend, const char *name, const void *data, uint64_t bytes, bool keep)
{
	STEP(int, "save file", name, save_file(inner, name, data, bytes, keep));
}

static int gate_update_file(struct kvk_backend *backend, const char *name, uint64_t offset, const void *data, uint64_t bytes)
{
	STEP(int, "update file", name, update_file(inner, name, offset, data, bytes));
}

static int gate_list(struct kvk_backend *backend, const char *folder, struct kvk_names *names)
{
	STEP(int, "list", folder, list(inner, folder, names));
}

/* Names come and go while they are looked at: what is called for each may wait for others. */
struct slow_listing {
	const struct kvk_listing *listing;
};

static bool slow_wanted(void *user, const char *name)
{
	const struct kvk_listing *listing = ((struct slow_listing *)user)->listing;

	return listing->wanted(listing->user, name);
}

static bool slow_visit(void *user, const char *name, const struct kvk_stat *stat)
{
	const struct kvk_listing *listing = ((struct slow_listing *)user)->listing;
	bool going_on;

	sched_quiet_end();
	sched_point("visit", name);
	going_on = listing->visit(listing->user, name, stat);
	sched_quiet_begin();
	return going_on;
}

static int gate_list_stat(struct kvk_backend *backend, const char *folder, const struct kvk_listing *listing, uint64_t *modified_ns)
{
	struct slow_listing slow = { listing };
	struct kvk_listing outer = { slow_wanted, slow_visit, &slow };

	STEP(int, "list stat", folder, list_stat(inner, folder, &outer, modified_ns));
}

static int gate_folder_time(struct kvk_backend *backend, const char *folder, uint64_t *modified_ns)
{
	STEP(int, "folder time", folder, folder_time(inner, folder, modified_ns));
}

static int gate_now(struct kvk_backend *backend, uint64_t *now_ns)
{
	struct kvk_backend *inner = gate_of(backend)->inner;

	return gate_of(backend)->dead ? -EIO : inner->ops->now(inner, now_ns);
}

static int gate_space(struct kvk_backend *backend, struct kvk_space *space)
{
	struct kvk_backend *inner = gate_of(backend)->inner;

	return gate_of(backend)->dead ? -EIO : inner->ops->space(inner, space);
}

static int gate_hold(struct kvk_backend *backend, bool exclusive)
{
	STEP(int, "hold", "", hold(inner, exclusive));
}

static int gate_lock(struct kvk_backend *backend, uint32_t byte, uint32_t wait_ms)
{
	struct kvk_backend *inner;
	char text[16];
	int err = -EIO;

	snprintf(text, sizeof(text), "%u", byte);
	inner = step(backend, "lock byte", text);
	if (!gate_of(backend)->dead)
		err = inner->ops->lock(inner, byte, wait_ms);
	/* It may have been killed while it tried. */
	if (!err && gate_of(backend)->dead) {
		inner->ops->unlock(inner, byte);
		err = -EIO;
	}
	over("lock byte");
	return err;
}

static void gate_unlock(struct kvk_backend *backend, uint32_t byte)
{
	struct kvk_backend *inner = step(backend, "unlock byte", "");

	if (!gate_of(backend)->dead)
		inner->ops->unlock(inner, byte);
	over("unlock byte");
}

static int gate_is_locked(struct kvk_backend *backend, uint32_t byte)
{
	STEP(int, "is locked", "", is_locked(inner, byte));
}

static int gate_sweep(struct kvk_backend *backend, const char *name)
{
	STEP(int, "sweep", name, sweep(inner, name));
}

static int gate_open(struct kvk_backend **ret, const struct kvk_backend_options *wishes, struct kvk_error *error);

#define GATE_OPS \
	.name = "ram", \
	.open = gate_open, \
	.close = gate_close, \
	.run = gate_run, \
	.load_file = gate_load_file, \
	.save_file = gate_save_file, \
	.update_file = gate_update_file, \
	.list = gate_list, \
	.list_stat = gate_list_stat, \
	.folder_time = gate_folder_time, \
	.now = gate_now, \
	.space = gate_space, \
	.hold = gate_hold, \
	.lock = gate_lock, \
	.unlock = gate_unlock, \
	.is_locked = gate_is_locked, \
	.sweep = gate_sweep

static const struct kvk_backend_ops gate_ops = { GATE_OPS };
static const struct kvk_backend_ops gate_ops_with_ring = { GATE_OPS, .ring = &ring_ops };

static int gate_open(struct kvk_backend **ret, const struct kvk_backend_options *wishes, struct kvk_error *error)
{
	struct gate *gate = calloc(1, sizeof(*gate));
	int err;

	if (!gate)
		return -ENOMEM;
	err = kvk_backend_ram.open(&gate->inner, wishes, error);
	if (err) {
		free(gate);
		return err;
	}
	gate->base.ops = options.ring ? &gate_ops_with_ring : &gate_ops;
	gate->base.caps = gate->inner->caps;
	kvk_syncs_init(&gate->base.syncs);
	gate->base.caps.nowait = !options.waits;
	gate->options = options;
	gate->process = sched_process();
	kvk_list_push(&gates, &gate->link);
	*ret = &gate->base;
	return 0;
}

const struct kvk_backend_ops *__wrap_kvk_backend_find(const char *name)
{
	return strcmp(name, "ram") ? NULL : &gate_ops;
}

void sched_medium_set(const struct sched_medium_options *wishes)
{
	options = *wishes;
}

void sched_medium_forget(const char *name)
{
	kvk_backend_ram_forget(name);
	/* Of a schedule that was given up. */
	kvk_list_init(&gates);
}

void sched_medium_kill(uint32_t process)
{
	sched_quiet_begin();
	for (struct kvk_link *link = gates.next; link != &gates; link = link->next) {
		struct gate *gate = kvk_container_of(link, struct gate, link);

		if (gate->process != process)
			continue;
		gate->dead = true;
		for (uint32_t byte = 0; byte < KVK_ACCOUNT_ROWS; byte++)
			gate->inner->ops->unlock(gate->inner, byte);
		for (uint32_t byte = KVK_LOCK_HOLD; byte < KVK_LOCK_END; byte++)
			gate->inner->ops->unlock(gate->inner, byte);
	}
	sched_quiet_end();
}

/* ---- from outside ----------------------------------------------------------------------------------- */

static bool ends_in(const char *name, const char *end)
{
	size_t bytes = strlen(name), end_bytes = strlen(end);

	return bytes > end_bytes && !strcmp(name + bytes - end_bytes, end);
}

static int stat_name(struct kvk_backend *backend, const char *path, struct kvk_stat *stat)
{
	struct kvk_xfer xfer;

	kvk_xfer_init(&xfer, KVK_XFER_STAT_NAME, NULL, path);
	backend->ops->run(backend, &xfer);
	*stat = xfer.stat;
	return (int)xfer.result;
}

/* Goes through the files below a folder until one says that it is enough. */
static bool each_file(struct kvk_backend *backend, const char *folder, bool (*look)(void *, const char *, const char *, uint64_t),
		      void *user)
{
	struct kvk_names names = { 0 };
	struct kvk_stat stat;
	char path[600];
	bool enough = false;

	backend->ops->list(backend, folder, &names);
	for (uint32_t i = 0; i < names.count && !enough; i++) {
		snprintf(path, sizeof(path), "%s%s%s", folder, *folder ? "/" : "", names.names[i]);
		if (stat_name(backend, path, &stat))
			continue;
		if (stat.regular)
			enough = look(user, path, names.names[i], stat.bytes);
		else if (strcmp(path, ".kvkeep"))
			enough = each_file(backend, path, look, user);
		else
			enough = each_file(backend, ".kvkeep/quarantine", look, user);
	}
	kvk_names_release(&names);
	return enough;
}

static bool count_file(void *user, const char *path, const char *name, uint64_t bytes)
{
	struct sched_truth *truth = user;

	truth->bytes += (bytes + PAGE - 1) / PAGE * PAGE;
	if (!strncmp(path, ".kvkeep/", 8))
		truth->aside++;
	else if (name[0] != '.' && ends_in(name, ".kv"))
		truth->objects++;
	else
		truth->others++;
	return false;
}

static int read_account(struct kvk_backend *backend, struct sched_truth *truth)
{
	struct kvk_account_image *images = calloc(2, sizeof(*images));
	uint64_t bytes = 0;
	void *data = NULL;
	int err = backend->ops->load_file(backend, KVK_FILE_ACCOUNT, &data, &bytes, 2 * KVK_ACCOUNT_BYTES);

	if (!err)
		err = kvk_account_parse_file(&images[0], &images[1], data, bytes);
	if (!err) {
		truth->counted_bytes = images->loose_bytes;
		for (unsigned i = 0; i < KVK_ACCOUNT_BUCKETS; i++)
			truth->counted_bytes += images->charged_bytes[i];
		for (unsigned i = 0; i < KVK_ACCOUNT_ROWS; i++)
			truth->leased_bytes += images->rows[i].leased_bytes;
		truth->counted_bytes += truth->leased_bytes;
	}
	kvk_mem_free(data);
	free(images);
	return err;
}

static int open_outside(const char *name, struct kvk_backend **ret)
{
	struct kvk_backend_options wishes = { .path = name };

	return kvk_backend_ram.open(ret, &wishes, NULL);
}

int sched_medium_truth(const char *name, struct sched_truth *ret)
{
	struct kvk_backend *backend;
	int err;

	*ret = (struct sched_truth){ 0 };
	for (struct kvk_link *link = gates.next; link != &gates; link = link->next) {
		const struct gate *gate = kvk_container_of(link, struct gate, link);

		ret->places += gate->dead ? 0 : gate->places;
	}
	sched_quiet_begin();
	err = open_outside(name, &backend);
	if (!err) {
		each_file(backend, "", count_file, ret);
		err = read_account(backend, ret);
		backend->ops->close(backend);
	}
	sched_quiet_end();
	return err;
}

struct damage {
	struct kvk_backend *backend;
	bool footer, done;
};

static bool damage_file(void *user, const char *path, const char *name, uint64_t bytes)
{
	struct damage *damage = user;
	uint8_t byte = 0;
	struct iovec iov = { &byte, 1 };
	struct kvk_xfer xfer;

	if (!strncmp(path, ".kvkeep/", 8) || !ends_in(name, ".kv"))
		return false;
	kvk_xfer_init(&xfer, KVK_XFER_OPEN, NULL, path);
	xfer.flags = KVK_XFER_WRITABLE;
	damage->backend->ops->run(damage->backend, &xfer);
	if (xfer.result < 0)
		return false;
	xfer.iov = &iov;
	xfer.iov_count = 1;
	xfer.offset_bytes = damage->footer ? bytes - 100 : 77;
	xfer.op = KVK_XFER_READ;
	damage->backend->ops->run(damage->backend, &xfer);
	byte ^= 1;
	xfer.op = KVK_XFER_WRITE;
	damage->backend->ops->run(damage->backend, &xfer);
	damage->done = xfer.result == 1;
	xfer.op = KVK_XFER_CLOSE;
	damage->backend->ops->run(damage->backend, &xfer);
	return true;
}

int sched_medium_damage(const char *name, bool footer)
{
	struct damage damage = { .footer = footer };
	int err;

	sched_quiet_begin();
	err = open_outside(name, &damage.backend);
	if (!err) {
		each_file(damage.backend, "", damage_file, &damage);
		damage.backend->ops->close(damage.backend);
		err = damage.done ? 0 : -ENOENT;
	}
	sched_quiet_end();
	return err;
}
