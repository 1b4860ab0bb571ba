# SPDX-License-Identifier: Apache-2.0
"""kvkeep.vllm.KvkeepTier, driven as vLLM's scheduler does: step by step, over a numpy array as the primary view."""

import time
from types import SimpleNamespace

import numpy
import pytest
from conftest import at_best, eventually, payload
from vllm.v1.kv_offload.base import LookupResult
from vllm.v1.kv_offload.tiering.base import ReqContext, RequestOffloadingContext, TransferJob

from kvkeep.vllm import KvkeepTier

SLOTS, SLOT_BYTES = 64, 12288


def spec(dtype='bfloat16', tp=1, model='org/model'):
    return SimpleNamespace(config=SimpleNamespace(
        model=SimpleNamespace(name=model, dtype=dtype), groups=(SimpleNamespace(tokens_per_block=16, layer_names=('a',)),),
        cache=SimpleNamespace(tokens_per_hash=16, blocks_per_chunk=4), worker_kv_bytes_per_block=3072,
        parallel=SimpleNamespace(tp_size=tp, pp_size=1, pcp_size=1, dcp_size=1), kv_cache_layout='NHD'))


class Scheduler:
    def __init__(self, folder, **options):
        self.primary = numpy.zeros((SLOTS, SLOT_BYTES), dtype=numpy.int8)
        self.spec = options.pop('spec', None) or spec()
        self.tier = KvkeepTier(offloading_spec=self.spec, primary_kv_view=memoryview(self.primary),
                               tier_type='KvkeepTier', backpressure_detector=None, locality='LOCAL',
                               file_path=folder + '/s', memory_mb=32, lanes=2, **options)
        self.jobs = 0

    def step(self, seconds=20):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            finished = list(self.tier.get_finished_jobs())
            if finished:
                return finished
            time.sleep(0.002)
        pytest.fail('no job finished')

    def job(self, keys, slots, load):
        self.jobs += 1
        job = TransferJob(self.jobs, keys, numpy.array(slots), load, ReqContext('r'))
        (self.tier.submit_load if load else self.tier.submit_store)(job)
        return self.jobs

    def do(self, keys, slots, load):
        job = self.job(keys, slots, load)
        (result,) = self.step()
        assert result.job_id == job
        return result

    def lookup(self, key, request='r'):
        def answered():
            result = self.tier.lookup(key, ReqContext(request))
            return (result,) if result is not LookupResult.RETRY else None

        return (eventually(answered) or pytest.fail('never answered'))[0]


def key(index, group=0):
    return index.to_bytes(32, 'big') + group.to_bytes(4, 'big')


def fill(primary, slot, name):
    primary[slot] = numpy.frombuffer(payload(name, SLOT_BYTES), dtype=numpy.int8)


@pytest.fixture
def scheduler(folder):
    scheduler = Scheduler(folder)
    yield scheduler
    scheduler.tier.shutdown()
    scheduler.tier.shutdown()


def test_store_lookup_load(scheduler):
    names = [key(index) for index in range(8)]
    assert isinstance(scheduler.tier.on_new_request(ReqContext('r')), RequestOffloadingContext)
    assert scheduler.lookup(names[0]) is LookupResult.MISS
    for index in range(8):
        fill(scheduler.primary, index, index)
    result = scheduler.do(names, range(8), False)
    assert result.success and result.transfer_bytes == 8 * SLOT_BYTES and result.transfer_time > 0
    assert [scheduler.lookup(name) for name in names] == [LookupResult.HIT] * 8
    assert scheduler.lookup(key(0, group=1)) is LookupResult.MISS
    assert scheduler.tier.has_pending_work() is False
    scheduler.primary[:] = 0
    assert scheduler.do(names, range(20, 28), True).success
    for index in range(8):
        assert scheduler.primary[20 + index].tobytes() == payload(index, SLOT_BYTES)
    assert not scheduler.primary[:20].any() and not scheduler.primary[28:].any()


def test_the_prefix_before_a_hole_survives(scheduler):
    names = [key(index) for index in range(4)]
    for index in range(4):
        fill(scheduler.primary, index, index)
    scheduler.do(names[:2] + names[3:], [0, 1, 3], False)
    result = scheduler.do(names, [10, 11, 12, 13], True)
    assert result.success is False and tuple(result.successful_keys) == (names[0], names[1], names[3])
    nothing = scheduler.do([key(77)], [14], True)
    assert nothing.success is False and not nothing.successful_keys


def test_nothing_blocks(folder):
    slow = [{'do': 'delay', 'ops': ['open', 'read', 'publish'], 'nth': 1, 'every': 1, 'delay_ms': 300}]
    scheduler = Scheduler(folder, fault=slow)

    def took():
        jobs = scheduler.jobs
        began = time.monotonic()
        scheduler.tier.lookup(key(1 + jobs), ReqContext('r'))
        scheduler.job([key(1 + jobs)], [0], False)
        scheduler.job([key(2 + jobs)], [1], True)
        scheduler.tier.touch([key(1 + jobs), key(2 + jobs)], ReqContext('r'))
        finished = list(scheduler.tier.get_finished_jobs())
        seconds = time.monotonic() - began
        assert finished or scheduler.tier.has_pending_work()
        scheduler.tier.drain_jobs()
        finished += scheduler.tier.get_finished_jobs()
        assert sorted(result.job_id for result in finished) == [jobs + 1, jobs + 2]
        return seconds

    assert at_best(took, 0.2) < 0.2
    scheduler.tier.shutdown()


def test_drain_on_a_medium_that_hangs_ends(folder):
    hang = [{'do': 'hang', 'ops': ['read'], 'nth': 1, 'every': 1}]
    scheduler = Scheduler(folder, fault=hang, deadline_ms=500)
    fill(scheduler.primary, 0, 0)
    scheduler.do([key(0)], [0], False)
    scheduler.job([key(0)], [1], True)
    began = time.monotonic()
    scheduler.tier.drain_jobs()
    assert time.monotonic() - began < 5
    (result,) = scheduler.tier.get_finished_jobs()
    assert result.success is False
    before = scheduler.primary[1].tobytes()
    scheduler.tier.shutdown()
    assert scheduler.primary[1].tobytes() == before


def test_a_job_that_cannot_be_taken_fails(folder):
    scheduler = Scheduler(folder)
    for load in (False, True):
        assert scheduler.do([key(0), key(1)], [0], load).success is False
        assert scheduler.do([b'x' * 2000], [0], load).success is False
    assert scheduler.do([], [], False).success is True
    scheduler.tier.shutdown()


def test_touch_renews_without_a_pin(scheduler):
    scheduler.do([key(0)], [0], False)
    scheduler.tier.touch([key(0), key(5)], ReqContext('r'))
    eventually(lambda: list(scheduler.tier.get_finished_jobs()) == [] and not scheduler.tier._touch_task
               and not scheduler.tier._core.usage()['pinned_objects'])
    assert scheduler.tier._core.usage()['pinned_objects'] == 0 and scheduler.tier._touch_task == 0


def test_requests_leave_nothing_behind(scheduler):
    for index in range(100):
        scheduler.tier.lookup(key(index), ReqContext(f'r{index}'))
    assert eventually(lambda: list(scheduler.tier.get_finished_jobs()) == [] and not scheduler.tier._lookup_tasks)
    for index in range(100):
        scheduler.tier.on_request_finished(ReqContext(f'r{index}'))
    assert scheduler.tier._lookups == {} and scheduler.tier._asked == {} and scheduler.tier._lookup_tasks == {}


def test_a_request_that_ends_before_its_answer_leaves_nothing_behind(folder):
    """Else a later request for the same key would get an answer that is as old as the first one."""
    Scheduler(folder).tier.shutdown()
    slow = [{'do': 'delay', 'ops': ['open', 'stat_name'], 'nth': 1, 'every': 1, 'delay_ms': 100}]
    scheduler = Scheduler(folder, fault=slow)
    for index in range(10):
        assert scheduler.tier.lookup(key(index), ReqContext('r')) is LookupResult.RETRY
    scheduler.tier.on_request_finished(ReqContext('r'))
    assert scheduler.tier._lookups == {}
    fill(scheduler.primary, 0, 0)
    assert scheduler.do([key(0)], [0], False).success
    assert scheduler.lookup(key(0), 'other') is LookupResult.HIT
    assert eventually(lambda: list(scheduler.tier.get_finished_jobs()) == [] and not scheduler.tier._lookup_tasks)
    scheduler.tier.on_request_finished(ReqContext('other'))
    assert scheduler.tier._lookups == {} and scheduler.tier._asked == {} and scheduler.tier._lookup_tasks == {}
    scheduler.tier.shutdown()


def test_older_names(folder):
    scheduler = Scheduler(folder, spec=SimpleNamespace(vllm_config=None, gpu_block_size=16, offloaded_block_size=64))
    scheduler.tier.submit_store(SimpleNamespace(job_id=7, keys=[key(0)], block_ids=[3]))
    results = eventually(lambda: list(scheduler.tier.get_finished()))
    assert [(result.job_id, result.success) for result in results] == [(7, True)]
    scheduler.tier.shutdown()


@pytest.mark.parametrize('other', [{'dtype': 'fp8'}, {'tp': 2}, {'model': 'org/other'}])
def test_another_layout_is_a_miss(folder, other):
    first = Scheduler(folder)
    first.do([key(0)], [0], False)
    first.tier.shutdown()
    second = Scheduler(folder, spec=spec(**other))
    assert second.lookup(key(0)) is LookupResult.MISS
    second.tier.shutdown()
    third = Scheduler(folder)
    assert third.lookup(key(0)) is LookupResult.HIT
    third.tier.shutdown()
