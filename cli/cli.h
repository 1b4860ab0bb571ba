/* SPDX-License-Identifier: Apache-2.0 */
/* What the verbs of the command share. */
#ifndef KVK_CLI_CLI_H
#define KVK_CLI_CLI_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>
#include <kvkeep/kvkeep.h>

enum kvk_exit {
	KVK_EXIT_DONE = 0,
	KVK_EXIT_FAILED = 1,       /* not found, or a check failed */
	KVK_EXIT_USAGE = 2,
};

/* ---- verbs (main.c has the table) ----------------------------------------------------------------- */

struct kvk_cli_verb {
	const char *name;
	const char *arguments;     /* what follows the name in the usage line */
	const char *summary;       /* one line for the list of verbs */
	const char *help;          /* the rest of `kvkeep help NAME`: options and what to know */
	/* argv[0] is "kvkeep NAME", for getopt's messages. Returns an enum kvk_exit. */
	int (*run)(const struct kvk_cli_verb *verb, int argc, char **argv);
};

extern const struct kvk_cli_verb kvk_cli_put, kvk_cli_get, kvk_cli_has, kvk_cli_rm, kvk_cli_ls, kvk_cli_stat,
	kvk_cli_verify, kvk_cli_doctor, kvk_cli_replay, kvk_cli_namespace, kvk_cli_bench, kvk_cli_df, kvk_cli_evict,
	kvk_cli_purge, kvk_cli_quota, kvk_cli_cap, kvk_cli_fsck, kvk_cli_simulate;

/* Says on stderr what is wrong with the command line; returns KVK_EXIT_USAGE. */
int kvk_cli_usage(const struct kvk_cli_verb *verb, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Prints the verb's help; returns KVK_EXIT_DONE. */
int kvk_cli_help(const struct kvk_cli_verb *verb);

/* ---- command lines (options.c) ---------------------------------------------------------------------- */

enum kvk_option_kind {
	KVK_OPTION_FLAG = 1,       /* bool */
	KVK_OPTION_TEXT,           /* const char *, into argv */
	KVK_OPTION_BYTES,          /* uint64_t, as the next two */
	KVK_OPTION_NS,
	KVK_OPTION_COUNT,
	KVK_OPTION_TAKE,           /* whatever take() makes of it */
};

struct kvk_cli_option {
	const char *name;
	enum kvk_option_kind kind;
	void *value;
	uint64_t least, most;      /* of numbers; most 0: as far as they go */
	/* What was wrong was said as kvk_cli_usage() does when it returns other than 0. */
	int (*take)(const struct kvk_cli_verb *verb, const struct kvk_cli_option *option, const char *text);
	char letter;               /* the short form, or 0 */
};

/* What is left of a command line without its options. */
struct kvk_cli_line {
	char **words;              /* NULL follows the last */
	int count;
	bool json;
};

/*
 * Reads a command line with the options of the table, which ends with a NULL name, and --json and --help, which every verb takes
 * (--help ends the process). wants: what is said if there are fewer than least or more than most words. 0, or
 * KVK_EXIT_USAGE after saying what is wrong.
 */
int kvk_cli_read_line(struct kvk_cli_line *line, const struct kvk_cli_verb *verb, int argc, char **argv,
		      const struct kvk_cli_option *options, int least, int most, const char *wants);

/* take() of options that are keys: value is a struct kvk_cli_key, for free(). One that was given before is freed. */
int kvk_cli_take_key(const struct kvk_cli_verb *verb, const struct kvk_cli_option *option, const char *text);

/* ---- stores (open.c) ------------------------------------------------------------------------------- */

/* What a verb is about to do: with more than that it would change a store that somebody only meant to look at. */
enum kvk_use {
	KVK_USE_ENGINE = 0,        /* what STORE says holds: bench, replay */
	KVK_USE_STORE,             /* as an engine does, but the watermark is not minded: only what a put needs is evicted */
	KVK_USE_TEND,              /* takes the store's settings as they are, and removes and evicts what it is told to alone */
	KVK_USE_LOOK,              /* and is never the keeper, who corrects the account and clears away */
};

/* What a verb lays over the STORE argument. Zeros leave things as they are. */
struct kvk_cli_overlay {
	enum kvk_use use;
	bool create;               /* make the store when it is not there */
	bool direct;
	bool quiet;                /* keep the store's log to itself: the verb's one line says it all */
	uint64_t cap_bytes;
	const char *durability;
	const char *policy;        /* what evicts; by_default: only where STORE does not say */
	bool policy_by_default;
};

/*
 * Turns a STORE argument (a directory, JSON, or @file) into a specification. 0, or an enum kvk_exit after
 * saying what is wrong. The caller ends *ret with json_decref().
 */
int kvk_cli_spec(json_t **ret, const char *argument, const struct kvk_cli_overlay *overlay);

/* The directory of a specification, or NULL if it has none. */
const char *kvk_cli_spec_directory(const json_t *spec);

/*
 * Opens the store of a specification, or of an argument. 0, or an enum kvk_exit after saying why; with error_ret it
 * is put there instead of being said.
 */
int kvk_cli_open_spec(struct kvk_store **ret, const json_t *spec, bool quiet, struct kvk_error *error_ret);
int kvk_cli_open(struct kvk_store **ret, const char *argument, const struct kvk_cli_overlay *overlay);

/* What became of one item, in words: the reason, or the error if there is none. */
const char *kvk_cli_result_text(const struct kvk_result *result);

/* ---- output (output.c) ----------------------------------------------------------------------------- */

/* "kvkeep: ..." on stderr; returns KVK_EXIT_FAILED. */
int kvk_cli_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Prints a value to stdout with a newline and takes the reference. Returns 0, or KVK_EXIT_FAILED. */
int kvk_cli_print_json(json_t *value);

/* Bytes as a JSON string: as kvk_cli_escape() shows them. */
json_t *kvk_cli_json_text(const void *data, size_t bytes);
json_t *kvk_cli_json_key(const void *key, uint32_t bytes);
json_t *kvk_cli_json_hex(const void *data, size_t bytes);

/* stdout is flushed and was written without an error; else KVK_EXIT_FAILED after saying so. */
int kvk_cli_finish(int status);

/* Progress of long work on stderr: silent unless that is a terminal, and redrawn at most ten times a second. */
struct kvk_progress {
	const char *verb;
	uint64_t begin_us;
	uint64_t shown_us;
	bool terminal;
	bool drawn;
};

void kvk_progress_begin(struct kvk_progress *progress, const char *verb);
/*
 * done of total units (total 0: not known), and the bytes that were moved for them; they need not be in step.
 */
void kvk_progress_show(struct kvk_progress *progress, uint64_t done, uint64_t total, const char *unit,
		       uint64_t bytes);
/* Wipes the line, so that what follows starts on a clean one. */
void kvk_progress_end(struct kvk_progress *progress);

uint64_t kvk_cli_now_ns(void);
uint64_t kvk_cli_wall_ns(void);
/* CPU time of the calling thread: what the command itself spends between calls into the library. */
uint64_t kvk_thread_cpu_ns(void);

/* ---- files (file.c) -------------------------------------------------------------------------------- */

struct kvk_cli_blob {
	void *data;
	uint64_t bytes;
};

/* Reads path (NULL or "-": stdin) to its end. 0, or KVK_EXIT_FAILED after saying why; end with free(data). */
int kvk_cli_read_file(struct kvk_cli_blob *ret, const char *path, uint64_t bytes_max);

/*
 * Writes path (NULL or "-": stdout) wholly or not at all: a temporary file beside it takes its name at
 * the end. Something that is not a regular file is written to in place. New files are 0600, for what was cached can
 * be turned back into the prompt. 0, or KVK_EXIT_FAILED after saying why.
 */
int kvk_cli_write_file(const char *path, const void *data, uint64_t bytes);

/* The nearest folder on the way to path that exists: path itself, one above it, or ".". ret wants PATH_MAX. */
const char *kvk_cli_existing_folder(char *ret, const char *path);

#endif
