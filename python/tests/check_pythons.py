#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
One wheel in every Python that is here: `make check-pythons`.

Usage: check_pythons.py [3.10] [3.12] ...        all that are found if none is named

Makes the wheel once, with the Python that runs this, and for each other one a virtual environment below build-pythons/ with
that wheel, pytest and numpy, in which the package's tests run. Interpreters are looked for where commands are found, where
pyenv keeps its versions, and in KVKEEP_PYTHONS (paths with `:` between). What is not found is named and counted as
skipped. Ends with a line `N passed, N failed, N skipped`.
"""

import glob
import os
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))

# The minor versions that the package is to be tried with; others that are found are tried as well.
WANTED = (10, 11, 12, 13)
# A Python without its lock has no limited API, and takes no such wheel. A command may be a stand-in that starts nothing.
ABOUT = """
import platform, sys, sysconfig, venv
if platform.python_implementation() == 'CPython' and not sysconfig.get_config_var('Py_GIL_DISABLED'):
    print(sys.version_info.minor if sys.version_info[0] == 3 else 0)
"""


def candidates():
    for folder in os.environ.get('PATH', '').split(os.pathsep):
        yield from sorted(glob.glob(os.path.join(glob.escape(folder), 'python3.[1-9][0-9]')))
    versions = os.path.join(os.environ.get('PYENV_ROOT') or os.path.expanduser('~/.pyenv'), 'versions')
    yield from sorted(glob.glob(os.path.join(glob.escape(versions), '3.*', 'bin', 'python3.[1-9][0-9]')))


def found():
    """{minor: path} of each Python 3.10 and later that runs here and can make virtual environments."""
    pythons = {}
    for path in [*filter(None, os.environ.get('KVKEEP_PYTHONS', '').split(os.pathsep)), *candidates()]:
        name = re.search(r'python3\.(\d+)$', path)
        if name and int(name.group(1)) in pythons:
            continue
        try:
            done = subprocess.run([path, '-c', ABOUT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        except OSError:
            continue
        if done.returncode == 0 and done.stdout.strip().isdigit() and int(done.stdout) >= 10:
            pythons.setdefault(int(done.stdout), path)
    return pythons


def run(*command, **how):
    print('$', *command, flush=True)
    subprocess.run(command, check=True, **how)


def wheel(folder):
    run(os.path.join(ROOT, 'scripts', 'wheel'), folder)
    (path,) = glob.glob(os.path.join(folder, 'kvkeep-*-cp310-abi3-*.whl'))
    return path


def wants():
    """Of what the tests want, what they want at run time."""
    with open(os.path.join(ROOT, 'python', 'requirements-test.txt'), encoding='utf-8') as file:
        return [line.strip() for line in file if line.startswith(('numpy', 'pytest'))]


def check(python, path, folder):
    """Runs the tests with that Python, and returns (passed, failed, skipped)."""
    shutil.rmtree(folder, ignore_errors=True)
    inside = os.path.join(folder, 'bin', 'python')
    try:
        run(python, '-m', 'venv', folder)
        run(inside, '-m', 'pip', 'install', '-q', '--disable-pip-version-check', path, *wants())
    except subprocess.CalledProcessError as error:
        print(f'it could not be installed (status {error.returncode})')
        return 0, 1, 0
    done = subprocess.run([inside, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-rs', HERE], cwd=folder,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env={**os.environ, 'PYTHONDONTWRITEBYTECODE': '1',
                               'PATH': os.path.dirname(inside) + ':' + os.environ['PATH']})
    print(done.stdout, flush=True)
    last = (done.stdout.strip().splitlines() or [''])[-1]
    counts = {word: int(count) for count, word in re.findall(r'(\d+) (passed|failed|skipped|error)', last)}
    failed = counts.get('failed', 0) + counts.get('error', 0)
    return counts.get('passed', 0), failed or int(done.returncode != 0), counts.get('skipped', 0)


def main():
    folder = os.path.join(ROOT, 'build-pythons')
    pythons = found()
    named = [int(word.partition('.')[2]) for word in sys.argv[1:]] or sorted({*WANTED, *pythons})
    path = wheel(folder)
    totals, lines = [0, 0, 0], []
    for minor in named:
        if minor in pythons:
            counts = check(pythons[minor], path, os.path.join(folder, f'3.{minor}'))
            lines.append('Python 3.{}: {} passed, {} failed, {} skipped'.format(minor, *counts))
        else:
            counts = (0, 0, 1)
            lines.append(f'Python 3.{minor}: SKIPPED, there is none here')
        totals = [total + count for total, count in zip(totals, counts)]
    print(os.path.basename(path), *lines, sep='\n')
    print('{} passed, {} failed, {} skipped'.format(*totals))
    return 0 if totals[0] and not totals[1] else 1


if __name__ == '__main__':
    sys.exit(main())
