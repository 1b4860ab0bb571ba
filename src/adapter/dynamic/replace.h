/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Puts a new, unpublished place in the stead of a name whose file was judged damaged, without ever replacing a file
 * that was not judged:
 *
 *   PUBLISH under a temporary name --> EXCHANGE the two --> look at what came out
 *        the judged inode: UNLINK it, replaced
 *        another one:      EXCHANGE back, UNLINK ours, -EEXIST: judge again
 *                          (somebody removed the name meanwhile: UNLINK that one in its stead)
 *
 * Where the medium cannot exchange: MOVE the name aside, look at it, MOVE ours there (or all back).
 *
 * All this goes by names that no sweep takes away while this process lives (kvk_name_make_aside()), as another's sound object may be
 * under them. If it dies in between they are swept, and what was not given back is a miss: to give it back then could bring what was
 * stored anew and removed in the meantime back to life.
 */
#ifndef KVK_ADAPTER_DYNAMIC_REPLACE_H
#define KVK_ADAPTER_DYNAMIC_REPLACE_H

#include "adapter/adapter.h"

struct kvk_replace {
	/* Set before kvk_replace_start(): */
	struct kvk_request *request;
	struct kvk_place *place;
	const char *name;
	uint64_t bad_inode;
	void (*done)(struct kvk_replace *replace);
	/* 0: the place has the name now. -EEXIST: somebody else stored something, or nobody could tell what was there; ours is gone. Else
	 * an error; ours is gone. */
	int status;
	bool dropped;                  /* the bad file's name was taken away */
	bool taken;                    /* -EEXIST, and ours had the name for others to see and remove: it is to be charged */
	uint64_t stray_bytes;          /* length of another's file that was unlinked, since it was removed or stored anew meanwhile */
	/* Private: */
	int step;
	int verdict;
	uint64_t out_bytes;            /* length of what came out of the exchange, or was moved aside */
	struct kvk_xfer xfer;
	char temp[KVK_NAME_BYTES_MAX];
	char aside[KVK_NAME_BYTES_MAX];
};

void kvk_replace_start(struct kvk_replace *replace);

#endif
