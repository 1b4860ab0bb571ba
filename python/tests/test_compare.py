# SPDX-License-Identifier: Apache-2.0
"""bench/compare_lmcache.py where LMCache is not installed; with it, engine_lmcache.py runs a moment of it."""

import os
import subprocess
import sys

import pytest

BENCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'bench')


def compare(*arguments):
    return subprocess.run([sys.executable, os.path.join(BENCH, 'compare_lmcache.py'), *arguments], capture_output=True,
                          text=True, timeout=60)


def test_without_an_environment_the_smoke_run_says_so_and_makes_none(folder):
    done = compare('--smoke', '--venv', folder + '/none')
    assert done.returncode == 77 and done.stdout.startswith('compare: no LMCache and kvkeep in ' + folder)
    assert not os.path.exists(folder + '/none')


@pytest.mark.parametrize('arguments, said', [
    ([], 'where? --dir DIR, --ram, or both'),
    (['--dir', '/tmp', '--sizes', '64K,1X'], "'1X' is not a size such as 64K or 32M"),
    (['--dir', '/tmp', '--sizes', '1K'], "'1K' is not a size"),
    (['--dir', '/tmp', '--in-flight', '0'], "'0' is not a list of numbers"),
    (['--dir', '/tmp', '--peers', 'fs,nobody'], "'nobody' is none of connector, adapter, nixl_store_dynamic, fs, fs_native"),
    (['--dir', '/tmp', '--modes', 'warm'], "'warm' is none of direct, cold, hot"),
    (['--dir', '/tmp', '--pairs', '0'], '--pairs, --mb and --minutes are at least 1'),
    (['--dir', '/tmp', '--minutes', '0'], '--pairs, --mb and --minutes are at least 1'),
])
def test_nonsense_is_refused_by_name(arguments, said):
    done = compare(*arguments)
    assert done.returncode == 2 and said in done.stderr


def test_everybody_takes_turns_and_begins_once(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    from harness import pairs

    assert [''.join(pairs.order(list('abc'), turn)) for turn in range(4)] == ['abc', 'bca', 'cab', 'abc']
    assert pairs.ratio(list(zip([2, 6, 3], [1, 2, 3])), float) == (2, 1, 3)
