/* SPDX-License-Identifier: Apache-2.0 */
/* Errors at open, in words for the person who wrote the configuration. */
#ifndef KVK_UTIL_ERROR_H
#define KVK_UTIL_ERROR_H

#include <kvkeep/store.h>

/*
 * Fills *error (which may be NULL) and returns code, a negative errno, so that `return kvk_error_set(...)`
 * reads well. option may be NULL. The first error stays: a later call on a filled *error only returns code.
 */
int kvk_error_set(struct kvk_error *error, int code, const char *option, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

#endif
