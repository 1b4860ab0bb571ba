#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
Builds and installs the Python package as a user does (`pip install .`), into a virtual environment of its own, runs
its tests with pytest, and tells them in TAP. Then makes the wheel, and uses it where there is nothing but Python.

Usage: test_python.py SOURCE BUILD SANITIZE

The environment stays in BUILD/python-venv, so that only the first run fetches what pytest and the build want. Where
there are no headers of Python, or that cannot be fetched, everything is skipped; a package that does not build fails.
"""

import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree

HAS_HEADERS = ('import os, sys, sysconfig, venv, ensurepip; sys.exit(sys.version_info < (3, 10) or not '
               'os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))')


def skip(why):
    print(f'the Python package: {why}')
    sys.exit(77)


def interpreter():
    for python in [sys.executable, shutil.which('python3'), '/usr/bin/python3']:
        if python and subprocess.run([python, '-c', HAS_HEADERS], capture_output=True).returncode == 0:
            return python
    skip('no Python 3.10 or later with headers and venv (python3-dev, python3-venv)')


def run(command, **how):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **how)
    return done.returncode, done.stdout


def environment(source, build):
    """A virtual environment with what the tests want; made anew when that changes."""
    requirements = os.path.join(source, 'python', 'requirements-test.txt')
    python = interpreter()
    with open(requirements, 'rb') as file:
        state = hashlib.sha256(file.read() + python.encode()).hexdigest()
    folder = os.path.join(build, 'python-venv')
    stamp = os.path.join(folder, 'stamp')
    inside = os.path.join(folder, 'bin', 'python')
    if os.path.exists(stamp) and open(stamp).read() == state:
        return inside
    shutil.rmtree(folder, ignore_errors=True)
    for command in ([python, '-m', 'venv', folder],
                    [inside, '-m', 'pip', 'install', '-q', '--disable-pip-version-check', '-r', requirements]):
        status, said = run(command)
        if status:
            skip('cannot fetch what its tests want: ' + (said.strip().splitlines() or ['no reason given'])[-1])
    with open(stamp, 'w') as file:
        file.write(state)
    return inside


def install(python, source, build):
    status, said = run([python, '-m', 'pip', 'install', '-q', '--disable-pip-version-check', '--no-deps',
                        '--no-build-isolation', '--force-reinstall',
                        '-Cbuild-dir=' + os.path.join(build, 'python-build'), source],
                       env={**os.environ, 'PATH': os.path.dirname(python) + ':' + os.environ['PATH']})
    print(f'{"not ok" if status else "ok"} 1 - pip install')
    if status:
        for line in said.splitlines()[-60:]:
            print('# ' + line)
    return status == 0


def cases(report):
    """(name, state, text) of each test in a JUnit report."""
    for case in xml.etree.ElementTree.parse(report).iter('testcase'):
        name = f'{case.get("classname").split(".")[-1]}.{case.get("name")}'
        failed = [part for part in case if part.tag in ('failure', 'error')]
        skipped = case.find('skipped')
        if failed:
            yield name, 'failed', '\n'.join(f'{part.get("message")}\n{part.text}' for part in failed)
        elif skipped is not None:
            # Of a whole file that is skipped the reason stands in the text, behind the file's path.
            whole = re.search(r"'Skipped: (.*)'\)$", skipped.text or '')
            yield name, 'skipped', whole.group(1) if whole else skipped.get('message')
        else:
            yield name, 'passed', ''


# What runs where only the wheel was installed: a store, and whose libraries are loaded.
TRIAL = """
import sys, kvkeep, kvkeep.lmcache
with kvkeep.open(sys.argv[1]) as store:
    store.put('a key', b'one')
    assert store.get('a key') == b'one'
with open('/proc/self/maps') as maps:
    print(*sorted({line.split()[-1] for line in maps if '.so' in line}), sep='\\n')
"""
BROUGHT = ('libcrypto', 'libisal', 'libjansson', 'liburing', 'libxxhash')


def wheel(python, source, build):
    """(name, what is wrong or '') of each step that makes and uses the wheel."""
    folder = os.path.join(build, 'python-wheel')
    status, said = run([os.path.join(source, 'scripts', 'wheel'), folder, os.path.dirname(os.path.dirname(python)),
                        os.path.join(build, 'python-build')])
    path = (said.strip().splitlines() or [''])[-1]
    right = status == 0 and re.fullmatch(r'kvkeep-[0-9.]+-cp310-abi3-manylinux_\d+_\d+_\w+\.whl', os.path.basename(path))
    yield 'wheel.one_command_makes_it', '' if right else said
    if not right:
        return
    clean = os.path.join(build, 'python-clean')
    shutil.rmtree(clean, ignore_errors=True)
    bare = {'PATH': os.path.join(clean, 'bin'), 'HOME': clean, 'LANG': 'C.UTF-8'}
    inside = os.path.join(clean, 'bin', 'python')
    for command in ([python, '-m', 'venv', '--without-pip', clean],
                    [python, '-m', 'pip', '--python', inside, 'install', '-q', '--no-index', '--no-deps', path]):
        status, said = run(command, env=bare)
        if status:
            break
    yield 'wheel.installs_without_compilers', said if status else ''
    if status:
        return
    store = os.path.join(clean, 'store')
    status, said = run([inside, '-c', TRIAL, store], env=bare, cwd='/')
    yield 'wheel.a_store_opens', said if status else ''
    yield 'wheel.its_libraries_are_its_own', foreign(said, clean)
    doctor = [run(command + ['doctor', store, '--json'], env=bare, cwd='/')
              for command in ([inside, '-m', 'kvkeep'], [os.path.join(clean, 'bin', 'kvkeep')])]
    yield 'wheel.doctor_answers', '\n'.join(said for status, said in doctor if status or not said.startswith('{'))
    # The dynamic loader's own list, as ldd prints it.
    command = glob.glob(os.path.join(clean, 'lib', '*', 'site-packages', 'kvkeep', 'bin', 'kvkeep-command'))
    status, said = run(command, env={**bare, 'LD_TRACE_LOADED_OBJECTS': '1'})
    yield 'wheel.the_libraries_of_the_command_are_its_own', said if status else foreign(
        '\n'.join(line.split()[2] for line in said.splitlines() if '=>' in line), clean)


def foreign(said, clean):
    """What is wrong with the libraries that were loaded. Python itself may bring another libcrypto, for its hashes."""
    paths = [os.path.realpath(path) for path in said.split() if any(name in path for name in BROUGHT)]
    ours = [path for path in paths if path.startswith(os.path.realpath(clean) + '/')]
    absent = [name for name in BROUGHT if not any(name in path for path in ours)]
    others = [path for path in paths if path not in ours and 'libcrypto' not in path]
    return f'not its own: {others}; not loaded: {absent}\n{said}' if absent or others else ''


def main():
    source, build, sanitize = sys.argv[1:4]
    if sanitize != 'none':
        skip('pip builds it without sanitizers; it is tested by a build without them')
    python = environment(source, build)
    if not install(python, source, build):
        print('1..1')
        return 1
    report = os.path.join(build, 'python-report.xml')
    if os.path.exists(report):
        os.remove(report)
    status, said = run([python, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', f'--junitxml={report}',
                        os.path.join(source, 'python', 'tests')],
                       cwd=build, env={**os.environ, 'PYTHONDONTWRITEBYTECODE': '1'})
    found = list(cases(report)) if os.path.exists(report) else []
    if status and not any(state == 'failed' for _, state, _ in found):
        found.append(('pytest', 'failed', said))
    found += [(name, 'failed' if wrong else 'passed', wrong) for name, wrong in wheel(python, source, build)]
    print(f'1..{len(found) + 1}')
    for number, (name, state, text) in enumerate(found, 2):
        skipped = f' # SKIP {text}' if state == 'skipped' else ''
        print(f'{"not ok" if state == "failed" else "ok"} {number} - {name}{skipped}')
        if state == 'failed':
            for line in text.splitlines():
                print('# ' + line)
    return int(any(state == 'failed' for _, state, _ in found))


if __name__ == '__main__':
    sys.exit(main())
