/* SPDX-License-Identifier: Apache-2.0 */
/* Namespace manifests of any bytes: what is accepted has one canonical text, which is its own. */
#include "fuzz.h"

#include <errno.h>

#include "format/format.h"
#include "util/alloc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	char *json = fuzz_text(data, bytes), *once = NULL, *twice = NULL;
	char text[160] = "";
	uint8_t digest[KVK_DIGEST_BYTES];
	int err;

	fuzz_memory_for(bytes);
	err = kvk_manifest_canonical(&once, json, text);
	FUZZ_ASSERT(err == 0 || (err == -EINVAL && text[0] != '\0' && fuzz_is_utf8(text) && !once));
	if (!err) {
		FUZZ_ASSERT(strlen(once) <= KVK_MANIFEST_BYTES_MAX);
		fuzz_memory_for(bytes);
		FUZZ_ASSERT(kvk_manifest_canonical(&twice, once, NULL) == 0);
		FUZZ_ASSERT(strcmp(once, twice) == 0);
		FUZZ_ASSERT(kvk_manifest_digest(digest, once) == 0);
	}
	fuzz_memory_limit(SIZE_MAX);
	kvk_mem_free(once);
	kvk_mem_free(twice);
	free(json);
	return 0;
}
