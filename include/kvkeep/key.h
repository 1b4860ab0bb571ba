/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Keys: opaque bytes, and the text form that engines use for them.
 *
 * Threads: these functions keep no state; any thread may call them, also after fork.
 */
#ifndef KVKEEP_KEY_H
#define KVKEEP_KEY_H

#include <stdint.h>

#include <kvkeep/export.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A key is at least 1 and at most this many bytes. */
#define KVK_KEY_BYTES_MAX 1024

/**
 * A key, or any other run of bytes that is only looked at. Two words for ever, so it carries no size of
 * its own. Whoever makes one owns the bytes; a function that takes one copies what it keeps.
 */
struct kvk_key {
	const void *data;
	uint32_t bytes;
};

/**
 * The fields of the text form `model@rank@group@hash[@salt]`.
 *
 * rank is written as 8 lower-case hex digits, group as lower-case hex without leading zeros, hash as two
 * lower-case hex digits a byte. A model is 1 or more bytes, any but '@' (the first one ends it); hash is 1 or
 * more bytes of any value; a salt is any bytes, '@' too, since it comes last. No salt is salt.bytes == 0.
 * The form is the one of LMCache's keys, so texts are exchangeable; it is injective.
 */
struct kvk_key_fields {
	uint32_t struct_bytes;     /* sizeof(struct kvk_key_fields) where the caller was built */
	uint32_t rank;
	uint32_t group;
	struct kvk_key model;
	struct kvk_key hash;       /* raw bytes, not hex */
	struct kvk_key salt;
};

/**
 * Writes the text form of fields to text, without a closing NUL, and returns its length in bytes.
 *
 * -EINVAL: a model that is empty or contains '@', an empty hash, or a struct_bytes that is not known.
 * -EMSGSIZE: the text is longer than KVK_KEY_BYTES_MAX. -ENOSPC: longer than text_bytes. text is then
 * undefined.
 */
KVK_API int kvk_key_encode(const struct kvk_key_fields *fields, void *text, uint32_t text_bytes);

/**
 * Splits a key in text form into its fields. model and salt point into the key's own bytes; hash is
 * decoded into hash_buffer, which wants key->bytes / 2 bytes at most. Set fields->struct_bytes first.
 *
 * -EINVAL: not in text form, or not the one text that kvk_key_encode() would write for these fields
 * (upper-case digits, leading zeros in group, an empty salt after '@'). -ENOSPC: hash_buffer is too small.
 * fields is untouched on failure.
 */
KVK_API int kvk_key_decode(struct kvk_key_fields *fields, const struct kvk_key *key, void *hash_buffer,
			   uint32_t hash_buffer_bytes);

#ifdef __cplusplus
}
#endif

#endif
