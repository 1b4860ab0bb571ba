# SPDX-License-Identifier: Apache-2.0
"""The package as scripts use it."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref

import numpy
import pytest
from conftest import at_best, payload

import kvkeep
from kvkeep import _kvkeep
from kvkeep._core import open_core
from kvkeep._spec import with_options

KEY = 'llama@00000000@0@5f3a90c1'
HANG = [{'do': 'hang', 'ops': ['read'], 'nth': 1, 'every': 1}]


def test_what_was_put_comes_back(store):
    assert store.put(KEY, b'one') is True
    assert store.put(KEY, b'two') is False
    assert store.get(KEY) == b'one'
    assert store[KEY] == b'one' and KEY in store and list(store) == [KEY.encode()]
    assert store.remove(KEY) is True
    assert store.remove(KEY) is False
    assert store.get(KEY) is None and KEY not in store and list(store) == []
    with pytest.raises(KeyError):
        store[KEY]


@pytest.mark.parametrize('count', [1, 4095, 4096, 4097, 1 << 20, (5 << 20) + 17])
def test_sizes(store, count):
    data = payload(KEY, count)
    store[KEY] = data
    assert store[KEY] == data
    room = bytearray(count + 10)
    assert store.get_into(KEY, room) == count
    assert room[:count] == data and room[count:] == bytes(10)
    part = bytearray(min(count, 100))
    assert store.get_into(KEY, part, offset=count - len(part), length=len(part)) == len(part)
    assert part == data[count - len(part):]


def test_keys_are_text_or_bytes(store):
    odd = bytes(range(256)) * 4
    store.put(odd, b'1')
    store.put('ключ@00000000@0@00', b'2')
    assert store.get(odd) == b'1' and store.get('ключ@00000000@0@00'.encode()) == b'2'
    for bad in ['', b'', 'x' * 1025]:
        with pytest.raises(ValueError):
            store.put(bad, b'1')
    with pytest.raises(TypeError):
        store.put(5, b'1')


def test_batches_answer_per_key(store):
    keys = [f'k{index}' for index in range(300)]
    data = [payload(key, 100 + index) for index, key in enumerate(keys)]
    assert store.put_many(keys[:200], data[:200]) == [True] * 200
    assert store.put_many(keys, data) == [False] * 200 + [True] * 100
    assert store.remove_many(keys[::3]) == [True] * 100
    there = [index % 3 != 0 for index in range(300)]
    assert store.has_many(keys) == there
    assert store.get_many(keys) == [data[index] if there[index] else None for index in range(300)]
    rooms = [bytearray(500) for _ in keys]
    assert store.get_into_many(keys, rooms) == [100 + index if there[index] else None for index in range(300)]
    assert store.get_many([]) == [] and store.put_many([], []) == [] and store.has_many([]) == []
    with pytest.raises(ValueError):
        store.put_many(keys, data[1:])


def test_pieces_make_one_object(store):
    first, second = bytearray(5), memoryview(bytearray(4))
    store.put(KEY, [b'hello', memoryview(b' wor'), bytearray(b'ld')])
    assert store.get(KEY) == b'hello world'
    assert store.get_into(KEY, [first, second, bytearray(2)]) == 11
    assert first == b'hello' and bytes(second) == b' wor'


def test_a_buffer_that_is_too_short_says_so(store):
    store.put(KEY, b'0123456789')
    with pytest.raises(kvkeep.Error) as error:
        store.get_into(KEY, bytearray(5))
    assert error.value.reason == 'argument'


def test_read_only_buffers_are_refused(store):
    store.put(KEY, b'0123456789')
    for room in [b'0123456789', memoryview(b'0123456789')]:
        with pytest.raises(BufferError):
            store.get_into(KEY, room)


def test_metadata_parents_and_lists(store):
    store.put('a', b'1', meta=b'what the engine says', depth=1)
    store.put('b', b'22', parent='a', depth=2)
    assert store.meta('a') == b'what the engine says' and store.meta('b') == b'' and store.meta('c') is None
    entries = {entry.key: entry for entry in store.entries()}
    assert entries[b'b'].parent_digest == entries[b'a'].digest and entries[b'b'].depth == 2
    assert entries[b'a'].object_bytes == 1 and entries[b'a'].meta == b'what the engine says'
    assert [entry.key for entry in store.entries(prefix='b')] == [b'b']
    assert store.usage().objects == 2 and store.stats()['put_stored'] == 2 and store.status()['healthy'] is True
    assert store.verify('a') is True and store.verify('c') is False


def test_listing_pages_through_many(store):
    keys = [f'm@00000000@0@{index:04x}' for index in range(1000)]
    store.put_many(keys, [b'x'] * len(keys))
    assert sorted(store) == sorted(key.encode() for key in keys)
    assert store.shares('model')['m'][1] == 1000


def test_pins_keep_objects(store):
    store.put(KEY, b'1')
    assert store.pin_many([KEY, 'other']) == [True, False]
    with pytest.raises(kvkeep.PinnedError):
        store.remove(KEY)
    store.unpin_many([KEY, 'other'])
    assert store.remove(KEY) is True


def test_numpy_without_a_copy(store):
    numpy = pytest.importorskip('numpy')
    array = numpy.arange(5000, dtype=numpy.float16).reshape(50, 100)
    store.put(KEY, array)
    back = numpy.zeros_like(array)
    before = store.stats()['copied_bytes']
    assert store.get_into(KEY, back) == array.nbytes
    assert (back == array).all() and store.stats()['copied_bytes'] - before <= 2 * array.nbytes + 8192
    with pytest.raises(ValueError, match='contiguous'):
        store.put('x', array[:, ::2])
    back.setflags(write=False)
    with pytest.raises(ValueError, match='read-only'):
        store.get_into(KEY, back)


class Tensor:
    """As much of a torch tensor as is asked for; tests/test_torch.py has the real one, where torch is there."""

    class Device:
        type = 'cpu'

    def __init__(self, data):
        self.data, self.device = data, Tensor.Device()

    def data_ptr(self):
        import ctypes
        return ctypes.addressof(ctypes.c_char.from_buffer(self.data))

    def is_contiguous(self):
        return True

    def numel(self):
        return len(self.data) // 2

    def element_size(self):
        return 2


def test_tensors_by_address(store):
    store.put(KEY, Tensor(bytearray(b'abcdef')))
    back = Tensor(bytearray(6))
    assert store.get_into(KEY, back) == 6 and back.data == b'abcdef'
    back.device.type = 'cuda'
    with pytest.raises(TypeError, match='CPU'):
        store.get_into(KEY, back)


class Borrowed:
    """What speaks DLPack and nothing else, and makes what it hands out when it is asked."""

    def __init__(self, array):
        self.array, self.given = array, []

    def __dlpack__(self, **how):
        import weakref

        view = self.array[:]
        self.given.append(weakref.ref(view))
        return view.__dlpack__(**how)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_dlpack_is_held_until_the_answer(folder):
    numpy = pytest.importorskip('numpy')
    slow = [{'do': 'delay', 'ops': ['read', 'publish'], 'nth': 1, 'every': 1, 'delay_ms': 2000}]
    source, target = Borrowed(numpy.arange(1000.0)), Borrowed(numpy.zeros(1000))
    with kvkeep.open(folder + '/s', fault=slow) as store:
        for submit, borrowed in ((lambda: store.aput(KEY, source), source),
                                 (lambda: store.aget_into(KEY, target), target)):
            async def work():
                task = asyncio.create_task(submit())
                await asyncio.sleep(0.1)
                gc.collect()
                assert borrowed.given[0]() is not None, 'given back while it is in use'
                return await task

            assert asyncio.run(work())
            gc.collect()
            assert borrowed.given[0]() is None, 'never given back'
    assert (source.array == target.array).all()


def test_errors_have_the_librarys_words(folder):
    with pytest.raises(kvkeep.SpecError) as error:
        kvkeep.open(folder + '/s', durability='perhaps')
    assert error.value.option == 'durability' and '"none", "batch" or "object"' in str(error.value)
    with pytest.raises(kvkeep.SpecError) as error:
        kvkeep.open({'backend_params': {'file_path': folder, 'max_capacity_gb': '-3'}})
    assert error.value.option == 'backend_params.max_capacity_gb'
    with pytest.raises(kvkeep.SpecError):
        kvkeep.open('{"backend_params": ')
    with pytest.raises(kvkeep.Error) as error:
        kvkeep.open(folder + '/none', create=False)
    assert error.value.code == 2


def test_specifications(folder):
    for where in [folder + '/a', {'backend_params': {'file_path': folder + '/a'}},
                  '{"type": "nixl_store_dynamic", "backend": "POSIX", "backend_params": '
                  '{"file_path": "%s/a", "use_direct_io": "false", "max_capacity_gb": "50"}, '
                  '"persist_enabled": true}' % folder]:
        with kvkeep.open(where) as store:
            store.put(KEY, b'1')
            assert store.get(KEY) == b'1'
    with open(folder + '/spec', 'w') as file:
        file.write('{"backend_params": {"file_path": "%s/a"}}' % folder)
    with kvkeep.open('@' + folder + '/spec') as store:
        assert store.get(KEY) == b'1'


def test_namespaces_keep_apart(folder):
    with kvkeep.open(folder + '/s', namespace={'dtype': 'bf16'}) as store:
        store.put(KEY, b'bf16')
        assert store.namespace() == {'dtype': 'bf16'}
    with kvkeep.open(folder + '/s', namespace={'dtype': 'fp8'}) as store:
        assert store.get(KEY) is None
        assert len(store.namespaces()) == 2


def test_no_room(folder):
    with kvkeep.open(folder + '/s', max_capacity_gb=0.001) as store:
        with pytest.raises(kvkeep.NoRoomError):
            store.put(KEY, bytes(2 << 20))


def test_damage_is_a_miss(folder):
    with kvkeep.open(folder + '/s') as store:
        store.put(KEY, payload(KEY, 100000))
        name = next(store.entries()).name
        with open(f'{folder}/s/{name}', 'r+b') as file:
            file.seek(5000)
            file.write(b'\0')
        room = bytearray(100000)
        assert store.get_into(KEY, room) is None
        assert room.count(0xdb) == len(room)


def test_close_ends_everything(folder):
    store = kvkeep.open(folder + '/s')
    store.close()
    store.close()
    assert store.closed
    for call in [lambda: store.get(KEY), lambda: store.put(KEY, b'1'), lambda: store.usage(), lambda: list(store)]:
        with pytest.raises(kvkeep.ClosedError):
            call()


def test_the_last_reference_closes(folder):
    before = len(os.listdir('/proc/self/fd'))
    for _ in range(3):
        kvkeep.open(folder + '/s')
    gc.collect()
    assert len(os.listdir('/proc/self/fd')) == before


WAITING = {
    'put': lambda store: store.put('new', bytes(100000)),
    'get': lambda store: store.get(KEY),
    'get_into': lambda store: store.get_into(KEY, bytearray(100000)),
    'has': lambda store: store.has('never heard of'),
    'meta': lambda store: store.meta('never heard of'),
    'pin': lambda store: store.pin_many(['never heard of']),
    'verify': lambda store: store.verify(KEY),
    'entries': lambda store: list(store.entries()),
    'remove': lambda store: store.remove('new'),
    'wait': lambda store: store._core.wait(_kvkeep.QUEUE_GET, 300_000),
    'notices': lambda store: store._core.notices(300_000),
    'close': lambda store: (store._core.get([KEY], [bytearray(100000)], 0, 0, 0, False, 0, False), store.close()),
}


def longest_pause(call):
    """How long another thread could not run while call() did, and how long that took."""
    ticks, done = [time.monotonic()], threading.Event()

    def tick():
        while not done.is_set():
            ticks.append(time.monotonic())
            time.sleep(0.002)

    thread = threading.Thread(target=tick)
    thread.start()
    while len(ticks) < 3:
        time.sleep(0.001)
    began = time.monotonic()
    call()
    took = time.monotonic() - began
    done.set()
    thread.join()
    ticks.append(time.monotonic())
    return max(after - before for before, after in zip(ticks, ticks[1:])), took


def test_waiting_lets_other_threads_run(folder):
    """On a medium that takes 300 ms for everything, no call keeps another thread from running for half of its time."""
    with kvkeep.open(folder + '/s') as store:
        store.put(KEY, bytes(100000))
    slow = [{'do': 'delay', 'nth': 1, 'every': 1, 'delay_ms': 300}]
    left = dict(WAITING)

    def keep_others_waiting():
        """How many calls did it in each round so far: on a busy machine others wait for a processor, too."""
        with kvkeep.open(folder + '/s') as store:
            store.remove('new')
        store = kvkeep.open(folder + '/s', fault=slow, deadline_ms=60000)
        seen = {what: longest_pause(lambda: call(store)) for what, call in WAITING.items()}
        assert [what for what, (_, took) in seen.items() if took < 0.25] == [], 'did not wait'
        for what, (pause, took) in seen.items():
            if pause <= took / 2:
                left.pop(what, None)
        return len(left)

    assert at_best(keep_others_waiting, 1) == 0, left.keys()


@pytest.mark.parametrize('new_bytes', [10, 300])
def test_what_another_process_replaced_comes_whole(folder, new_bytes):
    """By one of another length: the lookup answers with what this process knew."""
    def get(store, key):
        return store.get(key)

    def aget(store, key):
        return asyncio.run(store.aget(key))

    with kvkeep.open(folder + '/s') as store, kvkeep.open(folder + '/s') as other:
        for call in (get, aget):
            store.put_many(['kept', KEY], [b'kept', b'A' * 100])
            assert other.remove(KEY) and other.put(KEY, b'B' * new_bytes)
            assert call(store, KEY) == b'B' * new_bytes
            assert call(store, 'kept') == b'kept' and store.remove(KEY)


def test_close_waits_for_calls_of_other_threads(folder):
    slow = [{'do': 'delay', 'ops': ['read'], 'nth': 1, 'every': 1, 'delay_ms': 300}]
    got = []

    def get(store):
        try:
            got.append(store.get(KEY))
        except kvkeep.ClosedError:
            got.append(None)

    # On a busy machine it may be closed before the call begins: then there is nothing to wait for, and it gets more time.
    for head_start in (0.1, 0.2, 0.4, 0.8, 1.6):
        store = kvkeep.open(folder + '/s', fault=slow)
        store.put(KEY, bytes(100000))
        thread = threading.Thread(target=get, args=(store,))
        thread.start()
        time.sleep(head_start)
        store.close()
        thread.join()
        if got[-1] is not None:
            break
    assert got[-1] == bytes(100000)


def test_every_close_waits_for_the_end(folder):
    slow = [{'do': 'delay', 'ops': ['read'], 'nth': 1, 'every': 1, 'delay_ms': 3000}]
    store = kvkeep.open(folder + '/s', fault=slow)
    store.put(KEY, bytes(100000))
    room = bytearray(100000)
    store._core.get([KEY], [room], 0, 0, 0, False, 0, False)
    first = threading.Thread(target=store.close)
    first.start()
    while not store.closed:
        time.sleep(0.001)
    time.sleep(0.05)
    assert first.is_alive(), 'did not have to wait'
    store._core.close()
    first.join(1.5)
    assert not first.is_alive(), 'returned before the first'


def test_a_deadline_is_an_exception(folder):
    with kvkeep.open(folder + '/s', fault=HANG) as store:
        store.put(KEY, bytes(100000))
        began = time.monotonic()
        with pytest.raises((kvkeep.DeadlineError, kvkeep.DegradedError)):
            store.get(KEY, timeout=0.3)
        assert time.monotonic() - began < 3


def test_a_child_of_fork_is_told(store):
    store.put(KEY, b'1')
    pid = os.fork()
    if pid == 0:
        try:
            store.get(KEY)
            os._exit(1)
        except kvkeep.ForkError:
            store.close()
            os._exit(0)
        except BaseException:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    assert store.get(KEY) == b'1'


def test_events_and_log_lines(folder, caplog):
    heard = []
    came = threading.Condition()

    def listener(what, keys):
        with came:
            heard.extend((what, key) for key in keys)
            came.notify()

    with caplog.at_level('DEBUG', 'kvkeep'), kvkeep.open(folder + '/s', on_event=listener) as store:
        store.put_many(['a', 'b'], [b'1', b'2'])
        store.get('a')
        store.remove('b')
        want = {('stored', b'a'), ('stored', b'b'), ('accessed', b'a'), ('deleted', b'b')}
        with came:
            assert came.wait_for(lambda: set(heard) == want, 5)


def test_only_wanted_events_are_heard(folder):
    heard = []
    came = threading.Event()

    def listener(what, keys):
        heard.append((what, keys))
        came.set()

    spec = with_options(folder + '/s', {})
    core = open_core(spec, listener, _kvkeep.EVENT_DELETED)
    try:
        room = bytearray(1)
        core.put(['a'], [b'1'], None, None, None, 0, 0, True)
        core.get(['a'], [room], 0, 0, 0, False, 0, True)
        core.remove(['a'], 0, False, 0, True)
        assert came.wait(20)
    finally:
        core.close()
    assert room == b'1' and heard == [('deleted', [b'a'])]


def test_close_with_much_under_way_frees_it(folder):
    store = kvkeep.open(folder + '/s', fault=HANG)
    store.put_many([f'k{index}' for index in range(50)], [bytes(10000)] * 50)
    rooms = [bytearray(10000) for _ in range(50)]
    for index in range(50):
        store._core.get([f'k{index}'], [rooms[index]], 0, 0, 0, False, 0, False)
    with pytest.raises(BufferError):
        rooms[0].extend(b'pinned while it is under way')
    store.close()
    for room in rooms:
        room.extend(b'free again')


def test_process_may_end_with_a_store_open(folder):
    code = (f'import kvkeep; s = kvkeep.open({folder!r} + "/s"); s.put("k", b"1"); t = kvkeep.open({folder!r} + "/t");'
            'print(s.get("k"))')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"b'1'\n", b'')


def test_a_killed_writer_leaves_what_it_published(folder):
    code = (f'import kvkeep, os, signal; s = kvkeep.open({folder!r} + "/s"); s.put("k", b"published");'
            'os.kill(os.getpid(), signal.SIGKILL)')
    assert subprocess.run([sys.executable, '-c', code], timeout=30).returncode == -signal.SIGKILL
    with kvkeep.open(folder + '/s') as store:
        assert store.get('k') == b'published'


def test_the_command(folder):
    run = [sys.executable, '-m', 'kvkeep']
    with kvkeep.open(folder + '/s') as store:
        store.put('k', b'1')
    assert subprocess.run([*run, 'has', folder + '/s', 'k']).returncode == 0
    doctor = subprocess.run([*run, 'doctor', folder + '/s', '--json'], capture_output=True)
    assert doctor.stdout.startswith(b'{')


def test_the_extension_is_one_for_all_versions():
    assert _kvkeep.__file__.endswith('.abi3.so')


def test_pieces_are_kept_whatever_becomes_of_their_list(store):
    store.put(KEY, payload(KEY, 100000))

    async def take():
        parts = [numpy.zeros(50000, numpy.uint8), numpy.zeros(50000, numpy.uint8)]
        first = weakref.ref(parts[0])
        task = asyncio.create_task(store.aget_into(KEY, parts))
        await asyncio.sleep(0)
        parts.clear()
        gc.collect()
        kept = first() is not None
        return kept, await task

    assert asyncio.run(take()) == (True, 100000)
