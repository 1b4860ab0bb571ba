# SPDX-License-Identifier: Apache-2.0
"""
LMCache's plugin interface (kvkeep.lmcache.Adapter).

The host asks from several threads and reads its event descriptors itself, so one thread here moves answers from the
store's queues to where the host asks for them. What LMCache believes to be stored (its listeners and its accounting)
is told exactly once a key, whoever it was that stored or removed it: this process, an earlier one, or the store's own
eviction.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import logging
import os
import select
import threading
import time
from typing import Any, Iterable, Sequence

from kvkeep import _kvkeep
from kvkeep._errors import BusyError
from kvkeep._host import open_for_host
from kvkeep._lmcache_api import (
    Bitmap,
    L2AdapterInterface,
    ObjectKey,
    init_base,
    key_list_page,
    key_text,
    store_result,
    text_key,
    usage,
)

QUEUES = (_kvkeep.QUEUE_PUT, _kvkeep.QUEUE_LOOKUP, _kvkeep.QUEUE_GET)
NO_ENTRY = -2
AGAIN_SECONDS = 0.05
DELETE_SECONDS = 5.0
CURSOR = 'kvkeep:'

log = logging.getLogger('kvkeep')


class Adapter(L2AdapterInterface):
    """
    params: the store's options, flat or as LMCache's own nixl_store_dynamic has them; see docs/engines.md.
    """

    def __init__(self, params: Any, l1_memory_desc: Any = None, **_: Any) -> None:
        options = dict(params)
        direct = bool(options.pop('l1_direct', False))
        self._core = open_for_host('lmcache', options, {}, self._on_event, _kvkeep.EVENT_DELETED)
        self._cap_bytes = self._core.usage()['cap_bytes']
        init_base(self, self._cap_bytes)
        self._options = options
        self._lock = threading.Lock()
        # Before _lock. Held while LMCache is told, so that a listener that comes meanwhile hears everything once.
        self._telling = threading.RLock()
        self._ids = itertools.count(1)
        self._fds = {queue: os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for queue in QUEUES}
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        # The store's task: (our task, keys, objects that must stay alive, sizes or layouts)
        self._pending: dict[int, tuple[int, list[ObjectKey], Any, list[Any]]] = {}
        self._done: dict[int, dict[int, Any]] = {queue: {} for queue in QUEUES}
        self._unlocks: list[list[str]] = []
        # What LMCache has been told of, oldest use first, as far as this process knows. What it is told in one call it
        # takes for the keys of a prefix: the first for the most recently used, the last to be evicted first.
        self._sizes: dict[ObjectKey, int] = {}
        self._by_salt: dict[str, int] = {}
        self._touched: list[ObjectKey] | None = []     # used before recovery was over; None: it is
        self._closed = False
        self._flags = 0
        if direct and l1_memory_desc is not None:
            self._register(l1_memory_desc)
        self._threads = [threading.Thread(target=target, name=name, daemon=True)
                         for target, name in [(self._run, 'kvkeep-lmcache'), (self._recover, 'kvkeep-recovery')]]
        for thread in self._threads:
            thread.start()

    # ---- descriptors

    def get_store_event_fd(self) -> int:
        return self._fds[_kvkeep.QUEUE_PUT]

    def get_lookup_and_lock_event_fd(self) -> int:
        return self._fds[_kvkeep.QUEUE_LOOKUP]

    def get_load_event_fd(self) -> int:
        return self._fds[_kvkeep.QUEUE_GET]

    # ---- store

    def submit_store_task(self, keys: Sequence[ObjectKey], objects: Sequence[Any]) -> int:
        self._check_open()
        keys = list(keys)

        def submit() -> tuple[int, list[Any]]:
            buffers = [obj.byte_array for obj in objects]
            task = self._core.put([key_text(key) for key in keys], buffers, None, None,
                                  [_layout(obj) for obj in objects], self._flags, 0, False)
            return task, [len(buffer) for buffer in buffers]

        return self._submit(_kvkeep.QUEUE_PUT, keys, objects, submit)

    def pop_completed_store_tasks(self) -> dict[int, Any]:
        with self._lock:
            done, self._done[_kvkeep.QUEUE_PUT] = self._done[_kvkeep.QUEUE_PUT], {}
        return done

    # ---- lookup and lock

    def submit_lookup_and_lock_task(self, keys: Sequence[ObjectKey], group_layout_descs: Any = None) -> int:
        self._check_open()
        keys = list(keys)
        texts = [key_text(key) for key in keys]
        return self._submit(_kvkeep.QUEUE_LOOKUP, keys, None,
                            lambda: (self._core.lookup(texts, _kvkeep.LOOKUP_PIN, False, 0, False), []))

    def query_lookup_and_lock_result(self, task_id: int) -> Any:
        with self._lock:
            return self._done[_kvkeep.QUEUE_LOOKUP].pop(task_id, None)

    def submit_unlock(self, keys: Sequence[ObjectKey]) -> None:
        if self._closed:
            return
        for texts in _batches(keys):
            if not self._try_unlock(texts):
                with self._lock:
                    self._unlocks.append(texts)
                self._wake()

    # ---- load

    def submit_load_task(self, keys: Sequence[ObjectKey], objects: Sequence[Any]) -> int:
        self._check_open()
        keys = list(keys)

        def submit() -> tuple[int, list[Any]]:
            layouts = [_layout(obj) for obj in objects]
            task = self._core.get([key_text(key) for key in keys], [obj.byte_array for obj in objects], 0, 0,
                                  self._flags, True, 0, False, True)
            return task, layouts

        return self._submit(_kvkeep.QUEUE_GET, keys, objects, submit)

    def query_load_result(self, task_id: int) -> Any:
        with self._lock:
            return self._done[_kvkeep.QUEUE_GET].pop(task_id, None)

    # ---- delete, list, usage, status

    def delete(self, keys: Sequence[ObjectKey]) -> None:
        """Deletes what nobody holds a lock on. Never raises: that would end the thread that evicts."""
        by_text = {key_text(key): key for key in keys}
        for texts in _batches(keys):
            results = self._try_delete(texts)
            self._forget([by_text[text] for text, result in zip(texts, results) if result[0] in (0, NO_ENTRY)])

    def list_l2_keys(self, model_name: str | None = None, page_size: int = 500, cursor: str | None = None) -> Any:
        if page_size <= 0:
            raise ValueError(f'page_size must be positive, not {page_size}')
        if cursor is not None and not cursor.startswith(CURSOR):
            raise ValueError(f'{cursor!r} is no cursor of a page before')
        cursor = cursor and cursor[len(CURSOR):]
        entries, cursor = self._core.list(None, model_name, None, 0, cursor, page_size)
        found = [(text_key(entry['key']), entry['object_bytes']) for entry in entries
                 if entry['key'] is not None and entry['state'] == 'present']
        return key_list_page([(key, size) for key, size in found if key is not None],
                             None if cursor is None else CURSOR + cursor)

    def get_usage(self) -> Any:
        """The store's own account where it knows more than what LMCache was told."""
        with self._lock:
            by_salt = {salt: salt_bytes for salt, salt_bytes in self._by_salt.items() if salt_bytes > 0}
        used_bytes = sum(by_salt.values())
        if not self._closed:
            used_bytes = max(used_bytes, self._core.usage()['used_bytes'])
            for salt, (salt_bytes, _) in self._core.shares(_kvkeep.BY_TENANT).items():
                if salt_bytes > by_salt.get(salt, 0):
                    by_salt[salt] = salt_bytes
        return usage(used_bytes, self._cap_bytes, by_salt)

    def report_status(self) -> dict[str, Any]:
        if self._closed:
            return {'is_healthy': False, 'type': 'kvkeep', 'closed': True}
        status = json.loads(self._core.status())
        with self._lock:
            pending, known, recovered = len(self._pending), len(self._sizes), self._touched is None
        alive = self._threads[0].is_alive()
        return {'is_healthy': bool(status.get('healthy')) and alive, 'type': 'kvkeep', 'in_flight': pending,
                'known_keys': known, 'recovered': recovered, 'store': status, 'stats': self._core.stats()}

    def register_listener(self, listener: Any) -> None:
        """A listener that comes late hears of what is there already."""
        with self._telling:
            super().register_listener(listener)
            with self._lock:
                known = list(reversed(self._sizes.items()))
            if known:
                listener.on_l2_keys_stored([key for key, _ in known], [size for _, size in known])

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._wake()
        for thread in self._threads:
            thread.join(timeout=10)
        self._core.close()
        with self._lock:
            self._pending.clear()
            for fd in [*self._fds.values(), self._wake_fd]:
                os.close(fd)
            self._wake_fd = -1

    # ---- inside

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError('the adapter is closed')

    def _register(self, memory: Any) -> None:
        """Transfers between the disk and L1 without a copy, where its alignment allows."""
        base, size = memory.ptr, getattr(memory, 'stable_registration_size', None) or memory.size
        self._core.register(base, size)
        self._flags = _kvkeep.MEM_HELD

    def _submit(self, queue: int, keys: list[ObjectKey], objects: Any, submit: Any) -> int:
        """Submits, and remembers before the answer can be looked for. What cannot be taken is a task that fails."""
        number = next(self._ids)
        with self._lock:
            try:
                task, facts = submit()
                self._pending[task] = (number, keys, objects, facts)
                return number
            except Exception:
                self._done[queue][number] = (store_result(False, 0) if queue == _kvkeep.QUEUE_PUT
                                             else Bitmap(len(keys)))
            if not self._closed:
                os.eventfd_write(self._fds[queue], 1)
        return number

    def _wake(self) -> None:
        with self._lock:
            if self._wake_fd >= 0:
                os.eventfd_write(self._wake_fd, 1)

    def _try_unlock(self, texts: list[str]) -> bool:
        """False: too much is under way, try again."""
        try:
            self._core.unpin(texts, 0, False, 0, False)
        except BusyError:
            return False
        except Exception as error:
            if not self._core.closed:
                log.error('cannot unlock %d keys: %s', len(texts), error)
        return True

    def _try_delete(self, texts: list[str]) -> list[Any]:
        until = time.monotonic() + DELETE_SECONDS
        while not self._closed:
            try:
                return self._core.remove(texts, 0, False, 0, True)
            except BusyError as error:
                if time.monotonic() > until:
                    log.warning('cannot delete %d keys: %s', len(texts), error)
                    break
                time.sleep(AGAIN_SECONDS)
            except Exception as error:
                if not self._core.closed:
                    log.error('cannot delete %d keys: %s', len(texts), error)
                break
        return []

    def _run(self) -> None:
        poll = select.poll()
        fds = {self._core.event_fd(queue): queue for queue in QUEUES}
        for fd in [*fds, self._wake_fd]:
            poll.register(fd, select.POLLIN)
        while not self._closed:
            ready = poll.poll(AGAIN_SECONDS * 1000 if self._unlocks else 1000)
            for fd, _ in ready:
                if fd == self._wake_fd:
                    os.eventfd_read(fd)
                else:
                    self._take(fds[fd])
            if self._unlocks:
                with self._lock:
                    texts, self._unlocks = self._unlocks, []
                failed = [keys for keys in texts if not self._try_unlock(keys)]
                with self._lock:
                    self._unlocks += failed

    def _take(self, queue: int) -> None:
        with self._telling:
            signals = self._take_answers(queue)
        # A listener may have kept this thread for longer than close() waits, and the numbers are somebody else's then.
        with self._lock:
            for _ in range(signals if self._wake_fd >= 0 else 0):
                os.eventfd_write(self._fds[queue], 1)

    def _take_answers(self, queue: int) -> int:
        signals = 0
        told: list[Any] = []
        with self._lock:
            for task, kind, results in self._core.drain(queue):
                number, keys, _, facts = self._pending.pop(task, (None, [], None, []))
                if number is None:
                    continue               # an unpin
                if kind == _kvkeep.KIND_PUT:
                    self._done[queue][number] = self._stored(keys, results, facts, told)
                else:
                    self._done[queue][number] = self._found(kind, keys, results, facts, told)
                signals += 1
        # Before the host is woken: when it looks, accounting and listeners know already.
        self._tell(told)
        return signals

    def _stored(self, keys: list[ObjectKey], results: list[Any], sizes: list[int], told: list[Any]) -> Any:
        good = [(key, size, result) for key, result, size in zip(keys, results, sizes) if result[0] == 0]
        self._learn([(key, size) for key, size, _ in good], told)
        written = sum(size for _, size, result in good if result[1] != _kvkeep.REASON_PRESENT)
        return store_result(len(good) == len(keys), written)

    def _found(self, kind: int, keys: list[ObjectKey], results: list[Any], layouts: list[Any], told: list[Any]) -> Any:
        bitmap = Bitmap(len(keys))
        good = []
        for index, (key, result) in enumerate(zip(keys, results)):
            if result[0] != 0:
                continue
            if kind == _kvkeep.KIND_GET and result[4] and layouts[index] and result[4] != layouts[index]:
                continue                   # the same key, but stored with another dtype or shape
            bitmap.set(index)
            good.append((key, result[3]))
        self._learn(good, told)
        if kind == _kvkeep.KIND_GET and good:
            told.append(('accessed', [key for key, _ in good], None))
        return bitmap

    # ---- what LMCache has been told

    def _tell(self, told: Sequence[Any]) -> None:
        """A listener that fails must not keep an answer from the host."""
        for what, keys, sizes in told:
            try:
                if what == 'stored':
                    self._notify_keys_stored(keys, sizes)
                elif what == 'accessed':
                    self._notify_keys_accessed(keys)
                else:
                    self._notify_keys_deleted(keys, sizes)
            except Exception:
                log.exception('a listener of LMCache failed')

    def _learn(self, found: Sequence[tuple[ObjectKey, int]], told: list[Any]) -> None:
        """
        With the lock held: notes keys that LMCache has not heard of, to be told after it was let go. found: the most
        recently used first.
        """
        new = {key: size for key, size in found if key not in self._sizes}
        for key, size in reversed(found):
            self._sizes[key] = self._sizes.pop(key, size)
        for key, size in new.items():
            self._by_salt[key.cache_salt] = self._by_salt.get(key.cache_salt, 0) + size
        if new:
            told.append(('stored', list(new), list(new.values())))
        if self._touched is not None:
            self._touched += [key for key, _ in reversed(found)]

    def _forget(self, keys: Iterable[ObjectKey]) -> None:
        with self._telling:
            with self._lock:
                gone = [(key, self._sizes.pop(key)) for key in keys if key in self._sizes]
                for key, size in gone:
                    self._by_salt[key.cache_salt] -= size
            if gone:
                self._tell([('deleted', [key for key, _ in gone], [size for _, size in gone])])

    def _on_event(self, what: str, texts: list[bytes]) -> None:
        """Evicted, or damaged and moved aside, unless it was stored again meanwhile."""
        if not hasattr(self, '_sizes') or self._closed:
            return
        known = [(text, key) for text, key in ((text, text_key(text)) for text in texts)
                 if key is not None and key in self._sizes]
        if not known:
            return
        results = self._core.lookup([text for text, _ in known], 0, False, 0, True)
        self._forget([key for (_, key), result in zip(known, results) if result[0] == NO_ENTRY])

    def _recover(self) -> None:
        """Tells LMCache what earlier runs left, in the order of its use, and then what was used since."""
        found: list[tuple[int, ObjectKey, int]] = []
        cursor = None
        try:
            while not self._closed:
                entries, cursor = self._core.list(None, None, None, 0, cursor, 256)
                for entry in entries:
                    key = text_key(entry['key']) if entry['key'] is not None else None
                    if key is not None and entry['state'] == 'present':
                        found.append((self._used_ns(entry), key, entry['object_bytes']))
                if cursor is None:
                    break
        except Exception as error:
            if self._closed:
                return
            log.error('LMCache is told of %d objects only; of others when it asks for them: %s', len(found), error)
        found.sort(key=lambda entry: entry[0], reverse=True)
        told: list[Any] = []
        with self._telling:
            with self._lock:
                touched, self._touched = self._touched or [], None
                newer, self._sizes = self._sizes, {}
                self._learn([(key, size) for _, key, size in found if key not in newer], told)
                self._sizes.update(newer)
            touched = [key for key in dict.fromkeys(reversed(touched)) if key in newer]
            if told and touched:
                told.append(('accessed', touched, None))
            self._tell(told)

    def _used_ns(self, entry: dict[str, Any]) -> int:
        """When an object was used last: readers renew the access time of its file."""
        root = self._options.get('file_path') or (self._options.get('backend_params') or {}).get('file_path') or ''
        try:
            accessed_ns = os.stat(os.path.join(root, entry['name'])).st_atime_ns
        except OSError:
            accessed_ns = 0
        return max(accessed_ns, entry['created_ns'], 0) or time.time_ns()


def _batches(keys: Sequence[ObjectKey]) -> Iterable[list[str]]:
    """Texts of keys, as many at once as the store takes, without those that are too long to be in a store."""
    texts = [text for text in map(key_text, keys) if len(text.encode()) <= _kvkeep.KEY_BYTES_MAX]
    return (texts[at:at + _kvkeep.BATCH_ITEMS_MAX] for at in range(0, len(texts), _kvkeep.BATCH_ITEMS_MAX))


def _layout(obj: Any) -> bytes | None:
    """
    16 bytes that differ where dtype, shape or format differ: kept with the object and compared when it is loaded, since
    LMCache's keys have none of it. None: the object does not say.
    """
    meta = getattr(obj, 'metadata', None)
    if meta is None:
        return None
    shapes = getattr(meta, 'shapes', None) or [getattr(meta, 'shape', None)]
    dtypes = getattr(meta, 'dtypes', None) or [getattr(meta, 'dtype', None)]
    return _layout_digest(tuple(dtypes), tuple(tuple(shape or ()) for shape in shapes), getattr(meta, 'fmt', ''))


@functools.lru_cache(maxsize=256)
def _layout_digest(dtypes: tuple[Any, ...], shapes: tuple[tuple[int, ...], ...], fmt: Any) -> bytes:
    """Kept: a model has few layouts, and writing one out takes three times as long as writing the key."""
    text = repr([[str(dtype) for dtype in dtypes], [list(shape) for shape in shapes], str(fmt)])
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
