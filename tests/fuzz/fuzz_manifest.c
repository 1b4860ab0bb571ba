/* SPDX-License-Identifier: Apache-2.0 */
/* Namespace manifests of any bytes: what is accepted has one canonical text, which is its own. */
#include "fuzz.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "format/format.h"
#include "util/alloc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	char *json = malloc(bytes + 1), *once = NULL, *twice = NULL;
	char text[160] = "";
	uint8_t digest[KVK_DIGEST_BYTES];
	int err;

	if (!json)
		abort();
	memcpy(json, data, bytes);
	json[bytes] = '\0';
	err = kvk_manifest_canonical(&once, json, text);
	FUZZ_ASSERT(err == 0 || (err == -EINVAL && text[0] != '\0' && !once));
	if (!err) {
		FUZZ_ASSERT(strlen(once) <= KVK_MANIFEST_BYTES_MAX);
		FUZZ_ASSERT(kvk_manifest_canonical(&twice, once, NULL) == 0);
		FUZZ_ASSERT(strcmp(once, twice) == 0);
		FUZZ_ASSERT(kvk_manifest_digest(digest, once) == 0);
	}
	kvk_mem_free(once);
	kvk_mem_free(twice);
	free(json);
	return 0;
}

size_t kvk_fuzz_seed(unsigned nth, uint8_t *data, size_t room)
{
	static const char *const seeds[] = {
		"{}",
		"{\"b\": {\"d\": [1, 2.5, -3e-7, true], \"c\": null}, \"a\": \"x\\u00e9\\\\\\n\"}",
		"{\"numbers\":[0,-0.0,9223372036854775807,1.7976931348623157e308,5e-324]}",
		"{\"a\":[[[[{}]]]],\"A\":\"\\ud83d\\ude00\"}",
	};
	size_t bytes;

	if (nth >= sizeof(seeds) / sizeof(seeds[0]))
		return 0;
	bytes = strlen(seeds[nth]);
	memcpy(data, seeds[nth], bytes < room ? bytes : room);
	return bytes < room ? bytes : room;
}
