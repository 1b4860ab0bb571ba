/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the medium in memory share: one step at a time, in one line. */
#ifndef KVK_TESTS_UNIT_RAM_BED_H
#define KVK_TESTS_UNIT_RAM_BED_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/backend.h"
#include "backend/ram/bytes.h"
#include "backend/ram/ram.h"
#include "util/alloc.h"

#define CHUNK KVK_RAM_CHUNK_BYTES

/* ---- help -------------------------------------------------------------------------------------------- */

static inline struct kvk_backend *open_ram(const char *path)
{
	struct kvk_backend_options options = { .path = path, .create = true };
	struct kvk_backend *backend = NULL;
	struct kvk_error error = { .struct_bytes = sizeof(error) };

	assert_int_equal(kvk_backend_ram.open(&backend, &options, &error), 0);
	assert_non_null(backend);
	return backend;
}

static inline int64_t run(struct kvk_backend *backend, struct kvk_xfer *xfer)
{
	xfer->result = -12345;
	backend->ops->run(backend, xfer);
	return xfer->result;
}

/* One step by name or place. *stat and *place receive what the step returns; either may be NULL. */
static inline int64_t step(struct kvk_backend *backend, enum kvk_xfer_op op, struct kvk_place **place, const char *name,
		    const char *name2, struct kvk_stat *stat)
{
	struct kvk_xfer xfer;
	int64_t result;

	kvk_xfer_init(&xfer, op, place ? *place : NULL, name);
	xfer.name2 = name2;
	result = run(backend, &xfer);
	if (place)
		*place = xfer.place;
	if (stat)
		*stat = xfer.stat;
	return result;
}

static inline int64_t move_bytes(struct kvk_backend *backend, enum kvk_xfer_op op, struct kvk_place *place, void *data,
			  size_t bytes, uint64_t offset)
{
	struct iovec iov = { data, bytes };
	struct kvk_xfer xfer;

	kvk_xfer_init(&xfer, op, place, NULL);
	xfer.iov = &iov;
	xfer.iov_count = 1;
	xfer.offset_bytes = offset;
	return run(backend, &xfer);
}

#define OPEN(b, p, name) step(b, KVK_XFER_OPEN, p, name, NULL, NULL)
#define CREATE(b, p, name) step(b, KVK_XFER_CREATE, p, name, NULL, NULL)
#define PUBLISH(b, p, name) step(b, KVK_XFER_PUBLISH, p, name, NULL, NULL)
#define CLOSE(b, p) step(b, KVK_XFER_CLOSE, p, NULL, NULL, NULL)
#define STAT(b, p, s) step(b, KVK_XFER_STAT, p, NULL, NULL, s)
#define STAT_NAME(b, name, s) step(b, KVK_XFER_STAT_NAME, NULL, name, NULL, s)
#define UNLINK(b, name) step(b, KVK_XFER_UNLINK, NULL, name, NULL, NULL)
#define MOVE(b, from, to) step(b, KVK_XFER_MOVE, NULL, from, to, NULL)
#define EXCHANGE(b, from, to) step(b, KVK_XFER_EXCHANGE, NULL, from, to, NULL)
#define WRITE(b, p, d, n, at) move_bytes(b, KVK_XFER_WRITE, p, d, n, at)
#define READ(b, p, d, n, at) move_bytes(b, KVK_XFER_READ, p, d, n, at)

/* A published file with this text. */
static inline void make(struct kvk_backend *backend, const char *name, const char *text)
{
	struct kvk_place *place = NULL;
	char copy[64];

	snprintf(copy, sizeof(copy), "%s", text);
	assert_int_equal(CREATE(backend, &place, name), 0);
	assert_int_equal(WRITE(backend, place, copy, strlen(copy), 0), strlen(copy));
	assert_int_equal(PUBLISH(backend, &place, name), 0);
	assert_int_equal(CLOSE(backend, &place), 0);
}

static inline void check_text(struct kvk_backend *backend, const char *name, const char *text)
{
	struct kvk_place *place = NULL;
	char got[64] = { 0 };

	assert_int_equal(OPEN(backend, &place, name), 0);
	assert_int_equal(READ(backend, place, got, sizeof(got) - 1, 0), strlen(text));
	assert_string_equal(got, text);
	CLOSE(backend, &place);
}

static inline uint64_t free_bytes(struct kvk_backend *backend)
{
	struct kvk_space space;

	assert_int_equal(backend->ops->space(backend, &space), 0);
	return space.free_bytes;
}

static inline bool has_name(struct kvk_backend *backend, const char *folder, const char *name, uint32_t count)
{
	struct kvk_names names = { 0 };
	bool found = false;

	assert_int_equal(backend->ops->list(backend, folder, &names), 0);
	assert_int_equal(names.count, count);
	for (uint32_t i = 0; i < names.count; i++)
		found = found || !strcmp(names.names[i], name);
	kvk_names_release(&names);
	return found;
}

#endif
