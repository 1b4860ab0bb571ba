# SPDX-License-Identifier: Apache-2.0
"""
Namespaces of the engines' adapters: what an adapter knows, and what the user adds or overrides in the option
`namespace`. A value of null takes a field out, so that stores may be shared on purpose across, say, host versions.
docs/engines.md has the fields of each engine.
"""

from __future__ import annotations

import importlib.metadata
from typing import Any


def host_version(package: str) -> str:
    """Major and minor: a patch release does not change how KV is laid out."""
    try:
        return '.'.join(importlib.metadata.version(package).split('.')[:2])
    except importlib.metadata.PackageNotFoundError:
        return 'unknown'


def manifest(host: str, known: dict[str, Any], given: Any) -> dict[str, Any]:
    """The manifest of a host's store. given: the option `namespace`, an object."""
    if given is None:
        given = {}
    if not isinstance(given, dict):
        from kvkeep._errors import SpecError

        raise SpecError('namespace: must be an object, such as {"weights": "sha256:..."}', 22, '', 'namespace')
    fields = {'host': host, 'host_version': host_version(host), **known, **given}
    return {name: plain(value) for name, value in fields.items() if value is not None}


def plain(value: Any) -> Any:
    """As JSON has it: dtypes, enums and sizes by what they print."""
    if isinstance(value, bool) or value is None or isinstance(value, (int, float, str)):
        return value
    if isinstance(value, dict):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return str(value)
