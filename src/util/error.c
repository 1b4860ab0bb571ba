/* SPDX-License-Identifier: Apache-2.0 */
#include "util/error.h"

#include <stdarg.h>
#include <stdio.h>

int kvk_error_set(struct kvk_error *error, int code, const char *option, const char *format, ...)
{
	va_list args;

	if (!error || error->code)
		return code;
	error->code = code;
	snprintf(error->option, sizeof(error->option), "%s", option ? option : "");
	va_start(args, format);
	vsnprintf(error->text, sizeof(error->text), format, args);
	va_end(args);
	return code;
}
