# SPDX-License-Identifier: Apache-2.0
"""What differs between versions of LMCache, found by looking, so that the adapter need not know."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from lmcache.v1.distributed.api import ObjectKey
from lmcache.v1.distributed.l2_adapters.base import L2AdapterInterface

try:
    from lmcache.lmcache_native import Bitmap
except ImportError:
    from lmcache.native_storage_ops import Bitmap

__all__ = ['Bitmap', 'L2AdapterInterface', 'ObjectKey', 'init_base', 'key_list_page', 'key_text', 'store_result',
           'text_key', 'usage']

KNOWN = ('chunk_hash', 'model_name', 'kv_rank', 'object_group_id', 'cache_salt')
# Fields that came after those above, with their defaults; they are written only where they are set.
LATER = {field.name: field for field in dataclasses.fields(ObjectKey) if field.name not in KNOWN}


def key_text(key: ObjectKey) -> str:
    """LMCache's text of a key, and whatever fields it has grown, so that keys that differ stay different."""
    text = (f'{key.model_name}@{key.kv_rank:08x}@{getattr(key, "object_group_id", 0):x}'
            f'@{key.chunk_hash.hex()}')
    salt = getattr(key, 'cache_salt', '')
    grown = {name: getattr(key, name) for name, field in LATER.items() if getattr(key, name) != field.default}
    if grown:
        return f'{text}@{salt}@{json.dumps(grown, sort_keys=True, default=str)}'
    return f'{text}@{salt}' if salt else text


def text_key(text: bytes | str) -> ObjectKey | None:
    """The key of a text; None if it is not one of ours."""
    try:
        if isinstance(text, bytes):
            text = text.decode()
        model, rank, group, digest, *rest = text.split('@', 5)
        fields: dict[str, Any] = {'chunk_hash': bytes.fromhex(digest), 'model_name': model, 'kv_rank': int(rank, 16),
                                  'object_group_id': int(group, 16), 'cache_salt': rest[0] if rest else ''}
        if len(rest) > 1:
            fields.update(json.loads(rest[1]))
        names = {field.name for field in dataclasses.fields(ObjectKey)}
        return ObjectKey(**{name: value for name, value in fields.items() if name in names})
    except (ValueError, TypeError):
        return None


def init_base(adapter: Any, cap_bytes: int) -> None:
    try:
        L2AdapterInterface.__init__(adapter, max_capacity_bytes=cap_bytes)
    except TypeError:
        L2AdapterInterface.__init__(adapter)


def store_result(success: bool, stored_bytes: int) -> Any:
    """A result with bytes; in older versions a bool."""
    try:
        from lmcache.v1.distributed.internal_api import L2StoreResult
    except ImportError:
        return success
    return L2StoreResult(success, stored_bytes)


def usage(used_bytes: int, cap_bytes: int, by_salt: dict[str, int]) -> Any:
    """A record; in older versions (fraction, fraction)."""
    try:
        from lmcache.v1.distributed.l2_adapters.base import AdapterUsage
    except ImportError:
        fraction = used_bytes / cap_bytes if cap_bytes else -1.0
        return (fraction, fraction)
    return AdapterUsage(used_bytes, cap_bytes, by_salt)


def key_list_page(found: list[tuple[ObjectKey, int]], cursor: str | None) -> Any:
    from lmcache.v1.distributed.api import KeyEntry, KeyListPage

    return KeyListPage(tuple(KeyEntry(key.to_encoded_object_key(), size) for key, size in found), cursor)
