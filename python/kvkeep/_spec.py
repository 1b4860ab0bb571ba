# SPDX-License-Identifier: Apache-2.0
"""From what people pass to kvkeep.open() to the JSON that the library takes."""

from __future__ import annotations

import json
import os
from typing import Any

# Options that live in backend_params.
BACKEND_PARAMS = frozenset(['file_path', 'use_direct_io', 'max_capacity_gb', 'shard_dirs'])
# Options that live in eviction.
EVICTION = frozenset(['eviction_policy', 'trigger_watermark', 'eviction_ratio'])


def to_dict(where: Any) -> dict[str, Any]:
    """A path, a JSON object, '@file' with one, or a dict: as a dict of its own."""
    if isinstance(where, dict):
        return json.loads(json.dumps(where))
    where = os.fspath(where)
    if isinstance(where, bytes):
        where = os.fsdecode(where)
    if where.startswith('@'):
        with open(where[1:], encoding='utf-8') as file:
            where = file.read()
    if where.lstrip().startswith('{'):
        try:
            spec = json.loads(where)
        except ValueError as error:
            from kvkeep._errors import SpecError

            raise SpecError(f'the specification is not JSON: {error}', 22) from None
        return spec
    return {'backend_params': {'file_path': where}}


def with_options(where: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The specification, with options put where they belong. What is None is left out."""
    spec = to_dict(where)
    for name, value in options.items():
        if value is None:
            continue
        place = 'backend_params' if name in BACKEND_PARAMS else 'eviction' if name in EVICTION else None
        if place:
            spec.setdefault(place, {})[name] = value
        else:
            spec[name] = value
    return spec
