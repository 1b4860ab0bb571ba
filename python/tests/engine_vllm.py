# SPDX-License-Identifier: Apache-2.0
"""vLLM's own factory and abstract class over KvkeepTier; the tensors are on the CPU."""

import inspect
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
