/* SPDX-License-Identifier: Apache-2.0 */
/* How requests are answered, whatever the layout of objects. */
#include "adapter/adapter.h"

#include <errno.h>

uint32_t kvk_reason_of(int status)
{
	switch (status) {
	case -ENOENT:
		return KVK_REASON_ABSENT;
	case -ETIMEDOUT:
		return KVK_REASON_DEADLINE;
	case -ECANCELED:
		return KVK_REASON_CANCELED;
	case -ENOSPC:
	case -EDQUOT:
		return KVK_REASON_NO_ROOM;
	case -ENOMEM:
	case -EMFILE:
	case -ENFILE:
		return KVK_REASON_NO_MEMORY;
	case -EHOSTDOWN:
		return KVK_REASON_DEGRADED;
	case -ENAMETOOLONG:
	case -EINVAL:
		return KVK_REASON_ARGUMENT;
	default:
		return KVK_REASON_MEDIUM;
	}
}

void kvk_request_done(struct kvk_request *request, int status, uint32_t reason)
{
	request->status = status;
	request->reason = reason;
	request->done(request);
}
