/* SPDX-License-Identifier: Apache-2.0 */
/* Between what people write and read and what programs count: sizes, durations, keys. Pure functions. */
#ifndef KVK_CLI_TEXT_H
#define KVK_CLI_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <kvkeep/kvkeep.h>

/*
 * A size: digits, perhaps a fraction, perhaps a unit. K, KiB and so on (M, G, T) are powers of 1,024, KB and so
 * on powers of 1,000; case does not matter. -EINVAL: not a size. -ERANGE: 2^63 bytes or more.
 */
int kvk_cli_parse_bytes(uint64_t *ret, const char *text);

/* A size as above, or a part of whole such as 10% or 0.5%, rounded up. Errors as above; over 100% is out of range. */
int kvk_cli_parse_share(uint64_t *ret, const char *text, uint64_t whole);

/* A duration such as 90, 90s, 1h30m, 500ms, 7d, 2w; a bare number is seconds. Errors as above. */
int kvk_cli_parse_ns(uint64_t *ret, const char *text);

/* A whole number from least to most, in decimal. Errors as above. */
int kvk_cli_parse_count(uint64_t *ret, const char *text, uint64_t least, uint64_t most);

/* What formatters write fits; they return text so that they can stand in an argument list. */
#define KVK_CLI_TEXT_BYTES 32

/* "17.2 MiB" */
const char *kvk_cli_format_bytes(char text[KVK_CLI_TEXT_BYTES], uint64_t bytes);
/* "3.2 d": two digits that matter, for ages and times left */
const char *kvk_cli_format_ns(char text[KVK_CLI_TEXT_BYTES], uint64_t ns);

/* A KEY argument: text as it is, or what "hex:" is followed by. Freed with free(). */
struct kvk_cli_key {
	uint8_t *data;
	uint32_t bytes;
};

/* -EINVAL: empty, or bad hex. -ENAMETOOLONG: over KVK_KEY_BYTES_MAX. -ENOMEM. */
int kvk_cli_parse_key(struct kvk_cli_key *ret, const char *text);

/*
 * The KEY argument that stands for these bytes: themselves if they are printable UTF-8 and cannot be
 * mistaken, else the hex form, so that what `ls` shows can be given to `get`. text wants
 * KVK_CLI_KEY_TEXT_BYTES of room.
 */
#define KVK_CLI_KEY_TEXT_BYTES (2 * KVK_KEY_BYTES_MAX + 8)
const char *kvk_cli_format_key(char *text, const void *key, uint32_t bytes);

/*
 * Bytes for people: printable UTF-8 as it is, backslash and all else as \xNN. Cut to what fits into text_bytes,
 * which is at least 1.
 */
const char *kvk_cli_escape(char *text, size_t text_bytes, const void *data, size_t bytes);

/* Whether bytes are UTF-8 without control, formatting or direction characters. */
bool kvk_cli_printable(const void *data, size_t bytes);

/* Lower-case hex; text wants 2 * bytes + 1. */
const char *kvk_cli_hex(char *text, const void *data, size_t bytes);
/* Both cases, an even number of digits. -EINVAL: not hex. -ENOSPC: longer than room. Returns the bytes. */
int kvk_cli_unhex(uint8_t *data, size_t room, const char *text);

#endif
