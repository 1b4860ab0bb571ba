/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/syncs.h"

#include <errno.h>

void kvk_syncs_init(struct kvk_syncs *syncs)
{
	pthread_mutex_init(&syncs->lock, NULL);
	syncs->begun = 0;
	atomic_init(&syncs->failed, 0);
	kvk_list_init(&syncs->under_way);
	kvk_list_init(&syncs->waiting);
}

void kvk_syncs_release(struct kvk_syncs *syncs)
{
	pthread_mutex_destroy(&syncs->lock);
}

uint64_t kvk_syncs_failed(struct kvk_syncs *syncs)
{
	return atomic_load(&syncs->failed);
}

bool kvk_sync_is_failure(int result)
{
	return result < 0 && result != -ECANCELED && result != -EAGAIN && result != -ENOENT && result != -EEXIST &&
	       result != -EMFILE && result != -ENFILE;
}

void kvk_sync_tell(struct kvk_syncs *syncs, int result)
{
	if (kvk_sync_is_failure(result))
		atomic_fetch_add(&syncs->failed, 1);
}

void kvk_sync_begin(struct kvk_syncs *syncs, struct kvk_sync *sync)
{
	pthread_mutex_lock(&syncs->lock);
	sync->number = syncs->begun++;
	kvk_list_push(&syncs->under_way, &sync->link);
	pthread_mutex_unlock(&syncs->lock);
}

/* With the lock held: lets go of those that waited for nothing that is still under way. */
static void let_go(struct kvk_syncs *syncs)
{
	struct kvk_link *first = kvk_list_first(&syncs->under_way), *link;
	uint64_t oldest = first ? kvk_container_of(first, struct kvk_sync, link)->number : UINT64_MAX;

	while ((link = kvk_list_first(&syncs->waiting))) {
		struct kvk_sync *sync = kvk_container_of(link, struct kvk_sync, link);

		if (sync->until > oldest)
			return;
		kvk_list_remove(link);
		sync->over(sync);
	}
}

bool kvk_sync_end(struct kvk_syncs *syncs, struct kvk_sync *sync, int result)
{
	bool waits;

	pthread_mutex_lock(&syncs->lock);
	kvk_list_remove(&sync->link);
	/* Before anybody who waited for it is let go. */
	kvk_sync_tell(syncs, result);
	waits = result >= 0 && sync->over && !kvk_list_empty(&syncs->under_way);
	if (waits) {
		sync->until = syncs->begun;
		kvk_list_push(&syncs->waiting, &sync->link);
	}
	let_go(syncs);
	pthread_mutex_unlock(&syncs->lock);
	return !waits;
}

void kvk_syncs_settle(struct kvk_syncs *syncs)
{
	pthread_mutex_lock(&syncs->lock);
	pthread_mutex_unlock(&syncs->lock);
}
