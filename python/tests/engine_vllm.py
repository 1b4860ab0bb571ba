# SPDX-License-Identifier: Apache-2.0
"""vLLM's own factory and abstract class over KvkeepTier; the tensors are on the CPU."""

import inspect
import os
import time

import numpy
import pytest

torch = pytest.importorskip('torch')
base = pytest.importorskip('vllm.v1.kv_offload.tiering.base')


def real_spec():
    from types import SimpleNamespace

    from vllm.v1.kv_offload import config

    groups = (config.OffloadingGroupConfig(tokens_per_block=16, layer_names=('a', 'b'), group_id=0),)
    parallel = config.OffloadingParallelConfig(rank=0, world_size=1, tp_size=1, pp_size=1, pcp_size=1, dcp_size=1,
                                               data_parallel_index=0, data_parallel_size=1,
                                               data_parallel_rank_local=None, is_parallelism_agnostic=False)
    return SimpleNamespace(config=config.OffloadingConfig(
        groups=groups, worker_kv_bytes_per_block=4096, enable_kv_cache_events=False, extra_config={}, engine_id='e',
        model=config.OffloadingModelConfig(name='org/model', dtype='bfloat16'),
        cache=config.OffloadingCacheConfig(tokens_per_hash=16, blocks_per_chunk=4), parallel=parallel))


def test_the_factory_makes_one_and_every_method_answers(folder):
    from vllm.v1.kv_offload.base import LookupResult, ReqContext, make_offload_key
    from vllm.v1.kv_offload.tiering.factory import SecondaryTierFactory

    primary = torch.zeros((32, 65536), dtype=torch.int8)
    tier = SecondaryTierFactory.create_secondary_tier(
        {'type': 'KvkeepTier', 'module_path': 'kvkeep.vllm', 'file_path': folder + '/s', 'locality': 'LOCAL'},
        memoryview(primary.numpy()), real_spec())
    assert isinstance(tier, base.SecondaryTierManager) and not inspect.isabstract(type(tier))
    context = ReqContext('r')
    assert isinstance(tier.on_new_request(context), base.RequestOffloadingContext)
    keys = [make_offload_key(bytes([index]) * 32, 0) for index in range(8)]
    primary[:8] = torch.randint(1, 100, (8, 65536), dtype=torch.int8)
    want = primary[:8].clone()
    for number, load, slots in ((1, False, range(8)), (2, True, range(16, 24))):
        job = base.TransferJob(number, keys, numpy.array(slots), load, context)
        (tier.submit_load if load else tier.submit_store)(job)
        assert tier.has_pending_work() is True
        tier.drain_jobs()
        (result,) = tier.get_finished_jobs()
        assert isinstance(result, base.JobResult) and result.success and result.job_id == number
    assert torch.equal(primary[16:24], want)
    end = time.monotonic() + 10
    while (answer := tier.lookup(keys[0], context)) is LookupResult.RETRY and time.monotonic() < end:
        time.sleep(0.005)
    assert answer is LookupResult.HIT
    tier.touch(keys, context)
    tier.on_schedule_end(base.ScheduleEndContext((), ()))
    tier.on_request_finished(context)
    assert list(tier.take_events()) == [] and tier.get_stats() is None and tier.config_info() == {}
    assert tier.build_metric_definitions({}) == {} and tier.config_info_keys({}) == ()
    tier.serve_external_requests(None)
    tier.shutdown()


class Tiers:
    """vLLM's own manager over its CPU memory and a KvkeepTier, called as its scheduler does. No GPU fills the memory."""

    def __init__(self, folder, chunks=16):
        from vllm.v1.kv_offload.cpu.shared_offload_region import SharedOffloadRegion
        from vllm.v1.kv_offload.tiering.factory import SecondaryTierFactory
        from vllm.v1.kv_offload.tiering.manager import CPUPrimaryTierOffloadingManager, TieringOffloadingManager

        region = SharedOffloadRegion(engine_id=f'kvkeep-{os.getpid()}', num_chunks=chunks, rank=None,
                                     kv_bytes_per_chunk=65536, cpu_page_size=65536)
        primary = CPUPrimaryTierOffloadingManager(num_chunks=chunks, mmap_region=region)
        view = primary.get_kv_memoryview()
        self.memory = numpy.asarray(view)
        self.tier = SecondaryTierFactory.create_secondary_tier(
            {'type': 'KvkeepTier', 'module_path': 'kvkeep.vllm', 'file_path': folder + '/s'}, view, real_spec())
        self.manager = TieringOffloadingManager(primary, [self.tier])

    def steps_until(self, condition):
        end = time.monotonic() + 20
        while not (found := condition()):
            assert time.monotonic() < end, 'it did not come'
            self.manager.on_schedule_end(base.ScheduleEndContext((), ()))
            time.sleep(0.005)
        return found

    def shutdown(self):
        del self.memory
        self.manager.shutdown()


def content(index):
    return (numpy.arange(65536) * (2 * index + 1) % 251).astype(numpy.int8)


def test_the_tiering_manager_stores_and_promotes_over_a_restart(folder):
    from vllm.v1.kv_offload.base import LookupResult, ReqContext, make_offload_key

    keys = [make_offload_key(bytes([index]) * 32, 0) for index in range(10)]
    tiers, context = Tiers(folder), ReqContext('first')
    tiers.manager.on_new_request(context)
    stored = tiers.manager.prepare_store(keys[:8], context)
    assert list(stored.keys_to_store) == keys[:8]
    for index, chunk in enumerate(stored.store_spec.chunk_ids):
        tiers.memory[int(chunk)] = content(index)
    tiers.manager.complete_store(keys[:8], context)
    tiers.manager.on_request_finished(context)
    tiers.steps_until(lambda: not tiers.manager.has_pending_work())
    tiers.shutdown()

    tiers, context = Tiers(folder), ReqContext('second')
    tiers.manager.on_new_request(context)
    answers = {}

    def settled():
        for key in keys:
            if answers.get(key) not in (LookupResult.HIT, LookupResult.MISS):
                answers[key] = tiers.manager.lookup(key, context)
        return all(answer in (LookupResult.HIT, LookupResult.MISS) for answer in answers.values())

    tiers.steps_until(settled)
    assert [answers[key] is LookupResult.HIT for key in keys] == [True] * 8 + [False] * 2
    loaded = tiers.manager.prepare_load(keys[:8], context)
    for index, chunk in enumerate(loaded.chunk_ids):
        assert (tiers.memory[int(chunk)] == content(index)).all()
    tiers.manager.complete_load(keys[:8], context)
    tiers.manager.on_request_finished(context)
    assert not tiers.manager.has_pending_work()
    tiers.shutdown()
