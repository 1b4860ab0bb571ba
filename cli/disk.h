/* SPDX-License-Identifier: Apache-2.0 */
/* What lies in a store's directory, told from names alone and without the library: what fsck holds the account against. */
#ifndef KVK_CLI_DISK_H
#define KVK_CLI_DISK_H

#include <stdbool.h>
#include <stdint.h>

enum kvk_disk_kind {
	KVK_DISK_OTHER = 0,        /* nothing that a store charges: its own small files, and what is not a store's */
	KVK_DISK_OBJECT,
	KVK_DISK_TEMPORARY,        /* being written, or left by a process that died */
	KVK_DISK_GONE,             /* removed, not unlinked yet */
	KVK_DISK_QUARANTINE,
	KVK_DISK_KINDS
};

struct kvk_disk_layout {
	bool lmcache;              /* the naming */
	uint32_t levels;           /* of folders above objects */
};

/* Of a path below the store's directory. */
enum kvk_disk_kind kvk_disk_kind(const char *path, const struct kvk_disk_layout *layout);

struct kvk_disk {
	uint64_t files[KVK_DISK_KINDS];
	uint64_t bytes[KVK_DISK_KINDS];        /* lengths, each rounded up to 4,096 as they are charged */
	uint64_t folders_changed;              /* while they were read: the figures may not hold together */
};

/* What is charged of it. */
uint64_t kvk_disk_charged(const struct kvk_disk *disk);

/*
 * Reads a store's directory. tick is called for every folder and may stop it by returning false. 0, -ECANCELED, or -errno of a
 * folder that cannot be read; what vanishes meanwhile is no error.
 */
int kvk_disk_read(struct kvk_disk *ret, const char *directory, const struct kvk_disk_layout *layout,
		  bool (*tick)(void *user, const struct kvk_disk *disk), void *user);

#endif
