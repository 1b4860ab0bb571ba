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
	bool is_pool;
	bool says_file_size;
	double file_bytes;
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

/* The members of an object, each by the table that ends with zeros; an unknown one is refused. */
int kvk_spec_take_object(struct parsing *parsing, const char *path, const json_t *value,
			 const struct option *known);

/* spec_limits.c */
int kvk_spec_take_eviction(struct parsing *parsing, const char *path, const json_t *value);
int kvk_spec_take_min_free(struct parsing *parsing, const char *path, const json_t *value);
int kvk_spec_take_disk_watermark(struct parsing *parsing, const char *path, const json_t *value);
void kvk_spec_release_quotas(struct kvk_spec *spec);

/* spec_pool.c */
int kvk_spec_take_type(struct parsing *parsing, const char *path, const json_t *value);
int kvk_spec_take_pool_size(struct parsing *parsing, const char *path, const json_t *value);
int kvk_spec_take_slot_size(struct parsing *parsing, const char *path, const json_t *value);
int kvk_spec_take_file_size(struct parsing *parsing, const char *path, const json_t *value);
int kvk_spec_take_device_path(struct parsing *parsing, const char *path, const json_t *value);
/* Sets the shape that a pool is to have, and refuses what belongs to pools alone where none was asked for. */
int kvk_spec_settle_pool(struct parsing *parsing);

#endif
