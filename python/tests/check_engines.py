#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
kvkeep inside of the released engines, without a GPU: `make check-engines`.

Usage: check_engines.py [lmcache] [vllm] [sglang]        all of them if none is named

Makes a virtual environment below build-engines/ (6 GB; it is removed afterwards unless KVKEEP_KEEP is set), installs the
pinned releases and this package, and runs: the contract tests over the engines' own classes instead of stand-ins, and
what engine_NAME.py beside this file does with an engine's own machinery. Ends with a line
`N passed, N failed, N skipped`.
"""

import os
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))

# LMCache with all that it wants (torch among it), and NIXL, for the storage of LMCache's own beside which kvkeep is
# measured; the others without, since their storage interfaces run without the gigabytes of kernels, but for what
# importing those asks for.
PINNED = [['lmcache==0.5.6', 'nixl==1.5.1', 'pytest'],
          ['--no-deps', 'vllm==0.33.0', 'sglang==0.5.23', 'orjson', 'pybase64', 'pillow', 'ipython', 'traitlets',
           'requests', 'cbor2', 'openai', 'openai-harmony', 'sniffio', 'cloudpickle', 'uvloop', 'xgrammar',
           'apache-tvm-ffi', 'partial-json-parser', 'llguidance']]
VERSIONS = """
import importlib.metadata, platform
print(f'tried: Python {platform.python_version()}', *[f'{name} {importlib.metadata.version(name)}' for name in
      ('lmcache', 'nixl', 'vllm', 'sglang', 'torch', 'numpy', 'kvkeep')], sep=', ')
"""
CONTRACTS = {
    'lmcache': ['test_torch.py', 'test_lmcache_connector.py', 'test_lmcache_adapter.py', 'engine_lmcache.py'],
    'vllm': ['test_vllm.py', 'engine_vllm.py'],
    'sglang': ['test_sglang.py', 'engine_sglang.py'],
}


def run(*command, **how):
    print('$', *command, flush=True)
    return subprocess.run(command, **how)


def environment(folder):
    """The environment's python."""
    python = os.path.join(folder, 'bin', 'python')
    if not os.path.exists(python):
        run(sys.executable, '-m', 'venv', folder, check=True)
    for packages in [*PINNED, ['--force-reinstall', '--no-deps', ROOT]]:
        run(python, '-m', 'pip', 'install', '-q', '--disable-pip-version-check', *packages, check=True)
    run(python, '-c', VERSIONS, check=True)
    return python


def check(python, folder, engines):
    """Runs the tests, and returns (passed, failed, skipped)."""
    names = [os.path.join(HERE, name) for engine in engines for name in CONTRACTS[engine]]
    names.append(os.path.join(HERE, 'test_docs.py'))
    command = [python, '-m', 'pytest', '-p', 'no:cacheprovider', '-rsP', '-v', '-W', 'ignore', *names]
    print('$', *command, flush=True)
    last = ''
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True, env={
            **os.environ, 'KVKEEP_REAL_ENGINES': '1',
            'PATH': os.path.dirname(python) + ':' + os.environ['PATH']}) as done:
        for line in done.stdout:
            print(line, end='', flush=True)
            last = line.strip() or last
    if done.returncode not in (0, 1):
        print(f'\npytest ended with status {done.returncode}')
    counts = [int(match.group(1)) if (match := re.search(rf'(\d+) {word}', last)) else 0
              for word in ('passed', 'failed', 'skipped', 'error')]
    return counts[0], counts[1] + counts[3] + (done.returncode not in (0, 1)), counts[2]


def main():
    folder = os.path.join(ROOT, 'build-engines')
    try:
        passed, failed, skipped = check(environment(folder), folder, sys.argv[1:] or list(CONTRACTS))
    except subprocess.CalledProcessError as error:
        print(f'the engines could not be installed (status {error.returncode})')
        passed, failed, skipped = 0, 0, 1
    finally:
        if not os.environ.get('KVKEEP_KEEP'):
            shutil.rmtree(folder, ignore_errors=True)
    print(f'{passed} passed, {failed} failed, {skipped} skipped')
    return 0 if passed and not failed else 1


if __name__ == '__main__':
    sys.exit(main())
