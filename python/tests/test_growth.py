# SPDX-License-Identifier: Apache-2.0
"""Memory, descriptors and threads stay what they are, however many operations there were."""

import subprocess
import sys

import pytest

GROWTH = """
import asyncio, gc, kvkeep, os, select, sys
from kvkeep import _kvkeep
from kvkeep.lmcache import Connector

def seen():
    gc.collect()
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * 4096, len(os.listdir('/proc/self/fd')), len(os.listdir('/proc/self/task'))

def by_store():
    store.put_many(keys, [data] * len(keys))
    store.has_many(keys)
    store.get_into_many(keys, room)
    store.get_many(keys)
    store.remove_many(keys)

def by_one():
    for key in keys[:200]:
        store.put(key, data)
        store.has(key)
        store.get_into(key, room[0])
        store.get(key)
        store.remove(key)

def by_host():
    views = [memoryview(buffer) for buffer in room]
    for call, *args in (('set', keys, views), ('exists', keys), ('get', keys, views), ('get', keys, views),
                        ('delete', keys)):
        task = getattr(connector, 'submit_batch_' + call)(*args)
        done = []
        while not done:
            poll.poll(1000)
            done = connector.drain_completions()
        assert done[0][:2] == (task, True), done

async def by_loop():
    part = keys[:200]
    await store.aput_many(part, [data] * len(part))
    await asyncio.gather(*[store.ahas(key) for key in part])
    await store.aget_into_many(part, room[:200])
    await store.aget_many(part)
    await store.aremove_many(part)

keys = [f'm@00000000@0@{index:08x}' for index in range(2000)]
data, room = bytearray(64), [bytearray(64) for _ in keys]
how, operations = sys.argv[1], int(sys.argv[2])
if how == 'host':
    connector = Connector(backend='RAM', memory_mb=32, lanes=1)
    poll = select.poll()
    poll.register(connector.event_fd(), select.POLLIN)
else:
    store = kvkeep.open({'backend': 'RAM'}, memory_mb=32, lanes=1)
turn = {'store': by_store, 'one': by_one, 'host': by_host, 'loop': lambda: asyncio.run(by_loop())}[how]
turns = operations // (10000 if how in ('store', 'host') else 1000)
for _ in range(turns // 10):
    turn()
before = seen()
for _ in range(turns):
    turn()
after = seen()
print(*[now - then for now, then in zip(after, before)])
"""


@pytest.mark.parametrize('how, operations', [('store', 1_000_000), ('host', 1_000_000), ('one', 50_000), ('loop', 100_000)])
def test_nothing_grows(how, operations):
    """In a process of their own. A lost object of 16 bytes an operation would be 16 MB of a million, 0.8 MB of 50,000."""
    done = subprocess.run([sys.executable, '-c', GROWTH, how, str(operations)], capture_output=True, text=True, timeout=300)
    assert done.stderr == ''
    grown, descriptors, threads = map(int, done.stdout.split())
    assert (descriptors, threads) == (0, 0)
    assert grown < max(operations * 4, 600_000)
