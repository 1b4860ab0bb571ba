# SPDX-License-Identifier: Apache-2.0
"""What differs between versions of SGLang, found by looking."""

from __future__ import annotations

from typing import Any

try:
    from sglang.srt.mem_cache.hicache_storage import HiCacheStorage
except ImportError:
    from sglang.srt.mem_cache.storage.hicache_storage import HiCacheStorage

__all__ = ['HiCacheStorage', 'POOL_FIELDS', 'hit_policy', 'transfer_result']

# What a host pool says about the bytes of a page.
POOL_FIELDS = ('dtype', 'layout', 'page_size', 'dcp_size', 'layer_num', 'head_num', 'head_dim', 'v_head_dim',
               'kv_lora_rank', 'qk_rope_head_dim', 'size_per_token', 'start_layer', 'end_layer')


def hit_policy(transfer: Any) -> str:
    policy = getattr(transfer, 'hit_policy', 'all_pages')
    return str(getattr(policy, 'value', policy))


def transfer_result(kv_pages: int, hits: dict[str, int], restorable: list[int]) -> Any:
    from sglang.srt.mem_cache.hicache_storage import PoolTransferResult

    try:
        return PoolTransferResult(kv_pages, hits, restorable)
    except TypeError:
        return PoolTransferResult(kv_pages, hits)
