# SPDX-License-Identifier: Apache-2.0
"""
SGLang: kvkeep as HiCache's storage.

    --hicache-storage-backend dynamic --hicache-storage-backend-extra-config
      '{"backend_name": "kvkeep", "module_path": "kvkeep.sglang", "class_name": "HiCacheKvkeep", "interface_v1": 1,
        "file_path": "/var/lib/kv"}'

A page is one object, its pieces (K and V, or one for MLA, or one a layer) one behind the other. Every call ends by a
deadline and answers with a list: an exception would end the host's thread, and with it the tier. docs/engines.md has
the options.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import threading
from typing import Any, Callable, Sequence

from kvkeep._buffers import piece
from kvkeep._host import open_for_host
from kvkeep._namespace import plain
from kvkeep._sglang_api import POOL_FIELDS, HiCacheStorage, hit_policy, transfer_result

__all__ = ['HiCacheKvkeep']

log = logging.getLogger('kvkeep')

# What the host and its plug-in loader leave in the same object as our options.
HOST_OPTIONS = ('backend_name', 'module_path', 'class_name', 'interface_v1', 'interface_v2', 'prefetch_threshold',
                'prefetch_timeout_base', 'prefetch_timeout_per_ki_token', 'hicache_storage_pass_prefix_keys',
                'tp_lcm_size', 'enable_storage_metrics', 'max_prefix_restore')
TIMEOUT_MS = 10_000


def _never_raises(otherwise: Callable[..., Any]) -> Callable[[Any], Any]:
    """What goes wrong is logged and answered with what `otherwise` makes of the arguments."""
    def around(method: Any) -> Any:
        @functools.wraps(method)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return method(self, *args, **kwargs)
            except Exception as error:
                self._say_once(method.__name__, error)
                return otherwise(*args, **kwargs)
        return call
    return around


def _all_false(keys: Sequence[Any], *_: Any, **__: Any) -> list[bool]:
    return [False] * len(keys)


class HiCacheKvkeep(HiCacheStorage):
    """storage_config and kwargs as SGLang's loader gives them."""

    def __init__(self, storage_config: Any, kwargs: Any = None, **_: Any) -> None:
        extra = dict(getattr(storage_config, 'extra_config', None) or {})
        self._config = storage_config
        self._timeout_us = int(float(extra.pop('timeout_ms', TIMEOUT_MS)) * 1000)
        self._options = {name: value for name, value in extra.items() if name not in HOST_OPTIONS}
        self._model = str(getattr(storage_config, 'model_name', None) or 'unknown').replace('@', '_')
        self._mla = bool(getattr(storage_config, 'is_mla_model', False))
        self._lock = threading.Lock()
        self._core: Any = None
        self._closed = False
        self._said: set[str] = set()
        self._pool_salts: dict[str, str] = {}
        self.registered_pools: dict[str, Any] = {}
        self.mem_pool_host: Any = None

    # ---- pools

    def register_mem_pool_host(self, mem_pool_host: Any) -> None:
        """From here on the layout is known, and the namespace can be made. A bad option is told here, at start."""
        self.mem_pool_host = mem_pool_host
        self._open(mem_pool_host)

    def register_mem_host_pool_v2(self, host_pool: Any, host_pool_name: Any) -> None:
        name = _name(host_pool_name)
        self.registered_pools[name] = host_pool
        if name != 'kv':
            facts = repr(sorted(_facts(host_pool).items())).encode()
            self._pool_salts[name] = f'{name}-{hashlib.blake2b(facts, digest_size=8).hexdigest()}'

    # ---- v1: a list of pages

    @_never_raises(_all_false)
    def batch_get_v1(self, keys: Sequence[str], host_indices: Any, extra_info: Any = None) -> list[bool]:
        return self._move(self.mem_pool_host, 'kv', list(keys), host_indices, True)

    @_never_raises(_all_false)
    def batch_set_v1(self, keys: Sequence[str], host_indices: Any, extra_info: Any = None) -> list[bool]:
        return self._move(self.mem_pool_host, 'kv', list(keys), host_indices, False)

    @_never_raises(lambda *_, **__: 0)
    def batch_exists(self, keys: Sequence[str], extra_info: Any = None) -> int:
        return _leading(self._have('kv', list(keys)))

    # ---- v2: several pools (hybrid models)

    @_never_raises(lambda *_, **__: transfer_result(0, {}, []))
    def batch_exists_v2(self, keys: Sequence[str], pool_transfers: Any = None, extra_info: Any = None) -> Any:
        keys = list(keys)
        kv_pages = _leading(self._have('kv', keys))
        hits = {'kv': kv_pages} if kv_pages else {}
        restorable = list(range(1, kv_pages + 1))
        for transfer in pool_transfers or []:
            if not restorable:
                break
            name = _name(transfer.name)
            policy = hit_policy(transfer)
            has = self._have(name, keys[:kv_pages])
            if policy == 'all_pages':
                good = set(range(1, _leading(has) + 1))
            elif policy == 'trailing_pages':
                window = max(1, len(transfer.keys) if transfer.keys else 1)
                good = {end for end in range(1, kv_pages + 1) if all(has[max(0, end - window):end])}
            elif policy == 'block_groups':
                hits[name] = self._group_pages(name, transfer)
                continue                   # its own verdict: it does not limit the KV hit
            else:
                raise ValueError(f'unknown hit policy {policy}')
            if good:
                hits[name] = max(good)
            restorable = [pages for pages in restorable if pages in good]
        return transfer_result(restorable[-1] if restorable else 0, hits, restorable)

    def batch_get_v2(self, transfers: Sequence[Any], extra_info: Any = None) -> dict[str, list[bool]]:
        return self._move_pools(transfers, True)

    def batch_set_v2(self, transfers: Sequence[Any], extra_info: Any = None) -> dict[str, list[bool]]:
        return self._move_pools(transfers, False)

    # ---- the plain interface

    @_never_raises(lambda *_, **__: None)
    def get(self, key: str, target_location: Any = None, target_sizes: Any = None) -> Any:
        return self.batch_get([key], [target_location], [target_sizes])[0]

    @_never_raises(lambda keys, *_, **__: [None] * len(keys))
    def batch_get(self, keys: Sequence[str], target_locations: Any = None, target_sizes: Any = None) -> list[Any]:
        if target_locations is None or len(keys) == 0:
            return [None] * len(keys)
        places = _places(target_locations, target_sizes, len(keys), True)
        results = self._store().get(self._texts('kv', keys), places, 0, 0, 0, False, self._timeout_us, True, True)
        return [target if result[0] == 0 else None for target, result in zip(target_locations, results)]

    @_never_raises(lambda *_, **__: False)
    def set(self, key: str, value: Any = None, target_location: Any = None, target_sizes: Any = None) -> bool:
        return self.batch_set([key], None if value is None else [value],
                              None if target_location is None else [target_location],
                              None if target_sizes is None else [target_sizes])

    @_never_raises(lambda *_, **__: False)
    def batch_set(self, keys: Sequence[str], values: Any = None, target_locations: Any = None,
                  target_sizes: Any = None) -> bool:
        sources = values if values is not None else target_locations
        if sources is None:
            return False
        if len(keys) == 0:
            return True
        places = _places(sources, None if values is not None else target_sizes, len(keys), False)
        results = self._store().put(self._texts('kv', keys), places, None, None, None, 0, self._timeout_us, True)
        return all(result[0] == 0 for result in results)

    @_never_raises(lambda *_, **__: False)
    def exists(self, key: str) -> bool:
        return self._have('kv', [key])[0]

    @_never_raises(lambda *_, **__: None)
    def clear(self) -> None:
        """Removes what this namespace has."""
        cursor = None
        while True:
            page, cursor = self._store().list(None, None, None, 0, cursor, 256)
            keys = [entry['key'] for entry in page if entry['key'] is not None and entry['state'] == 'present']
            if keys:
                self._store().remove(keys, 0, False, self._timeout_us, True)
            if cursor is None:
                return

    def get_stats(self) -> Any:
        return None

    def close(self) -> None:
        self._closed = True
        with self._lock:
            core, self._core = self._core, None
        if core is not None:
            core.close()

    # ---- inside

    def _open(self, pool: Any) -> Any:
        with self._lock:
            if self._core is None and not self._closed:
                self._core = open_for_host('sglang', self._options, self._known(pool))
            return self._core

    def _store(self) -> Any:
        core = self._core or self._open(self.mem_pool_host)
        if core is None:
            raise RuntimeError('the storage is closed')
        return core

    def _known(self, pool: Any) -> dict[str, Any]:
        config = self._config
        known: dict[str, Any] = {'model': getattr(config, 'model_name', None), 'mla': self._mla}
        for name in ('pp_size', 'attn_cp_size', 'dcp_size', 'tp_lcm_size', 'should_split_heads'):
            known[name] = plain(getattr(config, name, None))
        if not self._mla:
            known['tp_size'] = getattr(config, 'tp_size', None)
        known.update({f'pool_{name}': value for name, value in _facts(pool).items()})
        return known

    def _rank(self, name: str) -> int:
        """Whose shard: of MLA's KV all tensor-parallel ranks hold the same bytes, and one of them writes."""
        config = self._config
        rank = (getattr(config, 'pp_rank', 0) or 0) << 8 | (getattr(config, 'attn_cp_rank', 0) or 0) << 16
        rank |= (getattr(config, 'dcp_rank', 0) or 0) << 24
        if not self._mla or self._is_sharded(name):
            rank |= (getattr(config, 'tp_rank', 0) or 0) & 0xff
        return rank

    def _is_sharded(self, name: str) -> bool:
        """Pools of an MLA model that differ by tensor-parallel rank all the same."""
        if name == 'mamba':
            return True
        pool = self.registered_pools.get(name)
        return name.startswith('draft') and pool is not None and getattr(pool, 'kv_lora_rank', None) is None

    def _texts(self, name: str, keys: Sequence[str]) -> list[str]:
        rank = self._rank(name)
        salt = '' if name == 'kv' else '@' + self._pool_salts.get(name, name)
        return [f'{self._model}@{rank:08x}@{_hash(key)}{salt}' for key in keys]

    def _have(self, name: str, keys: list[str]) -> list[bool]:
        if not keys:
            return []
        results = self._store().lookup(self._texts(name, keys), 0, False, self._timeout_us, True)
        return [result[0] == 0 for result in results]

    def _group_pages(self, name: str, transfer: Any) -> int:
        """Pages that the leading groups cover of which every key is there."""
        keys = list(transfer.keys or [])
        group = max(1, getattr(transfer, 'group_pages', 0) or 1)
        has = self._have(name, keys)
        whole = 0
        while (whole + 1) * group <= len(has) and all(has[whole * group:(whole + 1) * group]):
            whole += 1
        return whole * (getattr(transfer, 'block_pages', 0) or group)

    def _move(self, pool: Any, name: str, keys: list[str], host_indices: Any, is_load: bool) -> list[bool]:
        if not keys:
            return []
        addresses, sizes = pool.get_page_buffer_meta(host_indices)
        pieces = len(addresses) // len(keys)
        if pieces == 0 or len(addresses) != pieces * len(keys) or len(sizes) != len(addresses):
            raise ValueError(f'{len(addresses)} pieces of memory for {len(keys)} pages')
        places = [[(int(address), int(size)) for address, size in zip(addresses[at:at + pieces], sizes[at:at + pieces])]
                  for at in range(0, len(addresses), pieces)]
        texts = self._texts(name, keys)
        if is_load:
            results = self._store().get(texts, places, 0, 0, 0, False, self._timeout_us, True, True)
        else:
            results = self._store().put(texts, places, None, None, None, 0, self._timeout_us, True)
        return [result[0] == 0 for result in results]

    def _move_pools(self, transfers: Sequence[Any], is_load: bool) -> dict[str, list[bool]]:
        answers: dict[str, list[bool]] = {}
        for transfer in transfers:
            keys = list(transfer.keys or [])
            try:
                name = _name(transfer.name)
                pool = self.registered_pools.get(name)
                if pool is None and name == 'kv':
                    pool = self.mem_pool_host
                answers[transfer.name] = self._move(pool, name, keys, transfer.host_indices, is_load)
            except Exception as error:
                self._say_once('batch_get_v2' if is_load else 'batch_set_v2', error)
                answers[transfer.name] = [False] * len(keys)
        return answers

    def _say_once(self, where: str, error: Exception) -> None:
        text = f'{where}: {error}'
        if text not in self._said and len(self._said) < 100:
            self._said.add(text)
            log.warning('%s', text)


def _name(name: Any) -> str:
    return str(getattr(name, 'value', name))


def _facts(pool: Any) -> dict[str, Any]:
    return {name: plain(getattr(pool, name)) for name in POOL_FIELDS
            if getattr(pool, name, None) is not None and not callable(getattr(pool, name))}


def _leading(has: list[bool]) -> int:
    return has.index(False) if False in has else len(has)


def _hash(key: str) -> str:
    """Group and hash of a page; keys that are no hash as SGLang writes one stand in a group of their own, by their bytes."""
    try:
        if bytes.fromhex(key).hex() == key:
            return f'0@{key}'
    except ValueError:
        pass
    return f'1@{os.fsencode(key).hex()}'


def _places(targets: Any, sizes: Any, count: int, writable: bool) -> list[Any]:
    """Tensors, or addresses with sizes."""
    if len(targets) != count:
        raise ValueError(f'{len(targets)} places for {count} keys')
    return [(target, int(sizes[index])) if isinstance(target, int) else piece(target, writable)
            for index, target in enumerate(targets)]
