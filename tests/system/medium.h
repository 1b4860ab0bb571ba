/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk that does what a test wants: the image of a file system, served by a process of the test's own.
 *
 * The kernel sees a file of FUSE, and a loop device on it. Each read, write and flush of that device passes through the
 * server, one after the other, in the order in which they come: it may fail, be kept waiting, or be written down. What is
 * read and written is the image's own memory, so whoever has the image mapped sees what the disk has.
 */
#ifndef KVK_TESTS_MEDIUM_H
#define KVK_TESTS_MEDIUM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define MEDIUM_BLOCK 4096u

/* A write; or a flush, with bytes 0. */
struct medium_entry {
	uint64_t offset;               /* on the disk */
	uint64_t bytes;
	uint64_t at;                   /* in the log: what was written; of a flush, two copies of what is witnessed */
};

/* Shared with the server: everything is read at each request. */
struct medium {
	/* What is wrong with it. Shares are of 1,000 blocks; which blocks those are follows from salt. */
	_Atomic uint64_t salt;
	_Atomic uint32_t bad_reads;    /* cannot be read */
	_Atomic uint32_t bad_writes;   /* cannot be written: what is before them in the same write is */
	_Atomic uint32_t bad_payloads; /* the same of those whose content bed_is_payload() */
	_Atomic uint32_t bad_flushes;  /* how many of the next flushes fail */
	atomic_bool forgets;           /* a flush that fails brings back what was there after the last good one */
	atomic_bool stuck;             /* nothing is answered */
	_Atomic uint32_t delay_us;     /* of each request */
	_Atomic uint32_t bytes_per_ms; /* 0: as many as it can */

	/* What it did. */
	atomic_uint_fast64_t reads, writes, flushes, failed_reads, failed_writes, failed_flushes;

	/* What was written down since medium_log(); it stops when there is no room for more. */
	atomic_bool logs, full;
	_Atomic uint64_t entries, log_bytes;
	struct medium_entry *entry;
	uint8_t *log;
	uint64_t log_limit;
	uint8_t *touched;              /* by block: it was written to. Whoever looks sets it back */

	/* Of the test alone. */
	char path[96];                 /* the file that stands for the disk */
	uint8_t *image;
	uint64_t image_bytes;
	const void *witness;           /* shared memory that is copied at each flush, twice, one copy after the other */
	uint64_t witness_bytes;
	pid_t server;
};

/* NULL, or why there can be none. After disk_world(). */
const char *medium_unable(void);

/* Serves the image, which must not be in use, under image + ".medium". log_bytes: room for the log, or 0. Free with medium_end().
 * Returns NULL on failure. */
struct medium *medium_start(const char *image, uint64_t log_bytes, const void *witness, uint64_t witness_bytes);
/* Nothing is wrong with it any more. */
void medium_heal(struct medium *medium);
/* Forgets what was written down and begins anew. Nothing may be mounted. It ends with logs = false. */
void medium_log(struct medium *medium);
/* The disk must not be mounted any more. NULL is fine. */
void medium_end(struct medium *medium);

#endif
