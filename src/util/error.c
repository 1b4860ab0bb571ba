/* SPDX-License-Identifier: Apache-2.0 */
#include "util/error.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

/* The length of the printable character at a text, or 0. */
static size_t character_bytes(const unsigned char *at)
{
	static const uint32_t least[] = { 0, 0, 0xa0, 0x800, 0x10000 };
	uint32_t code;
	size_t bytes;

	if (*at < 0x80)
		return *at >= 0x20 && *at != 0x7f;
	if (*at < 0xc0 || *at >= 0xf8)
		return 0;
	bytes = *at >= 0xf0 ? 4 : *at >= 0xe0 ? 3 : 2;
	code = *at & (0xffu >> (bytes + 1));
	for (size_t i = 1; i < bytes; i++) {
		if ((at[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (at[i] & 0x3f);
	}
	return code < least[bytes] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff) ? 0 : bytes;
}

void kvk_error_clean(char *text)
{
	while (*text) {
		size_t bytes = character_bytes((const unsigned char *)text);

		if (bytes == 0)
			*text = '?';
		text += bytes ? bytes : 1;
	}
}

int kvk_error_set(struct kvk_error *error, int code, const char *option, const char *format, ...)
{
	va_list args;

	if (!error || error->code)
		return code;
	error->code = code;
	snprintf(error->option, sizeof(error->option), "%s", option ? option : "");
	kvk_error_clean(error->option);
	va_start(args, format);
	vsnprintf(error->text, sizeof(error->text), format, args);
	va_end(args);
	kvk_error_clean(error->text);
	return code;
}
