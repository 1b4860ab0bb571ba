/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tests of whole stores share: a store of each kind in a fresh place, short forms of the calls, and one oracle for
 * payloads. Include after cmocka.h.
 *
 * The payload of an object is a function of its key and a generation, made of 4 KiB blocks that are never zero and
 * never repeat, each naming its key, generation and position: what a load delivers is judged from the key alone. The short
 * forms may be called by any thread: they never assert, a load with wrong bytes counts in bed_wrong_answers, and every
 * test on a bed ends with that count being zero.
 */
#ifndef KVK_TESTS_STORE_BED_H
#define KVK_TESTS_STORE_BED_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <kvkeep/kvkeep.h>

struct kvk_backend;
struct kvk_core;

/* ---- beds --------------------------------------------------------------------------------------- */

enum bed_kind {
	BED_RAM = 0,
	BED_URING,
	BED_URING_DIRECT,
	BED_THREADS,
	BED_THREADS_DIRECT,
	/* Pools. A slot of a page costs what a file costs, so that caps mean the same; other slots cost more. */
	BED_POOL_RAM,
	BED_POOL,                      /* io_uring, buffered, slots of a page */
	BED_POOL_DIRECT,               /* io_uring, direct, slots of 64 KiB, several files */
	BED_POOL_THREADS,              /* threads, buffered, slots of a page */
	BED_KIND_COUNT
};

struct bed {
	enum bed_kind kind;
	char path[64];                 /* the store's root, made by the store; empty for BED_RAM */
	struct kvk_store *store;       /* NULL: not open */
	const struct kvk_hooks *hooks; /* for the opens that follow; NULL: none */
	struct kvk_backend *outside;   /* of bed_keep_keeper_out(), ... */
	bool has_no_keeper;            /* ... in memory */
};

bool bed_is_ram(const struct bed *bed);
bool bed_is_pool(const struct bed *bed);
const char *bed_kind_name(enum bed_kind kind);

/* Entries of a test table: the function once for each kind. *state is the struct bed, nothing open yet. */
#define BED_TEST(function, kind, name) \
	{ #function " (" name ")", function, bed_setup, bed_teardown, (void *)(uintptr_t)(kind) }
#define BED_TESTS_POSIX(function) \
	BED_TEST(function, BED_URING, "io_uring, buffered"), \
	BED_TEST(function, BED_URING_DIRECT, "io_uring, direct"), \
	BED_TEST(function, BED_THREADS, "threads, buffered"), \
	BED_TEST(function, BED_THREADS_DIRECT, "threads, direct")
#define BED_TESTS_POOL_POSIX(function) \
	BED_TEST(function, BED_POOL, "pool, io_uring"), \
	BED_TEST(function, BED_POOL_DIRECT, "pool, io_uring, direct"), \
	BED_TEST(function, BED_POOL_THREADS, "pool, threads")
#define BED_TESTS_POOL(function) BED_TEST(function, BED_POOL_RAM, "pool, ram"), BED_TESTS_POOL_POSIX(function)
/* Where the cost of an object counts. */
#define BED_TESTS_ALL_PAGES(function) \
	BED_TESTS(function), BED_TEST(function, BED_POOL_RAM, "pool, ram"), BED_TEST(function, BED_POOL, "pool, io_uring"), \
	BED_TEST(function, BED_POOL_THREADS, "pool, threads")
#define BED_TESTS_ALL_PAGES_POSIX(function) \
	BED_TESTS_POSIX(function), BED_TEST(function, BED_POOL, "pool, io_uring"), \
	BED_TEST(function, BED_POOL_THREADS, "pool, threads")
#define BED_TESTS_ALL(function) BED_TESTS(function), BED_TESTS_POOL(function)
#define BED_TESTS_ALL_POSIX(function) BED_TESTS_POSIX(function), BED_TESTS_POOL_POSIX(function)
#define BED_TESTS(function) BED_TEST(function, BED_RAM, "ram"), BED_TESTS_POSIX(function)

/* For cmocka. The teardown closes what is open, removes the folder, and checks bed_wrong_answers. */
int bed_setup(void **state);
int bed_teardown(void **state);

/* The same by hand. bed_begin() makes a fresh place, bed_end() closes and removes it and returns 0, or -1 after wrong answers. */
void bed_begin(struct bed *bed, enum bed_kind kind);
int bed_end(struct bed *bed);

/*
 * Writes the specification of the bed's store. more: further members as printf makes them, such as
 * "\"lanes\": 2, \"durability\": \"object\"", or "". A member "backend_params" of one's own is not possible: say "params:"
 * first in more and what follows up to a ';' goes into backend_params ("params:\"max_capacity_gb\": 0.001; \"lanes\": 1").
 * A pool has no such cap: it is made as large instead.
 */
void bed_spec(const struct bed *bed, char *spec, size_t spec_bytes, const char *more);

/* Opens the bed's store; the test fails if that fails, and is skipped where the mechanism is not to be had. */
void bed_open(struct bed *bed, const char *more);
/* Returns what kvk_store_open() returned; *error may be NULL. */
int bed_try_open(struct bed *bed, const char *more, struct kvk_error *error);
/* Closes and returns what kvk_store_close() returned. */
int bed_close(struct bed *bed);
void bed_reopen(struct bed *bed, const char *more);
/* Closes, and removes the snapshot of what is there: all that the next open knows is what it sees on the medium. */
void bed_close_forgetting(struct bed *bed);

/*
 * Makes the store and takes the keeper's lock until bed_end(); a store in memory is opened without one from now on. A keeper tells what a test wants
 * to be looked for on the medium, reads the footers that shall hang, and unlinks what a remove has renamed: then it is struck.
 */
void bed_keep_keeper_out(struct bed *bed);

/* Inside. The backend is the fault backend if the store was opened with "fault" (which may be an empty array). */
struct kvk_core *bed_core(struct kvk_store *store);
struct kvk_backend *bed_backend(struct kvk_store *store);

/* The bits of the transfers that do in this bed what these do with a file per key: a pool opens, publishes and moves nothing. */
uint32_t bed_ops(const struct bed *bed, uint32_t ops);
/* How many files a pool has. */
uint64_t bed_pool_files(struct kvk_store *store);
/* Places that the store has open beside those that it holds as long as it is open; needs the fault backend. */
uint64_t bed_places(struct kvk_store *store);

/* ---- payloads ----------------------------------------------------------------------------------- */

enum bed_verdict {
	BED_RIGHT = 0,
	BED_ZERO,                      /* a block of zeros */
	BED_STALE,                     /* this key's, of another generation */
	BED_FOREIGN,                   /* another key's */
	BED_MOVED,                     /* this key's, from another position */
	BED_OTHER                      /* anything else */
};

const char *bed_verdict_name(enum bed_verdict verdict);

/* Fills data with bytes offset to offset + bytes of the payload. */
void bed_fill(void *data, uint64_t bytes, struct kvk_key key, uint32_t generation, uint64_t offset);
/* Judges the same: BED_RIGHT, or what the first wrong 4 KiB block of the object is. */
enum bed_verdict bed_judge(const void *data, uint64_t bytes, struct kvk_key key, uint32_t generation, uint64_t offset);

/* Whether this is a block of 4 KiB of some payload, whole or its beginning. */
bool bed_is_payload(const void *block);

/* The generation that the first 16 bytes of a payload say. */
uint32_t bed_generation(const void *data);

/* Loads that were answered with success and wrong bytes, or touched memory that they must not; each told on stderr. */
extern atomic_uint bed_wrong_answers;
void bed_wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- short forms -------------------------------------------------------------------------------- */

struct kvk_key bed_key(const char *text);

/* Each waits for its answer and returns its status; -errno of the submission if there was none. result may be NULL. */
int bed_put(struct kvk_store *store, const char *key, uint64_t bytes, uint32_t generation, struct kvk_result *result);
/* Loads the whole object and judges it. bytes is how long it must be. */
int bed_get(struct kvk_store *store, const char *key, uint64_t bytes, uint32_t generation, struct kvk_result *result);
int bed_lookup(struct kvk_store *store, const char *key, uint32_t flags, struct kvk_result *result);
int bed_unpin(struct kvk_store *store, const char *key);
int bed_remove(struct kvk_store *store, const char *key, struct kvk_result *result);

/* The same with everything said: flags, a deadline, and memory that is aligned to 4,096, or odd, in that many pieces. */
struct bed_how {
	uint32_t flags;
	uint64_t deadline_us;
	uint32_t pieces;               /* 0: 1 */
	bool aligned;
};
int bed_put_how(struct kvk_store *store, struct kvk_key key, uint64_t bytes, uint32_t generation,
		const struct bed_how *how, struct kvk_result *result);
int bed_get_how(struct kvk_store *store, struct kvk_key key, uint64_t bytes, uint32_t generation,
		const struct bed_how *how, struct kvk_result *result);

/* Takes the next result off a queue, waiting up to ten seconds; false if none came. */
bool bed_next(struct kvk_store *store, enum kvk_queue queue, struct kvk_result *result);

struct kvk_usage bed_usage(struct kvk_store *store);
struct kvk_stats bed_stats(struct kvk_store *store);
/* What kvk_store_status() says of "healthy". */
bool bed_is_healthy(struct kvk_store *store);

/* What a list of everything shows: objects, their bytes as charged (whole pages), and those that are damaged. */
struct bed_listed {
	uint64_t objects;
	uint64_t charged_bytes;
	uint64_t damaged;
};
struct bed_listed bed_list(struct kvk_store *store);

/* At rest, usage is what a list shows; waits up to 20 seconds for removals under way and for the keeper. NULL, or what disagrees (static text). */
const char *bed_disagrees(struct kvk_store *store);
#define BED_AGREES(store) do { \
		const char *text_ = bed_disagrees(store); \
		if (text_) \
			fail_msg("%s", text_); \
	} while (0)

/* Files below the bed's root but outside `.kvkeep`: objects, and what is neither object nor folder (temporary files). */
void bed_files(const struct bed *bed, uint64_t *objects, uint64_t *others);
/* The path of the file of the object with this key, found by listing. -ENOENT. */
int bed_path_of(const struct bed *bed, const char *key, char *path, size_t path_bytes);

#endif
