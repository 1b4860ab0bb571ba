#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
Replays the beginning of an hour of real chat traffic against a store: as it is, killed in the middle, and under a cap.
What the command reports is compared with a count of leading known blocks that is made here, from the trace alone.

Usage: test_trace.py KVKEEP SOURCE        speaks TAP; skipped where ../shared/traces beside SOURCE has no trace
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile

REQUESTS = 2000
# 512 tokens a block: 4 KiB, so that 2,000 requests are 160 MB.
BYTES_PER_TOKEN = 8
BLOCK_BYTES = 512 * BYTES_PER_TOKEN


# A replay leaves 320 MB before it is removed. What is compared is counts, whatever the medium.
MEMORY = '/dev/shm'
MEMORY_BYTES = 1 << 30


def home():
    """Where stores may lie: in memory where there is room, since 155,000 files are slow on a disk that others use."""
    if folder := os.environ.get('KVK_TEST_DIR'):
        return folder
    roomy = os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES
    return MEMORY if roomy else None


def count(trace):
    """Blocks asked for, distinct ones, and hits of a cache that keeps everything."""
    known, blocks, hits = set(), 0, 0
    with open(trace, encoding='utf-8') as lines:
        for _, line in zip(range(REQUESTS), lines):
            ids = json.loads(line)['hash_ids']
            blocks += len(ids)
            for block in ids:
                if block not in known:
                    break
                hits += 1
            known.update(ids)
    return blocks, len(known), hits


class Replays:
    """The command, each time in a folder of its own."""

    def __init__(self, kvkeep, trace, folder):
        self.kvkeep, self.trace, self.folder = kvkeep, trace, folder
        self.number, self.failed = 0, False

    def run(self, *options):
        store = os.path.join(self.folder, str(self.number))
        command = [self.kvkeep, 'replay', store, self.trace, '--requests', str(REQUESTS), '--bytes-per-token',
                   str(BYTES_PER_TOKEN), '--json', *options]
        ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        shutil.rmtree(store, ignore_errors=True)
        if not ran.stdout:
            return {'exit': ran.returncode, 'said': ran.stderr}
        return {'exit': ran.returncode, **json.loads(ran.stdout)}

    def check(self, name, options, expected):
        """expected: the value of each member, or a function that says whether a value is right."""
        self.number += 1
        report = self.run(*options)
        wrong = [key for key, value in expected.items()
                 if not (value(report.get(key)) if callable(value) else report.get(key) == value)]
        if report.get('hits') != report.get('model_hits'):
            wrong.append('model_hits')
        print('not ok' if wrong else 'ok', self.number, '-', name)
        for key in wrong:
            value = expected.get(key)
            print(f'# {key} is {report.get(key)!r}' + ('' if callable(value) else f', must be {value!r}'))
        if wrong:
            print('# ' + '\n# '.join(json.dumps(report, indent=1).splitlines()))
        self.failed |= bool(wrong)


# Of the whole trace, by the share of its 182,790 blocks that fits: counted by others, to a hundredth of a per cent.
LRU = {'1%': 5.25, '2%': 7.93, '5%': 19.58, '10%': 27.89, '20%': 34.53, '40%': 36.04}
BELADY = {'1%': 24.30, '2%': 31.14, '5%': 36.64, '10%': 36.64, '20%': 36.64, '40%': 36.64}


def check_simulation(kvkeep, trace):
    """Says whether the simulation disagrees; where two blocks come again in the same request Belady's choice is free."""
    command = [kvkeep, 'simulate', trace, '--json', '--policy', 'LRU']
    for share in LRU:
        command += ['--capacity', share]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    report = json.loads(done.stdout) if done.returncode == 0 else {'runs': []}
    hits = [round(100 * run['hit_ratio'], 2) for run in report['runs']]
    good = (hits[0::2] == list(LRU.values()) and len(hits) == 12 and report['accesses'] == 288500 and
            report['distinct_blocks'] == 182790 and
            all(least <= share <= least + 0.5 for least, share in zip(BELADY.values(), hits[1::2])))
    print(f"{'ok' if good else 'not ok'} 5 - simulate: the hits of LRU and of Belady's algorithm")
    if not good:
        print(f'# {hits}')
    return not good


def main():
    kvkeep, source = sys.argv[1:]
    trace = os.path.join(source, '..', 'shared', 'traces', 'conversation_trace.jsonl')
    if not os.path.exists(trace):
        print('1..0 # SKIP no ../shared/traces/conversation_trace.jsonl')
        return 0
    blocks, distinct, hits = count(trace)
    sound = {'exit': 0, 'ok': True, 'requests': REQUESTS, 'blocks': blocks, 'wrong_bytes': 0, 'disagreements': 0}
    print('1..5')
    with tempfile.TemporaryDirectory(dir=home()) as folder:
        replays = Replays(kvkeep, trace, folder)
        replays.check('every block that came before is a hit', [],
                      {**sound, 'hits': hits, 'unlimited_hits': hits, 'distinct_blocks': distinct,
                       'bytes_read': hits * BLOCK_BYTES, 'bytes_written': distinct * BLOCK_BYTES, 'restarts': 0})
        replays.check('one request at a time', ['--concurrency', '1'],
                      {**sound, 'hits': hits, 'bytes_written': distinct * BLOCK_BYTES})
        # A killed process had requests under way, which are played again and then find what they stored.
        replays.check('three kills', ['--kill-at', '500', '--kill-at', '1000', '--kill-at', '1500'],
                      {**sound, 'restarts': 3, 'hits': lambda value: value is not None and value >= hits})
        # Room for a quarter of it: what finds none is told so, and everything else is as the model says.
        capacity = distinct * (BLOCK_BYTES + 4096) // 4
        replays.check('room for a quarter', ['--capacity', str(capacity)],
                      {**sound, 'no_room': lambda value: value is not None and value > 0,
                       'hits': lambda value: value is not None and 0 < value <= hits,
                       'bytes_written': lambda value: value is not None and value <= capacity})
    return 1 if check_simulation(kvkeep, trace) or replays.failed else 0


if __name__ == '__main__':
    sys.exit(main())
