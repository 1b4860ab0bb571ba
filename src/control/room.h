/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Room: the thread that visits the account. It leases ahead, so that puts find room in memory; posts what was published;
 * has what was unlinked synced before it is credited; evicts where a policy is set; and gives waiting puts their room, or says
 * that there is none.
 */
#ifndef KVK_CONTROL_ROOM_H
#define KVK_CONTROL_ROOM_H

#include "store/core.h"

struct kvk_room;

/* -ENOMEM. core outlives it. many_hosts: other machines take over what is leased by one that is not heard of. */
int kvk_room_new(struct kvk_room **ret, struct kvk_core *core, bool many_hosts);
void kvk_room_free(struct kvk_room *room);

/* The body of the thread: until kvk_room_end(). */
void kvk_room_run(struct kvk_room *room);
void kvk_room_end(struct kvk_room *room);

/* Every now and then, on a thread that never waits for the medium: takes what is leased out of circulation while visits fail, where
 * other machines take it over. */
void kvk_room_watch(struct kvk_room *room, uint64_t now_us);

#endif
