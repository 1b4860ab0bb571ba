/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's protocol of FUSE, spoken by hand: the root of the file system is the one file there is. */
#include "system/medium.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "unit/store_kit.h"

#define WRITE_MAX (256u << 10)
#define REQUEST_MAX (WRITE_MAX + 8192u)
#define ENTRIES_MAX (UINT64_C(1) << 20)
/* How often the server looks whether it is stuck still. */
#define PAUSE_MS 1

/* A request of the kernel's, in order. */
struct request {
	struct request *next;
	uint64_t due_us;
	uint64_t data[];               /* as it was read: a fuse_in_header and the rest */
};

/* What a block held before, since the last flush that succeeded. */
struct before {
	struct before *next;           /* the one before this */
	uint64_t offset, bytes;
	uint8_t data[];
};

struct server {
	struct medium *medium;
	int fd;
	struct request *first, **last;
	uint64_t free_us;              /* when a slow disk is through with what it has */
	struct before *before;
};

const char *medium_unable(void)
{
	return access("/dev/fuse", R_OK | W_OK) ? "there is no /dev/fuse here for a disk that fails" : NULL;
}

/* ---- what is wrong with it ---------------------------------------------------------------------- */

static bool struck(const struct medium *medium, uint64_t block, uint32_t share)
{
	return share && kit_mix(block ^ kit_mix(medium->salt)) % 1000 < share;
}

/* How many bytes from offset on can be read, or written. */
static uint64_t good_bytes(const struct medium *medium, uint64_t offset, uint64_t bytes, const uint8_t *data)
{
	uint32_t bad = data ? medium->bad_writes : medium->bad_reads, payloads = data ? medium->bad_payloads : 0;
	uint64_t next;

	for (uint64_t at = offset; at < offset + bytes; at = next) {
		next = (at / MEDIUM_BLOCK + 1) * MEDIUM_BLOCK;
		if (struck(medium, at / MEDIUM_BLOCK, bad) ||
		    (payloads && next <= offset + bytes && bed_is_payload(data + (at - offset)) &&
		     struck(medium, at / MEDIUM_BLOCK, payloads)))
			return at - offset;
	}
	return bytes;
}

static void remember(struct server *server, uint64_t offset, uint64_t bytes)
{
	struct before *before = malloc(sizeof(*before) + bytes);

	if (!before)
		_exit(1);
	*before = (struct before){ .next = server->before, .offset = offset, .bytes = bytes };
	memcpy(before->data, server->medium->image + offset, bytes);
	server->before = before;
}

static void forget(struct server *server, bool undo)
{
	for (struct before *before = server->before, *next; before; before = next) {
		next = before->next;
		if (undo)
			memcpy(server->medium->image + before->offset, before->data, before->bytes);
		free(before);
	}
	server->before = NULL;
}

/* ---- what it does ------------------------------------------------------------------------------- */

static void write_down(struct medium *medium, uint64_t offset, uint64_t bytes, const void *data)
{
	uint64_t at = medium->log_bytes, room = bytes ? bytes : 2 * medium->witness_bytes;

	if (!medium->logs || medium->full)
		return;
	if (medium->entries == ENTRIES_MAX || at + room > medium->log_limit) {
		medium->full = true;
		return;
	}
	if (bytes) {
		memcpy(medium->log + at, data, bytes);
	} else {
		memcpy(medium->log + at, medium->witness, medium->witness_bytes);
		atomic_thread_fence(memory_order_seq_cst);
		memcpy(medium->log + at + medium->witness_bytes, medium->witness, medium->witness_bytes);
	}
	medium->entry[medium->entries] = (struct medium_entry){ .offset = offset, .bytes = bytes, .at = at };
	medium->log_bytes += room;
	medium->entries++;
}

static void answer(const struct server *server, const struct request *request, int err, const void *data, uint64_t bytes)
{
	const struct fuse_in_header *in = (const void *)request->data;
	struct fuse_out_header out = { .error = err, .unique = in->unique };
	struct iovec pieces[2] = { { &out, sizeof(out) }, { (void *)(uintptr_t)data, err ? 0 : bytes } };

	out.len = (uint32_t)(sizeof(out) + pieces[1].iov_len);
	/* Who asked may be gone, and the file system with it. */
	if (writev(server->fd, pieces, 2) < 0 && errno != ENOENT && errno != ENODEV)
		_exit(1);
}

static void serve_read(struct server *server, const struct request *request, const struct fuse_read_in *in)
{
	struct medium *medium = server->medium;
	uint64_t bytes = in->offset >= medium->image_bytes ? 0
		       : in->offset + in->size > medium->image_bytes ? medium->image_bytes - in->offset : in->size;
	bool bad = good_bytes(medium, in->offset, bytes, NULL) < bytes;

	medium->reads++;
	medium->failed_reads += bad;
	answer(server, request, bad ? -EIO : 0, medium->image + in->offset, bytes);
}

static void serve_write(struct server *server, const struct request *request, const struct fuse_write_in *in)
{
	struct medium *medium = server->medium;
	const uint8_t *data = (const uint8_t *)(in + 1);
	struct fuse_write_out out = { .size = in->size };
	uint64_t bytes;

	if (in->offset + in->size > medium->image_bytes) {
		answer(server, request, -ENOSPC, NULL, 0);
		return;
	}
	bytes = good_bytes(medium, in->offset, in->size, data);
	medium->writes++;
	medium->failed_writes += bytes < in->size;
	if (bytes) {
		if (medium->forgets)
			remember(server, in->offset, bytes);
		memcpy(medium->image + in->offset, data, bytes);
		memset(medium->touched + in->offset / MEDIUM_BLOCK, 1,
		       (in->offset % MEDIUM_BLOCK + bytes + MEDIUM_BLOCK - 1) / MEDIUM_BLOCK);
		write_down(medium, in->offset, bytes, data);
	}
	answer(server, request, bytes < in->size ? -EIO : 0, &out, sizeof(out));
}

static void serve_flush(struct server *server, const struct request *request)
{
	struct medium *medium = server->medium;
	bool bad = medium->bad_flushes > 0;

	medium->flushes++;
	medium->failed_flushes += bad;
	if (bad)
		medium->bad_flushes--;
	else
		write_down(medium, 0, 0, NULL);
	forget(server, bad && medium->forgets);
	answer(server, request, bad ? -EIO : 0, NULL, 0);
}

static void serve(struct server *server, const struct request *request)
{
	const struct fuse_in_header *in = (const void *)request->data;
	const void *body = in + 1;
	struct fuse_init_out init = { .major = FUSE_KERNEL_VERSION, .minor = 31, .max_write = WRITE_MAX, .time_gran = 1,
				      .flags = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_ASYNC_DIO | FUSE_MAX_PAGES,
				      .max_background = 64, .congestion_threshold = 48, .max_pages = WRITE_MAX / 4096 };
	struct fuse_open_out open = { .open_flags = FOPEN_DIRECT_IO };
	struct fuse_attr_out attributes = { .attr_valid = 3600 };

	switch (in->opcode) {
	case FUSE_INIT:
		answer(server, request, 0, &init, sizeof(init));
		return;
	case FUSE_GETATTR:
		attributes.attr = (struct fuse_attr){ .ino = FUSE_ROOT_ID, .size = server->medium->image_bytes, .nlink = 1,
						      .blocks = server->medium->image_bytes / 512, .mode = S_IFREG | 0600,
						      .blksize = MEDIUM_BLOCK };
		answer(server, request, 0, &attributes, sizeof(attributes));
		return;
	case FUSE_OPEN:
		answer(server, request, 0, &open, sizeof(open));
		return;
	case FUSE_READ:
		serve_read(server, request, body);
		return;
	case FUSE_WRITE:
		serve_write(server, request, body);
		return;
	case FUSE_FSYNC:
		serve_flush(server, request);
		return;
	case FUSE_RELEASE:
		answer(server, request, 0, NULL, 0);
		return;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
	case FUSE_DESTROY:
		return;
	default:
		answer(server, request, -ENOSYS, NULL, 0);
		return;
	}
}

/* ---- the server --------------------------------------------------------------------------------- */

static void take(struct server *server, const void *data, size_t bytes)
{
	const struct fuse_in_header *in = data;
	const struct fuse_write_in *body = (const void *)(in + 1);
	struct medium *medium = server->medium;
	struct request *request = malloc(sizeof(*request) + bytes);
	uint64_t now_us = kit_now_us();
	uint32_t moved;

	if (!request)
		_exit(1);
	memcpy(request->data, data, bytes);
	request->next = NULL;
	request->due_us = 0;
	/* Reads have their length at the same place. */
	if (in->opcode == FUSE_READ || in->opcode == FUSE_WRITE || in->opcode == FUSE_FSYNC) {
		moved = in->opcode == FUSE_FSYNC ? 0 : body->size;
		if (server->free_us < now_us)
			server->free_us = now_us;
		server->free_us += medium->delay_us;
		server->free_us += medium->bytes_per_ms ? moved * UINT64_C(1000) / medium->bytes_per_ms : 0;
		request->due_us = server->free_us;
	}
	*server->last = request;
	server->last = &request->next;
}

static bool is_due(const struct server *server)
{
	return server->first && !server->medium->stuck && server->first->due_us <= kit_now_us();
}

static void server_main(struct medium *medium, int fd)
{
	struct server server = { .medium = medium, .fd = fd, .last = &server.first };
	struct pollfd ready = { .fd = fd, .events = POLLIN };
	void *data = malloc(REQUEST_MAX);

	while (data) {
		struct request *request = server.first;
		ssize_t got = 0;

		if (is_due(&server)) {
			server.first = request->next;
			if (!server.first)
				server.last = &server.first;
			serve(&server, request);
			free(request);
		}
		if (poll(&ready, 1, is_due(&server) ? 0 : server.first ? PAUSE_MS : -1) > 0)
			got = read(fd, data, REQUEST_MAX);
		if (got < 0 && errno != EINTR && errno != EAGAIN && errno != ENOENT)
			break;         /* ENODEV: unmounted */
		if (got > 0)
			take(&server, data, (size_t)got);
	}
	_exit(0);
}

/* ---- the test's side ---------------------------------------------------------------------------- */

static void *shared_memory(uint64_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

static bool map_image(struct medium *medium, const char *image)
{
	int fd = open(image, O_RDWR | O_CLOEXEC);
	struct stat stat;

	if (fd >= 0 && fstat(fd, &stat) == 0) {
		medium->image_bytes = (uint64_t)stat.st_size;
		medium->image = mmap(NULL, medium->image_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (medium->image == MAP_FAILED)
			medium->image = NULL;
	}
	if (fd >= 0)
		close(fd);
	return medium->image;
}

static void serve_apart(struct medium *medium, int fd)
{
	/* Without the test nobody would stop it. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	server_main(medium, fd);
}

struct medium *medium_start(const char *image, uint64_t log_bytes, const void *witness, uint64_t witness_bytes)
{
	struct medium *medium = shared_memory(sizeof(*medium));
	char options[96];
	int fd = -1, file = -1;
	bool ok = false;

	if (!medium)
		return NULL;
	medium->witness = witness;
	medium->witness_bytes = witness_bytes;
	medium->log_limit = log_bytes;
	snprintf(medium->path, sizeof(medium->path), "%.80s.medium", image);
	if (!map_image(medium, image))
		goto out;
	medium->touched = shared_memory(medium->image_bytes / MEDIUM_BLOCK);
	if (!medium->touched)
		goto out;
	if (log_bytes) {
		medium->entry = shared_memory(ENTRIES_MAX * sizeof(struct medium_entry));
		medium->log = shared_memory(log_bytes);
		if (!medium->entry || !medium->log)
			goto out;
	}
	file = open(medium->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	fd = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (file < 0 || fd < 0)
		goto out;
	snprintf(options, sizeof(options), "fd=%d,rootmode=100600,user_id=0,group_id=0,max_read=%u", fd, WRITE_MAX);
	if (mount("kvkeep-tests", medium->path, "fuse", MS_NOSUID | MS_NODEV, options))
		goto out;
	medium->server = fork();
	if (medium->server == 0)
		serve_apart(medium, fd);
	ok = medium->server > 0;
out:
	/* The server's is the only one: when it dies, the kernel answers whoever waits. */
	if (fd >= 0)
		close(fd);
	if (file >= 0)
		close(file);
	if (ok)
		return medium;
	medium_end(medium);
	return NULL;
}

void medium_heal(struct medium *medium)
{
	medium->bad_reads = medium->bad_writes = medium->bad_payloads = medium->bad_flushes = 0;
	medium->delay_us = medium->bytes_per_ms = 0;
	medium->forgets = false;
	medium->stuck = false;
}

void medium_log(struct medium *medium)
{
	medium->logs = false;
	medium->entries = medium->log_bytes = 0;
	medium->full = false;
	medium->logs = true;
}

void medium_end(struct medium *medium)
{
	if (!medium)
		return;
	medium_heal(medium);
	umount2(medium->path, MNT_DETACH);
	if (medium->server > 0) {
		kill(medium->server, SIGKILL);
		waitpid(medium->server, NULL, 0);
	}
	unlink(medium->path);
	if (medium->image)
		munmap(medium->image, medium->image_bytes);
	if (medium->touched)
		munmap(medium->touched, medium->image_bytes / MEDIUM_BLOCK);
	if (medium->entry)
		munmap(medium->entry, ENTRIES_MAX * sizeof(struct medium_entry));
	if (medium->log)
		munmap(medium->log, medium->log_limit);
	munmap(medium, sizeof(*medium));
}
