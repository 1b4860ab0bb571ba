# SPDX-License-Identifier: Apache-2.0
"""
kvkeep keeps the KV cache of LLM inference on disk, and proves every hit.

    import kvkeep

    with kvkeep.open('/var/lib/kv', namespace={'model': 'llama-3-8b', 'dtype': 'bf16'}) as store:
        store.put('llama-3-8b@00000000@0@5f3a90c1', tensor)
        store.get_into('llama-3-8b@00000000@0@5f3a90c1', tensor)

A get that finds nothing, or nothing that proves itself, is a miss (None, False), never wrong bytes and no exception;
kvkeep.Error says, in the library's words, what else went wrong. kvkeep.lmcache, kvkeep.vllm and kvkeep.sglang plug a
store into those engines.
"""

from kvkeep._errors import (
    BusyError,
    ClosedError,
    DeadlineError,
    DegradedError,
    Error,
    ForkError,
    MediumError,
    NoRoomError,
    PinnedError,
    SpecError,
)
from kvkeep._kvkeep import version as _version
from kvkeep._store import Entry, Store, Usage, open  # noqa: A004 (kvkeep.open, as gzip.open)

__version__ = _version()

__all__ = [
    'BusyError',
    'ClosedError',
    'DeadlineError',
    'DegradedError',
    'Entry',
    'Error',
    'ForkError',
    'MediumError',
    'NoRoomError',
    'PinnedError',
    'SpecError',
    'Store',
    'Usage',
    'open',
]
