# SPDX-License-Identifier: Apache-2.0
from dataclasses import dataclass, field


@dataclass
class ReqContext:
    req_id: str


@dataclass
class RequestOffloadingContext:
    policy: str = 'chunk_level'


@dataclass
class TransferJob:
    job_id: int
    keys: list
    chunk_ids: object
    is_promotion: bool
    req_context: object = field(default_factory=lambda: ReqContext('r'))


@dataclass
class JobResult:
    job_id: int
    success: bool
    successful_keys: object = None
    transfer_time: object = None
    transfer_bytes: object = None


class SecondaryTierManager:
    def __init__(self, offloading_spec, primary_kv_view, tier_type):
        self._offloading_spec = offloading_spec
        self.tier_type = tier_type
