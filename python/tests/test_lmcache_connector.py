# SPDX-License-Identifier: Apache-2.0
"""
kvkeep.lmcache.Connector, driven as LMCache's native plug-in host does: a thread polls the one descriptor and drains,
submitting happens with the lock held that draining takes.
"""

import os
import select
import threading
import time

import pytest
from conftest import at_best, eventually, payload

from kvkeep.lmcache import Connector


class Host:
    def __init__(self, connector):
        self.connector = connector
        self.fd = connector.event_fd()
        self.lock = threading.Lock()
        self.came = threading.Condition(self.lock)
        self.pending = {}
        self.done = {}
        self.unknown = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.demux)
        self.thread.start()

    def demux(self):
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        while not self.stop.is_set():
            if not poll.poll(500):
                continue
            for future, ok, error, bools in self.connector.drain_completions():
                with self.lock:
                    if future in self.pending:
                        self.done[self.pending.pop(future)] = (ok, error, bools)
                    else:
                        self.unknown.append(future)
                    self.came.notify_all()

    def submit(self, name, what, *args):
        with self.lock:
            future = getattr(self.connector, 'submit_batch_' + what)(*args)
            assert future not in self.pending
            self.pending[future] = name

    def wait(self, *names):
        with self.lock:
            assert self.came.wait_for(lambda: all(name in self.done for name in names), 30), self.pending
            return [self.done.pop(name) for name in names]

    def do(self, what, *args):
        self.submit('do', what, *args)
        return self.wait('do')[0]

    def close(self):
        self.stop.set()
        self.thread.join()
        self.connector.close()


@pytest.fixture
def host(folder):
    host = Host(Connector(file_path=folder + '/s', memory_mb=32, lanes=2))
    yield host
    host.close()
    assert host.unknown == []


def texts(count, start=0):
    return [f'org/model@01000100@0@{index:064x}@tenant' for index in range(start, start + count)]


def test_round_trip(host):
    keys, sizes = texts(20), [64 + 4099 * index for index in range(20)]
    data = [payload(key, size) for key, size in zip(keys, sizes)]
    assert host.do('exists', keys) == (True, '', [False] * 20)
    assert host.do('set', keys, [memoryview(bytearray(piece)) for piece in data]) == (True, '', None)
    assert host.do('exists', keys + texts(1, 99)) == (True, '', [True] * 20 + [False])
    rooms = [bytearray(size) for size in sizes]
    assert host.do('get', keys, [memoryview(room) for room in rooms]) == (True, '', [True] * 20)
    assert rooms == data
    assert host.do('delete', keys[:5]) == (True, '', [True] * 5)
    assert host.do('exists', keys) == (True, '', [False] * 5 + [True] * 15)
    ok, error, bools = host.do('get', keys, [memoryview(room) for room in rooms])
    assert not ok and 'absent' in error and bools == [False] * 5 + [True] * 15


def test_what_is_gone_counts_as_deleted(host):
    """Else the host, which counts only what it stored, counts what the store evicted by itself for ever."""
    assert host.do('delete', texts(3)) == (True, '', [True] * 3)


def test_another_length_is_a_miss(host):
    host.do('set', texts(1), [memoryview(bytearray(b'x' * 1000))])
    for size in (999, 1001):
        assert host.do('get', texts(1), [memoryview(bytearray(size))])[2] == [False]
    assert host.do('get', texts(1), [memoryview(bytearray(1000))])[2] == [True]


def test_storing_again_is_fine(host):
    for _ in range(2):
        assert host.do('set', texts(3), [memoryview(bytearray(b'123'))] * 3) == (True, '', None)


def test_long_and_odd_keys(host):
    keys = ['m' * 300 + '@00000000@0@' + 'ab' * 100, 'org/model@00000000@0@aa@salt@{"lora": "x"}', 'a/../b@?', 'ü@0']
    assert host.do('set', keys, [memoryview(bytearray(key.encode())) for key in keys])[0]
    rooms = [bytearray(len(key.encode())) for key in keys]
    assert host.do('get', keys, [memoryview(room) for room in rooms])[2] == [True] * 4
    assert rooms == [key.encode() for key in keys]


@pytest.mark.parametrize('what, args, per_key', [
    ('set', (['x' * 2000], [memoryview(bytearray(1))]), False),
    ('set', ([b'k', 7], [memoryview(bytearray(1))] * 2), False),
    ('set', (['k'], []), False),
    ('get', (['k', ''], [memoryview(bytearray(1))] * 2), True),
    ('get', (['k'], [memoryview(b'read-only')]), True),
    ('get', (['k'], [None]), True),
    ('exists', (['\ud800'],), True),
    ('delete', (['x' * 2000, 'y'],), True),
])
def test_what_cannot_be_taken_is_a_request_that_fails(host, what, args, per_key):
    ok, error, bools = host.do(what, *args)
    assert not ok and error and bools == ([False] * len(args[0]) if per_key else None)


def test_empty_batches(host):
    assert host.do('set', [], []) == (True, '', None)
    assert host.do('exists', []) == (True, '', [])


def test_too_much_at_once_is_a_request_that_fails(folder):
    slow = [{'do': 'delay', 'ops': ['publish'], 'nth': 1, 'every': 1, 'delay_ms': 200}]
    host = Host(Connector(file_path=folder + '/s', max_items=64, fault=slow))
    for index in range(10):
        host.submit(index, 'set', texts(32, index * 32), [memoryview(bytearray(10))] * 32)
    done = host.wait(*range(10))
    host.close()
    assert 2 <= sum(ok for ok, _, _ in done) < 10 and all(ok or error for ok, error, _ in done)


def test_five_hundred_tasks_at_once(host):
    """From four threads, of every kind; each completes exactly once, and every byte is right."""
    def run(number):
        for index in range(125):
            keys = texts(4, (number * 125 + index) * 4)
            host.submit((number, index, 'set'), 'set', keys, [memoryview(bytearray(payload(key, 5000)))
                                                              for key in keys])
            host.submit((number, index, 'exists'), 'exists', keys)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    every = [(number, index) for number in range(4) for index in range(125)]
    assert all(ok for ok, _, _ in host.wait(*[(*one, 'set') for one in every]))
    host.wait(*[(*one, 'exists') for one in every])
    rooms = {}
    for number, index in every:
        rooms[number, index] = [bytearray(5000) for _ in range(4)]
        host.submit((number, index, 'get'), 'get', texts(4, (number * 125 + index) * 4),
                    [memoryview(room) for room in rooms[number, index]])
    for one, (ok, _, bools) in zip(every, host.wait(*[(*one, 'get') for one in every])):
        assert ok and bools == [True] * 4
        start = (one[0] * 125 + one[1]) * 4
        assert rooms[one] == [payload(key, 5000) for key in texts(4, start)]
    assert host.pending == {} and host.done == {}


def test_the_descriptor_clears(host):
    host.do('set', texts(1), [memoryview(bytearray(1))])
    host.do('set', ['x' * 2000], [memoryview(bytearray(1))])
    poll = select.poll()
    poll.register(host.fd, select.POLLIN)
    assert eventually(lambda: not poll.poll(0)), 'the descriptor stays readable'


def test_close_in_mid_flight(folder):
    """No completion and no byte after close() returned; closing twice is fine."""
    hang = [{'do': 'hang', 'ops': ['read'], 'nth': 1, 'every': 1}]
    connector = Connector(file_path=folder + '/s', fault=hang)
    host = Host(connector)
    keys = texts(50)
    assert host.do('set', keys, [memoryview(bytearray(payload(key, 10000))) for key in keys])[0]
    rooms = [bytearray(b'.' * 10000) for _ in keys]
    for index, key in enumerate(keys):
        host.submit(index, 'get', [key], [memoryview(rooms[index])])
    time.sleep(0.2)
    began = time.monotonic()
    host.close()
    assert time.monotonic() - began < 15
    before = [bytes(room) for room in rooms]
    connector.close()
    assert connector.drain_completions() == []
    time.sleep(0.2)
    assert [bytes(room) for room in rooms] == before
    for room in rooms:
        room.append(1)                 # nobody holds it any more
    assert connector.submit_batch_get(keys[:1], [memoryview(bytearray(1))]) < 0
    assert connector.drain_completions() == []


def test_submitting_never_waits(folder):
    """The host holds its lock meanwhile: what waits here stops all its threads."""
    hang = [{'do': 'hang', 'nth': 1, 'every': 1}]
    Connector(file_path=folder + '/s').close()
    host = Host(Connector(file_path=folder + '/s', deadline_ms=500,
                          fault=[{**hang[0], 'ops': ['create', 'publish', 'open', 'read', 'unlink', 'stat_name']}]))

    def longest():
        keys, took = texts(100), []
        for what in ('set', 'exists', 'get', 'delete'):
            buffers = [[memoryview(bytearray(10000)) for _ in keys]] if what in ('set', 'get') else []
            began = time.monotonic()
            host.submit(what, what, keys, *buffers)
            took.append(time.monotonic() - began)
        done = host.wait('set', 'exists', 'get', 'delete')
        assert not done[0][0] and done[2][2] == [False] * 100
        return max(took)

    assert at_best(longest, 0.25) < 0.25
    host.close()


def test_close_while_others_submit_and_drain(folder):
    """No call raises, no answer comes twice, and none after close() returned; no descriptor is used once closed."""
    for turn in range(8):
        connector = Connector(file_path=folder + '/s', memory_mb=16, lanes=1)
        closed, stop, wrong, seen = threading.Event(), threading.Event(), [], []

        def submit(number):
            index = 0
            while not stop.is_set():
                index += 1
                try:
                    keys = texts(4, number * 100000 + index * 4) if index % 3 else ['x' * 2000]
                    connector.submit_batch_set(keys, [memoryview(bytearray(100))] * len(keys))
                    connector.submit_batch_exists(keys)
                except Exception as error:
                    wrong.append(repr(error))

        def drain():
            while not stop.is_set():
                late = closed.is_set()
                try:
                    done = connector.drain_completions()
                except Exception as error:
                    wrong.append(repr(error))
                    continue
                seen.extend(future for future, *_ in done)
                if late and done:
                    wrong.append('an answer after close()')

        threads = [threading.Thread(target=submit, args=(number,)) for number in range(2)]
        threads += [threading.Thread(target=drain) for _ in range(2)]
        for thread in threads:
            thread.start()
        time.sleep(0.02 + 0.005 * turn)
        closers = [threading.Thread(target=connector.close) for _ in range(2)]
        for thread in closers:
            thread.start()
        for thread in closers:
            thread.join()
        closed.set()
        time.sleep(0.01)
        stop.set()
        for thread in threads:
            thread.join()
        assert wrong == [] and len(seen) == len(set(seen))


def test_descriptors_are_given_back(folder):
    Connector(file_path=folder + '/s').close()
    before = len(os.listdir('/proc/self/fd'))
    for _ in range(5):
        Connector(file_path=folder + '/s').close()
    assert len(os.listdir('/proc/self/fd')) == before


def test_a_restart_finds_everything(folder):
    for turn in range(2):
        host = Host(Connector(backend='POSIX', backend_params={'file_path': folder + '/s', 'use_direct_io': 'false'}))
        if turn == 0:
            assert host.do('set', texts(10), [memoryview(bytearray(key.encode())) for key in texts(10)])[0]
        else:
            rooms = [bytearray(len(key)) for key in texts(10)]
            assert host.do('get', texts(10), [memoryview(room) for room in rooms])[2] == [True] * 10
            assert rooms == [key.encode() for key in texts(10)]
        host.close()


def test_another_revision_of_the_weights_is_a_miss(folder):
    for weights, there in (('a', True), ('b', False)):
        host = Host(Connector(file_path=folder + '/s', namespace={'weights': weights}))
        if there:
            host.do('set', texts(1), [memoryview(bytearray(b'1'))])
        assert host.do('exists', texts(1))[2] == [there]
        host.close()


def test_a_bad_option_is_named(folder):
    with pytest.raises(ValueError, match='lames'):
        Connector(file_path=folder + '/s', lames=4)
