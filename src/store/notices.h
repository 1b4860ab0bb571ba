/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the embedder is to be told: log lines and events. Any thread leaves them here without waiting; one thread of
 * control's takes them out and calls the hooks. Bounded: what does not fit is dropped and counted.
 */
#ifndef KVK_STORE_NOTICES_H
#define KVK_STORE_NOTICES_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include <kvkeep/store.h>

#include "util/list.h"
#include "util/log.h"

#define KVK_NOTICE_KEYS_MAX 65536
#define KVK_NOTICE_LINES_MAX 4096
/* Keys of one kind are handed over in groups of at most this many. */
#define KVK_NOTICE_GROUP 256

struct kvk_notices {
	struct kvk_hooks hooks;
	pthread_mutex_t lock;          /* guards what follows */
	pthread_cond_t came;
	struct kvk_link waiting;
	uint32_t keys;
	uint32_t lines;
	bool stopping;
	atomic_uint_fast64_t dropped;
};

void kvk_notices_init(struct kvk_notices *notices, const struct kvk_hooks *hooks);
void kvk_notices_release(struct kvk_notices *notices);

/* Whether anybody listens: if not, nothing needs to be run to deliver. */
bool kvk_notices_wanted(const struct kvk_notices *notices);

void kvk_notices_event(struct kvk_notices *notices, enum kvk_event_kind kind, const void *key,
		       uint32_t key_bytes);
/* As struct kvk_log_sink's line; user is the struct kvk_notices. */
void kvk_notices_line(void *user, int level, const char *text);

/* Waits for notices and calls the hooks with them, until stop(). What waits by then is still delivered. */
void kvk_notices_deliver(struct kvk_notices *notices);
void kvk_notices_stop(struct kvk_notices *notices);

#endif
