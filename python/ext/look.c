/* SPDX-License-Identifier: Apache-2.0 */
/* What a store tells about itself and what it holds. */
#include "ext.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_MAX 1024

static PyObject *json_from_library(int err, char *text)
{
	PyObject *ret;

	if (err < 0)
		return raise_code(err, NULL, NULL);
	ret = PyUnicode_FromString(text);
	kvk_free(text);
	return ret;
}

static PyObject *core_status(PyObject *self, PyObject *none)
{
	struct core *core = (struct core *)self;
	struct kvk_store *store = core->store;
	char *text = NULL;
	int err;

	(void)none;
	if (!core_enter(core))
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	err = kvk_store_status(store, &text);
	Py_END_ALLOW_THREADS
	core_leave(core);
	return json_from_library(err, text);
}

static PyObject *core_namespace(PyObject *self, PyObject *args)
{
	struct core *core = (struct core *)self;
	struct kvk_store *store = core->store;
	const char *digest = NULL;
	Py_ssize_t bytes = 0;
	char *text = NULL;
	int err;

	if (!PyArg_ParseTuple(args, "|z#", &digest, &bytes))
		return NULL;
	if (digest && bytes != 32) {
		PyErr_SetString(PyExc_ValueError, "a digest has 32 bytes");
		return NULL;
	}
	if (!core_enter(core))
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	err = kvk_store_namespace(store, (const uint8_t *)digest, &text);
	Py_END_ALLOW_THREADS
	core_leave(core);
	return json_from_library(err, text);
}

static PyObject *core_namespaces(PyObject *self, PyObject *none)
{
	struct core *core = (struct core *)self;
	struct kvk_store *store = core->store;
	uint8_t *digests = calloc(PAGE_MAX, 32);
	PyObject *list = NULL;
	int count;

	(void)none;
	if (!digests)
		return PyErr_NoMemory();
	if (!core_enter(core))
		goto out;
	Py_BEGIN_ALLOW_THREADS
	count = kvk_store_namespaces(store, digests, PAGE_MAX);
	Py_END_ALLOW_THREADS
	core_leave(core);
	if (count < 0) {
		raise_code(count, NULL, NULL);
		goto out;
	}
	list = PyList_New(0);
	for (int i = 0; list && i < count && i < PAGE_MAX; i++) {
		PyObject *digest = PyBytes_FromStringAndSize((const char *)digests + (size_t)i * 32, 32);

		if (!digest || PyList_Append(list, digest) < 0)
			Py_CLEAR(list);
		Py_XDECREF(digest);
	}

out:
	free(digests);
	return list;
}

static bool dict_add(PyObject *dict, const char *name, PyObject *value)
{
	int err = value ? PyDict_SetItemString(dict, name, value) : -1;

	Py_XDECREF(value);
	return err == 0;
}

static PyObject *core_usage(PyObject *self, PyObject *none)
{
	struct core *core = (struct core *)self;
	struct kvk_usage usage = { .struct_bytes = sizeof(usage) };
	int err;

	(void)none;
	if (!core_enter(core))
		return NULL;
	err = kvk_store_usage(core->store, &usage);
	core_leave(core);
	if (err < 0)
		return raise_code(err, NULL, NULL);
	return Py_BuildValue("{sKsKsKsKsKsKsd}", "used_bytes", (unsigned long long)usage.used_bytes,
			     "writing_bytes", (unsigned long long)usage.writing_bytes,
			     "cap_bytes", (unsigned long long)usage.cap_bytes,
			     "objects", (unsigned long long)usage.objects,
			     "pinned_objects", (unsigned long long)usage.pinned_objects,
			     "quarantined_bytes", (unsigned long long)usage.quarantined_bytes,
			     "used_fraction", usage.used_fraction);
}

#define COUNT(name) { #name, offsetof(struct kvk_stats, name) }
static const struct {
	const char *name;
	size_t offset;
} counts[] = {
	COUNT(puts), COUNT(put_stored), COUNT(put_present), COUNT(put_no_room), COUNT(put_failed), COUNT(put_bytes),
	COUNT(gets), COUNT(get_hits), COUNT(get_absent), COUNT(get_damaged), COUNT(get_failed), COUNT(get_bytes),
	COUNT(get_unverified), COUNT(lookups), COUNT(lookup_memory_hits), COUNT(lookup_medium_hits),
	COUNT(lookup_absent), COUNT(removes), COUNT(removed), COUNT(deadlines), COUNT(canceled),
	COUNT(medium_errors), COUNT(short_transfers), COUNT(rereads), COUNT(quarantined), COUNT(collisions),
	COUNT(links), COUNT(copied_bytes), COUNT(straight_bytes), COUNT(notices_dropped),
};

static PyObject *core_stats(PyObject *self, PyObject *none)
{
	struct core *core = (struct core *)self;
	struct kvk_stats stats = { .struct_bytes = sizeof(stats) };
	PyObject *dict;
	int err;

	(void)none;
	if (!core_enter(core))
		return NULL;
	err = kvk_store_stats(core->store, &stats);
	core_leave(core);
	if (err < 0)
		return raise_code(err, NULL, NULL);
	dict = PyDict_New();
	for (size_t i = 0; dict && i < sizeof(counts) / sizeof(counts[0]); i++) {
		uint64_t value;

		memcpy(&value, (const char *)&stats + counts[i].offset, sizeof(value));
		if (!dict_add(dict, counts[i].name, PyLong_FromUnsignedLongLong(value)))
			Py_CLEAR(dict);
	}
	return dict;
}

static PyObject *core_shares(PyObject *self, PyObject *args)
{
	struct core *core = (struct core *)self;
	struct kvk_share *shares = calloc(PAGE_MAX, sizeof(*shares));
	PyObject *dict = NULL;
	int by, count;

	if (!shares)
		return PyErr_NoMemory();
	if (!PyArg_ParseTuple(args, "i", &by) || !core_enter(core))
		goto out;
	for (size_t i = 0; i < PAGE_MAX; i++)
		shares[i].struct_bytes = sizeof(shares[i]);
	count = kvk_store_shares(core->store, (enum kvk_share_by)by, shares, PAGE_MAX);
	core_leave(core);
	if (count < 0) {
		raise_code(count, NULL, NULL);
		goto out;
	}
	dict = PyDict_New();
	for (int i = 0; dict && i < count && i < PAGE_MAX; i++) {
		PyObject *name = PyUnicode_DecodeUTF8((const char *)shares[i].name,
						      (Py_ssize_t)shares[i].name_bytes, "replace");
		PyObject *share = Py_BuildValue("(KK)", (unsigned long long)shares[i].used_bytes,
						(unsigned long long)shares[i].objects);

		if (!name || !share || PyDict_SetItem(dict, name, share) < 0)
			Py_CLEAR(dict);
		Py_XDECREF(name);
		Py_XDECREF(share);
	}

out:
	free(shares);
	return dict;
}

/* ---- listing ------------------------------------------------------------------------------------ */

static PyObject *bytes_or_none(const void *data, uint32_t bytes)
{
	if (bytes == 0)
		Py_RETURN_NONE;
	return PyBytes_FromStringAndSize(data, (Py_ssize_t)bytes);
}

static PyObject *entry_dict(const struct kvk_list_entry *entry)
{
	static const uint8_t none[32];
	static const char *const states[] = { "unknown", "present", "damaged", "unverified", "foreign" };
	PyObject *dict = PyDict_New();
	uint32_t parent_bytes = memcmp(entry->parent_digest, none, 32) ? 32 : 0;

	if (!dict ||
	    !dict_add(dict, "key", bytes_or_none(entry->key, entry->key_bytes)) ||
	    !dict_add(dict, "state", PyUnicode_FromString(states[entry->state <= 4 ? entry->state : 0])) ||
	    !dict_add(dict, "object_bytes", PyLong_FromUnsignedLongLong(entry->object_bytes)) ||
	    !dict_add(dict, "stored_bytes", PyLong_FromUnsignedLongLong(entry->stored_bytes)) ||
	    !dict_add(dict, "created_ns", PyLong_FromUnsignedLongLong(entry->created_ns)) ||
	    !dict_add(dict, "depth", PyLong_FromUnsignedLong(entry->depth)) ||
	    !dict_add(dict, "pins", PyLong_FromUnsignedLong(entry->pins)) ||
	    !dict_add(dict, "meta", PyBytes_FromStringAndSize((const char *)entry->meta,
							      (Py_ssize_t)entry->meta_bytes)) ||
	    !dict_add(dict, "digest", PyBytes_FromStringAndSize((const char *)entry->digest, 32)) ||
	    !dict_add(dict, "parent_digest", bytes_or_none(entry->parent_digest, parent_bytes)) ||
	    !dict_add(dict, "namespace_digest",
		      PyBytes_FromStringAndSize((const char *)entry->namespace_digest, 32)) ||
	    !dict_add(dict, "name", PyUnicode_DecodeUTF8(entry->name, (Py_ssize_t)strlen(entry->name), "replace")))
		Py_CLEAR(dict);
	return dict;
}

static bool key_or_all(PyObject *object, struct kvk_key *key)
{
	return object == Py_None || key_from_object(object, key);
}

static PyObject *core_list(PyObject *self, PyObject *args)
{
	struct core *core = (struct core *)self;
	struct kvk_store *store = core->store;
	struct kvk_list_query query = { .struct_bytes = sizeof(query) };
	PyObject *prefix, *model, *salt, *list = NULL;
	struct kvk_list_entry *entries = NULL;
	unsigned long long before_ns;
	char *cursor = NULL;
	unsigned int room;
	int count;

	if (!PyArg_ParseTuple(args, "OOOKzI", &prefix, &model, &salt, &before_ns, &query.cursor, &room))
		return NULL;
	if (!key_or_all(prefix, &query.prefix) || !key_or_all(model, &query.model) || !key_or_all(salt, &query.salt))
		return NULL;
	query.created_before_ns = before_ns;
	room = room < 1 ? 1 : room > PAGE_MAX ? PAGE_MAX : room;
	entries = calloc(room, sizeof(*entries));
	if (!entries)
		return PyErr_NoMemory();
	for (uint32_t i = 0; i < room; i++)
		entries[i].struct_bytes = sizeof(entries[i]);
	if (!core_enter(core))
		goto out;
	Py_BEGIN_ALLOW_THREADS
	count = kvk_store_list(store, &query, entries, room, &cursor);
	Py_END_ALLOW_THREADS
	core_leave(core);
	if (count < 0) {
		raise_code(count, NULL, NULL);
		goto out;
	}
	list = PyList_New(0);
	for (int i = 0; list && i < count; i++) {
		PyObject *dict = entry_dict(&entries[i]);

		if (!dict || PyList_Append(list, dict) < 0)
			Py_CLEAR(list);
		Py_XDECREF(dict);
	}

out:
	free(entries);
	if (list) {
		PyObject *ret = Py_BuildValue("(Nz)", list, cursor);

		kvk_free(cursor);
		return ret;
	}
	kvk_free(cursor);
	return NULL;
}

/* ---- memory of the host ------------------------------------------------------------------------- */

static PyObject *core_register(PyObject *self, PyObject *args)
{
	struct core *core = (struct core *)self;
	struct kvk_store *store = core->store;
	unsigned long long address, bytes;
	int err;

	if (!PyArg_ParseTuple(args, "KK", &address, &bytes) || !core_enter(core))
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	err = kvk_store_register(store, (void *)(uintptr_t)address, bytes);
	Py_END_ALLOW_THREADS
	core_leave(core);
	if (err < 0)
		return raise_code(err, NULL, "address and bytes must be multiples of 4,096 and not registered yet");
	Py_RETURN_NONE;
}

static PyObject *core_unregister(PyObject *self, PyObject *args)
{
	struct core *core = (struct core *)self;
	struct kvk_store *store = core->store;
	unsigned long long address;
	int err;

	if (!PyArg_ParseTuple(args, "K", &address) || !core_enter(core))
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	err = kvk_store_unregister(store, (void *)(uintptr_t)address);
	Py_END_ALLOW_THREADS
	core_leave(core);
	if (err < 0)
		return raise_code(err, NULL, "not registered, or a hung medium may still use it");
	Py_RETURN_NONE;
}

PyMethodDef core_look_methods[] = {
	{ "status", core_status, METH_NOARGS, SIGNATURE("status", "") "JSON" },
	{ "namespace", core_namespace, METH_VARARGS, SIGNATURE("namespace", "digest=None, ") "JSON" },
	{ "namespaces", core_namespaces, METH_NOARGS, SIGNATURE("namespaces", "") "[digest, ...]" },
	{ "usage", core_usage, METH_NOARGS, SIGNATURE("usage", "") "Bytes and objects." },
	{ "stats", core_stats, METH_NOARGS, SIGNATURE("stats", "") "Counters since open." },
	{ "shares", core_shares, METH_VARARGS, SIGNATURE("shares", "by, ") "{name: (used_bytes, objects)}" },
	{ "list", core_list, METH_VARARGS,
	  SIGNATURE("list", "prefix, model, salt, created_before_ns, cursor, count, ") "(entries, cursor)" },
	{ "register", core_register, METH_VARARGS,
	  SIGNATURE("register", "address, bytes, ") "Memory that transfers may use straight." },
	{ "unregister", core_unregister, METH_VARARGS, SIGNATURE("unregister", "address, ") "What register() was given." },
	{ NULL, NULL, 0, NULL },
};
