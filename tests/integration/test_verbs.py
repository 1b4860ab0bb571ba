#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
What programs rely on when they call the command: for every verb the exit status of work that is done (0), of what is
not there or does not pass a check (1) and of a wrong command line (2), and JSON on standard output that a parser takes.
Each row runs twice, for people and with --json, each time on a fresh copy of a small store.

Usage: test_verbs.py KVKEEP        speaks TAP
"""

import json
import os
import pty
import re
import shutil
import stat
import subprocess
import sys
import tempfile

KEY = 'm@00000000@0@01@t1'
OTHER = 'm@00000000@0@02@t2'
OBJECT_BYTES = 100_000
RAM = '{"backend": "RAM"}'
CHATS = 'chat:users=1,turns=2,systems=1,system=512,prompt=512,reply=0'
SICK = '{"backend_params": {"file_path": "store"}, "fault": [{"do": "fail", "ops": ["%s"], "error": "EIO", "chance": 1}]}'

# verb: rows of status, words after the verb, and for 0 the members of the JSON. In a list each element has them.
ROWS = {
    'put': [
        (0, ['store', 'new', 'in'], {'key', 'result', 'stored', 'bytes', 'time_us'}),
        (0, ['store', KEY, 'in'], {'key', 'result', 'stored', 'bytes', 'time_us'}),
        (0, ['fresh', KEY, 'in', '--meta', 'x', '--depth', '1', '--durability', 'object'], {'stored'}),
        (1, ['store', 'new', 'nowhere'], None),
        (1, ['{"backend_params": {"file_path": "store", "max_capacity_gb": 0.0002}}', 'new', 'large'], None),
        (1, [SICK % 'write', 'new', 'in'], None),
        (1, ['open', 'new', 'in'], None),
        (2, [], None),
        (2, ['store'], None),
        (2, ['store', 'k', 'in', 'more'], None),
        (2, ['store', 'hex:0', 'in'], None),
        (2, ['store', '', 'in'], None),
        (2, ['store', 'k', 'in', '--depth', 'deep'], None),
        (2, ['store', 'k', 'in', '--meta', 'x' * 257], None),
        (2, ['store', 'k', 'in', '--durability', 'some'], None),
    ],
    'get': [
        (0, ['store', KEY, 'out'], {'key', 'result', 'found', 'bytes', 'object_bytes', 'time_us'}),
        (0, ['store', KEY, 'out', '--offset', '5', '--length', '7'], {'bytes'}),
        (1, ['store', 'nobody', 'out'], None),
        (1, ['store', KEY, 'no/such/folder'], None),
        (1, [SICK % 'read', KEY, 'out'], None),
        (1, ['bad', KEY, 'out'], None),
        (1, ['absent', KEY, 'out'], None),
        (2, ['store'], None),
        (2, ['store', KEY, 'out', '--length', '0'], None),
    ],
    'has': [
        (0, ['store', KEY, OTHER], {'key', 'present', 'result', 'object_bytes'}),
        (0, ['store', KEY, '--quiet'], {'present'}),
        (1, ['store', KEY, 'nobody'], None),
        (1, ['absent', KEY], None),
        (2, ['store'], None),
        (2, ['store', 'hex:xy'], None),
    ],
    'rm': [
        (0, ['store', KEY, OTHER], {'key', 'removed', 'result', 'object_bytes'}),
        (1, ['store', KEY, 'nobody'], None),
        (1, ['absent', KEY], None),
        (2, ['store'], None),
    ],
    'ls': [
        (0, ['store'], {'objects', 'cursor'}),
        (0, ['store', '--long', '--limit', '1'], {'objects', 'cursor'}),
        (0, ['store', '--tenant', 'nobody'], {'objects', 'cursor'}),
        (1, ['absent'], None),
        (2, [], None),
        (2, ['store', 'more'], None),
        (2, ['store', '--older', 'yesterday'], None),
        (2, ['store', '--limit', '0x'], None),
    ],
    'stat': [
        (0, ['store'], {'medium', 'status', 'tenants', 'models'}),
        (0, ['store', KEY], {'key', 'bytes', 'state', 'tenant', 'model', 'name', 'parent', 'namespace'}),
        (1, ['store', 'nobody'], None),
        (1, ['absent'], None),
        (2, [], None),
        (2, ['store', KEY, OTHER], None),
    ],
    'verify': [
        (0, ['store'], {'complete', 'checked', 'bytes', 'bad', 'gone', 'skipped', 'seconds'}),
        (0, ['store', '--resume', '--rate', '1GB', '--state', 'kept'], {'complete'}),
        (1, ['bad'], None),
        (1, ['absent'], None),
        (2, [], None),
        (2, ['store', '--rate', 'fast'], None),
    ],
    'df': [
        (0, ['store'], {'used_bytes', 'cap_bytes', 'used_fraction', 'limit_bytes', 'processes', 'tenants', 'medium'}),
        (0, ['store', '--quick'], {'used_bytes', 'tenants'}),
        (1, ['absent'], None),
        (2, [], None),
        (2, ['store', 'more'], None),
    ],
    'cap': [
        (0, ['store'], {'cap_bytes', 'used_bytes', 'leased_bytes', 'limit_bytes', 'changed'}),
        (0, ['store', '1GiB'], {'cap_bytes', 'changed'}),
        (0, ['store', 'none'], {'cap_bytes', 'changed'}),
        (1, ['absent'], None),
        (1, ['absent', '1GiB'], None),
        (2, [], None),
        (2, ['store', 'lots'], None),
        (2, ['store', '1GiB', 'more'], None),
    ],
    'quota': [
        (0, ['store'], {'default_quota_bytes', 'tenants'}),
        (0, ['store', 't1'], {'default_quota_bytes', 'tenants'}),
        (0, ['store', 't1', '1GiB'], {'tenant', 'quota_bytes'}),
        (0, ['store', '--default', 'none'], {'tenant', 'quota_bytes'}),
        (1, ['store', 'stranger'], None),
        (1, ['absent'], None),
        (2, [], None),
        (2, ['store', 't1', 'much'], None),
        (2, ['store', 't1', '1', '2'], None),
        (2, ['store', '--default', 't1', '1'], None),
    ],
    'evict': [
        (0, ['store', '50%'], {'wanted_bytes', 'evicted_bytes', 'objects'}),
        (0, ['store', '1', '--policy', 'ARC'], {'objects'}),
        (1, ['store', '1GiB'], None),
        (1, ['absent', '50%'], None),
        (2, ['store'], None),
        (2, ['store', '101%'], None),
        (2, ['store', '1', '--policy', 'FIFO'], None),
    ],
    'purge': [
        (0, ['store', '--tenant', 't1'], {'dry_run', 'found', 'found_bytes', 'removed', 'removed_bytes', 'gone', 'failed'}),
        (0, ['store', '--tenant', 'nobody'], {'removed'}),
        (0, ['store', '--older', '0s', '--dry-run'], {'found'}),
        (1, [SICK % 'move', '--tenant', 't1'], None),
        (1, ['absent', '--older', '0s'], None),
        (2, ['store'], None),
        (2, ['store', '--namespace', 'abc'], None),
        (2, ['store', '--older', 'long'], None),
    ],
    'fsck': [
        (0, ['store'], {'sound', 'disk_bytes', 'objects', 'used_bytes', 'leased_bytes', 'drift_bytes', 'at_rest'}),
        (0, ['store', '--repair'], {'sound'}),
        (1, [RAM], None),
        (1, ['absent'], None),
        (2, [], None),
        (2, ['store', 'more'], None),
    ],
    'doctor': [
        (1, ['{"frob": 1}'], None),
        (0, [], {'worst', 'findings'}),
        (0, ['store'], {'worst', 'findings'}),
        (0, ['absent'], {'worst', 'findings'}),
        (1, ['open'], None),
        (2, ['store', 'more'], None),
    ],
    'namespace': [
        (0, ['store'], {'digest', 'manifest'}),
        (0, ['store', 'show', 'DIGEST'], {'model'}),
        (0, ['store', 'diff', 'DIGEST', '@manifest'], {'path', 'a', 'b'}),
        (1, ['store', 'show', 'abcdef'], None),
        (1, ['store', 'diff', 'DIGEST', '@nowhere'], None),
        (1, ['absent'], None),
        (2, [], None),
        (2, ['store', 'show', 'x'], None),
        (2, ['store', 'diff', 'DIGEST'], None),
        (2, ['store', 'burn'], None),
    ],
    'replay': [
        (0, ['fresh', CHATS, '--bytes-per-token', '8'],
         {'ok', 'requests', 'blocks', 'hits', 'hit_ratio', 'model_hits', 'wrong_bytes', 'bytes_read', 'bytes_written', 'restarts',
          'lookup', 'load', 'store'}),
        (1, [SICK % 'write', CHATS, '--bytes-per-token', '8'], None),
        (1, ['fresh', 'nowhere.jsonl'], None),
        (1, ['open', CHATS], None),
        (2, ['fresh'], None),
        (2, ['fresh', 'chat:users=1'], None),
        (2, ['fresh', CHATS, '--kill-at', '9'], None),
    ],
    'simulate': [
        (0, [CHATS, '--bytes-per-token', '8'],
         {'requests', 'accesses', 'distinct_blocks', 'block_bytes', 'unlimited_hits', 'unlimited_hit_ratio', 'runs'}),
        (1, ['nowhere.jsonl'], None),
        (2, [], None),
        (2, ['chat:users=1'], None),
        (2, [CHATS, '--policy', 'FIFO'], None),
        (2, [CHATS, '--capacity', 'much'], None),
    ],
    'bench': [
        (0, ['store', '--bytes', '4KiB', '--seconds', '20ms', '--total', '256KiB'], {'wrong_bytes', 'put', 'get', 'lookup'}),
        (1, ['open', '--seconds', '20ms'], None),
        (1, [SICK % 'write', '--bytes', '4KiB', '--seconds', '20ms', '--total', '64KiB'], None),
        (2, [], None),
        (2, ['store', '--bytes', '0'], None),
        (2, ['store', '--total', '1', '--bytes', '2'], None),
    ],
}

# What no verb takes: options that there are not; and where a store is named, specifications that are wrong.
NO_VERB_TAKES = [['store', '--frob'], ['store', '--json=yes']]
WRONG_STORES = [['{"backend_params": '], ['{"frob": 1}']]
# What a specification is followed by, for verbs that want more words.
MORE_WORDS = {'put': ['k', 'in'], 'get': ['k'], 'has': ['k'], 'rm': ['k'], 'evict': ['1'], 'purge': ['--tenant', 't1'],
              'replay': [CHATS]}

# How an object is spoilt, and what must be said about it then.
DAMAGES = {
    'the first byte is another': lambda data: bytes([data[0] ^ 1]) + data[1:],
    'a byte in the middle is another': lambda data: data[:50_000] + bytes([data[50_000] ^ 0x80]) + data[50_001:],
    'the last byte of the data is another': lambda data: data[:OBJECT_BYTES - 1] + bytes([data[OBJECT_BYTES - 1] ^ 1]) +
                                            data[OBJECT_BYTES:],
    'a page is zero': lambda data: data[:8192] + bytes(4096) + data[12288:],
    'two pages are swapped': lambda data: data[:8192] + data[12288:16384] + data[8192:12288] + data[16384:],
    'a bit of the footer is another': lambda data: data[:-100] + bytes([data[-100] ^ 1]) + data[-99:],
    'the last byte is missing': lambda data: data[:-1],
    'the footer is missing': lambda data: data[:OBJECT_BYTES],
    'it is empty': lambda data: b'',
    'it is zeros': lambda data: bytes(len(data)),
    'something follows': lambda data: data + bytes(4096),
}


class Bed:
    """The command in a folder of its own: a sound store, one with a damaged object, and one that others may write."""

    def __init__(self, kvkeep, folder):
        self.kvkeep, self.folder, self.number, self.failed = kvkeep, folder, 0, False
        os.chdir(folder)
        os.environ['XDG_STATE_HOME'] = os.path.join(folder, 'state')
        os.mkdir('made')
        with open('in', 'wb') as file:
            file.write(os.urandom(OBJECT_BYTES))
        with open('large', 'wb') as file:
            file.write(bytes(300_000))
        with open('manifest', 'w', encoding='ascii') as file:
            file.write('{"model": "b"}')
        spec = '{"backend_params": {"file_path": "made/store"}, "namespace": {"model": "a"}}'
        self.must('put', spec, KEY, 'in')
        self.must('put', 'made/store', KEY, 'in')
        self.must('put', 'made/store', OTHER, 'in')
        self.digest = json.loads(self.must('namespace', 'made/store', '--json').stdout)[0]['digest']
        self.object_name = json.loads(self.must('stat', 'made/store', KEY, '--json').stdout)['name']
        with open(os.path.join('made/store', self.object_name), 'rb') as file:
            self.object_data = file.read()
        shutil.copytree('made/store', 'made/bad')
        self.spoil('made/bad', DAMAGES['a byte in the middle is another'])
        os.mkdir('made/open')
        os.chmod('made/open', 0o777)

    def must(self, *words):
        done = self.run(*words)
        if done.returncode:
            sys.exit(f'{words} ended with {done.returncode}: {done.stderr}')
        return done

    def run(self, *words):
        words = [self.digest if word == 'DIGEST' else word for word in words]
        return subprocess.run([self.kvkeep, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              check=False, encoding='utf-8', errors='surrogateescape')

    def spoil(self, store, damage):
        with open(os.path.join(store, self.object_name), 'wb') as file:
            file.write(damage(self.object_data))

    def lay_out(self):
        """Everything as it was, whatever the command before did."""
        for name in ['store', 'bad', 'open', 'fresh', 'absent', 'state', 'out', 'kept']:
            if os.path.isdir(name):
                shutil.rmtree(name)
            elif os.path.exists(name):
                os.unlink(name)
        for name in ['store', 'bad', 'open']:
            shutil.copytree(os.path.join('made', name), name)

    def tell(self, name, faults):
        self.number += 1
        print('not ok' if faults else 'ok', self.number, '-', name)
        for fault in faults:
            print('# ' + fault.replace('\n', '\n# '))
        self.failed |= bool(faults)


def members(value, wanted):
    """The members that are missing; those of each element of a list."""
    values = value if isinstance(value, list) else [value]
    if not values:
        return ['any element']
    return sorted({member for each in values for member in wanted if member not in each})


def judge_output(status, done, verb, wanted, as_json):
    if done.returncode != status:
        return f'ended with {done.returncode}, wanted {status}'
    # A replay says what it is about to play before it opens the store.
    if status == 2 and done.stdout and (as_json or verb != 'replay'):
        return 'a wrong command line is told on standard error alone'
    if status == 2 and not done.stderr.startswith('kvkeep'):
        return 'what is wrong is not said'
    if status == 0 and done.stderr:
        return 'done, and something on standard error'
    if status == 1 and not done.stdout and not done.stderr.startswith('kvkeep: '):
        return 'what is wrong is not said'
    if not as_json or (status and not done.stdout):
        return None
    try:
        value = json.loads(done.stdout)
    except ValueError as error:
        return f'not JSON: {error}'
    missing = members(value, wanted or ())
    return f'the JSON lacks {", ".join(missing)}' if missing else None


def check_row(bed, verb, status, words, wanted):
    for as_json in [False, True]:
        bed.lay_out()
        done = bed.run(verb, *words, *(['--json'] if as_json else []))
        fault = judge_output(status, done, verb, wanted, as_json)
        if not fault and os.path.exists('absent'):
            fault = 'a store was made where none was'
        if fault:
            shown = ' '.join(word if len(word) < 100 else word[:100] + '...' for word in words)
            yield f'kvkeep {verb} {shown}{" --json" if as_json else ""}: {fault}\n{done.stdout}{done.stderr}'


def check_verb(bed, verb):
    for status in [0, 1, 2]:
        faults = [fault for row in ROWS[verb] if row[0] == status for fault in check_row(bed, verb, *row)]
        if status == 2:
            # To doctor, an option of a store that there is not is a finding like any other.
            for words in NO_VERB_TAKES + {'doctor': WRONG_STORES[:1], 'simulate': []}.get(verb, WRONG_STORES):
                faults += check_row(bed, verb, 2, [*words, *MORE_WORDS.get(verb, [])], None)
        bed.tell(f'{verb}: {["what is done ends with 0", "what is not there or fails ends with 1", "bad usage ends with 2"][status]}',
                 faults)


def check_help(bed, verb):
    told, same = bed.run('help', verb), bed.run(verb, '--help')
    faults = []
    if told.returncode or same.returncode or told.stderr or same.stderr:
        faults.append(f'ended with {told.returncode} and {same.returncode}: {told.stderr}{same.stderr}')
    if told.stdout != same.stdout:
        faults.append(f'`help {verb}` and `{verb} --help` differ')
    if not told.stdout.startswith(f'usage: kvkeep {verb}') or '--json' not in told.stdout:
        faults.append(told.stdout)
    bed.tell(f'{verb}: help', faults)


def check_command(bed):
    listed = re.findall(r'^  ([a-z]+) ', bed.run('help').stdout, re.MULTILINE)
    bed.tell('every verb of the list is looked at here',
             [f'{sorted(listed)}, and here {sorted(ROWS)}'] if sorted(listed) != sorted([*ROWS, 'help']) else [])
    version = bed.run('--version')
    ok = version.returncode == 0 and re.fullmatch(r'kvkeep \d+\.\d+\.\d+ \(library \d+\.\d+\.\d+\)\n', version.stdout)
    bed.tell('--version', [] if ok else [version.stdout + version.stderr])
    faults = []
    for status, words in [(0, ['help']), (0, ['--help']), (2, []), (2, ['frobnicate']), (2, ['--frob']), (2, ['']),
                          (2, ['help', 'frobnicate']), (2, ['help', 'put', 'get'])]:
        done = bed.run(*words)
        if done.returncode != status or bool(done.stdout) == bool(status) or bool(done.stderr) != bool(status):
            faults.append(f'kvkeep {" ".join(words)} ended with {done.returncode}\n{done.stdout}{done.stderr}')
    bed.tell('what is no verb ends with 2', faults)


def on_terminal(command):
    """What a command writes to a terminal that is its standard error."""
    ours, theirs = pty.openpty()
    told = b''
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs) as process:
        os.close(theirs)
        try:
            while part := os.read(ours, 65536):
                told += part
        except OSError:
            pass            # EIO: nobody has the other end open any more
        os.close(ours)
    return process.returncode, told.decode()


def check_progress(bed):
    """On a terminal with amount, rate and time left, and gone when the work is done; that pipes get none the rows show."""
    faults = []
    for words in [['verify', 'store', '--rate', '100KB'], ['bench', 'store', '--bytes', '64KiB', '--seconds', '1', '--total', '2MiB']]:
        bed.lay_out()
        status, told = on_terminal([bed.kvkeep, *words])
        if status or not re.search(words[0] + r': \d+ of \d+ [a-z]+, [0-9.]+ [KMG]iB, [0-9.]+ GB/s, [0-9.]+ m?s left', told) \
                or not told.endswith('\r\x1b[K'):
            faults.append(f'{words} ended with {status} and told {told!r}')
    bed.tell('long work shows its progress on a terminal', faults)


def check_damage(bed, name, damage):
    """Nothing is written, to a new FILE, an old one or standard output, and one line says what was wrong."""
    faults = []
    for words in [['out'], ['old'], [], ['-'], ['out', '--offset', '99990'], ['out', '--json']]:
        bed.lay_out()
        bed.spoil('bad', damage)
        with open('old', 'w', encoding='ascii') as file:
            file.write('precious')
        done = bed.run('get', 'bad', KEY, *words)
        if not words[1:] == ['--offset', '99990']:
            wrong = done.returncode != 1
        else:
            # A part is proven by the sums of its own blocks, so that damage elsewhere need not be seen.
            wrong = done.returncode == 0 and open('out', 'rb').read() != open('in', 'rb').read()[99990:]
        said = f'kvkeep: {KEY}: damaged\n'
        if done.returncode == 1:
            wrong |= done.stderr != said or os.path.exists('out') or bool(done.stdout) != ('--json' in words)
            if '--json' in words:
                told = json.loads(done.stdout)
                wrong |= told['found'] or told['result'] != 'damaged' or told['bytes'] != 0
        wrong |= open('old', encoding='ascii').read() != 'precious' or any(
            stat.S_ISREG(entry.stat().st_mode) and '.kvkeep-' in entry.name for entry in os.scandir('.'))
        if wrong:
            faults.append(f'get bad {KEY} {" ".join(words)} ended with {done.returncode}\n{done.stdout}{done.stderr}')
    bed.tell(f'get of a damaged object: {name}', faults)


HOSTS_OWN = {
    'nixl_store_dynamic': '{"type": "nixl_store_dynamic", "backend": "POSIX", "backend_params": {"file_path": "fresh", "use_direct_io": '
                          '"true", "max_capacity_gb": "50", "shard_dirs": "true"}, "persist_enabled": true, "eviction": '
                          '{"eviction_policy": "LRU", "trigger_watermark": 0.9, "eviction_ratio": 0.1}}',
    'nixl_store': '{"type": "nixl_store", "backend": "POSIX", "backend_params": {"file_path": "fresh", "use_direct_io": "false"}, '
                  '"pool_size": 64}',
}


def check_specification(bed, name, spec):
    """As LMCache's users have it, word for word; from then on the store's folder is enough."""
    faults = []
    bed.lay_out()
    for words in [['put', spec, KEY, 'in'], ['get', spec, KEY, 'out'], ['get', 'fresh', KEY, 'kept'], ['verify', 'fresh']]:
        done = bed.run(*words)
        if done.returncode:
            faults.append(f'{words} ended with {done.returncode}\n{done.stdout}{done.stderr}')
    for copy in ['out', 'kept']:
        if not faults and open(copy, 'rb').read() != open('in', 'rb').read():
            faults.append(f'{copy}: other bytes')
    done = bed.run('put', spec.replace('"type"', '"pool_sice": 64, "type"'), KEY, 'in')
    if done.returncode == 0 or 'pool_sice' not in done.stderr:
        faults.append(f'an unknown key: {done.returncode}, {done.stderr}')
    bed.tell(f'the specification of LMCache\'s {name}', faults)


def main():
    kvkeep = os.path.abspath(sys.argv[1])
    print(f'1..{len(ROWS) * 4 + 4 + len(DAMAGES) + len(HOSTS_OWN)}')
    # Five hundred stores: in memory, if there is such a place, for none of this depends on the medium.
    place = os.environ.get('KVK_TEST_DIR') or ('/dev/shm' if os.access('/dev/shm', os.W_OK) else None)
    with tempfile.TemporaryDirectory(dir=place) as folder:
        bed = Bed(kvkeep, folder)
        check_command(bed)
        for verb in ROWS:
            check_verb(bed, verb)
            check_help(bed, verb)
        check_progress(bed)
        for name, damage in DAMAGES.items():
            check_damage(bed, name, damage)
        for name, spec in HOSTS_OWN.items():
            check_specification(bed, name, spec)
        os.chdir('/')
    return 1 if bed.failed else 0


if __name__ == '__main__':
    sys.exit(main())
