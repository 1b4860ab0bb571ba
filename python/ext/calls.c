/* SPDX-License-Identifier: Apache-2.0 */
/* Submitting, waiting, draining. */
#include "ext.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DRAIN_MAX 256
#define ASKS "wait: returns [result, ...]; else the task's number, for drain()."
#define HELD_WANTS_DRAIN "memory that may be held wants drain(), which tells when it is free again"

static void list_add(struct core *core, struct batch *batch)
{
	batch->prev = core->under_way.prev;
	batch->next = &core->under_way;
	batch->prev->next = batch;
	core->under_way.prev = batch;
}

static void list_remove(struct batch *batch)
{
	batch->prev->next = batch->next;
	batch->next->prev = batch->prev;
	batch->next = batch->prev = NULL;
}

static int64_t submit(struct kvk_store *store, const struct batch *batch)
{
	switch (batch->kind) {
	case BATCH_PUT:
		return kvk_store_put(store, batch->items, batch->count, batch->deadline_us);
	case BATCH_GET:
		return kvk_store_get(store, batch->items, batch->count, batch->deadline_us);
	case BATCH_LOOKUP:
		return kvk_store_lookup(store, batch->items, batch->count, batch->deadline_us);
	case BATCH_UNPIN:
		return kvk_store_unpin(store, batch->items, batch->count);
	case BATCH_REMOVE:
		return kvk_store_remove(store, batch->items, batch->count, batch->deadline_us);
	}
	return -EINVAL;
}

static int carry_out(struct kvk_store *store, const struct batch *batch)
{
	switch (batch->kind) {
	case BATCH_PUT:
		return kvk_store_put_wait(store, batch->items, batch->count, batch->deadline_us, batch->results);
	case BATCH_GET:
		return kvk_store_get_wait(store, batch->items, batch->count, batch->deadline_us, batch->results);
	case BATCH_LOOKUP:
		return kvk_store_lookup_wait(store, batch->items, batch->count, batch->deadline_us,
					     batch->results);
	case BATCH_UNPIN:
		return kvk_store_unpin_wait(store, batch->items, batch->count, batch->results);
	case BATCH_REMOVE:
		return kvk_store_remove_wait(store, batch->items, batch->count, batch->deadline_us,
					     batch->results);
	}
	return -EINVAL;
}

/* Waits for the answers, without the GIL. */
static int batch_wait(struct core *core, struct batch *batch)
{
	struct kvk_store *store = core->store;
	int err;

	if (!core_enter(core))
		return -1;
	Py_BEGIN_ALLOW_THREADS
	err = carry_out(store, batch);
	Py_END_ALLOW_THREADS
	core_leave(core);
	if (err < 0) {
		raise_code(err, NULL, NULL);
		return -1;
	}
	return PyErr_CheckSignals();
}

/* Waits and returns the results, or submits and returns the task's number. Takes the batch over. */
static PyObject *run_batch(struct core *core, struct batch *batch, int wait)
{
	PyObject *ret = NULL;

	if (wait) {
		if (batch_wait(core, batch) == 0)
			ret = batch_results(batch);
		batch_free(batch);
		return ret;
	}
	if (!core_enter(core)) {
		batch_free(batch);
		return NULL;
	}
	/* With the GIL: nothing waits in here, and answers that come at once find the batch in the list. */
	list_add(core, batch);
	batch->task = submit(core->store, batch);
	core_leave(core);
	if (batch->task < 0) {
		int err = (int)batch->task;

		list_remove(batch);
		batch_free(batch);
		return raise_code(err, NULL, NULL);
	}
	return PyLong_FromLongLong(batch->task);
}

static PyObject *core_put(PyObject *self, PyObject *args)
{
	PyObject *keys, *buffers, *parents, *depths, *metas;
	unsigned long long deadline_us;
	struct batch *batch;
	unsigned int flags;
	int wait;

	if (!PyArg_ParseTuple(args, "OOOOOIKp", &keys, &buffers, &parents, &depths, &metas, &flags, &deadline_us,
			      &wait))
		return NULL;
	if (wait && flags & KVK_MEM_HELD) {
		PyErr_SetString(PyExc_ValueError, HELD_WANTS_DRAIN);
		return NULL;
	}
	batch = batch_new(BATCH_PUT, keys, flags, false);
	if (!batch)
		return NULL;
	batch->deadline_us = deadline_us;
	if (!batch_add_buffers(batch, buffers) || !batch_add_chain(batch, parents, depths, metas)) {
		batch_free(batch);
		return NULL;
	}
	return run_batch((struct core *)self, batch, wait);
}

static PyObject *core_get(PyObject *self, PyObject *args)
{
	unsigned long long offset_bytes, range_bytes, deadline_us;
	unsigned int flags;
	PyObject *keys, *buffers;
	struct batch *batch;
	int want_meta, wait, exact = 0;

	if (!PyArg_ParseTuple(args, "OOKKIpKp|p", &keys, &buffers, &offset_bytes, &range_bytes, &flags, &want_meta,
			      &deadline_us, &wait, &exact))
		return NULL;
	if (wait && flags & KVK_MEM_HELD) {
		PyErr_SetString(PyExc_ValueError, HELD_WANTS_DRAIN);
		return NULL;
	}
	batch = batch_new(BATCH_GET, keys, flags, want_meta);
	if (!batch)
		return NULL;
	batch->deadline_us = deadline_us;
	batch->exact = exact;
	if (buffers != Py_None && !batch_add_buffers(batch, buffers)) {
		batch_free(batch);
		return NULL;
	}
	for (uint32_t i = 0; i < batch->count; i++) {
		((struct kvk_get_item *)batch->items)[i].offset_bytes = offset_bytes;
		((struct kvk_get_item *)batch->items)[i].range_bytes = range_bytes;
	}
	return run_batch((struct core *)self, batch, wait);
}

static PyObject *look_up(PyObject *self, PyObject *args, enum batch_kind kind)
{
	unsigned long long deadline_us;
	unsigned int flags;
	PyObject *keys;
	struct batch *batch;
	int want_meta, wait;

	if (!PyArg_ParseTuple(args, "OIpKp", &keys, &flags, &want_meta, &deadline_us, &wait))
		return NULL;
	batch = batch_new(kind, keys, flags, want_meta);
	if (!batch)
		return NULL;
	batch->deadline_us = deadline_us;
	return run_batch((struct core *)self, batch, wait);
}

static PyObject *core_lookup(PyObject *self, PyObject *args)
{
	return look_up(self, args, BATCH_LOOKUP);
}

static PyObject *core_unpin(PyObject *self, PyObject *args)
{
	return look_up(self, args, BATCH_UNPIN);
}

static PyObject *core_remove(PyObject *self, PyObject *args)
{
	return look_up(self, args, BATCH_REMOVE);
}

/* ---- objects as bytes --------------------------------------------------------------------------- */

/* Room of the right size for what was found; nothing for what was not. */
static PyObject *room_for(const struct batch *found)
{
	PyObject *rooms = PyList_New(0);

	for (uint32_t i = 0; rooms && i < found->count; i++) {
		const struct kvk_result *result = &found->results[i];
		PyObject *room;
		int err;

		if (result->status < 0)
			continue;
		room = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)result->object_bytes);
		err = room ? PyList_Append(rooms, room) : -1;
		Py_XDECREF(room);
		if (err < 0) {
			Py_DECREF(rooms);
			return NULL;
		}
	}
	return rooms;
}

/* A get into the rooms. Nobody else has seen these bytes objects yet, so they may be written to. */
static struct batch *get_into_rooms(const struct batch *found, PyObject *rooms, unsigned int flags, bool want_meta)
{
	PyObject *keys = PyList_New(0);
	struct batch *batch = NULL;

	for (uint32_t i = 0; keys && i < found->count; i++) {
		if (found->results[i].status == 0 &&
		    PyList_Append(keys, PyTuple_GetItem(found->keys, (Py_ssize_t)i)) < 0)
			goto out;
	}
	batch = keys ? batch_new(BATCH_GET, keys, flags, want_meta) : NULL;
	if (!batch)
		goto out;
	batch->deadline_us = found->deadline_us;
	/* Replaced by a shorter one since the lookup: the end of its room was never written. */
	batch->exact = true;
	batch->pieces = calloc(batch->count, sizeof(*batch->pieces));
	if (!batch->pieces) {
		PyErr_NoMemory();
		batch_free(batch);
		batch = NULL;
		goto out;
	}
	for (uint32_t i = 0; i < batch->count; i++) {
		struct kvk_get_item *item = (struct kvk_get_item *)batch->items + i;
		PyObject *room = PyList_GetItem(rooms, (Py_ssize_t)i);

		batch->pieces[i] = (struct iovec){ PyBytes_AsString(room), (size_t)PyBytes_Size(room) };
		item->data = &batch->pieces[i];
		item->data_count = 1;
	}

out:
	Py_XDECREF(keys);
	return batch;
}

static PyObject *read_result(PyObject *tuple, PyObject *room)
{
	return Py_BuildValue("(OOOO)", PyTuple_GetItem(tuple, 0), PyTuple_GetItem(tuple, 1), room,
			     PyTuple_GetItem(tuple, 4));
}

static PyObject *join_results(const struct batch *found, PyObject *got, PyObject *rooms)
{
	PyObject *missed = batch_results(found), *list = PyList_New(0);
	Py_ssize_t at = 0;

	for (uint32_t i = 0; missed && list && i < found->count; i++) {
		bool has = found->results[i].status == 0;
		PyObject *tuple = has ? PyList_GetItem(got, at) : PyList_GetItem(missed, (Py_ssize_t)i);
		bool right = has && PyLong_AsLong(PyTuple_GetItem(tuple, 0)) == 0;
		bool replaced = has && PyLong_AsLong(PyTuple_GetItem(tuple, 0)) == -EMSGSIZE;
		PyObject *result = read_result(tuple, right ? PyList_GetItem(rooms, at) :
						      replaced ? PyTuple_GetItem(tuple, 3) : Py_None);
		int err = result ? PyList_Append(list, result) : -1;

		at += has;
		Py_XDECREF(result);
		if (err < 0)
			Py_CLEAR(list);
	}
	Py_XDECREF(missed);
	if (!missed)
		Py_CLEAR(list);
	return list;
}

static PyObject *core_read(PyObject *self, PyObject *args)
{
	struct core *core = (struct core *)self;
	PyObject *keys, *rooms = NULL, *got = NULL, *ret = NULL;
	struct batch *found, *batch = NULL;
	unsigned long long deadline_us;
	unsigned int flags;
	int want_meta;

	if (!PyArg_ParseTuple(args, "OIpK", &keys, &flags, &want_meta, &deadline_us))
		return NULL;
	found = batch_new(BATCH_LOOKUP, keys, flags & KVK_KEY_IS_DIGEST, false);
	if (!found)
		return NULL;
	found->deadline_us = deadline_us;
	if (batch_wait(core, found) < 0)
		goto out;
	rooms = room_for(found);
	if (!rooms)
		goto out;
	if (PyList_Size(rooms) > 0) {
		batch = get_into_rooms(found, rooms, flags, want_meta);
		if (!batch || batch_wait(core, batch) < 0 || !(got = batch_results(batch)))
			goto out;
	}
	ret = join_results(found, got, rooms);

out:
	batch_free(batch);
	batch_free(found);
	Py_XDECREF(got);
	Py_XDECREF(rooms);
	return ret;
}

/* ---- queues ------------------------------------------------------------------------------------- */

/* Puts one drained result to its batch, and appends (task, kind, results) when the batch is complete. */
static bool take_result(const struct kvk_result *result, PyObject *list)
{
	struct batch *batch = (struct batch *)(uintptr_t)result->user;
	PyObject *results, *tuple;
	int err;

	if (!(result->flags & KVK_RESULT_RELEASE))
		batch->results[result->item] = *result;
	batch->task = result->task;
	/* What the kernel still holds is answered when it lets go: whoever asks must not reuse the memory before. */
	if (result->flags & KVK_RESULT_HELD || ++batch->answered < batch->count)
		return true;
	list_remove(batch);
	results = batch_results(batch);
	tuple = results ? Py_BuildValue("(LiN)", (long long)batch->task, (int)batch->kind, results) : NULL;
	err = tuple ? PyList_Append(list, tuple) : -1;
	Py_XDECREF(tuple);
	batch_free(batch);
	return err == 0;
}

static PyObject *core_drain(PyObject *self, PyObject *args)
{
	struct core *core = (struct core *)self;
	struct kvk_result results[DRAIN_MAX];
	PyObject *list;
	int queue, count;

	if (!PyArg_ParseTuple(args, "i", &queue))
		return NULL;
	if (!core_enter(core))
		return NULL;
	list = PyList_New(0);
	if (!list)
		goto out;
	/* Bounded by what is there now: answers that keep coming are for the next call. */
	for (uint32_t round = 0; round < 64; round++) {
		for (size_t i = 0; i < DRAIN_MAX; i++)
			results[i].struct_bytes = sizeof(results[i]);
		count = kvk_store_drain(core->store, (enum kvk_queue)queue, results, DRAIN_MAX);
		if (count < 0) {
			Py_CLEAR(list);
			raise_code(count, NULL, NULL);
			goto out;
		}
		for (int i = 0; i < count; i++) {
			if (!take_result(&results[i], list)) {
				Py_CLEAR(list);
				goto out;
			}
		}
		if (count < DRAIN_MAX)
			break;
	}

out:
	core_leave(core);
	return list;
}

static PyObject *core_event_fd(PyObject *self, PyObject *args)
{
	struct core *core = (struct core *)self;
	int queue, fd;

	if (!PyArg_ParseTuple(args, "i", &queue) || !core_enter(core))
		return NULL;
	fd = kvk_store_event_fd(core->store, (enum kvk_queue)queue);
	core_leave(core);
	return fd < 0 ? raise_code(fd, NULL, NULL) : PyLong_FromLong(fd);
}

static PyObject *core_wait(PyObject *self, PyObject *args)
{
	struct core *core = (struct core *)self;
	unsigned long long wait_us;
	struct kvk_store *store;
	int queue, err;

	if (!PyArg_ParseTuple(args, "iK", &queue, &wait_us) || !core_enter(core))
		return NULL;
	store = core->store;
	Py_BEGIN_ALLOW_THREADS
	err = kvk_store_wait(store, (enum kvk_queue)queue, wait_us);
	Py_END_ALLOW_THREADS
	core_leave(core);
	return err < 0 ? raise_code(err, NULL, NULL) : PyBool_FromLong(err);
}

static PyObject *core_cancel(PyObject *self, PyObject *args)
{
	struct core *core = (struct core *)self;
	long long task;
	int err;

	if (!PyArg_ParseTuple(args, "L", &task) || !core_enter(core))
		return NULL;
	err = kvk_store_cancel(core->store, task);
	core_leave(core);
	return PyBool_FromLong(err == 0);
}

PyMethodDef core_call_methods[] = {
	{ "put", core_put, METH_VARARGS,
	  SIGNATURE("put", "keys, buffers, parents, depths, metas, flags, deadline_us, wait, ") ASKS },
	{ "get", core_get, METH_VARARGS,
	  SIGNATURE("get", "keys, buffers, offset_bytes, range_bytes, flags, want_meta, deadline_us, wait, exact=False, ")
	  ASKS },
	{ "lookup", core_lookup, METH_VARARGS, SIGNATURE("lookup", "keys, flags, want_meta, deadline_us, wait, ") ASKS },
	{ "unpin", core_unpin, METH_VARARGS, SIGNATURE("unpin", "keys, flags, want_meta, deadline_us, wait, ") ASKS },
	{ "remove", core_remove, METH_VARARGS, SIGNATURE("remove", "keys, flags, want_meta, deadline_us, wait, ") ASKS },
	{ "read", core_read, METH_VARARGS,
	  SIGNATURE("read", "keys, flags, want_meta, deadline_us, ") "[(status, reason, object or None, metadata), ...]; "
	  "-EMSGSIZE: replaced by one of another length meanwhile, which stands in the object's place." },
	{ "drain", core_drain, METH_VARARGS, SIGNATURE("drain", "queue, ") "[(task, kind, [result, ...]), ...]" },
	{ "event_fd", core_event_fd, METH_VARARGS, SIGNATURE("event_fd", "queue, ") "Readable while drain() has answers." },
	{ "wait", core_wait, METH_VARARGS, SIGNATURE("wait", "queue, wait_us, ") "Whether there are answers now." },
	{ "cancel", core_cancel, METH_VARARGS, SIGNATURE("cancel", "task, ") "False: it is answered already." },
	{ NULL, NULL, 0, NULL },
};
