/* SPDX-License-Identifier: Apache-2.0 */
#include "diff.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int diff_values(json_t *list, const char *path, const json_t *a, const json_t *b);

static int add(json_t *list, const char *path, const json_t *a, const json_t *b)
{
	json_t *one = json_pack("{s:s}", "path", *path ? path : ".");
	int err = one ? 0 : -1;

	if (!err && a)
		err = json_object_set(one, "a", (json_t *)a);
	if (!err && b)
		err = json_object_set(one, "b", (json_t *)b);
	if (err) {
		json_decref(one);
		return -1;
	}
	return json_array_append_new(list, one);
}

static int diff_member(json_t *list, const char *path, const char *name, const json_t *a, const json_t *b)
{
	char *longer = NULL;
	int err;

	if (asprintf(&longer, "%s%s%s", path, *path && *name != '[' ? "." : "", name) < 0)
		return -1;
	err = diff_values(list, longer, a, b);
	free(longer);
	return err;
}

static int diff_objects(json_t *list, const char *path, const json_t *a, const json_t *b)
{
	const char *name;
	json_t *value;
	int err = 0;

	json_object_foreach((json_t *)a, name, value) {
		if (!err)
			err = diff_member(list, path, name, value, json_object_get(b, name));
	}
	json_object_foreach((json_t *)b, name, value) {
		if (!err && !json_object_get(a, name))
			err = diff_member(list, path, name, NULL, value);
	}
	return err;
}

static int diff_arrays(json_t *list, const char *path, const json_t *a, const json_t *b)
{
	size_t count = json_array_size(a) > json_array_size(b) ? json_array_size(a) : json_array_size(b);
	char name[32];
	int err = 0;

	for (size_t i = 0; i < count && !err; i++) {
		snprintf(name, sizeof(name), "[%zu]", i);
		err = diff_member(list, path, name, json_array_get(a, i), json_array_get(b, i));
	}
	return err;
}

static int diff_values(json_t *list, const char *path, const json_t *a, const json_t *b)
{
	if (json_is_object(a) && json_is_object(b))
		return diff_objects(list, path, a, b);
	if (json_is_array(a) && json_is_array(b))
		return diff_arrays(list, path, a, b);
	if (a && b && json_equal(a, b))
		return 0;
	return add(list, path, a, b);
}

json_t *kvk_json_diff(const json_t *a, const json_t *b)
{
	json_t *list = json_array();

	if (list && diff_values(list, "", a, b)) {
		json_decref(list);
		return NULL;
	}
	return list;
}
