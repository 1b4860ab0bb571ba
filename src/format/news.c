/* SPDX-License-Identifier: Apache-2.0 */
#include "format/format.h"

#include <errno.h>

#include "format/bytes.h"

enum {
	AT_MAGIC = 0,
	AT_GENERATION = 8,
	AT_COUNT = 16,
	AT_ZERO = 24,
	AT_CRC = KVK_NEWS_HEAD_BYTES - 4,
};

static const uint8_t magic[8] = { 'k', 'v', 'k', 'n', 'e', 'w', 's', 0x1a };

void kvk_news_encode(const struct kvk_news_head *head, uint8_t data[KVK_NEWS_HEAD_BYTES])
{
	memset(data, 0, KVK_NEWS_HEAD_BYTES);
	memcpy(data + AT_MAGIC, magic, sizeof(magic));
	kvk_put64(data + AT_GENERATION, head->generation);
	kvk_put64(data + AT_COUNT, head->count);
	kvk_put32(data + AT_CRC, kvk_crc32c(data, AT_CRC, 0));
}

int kvk_news_parse(struct kvk_news_head *ret, const void *data, size_t bytes)
{
	const uint8_t *at = data;

	if (bytes != KVK_NEWS_HEAD_BYTES || memcmp(at + AT_MAGIC, magic, sizeof(magic)) != 0 ||
	    !kvk_all_zero(at + AT_ZERO, AT_CRC - AT_ZERO) || kvk_get32(at + AT_CRC) != kvk_crc32c(at, AT_CRC, 0))
		return -EBADMSG;
	*ret = (struct kvk_news_head){ .generation = kvk_get64(at + AT_GENERATION), .count = kvk_get64(at + AT_COUNT) };
	return 0;
}
