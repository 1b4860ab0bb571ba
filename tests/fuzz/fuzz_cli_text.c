/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What people write on command lines, of any bytes: sizes, shares, durations, counts and keys. What is taken comes back when it
 * is written down and read again; what is refused changes nothing; what is shown of any bytes moves no cursor.
 */
#include "fuzz.h"

#include <errno.h>
#include <inttypes.h>

#include "text.h"

#define UNTOUCHED UINT64_C(0xa5a5a5a5a5a5a5a5)

static void try_result(int err, uint64_t value, uint64_t most)
{
	if (err)
		FUZZ_ASSERT((err == -EINVAL || err == -ERANGE) && value == UNTOUCHED);
	else
		FUZZ_ASSERT(value <= most);
}

static void try_numbers(const char *text)
{
	uint64_t bytes = UNTOUCHED, ns = UNTOUCHED, count = UNTOUCHED, share = UNTOUCHED, again = UNTOUCHED;
	char shown[KVK_CLI_TEXT_BYTES], written[32];
	int err = kvk_cli_parse_bytes(&bytes, text);

	try_result(err, bytes, INT64_MAX);
	if (!err) {
		FUZZ_ASSERT(strlen(kvk_cli_format_bytes(shown, bytes)) < sizeof(shown));
		snprintf(written, sizeof(written), "%" PRIu64 "b", bytes);
		FUZZ_ASSERT(kvk_cli_parse_bytes(&again, written) == 0 && again == bytes);
		FUZZ_ASSERT(kvk_cli_parse_share(&share, text, 1000) == 0 && share == bytes);
		share = UNTOUCHED;
	}
	err = kvk_cli_parse_ns(&ns, text);
	try_result(err, ns, INT64_MAX);
	if (!err) {
		FUZZ_ASSERT(strlen(kvk_cli_format_ns(shown, ns)) < sizeof(shown));
		snprintf(written, sizeof(written), "%" PRIu64 "ns", ns);
		FUZZ_ASSERT(kvk_cli_parse_ns(&again, written) == 0 && again == ns);
	}
	err = kvk_cli_parse_count(&count, text, 3, 1000);
	try_result(err, count, 1000);
	FUZZ_ASSERT(err || count >= 3);
	if (text[0] && text[strlen(text) - 1] == '%') {
		err = kvk_cli_parse_share(&share, text, UINT64_MAX);
		try_result(err, share, UINT64_MAX);
		FUZZ_ASSERT(err || (kvk_cli_parse_share(&again, text, 0) == 0 && again == 0));
	}
}

/* Whatever number is to be shown fits. */
static void try_shown(struct fuzz_rest rest)
{
	char shown[KVK_CLI_TEXT_BYTES];
	uint64_t number = fuzz_take(&rest, 8);

	FUZZ_ASSERT(strlen(kvk_cli_format_bytes(shown, number)) < sizeof(shown));
	FUZZ_ASSERT(strlen(kvk_cli_format_ns(shown, number)) < sizeof(shown));
}

static void try_key_text(const char *text)
{
	struct kvk_cli_key key, again;
	char shown[KVK_CLI_KEY_TEXT_BYTES];
	int err;

	memset(&key, FUZZ_SPOILT, sizeof(key));
	err = kvk_cli_parse_key(&key, text);
	if (err) {
		FUZZ_ASSERT((err == -EINVAL || err == -ENAMETOOLONG) && fuzz_is_spoilt(&key, sizeof(key)));
		return;
	}
	FUZZ_ASSERT(key.bytes >= 1 && key.bytes <= KVK_KEY_BYTES_MAX);
	FUZZ_ASSERT(strncmp(text, "hex:", 4) == 0 || (strlen(text) == key.bytes && memcmp(text, key.data, key.bytes) == 0));
	FUZZ_ASSERT(kvk_cli_parse_key(&again, kvk_cli_format_key(shown, key.data, key.bytes)) == 0);
	FUZZ_ASSERT(again.bytes == key.bytes && memcmp(again.data, key.data, key.bytes) == 0);
	free(key.data);
	free(again.data);
}

static void try_key_bytes(const uint8_t *data, size_t bytes)
{
	uint32_t key_bytes = bytes < KVK_KEY_BYTES_MAX ? (uint32_t)bytes : KVK_KEY_BYTES_MAX;
	char shown[KVK_CLI_KEY_TEXT_BYTES];
	struct kvk_cli_key key;

	if (key_bytes == 0)
		return;
	kvk_cli_format_key(shown, data, key_bytes);
	FUZZ_ASSERT(fuzz_is_utf8(shown) && kvk_cli_printable(shown, strlen(shown)) && shown[0] != '-');
	FUZZ_ASSERT(kvk_cli_parse_key(&key, shown) == 0);
	FUZZ_ASSERT(key.bytes == key_bytes && memcmp(key.data, data, key_bytes) == 0);
	free(key.data);
}

/* What is shown is printable, and its bytes are those it was made from, as far as there was room. */
static void try_escaped(const uint8_t *data, size_t bytes)
{
	char shown[64];
	size_t room = 1 + bytes % sizeof(shown), at = 0;
	const uint8_t *of = data;

	memset(shown, FUZZ_SPOILT, sizeof(shown));
	kvk_cli_escape(shown, room, data, bytes);
	FUZZ_ASSERT(fuzz_is_spoilt(shown + room, sizeof(shown) - room));
	FUZZ_ASSERT(strlen(shown) < room && fuzz_is_utf8(shown) && kvk_cli_printable(shown, strlen(shown)));
	while (shown[at]) {
		uint8_t byte = (uint8_t)shown[at];
		char digits[3] = "";

		if (byte == '\\') {
			FUZZ_ASSERT(shown[at + 1] == 'x');
			memcpy(digits, shown + at + 2, 2);
			FUZZ_ASSERT(kvk_cli_unhex(&byte, 1, digits) == 1);
			at += 3;
		}
		FUZZ_ASSERT(of < data + bytes && *of == byte);
		of++;
		at++;
	}
	FUZZ_ASSERT(of == data + bytes || strlen(shown) + 5 > room);
}

static void try_hex(const char *text)
{
	uint8_t data[64];
	char again[2 * sizeof(data) + 1];
	int count;

	memset(data, FUZZ_SPOILT, sizeof(data));
	count = kvk_cli_unhex(data, sizeof(data), text);
	FUZZ_ASSERT(count == -EINVAL || count == -ENOSPC || (size_t)count * 2 == strlen(text));
	if (count >= 0)
		FUZZ_ASSERT(strcasecmp(kvk_cli_hex(again, data, (size_t)count), text) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	char *text = fuzz_text(data, bytes);

	fuzz_memory_limit(1 << 16);
	try_numbers(text);
	try_key_text(text);
	try_hex(text);
	try_shown((struct fuzz_rest){ data, bytes });
	try_key_bytes(data, bytes);
	try_escaped(data, bytes);
	fuzz_memory_limit(SIZE_MAX);
	free(text);
	return 0;
}
