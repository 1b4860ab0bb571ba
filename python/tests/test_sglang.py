# SPDX-License-Identifier: Apache-2.0
"""
kvkeep.sglang.HiCacheKvkeep, driven as SGLang's two threads do (one prefetches, one backs up), with page buffers of MHA
(K and V apart) and MLA (one), and with a second pool.
"""

import threading
import time
from types import SimpleNamespace

import numpy
import pytest
from conftest import payload
from sglang.srt.mem_cache.hicache_storage import PoolHitPolicy, PoolTransfer

from kvkeep.sglang import HiCacheKvkeep, _hash

PAGE = 16


class Pool:
    """A host pool, page first: K of all pages, then V of all pages; or one buffer."""

    def __init__(self, pages, mla=False, dtype='torch.bfloat16', page_bytes=8192):
        self.page_size, self.layout, self.dtype, self.layer_num = PAGE, 'page_first', dtype, 2
        self.page_bytes, self.mla, self.pages = page_bytes, mla, pages
        if mla:
            self.kv_lora_rank = 512
        self.memory = numpy.zeros((1 if mla else 2, pages, page_bytes), dtype=numpy.uint8)

    def get_page_buffer_meta(self, host_indices):
        base = self.memory.__array_interface__['data'][0]
        addresses = []
        for index in host_indices[::PAGE]:
            for part in range(len(self.memory)):
                addresses.append(base + (part * self.pages + int(index) // PAGE) * self.page_bytes)
        return addresses, [self.page_bytes] * len(addresses)

    def page(self, number):
        return self.memory[:, number].tobytes()

    def fill(self, number, name):
        data = payload(name, self.page_bytes * len(self.memory))
        self.memory[:, number] = numpy.frombuffer(data, dtype=numpy.uint8).reshape(len(self.memory), -1)
        return data


def config(tp_rank=0, mla=False, model='org/model', **extra):
    return SimpleNamespace(tp_rank=tp_rank, tp_size=2, pp_rank=0, pp_size=1, is_mla_model=mla, model_name=model,
                           is_page_first_layout=True, extra_config={
                               'backend_name': 'kvkeep', 'module_path': 'kvkeep.sglang',
                               'class_name': 'HiCacheKvkeep', 'interface_v1': 1, 'memory_mb': 32, 'lanes': 2, **extra})


def storage(folder, pool, **how):
    made = HiCacheKvkeep(config(file_path=folder + '/s', **how), {})
    made.register_mem_pool_host(pool)
    made.register_mem_host_pool_v2(pool, 'kv')
    return made


def indices(*pages):
    return numpy.concatenate([numpy.arange(page * PAGE, (page + 1) * PAGE) for page in pages])


def hashes(count, start=0):
    return [f'{index:064x}' for index in range(start, start + count)]


@pytest.mark.parametrize('mla', [False, True])
def test_two_threads_move_pages(folder, mla):
    pool = Pool(64, mla)
    store = storage(folder, pool, mla=mla)
    data = [pool.fill(page, page) for page in range(32)]
    wrong = []

    def backup():
        for page in range(0, 32, 4):
            if store.batch_set_v1(hashes(4, page), indices(*range(page, page + 4))) != [True] * 4:
                wrong.append(page)

    def prefetch():
        until = time.monotonic() + 20
        page = 0
        while page < 32 and time.monotonic() < until:
            if store.batch_exists(hashes(4, page)) < 4:
                time.sleep(0.001)
                continue
            if store.batch_get_v1(hashes(4, page), indices(*range(32 + page, 36 + page))) != [True] * 4:
                wrong.append(page)
            page += 4
        if page < 32:
            wrong.append('prefetch did not end')

    threads = [threading.Thread(target=backup), threading.Thread(target=prefetch)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert [pool.page(32 + page) for page in range(32)] == data
    store.close()


def test_exists_is_the_leading_run(folder):
    pool = Pool(8)
    store = storage(folder, pool)
    names = hashes(4)
    assert store.batch_exists(names) == 0 and store.batch_exists([]) == 0
    store.batch_set_v1([names[0], names[1], names[3]], indices(0, 1, 3))
    assert store.batch_exists(names) == 2 and store.exists(names[3]) is True and store.exists(names[2]) is False
    assert store.batch_get_v1(names, indices(4, 5, 6, 7)) == [True, True, False, True]
    store.close()


@pytest.mark.parametrize('mla, there', [(False, 0), (True, 2)])
def test_ranks(folder, mla, there):
    """Of MLA all ranks hold the same bytes; otherwise each has its own."""
    pool = Pool(8, mla)
    first, second = storage(folder, pool, mla=mla, tp_rank=0), storage(folder, pool, mla=mla, tp_rank=1)
    first.batch_set_v1(hashes(2), indices(0, 1))
    assert second.batch_exists(hashes(2)) == there
    first.close()
    second.close()


def test_several_pools(folder):
    pool, side = Pool(16), Pool(16, mla=True, page_bytes=4096)
    store = storage(folder, pool)
    store.register_mem_host_pool_v2(side, 'mamba')
    names = hashes(4)
    data = [side.fill(page, f's{page}') for page in range(4)]
    both = store.batch_set_v2([PoolTransfer('kv', indices(0, 1, 2, 3), keys=names),
                               PoolTransfer('mamba', indices(0, 2), keys=[names[0], names[2]])])
    assert both == {'kv': [True] * 4, 'mamba': [True] * 2}
    result = store.batch_exists_v2(names, [PoolTransfer('mamba', keys=names[:1],
                                                        hit_policy=PoolHitPolicy.TRAILING_PAGES)])
    assert (result.kv_hit_pages, result.restorable_prefix_pages) == (3, [1, 3])
    assert result.extra_pool_hit_pages == {'kv': 4, 'mamba': 3}
    result = store.batch_exists_v2(names, [PoolTransfer('mamba')])
    assert (result.kv_hit_pages, result.extra_pool_hit_pages) == (1, {'kv': 4, 'mamba': 1})
    assert store.batch_exists_v2(names).kv_hit_pages == 4
    got = store.batch_get_v2([PoolTransfer('mamba', indices(8, 9), keys=[names[2], names[1]])])
    assert got == {'mamba': [True, False]} and side.page(8) == data[2]
    store.close()


def test_the_plain_interface(folder):
    store = storage(folder, Pool(4))
    source, target = numpy.arange(100, dtype=numpy.float32), numpy.zeros(100, dtype=numpy.float32)
    assert store.set('ab', source) is True and store.set('ab', source) is True
    assert store.get('ab', target) is target and (target == source).all()
    assert store.get('cd', target) is None and store.get('ab') is None and store.set('ef') is False
    assert store.batch_set(['1a', '1b'], [source, source]) is True
    assert store.batch_get(['1a', '1c'], [target, target]) == [target, None]
    address = target.__array_interface__['data'][0]
    assert store.batch_set(['1d'], target_locations=[address], target_sizes=[400]) is True
    assert store.exists('1d') and store.get_stats() is None
    store.clear()
    assert store.batch_exists(['ab']) == 0 and store.exists('1d') is False
    store.close()


class Broken(Pool):
    def get_page_buffer_meta(self, host_indices):
        raise RuntimeError('no such layout')


def test_always_a_list(folder):
    """What an exception or None would do: end the host's thread, silently."""
    store = storage(folder, Broken(4))
    names = hashes(2)
    assert store.batch_get_v1(names, indices(0, 1)) == [False, False]
    assert store.batch_set_v1(names, indices(0, 1)) == [False, False]
    assert store.batch_get_v2([PoolTransfer('kv', indices(0, 1), keys=names), PoolTransfer('none', keys=names)]) == {
        'kv': [False] * 2, 'none': [False] * 2}
    assert store.batch_exists(['x' * 3000]) == 0
    store.close()
    assert store.batch_exists(names) == 0 and store.batch_get_v1(names, indices(0, 1)) == [False, False]
    assert store.batch_exists_v2(names).kv_hit_pages == 0 and store.exists(names[0]) is False
    assert store.batch_set(names, [b'1', b'2']) is False and store.batch_get(names, [b'1', b'2']) == [None, None]
    store.clear()
    store.close()
    unregistered = HiCacheKvkeep(config(file_path=folder + '/t'), {})
    assert unregistered.batch_get_v1(names, indices(0, 1)) == [False, False]
    unregistered.close()


def test_every_call_ends_by_its_deadline(folder):
    pool = Pool(8)
    hang = [{'do': 'hang', 'ops': ['read'], 'nth': 1, 'every': 1}]
    store = storage(folder, pool, fault=hang, timeout_ms=300)
    store.batch_set_v1(hashes(2), indices(0, 1))
    began = time.monotonic()
    assert store.batch_get_v1(hashes(2), indices(2, 3)) == [False, False]
    assert time.monotonic() - began < 3
    store.close()


def test_layouts_keep_apart(folder):
    first = storage(folder, Pool(4))
    first.batch_set_v1(hashes(1), indices(0))
    first.close()
    for pool in (Pool(4, dtype='torch.float8_e4m3fn'), Pool(4, mla=True)):
        second = storage(folder, pool)
        assert second.batch_exists(hashes(1)) == 0
        second.close()
    for how in ({'model': 'other'}, {'namespace': {'weights': 'b'}}):
        second = storage(folder, Pool(4), **how)
        assert second.batch_exists(hashes(1)) == 0
        second.close()
    again = storage(folder, Pool(4))
    assert again.batch_exists(hashes(1)) == 1
    again.close()


def test_a_bad_option_is_told_at_start(folder):
    with pytest.raises(ValueError, match='lames'):
        storage(folder, Pool(4), lames=3)


def test_no_two_pages_share_an_object():
    names = ['a', 'ff61', '61', 'AB', 'ab', 'ab cd', 'abcd', '0@ab']
    assert len({_hash(name) for name in names}) == len(names)
