/* SPDX-License-Identifier: Apache-2.0 */
#include "text.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct unit {
	const char *name;
	uint64_t factor;
};

static const struct unit size_units[] = {
	{ "", 1 }, { "B", 1 },
	{ "K", UINT64_C(1) << 10 }, { "KiB", UINT64_C(1) << 10 }, { "KB", 1000 },
	{ "M", UINT64_C(1) << 20 }, { "MiB", UINT64_C(1) << 20 }, { "MB", 1000000 },
	{ "G", UINT64_C(1) << 30 }, { "GiB", UINT64_C(1) << 30 }, { "GB", 1000000000 },
	{ "T", UINT64_C(1) << 40 }, { "TiB", UINT64_C(1) << 40 }, { "TB", UINT64_C(1000000000000) },
	{ NULL, 0 },
};

#define NS_PER_S UINT64_C(1000000000)

/* A part of a whole, in parts of 10^10: 8 digits after the point of a percentage still count. */
#define PER_CENT UINT64_C(100000000)

static const struct unit percent_units[] = { { "", PER_CENT }, { NULL, 0 } };

static const struct unit time_units[] = {
	{ "ns", 1 }, { "us", 1000 }, { "ms", 1000000 }, { "s", NS_PER_S }, { "m", 60 * NS_PER_S },
	{ "h", 3600 * NS_PER_S }, { "d", 86400 * NS_PER_S }, { "w", 7 * 86400 * NS_PER_S },
	{ "", NS_PER_S },
	{ NULL, 0 },
};

/* One number with its unit off the front of *text. Kept in integers: 2^53 and more must come out exact. */
static int parse_quantity(uint64_t *ret, const char **text, const struct unit *units)
{
	const char *at = *text;
	unsigned __int128 whole = 0, part = 0, scale = 1;
	size_t letters = 0;

	if (!isdigit((unsigned char)*at))
		return -EINVAL;
	for (; isdigit((unsigned char)*at); at++) {
		whole = whole * 10 + (unsigned)(*at - '0');
		if (whole > INT64_MAX)
			return -ERANGE;
	}
	if (*at == '.') {
		at++;
		if (!isdigit((unsigned char)*at))
			return -EINVAL;
		for (; isdigit((unsigned char)*at); at++) {
			if (scale > UINT64_C(1000000000000))
				continue;
			part = part * 10 + (unsigned)(*at - '0');
			scale *= 10;
		}
	}
	while (isalpha((unsigned char)at[letters]))
		letters++;
	for (; units->name; units++) {
		if (strlen(units->name) == letters && !strncasecmp(units->name, at, letters))
			break;
	}
	if (!units->name)
		return -EINVAL;
	whole = whole * units->factor + part * units->factor / scale;
	if (whole > INT64_MAX)
		return -ERANGE;
	*text = at + letters;
	*ret = (uint64_t)whole;
	return 0;
}

int kvk_cli_parse_bytes(uint64_t *ret, const char *text)
{
	uint64_t bytes;
	int err = parse_quantity(&bytes, &text, size_units);

	if (err)
		return err;
	if (*text)
		return -EINVAL;
	*ret = bytes;
	return 0;
}

int kvk_cli_parse_share(uint64_t *ret, const char *text, uint64_t whole)
{
	size_t bytes = strlen(text);
	uint64_t part;
	int err;

	if (bytes == 0 || text[bytes - 1] != '%')
		return kvk_cli_parse_bytes(ret, text);
	err = parse_quantity(&part, &text, percent_units);
	if (err)
		return err;
	if (strcmp(text, "%") != 0)
		return -EINVAL;
	if (part > 100 * PER_CENT)
		return -ERANGE;
	*ret = (uint64_t)(((unsigned __int128)whole * part + 100 * PER_CENT - 1) / (100 * PER_CENT));
	return 0;
}

int kvk_cli_parse_ns(uint64_t *ret, const char *text)
{
	uint64_t sum_ns = 0;

	do {
		uint64_t ns;
		int err = parse_quantity(&ns, &text, time_units);

		if (err)
			return err;
		if (ns > (uint64_t)INT64_MAX - sum_ns)
			return -ERANGE;
		sum_ns += ns;
	} while (*text);
	*ret = sum_ns;
	return 0;
}

int kvk_cli_parse_count(uint64_t *ret, const char *text, uint64_t least, uint64_t most)
{
	char *end;
	unsigned long long count;

	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	errno = 0;
	count = strtoull(text, &end, 10);
	if (*end)
		return -EINVAL;
	if (errno || count < least || count > most)
		return -ERANGE;
	*ret = count;
	return 0;
}

const char *kvk_cli_format_bytes(char text[KVK_CLI_TEXT_BYTES], uint64_t bytes)
{
	static const char *const units[] = { "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double value = (double)bytes / 1024;
	unsigned unit = 0;

	if (bytes < 1024) {
		snprintf(text, KVK_CLI_TEXT_BYTES, "%u B", (unsigned)bytes);
		return text;
	}
	while (value >= 1023.95 && unit < 5) {
		value /= 1024;
		unit++;
	}
	snprintf(text, KVK_CLI_TEXT_BYTES, "%.1f %s", value, units[unit]);
	return text;
}

const char *kvk_cli_format_ns(char text[KVK_CLI_TEXT_BYTES], uint64_t ns)
{
	static const struct unit steps[] = {
		{ "d", 86400 * NS_PER_S }, { "h", 3600 * NS_PER_S }, { "m", 60 * NS_PER_S },
		{ "s", NS_PER_S }, { "ms", 1000000 }, { "us", 1000 }, { NULL, 0 },
	};

	for (const struct unit *step = steps; step->name; step++) {
		double value = (double)ns / (double)step->factor;

		if (ns < step->factor)
			continue;
		snprintf(text, KVK_CLI_TEXT_BYTES, value < 9.95 ? "%.1f %s" : "%.0f %s", value, step->name);
		return text;
	}
	snprintf(text, KVK_CLI_TEXT_BYTES, "%u ns", (unsigned)ns);
	return text;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int kvk_cli_unhex(uint8_t *data, size_t room, const char *text)
{
	size_t digits = strlen(text);

	if (digits % 2)
		return -EINVAL;
	if (digits / 2 > room)
		return -ENOSPC;
	for (size_t i = 0; i < digits; i += 2) {
		int high = hex_digit(text[i]), low = hex_digit(text[i + 1]);

		if (high < 0 || low < 0)
			return -EINVAL;
		data[i / 2] = (uint8_t)(high << 4 | low);
	}
	return (int)(digits / 2);
}

const char *kvk_cli_hex(char *text, const void *data, size_t bytes)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *from = data;

	for (size_t i = 0; i < bytes; i++) {
		text[2 * i] = digits[from[i] >> 4];
		text[2 * i + 1] = digits[from[i] & 15];
	}
	text[2 * bytes] = '\0';
	return text;
}

int kvk_cli_parse_key(struct kvk_cli_key *ret, const char *text)
{
	size_t bytes = strlen(text);
	uint8_t *data;
	int count;

	if (bytes == 0)
		return -EINVAL;
	if (strncmp(text, "hex:", 4)) {
		if (bytes > KVK_KEY_BYTES_MAX)
			return -ENAMETOOLONG;
		data = malloc(bytes);
		if (!data)
			return -ENOMEM;
		memcpy(data, text, bytes);
		*ret = (struct kvk_cli_key){ .data = data, .bytes = (uint32_t)bytes };
		return 0;
	}
	data = malloc(KVK_KEY_BYTES_MAX);
	if (!data)
		return -ENOMEM;
	count = kvk_cli_unhex(data, KVK_KEY_BYTES_MAX, text + 4);
	if (count <= 0) {
		free(data);
		return count == -ENOSPC ? -ENAMETOOLONG : -EINVAL;
	}
	*ret = (struct kvk_cli_key){ .data = data, .bytes = (uint32_t)count };
	return 0;
}

/* The length of the printable character at data, or 0: a key must not move a terminal's cursor or turn text round. */
static size_t printable_bytes(const uint8_t *data, size_t bytes)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	uint32_t code;
	size_t length;

	if (data[0] < 0x80)
		return data[0] >= 0x20 && data[0] != 0x7f;
	if (data[0] >= 0xf8 || data[0] < 0xc0)
		return 0;
	length = data[0] >= 0xf0 ? 4 : data[0] >= 0xe0 ? 3 : 2;
	if (length > bytes)
		return 0;
	code = data[0] & (0xffu >> (length + 1));
	for (size_t i = 1; i < length; i++) {
		if ((data[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (data[i] & 0x3f);
	}
	if (code < least[length] || code > 0x10ffff || code < 0xa0 || (code >= 0xd800 && code <= 0xdfff))
		return 0;
	if ((code >= 0x200b && code <= 0x200f) || (code >= 0x2028 && code <= 0x202e) ||
	    (code >= 0x2060 && code <= 0x206f) || code == 0xfeff || code == 0xad)
		return 0;
	return length;
}

bool kvk_cli_printable(const void *data, size_t bytes)
{
	const uint8_t *at = data, *end = at + bytes;

	while (at < end) {
		size_t length = printable_bytes(at, (size_t)(end - at));

		if (length == 0)
			return false;
		at += length;
	}
	return true;
}

const char *kvk_cli_format_key(char *text, const void *key, uint32_t bytes)
{
	bool mistaken = (bytes >= 4 && !memcmp(key, "hex:", 4)) || (bytes > 0 && *(const char *)key == '-');

	if (!mistaken && kvk_cli_printable(key, bytes)) {
		memcpy(text, key, bytes);
		text[bytes] = '\0';
		return text;
	}
	memcpy(text, "hex:", 4);
	kvk_cli_hex(text + 4, key, bytes);
	return text;
}

const char *kvk_cli_escape(char *text, size_t text_bytes, const void *data, size_t bytes)
{
	const uint8_t *at = data, *end = at + bytes;
	size_t used = 0;

	while (at < end) {
		size_t length = *at == '\\' ? 0 : printable_bytes(at, (size_t)(end - at));
		size_t wanted = length ? length : 4;

		if (used + wanted >= text_bytes)
			break;
		if (length) {
			memcpy(text + used, at, length);
		} else {
			memcpy(text + used, "\\x", 2);
			kvk_cli_hex(text + used + 2, at, 1);
			length = 1;
		}
		used += wanted;
		at += length;
	}
	text[used] = '\0';
	return text;
}
