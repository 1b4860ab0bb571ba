/* SPDX-License-Identifier: Apache-2.0 */
#include "format/format.h"

#include <errno.h>

#include "format/bytes.h"

enum {
	AT_MAGIC = 0,
	AT_VERSION = 8,
	AT_INCOMPAT = 12,
	AT_COMPAT = 16,
	AT_FLAGS = 20,
	AT_SEQUENCE = 24,
	AT_EPOCH = 32,
	AT_CAP = 40,
	AT_LOOSE = 48,
	AT_LOOSENED = 56,
	AT_WANTED = 64,
	AT_REMADE = 72,
	AT_ASKED = 76,
	AT_WRITTEN = 80,
	AT_SKEW = 88,
	AT_SKEWED = 96,
	AT_DIED = 104,
	AT_RESERVED_1 = 112,
	AT_CHARGED = 128,
	AT_POSTED = AT_CHARGED + 8 * KVK_ACCOUNT_BUCKETS,
	AT_ZERO = AT_POSTED + 4 * KVK_ACCOUNT_BUCKETS,
	AT_PUBLISHED = AT_ZERO + 4,
	AT_RESERVED_2 = AT_PUBLISHED + 8 * KVK_ACCOUNT_BUCKETS,
	AT_CRC = 8188,
	AT_ROWS = 8192,
	ROW_BYTES = 64,

	ROW_TOKEN = 0,
	ROW_LEASED = 8,
	ROW_SETTLED = 16,
	ROW_VISITS = 24,
	ROW_PID = 28,
	ROW_FLAGS = 32,
	ROW_SEEN = 36,
	ROW_HOST = 40,

	FLAG_NEEDS_SCAN = 1,
	ROW_FLAG_LOST = 1,
};

_Static_assert(AT_PUBLISHED % 8 == 0 && AT_RESERVED_2 < AT_CRC, "two pages hold what is not a row");
_Static_assert(AT_ROWS + ROW_BYTES * KVK_ACCOUNT_ROWS == KVK_ACCOUNT_BYTES, "rows end the image");
_Static_assert(ROW_HOST + sizeof(((struct kvk_account_line *)0)->host) == ROW_BYTES, "a row");
/* Sums of all that an image holds stay below 2^64. */
_Static_assert(KVK_ACCOUNT_VALUE_MAX <= UINT64_MAX / (KVK_ACCOUNT_BUCKETS + KVK_ACCOUNT_ROWS + 1), "sums");

static const uint8_t magic[8] = { 'k', 'v', 'k', 'a', 'c', 'c', 't', 0x1a };

static uint32_t crc_of(const uint8_t *data)
{
	return kvk_crc32c(data + AT_ROWS, KVK_ACCOUNT_BYTES - AT_ROWS, kvk_crc32c(data, AT_CRC, 0));
}

void kvk_account_encode(const struct kvk_account_image *image, uint8_t data[KVK_ACCOUNT_BYTES])
{
	memset(data, 0, KVK_ACCOUNT_BYTES);
	memcpy(data + AT_MAGIC, magic, sizeof(magic));
	kvk_put32(data + AT_VERSION, KVK_FORMAT_VERSION);
	kvk_put32(data + AT_FLAGS, image->needs_scan ? FLAG_NEEDS_SCAN : 0);
	kvk_put64(data + AT_SEQUENCE, image->sequence);
	kvk_put64(data + AT_EPOCH, image->epoch);
	kvk_put64(data + AT_CAP, image->cap_bytes);
	kvk_put64(data + AT_LOOSE, image->loose_bytes);
	kvk_put64(data + AT_LOOSENED, image->loosened_bytes);
	kvk_put64(data + AT_WANTED, image->wanted_ns);
	kvk_put32(data + AT_REMADE, image->remade);
	kvk_put32(data + AT_ASKED, image->asked);
	kvk_put64(data + AT_WRITTEN, image->written_ns);
	kvk_put64(data + AT_SKEW, image->skew_ns);
	kvk_put64(data + AT_SKEWED, image->skewed_sequence);
	kvk_put64(data + AT_DIED, image->died);
	for (size_t i = 0; i < KVK_ACCOUNT_BUCKETS; i++) {
		kvk_put64(data + AT_CHARGED + 8 * i, image->charged_bytes[i]);
		kvk_put32(data + AT_POSTED + 4 * i, image->posted[i]);
		kvk_put64(data + AT_PUBLISHED + 8 * i, image->published_bytes[i]);
	}
	for (size_t i = 0; i < KVK_ACCOUNT_ROWS; i++) {
		const struct kvk_account_line *line = &image->rows[i];
		uint8_t *at = data + AT_ROWS + ROW_BYTES * i;

		kvk_put64(at + ROW_TOKEN, line->token);
		kvk_put64(at + ROW_LEASED, line->leased_bytes);
		kvk_put64(at + ROW_SETTLED, line->settled_ns);
		kvk_put32(at + ROW_VISITS, line->visits);
		kvk_put32(at + ROW_PID, line->pid);
		kvk_put32(at + ROW_FLAGS, line->lost ? ROW_FLAG_LOST : 0);
		kvk_put32(at + ROW_SEEN, line->seen);
		memcpy(at + ROW_HOST, line->host, sizeof(line->host));
	}
	kvk_put32(data + AT_CRC, crc_of(data));
}

/* Text up to a NUL, and then nothing: df prints it. */
static bool host_is_text(const uint8_t *host, size_t bytes)
{
	size_t used = 0;

	while (used < bytes && host[used] > 0x20 && host[used] < 0x7f)
		used++;
	return used < bytes && kvk_all_zero(host + used, bytes - used);
}

static bool row_parse(struct kvk_account_line *line, const uint8_t *at)
{
	uint32_t flags = kvk_get32(at + ROW_FLAGS);

	*line = (struct kvk_account_line){
		.token = kvk_get64(at + ROW_TOKEN),
		.leased_bytes = kvk_get64(at + ROW_LEASED),
		.settled_ns = kvk_get64(at + ROW_SETTLED),
		.visits = kvk_get32(at + ROW_VISITS),
		.pid = kvk_get32(at + ROW_PID),
		.lost = flags & ROW_FLAG_LOST,
		.seen = kvk_get32(at + ROW_SEEN),
	};
	memcpy(line->host, at + ROW_HOST, sizeof(line->host));
	if (line->token == 0 && !line->lost)
		return kvk_all_zero(at, ROW_BYTES);
	return line->leased_bytes <= KVK_ACCOUNT_VALUE_MAX && (flags & ~(uint32_t)ROW_FLAG_LOST) == 0 &&
	       host_is_text(at + ROW_HOST, sizeof(line->host));
}

int kvk_account_parse(struct kvk_account_image *ret, const void *data, size_t bytes)
{
	const uint8_t *from = data;
	uint32_t version, flags;
	bool valid;

	if (bytes != KVK_ACCOUNT_BYTES || memcmp(from + AT_MAGIC, magic, sizeof(magic)) != 0 ||
	    kvk_get32(from + AT_CRC) != crc_of(from))
		return -EBADMSG;
	version = kvk_get32(from + AT_VERSION);
	if (version == 0)
		return -EBADMSG;
	if (version > KVK_FORMAT_VERSION || kvk_get32(from + AT_INCOMPAT) != 0)
		return -EPROTO;

	flags = kvk_get32(from + AT_FLAGS);
	valid = (flags & ~(uint32_t)FLAG_NEEDS_SCAN) == 0 && kvk_get64(from + AT_LOOSE) <= KVK_ACCOUNT_VALUE_MAX;
	/* A later writer may use the reserved bytes, and says so with a flag that may be ignored. */
	if (kvk_get32(from + AT_COMPAT) == 0)
		valid = valid && kvk_all_zero(from + AT_RESERVED_1, AT_CHARGED - AT_RESERVED_1) &&
			kvk_get32(from + AT_ZERO) == 0 && kvk_all_zero(from + AT_RESERVED_2, AT_CRC - AT_RESERVED_2);
	for (size_t i = 0; valid && i < KVK_ACCOUNT_BUCKETS; i++)
		valid = kvk_get64(from + AT_CHARGED + 8 * i) <= KVK_ACCOUNT_VALUE_MAX;
	for (size_t i = 0; valid && i < KVK_ACCOUNT_ROWS; i++) {
		struct kvk_account_line line;

		valid = row_parse(&line, from + AT_ROWS + ROW_BYTES * i);
	}
	if (!valid)
		return -EBADMSG;

	ret->needs_scan = flags & FLAG_NEEDS_SCAN;
	ret->sequence = kvk_get64(from + AT_SEQUENCE);
	ret->epoch = kvk_get64(from + AT_EPOCH);
	ret->cap_bytes = kvk_get64(from + AT_CAP);
	ret->loose_bytes = kvk_get64(from + AT_LOOSE);
	ret->loosened_bytes = kvk_get64(from + AT_LOOSENED);
	ret->wanted_ns = kvk_get64(from + AT_WANTED);
	ret->remade = kvk_get32(from + AT_REMADE);
	ret->asked = kvk_get32(from + AT_ASKED);
	ret->written_ns = kvk_get64(from + AT_WRITTEN);
	ret->skew_ns = kvk_get64(from + AT_SKEW);
	ret->skewed_sequence = kvk_get64(from + AT_SKEWED);
	ret->died = kvk_get64(from + AT_DIED);
	for (size_t i = 0; i < KVK_ACCOUNT_BUCKETS; i++) {
		ret->charged_bytes[i] = kvk_get64(from + AT_CHARGED + 8 * i);
		ret->posted[i] = kvk_get32(from + AT_POSTED + 4 * i);
		ret->published_bytes[i] = kvk_get64(from + AT_PUBLISHED + 8 * i);
	}
	for (size_t i = 0; i < KVK_ACCOUNT_ROWS; i++)
		row_parse(&ret->rows[i], from + AT_ROWS + ROW_BYTES * i);
	return 0;
}

int kvk_account_parse_file(struct kvk_account_image *ret, struct kvk_account_image *scratch, const void *data,
			   size_t bytes)
{
	const uint8_t *from = data;
	size_t second_bytes = bytes > KVK_ACCOUNT_BYTES ? bytes - KVK_ACCOUNT_BYTES : 0;
	int first, second;

	first = kvk_account_parse(scratch, from, bytes < KVK_ACCOUNT_BYTES ? bytes : KVK_ACCOUNT_BYTES);
	if (!first)
		*ret = *scratch;
	second = kvk_account_parse(scratch, from + bytes - second_bytes, second_bytes);
	/* What this version does not know may be the newer of the two. */
	if (first == -EPROTO || second == -EPROTO)
		return -EPROTO;
	if (!second && (first || kvk_account_is_later(scratch->sequence, ret->sequence)))
		*ret = *scratch;
	return first && second ? -EBADMSG : 0;
}
