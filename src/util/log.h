/* SPDX-License-Identifier: Apache-2.0 */
/* The library does not print: it hands lines to whoever was given as the sink. */
#ifndef KVK_UTIL_LOG_H
#define KVK_UTIL_LOG_H

#include <kvkeep/store.h>

/* line is called from any thread and must not wait; NULL: nobody listens. */
struct kvk_log_sink {
	void *user;
	void (*line)(void *user, int level, const char *text);
};

/* sink may be NULL. No keys, salts or contents: an object is named by 8 digits of its digest. */
void kvk_log(const struct kvk_log_sink *sink, int level, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#endif
