/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Accounts of any bytes, as they are and once more with their CRCs made right: what is accepted is what the encoder writes, of
 * two copies the newer one counts, and all sums stay within 64 bits.
 *
 * An account is 48 KiB of zeros for the most part, so an input is a list of changes to one: where (two bytes, of the file), how
 * many bytes (one), and those. Its first byte says how long the file is and which account is changed.
 */
#include "fuzz.h"

#include <errno.h>

#include "format/bytes.h"
#include "format/format.h"

enum { COPIES = 2, FILE_BYTES = COPIES * KVK_ACCOUNT_BYTES, AT_COMPAT = 16, AT_CRC = 8188, AT_ROWS = 8192 };

static struct kvk_account_image image, scratch, other;
static uint8_t file[FILE_BYTES], again[KVK_ACCOUNT_BYTES];

/* A store that is in use: charges, two processes, one that is lost. */
static void make_image(uint64_t sequence)
{
	static const char host[] = "host-1";

	memset(&image, 0, sizeof(image));
	image.sequence = sequence;
	image.epoch = 3;
	image.cap_bytes = UINT64_C(1) << 40;
	image.loose_bytes = 4096;
	image.remade = 7;
	image.needs_scan = sequence % 2;
	image.charged_bytes[0x5a] = 1 << 20;
	image.published_bytes[0x5a] = 1 << 21;
	image.charged_bytes[KVK_BUCKET_QUARANTINE] = 8192;
	image.posted[0x5a] = 2;
	image.rows[0] = (struct kvk_account_line){ .token = 1, .leased_bytes = 1 << 16, .pid = 77, .visits = 9 };
	image.rows[9] = (struct kvk_account_line){ .token = 0, .lost = true };
	memcpy(image.rows[0].host, host, sizeof(host));
	memcpy(image.rows[9].host, host, sizeof(host));
}

static void try_copy(const uint8_t *data, size_t bytes)
{
	uint64_t sum;
	int err;

	memset(&image, FUZZ_SPOILT, sizeof(image));
	err = kvk_account_parse(&image, data, bytes);
	if (err) {
		FUZZ_ASSERT(err == -EBADMSG || err == -EPROTO);
		FUZZ_ASSERT(fuzz_is_spoilt(&image, sizeof(image)));
		return;
	}
	sum = image.loose_bytes;
	for (unsigned i = 0; i < KVK_ACCOUNT_BUCKETS; i++)
		FUZZ_ASSERT(!__builtin_add_overflow(sum, image.charged_bytes[i], &sum));
	for (unsigned i = 0; i < KVK_ACCOUNT_ROWS; i++) {
		FUZZ_ASSERT(!__builtin_add_overflow(sum, image.rows[i].leased_bytes, &sum));
		FUZZ_ASSERT(memchr(image.rows[i].host, '\0', sizeof(image.rows[i].host)));
	}
	kvk_account_encode(&image, again);
	FUZZ_ASSERT(kvk_get32(data + AT_COMPAT) != 0 || memcmp(again, data, bytes) == 0);
}

/* What the two copies say, each alone, is what the file says. */
static void try_file(size_t bytes)
{
	static struct kvk_account_image whole;
	int first = kvk_account_parse(&scratch, file, bytes < KVK_ACCOUNT_BYTES ? bytes : KVK_ACCOUNT_BYTES);
	int second = kvk_account_parse(&other, file + KVK_ACCOUNT_BYTES,
				       bytes > KVK_ACCOUNT_BYTES ? bytes - KVK_ACCOUNT_BYTES : 0);
	int err;
	const struct kvk_account_image *counts = first ? &other : second ? &scratch :
						 (int64_t)(other.sequence - scratch.sequence) > 0 ? &other : &scratch;
	uint64_t sequence = counts->sequence, epoch = counts->epoch, cap_bytes = counts->cap_bytes;

	err = kvk_account_parse_file(&whole, &scratch, file, bytes);
	if (first == -EPROTO || second == -EPROTO)
		FUZZ_ASSERT(err == -EPROTO);
	else if (first && second)
		FUZZ_ASSERT(err == -EBADMSG);
	else
		FUZZ_ASSERT(!err && whole.sequence == sequence && whole.epoch == epoch && whole.cap_bytes == cap_bytes);
}

static void try_all(size_t bytes)
{
	for (size_t at = 0; at < bytes; at += KVK_ACCOUNT_BYTES)
		try_copy(file + at, bytes - at < KVK_ACCOUNT_BYTES ? bytes - at : KVK_ACCOUNT_BYTES);
	try_file(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct fuzz_rest rest = { data, bytes };
	uint8_t choice = (uint8_t)fuzz_take(&rest, 1);
	size_t file_bytes = FILE_BYTES;

	for (unsigned i = 0; i < COPIES; i++) {
		make_image(choice % 16u + (i == choice / 16 % 2));
		kvk_account_encode(&image, file + i * KVK_ACCOUNT_BYTES);
	}
	if (choice & 0x20)
		file_bytes = (size_t)fuzz_take(&rest, 2) % (FILE_BYTES + 1);
	if (choice & 0x40)
		memset(file, 0, KVK_ACCOUNT_BYTES);
	while (rest.bytes > 0) {
		size_t at = (size_t)fuzz_take(&rest, 2) % FILE_BYTES, count = (size_t)fuzz_take(&rest, 1);

		count = count < rest.bytes ? count : rest.bytes;
		count = count < FILE_BYTES - at ? count : FILE_BYTES - at;
		memcpy(file + at, rest.at, count);
		rest.at += count;
		rest.bytes -= count;
	}
	try_all(file_bytes);
	for (unsigned i = 0; i < COPIES; i++) {
		uint8_t *copy = file + i * KVK_ACCOUNT_BYTES;
		uint32_t crc = kvk_crc32c(copy, AT_CRC, 0);

		kvk_put32(copy + AT_CRC, kvk_crc32c(copy + AT_ROWS, KVK_ACCOUNT_BYTES - AT_ROWS, crc));
	}
	try_all(file_bytes);
	return 0;
}
