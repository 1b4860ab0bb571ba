# SPDX-License-Identifier: Apache-2.0
"""
LMCache: kvkeep as L2 storage.

    {"type": "native_plugin", "module_path": "kvkeep.lmcache", "class_name": "Connector",
     "adapter_params": {"file_path": "/var/lib/kv", "max_capacity_gb": 50}, "max_capacity_gb": 50}

    {"type": "plugin", "module_path": "kvkeep.lmcache", "class_name": "Adapter",
     "adapter_params": {"file_path": "/var/lib/kv", "max_capacity_gb": 50}}

Adapter knows more (recovery, locks, listing, status); Connector also works with hosts that have native plug-ins only.
docs/engines.md has the options.
"""

from __future__ import annotations

import itertools
import os
import select
import threading
from typing import Any, Callable, Sequence

from kvkeep import _kvkeep
from kvkeep._host import open_for_host

QUEUES = (_kvkeep.QUEUE_PUT, _kvkeep.QUEUE_LOOKUP, _kvkeep.QUEUE_GET)
NO_ENTRY = -2

__all__ = ['Adapter', 'Connector']


class Connector:
    """
    LMCache's native_plugin interface. Nothing here blocks, calls back or raises; what cannot be taken is a request
    that fails.
    """

    def __init__(self, **options: Any) -> None:
        self._core = open_for_host('lmcache', options, {})
        # One descriptor for the host's poll: ready while a queue of the store has answers, or refused requests wait.
        self._epoll = select.epoll()
        self._refused_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._refused_fd, select.EPOLLIN)
        self._queue_of = {self._core.event_fd(queue): queue for queue in QUEUES}
        for fd in self._queue_of:
            self._epoll.register(fd, select.EPOLLIN)
        # Never held while anything waits. What it guards: a descriptor must not be closed, and its number be given to
        # somebody else, between the look at _closed and its use.
        self._lock = threading.Lock()
        self._refused: list[Any] = []
        # The store's numbers are positive and never used twice; refused requests count downwards.
        self._refused_ids = itertools.count(-1, -1)
        self._closed = False

    def event_fd(self) -> int:
        return self._epoll.fileno()

    def submit_batch_set(self, keys: Sequence[str], memoryviews: Sequence[Any]) -> int:
        return self._submit(keys, False, lambda: self._core.put(keys, memoryviews, None, None, None, 0, 0, False))

    def submit_batch_get(self, keys: Sequence[str], memoryviews: Sequence[Any]) -> int:
        return self._submit(keys, True, lambda: self._core.get(keys, memoryviews, 0, 0, 0, False, 0, False, True))

    def submit_batch_exists(self, keys: Sequence[str]) -> int:
        return self._submit(keys, True, lambda: self._core.lookup(keys, 0, False, 0, False))

    def submit_batch_delete(self, keys: Sequence[str]) -> int:
        return self._submit(keys, True, lambda: self._core.remove(keys, 0, False, 0, False))

    def drain_completions(self) -> list[Any]:
        with self._lock:
            if self._closed:
                return []
            completions: list[Any] = []
            # Only what is ready is looked into: a drain that finds nothing takes 5 us, and took 12.
            ready = [fd for fd, _ in self._epoll.poll(0)]
            if self._refused_fd in ready:
                os.eventfd_read(self._refused_fd)
                completions, self._refused = self._refused, []
        for fd in ready:
            try:
                if fd in self._queue_of:
                    completions += [_completion(*done) for done in self._core.drain(self._queue_of[fd])]
            except Exception:
                # Closed by another thread meanwhile: nothing is emitted any more. What was drained still is.
                break
        return completions

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            os.close(self._refused_fd)
        try:
            self._core.close()
        finally:
            self._epoll.close()

    # What operators see through LMCache, and tests.

    def status(self) -> str:
        return self._core.status()

    def usage(self) -> dict[str, Any]:
        return self._core.usage()

    def _submit(self, keys: Sequence[str], per_key: bool, submit: Callable[[], int]) -> int:
        try:
            if len(keys) > 0:
                return submit()
            error = ''
        except Exception as failure:
            error = str(failure) or type(failure).__name__
        number = next(self._refused_ids)
        with self._lock:
            if not self._closed:
                self._refused.append((number, not error, error, [False] * len(keys) if per_key else None))
                os.eventfd_write(self._refused_fd, 1)
        return number


def _completion(task: int, kind: int, results: list[Any]) -> Any:
    """The host's form: (future, ok, error, bools or None)."""
    if kind == _kvkeep.KIND_REMOVE:
        # What is not there any more is deleted, also if somebody else was first: else the host counts it for ever.
        good = [result[0] in (0, NO_ENTRY) for result in results]
    else:
        good = [result[0] == 0 for result in results]
    ok = all(good)
    error = '' if ok else next(f'{_kvkeep.reason_text(result[1])} ({os.strerror(-result[0])})'
                               for result, fine in zip(results, good) if not fine)
    if kind == _kvkeep.KIND_PUT:
        return (task, ok, error, None)
    if kind == _kvkeep.KIND_LOOKUP:
        return (task, True, '', good)      # ok says that the bools count
    return (task, ok, error, good)


def __getattr__(name: str) -> Any:
    """Adapter is a subclass of LMCache's, which need not be there for Connector."""
    if name == 'Adapter':
        from kvkeep._lmcache_adapter import Adapter

        return Adapter
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
