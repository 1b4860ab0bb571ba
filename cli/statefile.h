/* SPDX-License-Identifier: Apache-2.0 */
/* How far a verification came, kept in a file so that an interrupted one can go on. */
#ifndef KVK_CLI_STATEFILE_H
#define KVK_CLI_STATEFILE_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>
#include <kvkeep/kvkeep.h>

#define KVK_STATE_PATH_BYTES PATH_MAX

struct kvk_verify_state {
	char *cursor;              /* the first page that was not read; NULL: the first of all. free() */
	uint64_t checked, bytes, gone, skipped;
	json_t *bad;               /* array */
	bool complete;
};

/* Each returns 0, or an enum kvk_exit after saying what is wrong. */
int kvk_verify_state_init(struct kvk_verify_state *state);
void kvk_verify_state_release(struct kvk_verify_state *state);

/*
 * Where the state of this store is kept: argument if it is given, else a file of its own named after the store's
 * id, or after its name where it has none. Makes the folders.
 */
int kvk_verify_state_path(char path[KVK_STATE_PATH_BYTES], const char *argument, struct kvk_store *store,
			  const char *store_argument);

/* No file there: the state stays as it is, for a run from the beginning. */
int kvk_verify_state_load(struct kvk_verify_state *state, const char *path);
/* Readers see the old state or the new one, never a part. */
int kvk_verify_state_save(const struct kvk_verify_state *state, const char *path);
void kvk_verify_state_forget(const char *path);

#endif
