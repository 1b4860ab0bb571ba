/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the account share: processes that are backends of their own on one medium. Included after cmocka.h. */
#ifndef KVK_TESTS_UNIT_ACCOUNT_BED_H
#define KVK_TESTS_UNIT_ACCOUNT_BED_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "account/account.h"
#include "backend/backend.h"
#include "backend/fault/fault.h"
#include "backend/ram/ram.h"
#include "util/alloc.h"

#define MIB (UINT64_C(1) << 20)
#define CAP (100 * MIB)

/* Where the account lies: in memory, or in a folder. */
struct bed {
	const struct kvk_backend_ops *ops;
	char path[64];
	uint32_t warnings;
	struct kvk_log_sink log;
};

struct process {
	struct bed *bed;
	struct kvk_backend *backend;
	struct kvk_account *account;
};

static inline void bed_line(void *user, int level, const char *text)
{
	struct bed *bed = user;

	if (level <= KVK_LOG_WARNING)
		bed->warnings++;
}

static inline void bed_start(struct bed *bed, const struct kvk_backend_ops *ops)
{
	static unsigned number;

	*bed = (struct bed){ .ops = ops, .log = { bed, bed_line } };
	if (ops == &kvk_backend_ram) {
		snprintf(bed->path, sizeof(bed->path), "account-%u", number++);
		return;
	}
	snprintf(bed->path, sizeof(bed->path), "%s/kvk-account-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
	assert_non_null(mkdtemp(bed->path));
}

static inline void bed_end(struct bed *bed)
{
	char command[96];

	if (bed->ops == &kvk_backend_ram) {
		kvk_backend_ram_forget(bed->path);
		return;
	}
	snprintf(command, sizeof(command), "rm -rf -- '%s'", bed->path);
	assert_int_equal(system(command), 0);
}

static inline struct kvk_backend *bed_backend(struct bed *bed)
{
	static uint64_t number;
	struct kvk_backend_options options = {
		.path = bed->path, .create = true, .writer_id = (uint64_t)getpid() << 32 | ++number,
	};
	struct kvk_backend *backend;
	struct kvk_error error = { 0 };

	if (bed->ops->open(&backend, &options, &error))
		fail_msg("%s", error.text);
	return backend;
}

static inline int try_start(struct process *process, struct bed *bed, uint64_t cap_bytes, bool empty)
{
	int err;

	*process = (struct process){ .bed = bed, .backend = bed_backend(bed) };
	err = kvk_account_open(&process->account, process->backend, cap_bytes, empty, &bed->log, NULL);
	if (err) {
		process->backend->ops->close(process->backend);
		process->backend = NULL;
	}
	return err;
}

static inline void start(struct process *process, struct bed *bed)
{
	assert_int_equal(try_start(process, bed, CAP, true), 0);
}

static inline void stop(struct process *process)
{
	kvk_account_close(process->account, 1000);
	process->backend->ops->close(process->backend);
	*process = (struct process){ 0 };
}

/* As if it had been killed: its locks end, and nothing else is done. */
static inline void die(struct process *process)
{
	kvk_account_abandon(process->account);
	process->backend->ops->close(process->backend);
	*process = (struct process){ 0 };
}

/* What the file says. */
static inline const struct kvk_account_image *image_of(struct process *process)
{
	static struct kvk_account_image image, scratch;
	uint64_t bytes;
	void *data;

	assert_int_equal(process->backend->ops->load_file(process->backend, "account", &data, &bytes,
							  2 * KVK_ACCOUNT_BYTES), 0);
	assert_int_equal(kvk_account_parse_file(&image, &scratch, data, bytes), 0);
	kvk_mem_free(data);
	return &image;
}

static inline uint64_t charged_of(struct process *process)
{
	const struct kvk_account_image *image = image_of(process);
	uint64_t bytes = image->loose_bytes;

	for (uint32_t i = 0; i < KVK_ACCOUNT_BUCKETS; i++)
		bytes += image->charged_bytes[i];
	return bytes;
}

static inline uint64_t leased_of(struct process *process)
{
	const struct kvk_account_image *image = image_of(process);
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < KVK_ACCOUNT_ROWS; i++)
		bytes += image->rows[i].leased_bytes;
	return bytes;
}

/* A visit that must succeed; returns what was granted. */
static inline uint64_t visit(struct process *process, uint64_t want_bytes, uint64_t give_bytes, bool synced)
{
	struct kvk_account_visit visit = { .want_bytes = want_bytes, .give_bytes = give_bytes, .synced = synced };

	assert_int_equal(kvk_account_visit(process->account, &visit, 1000), 0);
	assert_true(visit.charged_bytes == charged_of(process));
	assert_true(visit.leased_bytes == leased_of(process));
	return visit.granted_bytes;
}

static inline void publish(struct process *process, uint32_t bucket, uint64_t bytes)
{
	uint32_t entered = kvk_account_enter(process->account);

	kvk_account_published(process->account, bucket, bytes);
	kvk_account_leave(process->account, entered);
}

static inline void unlinks(struct process *process, uint32_t bucket, uint64_t bytes)
{
	uint32_t entered = kvk_account_enter(process->account);

	kvk_account_unlinked(process->account, bucket, bytes);
	kvk_account_leave(process->account, entered);
}

static inline void sync_and_visit(struct process *process)
{
	kvk_account_sync_begin(process->account);
	visit(process, 0, 0, true);
}

static inline void pause_ms(unsigned ms)
{
	nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 }, NULL);
}

/* Longer than a tick and the margin that is kept to it. */
static inline void let_time_pass(void)
{
	pause_ms(60);
}

static inline uint64_t wall_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#endif
