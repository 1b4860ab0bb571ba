# SPDX-License-Identifier: Apache-2.0
"""A store, as scripts and notebooks like it."""

from __future__ import annotations

import dataclasses
import json
import weakref
from typing import Any, Callable, Iterator, Sequence

from kvkeep import _kvkeep
from kvkeep._aio import Waiters
from kvkeep._buffers import pieces
from kvkeep._core import open_core
from kvkeep._errors import from_result
from kvkeep._spec import with_options

Key = Any

# -ENOENT and -EBADMSG: not there, or there and not to be believed.
MISSES = frozenset([-2, -74])
NO_ENTRY = -2
# -EMSGSIZE: another process replaced it by one of another length after the lookup.
REPLACED = -90


@dataclasses.dataclass(frozen=True)
class Entry:
    """One object in a list."""

    key: bytes | None
    state: str
    object_bytes: int
    stored_bytes: int
    created_ns: int
    depth: int
    pins: int
    meta: bytes
    digest: bytes
    parent_digest: bytes | None
    namespace_digest: bytes
    name: str


@dataclasses.dataclass(frozen=True)
class Usage:
    """What the store holds, as far as this process knows."""

    used_bytes: int
    writing_bytes: int
    cap_bytes: int
    objects: int
    pinned_objects: int
    quarantined_bytes: int
    used_fraction: float


def open(where: Any, *, on_event: Callable[[str, list[bytes]], None] | None = None, **options: Any) -> Store:  # noqa: A001
    """
    Opens a store and adopts what earlier runs published.

    where is a directory, a specification (a dict or a JSON text, see kvkeep(7)), or '@file' with one; options are
    added to it: namespace={...}, max_capacity_gb=50, use_direct_io=True, durability='batch', create=False, ...
    on_event(what, keys) hears 'stored', 'accessed' and 'deleted', on a thread of its own. Log lines go to the
    logger 'kvkeep'.
    """
    return Store(with_options(where, options), on_event=on_event)


class Store:
    """
    A store. Made by kvkeep.open(); any thread may use it. Ends with close(), a with statement, or its last reference.

    Keys are str (as UTF-8) or bytes. A buffer is anything with the buffer protocol, a numpy array, a torch CPU tensor,
    what speaks DLPack, a tuple (address, bytes), or a list of these that make one object; nothing is copied.
    timeout is in seconds; None is the store's own deadline.
    """

    def __init__(self, spec: dict[str, Any], on_event: Callable[[str, list[bytes]], None] | None = None) -> None:
        self._core = open_core(spec, on_event)
        self._waiters = Waiters(self._core)
        self._end = weakref.finalize(self, self._core.close)

    # ---- one object

    def put(self, key: Key, buffer: Any, *, parent: Key | None = None, depth: int = 0, meta: bytes | None = None,
            timeout: float | None = None) -> bool:
        """Stores an object. True: stored; False: it was there already (the first writer wins)."""
        return self.put_many([key], [buffer], parents=[parent], depths=[depth], metas=[meta], timeout=timeout)[0]

    def get(self, key: Key, *, timeout: float | None = None) -> bytes | None:
        """The object as bytes, or None: a miss."""
        return self.get_many([key], timeout=timeout)[0]

    def get_into(self, key: Key, buffer: Any, *, offset: int = 0, length: int = 0,
                 timeout: float | None = None) -> int | None:
        """
        Loads an object (or length bytes of it from offset) into a writable buffer of at least that size, and returns
        how many bytes came; None: a miss. After a miss the buffer never holds bytes that did not prove themselves.
        """
        return self.get_into_many([key], [buffer], offset=offset, length=length, timeout=timeout)[0]

    def has(self, key: Key, *, timeout: float | None = None) -> bool:
        return self.has_many([key], timeout=timeout)[0]

    def remove(self, key: Key, *, timeout: float | None = None) -> bool:
        """True: removed; False: there was none."""
        return self.remove_many([key], timeout=timeout)[0]

    def meta(self, key: Key, *, timeout: float | None = None) -> bytes | None:
        """The metadata that was put with the object, or None: a miss."""
        result = self._core.lookup([key], 0, True, _us(timeout), True)[0]
        return result[4] if _hit(result, 'meta') else None

    # ---- batches: answers are per key, in the order of the keys

    def put_many(self, keys: Sequence[Key], buffers: Sequence[Any], *, parents: Sequence[Key | None] | None = None,
                 depths: Sequence[int] | None = None, metas: Sequence[bytes | None] | None = None,
                 timeout: float | None = None) -> list[bool]:
        """As put(). Raises for the first that could not be stored, after all were tried."""
        if len(keys) == 0:
            return []
        buffers = _frozen(buffers)
        results = self._core.put(keys, [pieces(buffer, False) for buffer in buffers], parents, depths, metas,
                                 0, _us(timeout), True)
        return [_stored(result) for result in results]

    def get_many(self, keys: Sequence[Key], *, timeout: float | None = None) -> list[bytes | None]:
        if len(keys) == 0:
            return []
        keys = list(keys)
        results: list[Any] = list(self._core.read(keys, 0, False, _us(timeout)))
        replaced = [index for index, result in enumerate(results) if result[0] == REPLACED]
        if replaced:
            rooms = [bytearray(results[index][2]) for index in replaced]
            again = self._core.get([keys[index] for index in replaced], rooms, 0, 0, 0, False, _us(timeout), True, True)
            for index, room, result in zip(replaced, rooms, again):
                results[index] = (result[0], result[1], bytes(room))
        return [result[2] if result[0] != REPLACED and _hit(result, 'get') else None for result in results]

    def get_into_many(self, keys: Sequence[Key], buffers: Sequence[Any], *, offset: int = 0, length: int = 0,
                      timeout: float | None = None) -> list[int | None]:
        if len(keys) == 0:
            return []
        buffers = _frozen(buffers)
        results = self._core.get(keys, [pieces(buffer, True) for buffer in buffers], offset, length, 0, False,
                                 _us(timeout), True)
        return [result[2] if _hit(result, 'get') else None for result in results]

    def has_many(self, keys: Sequence[Key], *, timeout: float | None = None) -> list[bool]:
        if len(keys) == 0:
            return []
        return [_hit(result, 'has') for result in self._core.lookup(keys, 0, False, _us(timeout), True)]

    def remove_many(self, keys: Sequence[Key], *, timeout: float | None = None) -> list[bool]:
        if len(keys) == 0:
            return []
        return [_hit(result, 'remove') for result in self._core.remove(keys, 0, False, _us(timeout), True)]

    def pin_many(self, keys: Sequence[Key], *, timeout: float | None = None) -> list[bool]:
        """Looks up and pins what is found: this process does not remove it until unpin_many()."""
        if len(keys) == 0:
            return []
        return [_hit(result, 'pin')
                for result in self._core.lookup(keys, _kvkeep.LOOKUP_PIN, False, _us(timeout), True)]

    def unpin_many(self, keys: Sequence[Key]) -> None:
        if len(keys) > 0:
            self._core.unpin(keys, 0, False, 0, True)

    def verify(self, key: Key, *, timeout: float | None = None) -> bool:
        """Reads and checks an object without delivering it."""
        flags = _kvkeep.GET_VERIFY | _kvkeep.GET_PEEK
        return _hit(self._core.get([key], None, 0, 0, flags, False, _us(timeout), True)[0], 'verify')

    # ---- the same for asyncio

    async def aput(self, key: Key, buffer: Any, **how: Any) -> bool:
        parent, depth, meta = how.pop('parent', None), how.pop('depth', 0), how.pop('meta', None)
        return (await self.aput_many([key], [buffer], parents=[parent], depths=[depth], metas=[meta], **how))[0]

    async def aget(self, key: Key, *, timeout: float | None = None) -> bytes | None:
        return (await self.aget_many([key], timeout=timeout))[0]

    async def aget_into(self, key: Key, buffer: Any, **how: Any) -> int | None:
        return (await self.aget_into_many([key], [buffer], **how))[0]

    async def ahas(self, key: Key, *, timeout: float | None = None) -> bool:
        return (await self.ahas_many([key], timeout=timeout))[0]

    async def aremove(self, key: Key, *, timeout: float | None = None) -> bool:
        return (await self.aremove_many([key], timeout=timeout))[0]

    async def aput_many(self, keys: Sequence[Key], buffers: Sequence[Any], *,
                        parents: Sequence[Key | None] | None = None, depths: Sequence[int] | None = None,
                        metas: Sequence[bytes | None] | None = None, timeout: float | None = None) -> list[bool]:
        if len(keys) == 0:
            return []
        buffers = _frozen(buffers)         # kept here until the answer, whatever the caller does
        places = [pieces(buffer, False) for buffer in buffers]
        results = await self._waiters.wait(_kvkeep.QUEUE_PUT, buffers, lambda: self._core.put(
            keys, places, parents, depths, metas, 0, _us(timeout), False))
        return [_stored(result) for result in results]

    async def aget_many(self, keys: Sequence[Key], *, timeout: float | None = None) -> list[bytes | None]:
        if len(keys) == 0:
            return []
        keys = list(keys)
        found = await self._waiters.wait(_kvkeep.QUEUE_LOOKUP, None, lambda: self._core.lookup(
            keys, 0, False, _us(timeout), False))
        answers: list[bytes | None] = [None] * len(keys)
        sizes = {index: result[3] for index, result in enumerate(found) if _hit(result, 'get')}
        for _ in range(2):
            if not sizes:
                break
            results, rooms = await self._aread({index: keys[index] for index in sizes}, sizes, timeout)
            for index, result, room in zip(sizes, results, rooms):
                if result[0] != REPLACED and _hit(result, 'get'):
                    answers[index] = bytes(room)
            sizes = {index: result[3] for index, result in zip(sizes, results) if result[0] == REPLACED}
        return answers

    async def _aread(self, keys: dict[int, Key], sizes: dict[int, int], timeout: float | None) -> tuple[Any, Any]:
        rooms = [bytearray(size) for size in sizes.values()]
        results = await self._waiters.wait(_kvkeep.QUEUE_GET, rooms, lambda: self._core.get(
            list(keys.values()), rooms, 0, 0, 0, False, _us(timeout), False, True))
        return results, rooms

    async def aget_into_many(self, keys: Sequence[Key], buffers: Sequence[Any], *, offset: int = 0, length: int = 0,
                             timeout: float | None = None) -> list[int | None]:
        if len(keys) == 0:
            return []
        buffers = _frozen(buffers)
        places = [pieces(buffer, True) for buffer in buffers]
        results = await self._waiters.wait(_kvkeep.QUEUE_GET, buffers, lambda: self._core.get(
            keys, places, offset, length, 0, False, _us(timeout), False))
        return [result[2] if _hit(result, 'get') else None for result in results]

    async def ahas_many(self, keys: Sequence[Key], *, timeout: float | None = None) -> list[bool]:
        if len(keys) == 0:
            return []
        results = await self._waiters.wait(_kvkeep.QUEUE_LOOKUP, None, lambda: self._core.lookup(
            keys, 0, False, _us(timeout), False))
        return [_hit(result, 'has') for result in results]

    async def aremove_many(self, keys: Sequence[Key], *, timeout: float | None = None) -> list[bool]:
        if len(keys) == 0:
            return []
        results = await self._waiters.wait(_kvkeep.QUEUE_PUT, None, lambda: self._core.remove(
            keys, 0, False, _us(timeout), False))
        return [_hit(result, 'remove') for result in results]

    # ---- looking at it

    def entries(self, *, prefix: Key | None = None, model: str | None = None, salt: str | None = None,
             created_before_ns: int = 0) -> Iterator[Entry]:
        """Every object, or those that match, read from the medium in the stable order of their names."""
        cursor = None
        while True:
            page, cursor = self._core.list(prefix, model, salt, created_before_ns, cursor, 256)
            for entry in page:
                yield Entry(**entry)
            if cursor is None:
                return

    def usage(self) -> Usage:
        return Usage(**self._core.usage())

    def stats(self) -> dict[str, int]:
        """Counters since open; they only grow."""
        return self._core.stats()

    def status(self) -> dict[str, Any]:
        """How the store is: 'healthy', 'degraded', settings, mechanisms."""
        return json.loads(self._core.status())

    def namespace(self, digest: bytes | None = None) -> Any:
        """The manifest with this digest, or the one the store was opened with."""
        return json.loads(self._core.namespace(digest))

    def namespaces(self) -> list[bytes]:
        """Digests of all manifests kept on the medium."""
        return self._core.namespaces()

    def shares(self, by: str = 'tenant') -> dict[str, tuple[int, int]]:
        """{name: (bytes, objects)} by 'tenant' or 'model'."""
        return self._core.shares({'tenant': _kvkeep.BY_TENANT, 'model': _kvkeep.BY_MODEL}[by])

    # ---- as a mapping

    def __contains__(self, key: Key) -> bool:
        return self.has(key)

    def __getitem__(self, key: Key) -> bytes:
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: Key, buffer: Any) -> None:
        self.put(key, buffer)

    def __delitem__(self, key: Key) -> None:
        if not self.remove(key):
            raise KeyError(key)

    def __iter__(self) -> Iterator[bytes]:
        """The keys of what this namespace can load."""
        for entry in self.entries():
            if entry.key is not None and entry.state == 'present':
                yield entry.key

    # ---- ending it

    @property
    def closed(self) -> bool:
        return self._core.closed

    def close(self) -> None:
        """Ends the store; what waits in asyncio is told so. Closing twice is fine."""
        self._end.detach()
        self._waiters.end()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    async def __aenter__(self) -> Store:
        return self

    async def __aexit__(self, *exception: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        return f'<kvkeep.Store{" (closed)" if self.closed else ""}>'


def _frozen(buffers: Sequence[Any]) -> list[Any]:
    """Also where an object has several pieces: whose list they stand in may change it while bytes are under way."""
    return [list(buffer) if isinstance(buffer, list) else buffer for buffer in buffers]


def _us(timeout: float | None) -> int:
    return 0 if timeout is None else max(1, int(timeout * 1e6))


def _hit(result: tuple[Any, ...], what: str) -> bool:
    if result[0] == 0:
        return True
    if result[0] in MISSES:
        return False
    raise from_result(result[0], result[1], what)


def _stored(result: tuple[Any, ...]) -> bool:
    if result[0] == 0:
        return result[1] != _kvkeep.REASON_PRESENT
    raise from_result(result[0], result[1], 'put')
