/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Footers and trailers of any bytes. A change nearly never has a right CRC, so each input is tried as it is and once more with
 * its sums made right; what is accepted must be what the encoder writes.
 */
#include "fuzz.h"

#include <errno.h>

#include "format/format.h"

#include "../seal.h"

static uint8_t scratch[KVK_FOOTER_BYTES_MAX], again[KVK_FOOTER_BYTES_MAX];

static void try_footer(const uint8_t *data, size_t bytes)
{
	struct kvk_footer footer;
	uint8_t digest[KVK_DIGEST_BYTES], own[KVK_DIGEST_BYTES];
	const uint8_t *end = data + bytes;
	uint64_t sum = 0;
	int err;

	memset(&footer, FUZZ_SPOILT, sizeof(footer));
	memset(digest, FUZZ_SPOILT, sizeof(digest));
	err = kvk_footer_parse(&footer, digest, data, bytes);
	if (err) {
		FUZZ_ASSERT(err == -EBADMSG || err == -EPROTO);
		FUZZ_ASSERT(fuzz_is_spoilt(&footer, sizeof(footer)) && fuzz_is_spoilt(digest, sizeof(digest)));
		return;
	}
	FUZZ_ASSERT(footer.key_bytes >= 1 && footer.key_bytes <= KVK_KEY_BYTES_MAX);
	FUZZ_ASSERT(footer.meta_bytes <= KVK_META_BYTES_MAX);
	FUZZ_ASSERT((const uint8_t *)footer.meta >= data && (const uint8_t *)footer.meta + footer.meta_bytes <= end);
	FUZZ_ASSERT((const uint8_t *)footer.key >= data && (const uint8_t *)footer.key + footer.key_bytes <= end);
	FUZZ_ASSERT(footer.block_count == kvk_block_count_for(footer.stored_bytes, footer.block_bytes));
	for (uint32_t i = 0; i < footer.block_count; i++)
		sum ^= kvk_footer_sum(&footer, i);
	FUZZ_ASSERT(kvk_footer_bytes(&footer) == bytes);
	FUZZ_ASSERT(kvk_footer_writer(data) == footer.writer_id);
	FUZZ_ASSERT(kvk_key_digest(own, footer.namespace_digest, footer.key, footer.key_bytes) == 0);
	FUZZ_ASSERT(memcmp(own, digest, sizeof(own)) == 0);
	if (footer.ro_compat_flags || footer.compat_flags)
		return;
	FUZZ_ASSERT(kvk_footer_encode(&footer, digest, again, sizeof(again)) == 0);
	FUZZ_ASSERT(memcmp(again, data, bytes) == 0);
	FUZZ_ASSERT(footer.block_count > 0 || sum == 0);
}

static void try_trailer(const uint8_t trailer[KVK_TRAILER_BYTES])
{
	uint32_t footer_bytes = UINT32_MAX;

	if (kvk_trailer_parse(trailer, &footer_bytes))
		FUZZ_ASSERT(footer_bytes == UINT32_MAX);
	else
		FUZZ_ASSERT(footer_bytes >= KVK_PAGE_BYTES && footer_bytes <= KVK_FOOTER_BYTES_MAX &&
			    footer_bytes % KVK_PAGE_BYTES == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	uint32_t footer_bytes;

	try_footer(data, bytes);
	if (bytes >= KVK_TRAILER_BYTES)
		try_trailer(data + bytes - KVK_TRAILER_BYTES);
	if (bytes < 64)
		return 0;

	/* As much of it as makes whole pages, and the end where an end belongs. */
	footer_bytes = (uint32_t)kvk_page_ceil(bytes < sizeof(scratch) ? bytes : sizeof(scratch));
	memset(scratch, 0, footer_bytes);
	memcpy(scratch, data, bytes < footer_bytes ? bytes : footer_bytes);
	seal_put(scratch + footer_bytes - 16, 4, footer_bytes);
	memcpy(scratch + footer_bytes - 8, "\x89kvkend\n", 8);
	seal_footer(scratch, footer_bytes);
	try_footer(scratch, footer_bytes);
	return 0;
}
