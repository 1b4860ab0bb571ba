/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KVK_TESTS_POOL_KIT_H
#define KVK_TESTS_POOL_KIT_H

#include "store/core.h"
#include "store_bed.h"

/* How the slots of a pool are taken. */
static inline struct kvk_slots slots_of(struct kvk_store *store)
{
	struct kvk_adapter *adapter = bed_core(store)->adapter;
	struct kvk_slots slots;

	adapter->ops->slots(adapter, &slots);
	return slots;
}

#endif
