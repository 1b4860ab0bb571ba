/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KVK_CONTROL_EVICT_H
#define KVK_CONTROL_EVICT_H

#include "store/core.h"

/*
 * Lets the coldest objects go, by the policy, until `bytes` of files are unlinked; on the calling thread, which waits for
 * the medium. Their charge falls at a later visit of the account, after a sync. Returns the bytes unlinked, less than asked
 * if nothing else may go. more_ret: what was chosen had been removed by others and is forgotten, nothing was unlinked yet, and there
 * may be more to choose from: call again. NULL: that is not left to the caller, however long it takes.
 */
uint64_t kvk_evict(struct kvk_core *core, uint64_t bytes, bool *more_ret);

#endif
