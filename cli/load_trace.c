/* SPDX-License-Identifier: Apache-2.0 */
#include "load_trace.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int kvk_cli_load_trace(struct kvk_trace *trace, const struct kvk_cli_verb *verb, const char *argument, uint64_t limit,
		       uint64_t seed)
{
	char error[KVK_TRACE_ERROR_BYTES] = "not enough memory";
	struct kvk_chat chat = { .seed = seed };
	FILE *in;
	int err;

	if (!strncmp(argument, "chat:", 5)) {
		if (kvk_chat_parse(&chat, argument + 5, error))
			return kvk_cli_usage(verb, "TRACE: chat: %s", error);
		err = kvk_chat_make(trace, &chat, limit);
		if (err)
			return kvk_cli_fail("%s: %s", argument, strerror(-err));
	} else {
		in = !strcmp(argument, "-") ? stdin : fopen(argument, "re");
		if (!in)
			return kvk_cli_fail("%s: %s", argument, strerror(errno));
		err = kvk_trace_read(trace, in, limit, error);
		if (in != stdin)
			fclose(in);
		if (err)
			return kvk_cli_fail("%s: %s", argument, error);
	}
	return trace->request_count ? 0 : kvk_cli_fail("%s: no requests", argument);
}
