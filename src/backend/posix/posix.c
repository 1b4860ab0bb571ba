/* SPDX-License-Identifier: Apache-2.0 */
/* Files of a Linux file system below one folder. */
#include "backend/posix/posix_private.h"

#include <errno.h>
#include <string.h>

#include "util/alloc.h"
#include "util/error.h"

static void posix_close(struct kvk_backend *backend)
{
	struct kvk_posix *posix;

	if (!backend)
		return;
	posix = kvk_posix_of(backend);
	kvk_posix_locks_close(posix);
	kvk_posix_folders_release(posix);
	if (posix->own_fd >= 0)
		posix->sys->close(posix->own_fd);
	if (posix->root_fd >= 0)
		posix->sys->close(posix->root_fd);
	pthread_mutex_destroy(&posix->lock);
	kvk_syncs_release(&posix->base.syncs);
	kvk_mem_free(posix);
}

static int posix_open(struct kvk_backend **ret, const struct kvk_backend_options *options, struct kvk_error *error)
{
	struct kvk_backend_caps *caps;
	struct kvk_posix *posix;
	int err;

	posix = kvk_mem_zalloc(1, sizeof(*posix));
	if (!posix)
		return kvk_error_set(error, -ENOMEM, NULL, "out of memory");
	posix->base.ops = &kvk_backend_posix;
	kvk_syncs_init(&posix->base.syncs);
	posix->sys = kvk_posix_sys();
	kvk_posix_folders_init(posix);
	posix->root_fd = -1;
	posix->own_fd = -1;
	atomic_init(&posix->locks.fd, -1);
	atomic_init(&posix->account.fd, -1);
	atomic_init(&posix->device.fd, -1);
	pthread_mutex_init(&posix->lock, NULL);
	posix->owner = posix->sys->effective_uid();
	posix->group = options->group;
	posix->file_mode = options->group ? 0660 : 0600;
	posix->folder_mode = options->group ? 0770 : 0700;
	posix->writer_id = options->writer_id;
	posix->wants_ring = options->ring;
	posix->base.caps.many_hosts = options->many_hosts;

	err = kvk_posix_root_open(posix, options, error);
	if (!err)
		err = kvk_posix_trial(posix, options, error);
	if (err) {
		posix_close(&posix->base);
		return err;
	}
	caps = &posix->base.caps;
	if (!options->ring) {
		memcpy(caps->ring_note, "not asked for", sizeof("not asked for"));
	} else if (kvk_posix_ring_probe(posix, caps->ring_note, sizeof(caps->ring_note))) {
		posix->wants_ring = false;
		kvk_log(options->log, KVK_LOG_INFO, "%s: %s", options->path, caps->ring_note);
	}
	*ret = &posix->base;
	return 0;
}

static int posix_space(struct kvk_backend *backend, struct kvk_space *ret)
{
	struct kvk_posix *posix = kvk_posix_of(backend);
	struct statfs stat;
	int err = posix->sys->fstatfs(posix->root_fd, &stat);

	if (err)
		return err;
	/* What root keeps for itself is not free for us. */
	*ret = (struct kvk_space){
		.free_bytes = (uint64_t)stat.f_bavail * (uint64_t)stat.f_frsize,
		.total_bytes = (uint64_t)stat.f_blocks * (uint64_t)stat.f_frsize,
		.free_inodes = stat.f_ffree,
		.total_inodes = stat.f_files,
	};
	return 0;
}

const struct kvk_backend_ops kvk_backend_posix = {
	.name = "posix",
	.open = posix_open,
	.close = posix_close,
	.run = kvk_posix_run,
	.ring = &kvk_posix_ring,
	.load_file = kvk_posix_load_file,
	.save_file = kvk_posix_save_file,
	.update_file = kvk_posix_update_file,
	.list = kvk_posix_list,
	.list_stat = kvk_posix_list_stat,
	.folder_time = kvk_posix_folder_time,
	.now = kvk_posix_now,
	.space = posix_space,
	.hold = kvk_posix_hold,
	.lock = kvk_posix_lock,
	.unlock = kvk_posix_unlock,
	.is_locked = kvk_posix_is_locked,
	.sweep = kvk_posix_sweep,
};
