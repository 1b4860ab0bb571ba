# SPDX-License-Identifier: Apache-2.0
from dataclasses import dataclass


@dataclass(frozen=True)
class ObjectKey:
    chunk_hash: bytes
    model_name: str
    kv_rank: int
    object_group_id: int = 0
    cache_salt: str = ''
    lora: str = ''             # a field that the released ones do not have: keys grow

    def to_encoded_object_key(self):
        return Encoded(self)


@dataclass(frozen=True)
class Encoded:
    key: ObjectKey

    def to_object_key(self):
        return self.key


@dataclass(frozen=True)
class KeyEntry:
    key: object
    size_bytes: int


@dataclass(frozen=True)
class KeyListPage:
    entries: tuple
    next_page_token: object
