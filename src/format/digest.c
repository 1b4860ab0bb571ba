/* SPDX-License-Identifier: Apache-2.0 */
#include "format/format.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include <isa-l/crc.h>
#include <openssl/evp.h>

#include "format/bytes.h"

/*
 * What a digest needs and is dear to make. Told EVP_sha256(), OpenSSL 3 looks the algorithm up by name at each
 * init, and a context is two allocations: 460 ns for a key of 60 bytes, 165 ns with both kept (SHA extensions).
 * So the algorithm is fetched once a process and a context is made once a thread; the thread's end frees it.
 */
static _Atomic(EVP_MD *) sha256;
static pthread_key_t context_slot;
static pthread_once_t context_slot_once = PTHREAD_ONCE_INIT;
static bool context_slot_made;

static void context_free(void *context)
{
	EVP_MD_CTX_free(context);
}

static void context_slot_make(void)
{
	context_slot_made = pthread_key_create(&context_slot, context_free) == 0;
}

/* Threads may race to fetch it; the first one's stays. NULL when memory is short, and the next call tries again. */
static EVP_MD *algorithm(void)
{
	EVP_MD *known = atomic_load_explicit(&sha256, memory_order_acquire);
	EVP_MD *fetched;

	if (known)
		return known;
	fetched = EVP_MD_fetch(NULL, "SHA256", NULL);
	if (!fetched)
		return NULL;
	if (atomic_compare_exchange_strong(&sha256, &known, fetched))
		return fetched;
	EVP_MD_free(fetched);
	return known;
}

static EVP_MD_CTX *thread_context(void)
{
	EVP_MD_CTX *context;

	pthread_once(&context_slot_once, context_slot_make);
	if (!context_slot_made)
		return NULL;
	context = pthread_getspecific(context_slot);
	if (context)
		return context;
	context = EVP_MD_CTX_new();
	if (context && pthread_setspecific(context_slot, context)) {
		EVP_MD_CTX_free(context);
		return NULL;
	}
	return context;
}

static int digest_of_two(uint8_t digest[KVK_DIGEST_BYTES], const void *first, size_t first_bytes, const void *second,
			 size_t second_bytes)
{
	EVP_MD *md = algorithm();
	EVP_MD_CTX *context = thread_context();

	if (!md || !context)
		return -ENOMEM;
	if (!EVP_DigestInit_ex2(context, md, NULL) ||
	    !EVP_DigestUpdate(context, first, first_bytes) ||
	    !EVP_DigestUpdate(context, second, second_bytes) ||
	    !EVP_DigestFinal_ex(context, digest, NULL))
		return -ENOMEM;
	return 0;
}

int kvk_key_digest(uint8_t digest[KVK_DIGEST_BYTES], const uint8_t namespace_digest[KVK_DIGEST_BYTES],
		   const void *key, uint32_t key_bytes)
{
	return digest_of_two(digest, namespace_digest, KVK_DIGEST_BYTES, key, key_bytes);
}

int kvk_name_digest(uint8_t digest[KVK_DIGEST_BYTES], const char *component)
{
	static const char label[] = "lmcache name";

	return digest_of_two(digest, label, sizeof(label), component, strlen(component));
}

uint64_t kvk_digest_seed(const uint8_t digest[KVK_DIGEST_BYTES])
{
	return kvk_get64(digest);
}

uint32_t kvk_crc32c(const void *data, size_t bytes, uint32_t before)
{
	/* The library's length is an int, and its prototype forgot a const: it only reads. */
	const int most = 1 << 30;
	uint8_t *at = (uint8_t *)(uintptr_t)data;
	uint32_t state = ~before;

	for (; bytes > (size_t)most; at += most, bytes -= (size_t)most)
		state = crc32_iscsi(at, most, state);
	return ~crc32_iscsi(at, (int)bytes, state);
}
