#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
scripts/coverage: what a mark in a comment leaves out of the counts, which marks are refused, and how a room is judged.

Usage: test_coverage.py SOURCE        speaks TAP
"""

import contextlib
import importlib.machinery
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
SOURCE = sys.argv[1]
# Line 4 has four branches, of which two are taken; line 15 has two, and both are. Line 11 does not run.
PROGRAM = '''#include <stdlib.h>
int room(int a, int b)
{
	if (a && b) {%s
		return 1;
	}
	return 0;
}
int unused(void)
{
	return 2;%s
}
int main(void)
{
	for (int i = 0; i < 1; i++)
		room(1, i);
	return 0;
}
'''


class Skip(Exception):
    pass


def load():
    loader = importlib.machinery.SourceFileLoader('coverage', os.path.join(SOURCE, 'scripts', 'coverage'))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader('coverage', loader))
    loader.exec_module(module)
    return module


def expect(condition, said):
    if not condition:
        raise AssertionError(said)


def expect_same(found, wanted):
    expect(found == wanted, f'found  {found}\nwanted {wanted}')


def each_mark_is_read_where_it_stands(coverage):
    text = '''int a; /* LCOV_EXCL_BR_LINE: cannot fail here */
int b; // LCOV_EXCL_LINE: nobody calls it
/*
 * LCOV_EXCL_BR_LINE: of this line, whatever
 * stands in the next
 */
/* LCOV_EXCL_START: all of these */
int c;
int d; /* LCOV_EXCL_STOP */
int e;
'''
    marked, faults = coverage.read_marks(text)
    expect_same(faults, [])
    expect_same(marked, {1: 'BR_LINE', 2: 'LINE', 4: 'BR_LINE', 7: 'START', 8: 'START', 9: 'START'})


def what_is_no_comment_marks_nothing(coverage):
    text = 'const char *a = "/* LCOV_EXCL_LINE: no */";\nint LCOV_EXCL_LINE;\nchar b = \'"\'; /* LCOV_EXCL_LINE: yes */\n'
    expect_same(coverage.read_marks(text), ({3: 'LINE'}, []))


def a_mark_without_a_reason_is_refused(coverage):
    for mark in ['LCOV_EXCL_BR_LINE', 'LCOV_EXCL_LINE', 'LCOV_EXCL_BR_LINE:', 'LCOV_EXCL_BR_LINE: -', 'LCOV_EXCL_LINE cannot be']:
        for text in [f'\nint a; /* {mark} */\n', f'\nint a; /* {mark}*/ int b;\n', f'\nint a; // {mark}\n',
                     f'/*\n{mark}\nthe next line is no reason */\n']:
            marked, faults = coverage.read_marks(text)
            expect(not marked and len(faults) == 1 and faults[0][0] == 2 and 'without a reason' in faults[0][1],
                   f'{text!r}: {marked} {faults}')


def pairs_have_both_ends(coverage):
    for text, line, said in [
            ('/* LCOV_EXCL_START */\n/* LCOV_EXCL_STOP */\n', 1, 'without a reason'),
            ('\n/* LCOV_EXCL_START: why */\n\n', 2, 'without LCOV_EXCL_STOP'),
            ('\n\n/* LCOV_EXCL_STOP */\n', 3, 'ends nothing'),
            ('/* LCOV_EXCL_START: a */\n/* LCOV_EXCL_START: b */\n/* LCOV_EXCL_STOP */\n', 2, 'line 1 has not ended'),
            ('/* LCOV_EXCL_BR_START: why */\n', 1, 'is no mark')]:
        faults = coverage.read_marks(text)[1]
        expect(faults and faults[0][0] == line and said in faults[0][1], f'{text!r}: {faults}')


def what_is_marked_counts_on_neither_side(coverage):
    lines = {1: (5, [1, 0]), 2: (5, [0, 0]), 3: (0, [0, 0]), 4: (0, []), 5: (9, [4, 5])}
    text = 'a\nb /* LCOV_EXCL_BR_LINE: b */\nc /* LCOV_EXCL_LINE: c */\nd\ne /* LCOV_EXCL_BR_LINE: needless */\n'
    file = coverage.File(lines, text)
    total = coverage.Sum()
    total.add(file)
    expect_same((total.lines, total.lines_run, total.branches, total.branches_taken, total.left_out), (4, 3, 2, 1, 6))
    expect_same(file.needless, [5])


def said_by(function, *arguments):
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        result = function(*arguments)
    return result, said.getvalue()


def a_room_is_judged_by_its_branches(coverage):
    coverage.GOALS = {'src/a': 100, 'src': 90}

    def files(a, b):
        return {'src/a/a.c': coverage.File({1: (1, a)}, ''), 'src/b.c': coverage.File({1: (1, b)}, ''),
                'src/ab/c.c': coverage.File({1: (1, [1])}, ''), 'cli/d.c': coverage.File({1: (1, [0] * 100)}, '')}

    for a, b, folders, enough, parts in [
            ([1, 1], [1] * 7, ['src'], True, ['src/a: 100 of 100 branches are to be taken: 2 of 2 are\n', '10 of 10 are\n']),
            ([1, 0], [1] * 17, ['src'], False, ['src/a: 100 of 100 branches are to be taken: 1 of 2 are, 1 too few\n',
                                                'src: 90 of 100 branches are to be taken: 19 of 20 are\n']),
            ([1, 1], [1] * 6 + [0], ['src', 'cli'], True, ['9 of 10 are\n']),
            ([1, 1], [1] * 6 + [0] * 2, ['src', 'cli'], False, ['9 of 11 are, 1 too few\n']),
            ([1, 0], [0], ['src/b.c'], True, ['']),
            ([1, 1], [0], ['src/a'], True, ['2 of 2 are\n']),
            ([], [1], ['src/a'], False, ['none was counted\n'])]:
        found, said = said_by(coverage.judge, files(a, b), folders)
        expect(found == enough and all(each in said for each in parts), f'{a} {b} {folders}: {found}\n{said}')
        expect(('src: ' in said) == ('src' in folders), said)


def a_build_is_counted_and_judged(coverage):
    """The whole way, with a compiler."""
    if not (shutil.which('gcc') and shutil.which('gcov')):
        raise Skip('gcc and gcov are missing')
    coverage.GOALS = {'src/room': 100}
    lacks = 'src/room: 100 of 100 branches are to be taken: 4 of 6 are, 2 too few\n'
    for marks, options, status, parts in [
            (('', ''), ['--missed'], 1, [lacks, '    4    2/4  if (a && b) {\n', '   11      -  return 2;\n']),
            (('', ''), ['src/room/program.c'], 0, ['4 of      6']),
            (('', ''), ['--only-print'], 0, ['4 of      6']),
            ((' /* LCOV_EXCL_BR_LINE: b is never set */', ' /* LCOV_EXCL_LINE: nobody calls it */'), ['src/room'], 0,
             [' 7 of      9   77.8 %        2 of      2  100.0 %        4\n',
              'src/room: 100 of 100 branches are to be taken: 2 of 2 are\n'])]:
        with tempfile.TemporaryDirectory() as root:
            coverage.ROOT = os.path.realpath(root)
            os.makedirs(os.path.join(root, 'src', 'room'))
            path = os.path.join(coverage.ROOT, 'src', 'room', 'program.c')
            with open(path, 'w', encoding='utf-8') as file:
                file.write(PROGRAM % marks)
            build = os.path.join(coverage.ROOT, 'build')
            os.mkdir(build)
            subprocess.run(['gcc', '--coverage', '-O0', '-o', 'program', path], cwd=build, check=True)
            subprocess.run(['./program'], cwd=build, check=True)
            found, said = said_by(coverage.main, [build, *options])
            expect(found == status and all(each in said for each in parts), f'{marks} {options}: {found}\n{said}')
            with open(path, 'a', encoding='utf-8') as file:
                file.write('/* LCOV_EXCL_LINE */\n')
            for refusal in ['src/room/program.c:19: LCOV_EXCL_LINE without a reason', 'stamp mismatch']:
                try:
                    found, said = said_by(coverage.main, [build])
                    raise AssertionError(f'{found}\n{said}')
                except SystemExit as refused:
                    expect(refusal in str(refused.code), refused.code)
                # Built, and not run since.
                with open(path, 'a', encoding='utf-8') as file:
                    file.write(f'int more_{len(refusal)}(void) {{ return 1; }}\n')
                subprocess.run(['gcc', '--coverage', '-O0', '-o', 'program', path], cwd=build, check=True)


def every_mark_of_the_tree_has_a_reason(coverage):
    faults = []
    for top in ['src', 'cli', 'include']:
        for folder, _, names in os.walk(os.path.join(SOURCE, top)):
            for path in [os.path.join(folder, name) for name in names if name.endswith(('.c', '.h'))]:
                with open(path, encoding='utf-8') as file:
                    faults += [f'{os.path.relpath(path, SOURCE)}:{line}: {fault}'
                               for line, fault in coverage.read_marks(file.read())[1]]
    expect(not faults, '\n'.join(faults))


def main():
    cases = [each_mark_is_read_where_it_stands, what_is_no_comment_marks_nothing, a_mark_without_a_reason_is_refused,
             pairs_have_both_ends, what_is_marked_counts_on_neither_side, a_room_is_judged_by_its_branches,
             a_build_is_counted_and_judged, every_mark_of_the_tree_has_a_reason]
    failed = False
    print(f'1..{len(cases)}')
    for number, case in enumerate(cases, 1):
        try:
            case(load())
            print(f'ok {number} - {case.__name__}')
        except Skip as reason:
            print(f'ok {number} - {case.__name__} # SKIP {reason}')
        except AssertionError as error:
            failed = True
            print(f'not ok {number} - {case.__name__}')
            print(''.join(f'# {line}\n' for line in str(error).splitlines()), end='')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
