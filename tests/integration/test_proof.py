#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
The runner of the long proof, on a build folder with programs of its own: what is counted, what goes on in a later call, what
a failed run leaves, and what of the document it may write. And what `make check` runs of the corpus.

Usage: test_proof.py SOURCE BUILD        speaks TAP
"""

import contextlib
import importlib.machinery
import importlib.util
import io
import json
import os
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
SOURCE, BUILD = sys.argv[1:3]
PROGRAM = '''#!/bin/sh
echo "1..2"
echo "ok 1 - first"
if [ -e "$0.fails" ]; then cat "$0.fails" >&2; echo "not ok 2 - second"; echo "# it is so"; exit 1; fi
echo "SKIP: no such disk"; echo "not ok 2 # SKIP second"
echo "$KVK_SEED $KVK_STEPS $KVK_ONLY $*" >>"$0.runs"
echo "# proof: row=1 count=${KVK_STEPS:-7} unit=answers wrong=0 hits=3"
echo "# proof: row=1 count=100 unit=others wrong=0"
echo "# proof: row=2 count=100 unit=answers wrong=0"
'''
DOCUMENT = 'by hand before\n{begin}what was there\n{end}by hand after\n'


def load_runner():
    loader = importlib.machinery.SourceFileLoader('proof', os.path.join(SOURCE, 'scripts', 'proof'))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader('proof', loader))
    loader.exec_module(module)
    return module


class World:
    """A build folder with two programs, a corpus and a document."""

    def __init__(self, folder):
        self.proof = load_runner()
        table = self.proof.table
        table.ROWS = [table.Row(1, 'one', [table.Test('first', 'answers', 100, 'KVK_STEPS', 10, only='some*')]),
                      table.Row(2, 'two', [table.Test('second')], 'the other half'),
                      table.Row(3, 'three', [], 'all of it')]
        self.folder = folder
        os.makedirs(os.path.join(folder, 'meson-info'))
        tests = []
        for name in ['first', 'second']:
            with open(self.path(name), 'w', encoding='utf-8') as file:
                file.write(PROGRAM)
            os.chmod(self.path(name), 0o755)
            tests.append({'name': name, 'suite': ['kvkeep:unit'], 'cmd': [self.path(name)], 'env': {}})
        self.write('meson-info/intro-tests.json', json.dumps(tests))
        self.write('meson-info/intro-buildoptions.json', json.dumps([{'name': 'b_sanitize', 'value': 'none'}]))
        self.write('document', DOCUMENT.format(begin=self.proof.BEGIN, end=self.proof.END))

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        with open(self.path(name), 'w', encoding='utf-8') as file:
            file.write(text)

    def read(self, name):
        if not os.path.exists(self.path(name)):
            return ''
        with open(self.path(name), encoding='utf-8') as file:
            return file.read()

    def run(self, *arguments):
        """Status and what was said."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            status = self.proof.main([self.folder, '--output', self.path('document'), '--corpus', self.path('corpus'),
                                      *arguments])
        return status, said.getvalue()


def expect(truth, what):
    if not truth:
        raise AssertionError(what)


def counts_up_to_the_goal(world):
    status, said = world.run('--minutes', '1')
    expect(status == 0, said)
    expect('| 1 | one | first (some) | 100 answers,' in world.read('document'), world.read('document'))
    runs = world.read('first.runs').splitlines()
    expect(all(run.split()[2] == 'some*' for run in runs), runs)
    expect(sum(int(run.split()[1]) for run in runs) == 100, runs)
    expect(len({run.split()[0] for run in runs}) == len(runs), 'a seed was used twice')
    expect(len(world.read('second.runs').splitlines()) == 1, 'what has no scale runs once')


def goes_on_where_it_was(world):
    world.run('--counts', '20')
    before = len(world.read('first.runs').splitlines())
    expect('20 answers' in world.read('document'), world.read('document'))
    world.run('--counts', '20')
    expect('40 answers' in world.read('document'), world.read('document'))
    expect(len(world.read('first.runs').splitlines()) > before, 'the second call did nothing')
    expect(len(world.read('second.runs').splitlines()) == 1, 'what was whole was run again')
    # Of other sources nothing counts.
    world.write('proof.jsonl', world.read('proof.jsonl').replace('"commit": "', '"commit": "x'))
    world.run('--document')
    expect('40 answers' not in world.read('document') and '| first (some) | not run | 100 |' in world.read('document'), world.read('document'))


def leaves_what_is_written_by_hand(world):
    world.run('--document')
    text = world.read('document')
    expect(text.startswith('by hand before\n') and text.endswith('by hand after\n'), text)
    expect('what was there' not in text and '- row 2: the other half' in text and '| 3 | three | no test |' in text, text)
    world.write('document', 'no marks\n')
    try:
        world.run('--document')
    except SystemExit as end:
        expect('marks' in str(end.code), end.code)
    else:
        raise AssertionError('a document without marks was written')
    expect(world.read('document') == 'no marks\n', 'it was written all the same')


def tells_skips_with_their_reasons(world):
    world.run('--rows', '2')
    expect('- row 2, second: second: no such disk' in world.read('document'), world.read('document'))


def a_failed_run_is_kept_and_run_first(world):
    world.write('first.fails', '')
    status, said = world.run('--rows', '1')
    expect(status == 1 and 'FAILED 1 cases, the first: first: second: it is so' in said, said)
    entry = json.loads(world.read('corpus'))
    expect(entry['row'] == 1 and entry['environment']['KVK_STEPS'] == '10' and entry['environment']['KVK_SEED'], entry)
    expect('- row 1, first: second: it is so' in world.read('document'), world.read('document'))
    expect('| 1 of 1 |' in world.read('document'), world.read('document'))
    # Again: it fails in the same way, and is kept once.
    status, said = world.run('--replay')
    expect(status == 1 and 'corpus 1: row 1' in said, said)
    status, said = world.run('--rows', '2')
    expect(status == 0 and 'corpus' not in said, said)
    os.remove(world.path('first.fails'))
    status, said = world.run('--replay', '1')
    expect(status == 0 and 'passes' in said, said)
    expect(world.read('first.runs').split()[0] == entry['environment']['KVK_SEED'], 'another seed')
    expect(world.run('--replay', '2')[0] == 1, 'there is no second one')
    expect(len(world.read('corpus').splitlines()) == 1, world.read('corpus'))


def of_many_the_one_that_failed_is_kept(world):
    """A slice is a minute; what failed in it, and runs with every test from then on, may be a moment."""
    world.write('first.fails', 'ERROR: 3 bytes (KVK_ONLY=some_bytes KVK_STEPS=1 KVK_SEED=77)\n(not this)\n')
    status, said = world.run('--rows', '1')
    expect(status == 1, said)
    entry = json.loads(world.read('corpus'))
    expect(entry['environment'] == {'KVK_STEPS': '1', 'KVK_SEED': '77', 'KVK_ONLY': 'some_bytes'}, entry)
    os.remove(world.path('first.fails'))
    expect(world.run('--replay')[0] == 0, 'it fails without a cause')
    expect(world.read('first.runs').splitlines() == ['77 1 some_bytes '], world.read('first.runs'))


def takes_the_seed_that_is_asked_for(world):
    world.run('--rows', '1', '--seed', '4711')
    expect(world.read('first.runs').splitlines() == ['4711 10 some* '], world.read('first.runs'))


def speaks_tap_of_the_corpus(world):
    status, said = world.run('--tap')
    expect(status == 0 and said.startswith('1..1\nok 1 '), said)
    line = {'row': 1, 'test': 'first (some)', 'environment': {'KVK_SEED': '5', 'KVK_STEPS': '10'}, 'arguments': []}
    world.write('corpus', json.dumps(line) + '\n')
    status, said = world.run('--tap')
    expect(status == 0 and said.startswith('1..2\nok 1 ') and '\nok 2 ' in said, said)
    world.write('first.fails', '')
    status, said = world.run('--tap')
    expect(status == 1 and '\nnot ok 2 ' in said, said)
    world.write('corpus', json.dumps({**line, 'test': 'third'}) + '\n')
    status, said = world.run('--tap')
    expect(status == 1 and said.startswith('1..1\nnot ok 1 '), said)


def every_test_of_the_rows_is_built(world):
    """Not of that world: of this build. A row whose program was renamed would be left out in silence."""
    rows = load_runner().table
    place = load_runner().Place(BUILD, rows.ROWS)
    missing = [test.name for row in rows.ROWS for test in row.tests
               if test.name not in place.programs and test.name != rows.REST]
    expect(not missing, f'no such tests: {missing}')
    expect([row.number for row in rows.ROWS] == list(range(1, 20)), 'the rows are not 1 to 19')
    expect(all(row.tests or row.missing for row in rows.ROWS), 'a row without tests says nothing')


def main():
    corpus = subprocess.run([os.path.join(SOURCE, 'scripts', 'proof'), BUILD, '--tap'], capture_output=True, text=True,
                            check=False)
    lines = corpus.stdout.splitlines()
    cases = [counts_up_to_the_goal, goes_on_where_it_was, leaves_what_is_written_by_hand, tells_skips_with_their_reasons,
             a_failed_run_is_kept_and_run_first, of_many_the_one_that_failed_is_kept, takes_the_seed_that_is_asked_for,
             speaks_tap_of_the_corpus,
             every_test_of_the_rows_is_built]
    failed = corpus.returncode != 0
    number = sum(line.startswith(('ok ', 'not ok ')) for line in lines)
    print(f'1..{number + len(cases)}')
    print('\n'.join(line for line in lines if not line.startswith('1..')))
    if number == 0:
        print(f'# the corpus did not run: {corpus.stderr}')
        return 1
    for number, case in enumerate(cases, number + 1):
        with tempfile.TemporaryDirectory() as folder:
            try:
                case(World(os.path.join(folder, 'build')))
                print(f'ok {number} - {case.__name__}')
            except AssertionError as error:
                failed = True
                print(f'not ok {number} - {case.__name__}')
                print(''.join(f'# {line}\n' for line in str(error).splitlines()), end='')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
