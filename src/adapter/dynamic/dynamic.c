/* SPDX-License-Identifier: Apache-2.0 */
/* A file per key: what the steps have in common, and the table of them. */
#include "adapter/dynamic/dynamic.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "adapter/write.h"
#include "util/alloc.h"

bool kvk_dynamic_name(struct kvk_request *request, char name[KVK_NAME_BYTES_MAX])
{
	int err;

	if (request->name)
		err = snprintf(name, KVK_NAME_BYTES_MAX, "%s", request->name) >= KVK_NAME_BYTES_MAX
		      ? -ENAMETOOLONG : 0;
	else
		err = kvk_name_make(name, &kvk_dynamic_of(request)->layout, request->digest, request->key,
				    request->key_bytes);
	if (!err)
		request->bucket = kvk_name_bucket(&kvk_dynamic_of(request)->layout, name);
	request->status = err;
	request->reason = err ? KVK_REASON_ARGUMENT : KVK_REASON_NONE;
	return err == 0;
}

bool kvk_dynamic_is_named(const struct kvk_dynamic *dynamic, const char *name, const struct kvk_footer *footer,
			  const uint8_t digest[KVK_DIGEST_BYTES])
{
	char own[KVK_NAME_BYTES_MAX];

	if (!kvk_name_make(own, &dynamic->layout, digest, footer->key, footer->key_bytes) && !strcmp(own, name))
		return true;
	return dynamic->layout.naming == KVK_NAMING_LMCACHE &&
	       !kvk_name_make_old(own, &dynamic->layout, footer->key, footer->key_bytes) && !strcmp(own, name);
}

static uint64_t dynamic_charge(const struct kvk_request *request, uint64_t logical_bytes)
{
	return kvk_object_bytes(logical_bytes, request->key_bytes, request->meta_bytes);
}

static void dynamic_close(struct kvk_adapter *adapter)
{
	struct kvk_dynamic *dynamic = kvk_container_of(adapter, struct kvk_dynamic, base);

	pthread_mutex_destroy(&dynamic->quarantine_lock);
	kvk_doubts_release(&dynamic->base.doubts);
	kvk_mem_free(dynamic);
}

static const struct kvk_adapter_ops dynamic_ops = {
	.name = "nixl_store_dynamic",
	.put = kvk_dynamic_put,
	.get = kvk_dynamic_get,
	.find = kvk_dynamic_find,
	.remove = kvk_dynamic_remove,
	.charge = dynamic_charge,
	.list = kvk_dynamic_list,
	.remove_all = kvk_dynamic_remove_all,
	.buckets = kvk_dynamic_buckets,
	.scan = kvk_dynamic_scan,
	.bucket_time = kvk_dynamic_bucket_time,
	.inspect = kvk_dynamic_inspect,
	.evict = kvk_dynamic_evict,
	.close = dynamic_close,
};

int kvk_dynamic_open(struct kvk_adapter **ret, const struct kvk_adapter_options *options)
{
	struct kvk_dynamic *dynamic = kvk_mem_zalloc(1, sizeof(*dynamic));

	if (!dynamic)
		return -ENOMEM;
	dynamic->base.ops = &dynamic_ops;
	dynamic->base.proof_rules = &kvk_dynamic_proof_rules;
	dynamic->base.backend = options->backend;
	kvk_doubts_init(&dynamic->base.doubts, options->log);
	dynamic->layout = options->layout;
	dynamic->durability = options->durability;
	memcpy(dynamic->namespace_digest, options->namespace_digest, KVK_DIGEST_BYTES);
	dynamic->writer_id = options->writer_id;
	dynamic->adopted_ns = options->adopted_ns;
	dynamic->accept_unverified = options->accept_unverified;
	if (options->log)
		dynamic->log = *options->log;
	dynamic->aside_begin = options->aside_begin;
	dynamic->aside_end = options->aside_end;
	dynamic->evicted = options->evicted;
	dynamic->user = options->user;
	dynamic->quarantine_limit_bytes = options->quarantine_bytes;
	pthread_mutex_init(&dynamic->quarantine_lock, NULL);
	*ret = &dynamic->base;
	return 0;
}
