# SPDX-License-Identifier: Apache-2.0
import os
import shutil
import tempfile
import time

import pytest

import kvkeep


@pytest.fixture
def folder():
    """A directory in memory, where there is one: what the medium does is tested in C."""
    where = '/dev/shm' if os.access('/dev/shm', os.W_OK) else None
    path = tempfile.mkdtemp(prefix='kvkeep-python-', dir=where)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def store(folder):
    with kvkeep.open(folder + '/store', namespace={'model': 'test'}, memory_mb=32, lanes=2) as opened:
        yield opened


def at_best(measure, enough, tries=8):
    """The least that measure() returns, until it is below enough. A busy machine may take its time, but not each time."""
    least = measure()
    while least >= enough and tries > 1:
        least, tries = min(least, measure()), tries - 1
    return least


def eventually(condition, seconds=30):
    """Whether it comes to hold, however busy the machine is."""
    until = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < until:
        time.sleep(0.002)
    return holds


def payload(key, count, generation=0):
    """Bytes that follow from the key, without a zero, so that foreign or missing ones tell themselves apart."""
    import hashlib

    seed = hashlib.sha256(f'{key}/{generation}'.encode()).hexdigest().encode()
    return (seed * (count // len(seed) + 1))[:count]


# Stand-ins for the engines, unless the real ones are asked for: see check_engines.py.
if not os.environ.get('KVKEEP_REAL_ENGINES'):
    import sys

    sys.path.insert(0, os.path.join(os.path.dirname(__file__), 'hosts'))
