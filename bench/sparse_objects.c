/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fills a store's folders with very many objects at the price of their footers: what a put of that many zeros
 * would have left, but with a hole for the payload. Each one is whole and verifies. Nothing here is
 * measured; it exists because 100,000 objects of 1 MiB do not fit where a benchmark may run.
 *
 * The only benchmark program that looks inside: a footer can be had without its payload no other way.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench.h"
#include "format/format.h"

struct sparse {
	int root_fd;
	uint64_t object_bytes;
	uint8_t *zeros;            /* one block */
	uint8_t *footer;
	uint64_t *sums;
};

static uint32_t make_footer(struct sparse *sparse, uint64_t key, uint8_t digest[KVK_DIGEST_BYTES])
{
	char text[BENCH_KEY_BYTES];
	struct kvk_footer footer = {
		.checksum_id = KVK_CHECKSUM_XXH3,
		.logical_bytes = sparse->object_bytes,
		.stored_bytes = sparse->object_bytes,
		.created_ns = 1700000000000000000u + key,
		.writer_id = 1,
		.key = text,
		.block_sums = sparse->sums,
	};
	uint64_t seed, left = sparse->object_bytes;
	uint32_t bytes;
	int err;

	footer.key_bytes = bench_key_text(text, key);
	footer.block_bytes = kvk_block_bytes_for(footer.stored_bytes);
	footer.block_count = kvk_block_count_for(footer.stored_bytes, footer.block_bytes);
	err = kvk_key_digest(digest, footer.namespace_digest, text, footer.key_bytes);
	if (err)
		bench_fail(err, "digest");
	seed = kvk_digest_seed(digest);
	for (uint32_t block = 0; block < footer.block_count; block++) {
		uint64_t part = left < footer.block_bytes ? left : footer.block_bytes;

		/* All whole blocks are the same zeros under the same seed. */
		if (block > 0 && part == footer.block_bytes)
			sparse->sums[block] = sparse->sums[0];
		else
			sparse->sums[block] = kvk_block_sum(sparse->zeros, part, seed);
		left -= part;
	}
	bytes = kvk_footer_bytes(&footer);
	err = kvk_footer_encode(&footer, digest, sparse->footer, KVK_FOOTER_BYTES_MAX);
	if (err < 0)
		bench_fail(err, "footer of key %llu", (unsigned long long)key);
	return bytes;
}

static void make_object(struct sparse *sparse, uint64_t key)
{
	static const struct kvk_layout layout = { .naming = KVK_NAMING_KVKEEP, .levels = 1 };
	uint8_t digest[KVK_DIGEST_BYTES];
	uint32_t footer_bytes = make_footer(sparse, key, digest);
	char name[KVK_NAME_BYTES_MAX];
	int err = kvk_name_make(name, &layout, digest, NULL, 0);
	int fd;

	if (err)
		bench_fail(err, "name of key %llu", (unsigned long long)key);
	fd = openat(sparse->root_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 && errno == ENOENT) {
		char folder[KVK_NAME_BYTES_MAX];

		memcpy(folder, name, sizeof(folder));
		*strrchr(folder, '/') = '\0';
		if (mkdirat(sparse->root_fd, folder, 0700) != 0)
			bench_fail(-errno, "folder %s", folder);
		fd = openat(sparse->root_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	}
	if (fd < 0)
		bench_fail(-errno, "create %s", name);
	if (pwrite(fd, sparse->footer, footer_bytes, (off_t)kvk_page_ceil(sparse->object_bytes)) !=
	    (ssize_t)footer_bytes)
		bench_fail(-errno, "write %s", name);
	if (close(fd) != 0)
		bench_fail(-errno, "close %s", name);
}

int main(int argc, char **argv)
{
	struct sparse sparse = { .root_fd = -1 };
	uint64_t first, count;

	if (argc != 5) {
		fputs("usage: sparse_objects DIR OBJECT-BYTES FIRST-KEY COUNT\n", stderr);
		return 2;
	}
	sparse.object_bytes = bench_parse_count("OBJECT-BYTES", argv[2]);
	first = bench_parse_count("FIRST-KEY", argv[3]);
	count = bench_parse_count("COUNT", argv[4]);
	if (!sparse.object_bytes || sparse.object_bytes > KVK_OBJECT_BYTES_MAX)
		bench_fail(0, "objects of %s bytes", argv[2]);
	sparse.root_fd = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (sparse.root_fd < 0)
		bench_fail(-errno, "%s", argv[1]);
	sparse.zeros = calloc(1, KVK_BLOCK_BYTES_MAX);
	sparse.footer = calloc(1, KVK_FOOTER_BYTES_MAX);
	sparse.sums = calloc(kvk_block_count_for(sparse.object_bytes,
						 kvk_block_bytes_for(sparse.object_bytes)),
			     sizeof(*sparse.sums));
	if (!sparse.zeros || !sparse.footer || !sparse.sums)
		bench_fail(-ENOMEM, "buffers");
	for (uint64_t key = first; key < first + count; key++)
		make_object(&sparse, key);
	free(sparse.zeros);
	free(sparse.footer);
	free(sparse.sums);
	close(sparse.root_fd);
	return 0;
}
