/* SPDX-License-Identifier: Apache-2.0 */
/* What a bed's store holds, judged from outside: payloads, and files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "store_bed.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PAGE 4096u

/* ---- payloads ----------------------------------------------------------------------------------- */

#define BLOCK_WORDS (PAGE / 8)
#define MARK UINT64_C(0x6b76)

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

static uint64_t name_of(struct kvk_key key)
{
	const unsigned char *at = key.data;
	uint64_t name = key.bytes;

	for (uint32_t i = 0; i < key.bytes; i++)
		name = mix(name ^ at[i]) + UINT64_C(0x9e3779b97f4a7c15);
	return name;
}

/* The first two words of a block say whose it is; the others follow from them, no two blocks' being alike. */
static void make_block(uint64_t words[BLOCK_WORDS], uint64_t name, uint32_t generation, uint64_t block)
{
	uint64_t x;

	words[0] = name;
	words[1] = MARK << 48 | (uint64_t)generation << 24 | block;
	x = mix(name ^ mix(words[1]));
	for (unsigned i = 2; i < BLOCK_WORDS; i++) {
		x += UINT64_C(0x9e3779b97f4a7c15);
		words[i] = x ^ x >> 29;
	}
}

void bed_fill(void *data, uint64_t bytes, struct kvk_key key, uint32_t generation, uint64_t offset)
{
	uint64_t words[BLOCK_WORDS], name = name_of(key), part, skip_bytes;

	for (char *at = data; bytes > 0; at += part, offset += part, bytes -= part) {
		make_block(words, name, generation, offset / PAGE);
		skip_bytes = offset % PAGE;
		part = PAGE - skip_bytes < bytes ? PAGE - skip_bytes : bytes;
		memcpy(at, (const char *)words + skip_bytes, part);
	}
}

static enum bed_verdict judge_block(const unsigned char *data, uint64_t bytes, uint64_t at, uint64_t name,
				    uint32_t generation)
{
	uint64_t words[2];
	bool zero = true;

	for (uint64_t i = 0; i < bytes && zero; i++)
		zero = data[i] == 0;
	if (zero)
		return BED_ZERO;
	if (at % PAGE || bytes < sizeof(words))
		return BED_OTHER;
	memcpy(words, data, sizeof(words));
	if (words[1] >> 48 != MARK)
		return BED_OTHER;
	if (words[0] != name)
		return BED_FOREIGN;
	if ((words[1] >> 24 & 0xffffff) != (generation & 0xffffff))
		return BED_STALE;
	return (words[1] & 0xffffff) != at / PAGE ? BED_MOVED : BED_OTHER;
}

enum bed_verdict bed_judge(const void *data, uint64_t bytes, struct kvk_key key, uint32_t generation, uint64_t offset)
{
	uint64_t words[BLOCK_WORDS], name = name_of(key), part, skip_bytes;

	for (const unsigned char *at = data; bytes > 0; at += part, offset += part, bytes -= part) {
		make_block(words, name, generation, offset / PAGE);
		skip_bytes = offset % PAGE;
		part = PAGE - skip_bytes < bytes ? PAGE - skip_bytes : bytes;
		if (memcmp(at, (const char *)words + skip_bytes, part))
			return judge_block(at, part, offset, name, generation);
	}
	return BED_RIGHT;
}

bool bed_is_payload(const void *block)
{
	uint64_t words[BLOCK_WORDS], first[2];

	memcpy(first, block, sizeof(first));
	if (first[1] >> 48 != MARK)
		return false;
	make_block(words, first[0], first[1] >> 24 & 0xffffff, first[1] & 0xffffff);
	return words[2] == ((const uint64_t *)block)[2];
}

uint32_t bed_generation(const void *data)
{
	uint64_t words[2];

	memcpy(words, data, sizeof(words));
	return words[1] >> 24 & 0xffffff;
}

const char *bed_verdict_name(enum bed_verdict verdict)
{
	static const char *const names[] = { "right", "zeros", "stale", "foreign", "moved", "garbage" };

	return names[verdict];
}

/* ---- files -------------------------------------------------------------------------------------- */

static void count_files(const char *path, uint64_t *objects, uint64_t *others)
{
	DIR *folder = opendir(path);
	struct dirent *entry;
	struct stat stat;
	char below[400];

	while (folder && (entry = readdir(folder))) {
		size_t bytes = strlen(entry->d_name);

		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") || !strcmp(entry->d_name, ".kvkeep"))
			continue;
		snprintf(below, sizeof(below), "%s/%s", path, entry->d_name);
		if (lstat(below, &stat))
			continue;
		if (S_ISDIR(stat.st_mode))
			count_files(below, objects, others);
		else if (entry->d_name[0] != '.' && ((bytes > 3 && !strcmp(entry->d_name + bytes - 3, ".kv")) ||
						     (bytes > 4 && !strcmp(entry->d_name + bytes - 4, ".bin"))))
			(*objects)++;
		else
			(*others)++;
	}
	if (folder)
		closedir(folder);
}

void bed_files(const struct bed *bed, uint64_t *objects, uint64_t *others)
{
	*objects = 0;
	*others = 0;
	if (bed->path[0])
		count_files(bed->path, objects, others);
}

int bed_path_of(const struct bed *bed, const char *key, char *path, size_t path_bytes)
{
	struct kvk_list_query query = { .struct_bytes = sizeof(query), .prefix = bed_key(key) };
	struct kvk_list_entry *entry = calloc(1, sizeof(*entry));
	char *next = NULL;
	int err = -ENOENT, count;

	if (!entry)
		return -ENOMEM;
	entry->struct_bytes = sizeof(*entry);
	do {
		char *cursor = next;

		query.cursor = cursor;
		next = NULL;
		count = kvk_store_list(bed->store, &query, entry, 1, &next);
		kvk_free(cursor);
		if (count == 1 && entry->key_bytes == strlen(key)) {
			snprintf(path, path_bytes, "%s/%s", bed->path, entry->name);
			err = 0;
		}
	} while (err && count >= 0 && next);
	kvk_free(next);
	free(entry);
	return err;
}
