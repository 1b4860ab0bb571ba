/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What leaves first is the policy's to say, and need not be neighbours; but what was stored together lies together and grows
 * cold together. Rounds begin with one object and double up to the length of the run, so that little more goes than has to, and
 * the map is not walked over for each object.
 */
#include "control/runs.h"

#include "control/evict.h"

static bool may_go(void *user, const uint8_t prefix[16])
{
	struct kvk_core *core = user;

	return kvk_catalog_may_leave(core->catalog, prefix);
}

static bool is_there(struct kvk_core *core, uint64_t bytes)
{
	struct kvk_slots slots;

	core->adapter->ops->slots(core->adapter, &slots);
	return slots.longest_free_slots * slots.slot_bytes >= bytes;
}

bool kvk_runs_make(struct kvk_core *core, uint64_t bytes)
{
	uint64_t round_bytes = 1;

	if (is_there(core, bytes))
		return true;
	if (!core->adapter->ops->could_fit(core->adapter, bytes, may_go, core))
		return false;
	while (!is_there(core, bytes)) {
		if (kvk_evict(core, round_bytes, NULL) == 0)
			return false;
		round_bytes = 2 * round_bytes < bytes ? 2 * round_bytes : bytes;
	}
	return true;
}
