/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What does the same work cost with nothing around it? A put is open, pwrite, rename, close; a get is open,
 * pread, close; one file an object, no sums, no checks, no account.
 *
 * Method: each thread takes the next object until the time or the count is over. The data, the memory and
 * the JSON line are those of store_bench: with --buffers each object goes to another buffer than the one
 * before it, as an engine's does. One buffer used over and over stays in the CPU's cache: two threads then
 * read hot objects of 4 MiB at 14.6 to 21.6 GB/s, with eight buffers each at 11.1 to 12.3.
 * After a round of gets each thread's last object is compared.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

#define THREADS_MAX 64

struct loop {
	const char *folder;
	bool put;
	bool direct;
	bool keep;
	bool on_line;
	uint64_t object_bytes;
	uint64_t keys;             /* get: how many there are */
	uint64_t count;            /* objects a round; UINT64_MAX: until the time is over */
	double seconds;
	uint32_t threads;
	uint32_t buffers;          /* of all threads together */
	uint32_t rounds;
	uint64_t next_key;         /* put: the first one of the next round */
	int folder_fd;
};

struct worker {
	struct loop *loop;
	pthread_t thread;
	uint8_t *memory;
	uint64_t buffer_bytes;
	uint32_t buffers;
	uint8_t *data;             /* the buffer of the last object */
	uint64_t stop_ns;
	atomic_uint_fast64_t *next;
	uint64_t last_key;
	uint64_t done;
	struct bench_samples samples;
};

static void object_name(char name[32], uint64_t key)
{
	snprintf(name, 32, "%016llx.obj", (unsigned long long)key);
}

static void put_one(struct worker *worker, uint64_t key)
{
	struct loop *loop = worker->loop;
	char name[32], temporary[40];
	uint64_t written = 0;
	int fd;

	object_name(name, key);
	snprintf(temporary, sizeof(temporary), "%s.tmp", name);
	fd = openat(loop->folder_fd, temporary,
		    O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | (loop->direct ? O_DIRECT : 0), 0600);
	if (fd < 0)
		bench_fail(-errno, "create %s", temporary);
	while (written < loop->object_bytes) {
		ssize_t moved = pwrite(fd, worker->data + written, loop->object_bytes - written,
				       (off_t)written);

		if (moved <= 0)
			bench_fail(moved ? -errno : -EIO, "write %s", temporary);
		written += (uint64_t)moved;
	}
	if (renameat(loop->folder_fd, temporary, loop->folder_fd, name) != 0)
		bench_fail(-errno, "rename %s", temporary);
	if (close(fd) != 0)
		bench_fail(-errno, "close %s", name);
}

static void get_one(struct worker *worker, uint64_t key)
{
	struct loop *loop = worker->loop;
	char name[32];
	uint64_t done = 0;
	int fd;

	object_name(name, key);
	fd = openat(loop->folder_fd, name, O_RDONLY | O_CLOEXEC | (loop->direct ? O_DIRECT : 0));
	if (fd < 0)
		bench_fail(-errno, "open %s", name);
	while (done < loop->object_bytes) {
		ssize_t moved = pread(fd, worker->data + done, loop->object_bytes - done, (off_t)done);

		if (moved <= 0)
			bench_fail(moved ? -errno : -EIO, "read %s", name);
		done += (uint64_t)moved;
	}
	close(fd);
}

static void *work(void *argument)
{
	struct worker *worker = argument;
	struct loop *loop = worker->loop;
	uint64_t began_ns = bench_now_ns();

	while (began_ns < worker->stop_ns) {
		uint64_t number = atomic_fetch_add_explicit(worker->next, 1, memory_order_relaxed);
		uint64_t key, ended_ns;

		if (number >= loop->count)
			break;
		worker->data = worker->memory + worker->done % worker->buffers * worker->buffer_bytes;
		if (loop->put) {
			key = loop->next_key + number;
			bench_data_stamp(worker->data, loop->object_bytes, key, 0);
			put_one(worker, key);
		} else {
			key = number % loop->keys;
			get_one(worker, key);
		}
		worker->last_key = key;
		worker->done++;
		ended_ns = bench_now_ns();
		bench_samples_add(&worker->samples, ended_ns - began_ns);
		began_ns = ended_ns;
	}
	return NULL;
}

static void worker_init(struct worker *worker, struct loop *loop)
{
	uint32_t buffers = loop->buffers / loop->threads;

	worker->loop = loop;
	worker->buffers = buffers ? buffers : 1;
	worker->buffer_bytes = (loop->object_bytes + BENCH_PAGE_BYTES - 1) & ~(uint64_t)(BENCH_PAGE_BYTES - 1);
	worker->memory = bench_memory_new(worker->buffers * worker->buffer_bytes);
	worker->data = worker->memory;
	for (uint32_t i = 0; i < worker->buffers; i++)
		bench_data_fill(worker->memory + i * worker->buffer_bytes, loop->object_bytes);
	bench_samples_reserve(&worker->samples, 65536);
}

static void check_last(struct worker *worker)
{
	uint64_t where;

	if (worker->done && !bench_data_check(worker->data, worker->loop->object_bytes,
					      worker->last_key, 0, &where))
		bench_fail(0, "key %llu differs at byte %llu", (unsigned long long)worker->last_key,
			   (unsigned long long)where);
}

static void remove_keys(struct loop *loop, uint64_t first, uint64_t count)
{
	char name[32];

	for (uint64_t key = first; key < first + count; key++) {
		object_name(name, key);
		if (unlinkat(loop->folder_fd, name, 0) != 0)
			bench_fail(-errno, "unlink %s", name);
	}
}

static void run_round(struct loop *loop, struct worker *workers, uint32_t number)
{
	struct bench_round round = {
		.program = "plain_loop", .mode = loop->put ? "put" : "get", .round = number,
		.object_bytes = loop->object_bytes,
	};
	atomic_uint_fast64_t next = 0;
	uint64_t began_ns, stop_ns;
	double cpu_s;
	int err;

	for (uint32_t i = 0; i < loop->threads; i++) {
		if (!loop->put)
			memset(workers[i].memory, 0xa5, workers[i].buffers * workers[i].buffer_bytes);
		workers[i].next = &next;
		workers[i].done = 0;
		workers[i].samples.count = 0;
	}
	cpu_s = bench_cpu_s();
	began_ns = bench_now_ns();
	stop_ns = loop->seconds > 0 ? began_ns + (uint64_t)(loop->seconds * 1e9) : UINT64_MAX;
	/* One thread is this one: making a thread would be a good part of one object's time. */
	for (uint32_t i = 0; i < loop->threads; i++) {
		workers[i].stop_ns = stop_ns;
		if (i == 0)
			continue;
		err = pthread_create(&workers[i].thread, NULL, work, &workers[i]);
		if (err)
			bench_fail(-err, "thread");
	}
	work(&workers[0]);
	for (uint32_t i = 1; i < loop->threads; i++)
		pthread_join(workers[i].thread, NULL);
	round.wall_s = (double)(bench_now_ns() - began_ns) / 1e9;
	round.cpu_s = bench_cpu_s() - cpu_s;

	for (uint32_t i = 0; i < loop->threads; i++) {
		round.objects += workers[i].done;
		for (size_t s = 0; s < workers[i].samples.count; s++)
			bench_samples_add(&round.samples, workers[i].samples.ns[s]);
		if (!loop->put && workers[i].done) {
			check_last(&workers[i]);
			round.verified++;
		}
	}
	if (loop->put) {
		if (!loop->keep)
			remove_keys(loop, loop->next_key, round.objects);
		loop->next_key += round.objects;
	}
	bench_round_print(&round, "");
	bench_samples_release(&round.samples);
}

static const char usage[] =
	"usage: plain_loop --dir DIR --mode put|get --object-bytes N [--direct] [--threads N]\n"
	"                  [--buffers N] [--seconds S | --count N] [--keys N] [--first N] [--keep] [--rounds N | --go]\n"
	"  --buffers  memory for so many objects, used in turn (one a thread)\n"
	"  --keys   get: keys 0 to N - 1 are there, made by a put with --count N --keep\n"
	"  --keep   put: leave what was put; otherwise it is removed after the round, untimed\n"
	"  --go     a round for each line on stdin, until it ends\n";

static void parse(struct loop *loop, int argc, char **argv)
{
	static const struct option options[] = {
		{ "dir", required_argument, NULL, 'd' },
		{ "mode", required_argument, NULL, 'm' },
		{ "object-bytes", required_argument, NULL, 'b' },
		{ "direct", no_argument, NULL, 'D' },
		{ "threads", required_argument, NULL, 't' },
		{ "buffers", required_argument, NULL, 'u' },
		{ "seconds", required_argument, NULL, 's' },
		{ "count", required_argument, NULL, 'c' },
		{ "keys", required_argument, NULL, 'k' },
		{ "first", required_argument, NULL, 'f' },
		{ "keep", no_argument, NULL, 'K' },
		{ "rounds", required_argument, NULL, 'r' },
		{ "go", no_argument, NULL, 'g' },
		{ NULL, 0, NULL, 0 },
	};
	const char *mode = NULL;
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'd': loop->folder = optarg; break;
		case 'm': mode = optarg; break;
		case 'b': loop->object_bytes = bench_parse_count("object-bytes", optarg); break;
		case 'D': loop->direct = true; break;
		case 't': loop->threads = (uint32_t)bench_parse_count("threads", optarg); break;
		case 'u': loop->buffers = (uint32_t)bench_parse_count("buffers", optarg); break;
		case 's': loop->seconds = bench_parse_seconds("seconds", optarg); break;
		case 'c': loop->count = bench_parse_count("count", optarg); break;
		case 'k': loop->keys = bench_parse_count("keys", optarg); break;
		case 'f': loop->next_key = bench_parse_count("first", optarg); break;
		case 'K': loop->keep = true; break;
		case 'r': loop->rounds = (uint32_t)bench_parse_count("rounds", optarg); break;
		case 'g': loop->on_line = true; break;
		default:
			fputs(usage, stderr);
			exit(2);
		}
	}
	loop->put = mode && !strcmp(mode, "put");
	if (!loop->folder || !mode || (!loop->put && strcmp(mode, "get") != 0) ||
	    !loop->object_bytes || !loop->rounds || !loop->threads || loop->threads > THREADS_MAX ||
	    (!loop->put && !loop->keys) || (!(loop->seconds > 0) && loop->count == UINT64_MAX)) {
		fputs(usage, stderr);
		exit(2);
	}
}

int main(int argc, char **argv)
{
	struct loop loop = { .threads = 1, .rounds = 1, .count = UINT64_MAX, .folder_fd = -1 };
	struct worker workers[THREADS_MAX] = { 0 };

	parse(&loop, argc, argv);
	loop.folder_fd = open(loop.folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (loop.folder_fd < 0)
		bench_fail(-errno, "%s", loop.folder);
	for (uint32_t i = 0; i < loop.threads; i++) {
		worker_init(&workers[i], &loop);
	}
	printf("{\"program\":\"plain_loop\",\"ready\":true,\"threads\":%u}\n", loop.threads);
	fflush(stdout);
	for (uint32_t round = 0; bench_round_next(loop.on_line, round, loop.rounds); round++)
		run_round(&loop, workers, round);
	for (uint32_t i = 0; i < loop.threads; i++) {
		bench_samples_release(&workers[i].samples);
		bench_memory_free(workers[i].memory, workers[i].buffers * workers[i].buffer_bytes);
	}
	close(loop.folder_fd);
	return 0;
}
