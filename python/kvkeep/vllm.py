# SPDX-License-Identifier: Apache-2.0
"""
vLLM: kvkeep as a secondary tier behind the CPU memory of the OffloadingConnector.

    "secondary_tiers": [{"type": "KvkeepTier", "module_path": "kvkeep.vllm", "file_path": "/var/lib/kv"}]

It runs in the scheduler's process: nothing here waits, but for drain_jobs(). docs/engines.md has the options.
"""

from __future__ import annotations

import time
from typing import Any, Collection, Iterable

from kvkeep import _kvkeep
from kvkeep._host import open_for_host
from kvkeep._vllm_api import (
    HIT,
    MEDIUM,
    MISS,
    RETRY,
    SecondaryTierManager,
    init_base,
    job_result,
    known_of,
    new_request,
    slots,
)

__all__ = ['KvkeepTier']

# What the host may put beside our options in the tier's configuration.
HOST_OPTIONS = ('type', 'module_path', 'locality', 'enable_kv_events', 'backpressure')


class KvkeepTier(SecondaryTierManager):
    """Translates: a chunk of the primary view is an object under the chunk's hash."""

    if MEDIUM is not None:
        medium = MEDIUM

    def __init__(self, offloading_spec: Any, primary_kv_view: memoryview, tier_type: str = 'KvkeepTier',
                 backpressure_detector: Any = None, **config: Any) -> None:
        init_base(self, offloading_spec=offloading_spec, primary_kv_view=primary_kv_view, tier_type=tier_type,
                  backpressure_detector=backpressure_detector)
        self.tier_type = tier_type
        self._base, self._stride = _base_and_stride(primary_kv_view)
        self._view = primary_kv_view       # the memory lives as long as this
        options = {name: value for name, value in config.items() if name not in HOST_OPTIONS}
        known = {**known_of(offloading_spec), 'slot_bytes': self._stride}
        self._model = str(known.get('model') or 'unknown').replace('@', '_')
        self._core = open_for_host('vllm', options, known)
        # Lookups under way or answered: key -> None, True, False. Whose they are: request -> keys.
        self._lookups: dict[bytes, bool | None] = {}
        self._lookup_tasks: dict[int, list[bytes]] = {}
        self._asked: dict[Any, set[bytes]] = {}
        self._touch_task = 0
        # The store's task -> (job_id, keys, is_load, when)
        self._jobs: dict[int, tuple[int, list[bytes], bool, float]] = {}
        self._finished: list[Any] = []

    # ---- what is there

    def lookup(self, key: bytes, req_context: Any) -> Any:
        """What memory knows is answered now; for the rest the medium is asked, and the answer is there a step later."""
        if key not in self._lookups:
            if not self._ask(key, req_context):
                return MISS
        self._take_lookups()
        answer = self._lookups.get(key)
        if answer is None:
            return RETRY
        del self._lookups[key]
        return HIT if answer else MISS

    def touch(self, keys: Collection[bytes], req_context: Any = None) -> None:
        """Renews what is there. One at a time: a hint is not worth a queue."""
        if self._touch_task or len(keys) == 0 or self._core.closed:
            return
        try:
            self._touch_task = self._core.lookup([self._text(key) for key in keys], _kvkeep.LOOKUP_PIN, False, 0, False)
            self._lookup_tasks[self._touch_task] = list(keys)
        except Exception:
            self._touch_task = 0

    # ---- jobs

    def submit_store(self, job_metadata: Any) -> None:
        self._submit(job_metadata, False)

    def submit_load(self, job_metadata: Any) -> None:
        self._submit(job_metadata, True)

    def get_finished_jobs(self) -> Iterable[Any]:
        self._take_jobs()
        self._take_lookups()
        finished, self._finished = self._finished, []
        return finished

    get_finished = get_finished_jobs       # its name in older versions

    def has_pending_work(self) -> bool:
        return bool(self._jobs or self._finished)

    def drain_jobs(self) -> None:
        """Until every job is done: each ends by its deadline at the latest."""
        while self._jobs and not self._core.closed:
            loads = any(is_load for _, _, is_load, _ in self._jobs.values())
            self._core.wait(_kvkeep.QUEUE_GET if loads else _kvkeep.QUEUE_PUT, 100_000)
            self._take_jobs()

    # ---- requests

    def on_new_request(self, req_context: Any) -> Any:
        return new_request()

    def on_request_finished(self, req_context: Any) -> None:
        # Also what is not answered yet: nobody would take it, and a later request must not get an old answer. Another
        # request that waits for the same key asks again.
        for key in self._asked.pop(getattr(req_context, 'req_id', None), ()):
            self._lookups.pop(key, None)

    def get_stats(self) -> Any:
        return None

    def shutdown(self) -> None:
        """Nothing touches the primary view any more when it returns; jobs that were under way are not reported."""
        self._core.close()
        self._jobs.clear()
        self._lookups.clear()
        self._lookup_tasks.clear()
        self._asked.clear()

    # ---- inside

    def _text(self, key: bytes) -> str:
        """The usual text of a key: the block's hash, and the group's index that vLLM appends to it."""
        return f'{self._model}@00000000@{int.from_bytes(key[-4:], "big"):x}@{bytes(key[:-4]).hex() or "00"}'

    def _ask(self, key: bytes, req_context: Any) -> bool:
        try:
            task = self._core.lookup([self._text(key)], 0, False, 0, False)
        except Exception:
            return False
        self._lookup_tasks[task] = [key]
        self._lookups[key] = None
        self._asked.setdefault(getattr(req_context, 'req_id', None), set()).add(key)
        return True

    def _take_lookups(self) -> None:
        if self._core.closed:
            return
        for task, kind, results in self._core.drain(_kvkeep.QUEUE_LOOKUP):
            keys = self._lookup_tasks.pop(task, None)
            if keys is None or kind != _kvkeep.KIND_LOOKUP:
                continue
            if task == self._touch_task:
                self._touch_task = 0
                pinned = [self._text(key) for key, result in zip(keys, results) if result[0] == 0]
                if pinned:
                    self._core.unpin(pinned, 0, False, 0, False)
                continue
            for key, result in zip(keys, results):
                if key in self._lookups:
                    self._lookups[key] = result[0] == 0

    def _submit(self, job: Any, is_load: bool) -> None:
        keys = list(job.keys)
        began = time.monotonic()
        try:
            texts = [self._text(key) for key in keys]
            places = [(self._base + slot * self._stride, self._stride) for slot in slots(job)]
            if is_load:
                task = self._core.get(texts, places, 0, 0, 0, False, 0, False, True)
            else:
                task = self._core.put(texts, places, None, None, None, 0, 0, False)
            self._jobs[task] = (job.job_id, keys, is_load, began)
        except Exception:
            # No keys is a job that is done; what cannot be taken is a job that failed.
            self._finished.append(job_result(job_id=job.job_id, success=not keys, successful_keys=None,
                                             transfer_time=None, transfer_bytes=None))

    def _take_jobs(self) -> None:
        if self._core.closed:
            return
        for queue in (_kvkeep.QUEUE_PUT, _kvkeep.QUEUE_GET):
            for task, _, results in self._core.drain(queue):
                job_id, keys, is_load, began = self._jobs.pop(task)
                good = [key for key, result in zip(keys, results) if result[0] == 0]
                moved = sum(result[2] for result in results if result[0] == 0)
                self._finished.append(job_result(
                    job_id=job_id, success=len(good) == len(keys),
                    successful_keys=tuple(good) if is_load and good and len(good) < len(keys) else None,
                    transfer_time=time.monotonic() - began, transfer_bytes=moved))


def _base_and_stride(view: memoryview) -> tuple[int, int]:
    """Taken once: slicing a view for every chunk costs, and keeps exports alive."""
    import numpy

    if view.strides is None or view.ndim != 2:
        raise TypeError('primary_kv_view must be a two-dimensional memoryview')
    return numpy.asarray(view).__array_interface__['data'][0], view.strides[0]
