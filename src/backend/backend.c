/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/backend.h"

#include <errno.h>
#include <string.h>

#include "util/alloc.h"

static const struct kvk_backend_ops *const backends[] = {
	&kvk_backend_posix,
	&kvk_backend_ram,
};

const struct kvk_backend_ops *kvk_backend_find(const char *name)
{
	for (size_t i = 0; i < sizeof(backends) / sizeof(backends[0]); i++) {
		if (!strcmp(backends[i]->name, name))
			return backends[i];
	}
	return NULL;
}

int kvk_names_add(struct kvk_names *names, const char *name)
{
	char *copy;

	if (names->count == names->room) {
		uint32_t room = names->room ? names->room * 2 : 64;
		char **grown = kvk_mem_realloc(names->names, room * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		names->names = grown;
		names->room = room;
	}
	copy = kvk_mem_strdup(name);
	if (!copy)
		return -ENOMEM;
	names->names[names->count++] = copy;
	return 0;
}

void kvk_names_release(struct kvk_names *names)
{
	for (uint32_t i = 0; i < names->count; i++)
		kvk_mem_free(names->names[i]);
	kvk_mem_free(names->names);
	*names = (struct kvk_names){ 0 };
}

void kvk_xfer_init(struct kvk_xfer *xfer, enum kvk_xfer_op op, struct kvk_place *place, const char *name)
{
	*xfer = (struct kvk_xfer){ .op = op, .place = place, .name = name, .memory_index = -1 };
	kvk_list_init(&xfer->link);
	kvk_list_init(&xfer->owner_link);
}

const char *kvk_xfer_op_name(enum kvk_xfer_op op)
{
	static const char *const names[KVK_XFER_OP_COUNT] = {
		[KVK_XFER_OPEN] = "open",
		[KVK_XFER_CREATE] = "create",
		[KVK_XFER_READ] = "read",
		[KVK_XFER_WRITE] = "write",
		[KVK_XFER_RESERVE] = "reserve",
		[KVK_XFER_SYNC] = "sync",
		[KVK_XFER_STAT] = "stat",
		[KVK_XFER_PUBLISH] = "publish",
		[KVK_XFER_MOVE] = "move",
		[KVK_XFER_EXCHANGE] = "exchange",
		[KVK_XFER_UNLINK] = "unlink",
		[KVK_XFER_SYNC_FOLDER] = "sync_folder",
		[KVK_XFER_SYNC_ALL] = "sync_all",
		[KVK_XFER_CLOSE] = "close",
		[KVK_XFER_STAT_NAME] = "stat_name",
		[KVK_XFER_TOUCH] = "touch",
	};

	return (unsigned)op < KVK_XFER_OP_COUNT ? names[op] : "unknown";
}
