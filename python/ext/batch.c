/* SPDX-License-Identifier: Apache-2.0 */
#include "ext.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool key_from_object(PyObject *object, struct kvk_key *key)
{
	Py_ssize_t bytes;

	if (PyUnicode_Check(object)) {
		/* The UTF-8 form is cached in the string and lives as long as it. */
		key->data = PyUnicode_AsUTF8AndSize(object, &bytes);
		if (!key->data)
			return false;
	} else if (PyBytes_Check(object)) {
		key->data = PyBytes_AsString(object);
		bytes = PyBytes_Size(object);
	} else {
		PyErr_SetString(PyExc_TypeError, "a key is a str or bytes");
		return false;
	}
	if (bytes < 1 || bytes > KVK_KEY_BYTES_MAX) {
		PyErr_Format(PyExc_ValueError, "a key is 1 to %d bytes long, not %zd", KVK_KEY_BYTES_MAX, bytes);
		return false;
	}
	key->bytes = (uint32_t)bytes;
	return true;
}

static size_t item_bytes(enum batch_kind kind)
{
	return kind == BATCH_PUT ? sizeof(struct kvk_put_item) :
	       kind == BATCH_GET ? sizeof(struct kvk_get_item) : sizeof(struct kvk_key_item);
}

struct batch *batch_new(enum batch_kind kind, PyObject *keys, uint32_t flags, bool want_meta)
{
	struct batch *batch = calloc(1, sizeof(*batch));
	Py_ssize_t count;

	if (!batch) {
		PyErr_NoMemory();
		return NULL;
	}
	batch->kind = kind;
	batch->keys = PySequence_Tuple(keys);
	if (!batch->keys)
		goto fail;
	count = PyTuple_Size(batch->keys);
	if (count < 1 || count > KVK_BATCH_ITEMS_MAX) {
		PyErr_Format(PyExc_ValueError, "a batch has 1 to %d keys, not %zd", KVK_BATCH_ITEMS_MAX, count);
		goto fail;
	}
	batch->count = (uint32_t)count;
	batch->items = calloc(batch->count, item_bytes(kind));
	batch->results = calloc(batch->count, sizeof(*batch->results));
	if (want_meta)
		batch->metas = calloc(batch->count, KVK_META_BYTES_MAX);
	if (!batch->items || !batch->results || (want_meta && !batch->metas)) {
		PyErr_NoMemory();
		goto fail;
	}
	for (uint32_t i = 0; i < batch->count; i++) {
		struct kvk_key key;
		void *meta = want_meta ? batch->metas + (size_t)i * KVK_META_BYTES_MAX : NULL;
		uint32_t meta_bytes = want_meta ? KVK_META_BYTES_MAX : 0;

		if (!key_from_object(PyTuple_GetItem(batch->keys, i), &key))
			goto fail;
		batch->results[i].struct_bytes = sizeof(batch->results[i]);
		if (kind == BATCH_PUT)
			((struct kvk_put_item *)batch->items)[i] = (struct kvk_put_item){
				.struct_bytes = sizeof(struct kvk_put_item), .flags = flags, .key = key,
				.user = (uintptr_t)batch };
		else if (kind == BATCH_GET)
			((struct kvk_get_item *)batch->items)[i] = (struct kvk_get_item){
				.struct_bytes = sizeof(struct kvk_get_item), .flags = flags, .key = key,
				.meta = meta, .meta_bytes = meta_bytes, .user = (uintptr_t)batch };
		else
			((struct kvk_key_item *)batch->items)[i] = (struct kvk_key_item){
				.struct_bytes = sizeof(struct kvk_key_item), .flags = flags, .key = key,
				.meta = meta, .meta_bytes = meta_bytes, .user = (uintptr_t)batch };
	}
	return batch;

fail:
	batch_free(batch);
	return NULL;
}

void batch_free(struct batch *batch)
{
	if (!batch)
		return;
	for (uint32_t i = 0; i < batch->view_count; i++)
		PyBuffer_Release(&batch->views[i]);
	free(batch->views);
	free(batch->pieces);
	free(batch->items);
	free(batch->results);
	free(batch->metas);
	Py_XDECREF(batch->keys);
	Py_XDECREF(batch->buffers);
	for (size_t i = 0; i < sizeof(batch->extra) / sizeof(batch->extra[0]); i++)
		Py_XDECREF(batch->extra[i]);
	free(batch);
}

/* ---- buffers ------------------------------------------------------------------------------------ */

/* (address, bytes) */
static bool piece_from_tuple(PyObject *tuple, struct iovec *piece)
{
	if (PyTuple_Size(tuple) != 2) {
		PyErr_SetString(PyExc_TypeError, "a tuple in place of a buffer is (address, bytes)");
		return false;
	}
	piece->iov_base = PyLong_AsVoidPtr(PyTuple_GetItem(tuple, 0));
	if (PyErr_Occurred())
		return false;
	piece->iov_len = PyLong_AsSize_t(PyTuple_GetItem(tuple, 1));
	return !PyErr_Occurred();
}

static bool add_piece(struct batch *batch, PyObject *object, struct iovec *piece)
{
	Py_buffer *view = &batch->views[batch->view_count];

	if (PyTuple_Check(object))
		return piece_from_tuple(object, piece);
	if (PyObject_GetBuffer(object, view, batch->kind == BATCH_GET ? PyBUF_WRITABLE : PyBUF_SIMPLE) < 0)
		return false;
	batch->view_count++;
	*piece = (struct iovec){ view->buf, (size_t)view->len };
	return true;
}

static void item_set_pieces(struct batch *batch, uint32_t index, const struct iovec *pieces, uint32_t count)
{
	if (batch->kind == BATCH_PUT) {
		struct kvk_put_item *item = (struct kvk_put_item *)batch->items + index;

		item->data = pieces;
		item->data_count = count;
	} else {
		struct kvk_get_item *item = (struct kvk_get_item *)batch->items + index;

		item->data = pieces;
		item->data_count = count;
	}
}

/* A tuple of what is listed for each key, so that lists which change meanwhile change nothing here. */
static PyObject *freeze(PyObject *buffers, uint32_t *pieces)
{
	PyObject *frozen = PySequence_Tuple(buffers), *tuple;
	Py_ssize_t count = frozen ? PyTuple_Size(frozen) : 0;

	*pieces = 0;
	if (!frozen || !(tuple = PyTuple_New(count)))
		goto fail;
	for (Py_ssize_t i = 0; i < count; i++) {
		PyObject *object = PyTuple_GetItem(frozen, i), *copy;

		if (PyList_Check(object)) {
			copy = PyList_GetSlice(object, 0, PyList_Size(object));
			if (!copy) {
				Py_DECREF(tuple);
				goto fail;
			}
			*pieces += (uint32_t)PyList_Size(copy);
		} else {
			Py_INCREF(object);
			copy = object;
			*pieces += 1;
		}
		PyTuple_SetItem(tuple, i, copy);
	}
	Py_DECREF(frozen);
	return tuple;

fail:
	Py_XDECREF(frozen);
	return NULL;
}

bool batch_add_buffers(struct batch *batch, PyObject *buffers)
{
	uint32_t pieces, at = 0;

	batch->buffers = freeze(buffers, &pieces);
	if (!batch->buffers)
		return false;
	if (PyTuple_Size(batch->buffers) != batch->count) {
		PyErr_Format(PyExc_ValueError, "%u keys, but %zd buffers", batch->count,
			     PyTuple_Size(batch->buffers));
		return false;
	}
	batch->views = calloc(pieces + 1u, sizeof(*batch->views));
	batch->pieces = calloc(pieces + 1u, sizeof(*batch->pieces));
	if (!batch->views || !batch->pieces) {
		PyErr_NoMemory();
		return false;
	}
	for (uint32_t i = 0; i < batch->count; i++) {
		PyObject *object = PyTuple_GetItem(batch->buffers, i);
		uint32_t first = at;

		if (PyList_Check(object)) {
			for (Py_ssize_t k = 0; k < PyList_Size(object) && at < pieces; k++, at++) {
				if (!add_piece(batch, PyList_GetItem(object, k), &batch->pieces[at]))
					return false;
			}
		} else if (!add_piece(batch, object, &batch->pieces[at++])) {
			return false;
		}
		item_set_pieces(batch, i, batch->pieces + first, at - first);
	}
	return true;
}

/* ---- what a put says about its place in a prefix ------------------------------------------------ */

static PyObject *as_long_as_keys(struct batch *batch, PyObject *sequence, const char *what)
{
	PyObject *tuple = PySequence_Tuple(sequence);

	if (tuple && PyTuple_Size(tuple) != batch->count) {
		PyErr_Format(PyExc_ValueError, "%u keys, but %zd %s", batch->count, PyTuple_Size(tuple), what);
		Py_DECREF(tuple);
		return NULL;
	}
	return tuple;
}

bool batch_add_chain(struct batch *batch, PyObject *parents, PyObject *depths, PyObject *metas)
{
	struct kvk_put_item *items = batch->items;

	if (parents != Py_None && !(batch->extra[0] = as_long_as_keys(batch, parents, "parents")))
		return false;
	if (depths != Py_None && !(batch->extra[1] = as_long_as_keys(batch, depths, "depths")))
		return false;
	if (metas != Py_None && !(batch->extra[2] = as_long_as_keys(batch, metas, "metadata")))
		return false;
	for (uint32_t i = 0; i < batch->count; i++) {
		PyObject *parent = batch->extra[0] ? PyTuple_GetItem(batch->extra[0], i) : Py_None;
		PyObject *meta = batch->extra[2] ? PyTuple_GetItem(batch->extra[2], i) : Py_None;

		if (parent != Py_None && !key_from_object(parent, &items[i].parent))
			return false;
		if (batch->extra[1]) {
			unsigned long depth = PyLong_AsUnsignedLong(PyTuple_GetItem(batch->extra[1], i));

			if (PyErr_Occurred())
				return false;
			items[i].depth = depth > UINT32_MAX ? UINT32_MAX : (uint32_t)depth;
		}
		if (meta == Py_None)
			continue;
		if (!PyBytes_Check(meta) || PyBytes_Size(meta) > KVK_META_BYTES_MAX) {
			PyErr_Format(PyExc_ValueError, "metadata is at most %d bytes", KVK_META_BYTES_MAX);
			return false;
		}
		items[i].meta = PyBytes_AsString(meta);
		items[i].meta_bytes = (uint32_t)PyBytes_Size(meta);
	}
	return true;
}

static uint64_t room_bytes(const struct kvk_get_item *item)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < item->data_count; i++)
		bytes += item->data[i].iov_len;
	return bytes;
}

/* ---- answers ------------------------------------------------------------------------------------ */

static PyObject *result_tuple(const struct batch *batch, uint32_t index)
{
	const struct kvk_result *result = &batch->results[index];
	int status = result->status;
	uint32_t reason = result->reason;
	PyObject *meta = NULL;

	if (batch->exact && status == 0 &&
	    result->bytes != room_bytes((const struct kvk_get_item *)batch->items + index)) {
		status = -EMSGSIZE;
		reason = KVK_REASON_ARGUMENT;
	}
	if (batch->metas && result->status == 0) {
		uint32_t bytes = result->meta_bytes < KVK_META_BYTES_MAX ? result->meta_bytes : KVK_META_BYTES_MAX;

		meta = PyBytes_FromStringAndSize((const char *)batch->metas + (size_t)index * KVK_META_BYTES_MAX,
						 (Py_ssize_t)bytes);
		if (!meta)
			return NULL;
	} else {
		Py_INCREF(Py_None);
		meta = Py_None;
	}
	return Py_BuildValue("(iIKKN)", status, (unsigned int)reason,
			     (unsigned long long)result->bytes, (unsigned long long)result->object_bytes, meta);
}

PyObject *batch_results(const struct batch *batch)
{
	PyObject *list = PyList_New(batch->count);

	if (!list)
		return NULL;
	for (uint32_t i = 0; i < batch->count; i++) {
		PyObject *tuple = result_tuple(batch, i);

		if (!tuple) {
			Py_DECREF(list);
			return NULL;
		}
		PyList_SetItem(list, i, tuple);
	}
	return list;
}
