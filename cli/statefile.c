/* SPDX-License-Identifier: Apache-2.0 */
#include "statefile.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"

int kvk_verify_state_init(struct kvk_verify_state *state)
{
	*state = (struct kvk_verify_state){ .bad = json_array() };
	return state->bad ? 0 : kvk_cli_fail("not enough memory");
}

void kvk_verify_state_release(struct kvk_verify_state *state)
{
	free(state->cursor);
	json_decref(state->bad);
	*state = (struct kvk_verify_state){ .cursor = NULL };
}

/* The store's own id if it tells one, else FNV-1a of how it was named: enough to tell a user's stores apart. */
static void store_word(char word[64], struct kvk_store *store, const char *argument)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);
	char resolved[PATH_MAX], *text = NULL;
	json_t *status = NULL;
	const char *id = NULL;

	if (!kvk_store_status(store, &text))
		status = json_loads(text, 0, NULL);
	id = json_string_value(json_object_get(json_object_get(status, "settings"), "store_id"));
	if (id) {
		snprintf(word, 64, "%s", id);
	} else {
		if (realpath(argument, resolved))
			argument = resolved;
		for (; *argument; argument++)
			hash = (hash ^ (unsigned char)*argument) * UINT64_C(0x100000001b3);
		snprintf(word, 64, "%016" PRIx64, hash);
	}
	json_decref(status);
	kvk_free(text);
}

/* Makes all folders on the way to path, private to the user. */
static int make_folders(char *path)
{
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(path, 0700) && errno != EEXIST)
			return kvk_cli_fail("%s: %s", path, strerror(errno));
		*slash = '/';
	}
	return 0;
}

int kvk_verify_state_path(char path[KVK_STATE_PATH_BYTES], const char *argument, struct kvk_store *store,
			  const char *store_argument)
{
	const char *base = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	char word[64];
	int length;

	if (argument) {
		length = snprintf(path, KVK_STATE_PATH_BYTES, "%s", argument);
		return length < KVK_STATE_PATH_BYTES ? 0 : kvk_cli_fail("--state: the path is too long");
	}
	store_word(word, store, store_argument);
	if (base && *base == '/')
		length = snprintf(path, KVK_STATE_PATH_BYTES, "%s/kvkeep/verify-%s", base, word);
	else if (home && *home == '/')
		length = snprintf(path, KVK_STATE_PATH_BYTES, "%s/.local/state/kvkeep/verify-%s", home, word);
	else
		return kvk_cli_fail("neither XDG_STATE_HOME nor HOME is set: say with --state where to "
				    "remember how far it came");
	if (length >= KVK_STATE_PATH_BYTES)
		return kvk_cli_fail("the path of the state file is too long");
	return make_folders(path);
}

int kvk_verify_state_load(struct kvk_verify_state *state, const char *path)
{
	json_int_t checked, bytes, gone, skipped;
	json_t *value = NULL, *bad;
	json_error_t error;
	const char *cursor;
	int status = 0;

	if (access(path, F_OK) && errno == ENOENT)
		return 0;
	value = json_load_file(path, 0, &error);
	if (!value)
		return kvk_cli_fail("%s: %s; remove it to begin anew", path, error.text);
	if (json_unpack(value, "{s:s, s:I, s:I, s:I, s:I, s:o}", "cursor", &cursor, "checked", &checked, "bytes",
			&bytes, "gone", &gone, "skipped", &skipped, "bad", &bad) || !json_is_array(bad)) {
		status = kvk_cli_fail("%s: not a state of `kvkeep verify`; remove it to begin anew", path);
		goto out;
	}
	state->cursor = strdup(cursor);
	if (!state->cursor) {
		status = kvk_cli_fail("not enough memory");
		goto out;
	}
	state->checked = (uint64_t)checked;
	state->bytes = (uint64_t)bytes;
	state->gone = (uint64_t)gone;
	state->skipped = (uint64_t)skipped;
	json_decref(state->bad);
	state->bad = json_incref(bad);
out:
	json_decref(value);
	return status;
}

int kvk_verify_state_save(const struct kvk_verify_state *state, const char *path)
{
	json_t *value = json_pack("{s:s, s:I, s:I, s:I, s:I, s:O}", "cursor", state->cursor, "checked",
				  (json_int_t)state->checked, "bytes", (json_int_t)state->bytes, "gone",
				  (json_int_t)state->gone, "skipped", (json_int_t)state->skipped, "bad", state->bad);
	char *text = value ? json_dumps(value, JSON_INDENT(1)) : NULL;
	int status = text ? kvk_cli_write_file(path, text, strlen(text)) : kvk_cli_fail("not enough memory");

	free(text);
	json_decref(value);
	return status;
}

void kvk_verify_state_forget(const char *path)
{
	unlink(path);
}
