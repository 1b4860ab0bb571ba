/* SPDX-License-Identifier: Apache-2.0 */
#include "adapter/dynamic/replace.h"

#include <errno.h>

#include "adapter/dynamic/dynamic.h"

enum step {
	STEP_PUBLISH,          /* ours under a temporary name */
	STEP_EXCHANGE,
	STEP_LOOK,             /* at what came out under the temporary name */
	STEP_DROP_BAD,         /* unlink it */
	STEP_EXCHANGE_BACK,
	STEP_DROP_STRAY,       /* unlink it: its name was removed while ours had it */
	STEP_DROP_OURS,        /* unlink ours, under its temporary name; then status = verdict */
	STEP_ASIDE,            /* without exchange: move the name aside */
	STEP_LOOK_ASIDE,
	STEP_MOVE_IN,          /* ours from its temporary name to the name */
	STEP_DROP_ASIDE,       /* unlink what was judged; then end, or drop ours */
	STEP_MOVE_BACK,        /* what was moved aside but not judged */
	STEP_DROP_LATE,        /* unlink it: somebody published meanwhile, and it is one too many */
};

static void stepped(struct kvk_xfer *xfer);

static void step(struct kvk_replace *replace, enum step next, enum kvk_xfer_op op, const char *name,
		 const char *name2)
{
	replace->step = (int)next;
	kvk_xfer_init(&replace->xfer, op, next == STEP_PUBLISH ? replace->place : NULL, name);
	replace->xfer.name2 = name2;
	replace->xfer.done = stepped;
	kvk_op_submit(&replace->request->op, &replace->xfer);
}

static void end(struct kvk_replace *replace, int status)
{
	replace->status = status;
	replace->done(replace);
}

static void drop_ours(struct kvk_replace *replace, int status)
{
	replace->verdict = status;
	step(replace, STEP_DROP_OURS, KVK_XFER_UNLINK, replace->temp, NULL);
}

static bool cannot(int64_t result)
{
	return result == -EINVAL || result == -ENOSYS || result == -EOPNOTSUPP;
}

static void stepped(struct kvk_xfer *xfer)
{
	struct kvk_replace *replace = kvk_container_of(xfer, struct kvk_replace, xfer);
	int result = (int)xfer->result;

	switch ((enum step)replace->step) { /* LCOV_EXCL_BR_LINE: gcc has a way out for values that the enum has not */
	case STEP_PUBLISH:
		if (result < 0)
			end(replace, result);
		else if (kvk_op_late(&replace->request->op))
			drop_ours(replace, -ETIMEDOUT);
		else
			step(replace, STEP_EXCHANGE, KVK_XFER_EXCHANGE, replace->temp, replace->name);
		return;
	case STEP_EXCHANGE:
		if (result == 0)
			step(replace, STEP_LOOK, KVK_XFER_STAT_NAME, replace->temp, NULL);
		else if (result == -ENOENT)
			step(replace, STEP_MOVE_IN, KVK_XFER_MOVE, replace->temp, replace->name);
		else if (cannot(result))
			step(replace, STEP_ASIDE, KVK_XFER_MOVE, replace->name, replace->aside);
		else
			drop_ours(replace, result);
		return;
	case STEP_LOOK:
		if (result == 0 && xfer->stat.inode == replace->bad_inode) {
			step(replace, STEP_DROP_BAD, KVK_XFER_UNLINK, replace->temp, NULL);
		} else if (result != -ENOENT) {
			/* Another's; or nobody can tell, and then all is to be as it was: nobody else clears such names while we live. */
			replace->out_bytes = result == 0 ? xfer->stat.bytes : 0;
			step(replace, STEP_EXCHANGE_BACK, KVK_XFER_EXCHANGE, replace->temp, replace->name);
		} else {
			end(replace, 0);       /* somebody took the bad one away; ours has the name */
		}
		return;
	case STEP_DROP_BAD:
	case STEP_DROP_ASIDE:
		replace->dropped = result == 0;
		if (replace->verdict)
			drop_ours(replace, replace->verdict);
		else
			end(replace, 0);
		return;
	case STEP_EXCHANGE_BACK:
		if (result == 0) {
			drop_ours(replace, -EEXIST);
		} else if (result == -ENOENT) {
			/* Who removed the name meant what we hold, and gave back ours, which it took for that. */
			replace->taken = true;
			step(replace, STEP_DROP_STRAY, KVK_XFER_UNLINK, replace->temp, NULL);
		} else {
			/* As far as is known ours has the name, and is charged: too much is better than too little. What came out is
			 * the sweep's, once this process has ended. */
			end(replace, 0);
		}
		return;
	case STEP_DROP_STRAY:
		if (result == 0)
			replace->stray_bytes = replace->out_bytes;
		end(replace, -EEXIST);
		return;
	case STEP_DROP_OURS:
		end(replace, replace->verdict);
		return;
	case STEP_ASIDE:
		if (result == 0)
			step(replace, STEP_LOOK_ASIDE, KVK_XFER_STAT_NAME, replace->aside, NULL);
		else if (result == -ENOENT)
			step(replace, STEP_MOVE_IN, KVK_XFER_MOVE, replace->temp, replace->name);
		else
			drop_ours(replace, result);
		return;
	case STEP_LOOK_ASIDE:
		if (result == 0)
			replace->out_bytes = xfer->stat.bytes;
		if ((result == 0 && xfer->stat.inode != replace->bad_inode) || (result < 0 && result != -ENOENT))
			step(replace, STEP_MOVE_BACK, KVK_XFER_MOVE, replace->aside, replace->name);
		else
			step(replace, STEP_MOVE_IN, KVK_XFER_MOVE, replace->temp, replace->name);
		return;
	case STEP_MOVE_IN:
		replace->verdict = result;
		step(replace, STEP_DROP_ASIDE, KVK_XFER_UNLINK, replace->aside, NULL);
		return;
	case STEP_MOVE_BACK:
		if (result == -EEXIST)
			step(replace, STEP_DROP_LATE, KVK_XFER_UNLINK, replace->aside, NULL);
		else
			drop_ours(replace, -EEXIST);
		return;
	case STEP_DROP_LATE:
		if (result == 0)
			replace->stray_bytes = replace->out_bytes;
		drop_ours(replace, -EEXIST);
		return;
	}
}

void kvk_replace_start(struct kvk_replace *replace)
{
	struct kvk_dynamic *dynamic = kvk_dynamic_of(replace->request);

	kvk_name_make_aside(replace->temp, replace->name, dynamic->writer_id, atomic_fetch_add(&dynamic->sequence, 1));
	kvk_name_make_aside(replace->aside, replace->name, dynamic->writer_id, atomic_fetch_add(&dynamic->sequence, 1));
	step(replace, STEP_PUBLISH, KVK_XFER_PUBLISH, replace->temp, NULL);
}
