/* SPDX-License-Identifier: Apache-2.0 */
/* What walks over objects share, whatever the layout: transfers that are waited for, and what a footer tells. */
#include <errno.h>
#include <string.h>

#include "adapter/adapter.h"

int kvk_adapter_move(struct kvk_adapter *adapter, enum kvk_xfer_op op, struct kvk_place *place, uint64_t offset_bytes,
		     void *data, uint64_t bytes)
{
	struct kvk_backend *backend = adapter->backend;
	struct iovec iov = { .iov_base = data, .iov_len = bytes };
	struct kvk_xfer xfer;

	while (iov.iov_len > 0) {
		kvk_xfer_init(&xfer, op, place, NULL);
		xfer.iov = &iov;
		xfer.iov_count = 1;
		xfer.offset_bytes = offset_bytes;
		backend->ops->run(backend, &xfer);
		if (xfer.result <= 0)
			return xfer.result < 0 ? (int)xfer.result : op == KVK_XFER_READ ? -ENODATA : -EIO;
		iov.iov_base = (uint8_t *)iov.iov_base + xfer.result;
		iov.iov_len -= (size_t)xfer.result;
		offset_bytes += (uint64_t)xfer.result;
	}
	return 0;
}

void kvk_facts_take(struct kvk_facts *facts, const struct kvk_footer *footer, const uint8_t digest[KVK_DIGEST_BYTES])
{
	facts->logical_bytes = footer->logical_bytes;
	facts->created_ns = footer->created_ns;
	facts->depth = footer->depth;
	facts->meta_bytes = footer->meta_bytes;
	facts->unverified = false;
	memcpy(facts->digest, digest, KVK_DIGEST_BYTES);
	memcpy(facts->namespace_digest, footer->namespace_digest, KVK_DIGEST_BYTES);
	memcpy(facts->parent_digest, footer->parent_digest, KVK_DIGEST_BYTES);
	memcpy(facts->meta, footer->meta, footer->meta_bytes);
}

void kvk_listed_take(struct kvk_listed *listed, const struct kvk_footer *footer, const uint8_t digest[KVK_DIGEST_BYTES],
		     const uint8_t own_namespace_digest[KVK_DIGEST_BYTES])
{
	listed->state = memcmp(footer->namespace_digest, own_namespace_digest, KVK_DIGEST_BYTES) ? KVK_OBJECT_FOREIGN
											 : KVK_OBJECT_PRESENT;
	listed->key_bytes = footer->key_bytes;
	memcpy(listed->key, footer->key, footer->key_bytes);
	kvk_facts_take(&listed->facts, footer, digest);
}
