/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include <kvkeep/kvkeep.h>

int main(void)
{
	const char *spec = "{\"backend_params\": {\"file_path\": \"hello-store\"}}";
	const char *name = "llama-3-8b@00000000@0@5f3a90c1";      /* model@rank@group@hash */
	char kv[] = "the KV of one block", back[sizeof(kv)];
	struct kvk_key key = { name, (uint32_t)strlen(name) };
	struct kvk_error error = { .struct_bytes = sizeof(error) };
	struct kvk_result result = { .struct_bytes = sizeof(result) };
	struct kvk_store *store;

	if (kvk_store_open(&store, spec, NULL, &error) < 0) {
		fprintf(stderr, "%s: %s\n", error.option, error.text);
		return 1;
	}

	/* Under one key the first writer wins: running this twice finds the object there already. */
	struct iovec from = { kv, sizeof(kv) };
	struct kvk_put_item put = { .struct_bytes = sizeof(put), .key = key, .data = &from, .data_count = 1 };
	int err = kvk_store_put_wait(store, &put, 1, 0, &result);
	if (err == 0 && result.status == 0)
		printf("put: %s\n", result.reason == KVK_REASON_PRESENT ? "was there already" : "stored");

	/* A hit means: these bytes were stored under this key. Anything else is a miss, with a reason. */
	struct iovec to = { back, sizeof(back) };
	struct kvk_get_item get = { .struct_bytes = sizeof(get), .key = key, .data = &to, .data_count = 1 };
	err = kvk_store_get_wait(store, &get, 1, 0, &result);
	if (err == 0 && result.status == 0)
		printf("get: %llu bytes, proven: %s\n", (unsigned long long)result.bytes, back);
	else
		printf("get: a miss: %s\n", err ? strerror(-err) : kvk_reason_text(result.reason));

	return kvk_store_close(store) != 0 || memcmp(kv, back, sizeof(kv)) != 0;
}
