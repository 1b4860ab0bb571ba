/* SPDX-License-Identifier: Apache-2.0 */
/* Kinds of values that options have. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "store/spec_private.h"
#include "util/error.h"

int kvk_spec_refuse(struct parsing *parsing, const char *path, const char *what)
{
	return kvk_error_set(parsing->error, -EINVAL, path, "%s", what);
}

int kvk_spec_take_bool(struct parsing *parsing, const char *path, const json_t *value, bool *ret)
{
	if (!json_is_boolean(value))
		return kvk_spec_refuse(parsing, path, "must be true or false (not a string)");
	*ret = json_is_true(value);
	return 0;
}

int kvk_spec_take_bool_text(struct parsing *parsing, const char *path, const json_t *value, bool *ret)
{
	const char *text = json_string_value(value);

	if (text && (!strcmp(text, "true") || !strcmp(text, "false"))) {
		*ret = !strcmp(text, "true");
		return 0;
	}
	if (!json_is_boolean(value))
		return kvk_spec_refuse(parsing, path, "must be true or false, or the same as a string");
	*ret = json_is_true(value);
	return 0;
}

int kvk_spec_take_number(struct parsing *parsing, const char *path, const json_t *value, double min, double max,
			 double *ret)
{
	if (!json_is_number(value))
		return kvk_error_set(parsing->error, -EINVAL, path, "must be a number from %g to %g", min, max);
	if (!(json_number_value(value) >= min) || !(json_number_value(value) <= max))
		return kvk_error_set(parsing->error, -EINVAL, path, "is %g, must be from %g to %g",
				     json_number_value(value), min, max);
	*ret = json_number_value(value);
	return 0;
}

int kvk_spec_take_number_text(struct parsing *parsing, const char *path, const json_t *value, double min,
			      double max, double *ret)
{
	const char *text = json_string_value(value);
	char *rest;
	double number;

	if (!text)
		return kvk_spec_take_number(parsing, path, value, min, max, ret);
	errno = 0;
	number = strtod(text, &rest);
	if (*text == 0 || *rest || errno || !isfinite(number) || !(number >= min) || !(number <= max))
		return kvk_error_set(parsing->error, -EINVAL, path, "is \"%.40s\", must be a number from %g to %g",
				     text, min, max);
	*ret = number;
	return 0;
}

int kvk_spec_take_word(struct parsing *parsing, const char *path, const json_t *value, const char *const *words,
		       int *ret)
{
	const char *text = json_string_value(value);
	char choice[200] = "";

	for (int i = 0; words[i]; i++) {
		if (text && !strcmp(text, words[i])) {
			*ret = i;
			return 0;
		}
		snprintf(choice + strlen(choice), sizeof(choice) - strlen(choice), "%s\"%s\"",
			 i ? (words[i + 1] ? ", " : " or ") : "", words[i]);
	}
	return kvk_error_set(parsing->error, -EINVAL, path, "%s%.40s%s must be %s", text ? "is \"" : "",
			     text ? text : "", text ? "\"," : "", choice);
}
