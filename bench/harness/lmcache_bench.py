# SPDX-License-Identifier: Apache-2.0
"""Runs `lmcache bench l2` as often as it is told to, in LMCache's own environment, and says what each run took.

A line of JSON comes in on standard input for each run, and one goes out on standard output: figures, or what went
wrong. The command is LMCache's own and unchanged. Two of its functions are wrapped: to count CPU time, which it does
not tell, from the first submit of a round until the round's last answer; and to write back and drop the page cache
between its stores and its loads, if that is asked for.
"""

import importlib.metadata
import json
import os
import resource
import statistics
import sys
import time


def cpu_s():
    """Of this process, and with it of the kernel's workers for its rings."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def drop_page_cache(folder):
    for path, _, names in os.walk(folder):
        for name in names:
            fd = os.open(os.path.join(path, name), os.O_RDONLY)
            try:
                os.fsync(fd)               # dirty pages stay where they are
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(fd)


def measured(bench, submit, before=None):
    """LMCache's bench_store or bench_load, keeping each round's duration and CPU time in measured.rounds."""

    def wrapper(adapter, *args, **how):
        if before:
            before()
        started, spent = [], []
        original = getattr(adapter, submit)
        keys_for_round = how['keys_for_round']

        def counted(keys, objects):
            if len(started) == len(spent):
                started.append(cpu_s())
            return original(keys, objects)

        def ended():
            if len(started) > len(spent):
                spent.append(cpu_s() - started[-1])

        def next_round(number):
            ended()
            return keys_for_round(number)

        setattr(adapter, submit, counted)
        try:
            result = bench(adapter, *args, **dict(how, keys_for_round=next_round))
        finally:
            delattr(adapter, submit)
        ended()
        wrapper.result, wrapper.cpu_s = result, spent
        return result

    wrapper.result = None
    return wrapper


def figures(bench, warmup):
    """What a phase delivered after its warm-up, or why it delivered nothing."""
    result = bench.result
    if result is None or result.timed_out_rounds or result.total_success != result.total_keys:
        done = f'{result.total_success} of {result.total_keys} keys' if result else 'nothing'
        raise RuntimeError(f'{result.operation if result else "the bench"}: {done}, '
                           f'{result.timed_out_rounds if result else 0} rounds timed out')
    durations = result.round_durations[warmup:]
    middle_s = statistics.median(durations)
    # By the middle round: where others use the machine, the sum of all rounds tells how often they did.
    return {'objects': len(durations) * result.keys_per_round, 'bytes': len(durations) * result.total_data_bytes_per_round,
            'wall_s': sum(durations), 'cpu_s': sum(bench.cpu_s[warmup:]),
            'bytes_per_s': result.total_data_bytes_per_round / middle_s, 'p50_us': middle_s * 1e6,
            'max_us': max(durations) * 1e6}


def run(order):
    """One `lmcache bench l2`: stores, looks up, loads, compares."""
    from lmcache.cli import main
    from lmcache.cli.commands.bench.l2_adapter_bench import runner

    plain = runner.bench_store, runner.bench_load
    store = measured(runner.bench_store, 'submit_store_task')
    load = measured(runner.bench_load, 'submit_load_task',
                    (lambda: drop_page_cache(order['folder'])) if order['cold'] else None)
    runner.bench_store, runner.bench_load = store, load
    try:
        main.main(['bench', 'l2', '--l2-adapter', json.dumps(order['spec']), '--num-keys', '1',
                   '--in-flight', str(order['in_flight']), '--data-size-kb', str(order['object_bytes'] >> 10),
                   '--l1-align-bytes', '4096', '--rounds', str(order['rounds']), '--warmup-rounds',
                   str(order['warmup']), '--lookup-max-hit-rate', '1', '--no-skip-verify'])
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f'lmcache bench l2 ended with status {end.code}') from None
    finally:
        runner.bench_store, runner.bench_load = plain
    return {'store': figures(store, order['warmup']), 'load': figures(load, order['warmup'])}


def versions():
    """What is installed, and why something cannot be used that is."""
    found = {}
    for name in ('lmcache', 'nixl', 'torch', 'kvkeep'):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    try:
        import nixl._api  # noqa: F401
    except Exception as error:     # what a broken library raises is not known
        found['nixl_fault'] = f'{type(error).__name__}: {error}'
    return found


def main():
    # What LMCache and the libraries below it print goes to the log; the answers have standard output for themselves.
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)
    sys.stdout = sys.stderr

    def answer(record):
        answers.write(json.dumps(record) + '\n')
        answers.flush()

    # What the first run would load, before anybody waits for it.
    import lmcache.cli.main  # noqa: F401
    import lmcache.cli.commands.bench.l2_adapter_bench.runner  # noqa: F401
    import lmcache.v1.distributed.l2_adapters  # noqa: F401

    answer(versions())
    for line in sys.stdin:
        started = time.monotonic()
        try:
            record = run(json.loads(line))
        except Exception as error:
            record = {'failed': f'{error or type(error).__name__}'}
        answer(dict(record, seconds=time.monotonic() - started))


if __name__ == '__main__':
    main()
