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

static void end(struct kvk_aside *aside, uint64_t moved_bytes)
{
	struct kvk_dynamic *dynamic = kvk_dynamic_of(aside->request);

	if (dynamic->aside_end)
		dynamic->aside_end(dynamic->user, aside->begun, aside->request->bucket, moved_bytes);
	aside->done(aside);
}

static void stepped(struct kvk_xfer *xfer);

static void step(struct kvk_aside *aside, enum kvk_aside_step next, enum kvk_xfer_op op, const char *name, const char *name2)
{
	aside->step = next;
	kvk_xfer_init(&aside->xfer, op, NULL, name);
	aside->xfer.name2 = name2;
	aside->xfer.done = stepped;
	kvk_op_submit(&aside->request->op, &aside->xfer);
}

static void stepped(struct kvk_xfer *xfer)
{
	struct kvk_aside *aside = kvk_container_of(xfer, struct kvk_aside, xfer);
	struct kvk_dynamic *dynamic = kvk_dynamic_of(aside->request);

	switch (aside->step) { /* LCOV_EXCL_BR_LINE: gcc has a way out for values that the enum has not */
	case ASIDE_MOVE:
		if (xfer->result < 0) {
			/* Gone already, or the medium refuses: then it stays, and stays charged. */
			give_back(dynamic, aside->bytes);
			aside->request->keep = xfer->result != -ENOENT;
			end(aside, 0);
			return;
		}
		step(aside, ASIDE_STAT, KVK_XFER_STAT_NAME, aside->target, NULL);
		return;
	case ASIDE_STAT:
		if (xfer->result == 0 && xfer->stat.inode != aside->inode) {
			/* Between judging and moving somebody stored it anew: that one goes back. */
			give_back(dynamic, aside->bytes);
			aside->request->keep = true;
			step(aside, ASIDE_BACK, KVK_XFER_MOVE, aside->target, aside->name);
			return;
		}
		atomic_fetch_add(&dynamic->base.counts.quarantined, 1);
		atomic_fetch_add(&dynamic->base.counts.quarantined_bytes, aside->bytes);
		kvk_log(&dynamic->log, KVK_LOG_WARNING, "object %02x%02x%02x%02x fails its own proof and was moved to "
			"%s", aside->request->digest[0], aside->request->digest[1], aside->request->digest[2],
			aside->request->digest[3], aside->target);
		end(aside, aside->bytes);
		return;
	case ASIDE_BACK:
		end(aside, 0);
		return;
	}
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
	step(aside, ASIDE_MOVE, KVK_XFER_MOVE, aside->name, aside->target);
}
