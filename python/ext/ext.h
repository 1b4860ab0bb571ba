/* SPDX-License-Identifier: Apache-2.0 */
/**
 * kvkeep._kvkeep: the library for Python, on the limited API, so that one build serves Python 3.10 and later.
 *
 * It translates and holds references, nothing else: pleasant forms and exceptions live in Python beside it. No thread
 * of the library ever calls into Python; what its hooks say waits in a queue (notices.c) until Python asks.
 */
#ifndef KVKEEP_EXT_H
#define KVKEEP_EXT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <kvkeep/kvkeep.h>

/*
 * The buffer protocol joined the limited API with 3.11, with the struct that 3.10 has: same members, same order, and
 * the two functions are exported by 3.10 too. So it is declared here for the older one.
 */
#if defined(Py_LIMITED_API) && Py_LIMITED_API + 0 < 0x030b0000
typedef struct bufferinfo {
	void *buf;
	PyObject *obj;
	Py_ssize_t len;
	Py_ssize_t itemsize;
	int readonly;
	int ndim;
	char *format;
	Py_ssize_t *shape;
	Py_ssize_t *strides;
	Py_ssize_t *suboffsets;
	void *internal;
} Py_buffer;
#define PyBUF_SIMPLE 0
#define PyBUF_WRITABLE 0x0001
PyAPI_FUNC(int) PyObject_GetBuffer(PyObject *object, Py_buffer *view, int flags);
PyAPI_FUNC(void) PyBuffer_Release(Py_buffer *view);
#endif

/* ---- batches (batch.c) -------------------------------------------------------------------------- */

enum batch_kind {
	BATCH_PUT,
	BATCH_GET,
	BATCH_LOOKUP,
	BATCH_UNPIN,
	BATCH_REMOVE,
};

/** What one call asks for, with everything that must live until it was answered. */
struct batch {
	struct batch *next, *prev;     /* in the store's list while it is under way; NULL outside */
	enum batch_kind kind;
	uint32_t count, answered;
	int64_t task;
	uint64_t deadline_us;
	PyObject *keys, *buffers, *extra[3];   /* tuples; NULL if there are none */
	Py_buffer *views;
	uint32_t view_count;
	struct iovec *pieces;
	void *items;                   /* kvk_put_item, kvk_get_item or kvk_key_item, count of them */
	struct kvk_result *results;
	bool exact;                    /* get: an object of another length than its buffer is -EMSGSIZE */
	uint8_t *metas;                /* KVK_META_BYTES_MAX each; NULL if nobody wants them */
};

/** Makes a batch with its keys: a sequence of str (as UTF-8) or bytes. NULL: an exception is set. */
struct batch *batch_new(enum batch_kind kind, PyObject *keys, uint32_t flags, bool want_meta);
/** Frees a batch and lets go of everything it held. NULL is fine. */
void batch_free(struct batch *batch);
/**
 * Adds where bytes come from or go to: for each key an object with a writable (get) or readable C-contiguous buffer,
 * a tuple (address, bytes) of memory that whoever calls keeps alive, or a list of these. False: an exception is set.
 */
bool batch_add_buffers(struct batch *batch, PyObject *buffers);
/** Adds to a put what may be None: parents (keys or None), depths (ints), metadata (bytes or None). */
bool batch_add_chain(struct batch *batch, PyObject *parents, PyObject *depths, PyObject *metas);
/** Returns a list with a tuple (status, reason, bytes, object_bytes, metadata or None) an item. */
PyObject *batch_results(const struct batch *batch);
/** As bytes of a str or bytes key; the object keeps them. False: an exception is set. */
bool key_from_object(PyObject *object, struct kvk_key *key);

/* ---- notices (notices.c) ------------------------------------------------------------------------ */

struct notices;

/** events: which ones are wanted, bits 1 << enum kvk_event_kind. */
struct notices *notices_new(uint32_t events);
void notices_free(struct notices *notices);
void notices_hooks(struct notices *notices, struct kvk_hooks *hooks);
/** Without the GIL. Waits until there is something, the time is over, or notices_end() was called (false, for good). */
bool notices_wait(struct notices *notices, uint64_t wait_us);
/** Returns all that waits, as a list of ("log", level, text) and ("stored" or so, [keys]). */
PyObject *notices_take(struct notices *notices);
void notices_end(struct notices *notices);

/* ---- the store (core.c, calls.c, look.c) -------------------------------------------------------- */

struct core {
	PyObject_HEAD
	struct kvk_store *store;       /* NULL: closed, or not open yet */
	struct notices *notices;
	struct batch under_way;        /* ring of batches that were submitted and not drained to the end */
	uint32_t users;                /* calls that are inside of the library without the GIL */
	bool closing, ended;           /* close() was called; the store is over, and nothing of it runs */
	pid_t pid;                     /* who opened it */
};

/** Counts a call in, so that close waits for it. False: closed, with the exception set. */
bool core_enter(struct core *core);
void core_leave(struct core *core);

/** The first line of a method's description, which inspect.signature() reads; the stub has the same (test_typing.py). */
#define SIGNATURE(name, parameters) name "($self, " parameters "/)\n--\n\n"

/** Raises the exception for -errno; option and text may be NULL. Returns NULL. */
PyObject *raise_code(int code, const char *option, const char *text);

extern PyMethodDef core_call_methods[];
extern PyMethodDef core_look_methods[];
PyObject *core_type_new(PyObject *module);

#endif
