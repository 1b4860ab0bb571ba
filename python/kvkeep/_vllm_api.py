# SPDX-License-Identifier: Apache-2.0
"""What differs between versions of vLLM, found by looking: names of this interface changed several times a year."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from vllm.v1.kv_offload.tiering import base as tiering
from vllm.v1.kv_offload.tiering.base import JobResult, SecondaryTierManager

try:
    from vllm.v1.kv_offload.base import LookupResult

    HIT, MISS, RETRY = LookupResult.HIT, LookupResult.MISS, LookupResult.RETRY
except (ImportError, AttributeError):
    HIT, MISS, RETRY = True, False, None

try:
    from vllm.v1.kv_offload.base import Medium

    MEDIUM = Medium.STORAGE
except (ImportError, AttributeError):
    MEDIUM = None

__all__ = ['HIT', 'MEDIUM', 'MISS', 'RETRY', 'SecondaryTierManager', 'init_base', 'job_result', 'known_of',
           'new_request', 'slots']

RESULT_FIELDS = {field.name for field in dataclasses.fields(JobResult)}


def init_base(tier: Any, **known: Any) -> None:
    """The base class with as much of what the host gave as it takes."""
    parameters = inspect.signature(SecondaryTierManager.__init__).parameters
    SecondaryTierManager.__init__(tier, **{name: value for name, value in known.items() if name in parameters})


def job_result(**facts: Any) -> Any:
    return JobResult(**{name: value for name, value in facts.items() if name in RESULT_FIELDS})


def slots(job: Any) -> list[int]:
    """Where a job's chunks lie in the primary view."""
    ids = getattr(job, 'chunk_ids', None)
    if ids is None:
        ids = job.block_ids
    return [int(slot) for slot in ids]


def new_request() -> Any:
    """A tier without wishes."""
    context = getattr(tiering, 'RequestOffloadingContext', None)
    return context() if context is not None else None


def known_of(spec: Any) -> dict[str, Any]:
    """What the host says about the bytes of a chunk: for the namespace."""
    config = getattr(spec, 'config', None)
    if config is None or not hasattr(config, 'model'):
        return _known_of_older(spec)
    parallel = config.parallel
    known = {
        'model': config.model.name,
        'dtype': config.model.dtype,
        'tokens_per_block': [group.tokens_per_block for group in config.groups],
        'layers': [len(group.layer_names) for group in config.groups],
        'tokens_per_hash': config.cache.tokens_per_hash,
        'blocks_per_chunk': config.cache.blocks_per_chunk,
        'worker_kv_bytes_per_block': config.worker_kv_bytes_per_block,
        'replicated_layout': getattr(config, 'replicated_layout', None),
        'canonical_layout': getattr(config, 'canonical_layout', None),
        'kv_cache_layout': getattr(config, 'kv_cache_layout', None),
    }
    for name in ('tp_size', 'pp_size', 'pcp_size', 'dcp_size'):
        known[name] = getattr(parallel, name, None)
    return known


def _known_of_older(spec: Any) -> dict[str, Any]:
    config = getattr(spec, 'vllm_config', None)
    model, cache = getattr(config, 'model_config', None), getattr(config, 'cache_config', None)
    parallel = getattr(config, 'parallel_config', None)
    return {
        'model': getattr(model, 'model', None),
        'dtype': getattr(model, 'dtype', None),
        'cache_dtype': getattr(cache, 'cache_dtype', None),
        'tokens_per_block': getattr(spec, 'gpu_block_size', None),
        'tokens_per_chunk': getattr(spec, 'offloaded_block_size', None),
        'tp_size': getattr(parallel, 'tensor_parallel_size', None),
        'pp_size': getattr(parallel, 'pipeline_parallel_size', None),
    }
