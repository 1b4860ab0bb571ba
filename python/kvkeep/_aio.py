# SPDX-License-Identifier: Apache-2.0
"""
asyncio over the store's event descriptors: no thread waits, an event loop reads a descriptor while something is
under way for it. Several loops in several threads may use one store.
"""

from __future__ import annotations

import asyncio
import errno
import threading
from typing import Any, Callable

from kvkeep._errors import ClosedError
from kvkeep._kvkeep import Core


class Waiters:
    """Who waits for which task."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._lock = threading.Lock()
        # task: (loop, future, what must stay alive until the answer). Held over submitting, so that an answer that
        # another loop drains finds its waiter.
        self._tasks: dict[int, tuple[asyncio.AbstractEventLoop, asyncio.Future[Any], Any]] = {}
        self._readers: dict[tuple[asyncio.AbstractEventLoop, int], int] = {}
        self._ended = False

    async def wait(self, queue: int, keep: Any, submit: Callable[[], int]) -> list[tuple[Any, ...]]:
        """Submits and returns the results. Canceling it cancels what is not done yet."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        with self._lock:
            if self._ended:
                raise ClosedError('the store is closed', errno.ESHUTDOWN)
            task = submit()
            self._tasks[task] = (loop, future, keep)
            self._read(loop, queue)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            with self._lock:
                if not future.done() and not self._ended:
                    self._core.cancel(task)
            # The buffers are the caller's again only once the cancel was answered, however often it is asked for.
            while not future.done():
                try:
                    await asyncio.wait([future])
                except asyncio.CancelledError:
                    continue
            future.exception()             # asyncio tells of one that nobody looked at
            raise
        finally:
            with self._lock:
                self._unread(loop, queue)

    def _read(self, loop: asyncio.AbstractEventLoop, queue: int) -> None:
        count = self._readers.get((loop, queue), 0)
        if count == 0:
            loop.add_reader(self._core.event_fd(queue), self._drain, queue)
        self._readers[loop, queue] = count + 1

    def _unread(self, loop: asyncio.AbstractEventLoop, queue: int) -> None:
        count = self._readers.get((loop, queue), 0)
        if count > 1:
            self._readers[loop, queue] = count - 1
        elif count == 1:
            del self._readers[loop, queue]
            if not self._core.closed:
                loop.remove_reader(self._core.event_fd(queue))

    def _drain(self, queue: int) -> None:
        with self._lock:
            if self._ended:
                return
            done = [(self._tasks.pop(task, None), results) for task, _, results in self._core.drain(queue)]
        for waiter, results in done:
            if waiter is not None:
                loop, future, _ = waiter
                try:
                    loop.call_soon_threadsafe(_answer, future, results)
                except RuntimeError:
                    continue               # a loop that was closed: nobody waits there, but others do elsewhere

    def end(self) -> None:
        """
        Ends the store. Who still waits is told so when that is over: until then transfers go on in their buffers, and
        what the store could not end keeps them for good.
        """
        with self._lock:
            self._ended = True
            readers, self._readers = self._readers, {}
            for loop, queue in readers:
                if not loop.is_closed():
                    loop.remove_reader(self._core.event_fd(queue))
        try:
            self._core.close()
        except Exception:
            held_for_good.extend(keep for _, _, keep in self._tasks.values())
            raise
        finally:
            with self._lock:
                tasks, self._tasks = self._tasks, {}
            for loop, future, _ in tasks.values():
                if not loop.is_closed():
                    loop.call_soon_threadsafe(_refuse, future)


# What a medium that hangs may still write to.
held_for_good: list[Any] = []


def _answer(future: asyncio.Future[Any], results: Any) -> None:
    if not future.done():
        future.set_result(results)


def _refuse(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(ClosedError('the store was closed', errno.ESHUTDOWN))
