/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a process removed, evicted or moved aside as damaged, told to the others: `.kvkeep/news`. Only the keeper lists folders, so
 * the others would take for present what they met once, until they load it. News are hints: to whoever hears that an object is
 * gone it is only listed from then on, since it may have been stored anew, and he asks the medium next time. So news that come late,
 * twice or of nothing do no harm.
 */
#ifndef KVK_STORE_NEWS_H
#define KVK_STORE_NEWS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "format/format.h"

struct kvk_core;

/* Between two posts; whoever removes more lets the others doubt all that they know. */
#define KVK_NEWS_TOLD_MAX 4096u

struct kvk_news {
	pthread_mutex_t lock;          /* guards what was told and is not posted */
	uint8_t told[KVK_NEWS_TOLD_MAX][KVK_NEWS_ID_BYTES];
	uint32_t told_count;
	uint32_t untold_count;         /* that found no room there */
	/* The room thread's: */
	struct kvk_news_head heard;    /* as far as this process has heard */
	bool hears;                    /* heard was read once */
	bool doubts;                   /* something may be known that is not there */
	bool writing_fails, reading_fails;     /* and this was said */
};

void kvk_news_init(struct kvk_news *news);
void kvk_news_release(struct kvk_news *news);

/* Any thread: an object with this identity (16 bytes are read) lost its name by this process's doing. */
void kvk_news_tell(struct kvk_core *core, const uint8_t *id);

/* ---- the room thread's -------------------------------------------------------------------------- */

struct kvk_news_extent {
	uint32_t told_count;
	uint32_t untold_count;
};

/* How much was told: what to post after the visit of the account that begins now. */
struct kvk_news_extent kvk_news_extent(struct kvk_core *core);

/*
 * What was told up to that extent goes to the others; if alone, to nobody: whoever opened the store after it was told cannot
 * have met what had gone before. What cannot be written is kept, and goes with the next post.
 */
void kvk_news_post(struct kvk_core *core, struct kvk_news_extent extent, bool alone);

/* A process has died: what it removed and had not posted nobody will hear of, so all that is known is doubted. Nor need the keeper. */
void kvk_news_doubt(struct kvk_core *core);

/* Takes over what others posted since the last call. The keeper need not: it lists what changed. */
void kvk_news_follow(struct kvk_core *core);

#endif
