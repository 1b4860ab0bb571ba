# SPDX-License-Identifier: Apache-2.0
"""
Where bytes lie: anything with the buffer protocol, numpy arrays of any dtype, torch CPU tensors of any dtype, and what
speaks DLPack. Nothing is copied; the object itself stays alive through whoever passes it on, what was borrowed from it through the
piece.
"""

from __future__ import annotations

import sys
from typing import Any

# (address, bytes), or an object with the buffer protocol
Piece = Any


def piece(obj: Any, writable: bool) -> Piece:
    """What the extension takes in place of obj."""
    if isinstance(obj, (bytes, bytearray, memoryview)):
        return obj
    if hasattr(obj, 'data_ptr'):
        return _from_tensor(obj)
    interface = getattr(obj, '__array_interface__', None)
    if interface is not None:
        return _from_array(obj, interface, writable)
    if hasattr(obj, '__dlpack__') and not _has_buffer(obj):
        return _from_dlpack(obj)
    return obj


def pieces(obj: Any, writable: bool) -> Any:
    """The same for a list of pieces that make one object."""
    if isinstance(obj, list):
        return [piece(part, writable) for part in obj]
    return piece(obj, writable)


def _has_buffer(obj: Any) -> bool:
    try:
        memoryview(obj).release()
    except TypeError:
        return False
    return True


def _from_tensor(tensor: Any) -> Piece:
    if tensor.device.type != 'cpu':
        raise TypeError(f'a tensor on {tensor.device}: only tensors in CPU memory can be stored and loaded')
    if not tensor.is_contiguous():
        raise ValueError('the tensor is not contiguous')
    return (tensor.data_ptr(), tensor.numel() * tensor.element_size())


def _from_array(array: Any, interface: dict[str, Any], writable: bool) -> Piece:
    address, readonly = interface['data']
    if writable and readonly:
        raise ValueError('the array is read-only')
    if interface.get('strides') is not None:
        raise ValueError('the array is not C-contiguous')
    return (address, array.nbytes)


class _Held(tuple):  # type: ignore[type-arg]
    """(address, bytes), with whom the memory was borrowed from: giving it back may free it."""

    owner: Any


def _from_dlpack(obj: Any) -> Piece:
    torch = sys.modules.get('torch')
    if torch is not None:
        owner = torch.from_dlpack(obj)
        place = _Held(_from_tensor(owner))
    else:
        import numpy

        owner = numpy.from_dlpack(obj)
        # numpy marks what comes without a word about it as read-only; DLPack asks nobody before a write.
        place = _Held(_from_array(owner, owner.__array_interface__, False))
    place.owner = owner
    return place
