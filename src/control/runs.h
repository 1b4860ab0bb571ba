/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KVK_CONTROL_RUNS_H
#define KVK_CONTROL_RUNS_H

#include "store/core.h"

/*
 * Evicts in the policy's order until so many bytes are free side by side in the pool. False: nothing may go that would make such
 * a run, or nothing more left. Nothing is evicted if what is pinned or being written stands in the way everywhere.
 */
bool kvk_runs_make(struct kvk_core *core, uint64_t bytes);

#endif
