#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
Completion as a user meets it: a real bash and a real zsh, the latter on a terminal of its own with the key pressed, are
asked what they offer, and that is compared with what `kvkeep help` says there is.

Usage: test_completion.py KVKEEP SOURCE        speaks TAP; what wants zsh is skipped where there is none
"""

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

# How often a key is waited for, and how long: a busy machine takes its time.
PATIENCE_S = 60

# zsh's completion, with all that is offered written to a file before the shell shows it. Calls with -A, -O or -D only
# compute: they belong to _arguments and _describe themselves.
ZSHRC = r'''
PROMPT= RPROMPT= PROMPT_EOL_MARK=
unset HISTFILE
unsetopt beep correct
fpath=($KVK_COMPLETIONS $fpath)
autoload -Uz compinit
compinit -D -u || print -r failed >$KVK_LOADED
compadd()
{
	local -a offered

	if [[ ${@[1,(i)(-|--)]} != *-[a-zA-Z0-9]#[AOD]* ]]; then
		builtin compadd -O offered "$@"
		print -rl -- $offered >>$KVK_OFFERED
	fi
	builtin compadd "$@"
}
complete-and-tell()
{
	: >$KVK_OFFERED
	zle complete-word
	print -r -- "$BUFFER" >$KVK_LINE.new
	mv $KVK_LINE.new $KVK_LINE
	BUFFER=
}
zle -N complete-and-tell
bindkey '^X' complete-and-tell
setopt extended_glob
zstyle ':completion:*' menu no
print -r -- "$_comps[kvkeep]" >$KVK_LOADED.new
mv $KVK_LOADED.new $KVK_LOADED
'''

BASH = r'''
source "$KVK_COMPLETIONS/kvkeep.bash"
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_kvkeep 2>/dev/null
printf '%s\n' "${COMPREPLY[@]}"
'''


class Bash:
    name = 'bash'

    def __init__(self, completions):
        self.environment = {**os.environ, 'KVK_COMPLETIONS': completions}

    def offers(self, *words):
        done = subprocess.run(['bash', '--norc', '-c', BASH, 'bash', *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, check=False, env=self.environment)
        return {line for line in done.stdout.splitlines() if line}

    def loads(self):
        return 'kvkeep' in subprocess.run(['bash', '--norc', '-c', 'source "$KVK_COMPLETIONS/kvkeep.bash" && complete -p kvkeep'],
                                          stdout=subprocess.PIPE, text=True, check=False, env=self.environment).stdout


class Zsh:
    name = 'zsh'

    def __init__(self, completions, folder):
        os.mkdir(f'{folder}/zsh')
        with open(f'{folder}/zsh/.zshrc', 'w', encoding='ascii') as file:
            file.write(ZSHRC)
        self.files = {name: f'{folder}/zsh/{name}' for name in ['loaded', 'line', 'offered']}
        environment = {**os.environ, 'ZDOTDIR': f'{folder}/zsh', 'KVK_COMPLETIONS': completions, 'TERM': 'dumb', 'LC_ALL': 'C',
                       **{'KVK_' + name.upper(): path for name, path in self.files.items()}}
        self.said = b''
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            # -d: nothing from /etc that would set up another completion.
            os.execvpe('zsh', ['zsh', '-d', '-i'], environment)

    def wait_for(self, name):
        """What a file holds that the shell makes, and what it says meanwhile taken off its hands."""
        begin = time.monotonic()
        while not os.path.exists(self.files[name]):
            if time.monotonic() - begin > PATIENCE_S:
                raise TimeoutError(f'zsh did not answer; it said {self.said[-2000:]!r}')
            if select.select([self.terminal], [], [], 0.01)[0]:
                self.said += os.read(self.terminal, 65536)
        with open(self.files[name], encoding='utf-8') as file:
            return file.read().rstrip('\n')

    def loads(self):
        return self.wait_for('loaded') == '_kvkeep'

    def complete(self, *words):
        """What the line becomes, and what was offered for it."""
        if os.path.exists(self.files['line']):
            os.unlink(self.files['line'])
        os.write(self.terminal, ' '.join(words).encode() + b'\x18')
        line = self.wait_for('line')
        with open(self.files['offered'], encoding='utf-8') as file:
            return line, {offered for offered in file.read().splitlines() if offered}

    def offers(self, *words):
        return self.complete(*words)[1]

    def close(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.terminal)


class Cases:
    def __init__(self, kvkeep):
        self.kvkeep, self.number, self.failed = kvkeep, 0, False

    def help(self, *words):
        return subprocess.run([self.kvkeep, 'help', *words], stdout=subprocess.PIPE, text=True, check=True).stdout

    def tell(self, name, faults):
        self.number += 1
        print('not ok' if faults else 'ok', self.number, '-', name)
        for fault in faults:
            print('# ' + fault.replace('\n', '\n# '))
        self.failed |= bool(faults)

    def skip(self, name, why):
        self.number += 1
        print(f'ok {self.number} - {name} # SKIP {why}')

    def compare(self, name, pairs):
        """pairs: what was typed, what was offered, and what is wanted."""
        self.tell(name, [f'{" ".join(typed)!r}: offered {sorted(offered)}, wanted {sorted(wanted)}'
                         for typed, offered, wanted in pairs if offered != wanted])


NAMES = ['completion loads', 'every verb is offered', 'the options of each verb are offered, and no others',
         'words that an option or a place takes are offered', 'a beginning is completed', 'stores and files are offered']


def check_shell(cases, shell):
    verbs = set(re.findall(r'^  ([a-z]+) ', cases.help(), re.MULTILINE))
    name = {what: f'{shell.name}: {what}' for what in NAMES}
    cases.tell(name['completion loads'], [] if shell.loads() else ['nothing completes kvkeep'])
    typed = ['kvkeep', '']
    cases.compare(name['every verb is offered'], [(typed, shell.offers(*typed) - {'--version'}, verbs),
                                                  (['kvkeep', 'help', ''], shell.offers('kvkeep', 'help', ''),
                                                   verbs - {'help'})])
    pairs = []
    for verb in sorted(verbs - {'help'}):
        # With its short form before it, as in `-q, --quiet`.
        options = set(re.findall(r'^  (?:-[a-z], )?(--[a-z-]+)', cases.help(verb), re.MULTILINE))
        typed = ['kvkeep', verb, '--']
        pairs.append((typed, shell.offers(*typed), options | {'--json', '--help'}))
    cases.compare(name['the options of each verb are offered, and no others'], pairs)
    cases.compare(name['words that an option or a place takes are offered'], [
        (typed, shell.offers(*typed), wanted) for typed, wanted in [
            (['kvkeep', 'put', '--durability', ''], {'none', 'batch', 'object'}),
            (['kvkeep', 'replay', '--durability', 'b'], {'batch'}),
            (['kvkeep', 'evict', '--policy', ''], {'LRU', 'S3FIFO', 'ARC', 'IsolatedLRU'}),
            (['kvkeep', 'namespace', 'store', ''], {'show', 'diff'}),
            (['kvkeep', 'cap', 'store', 'n'], {'none'}),
            (['kvkeep', 'quota', 'store', 'tenant', ''], {'none'}),
        ]])
    pairs = [(['kvkeep', 're'], shell.offers('kvkeep', 're'), {'replay'}),
             (['kvkeep', 'ls', 'store', '--te'], shell.offers('kvkeep', 'ls', 'store', '--te'), {'--tenant'})]
    if isinstance(shell, Zsh):
        pairs += [(['kvkeep', 'fs'], {shell.complete('kvkeep', 'fs')[0]}, {'kvkeep fsck '}),
                  (['kvkeep', 'purge', 'store', '--dr'], {shell.complete('kvkeep', 'purge', 'store', '--dr')[0]},
                   {'kvkeep purge store --dry-run '})]
    cases.compare(name['a beginning is completed'], pairs)
    cases.compare(name['stores and files are offered'], [
        (typed, {offered.rstrip('/') for offered in shell.offers(*typed)}, wanted) for typed, wanted in [
            (['kvkeep', 'ls', 'st'], {'store'}),
            (['kvkeep', 'get', 'store', 'key', 'blo'], {'block'}),
            (['kvkeep', 'replay', 'store', 'tr'], {'trace.jsonl'}),
        ]])


def main():
    kvkeep, source = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    completions = os.path.join(source, 'completions')
    cases = Cases(kvkeep)
    print(f'1..{2 * len(NAMES)}')
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(f'{folder}/there')
        os.chdir(f'{folder}/there')
        os.mkdir('store')
        for name in ['block', 'trace.jsonl', 'start']:
            with open(name, 'w', encoding='ascii'):
                pass
        check_shell(cases, Bash(completions))
        if shutil.which('zsh'):
            shell = Zsh(completions, folder)
            try:
                check_shell(cases, shell)
            finally:
                shell.close()
        else:
            for name in NAMES:
                cases.skip(f'zsh: {name}', 'zsh is not installed')
        os.chdir('/')
    return 1 if cases.failed else 0


if __name__ == '__main__':
    sys.exit(main())
