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
            if not future.done() and not self._core.closed:
                self._core.cancel(task)
                # The buffers are the caller's again only once the cancel was answered.
                await asyncio.shield(future)
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
            if self._core.closed:
                return
            done = [(self._tasks.pop(task, None), results) for task, _, results in self._core.drain(queue)]
        for waiter, results in done:
            if waiter is not None:
                loop, future, _ = waiter
                loop.call_soon_threadsafe(_answer, future, results)

    def end(self) -> None:
        """Before the store is closed: takes the descriptors out of the loops, and tells who still waits."""
        with self._lock:
            self._ended = True
            tasks, self._tasks = self._tasks, {}
            readers, self._readers = self._readers, {}
            if not self._core.closed:
                for loop, queue in readers:
                    if not loop.is_closed():
                        loop.remove_reader(self._core.event_fd(queue))
        for loop, future, _ in tasks.values():
            if not loop.is_closed():
                loop.call_soon_threadsafe(_refuse, future)


def _answer(future: asyncio.Future[Any], results: Any) -> None:
    if not future.done():
        future.set_result(results)


def _refuse(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(ClosedError('the store was closed', errno.ESHUTDOWN))
