/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Takes a name away from one file, and from no other:
 *
 *   MOVE to a name that nobody else gives --> look at what came --> that file: [UNLINK] --> taken
 *                                                             '--> another one: MOVE back, or UNLINK if the name is another's now
 *
 * No call of the kernel unlinks or renames a name only while it is a certain file's, and between judging a file and the call
 * another process may have stored a sound one. What goes back is not to be found for that moment, which is a miss. So what is
 * moved must not be swept meanwhile: the target is in quarantine, or a name of kvk_name_make_aside().
 */
#include <errno.h>

#include "adapter/dynamic/dynamic.h"

static void stepped(struct kvk_xfer *xfer);

static void step(struct kvk_take *take, enum kvk_take_step next, enum kvk_xfer_op op, const char *name, const char *name2)
{
	take->step = next;
	kvk_xfer_init(&take->xfer, op, NULL, name);
	take->xfer.name2 = name2;
	take->xfer.done = stepped;
	kvk_op_submit(&take->request->op, &take->xfer);
}

static void end(struct kvk_take *take, int status)
{
	take->status = status;
	take->done(take);
}

static void stepped(struct kvk_xfer *xfer)
{
	struct kvk_take *take = kvk_container_of(xfer, struct kvk_take, xfer);
	int result = (int)xfer->result;

	switch (take->step) { /* LCOV_EXCL_BR_LINE: gcc has a way out for values that the enum has not */
	case TAKE_MOVE:
		if (result < 0)
			end(take, result);
		else
			step(take, TAKE_LOOK, KVK_XFER_STAT_NAME, take->target, NULL);
		return;
	case TAKE_LOOK:
		/* What cannot be looked at stays where it is: it may be what must not be met under its name again, and may be
		 * somebody's sound one, which must not be unlinked. */
		if (result == 0)
			take->out_bytes = xfer->stat.bytes;
		if (result == 0 && xfer->stat.inode != take->inode)
			step(take, TAKE_BACK, KVK_XFER_MOVE, take->target, take->name);
		else if (result == 0 && take->unlink)
			step(take, TAKE_UNLINK, KVK_XFER_UNLINK, take->target, NULL);
		else
			end(take, take->unlink && result != -ENOENT ? result : 0);
		return;
	case TAKE_UNLINK:
		end(take, result == -ENOENT ? 0 : result);   /* a sweep was faster */
		return;
	case TAKE_BACK:
		/* Somebody published meanwhile: what was taken is one too many. */
		if (result == -EEXIST)
			step(take, TAKE_DROP, KVK_XFER_UNLINK, take->target, NULL);
		else
			end(take, -EEXIST);
		return;
	case TAKE_DROP:
		if (result == 0)
			take->stray_bytes = take->out_bytes;
		end(take, -EEXIST);
		return;
	}
}

void kvk_take_start(struct kvk_take *take)
{
	step(take, TAKE_MOVE, KVK_XFER_MOVE, take->name, take->target);
}
