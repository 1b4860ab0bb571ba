/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The canonical text is written here and not by the JSON library: its form is what the digest is made of, and a
 * library may write the same number in another way in its next version.
 */
#include "format/format.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <openssl/evp.h>

#include "util/alloc.h"
#include "util/error.h"

enum { ERROR_TEXT_BYTES = 160 };

/* The text so far; once err is set nothing is added any more. */
struct text {
	char *data;
	size_t bytes;
	size_t room_bytes;
	int err;
};

static void add(struct text *text, const char *data, size_t bytes)
{
	if (text->err)
		return;
	if (bytes > KVK_MANIFEST_BYTES_MAX - text->bytes) {
		text->err = -EINVAL;
		return;
	}
	if (text->bytes + bytes + 1 > text->room_bytes) {
		size_t room_bytes = 2 * (text->bytes + bytes) + 256;
		char *grown = kvk_mem_realloc(text->data, room_bytes);

		if (!grown) {
			text->err = -ENOMEM;
			return;
		}
		text->data = grown;
		text->room_bytes = room_bytes;
	}
	memcpy(text->data + text->bytes, data, bytes);
	text->bytes += bytes;
	text->data[text->bytes] = '\0';
}

static void add_string(struct text *text, const char *string, size_t bytes)
{
	static const char escaped[] = "\"\\\b\f\n\r\t";
	static const char letters[] = "\"\\bfnrt";

	add(text, "\"", 1);
	for (size_t i = 0; i < bytes; i++) {
		unsigned char byte = (unsigned char)string[i];
		const char *known = memchr(escaped, byte, sizeof(escaped) - 1);
		char escape[8];

		if (known)
			add(text, escape, (size_t)snprintf(escape, sizeof(escape), "\\%c", letters[known - escaped]));
		else if (byte < 0x20)
			add(text, escape, (size_t)snprintf(escape, sizeof(escape), "\\u%04x", byte));
		else
			add(text, string + i, 1);
	}
	add(text, "\"", 1);
}

/*
 * The fewest digits that name this double and no other (17 always do), as printf's %g lays them out; ".0" keeps what
 * looks whole a real. '.' is written whatever the locale's point is, which may be several bytes long.
 */
static void add_real(struct text *text, double value)
{
	static const char digits_and_signs[] = "0123456789+-e";
	char printed[64], plain[64];
	size_t bytes = 0;
	int digits = 0;

	do
		snprintf(printed, sizeof(printed), "%.*g", ++digits, value);
	while (digits < 17 && strtod(printed, NULL) != value);
	for (const char *at = printed; *at;) {
		size_t part = strspn(at, digits_and_signs);

		memcpy(plain + bytes, at, part);
		bytes += part;
		at += part;
		if (*at)
			plain[bytes++] = '.';
		at += strcspn(at, digits_and_signs);
	}
	add(text, plain, bytes);
	if (printed[strspn(printed, "0123456789-")] == '\0')
		add(text, ".0", 2);
}

struct member {
	const char *name;
	size_t bytes;
	json_t *value;
};

static int member_order(const void *left, const void *right)
{
	const struct member *a = left, *b = right;
	int order = memcmp(a->name, b->name, a->bytes < b->bytes ? a->bytes : b->bytes);

	return order ? order : (a->bytes > b->bytes) - (a->bytes < b->bytes);
}

static void add_value(struct text *text, json_t *value);

static void add_object(struct text *text, json_t *object)
{
	size_t count = json_object_size(object), i = 0;
	struct member *members;
	const char *name;
	json_t *value;

	members = count ? kvk_mem_zalloc(count, sizeof(*members)) : NULL;
	if (count && !members) {
		text->err = -ENOMEM;
		return;
	}
	json_object_foreach(object, name, value)               /* LCOV_EXCL_BR_LINE: the macro asks for a value that each name has */
		members[i++] = (struct member){ name, strlen(name), value };
	if (count)
		qsort(members, count, sizeof(*members), member_order);
	add(text, "{", 1);
	for (i = 0; i < count; i++) {
		if (i)
			add(text, ",", 1);
		add_string(text, members[i].name, members[i].bytes);
		add(text, ":", 1);
		add_value(text, members[i].value);
	}
	add(text, "}", 1);
	kvk_mem_free(members);
}

static void add_array(struct text *text, json_t *array)
{
	add(text, "[", 1);
	for (size_t i = 0; i < json_array_size(array); i++) {
		if (i)
			add(text, ",", 1);
		add_value(text, json_array_get(array, i));
	}
	add(text, "]", 1);
}

/* Goes as deep as the parser lets a text be nested (2,048). */
static void add_value(struct text *text, json_t *value)
{
	char number[32];

	switch (json_typeof(value)) {      /* LCOV_EXCL_BR_LINE: the compiler's own, there is no other type */
	case JSON_OBJECT:
		add_object(text, value);
		return;
	case JSON_ARRAY:
		add_array(text, value);
		return;
	case JSON_STRING:
		add_string(text, json_string_value(value), json_string_length(value));
		return;
	case JSON_INTEGER:
		add(text, number, (size_t)snprintf(number, sizeof(number), "%" JSON_INTEGER_FORMAT,
						   json_integer_value(value)));
		return;
	case JSON_REAL:
		add_real(text, json_real_value(value));
		return;
	case JSON_TRUE:
		add(text, "true", 4);
		return;
	case JSON_FALSE:
		add(text, "false", 5);
		return;
	case JSON_NULL:
		add(text, "null", 4);
		return;
	}
}

static void say(char *error_text, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void say(char *error_text, const char *format, ...)
{
	va_list arguments;

	if (!error_text)
		return;
	va_start(arguments, format);
	vsnprintf(error_text, ERROR_TEXT_BYTES, format, arguments);
	va_end(arguments);
	kvk_error_clean(error_text);
}

/* What the library could not allocate it mostly passes on without a word. Then the code is what it was before. */
static bool has_no_memory(const json_error_t *error)
{
	enum json_error_code code = json_error_code(error);

	return code == json_error_unknown || code == json_error_out_of_memory;  /* LCOV_EXCL_BR_LINE: 2.14 never says the second */
}

int kvk_manifest_canonical(char **ret, const char *json, char *error_text)
{
	struct text text = { .data = NULL };
	json_error_t error = { 0 };
	json_t *root;

	root = json_loads(json, JSON_REJECT_DUPLICATES, &error);
	if (!root && has_no_memory(&error))
		return -ENOMEM;
	if (!root) {
		say(error_text, "line %d, column %d: %s", error.line, error.column, error.text);
		return -EINVAL;
	}
	if (json_typeof(root) == JSON_OBJECT) {
		add_value(&text, root);
		if (text.err == -EINVAL)
			say(error_text, "longer than %u bytes", KVK_MANIFEST_BYTES_MAX);
	} else {
		text.err = -EINVAL;
		say(error_text, "not a JSON object");
	}
	json_decref(root);
	if (text.err) {
		kvk_mem_free(text.data);
		return text.err;
	}
	*ret = text.data;
	return 0;
}

int kvk_manifest_digest(uint8_t digest[KVK_DIGEST_BYTES], const char *canonical)
{
	if (!canonical || strcmp(canonical, "{}") == 0) {
		memset(digest, 0, KVK_DIGEST_BYTES);
		return 0;
	}
	return EVP_Digest(canonical, strlen(canonical), digest, NULL, EVP_sha256(), NULL) ? 0 : -ENOMEM;
}
