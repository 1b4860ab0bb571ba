/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast is a store known again after it was opened, beside a plain program that reads the same folders?
 * Method: DIR holds a store's objects (sparse_objects makes many at the price of their footers). In turns, `rounds` times: four
 * threads read all folders and ask for the times and length of every name (readdir, statx), which is the least that any scan
 * has to do; then a store is opened there without a snapshot and closed when its first pass is over; the CPU time of both is told
 * for machines that others use. After the rounds it is
 * opened once more, until all is known, footers too, closed, and opened for the snapshot. The objects that the
 * store knows must be as many as the plain program saw.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include <kvkeep/kvkeep.h>

#include "bench.h"

#define THREADS 4
#define FOLDERS 256u
#define POLL_US 5000

struct plain {
	int root_fd;
	atomic_uint next;
	atomic_ullong objects, bytes;
};

static void plain_folder(struct plain *plain, unsigned number)
{
	unsigned long long objects = 0, bytes = 0;
	struct dirent *entry;
	struct statx found;
	char name[8];
	DIR *folder;
	int fd;

	snprintf(name, sizeof(name), "%02x", number);
	fd = openat(plain->root_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return;
	folder = fdopendir(fd);
	if (!folder)
		bench_fail(-errno, "folder %s", name);
	while ((entry = readdir(folder))) {
		if (entry->d_name[0] == '.')
			continue;
		if (statx(fd, entry->d_name, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &found))
			bench_fail(-errno, "%s/%s", name, entry->d_name);
		objects++;
		bytes += found.stx_size;
	}
	closedir(folder);
	atomic_fetch_add(&plain->objects, objects);
	atomic_fetch_add(&plain->bytes, bytes);
}

static void *plain_main(void *argument)
{
	struct plain *plain = argument;

	for (unsigned n; (n = atomic_fetch_add(&plain->next, 1)) < FOLDERS;)
		plain_folder(plain, n);
	return NULL;
}

static double plain_pass(const char *root, unsigned long long *objects, double *cpu_s_ret)
{
	struct plain plain = { .root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC) };
	uint64_t begin_ns = bench_now_ns();
	double cpu_s = bench_cpu_s();
	pthread_t threads[THREADS];
	double seconds;

	if (plain.root_fd < 0)
		bench_fail(-errno, "%s", root);
	for (int i = 0; i < THREADS; i++) {
		if (pthread_create(&threads[i], NULL, plain_main, &plain))
			bench_fail(0, "no threads");
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	seconds = (double)(bench_now_ns() - begin_ns) / 1e9;
	*cpu_s_ret = bench_cpu_s() - cpu_s;
	close(plain.root_fd);
	*objects = plain.objects;
	return seconds;
}

/* The number or the text at this path of the status, such as "scan.footers". */
static json_t *status_at(struct kvk_store *store, const char *path)
{
	char *status = NULL, part[32];
	json_t *root, *value;
	int length;

	if (kvk_store_status(store, &status))
		bench_fail(0, "no status");
	root = json_loads(status, 0, NULL);
	kvk_free(status);
	for (value = root; value && *path; path += length + (path[length] == '.')) {
		length = (int)strcspn(path, ".");
		snprintf(part, sizeof(part), "%.*s", length, path);
		value = json_object_get(value, part);
	}
	if (!value)
		bench_fail(0, "the status has no such member");
	json_incref(value);
	json_decref(root);
	return value;
}

static double status_number(struct kvk_store *store, const char *path)
{
	json_t *value = status_at(store, path);
	double number = json_number_value(value);

	json_decref(value);
	return number;
}

static bool phase_is(struct kvk_store *store, const char *phase, const char *or_phase)
{
	json_t *value = status_at(store, "scan.phase");
	const char *text = json_string_value(value);
	bool is = !strcmp(text, phase) || !strcmp(text, or_phase);

	json_decref(value);
	return is;
}

static void wait_until_idle(struct kvk_store *store)
{
	while (!phase_is(store, "idle", "idle"))
		usleep(POLL_US);
}

static struct kvk_store *open_store(const char *root)
{
	struct kvk_error error = { .struct_bytes = sizeof(error) };
	struct kvk_store *store = NULL;
	char spec[4200];

	snprintf(spec, sizeof(spec), "{\"type\":\"nixl_store_dynamic\",\"backend\":\"POSIX\",\"backend_params\":"
		 "{\"file_path\":\"%s\",\"max_capacity_gb\":100000}}", root);
	if (kvk_store_open(&store, spec, NULL, &error))
		bench_fail(error.code, "%s: %s", error.option, error.text);
	return store;
}

static void forget_snapshot(const char *root)
{
	char path[4200];

	snprintf(path, sizeof(path), "%s/.kvkeep/snapshot", root);
	if (unlink(path) && errno != ENOENT)
		bench_fail(-errno, "%s", path);
}

static double own_cpu_s(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* Seconds from the beginning of the open until the first pass is over. What this thread needs to ask whether it is, is not counted. */
static double scan_pass(const char *root, unsigned long long objects, double *cpu_s_ret, double *asking_s_ret)
{
	uint64_t begin_ns = bench_now_ns();
	double cpu_s = bench_cpu_s();
	struct kvk_store *store = open_store(root);
	double seconds, asking_s = own_cpu_s();

	while (!phase_is(store, "footers", "idle"))
		usleep(POLL_US);
	seconds = (double)(bench_now_ns() - begin_ns) / 1e9;
	*asking_s_ret = own_cpu_s() - asking_s;
	*cpu_s_ret = bench_cpu_s() - cpu_s - *asking_s_ret;
	if ((unsigned long long)status_number(store, "catalog_objects") != objects)
		bench_fail(0, "the store knows %.0f objects, there are %llu", status_number(store, "catalog_objects"), objects);
	kvk_store_close(store);
	return seconds;
}

static double seconds_since(uint64_t begin_ns)
{
	return (double)(bench_now_ns() - begin_ns) / 1e9;
}

/* Everything known, footers too; then closed, which leaves a snapshot; then known again from it. */
static void know_all(const char *root, unsigned long long objects)
{
	double all_known_s, close_s, snapshot_s, memory_bytes;
	struct kvk_store *store;
	uint64_t begin_ns;

	forget_snapshot(root);
	begin_ns = bench_now_ns();
	store = open_store(root);
	wait_until_idle(store);
	all_known_s = seconds_since(begin_ns);
	memory_bytes = status_number(store, "catalog_memory_bytes");
	begin_ns = bench_now_ns();
	kvk_store_close(store);
	close_s = seconds_since(begin_ns);

	begin_ns = bench_now_ns();
	store = open_store(root);
	while (status_number(store, "scan.from_snapshot") < (double)objects)
		usleep(POLL_US);
	snapshot_s = seconds_since(begin_ns);
	wait_until_idle(store);
	if (status_number(store, "scan.footers") != 0)
		bench_fail(0, "footers were read again in spite of the snapshot");
	kvk_store_close(store);
	printf("{\"program\":\"scan_rate\",\"objects\":%llu,\"all_known_s\":%.3f,\"close_s\":%.3f,\"from_snapshot_s\":%.4f,"
	       "\"bytes_per_object\":%.1f}\n", objects, all_known_s, close_s, snapshot_s, memory_bytes / (double)objects);
}

int main(int argc, char **argv)
{
	unsigned long long objects = 0;
	double plain_s, plain_cpu_s, scan_s = 0, scan_cpu_s = 0, asking_s = 0;
	int rounds;

	if (argc != 3) {
		fputs("usage: scan_rate DIR ROUNDS\n", stderr);
		return 2;
	}
	rounds = (int)bench_parse_count("ROUNDS", argv[2]);
	kvk_store_close(open_store(argv[1]));      /* made, if it is not there yet */
	/* Each is the first of a pair in every other round. */
	for (int i = 0; i < rounds; i++) {
		if (i % 2) {
			forget_snapshot(argv[1]);
			scan_s = scan_pass(argv[1], objects, &scan_cpu_s, &asking_s);
		}
		plain_s = plain_pass(argv[1], &objects, &plain_cpu_s);
		if (objects == 0)
			bench_fail(0, "%s holds no objects (sparse_objects makes them)", argv[1]);
		if (i % 2 == 0) {
			forget_snapshot(argv[1]);
			scan_s = scan_pass(argv[1], objects, &scan_cpu_s, &asking_s);
		}
		printf("{\"program\":\"scan_rate\",\"objects\":%llu,\"threads\":%d,\"plain_s\":%.4f,\"scan_s\":%.4f,"
		       "\"plain_cpu_s\":%.4f,\"scan_cpu_s\":%.4f,\"asking_cpu_s\":%.4f}\n", objects, THREADS, plain_s, scan_s, plain_cpu_s,
		       scan_cpu_s, asking_s);
	}
	know_all(argv[1], objects);
	return 0;
}
