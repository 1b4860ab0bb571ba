#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
Builds and installs the Python package as a user does (`pip install .`), into a virtual environment of its own, runs
its tests with pytest, and tells them in TAP. Then makes the wheel, and uses it where there is nothing but Python: the
one that built it, and each other one that is here, of which a missing one is named as skipped.

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

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(sys.argv[1], 'python', 'tests'))
import check_pythons  # noqa: E402

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
# What runs in every Python: each way into the extension, references that come and go, and its errors.
USE = """
import asyncio, gc, select, sys, kvkeep
from kvkeep.lmcache import Connector
keys = [f'm@00000000@0@{number:08x}' for number in range(200)]
values = [key.encode() * 300 for key in keys]
with kvkeep.open(sys.argv[1] + '/a', namespace={'a': 1}) as store:
    assert store.put_many(keys, values) == [True] * len(keys)
    assert store.put(keys[0], values[0]) is False and store.get_many(keys) == values
    room = [bytearray(len(value)) for value in values]
    assert store.get_into_many(keys, room) == list(map(len, values)) and room == values
    asyncio.run(store.aput('b', memoryview(b'two')))
    assert asyncio.run(store.aget('b')) == b'two' and store.get('none') is None
    assert sorted(entry.key for entry in store.entries()) == sorted([b'b', *map(str.encode, keys)])
    assert store.remove('b') is True and store.has('b') is False
    assert store.pin_many(keys[:2]) == [True, True] and set(store) == set(map(str.encode, keys))
try:
    store.get('b')
    sys.exit('a closed store answered')
except kvkeep.ClosedError:
    pass
try:
    kvkeep.open({'backend': 'none'})
    sys.exit('a medium that does not exist was opened')
except kvkeep.SpecError as error:
    assert 'backend' in str(error)
host = Connector(file_path=sys.argv[1] + '/b')
poll = select.poll()
poll.register(host.event_fd(), select.POLLIN)
for call, *args in (('set', keys, list(map(memoryview, values))), ('exists', keys), ('get', keys, list(map(memoryview, room)))):
    task, done = getattr(host, 'submit_batch_' + call)(*args), []
    while not done:
        assert poll.poll(30000)
        done = host.drain_completions()
    assert done[0][:2] == (task, True)
host.close()
gc.collect()
print(sys.version_info.minor)
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


def other_pythons(python, wheel_path, build):
    """(name, state, text) of each Python that one wheel is for."""
    pythons = check_pythons.found()
    for minor in sorted({*check_pythons.WANTED, *pythons}):
        name = f'wheel.runs_with_python_3_{minor}'
        if minor not in pythons:
            yield name, 'skipped', f'no Python 3.{minor} is installed'
            continue
        clean = os.path.join(build, 'python-others', str(minor))
        shutil.rmtree(clean, ignore_errors=True)
        inside = os.path.join(clean, 'bin', 'python')
        bare = {'PATH': os.path.join(clean, 'bin'), 'HOME': clean, 'LANG': 'C.UTF-8'}
        for command in ([pythons[minor], '-m', 'venv', '--without-pip', clean],
                        [python, '-m', 'pip', '--python', inside, 'install', '-q', '--no-index', '--no-deps', wheel_path],
                        [inside, '-W', 'error', '-c', USE, clean]):
            status, said = run(command, env=bare, cwd='/')
            if status:
                break
        yield (name, 'passed', '') if said == f'{minor}\n' else (name, 'failed', said)


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
    made = glob.glob(os.path.join(build, 'python-wheel', 'kvkeep-*.whl'))
    found += [case for path in made for case in other_pythons(python, path, build)]
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
