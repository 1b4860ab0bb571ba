# SPDX-License-Identifier: Apache-2.0
"""As much of vLLM as a secondary tier sees: check_engines.py has the real one."""

from enum import Enum, auto


class LookupResult(Enum):
    MISS = auto()
    HIT = auto()
    HIT_PENDING = auto()
    RETRY = auto()


class Medium(Enum):
    CPU = 'CPU'
    STORAGE = 'STORAGE'
