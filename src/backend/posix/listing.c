/* SPDX-License-Identifier: Apache-2.0 */
/* A folder's names with what the medium says of each. */
#include "backend/posix/posix_private.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>

#include "util/alloc.h"

/* A folder of 4,096 objects in two reads. */
#define LIST_BYTES 262144u
/* A record is its fixed part and a name of at least one byte, aligned to 8. */
#define RECORDS_MAX (LIST_BYTES / 24u)

struct listed {
	uint64_t inode;
	const char *name;
};

struct listing_buffer {
	_Alignas(8) char data[LIST_BYTES];
	struct listed records[RECORDS_MAX];
	struct listed others[RECORDS_MAX];
};

/*
 * By inodes, byte by byte from the lowest on: those of a folder differ in two or three bytes, and qsort() compares 4,096
 * records twelve times each. What is sorted lies in the one or the other array.
 */
static const struct listed *sort(struct listing_buffer *buffer, uint32_t count)
{
	struct listed *from = buffer->records, *to = buffer->others, *swapped;
	uint64_t differ = 0;

	for (uint32_t i = 1; i < count; i++)
		differ |= from[i].inode ^ from[0].inode;
	for (uint32_t shift = 0; shift < 64; shift += 8) {
		uint32_t places[256] = { 0 }, place = 0;

		if ((differ >> shift & 255) == 0)
			continue;
		for (uint32_t i = 0; i < count; i++)
			places[from[i].inode >> shift & 255]++;
		for (uint32_t byte = 0; byte < 256; byte++) {
			uint32_t with_it = places[byte];

			places[byte] = place;
			place += with_it;
		}
		for (uint32_t i = 0; i < count; i++)
			to[places[from[i].inode >> shift & 255]++] = from[i];
		swapped = from;
		from = to;
		to = swapped;
	}
	return from;
}

/*
 * The records that are wanted, in the order of their inodes: ext4 lists names by their hashes, and on a disk that
 * seeks, asking in that order reads the inode tables criss-cross.
 */
static const struct listed *collect(struct listing_buffer *buffer, int64_t bytes, const struct kvk_listing *listing,
				    uint32_t *count_ret)
{
	uint32_t count = 0;

	for (int64_t at = 0; at < bytes && count < RECORDS_MAX;) {
		const struct dirent64 *record = (const void *)(buffer->data + at);

		at += record->d_reclen;
		if (!strcmp(record->d_name, ".") || !strcmp(record->d_name, "..") ||
		    !listing->wanted(listing->user, record->d_name))
			continue;
		buffer->records[count++] = (struct listed){ .inode = record->d_ino, .name = record->d_name };
	}
	*count_ret = count;
	return sort(buffer, count);
}

int kvk_posix_list_stat(struct kvk_backend *backend, const char *folder, const struct kvk_listing *listing,
			uint64_t *modified_ns)
{
	struct kvk_posix *posix = kvk_posix_of(backend);
	struct listing_buffer *buffer = NULL;
	struct kvk_stat before, after;
	bool going_on = true;
	int64_t got = 0;
	int fd, err;

	/* A descriptor of its own: reading a folder moves the position of the open file. */
	fd = *folder ? kvk_posix_open_below(posix, folder, O_RDONLY | O_DIRECTORY, 0, false) :
		       posix->sys->openat(posix->root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	if (fd < 0)
		return fd;
	/* And not what this machine has kept of it from an earlier reading. */
	if (posix->base.caps.many_hosts)
		posix->sys->drop_cache(fd);
	err = kvk_posix_stat_fresh(posix, fd, &before);
	if (err)
		goto out;
	buffer = kvk_mem_alloc(sizeof(*buffer));
	if (!buffer) {
		err = -ENOMEM;
		goto out;
	}
	while (going_on && (got = posix->sys->getdents(fd, buffer->data, LIST_BYTES)) > 0) {
		uint32_t count;
		const struct listed *records = collect(buffer, got, listing, &count);

		for (uint32_t i = 0; i < count && going_on; i++) {
			const char *name = records[i].name;
			struct kvk_stat stat;

			err = kvk_posix_stat_at(posix, fd, name, &stat);
			if (err == -ENOENT || err == -ESTALE)
				continue;
			if (err)
				goto out;
			going_on = listing->visit(listing->user, name, &stat);
		}
	}
	err = got < 0 ? (int)got : kvk_posix_stat_fresh(posix, fd, &after);
	if (err)
		goto out;
	*modified_ns = before.modified_ns;
	err = after.modified_ns == before.modified_ns ? 0 : -EAGAIN;
out:
	kvk_mem_free(buffer);
	posix->sys->close(fd);
	return err;
}
