/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys of any bytes: what decodes is the one text of its fields, and no key makes a name that leaves its folder, is
 * hidden, or is too long. And components of any bytes, as readdir may return them.
 */
#include "fuzz.h"

#include <string.h>

#include "format/format.h"

static void try_name(const char *name, const struct kvk_layout *layout)
{
	const char *slash = strrchr(name, '/');
	const char *component = slash ? slash + 1 : name;
	char beside[KVK_NAME_BYTES_MAX];
	uint8_t digest[KVK_DIGEST_BYTES] = { 0 };
	size_t folder_bytes = (size_t)(component - name);

	FUZZ_ASSERT(component[0] != '.' && component[0] != '\0' && strlen(component) <= 255);
	FUZZ_ASSERT(folder_bytes == (size_t)layout->levels * 3);
	for (size_t i = 0; i < folder_bytes; i++)
		FUZZ_ASSERT(i % 3 == 2 ? name[i] == '/' : name[i] != '.' && name[i] != '/');
	FUZZ_ASSERT(kvk_name_kind(component, layout, NULL) == KVK_NAME_OBJECT);
	FUZZ_ASSERT(kvk_name_make_gone(beside, name, digest, UINT64_MAX) == 0);
	FUZZ_ASSERT(kvk_name_kind(beside + folder_bytes, layout, NULL) == KVK_NAME_GONE);
	FUZZ_ASSERT(kvk_name_make_temp(beside, name, UINT64_MAX, UINT64_MAX) == 0);
	FUZZ_ASSERT(kvk_name_kind(beside + folder_bytes, layout, NULL) == KVK_NAME_TEMP);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static const struct kvk_layout layouts[] = {
		{ KVK_NAMING_KVKEEP, 1 }, { KVK_NAMING_KVKEEP, 2 }, { KVK_NAMING_LMCACHE, 0 }, { KVK_NAMING_LMCACHE, 2 },
	};
	struct kvk_key key = { data, (uint32_t)bytes };
	struct kvk_key_fields fields = { .struct_bytes = sizeof(fields) };
	char text[KVK_KEY_BYTES_MAX], component[256], name[KVK_NAME_BYTES_MAX];
	uint8_t hash[KVK_KEY_BYTES_MAX / 2], digest[KVK_DIGEST_BYTES] = { 0 };
	size_t component_bytes = bytes < sizeof(component) ? bytes : sizeof(component) - 1;

	if (bytes > UINT32_MAX)
		return 0;
	if (kvk_key_decode(&fields, &key, hash, sizeof(hash)) == 0) {
		FUZZ_ASSERT(kvk_key_encode(&fields, text, sizeof(text)) == (int)bytes);
		FUZZ_ASSERT(memcmp(text, data, bytes) == 0);
	}
	memcpy(component, data, component_bytes);
	component[component_bytes] = '\0';
	for (unsigned i = 0; i < 4; i++) {
		if (kvk_name_make(name, &layouts[i], digest, data, (uint32_t)bytes) == 0)
			try_name(name, &layouts[i]);
		if (kvk_name_make_old(name, &layouts[i], data, (uint32_t)bytes) == 0)
			try_name(name, &layouts[i]);
		kvk_name_kind(component, &layouts[i], digest);
	}
	return 0;
}

size_t kvk_fuzz_seed(unsigned nth, uint8_t *data, size_t room)
{
	static const char *const seeds[] = {
		"m@00000000@0@00", "meta-llama/Llama-3-8B@01000200@1f@83aeffd0@tenant", "../..@ffffffff@0@abcd@/@.",
		".tmp-0123456789abcdef-18446744073709551615", "ab", "m_00000000_0_83ae.bin",
		"00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef.kv",
		"00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef.12.gone",
	};
	size_t bytes;

	if (nth >= sizeof(seeds) / sizeof(seeds[0]))
		return 0;
	bytes = strlen(seeds[nth]);
	memcpy(data, seeds[nth], bytes < room ? bytes : room);
	return bytes < room ? bytes : room;
}
