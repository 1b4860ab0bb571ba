# SPDX-License-Identifier: Apache-2.0
"""Opening the extension's store, and a thread that hands on what it says."""

from __future__ import annotations

import json
import logging
import threading
from typing import Any, Callable

from kvkeep import _kvkeep

Listener = Callable[[str, 'list[bytes]'], None]

EVENTS = _kvkeep.EVENT_STORED | _kvkeep.EVENT_ACCESSED | _kvkeep.EVENT_DELETED
LEVELS = {0: logging.ERROR, 1: logging.WARNING, 2: logging.INFO, 3: logging.DEBUG}


def open_core(spec: dict[str, Any], on_event: Listener | None, events: int = EVENTS) -> _kvkeep.Core:
    """events: the ones that on_event hears."""
    core = _kvkeep.Core(json.dumps(spec), events if on_event is not None else 0)
    threading.Thread(target=_listen, args=(core, on_event), name='kvkeep-notices', daemon=True).start()
    return core


def _listen(core: _kvkeep.Core, on_event: Listener | None) -> None:
    """Until the store is closed: log lines go to the logger 'kvkeep', events to the listener."""
    log = logging.getLogger('kvkeep')
    while (notices := core.notices(60_000_000)) is not None:
        for notice in notices:
            try:
                if notice[0] == 'log':
                    log.log(LEVELS.get(notice[1], logging.DEBUG), '%s', notice[2])
                elif on_event is not None:
                    on_event(notice[0], notice[1])
            except Exception:
                log.exception('a listener failed')
