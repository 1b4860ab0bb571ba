/* SPDX-License-Identifier: Apache-2.0 */
#include "ext.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

PyObject *raise_code(int code, const char *option, const char *text)
{
	PyObject *errors = PyImport_ImportModule("kvkeep._errors"), *error;

	if (!errors)
		return NULL;
	error = PyObject_CallMethod(errors, "from_code", "iss", code, option ? option : "", text ? text : "");
	Py_DECREF(errors);
	if (error) {
		PyErr_SetObject((PyObject *)Py_TYPE(error), error);
		Py_DECREF(error);
	}
	return NULL;
}

bool core_enter(struct core *core)
{
	if (!core->store || core->closing) {
		raise_code(-ESHUTDOWN, NULL, "the store is closed");
		return false;
	}
	core->users++;
	return true;
}

void core_leave(struct core *core)
{
	core->users--;
}

static int core_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
	struct core *core = (struct core *)self;
	struct kvk_error error = { .struct_bytes = sizeof(error) };
	struct kvk_store *store = NULL;
	struct kvk_hooks hooks;
	const char *spec;
	unsigned events = 0;
	int err;

	if (kwargs && PyDict_Size(kwargs) > 0) {
		PyErr_SetString(PyExc_TypeError, "Core() takes no keyword arguments");
		return -1;
	}
	if (!PyArg_ParseTuple(args, "s|I", &spec, &events))
		return -1;
	if (core->notices) {
		PyErr_SetString(PyExc_TypeError, "a store is opened once");
		return -1;
	}
	core->under_way.next = core->under_way.prev = &core->under_way;
	core->pid = getpid();
	core->notices = notices_new(events);
	if (!core->notices) {
		PyErr_NoMemory();
		return -1;
	}
	notices_hooks(core->notices, &hooks);
	Py_BEGIN_ALLOW_THREADS
	err = kvk_store_open(&store, spec, &hooks, &error);
	Py_END_ALLOW_THREADS
	if (err < 0) {
		raise_code(err, error.option, error.text);
		return -1;
	}
	core->store = store;
	return 0;
}

/* Ends the store. What close left in the kernel's hands is given up with it: those buffers are never let go of. */
static int end_store(struct core *core)
{
	bool ours = core->pid == getpid();
	int err;

	/* Whoever closes second waits too: what the store writes to is free only then. */
	while (ours && core->closing && !core->ended) {
		Py_BEGIN_ALLOW_THREADS
		usleep(1000);
		Py_END_ALLOW_THREADS
	}
	if (core->ended)
		return 0;
	core->closing = true;
	if (ours)
		notices_end(core->notices);
	/* Calls of other threads end by their deadlines at the latest. A child has no such threads, only their count. */
	while (ours && core->users > 0) {
		Py_BEGIN_ALLOW_THREADS
		usleep(1000);
		Py_END_ALLOW_THREADS
	}
	if (!core->store)
		return 0;              /* a child, whose parent was closing it */
	struct kvk_store *store = core->store;
	core->store = NULL;
	Py_BEGIN_ALLOW_THREADS
	err = kvk_store_close(store);
	Py_END_ALLOW_THREADS
	core->ended = true;
	if (err == -ETIMEDOUT)
		return err;
	while (core->under_way.next != &core->under_way) {
		struct batch *batch = core->under_way.next;

		core->under_way.next = batch->next;
		batch->next->prev = &core->under_way;
		batch_free(batch);
	}
	return err;
}

static PyObject *core_close(PyObject *self, PyObject *none)
{
	struct core *core = (struct core *)self;
	int err;

	(void)none;
	if (!core->store && !core->closing)
		Py_RETURN_NONE;
	err = end_store(core);
	if (err < 0)
		return raise_code(err, NULL, "the medium hangs and still holds memory that was registered");
	Py_RETURN_NONE;
}

static PyObject *core_closed(PyObject *self, void *unused)
{
	struct core *core = (struct core *)self;

	(void)unused;
	return PyBool_FromLong(!core->store || core->closing);
}

static PyObject *core_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
	struct core *core = (struct core *)alloc(type, 0);

	(void)args;
	(void)kwargs;
	if (core)
		core->under_way.next = core->under_way.prev = &core->under_way;
	return (PyObject *)core;
}

static void core_dealloc(PyObject *self)
{
	struct core *core = (struct core *)self;
	PyTypeObject *type = Py_TYPE(self);
	freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
	PyObject *kind, *value, *trace;

	PyErr_Fetch(&kind, &value, &trace);
	if (core->store)
		end_store(core);
	notices_free(core->notices);
	PyErr_Restore(kind, value, trace);
	release(self);
	Py_DECREF(type);
}

/* ---- notices ------------------------------------------------------------------------------------ */

static PyObject *core_notices(PyObject *self, PyObject *args)
{
	struct core *core = (struct core *)self;
	unsigned long long wait_us;
	bool going_on;

	if (!PyArg_ParseTuple(args, "K", &wait_us))
		return NULL;
	if (!core->notices || core->pid != getpid())
		Py_RETURN_NONE;
	/* No user of the store: what it waits for ends first when the store is closed. */
	Py_BEGIN_ALLOW_THREADS
	going_on = notices_wait(core->notices, wait_us);
	Py_END_ALLOW_THREADS
	if (!going_on)
		Py_RETURN_NONE;
	return notices_take(core->notices);
}

static PyMethodDef own_methods[] = {
	{ "close", core_close, METH_NOARGS, SIGNATURE("close", "") "Ends the store. Closing twice is fine." },
	{ "notices", core_notices, METH_VARARGS,
	  SIGNATURE("notices", "wait_us, ") "What the store said since the last call; None once it is closed." },
	{ NULL, NULL, 0, NULL },
};

static PyGetSetDef properties[] = {
	{ "closed", core_closed, NULL, "Whether close() was called.", NULL },
	{ NULL, NULL, NULL, NULL, NULL },
};

/* The three tables of methods as one, which a type wants. */
static PyMethodDef methods[64];

static bool join_methods(void)
{
	PyMethodDef *const tables[] = { own_methods, core_call_methods, core_look_methods };
	size_t at = 0;

	for (size_t table = 0; table < sizeof(tables) / sizeof(tables[0]); table++) {
		for (PyMethodDef *method = tables[table]; method->ml_name; method++) {
			if (at + 1 == sizeof(methods) / sizeof(methods[0]))
				return false;
			methods[at++] = *method;
		}
	}
	methods[at] = (PyMethodDef){ NULL, NULL, 0, NULL };
	return true;
}

PyObject *core_type_new(PyObject *module)
{
	PyType_Slot slots[] = {
		{ Py_tp_new, core_new },
		{ Py_tp_init, core_init },
		{ Py_tp_dealloc, core_dealloc },
		{ Py_tp_methods, methods },
		{ Py_tp_getset, properties },
		{ Py_tp_doc, "Core(spec, events=0, /)\n--\n\nA store, with the library's own calls." },
		{ 0, NULL },
	};
	PyType_Spec spec = {
		.name = "kvkeep._kvkeep.Core",
		.basicsize = sizeof(struct core),
		.flags = Py_TPFLAGS_DEFAULT,
		.slots = slots,
	};

	(void)module;
	if (!join_methods()) {
		PyErr_SetString(PyExc_SystemError, "too many methods");
		return NULL;
	}
	return PyType_FromSpec(&spec);
}
