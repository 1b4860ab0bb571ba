/* SPDX-License-Identifier: Apache-2.0 */
#include "util/log.h"

#include <stdarg.h>
#include <stdio.h>

void kvk_log(const struct kvk_log_sink *sink, int level, const char *format, ...)
{
	char text[512];
	va_list args;

	if (!sink || !sink->line)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	sink->line(sink->user, level, text);
}
