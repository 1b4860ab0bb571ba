/* SPDX-License-Identifier: Apache-2.0 */
/* OpenSSL without memory, when a test says so: a thread's first digest fails then. */
#ifndef KVK_TESTS_UNIT_NO_DIGEST_H
#define KVK_TESTS_UNIT_NO_DIGEST_H

#include <stdatomic.h>
#include <stdlib.h>

#include <openssl/crypto.h>

static atomic_bool no_digest;

static inline void *ssl_alloc(size_t bytes, const char *file, int line)
{
	return atomic_load(&no_digest) ? NULL : malloc(bytes);
}

static inline void *ssl_realloc(void *memory, size_t bytes, const char *file, int line)
{
	return atomic_load(&no_digest) ? NULL : realloc(memory, bytes);
}

static inline void ssl_free(void *memory, const char *file, int line)
{
	free(memory);
}

/* First in main(), before anything of OpenSSL's is used. */
static inline void no_digest_prepare(void)
{
	if (!CRYPTO_set_mem_functions(ssl_alloc, ssl_realloc, ssl_free))
		abort();
}

#endif
