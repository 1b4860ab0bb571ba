/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include <kvkeep/key.h>

#define TEXT(literal) { literal, sizeof(literal) - 1 }

static const struct {
	uint32_t rank, group;
	struct kvk_key model, hash, salt;
	struct kvk_key text;
} rows[] = {
	{ 0, 0, TEXT("m"), TEXT("\x00"), { NULL, 0 }, TEXT("m@00000000@0@00") },
	{ 0x01000200, 0x1f, TEXT("meta-llama/Llama-3-8B"), TEXT("\xde\xad\xbe\xef"), { NULL, 0 },
	  TEXT("meta-llama/Llama-3-8B@01000200@1f@deadbeef") },
	{ UINT32_MAX, UINT32_MAX, TEXT("m"), TEXT("\xff"), TEXT("tenant"), TEXT("m@ffffffff@ffffffff@ff@tenant") },
	{ 0, 16, TEXT("a b\n\x01\xff"), TEXT("\x10"), TEXT("@"), TEXT("a b\n\x01\xff@00000000@10@10@@") },
	{ 7, 0, TEXT("m\0n"), TEXT("\x0a\x00"), TEXT("a@b@@c\0d"), TEXT("m\0n@00000007@0@0a00@a@b@@c\0d") },
};

static struct kvk_key_fields fields_of_row(unsigned i)
{
	return (struct kvk_key_fields){ .struct_bytes = sizeof(struct kvk_key_fields), .rank = rows[i].rank,
					.group = rows[i].group, .model = rows[i].model, .hash = rows[i].hash,
					.salt = rows[i].salt };
}

static void assert_bytes(const struct kvk_key *found, const struct kvk_key *expected)
{
	assert_int_equal(found->bytes, expected->bytes);
	if (expected->bytes)
		assert_memory_equal(found->data, expected->data, expected->bytes);
}

static void texts_both_ways(void **state)
{
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct kvk_key_fields in = fields_of_row(i), out = { .struct_bytes = sizeof(out) };
		char text[KVK_KEY_BYTES_MAX], hash[KVK_KEY_BYTES_MAX / 2];
		int bytes = kvk_key_encode(&in, text, sizeof(text));

		assert_int_equal(bytes, rows[i].text.bytes);
		assert_memory_equal(text, rows[i].text.data, rows[i].text.bytes);
		assert_int_equal(kvk_key_decode(&out, &rows[i].text, hash, sizeof(hash)), 0);
		assert_int_equal(out.rank, in.rank);
		assert_int_equal(out.group, in.group);
		assert_bytes(&out.model, &in.model);
		assert_bytes(&out.hash, &in.hash);
		assert_bytes(&out.salt, &in.salt);
		assert_ptr_equal(out.model.data, rows[i].text.data);
		assert_ptr_equal(out.hash.data, hash);
	}
}

/* The buffer is exactly long enough, or one byte short. */
static void room_is_used_to_the_last_byte(void **state)
{
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct kvk_key_fields in = fields_of_row(i), out = { .struct_bytes = sizeof(out) };
		uint32_t text_bytes = rows[i].text.bytes, hash_bytes = rows[i].hash.bytes;
		uint8_t text[64], hash[8];

		memset(text, 0x5a, sizeof(text));
		memset(hash, 0x5a, sizeof(hash));
		assert_int_equal(kvk_key_encode(&in, text, text_bytes), text_bytes);
		assert_int_equal(text[text_bytes], 0x5a);
		assert_int_equal(kvk_key_encode(&in, text, text_bytes - 1), -ENOSPC);
		assert_int_equal(kvk_key_decode(&out, &rows[i].text, hash, hash_bytes - 1), -ENOSPC);
		assert_int_equal(kvk_key_decode(&out, &rows[i].text, hash, hash_bytes), 0);
		assert_int_equal(hash[hash_bytes], 0x5a);
	}
}

static void encoder_refuses(void **state)
{
	static char long_text[2000];
	struct kvk_key_fields good = fields_of_row(1), bad;
	char text[2 * KVK_KEY_BYTES_MAX];

	memset(long_text, 'x', sizeof(long_text));
	bad = good;
	bad.struct_bytes = 0;
	assert_int_equal(kvk_key_encode(&bad, text, sizeof(text)), -EINVAL);
	bad = good;
	bad.struct_bytes++;
	assert_int_equal(kvk_key_encode(&bad, text, sizeof(text)), -EINVAL);
	bad = good;
	bad.model = (struct kvk_key){ NULL, 0 };
	assert_int_equal(kvk_key_encode(&bad, text, sizeof(text)), -EINVAL);
	bad = good;
	bad.model = (struct kvk_key)TEXT("a@b");
	assert_int_equal(kvk_key_encode(&bad, text, sizeof(text)), -EINVAL);
	bad = good;
	bad.hash = (struct kvk_key){ NULL, 0 };
	assert_int_equal(kvk_key_encode(&bad, text, sizeof(text)), -EINVAL);

	/* 1,024 bytes and one more: 14 of them are neither model, hash nor salt here. */
	good = (struct kvk_key_fields){ .struct_bytes = sizeof(good), .model = { long_text, 1010 },
					.hash = { "\x01", 1 } };
	assert_int_equal(kvk_key_encode(&good, text, sizeof(text)), 1010 + 14);
	good.model.bytes = 1011;
	assert_int_equal(kvk_key_encode(&good, text, sizeof(text)), -EMSGSIZE);
	good.model.bytes = 1;
	good.salt = (struct kvk_key){ long_text, 1008 };
	assert_int_equal(kvk_key_encode(&good, text, sizeof(text)), 1024);
	good.salt.bytes++;
	assert_int_equal(kvk_key_encode(&good, text, sizeof(text)), -EMSGSIZE);
	good.salt.bytes = 0;
	good.hash = (struct kvk_key){ long_text, 505 };
	assert_int_equal(kvk_key_encode(&good, text, sizeof(text)), 1023);
	good.hash.bytes++;
	assert_int_equal(kvk_key_encode(&good, text, sizeof(text)), -EMSGSIZE);
	/* Lengths whose sum is small in 32 bits. Only what is counted is looked at. */
	good.hash.bytes = 1u << 31;
	assert_int_equal(kvk_key_encode(&good, text, sizeof(text)), -EMSGSIZE);
	good.salt = (struct kvk_key){ long_text, UINT32_MAX };
	assert_int_equal(kvk_key_encode(&good, text, sizeof(text)), -EMSGSIZE);
}

static void decoder_refuses(void **state)
{
	static const struct kvk_key bad[] = {
		{ NULL, 0 }, TEXT("m"), TEXT("m@"), TEXT("m@00000000"), TEXT("m@00000000@"), TEXT("m@00000000@0"),
		TEXT("m@00000000@0@"), TEXT("@00000000@0@00"), TEXT("m@0000000@0@00"), TEXT("m@000000000@0@00"),
		TEXT("m@0000000g@0@00"), TEXT("m@0000000A@0@00"), TEXT("m@00000000@@00"), TEXT("m@00000000@00@00"),
		TEXT("m@00000000@01@00"), TEXT("m@00000000@A@00"), TEXT("m@00000000@100000000@00"),
		TEXT("m@00000000@x@00"), TEXT("m@00000000@ 1@00"), TEXT("m@00000000@-1@00"), TEXT("m@+0000000@0@00"),
		TEXT("m@00000000@0@0"), TEXT("m@00000000@0@000"), TEXT("m@00000000@0@0A"), TEXT("m@00000000@0@0g"),
		TEXT("m@00000000@0@00@"), TEXT("m@00000000@0@@s"), TEXT("m@00000000@0@0\0"), TEXT("m@00000000@0@00 "),
		TEXT("m/00000000/0/00"), TEXT("@@@@"), TEXT("@@@@@"),
	};
	struct kvk_key_fields out, untouched;
	uint8_t hash[KVK_KEY_BYTES_MAX];
	char text[KVK_KEY_BYTES_MAX + 1];
	struct kvk_key key = { text, sizeof(text) };

	memset(&untouched, 0x5a, sizeof(untouched));
	untouched.struct_bytes = sizeof(untouched);
	out = untouched;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (kvk_key_decode(&out, &bad[i], hash, sizeof(hash)) != -EINVAL)
			fail_msg("'%.*s' is no key's text", (int)bad[i].bytes, (const char *)bad[i].data);
	}
	/* A byte longer than a key may be, and else right. */
	memset(text, 'm', sizeof(text));
	memcpy(text + sizeof(text) - 14, "@00000000@0@00", 14);
	assert_int_equal(kvk_key_decode(&out, &key, hash, sizeof(hash)), -EINVAL);
	assert_memory_equal(&out, &untouched, sizeof(out));
	key = (struct kvk_key){ text + 1, sizeof(text) - 1 };
	assert_int_equal(kvk_key_decode(&out, &key, hash, sizeof(hash)), 0);
	out.struct_bytes = 4;
	assert_int_equal(kvk_key_decode(&out, &key, hash, sizeof(hash)), -EINVAL);
}

/* Any byte of a text changed to any other, any cut: refused, or the one text of what was understood. */
static void decoding_is_exact(void **state)
{
	unsigned accepted = 0;

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		for (unsigned step = 0; step < 256 * rows[i].text.bytes + rows[i].text.bytes; step++) {
			char text[64], again[64], hash[32];
			struct kvk_key key = { text, rows[i].text.bytes };
			struct kvk_key_fields fields = { .struct_bytes = sizeof(fields) };

			memcpy(text, rows[i].text.data, key.bytes);
			if (step < 256 * key.bytes)
				text[step / 256] = (char)(step % 256);
			else
				key.bytes = step - 256 * key.bytes;
			if (kvk_key_decode(&fields, &key, hash, sizeof(hash)) != 0)
				continue;
			accepted++;
			assert_int_equal(kvk_key_encode(&fields, again, sizeof(again)), key.bytes);
			assert_memory_equal(again, text, key.bytes);
		}
	}
	assert_true(accepted > 5000);
}

/* Fields of few bytes that like to be confused: different fields never have the same text. */
static void encoding_is_injective(void **state)
{
	static const struct kvk_key models[] = { TEXT("m"), TEXT("m0"), TEXT("m/"), TEXT("m--") };
	static const struct kvk_key hashes[] = { TEXT("\x00"), TEXT("\x00\x00"), TEXT("\x10") };
	static const struct kvk_key salts[] = { { NULL, 0 }, TEXT("0"), TEXT("00"), TEXT("@"), TEXT("0@0@00") };
	static const uint32_t numbers[] = { 0, 1, 0x10 };
	static char texts[4 * 3 * 5 * 3 * 3][64];
	static int bytes[4 * 3 * 5 * 3 * 3];
	unsigned count = sizeof(bytes) / sizeof(bytes[0]);

	for (unsigned i = 0; i < count; i++) {
		struct kvk_key_fields fields = {
			.struct_bytes = sizeof(fields), .model = models[i % 4], .hash = hashes[i / 4 % 3],
			.salt = salts[i / 12 % 5], .rank = numbers[i / 60 % 3], .group = numbers[i / 180],
		};

		bytes[i] = kvk_key_encode(&fields, texts[i], sizeof(texts[i]));
		assert_true(bytes[i] > 0);
		for (unsigned j = 0; j < i; j++)
			assert_false(bytes[i] == bytes[j] && memcmp(texts[i], texts[j], (size_t)bytes[i]) == 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(texts_both_ways),
		cmocka_unit_test(room_is_used_to_the_last_byte),
		cmocka_unit_test(encoder_refuses),
		cmocka_unit_test(decoder_refuses),
		cmocka_unit_test(decoding_is_exact),
		cmocka_unit_test(encoding_is_injective),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
