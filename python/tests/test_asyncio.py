# SPDX-License-Identifier: Apache-2.0
"""The package in programs of asyncio."""

import asyncio
import threading
import time

import pytest

import kvkeep

KEY = 'llama@00000000@0@5f3a90c1'
HANG = [{'do': 'hang', 'ops': ['read'], 'nth': 1, 'every': 1}]


def test_asyncio(store):
    async def many():
        keys = [f'k{index}' for index in range(100)]
        assert await store.aput_many(keys, [key.encode() for key in keys]) == [True] * 100
        assert await asyncio.gather(*[store.aget(key) for key in keys]) == [key.encode() for key in keys]
        assert await store.ahas('k5') is True and await store.aremove('k5') is True
        assert await store.ahas('k5') is False and await store.aget('k5') is None
        room = bytearray(2)
        assert await store.aget_into('k7', room) == 2 and room == b'k7'

    asyncio.run(many())
    asyncio.run(many_again(store))


def test_asyncio_ends_the_store(folder):
    async def scope():
        async with kvkeep.open(folder + '/s') as store:
            assert await store.aput(KEY, b'1', meta=b'm', depth=3) is True and await store.aput(KEY, b'2') is False
            assert await store.ahas_many([KEY, 'other']) == [True, False] and store.meta(KEY) == b'm'
            assert await store.aget_many([KEY, 'other']) == [b'1', None]
            assert await store.aremove_many([KEY, 'other']) == [True, False]
            with pytest.raises(ValueError):
                await store.aput('', b'1')
        assert store.closed
        with pytest.raises(kvkeep.ClosedError):
            await store.aget(KEY)

    asyncio.run(scope())


async def many_again(store):
    assert await store.aget('k7') == b'k7'


def test_asyncio_in_several_threads(store):
    wrong = []

    def run(number):
        async def work():
            for index in range(50):
                key = f'{number}/{index}'
                await store.aput(key, key.encode())
                if await store.aget(key) != key.encode():
                    wrong.append(key)
        asyncio.run(work())

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_asyncio_cancel_and_close(folder):
    store = kvkeep.open(folder + '/s', fault=HANG)
    store.put(KEY, bytes(100000))

    async def cancel():
        task = asyncio.create_task(store.aget_into(KEY, bytearray(100000)))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        waiting = asyncio.create_task(store.aget_into(KEY, bytearray(100000)))
        await asyncio.sleep(0.1)
        store.close()
        with pytest.raises((kvkeep.ClosedError, kvkeep.DegradedError, kvkeep.DeadlineError)):
            await waiting

    asyncio.run(asyncio.wait_for(cancel(), 20))


@pytest.mark.parametrize('gives_up', [False, True])
def test_a_buffer_is_given_back_once_nothing_writes_to_it(folder, gives_up):
    """close() from another thread, while a get of asyncio is under way; whoever waits may cancel it meanwhile."""
    slow = [{'do': 'delay', 'ops': ['read'], 'nth': 1, 'every': 1, 'delay_ms': 2000}]
    store = kvkeep.open(folder + '/s', fault=slow)
    store.put_many([KEY, 'other'], [bytes(70000)] * 2)
    room, marked, ended, under_way = bytearray(70000), b'.' * 70000, [], threading.Event()

    async def load():
        task = asyncio.create_task(store.aget_into(KEY, room))
        await asyncio.sleep(0)
        under_way.set()
        while not store.closed:
            await asyncio.sleep(0.01)
        while gives_up and not task.done():
            task.cancel()
            await asyncio.sleep(0.01)
        try:
            ended.append(await task)
        except (kvkeep.ClosedError, asyncio.CancelledError) as error:
            ended.append(type(error))
        room[:] = marked
        await asyncio.sleep(2.5)

    thread = threading.Thread(target=lambda: asyncio.run(load()), daemon=True)
    other = threading.Thread(target=lambda: store.get_into('other', bytearray(70000)), daemon=True)
    thread.start()
    assert under_way.wait(20)
    other.start()
    time.sleep(0.1)
    store.close()
    thread.join()
    other.join()
    assert ended == [asyncio.CancelledError if gives_up else kvkeep.ClosedError]
    assert room == marked, 'written to after it was given back'
