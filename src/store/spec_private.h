/* SPDX-License-Identifier: Apache-2.0 */
/* What the files that parse options share. */
#ifndef KVK_STORE_SPEC_PRIVATE_H
#define KVK_STORE_SPEC_PRIVATE_H

#include <jansson.h>

#include "store/spec.h"

#define GIB (UINT64_C(1) << 30)
#define MIB (UINT64_C(1) << 20)

/* What the options need to know of each other until all are read. */
struct parsing {
	struct kvk_spec *spec;
	struct kvk_error *error;
	bool says_shard_dirs, shard_dirs;
	bool says_max_objects;
	double max_objects;
};

struct option {
	const char *path;              /* "backend_params.file_path": what errors name */
	const char *name;
	int (*take)(struct parsing *parsing, const char *path, const json_t *value);
};

/* All fill the error, naming path, and return -EINVAL when the value is not what it must be. */
int kvk_spec_refuse(struct parsing *parsing, const char *path, const char *what);
int kvk_spec_take_bool(struct parsing *parsing, const char *path, const json_t *value, bool *ret);
/* In backend_params LMCache writes every value as a string: the two with _text take both. */
int kvk_spec_take_bool_text(struct parsing *parsing, const char *path, const json_t *value, bool *ret);
int kvk_spec_take_number_text(struct parsing *parsing, const char *path, const json_t *value, double min, double max,
			      double *ret);
int kvk_spec_take_number(struct parsing *parsing, const char *path, const json_t *value, double min, double max,
			 double *ret);
/* One of the words in the NULL-terminated list; *ret is its index. */
int kvk_spec_take_word(struct parsing *parsing, const char *path, const json_t *value, const char *const *words,
		       int *ret);

#endif
