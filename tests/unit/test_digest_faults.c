/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Digests when OpenSSL or the C library have no memory. The answer is that there was none: whoever asked cannot tell whose the
 * object is, and must not take it for damaged.
 *
 * The algorithm is fetched once a process and its slot made once, so the order of the cases counts.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "format/format.h"

/* ---- what fails ---------------------------------------------------------------------------------------- */

enum call { NONE, FETCH, NEW, INIT, UPDATE, UPDATE_2, FINAL, DIGEST, SET_SPECIFIC };

static enum call failing;
static _Thread_local unsigned updates;
static atomic_uint fetched, freed;
static pthread_barrier_t *fetch_together;

#define REAL(name, type, params) ((type (*) params)real(#name))

static void *real(const char *name)
{
	void *found = dlsym(RTLD_NEXT, name);

	if (!found)
		abort();
	return found;
}

EVP_MD *EVP_MD_fetch(OSSL_LIB_CTX *library, const char *name, const char *properties)
{
	EVP_MD *md;

	if (failing == FETCH)
		return NULL;
	md = REAL(EVP_MD_fetch, EVP_MD *, (OSSL_LIB_CTX *, const char *, const char *))(library, name, properties);
	if (fetch_together) {
		fetched++;
		pthread_barrier_wait(fetch_together);
	}
	return md;
}

void EVP_MD_free(EVP_MD *md)
{
	freed++;
	REAL(EVP_MD_free, void, (EVP_MD *))(md);
}

EVP_MD_CTX *EVP_MD_CTX_new(void)
{
	return failing == NEW ? NULL : REAL(EVP_MD_CTX_new, EVP_MD_CTX *, (void))();
}

int EVP_DigestInit_ex2(EVP_MD_CTX *context, const EVP_MD *md, const OSSL_PARAM params[])
{
	return failing == INIT ? 0 : REAL(EVP_DigestInit_ex2, int, (EVP_MD_CTX *, const EVP_MD *, const OSSL_PARAM[]))
				     (context, md, params);
}

int EVP_DigestUpdate(EVP_MD_CTX *context, const void *data, size_t bytes)
{
	updates++;
	if (failing == UPDATE || (failing == UPDATE_2 && updates == 2))
		return 0;
	return REAL(EVP_DigestUpdate, int, (EVP_MD_CTX *, const void *, size_t))(context, data, bytes);
}

int EVP_DigestFinal_ex(EVP_MD_CTX *context, unsigned char *digest, unsigned *bytes)
{
	return failing == FINAL ? 0 : REAL(EVP_DigestFinal_ex, int, (EVP_MD_CTX *, unsigned char *, unsigned *))
				      (context, digest, bytes);
}

int EVP_Digest(const void *data, size_t data_bytes, unsigned char *digest, unsigned *bytes, const EVP_MD *md, ENGINE *engine)
{
	return failing == DIGEST ? 0 : REAL(EVP_Digest, int, (const void *, size_t, unsigned char *, unsigned *, const EVP_MD *,
							      ENGINE *))(data, data_bytes, digest, bytes, md, engine);
}

int pthread_setspecific(pthread_key_t key, const void *value)
{
	return failing == SET_SPECIFIC ? ENOMEM : REAL(pthread_setspecific, int, (pthread_key_t, const void *))(key, value);
}

/* ---- asking -------------------------------------------------------------------------------------------- */

static const uint8_t space[KVK_DIGEST_BYTES] = { 1 };

/* 0: the digest is right. Else the error, and nothing was written. */
static int ask(void)
{
	uint8_t digest[KVK_DIGEST_BYTES], expected[KVK_DIGEST_BYTES];
	int err;

	kvk_unhex(expected, "290be0deeead6e563a899b9a294ed607444751bd52aba1455d614bf14edce84f", sizeof(expected));
	memset(digest, 0x5a, sizeof(digest));
	updates = 0;
	err = kvk_key_digest(digest, space, "key", 3);
	if (err)
		memset(expected, 0x5a, sizeof(expected));
	return memcmp(digest, expected, sizeof(digest)) ? -EPROTO : err;
}

static void *ask_on_thread(void *unused)
{
	return (void *)(intptr_t)ask();
}

/* A thread of its own has no context yet. */
static int ask_anew(void)
{
	pthread_t thread;
	void *answer;

	assert_int_equal(pthread_create(&thread, NULL, ask_on_thread, NULL), 0);
	assert_int_equal(pthread_join(thread, &answer), 0);
	return (int)(intptr_t)answer;
}

/* A program that has used up all keys of its threads is told at each call, and nothing else happens. */
static void no_slot_for_a_context(void **state)
{
	int status;
	pid_t child;

	fflush(NULL);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		uint8_t digest[KVK_DIGEST_BYTES];
		pthread_key_t key;
		/* OpenSSL wants some keys for itself. */
		unsigned wrong = kvk_manifest_digest(digest, "first") != 0;

		while (pthread_key_create(&key, NULL) == 0)
			;
		for (unsigned i = 0; i < 3; i++)
			wrong += ask() != -ENOMEM;
		exit((int)wrong);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

static void no_algorithm_is_tried_again(void **state)
{
	failing = FETCH;
	assert_int_equal(ask(), -ENOMEM);
	assert_int_equal(ask_anew(), -ENOMEM);
	failing = NONE;
}

/* Both have fetched it before either keeps it: one is kept, the other freed, and both digests are right. */
static void two_threads_fetch_at_once(void **state)
{
	pthread_barrier_t both;
	pthread_t threads[2];

	pthread_barrier_init(&both, NULL, 2);
	fetch_together = &both;
	freed = 0;
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, ask_on_thread, NULL), 0);
	for (unsigned i = 0; i < 2; i++) {
		void *answer;

		assert_int_equal(pthread_join(threads[i], &answer), 0);
		assert_null(answer);
	}
	fetch_together = NULL;
	pthread_barrier_destroy(&both);
	assert_int_equal(fetched, 2);
	assert_int_equal(freed, 1);
	assert_int_equal(ask(), 0);
	assert_int_equal(fetched, 2);
}

/* Each step fails once; the next digest, with what that left, is right. */
static void each_step_fails(void **state)
{
	static const enum call steps[] = { NEW, SET_SPECIFIC, INIT, UPDATE, UPDATE_2, FINAL };

	for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		failing = steps[i];
		if (ask_anew() != -ENOMEM)
			fail_msg("step %u: no -ENOMEM", i);
		/* This thread has its context already. */
		if (ask() != (steps[i] == NEW || steps[i] == SET_SPECIFIC ? 0 : -ENOMEM))
			fail_msg("step %u: not as it must be with a context", i);
		failing = NONE;
		assert_int_equal(ask(), 0);
		assert_int_equal(ask_anew(), 0);
	}
}

/* Whoever parses a footer throws away what is damaged, and must not throw away what only could not be looked at. */
static void a_footer_without_digest_is_not_damaged(void **state)
{
	static uint8_t encoded[KVK_PAGE_BYTES];
	uint8_t digest[KVK_DIGEST_BYTES], found[KVK_DIGEST_BYTES];
	struct kvk_footer footer = {
		.checksum_id = KVK_CHECKSUM_XXH3, .block_bytes = KVK_BLOCK_BYTES_MIN, .key_bytes = 3, .key = "key",
	}, parsed;

	assert_int_equal(kvk_key_digest(digest, footer.namespace_digest, "key", 3), 0);
	assert_int_equal(kvk_footer_encode(&footer, digest, encoded, sizeof(encoded)), 0);
	failing = INIT;
	assert_int_equal(kvk_footer_parse(&parsed, found, encoded, sizeof(encoded)), -ENOMEM);
	failing = NONE;
	assert_int_equal(kvk_footer_parse(&parsed, found, encoded, sizeof(encoded)), 0);
	assert_memory_equal(found, digest, sizeof(digest));
}

static void an_id_without_digest_is_none(void **state)
{
	static const struct kvk_layout flat = { KVK_NAMING_LMCACHE, 0 };
	uint8_t id[KVK_DIGEST_BYTES], untouched[KVK_DIGEST_BYTES];

	memset(id, 0x5a, sizeof(id));
	memset(untouched, 0x5a, sizeof(untouched));
	failing = INIT;
	assert_int_equal(kvk_name_id(id, &flat, "m_00000000_0_83ae.bin"), -ENOMEM);
	assert_int_equal(kvk_key_id(id, &flat, untouched, "m@00000000@0@83ae", 17), -ENOMEM);
	failing = NONE;
	assert_memory_equal(id, untouched, sizeof(id));
	assert_int_equal(kvk_name_id(id, &flat, "m_00000000_0_83ae.bin"), 0);
}

static void a_manifest_without_digest(void **state)
{
	uint8_t digest[KVK_DIGEST_BYTES], expected[KVK_DIGEST_BYTES];

	failing = DIGEST;
	assert_int_equal(kvk_manifest_digest(digest, "{\"a\":1}"), -ENOMEM);
	assert_int_equal(kvk_manifest_digest(digest, "{}"), 0);
	failing = NONE;
	assert_int_equal(kvk_manifest_digest(digest, "{\"a\":1}"), 0);
	kvk_unhex(expected, "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862", sizeof(expected));
	assert_memory_equal(digest, expected, sizeof(digest));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_slot_for_a_context),
		cmocka_unit_test(no_algorithm_is_tried_again),
		cmocka_unit_test(two_threads_fetch_at_once),
		cmocka_unit_test(each_step_fails),
		cmocka_unit_test(a_footer_without_digest_is_not_damaged),
		cmocka_unit_test(an_id_without_digest_is_none),
		cmocka_unit_test(a_manifest_without_digest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
