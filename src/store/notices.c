/* SPDX-License-Identifier: Apache-2.0 */
#include "store/notices.h"

#include <string.h>

#include "util/alloc.h"

struct notice {
	struct kvk_link link;
	uint32_t kind;                 /* enum kvk_event_kind; 0: a log line */
	int level;
	uint32_t bytes;
	uint8_t data[];                /* the key, or the text with its NUL */
};

void kvk_notices_init(struct kvk_notices *notices, const struct kvk_hooks *hooks)
{
	*notices = (struct kvk_notices){ 0 };
	if (hooks)
		notices->hooks = *hooks;
	pthread_mutex_init(&notices->lock, NULL);
	pthread_cond_init(&notices->came, NULL);
	kvk_list_init(&notices->waiting);
}

void kvk_notices_release(struct kvk_notices *notices)
{
	struct kvk_link *link;

	while ((link = kvk_list_pop(&notices->waiting)))
		kvk_mem_free(kvk_container_of(link, struct notice, link));
	pthread_cond_destroy(&notices->came);
	pthread_mutex_destroy(&notices->lock);
}

bool kvk_notices_wanted(const struct kvk_notices *notices)
{
	return notices->hooks.log || notices->hooks.event;
}

static void leave(struct kvk_notices *notices, uint32_t kind, int level, const void *data, uint32_t bytes)
{
	struct notice *notice = kvk_mem_alloc(sizeof(*notice) + bytes);
	uint32_t *count = kind ? &notices->keys : &notices->lines;
	uint32_t max = kind ? KVK_NOTICE_KEYS_MAX : KVK_NOTICE_LINES_MAX;

	if (!notice) {
		atomic_fetch_add(&notices->dropped, 1);
		return;
	}
	notice->kind = kind;
	notice->level = level;
	notice->bytes = bytes;
	memcpy(notice->data, data, bytes);
	pthread_mutex_lock(&notices->lock);
	if (*count < max) {
		(*count)++;
		kvk_list_push(&notices->waiting, &notice->link);
		notice = NULL;
		pthread_cond_signal(&notices->came);
	}
	pthread_mutex_unlock(&notices->lock);
	if (notice) {
		atomic_fetch_add(&notices->dropped, 1);
		kvk_mem_free(notice);
	}
}

void kvk_notices_event(struct kvk_notices *notices, enum kvk_event_kind kind, const void *key,
		       uint32_t key_bytes)
{
	if (notices->hooks.event && key)
		leave(notices, kind, 0, key, key_bytes);
}

void kvk_notices_line(void *user, int level, const char *text)
{
	struct kvk_notices *notices = user;

	if (notices->hooks.log)
		leave(notices, 0, level, text, (uint32_t)strlen(text) + 1);
}

/* Takes the first notice and those after it of the same kind. Called with the lock held. */
static uint32_t take_group(struct kvk_notices *notices, struct notice *group[KVK_NOTICE_GROUP])
{
	uint32_t count = 0;

	while (count < KVK_NOTICE_GROUP && !kvk_list_empty(&notices->waiting)) {
		struct notice *notice = kvk_container_of(notices->waiting.next, struct notice, link);

		if (count > 0 && (notice->kind != group[0]->kind || notice->kind == 0))
			break;
		kvk_list_remove(&notice->link);
		if (notice->kind)
			notices->keys--;
		else
			notices->lines--;
		group[count++] = notice;
	}
	return count;
}

static void call_hook(const struct kvk_hooks *hooks, struct notice *group[KVK_NOTICE_GROUP], uint32_t count)
{
	struct kvk_key keys[KVK_NOTICE_GROUP];
	struct kvk_event event = {
		.struct_bytes = sizeof(event), .kind = group[0]->kind, .count = count, .keys = keys,
	};

	if (group[0]->kind == 0) {
		hooks->log(hooks->user, group[0]->level, (const char *)group[0]->data);
	} else {
		for (uint32_t i = 0; i < count; i++)
			keys[i] = (struct kvk_key){ .data = group[i]->data, .bytes = group[i]->bytes };
		hooks->event(hooks->user, &event);
	}
	for (uint32_t i = 0; i < count; i++)
		kvk_mem_free(group[i]);
}

void kvk_notices_deliver(struct kvk_notices *notices)
{
	struct notice *group[KVK_NOTICE_GROUP];
	uint32_t count;

	pthread_mutex_lock(&notices->lock);
	for (;;) {
		count = take_group(notices, group);
		if (count == 0) {
			if (notices->stopping)
				break;
			pthread_cond_wait(&notices->came, &notices->lock);
			continue;
		}
		pthread_mutex_unlock(&notices->lock);
		call_hook(&notices->hooks, group, count);
		pthread_mutex_lock(&notices->lock);
	}
	pthread_mutex_unlock(&notices->lock);
}

void kvk_notices_stop(struct kvk_notices *notices)
{
	pthread_mutex_lock(&notices->lock);
	notices->stopping = true;
	pthread_cond_broadcast(&notices->came);
	pthread_mutex_unlock(&notices->lock);
}
