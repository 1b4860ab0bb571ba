# SPDX-License-Identifier: Apache-2.0
"""kvkeep.lmcache.Adapter, driven as LMCache's controllers do: their own threads poll and read the three descriptors."""

import os
import select
import threading
import time
from types import SimpleNamespace

import pytest
from conftest import eventually, payload

from kvkeep.lmcache import Adapter
from lmcache.v1.distributed.api import ObjectKey


class Memory:
    """A memory object: a view of a pool, and what is known about its layout."""

    def __init__(self, data, dtype='torch.bfloat16'):
        self.data = bytearray(data)
        self.metadata = SimpleNamespace(shape=(2, len(self.data) // 4), dtype=dtype, shapes=None, dtypes=None,
                                        fmt='KV_2LTD')

    @property
    def byte_array(self):
        return memoryview(self.data)


class Listener:
    """Keeps an order as LMCache's policies do: of keys told in one call the last are to be evicted first."""

    def __init__(self):
        self.stored, self.accessed, self.deleted, self.order = [], [], [], []

    def on_l2_keys_stored(self, keys, sizes):
        self.stored += zip(keys, sizes, strict=True)
        self.use(keys)

    def on_l2_keys_accessed(self, keys):
        self.accessed += keys
        self.use(keys)

    def on_l2_keys_deleted(self, keys):
        self.deleted += keys
        self.order = [key for key in self.order if key not in keys]

    def use(self, keys):
        self.order = [key for key in self.order if key not in keys] + list(reversed(keys))


def keys(count, start=0, salt=''):
    return [ObjectKey(index.to_bytes(8, 'big'), 'org/model', 0x01000100, 0, salt) for index in range(start, start + count)]


def wait_for(fd, seconds=20):
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(seconds * 1000), 'nothing was signalled'
    os.eventfd_read(fd)


def store(adapter, names, memory):
    task = adapter.submit_store_task(names, memory)
    wait_for(adapter.get_store_event_fd())
    return adapter.pop_completed_store_tasks()[task]


def lookup(adapter, names):
    task = adapter.submit_lookup_and_lock_task(names, {})
    wait_for(adapter.get_lookup_and_lock_event_fd())
    bitmap = adapter.query_lookup_and_lock_result(task)
    assert adapter.query_lookup_and_lock_result(task) is None
    return [bitmap.test(index) for index in range(len(names))]


def load(adapter, names, memory):
    task = adapter.submit_load_task(names, memory)
    wait_for(adapter.get_load_event_fd())
    bitmap = adapter.query_load_result(task)
    assert adapter.query_load_result(task) is None
    return [bitmap.test(index) for index in range(len(names))]


def until(condition):
    assert eventually(condition), 'it did not come'


@pytest.fixture
def adapter(folder):
    adapter = Adapter({'file_path': folder + '/s', 'max_capacity_gb': 1, 'memory_mb': 32}, l1_memory_desc=None, more=1)
    yield adapter
    adapter.close()


def test_round_trip(adapter):
    fds = {adapter.get_store_event_fd(), adapter.get_lookup_and_lock_event_fd(), adapter.get_load_event_fd()}
    assert len(fds) == 3
    data = [payload(index, 4000 + 4 * index) for index in range(10)]
    result = store(adapter, keys(10), [Memory(piece) for piece in data])
    assert result.is_successful() and result.bytes_transferred() == sum(map(len, data))
    assert store(adapter, keys(10), [Memory(piece) for piece in data]).bytes_transferred() == 0
    assert lookup(adapter, keys(12)) == [True] * 10 + [False] * 2
    rooms = [Memory(bytes(len(piece))) for piece in data]
    assert load(adapter, keys(10), rooms) == [True] * 10
    assert [bytes(room.data) for room in rooms] == data
    adapter.submit_unlock(keys(12))


def test_delete_skips_what_is_locked(adapter):
    store(adapter, keys(4), [Memory(b'1234')] * 4)
    lookup(adapter, keys(2))
    lookup(adapter, keys(1))
    adapter.delete(keys(4))
    assert lookup(adapter, keys(4)) == [True, True, False, False]
    adapter.submit_unlock(keys(2))
    adapter.submit_unlock(keys(2))
    until(lambda: adapter._core.usage()['pinned_objects'] == 1)
    adapter.delete(keys(2))
    assert lookup(adapter, keys(2)) == [True, False]
    adapter.submit_unlock(keys(1))
    adapter.submit_unlock(keys(1))
    until(lambda: adapter._core.usage()['pinned_objects'] == 0)
    adapter.delete(keys(1))
    assert lookup(adapter, keys(4)) == [False] * 4


def test_unlocking_what_is_not_locked_is_fine(adapter):
    adapter.submit_unlock(keys(3))
    adapter.submit_unlock([])


LONG = ObjectKey(b'x' * 600, 'm', 0)


def test_a_key_that_cannot_be_stored_spoils_no_others(adapter):
    """What raises in delete() ends the host's thread that evicts; what fails in submit_unlock() stays locked."""
    store(adapter, keys(2), [Memory(b'1234')] * 2)
    lookup(adapter, keys(2))
    adapter.delete([keys(1)[0], LONG])
    adapter.submit_unlock([LONG, *keys(2)])
    until(lambda: adapter._core.usage()['pinned_objects'] == 0)
    adapter.delete([LONG, *keys(2)])
    assert lookup(adapter, keys(2)) == [False] * 2 and adapter._unlocks == []


def test_more_keys_than_a_batch_has(adapter):
    """The host evicts a share of all it knows with one call."""
    many = keys(70000, 100)
    store(adapter, [many[0], many[-1]], [Memory(b'1234')] * 2)
    adapter.submit_unlock(many)
    adapter.delete(many)
    assert lookup(adapter, [many[0], many[-1]]) == [False] * 2


def test_a_busy_store_deletes_later(folder):
    slow = [{'do': 'delay', 'ops': ['publish'], 'nth': 1, 'every': 1, 'delay_ms': 200}]
    adapter = Adapter({'file_path': folder + '/s', 'max_items': 64, 'fault': slow})
    store(adapter, keys(2), [Memory(b'1234')] * 2)
    lookup(adapter, keys(1))
    for index in range(2):
        adapter.submit_store_task(keys(32, 100 + 32 * index), [Memory(b'1234')] * 32)
    adapter.submit_unlock(keys(1))
    adapter.delete(keys(1, 1))
    until(lambda: adapter._core.usage()['pinned_objects'] == 0)
    assert lookup(adapter, keys(2)) == [True, False]
    adapter.close()


def test_a_listener_that_fails_keeps_no_answer_back(adapter):
    class Failing(Listener):
        def on_l2_keys_stored(self, keys, sizes):
            raise RuntimeError('not today')

    adapter.register_listener(Failing())
    for index in range(2):
        assert store(adapter, keys(1, index), [Memory(b'1234')]).is_successful()
    assert adapter.report_status()['is_healthy'] is True


def test_listeners_hear_each_key_once(adapter):
    listener = Listener()
    adapter.register_listener(listener)
    until(lambda: adapter.report_status()['recovered'])
    store(adapter, keys(3), [Memory(b'1234')] * 3)
    store(adapter, keys(3), [Memory(b'1234')] * 3)
    load(adapter, keys(2), [Memory(b'0000')] * 2)
    adapter.delete(keys(1))
    adapter.delete(keys(1))
    assert listener.stored == [(key, 4) for key in keys(3)]
    assert listener.accessed == keys(2) and listener.deleted == keys(1)
    # Somebody else removes: the store's own eviction, or what failed its proof.
    adapter._core.remove([adapter._core.list(None, None, None, 0, None, 1)[0][0]['key']], 0, False, 0, True)
    until(lambda: len(listener.deleted) == 2)
    assert adapter.get_usage().total_capacity_bytes == 1 << 30


def test_a_restart_recovers_usage_and_order(folder):
    listener = Listener()
    adapter = Adapter({'file_path': folder + '/s', 'max_capacity_gb': 1})
    for index in range(5):
        store(adapter, keys(1, index), [Memory(bytes(4000))])
    used = adapter.get_usage().total_bytes_used
    root = folder + '/s'
    names = {entry['key']: entry['name'] for entry in adapter._core.list(None, None, None, 0, None, 100)[0]}
    adapter.close()
    used_last = [3, 1, 4, 2, 0]
    for text, name in names.items():
        index = int(text.split(b'@')[3], 16)
        os.utime(f'{root}/{name}', ns=(time.time_ns() + 10**9 * (10 + used_last.index(index)), time.time_ns()))
    adapter = Adapter({'file_path': folder + '/s', 'max_capacity_gb': 1})
    adapter.register_listener(listener)
    until(lambda: adapter.report_status()['recovered'])
    assert listener.order == [keys(1, index)[0] for index in used_last]
    assert [size for _, size in listener.stored] == [4000] * 5
    assert 20000 <= adapter.get_usage().total_bytes_used <= used
    load(adapter, keys(1, 4), [Memory(bytes(4000))])
    store(adapter, keys(2, 10), [Memory(bytes(4000))] * 2)
    assert listener.order == [keys(1, index)[0] for index in (3, 1, 2, 0, 4, 11, 10)]
    late = Listener()
    adapter.register_listener(late)
    assert late.order == listener.order
    adapter.close()


def test_what_is_used_before_recovery_is_over_is_newest(folder):
    adapter = Adapter({'file_path': folder + '/s'})
    for index in range(4):
        store(adapter, keys(1, index), [Memory(bytes(4000))])
    adapter.close()
    slow = [{'do': 'delay', 'ops': ['stat_name', 'open', 'read'], 'nth': 1, 'every': 1, 'delay_ms': 30}]
    adapter = Adapter({'file_path': folder + '/s', 'fault': slow})
    listener = Listener()
    adapter.register_listener(listener)
    load(adapter, keys(1, 2), [Memory(bytes(4000))])
    load(adapter, keys(1, 0), [Memory(bytes(4000))])
    until(lambda: adapter.report_status()['recovered'])
    assert listener.order == [keys(1, index)[0] for index in (1, 3, 2, 0)]
    adapter.close()


def test_what_was_found_by_looking_is_told_too(folder):
    adapter = Adapter({'file_path': folder + '/s'})
    store(adapter, keys(2), [Memory(b'1234')] * 2)
    adapter.close()
    adapter = Adapter({'file_path': folder + '/s'})
    listener = Listener()
    adapter.register_listener(listener)
    assert lookup(adapter, keys(2)) == [True] * 2
    until(lambda: adapter.report_status()['recovered'])
    assert sorted(key.chunk_hash for key, _ in listener.stored) == [key.chunk_hash for key in keys(2)]
    adapter.close()


def test_another_dtype_or_shape_is_a_miss(adapter):
    store(adapter, keys(1), [Memory(b'12345678')])
    assert load(adapter, keys(1), [Memory(bytes(8), dtype='torch.float16')]) == [False]
    other = Memory(bytes(8))
    other.metadata.shape = (1, 4)
    assert load(adapter, keys(1), [other]) == [False]
    assert load(adapter, keys(1), [Memory(bytes(4))]) == [False]
    assert load(adapter, keys(1), [Memory(bytes(8))]) == [True]


def test_salts_and_grown_keys_keep_apart(adapter):
    plain, salted = keys(1)[0], keys(1, salt='tenant')[0]
    if 'lora' not in ObjectKey.__dataclass_fields__:
        pytest.skip('keys of this version have not grown')
    grown = ObjectKey(plain.chunk_hash, plain.model_name, plain.kv_rank, 0, '', lora='x')
    store(adapter, [salted], [Memory(b'1234')])
    assert lookup(adapter, [plain, salted, grown]) == [False, True, False]
    store(adapter, [grown], [Memory(b'1234')])
    assert lookup(adapter, [plain, salted, grown]) == [False, True, True]
    adapter.submit_unlock([salted, salted, grown])
    assert set(adapter.get_usage().bytes_by_cache_salt) >= {'tenant'}
    listed = adapter.list_l2_keys(page_size=10).entries
    assert {entry.key.to_object_key() for entry in listed} == {salted, grown}


def test_listing_pages(adapter):
    store(adapter, keys(25), [Memory(b'1234')] * 25)
    found, cursor = [], None
    while True:
        page = adapter.list_l2_keys('org/model', 10, cursor)
        found += [(entry.key.to_object_key(), entry.size_bytes) for entry in page.entries]
        cursor = page.next_page_token
        if cursor is None:
            break
    assert sorted(found, key=lambda pair: pair[0].chunk_hash) == [(key, 4) for key in keys(25)]
    assert adapter.list_l2_keys('other').entries == ()
    for bad in ({'page_size': 0}, {'cursor': 'nonsense'}):
        with pytest.raises(ValueError):
            adapter.list_l2_keys(**bad)


def test_after_close_submits_raise(adapter):
    adapter.close()
    adapter.close()
    for submit in (lambda: adapter.submit_store_task(keys(1), [Memory(b'1')]),
                   lambda: adapter.submit_lookup_and_lock_task(keys(1), {}),
                   lambda: adapter.submit_load_task(keys(1), [Memory(b'1')])):
        with pytest.raises(RuntimeError):
            submit()
    adapter.submit_unlock(keys(1))
    adapter.delete(keys(1))
    assert adapter.report_status()['is_healthy'] is False


def test_what_cannot_be_taken_is_a_task_that_fails(adapter):
    assert store(adapter, [LONG], [Memory(b'1234')]).is_successful() is False
    assert lookup(adapter, [LONG, *keys(1)]) == [False, False]
    assert load(adapter, [LONG], [Memory(b'1234')]) == [False]


def test_500_tasks_and_close_in_mid_flight(folder):
    adapter = Adapter({'file_path': folder + '/s', 'memory_mb': 32})
    done, lock = {}, threading.Lock()
    stop = threading.Event()

    def controller():
        poll = select.poll()
        poll.register(adapter.get_store_event_fd(), select.POLLIN)
        while not stop.is_set():
            for fd, _ in poll.poll(100):
                os.eventfd_read(fd)
                with lock:
                    popped = adapter.pop_completed_store_tasks()
                    assert not set(done) & set(popped)
                    done.update(popped)

    thread = threading.Thread(target=controller)
    thread.start()
    tasks = [adapter.submit_store_task(keys(2, 2 * index), [Memory(payload(index, 3000))] * 2) for index in range(500)]
    until(lambda: len(done) == 500)
    assert set(done) == set(tasks) and all(result.is_successful() for result in done.values())
    rooms = [Memory(bytes(3000)) for _ in range(1000)]
    for index in range(500):
        adapter.submit_load_task(keys(2, 2 * index), rooms[2 * index:2 * index + 2])
    stop.set()
    thread.join()
    adapter.close()
    after = [bytes(room.data) for room in rooms]
    time.sleep(0.2)
    assert [bytes(room.data) for room in rooms] == after


def test_memory_that_is_registered(folder):
    import mmap

    arena = mmap.mmap(-1, 1 << 20)
    import ctypes

    desc = SimpleNamespace(ptr=ctypes.addressof(ctypes.c_char.from_buffer(arena)), size=1 << 20, align_bytes=4096)
    adapter = Adapter({'file_path': folder + '/s', 'l1_direct': True}, l1_memory_desc=desc)
    arena[:8192] = payload('direct', 8192)
    source = SimpleNamespace(byte_array=memoryview(arena)[:8192], metadata=None)
    target = SimpleNamespace(byte_array=memoryview(arena)[8192:16384], metadata=None)
    assert store(adapter, keys(1), [source]).is_successful()
    assert load(adapter, keys(1), [target]) == [True]
    assert arena[8192:16384] == arena[:8192]
    adapter.close()
