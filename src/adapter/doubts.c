/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "adapter/adapter.h"

void kvk_doubts_init(struct kvk_doubts *doubts, const struct kvk_log_sink *log)
{
	doubts->log = log ? *log : (struct kvk_log_sink){ 0 };
	pthread_mutex_init(&doubts->lock, NULL);
	atomic_init(&doubts->count, 0);
}

void kvk_doubts_release(struct kvk_doubts *doubts)
{
	pthread_mutex_destroy(&doubts->lock);
}

void kvk_doubts_add(struct kvk_doubts *doubts, const uint8_t digest[KVK_DIGEST_BYTES], uint64_t stamp)
{
	bool full;

	pthread_mutex_lock(&doubts->lock);
	full = doubts->count == KVK_DOUBTS_MAX;
	if (doubts->count < KVK_DOUBTS_MAX) {
		struct kvk_doubt *doubt = &doubts->doubt[doubts->count];

		memcpy(doubt->prefix, digest, sizeof(doubt->prefix));
		doubt->stamp = stamp;
	}
	/* One more than there is room for: everything is doubted. */
	if (doubts->count <= KVK_DOUBTS_MAX)
		doubts->count++;
	pthread_mutex_unlock(&doubts->lock);
	if (full)
		kvk_log(&doubts->log, KVK_LOG_ERROR, "more than %u objects could not be made durable: until the store is opened again every "
			"object that is put and found is written anew", KVK_DOUBTS_MAX);
}

bool kvk_doubts_has(struct kvk_doubts *doubts, const uint8_t digest[KVK_DIGEST_BYTES], uint64_t stamp)
{
	bool has;

	if (doubts->count == 0)
		return false;
	pthread_mutex_lock(&doubts->lock);
	has = doubts->count > KVK_DOUBTS_MAX;
	for (uint32_t i = 0; i < doubts->count && !has; i++)
		has = doubts->doubt[i].stamp == stamp &&
		      !memcmp(doubts->doubt[i].prefix, digest, sizeof(doubts->doubt[i].prefix));
	pthread_mutex_unlock(&doubts->lock);
	return has;
}
