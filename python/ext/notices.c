/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the store's hooks say, kept until Python takes it. The hooks run on a thread of the library; would it call into
 * Python, an interpreter that is going away would end or hang that thread in the middle.
 */
#include "ext.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* More than this many bytes are not kept: who does not listen must not make the process grow. */
#define WAITING_BYTES_MAX (16u << 20)

struct notice {
	struct notice *next;
	uint32_t kind;                 /* enum kvk_event_kind; 0: a log line */
	int level;
	uint32_t bytes;
	char data[];
};

struct notices {
	pthread_mutex_t lock;
	pthread_cond_t came;
	struct notice *first, **last;
	size_t waiting_bytes;
	uint32_t events;               /* which are wanted: bits 1 << enum kvk_event_kind */
	bool ended;
};

struct notices *notices_new(uint32_t events)
{
	struct notices *notices = calloc(1, sizeof(*notices));
	pthread_condattr_t attributes;

	if (!notices)
		return NULL;
	notices->events = events;
	notices->last = &notices->first;
	pthread_mutex_init(&notices->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&notices->came, &attributes);
	pthread_condattr_destroy(&attributes);
	return notices;
}

static void free_chain(struct notice *notice)
{
	while (notice) {
		struct notice *next = notice->next;

		free(notice);
		notice = next;
	}
}

void notices_free(struct notices *notices)
{
	if (!notices)
		return;
	free_chain(notices->first);
	free(notices);
}

static void leave(struct notices *notices, uint32_t kind, int level, const void *data, size_t bytes)
{
	struct notice *notice = malloc(sizeof(*notice) + bytes);

	if (!notice)
		return;
	*notice = (struct notice){ .kind = kind, .level = level, .bytes = (uint32_t)bytes };
	memcpy(notice->data, data, bytes);
	pthread_mutex_lock(&notices->lock);
	if (notices->waiting_bytes + sizeof(*notice) + bytes <= WAITING_BYTES_MAX) {
		*notices->last = notice;
		notices->last = &notice->next;
		notices->waiting_bytes += sizeof(*notice) + bytes;
		notice = NULL;
		pthread_cond_signal(&notices->came);
	}
	pthread_mutex_unlock(&notices->lock);
	free(notice);
}

static void on_log(void *user, int level, const char *text)
{
	leave(user, 0, level, text, strlen(text));
}

static void on_event(void *user, const struct kvk_event *event)
{
	const struct notices *notices = user;

	/* Waking Python for what nobody listens to would take the interpreter from whoever runs in it. */
	if (!(notices->events & 1u << event->kind))
		return;
	for (uint32_t i = 0; i < event->count; i++)
		leave(user, event->kind, 0, event->keys[i].data, event->keys[i].bytes);
}

void notices_hooks(struct notices *notices, struct kvk_hooks *hooks)
{
	*hooks = (struct kvk_hooks){
		.struct_bytes = sizeof(*hooks),
		.user = notices,
		.log = on_log,
		.event = notices->events ? on_event : NULL,
	};
}

bool notices_wait(struct notices *notices, uint64_t wait_us)
{
	struct timespec until;
	bool going_on;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += (time_t)(wait_us / 1000000);
	until.tv_nsec += (long)(wait_us % 1000000) * 1000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&notices->lock);
	while (!notices->first && !notices->ended &&
	       pthread_cond_timedwait(&notices->came, &notices->lock, &until) != ETIMEDOUT)
		;
	going_on = notices->first || !notices->ended;
	pthread_mutex_unlock(&notices->lock);
	return going_on;
}

void notices_end(struct notices *notices)
{
	pthread_mutex_lock(&notices->lock);
	notices->ended = true;
	pthread_cond_broadcast(&notices->came);
	pthread_mutex_unlock(&notices->lock);
}

static const char *event_word(uint32_t kind)
{
	return kind == KVK_EVENT_STORED ? "stored" : kind == KVK_EVENT_ACCESSED ? "accessed" : "deleted";
}

/* Runs of keys with the same event become one tuple. */
static bool append_event(PyObject *list, const struct notice *notice, PyObject **run, uint32_t run_kind)
{
	PyObject *key = PyBytes_FromStringAndSize(notice->data, (Py_ssize_t)notice->bytes), *tuple;
	int err;

	if (!key)
		return false;
	if (!*run || run_kind != notice->kind) {
		*run = PyList_New(0);
		tuple = *run ? Py_BuildValue("(sN)", event_word(notice->kind), *run) : NULL;
		err = tuple ? PyList_Append(list, tuple) : -1;
		Py_XDECREF(tuple);
		if (err < 0) {
			*run = NULL;
			Py_DECREF(key);
			return false;
		}
	}
	err = PyList_Append(*run, key);    /* the run lives in its tuple, the tuple in the list */
	Py_DECREF(key);
	return err == 0;
}

static bool append_line(PyObject *list, const struct notice *notice)
{
	PyObject *text = PyUnicode_DecodeUTF8(notice->data, (Py_ssize_t)notice->bytes, "replace");
	PyObject *tuple = text ? Py_BuildValue("(siN)", "log", notice->level, text) : NULL;
	int err = tuple ? PyList_Append(list, tuple) : -1;

	Py_XDECREF(tuple);
	return err == 0;
}

PyObject *notices_take(struct notices *notices)
{
	PyObject *list = PyList_New(0), *run = NULL;
	struct notice *chain;
	uint32_t run_kind = 0;

	if (!list)
		return NULL;
	pthread_mutex_lock(&notices->lock);
	chain = notices->first;
	notices->first = NULL;
	notices->last = &notices->first;
	notices->waiting_bytes = 0;
	pthread_mutex_unlock(&notices->lock);
	for (struct notice *notice = chain; notice; notice = notice->next) {
		bool done = notice->kind ? append_event(list, notice, &run, run_kind) : append_line(list, notice);

		if (!done) {
			Py_DECREF(list);
			list = NULL;
			break;
		}
		run_kind = notice->kind;
		if (!run_kind)
			run = NULL;
	}
	free_chain(chain);
	return list;
}
