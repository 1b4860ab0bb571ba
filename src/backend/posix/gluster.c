/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does this client of GlusterFS see what others do? It keeps files and what it was told of them in layers of its own, each for a second
 * or until it has written: with them a file that another client had just made was not there. And while a lock is on its way and a
 * signal comes (a stop and a continuation are enough), one of the threads that take answers waits for one: with the usual two of
 * them two such locks stopped a whole mount for good (10.3). Which layers and how many threads there are it tells in a file.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/posix/posix_private.h"
#include "util/alloc.h"
#include "util/error.h"

#define GRAPH ".meta/graphs/active/volfile"
/* As many as it takes. */
#define EVENT_THREADS 32

static const struct {
	const char *type;
	const char *option;            /* of the volume */
} layers[] = {
	{ "performance/quick-read", "performance.quick-read" },
	{ "performance/md-cache", "performance.stat-prefetch" },
	{ "performance/open-behind", "performance.open-behind" },
	{ "performance/write-behind", "performance.write-behind" },
	{ "performance/io-cache", "performance.io-cache" },
	{ "performance/nl-cache", "performance.nl-cache" },
	{ "performance/read-ahead", "performance.read-ahead" },
	{ "performance/readdir-ahead", "performance.readdir-ahead" },
};

static const char *find_layer(const char *type)
{
	for (size_t i = 0; i < sizeof(layers) / sizeof(layers[0]); i++) {
		if (!strcmp(layers[i].type, type))
			return layers[i].option;
	}
	return NULL;
}

/* What the text, which is taken to pieces, says. *threads: the fewest of any server. The option of a layer that has to go, or NULL. */
static const char *read_graph(char *text, unsigned long *threads)
{
	unsigned long found = 0;
	bool client = false;
	char *save = NULL;

	*threads = EVENT_THREADS;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char type[64], value[64];
		const char *option;

		if (sscanf(line, " type %63s", type) == 1) {
			option = find_layer(type);
			if (option)
				return option;
			client = !strcmp(type, "protocol/client");
			found = 0;
		} else if (sscanf(line, " option event-threads %63s", value) == 1) {
			found = strtoul(value, NULL, 10);
		} else if (client && !strncmp(line, "end-volume", 10) && found < *threads) {
			*threads = found;
		}
	}
	return NULL;
}

/* The kernel writes blanks and the like as three octal digits. */
static void unescape(char *path)
{
	char *to = path;

	for (const char *from = path; *from; to++) {
		unsigned code;

		if (sscanf(from, "\\%3o", &code) == 1) {
			*to = (char)code;
			from += 4;
		} else {
			*to = *from++;
		}
	}
	*to = '\0';
}

int kvk_posix_check_gluster(struct kvk_posix *posix, const char *path, char *point, struct kvk_error *error)
{
	const char *layer;
	unsigned long threads;
	char graph[PATH_MAX];
	char *text = NULL;

	unescape(point);
	if (snprintf(graph, sizeof(graph), "%s/" GRAPH, point) < (int)sizeof(graph))
		text = kvk_posix_read_text(posix->sys, graph);
	if (!text || !*text) {
		kvk_mem_free(text);
		return kvk_error_set(error, -EOPNOTSUPP, "shared", "%s is on GlusterFS, and %s/" GRAPH " cannot be read, by which to tell "
				     "whether this machine sees what others do; mount the whole volume, not a part of it", path, point);
	}
	layer = read_graph(text, &threads);
	kvk_mem_free(text);
	if (layer)
		return kvk_error_set(error, -EOPNOTSUPP, "shared", "%s is on GlusterFS with %s, so that this machine does not see what others "
				     "have just done; gluster volume set VOLUME %s off", path, layer, layer);
	if (threads < EVENT_THREADS)
		return kvk_error_set(error, -EOPNOTSUPP, "shared", "%s is on GlusterFS with fewer than %d event threads, so that signals can "
				     "stop this mount for good; gluster volume set VOLUME client.event-threads %d", path,
				     EVENT_THREADS, EVENT_THREADS);
	return 0;
}
