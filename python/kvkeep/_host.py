# SPDX-License-Identifier: Apache-2.0
"""What the engines' adapters share: opening a store from an engine's options."""

from __future__ import annotations

from typing import Any

from kvkeep._core import EVENTS, Listener, open_core
from kvkeep._kvkeep import Core
from kvkeep._namespace import manifest
from kvkeep._spec import with_options


def open_for_host(host: str, options: dict[str, Any], known: dict[str, Any], on_event: Listener | None = None,
                  events: int = EVENTS) -> Core:
    """
    Opens the store that an engine's options describe: the library's own, as they are or flat (file_path,
    max_capacity_gb, ...). What the adapter knows goes into the namespace, and what the user says in it goes before.
    events: the ones that on_event hears.
    """
    options = dict(options)
    given = options.pop('namespace', None)
    nested = {name: options.pop(name) for name in ('backend_params', 'eviction') if name in options}
    spec = with_options(nested, options)
    spec['namespace'] = manifest(host, known, given)
    return open_core(spec, on_event, events)
