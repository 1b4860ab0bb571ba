/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SPEC_BYTES_MAX (1u << 20)

static json_t *directory_spec(const char *directory)
{
	return json_pack("{s:s, s:{s:s}}", "backend", "POSIX",
			 "backend_params", "file_path", directory);
}

/* name says in messages where the text comes from. */
static int parse_spec(json_t **ret, const char *name, const char *text, size_t bytes)
{
	json_error_t error;
	json_t *spec = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);

	if (!spec) {
		fprintf(stderr, "kvkeep: %s: line %d, column %d: %s\n", name, error.line, error.column, error.text);
		return KVK_EXIT_USAGE;
	}
	if (!json_is_object(spec)) {
		fprintf(stderr, "kvkeep: %s: a store is described by a JSON object\n", name);
		json_decref(spec);
		return KVK_EXIT_USAGE;
	}
	*ret = spec;
	return 0;
}

static int load_spec(json_t **ret, const char *argument)
{
	struct kvk_cli_blob blob;
	int status;

	if (*argument == '{')
		return parse_spec(ret, "STORE", argument, strlen(argument));
	if (*argument == '@') {
		status = kvk_cli_read_file(&blob, argument + 1, SPEC_BYTES_MAX);
		if (status)
			return status;
		status = parse_spec(ret, argument + 1, blob.data, blob.bytes);
		free(blob.data);
		return status;
	}
	if (!*argument) {
		fprintf(stderr, "kvkeep: STORE is empty; give a directory, JSON, or @file\n");
		return KVK_EXIT_USAGE;
	}
	*ret = directory_spec(argument);
	if (!*ret) {
		fprintf(stderr, "kvkeep: STORE: the directory's name is not UTF-8\n");
		return KVK_EXIT_USAGE;
	}
	return 0;
}

static int set_policy(json_t *spec, const struct kvk_cli_overlay *overlay)
{
	json_t *eviction = json_object_get(spec, "eviction");
	int err = 0;

	if (!overlay->policy)
		return 0;
	if (!json_is_object(eviction))
		err = json_object_set_new(spec, "eviction", json_object());
	eviction = json_object_get(spec, "eviction");
	if (!err && !(overlay->policy_by_default && json_object_get(eviction, "eviction_policy")))
		err = json_object_set_new(eviction, "eviction_policy", json_string(overlay->policy));
	return err;
}

static int set_use(json_t *spec, enum kvk_use use)
{
	json_t *eviction = json_object_get(spec, "eviction");
	int err = 0;

	/* At 1 it evicts only from above the cap, where no put finds room anyway. */
	if (use == KVK_USE_STORE && json_is_object(eviction))
		err |= json_object_set_new(eviction, "trigger_watermark", json_integer(1));
	if (use == KVK_USE_TEND || use == KVK_USE_LOOK)
		err |= json_object_set_new(spec, "visitor", json_true());
	if (use == KVK_USE_LOOK)
		err |= json_object_set_new(spec, "keeper", json_false());
	return err;
}

int kvk_cli_spec(json_t **ret, const char *argument, const struct kvk_cli_overlay *overlay)
{
	json_t *spec = NULL, *params;
	int status = load_spec(&spec, argument), err = 0;

	if (status)
		return status;
	if (!overlay->create && !json_object_get(spec, "create"))
		err |= json_object_set_new(spec, "create", json_false());
	if (overlay->durability)
		err |= json_object_set_new(spec, "durability", json_string(overlay->durability));
	if ((overlay->direct || overlay->cap_bytes) && !json_is_object(json_object_get(spec, "backend_params")))
		err |= json_object_set_new(spec, "backend_params", json_object());
	params = json_object_get(spec, "backend_params");
	if (overlay->direct)
		err |= json_object_set_new(params, "use_direct_io", json_true());
	if (overlay->cap_bytes)
		err |= json_object_set_new(params, "max_capacity_gb",
					   json_real((double)overlay->cap_bytes / (double)(1u << 30)));
	err |= set_policy(spec, overlay);
	err |= set_use(spec, overlay->use);
	if (err) {
		json_decref(spec);
		return kvk_cli_fail("not enough memory");
	}
	*ret = spec;
	return 0;
}

const char *kvk_cli_spec_directory(const json_t *spec)
{
	const json_t *params = json_object_get(spec, "backend_params");

	return json_string_value(json_object_get(params, "file_path"));
}

/* Warnings and errors of the store are for whoever runs the command; the rest is not. */
static void log_line(void *user, int level, const char *text)
{
	(void)user;
	if (level <= KVK_LOG_WARNING)
		fprintf(stderr, "kvkeep: %s: %s\n", level == KVK_LOG_ERROR ? "error" : "warning", text);
}

int kvk_cli_open_spec(struct kvk_store **ret, const json_t *spec, bool quiet, struct kvk_error *error_ret)
{
	struct kvk_hooks hooks = { .struct_bytes = sizeof(hooks), .log = quiet ? NULL : log_line };
	struct kvk_error error = { .struct_bytes = sizeof(error) };
	char *text = json_dumps(spec, JSON_COMPACT);
	int err;

	if (!text)
		return kvk_cli_fail("not enough memory");
	err = kvk_store_open(ret, text, &hooks, &error);
	free(text);
	if (!err)
		return 0;
	if (error_ret)
		*error_ret = error;
	else
		fprintf(stderr, "kvkeep: %s%s%s\n", error.option, error.option[0] ? ": " : "",
			error.text[0] ? error.text : strerror(-err));
	return err == -EINVAL ? KVK_EXIT_USAGE : KVK_EXIT_FAILED;
}

int kvk_cli_open(struct kvk_store **ret, const char *argument, const struct kvk_cli_overlay *overlay)
{
	json_t *spec = NULL;
	int status = kvk_cli_spec(&spec, argument, overlay);

	if (!status)
		status = kvk_cli_open_spec(ret, spec, overlay->quiet, NULL);
	json_decref(spec);
	return status;
}

const char *kvk_cli_result_text(const struct kvk_result *result)
{
	if (result->reason != KVK_REASON_NONE)
		return kvk_reason_text(result->reason);
	return result->status ? strerror(-result->status) : "done";
}
