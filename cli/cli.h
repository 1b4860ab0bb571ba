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
	kvk_cli_verify, kvk_cli_doctor, kvk_cli_replay, kvk_cli_namespace, kvk_cli_bench;

/* Says on stderr what is wrong with the command line; returns KVK_EXIT_USAGE. */
int kvk_cli_usage(const struct kvk_cli_verb *verb, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* "kvkeep: ..." on stderr; returns KVK_EXIT_FAILED. */
int kvk_cli_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Prints the verb's help; returns KVK_EXIT_DONE. */
int kvk_cli_help(const struct kvk_cli_verb *verb);

/*
 * Values of options. On a bad one they say so as kvk_cli_usage() does, name the option and return KVK_EXIT_USAGE,
 * else 0.
 */
int kvk_cli_option_bytes(const struct kvk_cli_verb *verb, const char *option, const char *text, uint64_t *ret);
int kvk_cli_option_ns(const struct kvk_cli_verb *verb, const char *option, const char *text, uint64_t *ret);
int kvk_cli_option_count(const struct kvk_cli_verb *verb, const char *option, const char *text, uint64_t least,
			 uint64_t most, uint64_t *ret);

/* ---- stores (open.c) ------------------------------------------------------------------------------- */

/* What a verb lays over the STORE argument. Zeros leave things as they are. */
struct kvk_cli_overlay {
	bool create;               /* make the store when it is not there */
	bool direct;
	bool quiet;                /* keep the store's log to itself: the verb's one line says it all */
	uint64_t cap_bytes;
	const char *durability;
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
