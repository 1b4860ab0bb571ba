# SPDX-License-Identifier: Apache-2.0
"""As much of SGLang as a storage backend sees: check_engines.py has the real one."""

from dataclasses import dataclass
from enum import Enum
from typing import Any, Optional


class PoolHitPolicy(str, Enum):
    ALL_PAGES = 'all_pages'
    TRAILING_PAGES = 'trailing_pages'


@dataclass
class PoolTransfer:
    name: str
    host_indices: Any = None
    keys: Optional[list] = None
    hit_policy: PoolHitPolicy = PoolHitPolicy.ALL_PAGES


@dataclass
class PoolTransferResult:
    kv_hit_pages: int
    extra_pool_hit_pages: dict
    restorable_prefix_pages: Optional[list] = None


class HiCacheStorage:
    pass
