/* SPDX-License-Identifier: Apache-2.0 */
/* What fails its own proof is moved aside, for a person to look at, at a bounded rate and in a bounded room. */
#include <errno.h>
#include <stdio.h>

#include "adapter/dynamic/dynamic.h"
#include "util/clock.h"

#define PER_MINUTE 16

/* Takes a place in this minute and room for bytes. */
static bool admit(struct kvk_dynamic *dynamic, uint64_t bytes)
{
	uint64_t minute = kvk_now_us() / 60000000;
	bool admitted;

	pthread_mutex_lock(&dynamic->quarantine_lock);
	if (minute != dynamic->quarantine_minute) {
		dynamic->quarantine_minute = minute;
		dynamic->quarantine_count = 0;
	}
	admitted = dynamic->quarantine_count < PER_MINUTE &&
		   dynamic->quarantine_bytes + bytes <= dynamic->quarantine_limit_bytes;
	if (admitted) {
		dynamic->quarantine_count++;
		dynamic->quarantine_bytes += bytes;
	}
	pthread_mutex_unlock(&dynamic->quarantine_lock);
	return admitted;
}

static void give_back(struct kvk_dynamic *dynamic, uint64_t bytes)
{
	pthread_mutex_lock(&dynamic->quarantine_lock);
	dynamic->quarantine_bytes -= bytes;
	pthread_mutex_unlock(&dynamic->quarantine_lock);
}

static void end(struct kvk_aside *aside, uint64_t moved_bytes, uint64_t stray_bytes)
{
	struct kvk_dynamic *dynamic = kvk_dynamic_of(aside->request);

	if (dynamic->aside_end)
		dynamic->aside_end(dynamic->user, aside->begun, aside->request->bucket, moved_bytes, stray_bytes);
	aside->done(aside);
}

static void taken(struct kvk_take *take)
{
	struct kvk_aside *aside = kvk_container_of(take, struct kvk_aside, take);
	struct kvk_dynamic *dynamic = kvk_dynamic_of(aside->request);

	if (take->status < 0) {
		/* Gone already, or somebody stored it anew between judging and moving, or the medium refuses: then it stays,
		 * and stays charged. */
		give_back(dynamic, aside->bytes);
		aside->request->keep = take->status != -ENOENT;
		end(aside, 0, take->stray_bytes);
		return;
	}
	atomic_fetch_add(&dynamic->base.counts.quarantined, 1);
	atomic_fetch_add(&dynamic->base.counts.quarantined_bytes, aside->bytes);
	kvk_log(&dynamic->log, KVK_LOG_WARNING, "object %02x%02x%02x%02x fails its own proof and was moved to %s",
		aside->request->digest[0], aside->request->digest[1], aside->request->digest[2], aside->request->digest[3],
		aside->target);
	end(aside, aside->bytes, 0);
}

void kvk_aside_start(struct kvk_aside *aside)
{
	struct kvk_dynamic *dynamic = kvk_dynamic_of(aside->request);
	char hex[2 * KVK_DIGEST_BYTES + 1];

	if (!admit(dynamic, aside->bytes)) {
		kvk_log(&dynamic->log, KVK_LOG_ERROR, "damaged objects are left where they are: quarantine is full, or "
			"more than %d in this minute", PER_MINUTE);
		aside->request->keep = true;
		aside->done(aside);
		return;
	}
	aside->begun = dynamic->aside_begin ? dynamic->aside_begin(dynamic->user) : 0;
	kvk_hex(hex, aside->request->digest, KVK_DIGEST_BYTES);
	snprintf(aside->target, sizeof(aside->target), ".kvkeep/quarantine/%s.%llx", hex,
		 (unsigned long long)(dynamic->writer_id ^ atomic_fetch_add(&dynamic->sequence, 1)));
	aside->take = (struct kvk_take){
		.request = aside->request, .name = aside->name, .target = aside->target, .inode = aside->inode, .done = taken,
	};
	kvk_take_start(&aside->take);
}
