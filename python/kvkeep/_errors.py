# SPDX-License-Identifier: Apache-2.0
"""Exceptions, with the library's own words."""

from __future__ import annotations

import errno as _errno
import os


class Error(Exception):
    """
    What the library could not do.

    code is the errno (positive), reason the library's word ('no room', 'deadline'), option the path of the option
    that is to blame, or ''.
    """

    def __init__(self, text: str, code: int = 0, reason: str = '', option: str = '') -> None:
        super().__init__(text)
        self.code = code
        self.reason = reason
        self.option = option


class SpecError(Error, ValueError):
    """A specification that cannot be opened: option says which part, the text what it may be."""


class ClosedError(Error):
    """The store is closed, or being closed."""


class ForkError(Error):
    """A store belongs to the process that opened it; open another one in the child."""


class BusyError(Error):
    """Another request is writing or removing the key, or too much is under way: try again."""


class DeadlineError(Error, TimeoutError):
    """No answer within the deadline."""


class NoRoomError(Error):
    """The cap, or the medium, is full."""


class PinnedError(Error):
    """A pin keeps the object from being removed."""


class DegradedError(Error):
    """The medium hangs or fails; nothing is tried for now."""


class MediumError(Error):
    """An error of the medium."""


BY_REASON = {
    3: BusyError,        # KVK_REASON_BUSY
    4: DeadlineError,
    5: NoRoomError,
    7: MediumError,      # not durable
    11: MediumError,
    12: PinnedError,
    13: DegradedError,
}

BY_CODE = {
    _errno.EAGAIN: BusyError,
    _errno.ESHUTDOWN: ClosedError,
    _errno.ECHILD: ForkError,
    _errno.ETIMEDOUT: DeadlineError,
    _errno.EINVAL: SpecError,
}

WORDS = {
    _errno.EAGAIN: 'too much is under way; try again after some of it was answered',
    _errno.ECHILD: 'a store belongs to the process that opened it; open another one in the child',
    _errno.ESHUTDOWN: 'the store is closed',
    _errno.EINVAL: 'an argument is malformed',
}


def from_code(code: int, option: str, text: str) -> Error:
    """The exception for -errno, from a call as a whole."""
    code = abs(code)
    kind = SpecError if option else BY_CODE.get(code, Error)
    words = text or WORDS.get(code, os.strerror(code))
    return kind(f'{option}: {words}' if option else words, code, '', option)


def from_result(status: int, reason: int, what: str) -> Error:
    """The exception for one item's answer."""
    from kvkeep import _kvkeep

    word = _kvkeep.reason_text(reason)
    return BY_REASON.get(reason, Error)(f'{what}: {word} ({os.strerror(-status)})', -status, word)
