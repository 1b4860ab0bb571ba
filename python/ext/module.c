/* SPDX-License-Identifier: Apache-2.0 */
#include "ext.h"

static PyObject *module_version(PyObject *self, PyObject *none)
{
	(void)self;
	(void)none;
	return PyUnicode_FromString(kvk_version());
}

static PyObject *module_reason(PyObject *self, PyObject *args)
{
	unsigned int reason;

	(void)self;
	if (!PyArg_ParseTuple(args, "I", &reason))
		return NULL;
	return PyUnicode_FromString(kvk_reason_text(reason));
}

static PyMethodDef functions[] = {
	{ "version", module_version, METH_NOARGS, "version($module, /)\n--\n\nThe library's." },
	{ "reason_text", module_reason, METH_VARARGS,
	  "reason_text($module, reason, /)\n--\n\nThe library's words for a result's reason." },
	{ NULL, NULL, 0, NULL },
};

static const struct {
	const char *name;
	long value;
} constants[] = {
	{ "QUEUE_PUT", KVK_QUEUE_PUT },
	{ "QUEUE_LOOKUP", KVK_QUEUE_LOOKUP },
	{ "QUEUE_GET", KVK_QUEUE_GET },
	{ "LOOKUP_PIN", KVK_LOOKUP_PIN },
	{ "MEM_HELD", KVK_MEM_HELD },
	{ "KIND_PUT", BATCH_PUT },
	{ "KIND_GET", BATCH_GET },
	{ "KIND_LOOKUP", BATCH_LOOKUP },
	{ "KIND_UNPIN", BATCH_UNPIN },
	{ "KIND_REMOVE", BATCH_REMOVE },
	{ "GET_PEEK", KVK_GET_PEEK },
	{ "GET_VERIFY", KVK_GET_VERIFY },
	{ "KEY_IS_DIGEST", KVK_KEY_IS_DIGEST },
	{ "KEY_BYTES_MAX", KVK_KEY_BYTES_MAX },
	{ "META_BYTES_MAX", KVK_META_BYTES_MAX },
	{ "BATCH_ITEMS_MAX", KVK_BATCH_ITEMS_MAX },
	{ "REASON_PRESENT", KVK_REASON_PRESENT },
	{ "EVENT_STORED", 1 << KVK_EVENT_STORED },
	{ "EVENT_ACCESSED", 1 << KVK_EVENT_ACCESSED },
	{ "EVENT_DELETED", 1 << KVK_EVENT_DELETED },
	{ "BY_TENANT", KVK_BY_TENANT },
	{ "BY_MODEL", KVK_BY_MODEL },
};

static int module_exec(PyObject *module)
{
	PyObject *core = core_type_new(module);
	int err = core ? PyModule_AddObjectRef(module, "Core", core) : -1;

	Py_XDECREF(core);
	for (size_t i = 0; !err && i < sizeof(constants) / sizeof(constants[0]); i++)
		err = PyModule_AddIntConstant(module, constants[i].name, constants[i].value);
	return err;
}

static PyModuleDef_Slot slots[] = {
	{ Py_mod_exec, module_exec },
	{ 0, NULL },
};

static struct PyModuleDef definition = {
	.m_base = PyModuleDef_HEAD_INIT,
	.m_name = "kvkeep._kvkeep",
	.m_doc = "The library for Python. Use kvkeep instead.",
	.m_size = 0,
	.m_methods = functions,
	.m_slots = slots,
};

PyMODINIT_FUNC PyInit__kvkeep(void);

PyMODINIT_FUNC PyInit__kvkeep(void)
{
	return PyModuleDef_Init(&definition);
}
