/* SPDX-License-Identifier: Apache-2.0 */
#include "store/news.h"

#include <errno.h>
#include <string.h>

#include "store/core.h"
#include "util/alloc.h"
#include "util/clock.h"

#define HEAD_NAME "news"
#define IDS_NAME "news-ids"
#define IDS_BYTES ((uint64_t)KVK_NEWS_RING * KVK_NEWS_ID_BYTES)
#define LOCK_MS 100

_Static_assert(KVK_NEWS_TOLD_MAX <= KVK_NEWS_RING / 2, "who follows would take one post for a gap");

void kvk_news_init(struct kvk_news *news)
{
	pthread_mutex_init(&news->lock, NULL);
}

void kvk_news_release(struct kvk_news *news)
{
	pthread_mutex_destroy(&news->lock);
}

void kvk_news_tell(struct kvk_core *core, const uint8_t *id)
{
	struct kvk_news *news = &core->news;

	/* A pool belongs to one process. */
	if (core->adapter->ops->slots)
		return;
	pthread_mutex_lock(&news->lock);
	if (news->told_count < KVK_NEWS_TOLD_MAX)
		memcpy(news->told[news->told_count++], id, KVK_NEWS_ID_BYTES);
	else
		news->untold_count++;
	pthread_mutex_unlock(&news->lock);
}

struct kvk_news_extent kvk_news_extent(struct kvk_core *core)
{
	struct kvk_news_extent extent;

	pthread_mutex_lock(&core->news.lock);
	extent = (struct kvk_news_extent){ core->news.told_count, core->news.untold_count };
	pthread_mutex_unlock(&core->news.lock);
	return extent;
}

/* One of the two may go well while the other does not. */
static void say(struct kvk_core *core, bool *said, int err, const char *what)
{
	if (err && !*said)
		kvk_log(&core->log, KVK_LOG_WARNING, "what processes removed cannot be %s .kvkeep/" HEAD_NAME ", so that the others learn of "
			"it late: %s", what, strerror(-err));
	*said = err != 0;
}

/* -ENOENT: nothing was ever posted. -EBADMSG: damaged, or being written. */
static int load_head(struct kvk_core *core, struct kvk_news_head *ret)
{
	uint64_t bytes;
	void *data;
	int err = core->backend->ops->load_file(core->backend, HEAD_NAME, &data, &bytes, KVK_NEWS_HEAD_BYTES);

	if (err)
		return err == -EFBIG ? -EBADMSG : err;
	err = kvk_news_parse(ret, data, bytes);
	kvk_mem_free(data);
	return err;
}

/* ---- posting ------------------------------------------------------------------------------------ */

static int write_ids(struct kvk_core *core, uint64_t at, const uint8_t (*ids)[KVK_NEWS_ID_BYTES], uint32_t count)
{
	const struct kvk_backend_ops *ops = core->backend->ops;
	uint64_t slot = at % KVK_NEWS_RING, first = KVK_NEWS_RING - slot;
	int err;

	if (first > count)
		first = count;
	err = ops->update_file(core->backend, IDS_NAME, slot * KVK_NEWS_ID_BYTES, ids, first * KVK_NEWS_ID_BYTES);
	if (!err && first < count)
		err = ops->update_file(core->backend, IDS_NAME, 0, ids + first, (count - first) * KVK_NEWS_ID_BYTES);
	return err;
}

/* Called with the lock on the medium held. */
static int append(struct kvk_core *core, const struct kvk_news_extent *extent)
{
	struct kvk_news *news = &core->news;
	uint8_t data[KVK_NEWS_HEAD_BYTES];
	struct kvk_news_head head, before;
	int err = load_head(core, &head);

	if (err == -ENOENT || err == -EBADMSG)
		head = (struct kvk_news_head){ .generation = kvk_wall_ns() };
	else if (err)
		return err;
	before = head;
	/* A gap that nobody can have followed. */
	head.count += extent->untold_count > 0 ? KVK_NEWS_RING : 0;
	/* Told is only added to by others, behind what is posted here. */
	if (extent->told_count > 0)
		err = write_ids(core, head.count, (const uint8_t (*)[KVK_NEWS_ID_BYTES])news->told, extent->told_count);
	else
		err = 0;
	if (err)
		return err;
	head.count += extent->told_count;
	kvk_news_encode(&head, data);
	err = core->backend->ops->update_file(core->backend, HEAD_NAME, 0, data, sizeof(data));
	/* One's own are no news. */
	if (!err && news->hears && news->heard.generation == before.generation && news->heard.count == before.count)
		news->heard = head;
	return err;
}

static int post(struct kvk_core *core, const struct kvk_news_extent *extent)
{
	int err = core->backend->ops->lock(core->backend, KVK_LOCK_NEWS, LOCK_MS);

	if (err)
		return err;
	err = append(core, extent);
	core->backend->ops->unlock(core->backend, KVK_LOCK_NEWS);
	return err;
}

void kvk_news_post(struct kvk_core *core, struct kvk_news_extent extent, bool alone)
{
	struct kvk_news *news = &core->news;
	int err = 0;

	/* More may have been told while what was told before was posted. */
	if (extent.told_count == 0 && extent.untold_count == 0)
		return;
	if (!alone)
		err = post(core, &extent);
	if (err != -EBUSY)
		say(core, &news->writing_fails, err, "written to");
	if (err)
		return;
	pthread_mutex_lock(&news->lock);
	news->untold_count -= extent.untold_count;
	news->told_count -= extent.told_count;
	memmove(news->told, news->told + extent.told_count, (size_t)news->told_count * KVK_NEWS_ID_BYTES);
	pthread_mutex_unlock(&news->lock);
}

/* ---- following ---------------------------------------------------------------------------------- */

static int hear(struct kvk_core *core, uint64_t from, uint64_t until)
{
	uint8_t (*ids)[KVK_NEWS_ID_BYTES];
	uint64_t bytes;
	void *data;
	int err = core->backend->ops->load_file(core->backend, IDS_NAME, &data, &bytes, IDS_BYTES);

	if (err)
		return err;
	ids = data;
	for (uint64_t at = from; at < until && !err; at++) {
		uint64_t slot = at % KVK_NEWS_RING;

		if ((slot + 1) * KVK_NEWS_ID_BYTES > bytes)
			err = -EBADMSG;
		else
			kvk_catalog_gone_elsewhere(core->catalog, ids[slot]);
	}
	kvk_mem_free(data);
	return err;
}

/*
 * What others removed is doubted, and stays in the books until somebody asks for it, which may be never: a process that stores and is not
 * the keeper, who evicts for all, would grow without end. Nobody knows of more than there is: where the books say so, what is doubted
 * goes. Not at the first byte, since that looks at all that is known.
 */
static void forget_doubted(struct kvk_core *core)
{
	struct kvk_catalog_totals totals;
	uint64_t used_bytes, cap_bytes;

	if (!core->news.doubts)
		return;
	kvk_catalog_totals(core->catalog, &totals);
	kvk_account_usage(core->account, &used_bytes, &cap_bytes);
	if (totals.used_bytes <= used_bytes + used_bytes / 8)
		return;
	kvk_catalog_forget_doubted(core->catalog);
	core->news.doubts = false;
}

void kvk_news_doubt(struct kvk_core *core)
{
	if (core->adapter->ops->slots || atomic_load(&core->keeper))
		return;
	kvk_catalog_doubt(core->catalog);
	core->news.doubts = true;
}

void kvk_news_follow(struct kvk_core *core)
{
	struct kvk_news *news = &core->news;
	struct kvk_news_head head;
	uint64_t from;
	int err;

	if (core->adapter->ops->slots || atomic_load(&core->keeper))
		return;
	err = load_head(core, &head);
	/* Half a head is whole at the next look. */
	if (err == -ENOENT || err == -EBADMSG)
		return;
	say(core, &news->reading_fails, err, "read from");
	if (err)
		return;
	/* Also when nothing is new: what was removed is charged for a moment more. */
	forget_doubted(core);
	from = news->hears && head.generation == news->heard.generation ? news->heard.count : 0;
	if (news->hears && from == head.count && head.generation == news->heard.generation)
		return;
	/* Half of the ring is left for what is posted while it is read. */
	if (from > head.count || head.count - from > KVK_NEWS_RING / 2 || hear(core, from, head.count))
		kvk_catalog_doubt(core->catalog);
	news->heard = head;
	news->hears = true;
	news->doubts = true;
}
