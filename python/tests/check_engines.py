#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
kvkeep inside of the released engines, without a GPU: `make check-engines`.

Usage: check_engines.py [lmcache] [vllm] [sglang]        all of them if none is named

For each engine a virtual environment is made below build-engines/ (several gigabytes; it is removed afterwards unless
KVKEEP_KEEP is set), the pinned release and this package are installed, and there run: the contract tests over the engine's
own classes instead of stand-ins, and what engine_NAME.py beside this file does with the engine's own machinery. Ends
with a line `N passed, N failed, N skipped`.
"""

import os
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))

# What is installed: with all that it wants, or without, where that would be gigabytes of kernels for GPUs; then what its
# storage interfaces import is named.
PINNED = {
    'lmcache': [['lmcache==0.5.6']],
    'vllm': [['--no-deps', 'vllm==0.33.0'], ['torch==2.15.0', 'numpy', 'regex', 'transformers', 'pydantic', 'cloudpickle',
                                             'psutil', 'pyzmq', 'msgspec', 'prometheus_client', 'typing_extensions']],
    'sglang': [['--no-deps', 'sglang==0.5.23'], ['torch==2.15.0', 'numpy', 'psutil', 'pyzmq', 'msgspec', 'requests']],
}
CONTRACTS = {
    'lmcache': ['test_torch.py', 'test_lmcache_connector.py', 'test_lmcache_adapter.py', 'engine_lmcache.py'],
    'vllm': ['test_vllm.py', 'engine_vllm.py'],
    'sglang': ['test_sglang.py', 'engine_sglang.py'],
}


def run(*command, **how):
    print('$', *command, flush=True)
    return subprocess.run(command, **how)


def environment(engine, folder):
    python = os.path.join(folder, 'bin', 'python')
    if not os.path.exists(folder):
        run(sys.executable, '-m', 'venv', folder, check=True)
    for packages in [*PINNED[engine], ['pytest'], ['--force-reinstall', '--no-deps', ROOT]]:
        run(python, '-m', 'pip', 'install', '-q', '--disable-pip-version-check', *packages, check=True)
    return python


def check(engine):
    """(passed, failed, skipped)"""
    folder = os.path.join(ROOT, 'build-engines', engine)
    try:
        python = environment(engine, folder)
    except subprocess.CalledProcessError as error:
        print(f'{engine}: could not be installed (status {error.returncode})')
        return 0, 0, 1
    try:
        done = run(python, '-m', 'pytest', '-p', 'no:cacheprovider', '-rs', '-v',
                   *[os.path.join(HERE, name) for name in CONTRACTS[engine]],
                   env={**os.environ, 'KVKEEP_REAL_ENGINES': '1',
                        'PATH': os.path.dirname(python) + ':' + os.environ['PATH']},
                   cwd=folder, stdout=subprocess.PIPE, text=True)
    finally:
        if not os.environ.get('KVKEEP_KEEP'):
            shutil.rmtree(folder)
    print(done.stdout)
    last = done.stdout.strip().splitlines()[-1]
    counts = [int(match.group(1)) if (match := re.search(rf'(\d+) {word}', last)) else 0
              for word in ('passed', 'failed', 'skipped', 'error')]
    return counts[0], counts[1] + counts[3] + (done.returncode not in (0, 1)), counts[2]


def main():
    totals = [check(engine) for engine in sys.argv[1:] or PINNED]
    passed, failed, skipped = (sum(column) for column in zip(*totals))
    print(f'{passed} passed, {failed} failed, {skipped} skipped')
    return 0 if passed and not failed else 1


if __name__ == '__main__':
    sys.exit(main())
