/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "format/format.h"

static void digest_plainly(uint8_t digest[32], const uint8_t space[32], const void *key, size_t key_bytes)
{
	uint8_t text[32 + KVK_KEY_BYTES_MAX];

	memcpy(text, space, 32);
	memcpy(text + 32, key, key_bytes);
	assert_int_equal(EVP_Digest(text, 32 + key_bytes, digest, NULL, EVP_sha256(), NULL), 1);
}

/* Published vectors: FIPS 180-2 gives SHA-256 of 56 bytes that begin with these 32. */
static void digest_is_sha256_of_namespace_and_key(void **state)
{
	static const char text[] = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
	uint8_t expected[32], digest[32];

	assert_int_equal(kvk_unhex(expected, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1", 32), 0);
	assert_int_equal(kvk_key_digest(digest, (const uint8_t *)text, text + 32, 24), 0);
	assert_memory_equal(digest, expected, 32);
}

/* A context that is used again must not carry anything over, whatever the length before. */
static void digest_of_every_key_length(void **state)
{
	uint8_t space[32], key[KVK_KEY_BYTES_MAX], digest[32], expected[32];

	for (unsigned i = 0; i < sizeof(key); i++)
		key[i] = (uint8_t)(i * 7 + 3);
	for (uint32_t bytes = 1; bytes <= sizeof(key); bytes++) {
		memset(space, (int)bytes, sizeof(space));
		digest_plainly(expected, space, key, bytes);
		assert_int_equal(kvk_key_digest(digest, space, key, bytes), 0);
		assert_memory_equal(digest, expected, 32);
	}
}

/* Each field alone makes another identity. */
static void digest_changes_with_each_bit(void **state)
{
	uint8_t space[32] = { 0 }, key[16] = { 0 }, first[32], other[32];

	assert_int_equal(kvk_key_digest(first, space, key, sizeof(key)), 0);
	for (unsigned bit = 0; bit < 8 * (sizeof(space) + sizeof(key)); bit++) {
		uint8_t *at = bit < 8 * sizeof(space) ? &space[bit / 8] : &key[bit / 8 - sizeof(space)];

		*at ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(kvk_key_digest(other, space, key, sizeof(key)), 0);
		*at ^= (uint8_t)(1u << bit % 8);
		assert_memory_not_equal(first, other, 32);
	}
	assert_int_equal(kvk_key_digest(other, space, key, sizeof(key) - 1), 0);
	assert_memory_not_equal(first, other, 32);
}

static void *digest_many(void *argument)
{
	uintptr_t salt = (uintptr_t)argument, wrong = 0;
	uint8_t space[32] = { 0 }, digest[32], expected[32];

	for (uint32_t i = 0; i < 2000; i++) {
		uint64_t key[2] = { salt, i };

		digest_plainly(expected, space, key, sizeof(key));
		wrong += kvk_key_digest(digest, space, key, sizeof(key)) != 0 || memcmp(digest, expected, 32) != 0;
	}
	return (void *)wrong;
}

/* Threads come and go: each has a context of its own, and its end frees it (the leak checker looks). */
static void digest_on_many_threads(void **state)
{
	for (unsigned round = 0; round < 3; round++) {
		pthread_t threads[8];
		void *wrong;

		for (uintptr_t i = 0; i < 8; i++)
			assert_int_equal(pthread_create(&threads[i], NULL, digest_many, (void *)(i + 1)), 0);
		for (unsigned i = 0; i < 8; i++) {
			assert_int_equal(pthread_join(threads[i], &wrong), 0);
			assert_null(wrong);
		}
	}
}

static void digest_after_fork(void **state)
{
	int status;
	pid_t child;

	assert_null(digest_many((void *)1));
	child = fork();
	assert_true(child >= 0);
	if (child == 0)
		_exit(digest_many((void *)2) != NULL);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

static void seed_is_the_first_8_bytes_little_endian(void **state)
{
	const uint8_t digest[32] = { 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0xf8, 0xff };

	assert_true(kvk_digest_seed(digest) == UINT64_C(0xf807060504030201));
}

/* The vectors of RFC 3720, appendix B.4, and the usual check value. */
static void crc_vectors(void **state)
{
	uint8_t data[32];

	assert_int_equal(kvk_crc32c("123456789", 9, 0), 0xe3069283);
	assert_int_equal(kvk_crc32c("", 0, 0), 0);
	memset(data, 0, sizeof(data));
	assert_int_equal(kvk_crc32c(data, sizeof(data), 0), 0x8a9136aa);
	memset(data, 0xff, sizeof(data));
	assert_int_equal(kvk_crc32c(data, sizeof(data), 0), 0x62a8ab43);
	for (unsigned i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)i;
	assert_int_equal(kvk_crc32c(data, sizeof(data), 0), 0x46dd794e);
}

static void crc_goes_on_from_any_split(void **state)
{
	uint8_t data[600];
	uint32_t whole;

	for (unsigned i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * i + 1);
	whole = kvk_crc32c(data, sizeof(data), 0);
	for (unsigned cut = 0; cut <= sizeof(data); cut++)
		assert_int_equal(kvk_crc32c(data + cut, sizeof(data) - cut, kvk_crc32c(data, cut, 0)), whole);
}

/* The library takes an int: what is longer than it may be is summed in parts, none of them left out or taken twice. */
static void crc_of_more_than_a_gibibyte(void **state)
{
	const size_t most = (size_t)1 << 30, bytes = most + 1000;
	uint8_t *data = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint32_t expected;

	assert_true(data != MAP_FAILED);
	madvise(data, bytes, MADV_HUGEPAGE);
	for (size_t at = most - 500; at < bytes; at++)
		data[at] = (uint8_t)(at * 7 + 1);
	expected = kvk_crc32c(data, most / 2, 0);
	expected = kvk_crc32c(data + most / 2, most / 2 - 3, expected);
	expected = kvk_crc32c(data + most - 3, 1003, expected);
	assert_int_equal(kvk_crc32c(data, bytes, 0), expected);
	assert_int_equal(kvk_crc32c(data, most, 0), kvk_crc32c(data + 9, most - 9, kvk_crc32c(data, 9, 0)));
	munmap(data, bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(digest_is_sha256_of_namespace_and_key),
		cmocka_unit_test(digest_of_every_key_length),
		cmocka_unit_test(digest_changes_with_each_bit),
		cmocka_unit_test(digest_on_many_threads),
		cmocka_unit_test(digest_after_fork),
		cmocka_unit_test(seed_is_the_first_8_bytes_little_endian),
		cmocka_unit_test(crc_vectors),
		cmocka_unit_test(crc_goes_on_from_any_split),
		cmocka_unit_test(crc_of_more_than_a_gibibyte),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
