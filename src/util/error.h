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

/*
 * Puts a '?' for each byte that is no part of a printable UTF-8 character: what is quoted may have been cut in the middle of one, or
 * move the cursor of a terminal, and languages that insist on UTF-8 could not tell the error at all.
 */
void kvk_error_clean(char *text);

#endif
